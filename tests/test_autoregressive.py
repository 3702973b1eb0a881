"""Autoregressive layers: the slow way is the reference, the fast ways equal it, and cost what is said."""

import itertools
import math

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import minflow as mf
from minflow.autoregressive import InPlace
from minflow.nets import MaskedMLP

GROUP = InPlace.GROUP
MAPS = [
    mf.Affine(),
    mf.Reversed(mf.Affine()),
    mf.Spline(4),
    mf.CircularSpline(4),
    mf.MixtureCDF(3),
    mf.Monotone(2),
]
CLOSED = [which for which in MAPS if not isinstance(which, mf.MixtureCDF | mf.Monotone)]
WIDTHS = [(), (8,), (16, 16), (12, 16, 16)]

each_map = pytest.mark.parametrize("scalar_map", MAPS, ids=repr)


def moved_away(module, size=0.3):
    """With parameters away from their start, in float64."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.double().parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(size * noise)
    return module


def a_layer(dim, scalar_map=None, context_dim=0, hidden=(16, 16), size=0.3, **options):
    torch.manual_seed(1)
    scalar_map = scalar_map or mf.Affine()
    layer = mf.Autoregressive(dim, scalar_map, context_dim, hidden, **options)
    return moved_away(layer, size)


def some_points(*shape, seed=2):
    """Points inside (−π, π), for the circle's sake."""
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(*shape, generator=generator, dtype=torch.float64).tanh()


def some_order(dim):
    return torch.randperm(dim, generator=torch.Generator().manual_seed(dim)).tolist()


def by_whole_passes(layer, z, context=None):
    """x and its log-det by a pass of the whole network for each coordinate, and nothing clever."""
    which, batch = layer.scalar_map, z.shape[:-1]
    if context is not None:
        batch = torch.broadcast_shapes(batch, context.shape[:-1])
        context = context.expand(*batch, -1)
    z = z.expand(*batch, -1)
    x, log_det = [torch.zeros_like(z[..., 0])] * layer.dim, 0
    for d in layer.order:
        params = layer.params
        if layer.net is not None:
            seen = torch.cat(which.features(torch.stack(x, -1)), -1)
            params = params + layer.net(seen, context)
        params = params[..., d].expand(*batch, -1).movedim(-1, 0)
        x[d], log_slope = which.forward(z[..., d], params)
        log_det = log_det + log_slope
    return torch.stack(x, -1), log_det


