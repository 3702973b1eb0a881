"""What the reader sees: verdicts, folds, the progress table; as text and as HTML without maths."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

State = Literal["not attempted", "wrong", "correct"]
ORANGE, GREEN, GREY = "#D55E00", "#009E73", "#6b6b6b"
MARKS = {"correct": ("✓", GREEN), "wrong": ("✗", ORANGE), "not attempted": ("–", GREY)}
SAID = {"correct": "✓ solved", "wrong": "… tried", "not attempted": "– not yet"}


def prose(text: str) -> str:
    """Plain words as HTML; what stands in backticks becomes code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


@dataclass(frozen=True)
class Verdict:
    """What `check` says: `state`, `message` and, where it helps, an SVG `picture`."""

    state: State
    message: str
    picture: str = ""
    label: str = ""
    note: str = ""

    @property
    def _opening(self) -> str:
        name = f"Exercise {self.label}: " if self.label else ""
        end = {"correct": ".", "wrong": ", because", "not attempted": " yet."}[self.state]
        return f"{name}{self.state}{end}"

    def __repr__(self) -> str:
        return " ".join(filter(None, (self._opening, self.message, self.note)))

    def _repr_html_(self) -> str:
        mark, colour = MARKS[self.state]
        words = prose(" ".join(filter(None, (self.message, self.note))))
        return (
            f'<div style="border-left:4px solid {colour};padding:0.2em 0.8em;margin:0.4em 0;'
            f'overflow-wrap:anywhere"><strong>{mark} {escape(self._opening)}</strong> '
            f"{words}{self.picture}</div>"
        )


@dataclass(frozen=True)
class Fold:
    """Words (and code) to be opened by the reader: `text` in a terminal, a fold in a notebook."""

    title: str
    call: str
    words: str
    code: str = ""
    more: "Fold | None" = None

    @property
    def text(self) -> str:
        """What the fold hides, as plain text."""
        return "\n\n".join(filter(None, (self.code, self.words)))

    def __repr__(self) -> str:
        return f"{self.title}: open the fold in a notebook, or print({self.call}.text)."

    def _repr_html_(self) -> str:
        code = (
            '<pre tabindex="0" style="background:transparent;color:inherit;overflow-x:auto">'
            f"<code>{escape(self.code, quote=False)}</code></pre>"
        )
        return (
            '<details style="border:1px solid currentColor;border-radius:4px;'
            f'padding:0.3em 0.8em;margin:0.4em 0"><summary>{escape(self.title)}</summary>'
            f"{code if self.code else ''}<p>{prose(self.words)}</p>"
            f"{self.more._repr_html_() if self.more else ''}</details>"
        )


@dataclass(frozen=True)
class Progress:
    """The summary of one chapter: rows of (label, title, level, state)."""

    rows: tuple[tuple[str, str, str, State], ...]
    note: str = ""

    @property
    def _closing(self) -> str:
        solved = sum(state == "correct" for *_, state in self.rows)
        # The same words whether the variable is set or not: notebooks are compared with them.
        kept = (
            "This is kept in one file, ~/.minflow-progress.json (or the one that the variable "
            "MINFLOW_PROGRESS names), and nowhere else. Delete it, and all is forgotten."
        )
        return " ".join(
            filter(None, (f"{solved} of {len(self.rows)} solved.", kept, self.note))
        )

    def __repr__(self) -> str:
        width = max(len(title) for _, title, _, _ in self.rows)
        lines = [
            f"{label:>5}  {title:<{width}}  {level:<6}  {SAID[state]}"
            for label, title, level, state in self.rows
        ]
        return "\n".join([*lines, self._closing])

    def _repr_html_(self) -> str:
        heads = "".join(
            f"<th>{head}</th>" for head in ("number", "exercise", "level", "state")
        )
        rows = "".join(
            f"<tr><td>{label}</td><td>{prose(title)}</td><td>{level}</td>"
            f"<td>{SAID[state]}</td></tr>"
            for label, title, level, state in self.rows
        )
        return (
            f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
            f"<p>{prose(self._closing)}</p>"
        )


def curves(
    name: str, x: Sequence[float], want: Sequence[float], got: Sequence[float]
) -> str:
    """A small SVG: what was expected (orange, solid) against the reader's (green, dashed)."""
    width, height, left, low = 320.0, 150.0, 48.0, 128.0
    bottom, top = min(0.0, *want), max(want)
    near = [
        g for g in got if math.isfinite(g) and abs(g - bottom) < 2 * (top - bottom + 1e-9)
    ]
    bottom, top = min([bottom, *near]), max([top, *near])
    top = top if top > bottom else bottom + 1.0

    def path(ys: Sequence[float], style: str) -> str:
        steps, pen = [], "M"
        for a, b in zip(x, ys, strict=True):
            if not (math.isfinite(b) and bottom <= b <= top):
                pen = "M"
                continue
            across = left + (width - left - 8) * (a - x[0]) / (x[-1] - x[0])
            steps.append(
                f"{pen}{across:.1f},{low - (low - 10) * (b - bottom) / (top - bottom):.1f}"
            )
            pen = "L"
        return f'<path d="{"".join(steps)}" fill="none" stroke-width="2" {style}/>'

    def label(across: float, down: float, anchor: str, words: str) -> str:
        place = f'x="{across}" y="{down}" text-anchor="{anchor}"'
        return f'<text {place} font-size="11" fill="currentColor">{escape(words)}</text>'

    alt = f"Curves over {name} from {x[0]:g} to {x[-1]:g}: expected and yours differ."
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {width:g} {height:g}" '
        f'style="display:block;width:100%;max-width:{width:g}px">'
        f'<path d="M{left},10V{low}H{width - 8}" fill="none" stroke="currentColor"/>'
        + path(want, f'stroke="{ORANGE}"')
        + path(got, f'stroke="{GREEN}" stroke-dasharray="6 4"')
        + label(left - 4, 18, "end", f"{top:.3g}")
        + label(left - 4, low, "end", f"{bottom:.3g}")
        + label(left, 144, "start", f"{x[0]:g}")
        + label(width - 8, 144, "end", f"{x[-1]:g}")
        + label((left + width) / 2, 144, "middle", name)
        + "</svg><small>Solid orange: expected. Dashed green: yours.</small>"
    )
