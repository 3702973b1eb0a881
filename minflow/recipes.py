"""Ready-made flows: functions that return a `Flow`, with options of the same names.

One of `layers` is one transform of the family. With ``context_dim=C`` networks with the
`hidden` layers turn a context of C numbers into each transform's parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from minflow.autoregressive import Autoregressive
from minflow.coupling import Additive, Coupling
from minflow.elementwise import Elementwise
from minflow.flow import Flow
from minflow.linear import LU, Permute
from minflow.nets import check_whole
from minflow.planar import Planar, Radial, Sylvester
from minflow.scalar_map import Affine, Reversed, ScalarMap
from minflow.spline import Spline
from minflow.standardize import ActNorm
from minflow.transform import Compose, Inverse, Transform


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
    check_whole("layers", layers, 0)
    normal = Elementwise(dim, Affine(), context_dim, hidden)
    return Flow(Compose(normal, *(layer() for _ in range(layers))))


def nice(
    dim: int,
    *,
    layers: int = 8,
    context_dim: int = 0,
    hidden: Sequence[int] = (64, 64),
) -> Flow:
    """NICE: a learned scale and shift of each coordinate, then additive couplings.

    The couplings keep volumes, so all stretching is the first layer's. It scores data as
    fast as it samples, as all the flows of couplings do.

    Args:
        dim: D, at least 2.
        layers: how many `Coupling`, at least 1; the halves change roles from one to the
            next, and after each pair a `Permute` deals them anew if D > 2.
        context_dim: C, the size of the context; 0 for none.
        hidden: hidden layers of each network.

    Raises:
        ValueError: if an option is out of range.

    Source: Dinh, Krueger and Bengio 2015 (arXiv:1410.8516).

    >>> nice(3).sample(5).shape
    torch.Size([5, 3])
    """

    def layer(flip: bool) -> Transform:
        return Coupling(dim, Additive(), context_dim, hidden, flip)

    scale = Elementwise(dim, Affine(), context_dim, hidden)
    return Flow(Compose(scale, *_alternating(dim, layers, layer)))


def realnvp(
    dim: int,
    *,
    layers: int = 8,
    context_dim: int = 0,
    hidden: Sequence[int] = (64, 64),
) -> Flow:
    """RealNVP: couplings that scale and shift.

    As in the paper, a layer's formula runs from data to base, z_b = x_b e^s + t: it is
    the `Inverse` of a `Coupling`. The other way round, a small scale would magnify what
    training changes in the shift. |s| stays below 2 in each layer.

    Args:
        dim: D, at least 2.
        layers, context_dim, hidden: as in `nice`.

    Raises:
        ValueError: if an option is out of range.

    Source: Dinh, Sohl-Dickstein and Bengio 2017 (arXiv:1605.08803).

    >>> import torch
    >>> realnvp(2).log_prob(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    def layer(flip: bool) -> Transform:
        return Inverse(Coupling(dim, Affine(bound=2.0), context_dim, hidden, flip))

    return Flow(Compose(*_alternating(dim, layers, layer)))


def glow(
    dim: int,
    *,
    layers: int = 8,
    context_dim: int = 0,
    hidden: Sequence[int] = (64, 64),
) -> Flow:
    """Glow: seen from the data, a normalisation, a learned mix, and RealNVP's coupling.

    Args:
        dim: D, at least 2.
        layers: how many times `Coupling`, `LU` and `ActNorm`, at least 1.
        context_dim, hidden: as in `nice`.

    Raises:
        ValueError: if an option is out of range.

    Source: Kingma and Dhariwal 2018 (arXiv:1807.03039), for vectors.

    >>> glow(3).sample(5).shape
    torch.Size([5, 3])
    """
    check_whole("layers", layers, 1)
    parts: list[Transform] = []
    for _ in range(layers):
        coupling = Coupling(dim, Affine(bound=2.0), context_dim, hidden)
        parts += [Inverse(coupling), LU(dim), ActNorm(dim)]
    return Flow(Compose(*parts))


def nsf(
    dim: int,
    *,
    layers: int = 4,
    bins: int = 8,
    bound: float = 4.0,
    context_dim: int = 0,
    hidden: Sequence[int] = (64, 64),
) -> Flow:
    """A neural spline flow: couplings of rational-quadratic splines.

    Args:
        dim: D, at least 2.
        layers, context_dim, hidden: as in `nice`.
        bins: bins of each spline, at least 2.
        bound: the splines bend inside [−bound, bound]; data should lie there, so let
            them pass through a `Standardize`.

    Raises:
        ValueError: if an option is out of range.

    Source: Durkan, Bekasov, Murray and Papamakarios 2019 (arXiv:1906.04032).

    >>> nsf(3, bins=4).sample(5).shape
    torch.Size([5, 3])
    """

    def layer(flip: bool) -> Transform:
        return Coupling(dim, Spline(bins, bound), context_dim, hidden, flip)

    return Flow(Compose(*_alternating(dim, layers, layer)))


def maf(
    dim: int,
    *,
    layers: int = 5,
    context_dim: int = 0,
    hidden: Sequence[int] = (64, 64),
) -> Flow:
    """A masked autoregressive flow: affine layers, to score data in one pass a layer.

    As in `realnvp`, a layer's formula runs from data to base, z_i = x_i e^s + t, and |s|
    stays below 2. The networks are residual. Every other layer takes the coordinates in
    the reversed order, and a learned linear mix, `LU`, follows each. To sample, each unit
    of the networks is computed once; see `Autoregressive`.

    Args:
        dim: D, at least 1.
        layers: how many `Autoregressive`, each with its `LU`, at least 1.
        context_dim: C, the size of the context; 0 for none.
        hidden: hidden layers of each network.

    Raises:
        ValueError: if an option is out of range.

    Source: Papamakarios, Pavlakou and Murray 2017 (arXiv:1705.07057).

    >>> maf(3).sample(5).shape
    torch.Size([5, 3])
    """
    parts = _to_and_fro(dim, Reversed(Affine(2.0)), layers, context_dim, hidden)
    return _mixed(parts)


def iaf(
    dim: int,
    *,
    layers: int = 5,
    context_dim: int = 0,
    hidden: Sequence[int] = (64, 64),
) -> Flow:
    """An inverse autoregressive flow: `maf` turned round, for variational inference.

    Its layers are x_i = z_i e^s + t, with s and t made of z_<i. So it samples, and scores
    its own samples, in one pass a layer.

    Args:
        dim: D, at least 1.
        layers, context_dim, hidden: as in `maf`.

    Raises:
        ValueError: if an option is out of range.

    Source: Kingma et al. 2016 (arXiv:1606.04934).

    >>> x, log_q = iaf(3).sample_and_log_prob(5)
    >>> x.shape, log_q.shape
    (torch.Size([5, 3]), torch.Size([5]))
    """
    parts = _to_and_fro(dim, Reversed(Affine(2.0)), layers, context_dim, hidden)
    return _mixed([Inverse(part) for part in parts])


def nsf_ar(
    dim: int,
    *,
    layers: int = 4,
    bins: int = 8,
    bound: float = 4.0,
    context_dim: int = 0,
    hidden: Sequence[int] = (64, 64),
) -> Flow:
    """An autoregressive neural spline flow: splines steered by what stands before.

    Args:
        dim: D, at least 1.
        layers, context_dim, hidden: as in `maf`.
        bins, bound: as in `nsf`.

    Raises:
        ValueError: if an option is out of range.

    Source: Durkan, Bekasov, Murray and Papamakarios 2019 (arXiv:1906.04032).

    >>> nsf_ar(3, bins=4).sample(5).shape
    torch.Size([5, 3])
    """
    spline = Spline(bins, bound)
    return Flow(Compose(*_to_and_fro(dim, spline, layers, context_dim, hidden)))


def _mixed(layers: Sequence[Transform]) -> Flow:
    """A flow of layers, each with a learned linear mix that starts as the identity."""
    pairs = [(layer, LU(layer.dim, permute=False)) for layer in layers]
    return Flow(Compose(*itertools.chain(*pairs)))


def _to_and_fro(
    dim: int,
    scalar_map: ScalarMap,
    layers: int,
    context_dim: int,
    hidden: Sequence[int],
) -> list[Transform]:
    """Autoregressive layers whose order is reversed from one to the next."""
    check_whole("layers", layers, 1)
    parts: list[Transform] = []
    for i in range(layers):
        order = range(dim)[::-1] if i % 2 else None
        layer = Autoregressive(dim, scalar_map, context_dim, hidden, order, residual=True)
        parts.append(layer)
    return parts


def _alternating(
    dim: int, layers: int, layer: Callable[[bool], Transform]
) -> list[Transform]:
    """Couplings whose halves change roles. In more than two dimensions the coordinates
    are dealt anew after each pair, so that those of one half come to steer each other."""
    check_whole("layers", layers, 1)
    parts: list[Transform] = []
    for i in range(layers):
        if i and i % 2 == 0 and dim > 2:
            parts.append(Permute(dim))
        parts.append(layer(i % 2 == 1))
    return parts
