"""Checks of what training needs: gradients, a whole state, few network passes, one graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from minflow.testing._case import Case, close, compiling
from minflow.transform import Transform


def gradients(case: Case) -> Iterator[str]:
    parameters = _trained(case.transform)
    for name, go, _, start, context in case.sides(32):
        weights = torch.randn(start.shape, generator=case.generator, dtype=torch.float64)

        def loss(go=go, start=start, context=context, weights=weights) -> Tensor:  # type: ignore[no-untyped-def]
            end, log_det = go(start, context)
            return (weights * end).sum() + log_det.sum()

        for what, value in [("its input", start), ("the context", context)]:
            if value is None:
                continue
            value.requires_grad_()
            (gradient,) = torch.autograd.grad(loss(), [value])
            value.requires_grad_(False)
            i = int(torch.randint(value.numel(), (1,), generator=case.generator))
            yield from _compare(f"{name}'s gradient for {what}", gradient, loss, value, i)
        if not parameters:
            continue
        gradients = torch.autograd.grad(
            loss(), list(parameters.values()), allow_unused=True
        )
        for (k, p), gradient in zip(parameters.items(), gradients, strict=True):
            if gradient is None:
                continue
            for i in torch.randperm(p.numel(), generator=case.generator)[:4].tolist():
                yield from _compare(f"{name}'s gradient for {k}", gradient, loss, p, i)
    alive = _alive(case, case.transform)
    for seed in range(3, 9):  # a ReLU that is off at all points is on for other weights
        if all(seen.all() for seen in alive.values()):
            return
        for k, seen in _alive(case, case.fresh(seed)).items():
            alive[k] |= seen
    for k, seen in alive.items():
        if not seen.all():
            yield f"{int((~seen).sum())} of the {seen.numel()} numbers in {k} never get a gradient"


def _trained(t: Transform) -> dict[str, nn.Parameter]:
    return {k: p for k, p in t.named_parameters() if p.requires_grad and p.numel()}


def _alive(case: Case, t: Transform) -> dict[str, Tensor]:
    """Which numbers of each parameter get a gradient, from one direction or the other.

    A weight that its module's mask shuts off counts as alive: it is meant to get none.
    """
    parameters = _trained(t)
    alive = {k: torch.zeros_like(p, dtype=torch.bool) for k, p in parameters.items()}
    for name, mask in t.named_buffers():
        weight = name.removesuffix("mask") + "weight"
        if name.endswith("mask") and weight in alive:
            alive[weight] |= mask == 0
    if not parameters:
        return alive
    for go, where in [(t.forward, t.domain), (t.inverse, t.codomain)]:
        end, log_det = go(case.points(where, 32), case.context_for(t, 32))
        weights = torch.randn(end.shape, generator=case.generator, dtype=torch.float64)
        loss, leaves = (weights * end).sum() + log_det.sum(), list(parameters.values())
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        for k, gradient in zip(alive, gradients, strict=True):
            if gradient is not None:
                alive[k] |= gradient != 0
    return alive


def _compare(
    what: str, gradient: Tensor, loss: Callable[[], Tensor], value: Tensor, i: int
) -> Iterator[str]:
    got = difference = float(gradient.reshape(-1)[i])
    # A kink (a ReLU's, a knot) rarely lies within all of these steps.
    for step in (1e-5, 1e-6, 1e-7):
        difference = _central_difference(loss, value, i, step)
        if abs(got - difference) <= 1e-4 * (1 + abs(difference)):
            return
    yield f"{what}, number {i}, is {got:.6g}; a central difference gives {difference:.6g}"


def _central_difference(
    loss: Callable[[], Tensor], parameter: Tensor, i: int, step: float
) -> float:
    values = []
    with torch.no_grad():
        flat = parameter.view(-1)
        for sign in (+1, -2):
            flat[i] += sign * step
            values.append(float(loss()))
        flat[i] += step
    return (values[0] - values[1]) / (2 * step)


def state(case: Case) -> Iterator[str]:
    for module in case.transform.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                yield f"the tensor {name} is a plain attribute: register_buffer keeps it"
    twin = case.fresh(seed=2)
    twin.load_state_dict(copy.deepcopy(case.transform.state_dict()))
    for name, go, _, start, context in case.sides():
        if not close(getattr(twin, name)(start, context)[0], go(start, context)[0], 1e-9):
            yield f"{name} differs in a twin that loaded its state: something is not a buffer"
    first, points = copy.deepcopy(case.transform), case.points(twin.codomain, 64)
    context = case.context_for(twin, 64)
    for t in (first, twin):
        t.initialize(points, context)
    if not close(
        first.inverse(points, context)[0], twin.inverse(points, context)[0], 1e-9
    ):
        yield "a twin that loaded its state starts from data again: a flag is not a buffer"


def passes(case: Case) -> Iterator[str]:
    if case.network_passes is None:
        return
    layers = [m for m in case.transform.modules() if isinstance(m, nn.Linear)]
    for (name, go, _, start, context), promised in zip(
        case.sides(), case.network_passes, strict=True
    ):
        calls = dict.fromkeys(layers, 0)

        def count(
            layer: nn.Module, *_: object, calls: dict[nn.Linear, int] = calls
        ) -> None:
            calls[layer] += 1  # type: ignore[index]

        hooks = [layer.register_forward_hook(count) for layer in layers]
        go(start, context)
        for hook in hooks:
            hook.remove()
        # With one coordinate and nothing to see, a layer needs no network.
        alone = case.dim == 1 and not layers
        if set(calls.values()) != {promised} and not alone:
            yield f"{name} calls its networks {sorted(set(calls.values()))} times, not {promised}"


def capture(case: Case) -> Iterator[str]:
    for name, go, _, start, context in case.sides():
        if name in case.closed_form and case.dim == 2:
            with compiling():
                capture = torch.compile(go, backend="eager", fullgraph=True)
                captured = capture(start, context)[0]
            if not close(captured, go(start, context)[0], 1e-9):
                yield f"{name} gives other values once captured in one graph"
