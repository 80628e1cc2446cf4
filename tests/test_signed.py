"""Signed measures: values and gradients of both reductions, best weights, label noise, moves on cones."""

import dataclasses
import itertools

import numpy as np
import pytest

import mfld
from mfld import linear

RNG = np.random.default_rng(0)
N_ROWS, N_FEATURES = 30, 3
INPUTS = RNG.normal(size=(N_ROWS, N_FEATURES))
WEIGHTS = RNG.uniform(0, 1, N_ROWS)
TANH = mfld.TwoLayerNetwork(N_FEATURES, readout="fixed")
BUMPS = mfld.NeuronModel(
    lambda w, z: np.exp(-np.sum((z[:, np.newaxis] - w) ** 2, axis=2) / 2),
    lambda w, z: (
        np.exp(-np.sum((z[:, np.newaxis] - w) ** 2, axis=2) / 2)[:, :, np.newaxis] * (z[:, np.newaxis] - w[np.newaxis])
    ),
    n_features=N_FEATURES,
    n_coordinates=N_FEATURES,
)


def targets(loss, n_outputs, n=N_ROWS):
    drawn = np.random.default_rng(n_outputs).normal(size=(n, n_outputs))
    if loss == "cross_entropy":
        return np.argmax(drawn, axis=1)
    return (np.sign(drawn) if loss in ("logistic", "smoothed_hinge") else drawn).squeeze(
        axis=1 if n_outputs == 1 else ()
    )


def make(reduction=None, loss="half_squared", n_outputs=1, model=TANH, strength=0.05, **options):
    options = {"sample_weight": WEIGHTS, "l2": 0.01, "n_outputs": n_outputs, **options}
    return mfld.SignedRisk(
        model, INPUTS, targets(loss, n_outputs), loss=loss, strength=strength, reduction=reduction, **options
    )


def slope(function, smooth=True):
    """Derivative at 0 by central differences: of order 6, or of order 2 and narrow where the third one jumps."""
    width, shares = (4e-3, (3 / 2, -3 / 5, 1 / 10)) if smooth else (1e-5, (1.0,))
    ends = [(function(q * width) - function(-q * width)) / (2 * q * width) for q in range(1, len(shares) + 1)]
    return sum(share * end for share, end in zip(shares, ends, strict=True))


def differences(risk, particles, weights=None):
    """Gradient of the first variation by differences of the value."""
    share = np.full(len(particles), 1 / len(particles)) if weights is None else weights / np.sum(weights)
    gradient = np.zeros_like(particles)

    def value(shift, m, j):
        moved = particles.copy()
        moved[m, j] += shift
        return risk.value(mfld.Cloud(moved, weights))

    for m, j in itertools.product(*map(range, particles.shape)):
        gradient[m, j] = slope(lambda shift: value(shift, m, j), is_smooth(risk)) / share[m]  # noqa: B023
    return gradient


def is_smooth(risk):
    return risk.loss_function.name != "huber"


CASES = [
    (reduction, loss, n_outputs, model)
    for reduction in (mfld.Bilevel(tolerance=1e-13), mfld.Lifting())
    for loss in ("half_squared", "squared", "logistic", "huber", "cross_entropy")
    for n_outputs in (1, 3)
    for model in (TANH, BUMPS)
    if n_outputs > 1 or loss != "cross_entropy"
]


@pytest.mark.parametrize("n_particles", [6, 40])
@pytest.mark.parametrize(("reduction", "loss", "n_outputs", "model"), CASES)
def test_gradients_are_those_of_the_value(reduction, loss, n_outputs, model, n_particles):
    """To 1e-9: the error of differences is about their sixth power of the width, and 1e-16 over it."""
    risk = make(reduction, loss, n_outputs, model)
    particles = risk.initial_particles(n_particles, 1, "float64")
    weights = np.random.default_rng(2).uniform(0.5, 1, n_particles) if n_particles == 6 else None
    cloud = mfld.Cloud(particles, weights)
    gradient = risk.gradient(cloud)
    precision = 1e-9 if is_smooth(risk) else 3e-8
    expected = differences(risk, particles, weights)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=precision * np.abs(expected).max())
    potential = risk.first_variation(cloud)
    np.testing.assert_allclose(potential.gradient(particles), gradient, rtol=0, atol=1e-13)
    points = risk.initial_particles(3, 5, "float64")
    by_differences = np.zeros_like(points)
    for j, axis in enumerate(np.eye(points.shape[1])):
        by_differences[:, j] = slope(lambda shift: potential(points + shift * axis))  # noqa: B023
    atol = 1e-9 * np.abs(by_differences).max()
    np.testing.assert_allclose(potential.gradient(points), by_differences, rtol=0, atol=atol)


