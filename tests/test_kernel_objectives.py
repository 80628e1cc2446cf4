"""Discrepancies of kernels, Stein's dynamics, the kernel gradient discrepancy: against quadrature and closed forms."""

import itertools
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mfld
from mfld import description, kernels, noise, potentials, quantities, references
from mfld.mixtures import GaussianMixture

TURN = 2 * np.pi


@pytest.fixture
def rng():
    return np.random.default_rng(9)


def particle_gradient(function, particles, h=1e-5):
    """N times the central differences in each coordinate of each particle; error h**2 + eps / h, about 1e-10."""
    gradient = np.zeros_like(particles)
    for place in np.ndindex(particles.shape):
        step = np.zeros_like(particles)
        step[place] = h
        gradient[place] = (function(particles + step) - function(particles - step)) / (2 * h)
    return len(particles) * gradient


def squared_discrepancy(kernel, x, w, z, s):
    """MMD**2 of two weighted sets of points, by its definition."""
    points, signed = np.concatenate([x, z]), np.concatenate([w, -s])
    return sum(
        a * b * float(kernel.value(p, q))
        for (p, a), (q, b) in itertools.product(zip(points, signed, strict=True), repeat=2)
    )


CIRCLES = mfld.Space(domain=[mfld.Torus(2, period=TURN)])
MIXTURE = GaussianMixture([1, 2], [[0.0, 0.0], [1.5, -1.0]], [np.eye(2) / 2, [[1.0, 0.3], [0.3, 0.5]]])

DISCREPANCIES = {
    "energy": lambda z: mfld.MMD(z, kernels.Energy(), l2=0.1),
    "laplace": lambda z: mfld.MMD(z, kernels.Laplace(1.2)),
    "weighted": lambda z: mfld.MMD(z, kernels.Matern32(1.2), sample_weight=np.arange(1, len(z) + 1), l2=0.1),
    "smoothed": lambda z: mfld.MMD(z, kernels.Gaussian((0.8, 1.2)), smoothing=0.5, l2=0.1),
    "mixture": lambda z: mfld.MMD(MIXTURE, kernels.Gaussian(0.8) + kernels.Gaussian(2.0), smoothing=0.3),
    "torus": lambda z: mfld.MMD(z % TURN, kernels.Dirichlet([0.5, 0.3], TURN), smoothing=0.2, space=CIRCLES),
    "user": lambda z: mfld.MMD(z, kernels.Gaussian(1.0) * kernels.Laplace(1.0)),
    "stein": lambda z: mfld.KSD(potentials.GaussianMixture(z[:2], 0.5), kernels.InverseMultiquadric(1.0), l2=0.1),
    "stein, per coordinate": lambda z: mfld.KSD(
        potentials.Banana(), kernels.Gaussian((2.0, 0.7)), target_temperature=2.0
    ),
    "stein, differences": lambda z: mfld.KSD(
        mfld.Potential(lambda x: x**3 + np.cos(x), n_coordinates=2, l2=0.3), kernels.Matern52(0.9) + kernels.Gaussian(2)
    ),
    "stein, torus": lambda z: mfld.KSD(
        mfld.Potential(lambda x: -np.sin(x), space=CIRCLES), kernels.WrappedGaussian(0.7, TURN)
    ),
}
every_discrepancy = pytest.mark.parametrize("name", DISCREPANCIES)


@every_discrepancy
def test_gradients_are_differences_of_the_value(name, rng):
    objective = DISCREPANCIES[name](rng.normal(size=(9, 2)))
    x = rng.normal(size=(5, 2))
    gradient = objective.gradient(x)
    expected = particle_gradient(objective.value, x)
    assert_allclose(gradient, expected, rtol=0, atol=1e-7 * max(1, np.abs(expected).max()))
    single = objective.gradient(x.astype(np.float32))
    assert single.dtype == np.float32
    assert_allclose(single, gradient, rtol=0, atol=2e-5 * max(1, np.abs(expected).max()))


