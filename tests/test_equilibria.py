"""Equilibria: closed forms, grids and published ones; who circles; the certificate and its bound."""

import functools
import math
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import linalg

import mfld
from mfld import checkpoint, payoffs


def quadratic(kappa=2.0, tilt=1.0, l2=0.5, space=1):
    """``tilt x + kappa x y`` in ridges."""
    return mfld.Bilinear(payoffs.Polynomial({(1, 1): kappa, (1, 0): tilt}), space=space, l2=l2)


def means(state):
    return np.array([cloud.particles.mean(dtype=float) for cloud in state.clouds.values()])


# ---- quadratic games -------------------------------------------------------------------------------------------------

COUPLING = np.array([[1.0, -0.5], [0.3, 2.0]])
MATRIX_GAME = mfld.Bilinear(
    payoffs.Polynomial(
        {(1, 0, 1, 0): 1.0, (1, 0, 0, 1): -0.5, (0, 1, 1, 0): 0.3, (0, 1, 0, 1): 2.0, (1, 0, 0, 0): 1.0},
        n_coordinates=(2, 2),
    ),
    space=2,
    l2={"x": 0.5, "y": 1.0},
)
# Stationary: 2 l2_x x + K y + (1, 0) = 0 and 2 l2_y y = K' x.
MEAN_X = np.linalg.solve(np.eye(2) + COUPLING @ COUPLING.T / 2, [-1.0, 0.0])
MEAN_Y = COUPLING.T @ MEAN_X / 2
TEMPERATURES = {"x": 0.2, "y": 0.1}
STEP = 0.05


@functools.cache
def hiding_solution():
    """Grid, equilibrium there, and the gap that 400 draws of it reach."""
    grid = np.linspace(-5, 5, 301)
    laws = solved_on_grid(hiding, 0.05, (grid, grid), 0.05, (0.05 * grid**2, 0.05 * grid**2))
    named = dict(zip("xy", laws, strict=True))
    return grid, named, gap_of_draws(HIDING_GAME, named, grid, 0.05, 400)


@pytest.mark.parametrize(
    "solver",
    [
        mfld.DescentAscent(4000, step_size=STEP, temperature=TEMPERATURES),
        mfld.DescentAscent({"x": 4000, "y": 4500}, step_size=STEP, temperature=TEMPERATURES, alternating=True),
        mfld.AveragedGradient(4000, step_size=STEP, temperature=TEMPERATURES, forgetting=0.1),
        pytest.param(
            mfld.BestResponse(4000, step_size=STEP, temperature=TEMPERATURES, share=0.2, inner_steps=10),
            marks=pytest.mark.slow,
        ),
        mfld.DescentAscent(4000, step_size=0.2, temperature=TEMPERATURES, dynamics=mfld.Underdamped(4.0)),
    ],
    ids=["simultaneous", "alternating", "averaged", "best-response", "underdamped"],
)
def test_quadratic_game_has_its_gaussian_equilibrium(solver):
    state = solver.run(MATRIX_GAME, 200, seed=2).state
    curvature = {"x": 1.0, "y": 2.0}
    overdamped = solver.dynamics == mfld.Overdamped()
    for name, mean in (("x", MEAN_X), ("y", MEAN_Y)):
        points = state.clouds[name].particles[0].astype(float)
        # Euler-Maruyama's variance is temperature / (a (1 - a h / 2)), that of BAOAB on a quadratic is exact.
        variance = TEMPERATURES[name] / curvature[name] / (1 - curvature[name] * STEP / 2 * overdamped)
        error = math.sqrt(variance / len(points))
        assert_allclose(points.mean(axis=0), mean, atol=6 * error)  # means of coupled clouds, in about their own error
        assert_allclose(np.cov(points.T), variance * np.eye(2), atol=5 * variance * math.sqrt(2 / len(points)))
    if overdamped and not getattr(solver, "alternating", True):  # once: it takes as long as the run
        assert mfld.nikaido_isoda(MATRIX_GAME, state, TEMPERATURES).gap < 0.01


@pytest.mark.parametrize("alternating", [False, True])
def test_means_move_as_the_linear_recursion_and_diverge_beyond_its_limit(alternating):
    kappa, l2 = 3.0, 0.5
    limit = 2 / (2 * l2 + kappa) if alternating else 4 * l2 / (4 * l2**2 + kappa**2)
    start = {"x": [[1.0]], "y": [[0.5]]}
    game = quadratic(kappa, tilt=0.0, l2=l2)
    for share, grows in ((0.97, False), (1.03, True)):
        h = share * limit
        s, k = 1 - 2 * l2 * h, kappa * h
        step = np.array([[s, -k], [k * s, s - k * k]]) if alternating else np.array([[s, -k], [k, s]])
        solver = mfld.DescentAscent(1, step_size=h, temperature=0.0, alternating=alternating, dtype="float64")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            reached = means(solver.run(game, 300, particles=start).state)
        assert_allclose(reached, np.linalg.matrix_power(step, 300) @ [1.0, 0.5], rtol=1e-9)
        assert (np.abs(np.linalg.eigvals(step)).max() > 1) == grows


