"""What diffusion models guarantee: errors against steps, scores, stops, data and dimensions; grids on mixtures."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from mfld import diffusion, noise
from mfld.diffusion import experiments, grids
from mfld.mixtures import GaussianMixture

FORWARD = diffusion.OrnsteinUhlenbeck(10.0)
LAW = GaussianMixture(None, [[-1.0], [1.0]], 0.25)
SCORE = diffusion.ExactScore(LAW, FORWARD)


def grid(n, end):
    return diffusion.times(FORWARD, n, "tangent", scale=1.1, end=end)


def error(times, *, score=SCORE, law=LAW, sampler="dpm-solver-3", n_levels=200):
    return experiments.transported_error(score, law, sampler=sampler, times=times, n_levels=n_levels)


def test_levels_are_quantiles():
    law = GaussianMixture([1, 3], [[-2.0], [1.0]], [[[0.5]], [[2.0]]])
    found = experiments.levels_of(law, 50)
    low, high = NormalDist(-2, math.sqrt(0.5)), NormalDist(1, math.sqrt(2))
    levels = [(low.cdf(x) + 3 * high.cdf(x)) / 4 for x in found]
    np.testing.assert_allclose(levels, (np.arange(50) + 0.5) / 50, atol=1e-12)


def test_exponents_and_their_errors():
    x = np.geomspace(1, 1000, 30)
    found = experiments.exponent(x, 5 * x**-0.7)
    assert found.exponent == pytest.approx(-0.7, abs=1e-9)
    assert found.standard_error < 1e-9
    rng = np.random.default_rng(0)
    slopes = [experiments.exponent(x, x**-0.7 * np.exp(0.1 * rng.normal(size=30))) for _ in range(400)]
    scores = [(slope.exponent + 0.7) / slope.standard_error for slope in slopes]  # Student's t, 28 degrees of freedom
    assert np.std(scores) == pytest.approx(math.sqrt(28 / 26), rel=5 / math.sqrt(2 * 400))


def test_error_falls_like_one_over_the_steps():
    steps = [40, 80, 160]
    found = experiments.exponent(steps, [error(grid(n, 0.0), sampler="ddim") for n in steps])
    assert found.exponent == pytest.approx(-1, abs=0.03)


def test_error_on_a_gaussian_is_the_known_factor():
    # The factor of DDIM on standard deviations is known, and the levels of a Gaussian are all stretched by it.
    law = GaussianMixture(None, [[0.0]], 9.0)
    times = diffusion.times(FORWARD, 20, "tangent", scale=3.0)
    ends = [math.sqrt(9 * math.exp(-2 * t) - math.expm1(-2 * t)) for t in (times[0], times[-1])]
    factor = math.exp(-grids.gaussian_error(FORWARD, times, 9.0)) * float(FORWARD.sigma(times[0])) / ends[0]
    size = math.sqrt(np.mean([NormalDist().inv_cdf((i + 0.5) / 200) ** 2 for i in range(200)]))
    found = error(times, score=diffusion.ExactScore(law, FORWARD), law=FORWARD.marginal(law, times[-1]), sampler="ddim")
    assert found == pytest.approx(ends[1] * (1 - factor) * size, rel=1e-6)


def test_error_is_linear_in_that_of_the_score():
    end, sizes = 0.01, [0.0025, 0.005, 0.01]

    def wrong(size):
        return diffusion.FunctionScore(
            lambda x, t: SCORE.noise(x, t) + size * float(FORWARD.alpha(t)) * np.sin(3 * x), 1, FORWARD
        )

    law = FORWARD.marginal(LAW, end)
    errors = [error(grid(150, end), score=wrong(size), law=law) for size in sizes]
    assert error(grid(150, end), law=law) < 0.03 * errors[0]  # nothing else counts
    assert experiments.exponent(sizes, errors).exponent == pytest.approx(1, abs=0.03)


def test_relative_entropy_is_at_most_that_of_the_paths():
    # Girsanov: KL of the laws <= KL of the paths = the integral of E|s - s'|**2, for dY = (Y + 2 s) dt + sqrt(2) dB.
    wrong, times = 0.05, np.linspace(3.0, 0.1, 401)
    exact = diffusion.ExactScore(GaussianMixture(None, [[0.0]], 4.0))
    moved = diffusion.FunctionScore(lambda x, t: exact.score(x, t) + wrong, 1, kind="score")
    ends = [diffusion.sample(own, 3, sampler="euler-maruyama", times=times, seed=3) for own in (exact, moved)]
    shift = (ends[1] - ends[0])[:, 0]
    assert np.ptp(shift) < 1e-9  # the score is affine: all samples move alike
    entropy = float(shift[0]) ** 2 / (2 * (4 * math.exp(-0.2) - math.expm1(-0.2)))
    assert 0.2 < entropy / (wrong**2 * (times[0] - times[-1])) < 1


def test_stopping_early_costs_its_time_on_densities_and_its_root_on_points():
    ends = [0.01, 0.005, 0.0025]
    smooth = [error(grid(60, end), n_levels=400) for end in ends]
    assert experiments.exponent(ends, smooth).exponent == pytest.approx(1, abs=0.05)
    point, law = diffusion.EmpiricalScore([[0.0]], FORWARD), GaussianMixture(None, [[0.0]], 1e-16)
    levels = np.array([NormalDist().inv_cdf((i + 0.5) / 200) for i in range(200)])
    for end in ends:
        expected = float(FORWARD.sigma(end)) * math.sqrt(np.mean(levels**2))
        assert error(grid(60, end), score=point, law=law, sampler="ddim") == pytest.approx(expected, rel=1e-6)


def test_early_stopped_flow_has_the_density_that_is_said():
    rows = noise.normals(3, 0, 12, 1, dtype="float64", stream="data")
    forward, time = diffusion.OrnsteinUhlenbeck(8.0), 0.05
    times = diffusion.times(forward, 200, "tangent", end=time)
    x = diffusion.sample(diffusion.EmpiricalScore(rows, forward), 4000, sampler="karras", times=times)
    x = np.sort(x[:, 0] / float(forward.alpha(time)))
    points = np.linspace(-6, 6, 2401)
    density = experiments.early_stopped_density(rows, points[:, np.newaxis], time, forward)
    assert np.sum(density) * 0.005 == pytest.approx(1, abs=1e-6)
    levels = np.interp(x, points, np.cumsum(density) * 0.005)
    distance = np.abs(levels - (np.arange(4000) + 0.5) / 4000).max()
    assert distance < 1.95 / math.sqrt(4000)  # Kolmogorov and Smirnov's at level 0.001


def expected_square(shape, p, n, ratio):
    """Mean integrated squared error of a Gaussian kernel estimate, by the characteristic functions of its parts."""
    w = (np.arange(400_000) + 0.5) * 1e-2
    one = np.sinc(w / np.pi) ** (1 if shape == "box" else 0) * np.sinc(w / 2 / np.pi) ** (2 if shape == "tent" else 0)
    kernel = np.exp(-((ratio * w) ** 2) / 2)

    def over_space(function):  # of a product over coordinates, by Parseval
        return (np.sum(function) * 1e-2 / np.pi) ** p

    smoothed = over_space(one**2 * kernel**2)
    bias = over_space(one**2) - 2 * over_space(one**2 * kernel) + smoothed
    return bias + (over_space(kernel**2) - smoothed) / n


@pytest.mark.parametrize(("shape", "p"), [("box", 1), ("tent", 1), ("box", 2), ("tent", 2)])
def test_errors_of_stopped_diffusions_are_those_of_their_characteristic_functions(shape, p):
    sizes = [256, 2048]
    found = experiments.stopped_errors(shape, p, sizes, n_repetitions=12, n_points=200 if p == 1 else 60)
    for n, errors in zip(sizes, found, strict=True):
        ratio = 0.5 * n ** -(1 / (2 * {"box": 0.5, "tent": 1.5}[shape] + p))
        squares = errors**2
        spread = squares.std(ddof=1) / math.sqrt(12)
        assert abs(squares.mean() - expected_square(shape, p, n, ratio)) < 5 * spread + 0.02 * squares.mean()


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "p"), [("box", 1), ("tent", 1), ("box", 2), ("tent", 2)])
def test_rates_are_minimax(shape, p):
    sizes = [2**k for k in range(8, 17 if p == 1 else 14)]
    errors = experiments.stopped_errors(shape, p, sizes, n_repetitions=16, n_points=400 if p == 1 else 80)
    found = experiments.exponent(sizes, np.sqrt(np.mean(errors**2, axis=1)))
    # At these sizes, what the exact errors give in place of the exponent in the limit.
    smoothness = {"box": 0.5, "tent": 1.5}[shape]
    ratios = [0.5 * n ** (-1 / (2 * smoothness + p)) for n in sizes]
    exact = [math.sqrt(expected_square(shape, p, n, ratio)) for n, ratio in zip(sizes, ratios, strict=True)]
    finite = experiments.exponent(sizes, exact).exponent
    assert abs(found.exponent - finite) < 4 * found.standard_error
    assert -finite == pytest.approx(experiments.rate_of(shape, p), abs=0.03)


def test_weak_errors_do_not_grow_with_the_dimension():
    dimensions = [1, 10, 100, 1000]
    found = experiments.weak_errors(LAW, dimensions, sampler="ddim", times=grid(20, 0.0), forward=FORWARD)
    np.testing.assert_allclose(found.wasserstein / found.wasserstein[0], np.sqrt(dimensions))
    assert (np.diff(found.weak) < 0).all()
    # In the limit, by the central limit theorem, the difference of two Gaussians: |e^(-v/2) - e^(-w/2)|.
    exact = experiments.levels_of(LAW, 1000)
    start = float(FORWARD.sigma(10.0)) * experiments.levels_of(GaussianMixture(None, [[0.0]], 1.0), 1000)
    ends = diffusion.sample(SCORE, 1000, sampler="ddim", times=grid(20, 0.0), start=start[:, np.newaxis])
    limit = abs(math.exp(-ends.var() / 2) - math.exp(-exact.var() / 2))
    assert found.weak[-1] == pytest.approx(limit, rel=0.01)


@pytest.mark.parametrize("d", [1, 30, 1000])
def test_weak_errors_are_those_of_samples_in_so_many_dimensions(d):
    score = diffusion.FunctionScore(lambda x, t: SCORE.noise(x.reshape(-1, 1), t).reshape(x.shape), d, FORWARD)
    n = 200_000 // d
    x = diffusion.sample(score, n, sampler="ddim", times=grid(4, 0.0))  # few steps: a large error
    values = np.cos(x.sum(axis=1) / math.sqrt(d))
    characteristic = (math.exp(-0.125 / d) * math.cos(1 / math.sqrt(d))) ** d
    expected = experiments.weak_errors(LAW, [d], sampler="ddim", times=grid(4, 0.0), forward=FORWARD).weak[0]
    spread = values.std() / math.sqrt(n)
    assert abs(values.mean() - characteristic) == pytest.approx(expected, abs=5 * spread)
    if d == 1:
        assert expected > 20 * spread  # it is seen


MIXTURES = {
    "three modes": GaussianMixture(None, [[-6.0], [0.0], [6.0]], 1.0),
    "skew": GaussianMixture([0.7, 0.3], [[-0.75], [1.75]], [[[0.5]], [[2.0]]]),
    "plane": GaussianMixture([1, 2], [[0.0, 0.0], [2.0, 1.0]], [np.diag([4.0, 1.0]), [[1.0, 0.3], [0.3, 2.0]]]),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_factors_between_grids_on_mixtures_are_those_predicted(name):
    law, n_steps = MIXTURES[name], 60
    score, forward = diffusion.ExactScore(law), diffusion.OrnsteinUhlenbeck()
    start = noise.normals(0, 0, 64, law.n_coordinates, dtype="float64", stream="init")
    second = np.einsum("k,kij->ij", law.weights, law.covariances) + np.cov(law.means.T, aweights=law.weights, ddof=0)
    scale = math.sqrt(np.trace(np.atleast_2d(second)) / law.n_coordinates)

    def ends(times, sampler):
        return diffusion.sample(score, 64, sampler=sampler, times=times, start=start)

    fine = diffusion.times(forward, 80, "tangent", scale=scale)
    exact = ends(diffusion.times(forward, 300, "tangent"), "dpm-solver-3")
    shifts = grids.measured_shifts(score, fine, diffusion.DDIM(), 64, start=start)
    every = {each: diffusion.times(forward, n_steps, each, scale=scale) for each in grids.NAMES}
    if name == "plane":
        every["best"] = grids.optimised(lambda times: grids.predicted_error(times, fine, shifts), every["tangent"])
    found = {each: math.sqrt(np.mean((ends(times, "ddim") - exact) ** 2)) for each, times in every.items()}
    predicted = {each: grids.predicted_error(times, fine, shifts) for each, times in every.items()}
    for each in ("uniform", "log-snr", "cosine", "sech", "karras"):
        assert found["tangent"] < found[each] * 1.02
    for each in ("log-snr", "cosine", "sech", "karras"):
        assert found[each] / found["tangent"] == pytest.approx(predicted[each] / predicted["tangent"], rel=0.12)
    assert found.get("best", 0) < found["tangent"]
