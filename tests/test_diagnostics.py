"""Diagnostics against closed forms, quadrature, linear programs and brute force."""

import math
import pickle
import sys
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, linalg, optimize, special, stats

import mfld
from mfld import diagnostics, kernels, plots
from mfld.diagnostics import Estimate, StepLaw

OU = mfld.potentials.Gaussian([0.0])


def covariance_of(p):
    """A covariance that is neither diagonal nor isotropic."""
    corner = np.arange(p * p).reshape(p, p) / (p * p)
    return np.eye(p) + 0.3 * (corner + corner.T) @ (corner + corner.T).T / p


def gaussian(rng, n, mean, covariance):
    return rng.multivariate_normal(mean, covariance, size=n, method="cholesky")


def within(found, exact, errors=4.5):
    assert found.error > 0
    assert abs(found - exact) < errors * found.error, (found, exact)


# ---- estimates -------------------------------------------------------------------------------------------------------


def test_estimates_are_floats_with_errors():
    value = Estimate(1.5, 0.25)
    assert repr(value) == "1.5 +- 0.25"
    assert f"{value:.2f}" == "1.50"
    assert np.asarray(value).dtype == np.float64
    copy = pickle.loads(pickle.dumps(value))
    assert (copy, copy.error) == (1.5, 0.25)


def test_estimates_can_be_recorded():
    solver = mfld.MFLD(200, step_size=0.1, temperature=1.0, n_replicates=2)
    record = {"kl": lambda state: diagnostics.kl(state.measure, OU, 1.0)}
    assert solver.run(OU, 20, record_every=10, record=record).history["kl"].shape == (2, 2)


# ---- entropy and divergences -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", range(1, 11))
def test_entropy_and_divergence_of_gaussians(p, rng):
    mean, covariance = np.linspace(-0.5, 0.5, p), covariance_of(p)
    points = gaussian(rng, 6000, mean, covariance)
    logdet = np.linalg.slogdet(covariance)[1]
    entropy = -(p * (1 + math.log(2 * math.pi)) + logdet) / 2
    bias = [0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.16, 0.2][p - 1]  # O(N^(-2/p)), about as measured
    found = diagnostics.entropy(points)
    assert abs(found - entropy) < 4.5 * found.error + bias
    target = mfld.potentials.Gaussian(np.zeros(p), 2 * np.eye(p))
    temperature = 0.7
    spread = 2 * temperature
    kl = (np.trace(covariance) / spread + mean @ mean / spread - p - logdet + p * math.log(spread)) / 2
    divergence = diagnostics.kl(points, target, temperature)
    assert abs(divergence - kl) < 4.5 * divergence.error + bias
    # Without a normaliser it is right up to a constant.
    relative = diagnostics.kl(points, target, temperature, log_normaliser=0.0)
    assert_allclose(divergence - relative, p / 2 * math.log(2 * math.pi * spread), rtol=1e-10)


def test_errors_of_the_entropy_are_those_over_clouds():
    found = [diagnostics.entropy(np.random.default_rng(seed).normal(size=(500, 2))) for seed in range(200)]
    spread = np.std(found)
    assert 0.8 < np.mean([each.error for each in found]) / spread < 1.25


def test_errors_of_a_divergence_are_those_over_clouds():
    # At the law itself log mu + V / T is constant, so that the divergence is known better than the entropy.
    clouds = [np.random.default_rng(seed).normal(size=(500, 1)) for seed in range(200)]
    found = [diagnostics.kl(cloud, OU, 1.0) for cloud in clouds]
    error = np.mean([each.error for each in found])
    assert 0.8 < error / np.std(found) < 1.25
    assert abs(np.mean(found)) < 4 * error / math.sqrt(200) + 0.005
    assert error < np.mean([diagnostics.entropy(cloud).error for cloud in clouds])


def test_entropy_on_a_torus_has_no_edge(rng):
    space = mfld.Space(3, domain=[mfld.Torus(2, period=0.5)])
    points = rng.uniform(0, 0.5, size=(4000, 3))
    within(diagnostics.entropy(points, space=space), math.log(4))
    euclidean = diagnostics.entropy(points[:, :2])
    assert euclidean > diagnostics.entropy(points, space=mfld.Space(3, domain=[mfld.Torus(2, period=0.5)])) - 0.05


