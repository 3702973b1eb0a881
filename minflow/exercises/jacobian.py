"""Exercises of chapter 2: the Jacobian.

The references have no annotations: they look like what the reader writes in the notebook.
"""
# mypy: allow-untyped-defs

import math

import numpy as np
import torch

from minflow.exercises import Equal, Exercise, Mistake

NUMBER = 2
LOG_2PI = math.log(2 * math.pi)


# 2.1


def disc_image():
    A = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    factor = torch.linalg.det(A).abs()  # |1 · 1 - 2 · 3| = 5
    return factor * math.pi, factor.log()


DISC_IMAGE = Exercise(
    title="The image of a disc",
    level="easy",
    kind="predict",
    reference=disc_image,
    judge=Equal(parts=("the area", "log|det A|"), tol=2e-3),
    insight="Every shape, not only a square, grows by the same factor |det A|. The sign of det A = −5 "
    "says that the disc is mirrored too.",
    hints=(
        "A linear map multiplies every area by the same factor. What is the area of the disc before?",
        "det A = ad − bc = 1·1 − 2·3. An area takes its absolute value.",
    ),
    why="The unit disc has area π, and |det A| = |1·1 − 2·3| = 5: the image has area 5π ≈ 15.71, and "
    "log|det A| = log 5 ≈ 1.609.",
    mistakes=(
        Mistake(
            (-5 * math.pi, math.log(5)),
            "an area is never negative. The sign of the determinant says that A mirrors.",
        ),
        Mistake(
            (-5 * math.pi, math.nan),
            "an area is never negative, and a negative number has no log: take the absolute value "
            "of the determinant.",
        ),
        Mistake(
            (math.pi, 0.0),
            "you multiplied the diagonal. That is the determinant of a triangular matrix, and A is "
            "full.",
        ),
        Mistake((7 * math.pi, math.log(7)), "a determinant is ad − bc, with a minus."),
        Mistake(
            (25 * math.pi, math.log(25)),
            "areas grow by |det A| itself, not by its square.",
        ),
        Mistake(
            (5.0, math.log(5)), "5 is the factor. The disc had the area π to begin with."
        ),
        Mistake(
            (5 * math.pi, math.log2(5)), "this is the log to base 2; here log is natural."
        ),
        Mistake(
            (5 * math.pi, math.log10(5)),
            "this is the log to base 10; here log is natural.",
        ),
        Mistake(
            (5 * math.pi, -math.log(5)),
            "the sign is flipped: −log 5 belongs to the way back, A⁻¹.",
        ),
    ),
    variants=((15.708, 1.609), torch.tensor([15.71, 1.6094]), [5 * math.pi, np.log(5.0)]),
)


# 2.2


def polar(p):
    r, theta = p[..., 0], p[..., 1]
    x = torch.stack([r * theta.cos(), r * theta.sin()], -1)
    return x, r.log()


def _columns(p):
    return tuple(polar(p)[0].unbind(-1))


def _polar_cases(rng):
    def points(*shape):
        r, theta = rng.uniform(0.2, 3, shape), rng.uniform(-3, 3, shape)
        return np.stack([r, theta], -1)

    return [
        (np.array([2.0, 0.0]),),
        (np.array([0.5, 1.0]),),
        (points(5),),
        (points(3, 4),),
    ]


def _polar_by_autograd(p):
    def f(q):
        return torch.stack([q[0] * q[1].cos(), q[0] * q[1].sin()])

    flat = p.reshape(-1, 2)
    J = torch.func.vmap(torch.func.jacrev(f))(flat)
    x = torch.func.vmap(f)(flat)
    return x.reshape(p.shape), torch.linalg.slogdet(J).logabsdet.reshape(p.shape[:-1])


def _plain_columns(f, dim=-1):
    """What `p[:, 0]` in place of `p[..., 0]` does: right for [N, 2], and for no other shape."""

    def answer(p):
        made, log_det = f(torch.stack([p[:, 0], p[:, 1]], -1))
        return torch.stack(made.unbind(-1), dim), log_det

    return answer


def _unpacked_polar(p):
    r, theta = p
    return torch.stack([r * theta.cos(), r * theta.sin()]), r.log()


_ANY_SHAPE = (
    "with a plain colon, `[:, 0]`, the code fits the shape [N, 2] alone. `[..., 0]` takes the first "
    "coordinate of points in any shape, of a single point too."
)


def _polar_numpy(p):
    p = np.asarray(p)
    r, theta = p[..., 0], p[..., 1]
    return np.stack([r * np.cos(theta), r * np.sin(theta)], -1), np.log(r)


POLAR = Exercise(
    title="Polar coordinates",
    level="easy",
    kind="code",
    reference=polar,
    judge=Equal(cases=_polar_cases, parts=("x", "log_det")),
    insight="The same cell of r and θ covers r times the area: far out, a step of the angle is a long "
    "way.",
    hints=(
        "Write down the four partial derivatives of (r cos θ, r sin θ) and take ad − bc.",
        "The determinant is r cos²θ + r sin²θ = r. The log-det is its log, one number a point.",
    ),
    why="J = [[cos θ, −r sin θ], [sin θ, r cos θ]], so det J = r, and r > 0.",
    mistakes=(
        Mistake(
            lambda p: (polar(p)[0], -p[..., 0].log()),
            "the sign is flipped: −log r is the log-det of the way back, from x to (r, θ).",
        ),
        Mistake(
            lambda p: (polar(p)[0], p[..., 0]),
            "this is the determinant r itself; its log is asked for.",
        ),
        Mistake(
            lambda p: (polar(p)[0], p[..., :1].log()),
            "log_det has a dimension of size 1 too many. Take r as `p[..., 0]`, not `p[..., :1]`: "
            "one number a point.",
        ),
        Mistake(
            lambda p: (polar(p)[0], p[..., 0].log().sum()),
            "you sum over the batch. Each point has a log-det of its own.",
        ),
        Mistake(
            lambda p: (polar(p)[0].flip(-1), p[..., 0].log()),
            "cosine and sine are exchanged: x₁ = r cos θ.",
        ),
        Mistake(
            lambda p: (polar(p)[0], 2 * p[..., 0].log()),
            "this is log r², twice too much: only one column of J carries a factor r.",
        ),
        Mistake(
            lambda p: (polar(p)[0], torch.zeros_like(p[..., 0])),
            "your log-det is 0, so areas would stay. But a step of θ moves a point by r times that "
            "step.",
        ),
        Mistake(
            lambda p: polar(p)[0],
            "x is right, and the log-det is missing: return both, `x, log_det`.",
        ),
        Mistake(
            lambda p: polar(p)[::-1],
            "the two are exchanged: x comes first, then log_det.",
        ),
        Mistake(
            _plain_columns(polar),
            _ANY_SHAPE,
            also=(_plain_columns(polar, 1),),
        ),
        Mistake(
            _unpacked_polar,
            "`r, theta = p` takes p apart along its first dimension. The coordinates lie along the last: "
            "`r, theta = p.unbind(-1)`.",
        ),
        Mistake(
            lambda p: (torch.stack(_columns(p)), p[..., 0].log()),
            "x₁ and x₂ are stacked in front. The coordinates belong last: `torch.stack([x1, x2], -1)`.",
            also=(lambda p: (_columns(p), p[..., 0].log()),),
        ),
    ),
    variants=(_polar_by_autograd, _polar_numpy),
)


