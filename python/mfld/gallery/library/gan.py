"""A generator of two clusters on a line, trained against a critic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import noise, plots, quantities
from mfld.algorithms import DescentAscent
from mfld.gallery.experiment import Check, count, non_negative, positive, spaced
from mfld.gradients import Minibatch
from mfld.models import TwoLayerNetwork
from mfld.objectives import MeanFieldGAN
from mfld.sweeps import Sweep

PANELS = 2
SETTINGS: dict[str, dict[str, Check]] = {
    "data": {"spread": positive},
    "model": {"n_particles": count},
    "algorithm": {
        "generator_step": positive,
        "critic_step": positive,
        "temperature": non_negative,
        "batch_size": count,
        "n_steps": count,
    },
}
_RECORDS = 20
_BINS = np.linspace(-3.5, 3.5, 57)
_FRESH = 10**6  # a step that no run reaches


def run(
    *,
    spread: float,
    n_particles: int,
    generator_step: float,
    critic_step: float,
    temperature: float,
    batch_size: int,
    n_steps: int,
    seed: int,
) -> dict[str, Any]:
    """Wasserstein distance over the run, and histograms of data and of generated points at its end."""

    def sample(step: int, n_rows: int) -> Any:
        drawn = noise.normals(seed, step, n_rows, 2, dtype="float64", stream="data")
        return 1.5 * np.sign(drawn[:, 1:]) + spread * drawn[:, :1]

    generator = TwoLayerNetwork(1, activation="relu")
    critic = TwoLayerNetwork(1, activation="tanh")
    game = MeanFieldGAN(generator, critic, sample, l2={"generator": 1e-4, "critic": 0.02})
    steps = {"generator": generator_step, "critic": critic_step}
    solver = DescentAscent(n_particles, step_size=steps, temperature=temperature, gradient=Minibatch(batch_size))
    rows = sample(_FRESH, 2000)
    record = {"distance": quantities.distance_to_data(game, rows)}
    places = spaced(n_steps, _RECORDS)
    result = solver.run(game, n_steps, seed, record=record, record_every=places)
    points = game.generate(result.state.clouds["generator"], 2000)[0]
    return {
        "step": result.history["step"],
        "distance": np.reshape(result.history["distance"], len(places)),
        "data": _heights(rows),
        "generated": _heights(points),
    }


def _heights(points: Any) -> Any:
    """Density in each bin; what is beyond them all counts as well."""
    return np.histogram(points, _BINS)[0] / (len(points) * (_BINS[1] - _BINS[0]))


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    left, right = panels
    for step, distance in zip(found.column("step"), found.column("distance"), strict=True):
        left.plot(step, distance, color=plots.colour(0))
    left.set(xlabel="step", ylabel="Wasserstein distance from the data", yscale="log")
    right.stairs(found.column("data")[0], _BINS, fill=True, color=plots.colour(4), alpha=0.4, label="data")
    right.stairs(found.column("generated")[0], _BINS, color=plots.colour(0), linewidth=1.5, label="generated")
    right.set(xlabel="x", ylabel="density")
    right.legend(frameon=False)
    for axes in panels:
        plots.open_axes(axes)


def claim(found: Sweep) -> float:
    distance = found.column("distance")
    return float(np.mean(distance[:, -1] / distance[:, 0]))
