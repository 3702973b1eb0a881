"""Targets in closed form: a checkerboard, a banana and a funnel."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.distributions.constraints import Constraint

from minflow.base import Shape, as_size, within
from minflow.data._target import Target, check_positive

LOG_2PI = math.log(2 * math.pi)


class _Squares(Constraint):
    """−4 ≤ x < 4 in both coordinates, and ⌊x₁/2⌋ + ⌊x₂/2⌋ even."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        """Whether each point is in one of the squares: (*batch, 2) -> (*batch)."""
        inside = ((value >= -4) & (value < 4)).all(-1)
        return inside & (torch.remainder((value / 2).floor().sum(-1), 2) == 0)


class Checkerboard(Target):
    """Uniform on eight squares of side 2, the dark fields of a board on [−4, 4)².

        p(x) = 1/32 where ⌊x₁/2⌋ + ⌊x₂/2⌋ is even, and 0 elsewhere.

    Each square has its lower edges and lacks its upper ones.

    Source: the toy data of Chen, Behrmann, Duvenaud and Jacobsen, 2019, Residual flows,
    arXiv:1906.02735, and of many others.

    >>> board = Checkerboard()
    >>> board.log_prob(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
    tensor([-3.4657,    -inf])
    >>> round(board.entropy().item(), 4)
    3.4657
    """

    support = _Squares()

    def __init__(self) -> None:
        super().__init__(2)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) in nats, −inf outside, NaN where x is: (*batch, 2) -> (*batch)."""
        self._check(value)
        # 0·x: the density is flat, and its gradient is 0 and not missing.
        return within(
            self.support.check(value),
            value,
            value.new_zeros(2),
            lambda x: 0 * x.sum(-1) - math.log(32),
        )

    def sample(
        self, sample_shape: Shape = (), generator: Generator | None = None
    ) -> Tensor:
        """Points of shape (*sample_shape, 2), all of them inside."""
        shape = as_size(sample_shape)
        column = torch.randint(4, shape, generator=generator)
        row = 2 * torch.randint(2, shape, generator=generator) + column % 2
        low = 2.0 * torch.stack([column, row], -1) - 4
        x = low + 2 * torch.rand(*shape, 2, generator=generator)
        # The sum can round up to the upper edge, which is out of the square.
        return torch.minimum(x, torch.nextafter(low + 2, low))

    def entropy(self) -> Tensor:
        """H = log 32 nats, the log of the area; in float64."""
        return torch.tensor(32, dtype=torch.float64).log()


class Banana(Target):
    """A normal in x₂ that bends x₁ into a parabola.

        x₂ ~ N(0, σ²),  x₁ | x₂ ~ N(x₂²/4, 1).

    Args:
        sigma: σ, positive.

    Raises:
        ValueError: if sigma is not positive and finite.

    Source: Papamakarios, Pavlakou and Murray, 2017, arXiv:1705.07057, figure 1, with
    σ = 2.

    >>> banana = Banana(sigma=2.0)
    >>> round(banana.entropy().item(), 4)  # log(2πe) + log 2
    3.531
    """

    def __init__(self, sigma: float = 2.0) -> None:
        check_positive("sigma", sigma)
        self.sigma = sigma
        super().__init__(2)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) in nats: (*batch, 2) -> (*batch)."""
        self._check(value)
        x1, x2 = value.unbind(-1)
        squares = (x1 - x2.square() / 4).square() + (x2 / self.sigma).square()
        return -0.5 * squares - LOG_2PI - math.log(self.sigma)

    def sample(
        self, sample_shape: Shape = (), generator: Generator | None = None
    ) -> Tensor:
        """Points of shape (*sample_shape, 2)."""
        shape = as_size(sample_shape)
        u1, u2 = torch.randn(*shape, 2, generator=generator).unbind(-1)
        x2 = self.sigma * u2
        return torch.stack([u1 + x2.square() / 4, x2], -1)

    def entropy(self) -> Tensor:
        """H = log(2πe σ) in nats, in float64."""
        # A bend has log-det 0: the entropy is that of two normals.
        return torch.tensor(LOG_2PI + 1 + math.log(self.sigma), dtype=torch.float64)


class Funnel(Target):
    """Normals whose common width is itself drawn: a neck, and a mouth far wider.

        v = x₁ ~ N(0, 3²),  xᵢ | v ~ N(0, eᵛ) for i = 2, …, D; eᵛ is the variance.

    Args:
        dim: D, at least 2.

    Raises:
        ValueError: if dim is not a whole number of at least 2.

    Source: Neal, 2003, Slice sampling, Annals of Statistics 31(3), section 8, with
    D = 10.

    >>> funnel = Funnel(10)
    >>> funnel.sample((3,)).shape, round(funnel.entropy().item(), 4)
    (torch.Size([3, 10]), 15.288)
    """

    def __init__(self, dim: int) -> None:
        if not isinstance(dim, int) or dim < 2:
            raise ValueError(f"dim must be a whole number of at least 2; got {dim!r}")
        self.dim = dim
        super().__init__(dim)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) in nats: (*batch, D) -> (*batch)."""
        self._check(value)
        v, x = value[..., :1], value[..., 1:]
        # Scaled before it is squared: e^(-v) alone leaves float32 twice as soon.
        u = torch.cat([v / 3, x * torch.exp(-v / 2)], -1)
        log_widths = math.log(3) + (self.dim - 1) * v.squeeze(-1) / 2
        return -0.5 * (u.square().sum(-1) + self.dim * LOG_2PI) - log_widths

    def sample(
        self, sample_shape: Shape = (), generator: Generator | None = None
    ) -> Tensor:
        """Points of shape (*sample_shape, D)."""
        u = torch.randn(*as_size(sample_shape), self.dim, generator=generator)
        v = 3 * u[..., :1]
        return torch.cat([v, u[..., 1:] * torch.exp(v / 2)], -1)

    def entropy(self) -> Tensor:
        """H = ½ D log(2πe) + log 3 in nats, in float64."""
        # The widths are 3 and e^(v/2), and v has mean 0.
        return torch.tensor(
            0.5 * self.dim * (LOG_2PI + 1) + math.log(3), dtype=torch.float64
        )
