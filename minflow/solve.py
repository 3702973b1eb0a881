"""Solve value(x) = target for an increasing function, with gradients that are right."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

MAX_STEPS = 200  # each step halves the bracket or the step before it: 60 are many


def monotone_root(
    value_and_log_slope: Callable[[Tensor], tuple[Tensor, Tensor]],
    target: Tensor,
    lower: Tensor,
    upper: Tensor,
    value_rounding: float | Tensor = 0.0,
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
        lower, upper: points with value(lower) <= target <= value(upper); if they are not,
            the search ends at one of them.
        value_rounding: a value v is known to eps · (value_rounding + |v|), and no better;
            above 0 if v is a difference of larger numbers. One number, or one a target.

    Returns:
        x, of target's shape, to the rounding of its dtype; NaN where the target is NaN.

    Cost: a batch runs until its slowest point is solved, 5 to 20 evaluations as a rule.
    How many depends on the numbers: `torch.func.vmap` and whole graphs refuse it.
    """
    with torch.no_grad():
        x = _bracketed_newton(value_and_log_slope, target, lower, upper, value_rounding)
    # A slope that underflows would make the step 0 · inf: there the gradient is capped.
    cap = math.log(torch.finfo(x.dtype).max) / 4
    for _ in range(2):
        value, log_slope = value_and_log_slope(x)
        step = (value - target) * torch.exp((-log_slope).clamp(max=cap))
        x = x - (step - step.detach())
    return x


def _bracketed_newton(
    value_and_log_slope: Callable[[Tensor], tuple[Tensor, Tensor]],
    target: Tensor,
    lower: Tensor,
    upper: Tensor,
    value_rounding: float | Tensor,
) -> Tensor:
    x = 0.5 * (lower + upper)
    last_step = upper - lower
    limits = torch.finfo(x.dtype)
    for _ in range(MAX_STEPS):
        value, log_slope = value_and_log_slope(x)
        residual = value - target
        slope = log_slope.exp().clamp(max=limits.max**0.5)
        # Below this a residual is rounding: of the value, or of x times the slope.
        rounding = limits.eps * (value_rounding + target.abs() + x.abs() * slope)
        unsolved = (residual.abs() > rounding) & (last_step != 0)  # NaN counts as solved
        if not unsolved.any():
            break
        upper = torch.where(residual > 0, x, upper)
        lower = torch.where(residual > 0, lower, x)
        newton = x - residual / slope
        halves = (newton - x).abs() <= 0.5 * last_step.abs()
        good = (lower <= newton) & (newton <= upper) & halves
        new_x = torch.where(good, newton, 0.5 * (lower + upper))
        new_x = torch.where(unsolved, new_x, x)
        last_step, x = torch.where(unsolved, new_x - x, last_step), new_x
    return x