# 2.3


def two_entropies():
    L = torch.tensor([[2.0, 0, 0], [5, 3, 0], [-1, 4, 0.5]])
    log_det = L.diagonal().log().sum()  # log(2 · 3 · ½)
    of_normal = 3 / 2 * math.log(2 * math.pi * math.e)
    of_uniform = 0.0  # the log of a volume of 1
    return of_normal + log_det, of_uniform + log_det


_H3 = 1.5 * math.log(2 * math.pi * math.e)
_LOG3 = math.log(3)

ENTROPIES = Exercise(
    title="Entropies through a linear map",
    level="easy",
    kind="derive",
    reference=two_entropies,
    judge=Equal(parts=("H(Lz)", "H(Lu)"), tol=2e-3),
    insight="A linear map adds log|det L| to the entropy of any law. Whatever is not on the diagonal "
    "of L shears, and changes nothing.",
    hints=(
        "Put log q(x) = log p(z) − log|det L| into H = −E[log q(x)]. The log-det is constant.",
        "H(Lz) = H(z) + log|det L|, with H(z) = 3/2 · log(2πe) and H(u) = log 1 = 0. L is triangular.",
    ),
    why="log|det L| = log(2·3·½) = log 3 = 1.0986, so H(Lz) = 4.2568 + 1.0986 = 5.3554 and "
    "H(Lu) = 0 + 1.0986.",
    mistakes=(
        Mistake(
            (_H3, 0.0), "an entropy in nats changes under a map: log|det L| is missing."
        ),
        Mistake(
            (_H3 - _LOG3, -_LOG3),
            "the sign is flipped. |det L| = 3 > 1 spreads the mass, so the entropy grows.",
        ),
        Mistake(
            (_H3 + 2 * _LOG3, 2 * _LOG3),
            "you took log det of the covariance LLᵀ. That is 2 log|det L|, and the entropy has half "
            "of it.",
        ),
        Mistake(
            (_H3 + math.log(5.5), math.log(5.5)),
            "you took the log of the diagonal's sum; the determinant is its product.",
        ),
        Mistake(
            (_H3 / 3 + _LOG3, _LOG3),
            "½ log(2πe) is the entropy of one coordinate, and z has three.",
        ),
        Mistake((_H3 + 3, 3.0), "you added the determinant; its log is what is added."),
        Mistake(
            (1.5 * LOG_2PI + _LOG3, _LOG3),
            "you left out the mean of ½‖z‖², which is 3/2: each coordinate has ½ log(2πe), with the e.",
        ),
        Mistake(
            ((_H3 + _LOG3) / math.log(2), math.log2(3)),
            "these are bits; nats are asked for. Use the natural log.",
        ),
    ),
    variants=(
        (5.355, 1.0986),
        torch.tensor([5.3554, 1.099]),
        [np.float32(5.3554), 1.0986],
    ),
)


# 2.4


def two_blocks():
    A = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    B = torch.tensor([[0.0, 2.0], [-1.0, 6.0]])
    det = torch.linalg.det(A) * torch.linalg.det(B)  # 5 · 2
    return det, -det.abs().log()


BLOCKS = Exercise(
    title="Block triangular by hand",
    level="easy",
    kind="derive",
    reference=two_blocks,
    judge=Equal(parts=("det J", "log|det J⁻¹|"), tol=2e-3),
    insight="The block below does not matter. A coupling layer hides a whole network there.",
    hints=(
        "Find the block of zeros. Which two small blocks stand on the diagonal?",
        "det J = det A · det B, with det A = 2·3 − 1·1 and det B = 0·6 − 2·(−1). The inverse has the "
        "reciprocal.",
    ),
    why="det A = 5, det B = 2, so det J = 10; and det J⁻¹ = 1/10, whose log is −2.3026.",
    mistakes=(
        Mistake(
            (0.0, math.inf),
            "you multiplied the diagonal. The matrix is triangular in blocks only; inside a block "
            "the other entries count.",
        ),
        Mistake((10.0, math.log(10)), "the log-det of the inverse has the other sign."),
        Mistake(
            (10.0, 0.1), "1/10 is the determinant of the inverse; its log is asked for."
        ),
        Mistake(
            (7.0, -math.log(7)),
            "the determinants of the blocks multiply; they do not add.",
        ),
        Mistake((-10.0, -math.log(10)), "det B = 0·6 − 2·(−1) = +2: minus times minus."),
        Mistake((10.0, -1.0), "this is the log to base 10; here log is natural."),
    ),
    variants=((10, -2.303), torch.tensor([10.0, -2.3026]), [10.0, -np.log(10.0)]),
)


# 2.5


def both_orders():
    def f1(z):
        return torch.stack([z[0], z[1] * z[0].exp()])

    def f2(y):
        return torch.stack([y[0] + y[1] ** 2, 3 * y[1]])

    def log_det(f, z):
        J = torch.func.jacrev(f)(z)
        return torch.linalg.slogdet(J).logabsdet

    z = torch.tensor([1.0, 2.0])
    first_f1 = log_det(f1, z) + log_det(f2, f1(z))
    first_f2 = log_det(f2, z) + log_det(f1, f2(z))
    return first_f1, first_f2


