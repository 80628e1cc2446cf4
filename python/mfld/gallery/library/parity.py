"""The sparse parity of two coordinates, by annealed mean-field Langevin dynamics and by kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfld import noise
from mfld.algorithms import MFLD
from mfld.gallery.experiment import Check, count, one_of, positive
from mfld.models import TwoLayerNetwork
from mfld.objectives import EmpiricalRisk
from mfld.schedules import Constant, Geometric
from mfld.sweeps import Sweep
from mfld.validation import integer

METHODS = ("annealing", "constant", "kernel ridge", "tangent kernel")
PANELS = 4
SETTINGS: dict[str, dict[str, Check]] = {
    "data": {"d": lambda name, value: integer(name, value, 2), "n_samples": count, "n_test": count},
    "model": {"n_particles": count, "bound": positive},
    "algorithm": {
        "method": one_of(*METHODS),
        "step_size": positive,
        "l2": positive,
        "hottest": positive,
        "halvings": lambda name, value: integer(name, value, 0),
        "stage_length": count,
    },
}
_RIDGES = np.geomspace(1e-6, 10, 15)
_WIDTHS = (0.5, 1.0, 2.0)  # of the Gaussian kernel, in units of |z| = 1


def run(
    *,
    d: int,
    n_samples: int,
    n_test: int,
    method: str,
    n_particles: int,
    bound: float,
    step_size: float,
    l2: float,
    hottest: float,
    halvings: int,
    stage_length: int,
    seed: int,
) -> dict[str, float]:
    """Accuracy on new rows."""
    drawn = noise.normals(seed, 0, n_samples + n_test, d, dtype="float64", stream="data")
    inputs = np.sign(drawn) / math.sqrt(d)
    targets = np.sign(inputs[:, 0] * inputs[:, 1])
    seen, new = slice(n_samples), slice(n_samples, None)
    if method not in ("annealing", "constant"):
        return {"accuracy": _best_ridge(_grams(method, inputs, inputs[seen]), targets, n_samples)}
    # Both end at the same temperature. The reference measure stays fixed: l2 falls with the temperature.
    scale = Geometric(1.0, 0.5, stage_length) if method == "annealing" else Constant(0.5**halvings)
    model = TwoLayerNetwork(d, activation="tanh", readout="parity", readout_bound=bound)
    risk = EmpiricalRisk(model, inputs[seen], targets[seen], loss="logistic", l2=l2)
    solver = MFLD(n_particles, step_size=step_size, temperature=hottest * scale, l2=l2 * scale)
    result = solver.run(risk, (halvings + 1) * stage_length, seed)
    return {"accuracy": float(np.mean(np.sign(result.predict(inputs[new])) == targets[new]))}


def _grams(method: str, left: NDArray[Any], right: NDArray[Any]) -> list[NDArray[Any]]:
    inner = np.clip(left @ right.T, -1, 1)
    if method == "kernel ridge":
        return [np.exp((inner - 1) / width**2) for width in _WIDTHS]
    # Both layers of a wide ReLU network; Cho, Saul 2009; Jacot, Gabriel, Hongler 2018.
    angle = np.arccos(inner)
    first, second = (math.pi - angle) / math.pi, (np.sin(angle) + (math.pi - angle) * inner) / math.pi
    return [inner * first + second]


def _best_ridge(grams: list[NDArray[Any]], targets: NDArray[Any], n: int) -> float:
    """Accuracy on the rows behind the first n with the ridge and width that suit them best: more than a user gets."""
    best = 0.0
    for gram in grams:
        values, vectors = np.linalg.eigh(gram[:n])
        rotated = vectors.T @ targets[:n]
        for ridge in _RIDGES:
            predicted = gram[n:] @ (vectors @ (rotated / (values + n * ridge)))
            best = max(best, float(np.mean(np.sign(predicted) == targets[n:])))
    return best


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    accuracy = found.column("accuracy").mean(axis=-1)  # (d, n, method)
    ds, ns = found.axes["d"], found.axes["n_samples"]
    for k, axes in enumerate(panels):
        shown = axes.imshow(accuracy[:, :, k], vmin=0.5, vmax=1, origin="lower", aspect="auto", cmap="cividis")
        axes.set(xlabel="samples n", ylabel="dimension d", title=found.axes["method"][k])
        axes.set_xticks(range(len(ns)), ns)
        axes.set_yticks(range(len(ds)), ds)
        for i, j in np.ndindex(len(ds), len(ns)):
            value = accuracy[i, j, k]
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.75 else "white")
    panels[-1].figure.colorbar(shown, ax=panels, label="accuracy on new rows")


def claim(found: Sweep) -> float:
    last = found.column("accuracy").mean(axis=-1)[-1, -1]
    of = dict(zip(found.axes["method"], last, strict=True))
    return float(of["annealing"] - max(of["kernel ridge"], of["tangent kernel"]))
