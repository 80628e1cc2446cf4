"""Random environments: conditional strategies as members, one atom, independent atoms, and time as environment."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld
from mfld import checkpoint, payoffs

COUPLINGS = np.array([-1.0, 0.5, 3.0])
LAW = np.array([0.2, 0.5, 0.3])
TYPES = mfld.Environment(COUPLINGS, LAW)


def quadratic(kappa):
    """``x + kappa x y`` in ridges 1/2: the means are stationary at x = -1 / (1 + kappa**2), y = kappa x."""
    return mfld.Bilinear(payoffs.Polynomial({(1, 1): float(kappa), (1, 0): 1.0}), space=1, l2=0.5)


def arrays(state):
    return {name: cloud.particles for name, cloud in state.clouds.items()} | dict(state.buffers)


SOLVERS = [
    mfld.DescentAscent({"x": 20, "y": 30}, step_size=0.1, temperature=0.1),
    mfld.DescentAscent(20, step_size=0.1, temperature=0.1, alternating=True, dynamics=mfld.Underdamped(1.0)),
    mfld.AveragedGradient({"x": 20, "y": 30}, step_size=0.1, temperature=0.1),
    mfld.BestResponse({"x": 20, "y": 30}, step_size=0.1, temperature=0.1, share=0.2),
]
each_solver = pytest.mark.parametrize(
    "solver", SOLVERS, ids=["simultaneous", "alternating", "averaged", "best-response"]
)


# ---- atoms -----------------------------------------------------------------------------------------------------------


@each_solver
def test_one_atom_is_the_game_itself(solver):
    game, alone = mfld.Environment([2.0]).game(quadratic), quadratic(2.0)
    state, same = (solver.run(own, 20, seed=3).state for own in (game, alone))
    assert state.clouds["x"].particles.shape[:2] == (1, 1)
    for name, array in arrays(same).items():
        assert array.tobytes() == arrays(state)[name].tobytes(), name
    for options in ({}, {"method": "chains", "n_chains": 64, "most_moves": 100}):
        one, other = (mfld.nikaido_isoda(own, end, 0.1, **options) for own, end in ((game, state), (alone, same)))
        assert (one.gap, one.upper) == (other.gap, other.upper)


@pytest.mark.parametrize("kind", [mfld.DescentAscent, mfld.AveragedGradient])
def test_independent_atoms_are_independent_games(kind, rng):
    options = {"forgetting": 1.0} if kind is mfld.AveragedGradient else {}
    start = {name: rng.normal(size=(3, 15, 1)) for name in "xy"}
    solver = kind(15, step_size=0.1, temperature=0.0, dtype="float64", **options)
    together = solver.run(TYPES.game(quadratic), 30, particles=start).state
    gaps = []
    for e, kappa in enumerate(COUPLINGS):
        own = {name: points[e] for name, points in start.items()}
        alone = solver.run(quadratic(kappa), 30, particles=own).state
        for name in "xy":
            assert np.array_equal(together.clouds[name].particles[0, e], alone.clouds[name].particles[0])
        gaps.append(mfld.nikaido_isoda(quadratic(kappa), alone, 0.3).gap if not options else 0.0)
    if not options:  # once
        assert_allclose(mfld.nikaido_isoda(TYPES.game(quadratic), together, 0.3).gap, LAW @ gaps, rtol=1e-9)


@pytest.mark.parametrize(
    "solver",
    [
        mfld.DescentAscent(4000, step_size=0.1, temperature=0.05),
        mfld.BestResponse(1500, step_size=0.3, temperature=0.05, share=0.05, inner_steps=3),
    ],
    ids=["simultaneous", "best-response"],
)
def test_each_atom_has_its_equilibrium_and_noise_of_its_own(solver):
    n, temperature = solver.n_particles, 0.05
    state = solver.run(TYPES.game(quadratic), 150, seed=1).state
    x, y = (state.clouds[name].particles[0, :, :, 0].astype(float) for name in "xy")
    exact = -1 / (1 + COUPLINGS**2)
    error = 5 * math.sqrt(temperature / n)
    assert_allclose(x.mean(axis=1), exact, atol=1.2 * error)
    assert_allclose(y.mean(axis=1), COUPLINGS * exact, atol=1.2 * error)
    noise = np.corrcoef(np.concatenate([x, y]))
    assert np.abs(noise - np.eye(6)).max() < 5 / math.sqrt(n)


def test_who_does_not_see_faces_the_mean():
    """Stationary: x = -1 - E kappa y and y = kappa x at each atom, so that x = -1 / (1 + E kappa**2)."""
    game = TYPES.game(quadratic, unseen_by=["x"])
    exact = -1 / (1 + LAW @ COUPLINGS**2)
    state = mfld.DescentAscent(5000, step_size=0.1, temperature=0.02).run(game, 150, seed=2).state
    assert state.clouds["x"].particles.shape == (1, 5000, 1)
    error = 6 * math.sqrt(0.02 / 5000)
    assert_allclose(state.clouds["x"].particles.mean(dtype=float), exact, atol=error)
    assert_allclose(state.clouds["y"].particles.mean(axis=2, dtype=float).ravel(), COUPLINGS * exact, atol=3 * error)
    # T KL of unit Gaussians is half the squared distance of the means, here of hat and the response to hat.
    x, y = 0.4, np.array([0.1, -0.2, 0.3])
    clouds = {"x": mfld.Cloud([[x]]), "y": mfld.Cloud(y[:, np.newaxis, np.newaxis])}
    found = mfld.nikaido_isoda(game, clouds, 0.5)
    hat_x, hat_y = -1 - LAW @ (COUPLINGS * y), COUPLINGS * x
    expected = {
        "x": (hat_x + 1 + LAW @ (COUPLINGS * hat_y)) ** 2 / 2,
        "y": LAW @ (hat_y - COUPLINGS * hat_x) ** 2 / 2,
    }
    assert_allclose([found.exploitability[name] for name in "xy"], list(expected.values()), rtol=1e-10)
    far = mfld.nikaido_isoda(game, clouds, 0.5, method="chains", n_chains=512)
    assert (far.upper, far.reason.split(":")[0]) == (math.inf, "n_chains must be larger")
    near = {"x": mfld.Cloud([[exact + 0.1]]), "y": mfld.Cloud((COUPLINGS * exact - 0.1)[:, None, None])}
    found = mfld.nikaido_isoda(game, near, 0.5)
    by_chains = mfld.nikaido_isoda(game, near, 0.5, method="chains", n_chains=4096)
    assert found.gap <= by_chains.upper < 1.3 * found.gap + 0.02  # variance over n / 16, and its error
    assert_allclose(by_chains.gap, found.gap, rtol=0.15)


def test_conditional_objective_is_the_mean_of_its_parts(rng):
    wells = [
        mfld.Potential(lambda x, c=c: c * x**3, lambda x, c=c: c * (x**4).sum(axis=1) / 4, n_coordinates=2, l2=0.3)
        for c in (1.0, 2.0, -1.0)
    ]
    both = mfld.Conditional(wells, LAW)
    points = rng.normal(size=(3, 4, 2))
    parts = [(well.loss(own), well.value(own), well.gradient(own)) for well, own in zip(wells, points, strict=True)]
    assert_allclose(both.loss(points), LAW @ [loss for loss, _, _ in parts], rtol=1e-12)
    assert_allclose(both.value(points), LAW @ [value for _, value, _ in parts], rtol=1e-12)
    assert_allclose(both.gradient(points), [gradient for _, _, gradient in parts], rtol=1e-12)
    assert both.linear
    assert_allclose(both.first_variation(points).gradient(points), both.gradient(points))
    h = 1e-5  # N / w_e times the derivative in a particle is the gradient of the first variation
    step = np.zeros_like(points)
    step[2, 1, 0] = h
    slope = (both.value(points + step) - both.value(points - step)) / (2 * h)
    assert_allclose(both.gradient(points)[2, 1, 0], 4 / LAW[2] * slope, rtol=1e-7)


@each_solver
def test_runs_on_an_environment_go_on_repeat_and_come_back(solver, tmp_path):
    whole = solver.run(TYPES.game(quadratic), 12, seed=5)
    path = tmp_path / "game.npz"
    checkpoint.run(solver, TYPES.game(quadratic), 5, seed=5, path=path)
    resumed = checkpoint.run(solver, TYPES.game(quadratic), 12, seed=5, path=path).state
    fields = vars(solver) | {"n_replicates": 2, "num_threads": 2}
    both = type(solver)(**fields).run(TYPES.game(quadratic), 12, seed=5).state
    for name, array in arrays(whole.state).items():
        assert array.tobytes() == arrays(resumed)[name].tobytes() == arrays(both.replicate(0))[name].tobytes()
    assert np.isfinite(whole.history["loss"]).all()
    # The loss of the first player, at its last state, is the mean over the atoms.
    game = TYPES.game(quadratic)
    clouds = {name: mfld.Cloud(cloud.particles[0]) for name, cloud in whole.state.clouds.items()}
    x, y = (clouds[name].particles[:, :, 0].mean(axis=1, dtype=float) for name in "xy")
    assert_allclose(game.facing("x", clouds).loss(clouds["x"]), LAW @ (x + COUPLINGS * x * y), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mfld.Environment([[[1.0]]]), ValueError, "atoms must have shape"),
        (lambda: mfld.Environment([1.0, 2.0], [1.0]), ValueError, r"weights must have shape \(2,\)"),
        (lambda: TYPES.mean([1.0]), ValueError, "values must have one for each of 3 atoms"),
        (lambda: TYPES.game(lambda kappa: kappa), TypeError, "the result of at must be a Game"),
        (lambda: TYPES.game(quadratic, unseen_by="x"), TypeError, "unseen_by must be a sequence of names"),
        (lambda: TYPES.game(quadratic, unseen_by=["z"]), ValueError, "a name in unseen_by must be one of x, y"),
        (
            lambda: TYPES.game(lambda k: mfld.Bilinear(mfld.kernels.Gaussian(1.0), space=1 if k < 0 else 2)),
            ValueError,
            "at must give games of the same players and spaces",
        ),
        (lambda: mfld.Conditional([]), ValueError, "objectives must hold at least one"),
        (lambda: TYPES.facing([]), ValueError, "objectives must be one for each of 3 atoms, got 0"),
        (
            lambda: mfld.Conditional([mfld.Potential(abs, n_coordinates=1, l2=own) for own in (0.1, 0.2)]),
            ValueError,
            "objectives must have the same reference",
        ),
        (
            lambda: SOLVERS[0].advance(TYPES.game(quadratic), SOLVERS[0].init(quadratic(1.0))),
            ValueError,
            r"particles must have shape \(n_replicates, 3, N, 1\)",
        ),
        (
            lambda: mfld.nikaido_isoda(TYPES.game(quadratic), {name: mfld.Cloud([[1.0]]) for name in "xy"}, 1.0),
            ValueError,
            r"must have shape \(3, N, 1\)",
        ),
        (
            lambda: mfld.DescentAscent(5, step_size=0.1, temperature=0.1, dynamics=mfld.MALA()).init(
                TYPES.game(quadratic)
            ),
            ValueError,
            "dynamics must serve several members",
        ),
    ],
)
def test_misuse_has_its_message(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- time as environment ---------------------------------------------------------------------------------------------


class Path(mfld.Objective):
    """Quadratic cost of a path whose speed is the mean action of each node, by its adjoint: costates are gradients."""

    def __init__(self, members, costates, l2):
        self.space, self.members, self.reference = mfld.Space(1), members, mfld.references.Gaussian(l2)
        self._costates = costates

    has_value = False

    def loss(self, measure):
        raise TypeError("no value")

    def loss_gradient(self, measure, batch=None):
        actions = self.cloud(measure).particles
        return np.broadcast_to(self._costates(actions.mean(axis=(1, 2), dtype=float))[:, None, None], actions.shape)

    def first_variation(self, measure, batch=None):
        costates = self._costates(self.cloud(measure).particles.mean(axis=(1, 2), dtype=float))
        each = [
            mfld.Potential(lambda a, c=c: 0 * a + c, lambda a, c=c: c * a[:, 0], space=self.space, l2=self.l2)
            for c in costates
        ]
        return mfld.Conditional(each)


K, DT = 20, 0.1


def riccati(q, r, speed):
    """Gains of ``x' = speed x + u`` with the cost ``q x**2 + r u**2``, by the backward recursion in discrete time."""
    gains, p = np.empty(K), 0.0
    for k in reversed(range(K)):
        gains[k] = -(1 + DT * speed) * p / (r + DT * p)
        p = DT * q + (1 + DT * speed) ** 2 * p * r / (r + DT * p)
    return gains


