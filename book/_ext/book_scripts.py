"""Take sphinx-thebe off every page.

Jupyter Book loads sphinx-thebe even with `thebe: false`. It then declares the same constants twice,
which is an error on every page, and names another host, which this book never calls.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config


def drop_thebe(app: Sphinx, config: Config) -> None:
    for listeners in app.events.listeners.values():
        for listener in list(listeners):
            if listener.handler.__module__.startswith("sphinx_thebe"):
                app.disconnect(listener.id)
    app.registry.css_files[:] = [css for css in app.registry.css_files if "thebe" not in css[0]]


def setup(app: Sphinx) -> dict[str, Any]:
    # By now every extension is loaded and none has been called.
    app.connect("config-inited", drop_thebe)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