LOSSES = ["half_squared", "squared", "logistic", "huber", "smoothed_hinge"]


@pytest.mark.parametrize(("loss", "n_outputs"), [*itertools.product(LOSSES, (1, 3)), ("cross_entropy", 3)])
def test_best_weights_are_a_minimum_that_scipy_finds(loss, n_outputs):
    optimize = pytest.importorskip("scipy.optimize")
    risk = make(mfld.Bilevel(tolerance=1e-12), loss=loss, n_outputs=n_outputs, l2=0.0)
    particles = risk.initial_particles(7, 3, "float64")
    neurons = TANH.neurons(particles, INPUTS)
    s, y = WEIGHTS / WEIGHTS.sum(), targets(loss, n_outputs)

    def inner(flat):
        f = flat.reshape(7, n_outputs).squeeze(axis=1 if n_outputs == 1 else ())
        values, slopes = mfld.Loss(loss).value_and_derivative(neurons @ f / 7, y)
        slopes = (s * slopes.T).T
        return s @ values + risk.strength / 2 * np.sum(f**2) / 7, (
            neurons.T @ slopes / 7 + risk.strength * f / 7
        ).ravel()

    found = optimize.minimize(inner, np.zeros(7 * n_outputs), jac=True, method="BFGS", options={"gtol": 1e-11})
    assert risk.loss(particles) == pytest.approx(found.fun, rel=1e-10)
    np.testing.assert_allclose(7 * risk.signed_measure(particles).weights.ravel(), found.x, atol=1e-5)
    # The last part of the value is what the weights cost.
    fit_alone = s @ mfld.Loss(loss).value(risk.predict(particles, INPUTS), y)
    cost = risk.strength / 2 * np.sum(found.x**2) / 7
    assert risk.loss(particles) - fit_alone == pytest.approx(cost, rel=1e-6)


@pytest.mark.parametrize(("loss", "n_outputs"), [("logistic", 1), ("logistic", 2), ("cross_entropy", 4)])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-12])
@pytest.mark.parametrize("n_particles", [5, 60])
def test_newton_steps_end_within_the_tolerance(loss, n_outputs, tolerance, n_particles):
    """The gradient in the weights, which NumPy computes, beside its two terms."""
    risk = make(mfld.Bilevel(tolerance=tolerance), loss=loss, n_outputs=n_outputs, strength=1e-4)
    particles = 3 * risk.initial_particles(n_particles, 3, "float64")
    neurons, s = TANH.neurons(particles, INPUTS), (WEIGHTS / WEIGHTS.sum())[:, np.newaxis]
    coefficients = risk.coefficients(particles)
    f = neurons.T @ coefficients
    slopes = mfld.Loss(loss).derivative(neurons @ f / n_particles, targets(loss, n_outputs)).reshape(s.shape[0], -1)
    of_loss = neurons.T @ (s * slopes)
    # From the coefficients the weights are one step of the fixed point further than those that Newton's method left.
    growth = np.linalg.eigvalsh(neurons @ neurons.T / n_particles).max() / risk.strength * s.max()
    left = np.linalg.norm(of_loss + risk.strength * f) / np.linalg.norm(of_loss)
    assert left <= 2 * tolerance * (1 + growth) + 1e-12


def test_a_weak_ridge_that_newton_steps_do_not_master_is_said_so(monkeypatch):
    monkeypatch.setattr("mfld.objectives.weights._MOST_STEPS", 1)
    with pytest.raises(mfld.ConvergenceError, match="weights must come within 1e-10 of the best ones in 1 steps"):
        make(loss="logistic").loss(TANH.initial_particles(5, 0, "float64"))


