"""One neuron on functions, by a mean-field network and by kernel ridge regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import plots
from mfld.algorithms import MFLD
from mfld.dynamics import Overdamped
from mfld.experiments import one_neuron
from mfld.functional_data import FunctionalNetwork, PowerLaw
from mfld.gallery.experiment import Check, count, one_of, positive
from mfld.models import activations
from mfld.objectives import EmpiricalRisk
from mfld.sweeps import Sweep

PANELS = 1
SETTINGS: dict[str, dict[str, Check]] = {
    "data": {"n_curves": count},
    "model": {"activation": one_of(*activations()), "n_modes": count, "n_particles": count},
    "algorithm": {"strength": positive, "n_steps": count},
}
_NEW = 1000
_RIDGES = np.geomspace(1e-6, 10, 15)


def run(
    *, n_curves: int, activation: str, n_modes: int, n_particles: int, strength: float, n_steps: int, seed: int
) -> dict[str, float]:
    """Root mean square errors on new curves, without their noise; ``strength`` is that of the relative entropy."""
    seen, new = one_neuron.draw(n_curves, seed), one_neuron.draw(_NEW, seed)
    grid = one_neuron.grid(seen.curves.shape[1])
    model = FunctionalNetwork(grid, PowerLaw(2.0), n_modes, activation=activation)
    risk = EmpiricalRisk(model, model.inputs(seen.curves), seen.targets, loss="half_squared", l2=strength / 2)
    solver = MFLD(n_particles, temperature=strength, dynamics=Overdamped(ridge="crank_nicolson"))
    predicted = solver.run(risk, n_steps, seed, record_every=n_steps).predict(model.inputs(new.curves))
    return {"network": _error(predicted - new.truth), "kernel ridge": _ridge(seen, new, grid.weights)}


def _ridge(seen: Any, new: Any, weights: Any) -> float:
    centre, offset = seen.curves.mean(axis=0), seen.targets.mean()
    x, z = seen.curves - centre, new.curves - centre
    gram = (x * weights) @ x.T
    solved = [np.linalg.solve(gram + len(x) * ridge * np.eye(len(x)), seen.targets - offset) for ridge in _RIDGES]
    return min(_error(offset + (z * weights) @ x.T @ each - new.truth) for each in solved)


def _error(difference: Any) -> float:
    return float(np.sqrt(np.mean(difference**2)))


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    (axes,) = panels
    ns = found.axes["n_curves"]
    for k, name in enumerate(("network", "kernel ridge")):
        errors = found.column(name)
        axes.loglog(ns, errors.mean(axis=1), plots.marker(k) + "-", color=plots.colour(k), label=name)
        axes.loglog(ns, errors, plots.marker(k), color=plots.colour(k), alpha=0.3, markersize=3)
    axes.set(xlabel="curves to learn from", ylabel="root mean square error on new curves")
    plots.ticks_at(axes.xaxis, ns)
    plots.open_axes(axes).legend(frameon=False)


def claim(found: Sweep) -> float:
    return float(found.column("network")[-1].mean() / found.column("kernel ridge")[-1].mean())
