"""Exercises of chapter 3: learning from data.

The references have no annotations: they look like what the reader writes in the notebook.
"""
# mypy: allow-untyped-defs, no-check-untyped-defs

import math
from typing import NamedTuple

import numpy as np
import torch
from torch.distributions import MultivariateNormal, Normal

import minflow as mf
from minflow.exercises import Equal, Exercise, Measured, Mistake

from ._bugs import four_runs, patient
from ._flows import held_out, refused, too_far

__all__ = ["EXERCISES", "NUMBER", "four_runs", "patient"]

NUMBER = 3
LOG_2PI = math.log(2 * math.pi)
LN2 = math.log(2)


# 3.1


def floor_and_gap():
    mean, sd = 4.0, 3.0  # of the data
    square = sd**2 + mean**2  # the mean of x²
    loss = 0.5 * math.log(2 * math.pi) + 0.5 * square
    entropy = 0.5 * math.log(2 * math.pi * math.e * sd**2)
    return loss, entropy, loss - entropy, mean, sd


_LOSS, _H = 0.5 * LOG_2PI + 12.5, 0.5 * (LOG_2PI + 1) + math.log(3)

FLOOR = Exercise(
    title="A loss and its floor",
    level="easy",
    kind="derive",
    reference=floor_and_gap,
    judge=Equal(
        parts=("the loss at the start", "the entropy", "the divergence", "m", "s"),
        tol=2e-3,
    ),
    insight="The affine flow can represent this law, so the whole divergence can be trained away. "
    "Maximum likelihood ends at the mean and the standard deviation of the data.",
    hints=(
        "At the start q = N(0, 1), so −log q(x) = ½ log 2π + ½ x². What is the mean of x² under "
        "N(4, 3²)?",
        "E[x²] = 3² + 4². The entropy of N(μ, σ²) is ½ log(2πe σ²), and loss = entropy + divergence.",
    ),
    why="Loss: ½ log 2π + ½ (9 + 16) = 13.419. Entropy: ½ log(2πe·9) = 2.518. The difference, "
    "10.901, is KL(p‖q). It is 0 at m = 4 and s = 3, where q = p.",
    mistakes=(
        Mistake(
            (_LOSS, _H, math.log(3) + 17 / 18 - 0.5, 4.0, 3.0),
            "this is KL(q‖p). The mean of the loss is over the data, so it is KL(p‖q).",
        ),
        Mistake(
            (0.5 * LOG_2PI + 4.5, _H, 0.5 * LOG_2PI + 4.5 - _H, 4.0, 9.0),
            "9 is the variance of the data. In E[x²] the squared mean, 16, has its part too, and s is "
            "a standard deviation.",
        ),
        Mistake(
            (12.5, 0.5 + math.log(3), _LOSS - _H, -4 / 3, 1 / 3),
            "½ log 2π belongs to each −log q, and so to the entropy; and m and s are of the map from "
            "z to x, not of z = (x − 4)/3.",
        ),
        Mistake(
            (-_LOSS, -_H, _H - _LOSS, -4.0, -3.0),
            "the sign is flipped: the loss is the mean of minus log q, and here it is positive.",
        ),
        Mistake(
            (_LOSS / LN2, _H / LN2, (_LOSS - _H) / LN2, 4.0, 3.0),
            "nats are asked for, not bits.",
        ),
        Mistake(
            (_LOSS, _H, _LOSS - _H, 0.0, 1.0),
            "m and s are asked for at the end of training, not at its start.",
        ),
        Mistake(
            (_LOSS, _H, _LOSS - _H, 4.0, math.log(3)),
            "log 3 is the logarithm of s. In x = m + s z, s is the standard deviation itself.",
        ),
        Mistake(
            (_LOSS, _H - 0.5, _LOSS - _H + 0.5, 4.0, 3.0),
            "the entropy is ½ log(2πe σ²): its e is the ½ that the mean of ½ (x − μ)²/σ² leaves.",
        ),
        Mistake(
            (_LOSS, _H + math.log(3), _LOSS - _H - math.log(3), 4.0, 3.0),
            "in ½ log(2πe σ²) the variance stands, 9, and not its square.",
        ),
        Mistake(
            (_H, _LOSS, 0.0, 4.0, 3.0),
            "you give the loss at the end. At the start q is N(0, 1), and far from the data.",
        ),
    ),
    variants=(
        (13.419, 2.5176, 10.901, 4, 3),
        torch.tensor([13.419, 2.518, 10.901, 4.0, 3.0]),
        [_LOSS, _H, math.log(1 / 3) + 25 / 2 - 0.5, 4, 3],
    ),
)


# 3.2


def bits_per_dim():
    pictures, dim = 64, 32 * 32 * 3
    nats = -640_000 / pictures  # of one, divided by 256
    return nats, nats / (dim * math.log(2)) + 8


_D = 32 * 32 * 3

BITS = Exercise(
    title="From a log file to bits per dimension",
    level="easy",
    kind="predict",
    reference=bits_per_dim,
    judge=Equal(parts=("nats per picture", "bits per dimension"), tol=2e-3),
    insight="Four choices hide in one number: sum or mean, nats or bits, per picture or per dimension, "
    "and the scale of the data. Say all four when you report one.",
    hints=(
        "Go back from the sum to one picture first. How many numbers does a picture have?",
        "Divide by 3072·log 2. One unit of the scaled pixels is 256 grey levels wide: that is log₂ 256 = 8 "
        "bits more for each dimension.",
    ),
    why="−640,000/64 = −10,000 nats; −10,000/(3072·log 2) = −4.696 bits per dimension on the scaled "
    "pixels; and + 8 gives 3.304 in units of one grey level.",
    mistakes=(
        Mistake(
            (-10_000.0, -10_000 / (_D * LN2)),
            "this is for pixels between 0 and 1. In units of a grey level each dimension has "
            "log₂ 256 = 8 bits more.",
        ),
        Mistake(
            (-10_000.0, -10_000 / _D + 8), "nats became bits without a division by log 2."
        ),
        Mistake(
            (-10_000.0, -10_000 / LN2 + 8),
            "these are bits per picture plus 8: the division by the dimensions is missing.",
        ),
        Mistake(
            (-10_000.0, -10_000 / _D + math.log(256)),
            "these are nats per dimension; bits are asked for.",
        ),
        Mistake(
            (-10_000.0, -10_000 / _D),
            "these are nats per dimension, for pixels between 0 and 1. Divide by log 2, and come back to "
            "grey levels.",
        ),
        Mistake(
            (-10_000.0, -10_000 / _D * LN2 + 8),
            "from nats to bits you divide by log 2: a bit is the smaller unit, so there are more of them.",
        ),
        Mistake(
            (-10_000 / _D, -10_000 / (_D * LN2) + 8),
            "these are nats for one number of a picture; first those of a whole picture are asked for.",
        ),
        Mistake(
            (-10_000.0, -10_000 / (_D * LN2) - 8),
            "the 8 has the wrong sign: on a wider scale the same mass is spread more thinly, so the "
            "loss is higher.",
        ),
        Mistake(
            (10_000.0, 10_000 / (_D * LN2) + 8),
            "a sign is lost: the logged loss is negative, which is no error for a density.",
        ),
        Mistake(
            (-640_000.0, -640_000 / (_D * LN2) + 8),
            "this is for the whole batch: the log has a sum over 64 pictures.",
        ),
        Mistake(
            (-10_000.0, -10_000 / (1024 * LN2) + 8),
            "a colour picture has three numbers a pixel, so D = 3072.",
        ),
    ),
    variants=(
        (-10_000, 3.3037),
        torch.tensor([-1e4, 3.304]),
        [-10_000, -4.6963 + np.log2(256)],
    ),
)


