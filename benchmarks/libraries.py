"""How long do minflow and six other libraries take for the same flows? Milliseconds on one core.

    make bench                                           all of the table, in an environment of its own
    python benchmarks/libraries.py --only maf6 planar    some cases; the file keeps the others
    python benchmarks/libraries.py --libraries minflow   some libraries, beside the bare networks
    python benchmarks/libraries.py --check               no times: does each flow do what it should?
    python benchmarks/libraries.py --part import moons   some of the five parts; the file keeps the others

table    Seven ways to build each of the CASES: minflow, as it stands and compiled by torch; zuko, nflows,
         normflows, Pyro and FrEIA, as they stand; FlowJAX, compiled by JAX. Three tasks: `log_prob` of a
         batch, without gradients; `train`, one step of maximum likelihood with Adam; `sample`, a batch,
         without gradients. Planar layers cannot score data, so there `train` is a step of reverse KL to
         a normal law moved by 1, and `sample` is a sample with log q.
unit     The bare networks: of torch's own layers, of the same shapes, without masks or a flow around
         them. One pass of all of them for `log_prob` and for a coupling's `sample`; D passes for an
         autoregressive one; a pass, its gradients and a step of Adam for `train`. For planar layers the
         recursion z + u tanh(wᵀz + b) with its log-det, written by hand. `ratio` says how many units.
alike    The same layers, two hidden layers of one width with a ReLU after each, and nothing else: no
         batch norm, no learned mixes; coordinates are reversed or dealt anew between layers where the
         library does not turn its layers round. `parameters` counts what is trained, and `effective` what
         of it no mask shuts off. No library's parameters are more than 5 % off those of the bare
         networks; where they differ, `note` says why.
time     One thread, and the process is kept on one core, JAX with it. All take turns, round after round,
         after a call that does not count: it compiles. A turn repeats a short task until TURN seconds
         have passed, and counts their mean. `ratio` is of medians over the rounds, `ratio_min` of the
         shortest. Time is what passes, since JAX works in threads of its own: so run it on a quiet machine.
import   Seconds to import each library in a fresh interpreter, the median of 5.
memory   By how many MiB the peak of a fresh process grows from its imports over three training steps;
         what compiling takes is in it.
growth   minflow's tasks as D, the layers, the batch and the bins are doubled, one at a time.
moons    Seconds of training until splines reach 0.40 nats on the two moons: the same layers, Adam, batches
         and steps for all. The first step, which compiles, is counted apart.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import tables
import torch
from contenders import common
from contenders.common import Case, Contender
from tables import Row
from tqdm import tqdm

import minflow as mf

CASES = (
    Case("realnvp", "affine_coupling", dim=2, layers=8, width=64, batch=1024),
    Case("maf6", "affine_autoregressive", dim=6, layers=5, width=100, batch=1024),
    Case("maf43", "affine_autoregressive", dim=43, layers=5, width=512, batch=256),
    Case("spline_coupling", "spline_coupling", dim=6, layers=5, width=128, batch=1024),
    Case("spline_autoregressive", "spline_autoregressive", dim=6, layers=5, width=128, batch=1024),
    Case("planar", "planar", dim=2, layers=16, width=0, batch=1024),
)
GROWN = (
    Case("spline_coupling", "spline_coupling", dim=8, layers=4, width=64, batch=512),
    Case("maf", "affine_autoregressive", dim=8, layers=4, width=64, batch=512),
)
FACTORS = (1, 2, 4, 8)
MOONS = Case("moons", "spline_coupling", dim=2, layers=4, width=64, batch=512)
GOAL, CAP, EVERY, RATE, SEEDS = 0.40, 3000, 50, 5e-3, 3  # of the part moons
BARE = ("bare", "eager")
ENTRIES = (  # the library, and how it runs
    BARE,
    ("minflow", "eager"),
    ("minflow", "compiled"),
    ("zuko", "eager"),
    ("nflows", "eager"),
    ("normflows", "eager"),
    ("pyro", "eager"),
    ("freia", "eager"),
    ("flowjax", "compiled"),
)
IMPORTS = {  # what a program that builds a flow imports
    "bare": "torch",
    "minflow": "minflow",
    "zuko": "zuko",
    "nflows": "nflows.flows, nflows.transforms",
    "normflows": "normflows",
    "pyro": "pyro.distributions.transforms",
    "freia": "FrEIA.framework, FrEIA.modules",
    "flowjax": "flowjax.flows",
}
PACKAGES = {"pyro": "pyro-ppl", "freia": "FrEIA"}  # where the name is another
IMPORTED = 5  # how often each library is imported
TASKS = ("log_prob", "train", "sample")
PARTS = ("table", "import", "memory", "growth", "moons")
BACKEND = "inductor"  # what torch compiles with
TURN = 0.02  # seconds
CLOSE = 0.05  # how far a count of parameters may be off


class Missing(Exception):
    """Why a library has no place in a row."""


def build(entry: tuple[str, str], case: Case, rate: float = common.LEARNING_RATE) -> Contender:
    """One library's flow for a case; Missing if it cannot or is not there."""
    library, setting = entry
    try:
        module = importlib.import_module(f"contenders.{library}_flows")
    except ModuleNotFoundError as error:
        raise Missing(f"{error.name} is not installed") from error
    if case.kind in module.MISSING:
        raise Missing(module.MISSING[case.kind])
    if library == "minflow":
        return module.contender(case, rate, BACKEND if setting == "compiled" else None)
    return module.BUILD[case.kind](case, rate)