def test_ties_count_once(rng):
    points = rng.normal(size=(3000, 1))
    copies = np.vstack([points, points[:1500]])
    assert diagnostics.entropy(copies, k=1) == diagnostics.entropy(np.sort(points, axis=0), k=1)
    with pytest.raises(ValueError, match="measure must have more than k=3 particles that differ, got 2"):
        diagnostics.entropy([[1.0], [2.0], [1.0], [2.0], [2.0]])
    with pytest.raises(ValueError, match="measure must not be weighted"):
        diagnostics.entropy(mfld.Cloud(points, rng.uniform(size=3000)))


def test_normalisers():
    by_quadrature = diagnostics.log_normaliser
    quartic = mfld.Potential(lambda x: x, lambda x: (x[:, 0] - 30) ** 4 / 4, n_coordinates=1)
    assert_allclose(by_quadrature(quartic, 1.0), math.log(special.gamma(0.25) / math.sqrt(2)), rtol=1e-9)
    tilted = mfld.Potential(lambda x: x, lambda x: x @ [1.0, 2.0] + x[:, 0] * x[:, 1], n_coordinates=2, l2=2.0)
    precision = np.array([[4.0, 1.0], [1.0, 4.0]])
    shift = np.array([1.0, 2.0]) @ np.linalg.solve(precision, [1.0, 2.0]) / 2 / 0.3
    exact = shift + math.log(2 * math.pi * 0.3) - np.linalg.slogdet(precision)[1] / 2
    assert_allclose(by_quadrature(tilted, 0.3), exact, rtol=1e-9)
    circle = mfld.Space(domain=[mfld.Torus(1), mfld.Box([-1.0], [2.0])])
    wave = mfld.Potential(lambda x: x, lambda x: np.cos(2 * np.pi * x[:, 0]) + x[:, 1], space=circle)
    exact = math.log(special.i0(2)) + math.log((math.exp(2) - math.exp(-4)) / 2)
    assert_allclose(by_quadrature(wave, 0.5), exact, atol=1e-7)
    assert by_quadrature(mfld.potentials.Banana(4), 0.3) == mfld.potentials.Banana(4).log_normaliser(0.3)
    with pytest.raises(ValueError, match="potential must grow"):
        by_quadrature(mfld.Potential(lambda x: x, lambda x: 0 * x[:, 0], n_coordinates=1), 1.0)
    with pytest.raises(ValueError, match="potential must have one or two coordinates"):
        by_quadrature(mfld.Potential(lambda x: x, lambda x: x[:, 0], n_coordinates=3), 1.0)


@pytest.mark.parametrize("p", [1, 2])
def test_fisher_divergence_of_gaussians(p, rng):
    mean, scale = 0.7, 1.4
    points = mean + scale * rng.normal(size=(20_000, p))
    exact = p * (mean**2 + scale**2 * (1 - 1 / scale**2) ** 2)
    found = diagnostics.fisher_divergence(points, mfld.potentials.Gaussian(np.zeros(p)), 1.0)
    assert abs(found - exact) < 4.5 * found.error + 0.1 * p
    at_rest = diagnostics.fisher_divergence(rng.normal(size=(20_000, p)), mfld.potentials.Gaussian(np.zeros(p)), 1.0)
    assert at_rest < 0.1 * p


def test_law_of_one_more_step_by_quadrature(rng):
    well = mfld.potentials.DoubleWell()
    cloud = mfld.Cloud(rng.normal(size=(40, 1)), weights=rng.uniform(size=40))
    law = StepLaw(well, cloud, step_size=0.02, temperature=0.4)
    x = np.linspace(-6, 6, 6001)
    means = cloud.particles - 0.02 * well.gradient(cloud.particles)
    density = stats.norm.pdf(x, means, math.sqrt(2 * 0.4 * 0.02)).T @ cloud.weights
    assert_allclose(np.exp(law.log_density(x[:, np.newaxis])), density, rtol=1e-9, atol=1e-300)
    inside = (density > 1e-6)[1:-1]
    slope = (density[2:] - density[:-2]) / (x[2] - x[0]) / density[1:-1]
    assert_allclose(law.score(x[1:-1, np.newaxis])[inside, 0], slope[inside], rtol=1e-3, atol=1e-3)

    def integral(values):
        return integrate.simpson(np.where(density > 1e-200, values, 0) * density, x=x)

    logs = np.log(np.maximum(density, 1e-300))
    n = 20_000
    within(law.entropy(n), integral(logs))
    energies = well(x[:, np.newaxis]) / 0.4
    within(law.kl(well, n_draws=n), integral(logs + energies) + well.log_normaliser(0.4))
    score = np.gradient(logs, x) + well.gradient(x[:, np.newaxis])[:, 0] / 0.4
    within(law.fisher_divergence(well, n_draws=n), integral(score**2))
    # Draws are those of a real step: one more step of a run, all in all.
    assert_allclose(law.draw(n).mean(), cloud.weights @ means[:, 0], atol=0.01)


