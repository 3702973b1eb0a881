"""The contract that every transform keeps, as a tool that readers can hold their own against."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from minflow.show import Finding, Findings
from minflow.transform import Transform, interval

Direction = Callable[..., tuple[Tensor, Tensor]]
BOTH = ("forward", "inverse")


@dataclass
class _Case:
    """One transform at one D, in float64 and away from its start, with points on both sides."""

    make: Callable[[int], Transform]
    dim: int
    mixes: bool | None
    closed_form: tuple[str, ...]
    network_passes: tuple[int, int] | None
    generator: Generator = field(default_factory=lambda: Generator().manual_seed(0))

    def fresh(self, seed: int) -> Transform:
        """A new transform with parameters moved away from the start, where errors cancel."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            transform = self.make(self.dim).double()
            # A sum over D coordinates grows with D: random matrices stay well-conditioned.
            size = 0.5 * min(1.0, (5 / self.dim) ** 0.5)
            with torch.no_grad():
                for parameter in transform.parameters():
                    parameter.add_(size * torch.randn_like(parameter))
        return transform

    @cached_property
    def transform(self) -> Transform:
        transform = self.fresh(seed=1)
        transform.initialize(
            self.points(transform.codomain, 64), self.context_for(transform, 64)
        )
        return transform

    def points(self, where: Constraint, *shape: int) -> Tensor:
        """Random points in a domain, shape (*shape, D)."""
        bounds = interval(where)
        if bounds is None:
            raise ValueError(
                f"this tool needs an interval as domain and codomain; got {where}"
            )
        lower, upper = bounds
        normal = torch.randn(
            *shape, self.dim, generator=self.generator, dtype=torch.float64
        )
        if bounds == (-math.inf, math.inf):
            return 1.5 * normal
        if math.isfinite(lower) and math.isfinite(upper):
            return lower + (upper - lower) * torch.sigmoid(normal)
        return lower + normal.exp() if math.isfinite(lower) else upper - normal.exp()

    def context_for(self, transform: Transform, *shape: int) -> Tensor | None:
        if not transform.context_dim:
            return None
        width = transform.context_dim
        return torch.randn(*shape, width, generator=self.generator, dtype=torch.float64)

    def sides(
        self, n: int = 7
    ) -> Iterator[tuple[str, Direction, Direction, Tensor, Tensor | None]]:
        """Each direction: its name, itself, the way back, n points to start from, their context."""
        t = self.transform
        context = self.context_for(t, n)
        yield "forward", t.forward, t.inverse, self.points(t.domain, n), context
        yield "inverse", t.inverse, t.forward, self.points(t.codomain, n), context


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return a.shape == b.shape and bool(
        torch.allclose(a, b, rtol=tolerance, atol=tolerance)
    )


def _declaration(case: _Case) -> Iterator[str]:
    if case.transform.dim != case.dim:
        yield f"its dim is {case.transform.dim}, but it was made for D = {case.dim}"
    for name, go, _, start, context in case.sides():
        there = case.transform.codomain if name == "forward" else case.transform.domain
        if not bool(there.check(go(start, context)[0]).all()):
            yield f"{name} leaves the declared {'codomain' if name == 'forward' else 'domain'}"


def _repeatable(case: _Case) -> Iterator[str]:
    t = case.transform
    for name, go, _, start, context in case.sides():
        before = copy.deepcopy(t.state_dict())
        first, second = go(start, context), go(start, context)
        if not all(map(torch.equal, first, second)):
            yield f"{name} gives another answer to the same input the second time"
        if any(not torch.equal(v, before[k]) for k, v in t.state_dict().items()):
            yield f"calling {name} changes the state"
        evaluated = getattr(copy.deepcopy(t).eval(), name)(start, context)
        if not all(map(torch.equal, first, evaluated)):
            yield f"{name} differs between train() and eval()"


