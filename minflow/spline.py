"""Rational-quadratic splines: monotone curves, closed form both ways.

Between two knots the curve is a quotient of two quadratics, so its inverse is the root
of one quadratic. Bins stand in the first dimension, as parameters do everywhere: what is
summed over them is summed for the whole batch at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.nn.functional import pad

from minflow.nets import check_whole
from minflow.scalar_map import ScalarMap, check_bound, soft_bound

FLOOR = 0.03  # the least width and height of a bin, as a fraction of an even share
SLOPE_BOUND = 3.0  # the largest |log| of a knot's slope against those of its two bins


@dataclass(frozen=True)
class Spline(ScalarMap):
    """A rational-quadratic spline on [−B, B], the identity outside.

    It is evaluated from x to z: in a bin of width w and height h from the knot (x₀, z₀)
    to the next, with the slopes s = h/w of the chord and d₀, d₁ at the two knots,

        ξ = (x − x₀) / w,  δ = d₀ + d₁ − 2s,
        z = z₀ + h (s ξ² + d₀ ξ(1 − ξ)) / (s + δ ξ(1 − ξ)),
        dz/dx = s² (d₁ ξ² + 2s ξ(1 − ξ) + d₀ (1 − ξ)²) / (s + δ ξ(1 − ξ))².

    The 3K − 1 parameters are the logits of K widths and of K heights, and K − 1 raw
    log-slopes: an inner knot's slope is the harmonic mean of its two bins' s, times eʳ
    with r softly bounded. No bin is narrower or lower than 3 % of an even share.
    So no parameters, however large, make the curve too flat or too steep for float32.
    The slope at ±B is 1, so it joins the identity smoothly.

    Args:
        bins: K, at least 2.
        bound: B, half the width of the box; the data and the base should lie inside.

    Cost: closed form both ways; z to x solves a quadratic.

    Source: Durkan, Bekasov, Murray and Papamakarios 2019 (arXiv:1906.04032), section
    3.1, after Gregory and Delbourgo 1982 (doi:10.1093/imanum/2.2.123).

    >>> Spline(bins=4).forward(torch.tensor([0.5, 9.0]), torch.zeros(11, 2))[0]
    tensor([0.5000, 9.0000])
    """

    bins: int = 8
    bound: float = 4.0

    def __post_init__(self) -> None:
        check_whole("bins", self.bins, 2)
        check_bound(self.bound)

    @property
    def num_params(self) -> int:
        return 3 * self.bins - 1

    @property
    def soft_bounded(self) -> slice:
        return slice(2 * self.bins, 3 * self.bins - 1)

    def knots(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and z of the knots, (2, K + 1, *batch, D), and dz/dx, (K + 1, *batch, D)."""
        params = params.contiguous()  # sums over bins that lie side by side are slow
        edges, flat = _edges(params[: 2 * self.bins], self.bound)
        inner = _slopes(flat[:-1], flat[1:], params[2 * self.bins :])
        return edges, pad(inner, (0, 0) * (inner.dim() - 1) + (1, 1), value=1.0)

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        inside = z.clamp(-self.bound, self.bound)
        outside = inside != z
        x, log_slope = _solve(inside, *self.knots(params))
        return torch.where(outside, z, x), torch.where(outside, 0.0, log_slope)

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        inside = x.clamp(-self.bound, self.bound)
        outside = inside != x
        z, log_slope = evaluate(inside, *self.knots(params))
        return torch.where(outside, x, z), torch.where(outside, 0.0, log_slope)


