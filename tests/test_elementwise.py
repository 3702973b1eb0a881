"""Scalar maps: exact values, tails, and the root search with its gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

import minflow as mf
from minflow.solve import monotone_root
from minflow.transform import interval

LINE_MAPS = [mf.Affine(), mf.LeakyReLU(), mf.MixtureCDF(5), mf.MixtureCDF(1)]
finite = st.floats(-30, 30, allow_nan=False)


@settings(deadline=None, max_examples=60)
@given(
    which=st.sampled_from(LINE_MAPS),
    batch=st.lists(st.integers(0, 4), max_size=2),
    dim=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    spread=st.floats(0, 3),
)
def test_scalar_maps_go_there_and_back(which, batch, dim, seed, spread):
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch, dim)
    params = spread * torch.randn(which.num_params, *shape, generator=generator).double()
    z = 2 * torch.randn(shape, generator=generator).double()
    x, log_slope = which.forward(z, params)
    again, log_slope_back = which.inverse(x, params)
    assert x.shape == log_slope.shape == shape
    torch.testing.assert_close(again, z, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(log_slope_back, -log_slope, rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(which=st.sampled_from(LINE_MAPS), seed=st.integers(0, 10_000), z=finite)
def test_scalar_maps_increase_and_their_log_slope_is_the_derivative(which, seed, z):
    generator = torch.Generator().manual_seed(seed)
    params = torch.randn(which.num_params, 1, generator=generator).double()
    z = torch.tensor([z], dtype=torch.float64, requires_grad=True)
    x, log_slope = which.forward(z, params)
    (slope,) = torch.autograd.grad(x.sum(), z)
    assert slope > 0
    torch.testing.assert_close(slope.log(), log_slope.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("which", LINE_MAPS, ids=repr)
def test_zero_parameters_are_close_to_the_identity(which):
    z = torch.linspace(-3, 3, 61).unsqueeze(-1)
    x, _ = which.forward(z, torch.zeros(which.num_params, 1, 1))
    assert (x - z).abs().max() < 0.1


def test_affine_by_hand():
    x, log_slope = mf.Affine().forward(torch.tensor([2.0]), torch.tensor([[1.0], [0.0]]))
    assert (x.item(), log_slope.item()) == (3.0, 0.0)
    raw = torch.tensor([[-2.0], [5 * math.atanh(math.log(5) / 5)]])
    x, log_slope = mf.Affine().forward(torch.tensor([1.0]), raw)
    assert x.item() == pytest.approx(3.0) and log_slope.item() == pytest.approx(math.log(5))


def test_log_scales_are_bounded_both_ways():
    for raw in (-1e6, 1e6):
        _, log_slope = mf.Affine().forward(torch.ones(1), torch.tensor([[0.0], [raw]]))
        assert abs(log_slope.item()) <= 5.0


@settings(deadline=None, max_examples=60)
@given(z=st.floats(-1e4, 1e4))
def test_sigmoid_stays_inside_and_comes_back_finite_in_float32(z):
    x, log_slope = mf.Sigmoid().forward(torch.tensor([z]), torch.zeros(0, 1))
    assert 0 < x.item() < 1 and log_slope.isfinite()
    again, log_slope_back = mf.Sigmoid().inverse(x, torch.zeros(0, 1))
    assert again.isfinite() and log_slope_back.isfinite()


def mixture_params(components, seed):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(3 * components, 1, generator=generator).double()


def test_mixture_cdf_under_a_logistic_base_has_the_mixture_density():
    which, params = mf.MixtureCDF(3), mixture_params(3, seed=0)
    log_weights, means, log_scales = which.mixture(params)
    x = torch.linspace(-12, 12, 97, dtype=torch.float64).unsqueeze(-1)
    z, log_slope = which.inverse(x, params.unsqueeze(1))
    log_logistic = torch.sigmoid(z).log() + torch.sigmoid(-z).log()
    u = (x - means.T) / log_scales.exp().T
    mixture = (log_weights.exp().T / log_scales.exp().T * torch.sigmoid(u) * torch.sigmoid(-u)).sum(
        1
    )
    torch.testing.assert_close((log_logistic + log_slope).exp().squeeze(), mixture)


@pytest.mark.parametrize("far", [1e2, 1e6, 1e30])
def test_mixture_cdf_tails_stay_finite_in_float32(far):
    params = mixture_params(4, seed=1).float()
    for sign in (-1, 1):
        for way in (mf.MixtureCDF(4).forward, mf.MixtureCDF(4).inverse):
            value, log_slope = way(torch.tensor([sign * far]), params)
            assert value.isfinite().all() and log_slope.isfinite().all()
            assert value.sign().item() == sign


def test_mixture_cdf_with_far_narrow_modes_stays_finite_and_in_place():
    params = torch.tensor([[0.0], [0.0], [-50.0], [50.0], [-9.0], [-9.0]])  # scales e⁻⁵ or so
    z = torch.linspace(-4, 4, 101).unsqueeze(-1).requires_grad_()
    x, log_slope = mf.MixtureCDF(2).forward(z, params.unsqueeze(1))
    (gradient,) = torch.autograd.grad(x.sum() + log_slope.sum(), z)
    assert x.isfinite().all() and log_slope.isfinite().all() and gradient.isfinite().all()
    assert (x.diff(dim=0) >= 0).all()
    on_a_mode = ((x.abs() - 50).abs() < 2).squeeze()
    assert on_a_mode.float().mean() > 0.98


def test_mixture_cdf_is_nan_where_its_input_is():
    x, _ = mf.MixtureCDF(2).forward(torch.tensor([math.nan, 0.0]), torch.zeros(6, 2))
    assert x.isnan().tolist() == [True, False]


@pytest.mark.parametrize("which", [mf.MixtureCDF(3), mf.Affine()], ids=repr)
def test_gradients_through_both_directions_equal_differences(which):
    torch.manual_seed(0)
    value = torch.randn(4, 1, dtype=torch.float64, requires_grad=True)
    params = torch.randn(which.num_params, 1, 1, dtype=torch.float64, requires_grad=True)
    for way in (which.forward, which.inverse):
        assert gradcheck(way, (value, params), check_forward_ad=True)
        assert gradgradcheck(way, (value, params))


REVERSIBLE = [*LINE_MAPS, mf.Spline(4), mf.CircularSpline(4), mf.Sigmoid(), mf.Logit()]


@pytest.mark.parametrize("which", REVERSIBLE, ids=repr)
def test_reversed_is_the_map_with_its_directions_exchanged(which):
    turned = mf.Reversed(which)
    torch.manual_seed(0)
    params = torch.randn(which.num_params, 1, dtype=torch.float64)
    value = torch.rand(7, dtype=torch.float64)  # inside every domain and codomain
    for way, other in ((turned.forward, which.inverse), (turned.inverse, which.forward)):
        for one, wanted in zip(way(value, params), other(value, params), strict=True):
            assert torch.equal(one, wanted)
    twice = mf.Reversed(turned).forward(value, params)
    assert all(map(torch.equal, twice, which.forward(value, params)))
    assert (turned.num_params, turned.soft_bounded) == (which.num_params, which.soft_bounded)
    assert interval(turned.domain) == interval(which.codomain)
    assert interval(turned.codomain) == interval(which.domain)
    for one, wanted in zip(turned.features(value), which.features(value), strict=True):
        assert torch.equal(one, wanted)


def test_reversed_maps_are_equal_when_what_they_turn_is():
    assert mf.Reversed(mf.Affine(2.0)) == mf.Reversed(mf.Affine(2.0))
    assert mf.Reversed(mf.Affine(2.0)) != mf.Reversed(mf.Affine(3.0))
    layer = mf.Elementwise(2, mf.Reversed(mf.Sigmoid()))
    assert layer.domain.check(torch.tensor([0.5, 0.9]))
    assert not layer.domain.check(torch.tensor([0.5, 1.5]))


@pytest.mark.parametrize("wrong", [mf.Affine, None, "Affine"])
def test_what_cannot_be_reversed_is_named(wrong):
    with pytest.raises(TypeError, match="scalar_map must be a ScalarMap such as Affine"):
        mf.Reversed(wrong)


def cubic(x):
    return x**3 + x, torch.log(3 * x**2 + 1)


@settings(deadline=None, max_examples=60)
@given(target=st.floats(-1e5, 1e5))
def test_monotone_root_solves_a_cubic(target):
    target = torch.tensor([target], dtype=torch.float64)
    bound = target.abs() + 1
    x = monotone_root(cubic, target, -bound, bound)
    torch.testing.assert_close(cubic(x)[0], target, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_is_solved_in_a_few_evaluations(dtype):
    calls = 0

    def counted(x):
        nonlocal calls
        calls += 1
        return cubic(x)

    target = torch.linspace(-50, 50, 20_000, dtype=dtype)
    x = monotone_root(counted, target, -target.abs() - 1, target.abs() + 1)
    torch.testing.assert_close(cubic(x)[0], target, rtol=1e-5, atol=1e-5)
    assert calls <= 25


def test_monotone_root_reaches_small_values():
    def power(x):
        return x**9, math.log(9) + 8 * x.abs().log()

    ends = torch.ones(1, dtype=torch.float64)
    x = monotone_root(lambda x: (x.exp(), x), ends * 1e-30, -100 * ends, 100 * ends)
    torch.testing.assert_close(x, (ends * 1e-30).log())
    x = monotone_root(power, 1e-9 * ends, -0.9 * ends, ends)
    torch.testing.assert_close(x, 0.1 * ends)


def test_monotone_root_survives_a_flat_start():
    def steep(x):  # Newton alone leaps away from the flat parts of a hyperbolic tangent
        return torch.tanh(20 * x), math.log(20) - 2 * torch.log(torch.cosh(20 * x))

    target = torch.tensor([0.5, -0.9], dtype=torch.float64)
    ends = torch.tensor([50.0, 50.0], dtype=torch.float64)
    x = monotone_root(steep, target, -0.6 * ends, ends)
    torch.testing.assert_close(x, torch.atanh(target) / 20)
