"""Six broken flows and four training runs to be diagnosed. To hunt fairly, do not read on.

The names say what a layer is for, as in any library, and not what is wrong with it: a reader who
prints a flow learns nothing. The comment "The fault" marks each line that is to blame.
"""

from __future__ import annotations

import copy
import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import (
    Beta,
    Distribution,
    Independent,
    MultivariateNormal,
    constraints,
)
from torch.nn.functional import softplus

from minflow.base import StandardNormal
from minflow.data import TwoMoons
from minflow.elementwise import Elementwise
from minflow.flow import Flow
from minflow.linear import Householder, TriangularAffine
from minflow.mixture_cdf import MixtureCDF
from minflow.run import History
from minflow.scalar_map import Affine
from minflow.standardize import Standardize
from minflow.train import fit
from minflow.transform import Compose, Transform


class Patient(NamedTuple):
    """A broken flow, and the law of the data that it was trained on."""

    flow: Flow
    target: Distribution


def patient(letter: str, dim: int = 2, trained: bool = True) -> Patient:
    """One of the six broken flows, and the law of its data.

    Each call gives a flow of its own. The target has `sample`, `log_prob` and `entropy`.

    Args:
        letter: "A" to "F".
        dim: D, at least 2.
        trained: whether the flow was trained, or stands at its start.

    Raises:
        ValueError: if there is no such patient, or dim is below 2.

    Cost: less than a second to train, once for each dim.

    >>> flow, target = patient("A")
    >>> flow.log_prob(target.sample((5,))).shape
    torch.Size([5])
    """
    if letter not in BUILD:
        raise ValueError(f"there is no patient {letter!r}, only {', '.join(BUILD)}")
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 2:
        raise ValueError(f"dim must be a whole number, at least 2; got {dim!r}")
    return copy.deepcopy(_made(letter, dim, bool(trained)))


@functools.cache
def _made(letter: str, dim: int, trained: bool) -> Patient:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        target = _box(dim) if letter == "B" else _ellipse(dim)
        flow = BUILD[letter](dim)
        if trained:
            data = target.sample(torch.Size([8000])).to(torch.get_default_dtype())
            fit(flow, data, steps=400, batch_size=128, lr=0.1, progress=False)
    return Patient(flow, target)


def _ellipse(dim: int) -> MultivariateNormal:
    """A normal law whose axes lie askew, with standard deviations from 2 down to ½."""
    turn, _ = torch.linalg.qr(torch.ones(dim, dim).tril())
    stds = torch.logspace(1, -1, dim, base=2.0)
    return MultivariateNormal(torch.ones(dim), scale_tril=_root(turn * stds))


def _root(factor: Tensor) -> Tensor:
    return torch.linalg.cholesky(factor @ factor.mT)


def _box(dim: int) -> Independent:
    """A law on the unit box: Beta(2, 5) and Beta(5, 2) by turns."""
    first = torch.arange(dim) % 2 == 0
    a, b = torch.where(first, 2.0, 5.0), torch.where(first, 5.0, 2.0)
    return Independent(Beta(a, b), 1)


