"""The unit: networks of the same shapes, of torch's own layers, without a flow around them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contenders.common import Case, Contender, counts, mlp, normal, trainer, variational

MISSING: dict[str, str] = {}


def coupling(case: Case, learning_rate: float) -> Contender:
    """A pass of all networks, each from one half to the numbers that steer the other."""
    half = case.dim // 2
    nets = [mlp(half, case.width, case.outputs * (case.dim - half)) for _ in range(case.layers)]
    return passes(nets, half, 1, case.batch)


def autoregressive(case: Case, learning_rate: float) -> Contender:
    """A pass of all networks without masks; D of them for a sample."""
    sizes = case.dim, case.width, case.outputs * case.dim
    nets = [mlp(*sizes) for _ in range(case.layers)]
    return passes(nets, case.dim, case.dim, case.batch)


def passes(nets: list[nn.Sequential], inputs: int, many: int, batch: int) -> Contender:
    """One pass to score, forward and back to train, and some passes to sample."""
    module = nn.ModuleList(nets)

    def total(x: Tensor) -> Tensor:
        return torch.stack([net(x[:, :inputs]).sum() for net in nets]).sum()

    def score(x: Tensor) -> Tensor:
        for net in nets:
            made = net(x[:, :inputs])
        return made

    @torch.no_grad()
    def draw() -> Tensor:
        z = torch.randn(batch, inputs)
        for _ in range(many):
            made = score(z)
        return made

    step = trainer(module, total, 1e-9)  # or the sum, which is no loss, would run away
    return Contender(torch.no_grad()(score), step, draw, *counts([module]))


class Recursion(nn.Module):
    """Planar layers, z + u tanh(wᵀz + b), and no more: nothing keeps them invertible."""

    def __init__(self, layers: int, dim: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(layers, dim) / dim**0.5)
        self.u = nn.Parameter(torch.zeros(layers, dim))
        self.b = nn.Parameter(torch.randn(layers))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        found = []
        for w, u, b in zip(self.w.unbind(), self.u.unbind(), self.b.unbind(), strict=True):
            h = torch.addmv(b, z, w).tanh()
            z = torch.addr(z, h, u)
            found.append(h)
        slopes = 1 - torch.stack(found, -1).square()
        return z, torch.log1p(slopes * (self.w * self.u).sum(-1)).sum(-1)


def planar(case: Case, learning_rate: float) -> Contender:
    module = Recursion(case.layers, case.dim)

    def push() -> tuple[Tensor, Tensor]:
        z = torch.randn(case.batch, case.dim)
        x, log_det = module(z)
        return x, normal(z) - log_det

    return variational(module, push)


BUILD = {
    "affine_coupling": coupling,
    "affine_autoregressive": autoregressive,
    "spline_coupling": coupling,
    "spline_autoregressive": autoregressive,
    "planar": planar,
}
