"""The transform that applies a monotone map of one variable to each coordinate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from minflow.nets import mlp, steered, widths
from minflow.scalar_map import ScalarMap, checked
from minflow.transform import Transform


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

    >>> from minflow import MixtureCDF
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
