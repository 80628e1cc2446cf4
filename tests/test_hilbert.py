"""Dynamics and algorithms in a Hilbert space: laws in closed form, and the same at every number of modes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld
from mfld import functional_data as fd
from mfld import noise

T = np.linspace(0, 1, 101)
PCN = mfld.Overdamped(ridge="crank_nicolson")


def curves(n, grid=T, seed=0):
    """Smooth random functions that are the same on every grid."""
    a = np.random.default_rng(seed).normal(size=(n, 6)) / np.arange(1, 7)
    return a @ [np.cos(j * np.pi * grid + j**2) for j in range(6)]


def flat(n_coordinates, temperature=1.0):
    return mfld.Potential(lambda x: 0 * x, n_coordinates=n_coordinates, l2=temperature / 2)


# ---- the law of each mode without a gradient -------------------------------------------------------------------------


@pytest.mark.parametrize("step_size", [1e-3, 0.3, 2.0, 100.0])
@pytest.mark.parametrize("n_modes", [16, 1024])
def test_pcn_leaves_the_reference_at_every_step_size_and_number_of_modes(step_size, n_modes):
    """The map of variances, v -> (1 - c)**2 v + s**2, has the fixed point temperature / (2 l2) to the last bits."""
    temperature = 0.3
    c, _, s = PCN.coefficients(step_size, temperature, temperature / 2)
    assert s**2 / (1 - (1 - c) ** 2) == pytest.approx(1.0, rel=1e-12)
    drawn = noise.normals(0, 0, 300, n_modes, dtype="float64", stream="data")
    solver = mfld.MFLD(300, step_size=step_size, temperature=temperature, dynamics=PCN, dtype="float64")
    moved = solver.run(flat(n_modes, temperature), 5, particles=drawn).particles
    assert abs(np.mean(moved**2) - 1) < 5 * np.sqrt(2 / moved.size)
    if step_size >= 0.3:  # and the last modes are as wide as the first
        edge = moved[:, -8:]
        assert abs(np.mean(edge**2) - 1) < 5 * np.sqrt(2 / edge.size)


@pytest.mark.parametrize(
    ("dynamics", "expected"),
    [
        (lambda s: PCN, lambda s, h: s),
        (lambda s: mfld.Overdamped(ridge="exact"), lambda s, h: s),
        (lambda s: mfld.Overdamped(), lambda s, h: s / (1 - h / 2)),
        (lambda s: mfld.Overdamped(ridge="implicit"), lambda s, h: s / (1 + h / 2)),
        (fd.SemiImplicit, lambda s, h: s / (1 + h / (2 * s))),
    ],
    ids=["pcn", "exact", "explicit", "implicit", "semi-implicit"],
)
def test_stationary_variances_mode_by_mode(dynamics, expected):
    """At temperature 1, l2 1/2, step 0.4: no bias, a bias that is the same for all modes, and lost modes."""
    s, h = np.arange(1.0, 6) ** -2, 0.4
    solver = mfld.MFLD(40_000, step_size=h, temperature=1.0, dynamics=dynamics(s), dtype="float64")
    u = solver.run(flat(5), 40, particles=np.zeros((40_000, 5))).particles
    assert_allclose(s * u.var(axis=0), expected(s, h), rtol=5 * np.sqrt(2 / 40_000))


def test_the_semi_implicit_scheme_loses_the_trace_that_the_theory_says():
    """12 % for s_j = 1 / j**2, step 0.1 and 5 modes."""
    s = np.arange(1.0, 6) ** -2
    solver = mfld.MFLD(40_000, step_size=0.1, temperature=1.0, dynamics=fd.SemiImplicit(s), dtype="float64")
    u = solver.run(flat(5), 100, particles=np.zeros((40_000, 5))).particles
    assert 1 - np.sum(s * u.var(axis=0)) / s.sum() == pytest.approx(0.12, abs=0.015)


# ---- steps in w are those in u ---------------------------------------------------------------------------------------


def problem(n_modes=12, temperature=0.05):
    network = mfld.FunctionalNetwork(T, fd.Matern(0.3), n_modes, activation="tanh", readout="fixed", bias=False)
    x = curves(9)
    risk = mfld.EmpiricalRisk(
        network, network.inputs(x), np.sin(x.sum(axis=1)), loss="half_squared", l2=temperature / 2
    )
    return network, risk, x


def gradient_in_w(network, x, targets, w):
    """Of the first variation in the coordinates ``w_j = <w, phi_j>``, by hand: no whitening, no library."""
    along = x @ network.modes.projection  # <phi_j, x>
    value = np.tanh(along @ w.T)
    error = value.mean(axis=1) - targets
    return np.einsum("n,nm,nk->mk", error, 1 - value**2, along) / len(x)


@pytest.mark.parametrize("name", ["pcn", "preconditioned", "semi-implicit"])
def test_one_step_is_the_formula_of_the_literature(name):
    network, risk, x = problem()
    s, temperature, h = network.modes.variances, risk.l2 * 2, 0.7
    u = network.initial_particles(6, 4, "float64")
    w = u * np.sqrt(s)
    slope = gradient_in_w(network, x, risk.targets[:, 0], w) / temperature  # of Phi
    xi = noise.normals(3, 0, 6, 12, dtype="float64", stream="move")
    eta = temperature * h  # in the time of Phi
    if name == "pcn":
        dynamics, delta = PCN, eta
        expected = ((2 - delta) * w - 2 * delta * s * slope + np.sqrt(8 * delta * s) * xi) / (2 + delta)
    elif name == "preconditioned":
        dynamics = mfld.Overdamped()
        expected = (1 - eta) * w - eta * s * slope + np.sqrt(2 * eta * s) * xi
    else:
        dynamics = fd.SemiImplicit(s)
        expected = (w - eta * slope + np.sqrt(2 * eta) * xi) / (1 + eta / s)
    solver = mfld.MFLD(6, step_size=h, temperature=temperature, dynamics=dynamics, dtype="float64")
    found = solver.run(risk, 1, 3, particles=u).particles
    assert_allclose(found * np.sqrt(s), expected, atol=1e-12)


def test_mala_proposes_by_pcn():
    """``d = 2 tanh(l2 step)`` makes Crank-Nicolson's coefficients those of the exact flow."""
    for l2 in (0.01, 0.5):
        for step_size in (0.01, 1.0, 30.0):
            exact = mfld.Overdamped(ridge="exact").coefficients(step_size, 0.7, l2)
            same = PCN.coefficients(np.tanh(l2 * step_size) / l2, 0.7, l2)
            assert_allclose(exact, same, rtol=1e-12)


