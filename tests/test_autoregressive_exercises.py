"""The numbers of the exercises of chapter 6, against autograd, flows and the library."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch

import minflow
from minflow.exercises import autoregressive as ch6
from minflow.nets import MaskedMLP


def jacobian(f, x):
    return torch.autograd.functional.jacobian(f, x)


def masks_of(net):
    """The masks of the library, with its units in their order."""
    return [layer.mask.numpy() for layer in net.layers]


def test_the_masks_of_chapter_6_are_those_of_the_library():
    order = (1, 2, 0)
    net = MaskedMLP(3, outputs=1, hidden=(4,), order=order)
    M1, M2, paths = ch6.masks_by_hand()
    degrees = net.sizes[1]
    assert degrees == [0, 2, 2, 0]  # the library would spread them evenly: 1, 1, 2, 2
    even = ch6.mended_masks(order, (1, 1, 2, 2))
    for ours, theirs in zip(even, masks_of(net), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, by_hand in zip(ch6.mended_masks(order, (1, 2, 2, 2)), (M1, M2), strict=True):
        np.testing.assert_array_equal(ours, by_hand)
    assert paths.tolist() == [[0, 4, 3], [0, 0, 0], [0, 1, 0]]  # what the solution says

    for order in itertools.permutations(range(3)):
        theirs = masks_of(MaskedMLP(3, outputs=1, hidden=(4,), order=order))
        mended = ch6.mended_masks(order, (1, 1, 2, 2))
        assert all(np.array_equal(a, b) for a, b in zip(mended, theirs, strict=True))
        # As shown: the first mask is right where the order is its own inverse (so is the statement).
        shown = ch6.broken_masks(order, (1, 1, 2, 2))
        own_inverse = [order[i] for i in order] == [0, 1, 2]
        assert torch.equal(shown[0], mended[0]) == own_inverse
        assert (shown[1] @ shown[0]).diagonal().sum() > 0  # it sees itself
        assert (mended[1] @ mended[0]).diagonal().sum() == 0


@pytest.mark.parametrize("D", [5, 9])
def test_the_counts_of_chapter_6_are_those_of_the_library(D):
    net = MaskedMLP(D, outputs=2, hidden=(2 * (D - 1), 2 * (D - 1)))
    ones = [int(mask.sum()) for mask in masks_of(net)]
    weights = sum(mask.size for mask in masks_of(net))
    assert net.sizes[1] == net.sizes[2] == [0, *[2] * (D - 1), 0]
    assert D * weights / sum(ones) == pytest.approx(2 * D - 0.8)
    if D == 5:
        truth = *ones, weights, D * weights, D * weights / sum(ones), 2 * 1000 - 0.8
        assert ch6.count_the_weights() == pytest.approx(truth)
        assert truth[:5] == (20, 40, 40, 184, 920)


def test_the_layers_by_hand_of_chapter_6_agree_with_autograd():
    def layer(u, value):
        s = torch.stack([0 * u[0] + math.log(2), u[0] * math.log(2), 0 * u[0] - math.log(4)])
        t = torch.stack([0 * u[0] - 1, u[0], u[0] * u[1]])
        return value * s.exp() + t

    x1, x2, x3, log_det, x2_of_b, log_det_of_b = ch6.both_ways_by_hand()
    x, z = torch.tensor([x1, x2, x3]).double(), torch.tensor([3.0, 6.0, 3.0]).double()
    assert torch.allclose(layer(x, x), z)
    back = torch.linalg.slogdet(jacobian(lambda x: layer(x, x), x)).logabsdet
    assert log_det == pytest.approx(-back.item())
    there = torch.linalg.slogdet(jacobian(lambda z: layer(z, z), z)).logabsdet
    assert (x2_of_b, log_det_of_b) == pytest.approx((layer(z, z)[1].item(), there.item()))
    assert (x1, x2, x3, x2_of_b) == pytest.approx((2, 1, 4, 51))  # what the solution says


def test_the_conditionals_of_chapter_6_agree_with_scipy_and_the_library():
    z1, z2, F2, log_det, y1, y2, log_det_other = (
        part.item() for part in ch6.cholesky_is_knothe_rosenblatt()
    )
    law = scipy.stats.multivariate_normal([1, -1], [[4, 2], [2, 5]])
    for z, det in (((z1, z2), log_det), ((y1, y2), log_det_other)):  # one density, two maps
        log_q = scipy.stats.norm.logpdf(z).sum() + det
        assert log_q == pytest.approx(law.logpdf([5, 3]), abs=1e-5)
    # F₂ by a sum over the joint density at x₁ = 5.
    grid = np.linspace(-40, 40, 80_001)
    heights = law.pdf(np.stack([np.full_like(grid, 5), grid], -1))
    below = heights[grid <= 3].sum() / heights.sum()
    assert below == pytest.approx(F2, abs=1e-3)
    assert (z1, z2, y1, y2) == pytest.approx((2, 1, 1.342, 1.789), abs=1e-3)

    def F(x):
        return 0.5 * torch.sigmoid(x) + 0.5 * torch.sigmoid(2 * (x - math.log(3)))

    z, slope, logistic, normal = (part.item() for part in ch6.mixture_at_a_point())
    x = torch.tensor(math.log(3)).double()
    assert z == pytest.approx(torch.logit(F(x)).item(), abs=1e-6)
    assert slope == pytest.approx(jacobian(lambda x: torch.logit(F(x)), x).item(), abs=1e-6)
    assert logistic == pytest.approx(jacobian(F, x).item(), abs=1e-6)
    assert normal == pytest.approx(scipy.stats.norm.pdf(z) * slope, abs=1e-6)
    mixture = minflow.MixtureCDF(components=2)
    params = torch.zeros(6, 1).double()
    _, means, log_scales = mixture.mixture(params)
    params[2:4] = torch.tensor([[0.0], [math.log(3)]]) - means
    bound = mixture.bound
    wanted = torch.tensor([[0.0], [-math.log(2)]]).double() - log_scales
    params[4:] = bound * torch.atanh(wanted / bound)
    theirs = mixture.inverse(x[None], params)
    assert (z, math.log(slope)) == pytest.approx([part.item() for part in theirs], abs=1e-6)


def test_the_prices_of_chapter_6_agree_with_quadrature():
    right, var1, var2, of_x1, of_x2, total = ch6.two_bumps_in_two_orders()
    x = np.linspace(-12, 12, 240_001)
    step = x[1] - x[0]

    def price(density):
        """The variance, and the divergence from the best normal law."""
        mean = (x * density).sum() * step
        var = ((x - mean) ** 2 * density).sum() * step
        log = np.log(np.where(density > 0, density, 1))
        gap = log - scipy.stats.norm.logpdf(x, mean, math.sqrt(var))
        return var, (density * gap).sum() * step

    bumps = (scipy.stats.norm.pdf(x, 2, 0.25) + scipy.stats.norm.pdf(x, -2, 0.25)) / 2
    half = 2 * scipy.stats.norm.pdf(x) * ((x > 0) + 0.5 * (x == 0))
    assert (var1, of_x1) == pytest.approx(price(bumps), abs=1e-4)
    assert (var2, of_x2) == pytest.approx(price(half), abs=1e-4)
    assert (right, total) == pytest.approx((0, of_x1 + of_x2))
    assert total == pytest.approx(1.581, abs=5e-4)  # what the solution says


def test_the_floor_of_the_banana_in_the_wrong_order():
    """The numbers that exercise 6.12 says: the floor of affine maps, and that of one normal law."""
    banana = minflow.data.Banana(sigma=2.0)
    x1, x2 = torch.linspace(-8, 80, 4401).double(), torch.linspace(-16, 16, 1601).double()
    steps = (x1[1] - x1[0]).item(), (x2[1] - x2[0]).item()
    p = banana.log_prob(torch.cartesian_prod(x1, x2)).exp().reshape(len(x1), len(x2))
    p1 = p.sum(1) * steps[1]
    var2 = (p * x2**2).sum(1) * steps[1] / p1  # its mean is 0
    mean = (p1 * x1).sum() * steps[0]
    var1 = (p1 * (x1 - mean) ** 2).sum() * steps[0]
    both = math.log(2 * math.pi * math.e) + 0.5 * var1.log()
    floor = both + 0.5 * (p1 * var2.log()).sum() * steps[0] - banana.entropy()
    assert floor.item() == pytest.approx(ch6._FLOOR, abs=2e-4)
    normal = both + 0.5 * math.log(4) - banana.entropy()  # x₁ and x₂ are uncorrelated
    assert normal.item() == pytest.approx(ch6._NORMAL, abs=5e-4)


def layer_of_the_library(order):
    """A layer z = x eˢ + t that is not the identity, and its network as the exercises have it."""
    affine = minflow.Reversed(minflow.Affine())
    layer = minflow.Autoregressive(len(order), affine, order=order).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))

    def net(x):
        """Of the map of x to z with the numbers that the network makes: where 0 goes is t."""
        with torch.no_grad():
            params = (layer.params + layer.net(x)).movedim(-2, 0)
            t, s = layer.scalar_map.inverse(torch.zeros_like(x), params)
        return s, t

    return layer, net


def test_the_samplers_of_chapter_6_undo_a_layer_of_the_library():
    torch.manual_seed(0)
    z = torch.randn(6, 4).double()
    order = (2, 0, 3, 1)
    layer, net = layer_of_the_library(order)
    with torch.no_grad():
        truth, log_det = layer(z)
    x, found = ch6.one_by_one(z, net, order)
    assert torch.allclose(x, truth)
    assert torch.allclose(found, log_det)
    assert not torch.allclose(ch6.one_by_one(z, net, range(4))[0], truth)

    layer, net = layer_of_the_library(range(4))
    with torch.no_grad():
        truth, _ = layer(z)
    passes = ch6.jacobi(z, net, 5)
    off = (passes - truth).abs().amax(1) / truth.abs().amax(0).clamp(min=1)  # of their size
    for k in range(1, 6):  # after k passes the first k are exact, and the next one is not
        assert off[k - 1, :k].max() < 1e-12
        assert k >= 4 or off[k - 1, k] > 1e-6


def test_the_monotone_network_of_chapter_6_is_the_librarys():
    torch.manual_seed(0)
    curve = minflow.Monotone(units=5)
    params = torch.randn(curve.num_params, 1).double()
    scale, shift, a, b, w, c, v = (part[..., 0] for part in curve.network(params))
    z = torch.tensor([-50.0, -1.0, 0.3, 2.0, 70.0]).double()
    x, log_slope = ch6.unmonotone(z, scale.log(), shift, a, b, w, c, v)
    truth, log_truth = curve.forward(z[:, None], params[:, None].expand(-1, 5, 1))
    assert torch.allclose(x, truth[:, 0], atol=1e-9)
    assert torch.allclose(log_slope, log_truth[:, 0], atol=1e-9)


def test_the_attention_of_chapter_6_sees_only_what_came_before():
    torch.manual_seed(0)
    x, first = torch.randn(5, 2).double(), torch.randn(2).double()
    Wq, Wk, Wv = torch.randn(3, 2, 2).double()

    def sees(attention, *shape):
        J = jacobian(lambda x: attention(x, Wq, Wk, Wv, first), x)
        return J.abs().amax((1, 3)) > 0

    assert torch.equal(sees(ch6.attention), torch.ones(5, 5).tril(-1) > 0)
    unshifted = ch6._attending(see=ch6._unshifted)
    assert torch.equal(sees(unshifted), torch.ones(5, 5).tril() > 0)  # what the solution says


# What is close to right and still wrong, and what is written in another way and right.


def nearly(change, at):
    """A right tuple of numbers with one of them changed."""

    def answer(reference):
        parts = list(reference())
        parts[at] = change(parts[at])
        return tuple(parts)

    return answer


@pytest.mark.parametrize("n", [2, 3, 4, 8, 9])
@pytest.mark.parametrize("change", [lambda p: p * 1.02 + 0.02, lambda p: -p - 0.05])
def test_a_number_that_is_a_little_off_is_wrong(n, change):
    exercise = ch6.EXERCISES[n - 1]
    for at in range(len(exercise.judge.parts)):
        answer = nearly(change, at)(exercise.reference)
        assert exercise.check(answer).state == "wrong"


def test_a_mask_with_one_wrong_entry_is_wrong():
    right = ch6.masks_by_hand()
    for part, array in enumerate(right):
        for at in np.ndindex(array.shape):
            other = [a.copy() for a in right]
            other[part][at] = 1 - other[part][at]
            assert ch6.MASKS.check(tuple(other)).state == "wrong"


@pytest.mark.parametrize(
    ("n", "answer", "says"),
    [
        (1, ch6._three((1, 2, 3), (0, 1, 2)), "as they stand"),
        (2, (2, 1, 4, 0.6931, 51, 1.3863), "for A: log_det: the sign is flipped"),
        (2, (2, 1, 4, -0.6931, 197, 1.3863), "for B: x₂: the network was shown the wrong"),
        (3, (2, 4 / 5**0.5, 0.8413, -1.386, 1.342, 1.789, -1.386), "did not know the first"),
        (4, (20, 40, 60, 184, 920, 9.2, 1999), "for ones in M3: what is made for place p"),
        (8, (5 / 8, 22 / 15, 11 / 32, 0.5135), "for z₂: the logit is missing"),
        (9, (0, 4.0, 0.3634, 1.394, 0.187, 1.581), "for Var x₁: the spread within a bump"),
        (9, (0, 4.0625, 0.3634, 2.0872, 0.187, 1.581), "for the price of x₁: log 2 is missing"),
        (9, (0, 4.0625, 1.0, 1.394, 0.187, 1.581), "for Var(x₂ | x₁): given x₁ you know the sign"),
        (5, lambda z, net, order: (z, z.sum(-1)), "was expected"),
        (6, lambda order, degrees: ch6.broken_masks(order, degrees), "as it was"),
        (7, lambda z, net, steps: z, "the shape should be"),
        (10, lambda z, *net: z, "2 values are expected"),
        (11, lambda x, Wq, Wk, Wv, first: x @ Wv, "was expected"),
        (12, minflow.maf(2, layers=2), "z₁ changes with x₂"),
        (12, minflow.Autoregressive(2, minflow.Affine()), "hand in `mf.Flow(transform)`"),
        (12, minflow.maf(3), "the target has dim 2, your flow dim 3"),
        (12, minflow.maf(2, context_dim=1), "your flow wants one"),
    ],
)
def test_wrong_answers_are_told_what_is_wrong(n, answer, says):
    with torch.no_grad():
        for parameter in answer.parameters() if isinstance(answer, minflow.Flow) else ():
            parameter.add_(0.1)  # so that a fresh flow is not the identity
    verdict = ch6.EXERCISES[n - 1].check(answer)
    assert verdict.state == "wrong"
    assert says in verdict.message


BY_NUMPY = ("_steps_numpy", "_jacobi_numpy", "_unmonotone_loop", "_attention_numpy")


@pytest.mark.parametrize("n", [5, 7, 10, 11])
def test_an_answer_in_numpy_alone_or_in_float32_passes(n):
    exercise = ch6.EXERCISES[n - 1]
    names = {variant.__name__: variant for variant in exercise.variants}
    by_numpy = next(names[name] for name in names if name in BY_NUMPY)

    def only_arrays(*case):
        if any(isinstance(part, torch.Tensor) for part in case):
            raise TypeError("arrays, please")
        return by_numpy(*case)

    def only_single(*case):
        if any(isinstance(part, torch.Tensor) and part.dtype != torch.float32 for part in case):
            raise RuntimeError("float32, please")
        return exercise.reference(*case)

    for answer in (only_arrays, only_single):
        assert exercise.check(answer).state == "correct"
