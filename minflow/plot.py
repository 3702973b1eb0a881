"""The pictures that chapters share, in the book's colours: blue base, orange data, green model.

The colours are Okabe and Ito's, which colour-blind readers can tell apart, and they
differ in lightness, so that they can be told apart in print too. Each function draws
into one axes, labels it and returns it; `pushforward` makes a figure of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from minflow.flow import Flow
from minflow.run import History
from minflow.transform import Transform
from minflow.transform import interval as interval_of

BASE, DATA, MODEL, GREY = "#0072B2", "#D55E00", "#009E73", "#6b6b6b"


def use_style() -> None:
    """Set the book's look for all figures that follow: white paper and a thin grid.

    A figure 5.6 inches wide fills the column of the book, and its words can still be read
    on a phone.
    """
    sns.set_theme(
        style="ticks",
        font_scale=1.1,
        rc={
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e6e6e6",
            "figure.dpi": 130,
            "savefig.bbox": "tight",
            "figure.facecolor": "white",
            "lines.linewidth": 2,
            "legend.frameon": False,
        },
    )


def curve(
    x: Tensor,
    y: Tensor,
    color: str,
    label: str | None = None,
    *,
    ax: Axes | None = None,
    ls: str = "-",
) -> Axes:
    """A density of one variable, as a line; the axis starts at zero, since heights are compared.

    Args:
        x: positions, shape (N,).
        y: the density at each, shape (N,).
        color: BASE, DATA or MODEL.
        label: what the legend says.
        ax: where to draw; a new axes if None.
        ls: matplotlib's line style.
    """
    ax = ax or plt.subplots(figsize=(5.6, 3))[1]
    ax.plot(x.detach(), y.detach(), color=color, label=label, ls=ls)
    ax.set(
        ylabel="density",
        ylim=(0, max(ax.get_ylim()[1], 1.08 * float(y.detach().max()))),
    )
    if label:
        ax.legend()
    return ax


def pushforward(flow: Flow, interval: tuple[float, float], reach: float = 4.0) -> Figure:
    """A 1-D flow as three linked panels: the base below, the map, the data density at its side.

    The interval in z is shaded, and so is its image in x: the two areas are the same
    mass. Both masses (each integrated by itself) and both peaks are written beside
    them.

    Args:
        flow: a flow with dim 1.
        interval: the z between which the mass is shaded.
        reach: the base is drawn from −reach to reach, as far as it lives there.

    Raises:
        ValueError: if the flow has another dim.
    """
    if flow.dim != 1:
        raise ValueError(f"pushforward draws a flow with dim 1; got dim {flow.dim}")

    dtype = next(flow.base.buffers()).dtype
    start, end = interval_of(flow.base.support) or (-math.inf, math.inf)

    def carry(z: np.ndarray) -> np.ndarray:
        x, _ = flow.transform(torch.tensor(z, dtype=dtype)[:, None])
        return x[:, 0].numpy()

    def height(log_prob: Callable[[Tensor], Tensor], points: np.ndarray) -> np.ndarray:
        return log_prob(torch.tensor(points, dtype=dtype)[:, None]).exp().numpy()

    with torch.no_grad():
        z = np.linspace(max(-reach, start + 1e-3), min(reach, end - 1e-3), 801)
        x = carry(z)
        x_line = np.linspace(x.min(), x.max(), 1601)
        z_part = np.linspace(min(interval), max(interval), 801)
        image = carry(np.array(interval))
        x_part = np.linspace(image.min(), image.max(), 801)
        base, data = height(flow.base.log_prob, z), height(flow.log_prob, x_line)
        base_part = height(flow.base.log_prob, z_part)
        data_part = height(flow.log_prob, x_part)
    figure, panels = plt.subplot_mosaic(
        "DM;TB",
        figsize=(5.6, 5),
        width_ratios=(1, 1.7),
        height_ratios=(1.7, 1),
        layout="constrained",
    )
    side, map_, below = panels["D"], panels["M"], panels["B"]
    map_.vlines(interval, x_line[0], image, color=GREY, lw=1, ls=":")
    map_.hlines(image, z[0], interval, color=GREY, lw=1, ls=":")
    map_.plot(z, x, color="black")
    map_.set(title="the map x = f(z)", xlim=(z[0], z[-1]), ylim=(x_line[0], x_line[-1]))
    below.plot(z, base, color=BASE)
    below.fill_between(z_part, base_part, color=BASE, alpha=0.35)
    below.set(xlabel="z", ylabel="base density", xlim=(z[0], z[-1]), ylim=(0, None))
    side.plot(data, x_line, color=DATA)
    side.fill_betweenx(x_part, data_part, color=DATA, alpha=0.35)
    side.set(xlabel="data density", ylabel="x", ylim=map_.get_ylim(), xlim=(0, None))
    side.invert_xaxis()
    panels["T"].axis("off")
    words = [
        ("z", BASE, np.trapezoid(base_part, z_part), base.max()),
        ("x", DATA, np.trapezoid(data_part, x_part), data.max()),
    ]
    for row, (name, color, mass, peak) in enumerate(words):
        text = f"{name}: mass {mass:.2f}\n    peak {peak:.3f}"
        panels["T"].text(-0.1, 0.5 - 0.45 * row, text, color=color, weight="bold")
    return figure


def samples(
    x: Tensor, color: str = DATA, *, ax: Axes | None = None, label: str | None = None
) -> Axes:
    """Points of the plane, shape (N, 2), as small dots on equal axes."""
    ax = ax or plt.subplots(figsize=(4.2, 4))[1]
    x = x.detach()
    ax.scatter(
        x[:, 0],
        x[:, 1],
        s=3,
        color=color,
        alpha=0.5,
        lw=0,
        label=label,
        rasterized=True,
    )
    ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    return ax


def density(
    log_prob: Callable[[Tensor], Tensor],
    limits: tuple[float, float, float, float],
    *,
    ax: Axes | None = None,
    points: int = 160,
) -> Axes:
    """A density on the plane as shades, darkest where it is highest.

    Args:
        log_prob: (N, 2) -> (N,), such as a flow's or a target's.
        limits: left, right, bottom, top.
        ax: where to draw; a new axes if None.
        points: grid points along each axis.
    """
    ax = ax or plt.subplots(figsize=(4.2, 4))[1]
    left, right, bottom, top = limits
    x1, x2 = torch.linspace(left, right, points), torch.linspace(bottom, top, points)
    with torch.no_grad():
        heights = log_prob(torch.cartesian_prod(x1, x2)).exp().reshape(points, points)
    ax.imshow(
        heights.T.numpy(), origin="lower", extent=limits, cmap="mako_r", aspect="equal"
    )
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    ax.grid(False)
    return ax


def grid(
    transform: Transform, *, ax: Axes | None = None, reach: float = 3.0, lines: int = 13
) -> Axes:
    """What a transform of the plane does to a square grid of the base: lines z₁ = c and z₂ = c."""
    ax = ax or plt.subplots(figsize=(4.2, 4))[1]
    along = torch.linspace(-reach, reach, 201)
    with torch.no_grad():
        for c in torch.linspace(-reach, reach, lines):
            fixed = c.expand_as(along)
            for z, style in [((fixed, along), "-"), ((along, fixed), "--")]:
                x = transform(torch.stack(z, -1))[0].numpy()
                ax.plot(x[:, 0], x[:, 1], color=BASE, lw=0.8, ls=style)
    ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    return ax


def history(
    record: History,
    floor: float | None = None,
    *,
    ax: Axes | None = None,
    smooth: int = 20,
) -> Axes:
    """The loss of each step and its running mean, in nats, and the entropy that it can't beat.

    Held-out scores are black dots, the best one ringed; skipped steps are left out.

    Args:
        record: what `fit` or `fit_energy` returned.
        floor: the target's entropy, if known; for `fit_energy`, −log Z.
        ax: where to draw; a new axes if None.
        smooth: how many steps the running mean takes in.
    """
    ax = ax or plt.subplots(figsize=(5.6, 3))[1]
    loss = np.asarray(record.loss)
    steps = np.arange(1, len(loss) + 1)[np.isfinite(loss)]
    loss = loss[np.isfinite(loss)]
    ax.plot(steps, loss, color=MODEL, alpha=0.3, lw=1, label="each batch")
    if len(loss) >= smooth:
        mean = np.convolve(loss, np.ones(smooth) / smooth, mode="valid")
        ax.plot(steps[smooth - 1 :], mean, color=MODEL, label=f"mean of {smooth} steps")
    if record.validation:
        ax.plot(*zip(*record.validation, strict=True), "k.-", lw=1, label="held out")
    if record.best_step is not None:
        best = dict(record.validation)[record.best_step]
        ax.plot(record.best_step, best, "ko", ms=10, mfc="none", label="best")
    if floor is not None and math.isfinite(floor):
        ax.axhline(floor, color=DATA, ls="--", label="entropy: the floor")
    ax.set(xlabel="step", ylabel="mean $-\\log q$ (nats)")
    ax.legend()
    return ax
