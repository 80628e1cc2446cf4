"""Objectives: what is minimised."""

from mfld.objectives.base import Objective, Outcome, Plan
from mfld.objectives.functional import Functional
from mfld.objectives.potential import Potential
from mfld.objectives.risk import EmpiricalRisk
from mfld.objectives.stream import StreamRisk

__all__ = ["EmpiricalRisk", "Functional", "Objective", "Outcome", "Plan", "Potential", "StreamRisk"]
