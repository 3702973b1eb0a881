"""Monotone networks: they rise whatever their parameters are, and their inverse reaches rounding."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

import minflow as mf

UNITS = [1, 2, 6]
SCALES = [1.0, 30.0, 1e4]
DTYPES = [torch.float32, torch.float64]

each_size = pytest.mark.parametrize("units", UNITS)
each_scale = pytest.mark.parametrize("scale", SCALES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def hostile(which, scale, dtype, count=2000, seed=0):
    """Parameters up to a scale: normal draws, signs alone, and a few of them large among zeros."""
    generator = torch.Generator().manual_seed(seed)
    shape = which.num_params, count
    params = torch.randn(shape, generator=generator, dtype=torch.float64)
    params[:, ::3] = params[:, ::3].sign()
    params[:, 1::3] *= torch.rand(shape, generator=generator)[:, 1::3] < 0.1
    return (scale * params).clamp(-scale, scale).to(dtype)


def along(which, params, dtype, count=101):
    """Points from well before a curve's bends to well after, one column for each set of parameters."""
    scale, shift, a, b, *_ = which.network(params)
    ends = -b / a  # where a tanh of the first layer is 0
    # Far from 0, or under a large shift, points stand further apart, or else rounding is all.
    margin = 3 + 0.1 * ends.abs().amax(0) + 0.1 * shift.abs() / scale
    low, high = ends.amin(0) - margin, ends.amax(0) + margin
    return low + (high - low) * torch.linspace(0, 1, count, dtype=dtype).unsqueeze(-1)


def known_to(which, params, x, z, slope):
    """To what a value z is known: eps times the numbers it is summed of, and x's own rounding."""
    scale, shift, *_, v = which.network(params)
    size = shift.abs() + (scale * x).abs() + v.sum(0) + z.abs() + x.abs() * slope
    return torch.finfo(x.dtype).eps * size


@each_dtype
@each_scale
@each_size
def test_a_curve_rises_strictly_whatever_its_parameters_are(units, scale, dtype):
    """Two thousand of them: slopes are positive and finite; values rise where they can be told apart."""
    which = mf.Monotone(units)
    params = hostile(which, scale, dtype)
    x = along(which, params, dtype)
    z, log_slope = which.inverse(x, params.unsqueeze(1))
    assert z.isfinite().all() and log_slope.isfinite().all()
    floor = 0.9 * math.exp(-which.bound)  # the straight part alone
    assert log_slope.min() >= math.log(floor) - 1e-5
    rounding = 4 * known_to(which, params, x, z, log_slope.exp())
    rounding = rounding[1:].maximum(rounding[:-1])
    rise = z.diff(dim=0)
    assert (rise > floor * x.diff(dim=0) - rounding).all()
    apart = floor * x.diff(dim=0) > rounding
    assert (rise[apart] > 0).all()
    assert apart.float().mean() > 0.95  # nearly all pairs are a true test


@settings(deadline=None, max_examples=100)
@given(
    units=st.sampled_from(UNITS),
    seed=st.integers(0, 10_000),
    spread=st.floats(0, 5),
    x=st.floats(-30, 30),
)
def test_its_slope_is_autograds(units, seed, spread, x):
    which = mf.Monotone(units)
    generator = torch.Generator().manual_seed(seed)
    shape = which.num_params, 1
    params = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    x = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    for way in (which.inverse, which.forward):
        value, log_slope = way(x, params)
        (slope,) = torch.autograd.grad(value.sum(), x)
        assert slope > 0
        torch.testing.assert_close(slope.log(), log_slope, rtol=1e-7, atol=1e-7)


@each_scale
@each_size
def test_the_slope_in_float32_is_that_of_float64(units, scale):
    which = mf.Monotone(units)
    params = hostile(which, scale, torch.float32, count=500)
    x = along(which, params, torch.float32)
    _, rough = which.inverse(x, params.unsqueeze(1))
    _, exact = which.inverse(x.double(), params.double().unsqueeze(1))
    # A bend's place, −b/a, is known to eps · b, and there a tanh′ doubles within 1/a.
    _, _, a, b, *_ = which.network(params)
    blur = torch.finfo(torch.float32).eps * (1 + b.abs() + (a * x.unsqueeze(1)).abs()).amax(1)
    steepest = 400.0  # from the largest to the smallest of slopes, as e^s, a and v are bounded
    assert ((rough - exact).abs() <= 4 * steepest * blur).all()