# 3.3


def in_data_units(loss, std):
    return loss + std.log().sum()


def _units_cases(rng):
    return [
        (np.array(1.5), np.array([2.0])),
        (np.array(-0.5), np.array([0.1, 3.0])),
        (np.array(1.5), rng.uniform(0.1, 5, 5)),
        (rng.normal(size=4), rng.uniform(0.1, 5, 3)),
        (np.array(280.0), np.full(200, 1e-3)),
    ]


UNITS = Exercise(
    title="Back to the units of the data",
    level="easy",
    kind="code",
    reference=in_data_units,
    judge=Equal(cases=_units_cases),
    insight="Whoever standardises and forgets this compares metres with millimetres. `Standardize`, as "
    "the last layer, counts it by itself.",
    hints=(
        "x = mean + std · y is an affine map from standardised data y to the data. Which sign has its "
        "log-det in log q(x)?",
        "log q(x) = log q(y) − Σ log std, and the loss is minus that. Test it: do wider data have a "
        "higher entropy or a lower one?",
    ),
    why="log q(x) = log q(y) + log|det dy/dx| = log q(y) − Σ log std; the loss is its negative.",
    mistakes=(
        Mistake(
            lambda loss, std: loss - std.log().sum(),
            "the sign is flipped. Wide data have a large std and thin densities: their loss is higher.",
        ),
        Mistake(
            lambda loss, std: loss + std.log().mean(),
            "this is the mean over the coordinates; log-dets add, one for each.",
        ),
        Mistake(
            lambda loss, std: loss + std.sum().log(),
            "this is the log of a sum. The determinant is the product of the std, so its log is the "
            "sum of the logs.",
        ),
        Mistake(lambda loss, std: loss + std.sum(), "the logarithm is missing."),
        Mistake(
            lambda loss, std: loss + std.log2().sum(),
            "the loss is in nats: take the natural logarithm.",
        ),
        Mistake(
            lambda loss, std: loss + 2 * std.log().sum(),
            "this is with the variances; each coordinate is stretched by its standard deviation.",
        ),
        Mistake(
            lambda loss, std: loss + 0.5 * std.log().sum(),
            "½ log belongs to a variance; std is a standard deviation already.",
        ),
        Mistake(
            lambda loss, std: loss + std.log(),
            "you return one number a coordinate: sum over them.",
        ),
        Mistake(
            lambda loss, std: loss * std.prod(),
            "densities are divided by the product of the std, and to their logs it is added or "
            "subtracted: nothing is multiplied here.",
        ),
        Mistake(
            lambda loss, std: loss + std.prod().log(),
            "at D = 200 the product of the std, 1e-600, underflows to 0. Sum the logs.",
        ),
    ),
    variants=(
        lambda loss, std: np.asarray(loss) + np.log(np.asarray(std)).sum(),
        lambda loss, std: loss + torch.linalg.slogdet(torch.diag(std)).logabsdet,
        lambda loss, std: loss + sum(math.log(s) for s in std.tolist()),
    ),
)


# 3.4


def which_run():
    too_high, too_low, overfits, wrong_log_det = 4, 1, 2, 3
    return too_high, too_low, overfits, wrong_log_det


CURVES = Exercise(
    title="Four training curves",
    level="medium",
    kind="predict",
    reference=which_run,
    judge=Equal(parts=("too high", "too low", "overfitting", "wrong log-det")),
    insight="Two lines and a floor say most of what a training run has to tell: held-out against "
    "training loss, and both against the entropy.",
    hints=(
        "Where do the two lines part? And which run is below the entropy with held-out data?",
        "A rate that is too high shows in the first steps; one that is too low shows in a line that "
        "hardly falls.",
    ),
    why="Run 4 leaps up at once: its rate is too high. Run 1 hardly falls: too low. In run 2 the "
    "held-out loss turns and climbs: overfitting. In run 3 held-out data score far below the entropy, "
    "which no density can do: a wrong log-det.",
    mistakes=(
        Mistake(
            (1, 1, 1, 1),
            "in run 1 both lines go together, far above the entropy, and hardly move: what does that "
            "say about the steps?",
        ),
        Mistake(
            (2, 2, 2, 2),
            "in run 2 the lines part: training rows score better and better, held-out ones worse and "
            "worse.",
        ),
        Mistake(
            (3, 3, 3, 3),
            "in run 3 both lines go together, smoothly, to far below the entropy. Neither the steps "
            "nor the number of rows can do that.",
        ),
        Mistake(
            (4, 4, 4, 4),
            "run 4 leaps up in its first steps and never comes near the entropy.",
        ),
        Mistake(
            (3, 0, 1, 2),
            "you count from 0; the runs are numbered from 1, as in the titles.",
        ),
    ),
    variants=([4, 1, 2, 3], torch.tensor([4, 1, 2, 3]), (4.0, 1.0, 2.0, 3.0)),
)


# 3.5


def two_estimates(log_p, log_q, entropy):
    root = len(log_p) ** 0.5
    difference, surprise = log_p - log_q, -log_q
    paired = difference.mean(), difference.std() / root
    unpaired = surprise.mean() - entropy, surprise.std() / root
    return *paired, *unpaired


def _estimate_cases(rng):
    def case(n, close):
        log_p = -rng.gamma(2.0, size=n)
        return log_p, log_p + close * rng.normal(size=n) - 0.2, np.array(1.3)

    return [
        (np.array([-1.0, -3.0]), np.array([-2.0, -3.0]), np.array(2.0)),
        case(5, 0.1),
        case(20, 0.3),
    ]


def _with(part, change):
    """The reference's answer with one of its four parts changed."""

    def answer(log_p, log_q, entropy):
        made = list(two_estimates(log_p, log_q, entropy))
        made[part] = change(made, log_p, log_q, entropy)
        return tuple(made)

    return answer


def _scaled(by):
    """Both errors multiplied by by(N)."""

    def answer(log_p, log_q, entropy):
        gap, error, unpaired, other = two_estimates(log_p, log_q, entropy)
        return gap, error * by(len(log_p)), unpaired, other * by(len(log_p))

    return answer


def _estimates_numpy(log_p, log_q, entropy):
    log_p, log_q = np.asarray(log_p), np.asarray(log_q)
    gap, n = log_p - log_q, len(log_p)
    errors = [np.std(v, ddof=1) / np.sqrt(n) for v in (gap, log_q)]
    return gap.mean(), errors[0], -log_q.mean() - float(entropy), errors[1]


