"""Splines: against a textbook in plain Python, at their knots, and under hostile parameters."""

import bisect
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

import minflow as mf
from minflow import spline

LINE, CIRCLE = mf.Spline(6, bound=3.0), mf.CircularSpline(6)


def some_params(which, seed, spread=1.5, batch=1):
    generator = torch.Generator().manual_seed(seed)
    params = spread * torch.randn(which.num_params, batch, generator=generator).double()
    if isinstance(which, mf.CircularSpline):
        params[-1] = 0  # no turn: so the knots are where knots() says
    return params


def knots_of(which, params):
    """x, z and dz/dx at the knots, as lists of plain numbers."""
    (x, z), slopes = which.knots(params)
    return [values.flatten().tolist() for values in (x, z, slopes)]


def gregory_delbourgo(point, x, z, slopes):
    """The curve of 1982 and its derivative, by their formulas (2.4) and (2.7), in plain numbers."""
    k = min(max(bisect.bisect_right(x, point) - 1, 0), len(x) - 2)
    w, h = x[k + 1] - x[k], z[k + 1] - z[k]
    chord, left, right = h / w, slopes[k], slopes[k + 1]
    t = (point - x[k]) / w
    below = chord + (right + left - 2 * chord) * t * (1 - t)
    value = z[k] + h * (chord * t**2 + left * t * (1 - t)) / below
    top = chord**2 * (right * t**2 + 2 * chord * t * (1 - t) + left * (1 - t) ** 2)
    return value, top / below**2


def by_bisection(target, x, z, slopes):
    """Where the curve takes a value: 200 halvings, no quadratic."""
    low, high = x[0], x[-1]
    for _ in range(200):
        middle = (low + high) / 2
        below = gregory_delbourgo(middle, x, z, slopes)[0] < target
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2


def apart(which, one, other):
    """The distance of two numbers: on the circle, round it."""
    off = abs(one - other)
    return min(off, 2 * math.pi - off) if isinstance(which, mf.CircularSpline) else off


def points_between(knots, count, seed):
    """Random points, and the knots themselves with both ends."""
    inside = np.random.default_rng(seed).uniform(knots[0], knots[-1], count).tolist()
    return torch.tensor(inside + knots, dtype=torch.float64)


# --- Against the textbook. ---


@pytest.mark.parametrize("which", [LINE, CIRCLE, mf.Spline(2), mf.Spline(16, 1.0)], ids=repr)
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), spread=st.sampled_from([0.1, 0.5, 1.0]))
def test_the_spline_is_gregory_and_delbourgos_both_ways(which, seed, spread):
    params = some_params(which, seed, spread)
    x, z, slopes = knots_of(which, params)
    points = points_between(x, 20, seed)
    got, log_slope = which.inverse(points, params)
    for i, point in enumerate(points.tolist()):
        value, slope = gregory_delbourgo(point, x, z, slopes)
        assert apart(which, got[i].item(), value) < 1e-9
        assert log_slope[i].item() == pytest.approx(math.log(slope), abs=1e-9)
    points = points_between(z, 20, seed)
    got, log_slope = which.forward(points, params)
    for i, point in enumerate(points.tolist()):
        place = by_bisection(point, x, z, slopes)
        assert apart(which, got[i].item(), place) < 1e-9
        slope = gregory_delbourgo(place, x, z, slopes)[1]
        assert log_slope[i].item() == pytest.approx(-math.log(slope), abs=1e-9)


def test_one_bin_by_hand():
    """From (0, 0) to (1, 1) with slopes 3 and 1 at its ends: at ξ = 1/2, both z and dz/dx are 2/3."""
    one = torch.ones(1, dtype=torch.float64)
    edges = torch.tensor([[[0], [1]], [[0], [1]]], dtype=torch.float64)
    slopes = torch.tensor([[3], [1]], dtype=torch.float64)
    z, log_slope = spline.evaluate(0.5 * one, edges, slopes)
    assert (z.item(), log_slope.exp().item()) == pytest.approx((2 / 3, 2 / 3))
    x, log_slope = spline._solve(2 / 3 * one, edges, slopes)
    assert (x.item(), log_slope.exp().item()) == pytest.approx((1 / 2, 3 / 2))


