"""Flow: a base distribution and a transform, together a distribution over data.

    x = f(z), z ~ p_z,   log q(x) = log p_z(f⁻¹(x)) + log|det df⁻¹/dx|.

`Flow` is where a caller's input is checked; the transforms behind it trust what they
get.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution, constraints
from torch.distributions.constraints import Constraint

from minflow.base import DistributionBase, Shape, StandardNormal, as_size, within
from minflow.transform import Transform, ends, interval


class Flow(nn.Module):
    """The distribution of x = f(z), z from the base: it scores, samples and learns.

    Args:
        transform: f, a Transform.
        base: what z is drawn from. None is the standard normal; a torch Distribution is
            adapted.

    Raises:
        TypeError: if transform is not a Transform, or base not a distribution.
        ValueError: if base and transform differ in dim or dtype, or the base reaches
            outside f's domain.

    >>> import minflow
    >>> flow = Flow(minflow.Elementwise(2, minflow.MixtureCDF()))
    >>> flow.sample(5).shape, flow.log_prob(torch.zeros(3, 2)).shape
    (torch.Size([5, 2]), torch.Size([3]))
    """

    def __init__(
        self, transform: Transform, base: nn.Module | Distribution | None = None
    ) -> None:
        super().__init__()
        if not isinstance(transform, Transform):
            raise TypeError(
                f"transform must be a minflow Transform; got {type(transform).__name__}"
            )
        if base is None:
            base = StandardNormal(transform.dim)
        elif isinstance(base, FlowDistribution):
            raise TypeError("a flow is no base of another: Compose their transforms")
        elif isinstance(base, Distribution):
            base = DistributionBase(base)
        like = next(transform.parameters(), None)
        if isinstance(base, StandardNormal) and like is not None:
            base = base.to(like)
        if not isinstance(base, StandardNormal | DistributionBase):
            raise TypeError(
                f"base must be a torch Distribution or None; got {type(base).__name__}"
            )
        if base.dim != transform.dim:
            raise ValueError(
                f"the base has dim {base.dim}, the transform dim {transform.dim}"
            )
        reach, start = interval(base.support), interval(transform.domain)
        dtype = next(base.buffers()).dtype  # in which the base's own ends are rounded
        rounded = torch.tensor(start or (-math.inf, math.inf), dtype=dtype, device="cpu")
        low, high = rounded.tolist()
        if reach is not None and (reach[0] < low or reach[1] > high):
            raise ValueError(
                f"the base reaches over {reach}, but the transform starts from {start}"
            )
        if like is not None and {b.dtype for b in base.buffers()} != {like.dtype}:
            raise ValueError(
                f"the base computes in {sorted({str(b.dtype) for b in base.buffers()})}, "
                f"the transform in {like.dtype}: convert one of them first"
            )
        self.transform = transform
        self.base: StandardNormal | DistributionBase = base
        self._unbounded = interval(transform.codomain) == (-math.inf, math.inf)

    @property
    def dim(self) -> int:
        """D, the size of one data point."""
        return self.transform.dim

    @property
    def context_dim(self) -> int:
        """C, the size of the context; 0 for a flow that takes none."""
        return self.transform.context_dim

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log q(x) in nats; −inf outside the flow's support.

        Args:
            x: data points, shape (*batch, D), in the flow's dtype.
            context: shape (*context_batch, C), for a conditional flow; None for any
                other.

        Returns:
            Shape (*B), the two batches broadcast.

        Raises:
            TypeError, ValueError: if x or context is of another kind or shape.

        Cost: one inverse of the transform.
        """
        self.check("x", x, self.dim)
        self._check_context(context)

        def score(x: Tensor) -> Tensor:
            z, log_det = self.transform.inverse(x, context)
            return self.base.log_prob(z) + log_det

        if self._unbounded:
            return score(x)
        inside = self.transform.codomain.check(x)
        bounds = ends(self.transform.codomain, self.dim)
        if bounds is None:
            return within(inside, x, x, score)
        low, high = x.new_tensor(bounds).unbind(-1)
        # An end itself has no point of the base to come from.
        inside = inside & ((low < x) & (x < high)).all(-1)
        middles = [_middle(*pair) for pair in bounds]
        return within(inside, x, x.new_tensor(middles), score)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The same as `log_prob`: what torch's own tools call."""
        return self.log_prob(x, context)

    def sample(self, shape: Shape = (), context: Tensor | None = None) -> Tensor:
        """Points drawn from the flow, without gradients.

        Args:
            shape: how many; an int n stands for (n,).
            context: as in `log_prob`.

        Returns:
            Shape (*shape, *context_batch, D).

        Cost: one forward of the transform.
        """
        with torch.no_grad():
            return self.rsample(shape, context)

    def rsample(self, shape: Shape = (), context: Tensor | None = None) -> Tensor:
        """As `sample`, with gradients for the flow's parameters and the context."""
        return self.transform(self._base_points(shape, context), context)[0]

    def sample_and_log_prob(
        self, shape: Shape = (), context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Points as from `rsample`, and log q at each, for one price.

        Returns:
            x of shape (*shape, *context_batch, D) and log q(x) of shape (*shape,
            *context_batch).
        """
        z = self._base_points(shape, context)
        x, log_det = self.transform(z, context)
        return x, self.base.log_prob(z) - log_det

    def normalize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """z = f⁻¹(x), the base point of each data point; shapes as in `log_prob`."""
        self.check("x", x, self.dim)
        self._check_context(context)
        return self.transform.inverse(x, context)[0]

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Let data-dependent parts start from a batch of data; `fit` calls it."""
        self.check("x", x, self.dim)
        self._check_context(context)
        with torch.no_grad():
            self.transform.initialize(x, context)

    def distribution(self, context: Tensor | None = None) -> FlowDistribution:
        """The flow as a torch Distribution: event shape (D,), the context's batch."""
        self._check_context(context)
        return FlowDistribution(self, context)

    def check(self, name: str, value: Tensor, width: int) -> None:
        """Raise an error that names what is wrong with a value for this flow.

        Args:
            name: what the message calls it.
            value: what a caller handed in.
            width: the size that its last dimension must have.
        """
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name} must be a torch Tensor; got {type(value).__name__}. "
                "torch.as_tensor(..., dtype=torch.float32) makes one."
            )
        if value.dim() == 0 or value.shape[-1] != width:
            raise ValueError(
                f"{name} must have shape (..., {width}), its last dimension "
                f"the flow's; got {tuple(value.shape)}"
            )
        like = next(itertools.chain(self.parameters(), self.base.buffers()))
        if value.dtype != like.dtype and not torch.is_autocast_enabled(value.device.type):
            raise TypeError(
                f"{name} is {value.dtype}, but the flow computes in {like.dtype}: "
                f"convert one, with {name}.to({like.dtype}) or flow.to(...)"
            )

    def _base_points(self, shape: Shape, context: Tensor | None) -> Tensor:
        self._check_context(context)
        batch = as_size(shape)
        if context is not None:
            batch = batch + context.shape[:-1]
        return self.base.rsample(batch)

    def _check_context(self, context: Tensor | None) -> None:
        if self.context_dim == 0:
            if context is not None:
                raise ValueError("this flow takes no context, but one was given")
        elif context is None:
            raise ValueError(
                f"this flow needs a context of shape (..., {self.context_dim})"
            )
        else:
            self.check("context", context, self.context_dim)