PAIRED = Exercise(
    title="Paired and unpaired",
    level="medium",
    kind="code",
    reference=two_estimates,
    judge=Equal(
        cases=_estimate_cases,
        parts=("paired gap", "its error", "unpaired gap", "its error (unpaired)"),
    ),
    insight="What makes a point hard for every model is in log p and in log q alike, and leaves with "
    "their difference. The better the model, the more the pairing gains.",
    hints=(
        "The standard error of a mean is the standard deviation of its terms over √N. What are the "
        "terms, in each case?",
        "The paired terms are log p − log q, the unpaired ones −log q. The entropy is a constant, "
        "without scatter. Standard deviations with N − 1, as `std()` of a tensor has them.",
    ),
    why="Both are means over N points: of log p − log q, and of −log q − H. Each error is the "
    "standard deviation of its own terms over √N.",
    mistakes=(
        Mistake(
            _scaled(lambda n: n**0.5),
            "these are the standard deviations of the terms; the error of their mean is smaller by √N.",
        ),
        Mistake(
            _scaled(lambda n: n**-0.5),
            "you divide by N; the error of a mean falls as √N.",
        ),
        Mistake(
            _scaled(lambda n: ((n - 1) / n) ** 0.5),
            "your standard deviation divides by N (as `np.std` does); here it divides by N − 1, as "
            "`std()` of a tensor does.",
        ),
        Mistake(
            _scaled(lambda n: (n - 1) ** 0.5),
            "these are standard deviations of the terms, with N in place of N − 1; and the error of "
            "their mean is smaller by √N.",
        ),
        Mistake(
            _with(
                1,
                lambda made, log_p, log_q, _: (
                    (log_p.var() + log_q.var()) / len(log_p)
                ).sqrt(),
            ),
            "you add the variances of log p and log q as if they were independent. They belong to the "
            "same points: take the standard deviation of the differences.",
        ),
        Mistake(
            _with(3, lambda made, log_p, log_q, _: log_p.std() / len(log_p) ** 0.5),
            "the unpaired error has the scatter of log p; the estimate is the mean of −log q.",
        ),
        Mistake(
            lambda log_p, log_q, entropy: two_estimates(log_q, log_p, entropy),
            "p and q are exchanged.",
        ),
        Mistake(
            _with(0, lambda made, *_: -made[0]),
            "the paired gap has the wrong sign: it is the mean of log p − log q.",
        ),
        Mistake(
            _with(2, lambda made, log_p, log_q, entropy: -log_q.mean() + entropy),
            "the entropy is the floor of the loss: it is subtracted.",
        ),
        Mistake(
            _with(2, lambda made, log_p, log_q, entropy: log_q.mean() - entropy),
            "the unpaired gap begins with the mean of minus log q.",
        ),
        Mistake(
            lambda *given: tuple(two_estimates(*given)[i] for i in (0, 2, 1, 3)),
            "the order is: the paired gap, its error, the unpaired gap, its error.",
        ),
        Mistake(
            lambda *given: tuple(
                v**2 if i % 2 else v for i, v in enumerate(two_estimates(*given))
            ),
            "these are variances over N, the squares of the errors: take roots.",
        ),
        Mistake(
            _with(2, lambda made, log_p, log_q, entropy: -log_q.mean()),
            "this is the loss itself; the entropy is not subtracted.",
        ),
    ),
    variants=(_estimates_numpy,),
)


# 3.6


def reverse_kls():
    x = torch.linspace(-15, 15, 30_001).double()
    dx = 30 / 30_000
    normal = torch.distributions.Normal
    light = normal(-3.0, 0.5).log_prob(x) + math.log(0.25)
    heavy = normal(3.0, 0.5).log_prob(x) + math.log(0.75)
    log_p = torch.logaddexp(light, heavy)
    mean = 0.25 * -3 + 0.75 * 3
    sd = (0.5**2 + 0.25 * 0.75 * 6**2) ** 0.5

    def reverse(m, s):
        log_q = normal(m, s).log_prob(x)
        return (log_q.exp() * (log_q - log_p)).sum().item() * dx

    return reverse(3, 0.5), reverse(-3, 0.5), reverse(mean, sd)


_WIDE = reverse_kls()[2]
_WEIGHTS = 0.75 * math.log(0.75) + 0.25 * math.log(0.25)


def _reverse_by_samples():
    """A quarter of a million samples of each q."""
    p = mf.data.GaussianMixture([[-3.0], [3.0]], [0.5, 0.5], [0.25, 0.75])
    found = []
    for m, s in [(3.0, 0.5), (-3.0, 0.5), (1.5, 7**0.5)]:
        q = Normal(m, s)
        z = (torch.arange(250_000) + 0.5) / 250_000
        x = q.icdf(z.double())
        found.append((q.log_prob(x) - p.log_prob(x.unsqueeze(-1))).mean().item())
    return tuple(found)


DROPPED = Exercise(
    title="What a dropped mode costs",
    level="medium",
    kind="explore",
    reference=reverse_kls,
    judge=Equal(
        parts=("on the heavy bump", "on the light bump", "the forward fit"), tol=5e-3
    ),
    insight="To forget a quarter of all data costs 0.29 nats, and three quarters 1.39. To cover both "
    "bumps, and the desert between them, costs 5.6 nats. So reverse KL picks a mode.",
    hints=(
        "Where q has its mass, p is close to w·q. What is log q − log p there?",
        "The first two are −log w. For the third, sum q (log q − log p) over a fine grid, with the "
        "mean 1.5 and the variance ½² + ¼·¾·6² = 7. Work with log p: p itself underflows.",
    ),
    why="On a bump of weight w, p = w q up to an e⁻⁷² of the other bump, so the reverse KL is −log w: "
    "0.2877 and 1.3863. The wide normal puts much of its mass where p is almost 0.",
    mistakes=(
        Mistake(
            (-math.log(0.25), -math.log(0.75), _WIDE),
            "the first two are exchanged: the cost is −log of the weight that q covers.",
        ),
        Mistake(
            (0.0, 0.0, _WIDE),
            "q has the shape of the bump, but p has only w times its height there.",
        ),
        Mistake(
            (math.log(0.75), math.log(0.25), -_WIDE),
            "a divergence is never negative: look at the sign.",
        ),
        Mistake(
            (-math.log2(0.75), -math.log2(0.25), _WIDE / LN2),
            "these are bits; nats are asked for.",
        ),
        Mistake(
            (-0.75 * math.log(0.75), -0.25 * math.log(0.25), _WIDE),
            "the mean is over q, and all of q's mass is on that bump: no factor w in front.",
        ),
        Mistake(
            (72 / 4 + _WEIGHTS, 72 * 3 / 4 + _WEIGHTS, 0.5 * math.log(28) + _WEIGHTS),
            "this is the forward KL: here the mean is over q.",
        ),
        Mistake(
            (math.inf, math.inf, math.inf),
            "far from both bumps p itself underflows to 0, and its logarithm is −∞. Add up log p with "
            "`logaddexp`, without p.",
        ),
    ),
    variants=(_reverse_by_samples, (-math.log(0.75), math.log(4), _WIDE)),
)


# 3.7