def test_law_of_a_step_keeps_frozen_coordinates(rng):
    tilted = mfld.Potential(lambda x: x * x[:, 1:], lambda x: x[:, 0] ** 2 * x[:, 1] / 2, n_coordinates=2, n_moving=1)
    points = np.array([[1.0, 1.0], [1.0, 3.0]])
    law = StepLaw(tilted, points, step_size=0.1, temperature=1.0)
    assert_allclose(law.centres[:, 0], [0.9, 0.7])
    assert law.draw(10).shape == (10, 1)
    # Both halves of the draws go with the stiffness of their own particle.
    exact = np.mean([0.5 * s * (c**2 + 0.2) for s, c in ((1, 0.9), (3, 0.7))])
    n = 20_000
    within(law.kl(tilted, log_normaliser=0.0, n_draws=n), float(law.entropy(n)) + exact)


# ---- transport -------------------------------------------------------------------------------------------------------


def by_linear_program(x, a, y, b, order):
    costs = np.linalg.norm(x[:, np.newaxis] - y, axis=2) ** order
    n, m = costs.shape
    sums = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    solved = optimize.linprog(costs.ravel(), A_eq=sums, b_eq=np.concatenate([a, b]), method="highs")
    return solved.fun ** (1 / order)


@pytest.mark.parametrize("order", [1, 2, 3.5])
@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sizes", [(9, 9), (7, 12), (4, 10)])
def test_transport_against_a_linear_program(order, p, weighted, sizes, rng):
    if p > 1:
        pytest.importorskip("ot")
    x, y = rng.normal(size=(sizes[0], p)), rng.normal(size=(sizes[1], p)) + 1
    x[1] = x[0]
    a, b = (rng.uniform(size=n) if weighted else np.ones(n) for n in sizes)
    a[2] = 0 if weighted else 1
    a, b = a / a.sum(), b / b.sum()
    clouds = [mfld.Cloud(x, a if weighted else None), mfld.Cloud(y, b if weighted else None)]
    assert_allclose(diagnostics.wasserstein(*clouds, order), by_linear_program(x, a, y, b, order), rtol=1e-6)


def test_transport_between_gaussians(rng):
    x, y = rng.normal(size=(200_000, 1)), 2 + 3 * rng.normal(size=(100_000, 1))
    assert_allclose(diagnostics.wasserstein(x, y), math.sqrt(4 + 4), rtol=0.01)
    a, b = covariance_of(3), np.diag([1.0, 4.0, 0.25])
    x, y = gaussian(rng, 200_000, [0, 0, 0], a), gaussian(rng, 100_000, [1, 0, -1], b)
    root = np.real(np.array(linalg.sqrtm(a)))
    cross = np.real(np.array(linalg.sqrtm(root @ b @ root)))
    exact = math.sqrt(2 + np.trace(a + b - 2 * cross))
    assert_allclose(diagnostics.gaussian_wasserstein(x, y), exact, rtol=0.01)


def test_gaussian_bound_is_below_the_distance(rng):
    pytest.importorskip("ot")
    for _ in range(5):
        x, y = rng.normal(size=(30, 2)), rng.exponential(size=(40, 2))
        assert diagnostics.gaussian_wasserstein(x, y) <= diagnostics.wasserstein(x, y) + 1e-12