@every_discrepancy
def test_first_variations_are_derivatives_along_moving_mass(name, rng):
    objective = DISCREPANCIES[name](rng.normal(size=(9, 2)))
    x, extra = rng.normal(size=(5, 2)), rng.normal(size=(1, 2))
    weights = rng.uniform(0.5, 1, size=5)
    weights /= weights.sum()
    cloud, all_points = mfld.Cloud(x, weights), np.concatenate([x, extra])

    def moved(share):  # of the mass, from the cloud to the extra point: quadratic in the share
        return objective.value(mfld.Cloud(all_points, np.append((1 - share) * weights, share)))

    frozen = objective.first_variation(cloud)
    h = 1e-3
    expected = (-3 * moved(0) + 4 * moved(h) - moved(2 * h)) / (2 * h)
    assert_allclose(frozen(extra)[0] - frozen.value(cloud), expected, rtol=1e-6, atol=1e-8)
    assert_array_equal(frozen.gradient(x), objective.gradient(cloud))
    assert frozen.initial_particles(7).shape == (7, 2)


def test_the_discrepancy_is_its_definition(rng):
    x, z, s = rng.normal(size=(6, 2)), rng.normal(size=(9, 2)), rng.uniform(size=9)
    for kernel in (kernels.Gaussian(0.7), kernels.Energy(), kernels.Matern32(1.0)):
        objective = mfld.MMD(z, kernel, sample_weight=s)
        expected = squared_discrepancy(kernel, x, np.full(6, 1 / 6), z, s / s.sum())
        assert_allclose(objective.loss(x), expected, rtol=1e-10)
        assert_allclose(objective.loss(mfld.Cloud(z, s)), 0, atol=1e-14)


def test_weights_count_as_copies(rng):
    x, z = rng.normal(size=(4, 2)), rng.normal(size=(3, 2))
    copies = mfld.MMD(z[[0, 0, 0, 1, 2, 2]], kernels.Gaussian(1.0), smoothing=0.3)
    weighted = mfld.MMD(z, kernels.Gaussian(1.0), smoothing=0.3, sample_weight=[3, 1, 2])
    cloud, cloud_of_copies = mfld.Cloud(x, [2, 1, 1, 2]), x[[0, 0, 1, 2, 3, 3]]
    assert_allclose(weighted.loss(cloud), copies.loss(cloud_of_copies), rtol=1e-11)
    assert_allclose(weighted.gradient(cloud), copies.gradient(cloud_of_copies)[[0, 2, 3, 4]], rtol=1e-11)


def test_smoothing_is_the_discrepancy_of_a_density(rng):
    # In one dimension by quadrature: the smoothed particles as many points of weight density * width.
    x, z, deviation, kernel = rng.normal(size=(4, 1)), rng.normal(size=(7, 1)), 0.4, kernels.Gaussian(0.6)
    line = np.linspace(-7, 7, 1401)[:, np.newaxis]
    density = np.exp(-((line - x.T) ** 2) / (2 * deviation**2)).mean(axis=1)
    fine = mfld.MMD(z, kernel).loss(mfld.Cloud(line, density))
    assert_allclose(mfld.MMD(z, kernel, smoothing=deviation).loss(x), fine, rtol=1e-10)


def test_the_embedding_of_a_mixture_is_exact(rng):
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    share = np.multiply.outer(weights, weights).ravel() / weights.sum() ** 2
    parts = zip(MIXTURE.weights, MIXTURE.means, MIXTURE.covariances, strict=True)
    samples, mass = zip(*((m + grid @ np.linalg.cholesky(c).T, w * share) for w, m, c in parts), strict=True)
    kernel, x = 2 * kernels.Gaussian((1.0, 1.4)), rng.normal(size=(5, 2))
    by_quadrature = mfld.MMD(np.concatenate(samples), kernel, smoothing=0.3, sample_weight=np.concatenate(mass))
    exact = mfld.MMD(MIXTURE, kernel, smoothing=0.3)
    assert_allclose(exact.loss(x), by_quadrature.loss(x), rtol=1e-7)
    assert_allclose(exact.gradient(x), by_quadrature.gradient(x), rtol=1e-7, atol=1e-9)
    assert_allclose(exact.first_variation(x)(x), by_quadrature.first_variation(x)(x), rtol=1e-7)


