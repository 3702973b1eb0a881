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


def energies():
    """The program as a module, and the mean nats of each cell of its table."""
    spec = importlib.util.spec_from_file_location("energies", BENCHMARKS / "energies.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    found = json.loads((BENCHMARKS / "energies.json").read_text(encoding="utf-8"))
    runs = defaultdict(list)
    for row in found["runs"]:
        runs[row["energy"], row["depth"], row["how"]].append(row["nats"])
    return program, found, {cell: mean(nats) for cell, nats in runs.items()}


def chapter():
    cells = pages.read(pages.ROOT / "book" / "planar.ipynb").cells
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
