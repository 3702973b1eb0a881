"""What the targets share: their form as torch Distributions, and checks of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.constraints import Constraint


class Target(Distribution):
    """A density over points of shape (D,), all of D-dimensional space unless it says so.

    Args:
        dim: D.
    """

    arg_constraints: dict[str, Constraint] = {}
    support: Constraint = constraints.real_vector

    def __init__(self, dim: int) -> None:
        super().__init__(Size(), Size([dim]), validate_args=False)

    def _check(self, value: Tensor) -> None:
        """ValueError unless these are points to score."""
        dim = self.event_shape[0]
        fits = isinstance(value, Tensor) and value.shape[-1:] == (dim,)
        if not fits or not value.is_floating_point():
            got = type(value).__name__
            if isinstance(value, Tensor):
                got = str(tuple(value.shape)) + (f" of {value.dtype}" if fits else "")
            raise ValueError(
                f"points must be a floating tensor of shape (..., {dim}); got {got}"
            )


def check_positive(name: str, number: float) -> None:
    """ValueError, with its name, unless the number is positive and finite."""
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be positive and finite; got {number!r}")


def check_noise(noise: float, least: float) -> None:
    """ValueError unless the noise is finite and wide enough for the quadrature."""
    if not least <= noise < math.inf:
        raise ValueError(f"noise must be finite and at least {least:g}; got {noise!r}")


def entropy_on_grid(
    log_prob: Callable[[Tensor], Tensor], x1: Tensor, x2: Tensor
) -> Tensor:
    """H = −∫ p log p in nats, by the trapezoidal rule on the evenly spaced x1 × x2."""
    total = torch.zeros((), dtype=torch.float64)
    for rows in x1.split(16):
        log_p = log_prob(torch.cartesian_prod(rows, x2))
        total -= (log_p.exp() * log_p).sum()
    return total * (x1[1] - x1[0]) * (x2[1] - x2[0])


def panels(low: float, high: float, count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss and Legendre's rule with 8 nodes on each of the panels.

    Returns:
        Both of shape (8·count,), in float64; the panels divide low to high evenly.
    """
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(8))
    width = (high - low) / count
    starts = low + width * torch.arange(count, dtype=torch.float64).unsqueeze(1)
    points = starts + width * (nodes + 1) / 2
    return points.flatten(), (width / 2 * weights).repeat(count)
