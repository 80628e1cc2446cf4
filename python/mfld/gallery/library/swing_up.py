"""Swing-up of a pendulum by relaxed control, from rest, with and without noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import plots
from mfld.algorithms import MFLD
from mfld.gallery.experiment import Check, count, non_negative, one_of, positive
from mfld.objectives import ControlProblem
from mfld.schedules import Geometric
from mfld.sweeps import Sweep

PANELS = 2
SETTINGS: dict[str, dict[str, Check]] = {
    "problem": {"n_nodes": count, "torque": positive},
    "algorithm": {
        "method": one_of("descent", "annealed noise"),
        "n_particles": count,
        "step_size": positive,
        "n_steps": count,
        "temperature": non_negative,
        "stage_length": count,
    },
}
_HORIZON, _PRICE = 7.0, 0.02


def run(
    *,
    n_nodes: int,
    torque: float,
    method: str,
    n_particles: int,
    step_size: float,
    n_steps: int,
    temperature: float,
    stage_length: int,
    seed: int,
) -> dict[str, Any]:
    """Cost over the run, and the angle and the mean control at its end; angle 0 is up."""

    def jacobians(_: Any, x: Any, a: Any) -> tuple[Any, Any]:
        of_x = np.zeros((len(x), 2, 2))
        of_x[:, 0, 1], of_x[:, 1, 0] = 1, np.cos(x[:, 0])
        return of_x, np.stack([0 * a, torque / np.cosh(a) ** 2], axis=1)

    problem = ControlProblem(
        lambda t, x, a: np.stack([x[:, 1], np.sin(x[:, 0]) + torque * np.tanh(a[:, 0])], axis=1),
        lambda t, x, a: _PRICE * a[:, 0] ** 2 / 2,
        lambda x: 5 * (1 - np.cos(x[:, 0])) + x[:, 1] ** 2,
        _HORIZON,
        n_nodes,
        [math.pi, 0.0],
        n_controls=1,
        scheme="rk4",
        dynamics_jacobians=jacobians,
        running_gradients=lambda t, x, a: (0 * x, _PRICE * a),
        terminal_gradient=lambda x: np.stack([5 * np.sin(x[:, 0]), 2 * x[:, 1]], axis=1),
    )
    noise = temperature if method == "annealed noise" else 0.0
    solver = MFLD(n_particles, step_size=step_size, temperature=Geometric(noise, 0.5, stage_length))
    start = np.zeros((n_nodes, n_particles, 1))
    record = {"cost": lambda state: problem.value(state.measure)}
    result = solver.run(problem, n_steps, seed, particles=start, record=record, record_every=max(1, n_steps // 40))
    path = problem.trajectory(result.measure)
    return {
        "step": result.history["step"],
        "cost": result.history["cost"],
        "time": path.times,
        "angle": path.states[:, 0, 0],
    }


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    left, right = panels
    for k, method in enumerate(found.axes["method"]):
        step, cost, time, angle = (found.column(name)[k, 0] for name in ("step", "cost", "time", "angle"))
        left.plot(step, cost, color=plots.colour(k), label=method)
        right.plot(time, angle, color=plots.colour(k), label=method)
    left.set(xlabel="step", ylabel="cost", yscale="log")
    for turn in (0, 2 * math.pi):
        right.axhline(turn, color=plots.ink(), linestyle=":", linewidth=1)
    right.set(xlabel="time", ylabel="angle, dotted where it is up")
    for axes in panels:
        plots.open_axes(axes).legend(frameon=False)


def claim(found: Sweep) -> float:
    ends = dict(zip(found.axes["method"], found.column("cost")[..., -1].mean(axis=1), strict=True))
    return float(ends["annealed noise"] / ends["descent"])
