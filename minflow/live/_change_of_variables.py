"""A map of the line, and the densities before and after it."""

from __future__ import annotations

import math

from minflow.live._figure import LiveFigure, packaged, svg_path


def change_of_variables(
    slope: float = 2.0, shift: float = 1.0, interval: tuple[float, float] = (-1.5, -0.5)
) -> LiveFigure:
    """Show a map x = f(z), the base density p_z, the data density p_x, and one interval in each.

    The reader drags the line's slope (through 0 and below) and shift, or the knots of a
    rising curve, and sees that the interval's two masses stay equal.

    Args:
        slope: the line's slope at the start, from -5 to 5 and not 0.
        shift: its shift at the start, from -3 to 3.
        interval: the shaded interval of z at the start, inside -3.5 to 3.5 and at least
            0.1 wide.

    Raises:
        ValueError: if a number is outside its range.

    >>> change_of_variables(slope=-0.5, shift=1).start
    {'a': -0.5, 'b': 1, 'z0': -1.5, 'z1': -0.5}
    """
    z0, z1 = interval
    if not (0 < abs(slope) <= 5 and abs(shift) <= 3):
        raise ValueError(
            f"expected 0 < |slope| <= 5 and |shift| <= 3, got slope={slope}, shift={shift}"
        )
    if not (-3.5 <= z0 <= z1 - 0.1 and z1 <= 3.5):
        raise ValueError(
            f"expected an interval at least 0.1 wide inside -3.5 to 3.5, got interval={interval}"
        )
    x0, x1 = sorted((slope * z0 + shift, slope * z1 + shift))
    mass = (math.erf(z1 / math.sqrt(2)) - math.erf(z0 / math.sqrt(2))) / 2
    formula = f"x = {slope:g} z {'-' if shift < 0 else '+'} {abs(shift):g}"
    words = (
        f"The line {formula} carries the standard normal density to the data. "
        f"The shaded mass between z = {z0:g} and {z1:g} lands between x = {x0:g} and {x1:g}: "
        f"width × {abs(slope):g}, height ÷ {abs(slope):g}, mass {mass:.3f} in both."
    )
    return LiveFigure(
        name="change_of_variables",
        title="A map, the density before it and the density after it",
        words=words.replace("-", "\u2212"),
        still=_still(slope, shift, z0, z1, formula.replace("-", "\u2212")),
        alt="A line, the base density below it, the data density beside it, an interval in each.",
        start={"a": slope, "b": shift, "z0": z0, "z1": z1},
    )


def _still(slope: float, shift: float, z0: float, z1: float, formula: str) -> str:
    """The opening state of :func:`change_of_variables` as SVG."""
    high = 220 * min(1.0, 0.95 * abs(slope))  # pixels for p_x = 1; 220 for p_z = 1

    def u(z: float) -> float:
        return 210 + 48 * z

    def v(z: float) -> float:  # the height of x = f(z)
        return 170 - 17 * (slope * z + shift)

    def density(z: float) -> float:
        return math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)

    def below(zs: list[float]) -> list[tuple[float, float]]:
        return [(u(z), 430 - 220 * density(z)) for z in zs]

    def beside(zs: list[float]) -> list[tuple[float, float]]:
        return [(400 + high * density(z) / abs(slope), v(z)) for z in zs]

    def tick(x: float, y: float, value: int) -> str:
        return f'<text x="{x:g}" y="{y:g}">{value}</text>'.replace(">-", ">\u2212")

    everywhere = [0.05 * k for k in range(-70, 71)]
    inside = [z0 + (z1 - z0) * k / 40 for k in range(41)]
    ticks = [tick(u(z), 448, z) for z in range(-3, 4)]
    ticks += [tick(28, 174 - 17 * x, x) for x in range(-8, 9, 4)]
    return packaged("change_of_variables.svg").format(
        formula=formula,
        ticks="".join(ticks),
        line=svg_path([(u(-3.5), v(-3.5)), (u(3.5), v(3.5))]),
        base=svg_path(below(everywhere)),
        data=svg_path(beside(everywhere)),
        mass_z=svg_path([(u(z0), 430), *below(inside), (u(z1), 430)]),
        mass_x=svg_path([(400, v(z0)), *beside(inside), (400, v(z1))]),
        band_z=svg_path([(u(z0), 326), (u(z0), v(z0)), (u(z1), v(z1)), (u(z1), 326)]),
        band_x=svg_path([(400, v(z0)), (u(z0), v(z0)), (u(z1), v(z1)), (400, v(z1))]),
    )