def assert_same(got, wanted, tolerance):
    """Equal to a fraction of the largest number there is."""
    for one, other in zip(got, wanted, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        off = (one - other).abs().max() / (1 + other.abs().max())
        assert off < tolerance, f"off by {off.item():.3g}"


def both_paths(layer, z, context=None):
    """What the layer says with gradients, and without."""
    assert layer._watched(z, context)
    followed = layer(z, context)
    with torch.no_grad():
        assert not layer._watched(z, context)
        return followed, layer(z, context)


# --- The value: D whole passes are the reference. ---


@pytest.mark.parametrize("dim", [1, 2, 3, 6, 43])
@each_map
def test_the_layer_equals_one_whole_pass_for_each_coordinate(scalar_map, dim):
    z = some_points(7, dim)
    for order, seed in itertools.product((None, some_order(dim)), (None, 3)):
        # A root search in many coordinates is slow: enough to see that it is the right one.
        layer = a_layer(dim, scalar_map, order=order, seed=seed)
        wanted = by_whole_passes(layer, z)
        for got in both_paths(layer, z):
            assert_same(got, wanted, 1e-6)
        layer.float()
        wanted = by_whole_passes(layer, z.float())
        for got in both_paths(layer, z.float()):
            assert_same(got, wanted, 1e-4)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("context_dim", [0, 3])
@pytest.mark.parametrize("hidden", WIDTHS, ids=repr)
@pytest.mark.parametrize("dim", [1, 2, 6, 11])
def test_it_does_so_with_every_network(dim, hidden, context_dim, residual):
    context = some_points(7, 3, seed=5) if context_dim else None
    for scalar_map, seed in itertools.product(CLOSED, (None, 3)):
        layer = a_layer(
            dim, scalar_map, context_dim, hidden,
            order=some_order(dim), seed=seed, residual=residual,
        )  # fmt: skip
        z = some_points(7, dim)
        wanted = by_whole_passes(layer, z, context)
        for got in both_paths(layer, z, context):
            assert_same(got, wanted, 1e-9)


@pytest.mark.parametrize("dim", [1, 2, 9])
@each_map
def test_a_context_broadcasts_and_matters(scalar_map, dim):
    layer = a_layer(dim, scalar_map, 3, (64, 64), residual=True, order=some_order(dim))
    z, context = some_points(7, dim), some_points(4, 1, 3, seed=5)
    wanted = by_whole_passes(layer, z, context)
    assert wanted[0].shape == (4, 7, dim)
    for x, log_det in both_paths(layer, z, context):
        assert_same((x, log_det), wanted, 1e-6)
        assert (x[0] - x[1]).abs().min(0).values.min() > 0
    (one, _), (other, _) = both_paths(layer, z[5], context)
    for got in (one, other):
        torch.testing.assert_close(got, wanted[0][:, 5:6], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("batch", [(), (0,), (1,), (4, 0), (2, 3, 4)], ids=str)
def test_every_batch_shape_goes_through_both_paths(batch):
    layer = a_layer(9, order=some_order(9))
    z = some_points(*batch, 9)
    for x, log_det in both_paths(layer, z):
        assert x.shape == (*batch, 9) and log_det.shape == batch
        if x.numel():
            assert_same((x, log_det), by_whole_passes(layer, z), 1e-9)


@each_map
def test_the_way_back_takes_every_point_to_where_it_came_from(scalar_map):
    layer = a_layer(6, scalar_map, 2, order=some_order(6), seed=1, residual=True)
    z, context = some_points(50, 6), some_points(50, 2, seed=5)
    for x, log_det in both_paths(layer, z, context):
        again, log_det_back = layer.inverse(x, context)
        torch.testing.assert_close(again, z, atol=1e-7, rtol=1e-7)
        torch.testing.assert_close(log_det_back, -log_det, atol=1e-6, rtol=1e-6)


def test_one_coordinate_without_a_context_is_elementwise():
    for scalar_map in MAPS:
        layer, twin = a_layer(1, scalar_map), mf.Elementwise(1, scalar_map).double()
        assert layer.net is None and layer.params.any()
        twin.load_state_dict(layer.state_dict())
        z = some_points(7, 1)
        for got in (*both_paths(layer, z), both_paths(layer, z)[1]):
            assert_same(got, twin(z), 1e-12)
        assert_same(layer.inverse(z), twin.inverse(z), 1e-12)


def test_with_a_network_of_zeros_a_layer_is_elementwise():
    layer = a_layer(3, mf.Spline(4))
    twin = mf.Elementwise(3, mf.Spline(4)).double()
    with torch.no_grad():
        layer.net.layers[-1].weight.zero_()
        twin.params.copy_(layer.params)
    z = some_points(7, 3)
    for got in both_paths(layer, z):
        assert_same(got, twin(z), 1e-12)
    assert_same(layer.inverse(z), twin.inverse(z), 1e-12)


# --- Both paths. ---


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("dim", [GROUP - 1, GROUP, GROUP + 1, 2 * GROUP, 2 * GROUP + 1])
@pytest.mark.parametrize("hidden", [(), (16, 16), (3, 40, 40)], ids=repr)
def test_both_paths_agree_to_rounding_around_the_size_of_a_group(hidden, dim, residual):
    for scalar_map, context_dim in itertools.product(CLOSED, (0, 2)):
        # Small steps from the start: what is compared is rounding, and errors grow along the way.
        options = dict(order=some_order(dim), residual=residual, size=0.1)
        layer = a_layer(dim, scalar_map, context_dim, hidden, **options)
        context = some_points(7, 2, seed=5) if context_dim else None
        followed, in_place = both_paths(layer, some_points(7, dim), context)
        assert_same(in_place, followed, 1e-13)


def test_neither_path_changes_what_comes_in_or_what_went_out():
    layer = a_layer(9, mf.Affine(), 2, residual=True)
    z, context = some_points(7, 9), some_points(7, 2, seed=5)
    before = z.clone(), context.clone()
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    results = both_paths(layer, z, context)
    kept = [[value.detach().clone() for value in result] for result in results]
    both_paths(layer, z + 1, context + 1)  # room of its own each time
    assert torch.equal(z, before[0]) and torch.equal(context, before[1])
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())
    for result, values in zip(results, kept, strict=True):
        assert all(torch.equal(*pair) for pair in zip(result, values, strict=True))


@pytest.mark.parametrize("dim", [1, 2, 9])
def test_what_comes_out_can_always_be_used_in_autograd_later(dim):
    layer, z = a_layer(dim), some_points(7, dim)
    frozen = a_layer(dim).requires_grad_(False)
    with torch.no_grad():
        without = layer(z)
    for x, log_det in (layer(z), without, frozen(z)):
        assert not x.is_inference() and not log_det.is_inference()
    for x, log_det in (without, frozen(z)):
        assert not x.requires_grad and not log_det.requires_grad
        weight = torch.ones(dim, dtype=torch.float64, requires_grad=True)
        loss = ((x * weight).square().sum(-1) * log_det).sum()  # saves both for the way back
        assert torch.autograd.grad(loss, weight)[0].isfinite().all()
        x.requires_grad_().mul(2).sum().backward()
        assert torch.equal(x.grad, torch.full_like(x, 2))
    z.requires_grad_()
    assert frozen(z)[0].requires_grad  # the points alone ask for it


@pytest.mark.parametrize("dim", [4, GROUP + 1])
@pytest.mark.parametrize("context_dim", [0, 2])
def test_mixed_precision_serves_with_gradients_and_without(context_dim, dim):
    """As a coupling does: under autocast, what comes out is as near as bfloat16 is."""
    layer = a_layer(dim, mf.Affine(), context_dim, size=0.1).float()
    z = some_points(7, dim).float()
    context = some_points(7, 2, seed=5).float() if context_dim else None
    wanted, _ = layer(z, context)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        followed, _ = layer(z, context)
        with torch.no_grad():  # casts are not for work in place: the same path is taken
            unfollowed, _ = layer(z, context)
    for x in (followed, unfollowed):
        torch.testing.assert_close(x.float(), wanted, atol=0.1, rtol=0.1)


# --- Gradients. ---


@pytest.mark.parametrize("dim", [1, 2, 6, 11])
@each_map
def test_gradients_are_those_of_the_whole_passes(scalar_map, dim):
    layer = a_layer(dim, scalar_map, 2, order=some_order(dim), residual=True, size=0.2)
    z, context = some_points(7, dim), some_points(4, 1, 2, seed=5)
    leaves = [z.requires_grad_(), context.requires_grad_(), *layer.parameters()]
    gradients = []
    for x, log_det in (layer(z, context), by_whole_passes(layer, z, context)):
        weights = some_points(*x.shape, seed=6)
        loss = (weights * x).sum() + (log_det * x[..., 0].detach().cos()).sum()
        gradients.append(torch.autograd.grad(loss, leaves))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    assert all(gradient.any() for gradient in gradients[0])


@pytest.mark.parametrize("way", ["forward", "inverse"])
@each_map
def test_first_and_second_derivatives_equal_differences(scalar_map, way):
    """Of the points, the context and all parameters."""
    layer = a_layer(3, scalar_map, 1, hidden=(4,), order=(1, 2, 0))
    turned = layer if way == "forward" else mf.Inverse(layer)
    names, values = zip(*turned.named_parameters(), strict=True)

    def run(point, context, *values):
        numbers = dict(zip(names, values, strict=True))
        return torch.func.functional_call(turned, numbers, (point, context))

    inputs = some_points(2, 3), some_points(2, 1, seed=5), *values
    inputs = [value.detach().clone().requires_grad_() for value in inputs]
    assert gradcheck(run, inputs, fast_mode=True)
    assert gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("how", ["with gradients", "under no_grad", "with frozen parameters"])
@pytest.mark.parametrize("dim", [2, GROUP + 1])
def test_the_transforms_of_torch_func_see_through_the_layer(how, dim):
    layer = a_layer(dim, mf.Affine(), 2, order=some_order(dim))
    layer.requires_grad_(how != "with frozen parameters")
    z, context = some_points(5, dim), some_points(5, 2, seed=5)
    true = torch.stack(
        [
            torch.autograd.functional.jacobian(lambda p, c=c: layer(p, c)[0], p)
            for p, c in zip(z, context, strict=True)
        ]
    )
    with torch.set_grad_enabled(how != "under no_grad"):

        def go(p, c):
            return layer(p, c)[0]

        for jacobian in (torch.func.jacrev, torch.func.jacfwd):
            torch.testing.assert_close(torch.func.vmap(jacobian(go))(z, context), true)
        torch.testing.assert_close(torch.func.vmap(go)(z, context), layer(z, context)[0])
        along = torch.ones_like(z)
        value, tangent = torch.func.jvp(lambda p: go(p, context), (z,), (along,))
        torch.testing.assert_close(tangent, true.sum(-1))
        torch.testing.assert_close(value, layer(z, context)[0])
        log_dets = torch.linalg.slogdet(true).logabsdet
        torch.testing.assert_close(layer(z, context)[1], log_dets)
        per_context = torch.func.jacrev(lambda c: go(z[0], c))(context[0])
        by_hand = torch.func.jacfwd(lambda c: go(z[0], c))(context[0])
        torch.testing.assert_close(per_context, by_hand)
        assert per_context.abs().min() > 0


@pytest.mark.parametrize("which", ["points", "context", "parameters"])
def test_a_tangent_is_carried_on_where_no_gradient_is_asked_for(which):
    """Forward mode without torch.func, of whatever has the tangent."""
    layer = a_layer(3, mf.Affine(), 2).requires_grad_(False)
    z, context = some_points(5, 3), some_points(5, 2, seed=5)
    numbers = dict(layer.named_parameters())
    step = 1e-6

    def moved(by):
        other = {key: value + by * (which == "parameters") for key, value in numbers.items()}
        points = z + by * (which == "points"), context + by * (which == "context")
        return torch.func.functional_call(layer, other, points)[0]

    wanted = (moved(step) - moved(-step)) / (2 * step)
    with forward_ad.dual_level():

        def dual(value, name):
            if which != name:
                return value
            return forward_ad.make_dual(value, torch.ones_like(value))

        other = {key: dual(value, "parameters") for key, value in numbers.items()}
        points = dual(z, "points"), dual(context, "context")
        x = torch.func.functional_call(layer, other, points)[0]
        tangent = forward_ad.unpack_dual(x).tangent
    assert tangent is not None
    torch.testing.assert_close(tangent, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    ("dim", "scalar_map"),
    [(2, which) for which in CLOSED] + [(GROUP + 1, mf.Affine())],
    ids=repr,
)
def test_both_directions_are_captured_in_one_graph(dim, scalar_map, grad):
    layer = a_layer(dim, scalar_map, 2, (8, 8), residual=True, order=some_order(dim))
    z, context = some_points(5, dim), some_points(5, 2, seed=5)
    for way in (layer.forward, layer.inverse):
        with torch.set_grad_enabled(grad):
            captured = torch.compile(way, backend="eager", fullgraph=True)(z, context)
        assert captured[0].requires_grad == grad and not captured[0].is_inference()
        assert_same(captured, way(z, context), 1e-12)


# --- What it costs. ---


def products(run):
    """How many multiply-adds of matrices are done."""

    def addmm_(bias, one, other, *_, **__):
        return 2 * one[0] * one[1] * other[1]

    own = {torch.ops.aten.addmm_: addmm_}
    with FlopCounterMode(display=False, custom_mapping=own) as counter:
        run()
    return counter.get_total_flops() // 2


COSTS = pytest.mark.parametrize(
    ("hidden", "context_dim"), [((), 0), ((8,), 0), ((32, 32), 0), ((32, 32), 3)], ids=repr
)


def costs(dim, hidden, context_dim, points=10):
    """Multiply-adds: of a whole pass, of the ones in all masks, of both paths; and the layer."""
    layer = a_layer(dim, mf.Affine(), context_dim, hidden, order=some_order(dim))
    z = some_points(points, dim)
    context = some_points(points, context_dim) if context_dim else None
    whole = products(lambda: layer.net(z, context))
    ones = points * sum(int(part.mask.sum()) for part in layer.net.layers)
    followed = products(lambda: layer(z, context))
    with torch.no_grad():
        in_place = products(lambda: layer(z, context))
    return whole, ones, followed, in_place, layer


@COSTS
@pytest.mark.parametrize("dim", [2, 3, 7, 8, 9, 17, 43])
def test_either_path_does_one_product_for_each_one_in_the_masks(dim, hidden, context_dim):
    whole, ones, followed, in_place, layer = costs(dim, hidden, context_dim)
    assert whole == 10 * sum(part.weight.numel() for part in layer.net.layers)
    assert followed == in_place == ones < whole


def test_with_many_coordinates_a_sample_costs_about_half_the_products_of_a_pass():
    for dim in (17, 43, 128):
        whole, ones, *_ = costs(dim, (64, 64), 0, points=1)
        assert ones < 0.55 * whole


class Slices(TorchDispatchMode):
    """Which rows and columns of which weight matrix each product takes."""

    def __init__(self):
        self.taken = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket == torch.ops.aten.addmm:
            weight = args[1]
            if weight.numel():
                row, column = divmod(weight.storage_offset(), weight.stride(0))
                shape = weight.untyped_storage().nbytes() // 8
                rows, columns = weight.shape
                key = weight.untyped_storage().data_ptr()
                self.taken.append((key, shape, weight.stride(0), row, column, rows, columns))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("dim", [3, 9, 20])
def test_each_weight_is_used_once(dim, grad):
    layer = a_layer(dim, mf.Affine(), 2, (24, 24), order=some_order(dim), residual=True)
    z, context = some_points(5, dim), some_points(5, 2)
    with torch.set_grad_enabled(grad), Slices() as slices:
        layer(z, context)
    used = {}
    for key, numel, width, row, column, rows, columns in slices.taken:
        matrix = used.setdefault(key, torch.zeros(numel // width, width))
        matrix[row : row + rows, column : column + columns] += 1
    matrices = list(used.values())
    masks = [part.mask for part in layer.net.layers]
    assert [matrix.shape for matrix in matrices] == [mask.shape for mask in masks]
    masks[0], masks[-1] = masks[0][:, layer.net.inputs], masks[-1][layer.net.made]
    for matrix, mask in zip(matrices, masks, strict=True):
        assert torch.equal(matrix, mask.float())


def test_no_layer_of_the_network_is_called_on_the_way_to_the_data_and_each_once_on_the_way_back():
    layer = a_layer(6)
    calls = []
    for part in layer.net.layers:
        part.register_forward_hook(lambda part, *_: calls.append(part))
    both_paths(layer, some_points(5, 6))
    assert not calls
    layer.inverse(some_points(5, 6))
    assert calls == list(layer.net.layers)


# --- Masks. ---

OPTIONS = [
    dict(zip(("hidden", "context_dim", "features", "seed", "residual"), values, strict=True))
    for values in itertools.product(WIDTHS, (0, 2), (1, 2), (None, 0), (False, True))
]


def hidden_degrees(net):
    return [[p for p, size in enumerate(sizes) for _ in range(size)] for sizes in net.sizes[1:-1]]


@pytest.mark.parametrize("dim", [2, 5])
def test_what_a_network_makes_sees_what_stands_before_and_nothing_else(dim):
    """The pattern of the Jacobian, and that of the product of the masks, which counts paths."""
    order = some_order(dim) if dim > 2 else [1, 0]
    before = torch.zeros(dim, dim)  # before[i, j]: j stands before i
    for p, d in enumerate(order):
        before[d, order[:p]] = 1
    complete = 0
    for options in OPTIONS:
        torch.manual_seed(0)
        net = moved_away(MaskedMLP(dim, 3, order=order, **options))
        features, context_dim = options["features"], options["context_dim"]
        context = some_points(context_dim, seed=5) if context_dim else None
        inputs = some_points(features * dim)
        jacobian = torch.autograd.functional.jacobian(lambda x, c=context: net(x, c), inputs)  # noqa: B023
        pattern = before.repeat(3, 1, 1).tile(1, 1, features).bool()
        assert not jacobian[~pattern].any()
        told, paths = torch.eye(context_dim + features * dim, dtype=torch.long).tensor_split(
            [context_dim]
        )
        for layer in net.layers:
            paths = layer.mask.long() @ torch.cat([told, paths])
        paths = paths.unflatten(0, (3, dim))
        assert not paths[..., context_dim:][~pattern].any()
        possible = set(range(0 if context_dim else 1, dim))
        if all(possible <= set(degrees) for degrees in hidden_degrees(net)):
            complete += 1  # a unit of every degree: then nothing that may be seen is missed
            assert (paths[..., context_dim:][pattern] > 0).all()
            assert (paths[..., :context_dim] > 0).all()
        if not options["hidden"]:  # no ReLU shuts a path
            assert torch.equal(jacobian != 0, pattern)
    assert complete > len(OPTIONS) / 2


def test_the_example_of_three_coordinates_by_hand():
    """Degrees 1, 2 in a hidden layer of two; inputs 1, 2, 3; outputs 0, 1, 2."""
    net = MaskedMLP(3, 1, hidden=(2,))
    first, second = (part.mask.int().tolist() for part in net.layers)
    assert first == [[1, 0, 0], [1, 1, 0]]
    assert second == [[0, 0], [1, 0], [1, 1]]
    assert net.sizes == [[0, 1, 1, 1], [0, 1, 1, 0], [1, 1, 1, 0]]


@pytest.mark.parametrize("context_dim", [0, 1])
@pytest.mark.parametrize("dim", [1, 2, 3, 6, 43])
def test_degrees_in_turn_are_spread_evenly_and_hold_the_last(dim, context_dim):
    if dim == 1 and not context_dim:
        return
    possible = range(0 if context_dim else 1, dim)
    for width in (1, 2, 7, 42, 43, 64, 100):
        net = MaskedMLP(dim, 2, (width, width), context_dim)
        for degrees in hidden_degrees(net):
            assert degrees == sorted(degrees) and len(degrees) == width
            assert degrees[-1] == dim - 1 and set(degrees) <= set(possible)
            counts = [degrees.count(p) for p in possible]
            assert max(counts) - min(counts) <= 1
            if width < len(possible):  # the gaps are even too
                gaps = {b - a for a, b in itertools.pairwise(degrees)}
                assert not gaps or max(gaps) - min(gaps) <= 1
        if width >= len(possible) > 1:  # with units enough, every degree has one
            assert set(degrees) == set(possible)


def test_degrees_at_random_are_alike_for_a_seed_and_differ_for_others():
    def masks(seed):
        return [part.mask for part in MaskedMLP(6, 2, (20, 20), 1, seed=seed).layers]

    torch.manual_seed(0)
    state = torch.get_rng_state()
    for one, other in zip(masks(3), masks(3), strict=True):
        assert torch.equal(one, other)
    found = {str(hidden_degrees(MaskedMLP(6, 2, (20, 20), 1, seed=seed))) for seed in range(20)}
    assert len(found) == 20
    torch.set_rng_state(state)
    one = masks(3)[0], torch.rand(1)
    torch.manual_seed(99)
    other = masks(3)[0], torch.rand(1)
    assert torch.equal(one[0], other[0])  # torch's own generator has no say in them
    assert not torch.equal(one[1], other[1])
    counts = [hidden_degrees(MaskedMLP(6, 2, (1000,), seed=s))[0].count(3) for s in range(5)]
    assert all(150 < count < 250 for count in counts)  # 1 to 5, each a fifth of the time


@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("dim", [2, 3, 9])
def test_no_unit_is_without_sources_or_readers(dim, context_dim):
    for hidden, residual in itertools.product([(1,), (3,), (16, 4, 4), (2, 9, 9)], (False, True)):
        for seed in (None, *range(20)):
            net = MaskedMLP(dim, 2, hidden, context_dim, seed=seed, residual=residual)
            for layer, after in itertools.pairwise(net.layers):
                assert layer.mask.any(1).all() and after.mask.any(0).all()


def test_a_layer_is_added_to_the_one_before_where_both_are_as_wide():
    net = MaskedMLP(5, 2, (8, 8, 6, 6, 6), seed=0, residual=True)
    assert net.skips == [False, True, False, True, True, False]
    degrees = hidden_degrees(net)
    assert degrees[0] == degrees[1] and degrees[2] == degrees[3] == degrees[4]
    assert MaskedMLP(5, 2, (8, 8), seed=0).skips == [False, False, False]
    plain = hidden_degrees(MaskedMLP(5, 2, (8, 8), seed=0))
    assert plain[0] != plain[1]
    moved_away(net)
    x = some_points(4, 5)
    hidden = net.layers[0](x)
    hidden = hidden + net.layers[1](hidden.relu())
    hidden = net.layers[2](hidden.relu())
    hidden = hidden + net.layers[3](hidden.relu())
    hidden = hidden + net.layers[4](hidden.relu())
    assert torch.equal(net(x), net.layers[-1](hidden.relu()).unflatten(-1, (2, 5)))


def test_the_jacobian_of_a_layer_is_triangular_in_its_order():
    for scalar_map, residual in itertools.product(MAPS, (False, True)):
        order = [3, 0, 4, 1, 2]
        layer = a_layer(5, scalar_map, order=order, residual=residual, hidden=(32, 32))
        for go in (layer.forward, layer.inverse):
            point = some_points(5)
            jacobian = torch.autograd.functional.jacobian(lambda p, go=go: go(p)[0], point)
            in_order = jacobian[order][:, order]
            assert not in_order.triu(1).any() and (in_order.diag() > 0).all()
            assert (in_order.tril()[torch.ones(5, 5).tril() > 0] != 0).all()
            torch.testing.assert_close(go(point)[1], in_order.diag().log().sum())


# --- What goes wrong is named. ---


@pytest.mark.parametrize(
    "order",
    [(0, 0, 1), (1, 2, 3), (0, 1), (0, 1, 2, 3), (), "012", (0.0, 1.0, 2.0), ("0", "1", "2"),
     (0, "a", 1), (0, None, 1), 3, torch.tensor([0.0, 1.0, 2.0])],
    ids=str,
)  # fmt: skip
def test_an_order_that_is_none_is_named(order):
    with pytest.raises(ValueError, match=r"order must hold each of 0, …, 2 once; got "):
        mf.Autoregressive(3, mf.Affine(), order=order)


def test_an_order_may_be_a_list_or_a_range():
    for order in ([2, 1, 0], (2, 1, 0), range(3)[::-1]):
        assert mf.Autoregressive(3, mf.Affine(), order=order).order == (2, 1, 0)
    assert mf.Autoregressive(3, mf.Affine()).order == (0, 1, 2)


@pytest.mark.parametrize("kind", ["tensor", "array", "bools"])
def test_an_order_of_another_kind_is_refused_or_kept_as_plain_numbers(kind, tmp_path):
    """Or else it could be built and trained, and a file of it not be read."""
    tensor = torch.tensor([2, 0, 1])
    order = {"tensor": tensor, "array": tensor.numpy(), "bools": (2, False, True)}[kind]
    try:
        layer = mf.Autoregressive(3, mf.Affine(), order=order)
    except ValueError:
        with pytest.raises(ValueError, match="order must hold each of 0, …, 2 once; got"):
            mf.Autoregressive(3, mf.Affine(), order=order)
        return
    assert layer.order == (2, 0, 1) and {type(d) for d in layer.order} == {int}
    mf.save(mf.Flow(layer), tmp_path / "flow")
    assert mf.load(tmp_path / "flow").transform.order == (2, 0, 1)


@pytest.mark.parametrize("seed", [1.5, "1", True, [1], (1,), torch.tensor(1.0)], ids=repr)
def test_a_seed_that_is_none_is_named(seed):
    with pytest.raises(ValueError, match=r"seed must be .*whole number.*; got "):
        mf.Autoregressive(3, mf.Affine(), seed=seed)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: mf.Autoregressive(0, mf.Affine()), ValueError, "dim must be .* got 0"),
        (lambda: mf.Autoregressive(2.0, mf.Affine()), ValueError, "a whole number.* got 2.0"),
        (lambda: mf.Autoregressive(2, mf.Affine), TypeError, "such as Affine.*; got 'Affine'"),
        (lambda: mf.Autoregressive(2, None), TypeError, "scalar_map must be .*; got None"),
        (lambda: mf.Autoregressive(2, mf.Sigmoid()), ValueError, r"Sigmoid\(\) has no parameters"),
        (
            lambda: mf.Autoregressive(2, mf.Reversed(mf.Logit())),
            ValueError,
            r"Logit\(\)\) has no parameters",
        ),
        (lambda: mf.Autoregressive(2, mf.Affine(), -1), ValueError, "context_dim .* got -1"),
        (lambda: mf.Autoregressive(2, mf.Affine(), hidden=64), ValueError, "hidden .* got 64"),
        (lambda: mf.Autoregressive(2, mf.Affine(), hidden=(8, 0)), ValueError, r"hidden .*\(8, 0"),
        (lambda: mf.Autoregressive(2, mf.Affine(), hidden=(8.0,)), ValueError, r"hidden .*\(8.0"),
        (lambda: mf.Autoregressive(1, mf.Affine(), hidden=(0,)), ValueError, r"hidden .*\(0"),
        (lambda: mf.Autoregressive(1, mf.Affine(), order=(1,)), ValueError, "order .* got"),
        (lambda: MaskedMLP(1, 2), ValueError, "one coordinate and no context"),
        (lambda: MaskedMLP(3, 2, hidden=(8.0,)), ValueError, r"hidden .*\(8.0"),
        (lambda: MaskedMLP(3, 2, order=(0, 1)), ValueError, r"order .* got \(0, 1\)"),
    ],
)  # fmt: skip
def test_what_a_layer_cannot_be_made_of_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_context_that_is_missing_or_wrong_is_named_by_the_flow():
    flow = mf.maf(3, context_dim=2, layers=1)
    for call in (lambda: flow.log_prob(torch.zeros(5, 3)), lambda: flow.sample(5)):
        with pytest.raises(ValueError, match=r"needs a context of shape \(\.\.\., 2\)"):
            call()
    with pytest.raises(ValueError, match=r"\(\.\.\., 2\).*3"):
        flow.log_prob(torch.zeros(5, 3), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="takes no context"):
        mf.maf(3, layers=1).sample(5, torch.zeros(2))


