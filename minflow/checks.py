"""The checks of `diagnose`: each says in words what is wrong, or nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, StudentT, Uniform

from minflow.elementwise import Elementwise
from minflow.flow import Flow
from minflow.linear import TriangularAffine
from minflow.planar import Planar, Radial
from minflow.scalar_map import LeakyReLU
from minflow.trace import Call, traced
from minflow.transform import interval

WHERE = "Chapter 3, “Checks that catch a wrong log-det”"
DRAWS = 4000


@dataclass
class Patient:
    """A flow, the data, and what several checks look at."""

    flow: Flow
    x: Tensor
    context: Tensor | None

    @cached_property
    def calls(self) -> list[Call]:
        """Each layer's call on the way from the data to the base."""
        with traced(self.flow) as calls, torch.no_grad():
            self.flow.log_prob(self.x, self.context)
        return calls

    @cached_property
    def z(self) -> Tensor:
        with torch.no_grad():
            return self.flow.normalize(self.x, self.context)

    @cached_property
    def draws(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Samples, the log-density that came with them, and their context."""
        with torch.no_grad():
            if self.context is None:
                return *self.flow.sample_and_log_prob(DRAWS), None
            repeated = self.context[torch.arange(DRAWS) % len(self.context)]
            return *self.flow.sample_and_log_prob((), repeated), repeated

    @property
    def tolerance(self) -> float:
        return 10 * torch.finfo(self.x.dtype).eps ** 0.5


def finite(patient: Patient) -> str:
    with torch.no_grad():
        log_q = patient.flow.log_prob(patient.x, patient.context)
    outside = int((log_q == -math.inf).sum())
    if outside:
        return (
            f"{outside} of {len(log_q)} rows have density 0: they lie outside the flow's "
            f"support, {interval(patient.flow.transform.codomain)}. Chapter 1, “When it "
            "fails”"
        )
    broken = ~log_q.isfinite()
    for call in patient.calls if broken.any() else []:
        finite = call.end.isfinite().all(-1) & call.log_det.isfinite()
        if call.start.isfinite().all() and not finite.all():
            return (
                f"{int(broken.sum())} of {len(log_q)} rows have no finite log-density: "
                f"{call} is the first that breaks. Chapter 3, “When it fails”"
            )
    if broken.any():
        return f"{int(broken.sum())} of {len(log_q)} rows have no finite log-density"
    return ""


def repeatable(patient: Patient) -> str:
    flow = patient.flow
    before = {name: buffer.clone() for name, buffer in flow.named_buffers()}
    with torch.no_grad():
        first = flow.log_prob(patient.x, patient.context)
        second = flow.log_prob(patient.x, patient.context)
        try:
            flow.train()
            training = flow.log_prob(patient.x, patient.context)
        finally:
            flow.eval()
            buffers = dict(flow.named_buffers())
            changed = [k for k, b in buffers.items() if not torch.equal(b, before[k])]
            for name in changed:
                buffers[name].copy_(before[name])
    if not torch.equal(first, second):
        return (
            "the same data get another log-density the second time: something is random"
        )
    if changed:
        return f"scoring data changes the flow itself: {', '.join(changed)}"
    if not torch.allclose(first, training, atol=1e-4):
        return "train() and eval() give different densities: one of the two is no density"
    return ""


def units(patient: Patient) -> str:
    for call in patient.calls if len(patient.x) >= 20 else []:
        if any(True for _ in call.transform.parameters()):
            mean, std = call.start.mean(0), call.start.std(0)
            far = (mean.abs() > 10) | (std > 10) | (std < 0.1)
            for column in far.nonzero().flatten().tolist():
                return (
                    f"column {column} reaches the first layer that learns with mean "
                    f"{mean[column]:.3g} and standard deviation {std[column]:.3g}; "
                    "flows start near 0 and 1. Put Standardize.of(train) last. "
                    "Chapter 3, “Nats, bits and standard units”"
                )
            return ""
    return ""


def spread(patient: Patient) -> str:
    x = patient.x
    for column in range(x.shape[1]):
        values, counts = x[:, column].unique(return_counts=True)
        if len(values) == 1:
            return (
                f"column {column} never changes: no density describes it. "
                "Chapter 3, “When it fails”"
            )
        repeated = counts[counts > 1].sum().item() / len(x)
        if repeated > 0.2:
            return (
                f"{100 * repeated:.0f} % of the values in column {column} occur twice or "
                "more: if they are counts or rounded, the density can grow without "
                "limit there. Add noise of one step's width. Chapter 3, “When it fails”"
            )
    return ""


def round_trip(patient: Patient) -> str:
    with torch.no_grad():
        again, _ = patient.flow.transform(patient.z, patient.context)
        scale = patient.x.std(0).clamp(min=1e-3) + patient.x.abs()
        error = ((again - patient.x).abs() / scale).max().item()
        if error <= patient.tolerance:
            return ""
        worst = ""
        for call in patient.calls:
            back, _ = call.transform(call.end, call.context)
            miss = (back - call.start).abs() / (call.start.std(0) + call.start.abs())
            if miss.max() > patient.tolerance:
                worst = f"; {call} and back is off by itself"
    return (
        f"data → base → data misses its start by up to {error:.2g} of its size{worst}. "
        f"{WHERE}"
    )


def log_det(patient: Patient) -> str:
    whole = patient.flow.transform
    with traced(patient.flow) as calls, torch.no_grad():
        few = max(3, min(100, 6400 // patient.flow.dim))
        rows = None if patient.context is None else patient.context[:few]
        z = patient.z[:few]
        x, forward = whole(z, rows)
        z_again, inverse = whole.inverse(x, rows)
    calls.append(Call("transform", whole, "forward", z, rows, x, forward))
    calls.append(Call("transform", whole, "inverse", x, rows, z_again, inverse))
    for call in calls:
        said = _wrong_log_det(call)
        if said:
            return f"{said} {WHERE}"
    return ""


def _wrong_log_det(call: Call) -> str:
    go: Callable[..., tuple[Tensor, Tensor]] = getattr(call.transform, call.direction)
    if call.log_det.shape != call.start.shape[:-1]:
        return (
            f"{call} returns a log_det of shape {tuple(call.log_det.shape)} for a batch "
            f"of shape {tuple(call.start.shape[:-1])}."
        )
    # Rows do not see each other, so the derivatives of a sum are those of each row.
    jacobian = torch.autograd.functional.jacobian(
        lambda start: go(start, call.context)[0].sum(0), call.start
    )
    true = torch.linalg.slogdet(jacobian.movedim(1, 0)).logabsdet
    off = (call.log_det - true).abs() / (1e-2 + 1e-4 * true.abs())
    worst = int(off.nan_to_num(math.inf).argmax())
    if off[worst] <= 1:
        return ""
    said, right = call.log_det[worst].item(), true[worst].item()
    flipped = " (the sign is flipped)" if abs(said + right) < 1e-2 else ""
    return (
        f"{call} says log|det| = {said:.4g} where its Jacobian has {right:.4g}{flipped}."
    )


def one_density(patient: Patient) -> str:
    x, log_q, context = patient.draws
    with torch.no_grad():
        again = patient.flow.log_prob(x, context)
    off = (again - log_q).abs().nan_to_num(math.inf)
    share = (off > 0.05).double().mean().item()
    if share > 0.01:
        return (
            f"{100 * share:.0f} % of the samples carry a log-density that log_prob "
            f"contradicts, by up to {off.max():.2g} nats: forward and inverse are two "
            f"maps. {WHERE}"
        )
    return ""


def mass(patient: Patient) -> str:
    base = patient.flow.base
    limits = interval(base.support)
    if limits is None:
        return ""
    if limits == (-math.inf, math.inf):
        centre = base.rsample(Size([DRAWS])).detach()
        mean, std = centre.mean(0), centre.std(0)
        law: Distribution = StudentT(torch.full_like(mean, 5.0), mean, std)
    elif math.isfinite(limits[0]) and math.isfinite(limits[1]):
        low, high = (torch.full((base.dim,), end).to(patient.x) for end in limits)
        law = Uniform(low, high)
    else:
        return ""
    with torch.no_grad():
        z = law.sample(Size([5 * DRAWS]))
        ratio = (base.log_prob(z) - law.log_prob(z).sum(-1)).double().exp()
    if ratio.sum().square() < 0.02 * len(z) * ratio.square().sum():
        return ""  # a few of the draws decide: the estimate is worth nothing
    mass, error = ratio.mean().item(), ratio.std().item() / len(z) ** 0.5
    if not abs(mass - 1) < 5 * error + 0.01:
        return (
            f"the base has mass {mass:.3g} instead of 1: every log-density is off by "
            f"{math.log(mass) if mass > 0 else -math.inf:.3g} nats. {WHERE}"
        )
    return ""


def stein(patient: Patient) -> str:
    flow = patient.flow
    line = (-math.inf, math.inf)
    ends = [flow.transform.codomain]
    if interval(flow.transform.domain) == line:
        ends.append(flow.base.support)  # a wall of the base is one of the data
    if any(interval(end) != line for end in ends):
        return ""  # a density that ends at a wall may have mass there
    if any(map(_has_a_kink, flow.modules())):
        return ""  # its density jumps there
    x, _, context = patient.draws
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(flow.log_prob(x, context).sum(), [x])
    centre = 0 if context is not None else x.detach().mean(0)
    values = ((x.detach() - centre) * slope).sum(-1).double()
    mean, error = values.mean().item(), values.std().item() / len(values) ** 0.5
    if not abs(mean + flow.dim) < 5 * error + 0.02 * flow.dim:
        return (
            f"under the flow's own samples the mean of x·∇log q is {mean:.3g} ± "
            f"{error:.2g}, where any smooth density has −D = {-flow.dim}: the samples "
            f"do not follow log_prob. {WHERE}"
        )
    return ""


def _has_a_kink(part: object) -> bool:
    if isinstance(part, Elementwise):
        return isinstance(part.scalar_map, LeakyReLU)
    return isinstance(part, Planar) and part.activation == "leaky_relu"


def base_points(patient: Patient) -> str:
    reference = patient.flow.base.rsample(Size([5 * DRAWS])).detach()
    z, mean = patient.z, reference.mean(0)
    for d in range(z.shape[1]):
        said = _unlike(z[:, d], reference[:, d])
        if said:
            return f"coordinate {d} of z does not follow the base: {said}"
    said = _unlike((z - mean).norm(dim=-1), (reference - mean).norm(dim=-1))
    if said:
        return (
            "each coordinate of z follows the base, but their distance from its centre "
            f"does not, so they still depend on each other: {said}"
        )
    return ""


def _unlike(values: Tensor, expected: Tensor) -> str:
    """How numbers differ from those expected; nothing if they hardly do."""
    # The probability integral transform: ranks among the expected should be uniform.
    ranks = torch.searchsorted(expected.sort().values, values.contiguous())
    u = (ranks.double() / len(expected)).sort().values
    above = torch.arange(1, len(u) + 1, device=u.device) / len(u) - u
    distance = torch.maximum(above, 1 / len(u) - above).max().item()
    if distance <= 0.05 + 1.63 / len(u) ** 0.5:
        return ""
    middle = ((u > 0.25) & (u < 0.75)).double().mean().item()
    return (
        f"up to {100 * distance:.0f} % of the points lie on the wrong side of some "
        f"value, and {100 * middle:.0f} % in the middle half (above 50: the model is too "
        "wide; less: too narrow). Chapter 3, “The same distance in data and in base "
        "space”"
    )


def parameters(patient: Patient) -> str:
    flow = patient.flow
    moved = copy.deepcopy(flow)  # a flow at its start may have slopes of 0 that pass
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    named = [(k, p) for k, p in moved.named_parameters() if p.requires_grad and p.numel()]
    loss = -moved.log_prob(patient.x, patient.context).mean()
    slopes: Sequence[Tensor | None] = [None] * len(named)
    if named and loss.requires_grad:
        slopes = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    for (name, _), slope in zip(named, slopes, strict=True):
        if slope is None or not slope.any():
            return (
                f"{name} does not change the density of these data: it cannot learn. "
                "Chapter 3, “Reading a training curve”"
            )
    for name, layer in flow.named_modules():
        for raw, bound in _soft_bounded(layer):
            stuck = int((raw.abs() > 2 * bound).sum())
            if stuck:
                return (
                    f"{stuck} of the {raw.numel()} log-scales of {name} "
                    f"({type(layer).__name__}) are at their bound of ±{bound:g}: the "
                    "data ask for a scale that the layer cannot give. Chapter 3, “Nats, "
                    "bits and standard units”"
                )
    return ""


def _soft_bounded(layer: object) -> Iterator[tuple[Tensor, float]]:
    """Raw numbers that pass through a soft bound, and the bound."""
    if isinstance(layer, TriangularAffine):
        yield layer.raw_log_diagonal, layer.BOUND
    elif isinstance(layer, Radial) and layer.net is None:
        yield layer.params[layer.dim], layer.BOUND
    elif isinstance(layer, Elementwise):
        raw = layer.params[layer.scalar_map.soft_bounded]
        if raw.numel() and layer.net is None:
            yield raw, layer.scalar_map.bound  # type: ignore[attr-defined]
