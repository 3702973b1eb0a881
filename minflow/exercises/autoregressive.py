"""Exercises of chapter 6: autoregressive flows.

The references have no annotations: they look like what the reader writes in the notebook.
"""
# mypy: allow-untyped-defs

import math
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

import minflow as mf
from minflow.exercises import Equal, Exercise, Measured, Mistake

from ._flows import Unsigned, by_a_loop, held_out, refused, too_far

NUMBER = 6


# 6.1


def masks_by_hand():
    inputs = np.array([3, 1, 2])  # x2 first, then x3, then x1
    hidden = np.array([1, 2, 2, 2])
    outputs = inputs - 1  # what is made for a place sees less
    M1 = hidden[:, None] >= inputs
    M2 = outputs[:, None] >= hidden
    return M1 * 1, M2 * 1, M2 * 1 @ (M1 * 1)


def _three(inputs=(3, 1, 2), outputs=(2, 0, 1), strict=(False, False)):
    """The two masks and their product, made of other degrees or with > in place of >=."""
    hidden = np.array([1, 2, 2, 2])
    inputs, outputs = np.array(inputs), np.array(outputs)[:, None]
    M1 = (hidden[:, None] > inputs if strict[0] else hidden[:, None] >= inputs) * 1
    M2 = (outputs > hidden if strict[1] else outputs >= hidden) * 1
    return M1, M2, M2 @ M1


_M1, _M2, _PATHS = masks_by_hand()

MASKS = Exercise(
    title="Masks by hand",
    level="easy",
    kind="predict",
    reference=masks_by_hand,
    judge=Equal(parts=("M1", "M2", "P"), tol=1e-3),
    insight="P has a row of zeros for the coordinate that comes first, zeros on its diagonal, and it is strictly triangular once rows and columns "
    "stand in the order 2, 3, 1. Where P is zero, no path leads, whatever the weights are.",
    hints=(
        "Write the degree beside each row and each column first. The columns of M1 belong to x₁, x₂, x₃, in this order, and x₂ is the one with degree 1.",
        "Inputs have the degrees 3, 1, 2; what is made for x₁, x₂, x₃ has the degrees 2, 0, 1. In M1 and in M2 an entry is 1 where the row's degree is at "
        "least the column's. P = M2 M1 counts the paths.",
    ),
    why="The unit of degree 1 sees x₂ alone, the three others x₂ and x₃. What is made for x₂ sees nobody, for x₃ the unit of degree 1, and for x₁ all four. "
    "So 3 + 1 paths lead from x₂ to x₁, 3 from x₃ to x₁, and 1 from x₂ to x₃.",
    mistakes=(
        Mistake(
            _three((1, 2, 3), (0, 1, 2)),
            "you took the coordinates as they stand, or sorted rows and columns by the order. Rows and columns belong to x₁, x₂, x₃ as they stand; the degrees come from the order, and x₂ is its first.",
        ),
        Mistake(
            _three((2, 3, 1), (1, 2, 0)),
            "you read the order 2, 3, 1 as a list of degrees. It says that x₂ stands at place 1, x₃ at place 2 and x₁ at place 3.",
        ),
        Mistake(
            _three(outputs=(3, 1, 2)),
            "each coordinate would see itself. What is made for the coordinate at place p has the degree p − 1.",
        ),
        Mistake(
            _three(strict=(True, True)),
            "you asked for a larger degree in both masks. Equal degrees may be joined, once the outputs have the degree p − 1.",
            also=(_three(strict=(True, False)),),
        ),
        Mistake(
            _three(strict=(False, True)),
            "what is made for place p has the degree p − 1 already. With > in place of ≥, the coordinate just before it is lost too.",
        ),
        Mistake(
            (_M1.T, _M2.T, _PATHS.T),
            "rows and columns are exchanged: a row belongs to what comes out of a layer, a column to what goes in.",
        ),
        Mistake(
            (_M1, _M2, (_PATHS > 0) * 1),
            "paths are counted in P: M2 M1 is a product of matrices, and some entries are larger than 1.",
        ),
        Mistake(
            (1 - _M1, 1 - _M2, (1 - _M2) @ (1 - _M1)),
            "your ones stand where weights are shut off. A 1 keeps a weight.",
        ),
        Mistake(
            (_M1, _M2, _M1 @ _M2),
            "this is M1 M2. Data go through M1 first, so it stands on the right.",
        ),
    ),
    variants=(
        (
            [[0, 1, 0], [0, 1, 1], [0, 1, 1], [0, 1, 1]],
            [[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]],
            [[0, 4, 3], [0, 0, 0], [0, 1, 0]],
        ),
        tuple(torch.tensor(m, dtype=torch.float32) for m in (_M1, _M2, _PATHS)),
        [_M1 > 0, _M2 > 0, _PATHS.astype(float)],
    ),
)


# 6.2


def both_ways_by_hand():
    def s_and_t(u1, u2):
        s = [math.log(2), u1 * math.log(2), -math.log(4)]
        return s, [-1, u1, u1 * u2]

    z = [3, 6, 3]
    x = [0, 0, 0]
    for i in range(3):  # MAF: each x needs those before it
        s, t = s_and_t(x[0], x[1])
        x[i] = (z[i] - t[i]) / math.exp(s[i])
    log_det = -sum(s)

    s, t = s_and_t(z[0], z[1])  # IAF: all at once
    x2 = z[1] * math.exp(s[1]) + t[1]
    return x[0], x[1], x[2], log_det, x2, sum(s)


_LOG2 = math.log(2)

BY_HAND = Exercise(
    title="The same numbers, shown x or shown z",
    level="easy",
    kind="derive",
    reference=both_ways_by_hand,
    judge=Equal(
        parts=("A: x₁", "A: x₂", "A: x₃", "A: log_det", "B: x₂", "B: log_det"),
        tol=4e-3,  # two decimals are enough
    ),
    insight="The formulas look alike, and two things differ: what the network is shown, and which way the formula runs. In A it has to be asked again "
    "for each x, in B once; and the signs of the log-dets are opposite.",
    hints=(
        "In A solve the first equation for x₁. Only then do you know s₂ and t₂, and with x₂ you know t₃. In B everything on the right is a z.",
        "A: x₁ = (3 + 1)/2, then e^(s₂) = 2² and t₂ = 2, then t₃ = x₁x₂ = 2 with e^(s₃) = ¼. The formula of A goes from x to z, with the log-det Σ s; the way from z to x has "
        "the opposite. B: e^(s₂) = 2³.",
    ),
    why="A: x = (2, 1, 4), and Σ s = log 2 + 2 log 2 − 2 log 2 = log 2, so log_det = −log 2 = −0.693 from z to x. B: x₂ = 6·8 + 3 = 51 and log_det = Σ s = log 2 + 3 log 2 − 2 log 2 = 2 log 2 = 1.386.",
    mistakes=(
        Mistake(
            (2, 0.375, -60, -2 * _LOG2, 197, 4 * _LOG2),
            "the network was shown the wrong numbers: in A it sees the x before each coordinate, in B the z.",
        ),
        Mistake(
            (2, 1, 4, -_LOG2, 26, _LOG2),
            "you took the x of A. B is another map, and its network is shown z.",
        ),
        Mistake(
            (5, 197, 0.75 + 5 * 197, 4 * _LOG2, 51, 2 * _LOG2),
            "you read the formula of A as one for x. It gives z, and has to be solved for x.",
            also=((5, 51, 18.75, 2 * _LOG2, 51, 2 * _LOG2),),
        ),
        Mistake(
            (2, 1, 4, _LOG2, 51, -2 * _LOG2),
            "the sign is flipped. The log-det asked for belongs to the way from z to x: which way does the formula run?",
        ),
        Mistake(
            (2, 1, 4, 0.5, 51, 4),
            "this is the determinant; its log is asked for.",
            also=((2, 1, 4, 2, 51, 0.25),),
        ),
        Mistake(
            (
                2.5,
                6 / 2**2.5 - 2.5,
                12 - 2.5 * (6 / 2**2.5 - 2.5),
                -1.5 * _LOG2,
                72,
                1.3863,
            ),
            "what is done last is undone first: in A subtract t, then divide by eˢ. And in B multiply first, then add t.",
        ),
        Mistake(
            (2, 1, 0.25, -5 * _LOG2, 51, 6 * _LOG2),
            "s₃ = −log 4 shrinks: its eˢ is ¼. A minus got lost.",
        ),
        Mistake(
            (
                4 / _LOG2,
                1.5 - 1 / _LOG2,
                (1 - 4 / _LOG2 * (1.5 - 1 / _LOG2) + 2) / -math.log(4),
                -_LOG2,
                18 * _LOG2 + 3,
                1.3863,
            ),
            "s is a log-scale: multiply or divide by eˢ, not by s.",
        ),
        Mistake(
            (1.5, 6 / 2**1.5, 12, -0.5 * _LOG2, 48, 1.3863),
            "t is missing: it is added after scaling, in every coordinate.",
        ),
        Mistake(
            (2, 1, 4, -_LOG2 / 3, 51, 2 * _LOG2 / 3),
            "you took the mean over the coordinates; a log-det is the sum.",
        ),
        Mistake(
            (2, 1, 4, -3 * _LOG2, 51, 4 * _LOG2),
            "s₃ is missing from your sum: it does not depend on the point, and it counts.",
        ),
    ),
    variants=(
        (2, 1, 4, -0.69, 51, 1.39),
        torch.tensor([2.0, 1.0, 4.0, -0.6931, 51.0, 1.3863]),
        [2, 1.0, np.int64(4), -np.log(2), 51, np.log(4)],
    ),
)


