"""Information Gamma criterion for matrices that depend on the point: closed forms, and changes of coordinates."""

import numpy as np
import pytest
import scipy.linalg

import mfld
from mfld import theory

T = 0.7
LINE = np.linspace(-4, 4, 41)[:, np.newaxis]
TAILS = mfld.Potential(lambda x: 4 * x / (1 + x**2), n_coordinates=1)  # 2 log(1 + x**2)


def spread(x):
    return 1 + x[:, :, None] ** 2


def in_new_coordinates(step=1e-4):
    """With dy = dx / sqrt(1 + x**2) the diffusion is 1 and the potential H - T / 2 log(1 + x**2): its first derivative
    in y, and the derivative of anything else in y."""

    def root(x):
        return np.sqrt(1 + x**2)

    def slope(x):
        return root(x) * (4 * x / (1 + x**2) - T * x / (1 + x**2))

    return slope, lambda f: lambda x: root(x) * (f(x + step) - f(x - step)) / (2 * step)


def test_bakry_emery_on_a_line_with_a_metric():
    slope, derivative = in_new_coordinates()
    found = theory.contraction(mfld.General(spread), TAILS, LINE, temperature=T, metric=spread)
    np.testing.assert_allclose(found.eigenvalues, derivative(slope)(LINE[:, 0]), atol=1e-6)
    assert found.metric.shape == (41, 1, 1)
    assert found.worst in (0, 40)


def test_a_constant_metric_on_a_line():
    """With ``q = P / D``, ``kappa = U'' + (U' q' - T q'') / 2q`` in y: by d/dt of ``integral rho q psi'**2``."""
    slope, derivative = in_new_coordinates()
    x = LINE[:, 0]

    def q(x):
        return 3 / (1 + x**2)

    first, second = derivative(q)(x), derivative(derivative(q))(x)
    expected = derivative(slope)(x) + (slope(x) * first - T * second) / (2 * q(x))
    found = theory.contraction(mfld.General(spread), TAILS, LINE, temperature=T, metric=[[3.0]])
    np.testing.assert_allclose(found.eigenvalues, expected, atol=1e-5)

    def of_function(x):
        return np.full((len(x), 1, 1), 3.0)

    also = theory.contraction(mfld.General(spread), TAILS, LINE, temperature=T, metric=of_function)
    np.testing.assert_allclose(also.eigenvalues, found.eigenvalues, atol=1e-6)


def test_the_default_is_the_better_of_both_and_never_above_the_gap():
    found = theory.contraction(mfld.General(spread), TAILS, LINE, temperature=T)
    by_metric = [
        theory.contraction(mfld.General(spread), TAILS, LINE, temperature=T, metric=metric).rate
        for metric in (spread, [[1.0]])
    ]
    assert found.rate == pytest.approx(max(by_metric))
    assert found.rate > 0
    x = np.linspace(-4, 4, 801)  # on which the diffusion is kept, by faces that nothing crosses
    density = (1 + x**2) ** (-2 / T)
    middle = (x[1:] + x[:-1]) / 2
    faces = T * (1 + middle**2) * (1 + middle**2) ** (-2 / T) / (x[1] - x[0]) ** 2
    stiffness = np.diag(np.append(faces, 0) + np.insert(faces, 0, 0)) - np.diag(faces, 1) - np.diag(faces, -1)
    gap = scipy.linalg.eigh(stiffness, np.diag(density), eigvals_only=True, subset_by_index=[0, 1])[1]
    assert found.rate < gap


HESSIAN = np.array([[2.0, 0.4], [0.4, 1.0]])
DIFFUSION, SKEW = np.array([[1.0, 0.3], [0.3, 0.5]]), np.array([[0.0, 1.0], [-1.0, 0.0]])
METRIC = np.array([[1.0, -0.2], [-0.2, 0.8]])


def jacobian(x):
    """Of ``y = (x_0 + 0.3 sin x_1, x_1 + 0.2 sin 2 x_0)``."""
    j = np.ones((len(x), 2, 2))
    j[:, 0, 1], j[:, 1, 0] = 0.3 * np.cos(x[:, 1]), 0.4 * np.cos(2 * x[:, 0])
    return j


def bent_gradient(x):
    """Of ``y' S y / 2 - T log det dy/dx``, whose Gibbs law is that of a Gaussian in y."""
    y = np.stack([x[:, 0] + 0.3 * np.sin(x[:, 1]), x[:, 1] + 0.2 * np.sin(2 * x[:, 0])], axis=1)
    det = 1 - 0.12 * np.cos(x[:, 1]) * np.cos(2 * x[:, 0])
    slopes = [0.24 * np.cos(x[:, 1]) * np.sin(2 * x[:, 0]), 0.12 * np.sin(x[:, 1]) * np.cos(2 * x[:, 0])]
    return np.einsum("nij,ni->nj", jacobian(x), y @ HESSIAN) - T * np.stack(slopes, axis=1) / det[:, None]


BENT = mfld.Potential(bent_gradient, n_coordinates=2)


def bent(matrix):
    def field(x):
        inverse = np.linalg.inv(jacobian(x))
        return inverse @ matrix @ np.swapaxes(inverse, 1, 2)

    return field


