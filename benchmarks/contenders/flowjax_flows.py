"""FlowJAX: https://github.com/danielward27/flowjax. Each task is one function under `jax.jit`."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import paramax
import torch
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import StandardNormal
from flowjax.flows import coupling_flow, masked_autoregressive_flow, planar_flow
from torch import Tensor

from contenders.common import BOUND, LEARNING_RATE, Case, Contender

MISSING: dict[str, str] = {}
SPLINE = "it learns the slopes at the ends, and the networks make two numbers more for each spline"


def options(case: Case) -> dict:
    """The networks, and the map of one coordinate: its splines have a bin more than `knots`."""
    found = dict(base_dist=StandardNormal((case.dim,)), flow_layers=case.layers)
    if case.kind == "planar":
        return found | dict(invert=False)  # fast to sample
    found |= dict(nn_width=case.width, nn_depth=2)
    if case.kind.startswith("spline"):
        found |= dict(transformer=RationalQuadraticSpline(knots=case.bins - 1, interval=BOUND))
    return found


def contender(case: Case, learning_rate: float = LEARNING_RATE) -> Contender:
    make = {"coupling": coupling_flow, "autoregressive": masked_autoregressive_flow}
    make = make.get(case.kind.partition("_")[2], planar_flow)
    start, points = jax.random.split(jax.random.key(torch.initial_seed() % 2**32))
    flow = make(start, **options(case))
    frozen = lambda leaf: isinstance(leaf, paramax.NonTrainable)  # noqa: E731
    params, static = eqx.partition(flow, eqx.is_inexact_array, is_leaf=frozen)
    optimizer = optax.adam(learning_rate)
    state: dict[str, Any] = dict(params=params, moments=optimizer.init(params), key=points)
    planar = case.kind == "planar"

    def push(params: Any, key: Any) -> Any:
        law = eqx.combine(params, static)
        draw = law.sample_and_log_prob if planar else law.sample
        return draw(key, (case.batch,))

    def loss(params: Any, x: Any, key: Any) -> Any:
        if planar:
            points, log_q = push(params, key)
            return (log_q - jax.scipy.stats.norm.logpdf(points, 1).sum(-1)).mean()
        return -eqx.combine(params, static).log_prob(x).mean()

    @jax.jit
    def stepped(params: Any, moments: Any, x: Any, key: Any) -> Any:
        key, now = jax.random.split(key)
        value, gradients = jax.value_and_grad(loss)(params, x, now)
        updates, moments = optimizer.update(gradients, moments)
        return optax.apply_updates(params, updates), moments, key, value

    @jax.jit
    def drawn(params: Any, key: Any) -> Any:
        key, now = jax.random.split(key)
        return push(params, now), key

    @jax.jit
    def scored(params: Any, x: Any) -> Any:
        return eqx.combine(params, static).log_prob(x)

    def step(x: Any) -> Any:
        found = stepped(state["params"], state["moments"], x, state["key"])
        state["params"], state["moments"], state["key"], value = jax.block_until_ready(found)
        return value

    def draw() -> Any:
        points, state["key"] = jax.block_until_ready(drawn(state["params"], state["key"]))
        return points

    def score(x: Any) -> Any:
        return jax.block_until_ready(scored(state["params"], x))

    def moved(way: str, value: Any) -> Any:
        law = paramax.unwrap(eqx.combine(state["params"], static))
        return jax.vmap(getattr(law.bijection, way))(value)

    return Contender(
        score=None if planar else score,
        step=step,
        draw=draw,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        effective=effective(flow),
        there=None if planar else lambda x: moved("inverse", x),
        back=None if planar else lambda z: moved("transform", z),
        note="no inverse" if planar else SPLINE if case.kind.startswith("spline") else "",
        give=give,
    )


def give(x: Tensor) -> Any:
    return jnp.asarray(x.numpy())


def effective(flow: Any) -> int:
    """How many numbers are trained that no mask shuts off."""
    total = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(flow, eqx.is_inexact_array)))
    masks = [leaf for leaf in jax.tree.leaves(flow) if eqx.is_array(leaf) and leaf.dtype == bool]
    return int(total - sum((~mask).sum() for mask in masks))


BUILD = dict.fromkeys(
    (
        "affine_coupling",
        "affine_autoregressive",
        "spline_coupling",
        "spline_autoregressive",
        "planar",
    ),
    contender,
)
