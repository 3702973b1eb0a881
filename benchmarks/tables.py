"""What the benchmarks share: what a table says of itself, and the means of trained flows in words."""

from __future__ import annotations

import datetime
import platform
from statistics import mean, stdev
from typing import Any

import torch

import minflow as mf

Row = dict[str, Any]


def about(**more: float) -> Row:
    """When and where a table was made, and whatever else its reader must know."""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": platform.machine(),
        "torch": torch.__version__.partition("+")[0],
        "minflow": mf.__version__,
        **more,
    }


def show(rows: list[Row]) -> None:
    """Print the means over seeds for each part, flow and number of layers."""
    print("part     flow                   layers  NLL in nats, mean ± 95 %   gap in nats")
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["part"], row["flow"], row["layers"]), []).append(row)
    for (part, flow, layers), group in groups.items():
        nll = [row["nll"] for row in group]
        t = {3: 4.303, 5: 2.776}[len(nll)]  # Student's t: the 95 % interval of a mean
        spread = t * stdev(nll) / len(nll) ** 0.5
        gap = mean(row["gap"] for row in group)
        print(f"{part:8} {flow:22} {layers:6}  {mean(nll):.4f} ± {spread:.4f}           {gap:.4f}")
