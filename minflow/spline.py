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

from minflow.elementwise import ScalarMap, soft_bound

FLOOR = 0.03  # the least width and height of a bin, as a fraction of an even share
EDGE = 3.141593  # just above π: an angle of π rounded up to float32 lies inside
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
        _check_bins(self.bins)
        if not 0 < self.bound < math.inf:
            raise ValueError(f"bound must be positive and finite; got {self.bound!r}")

    @property
    def num_params(self) -> int:
        return 3 * self.bins - 1

    @property
    def soft_bounded(self) -> slice:
        return slice(2 * self.bins, 3 * self.bins - 1)

    def knots(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x and z of the K + 1 knots and dz/dx there, each (K + 1, *batch, D)."""
        widths, heights, raw = params.split([self.bins, self.bins, self.bins - 1])
        x, z = _edges(widths, self.bound), _edges(heights, self.bound)
        chords = z.diff(dim=0) / x.diff(dim=0)
        inner = _slopes(chords[:-1], chords[1:], raw)
        ends = torch.ones_like(chords[:1])
        return x, z, torch.cat([ends, inner, ends])

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        inside, outside = z.clamp(-self.bound, self.bound), z.abs() > self.bound
        x, log_slope = _solve(inside, *self.knots(params))
        return torch.where(outside, z, x), torch.where(outside, 0.0, log_slope)

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        inside, outside = x.clamp(-self.bound, self.bound), x.abs() > self.bound
        z, log_slope = _evaluate(inside, *self.knots(params))
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
        _check_bins(self.bins)

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

    def features(self, value: Tensor) -> Tensor:
        return torch.cat([value.cos(), value.sin()], -1)

    def knots(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x and z of the K + 1 knots and dz/dx there, each (K + 1, *batch, D)."""
        widths, heights, raw = params[:-1].chunk(3)
        x, z = _edges(widths, math.pi), _edges(heights, math.pi)
        chords = z.diff(dim=0) / x.diff(dim=0)
        slopes = _slopes(chords.roll(1, 0), chords, raw)
        return x, z, torch.cat([slopes, slopes[:1]])

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        x, log_slope = _solve(z, *self.knots(params))
        return _wrap(x + _wrap(params[-1])), log_slope

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        z, log_slope = _evaluate(_wrap(x - _wrap(params[-1])), *self.knots(params))
        # torch's uniform law leaves out its upper end, so rounding must not end there.
        end = math.pi * (1 - torch.finfo(z.dtype).eps)
        return z + (z.clamp(-end, end) - z).detach(), log_slope


def _check_bins(bins: int) -> None:
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 2:
        raise ValueError(f"bins must be a whole number, at least 2; got {bins!r}")


def _wrap(angle: Tensor) -> Tensor:
    """The same angle in [−π, π]; what is there already stays as it is."""
    angle = angle.fmod(2 * math.pi)  # exact, however large it was
    return angle - 2 * math.pi * torch.round(angle / (2 * math.pi))


def _edges(logits: Tensor, half: float) -> Tensor:
    """K + 1 knots from −half to half, from the logits of the K distances."""
    even = 2 * half / logits.shape[0]
    sizes = even * (FLOOR + (1 - FLOOR) * logits.shape[0] * logits.softmax(0))
    end = torch.full_like(sizes[:1], half)
    return torch.cat([-end, sizes[:-1].cumsum(0) - half, end])


def _slopes(left: Tensor, right: Tensor, raw: Tensor) -> Tensor:
    """dz/dx where bins with these chords meet: their harmonic mean, times e^bounded."""
    return 2 * left * right / (left + right) * soft_bound(raw, SLOPE_BOUND).exp()


def _bins(
    value: Tensor, knots: Tensor, x: Tensor, z: Tensor, slopes: Tensor
) -> list[Tensor]:
    """x₀, w, z₀, h, d₀ and d₁ of the bin where each value falls among the knots."""
    index = (value >= knots[1:-1]).sum(0, keepdim=True)
    tables = x[:-1], x.diff(dim=0), z[:-1], z.diff(dim=0), slopes[:-1], slopes[1:]
    return [torch.take_along_dim(table, index, 0).squeeze(0) for table in tables]


def _evaluate(x: Tensor, *knots: Tensor) -> tuple[Tensor, Tensor]:
    """z and log dz/dx."""
    x0, w, z0, h, d0, d1 = _bins(x, knots[0], *knots)
    xi = ((x - x0) / w).clamp(0, 1)
    share, log_slope = _in_bin(xi, h / w, d0, d1)
    return z0 + h * share, log_slope


def _solve(z: Tensor, *knots: Tensor) -> tuple[Tensor, Tensor]:
    """x and log dx/dz."""
    x0, w, z0, h, d0, d1 = _bins(z, knots[1], *knots)
    s, share = h / w, ((z - z0) / h).clamp(0, 1)
    # (z − z₀) / h = share is a quadratic in ξ. Its root in [0, 1], written without a
    # difference of like numbers, so that rounding never leaves the bin:
    near, far = 2 * s * share, 2 * s * (1 - share)
    t = d0 * (1 - share) - d1 * share
    size = (t.square() + near * far).sqrt() + torch.where(t < 0, -t, t)
    xi = near / (near + torch.where(t < 0, near * far / size, size))
    return x0 + w * xi, -_in_bin(xi, s, d0, d1)[1]


def _in_bin(xi: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> tuple[Tensor, Tensor]:
    """(z − z₀) / h and log dz/dx at ξ in [0, 1]."""
    rest = 1 - xi
    mixed = xi * rest
    below = s + (d0 + d1 - 2 * s) * mixed
    share = (s * xi.square() + d0 * mixed) / below
    rises = d1 * xi.square() + 2 * s * mixed + d0 * rest.square()
    return share, (rises * (s / below).square()).log()