def test_a_curve_is_its_formula_by_hand():
    """K = 2, each sum written out in plain numbers."""
    which = mf.Monotone(2, bound=3.0)
    raw = [0.3, -0.4, 0.5, 0.1, -0.2, 0.6, 0.7, -0.8, 0.2, 0.9, 1.0, -1.0, 0.4, 0.0]
    params = torch.tensor(raw, dtype=torch.float64).unsqueeze(-1)
    scale, shift, a, b, w, c, v = which.network(params)
    scale, shift = scale.item(), shift.item()
    a, b, c, v = (value.flatten().tolist() for value in (a, b, c, v))
    w = w.squeeze(-1).tolist()
    assert scale > 0 and shift == pytest.approx(0.3)
    assert min(a + v + w[0] + w[1]) > 0
    assert [sum(row) for row in w] == pytest.approx([1, 1])
    first = math.exp(1) / (math.exp(1) + math.exp(-1))  # of the logits 1 and −1
    assert w[0] == pytest.approx([first, 1 - first])
    x = 0.7
    inner = [math.tanh(a[i] * x + b[i]) for i in range(2)]
    outer = [math.tanh(w[j][0] * inner[0] + w[j][1] * inner[1] + c[j]) for j in range(2)]
    z = scale * x + shift + v[0] * outer[0] + v[1] * outer[1]
    slope = scale + sum(
        v[j] * (1 - outer[j] ** 2) * sum(w[j][i] * (1 - inner[i] ** 2) * a[i] for i in range(2))
        for j in range(2)
    )
    got, log_slope = which.inverse(torch.tensor([x], dtype=torch.float64), params)
    assert got.item() == pytest.approx(z, abs=1e-12)
    assert log_slope.item() == pytest.approx(math.log(slope), abs=1e-12)


@each_size
def test_zero_parameters_are_close_to_the_identity(units):
    """As every scalar map promises; to a tenth, as the mixtures are held to."""
    which, x = mf.Monotone(units), torch.linspace(-3, 3, 601).unsqueeze(-1)
    for way in (which.inverse, which.forward):
        value, log_slope = way(x, torch.zeros(which.num_params, 1, 1))
        assert (value - x).abs().max() < 0.1
        assert log_slope.abs().max() < 0.5


@pytest.mark.parametrize("units", [2, 6])
def test_no_two_units_start_equal_and_none_stays_where_it_is(units):
    """Equal units would get equal gradients, and stay equal for ever."""
    which = mf.Monotone(units)
    params = torch.zeros(which.num_params, 1, 1, dtype=torch.float64, requires_grad=True)
    x = torch.linspace(-2, 3, 7, dtype=torch.float64).unsqueeze(-1)
    z, log_slope = which.inverse(x, params)
    gradient = torch.autograd.grad((z.sin() + log_slope).sum(), params)[0].flatten()
    assert gradient.abs().min() > 1e-9
    for part in gradient[2:].split([units] * 4 + [units**2]):
        assert part.sort().values.diff().min() > 1e-9


# --- The way back. ---


@each_dtype
@each_scale
@each_size
def test_the_root_search_reaches_rounding(units, scale, dtype):
    """A value is met to twice what it is known to; a point to that, over the slope there."""
    which = mf.Monotone(units)
    params = hostile(which, scale, dtype)
    start = along(which, params, dtype, count=21)
    z, log_slope = which.inverse(start, params.unsqueeze(1))
    x, log_slope_back = which.forward(z, params.unsqueeze(1))
    again, at_x = which.inverse(x, params.unsqueeze(1))
    assert x.isfinite().all() and torch.equal(log_slope_back, -at_x)
    unit = known_to(which, params, x, z, at_x.exp())
    assert ((again - z).abs() <= 2 * unit).all()
    # What lies between the two points rises by no less than the straight part does.
    least = torch.minimum(log_slope, at_x).exp().clamp(max=1e3)
    straight = which.network(params)[0]
    assert ((x - start).abs() * torch.minimum(least, straight) <= 4 * unit).all()


def test_how_near_a_point_comes_back_in_float32():
    """Numbers of ordinary size: to 2e-5 for the steepest and flattest of curves."""
    which, far = mf.Monotone(6), 0.0
    for spread in (0.5, 1.0):
        params = hostile(which, spread, torch.float32)
        x = torch.linspace(-6, 6, 101).unsqueeze(-1).expand(101, 2000)
        z, _ = which.inverse(x, params.unsqueeze(1))
        again, _ = which.forward(z, params.unsqueeze(1))
        far = max(far, (again - x).abs().max().item())
    assert far < 2e-5


