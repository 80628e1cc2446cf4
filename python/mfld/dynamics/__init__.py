"""Dynamics: how one step moves the particles."""

from mfld.dynamics.base import Buffers, Drift, Dynamics, Move, Step
from mfld.dynamics.overdamped import Overdamped

__all__ = ["Buffers", "Drift", "Dynamics", "Move", "Overdamped", "Step"]