def test_sliced_distances(rng):
    x = rng.normal(size=(500, 3))
    shift = np.array([1.0, -2.0, 0.5])
    within(diagnostics.sliced_wasserstein(x, x + shift, n_directions=4000), np.linalg.norm(shift) / math.sqrt(3))
    assert diagnostics.sliced_wasserstein(x, x[::-1]) == 0
    y = rng.normal(size=(400, 1))
    assert_allclose(diagnostics.sliced_wasserstein(x[:, :1], y), diagnostics.wasserstein(x[:, :1], y), rtol=1e-12)
    # Two directions of the same seed, projected by hand, with weights and sizes that differ.
    cloud = mfld.Cloud(x[:50], rng.uniform(size=50))
    found = diagnostics.sliced_wasserstein(cloud, x[100:130], order=1, n_directions=2, seed=5)
    place = mfld.noise.Place.of(5).beside("directions")
    directions = place.normals(2, 3, "float64")
    costs = []
    for u in directions / np.linalg.norm(directions, axis=1, keepdims=True):
        own = stats.wasserstein_distance(x[:50] @ u, x[100:130] @ u, u_weights=cloud.weights)
        costs.append(own)
    assert_allclose(found, np.mean(costs), rtol=1e-10)


# ---- discrepancies of kernels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_mmd_of_clouds_of_different_sizes_by_brute_force(weighted, rng):
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(11, 2)) + 0.5
    a, b = (rng.uniform(size=n) if weighted else np.ones(n) for n in (7, 11))
    a, b = a / a.sum(), b / b.sum()
    clouds = [mfld.Cloud(z, w if weighted else None) for z, w in ((x, a), (y, b))]
    found = diagnostics.mmd(*clouds, kernels.Gaussian(0.8))

    def gram(u, v):
        return np.exp(-np.sum((u[:, np.newaxis] - v) ** 2, axis=2) / (2 * 0.8**2))

    def without_self(u, w):
        pairs = np.outer(w, w) * (1 - np.eye(len(w)))
        return np.sum(pairs * gram(u, u)) / pairs.sum()

    cross = a @ gram(x, y) @ b
    assert_allclose(found.v, a @ gram(x, x) @ a + b @ gram(y, y) @ b - 2 * cross, rtol=1e-10)
    assert_allclose(found.u, without_self(x, a) + without_self(y, b) - 2 * cross, rtol=1e-10)


def test_mmd_of_gaussians_in_closed_form():
    # k = exp(-r^2 / 2 l^2) between N(0, I) and N(m, I): l^p / (l^2 + 2)^(p/2) * 2 (1 - exp(-|m|^2 / 2 (l^2 + 2))).
    u_values = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(200, 2)), rng.normal(size=(300, 2))
        y[:, 0] += 0.5
        u_values.append(diagnostics.mmd(x, y, kernels.Gaussian(1.0)).u)
    exact = 2 / 3 * (1 - math.exp(-0.25 / 6))
    assert abs(np.mean(u_values) - exact) < 4 * np.std(u_values) / math.sqrt(60)