# ---- steps that start from the weights of the step before ------------------------------------------------------------


def classification(tolerance=1e-10, **options):
    risk = make(mfld.Bilevel(tolerance), loss="cross_entropy", n_outputs=3, strength=1e-3)
    return risk, mfld.MFLD(30, step_size=0.25, temperature=1e-4, gradient=mfld.WarmStart(), **options)


def test_warm_starts_give_the_gradient_for_fewer_products(monkeypatch):
    counts = []
    product = linear.product
    monkeypatch.setattr(linear, "product", lambda *a, **o: counts.append(1) or product(*a, **o))
    for tolerance, difference in ((1e-10, 1e-8), (1e-2, 0.1)):
        risk, warm = classification(tolerance, dtype="float64", num_threads=1)
        ends, spent = [], []
        for solver in (warm, dataclasses.replace(warm, gradient=mfld.FullBatch())):
            counts.clear()
            state, _ = solver.advance(risk, solver.init(risk, seed=1), 20)
            ends.append(state.particles)
            spent.append(len(counts))
        np.testing.assert_allclose(ends[0], ends[1], atol=difference)
        assert spent[0] < 0.9 * spent[1]


@pytest.mark.parametrize("replicates", [1, 2])
def test_a_warm_run_goes_on_from_a_checkpoint_with_the_same_bits(tmp_path, replicates):
    risk, solver = classification(num_threads=1, n_replicates=replicates)
    whole = solver.run(risk, 7, seed=3)
    mfld.checkpoint.save(solver.run(risk, 3, seed=3).state, tmp_path / "run.npz")
    rest = solver.run(risk, 4, state=mfld.checkpoint.load(tmp_path / "run.npz"))
    np.testing.assert_array_equal(rest.state.clouds["mu"].particles, whole.state.clouds["mu"].particles)
    threads = dataclasses.replace(solver, num_threads=3).run(risk, 7, seed=3)
    np.testing.assert_array_equal(threads.state.clouds["mu"].particles, whole.state.clouds["mu"].particles)


def test_warm_starts_are_refused_where_nothing_iterates():
    _, solver = classification()
    for other in (make(), make(mfld.Lifting(), loss="logistic"), mfld.Potential(lambda x: x, n_coordinates=1)):
        with pytest.raises(ValueError, match=r"gradient must not be WarmStart\(\)"):
            solver.run(other, n_steps=1)


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_both_systems_give_the_same_weights(n_outputs):
    """With more particles than rows the system is that of the rows, else that of the particles."""
    few = mfld.SignedRisk(TANH, INPUTS[:5], targets("half_squared", n_outputs)[:5], strength=0.1)
    particles = few.initial_particles(20, 0, "float64")
    neurons = TANH.neurons(particles, INPUTS[:5])
    y = targets("half_squared", n_outputs)[:5].reshape(5, -1)
    dual = np.linalg.solve(neurons @ neurons.T / 20 + 5 * 0.1 * np.eye(5), y)
    primal = np.linalg.solve(neurons.T @ neurons / (20 * 5) + 0.1 * np.eye(20), neurons.T @ y / 5)
    np.testing.assert_allclose(neurons.T @ dual, primal, atol=1e-12)
    np.testing.assert_allclose(20 * few.signed_measure(particles).weights.reshape(20, -1), primal, atol=1e-12)
    assert few.loss(particles) == pytest.approx(0.1 / 2 * np.sum(y * dual), rel=1e-12)
    for count in (4, 5, 6):
        some = particles[:count]
        neurons = TANH.neurons(some, INPUTS[:5])
        expected = np.linalg.solve(neurons.T @ neurons / (count * 5) + 0.1 * np.eye(count), neurons.T @ y / 5)
        np.testing.assert_allclose(count * few.signed_measure(some).weights.reshape(count, -1), expected, atol=1e-12)