@each_dtype
@each_scale
@each_size
def test_the_bracket_holds_the_root(units, scale, dtype):
    """Up to the rounding of its ends: (z − t ± Σ v) e^−s."""
    which = mf.Monotone(units)
    params = hostile(which, scale, dtype)
    x = along(which, params, dtype)
    z, log_slope = which.inverse(x, params.unsqueeze(1))
    straight, shift, *_, v = which.network(params)
    reach = v.sum(0)
    rounding = 4 * known_to(which, params, x, z, log_slope.exp()) / straight
    assert ((z - shift - reach) / straight <= x + rounding).all()
    assert ((z - shift + reach) / straight >= x - rounding).all()


@each_dtype
@pytest.mark.parametrize("far", [1e2, 1e4, 1e30])
def test_far_out_a_curve_is_a_straight_line_both_ways(far, dtype):
    which = mf.Monotone(6)
    params = hostile(which, 3.0, dtype, count=500)
    straight, shift, a, b, w, c, v = which.network(params)
    for sign in (-1, 1):
        value = torch.full((500,), sign * far, dtype=dtype)
        z, log_slope = which.inverse(value, params)
        # The first layer has levelled off; the second says what remains.
        rest = shift + (v * torch.tanh(sign * w.sum(1) + c)).sum(0)
        if (a * far - b.abs()).min() > 20:
            torch.testing.assert_close(z, straight * value + rest)
            torch.testing.assert_close(log_slope, straight.log(), atol=1e-5, rtol=1e-5)
        x, log_slope = which.forward(value, params)
        assert x.isfinite().all() and log_slope.isfinite().all()
        torch.testing.assert_close(which.inverse(x, params)[0], value)


def test_a_batch_is_solved_in_a_few_evaluations(monkeypatch):
    calls, run = 0, mf.monotone._run

    def counted(*args):
        nonlocal calls
        calls += 1
        return run(*args)

    monkeypatch.setattr(mf.monotone, "_run", counted)
    which = mf.Monotone(6)
    which.forward(torch.linspace(-5, 5, 2000), hostile(which, 1.0, torch.float32))
    assert calls <= 30


def test_nan_stays_nan_where_it_is():
    which = mf.Monotone(3)
    for way in (which.forward, which.inverse):
        value, _ = way(torch.tensor([math.nan, 1.0]), torch.zeros(which.num_params, 2))
        assert value.isnan().tolist() == [True, False]


# --- Gradients. ---


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0])
@each_size
def test_first_and_second_derivatives_equal_differences(units, spread):
    which = mf.Monotone(units)
    torch.manual_seed(0)
    value = torch.randn(3, 1, dtype=torch.float64, requires_grad=True)
    params = (spread * torch.randn(which.num_params, 1, 1, dtype=torch.float64)).requires_grad_()
    for way in (which.forward, which.inverse):
        assert gradcheck(way, (value, params), check_forward_ad=True)
        assert gradgradcheck(way, (value, params), fast_mode=True)


@each_scale
def test_gradients_stay_finite_whatever_the_parameters_are(scale):
    which = mf.Monotone(6)
    params = hostile(which, scale, torch.float32).requires_grad_()
    points = along(which, params.detach(), torch.float32, count=11).requires_grad_()
    for way in (which.inverse, which.forward):
        value, log_slope = way(points, params.unsqueeze(1))
        for result in (value, log_slope):
            gradients = torch.autograd.grad(result.sum(), (points, params), retain_graph=True)
            assert all(gradient.isfinite().all() for gradient in gradients)


# --- What goes wrong is named. ---


@pytest.mark.parametrize("units", [0, -1, 2.0, True, "6", None])
def test_a_wrong_number_of_units_is_named(units):
    with pytest.raises(
        ValueError, match=f"units must be a whole number, at least 1; got {units!r}"
    ):
        mf.Monotone(units)


@pytest.mark.parametrize("bound", [0, -1.0, math.inf, math.nan])
def test_a_wrong_bound_is_named(bound):
    with pytest.raises(ValueError, match=f"bound must be positive and finite; got {bound!r}"):
        mf.Monotone(6, bound)


@pytest.mark.parametrize(("units", "numbers"), [(1, 7), (2, 14), (6, 62)])
def test_it_says_how_many_parameters_it_takes_and_which_are_bounded(units, numbers):
    which = mf.Monotone(units)
    assert which.num_params == numbers
    x, far = torch.zeros(1, dtype=torch.float64), torch.zeros(numbers, 1, dtype=torch.float64)
    places = range(numbers)[which.soft_bounded]
    assert len(places) == 1 + 2 * units
    for place in places:  # beyond the bound, more changes nothing
        far[place] = 1e3
        one = which.inverse(x, far)
        far[place] = 1e6
        assert all(map(torch.equal, one, which.inverse(x, far)))
        far[place] = 0