def test_a_layer_of_no_context_leaves_one_alone():
    layer, z = a_layer(3), some_points(7, 3)
    for got in both_paths(layer, z, some_points(7, 2)):
        assert_same(got, layer(z), 1e-12)
    assert torch.equal(layer.inverse(z, some_points(7, 2))[0], layer.inverse(z)[0])


# --- A file, and a state. ---

SAVED = {
    "order": dict(order=(2, 0, 3, 1)),
    "seed": dict(seed=5),
    "residual": dict(residual=True),
    "all": dict(order=[3, 1, 0, 2], seed=7, residual=True, context_dim=2),
}


@pytest.mark.parametrize("scalar_map", [*MAPS, mf.Reversed(mf.Spline(3, 2.0))], ids=repr)
@pytest.mark.parametrize("which", SAVED)
def test_a_layer_comes_back_from_a_file_without_help(which, scalar_map, tmp_path):
    options = SAVED[which]
    base = None
    if isinstance(scalar_map, mf.CircularSpline):
        ends = math.pi * torch.ones(4).double()
        base = torch.distributions.Uniform(-ends, ends)
    flow = mf.Flow(a_layer(4, scalar_map, **options), base)
    mf.save(flow, tmp_path / "flow")
    # A base of torch's cannot be described: such a flow is filled.
    twin = mf.Flow(a_layer(4, scalar_map, size=0.7, **options), base) if base else None
    again = mf.load(tmp_path / "flow", twin)
    assert repr(again) == repr(flow)
    layer = again.transform
    assert (layer.order, layer.seed, layer.residual) == (
        tuple(options.get("order", range(4))), options.get("seed"), options.get("residual", False)
    )  # fmt: skip
    x, context = some_points(9, 4), some_points(9, 2) if again.context_dim else None
    assert torch.equal(again.log_prob(x, context), flow.log_prob(x, context))
    for one, other in zip(
        both_paths(again.transform, x, context), both_paths(flow.transform, x, context), strict=True
    ):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize("make", [mf.maf, mf.iaf, mf.nsf_ar], ids=lambda make: make.__name__)
