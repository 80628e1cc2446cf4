"""ULA, MALA and annealing on ``U = x**4 - x**2``, against the density of the Fokker-Planck equation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import noise, plots, potentials
from mfld.algorithms import MFLD
from mfld.dynamics import MALA, Overdamped
from mfld.fokker_planck import FokkerPlanck
from mfld.gallery.experiment import Check, count, one_of, positive
from mfld.sweeps import Sweep
from mfld.validation import real

PANELS = 3
SETTINGS: dict[str, dict[str, Check]] = {
    "potential": {"temperature": positive},
    "start": {"centre": real, "spread": positive, "n_particles": count},
    "algorithm": {
        "method": one_of("ULA", "MALA", "annealing"),
        "step_size": positive,
        "n_steps": count,
        "hottest": positive,
    },
}
_STAGES = 8
_CELLS, _LIMITS = 200, (-2.0, 2.0)
_BINS = 50


def run(
    *,
    method: str,
    temperature: float,
    centre: float,
    spread: float,
    n_particles: int,
    step_size: float,
    n_steps: int,
    hottest: float,
    seed: int,
) -> dict[str, Any]:
    """Distance from the Gibbs law at the end, with the histogram, and the density of infinitely many particles."""
    wells = potentials.DoubleWell(distance=math.sqrt(0.5), height=0.25)  # x**4 - x**2 + 1/4
    particles = centre + spread * noise.normals(seed, 0, n_particles, 1, dtype="float64", stream="data")
    density: Any = lambda x: np.exp(-((x[:, 0] - centre) ** 2) / (2 * spread**2))  # noqa: E731
    stages = [temperature]
    if method == "annealing":  # the last quarter of the stages is at the temperature that is meant
        stages = [*np.geomspace(hottest, temperature, 3 * _STAGES // 4), *[temperature] * (_STAGES // 4)]
    for k, each in enumerate(stages):
        dynamics = MALA() if method == "MALA" else Overdamped()
        solver = MFLD(n_particles, step_size=step_size, temperature=each, dynamics=dynamics, dtype="float64")
        n = n_steps // len(stages)
        particles = solver.run(wells, n, seed * _STAGES + k, particles=particles).particles
        equation = FokkerPlanck(wells, each, _CELLS, limits=[_LIMITS])
        density = equation.run(density, n, step_size).density[-1]
    (x,), gibbs = equation.axes, equation.gibbs()
    width = x[1] - x[0]
    below = np.searchsorted(np.sort(particles[:, 0]), x + width / 2) / n_particles
    heights, _ = np.histogram(particles, np.linspace(*_LIMITS, _BINS + 1), density=True)
    return {
        "distance": width * np.abs(below - np.cumsum(gibbs) * width).sum(),
        "histogram": heights,
        "density": density,
        "gibbs": gibbs,
    }


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    x = np.linspace(*_LIMITS, 2 * _CELLS + 1)[1::2]
    histograms, densities, gibbs = (found.column(name)[:, 0] for name in ("histogram", "density", "gibbs"))
    for k, (method, axes) in enumerate(zip(found.axes["method"], panels, strict=True)):
        edges = np.linspace(*_LIMITS, _BINS + 1)
        axes.stairs(histograms[k], edges, fill=True, color=plots.colour(4), alpha=0.4, label="particles")
        axes.plot(x, densities[k], color=plots.colour(0), label="Fokker-Planck, the same time")
        axes.plot(x, gibbs[k], "--", color=plots.colour(1), label="Gibbs law")
        axes.set(xlabel="x", ylabel="density" if k == 0 else "", ylim=(0, 1.15 * densities.max()))
        axes.set_title(f"{method}, distance {found.column('distance')[k, 0]:.2f}")
        plots.open_axes(axes)
    panels[0].legend(frameon=False, fontsize=8)


def claim(found: Sweep) -> float:
    of = dict(zip(found.axes["method"], found.column("distance").mean(axis=1), strict=True))
    return float(of["annealing"] / of["ULA"])
