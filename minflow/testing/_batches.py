"""Checks of whole batches: their shapes and dtypes, and rows that leave each other alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch

from minflow.testing._case import Case, close


def shapes(case: Case) -> Iterator[str]:
    t = case.transform
    width = t.context_dim
    for name, go, _, start, context in case.sides(28):
        flat, flat_log_dets = go(start, context)
        for shape in [(), (0,), (7,), (4, 7)]:
            count = math.prod(shape)
            rows = None if context is None else context[:count].reshape(*shape, width)
            end, log_det = go(start[:count].reshape(*shape, case.dim), rows)
            if end.shape != (*shape, case.dim) or log_det.shape != shape:
                got = f"{tuple(end.shape)} and {tuple(log_det.shape)}"
                yield f"{name} turns batch shape {shape} into {got}"
            elif not (
                close(end.reshape(count, case.dim), flat[:count], 1e-9)
                and close(log_det.reshape(count), flat_log_dets[:count], 1e-9)
            ):
                yield f"{name} depends on how the batch is shaped: {shape} differs"
        if context is not None:
            end, log_det = go(start[:7], context[:4].unsqueeze(1))
            one, _ = go(start[2], context[3])
            if log_det.shape != (4, 7) or not close(end[3, 2], one, 1e-9):
                yield f"{name} does not broadcast a context of batch (4, 1) against points of batch (7,)"


def dtypes(case: Case) -> Iterator[str]:
    single = copy.deepcopy(case.transform).float()
    for name, go, _, start, context in case.sides():
        end, log_det = go(start, context)
        rows = None if context is None else context.float()
        single_end, single_log_det = getattr(single, name)(start.float(), rows)
        dtypes = {single_end.dtype, single_log_det.dtype}
        if dtypes != {torch.float32} or {end.dtype, log_det.dtype} != {torch.float64}:
            yield f"{name} changes the dtype: from float32 it makes {sorted(map(str, dtypes))}"
        for what, rough, exact in [
            ("", single_end, end),
            ("log_det ", single_log_det, log_det),
        ]:
            if not close(rough.double(), exact, 1e-3):
                yield f"{name}'s {what}in float32 is off by {(rough - exact).abs().max():.2g}"


def inputs_kept(case: Case) -> Iterator[str]:
    for name, go, _, start, context in case.sides():
        before = start.clone(), None if context is None else context.clone()
        go(start, context)
        if not torch.equal(start, before[0]):
            yield f"{name} writes into its input"
        if (
            context is not None
            and before[1] is not None
            and not torch.equal(context, before[1])
        ):
            yield f"{name} writes into its context"


def rows(case: Case) -> Iterator[str]:
    for name, go, _, start, context in case.sides():
        moved = torch.cat([start[1:2], start[1:]])
        before, after = go(start, context), go(moved, context)
        if not all(close(a[1:], b[1:], 1e-9) for a, b in zip(before, after, strict=True)):
            yield f"{name} lets one row of the batch change another"


def context(case: Case) -> Iterator[str]:
    for name, go, _, start, context in case.sides():
        if context is None:
            continue
        for i, moved in enumerate(torch.eye(context.shape[-1], dtype=context.dtype)):
            if torch.equal(go(start, context)[0], go(start, context + moved)[0]):
                yield f"{name} does not depend on number {i} of its context"
