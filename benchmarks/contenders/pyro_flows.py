"""Pyro: https://github.com/pyro-ppl/pyro"""

from __future__ import annotations

import torch
from pyro.distributions import Normal, TransformedDistribution
from pyro.distributions.transforms import (
    AffineAutoregressive,
    AffineCoupling,
    Permute,
    Planar,
    SplineAutoregressive,
    SplineCoupling,
)
from pyro.nn import AutoRegressiveNN, DenseNN
from torch import Tensor, nn

from contenders.common import BOUND, Case, Contender, density, variational

MISSING: dict[str, str] = {}


def affine_coupling(case: Case, learning_rate: float) -> Contender:
    """It always moves the second half, so the halves change places between layers."""
    half = case.dim // 2
    rest = case.dim - half
    nets = [DenseNN(half, list(case.hidden), [rest, rest]) for _ in range(case.layers)]
    layers = [AffineCoupling(half, net) for net in nets]
    return flow(case, swapped(case, layers), nn.ModuleList(layers), learning_rate)


def spline_coupling(case: Case, learning_rate: float) -> Contender:
    """Its splines as in the paper ("quadratic"), and none on the half that is kept."""
    half = case.dim // 2
    rest = case.dim - half
    sizes = [rest * case.bins, rest * case.bins, rest * (case.bins - 1)]
    layers = []
    for _ in range(case.layers):
        net = DenseNN(half, list(case.hidden), sizes)
        options = dict(count_bins=case.bins, bound=BOUND, order="quadratic", identity=True)
        layers.append(SplineCoupling(case.dim, half, net, **options))
        layers[-1].lower_spline.requires_grad_(False)  # it is made, but not used
    return flow(case, swapped(case, layers), nn.ModuleList(layers), learning_rate)


def swapped(case: Case, layers: list) -> list:
    """The layers with the halves swapped between them."""
    order = torch.arange(case.dim).roll(case.dim // 2)
    found = []
    for i, layer in enumerate(layers):
        found += [Permute(order), layer] if i else [layer]
    return found


def autoregressive(case: Case, learning_rate: float) -> Contender:
    """Turned round, so that data are scored in one pass."""
    spline = case.kind.startswith("spline")
    sizes = [case.bins, case.bins, case.bins - 1] if spline else [1, 1]
    orders = torch.arange(case.dim), torch.arange(case.dim).flip(0)
    layers = []
    for i in range(case.layers):
        # Its inverse for splines goes D times round, whatever the order is.
        net = AutoRegressiveNN(case.dim, list(case.hidden), sizes, permutation=orders[i % 2])
        options = dict(count_bins=case.bins, bound=BOUND, order="quadratic")
        made = (
            SplineAutoregressive(case.dim, net, **options) if spline else AffineAutoregressive(net)
        )
        layers.append(made)
    return flow(case, [layer.inv for layer in layers], nn.ModuleList(layers), learning_rate)


def flow(case: Case, transforms: list, module: nn.ModuleList, learning_rate: float) -> Contender:
    base = Normal(torch.zeros(case.dim), torch.ones(case.dim)).to_event(1)
    law = TransformedDistribution(base, transforms)

    def fresh() -> TransformedDistribution:
        """Each layer remembers its last point: without this the same batch comes for free."""
        for layer in module:
            layer.clear_cache()
        return law

    def there(x: Tensor) -> Tensor:
        for transform in reversed(fresh().transforms):
            x = transform.inv(x)
        return x

    def back(z: Tensor) -> Tensor:
        for transform in fresh().transforms:
            z = transform(z)
        return z

    return density(
        module,
        log_prob=lambda x: fresh().log_prob(x),
        draw=lambda: fresh().sample((case.batch,)),
        there=there,
        back=back,
        learning_rate=learning_rate,
    )


def planar(case: Case, learning_rate: float) -> Contender:
    """It scores a sample from what its layers remember of it."""
    layers = [Planar(case.dim) for _ in range(case.layers)]
    base = Normal(torch.zeros(case.dim), torch.ones(case.dim)).to_event(1)
    law = TransformedDistribution(base, layers)

    def push() -> tuple[Tensor, Tensor]:
        x = law.rsample((case.batch,))
        return x, law.log_prob(x)

    return variational(nn.ModuleList(layers), push, note="no inverse")


BUILD = {
    "affine_coupling": affine_coupling,
    "affine_autoregressive": autoregressive,
    "spline_coupling": spline_coupling,
    "spline_autoregressive": autoregressive,
    "planar": planar,
}
