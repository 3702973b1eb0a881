"""nflows: https://github.com/bayesiains/nflows"""

from __future__ import annotations

from functools import partial

from nflows.distributions.normal import StandardNormal
from nflows.flows import Flow
from nflows.transforms import (
    AffineCouplingTransform,
    CompositeTransform,
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    PiecewiseRationalQuadraticCouplingTransform,
    ReversePermutation,
)

from contenders.common import BOUND, Case, Contender, WithContext, density

MISSING = {"planar": "no planar layers"}


def options(case: Case) -> dict:
    """What its splines are given; its affine layers take nothing."""
    spline = dict(num_bins=case.bins, tails="linear", tail_bound=BOUND)
    return spline if case.kind.startswith("spline") else {}


def coupling(case: Case, learning_rate: float) -> Contender:
    spline = case.kind.startswith("spline")
    layer = PiecewiseRationalQuadraticCouplingTransform if spline else AffineCouplingTransform

    def net(inputs: int, outputs: int) -> WithContext:
        return WithContext(inputs, case.width, outputs)

    make = partial(layer, transform_net_create_fn=net, **options(case))
    return flow(case, [make(mask.int()) for mask in case.masks], learning_rate)


def autoregressive(case: Case, learning_rate: float) -> Contender:
    spline = case.kind.startswith("spline")
    layer = MaskedAffineAutoregressiveTransform
    if spline:
        layer = MaskedPiecewiseRationalQuadraticAutoregressiveTransform
    # The first hidden layer is there without a block; each block adds one.
    shape = dict(hidden_features=case.width, num_blocks=1, use_residual_blocks=False)
    layers = []
    for i in range(case.layers):
        layers += [ReversePermutation(case.dim)] if i else []
        layers.append(layer(case.dim, **shape, **options(case)))
    return flow(case, layers, learning_rate)


def flow(case: Case, layers: list, learning_rate: float) -> Contender:
    module = Flow(CompositeTransform(layers), StandardNormal([case.dim]))
    return density(
        module,
        log_prob=module.log_prob,
        draw=lambda: module.sample(case.batch),
        there=module.transform_to_noise,
        back=lambda z: module._transform.inverse(z)[0],
        learning_rate=learning_rate,
    )


BUILD = {
    "affine_coupling": coupling,
    "affine_autoregressive": autoregressive,
    "spline_coupling": coupling,
    "spline_autoregressive": autoregressive,
}
