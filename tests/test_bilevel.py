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


# ---- cooling that follows the loss -----------------------------------------------------------------------------------

LINE = np.linspace(-2, 2, 30)[:, np.newaxis]
WAVE = mfld.SignedRisk(mfld.TwoLayerNetwork(1, readout="fixed"), LINE, np.sin(3 * LINE[:, 0]), strength=1e-3, l2=1e-5)


def test_the_temperature_is_in_proportion_to_the_loss():
    solver = mfld.MFLD(20, step_size=1.0, temperature=1e-3, dtype="float64")
    run = mfld.Cooling(solver, every=4)
    state = first = run.init(WAVE, seed=1)
    for steps in (4, 4, 3):
        expected = 1e-3 * WAVE.loss(state.particles) / WAVE.loss(first.particles)
        by_hand = mfld.MFLD(20, step_size=1.0, temperature=expected, dtype="float64").run(
            WAVE, steps, state=mfld.State(state.clouds, state.step, state.seed)
        )
        state, info = run.advance(WAVE, state, steps)
        assert info.temperature == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(state.particles, by_hand.particles, rtol=1e-12)
    assert expected < 0.9e-3


@pytest.mark.parametrize("replicates", [1, 2])
def test_a_cooling_run_goes_on_from_anywhere(replicates):
    temperature = 1e-3 if replicates == 1 else (1e-3, 1e-4)
    run = mfld.Cooling(mfld.MFLD(20, step_size=1.0, temperature=temperature, n_replicates=replicates), every=4)
    whole = run.run(WAVE, 11, seed=1)
    state = run.run(WAVE, 6, seed=1).state
    for steps in (0, 1, 4):
        state, _ = run.advance(WAVE, state, steps)
    np.testing.assert_array_equal(state.clouds["mu"].particles, whole.state.clouds["mu"].particles)


def test_what_cannot_cool_is_refused():
    with pytest.raises(ValueError, match="solver must have a number as temperature"):
        mfld.Cooling(mfld.MFLD(5, step_size=1.0, temperature=schedules.Power(1.0, 1.0)))
    run = mfld.Cooling(mfld.MFLD(5, step_size=0.1, temperature=1.0))
    below = mfld.Potential(lambda x: x, lambda x: np.sum(x**2, axis=1) / 2 - 100, n_coordinates=1)
    with pytest.raises(ValueError, match="objective must have a positive loss at the start"):
        run.run(below, 3)
    with pytest.raises(ValueError, match="state must come from a Cooling"):
        run.run(WAVE, 3, state=run.solver.init(WAVE))
