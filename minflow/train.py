"""Fit a flow to samples by maximum likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minflow.flow import Flow


@dataclass
class History:
    """What a fit has seen: the mean −log q of each step's batch, in nats."""

    loss: list[float] = field(default_factory=list)

    def __repr__(self) -> str:
        last = f", last loss {self.loss[-1]:.3f} nats" if self.loss else ""
        return f"History({len(self.loss)} steps{last})"


@torch.no_grad()
def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)


def fit(
    flow: Flow,
    data: Tensor,
    *,
    context: Tensor | None = None,
    steps: int = 1000,
    batch_size: int = 256,
    lr: float = 1e-2,
    seed: int = 0,
) -> History:
    """Minimise the mean of −log q(x) over data: maximum likelihood, with Adam.

    The learning rate decays to zero as a cosine. Flows start near the standard normal and
    their scales are bounded, so standardise data whose mean or scale is far from 0 and 1.

    The batches are drawn with replacement by a generator of their own, so the same seed
    gives the same batches whatever else draws random numbers. The flow is trained in
    place.

    Args:
        flow: the flow to train.
        data: N points, shape (N, D).
        context: for a conditional flow, shape (N, C).
        steps: how many batches.
        batch_size: points a batch.
        lr: Adam's learning rate at the start; it ends at zero.
        seed: for the batches.

    Returns:
        The history of the losses.

    Raises:
        TypeError: if data is not a tensor of the flow's dtype.
        ValueError: if shapes or numbers are out of range, or data hold NaN or infinity.
        FloatingPointError: if a loss or a gradient is not finite; the weights are then
            put back to the last ones that gave a finite loss.

    Cost: one inverse of the transform and its gradient a step.

    Source: Kingma and Ba 2015 (Adam, arXiv:1412.6980).
    """
    if not isinstance(flow, Flow):
        raise TypeError(f"fit takes a Flow; got {type(flow).__name__}")
    flow.check("data", data, flow.dim)
    if data.dim() != 2 or len(data) == 0:
        raise ValueError(
            f"data must have shape (N, {flow.dim}), N >= 1; got {tuple(data.shape)}"
        )
    if not data.isfinite().all():
        bad = int((~data.isfinite().all(-1)).sum())
        raise ValueError(f"{bad} of {len(data)} rows of data hold NaN or infinity")
    if context is not None and context.shape != (len(data), flow.context_dim):
        raise ValueError(
            f"context must have shape {(len(data), flow.context_dim)}, a row for each of "
            f"data; got {tuple(context.shape)}"
        )
    if steps < 1 or batch_size < 1:
        raise ValueError(
            f"steps and batch_size must be at least 1; got {steps} and {batch_size}"
        )
    parameters: list[Tensor] = [
        p for p in flow.parameters() if p.requires_grad and p.numel()
    ]
    if not parameters:
        raise ValueError("the flow has no parameter to train")

    data, context = data.detach(), None if context is None else context.detach()
    flow.initialize(data, context)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    last_good = [p.detach().clone() for p in parameters]
    history = History()
    for step in range(steps + 1):  # the last round looks at what the last step has made
        rows = torch.randint(len(data), (batch_size,), generator=generator).to(
            data.device
        )
        loss = -flow.log_prob(
            data[rows], None if context is None else context[rows]
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        size = torch.nn.utils.clip_grad_norm_(parameters, math.inf)  # measures alone
        if not (loss + size).isfinite():
            _copy(last_good, parameters)
            raise FloatingPointError(
                f"step {step}: the loss is {loss.item()}, the gradient's norm "
                f"{size.item()}; the weights are back at the last finite loss"
            )
        if step < steps:
            _copy(parameters, last_good)
            history.loss.append(loss.item())
            optimizer.step()
            schedule.step()
    return history
