"""Theory against closed forms, quadrature and dense eigenproblems."""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg

import mfld
from mfld import theory
from mfld.theory import gamma, lsi

# ---- log-Sobolev constants -------------------------------------------------------------------------------------------


def spectral_gap(energy, temperature, half_width, n_points=600):
    """Spectral gap of ``-T f'' + V' f'`` over T in L2(exp(-V / T)): linear finite elements, which bound it from above.

    A log-Sobolev constant is at most that, ``Var f <= E f'**2 / gap``.
    """
    x = np.linspace(-half_width, half_width, n_points)
    v = energy(x) / temperature
    density = np.exp(v.min() - v)
    middle = np.sqrt(density[1:] * density[:-1])
    keep = density > 1e-12
    first, last = np.flatnonzero(keep)[[0, -1]]
    x, density, middle = x[first : last + 1], density[first : last + 1], middle[first:last]
    h = x[1] - x[0]
    stiffness = np.diag(np.append(middle, 0) + np.insert(middle, 0, 0)) - np.diag(middle, 1) - np.diag(middle, -1)
    mass = np.diag(density)
    return scipy.linalg.eigh(stiffness / h**2, mass, eigvals_only=True, subset_by_index=[0, 1])[1]


def test_the_gap_of_a_gaussian_is_its_curvature():
    assert spectral_gap(lambda x: 3 * x**2 / 2, 0.5, 6.0) == pytest.approx(6.0, rel=1e-3)


def bumps(kind, size, x):
    """Perturbations with their oscillation, Lipschitz constant and lowest curvature."""
    if kind == "gaussian":  # a barrier at 0: two wells
        lowest = -size
        return size * np.exp(-(x**2) / 2), size, size * math.exp(-0.5), lowest
    if kind == "sine":
        return size * np.sin(2 * x), 2 * size, 2 * size, -4 * size
    return -size * np.sqrt(1 + x**2), math.inf, size, -size  # two wells that are far apart; unbounded, but Lipschitz


@pytest.mark.parametrize("kind", ["gaussian", "sine", "root"])
def test_constants_are_never_above_the_spectral_gap(kind):
    tried = set()
    for size, l2, temperature in itertools.product([0.05, 0.3, 1.0, 3.0], [0.05, 0.3, 1.0, 4.0], [0.1, 0.4, 1.0, 5.0]):
        _, oscillation, lipschitz, convexity = bumps(kind, size, np.zeros(1))
        found = theory.log_sobolev(
            temperature=temperature,
            l2=l2,
            lipschitz=lipschitz,
            convexity=convexity,
            oscillation=None if math.isinf(oscillation) else oscillation,
        )
        width = 3 * math.sqrt(temperature / l2) * 3 + lipschitz / l2 + 1
        gap = spectral_gap(lambda x, s=size, r=l2: r * x**2 + bumps(kind, s, x)[0], temperature, width)
        for argument in found.arguments:
            assert argument.value <= gap * 1.01 + 1e-12, (argument, gap, size, l2, temperature)
            if argument.value > gap * 1e-6:
                tried.add(argument.name)
    assert len(tried) >= 4  # none passes because it is always absurdly small


@pytest.mark.parametrize("separation", [0.5, 1.5, 3.0])
@pytest.mark.parametrize("l2", [0.1, 1.0])
def test_mixtures(separation, l2):
    """A mixture of two unit Gaussians at +-a: V'' >= 1 - a**2, and V' - x is between -a and a."""
    mixture = mfld.potentials.GaussianMixture([[-separation], [separation]], 1.0)
    gap = spectral_gap(lambda x: mixture(x[:, np.newaxis]) + l2 * x**2, 1.0, 12.0)
    found = theory.log_sobolev(temperature=1.0, l2=l2 + 0.5, lipschitz=separation, convexity=-(separation**2))
    assert found.value <= gap * 1.01
    assert found.value > 1e-6 * gap


def test_double_wells_know_their_curvature():
    well = mfld.potentials.DoubleWell(height=0.5)
    assert well.bounds().convexity == pytest.approx(
        min(np.diff(well.gradient(np.array([[-1e-5], [1e-5]])).ravel())) / 2e-5
    )
    with pytest.raises(
        ValueError, match="oscillation, lipschitz or convexity must be given, since no argument applies"
    ):
        theory.log_sobolev(well, temperature=1.0)
    assert theory.log_sobolev(well, temperature=1.0, l2=3.0).best.name == "Bakry-Emery"
    assert theory.log_sobolev(well, temperature=1.0, l2=3.0).value == pytest.approx(6 - 2)