# 6.3


def cholesky_is_knothe_rosenblatt():
    mean = torch.tensor([1.0, -1.0])
    cov = torch.tensor([[4.0, 2.0], [2.0, 5.0]])
    x = torch.tensor([5.0, 3.0])

    L = torch.linalg.cholesky(cov)
    z = torch.linalg.inv(L) @ (x - mean)
    log_det = -L.diagonal().log().sum()
    F2 = torch.special.ndtr(z[1])

    other = cov.flip(0, 1)  # x2 first
    L = torch.linalg.cholesky(other)
    y = torch.linalg.inv(L) @ (x - mean).flip(0)
    back = -L.diagonal().log().sum()
    return z[0], z[1], F2, log_det, y[1], y[0], back


_R5 = math.sqrt(5)
_Y1 = 2.4 / math.sqrt(3.2)

CHOLESKY = Exercise(
    title="Cholesky is Knothe–Rosenblatt",
    level="easy",
    kind="derive",
    reference=cholesky_is_knothe_rosenblatt,
    judge=Equal(
        parts=(
            "z₁",
            "z₂",
            "F₂",
            "log_det",
            "z₁ in the other order",
            "z₂ in the other order",
            "log_det in the other order",
        ),
        tol=4e-3,
    ),
    insight="For a normal law every order is exact, and one affine layer is enough: each conditional is normal, with a mean that is linear and a variance that is "
    "constant. The two maps differ, but 2² + 1² = 1.342² + 1.789² = 5, and both have the log-det −log 4. So they give the point the same density.",
    hints=(
        "x₁ is normal by itself. Given x₁, x₂ is normal with the mean m₂ + (Σ₂₁/Σ₁₁)(x₁ − m₁) and the variance Σ₂₂ − Σ₂₁²/Σ₁₁. And Φ⁻¹ of a normal CDF is one "
        "subtraction and one division by a standard deviation.",
        "x₂ given x₁ = 5 has the mean −1 + ½·4 = 1 and the variance 5 − 4/4 = 4. In the other order x₁ given x₂ = 3 has the mean 1 + (2/5)·4 = 2.6 and the "
        "variance 4 − 4/5 = 3.2.",
    ),
    why="z₁ = (5 − 1)/2 = 2, z₂ = (3 − 1)/2 = 1 and F₂ = Φ(1) = 0.841. The standard deviations are 2 and 2: log_det = −log 4. In the other order z₂ = 4/√5 = 1.789 and "
    "z₁ = 2.4/√3.2 = 1.342, and √5·√3.2 = 4 again.",
    mistakes=(
        Mistake(
            (1.0, 0.5, 0.6915, -math.log(16), 0.75, 0.8, -math.log(16)),
            "you divided by a variance. z counts standard deviations.",
        ),
        Mistake(
            (2, 4 / _R5, 0.9632, -math.log(2 * _R5), 2, 4 / _R5, -math.log(2 * _R5)),
            "the second coordinate has been treated as if it did not know the first. Use its conditional law.",
        ),
        Mistake(
            (2, 2 / _R5, 0.8145, -math.log(2 * _R5), 1.2, 4 / _R5, -math.log(2 * _R5)),
            "knowing the other coordinate moves the mean, and it makes the standard deviation smaller as well.",
        ),
        Mistake(
            (2, 2, 0.9772, -math.log(4), 4 / math.sqrt(3.2), 4 / _R5, -math.log(4)),
            "the conditional mean is missing: knowing one coordinate moves the mean of the other.",
        ),
        Mistake(
            (2, -2, 0.0228, -math.log(4), -4 / math.sqrt(3.2), 4 / _R5, -math.log(4)),
            "the slope of the conditional mean is the covariance divided by the variance of what is known.",
        ),
        Mistake(
            (2, 0.75, 0.7734, -math.log(4), 2.8 / math.sqrt(3.2), 4 / _R5, -math.log(4)),
            "the conditional mean moves with x₁ − m₁, or x₂ − m₂: how far the known one is from its own mean.",
        ),
        Mistake(
            (1.69775, 1.45521, 0.9272, -math.log(4), 1.69775, 1.45521, -math.log(4)),
            "this is the symmetric root of the inverse covariance. It gives a standard normal too, but its map is not triangular.",
        ),
        Mistake(
            (4 / _R5, _Y1, 0.9101, -math.log(4), 2, 1, -math.log(4)),
            "the orders are exchanged: in the first, x₁ stands alone and x₂ is seen given x₁.",
            also=((_Y1, 4 / _R5, 0.9632, -math.log(4), 2, 1, -math.log(4)),),
        ),
        Mistake(
            (2, 1, 0.8413, math.log(4), _Y1, 4 / _R5, math.log(4)),
            "the sign is flipped: the map from x to z divides by the standard deviations, so it shrinks.",
        ),
        Mistake(
            (2, 1, 0.8413, 0.25, _Y1, 4 / _R5, 0.25),
            "this is the determinant; its log is asked for.",
        ),
        Mistake(
            (2, 1, 0.8413, -math.log(4), 4 / _R5, _Y1, -math.log(4)),
            "in the other order, too, z₁ belongs to x₁ and z₂ to x₂. Yours stand in the order in which they are made.",
        ),
        Mistake(
            (2, 1, 0.1587, -math.log(4), _Y1, 4 / _R5, -math.log(4)),
            "this is the mass above the point; a CDF is the mass below it.",
        ),
        Mistake(
            (2, 1, 0.2420, -math.log(4), _Y1, 4 / _R5, -math.log(4)),
            "this is the density of the standard normal at 1; F₂ is a CDF.",
        ),
        Mistake(
            (8, 12, 1.0, math.log(4), 8, 12, math.log(4)),
            "you multiplied by L. This is the way from z to x; here the way from x to z is asked for.",
        ),
    ),
    variants=(
        (2, 1, 0.84, -1.39, 1.34, 1.79, -1.39),
        torch.tensor([2.0, 1.0, 0.84134, -1.38629, 1.34164, 1.78885, -1.38629]),
        [
            2,
            1.0,
            np.float64(0.84134),
            -np.log(4),
            2.4 / np.sqrt(3.2),
            4 / np.sqrt(5),
            -1.3863,
        ],
    ),
)


# 6.4


def count_the_weights():
    def count(D):
        inputs = torch.arange(1, D + 1)
        units = torch.arange(1, D).repeat_interleave(2)
        made = torch.arange(D).repeat(2)
        pairs = [(inputs, units), (units, units), (units, made)]
        ones = [(b[:, None] >= a).sum().item() for a, b in pairs]
        return ones, sum(len(a) * len(b) for a, b in pairs)

    ones, weights = count(5)
    many, all_weights = count(1000)
    naive = 5 * weights
    large = 1000 * all_weights / sum(many)
    return *ones, weights, naive, naive / sum(ones), large


COUNT = Exercise(
    title="What the masks leave to do",
    level="medium",
    kind="predict",
    reference=count_the_weights,
    judge=Equal(
        parts=(
            "ones in M1",
            "ones in M2",
            "ones in M3",
            "all weights",
            "D full passes",
            "the ratio",
            "the ratio at D = 1000",
        ),
        tol=5e-3,
    ),
    insight="About half of the weights are shut off, so a point made step by step costs about half of one full pass in products, and 2D times less than D passes. "
    "What it does not save is the waiting: D steps still come one after another.",
    hints=(
        "Count by rows. A hidden unit of the first layer with degree m sees m inputs. In the second it sees all units of degree at most m: how many are these?",
        "Two units for each degree: M1 has 2·(1 + 2 + 3 + 4) ones, and in M2 each of the two units of degree m sees 2m. The two outputs for place p have the degree p − 1, and see "
        "2(p − 1) units each. For D = 1000 sum 1 + 2 + … + 999 once, and use it three times.",
    ),
    why="20 + 40 + 40 = 100 ones, of 40 + 64 + 80 = 184 weights. Five full passes cost 920 products: 9.2 times as many. In general there are 5D(D − 1) ones of (D − 1)(10D − 4) weights, so the ratio is 2D − 0.8: at D = 1000 it is 1999.2.",
    mistakes=(
        Mistake(
            (20, 40, 60, 184, 920, 920 / 120, 2000),
            "what is made for place p has the degree p − 1: it does not see the units of degree p.",
        ),
        Mistake(
            (12, 24, 40, 184, 920, 920 / 76, 2000),
            "equal degrees are joined, too: the rule is ≥.",
        ),
        Mistake(
            (10, 10, 20, 184, 920, 23, 2000),
            "there are two units of each degree, in each hidden layer, and both see, and are seen.",
        ),
        Mistake(
            (20, 20, 20, 184, 920, 920 / 60, 2000),
            "two numbers are made for each coordinate, and two units of the layer before share each degree: both count.",
        ),
        Mistake(
            (20, 40, 40, 184, 184, 1.84, 2),
            "this is one full pass. Without a memory each of the D coordinates costs one of its own.",
        ),
        Mistake(
            (20, 40, 40, 144, 720, 7.2, 1599.2),
            "the last layer makes two numbers for each of the five coordinates: 10 rows of 8.",
        ),
        Mistake(
            (20, 40, 40, 100, 500, 5, 1000),
            "a full pass multiplies by all weights, also by those that a mask has set to 0.",
        ),
        Mistake(
            (20, 40, 40, 184, 920, 0.1087, 0.0005),
            "this is the ratio the other way round.",
        ),
        Mistake(
            (20, 40, 40, 184, 920, 2.5, 500),
            "about half of the weights survive, and D passes use all of them: dividing by ½ doubles, it does not halve.",
        ),
        Mistake(
            (20, 40, 40, 184, 920, 9.2, 1840),
            "at D = 5 the ones are 100 of 184, more than half. With D the share changes a little: it comes closer to a half.",
        ),
    ),
    variants=(
        (20, 40, 40, 184, 920, 9.2, 2000),
        torch.tensor([20.0, 40.0, 40.0, 184.0, 920.0, 9.2, 2000.0]),
        [20, np.int64(40), 40.0, 184, 5 * 184, 920 / 100, 1998],
    ),
)


