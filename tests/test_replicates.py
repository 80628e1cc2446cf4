"""Replicates: each is its own run, to the bit; statistics over them; what their mixture buys."""

import itertools
import pickle
import signal
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

import mfld
from mfld import checkpoint, noise, statistics
from mfld.data import Rows
from mfld.schedules import Power

ESTIMATORS = [
    mfld.FullBatch(),
    mfld.Minibatch(batch_size=4),
    mfld.SVRG(batch_size=4, refresh_every=5),
    mfld.SARAH(batch_size=4, refresh_every=5),
]


def make_risk(n=20):
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(n, 3))
    model = mfld.TwoLayerNetwork(n_features=3)
    return mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=1e-3)


def make_solver(**options):
    return mfld.MFLD(**{"n_particles": 30, "step_size": 0.1, "temperature": 1e-2, "n_replicates": 3, **options})


def bounded_risk():
    """One that every algorithm takes."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(12, 2))
    model = mfld.TwoLayerNetwork(2, readout="bounded")
    return mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=1e-2)


def algorithms():
    """Each with the number of its replicates to choose."""
    return {
        "MFLD": lambda r: make_solver(n_replicates=r),
        "PDA": lambda r: mfld.PDA(20, step_size=0.1, temperature=1e-2, inner_steps=3, batch_size=4, n_replicates=r),
        "PSDCA": lambda r: mfld.PSDCA(40, temperature=0.05, refresh_every=7, n_replicates=r),
        "TwoPhase": lambda r: mfld.TwoPhase(make_solver(n_replicates=r), switch=3),
        "TopParticles": lambda r: mfld.TopParticles(make_solver(n_replicates=r), n_best=5, switch=3),
    }


every_algorithm = pytest.mark.parametrize("make", algorithms().values(), ids=algorithms())


def contents(state):
    """All arrays of a state, as bytes."""
    arrays = {name: cloud.particles for name, cloud in state.clouds.items()}
    arrays |= {f"weights of {name}": cloud.weights for name, cloud in state.clouds.items() if cloud.weights is not None}
    return {name: (value.shape, value.tobytes()) for name, value in {**arrays, **state.buffers}.items()}


class TargetMean(mfld.Objective):
    """U(mu) = |E_mu theta - target|**2 / 2: the mean of N particles is an autoregression, whatever N."""

    reference = mfld.references.Gaussian(0.1)

    def __init__(self, n_coordinates):
        self.space = mfld.Space(n_coordinates)
        self.target = np.linspace(-1, 1, n_coordinates)

    def residual(self, measure):
        return np.average(self.cloud(measure).particles, axis=0) - self.target

    def loss(self, measure):
        return float(np.sum(self.residual(measure) ** 2) / 2)

    def loss_gradient(self, measure, batch=None):
        return np.tile(self.residual(measure), (len(self.cloud(measure).particles), 1))

    def first_variation(self, measure):
        raise NotImplementedError


# ---- each its own run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_each_replicate_is_its_own_run(gradient, num_threads, dtype):
    risk = make_risk()
    solver = make_solver(gradient=gradient, num_threads=num_threads, dtype=dtype)
    single = replace(solver, n_replicates=1)
    record = {"mean": lambda state: state.particles.mean(axis=0)}
    together = solver.run(risk, 23, seed=5, record=record, record_every=4)
    for r in range(3):
        alone = single.run(risk, 23, state=single.init(risk, 5, replica=r), record=record, record_every=4)
        state = together.state.replicate(r)
        assert contents(state) == contents(alone.state)
        assert (state.step, state.seed, state.replica) == (23, 5, r)
        for name, values in alone.history.items():
            expected = values if name == "step" else together.history[name][:, r]
            np.testing.assert_array_equal(values, expected)
        assert together.info.replicates[r] == alone.info or np.isnan(alone.info.acceptance)
    assert single.run(risk, 23, seed=5).particles.tobytes() == together.state.replicate(0).particles.tobytes()


@pytest.mark.parametrize(
    ("options", "linear"),
    [
        ({"dynamics": mfld.Underdamped(1.0), "gradient": mfld.SVRG(batch_size=4, refresh_every=5)}, False),
        ({"step_size": None, "gradient": mfld.Minibatch(4)}, False),
        ({"dynamics": mfld.Preconditioned()}, False),
        ({"dynamics": mfld.MALA()}, True),
        ({"dynamics": mfld.ContinuousTempering()}, True),
    ],
    ids=lambda value: str(value)[:40],
)
def test_other_dynamics_and_automatic_steps(options, linear):
    well = mfld.Potential(np.positive, lambda x: np.sum(x**2, axis=1) / 2, n_coordinates=2)
    objective = well if linear else make_risk()
    solver = make_solver(**options)
    together = solver.run(objective, 23, seed=5)
    single = replace(solver, n_replicates=1)
    for r in range(3):
        alone = single.run(objective, 23, state=single.init(objective, 5, replica=r)).state
        assert contents(together.state.replicate(r)) == contents(alone)


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("n_particles", [30, 4000])
def test_replicates_of_any_size_side_by_side_or_in_turn(n_particles, num_threads):
    """Small ones are spread over the threads, large ones take all threads in turn; schedules are their own."""
    risk = make_risk()
    options = {"gradient": mfld.SVRG(4, refresh_every=5), "dynamics": mfld.Underdamped(1.0)}
    step_size = mfld.schedules.Power(0.2, 0.5)
    solver = make_solver(n_particles=n_particles, num_threads=num_threads, step_size=step_size, **options)
    together = solver.run(risk, 12, seed=5).state
    single = replace(solver, n_replicates=1, num_threads=1)
    for r in range(3):
        alone = single.run(risk, 12, state=single.init(risk, 5, replica=r)).state
        assert contents(together.replicate(r)) == contents(alone)


@pytest.mark.parametrize("dynamics", [mfld.Overdamped(), mfld.Underdamped(1.0), mfld.Preconditioned()], ids=repr)
def test_replicates_with_numbers_of_their_own(dynamics):
    """A grid of settings, with the same noise where the replicates have the same number."""
    risk = make_risk()
    step_size, temperature = (0.1, Power(0.2, 0.5), 0.05), (1e-2, 1e-3, Power(0.1, 1.0))
    l2 = (0.1, lambda k: 0.01 / (k + 1), 0.0)
    options = {"dynamics": dynamics, "gradient": mfld.Minibatch(4)}
    grid = make_solver(step_size=step_size, temperature=temperature, l2=list(l2), **options)
    for replica in (0, (2, 2, 2), (1, 0, 5)):
        together = grid.run(risk, 11, state=grid.init(risk, 5, replica=replica))
        numbers = (0, 1, 2) if replica == 0 else replica
        assert together.state.replicas == numbers
        for r, number in enumerate(numbers):
            one = make_solver(step_size=step_size[r], temperature=temperature[r], l2=l2[r], n_replicates=1, **options)
            alone = one.run(risk, 11, state=one.init(risk, 5, replica=number))
            assert contents(together.state.replicate(r)) == contents(alone.state)
            assert together.state.replicate(r).replica == number
            info = together.info.replicates[r]
            assert (info.step_size, info.temperature, info.l2) == (
                alone.info.step_size,
                alone.info.temperature,
                alone.info.l2,
            )


def test_annealed_replicates_keep_their_references():
    risk = make_risk()
    cooling = Power(0.1, 0.5)
    grid = make_solver(n_replicates=2, temperature=(cooling, 2 * cooling))
    infos = grid.run(risk, 4).info.replicates
    assert [info.l2 for info in infos] == [risk.l2 * 0.5] * 2
    assert [info.temperature for info in infos] == [0.05, 0.1]


def test_a_grid_has_no_single_certificate():
    grid = make_solver(n_replicates=2, temperature=(0.1, 0.2))
    with pytest.raises(ValueError, match="the replicates must have one temperature and one l2, got several"):
        grid.run(make_risk(), 2).certificate()


def test_numbers_of_replicates_are_checked():
    with pytest.raises(ValueError, match="l2 must be one for all replicates, or a sequence of n_replicates=3, got 2"):
        make_solver(l2=[0.1, 0.2])
    with pytest.raises(ValueError, match=r"step_size\[1\] must be finite and positive, got 0"):
        make_solver(step_size=[0.1, 0.0, 0.1])
    with pytest.raises(ValueError, match="replica must be one number, or one for each of 3 replicates, got"):
        make_solver().init(make_risk(), replica=(0, 1))


@every_algorithm
def test_no_step_leads_nowhere(make):
    risk, solver = bounded_risk(), make(2)
    state, _ = solver.advance(risk, solver.init(risk), 2)
    same, info = solver.advance(risk, state, 0)
    assert contents(same) == contents(state)
    assert (same.step, info.steps) == (state.step, 0)


@every_algorithm
def test_replicates_of_every_algorithm(make, tmp_path):
    risk = bounded_risk()
    record = {"mean": lambda state: state.measure.mean(state.particles[:, 0])}
    together = make(3).run(risk, 6, seed=5, record=record, record_every=2)
    for r in range(3):
        alone = make(1).run(risk, 6, state=make(1).init(risk, 5, replica=r), record=record, record_every=2)
        assert contents(together.state.replicate(r)) == contents(alone.state)
        for name, values in alone.history.items():
            np.testing.assert_array_equal(values, values if name == "step" else together.history[name][:, r])
        np.testing.assert_equal(vars(together.info.replicates[r]), vars(alone.info))
    assert contents(make(1).run(risk, 6, seed=5).state) == contents(together.state.replicate(0))
    # Three different runs, not one three times.
    assert len({contents(together.state.replicate(r))["mu"] for r in range(3)}) == 3
    # Cut by a checkpoint anywhere they are the same run.
    for n_steps in (1, 2, 5, 6):
        resumed = checkpoint.run(make(3), risk, n_steps, 5, path=tmp_path / "run.npz").state
    assert contents(resumed) == contents(together.state)
    # And through all that takes a run.
    values, attributes = statistics.export(together)
    assert values["mean"].shape == (3, 3)
    assert attributes["particles_interact"]
    assert statistics.summary(together)["mean"].mean == pytest.approx(together.history["mean"].mean())
    each = [
        risk.model.predict(one.measure.particles, risk.inputs, one.measure.weights) for one in together.state.each()
    ]
    np.testing.assert_allclose(together.predict(risk.inputs), np.mean(each, axis=0), rtol=1e-5, atol=1e-6)
    assert pickle.loads(pickle.dumps(together.state)).keys == together.state.keys


@every_algorithm
def test_particles_given_to_every_algorithm(make, rng):
    risk = bounded_risk()
    n_particles = make(1).init(risk).particles.shape[0]
    own = rng.normal(size=(3, n_particles, risk.n_coordinates)).astype(np.float32)
    state = make(3).init(risk, particles=own)
    for r in range(3):
        assert contents(state.replicate(r)) == contents(make(1).init(risk, particles=own[r], replica=r))
    with pytest.raises(ValueError, match=r"particles must have shape .*\(n_replicates, n_particles, coordinates\)"):
        make(3).init(risk, particles=own[:2])


@every_algorithm
def test_replicates_that_start_alike_have_noise_of_their_own(make):
    risk = bounded_risk()
    start = make(3).init(risk, particles=np.zeros((make(1).init(risk).particles.shape[0], risk.n_coordinates)))
    moved, _ = make(3).advance(risk, start, 1)
    # P-SDCA moves particles before its first step.
    for state in (start, moved) if isinstance(make(3), mfld.PSDCA) else (moved,):
        assert len({contents(one)["mu"] for one in state.each()}) == 3


def test_a_certificate_of_replicates():
    """The mean of dual points is one, and at least as good on average: D is concave."""
    risk = bounded_risk()
    result = mfld.PSDCA(200, temperature=0.05, n_replicates=3).run(risk, 4)
    duals = result.state.buffers["dual"]
    np.testing.assert_array_equal(result.dual, duals.mean(axis=0)[:, 0])
    found = result.certificate(n_chains=256)
    assert 0 <= found.upper < 0.1
    averaging = mfld.PDA(20, step_size=0.1, temperature=1e-2, n_replicates=3)
    state = averaging.run(risk, 2).state
    with pytest.raises(ValueError, match="the state has 3 replicates"):
        averaging.potential(risk, state)


def test_the_probe_of_an_estimator():
    risk = make_risk()
    solver = make_solver(gradient=mfld.Minibatch(4))
    single = replace(solver, n_replicates=1)
    _, info = solver.advance(risk, solver.init(risk), 5, probe=True)
    for r, one in enumerate(info.replicates):
        _, alone = single.advance(risk, single.init(risk, replica=r), 5, probe=True)
        assert one.gradient_variance == alone.gradient_variance > 0
    assert info.steps == 5
    assert info.gradient_variance == pytest.approx(np.mean([one.gradient_variance for one in info.replicates]))


def test_an_objective_of_the_user():
    objective = TargetMean(2)
    solver = make_solver()
    together = solver.run(objective, 30, seed=1).state
    single = replace(solver, n_replicates=1)
    for r in range(3):
        alone = single.run(objective, 30, state=single.init(objective, 1, replica=r)).state
        assert together.replicate(r).particles.tobytes() == alone.particles.tobytes()


def test_functions_of_the_user_see_one_thread():
    threads = set()

    def gradient(x):
        threads.add(threading.get_ident())
        return x

    make_solver(n_replicates=8, num_threads=4).run(mfld.Potential(gradient, n_coordinates=1), 50)
    assert threads == {threading.get_ident()}


def test_steps_can_be_cut_anywhere():
    risk = make_risk()
    solver = make_solver(gradient=mfld.SARAH(batch_size=4, refresh_every=5))
    whole = solver.run(risk, 20).state
    state = solver.init(risk)
    for n_steps in (1, 7, 0, 12):
        state, info = solver.advance(risk, state, n_steps)
        assert info.steps == n_steps
    assert state.step == 20
    assert state.clouds["mu"].particles.tobytes() == whole.clouds["mu"].particles.tobytes()


def test_replicates_of_replicates_count_on():
    risk = make_risk()
    whole = make_solver(n_replicates=5).run(risk, 9, seed=2).state
    solver = make_solver(n_replicates=2)
    part = solver.run(risk, 9, state=solver.init(risk, 2, replica=3)).state
    assert part.clouds["mu"].particles.tobytes() == whole.clouds["mu"].particles[3:].tobytes()
    # A state of more replicates than the solver makes goes on with all of its own.
    more, _ = solver.advance(risk, whole, 2)
    assert more.n_replicates == 5


def test_noise_and_start_are_those_of_the_replica():
    flat = mfld.Potential(np.zeros_like, n_coordinates=2)
    solver = make_solver(step_size=0.5, temperature=1.0, dtype="float64")
    start = solver.init(flat, seed=7)
    reached, _ = solver.advance(flat, start, 1)
    for r in range(3):
        particles = start.replicate(r).particles
        np.testing.assert_array_equal(
            particles, flat.initial_particles(30, noise.key(7, r) if r else 7, dtype="float64")
        )
        xi = noise.normals(7, 0, 30, 2, dtype="float64", replica=r)
        np.testing.assert_allclose(reached.replicate(r).particles, particles + xi, rtol=1e-14, atol=1e-15)


def test_replicates_are_independent():
    """Sample correlations of 60 independent normals have standard deviation 1 / sqrt(60)."""
    state = make_solver(n_replicates=6).run(TargetMean(2), 5).state
    flat = state.clouds["mu"].particles.reshape(6, -1).astype(float)
    flat -= state.clouds["mu"].particles.mean(axis=(1), keepdims=True).repeat(30, axis=1).reshape(6, -1)
    correlation = np.corrcoef(flat)[np.triu_indices(6, 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(60)


def test_given_particles():
    flat = mfld.Potential(np.zeros_like, n_coordinates=2)
    solver = make_solver()
    same = solver.init(flat, particles=np.ones((30, 2)))
    assert same.clouds["mu"].particles.shape == (3, 30, 2)
    own = np.arange(180.0).reshape(3, 30, 2)
    np.testing.assert_array_equal(solver.init(flat, particles=own).replicate(2).particles, own[2])
    with pytest.raises(ValueError, match=r"particles must have shape \(3, 30, 2\) .*got \(2, 30, 2\)"):
        solver.init(flat, particles=own[:2])


def test_a_checkpoint_keeps_all_replicates(tmp_path):
    risk = make_risk()
    solver = make_solver(gradient=mfld.SVRG(batch_size=4, refresh_every=5))
    path = tmp_path / "run.npz"
    checkpoint.run(solver, risk, 8, 3, path=path)
    resumed = checkpoint.run(solver, risk, 20, 3, path=path).state
    whole = solver.run(risk, 20, 3).state
    assert resumed.clouds["mu"].particles.tobytes() == whole.clouds["mu"].particles.tobytes()
    checkpoint.save(whole.replicate(2), path)
    assert checkpoint.load(path).replica == 2


# ---- states ----------------------------------------------------------------------------------------------------------


def test_a_state_of_several_replicates():
    risk = make_risk()
    state = make_solver().run(risk, 3).state
    assert state.n_replicates == 3
    with pytest.raises(ValueError, match=r"the state has 3 replicates: take one with \.replicate\(r\), or all mixed"):
        _ = state.particles
    with pytest.raises(ValueError, match="r must be between 0 and 2, got 3"):
        state.replicate(3)
    assert state.replicate(1).replicate(0).replica == 1
    again = pickle.loads(pickle.dumps(state.replicate(2)))
    assert (again.replica, again.key) == (2, noise.key(0, 2))
    clouds = {"a": mfld.Cloud(np.zeros((2, 3, 1))), "b": mfld.Cloud(np.zeros((1, 3, 1)))}
    with pytest.raises(ValueError, match=r"clouds must have the same number of replicates, got {'a': 2, 'b': 1}"):
        mfld.State(clouds, 0, 0)


def test_the_mixture_weighs_replicates_alike(rng):
    particles, weights = rng.normal(size=(2, 4, 3)), rng.random((2, 4))
    state = mfld.State({"mu": mfld.Cloud(particles, weights)}, 0, 0)
    mixture = state.measure
    np.testing.assert_array_equal(mixture.particles, particles.reshape(8, 3))
    np.testing.assert_allclose(mixture.weights, (weights / weights.sum(axis=1, keepdims=True)).ravel() / 2)


def test_predictions_of_the_mixture_are_the_mean(rng):
    risk = make_risk()
    result = make_solver(dtype="float64").run(risk, 10)
    inputs = rng.normal(size=(7, 3))
    each = [risk.model.predict(result.state.replicate(r).particles, inputs) for r in range(3)]
    np.testing.assert_allclose(result.predict(inputs), np.mean(each, axis=0), rtol=1e-12)
    assert result.measure.particles.shape == (90, 5)
    np.testing.assert_array_equal(result.weights, np.full(90, 1 / 90))
    info = result.info
    assert info.loss == pytest.approx(np.mean([one.loss for one in info.replicates]))
    assert info.loss == result.history["loss"][-1].mean()


# ---- ends ------------------------------------------------------------------------------------------------------------


def test_the_first_replicate_to_diverge_ends_all_at_one_step():
    def cube(x):
        with np.errstate(over="ignore"):
            return x**3

    steep = mfld.Potential(cube, n_coordinates=1)
    solver = make_solver(n_particles=2, n_replicates=4, temperature=0.0, dtype="float64")
    particles = np.ones((4, 2, 1))
    particles[1, 0], particles[2, 1] = 5.0, 6.0  # the larger, the sooner
    with pytest.raises(mfld.DivergenceError, match="particle 1 of replicate 2 is no longer finite") as caught:
        solver.run(steep, 1000, particles=particles)
    error = caught.value
    assert (error.replicate, error.particle, error.state.step) == (2, 1, error.step)
    assert np.isfinite(error.state.clouds["mu"].particles).all()
    expected = solver.run(steep, error.step, particles=particles).state
    assert error.state.clouds["mu"].particles.tobytes() == expected.clouds["mu"].particles.tobytes()
    single = replace(solver, n_replicates=1)
    with pytest.raises(mfld.DivergenceError) as alone:
        single.run(steep, 1000, particles=particles[2])
    assert alone.value.step == error.step
    again = pickle.loads(pickle.dumps(mfld.DivergenceError(*error.args)))  # without its result
    assert (again.replicate, str(again)) == (2, str(error))


def test_an_error_in_between_leaves_all_at_one_step():
    class Tired(TargetMean):
        calls = 0

        def loss_gradient(self, measure, batch=None):
            self.calls += 1
            if self.calls == 40:
                raise KeyboardInterrupt
            return super().loss_gradient(measure, batch)

    solver = make_solver()
    with pytest.raises(KeyboardInterrupt) as caught:
        solver.advance(Tired(2), solver.init(TargetMean(2)), 1000)
    state = caught.value.state
    assert 1 <= state.step <= 13  # 39 gradients were good
    expected = solver.run(TargetMean(2), state.step).state
    assert state.clouds["mu"].particles.tobytes() == expected.clouds["mu"].particles.tobytes()


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("n_particles", [4, 4096])
def test_native_replicates_diverge_together(n_particles, num_threads):
    """theta <- theta - 3 E theta is -2 theta where all are equal: the larger the start, the sooner it is too large."""
    model = mfld.TwoLayerNetwork(1, activation="identity", readout="fixed", bias=False)
    risk = mfld.EmpiricalRisk(model, [[1.0]], [0.0], loss="half_squared")
    solver = make_solver(n_particles=n_particles, n_replicates=4, step_size=3.0, temperature=0.0)
    particles = np.ones((4, n_particles, 1))
    particles[1], particles[3] = 2.0**40, 2.0**20
    with pytest.raises(mfld.DivergenceError, match="particle 0 of replicate 1 is no longer finite") as caught:
        replace(solver, num_threads=num_threads).run(risk, 1000, particles=particles)
    error = caught.value
    assert (error.state.step, error.replicate, error.step_size) == (error.step, 1, 3.0)
    assert 128 - 40 - np.log2(n_particles) - 3 <= error.step < 128 - 40  # sums over particles are too large before them
    exact = particles * (-2.0) ** error.step
    np.testing.assert_array_equal(error.state.clouds["mu"].particles, exact.astype(np.float32))


def test_replicates_of_dual_averaging_diverge_together():
    model = mfld.TwoLayerNetwork(1, activation="identity", readout="fixed", bias=False)
    risk = mfld.EmpiricalRisk(model, [[1.0]], [0.0], loss="half_squared", l2=0.3)
    solver = mfld.PDA(4, step_size=1e3, temperature=1e-3, inner_steps=5, n_replicates=3)
    particles = np.ones((3, 4, 1))
    particles[2] = 1e25
    with pytest.raises(mfld.DivergenceError, match="of replicate 2 is no longer finite") as caught:
        solver.run(risk, 50, particles=particles)
    state = caught.value.state
    assert state.step == caught.value.step
    assert contents(state) == contents(solver.run(risk, state.step, particles=particles).state)


@pytest.mark.parametrize("make", [algorithms()["PDA"], algorithms()["PSDCA"]], ids=["PDA", "PSDCA"])
def test_an_interrupt_leaves_replicates_at_one_step(make, monkeypatch):
    risk = bounded_risk()
    state = make(3).init(risk)
    calls = itertools.count()
    evaluate = Rows.cast

    def interrupted(self, dtype):
        if next(calls) == 40:
            raise KeyboardInterrupt
        return evaluate(self, dtype)

    monkeypatch.setattr(Rows, "cast", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        make(3).advance(risk, state, 1000)
    monkeypatch.undo()
    reached = caught.value.state
    assert 0 < reached.step < 1000
    assert contents(reached) == contents(make(3).run(risk, reached.step).state)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_while_threads_work():
    risk = make_risk(200)
    solver = make_solver(n_replicates=8, num_threads=2)
    main = threading.main_thread().ident
    strike = threading.Timer(0.5, lambda: (signals.append(time.monotonic()), signal.pthread_kill(main, signal.SIGINT)))
    signals = []
    strike.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        solver.run(risk, 10**9)
    assert time.monotonic() - signals[0] < 2  # asked every 0.05 s; the rest is for a busy machine
    state = caught.value.state
    assert state.step > 0
    expected, _ = solver.advance(risk, solver.init(risk), min(state.step, 200))
    if state.step <= 200:
        assert state.clouds["mu"].particles.tobytes() == expected.clouds["mu"].particles.tobytes()
    assert len({len(cloud.particles) for cloud in state.clouds.values()}) == 1


# ---- statistics ------------------------------------------------------------------------------------------------------


def autoregression(n_records=400, n_replicates=8, start=None):
    """The mean of 10 particles in a quadratic well, every second step: an autoregression of known law.

    m <- (1 - h) m + sqrt(2 T h / N) xi: stationary variance T / (N (1 - h / 2)), correlation (1 - h)**k at lag k.
    """
    well = mfld.Potential(lambda x: x, n_coordinates=1)
    solver = mfld.MFLD(10, step_size=0.4, temperature=1.0, n_replicates=n_replicates, dtype="float64", num_threads=1)
    record = {"mean": lambda state: state.particles.mean(), "both": lambda state: state.particles[:2, 0]}
    return solver.run(well, 2 * n_records + 20, seed=3, particles=start, record_every=2, record=record)


def test_effective_sample_size_of_an_autoregression():
    found = statistics.convergence(autoregression(), burn_in=20)
    rho = 0.6**2
    exact = 8 * 400 * (1 - rho) / (1 + rho)
    # The estimate of an autocorrelation time from n draws is off by a few times sqrt(time / n), here some percent.
    assert abs(found["mean"].ess / exact - 1) < 0.25
    assert found["mean"].rhat < 1.02
    assert found["both"].rhat.shape == found["both"].ess.shape == (2,)
    assert set(found) == {"mean", "both", "gradient_norm"}  # not what is constant or missing


def test_replicates_that_did_not_meet_have_a_large_rhat():
    start = np.linspace(-1e6, 1e6, 8)[:, np.newaxis, np.newaxis] * np.ones((8, 10, 1))
    apart = statistics.convergence(autoregression(8, start=start))
    assert apart["mean"].rhat > 1.5


def test_summary_and_its_error():
    result = autoregression()
    found = statistics.summary(result, burn_in=20)["mean"]
    draws = result.history["mean"][result.history["step"] > 20]
    assert found.mean == pytest.approx(draws.mean())
    means = draws.mean(axis=0)
    assert found.spread == pytest.approx(np.sqrt(np.sum((means - means.mean()) ** 2) / 7))
    assert found.error == pytest.approx(found.spread / np.sqrt(8))
    # Against the law: variance of the mean of n draws with geometric correlation.
    rho, variance = 0.6**2, 1 / (10 * (1 - 0.2))
    exact = variance / 400 * (1 + rho) / (1 - rho)
    assert abs(found.spread**2 / exact - 1) < 5 * np.sqrt(2 / 7)
    assert abs(found.mean) < 5 * np.sqrt(exact / 8)


def test_export():
    values, attributes = statistics.export(autoregression(6), burn_in=24)
    assert {name: value.shape for name, value in values.items()} == {
        "gradient_norm": (8, 4),
        "step_size": (8, 4),
        "temperature": (8, 4),
        "l2": (8, 4),
        "mean": (8, 4),
        "both": (8, 4, 2),
    }
    assert attributes == {"step": [26, 28, 30, 32], "particles_interact": False}
    single = make_solver(n_replicates=1).run(make_risk(), 10)
    values, attributes = statistics.export(single)
    assert values["loss"].shape == (1, 10)
    assert attributes["particles_interact"]
    np.testing.assert_array_equal(values["loss"][0], single.history["loss"])


def test_misuse():
    result = make_solver().run(make_risk(), 3)
    with pytest.raises(ValueError, match="burn_in must be below 3, the last step recorded, got 3"):
        statistics.export(result, burn_in=3)
    with pytest.raises(ValueError, match="burn_in must leave 4 records at least, got 3"):
        statistics.convergence(result)
    with pytest.raises(ValueError, match="result must have several replicates"):
        statistics.summary(make_solver(n_replicates=1).run(make_risk(), 3))
    with pytest.raises(TypeError, match="result must be a Result"):
        statistics.export(result.history)
    with pytest.raises(ValueError, match="n_replicates must be at least 1, got 0"):
        make_solver(n_replicates=0)


def test_what_arviz_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_stats.base", None)
    with pytest.raises(ImportError, match=r"need arviz-stats: pip install 'mfld\[diagnostics\]'"):
        statistics.convergence(make_solver().run(make_risk(), 10))


# ---- what the mixture buys -------------------------------------------------------------------------------------------


def test_a_mixture_of_small_ensembles_is_as_good_as_a_large_one():
    """Mean of the cloud: m <- m - h (m - target + 2 l2 m) + sqrt(2 T h / N) xi, with a = 1 + 2 l2.

    Stationary: mean target / a for every N, variance T / (N a (1 - a h / 2)); for the mixture of R of them that of R N
    particles. 20 coordinates and 30 records 25 steps apart, at a correlation of 0.88**25 = 0.04, are 600 draws.
    """
    objective = TargetMean(20)
    options = {"step_size": 0.1, "temperature": 0.5, "dtype": "float64", "num_threads": 1}
    a = 1 + 2 * objective.l2
    limit = objective.target / a
    exact = 0.5 / (a * (1 - a * 0.1 / 2))
    steps = list(range(100, 850, 25))

    def errors(n_particles, n_replicates):
        solver = mfld.MFLD(n_particles, n_replicates=n_replicates, **options)
        record = {"mean": lambda state: state.particles.mean(axis=0)}
        history = solver.run(objective, 825, seed=4, record_every=steps, record=record).history["mean"]
        return history.reshape(len(steps), n_replicates, 20) - limit

    small, large = errors(25, 8), errors(200, 1)
    tolerance = 5 * np.sqrt(2 / 600)
    assert abs(np.mean(small.mean(axis=1) ** 2) / (exact / 200) - 1) < tolerance
    assert abs(np.mean(large**2) / (exact / 200) - 1) < tolerance
    assert abs(np.mean(small**2) / (exact / 25) - 1) < tolerance / np.sqrt(8)