def stein(log_prob, x):
    x = x.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(log_prob(x).sum(), x)
    values = (x * slope).sum(-1).detach() + x.shape[-1]
    return values.mean(), values.std() / len(x) ** 0.5


def normal_log_prob(x):
    return -0.5 * (x**2 + LOG_2PI).sum(-1)


def two_bumps_log_prob(x):
    """½ N(1, 1) + ½ N(−1, 1) in each coordinate."""
    ups, downs = -0.5 * (x - 1) ** 2, -0.5 * (x + 1) ** 2
    return (torch.logaddexp(ups, downs) - math.log(2) - 0.5 * LOG_2PI).sum(-1)


def coupled_log_prob(x):
    """The second coordinate bends with the first."""
    bent = x[..., 1] - x[..., 0] ** 2
    return -0.5 * (x[..., 0] ** 2 + bent**2) - LOG_2PI


def _stein_cases(rng):
    return [
        (normal_log_prob, np.array([[1.0], [2.0]])),
        (normal_log_prob, np.array([[1.0, 0.0], [2.0, -1.0]])),
        (two_bumps_log_prob, rng.normal(size=(6, 1))),
        (coupled_log_prob, rng.normal(size=(7, 2))),
        (normal_log_prob, rng.normal(size=(5, 3))),
    ]


def _slope(log_prob, x):
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(log_prob(x).sum(), x)[0]


def _stein_of(log_prob, x, values):
    return values.mean(), values.std() / len(x) ** 0.5


def _stein_by_rows(log_prob, x):
    gradient = torch.func.vmap(torch.func.grad(log_prob))(x)
    return _stein_of(log_prob, x, torch.einsum("nd,nd->n", x, gradient) + x.shape[-1])


STEIN = Exercise(
    title="Stein's identity as a check",
    level="medium",
    kind="code",
    reference=stein,
    judge=Equal(cases=_stein_cases, parts=("the mean", "its error")),
    insight="You hold a check that needs samples and slopes only, in any dimension, with an error bar. "
    "But a log-density that is off by a constant has the same slopes.",
    hints=(
        "For one slope a point, differentiate the sum of the log-densities by x: each row depends on "
        "its own point alone.",
        "values = (x · slope).sum(-1) + D; then their mean, and their standard deviation over √N.",
    ),
    why="The identity says E[x·∇log q] = −D, so the mean of x·∇log q + D is 0 up to its standard error.",
    mistakes=(
        Mistake(
            lambda f, x: _stein_of(f, x, (x * _slope(f, x)).sum(-1)),
            "the D is not added: your mean should be near −D for a right flow, and 0 is asked for.",
        ),
        Mistake(
            lambda f, x: _stein_of(f, x, (x * _slope(f, x)).sum(-1) - x.shape[-1]),
            "the D has the wrong sign: the identity says E[x·∇log q] = −D.",
        ),
        Mistake(
            lambda f, x: _stein_of(f, x, (x * _slope(f, x)).sum(-1) + 1),
            "1 is right on the line only: add D.",
        ),
        Mistake(
            lambda f, x: _stein_of(f, x, (x * _slope(f, x) + 1).flatten()),
            "you take the mean over the coordinates too. First sum over them: one number a point.",
        ),
        Mistake(
            lambda f, x: (stein(f, x)[0], stein(f, x)[1] * len(x) ** 0.5),
            "the second is the standard deviation of the values; the error of their mean is smaller "
            "by √N.",
        ),
        Mistake(
            lambda f, x: (
                stein(f, x)[0],
                stein(f, x)[1] * ((len(x) - 1) / len(x)) ** 0.5,
            ),
            "your standard deviation divides by N; here it divides by N − 1, as `std()` of a tensor "
            "does.",
        ),
        Mistake(
            lambda f, x: _stein_of(
                f, x, (x * _slope(lambda y: f(y).exp(), x)).sum(-1) + x.shape[-1]
            ),
            "this is the slope of the density; that of its log is asked for.",
        ),
        Mistake(
            lambda f, x: _stein_of(
                f, x, (x * _slope(lambda y: f(y) / len(y), x)).sum(-1) + x.shape[-1]
            ),
            "your slopes are N times too small: differentiate the sum of the log-densities, not "
            "their mean.",
        ),
        Mistake(
            lambda f, x: _stein_of(f, x, _slope(f, x).sum(-1) + x.shape[-1]),
            "the factor x is missing: it is x·∇log q.",
        ),
        Mistake(
            lambda f, x: _stein_of(f, x, (x * _slope(f, x)).sum(-1) + len(x)),
            "you add N, the number of points; D is how many numbers make one point.",
        ),
        Mistake(
            lambda f, x: torch.autograd.grad(f(x).sum(), x),
            "x does not keep track of gradients yet. Begin with `x = x.clone().requires_grad_()`.",
        ),
        Mistake(
            lambda f, x: torch.autograd.grad(f(x.requires_grad_()), x),
            "only one number can be differentiated at a time: hand over the sum of the log-densities.",
        ),
        Mistake(
            lambda f, x: _stein_of(f, x, x.shape[-1] - (x * _slope(f, x)).sum(-1)),
            "this is with the slope of −log q, the loss.",
        ),
    ),
    variants=(_stein_by_rows,),
)


# 3.8


def both_gaps(x, m, A, b, L):
    normal = torch.distributions.MultivariateNormal
    p, q = normal(m, scale_tril=A), normal(b, scale_tril=L)
    in_data = (p.log_prob(x) - q.log_prob(x)).mean()

    back = torch.linalg.inv(L)  # the normalising map
    z = (x - b) @ back.mT
    pi = normal(back @ (m - b), scale_tril=back @ A)
    noise = normal(0 * b, scale_tril=torch.eye(len(b)).to(b))
    in_base = (pi.log_prob(z) - noise.log_prob(z)).mean()
    return in_data, in_base


def _both_cases(rng):
    def factor(dim):
        root = np.tril(rng.normal(size=(dim, dim)))
        np.fill_diagonal(root, rng.uniform(0.5, 2, dim))
        return root

    def case(n, dim):
        shifts = rng.normal(size=(2, dim))
        return rng.normal(size=(n, dim)), shifts[0], factor(dim), shifts[1], factor(dim)

    one = [np.array(v) for v in ([[1.0]], [1.0], [[2.0]], [-1.0], [[3.0]])]
    return [tuple(one), case(4, 2), case(6, 3)]


def _both_with(change):
    """The first gap as it should be, and the second as `change` has it."""

    def answer(x, m, A, b, L):
        back = torch.linalg.inv(L)
        at = {"z": (x - b) @ back.mT, "mean": back @ (m - b), "root": back @ A}
        zero, eye = torch.zeros_like(b), torch.eye(len(b)).to(b)
        base = MultivariateNormal(zero, scale_tril=eye)
        parts = change(x, m, A, b, L, at)
        z, mean, root, extra = (
            parts.get(k, at.get(k, 0.0)) for k in ("z", "mean", "root", "+")
        )
        pi = MultivariateNormal(mean, scale_tril=root)
        in_base = (pi.log_prob(z) - base.log_prob(z)).mean() + extra
        return both_gaps(x, m, A, b, L)[0], in_base

    return answer


