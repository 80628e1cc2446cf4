"""Weighted particles: whatever takes a measure sees integer weights as so many copies of the particles."""

import dataclasses
import re
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld
from mfld import experiments, plots, pruning, quantities

TIMES = np.array([1, 4, 2, 1, 3])


def pair(particles):
    """The same measure with weights and as copies."""
    weighted = mfld.Cloud(particles, TIMES / TIMES.sum())
    return weighted, mfld.Cloud(np.repeat(particles, TIMES, axis=0))


def states(particles):
    return [
        mfld.State(
            {"mu": mfld.Cloud(c.particles[np.newaxis], None if c.weights is None else c.weights[np.newaxis])}, 1, 0
        )
        for c in pair(particles)
    ]


def network(n_outputs=1):
    return mfld.TwoLayerNetwork(2, n_outputs, activation="tanh", readout="bounded", readout_bound=3.0)


def own_neurons():
    return mfld.NeuronModel(
        lambda theta, z: np.tanh(z @ theta.T),
        lambda theta, z: (1 - np.tanh(z @ theta.T) ** 2)[:, :, np.newaxis] * z[:, np.newaxis, :],
        n_features=2,
        n_coordinates=2,
    )


def risk_of(model, loss, rng, n=14):
    inputs = rng.normal(size=(n, 2))
    targets = rng.integers(0, 3, size=n) if loss == "cross_entropy" else np.where(rng.normal(size=n) > 0, 1.0, -1.0)
    return mfld.EmpiricalRisk(model, inputs, targets, loss=loss, l2=0.1, sample_weight=rng.uniform(1, 2, size=n))


RISKS = {
    "logistic": lambda rng: risk_of(network(), "logistic", rng),
    "cross_entropy": lambda rng: risk_of(network(3), "cross_entropy", rng),
    "own neurons": lambda rng: risk_of(own_neurons(), "half_squared", rng),
}


@pytest.fixture(params=RISKS)
def risk(request, rng):
    return RISKS[request.param](rng)


def test_objectives(risk, rng):
    particles, points = rng.normal(size=(5, risk.n_coordinates)), rng.normal(size=(7, risk.n_coordinates))
    weighted, copied = pair(particles)
    batch = np.array([3, 0, 8])
    measures = {
        "loss": risk.loss,
        "ridge": risk.ridge,
        "value": risk.value,
        "derivative": lambda cloud: risk.derivative(cloud)[0],
        "derivative of a batch": lambda cloud: risk.derivative(cloud, batch)[0],
        "first variation": lambda cloud: risk.first_variation(cloud)(points),
        "its gradient": lambda cloud: risk.first_variation(cloud).gradient(points),
    }
    for name, measure in measures.items():
        assert_allclose(measure(weighted), measure(copied), rtol=1e-12, atol=1e-14, err_msg=name)
    for measure in (risk.gradient, risk.loss_gradient, lambda cloud: risk.loss_gradient(cloud, batch)):
        assert_allclose(np.repeat(measure(weighted), TIMES, axis=0), measure(copied), rtol=1e-12, atol=1e-14)
    if risk.has_particle_batches:
        rows = rng.integers(0, 14, size=(5, 4))
        own = risk.loss_gradient_by_particle(weighted, rows)
        expected = risk.loss_gradient_by_particle(copied, np.repeat(rows, TIMES, axis=0))
        assert_allclose(np.repeat(own, TIMES, axis=0), expected, rtol=1e-12, atol=1e-14)


def test_potentials(rng):
    well = mfld.Potential(lambda x: x**3, lambda x: np.sum(x**4, axis=1) / 4, n_coordinates=2, l2=0.3)
    weighted, copied = pair(rng.normal(size=(5, 2)))
    assert_allclose(well.value(weighted), well.value(copied), rtol=1e-12)


def test_functionals_refuse_weights(rng):
    functional = mfld.Functional(
        lambda x: 2 * np.mean(x) * np.ones_like(x), lambda x: float(np.mean(x) ** 2), n_coordinates=1
    )
    weighted, copied = pair(rng.normal(size=(5, 1)))
    functional.loss(copied)
    with pytest.raises(ValueError, match=re.escape("measure must have particles of equal weight (weights=None)")):
        functional.loss(weighted)


