"""Two-phase training of a student, and the best of kernel ridge regressions, by their excess risks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import plots
from mfld.experiments import teacher_student
from mfld.gallery.experiment import Check, count, non_negative, positive, spaced
from mfld.sweeps import Sweep
from mfld.validation import integer

PANELS = 2
SETTINGS: dict[str, dict[str, Check]] = {
    "data": {"d": lambda name, value: integer(name, value, 2), "n_teachers": count, "n_samples": count},
    "model": {"width": count},
    "algorithm": {
        "exploration_step": positive,
        "descent_step": positive,
        "inverse_temperature": positive,
        "ridge": non_negative,
        "switch": count,
        "n_steps": count,
    },
}
_RECORDS = 40
_NEW = 2000
_RIDGES = np.geomspace(1e-10, 1, 21)


def run(
    *,
    d: int,
    n_teachers: int,
    n_samples: int,
    width: int,
    exploration_step: float,
    descent_step: float,
    inverse_temperature: float,
    ridge: float,
    switch: int,
    n_steps: int,
    seed: int,
) -> dict[str, Any]:
    """Excess risk of the student over time, and the lowest of kernels, a linear estimator each."""
    setting = teacher_student(d, n_teachers, n_samples + _NEW, seed)
    seen = slice(n_samples)
    student = type(setting)(setting.weights, setting.readout, setting.inputs[seen], setting.targets[seen])
    solver = student.solver(
        width,
        step_sizes=(exploration_step, descent_step),
        inverse_temperature=inverse_temperature,
        switch=switch,
    )
    places = spaced(n_steps, _RECORDS)
    record = {"excess": lambda state: student.population_risk(state.particles)}
    history = solver.run(student.risk(width, ridge), n_steps, seed, record=record, record_every=places).history
    return {"step": history["step"], "excess": history["excess"], "kernel": _kernel(setting, n_samples)}


def _kernel(setting: Any, n: int) -> float:
    """Excess risk of regression with the kernel of random ReLU neurons, at the ridge that suits the new rows best."""
    inner = np.clip(setting.inputs @ setting.inputs[:n].T, -1, 1)
    angle = np.arccos(inner)
    gram = np.sin(angle) + (math.pi - angle) * inner  # Cho, Saul 2009
    values, vectors = np.linalg.eigh(gram[:n])
    rotated = vectors.T @ setting.targets[:n]
    errors = [gram[n:] @ (vectors @ (rotated / (values + n * ridge))) - setting.targets[n:] for ridge in _RIDGES]
    return float(min(np.mean(error**2) for error in errors))


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    left, right = panels
    ns = found.axes.get("n_samples", [found.runs[0]["parameters"]["n_samples"]])
    excess, kernel = found.column("excess"), found.column("kernel")
    steps = found.column("step").reshape(-1, excess.shape[-1])[0]
    ends = excess[..., -1]
    curves = excess.reshape(len(ns), -1, excess.shape[-1])
    for k, n in enumerate(ns):
        left.plot(steps, np.exp(np.log(curves[k]).mean(axis=0)), color=plots.colour(k), label=f"n = {n}")
    left.set(xlabel="step", ylabel="excess risk of the student", yscale="log")
    for k, (name, values) in enumerate({"student": ends, "best kernel ridge regression": kernel}.items()):
        means = np.exp(np.log(values.reshape(len(ns), -1)).mean(axis=1))
        right.loglog(ns, means, plots.marker(k) + "-", color=plots.colour(k), label=name)
    right.set(xlabel="samples n", ylabel="excess risk")
    plots.ticks_at(right.xaxis, ns)
    for axes in panels:
        plots.open_axes(axes).legend(frameon=False, fontsize=8)


def claim(found: Sweep) -> float:
    excess, kernel = found.column("excess")[..., -1], found.column("kernel")
    decades = np.log10(kernel / np.maximum(excess, 1e-300))
    return float(decades.reshape(-1, decades.shape[-1])[-1].mean())
