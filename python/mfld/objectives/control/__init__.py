"""Relaxed optimal control: a measure of controls at each time, its cost along trajectories, and the exact adjoint."""

from mfld.objectives.control.problem import ControlProblem, Trajectory

__all__ = ["ControlProblem", "Trajectory"]
