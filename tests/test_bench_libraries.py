"""The comparison with other libraries runs, here without them: on minflow and the bare networks."""

import datetime
import importlib.util
import json
import os
import re
import sys
from dataclasses import replace
from statistics import median

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


# --- The page quotes what was measured. ---

COLUMNS = {
    "minflow": ("minflow", "eager"),
    "compiled": ("minflow", "compiled"),
    **{name: (name.lower(), "eager") for name in ("zuko", "nflows", "normflows", "Pyro", "FrEIA")},
    "FlowJAX": ("flowjax", "compiled"),
}
FLOWS = {
    "RealNVP": "realnvp",
    "MAF-6": "maf6",
    "MAF-43": "maf43",
    "NSF": "spline_coupling",
    "NSF-AR": "spline_autoregressive",
    "planar": "planar",
}


@pytest.fixture(scope="module")
def measured():
    return json.loads((BENCHMARKS / "libraries.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page():
    return "\n".join(cell.source for cell in pages.read(pages.ROOT / "book" / "speed.ipynb").cells)


def quoted(page, name):
    """A table of the page: the names of its columns, and its rows."""
    [text] = re.findall(rf'^{name} = """\n(.*?)\n"""$', page, re.M | re.S)
    head, *rows = [line.split() for line in text.splitlines()]
    return head[1:], rows


def in_words(number, digits):
    return "–" if number is None else f"{number:.{digits}f}"


@pytest.mark.parametrize("name", ["score", "train", "sample"])
def test_the_page_has_every_ratio(name, page, measured):
    head, rows = quoted(page, name)
    assert head == list(COLUMNS)
    task = {"score": "log_prob"}.get(name, name)
    ratio = {
        (row["case"], row["library"], row["setting"]): in_words(row["ratio"], 2)
        for row in measured["runs"]
        if row["task"] == task
    }
    scored = [flow for flow in FLOWS if (name, flow) != ("score", "planar")]
    assert rows == [
        [flow, *(ratio[(FLOWS[flow], *entry)] for entry in COLUMNS.values())] for flow in scored
    ]


def test_the_page_has_the_times_to_a_fit(page, measured):
    head, rows = quoted(page, "fit")
    assert head == ["steps", "seconds", "first"]
    expected = []
    for name, entry in COLUMNS.items():
        runs = [r for r in measured["moons"]["runs"] if (r["library"], r["setting"]) == entry]
        if all(run["seconds"] is None for run in runs):
            continue
        assert all(run["reached"] for run in runs)
        steps, seconds = (median(run[key] for run in runs) for key in ("steps", "seconds"))
        first = max(run["first_step_seconds"] for run in runs)
        expected.append([name, in_words(steps, 0), in_words(seconds, 1), in_words(first, 1)])
    assert rows == expected


def test_the_page_has_the_memory_and_the_imports(page, measured):
    head, rows = quoted(page, "memory")
    assert head == list(COLUMNS)
    grown = {
        (run["case"], run["library"], run["setting"]): in_words(run["mebibytes"], 0)
        for run in measured["memory"]["runs"]
    }
    assert rows == [
        [flow, *(grown[(case, *entry)] for entry in COLUMNS.values())]
        for flow, case in FLOWS.items()
    ]
    _, rows = quoted(page, "imports")
    assert [[name.lower(), seconds] for name, seconds in rows] == [
        [run["library"].replace("bare", "torch"), in_words(run["seconds"], 1)]
        for run in measured["import"]["runs"]
    ]


def test_the_page_has_the_growth(page, measured):
    _, rows = quoted(page, "growth")
    cases, axes = {"NSF": "spline_coupling", "MAF": "maf"}, {"D": "dim"}
    assert len(rows) * 4 == len(measured["growth"]["runs"])
    for flow, size, task, start, *times in rows:
        key = cases[flow], axes.get(size, size), {"score": "log_prob"}.get(task, task)
        found = sorted(
            (run["value"], in_words(run["median_ms"], 1))
            for run in measured["growth"]["runs"]
            if (run["case"], run["axis"], run["task"]) == key
        )
        assert [str(found[0][0]), *times] == [start, *(ms for _, ms in found)]


def test_the_page_says_when_and_with_what(page, measured):
    about = measured["about"]
    for part in (
        about,
        *(measured[name]["about"] for name in ("import", "memory", "growth", "moons")),
    ):
        assert part["date"] == about["date"]
        assert part["libraries"] == about["libraries"]
    day = datetime.date.fromisoformat(about["date"])
    assert f"{day.day} {day:%B %Y}" in page and f"{about['rounds']} rounds" in page
    given = {name.lower(): version for name, version in about["libraries"].items()}
    words = re.sub(r"\s+", " ", page)
    for name in [*COLUMNS, "JAX"]:
        if name not in ("minflow", "compiled"):
            assert f"{name} {given[name.lower()]}" in words
    for flow, case in FLOWS.items():
        run = next(r for r in measured["runs"] if (r["case"], r["library"]) == (case, "minflow"))
        assert re.search(rf"^\| {flow} \|.*\| {run['parameters']:,} \|$", page, re.M)


def test_the_page_says_how_sure_it_is(page, measured):
    words = re.sub(r"\s+", " ", page)
    shortest = {
        (run["case"], run["task"], run["library"]): run["ratio_min"]
        for run in measured["runs"]
        if run["setting"] == "eager" and run["library"] != "bare" and run["ratio_min"]
    }
    leads = []
    for case, task in {key[:2] for key in shortest}:
        others = [
            v
            for (c, t, name), v in shortest.items()
            if (c, t) == (case, task) and name != "minflow"
        ]
        leads.append(min(others) / shortest[case, task, "minflow"])
    draws = sum(abs(lead - 1) < 0.03 for lead in leads)
    ahead = sum(lead >= 1.03 for lead in leads)
    behind = len(leads) - ahead - draws
    assert f"{ahead} ahead, {draws} draws and {behind} behind" in words

    for name in ("nflows", "zuko", "minflow"):
        runs = [
            r for r in measured["moons"]["runs"] if (r["library"], r["setting"]) == (name, "eager")
        ]
        low, high = (f(run["seconds"] for run in runs) for f in (min, max))
        assert re.search(rf"\b{name}`?(?: took)? from {low:.1f} to {high:.1f}\b", words)

    maf = next(r for r in measured["runs"] if (r["case"], r["library"]) == ("maf43", "minflow"))
    assert f"of MAF-43's, {maf['effective']:,} numbers are learned" in words