def _log_normal(x, mean, root):
    return MultivariateNormal(mean, scale_tril=root).log_prob(x)


def _log_det(L):
    return L.diagonal().log().sum()


def _both_by_change_of_variables(x, m, A, b, L):
    p = MultivariateNormal(m, scale_tril=A)
    z = torch.linalg.solve_triangular(L, (x - b).mT, upper=False).mT
    log_base = -0.5 * (z**2 + LOG_2PI).sum(-1)
    in_data = p.log_prob(x) - (log_base - _log_det(L))
    in_base = (p.log_prob(x) + _log_det(L)) - log_base
    return in_data.mean(), in_base.mean()


BOTH = Exercise(
    title="One divergence in two spaces",
    level="medium",
    kind="code",
    reference=both_gaps,
    judge=Equal(cases=_both_cases, parts=("in data space", "in base space")),
    insight="Not only the means agree but every single term: the log-det is in both log-densities, and "
    "cancels. So normalising the data and fitting their density are one task.",
    hints=(
        "The normalised data z = L⁻¹(x − b) are an affine image of a normal law, so they are normal "
        "too. What are their mean and their factor?",
        "The mean is L⁻¹(m − b), the factor L⁻¹A. For rows, z = (x − b) @ inv(L).mT.",
    ),
    why="If x ~ N(m, AAᵀ), then L⁻¹(x − b) ~ N(L⁻¹(m − b), (L⁻¹A)(L⁻¹A)ᵀ), and L⁻¹A is lower triangular "
    "again.",
    mistakes=(
        Mistake(
            lambda x, m, A, b, L: tuple(g * len(x) for g in both_gaps(x, m, A, b, L)),
            "you sum over the points; the mean is asked for.",
        ),
        Mistake(
            lambda x, m, A, b, L: tuple(-g for g in both_gaps(x, m, A, b, L)),
            "the sign is flipped: truth first, then model.",
        ),
        Mistake(
            _both_with(lambda x, m, A, b, L, at: {"mean": m, "root": A}),
            "in base space you score z with the law of x. It has to be normalised as the points are.",
        ),
        Mistake(
            _both_with(lambda x, m, A, b, L, at: {"root": A}),
            "the factor A is still that of data space. In base space the mean is right.",
        ),
        Mistake(
            _both_with(lambda x, m, A, b, L, at: {"mean": torch.linalg.inv(L) @ m}),
            "in base space the law of z forgets b: its mean is L⁻¹(m − b).",
        ),
        Mistake(
            _both_with(lambda x, m, A, b, L, at: {"z": (x - b) @ torch.linalg.inv(L)}),
            "points are rows, so L⁻¹ acts on them from the right, transposed.",
        ),
        Mistake(
            _both_with(lambda x, m, A, b, L, at: {"mean": (m - b) @ torch.linalg.inv(L)}),
            "in base space the mean is one vector, no row of points: L⁻¹ acts on it from the left.",
        ),
        Mistake(
            _both_with(lambda x, m, A, b, L, at: {"root": A @ torch.linalg.inv(L)}),
            "in base space the factor is L⁻¹A: what is applied last stands on the left.",
        ),
        Mistake(
            lambda x, m, A, b, L: (
                (_log_normal(x, m, A) - _log_normal(x, m, L)).mean(),
                both_gaps(x, m, A, b, L)[1],
            ),
            "in data space the model has the mean b, not the m of the truth.",
        ),
        Mistake(
            lambda x, m, A, b, L: (_log_normal(x, m, A) - _log_normal(x, b, L),) * 2,
            "you return one number a point; the means are asked for.",
        ),
        Mistake(
            _both_with(lambda x, m, A, b, L, at: {"z": x}),
            "in base space you score x; normalise it first.",
        ),
        Mistake(
            _both_with(lambda x, m, A, b, L, at: {"+": _log_det(L)}),
            "in base space you add a log-det. It is in both log-densities there, and cancels.",
        ),
        Mistake(
            _both_with(lambda x, m, A, b, L, at: {"+": -_log_det(L)}),
            "in base space a log-det is missing: log π(z) = log p(x) + log det L.",
        ),
        Mistake(
            lambda x, m, A, b, L: (
                both_gaps(x, m, A, b, L)[0] - _log_det(L),
                both_gaps(x, m, A, b, L)[1],
            ),
            "in data space the model's log-density has the log-det of the way to the base: "
            "log q(x) = log p_z(z) − log det L.",
        ),
    ),
    variants=(_both_by_change_of_variables,),
)


# 3.9


def mean_field(Sigma):
    Lambda = torch.linalg.inv(Sigma)
    log_det = torch.linalg.slogdet(Sigma).logabsdet
    forward, reverse = Sigma.diagonal(), 1 / Lambda.diagonal()
    price = 0.5 * (forward.log().sum() - log_det)
    reverse_price = 0.5 * (log_det - reverse.log().sum())
    return forward.sqrt(), reverse.sqrt(), price, reverse_price


def _field_cases(rng):
    def covariance(dim):
        root = np.tril(rng.normal(size=(dim, dim)))
        np.fill_diagonal(root, rng.uniform(0.5, 2, dim))
        return root @ root.T

    return [
        (np.array([[4.0]]),),
        (np.array([[1.0, 0.9], [0.9, 1.0]]),),
        (np.array([[4.0, 1.0], [1.0, 1.0]]),),
        (covariance(3),),
        (covariance(5),),
    ]


def _field_with(**changes):
    """The reference's answer with some parts changed: each by a function of Σ."""

    def answer(Sigma):
        names = ("forward", "reverse", "forward_price", "reverse_price")
        made = dict(zip(names, mean_field(Sigma), strict=True))
        return tuple(changes[k](Sigma) if k in changes else made[k] for k in names)

    return answer


def _precisions(Sigma):
    return torch.linalg.inv(Sigma).diagonal()


def _price(Sigma, variances, forward):
    zero = torch.zeros_like(variances)
    p = MultivariateNormal(zero, Sigma)
    q = MultivariateNormal(zero, torch.diag(variances))
    return torch.distributions.kl_divergence(*((p, q) if forward else (q, p)))


def _field_by_torch(Sigma):
    """The prices from `kl_divergence`, the reverse spread from regressions on the others."""
    zero = torch.zeros(len(Sigma)).to(Sigma)
    p = MultivariateNormal(zero, Sigma)
    left = []
    for d in range(len(Sigma)):
        others = [i for i in range(len(Sigma)) if i != d]
        row = Sigma[d, others]
        explained = (
            row @ torch.linalg.solve(Sigma[others][:, others], row) if others else 0.0
        )
        left.append(Sigma[d, d] - explained)
    forward, reverse = Sigma.diagonal().sqrt(), torch.stack(left).sqrt()
    kl = torch.distributions.kl_divergence
    q_forward, q_reverse = (
        MultivariateNormal(zero, scale_tril=torch.diag(s)) for s in (forward, reverse)
    )
    return forward, reverse, kl(p, q_forward), kl(q_reverse, p)