@pytest.mark.parametrize("which", [LINE, CIRCLE], ids=repr)
def test_knots_rise_from_end_to_end_and_no_bin_is_smaller_than_the_floor(which):
    bound = getattr(which, "bound", math.pi)
    for spread in (1.0, 1e3, 1e30):
        (x, z), slopes = which.knots(some_params(which, 0, spread, batch=100))
        for edges in (x, z):
            assert (edges[0] == -bound).all() and (edges[-1] == bound).all()
            least = spline.FLOOR * 2 * bound / which.bins
            assert edges.diff(dim=0).min() >= least * (1 - 1e-9)
        chords = z.diff(dim=0) / x.diff(dim=0)
        harmonic = 2 / (1 / chords[1:] + 1 / chords[:-1])
        off = (slopes[1:-1] / harmonic).log().abs().max()
        assert off <= spline.SLOPE_BOUND * (1 + 1e-9)


@pytest.mark.parametrize("which", [LINE, CIRCLE], ids=repr)
def test_value_and_slope_are_continuous_at_every_knot_and_at_the_ends(which):
    params = some_params(which, seed=3)
    (x, z), _ = which.knots(params)
    for go, knots in [(which.inverse, x), (which.forward, z)]:
        at, step = knots.flatten(), 1e-9
        if which is CIRCLE:
            at = at[1:-1]  # its ends are one point: another test goes across
        values, log_slopes = zip(*(go(at + s, params) for s in (-step, 0, step)), strict=True)
        for value, log_slope in zip(values, log_slopes, strict=True):
            torch.testing.assert_close(value, values[1], atol=1e-6, rtol=0)
            torch.testing.assert_close(log_slope, log_slopes[1], atol=1e-5, rtol=0)


def test_outside_its_box_a_spline_is_the_identity_and_at_the_ends_its_slope_is_one():
    params = some_params(LINE, seed=1)
    for go in (LINE.forward, LINE.inverse):
        far = torch.tensor([-1e30, -7.0, -3.000001, 3.000001, 1e30], dtype=torch.float64)
        value, log_slope = go(far, params)
        assert torch.equal(value, far) and not log_slope.any()
        value, log_slope = go(torch.tensor([-3.0, 3.0]).double(), params)
        assert value.tolist() == [-3, 3] and log_slope.abs().max() < 1e-12


@pytest.mark.parametrize("which", [LINE, CIRCLE, mf.Spline(32, 0.1)], ids=repr)
def test_zero_parameters_are_the_identity(which):
    points = torch.linspace(-3.14, 3.14, 101, dtype=torch.float64)
    for go in (which.forward, which.inverse):
        value, log_slope = go(points, torch.zeros(which.num_params, 1).double())
        torch.testing.assert_close(value, points, atol=1e-12, rtol=0)
        assert log_slope.abs().max() < 1e-12


@pytest.mark.parametrize("which", [LINE, CIRCLE], ids=repr)
def test_gradients_through_both_directions_equal_differences(which):
    params = some_params(which, seed=0, batch=5).requires_grad_()
    value = torch.linspace(-2.4, 2.6, 5, dtype=torch.float64, requires_grad=True)
    for way in (which.forward, which.inverse):
        assert gradcheck(way, (value, params), check_forward_ad=True)


# --- Whatever the parameters are, in float32. ---


def hostile(which, scale, count=10_000):
    """Points up to three times the box, each under parameters of its own; some on knots and ends."""
    generator = torch.Generator().manual_seed(0)
    params = scale * torch.randn(which.num_params, count, generator=generator)
    points = 2 * torch.rand(count, generator=generator) - 1
    if isinstance(which, mf.Spline):
        points[::2] *= 3
    points = points * getattr(which, "bound", math.pi)
    (x, z), _ = which.knots(params)
    for i, knots in enumerate((x, z)):  # each of so many points on a knot of its own spline
        at = torch.arange(1000 * i, 1000 * i + 1000)
        points[at] = knots[at % (which.bins + 1), at]
    return points, params


