"""Overdamped and underdamped chains on an ill-conditioned Gaussian, whose law is known at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import plots, potentials
from mfld.algorithms import MFLD
from mfld.dynamics import Overdamped, Underdamped
from mfld.gallery.experiment import Check, count, one_of, positive, spaced
from mfld.sweeps import Sweep

PANELS = 1
SETTINGS: dict[str, dict[str, Check]] = {
    "potential": {"condition": positive, "d": count},
    "algorithm": {
        "method": one_of("overdamped", "underdamped"),
        "n_particles": count,
        "n_steps": count,
        "friction": positive,
        "step_share": positive,
    },
}
_RECORDS = 40


def run(
    *,
    condition: float,
    d: int,
    method: str,
    n_particles: int,
    n_steps: int,
    friction: float,
    step_share: float,
    seed: int,
) -> dict[str, Any]:
    """Squared distance of the mean along the widest direction, in its variances, from a start three deviations away.

    Curvatures are 1 to ``condition``. Steps are the same share of the largest stable ones: 2 / L of Euler's, and
    2 / sqrt(L) of the splitting's.
    """
    curvatures = np.geomspace(1, condition, d)
    bowl = potentials.Gaussian(np.zeros(d), np.diag(1 / curvatures))
    dynamics, largest = (
        (Overdamped(), 2 / condition) if method == "overdamped" else (Underdamped(friction), 2 / math.sqrt(condition))
    )
    solver = MFLD(n_particles, step_size=step_share * largest, temperature=1.0, dynamics=dynamics, dtype="float64")
    start = np.tile(3 / np.sqrt(curvatures), (n_particles, 1))
    places = spaced(n_steps, _RECORDS)
    record = {"distance": lambda state: float(np.mean(state.particles[:, 0])) ** 2}
    history = solver.run(bowl, n_steps, seed, particles=start, record=record, record_every=places).history
    return {"step": history["step"], "distance": history["distance"]}


def _curves(found: Sweep) -> Any:
    return found.column("distance").mean(axis=1)


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    (axes,) = panels
    for k, (method, values) in enumerate(zip(found.axes["method"], _curves(found), strict=True)):
        steps = found.column("step")[k, 0]
        axes.plot(steps, values, plots.marker(k) + "-", markersize=3, color=plots.colour(k), label=method)
    axes.axhline(1 / found.runs[0]["parameters"]["n_particles"], color=plots.ink(), linestyle=":", label="1 / N")
    axes.set(xlabel="gradients", ylabel="squared distance of the mean, in variances", yscale="log")
    plots.open_axes(axes).legend(frameon=False)


def claim(found: Sweep) -> float:
    """At the end, each averaged over the last fifth."""
    values = _curves(found)
    ends = dict(zip(found.axes["method"], values[:, -values.shape[1] // 5 :].mean(axis=1), strict=True))
    return float(ends["underdamped"] / ends["overdamped"])
