"""TwoLayerNetwork: layout of a particle, shapes, precision, initial particles, refusals.

What the kernels compute is compared with the reference elsewhere.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld

READOUT_COORDINATES = {"fixed": 0, "signs": 1, "linear": 1, "bounded": 1, "parity": 1}  # per output


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def random_model(rng, n_particles=7, n_inputs=4, **arguments):
    model = mfld.TwoLayerNetwork(n_features=3, **arguments)
    return model, rng.normal(size=(n_particles, model.n_coordinates)), rng.normal(size=(n_inputs, 3))


def test_every_readout_of_the_core_is_known_here():
    assert set(mfld.readouts()) == set(READOUT_COORDINATES)


@pytest.mark.parametrize(
    ("readout", "n_outputs"), [(name, k) for name in mfld.readouts() for k in (1, 3) if (name, k) != ("fixed", 3)]
)
@pytest.mark.parametrize("bias", [True, False])
def test_layout_of_a_particle(readout, bias, n_outputs):
    model = mfld.TwoLayerNetwork(n_features=5, n_outputs=n_outputs, readout=readout, bias=bias)
    coordinates = np.arange(model.n_coordinates)
    parts = [coordinates[model.slices[name]] for name in ("weights", "bias", "readout")]
    assert np.array_equal(np.concatenate(parts), coordinates)
    assert [len(part) for part in parts] == [5, int(bias), READOUT_COORDINATES[readout] * n_outputs]
    frozen = n_outputs if readout == "signs" else 0
    assert model.n_moving == model.n_coordinates - frozen


@pytest.mark.parametrize("readout", [name for name in mfld.readouts() if name != "fixed"])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_a_prediction_is_the_weighted_sum_of_neurons(rng, readout, n_outputs):
    model, particles, inputs = random_model(rng, readout=readout, n_outputs=n_outputs)
    neurons = model.neurons(particles, inputs)
    assert neurons.shape == ((4, 7) if n_outputs == 1 else (4, 7, 3))
    assert_allclose(model.predict(particles, inputs), neurons.mean(axis=1), rtol=1e-13)
    coefficients = rng.normal(size=7)  # of any sign and sum
    assert_allclose(
        model.predict(particles, inputs, weights=coefficients),
        np.tensordot(neurons, coefficients, axes=(1, 0)),
        rtol=1e-12,
        atol=1e-13,
    )


def test_each_output_reads_its_own_readout_weight(rng):
    model, particles, inputs = random_model(rng, n_outputs=3, activation="relu")
    particles[:, model.slices["readout"]] = [0.0, 1.0, -2.0]
    neurons = model.neurons(particles, inputs)
    assert neurons.any()
    assert not neurons[..., 0].any()
    assert_allclose(neurons[..., 2], -2 * neurons[..., 1])


def test_output_scale_is_a_factor_and_bound_bounds(rng):
    model, particles, inputs = random_model(rng, readout="bounded", readout_bound=0.5)
    neurons = model.neurons(100 * particles, inputs)
    assert 0.49 < np.abs(neurons).max() <= 0.5
    scaled = mfld.TwoLayerNetwork(n_features=3, readout="bounded", readout_bound=0.5, output_scale=-7.0)
    assert_allclose(scaled.neurons(100 * particles, inputs), -7 * neurons)


def test_precision_follows_the_particles(rng):
    model, particles, inputs = random_model(rng)
    assert model.predict(particles.astype(np.float32), inputs).dtype == np.float32
    assert model.predict(particles, inputs.astype(np.float32)).dtype == np.float64
    assert model.predict(np.ones((2, 5), dtype=int), [[1, 2, 3]]).dtype == np.float64
    assert_allclose(model.predict(particles.astype(np.float32), inputs), model.predict(particles, inputs), rtol=1e-4)


def test_memory_layout_does_not_matter(rng):
    model, particles, inputs = random_model(rng)
    expected = model.predict(particles, inputs)
    wide = np.zeros((7, 10))
    wide[:, ::2] = particles
    assert np.array_equal(model.predict(np.asfortranarray(particles), np.asfortranarray(inputs)), expected)
    assert np.array_equal(model.predict(wide[:, ::2], inputs), expected)


def test_threads_do_not_change_a_prediction(rng):
    model, particles, inputs = random_model(rng, n_particles=300, n_inputs=200)
    one = model.predict(particles, inputs, num_threads=1)
    for num_threads in (2, 3, 7):
        assert model.predict(particles, inputs, num_threads=num_threads).tobytes() == one.tobytes()


def within(values, expected, standard_error):
    return abs(np.mean(values) - expected) < 5 * standard_error


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_law_of_the_initial_particles(dtype):
    n = 4000
    model = mfld.TwoLayerNetwork(n_features=16, n_outputs=2)
    particles = model.initial_particles(n, 5, dtype=dtype)
    assert particles.shape == (n, 19)
    assert particles.dtype == dtype
    for part, variance in (("weights", 1 / 16), ("bias", 1.0), ("readout", 1.0)):
        values = particles[:, model.slices[part]].astype(np.float64)
        assert within(values, 0, np.sqrt(variance / values.size)), part
        assert within(values**2, variance, variance * np.sqrt(2 / values.size)), part


def test_initial_signs_are_fair_and_signs():
    model = mfld.TwoLayerNetwork(n_features=2, n_outputs=2, readout="signs")
    signs = model.initial_particles(4000, 1)[:, model.slices["readout"]]
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert within(signs, 0, 1 / np.sqrt(signs.size))
    assert within(signs[:, 0] * signs[:, 1], 0, 1 / np.sqrt(len(signs)))


def test_initial_particles_are_a_function_of_seed_and_particle():
    model = mfld.TwoLayerNetwork(n_features=3)
    many = model.initial_particles(100, 4)
    assert np.array_equal(model.initial_particles(30, 4), many[:30])
    assert not np.array_equal(model.initial_particles(100, 5), many)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_features": 0}, ValueError, "n_features must be at least 1, got 0"),
        ({"n_features": 2.0}, TypeError, r"n_features must be an integer, got 2.0 \(float\)"),
        ({"n_features": True}, TypeError, r"n_features must be an integer, got True \(bool\)"),
        ({"n_outputs": -1}, ValueError, "n_outputs must be at least 1, got -1"),
        ({"activation": "tahn"}, ValueError, "activation must be one of .*tanh.*relu.*; got 'tahn'"),
        ({"activation": np.tanh}, TypeError, "activation must be a name, one of .*tanh.*; got <ufunc 'tanh'>"),
        ({"readout": "quadratic"}, ValueError, "readout must be one of .*signs.*; got 'quadratic'"),
        ({"readout": "fixed", "n_outputs": 2}, ValueError, "n_outputs must be 1 with readout='fixed'.*got 2"),
        ({"bias": 1}, TypeError, r"bias must be True or False, got 1 \(int\)"),
        ({"output_scale": np.inf}, ValueError, "output_scale must be finite, got inf"),
        ({"output_scale": "2"}, TypeError, r"output_scale must be a real number, got '2' \(str\)"),
        ({"readout_bound": 0.0}, ValueError, "readout_bound must be finite and positive, got 0.0"),
    ],
)
def test_refused_models(arguments, error, message):
    with pytest.raises(error, match=message):
        mfld.TwoLayerNetwork(**{"n_features": 3, **arguments})


def test_every_activation_name_is_listed_when_one_is_unknown():
    with pytest.raises(ValueError, match="activation must be one of") as caught:
        mfld.TwoLayerNetwork(n_features=1, activation="")
    assert all(name in str(caught.value) for name in mfld.activations())


NAN_AT = np.zeros((4, 3))
NAN_AT[2, 1] = np.nan


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"particles": np.zeros((2, 4))}, ValueError, r"particles must have shape \(N, 5\).*, got \(2, 4\)"),
        (
            {"particles": np.zeros((0, 5))},
            ValueError,
            r"particles must have shape \(N, 5\) with N at least 1.*\(0, 5\)",
        ),
        ({"particles": np.zeros(5)}, ValueError, r"particles must have shape \(N, 5\).*, got \(5,\)"),
        ({"inputs": np.zeros((4, 2))}, ValueError, r"inputs must have shape \(n, 3\).*, got \(4, 2\)"),
        ({"inputs": NAN_AT}, ValueError, r"inputs must be finite, got nan at index \(2, 1\)"),
        ({"inputs": [["a", "b", "c"]]}, TypeError, "inputs must be an array of real numbers, got dtype <U1"),
        (
            {"inputs": np.zeros((1, 3), complex)},
            TypeError,
            "inputs must be an array of real numbers, got dtype complex128",
        ),
        ({"inputs": [[1.0, 2.0, 3.0], [1.0]]}, ValueError, "inputs must be an array of real numbers"),
        ({"weights": np.zeros(3)}, ValueError, r"weights must have shape \(2,\) to match particles, got \(3,\)"),
        ({"weights": [0.5, np.inf]}, ValueError, "weights must be finite, got inf at index 1"),
        ({"num_threads": 0}, ValueError, "num_threads must be at least 1, got 0"),
    ],
)
def test_refused_predictions(arguments, error, message):
    model = mfld.TwoLayerNetwork(n_features=3)
    with pytest.raises(error, match=message):
        model.predict(**{"particles": np.zeros((2, 5)), "inputs": np.zeros((4, 3)), **arguments})


def test_values_that_float32_cannot_hold_are_named():
    model = mfld.TwoLayerNetwork(n_features=3)
    with pytest.raises(ValueError, match=r"inputs must be finite in float32, got 1e\+300 at index \(0, 1\)"):
        model.predict(np.zeros((2, 5), np.float32), [[0.0, 1e300, 0.0]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_particles": 0}, ValueError, "n_particles must be at least 1, got 0"),
        ({"place": -1}, ValueError, "seed must be between 0 and 18446744073709551615, got -1"),
        ({"place": 2**64}, ValueError, "seed must be between 0 and 18446744073709551615, got 18446744073709551616"),
        ({"place": None}, TypeError, "seed must be an integer, got None"),
        ({"dtype": "float16"}, ValueError, "dtype must be float32 or float64, got float16"),
        ({"dtype": "real"}, TypeError, "dtype must be float32 or float64, got 'real'"),
    ],
)
def test_refused_initial_particles(arguments, error, message):
    with pytest.raises(error, match=message):
        mfld.TwoLayerNetwork(n_features=3).initial_particles(**{"n_particles": 5, **arguments})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mfld.noise.normals(0, -1, 2, 2), ValueError, "step must be between 0 and 281474976710655, got -1"),
        (lambda: mfld.noise.normals(0, 0, 2, 2, stream="x"), ValueError, "stream must be one of init, move.*; got 'x'"),
        (
            lambda: mfld.noise.normals(0, 0, 2, 2, population=2**16),
            ValueError,
            "population must be between 0 and 65535",
        ),
        (lambda: mfld.noise.minibatch(0, 0, 5, 6), ValueError, "batch_size must be between 1 and 5, got 6"),
        (lambda: mfld.noise.key(0, replica=-1), ValueError, "replica must be between 0 and"),
    ],
)
def test_refused_noise(call, error, message):
    with pytest.raises(error, match=message):
        call()
