"""Rows that are matched to a private release, by the error of their class means."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import plots, privacy
from mfld.algorithms import MFLD
from mfld.gallery.experiment import Check, count, non_negative, positive
from mfld.objectives import FeatureMatching
from mfld.sweeps import Sweep
from mfld.validation import integer

PANELS = 1
SETTINGS: dict[str, dict[str, Check]] = {
    "data": {"n_rows": count},
    "release": {"epsilon": positive, "delta": positive},
    "algorithm": {
        "n_particles": count,
        "step_size": positive,
        "n_steps": lambda name, value: integer(name, value, 0),
        "temperature": non_negative,
    },
}


def run(
    *,
    n_rows: int,
    epsilon: float,
    delta: float,
    n_particles: int,
    step_size: float,
    n_steps: int,
    temperature: float,
    seed: int,
) -> dict[str, Any]:
    """Largest error of a class mean, and what the release has cost.

    The table is made up, and its noise that of a seed so that the experiment can be made again: nothing is private.
    """
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, size=n_rows)
    numbers = np.clip(rng.normal(0.3 + 0.4 * label, 0.1), 0, 1)[:, np.newaxis]
    features = privacy.table_features(1, [2], label=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", privacy.PrivacyWarning)
        released = privacy.PrivateEmbedding(
            numbers, label[:, np.newaxis], features, epsilon=epsilon, delta=delta, seed=seed
        )
    fit = FeatureMatching(features, released.mean, label_shares=released.label_shares())
    solver = MFLD(n_particles, step_size=step_size, temperature=temperature)
    particles = solver.run(fit, n_steps, seed).particles
    means = [np.mean(particles[particles[:, -1] == k, 0]) for k in (0, 1)]
    true = [numbers[label == k, 0].mean() for k in (0, 1)]
    return {"error": float(np.max(np.abs(np.array(means) - true))), "spent": released.ledger.epsilon(delta)}


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    (axes,) = panels
    budgets, errors = found.axes["epsilon"], found.column("error")
    axes.plot(budgets, errors, plots.marker(0), color=plots.colour(0), alpha=0.5)
    axes.plot(budgets, errors.mean(axis=1), color=plots.colour(0))
    axes.set(xlabel="epsilon", ylabel="largest error of a class mean", xscale="log", ylim=(0, None))
    plots.ticks_at(axes.xaxis, budgets)
    plots.open_axes(axes)


def claim(found: Sweep) -> float:
    return float(found.column("error").mean(axis=1)[-1])