@pytest.mark.parametrize("diffusion", [DIFFUSION, np.diag([1.0, 0.0])], ids=["full", "degenerate"])
@pytest.mark.parametrize("metric", [METRIC, DIFFUSION], ids=["another", "the diffusion"])
def test_linear_dynamics_in_bent_coordinates_contract_as_in_straight_ones(rng, diffusion, metric):
    well = mfld.potentials.Gaussian([0.0, 0.0], np.linalg.inv(HESSIAN))
    straight = theory.contraction(mfld.General(diffusion, SKEW), well, [[0.0, 0.0]], metric=metric)
    dynamics = mfld.General(bent(diffusion), bent(SKEW))
    points = 1.5 * rng.normal(size=(30, 2))
    found = theory.contraction(dynamics, BENT, points, temperature=T, metric=bent(metric))
    np.testing.assert_allclose(found.eigenvalues, straight.rate, atol=2e-6)


def test_functions_that_are_constant(rng):
    well = mfld.potentials.Gaussian([0.0, 0.0], np.linalg.inv(HESSIAN))
    points = rng.normal(size=(3, 2))
    constant = theory.contraction(mfld.General(DIFFUSION, SKEW), well, points)
    dynamics = mfld.General(DIFFUSION, lambda x: np.broadcast_to(SKEW, (len(x), 2, 2)))
    found = theory.contraction(dynamics, well, points, temperature=T)
    np.testing.assert_allclose(found.eigenvalues, constant.eigenvalues, atol=1e-6)
    assert found.relaxation == pytest.approx(constant.relaxation)
    by_directions = [
        theory.contraction(each, well, points, temperature=T, directions=[[1.0, 0.5]])
        for each in (mfld.General(DIFFUSION, SKEW), dynamics)
    ]
    np.testing.assert_allclose(by_directions[1].eigenvalues, by_directions[0].eigenvalues, atol=1e-6)


def test_fisher_information_in_a_metric_of_points():
    solver = mfld.MFLD(1000, step_size=0.1, temperature=1.0, dtype="float64")
    well = mfld.potentials.Gaussian([0.0])
    state = solver.init(well, particles=3 + solver.init(well).particles)

    def double(x):
        return np.full((len(x), 1, 1), 2.0)

    assert theory.fisher(well, state, 1.0, double) == pytest.approx(2 * theory.fisher(well, state, 1.0, [[1.0]]))
    with pytest.raises(ValueError, match="metric must be positive definite"):
        theory.fisher(well, state, 1.0, [[-1.0]])


def test_what_is_refused(rng):
    dynamics, points = mfld.General(bent(DIFFUSION), bent(SKEW)), rng.normal(size=(4, 2))
    with pytest.raises(ValueError, match="temperature must be given"):
        theory.contraction(dynamics, BENT, points)
    with pytest.raises(ValueError, match="temperature must be finite and positive"):
        theory.contraction(dynamics, BENT, points, temperature=0.0)
    with pytest.raises(ValueError, match=r"the result of metric must have shape \(4, 2, 2\)"):
        theory.contraction(dynamics, BENT, points, temperature=T, metric=lambda x: x)
    with pytest.raises(ValueError, match=r"metric must be positive definite.*at point 0"):
        theory.contraction(dynamics, BENT, points, temperature=T, metric=bent(-DIFFUSION))
    with pytest.raises(ValueError, match="diffusion must be positive semidefinite"):
        theory.contraction(mfld.General(bent(-DIFFUSION)), BENT, points, temperature=T)
    with pytest.raises(ValueError, match="dynamics must have finite matrices at the points"):
        theory.contraction(mfld.General(bent(np.nan * DIFFUSION)), BENT, points, temperature=T)
    single = mfld.General(lambda x: spread(x).astype(np.float32))
    with pytest.raises(TypeError, match="the result of diffusion must be float64"):
        theory.contraction(single, TAILS, LINE, temperature=T)
    with pytest.raises(ValueError, match="metric must be a constant for dynamics with velocities"):
        theory.contraction(mfld.Underdamped(1.0), BENT, points, temperature=T, metric=bent(DIFFUSION))
    broken = mfld.Potential(lambda x: np.where(x > 0, x, np.nan), n_coordinates=1)
    with pytest.raises(ValueError, match=r"points must lie where the gradient of objective is finite.*point 1"):
        theory.contraction(mfld.Overdamped(), broken, [[1.0], [-1.0]])
    sphere = mfld.Potential(lambda x: x, space=mfld.Space(domain=[mfld.Sphere(2)]))
    with pytest.raises(ValueError, match="objective must be on Euclidean space"):
        theory.contraction(mfld.Overdamped(), sphere, [[1.0, 0.0]])


@pytest.mark.parametrize("far", [0.0, 1e3, 1e6])
def test_places_far_from_the_origin(far):
    points = np.linspace(0.5, 2, 7)[:, np.newaxis]
    cubic = mfld.Potential(lambda x: (x - far) ** 3, n_coordinates=1)
    found = theory.contraction(mfld.Overdamped(), cubic, far + points).eigenvalues
    np.testing.assert_allclose(found, 3 * points[:, 0] ** 2, rtol=1e-5)
    waves = mfld.General(lambda x: 2 + np.sin(x[:, :, None] - far))
    near = mfld.General(lambda x: 2 + np.sin(x[:, :, None]))
    moved = theory.contraction(waves, mfld.potentials.Gaussian([far]), far + points, temperature=T).eigenvalues
    expected = theory.contraction(near, mfld.potentials.Gaussian([0.0]), points, temperature=T).eigenvalues
    np.testing.assert_allclose(moved, expected, atol=1e-3)
