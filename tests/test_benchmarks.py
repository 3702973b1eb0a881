"""The benchmarks run, and the chapters quote what they measured."""

import importlib.util
import itertools
import json
import re
from collections import defaultdict
from statistics import mean

import pages
import pytest

BENCHMARKS = pages.ROOT / "benchmarks"


def benchmark(name):
    """A program as a module, and the table that it wrote."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program, json.loads((BENCHMARKS / f"{name}.json").read_text(encoding="utf-8"))


def energies():
    """The program, and the mean nats of each cell of its table."""
    program, found = benchmark("energies")
    runs = defaultdict(list)
    for row in found["runs"]:
        runs[row["energy"], row["depth"], row["how"]].append(row["nats"])
    return program, found, {cell: mean(nats) for cell, nats in runs.items()}


def couplings():
    """The program, and the NLL of each seed in each cell of its table."""
    program, found = benchmark("couplings")
    runs = defaultdict(list)
    for row in found["runs"]:
        runs[row["part"], row["flow"], row["layers"]].append(row["nll"])
    return program, found, runs


def chapter(name="planar"):
    cells = pages.read(pages.ROOT / "book" / f"{name}.ipynb").cells
    return " ".join(" ".join(c.source for c in cells if c.cell_type == "markdown").split())


def test_the_grid_was_run_in_full():
    program, found, _ = energies()
    keys = {(row["energy"], row["depth"], row["how"], row["seed"]) for row in found["runs"]}
    hows = ("plain", "annealed")
    assert keys == set(itertools.product(program.ENERGIES, program.DEPTHS, hows, program.SEEDS))
    assert len(found["runs"]) == len(keys)
    assert all(row["nats"] > -3 * row["error"] for row in found["runs"])


def test_the_chapter_quotes_the_table_with_its_date_and_steps():
    program, found, nats = energies()
    text = chapter()
    for depth, how in itertools.product(program.DEPTHS, ("plain", "annealed")):
        row = [f"{nats[energy, depth, how]:.3f}" for energy in program.ENERGIES]
        assert f"| {depth} | {how} | {' | '.join(row)} |" in text
    year, month, day = found["about"]["date"].split("-")
    assert month == "11" and f"on {int(day)} November {year}" in text
    assert f"{found['about']['steps']:,} steps" in text


def test_what_the_chapter_says_of_annealing_is_in_the_table():
    program, _, nats = energies()
    cells = list(itertools.product(program.ENERGIES, [d for d in program.DEPTHS if d]))
    closer = [cell for cell in cells if nats[(*cell, "annealed")] < nats[(*cell, "plain")]]
    text = chapter()
    assert "closer in three of the twelve cells with layers" in text
    assert (len(closer), len(cells)) == (3, 12) and ("U2", 8) in closer
    best = min(closer, key=lambda cell: nats[(*cell, "annealed")] / nats[(*cell, "plain")])
    assert best == ("U2", 8)
    assert nats["U2", 8, "plain"] / nats["U2", 8, "annealed"] == pytest.approx(4, abs=0.2)
    assert re.search(r"at depth 2 on \$U_4\$ the fits are more than twice as far off", text)
    assert nats["U4", 2, "annealed"] > 2 * nats["U4", 2, "plain"]


def test_a_run_of_the_program_measures_a_divergence(monkeypatch):
    program, _, nats = energies()
    monkeypatch.setattr(program, "SAMPLES", 5000)
    options = dict(steps=300, lr=0.05, batch_size=128)
    found = program.run("U1", 0, 0, anneal=0, **options)
    assert found["nats"] == pytest.approx(nats["U1", 0, "plain"], abs=0.3)
    assert 0 < found["error"] < 0.1 and 0.4 < found["share"] < 0.6


# --- Couplings. ---


def test_the_grid_of_couplings_was_run_in_full():
    program, found, _ = couplings()
    keys = [(row["part"], row["flow"], row["layers"], row["seed"]) for row in found["runs"]]
    assert sorted(keys) == sorted(program.grid())
    assert found["about"]["steps"] == 2000
    assert found["about"]["entropy"] == pytest.approx(0.2892, abs=1e-4)
    assert all(row["gap"] > -3 * row["error"] for row in found["runs"])


def test_the_marks_on_the_two_moons_are_reached():
    _, _, nll = couplings()
    assert len(nll["moons", "nsf", 4]) == len(nll["moons", "realnvp", 8]) == 5
    assert mean(nll["moons", "nsf", 4]) <= 0.307
    assert mean(nll["moons", "realnvp", 8]) <= 0.345


def test_the_chapter_quotes_the_table_of_couplings_with_its_date():
    _, found, nll = couplings()
    text, entropy = chapter("coupling"), found["about"]["entropy"]
    names = {"realnvp": "RealNVP", "nsf": "splines"}
    for (part, flow, layers), values in nll.items():
        if part == "moons":
            row = (
                f"| {names[flow]} | {layers} | {mean(values):.3f} | {mean(values) - entropy:.3f} |"
            )
            assert row in text
    floor = 3 * entropy
    for flow in ("nothing", "permutations", "glow"):
        assert f"{mean(nll['mixing', flow, 8]) - floor:.2f}" in text
    for flow in ("as it stands", "starts at zero"):
        assert f"{mean(nll['start', flow, 8]):.3f}" in text
    year, month, day = found["about"]["date"].split("-")
    assert month == "11" and f"on {int(day)} November {year}" in text


def test_a_run_of_the_couplings_measures_a_gap(monkeypatch):
    program, _, _ = couplings()
    monkeypatch.setattr(program, "ROWS", 2000)
    monkeypatch.setattr(program, "TEST_ROWS", 2000)
    found = program.run("moons", "realnvp", 2, 0, steps=30)
    assert 0.2 < found["gap"] < 2 and 0 < found["error"] < 0.1
    assert found["nll"] == pytest.approx(found["gap"] + program.MOONS.entropy().item())
    mixed = program.run("mixing", "glow", 1, 0, steps=5)
    assert mixed["nll"] == pytest.approx(mixed["gap"] + 3 * program.MOONS.entropy().item())
