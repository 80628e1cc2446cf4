"""Descent, cooling noise and graduated optimisation on a bowl with ripples, in one dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import plots
from mfld.algorithms import MFLD
from mfld.gallery.experiment import Check, count, non_negative, one_of, positive
from mfld.gradients import FullBatch, Smoothed
from mfld.objectives import Potential
from mfld.schedules import Geometric
from mfld.sweeps import Sweep
from mfld.validation import real

PANELS = 2
SETTINGS: dict[str, dict[str, Check]] = {
    "potential": {"curvature": positive, "ripple": non_negative, "frequency": positive},
    "algorithm": {
        "method": one_of("descent", "cooling noise", "graduated"),
        "start": real,
        "n_particles": count,
        "step_size": positive,
        "n_steps": count,
        "halving_every": count,
        "radius": non_negative,
        "temperature": non_negative,
    },
}
_BINS = np.linspace(-8, 8, 161)


def run(
    *,
    curvature: float,
    ripple: float,
    frequency: float,
    method: str,
    start: float,
    n_particles: int,
    step_size: float,
    n_steps: int,
    halving_every: int,
    radius: float,
    temperature: float,
    seed: int,
) -> dict[str, Any]:
    """Places of the particles at the end, on ``U = curvature x**2 / 2 - ripple cos(frequency x)``."""
    bowl = Potential(
        lambda x: curvature * x + ripple * frequency * np.sin(frequency * x),
        lambda x: (curvature * x**2 / 2 - ripple * np.cos(frequency * x))[:, 0],
        n_coordinates=1,
    )
    falls = Geometric(1.0, factor=0.5, stage_length=halving_every)
    solver = MFLD(
        n_particles,
        step_size=step_size,
        temperature=temperature * falls if method == "cooling noise" else 0.0,
        gradient=Smoothed(radius * falls) if method == "graduated" else FullBatch(),
    )
    ends = solver.run(bowl, n_steps, seed, particles=np.full((n_particles, 1), start)).particles[:, 0]
    heights, _ = np.histogram(ends, _BINS)
    return {"near": float(np.mean(np.abs(ends) < 2 * math.pi / frequency)), "shares": heights / n_particles}


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    left, right = panels
    given = found.runs[0]["parameters"]
    x = np.linspace(-8, 8, 1000)
    for k, width in enumerate((0.0, given["radius"] / 8, given["radius"])):
        # A Gaussian of this width times a cosine: the ripple shrinks by exp(-(width frequency)**2 / 2).
        ripple = given["ripple"] * math.exp(-((width * given["frequency"]) ** 2) / 2)
        u = given["curvature"] * x**2 / 2 - ripple * np.cos(given["frequency"] * x)
        left.plot(x, u, color=plots.colour(k), label=f"smoothed by {width:g}" if width else "U")
    left.plot(given["start"], given["curvature"] * given["start"] ** 2 / 2, "v", color=plots.ink(), label="start")
    left.set(xlabel="x", ylabel="objective")
    for k, method in enumerate(found.axes["method"]):
        shares = found.column("shares")[k].mean(axis=0)
        right.stairs(shares, _BINS, color=plots.colour(k), linewidth=1.5, label=method)
    right.set(xlabel="x", ylabel="share of particles at the end")
    for axes in panels:
        plots.open_axes(axes).legend(frameon=False, fontsize=8)


def claim(found: Sweep) -> float:
    near = dict(zip(found.axes["method"], found.column("near").mean(axis=1), strict=True))
    return float(near["graduated"] - near["descent"])
