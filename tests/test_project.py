"""What the repository promises of itself: one address, one version, tidy files, clean code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import minflow

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tools"))

import address as address_tool  # noqa: E402
import notebooks as notebook_tool  # noqa: E402

NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
# A command that would fetch the unrelated project of that name from the index.
WRONG_NAME = re.compile(
    r"\b(?:pip3?|uv|conda|mamba|poetry)\s+(?:install|add)\b[^\n|]*?(?<![\w/.=-])minflow(?![\w/.-]*-book|[\w/-])"
)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "command",
    [
        "ruff check --output-format=concise .",
        "ruff format --check --output-format=concise .",
        "mypy",
    ],
    ids=["ruff", "format", "mypy"],
)
def test_lint(command: str) -> None:
    """`make lint` says it in full; `make format` mends most of it."""
    result = python(*command.split())
    assert result.returncode == 0, result.stdout + result.stderr


SKIPS = """
import pytest
@pytest.mark.skip(reason="no moon")
def test_marked(): pass
def test_inside(): pytest.skip("no sun")
@pytest.mark.xfail(reason="known")
def test_xfail(): assert False
def test_passes(): pass
"""


def run_skips(tmp_path: Path, ci: str) -> str:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_skips.py").write_text(SKIPS)
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('no_such')\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull]
    command.append("--continue-on-collection-errors")
    return subprocess.run(
        [*command, "--rootdir", tmp_path, tmp_path],
        env=os.environ | {"CI": ci},
        capture_output=True,
        text=True,
    ).stdout


def test_a_skipped_test_fails_where_ci_is_true_and_says_why(tmp_path: Path) -> None:
    printed = run_skips(tmp_path, "true")
    assert "1 passed" in printed
    assert "1 xfailed" in printed
    assert "skipped" not in printed.splitlines()[-1]
    for reason in ("no moon", "no sun", "no_such"):
        assert re.search(rf"nothing may be skipped.*{reason}", printed), printed


def test_elsewhere_it_is_skipped(tmp_path: Path) -> None:
    assert "1 passed, 3 skipped, 1 xfailed" in run_skips(tmp_path, "")


# The address and the version.


def test_every_file_names_the_same_address_and_version() -> None:
    assert address_tool.disagreements(ROOT) == []


def test_the_version_is_that_of_the_library() -> None:
    assert address_tool.Address.of(ROOT).version == f"v{minflow.__version__}"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == minflow.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {minflow.__version__}" in changes


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the files that carry the address, as a git repository of its own."""
    for path, text in address_tool.files(ROOT):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    return tmp_path


def test_one_command_repoints_every_file(copy: Path) -> None:
    old = address_tool.Address.of(copy)
    command = ["https://github.com/reader/flows", "--version", "v7.8.9"]
    assert address_tool.main(command, root=copy) == 0
    assert address_tool.main([*command, "--check"], root=copy) == 0
    assert '__version__ = "7.8.9"' in (copy / "minflow" / "__init__.py").read_text()
    assert [path for path, text in address_tool.files(copy) if old.place in text] == []
    for path in (copy / "book").glob("*.ipynb"):
        assert "/reader/flows@v7.8.9" in path.read_text(encoding="utf-8")
        assert notebook_tool.faults(path) == notebook_tool.faults(ROOT / "book" / path.name)


@pytest.mark.parametrize(
    "line",
    [
        "see {host}/somebody/{name}/issues",
        "git+{host}/somebody/other@v0.1.0",
        "git+{host}/{place}@v99.0.0",
        "https://colab.research.google.com/github/{place}/blob/v99.0.0/book/welcome.ipynb",
        "{host}/{place}/blob/v99.0.0/README.md",
        "https://somebody.github.io/{name}/",
    ],
)
def test_a_file_that_disagrees_is_found(copy: Path, line: str) -> None:
    place = address_tool.Address.of(copy).place
    name, host = place.split("/")[1], "https://github.com"
    (copy / "stray.md").write_text(line.format(place=place, name=name, host=host))
    assert [found.split(":")[0] for found in address_tool.disagreements(copy)] == ["stray.md"]


def test_a_clone_of_another_address_fails_the_check(copy: Path) -> None:
    assert address_tool.main(["https://github.com/you/mine", "--check"], root=copy) == 1
    assert address_tool.main(["--version", "v99.0.0", "--check"], root=copy) == 1
    assert address_tool.main(["--check"], root=copy) == 0


# The name.