class Stretch(Transform):
    """x = b + e^s z, for each coordinate."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.shift = nn.Parameter(torch.zeros(dim))
        self.raw = nn.Parameter(torch.zeros(dim))

    def log_scale(self) -> Tensor:
        return 3 * torch.tanh(self.raw / 3)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        s = self.log_scale()
        return self.shift + s.exp() * z, -s.sum().expand(z.shape[:-1])  # The fault

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        s = self.log_scale()
        return (x - self.shift) / s.exp(), s.sum().expand(x.shape[:-1])  # The fault


class Box(Transform):
    """From the line to (0, 1), for each coordinate."""

    codomain = constraints.independent(constraints.unit_interval, 1)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.sigmoid(), z.new_zeros(z.shape[:-1])  # The fault

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.logit(), x.new_zeros(x.shape[:-1])  # The fault


class Halves(Transform):
    """One half of the coordinates stays, and steers the scale and shift of the other."""

    def __init__(self, dim: int, swap: bool) -> None:
        super().__init__(dim)
        self.swap = swap
        sizes = [(dim + 1) // 2, dim // 2]
        still, moved = sizes[::-1] if swap else sizes
        self.net = nn.Linear(still, 2 * moved)
        nn.init.zeros_(self.net.weight)
        nn.init.zeros_(self.net.bias)

    def _split(self, points: Tensor) -> tuple[Tensor, Tensor]:
        halves = points[..., ::2], points[..., 1::2]
        return halves[::-1] if self.swap else halves

    def _join(self, still: Tensor, moved: Tensor) -> Tensor:
        halves = (moved, still) if self.swap else (still, moved)
        return torch.cat(halves, -1)  # The fault

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        still, moved = self._split(z)
        s, t = self.net(still).chunk(2, -1)
        s = 2 * torch.tanh(s / 2)
        return self._join(still, moved * s.exp() + t), s.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        still, moved = self._split(x)
        s, t = self.net(still).chunk(2, -1)
        s = 2 * torch.tanh(s / 2)
        return self._join(still, (moved - t) * (-s).exp()), -s.sum(-1)


class Norm(Transform):
    """x = m + s z, where m and s start from the mean and scale of the first batch."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.mean = nn.Parameter(torch.zeros(dim))
        self.log_std = nn.Parameter(torch.zeros(dim))
        self.ready = False  # The fault

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.mean + self.log_std.exp() * z
        return x, self.log_std.sum().expand(z.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not self.ready:
            rows = x.detach().reshape(-1, self.dim)
            self.mean.data = rows.mean(0)
            self.log_std.data = (rows.std(0, correction=0) + 1e-3).log()
            self.ready = True
        z = (x - self.mean) / self.log_std.exp()
        return z, -self.log_std.sum().expand(x.shape[:-1])


class Noise(StandardNormal):
    """The base, standard normal in D dimensions."""

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(-1)  # The fault


class Scale(Transform):
    """x = b + s z with s > 0, for each coordinate."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.shift = nn.Parameter(torch.zeros(dim))
        self.raw = nn.Parameter(torch.linspace(-2, 2, dim))  # not all alike

    def log_scale(self) -> Tensor:
        return -softplus(self.raw)  # The fault

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        s = self.log_scale()
        return self.shift + s.exp() * z, s.sum().expand(z.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        s = self.log_scale()
        return (x - self.shift) * (-s).exp(), -s.sum().expand(x.shape[:-1])


BUILD = {
    "A": lambda dim: Flow(Compose(Stretch(dim), TriangularAffine(dim))),
    "B": lambda dim: Flow(Compose(Elementwise(dim, MixtureCDF(4)), Box(dim))),
    "C": lambda dim: Flow(
        Compose(Elementwise(dim, Affine()), Halves(dim, False), Halves(dim, True))
    ),
    "D": lambda dim: Flow(
        Compose(TriangularAffine(dim), Norm(dim), Elementwise(dim, MixtureCDF(4)))
    ),
    "E": lambda dim: Flow(
        Compose(Elementwise(dim, MixtureCDF(4)), TriangularAffine(dim)), Noise(dim)
    ),
    "F": lambda dim: Flow(Compose(Scale(dim), Householder(dim))),
}


def four_runs() -> list[History]:
    """Four training runs on the two moons, each with held-out data; something is amiss in each.

    Cost: about two seconds.
    """
    moons = TwoMoons()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        rows, held_out = moons.sample((4000,)), moons.sample((1000,))
        few = rows[:50]
        plans: list[tuple[Transform, Tensor, float]] = [
            (_blocks(1), rows, 0.0003),
            (_blocks(2), few, 0.05),
            (Stretch(2), rows, 0.05),
            (_blocks(2), rows, 1.0),
        ]
        runs = []
        for transform, data, lr in plans:
            flow = Flow(Compose(transform, Standardize.of(rows)))
            runs.append(
                fit(
                    flow, data, validation=held_out, steps=300, batch_size=128, lr=lr,
                    check_every=10, progress=False,
                )
            )  # fmt: skip
    return runs


def _blocks(count: int) -> Compose:
    """Shape and rotation in turn."""
    parts: list[Transform] = []
    for _ in range(count):
        parts += [Elementwise(2, MixtureCDF(8)), Householder(2)]
    return Compose(*parts)
