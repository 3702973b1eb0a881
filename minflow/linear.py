"""Linear maps of R^D with cheap determinants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from minflow.elementwise import soft_bound
from minflow.transform import Transform


class TriangularAffine(Transform):
    """x = L z + b, L lower triangular, positive on the diagonal.

        log|det df/dz| = Σ_d log L_dd

    Under a standard normal base, x ~ N(b, L Lᵀ). Every positive-definite covariance has
    exactly one such L, its Cholesky factor; here those with e⁻⁵ < L_dd < e⁵, since the
    diagonal is exp(s) with s softly bounded, as in `Affine`. It starts as the identity.

    Args:
        dim: D.

    Cost: O(D²) each way: a matrix product forward, forward substitution for the
    inverse.

    Source: Golub and Van Loan 2013, Matrix Computations, sections 3.1 and 4.2.

    >>> layer = TriangularAffine(2)
    >>> layer.matrix().detach()
    tensor([[1., 0.],
            [0., 1.]])
    """

    BOUND = 5.0
    rows_and_columns: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.shift = nn.Parameter(torch.zeros(dim))
        self.raw_log_diagonal = nn.Parameter(torch.zeros(dim))
        self.below_diagonal = nn.Parameter(torch.zeros(dim * (dim - 1) // 2))
        self.register_buffer("rows_and_columns", torch.tril_indices(dim, dim, -1))

    def log_diagonal(self) -> Tensor:
        """log L_dd, shape (D,)."""
        return soft_bound(self.raw_log_diagonal, self.BOUND)

    def matrix(self) -> Tensor:
        """L, shape (D, D)."""
        rows, columns = self.rows_and_columns
        diagonal = torch.diag(self.log_diagonal().exp())
        return diagonal.index_put((rows, columns), self.below_diagonal)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = z @ self.matrix().mT + self.shift
        return x, self.log_diagonal().sum().expand(x.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # A row of x is a column vector lying down, so solve zᵀ Lᵀ = (x − b)ᵀ for zᵀ.
        rows, upper = (x - self.shift).reshape(-1, self.dim), self.matrix().mT
        z = torch.linalg.solve_triangular(upper, rows, upper=True, left=False)
        return z.reshape(x.shape), -self.log_diagonal().sum().expand(x.shape[:-1])


class Householder(Transform):
    """x = Q z, a learned rotation: Q is a product of an even number of reflections.

        Q = H₁ H₂ ⋯ H_M,  H_m = I − 2 v_m v_mᵀ / ‖v_m‖²,  log|det df/dz| = 0

    Each H_m mirrors at the plane across v_m. Every rotation is such a product with
    M <= D, so M is D or, if D is odd, D − 1. It starts as the identity, since the v_m
    come in equal pairs. In one dimension nothing can be rotated: there M = 0.

    Args:
        dim: D.

    Cost: O(D²) a point, each way.

    Source: Householder 1958 (doi:10.1145/320941.320947); in flows, Tomczak and Welling
    2016 (arXiv:1611.09630).

    >>> layer = Householder(2)
    >>> layer(torch.tensor([1.0, 2.0]))[0].detach()
    tensor([1., 2.])
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        pairs = torch.eye(dim)[: dim // 2]
        self.normals = nn.Parameter(pairs.repeat_interleave(2, 0))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._reflect(z, self.normals.flip(0))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._reflect(x, self.normals)

    def _reflect(self, points: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        for v in torch.nn.functional.normalize(normals, dim=-1):
            points = points - 2 * (points @ v).unsqueeze(-1) * v
        return points, points.new_zeros(points.shape[:-1])


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
    def of(cls, data: Tensor | np.ndarray | Sequence[Sequence[float]]) -> Standardize:
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
        rows = data if isinstance(data, Tensor) else torch.as_tensor(np.asarray(data))
        like = rows if isinstance(data, Tensor) and rows.is_floating_point() else None
        rows = rows.detach().double()
        if rows.dim() != 2 or rows.numel() == 0:
            raise ValueError(f"data must have shape (N, D); got {tuple(rows.shape)}")
        if not rows.isfinite().all():
            bad = int((~rows.isfinite().all(-1)).sum())
            raise ValueError(f"{bad} of {len(rows)} rows of data hold NaN or infinity")
        layer = cls(rows.shape[1])
        layer.mean.copy_(rows.mean(0))
        layer.std.copy_(rows.std(0, correction=0))
        layer = layer if like is None else layer.to(like)
        constant = ((rows == rows[0]).all(0) | (layer.std == 0)).nonzero().flatten()
        if len(constant):
            raise ValueError(
                f"columns {constant.tolist()} of data never change in {len(rows)} rows "
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