def _round_trip(case: _Case) -> Iterator[str]:
    ends = interval(case.transform.domain), interval(case.transform.codomain)
    for name, go, back, start, context in case.sides(64):
        if set(ends) == {(-math.inf, math.inf)}:
            start[:2] = torch.tensor([[30.0], [-30.0]])  # far out, nothing may be cut off
        end, log_det = go(start, context)
        again, log_det_back = back(end, context)
        if not _close(again, start, 1e-6):
            yield f"{name} and back misses its start by {(again - start).abs().max():.2g}"
        if not _close(log_det, -log_det_back, 1e-6):
            yield f"the log-dets of {name} and of the way back do not cancel"


def _log_det(case: _Case) -> Iterator[str]:
    for name, go, _, start, context in case.sides():
        _, log_det = go(start, context)
        if log_det.shape != start.shape[:-1]:
            expected, got = tuple(start.shape[:-1]), tuple(log_det.shape)
            yield f"{name} returns a log_det of shape {got}, where one number a point is {expected}"
            continue
        jacobians = torch.linalg.slogdet(_jacobians(go, start, context))
        for i, true in enumerate(jacobians.logabsdet):
            if not _close(log_det[i], true, 1e-6):
                flipped = (
                    " (the sign is flipped)" if _close(log_det[i], -true, 1e-6) else ""
                )
                yield f"{name} says {log_det[i]:.6g}, its Jacobian has {true:.6g}{flipped}"
                break


def _jacobians(go: Direction, start: Tensor, context: Tensor | None) -> Tensor:
    """d go(start)_j / d start_k at each of n points, (n, D, D), from one gradient.

    Each point goes in D times; the gradient of copy j is taken of its number j alone.
    """
    copies = start.unsqueeze(1).repeat(1, start.shape[-1], 1).requires_grad_()
    end, _ = go(copies, None if context is None else context.unsqueeze(1))
    each = torch.eye(start.shape[-1], dtype=end.dtype).expand_as(end)
    return torch.autograd.grad(end, copies, each)[0]


def _mass(case: _Case) -> Iterator[str]:
    if case.dim > 2:
        return
    t = case.transform
    context = case.context_for(t)
    lower, upper = interval(t.domain) or (math.nan, math.nan)
    # The grid in x follows f: wide and fine where it must be, whatever the log-det.
    base = torch.quasirandom.SobolEngine(case.dim).draw(2**15, dtype=torch.float64)
    base = 18 * base - 9
    if math.isfinite(lower) and math.isfinite(upper):  # another law stands in as the base
        base = lower + (upper - lower) * torch.sigmoid(base)
    elif math.isfinite(lower):
        base = lower + base.exp()
    columns = [column.sort().values for column in t(base, context)[0].unbind(-1)]
    mass = math.nan
    # A coarse grid that finds all the mass will do; where it does not, a finer one looks.
    for count in (2001, 20_001) if case.dim == 1 else (201, 1001):
        places = torch.linspace(0, len(base) - 1, count).round().long()
        mass = _integral(t, [column[places] for column in columns], context)
        if abs(mass - 1) <= 0.01:
            return
    yield f"a density carried by it has mass {mass:.4g} instead of 1 (D = {case.dim})"


def _integral(t: Transform, grid: list[Tensor], context: Tensor | None) -> float:
    """The mass that a law on t's domain has on a grid in x, by the trapezoid rule."""
    lower, upper = interval(t.domain) or (math.nan, math.nan)
    dim = len(grid)
    x = torch.cartesian_prod(*grid).reshape(-1, dim)
    inside = t.codomain.check(x)
    z, log_det = t.inverse(x[inside], context)
    if lower == -math.inf and upper == math.inf:
        log_base = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
    elif math.isfinite(upper):
        log_base = torch.full_like(log_det, -dim * math.log(upper - lower))
    else:
        log_base = -(z - lower).sum(-1)
    density = torch.zeros(len(x), dtype=torch.float64)
    density[inside] = (log_base + log_det).exp()
    mass = density.reshape(*(len(g) for g in grid))
    for points in reversed(grid):
        mass = torch.trapezoid(mass, points, dim=-1)
    return float(mass.detach())


