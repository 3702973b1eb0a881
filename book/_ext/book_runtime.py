"""Say at the end of a chapter how long its code ran, as `make notebooks` measured it."""

from __future__ import annotations

import json
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def add_runtime(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document
) -> None:
    ours = json.loads((context.get("meta") or {}).get("minflow", "{}"))
    context["seconds"] = ours.get("seconds")  # shown by book/_templates/page_end.html


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", add_runtime)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