def test_predictions_quantities_and_dual_variables(risk, rng):
    particles, inputs = rng.normal(size=(5, risk.n_coordinates)), rng.normal(size=(6, 2))
    weighted, copied = states(particles)
    seen = {
        "loss": quantities.loss(risk),
        "ridge": quantities.ridge(risk),
        "predictions": quantities.predictions(risk.model, inputs),
        "score": quantities.score(risk),
        "dual variables": lambda state: mfld.certificates.dual_at(risk, state.measure),
    }
    for name, quantity in seen.items():
        assert_allclose(quantity(weighted), quantity(copied), rtol=1e-12, atol=1e-14, err_msg=name)
    solver = mfld.MFLD(5, step_size=0.1, temperature=0.1)
    results = [mfld.Result(solver, risk, state, {}) for state in (weighted, copied)]
    assert_allclose(results[0].predict(inputs), results[1].predict(inputs), rtol=1e-12)
    assert_allclose(results[0].weights, TIMES / TIMES.sum())
    average = mfld.AverageDual(risk)
    average(weighted, mfld.Info(1))
    assert_allclose(average.dual, mfld.certificates.dual_at(risk, copied.measure), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "solver",
    [
        mfld.MFLD(5, step_size=0.1, temperature=0.1),
        mfld.PDA(5, step_size=0.1, temperature=0.1),
    ],
    ids=["MFLD", "PDA"],
)
def test_algorithms_without_weights_refuse_them(solver, rng):
    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(2), rng.normal(size=(7, 2)), np.ones(7), loss="half_squared", l2=0.1)
    start = solver.init(risk)
    solver.advance(risk, start)
    (cloud,) = start.clouds.values()
    weighted = dataclasses.replace(start, clouds={"mu": mfld.Cloud(cloud.particles, TIMES[np.newaxis])})
    with pytest.raises(ValueError, match="state must have particles of equal weight"):
        solver.advance(risk, weighted)


def test_gap_of_weighted_particles(rng):
    risk = RISKS["logistic"](rng)
    solver = mfld.MFLD(5, step_size=0.1, temperature=0.5)
    gap = quantities.gap(solver, risk, 0.5, n_chains=64, num_threads=1)
    weighted, copied = (gap(state) for state in states(rng.normal(size=(5, risk.n_coordinates))))
    assert_allclose(weighted, copied, rtol=1e-6)
    assert weighted[0] <= weighted[1]


def test_pruning(rng):
    model, inputs = network(), rng.normal(size=(30, 2))
    weighted, copied = pair(rng.normal(size=(5, model.n_coordinates)))
    pruned, error = mfld.prune(model, weighted, inputs, n_particles=3)
    change = model.predict(pruned.particles, inputs, pruned.weights) - model.predict(copied.particles, inputs)
    assert_allclose(error, np.abs(change).max(), rtol=1e-9)
    # The best one alone is the one that is best for the copies, whichever copy of it.
    one, other = (mfld.prune(model, cloud, inputs, n_particles=1)[0].particles for cloud in (weighted, copied))
    assert_allclose(one, other)


def test_mixture_of_replicates(rng):
    particles = rng.normal(size=(2, 5, 1))
    weights = np.stack([TIMES, np.ones(5)])
    state = mfld.State({"mu": mfld.Cloud(particles, weights)}, 0, 0)
    mixture = state.measure
    expected = (particles[0, :, 0] @ TIMES / TIMES.sum() + particles[1].mean()) / 2
    assert_allclose(mixture.mean(mixture.particles[:, 0]), expected, rtol=1e-12)
    assert_allclose(state.replicate(0).measure.weights, TIMES / TIMES.sum())


def test_export_of_a_weighted_run():
    inputs = np.linspace(-2, 2, 20)[:, np.newaxis]
    model = mfld.TwoLayerNetwork(1, readout="bounded")
    risk = mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=0.1)
    record = {"u": quantities.predictions(model, inputs), "loss there": quantities.loss(risk)}
    result = mfld.PSDCA(100, temperature=0.1, num_threads=1).run(risk, 3, record=record)
    values, attributes = mfld.statistics.export(result)
    assert values["u"].shape == (1, 3, 20)
    assert attributes["particles_interact"]
    assert np.ptp(result.weights) > 0.01 / 100
    neurons = model.neurons(result.particles, inputs).astype(np.float64)
    assert_allclose(values["u"][0, -1], neurons @ result.weights, rtol=1e-5, atol=1e-6)
    assert_allclose(result.history["loss"], values["loss there"][0], rtol=1e-12)


