"""The notebooks: what each one must be, and each one run alone, from an empty folder.

(That they are tidy, and that their outputs belong to their code, is in test_project.py.)

A rule takes a notebook and returns what is wrong with it, in words. Below, each rule meets a small
notebook that keeps it, and one that breaks it.
"""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pages
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

LARGEST = 1_500_000  # bytes
WIDEST = 65  # characters of a line of code: more scrolls on a phone
SECTIONS = ["What you will learn", "Exercises", "Summary", "Quiz", "Further reading"]


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: NotebookNode) -> str:
    return "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


def without_code(text: str) -> str:
    """Markdown in which fenced code is gone and inline code is the character \\0."""
    text = re.sub(r"^ *(`{3,}|~{3,})(?!\{).*?^ *\1 *$", "", text, flags=re.M | re.S)
    return re.sub(r"(?<!`)(`{1,2})(?!`)(?:(?!\n\n).)+?(?<!`)\1(?!`)", "\0", text, flags=re.S)


def has_picture(cell: NotebookNode) -> bool:
    return any(kind.startswith("image/") for out in cell.outputs for kind in out.get("data", {}))


# --- The rules for every notebook ---------------------------------------------------------------


def executed(notebook: NotebookNode) -> Iterator[str]:
    """Every code cell was run, from top to bottom, in one fresh kernel."""
    counts = [cell.execution_count for cell in code(notebook)]
    if not counts:
        yield "no code cell"
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}"


def no_errors(notebook: NotebookNode) -> Iterator[str]:
    """No cell shows an error or writes to stderr."""
    for cell in code(notebook):
        for out in cell.outputs:
            if out.output_type == "error":
                yield f"{out.ename}: {out.evalue}"
            if out.get("name") == "stderr":
                yield f"stderr: {out.text[:80]}"


def plain_markdown(notebook: NotebookNode) -> Iterator[str]:
    """Colab, Jupyter and GitHub show no MyST: such text belongs in the pages in Markdown."""
    text = without_code(prose(notebook))
    for what, pattern in {
        "a directive": r"^ *(`{3,}|~{3,}|:{3,})\s*\{",
        "a colon fence": r"^ *:{3,}",
        "a role": r"\{[A-Za-z][\w:+.-]*\}\0",
        "a labelled equation": r"\$\$ *\([\w:.-]+\) *$",
        "a target": r"^\([\w:.-]+\)= *$",
        "a block break": r"^\+\+\+",
        "a MyST comment": r"^%",
        "a footnote or citation": r"\[\^?@?[\w-]+\]\{|\{cite|\[@\w|\[\^[\w-]+\]",
    }.items():
        for match in re.finditer(pattern, text, re.M):
            yield f"{what}: {match[0].strip()!r}"


def folds(notebook: NotebookNode) -> Iterator[str]:
    """A fold has blank lines around its content, else its Markdown is not rendered."""
    text = without_code(prose(notebook))
    for tag, count in Counter(re.findall(r"</?(?:details|summary)>", text)).items():
        if count != text.count(tag.replace("</", "<") if "/" in tag else tag.replace("<", "</")):
            yield f"{tag} without its partner"
    for match in re.finditer(r"</summary>(?!\n\n)|(?<!\n\n)</details>", text):
        yield f"{match[0]} without a blank line"