# ---- the linear-quadratic problem ------------------------------------------------------------------------------------


def test_the_linear_quadratic_problem_on_the_space_is_kernel_ridge_regression():
    """The minimiser of (1/2n) sum (<E w, x_i> - y_i)**2 + t KL(mu | N(0, C)).

    Its first variation is linear in w, so it is N(m, C); KL is |C^(-1/2) m|**2 / 2, and with m = C sum a_i x_i it is
    a'Ka / 2 for K_ij = <x_i, C x_j>. Hence a = (K + n t)^-1 y, predictions K a and the value t y'a / 2, with K by
    quadrature of the covariance itself.
    """
    grid, covariance, temperature, n = fd.Grid(T, "simpson"), fd.Matern(0.4), 0.02, 12
    x = curves(n, seed=3)
    y = np.sin(2 * x[:, 30]) + 0.3
    weighted = x * grid.weights
    kernel = weighted @ covariance.between(T, T) @ weighted.T
    a = np.linalg.solve(kernel + n * temperature * np.eye(n), y)

    network = mfld.FunctionalNetwork(grid, covariance, 40, activation="identity", readout="fixed", bias=False)
    risk = mfld.EmpiricalRisk(network, network.inputs(x), y, loss="half_squared", l2=temperature / 2)
    n_particles = 20_000
    solver = mfld.MFLD(n_particles, step_size=1.0, temperature=temperature, dynamics=PCN, dtype="float64")
    result = solver.run(risk, 300, 1, record_every=300)
    noise_of_mean = np.sqrt(np.diag(kernel).max() / n_particles)
    assert_allclose(result.predict(risk.inputs), kernel @ a, atol=5 * noise_of_mean)
    w = network.weight_functions(result.particles, T[::25])
    mean = covariance.between(T[::25], T) @ (a @ weighted)
    assert_allclose(w.mean(axis=0), mean, atol=5 / np.sqrt(n_particles))
    assert_allclose(np.cov(w.T), covariance.between(T[::25], T[::25]), atol=5 * np.sqrt(2 / n_particles))
    u = result.particles
    value = risk.loss(result.measure) + temperature / 2 * np.sum(u.mean(axis=0) ** 2)
    assert value == pytest.approx(temperature / 2 * y @ a, rel=0.05)
    # The optimality condition that a certificate measures: KL(N(m, C) | Gibbs law of m) is 0 at the minimiser.
    slope = risk.loss_gradient(u)[0] / temperature
    assert np.sum((u.mean(axis=0) + slope) ** 2) / 2 < 5 * 40 / n_particles


