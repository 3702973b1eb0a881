"""Exercises of chapter 4: planar flows.

The references have no annotations: they look like what the reader writes in the notebook.
"""
# mypy: allow-untyped-defs

import math
from typing import NamedTuple

import numpy as np
import torch

import minflow as mf
from minflow.exercises import Equal, Exercise, Measured, Mistake
from minflow.solve import monotone_root

from ._flows import refused

NUMBER = 4


# 4.1


def planar_by_hand():
    z = torch.tensor([3.0, 1.0])
    w = torch.tensor([1.0, -2.0])
    u = torch.tensor([1.5, -0.5])
    a = w @ z + math.log(2) - 1  # log 2
    h = torch.tanh(a)  # 0.6
    x = z + u * h
    det = 1 + (1 - h**2) * (w @ u)  # 1 + 0.64 · 2.5
    return x[0], x[1], det.log()


_T1 = math.tanh(1)

BY_HAND = Exercise(
    title="One planar layer by hand",
    level="easy",
    kind="predict",
    reference=planar_by_hand,
    judge=Equal(parts=("x₁", "x₂", "log_det"), tol=2e-3),
    insight="A whole layer in D dimensions costs two dot products, wᵀz and wᵀu, and one tanh: no matrix, "
    "no determinant to expand.",
    hints=(
        "First the number a = wᵀz + b. With e^a = 2, tanh a = (e^a − e^−a)/(e^a + e^−a) is a plain "
        "fraction.",
        "a = log 2, h = 0.6, h′ = 1 − h² = 0.64, and wᵀu = 2.5. The point moves by h·u; the determinant "
        "is 1 + h′·wᵀu.",
    ),
    why="a = 1 + log 2 − 1 = log 2, so h = 3/5. x = (3, 1) + 0.6·(1.5, −0.5) = (3.9, 0.7), and "
    "log(1 + 0.64·2.5) = log 2.6 = 0.9555.",
    mistakes=(
        Mistake(
            (3 + 1.5 * _T1, 1 - 0.5 * _T1, math.log(1 + 2.5 * (1 - _T1**2))),
            "b is missing: a = wᵀz + b, and it is log 2.",
        ),
        Mistake((3.9, 0.7, 2.6), "this is the determinant itself; its log is asked for."),
        Mistake(
            (3.9, 0.7, math.log(1.6)),
            "the 1 in 1 + h′·wᵀu is missing. It stands for the point z itself in x = z + …",
        ),
        Mistake(
            (3.9, 0.7, math.log(2)),
            "the slope of tanh is 1 − tanh² a, with a square.",
        ),
        Mistake(
            (3.9, 0.7, math.log(2.5)),
            "you took h where h′ belongs: the Jacobian has the slope of tanh, not its value.",
        ),
        Mistake(
            (3.9, 0.7, math.log(3.5)),
            "h′(a) is missing: 1 + wᵀu would be the determinant of the map without the tanh.",
        ),
        Mistake(
            (3.9, 0.7, math.log(1.64)),
            "you summed the entries of u. Each of them is multiplied by that of w: wᵀu = 2.5.",
        ),
        Mistake(
            (3.9, 0.7, math.log(1.96 * 1.64)),
            "you multiplied the diagonal of J. J is I plus a full matrix, h′·u wᵀ.",
        ),
        Mistake(
            (3.9, 0.7, -math.log(2.6)),
            "the sign is flipped: −log 2.6 belongs to the way back, from x to z.",
        ),
        Mistake(
            (3.6, -0.2, math.log(2.6)),
            "you pushed the point along w. w says where the layer acts, u where it pushes.",
        ),
        Mistake(
            (0.9, -0.3, math.log(2.6)),
            "this is the push u·h(a) alone. The point z is still to be added.",
        ),
        Mistake(
            (2.1, 1.3, math.log(2.6)),
            "the push is taken away. From z to x it is added: x = z + u·h(a).",
        ),
        Mistake(
            (3.9, 0.7, math.log(1.32)),
            "a sign in wᵀu: (−2)·(−0.5) is +1, so wᵀu = 2.5.",
        ),
        Mistake(
            (3.9, 0.7, math.log10(2.6)),
            "this is the logarithm to base 10. All logs here are natural, in nats.",
        ),
    ),
    variants=(
        (3.9, 0.7, 0.9555),
        torch.tensor([3.9, 0.7, 0.956]),
        [3.9, 0.7, np.log(2.6)],
    ),
)


# 4.2


def lemma_by_hand():
    u = torch.tensor([2.0, -1.0, 1.0])
    w = torch.tensor([1.0, 2.0, 4.0])
    det = 1 + w @ u
    inverse = torch.eye(3) - torch.outer(u, w) / det
    return det, inverse[0, 1]  # counted from 0


LEMMA = Exercise(
    title="The matrix determinant lemma by hand",
    level="easy",
    kind="derive",
    reference=lemma_by_hand,
    judge=Equal(parts=("the determinant", "the entry of the inverse"), tol=2e-3),
    insight="One number, 1 + wᵀu, decides both. At wᵀu = −1 the determinant is 0, and the formula of the "
    "inverse divides by zero, as it should.",
    hints=(
        "Do not expand anything: wᵀu is one number, and the determinant follows from it.",
        "wᵀu = 2 − 2 + 4 = 4. The inverse is I − u wᵀ/(1 + wᵀu): multiply it by I + u wᵀ to see that. The "
        "entry in row 1, column 2 of u wᵀ is u₁w₂.",
    ),
    why="det = 1 + wᵀu = 5, and the entry is 0 − u₁w₂/5 = −4/5.",
    mistakes=(
        Mistake(
            (4.0, -1.0),
            "wᵀu = 4 is the determinant only after 1 is added.",
        ),
        Mistake(
            (5.0, -4.0),
            "u₁w₂ is not divided: the inverse is I − u wᵀ/(1 + wᵀu).",
        ),
        Mistake(
            (5.0, 0.8),
            "the sign is flipped: what I + u wᵀ adds, its inverse has to take away.",
        ),
        Mistake(
            (5.0, 0.2),
            "this is the entry in row 2, column 1. In u wᵀ the row belongs to u, the column to w.",
        ),
        Mistake(
            (5.0, 0.25),
            "you took the reciprocal of one entry. A matrix is not inverted entry by entry.",
        ),
        Mistake(
            (5.0, 0.6),
            "this is an entry of the diagonal; row 1, column 2 is asked for.",
        ),
        Mistake(
            (-15.0, 4 / 15),
            "you multiplied the diagonal of I + u wᵀ, but the matrix is full.",
        ),
        Mistake(
            (1.0, -4.0),
            "a determinant of a sum is not the sum of determinants. det(u wᵀ) = 0, and yet u wᵀ matters.",
        ),
        Mistake(
            (-3.0, 4 / 3),
            "a sign is flipped: I + u wᵀ has a plus, and so has its determinant. Check it in one dimension, where I + u wᵀ "
            "is the number 1 + u·w.",
        ),
    ),
    variants=((5, -0.8), torch.tensor([5.0, -0.8]), [5.0, -4 / 5]),
)


# 4.3


def smallest_determinants():
    w = torch.tensor([[2.0, 1], [1, -1], [3, 0], [1, 2]])
    u = torch.tensor([[1, -2.5], [2, 0.5], [-0.5, 9], [1, -1]])
    near = 1 + (w * u).sum(-1)  # h' = 1, where a = 0
    far = torch.ones(4)  # h' = 0, where a is large
    lowest = torch.minimum(near, far)
    one_to_one = (lowest >= 0).sum()
    return (*lowest, one_to_one)


