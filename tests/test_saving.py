"""save and load: the same flow back, and a clear word for every damaged file."""

import json
import math

import pytest
import torch
from contract import CONTRACT, StartsFromData
from safetensors import safe_open
from safetensors.torch import save_file

import minflow as mf
from minflow.transform import interval

OWN = [name for name in CONTRACT if not name.startswith(("Conditional", "Starts", "Compose"))]


BASES = [
    torch.distributions.Uniform(torch.zeros(2), torch.ones(2)),
    torch.distributions.Beta(torch.ones(2), torch.full((2,), 2.0)),
    torch.distributions.MultivariateNormal(torch.zeros(2), torch.tensor([[2.0, 0.3], [0.3, 1.0]])),
]


def moved(flow):
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_()
    return flow


def a_flow():
    torch.manual_seed(0)
    parts = mf.TriangularAffine(2), mf.Inverse(mf.Elementwise(2, mf.MixtureCDF(components=3)))
    return moved(mf.Flow(mf.Compose(*parts)))


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_own_flows_come_back_without_help(tmp_path, name, dtype):
    def make():
        transform, base = CONTRACT[name].make(3), None
        if interval(transform.domain) == (0, 1):
            base = torch.distributions.Uniform(0, torch.ones(3))
        elif interval(transform.domain) != (-math.inf, math.inf):  # the circle
            base = torch.distributions.Uniform(
                *(math.pi * torch.tensor([[-1.0], [1.0]]).expand(2, 3))
            )
        return mf.Flow(transform, base).to(dtype)

    flow = moved(make())
    mf.save(flow, tmp_path / "flow")
    # A base of torch's, or a network of one's own, cannot be described: such a flow is filled.
    foreign = not isinstance(flow.base, mf.StandardNormal) or name == "Coupling[MixtureCDF]"
    again = mf.load(tmp_path / "flow", make() if foreign else None)
    assert repr(again) == repr(flow)
    x = torch.rand(5, 3, dtype=dtype)
    context = torch.rand(5, flow.context_dim, dtype=dtype) if flow.context_dim else None
    assert torch.equal(again.log_prob(x, context), flow.log_prob(x, context))
    assert [p.requires_grad for p in again.parameters()] == [True] * len(list(flow.parameters()))


def test_a_loaded_flow_can_be_trained_and_saved_again(tmp_path):
    mf.save(a_flow(), tmp_path / "flow")
    again = mf.load(tmp_path / "flow")
    mf.fit(again, torch.randn(50, 2), steps=2)
    mf.save(again, tmp_path / "flow")
    assert mf.load(tmp_path / "flow").dim == 2
    assert [path.name for path in tmp_path.iterdir()] == ["flow"]


def test_a_flow_with_foreign_parts_is_filled(tmp_path):
    flow = moved(mf.Flow(mf.Compose(StartsFromData(2), mf.TriangularAffine(2))))
    mf.save(flow, tmp_path / "flow")
    with pytest.raises(ValueError, match=r"StartsFromData.*load\(path, flow\)"):
        mf.load(tmp_path / "flow")
    twin = mf.Flow(mf.Compose(StartsFromData(2), mf.TriangularAffine(2)))
    assert mf.load(tmp_path / "flow", twin) is twin
    assert torch.equal(twin.log_prob(torch.ones(2)), flow.log_prob(torch.ones(2)))


def test_a_layer_used_twice_is_not_split_in_two(tmp_path):
    layer = mf.TriangularAffine(2)
    flow = moved(mf.Flow(mf.Compose(layer, layer)))
    mf.save(flow, tmp_path / "flow")
    with pytest.raises(ValueError, match="hand it in"):
        mf.load(tmp_path / "flow")


def test_a_flow_that_does_not_fit_stays_as_it_was(tmp_path):
    mf.save(a_flow(), tmp_path / "flow")
    others = [
        (mf.Flow(mf.TriangularAffine(2)), "missing"),
        (a_flow().double(), "float32 in the file.*float64 in the flow"),
        (
            mf.Flow(
                mf.Compose(
                    mf.TriangularAffine(2),
                    mf.Inverse(mf.Elementwise(2, mf.MixtureCDF(components=4))),
                )
            ),
            r"\(9, 2\).*\(12, 2\)",
        ),
    ]
    for other, words in others:
        before = {k: v.clone() for k, v in other.state_dict().items()}
        with pytest.raises(ValueError, match=words):
            mf.load(tmp_path / "flow", other)
        for name, tensor in other.state_dict().items():
            assert torch.equal(tensor, before[name])