# 6.5


def one_by_one(z, net, order):
    x = torch.zeros_like(z)
    log_det = 0
    for i in order:
        s, t = net(x)  # s_i and t_i are right by now
        x[..., i] = (z[..., i] - t[..., i]) * (-s[..., i]).exp()
        log_det = log_det - s[..., i]
    return x, log_det


class _Made:
    """s and t of all coordinates, each steered by those before it; for tensors and for arrays."""

    def __init__(self, rng, order, reach=1.0):
        D = len(order)
        place = np.argsort(order)
        before = place[:, None] > place  # in row i, the j that stand before it
        self.weights = [reach * before * rng.normal(size=(D, D)) for _ in range(2)]
        self.biases = [0.5 * rng.normal(size=D) for _ in range(2)]
        self.__name__ = f"(a network for D = {D})"

    def __call__(self, x):
        D, width = len(self.biases[0]), x.shape[-1] if x.ndim else "no dimension"
        if width != D:
            raise ValueError(f"the network takes {D} numbers a point, and got {width}")
        pairs = zip(self.weights, self.biases, strict=True)
        if isinstance(x, np.ndarray):
            raw_s, raw_t = (x @ w.T + b for w, b in pairs)
            return np.tanh(raw_s), 2 * np.tanh(raw_t)
        as_x = [[torch.as_tensor(a).to(x) for a in pair] for pair in pairs]
        raw_s, raw_t = (x @ w.T + b for w, b in as_x)
        return torch.tanh(raw_s), 2 * torch.tanh(raw_t)


def _step_cases(rng):
    def case(order, *batch):
        return rng.normal(size=(*batch, len(order))), _Made(rng, order), order

    return [
        (np.array([1.0]), _Made(rng, (0,)), (0,)),
        (np.array([1.0, 2.0]), _Made(rng, (0, 1)), (0, 1)),
        (np.array([1.0, 2.0]), _Made(rng, (1, 0)), (1, 0)),
        case((1, 2, 0)),
        case((2, 0, 3, 1)),
        case((0, 1, 2), 3),
        case((3, 1, 4, 0, 2), 2),
        case((2, 0, 1), 2, 3),
        case((4, 2, 0, 3, 1), 6),
    ]


def _undone(z, s, t):
    return (z - t) * (-s).exp()


def _undone_at_once(z, s_and_t):
    s, t = s_and_t
    return _undone(z, s, t), -s.sum(-1)


def _stepped(
    places=lambda order: order,
    solve=_undone,
    log_det=lambda s: -s.sum(-1),
    start=torch.zeros_like,
    whole=lambda x, z: x,
):
    """The walk with one thing done in another way."""

    def answer(z, net, order):
        x = start(z)
        for i in places(order):
            s, t = net(whole(x, z))
            new = solve(z, s, t)
            x = torch.cat([x[..., :i], new[..., i : i + 1], x[..., i + 1 :]], -1)
        return x, log_det(net(whole(x, z))[0])

    return answer


def _walked(places=lambda order: order, ask=lambda net, x: net(x), own=True):
    """The walk as most write it: each s_i is added when its turn comes (or all of s are)."""

    def answer(z, net, order):
        x, log_det = torch.zeros_like(z), 0
        for i in places(order):
            s, t = ask(net, x)
            x[..., i] = _undone(z[..., i], s[..., i], t[..., i])
            log_det = log_det - (s[..., i] if own else s.sum(-1))
        return x, log_det

    return answer


def _natural(order):
    return range(len(order))


def _last_s(places):
    """The same with the log-det of the last pass."""

    def answer(z, net, order):
        seen = []

        def ask(net, x):
            seen.append(net(x))
            return seen[-1]

        x, _ = _walked(places, ask)(z, net, order)
        return x, -seen[-1][0].sum(-1)

    return answer


def _rows(whole):
    """`x[i]` in place of `x[..., i]`."""

    def answer(z, net, order):
        x, log_det = torch.zeros_like(z), 0
        for i in order:
            s, t = net(x)
            x[i] = _undone(z[i], s[i], t[i])
            log_det = log_det - s[i]
        return x, -s.sum(-1) if whole else log_det

    return answer


def _log_det_of_the_first_pass(z, net, order):
    return one_by_one(z, net, order)[0], -net(torch.zeros_like(z))[0].sum(-1)


def _from_x_to_z(x, net, order):
    s, t = net(x)
    return x * s.exp() + t, s.sum(-1)


def _steps_by_passes(z, net, order):
    """D passes, and all coordinates in each: those that are known stay as they are."""
    x = z
    for _ in order:
        s, t = net(x)
        x = (z - t) / s.exp()
    return x, -net(x)[0].sum(-1)


def _steps_loop(z, net, order):
    """Point by point, number by number."""
    D = z.shape[-1]
    points, log_dets = [], []
    for point in z.reshape(-1, D):
        x, total = [0.0] * D, 0.0
        for i in order:
            s, t = (part[i].item() for part in net(torch.tensor(x).to(z)))
            x[i] = (point[i].item() - t) / math.exp(s)
            total -= s
        points.append(x)
        log_dets.append(total)
    return np.reshape(points, z.shape), np.reshape(log_dets, z.shape[:-1])


def _steps_numpy(z, net, order):
    z = np.asarray(z)
    x = np.full_like(z, 7.0)  # what stands in the places to come does not matter
    for i in order:
        s, t = net(x)
        x[..., i] = (z[..., i] - t[..., i]) * np.exp(-s[..., i])
    return x, -s.sum(-1)


ONE_BY_ONE = Exercise(
    title="A sample, coordinate by coordinate",
    level="medium",
    kind="code",
    reference=one_by_one,
    judge=Equal(cases=_step_cases, parts=("x", "log_det")),
    insight="D passes of the network for one point, where scoring takes one. In each pass all coordinates are computed and one is used; that waste is what `Incremental` avoids.",
    hints=(
        "The first coordinate in the order has an s and a t that depend on nothing: whatever you show the network, it can be solved for. Which one can be solved next?",
        "Begin with any x, such as zeros. For each i in `order`: ask `net(x)`, take s and t of coordinate i alone, and put x_i = (z_i − t_i)·e^(−s_i) in its place. Sum −s_i as you go.",
    ),
    why="When the turn of i comes, all coordinates before it are in place, and s_i and t_i depend on no others. The formula runs from x to z with the log-det Σ s, so this way has −Σ s.",
    mistakes=(
        Mistake(
            _stepped(_natural),
            "you go from the first coordinate to the last, whatever the order is. `order` says whose turn it is.",
            also=(_walked(_natural), _last_s(_natural)),
        ),
        Mistake(
            _stepped(lambda order: np.argsort(order)),
            "you took `order` for a list of places. `order[0]` is the coordinate that comes first, and not the place of coordinate 0.",
            also=(_walked(np.argsort), _last_s(np.argsort)),
        ),
        Mistake(
            _stepped(lambda order: order[::-1]),
            "you walk through the order from its end.",
        ),
        Mistake(
            _stepped(whole=lambda x, z: z),
            "the network is shown z. That is another map, an inverse autoregressive flow; here s and t depend on the x before.",
            also=(lambda z, net, order: _undone_at_once(z, net(z)),),
        ),
        Mistake(
            lambda z, net, order: _undone_at_once(z, net(torch.zeros_like(z))),
            "only the first coordinate is right: all others are made of zeros. Ask again when the first one is known, then put the second in its place, and so on; do you walk through the order from its end?",
        ),
        Mistake(
            _stepped(log_det=lambda s: s.sum(-1)),
            "log_det has the sign of the way from x to z. It always belongs to the map just applied.",
        ),
        Mistake(
            _log_det_of_the_first_pass,
            "your log_det is made of the s of the first pass, when no x was known. Take each s_i when its turn comes.",
        ),
        Mistake(
            _stepped(solve=lambda z, s, t: z * s.exp() + t),
            "x·eˢ + t is the way from x to z. Solve it for x.",
            also=(
                _stepped(
                    solve=lambda z, s, t: z * s.exp() + t, log_det=lambda s: s.sum(-1)
                ),
            ),
        ),
        Mistake(
            _from_x_to_z,
            "this is the way from x to z, in one pass. You are given z.",
        ),
        Mistake(
            _stepped(solve=lambda z, s, t: z * (-s).exp() - t),
            "you divide before you subtract. What was done last, adding t, is undone first.",
        ),
        Mistake(
            _stepped(solve=lambda z, s, t: (z - t) * s.exp()),
            "you subtract t, and then multiply by eˢ once more. Divide by it.",
        ),
        Mistake(
            _stepped(solve=lambda z, s, t: (z - s) * (-t).exp()),
            "s and t are exchanged: the network returns s first.",
            also=(_walked(ask=lambda net, x: net(x)[::-1]),),
        ),
        Mistake(
            _rows(whole=False),
            "`x[i]` is row i of a batch. Coordinate i of each point is `x[..., i]`, and so for z, s and t.",
            also=(_rows(whole=True),),
        ),
        Mistake(
            _walked(own=False),
            "you add all of s in each step. Add s_i alone when its turn comes, or all of s once, at the end.",
        ),
        Mistake(
            _stepped(log_det=lambda s: -s.sum()),
            "you sum over the batch too. Each point has a log-det of its own.",
        ),
        Mistake(
            _stepped(log_det=lambda s: -s),
            "one number a point is asked for: sum over the coordinates.",
        ),
        Mistake(
            lambda z, net, order: one_by_one(z, net, order)[0],
            "this is x alone. Return its log-det beside it.",
        ),
        Mistake(
            lambda z, net, order: one_by_one(z, net, order)[::-1],
            "you return the log-det first. x comes first, its log-det beside it.",
        ),
    ),
    variants=(_steps_by_passes, _steps_loop, _steps_numpy),
)


