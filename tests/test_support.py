"""Support: each kind of column against torch's own transforms, and nothing outside its ends."""

import math

import pytest
import torch
from torch.distributions import (
    AffineTransform,
    Beta,
    ComposeTransform,
    ExpTransform,
    LogNormal,
    SigmoidTransform,
)

import minflow as mf

INF = math.inf
MIXED = [0.1, -INF, -2.0, -INF], [INF, 0.3, 5.0, INF]  # one column of each kind


def column(lower, upper):
    """The map of one column, out of torch's own."""
    if math.isfinite(lower) and math.isfinite(upper):
        return ComposeTransform([SigmoidTransform(), AffineTransform(lower, upper - lower)])
    if math.isfinite(lower):
        return ComposeTransform([ExpTransform(), AffineTransform(lower, 1.0)])
    if math.isfinite(upper):
        return ComposeTransform(
            [AffineTransform(0, -1.0), ExpTransform(), AffineTransform(upper, -1.0)]
        )
    return AffineTransform(0.0, 1.0)


def some_points(dim, dtype=torch.float64):
    return 2 * torch.randn(50, dim, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("lower", "upper"),
    [([1.0], [INF]), ([-INF], [2.0]), ([-1.0], [3.0]), ([-INF], [INF]), MIXED],
    ids=["a lower end", "an upper end", "both", "none", "mixed"],
)
def test_each_kind_of_column_is_torchs_own_transform(lower, upper):
    layer, z = mf.Support(lower, upper), some_points(len(lower))
    maps = [column(a, b) for a, b in zip(lower, upper, strict=True)]
    wanted = torch.stack([m(z[:, d]) for d, m in enumerate(maps)], -1)
    log_slopes = [m.log_abs_det_jacobian(z[:, d], wanted[:, d]) for d, m in enumerate(maps)]
    x, log_det = layer(z)
    torch.testing.assert_close(x, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_det, sum(log_slopes), rtol=1e-9, atol=1e-9)
    again, log_det_back = layer.inverse(x)
    torch.testing.assert_close(again, z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-9, atol=1e-9)
    for go, points in [(layer.forward, z), (layer.inverse, x)]:
        point = points[3]
        jacobian = torch.autograd.functional.jacobian(lambda p, go=go: go(p)[0], point)
        assert torch.equal(jacobian, jacobian.diag().diag())
        torch.testing.assert_close(jacobian.diag().log().sum(), go(point)[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [20.0, 100.0, 1e4, 1e30])
def test_samples_are_strictly_inside_even_from_huge_z_and_all_stays_finite(size, dtype):
    layer = mf.Support(*MIXED)
    z = torch.tensor([[size], [-size]], dtype=dtype).expand(2, 4).clone().requires_grad_()
    x, log_det = layer(z)
    lower, upper = torch.tensor(MIXED, dtype=dtype)
    assert x.isfinite().all() and ((lower < x) & (x < upper)).all()
    assert layer.codomain.check(x).all()
    again, log_det_back = layer.inverse(x)
    assert all(t.isfinite().all() for t in (log_det, again, log_det_back))
    for result in (x.sum(), log_det.sum()):
        assert torch.autograd.grad(result, z, retain_graph=True)[0].isfinite().all()


def test_in_float64_the_ends_keep_their_digits():
    """0.1 in float32 is 0.100000001490116: points between the two belong inside."""
    layer = mf.Support([0.1], [INF]).double()
    x = torch.tensor([[0.1 + 1e-12]], dtype=torch.float64)
    assert layer.codomain.check(x)
    z, _ = layer.inverse(x)
    assert z.item() == pytest.approx(math.log(1e-12), abs=1e-3)
    x, _ = layer(torch.tensor([[-30.0]]).double())
    assert x.item() - 0.1 == pytest.approx(math.exp(-30), rel=1e-3)


def flow_on(lower, upper, dtype=torch.float32):
    torch.manual_seed(0)
    parts = mf.TriangularAffine(len(lower)), mf.Support(lower, upper)
    flow = mf.Flow(mf.Compose(*parts).to(dtype))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return flow


@pytest.mark.parametrize("box", [MIXED, ([0.0] * 4, [1.0] * 4), ([0.0] * 4, [INF] * 4)])
def test_outside_and_on_the_ends_the_density_is_zero_and_no_nan_reaches_the_gradients(box):
    flow = flow_on(*box)
    inside = flow.sample(())
    assert flow.log_prob(inside).isfinite()
    rows = [inside]
    for d, ends in enumerate(zip(*box, strict=True)):
        for end, outwards in zip(ends, (-1, 1), strict=True):
            for place in (end, end + outwards) if math.isfinite(end) else ():
                rows.append(inside.clone())
                rows[-1][d] = place
    x = torch.stack(rows).requires_grad_()
    log_q = flow.log_prob(x)
    assert log_q[0].isfinite() and (log_q[1:] == -INF).all()
    gradients = torch.autograd.grad(log_q.sum(), [x, *flow.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_nan_is_nan_also_in_columns_of_different_kinds():
    flow = flow_on(*MIXED)
    x = flow.sample(4)
    x[1, 3] = x[2, 0] = math.nan
    assert flow.log_prob(x).isnan().tolist() == [False, True, True, False]


def test_a_flow_with_a_lower_end_is_the_log_normal_law():
    flow = mf.Flow(mf.Support([0.0, 0.0], [INF, INF]))
    x = torch.tensor([[0.1, 3.0], [20.0, 1.0]])
    wanted = LogNormal(torch.zeros(2), torch.ones(2)).log_prob(x).sum(-1)
    torch.testing.assert_close(flow.log_prob(x), wanted)


def test_a_density_on_columns_of_two_kinds_integrates_to_one():
    flow = flow_on([0.0, -1.0], [INF, 2.0], torch.float64)
    u = torch.linspace(-12, 12, 801, dtype=torch.float64)
    positive, between = u.exp(), -1 + 3 * u.sigmoid()
    x = torch.cartesian_prod(positive, between)
    with torch.no_grad():
        density = flow.log_prob(x).exp().reshape(801, 801)
    mass = torch.trapezoid(torch.trapezoid(density, between), positive)
    assert mass.item() == pytest.approx(1, abs=1e-3)


def test_it_learns_a_law_on_an_interval():
    torch.manual_seed(0)
    law = Beta(torch.tensor([2.0]), torch.tensor([5.0]))
    flow = mf.Flow(mf.Compose(mf.Elementwise(1, mf.Spline(8)), mf.Support([0.0], [1.0])))
    mf.fit(flow, law.sample((2000,)), steps=150, lr=0.03)
    x = law.sample((2000,))
    gap = (law.log_prob(x).squeeze(-1) - flow.log_prob(x)).mean()
    assert abs(gap.item()) < 0.05
    x = flow.sample(1000)
    assert ((x > 0) & (x < 1)).all()


def test_it_comes_back_from_a_file_with_its_infinite_ends(tmp_path):
    flow = flow_on(*MIXED)
    mf.save(flow, tmp_path / "flow")
    again = mf.load(tmp_path / "flow")
    assert again.transform.transforms[1].lower == (0.1, -INF, -2.0, -INF)
    x = flow.sample(5)
    assert torch.equal(again.log_prob(x), flow.log_prob(x))
    with pytest.raises(ValueError, match="holds Flow.*but the flow is Flow"):
        mf.load(tmp_path / "flow", flow_on([0.0] * 4, [1.0] * 4))


def test_it_fits_after_and_before_what_has_the_same_ends():
    mf.Compose(mf.Elementwise(1, mf.Sigmoid()), mf.Inverse(mf.Support([0.0], [1.0])))
    with pytest.raises(ValueError, match=r"ends in \(0.0, 1.0\), the second starts from"):
        mf.Compose(mf.Support([0.0], [1.0]), mf.TriangularAffine(1))
    base = torch.distributions.Uniform(torch.tensor([0.1]), torch.tensor([0.3]))
    mf.Flow(mf.Inverse(mf.Support([0.1], [0.3])), base)  # 0.3 in float32 is a little more


@pytest.mark.parametrize(
    ("lower", "upper", "words"),
    [
        ([0.0], [0.0], "column 0 must have lower < upper; got 0.0 and 0.0"),
        ([0.0, 2.0], [1.0, 1.0], "column 1 must have lower < upper; got 2.0 and 1.0"),
        ([math.nan], [1.0], "column 0 must have lower < upper; got nan and 1.0"),
        ([INF], [INF], "column 0 must have lower < upper; got inf and inf"),
        ([-INF], [-INF], "column 0 must have lower < upper; got -inf and -inf"),
        ([0.0], [1.0, 2.0], "one number a column; got 1 and 2"),
        ([], [], "dim must be a whole number, at least 1; got 0"),
    ],
)
def test_wrong_ends_are_named(lower, upper, words):
    with pytest.raises(ValueError, match=words):
        mf.Support(lower, upper)
