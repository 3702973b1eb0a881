"""The benchmarks run, and the chapters quote what they measured."""

import importlib.util
import itertools
import json
import math
import re
import sys
from collections import defaultdict
from statistics import mean, stdev

import pages
import pytest
import torch

import minflow as mf

BENCHMARKS = pages.ROOT / "benchmarks"


def benchmark(name):
    """A program as a module, and the table that it wrote."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    program = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:  # programs import each other, as when run by hand
        patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
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


def autoregressive():
    """The program, its table, and the rows of each cell of what was trained."""
    program, found = benchmark("autoregressive")
    runs = defaultdict(list)
    for row in found["runs"]:
        if row["part"] != "cost":
            runs[row["part"], row["flow"], row["layers"]].append(row)
    return program, found, runs


def average(rows, key):
    return mean(row[key] for row in rows)


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
    program, found, nll = couplings()
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
    spread = {
        flow: 2.776 * stdev(nll["moons", flow, depth]) / 5**0.5  # Student's t, five seeds
        for flow, depth in program.LONG
    }
    assert f"are ±{spread['realnvp']:.3f} and ±{spread['nsf']:.3f}" in text
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


# --- Autoregressive flows. ---


def test_the_grid_of_autoregressive_flows_was_run_in_full():
    program, found, runs = autoregressive()
    rows = list(itertools.chain(*runs.values()))
    keys = [(row["part"], row["flow"], row["layers"], row["seed"]) for row in rows]
    assert sorted(keys) == sorted(program.grid())
    for part in ("moons", "choices", "order"):
        assert found["about"][part]["steps"] == 2000
    for part, law in [("moons", program.MOONS), ("order", program.BANANA)]:
        assert found["about"][part]["entropy"] == pytest.approx(law.entropy().item())
    assert all(row["gap"] > -3 * row["error"] for row in rows)


def test_maf_reaches_its_mark_on_the_two_moons():
    _, _, runs = autoregressive()
    assert len(runs["moons", "maf", 5]) == 5
    assert average(runs["moons", "maf", 5], "nll") <= 0.37


def test_one_layer_in_the_wrong_order_ends_at_its_floor_and_a_second_goes_below():
    program, found, runs = autoregressive()
    floor = found["about"]["order"]["floor"]
    assert floor == pytest.approx(program.wrong_order_floor(program.BANANA), abs=1e-9)
    gap = {flow: average(rows, "gap") for (part, flow, _), rows in runs.items() if part == "order"}
    assert gap["wrong"] == pytest.approx(floor, abs=0.01)
    for row in runs["order", "wrong", 1]:
        assert row["gap"] > floor - 3 * row["error"]
    for better in ("right", "wrong, right", "right, wrong"):
        assert 0 < gap[better] < floor / 10


def test_the_floor_is_the_gap_of_the_best_normal_laws():
    program, _, _ = autoregressive()
    # Hardly bent, the banana is a normal law.
    assert program.wrong_order_floor(mf.data.Banana(sigma=0.05)) == pytest.approx(0, abs=1e-9)
    # Drawn, and cut into narrow strips of x₁, in each of which x₂ has nearly one law.
    points = program.BANANA.sample((1_000_000,), torch.Generator().manual_seed(0)).double()
    x1, x2 = points[points[:, 0].argsort()].mT
    within = x2.reshape(2000, 500).var(-1).log().mean()
    drawn = 0.5 * (x1.var().log() + within) + math.log(2 * math.pi * math.e)
    drawn = drawn - program.BANANA.entropy()
    assert program.wrong_order_floor(program.BANANA) == pytest.approx(drawn.item(), abs=0.005)


def test_each_choice_of_maf_is_made_otherwise_alone():
    program, _, _ = autoregressive()
    assert [type(part) for part in program.parts("maf", 5)] == [mf.Autoregressive, mf.LU] * 5
    assert [type(part) for part in program.parts("no mix", 5)] == [mf.Autoregressive] * 5

    def choices(name):
        parts = program.parts(name, 5)
        found = [part for part in parts if isinstance(part, mf.Autoregressive)]
        assert all(layer.hidden == (64, 64) and layer.seed is None for layer in found)
        return (
            [layer.scalar_map for layer in found],
            [layer.residual for layer in found],
            [layer.order for layer in found],
        )

    maps, residual, orders = choices("maf")
    assert choices("the paper's direction") == ([m.scalar_map for m in maps], residual, orders)
    assert choices("not residual") == (maps, [False] * 5, orders)
    assert choices("one order") == (maps, residual, [(0, 1)] * 5)
    assert choices("no mix") == (maps, residual, orders)
    assert [layer.order for layer in program.parts("right, wrong", 2)] == [(1, 0), (0, 1)]


def test_a_run_of_the_autoregressive_flows_measures_a_gap(monkeypatch):
    program, _, _ = autoregressive()
    monkeypatch.setattr(program, "ROWS", 2000)
    monkeypatch.setattr(program, "TEST_ROWS", 2000)
    for (part, name, layers), law in [
        (("moons", "nsf_ar", 2), program.MOONS),
        (("choices", "one order", 5), program.MOONS),
        (("order", "wrong", 1), program.BANANA),
    ]:
        found = program.run(part, name, layers, 0, steps=10)
        assert 0.2 < found["gap"] < 2 and 0 < found["error"] < 0.1
        assert found["nll"] == pytest.approx(found["gap"] + law.entropy().item())


def test_the_bare_networks_have_the_shapes_of_the_flow():
    program, _, _ = autoregressive()
    flow = mf.nsf_ar(3, layers=2, hidden=(8, 8))
    nets = program.bare(flow)
    assert len(program.bare(mf.maf(3, layers=2))) == 2
    for layer, net in zip(flow.transform, nets, strict=True):
        shapes = [value.shape for value in layer.net.parameters()]
        assert [value.shape for value in net.parameters()] == shapes
        assert [type(part).__name__ for part in net] == ["Linear", "ReLU"] * 2 + ["Linear"]


def test_a_part_that_is_run_alone_leaves_the_others_in_the_table(monkeypatch, tmp_path):
    program, _, _ = autoregressive()
    monkeypatch.setattr(program, "ROWS", 500)
    monkeypatch.setattr(program, "TEST_ROWS", 500)
    monkeypatch.setattr(program, "CELLS", {("order", "right", 1): 3})
    monkeypatch.setattr(program, "CASES", (("maf", 3, 8, 16), ("nsf_ar", 2, 8, 16)))
    monkeypatch.setattr(program, "BACKEND", "eager")  # a bare machine has no C++ compiler
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    out = tmp_path / "table.json"

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["autoregressive.py", *options, "--out", str(out)])
        program.main()
        table = json.loads(out.read_text(encoding="utf-8"))
        return table["about"], {
            part: [row for row in table["runs"] if row["part"] == part] for part in table["about"]
        }

    about, first = run("--only", "order", "--steps", "2")
    assert list(about) == ["order"] and about["order"]["steps"] == 2 and len(first["order"]) == 3
    about, both = run("--only", "cost", "--rounds", "3")
    assert list(about) == ["order", "cost"] and about["cost"]["rounds"] == 3
    assert both["order"] == first["order"]
    whats = ("one pass", "D passes", "sample", "log_prob")
    each = [*itertools.product((False, True), whats), (False, "compiled sample")]
    assert [(row["flow"], row["gradients"], row["what"]) for row in both["cost"]] == [
        (flow, *one) for flow in ("maf", "nsf_ar") for one in each
    ]
    for row in both["cost"]:
        assert row["passes"] > 0 and row["passes_minima"] > 0
        if row["what"] in whats[:2]:  # the units
            key = {"one pass": "passes", "D passes": "D_passes"}[row["what"]]
            assert row[key] == row[f"{key}_minima"] == 1
    about, again = run("--only", "order", "--steps", "3")
    assert list(about) == ["order", "cost"] and about["order"]["steps"] == 3
    assert again["cost"] == both["cost"]
    assert len(again["order"]) == 3 and again["order"] != first["order"]


def test_the_chapter_quotes_the_table_of_autoregressive_flows_with_its_date():
    _, found, runs = autoregressive()
    text = chapter("autoregressive")
    names = {"maf": "`maf`", "nsf_ar": "`nsf_ar`"}
    for (part, flow, layers), rows in runs.items():
        if part == "moons":
            nll, gap = (f"{average(rows, key):.3f}" for key in ("nll", "gap"))
            assert f"| {names[flow]} | {layers} | {nll} | {gap} |" in text
        elif part == "choices":
            assert f"{average(rows, 'nll'):.3f}" in text
        elif flow in ("right", "wrong", "wrong, right"):
            assert f"{average(rows, 'gap'):.3f}" in text
    assert f"{found['about']['order']['floor']:.3f}" in text
    for part in ("moons", "choices", "order"):
        year, month, day = found["about"][part]["date"].split("-")
        assert month == "11" and f"on {int(day)} November {year}" in text


def test_the_chapter_quotes_the_costs():
    program, found, _ = autoregressive()
    assert found["about"]["cost"]["rounds"] >= 15
    text = chapter("autoregressive")
    ratio = {
        (row["flow"], row["dim"], row["gradients"], row["what"]): (row["passes"], row["D_passes"])
        for row in found["runs"]
        if row["part"] == "cost"
    }
    for (flow, dim, width, batch), gradients in itertools.product(program.CASES, (False, True)):
        passes, share = ratio[flow, dim, gradients, "sample"]
        score, _ = ratio[flow, dim, gradients, "log_prob"]
        what = f"| `{flow}({dim})` | {width} | {batch} | {'yes' if gradients else 'no'}"
        assert f"{what} | {passes:.1f} | {share:.2f} | {score:.1f} |" in text
        if not gradients:
            passes, share = ratio[flow, dim, gradients, "compiled sample"]
            assert f"{what}, compiled | {passes:.1f} | {share:.2f} | – |" in text