def tasks(contender: Contender, x: torch.Tensor) -> dict[str, Callable[[], object]]:
    """What is timed."""
    given, score = contender.give(x), contender.score
    todo: dict[str, Callable[[], object]] = {}
    if score is not None:
        todo["log_prob"] = lambda: score(given)
    return todo | {"train": lambda: contender.step(given), "sample": contender.draw}


def measure(case: Case, entries: list[tuple[str, str]], rounds: int) -> list[Row]:
    """The rows of one case: all take turns, round after round."""
    torch.compiler.reset()
    torch.manual_seed(0)
    x = torch.randn(case.batch, case.dim)
    built: dict[tuple[str, str], Contender] = {}
    missing: dict[tuple[str, str], str] = {}
    for entry in [BARE, *(entry for entry in entries if entry != BARE)]:
        torch.manual_seed(0)
        try:
            built[entry] = build(entry, case)
        except Missing as why:
            missing[entry] = str(why)
    same_size(case, built)

    todo = {(task, *entry): f for entry, c in built.items() for task, f in tasks(c, x).items()}
    repeats = {key: repeat(f) for key, f in tqdm(todo.items(), desc=case.name, unit="task")}
    times: dict[tuple[str, str, str], list[float]] = {key: [] for key in todo}
    for _ in tqdm(range(rounds), desc=case.name, unit="round"):
        for key, f in todo.items():
            start = perf_counter()
            for _ in range(repeats[key]):
                f()
            times[key].append((perf_counter() - start) / repeats[key])
    return list(rows(case, built, missing, times))


def repeat(task: Callable[[], object]) -> int:
    """How many times a task fits into a turn, after two calls that do not count."""
    task()
    task()
    start = perf_counter()
    task()
    return max(1, math.ceil(TURN / (perf_counter() - start)))


def rows(
    case: Case,
    built: dict[tuple[str, str], Contender],
    missing: dict[tuple[str, str], str],
    times: dict[tuple[str, str, str], list[float]],
) -> Iterator[Row]:
    """What was measured, task by task; a library that cannot has no numbers, but a reason."""
    for task in dict.fromkeys(key[0] for key in times):
        unit = times[(task, *BARE)]
        for library, setting in [*built, *missing]:
            keys = {"case": case.name, "task": task, "library": library, "setting": setting}
            if (library, setting) in missing:
                numbers = dict.fromkeys(("median_ms", "min_ms", "ratio", "ratio_min"))
                sizes = {"parameters": None, "effective": None}
                yield {**keys, **numbers, **sizes, "note": missing[library, setting]}
                continue
            taken, contender = times[task, library, setting], built[library, setting]
            yield {
                **keys,
                "median_ms": 1000 * median(taken),
                "min_ms": 1000 * min(taken),
                "ratio": median(taken) / median(unit),
                "ratio_min": min(taken) / min(unit),
                "parameters": contender.parameters,
                "effective": contender.effective,
                "note": contender.note,
            }


def same_size(case: Case, built: dict[tuple[str, str], Contender]) -> None:
    """ValueError if a flow is much larger or smaller than the bare networks."""
    expected = built[BARE].parameters
    for (library, setting), contender in built.items():
        if abs(contender.parameters / expected - 1) > CLOSE:
            raise ValueError(
                f"{case.name}: {library} ({setting}) trains {contender.parameters} numbers, "
                f"the bare networks {expected}"
            )


