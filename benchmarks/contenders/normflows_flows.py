"""normflows: https://github.com/VincentStimper/normalizing-flows"""

from __future__ import annotations

import normflows as nf
from normflows.flows.neural_spline.autoregressive import (
    MaskedPiecewiseRationalQuadraticAutoregressive,
)
from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

from contenders.common import BOUND, Case, Contender, WithContext, density, variational

MISSING: dict[str, str] = {}
NOTE = "its sample computes log q too"
NO_RELU = f"{NOTE}; no ReLU after its first hidden layer"


def affine_coupling(case: Case, learning_rate: float) -> Contender:
    half = case.dim // 2
    layers = []
    for i in range(case.layers):
        net = nf.nets.MLP([half, case.width, case.width, 2 * (case.dim - half)])
        mode = "channel_inv" if i % 2 else "channel"
        layers.append(nf.flows.AffineCouplingBlock(net, split_mode=mode))
    return flow(case, layers, NOTE, learning_rate)


def spline_coupling(case: Case, learning_rate: float) -> Contender:
    """Its own wrapper has residual networks and a second spline: this is the layer inside."""

    def net(inputs: int, outputs: int) -> WithContext:
        return WithContext(inputs, case.width, outputs)

    options = dict(num_bins=case.bins, tails="linear", tail_bound=BOUND)
    layers = [
        nf.flows.Reverse(PiecewiseRationalQuadraticCoupling(mask.int(), net, **options))
        for mask in case.masks
    ]
    return flow(case, layers, NOTE, learning_rate)


def autoregressive(case: Case, learning_rate: float) -> Contender:
    """Turned round, so that data are scored in one pass; here, too, without its wrapper."""
    # The first hidden layer is there without a block; each block adds one.
    options = dict(hidden_features=case.width, num_blocks=1, use_residual_blocks=False)
    layer = nf.flows.MaskedAffineAutoregressive
    if case.kind.startswith("spline"):
        layer = MaskedPiecewiseRationalQuadraticAutoregressive
        options |= dict(num_bins=case.bins, tails="linear", tail_bound=BOUND)
    layers = []
    for i in range(case.layers):
        layers += [nf.flows.Permute(case.dim)] if i else []
        layers.append(nf.flows.Reverse(layer(case.dim, **options)))
    return flow(case, layers, NO_RELU, learning_rate)


def flow(case: Case, layers: list, note: str, learning_rate: float) -> Contender:
    base = nf.distributions.DiagGaussian(case.dim, trainable=False)
    module = nf.NormalizingFlow(base, layers)
    return density(
        module,
        log_prob=module.log_prob,
        draw=lambda: module.sample(case.batch)[0],
        there=module.inverse,
        back=module.forward,
        note=note,
        learning_rate=learning_rate,
    )


def planar(case: Case, learning_rate: float) -> Contender:
    base = nf.distributions.DiagGaussian(case.dim, trainable=False)
    layers = [nf.flows.Planar((case.dim,)) for _ in range(case.layers)]
    module = nf.NormalizingFlow(base, layers)
    return variational(module, lambda: module.sample(case.batch), note="no inverse")


BUILD = {
    "affine_coupling": affine_coupling,
    "affine_autoregressive": autoregressive,
    "spline_coupling": spline_coupling,
    "spline_autoregressive": autoregressive,
    "planar": planar,
}
