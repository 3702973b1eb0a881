"""A masked network, what each of its units sees, and the Jacobian that it makes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence

import torch

from minflow.live._figure import LiveFigure, packaged, svg_path
from minflow.nets import hidden_degrees, may_see, ordered


def autoregressive(
    order: Sequence[int] = (0, 1, 2, 3),
    seed: int | None = None,
    unit: tuple[int, int] = (1, 2),
) -> LiveFigure:
    """Show a masked network, what each of its units sees, and the Jacobian that it makes.

    The network is `MaskedMLP(D, 1, (6, 6), order=order, seed=seed)`. The reader touches a
    unit and sees on which coordinates it depends, and for which it helps to make the
    parameters θ_i of z_i = g⁻¹(x_i; θ_i(x_<i)). Beside it stands the pattern of ∂z_i/∂x_j:
    below the diagonal, in the order, the number of paths from x_j to θ_i, an entry of the
    product of the three masks. A slider goes through the steps of sampling: in step p the
    units of degree p - 1 are computed, each once, and the p-th coordinate is found.

    Args:
        order: the D coordinates at the start, first to last, each of 0, …, D - 1 once; D is
            from 2 to 5.
        seed: None spreads the degrees of the hidden units evenly; a number draws them at
            random, as `MaskedMLP` does.
        unit: the unit that is touched at the start, as its layer and its place there, both
            from 0. Layer 0 holds the inputs, 1 and 2 the hidden units, and 3 what is made
            for each coordinate.

    Raises:
        ValueError: if order is no such order, or there is no such unit.

    Source: Germain, Gregor, Murray and Larochelle 2015 (arXiv:1502.03509), section 4.

    >>> autoregressive(order=(2, 0, 1)).start["degrees"]
    [[1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 2]]
    """
    dim, width = len(order), 6
    if not 2 <= dim <= 5:
        raise ValueError(f"expected an order of 2 to 5 coordinates, got order={order}")
    order = ordered(dim, order)
    sizes = (dim, width, width, dim)
    if not (len(unit) == 2 and unit[0] in range(4) and unit[1] in range(sizes[unit[0]])):
        raise ValueError(
            "expected a unit as (layer, place), with a layer from 0 to 3 and a place within "
            f"the {sizes} units of the layers, got unit={unit}"
        )
    draw = None if seed is None else random.Random(seed)
    first = hidden_degrees(width, 1, dim - 1, draw)
    hidden = [first, hidden_degrees(width, first[0], dim - 1, draw)]
    position = [order.index(d) for d in range(dim)]
    degrees = [[p + 1 for p in position], *hidden, position]
    masks = [may_see(*pair).long() for pair in itertools.pairwise(degrees)]

    # How many paths lead from each unit of a layer, down a row, to each of a later one.
    def paths(source: int, target: int) -> torch.Tensor:
        product = torch.eye(sizes[source], dtype=torch.long)
        for mask in masks[source:target]:
            product = mask @ product
        return product

    layer, place = unit
    touched = [
        paths(i, layer)[place] if i <= layer else paths(layer, i)[:, place]
        for i in range(4)
    ]
    sees = [d for d in order if layer and touched[0][d]]
    makes = [d for d in order if layer < 3 and touched[3][d]]
    kept = sum(int(mask.sum()) for mask in masks)
    weights = sum(mask.numel() for mask in masks)
    words = (
        f"A masked network of {dim} coordinates in the order {', '.join(map(_x, order))}, with two hidden layers "
        f"of {width} units. {_about(order, layer, place, degrees[layer][place], sees, makes)} The masks keep "
        f"{kept} of {weights} weights, and the Jacobian ∂z/∂x is triangular in that order."
    )
    return LiveFigure(
        name="autoregressive",
        title="A masked network, and the Jacobian that it makes",
        words=words,
        still=packaged("autoregressive.svg").format(
            **_network(degrees, masks, touched, layer),
            **_pattern(paths(0, 3), touched, layer),
        ),
        alt=(
            "Units of four layers, each with its degree; the lines into and out of one of them are drawn "
            "strong; beside it a triangular matrix of numbers of paths, some of its cells black."
        ),
        start={
            "order": list(order),
            "degrees": hidden,
            "drawn": seed is not None,
            "unit": list(unit),
        },
        height=970,
    )


def _x(d: int) -> str:
    """The name of a coordinate, counted from 0: x₁ for 0."""
    return f"x{chr(0x2081 + d)}"


def _and(coordinates: Iterable[int]) -> str:
    """The names of coordinates as words: x₁, x₂ and x₃."""
    *some, last = map(_x, coordinates)
    return f"{', '.join(some)} and {last}" if some else last


def _about(
    order: Sequence[int],
    layer: int,
    place: int,
    degree: int,
    sees: Sequence[int],
    makes: Sequence[int],
) -> str:
    """What a unit of :func:`autoregressive` sees and helps to make, in two sentences."""
    allowed = order[:degree]
    paths = f"paths come from {_and(sees)} alone" if sees else "no path comes from there"
    if len(sees) == len(allowed):
        sight = f"sees {_and(sees)}" if sees else ""
    else:
        sight = f"may see {_and(allowed)}, but {paths}"
    standing = ("first", "second", "third", "fourth", "fifth")[
        order.index(place) if layer % 3 == 0 else 0
    ]
    name = f"{_x(place)} stands {standing} in the order."
    if layer == 0:
        use = (
            f"It helps to make the numbers for {_and(makes)}"
            if makes
            else "It is the last: no unit sees it"
        )
        own = f"its own z{_x(place)[1:]} depends on it through the map g"
        return f"The input {_x(place)} has degree {degree}. {name} {use}; {own}."
    if layer == 3:
        what = f"What is made for it {sight}."
        if not degree:
            what = "What is made for it sees no coordinate: it is learned numbers alone."
        return f"What is made for {_x(place)} has degree {degree}. {name} {what}"
    return (
        f"Hidden unit {place + 1} of layer {layer} has degree {degree}. "
        f"It {sight}, and helps to make the numbers for {_and(makes)}."
    )


def _network(
    degrees: Sequence[Sequence[int]],
    masks: Sequence[torch.Tensor],
    touched: Sequence[torch.Tensor],
    layer: int,
) -> dict[str, str]:
    """The network of :func:`autoregressive` as parts of an SVG."""

    def at(i: int, k: int) -> tuple[float, float]:
        gap = 42 if i % 3 else 48
        return 40 + 110 * i, 155 + gap * (k - (len(degrees[i]) - 1) / 2)

    lines: dict[str, list[str]] = {"edges": [], "before": [], "after": []}
    for i, mask in enumerate(masks):
        side = "before" if i < layer else "after"
        for k, j in mask.nonzero().tolist():
            on = touched[i][j] and touched[i + 1][k]
            lines[side if on else "edges"].append(svg_path([at(i, j), at(i + 1, k)]))
    looks = {  # of what the touched unit sees, of the unit itself, and of what sees it
        -1: ' stroke="#D55E00" stroke-width="2.5"',
        0: ' stroke="#1f2328" fill="#1f2328"',
        1: ' stroke="#0072B2" stroke-width="2.5" stroke-dasharray="5 3"',
    }
    units, names = [], []
    for i, row in enumerate(degrees):
        for k, degree in enumerate(row):
            x, y = at(i, k)
            look = looks[(i > layer) - (i < layer)] if touched[i][k] else ""
            ink = ' fill="#fff"' if look and i == layer else ""
            units.append(f'<circle cx="{x:g}" cy="{y:g}" r="13"{look}/>')
            said = str(degree) if i % 3 else f"{'θ' if i else 'x'}{_x(k)[1:]}"
            names.append(f'<text x="{x:g}" y="{y + 4.5:g}"{ink}>{said}</text>')
            if i % 3 == 0:
                side_x = x + (23 if i else -23)
                names.append(f'<text x="{side_x:g}" y="{y + 4.5:g}">{degree}</text>')
    parts = {key: "".join(value) for key, value in lines.items()}
    return parts | {"units": "".join(units), "names": "".join(names)}


def _pattern(
    paths: torch.Tensor, touched: Sequence[torch.Tensor], layer: int
) -> dict[str, str]:
    """The Jacobian's pattern in :func:`autoregressive` as parts of an SVG."""
    dim = len(paths)
    size = 200 // dim
    cells, numbers = [], []
    for i, row in enumerate(paths.tolist()):
        middle = size * (i + 0.5)
        numbers.append(
            f'<text x="421" y="{64.5 + middle:g}" fill="#00639B">z{_x(i)[1:]}</text>'
        )
        numbers.append(f'<text x="{436 + middle:g}" y="50" fill="#B34F00">{_x(i)}</text>')
        for j, number in enumerate(row):
            x, y = 436 + size * j, 60 + size * i
            lit = touched[3][i] * touched[0][j] > 0
            fill = "#1f2328" if lit else "#eceff2" if number or i == j else "#fff"
            cells.append(f'<path d="M{x} {y}h{size}v{size}h-{size}Z" fill="{fill}"/>')
            said = "g" if i == j else number
            ink = ' fill="#fff"' if lit else ""
            numbers.append(
                f'<text x="{x + size / 2:g}" y="{y + size / 2 + 4.5:g}"{ink}>{said}</text>'
            )
    return {"cells": "".join(cells), "numbers": "".join(numbers)}
