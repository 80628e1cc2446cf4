"""Particle dual averaging: against its recursion, against quadrature, and as a run."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import optimize

import mfld


def linear_risk(n=1, target=2.0, l2=0.3, **arguments):
    """h(theta, z) = theta: the LQ model, whose recursion is known."""
    model = mfld.TwoLayerNetwork(1, activation="identity", readout="fixed", bias=False)
    return mfld.EmpiricalRisk(model, np.ones((n, 1)), np.full(n, target), loss="half_squared", l2=l2, **arguments)


def network_risk(rng, n=12, l2=0.05, weights=False, outputs=1):
    model = mfld.TwoLayerNetwork(2, outputs, readout="bounded")
    inputs = rng.normal(size=(n, 2))
    targets = rng.normal(size=(n, outputs))
    sample_weight = rng.uniform(0.2, 1, size=n) if weights else None
    return mfld.EmpiricalRisk(model, inputs, targets, loss="half_squared", l2=l2, sample_weight=sample_weight)


def neurons(theta, inputs):
    """h_k(theta, z) = tanh(r_k) tanh(w.z + b) of network_risk: shape (n, particles, outputs)."""
    return np.tanh(inputs @ theta[:, :2].T + theta[:, 2])[:, :, np.newaxis] * np.tanh(theta[:, 3:])


def test_lq_model_follows_its_exact_recursion():
    # Without noise a particle of the averaged potential gbar_t = slope * theta + l2 t / (t + 2) theta^2 contracts to
    # the minimiser by 1 - 2 eta l2 t / (t + 2) a step; slopes are averages of E theta - target.
    l2, target, eta, inner, temperature = 0.3, 2.0, 0.2, 7, 1e-24
    solver = mfld.PDA(4, step_size=eta, temperature=temperature, inner_steps=inner, dtype="float64")
    risk = linear_risk(target=target, l2=l2)
    state = solver.init(risk, particles=[[1.0], [0.0], [-1.0], [4.0]])
    expected, total = state.particles[:, 0].copy(), 0.0
    for t in range(1, 40):
        total += t * (expected.mean() - target)
        slope, ridge = 2 * total / ((t + 1) * (t + 2)), l2 * t / (t + 2)
        minimiser = -slope / (2 * ridge)
        expected = minimiser + (1 - 2 * eta * ridge) ** inner * (expected - minimiser)
        state, info = solver.advance(risk, state)
        assert_allclose(state.particles[:, 0], expected, rtol=1e-9, atol=1e-9)
        assert info.l2 == pytest.approx(ridge, rel=1e-14)
    # The limit is the minimiser of the objective, target / (1 + 2 l2); by step 40 it is near.
    assert abs(expected.mean() - target / (1 + 2 * l2)) < 0.05


@pytest.mark.parametrize("batch_size", [None, 1, 3])
@pytest.mark.parametrize("weights", [False, True])
def test_averaged_potential_is_the_weighted_sum_of_what_was_seen(batch_size, weights, rng):
    risk = network_risk(rng, weights=weights, outputs=2)
    n, s = risk.n_samples, np.full(12, 1 / 12) if risk.sample_weight is None else risk.sample_weight
    solver = mfld.PDA(6, step_size=0.1, temperature=0.1, inner_steps=2, batch_size=batch_size, dtype="float64")
    state = solver.init(risk, seed=3)
    points = rng.normal(size=(5, risk.n_coordinates))
    h = neurons(points, risk.inputs)
    total = np.zeros(5)
    for t in range(1, 8):
        rows = np.arange(n) if batch_size is None else mfld.noise.minibatch(3, t - 1, n, batch_size)
        derivative = neurons(state.particles, risk.inputs).mean(axis=1) - risk.targets
        total += t * np.einsum("i,ik,imk->m", n / len(rows) * s[rows], derivative[rows], h[rows])
        total += t * risk.l2 * np.sum(points**2, axis=1)
        state, _ = solver.advance(risk, state)
        assert_allclose(solver.potential(risk, state)(points), 2 / ((t + 1) * (t + 2)) * total, rtol=1e-9)


class Quadrature:
    """A problem with one coordinate and tanh: everything about it by sums over a grid."""

    inputs, targets = np.array([[0.7], [-1.5], [2.0]]), np.array([0.8, -0.3, 0.1])
    l2, temperature = 0.05, 0.1
    grid = np.linspace(-12, 12, 4001)
    h = np.tanh(inputs * grid)

    def risk(self):
        model = mfld.TwoLayerNetwork(1, readout="fixed", bias=False)
        return mfld.EmpiricalRisk(model, self.inputs, self.targets, loss="half_squared", l2=self.l2)

    def density(self, g):
        exponent = -(g @ self.h / 3 + self.l2 * self.grid**2) / self.temperature
        density = np.exp(exponent - exponent.max())
        return density / density.sum()

    def dual_optimum(self):
        """g* = u* - y where u* = E_{p[g*]} h."""
        residual = lambda g: self.h @ self.density(g) - self.targets - g  # noqa: E731
        return optimize.root(residual, np.zeros(3), tol=1e-13).x

    def gap(self, g):
        """Fenchel-Young gap at p[g] of the half squared loss: mean of (u - y - g)^2 / 2."""
        return np.mean((self.h @ self.density(g) - self.targets - g) ** 2) / 2


class Quantiles(mfld.Dynamics):
    """An inner loop without error: the particles become the quantiles of the potential's Gibbs law."""

    def move(self, particles, buffers, drift, step):
        grid = Quadrature.grid[:, np.newaxis]
        exponent = -(drift.objective(grid) - drift.objective.l2 * grid[:, 0] ** 2 + step.l2 * grid[:, 0] ** 2)
        mass = np.exp((exponent - exponent.max()) / step.temperature)
        levels = (np.arange(len(particles)) + 0.5) / len(particles)
        moved = np.interp(levels, (np.cumsum(mass) - mass / 2) / mass.sum(), grid[:, 0])[:, np.newaxis]
        return mfld.dynamics.Move(moved, buffers, np.zeros_like(moved))


