"""Kernels of pairs: the core's sums against double loops over formulas that are written out here."""

import itertools
import math
import pickle
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mfld import _core, kernels

EPS = {"float32": 2.0**-23, "float64": 2.0**-52}


@pytest.fixture
def rng():
    return np.random.default_rng(15)


def distance(x, y, length):
    return math.sqrt(sum(((a - b) / c) ** 2 for a, b, c in zip(x, y, np.broadcast_to(length, len(x)), strict=True)))


def matern(q, quadratic):
    return (1 + q + quadratic * q * q) * math.exp(-q)


def series(x, y, coefficients, period):
    angles = [2 * math.pi * (a - b) / period for a, b in zip(x, y, strict=True)]
    return math.prod(1 + 2 * sum(c * math.cos((k + 1) * t) for k, c in enumerate(coefficients)) for t in angles)


def images(x, y, length, period):
    return math.prod(
        sum(math.exp(-((a - b + m * period) ** 2) / (2 * length**2)) for m in range(-8, 9))
        for a, b in zip(x, y, strict=True)
    )


ANISOTROPIC = (0.7, 1.3, 2.1)

# Each kernel of the core, and the same as a function of two points.
KERNELS = {
    "gaussian": (kernels.Gaussian(1.3), lambda x, y: math.exp(-(distance(x, y, 1.3) ** 2) / 2)),
    "gaussian per coordinate": (
        kernels.Gaussian(ANISOTROPIC),
        lambda x, y: math.exp(-(distance(x, y, ANISOTROPIC) ** 2) / 2),
    ),
    "inverse root": (kernels.InverseMultiquadric(1.2), lambda x, y: 1 / math.sqrt(1 + distance(x, y, 1.2) ** 2)),
    "inverse multiquadric": (
        kernels.InverseMultiquadric(ANISOTROPIC, exponent=-0.7),
        lambda x, y: (1 + distance(x, y, ANISOTROPIC) ** 2) ** -0.7,
    ),
    "matern52": (
        kernels.Matern52(1.1),
        lambda x, y: matern(math.sqrt(5) * distance(x, y, 1.1), 1 / 3),
    ),
    "matern32": (
        kernels.Matern32(ANISOTROPIC),
        lambda x, y: matern(math.sqrt(3) * distance(x, y, ANISOTROPIC), 0),
    ),
    "laplace": (kernels.Laplace(1.5), lambda x, y: math.exp(-distance(x, y, 1.5))),
    "energy": (kernels.Energy(), lambda x, y: -distance(x, y, 1.0)),
    "dirichlet": (kernels.Dirichlet([0.5, 0.3, 0.1], period=2.0), lambda x, y: series(x, y, [0.5, 0.3, 0.1], 2.0)),
    "wrapped, narrow": (kernels.WrappedGaussian(0.2, period=2.0), lambda x, y: images(x, y, 0.2, 2.0)),
    "wrapped, wide": (kernels.WrappedGaussian(0.9, period=2.0), lambda x, y: images(x, y, 0.9, 2.0)),
}
every_kernel = pytest.mark.parametrize("name", KERNELS)
SMOOTH = [name for name in KERNELS if KERNELS[name][0].derivatives == 3]


class Stencil:
    """Derivatives of a function of two points by differences: h**4 = 1e-12, and eps / h = 2e-13, eps / h**2 = 2e-10."""

    h = 1e-3

    def __init__(self, function):
        self.function = function
        self.first = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}

    def shifted(self, point, c, steps):
        point = np.array(point, float)
        point[c] += steps * self.h
        return point

    def in_x(self, x, y, c):
        return sum(w * self.function(self.shifted(x, c, k), y) for k, w in self.first.items()) / self.h

    def in_y(self, x, y, c):
        return sum(w * self.function(x, self.shifted(y, c, k)) for k, w in self.first.items()) / self.h

    def mixed(self, x, y, c):
        return sum(w * self.in_y(self.shifted(x, c, k), y, c) for k, w in self.first.items()) / self.h

    def stein(self, x, y, s, t):
        found = np.dot(s, t) * self.function(x, y)
        for c in range(len(x)):
            found += s[c] * self.in_y(x, y, c) + t[c] * self.in_x(x, y, c) + self.mixed(x, y, c)
        return found


def clouds(rng, n, m, p=3, dtype=np.float64):
    x, y = rng.normal(size=(n, p)), rng.normal(size=(m, p))
    s, t = rng.normal(size=(n, p)), rng.normal(size=(m, p))
    # Rounded first, so that both precisions are about the same points.
    return [array.astype(dtype) for array in (x, y, s, t, rng.uniform(0.1, 1, size=m) / m)]


