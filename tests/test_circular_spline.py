"""Splines on the circle: nothing tells where it was cut, and no mass is lost there."""

import math

import pytest
import torch
from torch.distributions import Uniform

import minflow as mf

CIRCLE = mf.CircularSpline(5)
ENDS = torch.tensor([-math.pi, math.pi], dtype=torch.float64)


def some_params(seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(CIRCLE.num_params, 1, generator=generator).double()


def apart(one, other):
    """The distance round the circle."""
    return torch.atan2((one - other).sin(), (one - other).cos()).abs()


def uniform(dim, dtype=torch.float32):
    """On the circle in each coordinate."""
    return Uniform(*torch.tensor([[-math.pi] * dim, [math.pi] * dim], dtype=dtype))


def circular_flow(dim, layers=2, dtype=torch.float32):
    torch.manual_seed(0)
    parts = [mf.Coupling(dim, CIRCLE, hidden=(8,), flip=i % 2 == 1) for i in range(layers)]
    transform = mf.Compose(*parts).to(dtype)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return mf.Flow(transform, uniform(dim, dtype))


@pytest.mark.parametrize("seed", range(5))
def test_both_ends_are_one_point_with_one_slope(seed):
    params = some_params(seed, spread=2.0)
    for go in (CIRCLE.forward, CIRCLE.inverse):
        value, log_slope = go(ENDS, params)
        assert apart(*value) < 1e-12
        assert log_slope[0] == pytest.approx(log_slope[1].item(), abs=1e-12)
    _, slopes = CIRCLE.knots(params)
    assert torch.equal(slopes[0], slopes[-1])


@pytest.mark.parametrize("turn", [0.0, 1.0, -3.0, 40.0])
def test_it_is_continuous_across_the_cut_and_where_the_turn_puts_it(turn):
    params = some_params(1)
    params[-1] = turn
    cut = torch.tensor([-math.pi, math.pi - turn, -turn], dtype=torch.float64)
    for go in (CIRCLE.forward, CIRCLE.inverse):
        at = torch.remainder(cut + math.pi, 2 * math.pi) - math.pi
        after, log_after = go(at + 1e-9, params)
        at = torch.remainder(cut - 2e-9 + math.pi, 2 * math.pi) - math.pi
        before, log_before = go(at, params)
        assert apart(after, before).max() < 1e-6
        torch.testing.assert_close(log_after, log_before, atol=1e-5, rtol=0)


def test_it_has_the_period_of_a_turn_in_the_angle_and_in_its_own_turn():
    params, angles = some_params(2), torch.linspace(-3, 3, 61, dtype=torch.float64)
    z, log_slope = CIRCLE.inverse(angles, params)
    again, log_again = CIRCLE.inverse(angles + 2 * math.pi, params)
    assert apart(again, z).max() < 1e-12
    torch.testing.assert_close(log_again, log_slope)
    turned = params.clone()
    turned[-1] += 4 * math.pi
    for go in (CIRCLE.forward, CIRCLE.inverse):
        assert apart(go(angles, turned)[0], go(angles, params)[0]).max() < 1e-12


@pytest.mark.parametrize("turn", [0.5, 1e3, 1e30])
def test_whatever_the_turn_is_angles_stay_on_the_circle_and_come_back(turn):
    params = some_params(3).float()
    params[-1] = turn
    angles = torch.linspace(-math.pi, math.pi, 10_001)
    x, _ = CIRCLE.forward(angles, params)
    assert CIRCLE.codomain.check(x).all()
    assert apart(CIRCLE.inverse(x, params)[0], angles).max() < 1e-5


def test_no_angle_is_a_fixed_point_of_every_spline():
    """Without the turn, π would stay where it is."""
    x, _ = CIRCLE.forward(ENDS, some_params(0))
    assert apart(x, ENDS).min() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_base_that_is_uniform_on_the_circle_is_taken_in_either_dtype(dtype):
    flow = circular_flow(2, dtype=dtype)
    x = flow.sample(20_000)
    assert flow.transform.codomain.check(x).all()
    assert flow.log_prob(x).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_angle_of_exactly_pi_has_its_density(dtype):
    """atan2(0, −1) is such an angle; an end of an interval would have density 0."""
    for flow in (circular_flow(2, dtype=dtype), mf.Flow(mf.Elementwise(2, CIRCLE), uniform(2))):
        like = next(flow.parameters())
        x = torch.tensor([[math.pi, 0.5], [-math.pi, 0.5], [0.5, math.pi], [0.5, -math.pi]]).to(
            like
        )
        log_q = flow.log_prob(x)
        assert log_q.isfinite().all()
        torch.testing.assert_close(log_q[::2], log_q[1::2], atol=1e-4, rtol=0)


def test_a_base_that_reaches_off_the_circle_is_refused():
    with pytest.raises(ValueError, match="the base reaches over .*, but the transform starts from"):
        mf.Flow(mf.Elementwise(1, CIRCLE), Uniform(-torch.ones(1), 3.2 * torch.ones(1)))
    with pytest.raises(ValueError, match="the base reaches over"):
        mf.Flow(mf.Elementwise(1, CIRCLE))


@pytest.mark.parametrize("dim", [1, 2])
def test_the_density_of_a_flow_on_the_circle_integrates_to_one(dim):
    if dim == 1:
        transform = mf.Elementwise(1, CIRCLE).double()
        with torch.no_grad():
            transform.params.copy_(some_params(4))
        flow = mf.Flow(transform, uniform(1, torch.float64))
    else:
        flow = circular_flow(2, dtype=torch.float64)
    count = 20_000 if dim == 1 else 500
    middles = (torch.arange(count, dtype=torch.float64) + 0.5) / count * 2 * math.pi - math.pi
    x = torch.cartesian_prod(*[middles] * dim).reshape(-1, dim)
    with torch.no_grad():
        mass = flow.log_prob(x).exp().mean() * (2 * math.pi) ** dim
    assert mass.item() == pytest.approx(1, abs=1e-3)
    assert flow.log_prob(torch.full((dim,), 3.2).double()) == -math.inf


@pytest.mark.parametrize("flip", [False, True])
def test_a_coupling_does_not_see_where_the_circle_was_cut(flip):
    torch.manual_seed(0)
    layer = mf.Coupling(4, CIRCLE, hidden=(8,), flip=flip).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    kept = slice(2, 4) if flip else slice(0, 2)
    z = 2 * math.pi * torch.rand(20, 4, dtype=torch.float64) - math.pi
    shifted = z.clone()
    shifted[:, kept] += 2 * math.pi * torch.tensor([1, -1]).double()
    for go in (layer.forward, layer.inverse):
        (one, log_det), (other, log_other) = go(z), go(shifted)
        torch.testing.assert_close(apart(one, other), torch.zeros(20, 4).double())
        torch.testing.assert_close(log_other, log_det)
        moved = z.clone()
        moved[:, kept] += 0.1
        assert (go(moved)[1] - log_det).abs().max() > 1e-3


def test_the_network_sees_cosine_and_sine_of_each_kept_angle():
    layer = mf.Coupling(5, CIRCLE, context_dim=3)
    assert layer.net[0].in_features == 2 * 2 + 3
    angle = torch.tensor([[0.0, math.pi / 2]])
    cosine, sine = CIRCLE.features(angle)
    torch.testing.assert_close(cosine, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(sine, torch.tensor([[0.0, 1.0]]))


def test_a_flow_on_the_circle_learns_a_peak_across_the_cut():
    """Angles round π: half of them are near −π. A flow that saw the cut would find two peaks."""
    torch.manual_seed(0)
    law = torch.distributions.VonMises(torch.tensor(math.pi), torch.tensor(8.0))
    data = law.sample((4000, 1))
    flow = mf.Flow(mf.Elementwise(1, mf.CircularSpline(8)), uniform(1))
    mf.fit(flow, data, steps=200, lr=0.05)
    x = law.sample((4000, 1))
    gap = (law.log_prob(x).squeeze(-1) - flow.log_prob(x)).mean()
    assert abs(gap.item()) < 0.05