def test_one_particle_and_one_sample_by_hand():
    risk = mfld.SignedRisk(
        mfld.TwoLayerNetwork(1, activation="identity", readout="fixed", bias=False), [[2.0]], [3.0], strength=0.5
    )
    # min_f (2 w f - 3)**2 / 2 + f**2 / 4 with w = 1: f = 6 / 4.5, and the value is 9/2 * 0.5 / 4.5.
    assert risk.signed_measure([[1.0]]).weights[0] == pytest.approx(6 / 4.5)
    assert risk.loss([[1.0]]) == pytest.approx(0.5)
    # -(strength / 2) f(w)**2 with f(w) = 2 w a, a = 3 / 4.5
    assert risk.gradient([[1.0]])[0, 0] == pytest.approx(-0.5 * (6 / 4.5) * (2 * 3 / 4.5))


@pytest.mark.parametrize("follows", [True, False])
@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("loss", ["half_squared", "squared"])
def test_label_noise_is_the_gradient_of_the_clean_risk_at_noisy_weights(follows, n_outputs, loss):
    risk = make(loss=loss, n_outputs=n_outputs, l2=0.0)
    particles = risk.initial_particles(8, 4, "float64")
    errors = np.random.default_rng(7).uniform(-1, 1, (N_ROWS, n_outputs))
    y, s = targets(loss, n_outputs).reshape(N_ROWS, -1), (WEIGHTS / WEIGHTS.sum())[:, np.newaxis]
    curvature = {"half_squared": 1, "squared": 2}[loss]

    def weights_at(points):
        neurons = TANH.neurons(points, INPUTS)
        system = curvature * neurons.T @ (s * neurons) / 8 + risk.strength * np.eye(8)
        return np.linalg.solve(system, curvature * neurons.T @ (s * (y + errors)))

    fixed = weights_at(particles)

    def clean(points):
        f = weights_at(points) if follows else fixed
        u = TANH.neurons(points, INPUTS) @ f / 8
        return curvature / 2 * np.sum(s * (u - y) ** 2) + risk.strength / 2 * np.sum(f**2) / 8

    expected = np.zeros_like(particles)
    for m, j in itertools.product(*map(range, particles.shape)):
        step = np.zeros_like(particles)
        step[m, j] = 1e-5
        expected[m, j] = 8 * (clean(particles + step) - clean(particles - step)) / 2e-5
    found = risk.gradient_with_errors(particles, errors, follows)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7 * np.abs(expected).max())