def _middle(low: float, high: float) -> float:
    """A number well inside an interval, either end of which may be infinite."""
    if math.isfinite(low + high):
        return (low + high) / 2
    return max(low + 1, min(high - 1, 0.0))


class FlowDistribution(Distribution):
    """A flow at one context as a torch Distribution; see `Flow.distribution`."""

    arg_constraints: dict[str, Constraint] = {}

    def __init__(
        self,
        flow: Flow,
        context: Tensor | None = None,
        batch_shape: Size | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.flow = flow
        self.context = context
        if batch_shape is None:
            batch_shape = Size() if context is None else context.shape[:-1]
        super().__init__(batch_shape, Size([flow.dim]), validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]  # a class attribute in torch
        base = self.flow.base
        return not isinstance(base, DistributionBase) or base.distribution.has_rsample

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Constraint:
        """Where the transform can end."""
        return self.flow.transform.codomain

    def __repr__(self) -> str:
        shape = tuple(self.batch_shape), tuple(self.event_shape)
        return f"FlowDistribution(batch_shape={shape[0]}, event_shape={shape[1]})"

    def expand(self, batch_shape: Shape, _instance: Any = None) -> FlowDistribution:
        """The same law for every point of a larger batch."""
        shape = as_size(batch_shape)
        context = self.context
        if context is not None:
            context = context.expand(*shape, self.flow.context_dim)
        return FlowDistribution(self.flow, context, shape, self._validate_args)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Points of shape (*sample_shape, *batch_shape, D), with gradients."""
        shape = as_size(sample_shape)
        if self.context is None:
            shape = shape + self.batch_shape
        return self.flow.rsample(shape, self.context)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Points of shape (*sample_shape, *batch_shape, D), without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(value) in nats; the batch of value broadcasts with the batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        log_prob = self.flow.log_prob(value, self.context)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))