def test_guards():
    first, second = lsi.miclo(l2=1.0, temperature=1e-3, lipschitz=0.01, n_coordinates=50)  # a bracket of -120
    assert second.value == 0
    assert "bracket is -120" in second.why_not.replace("-1.2e+02", "-120")
    assert first.value > 0
    tiny = lsi.holley_stroock(0.1, 1e-3, oscillation=10.0)
    assert tiny.value == 0  # below all floats,
    assert lsi.in_powers(tiny.log_value) == "1e-4341"  # but not as a logarithm
    assert lsi.holley_stroock(0.0, 1.0, 1.0).why_not == "there is no ridge"
    weaker = lsi.holley_stroock(0.1, 0.5, 2.0, weaker=True)
    assert weaker.value < lsi.holley_stroock(0.1, 0.5, 2.0).value
    assert weaker.value == pytest.approx(0.2 * math.exp(-8))
    assert lsi.sphere(5).value == pytest.approx(4)
    assert lsi.sphere(5, 0.5, convexity=-1.0).value == pytest.approx(1)
    assert lsi.sphere(3, 0.5, convexity=-1.0).why_not is not None
    assert "order of magnitude" in lsi.weak_morse(0.1, 0.5).needs
    circle = mfld.Space(domain=[mfld.Sphere(2)])
    with pytest.raises(ValueError, match="objective must be on Euclidean space"):
        theory.log_sobolev(mfld.Potential(abs, space=circle), 1.0)


# ---- what objectives know --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
@pytest.mark.parametrize(
    ("loss", "readout"),
    [
        *itertools.product(["logistic", "squared", "huber"], ["bounded", "parity", "signs", "fixed", "linear"]),
        *itertools.product(["cross_entropy"], ["bounded", "signs", "linear"]),
    ],
)
def test_bounds_hold_at_random_measures(activation, readout, loss, rng):
    n_outputs = 3 if loss == "cross_entropy" else 1
    inputs = rng.normal(size=(7, 2))
    targets = {"logistic": np.sign, "cross_entropy": lambda y: (np.abs(y) * 2).astype(int) % 3}.get(loss, abs)(
        inputs[:, 0]
    )
    model = mfld.TwoLayerNetwork(2, n_outputs, activation, readout, output_scale=1.5, readout_bound=2.0)
    risk = mfld.EmpiricalRisk(model, inputs, targets, loss=loss, sample_weight=rng.uniform(0.5, 1, 7))
    bounds = risk.bounds()
    largest, steepest, spread = 0.0, 0.0, 0.0
    for scale in (0.3, 3.0, 30.0):
        cloud = model.initial_particles(5, 1, "float64") * scale
        points = model.initial_particles(200, 2, "float64") * scale
        if readout == "signs":
            cloud[:, model.slices["readout"]] = points[:, model.slices["readout"]] = 1.0
        potential = risk.first_variation(cloud)
        largest = max(largest, np.ptp(potential(points)))
        steepest = max(steepest, np.linalg.norm(potential.gradient(points), axis=1).max())
        spread = max(
            spread,
            len(cloud) * (np.mean([risk.loss(cloud[rng.integers(0, 5, 5)]) for _ in range(200)]) - risk.loss(cloud)),
        )
    assert largest <= bounds.oscillation
    assert steepest <= bounds.lipschitz * (1 + 1e-12)
    assert spread <= bounds.fluctuation
    if activation == "tanh" and readout == "bounded" and loss == "logistic":
        assert largest > bounds.oscillation / 10  # it is no empty bound
        assert steepest > bounds.lipschitz / 10


def test_losses_of_the_user_are_not_bounded_unless_convex():
    def cubic(u, y):
        return np.abs(u - y) ** 3, 3 * np.abs(u - y) * (u - y)

    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(1, readout="bounded"), [[0.0]], [1.0], loss=cubic)
    assert risk.bounds().oscillation == math.inf


# ---- curves and plans ------------------------------------------------------------------------------------------------


def test_continuous_curve_against_a_gaussian():
    """The Ornstein-Uhlenbeck process from N(m, T / a): the excess is a m**2 exp(-2 a t) / 2, and alpha = a / T."""
    a, t, m = 2.0, 0.5, 3.0
    bound = theory.continuous(a * m**2 / 2, a / t, t)
    times = np.linspace(0, 2, 9)
    np.testing.assert_allclose(bound(times), a * m**2 / 2 * np.exp(-2 * a * times))  # it is sharp


