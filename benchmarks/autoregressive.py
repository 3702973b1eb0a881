"""How near do autoregressive flows come to a known law, and what does a sample cost? Nats, and passes.

    python benchmarks/autoregressive.py                  everything, twenty minutes on one core
    python benchmarks/autoregressive.py --steps 100      a quick look
    python benchmarks/autoregressive.py --only moons     one of the four parts; the table keeps the others
    python benchmarks/autoregressive.py --out FILE.json  where to write the table

The budget and the numbers are those of `couplings.py`, whose code this uses: 20,000 points,
standardised, 2,000 steps, and the gap over 50,000 fresh points.

moons    MAF and autoregressive splines on the two moons (noise 0.05).
choices  MAF with 5 layers and one choice made otherwise: its formula in the paper's direction,
         x = z eˢ + t; networks without residual connections; an order that is never reversed;
         no linear mix after each layer.
order    MAF on the banana (σ = 2), with one layer that takes x₂ first, as the data are made (right), or
         x₁ first (wrong), and with one of each. `floor` is the least KL that any affine layer in the
         wrong order can reach, by quadrature.
cost     How long five layers take, on one thread: to sample and to score, with and without gradients
         for the weights. The unit is a pass of five bare networks: torch's own layers of the same
         shapes, without masks or a flow around them. D such passes is what a sample costs if each
         coordinate is given a pass. `compiled sample` is a sample after `flow.transform.compile()`,
         which takes minutes before the first round and needs a C++ compiler. All take turns, round after
         round. `passes` is a ratio of medians over the rounds, and `passes_minima` one of the shortest
         times. It is the processor's time, so what else the machine does counts for little; but not for
         nothing: run it on a quiet one.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time

import tables
import torch
from couplings import MOONS, ROWS, TEST_ROWS, score
from tables import Row
from torch import Generator, Tensor, nn
from tqdm import tqdm

import minflow as mf

BANANA = mf.data.Banana(sigma=2.0)
CELLS = {  # the part, the flow and its layers, and how many seeds
    ("moons", "maf", 5): 5,
    ("moons", "nsf_ar", 2): 3,
    ("moons", "nsf_ar", 4): 3,
    ("choices", "the paper's direction", 5): 3,
    ("choices", "not residual", 5): 3,
    ("choices", "one order", 5): 3,
    ("choices", "no mix", 5): 3,
    ("order", "right", 1): 3,
    ("order", "wrong", 1): 3,
    ("order", "wrong, right", 2): 3,  # listed from base to data
    ("order", "right, wrong", 2): 3,
}
CASES = (  # the flow, D, the width of its two hidden layers, and the batch
    ("maf", 43, 512, 256),
    ("maf", 6, 100, 1024),
    ("nsf_ar", 6, 128, 1024),
)
BACKEND = "inductor"  # what torch compiles with
PARTS = ("moons", "choices", "order", "cost")


def layers(
    *orders: str, turn: bool = True, residual: bool = True, mix: bool = True
) -> list[mf.Transform]:
    """The layers of MAF in two dimensions, with one of its choices made otherwise."""
    scalar_map = mf.Reversed(mf.Affine(bound=2.0)) if turn else mf.Affine(bound=2.0)
    take = {"wrong": (0, 1), "right": (1, 0)}  # right for the banana
    found: list[mf.Transform] = []
    for order in orders:
        found.append(mf.Autoregressive(2, scalar_map, order=take[order], residual=residual))
        if mix:
            found.append(mf.LU(2, permute=False))
    return found


def parts(name: str, depth: int) -> list[mf.Transform]:
    """The flow of a row, from base to data."""
    orders = (["wrong", "right"] * depth)[:depth]  # as in `maf`
    if name in ("maf", "nsf_ar"):
        return list(getattr(mf, name)(2, layers=depth).transform)
    if name == "the paper's direction":
        return layers(*orders, turn=False)
    if name == "not residual":
        return layers(*orders, residual=False)
    if name == "one order":
        return layers(*["wrong"] * depth)
    if name == "no mix":
        return layers(*orders, mix=False)
    return layers(*name.split(", "), mix=False)


def run(what: str, name: str, depth: int, seed: int, steps: int) -> dict[str, float]:
    """One row of the table."""
    target = BANANA if what == "order" else MOONS
    generator = Generator().manual_seed(1000 + seed)
    train = target.sample((ROWS,), generator=generator)
    test = target.sample((TEST_ROWS,), generator=generator)
    torch.manual_seed(seed)
    return score(parts(name, depth), target, seed, train, test, steps)


def grid() -> Iterator[tuple[str, str, int, int]]:
    """What is trained: the part, the flow, its layers and the seed."""
    for cell, seeds in CELLS.items():
        yield from ((*cell, seed) for seed in range(seeds))


def wrong_order_floor(banana: mf.data.Banana) -> float:
    """The least KL(p‖q), in nats, of an affine layer that takes x₁ before x₂.

    Its laws of x₁ and of x₂ given x₁ are normal, and the best have the mean and the variance of p:

        KL = ½ log(2πe Var x₁) + E[½ log(2πe Var(x₂|x₁))] − H(p).
    """
    reach = 8 * banana.sigma
    x1 = torch.linspace(-8, 8 + reach**2 / 4, 1601, dtype=torch.float64)
    x2 = torch.linspace(-reach, reach, 801, dtype=torch.float64)
    joint = banana.log_prob(torch.cartesian_prod(x1, x2)).exp().reshape(len(x1), len(x2))

    density = torch.trapezoid(joint, x2)
    mean_2 = torch.trapezoid(joint * x2, x2) / density
    var_2 = torch.trapezoid(joint * x2.square(), x2) / density - mean_2.square()
    mean_1 = torch.trapezoid(density * x1, x1)
    var_1 = torch.trapezoid(density * (x1 - mean_1).square(), x1)
    first = 0.5 * (2 * math.pi * math.e * var_1).log()
    second = torch.trapezoid(density * 0.5 * (2 * math.pi * math.e * var_2).log(), x1)
    return (first + second - banana.entropy()).item()


def bare(flow: mf.Flow) -> nn.ModuleList:
    """For each layer a network of the same shapes, of torch's own layers."""
    nets = []
    for layer in flow.transform:
        if not isinstance(layer, mf.Autoregressive):
            continue
        linears = [
            nn.Linear(part.in_features, part.out_features, part.bias is not None)
            for part in layer.net.layers
        ]
        modules: list[nn.Module] = [linears[0]]
        for linear in linears[1:]:
            modules += [nn.ReLU(), linear]
        nets.append(nn.Sequential(*modules))
    return nn.ModuleList(nets)


