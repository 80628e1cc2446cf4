"""step_size="fuse": the formula, and that it goes wherever a run goes."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld
from mfld import checkpoint, cli, noise
from mfld.dynamics import fuse

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(200, 3))
RISK = mfld.EmpiricalRisk(
    mfld.TwoLayerNetwork(3), INPUTS, np.tanh(INPUTS[:, 0]) + INPUTS[:, 1] / 2, loss="half_squared", l2=1e-3
)


def solver(**options):
    return mfld.MFLD(
        **{"n_particles": 30, "step_size": "fuse", "temperature": 1e-3, "num_threads": 1, **options},
    )


def same(one, other):
    assert one.step == other.step
    assert one.particles.tobytes() == other.particles.tobytes()
    assert one.buffers.keys() == other.buffers.keys()
    for name, buffer in one.buffers.items():
        assert buffer.tobytes() == other.buffers[name].tobytes()


def test_the_formula():
    """Step by step by hand, on a potential with a ridge."""
    curvatures, l2, temperature, n, seed = np.array([1.0, 3.0]), 0.25, 0.3, 5, 4
    well = mfld.Potential(lambda x: curvatures * x, n_coordinates=2, l2=l2)
    start = np.random.default_rng(1).normal(size=(n, 2))
    run = solver(n_particles=n, temperature=temperature, dtype="float64")
    state = run.init(well, seed=seed, particles=start)
    theta, squares = start.copy(), 0.0
    radius = fuse.FIRST_RADIUS * (1 + np.sqrt(np.mean(np.sum(start**2, axis=1))))
    for k in range(40):
        b = curvatures * theta + 2 * l2 * theta
        squares += np.mean(np.sum(b**2, axis=1))
        size = radius / np.sqrt(squares)
        quiet = theta - size * b
        xi = noise.normals(seed, k, n, 2, dtype="float64", stream="move")
        theta = quiet + np.sqrt(2 * temperature * size) * xi
        radius = max(radius, np.sqrt(np.mean(np.sum((quiet - start) ** 2, axis=1))))
        state, info = run.advance(well, state)
        assert_allclose(state.particles, theta, rtol=1e-9)
        assert_allclose(info.step_size, size, rtol=1e-9)
    assert radius > 1  # it has grown


@pytest.mark.parametrize("gradient", [mfld.FullBatch(), mfld.Minibatch(32)], ids=["full", "minibatch"])
def test_four_decades_of_first_radii_end_at_the_same_step(gradient, monkeypatch):
    sizes, losses = [], []
    for first in (1e-7, 1e-6, 1e-5, 1e-4, 1e-3):
        monkeypatch.setattr(fuse, "FIRST_RADIUS", first)
        result = solver(n_particles=60, temperature=1e-4, gradient=gradient).run(RISK, 500, record_every=500)
        sizes.append(result.info.step_size)
        losses.append(RISK.loss(result.measure))
    assert max(sizes) / min(sizes) < 1.6
    assert max(losses) < 0.01  # 0.6 at the start
    automatic = solver(n_particles=60, step_size=None, temperature=1e-4, gradient=gradient).run(RISK, 500).measure
    assert max(losses) < 2 * RISK.loss(automatic) + 2e-3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient": mfld.SVRG(20, 5), "dtype": "float64"},
        {"gradient": mfld.Minibatch(20), "temperature": mfld.schedules.Geometric(1e-3, 0.5, 4), "l2": 2e-3},
        {"dynamics": mfld.Overdamped("exact"), "temperature": 0.0},
    ],
    ids=["full", "svrg", "schedules", "exact ridge"],
)
def test_k_steps_and_k_steps_are_2k_steps(options, tmp_path):
    run = solver(**options)
    whole, info = run.advance(RISK, run.init(RISK, seed=1), 14)
    half, _ = run.advance(RISK, run.init(RISK, seed=1), 7)
    checkpoint.save(half, tmp_path / "half.npz", algorithm=run, objective=RISK)
    loaded = checkpoint.load(tmp_path / "half.npz", algorithm=run, objective=RISK)
    again, last = run.advance(RISK, loaded, 7)
    same(again, whole)
    assert last.step_size == info.step_size > 0
    assert whole.particles.tobytes() == solver(**options, num_threads=3).run(RISK, 14, seed=1).particles.tobytes()


def test_replicates():
    """Each has a step of its own, and is, to the bit, the run of it alone."""
    both, info = solver(n_replicates=3, temperature=(1e-3, 1e-2, 0.1)).advance(
        RISK, solver(n_replicates=3).init(RISK, seed=2), 9
    )
    assert len({one.step_size for one in info.replicates}) == 3
    for r, temperature in enumerate((1e-3, 1e-2, 0.1)):
        one = solver(temperature=temperature)
        alone, own = one.advance(RISK, one.init(RISK, seed=2, replica=r), 9)
        same(both.replicate(r), alone)
        assert own.step_size == info.replicates[r].step_size


def test_recipes_of_two_phases_start_anew_with_descent():
    two = mfld.TwoPhase(solver(), switch=10)
    whole = two.run(RISK, 20)
    part, _ = two.advance(RISK, two.init(RISK), 13)
    again, _ = two.advance(RISK, part, 7)
    same(again, whole.state)
    explored = solver().run(RISK, 10).particles
    assert_allclose(whole.state.buffers["fuse_start"][0], explored)


def test_members_move_together():
    class Pair(mfld.Objective):
        members = (2,)
        space = mfld.Space(1)
        reference = mfld.references.Gaussian(0.1)

        def loss(self, measure):
            return 0.0

        def loss_gradient(self, measure, batch=None):
            return self.cloud(measure).particles * np.array([1, 2], np.float32)[:, np.newaxis, np.newaxis]

        def first_variation(self, measure, batch=None):
            raise NotImplementedError

    run = solver(n_particles=4)
    state, info = run.advance(Pair(), run.init(Pair()), 30)
    assert state.particles.shape == (2, 4, 1)
    assert info.step_size > 0
    assert state.buffers["fuse_start"].shape == (1, 2, 4, 1)


@pytest.mark.parametrize("first", [0.0, 1e-3])
def test_flat_potentials_stay_finite(first):
    flat = mfld.Potential(lambda x: 0 * x, n_coordinates=1)
    state, info = solver(n_particles=3, temperature=first).advance(flat, solver(n_particles=3).init(flat), 5)
    assert np.isfinite(state.particles).all()
    assert info.step_size == 1.0


def test_what_it_does_not_suit_is_refused():
    with pytest.raises(TypeError, match="step_size must be a real number or 'fuse', got 'fast'"):
        solver(step_size="fast")
    with pytest.raises(ValueError, match=r"step_size must be a number with Underdamped.*: 'fuse' is for Overdamped"):
        solver(dynamics=mfld.Underdamped(1.0))
    with pytest.raises((TypeError, ValueError), match=r"step_size\[0\] must be"):
        solver(step_size=("fuse", "fuse"), n_replicates=2)
    circle = mfld.Potential(np.sin, space=mfld.Space(domain=[mfld.Torus(1)]), reference=mfld.references.Uniform())
    with pytest.raises(ValueError, match="step_size must not be 'fuse' on the domain"):
        solver().init(circle)
    with pytest.raises((TypeError, ValueError), match="step_size must be"):
        mfld.PDA(10, step_size="fuse", temperature=0.1)


def test_another_number_of_particles_is_refused():
    state = solver().run(RISK, 3).state
    fewer = mfld.State({"mu": mfld.Cloud(state.particles[np.newaxis, :9])}, 3, 0, buffers=state.buffers)
    with pytest.raises(ValueError, match="fuse_start"):
        solver().advance(RISK, fewer)


def test_divergence_is_told(monkeypatch):
    wall = mfld.Potential(lambda x: np.where(np.abs(x) > 1.5, np.nan, x), n_coordinates=1)
    run = solver(n_particles=4, temperature=3.0)
    with pytest.raises(mfld.DivergenceError) as caught:
        run.run(wall, 500, particles=np.ones((4, 1)))
    assert np.isfinite(caught.value.state.particles).all()
    assert caught.value.step_size > 0


def test_command_line(tmp_path, capsys):
    command = ["train", "iris", "--step-size", "fuse", "--n-steps", "300", "--quiet"]
    output = ["--output", str(tmp_path / "iris.npz"), "--num-threads", "1"]
    assert cli.main([*command, *output, "--n-particles", "60", "--l2", "0.001,0.01"]) == 0
    printed = capsys.readouterr().out
    assert "step size fuse, 300 steps" in printed
    assert float(printed.split("test ")[1].split("accuracy ")[1].split()[0]) >= 0.9
    assert cli.main(["info", str(tmp_path / "iris.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hyperparameters"]["step_size"] == "fuse"
    for wrong, message in [
        (["--method", "pda"], "--step-size must be a number with --method pda, got 'fuse'"),
        (["--step-share", "0.3"], "--step-share must be left out with --step-size fuse, got 0.3"),
        (["--schedule", "log"], "--step-size-schedule must be left out with --step-size fuse"),
        (["--step-size", "slow"], "must be a number or 'fuse', got 'slow'"),
    ]:
        try:
            status = cli.main([*command, *output, *wrong])
        except SystemExit as stopped:
            status = stopped.code
        assert status == 2
        assert message in capsys.readouterr().err


def test_scikit_learn():
    sklearn = pytest.importorskip("mfld.sklearn")
    y = np.tanh(INPUTS[:, 0])
    fitted = sklearn.MeanFieldRegressor(step_size="fuse", warm_start=True, random_state=0).fit(INPUTS, y)
    assert fitted.score(INPUTS, y) > 0.95
    before = fitted.step_size_
    fitted.fit(INPUTS, y)
    assert 0.5 * before < fitted.step_size_ < 2 * before  # it goes on
    assert fitted.n_iter_ == 1000
    with pytest.raises(ValueError, match="step_size must be a number for algorithm='pda', got 'fuse'"):
        sklearn.MeanFieldRegressor(step_size="fuse", algorithm="pda").fit(INPUTS, y)
