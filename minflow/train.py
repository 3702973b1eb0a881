"""Fit a flow to samples by maximum likelihood, or to a density by reverse KL."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from minflow.batches import Data, Loader, Rows, source, unpack
from minflow.flow import Flow
from minflow.run import History, Plan, evaluating, minimise
from minflow.saving import in_words


def fit(
    flow: Flow,
    data: Data,
    *,
    context: Tensor | None = None,
    validation: float | Data | None = None,
    steps: int = 1000,
    batch_size: int = 256,
    lr: float = 1e-2,
    warmup: int = 0,
    clip: float | None = None,
    check_every: int = 100,
    patience: int | None = None,
    on_nonfinite: Literal["stop", "skip"] = "stop",
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 500,
    seed: int = 0,
) -> History:
    """Minimise the mean of −log q(x) over data: maximum likelihood, with Adam.

    The flow is trained in place. Flows start near the standard normal and their scales
    are bounded: let data whose mean or scale is far from 0 and 1 pass through a
    `Standardize` layer.

    The learning rate rises over `warmup` steps and then falls to zero as a cosine. Rows
    are shuffled anew for each pass. All that is random comes from `seed`; the global
    generators are left as they were.

    Args:
        flow: the flow to train, on any device.
        data: N points, shape (N, D); or a map-style data set, or a loader, of x or
            (x, context).
        context: for a conditional flow and points in a tensor, shape (N, C).
        validation: held-out data, of any of these kinds, or the fraction of `data` to
            hold out. The flow then ends with the weights that scored best on them.
        steps: how many batches.
        batch_size: rows a batch, all rows if they are fewer; a loader has its own.
        lr: Adam's largest learning rate.
        warmup: steps over which it rises.
        clip: the gradient's largest norm; None does not clip.
        check_every: steps between two looks at the validation data.
        patience: stop after so many looks without a new best; None never does.
        on_nonfinite: whether a loss or gradient that is not finite stops the run, or
            its step is skipped (20 in a row stop it all the same).
        progress: whether to show a bar; None shows one in a terminal.
        checkpoint: a file to write the run to. If it is there already, the run goes on
            from it and ends where it would have ended, bit for bit on a CPU with the
            same number of threads. With a loader the batches differ, and so does what a
            data set draws from generators other than torch's.
        checkpoint_every: steps between two checkpoints.
        seed: for the batches and all else that is random, at least 0.

    Returns:
        Losses, validation scores and skipped steps. A run that is interrupted leaves the
        flow as it is at that moment; the rest is in the checkpoint.

    Raises:
        TypeError: if data is none of the kinds, or of another dtype than the flow.
        ValueError: if shapes or numbers are out of range, data hold NaN or infinity, or
            the checkpoint does not fit.
        FloatingPointError: if a loss or a gradient is not finite; it names the layer
            that made it. The weights are then the last ones that gave a finite loss.

    Cost: one inverse of the transform and its gradient a step. One number, the loss,
    comes back from the device in each. After `flow.compile()` torch writes a program of
    its own for both, which takes minutes and then saves a part of each step.

    Source: Kingma and Ba 2015 (Adam, arXiv:1412.6980); Loshchilov and Hutter 2017
    (cosine, arXiv:1608.03983); Pascanu, Mikolov and Bengio 2013 (clipping,
    arXiv:1211.5063).
    """
    plan = Plan(
        steps, batch_size, lr, warmup, clip, on_nonfinite, seed, progress, checkpoint,
        checkpoint_every, check_every, patience,
    )  # fmt: skip
    if not isinstance(flow, Flow):
        raise TypeError(f"fit takes a Flow; got {type(flow).__name__}")
    train, held_out = _sources(flow, data, context, validation, seed)
    device = next(flow.base.buffers()).device

    def batch_of(step: int) -> object:
        return train.of_step(step, batch_size, seed)

    def loss(batch: object) -> Tensor:
        return -flow(*unpack(batch, device)).mean()  # compiled, if the flow is

    def start() -> None:
        first = train.of_step(0, max(batch_size, 2048), seed)
        flow.initialize(*unpack(first, device))

    def score() -> float:
        assert held_out is not None
        total, count = 0.0, 0
        with torch.no_grad(), evaluating(flow):
            for batch in held_out.in_order(max(batch_size, 1024)):
                log_q = flow(*unpack(batch, device))
                total, count = total - log_q.double().sum().item(), count + len(log_q)
        if count == 0:
            raise ValueError(
                "validation gave no batch: a loader must have some, and start again each "
                "time it is iterated"
            )
        return total / count

    return minimise(
        flow,
        batch_of,
        loss,
        plan,
        start=start,
        score=None if held_out is None else score,
        seen={
            "data": train.fingerprint(),
            "validation": "" if held_out is None else held_out.fingerprint(),
            "flow": in_words(flow),
        },
    )


def _sources(
    flow: Flow,
    data: Data,
    context: Tensor | None,
    validation: float | Data | None,
    seed: int,
) -> tuple[Rows | Loader, Rows | Loader | None]:
    """What to train on, and what is held out."""
    train = source(flow, "data", data, context)
    if validation is None:
        return train, None
    if isinstance(validation, float | int | np.floating):
        if isinstance(train, Loader):
            raise TypeError("a fraction of a loader cannot be held out: hand in another")
        return train.split(float(validation), seed)
    return train, source(flow, "validation", validation)


def fit_energy(
    flow: Flow,
    log_density: Callable[..., Tensor],
    *,
    context: Tensor | None = None,
    anneal: int = 0,
    steps: int = 1000,
    batch_size: int = 256,
    lr: float = 1e-2,
    warmup: int = 0,
    clip: float | None = None,
    on_nonfinite: Literal["stop", "skip"] = "stop",
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 500,
    seed: int = 0,
) -> History:
    """Minimise the mean of log q(x) − log p̃(x) over the flow's own samples: reverse KL.

        E_q[log q(x) − log p̃(x)] = KL(q‖p) − log Z,   p = p̃ / Z

    So the loss is at least −log Z, and −loss bounds log Z from below. No samples of p are
    needed, only its density up to a factor. A mode that the flow never visits costs
    nothing: it may be dropped unseen.

    Args:
        flow: the flow to train, in place, on any device.
        log_density: log p̃, (B, D) -> (B,) in nats, with gradients for x. A conditional
            flow's is called with the batch's contexts too, (B, D), (B, C) -> (B,).
        context: for a conditional flow, the contexts to learn for, shape (N, C): each
            step draws one sample for each of the next `batch_size` rows.
        anneal: over so many steps log p̃ is multiplied by a weight that rises evenly from
            0.01 to 1, so that the flow first spreads and then settles; 0 does not anneal.
            Meanwhile the loss is that of p̃ to the power of the weight.
        steps, lr, warmup, clip, on_nonfinite, progress, checkpoint_every, seed: as in
            `fit`.
        batch_size: samples a step.
        checkpoint: as in `fit`; the file cannot tell one log_density from another.

    Returns:
        The history, whose loss is the mean of log q − log p̃ in nats.

    Raises:
        TypeError: if flow is not a Flow, log_density cannot be called, or context is of
            another dtype than the flow.
        ValueError: if a number is out of range, the context does not fit the flow, the
            checkpoint does not fit, or log_density does not give one number a point.
        FloatingPointError: as in `fit`.

    Cost: one forward of the transform, one log_density and their gradients a step. It is
    the transform that can be compiled here, `flow.transform.compile()`.

    Source: Rezende and Mohamed 2015 (arXiv:1505.05770), equations 15 and 20 (the latter
    with annealing over 10,000 steps).
    """
    plan = Plan(
        steps, batch_size, lr, warmup, clip, on_nonfinite, seed, progress, checkpoint,
        checkpoint_every, anneal=anneal,
    )  # fmt: skip
    if not isinstance(flow, Flow):
        raise TypeError(f"fit_energy takes a Flow; got {type(flow).__name__}")
    if not callable(log_density):
        raise TypeError(f"log_density must be callable; got {log_density!r}")
    contexts = _contexts(flow, context)
    device = next(flow.base.buffers()).device

    def batch_of(step: int) -> tuple[Tensor, Tensor | None, float]:
        rows = None
        if contexts is not None:
            rows = unpack(contexts.of_step(step, batch_size, seed), device)[0]
        count = batch_size if rows is None else len(rows)
        z = flow.base.rsample(torch.Size([count])).detach()
        return z, rows, plan.weight(step)

    def loss(batch: tuple[Tensor, Tensor | None, float]) -> Tensor:
        z, rows, weight = batch
        x, log_det = flow.transform(z, rows)
        log_q = flow.base.log_prob(z) - log_det
        log_p = log_density(x) if rows is None else log_density(x, rows)
        if not isinstance(log_p, Tensor) or log_p.shape != log_q.shape:
            got = tuple(log_p.shape) if isinstance(log_p, Tensor) else repr(log_p)
            raise ValueError(
                f"log_density must give one number a point, shape {tuple(log_q.shape)}; "
                f"got {got}"
            )
        if x.requires_grad and not log_p.requires_grad:
            raise ValueError("log_density must be computed from x by torch, undetached")
        return (log_q - weight * log_p).mean()

    seen = {"flow": in_words(flow)}
    if contexts is not None:
        seen["context"] = contexts.fingerprint()
    return minimise(flow, batch_of, loss, plan, seen=seen)


def _contexts(flow: Flow, context: Tensor | None) -> Rows | None:
    """The rows of contexts to train for; None for a flow that takes none."""
    if (context is not None) != bool(flow.context_dim):
        takes = f"takes contexts of size {flow.context_dim}"
        raise ValueError(f"the flow {takes if flow.context_dim else 'takes no context'}")
    if context is None:
        return None
    flow.check("context", context, flow.context_dim)
    if context.dim() != 2 or len(context) == 0:
        raise ValueError(f"context must have shape (N, C); got {tuple(context.shape)}")
    if not context.isfinite().all():
        raise ValueError("context holds NaN or infinity")
    return Rows(context)
