"""Exercises of chapter 1: the change of variables on the line.

The references have no annotations: they look like what the reader writes in the notebook.
"""
# mypy: allow-untyped-defs

import math
from dataclasses import dataclass

import numpy as np
import torch

import minflow as mf
from minflow.exercises import Equal, Exercise, Measured, Mistake

from ._flows import refused

NUMBER = 1
LOG_2PI = math.log(2 * math.pi)


# 1.1


def affine_law():
    mean = 5 * 0 - 2
    standard_deviation = abs(5) * 1
    return mean, standard_deviation


LAW = Exercise(
    title="The law of 5z − 2",
    level="easy",
    kind="predict",
    reference=affine_law,
    judge=Equal(parts=("the mean", "the standard deviation")),
    insight="An affine map of a normal is normal: the mean goes through the map, and the standard "
    "deviation is multiplied by |slope|.",
    hints=(
        "Means go through an affine map as points do. What does the map do to the point 0?",
        "The shift moves every point alike, so it does not change the spread. The slope does.",
    ),
    why="E[5z − 2] = 5·0 − 2 = −2, and sd(5z − 2) = |5|·1 = 5: the law is N(−2, 5²).",
    mistakes=(
        Mistake(
            (100, 5),
            "the post that this book grew out of says so; but the mean of 5z − 2 is 5·E[z] − 2.",
        ),
        Mistake((-2, 25), "25 is the variance; the standard deviation is its root."),
        Mistake(
            (-10, 5), "the shift comes after the slope here: 5z − 2 is not 5(z − 2)."
        ),
        Mistake((-2, 1), "the slope stretches the spread too."),
        Mistake((-2, 3), "the shift moves all points alike and leaves the spread alone."),
        Mistake((-2, -5), "a standard deviation is never negative."),
        Mistake((0, 5), "the shift is missing: it moves the mean too."),
        Mistake((3, 5), "3 is where z = 1 goes; the mean of z is 0."),
        Mistake(
            (5, -2), "the two are exchanged: the mean first, then the standard deviation."
        ),
        Mistake(
            (-2, math.sqrt(5)),
            "5 is no variance: 5z has the standard deviation 5 and the variance 25.",
        ),
    ),
    variants=(
        (-2.0, 5.0),
        torch.tensor([-2, 5]),
        np.array([-2.0, 5.0], dtype=np.float32),
    ),
)


# 1.2


def peak_height():
    peak = 10 / math.sqrt(2 * math.pi)  # 10 · 0.3989
    return {0.04: "a", 0.4: "b", 4.0: "c"}[round(peak, 1)]


PEAK = Exercise(
    title="How high can a density be?",
    level="easy",
    kind="predict",
    reference=peak_height,
    judge=Equal(options="abcd"),
    insight="A density is mass per width, not mass. It may exceed 1, so a log-density may be "
    "positive, and a negative log-likelihood negative.",
    hints=(
        "The area under the density is 1 before and after. What happens to the widths?",
        "All widths are divided by 10. The area stays, so what happens to the heights?",
    ),
    why="z/10 has slope 1/10: widths are divided by 10, heights multiplied by 10: 0.399 → 3.99.",
    mistakes=(
        Mistake(
            "a",
            "dividing the values by 10 makes the density narrower, so it must grow, not "
            "shrink, to keep its area.",
        ),
        Mistake(
            "b",
            "a tenth of the width at the same height would hold a tenth of the mass.",
        ),
        Mistake(
            "d",
            "only a mass cannot exceed 1. A density can, where the mass sits on a narrow place.",
        ),
    ),
    variants=("C", " (c) "),
)


# 1.3


def affine_density(x, a, b):
    z = (x - b) / a
    p_z = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return p_z / abs(a)


def _affine_cases(rng):
    return [
        (np.array(0.0), 2.0, 0.0),
        (np.array(1.0), -2.0, 0.5),
        (rng.normal(size=3), 5.0, -2.0),
        (rng.normal(size=5), -0.5, 1.0),
        (rng.normal(size=(4, 2)), -3.0, 0.3),
    ]


def _phi(z):
    return torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def _normal(mean, sd, x):
    return torch.distributions.Normal(mean, sd).log_prob(x).exp()


def _affine_density_loop(x, a, b):
    flat = [
        math.exp(-(((v - b) / a) ** 2) / 2) / math.sqrt(2 * math.pi * a**2)
        for v in x.flatten().tolist()
    ]
    return np.array(flat).reshape(x.shape)