def rewritten(path, **changes):
    """The file again, with some of its metadata changed."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() | changes
    save_file(tensors, path, metadata)


def test_a_file_cut_short_is_named(tmp_path):
    path = tmp_path / "flow"
    mf.save(a_flow(), path)
    whole = path.read_bytes()
    for length in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cut short|safetensors"):
            mf.load(path)


def test_every_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "flow"
    mf.save(a_flow(), path)
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="flow"):
            mf.load(path)


def test_a_newer_format_is_named(tmp_path):
    path = tmp_path / "flow"
    mf.save(a_flow(), path)
    rewritten(path, minflow_format="2")
    with pytest.raises(ValueError, match="newer minflow"):
        mf.load(path)


def test_a_changed_description_is_noticed(tmp_path):
    path = tmp_path / "flow"
    mf.save(a_flow(), path)
    rewritten(path, description=json.dumps({"class": "Flow", "arguments": {}}))
    with pytest.raises(ValueError, match="changed after it was saved"):
        mf.load(path)


@pytest.mark.parametrize(
    "description",
    [
        {"class": "system", "arguments": {}},
        {"class": "Flow", "arguments": {}},
        {"class": "Flow"},
        {"class": "Flow", "arguments": {"transform": 3, "base": 4}},
        {"class": "TriangularAffine", "arguments": {"dim": 2}},
        {"class": "TriangularAffine", "arguments": {"dim": "2"}},
        [],
        7,
    ],
)
def test_a_forged_description_builds_nothing(tmp_path, description):
    from minflow.saving import _digest

    path = tmp_path / "flow"
    mf.save(a_flow(), path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    text = json.dumps(description)
    rewritten(path, description=text, sha256=_digest(text, tensors))
    with pytest.raises(ValueError, match="flow"):
        mf.load(path)


def test_a_huge_dim_takes_no_memory(tmp_path):
    from minflow.saving import _digest

    path = tmp_path / "flow"
    mf.save(mf.Flow(mf.Elementwise(2, mf.Affine())), path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = file.metadata()["description"].replace('"dim": 2', '"dim": 1000000000000')
    rewritten(path, description=text, sha256=_digest(text, tensors))
    with pytest.raises(ValueError, match="does not fit"):
        mf.load(path)


def test_other_files_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        mf.load(tmp_path / "nowhere")
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="not written by minflow"):
        mf.load(tmp_path / "foreign")
    (tmp_path / "text").write_text("hello, this is no flow at all")
    with pytest.raises(ValueError, match="safetensors"):
        mf.load(tmp_path / "text")
    with pytest.raises(TypeError, match="TriangularAffine"):
        mf.save(mf.TriangularAffine(2), tmp_path / "x")
    with pytest.raises(TypeError, match="fills a Flow; got TriangularAffine"):
        mf.load(tmp_path / "text", mf.TriangularAffine(2))


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "flow"
    mf.save(a_flow(), path)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr("minflow.saving.os.fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        mf.save(moved(a_flow()), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["flow"]


def test_a_loaded_flow_does_not_change_with_its_file(tmp_path):
    mf.save(a_flow(), tmp_path / "one")
    loaded = mf.load(tmp_path / "one")
    before = loaded.log_prob(torch.ones(2))
    mf.save(moved(a_flow()), tmp_path / "two")
    (tmp_path / "one").write_bytes((tmp_path / "two").read_bytes())
    assert torch.equal(loaded.log_prob(torch.ones(2)), before)


@pytest.mark.parametrize("base", BASES, ids=repr)
def test_every_base_is_saved(tmp_path, base):
    flow = moved(mf.Flow(mf.Elementwise(2, mf.Affine()), base))
    mf.save(flow, tmp_path / "flow")
    twin = mf.load(tmp_path / "flow", mf.Flow(mf.Elementwise(2, mf.Affine()), base))
    x = flow.sample(3)
    assert torch.equal(twin.log_prob(x), flow.log_prob(x))


class MyAffine(mf.TriangularAffine):
    """A reader's own, with the same state and another meaning."""


def test_a_flow_of_the_same_shapes_and_another_make_is_told_apart(tmp_path):
    pairs = [
        (mf.Elementwise(2, mf.Affine(bound=2.0)), mf.Elementwise(2, mf.Affine())),
        (mf.Elementwise(2, mf.LeakyReLU(1.0)), mf.Elementwise(2, mf.LeakyReLU(5.0))),
        (MyAffine(2), mf.TriangularAffine(2)),
    ]
    for saved, other in pairs:
        mf.save(mf.Flow(saved), tmp_path / "flow")
        with pytest.raises(ValueError, match="holds Flow.*but the flow is Flow"):
            mf.load(tmp_path / "flow", mf.Flow(other))


def test_a_link_stays_a_link_and_a_missing_folder_is_named(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "flow")
    mf.save(a_flow(), tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and mf.load(tmp_path / "flow").dim == 2
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        mf.save(a_flow(), tmp_path / "nowhere" / "flow")
