"""Colab's path: its packages, no minflow, and a set-up cell that installs minflow alone.

The set-up cell names the repository's address. Git's own `insteadOf` turns that into a snapshot
of this working tree, so that what is installed is what is tested.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbclient
import nbformat
import pages
import pytest
from jupyter_client.kernelspec import KernelSpecManager

PLACE = pages.ROOT / ".venv-colab"
PYTHON = PLACE / "bin" / "python"

# In Colab the package `google.colab` is loaded before a notebook's first cell.
STARTUP = """
import sys
sys.path.insert(0, {stub!r})
import google.colab
sys.path.remove({stub!r})
"""

LAST_CELL = """
import sys
import minflow
print(minflow.__file__, minflow.__version__, "google.colab" in sys.modules)
"""


def call(*command: str | Path, **options: object) -> str:
    return subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, text=True, **options
    ).stdout


def freeze() -> list[str]:
    return call(PYTHON, "-m", "pip", "freeze", "--all").splitlines()


def remove_minflow() -> None:
    call(PYTHON, "-m", "pip", "uninstall", "--yes", "--quiet", "minflow-book")


@pytest.fixture(scope="module")
def colab() -> Path:
    """An environment with Colab's packages, made once and kept in .venv-colab."""
    wanted = (pages.ROOT / "tests" / "colab.txt").read_text("utf-8")
    pins = (pages.ROOT / "requirements.txt").read_text("utf-8")
    wanted += re.search(r"^torch==\S+", pins, re.M)[0] + "\n"
    digest = hashlib.sha256((wanted + sys.version).encode()).hexdigest()
    stamp = PLACE / "made-from"
    if not stamp.exists() or stamp.read_text("utf-8") != digest or not PYTHON.exists():
        shutil.rmtree(PLACE, ignore_errors=True)
        call(sys.executable, "-m", "venv", PLACE)
        call(PYTHON, "-m", "pip", "install", "-r", "/dev/stdin", input=wanted)
        stamp.write_text(digest, "utf-8")
    return PLACE


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A repository that holds this working tree, tagged with its version; and its commit."""
    place = tmp_path_factory.mktemp("snapshot")
    listed = call(
        "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=pages.ROOT
    )
    for name in filter(None, listed.split("\0")):
        source, target = pages.ROOT / name, place / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    person = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=0"]
    call("git", "init", "--quiet", cwd=place)
    call("git", "add", "--all", cwd=place)
    call("git", *person, "commit", "--quiet", "--no-verify", "-m", "Snapshot", cwd=place)
    call("git", "tag", f"v{pages.version()}", cwd=place)
    return place, call("git", "rev-parse", "HEAD", cwd=place).strip()


@pytest.fixture
def without_minflow(colab: Path) -> Iterator[list[str]]:
    """What is installed before; minflow is not there, and is gone again afterwards."""
    remove_minflow()
    yield freeze()
    remove_minflow()


def execute(notebook: nbformat.NotebookNode, home: Path, snapshot: Path) -> None:
    """Run a notebook as Colab would, in an empty folder."""
    env = pages.kernel_environment(home)
    env["HOME"] = os.environ["HOME"]  # pip's settings are there
    env |= {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{snapshot.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": pages.address(),
    }
    stub = home / "stub"
    (stub / "google" / "colab").mkdir(parents=True)
    (stub / "google" / "colab" / "__init__.py").touch()
    startup = home / "ipython" / "profile_default" / "startup" / "00-colab.py"
    startup.write_text(STARTUP.format(stub=str(stub)), "utf-8")
    spec = home / "kernels" / "colab"
    spec.mkdir(parents=True)
    argv = [str(PYTHON), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.joinpath("kernel.json").write_text(
        json.dumps({"argv": argv, "display_name": "Colab", "language": "python"}), "utf-8"
    )
    folder = home / "folder"
    folder.mkdir()
    specs = KernelSpecManager(kernel_dirs=[str(home / "kernels")], ensure_native_kernel=False)
    client = nbclient.NotebookClient(
        notebook,
        kernel_name="colab",
        timeout=pages.TIMEOUT,
        resources={"metadata": {"path": str(folder)}},
    )
    client.create_kernel_manager().kernel_spec_manager = specs
    client.execute(env=env)


def test_the_environment_is_colabs(without_minflow: list[str]) -> None:
    """The pins hold together, and the environment knows no minflow."""
    wanted = (pages.ROOT / "tests" / "colab.txt").read_text("utf-8").splitlines()
    have = {line.lower() for line in without_minflow}
    assert [line for line in wanted if "==" in line and line not in have] == []
    assert not [line for line in have if "minflow" in line]


def test_without_the_set_up_cell_it_fails(
    without_minflow: list[str], snapshot: tuple[Path, str], tmp_path: Path
) -> None:
    """So a notebook that passes below got minflow from its set-up cell and from nowhere else."""
    cells = [nbformat.v4.new_code_cell("import sys\n" + LAST_CELL)]
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="ModuleNotFoundError"):
        execute(nbformat.v4.new_notebook(cells=cells), tmp_path, snapshot[0])


@pytest.mark.parametrize("path", pages.notebooks(), ids=lambda path: path.stem)
def test_a_notebook_runs_in_colab(
    path: Path, without_minflow: list[str], snapshot: tuple[Path, str], tmp_path: Path
) -> None:
    notebook = pages.read(path)
    notebook.cells.append(nbformat.v4.new_code_cell(LAST_CELL))
    place, commit = snapshot
    execute(notebook, tmp_path, place)

    where, version, in_colab = notebook.cells[-1].outputs[0].text.split()
    assert Path(where).is_relative_to(PLACE)
    assert version == pages.version()
    assert in_colab == "True"

    after = freeze()
    assert [line for line in without_minflow if line not in after] == []
    added = [line for line in after if line not in without_minflow]
    assert added == [f"minflow-book @ git+{pages.address()}@{commit}"]