def test_stein_discrepancies_of_a_potential_and_of_an_objective(rng):
    well = mfld.potentials.Gaussian([0.5, 0.0])
    kernel = kernels.InverseMultiquadric(1.0)
    points = rng.normal(size=(40, 2))
    found = diagnostics.ksd(points, well, 2.0, kernel)
    assert_allclose(found, mfld.KSD(well, kernel, target_temperature=2.0).statistics(points), rtol=1e-10)
    # Of an interacting objective: its proximal Gibbs law at the cloud.
    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(1), [[1.0], [2.0]], [1.0, 0.0], loss="half_squared", l2=0.1)
    cloud = mfld.Cloud(rng.normal(size=(30, 3)), rng.uniform(size=30))
    frozen = risk.first_variation(cloud)
    assert_allclose(diagnostics.ksd(cloud, risk, 0.1), diagnostics.ksd(cloud, frozen, 0.1), rtol=1e-6)
    # The U-statistic has no bias at the law itself, and sees a wrong temperature.
    normals = mfld.potentials.Gaussian([0.0])
    draws = [diagnostics.ksd(rng.normal(size=(100, 1)), normals, 1.0).u for _ in range(100)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / 10
    assert diagnostics.ksd(rng.normal(size=(2000, 1)), normals, 1.5).u > 10 * np.std(draws) / 20


# ---- Stein identities ------------------------------------------------------------------------------------------------


def test_stein_identities_at_equilibrium_and_away():
    tests = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        tests.append(diagnostics.stein_identities(OU, rng.normal(size=(1000, 1)), 1.0))
    scores = np.array([[each.gradient_z[0], each.virial_z[0]] for each in tests])
    assert stats.kstest(scores[:, 0], "norm").pvalue > 1e-3
    assert stats.kstest(scores[:, 1], "norm").pvalue > 1e-3
    assert diagnostics.stein_identities(OU, rng.normal(size=(1000, 1)) + 0.3, 1.0).gradient_z[0] > 5
    assert diagnostics.stein_identities(OU, rng.normal(size=(1000, 1)), 1.3).virial_z[0] < -4


def test_stein_identities_over_replicates():
    # U = (E x)^2 / 2 * 50: one cloud's mean hardly moves, and errors over particles would be far too large for it.
    pull = mfld.Functional(lambda x: 0 * x + 50 * x.mean(), lambda x: 25 * x.mean() ** 2, n_coordinates=1, l2=0.5)
    solver = mfld.MFLD(50, step_size=0.002, temperature=1.0, n_replicates=40, dtype="float64")
    particles = solver.run(pull, 800).state.clouds["mu"].particles
    found = diagnostics.stein_identities(pull, particles, 1.0)
    assert found.worst < 4.5
    assert_allclose(found.virial, 1, atol=0.2)
    # At every N: E theta b = T, though b has the interaction of the particle with itself in it.
    assert abs(diagnostics.stein_identities(pull, particles, 1.3).virial_z[0]) > 4.5


# ---- chains ----------------------------------------------------------------------------------------------------------


def autoregressive(rng, chains, draws, rho):
    values = np.empty((chains, draws))
    values[:, 0] = rng.normal(size=chains)
    for t in range(1, draws):
        values[:, t] = rho * values[:, t - 1] + math.sqrt(1 - rho**2) * rng.normal(size=chains)
    return values


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, -0.4])
def test_autocorrelation_time_of_autoregressive_chains(rho, rng):
    exact = (1 + rho) / (1 - rho)
    draws = autoregressive(rng, 8, 5000, rho)
    assert_allclose(diagnostics.autocorrelation_time(draws), exact, rtol=0.12)
    assert_allclose(diagnostics.effective_sample_size(draws), 40_000 / exact, rtol=0.12)
    assert diagnostics.effective_sample_size(draws, kind="bulk") > 0
    assert diagnostics.rhat(draws) < 1.01
    assert diagnostics.effective_sample_size(np.stack([draws, draws], axis=2)).shape == (2,)


def test_rhat_sees_chains_that_differ(rng):
    draws = rng.normal(size=(4, 1000))
    assert diagnostics.rhat(draws + np.arange(4)[:, np.newaxis]) > 1.3
    assert diagnostics.rhat(draws + np.linspace(0, 3, 1000)) > 1.1  # halves that differ: it is split
    assert diagnostics.rhat(draws * np.array([1, 1, 1, 9])[:, np.newaxis]) > 1.05  # scales that differ: it is folded


# ---- kernels of networks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_kernels_by_brute_force(n_outputs, rng):
    model = mfld.TwoLayerNetwork(2, n_outputs=n_outputs, activation="tanh", readout="linear")
    cloud = mfld.Cloud(rng.normal(size=(6, model.n_coordinates)), rng.uniform(size=6))
    inputs = rng.normal(size=(5, 2))

    def outputs(theta):
        return model.neurons(theta[np.newaxis], inputs).reshape(5, n_outputs)

    conjugate, tangent, h = np.zeros((5, 5)), np.zeros((5, 5)), 1e-5
    for weight, theta in zip(cloud.weights, cloud.particles, strict=True):
        value = outputs(theta)
        conjugate += weight * value @ value.T
        for j in range(model.n_moving):
            unit = h * np.eye(model.n_coordinates)[j]
            slope = (outputs(theta + unit) - outputs(theta - unit)) / (2 * h)
            tangent += weight * slope @ slope.T
    assert_allclose(diagnostics.conjugate_kernel(model, cloud, inputs), conjugate, rtol=1e-12, atol=1e-14)
    assert_allclose(diagnostics.tangent_kernel(model, cloud, inputs), tangent, rtol=1e-7, atol=1e-9)


