"""The reader's own rows: shuffled and cut into parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Rows = TypeVar("Rows", np.ndarray, Tensor)


def split(
    data: Rows, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0
) -> tuple[Rows, ...]:
    """The rows of the data, shuffled and dealt out: every row to exactly one part.

    The same seed shuffles arrays of equal length alike. So split x and its context one
    after the other, with one seed, and their rows stay together.

    Args:
        data: an array or a tensor, shape (N, ...).
        fractions: the size of each part as a fraction of N; positive, with sum 1.
        seed: of the shuffle; the global generators are left alone.

    Returns:
        A copy of each part's rows, of the data's own kind, shape (Nᵢ, ...); each Nᵢ is
        within one of N times its fraction, and all of them sum to N.

    Raises:
        TypeError: if the data are neither an array nor a tensor.
        ValueError: if the fractions are not positive with sum 1, or a part gets no row.

    >>> x, context = torch.arange(10.0).reshape(10, 1), torch.arange(10)
    >>> parts = split(x, (0.7, 0.3)), split(context, (0.7, 0.3))
    >>> [len(part) for part in parts[0]]
    [7, 3]
    >>> torch.equal(parts[0][1].squeeze(1), parts[1][1])
    True
    """
    if not isinstance(data, (np.ndarray, Tensor)):
        raise TypeError(
            f"data must be a NumPy array or a torch tensor; got {type(data).__name__}"
        )
    if data.ndim == 0:
        raise ValueError("data must have rows: shape (N, ...); got a single number")
    if not all(f > 0 for f in fractions) or abs(math.fsum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions must be positive with sum 1; got {tuple(fractions)}")
    total: int = data.shape[0]
    ends: list[int] = [round(total * part) for part in accumulate(fractions)]
    ends[-1] = total  # the sum of the fractions is only close to one
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    parts = [order[start:end] for start, end in pairwise([0, *ends])]
    if not all(len(rows) for rows in parts):
        raise ValueError(
            f"{total} rows leave a part empty: fractions {tuple(fractions)} give sizes "
            f"{tuple(len(rows) for rows in parts)}"
        )
    if isinstance(data, Tensor):
        return tuple(data[rows] for rows in parts)
    return tuple(data[rows.numpy()] for rows in parts)
