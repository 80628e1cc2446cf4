"""Gradient estimators on a network that cannot interpolate its data, at equal numbers of sample gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import noise as draws
from mfld import plots
from mfld.algorithms import MFLD
from mfld.gallery.experiment import Check, count, non_negative, one_of, positive, spaced
from mfld.gradients import SARAH, SVRG, FullBatch, GradientEstimator, Minibatch
from mfld.models import TwoLayerNetwork
from mfld.objectives import EmpiricalRisk
from mfld.sweeps import Sweep

PANELS = 1
NAMES = ("mini-batch", "SVRG", "SARAH", "full batch")
SETTINGS: dict[str, dict[str, Check]] = {
    "data": {"n_samples": count, "d": count, "noise": non_negative},
    "model": {"n_particles": count, "output_scale": positive},
    "algorithm": {
        "estimator": one_of(*NAMES),
        "batch_size": count,
        "refresh_every": count,
        "step_size": positive,
        "l2": positive,
        "temperature": non_negative,
        "passes": count,
    },
}
_RECORDS = 40


def run(
    *,
    n_samples: int,
    d: int,
    noise: float,
    n_particles: int,
    output_scale: float,
    estimator: str,
    batch_size: int,
    refresh_every: int,
    step_size: float,
    l2: float,
    temperature: float,
    passes: int,
    seed: int,
) -> dict[str, Any]:
    """Objective against gradients of single samples, in units of the number of samples."""
    inputs = draws.normals(seed, 0, n_samples, d, dtype="float64", stream="data")
    errors = draws.normals(seed, 1, n_samples, 1, dtype="float64", stream="data")[:, 0]
    targets = np.sin(2 * inputs[:, 0]) + inputs[:, 1] * inputs[:, 2 % d] / 2 + noise * errors
    model = TwoLayerNetwork(d, activation="tanh", output_scale=output_scale)
    risk = EmpiricalRisk(model, inputs, targets, loss="half_squared", l2=l2)
    refreshed = 2 * batch_size + max(n_samples - 2 * batch_size, 0) / refresh_every
    gradient, cost = {
        "mini-batch": (Minibatch(batch_size), batch_size),
        "SVRG": (SVRG(batch_size, refresh_every), refreshed),
        "SARAH": (SARAH(batch_size, refresh_every), refreshed),
        "full batch": (FullBatch(), n_samples),
    }[estimator]
    assert isinstance(gradient, GradientEstimator)
    solver = MFLD(n_particles, step_size=step_size, temperature=temperature, gradient=gradient)
    n_steps = int(passes * n_samples / cost)
    places = spaced(n_steps, _RECORDS)
    record = {"objective": lambda state: risk.value(state.particles)}
    history = solver.run(risk, n_steps, seed, record=record, record_every=places).history
    return {"passes": history["step"] * cost / n_samples, "objective": history["objective"]}


def _of(found: Sweep, name: str) -> dict[str, list[tuple[Any, Any]]]:
    """Passes and objectives of the runs of each estimator; their numbers of records differ where steps are few."""
    curves: dict[str, list[tuple[Any, Any]]] = {}
    for each in found.runs:
        result = each["result"]
        curves.setdefault(each["parameters"][name], []).append((result["passes"], np.array(result["objective"])))
    return curves


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    (axes,) = panels
    for k, (name, curves) in enumerate(_of(found, "estimator").items()):
        for j, (passes, objective) in enumerate(curves):
            axes.plot(
                passes, objective, plots.marker(k) + "-", markersize=3, color=plots.colour(k), label="" if j else name
            )
    axes.set(xlabel="gradients of single samples / n", ylabel="objective", yscale="log")
    plots.open_axes(axes).legend(frameon=False)


def claim(found: Sweep) -> float:
    curves = _of(found, "estimator")
    lowest = [min(objective.min() for _, objective in each) for each in zip(*curves.values(), strict=True)]
    tails = {
        name: np.mean([np.mean(objective[-8:]) - low for (_, objective), low in zip(each, lowest, strict=True)])
        for name, each in curves.items()
    }
    return float(tails["SVRG"] / tails["mini-batch"])
