"""Numbers of every size, one sample, one particle, many coordinates: right by the mirror, or refused by name."""

import itertools
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld
from mfld import certificates, plain, sklearn

SIZES = (1e-310, 1e-100, 1e-30, 1e-10, 1.0, 1e10, 1e18, 1e30, 1e100)
REFUSALS = (
    r"targets must be at most 1e\+18 in size for float32|inputs must be finite in float32|the loss must be finite in|"
    "the gradient must be finite in|particles must have products with the inputs that float(32|64) holds"
)
# Sums of terms of both signs: some hundreds of roundings.
DIGITS = {"float32": 1e-4, "float64": 1e-11}


def both(dtype, x, y, loss="squared", l2=1e-3, sample_weight=None, **network):
    """A risk, and its mirror, which has the numbers that the precision holds."""
    network = {"n_features": x.shape[1], **network}
    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(**network), x, y, loss=loss, l2=l2, sample_weight=sample_weight)
    with np.errstate(over="ignore", under="ignore"):
        x, y = (each.astype(dtype).astype(float) for each in (x, y))
    y = y.reshape(len(y), -1)
    return risk, plain.Risk(plain.Network(**network), x, y, loss=loss, l2=l2, sample_weight=sample_weight)


# Sine and cosine are left out: of a number whose last digit is worth more than a turn they have no digit that is right.
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu", "softplus", "erf", "identity"])
@pytest.mark.parametrize("loss", ["squared", "huber", "logistic"])
@pytest.mark.parametrize("readout", ["linear", "bounded"])
def test_losses_and_gradients_are_right_or_refused(activation, loss, readout, dtype, rng):
    right, limits = 0, np.finfo(dtype)
    for inputs, particles, targets in itertools.product(SIZES, SIZES, (1e-30, 1.0, 1e30)):
        if particles > float(limits.max) or (loss == "logistic" and targets != 1):
            continue
        x, y = rng.uniform(-1, 1, (7, 3)) * inputs, rng.uniform(-1, 1, 7) * targets
        y = np.sign(y) if loss == "logistic" else y
        risk, mirror = both(dtype, x, y, loss, activation=activation, readout=readout)
        with np.errstate(under="ignore"):
            theta = (rng.uniform(-1, 1, (5, risk.n_coordinates)) * particles).astype(dtype)
        with np.errstate(all="ignore"):
            value, gradient = mirror.data_term(theta.astype(float)), mirror.gradient(theta.astype(float))
        try:
            found = risk.loss(theta), risk.gradient(theta).astype(float)
        except ValueError as error:
            assert re.search(REFUSALS, str(error)), error  # noqa: PT017  either is right
            assert max(inputs, particles, targets) > 1e9
            continue
        right += 1
        # What is 0 on the way, since it is too small, may be multiplied by an input.
        tiny = float(limits.tiny) * max(1, inputs)
        assert_allclose(found[0], value, rtol=DIGITS[dtype.name], atol=tiny)
        assert_allclose(found[1], gradient, rtol=0, atol=DIGITS[dtype.name] * np.abs(gradient).max() + tiny)
    assert right >= 40


def steps(dtype, risk, mirror, n_particles, *, size=1.0, n_steps=5, step_size=0.05, temperature=1e-3):
    """Particles of a run, and of its mirror, in units of their size."""
    start = (np.random.default_rng(3).uniform(-1, 1, (n_particles, risk.n_coordinates)) * size).astype(dtype)
    numbers = {"step_size": step_size, "temperature": temperature}
    found = mfld.MFLD(n_particles, **numbers, dtype=dtype).run(risk, n_steps, seed=4, particles=start).particles
    key = plain.noise_key(4)
    expected = plain.advance(mirror, start.astype(float), n_steps, **numbers, key=key, dtype=dtype.name)
    return found / size, expected / size


@pytest.mark.parametrize(
    ("n", "n_particles", "n_features", "network"),
    [
        (1, 1, 1, {}),
        (1, 1, 1, {"activation": "relu", "readout": "fixed", "bias": False}),
        (1, 40, 3, {"readout": "bounded"}),
        (40, 1, 3, {"activation": "gelu"}),
        (9, 3, 100_000, {"activation": "softplus"}),
        (5, 3, 4, {"n_outputs": 1000}),
        (5, 3, 4, {"n_outputs": 1000, "readout": "parity"}),
    ],
    ids=str,
)
def test_shapes_at_the_ends(n, n_particles, n_features, network, dtype, rng):
    x = rng.uniform(-1, 1, (n, n_features)) / np.sqrt(n_features)
    y = rng.uniform(-1, 1, (n, network.get("n_outputs", 1)))
    found, expected = steps(dtype, *both(dtype, x, y, **network), n_particles)
    assert_allclose(found, expected, rtol=0, atol=DIGITS[dtype.name])