ORDERS = Exercise(
    title="Two maps in two orders",
    level="medium",
    kind="derive",
    reference=both_orders,
    judge=Equal(parts=("first f₁, then f₂", "first f₂, then f₁"), tol=2e-3),
    insight="Each log-det is taken at the point that its own map receives. That is why the order "
    "matters, although sums do not care for it.",
    hints=(
        "Both maps have triangular Jacobians: det J₁ = exp(z₁) at the point z that f₁ receives, and "
        "det J₂ = 3 everywhere.",
        "In the second order f₁ receives f₂(1, 2) = (1 + 2², 3·2) = (5, 6), not (1, 2).",
    ),
    why="First f₁: log e¹ + log 3 = 2.0986. First f₂: log 3 + log e⁵ = 6.0986, since f₁ then receives "
    "(5, 6).",
    mistakes=(
        Mistake(
            (1 + _LOG3, 1 + _LOG3),
            "in the second order f₁ receives f₂(z), not z; its log-det has to be taken there.",
        ),
        Mistake(
            (5 + _LOG3, 1 + _LOG3),
            "the orders are exchanged: the map that comes first receives z.",
        ),
        Mistake(
            (_LOG3, 5 * _LOG3),
            "you multiplied the log-dets. Determinants multiply; logs add.",
        ),
        Mistake((1.0, 5.0), "f₂ stretches x₂ by 3; its log-det, log 3, is missing."),
        Mistake(
            (4.0, 8.0), "you added the determinant 3 of f₂; its log is what is added."
        ),
        Mistake(
            (3 * math.e, 3 * math.exp(5)),
            "these are the determinants; their logs are asked for.",
        ),
        Mistake(
            (-1 - _LOG3, -5 - _LOG3), "the sign is flipped: these are the ways back."
        ),
    ),
    variants=(
        (2.0986, 6.0986),
        (1 + math.log(3), 5 + math.log(3)),
        torch.tensor([2.099, 6.099]),
    ),
)


# 2.6


def log_abs_det(f, z):
    J = torch.func.vmap(torch.func.jacrev(f))(z)
    return torch.linalg.slogdet(J).logabsdet


def mirror(z):
    """z to (z₂, 2z₁): determinant −2."""
    return torch.stack([z[..., 1], 2 * z[..., 0]], -1)


def bend(z):
    y2 = z[..., 1] * torch.exp(z[..., 0] / 2)
    return torch.stack([z[..., 0] + y2**2 / 4, y2], -1)


def twist(z):
    """Three coordinates, each with a hand in the next."""
    a, b, c = z[..., 0], z[..., 1], z[..., 2]
    return torch.stack([2 * a + torch.sin(b), b + c**3 + c, a * 0.5 + c.exp()], -1)


def tiny(z):
    """Sixty coordinates, each a hundred-millionth of what it was."""
    return 1e-8 * z


def _log_abs_det_cases(rng):
    return [
        (mirror, np.array([[1.0, 2.0]])),
        (bend, np.array([[1.0, 2.0], [0.0, 1.0]])),
        (mirror, rng.normal(size=(3, 2))),
        (bend, rng.normal(size=(5, 2))),
        (twist, rng.normal(size=(7, 3))),
        (tiny, rng.normal(size=(2, 60))),
    ]


def _jacobians(f, z):
    return torch.func.vmap(torch.func.jacrev(f))(z)


def _log_abs_det_loop(f, z):
    found = []
    for point in z:
        J = torch.autograd.functional.jacobian(f, point)
        found.append(torch.linalg.slogdet(J)[1])
    return torch.stack(found)


def _log_abs_det_by_differences(f, z):
    """Central differences, in float64."""
    z, h = z.double(), 1e-5
    columns = [
        (f(z + h * e) - f(z - h * e)) / (2 * h) for e in torch.eye(z.shape[-1]).double()
    ]
    return torch.linalg.slogdet(torch.stack(columns, -1)).logabsdet


AUTOGRAD = Exercise(
    title="A log-det by automatic differentiation",
    level="medium",
    kind="code",
    reference=log_abs_det,
    judge=Equal(cases=_log_abs_det_cases),
    insight="You hold a judge for every log-det in this book. It needs D backward passes and D³ "
    "operations a point, so it tests, and formulas train.",
    hints=(
        "`torch.func.jacrev(f)` is a function that gives the Jacobian at one point. "
        "`torch.func.vmap` lets it take all rows.",
        "`torch.linalg.slogdet(J)` returns the sign and log|det J|, for a whole batch of matrices.",
    ),
    why="`jacrev` differentiates each output by all inputs; `vmap` does so for each row alone; "
    "`slogdet` works with logs and cannot underflow.",
    mistakes=(
        Mistake(
            lambda f, z: torch.linalg.det(_jacobians(f, z)).log(),
            "where f mirrors, the determinant is negative and its log is NaN. The absolute value is "
            "missing.",
            also=(lambda f, z: torch.logdet(_jacobians(f, z)),),
        ),
        Mistake(
            lambda f, z: torch.linalg.det(_jacobians(f, z)).abs().log(),
            "where D is large the determinant underflows: on 60 coordinates scaled by 1e-8 it "
            "is 0, and its log is −∞. Use `slogdet`.",
        ),
        Mistake(
            lambda f, z: torch.linalg.det(_jacobians(f, z)),
            "this is the determinant; the log of its absolute value is asked for.",
        ),
        Mistake(
            lambda f, z: torch.linalg.det(_jacobians(f, z)).abs(),
            "this is |det J|; its log is asked for.",
        ),
        Mistake(
            lambda f, z: torch.linalg.slogdet(_jacobians(f, z)).sign,
            "`slogdet` returns two things, and this is the first, the sign.",
        ),
        Mistake(
            lambda f, z: torch.linalg.slogdet(_jacobians(f, z)),
            "`slogdet` returns two things, the sign and log|det J|. The second is asked for.",
        ),
        Mistake(
            lambda f, z: torch.linalg.slogdet(torch.func.jacrev(f)(z)).logabsdet,
            "the Jacobian is taken of the whole batch, every row by every row. It belongs to one "
            "point: let `vmap` or a loop go through the rows.",
        ),
        Mistake(
            lambda f, z: torch.linalg.slogdet(torch.func.jacrev(f(z))(z)).logabsdet,
            "`jacrev` takes the function f itself, not its value f(z): `jacrev(f)` is the function that "
            "gives J, and `vmap(jacrev(f))(z)` has it for each row.",
            also=(
                lambda f, z: (
                    torch.linalg.slogdet(
                        torch.func.vmap(torch.func.jacrev(f(z)))(z)
                    ).logabsdet
                ),
                lambda f, z: (
                    torch.linalg.slogdet(torch.func.vmap(torch.func.jacrev(f))).logabsdet
                ),
            ),
        ),
        Mistake(
            lambda f, z: log_abs_det(f, z).sum(),
            "you sum over the batch. Each row has a log-det of its own.",
        ),
        Mistake(
            lambda f, z: log_abs_det(f, z)[:1].expand(len(z)),
            "every row gets the log-det of the first one; the Jacobian differs from point to point.",
        ),
        Mistake(
            lambda f, z: _jacobians(f, z).diagonal(dim1=-2, dim2=-1).abs().log().sum(-1),
            "you use the diagonal of J alone. That is right for triangular Jacobians only.",
        ),
        Mistake(
            lambda f, z: -log_abs_det(f, z),
            "the sign is flipped: this is the way back, x to z.",
        ),
    ),
    variants=(
        _log_abs_det_loop,
        _log_abs_det_by_differences,
        lambda f, z: (
            torch.linalg.svdvals(torch.func.vmap(torch.func.jacfwd(f))(z)).log().sum(-1)
        ),
    ),
)