@pytest.mark.parametrize("estimator", ["full", "minibatch", "svrg"])
def test_discrete_curves_fall_with_what_they_should(estimator):
    def bound(**changed):
        right = {"step_size": 0.01, "n_particles": 100, "batch_size": 8}
        return theory.discrete(
            1.0, 0.5, 0.1, estimator=estimator, n_samples=100, refresh_every=16, **{**right, **changed}
        )

    assert bound(step_size=0.001).limit < bound().limit
    assert bound(n_particles=1000).limit < bound().limit
    assert bound(n_particles=1000, fluctuation=0.5).floor["particles"] == 0.5 / 1000
    assert bound().rate == pytest.approx(0.5 * 0.1 * 0.01)
    if estimator != "full":
        assert bound(batch_size=100).floor["batch"] == 0.0
        assert bound(batch_size=50).limit < bound().limit
        assert bound().floor["batch"] > 0
        assert "batch" in bound().guesses
    steps = math.exp(bound().log_steps(bound().limit + 0.1))
    assert bound(step_size=0.01)(steps) == pytest.approx(bound().limit + 0.1)
    assert bound().log_steps(bound().limit) == math.inf


def excess_of_gaussian(mean, variance, a, temperature):
    """``T KL(N(mean, variance) | N(0, T / a))`` per coordinate."""
    s = temperature / a
    return temperature * (variance / s + mean**2 / s - 1 - np.log(variance / s)) / 2


@pytest.mark.parametrize(("a", "temperature", "accuracy"), [(1.0, 1.0, 0.1), (3.0, 0.2, 0.02), (0.5, 2.0, 0.3)])
def test_a_plan_for_a_quadratic_potential_reaches_its_accuracy(a, temperature, accuracy):
    """Law of the Euler scheme in closed form, at the step size and the number of steps that were planned."""
    well = mfld.potentials.Gaussian([0.0], [[1 / a]])
    mean, variance = 4.0, 1.0
    gap = excess_of_gaussian(mean, variance, a, temperature)
    found = theory.plan(well, accuracy, temperature, initial_gap=gap)
    h, k = found.step_size, found.n_steps
    assert found.guesses == ()
    decay = (1 - a * h) ** (2 * k)
    limit = 2 * temperature * h / (1 - (1 - a * h) ** 2)
    reached = excess_of_gaussian(mean * (1 - a * h) ** k, decay * variance + (1 - decay) * limit, a, temperature)
    assert 0 < reached <= accuracy
    assert found.bound(k) <= accuracy * (1 + 1e-9)
    assert found.n_particles == 1
    assert "limited by step" in str(found)


def lq_excess(mean, variance, c, l2, temperature):
    """``L(mu) - L*`` of ``(E theta - c)**2 / 2 + l2 E theta**2`` at a Gaussian, in closed form."""

    def value(m, v):
        return (m - c) ** 2 / 2 + l2 * (m**2 + v) - temperature * np.log(2 * np.pi * np.e * v) / 2

    return value(mean, variance) - value(c / (1 + 2 * l2), temperature / (2 * l2))


class LQ(mfld.Objective):
    space = mfld.Space(1)

    def __init__(self, c=1.5, l2=0.4):
        self.c, self.reference = c, mfld.references.Gaussian(l2)

    def slope(self, measure):
        cloud = self.cloud(measure)
        return cloud.mean(cloud.particles[:, 0]) - self.c

    def loss(self, measure):
        return self.slope(measure) ** 2 / 2

    def loss_gradient(self, measure, batch=None):
        return np.full_like(self.cloud(measure).particles, self.slope(measure))

    def first_variation(self, measure, batch=None):
        slope = self.slope(measure)
        return mfld.Potential(lambda x: np.full_like(x, slope), lambda x: slope * x[:, 0], n_coordinates=1, l2=self.l2)


