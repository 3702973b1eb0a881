"""minflow's layers alone, one of a kind in a row: no `LU`, no residual networks, no `Permute`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import minflow as mf
from contenders.common import BOUND, Case, Contender, density, log_p, variational

MISSING: dict[str, str] = {}


def scalar_map(case: Case) -> mf.ScalarMap:
    return mf.Spline(case.bins, BOUND) if case.kind.startswith("spline") else mf.Affine()


def coupling(case: Case) -> list[mf.Transform]:
    options = dict(dim=case.dim, scalar_map=scalar_map(case), hidden=case.hidden)
    return [mf.Coupling(**options, flip=i % 2 == 1) for i in range(case.layers)]


def autoregressive(case: Case) -> list[mf.Transform]:
    options = dict(dim=case.dim, scalar_map=scalar_map(case), hidden=case.hidden)
    orders = [range(case.dim), range(case.dim)[::-1]]
    return [mf.Autoregressive(**options, order=orders[i % 2]) for i in range(case.layers)]


def planar(case: Case) -> list[mf.Transform]:
    return [mf.Planar(case.dim) for _ in range(case.layers)]


LAYERS = {
    "affine_coupling": coupling,
    "affine_autoregressive": autoregressive,
    "spline_coupling": coupling,
    "spline_autoregressive": autoregressive,
    "planar": planar,
}


def contender(case: Case, learning_rate: float, backend: str | None = None) -> Contender:
    """A flow of a case's layers; with a backend, each task is compiled as one graph."""
    flow = mf.Flow(mf.Compose(*LAYERS[case.kind](case)))
    planar = case.kind == "planar"

    def loss(x: Tensor) -> Tensor:
        if planar:
            points, log_q = flow.sample_and_log_prob(case.batch)
            return (log_q - log_p(points)).mean()
        return -flow.log_prob(x).mean()

    def there(x: Tensor) -> Tensor:
        return flow.transform.inverse(x)[0]

    def back(z: Tensor) -> Tensor:
        return flow.transform.forward(z)[0]

    log_prob: Callable[[Tensor], Tensor] = flow.log_prob
    if backend:
        options: dict[str, Any] = dict(backend=backend, fullgraph=True)
        loss, log_prob = torch.compile(loss, **options), torch.compile(log_prob, **options)
    if planar:
        push = lambda: flow.sample_and_log_prob(case.batch)  # noqa: E731
        found = variational(flow, push, there, back, loss=loss)
    else:
        draw = lambda: flow.sample(case.batch)  # noqa: E731
        found = density(flow, log_prob, draw, there, back, "", loss, learning_rate)
    if backend:
        drawn = mf.Flow(mf.Compose(*flow.transform))  # the same layers
        drawn.transform.compile(**options)
        todo = drawn.sample_and_log_prob if planar else drawn.sample
        found.draw = torch.no_grad()(lambda: todo(case.batch))
    return found
