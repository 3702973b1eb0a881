"""The numbers of the exercises of chapter 5, against autograd, flows and the library."""

import math

import numpy as np
import pytest
import torch

import minflow


def test_the_numbers_of_chapter_5_agree_with_autograd():
    from minflow.exercises import coupling as ch5

    torch.manual_seed(0)

    def layer(flip):
        made = minflow.Coupling(4, minflow.Affine(), flip=flip, hidden=(8,))
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.normal_()
        return made.double()

    def seen(*layers):
        """Which z each x depends on, by the Jacobian of random couplings."""
        z, flow = torch.randn(4).double(), minflow.Compose(*layers)
        return torch.autograd.functional.jacobian(lambda p: flow(p)[0], z) != 0

    def changed(mask):
        return int((mask.sum(1) > 1).sum())

    swap = minflow.Permute.of([0, 2, 1, 3])
    A = seen(*(layer(False) for _ in range(4)))
    B = seen(layer(False), layer(True))
    C = seen(layer(False), swap, layer(False))
    depth = next(k for k in range(1, 9) if seen(*(layer(bool(i % 2)) for i in range(k))).all())
    truth = changed(A), changed(B), changed(C), int(A.sum()), int(B.sum()), depth
    assert tuple(map(int, ch5.who_sees_whom())) == truth

    def f(z):  # t and s are what they are at z₁ = ½, and steep
        steep = 200 * (z[0] - 0.5)
        x2 = z[1] * torch.exp(math.log(6) + steep) + 1 - steep
        return torch.stack([z[0], x2, z[2] * torch.exp(steep - math.log(2)) - 3 + steep])

    z = torch.tensor([0.5, -1.0, 4.0]).double()
    log_det = torch.linalg.slogdet(torch.autograd.functional.jacobian(f, z)).logabsdet
    truth = *f(z).tolist(), log_det.item(), -log_det.item()
    assert [part.item() for part in ch5.coupling_by_hand()] == pytest.approx(truth, abs=1e-5)

    for flip in (False, True):  # the broken layer is right in two dimensions alone
        z, net = torch.randn(5, 2).double(), ch5._Net(np.random.default_rng(0), 1, 2)
        mended, shown = ch5.mended_layer(z, net, flip), ch5.broken_layer(z, net, flip)
        assert all(torch.equal(a, b) for a, b in zip(mended, shown, strict=True))
    z, net = torch.randn(5, 3).double(), ch5._Net(np.random.default_rng(0), 1, 4)
    mended, shown = ch5.mended_layer(z, net, False), ch5.broken_layer(z, net, False)
    assert mended[0].shape == shown[0].shape  # what the statement says
    assert not torch.allclose(mended[0], shown[0])


