"""minflow: the small library of normalizing flows that the book builds."""

from importlib import import_module
from types import ModuleType

from minflow import data
from minflow.base import StandardNormal
from minflow.diagnose import diagnose
from minflow.elementwise import (
    Affine,
    Elementwise,
    LeakyReLU,
    Logit,
    MixtureCDF,
    ScalarMap,
    Sigmoid,
)
from minflow.flow import Flow
from minflow.linear import Householder, Standardize, TriangularAffine
from minflow.measure import Gap, paired_gap
from minflow.planar import Planar, Radial, Sylvester
from minflow.recipes import planar_flow, radial_flow, sylvester_flow
from minflow.run import History
from minflow.saving import load, save
from minflow.train import fit, fit_energy
from minflow.transform import Compose, Inverse, Transform

__version__ = "0.1.0"

__all__ = [
    "Affine",
    "Compose",
    "Elementwise",
    "Flow",
    "Gap",
    "History",
    "Householder",
    "Inverse",
    "LeakyReLU",
    "Logit",
    "MixtureCDF",
    "Planar",
    "Radial",
    "ScalarMap",
    "Sigmoid",
    "StandardNormal",
    "Standardize",
    "Sylvester",
    "Transform",
    "TriangularAffine",
    "data",
    "diagnose",
    "fit",
    "fit_energy",
    "load",
    "paired_gap",
    "planar_flow",
    "radial_flow",
    "save",
    "sylvester_flow",
]

_LAZY = {
    "exercises",
    "live",
    "plot",
    "show",
    "testing",
}  # some import matplotlib: not at start


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return import_module(f"minflow.{name}")
    raise AttributeError(f"module 'minflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