def test_a_thousand_classes(dtype, rng):
    x, y = rng.uniform(-1, 1, (6, 4)), rng.integers(0, 1000, 6)
    found, expected = steps(dtype, *both(dtype, x, y, "cross_entropy", n_outputs=1000), 3)
    assert_allclose(found, expected, rtol=0, atol=DIGITS[dtype.name])


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e12, 1e15])
def test_runs_in_other_units(size, dtype, rng):
    """Inputs of 1/size at weights of a size: gradients of 1/size, and steps and noise that are of the size again."""
    x, y = rng.uniform(-1, 1, (12, 3)) / size, rng.uniform(-1, 1, 12)
    risk, mirror = both(dtype, x, y, readout="fixed", bias=False, l2=0.0)
    numbers = {"size": size, "step_size": 0.3 * size * size, "temperature": 1e-3}
    if numbers["step_size"] < np.finfo(dtype).tiny:
        with pytest.raises(ValueError, match=r"step_size must be at least 1.18e-38 for float32, got 3e-61"):
            steps(dtype, risk, mirror, 8, **numbers)
        return
    found, expected = steps(dtype, risk, mirror, 8, **numbers)
    assert_allclose(found, expected, rtol=0, atol=DIGITS[dtype.name])


# ---- weights ---------------------------------------------------------------------------------------------------------


def heavy(rng, loss="logistic", **network):
    """A risk with a row of a weight of 1e-9 of the others, and the risk without it."""
    x, y = rng.uniform(-1, 1, (9, 3)), np.array([1.0, -1, 1, 1, -1, -1, 1, -1, 1])
    weights = np.append(np.full(8, 1e9), 1.0)
    model = mfld.TwoLayerNetwork(3, **network)
    return (
        mfld.EmpiricalRisk(model, x, y, loss=loss, l2=0.05, sample_weight=weights),
        mfld.EmpiricalRisk(model, x[:8], y[:8], loss=loss, l2=0.05),
    )


@pytest.mark.parametrize("algorithm", [mfld.MFLD, lambda n, **options: mfld.PDA(n, **options, inner_steps=3)])
def test_a_row_of_hardly_any_weight_hardly_counts(algorithm, dtype, rng):
    solver = algorithm(20, step_size=0.1, temperature=0.01, dtype=dtype)
    found, expected = (solver.run(risk, 20, seed=1).particles for risk in heavy(rng, readout="bounded"))
    assert_allclose(found, expected, rtol=0, atol=2e-5 if dtype == np.float32 else 1e-7)


@pytest.mark.parametrize("loss", ["logistic", "half_squared"])
def test_dual_ascent_of_one_row_and_of_weights_far_apart(loss, rng):
    """The certificate bounds what is left: the same optimum within the two gaps."""
    few, without = heavy(rng, loss, readout="bounded")
    one, _ = without.of_rows(np.array([0]))
    values = []
    for risk in (few, without, one):
        result = mfld.PSDCA(200, temperature=0.2).run(risk, 40, seed=2)
        certificate = result.certificate(n_chains=64, most_moves=1024)
        assert np.isfinite(certificate.upper)
        assert certificate.gap < 0.05
        values.append(risk.loss(result.measure))
    assert_allclose(values[0], values[1], atol=0.05)


@pytest.mark.filterwarnings("ignore:the loss of the network")  # after a few steps
@pytest.mark.parametrize("algorithm", ["mfld", "pda", "psdca"])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_estimators_have_the_same_answer_in_other_units(algorithm, size, rng):
    x = rng.normal(size=(60, 3))
    y = x[:, 0] * x[:, 1]
    options = {"algorithm": algorithm, "n_particles": 64, "n_steps": 5, "random_state": 0, "activation": "tanh"}
    with_units = sklearn.MeanFieldRegressor(**options).fit(x * size, y / size).predict(x * size) * size
    assert_allclose(with_units, sklearn.MeanFieldRegressor(**options).fit(x, y).predict(x), rtol=0, atol=1e-4)


# ---- float32 that overflows ------------------------------------------------------------------------------------------


