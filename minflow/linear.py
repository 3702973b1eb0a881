"""Linear maps of R^D with cheap determinants."""

from __future__ import annotations

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