def test_a_plan_for_the_linear_quadratic_model_reaches_its_accuracy():
    """At the planned step size, particles and steps: the exact law of N interacting Euler chains from N(4, 1)."""
    objective, temperature, accuracy = LQ(), 0.6, 0.05
    gap = lq_excess(4.0, 1.0, objective.c, objective.l2, temperature)
    found = theory.plan(
        objective, accuracy, temperature, initial_gap=gap, convexity=0.0, smoothness=1.0, fluctuation=temperature / 2
    )
    h, n, k = found.step_size, found.n_particles, found.n_steps
    slow, fast = 1 - 2 * objective.l2 * h, 1 - (1 + 2 * objective.l2) * h
    mean, of_mean, within = 4.0, 1 / n, 1.0
    for _ in range(min(k, 20_000)):
        mean = fast * mean + objective.c * h
        of_mean = fast**2 * of_mean + 2 * temperature * h / n
        within = slow**2 * within + 2 * temperature * h
    # (1/N) of the N-particle objective: entropy of the joint Gaussian, and E F(mu_X).
    entropy = -(np.log(2 * np.pi * np.e * of_mean * n) + (n - 1) * np.log(2 * np.pi * np.e * within)) / (2 * n)
    risk = ((mean - objective.c) ** 2 + of_mean) / 2
    ridge = objective.l2 * (mean**2 + of_mean + (1 - 1 / n) * within)
    best = -lq_excess(0.0, 1.0, objective.c, objective.l2, temperature) + (
        objective.c**2 / 2 + objective.l2 - temperature * np.log(2 * np.pi * np.e) / 2
    )
    reached = risk + ridge + temperature * entropy - best
    assert 0 < reached <= accuracy
    assert found.guesses == ("step",)


def small_risk(l2=0.1, n=12):
    inputs = np.linspace(-2, 2, n)[:, np.newaxis]
    model = mfld.TwoLayerNetwork(1, readout="fixed", bias=False)
    return mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=l2)


def test_a_plan_for_a_small_network_reaches_its_accuracy():
    """One weight a neuron: the optimum by iterating the Gibbs equation on a grid, and a run at the planned numbers."""
    risk, temperature, accuracy = small_risk(l2=0.4), 2.0, 0.05
    found = theory.plan(risk, accuracy, temperature, smoothness=1.0)
    assert found.n_steps < 30_000
    x = np.linspace(-25, 25, 4001)[:, np.newaxis]
    neurons = risk.model.neurons(x, risk.inputs)
    density = np.exp(-risk.l2 * x[:, 0] ** 2 / temperature)
    for _ in range(200):
        density /= density.sum()
        potential = risk.linearised(risk.loss_function.derivative(neurons @ density, risk.targets[:, 0])[:, np.newaxis])
        gibbs = np.exp(-potential(x) / temperature)
        density = 0.5 * density + 0.5 * gibbs / gibbs.sum()
    mean_loss = risk.loss_function.value(neurons @ density, risk.targets[:, 0]).mean()
    optimal = mean_loss + risk.l2 * density @ x[:, 0] ** 2
    solver = mfld.MFLD(found.n_particles, step_size=found.step_size, temperature=temperature, n_replicates=16)
    state = solver.run(risk, found.n_steps, particles=np.zeros((found.n_particles, 1))).state
    values = [risk.value(one.measure) for one in state.each()]
    # F alone, without the entropy, whose excess is at most the whole: within the accuracy and its own noise.
    assert abs(np.mean(values) - optimal) < accuracy + 4 * np.std(values) / np.sqrt(16)


def test_batches_are_planned():
    risk = small_risk(n=1000)
    svrg = theory.plan(risk, 0.05, 2.0, smoothness=1.0, estimator="svrg")
    assert (svrg.batch_size, svrg.refresh_every) == (10, 100)
    assert svrg.bound.limit <= 0.025 * (1 + 1e-3)
    minibatch = theory.plan(risk, 0.05, 2.0, smoothness=1.0, estimator="minibatch")
    assert minibatch.refresh_every is None
    assert minibatch.step_size < svrg.step_size
    assert minibatch.dominated_by == "batch"
    with pytest.raises(ValueError, match="estimator must be full for an objective without samples"):
        theory.plan(mfld.potentials.Gaussian([0.0]), 0.1, 1.0, initial_gap=1.0, estimator="svrg")
    with pytest.raises(ValueError, match="initial_gap must be given"):
        theory.plan(mfld.potentials.Gaussian([0.0]), 0.1, 1.0)
    with pytest.raises(ValueError, match=r"temperature must be another one for a plan, got 0.0001: .* is 1e"):
        theory.plan(risk, 0.05, 1e-4)


