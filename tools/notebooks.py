"""Run the notebooks whose code changed, and tidy what Jupyter writes into a notebook.

    python tools/notebooks.py            run what changed, tidy every notebook
    python tools/notebooks.py --all      run every notebook
    python tools/notebooks.py --check    change nothing; say what is not in order (exit status 1)

Names of notebooks may follow; without any, all of `book/*.ipynb` are meant.

A notebook carries a digest of the code that its outputs were made from, in its own metadata
(`minflow.digest`; the set-up cell for Colab is left out of it). Where the digest no longer fits,
the code changed and the notebook is run afresh: each in a new kernel, with one thread, in an empty
folder outside the repository. A changed *library* is not noticed: then say `--all`.

Tidying makes the file depend on its content alone: cell ids are valid and unique, times and
editors' settings go, counters run from 1, pieces of one printed text are joined.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
CELL_METADATA = {"tags", "mystnb", "jupyter", "cellView"}
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")


def read(path: Path) -> NotebookNode:
    """Read a notebook, giving an id to each cell that lacks a valid one."""
    data = json.loads(path.read_text(encoding="utf-8"))
    data["nbformat"], data["nbformat_minor"] = 4, 5
    seen: set[str] = set()
    for position, cell in enumerate(data["cells"]):
        name = cell.get("id", "")
        if not re.fullmatch(r"[\w-]{1,64}", name) or name in seen:
            name = sha(f"{position} {''.join(cell['source'])}")[:8]
        cell["id"] = name
        seen.add(name)
    return nbformat.reads(json.dumps(data), as_version=4)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def digest(notebook: NotebookNode) -> str:
    """A digest of all code but the set-up cell, whose only content is an address."""
    sources = [cell.source for cell in code_cells(notebook)]
    return sha(json.dumps([text for text in sources if "google.colab" not in text]))


def tidy(notebook: NotebookNode) -> NotebookNode:
    """Make a notebook depend on its content alone (in place)."""
    ours = notebook.metadata.get("minflow", {})
    notebook.metadata = nbformat.from_dict(KERNEL | ({"minflow": ours} if ours else {}))
    for cell in notebook.cells:
        kept = {key: cell.metadata[key] for key in sorted(CELL_METADATA & set(cell.metadata))}
        cell.metadata = nbformat.from_dict(kept)
        cell.source = cell.source.rstrip("\n")
        if not cell.get("attachments", True):
            del cell["attachments"]
    count = 0
    for cell in code_cells(notebook):
        if cell.execution_count is not None:
            count += 1
            cell.execution_count = count
        cell.outputs = joined(cell.outputs)
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = cell.execution_count
            for mime, data in output.get("data", {}).items():
                if mime in ("image/png", "image/jpeg"):
                    output.data[mime] = data.strip()
    return notebook


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of one stream: where it is cut is a matter of timing."""
    result: list[NotebookNode] = []
    for output in outputs:
        last = result[-1] if result else None
        if last and output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            result.append(output)
    return result


def text(notebook: NotebookNode) -> str:
    """The notebook as it stands in its file."""
    return str(nbformat.writes(notebook)).rstrip("\n") + "\n"


def is_stale(notebook: NotebookNode) -> bool:
    """Whether the code is no longer what the outputs were made from."""
    return bool(code_cells(notebook)) and (
        notebook.metadata.get("minflow", {}).get("digest") != digest(notebook)
    )


def faults(path: Path) -> list[str]:
    """What is not in order in a notebook's file, in words."""
    notebook = read(path)
    found = []
    if is_stale(notebook):
        found.append("its code changed since its outputs were made")
    if any(cell.execution_count is None for cell in code_cells(notebook) if cell.source.strip()):
        found.append("a code cell was never run")
    if text(tidy(notebook)) != path.read_text(encoding="utf-8"):
        found.append("it is not tidy")
    return found + unstable(notebook)


def unstable(notebook: NotebookNode) -> list[str]:
    """Outputs that name a path of this machine, a place in memory, or a library's complaint."""
    paths = [f"{folder}{os.sep}" for folder in (ROOT, Path.home(), tempfile.gettempdir())]
    found = []
    for number, cell in enumerate(code_cells(notebook), start=1):
        for output in cell.outputs:
            shown = printed(output)
            if any(path in shown for path in paths):
                found.append(f"the output of code cell {number} names a path of this machine")
            if ADDRESS.search(shown):
                found.append(f"the output of code cell {number} names a place in memory")
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"code cell {number} wrote to stderr: {shown.strip()[:200]}")
    return found


def printed(output: NotebookNode) -> str:
    data = output.get("data", {})
    texts = [str(value) for mime, value in data.items() if not mime.startswith("image/")]
    return "".join([output.get("text", ""), *texts])


def run(notebook: NotebookNode) -> None:
    """Run a notebook in a fresh kernel, from an empty folder; note code and time."""
    notebook.metadata = nbformat.from_dict(KERNEL)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    with tempfile.TemporaryDirectory() as folder:
        progress = {"MINFLOW_PROGRESS": str(Path(folder) / "progress.json")}
        empty = Path(folder) / "empty"
        empty.mkdir()
        client = NotebookClient(
            notebook,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # it warns of every local kernel
            timeout=600,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(empty)}},
        )
        start = time.perf_counter()
        client.execute(
            env={**os.environ, **ONE_THREAD, **progress, "PYTHONHASHSEED": "0"},
        )
        seconds = round(time.perf_counter() - start, 1)
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
    notebook.metadata["minflow"] = {"digest": digest(notebook), "seconds": seconds}


def smaller(png: str) -> str:
    """A picture in at most 256 colours, as many as a figure needs: a third of the bytes."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    few = io.BytesIO()
    colours = picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    colours.save(few, format="PNG", optimize=True)
    return base64.b64encode(few.getvalue()).decode()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: book/*.ipynb")
    parser.add_argument("--all", action="store_true", help="run also what did not change")
    parser.add_argument("--check", action="store_true", help="change nothing, report")
    options = parser.parse_args(arguments)
    status = 0
    for path in options.notebooks or sorted((ROOT / "book").glob("*.ipynb")):
        if not options.check:
            update(path, force=options.all)
        for fault in faults(path):
            print(f"{path.name}: {fault}", file=sys.stderr)
            status = 1
    return status


def update(path: Path, force: bool = False) -> None:
    notebook = read(path)
    if force or is_stale(notebook):
        print(f"{path.name}: running …", flush=True)
        run(notebook)
        print(f"{path.name}: ran in {notebook.metadata['minflow']['seconds']} s")
    tidied: Any = text(tidy(notebook))
    if tidied != path.read_text(encoding="utf-8"):
        path.write_text(tidied, encoding="utf-8")
        print(f"{path.name}: written")


if __name__ == "__main__":
    sys.exit(main())
