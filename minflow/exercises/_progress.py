"""The reader's progress: one small JSON file, and nothing elsewhere."""

import json
import os
import tempfile
from pathlib import Path
from typing import Literal

VARIABLE = "MINFLOW_PROGRESS"
DEFAULT = "~/.minflow-progress.json"
States = dict[str, dict[str, Literal["correct", "wrong"]]]


def _spoken() -> str:
    """The file's name in words that are the same on every machine."""
    return f"the file named by {VARIABLE}" if os.environ.get(VARIABLE) else DEFAULT


def _path() -> Path:
    return Path(os.environ.get(VARIABLE) or DEFAULT).expanduser().resolve()


def read() -> tuple[States, str]:
    """Chapter -> exercise -> "correct" or "wrong"; and a word if the file is unreadable."""
    try:
        states = json.loads(_path().read_text(encoding="utf-8"))
        for exercises in states.values():
            if not set(exercises.values()) <= {"correct", "wrong"}:
                raise ValueError("unknown state")
    except FileNotFoundError:
        return {}, ""
    except (OSError, RuntimeError, ValueError, AttributeError, TypeError) as error:
        reason = type(error).__name__
        return (
            {},
            f"The progress could not be read ({reason}): delete {_spoken()} to begin anew.",
        )
    return states, ""


def record(chapter: str, number: int, state: Literal["correct", "wrong"]) -> str:
    """Note an attempt; what was once correct stays so. Returns a word if it could not be noted.

    The file is replaced in one step, and one that cannot be read is left as it is.
    """
    states, trouble = read()
    known = states.setdefault(chapter, {}) if not trouble else {}
    if trouble or known.get(str(number)) in ("correct", state):
        return trouble
    known[str(number)] = state
    temporary = None
    try:
        path = _path()
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=".minflow-", suffix=".tmp"
        )
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(states, file, indent=1, sort_keys=True)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        return f"The progress could not be saved ({type(error).__name__}) in {_spoken()}."
    return ""
