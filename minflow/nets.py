"""Networks that make the numbers that steer a transform."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from operator import index

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


def check_whole(name: str, value: object, least: int) -> None:
    """ValueError unless a value is a whole number, and no less than the least."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
            f"{name} must be a whole number, at least {least}; got {value!r}"
        )


def widths(hidden: Sequence[int]) -> tuple[int, ...]:
    """The widths of hidden layers as a tuple; ValueError unless they are at least 1."""
    for width in hidden if isinstance(hidden, list | tuple) else (None,):
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ValueError(
                f"hidden must be a tuple of whole numbers, at least 1; got {hidden!r}"
            )
    return tuple(hidden)


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """A fully connected network that starts as zero, (*batch, in) -> (*batch, out).

    Its last layer has no bias and zero weights, since what it makes is added to numbers
    that are learned: so a transform starts alike for every context.

    Args:
        inputs: size of the last dimension that comes in.
        hidden: width of each hidden layer, a SiLU after each; () makes it linear.
        outputs: size of the last dimension that goes out.

    >>> import torch
    >>> mlp(3, (8,), 2)(torch.ones(5, 3)).detach().abs().max()
    tensor(0.)
    """
    net = _layers(inputs, hidden, outputs, nn.SiLU)
    for weight in net[-1].parameters():
        nn.init.zeros_(weight)
    return net