def test_outer_label_noise_lowers_the_degrees_of_freedom_in_the_mean():
    """The mean over errors of the outer variant is the gradient of J plus a trace."""
    scale, n_draws = 0.7, 4000
    risk = make(l2=0.0, sample_weight=None)
    particles = risk.initial_particles(4, 4, "float64")
    noise = np.random.default_rng(1)
    mean = np.mean(
        [risk.gradient_with_errors(particles, noise.uniform(-scale, scale, (N_ROWS, 1)), True) for _ in range(n_draws)],
        axis=0,
    )

    def value(points):
        kernel = TANH.neurons(points, INPUTS) @ TANH.neurons(points, INPUTS).T / 4
        system = kernel + N_ROWS * risk.strength * np.eye(N_ROWS)
        trace = np.trace(np.linalg.solve(system, kernel))
        return risk.loss(points) + scale**2 / (6 * N_ROWS) * trace

    expected = np.zeros_like(particles)
    for m, j in itertools.product(*map(range, particles.shape)):
        step = np.zeros_like(particles)
        step[m, j] = 1e-5
        expected[m, j] = 4 * (value(particles + step) - value(particles - step)) / 2e-5
    share = np.abs(expected - risk.gradient(particles)).max()
    assert np.abs(mean - expected).max() < 0.1 * share


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_degrees_of_freedom_and_alignment_rise_and_label_noise_lowers_the_former(seed):
    """The experiment of Takakura and Suzuki 2024 with fewer rows, neurons and steps; quantities are computed here.

    At their temperature both rise, and noise on labels holds the degrees of freedom down. Where neurons have next to
    no noise it turns their rise into a fall, and predictions get better. All of it fails where that noise is off.
    """
    n, d, strength = 200, 15, 1e-3
    inputs = np.random.default_rng(seed).normal(size=(n + 1000, d))
    y = inputs[:, 0] * inputs[:, 1]
    network = mfld.TwoLayerNetwork(d, activation="tanh", readout="fixed")
    risk = mfld.SignedRisk(network, inputs[:n], y[:n], loss="half_squared", strength=strength, l2=5e-4)

    def history(temperature, scale):
        """Degrees of freedom, alignment and the error of predictions after 0, 20, 200 and 800 steps."""

        def seen(state):
            neurons = np.tanh(inputs @ state.particles[:, :d].T.astype(np.float64) + state.particles[:, d])
            kernel = neurons[:n] @ neurons[:n].T / neurons.shape[1]
            inverse = np.linalg.inv(kernel + n * strength * np.eye(n))
            alignment = y[:n] @ kernel @ y[:n] / (y[:n] @ y[:n] * np.linalg.norm(kernel))
            predictions = neurons[n:] @ neurons[:n].T / neurons.shape[1] @ (inverse @ y[:n])
            return np.array([np.trace(kernel @ inverse), alignment, np.mean((predictions - y[n:]) ** 2)])

        solver = mfld.MFLD(200, step_size=0.2, temperature=temperature, gradient=mfld.LabelNoise(scale), num_threads=1)
        run = solver.run(risk, 800, seed, record={"seen": seen}, record_every=[0, 20, 200, 800])
        return np.array(run.history["seen"]).T

    (dof, alignment, error), (noisy_dof, noisy_alignment, noisy_error) = (history(0.004, each) for each in (0, 1))
    assert np.all(np.diff([dof, noisy_dof]) > 0)
    assert np.all(alignment[1:] > 3 * alignment[0])
    assert np.all(noisy_alignment[1:] > 3 * noisy_alignment[0])
    assert noisy_dof[-1] < 0.95 * dof[-1]
    assert noisy_error[-1] < 0.9 * error[-1]
    (dof, _, error), (noisy_dof, noisy_alignment, noisy_error) = (history(1.6e-5, each) for each in (0, 1))
    assert np.all(np.diff(dof) > 0)
    assert noisy_dof[-1] < 0.8 * noisy_dof[0]
    assert noisy_alignment[-1] > 3 * noisy_alignment[0]
    assert noisy_error[-1] < 0.9 * error[-1]


def test_label_noise_is_drawn_by_place_and_refuses_other_objectives():
    risk = make()
    settings = {"step_size": 0.1, "temperature": 1e-3, "gradient": mfld.LabelNoise(0.3), "dtype": "float64"}
    solver = mfld.MFLD(20, num_threads=1, **settings)
    whole, again = (mfld.MFLD(20, num_threads=t, **settings).run(risk, n_steps=4, seed=2) for t in (1, 2))
    np.testing.assert_array_equal(whole.particles, again.particles)
    half = solver.run(risk, n_steps=2, seed=2)
    np.testing.assert_array_equal(solver.run(risk, n_steps=2, state=half.state).particles, whole.particles)
    for other in (make(mfld.Lifting()), make(loss="logistic")):
        with pytest.raises(ValueError, match="gradient must not be LabelNoise"):
            solver.run(other, n_steps=1)


# ---- moves on cones --------------------------------------------------------------------------------------------------

SPHERE = mfld.TwoLayerNetwork(3, activation="relu", readout="fixed", bias=False, domain=(mfld.Sphere(3),))


def test_on_a_sphere_a_conic_step_is_one_of_the_vector_in_euclidean_space():
    """relu is 1-homogeneous, so r relu(w.z) = relu(x.z) sign(r) with x = |r| w: a network with signs."""
    y = INPUTS[:, 0] * INPUTS[:, 1]
    risk = mfld.SignedRisk(SPHERE, INPUTS, y, strength=0.1, reduction=mfld.Lifting("conic"))
    flat = mfld.EmpiricalRisk(
        mfld.TwoLayerNetwork(3, activation="relu", readout="signs", bias=False), INPUTS, y, loss="half_squared", l2=0.05
    )
    lifted = risk.initial_particles(50, 3, "float64")
    solver = mfld.MFLD(50, step_size=0.2, temperature=0.0, dynamics=mfld.dynamics.Conic(), dtype="float64")
    r = lifted[:, 3:]
    vectors = np.concatenate([np.abs(r) * lifted[:, :3], np.sign(r)], axis=1)
    plain = mfld.MFLD(50, step_size=0.2, temperature=0.0, dtype="float64").run(flat, n_steps=5, particles=vectors)
    moved = solver.run(risk, n_steps=5, particles=lifted).particles
    np.testing.assert_allclose(np.abs(moved[:, 3:]) * moved[:, :3], plain.particles[:, :3], atol=1e-12)
    np.testing.assert_array_equal(np.sign(moved[:, 3]), np.sign(r[:, 0]))
    np.testing.assert_allclose(np.linalg.norm(moved[:, :3], axis=1), 1, atol=1e-12)