FOLDS = Exercise(
    title="Which of these fold the plane?",
    level="easy",
    kind="predict",
    reference=smallest_determinants,
    judge=Equal(parts=("A", "B", "C", "D", "how many are one-to-one"), tol=2e-3),
    insight="The layer is one-to-one if and only if wᵀu ≥ −1. At −1 itself the inverse exists, but its slope "
    "at the line a = 0 is infinite: a flow needs wᵀu > −1.",
    hints=(
        "det J = 1 + h′(a)·wᵀu. Which values does h′ = 1 − tanh² a take over the plane?",
        "h′ is 1 on the line a = 0 and sinks to 0 far from it. So the determinant lies between 1 + wᵀu and 1; "
        "which of the two is the lower end depends on the sign of wᵀu.",
    ),
    why="wᵀu is −0.5, 1.5, −1.5 and −1. Where it is negative, the lowest determinant is 1 + wᵀu, on the line "
    "a = 0; for B it is the limit 1, far out. C folds; D only flattens the line a = 0: "
    "a − tanh a still increases.",
    mistakes=(
        Mistake(
            (0.5, 1.0, -0.5, 0.0, 2),
            "you counted D out, or something else with it. Its determinant is 0 on one line only; does "
            "a − tanh a increase there all the same?",
        ),
        Mistake(
            (0.5, 1.0, -0.5, 0.0, 4),
            "where a determinant changes its sign, the map turns back: two points go to the same place.",
        ),
        Mistake(
            (0.5, 1.0, -0.5, 0.0, 1),
            "you asked for a determinant of at least 1. A map may well contract: anything above 0 will do.",
        ),
        Mistake(
            (0.5, 2.5, -0.5, 0.0, 3),
            "where wᵀu is positive, 1 + wᵀu is the largest determinant. Where is it small?",
        ),
        Mistake(
            (0.5, 1.0, 0.0, 0.0, 3),
            "the determinant itself is asked for, with its sign; it can go below 0.",
        ),
        Mistake(
            (0.5, 1.0, 0.5, 0.0, 3),
            "this is the absolute value. The determinant itself is asked for, with its sign.",
        ),
        Mistake(
            (1.0, 1.0, 1.0, 1.0, 3),
            "this is the determinant far out, where tanh is flat. Look near the line a = 0.",
        ),
        Mistake(
            (-0.5, 1.5, -1.5, -1.0, 3),
            "this is wᵀu; the determinant is 1 + h′·wᵀu.",
        ),
        Mistake(
            (-0.5, 0.0, -1.5, -1.0, 3),
            "this is h′·wᵀu at its lowest; the 1 is missing.",
        ),
        Mistake(
            (1.0, -0.5, 1.0, 1.0, 3),
            "a sign is flipped: the determinant is 1 + h′·wᵀu, with a plus.",
        ),
    ),
    variants=(
        (0.5, 1, -0.5, 0, 3),
        torch.tensor([0.5, 1.0, -0.5, 0.0, 3.0]),
        [0.5, 1.0, -0.5, 0.0, np.int64(3)],
    ),
)


# 4.4


def planar(z, w, u, b):
    h = torch.tanh(z @ w + b)
    x = z + u * h[..., None]
    det = 1 + (1 - h**2) * (w @ u)
    return x, det.abs().log()


def _planar_cases(rng):
    def case(*shape):
        w, u = rng.normal(size=(2, shape[-1]))
        u = u + (0.5 - w @ u) * w / (w @ w)  # wᵀu = ½
        return rng.normal(size=shape), w, u, np.array(rng.normal())

    folding = rng.normal(size=(6, 2)), np.array([1.0, 1.0]), np.array([-1.0, -2.0])
    return [
        (
            np.array([3.0, 1.0]),
            np.array([1.0, -2.0]),
            np.array([1.5, -0.5]),
            np.array(0.0),
        ),
        (
            np.array([1.0, 2.0]),
            np.array([0.5, 0.0]),
            np.array([1.0, 1.0]),
            np.array(-1.0),
        ),
        case(4, 1),
        case(5, 3),
        case(2, 3, 4),
        (*folding, np.array(0.3)),
    ]


def _slope_and_u(z, w, u, b):
    return 1 - torch.tanh(z @ w + b) ** 2, w @ u


def _planar_loop(z, w, u, b):
    """Point by point, number by number."""
    D = z.shape[-1]
    points, log_dets = [], []
    for point in z.reshape(-1, D):
        a = float(b) + sum(float(w[d] * point[d]) for d in range(D))
        points.append([float(point[d]) + float(u[d]) * math.tanh(a) for d in range(D)])
        stretch = sum(float(w[d] * u[d]) for d in range(D)) / math.cosh(a) ** 2
        log_dets.append(math.log(abs(1 + stretch)))
    return np.reshape(points, z.shape), np.reshape(log_dets, z.shape[:-1])


def _planar_by_autograd(z, w, u, b):
    def f(point):
        return point + u * torch.tanh(w @ point + b)

    flat = z.reshape(-1, z.shape[-1])
    J = torch.func.vmap(torch.func.jacrev(f))(flat)
    x = torch.func.vmap(f)(flat).reshape(z.shape)
    return x, torch.linalg.slogdet(J).logabsdet.reshape(z.shape[:-1])


def _planar_numpy(z, w, u, b):
    z, w, u, b = (np.asarray(array) for array in (z, w, u, b))
    h = np.tanh(np.einsum("...d,d->...", z, w) + b)
    return z + h[..., None] * u, np.log(np.abs(1 + (1 - h * h) * w.dot(u)))


PLANAR = Exercise(
    title="A planar layer for any batch",
    level="medium",
    kind="code",
    reference=planar,
    judge=Equal(cases=_planar_cases, parts=("x", "log_det")),
    insight="O(D) for each point. The determinant lemma has turned D³ operations into one dot product, "
    "wᵀu, which all points share.",
    hints=(
        "Compute a = wᵀz + b for the whole batch: one number a point, the shape `z.shape[:-1]`. "
        "`z @ w` does that.",
        "For x give tanh a a last dimension of size 1, `h[..., None]`, so that it meets u. The log-det has "
        "one number a point: log|1 + (1 − h²)·wᵀu|.",
    ),
    why="J = I + h′(a)·u wᵀ, so det J = 1 + h′(a)·wᵀu, with h′ = 1 − tanh² a.",
    mistakes=(
        Mistake(
            lambda z, w, u, b: (
                planar(z, w, u, b)[0],
                torch.log(1 + _slope_and_u(z, w, u, b)[0] * (w @ u)),
            ),
            "where the determinant is negative, its log is NaN. The absolute value is missing.",
            also=(
                lambda z, w, u, b: (
                    planar(z, w, u, b)[0],
                    torch.log1p(_slope_and_u(z, w, u, b)[0] * (w @ u)),
                ),
            ),
        ),
        Mistake(
            lambda z, w, u, b: (
                planar(z, w, u, b)[0],
                (1 + (1 - torch.tanh(z @ w + b)) * (w @ u)).abs().log(),
            ),
            "the slope of tanh is 1 − tanh² a, with a square.",
        ),
        Mistake(
            lambda z, w, u, b: (
                planar(z, w, u, b)[0],
                (1 + torch.tanh(z @ w + b) * (w @ u)).abs().log(),
            ),
            "you took h(a) where its slope h′(a) belongs in the determinant.",
        ),
        Mistake(
            lambda z, w, u, b: (
                planar(z, w, u, b)[0],
                (1 + w @ u).abs().log().expand(z.shape[:-1]),
            ),
            "h′(a) is missing: your log-det is the same everywhere, as for a linear map.",
        ),
        Mistake(
            lambda z, w, u, b: (
                planar(z, w, u, b)[0],
                (_slope_and_u(z, w, u, b)[0] * (w @ u)).abs().log(),
            ),
            "the 1 in 1 + h′·wᵀu is missing; it comes from the z in x = z + …",
        ),
        Mistake(
            lambda z, w, u, b: (
                planar(z, w, u, b)[0],
                (1 + _slope_and_u(z, w, u, b)[0][..., None] * w * u).abs().log().sum(-1),
            ),
            "you multiply the diagonal of J. J = I + h′·u wᵀ is full; by the lemma its determinant is "
            "1 + h′·wᵀu.",
        ),
        Mistake(
            lambda z, w, u, b: (
                planar(z, w, u, b)[0],
                planar(planar(z, w, u, b)[0], w, u, b)[1],
            ),
            "the slope is taken at wᵀx + b, at the point where the map arrives. It belongs to z, where the "
            "map is applied.",
        ),
        Mistake(
            lambda z, w, u, b: (planar(z, w, u, b)[0], -planar(z, w, u, b)[1]),
            "the sign is flipped: this is the log-det of the way back, x to z.",
        ),
        Mistake(
            lambda z, w, u, b: (planar(z, w, u, b)[0], planar(z, w, u, b)[1].exp()),
            "this is |det J|; its log is asked for.",
        ),
        Mistake(
            lambda z, w, u, b: planar(z, w, u, 0.0 * b),
            "b is missing in a = wᵀz + b.",
        ),
        Mistake(
            lambda z, w, u, b: planar(z, u, w, b),
            "u and w are exchanged. The log-det hardly notices, since wᵀu = uᵀw; but w measures, u pushes.",
        ),
        Mistake(
            lambda z, w, u, b: (planar(z, w, u, b)[0] - z, planar(z, w, u, b)[1]),
            "this is the push u·h(a) alone; x = z + u·h(a).",
        ),
        Mistake(
            lambda z, w, u, b: (
                planar(z, w, u, b)[0],
                planar(z, w, u, b)[1].unsqueeze(-1),
            ),
            "log_det has a dimension of size 1 too many. Keep `h` without it, and add it for x alone.",
        ),
        Mistake(
            lambda z, w, u, b: (planar(z, w, u, b)[0], planar(z, w, u, b)[1].sum()),
            "you sum over the batch. Each point has a log-det of its own.",
        ),
        Mistake(
            lambda z, w, u, b: planar(z, w, u, b)[0],
            "x comes alone: end with `return x, log_det`.",
        ),
        Mistake(
            lambda z, w, u, b: planar(z, w, u, b)[::-1],
            "both are right, in the other order: x comes first, then log_det.",
        ),
        Mistake(
            lambda z, w, u, b: (z + u * torch.tanh(z @ w + b), planar(z, w, u, b)[1]),
            "for a batch `u * h` pairs the points with the coordinates: h has one number a point, u one a coordinate. "
            "Give h a last dimension of size 1.",
        ),
    ),
    variants=(_planar_loop, _planar_by_autograd, _planar_numpy),
)