# ---- stable under refinement -----------------------------------------------------------------------------------------

SIZES = (16, 64, 256, 1024)
FINE = np.linspace(0, 1, 1025)


def refined(n_modes, temperature=1e-2):
    network = mfld.FunctionalNetwork(FINE, fd.PowerLaw(2.0), n_modes, readout="bounded", readout_bound=3.0)
    x = curves(12, FINE)
    y = np.tanh(2 * x[:, 300]) - x.mean(axis=1)
    return network, mfld.EmpiricalRisk(network, network.inputs(x), y, loss="half_squared", l2=temperature / 2)


def test_step_size_predictions_and_acceptance_are_those_of_the_space():
    step_sizes, predictions, acceptance = [], [], []
    for n_modes in SIZES:
        network, risk = refined(n_modes)
        solver = mfld.MFLD(1000, temperature=1e-2, dynamics=PCN, num_threads=1)
        result = solver.run(risk, 60, record_every=60)
        step_sizes.append(result.info.step_size)
        predictions.append(network.predict_curves(result.measure, curves(30, FINE, seed=9)))
        frozen = risk.first_variation(result.measure)
        mala = mfld.MFLD(500, step_size=20.0, temperature=1e-2, dynamics=mfld.MALA(), num_threads=1)
        chain = mala.run(frozen, 8, particles=result.particles[:500])
        acceptance.append(np.mean(chain.history["acceptance"]))
    assert np.ptp(step_sizes) < 0.15 * np.mean(step_sizes)
    assert min(acceptance) > 0.3
    assert np.ptp(acceptance) < 0.05
    assert max(acceptance) < 0.98
    # Two clouds of 1000 neurons of size 3 tanh(r) at most differ by about 2 / sqrt(1000).
    apart = [np.sqrt(np.mean((each - predictions[-1]) ** 2)) for each in predictions[:-1]]
    assert max(apart) < 0.12


def test_a_proposal_in_w_collapses_where_that_of_the_space_does_not():
    """Draws of N(0, I) move by pCN with probability 1; where the ridge is in the gradient, less and less with K."""
    rates = []
    for n_modes in (16, 1024):
        mala = mfld.MFLD(200, step_size=0.5, temperature=1.0, dynamics=mfld.MALA())
        potential = mfld.Potential(lambda x: 0 * x, lambda x: 0 * x[:, 0], n_coordinates=n_modes, l2=0.5)
        assert mala.run(potential, 3).history["acceptance"] == pytest.approx(np.ones(3), abs=1e-5)
        steep = mfld.Potential(lambda x: x, lambda x: np.sum(x**2, axis=1) / 2, n_coordinates=n_modes)
        start = noise.normals(0, 0, 200, n_modes, dtype="float32", stream="data")
        rate = mala.run(steep, 3, particles=start).history["acceptance"].mean()
        rates.append(rate)
    assert rates[0] > rates[1] + 0.3


