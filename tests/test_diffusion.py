"""Forward processes, exact scores, samplers and time grids, against closed forms and quantiles."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

import mfld
from mfld import diffusion, noise
from mfld.diffusion.samplers import walk
from mfld.mixtures import GaussianMixture

FORWARDS = {
    "ou": diffusion.OrnsteinUhlenbeck(),
    "vp": diffusion.VariancePreserving(),
    "ve": diffusion.VarianceExploding(),
}
WINDOWS = {"ou": (1.5, 0.05), "vp": (0.6, 0.05), "ve": (3.0, 0.2)}
MEANS, VARIANCES, WEIGHTS = np.array([-1.0, 1.5]), np.array([0.14, 0.09]), np.array([0.4, 0.6])
MIXTURE = GaussianMixture(WEIGHTS, MEANS[:, None], VARIANCES[:, None, None])
PLANE = GaussianMixture(
    [1, 2, 1], [[-1.0, 0.0], [1.0, 0.5], [0.0, -1.0]], [[[0.2, 0.1], [0.1, 0.3]], np.eye(2) * 0.1, np.diag([0.3, 0.05])]
)


class Tilted(diffusion.Forward):
    """A process that is neither variance preserving nor exploding, without closed forms."""

    horizon, earliest = 0.95, 0.01

    def alpha(self, time):
        return 1 - np.asarray(time) ** 2

    def sigma(self, time):
        return np.sin(np.asarray(time))

    def __repr__(self):  # the names of tests have no addresses
        return "Tilted()"


def gaussian(variance, mean=0.0, forward=None):
    return diffusion.ExactScore(GaussianMixture(None, [[mean]], variance), forward)


def gaussian_plane(variance):
    return diffusion.ExactScore(GaussianMixture(None, [[0.5, -0.5]], [variance * np.eye(2)]))


def orders(errors):
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


# ---- forward processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forward", [*FORWARDS.values(), Tilted()], ids=repr)
def test_transition_solves_its_equation(forward):
    # Moments of dX = f X dt + g dB by the classical Runge-Kutta method: m' = f m, v' = 2 f v + g**2.
    n, late = 2000, 0.6 * min(forward.horizon, 2.0)
    h, state = late / n, np.array([1.0, 0.0])

    def slope(time, state):
        f, g2 = forward.rates(max(time, 1e-9))
        return np.array([f * state[0], 2 * f * state[1] + g2])

    for k in range(n):
        t = k * h
        a = slope(t, state)
        b = slope(t + h / 2, state + h / 2 * a)
        c = slope(t + h / 2, state + h / 2 * b)
        d = slope(t + h, state + h * c)
        state = state + h / 6 * (a + 2 * b + 2 * c + d)
    assert state[0] == pytest.approx(float(forward.alpha(late)), abs=1e-7)
    assert state[1] == pytest.approx(float(forward.sigma(late)) ** 2, abs=1e-7)


@pytest.mark.parametrize("forward", [*FORWARDS.values(), Tilted(), diffusion.Steps(np.linspace(1e-3, 0.2, 100))])
def test_inverses_and_integrals(forward):
    late, early = 0.5 * min(forward.horizon, 60.0), 0.2 * min(forward.horizon, 60.0)
    assert forward.time(float(forward.ratio(early))) == pytest.approx(early, rel=1e-9)
    middle = forward.share_of_reach(late, early, 0.3)
    assert forward.reach(late, middle) == pytest.approx(0.3 * forward.reach(late, early), rel=1e-9)
    grid = np.linspace(early, late, 20001)
    centres = (grid[1:] + grid[:-1]) / 2
    values = [g2 / 2 / float(forward.alpha(t)) for t in centres for _, g2 in [forward.rates(t)]]
    assert forward.reach(late, early) == pytest.approx(np.sum(values) * (grid[1] - grid[0]), rel=1e-4)


@pytest.mark.parametrize("forward", [*FORWARDS.values(), Tilted(), diffusion.Steps(np.linspace(1e-3, 0.2, 100))])
def test_ratios_beyond_the_horizon_have_no_time(forward):
    last = float(forward.ratio(forward.horizon))
    assert forward.time(last) == pytest.approx(forward.horizon, rel=1e-9)
    assert forward.time(last) <= forward.horizon
    assert forward.time(0.0) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match=r"ratio must be at most .*, sigma / alpha of the horizon .*, got 1e\+06"):
        forward.time(1e6)
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="ratio must be finite and at least 0, got"):
            forward.time(wrong)
    with pytest.raises(TypeError, match="ratio must be a real number, got 'a'"):
        forward.time("a")


def test_steps_are_those_of_the_table():
    betas = np.array([0.1, 0.3, 0.2])
    forward = diffusion.Steps(betas)
    assert forward.alpha([0, 1, 2, 3]) == pytest.approx(np.sqrt([1, 0.9, 0.63, 0.504]))
    x = np.ones((4, 2))
    assert forward.diffused(x, 2 * x, 3.0) == pytest.approx(math.sqrt(0.504) * x + 2 * math.sqrt(0.496) * x)
    each = forward.diffused(x, x, [0.0, 1.0, 2.0, 3.0])
    assert each[0] == pytest.approx(1.0)
    assert each[1] == pytest.approx(math.sqrt(0.9) + math.sqrt(0.1))


# ---- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forward", [*FORWARDS.values(), Tilted()], ids=repr)
def test_exact_score_and_its_divergence_are_derivatives_of_the_density(forward, rng):
    score, time = diffusion.ExactScore(PLANE, forward), 0.3
    x, h = rng.normal(size=(50, 2)), 1e-4
    law = forward.marginal(PLANE, time)
    slopes, divergence = np.empty_like(x), np.zeros(len(x))
    for j in range(2):
        e = h * np.eye(2)[j]
        slopes[:, j] = (law.log_density(x + e) - law.log_density(x - e)) / (2 * h)
        divergence += (score.noise(x + e, time) - score.noise(x - e, time))[:, j] / (2 * h)
    np.testing.assert_allclose(score.score(x, time), slopes, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(score.divergence(x, time), divergence, rtol=1e-5, atol=1e-6)
    alpha, sigma = float(forward.alpha(time)), float(forward.sigma(time))
    np.testing.assert_allclose(score.data(x, time), (x + sigma**2 * slopes) / alpha, rtol=1e-5, atol=1e-5)


def test_empirical_score_is_a_softmax_over_the_data(rng, dtype):
    data, x, weights = rng.normal(size=(300, 3)).astype(dtype), rng.normal(size=(7, 3)).astype(dtype), rng.random(300)
    score = diffusion.EmpiricalScore(data, weights=weights)
    tolerance = 1e-10 if dtype == np.float64 else 2e-5
    for time in (1.0, 0.05, 1e-3):
        alpha, sigma = math.exp(-time), math.sqrt(-math.expm1(-2 * time))
        for i, point in enumerate(x.astype(float)):
            logs = np.log(weights) - np.sum((point - alpha * data.astype(float)) ** 2, axis=1) / (2 * sigma**2)
            shares = np.exp(logs - logs.max())
            expected = shares @ data.astype(float) / shares.sum()
            np.testing.assert_allclose(score.data(x, time)[i], expected, atol=tolerance, rtol=tolerance)
    assert score.noise(x, 0.1).dtype == dtype
    # Far from all data, where all weights underflow, the nearest is all that counts; a point of weight 0 never.
    lone = diffusion.EmpiricalScore(data, weights=[*np.ones(299), 0])
    far = np.concatenate([data[:3] * 1000, data[-1:]])
    distances = np.sum((far[:, np.newaxis] - data[:-1]) ** 2, axis=-1)
    np.testing.assert_allclose(lone.data(far, 1e-4), data[distances.argmin(axis=1)], rtol=1e-3, atol=1e-3)


def test_kinds_of_functions_are_one_score(rng):
    exact, x = diffusion.ExactScore(PLANE), rng.normal(size=(5, 2))
    for kind in ("noise", "score", "data"):
        own = diffusion.FunctionScore(getattr(exact, kind), 2, kind=kind)
        for asked in ("noise", "score", "data"):
            np.testing.assert_allclose(getattr(own, asked)(x, 0.4), getattr(exact, asked)(x, 0.4), rtol=1e-9)


def in_torch(law, forward):
    """Score of a mixture with diagonal covariances by automatic differentiation of its log-density in PyTorch."""
    torch = pytest.importorskip("torch")
    means, variances, weights = (
        torch.tensor(a) for a in (law.means, np.diagonal(law.covariances, axis1=1, axis2=2).copy(), law.weights)
    )

    def score(x, time):
        alpha, noise = float(forward.alpha(time)), float(forward.sigma(time)) ** 2
        points = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        spread = alpha**2 * variances + noise
        logs = -((points[:, None] - alpha * means) ** 2 / spread + torch.log(spread)).sum(-1) / 2
        torch.logsumexp(torch.log(weights) + logs, 1).sum().backward()
        return points.grad

    return score


def in_jax(law, forward):
    """The same in JAX, in float32."""
    jax = pytest.importorskip("jax")
    means, variances = law.means, np.diagonal(law.covariances, axis1=1, axis2=2)

    def log_density(x, time):
        alpha, noise = jax.numpy.exp(-time), -jax.numpy.expm1(-2 * time)
        spread = alpha**2 * variances + noise
        logs = -((x - alpha * means) ** 2 / spread + jax.numpy.log(spread)).sum(-1) / 2
        return jax.scipy.special.logsumexp(jax.numpy.log(law.weights) + logs)

    return jax.jit(jax.vmap(jax.grad(log_density), (0, None)))


@pytest.mark.parametrize("own", [in_torch, in_jax])
def test_scores_of_other_libraries(own, rng):
    law = GaussianMixture([1, 2], [[-2.0, 0.0], [2.0, 1.0]], [np.diag([0.2, 0.1]), np.diag([0.1, 0.4])])
    forward = diffusion.OrnsteinUhlenbeck()
    exact = diffusion.ExactScore(law)
    score = diffusion.FunctionScore(own(law, forward), 2, kind="score")
    x = rng.normal(size=(20, 2))
    np.testing.assert_allclose(score.noise(x, 0.3), exact.noise(x, 0.3), rtol=1e-4, atol=1e-5)
    assert score.noise(x.astype(np.float32), 0.3).dtype == np.float32
    for sampler in ("dpm-solver++", "ancestral"):
        draws = [diffusion.sample(own, 50, sampler=sampler, n_steps=15, seed=2) for own in (score, exact)]
        # Scores in float32: a rounding of 1e-6 grows by 1 / alpha of the horizon, 150, and between modes by more.
        np.testing.assert_allclose(*draws, atol=5e-3)
    np.testing.assert_allclose(
        *(diffusion.log_likelihood(s, x[:3], n_steps=30, n_probes=4) for s in (score, exact)), atol=0.02
    )


SCORES = {
    "exact": diffusion.ExactScore(PLANE),
    "empirical": diffusion.EmpiricalScore(PLANE.means),
    "function": diffusion.FunctionScore(lambda x, t: x, 2),
    "free": diffusion.ClassifierFree(diffusion.ExactScore(PLANE), diffusion.ExactScore(PLANE)),
    "guided": diffusion.ClassifierGuided(diffusion.ExactScore(PLANE), lambda x, t: x),
    "network": diffusion.MeanFieldScore(mfld.TwoLayerNetwork(2 + 8, 2), np.ones((3, 13)), 2),
}


@pytest.mark.parametrize("method", ["noise", "score", "data"])
@pytest.mark.parametrize("name", SCORES)
def test_scores_take_points_of_their_columns_at_their_times(name, method):
    ask = getattr(SCORES[name], method)
    whole = ask(np.array([[1, 2]]), 0.5)
    assert whole.dtype == np.float64
    assert np.array_equal(whole, ask(np.array([[1.0, 2.0]]), 0.5))
    for points, got in ((np.zeros((3, 1)), r"\(3, 1\)"), (np.zeros(2), r"\(2,\)")):
        with pytest.raises(ValueError, match=rf"points must have shape \(n, 2\).* to match the score, got {got}"):
            ask(points, 0.5)
    for time in (0.0, -1.0, 5.1, math.nan):
        with pytest.raises(ValueError, match="time must be above 0 and at most the horizon, 5, got"):
            ask(np.zeros((3, 2)), time)


def test_divergence_of_guided_scores_is_that_of_their_parts(rng):
    one, other = diffusion.ExactScore(PLANE), gaussian_plane(2.0)
    free, x, h, total = diffusion.ClassifierFree(one, other, 1.5), rng.normal(size=(20, 2)), 1e-5, 0.0
    for e in h * np.eye(2):
        total += ((free.noise(x + e, 0.3) - free.noise(x - e, 0.3)) @ e) / (2 * h * h)
    np.testing.assert_allclose(free.divergence(x, 0.3), total, rtol=1e-6, atol=1e-8)
    unknown = diffusion.ClassifierFree(one, diffusion.FunctionScore(other.noise, 2))
    assert unknown.divergence(x, 0.3) is None


@pytest.mark.parametrize("name", sorted(diffusion.SAMPLERS))
def test_functions_may_change_their_points_and_give_the_same_array_again(name):
    kept = np.empty((20, 2))

    def reused(x, t):
        np.multiply(x, math.sqrt(-math.expm1(-2 * t)), out=kept)
        x[:] = np.nan
        return kept

    fresh = lambda x, t: math.sqrt(-math.expm1(-2 * t)) * x  # noqa: E731
    scores = [diffusion.FunctionScore(own, 2) for own in (reused, fresh)]
    draws = [diffusion.sample(score, 20, sampler=name, n_steps=12) for score in scores]
    assert np.array_equal(*draws)
    assert np.array_equal(*(diffusion.log_likelihood(score, draws[0], n_steps=5) for score in scores))

    def spoils(x, t):
        x[:] = np.nan
        return np.zeros_like(x)

    guided = diffusion.ClassifierGuided(scores[1], spoils)
    assert np.array_equal(draws[1], diffusion.sample(guided, 20, sampler=name, n_steps=12))


def test_functions_that_return_something_else_are_refused():
    with pytest.raises(
        ValueError, match=r"the result of function must have shape \(4, 2\) to match points, got \(4,\)"
    ):
        diffusion.sample(diffusion.FunctionScore(lambda x, t: x[:, 0], 2), 4)
    with pytest.raises(FloatingPointError, match="sample 0 is no longer finite at the step from time 5 to"):
        diffusion.sample(diffusion.FunctionScore(lambda x, t: x * np.nan, 2), 4)


# ---- orders of samplers ----------------------------------------------------------------------------------------------

FLOWS = {
    **{(name, name): 1 for name in ("euler", "exponential-euler", "ddim")},
    **{(name, name): 2 for name in ("heun", "exponential-rk2", "karras", "dpm-solver-2", "dpm-solver++")},
    **{(name, name): 3 for name in ("exponential-rk3", "dpm-solver-3")},
    ("adams", "adams"): 4,
    ("adams 2", diffusion.LinearMultistep(2)): 2,
    ("adams 3", diffusion.LinearMultistep(3)): 3,
    ("dpm-solver-1", diffusion.DPMSolver(1)): 1,
    **{
        (f"{clock} {method}", diffusion.Flow(clock, method)): order
        for clock in ("time", "score", "noise", "data")
        for method, order in (("euler", 1), ("midpoint", 2), ("heun", 2), ("heun3", 3), ("rk4", 4))
    },
}


def quantiles_kept(points, forward, late, early):
    """Where the probability flow takes points of one dimension: it keeps their levels in the distribution function."""

    def level(x, time):
        alpha, sigma = float(forward.alpha(time)), float(forward.sigma(time))
        laws = [
            NormalDist(alpha * m, math.sqrt(alpha**2 * v + sigma**2)) for m, v in zip(MEANS, VARIANCES, strict=True)
        ]
        return sum(w * law.cdf(x) for w, law in zip(WEIGHTS, laws, strict=True))

    found = []
    for x in points:
        low, high = -20.0, 20.0
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if level(middle, early) < level(x, late) else (low, middle)
        found.append((low + high) / 2)
    return np.array(found)


@pytest.mark.parametrize("process", FORWARDS)
@pytest.mark.parametrize(("case", "order"), FLOWS.items(), ids=[name for name, _ in FLOWS])
def test_order_of_the_flow(case, order, process):
    forward, (late, early) = FORWARDS[process], WINDOWS[process]
    start = float(forward.sigma(late)) * np.array([-1.2, -0.3, 0.4, 1.5])
    exact = quantiles_kept(start, forward, late, early)
    score, errors = diffusion.ExactScore(MIXTURE, forward), []
    for n in (64, 128):
        grid = diffusion.times(forward, n, "tangent", start=late, end=early)
        x = diffusion.sample(score, 4, sampler=case[1], times=grid, start=start[:, None])[:, 0]
        errors.append(np.abs(x - exact).max())
    assert orders(errors)[0] == pytest.approx(order, abs=0.45 if "adams" in case[0] or "++" in case[0] else 0.12)
    assert errors[-1] < 0.02 / 4 ** (order - 1)


@pytest.mark.parametrize("process", ["ou", "vp"])
def test_order_of_the_pseudo_method(process):
    forward, (late, early) = FORWARDS[process], WINDOWS[process]
    start = float(forward.sigma(late)) * np.array([-1.2, 0.4])
    exact, errors = quantiles_kept(start, forward, late, early), []
    for n in (64, 128, 256):
        times = np.linspace(late, early, n + 1)
        x = diffusion.sample(
            diffusion.ExactScore(MIXTURE, forward), 2, sampler="pndm", times=times, start=start[:, None]
        )
        errors.append(np.abs(x[:, 0] - exact).max())
    assert (orders(errors) > 1.9).all()  # order 2; more where steps are too long for the second term to show
    assert errors[-1] < 3e-5


def linear_step(sampler, score, late, early, x=None):
    """Factor and deviation of a step of a sampler that is affine, as on Gaussian data of mean 0: from what it does."""
    place = noise.Place.of(3, step=5)
    leg = diffusion.Leg(score, late, early, place)
    x = np.array([[1.0], [-1.0]]) if x is None else x
    xi = place.normals(2, 1, "float64")
    moved = sampler.step(x, leg)
    # moved = a x + s xi, for two points
    a, s = np.linalg.solve(np.hstack([x, xi]), moved)
    return float(a[0]), float(s[0])


@pytest.mark.parametrize("variance", [0.25, 1.0, 4.0])
def test_step_of_euler_maruyama_is_wrong_by_what_it_should(variance):
    score, h, t = gaussian(variance), 1e-3, 0.7
    v, earlier = (1 + (variance - 1) * math.exp(-2 * time) for time in (t, t - h))
    a, s = linear_step(diffusion.EulerMaruyama(), score, t, t - h)
    assert (a**2 * v + s**2 - earlier) / h**2 == pytest.approx(-(v + 2 - 4 / v), rel=0.02, abs=0.02)


STOCHASTIC = {
    "euler-maruyama": diffusion.EulerMaruyama(),
    "exponential-sde": diffusion.ExponentialSDE(),
    "ancestral": diffusion.Ancestral(),
    "ancestral, forward": diffusion.Ancestral("forward"),
    "ddim, half": diffusion.DDIM(eta=0.5),
}


@pytest.mark.parametrize("process", FORWARDS)
@pytest.mark.parametrize("name", STOCHASTIC)
def test_weak_order_of_stochastic_samplers(name, process):
    forward, (late, early) = FORWARDS[process], WINDOWS[process]
    score = gaussian(4.0, forward=forward)
    law = lambda time: 4.0 * float(forward.alpha(time)) ** 2 + float(forward.sigma(time)) ** 2  # noqa: E731
    errors = []
    for n in (100, 200, 400):
        grid, v = diffusion.times(forward, n, "tangent", scale=2.0, start=late, end=early), law(late)
        for t, u in itertools.pairwise(grid):
            a, s = linear_step(STOCHASTIC[name], score, t, u)
            v = a**2 * v + s**2
        errors.append(abs(v - law(early)))
    assert orders(errors)[-1] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", ["euler-maruyama", "exponential-sde"])
def test_strong_order_of_stochastic_samplers(name):
    score, finest, n_paths = diffusion.ExactScore(MIXTURE), 1024, 400
    place = noise.Place.of(11)
    start = place.normals(n_paths, 1, "float64", "init")
    ends = []
    for coarser in (1, 8, 16, 32):
        own = place if coarser == 1 else place._replace(coupling=noise.Coupling(place.key, coarser=coarser))
        times = np.linspace(1.5, 0.1, finest // coarser + 1)
        ends.append(walk(start, score, diffusion.SAMPLERS[name], times, own, lambda x, k: x))
    errors = [np.sqrt(np.mean((x - ends[0]) ** 2)) for x in ends[:0:-1]]
    slope = np.polyfit(np.log([32, 16, 8]), np.log(errors), 1)[0]
    assert slope == pytest.approx(1, abs=0.15)


def test_coupled_noise_of_one_step_each_is_that_of_the_core():
    score, place = diffusion.ExactScore(MIXTURE), noise.Place.of(11)
    start, times = place.normals(50, 1, "float64", "init"), np.linspace(1.5, 0.1, 5)
    coupled = place._replace(coupling=noise.Coupling(place.key))
    both = [walk(start, score, diffusion.EulerMaruyama(), times, own, lambda x, k: x) for own in (place, coupled)]
    np.testing.assert_allclose(*both, rtol=1e-12)


@pytest.mark.parametrize("r", [0.9, 0.5, 0.1])
def test_clock_of_the_score_has_nothing_linear_where_alpha_is_one(r):
    late = 50.0
    leg = diffusion.Leg(diffusion.EmpiricalScore([[0.0]], FORWARDS["ve"]), late, r * late, noise.Place.of(0))
    x = np.array([[late]])
    assert diffusion.Flow("score", "euler").step(x, leg) == pytest.approx((1 + r**2) / 2 * late, rel=1e-12)
    assert diffusion.Flow("noise", "euler").step(x, leg) == pytest.approx(r * late, rel=1e-12)


# ---- what is exact ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forward", FORWARDS.values(), ids=repr)
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_is_exact_on_a_point(forward, eta):
    point, xi = np.array([[2.0, -3.0]]), np.random.default_rng(0).normal(size=(100, 2))
    late, early = 0.8 * forward.horizon, 0.3 * forward.horizon
    start = forward.diffused(np.repeat(point, 100, axis=0), xi, late)
    score = diffusion.EmpiricalScore(point, forward)
    x = diffusion.sample(score, 100, sampler=diffusion.DDIM(eta), times=[late, early], start=start, seed=4)
    alphas, sigmas = forward.alpha([late, early]), forward.sigma([late, early])
    s = eta * sigmas[1] / sigmas[0] * math.sqrt(sigmas[0] ** 2 - (alphas[0] / alphas[1] * sigmas[1]) ** 2)
    expected = (
        alphas[1] * point + math.sqrt(sigmas[1] ** 2 - s**2) * xi + s * noise.normals(4, 0, 100, 2, dtype="float64")
    )
    np.testing.assert_allclose(x, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("forward", FORWARDS.values(), ids=repr)
def test_ancestral_law_is_that_of_the_posterior(forward):
    # Given x_0 = 0, X_u | X_t is Gaussian with the covariances of X_u and X_t, by regression.
    late, early = 0.8 * forward.horizon, 0.3 * forward.horizon
    back = float(forward.alpha(late) / forward.alpha(early))
    vt, vu = float(forward.sigma(late)) ** 2, float(forward.sigma(early)) ** 2
    a, s = linear_step(diffusion.Ancestral(), diffusion.EmpiricalScore([[0.0]], forward), late, early)
    assert a == pytest.approx(back * vu / vt, rel=1e-9)
    assert s**2 == pytest.approx(vu - (back * vu) ** 2 / vt, rel=1e-9)
    assert linear_step(diffusion.DDIM(1.0), diffusion.EmpiricalScore([[0.0]], forward), late, early) == pytest.approx(
        (a, s)
    )


@pytest.mark.parametrize("forward", FORWARDS.values(), ids=repr)
@pytest.mark.parametrize("variance", [0.3, 4.0])
def test_matched_ancestral_variance_is_exact_on_gaussians(forward, variance):
    score = gaussian(variance, forward=forward)
    law = lambda time: variance * float(forward.alpha(time)) ** 2 + float(forward.sigma(time)) ** 2  # noqa: E731
    for late, early in ((0.8, 0.3), (0.3, 0.01)):
        t, u = late * forward.horizon, early * forward.horizon
        x = math.sqrt(law(t)) * np.array([[1.0], [-1.0]])  # of the right second moment
        a, s = linear_step(diffusion.Ancestral("matched"), score, t, u, x)
        assert a**2 * law(t) + s**2 == pytest.approx(law(u), rel=1e-9)
        a, s = linear_step(diffusion.Ancestral(), score, t, u, x)
        assert a**2 * law(t) + s**2 < law(u) * (1 - 1e-5)  # the posterior alone has too little


def test_numbers_published_for_other_implementations():
    """Values of the unit tests of diffusers, for a model x t / (t + 1), in float32; its time t is t + 1 here."""
    products = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000, dtype=np.float32), dtype=np.float32).astype(float)
    forward = diffusion.Steps(1 - products / np.append(1, products[:-1]))
    score = diffusion.FunctionScore(lambda x, t: x * (t - 1) / t, 768, forward)
    start = (np.arange(768) / 768)[np.newaxis]
    times = [*range(901, 0, -100), 0]
    ddim = diffusion.sample(score, 1, sampler=diffusion.DDIM(clip=1.0), times=times, start=start)
    assert f"{np.abs(ddim).sum():.4f}" == "172.0067"
    assert f"{np.abs(ddim).mean():.6f}" == "0.223967"
    multistep = np.round(np.linspace(0, 999, 11))[::-1] + 1
    ours = diffusion.sample(score, 1, sampler="dpm-solver++", times=multistep, start=start)
    assert f"{np.abs(ours).mean():.4f}" == "0.3301"


# ---- noise and threads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["euler-maruyama", "ancestral", "dpm-solver++", "predictor-corrector", "exponential-rk3"]
)
def test_samples_have_the_same_bits_for_any_number_of_threads(name, dtype):
    score = diffusion.EmpiricalScore(np.random.default_rng(0).normal(size=(40, 5)))
    runs = [
        diffusion.sample(score, 700, sampler=name, n_steps=6, num_threads=n, seed=3, dtype=dtype) for n in (1, 2, 3, 7)
    ]
    assert runs[0].dtype == dtype
    assert all(run.tobytes() == runs[0].tobytes() for run in runs)
    assert not np.array_equal(runs[0], diffusion.sample(score, 700, sampler=name, n_steps=6, seed=4, dtype=dtype))


def test_samples_do_not_depend_on_how_many_there_are():
    score = diffusion.ExactScore(PLANE)
    for name in ("euler-maruyama", "predictor-corrector"):
        many, few = (diffusion.sample(score, n, sampler=name, n_steps=5) for n in (50, 20))
        assert np.array_equal(many[:20], few)


def test_corrections_have_noise_of_their_own():
    score = diffusion.FunctionScore(lambda x, t: 0 * x, 1)
    sampler = diffusion.PredictorCorrector(diffusion.EulerMaruyama(), n_corrections=2, snr=0.5)
    place, start = noise.Place.of(0), np.zeros((20000, 1))
    late, early = 1.0, 0.9
    moved = sampler.step(start, diffusion.Leg(score, late, early, place))
    expected = 2 * 0.1 + 2 * 4 * 0.25 * float(score.forward.sigma(early)) ** 2  # of three independent normals
    assert moved.var() == pytest.approx(expected, rel=5 * math.sqrt(2 / 20000))


@pytest.mark.parametrize("snr", [0.16, 0.5])
def test_corrections_lead_to_the_law_but_for_their_bias(snr):
    # x <- (1 - d / V) x + sqrt(2 d) xi on N(0, V): S <- (1 - d / V)**2 S + 2 d, which ends at V / (1 - d / (2 V)).
    score, (late, early), n = gaussian(4.0), (1.0, 0.9), 40000
    v = 4 * math.exp(-2 * early) - math.expm1(-2 * early)
    d = 2 * (snr * float(score.forward.sigma(early))) ** 2
    start = 0.5 * noise.normals(1, 0, n, 1, dtype="float64")

    class Stays(diffusion.Sampler):
        def step(self, points, leg):
            return points

    for n_corrections in (1, 6):
        sampler, expected = diffusion.PredictorCorrector(Stays(), n_corrections, snr), start.var()
        for _ in range(n_corrections):
            expected = (1 - d / v) ** 2 * expected + 2 * d
        moved = sampler.step(start, diffusion.Leg(score, late, early, noise.Place.of(0)))
        assert moved.var() == pytest.approx(expected, rel=5 * math.sqrt(2 / n))
    assert v / (1 - d / (2 * v)) - v == pytest.approx((snr * float(score.forward.sigma(early))) ** 2, rel=0.2)


# ---- laws ------------------------------------------------------------------------------------------------------------


def mmd_level(x, y, rng, n_permutations=200):
    """Level of a permutation test of equal laws, by the maximum mean discrepancy of a Gaussian kernel."""
    z = np.concatenate([x, y])
    squares = np.sum((z[:, None] - z[None]) ** 2, axis=2)
    kernel = np.exp(-squares / np.median(squares))
    signs = np.where(np.arange(len(z)) < len(x), 1.0, -1.0)
    shuffled = np.array([signs] + [rng.permutation(signs) for _ in range(n_permutations)])
    values = np.einsum("ri,ij,rj->r", shuffled, kernel, shuffled, optimize=True)
    return np.mean(values >= values[0])


def test_flow_and_stochastic_samplers_have_the_same_marginals(rng):
    score, grid = diffusion.ExactScore(PLANE), diffusion.times(diffusion.OrnsteinUhlenbeck(), 60, "tangent")

    def draw(sampler, seed, own=score):
        return diffusion.sample(own, 150, sampler=sampler, times=grid, seed=seed)

    flow, exponential = diffusion.Flow("noise", "heun"), diffusion.ExponentialSDE()
    levels = [mmd_level(draw(flow, 2 * r), draw(exponential, 2 * r + 1), rng) for r in range(12)]
    assert np.mean(levels) > 0.2  # uniform where the laws are equal: 0.5 +- 0.083
    assert np.sum(np.array(levels) <= 0.05) <= 4  # binomial(12, 0.05)
    # Power: a score for a mixture with one mode moved by 0.5.
    moved = GaussianMixture(PLANE.weights, PLANE.means + np.array([[0.0, 0], [0.5, 0], [0, 0]]), PLANE.covariances)
    other = diffusion.ExactScore(moved)
    levels = [mmd_level(draw(flow, 2 * r), draw(exponential, 2 * r + 1, other), rng) for r in range(6)]
    assert np.sum(np.array(levels) <= 0.05) >= 4


@pytest.mark.parametrize("name", sorted(diffusion.SAMPLERS))
def test_all_samplers_reach_a_mixture(name):
    score, n = diffusion.ExactScore(MIXTURE), 4000
    times = diffusion.times(score.forward, 80, "uniform" if name in ("pndm", "euler", "heun") else "tangent")
    x = diffusion.sample(score, n, sampler=name, times=times, seed=1)[:, 0]
    mean, square = WEIGHTS @ MEANS, WEIGHTS @ (MEANS**2 + VARIANCES)
    assert x.mean() == pytest.approx(mean, abs=5 * math.sqrt((square - mean**2) / n) + 0.03)
    assert np.mean(x**2) == pytest.approx(square, rel=0.15)
    assert np.mean(x < 0.3) == pytest.approx(0.4, abs=5 * math.sqrt(0.24 / n) + 0.02)


def test_restarts_keep_the_law():
    score = gaussian(4.0)
    grid = diffusion.times(score.forward, 60, "tangent", scale=2.0)
    rising = diffusion.grids.with_restarts(grid, low=0.1, high=1.0, n_restarts=3)
    assert (np.diff(rising) > 0).sum() == 3
    start = noise.normals(0, 0, 20000, 1, dtype="float64", stream="init")
    x = diffusion.sample(score, 20000, sampler="karras", times=rising, start=start)
    assert x.var() == pytest.approx(4.0, rel=0.06)
    assert abs(np.corrcoef(start[:, 0], x[:, 0])[0, 1]) < 0.85  # the flow alone is linear, of correlation 1


def test_what_is_known_conditions_the_rest():
    correlation = 0.8
    score = diffusion.ExactScore(GaussianMixture(None, [[0.0, 0.0]], [[[1.0, correlation], [correlation, 1.0]]]))
    grid = diffusion.times(score.forward, 40, "log-snr")
    times = [grid[0]]
    for late, early in itertools.pairwise(grid):  # every step again and again
        times += [early] + [late, early] * 10
    x = diffusion.sample(score, 2000, sampler="ancestral", times=np.array(times), known=[1.5, np.nan])
    assert x[:, 0] == pytest.approx(1.5, abs=0.25)
    assert x[:, 1].mean() == pytest.approx(1.5 * correlation, abs=0.08)
    assert x[:, 1].var() == pytest.approx(1 - correlation**2, rel=0.2)


# ---- time grids ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forward", [*FORWARDS.values(), Tilted()], ids=repr)
@pytest.mark.parametrize("name", diffusion.grids.NAMES)
def test_grids_fall_between_their_ends(name, forward):
    grid = diffusion.times(forward, 17, name, scale=0.5)
    assert grid.shape == (18,)
    assert (grid[0], grid[-1]) == (forward.horizon, forward.earliest)
    assert (np.diff(grid) < 0).all()


def test_grids_whose_times_fall_together_are_refused():
    with pytest.raises(ValueError, match="scale and n_steps must leave times apart, got 5 steps of the grid tangent"):
        diffusion.times(diffusion.OrnsteinUhlenbeck(), 5, scale=1e-300)


def test_grids_are_equal_steps_in_their_clocks():
    forward = diffusion.OrnsteinUhlenbeck()
    clocks = {
        "uniform": lambda t: t,
        "log-snr": lambda t: np.log(np.expm1(2 * t)),
        "cosine": lambda t: np.arccos(np.exp(-t)),
        "sech": lambda t: np.arccosh(np.exp(t)),
        "tangent": lambda t: np.arctan(np.sqrt(np.expm1(2 * t)) / 3),
        "karras": lambda t: np.expm1(2 * t) ** (1 / 14),
    }
    assert set(clocks) == set(diffusion.grids.NAMES)
    for name, clock in clocks.items():
        steps = np.diff(clock(diffusion.times(forward, 9, name, scale=3.0)))
        np.testing.assert_allclose(steps, steps[0], rtol=1e-7)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("n_steps", [3, 10, 50])
def test_tangent_grid_is_best_for_ddim_on_gaussians_by_the_factor_predicted(scale, n_steps):
    forward, errors = diffusion.OrnsteinUhlenbeck(), {}
    score = gaussian(scale**2, mean=0.5, forward=forward)
    law = lambda t: math.sqrt(scale**2 * math.exp(-2 * t) - math.expm1(-2 * t))  # noqa: E731
    for name in diffusion.grids.NAMES:
        grid = diffusion.times(forward, n_steps, name, scale=scale)
        first, last = (0.5 * math.exp(-t) for t in (grid[0], grid[-1]))
        start = first + law(grid[0]) * np.array([[0.0], [1.0]])
        ends = diffusion.sample(score, 2, sampler="ddim", times=grid, start=start)[:, 0]
        assert ends[0] == pytest.approx(last, rel=1e-9)  # the mean is exact
        errors[name] = -math.log((ends[1] - ends[0]) / law(grid[-1]))
        assert errors[name] == pytest.approx(diffusion.grids.gaussian_error(forward, grid, scale**2), rel=1e-8)
    ratios = np.sqrt(np.expm1(2 * np.array([forward.horizon, forward.earliest])))
    angle = np.arctan(ratios[0] / scale) - np.arctan(ratios[1] / scale)
    assert errors["tangent"] == pytest.approx(-n_steps * math.log(math.cos(angle / n_steps)), rel=1e-8)
    assert all(errors["tangent"] < own * (1 + 1e-9) for own in errors.values())
    if scale == 3 and n_steps == 50:
        assert errors["cosine"] / errors["tangent"] == pytest.approx(1.66, abs=0.02)


def test_optimised_grids():
    forward = diffusion.OrnsteinUhlenbeck()
    start = diffusion.times(forward, 6, "uniform")
    cost = lambda grid: diffusion.grids.gaussian_error(forward, grid, 4.0)  # noqa: E731
    found = diffusion.grids.optimised(cost, start)
    tangent = diffusion.times(forward, 6, "tangent", scale=2.0)
    assert cost(found) == pytest.approx(cost(tangent), rel=1e-4)
    # Data of several scales: better than each tangent grid.
    several = lambda grid: diffusion.grids.gaussian_error(forward, grid, [0.01, 1.0, 9.0])  # noqa: E731
    best = several(diffusion.grids.optimised(several, tangent))
    assert best < min(several(diffusion.times(forward, 6, "tangent", scale=c)) for c in np.geomspace(0.05, 5, 30))


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_optimised_grids_do_not_depend_on_the_unit_of_the_cost(unit):
    forward = diffusion.OrnsteinUhlenbeck()
    found = diffusion.grids.optimised(
        lambda grid: unit * diffusion.grids.gaussian_error(forward, grid, 4.0), diffusion.times(forward, 6, "uniform")
    )
    np.testing.assert_allclose(found, diffusion.times(forward, 6, "tangent", scale=2.0), atol=0.02)


@pytest.mark.parametrize(
    ("cost", "error"), [(math.nan, ValueError), (math.inf, ValueError), ("a", TypeError), (None, TypeError)]
)
def test_costs_that_are_no_numbers_are_refused(cost, error):
    with pytest.raises(error, match="the result of cost must be"):
        diffusion.grids.optimised(lambda grid: cost, [5.0, 1.0, 0.0])


def test_rule_of_local_errors_gives_the_known_grids():
    forward, fine = diffusion.OrnsteinUhlenbeck(), np.linspace(5.0, 0.01, 200_001)
    snr = 1 / np.expm1(2 * fine)
    for name, errors in (("cosine", snr), ("sech", 1 / -np.expm1(-2 * fine)), ("log-snr", np.expm1(-2 * fine) ** -2.0)):
        expected = diffusion.times(forward, 8, name, end=0.01)
        np.testing.assert_allclose(diffusion.grids.equidistributed(fine, errors, 8), expected, rtol=2e-3)


def test_rule_of_measured_errors_finds_the_best_grid():
    # On a Gaussian all errors have one sign and the best grid is known; the rule sees the sampler only.
    score, forward = gaussian(9.0), diffusion.OrnsteinUhlenbeck()
    fine = diffusion.times(forward, 80, "log-snr")
    c = diffusion.grids.measured_errors(score, fine, diffusion.DDIM(), n_samples=200)
    inner = diffusion.grids.equidistributed(fine[1:-1], c, 20)
    found = np.array([fine[0], *inner[1:-1], fine[-1]])
    error = {
        name: diffusion.grids.gaussian_error(forward, diffusion.times(forward, 20, name, scale=3.0), 9.0)
        for name in diffusion.grids.NAMES
    }
    own = diffusion.grids.gaussian_error(forward, found, 9.0)
    assert own < 1.05 * error["tangent"] < 0.7 * error["cosine"]


def test_horizons_at_which_nothing_is_left_of_the_data_are_refused() -> None:
    class Linear(diffusion.Forward):
        horizon, earliest = 1.0, 1e-3

        def alpha(self, time):
            return 1 - np.asarray(time)

        def sigma(self, time):
            return np.asarray(time)

    law = GaussianMixture(None, [[0.0]], 1.0)
    for forward in (Linear(), diffusion.OrnsteinUhlenbeck(horizon=800.0)):
        score = diffusion.ExactScore(law, forward)
        with pytest.raises(ValueError, match="start must be a time at which sigma / alpha is finite, got"):
            diffusion.sample(score, 2, sampler="ddim")
        with pytest.raises(ValueError, match="start must be a time at which sigma / alpha is finite, got"):
            diffusion.log_likelihood(score, [[0.0]])
        with pytest.raises(ValueError, match="times must be a time at which sigma / alpha is finite, got"):
            diffusion.sample(score, 2, times=[forward.horizon, 0.5, 0.0])
        assert np.isfinite(diffusion.sample(score, 2, times=[0.9, 0.5, 0.0])).all()


def test_probes_see_structure_as_fine_as_the_noise() -> None:
    # Two modes at a distance of five times the least noise: the density there is that of a mixture, in closed form.
    forward = diffusion.VarianceExploding(horizon=1.0, earliest=2e-3)
    law = GaussianMixture([0.4, 0.6], [[0.0], [0.01]], 1e-8)
    exact = diffusion.ExactScore(law, forward)
    score = diffusion.FunctionScore(exact.noise, 1, forward)
    x = np.array([[0.0], [0.004], [0.0052]])
    wanted = forward.marginal(law, forward.earliest).log_density(x)
    assert np.allclose(diffusion.log_likelihood(score, x, n_probes=1), wanted, atol=0.01)


def test_guidance_refuses_scores_of_two_processes() -> None:
    law = GaussianMixture(None, [[-1.0], [1.0]], 0.1)
    one = diffusion.ExactScore(law)
    diffusion.ClassifierFree(one, diffusion.ExactScore(law, diffusion.OrnsteinUhlenbeck(earliest=0.01)))
    for forward in (diffusion.VarianceExploding(), diffusion.VarianceExploding(horizon=5.0)):
        with pytest.raises(ValueError, match="unconditional must have the forward process of conditional, Ornstein"):
            diffusion.ClassifierFree(one, diffusion.ExactScore(law, forward))
