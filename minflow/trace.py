"""Watch a flow's transforms at work: what went in, what came out, where it broke."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from minflow.transform import Compose, Inverse, Transform

DIRECTIONS = ("forward", "inverse")


@dataclass(frozen=True)
class Call:
    """One call of one transform; gradients are there if the pass was a training step."""

    name: str  # as in flow.named_modules(), such as "transform.transforms.2"
    transform: Transform
    direction: str  # "forward" or "inverse"
    start: Tensor
    context: Tensor | None
    end: Tensor
    log_det: Tensor

    def __str__(self) -> str:
        return f"{self.name} ({type(self.transform).__name__}).{self.direction}"


@contextmanager
def traced(flow: nn.Module) -> Iterator[list[Call]]:
    """Record every call of the flow's transforms; Compose and Inverse only pass it on.

    >>> import torch, minflow
    >>> layers = minflow.Householder(2), minflow.Householder(2)
    >>> flow = minflow.Flow(minflow.Compose(*layers))
    >>> with traced(flow) as calls:
    ...     _ = flow.log_prob(torch.zeros(3, 2))
    >>> [call.name for call in calls]
    ['transform.transforms.1', 'transform.transforms.0']
    """
    calls: list[Call] = []
    watched: list[tuple[Transform, dict[str, Any]]] = []
    for name, module in flow.named_modules():
        if isinstance(module, Transform) and not isinstance(module, Compose | Inverse):
            own = {k: v for k, v in module.__dict__.items() if k in DIRECTIONS}
            watched.append((module, own))
            # An attribute of the instance goes before the method of its class.
            methods = _recorded(calls, name, module)
            module.__dict__.update(methods)
    try:
        yield calls
    finally:
        for module, own in watched:
            for direction in DIRECTIONS:
                del module.__dict__[direction]
            module.__dict__.update(own)


def _recorded(
    calls: list[Call], name: str, transform: Transform
) -> dict[str, Callable[..., tuple[Tensor, Tensor]]]:
    """Both directions of a transform, each of which notes its outermost calls."""
    inside = False  # a layer may call its own other direction: that is its own affair

    def note(direction: str, method: Callable[..., tuple[Tensor, Tensor]]) -> Any:
        def noted(start: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
            nonlocal inside
            if inside:
                return method(start, context)
            inside = True
            try:
                end, log_det = method(start, context)
            finally:
                inside = False
            for value in (start, end, log_det):
                if value.requires_grad:
                    value.retain_grad()
            calls.append(Call(name, transform, direction, start, context, end, log_det))
            return end, log_det

        return noted

    return {k: note(k, getattr(transform, k)) for k in DIRECTIONS}


def where_not_finite(flow: nn.Module, loss: Callable[[], Tensor]) -> str:
    """Run a training step that went wrong once more, and say which layer broke it.

    Args:
        flow: the flow, with the weights that it had in that step.
        loss: computes the step's loss anew, from the same batch.
    """
    flow.zero_grad()
    with traced(flow) as calls:
        value = loss()
    if calls and not calls[0].start.isfinite().all():
        bad = ~calls[0].start.isfinite().all(-1)
        return f"{int(bad.sum())} of {bad.numel()} rows of the batch hold NaN or infinity"
    for call in calls:
        if call.context is not None and not call.context.isfinite().all():
            return "the batch's context holds NaN or infinity"
        for what, tensor in [("value", call.end), ("log_det", call.log_det)]:
            if call.start.isfinite().all() and not tensor.isfinite().all():
                bad = ~tensor.isfinite().reshape(*call.log_det.shape, -1).all(-1)
                largest = call.start.detach()[bad].abs().max().item()
                return (
                    f"{call} gives a {what} that is not finite on {int(bad.sum())} of "
                    f"{bad.numel()} rows, from finite inputs of size up to {largest:.3g}"
                )
    if value == math.inf:
        return "a density is 0: some points lie outside the support, or the base's"
    if not value.isfinite().all():
        return "every layer is finite: look at the base, the loss or the data"
    value.backward()
    for call in reversed(calls):
        outputs = [t.grad for t in (call.end, call.log_det) if t.grad is not None]
        if all(gradient.isfinite().all() for gradient in outputs):
            parts = {k: p.grad for k, p in call.transform.named_parameters()}
            parts["its input"] = call.start.grad if call.start.requires_grad else None
            for what, gradient in parts.items():
                if gradient is not None and not gradient.isfinite().all():
                    return f"{call} makes a gradient for {what} that is not finite"
    return "the second pass was finite: the step depends on something random"
