"""Monotone maps of one variable: what each of them offers, and those in closed form.

A `ScalarMap` has no state: its parameters are handed in. So the same map serves
`Elementwise`, whose parameters are learned directly, and every layer whose parameters
come from a network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.nn.functional import logsigmoid


def check_bound(bound: float) -> None:
    """ValueError unless a bound is positive and finite."""
    if not 0 < bound < math.inf:
        raise ValueError(f"bound must be positive and finite; got {bound!r}")


def soft_bound(raw: Tensor, bound: float) -> Tensor:
    """bound · tanh(raw / bound): the identity near 0, and never beyond ±bound."""
    return bound * torch.tanh(raw / bound)


@dataclass(frozen=True)
class ScalarMap:
    """An increasing map of one variable, for each element; it holds no parameters.

    Parameters come first: `params` has shape (num_params, *batch, D), or one that
    broadcasts to it. All-zero parameters give a map close to the identity (or the map
    itself, if it has none).
    """

    @property
    def num_params(self) -> int:
        """How many numbers steer the map at each coordinate."""
        raise NotImplementedError(f"{type(self).__name__} has no num_params")

    @property
    def soft_bounded(self) -> slice:
        """Which parameters pass through `soft_bound`; none if the map has no bound."""
        return slice(0)

    @property
    def domain(self) -> Constraint:
        """Where each z may lie; the real line unless the map says otherwise."""
        return constraints.real

    @property
    def codomain(self) -> Constraint:
        """Where each x lies."""
        return constraints.real

    def features(self, value: Tensor) -> tuple[Tensor, ...]:
        """What a network is to see of such values: one or more tensors of their shape."""
        return (value,)

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """z -> (x, log dx/dz), both elementwise, of shape (*batch, D)."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x -> (z, log dz/dx), both elementwise, of shape (*batch, D)."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse")


def checked(scalar_map: ScalarMap) -> ScalarMap:
    """What was handed in; TypeError unless it is an instance of a ScalarMap."""
    if not isinstance(scalar_map, ScalarMap):
        name = scalar_map.__name__ if isinstance(scalar_map, type) else scalar_map
        raise TypeError(f"scalar_map must be a ScalarMap such as Affine(); got {name!r}")
    return scalar_map


@dataclass(frozen=True)
class Affine(ScalarMap):
    """x = z · eˢ + t, with log dx/dz = s.

    The two parameters are t and a raw log-scale r, with s = b · tanh(r / b): the scale
    can grow and shrink, but only between e⁻ᵇ and eᵇ. Both directions are closed form.

    Args:
        bound: b, the largest |s|.

    Source: Dinh, Sohl-Dickstein and Bengio 2017 (arXiv:1605.08803), equations 4 to 8.

    >>> Affine().forward(torch.tensor([1.0]), torch.tensor([[3.0], [0.0]]))
    (tensor([4.]), tensor([0.]))
    """

    bound: float = 5.0

    def __post_init__(self) -> None:
        check_bound(self.bound)

    @property
    def num_params(self) -> int:
        return 2

    @property
    def soft_bounded(self) -> slice:
        return slice(1, 2)

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = params
        log_scale = soft_bound(raw, self.bound)
        return z * log_scale.exp() + shift, log_scale.expand_as(z)

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = params
        log_scale = -soft_bound(raw, self.bound)
        return (x - shift) * log_scale.exp(), log_scale.expand_as(x)


@dataclass(frozen=True)
class Reversed(ScalarMap):
    """A scalar map the other way round: forward and inverse change places.

    Which of them the parameters describe is what training sees. With
    ``Reversed(Affine())`` a flow has z = x · eˢ + t, and no small scale magnifies what is
    learned of the shift.

    Args:
        scalar_map: the map to turn round.

    Cost: the map's, exchanged.

    >>> Reversed(Affine()).inverse(torch.tensor([1.0]), torch.tensor([[3.0], [0.0]]))[0]
    tensor([4.])
    """

    scalar_map: ScalarMap

    def __post_init__(self) -> None:
        checked(self.scalar_map)

    @property
    def num_params(self) -> int:
        return self.scalar_map.num_params

    @property
    def soft_bounded(self) -> slice:
        return self.scalar_map.soft_bounded

    @property
    def domain(self) -> Constraint:
        return self.scalar_map.codomain

    @property
    def codomain(self) -> Constraint:
        return self.scalar_map.domain

    def features(self, value: Tensor) -> tuple[Tensor, ...]:
        return self.scalar_map.features(value)

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return self.scalar_map.inverse(z, params)

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return self.scalar_map.forward(x, params)


@dataclass(frozen=True)
class LeakyReLU(ScalarMap):
    """x = z where z >= 0 and x = z · eˢ elsewhere, with log dx/dz = 0 or s.

    The one parameter is a raw log-slope r, with s = b · tanh(r / b). (`torch.nn` calls
    a leaky ReLU with a learned slope PReLU.) At z = 0 the map has a kink: there is no
    derivative there unless s = 0, and the right-hand one is reported. One point has no
    mass, so no density is harmed.

    Args:
        bound: b, the largest |s|.

    >>> LeakyReLU().forward(torch.tensor([-3.0, 3.0]), torch.zeros(1, 2))
    (tensor([-3.,  3.]), tensor([0., 0.]))
    """

    bound: float = 5.0

    def __post_init__(self) -> None:
        check_bound(self.bound)

    @property
    def num_params(self) -> int:
        return 1

    @property
    def soft_bounded(self) -> slice:
        return slice(0, 1)

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        log_slope = torch.where(z < 0, soft_bound(params[0], self.bound), 0.0)
        return z * log_slope.exp(), log_slope

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        log_slope = torch.where(x < 0, soft_bound(params[0], self.bound), 0.0)
        return x * (-log_slope).exp(), -log_slope


@dataclass(frozen=True)
class Sigmoid(ScalarMap):
    """x = 1 / (1 + e⁻ᶻ), from the line onto (0, 1); log dx/dz = log x + log(1 − x).

    It has no parameters. Where x would round to 0 or 1, the nearest number strictly
    inside is returned instead, so that the way back stays finite.

    >>> Sigmoid().forward(torch.tensor([0.0]), torch.zeros(0, 1))[0]
    tensor([0.5000])
    """

    @property
    def num_params(self) -> int:
        return 0

    @property
    def codomain(self) -> Constraint:
        return constraints.unit_interval

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        limits = torch.finfo(z.dtype)
        x = torch.sigmoid(z).clamp(limits.tiny, 1 - limits.eps / 2)
        return x, logsigmoid(z) + logsigmoid(-z)

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        log_x, log_1mx = x.log(), torch.log1p(-x)
        return log_x - log_1mx, -log_x - log_1mx


@dataclass(frozen=True)
class Logit(ScalarMap):
    """x = log(z / (1 − z)), from (0, 1) onto the line: `Sigmoid` the other way round.

    >>> Logit().forward(torch.tensor([0.5]), torch.zeros(0, 1))[0]
    tensor([0.])
    """

    @property
    def num_params(self) -> int:
        return 0

    @property
    def domain(self) -> Constraint:
        return constraints.unit_interval

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return Sigmoid().inverse(z, params)

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return Sigmoid().forward(x, params)
