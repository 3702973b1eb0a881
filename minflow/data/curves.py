"""Targets that are curves blurred by normal noise: rings, and a swiss roll."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from minflow.base import Shape, as_size
from minflow.data._target import (
    Target,
    check_noise,
    check_positive,
    entropy_on_grid,
    panels,
)


class Rings(Target):
    """Circles around the origin, blurred by normal noise.

        x = r (cos t, sin t) + σ ε,  t ~ U(0, 2π),  ε ~ N(0, I),

    with r any of the K radii, each with probability 1/K. With ρ = |x| and the modified
    Bessel function I₀,

        p(x) = (1/K) Σ_r exp(−(ρ² + r²) / 2σ²) I₀(ρ r / σ²) / 2πσ².

    Args:
        radii: r, shape (K,); positive.
        noise: σ, at least a thousandth of the largest radius.

    Raises:
        ValueError: if a number is out of range.

    Source: the toy data of Chen, Behrmann, Duvenaud and Jacobsen, 2019, Residual flows,
    arXiv:1906.02735: these radii and this noise, with angles evenly spaced where these
    are drawn. The integral over t is I₀'s own (Abramowitz and Stegun, 9.6.16).

    >>> rings = Rings()
    >>> rings.sample((3,)).shape, round(rings.entropy().item(), 4)
    (torch.Size([3, 2]), 2.6232)
    """

    def __init__(
        self, radii: Sequence[float] = (0.75, 1.5, 2.25, 3.0), noise: float = 0.08
    ) -> None:
        self.radii = torch.as_tensor(radii, dtype=torch.float64)
        if self.radii.dim() != 1 or len(self.radii) == 0:
            raise ValueError(f"radii must have shape (K,); got {tuple(self.radii.shape)}")
        for radius in self.radii.tolist():
            check_positive("each of radii", radius)
        check_noise(noise, least=self.radii.max().item() / 1000)
        self.noise = noise
        super().__init__(2)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) in nats: (*batch, 2) -> (*batch).

        Cost: one Bessel function for each ring and point.
        """
        self._check(value)
        rho = torch.linalg.vector_norm(value, dim=-1, keepdim=True)
        radii, variance = self.radii.to(value), self.noise**2
        # I₀(a) = exp(a) i0e(a): the exponents join to (ρ − r)², and nothing overflows.
        log_bessel = torch.special.i0e(rho * radii / variance).log()
        log_rings = log_bessel - (rho - radii).square() / (2 * variance)
        return log_rings.logsumexp(-1) - math.log(2 * math.pi * variance * len(radii))

    def sample(
        self, sample_shape: Shape = (), generator: Generator | None = None
    ) -> Tensor:
        """Points of shape (*sample_shape, 2)."""
        shape = as_size(sample_shape)
        t = 2 * math.pi * torch.rand(shape, generator=generator)
        picks = torch.randint(len(self.radii), shape, generator=generator)
        radius = self.radii.to(t)[picks].unsqueeze(-1)
        noise = torch.randn(*shape, 2, generator=generator)
        return radius * torch.stack([t.cos(), t.sin()], -1) + self.noise * noise

    def entropy(self) -> Tensor:
        """H = −∫ 2πρ p log p dρ in nats, in float64; by quadrature, to 1e-8 nats."""
        reach = self.radii.max().item() + 10 * self.noise
        nodes, weights = panels(0, reach, math.ceil(reach / self.noise))
        log_p = self.log_prob(torch.stack([nodes, torch.zeros_like(nodes)], -1))
        return -(2 * math.pi * nodes * weights * log_p.exp() * log_p).sum()


class SwissRoll(Target):
    """One and a half turns of a spiral, blurred by normal noise.

        x = c(t) + σ ε,  t ~ U(3π/2, 9π/2),  ε ~ N(0, I),  c(t) = (t/5) (cos t, sin t),
        p(x) = (1/3π) ∫ N(x; c(t), σ²I) dt.

    Args:
        noise: σ, at least 0.05.

    Raises:
        ValueError: if the noise is smaller, or not finite.

    Source: the toy data of Grathwohl et al., 2019, FFJORD, arXiv:1810.01367: two of the
    three coordinates of scikit-learn's ``make_swiss_roll`` with noise 1, divided by 5.
    This is the same distribution.

    >>> roll = SwissRoll(noise=0.2)
    >>> roll.sample((3,)).shape, round(roll.entropy().item(), 3)
    (torch.Size([3, 2]), 2.67)
    """

    def __init__(self, noise: float = 0.2) -> None:
        check_noise(noise, least=0.05)
        self.noise = noise
        # Along the roll the arc length is close to t²/10: even steps of t² make panels of
        # nearly the same length, two widths of the noise if the curve bends little there.
        low, high = (1.5 * math.pi) ** 2, (4.5 * math.pi) ** 2
        count = math.ceil((high - low) / (20 * min(noise, 0.4)))
        squares, weights = panels(low, high, count)
        t = squares.sqrt()
        self._curve = self._roll(t)
        self._log_weights = (weights / (2 * t)).log() - math.log(3 * math.pi)
        super().__init__(2)

    def _roll(self, t: Tensor) -> Tensor:
        """c(t): shape (*t.shape, 2)."""
        return (t / 5).unsqueeze(-1) * torch.stack([t.cos(), t.sin()], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) in nats: (*batch, 2) -> (*batch); by Gauss and Legendre's rule.

        To 1e-5 nats within eight widths of the roll, and to a thousandth of log p far
        from it.

        Cost: 71/σ normal densities a point (178 if σ > 0.4), at most 2²² of them at a
            time; autograd keeps them all where gradients are asked for.
        """
        self._check(value)
        curve, log_weights = self._curve.to(value), self._log_weights.to(value)
        parts = []
        for x in value.reshape(-1, 1, 2).split(2**22 // len(curve)):
            distance = (x - curve).square().sum(-1)
            parts.append((log_weights - distance / (2 * self.noise**2)).logsumexp(-1))
        log_p = torch.cat(parts).reshape(value.shape[:-1])
        return log_p - math.log(2 * math.pi * self.noise**2)

    def sample(
        self, sample_shape: Shape = (), generator: Generator | None = None
    ) -> Tensor:
        """Points of shape (*sample_shape, 2)."""
        shape = as_size(sample_shape)
        t = 1.5 * math.pi * (1 + 2 * torch.rand(shape, generator=generator))
        noise = torch.randn(*shape, 2, generator=generator)
        return self._roll(t) + self.noise * noise

    def entropy(self) -> Tensor:
        """H in nats, in float64; by quadrature on a grid, to about 1e-5 nats.

        Cost: grows as 1/σ³: 0.05 s at σ = 0.2, and 3 s at 0.05.
        """
        low, high = self._curve.amin(0), self._curve.amax(0)
        axes = [
            torch.arange(a - 7 * self.noise, b + 7 * self.noise, self.noise / 2)
            for a, b in zip(low.tolist(), high.tolist(), strict=True)
        ]
        return entropy_on_grid(self.log_prob, *(axis.double() for axis in axes))