AFFINE = Exercise(
    title="The density of az + b",
    level="easy",
    kind="code",
    reference=affine_density,
    judge=Equal(cases=_affine_cases, curve=(-8.0, 6.0, lambda x: (x, -2.0, -1.0))),
    insight="One formula serves both signs of the slope, because widths are never negative.",
    hints=(
        "Which z lands on x? Start from the density of z there.",
        "Then divide by how much the map stretches widths: |a|, for positive and negative a.",
    ),
    why="x = az + b has the inverse z = (x − b)/a, with derivative 1/a, so "
    "p(x) = p_z((x − b)/a) / |a|.",
    mistakes=(
        Mistake(
            lambda x, a, b: _phi((x - b) / a) / a,
            "for a < 0 your density is negative. Heights scale by 1/|a|: the absolute value "
            "is missing.",
        ),
        Mistake(
            lambda x, a, b: _normal(b, a, x),
            "for a < 0 there is an error: a standard deviation is positive, |a|.",
        ),
        Mistake(
            lambda x, a, b: _normal(b, a**2, x),
            "a² is the variance; the standard deviation, which `Normal` takes too, is |a|.",
            also=(lambda x, a, b: _phi((x - b) / a**2) / a**2,),
        ),
        Mistake(
            lambda x, a, b: torch.exp(-(((x - b) / a) ** 2) / 2) / abs(a),
            "the factor 1/√(2π) of the normal density is missing: your area is 2.507.",
        ),
        Mistake(
            lambda x, a, b: _phi((x - b) / a) / abs(a) / math.sqrt(2 * math.pi),
            "the normal density has 1/√(2π), and you have 1/(2π).",
        ),
        Mistake(
            lambda x, a, b: (
                torch.exp(-(((x - b) / a) ** 2)) / math.sqrt(2 * math.pi) / abs(a)
            ),
            "the ½ in the exponent is missing: p_z(z) = exp(−z²/2)/√(2π).",
            also=(
                lambda x, a, b: (
                    torch.exp(-(((x - b) / a) ** 2)) / math.sqrt(2 * math.pi) / a
                ),
            ),
        ),
        Mistake(
            lambda x, a, b: _phi((x + b) / a) / abs(a),
            "the sign of the shift is flipped: the way back subtracts b, z = (x − b)/a.",
            also=(lambda x, a, b: _phi((x + b) / a) / a,),
        ),
        Mistake(
            lambda x, a, b: _phi((x - b) / a) / math.sqrt(abs(a)),
            "√(2πσ²) has the variance under the root, and that is a²: divide by |a|, not by its root.",
            also=(
                lambda x, a, b: _phi((x - b) / a) / torch.sqrt(torch.tensor(a)),
                lambda x, a, b: _phi((x - b) / a) / math.sqrt(a),
            ),
        ),
        Mistake(
            lambda x, a, b: _phi((x - b) / a) / a**2,
            "widths are multiplied by |a|, not by a².",
        ),
        Mistake(
            lambda x, a, b: _phi(x / a - b) / abs(a),
            "x/a − b is not the inverse: first undo the shift, then the slope, (x − b)/a.",
        ),
        Mistake(
            lambda x, a, b: _phi((x - b) / a) * abs(a),
            "you multiply by |a|, where widths are multiplied by |a| and heights divided.",
        ),
        Mistake(
            lambda x, a, b: _phi((x - b) / a),
            "the factor for the change of width is missing: your density has the area |a|.",
        ),
        Mistake(
            lambda x, a, b: _phi(x / a) / abs(a), "the shift is missing: z = (x − b)/a."
        ),
        Mistake(
            lambda x, a, b: _phi(a * x + b) * abs(a),
            "you send x through the map f; the density needs the z that it came from, "
            "f⁻¹(x) = (x − b)/a.",
            also=(lambda x, a, b: _phi(a * x + b) / abs(a),),
        ),
        Mistake(
            lambda x, a, b: torch.log(_phi((x - b) / a) / abs(a)),
            "this is the log of the density; the density itself is asked for.",
            also=(lambda x, a, b: torch.distributions.Normal(b, a).log_prob(x),),
        ),
    ),
    variants=(
        _affine_density_loop,
        lambda x, a, b: _normal(b, abs(a), x),
        lambda x, a, b: np.exp(
            -0.5 * ((np.asarray(x) - b) / a) ** 2 - np.log(abs(a)) - LOG_2PI / 2
        ),
    ),
)


# 1.4


def affine_then_leaky(z, a, b, slope):
    y = a * z + b
    x = torch.where(y < 0, slope * y, y)
    leaky = torch.where(y < 0, math.log(slope), 0.0)
    return x, math.log(abs(a)) + leaky


def _leaky_cases(rng):
    return [
        (np.array(1.0), 2.0, 0.5, 0.1),
        (np.array(-1.0), 2.0, 0.5, 0.1),
        (np.array([-0.2, 0.4]), -3.0, 0.0, 0.5),
        (rng.normal(size=6), 0.5, 0.4, 0.2),
        (rng.normal(size=(3, 4)), -1.5, -0.5, 0.3),
    ]


def _leaky(y, slope):
    return torch.where(y < 0, slope * y, y), torch.where(y < 0, math.log(slope), 0.0)


def _leaky_first(z, a, b, slope):
    y, log_det = _leaky(z, slope)
    return a * y + b, log_det + math.log(abs(a))


def _right_x(log_det):
    """An answer whose x is right: it has `log_det(z, a, leaky, slope)`, `leaky` the log-det at y."""

    def answer(z, a, b, slope):
        x, leaky = _leaky(a * z + b, slope)
        return x, log_det(z, a, leaky, slope)

    return answer


def _leaky_by_autograd(z, a, b, slope):
    z = z.clone().requires_grad_()
    x = torch.nn.functional.leaky_relu(a * z + b, slope)
    (derivative,) = torch.autograd.grad(x.sum(), z)
    return x, derivative.abs().log()


def _leaky_loop(z, a, b, slope):
    x, log_det = torch.empty_like(z).flatten(), torch.empty_like(z).flatten()
    for i, value in enumerate(z.flatten().tolist()):
        y = a * value + b
        x[i] = y if y >= 0 else slope * y
        log_det[i] = math.log(abs(a)) + (0 if y >= 0 else math.log(slope))
    return x.reshape(z.shape), log_det.reshape(z.shape)