# 6.6


def mended_masks(order, degrees):
    place = torch.tensor(order).argsort()  # of each coordinate
    m = torch.tensor(degrees)
    M1 = m[:, None] >= place + 1
    M2 = place[:, None] >= m
    return M1.float(), M2.float()


def _masked(place=lambda o: o.argsort(), first=lambda p, m: m >= p + 1, second=None):
    """The masks with one thing done in another way; p are places from 0, m degrees."""
    second = second or (lambda p, m: p >= m)

    def answer(order, degrees):
        p, m = place(torch.tensor(order)), torch.tensor(degrees)
        return first(p, m[:, None]).float(), second(p[:, None], m).float()

    return answer


def _as_it_stands(order):
    return order


def _sees_itself(p, m):
    return p + 1 >= m


broken_masks = _masked(_as_it_stands, second=_sees_itself)


def _masks_loop(order, degrees):
    D, H = len(order), len(degrees)
    M1, M2 = np.zeros((H, D)), np.zeros((D, H))
    for p, i in enumerate(order):
        for k, m in enumerate(degrees):
            M1[k, i] = m > p
            M2[i, k] = m <= p
    return M1, M2


def _masks_by_columns(order, degrees):
    """Made in the order, then put where the coordinates stand; True and False."""
    places, m = np.arange(len(order)), np.array(degrees)
    M1, M2 = np.empty((len(m), len(places)), bool), np.empty((len(places), len(m)), bool)
    M1[:, list(order)] = m[:, None] > places
    M2[list(order)] = places[:, None] >= m
    return M1, M2


BUG = Exercise(
    title="It sees itself, and mistakes its order",
    level="medium",
    kind="debug",
    reference=mended_masks,
    judge=Equal(
        cases=lambda rng: [
            ((0, 1), (1, 1)),
            ((1, 0), (1, 1, 1)),
            ((0, 1, 2), (1, 2)),
            ((2, 1, 0), (1, 2, 2)),
            ((1, 2, 0), (1, 1, 2, 2)),
            ((2, 0, 1), (2, 1, 1, 2)),
            ((2, 0, 3, 1), (1, 2, 3, 2, 1, 3)),
            ((3, 1, 4, 0, 2), tuple(rng.integers(1, 5, size=9).tolist())),
        ],
        parts=("M1", "M2"),
    ),
    insight="An order and its list of places are inverse permutations, and equal for all orders of two coordinates, for the natural order and for the reversed one. "
    "Test with an order such as (1, 2, 0). And a network that sees itself is the kind of bug that looks like success.",
    hints=(
        "Look at M2 @ M1 in the natural order: what should be on its diagonal? Then take the order (1, 2, 0): which coordinate comes first, and which column of M1 has the most ones?",
        "What is made for the coordinate at place p, counted from 1, may depend on p − 1 coordinates. And coordinate i stands where `order` has the number i: `argsort` finds it.",
    ),
    why="`place` has to be the inverse of the permutation `order`: place[order[p]] = p. And counted from 0, place is just the degree p − 1 of what is made there.",
    mistakes=(
        Mistake(broken_masks, "this is the code as it was."),
        Mistake(
            _masked(second=_sees_itself),
            "one bug is left: on the diagonal of M2 @ M1 there should be zeros. The order is right now.",
        ),
        Mistake(
            _masked(_as_it_stands),
            "nobody sees itself now. The other bug is left: with the order (1, 2, 0), which coordinate is made of nothing?",
        ),
        Mistake(
            _masked(first=lambda p, m: m > p + 1, second=_sees_itself),
            "you made the first mask strict, and the second lets a degree too many pass. No coordinate sees itself, but units of degree 1 are blind, and those of the highest degree see less than they may.",
            also=(
                _masked(_as_it_stands, first=lambda p, m: m > p + 1, second=_sees_itself),
            ),
        ),
        Mistake(
            _masked(second=lambda p, m: p > m),
            "this is strict twice: with the degree p − 1 at the output the rule is ≥. The coordinate just before is lost.",
            also=(_masked(_as_it_stands, second=lambda p, m: p > m),),
        ),
        Mistake(
            _masked(lambda o: o.argsort().flip(0)),
            "your order is turned round.",
            also=(_masked(lambda o: o.flip(0)), _masked(lambda o: len(o) - 1 - o)),
        ),
        Mistake(
            _masked(lambda o: torch.arange(len(o))),
            "`order` has no effect in your masks.",
        ),
        Mistake(
            _masked(first=lambda p, m: m >= p),
            "places are counted from 0 here and degrees from 1: the input at place 0 has the degree 1.",
        ),
        Mistake(
            lambda order, degrees: tuple(M.mT for M in mended_masks(order, degrees)),
            "rows and columns are exchanged: M1 has a row for each hidden unit, M2 one for each coordinate.",
        ),
    ),
    variants=(_masks_loop, _masks_by_columns),
)


# 6.7


def jacobi(z, net, steps):
    x = torch.zeros_like(z)
    found = []
    for _ in range(steps):
        s, t = net(x)
        x = (z - t) * (-s).exp()
        found.append(x)
    return torch.stack(found)


def _jacobi_cases(rng):
    def case(D, steps, *batch):
        return rng.normal(size=(*batch, D)), _Made(rng, tuple(range(D)), 2.0), steps

    return [
        (np.array([1.0]), _Made(rng, (0,)), 1),
        (np.array([1.0, 2.0]), _Made(rng, (0, 1)), 1),
        (np.array([1.0, 2.0]), _Made(rng, (0, 1)), 3),
        case(3, 2),
        case(4, 5),
        case(3, 4, 2),
        case(5, 3, 2),
        case(4, 6, 2, 3),
    ]


def _iterated(
    start=torch.zeros_like,
    solve=_undone,
    change=lambda old, new: new,
    stack=lambda found: torch.stack(found[1:]),
):
    """Jacobi with one thing done in another way; `found` begins with the start."""

    def answer(z, net, steps):
        found = [start(z)]
        for _ in range(steps):
            found.append(change(found[-1], solve(z, *net(found[-1]))))
        return stack(found)

    return answer


def _gauss_seidel(z, net, steps):
    """Within a pass, each coordinate sees those that the same pass has found."""
    x, found = torch.zeros_like(z), []
    for _ in range(steps):
        for i in range(z.shape[-1]):
            new = _undone(z, *net(x))
            x = torch.cat([x[..., :i], new[..., i : i + 1], x[..., i + 1 :]], -1)
        found.append(x)
    return torch.stack(found)


def _one_coordinate_a_pass(z, net, steps, past_the_end=False):
    x, found = torch.zeros_like(z), []
    for i in range(steps):
        if past_the_end:
            z[..., i]  # IndexError, if there are more passes than coordinates
        i = min(i, z.shape[-1] - 1)
        new = _undone(z, *net(x))
        x = torch.cat([x[..., :i], new[..., i : i + 1], x[..., i + 1 :]], -1)
        found.append(x)
    return torch.stack(found)


def _jacobi_recursive(z, net, steps):
    if steps == 0:
        return z.new_zeros(0, *z.shape)
    before = _jacobi_recursive(z, net, steps - 1)
    last = before[-1] if steps > 1 else torch.zeros_like(z)
    s, t = net(last)
    return torch.cat([before, ((z - t) / s.exp())[None]])


def _jacobi_numpy(z, net, steps):
    z = np.asarray(z)
    found = np.zeros((steps + 1, *z.shape))
    for k in range(steps):
        s, t = net(found[k])
        found[k + 1] = (z - t) * np.exp(-s)
    return found[1:]


