"""Ready-made flows: functions that return a `Flow`, with options of the same names.

One of `layers` is one transform of the family. With ``context_dim=C`` networks with the
`hidden` layers turn a context of C numbers into each transform's parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minflow.elementwise import Affine, Elementwise
from minflow.flow import Flow
from minflow.planar import Planar, Radial, Sylvester
from minflow.transform import Compose, Transform


def planar_flow(
    dim: int,
    *,
    layers: int = 8,
    activation: str = "tanh",
    context_dim: int = 0,
    hidden: Sequence[int] = (64, 64),
) -> Flow:
    """A normal law with independent coordinates, pushed by planar layers.

    Cheap to sample, and to score its own samples: for variational inference. To score
    data costs a root search a layer.

    Args:
        dim: D, at least 1.
        layers: how many `Planar`; 0 leaves the normal law alone, the mean-field fit.
        activation: "tanh" or "leaky_relu".
        context_dim: C, the size of the context; 0 for none.
        hidden: hidden layers of each network that makes parameters of the context.

    Raises:
        ValueError: if an option is out of range.

    Source: Rezende and Mohamed 2015 (arXiv:1505.05770), section 4.1.

    >>> import torch
    >>> flow = planar_flow(2, layers=4)
    >>> x, log_q = flow.sample_and_log_prob(5)
    >>> x.shape, log_q.shape
    (torch.Size([5, 2]), torch.Size([5]))
    """

    def layer() -> Transform:
        return Planar(dim, activation, context_dim, hidden)

    return _pushed_normal(dim, layers, layer, context_dim, hidden)


def radial_flow(
    dim: int,
    *,
    layers: int = 8,
    context_dim: int = 0,
    hidden: Sequence[int] = (64, 64),
) -> Flow:
    """A normal law with independent coordinates, pushed by radial layers.

    Cheap both ways: it scores data as fast as it samples.

    Args:
        dim: D, at least 1.
        layers: how many `Radial`.
        context_dim, hidden: as in `planar_flow`.

    Raises:
        ValueError: if an option is out of range.

    Source: Rezende and Mohamed 2015 (arXiv:1505.05770), section 4.1.

    >>> import torch
    >>> radial_flow(2).log_prob(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    def layer() -> Transform:
        return Radial(dim, context_dim, hidden)

    return _pushed_normal(dim, layers, layer, context_dim, hidden)


def sylvester_flow(
    dim: int,
    *,
    layers: int = 4,
    rank: int | None = None,
    context_dim: int = 0,
    hidden: Sequence[int] = (64, 64),
) -> Flow:
    """A normal law with independent coordinates, pushed by Sylvester layers.

    Cheap to sample, and to score its own samples. To score data costs `rank` root
    searches a layer.

    Args:
        dim: D, at least 1.
        layers: how many `Sylvester`.
        rank: M, from 1 to D; D if None.
        context_dim, hidden: as in `planar_flow`.

    Raises:
        ValueError: if an option is out of range.

    Source: van den Berg, Hasenclever, Tomczak and Welling 2018 (arXiv:1803.05649).

    >>> sylvester_flow(3, rank=2).sample(5).shape
    torch.Size([5, 3])
    """

    def layer() -> Transform:
        return Sylvester(dim, rank, context_dim, hidden)

    return _pushed_normal(dim, layers, layer, context_dim, hidden)


def _pushed_normal(
    dim: int,
    layers: int,
    layer: Callable[[], Transform],
    context_dim: int,
    hidden: Sequence[int],
) -> Flow:
    if isinstance(layers, bool) or not isinstance(layers, int) or layers < 0:
        raise ValueError(f"layers must be a whole number, at least 0; got {layers!r}")
    normal = Elementwise(dim, Affine(), context_dim, hidden)
    return Flow(Compose(normal, *(layer() for _ in range(layers))))