COMPOSITION = Exercise(
    title="Affine, then leaky ReLU",
    level="easy",
    kind="code",
    reference=affine_then_leaky,
    judge=Equal(cases=_leaky_cases, parts=("x", "log_det")),
    insight="In a composition derivatives multiply, so log-dets add, each taken at the point that "
    "its own map receives.",
    hints=(
        "Name the value between the two maps, y = az + b. Which map receives z, which receives y?",
        "log_det = log|a| + (log slope where y < 0, and 0 elsewhere).",
    ),
    why="The chain rule: dx/dz = (dx/dy)(dy/dz). The leaky ReLU's slope is decided at y, not at z.",
    mistakes=(
        Mistake(
            _right_x(lambda z, a, leaky, slope: math.log(abs(a)) + _leaky(z, slope)[1]),
            "the slope of the leaky ReLU is taken at z; it acts on y = az + b, so its slope "
            "belongs to y.",
            also=(
                lambda z, a, b, slope: (
                    torch.where(z < 0, slope * (a * z + b), a * z + b),
                    math.log(abs(a)) + _leaky(z, slope)[1],
                ),
            ),
        ),
        Mistake(
            lambda z, a, b, slope: affine_then_leaky(z, a, b, slope)[::-1],
            "the two are exchanged: return x first, then the log-det.",
        ),
        Mistake(
            _right_x(
                lambda z, a, leaky, slope: (
                    math.log(abs(a)) + torch.where(leaky == 0, math.log(slope), 0.0)
                )
            ),
            "the log of the slope is added where y ≥ 0; the leaky ReLU has that slope where y < 0.",
        ),
        Mistake(
            _leaky_first,
            "the order is the other one: first the affine map, then the leaky ReLU.",
        ),
        Mistake(
            _right_x(lambda z, a, leaky, slope: math.log(abs(a)) * leaky),
            "you multiply the log-dets. Derivatives multiply; their logs add.",
        ),
        Mistake(
            _right_x(lambda z, a, leaky, slope: math.log(abs(a)) + 0 * z),
            "the log-det of the leaky ReLU is missing: where y < 0 it shrinks widths.",
            also=(_right_x(lambda z, a, leaky, slope: math.log(abs(a))),),
        ),
        Mistake(
            _right_x(lambda z, a, leaky, slope: leaky),
            "the log-det of the affine map, log|a|, is missing.",
        ),
        Mistake(
            _right_x(lambda z, a, leaky, slope: -math.log(abs(a)) - leaky),
            "the sign is flipped: this is the log-det of the inverse, and the map applied here "
            "is the forward one.",
        ),
        Mistake(
            _right_x(lambda z, a, leaky, slope: torch.tensor(a).log() + leaky),
            "for a < 0 you take the log of a negative number: the absolute value is missing.",
            also=(_right_x(lambda z, a, leaky, slope: math.log(a) + leaky),),
        ),
        Mistake(
            _right_x(lambda z, a, leaky, slope: abs(a) * leaky.exp()),
            "this is the derivative itself; its log is asked for.",
            also=(_right_x(lambda z, a, leaky, slope: a * leaky.exp()),),
        ),
        Mistake(
            _right_x(
                lambda z, a, leaky, slope: (
                    math.log(abs(a)) + leaky.exp().where(leaky < 0, leaky)
                )
            ),
            "where y < 0 you add the slope; its log is what is added.",
        ),
        Mistake(
            _right_x(lambda z, a, leaky, slope: math.log(abs(a)) + leaky.sum()),
            "you sum over the batch. Each point has a log-det of its own.",
            also=(_right_x(lambda z, a, leaky, slope: (math.log(abs(a)) + leaky).sum()),),
        ),
    ),
    variants=(_leaky_by_autograd, _leaky_loop),
)


# 1.5


def mended_log_prob(x):
    z = (3 - x) / 5
    log_p_z = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    log_det = math.log(abs(-5))  # of f, z -> x
    return log_p_z - log_det  # of its inverse: minus


def _log_phi_of(x):
    return -0.5 * ((3 - x) / 5) ** 2 - 0.5 * LOG_2PI


def broken_log_prob(x):
    """What the notebook shows: two faults."""
    log_det = torch.tensor(-5.0).log()  # dx/dz = -5
    return _log_phi_of(x) + log_det


SIGN_BUG = Exercise(
    title="The bug in 3 − 5z",
    level="medium",
    kind="debug",
    reference=mended_log_prob,
    judge=Equal(
        cases=lambda rng: [
            (np.array(3.0),),
            (3 + 5 * rng.normal(size=4),),
            (rng.normal(size=(2, 5)),),
        ],
        curve=(-12.0, 18.0, lambda x: (x,)),
    ),
    insight="There were two faults: no absolute value, and the log-det of the wrong direction. "
    "The first gave NaN and hid the second.",
    hints=(
        "A decreasing map has a negative derivative. What must be done before the log? When that "
        "is mended, integrate exp(log_prob) on a grid: is the area 1?",
        "The area is then 25 = 5². The log-det was computed for z → x, but the density is "
        "computed at x, after x → z.",
    ),
    why="log q(x) = log p_z(z) + log|dz/dx|, and dz/dx = −1/5. So log 5 is subtracted.",
    mistakes=(
        Mistake(
            broken_log_prob,
            "the log of a negative slope is no number. A width is stretched by |slope|.",
            also=(lambda x: _log_phi_of(x) + math.log(-5),),
        ),
        Mistake(
            lambda x: -0.5 * (3 - 5 * x) ** 2 - 0.5 * LOG_2PI - math.log(5),
            "you send x through the map f; the z that it came from is (3 − x)/5.",
            also=(lambda x: -0.5 * (3 - 5 * x) ** 2 - 0.5 * LOG_2PI + math.log(5),),
        ),
        Mistake(
            lambda x: _log_phi_of(x) + math.log(5),
            "the absolute value is there now, but "
            "the area under your density is 25: the log-det has the wrong direction, so its "
            "sign is flipped.",
        ),
        Mistake(
            _log_phi_of,
            "the log-det is gone altogether: the area under your density is 5.",
        ),
        Mistake(lambda x: _log_phi_of(x) - 5, "the log of 5 is missing: you subtract 5."),
        Mistake(
            lambda x: _log_phi_of(x) - 2 * math.log(5),
            "log 5 is subtracted twice: the area under your density is 1/5.",
        ),
        Mistake(
            lambda x: _log_phi_of(x) + 0.5 * LOG_2PI - math.log(5),
            "the ½ log 2π of the normal density is gone: the area under your density is 2.507.",
        ),
        Mistake(
            lambda x: (_log_phi_of(x) - math.log(5)).exp(),
            "this is the density; its log is asked for.",
        ),
    ),
    variants=(
        lambda x: torch.distributions.Normal(3.0, 5.0).log_prob(x),
        lambda x: -0.5 * ((np.asarray(x) - 3) / 5) ** 2 - 0.5 * np.log(2 * np.pi * 25),
        lambda x: (
            [_v.item() for _v in mended_log_prob(x).flatten()]
            if x.dim() == 1
            else mended_log_prob(x.float())
        ),
    ),
)


