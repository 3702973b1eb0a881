"""The CDF of a mixture as a monotone map of the line."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from minflow.nets import check_whole
from minflow.scalar_map import ScalarMap, check_bound, soft_bound
from minflow.solve import monotone_root


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