def equations(notebook: NotebookNode) -> Iterator[str]:
    """Each number of an equation is given once, and to a display equation that is closed."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and without_code(cell.source).count("$$") % 2:
            yield f"$$ without its partner in {cell.source[:60]!r}"
    text = without_code(prose(notebook))
    for tag, count in Counter(re.findall(r"\\tag\{(.*?)\}", text)).items():
        if count > 1:
            yield f"equation {tag} stands {count} times"
    for block in re.sub(r"\$\$.*?\$\$", "", text, flags=re.S).splitlines():
        if r"\tag{" in block:
            yield f"a tag outside of $$: {block.strip()!r}"


def alternative_texts(notebook: NotebookNode) -> Iterator[str]:
    """Every picture says in words what it shows."""
    seen: list[str] = []
    for cell in filter(has_picture, code(notebook)):
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip()
        if len(alt) < 20:
            yield f"the picture of cell {cell.execution_count} has the alternative text {alt!r}"
        if alt in seen:
            yield f"two pictures share the alternative text {alt!r}"
        seen.append(alt)
        if sum(any(k.startswith("image/") for k in o.get("data", {})) for o in cell.outputs) > 1:
            yield f"cell {cell.execution_count} has several pictures and one alternative text"
    for match in re.finditer(r"!\[(.*?)\]\([^)]*\)", without_code(prose(notebook))):
        if len(match[1]) < 20:
            yield f"the picture {match[0]} has too short an alternative text"


def size(notebook: NotebookNode) -> Iterator[str]:
    """A notebook loads quickly."""
    bytes_ = len(nbformat.writes(notebook).encode())
    if bytes_ >= LARGEST:
        yield f"{bytes_} bytes"


def narrow_code(notebook: NotebookNode) -> Iterator[str]:
    """A line of code fits a phone. The set-up cell is not on the page."""
    for cell in code(notebook):
        if cell.source != pages.setup_cell():
            for line in cell.source.splitlines():
                if len(line) > WIDEST:
                    yield f"{len(line)} characters: {line}"


def set_up(notebook: NotebookNode) -> Iterator[str]:
    """The first code cell is the set-up cell, word for word."""
    cells = code(notebook)
    if not cells or cells[0].source != pages.setup_cell():
        yield f"the first code cell is not\n{pages.setup_cell()}"
    elif sorted(cells[0].metadata.get("tags", [])) != ["nbval-ignore-output", "remove-cell"]:
        yield f"its tags are {cells[0].metadata.get('tags')}"
    elif cells[0].outputs:
        yield "it has an output"
    if sum("google.colab" in cell.source for cell in cells) > 1:
        yield "another cell asks for Colab"


def kernel(notebook: NotebookNode) -> Iterator[str]:
    """It opens in any Python kernel."""
    if (name := notebook.metadata.get("kernelspec", {}).get("name")) != "python3":
        yield f"the kernel is {name}"


# --- The rules for chapters ---------------------------------------------------------------------


def anatomy(notebook: NotebookNode) -> Iterator[str]:
    """A chapter has one title, and its fixed sections in their order."""
    text = without_code(prose(notebook))
    titles = re.findall(r"^# (.+)$", text, re.M)
    if len(titles) != 1 or not notebook.cells[0].source.startswith("# "):
        yield f"titles: {titles}"
    sections = [s.strip() for s in re.findall(r"^## (.+)$", text, re.M)]
    found = [name for name in sections if name in SECTIONS]
    if found != SECTIONS:
        yield f"of the sections {SECTIONS} it has {found}, among {sections}"


def exercises(notebook: NotebookNode) -> Iterator[str]:
    """At least eight exercises, numbered without a gap, of more than one difficulty."""
    found = pages.EXERCISE.findall(prose(notebook))
    if len(found) < 8:
        yield f"{len(found)} exercises"
    if len({chapter for chapter, _, _ in found}) > 1:
        yield "exercises of several chapters"
    if [int(n) for _, n, _ in found] != list(range(1, len(found) + 1)):
        yield f"their numbers are {[n for _, n, _ in found]}"
    if {level for _, _, level in found} != {"easy", "medium", "hard"}:
        yield f"their levels are {sorted({level for _, _, level in found})}"
    # A box begins a quotation; anything else that looks like an exercise was written wrongly.
    if (lines := len(re.findall(r"\*\*Exercise \d", prose(notebook)))) != len(found):
        yield f"{lines} titles of exercises, {len(found)} written as they should be"


def proves_something(notebook: NotebookNode) -> Iterator[str]:
    """A chapter checks what it says: asserted, or compared with a fresh run by nbval."""
    asserts = sum("assert" in cell.source for cell in code(notebook))
    compared = [c for c in code(notebook) if "nbval-check-output" in c.metadata.get("tags", [])]
    if not asserts:
        yield "no cell asserts anything"
    if not compared:
        yield "no cell has the tag nbval-check-output"
    for cell in compared:
        if not cell.outputs:
            yield f"cell {cell.execution_count} is compared and has no output"


Rule = Callable[[NotebookNode], Iterator[str]]
EVERYWHERE: list[Rule] = [
    executed, no_errors, plain_markdown, folds, equations, alternative_texts, size, narrow_code,
    set_up, kernel,
]  # fmt: skip
IN_CHAPTERS: list[Rule] = [anatomy, exercises, proves_something]
CASES = [(rule, path) for rule in EVERYWHERE for path in pages.notebooks()]
CASES += [(rule, path) for rule in IN_CHAPTERS for path in pages.chapters()]


@pytest.mark.parametrize(
    ("rule", "path"), CASES, ids=[f"{rule.__name__}-{path.stem}" for rule, path in CASES]
)
def test_rule(rule: Rule, path: Path) -> None:
    found = list(rule(pages.read(path)))
    assert not found, "\n".join(found)


def test_the_book_has_its_notebooks() -> None:
    """A notebook that the table of contents forgot is in no book."""
    listed = {pages.ROOT / f"{page}.ipynb" for page in pages.toc()}
    assert set(pages.notebooks()) == {path for path in listed if path.exists()}
    assert pages.chapters()


def test_the_book_numbers_an_equation_once() -> None:
    tags = Counter(
        tag
        for path in pages.notebooks()
        for tag in re.findall(r"\\tag\{(.*?)\}", without_code(prose(pages.read(path))))
    )
    assert [tag for tag, count in tags.items() if count > 1] == []


def test_chapters_number_their_equations_and_exercises_in_the_books_order() -> None:
    """Chapter 2's equation is (2.x) and its exercise 2.x."""
    order = [pages.ROOT / f"{page}.ipynb" for page in pages.toc()]
    for number, path in enumerate([p for p in order if p in pages.chapters()], start=1):
        text = without_code(prose(pages.read(path)))
        assert {tag.split(".")[0] for tag in re.findall(r"\\tag\{(.*?)\}", text)} == {str(number)}
        assert {match[1] for match in pages.EXERCISE.finditer(text)} == {str(number)}


