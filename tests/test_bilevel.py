"""The bilevel reduction as a method: against lifting, against a flow on a grid, and near a teacher."""

import numpy as np
import pytest

import mfld
from mfld import schedules

N_FEATURES, N_PARTICLES, STRENGTH, N_STEPS = 10, 40, 1e-3, 300
SPHERE = mfld.TwoLayerNetwork(
    N_FEATURES, activation="relu", readout="fixed", bias=False, domain=(mfld.Sphere(N_FEATURES),)
)
# A step size and a temperature that were the best of a grid for each.
METHODS = {
    "bilevel": (mfld.Bilevel(), mfld.Overdamped(), 0.5, 1e-2),
    "conic": (mfld.Lifting("conic"), mfld.dynamics.Conic(), 0.6, 1e-2),
    "product": (mfld.Lifting(), mfld.Overdamped(), 0.05, 3e-2),
}


def end_of_training(name, noisy, seed):
    """Objective over signed measures, after a start where neurons are silent on nearly all inputs."""
    reduction, dynamics, step_size, temperature = METHODS[name]
    rng = np.random.default_rng(seed)
    axis = np.eye(N_FEATURES)[0]
    inputs = rng.normal(size=(200, N_FEATURES)) + 3 * axis
    teacher = rng.normal(size=(5, N_FEATURES))
    teacher /= np.linalg.norm(teacher, axis=1, keepdims=True)
    targets = np.maximum(inputs @ teacher.T, 0) @ np.array([1, -1, 1, -1, 1.0])
    risk = mfld.SignedRisk(SPHERE, inputs, targets, strength=STRENGTH, reduction=reduction)
    particles = np.array(risk.initial_particles(N_PARTICLES, seed))
    positions = 0.1 * particles[:, :N_FEATURES] - axis
    particles[:, :N_FEATURES] = positions / np.linalg.norm(positions, axis=1, keepdims=True)
    cooling = schedules.SwitchOff(schedules.Geometric(temperature, 0.7, 15), at=240) if noisy else 0.0
    solver = mfld.MFLD(N_PARTICLES, step_size=step_size, temperature=cooling, dynamics=dynamics)
    end = solver.run(risk, N_STEPS, seed=seed, particles=particles, record_every=N_STEPS).particles
    measure = risk.signed_measure(end)
    residual = np.maximum(inputs @ measure.positions.T, 0) @ measure.weights - targets
    return np.mean(residual**2) / 2 + STRENGTH / 2 * np.sum(np.abs(measure.weights)) ** 2


@pytest.mark.parametrize("seed", [0, 1])
def test_the_bilevel_reduction_with_noise_is_lowest_by_a_factor(seed):
    """0.011 and 0.013 against 0.018 and 0.023 of the cone, and 0.05 or more of all others."""
    ends = {(name, noisy): end_of_training(name, noisy, seed) for name in METHODS for noisy in (True, False)}
    best = ends.pop(("bilevel", True))
    assert best < 0.015
    assert best < 0.7 * min(ends.values())
    # The same start without noise stays where it is.
    assert ends["bilevel", False] > 30 * best
