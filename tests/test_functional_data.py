"""Curves, grids, bases and covariances: against closed forms, quadrature by other means, and misuse."""

import re
import types

import networkx
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate

import mfld
from mfld import functional_data as fd

T = np.linspace(0, 1, 201)


# ---- grids ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "order"), [("trapezoid", 2), ("simpson", 4)])
@pytest.mark.parametrize("irregular", [False, True])
def test_rules_integrate_with_their_order(rule, order, irregular):
    errors = []
    for n in (41, 81, 161):
        points = np.linspace(0, 1, n)
        points = points + 0.3 * points * (1 - points) if irregular else points
        errors.append(abs(np.sum(fd.Grid(points, rule).weights * np.exp(points)) - (np.e - 1)))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)
    assert np.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.25)


def test_interpolated_curves_are_those_of_linear_interpolation():
    gaps = [[0.0, np.nan, 2.0], [4.0, 3.0, 2.0]]
    assert_allclose(fd.interpolate([0.0, 1.0, 2.0], gaps, [0.0, 0.5, 1.0, 2.0]), [[0, 0.5, 1, 2], [4, 3.5, 3, 2]])
    short = [np.nan, 1.0, 3.0]
    for ends, first in (("hold", 1.0), ("zero", 0.0)):
        assert_allclose(fd.interpolate([0.0, 1.0, 2.0], [short], [0.0, 1.5], ends), [[first, 2.0]])
    with pytest.raises(ValueError, match=r"values\[0\] must reach from 0 to 1\.5, got 1 to 2: ends='hold' or 'zero'"):
        fd.interpolate([0.0, 1.0, 2.0], [short], [0.0, 1.5])
    with pytest.raises(ValueError, match=r"values\[1\] must have a number, got NaN only"):
        fd.interpolate([0.0, 1.0], [[1.0, 2.0], [np.nan, np.nan]], [0.0, 1.0])
    with pytest.raises(ValueError, match=r"values\[0\] must have shape \(2,\) to match its points, got \(3,\)"):
        fd.interpolate([0.0, 1.0], [[1.0, 2.0, 3.0]], [0.0, 1.0])


def test_derivatives_of_polynomials_are_exact():
    points = np.sort(np.random.default_rng(1).uniform(0, 2, 30))
    assert_allclose(fd.derivative([points**4], points, 2)[0], 12 * points**2, atol=1e-8)


# ---- bases and covariances -------------------------------------------------------------------------------------------

CURVES = np.random.default_rng(2).normal(size=(60, 8)) @ [
    np.sin((j + 0.5) * np.pi * T) / (j + 1) + 0.1 * T**j for j in range(8)
]
FINE = fd.Grid(np.linspace(0, 2, 4001), "simpson")


@pytest.mark.parametrize(
    "basis", [fd.Fourier(), fd.Fourier(periodic=True), fd.BSplines(9), fd.BSplines(12, 1)], ids=str
)
def test_functions_are_orthonormal(basis):
    """By Simpson's rule on a fine grid, which the kinks of the lines fall on."""
    functions = basis.system(fd.Grid(np.linspace(0, 2, 50)), 8, None).functions(FINE.points)
    assert_allclose(functions.T @ (FINE.weights[:, np.newaxis] * functions), np.eye(8), atol=2e-5)


def test_splines_run_from_smooth_to_rough():
    functions = fd.BSplines(14).system(fd.Grid(T), 14, None).functions(FINE.points / 2)
    rough = np.sum(np.diff(functions, 2, axis=0) ** 2, axis=0)
    assert (np.diff(rough[2:]) > 0).all()


def test_coefficients_and_curves_are_inverse():
    for basis in (fd.Fourier(), fd.Fourier(periodic=True), fd.BSplines(12)):
        coefficients = np.random.default_rng(3).normal(size=(5, 10))
        curves = basis.curves(coefficients, T)
        assert_allclose(basis.coefficients(curves, T, 10), coefficients, atol=1e-9)
    with pytest.raises(
        ValueError, match=re.escape("n must be at most 12 for BSplines(n_splines=12, degree=3), got 13")
    ):
        fd.BSplines(12).coefficients(CURVES, T, 13)
    with pytest.raises(ValueError, match="n must be at most 4, of the functions that the grid tells apart, got 7"):
        fd.Fourier(periodic=True).coefficients(np.ones((1, 5)), T[:5], 7)


