"""Algorithms: the outer loops."""

from mfld.algorithms.base import Algorithm, Callback, Result
from mfld.algorithms.cooling import Cooling
from mfld.algorithms.games import AveragedGradient, BestResponse, DescentAscent, FictitiousPlay
from mfld.algorithms.mfld import MFLD
from mfld.algorithms.pda import PDA
from mfld.algorithms.phases import TopParticles, TwoPhase
from mfld.algorithms.plateau import StopOnPlateau
from mfld.algorithms.psdca import PSDCA
from mfld.algorithms.svis import SVIS

__all__ = [
    "MFLD",
    "PDA",
    "PSDCA",
    "SVIS",
    "Algorithm",
    "AveragedGradient",
    "BestResponse",
    "Callback",
    "Cooling",
    "DescentAscent",
    "FictitiousPlay",
    "Result",
    "StopOnPlateau",
    "TopParticles",
    "TwoPhase",
]