# 4.5


def low_rank_log_det(A, B):
    M = A.shape[-1]
    small = torch.eye(M, dtype=A.dtype) + B.mT @ A
    return torch.linalg.slogdet(small).logabsdet


def _low_rank_cases(rng):
    def case(D, M):
        return rng.normal(size=(2, D, M))

    negative = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    large = np.full((2000, 1), 1e9)
    return [
        (np.array([[2.0], [-1.0]]), np.array([[1.0], [-2.0]])),
        (negative, np.array([[-3.0, 1.0], [0.0, 1.0], [1.0, 2.0]])),
        tuple(case(4, 2)),
        tuple(case(5, 3)),
        tuple(case(3, 3)),
        tuple(case(200, 4)),
        tuple(1e4 * case(200, 50)),
        (large, large),
    ]


def _by_eigenvalues(A, B):
    return (1 + torch.linalg.eigvals(B.mT @ A)).abs().log().sum()


def _one_column_after_another(A, B):
    """The lemma M times: each column meets the inverse of all before it."""
    solved: list[torch.Tensor] = []
    total = 0.0
    for m in range(A.shape[-1]):
        a = A[:, m]
        for k, before in enumerate(solved):
            a = a - before * (B[:, k] @ a)
        det = 1 + B[:, m] @ a
        total = total + det.abs().log()
        solved.append(a / det)
    return total


def _low_rank_numpy(A, B):
    A, B = np.asarray(A), np.asarray(B)
    return np.linalg.slogdet(A.T @ B + np.eye(A.shape[1]))[1]


def _naive(A, B):
    return torch.linalg.slogdet(_large(A, B)).logabsdet


def _naive_numpy(A, B):
    A, B = np.asarray(A), np.asarray(B)
    return np.linalg.slogdet(np.eye(len(A)) + A @ B.T)[1]


def _large(A, B):
    return torch.eye(len(A), dtype=A.dtype) + A @ B.mT


def _small(A, B):
    return torch.eye(A.shape[-1], dtype=A.dtype) + B.mT @ A


LOW_RANK = Exercise(
    title="A determinant of two thousand dimensions",
    level="medium",
    kind="code",
    reference=low_rank_log_det,
    judge=Equal(cases=_low_rank_cases),
    insight="A map that pushes along M directions only has a determinant of size M, whatever D is. For "
    "M = 1 it is the lemma of the planar layer.",
    hints=(
        "Sylvester's identity: det(I + AB) = det(I + BA), although the two identities differ in size. Your Bᵀ "
        "stands where it has B. Which product of the two is small?",
        "BᵀA has the shape [M, M]. Take `torch.linalg.slogdet` of I + BᵀA: determinants overflow, and may "
        "be negative.",
    ),
    why="det(I + ABᵀ) = det(I + BᵀA), by Sylvester's identity: an M×M matrix, made in O(DM²) operations.",
    mistakes=(
        Mistake(
            lambda A, B: torch.linalg.det(_small(A, B)).abs().log(),
            "at 50 columns with large numbers the determinant overflows. Use `slogdet`.",
        ),
        Mistake(
            lambda A, B: torch.logdet(_small(A, B)),
            "where the determinant is negative, its log is NaN. The absolute value is missing.",
        ),
        Mistake(
            lambda A, B: torch.linalg.slogdet(_small(A, B)),
            "`slogdet` returns two things, the sign and log|det|. The second is asked for.",
        ),
        Mistake(
            lambda A, B: torch.linalg.slogdet(_small(A, B)).sign,
            "`slogdet` returns two things, and this is the first, the sign.",
        ),
        Mistake(
            lambda A, B: (1 + (A * B).sum(0)).abs().log().sum(),
            "you use the diagonal of BᵀA alone, as if each pair of columns were a layer of its own. The pairs "
            "see each other.",
        ),
        Mistake(
            lambda A, B: (1 + (A * B).sum()).abs().log(),
            "1 + tr(BᵀA) is the determinant for M = 1 only.",
        ),
        Mistake(
            lambda A, B: torch.linalg.slogdet(B.mT @ A).logabsdet,
            "the identity matrix is missing: det(I + BᵀA), not det(BᵀA).",
        ),
        Mistake(
            lambda A, B: torch.linalg.slogdet(1 + B.mT @ A).logabsdet,
            "`1 + ...` adds 1 to every entry. The identity has ones on its diagonal only: `torch.eye`.",
        ),
        Mistake(
            lambda A, B: low_rank_log_det(A, B).exp(),
            "this is |det|; its log is asked for.",
        ),
        Mistake(
            lambda A, B: -low_rank_log_det(A, B),
            "the sign is flipped: this is the log-det of the inverse.",
        ),
        Mistake(
            lambda A, B: (
                torch.linalg.slogdet(
                    torch.eye(A.shape[-1], dtype=A.dtype) + A.mT @ A
                ).logabsdet
            ),
            "you multiply A by itself; B has not been used.",
        ),
        Mistake(
            lambda A, B: (
                torch.linalg.slogdet(
                    torch.eye(len(A), dtype=A.dtype) + B.mT @ A
                ).logabsdet
            ),
            "the identity has size M here, not D: it is added to BᵀA, of shape [M, M].",
        ),
        Mistake(
            _naive,
            "where ABᵀ has entries of 1e18, the identity beside them is lost in rounding, and the D×D "
            "matrix is singular. The small product has the same determinant.",
            also=(_naive_numpy, lambda A, B: _large(A, B).det().abs().log()),
        ),
    ),
    variants=(
        _by_eigenvalues,
        _one_column_after_another,
        _low_rank_numpy,
        lambda A, B: torch.linalg.slogdet(_small(B, A)).logabsdet,
    ),
)


# 4.6


def radial(z, z0, alpha, beta):
    D = z.shape[-1]
    r = torch.linalg.vector_norm(z - z0, dim=-1)
    h = 1 / (alpha + r)
    x = z + (beta * h)[..., None] * (z - z0)
    across = 1 + beta * h  # in D - 1 directions
    along = 1 + beta * h - beta * h**2 * r  # h' = -h²
    return x, (D - 1) * across.log() + along.log()


def _radial_cases(rng):
    def case(*shape):
        alpha = rng.uniform(0.3, 2)
        beta = rng.uniform(-0.9 * alpha, 3)
        z, z0 = rng.normal(size=shape), rng.normal(size=shape[-1])
        return z, z0, np.array(alpha), np.array(beta)

    one, two = np.array(1.0), np.array(2.0)
    return [
        (np.array([3.0, 4.0]), np.zeros(2), two, two),
        (np.array([1.0, 1.0]), np.array([1.0, 0.0]), one, np.array(-0.5)),
        case(4, 1),
        case(5, 2),
        case(5, 3),
        case(2, 3, 5),
        (np.ones((1, 3)), np.ones(3), two, one),  # at the centre
    ]


def _radial_factors(z, z0, alpha, beta):
    r = torch.linalg.vector_norm(z - z0, dim=-1)
    h = 1 / (alpha + r)
    return z.shape[-1], r, h, 1 + beta * h, 1 + beta * h - beta * h**2 * r


def _radial_with(log_det):
    """A mistake in the log-det alone."""

    def answer(z, z0, alpha, beta):
        return radial(z, z0, alpha, beta)[0], log_det(
            beta, *_radial_factors(z, z0, alpha, beta)
        )

    return answer


def _radial_by_autograd(z, z0, alpha, beta):
    def f(point):
        y = point - z0
        return point + beta * y / (alpha + y.square().sum().clamp(min=1e-24).sqrt())

    flat = z.reshape(-1, z.shape[-1])
    J = torch.stack([torch.autograd.functional.jacobian(f, point) for point in flat])
    x = torch.stack([f(point) for point in flat]).reshape(z.shape)
    return x, torch.linalg.slogdet(J).logabsdet.reshape(z.shape[:-1])


