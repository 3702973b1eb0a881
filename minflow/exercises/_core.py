"""An exercise, and a chapter's set of them."""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from . import _progress
from ._judges import Equal, Measured, Mistake
from ._show import Fold, Progress, State, Verdict


@dataclass(frozen=True)
class Exercise:
    """One exercise: its right answer, how an answer is judged, and all that is said about it.

    `reference` is a function: what the reader is to write or, where a number, a choice or an
    object is asked for, one without arguments that returns it. Its source is the solution.
    `variants` are honest other ways to the same answer: the tests hold that they pass.
    """

    title: str
    level: Literal["easy", "medium", "hard"]
    kind: Literal["predict", "derive", "code", "explore", "debug"]
    reference: Callable[..., Any]
    judge: Equal | Measured
    insight: str
    hints: tuple[str, str]
    why: str
    mistakes: tuple[Mistake, ...] = field(default=())
    variants: tuple[Any, ...] = field(default=())

    def check(self, answer: Any) -> Verdict:
        """Judge one answer: not attempted, wrong because …, or correct."""
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            run = self.judge.run(answer)
            if run.untouched:
                return Verdict("not attempted", run.why_untouched)
            fault = self.judge.fault(run, self.reference)
            if fault is None:
                return Verdict("correct", self.insight)
            known = self.judge.known(run, self.reference, self.mistakes)
            return Verdict("wrong", known or fault.message, fault.picture)


@dataclass(frozen=True)
class Chapter:
    """The exercises of one chapter, by number, with the reader's progress."""

    name: str
    number: int
    exercises: tuple[Exercise, ...]

    def _find(self, n: int) -> tuple[str, Exercise]:
        if (
            isinstance(n, bool)
            or not isinstance(n, int)
            or not 1 <= n <= len(self.exercises)
        ):
            last = len(self.exercises)
            raise ValueError(
                f"chapter {self.name!r} has no exercise {n!r}; it has 1 to {last}"
            )
        return f"{self.number}.{n}", self.exercises[n - 1]

    def check(self, n: int, answer: Any) -> Verdict:
        """Judge an answer to exercise `n`; an attempt is noted in the progress file."""
        label, exercise = self._find(n)
        verdict = exercise.check(answer)
        note = ""
        if verdict.state != "not attempted":
            note = _progress.record(self.name, n, verdict.state)
        return Verdict(verdict.state, verdict.message, verdict.picture, label, note)

    def hint(self, n: int) -> Fold:
        """A hint to exercise `n`, folded; a second, stronger one is folded inside it."""
        label, exercise = self._find(n)
        call = f"ex.hint({n})"
        second = Fold(
            f"A second hint for exercise {label}", f"{call}.more", exercise.hints[1]
        )
        return Fold(f"A hint for exercise {label}", call, exercise.hints[0], more=second)

    def solution(self, n: int) -> Fold:
        """The solution of exercise `n`, folded: tested source, and why it is right."""
        label, exercise = self._find(n)
        source = textwrap.dedent(inspect.getsource(exercise.reference)).strip()
        why = exercise.why
        if isinstance(exercise.judge, Measured):
            why += f" It may be handed in as it is: `ex.check({n}, {exercise.reference.__name__})`."
        return Fold(
            f"Solution of exercise {label}",
            f"ex.solution({n})",
            why,
            code=source,
        )

    def progress(self) -> Progress:
        """The chapter's exercises and how far the reader has come with them."""
        states, note = _progress.read()
        mine = states.get(self.name, {})
        rows: list[tuple[str, str, str, State]] = [
            (f"{self.number}.{n}", e.title, e.level, mine.get(str(n), "not attempted"))
            for n, e in enumerate(self.exercises, start=1)
        ]
        return Progress(tuple(rows), note)

    def __repr__(self) -> str:
        last = f"{self.number}.{len(self.exercises)}"
        return f"Exercises {self.number}.1 to {last} of chapter {self.name!r}"