def _shapes(case: _Case) -> Iterator[str]:
    t = case.transform
    width = t.context_dim
    for name, go, _, start, context in case.sides(28):
        flat, flat_log_dets = go(start, context)
        for shape in [(), (0,), (7,), (4, 7)]:
            count = math.prod(shape)
            rows = None if context is None else context[:count].reshape(*shape, width)
            end, log_det = go(start[:count].reshape(*shape, case.dim), rows)
            if end.shape != (*shape, case.dim) or log_det.shape != shape:
                got = f"{tuple(end.shape)} and {tuple(log_det.shape)}"
                yield f"{name} turns batch shape {shape} into {got}"
            elif not (
                _close(end.reshape(count, case.dim), flat[:count], 1e-9)
                and _close(log_det.reshape(count), flat_log_dets[:count], 1e-9)
            ):
                yield f"{name} depends on how the batch is shaped: {shape} differs"
        if context is not None:
            end, log_det = go(start[:7], context[:4].unsqueeze(1))
            one, _ = go(start[2], context[3])
            if log_det.shape != (4, 7) or not _close(end[3, 2], one, 1e-9):
                yield f"{name} does not broadcast a context of batch (4, 1) against points of batch (7,)"


def _dtypes(case: _Case) -> Iterator[str]:
    single = copy.deepcopy(case.transform).float()
    for name, go, _, start, context in case.sides():
        end, log_det = go(start, context)
        rows = None if context is None else context.float()
        single_end, single_log_det = getattr(single, name)(start.float(), rows)
        dtypes = {single_end.dtype, single_log_det.dtype}
        if dtypes != {torch.float32} or {end.dtype, log_det.dtype} != {torch.float64}:
            yield f"{name} changes the dtype: from float32 it makes {sorted(map(str, dtypes))}"
        for what, rough, exact in [
            ("", single_end, end),
            ("log_det ", single_log_det, log_det),
        ]:
            if not _close(rough.double(), exact, 1e-3):
                yield f"{name}'s {what}in float32 is off by {(rough - exact).abs().max():.2g}"


def _inputs_kept(case: _Case) -> Iterator[str]:
    for name, go, _, start, context in case.sides():
        before = start.clone(), None if context is None else context.clone()
        go(start, context)
        if not torch.equal(start, before[0]):
            yield f"{name} writes into its input"
        if (
            context is not None
            and before[1] is not None
            and not torch.equal(context, before[1])
        ):
            yield f"{name} writes into its context"


def _far_out(case: _Case) -> Iterator[str]:
    t = copy.deepcopy(case.transform).float()
    for name, where in [("forward", t.domain), ("inverse", t.codomain)]:
        lower, upper = interval(where) or (-math.inf, math.inf)
        low = lower + 1e-6 if math.isfinite(lower) else -1e3
        high = upper - 1e-6 if math.isfinite(upper) else 1e3
        far = torch.tensor([[low], [high]]).expand(2, case.dim)
        context = case.context_for(t, 2)
        end, log_det = getattr(t, name)(far, None if context is None else context.float())
        if not (end.isfinite().all() and log_det.isfinite().all()):
            yield f"{name} is not finite at {low:g} or {high:g} in float32"


def _gradients(case: _Case) -> Iterator[str]:
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


def _alive(case: _Case, t: Transform) -> dict[str, Tensor]:
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


def _rows(case: _Case) -> Iterator[str]:
    for name, go, _, start, context in case.sides():
        moved = torch.cat([start[1:2], start[1:]])
        before, after = go(start, context), go(moved, context)
        if not all(
            _close(a[1:], b[1:], 1e-9) for a, b in zip(before, after, strict=True)
        ):
            yield f"{name} lets one row of the batch change another"


def _context(case: _Case) -> Iterator[str]:
    for name, go, _, start, context in case.sides():
        if context is None:
            continue
        for i, moved in enumerate(torch.eye(context.shape[-1], dtype=context.dtype)):
            if torch.equal(go(start, context)[0], go(start, context + moved)[0]):
                yield f"{name} does not depend on number {i} of its context"