# ---- the whole library -----------------------------------------------------------------------------------------------


def bounded(temperature=0.02, **arguments):
    network = mfld.FunctionalNetwork(T, fd.PowerLaw(2.0), 24, activation="tanh", readout="bounded", readout_bound=2.0)
    x = curves(40)
    targets = np.where(x[:, 20] > x[:, 80], 1.0, -1.0)
    risk = mfld.EmpiricalRisk(network, network.inputs(x), targets, loss="logistic", l2=temperature / 2, **arguments)
    plain = mfld.EmpiricalRisk(network.network, risk.inputs, targets, loss="logistic", l2=temperature / 2)
    return network, risk, plain


@pytest.mark.parametrize(
    "solver",
    [
        mfld.MFLD(60, step_size=0.5, temperature=0.02, dynamics=PCN),
        mfld.MFLD(60, step_size=0.5, temperature=0.02, dynamics=PCN, gradient=mfld.SVRG(10)),
        mfld.MFLD(60, step_size=0.5, temperature=0.02, gradient=mfld.PerParticleMinibatch(10)),
        mfld.PDA(60, step_size=0.5, temperature=0.02, inner_steps=5, dynamics=PCN),
        mfld.PSDCA(60, temperature=0.02),
    ],
    ids=["mfld", "svrg", "per-particle", "pda", "psdca"],
)
def test_runs_are_those_of_the_finite_network_bit_for_bit(solver):
    """On its coordinates, from the same particles, with all parts inside of the core."""
    network, risk, plain = bounded()
    assert risk.native(np.dtype("float32")) is not None
    start = {"particles": network.initial_particles(60, 5)} if solver.starts_anywhere else {}
    ours, theirs = (solver.run(each, 12, 7, **start) for each in (risk, plain))
    assert ours.particles.tobytes() == theirs.particles.tobytes()


def test_the_gap_of_dual_ascent_closes():
    _, risk, _ = bounded(temperature=0.05)
    gaps = []
    for epochs in (1, 6):
        result = mfld.PSDCA(2000, temperature=0.05).run(risk, epochs, 3)
        gaps.append(result.certificate())
    assert gaps[0].gap > 2 * gaps[1].gap > 0
    assert gaps[1].upper < 2e-3


def test_checkpoints_replicates_and_quantities(tmp_path):
    network, risk, _ = bounded()
    solver = mfld.MFLD(40, step_size=0.5, temperature=0.02, dynamics=PCN, n_replicates=3)
    whole = solver.run(risk, 20, 2)
    path = tmp_path / "run.npz"
    mfld.checkpoint.run(solver, risk, 10, 2, path=path)
    again = mfld.FunctionalNetwork(T, fd.PowerLaw(2.0), 24, activation="tanh", readout="bounded", readout_bound=2.0)
    same = mfld.EmpiricalRisk(again, risk.inputs, risk.targets[:, 0], loss="logistic", l2=risk.l2)
    resumed = mfld.checkpoint.run(solver, same, 20, 2, path=path, resume=True)
    assert resumed.state.clouds["mu"].particles.tobytes() == whole.state.clouds["mu"].particles.tobytes()
    other = mfld.FunctionalNetwork(T, fd.PowerLaw(3.0), 24, activation="tanh", readout="bounded", readout_bound=2.0)
    another = mfld.EmpiricalRisk(other, risk.inputs, risk.targets[:, 0], loss="logistic", l2=risk.l2)
    with pytest.raises(ValueError, match=r"objective\.model was FunctionalNetwork"):
        mfld.checkpoint.run(solver, another, 30, 2, path=path, resume=True)
    assert network.predict(whole.state.clouds["mu"].particles[0], risk.inputs).shape == (40,)
