"""minflow: the small library of normalizing flows that the book builds."""

from importlib import import_module
from types import ModuleType

from minflow import data
from minflow.autoregressive import Autoregressive
from minflow.base import StandardNormal
from minflow.coupling import Additive, Coupling
from minflow.diagnose import diagnose
from minflow.elementwise import Elementwise
from minflow.flow import Flow
from minflow.linear import LU, Householder, Permute, TriangularAffine
from minflow.measure import Gap, paired_gap
from minflow.mixture_cdf import MixtureCDF
from minflow.monotone import Monotone
from minflow.planar import Planar, Radial, Sylvester
from minflow.recipes import (
    glow,
    iaf,
    maf,
    nice,
    nsf,
    nsf_ar,
    planar_flow,
    radial_flow,
    realnvp,
    sylvester_flow,
)
from minflow.run import History
from minflow.saving import load, save
from minflow.scalar_map import Affine, LeakyReLU, Logit, Reversed, ScalarMap, Sigmoid
from minflow.spline import CircularSpline, Spline
from minflow.standardize import ActNorm, Standardize
from minflow.support import Support
from minflow.train import fit, fit_energy
from minflow.transform import Compose, Inverse, Transform

__version__ = "0.1.0"

__all__ = [
    "LU",
    "ActNorm",
    "Additive",
    "Affine",
    "Autoregressive",
    "CircularSpline",
    "Compose",
    "Coupling",
    "Elementwise",
    "Flow",
    "Gap",
    "History",
    "Householder",
    "Inverse",
    "LeakyReLU",
    "Logit",
    "MixtureCDF",
    "Monotone",
    "Permute",
    "Planar",
    "Radial",
    "Reversed",
    "ScalarMap",
    "Sigmoid",
    "Spline",
    "StandardNormal",
    "Standardize",
    "Support",
    "Sylvester",
    "Transform",
    "TriangularAffine",
    "data",
    "diagnose",
    "fit",
    "fit_energy",
    "glow",
    "iaf",
    "load",
    "maf",
    "nice",
    "nsf",
    "nsf_ar",
    "paired_gap",
    "planar_flow",
    "radial_flow",
    "realnvp",
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