def test_a_ready_made_flow_that_came_back_samples_alike(make, tmp_path):
    flow = moved_away(make(10, layers=2, hidden=(16, 16)), 0.1)
    mf.save(flow, tmp_path / "flow")
    again = mf.load(tmp_path / "flow")
    for run in (flow.sample, flow.rsample):
        torch.manual_seed(0)
        wanted = run(6)
        torch.manual_seed(0)
        assert torch.equal(getattr(again, run.__name__)(6), wanted)


@pytest.mark.parametrize(
    ("one", "other"),
    [(dict(order=(2, 0, 4, 3, 1)), {}), (dict(seed=1), dict(seed=2)), (dict(seed=1), {})],
    ids=str,
)
def test_a_file_of_another_order_or_seed_does_not_fill_a_flow(one, other, tmp_path):
    mf.save(mf.Flow(a_layer(5, **one)), tmp_path / "flow")
    flow = mf.Flow(a_layer(5, **other))
    with pytest.raises(ValueError, match="holds .* but the flow is "):
        mf.load(tmp_path / "flow", flow)


@pytest.mark.parametrize(
    ("one", "other"),
    [(dict(order=(2, 0, 4, 3, 1)), {}), (dict(seed=1), dict(seed=2)), (dict(seed=1), {})],
    ids=str,
)
def test_a_state_of_another_order_or_seed_is_refused_before_any_of_its_network_is_taken(one, other):
    """A layer that took the masks alone would no longer undo itself."""
    layer = a_layer(5, **other)
    before = {name: value.clone() for name, value in layer.net.state_dict().items()}
    with pytest.raises(ValueError, match="another order or seed: its net"):
        layer.load_state_dict(a_layer(5, **one).state_dict())
    for name, value in layer.net.state_dict().items():
        assert torch.equal(value, before[name])
    layer.load_state_dict(a_layer(5, **other).state_dict())  # one of its own kind is taken


