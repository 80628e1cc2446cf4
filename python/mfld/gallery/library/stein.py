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

PANELS = 4
SETTINGS: dict[str, dict[str, Check]] = {
    "data": {"n_samples": count, "noise": positive},
    "algorithm": {
        "method": one_of("KSD", "SVGD", "draws"),
        "n_points": count,
        "n_steps": count,
        "step_size": positive,
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
    step_size: float,
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
        points = (
            MFLD(n_points, step_size=step_size, temperature=0.0, dtype="float64")
            .run(objective, n_steps, seed, particles=3 * start)
            .particles
        )
    worst = max(np.abs(points.mean(axis=0)).max(), np.abs(points.std(axis=0) - 1).max())
    return {"error": worst, "points": mean + points @ root.T, "mean": mean, "root": root}


def _errors(found: Sweep) -> Any:
    """Mean over the seeds, for each number of points and each method."""
    return found.column("error").mean(axis=-1)


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    *clouds, last = panels
    angle = np.linspace(0, 2 * math.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    mean, root = found.column("mean")[0, 0, 0], found.column("root")[0, 0, 0]
    sizes, errors = found.axes["n_points"], _errors(found)
    shown = len(sizes) // 2
    for k, (method, axes) in enumerate(zip(found.axes["method"], clouds, strict=True)):
        for radius in (1.0, 2.0):
            axes.plot(*(mean + radius * circle @ root.T).T, color=plots.colour(4), linewidth=1)
        of_method = (run for run in found.runs if run["parameters"]["method"] == method)
        points = next(run["result"]["points"] for run in of_method if run["parameters"]["n_points"] == sizes[shown])
        axes.plot(*np.transpose(points), plots.marker(k), color=plots.colour(k), markersize=4)
        axes.set(xlabel="intercept", ylabel="slope", title=f"{method}, {sizes[shown]} points")
        last.plot(sizes, errors[:, k], plots.marker(k) + "-", color=plots.colour(k), label=method)
    last.set(xlabel="number of points", ylabel="largest error, in deviations", xscale="log", yscale="log")
    plots.ticks_at(last.xaxis, sizes)
    last.legend(frameon=False)
    for axes in panels:
        plots.open_axes(axes)


def claim(found: Sweep) -> float:
    error = dict(zip(found.axes["method"], _errors(found).T, strict=True))
    return float(np.exp(np.mean(np.log(error["KSD"] / error["draws"]))))