def _radial_by_volumes(z, z0, alpha, beta):
    """A sphere of radius r becomes one of radius R(r): det = R′ (R/r)^(D − 1), αs = α + β."""
    z, z0, alpha, beta = (np.asarray(array) for array in (z, z0, alpha, beta))
    r = np.sqrt(((z - z0) ** 2).sum(-1))
    ratio = (r + alpha + beta) / (r + alpha)
    slope = 1 + alpha * beta / (alpha + r) ** 2
    x = z0 + ratio[..., None] * (z - z0)
    return x, np.log(ratio ** (z.shape[-1] - 1) * slope)


RADIAL = Exercise(
    title="A radial layer",
    level="medium",
    kind="code",
    reference=radial,
    judge=Equal(cases=_radial_cases, parts=("x", "log_det")),
    insight="D − 1 directions lie along the sphere around z₀, and all stretch alike; one leads outwards, "
    "and stretches in its own way.",
    hints=(
        "The gradient of r is e = (z − z₀)/r, a vector of length 1, and z − z₀ = r·e. By the product rule J is a "
        "number times I plus a number times e eᵀ. Which two numbers?",
        "J = (1 + β·h) I + β·h′·r e eᵀ. What does it do to a vector across e, and to e itself? So the determinant is "
        "(1 + β·h)^(D−1) · (1 + β·h + β·h′·r), with h′ = −1/(α + r)².",
    ),
    why="J = (1 + βh) I + βh′ (z − z₀)(z − z₀)ᵀ/r. It has the eigenvalue 1 + βh for the D − 1 directions across "
    "z − z₀ and 1 + βh + βh′r along it.",
    mistakes=(
        Mistake(
            _radial_with(lambda beta, D, r, h, p, q: D * p.log()),
            "the term with h′ is missing: you treat all D directions alike, but one of them leads outwards, "
            "where h changes.",
        ),
        Mistake(
            _radial_with(lambda beta, D, r, h, p, q: D * p.log() + q.log()),
            "these are D + 1 factors. One of the D directions leads outwards; D − 1 are left across.",
        ),
        Mistake(
            _radial_with(lambda beta, D, r, h, p, q: p.log() + q.log()),
            "this is right in the plane alone. In D dimensions D − 1 directions lie across.",
        ),
        Mistake(
            _radial_with(lambda beta, D, r, h, p, q: q.log()),
            "this is the stretch outwards alone. The D − 1 directions across are stretched too.",
        ),
        Mistake(
            _radial_with(lambda beta, D, r, h, p, q: (D - 1) * p.log()),
            "these are the directions across alone. The one outwards has a factor too, with h′ in it.",
        ),
        Mistake(
            _radial_with(
                lambda beta, D, r, h, p, q: (
                    (D - 1) * p.log() + (p + beta * h**2 * r).log()
                )
            ),
            "the sign of h′ is flipped: h = 1/(α + r) falls as r grows.",
        ),
        Mistake(
            _radial_with(
                lambda beta, D, r, h, p, q: (D - 1) * p.log() + (p - beta * h**2).log()
            ),
            "in the factor outwards h′ is to be multiplied by r.",
        ),
        Mistake(
            _radial_with(
                lambda beta, D, r, h, p, q: (
                    (D - 1) * p.log() + (1 - beta * h**2 * r).log()
                )
            ),
            "the slope of r·h(r) has two terms, h and r·h′. Outwards you left out the first.",
        ),
        Mistake(
            _radial_with(lambda beta, D, r, h, p, q: D * q.log()),
            "the factors are exchanged or all alike: 1 + βh stands D − 1 times, the one with h′ once.",
            also=(_radial_with(lambda beta, D, r, h, p, q: p.log() + (D - 1) * q.log()),),
        ),
        Mistake(
            _radial_with(lambda beta, D, r, h, p, q: -(D - 1) * p.log() - q.log()),
            "the sign is flipped: this is the log-det of the way back, x to z.",
        ),
        Mistake(
            _radial_with(lambda beta, D, r, h, p, q: p ** (D - 1) * q),
            "this is the determinant; its log is asked for.",
        ),
        Mistake(
            _radial_with(lambda beta, D, r, h, p, q: ((D - 1) * p.log() + q.log()).sum()),
            "you sum over the batch. Each point has a log-det of its own.",
        ),
        Mistake(
            _radial_with(
                lambda beta, D, r, h, p, q: ((D - 1) * p.log() + q.log()).unsqueeze(-1)
            ),
            "log_det has a dimension of size 1 too many: one number a point.",
        ),
        Mistake(
            lambda z, z0, alpha, beta: (
                z + (beta / (alpha + (z - z0).norm(dim=-1)))[..., None] * z,
                radial(z, z0, alpha, beta)[1],
            ),
            "the point is pushed away from 0. The centre is z₀: the push goes along z − z₀.",
        ),
        Mistake(
            lambda z, z0, alpha, beta: radial(z, 0 * z0, alpha, beta),
            "z₀ has no say in your answer: r is the distance from z₀, and the push goes along z − z₀.",
        ),
        Mistake(
            lambda z, z0, alpha, beta: (
                z0 + (radial(z, z0, alpha, beta)[0] - z),
                radial(z, z0, alpha, beta)[1],
            ),
            "the push is added to the centre; it belongs to the point: x = z + β·h(r)·(z − z₀).",
        ),
        Mistake(
            lambda z, z0, alpha, beta: (
                z + (beta / (alpha + (z - z0).square().sum(-1)))[..., None] * (z - z0),
                radial(z, z0, alpha, beta)[1],
            ),
            "you took r² for r: the distance is the root of the sum of squares.",
        ),
        Mistake(
            lambda z, z0, alpha, beta: (
                z + (z - z0) * beta / (alpha + (z - z0).norm()),
                radial(z, z0, alpha, beta)[1],
            ),
            "you take one distance for the whole batch. Each point has its own: `norm(dim=-1)`.",
        ),
        Mistake(
            lambda z, z0, alpha, beta: (
                2 * z - radial(z, z0, alpha, beta)[0],
                radial(z, z0, alpha, beta)[1],
            ),
            "the push has the wrong sign: for β > 0 points move away from z₀.",
        ),
        Mistake(
            _radial_with(
                lambda beta, D, r, h, p, q: (D - 1) * p.log() + q.log() + 0 * (r / r)
            ),
            "all is well, but not at the centre itself: there r = 0, and (z − z₀)/r is 0/0. The formula of the "
            "determinant needs no division by r.",
        ),
    ),
    variants=(_radial_by_autograd, _radial_by_volumes),
)


# 4.7


def mended_layer(z, w, v, b):
    p = w @ v
    q = p.clamp(max=0)
    # s is meant to be 1 + wᵀu
    s = 0.001 + 0.999 * torch.exp(q / 0.999) + (p - q)
    u = v + (s - 1 - p) * w / (w @ w)
    h = torch.tanh(z @ w + b)
    x = z + u * h[..., None]
    log_det = torch.log(1 + (1 - h**2) * (w @ u))
    return x, log_det


def _least_stretch(w, v):
    p = w @ v
    q = p.clamp(max=0)
    return p, 0.001 + 0.999 * torch.exp(q / 0.999) + (p - q)


def _layer(z, w, u, b, push):
    """The layer with a push u, and with `push` in place of wᵀu in its log-det."""
    h = torch.tanh(z @ w + b)
    return z + u * h[..., None], torch.log(1 + (1 - h**2) * push)


def _lifted(w, v, divisor):
    p, s = _least_stretch(w, v)
    return v + (s - 1 - p) * w / divisor


def broken_layer(z, w, v, b):
    """What the notebook shows: two faults."""
    return _layer(z, w, _lifted(w, v, w.norm()), b, w @ v)


def _softplus_layer(z, w, v, b):
    p = w @ v
    u = v + (torch.nn.functional.softplus(p) - 1 - p) * w / (w @ w)
    return _layer(z, w, u, b, w @ u)


def _layer_cases(rng):
    def case(p, *shape):
        w, v = rng.normal(size=(2, shape[-1]))
        v = v + (p - w @ v) * w / (w @ w)  # wᵀv = p
        return rng.normal(size=shape), w, v, np.array(rng.normal())

    w, v = np.array([1.0, 2.0]), np.array([0.5, 0.25])
    return [
        (np.array([3.0, -1.0]), w, v, np.array(0.0)),
        (np.array([3.0, -1.0]), w, -2 * v, np.array(-0.5)),
        (np.array([3.0, -1.0]), w, -4 * v, np.array(-0.8)),
        case(1.5, 5, 3),
        case(-0.7, 4, 2),
        case(-2.5, 6, 3),
        case(-1.6, 2, 3, 4),
    ]


def _mended_with_s(z, w, v, b):
    p, s = _least_stretch(w, v)
    slope = torch.cosh(z @ w + b) ** -2
    x = z + (v + (s - 1 - p) * w / w.square().sum()) * torch.tanh(z @ w + b)[..., None]
    return x, torch.log1p(slope * (s - 1))


