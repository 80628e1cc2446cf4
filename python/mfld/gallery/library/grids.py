"""Samplers and grids of diffusion on Gaussian data, by the error of their standard deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import diffusion, plots
from mfld.gallery.experiment import Check, count, one_of, positive
from mfld.mixtures import GaussianMixture
from mfld.sweeps import Sweep

PANELS = 2
SETTINGS: dict[str, dict[str, Check]] = {
    "data": {"deviation": positive},
    "algorithm": {
        "sampler": one_of("ddim", "dpm-solver++", "heun"),
        "times": one_of("uniform", "log-snr", "cosine", "tangent", "sech", "karras"),
        "n_steps": count,
        "n_samples": count,
        "scale": positive,
    },
}


def run(
    *, deviation: float, sampler: str, times: str, n_steps: int, n_samples: int, scale: float, seed: int
) -> dict[str, float]:
    """Logarithm of the samples' deviation over that of the exact flow from the same noise.

    The flow of a Gaussian is linear: what was drawn at its end is multiplied by one number, and so is what any of these
    samplers makes of it. The quotient of both has no Monte Carlo error.
    """
    forward = diffusion.OrnsteinUhlenbeck()
    score = diffusion.ExactScore(GaussianMixture(None, [[0.0]], deviation**2), forward)
    grid = diffusion.times(forward, n_steps, times, scale=scale)
    found = diffusion.sample(score, n_samples, sampler=sampler, times=grid, seed=seed)
    least = diffusion.times(forward, 1000, "tangent", scale=deviation)
    exact = diffusion.sample(score, n_samples, sampler="ddim", times=least, seed=seed)
    return {"error": abs(math.log(found.std() / exact.std()))}


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    error = np.maximum(found.column("error").mean(axis=-1), 1e-12)
    samplers, times, steps = (found.axes[name] for name in ("sampler", "times", "n_steps"))
    left, right = panels
    for k, name in enumerate(times):
        left.loglog(steps, error[0, k], plots.marker(k) + "-", color=plots.colour(k), label=name)
    left.set_title(f"{samplers[0]}: grids")
    for k, name in enumerate(samplers):
        right.loglog(steps, error[k, -1], plots.marker(k) + "-", color=plots.colour(k), label=name)
    right.set_title(f"{times[-1]} grid: samplers")
    for axes in panels:
        axes.set(xlabel="steps", ylabel="error of the log deviation")
        plots.ticks_at(axes.xaxis, steps)
        plots.open_axes(axes).legend(frameon=False)


def claim(found: Sweep) -> float:
    error = dict(zip(found.axes["times"], found.column("error").mean(axis=-1)[0], strict=True))
    return float(np.mean(error["tangent"] / error["cosine"]))
