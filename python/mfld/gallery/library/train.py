"""A training by the recipe of `mfld.experiments`: any data set, every choice of the recipe, sweeps over all of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mfld import experiments, plots
from mfld.experiments.encoding import MISSING, TASKS
from mfld.experiments.recipe import CHECKS
from mfld.experiments.spelling import covariance, loss, schedule
from mfld.gallery.experiment import Check, listed, one_of, spelled, text
from mfld.sweeps import Sweep

PANELS = 2
_SPELLED = {"loss": loss, "functional": covariance}
_SPELLED_TOO = ("step_size_schedule", "temperature_schedule", "l2_schedule")


def _table(name: str, value: object) -> str:
    """Name of a bundled data set, or a file that is there, or a URL."""
    table = text(name, value)
    if table not in experiments.bundled() and "://" not in table and not Path(table).is_file():
        raise ValueError(f"{name} must be a file, a URL or one of {', '.join(experiments.bundled())}; got {table!r}")
    return table


_DATA: dict[str, Check] = {
    "table": _table,
    "target": text,
    "task": one_of(*TASKS),
    "missing": one_of(*MISSING),
    "drop": listed(text),
}
_GROUPS = {
    "model": (
        "activation",
        "readout",
        "readout_bound",
        "bias",
        "output_scale",
        "functional",
        "n_modes",
        "depth",
        "n_particles",
    ),
    "objective": ("loss", "l2", "temperature", "reference_scale"),
    "validation": ("test_share", "validation_particles", "validation_samples", "validation_rows"),
}


def _check(name: str) -> Check:
    parse = _SPELLED.get(name, schedule if name in _SPELLED_TOO else None)
    return CHECKS[name] if parse is None else spelled(parse)


def _settings() -> dict[str, dict[str, Check]]:
    grouped = {group: {name: _check(name) for name in names} for group, names in _GROUPS.items()}
    rest = [name for name in CHECKS if not any(name in names for names in _GROUPS.values())]
    return {"data": _DATA, **grouped, "algorithm": {name: _check(name) for name in rest}}


SETTINGS = _settings()
_MOST_CURVES = 20


def run(*, table: str, seed: int, **settings: Any) -> dict[str, Any]:
    """Losses and scores, and the loss on held-out rows against the step."""
    of_data = {name: settings.pop(name) for name in _DATA if name in settings}
    choices = {name: _check(name)(name, value) for name, value in settings.items()}
    training = experiments.train(experiments.load(table, **of_data), seed, experiments.Recipe(**choices))
    history = training.result.history
    scores = {
        f"{part}_{name}": value
        for part, each in training.scores.items()
        for name, value in (("loss", each.loss), ("score", each.score))
    }
    return {
        **scores,
        "measure": training.scores["test"].measure,
        "l2": training.trained.hyperparameters["l2"],
        "step": history["step"],
        "held_out_loss": history["test_loss"],
    }


def _points(found: Sweep) -> list[tuple[str, list[dict[str, Any]]]]:
    """Runs of each point of the sweep, all seeds, with its name."""
    swept = [name for name in found.axes if name != "seed"]
    groups = itertools.groupby(found.runs, key=lambda run: [run["parameters"][name] for name in swept])
    return [
        (", ".join(f"{name} {value}" for name, value in zip(swept, key, strict=True)), [run["result"] for run in runs])
        for key, runs in groups
    ]


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    left, right = panels
    points = _points(found)
    for k, (name, results) in enumerate(points[:_MOST_CURVES]):
        for j, result in enumerate(results):
            last = max(result["step"][-1], 1)
            share = np.array(result["step"]) / last
            left.plot(share, result["held_out_loss"], color=plots.colour(k), label="" if j else name or "held-out rows")
    left.set(xlabel="share of the run", ylabel="loss on held-out rows", yscale="log")
    for k, (_, results) in enumerate(points):
        scores = [result["test_score"] for result in results]
        right.plot(scores, [k] * len(scores), plots.marker(k), color=plots.colour(k), alpha=0.7)
        right.plot(np.mean(scores), k, "|", color=plots.ink(), markersize=16)
    right.set_yticks(range(len(points)), [name or "all seeds" for name, _ in points])
    right.set(xlabel=f"{points[0][1][0]['measure']} on held-out rows", ylim=(-0.5, len(points) - 0.5))
    for axes in panels:
        plots.open_axes(axes)
    if len(points) <= _MOST_CURVES:
        left.legend(frameon=False, fontsize=8)


def claim(found: Sweep) -> float:
    return float(min(np.mean([result["test_score"] for result in results]) for _, results in _points(found)))
