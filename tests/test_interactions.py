"""Interactions: subsets by enumeration, waves by double loops, coresets by their rows, and flows by their ends."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

import mfld
from mfld import interactions, kernels, noise, references, thinning
from mfld.mixtures import GaussianMixture

RNG = np.random.default_rng(1)
X = RNG.normal(size=(6, 2))
SAMPLES = RNG.normal(size=(9, 2)) + 1
FIT = mfld.MMD(SAMPLES, kernels.Gaussian(0.9), smoothing=0.3)
STEIN = mfld.KSD(mfld.potentials.Gaussian([0.5, 0.0]), kernels.InverseMultiquadric(1.0))
NETWORK = mfld.TwoLayerNetwork(n_features=2, bias=False, readout="fixed")
RISK = mfld.EmpiricalRisk(NETWORK, SAMPLES, np.sin(SAMPLES[:, 0]), loss="half_squared", l2=0.01)
PLACE = noise.Place.of(4)
TORUS = mfld.Space(domain=[mfld.Torus(2, period=2 * math.pi)])
CHIZAT = kernels.Dirichlet([1 / (1 + k) for k in range(1, 6)], period=2 * math.pi)


def estimates(interaction, objective, particles, n_steps, place=PLACE):
    return np.array([interaction.estimate(objective, particles, {}, place.ahead(k))[0] for k in range(n_steps)])


@pytest.mark.parametrize("objective", [FIT, STEIN, RISK], ids=lambda given: type(given).__name__)
def test_subsets_are_unbiased_with_the_variance_of_draws_without_replacement(objective):
    exact = objective.loss_gradient(X)
    each = np.array(
        [
            interactions._OfRows(objective, np.array(rows)).loss_gradient(X)
            for rows in itertools.combinations(range(6), 2)
        ]
    )
    np.testing.assert_allclose(each.mean(axis=0), exact, atol=1e-12)
    single = np.array([interactions._OfRows(objective, np.array([row])).loss_gradient(X) for row in range(6)])
    of_pairs = np.sum((single - exact) ** 2) / 6
    n, m = 6, 2
    assert np.sum((each - exact) ** 2) / len(each) == pytest.approx((n - m) / (m * (n - 1)) * of_pairs, rel=1e-9)


def test_subsets_are_new_in_each_step_and_not_those_of_batches():
    rows = [mfld.RandomSubset(3).seen(FIT, X, {}, PLACE.ahead(k))[0]._rows.tolist() for k in range(20)]
    assert len({tuple(sorted(own)) for own in rows}) > 8
    assert any(own != PLACE.ahead(k).batch(6, 3).tolist() for k, own in enumerate(rows))


def test_predictions_of_a_risk_are_those_of_the_subset():
    rows = PLACE.beside("interaction").batch(6, 2)
    estimate, _ = mfld.RandomSubset(2).estimate(RISK, X, {}, PLACE)
    z, y = SAMPLES, np.sin(SAMPLES[:, 0])
    residual = np.tanh(z @ X[rows].T).mean(axis=1) - y
    expected = ((1 - np.tanh(z @ X.T) ** 2) * residual[:, np.newaxis]).T @ z / len(z)
    np.testing.assert_allclose(estimate, expected, atol=1e-12)


def test_samples_may_be_sampled_too():
    both = mfld.RandomSubset(2, mfld.Minibatch(3))
    estimate, _ = both.estimate(FIT, X, {}, PLACE)
    rows, batch = PLACE.beside("interaction").batch(6, 2), PLACE.batch(9, 3)
    kernel = kernels.Gaussian(0.9)
    own = kernel.smoothed(2 * 0.09, 2).gradient_sums(X, X[rows])
    cross = kernel.smoothed(0.09, 2).gradient_sums(X, SAMPLES[batch])
    np.testing.assert_allclose(estimate, 2 * (own - cross), atol=1e-12)
    assert both.rows_of_a_step(FIT) == 3


def test_coresets_are_those_of_thinning_and_kept_while_particles_move_little():
    x = RNG.normal(size=(256, 2))
    method = mfld.KernelThinning(kernel=kernels.Gaussian(0.5))
    estimate, kept = method.estimate(FIT, x, {}, PLACE)
    rows = thinning.thin(x, kernel=kernels.Gaussian(0.5), seed=PLACE.beside("interaction"))
    assert kept["coreset"].tolist() == rows.tolist()
    np.testing.assert_array_equal(estimate, interactions._OfRows(FIT, rows).loss_gradient(x))
    # 16 rows: a move of 0.3 * 0.5 / 4 is where they are chosen anew.
    for move, same in ((0.036, True), (0.039, False)):
        there = x + np.array([move, 0.0])
        _, then = method.estimate(FIT, there, kept, PLACE.ahead(1))
        assert (then["coreset"].tolist() == rows.tolist()) is same
        np.testing.assert_array_equal(then["coreset_places"], (x if same else there)[then["coreset"]])
    fresh = mfld.KernelThinning(kernel=kernels.Gaussian(0.5), refresh=0.0)
    assert fresh.estimate(FIT, x, kept, PLACE.ahead(1))[1]["coreset"].tolist() != rows.tolist()


@pytest.mark.parametrize("objective", [FIT, STEIN, RISK], ids=lambda given: type(given).__name__)
def test_coresets_are_better_than_subsets_of_their_size(objective):
    x = RNG.normal(size=(256, 2))
    exact = objective.loss_gradient(x)
    errors = [
        np.sqrt(np.mean((estimates(method, objective, x, 10) - exact) ** 2))
        for method in (mfld.KernelThinning(), mfld.RandomSubset(16))
    ]
    assert errors[0] < 0.5 * errors[1]


FREQUENCIES = [
    kernels.Gaussian(0.7),
    kernels.Gaussian((0.7, 2.0)),
    kernels.Matern52(0.8),
    kernels.Matern32(0.8),
    kernels.Laplace(0.8),
    kernels.InverseMultiquadric(0.8),
    kernels.InverseMultiquadric(0.8, -1.5),
    2.0 * kernels.Gaussian(1.0),
]


@pytest.mark.parametrize("kernel", FREQUENCIES, ids=repr)
def test_random_waves_have_the_kernel_as_their_mean(kernel):
    m = 40000
    frequencies, weights = kernel.spectrum(PLACE, m, 2)
    for difference in (np.array([0.3, -0.2]), np.array([1.0, 1.5])):
        exact = kernel.value(difference, np.zeros(2))
        waves = m * weights * np.cos(frequencies @ difference)
        assert abs(waves.mean() - exact) < 5 * waves.std() / math.sqrt(m)


@pytest.mark.parametrize(
    "target", [SAMPLES, GaussianMixture([1, 2], [[0.0, 1.0], [1.0, -1.0]], 0.3)], ids=["samples", "mixture"]
)
def test_random_features_are_unbiased(target):
    fit = mfld.MMD(target, kernels.Gaussian(0.9), smoothing=0.3)
    each = estimates(mfld.RandomFeatures(50), fit, X, 400)
    error = (each.mean(axis=0) - fit.loss_gradient(X)) / (each.std(axis=0) / 20)
    assert np.abs(error).max() < 4.5
    seen = [mfld.RandomFeatures(50).seen(fit, X, {}, PLACE.ahead(k))[0].loss(X) for k in range(400)]
    assert abs(np.mean(seen) - fit.loss(X)) < 4.5 * np.std(seen) / 20


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_fourier_features_of_a_dirichlet_kernel_are_exact(smoothing):
    x = noise.Place.of(0).uniforms(40, 2) * 2 * math.pi
    targets = noise.Place.of(1).uniforms(10, 2) * 2 * math.pi
    fit = mfld.MMD(targets, CHIZAT, smoothing=smoothing, space=TORUS, reference=references.Uniform())
    waves = mfld.FourierFeatures()
    frequencies, weights = CHIZAT.harmonics(2)
    assert len(weights) == (11**2 - 1) // 2
    value = 1 + np.sum(weights * np.cos(frequencies @ (x[0] - x[1])))
    product = np.prod([1 + 2 * sum(np.cos(k * t) / (1 + k) for k in range(1, 6)) for t in x[0] - x[1]])
    assert value == pytest.approx(product, rel=1e-12)
    estimate, _ = waves.estimate(fit, x, {}, PLACE)
    np.testing.assert_allclose(estimate, fit.loss_gradient(x), atol=1e-11)
    seen, _ = waves.seen(fit, x, {}, PLACE)
    assert seen.loss(x) == pytest.approx(fit.loss(x), abs=1e-11)
    weighted = mfld.Cloud(x, np.arange(1, 41))
    values = seen.first_variation(weighted)(x)
    # Twice the witness, up to a constant: the constant part of the kernel and what the two measures share.
    difference = values - fit.first_variation(weighted)(x)
    np.testing.assert_allclose(difference, difference[0], atol=1e-11)


METHODS = [
    mfld.RandomSubset(8),
    mfld.KernelThinning(),
    mfld.KernelThinning(size=4, gradient=mfld.SVRG(3, 4)),
    mfld.RandomFeatures(20, mfld.Minibatch(4)),
]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_runs_go_on_bit_by_bit_on_any_threads_and_side_by_side(method):
    def solver(**options):
        return mfld.MFLD(64, step_size=0.2, temperature=1e-3, gradient=method, **options)

    whole = solver(n_replicates=2).run(FIT, n_steps=9, seed=2).state
    half = solver(n_replicates=2, num_threads=3).run(FIT, n_steps=4, seed=2).state
    rest = solver(n_replicates=2, num_threads=1).run(FIT, n_steps=5, state=half).state
    assert rest.clouds["mu"].particles.tobytes() == whole.clouds["mu"].particles.tobytes()
    assert set(rest.buffers) == set(method.buffer_names) - {"anchor_predictions"}
    single = solver().run(FIT, n_steps=9, seed=2).state
    assert single.particles.tobytes() == whole.replicate(0).particles.tobytes()


def test_other_dynamics_take_them():
    solver = mfld.MFLD(
        32, step_size=0.1, temperature=1e-3, gradient=mfld.RandomSubset(4), dynamics=mfld.Underdamped(1.0)
    )
    assert np.isfinite(solver.run(FIT, n_steps=5).particles).all()


def test_the_cheapest_that_is_good_enough_is_chosen():
    x = RNG.normal(size=(1024, 2))
    fit = mfld.MMD(SAMPLES, kernels.Gaussian(1.0))

    def chosen(temperature, **options):
        solver = mfld.MFLD(1024, step_size=0.1, temperature=temperature, dtype="float64")
        choice = interactions.choose(fit, solver, state=solver.init(fit, particles=x), **options)
        assert choice.solver == dataclasses.replace(solver, gradient=choice.interaction)
        return choice

    cold, warm, hot = chosen(0.0), chosen(2e-3), chosen(10.0)
    assert cold.interaction == mfld.Exact()
    assert warm.interaction != mfld.Exact()
    assert hot.work[repr(hot.interaction)] == min(hot.work.values())
    for choice in (warm, hot):
        taken = repr(choice.interaction)
        assert choice.errors[taken] <= choice.allowed
        cheaper = [name for name in choice.errors if choice.work[name] < choice.work[taken]]
        assert all(choice.errors[name] > choice.allowed for name in cheaper)
    assert warm.allowed == pytest.approx(0.1 * math.sqrt(2 * 2e-3 / 0.1))
    assert str(warm).count("*") == 1
    assert repr(mfld.FourierFeatures()) not in warm.errors
    # The measured error is that of the whole gradient.
    thinned, _ = mfld.KernelThinning().estimate(fit, x, {}, noise.Place.of(0))
    whole = np.sqrt(np.mean((thinned - fit.loss_gradient(x)) ** 2))
    assert 0.5 * whole < warm.errors[repr(mfld.KernelThinning())] < 2 * whole
    torus = mfld.MMD([[1.0, 2.0]], CHIZAT, space=TORUS, reference=references.Uniform())
    at = noise.Place.of(0).uniforms(2000, 2)
    cold = mfld.MFLD(2000, step_size=0.1, temperature=0.0)
    assert interactions.choose(torus, cold, state=cold.init(torus, particles=at)).interaction == mfld.FourierFeatures()


def test_a_choice_has_the_numbers_of_the_next_step_and_the_gradient_of_the_solver():
    fit = mfld.MMD(SAMPLES, kernels.Gaussian(1.0))
    falls = mfld.schedules.Power(0.4, 1.0)
    solver = mfld.MFLD(64, step_size=0.1, temperature=falls, gradient=mfld.Minibatch(4), n_replicates=2)
    late, _ = solver.advance(fit, solver.init(fit), n_steps=3)
    for state, temperature in ((None, 0.4), (late, 0.1)):
        choice = interactions.choose(fit, solver, state=state)
        assert choice.allowed == pytest.approx(0.1 * math.sqrt(2 * temperature / 0.1))
        assert choice.interaction.gradient == mfld.Minibatch(4)
    again = interactions.choose(fit, choice.solver, state=None)
    assert again.interaction.gradient == mfld.Minibatch(4)
    assert np.isfinite(choice.solver.run(fit, n_steps=3).history["step"]).all()
    stream = mfld.MMD(lambda step, n: noise.normals(0, step, n, 2, stream="data"), fit.kernel, space=mfld.Space(2))
    online = mfld.MFLD(64, step_size=0.1, temperature=0.1, gradient=mfld.Minibatch(20))
    assert interactions.choose(stream, online).interaction.gradient == mfld.Minibatch(20)
    automatic = mfld.MFLD(64, temperature=0.0)
    assert interactions.choose(RISK, automatic).interaction == mfld.Exact()
    with pytest.raises(ValueError, match="step_size must be a number, a schedule or None here"):
        interactions.choose(RISK, mfld.MFLD(64, temperature=0.0, step_size="fuse"))
    with pytest.raises(TypeError, match="solver must be an MFLD, got 3"):
        interactions.choose(RISK, 3)


@pytest.mark.parametrize("objective", [FIT, RISK], ids=lambda given: type(given).__name__)
def test_exact_interactions_are_steps_of_the_gradient_inside(objective):
    ends = [
        mfld.MFLD(20, step_size=0.1, temperature=1e-3, gradient=gradient).run(objective, n_steps=5).particles.tobytes()
        for gradient in (mfld.FullBatch(), mfld.Exact())
    ]
    assert ends[0] == ends[1]


def test_wrong_problems_are_refused_before_work():
    solver = {"n_particles": 8, "step_size": 0.1, "temperature": 0.1}
    many = kernels.Dirichlet([0.5] * 10, period=1.0)
    tall = mfld.Space(domain=[mfld.Torus(12, period=1.0)])
    fit = mfld.MMD(np.full((2, 12), 0.5), many, space=tall, reference=references.Uniform())
    with pytest.raises(ValueError, match=r"features must fit into memory: .* frequencies of 12 coordinates take"):
        mfld.MFLD(**solver, gradient=mfld.FourierFeatures()).run(fit, n_steps=1)
    with pytest.raises(ValueError, match="features must fit into memory"):
        mfld.MFLD(**solver, gradient=mfld.RandomFeatures(10**13)).run(FIT, n_steps=1)
    with pytest.raises(ValueError, match="objective must be an MMD"):
        mfld.MFLD(**solver, gradient=mfld.RandomFeatures(10)).run(RISK, n_steps=1)
    with pytest.raises(TypeError, match="kernel must have finitely many frequencies"):
        mfld.MFLD(**solver, gradient=mfld.FourierFeatures()).run(FIT, n_steps=1)
    energy = mfld.MMD(SAMPLES, kernels.Energy())
    with pytest.raises(TypeError, match="kernel must have random features"):
        mfld.MFLD(**solver, gradient=mfld.RandomFeatures(10)).run(energy, n_steps=1)
    with pytest.raises(ValueError, match=r"m of RandomSubset.* must be at most the number of particles, 8"):
        mfld.MFLD(**solver, gradient=mfld.RandomSubset(9)).run(FIT, n_steps=1)
    with pytest.raises(TypeError, match="gradient must be a GradientEstimator"):
        mfld.RandomSubset(3, 4)
    with pytest.raises(ValueError, match="refresh must be"):
        mfld.KernelThinning(refresh=-1.0)
    with pytest.raises(ValueError, match="candidates must have one"):
        interactions.choose(FIT, mfld.MFLD(6, step_size=0.1, temperature=0.0), candidates=[mfld.RandomSubset(2)])


def mixture():
    centres = 2 * noise.normals(11, 0, 20, 2, dtype="float64", stream="data")
    return GaussianMixture(None, centres, 0.1)


def ends(n_particles, n_steps, gradient, seeds):
    """Squared discrepancies of the flow to the 20-component mixture at its end."""
    fit = mfld.MMD(mixture(), kernels.Gaussian(1.0))
    solver = mfld.MFLD(n_particles, step_size=1.0, temperature=3e-4, gradient=gradient, dtype="float64")
    found = []
    for seed in seeds:
        start = 2 * noise.normals(seed, 0, n_particles, 2, dtype="float64", stream="init")
        found.append(
            fit.loss(solver.run(fit, n_steps=n_steps, seed=seed, particles=start, record_every=n_steps).measure)
        )
    return np.array(found), fit.loss(start)


def sampling_error(n_particles):
    """Squared discrepancy of so many draws of the mixture, on average: (E k(Z, Z) - E k(Z, Z')) / N."""
    return (1 - kernels.Gaussian(1.0).mixture_energy(mixture())) / n_particles


def test_the_flow_to_a_mixture_ends_at_the_same_discrepancy_with_thinning():
    exact, start = ends(1024, 30, mfld.FullBatch(), [0])
    thinned, _ = ends(1024, 30, mfld.KernelThinning(), [0])
    random, _ = ends(1024, 30, mfld.RandomSubset(32), [0])
    assert exact.max() < 0.2 * start
    assert abs(thinned - exact) < sampling_error(1024)
    assert thinned < random
    wide, _ = ends(1024, 30, mfld.KernelThinning(size=128), [0])
    assert abs(wide - exact) < 0.3 * sampling_error(1024)


@pytest.mark.slow
def test_the_flow_to_a_mixture_at_its_full_size():
    exact, start = ends(1024, 2000, mfld.FullBatch(), range(3))
    thinned, _ = ends(1024, 2000, mfld.KernelThinning(), range(3))
    assert exact.max() < 0.05 * start
    assert abs(thinned.mean() - exact.mean()) < sampling_error(1024)


def test_an_interaction_inside_another_is_refused():
    inner = mfld.RandomSubset(3)
    for build in (
        lambda: mfld.RandomSubset(3, inner),
        lambda: mfld.KernelThinning(gradient=inner),
        lambda: mfld.RandomFeatures(3, mfld.KernelThinning()),
        lambda: interactions.Exact(inner),
    ):
        with pytest.raises(TypeError, match=r"gradient must say how samples are used, like FullBatch\(\), got "):
            build()


def test_errors_of_a_choice_are_those_of_many_draws():
    """Those of random subsets are sqrt((N - m) / (m (N - 1))) times the spread of a pair, on the mean."""
    x = RNG.normal(size=(256, 2))
    fit = mfld.MMD(SAMPLES, kernels.Gaussian(1.0))
    subsets = [mfld.RandomSubset(m) for m in (8, 128)]
    ratios = []
    for seed in range(8):
        solver = mfld.MFLD(256, step_size=0.1, temperature=10.0, dtype="float64")
        state = solver.init(fit, particles=x)
        choice = interactions.choose(fit, solver, state=state, candidates=subsets, seed=seed, share=1000.0)
        few, many = (choice.errors[repr(each)] for each in subsets)
        ratios.append(few / many / math.sqrt((256 - 8) / 8 / ((256 - 128) / 128)))
    assert min(ratios) > 0.6
    assert max(ratios) < 1.7


def test_particles_under_a_potential_need_no_interaction():
    well = mfld.potentials.Gaussian([0.0, 0.0])
    solver = mfld.MFLD(6, step_size=0.1, temperature=1.0)
    assert interactions.choose(well, solver).interaction == mfld.interactions.Exact()