def _mended_by_autograd(z, w, v, b):
    return _planar_by_autograd(z, w, _lifted(w, v, w @ w), b)


def _mended_loop(z, w, v, b):
    """With plain `if`, and point by point."""
    p = float(w @ v)
    s = 1 + p if p >= 0 else 0.001 + 0.999 * math.exp(p / 0.999)
    return _planar_loop(z, w, v + (s - 1 - p) * w / w.norm() ** 2, b)


BUG = Exercise(
    title="Two bugs in a constraint",
    level="medium",
    kind="debug",
    reference=mended_layer,
    judge=Equal(cases=_layer_cases, parts=("x", "log_det")),
    insight="Where wᵀv ≥ 0 the constraint does nothing, u = v, and both faults sleep. Test a safeguard where "
    "it has work to do.",
    hints=(
        "Try w = (1, 2), v = (−1, −1), so that the constraint is needed: is 1 + wᵀu the number s? And is "
        "log_det what autograd finds?",
        "u is v plus a multiple of w, so that wᵀu grows by that multiple times wᵀw = ‖w‖². And the determinant is "
        "that of the map that is applied, with the push u, not v.",
    ),
    why="wᵀu = p + (s − 1 − p)·wᵀw/‖w‖² = s − 1, so 1 + wᵀu = s as promised. The map pushes along u, so its "
    "determinant has wᵀu.",
    mistakes=(
        Mistake(broken_layer, "this is the code as it was."),
        Mistake(
            lambda z, w, v, b: _layer(z, w, _lifted(w, v, w @ w), b, w @ v),
            "one fault is left: compare log_det with the vector that x is pushed along. x is right now.",
        ),
        Mistake(
            lambda z, w, v, b: _layer(
                z, w, _lifted(w, v, w.norm()), b, w @ _lifted(w, v, w.norm())
            ),
            "log_det belongs to x now. The other fault is left: 1 + wᵀu is not s, and may still be negative. "
            "Work out wᵀu.",
        ),
        Mistake(
            lambda z, w, v, b: _layer(
                z, w, _lifted(w, v, w.norm()), b, _least_stretch(w, v)[1] - 1
            ),
            "log_det is what it should be, but x is not: the u that pushes it has another wᵀu than s − 1.",
        ),
        Mistake(
            lambda z, w, v, b: _layer(z, w, _lifted(w, v, 1), b, w @ _lifted(w, v, 1)),
            "the division is gone altogether: wᵀu then grows by (s − 1 − p)·‖w‖².",
        ),
        Mistake(
            lambda z, w, v, b: _layer(
                z, w, _lifted(w, v, v @ v), b, w @ _lifted(w, v, v @ v)
            ),
            "you divide by ‖v‖². The step is along w; how long must it be to raise wᵀu by s − 1 − p?",
        ),
        Mistake(
            lambda z, w, v, b: _layer(
                z, w, _lifted(w, v, w.norm() ** 3), b, w @ _lifted(w, v, w.norm() ** 3)
            ),
            "now it is divided once too often: w/‖w‖ had one ‖w‖ already.",
        ),
        Mistake(
            lambda z, w, v, b: _layer(z, w, v, b, w @ v),
            "the constraint is gone: with u = v the layer folds space wherever wᵀv < −1.",
            also=(planar,),
        ),
        Mistake(
            lambda z, w, v, b: (
                broken_layer(z, w, v, b)[0],
                (1 + (1 - torch.tanh(z @ w + b) ** 2) * (w @ v)).abs().log(),
            ),
            "the absolute value hides the NaN, and no more. A constrained layer has no negative determinant.",
            also=(
                lambda z, w, v, b: (
                    mended_layer(z, w, v, b)[0],
                    (1 + (1 - torch.tanh(z @ w + b) ** 2) * (w @ v)).abs().log(),
                ),
            ),
        ),
        Mistake(
            lambda z, w, v, b: (
                mended_layer(z, w, v, b)[0],
                _least_stretch(w, v)[1].log().expand(z.shape[:-1]),
            ),
            "s is the stretch where a = 0 only. Elsewhere h′(a) is smaller, and it is missing.",
        ),
        Mistake(
            lambda z, w, v, b: (
                mended_layer(z, w, v, b)[0],
                torch.log(1 + (1 - torch.tanh(z @ w + b) ** 2) * _least_stretch(w, v)[1]),
            ),
            "x is right. In log_det s stands where wᵀu belongs; wᵀu is s − 1.",
        ),
        Mistake(
            _softplus_layer,
            "this is the constraint of Rezende and Mohamed, with log(1 + eᵖ). It is a good one, but another: here "
            "1 + wᵀu is to be the s of the code.",
        ),
    ),
    variants=(_mended_with_s, _mended_by_autograd, _mended_loop),
)


# 4.8


def wave_masses():
    # At each x1 two bells, whose heights (not densities) add
    across = (0.4 + 0.35) * math.sqrt(2 * math.pi)
    mass = 2 * 4 * across  # x1 from -4 to 4
    doubled = 2 * 8 * across
    with_envelope = 1 * across  # a density has mass 1
    return mass, doubled / mass, with_envelope


def _masses_on_a_grid():
    """By sums over a fine grid."""
    x2 = torch.linspace(-8, 5, 1301, dtype=torch.float64)

    def mass(L, envelope=None):
        x1 = torch.linspace(-L, L, 801, dtype=torch.float64)
        height = torch.ones_like(x1)
        if envelope is not None:
            height = torch.distributions.Normal(0.0, envelope).log_prob(x1).exp()
        upper = torch.sin(math.pi * x1 / 2)
        lower = upper - 3 * torch.sigmoid((x1 - 1) / 0.3)
        waves = torch.exp(-0.5 * ((x2 - upper[:, None]) / 0.4) ** 2)
        waves = waves + torch.exp(-0.5 * ((x2 - lower[:, None]) / 0.35) ** 2)
        lines = torch.trapezoid(waves, x2, dim=-1)
        return torch.trapezoid(height * lines, x1).item()

    return mass(4.0), mass(8.0) / mass(4.0), mass(16.0, envelope=2.0)


_ROOT = math.sqrt(2 * math.pi)


def _with_width(width, factor=2.0):
    """The three numbers, if the integral over x₂ is that of a bell of this width."""
    return 8 * width * _ROOT, factor, width * _ROOT


NO_NORMALISER = Exercise(
    title="U4 has no normaliser",
    level="medium",
    kind="derive",
    reference=wave_masses,
    judge=Equal(
        parts=("the mass for L = 4", "the factor", "the mass with the envelope"), tol=2e-3
    ),
    insight="Waves, forks and all that depends on x₁ alone only shift the bells, and a shift costs no mass: each x₁ "
    "has 0.75·√(2π). So the mass grows with L without end, and any envelope that is a density in x₁ gives Z = 0.75·√(2π).",
    hints=(
        "What is exp(−U4), without the log? Integrate it over x₂ first, for a fixed x₁. Do w₁ and w₃ matter for that?",
        "For each x₁ exp(−U4) is a sum of two bells in x₂, each of height 1; one with standard deviation σ has the "
        "integral σ·√(2π). Then only x₁ is left, over an interval of length 2L, or with a weight of mass 1.",
    ),
    why="∫ exp(−½((x₂ − c)/σ)²) dx₂ = σ·√(2π) for every c, and the two bells have σ = 0.4 and 0.35: together "
    "0.75·√(2π) = 1.880. Times 8 it is 15.04, twice as much for twice the interval; times the mass 1 of the envelope "
    "it is 1.880.",
    mistakes=(
        Mistake(
            _with_width(0.4),
            "this is the first branch alone, of width 0.4. exp(−U4) is a sum of two.",
        ),
        Mistake(
            _with_width(0.35),
            "this is the second branch alone, of width 0.35. exp(−U4) is a sum of two.",
        ),
        Mistake(
            ((5 * 0.4 + 3 * 0.75) * _ROOT, 8.85 / 4.25, 0.508 * _ROOT),
            "you count the second branch only where the fork is open, right of x₁ = 1. To the left the two lie on each "
            "other, and their heights add all the same: exp(−U4) is about 2 on the crest.",
        ),
        Mistake(
            _with_width(0.4 * 0.35),
            "you multiplied the widths. The bells are added, so their integrals are.",
        ),
        Mistake(
            _with_width(math.hypot(0.4, 0.35)),
            "you added the squares of the widths, as for a sum of two independent noises. Here two heights are added, "
            "and so their integrals.",
        ),
        Mistake(
            _with_width(0.4**2 + 0.35**2),
            "0.4 and 0.35 are the standard deviations of the bells; you took their squares.",
        ),
        Mistake(
            (6.0, 2.0, 0.75),
            "the integral of a bell of height 1 is its standard deviation times √(2π); that factor is missing.",
        ),
        Mistake(
            (16.0, 2.0, 2.0),
            "you took each bell for a normal density, of mass 1. Both have the height 1, and it is their mass that is "
            "asked for.",
        ),
        Mistake(
            (6 * math.sqrt(math.pi), 2.0, 0.75 * math.sqrt(math.pi)),
            "√π·σ is the integral of exp(−t²/σ²). With the ½ in the exponent there is a √2 more.",
        ),
        Mistake(
            (3 * _ROOT, 2.0, 0.75 * _ROOT),
            "the window |x₁| ≤ L has the length 2L.",
        ),
        Mistake(
            _with_width(0.75 / 2),
            "you took the mean of the two, as in a mixture with weights ½. exp(−U4) has no weights: its terms are added "
            "as they stand.",
        ),
        Mistake(
            _with_width(0.75, 1.0),
            "you let the mass settle. But each piece of the waves has the same mass, however far out it lies.",
        ),
        Mistake(
            _with_width(0.75, 4.0),
            "the window becomes longer, not wider: the bells have the same widths everywhere.",
        ),
        Mistake(
            _with_width(0.75, 12 * _ROOT),
            "this is the mass for L = 8; by which factor has it grown?",
        ),
        Mistake(
            (6 * _ROOT, 2.0, 2 * _ROOT * 0.75 * _ROOT),
            "your envelope is exp(−x₁²/8) alone. The normal density N(x₁; 0, 2²) has a factor 1/(2√(2π)) before it, "
            "and so the mass 1.",
        ),
        Mistake(
            (6 * _ROOT, 2.0, 2 * 0.75 * _ROOT),
            "a normal density has mass 1, whatever its width: σ = 2 plays no part.",
        ),
        Mistake(
            (6 * _ROOT, 2.0, math.log(0.75 * _ROOT)),
            "this is log Z; the mass Z itself is asked for.",
        ),
    ),
    variants=(
        (15.04, 2, 1.88),
        torch.tensor([15.0398, 2.0, 1.87997]),
        _masses_on_a_grid(),
    ),
)


