"""How near do flows of couplings come to the two moons? Held-out NLL in nats, by flow, depth and seed.

    python benchmarks/couplings.py                  everything, half an hour on one core
    python benchmarks/couplings.py --steps 100      a quick look
    python benchmarks/couplings.py --only moons     one of the three parts
    python benchmarks/couplings.py --out FILE.json  where to write the table

The budget is always the same: 20,000 points, standardised, Adam with a learning rate of 1e-3 that
falls to zero as a cosine, batches of 256, 2,000 steps, networks of 64×64. `gap` is the mean of
log p − log q over 50,000 fresh points, an estimate of KL(p‖q), with its standard error. The held-out
NLL, in the data's own units, is the exact entropy plus that gap: the mean of −log q, less what the
same points happen to be harder or easier than the target is on average.

moons    RealNVP and neural spline flows of several depths on the two moons (noise 0.05).
start    RealNVP with 8 layers and one choice made otherwise: couplings as they stand, not turned round
         (so that from x to z a small scale magnifies the shift); networks that start at zero.
mixing   RealNVP with 8 layers on three independent pairs of moons, turned by a random rotation of
         the six coordinates, whose halves change roles and are mixed by nothing else, by fixed
         permutations, or by the learned matrices of Glow.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import tables
import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

import minflow as mf

ROWS, TEST_ROWS = 20_000, 50_000
DEPTHS = {"realnvp": (2, 4, 8), "nsf": (2, 4)}
LONG = {("realnvp", 8), ("nsf", 4)}  # five seeds; three elsewhere
MOONS = mf.data.TwoMoons(noise=0.05)


class RotatedMoons:
    """Three independent pairs of moons in six coordinates, turned."""

    def __init__(self) -> None:
        generator = Generator().manual_seed(0)
        square = torch.randn(6, 6, generator=generator, dtype=torch.float64)
        self.rotation = torch.linalg.qr(square).Q.float()

    def sample(self, shape: tuple[int], generator: Generator) -> Tensor:
        parts = [MOONS.sample(shape, generator=generator) for _ in range(3)]
        return torch.cat(parts, -1) @ self.rotation.mT

    def entropy(self) -> Tensor:
        return 3 * MOONS.entropy()  # a rotation keeps volumes

    def log_prob(self, x: Tensor) -> Tensor:
        return sum(MOONS.log_prob(part) for part in (x @ self.rotation).split(2, -1))


def couplings(turn: bool = True, zero: bool = False) -> list[mf.Transform]:
    """Eight affine couplings of RealNVP, with one of its choices made otherwise."""
    layers: list[mf.Transform] = []
    for i in range(8):
        layer = mf.Coupling(2, mf.Affine(bound=2.0), flip=i % 2 == 1)
        if zero:
            nn.init.zeros_(layer.net[-1].weight)
        layers.append(mf.Inverse(layer) if turn else layer)
    return layers


def unmixed(dim: int) -> list[mf.Transform]:
    """RealNVP whose halves change roles, without permutations."""
    return [part for part in mf.realnvp(dim).transform if not isinstance(part, mf.Permute)]


def score(parts: list[mf.Transform], target: mf.data.TwoMoons | RotatedMoons, seed: int,
          train: Tensor, test: Tensor, steps: int) -> dict[str, float]:  # fmt: skip
    """Train a flow of these parts, and measure it in nats on fresh points."""
    flow = mf.Flow(mf.Compose(*parts, mf.Standardize.of(train)))
    mf.fit(flow, train, steps=steps, lr=1e-3, batch_size=256, seed=seed, progress=False)
    gap = mf.paired_gap(target, flow, test)
    return {"nll": target.entropy().item() + gap.nats, "gap": gap.nats, "error": gap.error}


def run(what: str, name: str, layers: int, seed: int, steps: int) -> dict[str, float]:
    """One row of the table."""
    target = RotatedMoons() if what == "mixing" else MOONS
    generator = Generator().manual_seed(1000 + seed)
    train = target.sample((ROWS,), generator=generator)
    test = target.sample((TEST_ROWS,), generator=generator)
    torch.manual_seed(seed)
    make = {
        "realnvp": lambda: mf.realnvp(2, layers=layers).transform,
        "nsf": lambda: mf.nsf(2, layers=layers).transform,
        "as it stands": lambda: couplings(turn=False),
        "starts at zero": lambda: couplings(zero=True),
        "nothing": lambda: unmixed(6),
        "permutations": lambda: mf.realnvp(6).transform,
        "glow": lambda: mf.glow(6).transform,
    }[name]
    return score(list(make()), target, seed, train, test, steps)


def grid() -> Iterator[tuple[str, str, int, int]]:
    """What is trained: the part, the flow, its layers and the seed."""
    cells = [("moons", name, depth) for name, depths in DEPTHS.items() for depth in depths]
    cells += [("start", name, 8) for name in ("as it stands", "starts at zero")]
    cells += [("mixing", name, 8) for name in ("nothing", "permutations", "glow")]
    for part, name, depth in cells:
        seeds = 5 if (part == "moons" and (name, depth) in LONG) else 3
        yield from ((part, name, depth, seed) for seed in range(seeds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--only", choices=("moons", "start", "mixing"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the networks are small: more threads only wait for each other

    rows = []
    cells = [cell for cell in grid() if arguments.only in (None, cell[0])]
    for cell in tqdm(cells, unit="run"):
        keys = dict(zip(("part", "flow", "layers", "seed"), cell, strict=True))
        rows.append({**keys, **run(*cell, arguments.steps)})

    tables.show(rows)
    about = tables.about(steps=arguments.steps, entropy=MOONS.entropy().item())
    arguments.out.write_text(json.dumps({"about": about, "runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
