"""The Markdown pages: their examples run, and the API page leaves nothing out."""

from __future__ import annotations

import doctest
import inspect
import re

import pages
import pytest
import torch
from bs4 import BeautifulSoup

import minflow

ROOT = pages.ROOT
BOOK = ROOT / "book"
PAGES = sorted(BOOK.glob("*.md"))
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.M | re.S)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def blocks(text: str, language: str) -> list[tuple[int, str]]:
    """The fenced blocks in a language, each with the line it starts on."""
    return [
        (text.count("\n", 0, match.start(2)), match[2])
        for match in FENCE.finditer(text)
        if match[1] == language
    ]


def run(name: str, text: str) -> tuple[doctest.TestResults, str]:
    """Run a page's examples from top to bottom, in one namespace; also what was printed."""
    words: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    names: dict[str, object] = {}
    for line, block in blocks(text, "pycon"):
        test = doctest.DocTestParser().get_doctest(block, {}, name, name, line)
        test.globs = names
        runner.run(test, out=words.append, clear_globs=False)
    return doctest.TestResults(runner.failures, runner.tries), "".join(words)


def examples() -> dict[str, str]:
    """Each page that has examples; of the questions each answer by itself, after the page's start."""
    found = {}
    for page in PAGES:
        text = page.read_text("utf-8")
        start, *answers = re.split(r"^#{2,3} ", text, flags=re.M) if page.stem == "faq" else [text]
        for answer in answers or [""]:
            if ">>>" in (answer if answers else start):
                title = re.sub(r"\W+", "-", answer.partition("\n")[0])
                found[f"{page.stem} {title}".strip()] = f"{start}\n## {answer}"
    return found


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_a_page_run(name: str) -> None:
    text = EXAMPLES[name]
    torch.manual_seed(0)
    result, words = run(name, text)
    assert result.attempted == len(re.findall(r"^>>> ", text, re.M)), "one is outside a pycon block"
    assert result.failed == 0, words


def test_a_wrong_example_is_noticed() -> None:
    result, words = run("page.md", "```pycon\n>>> 1 + 1\n3\n```\n")
    assert result == doctest.TestResults(1, 1)
    assert "Expected:\n    3" in words


def test_pages_have_no_code_that_is_not_run() -> None:
    for page in PAGES:
        text = page.read_text("utf-8")
        assert not blocks(text, "python"), f"{page.name}: write it as pycon, so that it is run"
        assert not blocks(text, "py"), page.name


# For authors of exercises, not for readers: minflow/exercises/README.md describes these.
AUTHORS = {f"minflow.exercises.{name}" for name in ("Equal", "Exercise", "Measured", "Mistake")}


def documented() -> set[str]:
    """The full names that the API page documents."""
    text = (BOOK / "api.md").read_text("utf-8")
    found = set()
    for block in (match[2] for match in FENCE.finditer(text) if match[1] == "{eval-rst}"):
        module = ""
        for kind, name in re.findall(
            r"^\.\. (currentmodule|autoclass|autofunction):: (\S+)", block, re.M
        ):
            if kind == "currentmodule":
                module = name
            else:
                found.add(f"{module}.{name}")
    return found


def public() -> set[str]:
    """The full names of what the package offers: its own names and those of its side modules."""
    own = {name for name in minflow.__all__ if not inspect.ismodule(getattr(minflow, name))}
    found = {f"minflow.{name}" for name in own}
    for side in ("data", "plot", "live", "show", "testing", "exercises"):
        module = getattr(minflow, side)
        for name, thing in vars(module).items():
            ours = getattr(thing, "__module__", "").startswith(module.__name__)
            if not name.startswith("_") and ours and not inspect.ismodule(thing):
                found.add(f"minflow.{side}.{name}")
    return found


def test_the_api_page_documents_all_that_is_public() -> None:
    assert public() - documented() == AUTHORS
    for name in documented():
        module, _, attribute = name.rpartition(".")
        assert hasattr(__import__(module, fromlist=[attribute]), attribute), name


def test_the_table_of_ready_made_flows_has_their_options() -> None:
    text = (BOOK / "api.md").read_text("utf-8")
    rows = re.findall(
        r"^\| \{py:func\}`\w+\(dim, …\) <minflow\.(\w+)>` \| ([^|]*) \| (\d) ", text, re.M
    )
    flows = {name for name in vars(minflow.recipes) if name in minflow.__all__} & {
        name for name in minflow.__all__ if inspect.isfunction(getattr(minflow, name))
    }
    assert {name for name, _, _ in rows} == flows
    common = {"context_dim": "0", "hidden": "(64, 64)"}
    for name, options, smallest in rows:
        make = getattr(minflow, name)
        said = dict(re.findall(r"`(\w+)=([^`]*)`", options)) | common
        parameters = list(inspect.signature(make).parameters.values())
        assert said == {p.name: repr(p.default).replace("'", '"') for p in parameters[1:]}, name
        assert make(int(smallest)).transform.dim == int(smallest)
        with pytest.raises(ValueError, match="dim"):
            make(int(smallest) - 1)


CITED = re.compile(r"(?:arXiv:|arxiv\.org/(?:abs|pdf)/)(\d{4}\.\d{4,5})|\b(10\.\d{4,}/[\w./-]+\w)")


def cited(text: str) -> set[str]:
    """The arXiv numbers and DOIs in a text.

    >>> sorted(cited("arXiv:1912.02762, https://doi.org/10.1002/cpa.21423."))
    ['10.1002/cpa.21423', '1912.02762']
    """
    return {number or doi for number, doi in CITED.findall(text)}


def test_every_paper_cited_anywhere_is_among_the_references() -> None:
    listed = cited((BOOK / "references.md").read_text("utf-8"))
    assert len(listed) > 20
    texts = {path: path.read_text("utf-8") for path in (*PAGES, *ROOT.glob("minflow/**/*.py"))}
    for path in pages.notebooks():
        texts[path] = "\n".join(cell.source for cell in pages.read(path).cells)
    missing = {str(path): cited(text) - listed for path, text in texts.items()}
    assert not {name: papers for name, papers in missing.items() if papers}


def test_no_markup_is_left_over_on_the_api_page() -> None:
    """Docstrings are plain text; what reStructuredText makes of them must still read well."""
    soup = BeautifulSoup((pages.HTML / "book" / "api.html").read_text("utf-8"), "html.parser")
    article = soup.select_one("article")
    assert not article.select(".system-message, .problematic")
    formula = [pre for pre in article.select("pre") if "x = c(t)" in pre.get_text()]
    assert formula, "an indented formula keeps its lines"
    for code in article.select("pre, code"):
        code.decompose()
    words = article.get_text()
    assert "Cost:" in words
    assert "Source:" in words
    for leftover in ("`", "**", "::", ":param", ":class:", " -- ", "\\|"):
        assert leftover not in words, words[words.index(leftover) - 60 :][:120]