# 4.9


def read_a_loss():
    log_Z = 1.50
    loss = -1.30
    kl = loss + log_Z
    bound = -loss  # log Z is at least that
    # The loss minus its lowest value, -log Z, is the KL:
    # run 1: -0.0001 ± 0.0002   run 2: -0.212 ± 0.009
    # run 3: +0.6931 ± 0.0001, which is log 2
    impossible, lost_a_mode = 2, 3
    return kl, bound, impossible, lost_a_mode


READ = Exercise(
    title="What a reverse loss says",
    level="medium",
    kind="derive",
    reference=read_a_loss,
    judge=Equal(
        parts=(
            "the divergence",
            "the bound on log Z",
            "the impossible run",
            "the lost mode",
        ),
        tol=2e-3,
    ),
    insight="−loss ≤ log Z, always, and the distance is the divergence. Without log Z you know the bound, and "
    "not how far you are from it. Nor does the error tell: that of run 3, without one mode, is the smallest.",
    hints=(
        "Put p = p̃/Z into KL(q‖p) = E_q[log q − log p]. What is the loss more or less than the divergence?",
        "loss = KL(q‖p) − log Z, and KL ≥ 0. So add 1.50 to each number, and look at it in standard errors. A flow "
        "that has all its mass on one of two equal modes pays log 2 = 0.693.",
    ),
    why="KL = −1.30 + 1.50 = 0.20; −loss = 1.30 ≤ 1.50. Run 1 puts the KL 0.0001 below zero, less than its error: "
    "chance. Run 2 puts it 0.212 below, more than twenty errors: it cannot be, so log q is not the log-density of its "
    "samples, or log Z is not that of p̃. Run 3 has KL = 0.6931 = log 2, and log q − log p is close to that at every "
    "sample, hence the small error.",
    mistakes=(
        Mistake(
            (-2.80, 1.30, 2, 3),
            "log p = log p̃ − log Z, so log Z is added to the loss, not subtracted; and a divergence is never "
            "negative.",
        ),
        Mistake(
            (2.80, 1.30, 2, 3),
            "log Z is added to the loss as it stands, with its sign: −1.30 + 1.50.",
        ),
        Mistake(
            (-1.30, 1.30, 2, 3),
            "this is the loss. It is the divergence only if p̃ is normalised, log Z = 0.",
        ),
        Mistake(
            (1.30, 1.30, 2, 3),
            "this is minus the loss: the bound on log Z. The divergence is what the bound lacks.",
        ),
        Mistake(
            (-0.20, 1.30, 2, 3),
            "the sign is flipped: a divergence is never negative.",
        ),
        Mistake(
            (0.20, -1.30, 2, 3),
            "the loss is E_q[log q − log p̃]. The bound is E_q[log p̃ − log q]: it has the other sign.",
        ),
        Mistake(
            (0.20, math.exp(1.30), 2, 3),
            "this bounds Z; log Z is asked for, in nats.",
        ),
        Mistake(
            (0.20, 1.50, 2, 3),
            "this is log Z itself. What does the run alone say, without knowing it?",
        ),
        Mistake(
            (0.20, 1.70, 2, 3),
            "a lower bound lies below log Z = 1.50.",
        ),
        Mistake(
            (0.20, 1.30, 1, 3),
            "run 1 is below −log Z by less than its standard error. The divergence is not negative, but an "
            "estimate of it may well be, by chance.",
        ),
        Mistake(
            (0.20, 1.30, 3, 2),
            "the two are exchanged: no loss can lie below −log Z = −1.50, and a lost mode makes it higher.",
        ),
        Mistake(
            (0.20, 1.30, 2, 1),
            "run 1 is at the very bottom, up to chance: nothing is lost there.",
        ),
        Mistake(
            (0.20, 1.30, 3, 3),
            "the loss of run 3 is high, and that is possible: the flow is bad. Impossible is a loss below −log Z.",
        ),
    ),
    variants=(
        (0.2, 1.3, 2, 3),
        torch.tensor([0.2, 1.3, 2.0, 3.0]),
        [np.float64(-1.3) + 1.5, 1.3, 2, 3],
    ),
)


# 4.10


def invert(x, w, u, b):
    c = w @ u
    A = x @ w + b  # the sum a + c tanh(a), for a = wᵀz + b
    low, high = A - c.abs(), A + c.abs()
    for _ in range(100):
        a = (low + high) / 2
        below = a + c * torch.tanh(a) < A
        low = torch.where(below, a, low)
        high = torch.where(below, high, a)
    return x - u * torch.tanh(a)[..., None]


def _invert_cases(rng):
    def case(c, size, *shape, b=0.5, spread=2.0):
        """A layer with wᵀu = c and ‖w‖ = size, and points that it has moved."""
        w, u = rng.normal(size=(2, shape[-1]))
        w = w / np.linalg.norm(w)
        u = u - (w @ u) * w + c / size * w
        w = size * w
        z = spread * rng.normal(size=shape)
        return z + np.tanh(z @ w + b)[..., None] * u, w, u, np.array(b)

    return [
        (np.array([2.0, 0.0]), np.array([1.0, 0.0]), np.array([0.5, 0.0]), np.array(0.0)),
        (
            np.array([3.0, 1.0]),
            np.array([2.0, -1.0]),
            np.array([4.0, -2.0]),
            np.array(0.5),
        ),
        case(3.0, 1.0, 6, 2),
        case(-0.6, 1.0, 4, 3),
        case(-0.999, 2.0, 3, 2, b=1.0, spread=0.1),
        case(4.0, 0.5, 5, 1),
        case(20.0, 30.0, 8, 2, spread=0.02),
        case(0.5, 1.0, 4, 2, spread=1000.0),
        case(-0.7, 0.5, 2, 3, 4),
    ]


def _back(x, w, u, b, a):
    return x - u * torch.tanh(a)[..., None]


def _fixed_point(steps):
    def answer(x, w, u, b):
        z = x
        for _ in range(steps):
            z = x - u * torch.tanh(z @ w + b)[..., None]
        return z

    return answer


def _newton(steps, start):
    def answer(x, w, u, b):
        c, A = w @ u, x @ w + b
        a = start * A
        for _ in range(steps):
            h = torch.tanh(a)
            a = a - (a + c * h - A) / (1 + c * (1 - h**2))
        return _back(x, w, u, b, a)

    return answer


def _bisected(x, w, u, b, c, centre):
    A = x @ w + b
    low, high = centre * A - (w @ u).abs(), centre * A + (w @ u).abs()
    for _ in range(100):
        a = (low + high) / 2
        below = a + c * torch.tanh(a) < A
        low, high = torch.where(below, a, low), torch.where(below, high, a)
    return _back(x, w, u, b, a)


