"""Kernel alignment and the share of weights along the teacher's direction over a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import diagnostics, noise, plots
from mfld.algorithms import MFLD
from mfld.gallery.experiment import Check, count, non_negative, positive, spaced
from mfld.models import TwoLayerNetwork
from mfld.objectives import EmpiricalRisk
from mfld.sweeps import Sweep
from mfld.validation import boolean

PANELS = 2
SETTINGS: dict[str, dict[str, Check]] = {
    "data": {"d": count, "n_samples": count},
    "model": {"n_particles": count, "mean_field": boolean},
    "algorithm": {"step_size": positive, "temperature": non_negative, "l2": positive, "n_steps": count},
}
_RECORDS = 15


def run(
    *,
    d: int,
    n_samples: int,
    n_particles: int,
    mean_field: bool,
    step_size: float,
    temperature: float,
    l2: float,
    n_steps: int,
    seed: int,
) -> dict[str, Any]:
    """Both alignments against the step."""
    inputs = noise.normals(seed, 0, n_samples, d, dtype="float64", stream="data")
    targets = np.tanh(2 * inputs[:, 0])
    # Times sqrt(N) the gradients are larger by as much, and so is the curvature of the risk by N.
    scale = 1.0 if mean_field else math.sqrt(n_particles)
    model = TwoLayerNetwork(d, activation="tanh", output_scale=scale)
    risk = EmpiricalRisk(model, inputs, targets, loss="half_squared", l2=l2 * (1 if mean_field else 0))
    solver = MFLD(n_particles, step_size=step_size / scale**2, temperature=temperature / scale**2)
    weights = model.slices["weights"]
    record = {
        "kernel": lambda state: diagnostics.kernel_alignment(
            diagnostics.conjugate_kernel(model, state.measure, inputs), targets
        ),
        "weights": lambda state: diagnostics.parameter_alignment(state.particles[:, weights], np.eye(d)[0]),
    }
    places = spaced(n_steps, _RECORDS)
    history = solver.run(risk, n_steps, seed, record=record, record_every=places).history
    return {name: history[name] for name in ("step", "kernel", "weights", "loss")}


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    labels = ("kernel alignment with the targets", "share of the weights along the teacher")
    for k, (axes, name, label) in enumerate(zip(panels, ("kernel", "weights"), labels, strict=True)):
        for step, values in zip(found.column("step"), found.column(name), strict=True):
            axes.plot(step, values, plots.marker(k) + "-", markersize=3, color=plots.colour(k))
        axes.set(xlabel="step", ylabel=label, ylim=(0, 1))
        plots.open_axes(axes)


def claim(found: Sweep) -> float:
    kernel = found.column("kernel")
    return float(np.mean(kernel[..., -1] - kernel[..., 0]))
