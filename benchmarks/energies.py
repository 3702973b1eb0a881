"""How near do planar flows come to U1 to U4? Reverse KL in nats, by depth, energy and seed.

    python benchmarks/energies.py                  the whole grid, an hour or less on one core
    python benchmarks/energies.py --steps 100      a quick look
    python benchmarks/energies.py --out FILE.json  where to write the table

Each run trains `planar_flow(2, layers=depth)` with `fit_energy` on the unnormalised density of one
energy, and then scores 100,000 samples of the flow against the exact density: the mean of
log q − log p is KL(q‖p), in absolute nats since the normaliser is known. With the depth 0 the flow is
a normal law with independent coordinates. `share` is the mass at x₁ > 0, exactly ½ for U1 and for
the envelope of the others: it shows a lost mode, or half of one.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import tables
import torch
from tqdm import tqdm

import minflow as mf

ENERGIES = {"U1": mf.data.U1, "U2": mf.data.U2, "U3": mf.data.U3, "U4": mf.data.U4}
DEPTHS, SEEDS = (0, 2, 8, 32), (0, 1, 2)
SAMPLES = 100_000


def run(energy: str, depth: int, seed: int, **options: float) -> dict[str, float]:
    """Train one flow, and measure its reverse KL in nats, with the standard error."""
    target = ENERGIES[energy]()
    torch.manual_seed(seed)
    flow = mf.planar_flow(2, layers=depth)
    mf.fit_energy(flow, target.log_unnormalized, seed=seed, progress=False, **options)
    with torch.no_grad():
        x, log_q = flow.sample_and_log_prob(SAMPLES)
        gap = log_q.double() - target.log_prob(x).double()
    return {
        "nats": gap.mean().item(),
        "error": gap.std().item() / SAMPLES**0.5,
        "share": (x[:, 0] > 0).double().mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the layers are small: more threads only wait for each other

    options = {"steps": arguments.steps, "lr": arguments.lr, "batch_size": arguments.batch_size}
    anneals = {"plain": 0, "annealed": arguments.steps // 2}
    rows = []
    grid = list(itertools.product(ENERGIES, DEPTHS, anneals, SEEDS))
    for energy, depth, how, seed in tqdm(grid, unit="run"):
        result = run(energy, depth, seed, anneal=anneals[how], **options)
        rows.append({"energy": energy, "depth": depth, "how": how, "seed": seed, **result})

    print("energy  depth  how        KL(q‖p) in nats for each seed")
    for (energy, depth, how), group in itertools.groupby(
        rows, key=lambda row: (row["energy"], row["depth"], row["how"])
    ):
        nats = "  ".join(f"{row['nats']:.3f}" for row in group)
        print(f"{energy:6}  {depth:5}  {how:9}  {nats}")
    table = {"about": tables.about(**options), "runs": rows}
    arguments.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
