"""Mean-field GANs: gradients against finite differences, laws in closed form, and what every game has."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld
from mfld import checkpoint, diagnostics

NETWORK = mfld.TwoLayerNetwork
NAMES = ("generator", "critic")
SMOOTH = [name for name in mfld.activations() if name not in ("relu", "leaky_relu")]


def normals(n, d, seed=0):
    return mfld.noise.normals(seed, 0, n, d, dtype="float64", stream="data")


def bumps(theta, z):
    """NumPy neurons ``a exp(-|z - c|^2 / 2)``, theta = (c, a), with all that a critic needs."""
    return theta[np.newaxis, :, -1] * np.exp(-np.sum((z[:, np.newaxis] - theta[np.newaxis, :, :-1]) ** 2, axis=2) / 2)


def bumps_gradient(theta, z):
    offset, value = z[:, np.newaxis] - theta[np.newaxis, :, :-1], bumps(theta, z)[:, :, np.newaxis]
    return np.concatenate([value * offset, value / theta[np.newaxis, :, -1:]], axis=2)


def bumps_input_gradient(theta, z):
    return -bumps(theta, z)[:, :, np.newaxis] * (z[:, np.newaxis] - theta[np.newaxis, :, :-1])


def bumps_mixed_gradient(theta, z):
    offset, value = z[:, np.newaxis] - theta[np.newaxis, :, :-1], bumps(theta, z)[:, :, np.newaxis, np.newaxis]
    of_centre = value * (np.eye(z.shape[1]) - offset[..., np.newaxis] * offset[..., np.newaxis, :])
    return np.concatenate([of_centre, -value * offset[..., np.newaxis] / theta[:, -1, np.newaxis, np.newaxis]], axis=3)


OWN = mfld.NeuronModel(
    bumps,
    bumps_gradient,
    n_features=2,
    n_coordinates=3,
    input_gradient=bumps_input_gradient,
    mixed_gradient=bumps_mixed_gradient,
)
CRITICS = {
    "tanh": NETWORK(2, activation="tanh"),
    "clipped": NETWORK(2, activation="tanh", domain=(mfld.Box([-0.5] * 4, [0.5] * 4),)),
    "bounded": NETWORK(2, activation="silu", readout="bounded", readout_bound=2.0, output_scale=1.5),
    "parity": NETWORK(2, activation="sin", readout="parity", bias=False),
    "signs": NETWORK(2, activation="softplus", readout="signs"),
    "fixed": NETWORK(2, activation="gelu", readout="fixed"),
    "own": OWN,
}
PENALTIES = {
    "plain": None,
    "at data": mfld.GradientPenalty(0.7),
    "with a target": mfld.GradientPenalty(0.7, target=1.0),
    "between": mfld.GradientPenalty(0.7, target=1.0, at="between"),
}


def game_of(critic="tanh", penalty=None, latent=9, data=11, **options):
    points = None if latent is None else normals(latent, 3, seed=5)
    rows = normals(data, 2, seed=6) if isinstance(data, int) else data
    return mfld.MeanFieldGAN(
        NETWORK(3, n_outputs=2, activation="tanh"), CRITICS[critic], rows, latent=points, penalty=penalty, **options
    )


def clouds_of(game, n=5, dtype="float64"):
    models = {"generator": game.generator, "critic": game.critic}
    return {name: mfld.Cloud(models[name].initial_particles(n + k, 3 + k, dtype)) for k, name in enumerate(NAMES)}


def differences(function, particles, width=1e-5):
    """Gradient of a function of N particles, times N, by central differences of fourth order."""
    found = np.zeros_like(particles)
    for place in np.ndindex(particles.shape):
        values = []
        for shift in (-2, -1, 1, 2):
            moved = particles.copy()
            moved[place] += shift * width * 30
            values.append(function(moved))
        found[place] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * width * 30)
    return len(particles) * found


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_loss(name, critic, penalty):
    game = game_of(critic, PENALTIES[penalty])
    clouds = clouds_of(game)
    faced, particles = game.facing(name, clouds), clouds[name].particles
    batch = faced.draw_batch(mfld.noise.Place.of(3), 7) if not faced.has_gradient else None
    value = faced.loss if batch is None else lambda x: faced.loss_of_batch(x, batch)
    gradient = faced.loss_gradient(clouds[name], batch)
    expected = differences(value, particles)
    expected[:, faced.n_moving :] = 0
    assert_allclose(gradient, expected, rtol=1e-8, atol=1e-8)
    assert np.abs(gradient).max() > 1e-3
    potential = faced.first_variation(clouds[name], batch)
    assert_allclose(potential.loss_gradient(particles), gradient, rtol=1e-13, atol=1e-15)
    points = particles + 0.1
    ridgeless = differences(lambda x: float(np.mean(potential(x))), points)
    ridgeless[:, faced.n_moving :] = 0
    assert_allclose(potential.gradient(points), ridgeless, rtol=1e-8, atol=1e-8)
    single = faced.loss_gradient(clouds[name].particles.astype(np.float32), batch)
    assert single.dtype == np.float32
    assert_allclose(single, gradient, rtol=1e-3, atol=1e-4 * np.abs(gradient).max())


def test_players_of_a_gan_without_penalty_are_opposed():
    game = game_of()
    clouds = clouds_of(game)
    losses = [game.facing(name, clouds).loss(clouds[name]) for name in NAMES]
    assert_allclose(losses[0], -losses[1], rtol=1e-13)
    real = game.critic_values(clouds["critic"], game.rows)
    made = game.generator.predict(clouds["generator"].particles, game.latent)
    assert_allclose(losses[0], real.mean() - game.critic_values(clouds["critic"], made).mean(), rtol=1e-12)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", NAMES)
def test_batches_are_without_bias(name, penalty):
    """The mean over many batches is the gradient over all; of endless ones that over many samples."""
    game = game_of(penalty=PENALTIES[penalty])
    clouds = clouds_of(game)
    faced = game.facing(name, clouds)
    place = mfld.noise.Place.of(1)
    found = np.array([faced.loss_gradient(clouds[name], faced.draw_batch(place.ahead(k), 4)) for k in range(2000)])
    error = found.std(axis=0) / np.sqrt(len(found)) + 1e-12
    if faced.has_gradient:
        expected = faced.loss_gradient(clouds[name])
    else:
        numbers = np.arange(11 * 9 * 20)
        t = ((numbers // 99) + 0.5) / 20
        pairs = type(faced.draw_batch(place, 1))(game.rows[numbers % 11], game.latent[numbers % 9], t[:, np.newaxis])
        expected = faced.loss_gradient(clouds[name], pairs)
    assert (np.abs(found.mean(axis=0) - expected) < 5 * error).all()


SOLVER = {"step_size": {"generator": 0.05, "critic": 0.1}, "temperature": 1e-3}


def contents(state):
    arrays = {name: cloud.particles for name, cloud in state.clouds.items()} | dict(state.buffers)
    return {name: (value.shape, value.tobytes()) for name, value in arrays.items()}


ALGORITHMS = {
    "descent-ascent": (mfld.DescentAscent, {"alternating": True}),
    "averaged": (mfld.AveragedGradient, {}),
    "best response": (mfld.BestResponse, {"share": 0.5, "inner_steps": 2}),
}
ESTIMATORS = {
    "full": (mfld.FullBatch(), {"data": 40}),
    "batch": (mfld.Minibatch(8), {"data": 40, "latent": None}),
    "stream": (mfld.Minibatch(8), {"latent": None, "data": lambda step, n: normals(n, 2, seed=100 + step)}),
    "svrg": (mfld.SVRG(8, 5), {"data": 40}),
    "sarah": (mfld.SARAH(8, 5), {"data": 40}),
}


@pytest.mark.parametrize(
    "penalty", [None, mfld.GradientPenalty(0.5, target=1.0, at="between")], ids=["plain", "penalty"]
)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_algorithms_go_on_repeat_and_know_no_threads(algorithm, estimator, penalty, tmp_path):
    kind, options = ALGORITHMS[algorithm]
    gradient, samples = ESTIMATORS[estimator]
    refused = (algorithm == "best response" and estimator in ("svrg", "sarah")) or (
        penalty is not None and estimator in ("full", "svrg", "sarah")
    )
    if refused:  # they carry buffers; there is no end of points between
        with pytest.raises(ValueError, match="gradient must"):
            kind(6, gradient=gradient, **SOLVER, **options).run(game_of(penalty=penalty, **samples), 3)
        return
    game = game_of(penalty=penalty, l2=1e-3, **samples)
    dynamics = mfld.Underdamped(1.0) if algorithm == "descent-ascent" else mfld.Overdamped()

    def solver(**more):
        return kind(6, gradient=gradient, dynamics=dynamics, **SOLVER, **options, **more)

    whole = solver(num_threads=1).run(game, 8, seed=5)
    assert contents(solver(num_threads=3).run(game, 8, seed=5).state) == contents(whole.state)
    path = tmp_path / "gan.npz"
    checkpoint.run(solver(), game, 3, seed=5, path=path)
    assert contents(checkpoint.run(solver(), game, 8, seed=5, path=path).state) == contents(whole.state)
    together = solver(n_replicates=2).run(game, 8, seed=5)
    for r in range(2):
        one = solver().run(game, 8, state=solver().init(game, seed=5, replica=r))
        assert contents(together.state.replicate(r)) == contents(one.state)
    assert contents(together.state.replicate(0)) != contents(together.state.replicate(1))


def test_clipped_weights_stay_in_the_box_and_signs_are_signs():
    game = game_of("clipped", reference={"generator": mfld.references.Free(), "critic": mfld.references.Uniform()})
    result = mfld.DescentAscent(50, step_size=0.3, temperature=0.01).run(game, 50)
    critic = result.state.clouds["critic"].particles
    assert np.abs(critic).max() <= 0.5 < np.abs(result.state.clouds["generator"].particles).max()
    assert np.abs(critic).max() > 0.45
    signs = mfld.DescentAscent(50, step_size=0.3, temperature=0.01).init(game_of("signs"))
    assert set(np.unique(signs.clouds["critic"].particles[..., 3])) == {-1, 1}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: mfld.MeanFieldGAN(abs, CRITICS["tanh"], np.zeros((3, 2))), TypeError, "generator must be a Model"),
        (
            lambda: mfld.MeanFieldGAN(NETWORK(3), CRITICS["tanh"], np.zeros((3, 2))),
            ValueError,
            "critic must take the outputs of the generator, n_features=1, got n_features=2",
        ),
        (
            lambda: mfld.MeanFieldGAN(NETWORK(3, 2), NETWORK(2, 2), np.zeros((3, 2))),
            ValueError,
            "critic must have one output, got 2",
        ),
        (lambda: game_of(data=np.zeros((3, 1))), ValueError, r"data must have shape \(n, 2\)"),
        (lambda: game_of(data=np.full((3, 2), np.nan)), ValueError, "data must"),
        (lambda: game_of(data=np.zeros((0, 2))), ValueError, "data must"),
        (
            lambda: mfld.MeanFieldGAN(NETWORK(3, 2), CRITICS["tanh"], np.zeros((3, 2)), latent=np.zeros((4, 2))),
            ValueError,
            r"latent must have shape \(m, 3\)",
        ),
        (
            lambda: mfld.MeanFieldGAN(
                NETWORK(3, 2), mfld.NeuronModel(bumps, bumps_gradient, n_features=2, n_coordinates=3), np.zeros((3, 2))
            ),
            ValueError,
            "critic must have gradients in its inputs",
        ),
        (lambda: game_of(penalty=1.0), TypeError, "penalty must be a GradientPenalty"),
        (lambda: game_of(l2={"x": 1.0}), ValueError, "l2 must be one for all players"),
        (lambda: mfld.GradientPenalty(0.0), ValueError, "strength must be"),
        (lambda: mfld.GradientPenalty(1.0, at="nowhere"), ValueError, "at must be one of"),
        (
            lambda: mfld.DescentAscent(5, **SOLVER).run(game_of(latent=None), 1),
            ValueError,
            r"gradient must be Minibatch\(batch_size\)",
        ),
        (
            lambda: mfld.DescentAscent(5, gradient=mfld.Minibatch(12), **SOLVER).run(game_of(latent=None), 1),
            ValueError,
            "batch_size must be at most the number of samples, 11, got 12",
        ),
        (
            lambda: mfld.DescentAscent(5, gradient=mfld.Minibatch(4), **SOLVER).run(
                game_of(latent=None, data=lambda step, n: np.zeros((n, 3))), 1
            ),
            ValueError,
            r"what sample\(0, 4\) returned must have shape \(4, 2\)",
        ),
        (
            lambda: mfld.nikaido_isoda(game_of(), clouds_of(game_of()), 0.1),
            TypeError,
            "game must be linear in the measure of generator, what it faces is what the generator faces in",
        ),
        (lambda: game_of().facing("x", {}), ValueError, "name must be one of generator, critic"),
        (lambda: game_of().generate(np.zeros((4, 3)), 2), ValueError, "measure must have shape"),
        (lambda: game_of().critic_values(np.zeros((4, 4)), [[1.0]]), ValueError, "points must have shape"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_generated_points():
    game = game_of(latent=None)
    cloud = clouds_of(game)["generator"]
    many, few = game.generate(cloud, 50, seed=3), game.generate(cloud, 5, seed=3)
    assert_allclose(many[:5], few, rtol=1e-14)
    both = game.generate(np.stack([cloud.particles, cloud.particles]), 5, seed=3)
    assert_allclose(both, np.stack([few, few]), rtol=0)
    assert diagnostics.gaussian_wasserstein(game.generate(cloud, 20_000), game.generate(cloud, 20_000, seed=1)) < 0.02


# ---- a game in closed form -------------------------------------------------------------------------------------------

# The generator is linear in its mean m, G(z) = m_1 + m_2 z, and the critic in its mean y, D(x) = y_1 x + y_2 x^2. With
# ridges l2 and a law of z of moments 0 and 1 the equations of the means are
#   y_1 = (M_1 - m_1) / (2 l2_c),  y_2 = (M_2 - m_1^2 - m_2^2) / (2 l2_c),
#   y_1 + 2 m_1 y_2 = 2 l2_g m_1,  2 m_2 y_2 = 2 l2_g m_2,
# whence y = (0, l2_g), m_1 = M_1 and m_2^2 = s^2 - 2 l2_g l2_c for data of variance s^2. With references N(0, 1) it is
# l2 = T / 2, and the entropy holds the generator at the distance W_2 = s - sqrt(s^2 - T^2 / 2).
LINE = mfld.NeuronModel(
    lambda theta, z: theta[:, 0] + z * theta[:, 1],
    lambda theta, z: np.broadcast_to(np.stack([np.ones_like(z), z], axis=2), (len(z), len(theta), 2)),
    n_features=1,
    n_coordinates=2,
)
PARABOLA = mfld.NeuronModel(
    lambda theta, x: theta[:, 0] * x + theta[:, 1] * x**2,
    lambda theta, x: np.broadcast_to(np.stack([x, x**2], axis=2), (len(x), len(theta), 2)),
    n_features=1,
    n_coordinates=2,
    input_gradient=lambda theta, x: (theta[:, 0] + 2 * x * theta[:, 1])[:, :, np.newaxis],
)


# Means turn round each other, at a rate of 2 s, and are damped by T / 2. With velocities such a pair of eigenvalues
# a +- i w is stable for friction^2 a > w^2 only.
MOVES = {"overdamped": (mfld.Overdamped(), 0.05), "underdamped": (mfld.Underdamped(8.0), 0.4)}


@pytest.mark.parametrize("moves", MOVES)
@pytest.mark.parametrize("temperature", [0.8, 1.0])
def test_entropy_holds_the_generator_at_the_predicted_distance(temperature, moves):
    rows, latent = np.array([[-0.9], [1.1]]), np.array([[-1.0], [1.0]])
    game = mfld.MeanFieldGAN(LINE, PARABOLA, rows, latent=latent, l2=temperature / 2)
    dynamics, step_size = MOVES[moves]
    solver = mfld.DescentAscent(
        1000, step_size=step_size, temperature=temperature, alternating=True, dynamics=dynamics, dtype="float64"
    )

    def mean_map(state):
        return state.clouds["generator"].particles[0].mean(axis=0)

    start = {"generator": np.tile([0.0, 1.0], (1000, 1)), "critic": np.zeros((1000, 2))}
    result = solver.run(game, 2500, seed=1, particles=start, record={"map": mean_map}, record_every=10)
    middle = result.history["map"][50:].mean(axis=0)
    predicted = 1 - np.sqrt(1 - temperature**2 / 2)
    error = 0.013  # of the averages over time

    assert_allclose(middle, [0.1, 1 - predicted], atol=error)
    found = diagnostics.wasserstein(middle[0] + middle[1] * latent, rows, order=2)
    assert_allclose(found, predicted, atol=error)
    assert predicted > 10 * error


def two_bumps(n, seed):
    drawn = normals(n, 2, seed)
    return 1.5 * np.where(drawn[:, 1:] > 0, 1, -1) + 0.3 * drawn[:, :1]


@pytest.mark.slow
def test_noise_beats_training_without_it():
    """From a narrow start, where neurons are alike, only noise parts them: the same budget, over 10 seeds.

    Were noise of no use, each seed would be won by one or the other with equal chance: nine or more of ten with 1 %.
    """
    rows, held_out = two_bumps(1000, 1), two_bumps(2000, 2)
    models = {"generator": NETWORK(1, activation="relu"), "critic": NETWORK(1, activation="tanh")}
    game = mfld.MeanFieldGAN(*models.values(), rows, l2={"generator": 1e-4, "critic": 0.02})
    distance, found = mfld.quantities.distance_to_data(game, held_out, n_samples=2000), {}
    for temperature in (0.0, 1e-2):
        solver = mfld.DescentAscent(
            100,
            step_size={"generator": 0.1, "critic": 0.3},
            temperature=temperature,
            gradient=mfld.Minibatch(128),
        )
        found[temperature] = []
        for seed in range(10):
            start = {name: 0.1 * model.initial_particles(100, seed) for name, model in models.items()}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # without noise some runs circle
                found[temperature].append(distance(solver.run(game, 1500, seed=seed, particles=start).state))
    assert sum(np.array(found[0.0]) > found[1e-2]) >= 9
    assert max(found[1e-2]) < np.median(found[0.0])