# 1.6


def both_kls():
    mean, sd = -2, 5
    there = (sd**2 + mean**2 - 1) / 2 - math.log(sd)
    back = math.log(sd) + (1 + mean**2) / (2 * sd**2) - 0.5
    return there, back


BOTH_KLS = Exercise(
    title="Two divergences between N(−2, 5²) and N(0, 1)",
    level="medium",
    kind="derive",
    reference=both_kls,
    judge=Equal(parts=("KL(N(−2, 5²) ‖ N(0, 1))", "KL(N(0, 1) ‖ N(−2, 5²))"), tol=5e-3),
    insight="The divergence is not symmetric. The wide law has points where the narrow one is "
    "tiny, and pays for each; the narrow one lives where the wide one is never tiny.",
    hints=(
        "KL(p ‖ q) = E_p[log p(x) − log q(x)]. Both logs are quadratics in x; which two "
        "expectations do you need?",
        "E[x] and E[x²] under p: −2 and 5² + 2² = 29 for N(−2, 5²), 0 and 1 for N(0, 1).",
    ),
    why="KL(N(μ, σ²) ‖ N(0, 1)) = (σ² + μ² − 1)/2 − log σ, and the other way round "
    "log σ + (1 + μ²)/(2σ²) − 1/2: 12.39 and 1.21 nats.",
    mistakes=(
        Mistake(
            both_kls()[::-1],
            "p and q are exchanged: in KL(p ‖ q) the points come from p.",
        ),
        Mistake(
            tuple(kl / math.log(2) for kl in both_kls()),
            "these are bits; nats are asked for. Use the natural log.",
        ),
        Mistake(
            (4 - math.log(5) / 2, math.log(5) / 2),
            "5 is the standard deviation; the variance is 25.",
        ),
        Mistake(
            (12 - math.log(5), math.log(5) + 1 / 50 - 0.5),
            "the distance of the means is missing.",
        ),
        Mistake((14.0, -0.4), "the log σ is missing. A divergence is never negative."),
        Mistake((12.4, 1.2), "rounded to one decimal that is right; give two."),
        Mistake(
            tuple(-kl for kl in both_kls()),
            "the sign is flipped: a divergence is the mean of log p − log q, and never negative.",
        ),
        Mistake(
            tuple(2 * kl for kl in both_kls()),
            "this is twice the divergence: each normal log-density has a ½.",
        ),
        Mistake(
            (14 - 2 * math.log(5), 2 * math.log(5) - 0.4),
            "log σ² stands where log σ belongs: the ½ of ½ log σ² is missing.",
        ),
        Mistake(
            (14 + math.log(5), -math.log(5) - 0.4),
            "the sign of log σ is flipped: the density of the wide law has the factor 1/σ.",
        ),
    ),
    variants=(
        (12.39, 1.21),
        torch.tensor([12.3906, 1.2094]),
        [np.float32(12.39), 1.209],
    ),
)


# 1.7


def two_entropies():
    mu, sigma = 1, 0.5
    normal = 0.5 * math.log(2 * math.pi * sigma**2) + 0.5
    lognormal = normal + mu  # E[log|dx/dz|] = E[z] = mu
    u = (torch.arange(1_000_000) + 0.5) / 1_000_000
    log_slope = -torch.log(u * (1 - u))  # dx/du = 1 / (u(1 - u))
    return lognormal, 0 + log_slope.mean().item()


_NORMAL_ENTROPY = 0.5 * math.log(2 * math.pi * math.e / 4)

