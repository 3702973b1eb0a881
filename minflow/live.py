"""Live figures: small pages of HTML and JavaScript that compute in the browser.

A live figure needs no kernel and no network. Put it last in a cell, and the saved
output works in the book, in Jupyter, VS Code and Colab. The same output holds a still
picture and words, for places that take scripts or frames away.

A figure is a page in ``live_figures`` and a function here. The page marks where the
shared style and script go; the script brings the theme, the frame's height, and sliders
for every hand.
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch

from minflow.nets import hidden_degrees, may_see, ordered
from minflow.spline import evaluate

__all__ = [
    "LiveFigure",
    "autoregressive",
    "change_of_variables",
    "coupling",
    "kl",
    "planar",
    "spline",
]

# The still picture is seen only where the frame was taken away, or where scripts are
# off.
_OUTPUT = """<div class="minflow-live">
<style>
.minflow-live > iframe {{ display: block; width: 100%; height: {height}px; border: 0; }}
.minflow-live > iframe[srcdoc] + .minflow-still {{ display: none; }}
</style>
<iframe title="{title}" srcdoc="{page}"></iframe>
<div class="minflow-still">
<img src="data:image/svg+xml;base64,{still}" alt="{alt}" style="max-width: 100%">
<p>{words} (The figure moves in the book, in Jupyter and in Colab.)</p>
</div>
<noscript><style>
.minflow-live > iframe {{ display: none; }}
.minflow-live > iframe[srcdoc] + .minflow-still {{ display: block; }}
</style></noscript>
</div>"""


@dataclass(frozen=True)
class LiveFigure:
    """A live figure, as the last value of a notebook cell.

    Arguments:
        name: the figure's page in the package's data, without ``.html``.
        title: what the figure is, in a few words.
        words: what it tells at the start, in a sentence or two.
        still: a still picture of the start, or of what it leads to, as SVG.
        alt: what the still picture shows.
        start: the numbers that the figure starts from.
        height: the frame's height in pixels where the page cannot set it itself.
    """

    name: str
    title: str
    words: str
    still: str
    alt: str
    start: dict[str, Any]
    height: int = 740

    def page(self) -> str:
        """The figure as one HTML page that stands alone."""
        folder = resources.files("minflow") / "live_figures"
        text = (folder / f"{self.name}.html").read_text(encoding="utf-8")
        for part in ("common.css", "common.js"):
            shared = (folder / part).read_text(encoding="utf-8")
            text = text.replace(
                f"/*{{{{{part}}}}}*/", shared.replace("\nexport ", "\n").strip()
            )
        return text.replace("/*{{start}}*/", json.dumps(self.start, sort_keys=True))

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> dict[str, str]:
        still = base64.b64encode(self.still.encode()).decode()
        parts = {
            "title": self.title,
            "page": self.page(),
            "words": self.words,
            "alt": self.alt,
        }
        safe = {key: html.escape(value) for key, value in parts.items()}
        shown = _OUTPUT.format(height=self.height, still=still, **safe)
        return {"text/html": shown, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"Live figure: {self.title}. {self.words}"


def change_of_variables(
    slope: float = 2.0, shift: float = 1.0, interval: tuple[float, float] = (-1.5, -0.5)
) -> LiveFigure:
    """Show a map x = f(z), the base density p_z, the data density p_x, and one interval in each.

    The reader drags the line's slope (through 0 and below) and shift, or the knots of a
    rising curve, and sees that the interval's two masses stay equal.

    Arguments:
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


def _path(points: Iterable[tuple[float, float]]) -> str:
    """Points in pixels as the path of an SVG."""
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)


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
    template = resources.files("minflow") / "live_figures" / "change_of_variables.svg"
    return template.read_text(encoding="utf-8").format(
        formula=formula,
        ticks="".join(ticks),
        line=_path([(u(-3.5), v(-3.5)), (u(3.5), v(3.5))]),
        base=_path(below(everywhere)),
        data=_path(beside(everywhere)),
        mass_z=_path([(u(z0), 430), *below(inside), (u(z1), 430)]),
        mass_x=_path([(400, v(z0)), *beside(inside), (400, v(z1))]),
        band_z=_path([(u(z0), 326), (u(z0), v(z0)), (u(z1), v(z1)), (u(z1), 326)]),
        band_x=_path([(400, v(z0)), (u(z0), v(z0)), (u(z1), v(z1)), (400, v(z1))]),
    )


