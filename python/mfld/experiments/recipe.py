"""How `mfld train` trains: one rule for every data set.

1. Hold out a share of the rows. Standardise features, and the targets of a regression, by the other rows.
2. Two classes take the logistic loss, more the cross-entropy, numbers the half squared loss.
3. The step size is a share of the largest stable one at the start, from the curvature of the risk.
4. l2 is the one of a small grid with the lowest validation loss; the temperature follows from it, so that the reference
   measure N(0, temperature / (2 l2)) is the same for all.
5. Train on all rows that are not held out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfld import _core, noise
from mfld.algorithms import MFLD, Result
from mfld.callbacks import Callback
from mfld.experiments.datasets import Dataset
from mfld.experiments.trained import TrainedModel
from mfld.gradients import FullBatch, Minibatch
from mfld.losses import Loss
from mfld.models import TwoLayerNetwork
from mfld.objectives import EmpiricalRisk, Objective
from mfld.validation import FloatArray


@dataclass(frozen=True)
class Recipe:
    """Every choice of a training run.

    Attributes
    ----------
    n_particles, n_steps : int
    validation_particles : int
        Particles of the runs that choose l2: what matters for the choice is visible with fewer.
    l2_grid : tuple of float
        Candidates for l2; with a single one nothing is validated.
    reference_scale : float
        Standard deviation s of the reference measure: temperature = 2 * l2 * s**2.
    step_share : float
        Step size as a share of 2 / curvature, the largest one that is stable at the start.
    batch_size : int
        Of the mini-batches, once there are more than two of them; full batch below.
    test_share : float
        Share of the rows that is held out.
    validation_samples : int
        Rows that validation should see in all: small data sets are cut into up to 5 folds, large ones held out once.
    activation, readout, readout_bound, dtype
        As in `TwoLayerNetwork` and `MFLD`. With a bounded readout the proximal Gibbs measure exists for every l2 > 0.
    """

    n_particles: int = 1000
    validation_particles: int = 256
    n_steps: int = 2000
    l2_grid: tuple[float, ...] = (1e-3, 1e-2, 3e-2, 1e-1)
    reference_scale: float = 0.1
    step_share: float = 0.5
    batch_size: int = 128
    test_share: float = 0.2
    validation_samples: int = 300
    activation: str = "silu"
    readout: str = "bounded"
    readout_bound: float = 5.0
    dtype: str = "float32"


@dataclass(frozen=True, eq=False)
class Training:
    """What `train` returns: the model, the run that led to it, and what was chosen on the way.

    Attributes
    ----------
    trained : TrainedModel
    result : Result
    seconds : float
        Of everything: validation and the final run.
    validation : dict of float to float
        Mean validation loss of each candidate for l2; empty where there was one candidate.
    """

    trained: TrainedModel
    result: Result
    seconds: float
    validation: dict[float, float]


def train(
    data: Dataset,
    seed: int = 0,
    recipe: Recipe | None = None,
    callbacks: Sequence[Callback] = (),
    num_threads: int | None = None,
) -> Training:
    """Train a two-layer network on a data set by the rule of this module.

    Parameters
    ----------
    data : Dataset
    seed : int
        Of the split, the initial particles and the noise.
    recipe : Recipe, optional
    callbacks : sequence of Callback
        Of the final run.
    num_threads : int, optional

    Examples
    --------
    >>> from mfld import experiments
    >>> training = experiments.train(experiments.load("iris"), recipe=experiments.Recipe(n_steps=500))
    >>> training.trained.split_scores(experiments.load("iris"))["test"].score > 0.9
    True
    """
    recipe = recipe or Recipe()
    started = time.perf_counter()
    # NumPy's generator and not ours: the split is a matter of the data, and the rows are stored with the model.
    order = np.random.default_rng(seed).permutation(len(data.inputs))
    n_test = max(1, round(recipe.test_share * len(order)))
    test_rows, rows = np.sort(order[:n_test]), order[n_test:]

    validation: dict[float, float] = {}
    l2 = recipe.l2_grid[0]
    if len(recipe.l2_grid) > 1:
        folds = _folds(rows, recipe)
        smaller = replace(recipe, n_particles=recipe.validation_particles)
        for candidate in recipe.l2_grid:
            losses = []
            for held_out in folds:
                fitted = _fit(data, np.setdiff1d(rows, held_out), held_out, candidate, seed, smaller, num_threads)[0]
                losses.append(fitted.scores(data.inputs[held_out], data.targets[held_out]).loss)
            validation[candidate] = float(np.mean(losses))
        l2 = min(validation, key=validation.__getitem__)
    trained, result = _fit(data, np.sort(rows), test_rows, l2, seed, recipe, num_threads, callbacks)
    return Training(trained, result, time.perf_counter() - started, validation)


def curvature(objective: Objective, particles: FloatArray, n_iterations: int = 10) -> float:
    """Largest curvature of the objective at a cloud, in the scaling of its gradient b, by power iteration.

    The Euler step of b is unstable from ``2 / curvature`` on. Directions are differences of gradients in float64, so
    the objective needs no second derivative.

    Parameters
    ----------
    objective : Objective
    particles : ndarray, shape (N, p)
    n_iterations : int
        Two gradients to start and one for each; the estimate comes from below.
    """
    particles = particles.astype(np.float64)
    moving = objective.n_moving
    direction = np.zeros_like(particles)
    # At a step past the noise of any run, so that the direction is independent of the particles.
    place = (2**48 - 1, len(particles), moving)
    direction[:, :moving] = noise.normals(0, *place, dtype="float64")
    start = objective.gradient(particles)
    estimate = 0.0
    for _ in range(n_iterations):
        direction *= 1e-3 / np.sqrt(np.mean(direction**2))
        change = objective.gradient(particles + direction) - start
        estimate = float(np.linalg.norm(change) / np.linalg.norm(direction))
        direction = change
    return estimate


def _folds(rows: NDArray[np.int64], recipe: Recipe) -> list[NDArray[np.int64]]:
    """Rows to validate on: 5 folds of a small set, fewer of a larger one, a fifth of the rows each."""
    n_folds = int(np.clip(math.ceil(5 * recipe.validation_samples / len(rows)), 1, 5))
    return [np.sort(fold) for fold in np.array_split(rows, 5)[:n_folds]]


def _fit(
    data: Dataset,
    rows: NDArray[np.int64],
    held_out: NDArray[np.int64],
    l2: float,
    seed: int,
    recipe: Recipe,
    num_threads: int | None,
    callbacks: Sequence[Callback] | None = None,
) -> tuple[TrainedModel, Result]:
    """Train on some rows; with callbacks (the final run) the history has the losses on both parts."""
    inputs, targets = data.inputs[rows], data.targets[rows]
    scale = inputs.std(axis=0)
    n_classes = 0 if data.classes is None else len(data.classes)
    loss = Loss({0: "half_squared", 2: "logistic"}.get(n_classes, "cross_entropy"))
    n_outputs = n_classes if loss.targets == "class" else 1
    model = TwoLayerNetwork(
        inputs.shape[1],
        n_outputs,
        activation=recipe.activation,
        readout=recipe.readout,
        readout_bound=recipe.readout_bound,
    )
    target_mean, target_scale = 0.0, 1.0
    if data.classes is None:
        target_mean, target_scale = float(targets.mean()), float(targets.std()) or 1.0
    trained = TrainedModel(
        model=model,
        particles=model.initial_particles(recipe.n_particles, seed, recipe.dtype),
        loss=loss,
        input_mean=inputs.mean(axis=0),
        input_scale=np.where(scale > 0, scale, 1.0),
        target_mean=target_mean,
        target_scale=target_scale,
        classes=data.classes,
        test_rows=held_out,
        hyperparameters={},
    )
    standardised, encoded = trained.standardised(inputs), trained.encoded(targets)
    risk = EmpiricalRisk(model, standardised, encoded, loss=loss, l2=l2)
    few = slice(0, 1024)  # the curvature does not need more rows
    sample = EmpiricalRisk(model, standardised[few], encoded[few], loss=loss, l2=l2)
    largest = curvature(sample, trained.particles[:256])
    solver = MFLD(
        recipe.n_particles,
        step_size=recipe.step_share * 2 / largest,
        temperature=2 * l2 * recipe.reference_scale**2,
        gradient=Minibatch(recipe.batch_size) if len(rows) > 2 * recipe.batch_size else FullBatch(),
        dtype=recipe.dtype,
        num_threads=num_threads,
    )
    if callbacks is None:
        result = solver.run(risk, recipe.n_steps, seed, record_every=recipe.n_steps)
    else:
        others = EmpiricalRisk(
            model,
            trained.standardised(data.inputs[held_out]),
            trained.encoded(data.targets[held_out]),
            loss=loss,
        )
        record = {
            "train_loss": lambda state: risk.loss(state.measure),
            "test_loss": lambda state: others.loss(state.measure),
        }
        result = solver.run(risk, recipe.n_steps, seed, record=record, callbacks=callbacks)
    hyperparameters: dict[str, Any] = {
        "data": data.name,
        "seed": seed,
        "l2": l2,
        "temperature": solver.temperature,
        "step_size": solver.step_size,
        "gradient": repr(solver.gradient),
        "kernels": f"{_core.backend.isa}, {_core.backend.compiler}",
        **asdict(recipe),
    }
    return replace(trained, particles=result.particles, hyperparameters=hyperparameters), result
