"""Show the library's docstrings as they read in an editor.

They are plain text: an indented block is a formula or code, and a paragraph may begin with `Cost:`
or `Source:`. In reStructuredText an indented block is a quotation, its line breaks are lost, and
`|x|` and `(*batch, D)` mean something else. Here the block becomes a literal one, the two words
become bold, and the rest stands as it was written. (Single backticks are code by `default_role` in
_config.yml.)
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

LABEL = re.compile(r"^(\s*)(Cost|Source): ")
MARKS = re.compile(r"[|*]|(?<=\b\w)\.(?=\s|$)")  # a line that is "D." alone would be a list
CODE = re.compile(r"(`+[^`]+`+)")


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def as_written(lines: list[str]) -> list[str]:
    """The lines with indented blocks marked as literal.

    >>> as_written(["It maps:", "", "    x = f(z)", "", "Cost: |D| steps."])
    ['It maps:', '', '.. code-block:: text', '', '    x = f(z)', '', '**Cost:** \\\\|D\\\\| steps.']
    """
    result: list[str] = []
    last, block = "", None  # the last line with words, and the indentation around a literal block
    example = False
    for i, line in enumerate(lines):
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if line.strip():
            if block is not None and indent(line) <= block:
                block = None
            opens = block is None and i > 0 and not lines[i - 1].strip() and last
            if opens and indent(line) > indent(last) and not last.lstrip().startswith(".."):
                block = indent(last)
                result += [" " * block + ".. code-block:: text", ""]
            last = line
        result.append(line if example or block is not None else worded(line))
    return result


def worded(line: str) -> str:
    """A line of prose, safe from reStructuredText: |x| is no substitution, *batch no emphasis."""
    parts = CODE.split(line)
    safe = "".join(p if p.startswith("`") else MARKS.sub(r"\\\g<0>", p) for p in parts)
    return LABEL.sub(r"\1**\2:** ", safe)


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_written(lines)


def put_dashes(app: Sphinx, doctree: nodes.document) -> None:
    """Sphinx writes two hyphens between a parameter and its words."""
    for text in list(doctree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon's 500
    app.connect("doctree-read", put_dashes)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
