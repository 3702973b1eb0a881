r"""Hand each display formula to MathJax as it was written, and give the numbered ones an anchor.

Sphinx wraps a formula that has line breaks in a `split` environment, where `\tag{1.2}` is an error.
Jupyter and Colab do not, so the book must not either. The formula tagged (1.2) is found at
`#equation-1-2`.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

TAG = re.compile(r"\\tag\{([\w.]+)\}")


class Equations(SphinxTransform):
    default_priority = 200  # before MyST looks for the targets of `[text](#equation-1-2)`

    def apply(self, **kwargs: Any) -> None:
        for formula in self.document.findall(nodes.math_block):
            if formula.get("nowrap") or formula.get("number"):
                continue
            source = formula.astext().strip()
            formula.clear()
            formula += nodes.Text(rf"\[{source}\]")
            formula["nowrap"] = True
            for tag in TAG.findall(source):
                self.add_anchor(formula, tag)

    def add_anchor(self, formula: nodes.math_block, tag: str) -> None:
        anchor = f"equation-{tag.replace('.', '-').lower()}"
        formula["names"].append(anchor)
        self.document.note_explicit_target(formula, formula)
        # MyST looks here when another page links to `page.ipynb#equation-1-2`.
        slugs = self.env.metadata[self.env.docname].setdefault("myst_slugs", {})
        slugs[anchor] = (formula.line, anchor, f"({tag})")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(Equations)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