def test_noise_on_the_cone_over_a_circle_is_that_of_the_plane():
    """Without a potential but (strength / 2) r**2 the plane has a Gaussian law."""
    circle = mfld.Space(domain=[mfld.Torus(1, period=2 * np.pi)])
    nothing = mfld.NeuronModel(
        lambda w, z: np.zeros((len(z), len(w))),
        lambda w, z: np.zeros((len(z), len(w), 1)),
        n_features=1,
        space=circle,
    )
    risk = mfld.SignedRisk(nothing, [[0.0]], [0.0], strength=2.0, reduction=mfld.Lifting("conic"))
    h, temperature = 0.05, 0.5
    solver = mfld.MFLD(20_000, step_size=h, temperature=temperature, dynamics=mfld.dynamics.Conic())
    weights = solver.run(risk, n_steps=150, seed=1).particles[:, 1]
    # Euler in the plane: variance T / (a (1 - a h / 2)) in each of two coordinates.
    expected = 2 * temperature / (2.0 * (1 - h))
    assert np.mean(weights**2) == pytest.approx(expected, rel=4 / np.sqrt(20_000))


def test_metrics_have_the_same_stationary_points():
    """At a minimum of one, the slopes of the other vanish, too."""
    smooth, y = dataclasses.replace(SPHERE, activation="softplus"), np.sin(2 * INPUTS[:, 0])
    product = mfld.SignedRisk(smooth, INPUTS, y, strength=0.01, reduction=mfld.Lifting())
    conic = mfld.SignedRisk(smooth, INPUTS, y, strength=0.01, reduction=mfld.Lifting("conic"))
    start = product.initial_particles(30, 1, "float64")
    overdamped = mfld.MFLD(30, step_size=0.5, temperature=0.0, dtype="float64")
    end = overdamped.run(product, n_steps=8000, particles=start).particles
    cone = mfld.MFLD(30, step_size=0.5, temperature=0.0, dtype="float64", dynamics=mfld.dynamics.Conic())
    after = cone.run(conic, n_steps=20, particles=end).particles
    np.testing.assert_allclose(after, end, atol=1e-9)
    assert np.abs(start - end).max() > 0.1


def test_a_metric_has_its_dynamics():
    conic = mfld.SignedRisk(SPHERE, INPUTS, INPUTS[:, 0], strength=0.1, reduction=mfld.Lifting("conic"))
    with pytest.raises(ValueError, match=r"dynamics must be mfld\.dynamics\.Conic\(\)"):
        mfld.MFLD(5, step_size=0.1, temperature=0.1).run(conic, n_steps=1)
    product = mfld.SignedRisk(SPHERE, INPUTS, INPUTS[:, 0], strength=0.1, reduction=mfld.Lifting())
    with pytest.raises(ValueError, match=r"dynamics must be of that metric, like Overdamped\(\)"):
        mfld.MFLD(5, step_size=0.1, temperature=0.1, dynamics=mfld.dynamics.Conic()).run(product, n_steps=1)