ENTROPIES = Exercise(
    title="Entropies through a map",
    level="medium",
    kind="derive",
    reference=two_entropies,
    judge=Equal(parts=("H(exp z)", "H(logit u)"), tol=5e-3),
    insight="A map adds its mean log-det to the entropy: H(x) = H(z) + E[log|dx/dz|].",
    hints=(
        "Put log p(x) = log p_z(z) − log|dx/dz| into H(x) = −E[log p(x)].",
        "For exp, log|dx/dz| = z. For logit, dx/du = 1/(u(1 − u)), and E[−log u] = 1 for a "
        "uniform u.",
    ),
    why="H(exp z) = ½ log(2πe/4) + E[z] = 0.7258 + 1 = 1.7258, and "
    "H(logit u) = 0 + E[−log u] + E[−log(1 − u)] = 2.",
    mistakes=(
        Mistake(
            (_NORMAL_ENTROPY, 0.0),
            "an entropy in nats changes under a map: the mean log-det is missing.",
        ),
        Mistake(
            (_NORMAL_ENTROPY - 1, -2.0),
            "the sign of the log-det is flipped: a map that stretches raises the entropy.",
        ),
        Mistake(
            (_NORMAL_ENTROPY + 1.125, 2.0),
            "you took log E[dx/dz], but it is E[log|dx/dz|], the log first and then the mean.",
        ),
        Mistake(
            (0.5 * math.log(math.pi * math.e) + 1, 2.0),
            "the variance is 0.5² = 0.25, not 0.5.",
        ),
        Mistake((2 * _NORMAL_ENTROPY + 1, 2.0), "the ½ before log(2πeσ²) is missing."),
        Mistake(
            (_NORMAL_ENTROPY + 1, math.pi**2 / 3),
            "π²/3 is the variance of the logit of u; its entropy is asked for.",
        ),
        Mistake(
            (_NORMAL_ENTROPY + 1, 1.0),
            "log|dx/du| = −log u − log(1 − u), and you have the mean of one of the two.",
        ),
        Mistake(
            ((_NORMAL_ENTROPY + 1) / math.log(2), 2 / math.log(2)),
            "these are bits; nats are asked for. Use the natural log.",
        ),
    ),
    variants=((1.726, 2), torch.tensor([1.7258, 2.0]), (1.73, 2.0)),
)


# 1.8


def pit_ks(x, cdf):
    u = cdf(x)
    n = len(u)
    ordered = u.sort().values
    after = torch.arange(1, n + 1) / n  # the step's top
    before = torch.arange(n) / n  # and its foot
    gaps = torch.maximum(after - ordered, ordered - before)
    return u, gaps.max()


def normal_cdf(x):
    return (1 + torch.erf(torch.as_tensor(x) / math.sqrt(2))) / 2


def logistic_cdf(x):
    return torch.sigmoid(torch.as_tensor(x))


def _ks_cases(rng):
    return [
        (np.array([0.5]), normal_cdf),
        (np.array([-0.3]), normal_cdf),
        (np.array([1.0, -2.0, 0.2]), logistic_cdf),
        (rng.normal(size=8) + 1, normal_cdf),
        (rng.normal(size=9) - 1, logistic_cdf),
        (rng.normal(size=100), normal_cdf),
    ]


def _tops(u):
    return torch.arange(1, len(u) + 1) / len(u)


def _gaps(u):
    """Above and below the diagonal, if u is sorted."""
    return torch.maximum(_tops(u) - u, u - _tops(u) + 1 / len(u))


def _pit_ks_numpy(x, cdf):
    u = np.asarray(cdf(x))
    sides = [abs((u < v).mean() - v) for v in u] + [abs((u <= v).mean() - v) for v in u]
    return u, float(max(sides))


PIT = Exercise(
    title="Probability integral transform and KS test",
    level="medium",
    kind="code",
    reference=pit_ks,
    judge=Equal(cases=_ks_cases, parts=("u", "D")),
    insight="If the CDF is right, u is uniform, whatever the law of x was. D measures how far u is "
    "from uniform.",
    hints=(
        "u is the CDF at each x. D is the largest gap between the empirical CDF of u, a staircase, "
        "and the diagonal.",
        "The staircase jumps at each sorted uᵢ from (i − 1)/n to i/n. The largest gap is beside a "
        "jump, so look at both: i/n − uᵢ and uᵢ − (i − 1)/n.",
    ),
    why="Between two jumps the staircase is flat and the diagonal rises, so the gap is largest at "
    "one end of a step. If the CDF is right and n is large, D exceeds 1.36/√n in 5 % of cases.",
    mistakes=(
        Mistake(
            lambda x, cdf: (cdf(x), (_tops(x) - cdf(x).sort().values).max()),
            "your D looks only at the tops of the steps, i/n − uᵢ. The gap can be larger below "
            "the diagonal: uᵢ − (i − 1)/n.",
        ),
        Mistake(
            lambda x, cdf: (cdf(x), (_tops(x) - cdf(x).sort().values).abs().max()),
            "your D compares uᵢ with i/n alone. Just before the jump the staircase is still at "
            "(i − 1)/n: that gap counts too.",
        ),
        Mistake(
            lambda x, cdf: (cdf(x), (cdf(x).sort().values - _tops(x) + 1 / len(x)).max()),
            "your D looks only at the feet of the steps, (i − 1)/n. At its jump the staircase "
            "reaches i/n: that gap counts too.",
            also=(
                lambda x, cdf: (
                    cdf(x),
                    (cdf(x).sort().values - _tops(x) + 1 / len(x)).abs().max(),
                ),
            ),
        ),
        Mistake(
            lambda x, cdf: (cdf(x), math.sqrt(len(x)) * pit_ks(x, cdf)[1]),
            "this is √n·D, which the tables of the test use; D itself is asked for.",
        ),
        Mistake(
            lambda x, cdf: (cdf(x), _gaps(cdf(x)).max()),
            "u must be sorted before it is compared with i/n.",
        ),
        Mistake(
            lambda x, cdf: (cdf(x).sort().values, pit_ks(x, cdf)[1]),
            "u should come in the order of x: sort a copy. D is right.",
        ),
        Mistake(
            lambda x, cdf: pit_ks(x, cdf)[::-1],
            "the two are exchanged: return u first, then D.",
        ),
        Mistake(
            lambda x, cdf: (cdf(x), _gaps(cdf(x).sort().values).mean()),
            "the D is the largest gap, not the mean of the gaps.",
        ),
    ),
    variants=(_pit_ks_numpy, lambda x, cdf: [t.float() for t in pit_ks(x, cdf)]),
)


