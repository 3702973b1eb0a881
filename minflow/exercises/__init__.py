"""Exercises with feedback: `ex = chapter("change_of_variables")`, then `ex.check(3, answer)`.

`README.md` beside this file says how to add an exercise.
"""

from importlib import import_module
from pkgutil import iter_modules

from ._core import Chapter, Exercise
from ._judges import Equal, Measured, Mistake

__all__ = ["Chapter", "Equal", "Exercise", "Measured", "Mistake", "chapter", "chapters"]


def chapters() -> list[str]:
    """The names of the chapters that have exercises here.

    >>> "change_of_variables" in chapters()
    True
    """
    return sorted(found.name for found in iter_modules(__path__) if found.name[0] != "_")


def chapter(name: str) -> Chapter:
    """The exercises of one chapter: `check(n, answer)`, `hint(n)`, `solution(n)`, `progress()`.

    Raises ValueError, naming the chapters that exist, if `name` is none of them.

    >>> ex = chapter("change_of_variables")
    >>> ex.check(1, ...).state
    'not attempted'
    """
    if name not in chapters():
        raise ValueError(
            f"no chapter {name!r} with exercises; there are: {', '.join(chapters())}"
        )
    module = import_module(f"{__name__}.{name}")
    return Chapter(name, module.NUMBER, module.EXERCISES)
