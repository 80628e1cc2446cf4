"""Deconvolution: point spreads, spikes that are known, certificates of known optima, errors that cover."""

import numpy as np
import pytest

import mfld
from mfld import signed_certificates
from mfld.deconvolution import Convolution, Dirichlet, Gaussian, PointSpread, Sampled

CIRCLE = np.arange(32) * 2 * np.pi / 32


@pytest.mark.parametrize(
    "point_spread",
    [Gaussian(0.7), Dirichlet(3, period=2.5), Sampled(np.hanning(13)[1:-1], spacing=0.2)],
)
def test_derivatives_and_bounds_of_point_spreads(point_spread):
    x = np.linspace(-3, 3, 2001)
    value, slope = point_spread(x)
    ends = [point_spread(x + sign * 1e-6)[0] for sign in (1, -1)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-6, atol=1e-5)  # splines have kinks in their slope
    curve = (point_spread(x + 1e-5)[1] - point_spread(x - 1e-5)[1]) / 2e-5
    assert np.abs(value).max() <= point_spread.largest * (1 + 1e-12)
    assert np.abs(slope).max() <= point_spread.steepest * (1 + 1e-12)
    assert np.abs(curve).max() <= point_spread.most_curved * (1 + 1e-5)


def test_a_sampled_response_goes_through_its_samples_and_is_0_beyond():
    values = np.array([0.2, 0.5, 1.0, 0.4, 0.1])
    sampled = Sampled(values, spacing=0.5)
    np.testing.assert_allclose(sampled(np.arange(-2, 3) * 0.5)[0], values, atol=1e-15)
    np.testing.assert_array_equal(sampled(np.array([-2.1, 2.1, 9.0]))[0], 0)


@pytest.mark.parametrize("dimension", [1, 2])
def test_the_grid_is_a_faster_way_to_the_same_numbers(dimension):
    spreads = [Gaussian(0.4), Dirichlet(2, period=2.0)][:dimension]
    axes = [np.linspace(0, 3, 11), np.linspace(0, 1.9, 7)][:dimension]
    model = Convolution(spreads, axes)
    rng = np.random.default_rng(0)
    particles, dual = model.initial_particles(5, 0, "float64"), rng.normal(size=(len(model.grid), 1))
    others = model.grid + 1e-300  # equal numbers, but taken as any other inputs where shapes differ
    values, slopes = model.pull_back(particles, model.grid, dual, 1)
    twice = model.pull_back(particles, np.vstack([others, others]), np.vstack([dual, dual]) / 2, 1)
    np.testing.assert_allclose(values, twice[0], atol=1e-13)
    np.testing.assert_allclose(slopes, twice[1], atol=1e-13)
    by_hand = np.ones((len(model.grid), 5))
    for j, own in enumerate(spreads):
        by_hand *= own(model.grid[:, j : j + 1] - particles[:, j])[0]
    np.testing.assert_allclose(model.neurons(particles, model.grid), by_hand, atol=1e-14)
    np.testing.assert_allclose(values, by_hand.T @ dual[:, 0], atol=1e-13)
    for j in range(dimension):
        step = np.zeros(dimension)
        step[j] = 1e-6
        ends = [model.pull_back(particles + sign * step, model.grid, dual, 1)[0] for sign in (1, -1)]
        np.testing.assert_allclose(slopes[:, j], (ends[0] - ends[1]) / 2e-6, atol=1e-7)
        ends = [model.neurons(particles + sign * step, model.grid) for sign in (1, -1)]
        np.testing.assert_allclose(model.slopes(particles)[..., j], (ends[0] - ends[1]) / 2e-6, atol=1e-7)


def test_one_spike_has_a_solution_in_closed_form():
    """A spike of a signal c k stays where it is, and its amplitude shrinks by strength n / |k|**2."""
    model = Convolution(Dirichlet(4, period=2 * np.pi), [CIRCLE])
    signal = mfld.SignedMeasure(model, [[2.0]], [1.5]).predict(model.grid)
    strength = 0.01
    found = mfld.deconvolve(signal, Dirichlet(4, period=2 * np.pi), strength, n_steps=30)
    norm = np.sum(model.neurons([[2.0]], model.grid) ** 2) / 32
    np.testing.assert_allclose(found.measure.positions, [[2.0]], atol=1e-6)
    np.testing.assert_allclose(found.measure.weights, [1.5 - strength / norm], atol=1e-6)
    np.testing.assert_allclose(found.positions, [[2.0]], atol=1e-9)
    np.testing.assert_allclose(found.amplitudes, [1.5], atol=1e-9)
    exact = norm / 2 * (strength / norm) ** 2 + strength * (1.5 - strength / norm)
    assert exact <= found.certificate.value <= exact + found.certificate.gap + 1e-15


