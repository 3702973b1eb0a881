"""Monotone networks: a small network of one variable that can only rise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minflow.nets import check_whole
from minflow.scalar_map import ScalarMap, check_bound, soft_bound
from minflow.solve import monotone_root


@dataclass(frozen=True)
class Monotone(ScalarMap):
    """A network of one variable with positive weights: it rises, so it has an inverse.

        z = e^s x + t + Σ_j v_j tanh(Σ_i w_ji tanh(a_i x + b_i) + c_j),
        dz/dx = e^s + Σ_j v_j tanh′(·) Σ_i w_ji tanh′(·) a_i,

    with all a, w and v positive and Σ_i w_ji = 1. A sum of rising functions rises, and a
    rising function of a rising function does: that is all. Where a bounded sum bends, z
    is steep and the density high; the straight part keeps the slope above e^s and carries
    on where the network has levelled off.

    The K² + 4K + 2 parameters are t, the raw s, K raw log a, K raw log v, K shifts each
    of b and c, and the logits of w. Logarithms are softly bounded, and b and c start
    spread out, since equal units would stay equal for ever.

    Args:
        units: K, at least 1.
        bound: the largest change of a logarithm, as in `Affine`.

    Cost: inverse (x -> z) is K² products; forward (z -> x) a root search between the
    ends (z − t ± Σ v_j) e^−s, with gradients by the implicit function theorem.

    Source: Huang, Krueger, Lacoste and Courville 2018 (NAF, arXiv:1804.00779), section
    3.1, on monotone networks; its own units end in a logit, as `MixtureCDF` does.

    >>> curve = Monotone(units=4)
    >>> z, _ = curve.inverse(torch.tensor([100.0]), torch.zeros(34, 1))
    >>> bool(z.isfinite())
    True
    """

    units: int = 6
    bound: float = 3.0

    def __post_init__(self) -> None:
        check_bound(self.bound)
        check_whole("units", self.units, 1)

    @property
    def num_params(self) -> int:
        return self.units**2 + 4 * self.units + 2

    @property
    def soft_bounded(self) -> slice:
        return slice(1, 2 + 2 * self.units)  # s, the log a and the log v

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        network = self.network(params)
        with torch.no_grad():
            scale, shift, *_, v = network
            reach = v.sum(0)
            lower, upper = (z - shift - reach) / scale, (z - shift + reach) / scale
        x = monotone_root(
            lambda x: _run(x, *network),
            target=z,
            lower=lower,
            upper=upper,
            value_rounding=shift.abs() + reach,  # z is a sum of such numbers
        )
        return x, -_run(x, *network)[1]

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return _run(x, *self.network(params))

    def network(self, params: Tensor) -> tuple[Tensor, ...]:
        """e^s and t, of shape (*batch, D); a, b, w, c and v, with units before it."""
        k = self.units
        shift, raw_s, raw_a, raw_v, b, c, logits = params.split([1, 1, k, k, k, k, k * k])
        starts = torch.arange(k, dtype=params.dtype, device=params.device)
        starts = (2 * starts + 1) / k - 1  # from −1 to 1
        starts = starts.reshape(-1, *(1,) * (params.dim() - 1))
        scale = 0.9 * soft_bound(raw_s[0], self.bound).exp()
        a = 0.25 * soft_bound(raw_a, self.bound).exp()
        v = 0.5 / k * soft_bound(raw_v, self.bound).exp()
        w = logits.unflatten(0, (k, k)).softmax(1)
        return scale, shift[0], a, b + 0.5 * starts, w, c + 0.25 * starts, v


def _run(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    a: Tensor,
    b: Tensor,
    w: Tensor,
    c: Tensor,
    v: Tensor,
) -> tuple[Tensor, Tensor]:
    """z and log dz/dx: value and slope go through the layers together."""
    first = torch.tanh(a * x + b)
    first_slope = a * (1 - first.square())
    second = torch.tanh((w * first).sum(1) + c)
    second_slope = (1 - second.square()) * (w * first_slope).sum(1)
    z = scale * x + shift + (v * second).sum(0)
    return z, (scale + (v * second_slope).sum(0)).log()
