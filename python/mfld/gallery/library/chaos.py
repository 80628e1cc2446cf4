"""A network at several widths on the problem of the paper: fluctuations between replicates, and errors against time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import noise, plots, quantities
from mfld.algorithms import MFLD
from mfld.gallery.experiment import Check, count, non_negative, positive, spaced
from mfld.models import TwoLayerNetwork
from mfld.objectives import EmpiricalRisk
from mfld.sweeps import Sweep

PANELS = 2
SETTINGS: dict[str, dict[str, Check]] = {
    "data": {"d": count, "n_samples": count},
    "model": {"n_particles": count, "scale_exponent": non_negative},
    "algorithm": {
        "step_size": positive,
        "l2": positive,
        "temperature": non_negative,
        "n_steps": count,
        "n_replicates": count,
    },
}
_RECORDS = 25


def run(
    *,
    d: int,
    n_samples: int,
    n_particles: int,
    scale_exponent: float,
    step_size: float,
    l2: float,
    temperature: float,
    n_steps: int,
    n_replicates: int,
    seed: int,
) -> dict[str, Any]:
    """Losses of the replicates over time, on the samples and on as many others; the same for all of a seed."""
    drawn = noise.normals(seed, 0, 2 * n_samples + 1, d, dtype="float64", stream="data")
    centre, inputs = drawn[0], drawn[1:]
    targets = np.exp(-np.sum((inputs - centre) ** 2, axis=1) / (2 * d))
    model = TwoLayerNetwork(d, activation="tanh", output_scale=float(n_particles) ** scale_exponent)
    risks = {
        part: EmpiricalRisk(model, inputs[rows], targets[rows], loss="squared", l2=l2)
        for part, rows in (("train", slice(n_samples)), ("test", slice(n_samples, None)))
    }
    solver = MFLD(n_particles, step_size=step_size, temperature=temperature, n_replicates=n_replicates)
    record = {part: quantities.loss(risk) for part, risk in risks.items()}
    places = spaced(n_steps, _RECORDS)
    history = solver.run(risks["train"], n_steps, seed * 1000 + n_particles, record=record, record_every=places).history
    return {"step": history["step"], "train": history["train"], "test": history["test"]}


def _spreads(found: Sweep) -> Any:
    """Largest over time standard deviation between replicates at each width, mean over the seeds."""
    return found.column("train").std(axis=-1, ddof=1).max(axis=-1).mean(axis=-1)


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    widths = found.axes["n_particles"]
    steps = found.column("step")[0, 0]
    left, right = panels
    for k, width in enumerate(widths):
        runs = found.column("test")[k, 0]
        low, high = np.quantile(runs, [0.05, 0.95], axis=1)
        left.fill_between(steps, low, high, color=plots.colour(k), alpha=0.15, linewidth=0)
        left.plot(steps, runs.mean(axis=1), color=plots.colour(k), label=f"N = {width}")
    left.set(xlabel="step", ylabel="test error: mean, 5 and 95 %", yscale="log")
    spreads = _spreads(found)
    right.loglog(widths, spreads, plots.marker(0), color=plots.colour(0), label="measured")
    line = spreads[0] * (np.array(widths) / widths[0]) ** -0.5
    right.loglog(widths, line, "--", color=plots.colour(1), label="1 / sqrt(N)")
    right.set(xlabel="number of particles N", ylabel="training error, largest deviation")
    plots.ticks_at(right.xaxis, widths)
    for axes in panels:
        plots.open_axes(axes).legend(frameon=False, fontsize=8)


def claim(found: Sweep) -> float:
    widths = np.log(found.axes["n_particles"])
    return float(-np.polyfit(widths, np.log(_spreads(found)), 1)[0])