def kl() -> LiveFigure:
    """Show a target p of two bumps, a normal model q, and both KL divergences between them.

    p = 0.7 N(-2, 0.6²) + 0.3 N(2, 0.6²), and q = N(m, s²). The reader drags m and s and
    reads, in nats,

        forward KL(p‖q) = E_p[log p(x) - log q(x)],
        reverse KL(q‖p) = E_q[log q(x) - log p(x)],

    and where on the axis each comes from. The forward KL has one minimum, at the mean and
    the standard deviation of p: q covers both bumps. The reverse KL has two, one close to
    each bump. Where q is the bump of weight w, p >= w q everywhere, so that the minimum
    there is at most log(1/w).

    Source: Bishop 2006, Pattern Recognition and Machine Learning, section 10.1.2.

    >>> kl().start["weight"]
    0.7
    """
    left, right, std, weight = -2.0, 2.0, 0.6, 0.7
    mean = weight * left + (1 - weight) * right
    sd = math.sqrt(std**2 + weight * (1 - weight) * (right - left) ** 2)

    def normal(x: float, m: float, s: float) -> float:
        return math.exp(-0.5 * ((x - m) / s) ** 2) / (s * math.sqrt(2 * math.pi))

    def target(x: float) -> float:
        return weight * normal(x, left, std) + (1 - weight) * normal(x, right, std)

    def path(density: Callable[[float], float]) -> str:
        points = ((x, density(x)) for x in xs if density(x) > 0.001)
        return _path((330 + 48 * x, 260 - 270 * d) for x, d in points)

    xs = [0.05 * k for k in range(-120, 121)]
    # E_p[log q] is in closed form, since q matches the moments of p; E_p[log p] is a sum.
    negative_entropy = sum(0.05 * target(x) * math.log(target(x)) for x in xs)
    forward = negative_entropy + math.log(sd * math.sqrt(2 * math.pi * math.e))
    ticks = "".join(
        f'<text x="{330 + 48 * x}" y="278">{x}</text>' for x in range(-6, 7, 2)
    )
    template = resources.files("minflow") / "live_figures" / "kl.svg"
    words = (
        f"The target p has two bumps, of weight {weight:g} at {left:g} and {1 - weight:g} at {right:g}. "
        f"Among normal models, the forward KL is least at p's own mean {mean:.2f} and standard "
        f"deviation {sd:.2f}, where it is {forward:.3f} nats: the model covers both bumps and the gap. "
        f"The reverse KL has two minima, one on each bump, of about {-math.log(weight):.2f} and "
        f"{-math.log(1 - weight):.2f} nats: the model keeps to one bump and leaves the other out."
    )
    return LiveFigure(
        name="kl",
        title="The two directions of the KL divergence",
        words=words.replace("-", "\u2212"),
        still=template.read_text(encoding="utf-8").format(
            ticks=ticks.replace(">-", ">\u2212"),
            target=path(target),
            forward=path(lambda x: normal(x, mean, sd)),
            left=path(lambda x: normal(x, left, std)),
            right=path(lambda x: normal(x, right, std)),
        ),
        alt="A target of two bumps, a wide normal that covers both, and a narrow one on each.",
        start={
            "m": 0.5,
            "s": 1.0,
            "left": left,
            "right": right,
            "std": std,
            "weight": weight,
        },
        height=770,
    )


