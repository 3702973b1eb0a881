"""Targets given by an energy, up to a factor: U1 to U4 of Rezende and Mohamed."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from minflow.base import Shape, as_size
from minflow.data._target import Target, check_positive, entropy_on_grid

LOG_2PI = math.log(2 * math.pi)


class U1(Target):
    """Two arcs of a ring, at its left and at its right: p(x) = exp(−U(x)) / Z.

        U(x) = ½ ((|x| − 2) / 0.4)² − log(exp(−½ ((x₁ − 2) / 0.6)²)
                                          + exp(−½ ((x₁ + 2) / 0.6)²))

    The attribute `log_normalizer` is log Z in nats, a float: what `log_unnormalized` has
    and `log_prob` has not. It comes by quadrature on a grid, to 1e-10.

    Source: Rezende and Mohamed, 2015, Variational inference with normalizing flows,
    arXiv:1505.05770, table 1.

    >>> ring = U1()
    >>> round(ring.log_normalizer, 4), round(ring.entropy().item(), 4)
    (1.8775, 2.66)
    """

    def __init__(self) -> None:
        super().__init__(2)
        axis = self._axis()
        log_p = self.log_unnormalized(torch.cartesian_prod(axis, axis))
        self.log_normalizer: float = log_p.logsumexp(0).item() + 2 * math.log(0.1)

    def _axis(self) -> Tensor:
        return torch.linspace(-6, 6, 121, dtype=torch.float64)

    def energy(self, value: Tensor) -> Tensor:
        """U(x) in nats: (*batch, 2) -> (*batch)."""
        self._check(value)
        x1 = value[..., 0]
        left, right = (-0.5 * ((x1 - m) / 0.6).square() for m in (-2, 2))
        return -self._log_ring(value) - torch.logaddexp(left, right)

    def _log_ring(self, value: Tensor) -> Tensor:
        """−½ ((|x| − 2) / 0.4)²: (*batch, 2) -> (*batch)."""
        radius = torch.linalg.vector_norm(value, dim=-1)
        return -0.5 * ((radius - 2) / 0.4).square()

    def log_unnormalized(self, value: Tensor) -> Tensor:
        """−U(x) in nats: (*batch, 2) -> (*batch)."""
        return -self.energy(value)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) in nats: (*batch, 2) -> (*batch)."""
        return self.log_unnormalized(value) - self.log_normalizer

    def sample(
        self, sample_shape: Shape = (), generator: Generator | None = None
    ) -> Tensor:
        """Points of shape (*sample_shape, 2), exact: by rejection.

        Cost: 3.9 proposals a point on average, drawn in a few rounds.
        """
        shape = as_size(sample_shape)
        x = torch.empty(0, 2)
        while len(x) < shape.numel():
            count = 5 * (shape.numel() - len(x))
            side = 4.0 * torch.randint(2, (count,), generator=generator) - 2
            u1, u2 = torch.randn(count, 2, generator=generator).unbind(-1)
            proposed = torch.stack([side + 0.6 * u1, 2 * u2], -1)
            chance = self._log_acceptance(proposed).exp()
            x = torch.cat([x, proposed[torch.rand(count, generator=generator) < chance]])
        return x[: shape.numel()].reshape(*shape, 2)

    def _log_acceptance(self, value: Tensor) -> Tensor:
        """The log of exp(−U) over M times the proposal, at most 0; Z cancels."""
        # Proposed are x₁ ~ ½ N(−2, 0.6²) + ½ N(2, 0.6²), as in U, and y = x₂ ~ N(0, 2²).
        # What is left of the ratio is ring(|x|) exp(y²/8). Since |x| ≥ |y|, its log is at
        # most y²/8 for |y| ≤ 2, so ½, and y²/8 − (|y| − 2)²/0.32 beyond. That is a
        # parabola, with its top at |y| = 8/3.84 and there 4/(8 − 0.32) = 25/48 > ½.
        return self._log_ring(value) + value[..., 1].square() / 8 - 25 / 48

    def entropy(self) -> Tensor:
        """H = log Z + E[U(x)] in nats, in float64; by quadrature on a grid, to 1e-9."""
        return entropy_on_grid(self.log_prob, self._axis(), self._axis())