def test_principal_components_are_those_of_a_singular_value_decomposition():
    grid = fd.Grid(T)
    centred = (CURVES - CURVES.mean(axis=0)) * np.sqrt(grid.weights)
    _, sizes, right = np.linalg.svd(centred, full_matrices=False)
    for curves in (CURVES, np.repeat(CURVES, 4, axis=0)):  # fewer than points, and more
        found = fd.PrincipalComponents().system(grid, 6, curves)
        along = np.einsum("tk,kt->k", found.projection / np.sqrt(grid.weights)[:, np.newaxis], right[:6])
        assert_allclose(np.abs(along), 1, atol=1e-9)
        whitened = fd.PrincipalComponents(whitened=True).system(grid, 6, curves)
        assert_allclose((curves @ whitened.projection).std(axis=0), 1)
    assert_allclose((CURVES @ found.projection).std(axis=0), sizes[:6] / np.sqrt(60))


def test_variances_of_brownian_motion_and_of_an_exponential_covariance():
    """The Karhunen-Loeve expansions that are known: 1 / ((j - 1/2) pi)**2, and roots of a transcendental equation."""
    modes = fd.Given(np.minimum).modes(fd.Grid(np.linspace(0, 1, 301)), 5)
    assert_allclose(modes.variances, 1 / ((np.arange(5) + 0.5) * np.pi) ** 2, rtol=1e-3)
    assert_allclose(
        np.abs(modes.functions(T)), np.sqrt(2) * np.abs(np.sin(np.outer(T, np.arange(5) + 0.5) * np.pi)), atol=5e-3
    )
    assert modes.variances.sum() + modes.discarded == pytest.approx(0.5, abs=1e-5)
    # exp(-|s - t|) on [-1/2, 1/2]: s = 2 / (1 + w**2) with the roots of (1 - w tan(w/2)) (w + tan(w/2)) = 0
    found = fd.Matern(length=1.0, smoothness=0.5).modes(fd.Grid(np.linspace(-0.5, 0.5, 301)), 4)
    w = np.sqrt(2 / found.variances - 1)
    even, odd = 1 - w * np.tan(w / 2), w + np.tan(w / 2)
    assert_allclose([even[0], odd[1], even[2], odd[3]], 0, atol=0.02)


@pytest.mark.parametrize("covariance", [fd.RBF(0.3, 2.0), fd.Matern(0.3), fd.Matern(0.3, 2.5)], ids=str)
def test_modes_satisfy_the_integral_equation_on_any_grid(covariance):
    """By adaptive quadrature at a few points: integral C(t, s) phi_j(s) ds = s_j phi_j(t)."""
    points = np.sort(np.concatenate([[0, 1], np.random.default_rng(5).uniform(0, 1, 300)]))
    modes = covariance.modes(fd.Grid(points), 3)
    for t in (0.05, 0.77):
        for j in range(3):
            found = integrate.quad(
                lambda s, t=t, j=j: (
                    covariance.between(np.array([t]), np.array([s]))[0, 0] * modes.functions(np.array([s]))[0, j]
                ),
                0,
                1,
                points=[t],
                limit=100,
            )[0]
            assert found == pytest.approx(modes.variances[j] * modes.functions(np.array([t]))[0, j], abs=2e-3)


def test_the_discarded_trace():
    zeta = {2.0: np.pi**2 / 6, 4.0: np.pi**4 / 90}
    for exponent, total in zeta.items():
        for n in (1, 5, 100):
            modes = fd.PowerLaw(exponent, scale=3.0).modes(fd.Grid(T), n)
            assert modes.variances.sum() + modes.discarded == pytest.approx(9 * total, rel=1e-10)
    splines = fd.PowerLaw(1.0, basis=fd.BSplines(7)).modes(fd.Grid(T), 3)
    assert splines.discarded == pytest.approx(1 / 4 + 1 / 5 + 1 / 6 + 1 / 7)
    assert fd.RBF(0.3).modes(fd.Grid(T), 3).discarded == pytest.approx(
        1 - fd.RBF(0.3).modes(fd.Grid(T), 3).variances.sum()
    )


# ---- networks ----------------------------------------------------------------------------------------------------------


def test_inputs_are_inner_products_with_weight_functions():
    """``<w, x>`` by the trapezoidal rule, and by that of SciPy, is ``u . z``."""
    for covariance in (fd.PowerLaw(2.0), fd.Matern(0.2), fd.PowerLaw(1.0, basis=fd.PrincipalComponents())):
        network = mfld.FunctionalNetwork(T, covariance, n_modes=7, curves=CURVES)
        particles = network.initial_particles(20, 3, "float64")
        w = network.weight_functions(particles)
        expected = integrate.trapezoid(CURVES[:, np.newaxis, :] * w, T, axis=2)
        assert_allclose(network.inputs(CURVES) @ particles[:, :7].T, expected, atol=1e-10)


