"""What the contenders share: the cases, and what each of them must be able to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

BOUND = 4.0  # splines bend inside [−BOUND, BOUND]
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Case:
    """What is built: networks have two hidden layers of one width, and a ReLU after each."""

    name: str
    kind: str  # affine or spline, coupling or autoregressive; or planar
    dim: int
    layers: int
    width: int
    batch: int
    bins: int = 8

    @property
    def hidden(self) -> tuple[int, int]:
        return self.width, self.width

    @property
    def outputs(self) -> int:
        """How many numbers steer the map of one coordinate."""
        return 3 * self.bins - 1 if self.kind.startswith("spline") else 2

    @property
    def masks(self) -> list[Tensor]:
        """For couplings: 1 where a coordinate is moved, layer by layer."""
        first = torch.arange(self.dim) < self.dim // 2
        return [first if i % 2 else ~first for i in range(self.layers)]


@dataclass
class Contender:
    """What one library does in one case.

    Args:
        score: log q of each point of a batch, without gradients; None if it cannot.
        step: one step of Adam on a batch; for planar layers on points of its own.
        draw: a batch of samples, without gradients; for planar layers with log q.
        give: a batch as the library takes it, from a torch tensor.
        parameters, effective: how many numbers are trained, and how many no mask shuts off.
        there, back: from data to base and from base to data; None if it cannot.
        note: what a reader of its numbers must know.
    """

    score: Callable[[Any], Any] | None
    step: Callable[[Any], Any]
    draw: Callable[[], Any]
    parameters: int
    effective: int
    there: Callable[[Any], Any] | None = None
    back: Callable[[Any], Any] | None = None
    note: str = ""
    give: Callable[[Tensor], Any] = lambda x: x


def mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """The network of all cases, for libraries that take one."""
    first, second = nn.Linear(inputs, width), nn.Linear(width, width)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(width, outputs))


class WithContext(nn.Module):
    """The same network for libraries that hand it a context, which is none here."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.hidden_features = width  # by which they scale the logits of splines
        self.net = mlp(inputs, width, outputs)

    def forward(self, inputs: Tensor, context: None = None) -> Tensor:
        return self.net(inputs)


def counts(modules: Iterable[nn.Module]) -> tuple[int, int]:
    """How many numbers are trained, and how many of them no mask shuts off."""
    parts = {part for module in modules for part in module.modules()}
    numbers = {p for part in parts for p in part.parameters(recurse=False) if p.requires_grad}
    total, shut = sum(p.numel() for p in numbers), 0
    for part in parts:
        mask, weight = getattr(part, "mask", None), getattr(part, "weight", None)
        if mask is not None and weight is not None:
            shut += int((mask == 0).sum())
    return total, total - shut


def normal(z: Tensor) -> Tensor:
    """log of the standard normal density, the base of all flows."""
    return -0.5 * z.square().sum(-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)


def log_p(x: Tensor) -> Tensor:
    """What the planar flows are fitted to: a standard normal law, moved by 1."""
    return normal(x - 1)


def trainer(
    module: nn.Module, loss: Callable[[Any], Tensor], learning_rate: float
) -> Callable[[Any], Tensor]:
    """One step of Adam on a loss."""
    numbers = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(numbers, lr=learning_rate)

    def step(x: Any) -> Tensor:
        optimizer.zero_grad()
        value = loss(x)
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def density(
    module: nn.Module,
    log_prob: Callable[[Tensor], Tensor],
    draw: Callable[[], Any],
    there: Callable[[Tensor], Tensor] | None = None,
    back: Callable[[Tensor], Tensor] | None = None,
    note: str = "",
    loss: Callable[[Tensor], Tensor] | None = None,
    learning_rate: float = LEARNING_RATE,
) -> Contender:
    """A torch flow that is fitted to data."""
    step = trainer(module, loss or (lambda x: -log_prob(x).mean()), learning_rate)
    score, draw = torch.no_grad()(log_prob), torch.no_grad()(draw)
    return Contender(score, step, draw, *counts([module]), there, back, note)


def variational(
    module: nn.Module,
    push: Callable[[], tuple[Tensor, Tensor]],
    there: Callable[[Tensor], Tensor] | None = None,
    back: Callable[[Tensor], Tensor] | None = None,
    note: str = "",
    loss: Callable[[Any], Tensor] | None = None,
) -> Contender:
    """A torch flow that is fitted to a density, from samples of its own with log q."""

    def reverse_kl(_: Any) -> Tensor:
        x, log_q = push()
        return (log_q - log_p(x)).mean()

    step = trainer(module, loss or reverse_kl, LEARNING_RATE)
    return Contender(None, step, torch.no_grad()(push), *counts([module]), there, back, note)
