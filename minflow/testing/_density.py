"""Checks of one point and its density: the maps, their log-dets and what they carry."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from minflow.testing._case import Case, close, jacobians
from minflow.transform import Transform, interval


def declaration(case: Case) -> Iterator[str]:
    if case.transform.dim != case.dim:
        yield f"its dim is {case.transform.dim}, but it was made for D = {case.dim}"
    for name, go, _, start, context in case.sides():
        there = case.transform.codomain if name == "forward" else case.transform.domain
        if not bool(there.check(go(start, context)[0]).all()):
            yield f"{name} leaves the declared {'codomain' if name == 'forward' else 'domain'}"


def repeatable(case: Case) -> Iterator[str]:
    t = case.transform
    for name, go, _, start, context in case.sides():
        before = copy.deepcopy(t.state_dict())
        first, second = go(start, context), go(start, context)
        if not all(map(torch.equal, first, second)):
            yield f"{name} gives another answer to the same input the second time"
        if any(not torch.equal(v, before[k]) for k, v in t.state_dict().items()):
            yield f"calling {name} changes the state"
        evaluated = getattr(copy.deepcopy(t).eval(), name)(start, context)
        if not all(map(torch.equal, first, evaluated)):
            yield f"{name} differs between train() and eval()"


def round_trip(case: Case) -> Iterator[str]:
    ends = interval(case.transform.domain), interval(case.transform.codomain)
    for name, go, back, start, context in case.sides(64):
        if set(ends) == {(-math.inf, math.inf)}:
            start[:2] = torch.tensor([[30.0], [-30.0]])  # far out, nothing may be cut off
        end, log_det = go(start, context)
        again, log_det_back = back(end, context)
        if not close(again, start, 1e-6):
            yield f"{name} and back misses its start by {(again - start).abs().max():.2g}"
        if not close(log_det, -log_det_back, 1e-6):
            yield f"the log-dets of {name} and of the way back do not cancel"


def log_det(case: Case) -> Iterator[str]:
    for name, go, _, start, context in case.sides():
        _, log_det = go(start, context)
        if log_det.shape != start.shape[:-1]:
            expected, got = tuple(start.shape[:-1]), tuple(log_det.shape)
            yield f"{name} returns a log_det of shape {got}, where one number a point is {expected}"
            continue
        true_log_dets = torch.linalg.slogdet(jacobians(go, start, context)).logabsdet
        for i, true in enumerate(true_log_dets):
            if not close(log_det[i], true, 1e-6):
                flipped = (
                    " (the sign is flipped)" if close(log_det[i], -true, 1e-6) else ""
                )
                yield f"{name} says {log_det[i]:.6g}, its Jacobian has {true:.6g}{flipped}"
                break


def mass(case: Case) -> Iterator[str]:
    if case.dim > 2:
        return
    t = case.transform
    context = case.context_for(t)
    lower, upper = interval(t.domain) or (math.nan, math.nan)
    # The grid in x follows f: wide and fine where it must be, whatever the log-det.
    base = torch.quasirandom.SobolEngine(case.dim).draw(2**15, dtype=torch.float64)
    base = 18 * base - 9
    if math.isfinite(lower) and math.isfinite(upper):  # another law stands in as the base
        base = lower + (upper - lower) * torch.sigmoid(base)
    elif math.isfinite(lower):
        base = lower + base.exp()
    columns = [column.sort().values for column in t(base, context)[0].unbind(-1)]
    mass = math.nan
    # A coarse grid that finds all the mass will do; where it does not, a finer one looks.
    for count in (2001, 20_001) if case.dim == 1 else (201, 1001):
        places = torch.linspace(0, len(base) - 1, count).round().long()
        mass = _integral(t, [column[places] for column in columns], context)
        if abs(mass - 1) <= 0.01:
            return
    yield f"a density carried by it has mass {mass:.4g} instead of 1 (D = {case.dim})"


def _integral(t: Transform, grid: list[Tensor], context: Tensor | None) -> float:
    """The mass that a law on t's domain has on a grid in x, by the trapezoid rule."""
    lower, upper = interval(t.domain) or (math.nan, math.nan)
    dim = len(grid)
    x = torch.cartesian_prod(*grid).reshape(-1, dim)
    inside = t.codomain.check(x)
    z, log_det = t.inverse(x[inside], context)
    if lower == -math.inf and upper == math.inf:
        log_base = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
    elif math.isfinite(upper):
        log_base = torch.full_like(log_det, -dim * math.log(upper - lower))
    else:
        log_base = -(z - lower).sum(-1)
    density = torch.zeros(len(x), dtype=torch.float64)
    density[inside] = (log_base + log_det).exp()
    mass = density.reshape(*(len(g) for g in grid))
    for points in reversed(grid):
        mass = torch.trapezoid(mass, points, dim=-1)
    return float(mass.detach())


def far_out(case: Case) -> Iterator[str]:
    t = copy.deepcopy(case.transform).float()
    for name, where in [("forward", t.domain), ("inverse", t.codomain)]:
        lower, upper = interval(where) or (-math.inf, math.inf)
        low = lower + 1e-6 if math.isfinite(lower) else -1e3
        high = upper - 1e-6 if math.isfinite(upper) else 1e3
        far = torch.tensor([[low], [high]]).expand(2, case.dim)
        context = case.context_for(t, 2)
        end, log_det = getattr(t, name)(far, None if context is None else context.float())
        if not (end.isfinite().all() and log_det.isfinite().all()):
            yield f"{name} is not finite at {low:g} or {high:g} in float32"


def mixing(case: Case) -> Iterator[str]:
    if case.mixes is None or case.dim == 1:
        return
    points = case.points(case.transform.domain, 8)  # a ReLU is off at some, not at all
    context = case.context_for(case.transform, 8)
    full = jacobians(case.transform.forward, points, context)
    mixes = bool((full - full.diagonal(0, 1, 2).diag_embed()).abs().max() > 1e-9)
    if mixes != case.mixes:
        claim = (
            "said to mix coordinates, but its"
            if case.mixes
            else "said to mix none, but its"
        )
        yield f"it is {claim} Jacobian is {'not ' if mixes else ''}diagonal at D = {case.dim}"
