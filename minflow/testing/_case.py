"""What each check looks at: one transform at one D, with points on both sides."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from minflow.transform import Transform, interval

Direction = Callable[..., tuple[Tensor, Tensor]]


@dataclass
class Case:
    """One transform at one D, in float64 and away from its start, with points on both sides."""

    make: Callable[[int], Transform]
    dim: int
    mixes: bool | None
    closed_form: tuple[str, ...]
    network_passes: tuple[int, int] | None
    generator: Generator = field(default_factory=lambda: Generator().manual_seed(0))

    def fresh(self, seed: int) -> Transform:
        """A new transform with parameters moved away from the start, where errors cancel."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            transform = self.make(self.dim).double()
            # A sum over D coordinates grows with D: random matrices stay well-conditioned.
            size = 0.5 * min(1.0, (5 / self.dim) ** 0.5)
            with torch.no_grad():
                for parameter in transform.parameters():
                    parameter.add_(size * torch.randn_like(parameter))
        return transform

    @cached_property
    def transform(self) -> Transform:
        transform = self.fresh(seed=1)
        transform.initialize(
            self.points(transform.codomain, 64), self.context_for(transform, 64)
        )
        return transform

    def points(self, where: Constraint, *shape: int) -> Tensor:
        """Random points in a domain, shape (*shape, D)."""
        bounds = interval(where)
        if bounds is None:
            raise ValueError(
                f"this tool needs an interval as domain and codomain; got {where}"
            )
        lower, upper = bounds
        normal = torch.randn(
            *shape, self.dim, generator=self.generator, dtype=torch.float64
        )
        if bounds == (-math.inf, math.inf):
            return 1.5 * normal
        if math.isfinite(lower) and math.isfinite(upper):
            return lower + (upper - lower) * torch.sigmoid(normal)
        return lower + normal.exp() if math.isfinite(lower) else upper - normal.exp()

    def context_for(self, transform: Transform, *shape: int) -> Tensor | None:
        if not transform.context_dim:
            return None
        width = transform.context_dim
        return torch.randn(*shape, width, generator=self.generator, dtype=torch.float64)

    def sides(
        self, n: int = 7
    ) -> Iterator[tuple[str, Direction, Direction, Tensor, Tensor | None]]:
        """Each direction: its name, itself, the way back, n points to start from, their context."""
        t = self.transform
        context = self.context_for(t, n)
        yield "forward", t.forward, t.inverse, self.points(t.domain, n), context
        yield "inverse", t.inverse, t.forward, self.points(t.codomain, n), context


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return a.shape == b.shape and bool(
        torch.allclose(a, b, rtol=tolerance, atol=tolerance)
    )


def jacobians(go: Direction, start: Tensor, context: Tensor | None) -> Tensor:
    """d go(start)_j / d start_k at each of n points, (n, D, D), from one gradient.

    Each point goes in D times; the gradient of copy j is taken of its number j alone.
    """
    copies = start.unsqueeze(1).repeat(1, start.shape[-1], 1).requires_grad_()
    end, _ = go(copies, None if context is None else context.unsqueeze(1))
    each = torch.eye(start.shape[-1], dtype=end.dtype).expand_as(end)
    return torch.autograd.grad(end, copies, each)[0]


@contextmanager
def compiling() -> Iterator[None]:
    """Let torch compile inside, and leave no trace of it.

    torch.compile switches off the checks of all torch Distributions.
    """
    validates = Distribution._validate_args
    try:
        yield
    finally:
        Distribution.set_default_validate_args(validates)
        if "torch._dynamo" in sys.modules:  # it loads slowly: not for nothing
            torch.compiler.reset()