FIELD = Exercise(
    title="Mean field, in both directions",
    level="hard",
    kind="derive",
    reference=mean_field,
    judge=Equal(
        cases=_field_cases,
        parts=("forward sds", "reverse sds", "forward price", "reverse price"),
    ),
    insight="The forward sd is that of a coordinate alone, the reverse one that of a coordinate whose "
    "companions are known. With two coordinates both prices are −½ log(1 − ρ²); with more they differ.",
    hints=(
        "Write both divergences between N(0, Σ) and N(0, diag(s²)) with traces and determinants, and "
        "set the derivatives by s² to zero.",
        "Forward s² = Σ_dd, reverse s² = 1/Λ_dd with Λ = Σ⁻¹. At either best fit the trace is D and "
        "cancels the −D; half a difference of log-determinants is left.",
    ),
    why="Forward: s² = Σ_dd, price ½ (Σ log Σ_dd − log det Σ). Reverse: s² = 1/Λ_dd, price "
    "½ (Σ log Λ_dd + log det Σ).",
    mistakes=(
        Mistake(
            _field_with(
                forward=lambda S: S.diagonal(), reverse=lambda S: 1 / _precisions(S)
            ),
            "these are variances; standard deviations are asked for.",
        ),
        Mistake(
            lambda S: tuple(mean_field(S)[i] for i in (1, 0, 3, 2)),
            "the directions are exchanged: the forward fit is over the data, and covers them.",
        ),
        Mistake(
            _field_with(reverse=lambda S: S.diagonal().sqrt()),
            "the reverse fit does not have the marginal spread: a coordinate pays for leaving the "
            "others behind.",
        ),
        Mistake(
            _field_with(reverse=lambda S: _precisions(S).sqrt()),
            "these are roots of the precisions Λ_dd; a large precision is a small spread.",
        ),
        Mistake(
            _field_with(reverse=lambda S: 1 / S.diagonal().sqrt()),
            "you inverted each Σ_dd. Λ is the inverse of the whole matrix, and its diagonal knows "
            "about the correlations.",
        ),
        Mistake(
            _field_with(reverse=lambda S: torch.linalg.cholesky(S).diagonal()),
            "these are the spreads given the coordinates *before*, from Cholesky's factor. Here all the "
            "others are known: 1/Λ_dd.",
        ),
        Mistake(
            _field_with(
                forward=lambda S: torch.linalg.eigvalsh(S).sqrt(),
                reverse=lambda S: torch.linalg.eigvalsh(S).sqrt(),
            ),
            "these are the spreads along the ellipse's own axes. The model cannot turn: its axes are the "
            "coordinates.",
        ),
        Mistake(
            _field_with(
                forward_price=lambda S: _price(S, S.diagonal(), forward=False),
                reverse_price=lambda S: _price(S, 1 / _precisions(S), forward=True),
            ),
            "the spreads are right, and each price is in the other direction: the first is KL(p‖q), the "
            "second KL(q‖p).",
        ),
        Mistake(
            _field_with(
                forward_price=lambda S: 0.5 * (S.diagonal().log().sum() - S.det()),
                reverse_price=lambda S: 0.5 * (S.det() + _precisions(S).log().sum()),
            ),
            "the spreads are right, and in the prices the determinant lacks its logarithm.",
        ),
        Mistake(
            _field_with(
                forward_price=lambda S: 2 * mean_field(S)[2],
                reverse_price=lambda S: 2 * mean_field(S)[3],
            ),
            "the spreads are right, and both prices lack the factor ½.",
        ),
        Mistake(
            _field_with(
                forward_price=lambda S: -mean_field(S)[2],
                reverse_price=lambda S: -mean_field(S)[3],
            ),
            "the spreads are right, and both prices are negative: no divergence is.",
        ),
        Mistake(
            _field_with(reverse_price=lambda S: mean_field(S)[2]),
            "the two prices agree for two coordinates only. With Λ in place of Σ, what is the log of "
            "its determinant?",
        ),
        Mistake(
            _field_with(
                reverse_price=lambda S: (
                    mean_field(S)[3] - torch.linalg.slogdet(S).logabsdet
                )
            ),
            "in the reverse price log det Σ has the wrong sign: det Λ = 1/det Σ.",
        ),
        Mistake(
            _field_with(
                forward_price=lambda S: mean_field(S)[2] + len(S) / 2,
                reverse_price=lambda S: mean_field(S)[3] + len(S) / 2,
            ),
            "both prices have D/2 too much: the trace is D at the best fit, and −D stands beside it.",
        ),
    ),
    variants=(_field_by_torch,),
)


# 3.10


def trained_flow():
    target = mf.data.TwoMoons(noise=0.2)
    generator = torch.Generator().manual_seed(1)
    data = target.sample((10_000,), generator=generator)
    layers = []
    for _ in range(4):
        shape = mf.Elementwise(2, mf.MixtureCDF(8))
        layers += [shape, mf.Householder(2)]
    units = mf.Standardize.of(data)
    flow = mf.Flow(mf.Compose(*layers, units))
    mf.fit(flow, data, steps=400, lr=0.05)
    return flow


class Measure(NamedTuple):
    """The paired gap to the truth, its error, and by how much a log-det is off."""

    nats: float
    error: float
    off: float


def _moons():
    return mf.data.TwoMoons(noise=0.2)


def _gap(flow):
    if why := refused(flow):
        return why
    found = held_out(flow, _moons())
    return Measure(found.nats, found.error, found.off)


def _gap_is_wrong(gap):
    return too_far(gap, 0.08, "More layers, steps or components?")


class _FlippedSign(mf.Flow):
    def log_prob(self, x, context=None):
        z, log_det = self.transform.inverse(x, context)
        return self.base.log_prob(z) - log_det


def _small(*layers, kind=mf.Flow, steps=200):
    flow = kind(mf.Compose(*layers))
    if steps:
        data = _moons().sample((6000,), generator=torch.Generator().manual_seed(2))
        mf.fit(flow, data, steps=steps, lr=0.05)
    return flow


def _shape():
    return mf.Elementwise(2, mf.MixtureCDF(8))


def _deeper():
    """More layers, no `Standardize`, a validation set, and float64."""
    layers = [part for _ in range(5) for part in (_shape(), mf.Householder(2))]
    flow = mf.Flow(mf.Compose(*layers)).double()
    data = _moons().sample((10_000,), generator=torch.Generator().manual_seed(5)).double()
    mf.fit(flow, data, validation=0.1, steps=500, lr=0.03)
    return flow