def _upside_down(x, w, u, b):
    """From A − c to A + c, also where c is negative."""
    c, A = w @ u, x @ w + b
    low, high = A - c, A + c
    for _ in range(100):
        a = (low + high) / 2
        below = a + c * torch.tanh(a) < A
        low, high = torch.where(below, a, low), torch.where(below, high, a)
    return _back(x, w, u, b, a)


def _by_the_library(x, w, u, b):
    c, A = w @ u, x @ w + b

    def value_and_log_slope(a):
        return a + c * torch.tanh(a), torch.log1p(c * (1 - torch.tanh(a) ** 2))

    a = monotone_root(value_and_log_slope, A, A - c.abs(), A + c.abs())
    return _back(x, w, u, b, a)


def _one_by_one(x, w, u, b):
    """Bisection with plain numbers, point by point."""
    c = float(w @ u)
    found = []
    for point in x.reshape(-1, x.shape[-1]):
        A = float(w @ point + b)
        low, high = A - abs(c), A + abs(c)
        while low < (middle := (low + high) / 2) < high:
            if middle + c * math.tanh(middle) < A:
                low = middle
            else:
                high = middle
        found.append(point - u * math.tanh(low))
    return torch.stack(found).reshape(x.shape)


INVERT = Exercise(
    title="Undo a planar layer",
    level="medium",
    kind="code",
    reference=invert,
    judge=Equal(cases=_invert_cases),
    insight="D numbers are unknown, and one search for one number finds them: along w alone does the layer "
    "bend anything. A bracket that must contain the root makes the search safe.",
    hints=(
        "Multiply x = z + u·h(a) by wᵀ and add b. The result is one equation for the one number a.",
        "a + c·tanh a = A with c = wᵀu and A = wᵀx + b. The left side increases, and a lies between A − |c| and "
        "A + |c|, since |tanh| < 1 (the chapter's A and A/s do as well): halve that bracket. Then z = x − u·tanh a.",
    ),
    why="wᵀx + b = a + wᵀu·tanh a increases in a where wᵀu > −1, so there is one root, and bisection cannot miss "
    "it. (Newton's method is faster. Started at a = 0, where tanh is steepest, it converges here from any point; "
    "started at a = A it may jump to and fro.)",
    mistakes=(
        Mistake(
            _fixed_point(100),
            "repeating z ← x − u·tanh(wᵀz + b) settles only if |wᵀu|·h′ < 1. For larger wᵀu it jumps to and fro "
            "between two points. Solve for one number, in a bracket.",
            also=(_fixed_point(101),),
        ),
        Mistake(
            _newton(100, 1.0),
            "from a = A Newton's method jumps to and fro where wᵀu is large: the slope is close to 1 on both sides, "
            "and steep between. Keep it in a bracket, or think about where it should start.",
            also=(_newton(101, 1.0),),
        ),
        Mistake(
            _newton(1, 0.0),
            "this is one step from a = 0, as if tanh a were a. The equation is not linear: go on.",
        ),
        Mistake(
            _fixed_point(1),
            "you put x into tanh, where z belongs; but z is what you look for.",
        ),
        Mistake(
            lambda x, w, u, b: invert(x, w, u, 0 * b),
            "b is missing: wᵀx + b = a + wᵀu·tanh a.",
        ),
        Mistake(
            lambda x, w, u, b: _bisected(x, w, u, b, w @ u, centre=0.0),
            "your bracket lies around 0. The root lies between A − |c| and A + |c|, with A = wᵀx + b.",
        ),
        Mistake(
            _upside_down,
            "where wᵀu is negative, A + wᵀu is the lower end of your bracket, and A − wᵀu the upper one.",
        ),
        Mistake(
            lambda x, w, u, b: _bisected(x, w, u, b, torch.ones_like(w @ u), centre=1.0),
            "you solve a + tanh a = A: the factor wᵀu is missing.",
        ),
        Mistake(
            lambda x, w, u, b: 2 * x - invert(x, w, u, b),
            "the sign is flipped: x = z + u·tanh a, so the push has to be taken away.",
        ),
        Mistake(
            lambda x, w, u, b: _newton(60, 0.0)(x, w, u, b) @ w + b,
            "this is a = wᵀz + b, one number a point. The point z is asked for: z = x − u·tanh a.",
        ),
        Mistake(
            lambda x, w, u, b: x - u * (invert(x, w, u, b) @ w + b)[..., None],
            "you take u·a away; the layer has added u·tanh a.",
        ),
        Mistake(
            planar,
            "you undo nothing: x is sent through the layer once more, and x and its log-det come back.",
        ),
        Mistake(
            lambda x, w, u, b: planar(x, w, u, b)[0],
            "you undo nothing: x is sent through the layer once more.",
        ),
    ),
    variants=(_newton(60, 0.0), _by_the_library, _one_by_one),
)


# 4.11


def attach(a, A, c):
    h = torch.tanh(a)
    slope = 1 + c * (1 - h**2)
    step = (a + c * h - A) / slope  # 0, but not its gradient
    return a - step


def _root_cases(rng):
    def case(a, c):
        return a, a + c * np.tanh(a), c

    return [
        case(np.array(0.0), np.array(1.0)),
        case(np.array(1.0), np.array(-0.5)),
        case(rng.normal(size=4), np.array(2.0)),
        case(rng.normal(size=5), rng.uniform(-0.9, 3, 5)),
        case(rng.normal(size=(3, 2)), np.array(-0.8)),
    ]


def _values_and_gradients(made, a, A, c):
    """The returned a, and the gradients of its sum by A and by c."""
    if made is None or made is ... or isinstance(made, tuple):
        return made
    if not callable(made):
        raise TypeError(f"a function of (a, A, c) is expected, not {type(made).__name__}")
    a, A, c = (torch.as_tensor(part) for part in (a, A, c))
    A, c = A.requires_grad_(), c.requires_grad_()
    out = made(a, A, c)
    if out is None or out is ...:
        return None
    if not isinstance(out, torch.Tensor):
        raise TypeError(f"a tensor with a gradient is expected, not {type(out).__name__}")
    total = out.sum() + 0 * (A.sum() + c.sum())  # so that each has a gradient, if only 0
    return (out.detach(), *torch.autograd.grad(total, (A, c)))


class _Implicit(torch.autograd.Function):
    """The implicit function theorem as a backward pass of its own."""

    @staticmethod
    def forward(ctx, a, A, c):
        ctx.save_for_backward(a, c)
        return a.clone()

    @staticmethod
    def backward(ctx, upstream):
        a, c = ctx.saved_tensors
        by_A = upstream / (1 + c * torch.cosh(a) ** -2)
        return None, by_A, (-torch.tanh(a) * by_A).sum_to_size(c.shape)


def _surrogate(a, A, c):
    """The gradient written down, and hung on a value of 0."""
    h = torch.tanh(a)
    by_A = (1 / (1 + c * (1 - h**2))).detach()
    return a + by_A * (A - A.detach()) - by_A * h * (c - c.detach())


def _through_the_search(a, A, c):
    """Every step of a Newton search of its own, remembered by autograd."""
    a = torch.zeros_like(A)
    for _ in range(50):
        h = torch.tanh(a)
        a = a - (a + c * h - A) / (1 + c * (1 - h**2))
    return a