def test_the_tangent_kernel_moves_predictions(rng):
    model = mfld.TwoLayerNetwork(2)
    risk = mfld.EmpiricalRisk(model, rng.normal(size=(7, 2)), rng.normal(size=7), loss="half_squared")
    points = rng.normal(size=(30, model.n_coordinates))
    before, h = model.predict(points, risk.inputs), 1e-6
    after = model.predict(points - h * risk.gradient(points), risk.inputs)
    kernel = diagnostics.tangent_kernel(model, points, risk.inputs)
    assert_allclose((after - before) / h, -kernel @ (before - risk.targets[:, 0]) / 7, rtol=1e-4)


def test_alignment_and_degrees_of_freedom(rng):
    y = rng.normal(size=6)
    assert_allclose(diagnostics.kernel_alignment(3 * np.outer(y, y), y), 1)
    assert_allclose(diagnostics.kernel_alignment(np.outer(y, y), y[:, np.newaxis]), 1)
    features = rng.normal(size=(6, 20))
    kernel = features @ features.T / 20
    assert_allclose(
        diagnostics.degrees_of_freedom(kernel, 0.1), np.trace(kernel @ np.linalg.inv(kernel + 0.6 * np.eye(6)))
    )
    directions = rng.normal(size=(100_000, 5))
    within(diagnostics.parameter_alignment(directions, np.eye(5)[:2] + np.eye(5)[1:3]), 2 / 5)
    with pytest.raises(ValueError, match="directions must be linearly independent"):
        diagnostics.parameter_alignment(directions, [np.eye(5)[0], 2 * np.eye(5)[0]])


def test_alignment_with_one_teacher_rises(rng):
    direction = np.array([3.0, 4.0, 0.0, 0.0]) / 5
    inputs = rng.normal(size=(200, 4))
    model = mfld.TwoLayerNetwork(4, activation="tanh")
    risk = mfld.EmpiricalRisk(model, inputs, np.tanh(2 * inputs @ direction), loss="half_squared", l2=1e-3)
    solver = mfld.MFLD(500, step_size=0.2, temperature=1e-3)
    weights = model.slices["weights"]
    record = {
        "parameters": lambda state: diagnostics.parameter_alignment(state.particles[:, weights], direction),
        "kernel": lambda state: diagnostics.kernel_alignment(
            diagnostics.conjugate_kernel(model, state.measure, inputs), risk.targets
        ),
    }
    history = solver.run(risk, 80, record_every=[0, 10, 20, 40, 80], record=record).history
    assert abs(history["parameters"][0] - 1 / 4) < 0.05
    assert (np.diff(history["parameters"]) > 0.01).all()
    assert history["parameters"][-1] > 0.5
    assert (np.diff(history["kernel"]) > 0).all()


# ---- propagation of chaos --------------------------------------------------------------------------------------------


def test_chaos_of_a_quadratic_objective_in_closed_form():
    # U = (E x)^2 / 2 with a ridge of 1/2: the mean follows m' = (1 - 2 h) m + sqrt(2 T h / N) xi, and the quantity is
    # m + m^2, with the bias Var(m) and the fluctuation of m, to leading order.
    h, temperature, steps = 0.1, 1.0, 60
    pull = mfld.Functional(lambda x: 0 * x + x.mean(), lambda x: x.mean() ** 2 / 2, n_coordinates=1, l2=0.5)
    decay = (1 - 2 * h) ** 2
    variance = decay**steps + 2 * temperature * h * (1 - decay**steps) / (1 - decay)  # times N
    widths = [10, 20, 40, 80]
    measured = diagnostics.propagation_of_chaos(
        lambda n: mfld.MFLD(n, step_size=h, temperature=temperature, n_replicates=150),
        pull,
        lambda state: np.mean(state.particles, dtype=float) + np.mean(state.particles, dtype=float) ** 2,
        widths,
        steps,
    )
    within(measured.bias, variance)
    within(measured.limit, 0)
    within(measured.exponent, 0.5)
    assert_allclose(measured.spreads * np.sqrt(widths), math.sqrt(variance), rtol=0.25)
    assert measured.misfit < 6
    assert len(plots.chaos(measured, title="mean").axes) == 2
    with pytest.raises(ValueError, match="solver must have several replicates"):
        diagnostics.propagation_of_chaos(lambda n: mfld.MFLD(n, step_size=h, temperature=1.0), pull, abs, [1, 2], 1)