# 1.9


def square_density(x):
    z = x.sqrt()  # and -z: both are sent to x
    p_z = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    stretch = 2 * z  # |dx/dz|, the same at z and at -z
    return p_z / stretch + p_z / stretch


SQUARE = Exercise(
    title="z² is two-to-one",
    level="medium",
    kind="code",
    reference=square_density,
    judge=Equal(
        cases=lambda rng: [
            (np.array(1.0),),
            (np.array(4.0),),
            (rng.uniform(0.1, 6, size=4),),
            (rng.uniform(0.1, 6, size=(2, 3)),),
        ],
        curve=(0.05, 4.0, lambda x: (x,)),
    ),
    insight="z² is no bijection, but it is one on each side of 0: the masses that both sides send "
    "to x add. This is the χ² law with one degree of freedom.",
    hints=(
        "Which values of z have the square x? There are two. Each of them brings mass.",
        "At each of them, divide the density of z by |dx/dz| = 2|z| = 2√x. Then add the two.",
    ),
    why="p(x) = p_z(√x)/(2√x) + p_z(−√x)/(2√x) = exp(−x/2)/√(2πx).",
    mistakes=(
        Mistake(
            lambda x: _phi(x.sqrt()) / (2 * x.sqrt()),
            "only one of the two z with z² = x is counted: the area under your density is ½.",
        ),
        Mistake(
            lambda x: _phi(x.sqrt()),
            "this is the density of z at √x alone: −√x brings mass too, and the factor for the "
            "change of width is missing.",
        ),
        Mistake(
            lambda x: 2 * _phi(x.sqrt()) / x.sqrt(),
            "the 2 of dx/dz = 2z is missing: the area under your density is 2.",
        ),
        Mistake(
            lambda x: 2 * torch.exp(-x) / math.sqrt(2 * math.pi) / (2 * x.sqrt()),
            "the ½ in the exponent is missing: p_z(z) = exp(−z²/2)/√(2π), and z² = x.",
        ),
        Mistake(
            lambda x: 2 * _phi(x.sqrt()),
            "both z are there, but the factor for the change of width is missing.",
        ),
        Mistake(
            lambda x: 2 * _phi(x.sqrt()) / (2 * x),
            "the derivative 2z is taken at z = √x, not at x.",
        ),
        Mistake(
            lambda x: 2 * _phi(x.sqrt()) * 2 * x.sqrt(),
            "the factor is upside down: divide by the stretch of the map z → x.",
        ),
        Mistake(
            lambda x: 2 * _phi(x) / (2 * x.sqrt()),
            "the density of z is taken at x; it belongs at z = ±√x.",
            also=(
                lambda x: _phi(x) / (2 * x.sqrt()),
                lambda x: _phi(x) / (2 * x),
                lambda x: _phi(x) / x,
            ),
        ),
        Mistake(
            lambda x: 2 * _phi(x**2) * 2 * x,
            "you square x. The z that x came from are ±√x.",
        ),
        Mistake(
            lambda x: 0 * x,
            "the two contributions cancel: the slope at −z is −2z, and its absolute value counts.",
        ),
        Mistake(
            lambda x: torch.exp(-x / 2) / x.sqrt(),
            "the factor 1/√(2π) of the normal density is missing.",
        ),
        Mistake(
            lambda x: (_phi(x.sqrt()) / x.sqrt()).log(),
            "this is the log of the density; the density itself is asked for.",
        ),
    ),
    variants=(
        lambda x: (
            torch.distributions.Chi2(torch.ones((), dtype=x.dtype)).log_prob(x).exp()
        ),
        lambda x: sum(_phi(s * x.sqrt()) / (2 * x.sqrt()) for s in (-1, 1)),
        lambda x: np.exp(-np.asarray(x) / 2) / np.sqrt(2 * np.pi * np.asarray(x)),
    ),
)


# 1.10


def best_logistic_scale():
    z = torch.linspace(-10, 10, 20_001).double()
    p = torch.exp(-(z**2) / 2)
    p = p / p.sum()

    def cross_entropy(s):
        log_q = -z / s - math.log(s)
        log_q = log_q - 2 * torch.nn.functional.softplus(-z / s)
        return -(p * log_q).sum().item()

    low, high = 0.3, 1.0
    while high - low > 1e-6:  # a search by thirds
        left = low + (high - low) / 3
        right = high - (high - low) / 3
        if cross_entropy(left) < cross_entropy(right):
            high = right
        else:
            low = left
    return (low + high) / 2


def _scale_by_adam():
    z = torch.linspace(-10, 10, 4001)
    p = torch.softmax(-(z**2) / 2, dim=0)
    log_s = torch.tensor(-0.3, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_s], line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        t = z / log_s.exp()
        value = (p * (t + log_s + 2 * torch.nn.functional.softplus(-t))).sum()
        value.backward()
        return value

    optimiser.step(loss)
    return log_s.exp()