# 2.7


def inverse_and_log_det(x):
    z1 = x[..., 0] - torch.sin(x[..., 1])
    z2 = x[..., 1] * torch.exp(-z1)
    return torch.stack([z1, z2], -1), -z1


def _plane_cases(rng):
    return [
        (np.array([1.0, 0.0]),),
        (np.array([1.0, 2.0]),),
        (rng.normal(size=(4, 2)),),
        (rng.normal(size=(2, 3, 2)),),
    ]


def _inverse_by_autograd(x):
    def f(z):
        y2 = z[1] * z[0].exp()
        return torch.stack([z[0] + y2.sin(), y2])

    flat = x.reshape(-1, 2)
    z1 = flat[:, 0] - flat[:, 1].sin()
    z = torch.stack([z1, flat[:, 1] / z1.exp()], -1)
    J = torch.func.vmap(torch.func.jacrev(f))(z)
    back = torch.linalg.slogdet(torch.linalg.inv(J)).logabsdet
    return z.reshape(x.shape), back.reshape(x.shape[:-1])


def _with_z2(x, z2):
    return torch.stack([x[..., 0] - torch.sin(x[..., 1]), z2], -1)


def _sine_of_too_much(x):
    z1 = x[..., 0] - torch.sin(x[..., 1] * torch.exp(x[..., 0]))
    return torch.stack([z1, x[..., 1] * torch.exp(-z1)], -1), -z1


def _inverse_numpy(x):
    x = np.asarray(x)
    z1 = x[..., 0] - np.sin(x[..., 1])
    return np.stack([z1, x[..., 1] / np.exp(z1)], -1), -z1


INVERSE = Exercise(
    title="The determinant of the inverse",
    level="medium",
    kind="code",
    reference=inverse_and_log_det,
    judge=Equal(cases=_plane_cases, parts=("z", "log_det")),
    insight="J of the inverse at x is the inverse of J at z: same number, other sign, and the point "
    "where it is taken is z.",
    hints=(
        "Undo the steps in the reverse order: from x₂ you know the argument of the sine, so z₁ comes "
        "first, then z₂.",
        "f is a chain of z ↦ (z₁, z₂ exp(z₁)) and of a shear: log|det J| = z₁ at z. The way back has "
        "the other sign, at the z that belongs to x.",
    ),
    why="x₂ = z₂ exp(z₁), so z₁ = x₁ − sin x₂ and z₂ = x₂ exp(−z₁). log|det J| = z₁ + 0, so the inverse "
    "has −z₁.",
    mistakes=(
        Mistake(
            lambda x: (inverse_and_log_det(x)[0], -x[..., 0]),
            "the log-det is −z₁, and you put x₁ there: the Jacobian was taken at x instead of z.",
        ),
        Mistake(
            lambda x: (inverse_and_log_det(x)[0], -inverse_and_log_det(x)[1]),
            "the sign is flipped: +z₁ is the log-det of the map z to x.",
        ),
        Mistake(
            lambda x: (
                torch.stack(
                    [x[..., 0] - x[..., 1].sin(), x[..., 1] * torch.exp(-x[..., 0])], -1
                ),
                inverse_and_log_det(x)[1],
            ),
            "z₂ = x₂ exp(−z₁), with the z₁ that you have found, not with x₁.",
        ),
        Mistake(
            lambda x: (
                torch.stack(
                    [
                        x[..., 0] + x[..., 1].sin(),
                        x[..., 1] * torch.exp(-x[..., 0] - x[..., 1].sin()),
                    ],
                    -1,
                ),
                -x[..., 0] - x[..., 1].sin(),
            ),
            "the sine is added on the way out, so it has to be subtracted on the way back.",
        ),
        Mistake(
            lambda x: (
                torch.stack(
                    [x[..., 0] + x[..., 1].sin(), x[..., 1] * x[..., 0].exp()], -1
                ),
                x[..., 0],
            ),
            "you undo nothing: x is sent through the steps of f once more.",
        ),
        Mistake(
            lambda x: (inverse_and_log_det(x)[0], inverse_and_log_det(x)[1].exp()),
            "this is the determinant of the inverse; its log is asked for.",
        ),
        Mistake(
            lambda x: (
                inverse_and_log_det(x)[0],
                inverse_and_log_det(x)[1].unsqueeze(-1),
            ),
            "log_det has a dimension of size 1 too many: one number a point.",
        ),
        Mistake(
            lambda x: (
                _with_z2(x, x[..., 1] * inverse_and_log_det(x)[0][..., 0].exp()),
                inverse_and_log_det(x)[1],
            ),
            "z₁ is right. But x₂ = z₂ exp(z₁), so x₂ has to be divided by exp(z₁), not multiplied.",
        ),
        Mistake(
            _sine_of_too_much,
            "the argument of the sine is z₂ exp(z₁), and that is x₂ itself, as it stands: no factor is "
            "to be added.",
        ),
        Mistake(
            lambda x: inverse_and_log_det(x)[0],
            "z is right, and the log-det is missing: return both, `z, log_det`.",
        ),
        Mistake(
            _plain_columns(inverse_and_log_det),
            _ANY_SHAPE,
            also=(_plain_columns(inverse_and_log_det, 1),),
        ),
    ),
    variants=(_inverse_by_autograd, _inverse_numpy),
)


