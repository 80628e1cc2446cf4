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
    solver = mfld.MFLD(N_PARTICLES, step_size=step_size, temperature=cooling, dynamics=dynamics, num_threads=1)
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


# ---- the noiseless flow, on a circle ---------------------------------------------------------------------------------

CIRCLE = 2 * np.pi
N_CELLS = 200
CELLS = (np.arange(N_CELLS) + 0.5) * CIRCLE / N_CELLS


def density(x):
    wanted = 1 / (1 + 10 * np.sin(x / 2) ** 2) + 0.5 / (1 + 10 * np.sin((x - 0.4 * np.pi) / 2) ** 2)
    return wanted / np.mean(wanted) / CIRCLE


def ultra_fast_diffusion(times):
    """``d_t f = -div(f grad (f*/f)**2) / 2`` from the uniform law, by finite volumes."""
    width, f, now, found = CIRCLE / N_CELLS, np.full(N_CELLS, 1 / CIRCLE), 0.0, []
    for time in times:
        while now < time:
            step = min(0.2 * width**2 * np.min(f / density(CELLS)) ** 2, time - now)
            square = (density(CELLS) / f) ** 2
            flux = (f + np.roll(f, -1)) / 2 * (np.roll(square, -1) - square) / (2 * width)
            f = f - step / width * (flux - np.roll(flux, 1))
            now += step
        found.append(f)
    return found


def test_the_noiseless_flow_is_an_ultra_fast_diffusion():
    """As strength goes to 0 the best weights are the ratio of the teacher's density and that of the particles."""

    def neurons(x):  # 1 + sum of 2 cos(k x) / k**2: it tells all measures apart
        x = np.mod(x, CIRCLE)
        return 1 + x**2 / 2 - np.pi * x + np.pi**2 / 3

    def slopes(x):
        return np.mod(x, CIRCLE) - np.pi

    model = mfld.NeuronModel(
        lambda w, z: neurons(z - w.T),
        lambda w, z: -slopes(z - w.T)[:, :, np.newaxis],
        n_features=1,
        space=mfld.Space(domain=[mfld.Torus(1, period=CIRCLE)]),
    )
    inputs = ((np.arange(256) + 0.37) * CIRCLE / 256)[:, np.newaxis]
    fine = (np.arange(4000) + 0.5) * CIRCLE / 4000
    targets = neurons(inputs - fine) @ density(fine) * CIRCLE / 4000
    strength, rate = 1e-5, 2e-3
    risk = mfld.SignedRisk(model, inputs, targets, strength=strength)
    solver = mfld.MFLD(256, step_size=rate / strength, temperature=0.0, dtype="float64", num_threads=1)
    waves = np.arange(1, 5)[:, np.newaxis]
    times, after = [0.05, 0.2, 0.6], {}
    state = solver.init(risk, particles=(np.arange(256)[:, np.newaxis] + 0.5) * CIRCLE / 256)
    for time, f in zip(times, ultra_fast_diffusion(times), strict=True):
        state, _ = solver.advance(risk, state, round(time / rate) - state.step)
        found = np.exp(1j * waves * state.particles[:, 0]).mean(axis=1)
        after[time] = np.mean(np.exp(1j * waves * CELLS) * f * CIRCLE, axis=1)
        np.testing.assert_allclose(found, after[time], atol=2e-3)
    # It has moved, by far more than the tolerance, and is not yet where it goes.
    teacher = np.mean(np.exp(1j * waves * CELLS) * density(CELLS) * CIRCLE, axis=1)
    assert np.abs(after[0.6]).max() > 0.15
    assert np.abs(after[0.6] - teacher).max() > 0.2


# ---- near a single neuron --------------------------------------------------------------------------------------------


def rate_near_the_teacher(dimension, inverse_temperature):
    """Rate at which the mean squared angle to a teacher of one neuron falls, in units of the strength."""
    strength, step, n_steps = 0.1, 0.05, 30
    rng = np.random.default_rng(dimension)
    inputs = rng.normal(size=(200 * dimension, dimension))
    model = mfld.TwoLayerNetwork(
        dimension, activation="relu", readout="fixed", bias=False, domain=(mfld.Sphere(dimension),)
    )
    risk = mfld.SignedRisk(model, inputs, np.maximum(inputs[:, 0], 0), strength=strength)
    across = rng.normal(size=(50, dimension)) * (np.arange(dimension) > 0)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    start = np.cos(0.5) * np.eye(dimension)[0] + np.sin(0.5) * across
    settings = {"dtype": "float64", "num_threads": 1}
    solver = mfld.MFLD(50, step_size=step / strength, temperature=1 / inverse_temperature, **settings)
    angle = {"square": lambda state: np.mean(np.arccos(np.clip(state.particles[:, 0], -1, 1)) ** 2)}
    run = solver.run(risk, n_steps, particles=start, record_every=1, record=angle)
    return -np.polyfit(step * run.history["step"], np.log(run.history["square"]), 1)[0]


def test_near_the_teacher_rates_depend_on_neither_temperature_nor_dimension():
    dimensions = [5, 10, 20, 40]
    rates = np.array([[rate_near_the_teacher(d, 1e4 * d * factor) for factor in (1, 4)] for d in dimensions])
    np.testing.assert_allclose(rates[:, 0], rates[:, 1], rtol=0.2)
    exponent = np.polyfit(np.log(dimensions), np.log(rates.mean(axis=1)), 1)[0]
    assert abs(exponent) < 0.5


# ---- kernels that neurons learn --------------------------------------------------------------------------------------


def test_alignment_rises_and_label_noise_lowers_degrees_of_freedom_and_test_loss():
    """The example of Takakura and Suzuki, x1 x2 in 15 dimensions, with a tenth of its neurons and longer steps."""
    n, d, n_particles, strength, l2 = 300, 15, 200, 1e-3, 5e-4
    rng = np.random.default_rng(0)
    inputs, others = rng.normal(size=(n, d)), rng.normal(size=(2000, d))
    targets = inputs[:, 0] * inputs[:, 1]
    risk = mfld.SignedRisk(mfld.TwoLayerNetwork(d, readout="fixed"), inputs, targets, strength=strength, l2=l2)
    start = 0.1 * rng.normal(size=(n_particles, d + 1))

    def seen(particles):
        neurons = np.tanh(inputs @ particles[:, :d].T + particles[:, d])
        kernel = neurons @ neurons.T / n_particles
        alignment = targets @ kernel @ targets / (targets @ targets * np.linalg.norm(kernel))
        freedom = np.trace(np.linalg.solve(kernel + n * strength * np.eye(n), kernel))
        return alignment, freedom, np.mean((risk.predict(particles, others) - others[:, 0] * others[:, 1]) ** 2) / 2

    ends = []
    for gradient in (mfld.FullBatch(), mfld.LabelNoise(0.5)):
        settings = {"gradient": gradient, "dtype": "float64", "num_threads": 1}
        solver = mfld.MFLD(n_particles, step_size=1.0, temperature=1e-7, **settings)
        ends.append(seen(solver.run(risk, 600, particles=start, record_every=600).particles))
    before, plain, noisy = seen(start), *ends
    assert plain[0] > 10 * before[0]  # alignment: 0.006 and 0.106
    assert plain[1] > 3 * before[1]  # degrees of freedom: 15 and 54
    assert noisy[1] < 0.8 * plain[1]  # 37
    assert noisy[2] < 0.93 * plain[2]  # test loss: 0.16 and 0.13
