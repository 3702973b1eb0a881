"""Turn quotations with a bold title into boxes.

A chapter is read in the book, in Colab, in Jupyter and on GitHub. A quotation that begins with
`**Note.**` or `**Exercise 1.1 (easy).**` reads well in all of them; a MyST directive does in the
book alone. Here such a quotation becomes a box with that title. A numbered box has an anchor:
Exercise 1.1 is found at `#exercise-1-1`, from the same page and from others.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

KINDS = (
    "note", "tip", "warning", "exercise", "definition", "theorem", "proposition", "lemma",
    "corollary", "proof", "example",
)  # fmt: skip
TITLE = re.compile(rf"({'|'.join(KINDS)})\b(?:\s+(\d+(?:\.\d+)*))?", re.IGNORECASE)


class Boxes(SphinxTransform):
    default_priority = 200  # before MyST looks for the targets of `[text](#exercise-1-1)`

    def apply(self, **kwargs: Any) -> None:
        for quote in list(self.document.findall(nodes.block_quote)):
            if (bold := bold_start(quote)) and (match := TITLE.match(bold.astext())):
                kind, number = match.group(1).lower(), match.group(2)
                box = make_box(quote, bold, kind)
                if number:
                    self.add_anchor(box, f"{kind}-{number.replace('.', '-')}")
                quote.replace_self(box)

    def add_anchor(self, box: nodes.Element, anchor: str) -> None:
        box["names"].append(anchor)
        self.document.note_explicit_target(box, box)
        # MyST looks here when another page links to `page.ipynb#exercise-1-1`.
        slugs = self.env.metadata[self.env.docname].setdefault("myst_slugs", {})
        slugs[anchor] = (box.line, anchor, box[0].astext())


def bold_start(quote: nodes.block_quote) -> nodes.strong | None:
    """The bold words that a quotation begins with."""
    if len(quote) and isinstance(quote[0], nodes.paragraph):
        for child in quote[0].children:
            if isinstance(child, nodes.strong):
                return child
            if child.astext().strip():  # MyST may put an empty text in front
                return None
    return None


def make_box(quote: nodes.block_quote, bold: nodes.strong, kind: str) -> nodes.admonition:
    paragraph = bold.parent
    title = nodes.title("", "", *bold.children)
    for last in title.children[::-1]:
        if last.astext():  # MyST may put an empty text behind
            if isinstance(last, nodes.Text):
                title.replace(last, nodes.Text(last.astext().rstrip(" .:")))
            break
    del paragraph[: paragraph.index(bold) + 1]
    if paragraph.children and isinstance(paragraph[0], nodes.Text):
        paragraph[0] = nodes.Text(paragraph[0].astext().lstrip())
    if not paragraph.children or not paragraph.astext().strip():
        quote.remove(paragraph)
    box = nodes.admonition("", title, *quote.children, classes=[kind])
    box.source, box.line = quote.source, quote.line
    return box


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(Boxes)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