LOGISTIC = Exercise(
    title="The logistic law that is nearest to a normal",
    level="medium",
    kind="explore",
    reference=best_logistic_scale,
    judge=Equal(tol=1e-3),
    insight="s = 0.572, and 0.0095 nats are left. Matching the variance instead (0.551) minimises "
    'the reverse divergence: which way round decides what "nearest" means.',
    hints=(
        "Only −E[log q(z)] under z ~ N(0, 1) depends on s. It is an integral over the line: a sum "
        "on a fine grid will do.",
        "log q(z) = −z/s − log s − 2 log(1 + exp(−z/s)). Try s from 0.50 to 0.65 in small steps, take "
        "the one with the smallest sum of −φ(z) log q(z), φ the standard normal density, then refine.",
    ),
    why="The cross entropy has one minimum in s, and any search finds it; the sum on the grid is "
    "exact to many digits, since the integrand is smooth and dies out.",
    mistakes=(
        Mistake(0.57, "rounded to two decimals that is right; give three."),
        Mistake(
            math.sqrt(3) / math.pi,
            "you matched the variances (s = √3/π). That minimises "
            "KL(logistic ‖ normal), the divergence the other way round.",
        ),
        Mistake(
            math.sqrt(2 * math.pi) / 4,
            "you matched the heights at 0 (s = √(2π)/4). The divergence weighs all of the line.",
        ),
        Mistake(
            1 / 1.702,
            "1/1.702 makes the largest gap between the two CDFs smallest. That is "
            "another measure of distance than the divergence.",
        ),
    ),
    variants=(0.572, torch.tensor(0.5718), np.float32(0.5715), _scale_by_adam),
)


# 1.11


def fitted_flow():
    target = mf.data.GaussianMixture(
        means=[[-3.0], [0.0], [2.0]],
        stds=[0.5, 1.0, 0.3],
        weights=[0.3, 0.4, 0.3],
    )
    torch.manual_seed(0)
    data = target.sample((10_000,))
    transform = mf.Elementwise(1, mf.MixtureCDF(8))
    flow = mf.Flow(transform)
    mf.fit(flow, data, steps=600, lr=0.05)
    return flow


@dataclass(frozen=True)
class Gap:
    """Held-out E[log p − log q] in nats with its standard error, and the area under q."""

    nats: float
    error: float
    area: float


def _target():
    return mf.data.GaussianMixture(
        [[-3.0], [0.0], [2.0]], [0.5, 1.0, 0.3], [0.3, 0.4, 0.3]
    )


def _gap(flow):
    if why := refused(flow, dim=1):
        return why
    target = _target()
    like = next(flow.parameters(), torch.empty(0))  # the flow's dtype and device
    x = target.sample((20_000,), generator=torch.Generator().manual_seed(11))
    # Fine near 0, and far out still some points: a flow may have put its mass elsewhere.
    grid = torch.linspace(-12, 12, 48_001).double().sinh().unsqueeze(-1)
    with torch.no_grad():
        log_q, on_grid = (flow.log_prob(at.to(like)).double().cpu() for at in (x, grid))
        gaps = target.log_prob(x).double() - log_q
    area = torch.trapezoid(on_grid.exp(), grid.squeeze(-1)).item()
    return Gap(gaps.mean().item(), gaps.std().item() / math.sqrt(len(x)), area)


def _gap_is_wrong(gap):
    if not math.isfinite(gap.nats):
        return "its density is NaN or infinite at some held-out point."
    if abs(gap.area - 1) > 0.01:
        return f"the area under its density is {gap.area:.3g}, not 1."
    if gap.nats > 0.02:
        return (
            f"on held-out points its KL divergence is {gap.nats:.3f} ± {gap.error:.3f} nats; "
            "under 0.02 is asked for. More data, steps or components, or a larger lr?"
        )
    return None


def _one_normal():
    """What the best single normal leaves, in nats: its entropy minus the target's."""
    w, m, s = (
        torch.tensor(v) for v in ([0.3, 0.4, 0.3], [-3.0, 0.0, 2.0], [0.5, 1.0, 0.3])
    )
    variance = (w * (s**2 + m**2)).sum() - (w * m).sum() ** 2
    return (0.5 * (LOG_2PI + 1 + variance.log())).item() - _target().entropy().item()


class _FlippedSign(mf.Flow):
    def log_prob(self, x, context=None):
        z, log_det = self.transform.inverse(x, context)
        return self.base.log_prob(z) - log_det


def _small(kind, scalar_map, steps):
    flow = kind(mf.Elementwise(1, scalar_map))
    if steps:
        mf.fit(flow, _target().sample((10_000,)), steps=steps, lr=0.05)
    return flow


def _by_hand():
    """Another optimiser loop, another size, in float64."""
    flow = mf.Flow(mf.Elementwise(1, mf.MixtureCDF(components=12))).double()
    data = _target().sample((8_000,)).double()
    optimiser = torch.optim.Adam(flow.parameters(), lr=0.03)
    for step in range(500):
        optimiser.zero_grad()
        (-flow.log_prob(data[step % 8 :: 8]).mean()).backward()
        optimiser.step()
    return flow


