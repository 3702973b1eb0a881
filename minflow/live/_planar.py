"""A planar layer of the plane, and a radial one."""

from __future__ import annotations

import math
from collections.abc import Iterable

from minflow.live._figure import LiveFigure, Point, discs, packaged, square_grid, svg_path


def planar(
    w: Point = (1.5, 0.5),
    u: Point = (1.2, 0.4),
    b: float = 0.5,
) -> LiveFigure:
    """Show one planar layer of the plane, x = z + u tanh(wᵀz + b), and when it breaks.

    A square grid of z is carried to x, over the density q(x) of a standard normal base. The
    reader drags w, u and the hyperplane wᵀz + b = 0, on which det J = 1 + wᵀu. Where
    wᵀu <= -1 the figure takes the density away, shows the fold and offers to mend u. It
    shows a radial layer too, x = z + β (z - z₀) / (α + ‖z - z₀‖), refused where β <= -α.

    Args:
        w, u: the layer's weights at the start, each component from -2.5 to 2.5; w is not 0
            and wᵀu > -1.
        b: its offset at the start, from -3 to 3.

    Raises:
        ValueError: if a number is outside its range.

    Source: Rezende and Mohamed 2015 (arXiv:1505.05770), equations 10 to 14.

    >>> planar(u=(-0.3, 0.2)).start["u1"]
    -0.3
    """
    product, square = w[0] * u[0] + w[1] * u[1], w[0] ** 2 + w[1] ** 2
    if not (
        max(map(abs, (*w, *u))) <= 2.5 and abs(b) <= 3 and square > 0 and product > -1
    ):
        raise ValueError(
            "expected components of w and u from -2.5 to 2.5, b from -3 to 3, w not 0 and wᵀu > -1, "
            f"got w={w}, u={u}, b={b}, wᵀu={product:g}"
        )

    def f(z: Point) -> Point:
        t = math.tanh(w[0] * z[0] + w[1] * z[1] + b)
        return z[0] + u[0] * t, z[1] + u[1] * t

    def path(middle: int, points: Iterable[Point]) -> str:
        return svg_path((middle + 30 * x, 178 - 30 * y) for x, y in points)

    foot = -b * w[0] / square, -b * w[1] / square
    far = 9 / math.sqrt(square)
    hyperplane = [(foot[0] + k * far * w[1], foot[1] - k * far * w[0]) for k in (-1, 1)]
    masses = [1 - math.exp(-0.5 * r * r) for r in (1, 2)]  # of the base within r
    what = "expands" if product > 0 else "contracts" if product < 0 else "only shears"
    words = (
        f"A planar layer x = z + u tanh(wᵀz + b), with w = ({w[0]:g}, {w[1]:g}), u = ({u[0]:g}, {u[1]:g}) "
        f"and b = {b:g}, {what} about the hyperplane wᵀz + b = 0: there det J = 1 + wᵀu = {1 + product:.4g}, "
        f"far from it det J nears 1. The discs of radius 1 and 2 hold {masses[0]:.0%} and {masses[1]:.0%} "
        "of the mass, before and after. Where wᵀu <= -1 the layer is refused: it has no inverse, or no "
        "finite density."
    )
    return LiveFigure(
        name="planar",
        title="A planar layer of the plane, and a radial one",
        words=words.replace("<=", "≤").replace("-", "\u2212"),
        still=packaged("planar.svg").format(
            disc_z="".join(path(165, disc) for disc in discs()),
            disc_x="".join(path(480, map(f, disc)) for disc in discs()),
            grid_z="".join(path(165, line[::24]) for line in square_grid()),
            grid_x="".join(path(480, map(f, line)) for line in square_grid()),
            hyperplane=path(165, hyperplane) + path(480, hyperplane),
            arrows=path(165, [(0, 0), w]) + path(480, [(0, 0), u]),
        ),
        alt=f"A square grid, two discs and a line across them; the same after a layer that {what}.",
        start={"w1": w[0], "w2": w[1], "u1": u[0], "u2": u[1], "b": b},
        height=600,
    )