def planar(
    w: tuple[float, float] = (1.5, 0.5),
    u: tuple[float, float] = (1.2, 0.4),
    b: float = 0.5,
) -> LiveFigure:
    """Show one planar layer of the plane, x = z + u tanh(wᵀz + b), and when it breaks.

    A square grid of z is carried to x, over the density q(x) of a standard normal base. The
    reader drags w, u and the hyperplane wᵀz + b = 0, on which det J = 1 + wᵀu. Where
    wᵀu <= -1 the figure takes the density away, shows the fold and offers to mend u. It
    shows a radial layer too, x = z + β (z - z₀) / (α + ‖z - z₀‖), refused where β <= -α.

    Arguments:
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

    def f(z: tuple[float, float]) -> tuple[float, float]:
        t = math.tanh(w[0] * z[0] + w[1] * z[1] + b)
        return z[0] + u[0] * t, z[1] + u[1] * t

    def path(middle: int, points: Iterable[tuple[float, float]]) -> str:
        return _path((middle + 30 * x, 178 - 30 * y) for x, y in points)

    ticks = [0.25 * k for k in range(-12, 13)]
    lines = [[(c, t) for t in ticks] for c in ticks[::2]]
    lines += [[(y, x) for x, y in line] for line in lines]
    foot = -b * w[0] / square, -b * w[1] / square
    far = 9 / math.sqrt(square)
    hyperplane = [(foot[0] + k * far * w[1], foot[1] - k * far * w[0]) for k in (-1, 1)]
    discs = [
        [(r * math.cos(0.1 * k), r * math.sin(0.1 * k)) for k in range(64)]
        for r in (1, 2)
    ]
    masses = [1 - math.exp(-0.5 * r * r) for r in (1, 2)]  # of the base within r
    template = resources.files("minflow") / "live_figures" / "planar.svg"
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
        still=template.read_text(encoding="utf-8").format(
            disc_z="".join(path(165, disc) for disc in discs),
            disc_x="".join(path(480, map(f, disc)) for disc in discs),
            grid_z="".join(path(165, line[::24]) for line in lines),
            grid_x="".join(path(480, map(f, line)) for line in lines),
            hyperplane=path(165, hyperplane) + path(480, hyperplane),
            arrows=path(165, [(0, 0), w]) + path(480, [(0, 0), u]),
        ),
        alt=f"A square grid, two discs and a line across them; the same after a layer that {what}.",
        start={"w1": w[0], "w2": w[1], "u1": u[0], "u2": u[1], "b": b},
        height=600,
    )


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

    Arguments:
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

    def f(z: tuple[float, float]) -> tuple[float, float]:
        scale, shift = _cubic(s, slopes_s, z[0]), _cubic(t, slopes_t, z[0])
        return z[0], z[1] * math.exp(scale) + shift

    def path(middle: float, points: Iterable[tuple[float, float]]) -> str:
        return _path((middle + 39 * x, 266 - 39 * y) for x, y in points)

    def panel(
        middle: float, values: Sequence[float], slopes: list[float], unit: float
    ) -> str:
        zs = (0.05 * k for k in range(-68, 69))
        return _path((middle + 39 * z, 54 - unit * _cubic(values, slopes, z)) for z in zs)

    def ruler(middle: float, g: Callable[[tuple[float, float]], tuple]) -> str:
        rungs = [g((z1, z2)) for z2 in range(-2, 3)]
        ends = [[(x - 0.2, y), (x + 0.2, y)] for x, y in rungs]
        return "".join(path(middle, line) for line in (rungs, *ends))

    ticks = [0.25 * k for k in range(-12, 13)]
    lines = [[(c, v) for v in ticks] for c in ticks[::2]]
    lines += [[(y, x) for x, y in line] for line in lines]
    discs = [
        [(r * math.cos(0.1 * k), r * math.sin(0.1 * k)) for k in range(64)]
        for r in (1, 2)
    ]
    at, by = _cubic(s, slopes_s, z1), _cubic(t, slopes_t, z1)
    template = resources.files("minflow") / "live_figures" / "coupling.svg"
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
        still=template.read_text(encoding="utf-8").format(
            s=panel(162.5, s, slopes_s, 14),
            t=panel(477.5, t, slopes_t, 28 / 3.6),
            disc_z="".join(path(162.5, disc) for disc in discs),
            disc_x="".join(path(477.5, map(f, disc)) for disc in discs),
            grid_z="".join(path(162.5, line[::24]) for line in lines),
            grid_x="".join(path(477.5, map(f, line)) for line in lines),
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

    Arguments:
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

    def place(a: float, b: float) -> tuple[float, float]:
        return 200 + 40 * a, 190 - 40 * b

    def tangent(a: float, b: float, rise: float) -> str:
        arm = 0.7 / math.hypot(1, rise)
        ends = [(a + k * arm, b + k * arm * rise) for k in (-1, 1)]
        return _path(place(*end) for end in ends)

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
    template = resources.files("minflow") / "live_figures" / "spline.svg"
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
        still=template.read_text(encoding="utf-8").format(
            ticks="".join(ticks).replace(">-", ">\u2212"),
            map=_path(place(a, v) for v, (a, _) in zip(fine, back, strict=True)),
            knots="".join(f"{_path([place(a, b)])}h0" for a, b, _ in knots),
            tangents="".join(tangent(*knot) for knot in knots),
            base=_path(
                (200 + 2 * v, 436 - 130 * density(0.05 * v)) for v in range(-80, 81)
            ),
            data=_path(
                (380 + wide * q, 190 - 40 * v) for v, q in zip(fine, heights, strict=True)
            ),
        ),
        alt="A rising curve through knots in a dashed box; the base density below it, the data's beside it.",
        start={"z": list(z), "x": list(x), "slope": list(slope), "probe": probe},
        height=740,
    )


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

    Arguments:
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
    template = resources.files("minflow") / "live_figures" / "autoregressive.svg"
    words = (
        f"A masked network of {dim} coordinates in the order {', '.join(map(_x, order))}, with two hidden layers "
        f"of {width} units. {_about(order, layer, place, degrees[layer][place], sees, makes)} The masks keep "
        f"{kept} of {weights} weights, and the Jacobian ∂z/∂x is triangular in that order."
    )
    return LiveFigure(
        name="autoregressive",
        title="A masked network, and the Jacobian that it makes",
        words=words,
        still=template.read_text(encoding="utf-8").format(
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
            lines[side if on else "edges"].append(_path([at(i, j), at(i + 1, k)]))
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
