"""Mixtures of normals: any, eight on a circle, and Karpathy's four."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from minflow.base import Shape, as_size
from minflow.data._target import Target, check_positive


class GaussianMixture(Target):
    """p(x) = Σₖ wₖ N(x; μₖ, diag(sₖ²)), a weighted sum of K normal densities.

    Args:
        means: μₖ, shape (K, D).
        stds: sₖ, shape (K, D), or (K,) for the same in every direction; positive.
        weights: wₖ, shape (K,), positive, scaled here to sum to one; equal if None.

    Raises:
        ValueError: if the shapes do not fit or a number is out of range.

    >>> two_modes = GaussianMixture(means=[[-2.0], [2.0]], stds=[0.5, 0.5])
    >>> two_modes.sample((3,)).shape, round(two_modes.entropy().item(), 4)
    (torch.Size([3, 1]), 1.4188)
    """

    def __init__(
        self,
        means: Tensor | Sequence[Sequence[float]],
        stds: Tensor | Sequence[float] | Sequence[Sequence[float]],
        weights: Tensor | Sequence[float] | None = None,
    ) -> None:
        self.means = torch.as_tensor(means)
        if not self.means.is_floating_point():
            self.means = self.means.to(torch.get_default_dtype())
        stds = torch.as_tensor(stds, dtype=self.means.dtype)
        if self.means.dim() != 2 or self.means.numel() == 0:
            raise ValueError(
                f"means must have shape (K, D); got {tuple(self.means.shape)}"
            )
        components, dim = self.means.shape
        if stds.shape not in [(components,), (components, dim)]:
            raise ValueError(
                f"stds must have shape ({components},) or ({components}, {dim}); "
                f"got {tuple(stds.shape)}"
            )
        self.stds = stds.reshape(components, -1).expand(components, dim)
        weights = [1.0] * components if weights is None else weights
        weights = torch.as_tensor(weights, dtype=self.means.dtype)
        if weights.shape != (components,):
            raise ValueError(
                f"weights must have shape ({components},); got {tuple(weights.shape)}"
            )
        for name, numbers in [
            ("means", self.means),
            ("stds", stds),
            ("weights", weights),
        ]:
            positive = name == "means" or bool((numbers > 0).all())
            if not positive or not numbers.isfinite().all():
                raise ValueError(f"{name} must be finite, and stds and weights positive")
        self.weights = weights / weights.sum()
        super().__init__(dim)

    def _log_parts(self, value: Tensor) -> Tensor:
        """log(wₖ N(x; μₖ, diag(sₖ²))) for each k: (*batch, D) -> (*batch, K)."""
        means, stds, weights = (
            t.to(value.device) for t in (self.means, self.stds, self.weights)
        )
        u = (value.unsqueeze(-2) - means) / stds
        log_normal = -0.5 * (u.square() + math.log(2 * math.pi)) - stds.log()
        return weights.log() + log_normal.sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) in nats: (*batch, D) -> (*batch)."""
        self._check(value)
        return self._log_parts(value).logsumexp(-1)

    def sample(
        self, sample_shape: Shape = (), generator: Generator | None = None
    ) -> Tensor:
        """Points of shape (*sample_shape, D)."""
        shape = as_size(sample_shape)
        picks = torch.multinomial(
            self.weights, shape.numel(), replacement=True, generator=generator
        ).reshape(shape)
        noise = torch.randn(
            *shape, *self.event_shape, generator=generator, dtype=self.means.dtype
        )
        return self.means[picks] + self.stds[picks] * noise

    def entropy(self) -> Tensor:
        """H in nats, in float64: the first of what `entropy_and_error` returns."""
        return self.entropy_and_error()[0]

    def entropy_and_error(self, samples: int = 500_000) -> tuple[Tensor, Tensor]:
        """The entropy and its standard error, in nats, in float64.

            H = Σₖ wₖ (Hₖ − log wₖ − E_k[S(x)]),  S(x) = −Σⱼ rⱼ log rⱼ,
            rⱼ(x) = wⱼ N(x; μⱼ, sⱼ²) / p(x),

        with Hₖ the entropy of component k, E_k the mean over it, and S the doubt about
        which component x came from. That mean comes by quadrature in D = 1 and 2, with
        the error given as 1e-6: more than tests find. It comes by Monte Carlo, from one
        fixed seed, if D is larger, or if one component is so much narrower than another
        (40 times in the plane) that a grid has too many points. S varies far less than
        log p does, and not at all where the components lie far apart or are all the same.

        Args:
            samples: points in all, where it comes to Monte Carlo; two or more for each k.

        Returns:
            H and its standard error, each of shape ().

        Raises:
            ValueError: if there are fewer samples.

        Cost: K normal densities at each of the samples, or at K grids of 145ᴰ points
            (more if the widths differ by more than three times).
        """
        components, dim = self.means.shape
        if samples < 2 * components:
            raise ValueError(
                f"{components} components need at least {2 * components} samples; "
                f"got {samples}"
            )
        parameters = self.means, self.stds, self.weights
        exact = GaussianMixture(*(t.double() for t in parameters))
        grid, generator = exact._grid(), Generator().manual_seed(0)
        each = samples // components
        doubt, variance = torch.zeros(2, components, dtype=torch.float64)
        for k in range(components):
            if grid is None:
                u = torch.randn(each, dim, generator=generator, dtype=torch.float64)
                found = exact._doubts(k, u)
                # A doubt is at most log K, and may hide where one point in n would fall.
                unseen = math.log(components) / each
                doubt[k], variance[k] = found.mean(), found.var() / each + unseen**2
            else:
                mass = torch.softmax(-0.5 * grid.square().sum(-1), 0)
                doubt[k] = mass @ exact._doubts(k, grid)
        own = exact.stds.log().sum(-1) + 0.5 * dim * (1 + math.log(2 * math.pi))
        entropy = exact.weights @ (own - exact.weights.log() - doubt)
        error = (exact.weights.square() @ variance).sqrt()
        return entropy, error.new_tensor(1e-6) if grid is not None else error

    def _grid(self) -> Tensor | None:
        """Points for the trapezoidal rule on a standard normal; None if too many."""
        # Spacing 1/8 and reach 9 are enough for a normal weight, and finer where a narrow
        # component makes a peak in log p under a wide one.
        dim, narrowest = self.means.shape[1], self.stds.amin(0) / self.stds.amax(0)
        spacing = min(1.0, 3 * narrowest.min().item()) / 8
        if dim > 2 or (18 / spacing) ** dim > 4_000_000:
            return None
        u = torch.arange(-9, 9.01, spacing, dtype=torch.float64)
        return torch.cartesian_prod(*[u] * dim).reshape(-1, dim)

    def _doubts(self, k: int, u: Tensor) -> Tensor:
        """S at x = μₖ + sₖ u, for u of shape (N, D): shape (N,); in bounded memory."""
        parts = []
        for some in u.split(1 + 2_000_000 // self.means.numel()):
            chances = self._log_parts(self.means[k] + self.stds[k] * some).softmax(-1)
            parts.append(torch.special.entr(chances).sum(-1))
        return torch.cat(parts)


class EightGaussians(GaussianMixture):
    """Eight equal round normals, evenly spaced on a circle.

        p(x) = ⅛ Σₖ N(x; ρ (cos kπ/4, sin kπ/4), s²I),  k = 0, …, 7.

    Args:
        radius: ρ of the circle, positive.
        std: s of each, positive.

    Raises:
        ValueError: if a number is not positive and finite.

    Source: the toy data of Grathwohl et al., 2019, FFJORD, arXiv:1810.01367: radius 4
    and standard deviation ½, all of it divided by √2. (Their code divides by 1.414.)

    >>> EightGaussians().means[0], round(EightGaussians().entropy().item(), 4)
    (tensor([2.8284, 0.0000]), 2.8316)
    """

    def __init__(
        self, radius: float = math.sqrt(8), std: float = math.sqrt(1 / 8)
    ) -> None:
        check_positive("radius", radius)
        check_positive("std", std)
        angles = torch.arange(8) * math.pi / 4
        means = radius * torch.stack([angles.cos(), angles.sin()], -1)
        super().__init__(means, [std] * 8)


class FourGaussians(GaussianMixture):
    """Four equal round normals of standard deviation ½, two above and two below.

        p(x) = ¼ Σₖ N(x; μₖ, ¼I),  μ = (0, −2), (0, 0), (2, 2), (−2, 2).

    Source: Karpathy, pytorch-normalizing-flows, ``nflib1.ipynb``, the data set
    ``DatasetMixture``.

    >>> round(FourGaussians().entropy().item(), 4)
    2.801
    """

    def __init__(self) -> None:
        super().__init__([[0.0, -2.0], [0.0, 0.0], [2.0, 2.0], [-2.0, 2.0]], [0.5] * 4)