FIT = Exercise(
    title="Reach the entropy with a mixture-CDF flow",
    level="hard",
    kind="code",
    reference=fitted_flow,
    judge=Measured(_gap, _gap_is_wrong),
    insight="On new points the mean loss cannot go below the entropy, but for chance, and yours is "
    "within 0.02 nats of it: there is little left to learn.",
    hints=(
        "Draw some thousand points with `target.sample((n,))`, make a `mf.Flow` of "
        "`mf.Elementwise(1, mf.MixtureCDF(8))`, and call `mf.fit`.",
        "If the gap stays above 0.02: 10 000 points, 600 steps and lr=0.05 are enough. Measure the "
        "gap on points that the flow has not seen.",
    ),
    why="With a normal base, x has the CDF Φ(logit F(x)); with 8 logistics, logit F comes close to "
    "Φ⁻¹ of the target's CDF. The mean of log p − log q on new points estimates the KL divergence.",
    mistakes=(
        Mistake(
            lambda: _small(_FlippedSign, mf.MixtureCDF(8), 0),
            "the area under its density is not 1, so it is no density. Is the sign of a "
            "log-det flipped?",
            when=lambda gap: abs(gap.area - 1) > 0.01,
        ),
        Mistake(
            lambda: _small(mf.Flow, mf.MixtureCDF(8), 0),
            "one normal would do better: the flow is hardly trained. Did `mf.fit` run on this "
            "flow, with enough steps and a small enough lr?",
            when=lambda gap: _one_normal() + 0.05 < gap.nats < math.inf,
        ),
        Mistake(
            lambda: _small(mf.Flow, mf.Affine(), 300),
            "its gap is about that of the best single normal, and an affine map of a normal is no "
            "more than that. Use `mf.MixtureCDF`.",
            when=lambda gap: abs(gap.nats - _one_normal()) < 0.05,
        ),
        Mistake(
            lambda: _small(mf.Flow, mf.Sigmoid(), 0),
            "its density is 0 at some points that the target may give. Where does your map send "
            "the line?",
            when=lambda gap: gap.nats == math.inf,
        ),
    ),
    variants=(_by_hand,),
)


# 1.12


def slope_at_zero(m, s):
    phi_0 = 1 / math.sqrt(2 * math.pi)
    bump = phi_0 * math.exp(-((m / s) ** 2) / 2) / s
    p_0 = 0.5 * bump + 0.5 * bump
    return phi_0 / p_0


def _slope_by_quadrature(m, s):
    """From the definition: F_x(f(z)) = Φ(z), solved at ±h by halving, and a difference."""

    def cdf(x):
        return sum(math.erf((x - c) / (s * math.sqrt(2))) for c in (m, -m)) / 4 + 0.5

    h, high = 1e-5, 10.0
    low, mass = 0.0, (1 + math.erf(h / math.sqrt(2))) / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if cdf(middle) < mass else (low, middle)
    return low / h


SLOPE = Exercise(
    title="The slope at 0 between two far modes",
    level="hard",
    kind="derive",
    reference=slope_at_zero,
    judge=Equal(
        cases=lambda rng: [
            (0.0, 1.0),
            (0.0, 2.0),
            (1.0, 1.0),
            (2.0, 1.0),
            (1.0, 0.5),
            (1.5, 0.7),
        ],
        tol=1e-4,
    ),
    insight="The slope is s·exp(m²/2s²): for m = 3 and s = ½ it is 33 million. A continuous map "
    "pulls one bump into two only by a very steep stretch between them.",
    hints=(
        "By symmetry f(0) = 0. What does the change of variables say about the densities at 0 on "
        "both sides?",
        "p(f(0))·f′(0) = φ(0). Both bumps have the same height at 0, so "
        "p(0) = exp(−m²/2s²)/(s√(2π)).",
    ),
    why="p(f(z))·f′(z) = φ(z) at z = 0 gives f′(0) = φ(0)/p(0) = s·exp(m²/(2s²)).",
    mistakes=(
        Mistake(
            lambda m, s: math.sqrt(2 * math.pi) * s * math.exp(m**2 / (2 * s**2)),
            "a factor φ(0) = 1/√(2π) is missing: not 1 but φ(0) is the density of z at 0.",
        ),
        Mistake(
            lambda m, s: s * math.exp(m**2 / (2 * s**2)) / math.sqrt(2 * math.pi),
            "a factor √(2π) is missing: both normal densities have a 1/√(2π), and they cancel.",
        ),
        Mistake(
            lambda m, s: math.exp(-(m**2) / (2 * s**2)) / s,
            "this is the reciprocal: the slope of the way back, x → z, at 0.",
        ),
        Mistake(
            lambda m, s: math.exp(-(m**2) / (2 * s**2)) / s / math.sqrt(2 * math.pi),
            "this is p(0), the height between the bumps. The slope is what brings φ(0) down to it.",
        ),
        Mistake(
            lambda m, s: math.exp(m**2 / (2 * s**2)),
            "the factor 1/s of a normal density is missing.",
        ),
        Mistake(
            lambda m, s: 2 * s * math.exp(m**2 / (2 * s**2)),
            "both bumps reach 0, each with weight ½; you counted one.",
        ),
        Mistake(
            lambda m, s: s / 2 * math.exp(m**2 / (2 * s**2)),
            "the weights ½ are missing: your p has the area 2.",
        ),
        Mistake(
            lambda m, s: s * math.exp(m**2 / s**2),
            "the ½ in the exponent of the normal density is missing.",
        ),
        Mistake(
            lambda m, s: s * math.exp(m**2 / (2 * s)),
            "the s in the exponent is not squared: it is the square of (x − m)/s.",
        ),
        Mistake(
            lambda m, s: math.log(s) + m**2 / (2 * s**2),
            "this is the log of the slope; the slope itself is asked for.",
        ),
        Mistake(
            lambda m, s: s * math.exp(-(m**2) / (2 * s**2)),
            "the sign in the exponent: "
            "p(0) is small between two far modes, so the slope φ(0)/p(0) is large.",
        ),
    ),
    variants=(
        _slope_by_quadrature,
        lambda m, s: torch.tensor(m**2 / (2 * s**2)).exp() * s,
        lambda m, s: np.float64(s) * np.exp(m**2 / (2 * s**2)),
    ),
)


EXERCISES = (
    LAW,
    PEAK,
    AFFINE,
    COMPOSITION,
    SIGN_BUG,
    BOTH_KLS,
    ENTROPIES,
    PIT,
    SQUARE,
    LOGISTIC,
    FIT,
    SLOPE,
)
