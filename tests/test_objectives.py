"""Objectives: value, gradient and first variation against finite differences of F under moving mass."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld
from mfld.stepping import Outcome, Plan, steps


@pytest.fixture
def rng():
    return np.random.default_rng(7)


# Every readout, one and several outputs, every kind of target, weights on and off; smooth for finite differences.
CASES = {
    "linear": ({"readout": "linear"}, "squared", False),
    "weights": ({"readout": "linear", "activation": "softplus"}, "logistic", True),
    "signs": ({"readout": "signs", "n_outputs": 2}, "half_squared", True),
    "fixed": ({"readout": "fixed", "bias": False, "output_scale": 3.0}, "squared", False),
    "bounded": ({"readout": "bounded", "n_outputs": 2, "readout_bound": 2.0}, "squared", True),
    "parity": ({"readout": "parity", "readout_bound": 3.0}, "logistic", False),
    "classes": ({"readout": "linear", "n_outputs": 3}, "cross_entropy", True),
}
every_case = pytest.mark.parametrize("case", CASES)


def make_risk(case, rng, n=11, l2=0.3):
    arguments, loss, weighted = CASES[case]
    model = mfld.TwoLayerNetwork(n_features=3, **arguments)
    kind = mfld.Loss(loss).targets
    shape = (n, model.n_outputs) if model.n_outputs > 1 and kind != "class" else n
    targets = {
        "real": rng.normal(size=shape),
        "sign": np.sign(rng.normal(size=shape)),
        "class": rng.integers(3, size=n),
    }[kind]
    weight = rng.uniform(0, 2, size=n) if weighted else None
    return mfld.EmpiricalRisk(model, rng.normal(size=(n, 3)), targets, loss=loss, l2=l2, sample_weight=weight)


def make_particles(risk, rng, n=6):
    particles = rng.normal(size=(n, risk.n_coordinates))
    if risk.n_moving < risk.n_coordinates:
        particles[:, risk.n_moving :] = np.sign(particles[:, risk.n_moving :])
    return particles


def particle_gradient(function, particles, h=1e-5):
    """Central differences in each coordinate of each particle; error h^2 + eps / h, about 1e-10."""
    gradient = np.zeros_like(particles)
    for place in np.ndindex(particles.shape):
        step = np.zeros_like(particles)
        step[place] = h
        gradient[place] = (function(particles + step) - function(particles - step)) / (2 * h)
    return gradient


def test_the_cases_cover_the_readouts():
    assert {arguments["readout"] for arguments, _, _ in CASES.values()} == set(mfld.readouts())


@every_case
def test_gradient_is_n_times_the_derivative_in_a_particle(case, rng):
    risk = make_risk(case, rng)
    particles = make_particles(risk, rng)
    expected = len(particles) * particle_gradient(risk.value, particles)
    expected[:, risk.n_moving :] = 0  # frozen, although F depends on it
    assert_allclose(risk.gradient(particles), expected, atol=1e-8)


@every_case
def test_gradient_at_a_weighted_measure(case, rng):
    # dF/dtheta_m = w_m b(theta_m; mu): the weights enter the predictions and never multiply the pull-back.
    risk = make_risk(case, rng)
    particles, weights = make_particles(risk, rng), rng.uniform(0.5, 2, size=6)
    weights /= weights.sum()
    expected = particle_gradient(lambda x: risk.value(mfld.Cloud(x, weights)), particles) / weights[:, np.newaxis]
    expected[:, risk.n_moving :] = 0
    assert_allclose(risk.gradient(mfld.Cloud(particles, weights)), expected, atol=1e-8)


@every_case
def test_first_variation_is_the_derivative_of_f_under_moving_mass(case, rng):
    risk = make_risk(case, rng)
    particles, weights = make_particles(risk, rng), rng.uniform(0.5, 2, size=6)
    cloud = mfld.Cloud(particles, weights)
    variation = risk.first_variation(cloud)
    h = 1e-4
    for point in make_particles(risk, rng, n=5):

        def mixture(e, point=point):  # F((1 - e) mu + e delta_point)
            return risk.value(mfld.Cloud(np.vstack([particles, point]), np.append((1 - e) * cloud.weights, e)))

        derivative = (4 * mixture(h) - 3 * mixture(0) - mixture(2 * h)) / (2 * h)  # one-sided, error h^2
        assert_allclose(derivative, variation(point[np.newaxis])[0] - cloud.mean(variation(particles)), atol=1e-6)


@every_case
def test_first_variation_is_frozen_and_its_gradient_its_own(case, rng):
    risk = make_risk(case, rng)
    particles, points = make_particles(risk, rng), make_particles(risk, rng, n=4)
    variation = risk.first_variation(particles)
    assert_allclose(variation.gradient(particles), risk.gradient(particles), rtol=1e-12, atol=1e-14)
    expected = particle_gradient(lambda x: variation(x).sum(), points)
    expected[:, risk.n_moving :] = 0
    assert_allclose(variation.gradient(points), expected, atol=1e-8)
    # A function of the point alone: other points beside it change nothing.
    assert_allclose(variation(points)[:1], variation(points[:1]), rtol=1e-13)
    assert (variation.n_coordinates, variation.n_moving, variation.l2) == (risk.n_coordinates, risk.n_moving, risk.l2)


def test_first_variation_is_not_centred(rng):
    # sum_i s_i l'(u_i, y_i) h(theta, z_i) + l2 |theta|^2, written out
    risk = make_risk("weights", rng)
    particles, points = make_particles(risk, rng), make_particles(risk, rng, n=4)
    predictions = risk.model.predict(particles, risk.inputs)
    slope = risk.loss_function.derivative(predictions, risk.targets[:, 0])
    expected = (risk.sample_weight * slope) @ risk.model.neurons(points, risk.inputs) + 0.3 * np.sum(points**2, axis=1)
    assert_allclose(risk.first_variation(particles)(points), expected, rtol=1e-12)


def test_first_variation_in_the_other_precision(rng):
    risk = make_risk("linear", rng)
    particles, points = make_particles(risk, rng), make_particles(risk, rng, n=4)
    variation = risk.first_variation(particles)
    single = variation.gradient(points.astype(np.float32))
    assert single.dtype == np.float32
    assert_allclose(single, variation.gradient(points), rtol=1e-4, atol=1e-5)


def test_first_variation_starts_where_the_model_does(rng):
    variation = make_risk("signs", rng).first_variation(np.ones((1, 6)))
    signs = variation.initial_particles(50)[:, variation.n_moving :]
    assert set(np.unique(signs)) == {-1.0, 1.0}


def test_value_is_loss_plus_ridge_over_moving_coordinates(rng):
    risk = make_risk("signs", rng)
    particles = make_particles(risk, rng)
    losses = risk.loss_function.value(risk.model.predict(particles, risk.inputs), risk.targets)
    assert_allclose(risk.loss(particles), np.average(losses, weights=risk.sample_weight), rtol=1e-13)
    ridge = 0.3 * np.mean(np.sum(particles[:, : risk.n_moving] ** 2, axis=1))
    assert_allclose(risk.value(particles), risk.loss(particles) + ridge, rtol=1e-13)


def test_a_single_cloud_of_equal_weights_is_the_plain_array(rng):
    risk = make_risk("linear", rng)
    particles = make_particles(risk, rng)
    assert_allclose(risk.value(mfld.Cloud(particles, np.full(6, 2.0))), risk.value(particles), rtol=1e-13)
    twice = mfld.Cloud(particles[:5], [2, 1, 1, 1, 1])
    assert_allclose(risk.value(twice), risk.value(particles[[0, 0, 1, 2, 3, 4]]), rtol=1e-13)


def test_frozen_signs_do_not_move(rng):
    risk = make_risk("signs", rng)
    solver = mfld.MFLD(n_particles=20, step_size=0.1, temperature=0.5)
    state = solver.init(risk, seed=2)
    after, _ = solver.advance(risk, state, n_steps=10)
    frozen = np.s_[:, risk.n_moving :]
    assert np.array_equal(after.particles[frozen], state.particles[frozen])
    assert (after.particles[:, : risk.n_moving] != state.particles[:, : risk.n_moving]).all()


# ---- samples and their weights ---------------------------------------------------------------------------------------


def weighted(risk, rows, weight):
    targets = risk.targets[rows]
    return mfld.EmpiricalRisk(
        risk.model, risk.inputs[rows], targets, loss=risk.loss_function, l2=risk.l2, sample_weight=weight
    )


def test_integer_weights_repeat_samples_and_scale_does_not_matter(rng):
    risk = make_risk("bounded", rng)
    particles = make_particles(risk, rng)
    rows = np.arange(11)
    counts = np.array([0, 1, 2, 3, 0, 1, 1, 1, 1, 1, 5])
    repeated = weighted(risk, np.repeat(rows, counts), None)
    for counted in (weighted(risk, rows, counts), weighted(risk, rows, 1e3 * counts)):
        assert_allclose(counted.value(particles), repeated.value(particles), rtol=1e-12)
        assert_allclose(counted.gradient(particles), repeated.gradient(particles), rtol=1e-10, atol=1e-13)
    assert_allclose(counted.sample_weight.sum(), 1)


@pytest.mark.parametrize("case", ["linear", "weights", "classes"])
def test_batches_are_unbiased(case, rng):
    risk = make_risk(case, rng, n=6)
    particles = make_particles(risk, rng)
    batches = [risk.gradient(particles, batch=rows) for rows in itertools.combinations(range(6), 2)]
    assert_allclose(np.mean(batches, axis=0), risk.gradient(particles), atol=1e-12)
    assert np.std(batches, axis=0).max() > 1e-2


@every_case
def test_first_variation_of_a_batch(case, rng):
    """Against sums over its rows of predictions of single neurons, and of differences of the loss."""
    risk = make_risk(case, rng, n=6)
    particles, points = make_particles(risk, rng), make_particles(risk, rng, n=3)
    rows, s = [4, 1, 3], np.full(6, 1 / 6) if risk.sample_weight is None else risk.sample_weight
    variation = risk.first_variation(particles, rows)
    neurons = np.stack([risk.model.predict(point[np.newaxis], risk.inputs).reshape(6, -1) for point in points])
    predictions = risk.model.predict(particles, risk.inputs).reshape(6, -1)
    slopes = loss_slopes(risk, predictions)
    expected = np.einsum("i,ik,mik->m", 6 / 3 * s[rows], slopes[rows], neurons[:, rows])
    expected += risk.l2 * np.sum(points[:, : risk.n_moving] ** 2, axis=1)
    assert_allclose(variation(points), expected, rtol=1e-6, atol=1e-8)
    gradient = particle_gradient(lambda x: variation(x).sum(), points)
    gradient[:, risk.n_moving :] = 0
    assert_allclose(variation.gradient(points), gradient, rtol=1e-6, atol=1e-7)
    assert_allclose(variation.gradient(particles), risk.gradient(particles, rows), rtol=1e-11, atol=1e-13)


def loss_slopes(risk, predictions, h=1e-6):
    """Derivative of the loss of each sample in each of its outputs, by central differences."""
    slopes = np.zeros_like(predictions)
    for k in range(predictions.shape[1]):
        step = np.zeros_like(predictions)
        step[:, k] = h
        values = [risk.loss_function.evaluate(predictions + sign * step, risk.targets)[0] for sign in (1, -1)]
        slopes[:, k] = (values[0] - values[1]) / (2 * h)
    return slopes


@pytest.mark.parametrize("case", ["linear", "weights", "classes"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_first_variations_of_batches_are_unbiased(case, size, rng):
    risk = make_risk(case, rng, n=6)
    particles, points = make_particles(risk, rng), make_particles(risk, rng)
    batches = [risk.first_variation(particles, list(rows)) for rows in itertools.combinations(range(6), size)]
    full = risk.first_variation(particles)
    for method in ("__call__", "gradient"):
        found = [getattr(batch, method)(points) for batch in batches]
        assert_allclose(np.mean(found, axis=0), getattr(full, method)(points), rtol=1e-11, atol=1e-13)
        assert np.std(found, axis=0).max() > 1e-3


def test_dual_variables_of_a_batch(rng):
    risk = make_risk("bounded", rng, n=6)
    points, dual = make_particles(risk, rng), rng.normal(size=(3, 2))
    rows = [5, 0, 2]
    every = np.zeros((6, 2))
    every[rows] = 6 / 3 * dual
    assert_allclose(risk.linearised(dual, batch=rows)(points), risk.linearised(every)(points), rtol=1e-12)
    dual[[0, 2]] = 0  # which cost nothing, in a batch as in all rows
    every[rows] = 6 / 3 * dual
    assert_allclose(risk.linearised(dual, batch=rows)(points), risk.linearised(every)(points), rtol=1e-12)
    ridge = risk.l2 * np.sum(points**2, axis=1)
    assert_allclose(risk.linearised(np.zeros((3, 2)), batch=rows)(points), ridge, rtol=1e-14)
    with pytest.raises(ValueError, match=r"dual must have shape \(2, 2\) \(samples, outputs\), got \(3, 2\)"):
        risk.linearised(dual, batch=[0, 1])


def test_a_batch_of_everything_is_the_gradient(rng):
    risk = make_risk("weights", rng)
    particles = make_particles(risk, rng)
    assert_allclose(risk.gradient(particles, batch=rng.permutation(11)), risk.gradient(particles), rtol=1e-10)


def test_data_are_kept_as_they_were(rng):
    inputs, targets = rng.normal(size=(5, 2)), rng.normal(size=5)
    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(2), inputs, targets, loss="squared")
    particles = rng.normal(size=(3, 4))
    before = risk.value(particles)
    inputs[:], targets[:] = 0, np.nan
    assert risk.value(particles) == before
    assert not risk.inputs.flags.writeable


def test_read_only_data_are_not_copied(rng):
    inputs = rng.normal(size=(5, 2))
    inputs.flags.writeable = False
    assert mfld.EmpiricalRisk(mfld.TwoLayerNetwork(2), inputs, np.ones(5), loss="hinge").inputs is inputs
    view = np.zeros((5, 2)).view()  # read-only itself, but somebody holds its writable base
    view.flags.writeable = False
    assert mfld.EmpiricalRisk(mfld.TwoLayerNetwork(2), view, np.ones(5), loss="hinge").inputs is not view


def test_a_risk_survives_pickling(rng):
    risk = make_risk("classes", rng)
    particles = make_particles(risk, rng)
    assert pickle.loads(pickle.dumps(risk)).value(particles) == risk.value(particles)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "net"}, TypeError, r"model must be a Model, like a TwoLayerNetwork, got 'net' \(str\)"),
        (
            {"inputs": np.zeros((0, 2))},
            ValueError,
            r"inputs must have shape \(n, 2\) with n at least 1.*, got \(0, 2\)",
        ),
        ({"inputs": np.zeros((4, 3))}, ValueError, r"inputs must have shape \(n, 2\).*, got \(4, 3\)"),
        ({"inputs": np.full((4, 2), np.inf)}, ValueError, r"inputs must be finite, got inf at index \(0, 0\)"),
        ({"inputs": None}, TypeError, "inputs must be an array of real numbers, got dtype object"),
        ({"targets": np.zeros(3)}, ValueError, "targets must have 4 rows to match inputs, got 3"),
        ({"targets": np.zeros((4, 2))}, ValueError, r"targets must have shape \(n,\).*, got \(4, 2\)"),
        ({"targets": [1, 2, 3, np.nan]}, ValueError, "targets must be finite, got nan at index 3"),
        ({"loss": "logistic"}, ValueError, r"targets of the loss 'logistic' must be -1 or \+1; 4 of 4 are not: 0"),
        ({"loss": "l2"}, ValueError, "loss must be one of .*squared.*; got 'l2'"),
        ({"loss": 2}, TypeError, "loss must be a name, a LossFunction, or a function .*, got 2"),
        ({"l2": -0.1}, ValueError, "l2 must be finite and at least 0, got -0.1"),
        ({"l2": True}, TypeError, r"l2 must be a real number, got True \(bool\)"),
        (
            {"sample_weight": np.ones(3)},
            ValueError,
            r"sample_weight must have shape \(4,\) to match inputs, got \(3,\)",
        ),
        ({"sample_weight": [1, 1, -1, 1]}, ValueError, "sample_weight must be at least 0, got -1.0 at index 2"),
        ({"sample_weight": np.zeros(4)}, ValueError, "sample_weight must have a finite sum above 0, got 0.0"),
    ],
)
def test_refused_risks(arguments, error, message):
    good = {"model": mfld.TwoLayerNetwork(2), "inputs": np.ones((4, 2)), "targets": np.zeros(4), "loss": "squared"}
    with pytest.raises(error, match=message):
        mfld.EmpiricalRisk(**{**good, **arguments})


@pytest.mark.parametrize(
    ("measure", "batch", "error", "message"),
    [
        (np.zeros((2, 3)), None, ValueError, r"particles must have shape \(N, 4\) to suit the objective, got \(2, 3\)"),
        (np.zeros((1, 2, 4)), None, ValueError, r"particles must have shape \(N, 4\).*, got \(1, 2, 4\)"),
        (np.full((2, 4), np.nan), None, ValueError, r"particles must be finite, got nan at index \(0, 0\)"),
        (np.zeros((2, 4)), [0, 4], ValueError, "batch must hold rows between 0 and 3, got 4"),
        (
            np.zeros((2, 4)),
            [True, False],
            TypeError,
            r"batch must be an array of row numbers \(integers\), got dtype bool",
        ),
        (np.zeros((2, 4)), [], TypeError, "batch must be an array of row numbers"),
        (np.zeros((2, 4)), [[1]], ValueError, r"batch must have shape \(B,\) with B at least 1, got \(1, 1\)"),
    ],
)
def test_refused_gradients(measure, batch, error, message):
    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(2), np.ones((4, 2)), np.zeros(4), loss="squared")
    with pytest.raises(error, match=message):
        risk.gradient(measure, batch)
    with pytest.raises(error, match=message):
        risk.first_variation(measure, batch)


@pytest.mark.parametrize(
    ("particles", "weights", "message"),
    [
        (np.zeros(3), None, r"particles must have shape \(..., N, p\) with each at least 1, got \(3,\)"),
        (np.zeros((0, 3)), None, r"particles must have shape .* got \(0, 3\)"),
        (np.zeros((2, 3)), [1.0], r"weights must have shape \(2,\) to match particles, got \(1,\)"),
        (np.zeros((2, 3)), [1.0, -1.0], "weights must be at least 0, got -1.0 at index 1"),
    ],
)
def test_refused_clouds(particles, weights, message):
    with pytest.raises(ValueError, match=message):
        mfld.Cloud(particles, weights)


# ---- potentials and other objectives in Python -----------------------------------------------------------------------


def quartic(**arguments):
    return mfld.Potential(lambda x: x**3, lambda x: np.sum(x**4, axis=1) / 4, n_coordinates=2, **arguments)


def test_potential_is_linear_and_its_own_first_variation(rng):
    potential = quartic(l2=0.5)
    points, weights = rng.normal(size=(5, 2)), rng.uniform(size=5)
    assert_allclose(potential(points), np.sum(points**4 / 4 + points**2 / 2, axis=1))
    cloud = mfld.Cloud(points, weights)
    assert_allclose(potential.value(cloud), cloud.weights @ potential(points))
    assert_allclose(potential.gradient(points), points**3 + points)
    assert potential.first_variation(cloud) is potential


def test_potential_with_frozen_coordinates(rng):
    potential = quartic(l2=0.5, n_moving=1)
    points = rng.normal(size=(5, 2))
    assert_allclose(potential(points), np.sum(points**4 / 4, axis=1) + points[:, 0] ** 2 / 2)
    assert_allclose(potential.gradient(points), (points**3 + points) * [1, 0])
    solver = mfld.MFLD(n_particles=5, step_size=0.1, temperature=1.0, dtype="float64")
    result = solver.run(potential, n_steps=3, particles=points)
    assert np.array_equal(result.particles[:, 1], points[:, 1])
    assert (result.particles[:, 0] != points[:, 0]).all()


def test_a_potential_without_value_says_so_and_still_runs():
    potential = mfld.Potential(lambda x: x, n_coordinates=1)
    for call in (potential.value, potential, potential.loss):
        with pytest.raises(TypeError, match="this Potential has a gradient only: give it value="):
            call(np.ones((3, 1)))
    result = mfld.MFLD(n_particles=3, step_size=0.1, temperature=1.0).run(potential, n_steps=2)
    assert np.isnan(result.history["loss"]).all()
    assert (result.history["gradient_norm"] > 0).all()


def test_functions_get_arrays_that_are_theirs():
    seen = []

    def gradient(x):
        seen.append(x)
        x *= 2  # writable, and nobody else's
        return x

    potential = mfld.Potential(gradient, n_coordinates=1)
    solver = mfld.MFLD(n_particles=2, step_size=0.25, temperature=0.0, dtype="float64")
    result = solver.run(potential, n_steps=3, particles=[[8.0], [16.0]])
    assert_allclose(result.particles, [[1.0], [2.0]])
    assert_allclose(seen[0], [[16.0], [32.0]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mfld.Potential("x", n_coordinates=1), TypeError, r"gradient must be callable, got 'x' \(str\)"),
        (lambda: mfld.Potential(abs, 3.0, n_coordinates=1), TypeError, "value must be callable, got 3.0"),
        (lambda: mfld.Potential(abs, n_coordinates=0), ValueError, "n_coordinates must be at least 1, got 0"),
        (
            lambda: mfld.Potential(abs, n_coordinates=2, n_moving=3),
            ValueError,
            "n_moving must be between 1 and 2, got 3",
        ),
        (
            lambda: mfld.Potential(abs, n_coordinates=2, l2=np.nan),
            ValueError,
            "l2 must be finite and at least 0, got nan",
        ),
        (
            lambda: mfld.Potential(np.sum, n_coordinates=2).gradient(np.ones((3, 2))),
            ValueError,
            r"the result of gradient must have shape \(3, 2\) to match the points, got \(\)",
        ),
        (
            lambda: mfld.Potential(abs, abs, n_coordinates=2)(np.ones((3, 2))),
            ValueError,
            r"the result of value must have shape \(3,\) to match the points, got \(3, 2\)",
        ),
        (lambda: quartic().gradient(np.ones((3, 2)), batch=[0]), ValueError, "batch must be None for a Potential"),
        (lambda: quartic().first_variation([[1.0, 1.0]], [0]), ValueError, "batch must be None for a Potential"),
        (lambda: quartic()(np.ones((3, 1))), ValueError, r"particles must have shape \(N, 2\).*, got \(3, 1\)"),
    ],
)
def test_refused_potentials(call, error, message):
    with pytest.raises(error, match=message):
        call()


class InPython(mfld.Objective):
    """A risk of which the library is told nothing but the three methods of an objective."""

    def __init__(self, risk):
        self.risk = risk
        for name in ("space", "reference", "n_samples"):
            setattr(self, name, getattr(risk, name))

    def loss(self, measure):
        return self.risk.loss(measure)

    def loss_gradient(self, measure, batch=None):
        return self.risk.loss_gradient(measure, batch)

    def first_variation(self, measure):
        return self.risk.first_variation(measure)


@every_case
@pytest.mark.parametrize("estimator", [mfld.FullBatch(), mfld.Minibatch(batch_size=4)], ids=repr)
def test_steps_in_python_are_the_native_steps(case, estimator, rng):
    # The same noise, rows, scheme and ridge by two ways; they round differently.
    risk = make_risk(case, rng, l2=0.05)
    solver = mfld.MFLD(n_particles=10, step_size=0.1, temperature=0.01, gradient=estimator, dtype="float64")
    particles = make_particles(risk, rng, n=10)
    native = solver.run(risk, n_steps=20, seed=3, particles=particles, record_every=20)
    python = solver.run(InPython(risk), n_steps=20, seed=3, particles=particles, record_every=20)
    assert np.abs(native.particles - particles).max() > 0.1
    assert_allclose(python.particles, native.particles, rtol=1e-9, atol=1e-11)
    assert_allclose(python.history["gradient_norm"], native.history["gradient_norm"], rtol=1e-9)
    if estimator == mfld.FullBatch():
        assert_allclose(python.history["loss"], native.history["loss"], rtol=1e-9)


class Clipped(mfld.GradientEstimator):
    def estimate(self, objective, particles, buffers, place):
        return np.clip(objective.loss_gradient(particles), -0.1, 0.1), {}


def test_an_estimator_of_the_user_is_used_and_the_ridge_is_not_its_business(rng):
    risk = make_risk("linear", rng)
    particles = make_particles(risk, rng)
    solver = mfld.MFLD(n_particles=6, step_size=0.1, temperature=0.0, gradient=Clipped(), dtype="float64")
    result = solver.run(risk, n_steps=1, particles=particles)
    clipped = np.clip(risk.loss_gradient(particles), -0.1, 0.1)
    assert np.abs(risk.loss_gradient(particles)).max() > 0.1
    assert_allclose(result.particles, particles - 0.1 * (clipped + 2 * 0.3 * particles), rtol=1e-12)


@pytest.mark.parametrize("wrap", [lambda risk: risk, InPython], ids=["native", "python"])
def test_plan_takes_a_schedule(wrap, rng):
    risk = make_risk("linear", rng)
    particles = make_particles(risk, rng)[np.newaxis]
    step_size, temperature, l2 = np.array([[[0.1, 0.05, 0.2]], [[0.3, 0.0, 0.1]], [[0.3, 0.2, 0.1]]])
    how = {"gradient": mfld.FullBatch(), "dynamics": mfld.Overdamped()}
    place = mfld.noise.Place.of(1, step=5, num_threads=1)
    whole = steps(wrap(risk), particles, {}, 3, Plan(step_size, temperature, l2, places=(place,), **how))
    assert isinstance(whole, Outcome)
    single = particles
    for k in range(3):
        numbers = (values[:, k : k + 1] for values in (step_size, temperature, l2))
        plan = Plan(*numbers, places=(place.ahead(k),), **how)
        single = steps(wrap(risk), single, {}, 1, plan).particles
    assert single.tobytes() == whole.particles.tobytes()


@pytest.mark.parametrize("batch", [None, [1, 5, 7]])
def test_frozen_potentials_of_a_risk_are_pickled(batch, rng):
    inputs = rng.normal(size=(20, 2))
    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(2), inputs, inputs[:, 0], loss="squared", l2=1e-2)
    frozen = risk.first_variation(risk.initial_particles(6), batch)
    points = rng.normal(size=(4, risk.n_coordinates))
    for again in (pickle.loads(pickle.dumps(frozen)), copy.deepcopy(frozen), copy.copy(frozen)):
        assert np.array_equal(again(points), frozen(points))
        assert np.array_equal(again.gradient(points), frozen.gradient(points))
        assert (again.l2, again.num_threads) == (frozen.l2, frozen.num_threads)


def test_targets_whose_squares_overflow_are_refused_in_float32_only():
    inputs, targets = np.linspace(-1, 1, 9)[:, np.newaxis], np.full(9, 1.0)
    targets[4] = 1e25
    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(1), inputs, targets, loss="half_squared")
    solver = mfld.MFLD(10, step_size=0.1, temperature=0.0)
    with pytest.raises(ValueError, match=r"targets must be at most 1e\+18 in size for float32.*got 1e\+25"):
        solver.run(risk, 1)
    wide = mfld.MFLD(10, step_size=0.1, temperature=0.0, dtype="float64").run(risk, 1)
    np.testing.assert_allclose(wide.info.loss, 1e50 / 18, rtol=1e-12)