def gaps(n_particles, batch_size, n_steps, seed=0):
    problem = Quadrature()
    solver = mfld.PDA(
        n_particles,
        step_size=1.0,
        temperature=problem.temperature,
        inner_steps=1,
        batch_size=batch_size,
        dynamics=Quantiles(),
        dtype="float64",
    )
    risk = problem.risk()
    state, values = solver.init(risk, seed), []
    for t in range(1, n_steps + 1):
        state, _ = solver.advance(risk, state)
        values.append(problem.gap(2 / (t * (t + 1)) * state.buffers["dual_sum"][0, :, 0]))
    return np.array(values)


def test_with_exact_inner_loops_the_gap_falls_as_the_theory_says():
    t = np.arange(1, 201)
    full = t**2 * gaps(20_000, None, 200)
    assert full[-1] == pytest.approx(full[99], rel=0.02)  # t^2 gap tends to a constant
    assert full[-1] > 1e-3
    stochastic = np.mean([gaps(500, 1, 200, seed) for seed in range(20)], axis=0)
    slope = np.polyfit(np.log(t[9:]), np.log(stochastic[9:]), 1)[0]
    assert slope < -0.9  # 1 / t, in expectation


def test_reaches_the_optimum_that_quadrature_finds():
    problem = Quadrature()
    dual = problem.dual_optimum()
    assert problem.gap(dual) < 1e-20
    density = problem.density(dual)
    optimum = problem.h @ density
    n_particles, eta = 4000, 0.05
    solver = mfld.PDA(n_particles, step_size=eta, temperature=problem.temperature, inner_steps=40, dtype="float64")
    result = solver.run(problem.risk(), n_steps=100, seed=1)
    # Monte-Carlo error of a mean over particles, and the bias of Euler's scheme: the curvature of the potential is at
    # most l = 2 l2 + 0.77 max |g| max z^2, and the law, hence a mean relative to its spread, is off by eta l / 2.
    spread = np.sqrt(problem.h**2 @ density - optimum**2)
    curvature = 2 * problem.l2 + 0.77 * np.abs(dual).max() * 4
    allowed = spread * (5 / math.sqrt(n_particles) + eta * curvature / 2)
    assert np.abs(result.predict(problem.inputs) - optimum).max() < allowed.max()
    assert allowed.max() < 0.12 < np.abs(optimum - problem.targets).max()


@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_dual_variables_are_the_weighted_averages_of_each_samples_derivatives(batch_size, rng):
    risk = network_risk(rng, weights=True, outputs=2)
    solver = mfld.PDA(6, step_size=0.1, temperature=0.1, inner_steps=2, batch_size=batch_size, dtype="float64")
    state, total, weight = solver.init(risk, seed=3), np.zeros((12, 2)), np.zeros(12)
    for t in range(1, 6):
        rows = np.arange(12) if batch_size is None else mfld.noise.minibatch(3, t - 1, 12, batch_size)
        derivative = neurons(state.particles, risk.inputs).mean(axis=1) - risk.targets
        total[rows] += t * derivative[rows]
        weight[rows] += t
        state, _ = solver.advance(risk, state)
    last = neurons(state.particles, risk.inputs).mean(axis=1) - risk.targets
    seen = weight > 0
    assert seen.any()
    assert seen.all() == (batch_size is None)
    expected = np.where(seen[:, np.newaxis], total / np.maximum(weight, 1)[:, np.newaxis], last)
    assert_allclose(solver.dual(risk, state), expected, rtol=1e-12)
    assert_allclose(solver.run(risk, 0, state=state).dual, expected, rtol=1e-12)


