"""How far one distribution is from another, in nats, with an error bar."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class HasLogProb(Protocol):
    """A flow, a target, any torch Distribution."""

    def log_prob(self, value: Tensor, /) -> Tensor: ...


class Gap(NamedTuple):
    """A mean difference of log-densities and its standard error, both in nats."""

    nats: float
    error: float

    def __str__(self) -> str:
        return f"{self.nats:.3f} ± {self.error:.3f} nats"


def paired_gap(p: HasLogProb, q: HasLogProb, x: Tensor) -> Gap:
    """The mean of log p(x) − log q(x) over points x, with its standard error.

    If p is the law that x was drawn from, this estimates KL(p‖q) = E_p[log p − log q].
    If p and q are two models, it says by how many nats a point p beats q on these data.
    Both see the same points, so what makes a point easy or hard for both cancels.

    Args:
        p, q: a flow, a target or any torch Distribution; for a conditional flow,
            ``flow.distribution(context)``.
        x: points that neither was trained on, shape (N, D), N >= 2.

    Raises:
        TypeError: if x is not a tensor.
        ValueError: if there are fewer than two points, or a log-density is not one
            number a point.

    Cost: one log_prob of each.

    >>> normal = torch.distributions.Normal(torch.zeros(1), torch.ones(1))
    >>> law = torch.distributions.Independent(normal, 1)
    >>> paired_gap(law, law, torch.randn(100, 1))
    Gap(nats=0.0, error=0.0)
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor; got {type(x).__name__}")
    if x.dim() != 2 or len(x) < 2:
        raise ValueError(f"x must have shape (N, D), N >= 2; got {tuple(x.shape)}")
    with torch.no_grad():
        log_p, log_q = p.log_prob(x), q.log_prob(x)
    for name, values in [("p", log_p), ("q", log_q)]:
        if values.shape != x.shape[:1]:
            raise ValueError(
                f"{name}.log_prob must give one number a point, shape ({len(x)},); "
                f"got {tuple(values.shape)}"
            )
    difference = log_p.double() - log_q.double()
    return Gap(difference.mean().item(), difference.std().item() / len(x) ** 0.5)
