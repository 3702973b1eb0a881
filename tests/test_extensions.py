"""The local Sphinx extensions, held against a small book that is built with the real settings."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "book" / "_ext"))

from book_address import from_environment, pages_address  # noqa: E402

PAGE = r"""# A page

> **Note.** A box with $x^2$.

> **Exercise 1.1 (easy).** Find *one*.
>
> - a list

> **Theorem 2.3 (in $\mathbb{R}^D$).**
>
> It holds.

> A quotation without a title.

> **Bold** words that begin a quotation.

See [the exercise](#exercise-1-1), [the formula](#equation-1-2) and
[the other page](other.md#exercise-2-1).

$$
\begin{aligned} a &= b \\ &= c \end{aligned} \tag{1.2}
$$

<details><summary>Fold</summary>

Inside, $y$.

</details>
"""
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5Erk"
    "Jggg=="
)


class Book(NamedTuple):
    status: int
    warnings: list[str]
    page: BeautifulSoup
    other: BeautifulSoup


def picture_cell(name: str, metadata: dict) -> dict:
    data = {"image/png": PICTURE, "text/plain": "<Figure>"}
    output = {"output_type": "display_data", "data": data, "metadata": {}}
    return {
        "cell_type": "code", "id": name, "execution_count": 1, "source": f"{name}()",
        "metadata": metadata, "outputs": [output],
    }  # fmt: skip


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    """A notebook and a Markdown page, built by the command that `make book` uses."""
    root = tmp_path_factory.mktemp("book")
    shutil.copy(ROOT / "_config.yml", root)
    for folder in ("_ext", "_static", "_templates"):
        shutil.copytree(ROOT / "book" / folder, root / "book" / folder)
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/page\nchapters:\n- file: book/other\n", encoding="utf-8"
    )
    markdown = {"cell_type": "markdown", "id": "text", "metadata": {}, "source": PAGE}
    described = {"mystnb": {"image": {"alt": "one point"}}}
    notebook = {
        "nbformat": 4, "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "minflow": {"digest": "", "seconds": 12.3},
        },
        "cells": [markdown, picture_cell("with", described), picture_cell("without", {})],
    }  # fmt: skip
    (root / "book" / "page.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (root / "book" / "other.md").write_text(
        "# Other\n\n> **Exercise 2.1 (hard).** Back to [it](page.ipynb#exercise-1-1)\n"
        "> and [it](page.ipynb#equation-1-2).\n",
        encoding="utf-8",
    )
    tag = {
        "GITHUB_REPOSITORY": "Reader/fork",
        "GITHUB_REF_TYPE": "tag",
        "GITHUB_REF_NAME": "v9.8.7",
    }
    build = subprocess.run(
        [Path(sys.executable).with_name("jupyter-book"), "build", ".", "-W", "-n", "--keep-going"],
        cwd=root,
        env=os.environ | tag | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    pages = root / "_build" / "html" / "book"
    soups = [
        BeautifulSoup((pages / f"{n}.html").read_text(), "html.parser") for n in ("page", "other")
    ]
    warnings = [line for line in build.stderr.splitlines() if "WARNING" in line or "ERROR" in line]
    return Book(build.returncode, warnings, *soups)


def box(soup: BeautifulSoup, kind: str):
    boxes = soup.select(f"div.admonition.{kind}")
    assert len(boxes) == 1, f"{len(boxes)} boxes of kind {kind}"
    return boxes[0]


def title(soup: BeautifulSoup, kind: str) -> str:
    return box(soup, kind).select_one("p.admonition-title").get_text()


def test_a_quotation_with_a_bold_title_becomes_a_box(book: Book) -> None:
    assert title(book.page, "note") == "Note"
    assert "A box with" in box(book.page, "note").get_text()
    assert box(book.page, "note").select("span.math")
    assert title(book.page, "exercise") == "Exercise 1.1 (easy)"
    assert box(book.page, "exercise").select_one("li").get_text(strip=True) == "a list"


def test_the_title_is_not_repeated_in_the_box(book: Book) -> None:
    paragraphs = [p.get_text() for p in box(book.page, "exercise").select("p")]
    assert paragraphs[:2] == ["Exercise 1.1 (easy)", "Find one."]


def test_a_title_keeps_its_formula_and_needs_no_text_beside_it(book: Book) -> None:
    assert box(book.page, "theorem").select_one("p.admonition-title span.math")
    assert [p.get_text() for p in box(book.page, "theorem").select("p")[1:]] == ["It holds."]


def test_other_quotations_stay_quotations(book: Book) -> None:
    quotations = [q.get_text(strip=True) for q in book.page.select("blockquote")]
    assert quotations == ["A quotation without a title.", "Boldwords that begin a quotation."]


def test_numbered_boxes_and_formulas_have_anchors(book: Book) -> None:
    assert box(book.page, "exercise")["id"] == "exercise-1-1"
    assert box(book.page, "theorem")["id"] == "theorem-2-3"
    assert book.page.select_one("div.math")["id"] == "equation-1-2"


def test_anchors_are_linked_from_the_page_and_from_others(book: Book) -> None:
    links = {a["href"] for a in book.page.select("article a[href]")}
    assert {"#exercise-1-1", "#equation-1-2", "other.html#exercise-2-1"} <= links
    back = {a["href"] for a in book.other.select("article a[href]")}
    assert {"page.html#exercise-1-1", "page.html#equation-1-2"} <= back


def test_a_formula_reaches_mathjax_as_it_was_written(book: Book) -> None:
    formula = book.page.select_one("div.math").get_text().strip()
    assert formula == r"\[\begin{aligned} a &= b \\ &= c \end{aligned} \tag{1.2}\]"


def test_a_picture_without_alternative_text_fails_the_build(book: Book) -> None:
    assert book.status != 0
    assert len(book.warnings) == 1, book.warnings
    assert "picture without an alternative text" in book.warnings[0]
    assert book.page.select_one(".cell_output img")["alt"] == "one point"


def test_no_page_carries_the_scripts_of_thebe(book: Book) -> None:
    for soup in (book.page, book.other):
        assert soup.select("script"), "no scripts at all: the check would see nothing"
        assert not [s for s in soup.select("script") if "thebe" in str(s).lower()]


def test_links_lead_to_the_building_repository_and_tag(book: Book) -> None:
    links = {a["href"] for a in book.page.select("a[href]")}
    colab = "https://colab.research.google.com"
    assert f"{colab}/github/Reader/fork/blob/v9.8.7/book/page.ipynb" in links
    assert "https://github.com/Reader/fork" in links
    assert not [link for link in links if "-minflow" in link]
    canonical = book.page.select_one('link[rel="canonical"]')["href"]
    assert canonical == "https://reader.github.io/fork/book/page.html"


def test_every_page_has_a_link_to_report_an_error(book: Book) -> None:
    for name, soup in (("page", book.page), ("other", book.other)):
        link = soup.find("a", string=re.compile("Report an error"))
        assert link["href"].startswith("https://github.com/Reader/fork/issues/new?title=")
        assert link["href"].endswith(name)


def test_a_chapter_says_how_long_its_code_ran(book: Book) -> None:
    assert "ran in 12 s" in book.page.select_one(".page-end").get_text()
    assert "ran in" not in book.other.select_one(".page-end").get_text()


def test_a_pull_request_is_no_branch() -> None:
    pull = {"GITHUB_REPOSITORY": "a/b", "GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "12/merge"}
    assert from_environment(pull) == {"repository_url": "https://github.com/a/b"}
    assert from_environment({}) == {}


def test_pages_of_an_account_have_no_folder() -> None:
    assert pages_address("https://github.com/You/book") == "https://you.github.io/book/"
    assert pages_address("https://github.com/you/you.github.io") == "https://you.github.io/"
