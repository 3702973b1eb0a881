"""Networks that make the numbers that steer a transform."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn


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
    return _layers(inputs, hidden, outputs, nn.ReLU)


def _layers(
    inputs: int, hidden: Sequence[int], outputs: int, activation: type[nn.Module]
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