# ---- size ------------------------------------------------------------------------------------------------------------


def test_no_array_of_all_pairs(rng):
    n = 12_000
    points = rng.normal(size=(n, 2))
    network = mfld.TwoLayerNetwork(2, readout="fixed", bias=False)
    inputs = rng.normal(size=(50, 2))
    risk = mfld.EmpiricalRisk(network, inputs, rng.normal(size=50), loss="half_squared", l2=0.1)
    well = mfld.potentials.Gaussian([0.0, 0.0])
    law = StepLaw(risk, points, 0.01, 0.1)
    calls = [
        lambda: diagnostics.entropy(points),
        lambda: diagnostics.kl(points, well, 1.0),
        lambda: diagnostics.fisher_divergence(points, well, 1.0),
        lambda: law.entropy(500),
        lambda: diagnostics.sliced_wasserstein(points, points[::2]),
        lambda: diagnostics.gaussian_wasserstein(points, points[::2]),
        lambda: diagnostics.mmd(points, points[::2]),
        lambda: diagnostics.ksd(points, well, 1.0),
        lambda: diagnostics.stein_identities(risk, points, 0.1),
        lambda: diagnostics.tangent_kernel(network, points, inputs),
        lambda: diagnostics.conjugate_kernel(network, points, inputs),
    ]
    for call in calls:
        tracemalloc.start()
        call()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 120e6  # all pairs would be 1152e6 bytes
    with pytest.raises(ValueError, match="first and second must have at most 4000000 pairs"):
        diagnostics.wasserstein(points, points)


@pytest.mark.parametrize(
    ("module", "call", "message"),
    [
        ("scipy.spatial", lambda: diagnostics.entropy(np.eye(5)), r"entropy needs SciPy: pip install 'mfld\[diagn"),
        ("scipy.sparse", lambda: mfld.FokkerPlanck(OU, 1.0), r"FokkerPlanck needs SciPy: pip install 'mfld\[diagnost"),
        (
            "ot",
            lambda: diagnostics.wasserstein(np.eye(3), np.eye(3)),
            r"wasserstein in several dimensions needs POT: pip install 'mfld\[ot\]'",
        ),
        ("arviz_stats.base", lambda: diagnostics.rhat(np.ones((2, 9))), "rhat needs arviz-stats: pip install"),
    ],
)
def test_missing_libraries_are_named(module, call, message, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=message):
        call()


def test_what_has_no_meaning_is_refused(rng):
    well = mfld.potentials.Gaussian([0.0])
    with pytest.raises(ValueError, match="measure must have at least 2 particles for an error"):
        diagnostics.stein_identities(well, [[1.0]], 1.0)
    with pytest.raises(ValueError, match="kernel must be symmetric"):
        diagnostics.kernel_alignment(rng.normal(size=(5, 5)), np.ones(5))
    with pytest.raises(ValueError, match="kernel must be positive semi-definite, got the eigenvalue -1"):
        diagnostics.degrees_of_freedom(-np.eye(5), 1.0)
    solver = mfld.MFLD(7, step_size=0.1, temperature=1.0, n_replicates=4)
    with pytest.raises(ValueError, match="solver must return an Algorithm with 5 particles for 5, got 7"):
        diagnostics.propagation_of_chaos(lambda n: solver, well, lambda state: state.particles.var(), [5, 10], 2)

    def by_width(n):
        return mfld.MFLD(n, step_size=0.1, temperature=1.0, n_replicates=4)

    with pytest.raises(ValueError, match="quantity must be finite, got nan at 7 particles"):
        diagnostics.propagation_of_chaos(by_width, well, lambda state: np.nan, [7, 8], 2)


def test_chains_that_do_not_move_have_no_rhat():
    assert np.isnan(diagnostics.rhat(np.ones((4, 100))))  # without a warning


def test_distances_far_from_the_origin(rng):
    pytest.importorskip("ot")
    cloud = rng.normal(size=(40, 2)) + 1e6
    assert diagnostics.wasserstein(cloud, cloud) == 0
    assert diagnostics.wasserstein(cloud, cloud + np.array([1e-3, 0])) == pytest.approx(1e-3, rel=1e-6)
