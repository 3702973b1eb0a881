"""Exercises of chapter 5: coupling flows.

The references have no annotations: they look like what the reader writes in the notebook.
"""
# mypy: allow-untyped-defs

import math
from typing import NamedTuple

import numpy as np
import torch

import minflow as mf
from minflow.exercises import Equal, Exercise, Measured, Mistake

from ._flows import Unsigned, by_a_loop, held_out, refused, too_far

NUMBER = 5


# 5.1


def who_sees_whom():
    def coupling(keep):  # 1 where x_i can depend on z_j
        sees = np.eye(4)
        for i in {0, 1, 2, 3} - set(keep):
            sees[i, keep] = 1
        return sees

    first, last = coupling([0, 1]), coupling([2, 3])
    swap = np.eye(4)[[0, 2, 1, 3]]
    A = first @ first @ first @ first
    B = last @ first
    C = first @ swap @ first

    def changed(flow):  # a row with more than its own z_i
        return ((flow > 0).sum(1) > 1).sum()

    fewest, flow = 1, first
    while (flow == 0).any():
        flow = (last if fewest % 2 else first) @ flow
        fewest += 1
    return (
        *(changed(flow) for flow in (A, B, C)),
        (A > 0).sum(),
        (B > 0).sum(),
        fewest,
    )


ROLES = Exercise(
    title="Who moves, and who sees whom?",
    level="easy",
    kind="predict",
    reference=who_sees_whom,
    judge=Equal(
        parts=(
            "what A changes",
            "what B changes",
            "what C changes",
            "A's entries",
            "B's entries",
            "the fewest couplings",
        ),
        tol=1e-3,
    ),
    insight="Depth does not help a flow whose halves never change roles: its first half stays the base's for "
    "ever. With roles that alternate, three layers are enough for every coordinate to see every other.",
    hints=(
        "Follow one coordinate at a time through the layers, and write down the set of the z that it has seen so "
        "far. A moved coordinate adds to its own set those of the kept ones.",
        "In B, after the first layer x₃ has seen {1, 2, 3} and x₄ {1, 2, 4}; the second layer moves 1 and 2. In C the "
        "places 1 and 2 hold, in the second layer, the coordinates 1 and 3. In row i of J as many entries can differ "
        "from zero as there are z that xᵢ has seen, itself among them.",
    ),
    why="A: 1 + 1 + 3 + 3 = 8 entries, since x₃ and x₄ never see each other. B: 4 + 4 + 3 + 3 = 14. A third coupling "
    "shows x₃ and x₄ the two that have seen all: 16. In C coordinate 1 is kept both times.",
    mistakes=(
        Mistake(
            (4, 4, 3, 8, 14, 3),
            "every layer of A keeps the coordinates 1 and 2. Which layer would ever move them?",
        ),
        Mistake(
            (2, 2, 3, 8, 14, 3),
            "in B each half is moved once.",
        ),
        Mistake(
            (2, 4, 4, 8, 14, 3),
            "in C coordinate 1 stands in the first two places both times. Nobody moves it.",
        ),
        Mistake(
            (2, 4, 2, 8, 14, 3),
            "the swap brings coordinate 2 to a place that the second layer of C moves.",
        ),
        Mistake(
            (2, 4, 3, 6, 14, 3),
            "x₁ = z₁ and x₂ = z₂ have a derivative too: it is 1, and not 0.",
        ),
        Mistake(
            (2, 4, 3, 4, 10, 3),
            "the diagonal of J counts: each xᵢ depends on its own zᵢ.",
        ),
        Mistake(
            (2, 4, 3, 10, 14, 3),
            "you let x₃ and x₄ see each other. A coupling moves each coordinate by itself, with numbers made of the "
            "kept half.",
        ),
        Mistake(
            (2, 4, 3, 16, 14, 3),
            "x₁ and x₂ see nobody but themselves in A, and x₃ and x₄ do not see each other.",
        ),
        Mistake(
            (2, 4, 3, 12, 14, 3),
            "in A the first half never sees the second: this block of J is zero in every layer.",
        ),
        Mistake(
            (2, 4, 3, 8, 16, 3),
            "in B x₃ and x₄ were moved first, when they had seen x₁ and x₂ alone. When do they see each other?",
        ),
        Mistake(
            (2, 4, 3, 8, 8, 3),
            "this is the Jacobian of one layer of B. In the product of both there are more.",
        ),
        Mistake(
            (2, 4, 3, 8, 12, 3),
            "in B the second layer shows to x₁ and x₂ all that x₃ and x₄ have seen, and not z₃ and z₄ alone. So x₁ "
            "and x₂ do see each other.",
        ),
        Mistake(
            (2, 4, 3, 8, 14, 2),
            "two couplings leave ∂x₃/∂z₄ and ∂x₄/∂z₃ at zero: that is flow B.",
        ),
        Mistake(
            (2, 4, 3, 8, 14, 4),
            "four are enough, and one of them is not needed. After the second layer, who has seen all four?",
        ),
    ),
    variants=(
        (2, 4, 3, 8, 14, 3),
        torch.tensor([2.0, 4.0, 3.0, 8.0, 14.0, 3.0]),
        [2, 4.0, np.int64(3), 8, 14, 3],
    ),
)


# 5.2


def coupling_by_hand():
    z = torch.tensor([0.5, -1.0, 4.0])
    t = torch.tensor([1.0, -3.0])
    s = torch.tensor([math.log(6), -math.log(2)])
    x = torch.cat([z[:1], z[1:] * s.exp() + t])
    log_det = s.sum()  # log 6 - log 2 = log 3
    return x[0], x[1], x[2], log_det, -log_det


_LOG3 = math.log(3)

BY_HAND = Exercise(
    title="An affine coupling by hand",
    level="easy",
    kind="derive",
    reference=coupling_by_hand,
    judge=Equal(
        parts=("x₁", "x₂", "x₃", "log_det", "the inverse's log_det"),
        tol=2e-3,
    ),
    insight="The network may be as steep as it likes: its derivatives stand below the diagonal, where no "
    "determinant looks.",
    hints=(
        "z₁ stays. Each of the others is first multiplied by its own eˢ, and then its t is added.",
        "e^(log 6) = 6 and e^(−log 2) = ½. J is triangular with 1, 6 and ½ on its diagonal. The way back divides by "
        "the same numbers.",
    ),
    why="x = (0.5, −1·6 + 1, 4·½ − 3) = (0.5, −5, −1), and log_det = log 6 − log 2 = log 3 = 1.0986. At x the inverse "
    "has minus that.",
    mistakes=(
        Mistake(
            (0.5, -5.0, -1.0, 3.0, 1 / 3),
            "this is the determinant itself; its log is asked for.",
        ),
        Mistake(
            (0.5, -5.0, -1.0, -_LOG3, _LOG3),
            "the two signs are exchanged: forward, from z to x, volumes are multiplied by 6·½.",
        ),
        Mistake(
            (0.5, -5.0, -1.0, _LOG3, _LOG3),
            "both log-dets are the same in your answer. What one way stretches, the other has to shrink.",
        ),
        Mistake(
            (0.5, -5.0, -1.0, _LOG3, 1 / _LOG3),
            "the determinants are reciprocals of each other; their logs have opposite signs.",
        ),
        Mistake(
            (0.5, -5.0, -1.0, math.log10(3), -math.log10(3)),
            "this is a logarithm to another base. Logs in this book are natural, to the base e: `math.log`.",
            also=((0.5, -5.0, -1.0, math.log2(3), -math.log2(3)),),
        ),
        Mistake(
            (0.5, -5.0, -1.0, math.log(12), -math.log(12)),
            "a sign got lost: s₃ = −log 2 shrinks, and so it takes away.",
        ),
        Mistake(
            (0.5, -5.0, -1.0, math.log(6), -math.log(6)),
            "this is s₂ alone. Both moved coordinates stretch or shrink.",
        ),
        Mistake(
            (0.5, -5.0, -1.0, -math.log(6) * math.log(2), math.log(6) * math.log(2)),
            "you multiplied the log-scales. Scales are multiplied, so their logs are added.",
        ),
        Mistake(
            (0.5, -5.0, -1.0, _LOG3 / 3, -_LOG3 / 3),
            "this is the mean over the coordinates; a log-det is a sum.",
            also=((0.5, -5.0, -1.0, _LOG3 / 2, -_LOG3 / 2),),
        ),
        Mistake(
            (
                0.5,
                -1 - math.log(6) + 1 + 1,
                -4 * math.log(2) - 3,
                _LOG3 + 1,
                -_LOG3 - 1,
            ),
            "s is the log of the scale: multiply by eˢ, not by s.",
            also=(
                (0.5, 1 - math.log(6), -4 * math.log(2) - 3, _LOG3, -_LOG3),
                (
                    0.5,
                    1 - math.log(6),
                    -4 * math.log(2) - 3,
                    math.log(math.log(6) * math.log(2)),
                    -math.log(math.log(6) * math.log(2)),
                ),
            ),
        ),
        Mistake(
            (0.5, 0.0, 0.5, _LOG3, -_LOG3),
            "you added t before scaling: (z + t)·eˢ. The map is z·eˢ + t.",
        ),
        Mistake(
            (0.5, math.log(6) - math.e, 4 * math.exp(-3) - math.log(2), -2.0, 2.0),
            "s and t are exchanged.",
        ),
        Mistake(
            (0.5, -1 / 3, 14.0, -_LOG3, _LOG3),
            "you went from x to z. The point given is z.",
        ),
        Mistake(
            (0.5, 5 / 6, 5.0, _LOG3, -_LOG3),
            "you divided by eˢ: s₂ = log 6 makes things six times as large, on the way from z to x.",
        ),
        Mistake(
            (0.5, -6.0, 2.0, _LOG3, -_LOG3),
            "t is missing: x = z·eˢ + t.",
        ),
    ),
    variants=(
        (0.5, -5, -1, 1.0986, -1.0986),
        torch.tensor([0.5, -5.0, -1.0, 1.0986, -1.0986]),
        [0.5, -5.0, -1.0, np.log(3), -np.log(3)],
    ),
)


# 5.3


def nice_everywhere():
    scales = torch.tensor([4.0, 0.5, 3.0])
    log_det = scales.log().sum()  # five couplings add 0
    base = -3 / 2 * math.log(2 * math.pi)  # at z = 0
    highest = base - log_det
    factor = 1  # no network can change the peak
    return log_det, highest, factor


_PEAK = -3 / 2 * math.log(2 * math.pi)

