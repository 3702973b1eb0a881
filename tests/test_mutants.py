"""The notebooks alone notice a library that is wrong.

Each notebook runs in a kernel whose minflow was changed at its start, and has to fail: by an
assertion of its own, or by a printed result that differs from the saved one. A crash does not
count. The changes are made to the outermost call only, so that a Compose of two wrong transforms
is wrong once, not right again.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pages
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

# The two results of every `forward` and `inverse` of minflow's transforms and scalar maps, changed.
MUTANTS = {
    "log-det without its sign": "(value, -log_det)",
    "log-det of the inverse without its sign": "(value, -log_det if inverse else log_det)",
    "inverse off by a little": "(value + 1e-3 if inverse else value, log_det)",
}
HARMLESS = "(value, log_det)"

STARTUP = """
def mutate():
    import functools
    import minflow

    depth = 0

    def change(value, log_det, inverse):
        return {change}

    def wrap(method):
        @functools.wraps(method)
        def wrapped(*args, **kwargs):
            nonlocal depth
            depth += 1
            try:
                result = method(*args, **kwargs)
            finally:
                depth -= 1
            return result if depth else change(*result, method.__name__ == "inverse")

        return wrapped

    def below(cls):
        return [cls] + [found for sub in cls.__subclasses__() for found in below(sub)]

    classes = below(minflow.Transform) + below(minflow.ScalarMap)
    for cls in classes:
        for name in ("forward", "inverse"):
            if name in vars(cls):
                setattr(cls, name, wrap(vars(cls)[name]))
    assert len(classes) > 5


mutate()
del mutate
"""


def run(notebook: Path, change: str, home: Path) -> tuple[int, str]:
    return pages.run_alone(notebook, home, startup=STARTUP.format(change=change))[:2]


def noticed(status: int, printed: str) -> bool:
    """An assertion failed or a result differed; an error of another kind is not a check."""
    return status == 1 and ("AssertionError" in printed or "mismatch" in printed)


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("path", pages.notebooks(), ids=lambda path: path.stem)
def test_the_notebook_notices(path: Path, mutant: str, tmp_path: Path) -> None:
    status, printed = run(path, MUTANTS[mutant], tmp_path)
    assert noticed(status, printed), f"{path.name} did not notice: {mutant}\n{printed}"


# --- The mutants themselves ---------------------------------------------------------------------

USE = """
import torch, minflow
torch.manual_seed(0)
parts = [minflow.Elementwise(2, m) for m in (minflow.Affine(), minflow.MixtureCDF())]
t = minflow.Compose(*parts, minflow.Inverse(minflow.TriangularAffine(2)))
for p in t.parameters():
    torch.nn.init.normal_(p)
z = torch.randn(7, 2)
x, forward = t(z)
back, inverse = t.inverse(x)
"""
SMALL = {
    "asserts": "assert torch.allclose(z, back, atol=1e-4)\n"
    "J = torch.autograd.functional.jacobian(lambda z: t(z)[0], z[0])\n"
    "assert torch.allclose(torch.slogdet(J)[1], forward[0], atol=1e-4)\n"
    "assert torch.allclose(forward, -inverse, atol=1e-4)\n",
    "compares": "print((z - back).abs().max() < 5e-4, (forward + inverse).abs().max() < 1e-3)\n"
    "a = minflow.Affine()\n"
    "print(a.inverse(*a.forward(torch.ones(1), torch.ones(2, 1))[:1], torch.ones(2, 1))[1] < 0)",
    "looks at shapes": "assert x.shape == z.shape and forward.shape == (7,)",
}
PRINTED = {"compares": "tensor(True) tensor(True)\ntensor([True])\n"}


@pytest.mark.parametrize(
    ("kind", "mutant"),
    [("asserts", mutant) for mutant in (None, *MUTANTS)]
    + [("compares", None), ("compares", "log-det without its sign")]
    + [("looks at shapes", "log-det without its sign")],
)
def test_small_notebooks(kind: str, mutant: str | None, tmp_path: Path) -> None:
    """What checks notices every mutant; what looks at shapes alone notices none.

    Unchanged results pass everywhere, so it is the change that is noticed, not how it is made.
    """
    outputs = [new_output("stream", name="stdout", text=PRINTED[kind])] if kind in PRINTED else []
    cell = new_code_cell(USE + SMALL[kind], execution_count=1, outputs=outputs)
    cell.metadata.tags = ["nbval-check-output"]
    path = tmp_path / "small.ipynb"
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=[cell], metadata={"kernelspec": spec}), path)
    status, printed = run(path, MUTANTS[mutant] if mutant else HARMLESS, tmp_path / "run")
    if mutant and kind != "looks at shapes":
        assert noticed(status, printed), printed
    else:
        assert status == 0, printed