# --- Each rule can fail -------------------------------------------------------------------------

FOLD = "<details><summary>Answer</summary>\n\n$a$\n\n</details>"


def good() -> NotebookNode:
    """A small chapter that keeps every rule."""
    picture = new_output("display_data", data={"image/png": "aGk="})
    said = new_output("stream", name="stdout", text="1\n")
    levels = ["easy", "medium", "hard", "easy", "easy", "medium", "medium", "hard"]
    boxes = [f"> **Exercise 1.{i} ({level}).** Do." for i, level in enumerate(levels, 1)]
    cells = [
        new_markdown_cell("# A title\n\n## What you will learn\n\nUse `{eq}` and `$$` with care."),
        new_code_cell(
            pages.setup_cell(), metadata={"tags": ["remove-cell", "nbval-ignore-output"]}
        ),
        new_markdown_cell("$$\na = \\frac{b}{c} \\tag{1.1}\n$$\n\n```text\n:::{note}\n```"),
        new_code_cell(
            "plot()",
            metadata={"mystnb": {"image": {"alt": "A curve that falls from left to right."}}},
            outputs=[picture],
        ),
        new_code_cell("plot(2)", outputs=[picture]),
        new_code_cell("assert x\nprint(1)", metadata={"tags": ["nbval-check-output"]}),
        new_markdown_cell("## Exercises\n\n" + "\n\n".join(boxes) + "\n\n" + FOLD),
        new_markdown_cell("## Summary\n\n## Quiz\n\n## Further reading"),
    ]
    cells[4].metadata = NotebookNode(mystnb={"image": {"alt": "A curve that rises, then falls."}})
    cells[5].outputs = [said]
    for count, cell in enumerate([c for c in cells if c.cell_type == "code"], start=1):
        cell.execution_count = count
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": spec})


