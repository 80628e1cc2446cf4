"""Certified gaps of P-SDCA, PDA and MFLD at the same number of neuron evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import noise as draws
from mfld import plots, quantities
from mfld.algorithms import MFLD, PDA, PSDCA, Algorithm
from mfld.gallery.experiment import Check, count, non_negative, one_of, positive
from mfld.models import TwoLayerNetwork
from mfld.objectives import EmpiricalRisk
from mfld.step_size import curvature
from mfld.sweeps import Sweep

PANELS = 1
NAMES = ("P-SDCA", "PDA", "MFLD")
SETTINGS: dict[str, dict[str, Check]] = {
    "data": {"n_samples": count, "d": count, "noise": non_negative},
    "model": {"n_particles": count, "bound": positive},
    "algorithm": {
        "method": one_of(*NAMES),
        "temperature": positive,
        "l2": positive,
        "epochs": count,
        "inner_steps": count,
        "refresh_every": count,
        "effective_sample_size": positive,
    },
}
_MOVES = 60  # of the sampler in an epoch of P-SDCA, about: the others get as many neuron evaluations
_RECORDS = 5


def run(
    *,
    n_samples: int,
    d: int,
    noise: float,
    n_particles: int,
    bound: float,
    method: str,
    temperature: float,
    l2: float,
    epochs: int,
    inner_steps: int,
    refresh_every: int,
    effective_sample_size: float,
    seed: int,
) -> dict[str, Any]:
    """Gap and upper bound against neuron evaluations, in units of N n."""
    inputs = draws.normals(seed, 0, n_samples, d, dtype="float64", stream="data")
    errors = draws.normals(seed, 1, n_samples, 1, dtype="float64", stream="data")[:, 0]
    targets = np.sin(2 * inputs[:, 0]) + inputs[:, 1 % d] * inputs[:, 2 % d] / 2 + noise * errors
    model = TwoLayerNetwork(d, readout="bounded", readout_bound=bound)
    risk = EmpiricalRisk(model, inputs, targets, loss="half_squared", l2=l2)
    solver: Algorithm
    if method == "P-SDCA":
        solver, places, cost = (
            PSDCA(
                n_particles,
                temperature=temperature,
                refresh_every=refresh_every * n_samples,
                effective_sample_size=effective_sample_size,
            ),
            list(range(epochs + 1)),
            1,
        )
    else:
        step_size = 1 / curvature(
            risk, risk.reference.draw(draws.Place.of(seed), 256, risk.space, temperature, "float64")
        )
        cost = 1 if method == "MFLD" else 1 + inner_steps
        places = [int(place) for place in np.linspace(0, epochs * _MOVES, _RECORDS + 1)[1:] / cost]
        solver = MFLD(n_particles, step_size=step_size, temperature=temperature)
        if method == "PDA":
            solver = PDA(n_particles, step_size=step_size, temperature=temperature, inner_steps=inner_steps)
    record = {
        "gap": quantities.gap(solver, risk, temperature, tolerance=3e-4),
        "moves": lambda state: state.buffers.get("sampler_moves", np.zeros(1))[0],
    }
    history = solver.run(risk, places[-1], seed, record=record, record_every=places).history
    return {"work": cost * history["step"] + history["moves"], "gap": history["gap"]}


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    runs = {run["parameters"]["method"]: run["result"] for run in reversed(found.runs)}
    plots.gap(dict(reversed(runs.items())), x="work", xlabel="neuron evaluations / (N n)", axes=panels[0])


def claim(found: Sweep) -> float:
    """Of the upper bounds; a bound that is not known certifies nothing."""
    runs = [run["result"]["gap"] for run in found.runs if run["parameters"]["method"] == "P-SDCA"]
    return float(np.mean([gaps[0][1] / gaps[-1][1] for gaps in runs]))