# 2.8


def uniform_disc(u):
    r, angle = u[..., 0].sqrt(), 2 * math.pi * u[..., 1]
    x = torch.stack([r * angle.cos(), r * angle.sin()], -1)
    return x, torch.full_like(r, math.log(math.pi))


def _square_cases(rng):
    return [
        (np.array([0.25, 0.5]),),
        (np.array([0.81, 0.125]),),
        (rng.uniform(0.05, 0.95, size=(5, 2)),),
        (rng.uniform(0.05, 0.95, size=(2, 4, 2)),),
    ]


def _disc_of(u, r):
    angle = 2 * math.pi * u[..., 1]
    return torch.stack([r * angle.cos(), r * angle.sin()], -1)


def _disc_by_autograd(u):
    def f(v):
        return _disc_of(v, v[..., 0].sqrt())

    flat = u.reshape(-1, 2)
    return f(u), log_abs_det(f, flat).reshape(u.shape[:-1])


DISC = Exercise(
    title="A cousin of Box–Muller: the uniform disc",
    level="medium",
    kind="code",
    reference=uniform_disc,
    judge=Equal(cases=_square_cases, parts=("x", "log_det")),
    insight="The log-det is constant, so a uniform law stays uniform: its density is 1/π, one over the "
    "area of the disc.",
    hints=(
        "A chain of two: u to (r, θ) with r = √u₁ and θ = 2πu₂, then polar coordinates. Multiply "
        "the determinants.",
        "dr/du₁ = 1/(2√u₁) = 1/(2r), dθ/du₂ = 2π, and the polar map has r. What is left of r?",
    ),
    why="|det J| = 1/(2r) · 2π · r = π, everywhere. So log_det = log π = 1.1447 at every point. By (2.11) "
    "the density of x is 1/π wherever x lies in the disc: x is uniform on it.",
    mistakes=(
        Mistake(
            lambda u: (_disc_of(u, u[..., 0]), math.log(2 * math.pi) + u[..., 0].log()),
            "your radius is u₁ without the root. The log-det fits your map, but it is not constant: "
            "points crowd at the centre.",
        ),
        Mistake(
            lambda u: (uniform_disc(u)[0], math.log(2 * math.pi) + 0.5 * u[..., 0].log()),
            "the factor dr/du₁ = 1/(2√u₁) of the root is missing in your log-det.",
        ),
        Mistake(
            lambda u: (uniform_disc(u)[0], uniform_disc(u)[1] + math.log(2)),
            "your determinant is 2π, twice too much: the derivative of √u₁ has a ½.",
        ),
        Mistake(
            lambda u: (
                _disc_of(u / torch.tensor([1.0, 2 * math.pi]), u[..., 0].sqrt()),
                0 * u[..., 0] - math.log(2),
            ),
            "your angle is u₂ itself, which goes once round only if it is multiplied by 2π.",
            also=(
                lambda u: (
                    _disc_of(u / torch.tensor([1.0, 2 * math.pi]), u[..., 0].sqrt()),
                    uniform_disc(u)[1],
                ),
            ),
        ),
        Mistake(
            _plain_columns(uniform_disc),
            _ANY_SHAPE,
            also=(_plain_columns(uniform_disc, 1),),
        ),
        Mistake(
            lambda u: (uniform_disc(u)[0], 0.5 * u[..., 0].log()),
            "this is the log-det of the polar map alone. The step from u to (r, θ) has one too.",
        ),
        Mistake(
            lambda u: (uniform_disc(u)[0], uniform_disc(u)[1] - 0.5 * u[..., 0].log()),
            "this is the log-det of the step from u to (r, θ) alone. The polar map has one too.",
        ),
        Mistake(
            lambda u: (uniform_disc(u)[0], 0 * u[..., 0] - math.log(2)),
            "the factor dθ/du₂ = 2π is missing in your log-det.",
        ),
        Mistake(
            lambda u: (uniform_disc(u)[0], -uniform_disc(u)[1]),
            "the sign is flipped: the square of area 1 grows to a disc of area π.",
        ),
        Mistake(
            lambda u: (uniform_disc(u)[0], uniform_disc(u)[1].exp()),
            "this is the determinant π; its log is asked for.",
        ),
        Mistake(
            lambda u: (uniform_disc(u)[0], 0 * u[..., 0]),
            "a log-det of 0 would keep areas. But the square has area 1 and the disc π.",
        ),
        Mistake(
            lambda u: (uniform_disc(u)[0], math.log(math.pi)),
            "the value is right; but log_det has one number a point, the shape `u.shape[:-1]`.",
        ),
        Mistake(
            lambda u: (
                _disc_of(u, (-2 * u[..., 0].log()).sqrt()),
                math.log(2 * math.pi) - u[..., 0].log(),
            ),
            "this is Box–Muller itself, whose points are normal. Here the radius is √u₁.",
        ),
    ),
    variants=(
        _disc_by_autograd,
        lambda u: (uniform_disc(u)[0], torch.ones(u.shape[:-1]) * 1.1447299),
    ),
)


# 2.9


def mended_log_prob(x, L, b):
    z = torch.linalg.solve_triangular(
        L.mT, x - b, upper=True, left=False
    )  # points are rows: z Lᵀ = x - b
    log_p_z = -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)
    log_det = L.diagonal().log().sum()
    return log_p_z - log_det


def broken_log_prob(x, L, b):
    """What the notebook shows: two faults."""
    z = torch.linalg.solve_triangular(L, x - b, upper=False, left=False)
    return -0.5 * (z**2 + LOG_2PI).sum() - L.diagonal().log().sum()


def _sum_mended(x, L, b):
    z = torch.linalg.solve_triangular(L, x - b, upper=False, left=False)
    return -0.5 * (z**2 + LOG_2PI).sum(-1) - L.diagonal().log().sum()


def _solved(z_of, total=False):
    """The density with `z_of(x - b, L)` in place of z; `total` keeps the sum over everything."""

    def answer(x, L, b):
        terms = -0.5 * (z_of(x - b, L) ** 2 + LOG_2PI)
        return (terms.sum() if total else terms.sum(-1)) - L.diagonal().log().sum()

    return answer