TRAIN = Exercise(
    title="Reach the entropy of noisy moons",
    level="hard",
    kind="code",
    reference=trained_flow,
    judge=Measured(_gap, _gap_is_wrong),
    insight="Your flow is within 0.08 nats of the truth, where the best normal law misses 0.32 and "
    "independent coordinates 0.30.",
    hints=(
        "One kind of layer gives each coordinate its shape, the other mixes the coordinates. Take them "
        "in turn, several times.",
        "Four times `mf.Elementwise(2, mf.MixtureCDF(8))` and `mf.Householder(2)`, then "
        "`mf.Standardize.of(data)` last: 10,000 points, 400 steps and lr=0.05 are enough.",
    ),
    why="Each shape layer removes what is not normal along the current axes, each rotation finds new "
    "axes. Four rounds leave about 0.05 nats.",
    mistakes=(
        Mistake(
            lambda: _small(mf.TriangularAffine(2), kind=_FlippedSign, steps=50),
            "its log-density is not the one of its map. Is the sign of a log-det flipped, or one left "
            "out?",
            when=lambda gap: gap.off > 0.05,
        ),
        Mistake(
            lambda: _small(_shape(), steps=0),
            "one normal law would do better: the flow is hardly trained. Did `mf.fit` run on this "
            "flow, with enough steps and a small enough lr?",
            when=lambda gap: gap.nats > 0.36,
        ),
        Mistake(
            lambda: _small(mf.TriangularAffine(2)),
            "its gap is about 0.3 nats. That is what one normal law leaves, and about what coordinates "
            "without any dependence leave: take layers that shape *and* layers that mix.",
            when=lambda gap: 0.27 < gap.nats <= 0.36,
        ),
        Mistake(
            lambda: _small(_shape(), mf.Householder(2)),
            "it leaves about what one shape and one rotation do: then the coordinates have new shapes, "
            "which nobody removes. Go on in turn; and if you have, train longer.",
            when=lambda gap: 0.1 < gap.nats < 0.2,
        ),
    ),
    variants=(_deeper,),
)


# 3.11 to 3.16: the bug hunt. The faults, as the notebook lists them:
#
#   a  a layer sets itself from the first batch, and its file does not say that it has done so
#   b  the log-det of a layer has the wrong sign
#   c  nothing is broken: more training
#   d  a scale can shrink but not stretch
#   e  the log-det of a layer is left out
#   f  the base's log-density lacks its normalising constant
#   g  nothing is broken: overfitting
#   h  a layer is undone correctly in two dimensions and in no more


def diagnosis_a():
    flow, _ = mf.exercises.training.patient("A")
    layer = flow.transform.transforms[0]
    z = torch.randn(2)
    J = torch.func.jacrev(lambda z: layer(z)[0])(z)
    true = torch.linalg.slogdet(J).logabsdet
    _, said = layer(z)
    same = torch.isclose(said, true, atol=1e-3)
    opposite = torch.isclose(said, -true, atol=1e-3)
    return "b" if opposite and not same else "?"


PATIENT_A = Exercise(
    title="Patient A",
    level="easy",
    kind="debug",
    reference=diagnosis_a,
    judge=Equal(options="abcdefgh"),
    insight="The other layer made up for the damage: it shrank as much as the wrong one stretched. So the "
    "samples are right, the loss is impossible, and only autograd finds the layer.",
    hints=(
        "A held-out loss below the entropy: some mass is not 1. So look at the base, and at each log-det.",
        "Go through `flow.transform` layer by layer, and compare each log_det with the log-determinant of "
        "`torch.func.jacrev` at one point.",
    ),
    why="The first layer reports minus the log-det that autograd finds, in both directions.",
    mistakes=(
        Mistake(
            "a", "nothing was saved or loaded here, and scoring does not change the flow."
        ),
        Mistake(
            "c",
            "its loss is more than 11 nats below the entropy, and more training pushes it further down.",
        ),
        Mistake(
            "d",
            "a flow that cannot stretch is too narrow, and its loss stays above the entropy. Here the "
            "samples have the spread of the data.",
        ),
        Mistake(
            "e",
            "no log-det is missing: that of the first layer is far from 0. Compare it with autograd's.",
        ),
        Mistake(
            "f",
            "that would lower the loss by 0.92 nats a dimension. Here it is more than 11 for two, and the "
            "base has mass 1.",
        ),
        Mistake(
            "g",
            "fresh points of the target score as impossibly well as those it was trained on.",
        ),
        Mistake(
            "h",
            "data → base → data comes back in three dimensions too, and the loss is impossible in two.",
        ),
    ),
    variants=("B", " (b) "),
)


def diagnosis_b():
    flow, target = mf.exercises.training.patient("B")
    layer = flow.transform.transforms[1]
    x = target.sample()
    J = torch.func.jacrev(lambda x: layer.inverse(x)[0])(x)
    true = torch.linalg.slogdet(J).logabsdet
    _, said = layer.inverse(x)
    return "e" if said == 0 and true > 1 else "?"


PATIENT_B = Exercise(
    title="Patient B",
    level="medium",
    kind="debug",
    reference=diagnosis_b,
    judge=Equal(options="abcdefgh"),
    insight="The layer has nothing to learn, so what it leaves out does not touch the gradients: training "
    "and samples are perfect. But every density is wrong, and not by the same amount.",
    hints=(
        "The samples are right, so the map is. What is left of log q(x) when the map is right?",
        "Compare each layer's log_det with autograd. One of them reports a suspiciously round number.",
    ),
    why="The last layer, from the line to (0, 1), reports the log-det 0, and autograd finds −Σ log x(1 − x).",
    mistakes=(
        Mistake(
            "a", "nothing was saved or loaded here, and scoring does not change the flow."
        ),
        Mistake(
            "b",
            "a wrong sign shows as minus the log-det of autograd. Is there a layer that reports another "
            "number than ± that?",
        ),
        Mistake(
            "c",
            "more training gains nothing here, and the samples already follow the data in each "
            "coordinate.",
        ),
        Mistake(
            "d", "then the samples would be too narrow; they have the spread of the data."
        ),
        Mistake(
            "f",
            "that makes a loss too low. This one is too high, and the base has mass 1.",
        ),
        Mistake("g", "the points it was trained on score as badly as fresh ones."),
        Mistake(
            "h",
            "data → base → data comes back in three dimensions too, and the loss is wrong in two.",
        ),
    ),
    variants=("E", "(e)"),
)


def diagnosis_c():
    patient = mf.exercises.training.patient
    misses = []
    for dim in [2, 3, 4]:
        flow, target = patient("C", dim)
        x = target.sample((100,))
        again, _ = flow.transform(flow.normalize(x))
        misses.append((again - x).abs().max())
    fine, *others = misses
    return "h" if fine < 1e-3 and min(others) > 1 else "?"


PATIENT_C = Exercise(
    title="Patient C",
    level="medium",
    kind="debug",
    reference=diagnosis_c,
    judge=Equal(options="abcdefgh"),
    insight="`inverse` alone is a good map with the right log-det, and the loss sees no other. It is "
    "`forward` that goes elsewhere. Test round trips with trained or random weights, and in more than "
    "two dimensions.",
    hints=(
        "The loss uses the way to the base, samples use the way back. Are the two ways each other's?",
        "Go `data → base → data` for `dim` 2, 3 and 4, and compare what comes back with the data.",
    ),
    why="In two dimensions the round trip comes back; in three and four it misses by more than 1. (The "
    "layer takes every second coordinate apart and puts the halves side by side: for two coordinates, "
    "the same order.)",
    mistakes=(
        Mistake(
            "a",
            "nothing was saved or loaded here, and scoring does not change the flow.",
        ),
        Mistake("b", "every layer's log-det is the one that autograd finds, both ways."),
        Mistake(
            "c",
            "more training does not help: before training the flow even comes back from data → base → "
            "data, and afterwards it does not.",
        ),
        Mistake(
            "d",
            "its loss is at the entropy within 0.1 nats, so the way to the base has all the scales "
            "that it needs.",
        ),
        Mistake(
            "e",
            "every layer's log-det is the one that autograd finds, and none is 0 throughout.",
        ),
        Mistake(
            "f",
            "the loss would be below the entropy; it is not, and the base has mass 1.",
        ),
        Mistake("g", "fresh points score as well as those it was trained on."),
    ),
    variants=("H", "(h)"),
)


