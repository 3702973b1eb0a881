"""An affine coupling layer of the plane."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from minflow.live._figure import LiveFigure, Point, discs, packaged, square_grid, svg_path


def coupling(
    s: Sequence[float] = (-0.8, 0.4, -0.4, 0.6, 0.2),
    t: Sequence[float] = (1.0, -0.8, -0.4, 0.9, -0.3),
    z1: float = 1.0,
) -> LiveFigure:
    """Show one affine coupling layer of the plane, x₁ = z₁ and x₂ = z₂ exp(s(z₁)) + t(z₁).

    The reader shapes the functions s and t by five knots each, and sees a square grid of z
    carried to x, over the density q(x) of a standard normal base, drawn through the
    inverse z₂ = (x₂ - t(x₁)) / exp(s(x₁)). A ruler on one vertical line of z shows that
    the line is only shifted, by t, and stretched, by exp(s); the log-det there is s.

    The functions are cubic between knots. A knot's slope is that of the parabola through it
    and its two neighbours, so that parabolas come out exactly; beyond the last knots the
    functions are constant.

    Args:
        s, t: their values at the knots z₁ = -3, -1.5, 0, 1.5 and 3, at the start; s from
            -1.5 to 1.5, t from -3 to 3.
        z1: where the ruler stands at the start, from -3 to 3.

    Raises:
        ValueError: if there are not five of each, or a number is outside its range.

    Source: Dinh, Krueger and Bengio 2015 (arXiv:1410.8516), with s = 0; Dinh,
    Sohl-Dickstein and Bengio 2017 (arXiv:1605.08803), equations 4 to 8.

    >>> coupling(s=(0, 0, 0, 0, 0)).start["s"]
    [0, 0, 0, 0, 0]
    """
    if not (
        len(s) == len(t) == 5
        and all(abs(v) <= 1.5 for v in s)
        and all(abs(v) <= 3 for v in (*t, z1))
    ):
        raise ValueError(
            "expected five values of s from -1.5 to 1.5, five of t from -3 to 3, and z1 from -3 to 3, "
            f"got s={s}, t={t}, z1={z1}"
        )
    slopes_s, slopes_t = _slopes(s), _slopes(t)

    def f(z: Point) -> Point:
        scale, shift = _cubic(s, slopes_s, z[0]), _cubic(t, slopes_t, z[0])
        return z[0], z[1] * math.exp(scale) + shift

    def path(middle: float, points: Iterable[Point]) -> str:
        return svg_path((middle + 39 * x, 266 - 39 * y) for x, y in points)

    def panel(
        middle: float, values: Sequence[float], slopes: list[float], unit: float
    ) -> str:
        zs = (0.05 * k for k in range(-68, 69))
        return svg_path(
            (middle + 39 * z, 54 - unit * _cubic(values, slopes, z)) for z in zs
        )

    def ruler(middle: float, g: Callable[[Point], tuple]) -> str:
        rungs = [g((z1, z2)) for z2 in range(-2, 3)]
        ends = [[(x - 0.2, y), (x + 0.2, y)] for x, y in rungs]
        return "".join(path(middle, line) for line in (rungs, *ends))

    at, by = _cubic(s, slopes_s, z1), _cubic(t, slopes_t, z1)
    words = (
        "An affine coupling layer x₁ = z₁, x₂ = z₂ exp(s(z₁)) + t(z₁). Each vertical line stays where it "
        f"is, and is shifted and stretched along itself: at z₁ = {z1:g}, s = {at:.2f} and t = {by:.2f}, so "
        f"that x₂ = {math.exp(at):.2f} z₂ {'-' if by < 0 else '+'} {abs(by):.2f}, with log-det s = {at:.2f}. "
        f"It is undone by z₂ = (x₂ {'+' if by < 0 else '-'} {abs(by):.2f}) / {math.exp(at):.2f}: neither s "
        "nor t is inverted."
    )
    return LiveFigure(
        name="coupling",
        title="An affine coupling layer of the plane",
        words=words.replace("-", "\u2212").replace("log\u2212det", "log-det"),
        still=packaged("coupling.svg").format(
            s=panel(162.5, s, slopes_s, 14),
            t=panel(477.5, t, slopes_t, 28 / 3.6),
            disc_z="".join(path(162.5, disc) for disc in discs()),
            disc_x="".join(path(477.5, map(f, disc)) for disc in discs()),
            grid_z="".join(path(162.5, line[::24]) for line in square_grid()),
            grid_x="".join(path(477.5, map(f, line)) for line in square_grid()),
            ruler_z=ruler(162.5, lambda z: z),
            ruler_x=ruler(477.5, f),
        ),
        alt="Curves of s and t; a square grid, two discs and a ruler; the same after the layer.",
        start={"s": list(s), "t": list(t), "z1": z1},
        height=760,
    )


def _slopes(v: Sequence[float]) -> list[float]:
    """The slope at each of five knots, one unit apart, of the parabola through it and its neighbours."""
    inner = [(v[k + 1] - v[k - 1]) / 2 for k in (1, 2, 3)]
    return [
        (4 * v[1] - 3 * v[0] - v[2]) / 2,
        *inner,
        (3 * v[4] - 4 * v[3] + v[2]) / 2,
    ]


def _cubic(v: Sequence[float], slopes: Sequence[float], z: float) -> float:
    """The cubic through the knots of :func:`coupling`, at one z; constant beyond the last."""
    u = min(max((z + 3) / 1.5, 0.0), 4.0)
    k = min(int(u), 3)
    r, q = u - k, 1 - u + k
    low = q * q * ((1 + 2 * r) * v[k] + r * slopes[k])
    return low + r * r * ((1 + 2 * q) * v[k + 1] - q * slopes[k + 1])