def check(case: Case, entry: tuple[str, str]) -> str:
    """What a flow does after three steps, in words; AssertionError if that is wrong."""
    torch.compiler.reset()
    torch.manual_seed(0)
    contender = build(entry, case)
    x = torch.randn(case.batch, case.dim)
    given, found = contender.give(x), []
    for _ in range(3):
        assert math.isfinite(float(contender.step(given)))
    drawn = contender.draw()
    points, *rest = drawn if isinstance(drawn, tuple) else (drawn,)
    for log_q in rest:
        assert log_q.shape == (case.batch,) and bool((log_q - log_q == 0).all())
    if entry != BARE or case.kind == "planar":
        assert points.shape == (case.batch, case.dim)
        assert bool((points - points == 0).all())
    if entry == BARE:
        return "shapes"
    if contender.score is not None:
        log_q = contender.score(given)
        assert log_q.shape == (case.batch,) and bool((log_q - log_q == 0).all())
        found.append("log_prob")
    if contender.there is not None and contender.back is not None:
        with torch.no_grad():
            gap = contender.back(contender.there(given)) - given
        assert float(abs(gap).max()) < 1e-3
        found.append("x → z → x")
        if isinstance(given, torch.Tensor) and contender.score is not None:
            expected = change_of_variables(contender.there, given[:3])
            assert torch.allclose(log_q[:3], expected, atol=1e-2)
            found.append("log_prob against the Jacobian")
    return ", ".join(["sample with log q" if rest else "sample", *found])


def change_of_variables(there: Callable[[Any], Any], x: torch.Tensor) -> torch.Tensor:
    """log q at some points, with the determinant of the whole Jacobian."""
    found = []
    for point in x.split(1):
        jacobian = torch.autograd.functional.jacobian(there, point)[0, :, 0]
        log_p = common.normal(there(point)).squeeze(0)
        found.append(log_p + torch.linalg.slogdet(jacobian).logabsdet)
    return torch.stack(found).detach()


def import_times(entries: list[tuple[str, str]]) -> list[Row]:
    """Seconds to import each library, each time in a fresh interpreter; all take turns."""
    code = "from time import perf_counter as now; s = now(); import {}; print(now() - s)"
    names = list(dict.fromkeys(["bare", *(library for library, _ in entries)]))
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(IMPORTED + 1):
        for name in names:
            command = [sys.executable, "-c", code.format(IMPORTS[name])]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0 and i:  # the first reads the files
                times[name].append(float(done.stdout))
    return [
        {"library": name, "seconds": median(taken) if taken else None}
        for name, taken in times.items()
    ]


def memory(case: Case, entry: tuple[str, str]) -> Row:
    """By how much a fresh process grows, in MiB; its program is this one, with --grow."""
    command = [sys.executable, __file__, "--grow", case.name, *entry]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    keys = {"case": case.name, "library": entry[0], "setting": entry[1]}
    return {**keys, **json.loads(done.stdout.splitlines()[-1])}


def grow(case: Case, entry: tuple[str, str]) -> Row:
    """The peak of memory in three steps, above that after the imports and one small tensor."""
    small = replace(case, dim=2, layers=2, width=4 if case.width else 0, batch=8)
    try:
        build(entry, small)
    except Missing as why:
        return {"mebibytes": None, "note": str(why)}
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    contender, x = build(entry, case), torch.randn(case.batch, case.dim)
    for _ in range(3):
        contender.step(contender.give(x))
    return {"mebibytes": (resident("VmHWM") - before) / 1024, "note": contender.note}


def resident(what: str) -> int:
    """This process's memory in KiB, or its peak. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def growth(rounds: int) -> Iterator[Row]:
    """minflow's times as one size at a time is doubled."""
    for base in GROWN:
        axes = ["dim", "layers", "batch"] + ["bins"] * base.kind.startswith("spline")
        for axis in axes:
            for factor in FACTORS:
                value = factor * getattr(base, axis)
                for row in measure(replace(base, **{axis: value}), [("minflow", "eager")], rounds):
                    if row["library"] == "minflow":
                        yield {**row, "axis": axis, "value": value}


def moons(entry: tuple[str, str], seed: int) -> Row:
    """Seconds of training until the held-out NLL is low enough."""
    torch.compiler.reset()
    law = mf.data.TwoMoons()
    generator = torch.Generator().manual_seed(1000 + seed)
    train = law.sample((CAP, MOONS.batch), generator=generator)
    test = law.sample((10_000,), generator=generator)
    torch.manual_seed(seed)
    keys = {"library": entry[0], "setting": entry[1], "seed": seed}
    try:
        contender = build(entry, MOONS, RATE)
    except Missing as why:
        return {**keys, "seconds": None, "note": str(why)}
    given, times, nll = contender.give(test), [], math.inf
    while nll > GOAL and len(times) < CAP:
        x = contender.give(train[len(times)])
        start = perf_counter()
        contender.step(x)
        times.append(perf_counter() - start)
        if len(times) % EVERY == 0:
            nll = -float(contender.score(given).mean())  # type: ignore[misc]
    found = {"steps": len(times), "nll": nll, "reached": nll <= GOAL}
    seconds = {"seconds": sum(times[1:]), "first_step_seconds": times[0]}
    return {**keys, **seconds, **found, "note": contender.note}