JACOBI = Exercise(
    title="All coordinates at once, again and again",
    level="medium",
    kind="code",
    reference=jacobi,
    judge=Equal(cases=_jacobi_cases),
    insight="After k passes the first k coordinates are exact, so D passes are always enough; where coordinates depend on each other only weakly, far fewer will do. Each pass treats all coordinates at once, "
    "which suits a parallel machine.",
    hints=(
        "Suppose for a moment that x were known: then z_i = x_i·e^(s_i) + t_i, solved for x_i, would give back just this x. Take a guess for x on the right, and see what comes out on the left.",
        "Begin with zeros. In each pass ask `net` once, with the x of the pass before, and compute all of the new x from it. Keep a list, and `torch.stack` it.",
    ),
    why="x₁ does not depend on the guess, so it is right after one pass. If the first k are right after pass k, then s and t of coordinate k + 1 are right in the next pass, and so is x of k + 1.",
    mistakes=(
        Mistake(
            _gauss_seidel,
            "within one pass you already use what this pass has found: that is the walk of exercise 6.5, with D network passes in each step. Compute all of the new x from the old.",
        ),
        Mistake(
            _one_coordinate_a_pass,
            "only one coordinate changes in each of your passes. All of them change at once, right or not.",
            also=(partial(_one_coordinate_a_pass, past_the_end=True),),
        ),
        Mistake(
            _iterated(start=lambda z: z),
            "you begin with z. It converges to the same x, but the passes asked for begin with zeros.",
        ),
        Mistake(
            _iterated(stack=lambda found: torch.stack(found[:-1])),
            "your list begins with the zeros. It should begin with what the first pass gives.",
        ),
        Mistake(
            _iterated(stack=torch.stack),
            "the zeros of the start are in your list too: `steps` entries are expected.",
        ),
        Mistake(
            _iterated(stack=lambda found: found[-1]),
            "this is the last pass alone. Return all of them, stacked along a new first dimension.",
        ),
        Mistake(
            _iterated(stack=lambda found: torch.stack(found[-1:] * (len(found) - 1))),
            "all your passes are the last one: you write into one tensor, and your list holds it again and again. Make a new tensor in each pass, or append `x.clone()`.",
        ),
        Mistake(
            _iterated(stack=lambda found: torch.stack(found[1:], -1)),
            "the passes stand along the last dimension. Stack them along a new first one.",
        ),
        Mistake(
            _iterated(stack=lambda found: torch.stack(found[1:], -2)),
            "the passes stand after the batch. Stack them along a new first dimension.",
        ),
        Mistake(
            _iterated(solve=lambda z, s, t: z * s.exp() + t),
            "x·eˢ + t is the way from x to z. Solve it for x.",
        ),
        Mistake(
            _iterated(solve=lambda z, s, t: z * (-s).exp() - t),
            "you divide before you subtract. What was done last, adding t, is undone first.",
        ),
        Mistake(
            _iterated(solve=lambda z, s, t: (z - t) * s.exp()),
            "you subtract t, and then multiply by eˢ once more. Divide by it.",
        ),
        Mistake(
            _iterated(solve=lambda z, s, t: (z - s) * (-t).exp()),
            "s and t are exchanged: the network returns s first.",
        ),
        Mistake(
            _iterated(change=lambda old, new: (old + new) / 2),
            "you mix the old x into the new. Then the first coordinate is not exact after any number of passes.",
        ),
        Mistake(
            lambda z, net, steps: torch.stack([_undone(z, *net(z))] * steps),
            "the network is shown z in each pass. Show it the x of the pass before.",
        ),
    ),
    variants=(_jacobi_recursive, _jacobi_numpy),
)


# 6.8


def mixture_at_a_point():
    w, s = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.5])
    mu, x = torch.tensor([0, math.log(3)]), math.log(3)

    below = torch.sigmoid((x - mu) / s)  # 3/4 and 1/2
    F = (w * below).sum()  # 5/8
    density = (w * below * (1 - below) / s).sum()  # 11/32
    z = torch.logit(F)  # log 5/3
    slope = density / (F * (1 - F))  # 22/15
    logistic = F * (1 - F) * slope
    normal = (-(z**2) / 2).exp() / math.sqrt(2 * math.pi) * slope
    return z, slope, logistic, normal


def _normal(z):
    return math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def _bell(z):
    return math.exp(z) / (1 + math.exp(z)) ** 2


_Z = math.log(5 / 3)
_PHI = _normal(_Z)
_MEAN = math.log(3) / 2  # of log 3 and 0

MIXTURE = Exercise(
    title="A mixture of logistics as a conditional",
    level="medium",
    kind="derive",
    reference=mixture_at_a_point,
    judge=Equal(
        parts=("z₂", "the slope", "with a logistic base", "with a normal base"), tol=4e-3
    ),
    insight="A logistic base cancels the logit exactly, and what is left is the mixture's own density, F′. A normal base gives another law, with bumps at much the same places.",
    hints=(
        "σ(log 3) = 3/4. What are the two components' CDFs at x₂ = log 3? The derivative of σ(u) is σ(u)(1 − σ(u)), and a scale s divides it.",
        "F = ½·¾ + ½·½ = 5/8 and F′ = ½·(3/16) + ½·(¼)/(½). The logit has the slope 1/(F(1 − F)), and the logistic density at z = logit F is σ(z)(1 − σ(z)) = F(1 − F).",
    ),
    why="z₂ = log(5/3) = 0.511 and dz₂/dx₂ = (11/32)/(15/64) = 22/15 = 1.467. Under the logistic base q = (15/64)·(22/15) = 11/32 = 0.344; under the normal one φ(0.511)·22/15 = 0.350·1.467 = 0.514.",
    mistakes=(
        Mistake(
            (5 / 8, 11 / 32, 11 / 32, _PHI * 11 / 32),
            "the logit is missing: z₂ = logit F, and its slope has the slope of the logit as a factor.",
        ),
        Mistake(
            (math.log(5 / 8), 11 / 20, 11 / 32, 0.5 * _PHI),
            "the logit is log(F/(1 − F)), not log F; and its slope is 1/(F(1 − F)).",
        ),
        Mistake(
            (_Z, 14 / 15, 7 / 32, _PHI * 14 / 15),
            "the scale is missing in F′: component k has the slope σ′(u)/s_k.",
        ),
        Mistake(
            (_Z, 2 / 3, 5 / 32, _PHI * 2 / 3),
            "you multiplied by the scales. A component that is narrow is steep: its scale divides.",
        ),
        Mistake(
            (_MEAN, 1.5, 1.5 * _bell(_MEAN), 1.5 * _normal(_MEAN)),
            "you averaged the components' own z. The mixture is made of the CDFs; the logit comes after the sum.",
        ),
        Mistake(
            (_Z, 15 / 22, (15 / 64) * (15 / 22), _PHI * 15 / 22),
            "this is the slope of the other way, from z₂ to x₂. To score a point the slope dz₂/dx₂ is a factor.",
        ),
        Mistake(
            (_Z, math.log(22 / 15), 15 / 64, _PHI),
            "the base's density at z₂ alone is not the density at x₂: the slope is a factor. And the slope itself is asked for, not its log.",
        ),
        Mistake(
            (_Z, 22 / 15, math.log(11 / 32), math.log(_PHI * 22 / 15)),
            "this is the log-density; the density is asked for.",
        ),
        Mistake(
            (-_Z, 22 / 15, 11 / 32, _PHI * 22 / 15),
            "the sign of z₂ is flipped: more than half of the mass lies below this point.",
        ),
        Mistake(
            (_Z, 22 / 15, 11 / 32, 11 / 32),
            "with a normal base the logit is not cancelled: φ(z₂) takes the place of F(1 − F).",
        ),
        Mistake(
            (math.log(3), 1.0, 3 / 16, _normal(math.log(3))),
            "this is the first component alone. The CDF is the weighted sum of both.",
            also=((0.0, 2.0, 0.5, 2 * _normal(0.0)),),
        ),
    ),
    variants=(
        (0.51, 1.47, 0.34, 0.51),
        torch.tensor([0.51083, 1.46667, 0.34375, 0.51354]),
        [np.log(5 / 3), 22 / 15, 11 / 32, 0.5135],
    ),
)


# 6.9


def two_bumps_in_two_orders():
    right = 0.0  # x2 first: each conditional is normal
    var1 = 2**2 + 0.25**2
    var2 = 1 - 2 / math.pi  # half of a normal law

    def normal(var):  # the entropy of N(·, var)
        return 0.5 * math.log(2 * math.pi * math.e * var)

    H1 = math.log(2) + normal(0.25**2)  # which bump, and where
    H2 = normal(1) - math.log(2)  # the sign is known
    of_x1, of_x2 = normal(var1) - H1, normal(var2) - H2
    return right, var1, var2, of_x1, of_x2, of_x1 + of_x2


def _priced(var1, var2):
    of_x1 = 0.5 * math.log(16 * var1) - _LOG2
    of_x2 = 0.5 * math.log(var2) + _LOG2
    return 0.0, var1, var2, of_x1, of_x2, of_x1 + of_x2


_V1 = 65 / 16
_V2 = 1 - 2 / math.pi
*_, _OF1, _OF2, _BOTH = _priced(_V1, _V2)