def test_metrics_are_told_apart_in_euclidean_space_too():
    flat = mfld.TwoLayerNetwork(3, readout="fixed")
    conic, product = (
        mfld.SignedRisk(flat, INPUTS, INPUTS[:, 0], strength=0.1, reduction=mfld.Lifting(metric))
        for metric in ("conic", "product")
    )
    cone = mfld.MFLD(5, step_size=0.1, temperature=0.1, dynamics=mfld.dynamics.Conic())
    with pytest.raises(ValueError, match=r"dynamics must be mfld\.dynamics\.Conic\(\)"):
        mfld.MFLD(5, step_size=0.1, temperature=0.1).run(conic, n_steps=1)
    for other in (product, mfld.SignedRisk(flat, INPUTS, INPUTS[:, 0], strength=0.1)):
        with pytest.raises(ValueError, match="dynamics must be of that metric"):
            cone.run(other, n_steps=1)
    assert cone.run(conic, n_steps=1).state.step == 1


def test_a_ridge_of_positions_is_refused_on_the_cone():
    """Positions of small weights would move infinitely fast along it."""
    flat = mfld.TwoLayerNetwork(3, readout="fixed")
    for given in ({"l2": 0.1}, {"reference": mfld.references.Gaussian(0.1)}):
        with pytest.raises(ValueError, match=r"l2 must be 0 with Lifting\(metric='conic'\), got 0\.1"):
            mfld.SignedRisk(flat, INPUTS, INPUTS[:, 0], strength=0.1, reduction=mfld.Lifting("conic"), **given)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_next_to_nothing_move_on_the_cone_like_others(dtype):
    """Where the loss does not feel them, positions move by the slope of a neuron, whatever the weight."""
    flat = mfld.TwoLayerNetwork(3, readout="fixed")
    risk = mfld.SignedRisk(flat, INPUTS, INPUTS[:, 0], strength=0.1, reduction=mfld.Lifting("conic"))
    start = np.array(risk.initial_particles(6, 0, dtype))
    ends = []
    for weight in (1e-12, 1e-39):  # the latter without an inverse in float32
        start[:, -1] = weight
        cone = mfld.MFLD(6, step_size=1e-3, temperature=0.0, dtype=dtype, dynamics=mfld.dynamics.Conic())
        ends.append(cone.run(risk, n_steps=1, particles=start).particles[:, :-1])
    np.testing.assert_allclose(ends[0], ends[1], rtol=2e-3)
    assert np.abs(ends[0] - start[:, :-1]).max() > 0.1


# ---- what the algorithms do with them --------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", [mfld.Bilevel(), mfld.Lifting()])
def test_runs_have_the_same_bits_for_any_number_of_threads(reduction):
    risk = make(reduction, n_outputs=2)
    solvers = [mfld.MFLD(70, step_size=0.1, temperature=1e-3, num_threads=threads) for threads in (1, 3)]
    one, three = (solver.run(risk, n_steps=3).particles for solver in solvers)
    np.testing.assert_array_equal(one, three)


def test_batches_of_a_lifting_are_unbiased():
    risk = make(mfld.Lifting(), loss="logistic")
    particles = risk.initial_particles(5, 0, "float64")
    rows = np.arange(N_ROWS).reshape(6, 5)
    mean = np.mean([risk.gradient(particles, batch) for batch in rows], axis=0)
    np.testing.assert_allclose(mean, risk.gradient(particles), atol=1e-12)
    with pytest.raises(ValueError, match="batch must be None"):
        make().gradient(make().initial_particles(3), rows[0])


def test_the_wrong_is_refused():
    y = INPUTS[:, 0]
    with pytest.raises(ValueError, match="strength must be finite and positive"):
        mfld.SignedRisk(TANH, INPUTS, y, strength=0)
    with pytest.raises(ValueError, match="model must have one output and no frozen"):
        mfld.SignedRisk(mfld.TwoLayerNetwork(3, readout="signs"), INPUTS, y, strength=1)
    with pytest.raises(ValueError, match="loss must be convex with a smooth derivative"):
        make(loss="absolute")
    with pytest.raises(ValueError, match="'conic'"):
        make(mfld.Lifting("conic"), n_outputs=2)
    with pytest.raises(TypeError, match="reduction"):
        make("bilevel")


# ---- the signed measure ----------------------------------------------------------------------------------------------