def test_the_densities_of_chapter_5_agree_with_flows():
    from minflow.exercises import coupling as ch5

    torch.manual_seed(0)
    flow = minflow.nice(3, layers=5)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_()
    flow.double()
    scales = torch.tensor([4.0, 0.5, 3.0]).double()
    z = torch.randn(500, 3).double()
    y, log_det = scales * z, scales.log().sum().expand(500)
    for layer in flow.transform.transforms[1:]:  # the couplings and permutations
        y, more = layer(y)
        log_det = log_det + more
    said, highest, factor = ch5.nice_everywhere()
    assert torch.allclose(log_det, torch.full_like(log_det, said.item()))
    truth = flow.base.log_prob(torch.zeros(3).double()) - scales.log().sum()
    assert (highest.item(), factor) == pytest.approx((truth.item(), 1), abs=1e-6)
    assert truth.item() == pytest.approx(-4.549, abs=5e-4)  # what the solution says

    entropy, t_at_3, s1, s2, kl = ch5.banana_from_the_wrong_end()
    banana = minflow.data.Banana(2.0)
    assert entropy == pytest.approx(banana.entropy().item()) == pytest.approx(3.531, abs=5e-4)
    assert entropy + kl == pytest.approx(4.224, abs=5e-4)  # what the solution says
    v, w = torch.randn(2, 200_000, generator=torch.Generator().manual_seed(1)).double()
    x = torch.stack([w + v**2, 2 * v], -1)  # x₂²/4 = v²
    assert torch.allclose(x[:, 0] - x[:, 1] ** 2 / 4, w)

    def cross_entropy(s1, s2, slope=0.0, bend=0.0):  # of flows that keep x₁; t a parabola
        t = t_at_3 + slope * (x[:, 0] - 3) + bend * (x[:, 0] - 3) ** 2
        z = torch.stack([x[:, 0] / s1, (x[:, 1] - t) / s2], -1)
        return -(minflow.StandardNormal(2).log_prob(z) - math.log(s1 * s2)).mean().item()

    best = cross_entropy(s1, s2)
    gaps = banana.log_prob(x) + math.log(2 * math.pi * s1 * s2) + 0.5 * (x**2).sum(-1) / 4
    assert gaps.mean().item() == pytest.approx(kl, abs=4 * gaps.std().item() / 200_000**0.5)
    others = [(1.9, 2), (2.1, 2), (2, 1.9), (2, 2.1), (3**0.5, 2)]
    others += [(2, 2, 0.1), (2, 2, -0.1), (2, 2, 0, 0.05), (2, 2, 0, -0.05)]
    assert all(cross_entropy(*other) > best + 1e-3 for other in others)
    assert cross_entropy(3**0.5, 2) - best == pytest.approx(math.log(3) / 2 + 1 / 6 - kl, abs=5e-3)

    moons = minflow.data.TwoMoons(noise=0.05)
    t = torch.linspace(0, math.pi, 100_001).double()  # its best normal law, by sums over the arcs
    arcs = torch.stack([torch.stack([t.cos(), t.sin()]), torch.stack([1 - t.cos(), 0.5 - t.sin()])])
    points = arcs.movedim(0, 1).flatten(1)
    covariance = torch.cov(points, correction=0) + moons.noise**2 * torch.eye(2)
    normal = math.log(2 * math.pi * math.e) + 0.5 * torch.logdet(covariance).item()
    assert normal - moons.entropy().item() == pytest.approx(ch5._NORMAL, abs=0.01)


def test_the_bin_of_chapter_5_is_a_bin_of_the_librarys_spline():
    from minflow import spline as library
    from minflow.exercises import coupling as ch5

    knots = torch.tensor([[1.0, 3.0], [-1.0, 3.0], [4.0, 1.0]]).double()
    z, log_slope = library.evaluate(torch.tensor(2.0).double(), knots[:2], knots[2])
    x, _ = library._solve(torch.tensor(0.6).double(), knots[:2], knots[2])
    truth = z.item(), log_slope.exp().item(), x.item()
    assert ch5.one_bin() == pytest.approx(truth)
    assert truth == pytest.approx((5 / 3, 16 / 9, 1.5))  # what the solution says

    # In float32, too, the inverse survives bins that are nearly straight; the school's does not.
    line = torch.tensor([-2.0, 0.0, 2.0])
    at = torch.linspace(-1.9, 1.9, 39)
    for off in (0.0, 1e-6, 1e-5, 1e-4, 1e-3):
        slopes = torch.tensor([1.0, 1 + off, 1.0])
        truth = ch5.unspline(at.double(), *(k.double() for k in (line, line, slopes)))
        found = ch5.unspline(at, line, line, slopes)
        for part, right in zip(found, truth, strict=True):
            assert (part - right).abs().max() < 1e-6
        school = ch5._unsplined(ch5._school(1))(at, line, line, slopes)[0]
        assert not (school - truth[0]).abs().max() < (1e-5 if off == 1e-3 else 1e-3)

    # The last step of both gives gradients, also outside of the box and at its ends.
    for f in (ch5.spline, ch5.unspline):
        tables = [torch.tensor(table).requires_grad_() for table in ch5._TWO_BINS]
        value = torch.tensor([-9.0, -2.0, -0.3, 0.7, 2.0, 9.0]).double().requires_grad_()
        out, log_slope = f(value, *tables)
        gradients = torch.autograd.grad(out.sum() + log_slope.sum(), (value, *tables))
        assert all(g.isfinite().all() for g in gradients)
