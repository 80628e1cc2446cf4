"""Objectives: the functionals of a measure that are minimised."""

from mfld.objectives.base import Measure, Objective, Potential
from mfld.objectives.functional import Functional
from mfld.objectives.game import Game
from mfld.objectives.risk import EmpiricalRisk, Risk
from mfld.objectives.signed import Bilevel, Lifting, SignedRisk
from mfld.objectives.stream import StreamRisk

__all__ = [
    "Bilevel",
    "EmpiricalRisk",
    "Functional",
    "Game",
    "Lifting",
    "Measure",
    "Objective",
    "Potential",
    "Risk",
    "SignedRisk",
    "StreamRisk",
]
