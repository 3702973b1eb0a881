"""Maps that move points along a few directions: determinants of size M instead of D.

A planar or Sylvester layer adds to z a vector that depends on M numbers aᵢ only. By
Sylvester's identity det(I + AB) = det(I + BA) its determinant is one of size M, and each
layer keeps 1 + wᵀu, or what stands for it, at FLOOR or above: so it can be inverted
whatever its parameters are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minflow.nets import mlp, steered, widths
from minflow.scalar_map import soft_bound
from minflow.solve import monotone_root
from minflow.transform import Transform

FLOOR = 1e-3  # the least stretch: at 0 a layer flattens space, below it folds it
LEAK = 0.1


def _tanh(a: Tensor) -> tuple[Tensor, Tensor]:
    h = a.tanh()
    return h, 1 - h.square()


def _leaky_relu(a: Tensor) -> tuple[Tensor, Tensor]:
    slope = torch.where(a < 0, LEAK, 1.0).to(a)
    return slope * a, slope


# h and its slope: h(0) = 0, and the slope is above 0 and at most 1.
ACTIVATIONS = {"tanh": _tanh, "leaky_relu": _leaky_relu}


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products along the last dimension; one matrix product if b is one vector."""
    return a @ b if b.dim() == 1 else (a * b).sum(-1)


def _times(points: Tensor, matrix: Tensor) -> Tensor:
    """Each point, a row, times the matrix of its place in the batch; both broadcast."""
    if matrix.dim() == 2:
        return points @ matrix
    return (points.unsqueeze(-2) @ matrix).squeeze(-2)


