"""Coupling layers: one half of the coordinates steers a map of the other half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from minflow import nets
from minflow.scalar_map import ScalarMap, checked
from minflow.transform import Transform, interval


@dataclass(frozen=True)
class Additive(ScalarMap):
    """x = z + t, with log dx/dz = 0: NICE's map. It moves points and keeps volumes.

    The one parameter is t.

    Source: Dinh, Krueger and Bengio 2015 (arXiv:1410.8516), section 3.2.

    >>> Additive().forward(torch.tensor([1.0]), torch.tensor([[3.0]]))
    (tensor([4.]), tensor([0.]))
    """

    @property
    def num_params(self) -> int:
        return 1

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        x = z + params[0]
        return x, torch.zeros_like(x)

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        z = x - params[0]
        return z, torch.zeros_like(z)


class Coupling(Transform):
    """One half of z stays, and steers a scalar map g of each coordinate of the other.

        x_A = z_A,  x_b = g(z_b; θ_b(z_A)) for b in B,
        log|det df/dz| = Σ_b log g′(z_b; θ_b(z_A))

    A is the first ⌊D/2⌋ coordinates and B the others; with `flip` A is the others and B
    the first ⌊D/2⌋. The Jacobian is triangular in blocks, whatever the network is. The
    network makes all θ_b of z_A and the context; what it makes is added to learned
    numbers, and small at the start.

    Args:
        dim: D, at least 2.
        scalar_map: g: `Additive()` gives NICE, `Affine()` RealNVP, `Spline()` neural
            spline flows, `MixtureCDF()` Flow++. It must map its domain to itself.
        context_dim: C, the size of the context; 0 for none.
        hidden: hidden layers of the network.
        flip: whether the halves change roles.
        conditioner: a network of your own in place of the built one, from the kept half
            (angles as cosine and sine) and the context, joined, to num_params · |B|
            numbers, the map's first parameter for all of B first.

    Raises:
        TypeError: if scalar_map is no ScalarMap, or conditioner no nn.Module.
        ValueError: if dim is 1, or scalar_map maps its domain to another; later, if the
            conditioner makes another shape.

    Cost: one network pass each way, and the scalar map's.

    Source: Dinh, Krueger and Bengio 2015 (arXiv:1410.8516), section 3; Dinh,
    Sohl-Dickstein and Bengio 2017 (arXiv:1605.08803), section 3.

    >>> from minflow import Affine
    >>> layer = Coupling(5, Affine(), flip=True)
    >>> x, log_det = layer(torch.randn(7, 5))
    >>> x.shape, log_det.shape
    (torch.Size([7, 5]), torch.Size([7]))
    """

    def __init__(
        self,
        dim: int,
        scalar_map: ScalarMap,
        context_dim: int = 0,
        hidden: Sequence[int] = (64, 64),
        flip: bool = False,
        conditioner: nn.Module | None = None,
    ) -> None:
        super().__init__(dim, context_dim)
        if dim < 2:
            raise ValueError(
                "dim must be at least 2: a coupling keeps one half and moves the other; "
                f"got {dim}"
            )
        self.scalar_map, self.hidden = checked(scalar_map), nets.widths(hidden)
        self.flip = flip
        if interval(scalar_map.domain) != interval(scalar_map.codomain):
            raise ValueError(
                f"a coupling's map must end where it starts; {scalar_map} goes from "
                f"{interval(scalar_map.domain)} to {interval(scalar_map.codomain)}"
            )
        if not isinstance(conditioner, nn.Module | None):
            raise TypeError(f"conditioner must be an nn.Module; got {conditioner!r}")
        self.domain = constraints.independent(scalar_map.domain, 1)
        self.codomain = self.domain
        first, second = self._halves(torch.zeros(dim))
        self.params = nn.Parameter(torch.zeros(scalar_map.num_params * len(second)))
        self.conditioner = conditioner
        inputs = len(scalar_map.features(first)) * len(first) + context_dim
        self.net = None
        if conditioner is None:
            self.net = nets.conditioner(inputs, hidden, self.params.numel())

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, moved, params = self._steer(z, context)
        moved, log_slope = self.scalar_map.forward(moved, params)
        return self._join(kept, moved), log_slope.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, moved, params = self._steer(x, context)
        moved, log_slope = self.scalar_map.inverse(moved, params)
        return self._join(kept, moved), log_slope.sum(-1)

    def _halves(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The half that is kept and the half that is moved."""
        d = self.dim // 2
        first, second = value.split([d, self.dim - d], -1)
        return (second, first) if self.flip else (first, second)

    def _join(self, kept: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([moved, kept] if self.flip else [kept, moved], -1)

    def _steer(
        self, value: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Both halves and the parameters, (num_params, *batch, |B|), of one batch."""
        kept, moved = self._halves(value)
        seen: Sequence[Tensor] = self.scalar_map.features(kept)
        if context is not None and self.context_dim:
            batch = torch.broadcast_shapes(value.shape[:-1], context.shape[:-1])
            parts = (kept, moved, *seen, context)
            kept, moved, *seen = (part.expand(*batch, -1) for part in parts)
        inputs = nets.beside(*seen)
        net = self.net if self.conditioner is None else self.conditioner
        made = net(inputs)  # type: ignore[misc]  # one of the two is there
        expected = *inputs.shape[:-1], self.params.numel()
        if made.shape != expected:
            raise ValueError(
                f"the conditioner must turn shape {tuple(inputs.shape)} into {expected}; "
                f"got {tuple(made.shape)}"
            )
        shape = self.scalar_map.num_params, moved.shape[-1]
        return kept, moved, (self.params + made).unflatten(-1, shape).movedim(-2, 0)

    def extra_repr(self) -> str:
        flip = ", flip=True" if self.flip else ""
        return f"{super().extra_repr()}, scalar_map={self.scalar_map!r}{flip}"
