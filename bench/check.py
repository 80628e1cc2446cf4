"""Are the answers right? Asked of every implementation before it is timed.

One step without noise is compared with `mfld.plain`, float64 NumPy, on some particles; then one step with noise
must differ from it by standard normals times sqrt(2 temperature step_size), or by what BAOAB makes of them. Of P-SDCA,
the dual variables and log-weights after an epoch are compared with plain float64 NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from cases import DUAL_TEMPERATURE, FRICTION, Problem, Schedule
from numpy.typing import NDArray

from mfld import plain

SEED = 0
ANCHORED_STEP = 1
"""The step at which SVRG and SARAH, here the same, are checked: mfld refreshes their anchor at step 0."""
CHECKED_PARTICLES = 64
# Steps as long as the gradient: small ones would drown in the rounding of the particles.
QUIET = Schedule(step_size=1.0, temperature=0.0)
NOISY = Schedule(step_size=1.0, temperature=0.5)  # noise of unit variance
# Root mean square of the error over that of the displacement. A gradient is about 0.01 to 1 and is added to particles
# of about 1, so float32 leaves 1e-5 of it and the rounding of a sum of n terms, sqrt(n) 6e-8. A mistake in one
# coordinate, or in one of the particles, would show as 0.03 or more.
TOLERANCE = {"float32": 1e-4, "float64": 1e-12}


class WrongAnswer(Exception):
    """An implementation computes something else."""


@dataclass(frozen=True)
class ExpectedEpoch:
    """Of P-SDCA."""

    dual: NDArray[np.float64]
    log_weights: NDArray[np.float64]


@dataclass(frozen=True)
class Expected:
    """Where some particles are after one step without noise, and what that step needs to know."""

    chosen: NDArray[np.int64]
    particles: NDArray[np.float64]
    rows: NDArray[np.int64] | None  # (1, batch_size)


def expect(problem: Problem) -> Expected | ExpectedEpoch | None:
    """None for a case that only draws normals."""
    case = problem.case
    if case.group == "normals":
        return None
    if case.group == "P-SDCA":
        return _expect_epoch(problem)
    if case.group == "MMD":
        return _expect_descent(problem)
    rows = None
    if case.batch_size:
        step = ANCHORED_STEP if problem.anchor is not None else 0
        rows = plain.minibatch(plain.noise_key(SEED), step, case.n_samples, case.batch_size)
    network = plain.Network(case.n_features, n_outputs=case.n_outputs, activation=case.activation)

    # First, last and random ones: the edges are where blocks are not full.
    inner = np.random.default_rng(0).choice(case.n_particles, min(CHECKED_PARTICLES, case.n_particles), replace=False)
    chosen = np.unique(np.concatenate([[0, case.n_particles - 1], inner]))
    rows_at_once = max(1, 2**22 // case.n_particles)

    def data_gradient(particles: NDArray[Any], rows: NDArray[np.int64] | None) -> NDArray[np.float64]:
        particles = particles.astype(np.float64)
        inputs = (problem.inputs if rows is None else problem.inputs[rows]).astype(np.float64)
        targets = (problem.targets if rows is None else problem.targets[rows]).astype(np.float64).reshape(-1, 1)
        gradient = np.zeros((len(chosen), particles.shape[1]))
        for first in range(0, len(inputs), rows_at_once):
            x, y = inputs[first : first + rows_at_once], targets[first : first + rows_at_once]
            slopes = plain.LOSSES[case.loss].derivative(network.predict(particles, x), y, 0.0) / len(inputs)
            gradient += network.pull_back(particles[chosen], x, slopes)[1]
        return gradient

    gradient = data_gradient(problem.particles, rows)
    if problem.anchor is not None:
        gradient += data_gradient(problem.anchor, None) - data_gradient(problem.anchor, rows)
    some = problem.particles[chosen].astype(np.float64)
    gradient += 2 * problem.l2 * some
    factor, _ = _reach(problem.case.dynamics)
    return Expected(chosen, some - factor * gradient, None if rows is None else rows[np.newaxis])


def _expect_descent(problem: Problem) -> Expected:
    x, z = problem.particles.astype(np.float64), problem.inputs.astype(np.float64)
    gradient = np.zeros_like(x)
    for others, sign in ((x, -2), (z, 2)):
        for y in others:
            difference = (x - y) / problem.case.n_features
            pairs = np.exp(-np.sum((x - y) * difference, axis=1) / 2)
            gradient += sign / len(others) * pairs[:, np.newaxis] * difference
    return Expected(np.arange(len(x)), x - QUIET.step_size * gradient, None)


def _reach(dynamics: str) -> tuple[float, float]:
    """How far steps as long as QUIET and NOISY go: times the gradient, and times standard normals."""
    if dynamics == "overdamped":
        return QUIET.step_size, np.sqrt(2 * NOISY.temperature * NOISY.step_size)
    persistence = np.exp(-FRICTION * QUIET.step_size)  # BAOAB, from rest
    noise = np.sqrt(NOISY.temperature * (1 - persistence**2))
    return QUIET.step_size**2 / 4 * (1 + persistence), NOISY.step_size / 2 * noise


def _expect_epoch(problem: Problem) -> ExpectedEpoch:
    case = problem.case
    network = plain.Network(case.n_features, activation=case.activation, readout="bounded")
    particles = problem.particles.astype(np.float64)
    log_weights, dual = np.zeros(case.n_particles), np.zeros(case.n_samples)
    a = case.n_samples * DUAL_TEMPERATURE
    for i in range(case.n_samples):
        h = network.neurons(particles, problem.inputs[i : i + 1].astype(np.float64))[0, :, 0]
        weights = np.exp(log_weights)
        u = weights @ h / weights.sum()
        dual[i] = a * (u - float(problem.targets[i])) / (1 + a)
        log_weights -= h * dual[i] / a
    return ExpectedEpoch(dual, log_weights)


def _check_epoch(implementation: Any, problem: Problem, expected: ExpectedEpoch) -> float:
    implementation.reset()
    implementation.run(1)
    errors = []
    for got, wanted in (
        (implementation.dual(), expected.dual),
        (implementation.log_weights(), expected.log_weights),
    ):
        errors.append(float(np.sqrt(np.mean((np.asarray(got, np.float64) - wanted) ** 2) / np.mean(wanted**2))))
    implementation.reset()
    if not max(errors) <= TOLERANCE[problem.case.dtype]:
        raise WrongAnswer(f"{problem.case.name}: an epoch is off by {max(errors):.1e}")
    return max(errors)


def check(implementation: Any, problem: Problem, expected: Expected | ExpectedEpoch | None) -> float | None:
    """Relative error of the step without noise, or of the epoch; raises `WrongAnswer`."""
    case = problem.case
    if isinstance(expected, ExpectedEpoch):
        return _check_epoch(implementation, problem, expected)
    if expected is None:
        implementation.run(1)
        check_normals(implementation.values(), case.name)
        return None
    start = problem.particles[expected.chosen].astype(np.float64)
    implementation.reset()
    implementation.run(1, QUIET, expected.rows)
    quiet = np.array(implementation.particles(), np.float64)
    implementation.reset()
    moved = expected.particles - start
    error = float(np.sqrt(np.mean((quiet[expected.chosen] - expected.particles) ** 2) / np.mean(moved**2)))
    if not error <= TOLERANCE[case.dtype]:
        raise WrongAnswer(f"{case.name}: one step is off by {error:.1e} of its displacement")
    if case.group == "MMD":  # without noise
        return error
    implementation.run(1, NOISY, expected.rows)
    noisy = np.array(implementation.particles(), np.float64)
    implementation.reset()
    check_normals((noisy - quiet) / _reach(case.dynamics)[1], case.name)
    return error


def check_normals(xi: NDArray[Any], name: str) -> None:
    """Mean 0, variance 1, fourth moment 3, within 5 standard errors; neighbours not correlated."""
    xi = np.asarray(xi, np.float64)
    n = xi.size
    flat = xi.ravel()
    for what, value, wanted, variance in (
        ("mean", flat.mean(), 0, 1),
        ("variance", (flat**2).mean(), 1, 2),
        ("fourth moment", (flat**4).mean(), 3, 96),
        ("correlation of neighbours", (flat[1:] * flat[:-1]).mean() if n > 1 else 0.0, 0, 1),
    ):
        if n >= 1000 and not abs(value - wanted) <= 5 * np.sqrt(variance / n):
            raise WrongAnswer(f"{name}: the noise has {what} {value:.4f}, expected {wanted} of {n} normals")
