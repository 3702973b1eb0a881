"""The contract's dictionary: how to make each transform, and what it promises.

A new public transform or scalar map goes in here; `test_contract.py` fails until it does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import minflow as mf
from minflow.testing import BOTH


class Conditional(mf.Transform):
    """A scalar map whose parameters a small network makes from a context, as later chapters do."""

    def __init__(self, dim: int, scalar_map: mf.ScalarMap) -> None:
        super().__init__(dim, context_dim=2)
        self.scalar_map = scalar_map
        self.net = nn.Linear(2, scalar_map.num_params * dim)

    def params(self, context: Tensor) -> Tensor:
        raw = self.net(context).unflatten(-1, (self.scalar_map.num_params, self.dim))
        return raw.movedim(-2, 0)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, params = self.broadcast(z, context)
        x, log_slope = self.scalar_map.forward(z, params)
        return x, log_slope.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, params = self.broadcast(x, context)
        z, log_slope = self.scalar_map.inverse(x, params)
        return z, log_slope.sum(-1)

    def broadcast(self, value: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        params = self.params(context)
        batch = torch.broadcast_shapes(value.shape[:-1], params.shape[1:-1])
        missing = (1,) * (len(batch) + 2 - params.dim())
        params = params.reshape(params.shape[0], *missing, *params.shape[1:])
        return value.expand(*batch, self.dim), params.expand(-1, *batch, self.dim)


class StartsFromData(mf.Transform):
    """x = exp(s) z + t, with s and t set from the first batch: a start that the state must hold."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.shift = nn.Parameter(torch.zeros(dim))
        self.log_scale = nn.Parameter(torch.zeros(dim))

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        with torch.no_grad():
            self.shift.copy_(x.mean(0))
            self.log_scale.copy_(x.std(0).log())

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = z * self.log_scale.exp() + self.shift
        return x, self.log_scale.sum().expand(x.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = (x - self.shift) * (-self.log_scale).exp()
        return z, -self.log_scale.sum().expand(x.shape[:-1])


@dataclass(frozen=True)
class Promise:
    """How to make a transform at a given D, and what it says of itself."""

    make: Callable[[int], mf.Transform]
    mixes: bool
    smallest: int = 1
    closed_form: tuple[str, ...] = BOTH
    network_passes: tuple[int, int] | None = None


def elementwise(scalar_map: mf.ScalarMap) -> Callable[[int], mf.Transform]:
    return lambda dim: mf.Elementwise(dim, scalar_map)


def conditional(scalar_map: mf.ScalarMap) -> Callable[[int], mf.Transform]:
    return lambda dim: Conditional(dim, scalar_map)


def coupling(scalar_map, closed_form=BOTH, context_dim=0, flip=False, own=False) -> Promise:
    def make(dim: int) -> mf.Transform:
        moved = dim // 2 if flip else dim - dim // 2
        outputs, net = scalar_map.num_params * moved, None
        if own and dim > 1:  # bounded: far out, a mixture's components stay near each other
            net = nn.Sequential(nn.Linear(dim - moved, 8), nn.Tanh(), nn.Linear(8, outputs))
        return mf.Coupling(dim, scalar_map, context_dim, (8,), flip, net)

    return Promise(make, True, smallest=2, closed_form=closed_form, network_passes=(1, 1))


def autoregressive(scalar_map, closed_form=BOTH, context_dim=0, **options) -> Promise:
    def make(dim: int) -> mf.Transform:
        return mf.Autoregressive(dim, scalar_map, context_dim, (12, 12), **options)

    # From z to x each unit is computed once, by `Incremental`, and no layer is called.
    return Promise(make, True, closed_form=closed_form, network_passes=(0, 1))


def backwards(scalar_map) -> Promise:
    def make(dim: int) -> mf.Transform:
        layer = mf.Autoregressive(dim, scalar_map, 2, (8, 8), range(dim)[::-1], 0)
        return mf.Inverse(layer)

    return Promise(make, True, network_passes=(1, 0))


def standardize(dim: int) -> mf.Transform:
    rows = torch.arange(4.0 * dim).reshape(4, dim).square()
    return mf.Standardize.of(rows / rows.std(0))


def layered(dim: int) -> mf.Transform:
    return mf.Compose(
        mf.TriangularAffine(dim),
        Conditional(dim, mf.LeakyReLU()),
        mf.Inverse(mf.Elementwise(dim, mf.MixtureCDF(3))),
        mf.Elementwise(dim, mf.Sigmoid()),
    )


CONTRACT = {
    "Elementwise[Affine]": Promise(elementwise(mf.Affine()), mixes=False),
    "Elementwise[LeakyReLU]": Promise(elementwise(mf.LeakyReLU()), mixes=False),
    "Elementwise[Sigmoid]": Promise(elementwise(mf.Sigmoid()), mixes=False),
    "Elementwise[Logit]": Promise(elementwise(mf.Logit()), mixes=False),
    "Elementwise[MixtureCDF]": Promise(
        elementwise(mf.MixtureCDF(4)), mixes=False, closed_form=("inverse",)
    ),
    "Conditional[Affine]": Promise(conditional(mf.Affine()), mixes=False, network_passes=(1, 1)),
    "Conditional[LeakyReLU]": Promise(
        conditional(mf.LeakyReLU()), mixes=False, network_passes=(1, 1)
    ),
    "Conditional[MixtureCDF]": Promise(
        conditional(mf.MixtureCDF(3)),
        mixes=False,
        closed_form=("inverse",),
        network_passes=(1, 1),
    ),
    "Elementwise[Affine] with a context": Promise(
        lambda dim: mf.Elementwise(dim, mf.Affine(), context_dim=2, hidden=(8,)),
        mixes=False,
        network_passes=(1, 1),
    ),
    "Elementwise[MixtureCDF] with a context": Promise(
        lambda dim: mf.Elementwise(dim, mf.MixtureCDF(3), context_dim=2, hidden=()),
        mixes=False,
        closed_form=("inverse",),
        network_passes=(1, 1),
    ),
    "Planar[tanh]": Promise(mf.Planar, mixes=True, closed_form=("forward",)),
    "Planar[leaky_relu]": Promise(
        lambda dim: mf.Planar(dim, "leaky_relu"), mixes=True, closed_form=("forward",)
    ),
    "Radial": Promise(mf.Radial, mixes=True),
    "Sylvester": Promise(mf.Sylvester, mixes=True, closed_form=("forward",)),
    "Sylvester of a lower rank": Promise(
        lambda dim: mf.Sylvester(dim, rank=-(-dim // 2)), mixes=True, closed_form=("forward",)
    ),
    "Planar with a context": Promise(
        lambda dim: mf.Planar(dim, context_dim=2, hidden=(8,)),
        mixes=True,
        closed_form=("forward",),
        network_passes=(1, 1),
    ),
    "Radial with a context": Promise(
        lambda dim: mf.Radial(dim, context_dim=2, hidden=(8,)), mixes=True, network_passes=(1, 1)
    ),
    "Sylvester with a context": Promise(
        lambda dim: mf.Sylvester(dim, context_dim=2, hidden=(8,)),
        mixes=True,
        closed_form=("forward",),
        network_passes=(1, 1),
    ),
    "Coupling[Additive]": coupling(mf.Additive()),
    "Coupling[Affine]": coupling(mf.Affine()),
    "Coupling[Affine] flipped": coupling(mf.Affine(), flip=True),
    "Coupling[Affine] with a context": coupling(mf.Affine(), context_dim=2),
    "Coupling[Spline]": coupling(mf.Spline(4)),
    "Coupling[Spline] with a context": coupling(mf.Spline(4), context_dim=2, flip=True),
    "Coupling[CircularSpline]": coupling(mf.CircularSpline(4)),
    "Coupling[MixtureCDF]": coupling(mf.MixtureCDF(3), closed_form=("inverse",), own=True),
    "Autoregressive[Affine]": autoregressive(mf.Affine()),
    "Autoregressive[Affine] residual": autoregressive(mf.Affine(), residual=True),
    "Autoregressive[Affine] with a context": autoregressive(mf.Affine(), context_dim=2, seed=1),
    "Autoregressive[Spline]": autoregressive(mf.Spline(4)),
    "Autoregressive[CircularSpline]": autoregressive(mf.CircularSpline(4)),
    "Autoregressive[MixtureCDF]": autoregressive(mf.MixtureCDF(3), closed_form=("inverse",)),
    "Autoregressive[Monotone]": autoregressive(
        mf.Monotone(3), closed_form=("inverse",), context_dim=2, residual=True
    ),
    "Inverse[Autoregressive]": backwards(mf.Reversed(mf.Affine())),
    "Elementwise[Monotone]": Promise(
        elementwise(mf.Monotone(3)), mixes=False, closed_form=("inverse",)
    ),
    "Elementwise[Reversed]": Promise(
        elementwise(mf.Reversed(mf.MixtureCDF(3))), mixes=False, closed_form=("forward",)
    ),
    "Elementwise[Additive]": Promise(elementwise(mf.Additive()), mixes=False),
    "Elementwise[Spline]": Promise(elementwise(mf.Spline(5)), mixes=False),
    "Elementwise[CircularSpline]": Promise(elementwise(mf.CircularSpline(5)), mixes=False),
    "ActNorm": Promise(mf.ActNorm, mixes=False),
    "LU": Promise(mf.LU, mixes=True),
    "Permute": Promise(lambda dim: mf.Permute.of(range(dim)[::-1]), mixes=True),
    "Support, positive": Promise(lambda dim: mf.Support([1] * dim, [math.inf] * dim), mixes=False),
    "Support, negative": Promise(lambda dim: mf.Support([-math.inf] * dim, [2] * dim), mixes=False),
    "Support, a box": Promise(lambda dim: mf.Support([-1] * dim, [3] * dim), mixes=False),
    "StartsFromData": Promise(StartsFromData, mixes=False),
    "Householder": Promise(mf.Householder, mixes=True),
    "Standardize": Promise(standardize, mixes=False),
    "TriangularAffine": Promise(mf.TriangularAffine, mixes=True),
    "Inverse": Promise(lambda dim: mf.Inverse(mf.TriangularAffine(dim)), mixes=True),
    "Compose": Promise(layered, mixes=True, closed_form=(), network_passes=(1, 1)),
}