def _diagonal_alone(centred, L):
    return torch.linalg.solve_triangular(L.mT, centred, upper=False, left=False)


def _as_columns(centred, L):
    return torch.linalg.solve_triangular(L, centred, upper=False)


def _left_as_columns(centred, L):
    return torch.linalg.solve_triangular(L, centred.mT, upper=False)


def _normal_cases(rng):
    def case(n, dim):
        L = np.tril(rng.normal(size=(dim, dim)))
        np.fill_diagonal(L, rng.uniform(0.5, 2, dim))
        return rng.normal(size=(n, dim)), L, rng.normal(size=dim)

    easy = (
        np.array([[2.0, -3.5]]),
        np.array([[2.0, 0.0], [1.0, 3.0]]),
        np.array([1.0, -1.0]),
    )
    return [easy, case(2, 2), case(5, 3), case(4, 5)]


BUG = Exercise(
    title="Two bugs in a triangular density",
    level="medium",
    kind="debug",
    reference=mended_log_prob,
    judge=Equal(cases=_normal_cases),
    insight="The transposed solve was invisible to any test of the log-det, and the sum over the batch "
    "to any test with one point. Test round trips, and batches.",
    hints=(
        "How many numbers come back for five points? And does `z @ L.mT + b` give x again?",
        "Points are rows, so x = z Lᵀ + b: the matrix on the right of z is the transpose, which is "
        "upper triangular. The sum over coordinates is `sum(-1)`.",
    ),
    why="x = L z + b for columns reads x = z Lᵀ + b for rows, so it is Lᵀ that has to be undone; and "
    "log p_z(z) sums over the D coordinates of each point alone.",
    mistakes=(
        Mistake(broken_log_prob, "this is the code as it was."),
        Mistake(
            _sum_mended,
            "there is one number a point now. The other fault is left: z is solved from z L = x − b, "
            "without the transpose.",
        ),
        Mistake(
            lambda x, L, b: (
                mended_log_prob(x, L, b).sum() + (len(x) - 1) * L.diagonal().log().sum()
            ),
            "one fault is left: the sum runs over the batch too. z is right now.",
        ),
        Mistake(
            lambda x, L, b: mended_log_prob(x, L, b) + 2 * L.diagonal().log().sum(),
            "the sign of the log-det was right before: the density is divided by det L.",
        ),
        Mistake(
            lambda x, L, b: (
                -0.5 * (((x - b) @ L.mT) ** 2 + LOG_2PI).sum(-1)
                - L.diagonal().log().sum()
            ),
            "you multiply by L. The way back to z has to undo L.",
        ),
        Mistake(
            _solved(_diagonal_alone),
            "`upper` does not fit the matrix: torch reads one triangle only, and you point it to the one "
            "that is empty. So it divides by the diagonal alone. L is lower triangular, `L.mT` upper.",
            also=(_solved(_diagonal_alone, total=True),),
        ),
        Mistake(
            _solved(_as_columns),
            "without `left=False` torch solves for columns, and the points are rows. Either keep "
            "`left=False`, or transpose x − b before and z after.",
            also=(_solved(_as_columns, total=True),),
        ),
        Mistake(
            _solved(_left_as_columns),
            "the sum runs over the points. Here it has to run over the D coordinates of each: with z of "
            "shape [N, D] that is `sum(-1)`.",
        ),
        Mistake(
            lambda x, L, b: mended_log_prob(x, L, b).unsqueeze(-1),
            "the values are right, but the shape is [N, 1]: sum without `keepdim`.",
        ),
        Mistake(
            lambda x, L, b: mended_log_prob(x, L, b) + (len(b) - 1) / 2 * LOG_2PI,
            "½ log 2π is subtracted once; each of the D coordinates has one.",
        ),
        Mistake(
            lambda x, L, b: torch.distributions.MultivariateNormal(b, L).log_prob(x),
            "`MultivariateNormal(b, L)` takes L for the covariance; L is its factor, `scale_tril`.",
        ),
    ),
    variants=(
        lambda x, L, b: torch.distributions.MultivariateNormal(b, scale_tril=L).log_prob(
            x
        ),
        lambda x, L, b: (
            -0.5 * (((x - b) @ torch.linalg.inv(L).mT) ** 2).sum(-1)
            - len(b) / 2 * LOG_2PI
            - torch.linalg.slogdet(L).logabsdet
        ),
    ),
)


# 2.10


def excess_nats(S, L):
    half = torch.linalg.solve_triangular(L, S, upper=False)
    M = torch.linalg.solve_triangular(L, half.mT, upper=False)
    log_det = torch.linalg.slogdet(M).logabsdet
    return 0.5 * (M.trace() - log_det - len(M))


def _covariance_cases(rng):
    def case(dim):
        root = np.tril(rng.normal(size=(dim, dim)))
        np.fill_diagonal(root, rng.uniform(0.5, 2, dim))
        L = np.tril(rng.normal(size=(dim, dim)))
        np.fill_diagonal(L, rng.uniform(0.5, 2, dim))
        return root @ root.T, L

    correlated = np.array([[1.0, 0.9], [0.9, 1.0]])
    return [
        (np.array([[4.0]]), np.array([[1.0]])),
        (np.array([[1.0]]), np.array([[2.0]])),
        (correlated, np.eye(2)),
        (correlated, np.linalg.cholesky(correlated)),
        case(3),
        case(5),
    ]


def _returned(S, L):
    return torch.linalg.inv(L) @ S @ torch.linalg.inv(L).mT


def _half_excess(M):
    return 0.5 * (M.trace() - torch.linalg.slogdet(M).logabsdet - len(M))


def _eigenvalue_terms(S, L):
    m = torch.linalg.eigvalsh(_returned(S, L))
    return 0.5 * (m - m.log() - 1)


def _excess_by_eigenvalues(S, L):
    return _eigenvalue_terms(S, L).sum()


def _excess_by_torch(S, L):
    zero = torch.zeros(len(S), dtype=S.dtype)
    normal = torch.distributions.MultivariateNormal
    return torch.distributions.kl_divergence(normal(zero, S), normal(zero, scale_tril=L))


