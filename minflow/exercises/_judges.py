"""How an answer is judged: by what it computes, on seeded random cases, never by its source."""

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ._show import curves

Case = tuple[Any, ...]
# What torch says to usual slips, and what may help.
HELP = {
    "only one element tensors can be": " (`math.exp` and its like take one number, `torch.exp` tensors)",
    "must be Tensor, not float": " (for plain numbers there are `abs`, `math.log` and their like)",
    "Boolean value of Tensor with more": " (`if` decides for one number, `torch.where` for each)",
}
# By the bytes of a float; room for 2.5066 as √(2π).
TOLERANCE = {2: 2e-2, 4: 2e-4, 8: 5e-5}


@dataclass(frozen=True)
class Mistake:
    """A usual wrong answer and what to say to it.

    With `Equal`, an answer that agrees with `answer`, or with one of `also`, on every case has
    made this mistake: it gives the same or, where that raises, raises the same kind of error. With
    `Measured`, it is one whose measurement fulfils `when` (and `answer` makes an example of it).
    """

    answer: Any
    says: str
    also: tuple[Any, ...] = ()
    when: Callable[[Any], bool] | None = None


@dataclass(frozen=True)
class Fault:
    """Why an answer is wrong."""

    message: str
    picture: str = ""


@dataclass(frozen=True)
class Raised:
    """The exception that an answer ended in."""

    error: Exception

    def __str__(self) -> str:
        first = (str(self.error).splitlines() or [""])[0]
        help_ = next((words for said, words in HELP.items() if said in first), "")
        return ": ".join(filter(None, (type(self.error).__name__, first))) + help_


@dataclass(frozen=True)
class Run:
    """An answer and what came of it on each case."""

    answer: Any
    outputs: tuple[Any, ...]

    @property
    def untouched(self) -> bool:
        return all(_missing(output) for output in self.outputs)

    @property
    def why_untouched(self) -> str:
        if self.answer is None or self.answer is ... or not callable(self.answer):
            return "Put your answer where the `...` stands now."
        return "Your function returns `None` or `...` so far. If it is written, is a `return` missing?"


def _missing(output: Any) -> bool:
    if isinstance(output, Raised):
        return isinstance(output.error, NotImplementedError)
    if isinstance(output, tuple | list):
        return any(part is None or part is ... for part in output)
    return output is None or output is ...


def _arguments(case: Case, style: str) -> Case:
    """Fresh arguments: arrays as tensors (or as arrays, if style is "numpy"), the rest as is."""
    if style == "numpy":
        return tuple(a.copy() if isinstance(a, np.ndarray) else a for a in case)
    dtype = getattr(torch, style)
    return tuple(
        torch.tensor(a, dtype=dtype) if isinstance(a, np.ndarray) else a for a in case
    )


