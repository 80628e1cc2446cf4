"""Algorithms: the outer loops."""

from mfld.algorithms.base import Algorithm
from mfld.algorithms.mfld import MFLD
from mfld.algorithms.pda import PDA
from mfld.algorithms.phases import TopParticles, TwoPhase
from mfld.algorithms.psdca import PSDCA
from mfld.algorithms.result import Result

__all__ = ["MFLD", "PDA", "PSDCA", "Algorithm", "Result", "TopParticles", "TwoPhase"]
