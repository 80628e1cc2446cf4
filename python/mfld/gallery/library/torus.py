"""Maximum mean discrepancy from points on a torus, by descent with and without annealed noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import kernels, plots
from mfld.algorithms import MFLD
from mfld.gallery.experiment import Check, count, non_negative, one_of, positive
from mfld.noise import Place
from mfld.objectives import MMD
from mfld.space import Space, Torus
from mfld.sweeps import Sweep

PANELS = 3
SETTINGS: dict[str, dict[str, Check]] = {
    "data": {"n_points": count},
    "algorithm": {
        "method": one_of("descent", "annealed noise"),
        "n_particles": count,
        "step_size": positive,
        "n_steps": count,
        "noise": non_negative,
    },
}
_TURN = 2 * math.pi
_RECORDS = 50


def run(
    *, n_points: int, method: str, n_particles: int, step_size: float, n_steps: int, noise: float, seed: int
) -> dict[str, Any]:
    """Squared discrepancy over the run, points and particles at its end; the temperature is noise / (k + 1)."""
    circles = Space(domain=[Torus(2, period=_TURN)])
    uniform = circles.draw(Place.of(seed), n_points + n_particles, "float64")
    kernel = kernels.Dirichlet([1 / (1 + k) for k in range(1, 6)], _TURN)
    points = MMD(uniform[:n_points], kernel, space=circles)
    noisy, quiet = method == "annealed noise", n_steps * 4 // 5

    def temperature(step: int) -> float:
        return noise / (step + 1) if noisy and step < quiet else 0.0

    solver = MFLD(n_particles, step_size=step_size, temperature=temperature, dtype="float64")
    every = max(1, n_steps // _RECORDS)
    result = solver.run(points, n_steps, seed, particles=uniform[n_points:], record_every=every)
    return {
        "step": result.history["step"],
        "loss": result.history["loss"],
        "points": np.mod(uniform[:n_points], _TURN),
        "particles": np.mod(result.particles, _TURN),
    }


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    left, *places = panels
    for k, (method, place) in enumerate(zip(found.axes["method"], places, strict=True)):
        step, losses = found.column("step")[k, 0], found.column("loss")[k]
        left.plot(step, losses.T, color=plots.colour(k), linewidth=0.6, alpha=0.5)
        left.plot(step, np.median(losses, axis=0), color=plots.colour(k), label=method)
        place.plot(*found.column("points")[k, 0].T, "+", color=plots.ink(), markersize=11)
        particles = found.column("particles")[k, 0].T
        place.plot(*particles, plots.marker(k), color=plots.colour(k), markersize=4, alpha=0.6)
        place.set(xlim=(0, _TURN), ylim=(0, _TURN), xticks=[], yticks=[], title=method, aspect="equal")
    left.set(xlabel="step", ylabel="squared discrepancy", yscale="log")
    plots.open_axes(left).legend(frameon=False)


def claim(found: Sweep) -> float:
    ends = dict(zip(found.axes["method"], found.column("loss")[..., -1], strict=True))
    return float(np.median(ends["annealed noise"] / ends["descent"]))