ATTACH = Exercise(
    title="My inverse is right, and its gradient is zero",
    level="hard",
    kind="code",
    reference=attach,
    judge=Equal(
        cases=_root_cases,
        parts=("a", "the gradient by A", "the gradient by c"),
        call=_values_and_gradients,
    ),
    insight="However the root was found (Newton, bisection, a table), its gradient follows from the "
    "equation alone. The search needs no memory, and a wrong gradient is not hidden in a hundred steps.",
    hints=(
        "Differentiate a + c·tanh a = A on both sides: da·(1 + c·h′) + dc·h = dA. This is the implicit function "
        "theorem; with c = wᵀu = s − 1 it stands in the chapter.",
        "One more Newton step, a − (a + c·tanh a − A)/(1 + c·h′(a)), does not move the root, since it stands "
        "there already. But autograd sees A and c in it.",
    ),
    why="The step is 0 at the root, so the value stays. Its derivative is −1/(1 + c·h′) by A and h/(1 + c·h′) by c, "
    "and a minus the step has da/dA = 1/(1 + c·h′), da/dc = −h/(1 + c·h′), as the theorem wants.",
    mistakes=(
        Mistake(
            lambda a, A, c: a,
            "the values are right, and the gradients are zero: a came from a search without gradients, and knows "
            "nothing of A and c.",
            also=(
                lambda a, A, c: a.clone().requires_grad_(),
                lambda a, A, c: attach(a, A.detach(), c.detach()),
                lambda a, A, c: attach(a, A, c).detach(),
            ),
        ),
        Mistake(
            lambda a, A, c: 2 * a - attach(a, A, c),
            "both gradients have the wrong sign: Newton's step is subtracted from a.",
        ),
        Mistake(
            lambda a, A, c: attach(a, A, c.detach()),
            "the gradient by A is right. That by c is zero: c moves the root too.",
        ),
        Mistake(
            lambda a, A, c: attach(a, A.detach(), c),
            "the gradient by c is right. That by A is zero: A moves the root too.",
        ),
        Mistake(
            lambda a, A, c: A - c * torch.tanh(a),
            "da/dA comes out as 1, as if a on the right side did not move. The step has to be divided by the slope "
            "1 + c·h′.",
        ),
        Mistake(
            lambda a, A, c: a - (a + c * torch.tanh(a) - A) / (2 - torch.tanh(a) ** 2),
            "the slope of a + c·tanh a is 1 + c·h′; the factor c is missing.",
        ),
        Mistake(
            lambda a, A, c: (
                a - (a + c * torch.tanh(a) - A) / (1 + c * (1 - torch.tanh(a)))
            ),
            "the slope of tanh is 1 − tanh² a, with a square.",
        ),
        Mistake(
            lambda a, A, c: a - (a + c * torch.tanh(a) - A) / (1 + c * torch.tanh(a)),
            "the slope has h′(a) = 1 − tanh² a in it, not tanh a.",
        ),
        Mistake(
            lambda a, A, c: a - (a + c * torch.tanh(a) - A) / (1 + c),
            "1 + c is the slope at a = 0 only; elsewhere it is 1 + c·h′(a).",
        ),
        Mistake(
            lambda a, A, c: (
                a - (a + c * torch.tanh(a) - A) / (c * (1 - torch.tanh(a) ** 2))
            ),
            "the slope of a + c·tanh a is 1 + c·h′; the 1 is missing.",
        ),
        Mistake(
            lambda a, A, c: (
                a - (a + c * torch.tanh(a) - A) * (1 + c * (1 - torch.tanh(a) ** 2))
            ),
            "you multiply by the slope; Newton's step is divided by it.",
        ),
        Mistake(
            lambda a, A, c: (
                (a + c * torch.tanh(a) - A) / (1 + c * (1 - torch.tanh(a) ** 2))
            ),
            "this is the step, which is 0. Subtract it from a.",
            also=(lambda a, A, c: attach(a, A, c) - a,),
        ),
        Mistake(
            lambda a, A, c: attach(a, A, c.detach()) - (attach(a, A.detach(), c) - a),
            "the gradient by A is right. That by c has the wrong sign: with dA = 0, da·(1 + c·h′) is minus dc·h.",
        ),
    ),
    variants=(_Implicit.apply, _surrogate, _through_the_search),
)


# 4.12


def trained_planar_flow():
    log_p = mf.data.U1().log_prob
    torch.manual_seed(0)
    flow = mf.planar_flow(2, layers=12)
    mf.fit_energy(flow, log_p, steps=1000, lr=0.03)
    return flow


class Measure(NamedTuple):
    """The reverse gap and its error; the share of samples with x₁ > 0; by how much a log-det is
    off; and how far the map is from an affine one."""

    nats: float
    error: float
    right: float
    off: float
    bend: float


_ENOUGH = 0.15  # nats
_NORMAL = 3.5  # the best normal law in the middle has 3.27, the untrained flow 4.60


def _reverse_gap(flow):
    if why := refused(flow):
        return why
    torch.manual_seed(11)
    with torch.no_grad():
        z = flow.base.rsample(torch.Size([20_000]))
        x, log_det = flow.transform(z)
        log_q = flow.base.log_prob(z) - log_det
        log_p = mf.data.U1().log_prob(x.double().cpu())
        gaps = log_q.double().cpu() - log_p
        half = flow.transform((z[:500] + z[500:1000]) / 2)[0]
        bend = (half - (x[:500] + x[500:1000]) / 2).abs().max().item()
    jacobians = [
        torch.autograd.functional.jacobian(lambda p: flow.transform(p)[0], row)
        for row in z[:20]
    ]
    true = torch.linalg.slogdet(torch.stack(jacobians)).logabsdet
    off = (log_det[:20] - true).abs().max().item()
    right = (x[:, 0] > 0).double().mean().item()
    return Measure(
        gaps.mean().item(), gaps.std().item() / len(z) ** 0.5, right, off, bend
    )


def _reverse_gap_is_wrong(gap):
    if not math.isfinite(gap.nats):
        return "log q − log p is NaN or infinite at some of its own samples."
    if not gap.off <= 0.05:
        return f"its log-det is off by {gap.off:.2g} nats from what autograd finds."
    if gap.nats > _ENOUGH:
        return (
            f"on its own samples its KL divergence is {gap.nats:.3f} ± {gap.error:.3f} nats; under "
            f"{_ENOUGH} is asked for. More layers, more steps, another lr or start?"
        )
    return None


class _Unsigned(mf.Transform):
    """x = 2z, with the log-det of the way back."""

    def forward(self, z, context=None):
        return 2 * z, torch.full_like(z[..., 0], -2 * math.log(2))


def _energy_fit(*layers, steps=200, start=0.0):
    torch.manual_seed(0)
    first = mf.TriangularAffine(2)
    with torch.no_grad():
        first.shift[0] = start
    flow = mf.Flow(mf.Compose(first, *layers))
    if steps:
        log_density = mf.data.U1().log_unnormalized
        mf.fit_energy(flow, log_density, steps=steps, lr=0.05)
    return flow


def _by_a_loop():
    """A training loop of one's own, in float64."""
    target = mf.data.U1()
    torch.manual_seed(0)
    flow = mf.planar_flow(2, layers=12).double()
    optimiser = torch.optim.Adam(flow.parameters(), lr=0.03)
    fading = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 1000)
    for _ in range(1000):
        z = torch.randn(256, 2, dtype=torch.float64)
        x, log_det = flow.transform(z)
        loss = (flow.base.log_prob(z) - log_det - target.log_prob(x)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        fading.step()
    return flow


TRAIN = Exercise(
    title="Planar layers for a ring in two parts",
    level="hard",
    kind="explore",
    reference=trained_planar_flow,
    judge=Measured(_reverse_gap, _reverse_gap_is_wrong),
    insight="The flow has never seen a sample of U1, only its density. Each layer pushes along one direction and "
    "leaves the rest to the others: one or two leave 0.3 nats and more, eight less than 0.1 as a rule.",
    hints=(
        "Build `mf.planar_flow(2, layers=...)` and hand it, with `target.log_prob`, to `mf.fit_energy`. "
        "Look at how the last losses change with the number of layers: with `log_prob`, whose log Z is 0, the loss "
        "is the divergence itself.",
        "`layers=12`, `steps=1000`, `lr=0.03` are enough as a rule. Reverse KL has a lottery of starts: if a run ends "
        "badly, or on one arc alone, begin again with another `torch.manual_seed`.",
    ),
    why="Twelve planar layers with 5 numbers each, and four for the normal law before them, 64 in all, end below 0.1 nats from most starts.",
    mistakes=(
        Mistake(
            lambda: mf.Flow(_Unsigned(2)),
            "its log-det is not that of its map, so what it calls log q is no log-density. Is a sign flipped, or a "
            "part left out?",
            when=lambda gap: gap.off > 0.05,
        ),
        Mistake(
            lambda: _energy_fit(*(mf.Planar(2) for _ in range(2)), start=2.5),
            "it has lost one of the two arcs: nearly all of its samples lie on one side of x₁ = 0. That alone costs "
            "log 2 = 0.693 nats. Try another start, or a higher lr.",
            when=lambda gap: not 0.02 < gap.right < 0.98,
        ),
        Mistake(
            lambda: mf.planar_flow(2, layers=8),
            "it is hardly better than the start, where each planar layer is the identity. Did `mf.fit_energy` "
            "run on this flow, with enough steps and a small enough lr, and was it given log p̃, minus the energy?",
            when=lambda gap: _NORMAL < gap.nats < math.inf,
        ),
        Mistake(
            lambda: _energy_fit(),
            "its map is affine, so its law is one normal law, whatever the training. Where are the layers that bend?",
            when=lambda gap: gap.bend < 1e-3,
        ),
        Mistake(
            lambda: _energy_fit(mf.Planar(2)),
            "it leaves about what one or two planar layers do: two bumps, where two arcs are wanted. Take more "
            "layers; and if you have, train longer or from another start.",
            when=lambda gap: 0.3 < gap.nats < 1.0,
        ),
    ),
    variants=(_by_a_loop,),
)


EXERCISES = (
    BY_HAND,
    LEMMA,
    FOLDS,
    PLANAR,
    LOW_RANK,
    RADIAL,
    BUG,
    NO_NORMALISER,
    READ,
    INVERT,
    ATTACH,
    TRAIN,
)