ORDERS = Exercise(
    title="What the wrong order costs",
    level="hard",
    kind="derive",
    reference=two_bumps_in_two_orders,
    judge=Equal(
        parts=(
            "the right order",
            "Var x₁",
            "Var(x₂ | x₁)",
            "the price of x₁",
            "the price of x₂ given x₁",
            "the price of the wrong order",
        ),
        tol=4e-3,
    ),
    insight="The price splits coordinate by coordinate: each conditional pays for not being normal. Any order is free of charge if the scalar map is free too (6.2); an affine one can only afford an order in which "
    "every conditional is normal.",
    hints=(
        "An affine layer makes each conditional normal. In which order are both conditionals normal, with parameters that a network can make, a step included? In the other, the best normal law has the true mean and the true "
        "variance, and the price is ½ log(2πe·variance) minus the true entropy.",
        "x₁ is an even mixture of two normal laws far apart: H = log 2 + ½ log(2πe/16), and its variance is 4 + 1/16. Given x₁, the sign of x₂ is known: x₂ is half of a normal law, with E x₂² = 1 and |E x₂| = √(2/π).",
    ),
    why="½ log(2πe·65/16) − log 2 − ½ log(2πe/16) = ½ log 65 − log 2 = 1.394. The half has the variance 1 − 2/π = 0.363 and the entropy ½ log(2πe) − log 2, so it costs ½ log 0.363 + log 2 = 0.187. Together: 1.581 nats, and 0 in the right order.",
    mistakes=(
        Mistake(
            (_BOTH, _V1, _V2, _OF1, _OF2, 0.0),
            "the orders are exchanged. In the right one x₂ comes first, as it is drawn.",
        ),
        Mistake(
            (0.0, _V1, 1.0, _OF1, 0.0, _OF1),
            "given x₁ you know the sign of x₂, so it is not N(0, 1) any more: half of that law is left, and half of a normal law is neither as wide nor normal.",
        ),
        Mistake(
            (_LOG2, 1 / 16, 1.0, 0.0, 0.0, _LOG2),
            "in the order in which the law is drawn, each conditional is normal, and a step is a mean like any other: that is free. The rest is asked for the other order.",
        ),
        Mistake(
            _priced(4.0, _V2),
            "the spread within a bump is missing: the variance of x₁ is that between the bumps plus that within them.",
        ),
        Mistake(
            _priced(4.25, math.sqrt(2 / math.pi)),
            "a standard deviation or a mean stands where a variance belongs: ¼ is the standard deviation of the noise, √(2/π) the mean of |x₂|.",
        ),
        Mistake(
            _priced(math.sqrt(_V1), math.sqrt(_V2)),
            "this is a standard deviation; the variance is asked for.",
        ),
        Mistake(
            _priced(_V1, 2 / math.pi),
            "2/π is the square of the mean. The variance is what is left of E x₂² = 1 without it.",
        ),
        Mistake(
            (0.0, _V1, _V2, 0.5 * math.log(65), 0.5 * math.log(_V2), _BOTH),
            "log 2 is missing in an entropy: two bumps apart have log 2 more than one of them, half of a law has log 2 less than the whole.",
        ),
        Mistake(
            (0.0, _V1, _V2, 0.5 * math.log(_V1), _OF2, 0.5 * math.log(_V1) + _OF2),
            "you compare with N(0, 1). The price is the entropy of the best normal law minus the true entropy of x₁, whose bumps are narrow.",
        ),
        Mistake(
            (0.0, _V1, _V2, math.log(65) - _LOG2, math.log(_V2) + _LOG2, 2 * _BOTH),
            "the factor ½ is missing: the entropy of a normal law is ½ log(2πe·variance).",
        ),
        Mistake(
            (0.0, _V1, _V2, -_OF1, -_OF2, -_BOTH),
            "the sign is flipped: of all laws with this variance the normal one has the largest entropy.",
        ),
        Mistake(
            (0.0, _V1, _V2, _OF1, _OF2, _OF1 - _OF2),
            "the two prices add up.",
            also=((0.0, _V1, _V2, _OF1, _OF2, _BOTH / 2),),
        ),
    ),
    variants=(
        (0, 4.06, 0.36, 1.39, 0.19, 1.58),
        torch.tensor([0.0, 4.0625, 0.36338, 1.39405, 0.18699, 1.58104]),
        [0, 65 / 16, 1 - 2 / np.pi, np.log(65) / 2 - np.log(2), 0.187, 1.5810],
    ),
)


# 6.10


def unmonotone(z, s, t, a, b, w, c, v):
    def run(x):
        first = torch.tanh(a * x[..., None] + b)
        second = torch.tanh(first @ w.mT + c)
        value = s.exp() * x + t + second @ v
        inner = (a * (1 - first**2)) @ w.mT
        slope = s.exp() + ((1 - second**2) * inner) @ v
        return value, slope

    # The sum of all v·tanh lies between -sum(v) and sum(v).
    low = (z - t - v.sum()) / s.exp()
    high = (z - t + v.sum()) / s.exp()
    for _ in range(50):
        x = (low + high) / 2
        below = run(x)[0] < z
        low = torch.where(below, x, low)
        high = torch.where(below, high, x)
    return x, -run(x)[1].log()


def _monotone_cases(rng):
    def network(K, J, s=None, t=None):
        w = rng.uniform(0.1, 1.0, (J, K))
        return (
            np.array(rng.uniform(-1.0, 0.5) if s is None else s),
            np.array(rng.normal() if t is None else t),
            np.exp(rng.uniform(-0.5, 1.0, K)),
            rng.normal(size=K),
            w / w.sum(1, keepdims=True),
            rng.normal(size=J),
            np.exp(rng.uniform(-0.5, 1.0, J)),
        )

    one = [np.array(0.0), np.array(1.0), np.array([2.0]), np.array([-1.0])]
    one += [np.array([[1.0]]), np.array([0.5]), np.array([3.0])]
    steep = [np.array(-2.0), np.array(0.5), np.array([8.0]), np.array([-16.0])]
    steep += [np.array([[1.0]]), np.array([0.2]), np.array([5.0])]
    return [
        (np.array(1.0), *one),
        (np.array(-2.5), *one),
        (np.array([1.0, -2.0, 3.0]), *steep),
        (np.array([-400.0, 300.0]), *network(2, 3, t=12.0)),
        (rng.normal(size=5), *network(3, 2)),
        (3 * rng.normal(size=(2, 3)), *network(4, 5, s=-1.5)),
    ]


def _risen(x, *net, own=None, straight=1.0):
    """z and dz/dx of the network."""
    s, t, a, b, w, c, v = net
    first = torch.tanh(a * x[..., None] + b)
    second = torch.tanh(first @ w.mT + c)
    inner = ((a if own is None else own) * (1 - first**2)) @ w.mT
    slope = straight * s.exp() + ((1 - second**2) * inner) @ v
    return s.exp() * x + t + second @ v, slope


_ROOTS: dict[tuple, torch.Tensor] = {}


def _found(slope):
    """The right x, searched once, with another log-slope."""

    def answer(z, *net):
        case = tuple(np.asarray(part).tobytes() for part in (z, *net))
        if case not in _ROOTS:
            _ROOTS[case] = unmonotone(z, *net)[0]
        return _ROOTS[case], slope(_ROOTS[case], z, *net)

    return answer


def _halved(ends, exchanged=False):
    """Halving between two ends; exchanged, it keeps the half without the root."""

    def answer(z, *net):
        low, high = (end + 0 * z for end in ends(z, *net))
        for _ in range(50):
            middle = (low + high) / 2
            below = (_risen(middle, *net)[0] < z) != exchanged
            low = torch.where(below, middle, low)
            high = torch.where(below, high, middle)
        return low, -_risen(low, *net)[1].log()

    return answer


def _ends(z, s, t, *net):
    reach = net[-1].sum()
    return (z - t - reach) * (-s).exp(), (z - t + reach) * (-s).exp()


def _fixed(reach):
    return _halved(lambda z, *net: (-reach, reach))


def _newton(start, steps):
    """Newton's method without a bracket."""

    def answer(z, *net):
        x = start(z, *net)
        for _ in range(steps):
            value, slope = _risen(x, *net)
            x = x - (value - z) / slope
        return x, -_risen(x, *net)[1].log()

    return answer


def _straight_only(z, s, t, *net):
    x = (z - t) * (-s).exp()
    return x, -s + 0 * x


def _bracketed_newton(z, *net):
    s, t, v = net[0], net[1], net[-1]
    low, high = (z - t - v.sum()) / s.exp(), (z - t + v.sum()) / s.exp()
    x = (low + high) / 2
    for _ in range(80):
        value, slope = _risen(x, *net)
        low, high = torch.where(value < z, x, low), torch.where(value < z, high, x)
        step = x - (value - z) / slope
        x = torch.where((step > low) & (step < high), step, (low + high) / 2)
    return x, -_risen(x, *net)[1].log()


def _widened_and_by_autograd(z, *net):
    """A bracket that grows until it holds the root, and a slope that is found."""
    low, high = torch.full_like(z, -1.0), torch.full_like(z, 1.0)
    while (_risen(low, *net)[0] > z).any():
        low = 2 * low
    while (_risen(high, *net)[0] < z).any():
        high = 2 * high
    x = _halved(lambda *_: (low, high))(z, *net)[0].requires_grad_()
    (slope,) = torch.autograd.grad(_risen(x, *net)[0].sum(), x)
    return x.detach(), -slope.log()


def _unmonotone_loop(z, s, t, a, b, w, c, v):
    """Number by number, in plain Python."""
    s, t = float(s), float(t)
    a, b, w, c, v = (part.tolist() for part in (a, b, w, c, v))
    xs, logs = [], []
    for target in z.flatten().tolist():
        low = (target - t - sum(v)) / math.exp(s)
        high = (target - t + sum(v)) / math.exp(s)
        for _ in range(50):
            x = (low + high) / 2
            value, slope = math.exp(s) * x + t, math.exp(s)
            for row, c_j, v_j in zip(w, c, v, strict=True):
                units = list(zip(row, a, b, strict=True))
                inner = sum(w_i * math.tanh(a_i * x + b_i) for w_i, a_i, b_i in units)
                rises = sum(
                    w_i * a_i * (1 - math.tanh(a_i * x + b_i) ** 2)
                    for w_i, a_i, b_i in units
                )
                value += v_j * math.tanh(inner + c_j)
                slope += v_j * (1 - math.tanh(inner + c_j) ** 2) * rises
            low, high = (x, high) if value < target else (low, x)
        xs.append(x)
        logs.append(-math.log(slope))
    return np.reshape(xs, z.shape), np.reshape(logs, z.shape)