def test_overflow_in_float32_has_a_name(rng):
    model = mfld.TwoLayerNetwork(3, activation="relu")
    risk = mfld.EmpiricalRisk(model, rng.uniform(-1, 1, (7, 3)), rng.uniform(-1, 1, 7), loss="squared", l2=0.1)
    far = rng.uniform(0.5, 1, (5, 5)) * 1e30
    for function in (risk.loss, risk.value, risk.gradient, risk.first_variation, risk.derivative):
        function(far)
        with pytest.raises(ValueError, match=r"must be finite in float32, got .*(scale|take float64)"):
            function(far.astype("float32"))
    with pytest.raises(ValueError, match="predictions must be finite in float32, got inf at index"):
        model.predict(far.astype("float32"), np.ones((2, 3)))
    with pytest.raises(ValueError, match="neurons must be finite in float32, got inf at index"):
        model.neurons(far.astype("float32"), np.ones((2, 3)))
    with pytest.raises(ValueError, match="particles must have products with the inputs that float32 holds, got"):
        mfld.TwoLayerNetwork(3).predict(far.astype("float32"), np.full((2, 3), 1e10))


@pytest.mark.parametrize("of", [mfld.MFLD, mfld.PDA])
def test_a_run_does_not_start_where_an_activation_hides_overflow(of):
    model = mfld.TwoLayerNetwork(2, activation="tanh")
    solver = of(5, step_size=0.1, temperature=0.0 if of is mfld.MFLD else 0.1)
    far = np.tile(np.float32([1.7e38, -1.7e38, 0.0, 1.0]), (5, 1))  # its first product is inf, which the second keeps
    risk = mfld.EmpiricalRisk(model, np.array([[2.5, 2.625]]), [0.0], loss="half_squared", l2=1e-3)
    large = mfld.EmpiricalRisk(model, np.array([[1e38, 2e38]]), [0.0], loss="half_squared", l2=1e-3)
    for objective, particles in ((risk, far), (large, None)):
        with pytest.raises(ValueError, match="particles must have products with the inputs that float32 holds, got"):
            solver.init(objective, particles=particles)


def test_the_loss_of_predictions_whose_squares_float32_does_not_hold(rng):
    model = mfld.TwoLayerNetwork(1, activation="identity", readout="fixed", bias=False)
    risk = mfld.EmpiricalRisk(model, [[1.0], [2.0]], [0.0, 0.0], loss="squared")
    assert_allclose(risk.loss(np.array([[3e30]], "float32")), (9e60 + 36e60) / 2, rtol=1e-6)


# ---- beyond the largest number ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamics", [mfld.dynamics.Overdamped(), mfld.dynamics.Underdamped(1.0)], ids=repr)
@pytest.mark.parametrize("gradient", [mfld.FullBatch(), mfld.Minibatch(5), mfld.SVRG(5, 4), mfld.SARAH(5, 4)], ids=repr)
def test_particles_that_grow_beyond_all_bounds_end_the_run_with_those_before(gradient, dynamics, dtype, rng):
    x, y = rng.uniform(-1, 1, (30, 3)), rng.uniform(-1, 1, 30)
    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(3, activation="identity"), x, y, loss="squared", l2=1.0)
    solver = mfld.MFLD(40, step_size=300.0, temperature=1e-3, gradient=gradient, dynamics=dynamics, dtype=dtype)
    with pytest.raises(mfld.DivergenceError) as caught:
        solver.run(risk, 1000)
    state = caught.value.state
    assert 0 < state.step < 1000
    assert np.isfinite(state.particles).all()
    assert np.abs(state.particles).max() > 1e4


WELL = mfld.potentials.Gaussian([0.0, 0.0])
NORMALS = np.random.default_rng(0).normal(size=(30, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: mfld.theory.fisher(WELL, mfld.MFLD(30, temperature=0.1).init(WELL), 1e-320, np.eye(2)),
            "temperature must not be so small that squares of slopes over it overflow, got 9.99",
        ),
        (lambda: mfld.diagnostics.ksd(NORMALS, WELL, 1e-301), "measure and temperature must leave sums of squares"),
        (
            lambda: mfld.theory.sandwich(WELL, 1e200 * NORMALS, 1.0, entropy=0.0),
            "temperature must leave the bounds within float64, got 1",
        ),
    ],
)
def test_what_has_no_number_is_refused(call, message):
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(ValueError, match=message):
        call()


def test_a_neuron_that_does_not_grow_needs_no_ridge_for_any_dual_variable(rng):
    risk = mfld.EmpiricalRisk(
        mfld.TwoLayerNetwork(3, readout="bounded"), rng.normal(size=(9, 3)), np.ones(9), loss="logistic"
    )
    assert certificates.smallest_ridge(risk, np.full((9, 1), 1e300)) == 0


def test_a_release_with_all_but_infinite_noise_costs_nothing():
    pytest.importorskip("dp_accounting")
    alone, beside = (mfld.privacy.training_multiplier(1.0, 1e-5, 0.1, 50, releases=given) for given in ([], [1e300]))
    assert alone == beside