# --- The order matters. ---


def floor_of_the_wrong_order():
    """How far the best normal x₁ and the best normal x₂ given x₁ stay from the banana, in nats."""
    x1 = torch.linspace(-6, 60, 4001, dtype=torch.float64)
    x2 = torch.linspace(-16, 16, 1601, dtype=torch.float64)
    banana = mf.data.Banana(sigma=2.0)
    density = banana.log_prob(torch.cartesian_prod(x1, x2)).exp().reshape(4001, 1601)
    p1 = torch.trapezoid(density, x2)
    variance = torch.trapezoid(density * x2.square(), x2) / p1  # its mean is 0
    mean = torch.trapezoid(p1 * x1, x1)
    of_x1 = 0.5 * torch.log(torch.trapezoid(p1 * (x1 - mean).square(), x1))
    of_x2 = torch.trapezoid(p1 * 0.5 * variance.log(), x1)
    return (math.log(2 * math.pi * math.e) + of_x1 + of_x2 - banana.entropy()).item()


def test_one_affine_layer_learns_a_banana_in_the_right_order_alone():
    """x₁ given x₂ is normal with a quadratic mean; x₂ given x₁ has two modes."""
    banana = mf.data.Banana(sigma=2.0)
    generator = torch.Generator().manual_seed(0)
    data = banana.sample((4000,), generator=generator)
    held_out = banana.sample((20_000,), generator=generator)
    gaps = {}
    for order in ((1, 0), (0, 1)):
        torch.manual_seed(0)
        layer = mf.Autoregressive(2, mf.Reversed(mf.Affine()), hidden=(64,), order=order)
        flow = mf.Flow(layer)
        optimizer = torch.optim.Adam(flow.parameters(), lr=0.02)
        for step in range(300):
            batch = data[torch.randint(len(data), (256,))]
            loss = -flow.log_prob(batch).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 300)
        with torch.no_grad():
            gaps[order] = (banana.log_prob(held_out) - flow.log_prob(held_out)).mean().item()
    floor = floor_of_the_wrong_order()
    assert gaps[1, 0] < 0.1 < floor
    assert gaps[0, 1] > floor - 0.03  # as far as 20 000 points can tell
