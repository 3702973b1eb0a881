"""Data that cannot be everywhere: a last layer that ends where they can be."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from minflow.transform import Between, Transform


class Support(Transform):
    """From R^D to where the data can be, each column in its own way.

        both ends a < b:  x = a + (b − a) σ(z),   log dx/dz = log(b − a) + log σ(z)σ(−z)
        a lower end a:    x = a + eᶻ,             log dx/dz = z
        an upper end b:   x = b − e⁻ᶻ,            log dx/dz = −z
        none:             x = z,                  log dx/dz = 0

    As the last layer of a flow it gives positive, bounded and mixed columns a density
    that is 0 outside, and samples that stay inside. The ends themselves are outside: a
    value that sits on one has no z, and the flow's log_prob there is −inf. It has
    nothing to train.

    Args:
        lower: the lower end of each column, D numbers; −inf where there is none.
        upper: the upper ends; inf where there is none.

    Raises:
        ValueError: if the two differ in length, or an upper end is not above its lower.

    Cost: a few elementwise functions, each way; no network.

    Source: Stan Development Team, Stan Reference Manual, "Constraint transforms".

    >>> layer = Support([0.0, -math.inf], [math.inf, math.inf])
    >>> layer.inverse(torch.tensor([1.0, 5.0]))
    (tensor([0., 5.]), tensor(0.))
    """

    def __init__(self, lower: Sequence[float], upper: Sequence[float]) -> None:
        lower, upper = tuple(map(float, lower)), tuple(map(float, upper))
        if len(lower) != len(upper):
            raise ValueError(
                f"lower and upper must have one number a column; got {len(lower)} "
                f"and {len(upper)}"
            )
        for d, (a, b) in enumerate(zip(lower, upper, strict=True)):
            if not a < b or a == math.inf or b == -math.inf:
                raise ValueError(f"column {d} must have lower < upper; got {a} and {b}")
        super().__init__(len(lower))
        self.lower, self.upper = lower, upper
        self.codomain = Between(self.lower, self.upper)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper, has_lower, has_upper = self._columns(z)
        box, one = has_lower & has_upper, has_lower ^ has_upper
        away = torch.where(one, torch.where(has_lower, z, -z), 0.0)
        distance = away.clamp(max=math.log(torch.finfo(z.dtype).max)).exp()
        x = torch.where(has_lower, lower + distance, upper - distance)
        x = torch.where(box, lower + (upper - lower) * z.sigmoid(), x)
        # Never on an end, where rounding would put the far tails.
        x = x.clamp(torch.nextafter(lower, upper), torch.nextafter(upper, lower))
        log_width = torch.where(box, upper - lower, 1.0).log()
        log_slope = log_width + torch.where(box, logsigmoid(z) + logsigmoid(-z), away)
        return torch.where(box | one, x, z), log_slope.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper, has_lower, has_upper = self._columns(x)
        log_width = torch.where(has_lower & has_upper, upper - lower, 1.0).log()
        from_lower = torch.where(has_lower, x - lower, 1.0).log()
        to_upper = torch.where(has_upper, upper - x, 1.0).log()
        z = torch.where(has_lower | has_upper, from_lower - to_upper, x)
        return z, (log_width - from_lower - to_upper).sum(-1)

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both ends, large numbers where there is none, and whether there is one.

        They are made from the floats, in the dtype of the data: a buffer in float32
        would have lost digits that float64 data need.
        """
        ends = like.new_tensor([self.lower, self.upper])
        most = torch.finfo(like.dtype).max / 4
        (lower, upper), finite = ends.clamp(-most, most), ends.isfinite()
        return lower, upper, finite[0], finite[1]

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}"
