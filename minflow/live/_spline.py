"""A monotone spline, and the density that it makes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

from minflow.live._figure import LiveFigure, Point, packaged, svg_path
from minflow.spline import evaluate


def spline(
    z: Sequence[float] = (-0.8, 0.0, 0.9),
    x: Sequence[float] = (-1.7, -0.2, 1.3),
    slope: Sequence[float] = (0.7, 4.0, 0.7),
    probe: float = 1.5,
) -> LiveFigure:
    """Show a monotone rational-quadratic spline from z to x, and the density that it makes.

    The spline goes through (-3, -3), the inner knots and (3, 3); outside that box it is the
    identity. The reader drags the knots, turns their slopes, adds and removes knots, and
    reads off at one x

        log p_x(x) = log p_z(z) + log dz/dx,

    for a standard normal p_z. It is evaluated from x to z: in a bin of width w = Δx and height
    h = Δz, with s = h/w, ξ = (x - x_k)/w and d = dz/dx at the knots (1 over the slope shown),

        z = z_k + h (s ξ² + d_k ξ(1-ξ)) / (s + (d_{k+1} + d_k - 2s) ξ(1-ξ)).

    Args:
        z, x: the inner knots at the start, one to seven, increasing, inside -3 to 3, and at
            least 0.1 from each other and from the box in both.
        slope: dx/dz at each of them, from 0.1 to 10.
        probe: the x that is read off at the start, from -4 to 4.

    Raises:
        ValueError: if the knots are not such knots, or a number is outside its range.

    Source: Gregory and Delbourgo 1982; Durkan, Bekasov, Murray and Papamakarios 2019
    (arXiv:1906.04032), equation 4.

    >>> spline(z=(0,), x=(0.5,), slope=(2,)).start["x"]
    [0.5]
    """
    zs, xs = [-3.0, *z, 3.0], [-3.0, *x, 3.0]
    gaps = [b - a for ends in (zs, xs) for a, b in itertools.pairwise(ends)]
    if not (
        1 <= len(z) == len(x) == len(slope) <= 7
        and all(gap > 0.1 - 1e-9 for gap in gaps)
        and all(0.1 <= v <= 10 for v in slope)
        and abs(probe) <= 4
    ):
        raise ValueError(
            "expected 1 to 7 knots inside -3 to 3, at least 0.1 apart in z and in x, slopes from 0.1 to 10 "
            f"and probe from -4 to 4, got z={z}, x={x}, slope={slope}, probe={probe}"
        )
    edges = torch.tensor([xs, zs], dtype=torch.float64).unsqueeze(-1)
    rates = torch.tensor([[1.0], *([1 / v] for v in slope), [1.0]], dtype=torch.float64)

    def inverse(points: Sequence[float]) -> list[list[float]]:  # z, and dz/dx, of each x
        at = torch.tensor(points, dtype=torch.float64)
        inner, log_rate = evaluate(at.clamp(-3, 3), edges, rates)
        back = torch.where(at.abs() > 3, at, inner)
        return torch.stack([back, log_rate.exp()], -1).tolist()

    def density(at: float) -> float:
        return math.exp(-0.5 * at * at) / math.sqrt(2 * math.pi)

    def place(a: float, b: float) -> Point:
        return 200 + 40 * a, 190 - 40 * b

    def tangent(a: float, b: float, rise: float) -> str:
        arm = 0.7 / math.hypot(1, rise)
        ends = [(a + k * arm, b + k * arm * rise) for k in (-1, 1)]
        return svg_path(place(*end) for end in ends)

    bins = itertools.pairwise(xs)
    fine = [a + (b - a) * k / 60 for a, b in bins for k in range(60)]
    fine = [-4 + 0.05 * k for k in range(20)] + fine + [3 + 0.05 * k for k in range(21)]
    back = inverse(fine)
    heights = [density(at) * rate for at, rate in back]
    wide = 210 / max(heights)
    knots = list(zip(z, x, slope, strict=True))
    ticks = [
        f'<text x="{200 + 40 * v}" y="453">{v}</text><text x="26" y="{194 - 40 * v}">{v}</text>'
        for v in range(-4, 5, 2)
    ]
    ((at, rate),) = inverse([probe])
    logs = -0.5 * at * at - 0.5 * math.log(2 * math.pi), math.log(rate)
    words = (
        f"A monotone rational-quadratic spline of {len(x) + 1} bins from -3 to 3, through "
        f"{', '.join(f'({a:g}, {b:g})' for a, b, _ in knots)} with slopes {', '.join(f'{v:g}' for v in slope)}; "
        f"outside, x = z. At x = {probe:g}: z = {at:.2f} and dx/dz = {1 / rate:.2f}, so that the log-density is "
        f"{logs[0]:.2f} {'-' if logs[1] < 0 else '+'} {abs(logs[1]):.2f} = {sum(logs):.2f}. Where the curve is "
        "steep the data are spread out, where it is flat they are dense."
    )
    for hyphened in ("rational-quadratic", "log-density"):
        words = words.replace(hyphened, hyphened.replace("-", "\u2010"))
    return LiveFigure(
        name="spline",
        title="A monotone spline, and the density that it makes",
        words=words.replace("-", "\u2212").replace("\u2010", "-"),
        still=packaged("spline.svg").format(
            ticks="".join(ticks).replace(">-", ">\u2212"),
            map=svg_path(place(a, v) for v, (a, _) in zip(fine, back, strict=True)),
            knots="".join(f"{svg_path([place(a, b)])}h0" for a, b, _ in knots),
            tangents="".join(tangent(*knot) for knot in knots),
            base=svg_path(
                (200 + 2 * v, 436 - 130 * density(0.05 * v)) for v in range(-80, 81)
            ),
            data=svg_path(
                (380 + wide * q, 190 - 40 * v) for v, q in zip(fine, heights, strict=True)
            ),
        ),
        alt="A rising curve through knots in a dashed box; the base density below it, the data's beside it.",
        start={"z": list(z), "x": list(x), "slope": list(slope), "probe": probe},
        height=740,
    )