def close(found, expected, dtype, ulps=60):
    scale = max(np.abs(expected).max(), 1e-30)
    assert_allclose(found, expected, rtol=0, atol=ulps * EPS[np.dtype(dtype).name] * scale)


@every_kernel
def test_a_matrix_holds_the_formula(name, rng):
    kernel, formula = KERNELS[name]
    x, y, *_ = clouds(rng, 4, 5)
    expected = [[formula(a, b) for b in y] for a in x]
    assert_allclose(kernel.matrix(x, y), expected, rtol=1e-12, atol=1e-14)
    assert_allclose(kernel.diagonal(x), [formula(a, a) for a in x], rtol=1e-12, atol=1e-14)


@every_kernel
@pytest.mark.parametrize("sizes", [(1, 1), (37, 9)])
def test_sums_are_double_loops(level, dtype, name, sizes, rng):
    kernel, formula = KERNELS[name]
    x, y, _, _, w = clouds(rng, *sizes, dtype=dtype)
    expected = np.array([sum(c * formula(a, b) for b, c in zip(y, w, strict=True)) for a in x.astype(float)])
    found = kernel.sums(x, y, w)
    assert found.dtype == dtype
    close(found, expected, dtype)
    even = np.array([np.mean([formula(a, b) for b in y.astype(float)]) for a in x.astype(float)])
    close(kernel.sums(x, y), even, dtype)
    assert_array_equal(found, kernel.values_and_gradients(x, y, w)[0])


@every_kernel
def test_gradients_are_differences_of_the_formula(level, name, rng):
    kernel, formula = KERNELS[name]
    stencil = Stencil(formula)
    x, y, _, t, w = clouds(rng, 5, 7)
    expected = [[sum(c * stencil.in_x(a, b, e) for b, c in zip(y, w, strict=True)) for e in range(3)] for a in x]
    scale = np.abs(expected).max()
    assert_allclose(kernel.gradient_sums(x, y, w), expected, rtol=0, atol=1e-9 * scale)
    field = [
        [sum(c * (formula(a, b) * v[e] + 0.4 * stencil.in_y(a, b, e)) for b, v, c in zip(y, t, w, strict=True))
         for e in range(3)]
        for a in x
    ]  # fmt: skip
    assert_allclose(kernel.field(x, y, t, w, repulsion=0.4), field, rtol=0, atol=1e-9 * np.abs(field).max())