def passes(module: nn.Module, many: int, gradients: bool, total: Callable[[], Tensor]) -> None:
    """Compute a number some times, and what its gradients are if they are asked for."""
    with torch.set_grad_enabled(gradients):
        for _ in range(many):
            value = total()
            if gradients:
                torch.autograd.grad(value, list(module.parameters()))


def tasks(name: str, dim: int, width: int, batch: int) -> dict[tuple[str, bool], Callable]:
    """What is timed, by its name and whether gradients are asked for."""
    torch.manual_seed(0)
    flow = getattr(mf, name)(dim, layers=5, hidden=(width, width))
    nets, x = bare(flow), torch.randn(batch, dim)
    compiled = copy.deepcopy(flow)
    compiled.transform.compile(backend=BACKEND, fullgraph=True)

    def all_nets() -> Tensor:
        return torch.stack([net(x).sum() for net in nets]).sum()

    what = {
        "one pass": (nets, 1, all_nets),
        "D passes": (nets, dim, all_nets),
        "sample": (flow, 1, lambda: flow.rsample(batch).sum()),
        "log_prob": (flow, 1, lambda: flow.log_prob(x).sum()),
    }
    todo = {
        (task, gradients): partial(passes, module, many, gradients, total)
        for gradients in (False, True)
        for task, (module, many, total) in what.items()
    }
    draw = partial(passes, compiled, 1, False, lambda: compiled.rsample(batch).sum())
    return {**todo, ("compiled sample", False): draw}


def cost(name: str, dim: int, width: int, batch: int, rounds: int) -> list[Row]:
    """The rows of one flow: all tasks take turns, after one round that does not count."""
    todo = tasks(name, dim, width, batch)
    times: dict[tuple[str, bool], list[float]] = {key: [] for key in todo}
    for i in tqdm(range(rounds + 1), desc=f"{name}({dim})", unit="round"):
        for key, task in todo.items():
            start = process_time()
            task()
            if i:
                times[key].append(process_time() - start)
    keys: Row = {"part": "cost", "flow": name, "dim": dim, "width": width, "batch": batch}
    rows = []
    for (what, gradients), taken in times.items():
        one, each = times["one pass", gradients], times["D passes", gradients]
        found: Row = {
            "milliseconds": 1000 * median(taken),
            "passes": median(taken) / median(one),
            "passes_minima": min(taken) / min(one),
            "D_passes": median(taken) / median(each),
            "D_passes_minima": min(taken) / min(each),
        }
        rows.append({**keys, "what": what, "gradients": gradients, **found})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the networks are small: more threads only wait for each other

    rows: list[Row] = []
    cells = [cell for cell in grid() if cell[0] in arguments.only]
    for cell in tqdm(cells, unit="run", disable=not cells):
        keys = dict(zip(("part", "flow", "layers", "seed"), cell, strict=True))
        rows.append({**keys, **run(*cell, arguments.steps)})
    if "cost" in arguments.only:
        rows += [row for case in CASES for row in cost(*case, arguments.rounds)]

    about = {part: facts(part, arguments.steps, arguments.rounds) for part in arguments.only}
    show(rows, about)
    write(arguments.out, about, rows)


def facts(part: str, steps: int, rounds: int) -> Row:
    """What a reader of the table must know about a part."""
    if part == "cost":
        return tables.about(rounds=rounds)
    law = BANANA if part == "order" else MOONS
    floor = {"floor": wrong_order_floor(BANANA)} if part == "order" else {}
    return tables.about(steps=steps, entropy=law.entropy().item(), **floor)


def show(rows: list[Row], about: dict[str, Row]) -> None:
    """Print the parts that were run."""
    trained = [row for row in rows if row["part"] != "cost"]
    if trained:
        tables.show(trained)
    if "order" in about:
        floor = about["order"]["floor"]
        print(f"order    the wrong order's floor                                    {floor:.4f}")
    if len(trained) < len(rows):
        print(
            "flow     D   batch  gradients  what             in passes (minima)   in D passes (minima)"
        )
    for row in rows[len(trained) :]:
        print(
            f"{row['flow']:7} {row['dim']:2}  {row['batch']:6}  {row['gradients']!s:9}  "
            f"{row['what']:15} {row['passes']:7.2f} ({row['passes_minima']:.2f})"
            f"          {row['D_passes']:.3f} ({row['D_passes_minima']:.3f})"
        )


def write(out: Path, about: dict[str, Row], rows: list[Row]) -> None:
    """Write the parts that were run; what the file holds of the others stays."""
    old = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    about = {**old.get("about", {}), **about}
    fresh = {row["part"] for row in rows}
    rows = rows + [row for row in old.get("runs", []) if row["part"] not in fresh]
    table = {
        "about": {part: about[part] for part in PARTS if part in about},
        "runs": sorted(rows, key=lambda row: PARTS.index(str(row["part"]))),
    }
    out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