def invertible(v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """The vector u next to v for which 1 + wᵀu is at least FLOOR, and that number s.

        p = wᵀv,  s = 1 + p where p >= 0,  s = FLOOR + c exp(p / c) elsewhere,
        u = v + (s − 1 − p) w / ‖w‖²,  c = 1 − FLOOR.

    Across w, u is v; where p >= 0 it is v altogether. s is made of p (s − 1 is CELU's
    curve) and never of wᵀu, which large weights would round to −1. At w = 0, u = v.

    Args:
        v, w: shape (*batch, D).

    Returns:
        u of shape (*batch, D) and s of shape (*batch).

    Source: Rezende and Mohamed 2015 (arXiv:1505.05770), appendix A.1, who take
    s = log(1 + eᵖ): there v = 0 is no identity.
    """
    p = _dot(v, w)
    along = nn.functional.celu(p, 1 - FLOOR)  # wᵀu, which is s − 1
    square = _dot(w, w) + torch.finfo(w.dtype).tiny
    u = torch.addcmul(v, ((along - p) / square).unsqueeze(-1), w)
    with torch.no_grad():  # if v is large along w, rounding has left some of it in u
        rest = ((along - _dot(u, w)) / square).unsqueeze(-1) * w
    return u + rest, 1 + along


def _stretch(slope: Tensor, s: Tensor) -> Tensor:
    """log(1 + h′ wᵀu), the log of a mean of 1 and s."""
    return torch.log1p(slope * (s - 1))


def _solve(target: Tensor, s: Tensor, activation: str) -> Tensor:
    """The a with a + (s − 1) h(a) = target; it lies between target and target / s."""
    h = ACTIVATIONS[activation]
    target, s = torch.broadcast_tensors(target, s)

    def value_and_log_slope(a: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = h(a)
        return a + (s - 1) * value, _stretch(slope, s)

    with torch.no_grad():
        ends = target, target / s
        lower, upper = torch.minimum(*ends), torch.maximum(*ends)
        # What is added up: (s − 1) h(a) too, and |h(a)| is at most |a|, for tanh also 1.
        summed = target.abs() + (s - 1).abs() * torch.maximum(-lower, upper).clamp(max=1)
    return monotone_root(value_and_log_slope, target, lower, upper, 4 * summed)


class Planar(Transform):
    """x = z + u h(a), a = wᵀz + b: a push along u that changes along w only.

        log|det df/dz| = log(1 + h′(a) wᵀu)

    Space expands about the hyperplane a = 0 if wᵀu > 0, contracts if wᵀu < 0, and shears
    if wᵀu = 0. The learned numbers are w, v and b; u is v, moved along w so that
    1 + wᵀu >= 0.001 (see `invertible`). It starts as the identity, v = 0, with a
    random w and b.

    Args:
        dim: D.
        activation: h, "tanh", or "leaky_relu" with slope 0.1 below 0: then f bends space
            at the hyperplane and is linear on either side.
        context_dim: C; with C > 0 a network adds to (w, v, b) what it makes of the
            context.
        hidden: that network's hidden layers.

    Raises:
        ValueError: if the activation is another, or a size is no whole number.

    Cost: O(D) forward. The inverse too, and a root search for one number a point: from
    x, wᵀx + b = a + wᵀu h(a); then z = x − u h(a). With a context, one network pass each.

    Source: Rezende and Mohamed 2015 (arXiv:1505.05770), equations 10 to 12.

    >>> layer = Planar(2)
    >>> layer(torch.tensor([1.0, 2.0]))[0].detach()
    tensor([1., 2.])
    """

    def __init__(
        self,
        dim: int,
        activation: str = "tanh",
        context_dim: int = 0,
        hidden: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__(dim, context_dim)
        if activation not in ACTIVATIONS:
            names = " or ".join(map(repr, ACTIVATIONS))
            raise ValueError(f"activation must be {names}; got {activation!r}")
        self.activation, self.hidden = activation, widths(hidden)
        w, v, b = torch.randn(dim) / dim**0.5, torch.zeros(dim), torch.randn(1)
        self.params = nn.Parameter(torch.cat([w, v, b]))
        self.net = mlp(context_dim, hidden, 2 * dim + 1) if context_dim else None

    def parts(self, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """w and u, (*batch, D), b and s, (*batch); the batch is the context's."""
        numbers = steered(self.params, self.net, context)
        w, v, b = numbers.split([self.dim, self.dim, 1], -1)
        u, s = invertible(v, w)
        return w, u, b.squeeze(-1), s

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        w, u, b, s = self.parts(context)
        h, slope = ACTIVATIONS[self.activation](_dot(z, w) + b)
        return torch.addcmul(z, u, h.unsqueeze(-1)), _stretch(slope, s)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        w, u, b, s = self.parts(context)
        a = _solve(_dot(x, w) + b, s, self.activation)
        h, slope = ACTIVATIONS[self.activation](a)
        return x - u * h.unsqueeze(-1), -_stretch(slope, s)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation!r}"


class Radial(Transform):
    """x = z + β (z − z₀) / (α + r), r = ‖z − z₀‖: a push away from a point or to it.

        log|det df/dz| = (D − 1) log((r + αs) / (r + α))
                         + log((r² + 2αr + α²s) / (r + α)²),   s = 1 + β/α

    s >= 0.001 is the factor by which f stretches lengths at z₀; far out it moves points
    by β at most. The learned numbers are z₀, log α, softly bounded as in `Affine`, and
    p, with s = 1 + p where p >= 0 and 0.001 + 0.999 exp(p / 0.999) elsewhere. It starts
    as the identity, p = 0, with a random z₀.

    Args:
        dim: D.
        context_dim: C; with C > 0 a network adds to the learned numbers what it makes of
            the context.
        hidden: that network's hidden layers.

    Cost: O(D) each way. The inverse is closed form: with ρ = ‖x − z₀‖ the radius r
    solves r² + (αs − ρ) r − αρ = 0. With a context, one network pass each.

    Source: Rezende and Mohamed 2015 (arXiv:1505.05770), equation 14 and appendix A.2.

    >>> z = torch.tensor([1.0, 2.0])
    >>> torch.allclose(Radial(2)(z)[0], z)
    True
    """

    BOUND = 5.0

    def __init__(
        self, dim: int, context_dim: int = 0, hidden: Sequence[int] = (64, 64)
    ) -> None:
        super().__init__(dim, context_dim)
        self.hidden = widths(hidden)
        self.params = nn.Parameter(torch.cat([torch.randn(dim), torch.zeros(2)]))
        self.net = mlp(context_dim, hidden, dim + 2) if context_dim else None

    def parts(self, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """z₀, (*batch, D), α and s, (*batch, 1); the batch is the context's."""
        numbers = steered(self.params, self.net, context)
        centre, raw_log_alpha, p = numbers.split([self.dim, 1, 1], -1)
        alpha = soft_bound(raw_log_alpha, self.BOUND).exp()
        return centre, alpha, 1 + nn.functional.celu(p, 1 - FLOOR)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        centre, alpha, s = self.parts(context)
        r = torch.linalg.vector_norm(z - centre, dim=-1, keepdim=True)
        ratio = (r + alpha * s) / (r + alpha)  # of ‖x − z₀‖ to r
        return centre + ratio * (z - centre), self._log_det(r, alpha, s)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        centre, alpha, s = self.parts(context)
        rho = torch.linalg.vector_norm(x - centre, dim=-1, keepdim=True)
        half = 0.5 * (rho - alpha * s)
        root = (half.square() + alpha * rho).sqrt()
        # Two forms of one root: each adds where the other would subtract.
        far = half + root
        near = alpha * rho / (root - half.clamp(max=0))
        r = torch.where(half > 0, far, near)
        ratio = (r + alpha) / (r + alpha * s)
        return centre + ratio * (x - centre), -self._log_det(r, alpha, s)

    def _log_det(self, r: Tensor, alpha: Tensor, s: Tensor) -> Tensor:
        across = ((r + alpha * s) / (r + alpha)).log()
        along = 2 * torch.log(r + alpha)
        along = (r.square() + 2 * alpha * r + alpha.square() * s).log() - along
        return ((self.dim - 1) * across + along).squeeze(-1)


class Sylvester(Transform):
    """x = z + Q R tanh(a), a = R̃ Qᵀz + b: M planar layers in one, that see each other.

        log|det df/dz| = Σ_m log(1 + tanh′(a_m) R̃_mm R_mm)

    The M columns of Q are orthonormal, R and R̃ are upper triangular, and each
    s_m = 1 + R̃_mm R_mm >= 0.001 (see `invertible`). Q is a product of Householder
    reflections, cut to M columns. It starts as the identity, R = 0, all else random.

    Args:
        dim: D.
        rank: M, from 1 to D; D if None.
        context_dim: C; with C > 0 a network adds to all learned numbers what it makes of
            the context.
        hidden: that network's hidden layers.

    Raises:
        ValueError: if rank is no whole number from 1 to D.

    Cost: O(DM²) a layer, O(DM) a point, forward. The inverse too, and a root search for
    each of a_M, …, a_1 in turn, since R̃Qᵀx + b = a + R̃R tanh(a) is triangular. With a
    context, one network pass each, and O(DM²) a point.

    Source: van den Berg, Hasenclever, Tomczak and Welling 2018 (arXiv:1803.05649),
    theorems 1 and 2. (The second asks that R̃ can be inverted; the substitution above
    does not need it.)

    >>> layer = Sylvester(3, rank=2)
    >>> layer(torch.tensor([1.0, 2.0, 3.0]))[0].detach()
    tensor([1., 2., 3.])
    """

    rows_and_columns: Tensor

    def __init__(
        self,
        dim: int,
        rank: int | None = None,
        context_dim: int = 0,
        hidden: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__(dim, context_dim)
        m = dim if rank is None else rank
        if isinstance(m, bool) or not isinstance(m, int) or not 1 <= m <= dim:
            raise ValueError(f"rank must be a whole number from 1 to {dim}; got {rank!r}")
        self.rank, self.hidden = m, widths(hidden)
        # In D dimensions a D-th reflection would only change a sign, as R can.
        self._reflections, above = min(m, dim - 1), m * (m - 1) // 2
        self._sizes = [self._reflections * dim, above, above, m, m, m]
        normals, above_r, above_w, v, w, b = (torch.randn(size) for size in self._sizes)
        starts = normals, 0 * above_r, above_w, 0 * v, w, b  # R = 0
        self.params = nn.Parameter(torch.cat(starts))
        self.net = mlp(context_dim, hidden, sum(self._sizes)) if context_dim else None
        self.register_buffer("rows_and_columns", torch.triu_indices(m, m, 1))

    def parts(self, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """Q, (*batch, D, M), R and R̃, (*batch, M, M), b and s, (*batch, M)."""
        numbers = steered(self.params, self.net, context)
        normals, above_r, above_w, v, w, b = numbers.split(self._sizes, -1)
        u, s = invertible(v.unsqueeze(-1), w.unsqueeze(-1))
        rows, columns = self.rows_and_columns
        triangles = torch.diag_embed(torch.stack([u.squeeze(-1), w]))
        triangles[..., rows, columns] = torch.stack([above_r, above_w])
        frame = self._frame(normals.unflatten(-1, (self._reflections, self.dim)))
        return frame, *triangles, b, s

    def _frame(self, normals: Tensor) -> Tensor:
        """The first M columns of a product of reflections, (*batch, D, M)."""
        frame = torch.eye(self.dim, self.rank).to(normals)
        for v in nn.functional.normalize(normals, dim=-1).unsqueeze(-1).unbind(-3):
            frame = frame - 2 * v @ (v.mT @ frame)
        return frame

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, r, r_tilde, b, s = self.parts(context)
        h, slope = _tanh(_times(_times(z, q), r_tilde.mT) + b)
        push = _times(_times(h, r.mT), q.mT)
        return z + push, _stretch(slope, s).sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, r, r_tilde, b, s = self.parts(context)
        target = _times(_times(x, q), r_tilde.mT) + b  # a + R̃R h(a)
        coupling = r_tilde @ r
        a: list[Tensor] = []
        h = target[..., :0]
        for m in reversed(range(self.rank)):
            known = (coupling[..., m, m + 1 :] * h).sum(-1)
            a.insert(0, _solve(target[..., m] - known, s[..., m], "tanh"))
            h, slope = _tanh(torch.stack(a, -1))
        push = _times(_times(h, r.mT), q.mT)
        return x - push, -_stretch(slope, s).sum(-1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}"
