"""What is wrong with a trained flow, in plain words, and where the book explains it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minflow import checks
from minflow.batches import checked_rows
from minflow.checkpoint import own_generators
from minflow.checks import Patient
from minflow.flow import Flow
from minflow.run import evaluating
from minflow.show import Finding, Findings

MOST_ROWS = 2000
CHECKS: dict[str, Callable[[Patient], str]] = {
    "finite": checks.finite,
    "repeatable": checks.repeatable,
    "units": checks.units,
    "spread of the data": checks.spread,
    "round trip": checks.round_trip,
    "log-det": checks.log_det,
    "one density": checks.one_density,
    "mass": checks.mass,
    "Stein's identity": checks.stein,
    "base points": checks.base_points,
    "parameters": checks.parameters,
}


def diagnose(flow: Flow, data: Tensor, context: Tensor | None = None) -> Findings:
    """Look a trained flow over, and say in words what is wrong and where to read on.

    Nothing is changed: not the flow, not its gradients, not the global generators. A
    flow in which nothing is found may still be far from the truth: `paired_gap` and
    held-out data tell that.

    Args:
        flow: the flow.
        data: points that it is meant to describe, best held out, shape (N, D), N >= 2.
        context: for a conditional flow, shape (N, C).

    Returns:
        A finding for each of finite, repeatable, units, spread of the data, round trip,
        log-det, one density, mass, Stein's identity, base points and parameters. Its `ok`
        says whether all is well; `wrong` holds what is not. Base points may differ from
        the base by 5 in a hundred before they are called wrong.

    Raises:
        TypeError, ValueError: if data or context do not fit the flow.

    Cost: a few hundred inverses of a batch of at most 2,000 rows; no training step.

    >>> import minflow
    >>> normal = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    >>> flow = minflow.Flow(minflow.Elementwise(2, minflow.Affine()))
    >>> diagnose(flow, normal).ok, diagnose(flow, 3 * normal).wrong[0].check
    (True, 'base points')
    """
    if not isinstance(flow, Flow):
        raise TypeError(f"diagnose takes a Flow; got {type(flow).__name__}")
    data, context = checked_rows(flow, "data", data, context)
    if data.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"diagnose needs float32 or float64; got {data.dtype}")
    if len(data) < 2:
        raise ValueError(f"data must have at least two rows; got {len(data)}")
    every = -(-len(data) // MOST_ROWS)
    device = next(flow.base.buffers()).device
    x = data[::every].to(device)
    rows = None if context is None else context[::every].to(device)
    grads = [(p, p.grad) for p in flow.parameters()]
    findings = Findings()
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        own_generators(0, device),
        evaluating(flow),
    ):
        patient = Patient(flow, x, rows)
        for name, check in CHECKS.items():
            try:
                words = check(patient)
            except Exception as error:  # whatever a flow of the reader's own may raise
                words = f"the flow raised {type(error).__name__}: {error}"
            findings.append(Finding(name, not words, words))
            if words and name == "finite":
                break  # what follows would say the same in other words
    for parameter, gradient in grads:
        parameter.grad = gradient
    return findings
