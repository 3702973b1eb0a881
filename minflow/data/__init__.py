"""Targets whose truth is known: exact densities to sample from, and their entropies.

Each is a torch Distribution with event shape (D,). The entropy is the floor of the mean
negative log-likelihood, in nats: no model of these data can score below it, whatever
its size.
"""

from minflow.data.arrays import split
from minflow.data.curves import Rings, SwissRoll
from minflow.data.energies import U1, U2, U3, U4
from minflow.data.mixtures import EightGaussians, FourGaussians, GaussianMixture
from minflow.data.moons import TwoMoons
from minflow.data.shapes import Banana, Checkerboard, Funnel

__all__ = [
    "U1",
    "U2",
    "U3",
    "U4",
    "Banana",
    "Checkerboard",
    "EightGaussians",
    "FourGaussians",
    "Funnel",
    "GaussianMixture",
    "Rings",
    "SwissRoll",
    "TwoMoons",
    "split",
]
