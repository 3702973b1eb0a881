"""zuko: https://github.com/probabilists/zuko"""

from __future__ import annotations

from functools import partial

import torch
import zuko

from contenders.common import BOUND, Case, Contender, density

MISSING = {"planar": "no planar layers"}


def options(case: Case) -> dict:
    """The map of one coordinate, the shapes of its parameters, and the networks."""
    common = dict(features=case.dim, hidden_features=case.hidden)
    if not case.kind.startswith("spline"):
        return common  # affine
    shapes = [(case.bins,), (case.bins,), (case.bins - 1,)]
    spline = partial(zuko.transforms.MonotonicRQSTransform, bound=BOUND)
    return common | dict(univariate=spline, shapes=shapes)


def coupling(case: Case, learning_rate: float) -> Contender:
    layer = zuko.flows.coupling.GeneralCouplingTransform
    # Its mask is 1 where a coordinate is kept.
    return flow(case, [layer(mask=~mask, **options(case)) for mask in case.masks], learning_rate)


def autoregressive(case: Case, learning_rate: float) -> Contender:
    layer = zuko.flows.autoregressive.MaskedAutoregressiveTransform
    orders = torch.arange(case.dim), torch.arange(case.dim).flip(0)
    layers = [layer(order=orders[i % 2], **options(case)) for i in range(case.layers)]
    return flow(case, layers, learning_rate)


def flow(case: Case, layers: list, learning_rate: float) -> Contender:
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal,
        torch.zeros(case.dim),
        torch.ones(case.dim),
        buffer=True,
    )
    module = zuko.lazy.Flow(layers, base)
    return density(
        module,
        log_prob=lambda x: module().log_prob(x),
        draw=lambda: module().sample((case.batch,)),
        there=lambda x: module().transform(x),
        back=lambda z: module().transform.inv(z),
        learning_rate=learning_rate,
    )


BUILD = {
    "affine_coupling": coupling,
    "affine_autoregressive": autoregressive,
    "spline_coupling": coupling,
    "spline_autoregressive": autoregressive,
}