def test_separated_spikes_are_recovered_to_a_thousandth_of_their_distance():
    spread = Dirichlet(8, period=2 * np.pi)
    model = Convolution(spread, [np.arange(64) * 2 * np.pi / 64])
    positions, amplitudes = np.array([1.0, 2.2, 4.0, 5.1]), np.array([1.0, -0.7, 0.5, 1.2])
    signal = mfld.SignedMeasure(model, positions[:, np.newaxis], amplitudes).predict(model.grid)
    found = mfld.deconvolve(signal, spread, 1e-5)
    order = np.argsort(found.measure.positions[:, 0])
    np.testing.assert_allclose(found.measure.positions[order, 0], positions, atol=1.1e-3)
    order = np.argsort(found.positions[:, 0])
    np.testing.assert_allclose(found.positions[order, 0], positions, atol=1e-8)
    np.testing.assert_allclose(found.amplitudes[order], amplitudes, atol=1e-8)


def test_both_penalties_have_the_same_solutions():
    spread = Gaussian(0.5)
    x = np.linspace(0, 8, 81)
    signal = spread(x - 2.03)[0] - 0.6 * spread(x - 5.5)[0] + 0.02 * np.random.default_rng(0).normal(size=81)
    tv = mfld.deconvolve(signal, spread, 4e-3, axes=[x])
    squared = mfld.deconvolve(signal, spread, 4e-3 / tv.measure.tv_norm, axes=[x], penalty="squared_tv")
    np.testing.assert_allclose(squared.measure.positions, tv.measure.positions, atol=2e-3)
    np.testing.assert_allclose(squared.measure.weights, tv.measure.weights, atol=2e-3)


