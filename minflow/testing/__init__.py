"""The contract that every transform keeps, as a tool that readers can hold their own against."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from minflow.show import Finding, Findings
from minflow.testing import _batches, _case, _density, _learning
from minflow.transform import Transform

__all__ = ["BOTH", "CHECKS", "check_transform"]

BOTH = ("forward", "inverse")
CHECKS: dict[str, Callable[[_case.Case], Iterator[str]]] = {
    "dim, domain and codomain are as declared": _density.declaration,
    "the same input, the same output": _density.repeatable,
    "round trip": _density.round_trip,
    "log-det equals the Jacobian's": _density.log_det,
    "densities keep their mass": _density.mass,
    "any batch shape": _batches.shapes,
    "float32 and float64": _batches.dtypes,
    "inputs are left as they were": _batches.inputs_kept,
    "finite far out": _density.far_out,
    "gradients alive and right": _learning.gradients,
    "rows do not see each other": _batches.rows,
    "the context matters": _batches.context,
    "mixes coordinates as declared": _density.mixing,
    "the state holds everything": _learning.state,
    "network passes as promised": _learning.passes,
    "one graph for the closed form": _learning.capture,
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
    cases = [_case.Case(make, dim, mixes, closed_form, network_passes) for dim in dims]
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
