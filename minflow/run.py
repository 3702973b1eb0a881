"""A training run: its plan, its history, and the loop of `fit` and `fit_energy`."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minflow import checkpoint
from minflow.trace import where_not_finite

MOST_SKIPPED = 20  # in a row: a run that only skips does not learn


@dataclass
class History:
    """What a run has seen.

    Attributes:
        loss: each step's batch mean of what is minimised, in nats; NaN if skipped.
        validation: (steps taken, mean −log q of the held-out data in nats), each look.
        skipped: the steps whose loss or gradient was not finite.
        best_step: after how many steps the held-out data scored best; None without any.
    """

    loss: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    best_step: int | None = None

    def __repr__(self) -> str:
        words = [f"{len(self.loss)} steps"]
        good = [loss for loss in self.loss if not math.isnan(loss)]
        if good:
            words.append(f"last loss {good[-1]:.3f} nats")
        if self.best_step is not None:
            best = dict(self.validation)[self.best_step]
            words.append(f"best validation {best:.3f} nats at step {self.best_step}")
        if self.skipped:
            words.append(f"{len(self.skipped)} steps skipped")
        return f"History({', '.join(words)})"


@dataclass(frozen=True)
class Plan:
    """The settings of a run, as `fit` explains them."""

    steps: int
    batch_size: int
    lr: float
    warmup: int
    clip: float | None
    on_nonfinite: str
    seed: int
    progress: bool | None
    checkpoint: str | os.PathLike[str] | None
    checkpoint_every: int
    check_every: int = 1
    patience: int | None = None
    anneal: int = 0

    def __post_init__(self) -> None:
        counts = "steps", "batch_size", "check_every", "checkpoint_every"
        for name in (*counts, "warmup", "patience", "seed", "anneal"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | None):
                raise TypeError(f"{name} must be a whole number; got {value!r}")
            if name in counts and (value is None or value < 1):
                raise ValueError(f"{name} must be at least 1; got {value}")
        if not 0 <= self.warmup < self.steps:
            raise ValueError(f"warmup must be from 0 to steps - 1; got {self.warmup}")
        if not 0 <= self.anneal < self.steps:
            raise ValueError(f"anneal must be from 0 to steps - 1; got {self.anneal}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive and finite; got {self.lr}")
        for name in ("clip", "patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive or None; got {value}")
        if self.on_nonfinite not in ("stop", "skip"):
            raise ValueError(
                f"on_nonfinite must be 'stop' or 'skip'; got {self.on_nonfinite!r}"
            )
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be from 0 to 2**63 - 1; got {self.seed}")

    def rate(self, step: int) -> float:
        """The learning rate at a step: it rises to `lr`, then falls as a cosine."""
        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        done = (step - self.warmup) / (self.steps - self.warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))

    def weight(self, step: int) -> float:
        """What `fit_energy` multiplies log p̃ by at a step: it rises from 0.01 to 1."""
        return 1.0 if step >= self.anneal else 0.01 + 0.99 * step / self.anneal

    def settings(self) -> dict[str, Any]:
        """What a run that goes on must share with the one that stopped."""
        leave_out = {"progress", "checkpoint", "checkpoint_every"}
        return {k: v for k, v in asdict(self).items() if k not in leave_out}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module and its parts into eval mode for a while; each returns to its own."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def minimise(
    flow: nn.Module,
    batch_of: Callable[[int], Any],
    loss: Callable[[Any], Tensor],
    plan: Plan,
    *,
    start: Callable[[], None] = lambda: None,
    score: Callable[[], float] | None = None,
    seen: dict[str, str],
) -> History:
    """Minimise loss(batch_of(step)) over the flow's parameters; see `fit` for the rest.

    Args:
        flow: what is trained, in place.
        batch_of: the batch of a step.
        loss: a batch's loss in nats, a scalar.
        plan: the settings.
        start: called before the first step of a new run.
        score: what the weights are worth on held-out data, in nats; less is better.
        seen: names of what the run depends on beside the plan, for the checkpoint.
    """
    if not any(p.requires_grad and p.numel() for p in flow.parameters()):
        raise ValueError("the flow has no parameter to train")
    trained = [k for k, p in flow.named_parameters() if p.requires_grad]
    settings = plan.settings() | seen | {"trained": ", ".join(trained)}
    path = None if plan.checkpoint is None else Path(plan.checkpoint).resolve()
    saved = None if path is None else checkpoint.read(path, settings)
    # Whoever calls may have switched gradients off; what is random is this run's own.
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        checkpoint.own_generators(plan.seed, next(flow.parameters()).device),
    ):
        if saved is None:
            start()
        run = Run(flow, plan)
        if saved is not None:
            run.restore(saved)
        elif (
            path is not None
        ):  # a path that cannot be written is noticed before the night
            checkpoint.write(path, settings, run.state())
        with _bar(plan, run.step) as bar:
            while not run.finished:
                run.take(batch_of, loss, score)
                bar.set_postfix_str(run.words(), refresh=False)
                bar.update(run.step - bar.n)
                due = run.finished or run.step % plan.checkpoint_every == 0
                if path is not None and due:
                    checkpoint.write(path, settings, run.state())
    return run.history


def _bar(plan: Plan, done: int) -> Any:
    shown = sys.stderr.isatty() if plan.progress is None else plan.progress
    if shown:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm  # the other warns in a notebook that has no widgets
    return tqdm(total=plan.steps, initial=done, disable=not shown, unit="step")


class Run:
    """All that changes while a flow trains, and so all that a checkpoint holds."""

    def __init__(self, flow: nn.Module, plan: Plan) -> None:
        self.flow, self.plan = flow, plan
        self.parameters = [p for p in flow.parameters() if p.requires_grad and p.numel()]
        self.device = self.parameters[0].device
        try:
            self.optimizer = torch.optim.Adam(self.parameters, plan.lr, fused=True)
        except RuntimeError:  # not on this device
            self.optimizer = torch.optim.Adam(self.parameters, plan.lr)
        self.history = History()
        self.step, self.finished = 0, False
        self._buffers: list[Tensor] = list(flow.buffers())
        self._tensors: list[Tensor] = [*self._buffers, *flow.parameters()]
        self.best: list[Tensor] | None = None
        self.last_good = self.weights()

    def weights(self) -> list[Tensor]:
        """A copy of all buffers and parameters."""
        return [t.detach().clone() for t in self._tensors]

    @torch.no_grad()
    def put(self, weights: list[Tensor]) -> None:
        """Copy weights into the flow; or its buffers alone, if no more are given."""
        for target, value in zip(self._tensors, weights, strict=False):
            target.copy_(value)

    def take(
        self,
        batch_of: Callable[[int], Any],
        loss_of: Callable[[Any], Tensor],
        score: Callable[[], float] | None,
    ) -> None:
        """One step: a batch, its gradient, an update; at times a look at the score.

        After the last update one more call looks at what it has made, and ends the run.
        """
        plan, batch = self.plan, batch_of(self.step)
        loss = loss_of(batch)
        if not loss.requires_grad:
            raise ValueError("the loss depends on no parameter that is trained")
        self.optimizer.zero_grad()
        loss.backward()
        limit = math.inf if plan.clip is None else plan.clip
        size = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        good = bool((loss + size).isfinite())
        if not good:
            self._not_finite(loss.item(), size.item(), lambda: loss_of(batch))
        if self.step == plan.steps:
            return self._finish()
        if good:
            self._update(loss.item())
        self.step += 1
        if score and (self.step % plan.check_every == 0 or self.step == plan.steps):
            self._look(score())

    @torch.no_grad()
    def _update(self, loss: float) -> None:
        for target, value in zip(self.last_good, self._tensors, strict=True):
            target.copy_(value)
        self.history.loss.append(loss)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(self.step)
        self.optimizer.step()

    def _not_finite(self, loss: float, size: float, again: Callable[[], Tensor]) -> None:
        where = where_not_finite(self.flow, again)
        skipped, last = self.history.skipped, self.step == self.plan.steps
        stop = self.plan.on_nonfinite == "stop"
        # One bad step in a row: the batch. More: the last update, so it is taken back.
        if stop or last or skipped[-1:] == [self.step - 1]:
            self.put(self.last_good)
        else:
            self.put(self.last_good[: len(self._buffers)])
        stuck = skipped[-MOST_SKIPPED:] == list(
            range(self.step - MOST_SKIPPED, self.step)
        )
        if stop or stuck:
            raise FloatingPointError(
                f"step {self.step}: the loss is {loss}, the gradient's norm {size}; "
                f"{where}. The weights are back at the last finite loss"
            )
        if not last:
            skipped.append(self.step)
            self.history.loss.append(math.nan)

    def _look(self, score: float) -> None:
        history, plan = self.history, self.plan
        history.validation.append((self.step, score))
        scores = dict(history.validation)
        if math.isfinite(score) and (
            history.best_step is None or score < scores[history.best_step]
        ):
            history.best_step, self.best = self.step, self.weights()
        since = sum(step > (history.best_step or 0) for step in scores)
        if plan.patience is not None and since >= plan.patience:
            self._finish()

    def _finish(self) -> None:
        self.finished = True
        if self.best is not None:
            self.put(self.best)

    def words(self) -> str:
        """The latest numbers, for the progress bar."""
        words = f"loss {self.history.loss[-1]:.3f} nats" if self.history.loss else ""
        if self.history.validation:
            words += f", validation {self.history.validation[-1][1]:.3f} nats"
        return words

    def state(self) -> dict[str, Any]:
        """Everything, as tensors and plain values."""
        return {
            "step": self.step,
            "finished": self.finished,
            "flow": self.flow.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": checkpoint.generator_states(self.device),
            "history": asdict(self.history),
            "best": self.best,
            "last_good": self.last_good,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the run that a state describes."""
        theirs, ours = (
            {
                k: (tuple(t.shape), t.dtype)
                for k, t in tensors.items()
                if torch.is_tensor(t)
            }
            for tensors in (state["flow"], self.flow.state_dict())
        )
        other = sorted(k for k in theirs | ours if theirs.get(k) != ours.get(k))
        if other:  # said before anything is loaded
            raise ValueError(
                f"the checkpoint is of another flow: {other[0]} is "
                f"{theirs.get(other[0], 'missing')} there and "
                f"{ours.get(other[0], 'missing')} here"
            )
        self.flow.load_state_dict(state["flow"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.finished = state["step"], state["finished"]
        self.history = History(**state["history"])
        self.last_good, self.best = (
            weights
            and [w.to(t.device) for w, t in zip(weights, self._tensors, strict=True)]
            for weights in (state["last_good"], state["best"])
        )
        checkpoint.restore_generators(state["generators"], self.device)
