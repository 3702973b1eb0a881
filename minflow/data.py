"""Targets whose truth is known: exact densities to sample from, and their entropies.

Each is a torch Distribution with event shape (D,). The entropy is the floor of the mean
negative log-likelihood, in nats: no model of these data can score below it, whatever
its size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Size, Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.constraints import Constraint

from minflow.base import Shape, as_size


def _check_points(value: Tensor, dim: int) -> None:
    if not isinstance(value, Tensor) or value.dim() == 0 or value.shape[-1] != dim:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"points must be a tensor of shape (..., {dim}); got {got}")


class GaussianMixture(Distribution):
    """p(x) = Σₖ wₖ N(x; μₖ, diag(sₖ²)), a weighted sum of K normal densities.

    Args:
        means: μₖ, shape (K, D).
        stds: sₖ, shape (K, D), or (K,) for the same in every direction; positive.
        weights: wₖ, shape (K,), positive, scaled here to sum to one; equal if None.

    Raises:
        ValueError: if the shapes do not fit or a number is out of range.

    >>> two_modes = GaussianMixture(means=[[-2.0], [2.0]], stds=[0.5, 0.5])
    >>> two_modes.sample((3,)).shape, round(two_modes.entropy().item(), 4)
    (torch.Size([3, 1]), 1.4188)
    """

    arg_constraints: dict[str, Constraint] = {}
    support = constraints.real_vector

    def __init__(
        self,
        means: Tensor | Sequence[Sequence[float]],
        stds: Tensor | Sequence[float] | Sequence[Sequence[float]],
        weights: Tensor | Sequence[float] | None = None,
    ) -> None:
        self.means = torch.as_tensor(means)
        if not self.means.is_floating_point():
            self.means = self.means.to(torch.get_default_dtype())
        stds = torch.as_tensor(stds, dtype=self.means.dtype)
        if self.means.dim() != 2 or self.means.numel() == 0:
            raise ValueError(
                f"means must have shape (K, D); got {tuple(self.means.shape)}"
            )
        components, dim = self.means.shape
        if stds.shape not in [(components,), (components, dim)]:
            raise ValueError(
                f"stds must have shape ({components},) or ({components}, {dim}); "
                f"got {tuple(stds.shape)}"
            )
        self.stds = stds.reshape(components, -1).expand(components, dim)
        weights = [1.0] * components if weights is None else weights
        weights = torch.as_tensor(weights, dtype=self.means.dtype)
        if weights.shape != (components,):
            raise ValueError(
                f"weights must have shape ({components},); got {tuple(weights.shape)}"
            )
        for name, numbers in [
            ("means", self.means),
            ("stds", stds),
            ("weights", weights),
        ]:
            positive = name == "means" or bool((numbers > 0).all())
            if not positive or not numbers.isfinite().all():
                raise ValueError(f"{name} must be finite, and stds and weights positive")
        self.weights = weights / weights.sum()
        super().__init__(Size(), Size([dim]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) in nats: (*batch, D) -> (*batch)."""
        _check_points(value, self.means.shape[1])
        u = (value.unsqueeze(-2) - self.means) / self.stds
        log_normal = -0.5 * (u.square() + math.log(2 * math.pi)) - self.stds.log()
        return (self.weights.log() + log_normal.sum(-1)).logsumexp(-1)

    def sample(
        self, sample_shape: Shape = (), generator: Generator | None = None
    ) -> Tensor:
        """Points of shape (*sample_shape, D)."""
        shape = as_size(sample_shape)
        picks = torch.multinomial(
            self.weights, shape.numel(), replacement=True, generator=generator
        ).reshape(shape)
        noise = torch.randn(
            *shape, *self.event_shape, generator=generator, dtype=self.means.dtype
        )
        return self.means[picks] + self.stds[picks] * noise

    def entropy(self) -> Tensor:
        """H = −Σₖ wₖ E_k[log p(x)] in nats, in float64; by quadrature, to 1e-6 nats.

        Raises:
            NotImplementedError: if D > 2, or if D = 2 and one component is more than
                70 times as narrow as another.
        """
        dim = self.means.shape[1]
        if dim > 2:
            raise NotImplementedError(
                f"the entropy by quadrature is for D = 1 and 2; D is {dim}"
            )
        parameters = self.means, self.stds, self.weights
        exact = GaussianMixture(*(t.double() for t in parameters))
        # The trapezoidal rule on a normal weight: spacing 1/8 and reach 9 are far enough,
        # and finer where a narrow component makes a peak in log p under a wide one.
        narrowest = float((self.stds.amin(0) / self.stds.amax(0)).min())
        u = torch.arange(-9, 9.01, min(1.0, 5 * narrowest) / 8, dtype=torch.float64)
        if len(u) ** dim > 4_000_000:
            raise NotImplementedError(
                f"the stds differ by {1 / narrowest:.0f} times: "
                "too much for the quadrature"
            )
        grid = torch.cartesian_prod(*[u] * dim).reshape(-1, dim)
        mass = torch.exp(-0.5 * grid.square().sum(-1))
        mass = mass / mass.sum()
        return -sum(
            weight * (mass * exact.log_prob(mean + std * grid)).sum()
            for weight, mean, std in zip(
                exact.weights, exact.means, exact.stds, strict=True
            )
        )


class TwoMoons(Distribution):
    """Two half circles of radius 1 that interlock, blurred by normal noise.

        x = c(t) + σ ε,  t ~ U(0, π),  ε ~ N(0, I),
        c(t) = (cos t, sin t) or (1 − cos t, ½ − sin t), each with probability ½.

    The density integrates the noise along the arcs:

        p(x) = (1/2π) Σ_arcs ∫₀^π N(x; c(t), σ²I) dt.

    Args:
        noise: σ, at least 0.001.

    Source: scikit-learn's ``make_moons``, which spaces its angles evenly where these
    are drawn.

    >>> moons = TwoMoons(noise=0.05)
    >>> round(moons.entropy().item(), 3)
    0.289
    """

    arg_constraints: dict[str, Constraint] = {}
    support = constraints.real_vector

    def __init__(self, noise: float = 0.05) -> None:
        if not 1e-3 <= noise < math.inf:
            raise ValueError(f"noise must be finite and at least 0.001; got {noise!r}")
        self.noise = noise
        nodes, weights = np.polynomial.legendre.leggauss(48)
        self._nodes = torch.from_numpy(
            (nodes + 1) / 2
        )  # on (0, 1), with weights of sum 1
        self._log_weights = torch.from_numpy(np.log(weights / 2))
        super().__init__(Size(), Size([2]), validate_args=False)

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
        _check_points(value, 2)
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
        """H in nats, in float64; by quadrature on a grid, to about 1e-5 nats."""
        step, reach = self.noise / 3, 7 * self.noise
        rows = torch.arange(-1 - reach, 2 + reach, step, dtype=torch.float64)
        columns = torch.arange(-0.5 - reach, 1 + reach, step, dtype=torch.float64)
        total = torch.zeros((), dtype=torch.float64)
        for x1 in rows.split(16):
            log_p = self.log_prob(torch.cartesian_prod(x1, columns))
            total -= (log_p.exp() * log_p).sum() * step**2
        return total
