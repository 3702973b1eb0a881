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
        self.means = torch.as_tensor(means, dtype=torch.get_default_dtype())
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
        if not (self.stds > 0).all() or not (weights > 0).all():
            raise ValueError("stds and weights must be positive")
        self.weights = weights / weights.sum()
        super().__init__(Size(), Size([dim]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) in nats: (*batch, D) -> (*batch)."""
        u = (value.unsqueeze(-2) - self.means) / self.stds
        log_normal = -0.5 * (u.square() + math.log(2 * math.pi)) - self.stds.log()
        return (self.weights.log() + log_normal.sum(-1)).logsumexp(-1)

    def sample(
        self, sample_shape: Sequence[int] = (), generator: Generator | None = None
    ) -> Tensor:
        """Points of shape (*sample_shape, D)."""
        shape = Size(sample_shape)
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
        exact = GaussianMixture(self.means, self.stds, self.weights)
        exact.means, exact.stds, exact.weights = (
            t.double() for t in (self.means, self.stds, self.weights)
        )
        # The trapezoidal rule on a normal weight: spacing 1/8 and reach 9 are far enough,
        # and finer where a narrow component makes a peak in log p under a wide one.
        narrowest = float(self.stds.min() / self.stds.max())
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
        if (
            not 1e-3 <= noise < math.inf
        ):  # less would take a rule of more than 24,000 nodes
            raise ValueError(f"noise must be finite and at least 0.001; got {noise!r}")
        self.noise = noise
        nodes, weights = np.polynomial.legendre.leggauss(max(64, math.ceil(24 / noise)))
        self._angles = torch.from_numpy((nodes + 1) * math.pi / 2)
        self._log_weights = torch.from_numpy(np.log(weights * math.pi / 2))
        super().__init__(Size(), Size([2]), validate_args=False)

    def _arcs(self, t: Tensor) -> Tensor:
        """Both arcs at the angles t: shape (2, *t.shape, 2)."""
        upper = torch.stack([t.cos(), t.sin()], -1)
        lower = torch.stack([1 - t.cos(), 0.5 - t.sin()], -1)
        return torch.stack([upper, lower])

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) in nats: (*batch, 2) -> (*batch); by Gauss and Legendre's rule.

        Cost: about 48 / σ normal densities a point.
        """
        arcs = self._arcs(self._angles.to(value)).reshape(-1, 2)
        log_weights = self._log_weights.to(value).repeat(2)
        log_normal = -(value.unsqueeze(-2) - arcs).square().sum(-1) / (2 * self.noise**2)
        log_scale = math.log(2 * math.pi) + math.log(2 * math.pi * self.noise**2)
        return (log_weights + log_normal).logsumexp(-1) - log_scale

    def sample(
        self, sample_shape: Sequence[int] = (), generator: Generator | None = None
    ) -> Tensor:
        """Points of shape (*sample_shape, 2)."""
        shape = Size(sample_shape)
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
