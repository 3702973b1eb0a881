"""Couplings: what is kept is kept, what is moved is steered by the rest alone, whatever the network."""

import math

import pytest
import torch
from torch import nn

import minflow as mf

MAPS = [mf.Additive(), mf.Affine(), mf.Spline(4), mf.MixtureCDF(2)]
OWN = [mf.nice, mf.realnvp, mf.glow, mf.nsf]


def moved_away(module):
    """With parameters away from their start, in float64."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return module


def some_points(dim, *batch):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*batch, dim, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("dim", [2, 3, 5, 8])
@pytest.mark.parametrize("scalar_map", MAPS, ids=repr)
def test_one_half_is_kept_exactly_and_the_jacobian_is_triangular_in_blocks(scalar_map, dim, flip):
    layer = moved_away(mf.Coupling(dim, scalar_map, hidden=(8,), flip=flip))
    first, second = torch.arange(dim // 2), torch.arange(dim // 2, dim)
    kept, moved = (second, first) if flip else (first, second)
    for go in (layer.forward, layer.inverse):
        point = some_points(dim)
        value, log_det = go(point)
        assert torch.equal(value[kept], point[kept])
        jacobian = torch.autograd.functional.jacobian(lambda p, go=go: go(p)[0], point)
        assert torch.equal(jacobian[kept][:, kept], torch.eye(len(kept), dtype=torch.float64))
        assert not jacobian[kept][:, moved].any()
        slopes = jacobian[moved][:, moved]
        assert torch.equal(slopes, slopes.diag().diag()) and (slopes.diag() > 0).all()
        assert jacobian[moved][:, kept].abs().min() > 0  # each moved one is steered by each kept
        torch.testing.assert_close(log_det, slopes.diag().log().sum())


def test_an_additive_coupling_keeps_volumes_exactly():
    layer = moved_away(mf.Coupling(5, mf.Additive()))
    for go in (layer.forward, layer.inverse):
        value, log_det = go(some_points(5, 7))
        assert not log_det.any() and log_det.shape == (7,)
        assert (value - some_points(5, 7)).abs().max() > 0.1


def test_with_parameters_that_no_network_steers_a_coupling_is_its_scalar_map():
    layer = mf.Coupling(5, mf.Affine())
    nn.init.zeros_(layer.net[-1].weight)
    with torch.no_grad():
        layer.params.copy_(torch.tensor([1.0, 2.0, 3.0, 0.1, 0.2, 0.3]))
    z = torch.ones(5)
    x, log_det = layer(z)
    wanted, log_slope = mf.Affine().forward(z[2:], layer.params.reshape(2, 3))
    assert torch.equal(x, torch.cat([z[:2], wanted]))
    torch.testing.assert_close(log_det, log_slope.sum())


# --- A conditioner of one's own. ---


class ByHand(nn.Module):
    """Numbers that are known: shift by twice the kept number, and a raw log-scale of 0.5."""

    def forward(self, seen):
        return torch.cat([2 * seen[..., :1], torch.full_like(seen[..., :1], 0.5)], -1)


def test_a_conditioner_of_ones_own_makes_the_parameters_first_of_all_the_moved():
    layer = mf.Coupling(2, mf.Affine(), conditioner=ByHand())
    assert layer.net is None
    x, log_det = layer(torch.tensor([3.0, 1.0]))
    scale = 5 * math.tanh(0.1)
    assert x.tolist() == pytest.approx([3.0, math.exp(scale) + 6])
    assert log_det.item() == pytest.approx(scale)


def test_a_conditioner_sees_the_kept_half_and_then_the_context():
    seen = []

    class Watch(nn.Linear):
        def forward(self, value):
            seen.append(value)
            return super().forward(value)

    layer = mf.Coupling(3, mf.Additive(), context_dim=2, conditioner=Watch(3, 2))
    layer(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0]))
    assert len(seen) == 1 and seen[0].tolist() == [1.0, 10.0, 20.0]


@pytest.mark.parametrize("numbers", [1, 3, 5, 8])
def test_a_conditioner_that_makes_too_few_or_too_many_numbers_is_named(numbers):
    """One number would otherwise be spread over all of them without a word."""
    layer = mf.Coupling(4, mf.Affine(), conditioner=nn.Linear(2, numbers))
    words = rf"must turn shape \(7, 2\) into \(7, 4\); got \(7, {numbers}\)"
    for go in (layer.forward, layer.inverse):
        with pytest.raises(ValueError, match=words):
            go(torch.zeros(7, 4))


def test_a_conditioner_that_takes_another_width_is_torchs_to_name():
    layer = mf.Coupling(4, mf.Affine(), conditioner=nn.Linear(3, 4))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(torch.zeros(7, 4))


# --- A context. ---


@pytest.mark.parametrize("scalar_map", [*MAPS, mf.CircularSpline(4)], ids=repr)
def test_a_context_matters_and_broadcasts(scalar_map):
    layer = moved_away(mf.Coupling(3, scalar_map, context_dim=2, hidden=(8,)))
    z, context = some_points(3, 7).tanh(), some_points(2, 4, 1)
    for go in (layer.forward, layer.inverse):
        value, log_det = go(z, context)
        assert value.shape == (4, 7, 3) and log_det.shape == (4, 7)
        one, one_log_det = go(z[5], context[2, 0])
        torch.testing.assert_close(value[2, 5], one)
        torch.testing.assert_close(log_det[2, 5], one_log_det)
        assert (value[0] - value[1]).abs()[:, 1:].min() > 0
        one, _ = go(z[5], context)  # one point, many contexts
        torch.testing.assert_close(one, value[:, 5:6])


def test_a_coupling_without_a_context_leaves_one_alone():
    layer = moved_away(mf.Coupling(3, mf.Affine()))
    z = some_points(3, 7)
    assert torch.equal(layer(z, some_points(2, 7))[0], layer(z)[0])


# --- Round trips, one pass, one graph. ---


def test_couplings_of_mixtures_come_back():
    """Flow++: closed form from data to base, a root search the other way."""
    parts = [mf.Coupling(3, mf.MixtureCDF(4), hidden=(16,), flip=i % 2 == 1) for i in range(4)]
    flow = moved_away(mf.Flow(mf.Compose(*parts)))
    z = some_points(3, 200)
    x, log_det = flow.transform(z)
    again, log_det_back = flow.transform.inverse(x)
    torch.testing.assert_close(again, z, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(log_det_back, -log_det, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("make", OWN, ids=lambda make: make.__name__)
def test_every_network_of_a_flow_runs_once_a_direction(make):
    flow = make(3, layers=4, hidden=(8,))
    calls = []
    for part in flow.modules():
        if isinstance(part, mf.Coupling):
            part.net.register_forward_hook(lambda net, *_: calls.append(net))
    for run in (lambda: flow.log_prob(torch.zeros(5, 3)), lambda: flow.sample(5)):
        calls.clear()
        run()
        assert len(calls) == len(set(calls)) == 4


@pytest.mark.parametrize("make", OWN, ids=lambda make: make.__name__)
@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_both_directions_are_captured_in_one_graph(make, way):
    flow = moved_away(make(3, layers=4, hidden=(8,), context_dim=2))
    go, points, context = getattr(flow.transform, way), some_points(3, 7), some_points(2, 7)
    captured = torch.compile(go, backend="eager", fullgraph=True)(points, context)
    for one, other in zip(captured, go(points, context), strict=True):
        torch.testing.assert_close(one, other)


def test_jacobians_by_vmap_and_an_ensemble_of_couplings():
    layer = moved_away(mf.Coupling(4, mf.Spline(4), hidden=(8,)))
    z = some_points(4, 6)
    for go in (layer.forward, layer.inverse):
        jacobians = torch.func.vmap(torch.func.jacrev(lambda p, go=go: go(p)[0]))(z)
        torch.testing.assert_close(torch.linalg.slogdet(jacobians).logabsdet, go(z)[1])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: mf.Coupling(1, mf.Affine()), ValueError, "dim must be at least 2: .* got 1"),
        (lambda: mf.Coupling(2.0, mf.Affine()), ValueError, "a whole number.* got 2.0"),
        (lambda: mf.Coupling(2, mf.Sigmoid()), ValueError, r"Sigmoid\(\) goes from .* to \(0.0, 1"),
        (lambda: mf.Coupling(2, mf.Logit()), ValueError, "must end where it starts"),
        (lambda: mf.Coupling(2, mf.Affine), TypeError, "such as Affine.*; got 'Affine'"),
        (lambda: mf.Coupling(2, mf.Affine(), hidden=64), ValueError, "hidden must be .* got 64"),
        (lambda: mf.Coupling(2, mf.Affine(), -1), ValueError, "context_dim must be .* got -1"),
        (
            lambda: mf.Coupling(2, mf.Affine(), conditioner=torch.tanh),
            TypeError,
            "conditioner must be an nn.Module; got <built-in",
        ),
    ],
)
def test_what_a_coupling_cannot_be_made_of_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