@pytest.mark.parametrize(("forgetting", "circles"), [(0.004, False), (0.08, True)])
def test_a_history_that_is_too_fast_circles(forgetting, circles):
    """Slow: 2 l2 (2 l2 + f)**2 > kappa**2 f with f = forgetting / step_size: here 1 + f in square above 9 f."""
    h, kappa = 0.05, 3.0
    f = forgetting / h
    system = np.array([[-1, 0, 0, -kappa], [0, -1, kappa, 0], [f, 0, -f, 0], [0, f, 0, -f]])
    grows = np.linalg.eigvals(system).real.max() > 0
    assert grows == circles == ((1 + f) ** 2 < kappa**2 * f)
    solver = mfld.AveragedGradient(500, step_size=h, temperature=0.01, forgetting=forgetting)
    start = {"x": np.full((500, 1), 1.0)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        reached = means(solver.run(quadratic(kappa, tilt=0.0), 1500, particles=start).state)
    assert (np.linalg.norm(reached) > 1) == circles  # where it started


# Means of underdamped players. By the scheme "middle" positions follow a heavy ball: with beta = exp(-friction h) and
# eta = h^2 (1 + beta) / 2,  x' = x + beta (x - x_before) - eta (a x + kappa y)  for x, and so for y; overdamped players
# are beta = 0. Simultaneous players are one complex number with the force w x, w = a - i kappa, and
#   s^2 - (1 + beta - eta w) s + beta = 0,
# whose roots lie within the circle (Schur, Cohn) for  (1 - eta a / (1 + beta))^2 + (eta kappa / (1 - beta))^2 < 1, that
# is  eta (a^2 + kappa^2 m^2) < 2 a (1 + beta),  m = (1 + beta) / (1 - beta) = coth(friction h / 2).


def heavy_ball(kappa, eta, beta, alternating=False, a=1.0):
    """Matrix of a step of (x, y, x before, y before)."""
    pull = eta * np.array([[a, kappa], [-kappa, a]])
    step = np.block([[(1 + beta) * np.eye(2) - pull, -beta * np.eye(2)], [np.eye(2), np.zeros((2, 2))]])
    if alternating:  # y sees where x has gone
        step[1] += eta * kappa * (step[0] - [1, 0, 0, 0])
    return step


def radius(matrix):
    return np.abs(np.linalg.eigvals(matrix)).max()


def moved_means(kappa, eta, beta, n_steps, alternating=False):
    """Means that players reach from (1, 0.5), by overdamped steps of eta or by underdamped ones of the same eta."""
    if beta == 0:
        h, dynamics = eta, mfld.Overdamped()
    else:
        h = math.sqrt(2 * eta / (1 + beta))
        dynamics = mfld.Underdamped(-math.log(beta) / h, "middle")
    solver = mfld.DescentAscent(
        1, step_size=h, temperature=0.0, dynamics=dynamics, dtype="float64", alternating=alternating
    )
    game = quadratic(kappa, tilt=0.0)
    state = solver.init(game, particles={"x": [[1.0]], "y": [[0.5]]})
    return means(solver.advance(game, state, n_steps)[0])


@pytest.mark.parametrize("alternating", [False, True])
@pytest.mark.parametrize(("kappa", "eta", "beta"), [(3.0, 0.1, 0.0), (3.0, 0.1, 0.4), (0.3, 1.5, 0.3), (1.0, 0.2, 0.9)])
def test_means_of_underdamped_players_are_those_of_a_heavy_ball(kappa, eta, beta, alternating):
    step = heavy_ball(kappa, eta, beta, alternating)
    expected = np.linalg.matrix_power(step, 40) @ [1.0, 0.5, 1.0, 0.5]
    assert_allclose(moved_means(kappa, eta, beta, 40, alternating), expected[:2], rtol=1e-9, atol=1e-12)


def test_limits_of_underdamped_players_are_those_of_the_formula():
    """Just within the limit the spectrum converges, just beyond it grows; by small steps for friction^2 a > kappa^2."""
    for kappa in (0.1, 1.0, 3.0):
        for beta in (0.05, 0.5, 0.95):
            m = (1 + beta) / (1 - beta)
            limit = 2 * (1 + beta) / (1 + (kappa * m) ** 2)
            assert radius(heavy_ball(kappa, 0.99 * limit, beta)) < 1 < radius(heavy_ball(kappa, 1.01 * limit, beta))
            h = math.sqrt(2 * limit / (1 + beta))
            friction = -math.log(beta) / h
            assert_allclose(h**2 * (1 + (kappa / math.tanh(friction * h / 2)) ** 2), 4, rtol=1e-12)
        for share, stable in ((1.05, True), (0.95, False)):
            h, friction = 1e-3, share * kappa
            beta = math.exp(-friction * h)
            assert (radius(heavy_ball(kappa, h**2 * (1 + beta) / 2, beta)) < 1) == stable


def test_velocities_help_players_whose_coupling_is_weak_and_no_others():
    """At one displacement eta the limit is wider for beta < 1 - 2 / sqrt(1 + (a / kappa)^2): for kappa < a / sqrt 3."""
    for kappa, eta, betas in ((0.3, 1.9, (0.2, 0.3)), (0.3, 1.8, (0.6, 0.9)), (3.0, 0.19, (0.1, 0.3, 0.6, 0.9))):
        plain = radius(heavy_ball(kappa, eta, 0.0))
        helps = eta == 1.9
        assert (plain > 1) == helps
        for beta in betas:
            assert helps == (beta < 1 - 2 / math.sqrt(1 + kappa**-2))
            spectrum = radius(heavy_ball(kappa, eta, beta))
            assert (spectrum < 1) == helps
            lengths = [np.linalg.norm(moved_means(kappa, eta, own, 200)) for own in (0.0, beta)]
            # Rates of the runs are those of the spectra: 200 steps, from a length near 1.
            assert_allclose(np.log(lengths) / 200, np.log([plain, spectrum]), atol=math.log(10) / 200)
            assert (lengths[1] < lengths[0]) == helps


def test_velocities_do_not_keep_players_from_going_round():
    """Small steps: no root of s^2 + friction s + a - i kappa is real, and a root turns more often before it decays."""
    for kappa in (0.3, 1.0, 3.0):
        for friction in (1.2 * kappa, 3 * kappa, 30 * kappa):
            slow = max(np.roots([1, friction, 1 - 1j * kappa]), key=lambda s: s.real)
            assert slow.real < 0
            assert abs(slow.imag / slow.real) > kappa  # of an overdamped player, -a + i kappa


def test_forces_of_underdamped_players_are_of_the_step():
    """Error of the means against the matrix exponential: alternating players take no force from before a move."""
    gamma, kappa, time, h = 2.0, 2.0, 4.0, 0.1
    drift = np.zeros((4, 4))
    drift[:2, 2:] = np.eye(2)
    drift[2:, :2] = [[-1.0, -kappa], [kappa, -1.0]]
    drift[2:, 2:] = -gamma * np.eye(2)
    exact = linalg.expm(time * drift)[:2, :2] @ [1.0, 0.5]
    game, errors = quadratic(kappa, tilt=0.0), []
    for alternating in (False, True):
        solver = mfld.DescentAscent(
            1, step_size=h, temperature=0.0, dynamics=mfld.Underdamped(gamma), dtype="float64", alternating=alternating
        )
        state = solver.init(game, particles={"x": [[1.0]], "y": [[0.5]]})
        errors.append(np.linalg.norm(means(solver.advance(game, state, round(time / h))[0]) - exact))
    assert errors[1] < 0.25 * errors[0] < 0.25


def test_gap_of_a_quadratic_game_is_its_closed_form():
    """hat: means -(kappa y + tilt) and kappa x (2 l2 = 1); T KL of unit Gaussians is half the squared distance."""
    x, y, kappa, tilt = 0.4, -0.6, 2.0, 1.0
    clouds = {"x": mfld.Cloud([[x]]), "y": mfld.Cloud([[y]])}
    hat_x, hat_y = -(kappa * y + tilt), kappa * x
    expected = {"x": (hat_x + kappa * hat_y + tilt) ** 2 / 2, "y": (hat_y - kappa * hat_x) ** 2 / 2}
    for temperature in (0.01, 1.0):
        found = mfld.nikaido_isoda(quadratic(), clouds, temperature)
        assert_allclose(found.gap, sum(expected.values()), rtol=1e-10)
        assert_allclose([found.exploitability[name] for name in "xy"], list(expected.values()), rtol=1e-10)
        assert_allclose(found.best_responses["x"].mean(found.best_responses["x"].particles[:, 0]), hat_x, atol=1e-10)
        assert found.gap <= found.upper < found.gap + 1e-8
    equilibrium = {"x": mfld.Cloud([[-1 / 5]]), "y": mfld.Cloud([[-2 / 5]])}
    assert mfld.nikaido_isoda(quadratic(), equilibrium, 0.1).upper < 1e-12


def test_three_point_error_is_its_closed_form():
    """Best responses are Gaussians of one variance: what counts are the payoffs of their means."""
    kappa, tilt, temperature = 2.0, 1.0, 0.3
    points = [(0.4, -0.6), (-0.2, -0.4), (0.0, 0.5)]  # the second is the equilibrium
    clouds = [{"x": mfld.Cloud([[x]]), "y": mfld.Cloud([[y]])} for x, y in points]
    hats = [(-(kappa * y + tilt), kappa * x) for x, y in points]

    def payoff(x, y):
        return tilt * x + kappa * x * y + x * x / 2 - y * y / 2

    expected = [
        max(payoff(x, other) for _, other in hats) - min(payoff(other, y) for other, _ in hats) for x, y in hats
    ]
    found = mfld.three_point_error(quadratic(kappa, tilt), clouds, temperature)
    assert_allclose(found, expected, atol=1e-10)
    gaps = [mfld.nikaido_isoda(quadratic(kappa, tilt), own, temperature).gap for own in clouds]
    assert (found <= np.array(gaps) + 1e-10).all()
    assert found[1] < 1e-10 < found[0]
    with pytest.raises(ValueError, match="candidates must be at least two, got 1"):
        mfld.three_point_error(quadratic(), clouds[:1], temperature)


def test_runs_stop_at_a_gap():
    """At the first look below the bound, and not before."""
    temperature, gaps = 0.3, []

    def near(state, info):
        gaps.append(mfld.nikaido_isoda(quadratic(), state, temperature).upper)
        return gaps[-1] < 0.05

    solver = mfld.DescentAscent(500, step_size=0.05, temperature=temperature)
    start = {"x": np.full((500, 1), 3.0)}
    result = solver.run(quadratic(), 1000, particles=start, callbacks=[mfld.StopWhen(near, every=10)])
    assert gaps[-1] < 0.05 <= min(gaps[:-1])
    assert result.state.step == 10 * len(gaps) < 1000


# ---- domains ---------------------------------------------------------------------------------------------------------


def test_gap_on_the_sphere_and_in_a_box():
    """Gibbs laws of linear functions: log of sinh(c) / c is the normaliser on the sphere and on [-1, 1]."""
    temperature = 0.4
    c = 1 / temperature
    length = 1 / math.tanh(c) - 1 / c

    def log_normaliser(c):
        return math.log(math.sinh(c) / c)

    expected = temperature * (c * length + log_normaliser(c * length) - log_normaliser(c))
    inner = payoffs.Function(lambda x, y: np.sum(x * y, axis=-1), lambda x, y: y + 0 * x, lambda x, y: x + 0 * y)
    uniform = mfld.references.Uniform()
    sphere = mfld.Bilinear(inner, space=mfld.Space(domain=[mfld.Sphere(3)]), reference=uniform)
    clouds = {"x": mfld.Cloud([[1.0, 0.0, 0.0]]), "y": mfld.Cloud([[0.0, 0.0, 1.0]])}
    found = mfld.nikaido_isoda(sphere, clouds, temperature)
    assert_allclose(list(found.exploitability.values()), [expected, expected], rtol=1e-10)
    box = mfld.Bilinear(inner, space=mfld.Space(domain=[mfld.Box([-1.0], [1.0])]), reference=uniform)
    found = mfld.nikaido_isoda(box, {"x": mfld.Cloud([[1.0]]), "y": mfld.Cloud([[1.0]])}, temperature)
    # hat_x has the mean -length against y = 1; to hat_y = length the difference is (length - 1) x.
    gain = temperature * (-c * (length - 1) * length + log_normaliser(c * length) - log_normaliser(c))
    assert_allclose(found.exploitability["x"], gain, rtol=1e-10)
    for game in (sphere, box):
        state = mfld.DescentAscent(400, step_size=0.02, temperature=temperature).run(game, 100).state
        assert np.abs(means(state)).max() < 0.15
        assert mfld.nikaido_isoda(game, state, temperature).gap < 1e-2


PUBLISHED = payoffs.Trigonometric(
    {(2, 0): -1j, (0, 2): -1j, (1, 1): 2.0}
)  # sin 4 pi x + sin 4 pi y + 2 cos 2 pi (x + y)
CIRCLE = mfld.Space(domain=[mfld.Torus(1)])


def solved_on_grid(payoff, temperature, grids, step, energies=(0.0, 0.0)):
    """Equilibrium on two grids by entropic mirror descent and ascent against the average of both, to 1e-12."""
    pay = payoff(grids[0][:, np.newaxis], grids[1])
    mu, nu = (np.full(len(grid), 1 / len(grid)) for grid in grids)

    def gibbs(exponents):
        density = np.exp((exponents - exponents.max()) / temperature)
        return density / density.sum()

    for _ in range(20_000):
        target_mu, target_nu = gibbs(-pay @ nu - energies[0]), gibbs(mu @ pay - energies[1])
        distance = np.abs(target_mu - mu).sum() + np.abs(target_nu - nu).sum()
        if distance < 1e-12:
            return mu, nu
        mu, nu = (own ** (1 - step) * target**step for own, target in ((mu, target_mu), (nu, target_nu)))
        mu, nu = mu / mu.sum(), nu / nu.sum()
    raise AssertionError(f"not converged: {distance}")


def gap_of_draws(game, laws, grid, temperature, n):
    """The largest gap of a few clouds of independent draws from the equilibrium: what so many particles can reach."""
    rng = np.random.default_rng(0)
    draws = [{name: rng.choice(grid, n, p=law) for name, law in laws.items()} for _ in range(5)]
    clouds = [{name: mfld.Cloud(points[:, np.newaxis]) for name, points in draw.items()} for draw in draws]
    return max(mfld.nikaido_isoda(game, each, temperature).gap for each in clouds)


def published(x, y):
    return np.sin(4 * np.pi * x) + np.sin(4 * np.pi * y) + 2 * np.cos(2 * np.pi * (x + y))


@pytest.mark.parametrize("temperature", [0.5, 0.1])
def test_torus_game_is_that_of_the_grid(temperature):
    game = mfld.Bilinear(PUBLISHED, space=CIRCLE, reference=mfld.references.Uniform())
    grid = np.arange(400) / 400
    laws = dict(zip("xy", solved_on_grid(published, temperature, (grid, grid), temperature**2 / 2), strict=True))
    solution = {name: mfld.Cloud(grid[:, np.newaxis], law) for name, law in laws.items()}
    # The trapezoidal rule is exact on smooth periodic functions: the solution of the grid is that of the game.
    assert mfld.nikaido_isoda(game, solution, temperature).upper < 1e-11
    solver = mfld.AveragedGradient(4000, step_size=2e-3, temperature=temperature, forgetting=0.02)
    state = solver.run(game, 500, seed=3).state
    clouds = solver.average(state)
    for name, law in laws.items():
        points = clouds[name].particles[:, 0].astype(float)
        for k in (1, 2):
            waves = np.exp(2j * np.pi * k * points)
            assert abs(waves.mean() - law @ np.exp(2j * np.pi * k * grid)) < 0.06
    assert mfld.nikaido_isoda(game, clouds, temperature).gap < 3 * gap_of_draws(game, laws, grid, temperature, 4000)


def test_published_equilibrium_at_small_temperature():
    """mu half at 3/8 and 7/8, nu half at 1/8 and 5/8, value 0: with a small temperature narrow bumps there."""
    temperature = 0.01
    exact = {"x": mfld.Cloud([[3 / 8], [7 / 8]]), "y": mfld.Cloud([[1 / 8], [5 / 8]])}
    game = mfld.Bilinear(PUBLISHED, space=CIRCLE, reference=mfld.references.Uniform())
    found = mfld.nikaido_isoda(game, exact, temperature)
    assert found.gap < 5 * temperature
    for name, ends in (("x", (3 / 8, 7 / 8)), ("y", (1 / 8, 5 / 8))):
        hat = found.best_responses[name]
        near = np.min([np.abs(hat.particles[:, 0] - end) for end in ends], axis=0) < 0.05
        assert_allclose(hat.weights[near].sum(), 1, atol=0.01)
        assert_allclose(hat.weights[hat.particles[:, 0] < 1 / 2].sum(), 1 / 2, atol=1e-6)
    assert abs(game.facing("x", exact).loss(exact["x"])) < 1e-12


def test_waves_of_a_matching_game_turn_and_decay():
    """cos 2 pi (x - y): the first modes follow exp((-4 pi**2 T +- 2 pi**2 i) t) near the uniform equilibrium."""
    temperature, h, n_steps, n = 0.2, 5e-4, 200, 20_000
    game = mfld.Bilinear(payoffs.Trigonometric({(1, -1): 1.0}), space=CIRCLE, reference=mfld.references.Uniform())
    uniform = (np.arange(n) + 0.5) / n
    bump = uniform - 0.2 / (2 * np.pi) * np.sin(2 * np.pi * uniform)
    start = {"x": bump[:, np.newaxis], "y": uniform[:, np.newaxis]}
    solver = mfld.DescentAscent(n, step_size=h, temperature=temperature)
    state = solver.run(game, n_steps, particles=start).state
    modes = [np.exp(2j * np.pi * state.clouds[name].particles[0, :, 0].astype(float)).mean() for name in "xy"]
    amplitude = np.exp(2j * np.pi * bump).mean().real * math.exp(-4 * np.pi**2 * temperature * h * n_steps)
    angle = 2 * np.pi**2 * h * n_steps
    # The noise of n particles, the nonlinear part, of relative order amplitude**2, and the step.
    assert_allclose(modes, amplitude * np.array([math.cos(angle), math.sin(angle)]), atol=0.1 * amplitude + 0.004)


# ---- a test problem of the literature --------------------------------------------------------------------------------


def hiding(x, y):
    return 1 / (1 + np.exp(-((x - y) ** 2)))


def hiding_gradient(x, y):
    bump = np.exp(-((x - y) ** 2))
    return 2 * (x - y) * bump / (1 + bump) ** 2


HIDING = payoffs.Function(
    lambda x, y: hiding(x, y)[..., 0], hiding_gradient, lambda x, y: -hiding_gradient(x, y)
)  # of Kim et al. 2024; temperature and ridge are ours
HIDING_GAME = mfld.Bilinear(HIDING, space=1, l2=0.05)


@pytest.mark.parametrize(
    "solver",
    [
        mfld.DescentAscent(400, step_size=0.2, temperature=0.05),
        mfld.AveragedGradient(400, step_size=0.2, temperature=0.05, forgetting=0.05),
        mfld.BestResponse(400, step_size=0.2, temperature=0.05, share=0.2, inner_steps=5),
    ],
    ids=["descent-ascent", "averaged", "best-response"],
)
def test_algorithms_agree_on_the_problem_of_kim_et_al(solver):
    grid, laws, reach = hiding_solution()
    exact = {name: mfld.Cloud(grid[:, np.newaxis], law) for name, law in laws.items()}
    assert mfld.nikaido_isoda(HIDING_GAME, exact, 0.05).upper < 1e-9
    result = solver.run(HIDING_GAME, 200, seed=1)
    clouds = solver.average(result.state) if isinstance(solver, mfld.AveragedGradient) else result.state
    assert mfld.nikaido_isoda(HIDING_GAME, clouds, 0.05).gap < 2 * reach < 0.1
    for name, law in laws.items():
        points = result.state.clouds[name].particles.astype(float)
        second, fourth = (law @ grid**k for k in (2, 4))
        assert_allclose((points**2).mean(), second, atol=5 * math.sqrt((fourth - second**2) / 400) + 0.03 * second)


def test_best_responses_approach_by_their_share():
    """With exact responses in one dimension the mean of the game without coupling falls like (1 - share)**k."""
    game = quadratic(kappa=0.0, tilt=0.0)
    start = {name: np.full((1000, 1), 5.0) for name in "xy"}
    solver = mfld.BestResponse(1000, step_size=0.5, temperature=0.1, share=0.1, inner_steps=20, dtype="float64")
    state = solver.init(game, particles=start)
    state, _ = solver.advance(game, state, 10)
    stayed = [np.mean(cloud.particles == 5.0) for cloud in state.clouds.values()]
    assert_allclose(stayed, 0.9**10, atol=0.05)


# ---- circles ---------------------------------------------------------------------------------------------------------

WELLS = mfld.Bilinear(
    payoffs.Polynomial({(4, 0): 0.25, (2, 0): -0.5, (1, 1): 1.5, (0, 4): -0.25, (0, 2): 0.5}), space=1
)
FROM = {"x": np.full((300, 1), 1.2), "y": np.zeros((300, 1))}


def test_double_well_game_circles_when_cold():
    few = {name: points[:60] for name, points in FROM.items()}
    solver = mfld.DescentAscent(60, step_size=0.01, temperature=1 / 32)
    with pytest.warns(UserWarning, match="the run circles: .* went round [2-9] times"):
        result = solver.run(WELLS, 2600, seed=1, particles=few, record={"means": means}, record_every=200)
    assert np.linalg.norm(result.history["means"], axis=1)[5:].min() > 0.5


@pytest.mark.slow
def test_averages_of_the_cold_double_well_game_come_nearer():
    solver = mfld.DescentAscent(300, step_size=0.01, temperature=1 / 32)
    record = {"means": means, "gap": lambda state: mfld.nikaido_isoda(WELLS, state, 1 / 32).gap}
    with pytest.warns(UserWarning, match="the run circles: .* went round [3-9] times"):
        result = solver.run(WELLS, 3000, seed=1, particles=FROM, record=record, record_every=200)
    assert np.linalg.norm(result.history["means"], axis=1)[5:].min() > 0.5
    averaged = mfld.AveragedGradient(300, step_size=0.01, temperature=1 / 32)
    states = [averaged.run(WELLS, 1000, seed=1, particles=FROM).state]
    states.append(averaged.run(WELLS, 2000, state=states[0]).state)
    early, late = (mfld.nikaido_isoda(WELLS, averaged.average(state), 1 / 32).gap for state in states)
    assert late < early
    assert late < np.mean(result.history["gap"][8:])


@pytest.mark.filterwarnings("error:the run circles")
def test_double_well_game_converges_when_warm():
    solver = mfld.DescentAscent(300, step_size=0.01, temperature=1 / 8)
    state = solver.run(WELLS, 3000, seed=1, particles=FROM).state
    assert np.abs(means(state)).max() < 0.25


def test_equilibrium_of_the_cold_double_well():
    """E x**2 = .964456, symmetric laws: both means vanish, so each law is the Gibbs law of its well."""
    symmetric = {name: mfld.Cloud([[-1.0], [1.0]]) for name in "xy"}
    found = mfld.nikaido_isoda(WELLS, symmetric, 1 / 32)
    assert found.upper < 1e-12
    hat = found.best_responses["x"]
    assert_allclose(hat.mean(hat.particles[:, 0] ** 2), 0.964456, atol=1e-6)


@pytest.mark.filterwarnings("error:the run circles")
@pytest.mark.parametrize("kappa", [0.5, 5.0])
def test_spirals_and_noise_are_no_circles(kappa):
    solver = mfld.DescentAscent(200, step_size=0.02, temperature=0.1)
    for seed in range(5):
        solver.run(quadratic(kappa), 400, seed=seed, particles={"x": np.full((200, 1), 3.0)})


# ---- the bound -------------------------------------------------------------------------------------------------------


def bound_holds(seed):
    rng = np.random.default_rng(seed)
    clouds = {name: mfld.Cloud(rng.normal(size=(20, 1)) + rng.normal()) for name in "xy"}
    exact = mfld.nikaido_isoda(HIDING_GAME, clouds, 0.2)
    by_chains = mfld.nikaido_isoda(HIDING_GAME, clouds, 0.2, method="chains", n_chains=1024, seed=seed)
    assert by_chains.reason is None
    assert exact.gap <= by_chains.upper


def test_bound_by_chains_is_too_large_by_the_variance_of_the_payoff():
    """Without a confidence, for groups of n / 32 points: 16 E s**2 / (n T) of each player.

    A group sees V with the variance s**2 / (n / 32) of the payoff over its points, and the average of exp(-D) is too
    large by half of that over T**2, at the points of the best response to the best responses.
    """
    temperature, n, rng = 0.2, 256, np.random.default_rng(0)
    points = {name: rng.normal(size=20) + 0.5 for name in "xy"}
    grid = np.linspace(-9, 9, 801)

    def gibbs(potential):
        exponents = -(potential + 0.05 * grid**2) / temperature
        density = np.exp(exponents - exponents.max())
        return density / density.sum()

    pay = hiding(grid[:, np.newaxis], grid)
    hat_x = gibbs(hiding(grid[:, np.newaxis], points["y"]).mean(axis=1))
    hat_y = gibbs(-hiding(points["x"][:, np.newaxis], grid).mean(axis=0))
    best_x, best_y = gibbs(pay @ hat_y), gibbs(-hat_x @ pay)
    variance_x, variance_y = pay**2 @ hat_y - (pay @ hat_y) ** 2, hat_x @ pay**2 - (hat_x @ pay) ** 2
    expected = 16 * (best_x @ variance_x + best_y @ variance_y) / (n * temperature)
    clouds = {name: mfld.Cloud(own[:, np.newaxis]) for name, own in points.items()}
    excess = []
    for seed in range(24):
        found = mfld.nikaido_isoda(
            HIDING_GAME, clouds, temperature, method="chains", n_chains=n, seed=seed, confidence=0.5
        )
        excess.append(found.upper - found.gap)
    error = np.std(excess, ddof=1) / math.sqrt(len(excess))
    assert_allclose(np.mean(excess), expected, atol=4 * error)
    assert expected > 10 * error


@pytest.mark.parametrize("seed", range(6))
def test_bound_by_chains_holds(seed):
    bound_holds(seed)


@pytest.mark.slow
def test_bound_by_chains_holds_over_200_seeds():
    for seed in range(200):
        bound_holds(seed)


def test_bound_beyond_two_dimensions():
    """Three coordinates, x . y: hat means -y and x, and the gap |x|**2 + |y|**2 for 2 l2 = 1."""
    p = 3
    terms = {tuple(np.eye(p, dtype=int)[c].tolist() * 2): 1.0 for c in range(p)}
    game = mfld.Bilinear(payoffs.Polynomial(terms, (p, p)), space=p, l2=0.5)
    x, y = np.array([0.3, 0.0, -0.2]), np.array([0.1, 0.4, 0.0])
    clouds = {"x": mfld.Cloud(x[np.newaxis]), "y": mfld.Cloud(y[np.newaxis])}
    found = mfld.nikaido_isoda(game, clouds, 0.5, n_chains=8192)
    expected = x @ x + y @ y  # each |hat_i -+ hat_j|**2 / 2
    assert found.method == "chains"
    assert expected <= found.upper < expected + 0.1
    assert_allclose(found.gap, expected, atol=0.03)


# ---- runs ------------------------------------------------------------------------------------------------------------

SOLVERS = [
    mfld.DescentAscent({"x": 20, "y": 30}, step_size=0.1, temperature=0.1),
    mfld.DescentAscent(20, step_size={"x": 0.1, "y": 0.02}, temperature=0.1, alternating=True),
    mfld.DescentAscent(20, step_size=0.1, temperature=0.1, dynamics=mfld.Underdamped(1.0)),
    mfld.AveragedGradient({"x": 20, "y": 30}, step_size=0.1, temperature=mfld.schedules.Power(0.1)),
    mfld.BestResponse({"x": 20, "y": 30}, step_size=0.1, temperature=0.1, share=0.2),
    mfld.AveragedGradient({"x": 20, "y": 30}, step_size=0.1, temperature=0.1, history="clouds"),
    mfld.AveragedGradient({"x": 20, "y": 30}, step_size=0.1, temperature=0.1, history="moments"),
    mfld.FictitiousPlay({"x": 20, "y": 30}, step_size=0.1, temperature=0.1, inner_steps=3),
]


def contents(state):
    arrays = {name: cloud.particles for name, cloud in state.clouds.items()} | dict(state.buffers)
    return {name: (value.shape, value.tobytes()) for name, value in arrays.items()}


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_runs_go_on_repeat_and_come_back(solver, tmp_path):
    game = quadratic()
    whole = solver.run(game, 30, seed=5, record_every=7)
    path = tmp_path / "game.npz"
    checkpoint.run(solver, game, 11, seed=5, path=path)
    assert contents(checkpoint.run(solver, quadratic(), 30, seed=5, path=path).state) == contents(whole.state)
    fields = vars(solver) | {"n_replicates": 2, "num_threads": 2}
    both = type(solver)(**fields).run(game, 30, seed=5).state
    for r in range(2):
        alone = solver.run(game, 30, state=solver.init(game, seed=5, replica=r)).state
        assert contents(both.replicate(r)) == contents(alone)
    assert np.isfinite(whole.history["gradient_norm"]).all()
    assert np.isfinite(whole.history["loss"]).all()


@pytest.mark.parametrize("kind", [mfld.DescentAscent, mfld.AveragedGradient])
def test_permuting_players_permutes_results(kind):
    """Three players who chase each other in a circle; without noise the order of the clouds is a matter of names."""
    near = mfld.kernels.Gaussian(1.0)
    pairs = {("a", "b"): near, ("b", "c"): payoffs.OfKernel(near, -2.0), ("c", "a"): near}
    start = {name: np.random.default_rng(k).normal(size=(15, 2)) for k, name in enumerate("abc")}
    solver = kind(
        15,
        step_size={"a": 0.1, "b": 0.2, "c": 0.05},
        temperature=0.0,
        dtype="float64",
        **({"forgetting": 1.0} if kind is mfld.AveragedGradient else {}),
    )
    states = [
        solver.run(mfld.PairwiseGame(pairs, players=order, space=2, l2=0.1), 50, particles=start).state
        for order in ("abc", "cab", "bac")
    ]
    assert tuple(states[1].clouds) == ("c", "a", "b")
    for name in "abc":
        first, *others = (state.clouds[name].particles for state in states)
        assert all(np.array_equal(first, other) for other in others)


def test_exploitability_follows_the_names():
    near = mfld.kernels.Gaussian(1.0)
    pairs = {("a", "b"): near, ("b", "a"): payoffs.OfKernel(near, -2.0)}
    clouds = {"a": mfld.Cloud([[0.5]]), "b": mfld.Cloud([[1.0]])}
    one, other = (
        mfld.nikaido_isoda(mfld.PairwiseGame(pairs, players=order, space=1, l2=0.1), clouds, {"a": 0.1, "b": 0.2})
        for order in ("ab", "ba")
    )
    assert_allclose([one.exploitability[name] for name in "ab"], [other.exploitability[name] for name in "ab"])


def test_forgetting_everything_is_descent_ascent():
    arguments = {"step_size": 0.1, "temperature": 0.1}
    averaged = mfld.AveragedGradient(30, forgetting=1.0, **arguments).run(quadratic(), 20, seed=4).state
    plain = mfld.DescentAscent(30, **arguments).run(quadratic(), 20, seed=4).state
    assert contents(plain) == {name: contents(averaged)[name] for name in "xy"}


@pytest.mark.parametrize("options", [{"weights": 0.0}, {"weights": 2.0}, {"forgetting": 0.2}])
def test_memory_is_the_weighted_history(options):
    """Particles that march by one a step: a slot of the memory says when it was written."""
    march = mfld.Bilinear(payoffs.Polynomial({(1, 0): -1.0}), space=1)
    n, n_steps = 4000, 20
    solver = mfld.AveragedGradient(n, step_size=1.0, temperature=0.0, dtype="float64", **options)
    state = solver.run(march, n_steps, particles={"x": np.zeros((n, 1))}).state
    written = solver.average(state)["x"].particles[:, 0].round().astype(int)
    k = np.arange(1, n_steps + 1)
    if "weights" in options:
        law = k ** options["weights"] / np.sum(k ** options["weights"])
    else:
        law = 0.2 * 0.8 ** (n_steps - k)
        law[0] = 0.8 ** (n_steps - 1)
    shares = np.bincount(written, minlength=n_steps) / n
    assert_allclose(shares, law, atol=5 * math.sqrt(0.25 / n))
    assert np.sum((shares - law) ** 2 / law) * n < n_steps + 5 * math.sqrt(2 * n_steps)


@pytest.mark.parametrize("options", [{"weights": 2.0}, {"forgetting": 0.2}])
def test_stored_clouds_are_the_weighted_history_itself(options):
    """Players of one payoff each: what x faces after k steps is the weighted mean of all y so far, and so for y."""
    solver = mfld.AveragedGradient(
        {"x": 3, "y": 4}, step_size=0.1, temperature=0.05, dtype="float64", history="clouds", n_replicates=2, **options
    )
    game, n_steps = quadratic(), 7
    states = [solver.init(game, seed=2)]
    for _ in range(n_steps):
        states.append(solver.advance(game, states[-1], 1)[0])
    assert contents(solver.advance(game, states[0], n_steps)[0]) == contents(states[-1])
    k = np.arange(1, n_steps + 1)
    beta = k ** options["weights"] if "weights" in options else 0.2 * 0.8 ** (n_steps - k)
    if "forgetting" in options:
        beta[0] /= 0.2
    beta = beta / beta.sum()
    averages = solver.average(states[-1])
    assert averages["y"].particles.shape == (2 * n_steps * 4, 1)
    for name in "xy":
        every = np.stack([state.clouds[name].particles for state in states[:n_steps]])
        expected = np.tensordot(beta, every.mean(axis=(1, 2, 3)), axes=1)
        assert_allclose(averages[name].mean(averages[name].particles[:, 0]), expected, rtol=1e-12)
    # The last step of x, without its noise: drift 1 + kappa E y + 2 l2 x at the history.
    for r, key in enumerate(states[0].keys):
        history = np.tensordot(beta, [state.clouds["y"].particles[r].mean() for state in states[:n_steps]], axes=1)
        x = states[-2].clouds["x"].particles[r]
        noise = mfld.noise.Place(key, n_steps - 1, 0).normals(3, 1, "float64")
        expected = x - 0.1 * (1 + 2 * history + x) + math.sqrt(2 * 0.05 * 0.1) * noise
        assert_allclose(states[-1].clouds["x"].particles[r], expected, rtol=1e-10)


CHASE = mfld.PairwiseGame(
    {
        ("a", "b"): payoffs.Trigonometric({(1, -1): 1.0, (2, 1): 0.5j}),
        ("b", "c"): payoffs.Trigonometric({(1, -1): -1.0}),
        ("c", "a"): payoffs.Trigonometric({(1, 1): 0.3, (0, 2): -0.2j}),
        ("a", "c"): payoffs.Trigonometric({(3, 1): 0.1}),
    },
    space=mfld.Space(domain=[mfld.Torus(1)]),
    reference=mfld.references.Uniform(),
)
HALF_SEEN = mfld.Environment([-1.0, 0.5, 3.0], weights=[0.2, 0.5, 0.3]).game(
    lambda kappa: quadratic(float(kappa)), unseen_by=["x"]
)


@pytest.mark.parametrize("game", [quadratic(), MATRIX_GAME, CHASE, HALF_SEEN], ids=["line", "matrix", "chase", "seen"])
@pytest.mark.parametrize("options", [{"weights": 2.0}, {"forgetting": 0.2}], ids=["weights", "forgetting"])
def test_moments_are_the_history_of_stored_clouds(game, options):
    """Both are exact, and the noise of the particles is the same."""
    states = {}
    for history in ("moments", "clouds"):
        solver = mfld.AveragedGradient(
            7, step_size=0.02, temperature=0.05, dtype="float64", history=history, n_replicates=2, **options
        )
        states[history] = solver.run(game, 12, seed=2).state
    for name in game.players:
        one, other = (state.clouds[name].particles for state in states.values())
        assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    averages = mfld.AveragedGradient(7, step_size=0.02, temperature=0.05, history="moments").average(states["moments"])
    assert averages[game.players[-1]].particles.shape[-2] == 2 * 7  # the reservoir, of both replicates


def test_annealing_keeps_the_reference():
    cooled = mfld.DescentAscent(10, step_size=0.1, temperature=mfld.schedules.Power(1.0))
    _, info = cooled.advance(quadratic(l2=0.5), cooled.init(quadratic(l2=0.5)), 4)
    assert_allclose([info.temperature, info.l2], [1 / 4, 0.5 / 4])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SOLVERS[0].run(mfld.Potential(abs, n_coordinates=1), 1), TypeError, "objective must be a Game"),
        (lambda: SOLVERS[0].init(quadratic(), particles=[[1.0]]), TypeError, "particles must be a mapping"),
        (lambda: SOLVERS[0].init(quadratic(), particles={"z": [[1.0]]}), ValueError, "a name in particles must be one"),
        (lambda: SOLVERS[0].init(quadratic(), particles={"x": [[1.0]]}), ValueError, "particles must have shape"),
        (
            lambda: mfld.DescentAscent({"x": 3}, step_size=0.1, temperature=1.0).init(quadratic()),
            ValueError,
            "n_particles must be one for all players, or have each of x, y",
        ),
        (
            lambda: mfld.DescentAscent(3, step_size={"x": -1.0}, temperature=1.0),
            ValueError,
            r"step_size\['x'\] must be",
        ),
        (
            lambda: SOLVERS[3].advance(quadratic(), SOLVERS[0].init(quadratic())),
            ValueError,
            "it has no buffer x.history",
        ),
        (
            lambda: mfld.AveragedGradient(5, step_size=1.0, temperature=1.0, history="moments").run(HIDING_GAME, 1),
            TypeError,
            'history="moments" is for games whose payoffs have moments',
        ),
        (lambda: HIDING.moments(mfld.Cloud([[1.0]]), 0), TypeError, "payoff must have moments"),
        (lambda: HIDING.average_by_moments(np.ones((1, 1)), np.ones(1), 0), TypeError, "payoff must have moments"),
        (
            lambda: mfld.SinglePlayer(HIDING_GAME.still("x")).facing_moments("mu", np.ones(1)),
            TypeError,
            "game must have moments of what mu faces",
        ),
        (
            lambda: SOLVERS[6].advance(quadratic(3.0), SOLVERS[3].init(quadratic())),
            ValueError,
            "it has no buffer x.moments",
        ),
        (
            lambda: mfld.BestResponse(5, step_size=1.0, temperature=1.0),
            ValueError,
            "share times n_particles must be at least 1",
        ),
        (
            lambda: mfld.AveragedGradient(5, step_size=1.0, temperature=1.0, forgetting=2.0),
            ValueError,
            "forgetting must be at most 1",
        ),
        (lambda: mfld.nikaido_isoda(quadratic(), {"x": mfld.Cloud([[1.0]])}, 1.0), ValueError, "clouds must have each"),
        (
            lambda: mfld.nikaido_isoda(quadratic(), SOLVERS[0].init(quadratic()), 0.0),
            ValueError,
            "temperature must be finite and positive",
        ),
        (
            lambda: mfld.nikaido_isoda(quadratic(), SOLVERS[0].init(quadratic()), 1.0, n_chains=100, method="chains"),
            ValueError,
            "n_chains must be a multiple of 32",
        ),
        (
            lambda: mfld.DescentAscent(5, step_size=50.0, temperature=1.0).run(quadratic(), 1000),
            mfld.DivergenceError,
            "A smaller step_size usually helps",
        ),
    ],
)
def test_misuse_has_its_message(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("method", "kappa", "l2", "at", "temperature"),
    [
        ("quadrature", 1.0, (0.5, 0.5), (0.5, 0.2), 1e-9),  # deviations of 3e-5, at distances of 1
        ("quadrature", 100.0, (0.01, 5.0), (0.5, 0.2), 1e-3),  # the response of y to the response is at -1e4
        ("chains", 1.0, (0.5, 0.5), (1e8, 1e8), 1e-4),  # a potential of 1e20 temperatures
    ],
)
def test_a_gap_out_of_reach_has_no_bound(method, kappa, l2, at, temperature):
    game = mfld.Bilinear(payoffs.Polynomial({(1, 1): kappa}), space=1, l2=dict(zip("xy", l2, strict=True)))
    clouds = {name: mfld.Cloud([[point]]) for name, point in zip("xy", at, strict=True)}
    found = mfld.nikaido_isoda(game, clouds, temperature, method=method, n_chains=64)
    x, y = -kappa * at[1] / (2 * l2[0]), kappa * at[0] / (2 * l2[1])  # means of the best responses
    exact = l2[0] * (x + kappa * y / (2 * l2[0])) ** 2 + l2[1] * (y - kappa * x / (2 * l2[1])) ** 2
    assert found.upper >= exact
    assert found.reason is not None