class Crowd(mfld.Game):
    """Agents of several types of starts want to be at ``s`` times the mean of all: ``u**2 / 2 + q (x - s m)**2 / 2``.

    Members are (type, time), flat. An agent is too small to move the mean.
    """

    players, spaces = ("agents",), {"agents": mfld.Space(1)}

    def __init__(self, starts, law, q, s):
        self.starts, self.law, self.q, self.s = np.asarray(starts), np.asarray(law), q, s
        self.members = {"agents": (len(starts) * K,)}

    def paths(self, actions):
        steps = DT * actions.reshape(-1, K)
        return self.starts[:, None] + np.concatenate([np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)], axis=1)

    def facing(self, name, clouds):
        crowd = self.law @ self.paths(clouds["agents"].particles.mean(axis=(1, 2), dtype=float))

        def costates(actions):
            running = DT * self.q * (self.paths(actions) - self.s * crowd)[:, 1:K]
            return np.concatenate(
                [np.cumsum(running[:, ::-1], axis=1)[:, ::-1], np.zeros((len(running), 1))], axis=1
            ).ravel()

        return Path(self.members["agents"], costates, 0.5)


@pytest.mark.parametrize(
    "solver",
    [
        mfld.DescentAscent(400, step_size=0.1, temperature=0.02),
        mfld.BestResponse(400, step_size=0.3, temperature=0.02, share=0.2, inner_steps=5),
        mfld.AveragedGradient(400, step_size=0.1, temperature=0.02, forgetting=0.2),
    ],
    ids=["descent", "best-response", "averaged"],
)
def test_linear_quadratic_mean_field_game_has_the_equilibrium_of_riccati(solver):
    """The mean of all follows the recursion for q (1 - s), the deviations of the types from it that for q."""
    starts, law, q, s = [2.0, -1.0, 0.5], [0.5, 0.3, 0.2], 1.0, 0.6
    game = Crowd(starts, law, q, s)
    state = solver.run(game, 150, seed=1).state
    mean, types = np.dot(law, starts), np.array(starts)
    expected = []
    for common, own in zip(riccati(q * (1 - s), 1.0, 0.0), riccati(q, 1.0, 0.0), strict=True):
        action = common * mean + own * (types - mean)
        expected.append(action)
        mean, types = mean + DT * common * mean, types + DT * action
    actions = state.clouds["agents"].particles[0, :, :, 0].astype(float)
    # Independent noise of 400 particles at each node, and through the paths that of the other nodes.
    assert_allclose(actions.mean(axis=1).reshape(3, K), np.transpose(expected), atol=6 * math.sqrt(0.02 / 400))
    bias = 1 / (1 - solver.step_size / 2)  # of the scheme
    assert_allclose(actions.var(axis=1).mean(), 0.02 * bias, rtol=0.03)  # temperature / r; over 60 nodes of 400
    # In continuous time x(t) - m(t) = (x - m)(0) cosh(T - t) / cosh T: the recursion is of first order in the step.
    end = game.paths(actions.mean(axis=1))[:, -1]
    horizon, root = K * DT, math.sqrt(1 - s)
    centre = np.dot(law, starts) / math.cosh(root * horizon)
    assert_allclose(end, centre + (np.array(starts) - np.dot(law, starts)) / math.cosh(horizon), atol=0.15)


