"""Two interlocking half circles: the data set that the chapters share."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Generator, Tensor

from minflow.base import Shape, as_size
from minflow.data._target import Target, check_noise, entropy_on_grid


class TwoMoons(Target):
    """Two half circles of radius 1 that interlock, blurred by normal noise.

        x = c(t) + σ ε,  t ~ U(0, π),  ε ~ N(0, I),
        c(t) = (cos t, sin t) or (1 − cos t, ½ − sin t), each with probability ½.

    The density integrates the noise along the arcs:

        p(x) = (1/2π) Σ_arcs ∫₀^π N(x; c(t), σ²I) dt.

    Args:
        noise: σ, at least 0.001.

    Raises:
        ValueError: if the noise is smaller, or not finite.

    Source: scikit-learn's ``make_moons``, which spaces its angles evenly where these
    are drawn.

    >>> moons = TwoMoons(noise=0.05)
    >>> round(moons.entropy().item(), 3)
    0.289
    """

    def __init__(self, noise: float = 0.05) -> None:
        check_noise(noise, least=1e-3)
        self.noise = noise
        nodes, weights = np.polynomial.legendre.leggauss(48)
        self._nodes = torch.from_numpy((nodes + 1) / 2)  # on (0, 1): weights of sum 1
        self._log_weights = torch.from_numpy(np.log(weights / 2))
        super().__init__(2)

    def _arcs(self, t: Tensor) -> Tensor:
        """Both arcs at the angles t: shape (2, *t.shape, 2)."""
        upper = torch.stack([t.cos(), t.sin()], -1)
        lower = torch.stack([1 - t.cos(), 0.5 - t.sin()], -1)
        return torch.stack([upper, lower])

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) in nats: (*batch, 2) -> (*batch); by Gauss and Legendre's rule.

        The rule runs over the part of each half arc that is near enough to x to matter.

        Cost: 192 normal densities a point.
        """
        self._check(value)
        nodes, log_weights = self._nodes.to(value), self._log_weights.to(value)
        parts = []
        for offset in (
            value,
            value.new_tensor([1.0, 0.5]) - value,
        ):  # both as the upper arc
            for start in (0.0, math.pi / 2):
                low, high = self._near(offset.detach(), start)
                t = low + (high - low) * nodes
                arc = torch.stack([t.cos(), t.sin()], -1)
                distance = (offset.unsqueeze(-2) - arc).square().sum(-1)
                log_normal = -distance / (2 * self.noise**2)
                parts.append(log_weights + log_normal + (high - low).log())
        log_scale = math.log(2 * math.pi) + math.log(2 * math.pi * self.noise**2)
        return torch.cat(parts, -1).logsumexp(-1) - log_scale

    def _near(self, offset: Tensor, start: float) -> tuple[Tensor, Tensor]:
        """The angles from start to start + π/2 within nine widths of the one nearest."""
        end, middle = start + math.pi / 2, start + math.pi / 4
        angle = torch.atan2(offset[..., 1:], offset[..., :1])
        angle = middle + torch.remainder(angle - middle + math.pi, 2 * math.pi) - math.pi
        nearest = angle.clamp(start, end)
        radius = torch.linalg.vector_norm(offset, dim=-1, keepdim=True)
        width = 9 * self.noise / radius.sqrt()
        return (nearest - width).clamp(min=start), (nearest + width).clamp(max=end)

    def sample(
        self, sample_shape: Shape = (), generator: Generator | None = None
    ) -> Tensor:
        """Points of shape (*sample_shape, 2)."""
        shape = as_size(sample_shape)
        t = torch.rand(shape, generator=generator) * math.pi
        first = torch.rand(shape, generator=generator) < 0.5
        upper, lower = self._arcs(t)
        noise = torch.randn(*shape, 2, generator=generator)
        return torch.where(first.unsqueeze(-1), upper, lower) + self.noise * noise

    def entropy(self) -> Tensor:
        """H in nats, in float64; by quadrature on a grid, to about 1e-5 nats.

        Cost: grows as 1/σ²: 0.2 s at σ = 0.05, and 3 s at 0.01.
        """
        step, reach = self.noise / 3, 7 * self.noise
        x1 = torch.arange(-1 - reach, 2 + reach, step, dtype=torch.float64)
        x2 = torch.arange(-0.5 - reach, 1 + reach, step, dtype=torch.float64)
        return entropy_on_grid(self.log_prob, x1, x2)