UNMONOTONE = Exercise(
    title="Undo a monotone network",
    level="hard",
    kind="code",
    reference=unmonotone,
    judge=Equal(cases=_monotone_cases, parts=("x", "log dx/dz")),
    insight="That the network rises is all that the search needs: no formula for the inverse, no slope. The slope comes in once, at the x that was found.",
    hints=(
        "The straight part is e^s·x + t, and all the rest, Σ v_j tanh(…), lies between −Σ v_j and Σ v_j. So the root lies between two numbers that you can write down. Halve the gap between them again and again.",
        "`a * x[..., None] + b` has a last dimension of K units; `first @ w.mT + c` has J. tanh′ = 1 − tanh². From the inside out: a·(1 − first²), then `@ w.mT`, times 1 − second², then `@ v`, plus e^s. "
        "The log-slope of the inverse is minus the log of that, at x.",
    ),
    why="The root lies between (z − t − Σ v)/e^s and (z − t + Σ v)/e^s; 50 halvings leave nothing of the gap that a float could show. Where dz/dx is the slope at x, dx/dz is its reciprocal.",
    mistakes=(
        Mistake(
            _fixed(10.0),
            "for z far out the root lies outside of your bracket. Its ends have to depend on z: the tanh part is bounded, the straight part is not.",
            also=tuple(map(_fixed, (20.0, 50.0, 100.0))),
        ),
        Mistake(
            _halved(lambda z, s, t, *net: (z - t - net[-1].sum(), z - t + net[-1].sum())),
            "your bracket does not always hold the root: the slope of the straight part is e^s, so divide by it.",
        ),
        Mistake(
            _halved(
                lambda z, s, t, *net: (
                    (z - net[-1].sum()) * (-s).exp(),
                    (z + net[-1].sum()) * (-s).exp(),
                )
            ),
            "t is missing in the ends of your bracket, so that it does not always hold the root.",
        ),
        Mistake(
            _halved(_ends, exchanged=True),
            "you keep the wrong half, so the search runs into an end of the bracket. Where the value in the middle is below z, the root lies above the middle: raise the lower end.",
        ),
        Mistake(
            _straight_only,
            "you undo the straight part alone. The tanh part depends on x too, so the equation has to be solved by a search.",
        ),
        Mistake(
            _newton(lambda z, *net: torch.zeros_like(z), 50),
            "a plain Newton iteration runs to and fro where the curve is flat beside a steep step. Keep a bracket around the root, and halve it where a Newton step would leave it.",
            also=(
                _newton(lambda z, s, t, *net: (z - t) * (-s).exp(), 50),
                _newton(lambda z, *net: z, 50),
            ),
        ),
        Mistake(
            _found(lambda x, z, *net: _risen(x, *net)[1].log()),
            "the log-slope has the sign of the way from x to z. Yours goes from z to x.",
        ),
        Mistake(
            _found(lambda x, z, *net: -_risen(z, *net)[1].log()),
            "the slope is to be taken at the x that you have found, and you took it at z.",
        ),
        Mistake(
            _found(lambda x, z, *net: 1 / _risen(x, *net)[1]),
            "this is the slope dx/dz; its log is asked for.",
        ),
        Mistake(
            _found(lambda x, z, *net: -_risen(x, *net, own=1.0)[1].log()),
            "the chain rule has one factor more: the inner tanh has the argument a·x + b, whose slope is a.",
        ),
        Mistake(
            _found(lambda x, z, *net: -_risen(x, *net, straight=0.0)[1].log()),
            "the straight part has a slope as well: e^s is missing.",
        ),
        Mistake(
            _found(lambda x, z, *net: -_risen(x, *net)[1].log().sum()),
            "you sum the log-slopes. Here each z is a number of its own, and so is its log-slope.",
        ),
        Mistake(
            lambda z, *net: (_risen(z, *net)[0], _risen(z, *net)[1].log()),
            "this is the way from x to z. You are given z.",
        ),
        Mistake(
            lambda z, *net: unmonotone(z, *net)[0],
            "this is x alone. Return the log-slope beside it.",
        ),
    ),
    variants=(_bracketed_newton, _widened_and_by_autograd, _unmonotone_loop),
)


# 6.11


def attention(x, Wq, Wk, Wv, first):
    start = first.expand(*x.shape[:-2], 1, -1)
    seen = torch.cat([start, x[..., :-1, :]], dim=-2)
    q, k, v = seen @ Wq, seen @ Wk, seen @ Wv

    scores = q @ k.mT / q.shape[-1] ** 0.5
    T = x.shape[-2]
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    scores = scores.masked_fill(later, -math.inf)
    return scores.softmax(dim=-1) @ v


def _attention_cases(rng):
    def case(T, C, d, E, *batch):
        x = rng.normal(size=(*batch, T, C))
        Wq, Wk, Wv = (rng.normal(size=(C, n)) for n in (d, d, E))
        return x, Wq, Wk, Wv, rng.normal(size=C)

    one = np.array([[1.0]])
    far = np.array([[1.0], [2.0], [900.0], [3.0]])
    return [
        (np.array([[2.0]]), one, one, one, np.array([0.5])),
        (np.array([[1.0], [2.0]]), one, one, one, np.array([0.5])),
        (np.array([[1.0], [2.0], [-1.0]]), one, 2 * one, one, np.array([0.5])),
        (far, one, one, one, np.array([0.5])),
        case(3, 2, 2, 2),
        case(4, 2, 3, 1),
        case(4, 3, 5, 2, 2),
        case(5, 2, 4, 3, 2, 2),
    ]


def _shifted(x, first):
    return torch.cat([first.expand(*x.shape[:-2], 1, -1), x[..., :-1, :]], -2)


def _unshifted(x, first):
    return x


def _softly(later=lambda ones: ones.triu(1), dim=-1):
    """The softmax over the scores that are not shut off."""

    def weigh(scores):
        shut = later(torch.ones_like(scores)) > 0
        return scores.masked_fill(shut, -math.inf).softmax(dim)

    return weigh


def _attending(weigh=None, scale=math.sqrt, see=_shifted, see_q=None, see_v=None):
    """Attention with one thing done in another way."""
    weigh = weigh or _softly()

    def answer(x, Wq, Wk, Wv, first):
        q, k = (see_q or see)(x, first) @ Wq, see(x, first) @ Wk
        v = (see_v or see)(x, first) @ Wv
        return weigh(q @ k.mT / scale(q.shape[-1])) @ v

    return answer


def _for_one(x, Wq, Wk, Wv, first):
    """Written for one sequence: it raises where a batch comes."""
    seen = torch.cat([first[None], x[:-1]])
    scores = (seen @ Wq) @ (seen @ Wk).T / math.sqrt(Wq.shape[1])
    return _softly()(scores) @ (seen @ Wv)


def _share(scores):
    return scores / scores.sum(-1, keepdim=True)


def _attention_loop(x, Wq, Wk, Wv, first):
    """Row by row: no mask at all, since no row is shown a later one."""
    rows = []
    for i in range(x.shape[-2]):
        seen = torch.cat([first.expand(*x.shape[:-2], 1, -1), x[..., : max(i, 0), :]], -2)
        q = seen[..., i : i + 1, :] @ Wq
        scores = q @ (seen @ Wk).mT / math.sqrt(Wq.shape[1])
        rows.append(scores.softmax(-1) @ (seen @ Wv))
    return torch.cat(rows, -2)


def _attention_by_torch(x, Wq, Wk, Wv, first):
    seen = _shifted(x, first)
    return torch.nn.functional.scaled_dot_product_attention(
        seen @ Wq, seen @ Wk, seen @ Wv, is_causal=True
    )