def test_batches_of_samples_are_unbiased(rng):
    x = rng.normal(size=(5, 2))
    objective = mfld.MMD(rng.normal(size=(6, 2)), kernels.Gaussian(1.0), smoothing=0.2, sample_weight=np.arange(1, 7))
    batches = list(itertools.combinations(range(6), 2))
    mean = np.mean([objective.loss_gradient(x, batch) for batch in batches], axis=0)
    assert_allclose(mean, objective.loss_gradient(x), rtol=1e-12, atol=1e-14)
    for estimator in (mfld.SVRG(2, 3), mfld.SARAH(2, 3), mfld.Minibatch(2)):
        mfld.MFLD(5, step_size=0.1, temperature=0.0, gradient=estimator).run(objective, 7)


def test_statistics_without_the_diagonal(rng):
    x, z = rng.normal(size=(5, 2)), rng.normal(size=(4, 2))
    kernel = kernels.Matern52(1.0)
    pairs = lambda a, b: [kernel.matrix(a, b)[i, j] for i in range(len(a)) for j in range(len(b)) if i != j]  # noqa: E731
    expected = np.mean(pairs(x, x)) + np.mean(pairs(z, z)) - 2 * kernel.matrix(x, z).mean()
    assert_allclose(mfld.MMD(z, kernel).u_statistic(x), expected, rtol=1e-11)
    well = potentials.Gaussian([0.0, 1.0])
    u = lambda a, b: kernel.stein_sums(a, -well.gradient(a), b, -well.gradient(b)).values[0]  # noqa: E731
    expected = np.mean([u(x[i : i + 1], x[j : j + 1]) for i in range(5) for j in range(5) if i != j])
    assert_allclose(mfld.KSD(well, kernel).statistics(x).u, expected, rtol=1e-10)


def test_statistics_of_a_law_at_itself_are_centred():
    # Means over 400 repetitions at 12 draws: the U-statistics have mean 0, the V-statistics E u(X, X) / 12.
    well, kernel = potentials.Gaussian([0.0, 1.0]), kernels.InverseMultiquadric(1.0)
    ksd = mfld.KSD(well, kernel)
    draws = noise.normals(0, 0, 4800, 2, dtype="float64", stream="data").reshape(400, 12, 2)
    draws = draws + np.array([0.0, 1.0])
    found = np.array([ksd.statistics(x) for x in draws])
    error = found[:, 1].std() / 20
    assert abs(found[:, 1].mean()) < 4 * error
    expected = kernel.stein_diagonal(draws.reshape(-1, 2), -well.gradient(draws.reshape(-1, 2))).mean() / 12
    assert abs(found[:, 0].mean() - expected) < 4 * error


def test_a_stream_is_fitted_by_batches():
    def sample(step, n_rows):
        return 2 + 0.5 * noise.normals(3, step, n_rows, 2, dtype="float64", stream="data")

    stream = mfld.MMD(sample, kernels.Gaussian("median"), smoothing=0.3, space=mfld.Space(2))
    solver = mfld.MFLD(40, step_size=0.5, temperature=1e-4, gradient=mfld.Minibatch(20))
    result = solver.run(stream, n_steps=300)
    assert np.abs(result.particles.mean(axis=0) - 2).max() < 0.1
    assert stream.sampled(10**6, 500).loss(result.measure) < 1e-2
    assert np.isfinite(result.history["loss"]).all()
    with pytest.raises(ValueError, match="gradient must be Minibatch"):
        mfld.MFLD(40, step_size=0.5, temperature=1e-4).run(stream, 1)
    with pytest.raises(TypeError, match="the gradient over a stream is an expectation"):
        stream.gradient(np.zeros((3, 2)))


@every_discrepancy
def test_runs_are_the_same_on_any_threads_and_side_by_side(name, rng):
    objective = DISCREPANCIES[name](rng.normal(size=(9, 2)))
    arguments = {"step_size": 1e-3, "temperature": 0.01}
    runs = [mfld.MFLD(300, num_threads=t, **arguments).run(objective, 3).particles.tobytes() for t in (1, 2, 3)]
    assert len(set(runs)) == 1
    both = mfld.MFLD(20, n_replicates=2, **arguments).run(objective, 3).state.clouds["mu"].particles
    solver = mfld.MFLD(20, **arguments)
    for r in range(2):
        alone, _ = solver.advance(objective, solver.init(objective, seed=0, replica=r), 3)
        assert_array_equal(alone.particles, both[r])