def test_an_absurd_bound_stands_beside_what_was_seen():
    risk = small_risk(l2=0.01)
    solver = mfld.MFLD(2000, step_size=0.5, temperature=0.05)
    found = theory.plan(risk, 0.05, 0.05, run=solver, most_steps=1024)
    assert found.log_steps > math.log(1e9)
    assert found.observed.by == "certificate"
    assert found.observed.steps < 1024
    assert f"a run has converged after {found.observed.steps} steps, by its certificate; the theory asks for " in str(
        found
    )


def test_observed_plateaus():
    well = mfld.potentials.Gaussian([0.0])
    slow = mfld.MFLD(500, step_size=1e-3, temperature=0.01)
    start = theory.observe(well, slow, 1e-3, most_steps=64)
    assert start.steps is None
    assert str(start) == "a run has not converged in 64 steps, by its plateau"


# ---- sandwich --------------------------------------------------------------------------------------------------------


def gaussian_cloud(mean, variance):
    nodes, weights = np.polynomial.hermite_e.hermegauss(30)
    return mfld.Cloud(mean + math.sqrt(variance) * nodes[:, np.newaxis], weights / weights.sum())


def test_the_sandwich_holds_along_a_run():
    """The law of the linear-quadratic model stays Gaussian: entropy, averages and the excess are exact."""
    objective, t = LQ(), 0.6
    best = objective.c / (1 + 2 * objective.l2)
    optimum = objective.first_variation(gaussian_cloud(best, 1.0))
    mean, variance = 4.0, 3.0
    for _ in range(12):
        found = theory.sandwich(
            objective,
            gaussian_cloud(mean, variance),
            t,
            entropy=-np.log(2 * np.pi * np.e * variance) / 2,
            optimum=optimum,
        )
        excess = lq_excess(mean, variance, objective.c, objective.l2, t)
        assert found.lower <= excess + 1e-12
        assert excess <= found.upper + 1e-12
        assert found.lower > 0.1 * excess
        assert found.upper < 10 * excess
        h = 0.2
        mean += h * (objective.c - (1 + 2 * objective.l2) * mean)
        variance = (1 - 2 * objective.l2 * h) ** 2 * variance + 2 * t * h
    assert excess < 0.05


def test_the_sandwich_of_particles_has_its_error():
    well = mfld.potentials.Gaussian([0.0])
    particles = 1 + mfld.noise.normals(0, 0, 20_000, 1, dtype="float64", stream="data")
    found = theory.sandwich(well, particles, 1.0)
    assert found.lower == found.upper
    assert abs(found.upper - 0.5) < 5 * found.error < 0.1
    assert "(+- " in str(found)


def test_the_sandwich_holds_along_the_density_of_a_network():
    """Densities of the Fokker-Planck equation of a risk in one weight: what its free energy falls to is L*."""
    risk, t = small_risk(l2=0.2), 0.4
    equation = mfld.FokkerPlanck(risk, t, 240, limits=[(-9, 9)])
    evolution = equation.run(lambda x: np.exp(-((x[:, 0] + 2) ** 2)), n_steps=150, time_step=0.1)
    optimum = risk.first_variation(evolution.cloud())
    lowest = evolution.history["free_energy"].min()
    for record in (0, len(evolution.times) // 8, len(evolution.times) // 3):
        found = theory.sandwich(
            risk, evolution.cloud(record), t, entropy=evolution.history["entropy"][record], optimum=optimum
        )
        excess = evolution.history["free_energy"][record] - lowest
        grid = 1e-3 * max(1.0, excess)  # of averages over cells
        assert found.lower - grid < excess < found.upper + grid
        assert found.lower > 0.2 * excess
    assert excess < 0.5 * (evolution.history["free_energy"][0] - lowest)


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_constants_hold_for_the_gibbs_measures_of_a_network(temperature):
    """Against the spectral gaps of the linearised equation at many measures: what a single potential cannot show."""
    inputs = np.linspace(-2, 2, 12)[:, np.newaxis]
    model = mfld.TwoLayerNetwork(1, activation="tanh", readout="fixed", bias=False)
    risk = mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=0.2)
    found = theory.log_sobolev(risk, temperature)
    equation = mfld.FokkerPlanck(risk, temperature, 300, limits=[(-12, 12)])
    for centre in (-6.0, -1.0, 0.0, 2.0, 8.0):
        gap = equation.spectral_gap(np.exp(-((equation.points[:, 0] - centre) ** 2)))
        for argument in found.arguments:
            assert argument.value <= gap / temperature * 1.01
    assert found.value > 1e-3 * gap / temperature


