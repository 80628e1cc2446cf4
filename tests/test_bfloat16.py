"""Runs with products of bfloat16: right to the rounding, the same bytes as always, and refused where there are none."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest

import mfld
from mfld import _core, bfloat16, checkpoint, experiments
from mfld.mpi import Sharded
from mfld.pieces import InPieces
from ranks import on_ranks, same

only_here = pytest.mark.skipif(not _core.backend.has_bfloat16, reason=f"no products of bfloat16: {bfloat16.missing()}")


def nearest(x):
    """Rounded to 8 bits, ties to even: by the definition, where the library works on bits."""
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.rint(mantissa * 2**8), exponent - 8)


def towards_zero(x):
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.trunc(mantissa * 2**8), exponent - 8)


def numbers(pairs, d):
    return (np.ascontiguousarray(pairs).view(np.uint16).astype(np.uint32) << 16).view(np.float32)[:, :d]


def make_risk(n=211, d=7, n_outputs=1, activation="tanh", bias=True, weighted=False, seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(n, d)).astype(np.float32)
    targets = np.sin(inputs[:, :1] @ np.ones((1, n_outputs))) + np.arange(n_outputs)
    model = mfld.TwoLayerNetwork(d, n_outputs=n_outputs, activation=activation, bias=bias)
    weight = rng.uniform(1, 2, n) if weighted else None
    return mfld.EmpiricalRisk(model, inputs, targets, loss="half_squared", l2=1e-3, sample_weight=weight)


def solver(n_particles=70, dtype="bfloat16", **options):
    return mfld.MFLD(n_particles, **{"step_size": 0.1, "temperature": 1e-3, "dtype": dtype, **options})


# ---- rounding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 5, 8])
def test_data_are_rounded_to_nearest(d):
    rng = np.random.default_rng(1)
    inputs = (rng.normal(size=(400, d)) * 10.0 ** rng.integers(-30, 30, size=(400, d))).astype(np.float32)
    inputs[:4, 0] = [1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, 1 + 2.0**-8 + 2.0**-20]  # ties, and just above one
    found = numbers(bfloat16.pairs(inputs), d)
    assert np.array_equal(found, nearest(inputs))
    assert found[:4, 0].tolist() == [1.0, 1 + 2.0**-6, -1.0, 1 + 2.0**-7]
    assert (found != towards_zero(inputs)).mean() > 0.4
    assert np.array_equal(bfloat16.pairs(inputs.astype(np.float64)), bfloat16.pairs(inputs))


def test_data_that_the_processor_takes_for_0_are_0():
    smallest = 2.0**-126
    inputs = np.array([[smallest, -smallest, smallest / 2, -smallest * (1 - 2.0**-7), smallest * (1 - 2.0**-10)]])
    assert numbers(bfloat16.pairs(inputs), 5).tolist() == [[smallest, -smallest, 0.0, 0.0, smallest]]
    column = np.where(np.arange(40) % 3 == 0, smallest / 2, -smallest / 2)  # exact with 8 bits
    with pytest.raises(ValueError, match=r"rounding changes column 0 by 1\d\d% of its standard deviation"):
        bfloat16.pairs(column[:, np.newaxis])


@pytest.mark.parametrize("value", [3.4e38, -3.4e38])
def test_data_beyond_bfloat16_are_refused(value):
    inputs = np.zeros((9, 2), np.float32)
    inputs[4, 1] = value
    with pytest.raises(ValueError, match=r"inputs must be at most 3\.38e38 in size for bfloat16, got 3\.4e\+38"):
        bfloat16.pairs(inputs)


def test_data_far_from_0_are_refused():
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(500, 3))
    bfloat16.pairs(inputs + 10)
    bfloat16.pairs(inputs * [1, 0, 1] + [0, 1000.1, 0])  # a constant: like a bias
    with pytest.raises(ValueError, match=r"rounding changes column 1 by .*% of its standard deviation"):
        bfloat16.pairs(inputs + np.array([0, 1000, 0]))


# What a gradient is by float64 products of rounded numbers. Which of the three are rounded how is the caller's.
def expected(risk, particles, of_data, of_weights, of_gains):
    x, y = np.asarray(risk.inputs, np.float64), risk.targets
    theta, d, k = np.asarray(particles, np.float64), risk.model.n_features, risk.model.n_outputs
    n, s = len(x), risk.sample_weight
    s = np.full(n, 1 / n) if s is None else s
    z = of_data(x) @ of_weights(theta[:, :d].T) + (theta[:, d] if risk.model.bias else 0)
    value, slope = {
        "tanh": lambda: (np.tanh(z), 1 - np.tanh(z) ** 2),
        "relu": lambda: (np.maximum(z, 0), (z > 0) * 1.0),
        "softplus": lambda: (np.logaddexp(0, z), 1 / (1 + np.exp(-z))),
    }[risk.model.activation]()
    readout = theta[:, -k:]
    predictions = value @ readout / len(theta)
    cotangent = s[:, None] * (predictions - y)
    # One output: its coefficient is the same for all samples, and applied to their sum.
    gains = cotangent * slope if k == 1 else (cotangent @ readout.T) * slope
    of_w, of_b = of_gains(gains).T @ of_data(x), gains.sum(axis=0)[:, None]
    if k == 1:
        of_w, of_b = of_w * readout, of_b * readout
    parts = [of_w, of_b, value.T @ cotangent] if risk.model.bias else [of_w, value.T @ cotangent]
    return predictions, np.concatenate(parts, axis=1)


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


# Float32 sums and activations are off by 1e-6. A gain that float32 takes across a tie is rounded the other way: one in
# some thousands, each by 2^-7 of itself at most, which comes to 1e-4 of the gradient. Truncation is off by 1e-3.
TOLERANCE = 2e-4


@only_here
@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus"])
@pytest.mark.parametrize(("n_outputs", "bias", "weighted"), [(1, True, False), (1, False, True), (3, True, True)])
@pytest.mark.parametrize(("n", "d"), [(211, 7), (96, 24), (1, 1), (700, 50)])
def test_a_gradient_is_that_of_rounded_numbers(activation, n_outputs, bias, weighted, n, d):
    risk = make_risk(n, d, n_outputs, activation, bias, weighted)
    run = solver(gradient=mfld.SVRG(1, 2))  # which keeps its full gradient
    begun = run.init(risk, seed=4)
    state, _ = run.advance(risk, begun)
    predictions, gradient = expected(risk, begun.particles, nearest, nearest, nearest)
    assert distance(state.buffers["anchor_predictions"][0], predictions) < 1e-5
    found = state.buffers["anchor_gradient"][0]
    assert distance(found, gradient) < (TOLERANCE if n > 90 else 1e-3)
    assert distance(found[:, d:], gradient[:, d:]) < 1e-5
    if n > 100:
        for truncated in range(3):
            ways = [towards_zero if part == truncated else nearest for part in range(3)]
            assert distance(expected(risk, begun.particles, *ways)[1], gradient) > 3 * TOLERANCE


SMOOTH = mfld.dynamics.Preconditioned(second_moment=1.0)  # its first steps are not those of signs


@only_here
@pytest.mark.parametrize("gradient", [mfld.Minibatch(33), mfld.SVRG(33, 3), mfld.SARAH(33, 3)])
@pytest.mark.parametrize("dynamics", [mfld.Overdamped(), mfld.Underdamped(friction=2.0), SMOOTH])
def test_all_steps_of_the_core_stay_beside_float32(gradient, dynamics):
    risk = make_risk(n_outputs=2)
    ends = {}
    for dtype in ("float32", "bfloat16"):
        run = solver(dtype=dtype, gradient=gradient, dynamics=dynamics, step_size=0.05)
        ends[dtype] = run.run(risk, 20, seed=3)
    moved = distance(ends["float32"].particles, solver().init(risk, seed=3).particles)
    assert 0 < distance(ends["bfloat16"].particles, ends["float32"].particles) < 3e-3
    assert moved > 0.05
    assert ends["bfloat16"].particles.dtype == np.float32


@only_here
def test_the_bias_is_far_below_the_noise_of_a_run():
    datasets = pytest.importorskip("sklearn.datasets")
    inputs, labels = datasets.load_digits(return_X_y=True)
    inputs = (inputs - inputs.mean(axis=0)) / 16
    train, test = slice(0, 1200), slice(1200, None)
    model = mfld.TwoLayerNetwork(64, n_outputs=10)
    risk = mfld.EmpiricalRisk(model, inputs[train], labels[train], loss="cross_entropy", l2=1e-4)

    def trained(dtype, seed):
        run = solver(300, dtype, step_size=0.5, temperature=1e-6, num_threads=1)
        result = run.run(risk, 100, seed=seed)
        return result.predict(inputs[test]), risk.loss(result.particles)

    (exact, loss), (rounded, rounded_loss) = trained("float32", 0), trained("bfloat16", 0)
    other, other_loss = trained("float32", 1)
    bias, noise = (np.sqrt(np.mean((end - exact) ** 2)) for end in (rounded, other))
    assert 0 < bias < 0.03 * noise  # 0.7 % where this was written
    assert bias < 2e-3 * np.sqrt(np.mean(exact**2))
    assert abs(rounded_loss - loss) < 0.1 * abs(other_loss - loss)
    right = [(end.argmax(axis=1) == labels[test]).mean() for end in (exact, rounded)]
    assert min(right) > 0.85
    assert abs(right[0] - right[1]) <= 0.005


# ---- the contract ----------------------------------------------------------------------------------------------------

ESTIMATORS = [mfld.FullBatch(), mfld.Minibatch(17), mfld.SVRG(17, 3), mfld.SARAH(17, 3)]


@only_here
@pytest.mark.parametrize("gradient", ESTIMATORS, ids=repr)
def test_bytes_do_not_depend_on_threads_ranks_pieces_replicates_or_calls(gradient, tmp_path):
    risk = make_risk(1500, 9, n_outputs=2)  # several blocks
    options = {"gradient": gradient, "n_particles": 600}
    run = solver(num_threads=1, **options)
    alone = run.run(risk, 7, seed=5).state
    for threads in (2, 3, 7):
        assert same(solver(num_threads=threads, **options).run(risk, 7, seed=5).state, alone)
    cut = run.init(risk, seed=5)
    for n_steps in (1, 4, 2):
        cut, _ = run.advance(risk, cut, n_steps)
    assert same(cut, alone)
    several = solver(n_replicates=3, num_threads=2, **options).run(risk, 7, seed=5).state
    assert same(several.replicate(0), alone)
    if isinstance(gradient, (mfld.FullBatch, mfld.Minibatch)):  # others keep more than particles
        in_pieces = InPieces(run, tmp_path / "cloud.npy", 3).run(risk, 7, seed=5)
        assert in_pieces.particles.tobytes() == alone.particles.tobytes()
    for shard in ("particles", "rows") if gradient == mfld.FullBatch() else ("auto",):
        for shared in on_ranks(3, lambda comm, shard=shard: Sharded(run, comm, shard=shard).run(risk, 7, seed=5)):
            assert same(shared.state, alone)


@only_here
def test_the_particles_of_a_smaller_cloud_do_not_matter_to_padding():
    risk = make_risk(50, 3)
    for n_particles in (1, 31, 32, 33):
        run = solver(n_particles, gradient=mfld.SVRG(1, 2))
        begun = run.init(risk)
        state, _ = run.advance(risk, begun)
        gradient = expected(risk, begun.particles, nearest, nearest, nearest)[1]
        assert distance(state.buffers["anchor_gradient"][0], gradient) < 5e-4


@only_here
def test_a_resumed_run_is_the_run_and_of_no_other_precision(tmp_path):
    risk, path = make_risk(), tmp_path / "run.npz"
    whole = solver().run(risk, 20, seed=1)
    checkpoint.run(solver(), risk, 9, 1, path=path)
    assert same(checkpoint.run(solver(), risk, 20, 1, path=path).state, whole.state)
    with pytest.raises(ValueError, match="bfloat16"):
        checkpoint.run(solver(dtype="float32"), risk, 30, 1, path=path)


# ---- refusals --------------------------------------------------------------------------------------------------------


@only_here
@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"gradient": mfld.PerParticleMinibatch(5)}, "PerParticleMinibatch"),
        ({"dynamics": mfld.Irreversible(np.triu(np.ones((9, 9)), 1) - np.tril(np.ones((9, 9)), -1))}, "Irreversible"),
        ({"dynamics": mfld.Underdamped(friction=2.0, scheme="obabo")}, "obabo"),
        ({"step_size": "fuse"}, "Fuse"),
    ],
)
def test_steps_that_the_core_does_not_make_are_refused(options, what):
    risk = make_risk()
    with pytest.raises(TypeError, match=f"dtype must be 'float32' or 'float64' here, got 'bfloat16'.*{what}"):
        solver(**options).init(risk)


@only_here
@pytest.mark.parametrize("two_phases", [False, True])
def test_the_bias_of_a_run_is_found_by_noise_of_its_own(two_phases):
    run = solver(24)
    run = mfld.TwoPhase(run, switch=3) if two_phases else run
    risk = make_risk(20, 3)
    report = mfld.bias_report(run, risk, lambda state: np.mean(state.particles**2), n_steps=6, n_replicates=4)
    assert not report.coupled
    assert np.isfinite(report.value.value)


@only_here
def test_objectives_without_such_products_are_refused(tmp_path):
    model = mfld.TwoLayerNetwork(2)
    np.save(tmp_path / "inputs.npy", np.ones((5, 2), np.float32))
    on_disk = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    stream = mfld.StreamRisk(model, lambda step, n: (np.zeros((n, 2)), np.zeros(n)), loss="half_squared")
    well = mfld.Potential(lambda x: x, n_coordinates=1)
    for objective, gradient in ((stream, mfld.Minibatch(4)), (well, mfld.FullBatch())):
        with pytest.raises(TypeError, match="dtype must be 'float32' or 'float64' here, got 'bfloat16'"):
            solver(gradient=gradient).init(objective)
    with pytest.raises(ValueError, match="inputs must be in memory for dtype='bfloat16'"):
        solver().init(mfld.EmpiricalRisk(model, on_disk, np.zeros(5, np.float32), loss="half_squared"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"method": "pda"}, "method must be 'mfld' with dtype='bfloat16', got 'pda'"),
        ({"depth": 2}, "depth must be None with dtype='bfloat16', got 2"),
        ({"epsilon": 1.0}, "epsilon must be None with dtype='bfloat16'"),
        ({"readout": "bilevel", "strength": 0.1}, "readout must be another with dtype='bfloat16', got 'bilevel'"),
        ({"step_size": "fuse"}, "step_size must be a number with dtype='bfloat16', got 'fuse'"),
    ],
)
def test_recipes_without_such_products_are_refused(other, message):
    with pytest.raises(ValueError, match=message):
        experiments.Recipe(dtype="bfloat16", **other)


@only_here
def test_a_recipe_trains():
    pytest.importorskip("sklearn", "1.6")
    ends = {}
    for dtype in ("float32", "bfloat16"):
        recipe = experiments.Recipe(dtype=dtype, n_particles=64, n_steps=30, validation_particles=32)
        ends[dtype] = experiments.train(experiments.load("digits"), seed=1, recipe=recipe)
    assert ends["bfloat16"].result.algorithm.dtype == "bfloat16"
    rounded, exact = (ends[dtype].result.particles for dtype in ("bfloat16", "float32"))
    assert 0 < distance(rounded, exact) < 1e-2


@only_here
def test_estimators_train():
    sklearn = pytest.importorskip("mfld.sklearn")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 4))
    y = np.sign(X[:, 0])
    ends = {}
    for dtype in ("float32", "bfloat16"):
        ends[dtype] = sklearn.MeanFieldClassifier(dtype=dtype, n_particles=64, n_steps=30, random_state=0).fit(X, y)
    rounded, exact = (ends[dtype].cloud_.particles for dtype in ("bfloat16", "float32"))
    assert rounded.dtype == exact.dtype == np.float32
    assert 0 < distance(rounded, exact) < 1e-2
    with pytest.raises(ValueError, match=r"epsilon must be None with dtype='bfloat16', got 2\.0"):
        sklearn.MeanFieldClassifier(dtype="bfloat16", epsilon=2.0).fit(X, y)
    with pytest.raises(TypeError, match="dtype must be 'float32' or 'float64' here, got 'bfloat16'"):
        sklearn.ResidualClassifier(dtype="bfloat16", n_steps=3).fit(X, y)


def test_other_algorithms_have_no_bfloat16():
    for algorithm in (functools.partial(mfld.PDA, step_size=0.1), mfld.PSDCA):
        with pytest.raises(TypeError, match="dtype must be float32 or float64, got 'bfloat16'"):
            algorithm(64, temperature=0.1, dtype="bfloat16")
    with pytest.raises(TypeError, match="dtype must be float32, float64 or 'bfloat16', got 'bfloat'"):
        solver(dtype="bfloat")
    with pytest.raises(ValueError, match="dtype must be float32, float64 or 'bfloat16', got float16"):
        solver(dtype="float16")


@pytest.mark.parametrize("level", [level for level in _core.available_levels() if level in ("base", "v3")])
def test_a_level_without_such_products_says_so(level):
    code = "import mfld; mfld.MFLD(5, temperature=0.1, dtype='bfloat16')"
    environment = {**os.environ, "MFLD_ISA": level}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    lacking = f"the level {level}" if _core.processor_has_bfloat16 else "this processor lacks avx512_bf16"
    assert f"dtype must be 'float32' or 'float64' here, got 'bfloat16': {lacking}" in done.stderr


def test_a_processor_without_such_products_is_named(monkeypatch):
    class Plain:
        has_bfloat16, isa = False, "v4"

    monkeypatch.setattr(_core, "backend", Plain())
    monkeypatch.setattr(_core, "processor_has_bfloat16", False)
    assert bfloat16.missing() == "this processor lacks avx512_bf16"


@only_here
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {**a, "particles": a["particles"].astype(np.float64)}, "inputs of bfloat16 need float32 particles"),
        (lambda a: {**a, "on_disk": True}, "inputs of bfloat16 need"),
        (lambda a: {**a, "inputs": a["inputs"][:, :3]}, r"inputs must have shape \(any, 4\)"),
    ],
)
def test_the_core_refuses_what_does_not_fit(change, message):
    problem = make_risk().native_in_bfloat16()
    given = change({"particles": np.zeros((1, 5, 9), np.float32), "inputs": problem.inputs, "on_disk": False})
    with pytest.raises((TypeError, ValueError), match=message):
        _core.backend.advance(
            problem.network,
            problem.loss,
            given["particles"],
            np.ascontiguousarray(given["inputs"]),
            problem.targets,
            None,
            _core.Estimator("full_batch"),
            _core.Dynamics("affine"),
            (0.1, 0.1, 0.1),
            1,
            [1],
            0,
            on_disk=given["on_disk"],
        )
