"""A problem whose optimum is a measure of controls: both full speeds at once, in shares that follow a path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import noise, plots
from mfld.algorithms import MFLD
from mfld.dynamics import Underdamped
from mfld.gallery.experiment import Check, count, non_negative, one_of, positive, spaced
from mfld.objectives import ControlProblem
from mfld.schedules import Geometric
from mfld.sweeps import Sweep

PANELS = 3
SETTINGS: dict[str, dict[str, Check]] = {
    "plant": {
        "horizon": positive,
        "n_nodes": count,
        "amplitude": non_negative,
        "deviation": positive,
        "spread": positive,
    },
    "algorithm": {
        "method": one_of("single", "relaxed"),
        "n_particles": count,
        "friction": positive,
        "step_size": positive,
        "temperature": non_negative,
        "halvings": count,
        "n_steps": count,
    },
}
_RECORDS = 40


def _path(t: Any, amplitude: float, horizon: float) -> Any:
    return amplitude * np.sin(2 * math.pi * t / horizon)


def _cart(horizon: float, n_nodes: int, amplitude: float, deviation: float) -> ControlProblem:
    """``dX = a dt`` from 0, at the cost ``deviation (X - path)**2 + (a**2 - 1)**2`` per unit of time."""
    return ControlProblem(
        lambda t, x, a: a,
        lambda t, x, a: deviation * (x[:, 0] - _path(t, amplitude, horizon)) ** 2 + (a[:, 0] ** 2 - 1) ** 2,
        lambda x: 0 * x[:, 0],
        horizon,
        n_nodes,
        [0.0],
        n_controls=1,
        scheme="midpoint",
        dynamics_jacobians=lambda t, x, a: (np.zeros((len(x), 1, 1)), np.ones((len(x), 1, 1))),
        running_gradients=lambda t, x, a: (
            2 * deviation * (x - _path(t, amplitude, horizon)),
            4 * a * (a**2 - 1),
        ),
        terminal_gradient=lambda x: 0 * x,
    )


def run(
    *,
    horizon: float,
    n_nodes: int,
    amplitude: float,
    deviation: float,
    spread: float,
    method: str,
    n_particles: int,
    friction: float,
    step_size: float,
    temperature: float,
    halvings: int,
    n_steps: int,
    seed: int,
) -> dict[str, Any]:
    """Cost against the step; speeds of the particles and the course of the cart at the end."""
    problem = _cart(horizon, n_nodes, amplitude, deviation)
    relaxed = method == "relaxed"
    width = n_particles if relaxed else 1
    # The same start for both, at which all particles of a node are in one place.
    start = spread * noise.normals(seed, 0, n_nodes, 1, dtype="float64", stream="data")
    solver = MFLD(
        width,
        step_size=step_size,
        temperature=Geometric(temperature if relaxed else 0.0, 0.5, max(1, n_steps // halvings)),
        dynamics=Underdamped(friction),
    )
    record = {"cost": lambda state: problem.value(state.measure)}
    places = spaced(n_steps, _RECORDS)
    particles = np.repeat(start[:, np.newaxis], width, axis=1)
    result = solver.run(problem, n_steps, seed, particles=particles, record=record, record_every=places)
    found = problem.trajectory(result.measure)
    return {
        "step": result.history["step"],
        "cost": result.history["cost"],
        "edges": problem.node_times,
        "speeds": result.particles[:, :, 0],
        "time": found.times,
        "state": found.states[:, 0, 0],
    }


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    costs, speeds, courses = panels
    given = found.runs[0]["parameters"]
    fine = np.linspace(0, given["horizon"], 200)
    courses.plot(fine, _path(fine, given["amplitude"], given["horizon"]), "--", color=plots.ink(), label="path")
    for k, method in enumerate(found.axes["method"]):
        cost = np.exp(np.log(found.column("cost")[k]).mean(axis=0))
        costs.plot(found.column("step")[k, 0], cost, plots.marker(k) + "-", markersize=3, color=plots.colour(k))
        first = next(run["result"] for run in found.runs if run["parameters"]["method"] == method)
        each = np.array(first["speeds"])  # (n_nodes, N)
        size = {"markersize": 3, "alpha": 0.3} if each.shape[1] > 1 else {"markersize": 5}
        middles = np.convolve(first["edges"], [0.5, 0.5], "valid")
        speeds.plot(middles, each, plots.marker(k), color=plots.colour(k), **size)
        courses.plot(first["time"], first["state"], color=plots.colour(k))
        courses.plot([], [], plots.marker(k) + "-", color=plots.colour(k), label=method)
    costs.set(xlabel="step", ylabel="cost, geometric mean of the seeds", yscale="log")
    speeds.set(xlabel="time", ylabel="speeds of a node")
    courses.set(xlabel="time", ylabel="place of the cart")
    courses.legend(frameon=False)
    for axes in panels:
        plots.open_axes(axes)


def claim(found: Sweep) -> float:
    ends = dict(zip(found.axes["method"], found.column("cost")[..., -1].mean(axis=1), strict=True))
    return float(ends["relaxed"] / ends["single"])
