"""Each coordinate brought to mean 0 and deviation 1, by given or by learned numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from minflow.transform import Transform

Data = Tensor | np.ndarray | Sequence[Sequence[float]]


def finite_rows(data: Data) -> tuple[Tensor, Tensor | None]:
    """Data as finite float64 rows (N, D), and a tensor whose dtype a layer for them has.

    ValueError if they have another shape, or hold NaN or infinity.
    """
    rows = data if isinstance(data, Tensor) else torch.as_tensor(np.asarray(data))
    like = rows if isinstance(data, Tensor) and rows.is_floating_point() else None
    rows = rows.detach().double()
    if rows.dim() != 2 or rows.numel() == 0:
        raise ValueError(f"data must have shape (N, D); got {tuple(rows.shape)}")
    if not rows.isfinite().all():
        bad = int((~rows.isfinite().all(-1)).sum())
        raise ValueError(f"{bad} of {len(rows)} rows of data hold NaN or infinity")
    return rows, like


def _constant(rows: Tensor, std: Tensor) -> list[int]:
    """The columns that never change, though rounding may give them a spread, or whose
    spread is lost in the dtype of std."""
    still = (rows == rows[:1]).all(0) | ~(std > 0)
    return still.nonzero().flatten().tolist()


class Standardize(Transform):
    """x = m + s ⊙ z with constants m and s, the mean and standard deviation of data.

        log|det df/dz| = Σ_d log s_d

    As the last layer of a flow it lets the layers before it work on data of mean 0 and
    standard deviation 1, while the flow scores and samples in the data's own units: the
    log-det of the standardisation is counted by itself. It has nothing to train.

    Args:
        dim: D. The layer starts as the identity; `of` makes one for given data.

    Cost: one product and one sum, each way; no network.

    >>> layer = Standardize.of([[1.0, 10.0], [3.0, 30.0]])
    >>> layer.inverse(torch.tensor([2.0, 40.0]))
    (tensor([0., 2.]), tensor(-2.3026))
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    @classmethod
    def of(cls, data: Data) -> Standardize:
        """The layer for these data: their column means and standard deviations.

        Take the training data alone: held-out data must not tell the model anything.

        Args:
            data: shape (N, D), a tensor, or what numpy makes an array of.

        Returns:
            A layer in the dtype of a tensor, and else in torch's default dtype.

        Raises:
            ValueError: if data has another shape, holds NaN or infinity, or a column
                never changes.
        """
        rows, like = finite_rows(data)
        layer = cls(rows.shape[1])
        layer.mean.copy_(rows.mean(0))
        layer.std.copy_(rows.std(0, correction=0))
        layer = layer if like is None else layer.to(like)
        constant = _constant(rows, layer.std)
        if constant:
            raise ValueError(
                f"columns {constant} of data never change in {len(rows)} rows "
                f"(or too little for {layer.std.dtype}): their density would be "
                "infinite; leave them out"
            )
        return layer

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.mean + self.std * z
        return x, self.std.log().sum().expand(x.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = (x - self.mean) / self.std
        return z, -self.std.log().sum().expand(z.shape[:-1])


class ActNorm(Transform):
    """x = m + s ⊙ z, learned, from a start at the mean and deviation of a first batch.

        log|det df/dz| = Σ_d log s_d

    After `initialize`, which `fit` calls, what arrives as x leaves as z with mean 0 and
    standard deviation 1 in each coordinate: so every layer of a deep flow starts on data
    of one scale. That happens once. The state holds a flag, so a flow that was loaded,
    or is fitted again, keeps what it has learned. (`fit_energy` has no data, and makes no
    start.)

    Args:
        dim: D.

    Raises:
        ValueError: from `initialize`, if a coordinate of the batch never changes.

    Cost: one product and one sum, each way; no network.

    Source: Kingma and Dhariwal 2018 (arXiv:1807.03039), section 3.1.

    >>> layer = ActNorm(1)
    >>> layer.initialize(torch.tensor([[2.0], [6.0]]))
    >>> layer.inverse(torch.tensor([6.0]))[0].detach()
    tensor([1.])
    """

    initialized: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.shift = nn.Parameter(torch.zeros(dim))
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.register_buffer("initialized", torch.tensor(False))

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        if self.initialized:
            return
        rows = x.reshape(-1, self.dim)
        std = rows.std(0, correction=0) if len(rows) else rows.new_zeros(self.dim)
        constant = _constant(rows, std)
        if constant:
            raise ValueError(
                f"ActNorm starts from the spread of a batch, but coordinates {constant} "
                f"have none in these {len(rows)} rows"
            )
        self.shift.copy_(rows.mean(0))
        self.log_scale.copy_(std.log())
        self.initialized.fill_(True)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.shift + self.log_scale.exp() * z
        return x, self.log_scale.sum().expand(x.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = (x - self.shift) * (-self.log_scale).exp()
        return z, -self.log_scale.sum().expand(z.shape[:-1])
