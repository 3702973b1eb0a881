"""FrEIA: https://github.com/vislearn/FrEIA"""

from __future__ import annotations

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import GLOWCouplingBlock
from torch import Tensor

from contenders.common import Case, Contender, density, mlp, normal

MISSING = {
    "affine_autoregressive": "no autoregressive layers",
    "spline_coupling": "no spline layers",
    "spline_autoregressive": "no autoregressive layers",
    "planar": "no planar layers",
}


def affine_coupling(case: Case, learning_rate: float) -> Contender:
    """One of its blocks is two couplings; the base is the caller's."""
    module = SequenceINN(case.dim)
    for _ in range(case.layers // 2):
        module.append(GLOWCouplingBlock, subnet_constructor=lambda i, o: mlp(i, case.width, o))

    def log_prob(x: Tensor) -> Tensor:
        z, log_det = module(x)
        return normal(z) + log_det

    return density(
        module,
        log_prob,
        draw=lambda: module(torch.randn(case.batch, case.dim), rev=True)[0],
        there=lambda x: module(x)[0],
        back=lambda z: module(z, rev=True)[0],
        learning_rate=learning_rate,
    )


BUILD = {"affine_coupling": affine_coupling}
