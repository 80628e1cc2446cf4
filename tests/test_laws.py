"""Laws known in closed form, at the step size and the number of particles that were run.

What is compared is the law of the discrete scheme, bias included, so that no test has to wait for a small step. Seeds
are fixed, standard errors derived, and 5 of them allowed; tests also show that they would notice the law without bias.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import mfld
from mfld import noise


def assert_mean(values, expected, standard_error):
    assert np.all(np.abs(values - expected) <= 5 * standard_error), (values, expected, standard_error)


def euler_variance(curvature, step_size, temperature):
    """Of x <- (1 - step_size * curvature) x + sqrt(2 temperature step_size) xi, in the long run."""
    return temperature / (curvature * (1 - step_size * curvature / 2))


# ---- Gaussian laws ---------------------------------------------------------------------------------------------------

CURVATURES = np.array([0.5, 2.0, 4.0])


def ridge_alone(curvature):
    """A network without output: its native steps see the ridge and nothing else."""
    model = mfld.TwoLayerNetwork(n_features=3, output_scale=0.0, readout="fixed", bias=False)
    return mfld.EmpiricalRisk(model, np.ones((1, 3)), [0.0], loss="squared", l2=curvature / 2)


QUADRATIC = {
    "python": (mfld.Potential(lambda x: x * CURVATURES.astype(x.dtype), n_coordinates=3), CURVATURES),
    "python and ridge": (
        mfld.Potential(lambda x: x * (CURVATURES - 0.4).astype(x.dtype), n_coordinates=3, l2=0.2),
        CURVATURES,
    ),
    "native": (ridge_alone(2.0), np.full(3, 2.0)),
}


@pytest.mark.parametrize(("objective", "curvature"), QUADRATIC.values(), ids=QUADRATIC)
@pytest.mark.parametrize("n_steps", [1, 3, 60])
def test_quadratic_potential(objective, curvature, n_steps, dtype):
    n, step_size, temperature, start = 100_000, 0.3, 0.7, 2.0
    solver = mfld.MFLD(n, step_size=step_size, temperature=temperature, dtype=dtype)
    result = solver.run(objective, n_steps, seed=1, particles=np.full((n, 3), start))
    contraction = 1 - step_size * curvature
    variance = euler_variance(curvature, step_size, temperature) * (1 - contraction ** (2 * n_steps))
    x = result.particles.astype(np.float64)
    assert_mean(x.mean(axis=0), contraction**n_steps * start, np.sqrt(variance / n))
    assert_mean(x.var(axis=0, ddof=1), variance, variance * np.sqrt(2 / (n - 1)))  # of a chi-squared
    if n_steps == 60:
        without_bias = temperature / curvature
        assert (np.abs(variance - without_bias) > 10 * variance * np.sqrt(2 / n)).all()
    assert (np.abs(np.corrcoef(x.T)[np.triu_indices(3, 1)]) < 5 / np.sqrt(n)).all()


# Without a gradient a step is x <- (1 - c) x + s xi; here c, s^2 / (2 T h) and the stationary variance over T / (2 l2),
# of z = l2 h.
RIDGES = {
    "explicit": (lambda z: 2 * z, lambda z: 1.0, lambda z: 1 / (1 - z)),
    "implicit": (lambda z: 2 * z / (1 + 2 * z), lambda z: (1 + 2 * z) ** -2, lambda z: 1 / (1 + z)),
    "crank_nicolson": (lambda z: 2 * z / (1 + z), lambda z: (1 + z) ** -2, lambda z: 1.0),
    "exact": (lambda z: -np.expm1(-2 * z), lambda z: -np.expm1(-4 * z) / (4 * z), lambda z: 1.0),
}


@pytest.mark.parametrize("ridge", RIDGES)
@pytest.mark.parametrize("native", [True, False], ids=["native", "python"])
def test_ways_to_take_the_ridge(ridge, native, dtype):
    n, l2, temperature, start = 100_000, 1.0, 0.7, 2.0
    flat = mfld.Potential(lambda x: 0 * x, n_coordinates=3, l2=l2)
    objective = ridge_alone(2 * l2) if native else flat
    for step_size in (0.6,) if ridge == "explicit" else (0.6, 2.5):
        pull, spread, ratio = (law(l2 * step_size) for law in RIDGES[ridge])
        solver = mfld.MFLD(
            n, step_size=step_size, temperature=temperature, dtype=dtype, dynamics=mfld.Overdamped(ridge)
        )
        for n_steps in (1, 40):
            result = solver.run(objective, n_steps, seed=1, particles=np.full((n, 3), start))
            kept = (1 - pull) ** (2 * n_steps)
            variance = spread * 2 * temperature * step_size * (1 - kept) / (1 - (1 - pull) ** 2)
            x = result.particles.astype(np.float64)
            assert_mean(x.mean(axis=0), (1 - pull) ** n_steps * start, np.sqrt(variance / n))
            assert_mean(x.var(axis=0, ddof=1), variance, variance * np.sqrt(2 / (n - 1)))
        if ridge != "crank_nicolson" or step_size < 1:  # which forgets slowly at large steps
            assert_allclose(variance, ratio * temperature / (2 * l2), rtol=1e-6)
        # The gradient that the step took: 2 l2 x at the particles before it, and nothing else.
        before = solver.run(objective, 39, seed=1, particles=np.full((n, 3), start)).particles
        norm = np.sqrt(np.mean(np.sum((2 * l2 * before.astype(np.float64)) ** 2, axis=1)))
        assert_allclose(result.info.gradient_norm, norm, rtol=1e-6)


def test_ways_to_take_the_ridge_are_one_without_it():
    well = mfld.Potential(lambda x: x, n_coordinates=2)
    runs = [
        mfld.MFLD(20, step_size=0.1, temperature=0.3, dynamics=mfld.Overdamped(ridge)).run(well, 5).particles
        for ridge in RIDGES
    ]
    for run in runs[1:]:
        assert_allclose(run, runs[0], rtol=1e-6)
    with pytest.raises(ValueError, match="ridge must be one of explicit, implicit, crank_nicolson, exact; got 'none'"):
        mfld.Overdamped("none")


def test_a_small_ridge_is_in_force_in_float32():
    """step_size * l2 is a sixth of the grain of float32 at 1: what is multiplied by it would not change a particle."""
    n, step_size, l2, temperature, n_steps = 64, 1e-3, 1e-5, 1e-9, 1_000_000
    model = mfld.TwoLayerNetwork(n_features=16, output_scale=0.0, readout="fixed", bias=False)
    risk = mfld.EmpiricalRisk(model, np.ones((1, 16)), [0.0], loss="squared", l2=l2)
    solver = mfld.MFLD(n, step_size=step_size, temperature=temperature)
    x = solver.run(risk, n_steps, particles=np.ones((n, 16)), record_every=n_steps).particles.astype(np.float64)
    decay = np.exp(-2 * l2 * step_size * n_steps)
    spread = np.sqrt(2 * temperature * step_size * n_steps)
    # Rounding is another noise, uniform within the grain of 2**-24 below 1.
    rounding = 2.0**-24 / np.sqrt(12) * np.sqrt(n_steps)
    assert_mean(x.mean(), decay, np.hypot(spread, rounding) / np.sqrt(x.size))
    assert 1 - decay > 100 * spread / np.sqrt(x.size)


def test_anisotropic_gaussian_with_rotated_axes():
    n, step_size, temperature, angle = 200_000, 0.15, 0.5, 0.6
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    curvature = np.array([0.8, 8.0])  # of which the second is near the stability limit 2/step_size
    hessian = axes * curvature @ axes.T
    mode = np.array([1.0, -2.0])
    potential = mfld.Potential(
        lambda x: (x - mode) @ hessian,
        lambda x: 0.5 * np.sum((x - mode) @ hessian * (x - mode), axis=1),
        n_coordinates=2,
    )
    solver = mfld.MFLD(n, step_size=step_size, temperature=temperature)
    result = solver.run(potential, 120, seed=2)
    variances = euler_variance(curvature, step_size, temperature)
    # The start, N(0, I) around 0, is forgotten to (1 - 0.12)^240 of its variance and (1 - 0.12)^120 of its mean.
    covariance = axes * variances @ axes.T
    x = result.particles.astype(np.float64)
    assert_mean(x.mean(axis=0), mode, np.sqrt(np.diag(covariance) / n))
    # Var S_ij = (C_ii C_jj + C_ij^2) / (n - 1) for normal x
    standard_error = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / (n - 1))
    assert_mean(np.cov(x.T), covariance, standard_error)
    assert (np.abs(covariance - temperature * np.linalg.inv(hessian)) > 20 * standard_error).all()
    # E V = sum_i curvature_i variance_i / 2, which without bias is temperature per two coordinates.
    energy, spread = np.sum(curvature * variances) / 2, np.sqrt(np.sum((curvature * variances) ** 2) / 2)
    assert_mean(potential.value(result.particles), energy, spread / np.sqrt(n))


# ---- the linear-quadratic model at finite N --------------------------------------------------------------------------
#
#   F(mu) = (E_mu x - c)^2 / 2 + l2 E_mu x^2,   b(x; mu) = (E_mu x - c) + 2 l2 x
#
# A step maps the mean m of N particles and the deviations x_i - m from it to
#
#   m       <-  (1 - step_size (1 + 2 l2)) m + step_size c + s xi_mean,         Var xi_mean = 1/N
#   x_i - m <-  (1 - step_size 2 l2) (x_i - m) + s (xi_i - xi_mean)             s^2 = 2 temperature step_size
#
# so that the mean has the curvature 1 + 2 l2 and the temperature divided by N, and the N - 1 deviations have 2 l2.
# As a network: h(theta, z) = theta z with z = y/c = 1, half squared loss.

TARGET, RIDGE = 1.5, 0.4


def lq_network(n_replicas=1):
    """Independent copies, one per coordinate: sample r sees coordinate r, and a scale undoes the mean over samples."""
    scale = np.sqrt(n_replicas)
    model = mfld.TwoLayerNetwork(n_replicas, activation="identity", readout="fixed", bias=False, output_scale=scale)
    targets = np.full(n_replicas, scale * TARGET)
    return mfld.EmpiricalRisk(model, np.eye(n_replicas), targets, loss="half_squared", l2=RIDGE)


class LinearQuadratic(mfld.Objective):
    """The same, written in Python."""

    space = mfld.Space(1)
    reference = mfld.references.Gaussian(RIDGE)

    def loss(self, measure):
        return float((self.cloud(measure).particles.mean(dtype=np.float64) - TARGET) ** 2 / 2)

    def loss_gradient(self, measure, batch=None):
        x = self.cloud(measure).particles
        return np.full_like(x, x.mean(dtype=np.float64) - TARGET)

    def first_variation(self, measure):
        slope = self.loss_gradient(measure)[0, 0]
        return mfld.Potential(lambda x: np.full_like(x, slope), lambda x: slope * x[:, 0], n_coordinates=1, l2=RIDGE)


def lq_law(n, step_size, temperature):
    """Mean, variance of the mean, and variance of a deviation from it, in the long run."""
    mean_variance = euler_variance(1 + 2 * RIDGE, step_size, temperature / n)
    return TARGET / (1 + 2 * RIDGE), mean_variance, (1 - 1 / n) * euler_variance(2 * RIDGE, step_size, temperature)


@pytest.mark.parametrize("objective", [lq_network(), LinearQuadratic()], ids=["native", "python"])
def test_lq_trajectories_without_noise(objective):
    n, step_size, n_steps = 7, 0.3, 12
    start = np.random.default_rng(0).normal(size=(n, 1))
    solver = mfld.MFLD(n, step_size=step_size, temperature=0.0, dtype="float64")
    got = solver.run(objective, n_steps, particles=start).particles
    limit = TARGET / (1 + 2 * RIDGE)
    mean = limit + (1 - step_size * (1 + 2 * RIDGE)) ** n_steps * (start.mean() - limit)
    deviation = (1 - step_size * 2 * RIDGE) ** n_steps * (start - start.mean())
    assert_allclose(got, mean + deviation, rtol=1e-13, atol=1e-14)  # 12 steps of a few roundings
    assert_allclose(objective.value(start), (start.mean() - TARGET) ** 2 / 2 + RIDGE * np.mean(start**2), rtol=1e-14)


def test_lq_in_python_and_in_the_core_is_one_model():
    solver = mfld.MFLD(50, step_size=0.3, temperature=0.2, dtype="float64")
    native, python = (
        solver.run(objective, 40, seed=4, particles=np.zeros((50, 1)))
        for objective in (lq_network(), LinearQuadratic())
    )
    # The map contracts, so roundings do not pile up.
    assert_allclose(native.particles, python.particles, rtol=1e-13, atol=1e-14)
    for name in ("loss", "gradient_norm"):
        assert_allclose(native.history[name], python.history[name], rtol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 8, 33])
def test_lq_at_finite_step_and_finite_number_of_particles(n):
    step_size, temperature = 0.4, 0.3
    n_replicas, n_snapshots, gap = 256, 120 if n <= 8 else 40, 20
    # Between snapshots the slowest mode is damped by (1 - 0.32)^20 = 4e-4: they are as good as independent.
    solver = mfld.MFLD(n, step_size=step_size, temperature=temperature, dtype="float32")
    risk = lq_network(n_replicas)
    state = solver.init(risk, seed=3, particles=np.full((n, n_replicas), TARGET / (1 + 2 * RIDGE)))
    means, variances, squares = [], [], []
    for _ in range(n_snapshots):
        state, _ = solver.advance(risk, state, gap)
        x = state.particles.astype(np.float64)
        means.append(x.mean(axis=0))
        variances.append(x.var(axis=0))  # divided by n: its expectation is that of a squared deviation
        squares.append((x**2).mean(axis=0))
    means, variances, squares = (np.concatenate(values) for values in (means, variances, squares))
    count = means.size
    mean, mean_variance, deviation = lq_law(n, step_size, temperature)
    assert_mean(means.mean(), mean, np.sqrt(mean_variance / count))
    error = np.sqrt(2 / count)
    assert_mean(np.mean((means - mean) ** 2), mean_variance, mean_variance * error)
    if n == 1:
        assert not variances.any()
        return
    # n - 1 independent modes a replica
    assert_mean(variances.mean(), deviation, deviation * error / np.sqrt(n - 1))
    # E x^2, thus E F: neither the O(1/N) part nor the O(step) part may be missing.
    expected, spread = mean**2 + mean_variance + deviation, squares.std() / np.sqrt(count)
    assert_mean(squares.mean(), expected, spread)
    many_particles = mean**2 + euler_variance(2 * RIDGE, step_size, temperature)
    small_steps = mean**2 + temperature / n / (1 + 2 * RIDGE) + (1 - 1 / n) * temperature / (2 * RIDGE)
    assert abs(expected - small_steps) > 10 * spread
    if n <= 8:  # the effect of 33 particles is not much larger than the error
        assert abs(expected - many_particles) > 10 * spread


# ---- a potential with two wells --------------------------------------------------------------------------------------


class DoubleWell:
    """V(x) = (x^2 - 1)^2 / 4 + x / 10, not symmetric, so that the wells are not filled evenly."""

    temperature = 0.25

    def __init__(self, n_points=801, width=3.5):
        self.grid = np.linspace(-width, width, n_points)
        self.objective = mfld.Potential(self.slope, self.value, n_coordinates=1)

    @staticmethod
    def value(x):
        return np.sum((x**2 - 1) ** 2 / 4 + x / 10, axis=-1)

    @staticmethod
    def slope(x):
        return x * (x * x - 1) + x.dtype.type(0.1)

    def normalised(self, density):
        return density / density.sum()

    def gibbs(self):
        return self.normalised(np.exp(-self.value(self.grid[:, np.newaxis]) / self.temperature))

    def law_after(self, n_steps, step_size, start):
        """Of the Euler chain from one point, by its transition kernel on a grid.

        Sums of smooth densities that vanish at the ends converge faster than any power of the grid's step.
        """
        spread = np.sqrt(2 * self.temperature * step_size)
        assert spread > 5 * np.diff(self.grid[:2])[0]

        def one_step(x):
            return self.normalised(stats.norm.pdf(self.grid, x - step_size * (x * (x * x - 1) + 0.1), spread))

        kernel = np.stack([one_step(x) for x in self.grid])
        return one_step(start) @ np.linalg.matrix_power(kernel, n_steps - 1)

    def expectation(self, density, function):
        mean = density @ function(self.grid)
        return mean, np.sqrt(density @ (function(self.grid) - mean) ** 2)


MOMENTS = [lambda x: x, lambda x: x**2, lambda x: x**4, np.cos]


def run_double_well(well, n_steps, step_size, n=100_000):
    solver = mfld.MFLD(n, step_size=step_size, temperature=well.temperature)
    return (
        solver.run(well.objective, n_steps, seed=5, particles=np.full((n, 1), 0.5)).particles[:, 0].astype(np.float64)
    )


@pytest.mark.parametrize("n_steps", [2, 10, 300])
def test_double_well_has_the_law_of_the_euler_chain(n_steps):
    well, step_size = DoubleWell(), 0.2
    law = well.law_after(n_steps, step_size, start=0.5)
    x = run_double_well(well, n_steps, step_size)
    n = len(x)
    for function in MOMENTS:
        mean, spread = well.expectation(law, function)
        assert_mean(function(x).mean(), mean, spread / np.sqrt(n))
    # Distribution functions, between points of the grid: sums up to there are integrals. Kolmogorov's 5 sigma.
    step = np.diff(well.grid[:2])[0]
    empirical = np.searchsorted(np.sort(x), well.grid + step / 2) / n
    assert np.abs(empirical - np.cumsum(law)).max() < stats.kstwobign.isf(5.7e-7) / np.sqrt(n)
    if n_steps == 300:  # the bias of this step is plain: with the Gibbs law the test would fail
        limit, spread = well.expectation(well.gibbs(), MOMENTS[1])
        assert abs(well.expectation(law, MOMENTS[1])[0] - limit) > 10 * spread / np.sqrt(n)


def test_double_well_with_small_steps_has_the_gibbs_law():
    well, step_size, n_steps = DoubleWell(), 0.025, 1200
    x = run_double_well(well, n_steps, step_size, n=25_000)
    law = well.law_after(n_steps, step_size, start=0.5)
    for function in MOMENTS:
        (mean, spread), (biased, _) = (well.expectation(density, function) for density in (well.gibbs(), law))
        # What is left of bias and start, by the exact chain; it is smaller than the statistical error is large.
        assert abs(biased - mean) < 0.01 * (1 + abs(mean))
        assert_mean(function(x).mean() - (biased - mean), mean, spread / np.sqrt(len(x)))


# ---- identities that hold at any step size, for any objective --------------------------------------------------------


@pytest.mark.parametrize("gradient", [mfld.FullBatch(), mfld.Minibatch(5)], ids=repr)
@pytest.mark.parametrize(("loss", "step_size"), [("squared", 0.2), ("logistic", 0.3)])
def test_stein_identity_of_interacting_particles(gradient, loss, step_size):
    """E theta.b = p temperature in continuous time; of the scheme, E[theta.b - step_size |b|^2 / 2] = p temperature.

    In the long run E|theta|^2 stands still. A step changes |theta|^2 by

        -2 step_size (theta.b - step_size |b|^2 / 2) + 2 s xi.(theta - step_size b) + s^2 |xi|^2

    so an average over K steps is off by noise of a known size and by the change of |theta|^2 over 2 step_size K.
    """
    rng = np.random.default_rng(8)
    n, n_steps, temperature = 40, 3000, 0.02
    inputs = rng.normal(size=(20, 2))
    model = mfld.TwoLayerNetwork(2, activation="tanh", output_scale=2.0)
    risk = mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0] * inputs[:, 1]), loss=loss, l2=0.5)
    solver = mfld.MFLD(n, step_size=step_size, temperature=temperature, gradient=gradient, dtype="float64")
    state, _ = solver.advance(risk, solver.init(risk, seed=9), 500)
    s = np.sqrt(2 * temperature * step_size)
    change = -np.mean(np.sum(state.particles**2, axis=1))
    stein, plain, kinetic, mean_gradient, variance = [], [], [], [], []
    first = state.particles
    for _ in range(n_steps):
        rows = None
        if isinstance(gradient, mfld.Minibatch):
            rows = noise.minibatch(state.seed, state.step, 20, gradient.batch_size)
        b = risk.gradient(state.particles, rows)
        plain.append(np.mean(np.sum(state.particles * b, axis=1)))
        kinetic.append(step_size / 2 * np.mean(np.sum(b**2, axis=1)))
        stein.append(plain[-1] - kinetic[-1])
        mean_gradient.append(b.mean(axis=0))
        # of the noise of this step, over particles and in units of 2 step_size; |xi|^2 has the variance 2p
        moved = np.mean(np.sum((state.particles - step_size * b) ** 2, axis=1))
        variance.append((s**2 * moved / step_size**2 + temperature**2 * 2 * model.n_moving) / n)
        state, _ = solver.advance(risk, state)
    change += np.mean(np.sum(state.particles**2, axis=1))
    expected, error = model.n_moving * temperature, np.sqrt(np.mean(variance) / n_steps)
    assert_mean(np.mean(stein), expected - change / (2 * step_size * n_steps), error)
    assert np.mean(kinetic) > 10 * error  # so the identity without its bias would be noticed
    # Likewise E b = 0: the mean of b is the change of the mean particle, up to noise s / step_size a step.
    drift = (first - state.particles).mean(axis=0) / (step_size * n_steps)
    assert_mean(np.mean(mean_gradient, axis=0), drift, s / step_size / np.sqrt(n * n_steps))


@pytest.mark.parametrize(
    "dynamics",
    [
        mfld.Overdamped(),
        pytest.param(mfld.dynamics.General(np.eye(16)), marks=pytest.mark.slow),
        mfld.dynamics.Irreversible(np.zeros((16, 16))),
    ],
    ids=["overdamped", "general", "irreversible"],
)
def test_a_small_ridge_is_in_force_whoever_makes_the_step(dynamics):
    """Against the same run without it: the noise of both is the same, and what is left is rounding and the ridge."""
    n, step_size, l2, n_steps = 3000, 1e-3, 1e-5, 3000
    settings = {"step_size": step_size, "temperature": 1e-6, "dynamics": dynamics}
    ends = [
        mfld.MFLD(n, **settings)
        .run(mfld.Potential(lambda x: 0 * x, n_coordinates=16, l2=ridge), n_steps, particles=np.full((n, 16), 1.7))
        .particles.astype(float)
        for ridge in (l2, 0.0)
    ]
    pull = (ends[1] - ends[0]).mean()
    rounding = 2 * 2.0**-23 / np.sqrt(12) * np.sqrt(n_steps / ends[0].size)
    assert_mean(pull, 1.7 * -np.expm1(-2 * l2 * step_size * n_steps), rounding)
    assert pull > 20 * rounding