# ---- rates -----------------------------------------------------------------------------------------------------------


def test_rates_of_noisy_histories_are_covered():
    rng = np.random.default_rng(1)
    t = np.linspace(0, 6, 60)
    covered = 0
    for _ in range(100):
        values = (2 * np.exp(-1.3 * t) + 0.2)[:, np.newaxis] * (1 + 0.05 * rng.normal(size=(60, 12)))
        found = theory.fit_rate(t, values)
        covered += abs(found.value - 1.3) < 2.2 * found.standard_error
    assert covered >= 88


def test_powers_floors_and_averages():
    t = np.arange(1, 200)
    found = theory.fit_rate(t, 3 / t + 1e-3, kind="power")
    assert found.value == pytest.approx(1, abs=1e-6)
    assert found.floor == pytest.approx(1e-3, abs=1e-8)
    assert found.averaged == pytest.approx(1, abs=1e-4)
    exact = theory.fit_rate(t, np.exp(-0.1 * t), floor=0.0)
    assert exact.value == pytest.approx(0.1, rel=1e-6)
    assert exact.averaged == pytest.approx(0.1, rel=1e-6)
    for bad, message in (
        ({"times": t[::-1]}, "times must increase"),
        ({"times": t[:5], "values": t[:5]}, "times must have at least 8 records"),
        ({"values": -t}, "values must be positive"),
        ({"values": t[:5]}, "values must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            theory.fit_rate(**{"times": t, "values": 1 / t, **bad})


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_rates_do_not_depend_on_the_size_of_the_values(size):
    t = np.linspace(0, 5, 100)
    found = theory.fit_rate(t, size * (3 * np.exp(-2 * t) + 0.1))
    assert found.value == pytest.approx(2, rel=1e-6)
    assert found.floor == pytest.approx(0.1 * size, rel=1e-6)


def test_values_that_do_not_fall_have_no_rate():
    t = np.linspace(0, 5, 100)
    for values in (np.ones(100), np.exp(t), 2 - np.exp(-t)):
        with pytest.raises(ValueError, match="values must fall"):
            theory.fit_rate(t, values)
    with pytest.raises(ValueError, match="floor must be below the values, got 10"):
        theory.fit_rate(t, np.exp(-t), floor=10.0)
    with pytest.raises(ValueError, match="values must have at least one replicate"):
        theory.fit_rate(t, np.zeros((100, 0)))


def test_a_plan_and_its_run_are_of_one_problem():
    well = mfld.potentials.Gaussian([0.0])
    for change, message in (
        ({"temperature": 0.5}, "run must have the temperature"),
        ({"l2": 1.0}, "run must have the l2"),
    ):
        run = mfld.MFLD(**{"n_particles": 10, "step_size": 0.1, "temperature": 1.0, **change})
        with pytest.raises(ValueError, match=message):
            theory.plan(well, 0.1, 1.0, initial_gap=1.0, run=run)


def test_numbers_that_vanish_are_named():
    with pytest.raises(ValueError, match="alpha, temperature and step_size must have a product above 0"):
        theory.discrete(1.0, 1e-300, 1e-300, 1e-300)
    with pytest.raises(TypeError, match="steps must be an array of real numbers"):
        theory.continuous(1.0, 1.0, 1.0)("a")


# ---- information Gamma -----------------------------------------------------------------------------------------------

SKEW = np.array([[0, 1.5, 0], [-1.5, 0, -0.5], [0, 0.5, 0]])
CURVATURES = np.array([1.0, 3.0, 0.5])
DYNAMICS = {
    "overdamped": mfld.Overdamped(),
    "irreversible": mfld.Irreversible(SKEW),
    "underdamped": mfld.Underdamped(1.3),
    "general": mfld.General(np.diag([1.0, 0.0, 2.0]), SKEW),
}


def gaussian_flow(dynamics, temperature, mean, covariance, times):
    """Mean and covariance of the linear diffusion at times, by matrix exponentials."""
    d, q = dynamics.matrices(3)
    hessian = np.diag(CURVATURES) if len(d) == 3 else np.diag([*CURVATURES, 1, 1, 1])
    drift = (d + q) @ hessian
    equilibrium = temperature * np.linalg.inv(hessian)
    for t in times:
        flow = scipy.linalg.expm(-t * drift)
        yield flow @ mean, equilibrium + flow @ (covariance - equilibrium) @ flow.T, hessian


@pytest.mark.parametrize("name", DYNAMICS)
def test_the_fisher_information_of_gaussians_falls_as_promised(name):
    dynamics = DYNAMICS[name]
    well = mfld.potentials.Gaussian(np.zeros(3), np.diag(1 / CURVATURES))
    found = theory.contraction(dynamics, well, np.zeros((1, 3)))
    d, _ = dynamics.matrices(3)
    assert found.rate == pytest.approx(found.relaxation, rel=1e-6)  # sharp for a constant Hessian
    assert found.rate > 0.01
    times = np.linspace(0, 4, 33)
    rng = np.random.default_rng(3)
    for _ in range(6):
        mean, root = rng.normal(size=len(d)), rng.normal(size=(len(d), len(d)))
        flow = gaussian_flow(dynamics, 0.7, mean, root @ root.T + 0.1 * np.eye(len(d)), times)
        values = np.array([gamma.gaussian_fisher(m, c, h, 0.7, found.metric) for m, c, h in flow])
        assert (values[1:] <= values[:-1] * np.exp(-2 * found.rate * np.diff(times)) * (1 + 1e-9)).all()
        late = theory.fit_rate(times[16:], values[16:], floor=0.0).value
        assert late > 2 * found.rate * (1 - 1e-3)


def test_bakry_emery_is_the_lowest_curvature():
    well = mfld.potentials.DoubleWell(height=0.25)
    line = np.linspace(-2, 2, 41)[:, np.newaxis]
    found = theory.contraction(mfld.Overdamped(), well, line, metric=[[1.0]])
    np.testing.assert_allclose(found.eigenvalues, 3 * line[:, 0] ** 2 - 1, atol=1e-6)
    assert found.worst == 20
    assert "no contraction" in str(found)


def test_metrics_by_directions_and_refusals():
    well = mfld.potentials.Gaussian([0.0])
    friction = 2.5
    with pytest.raises(ValueError, match="metric must be positive definite"):
        theory.contraction(mfld.Underdamped(friction), well, [[0.0]], metric=[[0, 0], [0, friction]])
    found = theory.contraction(mfld.Underdamped(friction), well, [[0.0]], directions=[[1.0, 0.5]])
    np.testing.assert_allclose(found.metric, [[1.0, 0.5], [0.5, 0.25 + friction]])
    assert found.rate < found.relaxation
    best = theory.contraction(mfld.Underdamped(friction), well, [[0.0]])
    assert best.rate == pytest.approx((friction - math.sqrt(friction**2 - 4)) / 2, rel=1e-6)
    with pytest.raises(TypeError, match="dynamics must have matrices D and Q"):
        theory.contraction(mfld.MALA(), well, [[0.0]])
    with pytest.raises(ValueError, match="measure must be given"):
        theory.contraction(mfld.Overdamped(), LQ(), [[0.0]])
    assert theory.contraction(mfld.Overdamped(), LQ(), [[0.0]], measure=[[1.0]]).rate == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("friction", [0.8, 4.0])
def test_the_measured_decay_of_an_underdamped_oscillator(friction):
    """Particles from N(5, 1): the Fisher information falls as its closed form does, and at twice the promised rate."""
    well = mfld.potentials.Gaussian([0.0])
    dynamics = mfld.Underdamped(friction)
    promised = theory.contraction(dynamics, well, [[0.0]])
    solver = mfld.MFLD(20_000, step_size=0.05, temperature=1.0, dynamics=dynamics, n_replicates=4)
    start = 5 + solver.init(well).clouds["mu"].particles
    record = {"fisher": lambda state: theory.fisher(well, state, 1.0, promised.metric)}
    history = solver.run(well, 120, particles=start, record_every=4, record=record).history
    times = history["step"] * 0.05
    measured = theory.fit_rate(times, history["fisher"], floor=0.0)
    drift = np.array([[0, -1], [1, friction]])
    exact = [
        gamma.gaussian_fisher(flow @ [5, 0], np.eye(2), np.eye(2), 1.0, promised.metric)
        for flow in (scipy.linalg.expm(-t * drift) for t in times)
    ]
    np.testing.assert_allclose(history["fisher"].mean(axis=1), exact, rtol=0.05, atol=0.01)
    assert measured.value == pytest.approx(2 * promised.rate, rel=0.06)
