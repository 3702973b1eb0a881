"""Things to read in a notebook: the findings of a check, and the library's own source."""

from __future__ import annotations

import html
import inspect
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """The source of a class or a function, coloured where the front end can; see `source`."""

    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.text}```"


def source(thing: type | Callable[..., object]) -> Source:
    """The source of a class or a function as it is installed, to be shown as a cell's output.

    >>> import minflow
    >>> source(minflow.LeakyReLU.forward)
        def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
            log_slope = torch.where(z < 0, soft_bound(params[0], self.bound), 0.0)
            return z * log_slope.exp(), log_slope
    """
    return Source(inspect.getsource(thing))


@dataclass(frozen=True)
class Finding:
    """One check: what it looked at, whether all was well, and if not, what was wrong in words."""

    check: str
    ok: bool
    words: str = ""

    def __str__(self) -> str:
        return f"{'ok   ' if self.ok else 'WRONG'}  {self.check}" + (
            f": {self.words}" if self.words else ""
        )


class Findings(list[Finding]):
    """A list of findings; `ok` says whether all is well."""

    @property
    def ok(self) -> bool:
        """True if no finding is wrong."""
        return all(finding.ok for finding in self)

    @property
    def wrong(self) -> Findings:
        """Those that are wrong."""
        return Findings(finding for finding in self if not finding.ok)

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or "nothing found"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td style='white-space:nowrap'>{'✓ ok' if f.ok else '✗ wrong'}</td><td style='text-align:left'>"
            f"{html.escape(f.check)}</td><td style='text-align:left'>{html.escape(f.words)}</td></tr>"
            for f in self
        )
        return f"<table><thead><tr><th>result</th><th>check</th><th>finding</th></tr></thead>{rows}</table>"