@pytest.mark.parametrize(("batch_size", "factor"), [(None, 1 / 20), (1, 1.0)])
def test_the_certificate_is_of_the_averages_and_bounds_their_gap(batch_size, factor):
    problem, risk = Quadrature(), Quadrature().risk()
    solver = mfld.PDA(200, step_size=0.3, temperature=problem.temperature, batch_size=batch_size)
    averaged, last = [], []
    for seed in range(4):
        result = solver.run(risk, 200, seed)
        averaged.append(problem.gap(result.dual))
        last.append(problem.gap(risk.derivative(result.particles)[0][:, 0]))
    # One cloud's derivatives have a floor of order 1/N, the averages nearly none.
    assert np.mean(averaged) < factor * np.mean(last)
    found = result.certificate(num_threads=1)
    assert found.reason is None
    assert_allclose(found.dual[:, 0], result.dual)
    assert abs(found.gap - averaged[-1]) < 5 * found.standard_error + 1e-6
    assert averaged[-1] <= found.upper


def test_averages_stay_in_the_domain_of_the_conjugate(rng):
    # Probabilities have to sum to 1: rounded to float32 they do not.
    inputs = rng.normal(size=(40, 2)).astype(np.float32)
    model = mfld.TwoLayerNetwork(2, 3, readout="bounded", readout_bound=5.0)
    risk = mfld.EmpiricalRisk(model, inputs, rng.integers(0, 3, size=40), loss="cross_entropy", l2=0.1)
    for batch_size in (None, 7):
        solver = mfld.PDA(50, step_size=0.1, temperature=0.1, batch_size=batch_size)
        assert solver.run(risk, 30).certificate(n_chains=64, num_threads=1).reason is None


def test_output_is_drawn_with_probability_proportional_to_the_step():
    n_steps, runs = 4, 3000
    solver = mfld.PDA(1, step_size=0.1, temperature=0.1, inner_steps=1, dtype="float64")
    risk = linear_risk()
    counts = np.zeros(n_steps)
    for seed in range(runs):
        seen, state = [], solver.init(risk, seed=seed)
        for _ in range(n_steps):
            state, _ = solver.advance(risk, state)
            seen.append(state.particles[0, 0])
        counts[seen.index(state.buffers["output"][0, 0, 0])] += 1
    t = np.arange(2, n_steps + 2)
    expected = runs * 2 * t / (n_steps * (n_steps + 3))
    assert expected.sum() == pytest.approx(runs)
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_restarting_is_continuing_for_any_number_of_threads(dtype, batch_size, rng):
    risk = network_risk(rng, n=300)

    def solver(num_threads):
        return mfld.PDA(
            200,
            step_size=mfld.schedules.Power(0.2, 0.5),
            temperature=0.01,
            inner_steps=lambda k: 2 + k,
            batch_size=batch_size,
            dtype=dtype,
            num_threads=num_threads,
        )

    whole = solver(1).run(risk, 6, seed=5).state
    state = solver(3).init(risk, seed=5)
    for n in (1, 3, 2):
        state, _ = solver(3).advance(risk, state, n)
    assert state.step == whole.step == 6
    assert state.particles.tobytes() == whole.particles.tobytes()
    assert set(state.buffers) == {"dual_sum", "dual_weight", "inner_steps", "output"}
    for name, value in whole.buffers.items():
        assert state.buffers[name].tobytes() == value.tobytes()
    assert whole.buffers["inner_steps"][0] == sum(2 + k for k in range(6))