def diagnosis_d():
    patient = mf.exercises.training.patient
    flow, target = patient("D")
    fresh, _ = patient("D", trained=False)
    fresh.load_state_dict(flow.state_dict())  # save and load
    loaded = flow.state_dict()
    fresh.log_prob(target.sample((50,)))
    after = fresh.state_dict()
    changed = [k for k in after if (after[k] != loaded[k]).any()]
    return "a" if changed else "?"


PATIENT_D = Exercise(
    title="Patient D",
    level="medium",
    kind="debug",
    reference=diagnosis_d,
    judge=Equal(options="abcdefgh"),
    insight="A Python attribute is not part of `state_dict`; a buffer is. The file held the right "
    "weights, and the first batch after loading overwrote them.",
    hints=(
        "Load twice, and let each copy score another batch first. Then let both score the same one.",
        "Compare `flow.state_dict()` before and after the first `log_prob` of a loaded flow.",
    ),
    why="The first `log_prob` after loading changes the mean and log_std of the second layer: it starts "
    "itself from that batch again, since the flag that it has started is not in the file.",
    mistakes=(
        Mistake(
            "b",
            "every layer's log-det is the one that autograd finds, before and after loading.",
        ),
        Mistake(
            "c",
            "before it was saved, the flow was within 0.05 nats of the entropy. That is trained enough.",
        ),
        Mistake(
            "d",
            "before it was saved, the flow was within 0.05 nats of the entropy: it has all its scales.",
        ),
        Mistake(
            "e",
            "no log-det is missing: each is the one that autograd finds, before and after loading.",
        ),
        Mistake(
            "f",
            "the base has mass 1, and the error would be the same whatever is scored first.",
        ),
        Mistake(
            "g",
            "the same fresh points score well before saving, and badly after it.",
        ),
        Mistake(
            "h",
            "data → base → data comes back in any dimension, before and after loading.",
        ),
    ),
    variants=("A", "(a)"),
)


def diagnosis_e():
    patient = mf.exercises.training.patient
    z = torch.linspace(-8, 8, 321)
    step = (z[1] - z[0]).item()
    grid = torch.cartesian_prod(z, z)
    base = patient("E")[0].base
    mass = base.log_prob(grid).exp().sum() * step**2
    off = abs(mass.log() - math.log(2 * math.pi))
    return "f" if off < 1e-3 else "?"  # it should be log 1


PATIENT_E = Exercise(
    title="Patient E",
    level="medium",
    kind="debug",
    reference=diagnosis_e,
    judge=Equal(options="abcdefgh"),
    insight="A constant has no gradient and no slope: training, samples, autograd and Stein's identity "
    "are all content. Only the mass tells, or a comparison with something known.",
    hints=(
        "By how much is the loss below the entropy in 2, 3 and 4 dimensions? Do you know that number?",
        "The error is 0.919 nats a dimension, whatever the data. Which part of log q(x) is the same for "
        "all data and grows with D?",
    ),
    why="The base has the mass 2π in two dimensions instead of 1: its ½ log 2π = 0.919 nats a dimension "
    "are missing.",
    mistakes=(
        Mistake(
            "a", "nothing was saved or loaded here, and scoring does not change the flow."
        ),
        Mistake(
            "b",
            "every layer's log-det is the one that autograd finds; and with a wrong sign more training "
            "would push the loss further down.",
        ),
        Mistake(
            "c", "the loss is below the entropy already. More training cannot mend that."
        ),
        Mistake(
            "d",
            "a flow that cannot stretch has a loss above the entropy; and these samples have the spread "
            "of the data.",
        ),
        Mistake(
            "e",
            "every layer's log-det is the one that autograd finds. What is missing is the same at every "
            "point, and in no layer.",
        ),
        Mistake("g", "fresh points score as impossibly well as those it was trained on."),
        Mistake(
            "h",
            "data → base → data comes back in three dimensions too, and the loss is impossible in two.",
        ),
    ),
    variants=("F", "(f)"),
)


def diagnosis_f():
    patient = mf.exercises.training.patient
    flow, target = patient("F")

    def widest(x):  # the sd along the longest axis
        return torch.linalg.eigvalsh(torch.cov(x.T))[-1].sqrt()

    data = target.sample((10_000,))
    narrow = widest(flow.sample(10_000)) < 1.1 < widest(data)

    small = (data - data.mean(0)) / 10  # nothing to stretch
    flow, _ = patient("F", trained=False)
    mf.fit(flow, small, steps=500, lr=0.05)
    entropy = target.entropy() - 2 * math.log(10)
    left = -flow.log_prob(small).mean() - entropy
    return "d" if narrow and left < 0.1 else "?"


PATIENT_F = Exercise(
    title="Patient F",
    level="hard",
    kind="debug",
    reference=diagnosis_f,
    judge=Equal(options="abcdefgh"),
    insight="A bounded scale is a promise about the data, made before they are seen. Here it is s ≤ 1: the "
    "direction with standard deviation ½ fits, that with 2 costs ½ (4 − 1 − log 4) = 0.81 nats.",
    hints=(
        "Compare the flow's samples with the data along the axes of the ellipse, the eigenvectors of "
        "the covariance: which direction is wrong?",
        "Train a fresh one (`trained=False`) on the data divided by 10, and compare with the entropy "
        "of those. What could it do there that it could not do before?",
    ),
    why="No direction of the samples has a standard deviation above 1. On data a tenth as wide the same "
    "flow reaches the entropy.",
    mistakes=(
        Mistake(
            "a", "nothing was saved or loaded here, and scoring does not change the flow."
        ),
        Mistake(
            "b",
            "every layer's log-det is the one that autograd finds, and the loss is above the entropy.",
        ),
        Mistake(
            "c",
            "600 more steps gain less than 0.1 nats of the 0.8. Something holds the rest back.",
        ),
        Mistake(
            "e",
            "every layer's log-det is the one that autograd finds, and the samples are wrong too.",
        ),
        Mistake(
            "f", "the base has mass 1; and that fault makes a loss too low, not too high."
        ),
        Mistake("g", "the points it was trained on score as badly as fresh ones."),
        Mistake(
            "h",
            "data → base → data comes back in three dimensions too.",
        ),
    ),
    variants=("D", "(d)"),
)


EXERCISES = (
    FLOOR,
    BITS,
    UNITS,
    CURVES,
    PAIRED,
    DROPPED,
    STEIN,
    BOTH,
    FIELD,
    TRAIN,
    PATIENT_A,
    PATIENT_B,
    PATIENT_C,
    PATIENT_D,
    PATIENT_E,
    PATIENT_F,
)
