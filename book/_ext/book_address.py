"""Point every link of the theme at the repository that builds the book.

_config.yml names an address and a version tag. On GitHub the repository and the tag are known
better than that, so a fork's book links to the fork. Only a *tag* is taken over: in a pull request
the name of the ref ("12/merge") is no branch, and a link to it would lead nowhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from sphinx.application import Sphinx
from sphinx.config import Config


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the environment knows of the theme options `repository_url` and `repository_branch`."""
    options = {}
    if repository := environ.get("GITHUB_REPOSITORY"):
        server = environ.get("GITHUB_SERVER_URL", "https://github.com")
        options["repository_url"] = f"{server}/{repository}"
    if environ.get("GITHUB_REF_TYPE") == "tag":
        options["repository_branch"] = environ["GITHUB_REF_NAME"]
    return options


def pages_address(repository_url: str) -> str:
    """Where GitHub Pages shows a repository.

    >>> pages_address("https://github.com/You/book")
    'https://you.github.io/book/'
    >>> pages_address("https://github.com/you/you.github.io")
    'https://you.github.io/'
    """
    owner, name = urlsplit(repository_url).path.strip("/").split("/")
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def set_address(app: Sphinx, config: Config) -> None:
    config.html_theme_options.update(from_environment(os.environ))
    address = pages_address(config.html_theme_options["repository_url"])
    config.html_baseurl = address
    config.ogp_site_url = address


def setup(app: Sphinx) -> dict[str, Any]:
    # 400: before the theme and the extensions read the options (500).
    app.connect("config-inited", set_address, priority=400)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
