"""Save a flow to one file and load it back: tensors in safetensors, its make-up in JSON, no pickle."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from minflow import elementwise, linear, transform
from minflow import flow as flow_module
from minflow.elementwise import ScalarMap
from minflow.flow import Flow

FORMAT = 1
CLASSES = {
    name: value
    for module in (transform, elementwise, linear, flow_module)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, nn.Module | ScalarMap)
}


def save(flow: Flow, path: str | os.PathLike[str]) -> None:
    """Write a flow to one file, atomically: a crash leaves the old file or the new one.

    The file holds every tensor of the flow's state and, in its metadata, how the flow
    is built out of minflow's own classes. A flow with other parts is saved too; `load`
    then asks for such a flow.

    Args:
        flow: the flow; it may be on any device.
        path: where to; its folder must exist.

    Raises:
        TypeError: if flow is not a Flow.
    """
    if not isinstance(flow, Flow):
        raise TypeError(f"save takes a Flow; got {type(flow).__name__}")
    tensors = {k: v.detach().cpu().clone() for k, v in flow.state_dict().items()}
    description = json.dumps(_describe(flow, set()))
    metadata = {
        "minflow_format": str(FORMAT),
        "description": description,
        "sha256": _digest(description, tensors),
    }
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    save_file(tensors, temporary, metadata)
    os.replace(temporary, path)


def load(path: str | os.PathLike[str], flow: Flow | None = None) -> Flow:
    """Read a flow that `save` wrote.

    Args:
        path: the file.
        flow: None rebuilds the flow. A flow with parts from outside minflow cannot be
            rebuilt: hand in one that is built alike, and it is filled.

    Returns:
        The flow, on the CPU if rebuilt.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, is no minflow file, was written by a newer
            minflow, or does not fit the flow handed in, which then stays as it was.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{str(path)!r} is cut short or no safetensors file: {error}"
        ) from error
    _check_metadata(str(path), metadata, tensors)
    if flow is None:
        description = json.loads(metadata["description"])
        if description is None:
            raise ValueError(
                f"{str(path)!r} holds a flow with parts from outside minflow: "
                "build one like it and hand it in, load(path, flow)"
            )
        try:
            with torch.device(
                "meta"
            ):  # no memory is taken before the shapes are known to fit
                flow = _build(description)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{str(path)!r} does not describe a flow: {error}"
            ) from error
        if not isinstance(flow, Flow):
            raise ValueError(f"{str(path)!r} does not describe a flow")
    _check_fit(str(path), flow, tensors)
    rebuilt = any(t.is_meta for t in flow.state_dict().values())
    flow.load_state_dict(tensors, assign=rebuilt)
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


def _check_fit(path: str, flow: Flow, tensors: dict[str, Tensor]) -> None:
    expected = flow.state_dict()
    if expected.keys() != tensors.keys():
        missing = sorted(expected.keys() - tensors.keys())
        surplus = sorted(tensors.keys() - expected.keys())
        raise ValueError(
            f"{path!r} does not fit the flow: missing {missing}, surplus {surplus}"
        )
    for name, tensor in tensors.items():
        want = expected[name]
        if want.shape != tensor.shape or (
            not want.is_meta and want.dtype != tensor.dtype
        ):
            raise ValueError(
                f"{path!r} does not fit the flow: {name} is {tuple(tensor.shape)} {tensor.dtype} "
                f"in the file and {tuple(want.shape)} {want.dtype} in the flow"
            )


def _digest(description: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the description and of all tensors; it finds damage, not a forger."""
    digest = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _describe(part: Any, seen: set[int]) -> Any:
    """A part as JSON: its class and its constructor's arguments, which it keeps under their names.

    None if a part is not minflow's own, or is used twice: two copies would no longer
    share weights.
    """
    if isinstance(part, bool | int | float | str):
        return part
    name = type(part).__name__
    if CLASSES.get(name) is not type(part) or id(part) in seen:
        return None
    if isinstance(part, nn.Module):
        seen.add(id(part))
    arguments: dict[str, Any] = {}
    for argument in inspect.signature(type(part)).parameters.values():
        value = getattr(part, argument.name)
        several = argument.kind is argument.VAR_POSITIONAL
        arguments[argument.name] = (
            [_describe(v, seen) for v in value] if several else _describe(value, seen)
        )
        if None in (arguments[argument.name] if several else [arguments[argument.name]]):
            return None
    return {"class": name, "arguments": arguments}


def _build(description: Any) -> Any:
    if not isinstance(description, dict):
        return description
    cls = CLASSES.get(description["class"])
    if cls is None:
        raise ValueError(f"it names {description['class']!r}, which this minflow lacks")
    arguments = {
        k: v for k, v in description["arguments"].items() if not isinstance(v, list)
    }
    several = [
        _build(v)
        for vs in description["arguments"].values()
        if isinstance(vs, list)
        for v in vs
    ]
    return cls(*several, **{k: _build(v) for k, v in arguments.items()})
