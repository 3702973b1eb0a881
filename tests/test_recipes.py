"""Ready-made flows: each found by itself, and held to what all of them promise."""

import inspect
import math

import pytest
import torch

import minflow as mf

RECIPES = {
    name: recipe
    for name, recipe in vars(mf.recipes).items()
    if inspect.isfunction(recipe) and name[0] != "_" and recipe.__module__ == "minflow.recipes"
}
COUPLINGS = [name for name in RECIPES if name in ("nice", "realnvp", "glow", "nsf")]
AUTOREGRESSIVE = [name for name in RECIPES if name in ("maf", "iaf", "nsf_ar")]
# What one of `layers` is.
LAYERS = mf.Planar, mf.Radial, mf.Sylvester, mf.Coupling, mf.Autoregressive

each = pytest.mark.parametrize("name", RECIPES)


def smallest(name):
    """The smallest D and the smallest number of layers, as the docstring says."""
    words = " ".join(inspect.getdoc(RECIPES[name]).split())
    dim = int(words.partition("dim: D, at least ")[2][0])
    return dim, 1 if name in COUPLINGS + AUTOREGRESSIVE else 0


def moved_away(flow):
    """With all parameters away from their start."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return flow


def context_for(flow, *batch):
    return torch.randn(*batch, flow.context_dim) if flow.context_dim else None


@each
def test_every_recipe_is_public_and_names_its_options_alike(name):
    assert name in mf.__all__
    options = inspect.signature(RECIPES[name]).parameters
    assert next(iter(options)) == "dim"
    assert {"layers", "context_dim", "hidden"} <= set(options)
    assert set(options) <= {
        "dim", "layers", "context_dim", "hidden", "bins", "bound", "activation", "rank"
    }  # fmt: skip
    assert all(o.kind is o.KEYWORD_ONLY for o in list(options.values())[1:])
    assert options["hidden"].default == (64, 64) and options["context_dim"].default == 0
    assert options["layers"].default >= 1


def test_the_recipes_are_all_found():
    others = {"planar_flow", "radial_flow", "sylvester_flow"}
    assert others | {*COUPLINGS, *AUTOREGRESSIVE} == set(RECIPES)


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
@each
def test_a_recipe_gives_a_flow_of_its_size_or_says_the_smallest(name, dim):
    least, _ = smallest(name)
    if dim < least:
        with pytest.raises(ValueError, match=f"dim must be at least {least}.*got {dim}"):
            RECIPES[name](dim)
        return
    flow = RECIPES[name](dim, layers=3)
    assert isinstance(flow, mf.Flow) and (flow.dim, flow.context_dim) == (dim, 0)
    assert flow.sample(6).shape == (6, dim)
    assert flow.log_prob(torch.randn(4, 6, dim)).shape == (4, 6)


@each
def test_layers_counts_the_layers_of_the_family(name):
    for layers in (1, 2, 5):
        flow = RECIPES[name](3, layers=layers)
        assert sum(isinstance(part, LAYERS) for part in flow.modules()) == layers
    _, least = smallest(name)
    if least == 0:  # what is left is the normal law
        assert len(RECIPES[name](3, layers=0).transform) == 1


@each
def test_a_fresh_flow_is_near_its_base(name):
    """Its base, but for what networks with small random weights do, and the order of coordinates."""
    torch.manual_seed(0)
    flow = RECIPES[name](4)
    x = torch.randn(1000, 4)
    gap = (flow.base.log_prob(x) - flow.log_prob(x)).mean()
    assert abs(gap.item()) < 0.5
    z = flow.normalize(x).sort(dim=-1).values - x.sort(dim=-1).values
    assert z.abs().mean() < 0.5


@each
def test_both_ways_agree_and_the_density_is_the_samples_own(name):
    flow = moved_away(RECIPES[name](3, layers=3, hidden=(8,)).double())
    x, log_q = flow.sample_and_log_prob(50)
    torch.testing.assert_close(flow.log_prob(x), log_q, atol=1e-6, rtol=1e-6)
    again, _ = flow.transform(flow.normalize(x))
    torch.testing.assert_close(again, x, atol=1e-7, rtol=1e-7)


@each
def test_a_conditional_recipe_scores_samples_and_depends_on_each_number_of_its_context(name):
    flow = moved_away(RECIPES[name](2, layers=2, context_dim=3, hidden=(8,)))
    context = torch.randn(4, 3)
    assert flow.sample(5, context).shape == (5, 4, 2)
    x = torch.randn(4, 2)
    log_q = flow.log_prob(x, context)
    assert log_q.shape == (4,)
    for moved in torch.eye(3):
        assert (flow.log_prob(x, context + moved) - log_q).abs().max() > 1e-4
    with pytest.raises(ValueError, match=r"needs a context of shape \(\.\.\., 3\)"):
        flow.sample(5)


@pytest.mark.parametrize("context_dim", [0, 2])
@each
def test_every_recipe_comes_back_from_a_file_without_help(name, context_dim, tmp_path):
    flow = moved_away(RECIPES[name](4, layers=3, context_dim=context_dim, hidden=(8,)))
    x, context = torch.randn(20, 4), context_for(flow, 20)
    flow.initialize(x, context)
    mf.save(flow, tmp_path / "flow")
    torch.manual_seed(1)  # another draw of every order
    again = mf.load(tmp_path / "flow")
    assert repr(again) == repr(flow)
    assert torch.equal(again.log_prob(x, context), flow.log_prob(x, context))
    twin = RECIPES[name](4, layers=3, context_dim=context_dim, hidden=(8,))
    twin.load_state_dict(flow.state_dict())
    assert torch.equal(twin.log_prob(x, context), flow.log_prob(x, context))


@each
def test_a_step_of_training_reaches_every_layer(name):
    flow = moved_away(RECIPES[name](3, layers=3, hidden=(8,)))
    x = torch.randn(256, 3)
    flow.initialize(x)
    (-flow.log_prob(x).mean()).backward()
    for key, parameter in flow.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


# --- The flows of couplings. ---


@pytest.mark.parametrize("name", COUPLINGS)
def test_the_halves_change_roles_or_are_mixed_so_that_every_number_moves(name):
    for dim in (2, 3, 5):
        flow = moved_away(RECIPES[name](dim, layers=4, hidden=(8,)))
        jacobian = torch.autograd.functional.jacobian(flow.normalize, torch.randn(dim))
        assert jacobian.abs().min() > 0


@pytest.mark.parametrize("name", ["nice", "realnvp", "nsf"])
def test_the_coordinates_are_dealt_anew_after_each_pair_where_there_are_more_than_two(name):
    def kinds(dim, layers):
        flow = RECIPES[name](dim, layers=layers)
        parts = [part for part in flow.transform if not isinstance(part, mf.Elementwise)]
        return "".join("P" if isinstance(part, mf.Permute) else "C" for part in parts)

    assert kinds(2, 6) == "CCCCCC"
    assert [kinds(3, layers) for layers in (1, 2, 3, 4, 6)] == [
        "C", "CC", "CCPC", "CCPCC", "CCPCCPCC"
    ]  # fmt: skip
    flips = [part.flip for part in RECIPES[name](3, layers=4).modules() if hasattr(part, "flip")]
    assert flips == [False, True, False, True]


def test_nice_stretches_in_its_first_layer_alone():
    flow = moved_away(mf.nice(3, layers=4, hidden=(8,)))
    _, log_det = flow.transform(torch.randn(20, 3))
    assert log_det.std() < 1e-6
    _, first = flow.transform.transforms[0](torch.randn(3))
    torch.testing.assert_close(log_det[0], first)


def test_glow_starts_from_the_spread_of_the_data():
    torch.manual_seed(0)
    x = torch.tensor([50.0, -3e4, 0.1]) + torch.tensor([2.0, 1e3, 0.01]) * torch.randn(500, 3)
    flow = mf.glow(3, layers=4)
    flow.initialize(x)
    norms = [part for part in flow.modules() if isinstance(part, mf.ActNorm)]
    assert len(norms) == 4 and all(part.initialized for part in norms)
    z = flow.normalize(x)
    assert z.abs().mean() < 2 and flow.log_prob(x).isfinite().all()


@pytest.mark.parametrize("make", [mf.nsf, mf.nsf_ar], ids=lambda make: make.__name__)
def test_bins_and_bound_reach_the_splines(make):
    parts = [p for p in make(3, bins=5, bound=2.5).modules() if isinstance(p, LAYERS)]
    assert [part.scalar_map for part in parts] == [mf.Spline(5, 2.5)] * 4
    x = torch.full((1, 3), 2.6)
    torch.testing.assert_close(make(3, bound=2.5).log_prob(x), mf.StandardNormal(3).log_prob(x))


# --- The autoregressive flows. ---


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_every_other_layer_takes_the_coordinates_in_the_reversed_order(name):
    flow = RECIPES[name](4, layers=5, hidden=(8, 8))
    parts = [part for part in flow.modules() if isinstance(part, mf.Autoregressive)]
    there, back = (0, 1, 2, 3), (3, 2, 1, 0)
    assert [part.order for part in parts] == [there, back, there, back, there]
    residual = [False, True, False]
    assert all(part.net.skips == residual for part in parts)


@pytest.mark.parametrize("dim", [2, 3, 5])
@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_one_layer_is_triangular_and_two_mix_every_pair(name, dim):
    def jacobian(layers):
        flow = moved_away(RECIPES[name](dim, layers=layers, hidden=(64,))).double()
        for part in flow.modules():
            if isinstance(part, mf.LU):  # without the linear mix, which fills any matrix
                part.load_state_dict(mf.LU(dim, permute=False).state_dict())
        return torch.autograd.functional.jacobian(flow.normalize, torch.randn(dim).double())

    one = jacobian(1)
    assert not one.triu(1).any() and one.diag().min() > 0
    assert (one[torch.ones(dim, dim).tril() > 0] != 0).all()
    assert (jacobian(2) != 0).all()


def test_an_iaf_is_a_maf_turned_round():
    maf, iaf = moved_away(mf.maf(3, layers=1)), mf.iaf(3, layers=1)
    (turned, _), (layer, _) = iaf.transform, maf.transform
    turned.transform.load_state_dict(layer.state_dict())
    z = torch.randn(20, 3)
    for one, other in zip(turned(z), layer.inverse(z), strict=True):
        assert torch.equal(one, other)


def test_the_affine_layers_of_maf_and_iaf_run_from_data_to_base_within_their_bound():
    for name in ("maf", "iaf"):
        flow = moved_away(RECIPES[name](3, layers=2))
        parts = [part for part in flow.modules() if isinstance(part, mf.Autoregressive)]
        assert [part.scalar_map for part in parts] == 2 * [mf.Reversed(mf.Affine(bound=2.0))]
        with torch.no_grad():
            parts[0].params.fill_(1e6)
        _, log_det = parts[0].inverse(torch.zeros(3))
        assert log_det.item() == pytest.approx(3 * 2.0)


@pytest.mark.parametrize("layers", [-1, 1.5, True, "2", None])
@each
def test_a_wrong_number_of_layers_is_named(name, layers):
    _, least = smallest(name)
    words = f"layers must be a whole number, at least {least}; got {layers!r}"
    with pytest.raises(ValueError, match=words):
        RECIPES[name](2, layers=layers)
    if least == 1:
        with pytest.raises(ValueError, match="at least 1; got 0"):
            RECIPES[name](2, layers=0)


@each
def test_wrong_common_options_are_named(name):
    make = RECIPES[name]
    for dim in (0, 2.5, None, "2"):
        with pytest.raises(
            ValueError, match=f"dim must be a whole number, at least 1; got {dim!r}"
        ):
            make(dim)
    with pytest.raises(ValueError, match="hidden must be a tuple .* got 64"):
        make(2, hidden=64)
    with pytest.raises(ValueError, match="context_dim must be .* got -1"):
        make(2, context_dim=-1)
    with pytest.raises(TypeError):
        make(2, 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mf.planar_flow(2, activation="relu"), "'tanh' or 'leaky_relu'; got 'relu'"),
        (lambda: mf.sylvester_flow(2, rank=3), "rank must be a whole number from 1 to 2; got 3"),
        (lambda: mf.nsf(2, bins=1), "bins must be a whole number, at least 2; got 1"),
        (lambda: mf.nsf(2, bound=math.inf), "bound must be positive and finite; got inf"),
        (lambda: mf.nsf_ar(2, bins=1), "bins must be a whole number, at least 2; got 1"),
        (lambda: mf.nsf_ar(2, bound=-1.0), "bound must be positive and finite; got -1.0"),
    ],
)
def test_wrong_options_of_one_recipe_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