def test_divergence_leaves_the_last_good_state():
    solver = mfld.PDA(4, step_size=1e3, temperature=1e-3, inner_steps=200, dtype="float32")
    with pytest.raises(mfld.DivergenceError) as caught:
        solver.run(linear_risk(), 20)
    assert np.isfinite(caught.value.state.particles).all()


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: mfld.PDA(step_size=0.1, temperature=0.0),
            ValueError,
            "temperature must be finite and positive, got 0",
        ),
        (lambda: mfld.PDA(step_size=-0.1, temperature=1.0), ValueError, "step_size must be finite and positive"),
        (lambda: mfld.PDA(step_size=0.1, temperature=1.0, inner_steps=0), ValueError, "inner_steps must be at least 1"),
        (lambda: mfld.PDA(step_size=0.1, temperature=1.0, batch_size=2.0), TypeError, "batch_size must be an integer"),
        (lambda: mfld.PDA(step_size=0.1, temperature=1.0, dynamics=1), TypeError, "dynamics must be a Dynamics"),
        (
            lambda: mfld.PDA(step_size=0.1, temperature=1.0).init(linear_risk(l2=0.0)),
            ValueError,
            "l2 of the objective must be positive",
        ),
        (
            lambda: mfld.PDA(step_size=0.1, temperature=1.0, batch_size=2).init(linear_risk()),
            ValueError,
            "batch_size must be at most the number of samples, 1, got 2",
        ),
        (
            lambda: mfld.PDA(step_size=0.1, temperature=1.0).init(mfld.Potential(lambda x: x, n_coordinates=1)),
            TypeError,
            "objective must be an EmpiricalRisk",
        ),
    ],
)
def test_refused(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_a_state_of_another_problem_is_refused():
    solver = mfld.PDA(2, step_size=0.1, temperature=1.0)
    state = solver.init(linear_risk(n=1))
    with pytest.raises(ValueError, match=r"state.buffers\['dual_sum'\] must have shape \(1, 2, 1\).* got \(1, 1, 1\)"):
        solver.advance(linear_risk(n=2), state)
    plain = mfld.MFLD(2, step_size=0.1, temperature=1.0).init(linear_risk())
    with pytest.raises(ValueError, match="state must come from a PDA"):
        solver.advance(linear_risk(), plain)
    with pytest.raises(ValueError, match="state must have made a step"):
        solver.potential(linear_risk(), state)


@pytest.mark.parametrize("kind", ["data", "stream"])
def test_averages_without_a_gibbs_measure_are_refused(kind, rng):
    """r * relu(w z + b) falls like -|theta|**2 |(z, 1)| / 2 along a ray, which a ridge has to outweigh."""
    inputs = rng.normal(size=(20, 2))
    model = mfld.TwoLayerNetwork(2, activation="relu", readout="linear")

    def risk(l2):
        if kind == "data":
            return mfld.EmpiricalRisk(model, inputs, np.full(20, 5.0), loss="half_squared", l2=l2)
        return mfld.StreamRisk(
            model, lambda step, n: (inputs[:n], np.full(n, 5.0)), loss="half_squared", l2=l2, capacity=1000
        )

    solver = mfld.PDA(50, step_size=1e-4, temperature=0.1, inner_steps=1, batch_size=20)
    with pytest.raises(
        ValueError, match=r"l2 of the objective must be above .* at step 1 of PDA, got 0.0001"
    ) as caught:
        solver.run(risk(1e-4), n_steps=3)
    assert caught.value.state.step == 0
    # What the message asks for is enough, and a little less is not: the first derivatives are about -5.
    needed = float(str(caught.value).split("above ")[1].split(" at")[0])
    length = np.sqrt(np.sum(inputs**2, axis=1) + 1)
    assert_allclose(needed, 3 * (1 / 3) * np.mean(5 * length) / 2, rtol=0.5)
    assert solver.run(risk(1.1 * needed), n_steps=1).state.step == 1
    with pytest.raises(ValueError, match="must be above"):
        solver.run(risk(0.9 * needed), n_steps=1)


def test_langevin_moves_that_may_be_rejected_have_the_law_of_the_average_at_long_steps():
    inputs, y = np.linspace(-2, 2, 8)[:, np.newaxis], np.sign(np.linspace(-2, 2, 8))
    model = mfld.TwoLayerNetwork(1, readout="fixed", bias=False)
    risk = mfld.EmpiricalRisk(model, inputs, y, loss="logistic", l2=0.05)
    n = 4000
    solver = mfld.PDA(n, step_size=4.0, temperature=0.1, inner_steps=30, dynamics=mfld.MALA(), num_threads=1)
    result = solver.run(risk, n_steps=6, seed=1)
    assert 0.3 < result.history["acceptance"][-1] < 1
    assert set(result.state.buffers) == {"dual_sum", "dual_weight", "inner_steps", "output"}
    # gbar_t of the definition: 2 / ((t + 1) (t + 2)) sum_i dual_sum_i h_i / n + l2 t / (t + 2) |theta|^2 at t = 6.
    grid = np.linspace(-12, 12, 4001)
    coefficients = result.state.buffers["dual_sum"][0, :, 0] * 2 / (7 * 8) / 8
    density = np.exp(-(coefficients @ np.tanh(inputs * grid) + 0.05 * 6 / 8 * grid**2) / 0.1)
    density /= density.sum()
    for f in (np.tanh, np.square, np.sin):
        exact = density @ f(grid)
        spread = np.sqrt(density @ f(grid) ** 2 - exact**2)
        assert abs(np.mean(f(result.particles[:, 0])) - exact) < 5 * spread / np.sqrt(n)
    with pytest.raises(ValueError, match=r"like Overdamped\(\) and MALA\(\)"):
        mfld.PDA(10, step_size=0.1, temperature=0.1, dynamics=mfld.Underdamped(friction=1.0))
