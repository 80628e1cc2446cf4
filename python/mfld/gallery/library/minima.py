"""Langevin dynamics from a sharp minimum beside a flat one of the same depth, in one dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import plots
from mfld.algorithms import MFLD
from mfld.gallery.experiment import Check, count, non_negative, positive
from mfld.objectives import Potential
from mfld.sweeps import Sweep

PANELS = 2
SETTINGS: dict[str, dict[str, Check]] = {
    "potential": {"sharp": positive, "flat": positive, "distance": positive, "blend": positive},
    "algorithm": {"temperature": non_negative, "n_particles": count, "step_size": positive, "n_steps": count},
}
_BINS = np.linspace(-2, 6, 81)
_RECORDS = 60


def _wells(x: Any, sharp: float, flat: float, distance: float, blend: float) -> tuple[Any, Any]:
    """Height and slope of the smooth minimum of ``x**2 / (2 sharp**2)`` and ``(x - distance)**2 / (2 flat**2)``.

    The smooth minimum of p and q is ``-blend log(exp(-p / blend) + exp(-q / blend))``.
    """
    left, right = x / sharp, (x - distance) / flat
    height = -blend * np.logaddexp(-(left**2) / (2 * blend), -(right**2) / (2 * blend))
    share = np.exp((height - left**2 / 2) / blend)
    return height, share * left / sharp + (1 - share) * right / flat


def run(
    *,
    sharp: float,
    flat: float,
    distance: float,
    blend: float,
    temperature: float,
    n_particles: int,
    step_size: float,
    n_steps: int,
    seed: int,
) -> dict[str, Any]:
    """Share of the particles on the flat side of the top between the minima, over the run; their places at its end."""
    shape = (sharp, flat, distance, blend)
    wells = Potential(lambda x: _wells(x, *shape)[1], lambda x: _wells(x, *shape)[0][:, 0], n_coordinates=1)
    top = distance * sharp / (sharp + flat)  # where both parabolas are as high
    solver = MFLD(n_particles, step_size=step_size, temperature=temperature)
    record = {"flat": lambda state: float(np.mean(state.particles > top))}
    every = max(1, n_steps // _RECORDS)
    start = np.zeros((n_particles, 1))
    result = solver.run(wells, n_steps, seed, particles=start, record=record, record_every=every)
    places, _ = np.histogram(result.particles, _BINS)
    fine = np.linspace(-3, 9, 6001)
    law = np.exp(-_wells(fine, *shape)[0] / temperature) if temperature else 1.0 * (np.abs(fine) < 1e-9)
    return {
        "time": result.history["step"] * step_size,
        "flat": result.history["flat"],
        "places": places / n_particles,
        "gibbs": float(law[fine > top].sum() / law.sum()),
    }


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    left, right = panels
    given = found.runs[0]["parameters"]
    fine = np.linspace(_BINS[0], _BINS[-1], 800)
    height, _ = _wells(fine, *(given[name] for name in ("sharp", "flat", "distance", "blend")))
    left.plot(fine, height, color=plots.ink(), linewidth=1)
    left.set(xlabel="x", ylabel="U, and particles at the end", ylim=(-0.1, 4))
    right.set(xlabel="time", ylabel="share in the flat minimum", ylim=(-0.03, 1.03))
    for k, temperature in enumerate(found.axes["temperature"]):
        name = f"temperature {temperature:g}" if temperature else "descent"
        time, flat, places, gibbs = (found.column(name)[k, 0] for name in ("time", "flat", "places", "gibbs"))
        if temperature:
            left.stairs(places / np.diff(_BINS), _BINS, color=plots.colour(k), linewidth=1.2)
            right.axhline(gibbs, color=plots.colour(k), linestyle=":")
        else:
            left.plot(0, 0, plots.marker(k), color=plots.colour(k))
        right.plot(time, flat, plots.marker(k) + "-", markersize=3, color=plots.colour(k), label=name)
    right.plot([], [], ":", color=plots.ink(), label="Gibbs law")
    for axes in panels:
        plots.open_axes(axes)
    right.legend(frameon=False, fontsize=8)


def claim(found: Sweep) -> float:
    return float(found.column("flat")[1:, :, -1].mean(axis=1).min())
