"""Transforms: invertible maps that know how much they stretch.

A transform f takes a base point z to a data point x, both real vectors in the last
dimension:

    x = f(z),   forward(z) -> (x, log|det df/dz|),   inverse(x) -> (z, log|det
    df⁻¹/dx|).

The log-det always belongs to the map that was just applied, so forward and inverse
report opposite numbers at matching points.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from minflow.nets import check_whole


class Transform(nn.Module):
    """An invertible map f from base z to data x: two methods, (value, log_det) each.

    A subclass calls ``super().__init__(dim)`` and writes `forward` and `inverse`. If f
    does not map all of R^D onto all of R^D, it also sets `domain` and `codomain`.

    Args:
        dim: D, the size of the last dimension; at least 1.
        context_dim: size C of the context that f depends on; 0 if it depends on none.

    Raises:
        ValueError: if dim < 1 or context_dim < 0.
    """

    domain: Constraint = constraints.real_vector
    codomain: Constraint = constraints.real_vector

    def __init__(self, dim: int, context_dim: int = 0) -> None:
        super().__init__()
        check_whole("dim", dim, 1)
        check_whole("context_dim", context_dim, 0)
        self.dim = dim
        self.context_dim = context_dim

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Apply f.

        Args:
            z: base points, shape (*batch, D).
            context: what f depends on, shape (*context_batch, C); None if it depends on
                nothing.

        Returns:
            x of shape (*B, D) and log|det df/dz| of shape (*B), B the two batches
            broadcast.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Apply f⁻¹.

        Args:
            x: data points, shape (*batch, D).
            context: as in `forward`.

        Returns:
            z of shape (*B, D) and log|det df⁻¹/dx| of shape (*B).
        """
        raise NotImplementedError(f"{type(self).__name__} has no inverse")

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set parameters from a first batch of data; most have nothing to set.

        Args:
            x: data points as they arrive at this transform's data side, shape (*batch,
                D).
            context: as in `forward`.
        """

    def extra_repr(self) -> str:
        return f"dim={self.dim}" + (
            f", context_dim={self.context_dim}" if self.context_dim else ""
        )


class Compose(Transform):
    """Several transforms in a row, listed from base to data: f = f_K ∘ … ∘ f_1.

    log|det df/dz| is the sum of the parts' log-dets, each at the point where it is
    applied.

    Args:
        transforms: one or more transforms of the same dim, the one next to the base
            first.

    Raises:
        TypeError: if a part is not a Transform.
        ValueError: if there is no part, or two neighbours do not fit.

    Cost: the sum of the parts' costs, each way.

    >>> import torch, minflow
    >>> affine = minflow.Elementwise(2, minflow.Affine())
    >>> flow = Compose(affine, minflow.Elementwise(2, minflow.Sigmoid()))
    >>> x, log_det = flow(torch.zeros(5, 2))
    >>> x.shape, log_det.shape
    (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(self, *transforms: Transform) -> None:
        if not transforms:
            raise ValueError("Compose needs at least one transform")
        for part in transforms:
            if not isinstance(part, Transform):
                raise TypeError(
                    f"Compose takes transforms one by one, Compose(first, second); "
                    f"got {type(part).__name__}"
                )
        for i, (left, right) in enumerate(itertools.pairwise(transforms)):
            names = (
                f"part {i} ({type(left).__name__}) "
                f"and part {i + 1} ({type(right).__name__})"
            )
            if left.dim != right.dim:
                raise ValueError(f"{names} differ in dim: {left.dim} and {right.dim}")
            ends, starts = interval(left.codomain), interval(right.domain)
            if ends is not None and starts is not None and ends != starts:
                raise ValueError(
                    f"{names} do not fit: "
                    f"the first ends in {ends}, the second starts from {starts}"
                )
        widths = {part.context_dim for part in transforms} - {0}
        if len(widths) > 1:
            raise ValueError(
                f"the parts expect contexts of different widths: {sorted(widths)}"
            )
        super().__init__(transforms[0].dim, max(widths, default=0))
        self.transforms = nn.ModuleList(transforms)
        self.domain = transforms[0].domain
        self.codomain = transforms[-1].codomain

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = z, z.new_zeros(())
        for part in self.transforms:
            x, part_log_det = part(x, context)
            log_det = log_det + part_log_det
        return x, log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = x, x.new_zeros(())
        for part in reversed(list(self)):
            z, part_log_det = part.inverse(z, context)
            log_det = log_det + part_log_det
        return z, log_det

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        for part in reversed(list(self)):
            part.initialize(x, context)
            x, _ = part.inverse(x, context)

    def __iter__(self) -> Iterator[Transform]:
        return iter(self.transforms)  # type: ignore[arg-type]  # ModuleList forgets its items' type

    def __len__(self) -> int:
        return len(self.transforms)


class Inverse(Transform):
    """The same map the other way round: forward and inverse change places.

    A data-dependent start is not passed on: the data arrive at the part's base side.

    Args:
        transform: the transform to turn round.

    Cost: the part's costs, exchanged.

    >>> import torch, minflow
    >>> to_line = Inverse(minflow.Elementwise(1, minflow.Sigmoid()))
    >>> to_line(torch.tensor([0.5]))[0]
    tensor([0.])
    """

    def __init__(self, transform: Transform) -> None:
        if not isinstance(transform, Transform):
            raise TypeError(f"Inverse takes a Transform; got {type(transform).__name__}")
        super().__init__(transform.dim, transform.context_dim)
        self.transform = transform
        self.domain = transform.codomain
        self.codomain = transform.domain

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(x, context)


class Between(Constraint):
    """Vectors with each coordinate strictly between two ends of its own.

    Args:
        lower, upper: the ends, D floats each; infinite where there is none.
    """

    event_dim = 1

    def __init__(self, lower: Sequence[float], upper: Sequence[float]) -> None:
        self.lower, self.upper = tuple(lower), tuple(upper)

    def check(self, value: Tensor) -> Tensor:
        """Whether each point lies inside: (*batch, D) -> (*batch)."""
        lower, upper = value.new_tensor(self.lower), value.new_tensor(self.upper)
        return ((lower < value) & (value < upper)).all(-1)

    def __repr__(self) -> str:
        return f"Between({self.lower}, {self.upper})"


def ends(constraint: Constraint, dim: int) -> list[tuple[float, float]] | None:
    """The open interval where a constraint keeps each of D coordinates, (D, 2).

    None if it keeps them in no such intervals.

    >>> ends(constraints.independent(constraints.positive, 1), 2)
    [(0.0, inf), (0.0, inf)]
    """
    if isinstance(constraint, Between):
        return list(zip(constraint.lower, constraint.upper, strict=True))
    same = interval(constraint)
    return None if same is None else [same] * dim


def interval(constraint: Constraint) -> tuple[float, float] | None:
    """The open interval where a constraint keeps every coordinate; None if it is none.

    >>> interval(constraints.real_vector)
    (-inf, inf)
    >>> interval(constraints.independent(constraints.positive, 1))
    (0.0, inf)
    """
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    if isinstance(constraint, Between):
        pairs = {*zip(constraint.lower, constraint.upper, strict=True)}
        return pairs.pop() if len(pairs) == 1 else None
    lower = getattr(constraint, "lower_bound", None)
    upper = getattr(constraint, "upper_bound", None)
    if lower is None and upper is None and constraint is not constraints.real:
        return None
    if isinstance(lower, Tensor):
        lower = lower.min()
    if isinstance(upper, Tensor):
        upper = upper.max()
    return (
        -math.inf if lower is None else float(lower),
        math.inf if upper is None else float(upper),
    )
