"""A training run on disk: written atomically, and fit to go on from, bit for bit."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FORMAT = 1


def write_atomically(target: Path, data: bytes, temporary: Path) -> None:
    """Put data into a file, so that a crash leaves the old file or the new one, whole.

    Args:
        target: the file.
        data: what it is to hold.
        temporary: a name beside it, for the file while it grows.
    """
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write(path: str | os.PathLike[str], settings: dict[str, Any], state: Any) -> None:
    """Write a checkpoint: a run's settings, and its state of tensors and plain values."""
    target = Path(path).resolve()
    buffer = io.BytesIO()
    contents = {"minflow_checkpoint": FORMAT, "settings": settings, "state": state}
    torch.save(contents, buffer)
    # One run writes to one path: what a killed run left half-written is overwritten.
    temporary = target.with_name(f".{target.name}.partial")
    write_atomically(target, buffer.getvalue(), temporary)


def read(path: str | os.PathLike[str], settings: dict[str, Any]) -> Any:
    """The state in a checkpoint of a run with these settings; None if there is no file.

    Raises:
        FileNotFoundError: if the file's folder does not exist.
        ValueError: if the file is damaged, is no checkpoint, or its run had other
            settings.
    """
    file, name = Path(path), repr(str(path))
    if not file.resolve().parent.is_dir():
        raise FileNotFoundError(f"no folder {str(file.resolve().parent)!r}")
    if not file.exists():
        return None
    try:
        contents = torch.load(file, map_location="cpu", weights_only=True)
        written = contents["minflow_checkpoint"]
        theirs, state = contents["settings"], contents["state"]
    except (
        OSError,
        RuntimeError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        raise ValueError(f"{name} is damaged or no checkpoint of fit: {error}") from error
    if written != FORMAT:
        raise ValueError(f"{name} has format {written}; this minflow reads {FORMAT}")
    other = [k for k in settings if settings[k] != theirs.get(k)]
    if other:
        words = ", ".join(f"{k} ({theirs.get(k)!r}, now {settings[k]!r})" for k in other)
        raise ValueError(
            f"{name} is of a run with other settings: {words}. Give this run another "
            "path, or delete the file to start anew"
        )
    return state


@contextmanager
def own_generators(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the generators that a run on this device draws from; then restore them."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed reaches every GPU
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield


def generator_states(device: torch.device) -> list[Tensor]:
    """The states of torch's generators that a run on this device draws from."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def restore_generators(states: list[Tensor], device: torch.device) -> None:
    """Put the generators back to where `generator_states` found them."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
