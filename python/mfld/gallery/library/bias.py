"""A quadratic mean-field problem, whose second moment is known, at several step sizes with the bias report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import plots
from mfld.algorithms import MFLD
from mfld.bias import bias_report
from mfld.gallery.experiment import Check, positive
from mfld.models import TwoLayerNetwork
from mfld.objectives import EmpiricalRisk
from mfld.sweeps import Sweep
from mfld.validation import boolean, integer

PANELS = 1
SETTINGS: dict[str, dict[str, Check]] = {
    "problem": {"temperature": positive, "n_particles": lambda name, value: integer(name, value, 4)},
    "algorithm": {
        "step_size": positive,
        "n_steps": lambda name, value: integer(name, value, 2),
        "n_replicates": lambda name, value: integer(name, value, 4),
        "refine": boolean,
    },
}


def run(
    *, temperature: float, n_particles: int, step_size: float, n_steps: int, n_replicates: int, refine: bool, seed: int
) -> dict[str, Any]:
    """Second moment of ``F(mu) = (E theta - 1)**2 / 2 + E theta**2 / 2``: temperature + 1/4 at the minimiser.

    It is a Gaussian of mean 1/2. A step too long widens it, and few particles have a mean that fluctuates.
    """
    model = TwoLayerNetwork(1, activation="identity", readout="fixed", bias=False)
    risk = EmpiricalRisk(model, np.ones((1, 1)), np.ones(1), loss="half_squared", l2=0.5)
    solver = MFLD(n_particles, step_size=step_size, temperature=temperature, dtype="float64")

    def moment(state: Any) -> float:
        return float(np.mean(state.particles[:, 0] ** 2))

    found = bias_report(solver, risk, moment, n_steps, seed, n_replicates=n_replicates)
    best = found.extrapolated if refine else found.value
    return {
        "exact": temperature + 0.25,
        "value": found.value.value,
        "value_error": found.value.standard_error,
        "extrapolated": best.value,
        "extrapolated_error": best.standard_error,
    }


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    (axes,) = panels
    h = np.array(found.axes["step_size"])
    for k, (name, label) in enumerate((("value", "runs"), ("extrapolated", "extrapolated"))):
        values, errors = found.column(name)[:, 0], 2 * found.column(f"{name}_error")[:, 0]
        axes.errorbar(h, values, errors, fmt=plots.marker(k), color=plots.colour(k), capsize=3, label=label)
    axes.axhline(found.column("exact")[0, 0], color=plots.ink(), linestyle="--", label="exact")
    axes.set(xlabel="step size", ylabel="second moment, with two standard errors", xlim=(0, None))
    plots.open_axes(axes).legend(frameon=False)


def claim(found: Sweep) -> float:
    exact = found.column("exact")
    errors = [np.abs(found.column(name) - exact).max() for name in ("extrapolated", "value")]
    return float(errors[0] / errors[1])
