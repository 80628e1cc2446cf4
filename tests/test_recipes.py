"""Recipes of two phases, the teacher-student setting, annealing by stages."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld
from mfld import checkpoint, experiments, potentials, schedules, stepping

INPUTS = np.random.default_rng(1).normal(size=(30, 2))
RISK = mfld.EmpiricalRisk(
    mfld.TwoLayerNetwork(2), INPUTS, np.sin(INPUTS[:, 0]) + 0.1 * INPUTS[:, 1], loss="squared", l2=1e-2
)
EXPLORE = mfld.MFLD(12, step_size=0.1, temperature=1e-3, gradient=mfld.SVRG(8, 5))
WELLS = potentials.DoubleWell(2, tilt=0.2)
SAMPLE = mfld.MFLD(40, step_size=0.02, temperature=0.3)

RECIPES = {
    "two-phase, automatic steps": (mfld.TwoPhase(mfld.MFLD(12, temperature=1e-3), switch=6), RISK),
    "two-phase at a step": (mfld.TwoPhase(EXPLORE, switch=7), RISK),
    "two-phase at a plateau": (mfld.TwoPhase(EXPLORE, switch=mfld.StopOnPlateau("loss", 2, 0.3, every=3)), RISK),
    "two-phase, momentum": (
        mfld.TwoPhase(
            mfld.MFLD(9, step_size=0.05, temperature=0.1, dynamics=mfld.ContinuousTempering()),
            mfld.MFLD(9, step_size=0.05, temperature=0.0, dynamics=mfld.Preconditioned()),
            switch=5,
        ),
        WELLS,
    ),
    "top particles": (mfld.TopParticles(SAMPLE, n_best=3, switch=8), WELLS),
    "top particles at a plateau": (
        mfld.TopParticles(SAMPLE, n_best=3, switch=mfld.StopOnPlateau(lambda s: np.mean(s.particles), 3, 0.1, every=2)),
        WELLS,
    ),
    "top particles of a risk": (mfld.TopParticles(EXPLORE, n_best=5, switch=6), RISK),
}
every_recipe = pytest.mark.parametrize(("solver", "objective"), RECIPES.values(), ids=RECIPES)


def same(one, two):
    assert one.step == two.step
    assert one.particles.tobytes() == two.particles.tobytes()
    assert set(one.buffers) == set(two.buffers)
    assert all(one.buffers[name].tobytes() == two.buffers[name].tobytes() for name in one.buffers)


@every_recipe
def test_restart_equals_continue(solver, objective):
    whole, info = solver.advance(objective, solver.init(objective, seed=1), 20)
    assert solver.switched(whole)
    assert info.steps == 20
    phases = []
    for first in range(1, 20):
        part, _ = solver.advance(objective, solver.init(objective, seed=1), first)
        phases.append(solver.switched(part))
        same(solver.advance(objective, pickle.loads(pickle.dumps(part)), 20 - first)[0], whole)
    assert 0 < sum(phases) < len(phases)
    single = solver.init(objective, seed=1)
    for _ in range(20):
        single, _ = solver.advance(objective, single)
    same(single, whole)


@every_recipe
def test_checkpoints(solver, objective, tmp_path):
    state, _ = solver.advance(objective, solver.init(objective, seed=2), 10)
    checkpoint.save(state, tmp_path / "state.npz", algorithm=solver, objective=objective)
    loaded = checkpoint.load(tmp_path / "state.npz", algorithm=copy.deepcopy(solver), objective=objective)
    same(solver.advance(objective, loaded, 10)[0], solver.advance(objective, state, 10)[0])


def test_each_phase_is_its_solver():
    """The first as if there were no other; the second like a run of its own from there."""
    solver, objective = RECIPES["two-phase at a step"]
    explored, _ = EXPLORE.advance(objective, EXPLORE.init(objective, seed=3), 7)
    part, info = solver.advance(objective, solver.init(objective, seed=3), 7)
    assert part.particles.tobytes() == explored.particles.tobytes()
    assert (info.temperature, info.l2) == (1e-3, 1e-2)
    assert not solver.switched(part)
    descent = mfld.MFLD(12, step_size=0.1, temperature=0.0, l2=0.0, gradient=mfld.SVRG(8, 5))
    assert solver.descend == descent
    fresh = mfld.State(explored.clouds, 7, 3)  # without anchors: the full gradient is taken at the switch
    descended, _ = descent.advance(objective, fresh, 9)
    whole, info = solver.advance(objective, part, 9)
    assert whole.particles.tobytes() == descended.particles.tobytes()
    assert (info.temperature, info.l2, info.steps) == (0.0, 0.0, 9)
    one, _ = solver.advance(objective, part, 1)
    plain = explored.particles - np.float32(0.1) * RISK.loss_gradient(explored.particles)
    assert_allclose(one.particles, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["two-phase", "top particles"])
def test_replicates(kind):
    """Each is, to the bit, the run of it alone."""

    def solver(n_replicates):
        if kind == "two-phase":
            return mfld.TwoPhase(replace(EXPLORE, n_replicates=n_replicates), switch=7)
        return mfld.TopParticles(replace(EXPLORE, n_replicates=n_replicates), n_best=4, switch=7)

    both, info = solver(2).advance(RISK, solver(2).init(RISK, seed=10), 12)
    assert info.steps == 12
    assert [one.steps for one in info.replicates] == [12, 12]
    for r in range(2):
        alone = solver(1).init(RISK, 10, EXPLORE.init(RISK, 10, replica=r).particles)
        alone, _ = solver(1).advance(RISK, replace(alone, replica=r), 12)
        same(both.replicate(r), alone)
    assert both.replicate(0).particles.tobytes() != both.replicate(1).particles.tobytes()
    rule = mfld.StopOnPlateau("loss")
    with pytest.raises(ValueError, match="switch must be a count of steps for several replicates"):
        mfld.TwoPhase(replace(EXPLORE, n_replicates=2), switch=rule)
    with pytest.raises(ValueError, match="switch must be a count of steps for several replicates"):
        mfld.TwoPhase(EXPLORE, switch=rule).advance(RISK, both)


def test_switch_at_zero_is_descent():
    solver = mfld.TwoPhase(EXPLORE, switch=0)
    result = solver.run(RISK, 5)
    assert result.state.particles.tobytes() == solver.descend.run(RISK, 5).particles.tobytes()


@pytest.mark.parametrize("offset", [0, 1])
def test_the_plateau_is_that_of_the_callback(offset):
    """The rule switches where the callback of the same name would stop a run of the first phase."""
    rule = mfld.StopOnPlateau("loss", patience=3, tolerance=0.05, every=4)
    stopped = EXPLORE.run(RISK, 500, seed=4, callbacks=[rule]).state.step
    assert 12 < stopped < 500
    solver = mfld.TwoPhase(EXPLORE, switch=mfld.StopOnPlateau("loss", patience=3, tolerance=0.05, every=4))
    state, _ = solver.advance(RISK, solver.init(RISK, seed=4), stopped + offset)
    assert solver.switched(state) == (offset == 1)


def test_top_particles_are_the_lowest():
    solver, objective = RECIPES["top particles"]
    sampled = SAMPLE.run(objective, 8, seed=5).particles
    state, _ = solver.advance(objective, solver.init(objective, seed=5), 8)
    assert state.particles.tobytes() == sampled.tobytes()
    lowest = sampled[np.argsort(objective(sampled))[:3]]
    state, _ = solver.advance(objective, state)
    assert_allclose(state.particles, lowest - np.float32(0.02) * objective.gradient(lowest), rtol=1e-5, atol=1e-6)
    result = solver.run(objective, 1500, seed=5)
    assert np.abs(objective.gradient(result.particles)).max() < 1e-3
    lowest = np.roots([4, 0, -4, 0.2]).min()  # where the derivative in one coordinate vanishes
    assert_allclose(result.particles, np.full((3, 2), lowest), atol=1e-3)
    assert solver.descend.n_particles == 3
    assert result.state.buffers["phase"][0] == 1


def test_descent_alone_stays_where_it_is():
    """The best of the samples reach the lowest of nine modes; descent from the start ends all over the place."""
    means = 4.0 * np.array([[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    modes = potentials.GaussianMixture(means, 0.5, weights=[1, 1, 1, 1, 1, 1, 1, 1, 4])
    sample = mfld.MFLD(300, step_size=0.05, temperature=3.0, dtype="float64")
    found = mfld.TopParticles(sample, n_best=5, switch=200).run(modes, 500, seed=6).particles
    assert_allclose(found, np.full((5, 2), 4.0), atol=1e-3)
    plain = mfld.MFLD(300, step_size=0.05, temperature=0.0, dtype="float64").run(modes, 500, seed=6).particles
    assert np.mean(np.abs(plain - 4.0).max(axis=1) < 0.1) < 0.1


def test_interrupts_and_divergence_carry_a_state_to_go_on_from(monkeypatch):
    calls = []

    def gradient(x):
        calls.append(1)
        if len(calls) == 11:
            raise KeyboardInterrupt
        return x

    well = mfld.Potential(gradient, lambda x: np.sum(x**2, axis=1) / 2, n_coordinates=1)
    explore = mfld.MFLD(5, step_size=0.1, temperature=0.1)
    solver = mfld.TwoPhase(explore, switch=mfld.StopOnPlateau(lambda s: s.step, 3, every=2))
    with pytest.raises(KeyboardInterrupt) as caught:
        solver.run(well, 30, seed=7)
    state = caught.value.state
    again = solver.run(well, 30 - state.step, state=state).state
    same(again, solver.run(well, 30, seed=7).state)

    # A signal that comes when all steps are made, as in native code: the look at the plateau is then missing.
    late = mfld.Potential(lambda x: x, n_coordinates=1)
    whole = solver.run(late, 30, seed=7).state

    def struck(objective, particles, buffers, n_steps, plan):
        outcome = stepping.steps(objective, particles, buffers, n_steps, plan)
        return replace(outcome, interrupt=KeyboardInterrupt()) if plan.places[0].step == 2 else outcome

    with monkeypatch.context() as patch:
        patch.setattr(mfld.algorithms.mfld, "steps", struck)
        with pytest.raises(KeyboardInterrupt) as caught:
            solver.run(late, 30, seed=7, record_every=30)
    state = caught.value.state
    same(solver.run(late, 30 - state.step, state=state).state, whole)

    unstable = mfld.TwoPhase(explore, mfld.MFLD(5, step_size=1e30, temperature=0.0), switch=4)
    with np.errstate(over="ignore"), pytest.raises(mfld.DivergenceError) as caught:
        unstable.run(well, 30, seed=7)
    assert unstable.switched(caught.value.state)
    assert 4 < caught.value.state.step < 30


def test_annealing_by_stages_keeps_the_reference():
    """Halving the temperature with the reference N(0, T / (2 l2)) fixed: l2 halves as well, stage by stage."""
    annealed = mfld.MFLD(8, step_size=0.1, temperature=schedules.Geometric(1e-2, factor=0.5, stage_length=10))
    history = annealed.run(RISK, 40, record_every=10).history
    assert_allclose(history["temperature"], 1e-2 * 0.5 ** np.arange(4))
    assert_allclose(history["temperature"] / history["l2"], 1e-2 / RISK.l2)


# ---- the teacher-student setting -------------------------------------------------------------------------------------


def test_population_risk():
    """Against a quadrature on the circle, and against the mean over many points of the sphere."""
    rng = np.random.default_rng(8)
    circle = experiments.teacher_student(n_features=2, n_teachers=2, n_samples=3)
    student = rng.normal(size=(6, 3))
    angle = np.linspace(0, 2 * np.pi, 200_001)[:-1]  # a kink costs h^2 of its jump in slope

    def error(setting, particles, x):
        d = x.shape[1]
        f = np.maximum(x @ particles[:, :d].T, 0) @ particles[:, d]
        return (f - np.maximum(x @ setting.weights.T, 0) @ setting.readout) ** 2

    x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert_allclose(circle.population_risk(student), error(circle, student, x).mean(), rtol=1e-8)
    sphere = experiments.teacher_student(n_features=4, n_teachers=3, n_samples=200_000)
    student = rng.normal(size=(6, 5))
    assert_allclose(np.linalg.norm(sphere.inputs, axis=1), 1)
    assert_allclose(sphere.targets, np.maximum(sphere.inputs @ sphere.weights.T, 0) @ sphere.readout)
    seen = error(sphere, student, sphere.inputs)
    assert abs(seen.mean() - sphere.population_risk(student)) < 5 * seen.std() / np.sqrt(200_000)
    exact = np.concatenate([sphere.weights, sphere.readout[:, np.newaxis]], axis=1)
    assert sphere.population_risk(exact) < 1e-15
    halves = np.concatenate([exact, np.zeros((1, 5)), exact]) * [1, 1, 1, 1, 0.5]
    assert sphere.population_risk(halves) < 1e-15


def test_data_and_initial_particles_share_no_number():
    setting = experiments.teacher_student(n_features=4, n_teachers=4, n_samples=300, seed=3)
    model = setting.student(300)
    data = np.concatenate([setting.weights, setting.inputs])
    for dtype in ("float32", "float64"):
        for draws in (model.initial_particles(300, 3, dtype), mfld.noise.normals(3, 0, 310, 4, dtype=dtype)):
            vectors = draws[:, :4].astype(np.float64)
            cosines = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ data.T
            # Rows of normals divided by their norms keep their directions, and independent ones are 1e-4 apart: the
            # chance of less, for 1e5 pairs on a sphere of 3 dimensions, is about 1e5 * (1e-4)^3.
            assert np.abs(cosines).max() < 1 - 1e-8 / 2
            assert np.abs(cosines).max() > 0.99  # many pairs were compared


def test_teachers_are_orthonormal():
    for n_features, n_teachers in ((2, 2), (5, 3), (60, 60)):
        weights = experiments.teacher_student(n_features, n_teachers, 2, seed=1).weights
        assert_allclose(weights @ weights.T, np.eye(n_teachers), atol=1e-14)
        assert np.abs(weights[0]).min() > 0  # and not the axes


def test_the_risk_of_a_sum():
    """One step of the solver is a step of the sum's plain gradient, by finite differences of the papers' formula."""
    setting = experiments.teacher_student(n_samples=40)
    width, ridge, step_size = 6, 0.02, 0.3
    start = np.random.default_rng(9).normal(size=(width, 6))

    def regularised(theta):
        f = np.maximum(setting.inputs @ theta[:, :5].T, 0) @ theta[:, 5]
        return np.mean((setting.targets - f) ** 2) + ridge * np.sum(theta**2)

    assert_allclose(setting.risk(width, ridge).value(start), regularised(start))
    gradient, h = np.empty_like(start), 1e-6
    for place in np.ndindex(start.shape):
        e = np.zeros_like(start)
        e[place] = h
        gradient[place] = (regularised(start + e) - regularised(start - e)) / (2 * h)
    solver = setting.solver(width, step_sizes=(step_size, 1.0), inverse_temperature=1e30, switch=5)
    moved = solver.run(setting.risk(width, ridge), 1, particles=start).particles
    assert_allclose(moved, start - step_size * gradient, atol=1e-8)
    noisy = setting.solver(width, step_sizes=(step_size, 1.0), inverse_temperature=50.0, switch=5)
    xi = mfld.noise.normals(0, 0, width, 6, dtype="float64")
    moved = noisy.run(setting.risk(width, ridge), 1, particles=start).particles
    assert_allclose(moved, start - step_size * gradient + np.sqrt(2 * step_size / 50.0) * xi, atol=1e-8)


def test_two_phases_recover_the_teacher():
    """A plateau where the ridge balances the risk, then a drop; the neurons that are left are the teacher's."""
    setting = experiments.teacher_student(n_features=5, n_teachers=3, n_samples=500)
    solver = setting.solver(20, step_sizes=(0.5, 1.0), inverse_temperature=1e7, switch=10_000)
    record = {"population": lambda state: setting.population_risk(state.particles)}
    steps = [5000, 10_000, 10_100, 10_200, 10_300, 14_000]
    result = solver.run(setting.risk(20, ridge=1e-2), 14_000, record_every=steps, record=record)
    risk = result.history["population"]
    # The plateau, of an orthogonal teacher and its half-space kernels: ridge pulls each |a||w| below 1.
    assert abs(risk[1] / risk[0] - 1) < 0.05
    assert risk[1] > 1e-3
    # In phase two it falls by a like factor every 100 steps, at first, and by more than 1e4 in the end.
    factors = risk[2:5] / risk[1:4]
    assert (factors < 0.8).all()
    assert risk[5] < 1e-4 * risk[1]
    weights, readout = result.particles[:, :5], result.particles[:, 5]
    norms = np.linalg.norm(weights, axis=1)
    alive = np.abs(readout) * norms > 1e-2
    cosines = (weights[alive] / norms[alive, np.newaxis]) @ setting.weights.T
    assert (cosines.max(axis=1) > 0.999).all()
    assert set(cosines.argmax(axis=1)) == {0, 1, 2}
    assert (np.sign(readout[alive]) == setting.readout[cosines.argmax(axis=1)]).all()


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: mfld.TwoPhase(EXPLORE, switch=-1), ValueError, "switch must be at least 0"),
        (lambda: mfld.TwoPhase(EXPLORE, switch=1.5), TypeError, "switch must be an integer"),
        (lambda: mfld.TwoPhase(3, switch=1), TypeError, "explore must be an MFLD"),
        (
            lambda: mfld.TwoPhase(EXPLORE, mfld.MFLD(step_size=1.0, temperature=0.0, dtype="float64"), switch=1),
            ValueError,
            "descend must have the dtype of explore, float32, got float64",
        ),
        (lambda: mfld.TopParticles(SAMPLE, n_best=41, switch=1), ValueError, "n_best must be between 1 and 40"),
        (
            lambda: mfld.TwoPhase(EXPLORE, switch=1).advance(RISK, EXPLORE.init(RISK)),
            ValueError,
            "state must come from an algorithm of two phases: it has no buffer 'phase'",
        ),
        (
            lambda: mfld.TopParticles(SAMPLE, n_best=1, switch=1).init(mfld.Potential(lambda x: x, n_coordinates=1)),
            TypeError,
            "gradient only",
        ),
        (lambda: experiments.teacher_student(n_teachers=6), ValueError, "n_teachers must be between 1 and 5"),
    ],
)
def test_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