EXCESS = Exercise(
    title="The price of a wrong covariance",
    level="medium",
    kind="code",
    reference=excess_nats,
    judge=Equal(cases=_covariance_cases),
    insight="This is the divergence from the best normal to yours. For unit variances, correlation ρ and "
    "L = I it is −½ log(1 − ρ²): the price of believing in independence.",
    hints=(
        "Subtract the smallest loss from the loss at (x̄, L). Both are in the derivation of the best "
        "fit, in terms of M = L⁻¹ S L⁻ᵀ.",
        "What is left is ½ Σ (m − log m − 1) over the eigenvalues m of M, and that is "
        "½ (tr M − log det M − D).",
    ),
    why="The sum of the eigenvalues is the trace, the sum of their logs is the log-determinant, and at "
    "the best fit each m is 1. For correlation 0.9 and L = I: M = S, with trace 2 and determinant "
    "1 − 0.81, so ½ (2 − log 0.19 − 2) = 0.830 nats.",
    mistakes=(
        Mistake(
            lambda S, L: excess_nats(S, L) + len(S) / 2,
            "at the best fit your price is D/2, and it should be 0: the loss there is not "
            "subtracted.",
        ),
        Mistake(lambda S, L: 2 * excess_nats(S, L), "the factor ½ is missing."),
        Mistake(
            lambda S, L: (
                0.5 * (len(S) * LOG_2PI + _returned(S, L).trace())
                + L.diagonal().log().sum()
            ),
            "this is the loss itself; the price is by how much it exceeds the smallest one.",
        ),
        Mistake(
            lambda S, L: excess_nats(S, L) + (len(S) - 1) / 2,
            "the 1 in m − log m − 1 stands there for each of the D eigenvalues.",
        ),
        Mistake(
            lambda S, L: _excess_by_torch(L @ L.mT, torch.linalg.cholesky(S)),
            "this is the divergence the other way round: the data have covariance S, and the mean is "
            "taken over the data.",
        ),
        Mistake(
            lambda S, L: 0.5 * (_returned(S, L).trace() - len(S)),
            "the log-determinant of M is missing: without it, a huge L would be free of charge.",
        ),
        Mistake(
            lambda S, L: -0.5 * torch.linalg.slogdet(_returned(S, L)).logabsdet,
            "the trace of M is missing: without it, a tiny L would be the best.",
        ),
        Mistake(
            lambda S, L: (
                0.5
                * (
                    (torch.linalg.inv(L).mT @ S @ torch.linalg.inv(L)).trace()
                    - torch.linalg.slogdet(_returned(S, L)).logabsdet
                    - len(S)
                )
            ),
            "a transpose has changed sides: M is L⁻¹ S L⁻ᵀ, the covariance of L⁻¹x.",
        ),
        Mistake(
            lambda S, L: _half_excess(torch.linalg.inv(L) @ S @ torch.linalg.inv(L)),
            "the second L⁻¹ has to be transposed: M is L⁻¹ S L⁻ᵀ, the covariance of L⁻¹x.",
        ),
        Mistake(
            lambda S, L: _half_excess(L @ S @ L.mT),
            "this is L S Lᵀ, the covariance after L. M belongs to the way back, L⁻¹.",
        ),
        Mistake(
            lambda S, L: (
                excess_nats(S, L) + torch.linalg.slogdet(_returned(S, L)).logabsdet
            ),
            "the sign of log det M is flipped: the loss has m − log m.",
        ),
        Mistake(
            lambda S, L: excess_nats(S, L) - 0.5 * L.diagonal().log().sum(),
            "log det(LLᵀ) is twice the sum of log L_dd, since L stands in it twice.",
        ),
        Mistake(
            _eigenvalue_terms,
            "these are the terms, one for each eigenvalue. The price is their sum.",
        ),
        Mistake(
            lambda S, L: excess_nats(S, L) / len(S),
            "you take the mean over the coordinates. The price is per point: a sum.",
        ),
        Mistake(
            lambda S, L: (
                0.5
                * (
                    _returned(S, L).trace()
                    - _returned(S, L).diagonal().log().sum()
                    - len(S)
                )
            ),
            "you take the diagonal of M for its log-determinant, but M is a full matrix.",
        ),
    ),
    variants=(_excess_by_eigenvalues, _excess_by_torch),
)


# 2.11


def ellipsoid():
    n = 200
    theta = (torch.arange(n) + 0.5) * math.pi / n

    def surface(angles):  # the unit sphere, then x3 doubled
        t, p = angles
        x = [t.sin() * p.cos(), t.sin() * p.sin(), 2 * t.cos()]
        return torch.stack(x)

    # The factor does not depend on phi: one meridian will do.
    angles = torch.stack([theta, torch.zeros(n)], -1)
    J = torch.func.vmap(torch.func.jacrev(surface))(angles)
    factor = torch.linalg.det(J.mT @ J).sqrt()
    area = factor.sum() * (math.pi / n) * 2 * math.pi
    return 4 / 3 * math.pi * 2, area.item()


_VOLUME = 8 / 3 * math.pi
_AREA = 2 * math.pi * (1 + 2 / math.sin(math.pi / 3) * math.pi / 3)  # the closed form
_WITHOUT_SINE = 30.437  # 2π ∫ √(1 + 3 sin²θ) dθ

ELLIPSOID = Exercise(
    title="Volume and surface of an ellipsoid",
    level="hard",
    kind="explore",
    reference=ellipsoid,
    judge=Equal(parts=("the volume", "the area"), tol=2e-3),
    insight="|det A| = 2 doubles the volume of anything. The surface grows by a factor that differs from "
    "place to place, and only an integral of √(det JᵀJ) tells: 21.48 here, in place of 4π = 12.57.",
    hints=(
        "The volume follows from a determinant at once. For the area, put x₃ = 2 cos θ into the "
        "parametrised sphere and find the two columns of J.",
        "The columns are orthogonal, with squared lengths cos²θ + 4 sin²θ and sin²θ. Sum "
        "sin θ √(1 + 3 sin²θ) over a fine grid in θ, times 2π.",
    ),
    why="The volume is 4π/3 · 2 = 8.378. The area is 2π ∫ sin θ √(1 + 3 sin²θ) dθ = 21.478; in closed "
    "form 2π (1 + 4π/(3√3)).",
    mistakes=(
        Mistake(
            (_VOLUME, 8 * math.pi),
            "you doubled the sphere's area. |det A| is the factor for volumes; a piece of surface "
            "that lies level is not stretched at all.",
        ),
        Mistake(
            (_VOLUME, 3.25 * math.pi**2),
            "the root is missing: the factor is √(det JᵀJ), not det JᵀJ.",
        ),
        Mistake(
            (_VOLUME, 4 * math.pi),
            "4π is the area of the sphere, before it is stretched.",
        ),
        Mistake(
            (4 / 3 * math.pi, _AREA),
            "a volume is multiplied by |det A|; this is the sphere's own.",
        ),
        Mistake(
            (_VOLUME, 2 * _AREA),
            "twice too much: θ runs from 0 to π and φ from 0 to 2π.",
        ),
        Mistake(
            (_VOLUME, _AREA / (2 * math.pi)),
            "the integral over φ, a factor 2π, is missing in the area.",
        ),
        Mistake(
            (_VOLUME, _WITHOUT_SINE),
            "the factor sin θ is missing: it is the length of the second column, ∂x/∂φ.",
        ),
    ),
    variants=((8.378, 21.48), (_VOLUME, _AREA), torch.tensor([8.3776, 21.478])),
)


