"""Built-in potentials: gradients by finite differences, normalisers by SciPy's quadrature, and the laws of samplers."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, stats

import mfld
from mfld import checkpoint, potentials

RNG = np.random.default_rng(11)
INPUTS = RNG.normal(size=(30, 2))
LINEAR = INPUTS @ [1.0, -0.5] + 0.3 * RNG.normal(size=30)
SIGNS = np.where(INPUTS @ [1.0, -2.0] + RNG.logistic(size=30) > 0, 1.0, -1.0)
COVARIANCES = [[[1.0, 0.5], [0.5, 2.0]], [[0.5, -0.2], [-0.2, 0.3]]]

POTENTIALS = {
    "gaussian": potentials.Gaussian([1.0, -2.0], COVARIANCES[0]),
    "double well": potentials.DoubleWell(1, distance=1.5, height=2.0, tilt=0.3),
    "double well in 2 d": potentials.DoubleWell(2, tilt=0.2),
    "mixture": potentials.GaussianMixture([[-3.0], [2.0]], [[[0.5]], [[2.0]]], weights=[1, 3]),
    "mixture in 2 d": potentials.GaussianMixture([[-2.0, 0.0], [1.0, 3.0]], COVARIANCES),
    "banana": potentials.Banana(scale=1.5, bend=0.1),
    "funnel": potentials.Funnel(2, scale=1.2),
    "linear regression": potentials.BayesianLinearRegression(INPUTS, LINEAR, noise_variance=0.2, prior_variance=2.0),
    "logistic regression": potentials.BayesianLogisticRegression(INPUTS, SIGNS, prior_variance=3.0),
    "separable logistic regression": potentials.BayesianLogisticRegression([[1.0], [2.0]], [1, 1], prior_variance=5.0),
}
MORE_DIMENSIONS = [
    potentials.Gaussian(np.arange(5.0)),
    potentials.Banana(4),
    potentials.Funnel(10),
    potentials.DoubleWell(3),
    potentials.GaussianMixture(RNG.normal(size=(3, 6)), 0.7),
]


@pytest.mark.parametrize("potential", [*POTENTIALS.values(), *MORE_DIMENSIONS], ids=lambda p: type(p).__name__)
def test_gradients_are_derivatives(potential, rng):
    points = rng.normal(size=(7, potential.n_coordinates)) * 1.5
    gradient, h = potential.gradient(points), 1e-3
    assert np.abs(gradient).min() > 1e-6
    for j in range(potential.n_coordinates):
        e = np.zeros(potential.n_coordinates)
        e[j] = h
        p = potential
        slope = (p(points - 2 * e) - 8 * p(points - e) + 8 * p(points + e) - p(points + 2 * e)) / (12 * h)
        # truncation h^4 of a fifth derivative, at most 1e4 here; rounding 1e-16 / h of a value
        assert_allclose(gradient[:, j], slope, rtol=1e-7, atol=2e-8 * np.abs(gradient).max())


@pytest.mark.parametrize("potential", [*POTENTIALS.values(), *MORE_DIMENSIONS], ids=lambda p: type(p).__name__)
def test_precisions_agree(potential, rng):
    points = rng.normal(size=(20, potential.n_coordinates)).astype(np.float32)
    double = points.astype(np.float64)
    for single, reference in (
        (potential(points), potential(double)),
        (potential.gradient(points), potential.gradient(double)),
    ):
        assert single.dtype == np.float32
        assert_allclose(single, reference, rtol=2e-5, atol=2e-5 * np.abs(reference).max())
    value, gradient = potential.value_and_gradient(double)  # both without the ridge
    ridge = potential.l2 * np.sum(double**2, axis=1)
    assert_allclose(value + ridge, potential(double), rtol=1e-14)
    assert_allclose(gradient + 2 * potential.l2 * double, potential.gradient(double), rtol=1e-14)


def boxed(potential, temperature):
    """A box outside of which the density is below exp(-30) of its top, from a coarse grid; and the lowest energy."""
    line = np.linspace(-40, 40, 161)
    grid = np.stack(np.meshgrid(*[line] * potential.n_coordinates, indexing="ij"), axis=-1)
    energy = potential(grid.reshape(-1, potential.n_coordinates)).reshape(grid.shape[:-1]) / temperature
    inside = np.argwhere(energy < energy.min() + 30)
    low, high = inside.min(axis=0), inside.max(axis=0)
    assert (low > 0).all()
    assert (high < 160).all()
    return line[low - 1], line[high + 1], energy.min()


@pytest.mark.parametrize("potential", [p for p in POTENTIALS.values() if not isinstance(p, potentials.Funnel)])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 2.5])
def test_normalisers(potential, temperature):
    """Against Gauss-Legendre rules in panels, which share neither points nor box with the library."""
    low, high, lowest = boxed(potential, temperature)
    nodes, weights = np.polynomial.legendre.leggauss(10)
    axes = []
    for start, end in zip(low, high, strict=True):
        edges = np.linspace(start, end, 31)
        half = (end - start) / 60
        axes.append((((edges[:-1, np.newaxis] + half) + half * nodes).ravel(), np.tile(half * weights, 30)))
    grid = np.stack(np.meshgrid(*[x for x, _ in axes], indexing="ij"), axis=-1).reshape(-1, len(axes))
    volume = axes[0][1] if len(axes) == 1 else np.outer(axes[0][1], axes[1][1]).ravel()
    total = volume @ np.exp(lowest - potential(grid) / temperature)
    assert_allclose(potential.log_normaliser(temperature), np.log(total) - lowest, atol=1e-8)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_normaliser_of_the_funnel(temperature):
    funnel = potentials.Funnel(2, scale=1.2)

    def density(v):  # its width in x is exp(v / 2)
        width = np.exp(v / 2)
        return width * integrate.quad(lambda u: np.exp(-funnel([[v, u * width]])[0] / temperature), -15, 15)[0]

    total, error = integrate.quad(density, -14, 14, epsabs=1e-9)
    assert error < 1e-8
    assert_allclose(funnel.log_normaliser(temperature), np.log(total), atol=1e-8)


def test_normaliser_of_a_double_well():
    well = potentials.DoubleWell(distance=2.0, height=3.0, tilt=-0.5)
    total, error = integrate.quad(lambda x: np.exp(-well([[x]])[0] / 0.7), -8, 8, points=[-2, 0, 2], epsabs=1e-12)
    assert error < 1e-8
    cube = potentials.DoubleWell(3, distance=2.0, height=3.0, tilt=-0.5)
    assert_allclose(well.log_normaliser(0.7), np.log(total), atol=1e-9)
    assert_allclose(cube.log_normaliser(0.7), 3 * np.log(total), atol=1e-9)


def test_densities_of_scipy():
    points = RNG.normal(size=(10, 2)) * 2
    normal = stats.multivariate_normal([1.0, -2.0], COVARIANCES[0])
    gaussian = POTENTIALS["gaussian"]
    assert_allclose(-gaussian(points) - gaussian.log_normaliser(), normal.logpdf(points), rtol=1e-12)
    mixture = POTENTIALS["mixture in 2 d"]
    modes = [stats.multivariate_normal(m, c) for m, c in zip([[-2.0, 0.0], [1.0, 3.0]], COVARIANCES, strict=True)]
    assert_allclose(-mixture(points), np.log(sum(mode.pdf(points) for mode in modes) / 2), rtol=1e-12)
    funnel = potentials.Funnel(4, scale=1.5)
    x = RNG.normal(size=(10, 4))
    density = stats.norm.logpdf(x[:, 0], scale=1.5)
    density += stats.norm.logpdf(x[:, 1:], scale=np.exp(x[:, :1] / 2)).sum(axis=1)
    assert_allclose(-funnel(x) - funnel.log_normaliser(), density, rtol=1e-12)


@pytest.mark.parametrize("potential", POTENTIALS.values(), ids=POTENTIALS)
def test_copies(potential, rng):
    points = rng.normal(size=(3, potential.n_coordinates))
    other = pickle.loads(pickle.dumps(potential))
    assert np.array_equal(other(points), potential(points))
    assert checkpoint.fingerprint(objective=other) == checkpoint.fingerprint(objective=potential)


def test_linear_regression_is_conjugate():
    posterior = POTENTIALS["linear regression"]
    evidence = stats.multivariate_normal(np.zeros(30), 0.2 * np.eye(30) + 2.0 * INPUTS @ INPUTS.T).logpdf(LINEAR)
    assert_allclose(posterior.log_evidence(), evidence, rtol=1e-12)
    assert_allclose(posterior.gradient([posterior.posterior_mean]), 0, atol=1e-11)
    normal = stats.multivariate_normal(posterior.posterior_mean, posterior.posterior_covariance)
    points = posterior.posterior_mean + 0.1 * RNG.normal(size=(5, 2))
    assert_allclose(-posterior(points) - posterior.log_normaliser(), normal.logpdf(points), rtol=1e-11)


def test_the_mode_of_logistic_regression():
    for name in ("logistic regression", "separable logistic regression"):
        posterior = POTENTIALS[name]
        assert_allclose(posterior.gradient([posterior.mode()]), 0, atol=1e-10)


@pytest.mark.parametrize("name", ["linear regression", "logistic regression"])
def test_batches_of_a_regression_are_unbiased(name, rng):
    posterior = POTENTIALS[name]
    assert posterior.n_samples == 30
    points = rng.normal(size=(4, 2))
    batches = rng.permutation(30).reshape(6, 5)  # each row once: the mean of the estimates is the full gradient
    mean = np.mean([posterior.loss_gradient(points, rows) for rows in batches], axis=0)
    assert_allclose(mean, posterior.loss_gradient(points), rtol=1e-12)
    variations = [posterior.first_variation(points, rows) for rows in batches]
    assert_allclose(np.mean([each(points) for each in variations], axis=0), posterior(points), rtol=1e-12)
    slopes = np.mean([each.gradient(points) for each in variations], axis=0)
    assert_allclose(slopes, posterior.gradient(points), rtol=1e-12)
    for rows, variation in zip(batches, variations, strict=True):
        assert_allclose(variation.gradient(points), posterior.gradient(points, rows), rtol=1e-14)
        residuals = INPUTS[rows] @ points.T - LINEAR[rows, np.newaxis]
        terms = residuals**2 / (2 * 0.2)
        if name == "logistic regression":
            terms = np.log1p(np.exp(-SIGNS[rows, np.newaxis] * (INPUTS[rows] @ points.T)))
        expected = 30 / 5 * terms.sum(axis=0) + posterior.l2 * np.sum(points**2, axis=1)
        assert_allclose(variation(points), expected, rtol=1e-12)
    assert posterior.first_variation(points) is posterior
    with pytest.raises(ValueError, match="batch must hold rows between 0 and 29, got 30"):
        posterior.first_variation(points, [30])


@pytest.mark.parametrize("gradient", [mfld.Minibatch(10), mfld.SVRG(10, 5), mfld.SARAH(10, 5)], ids=repr)
def test_estimators_on_a_regression(gradient):
    """Without noise the estimators end where the full gradient does; a plain mini-batch within its noise."""
    posterior = POTENTIALS["linear regression"]
    solver = mfld.MFLD(3, step_size=2e-3, temperature=0.0, gradient=gradient, dtype="float64")
    reached = solver.run(posterior, 1500).particles
    spread = 0.05 if isinstance(gradient, mfld.Minibatch) else 1e-9
    assert_allclose(reached, np.tile(posterior.posterior_mean, (3, 1)), atol=spread)


def test_the_posterior_is_sampled(dtype):
    posterior = POTENTIALS["linear regression"]
    n, step_size, n_steps = 5_000, 0.006, 60
    result = mfld.MFLD(n, step_size=step_size, temperature=1.0, dtype=dtype).run(posterior, n_steps, seed=3)
    # Euler on a quadratic: along an axis of the Hessian the variance is 1 / (a (1 - a step / 2)).
    curvature, axes = np.linalg.eigh(np.linalg.inv(posterior.posterior_covariance))
    assert (1 - step_size * curvature[0]) ** n_steps < 1e-8  # the start is forgotten
    x = (result.particles - posterior.posterior_mean) @ axes
    variance = 1 / (curvature * (1 - curvature * step_size / 2))
    assert np.all(np.abs(x.mean(axis=0)) < 5 * np.sqrt(variance / n))
    assert np.all(np.abs(x.var(axis=0) - variance) < 5 * variance * np.sqrt(2 / n))
    assert np.all(np.abs(1 / curvature - variance) > 10 * variance * np.sqrt(2 / n))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: potentials.Gaussian([0.0, 0.0], [[1, 2], [2, 1]]), ValueError, "covariance must be symmetric and pos"),
        (lambda: potentials.Gaussian([0.0], [[1, 2]]), ValueError, "covariance must have shape"),
        (lambda: potentials.DoubleWell(height=0.0), ValueError, "height must be finite and positive"),
        (lambda: potentials.GaussianMixture([[0.0]], weights=[-1.0]), ValueError, "weights must be at least 0"),
        (lambda: potentials.Banana(1), ValueError, "n_coordinates must be at least 2"),
        (lambda: potentials.BayesianLinearRegression([[1.0]], [1.0, 2.0]), ValueError, "targets must have shape"),
        (lambda: potentials.BayesianLogisticRegression([[1.0]], [0.0]), ValueError, r"targets must be -1 or \+1"),
        (lambda: potentials.Banana().log_normaliser(0.0), ValueError, "temperature must be finite and positive"),
        (lambda: MORE_DIMENSIONS[4].log_normaliser(2.0), ValueError, "at most 2 coordinates, it has 6"),
        (lambda: potentials.GaussianMixture([[0.0], [1e7]]).log_normaliser(2.0), ValueError, "far apart"),
    ],
)
def test_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_potentials_keep_what_they_were_made_of():
    mean, covariance = np.zeros(2), np.eye(2)
    means, weights = np.zeros((2, 2)), np.array([0.5, 0.5])
    well, mixture = mfld.potentials.Gaussian(mean, covariance), mfld.potentials.GaussianMixture(means, 1.0, weights)
    points = np.ones((1, 2))
    before = well(points), mixture(points)
    for array in (mean, covariance, means, weights):
        array[...] = 3 * array + 5
    np.testing.assert_array_equal([well(points), mixture(points)], before)
    for potential, name in ((well, "mean"), (well, "covariance"), (mixture, "means"), (mixture, "weights")):
        assert not getattr(potential, name).flags.writeable
        with pytest.raises(AttributeError, match=f"{name} of {type(potential).__name__} is read-only"):
            setattr(potential, name, 1.0)


def test_regressions_and_risks_are_set_once():
    inputs, targets = np.eye(2), np.array([1.0, -1.0])
    posterior = mfld.potentials.BayesianLinearRegression(inputs, targets, noise_variance=1.0)
    for name in ("inputs", "targets", "noise_variance", "prior_variance"):
        with pytest.raises(AttributeError, match=f"{name} of BayesianLinearRegression is read-only"):
            setattr(posterior, name, 2.0)
    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(2), inputs, targets, loss="squared")
    for name in ("model", "loss_function", "reference", "data", "space"):
        with pytest.raises(AttributeError, match=f"{name} of EmpiricalRisk is read-only"):
            setattr(risk, name, None)
    assert risk.on_threads(2).num_threads == 2