BLOCKS = mfld.Space(domain=[mfld.Sphere(3), mfld.Box([-1.0], [1.0])])
UNIT_TORUS = mfld.Space(domain=[mfld.Torus(4, period=1.0)])
IN_CORE = {
    "smoothed": lambda x: mfld.MMD(x, kernels.Gaussian([0.7, 1.0, 1.3, 2.0]), smoothing=0.4, l2=0.01),
    "weighted": lambda x: mfld.MMD(x, kernels.Energy(), sample_weight=np.arange(1.0, len(x) + 1)),
    "frozen": lambda x: mfld.MMD(x, kernels.Laplace(1.0), space=mfld.Space(4, 3)),
    "blocks": lambda x: mfld.MMD(x, kernels.Matern52(1.0), space=BLOCKS, reference=references.Uniform()),
    "torus": lambda x: mfld.MMD(x % 1, kernels.Dirichlet([0.5, 0.2]), smoothing=0.1, space=UNIT_TORUS),
    "wrapped": lambda x: mfld.MMD(x % 1, kernels.WrappedGaussian(0.2, period=1.0), space=UNIT_TORUS),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", IN_CORE)
def test_steps_in_the_core_have_the_bits_of_steps_one_by_one(name, dtype):
    objective, twin = (IN_CORE[name](np.random.default_rng(5).normal(size=(40, 4))) for _ in range(2))
    twin.native = lambda dtype: None
    assert objective.native(np.dtype(dtype)) is not None
    falls, cools = mfld.schedules.Power(0.3, 0.5), mfld.schedules.Geometric(0.05, 0.5, 3)
    ends = []
    for own, threads in ((objective, 1), (objective, 3), (twin, 1)):
        solver = mfld.MFLD(
            70, step_size=falls, temperature=(cools, 0.01), dtype=dtype, n_replicates=2, num_threads=threads
        )
        result = solver.run(own, n_steps=17, seed=3, record_every=5)
        ends.append(result)
    for other in ends[1:]:
        assert other.state.clouds["mu"].particles.tobytes() == ends[0].state.clouds["mu"].particles.tobytes()
        assert other.history.keys() == ends[0].history.keys()
        for key, values in ends[0].history.items():
            np.testing.assert_array_equal(other.history[key], values)
    assert np.isfinite(ends[0].history["loss"]).all()


def test_what_the_core_does_not_know_is_stepped_one_by_one():
    x = np.random.default_rng(5).normal(size=(40, 4))
    mixed = mfld.MMD(x, kernels.Gaussian(1.0) + kernels.Laplace(1.0))
    mixture = mfld.MMD(GaussianMixture(None, x, 1.0), kernels.Gaussian(1.0))
    for objective in (mixed, mixture):
        assert objective.native(np.dtype("float64")) is None
    fit = mfld.MMD(x, kernels.Gaussian(1.0))
    for options in ({"gradient": mfld.Minibatch(3)}, {"dynamics": mfld.Underdamped(1.0)}):
        ends = [
            mfld.MFLD(20, step_size=0.1, temperature=0.1, **{**options, "num_threads": threads}).run(fit, n_steps=4)
            for threads in (1, 2)
        ]
        assert ends[0].particles.tobytes() == ends[1].particles.tobytes()


def test_a_divergence_in_the_core_is_found_at_its_step():
    """Steps of 1e3 along a ridge of 1 multiply particles by -1999 each: float32 ends after 12 steps."""
    fit = mfld.MMD(np.zeros((3, 2)), kernels.Gaussian(1.0), l2=1.0)
    found = []
    twin = mfld.MMD(np.zeros((3, 2)), kernels.Gaussian(1.0), l2=1.0)
    twin.native = lambda dtype: None
    for own in (fit, twin):
        solver = mfld.MFLD(5, step_size=1e3, temperature=0.0, n_replicates=2)
        with pytest.raises(mfld.DivergenceError) as caught:
            solver.run(own, n_steps=50, record_every=50, particles=np.arange(10.0).reshape(5, 2))
        error = caught.value
        found.append((error.state.step, str(error), error.state.clouds["mu"].particles.tobytes()))
    assert found[0] == found[1]
    assert 5 < found[0][0] < 20


def test_use_changes_no_description(rng):
    fit = mfld.MMD(rng.normal(size=(9, 2)), kernels.Gaussian(1.0), smoothing=0.2)
    before, size = description.describe(fit), len(pickle.dumps(fit))
    result = mfld.MFLD(20, step_size=0.1, temperature=0.1, num_threads=2).run(fit, n_steps=20)
    assert fit.loss(result.measure) > 0
    assert description.describe(fit) == before
    again = pickle.loads(pickle.dumps(fit))
    assert again.loss(result.measure) == fit.loss(result.measure)
    assert len(pickle.dumps(fit)) < 3 * size


def test_objectives_are_values(rng):
    objective = mfld.MMD(rng.normal(size=(9, 2)), kernels.Gaussian(1.0), smoothing=0.1)
    x = rng.normal(size=(3, 2))
    assert pickle.loads(pickle.dumps(objective)).loss(x) == objective.loss(x)
    ksd = mfld.KSD(potentials.Gaussian([0.0, 0.0]), kernels.Gaussian(1.0))
    assert ksd.on_threads(2).loss(x) == ksd.loss(x)


# ---- Hessians --------------------------------------------------------------------------------------------------------

INPUTS = np.random.default_rng(2).normal(size=(20, 2))
CURVED = {
    "gaussian": potentials.Gaussian([1.0, 0.0], [[2.0, 0.5], [0.5, 1.0]]),
    "wells": potentials.DoubleWell(2, distance=1.5, height=2.0, tilt=0.1),
    "mixture": potentials.GaussianMixture([[0.0, 0.0], [2.0, 1.0]], [np.eye(2), [[1.0, 0.3], [0.3, 0.5]]], [1, 2]),
    "banana": potentials.Banana(3, scale=1.5, bend=0.3),
    "funnel": potentials.Funnel(3, scale=2.0),
    "linear": potentials.BayesianLinearRegression(INPUTS, INPUTS[:, 0], noise_variance=0.5),
    "logistic": potentials.BayesianLogisticRegression(INPUTS, np.sign(INPUTS[:, 0])),
}


@pytest.mark.parametrize("name", CURVED)
def test_products_with_the_hessian_are_differences_of_the_gradient(name, rng):
    potential = CURVED[name]
    x, v = rng.normal(size=(2, 6, potential.n_coordinates))
    h = 1e-5
    expected = (potential.gradient(x + h * v) - potential.gradient(x - h * v)) / (2 * h)
    assert_allclose(potential.hessian_vector(x, v), expected, rtol=1e-7, atol=1e-8)
    plain = mfld.Potential(potential.loss_gradient, n_coordinates=x.shape[1], l2=potential.l2)
    assert_allclose(plain.hessian_vector(x, v), expected, rtol=1e-7, atol=1e-8)
    assert_array_equal(plain.hessian_vector(x, 0 * v), 0 * v)
    assert potential.hessian_vector(x.astype("float32"), v).dtype == np.float32


def test_a_potential_may_bring_its_products(rng):
    x, v = rng.normal(size=(2, 6, 2))
    own = mfld.Potential(lambda x: x**3, hessian_vector=lambda x, v: 3 * x**2 * v, n_coordinates=2, n_moving=1, l2=0.5)
    assert_allclose(own.hessian_vector(x, v), (3 * x**2 * v + v) * [1, 0], rtol=1e-12)
    wrong = mfld.Potential(lambda x: x, hessian_vector=lambda x, v: v[:1], n_coordinates=2)
    with pytest.raises(ValueError, match=r"the result of hessian_vector must have shape \(6, 2\)"):
        wrong.hessian_vector(x, v)


# ---- what theory says of runs ----------------------------------------------------------------------------------------


def test_descent_of_the_stein_discrepancy_stalls_by_symmetry_and_noise_frees_it():
    # Two modes at -2 and 2: particles on the line between them are not pushed off it.
    target = potentials.GaussianMixture([[-2.0, 0.0], [2.0, 0.0]], 0.25)
    ksd = mfld.KSD(target, kernels.InverseMultiquadric(1.0))
    start = np.stack([np.zeros(30), np.linspace(-1.5, 1.5, 30)], axis=1)
    ends = {}
    for temperature in (0.0, mfld.schedules.Geometric(0.03, factor=0.5, stage_length=120)):
        solver = mfld.MFLD(30, step_size=0.02, temperature=temperature, dtype="float64")
        particles = solver.run(ksd, n_steps=1200, particles=start, record_every=1200).particles
        ends[temperature == 0.0] = np.abs(particles[:, 0]), ksd.loss(particles)
    assert ends[True][0].max() == 0
    assert np.mean(np.abs(ends[False][0] - 2) < 0.8) > 0.8
    assert ends[False][1] < ends[True][1] / 10


class Affine(kernels.Kernel):
    """The kernel x.y + 1."""

    def value(self, x, y):
        return 1 + np.sum(x * y, axis=-1)

    def gradient(self, x, y):
        return np.broadcast_to(y, np.broadcast_shapes(x.shape, y.shape))


def test_fixed_points_of_svgd_with_an_affine_kernel_have_the_moments_of_a_gaussian(rng):
    # Liu, Wang 2018, "Stein variational gradient descent as moment matching": with more particles than coordinates
    # mean and covariance of a Gaussian are exact, at any number of particles.
    covariance = np.array([[2.0, 0.6], [0.6, 1.0]])
    well = potentials.Gaussian([1.0, -1.0], covariance)
    solver = mfld.MFLD(6, step_size=0.1, temperature=1.5, dynamics=mfld.SVGD(Affine()), dtype="float64")
    particles = solver.run(well, n_steps=600, particles=rng.normal(size=(6, 2)), record_every=600).particles
    assert_allclose(particles.mean(axis=0), [1.0, -1.0], atol=1e-8)
    assert_allclose(np.cov(particles.T, bias=True), 1.5 * covariance, atol=1e-8)


def test_fixed_points_of_svgd_with_a_gaussian_kernel(rng):
    # There sum_j k(x_i, x_j) s(x_j) + grad_j k = 0 for each i: Stein's identity of the functions k(x_i, .). Their sum
    # over i, in which the repulsions cancel, is sum_j K_j s(x_j) = 0. The spread grows to that of the law with N.
    spreads = []
    for n in (10, 30):
        start = np.sort(rng.normal(size=(n, 1)), axis=0)
        kernel = kernels.Gaussian(1.0)
        solver = mfld.MFLD(n, step_size=1.0, temperature=1.0, dynamics=mfld.SVGD(kernel), dtype="float64")
        x = solver.run(potentials.Gaussian([0.0]), n_steps=1500, particles=start, record_every=1500).particles
        matrix = kernel.matrix(x)
        residual = matrix @ -x + np.sum(matrix[..., np.newaxis] * (x[:, np.newaxis] - x), axis=1)
        assert np.abs(residual).max() / n < 1e-4
        assert abs(np.sum(matrix.sum(axis=0) * x[:, 0])) / n**2 < 1e-5
        spreads.append(x.var())
    assert 0.7 < spreads[0] < spreads[1] < 1
    assert spreads[1] > 0.9


def test_variational_gradient_descent_of_particles_that_interact(rng):
    # U = |E theta - c|^2 / 2 with a ridge: the minimiser is N(c / (1 + 2 l2), T / (2 l2)), and KGD^2 is small there.
    class Mean(mfld.Objective):
        space, reference, target = mfld.Space(2), mfld.references.Gaussian(0.5), np.array([2.0, -4.0])

        def loss(self, measure):
            return float(np.sum((self.cloud(measure).particles.mean(axis=0) - self.target) ** 2) / 2)

        def loss_gradient(self, measure, batch=None):
            particles = self.cloud(measure).particles
            return np.tile(particles.mean(axis=0) - self.target, (len(particles), 1))

        def first_variation(self, measure, batch=None):
            raise NotImplementedError

    objective, start = Mean(), rng.normal(size=(100, 2))
    kgd = quantities.kernel_gradient_discrepancy(objective, temperature=0.8)
    dynamics = mfld.SVGD(kernels.Gaussian(1.0))
    solver = mfld.MFLD(100, step_size=0.5, temperature=0.8, dynamics=dynamics, dtype="float64", num_threads=1)
    result = solver.run(objective, n_steps=400, particles=start, record={"kgd": kgd}, record_every=[0, 400])
    assert_allclose(result.particles.mean(axis=0), [1.0, -2.0], atol=1e-2)
    assert_allclose(result.particles.var(axis=0), 0.8, rtol=0.1)
    first, last = result.history["kgd"][:, 0]
    independent = (2 / 0.8 + 2) / 100  # E u(X, X) / N of as many draws from the minimiser
    assert last < independent / 4 < first


def test_the_kernel_gradient_discrepancy_is_that_of_stein_with_the_score_of_the_objective(rng):
    model = mfld.TwoLayerNetwork(n_features=1, readout="signs")
    risk = mfld.EmpiricalRisk(model, INPUTS[:, :1], INPUTS[:, 1], loss="squared", l2=0.05)
    solver = mfld.MFLD(12, step_size=0.1, temperature=0.02, dtype="float64")
    state = solver.init(risk, seed=1)
    kernel = kernels.InverseMultiquadric(1.5, exponent=-0.4)
    v, u = quantities.kernel_gradient_discrepancy(risk, 0.02, kernel)(state)
    x, scores = state.particles[:, :2], -risk.gradient(state.particles)[:, :2] / 0.02
    pairs = [[kernel.stein_sums([a], [s], [b], [t]).values[0] for b, t in zip(x, scores, strict=True)]
             for a, s in zip(x, scores, strict=True)]  # fmt: skip
    assert_allclose(v, np.mean(pairs), rtol=1e-9)
    assert_allclose(u, (np.sum(pairs) - np.trace(pairs)) / (12 * 11), rtol=1e-9)


def test_svgd_and_discrepancies_on_a_torus():
    well = mfld.Potential(np.sin, lambda x: -np.cos(x).sum(axis=1), space=CIRCLES)  # most mass around 0
    kernel = kernels.WrappedGaussian(0.5, TURN)
    start = CIRCLES.draw(noise.Place.of(1), 60, "float64")
    solver = mfld.MFLD(60, step_size=0.3, temperature=0.5, dynamics=mfld.SVGD(kernel), dtype="float64")
    x = solver.run(well, n_steps=500, particles=start, record_every=500).particles
    # The von Mises law of concentration 2 has E cos = I_1(2) / I_0(2) = 0.69777.
    assert_allclose(np.cos(x).mean(axis=0), 0.69777, atol=0.03)
    assert_allclose(np.sin(x).mean(axis=0), 0, atol=0.03)


def chizat(seed):
    """Final discrepancies of noiseless and annealed descent; settings of Chizat 2022 with a square that is not halved.

    Products of Dirichlet kernels on the torus, 10 points as a target, 50 particles, 1000 steps of 0.08 along half of
    the gradient, temperatures 20 / (k + 1) for the halved square, and no noise in the last 200 steps.
    """
    uniform = CIRCLES.draw(noise.Place.of(seed), 60, "float64")
    target = mfld.MMD(uniform[:10], kernels.Dirichlet([1 / (1 + k) for k in range(1, 6)], TURN), space=CIRCLES)

    def annealed(step):
        return 2 * 20 / (step + 1) if step < 800 else 0.0

    for temperature in (0.0, annealed):
        solver = mfld.MFLD(50, step_size=0.04, temperature=temperature, dtype="float64", num_threads=1)
        result = solver.run(target, n_steps=1000, seed=seed, particles=uniform[10:], record_every=1000)
        yield target.loss(result.measure)


def test_annealed_noise_reaches_what_descent_does_not():
    ends = np.array([list(chizat(seed)) for seed in range(5)])
    assert (ends[:, 1] < ends[:, 0]).all()
    assert np.median(ends[:, 0] / ends[:, 1]) > 3


# ---- misuse ----------------------------------------------------------------------------------------------------------

WELL = potentials.Gaussian([0.0, 0.0])
NAN = mfld.Potential(lambda x: np.full_like(x, np.nan), n_coordinates=2)
Z = np.arange(8.0).reshape(4, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mfld.MMD(Z, kernels.Gaussian(1.0)).loss(np.zeros((3, 1))), ValueError, r"particles must have shape"),
        (lambda: mfld.MMD(Z, kernels.Gaussian((1.0,))), ValueError, "kernel must be of 2 coordinates to match"),
        (lambda: mfld.MMD(Z, kernels.Gaussian(1.0), space=mfld.Space(3)), ValueError, "samples must have 3 columns"),
        (lambda: mfld.MMD(0 * Z, kernels.Gaussian("median")), ValueError, "length_scale must be a number where"),
        (lambda: mfld.MMD(Z, kernels.Laplace(1.0), smoothing=0.1), TypeError, "smoothing must be 0 for Laplace"),
        (lambda: mfld.MMD([[np.nan]], kernels.Gaussian(1.0)), ValueError, "samples must be finite, got nan"),
        (lambda: mfld.MMD(MIXTURE, kernels.Laplace(1.0)), TypeError, "kernel must be Gaussian, or a sum of such"),
        (lambda: mfld.MMD(MIXTURE, kernels.Gaussian()), ValueError, "length_scale must be a number here"),
        (lambda: mfld.MMD(MIXTURE, kernels.Gaussian(1.0), sample_weight=[1]), TypeError, "sample_weight must be left"),
        (lambda: mfld.MMD(lambda s, n: 0, kernels.Gaussian(1.0)), ValueError, "space must be given for a stream"),
        (lambda: mfld.MMD(Z, kernels.Gaussian(1.0), space=CIRCLES), ValueError, "kernel must have the periods of"),
        (lambda: mfld.KSD(WELL, kernels.Energy()), ValueError, "kernel must be positive definite, Energy"),
        (lambda: mfld.KSD(WELL, kernels.Matern32(1.0)), ValueError, "kernel must have 3 derivatives here"),
        (lambda: mfld.KSD(WELL, kernels.Gaussian()), ValueError, "length_scale must be a number here"),
        (lambda: mfld.KSD(WELL, kernels.Gaussian((1.0,))), ValueError, "kernel must be of 2 coordinates"),
        (lambda: mfld.KSD(NAN, kernels.Gaussian(1.0)).loss(Z), ValueError, r"score must be finite, got the gradient"),
        (lambda: mfld.SVGD(kernels.Energy()), ValueError, "kernel must be positive definite"),
        (lambda: mfld.SVGD("gaussian"), TypeError, "kernel must be a Kernel"),
        (
            lambda: mfld.MFLD(4, step_size=0.1, temperature=1.0, dynamics=mfld.SVGD()).run(WELL, 1, particles=0 * Z),
            ValueError,
            "length_scale must be a number where the median",
        ),
        (
            lambda: mfld.MFLD(4, step_size=0.1, temperature=1.0, dynamics=mfld.SVGD()).run(
                mfld.Potential(lambda x: x, space=mfld.Space(domain=[mfld.Sphere(2)])), 1
            ),
            ValueError,
            "domain must be Euclidean or a torus for Stein's identity",
        ),
        (lambda: quantities.kernel_gradient_discrepancy(WELL, 0.0), ValueError, "temperature must be finite and pos"),
        (lambda: GaussianMixture([1], [[0.0]], [[[-1.0]]]), ValueError, r"covariances\[0\] must be positive definite"),
    ],
)
def test_misuse_has_its_message(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_kernels_that_are_not_positive_definite_are_warned_of(rng):
    class Saddle(kernels.Radial):
        def profile(self, s):
            return -np.exp(-s / 2), np.exp(-s / 2) / 2

    with pytest.warns(UserWarning, match="is not positive definite: its matrix at some points has the eigenvalue"):
        mfld.MMD(rng.normal(size=(20, 2)), Saddle(1.0))

    class Skew(kernels.Kernel):
        def value(self, x, y):
            return np.sum(x - 2 * y, axis=-1)

    with pytest.raises(ValueError, match="kernel must be symmetric"):
        mfld.MMD(rng.normal(size=(20, 2)), Skew())


def test_a_run_that_diverges_says_so():
    solver = mfld.MFLD(4, step_size=1e300, temperature=1.0, dynamics=mfld.SVGD(kernels.Gaussian(1.0)))
    with pytest.raises(mfld.DivergenceError):
        solver.run(potentials.DoubleWell(2), 20, particles=Z)