# 2.12


def log_volume(Sigma):
    D = len(Sigma)
    log_ball = D / 2 * math.log(math.pi)
    log_ball = log_ball - math.lgamma(D / 2 + 1)
    return log_ball + 0.5 * torch.linalg.slogdet(Sigma).logabsdet


def _ellipsoid_cases(rng):
    def covariance(dim):
        root = np.tril(rng.normal(size=(dim, dim)))
        np.fill_diagonal(root, rng.uniform(0.5, 2, dim))
        return root @ root.T

    sizes = [(covariance(dim),) for dim in (2, 3, 4, 7)]
    return [(np.array([[4.0]]),), (np.diag([1.0, 4.0]),), *sizes, (0.01 * np.eye(200),)]


def _log_ball(dim):
    return dim / 2 * math.log(math.pi) - math.lgamma(dim / 2 + 1)


def _log_volume_by_recursion(Sigma):
    """V_D = V_{D−2} · 2π/D, from V₀ = 1 and V₁ = 2; and a Cholesky factor."""
    dim = len(Sigma)
    total = math.log(2) if dim % 2 else 0.0
    for d in range(3 if dim % 2 else 2, dim + 1, 2):
        total += math.log(2 * math.pi / d)
    return total + torch.linalg.cholesky(Sigma).diagonal().log().sum()


VOLUME = Exercise(
    title="The volume of an ellipsoid in D dimensions",
    level="hard",
    kind="derive",
    reference=log_volume,
    judge=Equal(cases=_ellipsoid_cases),
    insight="The unit ball itself shrinks to nothing: 5.26 in D = 5 is its largest volume, and in D = 100 "
    "it is below 1e-39. Only logarithms get there.",
    hints=(
        "The ellipsoid is the image of the unit ball under a linear map. Which one? Its determinant is "
        "√det Σ.",
        "For the ball: compute ∫ exp(−‖x‖²/2) dx = (2π)^(D/2) a second time in spheres of radius r, whose "
        "surface is D·V·r^(D−1). The integral over r is a Gamma function; its log is `math.lgamma`.",
    ),
    why="With Σ = LLᵀ the ellipsoid is L times the unit ball, so its volume is V det L = V √det Σ, and "
    "V = π^(D/2) / Γ(D/2 + 1).",
    mistakes=(
        Mistake(
            lambda Sigma: _log_ball(len(Sigma)) + torch.linalg.slogdet(Sigma).logabsdet,
            "the map is L with LLᵀ = Σ, so the factor is √det Σ: the ½ is missing.",
        ),
        Mistake(
            lambda Sigma: (
                _log_ball(len(Sigma)) - 0.5 * torch.linalg.slogdet(Sigma).logabsdet
            ),
            "the sign of log det Σ is flipped: a wider law has a larger ellipsoid.",
        ),
        Mistake(
            lambda Sigma: 0.5 * torch.linalg.slogdet(Sigma).logabsdet,
            "the volume of the unit ball is missing.",
        ),
        Mistake(
            lambda Sigma: math.log(math.pi) + 0.5 * torch.linalg.slogdet(Sigma).logabsdet,
            "π is the volume of the ball in the plane only.",
        ),
        Mistake(
            lambda Sigma: (
                math.log(4 / 3 * math.pi) + 0.5 * torch.linalg.slogdet(Sigma).logabsdet
            ),
            "4π/3 is the volume of the ball in three dimensions only.",
        ),
        Mistake(
            lambda Sigma: (
                log_volume(Sigma)
                + math.lgamma(len(Sigma) / 2 + 1)
                - math.lgamma(len(Sigma) // 2 + 1)
            ),
            "for odd D the Gamma function is needed between the whole numbers: D/2, with a single "
            "slash, and `math.lgamma`.",
        ),
        Mistake(
            lambda Sigma: log_volume(Sigma) + math.log(len(Sigma)),
            "this is D times too much: you took the surface of the unit ball for its volume.",
        ),
        Mistake(
            lambda Sigma: log_volume(Sigma) + math.log(len(Sigma) / 2),
            "the Gamma function is taken at D/2; it belongs at D/2 + 1.",
        ),
        Mistake(
            lambda Sigma: log_volume(Sigma).exp(),
            "this is the volume; its log is asked for.",
        ),
        Mistake(
            lambda Sigma: _log_ball(len(Sigma)) + 0.5 * torch.linalg.det(Sigma).log(),
            "at D = 200 det Σ = 1e-400 underflows to 0. Use `slogdet`.",
            also=(
                lambda Sigma: (
                    _log_ball(len(Sigma)) + math.log(math.sqrt(torch.linalg.det(Sigma)))
                ),
            ),
        ),
        Mistake(
            lambda Sigma: _log_ball(len(Sigma)) + 0.5 * Sigma.diagonal().log().sum(),
            "you took the diagonal of Σ for its determinant; a covariance is a full matrix.",
        ),
    ),
    variants=(_log_volume_by_recursion, lambda Sigma: np.float64(log_volume(Sigma))),
)


EXERCISES = (
    DISC_IMAGE,
    POLAR,
    ENTROPIES,
    BLOCKS,
    ORDERS,
    AUTOGRAD,
    INVERSE,
    DISC,
    BUG,
    EXCESS,
    ELLIPSOID,
    VOLUME,
)