def test_errors_of_candidates_whose_responses_are_narrower_than_the_nodes_are_refused():
    torus = mfld.Space(domain=[mfld.Torus(1)])
    game = mfld.Bilinear(payoffs.Trigonometric({(1, -1): 1.0}), space=torus, reference=mfld.references.Uniform())
    candidates = [{"x": mfld.Cloud([[x]]), "y": mfld.Cloud([[0.0]])} for x in (0.1, 0.5)]
    assert mfld.nikaido_isoda(game, candidates[0], 1e-8).reason is not None
    with pytest.raises(ValueError, match=r"candidates\[0\]: the best response of x is narrower"):
        mfld.three_point_error(game, candidates, 1e-8)


def test_an_atom_of_no_weight_leaves_the_bound():
    def at(kappa):
        return mfld.Bilinear(payoffs.Polynomial({(1, 1): kappa}), space=1, l2=0.5)

    game = mfld.Environment([1.0, 2.0], [1.0, 0.0]).game(at)
    clouds = {"x": mfld.Cloud([[[0.5]], [[9.0]]]), "y": mfld.Cloud([[[0.0]], [[9.0]]])}
    found = mfld.nikaido_isoda(game, clouds, 1.0)
    assert found.reason is None
    assert_allclose([found.gap, found.upper], 0.25, rtol=1e-6)  # of the atom 1 alone: means 0 and 0.5
