"""Warn of each picture without an alternative text (and a warning fails the build).

Without one, the HTML carries the picture's hashed file name instead, which no checker of pages
notices and which tells nothing to somebody who listens to the page.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)
BARE_IMG = re.compile(r"<img\b(?![^>]*\balt\s*=\s*[\"']\s*[^\"'\s])[^>]*>", re.IGNORECASE)
ADVICE = (
    'picture without an alternative text; a cell\'s metadata takes {"mystnb": {"image": '
    '{"alt": "what it shows"}}}, Markdown takes ![what it shows](file)'
)


def check_pictures(app: Sphinx, doctree: nodes.document) -> None:
    for node in doctree.findall(nodes.image):
        if not node.get("alt", "").strip():
            logger.warning(ADVICE, location=node, type="book", subtype="alt")
    for node in doctree.findall(nodes.raw):
        if "html" in node.get("format", "") and BARE_IMG.search(node.astext()):
            logger.warning(ADVICE, location=node, type="book", subtype="alt")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", check_pictures)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