CONSTANT = Exercise(
    title="NICE has one determinant",
    level="easy",
    kind="derive",
    reference=nice_everywhere,
    judge=Equal(parts=("log_det", "the highest log-density", "the factor"), tol=3e-3),
    insight="An additive coupling carries a density to another place and leaves its heights alone. So NICE cannot "
    "have a sharp, high bump here and a flat, wide one there: all its heights are those of one normal law.",
    hints=(
        "What stands on the diagonal of the Jacobian of x_B = z_B + t(z_A)? And what is added when maps are composed?",
        "log q(x) = log N(z; 0, I) − log_det, with the same log_det at every point. So the highest point of q is f(0), and "
        "the log-density of the normal law in three dimensions is −(3/2)·log(2π) at its peak.",
    ),
    why="log_det = log 4 − log 2 + log 3 = log 6 = 1.792 everywhere. q(f(z)) = N(z; 0, I)/6 is highest at z = 0, where "
    "log q is −2.757 − 1.792 = −4.549. The networks decide where f(0) is, not how high q is there: the factor is 1.",
    mistakes=(
        Mistake(
            (0.0, _PEAK, 1),
            "the couplings have log-det 0, but the scaling has not.",
        ),
        Mistake(
            (5 * math.log(6), _PEAK - 5 * math.log(6), 1),
            "there is one scaling, and not one in each coupling.",
        ),
        Mistake(
            (6.0, _PEAK - math.log(6), 1),
            "6 is the determinant; its log is asked for.",
        ),
        Mistake(
            (math.log(7.5), _PEAK - math.log(7.5), 1),
            "you added the scales. A volume is multiplied by each of them.",
        ),
        Mistake(
            (math.log(24), _PEAK - math.log(24), 1),
            "the scale ½ shrinks: it divides the volume by 2.",
        ),
        Mistake(
            (math.log(12), _PEAK - math.log(12), 1),
            "the scale ½ is missing from your product.",
        ),
        Mistake(
            (-math.log(6), _PEAK + math.log(6), 1),
            "the sign is flipped: the flow stretches volumes by 6 on the way to x, so densities fall.",
        ),
        Mistake(
            (math.log(6), _PEAK + math.log(6), 1),
            "where volumes grow, densities fall: the same mass has more room.",
        ),
        Mistake(
            (math.log(6), _PEAK, 1),
            "this is the peak of the base. The scaling has spread the same mass over 6 times the volume.",
        ),
        Mistake(
            (math.log(6), -math.log(6), 1),
            "the base is not 1 at its peak: a normal density in three dimensions has (2π)^(−3/2) there.",
        ),
        Mistake(
            (math.log(6), math.exp(_PEAK) / 6, 1),
            "this is the density; its log is asked for.",
        ),
        Mistake(
            (math.log(6), _PEAK / 3 - math.log(6), 1),
            "this is the peak of one coordinate. The density of three is the product.",
        ),
        Mistake(
            (math.log(6), _PEAK - math.log(6), math.inf),
            "you think that a network can squeeze points together. Additive couplings only shift: whatever t is, "
            "log|det| = 0.",
        ),
        Mistake(
            (math.log(6), _PEAK - math.log(6), 6),
            "the factor 6 comes from the scales, which are fixed. What can the networks do?",
        ),
        Mistake(
            (math.log(6), _PEAK - math.log(6), 0),
            "0 would mean that the networks can make the density vanish. The factor by which they raise the peak is asked for; "
            "no change is the factor 1.",
        ),
    ),
    variants=(
        (1.79, -4.55, 1),
        torch.tensor([1.7918, -4.5486, 1.0]),
        [np.log(6), np.log(0.0105823), 1.0],
    ),
)


# 5.4


def coupling(z, net):
    d = z.shape[-1] // 2
    kept, moved = z[..., :d], z[..., d:]
    t, s = net(kept).chunk(2, dim=-1)
    x = torch.cat([kept, moved * s.exp() + t], dim=-1)
    return x, s.sum(-1)


class _Net:
    """A fixed network, for tensors and for arrays; it takes points of its own width alone."""

    def __init__(self, rng, takes, gives):
        self.takes = takes
        self.weight = rng.normal(size=(takes, gives)) / takes**0.5
        self.bias = 0.5 * rng.normal(size=gives)
        self.__name__ = f"(a network from {takes} to {gives})"

    def __call__(self, kept):
        width = kept.shape[-1] if kept.ndim else "one without a dimension"
        if width != self.takes:
            raise ValueError(
                f"the network is for points of size {self.takes}, and was given size {width}"
            )
        if isinstance(kept, np.ndarray):
            return np.tanh(kept @ self.weight + self.bias)
        weight, bias = (torch.as_tensor(a).to(kept) for a in (self.weight, self.bias))
        return torch.tanh(kept @ weight + bias)


