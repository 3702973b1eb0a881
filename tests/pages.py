"""What the tests of the book share: where its parts are, and how a notebook is run."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
TIMEOUT = 600  # seconds for one notebook: generous, since a chapter is meant to take 60
EXERCISE = re.compile(r"^> \*\*Exercise (\d+)\.(\d+) \((easy|medium|hard)\)\.\*\*", re.M)


def toc() -> list[str]:
    """Every page of the table of contents, in order, without its ending."""

    def walk(node: object) -> list[str]:
        if isinstance(node, list):
            return [page for item in node for page in walk(item)]
        if isinstance(node, dict):
            found = [node[key] for key in ("root", "file") if key in node]
            return found + [p for v in node.values() if isinstance(v, list) for p in walk(v)]
        return []

    return walk(yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8")))


def notebooks() -> list[Path]:
    """Every notebook of the book; one that the table of contents forgot is still tested."""
    return sorted((ROOT / "book").glob("*.ipynb"))


def chapters() -> list[Path]:
    """The notebooks that are chapters: those of the table of contents' part of that name."""
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))["parts"]
    listed = next(part["chapters"] for part in parts if part["caption"] == "Chapters")
    return sorted(ROOT / f"{chapter['file']}.ipynb" for chapter in listed)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def version() -> str:
    text = (ROOT / "minflow" / "__init__.py").read_text("utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.M)[1]


def address() -> str:
    """The repository's address, which stands in pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    return re.search(r'^Repository = "(.+)"$', text, re.M)[1]


def setup_cell() -> str:
    """The set-up cell, the same in every notebook."""
    return (
        "# In Colab, install the book's library (torch and numpy stay as they are). "
        "Elsewhere: nothing.\n"
        "import sys\n\n"
        'if "google.colab" in sys.modules:\n'
        f'    %pip install --quiet "minflow-book @ git+{address()}@v{version()}"'
    )


def kernel_environment(home: Path) -> dict[str, str]:
    """An environment in which a kernel finds and leaves nothing of the person who tests.

    Its home and its IPython profile are folders under `home`; one thread, since the tests run
    several notebooks at once.
    """
    profile = home / "ipython" / "profile_default" / "startup"
    profile.mkdir(parents=True, exist_ok=True)
    (home / "home").mkdir(exist_ok=True)
    keep = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSTARTUP")}
    return keep | {
        "HOME": str(home / "home"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "MINFLOW_PROGRESS": str(home / "progress.json"),
        "MPLCONFIGDIR": str(home / "matplotlib"),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run_alone(
    notebook: Path, home: Path, startup: str = "", timeout: float = TIMEOUT
) -> tuple[int, str, float]:
    """Run a copy of a notebook by nbval in a fresh kernel, in a folder that holds nothing else.

    nbval runs every cell, takes any error as a failure, and compares the outputs of the cells
    with the tag nbval-check-output. It stops at the first failure. `startup` is code that the
    kernel runs first. The folder is home / "folder". Returns nbval's exit status, what it
    printed and the seconds.
    """
    folder = home / "folder"
    folder.mkdir(parents=True)
    copy = folder / notebook.name
    shutil.copyfile(notebook, copy)
    env = kernel_environment(home)
    if startup:
        place = home / "ipython" / "profile_default" / "startup" / "00-first.py"
        place.write_text(startup, "utf-8")
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "-x", "-q"]
    command += ["-p", "no:cacheprovider", "--rootdir", str(home), "-c", os.devnull]
    command.append(str(copy))
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=home,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=timeout)
        status = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
        status, printed = -1, f"{printed}\nstopped after {timeout:.0f} s"
    return status, printed, time.perf_counter() - start


def left_behind(home: Path, name: str) -> list[str]:
    """The files that a notebook left in its folder and in its home after `run_alone`."""
    folder, person = home / "folder", home / "home"
    found = [str(p.relative_to(folder)) for p in folder.rglob("*") if p != folder / name]
    return found + [f"~/{p.relative_to(person)}" for p in person.rglob("*") if p.is_file()]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing of each request."""

    def end_headers(self) -> None:
        self.send_header("LinkChecker", "yes")  # lets LinkChecker ask as fast as it can
        super().end_headers()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *args: object) -> None:
        """A browser or a checker that hangs up early is no error."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine, on a free port; gives its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
