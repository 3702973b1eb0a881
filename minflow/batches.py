"""What `fit` learns from: tensors, map-style data sets or loaders, batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, default_collate

from minflow.flow import Flow

Batch = tuple[Tensor, Tensor | None]
Data = Tensor | Dataset[Any] | Iterable[Any]


class Rows:
    """Numbered rows, in tensors or in a map-style data set: each step has its own.

    The rows are shuffled anew for each pass and dealt out in order, so that a step's
    rows follow from its number alone: a run that goes on from a checkpoint meets the
    batches that it would have met.

    Args:
        x: points (N, D), or a data set whose items are x or (x, context).
        context: shape (N, C), for points of a conditional flow.
    """

    def __init__(self, x: Tensor | Dataset[Any], context: Tensor | None = None) -> None:
        self.x, self.context = x, context
        self._pass, self._order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.x)  # type: ignore[arg-type]  # a map-style data set has a length

    def batch(self, rows: np.ndarray) -> Any:
        """The rows with these numbers."""
        if not isinstance(self.x, Tensor):
            return default_collate([self.x[int(row)] for row in rows])
        index = torch.from_numpy(rows).to(self.x.device)
        x = self.x[index]
        return (x, None if self.context is None else self.context[index])

    def of_step(self, step: int, size: int, seed: int) -> Any:
        """The batch of one step: the next `size` rows, or all rows if they are fewer."""
        count = len(self)
        size = min(size, count)
        done, start = divmod(step * size, count)
        rows = self._shuffled(done, seed)[start : start + size]
        if len(rows) < size:  # this batch ends one pass and begins the next
            rows = np.concatenate([rows, self._shuffled(done + 1, seed)])[:size]
        return self.batch(rows)

    def _shuffled(self, number: int, seed: int) -> np.ndarray:
        if number != self._pass:
            self._order = np.random.default_rng([seed, number]).permutation(len(self))
            self._pass = number
        return self._order

    def in_order(self, size: int) -> Iterator[Any]:
        """All rows once, a batch of at most `size` after the other."""
        for rows in np.array_split(np.arange(len(self)), -(-len(self) // size)):
            yield self.batch(rows)

    def split(self, fraction: float, seed: int) -> tuple[Rows, Rows]:
        """The rows to train on, and a random fraction of them held out."""
        held_out = round(fraction * len(self)) if 0 < fraction < 1 else 0
        if not 0 < held_out < len(self):
            raise ValueError(
                f"validation={fraction!r} of {len(self)} rows leaves one side empty"
            )
        order = np.random.default_rng(seed).permutation(len(self))
        return self._part(order[held_out:]), self._part(order[:held_out])

    def _part(self, rows: np.ndarray) -> Rows:
        if isinstance(self.x, Tensor):
            return Rows(*self.batch(rows))
        return Rows(Subset(self.x, rows.tolist()))

    def fingerprint(self) -> str:
        """What tells these data from others: their size and, of tensors, some rows."""
        digest = hashlib.sha256(str(len(self)).encode())
        for part in (self.x, self.context):
            if isinstance(part, Tensor):
                some = part[:: max(1, len(part) // 1000)].cpu().flatten()
                digest.update(f"{tuple(part.shape)} {part.dtype}".encode())
                digest.update(some.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class Loader:
    """Batches as a loader deals them out; after the last one it starts again."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self._running: Iterator[Any] = iter(())

    def of_step(self, step: int, size: int, seed: int) -> Any:
        """The loader's next batch, whatever the step."""
        batch = next(self._running, None)
        if batch is None:
            self._running = iter(self.batches)
            batch = next(self._running, None)
        if batch is None:
            raise ValueError(
                f"the loader gave no batch at step {step}: it must have some, and start "
                "again each time it is iterated"
            )
        return batch

    def in_order(self, size: int) -> Iterator[Any]:
        """All batches once, as large as the loader makes them."""
        yield from self.batches

    def fingerprint(self) -> str:
        return "a loader"


def source(
    flow: Flow, name: str, data: Data, context: Tensor | None = None
) -> Rows | Loader:
    """Data as rows or as a loader; what can be checked before a step is taken is.

    Raises:
        TypeError: if data is none of the kinds, or tensors have another dtype.
        ValueError: if there is no row, shapes do not fit, or a tensor holds NaN or
            infinity.
    """
    if isinstance(data, Tensor):
        return Rows(*checked_rows(flow, name, data, context))
    if context is not None:
        raise TypeError(
            f"context goes with a tensor; here {name} is a {type(data).__name__}, which "
            "gives (x, context) pairs itself"
        )
    frame = hasattr(data, "iloc")  # pandas'
    if frame or isinstance(data, list | tuple | np.ndarray | dict | str):
        raise TypeError(
            f"{name} must be a tensor, a map-style data set or a loader; got "
            f"{type(data).__name__}. torch.tensor(numpy.asarray(...), "
            "dtype=torch.float32) makes a tensor."
        )
    if isinstance(data, IterableDataset):
        raise TypeError(f"{name} is an IterableDataset: wrap it in a DataLoader")
    if isinstance(data, Sized) and hasattr(data, "__getitem__"):
        if len(data) == 0:
            raise ValueError(f"{name} has no rows")
        return Rows(data)
    if isinstance(data, Iterable):
        return Loader(data)
    raise TypeError(
        f"{name} must be a tensor, a map-style data set or a loader; got "
        f"{type(data).__name__}"
    )


def checked_rows(flow: Flow, name: str, x: Tensor, context: Tensor | None) -> Batch:
    """Points (N, D) and their context, if they fit the flow; else an error says why."""
    flow.check(name, x, flow.dim)
    if x.dim() != 2 or len(x) == 0:
        raise ValueError(
            f"{name} must have shape (N, {flow.dim}), N >= 1; got {tuple(x.shape)}"
        )
    if not x.isfinite().all():
        bad = int((~x.isfinite().all(-1)).sum())
        raise ValueError(f"{bad} of {len(x)} rows of {name} hold NaN or infinity")
    if flow.context_dim and context is None:
        raise ValueError(
            f"this flow needs a context for {name}, of shape "
            f"{(len(x), flow.context_dim)}: TensorDataset(x, context) holds both"
        )
    if context is not None and not flow.context_dim:
        raise ValueError(
            f"this flow takes no context, but one of shape {tuple(context.shape)} came "
            f"with {name}: make the flow with context_dim={context.shape[-1]}"
        )
    if context is not None and context.shape != (len(x), flow.context_dim):
        raise ValueError(
            f"context must have shape {(len(x), flow.context_dim)}, a row for each of "
            f"{name}; got {tuple(context.shape)}"
        )
    if context is not None:
        flow.check("context", context, flow.context_dim)
        if not context.isfinite().all():
            raise ValueError("context holds NaN or infinity")
    return x.detach(), None if context is None else context.detach()


def unpack(batch: Any, device: torch.device) -> Batch:
    """A batch of any make as (x, context) on the device."""
    parts = tuple(batch) if isinstance(batch, list | tuple) else (batch,)
    if not 1 <= len(parts) <= 2 or not isinstance(parts[0], Tensor):
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise TypeError(f"a batch must be x or (x, context), tensors; got ({kinds})")
    context = parts[1] if len(parts) == 2 else None
    return parts[0].to(device), None if context is None else context.to(device)
