"""Reductions of a problem over signed measures, from a start in which neurons are silent on nearly all inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import plots, schedules
from mfld.algorithms import MFLD
from mfld.dynamics import Conic, Dynamics, Overdamped
from mfld.gallery.experiment import Check, count, non_negative, one_of, positive
from mfld.models import TwoLayerNetwork
from mfld.objectives import Bilevel, Lifting, SignedRisk
from mfld.space import Sphere
from mfld.sweeps import Sweep

PANELS = 1
NAMES = ("bilevel", "lifting, conic", "lifting, product")
SETTINGS: dict[str, dict[str, Check]] = {
    "data": {"n_samples": count, "d": count, "n_teachers": count},
    "algorithm": {
        "method": one_of(*NAMES),
        "n_particles": count,
        "strength": positive,
        "n_steps": count,
        "noise": non_negative,
    },
}
_RECORDS = 40


def _method(name: str) -> tuple[Bilevel | Lifting, Dynamics, float, float]:
    """A reduction, dynamics, and a step size and a temperature that were the best of a grid for it."""
    return {
        "bilevel": (Bilevel(), Overdamped(), 0.5, 1e-2),
        "lifting, conic": (Lifting("conic"), Conic(), 0.6, 1e-2),
        "lifting, product": (Lifting(), Overdamped(), 0.05, 3e-2),
    }[name]  # type: ignore[return-value]


def run(
    *,
    n_samples: int,
    d: int,
    n_teachers: int,
    method: str,
    n_particles: int,
    strength: float,
    n_steps: int,
    noise: float,
    seed: int,
) -> dict[str, Any]:
    """Objective over signed measures against the step."""
    reduction, dynamics, step_size, temperature = _method(method)
    rng = np.random.default_rng(seed)
    first = np.eye(d)[0]
    inputs = rng.normal(size=(n_samples, d)) + 3 * first
    teacher = rng.normal(size=(n_teachers, d))
    teacher /= np.linalg.norm(teacher, axis=1, keepdims=True)
    targets = np.maximum(inputs @ teacher.T, 0) @ np.where(np.arange(n_teachers) % 2, -1.0, 1.0)
    model = TwoLayerNetwork(d, activation="relu", readout="fixed", bias=False, domain=(Sphere(d),))
    risk = SignedRisk(model, inputs, targets, strength=strength, reduction=reduction)
    particles = np.array(risk.initial_particles(n_particles, seed))
    cap = 0.1 * particles[:, :d] - first
    particles[:, :d] = cap / np.linalg.norm(cap, axis=1, keepdims=True)

    def objective(state: Any) -> float:
        measure = risk.signed_measure(state.measure)
        residual = measure.predict(inputs) - targets
        return float(np.mean(residual**2) / 2 + strength / 2 * measure.tv_norm**2)

    cooling = schedules.SwitchOff(schedules.Geometric(noise * temperature, 0.7, 15), at=n_steps * 4 // 5)
    solver = MFLD(n_particles, step_size=step_size, temperature=cooling, dynamics=dynamics)
    every = max(1, n_steps // _RECORDS)
    record = {"objective": objective}
    history = solver.run(risk, n_steps, seed, particles=particles, record=record, record_every=every).history
    return {"step": history["step"], "objective": history["objective"]}


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    (axes,) = panels
    for k, method in enumerate(found.axes["method"]):
        curve = np.exp(np.log(found.column("objective")[k]).mean(axis=0))
        axes.plot(
            found.column("step")[k, 0], curve, plots.marker(k) + "-", markersize=3, color=plots.colour(k), label=method
        )
    axes.set(xlabel="step", ylabel="objective, geometric mean of the seeds", yscale="log")
    plots.open_axes(axes).legend(frameon=False)


def claim(found: Sweep) -> float:
    ends = np.exp(np.log(found.column("objective")[..., -1]).mean(axis=1))
    of = dict(zip(found.axes["method"], ends, strict=True))
    return float(of["bilevel"] / min(of["lifting, conic"], of["lifting, product"]))
