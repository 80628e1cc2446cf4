"""Descent-ascent on ``W(x) + a x y - W(y)`` with double wells W, warm and cold."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import payoffs, plots
from mfld.algorithms import DescentAscent
from mfld.equilibria import nikaido_isoda
from mfld.gallery.experiment import Check, count, one_of, positive
from mfld.objectives import Bilinear
from mfld.sweeps import Sweep

PANELS = 3
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
_RECORDS = 200
_GAP_EVERY = 15  # records, since a quadrature takes as long as many steps
_BINS = np.linspace(-2, 2, 41)


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
    """Means of both players and the Nikaido-Isoda gap over time, and the places of x in the last third."""
    wells = Bilinear(
        payoffs.Polynomial({(4, 0): 0.25, (2, 0): -0.5, (1, 1): coupling, (0, 4): -0.25, (0, 2): 0.5}), space=1
    )
    start = {"x": np.full((n_particles, 1), 1.2), "y": np.zeros((n_particles, 1))}
    heat = temperature if case == "warm" else cold
    solver = DescentAscent(n_particles, step_size=step_size, temperature=heat)
    record: dict[str, Any] = {
        name: lambda state, name=name: float(state.clouds[name].particles.mean()) for name in "xy"
    }
    every = max(1, n_steps // _RECORDS)
    record["gap"] = lambda state: (
        nikaido_isoda(wells, state, heat).gap if state.step % (_GAP_EVERY * every) == 0 else math.nan
    )
    record["places"] = lambda state: np.histogram(state.clouds["x"].particles, _BINS)[0] / n_particles
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the run circles")  # which is what this is about
        history = solver.run(wells, n_steps, seed, particles=start, record=record, record_every=every).history
    return {
        "time": history["step"] * step_size,
        **{name: history[name] for name in ("x", "y", "gap")},
        "places": _end(history["places"]).mean(axis=0),
        "temperature": heat,
    }


def _end(series: Any) -> Any:
    return series[-(len(series) // 3) :]


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    left, middle, right = panels
    fine = np.linspace(_BINS[0], _BINS[-1], 400)
    for k, case in enumerate(found.axes["case"]):
        x, y, time, gap, places = (found.column(name)[k, 0] for name in ("x", "y", "time", "gap", "places"))
        left.plot(x, y, color=plots.colour(k), linewidth=1, label=case)
        left.plot(x[-1], y[-1], plots.marker(k), color=plots.colour(k))
        known = np.isfinite(gap)
        middle.plot(time[known], gap[known], plots.marker(k) + "-", markersize=3, color=plots.colour(k), label=case)
        # Means are 0 at the equilibrium, by symmetry, so that both players have the Gibbs law of a well alone.
        law = np.exp(-(fine**4 / 4 - fine**2 / 2 + 0.25) / found.column("temperature")[k, 0])
        law /= law.sum() * (fine[1] - fine[0])
        right.stairs(places / np.diff(_BINS), _BINS, color=plots.colour(k), linewidth=1.5, label=case)
        right.plot(fine, law, "--", color=plots.colour(k), label=f"{case}, equilibrium")
    left.set(xlabel="mean of x", ylabel="mean of y", aspect="equal")
    middle.set(xlabel="time", ylabel="Nikaido-Isoda gap", yscale="log")
    right.set(xlabel="x in the last third", ylabel="density")
    for axes in panels:
        plots.open_axes(axes).legend(frameon=False, fontsize=8)


def claim(found: Sweep) -> float:
    ends = {
        case: np.mean([np.nanmean(_end(gap)) for gap in found.column("gap")[k]])
        for k, case in enumerate(found.axes["case"])
    }
    return float(ends["warm"] / ends["cold"])
