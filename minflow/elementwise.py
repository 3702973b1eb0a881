"""Monotone maps of one variable, and the transform that applies one to each coordinate.

A `ScalarMap` has no state: its parameters are handed in. So the same map serves
`Elementwise`, whose parameters are learned directly, and every layer whose parameters
come from a network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.nn.functional import logsigmoid

from minflow.nets import check_whole, mlp, steered, widths
from minflow.solve import monotone_root
from minflow.transform import Transform


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


@dataclass(frozen=True)
class MixtureCDF(ScalarMap):
    """The CDF F of a mixture of K logistics, carried back to the line by the logit.

        z = logit F(x),  F(x) = Σₖ wₖ σ((x − μₖ) / sₖ),
        dz/dx = F′(x) / (F(x) (1 − F(x))).

    Under a logistic base, x has exactly the mixture's density; under a normal base, one
    with bumps at much the same places and normal tails. All of it is computed from
    logarithms, so far tails stay finite. The 3K parameters are the weights' logits, the
    shifts of the means and the raw log-scales; the means start spread out, since equal
    components would stay equal for ever.

    Args:
        components: K, at least 1.
        bound: the largest change of a log-scale, softly bounded as in `Affine`.

    Cost: inverse (x -> z) is closed form; forward (z -> x) is a root search between the
    components' own answers, min and max of μₖ + sₖ z, with gradients by the implicit
    function theorem.

    Source: Ho et al. 2019 (Flow++, arXiv:1902.00275), section 3.2.

    >>> smooth = MixtureCDF(components=4)
    >>> z, _ = smooth.inverse(torch.tensor([100.0]), torch.zeros(12, 1))
    >>> bool(z.isfinite())
    True
    """

    components: int = 8
    bound: float = 5.0

    def __post_init__(self) -> None:
        check_bound(self.bound)
        check_whole("components", self.components, 1)

    @property
    def num_params(self) -> int:
        return 3 * self.components

    @property
    def soft_bounded(self) -> slice:
        return slice(2 * self.components, 3 * self.components)

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        log_weights, means, log_scales = self.mixture(params)
        with torch.no_grad():  # logit F lies between the components' own (x − μₖ) / sₖ
            answers = means + log_scales.exp() * z
        x = monotone_root(
            lambda x: _logit_cdf(x, log_weights, means, log_scales),
            target=z,
            lower=answers.amin(0),
            upper=answers.amax(0),
            value_rounding=1.0,  # logit F is a difference of two logarithms
        )
        return x, -_logit_cdf(x, log_weights, means, log_scales)[1]

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return _logit_cdf(x, *self.mixture(params))

    def mixture(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log wₖ, μₖ and log sₖ, each (K, *batch, D), from the raw parameters."""
        logits, shifts, raw_log_scales = params.chunk(3)
        # Half the logistic's own quantiles, and the scale that keeps its variance, π²/3.
        k = torch.arange(self.components, dtype=params.dtype, device=params.device)
        starts = 0.5 * torch.logit((k + 0.5) / self.components)
        starts = starts.reshape(-1, *(1,) * (params.dim() - 1))
        start_scale = (1 - 3 / math.pi**2 * starts.square().mean()).sqrt()
        log_scales = start_scale.log() + soft_bound(raw_log_scales, self.bound)
        return logits.log_softmax(0), starts + shifts, log_scales


def _logit_cdf(
    x: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor
) -> tuple[Tensor, Tensor]:
    """logit F(x) and the log of its slope, for a mixture along dimension 0."""
    u = (x - means) * (-log_scales).exp()
    log_sigmoid, log_one_minus = logsigmoid(u), logsigmoid(-u)
    log_cdf = (log_weights + log_sigmoid).logsumexp(0)
    log_survival = (log_weights + log_one_minus).logsumexp(0)
    log_density = (log_weights - log_scales + log_sigmoid + log_one_minus).logsumexp(0)
    return log_cdf - log_survival, log_density - log_cdf - log_survival


class Elementwise(Transform):
    """A scalar map applied to each coordinate, with parameters that are learned.

        x_d = g(z_d; θ_d),  log|det df/dz| = Σ_d log g′(z_d; θ_d).

    The Jacobian is diagonal, and no coordinate sees another: a flow of elementwise
    layers alone has independent coordinates.

    Args:
        dim: D.
        scalar_map: the map g, such as ``MixtureCDF(components=8)``.
        context_dim: C; with C > 0 a network adds to the learned parameters what it makes
            of the context.
        hidden: that network's hidden layers.

    Raises:
        TypeError: if scalar_map is not a ScalarMap instance.

    Cost: the scalar map's, each way. With a context, one network pass each.

    >>> layer = Elementwise(3, MixtureCDF(components=5))
    >>> z, log_det = layer.inverse(torch.randn(7, 3))
    >>> z.shape, log_det.shape, layer.params.shape
    (torch.Size([7, 3]), torch.Size([7]), torch.Size([15, 3]))
    """

    def __init__(
        self,
        dim: int,
        scalar_map: ScalarMap,
        context_dim: int = 0,
        hidden: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__(dim, context_dim)
        self.scalar_map, self.hidden = checked(scalar_map), widths(hidden)
        self.params = nn.Parameter(torch.zeros(scalar_map.num_params, dim))
        self.net = mlp(context_dim, hidden, self.params.numel()) if context_dim else None
        self.domain = constraints.independent(scalar_map.domain, 1)
        self.codomain = constraints.independent(scalar_map.codomain, 1)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, params = self._with_params(z, context)
        x, log_slope = self.scalar_map.forward(z, params)
        return x, log_slope.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, params = self._with_params(x, context)
        z, log_slope = self.scalar_map.inverse(x, params)
        return z, log_slope.sum(-1)

    def _with_params(
        self, value: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The value and the parameters, (num_params, *batch, D), of one batch."""
        if self.net is None:
            ones = (1,) * (value.dim() - 1)
            return value, self.params.reshape(-1, *ones, self.dim)
        numbers = steered(self.params.flatten(), self.net, context)
        batch = torch.broadcast_shapes(value.shape[:-1], numbers.shape[:-1])
        numbers = numbers.expand(*batch, -1).unflatten(-1, self.params.shape)
        return value.expand(*batch, self.dim), numbers.movedim(-2, 0)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scalar_map={self.scalar_map!r}"
