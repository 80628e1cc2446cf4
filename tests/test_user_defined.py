"""Losses, neurons and whole objectives of the user: the same runs as the native ones, and what is refused."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld
from mfld import models

DATA = np.random.default_rng(5)
INPUTS = DATA.normal(size=(24, 3))
TARGETS = DATA.normal(size=24)
LABELS = np.sign(DATA.normal(size=24))
CLASSES = DATA.integers(3, size=24)
WEIGHT = DATA.uniform(0.5, 2, size=24)
ESTIMATORS = [mfld.FullBatch(), mfld.Minibatch(7), mfld.SVRG(7, 4), mfld.SARAH(7, 4)]
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)


# The losses and the network once more, in NumPy. The network: theta = (w, bias, readout weights), tanh, K outputs.


def squared(u, y):
    return ((u - y) ** 2).reshape(len(u), -1).sum(axis=1), 2 * (u - y)


class Logistic(mfld.LossFunction):
    convex = True
    smoothness = 0.25

    def value_and_derivative(self, predictions, targets):
        margin = predictions * targets
        return np.log1p(np.exp(-margin)), -targets / (1 + np.exp(margin))


class CrossEntropy(mfld.LossFunction):
    def check_targets(self, targets, n_outputs=1):
        return mfld.Loss("cross_entropy").check_targets(targets, n_outputs)

    def value_and_derivative(self, predictions, targets):
        rows, classes = np.arange(len(targets)), targets.astype(int)
        shares = np.exp(predictions)
        shares /= shares.sum(axis=1, keepdims=True)
        values = -np.log(shares[rows, classes])
        shares[rows, classes] -= 1
        return values, shares


def hidden(theta, z):
    return np.tanh(np.einsum("ij,mj->im", z, theta[:, :3]) + theta[:, 3])


def value(theta, z):
    return hidden(theta, z) * theta[:, 4]


def gradient(theta, z):
    a = hidden(theta, z)
    slope = (1 - a**2) * theta[:, 4]
    ones = np.ones((len(z), 1), z.dtype)
    inner = slope[:, :, np.newaxis] * np.hstack([z, ones])[:, np.newaxis, :]
    return np.concatenate([inner, a[:, :, np.newaxis]], axis=2)


def values(theta, z):
    return hidden(theta, z)[:, :, np.newaxis] * theta[:, 4:]


def gradients(theta, z):
    a = hidden(theta, z)
    result = np.zeros((len(z), len(theta), 3, 7), z.dtype)
    for k in range(3):
        slope = (1 - a**2) * theta[:, 4 + k]
        result[:, :, k, :3] = slope[:, :, np.newaxis] * z[:, np.newaxis, :]
        result[:, :, k, 3] = slope
        result[:, :, k, 4 + k] = a
    return result


NATIVE = mfld.TwoLayerNetwork(3)
NEURONS = mfld.NeuronModel(
    value, gradient, n_features=3, n_coordinates=5, initial_particles=lambda x: x / [1, 2, 3, 4, 5]
)
NATIVE3 = mfld.TwoLayerNetwork(3, n_outputs=3)
NEURONS3 = mfld.NeuronModel(values, gradients, n_features=3, n_coordinates=7, n_outputs=3)
PROBLEMS = {
    "squared": (NATIVE, NEURONS, TARGETS, "squared", squared),
    "logistic": (NATIVE, NEURONS, LABELS, "logistic", Logistic()),
    "classes": (NATIVE3, NEURONS3, CLASSES, "cross_entropy", CrossEntropy()),
    "outputs": (NATIVE3, NEURONS3, INPUTS[:, ::-1], "squared", squared),
}
every_problem = pytest.mark.parametrize("problem", PROBLEMS)


def make_risks(problem, **arguments):
    """The native risk, and the same with a loss, a model and both in Python."""
    native, neurons, targets, name, function = PROBLEMS[problem]
    return [
        mfld.EmpiricalRisk(model, INPUTS, targets, loss=loss, **{"l2": 0.02, "sample_weight": WEIGHT, **arguments})
        for model, loss in [(native, name), (native, function), (neurons, name), (neurons, function)]
    ]


def make_solver(**arguments):
    return mfld.MFLD(**{"n_particles": 10, "step_size": 0.1, "temperature": 0.01, "dtype": "float64", **arguments})


def as_functional(risk, **arguments):
    """The same risk as an objective of which the library knows functions only."""
    return mfld.Functional(
        risk.loss_gradient,
        risk.loss,
        n_coordinates=risk.n_coordinates,
        l2=risk.l2,
        n_samples=risk.n_samples,
        initial_particles=lambda x: risk.initial_particles(len(x), seed=2, dtype=x.dtype),
        **arguments,
    )


# ---- the same run ----------------------------------------------------------------------------------------------------


@every_estimator
@every_problem
def test_native_loss_in_python_neurons_in_python_and_objective_in_python_agree(problem, estimator):
    risks = make_risks(problem)
    solver = make_solver(gradient=estimator)
    particles = risks[0].initial_particles(10, 2, dtype="float64")
    expected = solver.run(risks[0], 30, seed=2, record_every=30, particles=particles)
    assert np.abs(expected.particles - particles).max() > 0.1
    for other in [*risks[1:], as_functional(risks[0])]:
        result = solver.run(other, 30, seed=2, record_every=30, particles=particles)
        assert_allclose(result.particles, expected.particles, rtol=0, atol=1e-12)
        assert_allclose(result.info.gradient_norm, expected.info.gradient_norm, rtol=1e-11)
        if estimator == mfld.FullBatch():
            assert_allclose(result.info.loss, expected.info.loss, rtol=1e-11)


@every_problem
def test_agreement_in_single_precision(problem):
    risks = make_risks(problem)
    solver = make_solver(dtype="float32")
    particles = risks[0].initial_particles(10, 2)
    expected = solver.run(risks[0], 10, seed=2, particles=particles).particles
    for other in risks[1:]:
        result = solver.run(other, 10, seed=2, particles=particles).particles
        assert result.dtype == np.float32
        assert_allclose(result, expected, atol=2e-5)


@every_problem
def test_first_variation_and_predictions_agree(problem):
    risks = make_risks(problem)
    rng = np.random.default_rng(1)
    n_coordinates = risks[0].n_coordinates
    cloud = mfld.Cloud(rng.normal(size=(6, n_coordinates)), rng.uniform(0.5, 2, size=6))
    points = rng.normal(size=(4, n_coordinates))
    expected = risks[0].first_variation(cloud)
    for other in risks[1:]:
        variation = other.first_variation(cloud)
        assert_allclose(variation(points), expected(points), rtol=1e-12)
        assert_allclose(variation.gradient(points), expected.gradient(points), rtol=1e-11, atol=1e-14)
        assert_allclose(other.value(cloud), risks[0].value(cloud), rtol=1e-12)
        signed = rng.normal(size=6)
        one, two = (risk.model.predict(cloud.particles, INPUTS, signed) for risk in (other, risks[0]))
        assert one.shape == two.shape
        assert_allclose(one, two, atol=1e-13)
        assert_allclose(
            other.model.neurons(points, INPUTS), risks[0].model.neurons(points, INPUTS), rtol=1e-12, atol=1e-15
        )
    result = make_solver().run(risks[3], 5)
    assert_allclose(result.predict(INPUTS), risks[0].model.predict(result.particles, INPUTS), atol=1e-13)


@every_problem
def test_restart_equals_continue_with_parts_in_python(problem):
    for risk in make_risks(problem)[1:]:
        solver = make_solver(gradient=mfld.SVRG(7, 4))
        whole = solver.run(risk, 10, seed=1).state
        state, _ = solver.advance(risk, solver.init(risk, seed=1), 3)
        state, _ = solver.advance(risk, state, 7)
        assert state.particles.tobytes() == whole.particles.tobytes()


# ---- losses ----------------------------------------------------------------------------------------------------------


def test_a_loss_is_called_once_a_step_and_once_more_where_it_is_recorded():
    calls = []

    def counted(u, y):
        calls.append((u.shape, y.shape, u.dtype, y.dtype))
        return squared(u, y)

    risk = mfld.EmpiricalRisk(NATIVE, INPUTS, TARGETS[:, np.newaxis], loss=counted)
    make_solver(gradient=mfld.Minibatch(7), dtype="float32").run(risk, 20, record_every=10)
    rows, single = (7,), np.dtype("float32")
    assert calls == [(rows, rows, single, single)] * 22  # what is recorded is from the rows of the step


def test_a_loss_gets_arrays_that_are_its_own():
    def greedy(u, y):
        result = squared(u.copy(), y.copy())
        u[:], y[:] = np.nan, np.nan
        return result

    risks = [mfld.EmpiricalRisk(NATIVE, INPUTS, TARGETS, loss=loss) for loss in (squared, greedy)]
    one, two = (make_solver().run(risk, 5).particles for risk in risks)
    assert one.tobytes() == two.tobytes()


def test_targets_of_a_loss_may_have_columns_of_their_own():
    # Each row has its own width: a Gaussian likelihood with known scale.
    def scaled(u, y):
        error = (u - y[:, 0]) / y[:, 1]
        return error**2 / 2, error / y[:, 1]

    scale = np.random.default_rng(0).uniform(0.5, 2, size=24)
    risk = mfld.EmpiricalRisk(NATIVE, INPUTS, np.column_stack([TARGETS, scale]), loss=scaled)
    weighted = mfld.EmpiricalRisk(NATIVE, INPUTS, TARGETS, loss="half_squared", sample_weight=scale**-2)
    particles = NATIVE.initial_particles(6, dtype="float64")
    assert_allclose(risk.gradient(particles), weighted.gradient(particles) * np.mean(scale**-2), rtol=1e-11, atol=1e-15)


def test_a_loss_function_evaluates_like_a_loss():
    u = np.random.default_rng(0).normal(size=24)
    native, own = mfld.Loss("logistic"), Logistic()
    assert_allclose(own.value(u, LABELS), native.value(u, LABELS))
    assert_allclose(own.derivative(u, LABELS), native.derivative(u, LABELS))
    for one, two in zip(native.value_and_derivative(u, LABELS), own.value_and_derivative(u, LABELS), strict=True):
        assert_allclose(one, two)
    assert (own.convex, own.smoothness) == (native.convex, native.smoothness)


def test_risks_with_own_parts_survive_pickling():
    particles = NATIVE.initial_particles(6, dtype="float64")
    risk = mfld.EmpiricalRisk(NATIVE, INPUTS, LABELS, loss=squared)
    assert pickle.loads(pickle.dumps(risk)).value(particles) == risk.value(particles)


def returning(result):
    def loss(u, y):
        return result(u)

    return loss


def nan_at_3(u):
    return np.where(np.arange(len(u)) == 3, np.nan, u)


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (lambda u: u, TypeError, r"loss loss must return a tuple \(values, derivative\), got array"),
        (lambda u: (u, u, u), TypeError, r"loss loss must return a tuple \(values, derivative\), got \(array"),
        (
            lambda u: (u.sum(), u),
            ValueError,
            r"the values of loss loss must have shape \(24,\) to match predictions, got \(\)",
        ),
        (lambda u: (u, u[:5]), ValueError, r"the derivative of loss loss must have shape \(24,\) .*, got \(5,\)"),
        (
            lambda u: (u, u + 1j),
            TypeError,
            "the derivative of loss loss must be an array of real numbers, got dtype comp",
        ),
        (lambda u: ("a", u), TypeError, "the values of loss loss must be an array of real numbers, got dtype <U1"),
        (lambda u: (None, u), TypeError, "the values of loss loss must be an array of real numbers, got dtype object"),
        (lambda u: ([[1], [1, 2]], u), ValueError, "the values of loss loss must be an array of real numbers: "),
        (
            lambda u: (nan_at_3(u), u),
            ValueError,
            "the values of loss loss must not be nan; got nan for prediction .* and t",
        ),
        (
            lambda u: (u, nan_at_3(u)),
            ValueError,
            "the derivative of loss loss must not be nan; got nan for prediction ",
        ),
    ],
)
def test_what_a_loss_returns_is_checked(result, error, message):
    risk = mfld.EmpiricalRisk(NATIVE, INPUTS, TARGETS, loss=returning(result))
    with pytest.raises(error, match=message):
        make_solver().run(risk, 3)


def test_the_message_names_the_class_of_a_loss():
    class Broken(mfld.LossFunction):
        def value_and_derivative(self, predictions, targets):
            return predictions, None

    with pytest.raises(TypeError, match=r"the derivative of Broken\.value_and_derivative must be an array of real"):
        mfld.EmpiricalRisk(NATIVE, INPUTS, TARGETS, loss=Broken()).gradient(np.zeros((2, 5)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"targets": TARGETS[:5]}, ValueError, "targets must have 24 rows to match inputs, got 5"),
        ({"targets": np.ones((24, 2, 2))}, ValueError, r"targets must have shape \(n,\) or \(n, C\).*got \(24, 2, 2\)"),
        ({"targets": np.full(24, np.nan)}, ValueError, "targets must be finite, got nan at index 0"),
        ({"targets": ["a"] * 24}, TypeError, "targets must be an array of real numbers, got dtype <U1"),
        ({"loss": mfld.Loss}, TypeError, "loss must be a name, a LossFunction, or a function .*, got <class"),
        ({"loss": Logistic}, TypeError, "loss must be a name, a LossFunction, or a function .*, got <class"),
        ({"loss": CrossEntropy(), "targets": CLASSES}, ValueError, "n_outputs must be the number of classes"),
    ],
)
def test_refused_risks_with_a_loss_of_the_user(arguments, error, message):
    with pytest.raises(error, match=message):
        mfld.EmpiricalRisk(**{"model": NATIVE, "inputs": INPUTS, "targets": TARGETS, "loss": squared, **arguments})


def test_predictions_that_overflow_are_a_divergence_and_not_the_fault_of_the_loss():
    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(3, activation="relu"), INPUTS, TARGETS, loss=squared)
    with pytest.raises(mfld.DivergenceError), np.errstate(over="ignore", invalid="ignore"):
        make_solver(step_size=1e4).run(risk, 100)


@pytest.mark.parametrize("kind", ["loss", "neurons", "functional"])
def test_an_exception_out_of_a_function_of_the_user_loses_no_step(kind):
    calls = []

    def counted(function):
        def failing(*arguments):
            calls.append(1)
            if len(calls) == 18:
                raise ArithmeticError("eighteenth call")
            return function(*arguments)

        return failing

    sound = make_risks("squared", sample_weight=None)[0]
    failing_neurons = mfld.NeuronModel(value, counted(gradient), n_features=3, n_coordinates=5)
    objective = {
        "loss": mfld.EmpiricalRisk(NATIVE, INPUTS, TARGETS, loss=counted(squared), l2=0.02),
        "neurons": mfld.EmpiricalRisk(failing_neurons, INPUTS, TARGETS, loss="squared", l2=0.02),
        "functional": mfld.Functional(counted(sound.loss_gradient), n_coordinates=5, l2=0.02),
    }[kind]
    particles = NATIVE.initial_particles(10, dtype="float64")
    with pytest.raises(ArithmeticError, match="eighteenth call") as caught:
        make_solver().run(objective, 100, record_every=8, particles=particles)
    state = caught.value.state
    # The loss is called once more at each record.
    assert state.step == {"loss": 15, "neurons": 17, "functional": 17}[kind]
    assert caught.value.result.state is state
    assert caught.value.result.history["step"].tolist() == list(range(8, state.step + 1, 8))
    assert_allclose(state.particles, make_solver().run(sound, state.step, particles=particles).particles, atol=1e-12)


# ---- neurons ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [1, 30, 1000])
def test_neurons_are_evaluated_in_blocks(numbers, monkeypatch):
    seen = []

    def counted(function):
        def wrapped(theta, z):
            result = function(theta, z)
            seen.append(result.size)
            return result

        return wrapped

    model = mfld.NeuronModel(counted(values), counted(gradients), n_features=3, n_coordinates=7, n_outputs=3)
    risks = [
        mfld.EmpiricalRisk(m, INPUTS, CLASSES, loss="cross_entropy", sample_weight=WEIGHT) for m in (model, NATIVE3)
    ]
    particles = NATIVE3.initial_particles(10, dtype="float64")
    whole, native = (risk.gradient(particles) for risk in risks)
    assert max(seen) == 24 * 10 * 3 * 7
    seen.clear()
    monkeypatch.setattr(models, "_NUMBERS_AT_A_TIME", numbers)
    assert_allclose(risks[0].gradient(particles), whole, rtol=1e-12, atol=1e-15)
    assert_allclose(whole, native, rtol=1e-10, atol=1e-15)
    assert_allclose(model.neurons(particles, INPUTS), NATIVE3.neurons(particles, INPUTS), rtol=1e-12, atol=1e-15)
    assert max(seen) <= max(numbers, 3 * 7)  # of one pair at least
    assert len(seen) > 10


def test_frozen_coordinates_of_neurons_do_not_move():
    model = mfld.NeuronModel(value, gradient, n_features=3, n_coordinates=5, n_moving=4, initial_particles=np.sign)
    signs = mfld.TwoLayerNetwork(3, readout="signs")
    risks = [mfld.EmpiricalRisk(m, INPUTS, TARGETS, loss="squared", l2=0.1) for m in (model, signs)]
    particles = model.initial_particles(10, dtype="float64")
    assert set(np.unique(particles)) == {-1, 1}
    own, native = (make_solver().run(risk, 10, particles=particles).particles for risk in risks)
    assert_allclose(own, native, atol=1e-12)
    assert np.array_equal(own[:, 4], particles[:, 4])


def make_model(**arguments):
    return mfld.NeuronModel(**{"value": value, "gradient": gradient, "n_features": 3, "n_coordinates": 5, **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"value": 3}, TypeError, r"value must be callable, got 3 \(int\)"),
        ({"gradient": None}, TypeError, "gradient must be callable, got None"),
        ({"initial_particles": 1}, TypeError, "initial_particles must be callable, got 1"),
        ({"n_features": 0}, ValueError, "n_features must be at least 1, got 0"),
        ({"n_coordinates": 2.0}, TypeError, "n_coordinates must be an integer, got 2.0"),
        ({"n_outputs": 0}, ValueError, "n_outputs must be at least 1, got 0"),
        ({"n_moving": 6}, ValueError, "n_moving must be between 1 and 5, got 6"),
        (
            {"value": lambda x, z: hidden(x, z).T},
            ValueError,
            r"the result of value must have shape \(24, 2\) to match inputs and particles, got \(2, 24\)",
        ),
        (
            {"gradient": values},
            ValueError,
            r"the result of gradient must have shape \(24, 2, 5\) to match inputs and particles, got \(24, 2, 1\)",
        ),
        (
            {"value": lambda x, z: "no"},
            TypeError,
            "the result of value must be an array of real numbers, got dtype <U2",
        ),
        (
            {"value": lambda x, z: np.full((24, 2), np.nan)},
            ValueError,
            r"the result of value must not be nan; it is for the particle \[0. 0. 0. 0. 0.\] and the input \[",
        ),
        ({"n_coordinates": 6}, ValueError, r"particles must have shape \(N, 6\) to suit the objective, got \(2, 5\)"),
        ({"n_features": 4}, ValueError, r"inputs must have shape \(n, 4\) .*got \(24, 3\)"),
    ],
)
def test_refused_neurons(arguments, error, message):
    with pytest.raises(error, match=message):
        mfld.EmpiricalRisk(make_model(**arguments), INPUTS, TARGETS, loss="squared").gradient(np.zeros((2, 5)))


def test_initial_particles_of_neurons_are_checked():
    with pytest.raises(ValueError, match=r"the result of initial_particles must have shape \(7, 5\) .* got \(7, 2\)"):
        make_model(initial_particles=lambda x: x[:, :2]).initial_particles(7)
    assert_allclose(NEURONS.initial_particles(4), mfld.noise.normals(0, 0, 4, 5, stream="init") / [1, 2, 3, 4, 5])


# ---- objectives ------------------------------------------------------------------------------------------------------


def spread(x):
    """U = Var_mu(theta_0) * Var_mu(theta_1), not linear in mu; its first variation by hand."""
    d = x - x.mean(axis=0)
    return d[:, 0].var() * d[:, 1].var()


def spread_gradient(x):
    d = x - x.mean(axis=0)
    return 2 * d * d.var(axis=0)[::-1]


def test_functional():
    functional = mfld.Functional(spread_gradient, spread, n_coordinates=2, n_moving=1, l2=0.5)
    x = np.random.default_rng(0).normal(size=(5, 2))
    h, expected = 1e-5, np.zeros((5, 2))
    for place in np.ndindex(5, 1):
        step = np.zeros((5, 2))
        step[place] = h
        expected[place] = 5 * (functional.value(x + step) - functional.value(x - step)) / (2 * h)
    assert_allclose(functional.gradient(x), expected, atol=1e-9)
    assert_allclose(functional.value(x), spread(x) + 0.5 * np.mean(x[:, 0] ** 2))
    assert_allclose([functional.loss(x), functional.ridge(x)], [spread(x), 0.5 * np.mean(x[:, 0] ** 2)])
    result = make_solver(n_particles=5).run(functional, 3, particles=x)
    assert np.array_equal(result.particles[:, 1], x[:, 1])


def test_a_functional_is_called_once_a_step_with_arrays_of_its_own():
    seen = []

    def doubling(x, batch):
        seen.append((x, batch))
        x *= 2
        return x

    functional = mfld.Functional(doubling, n_coordinates=1, n_samples=10)
    solver = make_solver(n_particles=2, step_size=0.25, temperature=0.0, gradient=mfld.Minibatch(3))
    result = solver.run(functional, 3, seed=6, particles=[[8.0], [16.0]])
    assert_allclose(result.particles, [[1.0], [2.0]])
    assert [batch.tolist() for _, batch in seen] == [mfld.noise.minibatch(6, k, 10, 3).tolist() for k in range(3)]
    seen.clear()
    functional.gradient(np.ones((2, 1)))
    assert seen[0][1] is None
    assert np.isnan(result.history["loss"]).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mfld.Functional(1, n_coordinates=2), TypeError, "gradient must be callable, got 1"),
        (lambda: mfld.Functional(abs, 1, n_coordinates=2), TypeError, "value must be callable, got 1"),
        (lambda: mfld.Functional(abs, n_coordinates=0), ValueError, "n_coordinates must be at least 1, got 0"),
        (lambda: mfld.Functional(abs, n_coordinates=2, n_moving=0), ValueError, "n_moving must be between 1 and 2"),
        (lambda: mfld.Functional(abs, n_coordinates=2, l2=-1), ValueError, "l2 must be finite and at least 0, got -1"),
        (lambda: mfld.Functional(abs, n_coordinates=2, n_samples=0), ValueError, "n_samples must be at least 1, got 0"),
        (
            lambda: mfld.Functional(abs, n_coordinates=2, initial_particles=3),
            TypeError,
            "initial_particles must be callable, got 3",
        ),
        (
            lambda: mfld.Functional(abs, n_coordinates=2).value(np.ones((3, 2))),
            TypeError,
            "this Functional has a gradient only: give it value=",
        ),
        (
            lambda: mfld.Functional(abs, abs, n_coordinates=2).value(np.ones((3, 2))),
            ValueError,
            r"the result of value must have shape \(\), got \(3, 2\)",
        ),
        (
            lambda: mfld.Functional(np.sum, n_coordinates=2).gradient(np.ones((3, 2))),
            ValueError,
            r"the result of gradient must have shape \(3, 2\) to match the particles, got \(\)",
        ),
        (
            lambda: mfld.Functional(abs, n_coordinates=2).gradient(np.ones((3, 2)), batch=[0]),
            ValueError,
            "batch must be None for a Functional without n_samples",
        ),
        (
            lambda: mfld.Functional(abs, n_coordinates=2).gradient(mfld.Cloud(np.ones((3, 2)), np.ones(3))),
            ValueError,
            "measure must have particles of equal weight",
        ),
        (
            lambda: mfld.Functional(abs, n_coordinates=2).first_variation(np.ones((3, 2))),
            TypeError,
            "first_variation is not defined for a Functional",
        ),
        (
            lambda: mfld.Functional(abs, n_coordinates=2, n_samples=3).first_variation(np.ones((3, 2)), [0]),
            TypeError,
            "first_variation is not defined for a Functional",
        ),
        (
            lambda: make_solver(gradient=mfld.Minibatch(2)).init(mfld.Functional(abs, n_coordinates=2)),
            ValueError,
            r"gradient must be FullBatch\(\) for a Functional, which has no samples",
        ),
    ],
)
def test_refused_functionals(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- JAX and torch ---------------------------------------------------------------------------------------------------


def jax_risk(inputs, targets):
    jnp = pytest.importorskip("jax.numpy")

    def risk(x, batch):
        f = jnp.mean(jnp.tanh(jnp.asarray(inputs)[batch] @ x[:, :3].T + x[:, 3]) * x[:, 4], axis=1)
        return jnp.mean((f - jnp.asarray(targets)[batch]) ** 2)

    return mfld.Functional.from_jax(risk, n_coordinates=5, l2=0.02, n_samples=24)


def torch_risk(inputs, targets):
    torch = pytest.importorskip("torch")
    inputs, targets = torch.from_numpy(inputs), torch.from_numpy(targets)

    def risk(x, batch):
        f = torch.mean(torch.tanh(inputs.to(x)[batch] @ x[:, :3].T + x[:, 3]) * x[:, 4], dim=1)
        return torch.mean((f - targets.to(x)[batch]) ** 2)

    return mfld.Functional.from_torch(risk, n_coordinates=5, l2=0.02, n_samples=24)


every_library = pytest.mark.parametrize("wrapped", [jax_risk, torch_risk], ids=["jax", "torch"])


@every_library
def test_wrapped_gradients_are_the_native_ones(wrapped, dtype):
    wrapped = wrapped(INPUTS, TARGETS)
    risk = mfld.EmpiricalRisk(NATIVE, INPUTS, TARGETS, loss="squared", l2=0.02)
    particles = NATIVE.initial_particles(50, 1, dtype=dtype)
    atol = {"float32": 3e-6, "float64": 1e-14}[dtype.name]  # some ten roundings of numbers about 1
    for batch in (None, np.array([3, 20, 4])):
        gradient = wrapped.loss_gradient(particles, batch)
        assert gradient.dtype == dtype
        assert_allclose(gradient, risk.loss_gradient(particles, batch), rtol=0, atol=atol)
    assert_allclose(wrapped.value(particles), risk.value(particles), rtol=1e-5 if dtype == np.float32 else 1e-13)


@every_library
@every_estimator
def test_wrapped_runs_are_the_native_ones(wrapped, estimator):
    wrapped = wrapped(INPUTS, TARGETS)
    risk = mfld.EmpiricalRisk(NATIVE, INPUTS, TARGETS, loss="squared", l2=0.02)
    particles = NATIVE.initial_particles(10, dtype="float64")
    solver = make_solver(gradient=estimator)
    one, two = (solver.run(objective, 20, particles=particles).particles for objective in (wrapped, risk))
    assert_allclose(one, two, rtol=0, atol=1e-12)


@every_library
def test_wrappers_without_samples_and_with_frozen_coordinates(wrapped):
    name = wrapped.__name__.partition("_")[0]
    pytest.importorskip(name)
    make = getattr(mfld.Functional, f"from_{name}")
    functional = make(lambda x: (x.mean(0) ** 2).sum() / 2, n_coordinates=2, n_moving=1)
    x = np.array([[1.0, 5.0], [2.0, 6.0]])
    assert_allclose(functional.gradient(x), [[1.5, 0], [1.5, 0]], rtol=1e-15)
    assert functional.gradient(x.astype(np.float32)).dtype == np.float32
    assert_allclose(functional.loss(x), (1.5**2 + 5.5**2) / 2)
    with pytest.raises(ValueError, match=r"function must return a scalar, got shape \(2,\)"):
        make(lambda x: x.sum(1), n_coordinates=2).gradient(x)
    with pytest.raises(ValueError, match=r"function must return a scalar, got shape \(1,\)"):
        make(lambda x: x.sum().reshape(1), n_coordinates=2).loss(x)
    with pytest.raises(TypeError, match="function must be callable, got 3"):
        make(3, n_coordinates=2)
    with pytest.raises(TypeError, match="value must be left out: it is made from function"):
        make(abs, value=abs, n_coordinates=2)
    with pytest.raises(ValueError, match="n_samples must be at least 1, got 0"):
        make(abs, n_samples=0, n_coordinates=2)


def test_torch_keeps_no_gradients_and_minds_no_mode():
    torch = pytest.importorskip("torch")
    centre = torch.tensor([2.0], requires_grad=True)
    functional = mfld.Functional.from_torch(lambda x: ((x - centre) ** 2).mean() / 2, n_coordinates=1)
    x = np.array([[1.0], [5.0]], np.float32)
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            assert_allclose(functional.gradient(x), x - 2)
            assert functional.loss(x) == 2.5
    assert centre.grad is None
    with pytest.raises(ValueError, match="function must depend on the particles through operations of torch"):
        mfld.Functional.from_torch(lambda x: torch.tensor(1.0), n_coordinates=1).gradient(x)


def test_jax_compiles_once_and_its_setting_stays():
    jax = pytest.importorskip("jax")
    traces = []

    def traced(x):
        traces.append(x.dtype)
        return (x**2).mean() / 2

    functional = mfld.Functional.from_jax(traced, n_coordinates=1)
    before = jax.config.jax_enable_x64
    for precision in ("float64", "float32"):
        make_solver(dtype=precision).run(functional, 5, record_every=())
    # The gradient and, for the last step, the value: once for each precision.
    assert list(map(str, traces)) == ["float64"] * 2 + ["float32"] * 2
    assert jax.config.jax_enable_x64 == before
    make_solver().run(functional, 5)
    assert len(traces) == 4


@pytest.mark.parametrize("name", ["jax", "torch"])
def test_wrappers_say_what_to_install(name, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ImportError, match=f"Functional.from_{name} needs {name}: pip install {name}"):
        getattr(mfld.Functional, f"from_{name}")(abs, n_coordinates=1)


# ---- mistakes in parts of one's own ----------------------------------------------------------------------------------


def quadratic(**options):
    return mfld.Potential(lambda x: x, lambda x: np.sum(x**2, axis=1) / 2, n_coordinates=1, **options)


def moving(returned):
    class Own(mfld.Dynamics):
        def move(self, particles, buffers, drift, step):
            gradient, buffers = drift(particles, buffers, step.place)
            return returned(particles, buffers, gradient)

    return mfld.MFLD(5, step_size=0.1, temperature=1.0, dynamics=Own())


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (lambda p, b, g: None, TypeError, r"what Own\.move returned must be a Move"),
        (
            lambda p, b, g: mfld.dynamics.Move(p.tolist(), b, g),
            TypeError,
            "the particles of what Own.move returned must be",
        ),
        (
            lambda p, b, g: mfld.dynamics.Move(p[:2], b, g),
            ValueError,
            r"must have shape \(5, 1\) to match those before",
        ),
        (
            lambda p, b, g: mfld.dynamics.Move(2.0 * p.astype("f8"), b, g),
            TypeError,
            "must be float32 as before, got float64",
        ),
    ],
)
def test_a_dynamics_must_return_a_move_of_the_particles(returned, error, message):
    with pytest.raises(error, match=message):
        moving(returned).run(quadratic(), 1)


def test_a_dynamics_that_does_not_look_for_bad_particles_diverges_all_the_same():
    def returned(particles, buffers, gradient):
        moved = particles.copy()
        moved[3] = np.nan
        return mfld.dynamics.Move(moved, buffers, gradient)

    with pytest.raises(mfld.DivergenceError, match="particle 3 is no longer finite"):
        moving(returned).run(quadratic(), 2)


@pytest.mark.parametrize(
    ("coefficients", "error", "message"),
    [
        (lambda h, t, l2: (0, h, np.float32(0.5)), None, ""),
        (lambda h, t, l2: None, TypeError, r"Own\.coefficients\(step_size, temperature, l2\) must return a tuple"),
        (lambda h, t, l2: (0.0, h), TypeError, "must return a tuple of numbers or arrays, got"),
        (lambda h, t, l2: (0.0, h, "much"), TypeError, "must return numbers or arrays of them, got 'much'"),
        (lambda h, t, l2: (np.nan, h, 0.1), ValueError, "must be finite, with a positive step, got"),
        (lambda h, t, l2: (0.0, -h, 0.1), ValueError, "with a positive step, got"),
        (lambda h, t, l2: (0.0, 0 * h, 0.1), ValueError, "for step_size=0.1, temperature=1.0, l2=0.0"),
    ],
)
@pytest.mark.parametrize("native", [True, False])
def test_coefficients_of_an_affine_dynamics_are_checked(coefficients, error, message, native):
    class Own(mfld.dynamics.Affine):
        def coefficients(self, step_size, temperature, l2):
            return coefficients(step_size, temperature, l2)

    objective = quadratic()
    if native:
        objective = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(1), [[1.0]], [1.0], loss="squared")
    solver = mfld.MFLD(5, step_size=0.1, temperature=1.0, dynamics=Own())
    if error is None:
        solver.run(objective, 2)
        return
    with pytest.raises(error, match=message):
        solver.run(objective, 2)


@pytest.mark.parametrize("name", ["move", "native", "start", "buffer_names"])
def test_an_affine_dynamics_is_its_coefficients(name):
    with pytest.raises(TypeError, match=f"Own must not define {name}"):
        type("Own", (mfld.dynamics.Affine,), {name: None})


@pytest.mark.parametrize(
    ("attributes", "error", "message"),
    [
        ({"space": None}, TypeError, r"Own\.space must be a Space"),
        ({"space": (2, 2)}, TypeError, r"Own\.space must be a Space"),
        ({"reference": 0.1}, TypeError, r"Own\.reference must be a Reference"),
        ({"members": 3}, TypeError, r"Own\.members must be a tuple"),
        ({"members": (0,)}, ValueError, r"Own\.members must be at least 1"),
        ({"reference": mfld.references.Uniform()}, ValueError, "domain must be bounded for a uniform reference"),
        (
            {"space": mfld.Space(domain=[mfld.Sphere(2)]), "reference": mfld.references.Gaussian(0.5)},
            ValueError,
            "reference must not be Gaussian on a domain",
        ),
        ({"loss": lambda self, measure: np.ones(3)}, TypeError, "loss of Own must return a number, got array"),
        ({"loss": lambda self, measure: None}, TypeError, "loss of Own must return a number, got None"),
    ],
)
def test_the_parts_of_an_objective_are_checked(attributes, error, message):
    own = {
        "space": mfld.Space(2),
        "loss": lambda self, measure: 0.0,
        "loss_gradient": lambda self, measure, batch=None: np.zeros_like(self.cloud(measure).particles),
        "first_variation": lambda self, measure, batch=None: None,
        **attributes,
    }
    objective = type("Own", (mfld.Objective,), own)()
    with pytest.raises(error, match=message):
        mfld.MFLD(5, step_size=0.1, temperature=1.0).run(objective, 1)


def curved(name):
    """V = cos(x_0) x_1**2 + exp(x_0) in one of the libraries, by automatic differentiation."""
    library = pytest.importorskip({"jax": "jax.numpy", "torch": "torch"}[name])
    make = getattr(mfld.Potential, f"from_{name}")
    return make(
        lambda x: library.cos(x[:, 0]) * x[:, 1] ** 2 + library.exp(x[:, 0]), n_coordinates=3, n_moving=2, l2=0.25
    )


def curved_by_hand(x, v):
    a, b = x[:, 0], x[:, 1]
    gradient = np.stack([-np.sin(a) * b**2 + np.exp(a), 2 * np.cos(a) * b, 0 * a], axis=1)
    first = (-np.cos(a) * b**2 + np.exp(a)) * v[:, 0] - 2 * np.sin(a) * b * v[:, 1]
    second = -2 * np.sin(a) * b * v[:, 0] + 2 * np.cos(a) * v[:, 1]
    return np.cos(a) * b**2 + np.exp(a), gradient, np.stack([first + 0.5 * v[:, 0], second + 0.5 * v[:, 1], 0 * a], 1)


@pytest.mark.parametrize("name", ["jax", "torch"])
def test_potentials_by_automatic_differentiation(name, dtype):
    potential = curved(name)
    x, v = np.random.default_rng(4).normal(size=(2, 7, 3)).astype(dtype)
    value, gradient, product = curved_by_hand(x.astype(float), v.astype(float))
    rtol = {"float32": 1e-5, "float64": 1e-13}[dtype.name]
    assert_allclose(potential.loss(x), value.mean(), rtol=rtol)
    assert_allclose(potential.loss_gradient(x), gradient, rtol=rtol, atol=rtol)
    found = potential.hessian_vector(x, v)
    assert found.dtype == dtype
    assert_allclose(found, product, rtol=rtol, atol=rtol)
    make = getattr(mfld.Potential, f"from_{name}")
    with pytest.raises(ValueError, match=r"function must return shape \(M,\), got shape \(7, 3\)"):
        make(lambda x: x**2, n_coordinates=3).loss_gradient(x)
    linear = make(lambda x: 3 * x.sum(1), n_coordinates=3)
    assert_allclose(linear.hessian_vector(x, v), 0 * x)
    with pytest.raises(TypeError, match="hessian_vector must be left out: it is made from function"):
        make(abs, hessian_vector=abs, n_coordinates=2)


@pytest.mark.parametrize("name", ["jax", "torch"])
def test_stein_discrepancies_by_automatic_differentiation(name):
    """Against the potential that brings its products; differences of the gradient are good to 1e-9 only."""
    pytest.importorskip(name)
    make = getattr(mfld.Potential, f"from_{name}")
    bent = make(lambda x: x[:, 0] ** 2 / 18 + (x[:, 1] + 0.1 * x[:, 0] ** 2 - 0.9) ** 2 / 2, n_coordinates=2)
    kernel, x = mfld.kernels.InverseMultiquadric(1.0), np.random.default_rng(2).normal(size=(20, 2))
    own, wrapped = (mfld.KSD(potential, kernel) for potential in (mfld.potentials.Banana(), bent))
    assert_allclose(wrapped.loss(x), own.loss(x), rtol=1e-12)
    assert_allclose(wrapped.loss_gradient(x), own.loss_gradient(x), rtol=1e-11, atol=1e-13)