@pytest.mark.parametrize("name", [*SMOOTH, "matern32"])
def test_stein_kernels_are_differences_of_the_formula(level, name, rng):
    kernel, formula = KERNELS[name]
    stencil = Stencil(formula)
    x, y, s, t, w = clouds(rng, 3, 4)
    expected = [
        sum(c * stencil.stein(a, b, u, v) for b, v, c in zip(y, t, w, strict=True)) for a, u in zip(x, s, strict=True)
    ]
    assert_allclose(kernel.stein_sums(x, s, y, t, w).values, expected, rtol=0, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_of_stein_kernels_are_differences_of_their_values(level, name, rng):
    kernel = KERNELS[name][0]
    x, y, _, t, w = clouds(rng, 3, 4)
    slope = rng.normal(size=(3, 3))  # scores that vary: s(x) = x slope'
    found = kernel.stein_sums(x, x @ slope.T, y, t, w, with_gradient=True)
    gradient = found.gradient + found.field @ slope
    h, expected = 1e-4, np.zeros_like(x)
    for c in range(3):
        up, down = x.copy(), x.copy()
        up[:, c] += h
        down[:, c] -= h
        values = [kernel.stein_sums(z, z @ slope.T, y, t, w).values for z in (up, down)]
        expected[:, c] = (values[0] - values[1]) / (2 * h)
    assert_allclose(gradient, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert_allclose(found.field, kernel.field(x, y, t, w), rtol=1e-13, atol=1e-16)


def test_the_published_value_of_the_inverse_multiquadric_stein_kernel(level):
    # Of two independent libraries: c = 1, beta = -1/2, no preconditioner.
    points = [[1.0, 2.0, 3.0]], [[0.5, 0.75, 1.5]], [[2.0, 3.0, 4.0]], [[1.0, 1.5, 3.0]]
    assert kernels.InverseMultiquadric(1.0).stein_sums(*points).values.tolist() == [3.5]


@every_kernel
@pytest.mark.parametrize("p", [1, 9])
def test_the_core_and_numpy_agree(level, dtype, name, p, rng):
    kernel = KERNELS[name][0]
    if kernel.n_coordinates not in (None, p):
        pytest.skip("of three coordinates")
    x, y, s, t, w = clouds(rng, 19, 300, p, dtype)  # more rows than one block
    wide = [array.astype(np.float64) for array in (x, y, s, t, w)]
    base = kernels.Kernel
    values, gradient = kernel.values_and_gradients(x, y, w)
    expected = base.sums_of(kernel, wide[0], wide[1], wide[4], True, 1)
    close(values, expected[0], dtype)
    close(gradient, expected[1], dtype)
    close(kernel.field(x, y, t, w), base.field_of(kernel, wide[0], wide[1], wide[3], wide[4], 1.0, 1), dtype)
    if kernel.derivatives >= 2:
        smooth = kernel.derivatives == 3
        found = kernel.stein_sums(x, s, y, t, w, with_gradient=smooth)
        reference = base.stein_of(kernel, wide[0], wide[2], wide[1], wide[3], wide[4], smooth, 1)
        for a, b in zip(found[: 3 if smooth else 1], reference, strict=False):
            close(a, b, dtype)


@pytest.mark.parametrize("name", ["gaussian", "dirichlet"])
def test_threads_do_not_change_a_bit(level, dtype, name, rng):
    kernel = KERNELS[name][0]
    x, y, s, t, w = clouds(rng, 1001, 777, 3, dtype)

    def bits(num_threads):
        return [
            array.tobytes()
            for array in (
                *kernel.values_and_gradients(x, y, w, num_threads),
                kernel.field(x, y, t, num_threads=num_threads),
                *kernel.stein_sums(x, s, y, t, w, with_gradient=True, num_threads=num_threads),
            )
        ]

    alone = bits(1)
    assert all(bits(num_threads) == alone for num_threads in (2, 3, 7))


def test_company_does_not_change_a_bit(level, dtype, rng):
    x, y, *_ = clouds(rng, 133, 50, 3, dtype)
    kernel = kernels.Matern52(1.0)
    together = kernel.gradient_sums(x, y)
    assert_array_equal(together[40:41], kernel.gradient_sums(x[40:41], y))


def test_a_common_offset_costs_no_digits(level):
    # All of these points are float32 numbers: the squares of the coordinates are not, by far.
    rng = np.random.default_rng(3)
    x, y = (rng.integers(-512, 512, size=(40, 2)) / 256 for _ in range(2))
    kernel = kernels.Gaussian(1.0)
    expected = kernel.gradient_sums(x, y)
    found = kernel.gradient_sums((x + 4096).astype(np.float32), (y + 4096).astype(np.float32))
    close(found, expected, "float32")


def test_points_on_each_other_and_far_away_are_finite(level, dtype):
    x = np.array([[0.0, 0.0], [0.0, 0.0], [1e18, 0.0]], dtype)
    for name in KERNELS:
        kernel = KERNELS[name][0]
        if kernel.n_coordinates is None:
            values, gradient = kernel.values_and_gradients(x, x[:2])
            assert np.isfinite(values).all(), name
            assert np.isfinite(gradient).all(), name
    assert_array_equal(kernels.Laplace(1.0).gradient_sums(x[:2], x[:2]), np.zeros((2, 2)))


def test_an_invalid_number_shows_in_its_row_only(level, dtype, rng):
    x, y, *_ = clouds(rng, 40, 9, 3, dtype)
    x[7, 1] = np.nan
    values, _ = _core.backend.pair_sums(kernels.Gaussian(1.0).native(3).kernel, x, y, None, True, 1)
    assert np.flatnonzero(np.isnan(values)).tolist() == [7]


# ---- arithmetic ------------------------------------------------------------------------------------------------------


class Linear(kernels.Kernel):
    """A user's kernel, x.y + 1, with all that Stein's method asks for."""

    derivatives = 3

    def value(self, x, y):
        return 1 + np.sum(x * y, axis=-1)

    def gradient(self, x, y):
        return np.broadcast_to(y, np.broadcast_shapes(x.shape, y.shape))

    def stein_terms(self, x, y, s, t):
        shape = np.broadcast_shapes(x.shape, y.shape)
        rest = np.sum(s * x, axis=-1) + np.sum(t * y, axis=-1) + x.shape[-1]
        return kernels.SteinTerms(self.value(x, y), self.gradient(x, y), rest, np.broadcast_to(s, shape))


COMBINED = {
    "sum": kernels.Gaussian(1.0) + 0.5 * kernels.InverseMultiquadric(2.0),
    "with one of the user": 2 * (kernels.Matern52(1.0) + 0.1 * Linear()),
    "blocks": kernels.Product([kernels.Gaussian(1.0), kernels.Matern52(0.8)], sizes=[1, 2]),
    "cylinder": kernels.Product([kernels.Gaussian((1.0, 2.0)), kernels.WrappedGaussian(0.3, 2.0)], sizes=[2, 1]),
    "nested": 3 * kernels.Product([kernels.Gaussian(1.0) + kernels.Matern52(2.0), Linear()], sizes=[1, 2]),
}


@pytest.mark.parametrize("name", COMBINED)
def test_sums_and_products_of_kernels(level, name, rng):
    kernel = COMBINED[name]
    x, y, s, t, w = clouds(rng, 6, 5)
    stencil = Stencil(lambda a, b: float(kernel.value(np.asarray(a), np.asarray(b))))
    assert_allclose(kernel.sums(x, y, w), kernel.matrix(x, y) @ w, rtol=1e-12)
    expected = [[sum(c * stencil.in_x(a, b, e) for b, c in zip(y, w, strict=True)) for e in range(3)] for a in x]
    assert_allclose(kernel.gradient_sums(x, y, w), expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    u = [sum(c * stencil.stein(a, b, v, z) for b, z, c in zip(y, t, w, strict=True)) for a, v in zip(x, s, strict=True)]
    assert_allclose(kernel.stein_sums(x, s, y, t, w).values, u, rtol=0, atol=1e-7 * np.abs(u).max())
    assert_allclose(
        kernel.stein_diagonal(x[:2], s[:2]),
        [stencil.stein(a, a, v, v) for a, v in zip(x[:2], s[:2], strict=True)],
        rtol=1e-6,
    )


@pytest.mark.parametrize("name", COMBINED)
def test_stein_gradients_of_sums_and_products(name, rng):
    kernel = COMBINED[name]
    x, y, s, t, w = clouds(rng, 3, 4)
    found = kernel.stein_sums(x, s, y, t, w, with_gradient=True).gradient
    h, expected = 1e-4, np.zeros_like(x)
    for c in range(3):
        up, down = x.copy(), x.copy()
        up[:, c] += h
        down[:, c] -= h
        expected[:, c] = (kernel.stein_sums(up, s, y, t, w).values - kernel.stein_sums(down, s, y, t, w).values) / (
            2 * h
        )
    assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_products_of_kernels_of_the_same_points(rng):
    x, y, *_ = clouds(rng, 4, 5)
    kernel = kernels.Gaussian(1.0) * Linear()
    assert_allclose(kernel.matrix(x, y), kernels.Gaussian(1.0).matrix(x, y) * Linear().matrix(x, y))
    stencil = Stencil(lambda a, b: float(kernel.value(np.asarray(a), np.asarray(b))))
    expected = [[np.mean([stencil.in_x(a, b, e) for b in y]) for e in range(3)] for a in x]
    assert_allclose(kernel.gradient_sums(x, y), expected, atol=1e-9)


def test_sums_in_numpy_take_memory_of_the_points_only(rng):
    x = rng.normal(size=(2500, 2))
    tracemalloc.start()
    Linear().gradient_sums(x, x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6  # all pairs at once would take 100e6


SMOOTHED = {
    "gaussian": kernels.Gaussian((0.7, 1.1)),
    "dirichlet": kernels.Dirichlet([0.5, 0.25], 3.0),
    "wrapped": kernels.WrappedGaussian(0.4, 3.0),
    "wrapped, wide": kernels.WrappedGaussian(1.1, 3.0),
    "sum": 2 * kernels.Gaussian(0.5) + kernels.Gaussian(2.0),
    "blocks": kernels.Product([kernels.Gaussian(1.0), kernels.WrappedGaussian(0.4, 3.0)], [1, 1]),
}


@pytest.mark.parametrize("name", SMOOTHED)
def test_smoothed_kernels_are_expectations(name, rng):
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    x, y = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    kernel, deviation = SMOOTHED[name], 0.3
    expected = sum(
        a * b * kernel.value(x + deviation * np.array([u, v]), y)
        for (u, a), (v, b) in itertools.product(zip(nodes, weights, strict=True), repeat=2)
    )
    assert_allclose(kernel.smoothed(deviation**2, 2).value(x, y), expected, rtol=1e-9)
    assert kernel.smoothed(0.0, 2).value(x, y).tolist() == kernel.value(x, y).tolist()


def test_kernels_are_values():
    for kernel, _ in KERNELS.values():
        again = pickle.loads(pickle.dumps(kernel))
        assert again == kernel
        assert hash(again) == hash(kernel)


# ---- rules and misuse ------------------------------------------------------------------------------------------------


def test_the_median_rule(rng):
    x = rng.normal(size=(60, 3))
    distances = [np.linalg.norm(x[i] - x[j]) for i in range(60) for j in range(i)]
    assert_allclose(kernels.median_distance(x), np.median(distances), rtol=1e-12)
    assert_allclose(kernels.Gaussian("median").fitted(x).length_scale, np.median(distances), rtol=1e-12)
    both = (kernels.Gaussian("median") + kernels.Laplace("median")).fitted(x)
    assert_allclose(both.matrix(x, x), sum(k.fitted(x).matrix(x, x) for k in (kernels.Gaussian(), kernels.Laplace())))
    blocks = kernels.Product([kernels.Gaussian(), kernels.Gaussian()], [1, 2]).fitted(x)
    assert blocks.kernels[1].length_scale == kernels.median_distance(x[:, 1:])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kernels.Gaussian(-1.0), ValueError, "length_scale must be finite and positive, got -1.0"),
        (lambda: kernels.Gaussian("mean"), ValueError, "length_scale must be one of median; got 'mean'"),
        (lambda: kernels.Gaussian([1.0, 0.0]), ValueError, r"length_scale must be positive, got \[1.0, 0.0\]"),
        (lambda: kernels.InverseMultiquadric(1.0, 0.5), ValueError, "exponent must be negative, got 0.5"),
        (lambda: kernels.Dirichlet([]), ValueError, r"coefficients must have shape \(K,\)"),
        (lambda: kernels.WrappedGaussian(0.1, period=0.0), ValueError, "period must be finite and positive"),
        (lambda: kernels.Gaussian().sums([[0.0]], [[0.0]]), ValueError, "length_scale must be a number here: fit"),
        (lambda: kernels.median_distance([[1.0]] * 9), ValueError, "length_scale must be a number where the median"),
        (lambda: kernels.Gaussian(1.0).sums([[0.0]], [[0.0, 1.0]]), ValueError, r"y must have shape \(n, 1\)"),
        (lambda: kernels.Gaussian((1.0, 2.0)).sums([[0.0]], [[0.0]]), ValueError, r"x must have shape \(n, 2\)"),
        (lambda: kernels.Gaussian(1.0).sums([[np.nan]], [[0.0]]), ValueError, "x must be finite, got nan"),
        (lambda: kernels.Gaussian(1.0).sums([[0.0]], [[0.0]], [1.0, 2.0]), ValueError, "weights must have shape"),
        (lambda: kernels.Gaussian(1.0).field([[0.0]], [[0.0]], [[np.inf]]), ValueError, "vectors must be finite"),
        (lambda: 0.0 * kernels.Gaussian(1.0), ValueError, "factor must be finite and positive, got 0.0"),
        (lambda: kernels.Gaussian(1.0) * "x", TypeError, "factor must be a real number"),
        (lambda: kernels.Gaussian(1.0) + 1, TypeError, "unsupported operand"),
        (lambda: kernels.Gaussian((1.0, 1.0)) + kernels.Gaussian((1.0,)), ValueError, "same number of coordinates"),
        (lambda: kernels.Product([kernels.Energy()], [1]), ValueError, "must be positive definite, Energy"),
        (lambda: kernels.Product([kernels.Gaussian((1.0, 1.0))], [1]), ValueError, r"sizes\[0\] must be 2 to match"),
        (lambda: kernels.Product([], []), ValueError, "kernels must hold at least one"),
        (
            lambda: kernels.Laplace(1.0).stein_sums([[0.0]], [[1.0]], [[0.0]], [[1.0]]),
            ValueError,
            "kernel must have 2 derivatives here",
        ),
        (
            lambda: kernels.Matern32(1.0).stein_sums([[0.0]], [[1.0]], [[0.0]], [[1.0]], with_gradient=True),
            ValueError,
            "kernel must have 3 derivatives here",
        ),
        (lambda: kernels.Laplace(1.0).smoothed(1.0, 2), TypeError, "smoothing must be 0 for Laplace"),
    ],
)
def test_misuse_has_its_message(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_negative_coefficients_are_warned_of():
    with pytest.warns(UserWarning, match=r"not positive definite with the coefficient -0\.5"):
        kernels.Dirichlet([1.0, -0.5])


def test_kernels_of_the_core_have_no_subclasses():
    with pytest.raises(TypeError, match="Subclass Kernel, with a Gaussian inside"):
        type("Own", (kernels.Gaussian,), {})
