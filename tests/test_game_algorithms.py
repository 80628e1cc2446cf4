"""Relatives of best response, one-player games, and what tools ask of algorithms for games."""

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld
from mfld import payoffs


def quadratic(kappa=2.0):
    """``x + kappa x y`` in ridges 1/2: stationary at x = -1 / (1 + kappa**2), y = kappa x."""
    return mfld.Bilinear(payoffs.Polynomial({(1, 1): kappa, (1, 0): 1.0}), space=1, l2=0.5)


class TargetMean(mfld.Objective):
    """U(mu) = (E theta - 2)**2 / 2: with the ridge the minimiser is N(2 / (1 + 2 l2), temperature / (2 l2))."""

    space, reference = mfld.Space(1), mfld.references.Gaussian(0.3)

    def slope(self, measure):
        return float(np.average(self.cloud(measure).particles.astype(float))) - 2

    def loss(self, measure):
        return self.slope(measure) ** 2 / 2

    def loss_gradient(self, measure, batch=None):
        return np.full_like(self.cloud(measure).particles, self.slope(measure))

    def first_variation(self, measure, batch=None):
        slope = self.slope(measure)
        return mfld.Potential(lambda x: 0 * x + slope, lambda x: slope * x[:, 0], space=self.space, l2=self.l2)


@pytest.mark.parametrize(
    "solver",
    [
        mfld.BestResponse(4000, step_size=0.3, temperature=0.1, share=0.1, inner_steps=5),
        mfld.FictitiousPlay(4000, step_size=0.3, temperature=0.1, inner_steps=5, forgetting=0.1),
        mfld.FictitiousPlay(4000, step_size=0.3, temperature=0.1, inner_steps=5),
        mfld.AveragedGradient(4000, step_size=0.3, temperature=0.1, weights=3.0),
    ],
    ids=["entropic", "forgetting", "fictitious", "averaged"],
)
def test_one_measure_is_a_game_of_one_player(solver):
    game = mfld.SinglePlayer(TargetMean())
    state = solver.run(game, 150, seed=1).state
    clouds = solver.average(state) if isinstance(solver, mfld.AveragedGradient) else {"mu": state.measure}
    points = clouds["mu"].particles.astype(float)
    mean, variance = 2 / 1.6, 0.1 / 0.6 / (1 - 0.6 * 0.3 / 2)
    # Histories of equal weights remember where they started: the mean of a few early responses, in 1 / 150.
    late = 0.03 if getattr(solver, "weights", 1.0) == 0 and solver.forgetting is None else 0.0
    assert_allclose(points.mean(), mean, atol=6 * math.sqrt(variance / 4000) + late)
    assert_allclose(points.var(), variance, rtol=6 * math.sqrt(2 / 4000) + 2 * late)


@pytest.mark.parametrize("dynamics", [mfld.Overdamped(), mfld.Underdamped(1.0)], ids=["overdamped", "underdamped"])
def test_descent_of_one_player_is_mean_field_langevin_dynamics(dynamics):
    inputs = np.linspace(-1, 1, 40)[:, np.newaxis]
    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(1), inputs, np.sin(3 * inputs[:, 0]), loss="squared", l2=1e-3)
    arguments = {"step_size": 0.3, "temperature": 1e-3, "gradient": mfld.SVRG(8, 10), "dynamics": dynamics}
    alone = mfld.DescentAscent(20, **arguments)
    start = alone.init(mfld.SinglePlayer(risk), seed=3).particles
    one = alone.run(mfld.SinglePlayer(risk), 25, seed=3, particles={"mu": start}).state
    assert np.array_equal(one.particles, mfld.MFLD(20, **arguments).run(risk, 25, seed=3, particles=start).particles)


def test_atoms_of_an_environment_may_have_one_player():
    """Each atom has its own minimiser, 2 / (1 + 2 l2) times the atom here."""
    wells = mfld.Environment([-1.0, 2.0]).game(
        lambda c: mfld.SinglePlayer(mfld.Potential(lambda x: x - 2 * c, n_coordinates=1, l2=0.5))
    )
    state = mfld.DescentAscent(2000, step_size=0.2, temperature=0.01).run(wells, 40).state
    assert_allclose(state.measure.particles.mean(axis=(1, 2)), [-1.0, 2.0], atol=5 * math.sqrt(0.005 / 2000) + 1e-4)