class Pursuit(mfld.Game):
    """``x' = speed x + u + v`` in the cost ``q x**2 + r_u u**2 - r_v v**2``, over two; u minimises, v maximises."""

    players = ("u", "v")
    spaces = dict.fromkeys(players, mfld.Space(1))
    members = dict.fromkeys(players, (K,))
    speed, q, r = -0.3, 2.0, {"u": 1.0, "v": 3.0}

    def path(self, u, v):
        x = [1.5]
        for own, other in zip(u, v, strict=True):
            x.append(x[-1] + DT * (self.speed * x[-1] + own + other))
        return np.array(x)

    def facing(self, name, clouds):
        other = "v" if name == "u" else "u"
        theirs = clouds[other].particles.mean(axis=(1, 2), dtype=float)
        sign = 1 if name == "u" else -1

        def costates(actions):
            x, p, found = self.path(actions, theirs), 0.0, np.empty(K)
            for k in reversed(range(K)):
                found[k] = sign * p
                p = DT * self.q * x[k] + (1 + DT * self.speed) * p
            return found

        return Path((K,), costates, self.r[name] / 2)


def test_dynamic_game_with_time_as_environment_has_the_saddle_of_riccati():
    """Both play multiples of the costate, so that together they are one control of weight 1 / (1 / r_u - 1 / r_v)."""
    game, temperature, n = Pursuit(), 0.02, 500
    state = mfld.DescentAscent(n, step_size=0.05, temperature=temperature).run(game, 250, seed=4).state
    weight = 1 / (1 / game.r["u"] - 1 / game.r["v"])
    x, expected = 1.5, []
    for gain in riccati(game.q, weight, game.speed):
        expected.append(gain * x)
        x += DT * (game.speed * x + gain * x)
    costates = -weight * np.array(expected)
    for name, sign in (("u", -1), ("v", 1)):
        actions = state.clouds[name].particles[0, :, :, 0].astype(float)
        r = game.r[name]
        assert_allclose(actions.mean(axis=1), sign * costates / r, atol=6 * math.sqrt(temperature / r / n))
        assert_allclose(actions.var(axis=1).mean(), temperature / r / (1 - r * 0.05 / 2), rtol=0.06)
