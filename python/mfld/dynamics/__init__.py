"""Dynamics: how one step moves the particles."""

from mfld.dynamics.affine import Affine
from mfld.dynamics.base import Dynamics, Move, Step
from mfld.dynamics.conic import Conic
from mfld.dynamics.coupled import Coupled
from mfld.dynamics.general import General
from mfld.dynamics.irreversible import Irreversible
from mfld.dynamics.mala import MALA
from mfld.dynamics.overdamped import Overdamped
from mfld.dynamics.preconditioned import Preconditioned
from mfld.dynamics.stein import SVGD
from mfld.dynamics.tempering import ContinuousTempering
from mfld.dynamics.underdamped import Underdamped

__all__ = [
    "MALA",
    "SVGD",
    "Affine",
    "Conic",
    "ContinuousTempering",
    "Coupled",
    "Dynamics",
    "General",
    "Irreversible",
    "Move",
    "Overdamped",
    "Preconditioned",
    "Step",
    "Underdamped",
]