def says(extra: str) -> Callable[[NotebookNode], None]:
    """A notebook that says this too."""
    return lambda n: n.cells.append(new_markdown_cell(extra))


def runs(source: str, *outputs: NotebookNode, **metadata: object) -> Callable[[NotebookNode], None]:
    """A notebook that has this cell too."""
    return lambda n: n.cells.append(
        new_code_cell(source, execution_count=5, outputs=list(outputs), metadata=metadata)
    )


def puts(old: str, new: str) -> Callable[[NotebookNode], None]:
    """A notebook in which one thing is said otherwise."""

    def put(notebook: NotebookNode) -> None:
        before = [cell.source for cell in notebook.cells]
        for cell in notebook.cells:
            cell.source = cell.source.replace(old, new)
        assert before != [cell.source for cell in notebook.cells]

    return put


PNG = new_output("display_data", data={"image/png": "aGk="})
BREAKS: list[tuple[Rule, Callable[[NotebookNode], object]]] = [
    (executed, lambda n: n.cells[3].update(execution_count=None)),
    (executed, lambda n: n.cells[3].update(execution_count=7)),
    (executed, lambda n: n.update(cells=n.cells[:1])),
    (no_errors, runs("f()", new_output("error", ename="E", evalue="", traceback=[]))),
    (no_errors, runs("f()", new_output("stream", name="stderr", text="Warning"))),
    (plain_markdown, says("```{note}\nText\n```")),
    (plain_markdown, says(":::{note}\nText\n:::")),
    (plain_markdown, says(":::\nText\n:::")),
    (plain_markdown, says("As {eq}`one` says")),
    (plain_markdown, says("As {cite:p}`one` says")),
    (plain_markdown, says("$$ a = b $$ (one)")),
    (plain_markdown, says("$$\na = b\n$$ (one)")),
    (plain_markdown, says("(here)=\n## Title")),
    (plain_markdown, says("Said before.[^1]\n\n[^1]: There.")),
    (plain_markdown, says("% not shown")),
    (plain_markdown, says("+++")),
    (folds, says("<details><summary>Answer</summary>\n$a$\n\n</details>")),
    (folds, says("<details><summary>Answer</summary>\n\n$a$\n</details>")),
    (folds, says("<details><summary>Answer</summary>\n\n$a$")),
    (folds, says("<details><summary>Answer\n\n$a$\n\n</details>")),
    (equations, says("$$b \\tag{1.1}$$")),
    (equations, says("$$b")),
    (equations, says("\\begin{align} b \\tag{1.2} \\end{align}")),
    (alternative_texts, runs("f()", PNG)),
    (alternative_texts, runs("f()", PNG, mystnb={"image": {"alt": "A picture"}})),
    (alternative_texts, lambda n: n.cells[3].update(metadata=n.cells[4].metadata)),
    (alternative_texts, lambda n: n.cells[3].outputs.append(PNG)),
    (alternative_texts, says("![](picture.png)")),
    (size, runs("f()", new_output("stream", name="stdout", text="a" * LARGEST))),
    (narrow_code, runs("# " + "a" * (WIDEST - 1))),
    (set_up, lambda n: n.cells.pop(1)),
    (set_up, puts("Elsewhere: nothing.", "Else nothing.")),
    (set_up, puts(pages.version(), "0.0.0")),
    (set_up, lambda n: n.cells[1].metadata.pop("tags")),
    (set_up, lambda n: n.cells[1].outputs.append(PNG)),
    (set_up, lambda n: n.cells.insert(1, new_code_cell("import torch"))),
    (set_up, runs("import google.colab")),
    (kernel, lambda n: n.metadata.kernelspec.update(name="colab")),
    (anatomy, puts("## Quiz", "### Quiz")),
    (anatomy, puts("## Summary\n\n## Quiz", "## Quiz\n\n## Summary")),
    (anatomy, puts("# A title", "A title")),
    (anatomy, says("# Another title")),
    (exercises, puts("> **Exercise 1.8 (hard).** Do.", "")),
    (exercises, puts("Exercise 1.2", "Exercise 1.3")),
    (exercises, puts("Exercise 1.2", "Exercise 2.2")),
    (exercises, puts("(hard)", "(medium)")),
    (exercises, says("**Exercise 1.9 (easy).** Not in a box.")),
    (proves_something, puts("assert x", "x")),
    (proves_something, lambda n: n.cells[5].metadata.pop("tags")),
    (proves_something, lambda n: n.cells[5].update(outputs=[])),
]