def test_weight_functions_of_the_start_have_the_covariance():
    network = mfld.FunctionalNetwork(T, fd.Matern(0.4, scale=1.5), n_modes=30)
    w = network.weight_functions(network.initial_particles(40_000, 0, "float64"), T[::50])
    expected = fd.Matern(0.4, scale=1.5).between(T[::50], T[::50])
    assert_allclose(np.cov(w.T), expected, atol=5 * 2.25 * np.sqrt(2 / 40_000))


@pytest.mark.parametrize(("rule", "order"), [("trapezoid", 2), ("simpson", 4)])
@pytest.mark.parametrize("covariance", [fd.PowerLaw(2.0), fd.RBF(0.3)], ids=str)
def test_predictions_on_another_grid_converge_with_the_order_of_the_rule(rule, order, covariance):
    network = mfld.FunctionalNetwork(fd.Grid(T, "simpson"), covariance, n_modes=6)
    particles = network.initial_particles(30, 1, "float64")

    def predicted(n, spread=0.0):
        points = np.linspace(0, 1, n)
        points = points + spread * points * (1 - points)
        curves = np.stack([np.exp(np.sin(3 * points)), 1 / (1 + points)])
        return network.predict_curves(particles, curves, fd.Grid(points, rule))

    exact = predicted(3201)
    for spread in (0.0, 0.3):
        errors = [np.abs(predicted(n, spread) - exact).max() for n in (51, 101, 201)]
        assert np.diff(np.log2(errors)) == pytest.approx([-order, -order], abs=0.35)


def test_modes_of_ones_own_and_underflow():
    ours = mfld.FunctionalNetwork(T, NETWORK.modes, activation="relu")
    assert ours.inputs(CURVES).tobytes() == NETWORK.inputs(CURVES).tobytes()
    with np.errstate(all="raise"):
        narrow = mfld.FunctionalNetwork(T, fd.RBF(0.01), n_modes=40)
        assert narrow.weight_functions(narrow.initial_particles(3)).shape == (3, 201)
        assert narrow.inputs(1e-300 * CURVES).shape == (60, 40)


def test_curves_of_scikit_fda_come_with_their_grid():
    network = mfld.FunctionalNetwork(T, fd.PowerLaw(2.0), n_modes=5)
    data = types.SimpleNamespace(data_matrix=CURVES[:, :, np.newaxis], grid_points=(T,))
    assert network.inputs(data).tobytes() == network.inputs(CURVES).tobytes()
    half = types.SimpleNamespace(data_matrix=CURVES[:, ::2, np.newaxis], grid_points=(T[::2],))
    assert network.inputs(half).tobytes() == network.inputs(CURVES[:, ::2], T[::2]).tobytes()
    surface = types.SimpleNamespace(data_matrix=np.ones((2, 3, 3, 1)), grid_points=(T[:3], T[:3]))
    with pytest.raises(ValueError, match="curves must be of one variable with values of one"):
        network.inputs(surface)


def test_graphs_by_their_gram_matrix():
    """Trees against cycles with chords, by the histograms of Weisfeiler-Lehman colours."""
    rng = np.random.default_rng(0)
    graphs, labels = [], []
    for i in range(80):
        n = int(rng.integers(8, 14))
        graph = networkx.random_labeled_tree(n, seed=i) if i % 2 else networkx.cycle_graph(n)
        if i % 2 == 0:
            graph.add_edges_from(rng.integers(0, n, size=(2, 2)).tolist())
        networkx.set_node_attributes(graph, dict(graph.degree), "degree")
        graphs.append(graph)
        labels.append(1.0 if i % 2 else -1.0)
    colours = [networkx.weisfeiler_lehman_subgraph_hashes(graph, node_attr="degree", iterations=2) for graph in graphs]
    counts = [np.unique([c for node in each.values() for c in node], return_counts=True) for each in colours]
    names = np.unique(np.concatenate([found for found, _ in counts]))
    features = np.zeros((80, len(names)))
    for i, (found, number) in enumerate(counts):
        features[i, np.searchsorted(names, found)] = number
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    kernel, labels = features @ features.T, np.array(labels)
    train, test = np.arange(50), np.arange(50, 80)
    gram = kernel[np.ix_(train, train)]
    network = mfld.FunctionalNetwork(train, fd.PowerLaw(1.0, basis=fd.KernelComponents()), 20, curves=gram)
    z = network.inputs(kernel[:, train])
    assert_allclose(z[train] / network.modes.variances @ z[train].T, _best_of_rank(gram, 20), atol=1e-10)
    risk = mfld.EmpiricalRisk(network, z[train], labels[train], loss="logistic", l2=1e-3)
    solver = mfld.MFLD(100, temperature=1e-5, num_threads=1, dynamics=mfld.Overdamped(ridge="crank_nicolson"))
    result = solver.run(risk, 200, record_every=200)
    assert np.mean(np.sign(result.predict(z[test])) == labels[test]) >= 0.9
    with pytest.raises(ValueError, match="covariance must be one of functions, on another grid and for weights"):
        network.weight_functions(result.particles)