def about(**more: Any) -> Row:
    """Where and with what a part was made."""
    lines = Path("/proc/cpuinfo")
    models = [line for line in lines.read_text().splitlines() if line.startswith("model name")]
    processor = models[0].partition(": ")[2] if models else platform.processor()
    versions = {}
    for name in [*(library for library, _ in ENTRIES if library != "bare"), "jax"]:
        try:
            versions[name] = version(PACKAGES.get(name, name))
        except PackageNotFoundError:
            continue
    versions["minflow"] = mf.__version__
    facts = {"processor": processor, "jax": versions.get("jax"), "libraries": versions}
    return {**tables.about(), **facts, **more}


def one_core() -> None:
    """Keep torch, JAX and what they start on one thread and one core."""
    os.environ["OMP_NUM_THREADS"] = "1"
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = flags  # JAX is imported later
    os.environ["JAX_PLATFORMS"] = "cpu"
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main() -> None:
    names = [case.name for case in CASES]
    libraries = list(dict.fromkeys(library for library, _ in ENTRIES))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=PARTS, nargs="+", default=["table"])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--only", choices=names, nargs="+", default=names, metavar="CASE")
    parser.add_argument("--libraries", choices=libraries, nargs="+", default=libraries)
    parser.add_argument("--check", action="store_true", help="check the flows instead")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--grow", nargs=3, help=argparse.SUPPRESS)  # for the part memory
    arguments = parser.parse_args()
    one_core()

    cases = [case for case in CASES if case.name in arguments.only]
    entries = [entry for entry in ENTRIES if entry[0] in arguments.libraries]
    if arguments.grow:
        name, *entry = arguments.grow
        case = next(case for case in CASES if case.name == name)
        print(json.dumps(grow(case, tuple(entry))))
    elif arguments.check:
        check_all(cases, entries)
    else:
        for part in arguments.part:
            run(part, cases, entries, arguments.rounds, arguments.out)


def check_all(cases: list[Case], entries: list[tuple[str, str]]) -> None:
    """Print what each flow does; the first that does wrong stops the program."""
    for case in cases:
        for entry in entries:
            try:
                found = check(case, entry)
            except Missing as why:
                found = f"– {why}"
            print(f"{case.name:22} {' '.join(entry):18} {found}", flush=True)


def run(
    part: str, cases: list[Case], entries: list[tuple[str, str]], rounds: int, out: Path
) -> None:
    """Measure one part, print it and write it."""
    if part == "table":
        for case in cases:
            found = measure(case, entries, rounds)
            show(found)
            write(out, part, about(rounds=rounds), found)  # at once: the next takes minutes
        return
    found: Iterable[Row]
    if part == "import":
        found, facts = import_times(entries), about(rounds=IMPORTED)
    elif part == "memory":
        found = (memory(case, entry) for case in cases for entry in entries)
        facts = about(steps=3)
    elif part == "growth":
        found, facts = growth(rounds), about(rounds=rounds)
    else:
        timed = [entry for entry in entries if entry != BARE]
        found = (moons(entry, seed) for seed in range(SEEDS) for entry in timed)
        facts = about(goal=GOAL, most_steps=CAP, every=EVERY, learning_rate=RATE)
    for row in found:
        print("  ".join(f"{key} {value}" for key, value in row.items() if value != ""), flush=True)
        write(out, part, facts, [row])


def show(found: list[Row]) -> None:
    """Print the rows of one case."""
    for task in dict.fromkeys(row["task"] for row in found):
        print(f"\n{found[0]['case']}, {task}")
        print("library    setting        ms   units  (minima)  parameters  effective  note")
        for row in (row for row in found if row["task"] == task):
            name = f"{row['library']:10} {row['setting']:8}"
            if row["median_ms"] is None:
                print(f"{name}        –       –         –           –          –  {row['note']}")
                continue
            print(
                f"{name} {row['median_ms']:8.3f} {row['ratio']:7.2f} {row['ratio_min']:9.2f}"
                f"  {row['parameters']:10}  {row['effective']:9}  {row['note']}"
            )


def write(out: Path, part: str, facts: Row, found: list[Row]) -> None:
    """Write what was run; what the file holds of other rows and parts stays.

    The table is the file's own "about" and "runs"; each other part has both under its name.
    """
    names = "case", "task", "library", "setting", "axis", "value", "seed"
    whole = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    place = whole if part == "table" else whole.setdefault(part, {})

    def key(row: Row) -> tuple:
        return tuple(row.get(name) for name in names)

    fresh = {key(row) for row in found}
    kept = [row for row in place.get("runs", []) if key(row) not in fresh]
    place["about"], place["runs"] = facts, [*kept, *found]
    order = ["about", "runs", *PARTS[1:]]
    whole = {name: whole[name] for name in order if name in whole}
    out.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
