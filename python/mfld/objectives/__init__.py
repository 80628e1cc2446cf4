"""Objectives: the functionals of a measure that are minimised."""

from typing import TYPE_CHECKING

from mfld import lazy

if TYPE_CHECKING:
    from mfld.objectives.adversarial import GradientPenalty, MeanFieldGAN
    from mfld.objectives.base import Bounds, Measure, Objective, Potential
    from mfld.objectives.control import ControlProblem, Trajectory
    from mfld.objectives.data_games import MaxMargin, RobustRisk
    from mfld.objectives.discrepancy import MMD
    from mfld.objectives.environment import Conditional, Environment, EnvironmentGame
    from mfld.objectives.functional import Functional
    from mfld.objectives.game import Game, SinglePlayer
    from mfld.objectives.log_score import LogScore
    from mfld.objectives.matching import FeatureMatching
    from mfld.objectives.pairwise import Bilinear, PairwiseGame
    from mfld.objectives.residual import ResidualRisk
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
    "Conditional",
    "ControlProblem",
    "EmpiricalRisk",
    "Environment",
    "EnvironmentGame",
    "FeatureMatching",
    "Functional",
    "Game",
    "GradientPenalty",
    "Lifting",
    "LogScore",
    "MaxMargin",
    "MeanFieldGAN",
    "Measure",
    "Objective",
    "PairwiseGame",
    "Potential",
    "ResidualRisk",
    "Risk",
    "RobustRisk",
    "SignedRisk",
    "SinglePlayer",
    "StreamRisk",
    "Trajectory",
]

# As above: where names are that are loaded when they are first asked for.
_HOMES = {
    "adversarial": "GradientPenalty MeanFieldGAN",
    "base": "Bounds Measure Objective Potential",
    "control": "ControlProblem Trajectory",
    "data_games": "MaxMargin RobustRisk",
    "discrepancy": "MMD",
    "environment": "Conditional Environment EnvironmentGame",
    "functional": "Functional",
    "game": "Game SinglePlayer",
    "log_score": "LogScore",
    "matching": "FeatureMatching",
    "pairwise": "Bilinear PairwiseGame",
    "residual": "ResidualRisk",
    "risk": "EmpiricalRisk Risk",
    "signed": "Bilevel Lifting SignedRisk",
    "stein": "KSD",
    "stream": "StreamRisk",
}

if not TYPE_CHECKING:  # a checker knows the names from above
    __getattr__, __dir__ = lazy.names(__name__, _HOMES, __all__)