def _best_of_rank(matrix, n):
    left, sizes, right = np.linalg.svd(matrix)
    return left[:, :n] * sizes[:n] @ right[:n]


# ---- the range of numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2.0**-700, 2.0**-400, 2.0**700, 2.0**1000])
def test_curves_and_covariances_of_any_size(size):
    for whitened in (False, True):
        covariance = fd.PowerLaw(basis=fd.PrincipalComponents(whitened=whitened))
        expected = mfld.FunctionalNetwork(T, covariance, 4, curves=CURVES).modes.projection
        found = mfld.FunctionalNetwork(T, covariance, 4, curves=CURVES * size).modes.projection
        assert_allclose(
            found, expected / size if whitened else expected, rtol=1e-9, atol=1e-9 / size if whitened else 1e-9
        )
    matrix = np.minimum.outer(T, T)
    expected, found = (mfld.FunctionalNetwork(T, fd.Given(each), 4).modes for each in (matrix, matrix * size))
    assert_allclose(found.variances / size, expected.variances, rtol=1e-9)
    assert_allclose(found.projection, expected.projection, atol=1e-9)


@pytest.mark.parametrize("covariance", [fd.RBF(1e-300), fd.Matern(1e-300, 1.5), fd.Matern(1e-300, 2.5)], ids=str)
def test_values_at_points_far_apart_are_independent(covariance):
    assert_allclose(covariance.between(T, T), np.eye(201), rtol=0, atol=0)


def test_variances_below_the_range_of_numbers_are_left_out():
    with pytest.warns(UserWarning, match="n_modes must be at most 2"):
        modes = mfld.FunctionalNetwork(T, fd.PowerLaw(1000.0), 5).modes
    assert_allclose(modes.variances, [1.0, 2.0**-1000])
    assert modes.projection.shape == (201, 2)


def test_curves_at_midpoints_are_inside_the_interval():
    middles = (T[1:] + T[:-1]) / 2
    found = NETWORK.inputs([np.exp(middles)], fd.Grid(middles, np.full(200, 1 / 200)))
    assert_allclose(found, NETWORK.inputs([np.exp(T)]), atol=1e-4)


def test_modes_are_read_only():
    for values in (NETWORK.modes.variances, NETWORK.modes.projection):
        with pytest.raises(ValueError, match="read-only"):
            values[:] = 0


# ---- misuse ------------------------------------------------------------------------------------------------------------