def conditioner(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """A fully connected network for a coupling, (*batch, in) -> (*batch, out).

    It starts from torch's small random weights, with a ReLU after each hidden layer: on
    the two moons that trains better than a start at zero (`benchmarks/couplings.py`). Its
    last layer has no bias, since what it makes is added to numbers that are learned.

    Args:
        inputs, hidden, outputs: as in `mlp`.

    >>> import torch
    >>> conditioner(3, (8,), 2)(torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """
    relu = partial(nn.ReLU, inplace=True)  # nothing else needs what comes in
    return _layers(inputs, hidden, outputs, relu)


def _layers(
    inputs: int, hidden: Sequence[int], outputs: int, activation: Callable[[], nn.Module]
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise((inputs, *hidden)):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers, nn.Linear((inputs, *hidden)[-1], outputs, bias=False))


def steered(params: Tensor, net: nn.Module | None, context: Tensor | None) -> Tensor:
    """Parameters for a context: the learned ones, plus what a network makes of it.

    Args:
        params: learned numbers, shape (P,).
        net: from the context to P numbers; None for a transform that takes no context.
        context: shape (*batch, C).

    Returns:
        Shape (P,) without a network, (*batch, P) with one.
    """
    return params if net is None else params + net(context)


def beside(*parts: Tensor) -> Tensor:
    """Tensors joined along their last dimension; a single one as it is, not a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def may_see(sources: Sequence[int], units: Sequence[int]) -> Tensor:
    """Which sources each unit may see, by their degrees, shape (units, sources)."""
    return torch.tensor(units).unsqueeze(-1) >= torch.tensor(sources)


class MaskedLinear(nn.Linear):
    """A linear layer in which a unit of degree m sees the sources of degree at most m.

    A degree says how many coordinates, in order, a number may depend on. The weights
    that would break this rule are there, but a mask of zeros shuts them off.

    Args:
        sources: the degree of each number that comes in.
        units: the degree of each number that goes out.
        bias: whether a learned number is added to each.
    """

    mask: Tensor

    def __init__(
        self, sources: Sequence[int], units: Sequence[int], bias: bool = True
    ) -> None:
        super().__init__(len(sources), len(units), bias)
        # Numbers, since a product of weights and booleans takes many times as long.
        self.register_buffer("mask", may_see(sources, units).to(self.weight))

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight * self.mask, self.bias)


class MaskedMLP(nn.Module):
    """MADE: one network for all coordinates, each of whose outputs sees the ones before.

    Coordinates stand in an order. What is made for the first depends on the context
    alone; for the next, on the first as well; and so on. Each number in the network has
    a degree, how many coordinates it may depend on: 0 for the context, p for the p-th
    coordinate in the order, p − 1 for what is made for it. A hidden unit's degree is
    chosen freely. Each layer is a `MaskedLinear`, and each sees the context, too. Units
    stand sorted by degree, so that `Incremental` can go coordinate by coordinate.

    Args:
        dim: D, how many coordinates.
        outputs: P, how many numbers to make for each.
        hidden: width of each hidden layer, a ReLU after each; () makes it linear.
        context_dim: C, the size of the context; 0 for none.
        features: F, how many numbers come in for each coordinate.
        order: the coordinates, each of 0, …, D − 1 once, first to last; None for as they
            stand.
        seed: None spreads the degrees of hidden units evenly; a whole number draws them
            at random, alike for the same number.
        residual: whether a hidden layer as wide as the one before it is added to that
            one, and has its degrees.

    Raises:
        ValueError: if an argument is out of range, or nothing can be seen: one coordinate
            and no context.

    Cost of a pass over N points: N times the number of weights; the masks are applied
    once.

    Source: Germain, Gregor, Murray and Larochelle 2015 (arXiv:1502.03509), section 4;
    with residual blocks Nash and Durkan 2019 (arXiv:1904.05626).

    >>> MaskedMLP(dim=4, outputs=2)(torch.ones(5, 4)).shape
    torch.Size([5, 2, 4])
    """

    inputs: Tensor
    made: Tensor

    def __init__(
        self,
        dim: int,
        outputs: int,
        hidden: Sequence[int] = (64, 64),
        context_dim: int = 0,
        features: int = 1,
        order: Sequence[int] | None = None,
        seed: int | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("outputs", outputs), ("features", features)):
            check_whole(name, value, 1)
        check_whole("context_dim", context_dim, 0)
        if seed is not None:
            check_whole("seed", seed, 0)
        if dim == 1 and not context_dim:
            raise ValueError("one coordinate and no context: there is nothing to see")
        self.dim, self.outputs = dim, outputs
        self.order = ordered(dim, order)
        position = _sorted(self.order)  # of each coordinate, in the order
        told = [0] * context_dim
        degrees = [[p + 1 for p in position] * features]
        draw = None if seed is None else random.Random(seed)
        self.skips = []
        for i, width in enumerate(widths(hidden)):
            skip = residual and i > 0 and width == hidden[i - 1]
            least = min(told + degrees[-1])
            drawn = hidden_degrees(width, least, dim - 1, draw)
            degrees.append(degrees[-1] if skip else drawn)
            self.skips.append(skip)
        self.skips.append(False)  # what is made is added to nothing
        degrees.append(position * outputs)
        layers = [
            MaskedLinear(told + before, after, bias=i < len(hidden))
            for i, (before, after) in enumerate(itertools.pairwise(degrees))
        ]
        with torch.no_grad():
            layers[-1].weight.mul_(0.3)  # so that a flow starts near its base
        self.layers = nn.ModuleList(layers)
        # For `Incremental`: the inputs and the outputs sorted by degree, and how many
        # numbers of each layer have degree 0, 1, …
        self.register_buffer("inputs", torch.tensor(_sorted(told + degrees[0])))
        self.register_buffer("made", torch.tensor(_sorted(degrees[-1])))
        counts = map(Counter, degrees)
        self.sizes = [[count[p] for p in range(dim + 1)] for count in counts]
        self.register_load_state_dict_pre_hook(_only_these_masks)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """All numbers at once.

        Args:
            x: shape (*batch, F · D), the first feature of all coordinates first.
            context: shape (*batch, C).

        Returns:
            Shape (*batch, P, D).
        """
        told = () if context is None else (context,)
        first, *others = self.layers
        hidden = first(beside(*told, x))
        for layer, skip in zip(others, self.skips[1:], strict=True):
            # In place, unless what came in is needed once more: it spares a copy.
            seen = hidden.relu() if skip else hidden.relu_()
            made = layer(beside(*told, seen))
            hidden = hidden + made if skip else made
        return hidden.unflatten(-1, (self.outputs, self.dim))


def _only_these_masks(
    net: nn.Module, state: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """ValueError before a state of another order or seed is taken, masks and all."""
    for name, own in net.named_buffers():
        given = state.get(prefix + name, own)
        if own.is_meta or given.shape != own.shape:
            continue  # there is nothing to compare, or torch itself will name the shapes
        if not torch.equal(given.to(own), own):
            raise ValueError(
                f"this state belongs to a network with another order or seed: its "
                f"{prefix}{name} differs"
            )


def _sorted(degrees: Sequence[int]) -> list[int]:
    """Places in order of their degrees; those of one degree stay as they are."""
    return sorted(range(len(degrees)), key=degrees.__getitem__)


def ordered(dim: int, order: Sequence[int] | None) -> tuple[int, ...]:
    """An order of D coordinates as a tuple; ValueError unless it holds each once."""
    try:
        steps = tuple(map(index, range(dim) if order is None else order))
    except TypeError:  # not even whole numbers
        steps = ()
    if sorted(steps) != list(range(dim)):
        raise ValueError(f"order must hold each of 0, …, {dim - 1} once; got {order!r}")
    return steps


def hidden_degrees(
    width: int, least: int, most: int, draw: random.Random | None
) -> list[int]:
    """The degrees of hidden units, in order. One has the most, so none is without use."""
    if draw is None:
        return sorted(most - (most + 1 - least) * i // width for i in range(width))
    return sorted([*(draw.randint(least, most) for _ in range(width - 1)), most])
