"""Every link of the built book leads somewhere.

Links inside the book are checked on each run: the pages by LinkChecker, the places on them here,
since LinkChecker reads a page anew for each. Links to other places are checked once a week
(`pytest -m outside`), since a stranger's server is no fault of a change.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pages
import pytest
from bs4 import BeautifulSoup

SETTINGS = """
[checking]
maxrequestspersecond=1000
[output]
warnings=1
"""


def check_links(folder: Path, place: Path, *options: str) -> tuple[int, str]:
    """LinkChecker's exit status, 1 if a link is broken, and what it printed."""
    settings = place / "linkcheckerrc"
    settings.write_text(SETTINGS, "utf-8")
    program = Path(sys.executable).with_name("linkchecker")
    with pages.served(folder) as address:
        command = [program, "--config", settings, "--no-status", *options, address + "/index.html"]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def lost_places(folder: Path) -> list[str]:
    """The links to a page of the folder on which the place that they name is not."""
    read = {
        path: BeautifulSoup(path.read_bytes(), "html.parser") for path in folder.rglob("*.html")
    }
    places = {
        path: {tag.get(key) for key in ("id", "name") for tag in soup.select(f"[{key}]")}
        for path, soup in read.items()
    }
    lost = []
    for path, soup in read.items():
        for tag in soup.select("a[href]"):
            page, place = map(unquote, urldefrag(str(tag["href"])))
            target = (path.parent / page).resolve() if page else path
            if place and target in places and place not in places[target]:
                lost.append(str(tag["href"]))
    return lost


def test_places_inside_the_book() -> None:
    assert lost_places(pages.HTML.resolve()) == []


def test_links_inside_the_book(tmp_path: Path) -> None:
    status, printed = check_links(pages.HTML, tmp_path)
    assert status == 0, printed
    # It found the pages: each one of the table of contents, and more.
    assert int(re.search(r"(\d+) links in", printed)[1]) > len(pages.toc()), printed


@pytest.mark.outside
def test_links_to_other_places(tmp_path: Path) -> None:
    """The repository's own address leads nowhere as long as it is the placeholder."""
    ours = re.escape(pages.address())
    homeless = "/-" in pages.address()
    options = ["--check-extern"] + (["--ignore-url", ours] if homeless else [])
    status, printed = check_links(pages.HTML, tmp_path, *options)
    assert status == 0, printed


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    """One to another place is not: it is not asked here."""
    good = ["two.html#here", "two.html", "#top", "#caf%C3%A9", "https://example.invalid/"]
    bad, lost = ["missing.html"], ["two.html#gone", "./two.html#top", "#lost"]
    book = tmp_path / "book"
    book.mkdir()
    (book / "two.html").write_text('<p id="here">Two</p>', "utf-8")

    def check(links: list[str]) -> tuple[int, str]:
        anchors = "".join(f'<a href="{link}">to</a>' for link in links)
        head = '<h1 id="top">One</h1><a name="caf\u00e9"></a>'
        (book / "index.html").write_text(head + anchors, "utf-8")
        return check_links(book, tmp_path)

    status, printed = check(good)
    assert status == 0, printed
    assert lost_places(book) == []
    status, printed = check(good + bad + lost)
    assert status == 1, printed
    broken = re.findall(r"^URL +`(.*)'$", printed, re.M)
    assert sorted(broken) == sorted(bad), printed
    assert lost_places(book) == lost
