"""Linear and affine maps of R^D that mix its coordinates, with cheap determinants."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minflow.scalar_map import soft_bound
from minflow.standardize import Data, finite_rows
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

    @classmethod
    def of(cls, data: Data) -> TriangularAffine:
        """The layer that starts as the best normal law for these data, and can learn on.

        b is their mean, L the Cholesky factor of their covariance. As a layer next to
        the data it spares the others the correlations. Take the training data alone.

        Args:
            data: shape (N, D), as for `Standardize.of`.

        Returns:
            A layer in the dtype of a tensor, and else in torch's default dtype.

        Raises:
            ValueError: if data has another shape, holds NaN or infinity, or its
                covariance is (almost) singular, or beyond what L_dd can be.
        """
        rows, like = finite_rows(data)
        centred = rows - rows.mean(0)
        lower, failed = torch.linalg.cholesky_ex(centred.mT @ centred / len(rows))
        log_diagonal = lower.diagonal().log()
        # Rounding leaves a pivot of 1e-8 of its column's spread where there is none.
        share = lower.diagonal() / centred.square().mean(0).sqrt()
        if failed or not (share > 1e-7).all() or log_diagonal.abs().max() >= cls.BOUND:
            raise ValueError(
                f"the covariance of these {len(rows)} rows has no Cholesky factor whose "
                f"diagonal lies between e^-{cls.BOUND:g} and e^{cls.BOUND:g}: leave out "
                "columns that depend on others, and let the rest pass a Standardize"
            )
        layer = cls(rows.shape[1]) if like is None else cls(rows.shape[1]).to(like)
        with torch.no_grad():
            layer.shift.copy_(rows.mean(0))
            raw = cls.BOUND * torch.atanh(log_diagonal / cls.BOUND)
            layer.raw_log_diagonal.copy_(raw)
            layer.below_diagonal.copy_(lower[tuple(layer.rows_and_columns.cpu())])
        return layer

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


class Permute(Transform):
    """x_d = z_σ(d): the coordinates in another order; log|det df/dz| = 0.

    The order σ is drawn when the layer is made, or given to `of`, and never learned. It
    is part of the state.

    Args:
        dim: D.

    Cost: a copy each way.

    >>> Permute.of([2, 0, 1])(torch.tensor([10.0, 20.0, 30.0]))[0]
    tensor([30., 10., 20.])
    """

    order: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("order", torch.randperm(dim))

    @classmethod
    def of(cls, order: Sequence[int]) -> Permute:
        """The layer for a given order.

        Args:
            order: each of 0, …, D − 1 once; x_d is z_order[d].

        Raises:
            ValueError: if it is anything else.
        """
        order = order.tolist() if isinstance(order, Tensor) else list(order)
        if sorted(order) != list(range(len(order))):
            raise ValueError(f"order must hold each of 0, …, D − 1 once; got {order}")
        layer = cls(len(order))
        layer.order.copy_(torch.tensor(order))
        return layer

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z[..., self.order], z.new_zeros(z.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x[..., self.order.argsort()], x.new_zeros(x.shape[:-1])


class LU(Transform):
    """x = P L U z: a learned linear mix of the coordinates, at a cheap log-det.

        log|det df/dz| = Σ_d log U_dd

    L is lower triangular with ones on its diagonal, U upper triangular with exp(s) on
    its own, s softly bounded as in `Affine`. P is a permutation that is drawn once and
    kept: the layer starts as P, with L = U = I. On the channels of an image this is
    Glow's 1×1 convolution.

    Args:
        dim: D.
        permute: whether P is drawn; if not, P = I.

    Cost: O(D²) a point each way; the inverse by two substitutions.

    Source: Kingma and Dhariwal 2018 (arXiv:1807.03039), section 3.2.

    >>> x, log_det = LU(3)(torch.randn(7, 3))
    >>> x.shape, bool((log_det == 0).all())
    (torch.Size([7, 3]), True)
    """

    BOUND = 5.0
    order: Tensor
    rows_and_columns: Tensor

    def __init__(self, dim: int, permute: bool = True) -> None:
        super().__init__(dim)
        self.permute = permute
        self.raw_log_diagonal = nn.Parameter(torch.zeros(dim))
        self.below_diagonal = nn.Parameter(torch.zeros(dim * (dim - 1) // 2))
        self.above_diagonal = nn.Parameter(torch.zeros(dim * (dim - 1) // 2))
        self.register_buffer("rows_and_columns", torch.tril_indices(dim, dim, -1))
        order = torch.randperm(dim) if permute else torch.arange(dim)
        self.register_buffer("order", order)

    def factors(self) -> tuple[Tensor, Tensor]:
        """L and U, each (D, D)."""
        rows, columns = self.rows_and_columns
        diagonal = soft_bound(self.raw_log_diagonal, self.BOUND).exp()
        lower = torch.diag(torch.ones_like(diagonal))
        lower = lower.index_put((rows, columns), self.below_diagonal)
        return lower, torch.diag(diagonal).index_put((columns, rows), self.above_diagonal)

    def matrix(self) -> Tensor:
        """P L U, shape (D, D)."""
        lower, upper = self.factors()
        return (lower @ upper)[self.order]

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z @ self.matrix().mT, self._log_det().expand(z.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper = self.factors()
        rows = x[..., self.order.argsort()].reshape(-1, self.dim)
        # Points are rows: first x = y Lᵀ is solved for y, then y = z Uᵀ for z.
        rows = torch.linalg.solve_triangular(lower.mT, rows, upper=True, left=False)
        rows = torch.linalg.solve_triangular(upper.mT, rows, upper=False, left=False)
        return rows.reshape(x.shape), -self._log_det().expand(x.shape[:-1])

    def _log_det(self) -> Tensor:
        return soft_bound(self.raw_log_diagonal, self.BOUND).sum()