def test_no_file_installs_the_unrelated_project() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path, text in address_tool.files(ROOT)
        for match in WRONG_NAME.finditer(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("{} install minflow", True),
        ("{} install -U minflow", True),
        ("!{} install --quiet 'minflow'", True),
        ("%{}  install minflow==0.1.0", True),
        ("{} install torch minflow[all]", True),
        ('{} install "minflow>=0.1"', True),
        ("{} install minflow-book", False),
        ('{} install "minflow-book @ git+https://github.com/-minflow/minflow-book@v0.1.0"', False),
        ("{} install torch\nimport minflow", False),
    ],
)
def test_the_unrelated_project_would_be_noticed(line: str, wrong: bool) -> None:
    assert bool(WRONG_NAME.search(line.format("pip"))) == wrong


# The notebooks' files.


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_tidy_and_its_outputs_belong_to_its_code(path: Path) -> None:
    """`make notebooks` mends it."""
    assert notebook_tool.faults(path) == []


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    """A small notebook as an editor would leave it."""
    path = tmp_path / "page.ipynb"
    cell = {
        "cell_type": "code", "id": "a b", "execution_count": 17, "outputs": [],
        "metadata": {"tags": ["x"], "ExecuteTime": {"end_time": "now"}, "scrolled": True},
        "source": ["import os\n", "print(1)\n", "print(len(os.listdir()))\n", "os.getcwd()[:0]"],
    }  # fmt: skip
    empty = {"nbformat": 4, "nbformat_minor": 4, "metadata": {"colab": {}}, "cells": [cell]}
    path.write_text(json.dumps(empty), encoding="utf-8")
    return path


def test_notebooks_run_once_from_an_empty_folder_and_come_out_tidy(notebook: Path) -> None:
    assert notebook_tool.faults(notebook)[0] == "its code changed since its outputs were made"
    assert notebook_tool.main([str(notebook)]) == 0
    done = notebook.read_text(encoding="utf-8")
    cell = json.loads(done)["cells"][0]
    assert cell["outputs"][0]["text"] == ["1\n", "0\n"]
    assert cell["execution_count"] == 1
    assert cell["metadata"] == {"tags": ["x"]}
    assert set(json.loads(done)["metadata"]) == {"kernelspec", "language_info", "minflow"}

    assert notebook_tool.main(["--check", str(notebook)]) == 0
    assert notebook_tool.main([str(notebook)]) == 0
    assert notebook.read_text(encoding="utf-8") == done, "nothing changed, yet it was run again"

    notebook.write_text(done.replace("print(1)", "print(2)"), encoding="utf-8")
    assert notebook_tool.main(["--check", str(notebook)]) == 1


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import os; os.getcwd()", "a path of this machine"),
        ("object()", "a place in memory"),
        ("import sys; print('careful', file=sys.stderr)", "stderr: careful"),
    ],
)
def test_outputs_that_would_not_last_are_refused(notebook: Path, code: str, fault: str) -> None:
    data = json.loads(notebook.read_text(encoding="utf-8"))
    data["cells"][0]["source"] = code
    notebook.write_text(json.dumps(data), encoding="utf-8")
    assert notebook_tool.main([str(notebook)]) == 1
    assert [found for found in notebook_tool.faults(notebook) if fault in found]


def test_a_cell_that_fails_leaves_the_file_as_it_was(notebook: Path) -> None:
    before = notebook.read_text(encoding="utf-8").replace("print(1)", "1 / 0")
    notebook.write_text(before, encoding="utf-8")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        notebook_tool.main([str(notebook)])
    assert notebook.read_text(encoding="utf-8") == before


# The package and its pins.


def test_every_requirement_is_pinned_exactly() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if line and not line.startswith("#")]
    assert len(names) > 10
    assert [line for line in names if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_the_wheel_holds_the_library_with_its_data_and_nothing_else(tmp_path: Path) -> None:
    result = python("build", "--wheel", "--no-isolation", "--outdir", str(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = tmp_path.glob("minflow_book-*.whl")
    unpacked = tmp_path / "unpacked"
    shutil.unpack_archive(wheel, unpacked, "zip")
    packed = {p.relative_to(unpacked / "minflow") for p in (unpacked / "minflow").rglob("*.*")}
    listed = {p.relative_to(ROOT) for p, _ in address_tool.files(ROOT)}
    source = {p.relative_to("minflow") for p in listed if p.parts[0] == "minflow"}
    assert packed == source
    assert Path("py.typed") in packed
    assert {p.name.split("-")[0] for p in unpacked.iterdir()} == {"minflow", "minflow_book"}


# The licences.


def test_both_licences_are_there_in_full() -> None:
    assert "Permission is hereby granted" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    text = (ROOT / "LICENSE-text").read_text(encoding="utf-8")
    assert "Creative Commons Attribution 4.0 International" in text
    assert [n for n in range(1, 9) if f"Section {n} –" not in text] == []
    vendored = ROOT / "book" / "_static" / "mathjax"
    assert "Apache License" in (vendored / "LICENSE").read_text(encoding="utf-8")
