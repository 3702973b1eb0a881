"""What exercises that ask for a trained flow have in common: how it is measured and refused."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minflow.flow import Flow
from minflow.run import History
from minflow.transform import Transform


class HeldOut(NamedTuple):
    """The paired gap to the truth, its error, and by how much the log-density is off; then the points,
    in the flow's dtype, and dz/dx at the first 20 of them."""

    nats: float
    error: float
    off: float
    points: Tensor
    jacobians: Tensor


def refused(flow: Any, dim: int = 2) -> str:
    """Why an answer is no flow on the plane, or of another dim; "" if it is one."""
    if isinstance(flow, History):
        return "`fit` trains the flow in place and returns its history: hand in the flow itself."
    if isinstance(flow, Transform):
        return "a transform is no flow yet: train and hand in `mf.Flow(transform)`."
    if not isinstance(flow, Flow):
        return f"a trained mf.Flow is expected, not {type(flow).__name__}."
    if flow.dim != dim:
        return f"the target has dim {dim}, your flow dim {flow.dim}."
    if flow.context_dim:
        return "the target has no context, and your flow wants one."
    return ""


def held_out(flow: Flow, target: Any) -> HeldOut:
    """Measure a flow on 20,000 points that it has not seen."""
    like = next(flow.parameters(), torch.empty(0))  # the flow's dtype and device
    x = target.sample((20_000,), generator=torch.Generator().manual_seed(11))
    few = x[:20].to(like)

    def down(point: Tensor) -> Tensor:
        return flow.transform.inverse(point)[0]

    with torch.no_grad():
        gaps = target.log_prob(x).double() - flow.log_prob(x.to(like)).double().cpu()
        said = flow.log_prob(few) - flow.base.log_prob(down(few))
    J = torch.stack([torch.autograd.functional.jacobian(down, row) for row in few])
    off = (said - torch.linalg.slogdet(J).logabsdet).abs().max().item()
    error = gaps.std().item() / len(x) ** 0.5
    return HeldOut(gaps.mean().item(), error, off, x.to(like), J)


def too_far(gap: Any, enough: float, advice: str) -> str | None:
    """Why what `held_out` found is not enough; None if it is."""
    if not math.isfinite(gap.nats):
        return "its density is NaN, zero or infinite at some held-out point."
    if not gap.off <= 0.05:
        return f"its log-density is off by {gap.off:.2g} nats from what autograd finds."
    if gap.nats > enough:
        return (
            f"on held-out points its KL divergence is {gap.nats:.3f} ± {gap.error:.3f} nats; under "
            f"{enough} is asked for. {advice}"
        )
    return None


def by_a_loop(flow: Flow, data: Tensor, steps: int) -> Flow:
    """Train as a reader might who writes the loop: an honest answer of another kind."""
    optimiser = torch.optim.Adam(flow.parameters(), lr=0.01)
    fading = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        loss = -flow.log_prob(data[torch.randint(len(data), (256,))]).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        optimiser.step()
        fading.step()
    return flow


class Unsigned(Transform):
    """x = 2z, with the log-dets exchanged."""

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x / 2, torch.full_like(x[..., 0], 2 * math.log(2))