def _array(value: Any) -> np.ndarray:
    """Numbers of any make (tensor, array, float, lists of them) as an array of floats."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, list | tuple):
        value = [_array(part) for part in value]
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"numbers are expected, not {type(value).__name__}")
    return array


def _parts(value: Any) -> list[Any]:
    """What can be taken apart as a list; anything else as its only part."""
    try:
        return list(value)
    except TypeError:
        return [value]


def _show(value: Any) -> str:
    if isinstance(value, np.ndarray | np.generic | float | int):
        array = _array(value)
        if array.size > 6:
            return f"(values of shape {array.shape})"
        if array.ndim == 0:
            return f"{array.item():.5g}"
        return "[" + ", ".join(_show(part) for part in array) + "]"
    return getattr(value, "__name__", None) or str(value)


def _size(case: Case) -> int:
    return sum(a.size for a in case if isinstance(a, np.ndarray))


@dataclass(frozen=True)
class Equal:
    """The answer must compute what the reference computes.

    `cases(rng)` gives tuples of arguments; arrays reach the answer as tensors (float64, else
    float32, else as numpy arrays, whichever it takes), everything else as it is. Without `cases`
    the answer is itself a number, a tuple of numbers or a choice, and what is right is not told.
    `parts` names the parts of a tuple, `options` the letters of a choice. `tol` (relative to
    max(1, |expected|)) is chosen by the answer's dtype unless given. `call(answer, *case)` says how
    an answer that is no function, such as a Transform class, is put to use. `curve` is (low, high,
    grid -> case): on a wrong answer the output is drawn over its first argument.
    """

    cases: Callable[[np.random.Generator], Iterable[Case]] | None = None
    parts: tuple[str, ...] = ()
    options: str = ""
    tol: float | None = None
    call: Callable[..., Any] | None = None
    curve: tuple[float, float, Callable[[np.ndarray], Case]] | None = None

    def _cases(self) -> list[Case]:
        made = [()] if self.cases is None else self.cases(np.random.default_rng(0))
        return sorted(made, key=_size)

    def _one(self, answer: Any, case: Case, style: str) -> Any:
        arguments = _arguments(case, style)
        try:
            if self.call is not None:
                return self.call(answer, *arguments)
            return answer(*arguments) if callable(answer) else answer
        except Exception as error:
            return Raised(error)

    def run(self, answer: Any) -> Run:
        """What the answer gives on each case, smallest first."""
        if answer is None or answer is ...:
            return Run(answer, (None,))
        runs = []
        for style in ("float64", "float32", "numpy"):
            runs.append(
                Run(answer, tuple(self._one(answer, c, style) for c in self._cases()))
            )
            if not any(isinstance(output, Raised) for output in runs[-1].outputs):
                return runs[-1]
        return runs[0]

    def known(self, run: Run, reference: Any, mistakes: Iterable[Mistake]) -> str | None:
        """What is to be said of a known mistake, made in all of the answer or in parts of it."""
        for mistake in mistakes:
            if any(self._agree(run, wrong) for wrong in (mistake.answer, *mistake.also)):
                return mistake.says
        if self.cases is not None or not self.parts:
            return None
        got, right = _parts(run.outputs[0]), _parts(self.run(reference).outputs[0])
        if len(got) != len(right):
            return None
        amiss = [i for i, g in enumerate(got) if self._numbers("", g, right[i])]
        known = [(m.says, _parts(self.run(m.answer).outputs[0])) for m in mistakes]
        for parts in (amiss, amiss[:1]):
            names = ", ".join(self.parts[i] for i in parts)
            for says, wrong in known:
                if len(wrong) == len(got) and not any(
                    self._numbers("", got[i], wrong[i]) for i in parts
                ):
                    return f"for {names}: {says}"
        return None

    def _agree(self, run: Run, wrong: Any) -> bool:
        """Does the answer do what the wrong one does on every case, or raise where it does?

        If both raise on all cases, the words of the errors must agree, not only their kinds.
        """
        pairs = list(zip(run.outputs, self.run(wrong).outputs, strict=True))
        always = all(isinstance(g, Raised) for g, _ in pairs)
        for g, w in pairs:
            if isinstance(g, Raised) and isinstance(w, Raised):
                if type(g.error) is not type(w.error) or (always and str(g) != str(w)):
                    return False
            elif self._difference(g, w):
                return False
        return True

    def fault(self, run: Run, reference: Any) -> Fault | None:
        """The smallest case on which the answer fails, in words; None if there is none."""
        if self.cases is not None and self.call is None and not callable(run.answer):
            names = ", ".join(inspect.signature(reference).parameters)
            return Fault(
                f"a function of ({names}) is expected, not {type(run.answer).__name__}."
            )
        rights = self.run(reference).outputs
        for case, got, want in zip(self._cases(), run.outputs, rights, strict=True):
            said = self._difference(got, want)
            if said:
                return Fault(
                    said + self._where(case, reference), self._picture(run, reference)
                )
        return None

    def _where(self, case: Case, reference: Any) -> str:
        if not case:
            return "."
        names = list(inspect.signature(reference).parameters)
        if self.call is not None and len(names) != len(case):
            names = []  # the case is for `call`, not for the reference
        names += [f"argument {i + 1}" for i in range(len(names), len(case))]
        return (
            ", on "
            + ", ".join(f"{n} = {_show(a)}" for n, a in zip(names, case, strict=False))
            + "."
        )

    def _difference(self, got: Any, want: Any) -> str:
        if isinstance(got, Raised):
            return f"your function raised {got}"
        if _missing(got):
            return "your answer gives nothing (`None`)"
        if isinstance(want, str):
            return self._choice(got, want)
        if not isinstance(want, tuple):
            return self._numbers("", got, want)
        parts = _parts(got)
        if len(parts) != len(want):
            expected = f"{len(want)} values are expected ({', '.join(self.parts)})"
            return f"{expected}, not {len(parts)}"
        names = self.parts or tuple(f"part {i + 1}" for i in range(len(want)))
        said = (
            self._numbers(n, g, w) for n, g, w in zip(names, parts, want, strict=True)
        )
        return next(filter(None, said), "")

    def _choice(self, got: Any, want: str) -> str:
        letter = re.match(r"\W*([a-z])\b", str(got).lower())  # of "(b) as before" too
        chosen = letter[1] if letter else ""
        if chosen == want.lower():
            return ""
        if chosen not in list(self.options):
            return f"an answer is one of {', '.join(self.options)}"
        return f"it is not {chosen}"

    def _numbers(self, name: str, got: Any, want: Any) -> str:
        of, towards = (f" of {name}", f" for {name}") if name else ("", "")
        try:
            have, right = _array(got), _array(want)
        except (TypeError, ValueError) as error:
            return f"{error}{towards}"
        if have.shape != right.shape:
            return f"the shape{of} should be {right.shape}, and yours is {have.shape}"
        bytes_of_float = have.dtype.itemsize if have.dtype.kind == "f" else 8
        tol = TOLERANCE.get(bytes_of_float, 5e-5) if self.tol is None else self.tol
        have, right = have.astype(float), right.astype(float)
        room = tol * np.maximum(1.0, np.abs(np.where(np.isfinite(right), right, 0.0)))
        bad = ~np.isclose(have, right, rtol=0.0, atol=room, equal_nan=True)
        if not bad.any():
            return ""
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        place = f" at entry {list(at)}" if at else ""
        if self.cases is None:
            if np.isnan(have[at]):
                return f"{name or 'your answer'} is nan, not a number{place}"
            high = "high" if have[at] > right[at] else "low"
            return f"{_show(have[at])} is too {high}{towards}{place}"
        expected, came = _show(right[at]), _show(have[at])
        if expected == came:
            expected, came = f"{right[at]:.10g}", f"{have[at]:.10g}"
        return f"{expected} was expected{towards}{place}, and {came} came"

    def _picture(self, run: Run, reference: Any) -> str:
        if self.curve is None:
            return ""
        low, high, case = self.curve
        x = np.linspace(low, high, 121)
        ours, yours = (self._one(a, case(x), "float64") for a in (reference, run.answer))
        try:
            want, got = _array(ours).astype(float), _array(yours).astype(float)
        except (TypeError, ValueError):
            return ""
        if got.shape != want.shape:
            return ""
        name = next(iter(inspect.signature(reference).parameters))
        return curves(name, x.tolist(), want.tolist(), got.tolist())


@dataclass(frozen=True)
class Measured:
    """The answer, such as a trained flow, must have a measured property.

    `measure(answer)` gives a measurement, or words that say why there is none;
    `wrong(measurement)` gives words that say what is wrong with it, or None. A plain function is
    called first, and what it returns is measured.
    """

    measure: Callable[[Any], Any]
    wrong: Callable[[Any], str | None]

    def run(self, answer: Any) -> Run:
        """The measurement, or the exception that it ended in."""
        try:
            made = answer() if inspect.isfunction(answer) else answer
            return Run(
                answer, (made if made is None or made is ... else self.measure(made),)
            )
        except Exception as error:
            return Run(answer, (Raised(error),))

    def known(self, run: Run, reference: Any, mistakes: Iterable[Mistake]) -> str | None:
        """What is to be said of a known mistake that the measurement shows."""
        (output,) = run.outputs
        if isinstance(output, Raised | str):
            return None
        shown = (m.says for m in mistakes if m.when is not None and m.when(output))
        return next(shown, None)

    def fault(self, run: Run, reference: Any) -> Fault | None:
        """What is wrong with the measurement, in words; None if nothing is."""
        (output,) = run.outputs
        if isinstance(output, Raised):
            return Fault(f"measuring it raised {output}.")
        said = output if isinstance(output, str) else self.wrong(output)
        return None if said is None else Fault(said)
