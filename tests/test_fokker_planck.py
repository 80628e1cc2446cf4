"""The Fokker-Planck equation on a grid, against closed forms, dense eigenproblems, and particles."""

import copy
import math
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import eigh

import mfld
from mfld import FokkerPlanck, diagnostics, fokker_planck, noise, plots

OU = mfld.potentials.Gaussian([0.0])
WELL = mfld.potentials.DoubleWell()


def narrow(x):
    return np.exp(-2 * (x[:, 0] - 1) ** 2)  # N(1, 1/4)


def moments(evolution, record=-1):
    cloud = evolution.cloud(record)
    x = cloud.particles[:, 0]
    mean = cloud.mean(x)
    return mean, cloud.mean((x - mean) ** 2)


# ---- one potential ---------------------------------------------------------------------------------------------------


def test_order_two_in_space():
    # Implicit Euler in time alone has moments in closed form: test functions 1, x, x^2 span an invariant space of L.
    h, steps = 0.01, 100
    mean, square = 1.0, 1.25
    for _ in range(steps):
        mean, square = mean / (1 + h), (square + 2 * h) / (1 + 2 * h)
    errors = []
    for n in (50, 100, 200, 400):
        got = moments(FokkerPlanck(OU, 1.0, n, [(-9, 9)]).run(narrow, steps, h))
        errors.append(np.abs(np.array(got) - [mean, square - mean**2]))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert_allclose(orders, 2, atol=0.05)
    assert np.max(errors[-1]) < 5e-4


def test_ornstein_uhlenbeck_in_closed_form():
    a, temperature, time = 2.0, 0.5, 0.4
    potential = mfld.potentials.Gaussian([0.5], [[1 / a]])
    grid = FokkerPlanck(potential, temperature, 800, [(-5, 5)])
    x = grid.axes[0]

    def law(t):
        mean = 0.5 + 0.5 * math.exp(-a * t)
        variance = temperature / a + (0.25 - temperature / a) * math.exp(-2 * a * t)
        return mean, variance

    coarse, fine = (grid.run(narrow, n, time / n).density[-1] for n in (400, 800))
    mean, variance = law(time)
    exact = np.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    assert np.abs(2 * fine - coarse - exact).max() < 1e-4  # extrapolated to no time step; dx^2 = 1.6e-4
    first = np.abs(coarse - exact).max() / np.abs(fine - exact).max()
    assert 1.8 < first < 2.2  # order 1 in time


def test_functionals_of_gaussians_in_closed_form():
    grid = FokkerPlanck(OU, 1.0, 2000, [(-9, 9)])
    history = {name: values[0] for name, values in grid.run(narrow, 1, 1e-3).history.items()}
    variance, mean = 0.25, 1.0
    kl = (variance + mean**2 - 1 - math.log(variance)) / 2
    assert_allclose(history["entropy"], -(1 + math.log(2 * math.pi * variance)) / 2, atol=1e-6)
    assert_allclose(history["energy"], (variance + mean**2) / 2, atol=1e-4)
    assert_allclose(history["kl"], kl, atol=1e-4)
    assert_allclose(history["fisher"], mean**2 + variance * (1 / variance - 1) ** 2, rtol=1e-3)
    assert_allclose(history["free_energy"], history["energy"] + history["entropy"], rtol=1e-14)