def test_the_value_is_that_of_a_convex_solver_on_a_fine_grid():
    """On a grid the problem is the lasso; its value is above that of all positions by what the grid costs."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    spread = Gaussian(0.5)
    x = np.linspace(0, 8, 41)
    signal = spread(x - 2.03)[0] - 0.6 * spread(x - 5.5)[0] + 0.05 * np.random.default_rng(0).normal(size=41)
    strength = 5e-3
    found = mfld.deconvolve(signal, spread, strength, axes=[x])
    atoms = np.linspace(0, 8, 321)
    design = spread(x[:, np.newaxis] - atoms)[0]
    lasso = linear_model.Lasso(alpha=strength, fit_intercept=False, tol=1e-5, max_iter=200_000).fit(design, signal)
    on_grid = np.mean((design @ lasso.coef_ - signal) ** 2) / 2 + strength * np.abs(lasso.coef_).sum()
    value, gap = found.certificate.value, found.certificate.gap
    assert value - gap <= on_grid + 1e-12
    assert value <= on_grid <= value * (1 + 1e-3)


def test_two_dimensions():
    spread = Dirichlet(2, period=2 * np.pi)
    axis = np.arange(12) * 2 * np.pi / 12
    model = Convolution(spread, [axis, axis])
    # The three spikes of Chizat's two-dimensional example.
    positions = np.pi + np.array([[0, 0], [1.7, -0.3], [0.7, 1.3]])
    signal = mfld.SignedMeasure(model, positions, [1.1, 0.8, 1.0]).predict(model.grid).reshape(12, 12)
    found = mfld.deconvolve(signal, spread, 1e-4, n_steps=60)
    np.testing.assert_allclose(found.positions, positions[[0, 2, 1]], atol=1e-6)
    np.testing.assert_allclose(found.amplitudes, [1.1, 1.0, 0.8], atol=1e-6)
    np.testing.assert_allclose(found.fit, signal, atol=1e-7)


X = np.linspace(0, 8, 81)
TWO_SPIKES = 2 * Gaussian(0.5)(X - 2.03)[0] - Gaussian(0.5)(X - 5.5)[0]


@pytest.mark.parametrize("penalty", ["tv", "squared_tv"])
def test_units_of_signal_positions_and_response_make_no_difference(penalty):
    """Of powers of 2 in no bit, of others in rounding: down to 1e-300 of a square, and to a nanosecond."""
    noisy = TWO_SPIKES + 0.05 * np.random.default_rng(0).normal(size=81)
    expected = mfld.deconvolve(noisy, Gaussian(0.5), 0.02, axes=[X], penalty=penalty, n_steps=30)
    assert len(expected.amplitudes) == 2
    values = Gaussian(0.5)(np.arange(-60, 61) * 0.05)[0]
    for unit, length, response in (
        (2.0**-300, 2.0**-40, 1.0),
        (1e90, 1e-9, 1.0),
        (1e-90, 1e60, 1.0),
        (3.0, 7.0, 1e-80),
    ):
        spread = Gaussian(0.5 * length) if response == 1 else Sampled(response * values, spacing=0.05 * length)
        strength = 0.02 * response * (unit if penalty == "tv" else response)
        found = mfld.deconvolve(unit * noisy, spread, strength, axes=[X * length], penalty=penalty, n_steps=30)
        exact = unit == 2.0**-300
        near = {"rtol": 0 if exact else 1e-4}  # of Sampled's interpolation
        size = unit / response
        for name, scale in (
            ("positions", length),
            ("position_errors", length),
            ("amplitudes", size),
            ("amplitude_errors", size),
            ("noise_level", unit),
            ("fit", unit),
        ):
            np.testing.assert_allclose(
                getattr(found, name) / scale, getattr(expected, name), atol=1e-4 * (1 - exact), **near
            )
        np.testing.assert_allclose(found.measure.positions / length, expected.measure.positions, **near)
        np.testing.assert_allclose(found.measure.weights / size, expected.measure.weights, **near)
        np.testing.assert_allclose(found.certificate.value / unit / unit, expected.certificate.value, **near)
        assert 0 <= found.certificate.gap / unit / unit <= 1e-6 * np.mean(noisy**2) / 2
        np.testing.assert_allclose(found.certificate.supremum / unit / response, expected.certificate.supremum, **near)
        assert found.strength == strength


def test_axes_may_have_units_that_are_far_apart():
    first, second = Dirichlet(3, period=20e-9), Gaussian(1500.0)
    axes = [np.arange(20) * 1e-9, np.arange(16) * 1e3]
    model = Convolution([first, second], axes)
    positions = np.array([[5.2e-9, 6300.0], [12.1e-9, 9400.0]])
    signal = mfld.SignedMeasure(model, positions, [2.0, -1.0]).predict(model.grid).reshape(20, 16)
    found = mfld.deconvolve(signal, [first, second], axes=axes, n_steps=60)
    np.testing.assert_allclose(found.positions, positions, rtol=1e-6)
    np.testing.assert_allclose(found.amplitudes, [2.0, -1.0], rtol=1e-6)
    assert found.certificate.bounded


@pytest.mark.parametrize("size", [1e-200, 1e200, 5e-324])
def test_signals_without_a_square_are_refused(size):
    with pytest.raises(ValueError, match=r"signal must have its largest size between 1e-100 and 1e\+100, or 0, got"):
        mfld.deconvolve(size * TWO_SPIKES / 2, Gaussian(0.5), axes=[X])


def test_any_strength_has_an_answer_or_a_name():
    found = mfld.deconvolve(TWO_SPIKES, Gaussian(0.5), 1e-14, axes=[X], n_steps=30)
    np.testing.assert_allclose(found.measure.weights, [2, -1], atol=1e-6)
    assert len(mfld.deconvolve(TWO_SPIKES, Gaussian(0.5), 1e50, axes=[X], n_steps=30).amplitudes) == 0
    for strength in (1e-200, 1e200):
        with pytest.raises(ValueError, match="strength must be nearer to"):
            mfld.deconvolve(TWO_SPIKES, Gaussian(0.5), strength, axes=[X])
    with pytest.raises(ValueError, match=r"point_spread must be wider: axes must be at most 1e\+06 of its widths"):
        mfld.deconvolve(TWO_SPIKES, Gaussian(1e-9), axes=[X])


class Bell(PointSpread):
    """The response of a resonance, with numbers that a test may spoil."""

    largest, steepest, most_curved = 1.0, 0.65, 2.0

    def __call__(self, x):
        return 1 / (1 + x**2), -2 * x / (1 + x**2) ** 2


def test_a_response_of_ones_own():
    found = mfld.deconvolve(3 * Bell()(X - 3.2)[0], Bell(), axes=[X], n_steps=30)
    np.testing.assert_allclose(found.positions, [[3.2]], atol=1e-8)
    np.testing.assert_allclose(found.amplitudes, [3.0], atol=1e-8)


@pytest.mark.parametrize(
    ("spoiled", "error", "message"),
    [
        ({"largest": None}, TypeError, "largest of point_spread .* must be a real number"),
        ({"most_curved": np.inf}, ValueError, "most_curved of point_spread .* must be finite and positive"),
        ({"steepest": np.nan}, ValueError, "steepest of point_spread .* must be finite and positive"),
        ({"most_curved": 1.0}, ValueError, "most_curved, or the derivative, of point_spread .* must suit its response"),
        ({"largest": 0.9}, ValueError, "largest of point_spread .* must suit its response"),
        ({"steepest": 0.6}, ValueError, "steepest of point_spread .* must suit its response"),
        ({"__call__": lambda self, x: (1 / (1 + x**2), 2 * x / (1 + x**2) ** 2)}, ValueError, "the derivative, of"),
        ({"__call__": lambda self, x: 1 / (1 + x**2)}, TypeError, "must be a pair, response and derivative"),
        ({"__call__": lambda self, x: (x * np.nan, x)}, ValueError, "largest of point_spread .* must suit"),
        ({"__call__": lambda self, x: (x[:-1], x)}, ValueError, "the response of point_spread .* must have shape"),
    ],
)
def test_a_response_that_contradicts_itself_is_refused(spoiled, error, message):
    with pytest.raises(error, match=message):
        mfld.deconvolve(TWO_SPIKES, type("Spoiled", (Bell,), spoiled)(), axes=[X])


@pytest.mark.parametrize("point_spread", [Gaussian(1.5), Dirichlet(2, period=7.0), Sampled(np.hanning(7), spacing=1.0)])
def test_responses_at_whole_numbers_are_those_at_reals(point_spread):
    for found, expected in zip(point_spread(np.arange(-3, 4)), point_spread(np.arange(-3.0, 4)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_an_image_of_a_measured_response_against_a_convex_solver_on_a_fine_grid():
    linear_model = pytest.importorskip("sklearn.linear_model")
    measured = np.array([0.0, 0.1, 0.4, 1.0, 0.7, 0.3, 0.05])  # lopsided
    spreads = [Sampled(measured, spacing=1.0), Sampled(measured[::-1], spacing=1.0)]

    def response(points, values):  # the spline of Catmull and Rom, by its Hermite form
        knots = np.arange(-5, 6)
        padded = np.concatenate([np.zeros(2), values, np.zeros(2)])
        slopes = np.gradient(padded)
        slopes[[0, -1]] = 0
        return interpolate.CubicHermiteSpline(knots, padded, slopes)(np.clip(points, -5, 5))

    interpolate = pytest.importorskip("scipy.interpolate")
    x, y, fine = np.arange(10.0), np.arange(9.0), 4
    rng = np.random.default_rng(0)
    signal = 0.02 * rng.normal(size=(10, 9))
    for u, v, c in ((3.3, 5.1, 1.0), (6.6, 2.4, -0.7)):
        signal += c * np.outer(response(x - u, measured), response(y - v, measured[::-1]))
    strength = 0.003
    found = mfld.deconvolve(signal, spreads, strength, n_steps=60)
    along = [
        response(axis[:, np.newaxis] - np.linspace(0, axis[-1], fine * (len(axis) - 1) + 1), values)
        for axis, values in ((x, measured), (y, measured[::-1]))
    ]
    design = np.einsum("ia,jb->ijab", *along).reshape(signal.size, -1)
    lasso = linear_model.Lasso(alpha=strength, fit_intercept=False, tol=1e-6, max_iter=100_000)
    lasso.fit(design, signal.ravel())
    residual = design @ lasso.coef_ - signal.ravel()
    on_grid = np.mean(residual**2) / 2 + strength * np.abs(lasso.coef_).sum()
    value, gap = found.certificate.value, found.certificate.gap
    assert value - gap <= on_grid + 1e-12
    assert value <= on_grid <= value * (1 + 1e-2)


def test_certificates_look_at_points_part_by_part(monkeypatch):
    model = Convolution(Gaussian(0.5), [X])
    risk = mfld.SignedRisk(model, model.grid, TWO_SPIKES, strength=0.01)
    measure = mfld.SignedMeasure(model, [[2.0]], [1.0])
    whole = mfld.signed_certificate(risk, measure)
    monkeypatch.setattr(signed_certificates, "_AT_ONCE", 7 * len(X))
    parts = mfld.signed_certificate(risk, measure)
    assert (parts.gap, parts.supremum) == pytest.approx((whole.gap, whole.supremum), rel=1e-12)


def coverage(seeds):
    spread, level = Gaussian(0.5), 0.05
    x = np.linspace(0, 8, 81)
    truth = np.array([2.03, 5.5, 1.0, -0.6])
    clean = truth[2] * spread(x - truth[0])[0] + truth[3] * spread(x - truth[1])[0]
    inside = []
    for seed in seeds:
        signal = clean + level * np.random.default_rng(seed).normal(size=81)
        found = mfld.deconvolve(signal, spread, 0.02, axes=[x], n_particles=30, n_steps=30, gap=1e-4)
        assert len(found.amplitudes) == 2, seed
        numbers = np.concatenate([found.positions[:, 0], found.amplitudes])
        errors = np.concatenate([found.position_errors[:, 0], found.amplitude_errors])
        inside.append(np.abs(numbers - truth) <= 1.96 * errors)
    return np.mean(inside, axis=0)


def test_errors_cover():
    # 40 cases at level 0.95: below 0.8 has a probability of 4e-4 in each of four.
    assert (coverage(range(40)) >= 0.8).all()


@pytest.mark.slow
def test_errors_cover_at_their_level():
    # 200 cases: three standard deviations of a share around 0.95.
    np.testing.assert_allclose(coverage(range(200)), 0.95, atol=3 * np.sqrt(0.95 * 0.05 / 200))


def test_the_gap_bounds_what_is_missing():
    """For any measure: against the optimum, and never below."""
    spread = Gaussian(0.5)
    x = np.linspace(0, 8, 81)
    signal = spread(x - 2.03)[0] - 0.6 * spread(x - 5.5)[0]
    model = Convolution(spread, [x])
    risk = mfld.SignedRisk(model, model.grid, signal, strength=0.01)
    best = mfld.deconvolve(signal, spread, 0.01, axes=[x], penalty="squared_tv")
    rng = np.random.default_rng(0)
    for _ in range(20):
        measure = mfld.SignedMeasure(model, rng.uniform(0, 8, (3, 1)), rng.normal(size=3))
        certificate = mfld.signed_certificate(risk, measure)
        assert certificate.bounded
        assert certificate.value - best.certificate.value <= certificate.gap
    dense = np.linspace(0, 8, 20_001)[:, np.newaxis]
    residual = measure.predict(model.grid) - signal
    largest = np.abs(model.neurons(dense, model.grid).T @ residual / 81).max()
    assert largest <= certificate.supremum <= largest * (1 + 1e-3)


def test_on_a_sphere_the_supremum_is_searched():
    inputs = np.random.default_rng(0).normal(size=(20, 3))
    model = mfld.TwoLayerNetwork(3, activation="relu", readout="fixed", bias=False, domain=(mfld.Sphere(3),))
    risk = mfld.SignedRisk(model, inputs, inputs[:, 0], strength=0.1)
    measure = mfld.SignedMeasure(model, [[1.0, 0, 0], [-1.0, 0, 0]], [0.5, -0.5])
    certificate = mfld.signed_certificate(risk, measure)
    assert not certificate.bounded
    points = mfld.Space(domain=[mfld.Sphere(3)]).draw(mfld.noise.start(3), 200_000, "float64")
    dual = (measure.predict(inputs) - inputs[:, 0]) / 20
    assert certificate.supremum >= np.abs(np.maximum(points @ inputs.T, 0) @ dual).max()


@pytest.mark.parametrize("strength", [0.02, 0.1])
@pytest.mark.parametrize("seed", range(4))
def test_noise_alone_and_short_signals_have_solutions_too(seed, strength):
    """Spikes close together, of opposite signs, and at the ends of the axis."""
    signal = np.random.default_rng(seed).normal(size=12)
    found = mfld.deconvolve(signal, Gaussian(1.0), strength)
    assert found.certificate.bounded
    assert found.certificate.gap <= 1e-6 * np.mean(signal**2) / 2
    fitted = mfld.SignedMeasure(Convolution(Gaussian(1.0), [np.arange(12.0)]), found.positions, found.amplitudes)
    np.testing.assert_allclose(found.fit, fitted.predict(np.arange(12.0)[:, np.newaxis]), atol=1e-12)
    assert np.sum((found.fit - signal) ** 2) <= np.sum(signal**2)
    assert 2 * len(found.amplitudes) <= 12


def test_a_spike_at_the_end_of_the_axis():
    found = mfld.deconvolve([0.0, 1.0, 0.0, 0.0], Gaussian(1.0), 0.01)
    assert found.certificate.gap <= 1e-6 / 8
    assert 0.0 in found.measure.positions


def test_the_wrong_is_refused():
    with pytest.raises(ValueError, match="strength must be finite and positive"):
        mfld.deconvolve(np.ones(9), Gaussian(1.0), 0.0)
    with pytest.raises(ValueError, match=r"signal must have shape \(n,\) or \(n_1, n_2\)"):
        mfld.deconvolve(np.ones((2, 2, 2)), Gaussian(1.0), 0.1)
    with pytest.raises(ValueError, match="axes must have"):
        mfld.deconvolve(np.ones(9), Gaussian(1.0), 0.1, axes=[np.arange(8)])
    with pytest.raises(ValueError, match="the period"):
        mfld.deconvolve(np.ones(9), Dirichlet(2, period=1.0), 0.1, axes=[np.arange(9)])
    with pytest.raises(ValueError, match="point_spread must be one"):
        mfld.deconvolve(np.ones((9, 9)), [Gaussian(1.0)], 0.1)
    with pytest.raises(ValueError, match="increasing"):
        Convolution(Gaussian(1.0), [[0.0, 2.0, 1.0]])
    with pytest.raises(TypeError, match=r"point_spread must be a PointSpread, .* got 'gaussian' \(str\)"):
        mfld.deconvolve(np.ones(9), "gaussian", 0.1)
    with pytest.raises(ValueError, match="values must have their largest size"):
        Sampled(np.zeros(5), spacing=1.0)
    with pytest.raises(ValueError, match="frequencies must be between 1 and 100000"):
        Dirichlet(10**9)
    with pytest.raises(ValueError, match="period must be between"):
        Dirichlet(2, period=1e-200)
    with pytest.raises(ValueError, match="penalty"):
        mfld.deconvolve(np.ones(9), Gaussian(1.0), 0.1, penalty="l1")
    found = mfld.deconvolve(np.zeros(9), Gaussian(1.0), 0.1)
    assert len(found.amplitudes) == 0
    assert found.certificate.gap == 0


def test_the_default_strength_is_a_tenth_of_that_without_spikes():
    x = np.linspace(0, 8, 41)
    signal = Gaussian(0.5)(x - 2.03)[0] - 0.6 * Gaussian(0.5)(x - 5.5)[0]
    dense = np.linspace(0, 8, 8001)
    largest = np.abs(Gaussian(0.5)(x[:, np.newaxis] - dense)[0].T @ signal).max() / 41
    assert mfld.deconvolve(signal, Gaussian(0.5), axes=[x]).strength == pytest.approx(largest / 10, rel=2e-3)
    assert len(mfld.deconvolve(signal, Gaussian(0.5), 1.01 * largest, axes=[x]).amplitudes) == 0
    assert len(mfld.deconvolve(signal, Gaussian(0.5), 0.95 * largest, axes=[x]).amplitudes) == 1
    with pytest.raises(ValueError, match="strength must be given with penalty 'squared_tv'"):
        mfld.deconvolve(signal, Gaussian(0.5), axes=[x], penalty="squared_tv")
