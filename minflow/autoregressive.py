"""Autoregressive layers: the coordinates before it steer the map of each coordinate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.distributions import constraints

from minflow.elementwise import ScalarMap, checked
from minflow.nets import MaskedLinear, MaskedMLP, beside, ordered, widths
from minflow.transform import Transform


class Autoregressive(Transform):
    """A scalar map g of each coordinate, steered by the coordinates of x before it.

        x_i = g(z_i; θ_i(x_<i)),  log|det df/dz| = Σ_i log g′(z_i; θ_i(x_<i)).

    x_<i are those that stand before i in the layer's order. The Jacobian is triangular,
    in that order. One `MaskedMLP` makes all θ_i of x and the context; what it makes is
    added to learned numbers, and small at the start. `Autoregressive` with `Affine()` is
    a masked autoregressive flow (MAF), its `Inverse` an inverse one (IAF).

    Args:
        dim: D. With D = 1 and no context it is `Elementwise`.
        scalar_map: g: `Affine()` gives MAF, `Spline()` neural spline flows,
            `MixtureCDF()` and `Monotone()` neural autoregressive flows.
        context_dim: C, the size of the context; 0 for none.
        hidden, order, seed, residual: of the network, as in `MaskedMLP`.

    Raises:
        TypeError: if scalar_map is no ScalarMap.
        ValueError: if scalar_map has no parameters, or as `MaskedMLP` says.

    Cost: inverse (x -> z) is one network pass. Forward (z -> x) goes coordinate by
    coordinate, since θ_i needs x_<i. A pass for each would cost D passes; but a hidden
    unit of degree m depends on the first m coordinates alone, and never changes once
    these are known. So each unit is computed once, when its turn comes, from the units
    of its own degree or less in the layer before. Each weight that no mask shuts off is
    used once: in D steps, no more products than in one pass. See `Incremental`, and
    `InPlace` for where no gradient is asked for.

    Source: Papamakarios, Pavlakou and Murray 2017 (arXiv:1705.07057), section 3; Kingma
    et al. 2016 (arXiv:1606.04934), section 3, for the inverse.

    >>> from minflow import Affine
    >>> layer = Autoregressive(3, Affine(), order=(2, 0, 1))
    >>> x, log_det = layer(torch.randn(7, 3))
    >>> x.shape, log_det.shape
    (torch.Size([7, 3]), torch.Size([7]))
    """

    def __init__(
        self,
        dim: int,
        scalar_map: ScalarMap,
        context_dim: int = 0,
        hidden: Sequence[int] = (64, 64),
        order: Sequence[int] | None = None,
        seed: int | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__(dim, context_dim)
        self.scalar_map, self.hidden = checked(scalar_map), widths(hidden)
        self.order, self.seed, self.residual = ordered(dim, order), seed, residual
        if not scalar_map.num_params:
            raise ValueError(f"{scalar_map} has no parameters that could be steered")
        self.params = nn.Parameter(torch.zeros(scalar_map.num_params, dim))
        self.net = None
        if dim > 1 or context_dim:
            features = len(scalar_map.features(torch.zeros(dim)))
            outputs, options = scalar_map.num_params, (self.order, seed, residual)
            self.net = MaskedMLP(dim, outputs, hidden, context_dim, features, *options)
        self.domain = constraints.independent(scalar_map.domain, 1)
        self.codomain = constraints.independent(scalar_map.codomain, 1)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, context = self._one_batch(z, context)
        columns = z.reshape(-1, self.dim).mT.contiguous()
        if context is not None:
            context = context.reshape(-1, self.context_dim).mT
        if self._watched(columns, context):
            x, log_slopes = self._one_by_one(Incremental, columns, context)
        else:
            with torch.inference_mode():
                x, log_slopes = self._one_by_one(InPlace, columns, context)
        log_det = torch.stack(log_slopes).sum(0)
        return torch.stack(x, -1).reshape(z.shape), log_det.reshape(z.shape[:-1])

    def _one_by_one(
        self, walk: type[Incremental], z: Tensor, context: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """x and log g′ of each coordinate, D tensors of shape (N,) each."""
        net = None if self.net is None else walk(self.net, self.params, z, context)
        x, log_slopes = list(z), []
        for d in self.order:
            params = self.params if net is None else net.outputs()
            x[d], log_slope = self.scalar_map.forward(z[d], params)
            log_slopes.append(log_slope)
            if net is not None:
                net.learn(self.scalar_map.features(x[d]))
        return x, log_slopes

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, context = self._one_batch(x, context)
        if self.net is None:
            params = self.params.reshape(-1, *(1,) * x.dim())
        else:
            seen = beside(*self.scalar_map.features(x))
            params = (self.params + self.net(seen, context)).movedim(-2, 0)
        z, log_slope = self.scalar_map.inverse(x, params)
        return z, log_slope.sum(-1)

    def _watched(self, z: Tensor, context: Tensor | None) -> bool:
        """Whether gradients are asked for, or something of torch's own looks on."""
        inputs = [z, *self.parameters()] + ([] if context is None else [context])
        return (
            (torch.is_grad_enabled() and any(value.requires_grad for value in inputs))
            or torch._C._are_functorch_transforms_active()
            or torch.is_autocast_enabled(z.device.type)
            or any(unpack_dual(value).tangent is not None for value in inputs)
        )

    def _one_batch(
        self, value: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The value and the context, if it is one to be seen, in one batch shape."""
        if context is None or not self.context_dim:
            return value, None
        batch = torch.broadcast_shapes(value.shape[:-1], context.shape[:-1])
        return value.expand(*batch, -1), context.expand(*batch, -1)


class Incremental:
    """A `MaskedMLP` computed coordinate by coordinate, and each of its units once.

    With units sorted by degree, those that depend on the first p coordinates are the
    first rows of their layer, and of the weights they see the first columns: no mask is
    needed. `outputs` computes the units of degree p, layer by layer, then what is made
    for the next coordinate; `learn` hears what that coordinate came to be. Points stand
    in columns, so the units of a degree lie together in memory. Autograd can follow: what
    is known is joined to a new tensor in each step.

    Args:
        net: the network.
        biases: added to what is made, shape (P, D).
        points: N points, of which the number and the dtype matter, shape (D, N).
        context: shape (C, N).
    """

    def __init__(
        self, net: MaskedMLP, biases: Tensor, points: Tensor, context: Tensor | None
    ) -> None:
        self.step, self.sizes, self.skips = 0, net.sizes, [*net.skips, False]
        # How many units of each layer have a degree below 0, 1, …
        self.below = [[0, *accumulate(sizes)] for sizes in net.sizes]
        layers: list[MaskedLinear] = list(net.layers)  # type: ignore[arg-type]  # see Compose
        self.weights: list[Tensor] = [layer.weight for layer in layers]
        self.weights[0] = self.weights[0].index_select(1, net.inputs)
        self.weights[-1] = self.weights[-1].index_select(0, net.made)
        self.biases: list[Tensor] = [layer.bias for layer in layers[:-1]]
        self.biases.append(biases.flatten().index_select(0, net.made))
        # What is known of what each layer sees: at first the context.
        self.context = points[:0] if context is None else context
        self.known = [self.context] * len(self.weights)

    def outputs(self) -> Tensor:
        """What is made for the next coordinate in the order, shape (P, N)."""
        hidden = self.context
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            below, seen = self.below[i + 1], self.known[i]
            rows = slice(below[self.step], below[self.step + 1])
            made = torch.addmm(bias[rows, None], weight[rows, : len(seen)], seen)
            hidden = hidden + made if self.skips[i] else made
            if i + 1 < len(self.known):
                self.known[i + 1] = torch.cat([self.known[i + 1], hidden.relu()])
        return hidden

    def learn(self, features: Sequence[Tensor]) -> None:
        """Take in the features of that coordinate, F tensors of shape (N,)."""
        rows = [feature.unsqueeze(0) for feature in features]
        self.known[0] = torch.cat([self.known[0], *rows])
        self.step += 1


class InPlace(Incremental):
    """The same, faster, where no gradient is asked for.

    What is known is written into room that waits for it, and holds zeros until then. And
    since many small products are slow, coordinates go in groups: what the units of a
    group see of earlier ones is one product in each layer, made when the group begins.
    Each step adds what its units see of their own group.
    """

    GROUP = 8

    def __init__(
        self, net: MaskedMLP, biases: Tensor, points: Tensor, context: Tensor | None
    ) -> None:
        super().__init__(net, biases, points, context)
        told, n = self.context.shape[0], points.shape[-1]
        sizes = [[told, *sizes] for sizes in self.sizes[:-1]]
        self.room = [points.new_zeros(sum(rows), n) for rows in sizes]
        parts = [room.split(rows) for room, rows in zip(self.room, sizes, strict=True)]
        self.places = [places for _, *places in parts]
        if told:
            for context_place, *_ in parts:
                context_place.copy_(self.context)

    def outputs(self) -> Tensor:
        step = self.step % self.GROUP
        if step == 0:
            self._begin_group()
        made = self.room[0]
        for i, (sums, weights, fresh) in enumerate(self.layers):
            made = sums[step].addmm_(weights[step], fresh)
            if i + 1 < len(self.layers):
                if self.skips[i + 1]:
                    self.layers[i + 1][0][step].add_(made)
                torch.clamp_min(made, 0, out=self.places[i + 1][self.step])
        return made

    def learn(self, features: Sequence[Tensor]) -> None:
        self.step += 1
        for place, feature in zip(self.places[0][self.step], features, strict=True):
            place.copy_(feature)

    def _begin_group(self) -> None:
        """For each layer: the sums over earlier groups, and what steps add to them."""
        start, stop = self.step, min(self.step + self.GROUP, len(self.sizes[0]))
        told = self.context.shape[0]
        self.layers: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor]] = []
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            below, units = self.below[i], self.below[i + 1]
            known = told + below[start + (i == 0)]  # an input's degree counts itself
            fresh = slice(known, told + below[stop])
            rows = slice(units[start], units[stop])
            sizes = self.sizes[i + 1][start:stop]
            sums, seen = bias[rows, None], self.room[i][:known]
            if known:
                sums = torch.addmm(sums, weight[rows, :known], seen)
            else:
                sums = sums.repeat(1, seen.shape[1])
            parts = sums.split(sizes), weight[rows, fresh].split(sizes)
            self.layers.append((*parts, self.room[i][fresh]))