NETWORK = mfld.FunctionalNetwork(T, fd.PowerLaw(2.0), n_modes=5)
ASYMMETRIC = np.eye(201) + np.eye(201, k=1)
INDEFINITE = np.diag(np.r_[-1.0, np.ones(200)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fd.Grid([0.0, 1.0, 1.0]), "points must increase, got 1.0 after 1.0 at index 2"),
        (lambda: fd.Grid([-1e308, 0.0, 1e308]), "points must span a finite length, got -1e+308 to 1e+308"),
        (lambda: mfld.FunctionalNetwork([-1e308, 1e308], fd.RBF(1.0)), "grid must span a finite length"),
        (lambda: fd.Grid([0.0, 1.0], [1e308, 1e308]), "weights must be in the range of numbers, got 1e+308 to a sum of inf"),
        (lambda: fd.Grid([0.0, 1.0], [1.0, 1e-320]), "weights must be in the range of numbers, got 9.99989e-321 to a sum"),
        (lambda: fd.PowerLaw(2.0, scale=1e200), "scale must be from 1e-150 to 1e150, the root of a variance, got 1e+200"),
        (lambda: fd.RBF(1.0, scale=1e-200), "scale must be from 1e-150 to 1e150, the root of a variance, got 1e-200"),
        (lambda: fd.Modes(np.array([1.0, 0.0]), np.eye(2), None, 0.0), "variances must be positive, got 0.0 at index 1"),
        (lambda: fd.Modes(np.array([1.0]), np.eye(2), None, 0.0), "projection must have shape (T, 1)"),
        (lambda: fd.Modes(np.array([1.0]), np.array([[np.nan]]), None, 0.0), "projection must be finite, got nan"),
        (lambda: fd.Modes(np.array([1.0]), np.eye(1), None, -1.0), "discarded must be finite and at least 0, got -1.0"),
        (lambda: NETWORK.inputs(CURVES, T + 5), "points must reach from 0 to 1 as the grid of the network does, got 5 to 6"),
        (lambda: NETWORK.inputs(CURVES[:, :101], T[:101]), "points must reach from 0 to 1 as the grid of the network does"),
        (lambda: NETWORK.inputs(CURVES, 10 * T), "points must reach from 0 to 1 as the grid of the network does, got 0 to 10"),
        (lambda: fd.Grid(T, T[:-1]), "weights must have shape (201,) to match points, got (200,)"),
        (lambda: fd.Grid(T, -T), "weights must be positive, got -0.0 at index 0"),
        (lambda: fd.Grid([0.0, 1.0, 1.001], "simpson"), "weights must not be 'simpson' on this grid"),
        (lambda: mfld.FunctionalNetwork(T, fd.Given(ASYMMETRIC)), "covariance must be symmetric, got 1 at (0, 1) and 0"),
        (lambda: mfld.FunctionalNetwork(T, fd.Given(INDEFINITE)), "covariance must be positive, got a matrix with eig"),
        (lambda: mfld.FunctionalNetwork(T, fd.Given(np.subtract)), "covariance must be symmetric, got"),
        (lambda: mfld.FunctionalNetwork(T, fd.Given(np.eye(9))), "covariance must have shape (201, 201) to match the"),
        (lambda: mfld.FunctionalNetwork(T, fd.Given(lambda s, t: s)), "the result of covariance must have shape (201, 201)"),
        (lambda: mfld.FunctionalNetwork(T, fd.PowerLaw(1.0)), "exponent must be above 1 with basis=Fourier"),
        (lambda: mfld.FunctionalNetwork(T, fd.PowerLaw(basis=fd.PrincipalComponents())), "curves must be given for a basis"),
        (
            lambda: mfld.FunctionalNetwork(T, fd.PowerLaw(basis=fd.PrincipalComponents()), curves=np.ones((3, 201))),
            "curves must differ for a basis of PrincipalComponents, got 3 equal ones",
        ),
        (
            lambda: mfld.FunctionalNetwork(T, fd.PowerLaw(basis=fd.KernelComponents()), curves=CURVES),
            "curves must be a Gram matrix, shape (201, 201), got (60, 201)",
        ),
        (lambda: mfld.FunctionalNetwork(T[1:], NETWORK.modes), "covariance.projection must have shape (200, 5)"),
        (lambda: fd.Matern(1.0, smoothness=1.0), "smoothness must be 0.5, 1.5 or 2.5, got 1.0"),
        (lambda: NETWORK.inputs(np.where(CURVES[3, 7] == CURVES, np.nan, CURVES)), "curves must have no NaN, got 1 of them, first at (curve, point) (3, 7)"),
        (lambda: NETWORK.inputs([[0.0] * 201, [0.0] * 200]), "curves must have one length, got lengths from 200 to 201"),
        (lambda: NETWORK.inputs(CURVES[:, 1:]), "curves must have shape (n, 201) with n at least 1 (number, points of the grid)"),
        (lambda: NETWORK.inputs(CURVES, T[1:]), "curves must have shape (n, 200)"),
        (lambda: fd.SemiImplicit([1.0, 0.0]), "variances must be positive, got 0.0"),
        (lambda: fd.derivative([[1.0, 2.0]], [0.0, 1.0]), "grid must have more points than the degree, 5, got 2"),
    ],
)  # fmt: skip
def test_misuse(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("covariance", "n_modes", "most"),
    [(fd.PowerLaw(2.0), 300, 201), (fd.RBF(0.5), 64, None), (fd.PowerLaw(basis=fd.PrincipalComponents()), 20, 8)],
    ids=str,
)
def test_more_modes_than_there_are_is_a_warning(covariance, n_modes, most):
    with pytest.warns(UserWarning, match=rf"n_modes must be at most {most or ''}.*got {n_modes}: .* are taken"):
        network = mfld.FunctionalNetwork(T, covariance, n_modes, curves=CURVES)
    assert network.n_features == len(network.modes) < n_modes
    assert most is None or network.n_features == most