def test_predictions_of_the_signed_measure_are_those_of_the_problem():
    for reduction, n_outputs in itertools.product((mfld.Bilevel(), mfld.Lifting()), (1, 2)):
        risk = make(reduction, n_outputs=n_outputs)
        particles = risk.initial_particles(9, 0, "float64")
        measure = risk.signed_measure(particles)
        by_hand = TANH.neurons(measure.positions, INPUTS) @ measure.weights
        np.testing.assert_allclose(measure.predict(INPUTS), by_hand, atol=1e-13)
        np.testing.assert_allclose(risk.predict(particles, INPUTS), by_hand, atol=1e-13)
        size = np.linalg.norm(measure.weights.reshape(9, -1), axis=1)
        assert measure.tv_norm == pytest.approx(size.sum())


def test_clusters_become_atoms_across_the_seam_of_a_torus():
    circle = mfld.NeuronModel(
        lambda w, z: np.cos(z - w.T),
        lambda w, z: np.sin(z - w.T)[:, :, np.newaxis],
        n_features=1,
        space=mfld.Space(domain=[mfld.Torus(1, period=1.0)]),
    )
    measure = mfld.SignedMeasure(circle, [[0.98], [0.01], [0.5], [0.52], [0.75]], [1.0, 1.0, -3.0, -1.0, 1e-9])
    atoms = measure.merged(radius=0.1).prune(1e-6)
    np.testing.assert_allclose(atoms.positions[:, 0], [0.505, 0.995], atol=1e-12)
    np.testing.assert_allclose(atoms.weights, [-4, 2])
    cancelling = mfld.SignedMeasure(circle, [[0.5], [0.51]], [1.0, -1.0]).merged(0.1)
    assert len(cancelling.positions) == 0
    assert cancelling.tv_norm == 0


# ---- the system behind it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 2), (63, 70, 1), (65, 300, 3), (200, 10, 2), (130, 257, 1)])
@pytest.mark.usefixtures("level")
def test_ridge_systems(shape, dtype):
    rows, columns, k = shape
    rng = np.random.default_rng(rows)
    factor, right = rng.normal(size=(rows, columns)).astype(dtype), rng.normal(size=(rows, k)).astype(dtype)
    given = right.copy()
    found = [linear.ridge_solve(factor, 0.5, right, threads) for threads in (1, 2, 3)]
    wide = factor.astype(np.float64)
    expected = np.linalg.solve(wide @ wide.T + 0.5 * np.eye(rows), right.astype(np.float64))
    condition = np.linalg.cond(wide @ wide.T + 0.5 * np.eye(rows))
    np.testing.assert_allclose(
        found[0], expected, rtol=0, atol=10 * condition * np.finfo(dtype).eps * abs(expected).max()
    )
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(right, given)


def test_a_system_without_a_solution_is_refused():
    with pytest.raises(ValueError, match="ridge must make the matrix positive definite"):
        linear.ridge_solve(np.ones((3, 1)), 0.0, np.ones((3, 1)))


@pytest.mark.parametrize(("dtype", "strength"), [("float32", 1e-7), ("float64", 1e-16)])
def test_weights_that_rounding_spoils_are_refused(dtype, strength, rng):
    """Fewer particles than samples: coefficients are residuals over the strength, with what rounding leaves of them."""
    inputs, particles = rng.normal(size=(60, 3)), rng.normal(size=(20, 3))
    targets = inputs[:, 0] * inputs[:, 1] + inputs[:, 2]
    model = mfld.TwoLayerNetwork(3, activation="tanh", readout="fixed", bias=False)
    phi = np.tanh(inputs @ particles.T)
    for own in (1e3 * strength, 0.01):
        exact = np.linalg.solve(phi.T @ phi / 60 + own * 20 * np.eye(20), phi.T @ targets / 60)
        measure = mfld.SignedRisk(model, inputs, targets, strength=own).signed_measure(particles.astype(dtype))
        assert np.linalg.norm(measure.predict(inputs) - phi @ exact) < 0.02 * np.linalg.norm(targets)
    risk = mfld.SignedRisk(model, inputs, targets, strength=strength)
    with pytest.raises(ValueError, match=rf"strength must be larger for {dtype} numbers .* got strength {strength:g}"):
        risk.value(particles.astype(dtype))