@pytest.mark.parametrize("scale", [10.0, 1e4, 1e30])
@pytest.mark.parametrize("which", [mf.Spline(8), mf.Spline(32), mf.CircularSpline(8)], ids=repr)
def test_extreme_logits_give_finite_values_slopes_and_gradients(which, scale):
    points, params = hostile(which, scale)
    for go in (which.forward, which.inverse):
        point, numbers = points.clone().requires_grad_(), params.clone().requires_grad_()
        value, log_slope = go(point, numbers)
        assert value.isfinite().all() and log_slope.isfinite().all()
        for result in (value, log_slope):
            gradients = torch.autograd.grad(result.sum(), (point, numbers), retain_graph=True)
            assert all(gradient.isfinite().all() for gradient in gradients)
        (slope,) = torch.autograd.grad(value.sum(), point)  # alive at every point, and right
        torch.testing.assert_close(slope.log(), log_slope, atol=0.01, rtol=0)


def misses(which, scale):
    """How far a round trip ends from its start, x to z to x and z to x to z; on the circle, round it."""
    points, params = hostile(which, scale)
    there, back = which.inverse(points, params)[0], which.forward(points, params)[0]
    off = which.forward(there, params)[0] - points, which.inverse(back, params)[0] - points
    if isinstance(which, mf.CircularSpline):
        off = [spline._wrap(one) for one in off]
    return [one.abs().max().item() for one in off]


@pytest.mark.parametrize("scale", [10.0, 1e4, 1e30])
@pytest.mark.parametrize("which", [mf.Spline(2), mf.Spline(8), mf.CircularSpline(8)], ids=repr)
def test_extreme_logits_come_back_to_a_hundredth_both_ways(which, scale):
    assert max(misses(which, scale)) < 1e-2


def test_without_its_floor_a_spline_does_not_come_back(monkeypatch):
    monkeypatch.setattr(spline, "FLOOR", 1e-3)
    assert max(misses(mf.Spline(8), 1e4)) > 0.1


@pytest.mark.parametrize("scale", [10.0, 1e30])
@pytest.mark.parametrize("which", [mf.Spline(8), mf.CircularSpline(8)], ids=repr)
def test_extreme_logits_keep_the_order_of_points_up_to_rounding(which, scale):
    _, params = hostile(which, scale, count=2000)
    if isinstance(which, mf.CircularSpline):
        params[-1] = 0
    bound = getattr(which, "bound", math.pi)
    points = torch.linspace(-bound, bound, 501).unsqueeze(-1)
    if isinstance(which, mf.CircularSpline):
        points = points[1:-1]  # its ends may come out as either, being one
    for go in (which.forward, which.inverse):
        value, _ = go(points, params.unsqueeze(1))
        assert value.diff(dim=0).min() >= -4 * torch.finfo(torch.float32).eps * bound


def test_nan_stays_nan():
    for go in (LINE.forward, LINE.inverse, CIRCLE.forward, CIRCLE.inverse):
        which = go.__self__
        value, _ = go(torch.tensor([math.nan, 0.5]), torch.zeros(which.num_params, 2))
        assert value.isnan().tolist() == [True, False]


@pytest.mark.parametrize("bins", [1, 0, -3, 2.0, True, "8", None])
def test_a_wrong_number_of_bins_is_named(bins):
    for make in (mf.Spline, mf.CircularSpline):
        with pytest.raises(
            ValueError, match=f"bins must be a whole number, at least 2; got {bins!r}"
        ):
            make(bins)


@pytest.mark.parametrize("bound", [0, -1.0, math.inf, math.nan])
def test_a_wrong_bound_is_named(bound):
    with pytest.raises(ValueError, match=f"bound must be positive and finite; got {bound!r}"):
        mf.Spline(8, bound)
