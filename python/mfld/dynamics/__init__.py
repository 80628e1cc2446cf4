"""Dynamics: how one step moves the particles."""

from mfld.dynamics.base import Buffers, Drift, Dynamics, Move, Step
from mfld.dynamics.mala import MALA
from mfld.dynamics.overdamped import Overdamped
from mfld.dynamics.underdamped import Underdamped

__all__ = ["MALA", "Buffers", "Drift", "Dynamics", "Move", "Overdamped", "Step", "Underdamped"]
