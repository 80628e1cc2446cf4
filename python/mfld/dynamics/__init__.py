"""Dynamics: how one step moves the particles."""

from mfld.dynamics.base import Buffers, Drift, Dynamics, Move, Step
from mfld.dynamics.general import General
from mfld.dynamics.irreversible import Irreversible
from mfld.dynamics.overdamped import Overdamped
from mfld.dynamics.preconditioned import Preconditioned
from mfld.dynamics.tempering import ContinuousTempering

__all__ = [
    "Buffers",
    "ContinuousTempering",
    "Drift",
    "Dynamics",
    "General",
    "Irreversible",
    "Move",
    "Overdamped",
    "Preconditioned",
    "Step",
]