class _Waves(Target):
    """Bands along waves, p(x) = N(x₁; 0, σ²) exp(−U(x)) / Z.

        U(x) = −log Σₖ exp(−½ ((x₂ − cₖ(x₁)) / sₖ)²),  Z = √2π Σₖ sₖ.

    Along x₂ the integral of exp(−U) is Z at each x₁. So x₁ ~ N(0, σ²), and x₂ given x₁ is
    a mixture of N(cₖ(x₁), sₖ²) with weights sₖ / Σⱼ sⱼ.

    Args:
        sigma: σ, positive.
        widths: sₖ.
    """

    def __init__(self, sigma: float, widths: tuple[float, ...]) -> None:
        check_positive("sigma", sigma)
        self.sigma = sigma
        self._widths = torch.tensor(widths, dtype=torch.float64)
        self.log_normalizer: float = 0.5 * LOG_2PI + math.log(sum(widths))
        super().__init__(2)

    def _centres(self, x1: Tensor) -> Tensor:
        """cₖ(x₁) for each k, shape (*x1.shape, K)."""
        raise NotImplementedError

    def energy(self, value: Tensor) -> Tensor:
        """U(x) in nats, without the envelope: (*batch, 2) -> (*batch)."""
        self._check(value)
        u = (value[..., 1:] - self._centres(value[..., 0])) / self._widths.to(value)
        return -(-0.5 * u.square()).logsumexp(-1)

    def log_unnormalized(self, value: Tensor) -> Tensor:
        """−U(x) + log N(x₁; 0, σ²) in nats: (*batch, 2) -> (*batch)."""
        energy, u = self.energy(value), value[..., 0] / self.sigma
        return -energy - 0.5 * (u.square() + LOG_2PI) - math.log(self.sigma)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) in nats: (*batch, 2) -> (*batch)."""
        return self.log_unnormalized(value) - self.log_normalizer

    def sample(
        self, sample_shape: Shape = (), generator: Generator | None = None
    ) -> Tensor:
        """Points of shape (*sample_shape, 2)."""
        shape = as_size(sample_shape)
        u1, u2 = torch.randn(*shape, 2, generator=generator).unbind(-1)
        widths, x1 = self._widths.to(u1), self.sigma * u1
        below = widths.cumsum(0)[:-1] / widths.sum()
        uniform = torch.rand(*shape, 1, generator=generator)
        picks = (uniform >= below).sum(-1, keepdim=True)
        centre = self._centres(x1).gather(-1, picks).squeeze(-1)
        return torch.stack([x1, centre + widths[picks.squeeze(-1)] * u2], -1)

    def entropy(self) -> Tensor:
        """H in nats, in float64; by quadrature on a grid, to 1e-9.

        Cost: grows as σ: 0.1 s at σ = 2, and 1 s at 20.
        """
        step = min(self.sigma / 4, 0.1)
        x1 = torch.arange(-9 * self.sigma, 9 * self.sigma, step, dtype=torch.float64)
        x2 = torch.arange(-8, 5, 0.03, dtype=torch.float64)
        return entropy_on_grid(self.log_prob, x1, x2)


class U2(_Waves):
    """A band along a sine wave: p(x) = N(x₁; 0, σ²) exp(−U(x)) / Z.

        U(x) = ½ ((x₂ − w₁) / 0.4)²,  w₁ = sin(2π x₁ / 4),  Z = 0.4 √2π.

    The paper has exp(−U) alone. But its bands, and those of U3 and U4, run on for ever,
    with infinite mass on the plane: there is no Z. The envelope N(x₁; 0, σ²) makes each a
    density, and Z does not depend on σ. (Cut off by a window, it would be zero outside,
    and the reverse KL of every flow that reaches all of the plane infinite.)

    The attribute `log_normalizer` is log Z in nats, a float: what `log_unnormalized` has
    and `log_prob` has not.

    Args:
        sigma: σ of the envelope, positive.

    Raises:
        ValueError: if sigma is not positive and finite.

    Source: Rezende and Mohamed, 2015, Variational inference with normalizing flows,
    arXiv:1505.05770, table 1; the envelope is added here.

    >>> band = U2(sigma=2.0)
    >>> round(band.log_normalizer, 4), round(band.entropy().item(), 4)
    (0.0026, 2.6147)
    """

    def __init__(self, sigma: float = 2.0) -> None:
        super().__init__(sigma, widths=(0.4,))

    def _centres(self, x1: Tensor) -> Tensor:
        return _sine(x1).unsqueeze(-1)

    def entropy(self) -> Tensor:
        """H = log(2πe · 0.4 σ) in nats, in float64."""
        # The wave has log-det 0: the entropy is that of two normals.
        return torch.tensor(LOG_2PI + 1 + math.log(0.4 * self.sigma), dtype=torch.float64)


class U3(_Waves):
    """A wave that splits in two, and joins again: p(x) = N(x₁; 0, σ²) exp(−U(x)) / Z.

        U(x) = −log(exp(−½ ((x₂ − w₁) / 0.35)²) + exp(−½ ((x₂ − w₁ + w₂) / 0.35)²)),
        w₁ = sin(2π x₁ / 4),  w₂ = 3 exp(−½ ((x₁ − 1) / 0.6)²),  Z = 2 · 0.35 √2π.

    The envelope, `log_normalizer`, arguments, errors and source are those of `U2`.

    >>> split = U3(sigma=2.0)
    >>> round(split.log_normalizer, 4), round(split.entropy().item(), 4)
    (0.5623, 2.7229)
    """

    def __init__(self, sigma: float = 2.0) -> None:
        super().__init__(sigma, widths=(0.35, 0.35))

    def _centres(self, x1: Tensor) -> Tensor:
        w2 = 3 * torch.exp(-0.5 * ((x1 - 1) / 0.6).square())
        return torch.stack([_sine(x1), _sine(x1) - w2], -1)


class U4(_Waves):
    """A wave from which a second one parts: p(x) = N(x₁; 0, σ²) exp(−U(x)) / Z.

        U(x) = −log(exp(−½ ((x₂ − w₁) / 0.4)²) + exp(−½ ((x₂ − w₁ + w₃) / 0.35)²)),
        w₁ = sin(2π x₁ / 4),  w₃ = 3 / (1 + exp(−(x₁ − 1) / 0.3)),  Z = 0.75 √2π.

    The envelope, `log_normalizer`, arguments, errors and source are those of `U2`.

    >>> fork = U4(sigma=2.0)
    >>> round(fork.log_normalizer, 4), round(fork.entropy().item(), 4)
    (0.6313, 2.811)
    """

    def __init__(self, sigma: float = 2.0) -> None:
        super().__init__(sigma, widths=(0.4, 0.35))

    def _centres(self, x1: Tensor) -> Tensor:
        w3 = 3 * torch.sigmoid((x1 - 1) / 0.3)
        return torch.stack([_sine(x1), _sine(x1) - w3], -1)


def _sine(x1: Tensor) -> Tensor:
    """w₁ = sin(2π x₁ / 4)."""
    return torch.sin(math.pi / 2 * x1)
