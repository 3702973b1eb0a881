"""Solve value(x) = target for an increasing function, with gradients that are right."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MAX_STEPS = (
    200  # bisection alone needs about 60 in float64; every second step at least bisects
)


def monotone_root(
    value_and_log_slope: Callable[[Tensor], tuple[Tensor, Tensor]],
    target: Tensor,
    lower: Tensor,
    upper: Tensor,
) -> Tensor:
    """The x at which an increasing function reaches the target, elementwise.

    The search is Newton's, safeguarded by bisection: a step that leaves the bracket, or
    does not halve the one before it, is replaced by the bracket's middle (after rtsafe
    in Press et al., Numerical Recipes, section 9.4). It runs without gradients. The
    gradients come from the implicit function theorem: if value(x; θ) = target, then

        dx = (d target − ∂value/∂θ dθ) / (∂value/∂x).

    A Newton step taken from the root has these derivatives, so two such steps, whose
    value is removed, give the first and the second derivative without moving x.

    Args:
        value_and_log_slope: x -> (value(x), log value'(x)), each of x's shape;
            increasing in x.
        target: values to reach, any shape.
        lower, upper: points with value(lower) <= target <= value(upper).

    Returns:
        x, of target's shape, to the rounding of its dtype; NaN where the target is NaN.

    Cost: 5 to 15 evaluations as a rule; a map with long flat parts takes more.
    """
    with torch.no_grad():
        x = _bracketed_newton(value_and_log_slope, target, lower, upper)
    # A slope that underflows would make the step 0 · inf = nan: there the gradient is
    # capped.
    steepest = 0.9 * torch.finfo(x.dtype).max ** 0.5
    for _ in range(2):
        value, log_slope = value_and_log_slope(x)
        step = (value - target) * torch.exp(-log_slope).clamp(max=steepest)
        x = x - (step - step.detach())
    return x


def _bracketed_newton(
    value_and_log_slope: Callable[[Tensor], tuple[Tensor, Tensor]],
    target: Tensor,
    lower: Tensor,
    upper: Tensor,
) -> Tensor:
    x = 0.5 * (lower + upper)
    last_step = upper - lower
    tolerance = 2 * torch.finfo(x.dtype).eps
    for _ in range(MAX_STEPS):
        value, log_slope = value_and_log_slope(x)
        too_high = value > target
        upper = torch.where(too_high, x, upper)
        lower = torch.where(too_high, lower, x)
        newton = x - (value - target) * torch.exp(-log_slope)
        good = (
            (lower <= newton)
            & (newton <= upper)
            & ((newton - x).abs() <= 0.5 * last_step.abs())
        )
        new_x = torch.where(good, newton, 0.5 * (lower + upper))
        last_step, x = new_x - x, new_x
        if not (
            last_step.abs() > tolerance * (1e-3 + x.abs())
        ).any():  # NaN counts as done
            break
    return x