def test_resampling(rng):
    weights = rng.dirichlet(np.full(50, 0.3))
    cloud = mfld.Cloud(np.arange(50.0)[:, np.newaxis], weights)
    counts = np.zeros((400, 50))
    for seed in range(400):
        equal = mfld.resample(cloud, 120, seed)
        assert equal.weights is None
        counts[seed] = np.bincount(equal.particles[:, 0].astype(int), minlength=50)
    assert (counts.sum(axis=1) == 120).all()
    # floor or ceil of 120 w (up to rounding of its sum), and on average 120 w: a Bernoulli variable on top of a floor.
    assert (np.abs(counts - 120 * weights) < 1 + 1e-9).all()
    part = 120 * weights % 1
    assert (np.abs(counts.mean(axis=0) - 120 * weights) <= 5 * np.sqrt(part * (1 - part) / 400) + 1e-9).all()
    plain = mfld.Cloud(cloud.particles)
    assert_allclose(mfld.resample(plain).particles, plain.particles)
    with pytest.raises(ValueError, match="n_particles must be at least 1, got 0"):
        mfld.resample(cloud, 0)
    with pytest.raises(TypeError, match="cloud must be a Cloud"):
        mfld.resample(cloud.particles)


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_picture_of_weighted_neurons():
    data = experiments.load("iris")
    training = experiments.train(data, 0, experiments.Recipe(n_steps=3, n_particles=40, l2=0.1))
    rng = np.random.default_rng(0)
    times = rng.integers(1, 4, size=40)
    weighted = dataclasses.replace(training.trained, weights=(times / times.sum()).astype(np.float32))
    copied = dataclasses.replace(training.trained, particles=np.repeat(training.trained.particles, times, axis=0))
    assert_allclose(weighted.outputs(data.inputs), copied.outputs(data.inputs), rtol=1e-4, atol=1e-5)
    scatters, labels = [], []
    for trained in (weighted, copied):
        axes = plots.training(training.result, trained).axes[1]
        scatters.append(axes.collections[0])
        labels.append(axes.get_xlabel())
    assert labels[0] == labels[1]  # the share of the variance along the axis
    areas, places = scatters[0].get_sizes(), np.asarray(scatters[0].get_offsets())
    assert_allclose(np.sort(areas), np.sort(10 * 40 * times / times.sum()), rtol=1e-5)

    # The plane is that of the copies, up to the signs of its axes.
    def unique(points):
        return np.unique(np.round(np.abs(points), 3), axis=0)

    assert_allclose(unique(places), unique(np.asarray(scatters[1].get_offsets())), atol=2e-3)


def test_picture_of_gaps():
    history = {
        "step": np.array([0, 1, 2, 3]),
        "gap": np.array([[1.0, 1.2], [0.1, 0.2], [np.nan, np.nan], [-1e-3, 0.02]]),
    }
    axes = plots.gap({"one": history, "other": {**history, "gap": 2 * history["gap"]}}, xlabel="epoch").axes[0]
    assert (axes.get_xlabel(), axes.get_yscale()) == ("epoch", "log")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "other"]
    line = axes.lines[0].get_ydata()
    bottom = axes.get_ylim()[0]
    assert_allclose(line[:2], [1.0, 0.1])
    assert np.isnan(line[2])
    assert line[3] == bottom < 0.02  # below 0 on a logarithmic axis
    band = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
    assert {(0.0, 1.2), (1.0, 0.2), (3.0, 0.02)} <= {tuple(vertex) for vertex in band.tolist()}
    with pytest.raises(ValueError, match=re.escape("runs['one'] must have the entry 'gap', it has step")):
        plots.gap({"one": {"step": [1]}})
    with pytest.raises(ValueError, match=re.escape("runs['one']['gap'] must have shape (1, 2)")):
        plots.gap({"one": {"step": [1], "gap": [0.5]}})
    with pytest.raises(ValueError, match="runs must have a certificate at one record at least"):
        plots.gap({"one": {"step": [1], "gap": [[np.nan, np.nan]]}})


def test_a_triangle_that_grows_and_shrinks_against_lapack(rng):
    wide = rng.normal(size=(12, 20))
    gram, right = wide @ wide.T, rng.normal(size=12)
    triangle, rows = pruning._Triangle(12), []
    for new, left in [
        (3, None),
        (7, None),
        (0, None),
        (9, 0),
        (11, None),
        (3, 2),
        (5, None),
        (1, 0),
        (2, 4),
        (8, None),
    ]:
        rows.append(new)
        triangle.append(gram[new, rows])
        if left is not None:
            rows.pop(left)
            triangle.remove(left)
        expected = np.linalg.solve(gram[np.ix_(rows, rows)], right[rows])
        np.testing.assert_allclose(triangle.solve(right[rows]), expected, rtol=1e-10)


def test_pruning_takes_no_memory_of_all_pairs(rng):
    model = mfld.TwoLayerNetwork(2)
    cloud = mfld.Cloud(model.initial_particles(20_000, 1))
    inputs = rng.normal(size=(30, 2)).astype(np.float32)
    tracemalloc.start()
    pruned, error = mfld.prune(model, cloud, inputs, n_particles=15)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pruned.particles) <= 15
    assert error < 0.05
    assert peak < 300e6  # all pairs would take 3.2 GB; a block of 4 million numbers takes 34 MB, several times
