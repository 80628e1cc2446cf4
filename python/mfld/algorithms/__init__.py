"""Algorithms: the outer loops."""

from mfld.algorithms.base import Algorithm, Callback, Result
from mfld.algorithms.games import AveragedGradient, BestResponse, DescentAscent
from mfld.algorithms.mfld import MFLD
from mfld.algorithms.pda import PDA
from mfld.algorithms.phases import TopParticles, TwoPhase
from mfld.algorithms.plateau import StopOnPlateau
from mfld.algorithms.psdca import PSDCA

__all__ = [
    "MFLD",
    "PDA",
    "PSDCA",
    "Algorithm",
    "AveragedGradient",
    "BestResponse",
    "Callback",
    "DescentAscent",
    "Result",
    "StopOnPlateau",
    "TopParticles",
    "TwoPhase",
]
