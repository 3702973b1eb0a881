"""A run that dies goes on from its last checkpoint and ends, bit for bit, where it would have."""

import copy
import functools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

import minflow as mf
from minflow import checkpoint
from minflow.run import Plan, Run


class Noisy(Dataset):
    """Points that are blurred anew each time they are read: the generators matter."""

    def __init__(self, points):
        self.points = points

    def __len__(self):
        return len(self.points)

    def __getitem__(self, row):
        return self.points[row] + 0.1 * torch.randn(2)


def points(count=600):
    return mf.data.TwoMoons(0.1).sample((count,), generator=torch.Generator().manual_seed(0))


def new_flow():
    torch.manual_seed(1)
    return mf.Flow(
        mf.Compose(mf.Elementwise(2, mf.MixtureCDF(3)), mf.Householder(2), mf.TriangularAffine(2))
    )


def train(kind, **options):
    """A run with all that a checkpoint must hold: the flow that it made, and its history."""
    flow = new_flow()
    data = Noisy(points()) if kind == "data set" else points(40 if kind == "few" else 600)
    settings = dict(steps=600, batch_size=64, lr=0.02, warmup=20, clip=5.0, check_every=40, seed=3)
    if kind == "energy":
        settings.pop("check_every")
        energy = mf.data.GaussianMixture([[-1.0, 0.0], [1.0, 1.0]], [0.5, 0.7])
        history = mf.fit_energy(flow, energy.log_prob, **(settings | options))
    else:
        history = mf.fit(flow, data, validation=0.5, **(settings | options))
    return flow, history


def assert_same(one, other):
    (flow, history), (flow_again, history_again) = one, other
    for name, tensor in flow.state_dict().items():
        assert torch.equal(tensor, flow_again.state_dict()[name]), name
    assert repr(vars(history)) == repr(vars(history_again))  # NaN is no equal of NaN


class Dies(Exception):
    pass


@functools.cache
def unbroken_run(kind):
    return train(kind)


@pytest.mark.parametrize(
    ("kind", "after"),
    [("tensor", n) for n in (1, 99, 100, 101, 350)] + [("data set", 350), ("energy", 250)],
)
def test_a_run_that_dies_ends_where_the_unbroken_one_does(kind, after, tmp_path, monkeypatch):
    path, unbroken = tmp_path / "run.ckpt", unbroken_run(kind)
    die_after(after, kind, path, monkeypatch)
    torch.manual_seed(99)  # whatever else draws in between
    assert_same(unbroken, train(kind, checkpoint=path, checkpoint_every=50))
    assert_same(unbroken, train(kind, checkpoint=path))  # and a run that is over stays so


def die_after(steps_taken, kind, path, monkeypatch):
    """Leave the checkpoint of a run that died after so many steps."""
    dying_optimizer(
        steps_taken, monkeypatch, lambda: train(kind, checkpoint=path, checkpoint_every=50)
    )
    assert path.exists()  # written before the first step already


