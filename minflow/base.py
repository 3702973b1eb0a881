"""Base distributions: what z is drawn from, as modules that follow their flow."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution, constraints
from torch.distributions.constraints import Constraint

Shape = int | Sequence[int]


def as_size(shape: Shape) -> Size:
    """A sample shape as torch writes it; an int n stands for (n,)."""
    return Size([shape]) if isinstance(shape, int) else Size(shape)


class StandardNormal(nn.Module):
    """The base N(0, I) in D dimensions; entropy D/2 · log(2πe) nats.

    Args:
        dim: D.

    >>> StandardNormal(2).log_prob(torch.zeros(2))
    tensor(-1.8379)
    """

    support: Constraint = constraints.real_vector
    origin: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer(
            "origin", torch.zeros(dim)
        )  # carries the device and the dtype

    def log_prob(self, z: Tensor) -> Tensor:
        """log p_z(z) in nats, shape (*batch), for z of shape (*batch, D)."""
        return -0.5 * (z.square().sum(-1) + self.dim * math.log(2 * math.pi))

    def rsample(self, shape: Size) -> Tensor:
        """Points of shape (*shape, D)."""
        return torch.randn(
            *shape, self.dim, dtype=self.origin.dtype, device=self.origin.device
        )

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class DistributionBase(nn.Module):
    """A torch Distribution as a base: its tensors become buffers, which `.to()` moves.

    Its parameters stay constant. For a base that learns, let an `Affine` follow it.

    Args:
        distribution: of event shape (D,), or of batch shape (D,) and no event shape,
            which is read as D independent coordinates.

    Raises:
        ValueError: if the shapes are others, or a parameter asks for gradients.

    >>> from torch.distributions import Beta
    >>> DistributionBase(Beta(torch.full((3,), 2.0), torch.full((3,), 5.0))).dim
    3
    """

    point_inside: Tensor

    def __init__(self, distribution: Distribution) -> None:
        super().__init__()
        if len(distribution.event_shape) == 0 and len(distribution.batch_shape) == 1:
            distribution = torch.distributions.Independent(distribution, 1)
        if len(distribution.event_shape) != 1 or len(distribution.batch_shape) != 0:
            raise ValueError(
                "a base needs event_shape (D,) and no batch; got event_shape "
                f"{tuple(distribution.event_shape)} and batch_shape "
                f"{tuple(distribution.batch_shape)}"
            )
        if distribution.support is None or distribution.support.is_discrete:
            raise ValueError(f"a base must be continuous; got {distribution}")
        self.dim = distribution.event_shape[0]
        self._template = distribution
        self._tensors = _tensors_in(distribution)
        for i, tensor in enumerate(self._tensors):
            if tensor.requires_grad:
                raise ValueError("a base's parameters are constants; detach() them first")
            self.register_buffer(f"tensor_{i}", tensor.contiguous().clone())
        self._made, self._made_from = distribution, [0]
        try:
            with torch.random.fork_rng(devices=[]):
                self.register_buffer("point_inside", self.distribution.sample())
        except AssertionError as error:  # torch cannot copy a transformed distribution
            raise TypeError(
                f"{distribution} cannot be a base: it cannot be copied"
            ) from error

    @property
    def distribution(self) -> Distribution:
        """The distribution, with the buffers in the place of its tensors."""
        buffers = [getattr(self, f"tensor_{i}") for i in range(len(self._tensors))]
        if self._made_from != [id(buffer) for buffer in buffers]:
            swaps: dict[int, Any] = {
                id(t): b for t, b in zip(self._tensors, buffers, strict=True)
            }
            self._made = copy.deepcopy(self._template, swaps)
            self._made_from = [id(buffer) for buffer in buffers]
            for part in _distributions_in(self._made):
                part._validate_args = False  # Flow checks, and log_prob knows the support
        return self._made

    @property
    def support(self) -> Constraint:
        """Where the distribution lives."""
        return self.distribution.support  # type: ignore[return-value]  # never None

    def log_prob(self, z: Tensor) -> Tensor:
        """log p_z(z) in nats, −inf outside the support; NaN where z is."""
        return within(
            self.support.check(z), z, self.point_inside, self.distribution.log_prob
        )

    def rsample(self, shape: Size) -> Tensor:
        """Points of shape (*shape, D), with gradients if the distribution has them."""
        distribution = self.distribution
        return (
            distribution.rsample(shape)
            if distribution.has_rsample
            else distribution.sample(shape)
        )

    def extra_repr(self) -> str:
        return repr(self._template)


def _distributions_in(distribution: Distribution) -> list[Distribution]:
    """The distribution and all that it keeps."""
    inner = [v for v in vars(distribution).values() if isinstance(v, Distribution)]
    return [distribution, *(d for part in inner for d in _distributions_in(part))]


def _tensors_in(distribution: Distribution) -> list[Tensor]:
    """The different tensors that a distribution keeps, and those that it keeps do."""
    values = [v for part in _distributions_in(distribution) for v in vars(part).values()]
    return list({id(v): v for v in values if isinstance(v, Tensor)}.values())


def within(
    inside: Tensor, points: Tensor, stand_in: Tensor, log_prob: Callable[[Tensor], Tensor]
) -> Tensor:
    """log_prob where a point is inside, −inf outside, NaN where a point is NaN.

    A stand-in is scored for the points outside, so that no NaN reaches the gradients.
    """
    inside = inside.unsqueeze(-1)
    result = log_prob(torch.where(inside, points, stand_in))
    outside = torch.where(points.isnan().any(-1), math.nan, -math.inf)
    return torch.where(inside.squeeze(-1), result, outside.to(result.dtype))
