"""Autoregressive layers: the coordinates before it steer the map of each coordinate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.distributions import constraints

from minflow.nets import MaskedLinear, MaskedMLP, beside, ordered, widths
from minflow.scalar_map import ScalarMap, checked
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
    `InPlace` for where no gradient is asked for. If many samples are drawn,
    `flow.transform.compile()` is worth its minutes: the steps are short and many.

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
        if torch.compiler.is_compiling():
            return True
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
    in columns, so the units of a degree lie together in memory.

    Many small products are slow. So coordinates go in groups: what the units of a group
    see of earlier groups is one product in each layer, made when the group begins. Each
    step adds what its units see of their own group. Autograd can follow: what is known
    is joined to a new tensor, never written over.

    Args:
        net: the network.
        biases: added to what is made, shape (P, D).
        points: N points, of which the number and the dtype matter, shape (D, N).
        context: shape (C, N).
    """

    GROUP = 8

    def __init__(
        self, net: MaskedMLP, biases: Tensor, points: Tensor, context: Tensor | None
    ) -> None:
        self.step, self.sizes, self.skips = 0, net.sizes, net.skips
        # How many units of each layer have a degree below 0, 1, …
        self.below = [[0, *accumulate(sizes)] for sizes in net.sizes]
        layers: list[MaskedLinear] = list(net.layers)  # type: ignore[arg-type]  # see Compose
        self.weights: list[Tensor] = [layer.weight for layer in layers]
        self.weights[0] = self.weights[0].index_select(1, net.inputs)
        self.weights[-1] = self.weights[-1].index_select(0, net.made)
        self.biases: list[Tensor] = [layer.bias for layer in layers[:-1]]
        self.biases.append(biases.flatten().index_select(0, net.made))
        # What each layer sees: the context and earlier groups, then its own group so far.
        self.context = points[:0] if context is None else context
        self.known = [self.context] * len(self.weights)
        self.fresh: list[list[Tensor]] = [[] for _ in self.weights]

    def outputs(self) -> Tensor:
        """What is made for the next coordinate in the order, shape (P, N)."""
        step = self.step % self.GROUP
        if step == 0:
            self._begin_group()
        hidden = self.context
        for i, (sums, weights) in enumerate(self.layers):
            made, seen = sums[step], self._own_group(i)
            if seen is not None:
                made = torch.addmm(made, weights[step][:, : seen.shape[0]], seen)
            hidden = hidden + made if self.skips[i] else made
            if i + 1 < len(self.layers):
                self._activate(i + 1, hidden)
        return hidden

    def learn(self, features: Sequence[Tensor]) -> None:
        """Take in the features of that coordinate, F tensors of shape (N,)."""
        self.fresh[0] += [feature.unsqueeze(0) for feature in features]
        self.step += 1

    def _begin_group(self) -> None:
        """For each layer: the sums over earlier groups, and what steps add to them."""
        start, stop = self.step, self.step + self.GROUP
        self.layers: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = []
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            self._end_group(i)
            sizes = self.sizes[i + 1][start:stop]
            first = self.below[i + 1][start]
            rows = slice(first, first + sum(sizes))
            known = self.known[i].shape[0]
            sums = torch.addmm(bias[rows, None], weight[rows, :known], self.known[i])
            self.layers.append((sums.split(sizes), weight[rows, known:].split(sizes)))

    def _own_group(self, i: int) -> Tensor | None:
        """What a layer sees of its own group so far; None if that is nothing."""
        return torch.cat(self.fresh[i]) if self.fresh[i] else None

    def _activate(self, i: int, hidden: Tensor) -> None:
        """Let a layer see the units that were made for it."""
        self.fresh[i].append(hidden.relu())

    def _end_group(self, i: int) -> None:
        """Join what a layer saw of its own group to what is known of earlier ones."""
        self.known[i] = torch.cat([self.known[i], *self.fresh[i]])
        self.fresh[i] = []


class InPlace(Incremental):
    """The same, faster, where no gradient is asked for.

    What is known is written into room that waits for it.
    """

    def __init__(
        self, net: MaskedMLP, biases: Tensor, points: Tensor, context: Tensor | None
    ) -> None:
        super().__init__(net, biases, points, context)
        told, n = self.context.shape[0], points.shape[-1]
        self.room = [points.new_empty(told + below[-1], n) for below in self.below[:-1]]
        for room in self.room:
            room[:told] = self.context
        self.filled = [told] * len(self.room)

    def learn(self, features: Sequence[Tensor]) -> None:
        for feature in features:
            self.room[0][self.filled[0]].copy_(feature)
            self.filled[0] += 1
        self.step += 1

    def _own_group(self, i: int) -> Tensor | None:
        start, stop = self.known[i].shape[0], self.filled[i]
        return self.room[i][start:stop] if stop > start else None

    def _activate(self, i: int, hidden: Tensor) -> None:
        start = self.filled[i]
        self.filled[i] = stop = start + hidden.shape[0]
        torch.clamp_min(hidden, 0, out=self.room[i][start:stop])

    def _end_group(self, i: int) -> None:
        self.known[i] = self.room[i][: self.filled[i]]
