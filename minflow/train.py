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

    The learning rate decays to zero as a cosine.

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
        FloatingPointError: if a loss or a gradient is not finite; the weights stay as
            they were.

    Cost: one inverse of the transform and its gradient a step.

    Source: Kingma and Ba 2015 (Adam, arXiv:1412.6980).
    """
    flow.check("data", data, flow.dim)
    if data.dim() != 2 or len(data) == 0:
        raise ValueError(
            f"data must have shape (N, {flow.dim}), N >= 1; got {tuple(data.shape)}"
        )
    if not data.isfinite().all():
        bad = int((~data.isfinite().all(-1)).sum())
        raise ValueError(f"{bad} of {len(data)} rows of data hold NaN or infinity")
    if context is not None and len(context) != len(data):
        raise ValueError(f"data has {len(data)} rows, but context has {len(context)}")
    if steps < 1 or batch_size < 1:
        raise ValueError(
            f"steps and batch_size must be at least 1; got {steps} and {batch_size}"
        )
    parameters = [p for p in flow.parameters() if p.requires_grad and p.numel()]
    if not parameters:
        raise ValueError("the flow has no parameter to train")

    flow.initialize(data, context)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    history = History()
    for step in range(steps):
        rows = torch.randint(len(data), (batch_size,), generator=generator).to(
            data.device
        )
        loss = -flow.log_prob(
            data[rows], None if context is None else context[rows]
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        size = torch.nn.utils.clip_grad_norm_(
            parameters, max_norm=math.inf
        )  # measures alone
        if not (loss + size).isfinite():
            raise FloatingPointError(
                f"step {step}: the loss is {loss.item()}, "
                f"the gradient's norm {size.item()}; "
                "the weights are those of the step before"
            )
        optimizer.step()
        schedule.step()
        history.loss.append(loss.item())
    return history