def test_histories_of_fictitious_play_follow_the_recursion_of_their_means():
    """m <- m + (response(m) - m) / k, for means without noise: (x, y) -> (-1 - kappa y, kappa x)."""
    n, steps, kappa = 20_000, 12, 2.0
    start = {"x": np.full((n, 1), 1.0), "y": np.full((n, 1), -1.0)}
    solver = mfld.FictitiousPlay(n, step_size=1.0, temperature=0.0, inner_steps=1)  # at once: 1 - 2 l2 h = 0
    state = solver.run(quadratic(kappa), steps, particles=start).state
    history, particles = np.array([1.0, -1.0]), np.array([1.0, -1.0])
    for k in range(1, steps + 1):
        history = history + (particles - history) / k
        particles = np.array([-1 - kappa * history[1], kappa * history[0]])
    reached = [cloud.particles.mean(dtype=float) for cloud in solver.average(state).values()]
    assert_allclose(reached, history, atol=0.06)  # slots that are drawn: a few units of spread over sqrt(n)


def test_fictitious_play_comes_nearer_where_best_responses_spread():
    """At kappa = 3 best responses to best responses grow threefold; their history comes to the equilibrium like 1 / k.

    Means follow the recursion of the test above, with chains that keep (1 - h)**inner of their distance, but for the
    slots that are drawn: each is a particle of the past, whose variance is that of the weighted history.
    """
    kappa, n, temperature, h, inner = 3.0, 10_000, 0.05, 0.3, 10
    solver = mfld.FictitiousPlay(n, step_size=h, temperature=temperature, inner_steps=inner)
    state = solver.init(quadratic(kappa), seed=2)
    equilibrium, lengths, gaps = np.array([-1, -kappa]) / (1 + kappa**2), [], []
    particles = np.array([cloud.particles.mean(dtype=float) for cloud in state.clouds.values()])
    spread = {0: 1.0}  # of the particles: of the start, and of the scheme
    history, second = particles, 0.0
    for k in range(1, 201):
        history = history + (particles - history) / k
        second += (particles**2 + spread.get(k - 1, temperature / (1 - h / 2)) - second) / k
        response = np.array([-1 - kappa * history[1], kappa * history[0]])
        particles = response + (1 - h) ** inner * (particles - response)
        if k in (20, 200):
            state, _ = solver.advance(quadratic(kappa), state, k - state.step)
            averages = solver.average(state)
            reached = [cloud.particles.mean(dtype=float) for cloud in averages.values()]
            error = 5 * np.sqrt((second - history**2) / n)
            assert (np.abs(reached - history) < error).all()
            lengths.append((np.linalg.norm(history - equilibrium), np.linalg.norm(error)))
            gaps.append(mfld.nikaido_isoda(quadratic(kappa), averages, temperature).gap)
            # Of means off by d the gap is (kappa**2 + kappa**4) |d|**2 / 2.
            off = np.linalg.norm(reached - equilibrium)
            assert_allclose(gaps[-1], (kappa**2 + kappa**4) / 2 * off**2, rtol=1e-5)
    (early, its_error), (late, own_error) = lengths
    assert gaps[1] < ((late + own_error) / (early - its_error)) ** 2 * gaps[0] < 0.1 * gaps[0]


def test_metropolis_moves_see_what_the_others_are_now():
    """Without its buffers MALA evaluates afresh: what it kept would be of the potential before the others moved."""
    solver = mfld.DescentAscent(50, step_size=0.5, temperature=0.1, dynamics=mfld.MALA(), dtype="float64")
    state, _ = solver.advance(quadratic(), solver.init(quadratic(), seed=3), 4)
    bare = mfld.State(state.clouds, state.step, state.seed)
    one, other = (solver.advance(quadratic(), own, 3)[0] for own in (state, bare))
    for name in "xy":
        assert np.array_equal(one.clouds[name].particles, other.clouds[name].particles)


# ---- what tools ask --------------------------------------------------------------------------------------------------