@pytest.mark.parametrize("time_step", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize(
    ("objective", "limits", "n_cells"),
    [
        (WELL, [(-2.5, 2.5)], 200),
        (mfld.potentials.DoubleWell(2, tilt=0.3), [(-2, 2), (-2.5, 2)], [30, 40]),
        (
            mfld.Potential(
                lambda x: -2 * np.pi * np.sin(2 * np.pi * x),
                lambda x: np.cos(2 * np.pi * x).sum(axis=1),
                space=mfld.Space(domain=[mfld.Torus(1), mfld.Box([0.0], [1.0])]),
            ),
            None,
            24,
        ),
    ],
    ids=["well", "plane", "torus and box"],
)
def test_mass_positivity_and_entropy_at_every_step_size(objective, limits, n_cells, time_step):
    temperature = 0.2
    grid = FokkerPlanck(objective, temperature, n_cells, limits)
    rough = np.zeros(grid.n_cells)
    rough.ravel()[[3, -2]] = 1, 2
    evolution = grid.run(rough, 40, time_step, record_every=1)
    history, masses = evolution.history, evolution.density * grid.cell
    assert np.abs(history["mass"] - 1).max() < 1e-12
    assert masses.min() >= 0
    assert (masses[-1] > 0).all()
    assert np.diff(history["free_energy"]).max() <= 1e-13
    assert np.diff(history["kl"]).max() <= 1e-13
    # The identity of implicit Euler, step by step: what KL loses is dissipated, or is the distance of the step.
    before, after = masses[5:-1].reshape(35, -1), masses[6:].reshape(35, -1)
    step = np.sum(before * np.log(before / after), axis=1)
    lost = history["kl"][5:-1] - history["kl"][6:]
    assert_allclose(lost, time_step * temperature * history["fisher"][6:] + step, atol=1e-11)
    gibbs = grid.gibbs()
    assert_allclose(grid.run(gibbs, 5, time_step).density[-1], gibbs, rtol=1e-10, atol=1e-12)


def test_de_bruijn():
    # dKL/dt = -T I: the difference quotient of one implicit step has the error O(h), which two steps remove.
    temperature = 0.3
    grid = FokkerPlanck(WELL, temperature, 300, [(-2.5, 2.5)])
    start = grid.run(lambda x: np.exp(-10 * (x[:, 0] - 0.8) ** 2), 50, 0.01).density[-1]

    def rate(h):
        kl = grid.run(start, 1, h, record_every=1).history["kl"]
        return (kl[1] - kl[0]) / h

    fisher = grid.run(start, 1, 1e-3).history["fisher"][0]
    h = 2e-4
    extrapolated = (rate(h) - 6 * rate(h / 2) + 8 * rate(h / 4)) / 3  # order 3
    errors = [abs(rate(k) + temperature * fisher) for k in (h, h / 2)]
    assert 1.9 < errors[0] / errors[1] < 2.1
    assert temperature * fisher > 0.01
    assert abs(extrapolated + temperature * fisher) < 1e-6


def test_diffusion_on_a_circle_mode_by_mode():
    # cos(2 pi x) is an eigenvector of the discrete Laplacian: the solution is known to all digits.
    free = mfld.Potential(lambda x: 0 * x, lambda x: 0 * x[:, 0], space=mfld.Space(domain=[mfld.Torus(1)]))
    n, h, temperature = 65, 0.01, 0.3
    grid = FokkerPlanck(free, temperature, n)
    got = grid.run(lambda x: 1 + 0.5 * np.cos(2 * np.pi * x[:, 0]), 20, h).density[-1]
    rate = temperature * (2 - 2 * math.cos(2 * math.pi / n)) * n**2
    assert_allclose(got, 1 + 0.5 * np.cos(2 * np.pi * grid.axes[0]) / (1 + h * rate) ** 20, rtol=1e-12)
    assert_allclose(grid.spectral_gap(), rate, rtol=1e-9)


# ---- spectral gap ----------------------------------------------------------------------------------------------------


def by_finite_elements(potential, temperature, low, high, n):
    """Gap from linear elements and a dense generalised eigenproblem: integral T u' v' pi = gap * integral u v pi."""
    nodes = np.linspace(low, high, n + 1)
    width = nodes[1] - nodes[0]
    quadrature, weights = np.polynomial.legendre.leggauss(3)
    stiffness, mass = np.zeros((n + 1, n + 1)), np.zeros((n + 1, n + 1))
    for t, weight in zip((quadrature + 1) / 2, weights / 2 * width, strict=True):
        x = nodes[:-1] + t * width
        pi = weight * np.exp(-potential(x[:, np.newaxis]) / temperature)
        for i, (value_i, slope_i) in enumerate([(1 - t, -1 / width), (t, 1 / width)]):
            for j, (value_j, slope_j) in enumerate([(1 - t, -1 / width), (t, 1 / width)]):
                where = np.arange(n) + i, np.arange(n) + j
                np.add.at(stiffness, where, temperature * slope_i * slope_j * pi)
                np.add.at(mass, where, value_i * value_j * pi)
    return eigh(stiffness, mass, eigvals_only=True, subset_by_index=[1, 1]).item()


@pytest.mark.parametrize("temperature", [0.15, 0.3, 1.0])
def test_gap_of_a_double_well_against_a_dense_eigenproblem(temperature):
    potential = mfld.potentials.DoubleWell(tilt=0.1)
    coarse, fine = (by_finite_elements(potential, temperature, -2.3, 2.3, n) for n in (200, 400))
    reference = (4 * fine - coarse) / 3
    errors = [
        FokkerPlanck(potential, temperature, n, [(-2.3, 2.3)]).spectral_gap() / reference - 1 for n in (100, 200, 400)
    ]
    assert abs(errors[-1]) < 1e-3
    assert 3.3 < errors[0] / errors[1] < 4.7  # order 2


def test_gap_of_a_product_is_the_smaller_one():
    narrow, wide = 4.0, 1.5
    both = FokkerPlanck(mfld.potentials.Gaussian([0, 0], np.diag([1 / narrow, 1 / wide])), 1.0, 80, [(-4, 4), (-6, 6)])
    assert_allclose(both.spectral_gap(), wide, rtol=0.01)


# ---- objectives ------------------------------------------------------------------------------------------------------


class TargetMean(mfld.Objective):
    """F(mu) = pull (E x - c)^2 / 2 + l2 E x^2: mean and variance obey linear equations."""

    space = mfld.Space(1)
    reference = mfld.references.Gaussian(0.4)
    target = 1.5

    def __init__(self, pull=1.0):
        self.pull = pull

    def residual(self, measure):
        cloud = self.cloud(measure)
        return cloud.mean(cloud.particles[:, 0]) - self.target

    def loss(self, measure):
        return self.pull * self.residual(measure) ** 2 / 2

    def loss_gradient(self, measure, batch=None):
        return np.full(self.cloud(measure).particles.shape, self.pull * self.residual(measure))

    def first_variation(self, measure, batch=None):
        slope = self.pull * self.residual(measure)
        return mfld.Potential(lambda x: slope + 0 * x, lambda x: slope * x[:, 0], n_coordinates=1, l2=self.l2)


def test_a_mean_field_gaussian_in_closed_form():
    temperature, time = 0.5, 1.0
    grid = FokkerPlanck(TargetMean(), temperature, 600, [(-6, 6)])
    coarse, fine = (np.array(moments(grid.run(narrow, n, time / n))) for n in (100, 200))
    decay = 1 + 0.8
    rest = 1.5 / decay
    variance = temperature / 0.8
    exact = [rest + (1 - rest) * math.exp(-decay * time), variance + (0.25 - variance) * math.exp(-1.6 * time)]
    assert_allclose(2 * fine - coarse, exact, atol=1e-4)


def risk_of_one_weight(l2=0.02):
    inputs = np.linspace(-2, 2, 25)[:, np.newaxis]
    model = mfld.TwoLayerNetwork(1, readout="fixed", bias=False)
    return mfld.EmpiricalRisk(model, inputs, np.tanh(2 * inputs[:, 0]) * 0.6, loss="half_squared", l2=l2)


@pytest.mark.parametrize("time_step", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("objective", [risk_of_one_weight(), TargetMean(pull=30.0)], ids=["network", "stiff"])
def test_free_energy_never_rises(objective, time_step):
    # An explicit first variation of the stiff one would be unstable from a step of about 0.06 on.
    temperature = 0.05
    grid = FokkerPlanck(objective, temperature, 200, [(-6, 6)])
    evolution = grid.run(lambda x: np.exp(-((x[:, 0] + 2) ** 2)), 30, time_step, record_every=1)
    history, masses = evolution.history, evolution.density * grid.cell
    lost = -np.diff(history["free_energy"])
    step = np.sum(masses[:-1] * np.log(masses[:-1] / masses[1:]), axis=1)
    assert lost.min() > -1e-14
    # F is convex, and its first variation is that of the end of the step: at least this is lost.
    assert (lost >= temperature**2 * time_step * history["fisher"][1:] + temperature * step - 1e-12).all()
    assert np.abs(history["mass"] - 1).max() < 1e-12


def particles_against_density(n_particles, step_size):
    risk, temperature, time = risk_of_one_weight(), 0.05, 5.0
    grid = FokkerPlanck(risk, temperature, 500, [(-6, 6)])
    evolution = grid.run(lambda x: np.exp(-((x[:, 0] + 1) ** 2) / 2), 250, time / 250)
    start = noise.normals(3, 0, n_particles, 1, dtype="float64", stream="data") - 1
    solver = mfld.MFLD(n_particles, step_size=step_size, temperature=temperature, dtype="float64")
    result = solver.run(risk, round(time / step_size), particles=start)
    cloud = evolution.cloud()
    moved = diagnostics.wasserstein(evolution.cloud(0), cloud, order=1)
    distance = diagnostics.wasserstein(result.measure, cloud, order=1)
    inputs = np.linspace(-2, 2, 9)[:, np.newaxis]
    predictions = [
        risk.model.predict(each.particles, inputs, each.weights).astype(float) for each in (result.measure, cloud)
    ]
    return distance, moved, np.abs(predictions[0] - predictions[1]).max()


def test_density_of_a_network_against_particles():
    distance, moved, difference = particles_against_density(10_000, 0.02)
    assert moved > 0.5
    assert distance < 0.03  # 1 / sqrt(N) = 0.01 and the steps
    assert difference < 0.01


@pytest.mark.slow
def test_density_of_a_network_against_many_particles():
    distance, moved, difference = particles_against_density(100_000, 0.01)
    assert moved > 0.5
    assert distance < 0.01
    assert difference < 0.004


def test_density_of_a_network_on_a_circle():
    space = [mfld.Sphere(2)]
    with pytest.raises(ValueError, match="objective must live on Euclidean space, a torus or a box"):
        FokkerPlanck(mfld.Potential(lambda x: x, lambda x: x[:, 0], space=mfld.Space(domain=space)), 1.0)
    inputs = np.linspace(-2, 2, 15)[:, np.newaxis]
    model = mfld.NeuronModel(
        lambda t, z: np.cos(z + t[:, 0]),
        lambda t, z: -np.sin(z + t[:, 0])[:, :, np.newaxis],
        n_features=1,
        space=mfld.Space(domain=[mfld.Torus(1, period=2 * np.pi)]),
    )
    uniform = mfld.references.Uniform()
    risk = mfld.EmpiricalRisk(model, inputs, np.cos(inputs[:, 0] + 1), loss="half_squared", reference=uniform)
    temperature = 0.05
    grid = FokkerPlanck(risk, temperature, 100)
    density = grid.run(np.ones(100), 100, 2.0).density[-1]
    assert_allclose(density, grid.gibbs(density), rtol=1e-5)  # the fixed point mu = p_mu
    assert_allclose(np.argmax(density), round(100 / (2 * np.pi)), atol=2)  # at the teacher's phase


# ---- use -------------------------------------------------------------------------------------------------------------


def test_histograms_and_clouds_agree():
    grid = FokkerPlanck(mfld.potentials.DoubleWell(2), 0.5, [10, 20], [(-2, 2), (-3, 3)])
    particles = grid.points[[3, 3, 77, 150]]
    heights = grid.histogram(mfld.Cloud(particles, weights=[1, 1, 1, 5])).ravel() * grid.cell
    assert_allclose(heights[[3, 77, 150]], [0.25, 0.125, 0.625])
    assert_allclose(heights.sum(), 1)
    assert grid.cloud(grid.gibbs()).particles.shape == (200, 2)
    assert grid.histogram([[9.0, 0.0]]).sum() == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: FokkerPlanck(WELL, 0.1), ValueError, "limits must be given for 1 Euclidean"),
        (lambda: FokkerPlanck(WELL, 0.1, limits=[(2, -2)]), ValueError, "limits must rise"),
        (lambda: FokkerPlanck(WELL, 0.1, 2, [(-2, 2)]), ValueError, "n_cells must be between 4"),
        (lambda: FokkerPlanck(WELL, 0.1, [9, 9], [(-2, 2)]), ValueError, "n_cells must be one number, or one for each"),
        (
            lambda: FokkerPlanck(mfld.potentials.DoubleWell(3), 0.1),
            ValueError,
            "objective must have one or two coordinates",
        ),
        (
            lambda: FokkerPlanck(WELL, 0.1, 50, [(-2, 2)]).run(np.ones(7), 1, 0.1),
            ValueError,
            r"density must have shape \(50,\)",
        ),
        (
            lambda: FokkerPlanck(TargetMean(), 0.1, 50, [(-2, 2)]).gibbs(),
            ValueError,
            "density must be given for an objective that is not linear",
        ),
    ],
)
def test_misuse_has_its_message(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_fixed_point_that_is_not_reached(monkeypatch):
    monkeypatch.setattr(fokker_planck, "_MOST_ITERATIONS", 3)
    with pytest.raises(mfld.ConvergenceError, match=r"in 3 iterations; a time_step below 0\.5 usually helps"):
        FokkerPlanck(risk_of_one_weight(), 0.05, 50, [(-4, 4)]).run(np.ones(50), 3, 0.5)


def test_pictures():
    grid = FokkerPlanck(WELL, 0.2, 100, [(-2, 2)])
    evolution = grid.run(np.ones(100), 10, 0.1)
    shown = {"start": evolution.density[0], "end": evolution.density[-1]}
    axes = plots.fokker_planck(grid, shown, np.linspace(-1, 1, 50)[:, np.newaxis], title="a well").axes[0]
    assert [line.get_label() for line in axes.lines] == ["start", "end"]
    heights, edges, _ = axes.patches[0].get_data()
    assert_allclose(np.sum(heights * np.diff(edges)), 1)
    plane = FokkerPlanck(mfld.potentials.DoubleWell(2), 0.2, 20, [(-2, 2)] * 2)
    assert len(plots.fokker_planck(plane, {"Gibbs": plane.gibbs()}, np.zeros((3, 2))).axes) == 2
    with pytest.raises(ValueError, match="densities must be one, got 2"):
        plots.fokker_planck(plane, {"a": plane.gibbs(), "b": plane.gibbs()})
    with pytest.raises(ValueError, match=r"densities\['a'\] must have shape \(20, 20\)"):
        plots.fokker_planck(plane, {"a": np.ones(20)})


def test_grids_and_evolutions_are_copied_and_pickled():
    grid = FokkerPlanck(mfld.potentials.Gaussian([0.0]), 1.0, 50, [(-5, 5)])
    evolution = grid.run(np.ones(50), 3, 0.1)
    for other in (copy.deepcopy(evolution), pickle.loads(pickle.dumps(evolution))):
        assert other.grid.spectral_gap() == grid.spectral_gap()
        assert_allclose(other.grid.run(np.ones(50), 3, 0.1).density, evolution.density, rtol=0)


def test_gaps_below_rounding_are_zero():
    """By Kramers' law the gap of ``(x**2 - 1)**2`` is about ``8 exp(-1 / T) / (sqrt(2) pi)``."""
    well = mfld.Potential(lambda x: 4 * x**3 - 4 * x, lambda x: (x[:, 0] ** 2 - 1) ** 2, n_coordinates=1)
    expected = 8 * math.exp(-25) / (math.sqrt(2) * math.pi)
    assert FokkerPlanck(well, 0.04, 400, [(-2, 2)]).spectral_gap() == pytest.approx(expected, rel=0.1)
    assert FokkerPlanck(well, 0.02, 400, [(-2, 2)]).spectral_gap() == 0
    with pytest.raises(ValueError, match="limits must leave cells of some size"):
        FokkerPlanck(well, 0.02, 400, [(1e-300, 2e-300)])
