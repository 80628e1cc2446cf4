"""Points for the posterior of a Bayesian linear regression, whose mean and covariance are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import kernels, plots, potentials
from mfld import noise as draws
from mfld.algorithms import MFLD
from mfld.dynamics import SVGD
from mfld.gallery.experiment import Check, count, one_of, positive
from mfld.objectives import KSD
from mfld.sweeps import Sweep
from mfld.validation import boolean

PANELS = 3
SETTINGS: dict[str, dict[str, Check]] = {
    "data": {"n_samples": count, "noise": positive},
    "algorithm": {
        "method": one_of("KSD", "SVGD", "draws"),
        "n_points": count,
        "n_steps": count,
        "step_share": positive,
        "repulsion": boolean,
    },
}


def run(
    *,
    n_samples: int,
    noise: float,
    method: str,
    n_points: int,
    n_steps: int,
    step_share: float,
    repulsion: bool,
    seed: int,
) -> dict[str, Any]:
    """Points in coordinates in which the posterior is N(0, I), and their largest error of a mean or a deviation.

    The posterior of a slope and an intercept is a Gaussian; whitened by its own covariance, one step size suits all.
    """
    x = np.linspace(-2, 2, n_samples)
    inputs = np.stack([np.ones(n_samples), x], axis=1)
    errors = draws.normals(0, 1, n_samples, 1, dtype="float64", stream="data")[:, 0]
    precision = inputs.T @ inputs / noise**2 + 0.1 * np.eye(2)  # a prior of variance 10
    mean = np.linalg.solve(precision, inputs.T @ (0.5 + x + noise * errors) / noise**2)
    root = np.linalg.cholesky(np.linalg.inv(precision))
    target = potentials.Gaussian(np.zeros(2))  # of (theta - mean) / root
    start = draws.normals(seed, 2, n_points, 2, dtype="float64", stream="data")
    if method == "draws":
        points = start
    elif method == "SVGD" and repulsion:
        solver = MFLD(n_points, step_size=1.0, temperature=1.0, dynamics=SVGD(kernels.Gaussian(1.0)), dtype="float64")
        points = solver.run(target, n_steps, seed, particles=3 * start).particles
    else:
        objective = KSD(target, kernels.InverseMultiquadric(1.0)) if repulsion else target
        size = step_share * n_points if repulsion else step_share
        points = (
            MFLD(n_points, step_size=size, temperature=0.0, dtype="float64")
            .run(objective, n_steps, seed, particles=3 * start)
            .particles
        )
    worst = max(np.abs(points.mean(axis=0)).max(), np.abs(points.std(axis=0) - 1).max())
    return {"error": worst, "points": mean + points @ root.T, "mean": mean, "root": root}


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    angle = np.linspace(0, 2 * math.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    mean, root = found.column("mean")[0, 0], found.column("root")[0, 0]
    for k, (method, axes) in enumerate(zip(found.axes["method"], panels, strict=True)):
        for radius in (1.0, 2.0):
            axes.plot(*(mean + radius * circle @ root.T).T, color=plots.colour(4), linewidth=1)
        axes.plot(*found.column("points")[k, 0].T, plots.marker(k), color=plots.colour(k), markersize=4)
        axes.set(xlabel="intercept", ylabel="slope" if k == 0 else "")
        axes.set_title(f"{method}: largest error {found.column('error')[k].mean():.2f} deviations")
        plots.open_axes(axes)


def claim(found: Sweep) -> float:
    error = dict(zip(found.axes["method"], found.column("error").mean(axis=1), strict=True))
    return float(error["KSD"] / error["draws"])