def _coupling_cases(rng):
    def case(*shape):
        D = shape[-1]
        points = rng.normal(size=shape)
        return points, _Net(rng, D // 2, 2 * (D - D // 2))

    return [
        (np.array([1.0, 2.0]), _Net(rng, 1, 2)),
        (np.array([1.0, 2.0, -1.0]), _Net(rng, 1, 4)),
        case(4),
        case(3, 2),
        case(5, 3),
        case(3, 4),
        case(2, 3, 5),
        case(4, 2, 6),
    ]


def _taken(points, net):
    d = points.shape[-1] // 2
    return points[..., :d], points[..., d:], *net(points[..., :d]).chunk(2, -1)


def _coupled(moved=lambda old, t, s: old * s.exp() + t, log_det=lambda s: s.sum(-1)):
    """A coupling with one thing done in another way."""

    def answer(points, net):
        kept, old, t, s = _taken(points, net)
        return torch.cat([kept, moved(old, t, s)], -1), log_det(s)

    return answer


def _split_late(points, net, inverse=False):
    """The first half is the larger one: what `chunk` and (D + 1) // 2 do."""
    kept, old = points.chunk(2, -1)
    t, s = net(kept).chunk(2, -1)
    new = (old - t) * (-s).exp() if inverse else old * s.exp() + t
    return torch.cat([kept, new], -1), -s.sum(-1) if inverse else s.sum(-1)


def _second_half_kept(points, net):
    d = points.shape[-1] // 2
    kept, old = points[..., d:], points[..., :d]
    t, s = net(kept).chunk(2, -1)
    return torch.cat([old * s.exp() + t, kept], -1), s.sum(-1)


def _cut_in_the_batch(points, net, inverse=False):
    """`chunk` and `cat` without a dimension take the first."""
    kept, old, _, _ = _taken(points, net)
    t, s = net(kept).chunk(2)
    new = (old - t) * (-s).exp() if inverse else old * s.exp() + t
    return torch.cat([kept, new], -1), -s.sum(-1) if inverse else s.sum(-1)


def _joined_in_the_batch(points, net, inverse=False):
    kept, old, t, s = _taken(points, net)
    new = (old - t) * (-s).exp() if inverse else old * s.exp() + t
    return torch.cat([kept, new]), -s.sum(-1) if inverse else s.sum(-1)


def _in_turn(points, net, inverse=False):
    """t and s one after the other, number by number."""
    kept, old, _, _ = _taken(points, net)
    t, s = net(kept)[..., ::2], net(kept)[..., 1::2]
    new = (old - t) * (-s).exp() if inverse else old * s.exp() + t
    return torch.cat([kept, new], -1), -s.sum(-1) if inverse else s.sum(-1)


def _coupling_loop(z, net):
    """Point by point, number by number."""
    D = z.shape[-1]
    d = D // 2
    points, log_dets = [], []
    for point in z.reshape(-1, D):
        numbers = [float(n) for n in net(point[:d])]
        t, s = numbers[: D - d], numbers[D - d :]
        new = [
            float(z_b) * math.exp(s_b) + t_b
            for z_b, t_b, s_b in zip(point[d:], t, s, strict=True)
        ]
        points.append([float(z_a) for z_a in point[:d]] + new)
        log_dets.append(sum(s))
    return np.reshape(points, z.shape), np.reshape(log_dets, z.shape[:-1])


def _coupling_by_autograd(z, net):
    """The map alone; its log-det is found."""

    def f(point):
        d = len(point) // 2
        t, s = net(point[:d]).chunk(2)
        return torch.cat([point[:d], s.exp() * point[d:] + t])

    flat = z.reshape(-1, z.shape[-1])
    J = torch.stack([torch.autograd.functional.jacobian(f, point) for point in flat])
    x = torch.stack([f(point) for point in flat]).reshape(z.shape)
    return x, torch.linalg.slogdet(J).logabsdet.reshape(z.shape[:-1])


def _coupling_numpy(z, net):
    z = np.asarray(z)
    d = z.shape[-1] // 2
    t, s = np.split(net(z[..., :d]), 2, axis=-1)
    x = z.copy()
    x[..., d:] = np.exp(s) * z[..., d:] + t
    return x, s.sum(-1)


COUPLING = Exercise(
    title="A coupling for any dimension",
    level="medium",
    kind="code",
    reference=coupling,
    judge=Equal(cases=_coupling_cases, parts=("x", "log_det")),
    insight="Six lines, one network pass, and no determinant to compute. What the network is does not matter: it may be as "
    "deep and as strange as you like.",
    hints=(
        "d = D // 2 is the size of the half that is kept, so that D − d coordinates are moved, one more for odd D. The dots in "
        "`z[..., :d]` stand for any batch, or none.",
        "`t, s = net(kept).chunk(2, -1)` are two tensors of the shape of the moved half. Join the two halves with "
        "`torch.cat` along the last dimension, and sum s along it.",
    ),
    why="J is triangular in blocks, with the identity for the kept half and e^s on the rest of the diagonal. So log|det J| is the "
    "sum of s over the moved coordinates, a number for each point.",
    mistakes=(
        Mistake(
            _coupled(log_det=lambda s: s.sum()),
            "you sum over the batch too. Each point has a log-det of its own.",
        ),
        Mistake(
            _coupled(log_det=lambda s: s.sum(0)),
            "you sum along the first dimension, which is the batch. The coordinates are the last.",
        ),
        Mistake(
            _coupled(log_det=lambda s: s),
            "s has a number for each moved coordinate. The log-det is their sum, one number a point.",
        ),
        Mistake(
            _coupled(log_det=lambda s: s.squeeze(-1)),
            "`squeeze(-1)` gives one number a point only where a single coordinate is moved. For more, sum them.",
        ),
        Mistake(
            _coupled(log_det=lambda s: s[..., 0]),
            "your log-det has the first moved coordinate alone. All of them stretch.",
        ),
        Mistake(
            _coupled(log_det=lambda s: s.sum(-1, keepdim=True)),
            "log_det has a dimension of size 1 too many: one number a point.",
        ),
        Mistake(
            _coupled(log_det=lambda s: s.mean(-1)),
            "you take the mean over the coordinates; a log-det is the sum.",
        ),
        Mistake(
            _coupled(log_det=lambda s: -s.sum(-1)),
            "the sign of log_det is flipped: this one belongs to the inverse.",
        ),
        Mistake(
            _coupled(log_det=lambda s: s.sum(-1).exp()),
            "this is the determinant; its log is asked for, and it needs no exponential.",
            also=(_coupled(log_det=lambda s: s.exp().sum(-1)),),
        ),
        Mistake(
            _coupled(log_det=lambda s: s.abs().log().sum(-1)),
            "s is the log of the scale already. No further log is needed, and no absolute value.",
        ),
        Mistake(
            _coupled(log_det=lambda s: torch.zeros_like(s[..., 0])),
            "your log-det is 0: so it is for additive couplings. This one scales.",
        ),
        Mistake(
            _split_late,
            "for odd D your kept half is the larger one. It is the first D // 2 coordinates; `chunk` would round up.",
        ),
        Mistake(
            _second_half_kept,
            "you keep the second half and move the first. Here the first stays.",
        ),
        Mistake(
            _coupled(lambda old, t, s: old * t.exp() + s, lambda s: s.sum(-1)),
            "s and t are exchanged: the first half of what the network gives is t, the shift.",
            also=(
                lambda z, net: (
                    _coupled(lambda old, t, s: old * t.exp() + s)(z, net)[0],
                    _taken(z, net)[2].sum(-1),
                ),
            ),
        ),
        Mistake(
            _coupled(lambda old, t, s: (old + t) * s.exp()),
            "you add t before scaling. The map is z·eˢ + t.",
        ),
        Mistake(
            _coupled(lambda old, t, s: old * s + t),
            "you multiply by s; it is a log-scale, so multiply by eˢ.",
            also=(
                _coupled(lambda old, t, s: old * s + t, lambda s: s.abs().log().sum(-1)),
            ),
        ),
        Mistake(
            _coupled(lambda old, t, s: (old - t) * (-s).exp(), lambda s: -s.sum(-1)),
            "this is the inverse, from x to z. It is the next exercise.",
            also=(_coupled(lambda old, t, s: (old - t) * (-s).exp()),),
        ),
        Mistake(
            lambda z, net: (
                coupling(z, net)[0][..., z.shape[-1] // 2 :],
                coupling(z, net)[1],
            ),
            "x is the moved half alone. Put the kept half before it.",
        ),
        Mistake(
            lambda z, net: (
                torch.cat(
                    [
                        coupling(z, net)[0][..., z.shape[-1] // 2 :],
                        z[..., : z.shape[-1] // 2],
                    ],
                    -1,
                ),
                coupling(z, net)[1],
            ),
            "the halves are joined in the wrong order: the kept half comes first, as in z.",
        ),
        Mistake(
            lambda z, net: net(z),
            "the network is to be shown the kept half alone. Were it shown all of z, the Jacobian would not be triangular.",
        ),
        Mistake(
            lambda z, net: coupling(z, net)[0],
            "this is x alone. Return its log-det beside it.",
        ),
        Mistake(
            _cut_in_the_batch,
            "`chunk(2)` cuts along the first dimension, which is the batch. Name the last one: `chunk(2, -1)`.",
        ),
        Mistake(
            _joined_in_the_batch,
            "`torch.cat` joins along the first dimension, which is the batch, unless you name the last one: `torch.cat([...], -1)`.",
        ),
        Mistake(
            _in_turn,
            "you take t and s in turn. The network gives first all of t, then all of s.",
        ),
    ),
    variants=(_coupling_loop, _coupling_by_autograd, _coupling_numpy),
)


# 5.5


def uncouple(x, net):
    d = x.shape[-1] // 2
    kept, moved = x[..., :d], x[..., d:]
    t, s = net(kept).chunk(2, dim=-1)  # kept is z_A, too
    z = torch.cat([kept, (moved - t) * (-s).exp()], dim=-1)
    return z, -s.sum(-1)


def _uncoupled(
    moved=lambda old, t, s: (old - t) * (-s).exp(), log_det=lambda s: -s.sum(-1)
):
    return _coupled(moved, log_det)


def _net_of_moved(x, net):
    d = x.shape[-1] // 2
    kept, old = x[..., :d], x[..., d:]
    t, s = net(old).chunk(2, -1)
    return torch.cat([kept, (old - t) * (-s).exp()], -1), -s.sum(-1)


def _uncouple_loop(x, net):
    """Point by point, and by search: halving for each moved coordinate."""
    D = x.shape[-1]
    d = D // 2
    points, log_dets = [], []
    for point in x.reshape(-1, D):
        numbers = [float(n) for n in net(point[:d])]
        found = []
        for x_b, t, s in zip(point[d:], numbers[: D - d], numbers[D - d :], strict=True):
            low, high = -1e3, 1e3
            for _ in range(80):
                middle = (low + high) / 2
                below = middle * math.exp(s) + t < float(x_b)
                low, high = (middle, high) if below else (low, middle)
            found.append(low)
        points.append([float(x_a) for x_a in point[:d]] + found)
        log_dets.append(-sum(numbers[D - d :]))
    return np.reshape(points, x.shape), np.reshape(log_dets, x.shape[:-1])


def _uncouple_in_place(x, net):
    d = x.shape[-1] // 2
    t, s = net(x[..., :d]).tensor_split(2, -1)
    z = x.clone()
    z[..., d:] -= t
    z[..., d:] /= s.exp()
    return z, s.neg().sum(-1)


def _uncouple_numpy(x, net):
    x = np.asarray(x)
    d = x.shape[-1] // 2
    t, s = np.split(net(x[..., :d]), 2, axis=-1)
    z = np.concatenate([x[..., :d], (x[..., d:] - t) / np.exp(s)], -1)
    return z, -np.sum(s, -1)


UNCOUPLE = Exercise(
    title="Undo a coupling",
    level="medium",
    kind="code",
    reference=uncouple,
    judge=Equal(cases=_coupling_cases, parts=("z", "log_det")),
    insight="The network is never inverted, only asked once more, with the same numbers: x_A is z_A. So both ways cost "
    "one pass.",
    hints=(
        "The kept half of x is that of z. So the network can be asked for the same t and s as on the way to x.",
        "Solve x = z·eˢ + t for z: first subtract, then divide. The log-det belongs to this map, from x to z.",
    ),
    why="z_B = (x_B − t)·e^(−s), with the same t and s, since x_A = z_A. Each moved coordinate is divided by eˢ, so the "
    "log-det is −Σ s.",
    mistakes=(
        Mistake(
            _uncoupled(lambda old, t, s: old * (-s).exp() - t),
            "you divide before you subtract. What was done last, adding t, is undone first.",
        ),
        Mistake(
            _uncoupled(log_det=lambda s: s.sum(-1)),
            "log_det has the sign of the way forward. It always belongs to the map just applied.",
        ),
        Mistake(
            _net_of_moved,
            "you ask the network about the half that is moved. It made t and s of the kept half, which comes first.",
        ),
        Mistake(
            _split_late,
            "for odd D your kept half is the larger one. It is the first D // 2 coordinates; `chunk` would round up.",
            also=(lambda x, net: _split_late(x, net, inverse=True),),
        ),
        Mistake(
            coupling,
            "you undo nothing: this is the coupling once more.",
        ),
        Mistake(
            _uncoupled(lambda old, t, s: (old - t) * s.exp()),
            "you subtract t, and then multiply by eˢ once more. Divide by it.",
            also=(
                _uncoupled(lambda old, t, s: (old - t) * s.exp(), lambda s: s.sum(-1)),
            ),
        ),
        Mistake(
            _uncoupled(lambda old, t, s: (old + t) * (-s).exp()),
            "t is added once more; it has to be taken away.",
        ),
        Mistake(
            _uncoupled(lambda old, t, s: (old - t) / s),
            "you divide by s; the scale is eˢ.",
        ),
        Mistake(
            _uncoupled(lambda old, t, s: (old - s) * (-t).exp()),
            "s and t are exchanged: the first half of what the network gives is t.",
            also=(
                lambda x, net: (
                    _uncoupled(lambda old, t, s: (old - s) * (-t).exp())(x, net)[0],
                    -_taken(x, net)[2].sum(-1),
                ),
            ),
        ),
        Mistake(
            _uncoupled(log_det=lambda s: -s.sum()),
            "you sum over the batch too. Each point has a log-det of its own.",
        ),
        Mistake(
            _uncoupled(log_det=lambda s: -s),
            "one number a point is asked for: sum over the moved coordinates.",
        ),
        Mistake(
            _uncoupled(log_det=lambda s: -s.squeeze(-1)),
            "`squeeze(-1)` gives one number a point only where a single coordinate is moved. For more, sum them.",
        ),
        Mistake(
            _uncoupled(log_det=lambda s: -s.mean(-1)),
            "you take the mean over the coordinates; a log-det is the sum.",
        ),
        Mistake(
            _uncoupled(log_det=lambda s: 1 / s.sum(-1)),
            "the determinant of the inverse is the reciprocal; its log is minus the log, not one over it.",
        ),
        Mistake(
            lambda x, net: uncouple(x, net)[0],
            "this is z alone. Return its log-det beside it.",
        ),
        Mistake(
            _uncoupled(lambda old, t, s: old - t * (-s).exp()),
            "you divide t alone by eˢ. The whole of x − t is to be divided: parentheses.",
        ),
        Mistake(
            _uncoupled(log_det=lambda s: -s.sum(-1, keepdim=True)),
            "log_det has a dimension of size 1 too many: one number a point.",
        ),
        Mistake(
            _uncoupled(log_det=lambda s: (-s.sum(-1)).exp()),
            "this is the determinant; its log is asked for, and it needs no exponential.",
        ),
        Mistake(
            _uncoupled(log_det=lambda s: torch.zeros_like(s[..., 0])),
            "your log-det is 0: so it is for additive couplings. This one scales.",
        ),
        Mistake(
            lambda x, net: _cut_in_the_batch(x, net, inverse=True),
            "`chunk(2)` cuts along the first dimension, which is the batch. Name the last one: `chunk(2, -1)`.",
        ),
        Mistake(
            lambda x, net: _joined_in_the_batch(x, net, inverse=True),
            "`torch.cat` joins along the first dimension, which is the batch, unless you name the last one: `torch.cat([...], -1)`.",
        ),
    ),
    variants=(_uncouple_loop, _uncouple_in_place, _uncouple_numpy),
)


# 5.6


def mended_layer(z, net, flip):
    d = z.shape[-1] // 2
    z1, z2 = z[..., :d], z[..., d:]
    if flip:
        z1, z2 = z2, z1
    t, s = net(z1).chunk(2, dim=-1)
    z2 = z2 * s.exp() + t
    if flip:
        z1, z2 = z2, z1
    x = torch.cat([z1, z2], dim=-1)
    log_det = s.sum(-1)
    return x, log_det


def _layer(split, log_det=lambda s: s.sum(-1), back=True):
    """The layer with a way to split and a way to sum."""

    def answer(z, net, flip):
        z1, z2 = split(z, flip)
        z1, z2 = (z2, z1) if flip else (z1, z2)
        t, s = net(z1).chunk(2, -1)
        z2 = z2 * s.exp() + t
        z1, z2 = (z2, z1) if flip and back else (z1, z2)
        return torch.cat([z1, z2], -1), log_det(s)

    return answer


def _two_columns(z, flip):
    return z[..., :1], z[..., 1:2]


def _first_column(z, flip):
    return z[..., :1], z[..., 1:]


def _halves(z, flip):
    d = z.shape[-1] // 2
    return z[..., :d], z[..., d:]


def _rounded_up(z, flip):
    d = (z.shape[-1] + 1) // 2
    return z[..., :d], z[..., d:]


def _by_size_of_kept(z, flip):
    D = z.shape[-1]
    d = D - D // 2 if flip else D // 2
    return z[..., :d], z[..., d:]


def _twice_the_half(z, flip):
    d = z.shape[-1] // 2
    return z[..., :d], z[..., d : 2 * d]


broken_layer = _layer(_two_columns, lambda s: s[..., 0])


def _layer_cases(rng):
    def case(flip, *shape):
        D = shape[-1]
        takes = D - D // 2 if flip else D // 2
        return rng.normal(size=shape), _Net(rng, takes, 2 * (D - takes)), flip

    return [
        (np.array([1.0, 2.0]), _Net(rng, 1, 2), False),
        (np.array([1.0, 2.0]), _Net(rng, 1, 2), True),
        (np.array([1.0, 2.0, -1.0]), _Net(rng, 1, 4), False),
        case(True, 3),
        case(False, 4),
        case(True, 4),
        case(False, 3, 2),
        case(False, 5, 3),
        case(True, 2, 3, 5),
        case(False, 4, 6),
    ]


def _layer_by_mask(z, net, flip):
    """Another way to the same: indices, and an assignment."""
    D = z.shape[-1]
    index = torch.arange(D)
    kept = index >= D // 2 if flip else index < D // 2
    t, s = net(z[..., kept]).chunk(2, -1)
    x = z.clone()
    x[..., ~kept] = z[..., ~kept] * s.exp() + t
    return x, s.sum(-1)


def _layer_numpy(z, net, flip):
    if not flip:
        return _coupling_numpy(z, net)
    z = np.asarray(z)
    d = z.shape[-1] // 2
    t, s = np.split(net(z[..., d:]), 2, axis=-1)
    return np.concatenate([np.exp(s) * z[..., :d] + t, z[..., d:]], -1), s.sum(-1)


BUG = Exercise(
    title="It works on the plane, and nowhere else",
    level="medium",
    kind="debug",
    reference=mended_layer,
    judge=Equal(cases=_layer_cases, parts=("x", "log_det")),
    insight="In two dimensions a half is one coordinate, a sum over it is its only term, and any index is right. Test a "
    "layer at D = 3 and 5 as well, before you plot moons with it.",
    hints=(
        "Run it at D = 3, with any small network from 1 to 4 numbers, and change the last entry of z. Does x change? "
        "Then compare log_det with autograd.",
        "z1 and z2 must hold all D coordinates between them: the first D // 2, and the rest. And log_det must see each of "
        "the scales in s.",
    ),
    why="`z[..., 1:2]` is the second coordinate, not the second half; and `s[..., 0]` is the first of the D − d log-scales. "
    "Where D = 2 there is no difference.",
    mistakes=(
        Mistake(broken_layer, "this is the code as it was."),
        Mistake(
            _layer(_halves, lambda s: s[..., 0]),
            "one bug is left: at D = 4 log_det is not what autograd finds. x is right now.",
        ),
        Mistake(
            _layer(_two_columns),
            "log_det sums all scales now. The other bug is left: at D = 3, on which entries of z does x depend?",
        ),
        Mistake(
            _layer(_first_column),
            "z1 is one coordinate whatever D is. It is meant to be the first half, D // 2 coordinates.",
            also=(_layer(_first_column, lambda s: s[..., 0]),),
        ),
        Mistake(
            _layer(_rounded_up),
            "for odd D the first half is meant to be the smaller one, D // 2 coordinates.",
            also=(_layer(_rounded_up, lambda s: s[..., 0]),),
        ),
        Mistake(
            _layer(_by_size_of_kept),
            "with flip and odd D you move the border between the halves. The halves stay as they are; only their roles change.",
        ),
        Mistake(
            _layer(_twice_the_half),
            "for odd D the last coordinate belongs to neither half. The second half is all the rest.",
            also=(_layer(_twice_the_half, lambda s: s[..., 0]),),
        ),
        Mistake(
            _layer(_halves, back=False),
            "with flip the halves come out in the wrong order: change them back before you join them.",
        ),
        Mistake(
            _layer(_halves, lambda s: s.squeeze(-1)),
            "`squeeze(-1)` works where one coordinate is moved, so this is the same bug in other clothes. Sum them.",
        ),
        Mistake(
            _layer(_halves, lambda s: s),
            "s has a number for each moved coordinate; log_det has one for each point.",
        ),
        Mistake(
            _layer(_halves, lambda s: s.mean(-1)),
            "the mean is the sum where one coordinate is moved, and in no other case.",
        ),
        Mistake(
            _layer(_halves, lambda s: s.sum()),
            "you sum over the batch too. Each point has a log-det of its own.",
        ),
        Mistake(
            lambda z, net, flip: coupling(z, net),
            "`flip` has no effect in your layer: with it the second half is kept, and the first is moved.",
        ),
    ),
    variants=(_layer_by_mask, _layer_numpy),
)


# 5.7


def conv1x1(z, M):
    x = torch.einsum("ij,...jhw->...ihw", M, z)
    height, width = z.shape[-2:]
    one_pixel = torch.linalg.slogdet(M).logabsdet
    log_det = height * width * one_pixel
    return x, log_det.expand(z.shape[:-3])


def _image_cases(rng):
    def case(*shape):
        return rng.normal(size=shape), rng.normal(size=(shape[-3], shape[-3]))

    mirror = np.array([[0.0, 2.0], [1.0, 1.0]])  # its determinant is -2
    return [
        (np.array([[[1.0]], [[2.0]]]), np.array([[2.0, 1.0], [0.0, 3.0]])),
        (np.array([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]]), mirror),
        case(3, 2, 2),
        case(2, 1, 2, 3),
        case(4, 3, 3, 2),
        case(2, 3, 2, 4, 2),
        (rng.normal(size=(40, 1, 2)), 1e-9 * rng.normal(size=(40, 40))),
    ]


def _log_det_as(change):
    """The right image, and another number in place of its log-det."""

    def answer(z, M):
        x, log_det = conv1x1(z, M)
        return x, change(log_det, z, M)

    return answer


def _each(z, number):
    return number.expand(z.shape[:-3])


def _conv_by_torch(z, M):
    images = z.reshape(-1, *z.shape[-3:])
    x = torch.nn.functional.conv2d(images, M[:, :, None, None])
    one = torch.linalg.svdvals(M).log().sum()
    pixels = z.shape[-1] * z.shape[-2]
    return x.reshape(z.shape), one.repeat(len(images)).reshape(z.shape[:-3]) * pixels


def _conv_as_one_matrix(z, M):
    """An image as one long vector, and one large matrix for it."""
    pixels = z.shape[-2] * z.shape[-1]
    large = torch.kron(M, torch.eye(pixels, dtype=M.dtype))
    x = z.flatten(-3) @ large.mT
    return x.reshape(z.shape), _each(z, torch.linalg.slogdet(large).logabsdet)


def _conv_numpy(z, M):
    z, M = np.asarray(z), np.asarray(M)
    x = np.moveaxis(np.moveaxis(z, -3, -1) @ M.T, -1, -3)
    log_det = z.shape[-1] * z.shape[-2] * np.linalg.slogdet(M)[1]
    return x, np.full(z.shape[:-3], log_det)


CONV = Exercise(
    title="A convolution of one pixel",
    level="medium",
    kind="code",
    reference=conv1x1,
    judge=Equal(cases=_image_cases, parts=("x", "log_det")),
    insight="One small determinant, counted once for every pixel. A full matrix for a picture of 32 × 32 pixels and 12 channels would "
    "have 12,288 rows; this one has 12.",
    hints=(
        "The same matrix M maps the C channels of each pixel, and no pixel sees another. What does the large Jacobian of a whole "
        "image look like, if you list the numbers pixel by pixel?",
        "It has M once for each pixel on its diagonal. Use `torch.linalg.slogdet(M).logabsdet`, since determinants may be negative or "
        "too small for a float, and give each image of the batch its number: `expand(z.shape[:-3])`.",
    ),
    why="J is block diagonal with one M for each of the H·W pixels, so log|det J| = H·W·log|det M|. It is the same for every image.",
    mistakes=(
        Mistake(
            _log_det_as(lambda _, z, M: _each(z, torch.linalg.slogdet(M).logabsdet)),
            "this is the log-det of one pixel. Every pixel is mapped by M.",
        ),
        Mistake(
            _log_det_as(lambda right, z, M: right * z.shape[-3]),
            "you count the channels too. log|det M| already speaks for all channels of a pixel.",
        ),
        Mistake(
            _log_det_as(
                lambda _, z, M: _each(z, z.shape[-2] * torch.linalg.slogdet(M).logabsdet)
            ),
            "you count one pixel for each row of the image. Both the height and the width matter.",
            also=(
                _log_det_as(
                    lambda _, z, M: _each(
                        z, z.shape[-1] * torch.linalg.slogdet(M).logabsdet
                    )
                ),
            ),
        ),
        Mistake(
            lambda z, M: conv1x1(z, M.mT),
            "you multiply by Mᵀ. The log-det cannot show that, since det M = det Mᵀ; but row i of M makes channel i of x.",
        ),
        Mistake(
            _log_det_as(
                lambda _, z, M: _each(
                    z, z.shape[-2] * z.shape[-1] * torch.linalg.det(M).log()
                )
            ),
            "where det M is negative, its log is NaN. The absolute value is missing.",
            also=(
                _log_det_as(
                    lambda _, z, M: _each(z, z.shape[-2] * z.shape[-1] * torch.logdet(M))
                ),
            ),
        ),
        Mistake(
            _log_det_as(
                lambda _, z, M: _each(
                    z, z.shape[-2] * z.shape[-1] * torch.linalg.det(M).abs().log()
                )
            ),
            "with 40 channels the determinant is too small for a float and became 0. Use `slogdet`.",
        ),
        Mistake(
            _log_det_as(
                lambda _, z, M: (
                    z.shape[-2] * z.shape[-1] * torch.linalg.slogdet(M).logabsdet
                )
            ),
            "each image of the batch has a log_det of its own: the shape is `z.shape[:-3]`. The number is right.",
        ),
        Mistake(
            _log_det_as(lambda right, z, M: right.sum()),
            "you sum over the batch. Each image has a log-det of its own.",
            also=(_log_det_as(lambda right, z, M: right * right.numel()),),
        ),
        Mistake(
            _log_det_as(lambda right, z, M: -right),
            "the sign of log_det is flipped: this one belongs to the way back.",
        ),
        Mistake(
            _log_det_as(
                lambda _, z, M: _each(
                    z, z.shape[-2] * z.shape[-1] * M.diagonal().abs().log().sum()
                )
            ),
            "you multiply the diagonal of M. That is its determinant only if M is triangular.",
        ),
        Mistake(
            _log_det_as(
                lambda _, z, M: _each(
                    z, (z.shape[-2] * z.shape[-1] * torch.linalg.det(M)).abs().log()
                )
            ),
            "the factor H·W stands inside your log. The determinant of the whole is a power, det M to the H·W, so its log is a "
            "multiple.",
        ),
        Mistake(
            _log_det_as(
                lambda _, z, M: torch.linalg.slogdet(M).logabsdet.expand(
                    *z.shape[:-3], *z.shape[-2:]
                )
            ),
            "you have a number for each pixel. Sum them: one number an image.",
        ),
        Mistake(
            lambda z, M: conv1x1(z, M)[0],
            "this is x alone. Return its log-det beside it.",
        ),
        Mistake(
            lambda z, M: (conv1x1(z, M)[0], torch.linalg.slogdet(M)),
            "`slogdet` gives two things, the sign and the log. Take `.logabsdet`, once for every pixel.",
        ),
        Mistake(
            lambda z, M: (M @ z, conv1x1(z, M)[1]),
            "`M @ z` takes the rows and columns of the picture for a matrix. The channels are the third dimension from the end.",
        ),
    ),
    variants=(_conv_by_torch, _conv_as_one_matrix, _conv_numpy),
)


# 5.8


def banana_from_the_wrong_end():
    base = math.log(2 * math.pi * math.e)  # two standard normals
    entropy = base + math.log(2)  # (5.8): the log-det is log 2
    t_at_3 = 0  # x2 and -x2 are equally likely, whatever x1 is
    s1 = math.sqrt(1 + 3 * 2**4 / 16)  # E[x1²] = 1 + E[x2⁴]/16
    s2 = 2  # E[x2²] = 4
    # With these, each square in -log q has the mean 1/2.
    cross_entropy = base + math.log(s1 * s2)
    return entropy, t_at_3, s1, s2, cross_entropy - entropy


_H = 1 + math.log(2 * math.pi)
_LOG2 = math.log(2)
_OF_BANANA = _H + _LOG2

BANANA = Exercise(
    title="A banana from the wrong end",
    level="medium",
    kind="derive",
    reference=banana_from_the_wrong_end,
    judge=Equal(
        parts=("the banana's entropy", "t(3)", "S₁", "S₂", "the divergence"),
        tol=1e-3,
    ),
    insight="With x₂ kept, these two layers are exact. With x₁ kept, the best of them is one round normal law, log 2 nats away, "
    "and the network has nothing to do: given x₁, the law of x₂ has a width, and even a number of bumps, that depends on x₁, and a shift gives neither. "
    "A flow whose roles alternate need not know the right way round.",
    hints=(
        "KL(p‖q) = E_p[−log q] − H(p), and only the first part depends on the flow. Write −log q(x) out, with S₁, S₂ and t, and take its mean "
        "under the banana. For the entropy: that of x is that of z plus the mean log-det.",
        "−log q = log(2π) + log(S₁S₂) + x₁²/(2S₁²) + (x₂ − t(x₁))²/(2S₂²). The best t(x₁) is the mean of x₂ for this x₁; what is it, if x₂ and "
        "−x₂ are equally likely? And log S + c/(2S²) is smallest at S² = c, where c is the mean of a square. For x₁ = x₂²/4 + noise, E[x₁²] has "
        "E[x₂⁴] in it.",
    ),
    why="H(p) = log(2πe) + log 2 = 3.531. t = 0 by symmetry, S₂² = E[x₂²] = 4 and S₁² = E[x₁²] = 1 + 48/16 = 4. So E_p[−log q] = "
    "log(2πe) + log 4 = 4.224, which is log 2 = 0.693 more than H(p).",
    mistakes=(
        Mistake(
            (_OF_BANANA, 2.25, 2, 2, _LOG2),
            "2.25 is the mean of x₁ where x₂ = 3. Here x₁ is kept, and x₂ is shifted: what is the mean of x₂ where x₁ = 3?",
        ),
        Mistake(
            (_OF_BANANA, 2 * math.sqrt(3), 2, 2, _LOG2),
            "where x₁ = 3, x₂ has two bumps, around ±2√3. One shift has to serve both of them.",
            also=((_OF_BANANA, -2 * math.sqrt(3), 2, 2, _LOG2),),
        ),
        Mistake(
            (_OF_BANANA, 0, math.sqrt(3), 2, math.log(3) / 2 + 1 / 6),
            "√3 is the standard deviation of x₁. But its mean is 1, and no layer of this flow moves the mean of x₁ away from 0: "
            "the mean of the square x₁² counts, and its two parts are E[x₂⁴]/16 and 1.",
            also=(
                (_OF_BANANA, 0, math.sqrt(3), 2, math.log(3) / 2),
                (_OF_BANANA, 0, math.sqrt(3), 2, _LOG2),
            ),
        ),
        Mistake(
            (_OF_BANANA, 0, 4, 2, _LOG2),
            "this is S₁², the mean of a square. The scale is its root.",
            also=((_OF_BANANA, 0, 4, 2, 2 * _LOG2 - 3 / 8),),
        ),
        Mistake(
            (_OF_BANANA, 0, 3, 2, _LOG2),
            "3 is the variance of x₁. A scale is no variance; and the mean of x₁, which is 1 and not 0, counts too.",
        ),
        Mistake(
            (_OF_BANANA, 0, 1, 2, _LOG2),
            "1 is the deviation of x₁ for a given x₂. Here x₁ comes first, with all its width.",
            also=((_OF_BANANA, 0, 1, 2, 3 / 2),),
        ),
        Mistake(
            (_OF_BANANA, 0, math.sqrt(2), 2, _LOG2),
            "the fourth moment of a normal law is 3σ⁴, and not σ⁴.",
        ),
        Mistake(
            (_OF_BANANA, 0, 2, 4, _LOG2),
            "4 is the variance of x₂. A scale multiplies by the standard deviation.",
        ),
        Mistake(
            (_OF_BANANA, 0, 2, 1, _LOG2),
            "no shift makes x₂ wider or narrower, so S₂ has to make it as wide as it is.",
        ),
        Mistake(
            (_OF_BANANA, 0, 2, 2, 0),
            "0 is what the flow of (5.8) reaches. With x₁ kept, x₁ is normal by itself, and the banana's is not.",
        ),
        Mistake(
            (_OF_BANANA, 0, 2, 2, -_LOG2),
            "a divergence is never negative: it is E_p[−log q] minus the entropy, in this order.",
        ),
        Mistake(
            (_OF_BANANA, 0, 2, 2, _H + 2 * _LOG2),
            "this is E_p[−log q]. Take the entropy of the banana away.",
        ),
        Mistake(
            (_OF_BANANA, 0, 2, 2, 2 * _LOG2),
            "this is the log-det of the flow. The divergence is by how much E_p[−log q] exceeds the banana's entropy.",
        ),
        Mistake(
            (_OF_BANANA, 0, 2, 2, 1),
            "this is in bits, with logarithms to the base 2. Natural ones give nats.",
        ),
        Mistake(
            (_LOG2, 0, 2, 2, _LOG2),
            "this is the log-det. The entropy of the base, log(2πe) for two coordinates, comes before it.",
        ),
        Mistake(
            (_H, 0, 2, 2, _LOG2),
            "this is the entropy of the base. The scale 2 of (5.8) spreads it out: its log-det is missing.",
        ),
        Mistake(
            (_H - _LOG2, 0, 2, 2, _LOG2),
            "the flow of (5.8) stretches, so the entropy grows: the sign of the log-det is flipped.",
        ),
        Mistake(
            (_H / 2 + _LOG2, 0, 2, 2, _LOG2),
            "½·log(2πe) is the entropy of one standard normal. The base has two.",
        ),
        Mistake(
            (math.log(2 * math.pi) + _LOG2, 0, 2, 2, _LOG2),
            "log(2π) is minus the base's log-density at its peak. The entropy is the mean of −log q, with e in it: log(2πe).",
        ),
    ),
    variants=(
        (3.531, 0, 2, 2, 0.693),
        torch.tensor([3.531, 0.0, 2.0, 2.0, 0.6931]),
        [mf.data.Banana(2.0).entropy(), 0.0, np.float64(2), 4**0.5, np.log(2)],
    ),
)


# 5.9


def one_bin():
    x0, w = 1, 2  # from x = 1 to 3
    z0, h = -1, 4  # from z = -1 to 3
    d0, d1, s = 4, 1, h / w

    def at(xi):
        u = s + (d0 + d1 - 2 * s) * xi * (1 - xi)
        share = (s * xi**2 + d0 * xi * (1 - xi)) / u
        top = d1 * xi**2 + d0 * (1 - xi) ** 2
        top = top + 2 * s * xi * (1 - xi)
        return z0 + h * share, s**2 * top / u**2

    z, slope = at(1 / 2)
    share = (0.6 - z0) / h  # 0.4
    b = d0 - share * (d0 + d1 - 2 * s)
    a = s - b  # -1.6 xi² + 3.6 xi - 0.8 = 0
    root = math.sqrt(b**2 + 4 * a * s * share)
    xi = 2 * s * share / (b + root)
    return z, slope, x0 + w * xi


BIN = Exercise(
    title="One bin of a spline, by hand",
    level="medium",
    kind="derive",
    reference=one_bin,
    judge=Equal(parts=("z", "dz/dx", "x"), tol=5e-3),
    insight="Three slopes make a bin: d₀ where it begins, s on the whole, d₁ where it ends. Here it begins steep, so at the middle of its width it has "
    "risen by two thirds of its height.",
    hints=(
        "Compute w, h and s = h/w first. x = 2 is the middle: ξ = ½. Since d₀ + d₁ − 2s = 1, u(ξ) = 2 + ξ(1 − ξ).",
        "For the way back, (z − z₀)/h = 0.4 has to be (sξ² + d₀ξ(1 − ξ))/u(ξ). Multiply by u: a quadratic in ξ, and one of its roots lies between 0 "
        "and 1. The x that belongs to it is x₀ + w·ξ.",
    ),
    why="At ξ = ½: u = 2.25, z = −1 + 4·(0.5 + 1)/2.25 = 5/3 and dz/dx = 4·(0.25 + 1 + 1)/2.25² = 16/9. For z = 0.6 the quadratic is 1.6ξ² − 3.6ξ + 0.8 = 0, "
    "with the roots ¼ and 2; so x = 1.5.",
    mistakes=(
        Mistake(
            (-1 + 1.5 / 2.25, 16 / 9, 1.5),
            "the fraction says which share of the bin's height has been climbed. Multiply it by h.",
        ),
        Mistake(
            (8 / 3, 16 / 9, 2.5),
            "the bin begins at z₀ = −1, and not at 0.",
        ),
        Mistake(
            (1 / 3, 16 / 9, 1.5),
            "the fraction is a share of the height: multiply it by h = 4, and not by w or s. (Or d₀ and d₁ are exchanged, which gives the same z here.)",
        ),
        Mistake(
            (1 / 3, 16 / 9, 1 + 2 * 0.5),
            "d₀ and d₁ are exchanged: the slope 4 is that of the lower knot.",
        ),
        Mistake(
            (1.0, 2.0, 1.8),
            "this is the chord, a straight line. The curve between the knots has other slopes.",
        ),
        Mistake(
            (5 / 3, 4 / 9, 1.5),
            "the factor s² before the fraction is missing in the slope.",
        ),
        Mistake(
            (5 / 3, 8 / 9, 1.5),
            "in the slope s is squared.",
        ),
        Mistake(
            (5 / 3, 4.0, 1.5),
            "in the slope the denominator is u².",
        ),
        Mistake(
            (5 / 3, 32 / 9, 1.5),
            "this is dz/dξ. The bin is 2 wide, so dz/dx is half of it.",
        ),
        Mistake(
            (5 / 3, 9 / 16, 1.5),
            "this is dx/dz, the slope of the inverse.",
        ),
        Mistake(
            (5 / 3, math.log(16 / 9), 1.5),
            "this is the log of the slope; here the slope itself is asked for.",
        ),
        Mistake(
            (5 / 3, 2.5, 1.5),
            "this is the mean of d₀ and d₁. The slope in the middle is not that.",
        ),
        Mistake(
            (5 / 3, 16 / 9, 5.0),
            "you took the other root, ξ = 2. It lies outside of the bin.",
        ),
        Mistake(
            (5 / 3, 16 / 9, 0.25),
            "this is ξ. The x that belongs to it is x₀ + w·ξ.",
        ),
        Mistake(
            (5 / 3, 16 / 9, 1.25),
            "ξ is a share of the width, and the bin is 2 wide.",
        ),
        Mistake(
            (5 / 3, 16 / 9, 0.5),
            "you added w·ξ = ½ to 0. The bin begins at x₀ = 1.",
        ),
    ),
    variants=(
        (1.67, 1.78, 1.5),
        torch.tensor([5 / 3, 16 / 9, 1.5]),
        [np.float64(5 / 3), 16 / 9, 3 / 2],
    ),
)


# 5.10


def spline(x, knots_x, knots_z, slopes):
    B = knots_x[-1]
    # The bin of each x: how many inner knots lie below it?
    k = (x[..., None] >= knots_x[1:-1]).sum(-1)
    w, h = knots_x.diff()[k], knots_z.diff()[k]
    s, d0, d1 = h / w, slopes[k], slopes[k + 1]

    xi = ((x - knots_x[k]) / w).clamp(0, 1)
    rest = 1 - xi
    u = s + (d0 + d1 - 2 * s) * xi * rest
    z = knots_z[k] + h * (s * xi**2 + d0 * xi * rest) / u
    top = d1 * xi**2 + 2 * s * xi * rest + d0 * rest**2
    log_slope = (s**2 * top / u**2).log()

    outside = x.abs() > B
    return (
        torch.where(outside, x, z),
        torch.where(outside, 0.0, log_slope),
    )


def _some_knots(rng, bins, bound):
    def edges():
        sizes = rng.uniform(0.3, 1.5, bins)
        inner = 2 * bound * np.cumsum(sizes / sizes.sum())[:-1] - bound
        return np.concatenate([[-bound], inner, [bound]])

    inner = np.exp(rng.uniform(-1.5, 1.5, bins - 1))
    return edges(), edges(), np.concatenate([[1.0], inner, [1.0]])


_TWO_BINS = np.array([-2.0, 0.0, 2.0]), np.array([-2.0, 1.0, 2.0]), np.array([1, 2.0, 1])


def _spline_cases(rng):
    many = _some_knots(rng, 8, 5.0)
    return [
        (np.array(1.0), *_TWO_BINS),
        (np.array(-0.5), *_TWO_BINS),
        (np.array(3.0), *_TWO_BINS),
        (np.array([-2.0, 0.0, 2.0]), *_TWO_BINS),
        (np.array([-2.5, -1.5, 1.5, 2.5]), *_TWO_BINS),
        (rng.uniform(-4, 4, 6), *_some_knots(rng, 5, 3.0)),
        (rng.uniform(-6, 6, (4, 5)), *many),
        (many[0].copy(), *many),
        (rng.uniform(-2, 2, (2, 2, 2)), *_some_knots(rng, 3, 1.5)),
    ]


def _pieces(v, along, knots_x, knots_z, slopes):
    """x₀, w, z₀, h, d₀ and d₁ of the bin of each v among the knots `along`."""
    k = (v[..., None] >= along[1:-1]).sum(-1)
    tables = knots_x, knots_x.diff(), knots_z, knots_z.diff(), slopes, slopes[1:]
    return tuple(table[k] for table in tables)


def _in_bin(xi, s, d0, d1):
    """The share of the height, the slope dz/dx, and q."""
    q = s + (d0 + d1 - 2 * s) * xi * (1 - xi)
    share = (s * xi**2 + d0 * xi * (1 - xi)) / q
    top = d1 * xi**2 + 2 * s * xi * (1 - xi) + d0 * (1 - xi) ** 2
    return share, s**2 * top / q**2, q


def _splined(change, tails=True):
    """The spline, with another formula in its bins, and with its tails or without."""

    def answer(x, knots_x, knots_z, slopes):
        x0, w, z0, h, d0, d1 = _pieces(x, knots_x, knots_x, knots_z, slopes)
        z, log_slope = change((x - x0) / w, x0, w, z0, h, d0, d1)
        outside = (x.abs() > knots_x[-1]) & tails
        return torch.where(outside, x, z), torch.where(outside, 0.0, log_slope)

    return answer


def _bin_formula(change):
    """One thing changed in what a bin gives: from (z₀, h, w, share, slope, q)."""

    def formula(xi, x0, w, z0, h, d0, d1):
        share, slope, q = _in_bin(xi, h / w, d0, d1)
        return change(z0, h, w, share, slope, q)

    return _splined(formula)


def _searched(change):
    """The spline with a bin found in another way."""

    def answer(x, knots_x, knots_z, slopes):
        k = change(knots_x, x)
        w, h = knots_x.diff()[k], knots_z.diff()[k]
        xi = (x - knots_x[k]) / w
        share, slope, _ = _in_bin(xi, h / w, slopes[k], slopes[k + 1])
        outside = x.abs() > knots_x[-1]
        z = torch.where(outside, x, knots_z[k] + h * share)
        return z, torch.where(outside, 0.0, slope.log())

    return answer


def _clamped_spline(x, knots_x, knots_z, slopes):
    B = knots_x[-1].item()
    return spline(x.clamp(-B, B), knots_x, knots_z, slopes)


def _spline_loop(x, knots_x, knots_z, slopes):
    """Number by number, with plain `if`."""
    X, Z, d = (table.tolist() for table in (knots_x, knots_z, slopes))
    values, logs = [], []
    for v in x.flatten().tolist():
        value, slope = v, 1.0
        for k in range(len(X) - 1):
            if X[k] <= v <= X[k + 1]:
                w, h = X[k + 1] - X[k], Z[k + 1] - Z[k]
                share, slope, _ = _in_bin((v - X[k]) / w, h / w, d[k], d[k + 1])
                value = Z[k] + h * share
                break
        values.append(value)
        logs.append(math.log(slope))
    return np.reshape(values, x.shape), np.reshape(logs, x.shape)


def _spline_by_autograd(x, knots_x, knots_z, slopes):
    """In all bins at once, a mask, and a slope that is found."""
    x = x.clone().requires_grad_()
    inside = x.clamp(-knots_x[-1], knots_x[-1])[..., None]
    w, h = knots_x.diff(), knots_z.diff()
    xi = ((inside - knots_x[:-1]) / w).clamp(0, 1)
    climbed = (h * _in_bin(xi, h / w, slopes[:-1], slopes[1:])[0]).sum(-1)
    z = torch.where(x.abs() > knots_x[-1], x, knots_z[0] + climbed)
    at = x.detach().clone().requires_grad_()
    x0, w0, z0, h0, d0, d1 = _pieces(at.detach(), knots_x, knots_x, knots_z, slopes)
    piece = z0 + h0 * _in_bin((at - x0) / w0, h0 / w0, d0, d1)[0]
    (slope,) = torch.autograd.grad(piece.sum(), at)
    outside = at.abs() > knots_x[-1]
    return z.detach(), torch.where(outside, torch.ones_like(slope), slope).log()


def _tables(like, knots_x, knots_z, slopes):
    """Knots as the library's spline takes them, for values of such a shape."""
    ones = (1,) * like.dim()
    edges = torch.stack([knots_x, knots_z]).reshape(2, -1, *ones)
    return edges, slopes.reshape(-1, *ones)


def _spline_by_the_library(x, knots_x, knots_z, slopes):
    from minflow.spline import evaluate

    z, log_slope = evaluate(x, *_tables(x, knots_x, knots_z, slopes))
    outside = x.abs() > knots_x[-1]
    return torch.where(outside, x, z), torch.where(outside, 0.0, log_slope)


def _spline_numpy(x, knots_x, knots_z, slopes):
    x, X, Z, d = (np.asarray(a) for a in (x, knots_x, knots_z, slopes))
    k = np.clip(np.searchsorted(X, x, side="right") - 1, 0, len(X) - 2)
    w, h = np.diff(X)[k], np.diff(Z)[k]
    xi = np.clip((x - X[k]) / w, 0, 1)
    share, slope, _ = _in_bin(xi, h / w, d[k], d[k + 1])
    outside = np.abs(x) > X[-1]
    return np.where(outside, x, Z[k] + h * share), np.where(outside, 0, np.log(slope))


SPLINE = Exercise(
    title="A rational-quadratic spline",
    level="medium",
    kind="code",
    reference=spline,
    judge=Equal(cases=_spline_cases, parts=("z", "log dz/dx")),
    insight="All numbers of a batch go through the same formula, each with the table entries of its own bin. Outside the box nothing bends, so "
    "a point far out is safe, and not helped either.",
    hints=(
        "Find the bin first: how many of the inner knots lie at or below x? That is an index from 0 to K − 1, for every x, even outside; "
        "the tables `knots_x[k]`, `slopes[k]` and so on then have the shape of x.",
        "`k = (x[..., None] >= knots_x[1:-1]).sum(-1)`, and w and h are `knots_x.diff()[k]` and `knots_z.diff()[k]`. Clamp ξ to [0, 1], compute z and "
        "the slope everywhere, and let `torch.where` put x and 0 in their places outside.",
    ),
    why="The formula of one bin, with each x in its own. Inner knots belong to both of their bins, which agree there, in value and in slope. Outside z = x, whose "
    "log-slope is 0.",
    mistakes=(
        Mistake(
            _bin_formula(lambda z0, h, w, share, slope, q: (z0 + share, slope.log())),
            "the fraction says which share of the bin's height has been climbed. Multiply it by h.",
        ),
        Mistake(
            _bin_formula(lambda z0, h, w, share, slope, q: (h * share, slope.log())),
            "each bin begins at its lower knot: add its z.",
        ),
        Mistake(
            _splined(
                lambda xi, x0, w, z0, h, d0, d1: (
                    z0 + h * _in_bin(xi, h / w, d1, d0)[0],
                    _in_bin(xi, h / w, d1, d0)[1].log(),
                )
            ),
            "d₀ and d₁ are exchanged: d₀ is the slope at the lower knot of a bin.",
        ),
        Mistake(
            _bin_formula(
                lambda z0, h, w, share, slope, q: (
                    z0 + h * share,
                    (slope / (h / w) ** 2).log(),
                )
            ),
            "the factor s² is missing in the slope.",
        ),
        Mistake(
            _bin_formula(
                lambda z0, h, w, share, slope, q: (
                    z0 + h * share,
                    (slope / (h / w)).log(),
                )
            ),
            "in the slope s is squared.",
        ),
        Mistake(
            _bin_formula(
                lambda z0, h, w, share, slope, q: (z0 + h * share, (slope * q).log())
            ),
            "in the slope the denominator is u², where z has u.",
        ),
        Mistake(
            _bin_formula(
                lambda z0, h, w, share, slope, q: (z0 + h * share, (slope * w).log())
            ),
            "this is the log of dz/dξ. Along x the bin is w wide: divide by it.",
        ),
        Mistake(
            _bin_formula(lambda z0, h, w, share, slope, q: (z0 + h * share, slope)),
            "this is the slope; its log is asked for.",
            also=(lambda x, *knots: (spline(x, *knots)[0], spline(x, *knots)[1].exp()),),
        ),
        Mistake(
            lambda x, *knots: (
                spline(x, *knots)[0],
                torch.where(x.abs() > knots[0][-1], 1.0, spline(x, *knots)[1]),
            ),
            "outside of the box the slope is 1, and its log is 0.",
        ),
        Mistake(
            _bin_formula(
                lambda z0, h, w, share, slope, q: (z0 + h * share, -slope.log())
            ),
            "the sign is flipped: dz/dx is asked for, and this is the log of dx/dz.",
        ),
        Mistake(
            _bin_formula(
                lambda z0, h, w, share, slope, q: (z0 + h * share, slope.log().sum())
            ),
            "you sum the logs. Here each x is a point on the line of its own, with its own slope.",
        ),
        Mistake(
            _splined(
                lambda xi, x0, w, z0, h, d0, d1: (
                    z0 + h * _in_bin(xi * w, h / w, d0, d1)[0],
                    _in_bin(xi * w, h / w, d0, d1)[1].log(),
                )
            ),
            "ξ = x − x₀ has not been divided by the bin's width.",
        ),
        Mistake(
            _splined(
                lambda xi, x0, w, z0, h, d0, d1: (
                    z0 + h * _in_bin(xi, w / h, d0, d1)[0],
                    _in_bin(xi, w / h, d0, d1)[1].log(),
                )
            ),
            "your s is w/h. The curve goes from x to z, so the chord has the slope h/w.",
        ),
        Mistake(
            _splined(
                lambda xi, x0, w, z0, h, d0, d1: (z0 + h * xi, (h / w + 0 * xi).log())
            ),
            "this is a straight line in each bin. The slopes at the knots have not been used.",
        ),
        Mistake(
            _searched(lambda X, x: torch.searchsorted(X, x) - 1),
            "at the lower end, x = −B, your bin has the number −1, and Python takes the last one for it. Which side does `searchsorted` count?",
            also=(
                _searched(
                    lambda X, x: (torch.searchsorted(X, x) - 1).clamp(max=len(X) - 2)
                ),
            ),
        ),
        Mistake(
            _searched(lambda X, x: torch.searchsorted(X, x, right=True) - 1),
            "at the upper end and outside, your bin has a number that no bin has. Clamp the index to 0 … K − 1.",
        ),
        Mistake(
            _clamped_spline,
            "outside of the box your z is ±B: all points there go to one place, and no inverse brings them back. Outside, z = x.",
        ),
        Mistake(
            _splined(
                lambda xi, x0, w, z0, h, d0, d1: (
                    z0 + h * _in_bin(xi, h / w, d0, d1)[0],
                    _in_bin(xi, h / w, d0, d1)[1].log(),
                ),
                tails=False,
            ),
            "outside of the box the formula of the last bin goes on. There, z = x and the log-slope is 0.",
        ),
    ),
    variants=(
        _spline_loop,
        _spline_by_autograd,
        _spline_by_the_library,
        _spline_numpy,
    ),
)


# 5.11


def unspline(z, knots_x, knots_z, slopes):
    B = knots_z[-1]
    k = (z[..., None] >= knots_z[1:-1]).sum(-1)
    w, h = knots_x.diff()[k], knots_z.diff()[k]
    s, d0, d1 = h / w, slopes[k], slopes[k + 1]

    # a ξ² + b ξ = s·share, from (share of the height) · u(ξ)
    share = ((z - knots_z[k]) / h).clamp(0, 1)
    b = d0 - share * (d0 + d1 - 2 * s)
    a, c = s - b, s * share
    root = (b**2 + 4 * a * c).clamp(min=0).sqrt()
    xi = 2 * c / (b + root)  # fine at a = 0, too
    x = knots_x[k] + w * xi

    rest = 1 - xi
    u = s + (d0 + d1 - 2 * s) * xi * rest
    top = d1 * xi**2 + 2 * s * xi * rest + d0 * rest**2
    log_slope = -(s**2 * top / u**2).log()

    outside = z.abs() > B
    return (
        torch.where(outside, z, x),
        torch.where(outside, 0.0, log_slope),
    )


def _unspline_cases(rng):
    line = np.array([-2.0, 0.0, 2.0])
    many = _some_knots(rng, 8, 5.0)
    return [
        (np.array(1.5), *_TWO_BINS),
        (np.array(-0.5), *_TWO_BINS),
        (np.array(3.0), *_TWO_BINS),
        (np.array(-1.0), line, line, np.ones(3)),
        (np.array([-1.7, -0.3, 1.9]), line, line, np.array([1.0, 1 + 1e-14, 1.0])),
        (np.array([-2.0, 1.0, 2.0]), *_TWO_BINS),
        (np.array([-2.5, -1.5, 1.5, 2.5]), *_TWO_BINS),
        (rng.uniform(-4, 4, 6), *_some_knots(rng, 5, 3.0)),
        (rng.uniform(-6, 6, (4, 5)), *many),
        (many[1].copy(), *many),
        (many[1][1:-1] * (1 - 1e-6), *many),
        (rng.uniform(-2, 2, (2, 2, 2)), *_some_knots(rng, 3, 1.5)),
    ]


def _quadratic(share, s, d0, d1):
    b = d0 - share * (d0 + d1 - 2 * s)
    return s - b, b, s * share


def _stable(share, s, d0, d1):
    a, b, c = _quadratic(share, s, d0, d1)
    return 2 * c / (b + (b**2 + 4 * a * c).clamp(min=0).sqrt())


def _school(sign):
    """The formula as it is learned at school."""

    def xi(share, s, d0, d1):
        a, b, c = _quadratic(share, s, d0, d1)
        return (-b + sign * (b**2 + 4 * a * c).sqrt()) / (2 * a)

    return xi


def _school_but_for_0(share, s, d0, d1):
    """The same, with another way where a is exactly 0, and nowhere else."""
    a, b, c = _quadratic(share, s, d0, d1)
    return torch.where(a == 0, share, (-b + (b**2 + 4 * a * c).sqrt()) / (2 * a))


def _minus_4ac(share, s, d0, d1):
    a, b, c = _quadratic(share, s, d0, d1)
    return 2 * c / (b + (b**2 - 4 * a * c).sqrt())


def _slope_by_spline(xi, missing=math.nan):
    """Any root, and the slope of the spline at what it gives: a reader's own way to it."""
    x = _unsplined(xi)

    def answer(z, *knots):
        found = x(z, *knots)[0]
        log_slope = spline(found, *knots)[1]
        return found, -torch.where(found.isnan(), missing, log_slope)

    return answer


def _school_with_h(sign):
    """The same, all of it times h, with c on the other side: as the paper writes it."""

    def solve(z, x0, w, z0, h, d0, d1):
        s, y = h / w, z - z0
        a = h * (s - d0) + y * (d1 + d0 - 2 * s)
        b = h * d0 - y * (d1 + d0 - 2 * s)
        return (-b + sign * (b**2 + 4 * a * s * y).sqrt()) / (2 * a)

    return solve


def _unsplined(
    xi=_stable,
    solve=None,
    log_slope=lambda z, xi, s, d0, d1: -_in_bin(xi, s, d0, d1)[1].log(),
    x=lambda x0, w, xi: x0 + w * xi,
    along="z",
    tails=True,
    share=lambda z, z0, h: (z - z0) / h,
):
    """The inverse with one thing done in another way."""

    def answer(z, knots_x, knots_z, slopes):
        knots = knots_z if along == "z" else knots_x
        x0, w, z0, h, d0, d1 = _pieces(z, knots, knots_x, knots_z, slopes)
        if solve is None:
            found = xi(share(z, z0, h), h / w, d0, d1)
        else:
            found = solve(z, x0, w, z0, h, d0, d1)
        outside = (z.abs() > knots_z[-1]) & tails
        log = log_slope(z, found, h / w, d0, d1)
        return (
            torch.where(outside, z, x(x0, w, found)),
            torch.where(outside, 0.0, log),
        )

    return answer


def _clamped_unspline(z, knots_x, knots_z, slopes):
    B = knots_z[-1].item()
    return unspline(z.clamp(-B, B), knots_x, knots_z, slopes)


def _unspline_by_halving(z, knots_x, knots_z, slopes):
    low = knots_x[0].expand(z.shape)
    high = knots_x[-1].expand(z.shape)
    for _ in range(80):
        middle = (low + high) / 2
        below = spline(middle, knots_x, knots_z, slopes)[0] < z
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    x = torch.where(z.abs() > knots_z[-1], z, (low + high) / 2)
    return x, -spline(x, knots_x, knots_z, slopes)[1]


def _unspline_by_the_library(z, knots_x, knots_z, slopes):
    from minflow.spline import _solve

    x, log_slope = _solve(z, *_tables(z, knots_x, knots_z, slopes))
    outside = z.abs() > knots_z[-1]
    return torch.where(outside, z, x), torch.where(outside, 0.0, log_slope)


def _unspline_loop(z, knots_x, knots_z, slopes):
    """Number by number; Newton's method, kept in the bin."""
    X, Z, d = (table.tolist() for table in (knots_x, knots_z, slopes))
    values, logs = [], []
    for v in z.flatten().tolist():
        value, slope = v, 1.0
        for k in range(len(X) - 1):
            if Z[k] <= v <= Z[k + 1]:
                w, h = X[k + 1] - X[k], Z[k + 1] - Z[k]
                low, high, xi = 0.0, 1.0, 0.5
                for _ in range(200):
                    share, slope, _ = _in_bin(xi, h / w, d[k], d[k + 1])
                    low, high = (xi, high) if Z[k] + h * share < v else (low, xi)
                    xi = xi - (Z[k] + h * share - v) / (w * slope)
                    xi = xi if low <= xi <= high else (low + high) / 2
                value = X[k] + w * xi
                break
        values.append(value)
        logs.append(-math.log(slope))
    return np.reshape(values, z.shape), np.reshape(logs, z.shape)


UNSPLINE = Exercise(
    title="Undo a spline",
    level="hard",
    kind="code",
    reference=unspline,
    judge=Equal(cases=_unspline_cases, parts=("x", "log dx/dz")),
    insight="The curve is a fraction of two quadratics, and its inverse needs no search: one square root. Of the two ways to write the root, only one survives bins that are "
    "straight or almost so, and every spline starts with those.",
    hints=(
        "The bins are found among `knots_z` now. Call share = (z − z₀)/h. Multiply share = (sξ² + d₀ξ(1 − ξ))/u(ξ) by its denominator u, and sort by powers of ξ.",
        "aξ² + bξ = s·share with b = d₀ − share·(d₀ + d₁ − 2s), a = s − b. A straight bin has a = 0: write the root with a square root in the "
        "denominator, ξ = 2s·share/(b + √(b² + 4as·share)). The log-slope is minus that of the spline, at this ξ.",
    ),
    why="Both forms of the root are equal on paper. But (−b + √(b² + 4as·share))/(2a) is 0/0 for a = 0, and for tiny a it subtracts two almost equal numbers and divides what rounding has "
    "left by almost nothing. In 2s·share/(b + √…) nothing cancels as long as b is not negative, as in a bin that is straight or nearly so.",
    mistakes=(
        Mistake(
            _unsplined(_school(1)),
            "where a bin is straight, or nearly so, a is 0 or tiny, and −b + √(b² + 4as·share) is what rounding leaves of 0. Write the same root in another way.",
            also=(
                _unsplined(solve=_school_with_h(1)),
                _unsplined(lambda *of: _school(1)(*of).clamp(0, 1)),
                _slope_by_spline(_school(1)),
                _slope_by_spline(_school(1), 0.0),
            ),
        ),
        Mistake(
            _unsplined(_school_but_for_0),
            "you took care of a = 0, but a may be 1e-14: there −b + √(b² + 4as·share) is what rounding leaves of 0. Write the root in another way, for all a.",
            also=(_slope_by_spline(_school_but_for_0),),
        ),
        Mistake(
            _unsplined(_minus_4ac),
            "under the root stands b² + 4as·share: in aξ² + bξ − s·share = 0 the constant term has a minus of its own.",
            also=(_slope_by_spline(_minus_4ac),),
        ),
        Mistake(
            _unsplined(_school(-1)),
            "you took the other root of the quadratic. The ξ of a point in its bin lies between 0 and 1.",
            also=(_unsplined(solve=_school_with_h(-1)),),
        ),
        Mistake(
            _clamped_unspline,
            "outside of the box your x is ±B. There the spline is the identity, and so is its inverse.",
        ),
        Mistake(
            _unsplined(tails=False),
            "outside of the box the formula of the last bin goes on. There, x = z and the log-slope is 0.",
        ),
        Mistake(
            _unsplined(
                log_slope=lambda z, xi, s, d0, d1: _in_bin(xi, s, d0, d1)[1].log()
            ),
            "the log-slope has the sign of the way from x to z. Yours goes from z to x, and its slope is the reciprocal.",
        ),
        Mistake(
            _unsplined(log_slope=lambda z, xi, s, d0, d1: 1 / _in_bin(xi, s, d0, d1)[1]),
            "this is the slope dx/dz; its log is asked for.",
            also=(
                lambda z, *knots: (
                    unspline(z, *knots)[0],
                    unspline(z, *knots)[1].exp(),
                ),
            ),
        ),
        Mistake(
            _unsplined(
                log_slope=lambda z, xi, s, d0, d1: 1 / _in_bin(xi, s, d0, d1)[1].log()
            ),
            "the slope of the inverse is the reciprocal, so its log changes sign. You took the reciprocal of the log.",
        ),
        Mistake(
            lambda z, *knots: (unspline(z, *knots)[0], -spline(z, *knots)[1]),
            "the slope of the spline is to be taken at the x that you have found, and you took it at z.",
        ),
        Mistake(
            _unsplined(along="x"),
            "you look for the bin among `knots_x`. z lies between two knots of `knots_z`.",
        ),
        Mistake(
            _unsplined(x=lambda x0, w, xi: x0 + xi),
            "ξ is a share of the bin's width: x = x₀ + w·ξ.",
        ),
        Mistake(
            _unsplined(x=lambda x0, w, xi: xi),
            "this is ξ, the place in the bin. The x that belongs to it is x₀ + w·ξ.",
        ),
        Mistake(
            _unsplined(lambda share, s, d0, d1: _stable(share, s, d1, d0)),
            "d₀ and d₁ are exchanged in the quadratic.",
        ),
        Mistake(
            _unsplined(share=lambda z, z0, h: z - z0),
            "z − z₀ has not been divided by the bin's height.",
        ),
        Mistake(
            _unsplined(
                lambda share, s, d0, d1: share,
                log_slope=lambda z, xi, s, d0, d1: -(s + 0 * xi).log(),
            ),
            "this is a straight line in each bin. The slopes at the knots have not been used.",
        ),
        Mistake(
            spline,
            "this is the way from x to z once more.",
        ),
        Mistake(
            lambda z, X, Z, d: spline(z, Z, X, 1 / d),
            "the inverse of a rational-quadratic curve is not one with the two tables exchanged. Between the knots it is another curve.",
        ),
    ),
    variants=(_unspline_by_halving, _unspline_by_the_library, _unspline_loop),
)


# 5.12


def trained_coupling_flow():
    target = mf.data.TwoMoons(noise=0.05)
    generator = torch.Generator().manual_seed(1)
    data = target.sample((10_000,), generator=generator)
    torch.manual_seed(0)
    couplings = mf.nsf(2, layers=4, hidden=(32, 32))
    units = mf.Standardize.of(data)
    parts = mf.Compose(couplings.transform, units)
    flow = mf.Flow(parts)
    mf.fit(flow, data, steps=400, lr=0.01)
    return flow


class Measure(NamedTuple):
    """The paired gap to the truth and its error; by how much a log-det is off; how far the map is
    from an affine one; and the influence of the coordinates on each other, the lesser of the two."""

    nats: float
    error: float
    off: float
    bend: float
    mixed: float


_ENOUGH = 0.15  # nats
_NORMAL = 1.59  # what the best normal law leaves


def _moons():
    return mf.data.TwoMoons(noise=0.05)


def _gap(flow):
    if why := refused(flow):
        return why
    found = held_out(flow, _moons())
    few, others = found.points[:40], found.points[40:80]
    with torch.no_grad():
        half = (flow.transform.inverse(few)[0] + flow.transform.inverse(others)[0]) / 2
        bend = (flow.transform.inverse((few + others) / 2)[0] - half).abs().max().item()
    mixed = found.jacobians.abs().amax(0)
    return Measure(
        found.nats,
        found.error,
        found.off,
        bend,
        min(mixed[0, 1].item(), mixed[1, 0].item()),
    )


def _gap_is_wrong(gap):
    advice = "More layers, more steps, another lr, another kind of coupling?"
    return too_far(gap, _ENOUGH, advice)


def _fitted(*layers, steps=150, lr=0.01):
    data = _moons().sample((6000,), generator=torch.Generator().manual_seed(2))
    flow = mf.Flow(mf.Compose(*layers, mf.Standardize.of(data)))
    mf.fit(flow, data, steps=steps, lr=lr)
    return flow


def _spline_coupling(flip, **options):
    return mf.Coupling(2, mf.Spline(), hidden=(32, 32), flip=flip, **options)


def _by_a_loop():
    """Mixed by rotations, not by roles, in float64, with a training loop of one's own."""
    torch.manual_seed(3)
    data = _moons().sample((10_000,)).double()
    layers = []
    for _ in range(4):
        layers += [_spline_coupling(False), mf.LU(2)]
    flow = mf.Flow(mf.Compose(*layers, mf.Standardize.of(data))).double()
    return by_a_loop(flow, data, 300)


TRAIN = Exercise(
    title="Couplings for two thin moons",
    level="hard",
    kind="explore",
    reference=trained_coupling_flow,
    judge=Measured(_gap, _gap_is_wrong),
    insight="On fresh points your flow is within 0.15 nats of the truth, where the best normal law misses 1.59. What is left lies mostly at the tips of the "
    "arcs and between them, where a connected base has to be torn in two.",
    hints=(
        "Begin with `mf.nice`, `mf.realnvp` and `mf.nsf` with few layers each, and a few hundred steps. Which of them gains "
        "most from a layer more? Let `mf.Standardize.of(data)` be the last layer, so that splines have the data in their box; and give `mf.fit` a `clip=1.0` "
        "for affine couplings, whose gradients have rare, large jumps.",
        "`mf.nsf(2, layers=4, hidden=(32, 32))`, 10,000 points, 400 steps and lr=0.01 are enough as a rule. The gap is the mean of "
        "log p(x) − log q(x) on points that the flow has not seen.",
    ),
    why="Four spline couplings leave about 0.05 nats after 400 steps. Each gives one coordinate a curve with eight bins that depends on the other: that bends "
    "an arc and opens a gap at once.",
    mistakes=(
        Mistake(
            lambda: mf.Flow(Unsigned(2)),
            "its log-density is not the one of its map. Is the sign of a log-det flipped, or one left out?",
            when=lambda gap: gap.off > 0.05,
        ),
        Mistake(
            lambda: mf.nsf(2, layers=4),
            "one normal law would do better: the flow is hardly trained. Did `mf.fit` run on this flow, with enough steps and a small "
            "enough lr?",
            when=lambda gap: _NORMAL + 0.05 < gap.nats < math.inf,
        ),
        Mistake(
            lambda: _fitted(mf.TriangularAffine(2), lr=0.05),
            "its map is affine, so its law is one normal law, whatever the training. Couplings of splines, or couplings whose network "
            "makes t and s of the kept half, bend.",
            when=lambda gap: gap.bend < 1e-3,
        ),
        Mistake(
            lambda: _fitted(*(_spline_coupling(True) for _ in range(2)), steps=40),
            "one coordinate of z depends on the same coordinate of x alone: all of your couplings keep the same half. Change the roles (`flip`), "
            "or mix between them.",
            when=lambda gap: gap.mixed < 1e-6 and gap.nats < math.inf,
        ),
        Mistake(
            lambda: _fitted(_spline_coupling(False), _spline_coupling(True)),
            "it leaves about what two spline couplings, or eight additive ones, leave after a short training. Train longer, or take more layers, or another kind.",
            when=lambda gap: 0.2 < gap.nats < 0.6,
        ),
    ),
    variants=(_by_a_loop,),
)


EXERCISES = (
    ROLES,
    BY_HAND,
    CONSTANT,
    COUPLING,
    UNCOUPLE,
    BUG,
    CONV,
    BANANA,
    BIN,
    SPLINE,
    UNSPLINE,
    TRAIN,
)
