"""Descent-ascent on ``W(x) + a x y - W(y)`` with double wells W, warm and cold."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import payoffs, plots
from mfld.algorithms import DescentAscent
from mfld.gallery.experiment import Check, count, one_of, positive
from mfld.objectives import Bilinear
from mfld.sweeps import Sweep

PANELS = 2
SETTINGS: dict[str, dict[str, Check]] = {
    "game": {"coupling": positive},
    "algorithm": {
        "case": one_of("warm", "cold"),
        "n_particles": count,
        "step_size": positive,
        "n_steps": count,
        "temperature": positive,
        "cold": positive,
    },
}
_RECORDS = 300


def run(
    *,
    coupling: float,
    case: str,
    n_particles: int,
    step_size: float,
    n_steps: int,
    temperature: float,
    cold: float,
    seed: int,
) -> dict[str, Any]:
    """Means of both players over time."""
    wells = Bilinear(
        payoffs.Polynomial({(4, 0): 0.25, (2, 0): -0.5, (1, 1): coupling, (0, 4): -0.25, (0, 2): 0.5}), space=1
    )
    start = {"x": np.full((n_particles, 1), 1.2), "y": np.zeros((n_particles, 1))}
    solver = DescentAscent(n_particles, step_size=step_size, temperature=temperature if case == "warm" else cold)
    record = {name: lambda state, name=name: float(state.clouds[name].particles.mean()) for name in "xy"}
    every = max(1, n_steps // _RECORDS)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the run circles")  # which is what this is about
        history = solver.run(wells, n_steps, seed, particles=start, record=record, record_every=every).history
    return {"time": history["step"] * step_size, "x": history["x"], "y": history["y"]}


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    left, right = panels
    for k, case in enumerate(found.axes["case"]):
        x, y, time = (found.column(name)[k, 0] for name in ("x", "y", "time"))
        left.plot(x, y, color=plots.colour(k), linewidth=1, label=case)
        left.plot(x[-1], y[-1], plots.marker(k), color=plots.colour(k))
        right.plot(time, np.hypot(x, y), color=plots.colour(k), label=case)
    left.set(xlabel="mean of x", ylabel="mean of y", aspect="equal")
    right.set(xlabel="time", ylabel="distance of the means from 0")
    for axes in panels:
        plots.open_axes(axes).legend(frameon=False)


def claim(found: Sweep) -> float:
    distance = np.hypot(found.column("x"), found.column("y")).mean(axis=1)
    ends = dict(zip(found.axes["case"], distance[:, -distance.shape[1] // 3 :].mean(axis=1), strict=True))
    return float(ends["warm"] / ends["cold"])
