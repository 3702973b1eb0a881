"""The comparison with other libraries runs, here without them: on minflow and the bare networks."""

import importlib.util
import json
import os
import sys
from dataclasses import replace

import pages
import pytest

import minflow as mf

BENCHMARKS = pages.ROOT / "benchmarks"
KEYS = {"case", "task", "library", "setting", "median_ms", "min_ms", "ratio", "ratio_min"}
KEYS |= {"parameters", "effective", "note"}


@pytest.fixture
def program(monkeypatch):
    """The program with small cases, compiled by nothing."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("libraries", BENCHMARKS / "libraries.py")
    program = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "libraries", program)
    spec.loader.exec_module(program)
    small = [
        replace(case, dim=min(case.dim, 4), layers=2, width=min(case.width, 8), batch=8, bins=3)
        for case in program.CASES
    ]
    monkeypatch.setattr(program, "CASES", small)
    monkeypatch.setattr(program, "BACKEND", "eager")
    monkeypatch.setattr(program, "TURN", 0.0)
    # It keeps its process on one core: not this one.
    monkeypatch.setattr(program, "one_core", lambda: None)
    return program


def run(program, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["libraries.py", *arguments])
    program.main()


def test_the_table_has_a_row_for_each_task_and_library(program, monkeypatch, tmp_path, capsys):
    out = tmp_path / "libraries.json"
    given = ["--rounds", "2", "--libraries", "minflow", "--out", str(out)]
    run(program, monkeypatch, *given)
    found = json.loads(out.read_text(encoding="utf-8"))
    assert {"date", "processor", "torch", "jax", "rounds", "libraries"} <= set(found["about"])
    keys = [(row["case"], row["task"], row["library"], row["setting"]) for row in found["runs"]]
    who = [("bare", "eager"), ("minflow", "eager"), ("minflow", "compiled")]
    assert keys == [
        (case.name, task, *entry)
        for case in program.CASES
        for task in program.TASKS
        if (case.kind, task) != ("planar", "log_prob")
        for entry in who
    ]
    for row in found["runs"]:
        assert set(row) == KEYS
        assert 0 < row["min_ms"] <= row["median_ms"]
        if row["library"] == "bare":
            assert row["ratio"] == row["ratio_min"] == 1
        assert row["parameters"] >= row["effective"] > 0
    assert "maf43, sample" in capsys.readouterr().out

    # A case that is run again takes the place of its old rows, and no others.
    run(program, monkeypatch, *given, "--only", "planar")
    again = json.loads(out.read_text(encoding="utf-8"))["runs"]
    assert len(again) == len(keys)
    assert [row for row in again if row["case"] != "planar"] == [
        row for row in found["runs"] if row["case"] != "planar"
    ]


def test_a_library_that_is_not_there_is_named_and_has_no_numbers(program, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "zuko", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "contenders.zuko_flows", raising=False)
    out = tmp_path / "libraries.json"
    which = ["--libraries", "zuko", "--only", "realnvp"]
    run(program, monkeypatch, *which, "--rounds", "1", "--out", str(out))
    rows = json.loads(out.read_text(encoding="utf-8"))["runs"]
    missing = [row for row in rows if row["library"] == "zuko"]
    assert [row["task"] for row in missing] == list(program.TASKS)
    for row in missing:
        assert row["note"] == "zuko is not installed"
        assert row["median_ms"] is row["ratio"] is row["parameters"] is None


def test_minflow_s_flows_do_what_they_should(program, monkeypatch, capsys):
    run(program, monkeypatch, "--check", "--libraries", "bare", "minflow")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 * len(program.CASES)
    scored = [line for line in lines if line.endswith("log_prob against the Jacobian")]
    assert len(scored) == 2 * (len(program.CASES) - 1)  # planar layers score their own samples only


def test_the_check_fails_for_a_flow_whose_log_det_is_wrong(program, monkeypatch):
    built = program.build

    def wrong(entry, case, *rate):
        found = built(entry, case, *rate)
        score = found.score
        found.score = lambda x: score(x) + 0.1
        return found

    monkeypatch.setattr(program, "build", wrong)
    with pytest.raises(AssertionError):
        program.check(program.CASES[0], ("minflow", "eager"))


def test_flows_of_another_size_are_not_compared(program):
    case = program.CASES[0]
    built = {entry: program.build(entry, case) for entry in program.ENTRIES[:2]}
    program.same_size(case, built)
    built["minflow", "eager"].parameters *= 2
    with pytest.raises(ValueError, match="realnvp: minflow"):
        program.same_size(case, built)


def test_what_no_mask_shuts_off_is_counted():
    from contenders.common import counts

    net = mf.nets.MaskedMLP(dim=3, outputs=2, hidden=(4,))
    shut = sum(int((layer.mask == 0).sum()) for layer in net.layers)
    total = sum(p.numel() for p in net.parameters())
    assert shut and counts([net]) == (total, total - shut)


def test_the_other_parts_are_written_under_their_names(program, monkeypatch, tmp_path):
    grown = [replace(case, dim=2, layers=1, width=4, batch=2, bins=2) for case in program.GROWN]
    monkeypatch.setattr(program, "GROWN", grown)
    monkeypatch.setattr(program, "FACTORS", (1, 2))
    monkeypatch.setattr(program, "IMPORTED", 1)
    monkeypatch.setattr(program, "CAP", 3)
    monkeypatch.setattr(program, "EVERY", 2)
    monkeypatch.setattr(program, "SEEDS", 1)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(pages.ROOT), *sys.path]))
    out = tmp_path / "libraries.json"
    parts = ["--part", "import", "growth", "moons", "--rounds", "1"]
    run(program, monkeypatch, *parts, "--libraries", "minflow", "--out", str(out))
    found = json.loads(out.read_text(encoding="utf-8"))
    assert list(found) == ["import", "growth", "moons"]
    assert [row["library"] for row in found["import"]["runs"]] == ["bare", "minflow"]
    assert all(row["seconds"] > 0 for row in found["import"]["runs"])
    sizes = {(row["case"], row["axis"], row["value"]) for row in found["growth"]["runs"]}
    assert len(found["growth"]["runs"]) == 3 * len(sizes) == 3 * 2 * (4 + 3)
    assert [row["setting"] for row in found["moons"]["runs"]] == ["eager", "compiled"]
    for row in found["moons"]["runs"]:
        assert row["steps"] == 3 or row["reached"]


def test_the_peak_of_memory_is_that_of_the_steps(program, monkeypatch):
    """In a process of its own: this one may hold memory that is free already."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(pages.ROOT), *sys.path]))
    case = next(case for case in program.CASES if case.name == "maf43")
    found = program.memory(case, ("bare", "eager"))
    # Weights, gradients and Adam's two moments, of at least the layers in the middle.
    assert found["mebibytes"] > 4 * 4 * 5 * 512 * 512 / 2**20
