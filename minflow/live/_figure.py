"""A live figure as the output of a cell, and the small parts that their still pictures share."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any

Point = tuple[float, float]

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

    Args:
        name: its page in this folder, without ``.html``.
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
        text = packaged(f"{self.name}.html")
        for part in ("common.css", "common.js"):
            shared = packaged(part)
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


def packaged(name: str) -> str:
    """A file that stands beside this one, as text."""
    return (resources.files("minflow.live") / name).read_text(encoding="utf-8")


def svg_path(points: Iterable[Point]) -> str:
    """Points in pixels as the path of an SVG."""
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)


def square_grid() -> list[list[Point]]:
    """The lines of a grid from -3 to 3 in both directions, each as 25 points."""
    ticks = [0.25 * k for k in range(-12, 13)]
    lines = [[(c, v) for v in ticks] for c in ticks[::2]]
    return lines + [[(y, x) for x, y in line] for line in lines]


def discs() -> list[list[Point]]:
    """The circles of radius 1 and 2 about 0."""
    return [
        [(r * math.cos(0.1 * k), r * math.sin(0.1 * k)) for k in range(64)]
        for r in (1, 2)
    ]
