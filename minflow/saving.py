"""Save a flow to one file and load it back: tensors in safetensors, its make-up in JSON, no pickle."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from minflow import (
    autoregressive,
    base,
    coupling,
    elementwise,
    linear,
    mixture_cdf,
    monotone,
    planar,
    scalar_map,
    spline,
    standardize,
    support,
    transform,
)
from minflow.checkpoint import write_atomically
from minflow.flow import Flow
from minflow.scalar_map import ScalarMap

FORMAT = 1
CLASSES = {
    name: value
    for module in (
        transform,
        base,
        scalar_map,
        mixture_cdf,
        monotone,
        elementwise,
        linear,
        standardize,
        planar,
        coupling,
        autoregressive,
        spline,
        support,
    )
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, nn.Module | ScalarMap)
} | {"Flow": Flow}


def save(flow: Flow, path: str | os.PathLike[str]) -> None:
    """Write a flow to one file, atomically: a crash leaves the old file or the new one.

    The file holds every tensor of the flow's state and, in its metadata, how the flow is
    built out of minflow's own classes. A flow with other parts is saved too; `load` then
    asks for such a flow. Which parameters were frozen is not kept.

    Args:
        flow: the flow; it may be on any device.
        path: where to; its folder must exist.

    Raises:
        TypeError: if flow is not a Flow.
        FileNotFoundError: if the folder does not exist.
    """
    if not isinstance(flow, Flow):
        raise TypeError(f"save takes a Flow; got {type(flow).__name__}")
    target = Path(path).resolve()  # what a link points to, not the link, is replaced
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no folder {str(target.parent)!r}")
    state = flow.state_dict()
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    description = json.dumps(_describe(flow, set()))
    metadata = {
        "minflow_format": str(FORMAT),
        "description": description,
        "sha256": _digest(description, tensors),
    }
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    write_atomically(target, to_bytes(tensors, metadata), temporary)


def load(path: str | os.PathLike[str], flow: Flow | None = None) -> Flow:
    """Read a flow that `save` wrote.

    Args:
        path: the file.
        flow: None rebuilds the flow. A flow with parts from outside minflow cannot be
            rebuilt: hand in one that is built alike, and it is filled.

    Returns:
        The flow, on the CPU if rebuilt.

    Raises:
        TypeError: if what is handed in is not a Flow.
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, is no minflow file, was written by a newer
            minflow, or does not fit the flow handed in, which then stays as it was.
    """
    if not isinstance(flow, Flow | None):
        raise TypeError(f"load fills a Flow; got {type(flow).__name__}")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: what safetensors returns would change with the file.
            tensors = {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{str(path)!r} is cut short or no safetensors file: {error}"
        ) from error
    _check_metadata(str(path), metadata, tensors)
    rebuild = flow is None
    try:
        description = json.loads(metadata["description"])
        if flow is None:
            with torch.device("meta"):  # no memory is taken before the shapes are known
                flow = _build(description)
    except LookupError as error:
        raise ValueError(
            f"{str(path)!r} cannot be rebuilt, since it holds {error.args[0]}: "
            "build a flow like it and hand it in, load(path, flow)"
        ) from error
    except (AttributeError, RecursionError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} does not describe a flow: {error}") from error
    if not isinstance(flow, Flow):
        raise ValueError(f"{str(path)!r} does not describe a flow")
    _check_fit(str(path), flow, description, tensors)
    flow.load_state_dict(tensors, assign=rebuild)
    return flow


def _check_metadata(
    path: str, metadata: dict[str, str], tensors: dict[str, Tensor]
) -> None:
    written = metadata.get("minflow_format", "")
    if not written.isdecimal() or not {"description", "sha256"} <= metadata.keys():
        raise ValueError(f"{path!r} was not written by minflow.save")
    if int(written) > FORMAT:
        raise ValueError(
            f"{path!r} has format {written}, but this minflow reads up to {FORMAT}: "
            "it was written by a newer minflow"
        )
    if _digest(metadata["description"], tensors) != metadata["sha256"]:
        raise ValueError(
            f"{path!r} was changed after it was saved: its digest does not fit"
        )


def _check_fit(
    path: str, flow: Flow, description: Any, tensors: dict[str, Tensor]
) -> None:
    expected = flow.state_dict()
    if expected.keys() != tensors.keys():
        missing = sorted(expected.keys() - tensors.keys())
        surplus = sorted(tensors.keys() - expected.keys())
        raise ValueError(
            f"{path!r} does not fit the flow: missing {missing}, surplus {surplus}"
        )
    for name, tensor in tensors.items():
        want = expected[name]
        if want.shape != tensor.shape or not (want.is_meta or want.dtype == tensor.dtype):
            raise ValueError(
                f"{path!r} does not fit the flow: {name} is "
                f"{tuple(tensor.shape)} {tensor.dtype} in the file and "
                f"{tuple(want.shape)} {want.dtype} in the flow"
            )
    make = _describe(flow, set())
    if make != description:
        raise ValueError(
            f"{path!r} holds {_words(description)}, but the flow is {_words(make)}"
        )


def in_words(flow: Flow) -> str:
    """How a flow is built, as one would write it in Python; other parts by their class."""
    return _words(_describe(flow, set()))


def _digest(description: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the description and of all tensors; it finds damage, not a forger."""
    digest = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _describe(part: Any, seen: set[int]) -> Any:
    """A part as JSON: its class and its constructor's arguments, kept under their names.

    A part from outside minflow is named only; so is one that stands twice, since two
    copies would no longer share their weights.
    """
    if part is None or isinstance(part, bool | int | float | str):
        return part
    if isinstance(part, tuple):
        return {"tuple": [_describe(value, seen) for value in part]}
    cls = type(part)
    if CLASSES.get(cls.__name__) is not cls:
        return {"outside": f"{cls.__module__}.{cls.__qualname__}"}
    if id(part) in seen:
        return {"outside": f"a second use of the same {cls.__name__}"}
    if isinstance(part, nn.Module):
        seen.add(id(part))
    arguments: dict[str, Any] = {}
    for argument in inspect.signature(cls).parameters.values():
        value = getattr(part, argument.name)
        several = argument.kind is argument.VAR_POSITIONAL
        arguments[argument.name] = (
            [_describe(v, seen) for v in value] if several else _describe(value, seen)
        )
    return {"class": cls.__name__, "arguments": arguments}


def _build(description: Any) -> Any:
    """A part from its description; LookupError names what minflow cannot build."""
    if not isinstance(description, dict):
        return description
    if "tuple" in description:
        return tuple(_build(value) for value in description["tuple"])
    cls = CLASSES.get(description.get("class", ""))
    if cls is None:
        raise LookupError(
            description.get("outside") or description.get("class") or "nothing"
        )
    several, named = [], {}
    for name, value in description.get("arguments", {}).items():
        if isinstance(value, list):
            several = [_build(v) for v in value]
        else:
            named[name] = _build(value)
    return cls(*several, **named)


def _words(description: Any) -> str:
    """A description as one would write it in Python."""
    if not isinstance(description, dict):
        return repr(description)
    if "tuple" in description:
        return repr(tuple(description["tuple"]))
    arguments = []
    for name, value in description.get("arguments", {}).items():
        if isinstance(value, list):
            arguments += [_words(v) for v in value]
        else:
            arguments.append(f"{name}={_words(value)}")
    name = description.get("class") or description.get("outside")
    return f"{name}({', '.join(arguments)})"