def test_sizes_and_steps_change_for_each_player():
    solver = mfld.DescentAscent(
        {"x": 20, "y": 40}, step_size={"x": 0.1, "y": mfld.schedules.Power(0.2)}, temperature=0.1
    )
    half = solver.resized(Fraction(1, 2), 3)
    assert (dict(half.n_particles), half.n_replicates) == ({"x": 10, "y": 20}, 3)
    with pytest.raises(ValueError, match=r"n_particles\['x'\] must be a multiple of 8, got 20"):
        solver.resized(Fraction(1, 8), 1)
    fine, ratio = solver.at_step(Fraction(1, 2))
    assert ratio == 2
    assert fine.step_size["x"] == 0.05
    assert_allclose([fine.step_size["y"](k) for k in (0, 2, 4)], [0.1 / (1 + k) for k in (0, 1, 2)])
    averaging, _ = mfld.AveragedGradient(8, step_size=0.1, temperature=0.1, forgetting=0.2).at_step(Fraction(1, 2))
    assert averaging.forgetting == 0.1
    chains, ratio = mfld.BestResponse(10, step_size=0.1, temperature=0.1, inner_steps=4).at_step(Fraction(2))
    assert (chains.step_size, chains.inner_steps, ratio) == (0.2, 2, 1)
    assert mfld.BestResponse(10, step_size=0.1, temperature=0.1, inner_steps=3).at_step(Fraction(2)) is None


@pytest.mark.parametrize("kind", [mfld.DescentAscent, pytest.param(mfld.AveragedGradient, marks=pytest.mark.slow)])
def test_bias_of_a_game_is_that_of_its_scheme(kind):
    """Euler-Maruyama's stationary variance, temperature / (1 - h / 2) for 2 l2 = 1, and -1/N of it for N particles."""
    solver = kind(64, step_size=0.2, temperature=0.1)
    report = mfld.bias_report(
        solver, quadratic(), lambda state: state.clouds["y"].particles.var(dtype=float), n_steps=24, seed=1
    )
    assert report.coupled
    assert report.step_bias.contains(0.1 / 0.9 - 0.1, confidence=0.999)
    assert report.particle_bias.contains(-0.1 / 0.9 / 64, confidence=0.999)
    assert report.step_bias.standard_error < 0.1 * report.spread  # of one run: common noise


def test_halves_of_a_coupled_game_have_the_noise_of_the_whole():
    solver = mfld.DescentAscent({"x": 6, "y": 8}, step_size=0.1, temperature=0.1, dtype="float64")
    still = mfld.PairwiseGame({("x", "y"): payoffs.Polynomial({(0, 0): 1.0})}, players=("x", "y"), space=1, l2=0.1)
    state = solver.init(still, seed=5)
    key = mfld.noise.key(5, 1)
    half = solver.resized(Fraction(1, 2), 1).coupled({key: mfld.noise.Coupling(state.key, part=1, parts=2)})
    own = {"x": state.clouds["x"].particles[:, 3:], "y": state.clouds["y"].particles[:, 4:]}
    part = half.run(still, 5, state=half.init(still, 5, own, replica=1)).state
    whole = solver.run(still, 5, state=state).state
    for name, n in (("x", 3), ("y", 4)):
        assert_allclose(part.clouds[name].particles, whole.clouds[name].particles[:, n:], rtol=1e-13)


def test_what_a_result_of_a_game_has_not_is_refused_by_name():
    result = mfld.DescentAscent(5, step_size=0.1, temperature=0.1).run(quadratic(), 3)
    with pytest.raises(ValueError, match=r"the state has the clouds x, y: take one from \.clouds"):
        _ = result.particles
    with pytest.raises(TypeError, match="the objective of the run must be an EmpiricalRisk"):
        result.certificate()
    assert result.dual is None


@pytest.mark.parametrize("algorithm", [mfld.AveragedGradient, mfld.FictitiousPlay])
def test_weights_whose_sums_would_overflow_are_refused(algorithm):
    algorithm(weights=30.0, step_size=0.1, temperature=0.1)
    with pytest.raises(ValueError, match="weights must be at most 30, got 1000"):
        algorithm(weights=1000.0, step_size=0.1, temperature=0.1)