def dying_optimizer(steps_taken, monkeypatch, run):
    steps = 0
    take = torch.optim.Adam.step

    def dies(self, *arguments, **options):
        nonlocal steps
        steps += 1
        if steps == steps_taken:
            raise Dies
        return take(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", dies)
        with pytest.raises(Dies):
            run()


@pytest.mark.parametrize("forgets", ["step", "flow", "optimizer", "generators", "history", "best"])
def test_a_checkpoint_that_forgets_something_ends_elsewhere(forgets, tmp_path, monkeypatch):
    kind = "few" if forgets == "best" else "data set"  # few overfit: the best was early
    path, unbroken = tmp_path / "run.ckpt", unbroken_run(kind)
    die_after(350, kind, path, monkeypatch)
    fresh = Run(new_flow(), Plan(600, 64, 0.02, 20, 5.0, "stop", 3, None, None, 1)).state()
    remembered = checkpoint.read
    monkeypatch.setattr(checkpoint, "read", lambda *a: remembered(*a) | {forgets: fresh[forgets]})
    with pytest.raises((AssertionError, KeyError)):
        assert_same(unbroken, train(kind, checkpoint=path))


@pytest.mark.parametrize("after", range(9, 18))
def test_a_step_that_is_skipped_after_a_death_goes_back_as_far(after, tmp_path, monkeypatch):
    data = torch.linspace(0.1, 0.9, 64).unsqueeze(-1)
    data[5] = 1.5  # outside the support: one step in eight is skipped

    def run(**options):
        flow = mf.Flow(mf.Compose(mf.Elementwise(1, mf.Affine()), mf.Elementwise(1, mf.Sigmoid())))
        settings = dict(steps=25, batch_size=8, on_nonfinite="skip")
        return flow, mf.fit(flow, data, **settings, **options)

    unbroken, options = run(), dict(checkpoint=tmp_path / "run", checkpoint_every=1)
    assert len(unbroken[1].skipped) >= 3
    dying_optimizer(after, monkeypatch, lambda: run(**options))
    assert_same(unbroken, run(**options))


def test_a_run_is_not_changed_by_being_written_down(tmp_path):
    assert_same(train("tensor"), train("tensor", checkpoint=tmp_path / "run", checkpoint_every=7))
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_early_stopping_is_remembered(tmp_path):
    options = dict(patience=1, lr=0.3, on_nonfinite="skip")
    unbroken = train("tensor", **options)
    assert len(unbroken[1].loss) < 600
    for _ in range(2):
        again = train("tensor", checkpoint=tmp_path / "run", checkpoint_every=30, **options)
        assert_same(unbroken, again)


# It forks children that train and kills each after a random while, until twenty have died; a run
# that ends in between must end where the unbroken one did, and starts anew.
NURSERY = """
import os, random, signal, sys, time
import torch
torch.set_num_threads(1)
from pathlib import Path
from test_checkpoint import assert_same, train

kind, folder = sys.argv[1], Path(sys.argv[2])
unbroken = train(kind)
path, done = folder / "run.ckpt", folder / "done"
clock, killed, ended = random.Random(kind), 0, 0
while killed < 20 or ended == 0:
    child = os.fork()
    if child == 0:
        assert_same(unbroken, train(kind, checkpoint=path, checkpoint_every=3))
        done.touch()
        os._exit(0)
    if killed < 20:
        time.sleep(clock.uniform(0.01, 0.5))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if done.exists():
        done.unlink()
        path.unlink()
        ended += 1
    else:
        assert os.WIFSIGNALED(status), f"a child failed with status {status}"
        killed += 1
print(killed, "killed,", ended, "ended")
"""


@pytest.mark.parametrize("kind", ["tensor", "data set"])
def test_a_run_killed_at_twenty_random_moments_ends_where_the_unbroken_one_does(kind, tmp_path):
    nursery = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", NURSERY, kind, str(tmp_path)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert nursery.returncode == 0, nursery.stderr
    assert nursery.stdout.startswith("20 killed,")


def test_a_write_that_dies_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run"
    checkpoint.write(path, {"a": 1}, {"step": 1})

    def dies(*_):
        raise Dies

    for name in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(f"minflow.checkpoint.os.{name}", dies)
            with pytest.raises(Dies):
                checkpoint.write(path, {"a": 1}, {"step": 2})
        assert checkpoint.read(path, {"a": 1}) == {"step": 1}
    (tmp_path / ".run.partial").write_bytes(b"left by a run that was killed")
    checkpoint.write(path, {"a": 1}, {"step": 3})
    assert checkpoint.read(path, {"a": 1}) == {"step": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(lr=0.5), r"lr \(0\.02, now 0\.5\)"),
        (dict(steps=700), r"steps \(600, now 700\)"),
        (dict(batch_size=32), "batch_size"),
        (dict(seed=4), "seed"),
        (dict(on_nonfinite="skip"), "on_nonfinite"),
    ],
)
def test_another_run_does_not_go_on_from_this_one(change, words, tmp_path):
    path = tmp_path / "run"
    train("tensor", checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=words):
        train("tensor", checkpoint=path, **change)
    assert path.read_bytes() == before


def test_other_data_or_another_flow_do_not_go_on_from_it(tmp_path):
    path, data = tmp_path / "run", points()
    mf.fit(new_flow(), data, steps=5, checkpoint=path)
    other = data.clone()
    other[0, 0] += 1
    with pytest.raises(ValueError, match="other settings: data"):
        mf.fit(new_flow(), other, steps=5, checkpoint=path)
    with pytest.raises(ValueError, match=r"other settings: flow .*MixtureCDF\(components=2"):
        mf.fit(mf.Flow(mf.Elementwise(2, mf.MixtureCDF(2))), data, steps=5, checkpoint=path)
    frozen = new_flow()
    frozen.transform.transforms[2].shift.requires_grad_(False)
    with pytest.raises(ValueError, match="other settings: trained"):
        mf.fit(frozen, data, steps=5, checkpoint=path)


def test_a_flow_of_other_shapes_is_named_before_anything_is_loaded(tmp_path):
    class Own(mf.Elementwise):
        """A part that a checkpoint knows by name only."""

    def flow(components):
        layers = mf.Householder(2), Own(2, mf.MixtureCDF(components))
        return mf.Flow(mf.Compose(*layers))

    path = tmp_path / "run"
    mf.fit(flow(3), points(), steps=5, checkpoint=path)
    other = flow(2)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=r"1\.params is \(\(9, 2\), .* there and \(\(6, 2\)"):
        mf.fit(other, points(), steps=5, checkpoint=path)
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "other", "newer"])
def test_a_damaged_file_is_named_and_kept(damage, tmp_path):
    path = tmp_path / "run"
    mf.fit(new_flow(), points(), steps=5, checkpoint=path)
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        path.write_bytes(bytes(b ^ 255 for b in whole))
    elif damage == "text":
        path.write_text("not a checkpoint")
    elif damage == "other":
        torch.save([1, 2], path)
    else:
        torch.save({"minflow_checkpoint": 2, "settings": {}, "state": {}}, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="run' (is damaged|has format 2)"):
        mf.fit(new_flow(), points(), steps=5, checkpoint=path)
    assert path.read_bytes() == before


def test_a_folder_that_is_missing_is_named_before_a_step_is_taken(tmp_path):
    flow = new_flow()
    before = copy.deepcopy(flow.state_dict())
    with pytest.raises(FileNotFoundError, match="no folder"):
        mf.fit(flow, points(), steps=5, checkpoint=tmp_path / "none" / "run")
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())


def test_a_start_from_data_is_not_repeated(tmp_path):
    from contract import StartsFromData

    def run(**options):
        flow = mf.Flow(StartsFromData(2))
        return flow, mf.fit(flow, 3 * points(), steps=30, seed=1, **options)

    unbroken, path = run(), tmp_path / "run"
    assert_same(unbroken, run(checkpoint=path))
    assert_same(unbroken, run(checkpoint=path))