def _attention_numpy(x, Wq, Wk, Wv, first):
    x = np.asarray(x)
    seen = np.roll(x, 1, axis=-2)
    seen[..., 0, :] = first
    scores = seen @ Wq @ np.swapaxes(seen @ Wk, -1, -2) / np.sqrt(Wq.shape[1])
    scores += np.triu(np.full(scores.shape[-2:], -1e30), 1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ (seen @ Wv)


ATTENTION = Exercise(
    title="Attention that looks back",
    level="hard",
    kind="code",
    reference=attention,
    judge=Equal(cases=_attention_cases),
    insight="The mask is the one of MADE between two layers of places, ≥ with degrees 1 to T, and the shift makes it strict. Several such layers keep the property; only the first of them shifts.",
    hints=(
        "Shift first: row 1 of what the layer sees is `first`, row i is x_(i−1), and the last row of x is not seen at all. Queries, keys and values are all made of these shifted rows.",
        "`scores[i, j] = q_i · k_j / √d`. Set the scores with j > i to −∞ (`masked_fill` with `torch.ones(T, T, dtype=bool).triu(1)`), then take the softmax along the last dimension, which runs over j, and multiply by v.",
    ),
    why="e^(−∞) = 0, so a row's weights sum to 1 over j ≤ i alone. Of the shifted rows those are `first` and x_1, …, x_(i−1): row i of the output depends on x_<i.",
    mistakes=(
        Mistake(
            _attending(see=_unshifted),
            "row i of your output depends on x_i. The rows have to be shifted: `first` comes in front, and the last row of x drops out.",
        ),
        Mistake(
            _attending(see=lambda x, first: x.roll(1, -2)),
            "`roll` brings the last row to the front, so the first row of the output depends on the last of x. Put `first` there.",
        ),
        Mistake(
            _attending(
                see=lambda x, first: torch.cat(
                    [x[..., 1:, :], first.expand(*x.shape[:-2], 1, -1)], -2
                )
            ),
            "you shifted the other way: row i would see x of i + 1.",
        ),
        Mistake(
            _attending(see_q=_unshifted),
            "your queries are made of x itself: row i asks with x_i, and so it depends on it.",
        ),
        Mistake(
            _attending(see_v=_unshifted),
            "your values are made of x itself, so row i can take from x_i. All three are made of the shifted rows.",
        ),
        Mistake(
            _attending(lambda scores: scores.softmax(-1)),
            "the mask is missing: every row sees all rows, later ones too.",
        ),
        Mistake(
            _attending(_softly(lambda ones: ones.tril(-1))),
            "your mask shuts off the past. Row i may see the columns j ≤ i.",
        ),
        Mistake(
            _attending(_softly(lambda ones: ones.triu(0))),
            "your mask is strict: the first row has nothing to see, and its softmax is 0/0. The shift already keeps x_i away from row i.",
        ),
        Mistake(
            _attending(lambda scores: scores.tril().softmax(-1)),
            "you set the shut-off scores to 0, and e⁰ = 1 is a weight like any other. Which score has the weight 0?",
        ),
        Mistake(
            _attending(lambda s: (s * torch.full_like(s, -math.inf).triu(1)).softmax(-1)),
            "you multiply the scores by the mask. M of (6.15) is added: 0 leaves a score as it is, −∞ shuts it off.",
        ),
        Mistake(
            _for_one,
            "it fails as soon as a batch stands in front of T and C. `.T` turns all dimensions (`.mT` the last two); and before `torch.cat` along -2, expand `first` to `[..., 1, C]`.",
        ),
        Mistake(
            _attending(lambda scores: scores.softmax(-1).tril()),
            "you mask after the softmax, so the weights of a row no longer sum to 1; and what is left still depends, through the sum, on later rows.",
        ),
        Mistake(
            _attending(lambda scores: _share(scores.softmax(-1).tril())),
            "you mask after the softmax and divide again. On paper that is the same; but where a later score is large, all earlier weights are rounded to 0, and 0/0 came. Mask before.",
        ),
        Mistake(
            _attending(lambda scores: _share(scores.exp().tril())),
            "e^score is infinite for a large score. `softmax` subtracts the largest one first.",
            also=(
                _attending(
                    lambda scores: _share(scores.exp() * torch.ones_like(scores).tril())
                ),
                _attending(
                    lambda scores: _share(
                        scores.masked_fill(
                            torch.ones_like(scores).triu(1) > 0, -math.inf
                        ).exp()
                    )
                ),
            ),
        ),
        Mistake(
            _attending(_softly(dim=-2)),
            "your softmax runs along the wrong dimension: for each row i the weights over j sum to 1. That is the last one, -1, whatever stands in front.",
            also=(_attending(_softly(dim=1)),),
        ),
        Mistake(
            _attending(scale=lambda d: 1.0),
            "the scores are to be divided by √d.",
        ),
        Mistake(
            _attending(scale=float),
            "you divide by d; the scale is √d.",
        ),
        Mistake(
            lambda x, Wq, Wk, Wv, first: attention(x, Wk, Wq, Wv, first),
            "queries and keys are exchanged: the row i of the scores belongs to the query.",
        ),
        Mistake(
            lambda x, Wq, Wk, Wv, first: (
                _softly()(
                    _shifted(x, first)
                    @ Wq
                    @ (_shifted(x, first) @ Wk).mT
                    / math.sqrt(x.shape[-1])
                )
                @ (_shifted(x, first) @ Wv)
            ),
            "your √ has the width of x. d is how many numbers a query has.",
        ),
    ),
    variants=(_attention_loop, _attention_by_torch, _attention_numpy),
)


# 6.12


def bent_in_the_wrong_order():
    target = mf.data.Banana(sigma=2.0)
    generator = torch.Generator().manual_seed(1)
    data = target.sample((10_000,), generator=generator)
    torch.manual_seed(0)
    mixture = mf.MixtureCDF(components=4)
    # Without `order` the coordinates come as they stand.
    layer = mf.Autoregressive(2, mixture, hidden=(32, 32))
    units = mf.Standardize.of(data)
    flow = mf.Flow(mf.Compose(layer, units))
    mf.fit(flow, data, steps=400, lr=0.01)
    return flow


class Measure(NamedTuple):
    """The paired gap to the truth and its error; by how much a log-det is off; how much z₁ depends
    on x₂; and how far z₂ is from an affine function of x₂."""

    nats: float
    error: float
    off: float
    leak: float
    bend: float


_ENOUGH = 0.03  # nats
_NORMAL = 0.549  # what the best normal law leaves: ½ log 3
_FLOOR = 0.3354  # what affine conditionals leave in this order


def _gap(flow):
    if why := refused(flow):
        return why
    found = held_out(flow, mf.data.Banana(sigma=2.0))
    few = found.points[:20]

    def down(points):
        return flow.transform.inverse(points)[0]

    with torch.no_grad():
        # Along x₂, with x₁ as it is: the value in the middle against the mean of the ends.
        away = torch.tensor([0.0, 1.0]).to(few)
        middle = (down(few - away) + down(few + away)) / 2 - down(few)
    return Measure(
        found.nats,
        found.error,
        found.off,
        found.jacobians[:, 0, 1].abs().max().item(),
        middle[:, 1].abs().max().item(),
    )


def _gap_is_wrong(gap):
    if gap.leak > 1e-6 and gap.off <= 0.05 and math.isfinite(gap.nats):
        return "z₁ depends on x₂."
    return too_far(gap, _ENOUGH, "Another scalar map, more components, more steps?")


def _fitted(*layers, steps=300):
    data = mf.data.Banana(sigma=2.0).sample(
        (6000,), generator=torch.Generator().manual_seed(2)
    )
    flow = mf.Flow(mf.Compose(*layers, mf.Standardize.of(data)))
    mf.fit(flow, data, steps=steps, lr=0.01)
    return flow


def _layer(scalar_map, order=(0, 1)):
    return mf.Autoregressive(2, scalar_map, hidden=(32, 32), order=order)


def _mixture_by_a_loop():
    """A mixture, in float64, with a training loop of one's own."""
    torch.manual_seed(3)
    data = mf.data.Banana(sigma=2.0).sample((10_000,)).double()
    parts = _layer(mf.MixtureCDF(6)), mf.Standardize.of(data)
    flow = mf.Flow(mf.Compose(*parts)).double()
    return by_a_loop(flow, data, 400)


BENT = Exercise(
    title="A banana in the wrong order, and yet",
    level="hard",
    kind="explore",
    reference=bent_in_the_wrong_order,
    judge=Measured(_gap, _gap_is_wrong),
    insight="On fresh points your flow is within 0.03 nats of the truth, in an order that leaves every affine layer 0.335 nats short. The order decides what a scalar map has to do; it does not decide what can be done.",
    hints=(
        "Begin with `mf.Autoregressive(2, mf.Reversed(mf.Affine()), order=(0, 1))` and a `mf.Standardize.of(data)` after it, and see where it stops. Which shape has the law of x₂ for x₁ = 4? Which scalar maps "
        "can make two bumps of one?",
        "`mf.MixtureCDF(components=4)` in place of the affine map, `hidden=(32, 32)`, 10,000 points, 400 steps and lr=0.01 are enough as a rule; `mf.Monotone()` wants twice the steps and the rate. The gap is the mean of log p(x) − log q(x) on points that "
        "the flow has not seen.",
    ),
    why="Given x₁, x₂ has two bumps around ±2√x₁ where x₁ is large, and one where it is small. A mixture follows both, with parameters that depend on x₁: about 0.006 nats are left.",
    mistakes=(
        Mistake(
            lambda: mf.Flow(Unsigned(2)),
            "its log-density is not the one of its map. Is the sign of a log-det flipped, or one left out?",
            when=lambda gap: gap.off > 0.05,
        ),
        Mistake(
            lambda: _fitted(_layer(mf.Reversed(mf.Affine()), order=(1, 0))),
            "z₁ changes with x₂, so some layer of it takes x₂ first, or mixes the two. That is the easy order; here every layer has `order=(0, 1)`.",
            when=lambda gap: gap.leak > 1e-6,
        ),
        Mistake(
            lambda: mf.Flow(_layer(mf.MixtureCDF(4))),
            "one normal law would do better: it leaves 0.549. Did `mf.fit` run on this flow, with enough steps and a small enough lr?",
            when=lambda gap: _NORMAL + 0.02 < gap.nats < math.inf,
        ),
        Mistake(
            lambda: _fitted(_layer(mf.Reversed(mf.Affine()))),
            "given x₁, its z₂ is an affine function of x₂, so each of its conditionals is normal, whatever the training and however many layers there are. The floor of this order is 0.335: another scalar map is needed.",
            when=lambda gap: gap.bend < 1e-4,
        ),
        Mistake(
            lambda: _fitted(_layer(mf.Spline())),
            "it bends, but not enough yet: it leaves about what eight bins of a spline, or a short training, leave. Which scalar maps have bumps built in?",
            when=lambda gap: _ENOUGH < gap.nats < _FLOOR,
        ),
    ),
    variants=(_mixture_by_a_loop,),
)


EXERCISES = (
    MASKS,
    BY_HAND,
    CHOLESKY,
    COUNT,
    ONE_BY_ONE,
    BUG,
    JACOBI,
    MIXTURE,
    ORDERS,
    UNMONOTONE,
    ATTENTION,
    BENT,
)