def _mixing(case: _Case) -> Iterator[str]:
    if case.mixes is None or case.dim == 1:
        return
    points = case.points(case.transform.domain, 8)  # a ReLU is off at some, not at all
    context = case.context_for(case.transform, 8)
    jacobians = _jacobians(case.transform.forward, points, context)
    mixes = bool(
        (jacobians - jacobians.diagonal(0, 1, 2).diag_embed()).abs().max() > 1e-9
    )
    if mixes != case.mixes:
        claim = (
            "said to mix coordinates, but its"
            if case.mixes
            else "said to mix none, but its"
        )
        yield f"it is {claim} Jacobian is {'not ' if mixes else ''}diagonal at D = {case.dim}"


def _state(case: _Case) -> Iterator[str]:
    for module in case.transform.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                yield f"the tensor {name} is a plain attribute: register_buffer keeps it"
    twin = case.fresh(seed=2)
    twin.load_state_dict(copy.deepcopy(case.transform.state_dict()))
    for name, go, _, start, context in case.sides():
        if not _close(
            getattr(twin, name)(start, context)[0], go(start, context)[0], 1e-9
        ):
            yield f"{name} differs in a twin that loaded its state: something is not a buffer"
    first, points = copy.deepcopy(case.transform), case.points(twin.codomain, 64)
    context = case.context_for(twin, 64)
    for t in (first, twin):
        t.initialize(points, context)
    if not _close(
        first.inverse(points, context)[0], twin.inverse(points, context)[0], 1e-9
    ):
        yield "a twin that loaded its state starts from data again: a flag is not a buffer"


def _passes(case: _Case) -> Iterator[str]:
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


@contextmanager
def _compiling() -> Iterator[None]:
    """Let torch compile inside, and leave no trace of it.

    torch.compile switches off the checks of all torch Distributions.
    """
    validates = Distribution._validate_args
    try:
        yield
    finally:
        Distribution.set_default_validate_args(validates)
        torch._dynamo.reset()


def _capture(case: _Case) -> Iterator[str]:
    for name, go, _, start, context in case.sides():
        if name in case.closed_form and case.dim == 2:
            with _compiling():
                capture = torch.compile(go, backend="eager", fullgraph=True)
                captured = capture(start, context)[0]
            if not _close(captured, go(start, context)[0], 1e-9):
                yield f"{name} gives other values once captured in one graph"


CHECKS: dict[str, Callable[[_Case], Iterator[str]]] = {
    "dim, domain and codomain are as declared": _declaration,
    "the same input, the same output": _repeatable,
    "round trip": _round_trip,
    "log-det equals the Jacobian's": _log_det,
    "densities keep their mass": _mass,
    "any batch shape": _shapes,
    "float32 and float64": _dtypes,
    "inputs are left as they were": _inputs_kept,
    "finite far out": _far_out,
    "gradients alive and right": _gradients,
    "rows do not see each other": _rows,
    "the context matters": _context,
    "mixes coordinates as declared": _mixing,
    "the state holds everything": _state,
    "network passes as promised": _passes,
    "one graph for the closed form": _capture,
}


def check_transform(
    make: Callable[[int], Transform],
    *,
    dims: tuple[int, ...] = (1, 2, 3, 5),
    mixes: bool | None = None,
    closed_form: tuple[str, ...] = BOTH,
    network_passes: tuple[int, int] | None = None,
) -> Findings:
    """Hold a transform against the contract, and say in words what it gets wrong.

    Each check runs on float64 copies whose parameters were moved away from their start.

    Args:
        make: makes a fresh transform for a given D: a class, or ``lambda dim: ...``.
        dims: the D to try.
        mixes: whether coordinates influence each other when D > 1; None does not check it.
        closed_form: the directions that must compile into one graph (a root search need not).
        network_passes: how often forward and inverse call each `nn.Linear`; None does not check it.

    Returns:
        One finding a check; the list's `ok` says whether all is well.

    >>> import minflow
    >>> check_transform(lambda dim: minflow.Elementwise(dim, minflow.Affine())).ok
    True
    """
    findings = Findings()
    cases = [_Case(make, dim, mixes, closed_form, network_passes) for dim in dims]
    for name, check in CHECKS.items():
        words = ""
        for case in cases:
            try:
                words = next(check(case), "")
            except Exception as error:  # whatever a reader's own code raises is a finding
                words = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            if words:
                words = f"at D = {case.dim}, {words}"
                break
        findings.append(Finding(name, not words, words))
    return findings