@dataclass(frozen=True)
class CircularSpline(ScalarMap):
    """A rational-quadratic spline from the circle to itself, for angles in [−π, π].

    As `Spline` with B = π, but its slope at the two ends, which are one point, is one
    more parameter; then all is turned by an angle t, so that no point stays where it is:

        x = g(z) + t, less whole turns.

    The 3K + 1 parameters are K widths, K heights, K slopes and t, from which t = 0 is
    the start. Let the base be uniform on [−π, π]. A network sees an angle as its cosine
    and sine, and so does not know where the circle was cut.

    Args:
        bins: K, at least 2.

    Cost: as `Spline`.

    Source: Rezende et al. 2020 (arXiv:2002.02428), section 2.1.

    >>> CircularSpline().inverse(torch.tensor([3.0]), torch.zeros(25, 1))[0]
    tensor([3.])
    """

    bins: int = 8

    def __post_init__(self) -> None:
        check_whole("bins", self.bins, 2)

    @property
    def num_params(self) -> int:
        return 3 * self.bins + 1

    @property
    def soft_bounded(self) -> slice:
        return slice(2 * self.bins, 3 * self.bins)

    @property
    def domain(self) -> Constraint:
        # Its ends, which are one point, are in it: also when float32 has rounded them.
        return constraints.interval(-math.pi * (1 + 1e-7), math.pi * (1 + 1e-7))

    @property
    def codomain(self) -> Constraint:
        return self.domain

    def features(self, value: Tensor) -> tuple[Tensor, ...]:
        return value.cos(), value.sin()

    def knots(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and z of the knots, (2, K + 1, *batch, D), and dz/dx, (K + 1, *batch, D)."""
        params = params.contiguous()  # as in `Spline`
        edges, flat = _edges(params[: 2 * self.bins], math.pi)
        slopes = _slopes(flat.roll(1, 0), flat, params[2 * self.bins : -1])
        return edges, torch.cat([slopes, slopes[:1]])

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        x, log_slope = _solve(z, *self.knots(params))
        return _wrap(x + _wrap(params[-1])), log_slope

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        z, log_slope = evaluate(_wrap(x - _wrap(params[-1])), *self.knots(params))
        # torch's uniform law leaves out its upper end, so rounding must not end there.
        end = math.pi * (1 - torch.finfo(z.dtype).eps)
        return z + (z.clamp(-end, end) - z).detach(), log_slope


def _wrap(angle: Tensor) -> Tensor:
    """The same angle in [−π, π]; what is there already stays as it is."""
    angle = angle.fmod(2 * math.pi)  # exact, however large it was
    return angle - 2 * math.pi * torch.round(angle / (2 * math.pi))


def _edges(logits: Tensor, half: float) -> tuple[Tensor, Tensor]:
    """x and z of K + 1 knots from −half to half, (2, K + 1, …), and w/h of each bin.

    The logits are those of K widths, then of K heights.
    """
    logits = logits.unflatten(0, (2, -1))
    even = 2 * half / logits.shape[1]
    sizes = logits.softmax(1) * (2 * half * (1 - FLOOR)) + even * FLOOR
    end = sizes.new_full((), half).expand_as(sizes[:, :1])
    edges = torch.cat([-end, sizes[:, :-1].cumsum(1) - half, end], 1)
    return edges, sizes[0] / sizes[1]


def _slopes(left: Tensor, right: Tensor, raw: Tensor) -> Tensor:
    """dz/dx where bins of these w/h meet: the harmonic mean of h/w, times e^bounded."""
    return 2 * soft_bound(raw, SLOPE_BOUND).exp() / (left + right)


def _bins(value: Tensor, along: int, edges: Tensor, slopes: Tensor) -> list[Tensor]:
    """x₀, x₁, z₀, z₁, d₀ and d₁ of the bin of each value, an x (along 0) or z (1)."""
    left = (value >= edges[along, 1:-1]).sum(0)
    ends = torch.stack([left, left + 1])
    if slopes.shape[1:] != left.shape:  # one curve for a batch of values
        ones = (1,) * (left.dim() + 1 - slopes.dim())
        edges = edges.reshape(*edges.shape[:2], *ones, *edges.shape[2:])
        edges = edges.expand(-1, -1, *left.shape)
        slopes = slopes.reshape(len(slopes), *ones, *slopes.shape[1:])
        slopes = slopes.expand(-1, *left.shape)
    places = edges.gather(1, ends.expand(2, *ends.shape))
    return [*places.flatten(0, 1), *slopes.gather(0, ends)]


def evaluate(x: Tensor, edges: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """z and log dz/dx, for x in the box of knots like those of `Spline.knots`."""
    x0, x1, z0, z1, d0, d1 = _bins(x, 0, edges, slopes)
    w, h = x1 - x0, z1 - z0
    s, xi = h / w, ((x - x0) / w).clamp(0, 1)
    rest = 1 - xi
    mixed = xi * rest
    below = s + (d0 + d1 - 2 * s) * mixed
    rises = d1 * xi.square() + 2 * s * mixed + d0 * rest.square()
    log_slope = (rises * (s / below).square()).log()
    return z0 + h * (s * xi.square() + d0 * mixed) / below, log_slope


def _solve(z: Tensor, edges: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """x and log dx/dz."""
    x0, x1, z0, z1, d0, d1 = _bins(z, 1, edges, slopes)
    w, h = x1 - x0, z1 - z0
    s, share = h / w, ((z - z0) / h).clamp(0, 1)
    rest = 1 - share
    # (z − z₀) / h = share is a quadratic in ξ. Its root in [0, 1], written without a
    # difference of like numbers, so that rounding never leaves the bin:
    near, far = 2 * s * share, 2 * s * rest
    t, product = d0 * rest - d1 * share, near * far
    root = (t * t + product).sqrt()
    falls = t < 0
    size = root + torch.where(falls, -t, t)
    xi = near / (near + torch.where(falls, product / size, size))
    # By the implicit function theorem, dξ/dshare = (s + δ ξ(1 − ξ)) / root.
    below = s + (d0 + d1 - 2 * s) * xi * (1 - xi)
    return x0 + w * xi, (below / (s * root)).log()
