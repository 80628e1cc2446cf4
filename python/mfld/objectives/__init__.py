"""Objectives: the functionals of a measure that are minimised."""

from mfld.objectives.base import Bounds, Measure, Objective, Potential
from mfld.objectives.control import ControlProblem, Trajectory
from mfld.objectives.discrepancy import MMD
from mfld.objectives.functional import Functional
from mfld.objectives.game import Game
from mfld.objectives.log_score import LogScore
from mfld.objectives.pairwise import Bilinear, PairwiseGame
from mfld.objectives.risk import EmpiricalRisk, Risk
from mfld.objectives.signed import Bilevel, Lifting, SignedRisk
from mfld.objectives.stein import KSD
from mfld.objectives.stream import StreamRisk

__all__ = [
    "KSD",
    "MMD",
    "Bilevel",
    "Bilinear",
    "Bounds",
    "ControlProblem",
    "EmpiricalRisk",
    "Functional",
    "Game",
    "Lifting",
    "LogScore",
    "Measure",
    "Objective",
    "PairwiseGame",
    "Potential",
    "Risk",
    "SignedRisk",
    "StreamRisk",
    "Trajectory",
]