@pytest.mark.parametrize("rule", EVERYWHERE + IN_CHAPTERS)
def test_a_good_notebook_keeps_the_rule(rule: Rule) -> None:
    assert list(rule(good())) == []
    assert rule in {broken for broken, _ in BREAKS}


@pytest.mark.parametrize(("rule", "break_it"), BREAKS)
def test_a_broken_notebook_is_noticed(rule: Rule, break_it: Callable) -> None:
    broken = copy.deepcopy(good())
    break_it(broken)
    assert list(rule(broken)) != []


# --- Each notebook alone ------------------------------------------------------------------------


@pytest.mark.parametrize("path", pages.notebooks(), ids=lambda path: path.stem)
def test_alone(path: Path, tmp_path: Path) -> None:
    """It runs in a fresh kernel from an empty folder, and leaves nothing there or at home."""
    status, printed, seconds = pages.run_alone(path, tmp_path)
    assert status == 0, printed
    assert pages.left_behind(tmp_path, path.name) == []
    note_time(path.stem, seconds)


def note_time(name: str, seconds: float) -> None:
    """Keep the seconds of each notebook in _build/times.json."""
    place = pages.ROOT / "_build" / "times.json"
    place.parent.mkdir(exist_ok=True)
    times = json.loads(place.read_text("utf-8")) if place.exists() else {}
    times[name] = round(seconds, 1)
    place.write_text(json.dumps(times, indent=1, sort_keys=True) + "\n", "utf-8")
    print(f"{name}: {seconds:.1f} s")


@pytest.mark.parametrize(
    ("source", "output", "expected"),
    [
        ("print(1 + 1)", "2\n", None),
        ("print(1 + 1)", "3\n", "mismatch"),
        ("assert 1 + 1 == 3", "", "AssertionError"),
        ("import time; time.sleep(60)", "", "stopped after"),
        ("open('left', 'w').close()", "", "left"),
        ("from pathlib import Path; Path.home().joinpath('left').touch()", "", "left"),
    ],
)
def test_alone_can_fail(source: str, output: str, expected: str | None, tmp_path: Path) -> None:
    """A wrong output, a failed assertion, a cell that hangs and a file left behind are noticed."""
    outputs = [new_output("stream", name="stdout", text=output)] if output else []
    cell = new_code_cell(source, outputs=outputs, execution_count=1)
    cell.metadata.tags = ["nbval-check-output"]
    notebook = new_notebook(cells=[cell], metadata=good().metadata)
    path = tmp_path / "small.ipynb"
    nbformat.write(notebook, path)
    status, printed, _ = pages.run_alone(path, tmp_path / "run", timeout=20)
    problems = pages.left_behind(tmp_path / "run", path.name)
    if status != 0:
        problems.append(printed)
    if expected is None:
        assert problems == []
    else:
        assert expected in "\n".join(problems)
