"""The reference against facts that are not its own: finite differences, suprema, published numbers, closed forms."""

import itertools
from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special, stats

from mfld import plain
from mfld.plain import ACTIVATIONS, LOSSES, READOUTS

KINKS = {"relu", "leaky_relu"}
# (name, parameter): each loss with its default and with another one
LOSS_CASES = [(name, loss.default) for name, loss in LOSSES.items()] + [("huber", 0.3), ("smoothed_hinge", 0.25)]
every_loss = pytest.mark.parametrize(("name", "parameter"), LOSS_CASES)


def derivative(function, x, h=1e-3):
    """Five-point difference: truncation h^4/30 times the fifth derivative, 1e-12 here; rounding about eps/h = 2e-13."""
    return (function(x - 2 * h) - 8 * function(x - h) + 8 * function(x + h) - function(x + 2 * h)) / (12 * h)


def gradient(function, x, h=1e-3):
    """The same for a function of an array, by entry."""
    result = np.empty_like(x)
    for index in np.ndindex(x.shape):
        unit = np.zeros_like(x)
        unit[index] = 1
        result[index] = derivative(lambda t, unit=unit: function(x + t * unit), 0.0, h)
    return result


# ---- activations -----------------------------------------------------------------------------------------------------

SPECIAL_FUNCTIONS = {
    "tanh": lambda z: 2 * special.expit(2 * z) - 1,
    "relu": lambda z: (z + np.abs(z)) / 2,
    "leaky_relu": lambda z: 0.505 * z + 0.495 * np.abs(z),
    "sigmoid": special.expit,
    "softplus": lambda z: -special.log_expit(-z),
    "erf": special.erf,
    "gelu": lambda z: z * special.ndtr(z),
    "silu": lambda z: z * special.expit(z),
    "sin": lambda z: 2 * np.sin(z / 2) * np.cos(z / 2),
    "cos": lambda z: 1 - 2 * np.sin(z / 2) ** 2,
    "identity": np.positive,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_the_known_functions(name):
    z = np.concatenate([np.linspace(-12, 12, 2001), [-700.0, -40.0, 40.0, 700.0]])
    # A few roundings of the value, or of 1 where the other formula subtracts from 1.
    assert_allclose(ACTIVATIONS[name].value(z), SPECIAL_FUNCTIONS[name](z), rtol=4e-15, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_is_the_derivative_of_the_activation(name, rng):
    z = rng.uniform(-6, 6, size=500)
    if name in KINKS:
        z = z[np.abs(z) > 4e-3]  # keep the stencil on one side of the kink
    assert np.ptp(z) > 11
    assert_allclose(ACTIVATIONS[name].slope(z), derivative(ACTIVATIONS[name].value, z), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_do_not_overflow(name):
    # Warnings are errors here. Beyond 1e5 what remains of each function is its straight end.
    z = np.array([-1e150, -1e5, 1e5, 1e150])
    value, slope = ACTIVATIONS[name].value(z), ACTIVATIONS[name].slope(z)
    if name in ("sin", "cos"):
        assert (np.hypot(value, slope) - 1 < 1e-15).all()
        return
    below, above = {
        "tanh": ((-1, 0), (1, 0)),
        "erf": ((-1, 0), (1, 0)),
        "sigmoid": ((0, 0), (1, 0)),
        "leaky_relu": ((0.01 * z[:2], 0.01), (z[2:], 1)),
        "identity": ((z[:2], 1), (z[2:], 1)),
    }.get(name, ((0, 0), (z[2:], 1)))
    for end, half in ((below, slice(0, 2)), (above, slice(2, 4))):
        assert_allclose(value[half], np.broadcast_to(end[0], 2), rtol=1e-15)
        assert_allclose(slope[half], np.broadcast_to(end[1], 2), rtol=1e-15)


@pytest.mark.parametrize(("name", "expected"), [("relu", 0.0), ("leaky_relu", 0.01)])
def test_slope_at_a_kink(name, expected):
    assert ACTIVATIONS[name].slope(np.array([0.0, -0.0])).tolist() == [expected] * 2


# ---- readouts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READOUTS)
@pytest.mark.parametrize("bound", [1.0, 15.0])
def test_derivative_of_a_readout_is_that_of_its_terms(name, bound, rng):
    readout = READOUTS[name]
    r = rng.uniform(-3, 3, size=(50, 3))
    got = readout.derivative(r, bound)
    for which in (0, 1):
        expected = derivative(lambda t, which=which: readout.terms(t, bound)[which], r)
        if readout.frozen:
            expected *= 0
        assert_allclose(got[which], expected, rtol=1e-10, atol=1e-11 * bound)


def test_neurons_by_hand():
    # w.x + b = 1 - 2 + 0.5, two outputs with r = (2, -1)
    particle, x = np.array([[1.0, -1.0, 0.5, 2.0, -1.0]]), np.array([[1.0, 2.0]])
    act = np.tanh(-0.5)
    expected = {
        "signs": [[2 * act, -act]],  # whatever stands there is the sign
        "linear": [[2 * act, -act]],
        "bounded": [[6 * np.tanh(2) * act, 6 * np.tanh(-1) * act]],
        "parity": [[6 * (act + 2 * np.tanh(2)) / 3, 6 * (act + 2 * np.tanh(-1)) / 3]],
    }
    for name, value in expected.items():
        network = plain.Network(2, n_outputs=2, readout=name, output_scale=10.0, readout_bound=6.0)
        assert_allclose(network.neurons(particle, x), 10 * np.array([value]), rtol=1e-15)
    fixed = plain.Network(2, readout="fixed", output_scale=10.0)
    assert_allclose(fixed.neurons(particle[:, :3], x), [[[10 * act]]], rtol=1e-15)
    without_bias = plain.Network(2, readout="fixed", bias=False)
    assert_allclose(without_bias.neurons(particle[:, :2], x), [[[np.tanh(-1)]]], rtol=1e-15)


# ---- losses ----------------------------------------------------------------------------------------------------------


def targets_of(name):
    return {"real": [-1.3, 0.0, 2.0], "sign": [-1.0, 1.0], "class": [0.0, 1.0, 2.0]}[LOSSES[name].targets]


def points_of(name, rng, n=300):
    """Predictions with one column, or three for classes, and the kinks of all losses."""
    width = 3 if LOSSES[name].targets == "class" else 1
    kinks = np.array([-1.3, 0.0, 2.0, -1.0, 1.0, 0.75, -0.75])
    return np.concatenate([rng.uniform(-4, 4, size=(n, width)), np.tile(kinks[:, np.newaxis], width)])


@every_loss
def test_derivative_is_that_of_the_loss(name, parameter, rng):
    loss, h = LOSSES[name], 1e-3
    u = points_of(name, rng, 60)
    for target in targets_of(name):
        y = np.full((len(u), 1), target)
        for k in range(u.shape[1]):
            unit = h * np.eye(u.shape[1])[k]
            one_sided = [
                s * (loss.value(u + s * unit, y, parameter) - loss.value(u, y, parameter)) / h for s in (-1, 1)
            ]
            got = loss.derivative(u, y, parameter)[:, k]
            # Convex: the derivative, or the subgradient at a kink, lies between the one-sided differences. This holds
            # everywhere; rounding of the difference is eps * 20 / h.
            assert (got >= one_sided[0] - 1e-11).all()
            assert (got <= one_sided[1] + 1e-11).all()
            # Where the loss is smooth within the stencil it is the difference.
            slopes = np.array([loss.derivative(u + s * unit, y, parameter)[:, k] for s in (-2, -1, 0, 1, 2)])
            jump = np.abs(np.diff(slopes, axis=0, n=2)).max(axis=0)  # h^2 without a kink of the value or its slope
            smooth = jump < 10 * h**2
            assert smooth.mean() > 0.8
            five_point = derivative(lambda t, unit=unit / h, y=y: loss.value(u + t * unit, y, parameter), 0.0, h)
            assert_allclose(got[smooth], five_point[smooth], atol=1e-10)


@pytest.mark.parametrize(
    ("name", "prediction", "target", "expected"),
    [
        ("absolute", 2.0, 2.0, 0.0),
        ("hinge", 1.0, 1.0, 0.0),
        ("hinge", -1.0, -1.0, 0.0),
        ("huber", 3.0, 2.0, 1.0),
        ("smoothed_hinge", 0.0, 1.0, -1.0),
        ("smoothed_hinge", 1.0, 1.0, 0.0),
    ],
)
def test_subgradient_at_a_kink(name, prediction, target, expected):
    loss = LOSSES[name]
    assert loss.derivative(np.array([[prediction]]), np.array([[target]]), loss.default).item() == expected


@every_loss
def test_conjugate_is_the_supremum(name, parameter, rng):
    """It bounds g.u - loss(u) at all points and is attained at the point whose derivative is g."""
    loss = LOSSES[name]
    u = points_of(name, rng)
    for target in targets_of(name):
        y = np.full((len(u), 1), target)
        g = loss.derivative(u, y, parameter)
        conjugate = loss.conjugate(g, y, parameter)
        attained = (g * u).sum(axis=1) - loss.value(u, y, parameter)
        assert_allclose(conjugate, attained, atol=1e-13 * 20)  # terms up to 20, a few roundings
        everywhere = g @ u.T - loss.value(u, y, parameter)
        assert (everywhere <= conjugate[:, np.newaxis] + 1e-12).all()
        # Between two slopes too, where a kink has many.
        middle = (g + g[::-1]) / 2
        conjugate = loss.conjugate(middle, y, parameter)
        assert np.isfinite(conjugate).all()
        assert ((middle @ u.T - loss.value(u, y, parameter)) <= conjugate[:, np.newaxis] + 1e-12).all()


@pytest.mark.parametrize(
    ("name", "target", "dual", "limit"),
    [
        ("absolute", 3.0, 0.4, 1.2),  # at u = y: g y
        ("hinge", 1.0, -0.4, -0.4),  # at u = 1/y: g/y
        ("hinge", -1.0, 0.4, -0.4),
        ("logistic", 1.0, -0.5, -np.log(2)),  # at u = 0
        ("logistic", 1.0, 0.0, 0.0),  # u -> inf
        ("logistic", 1.0, -1.0, 0.0),  # u -> -inf
        ("huber", 2.0, 1.0, 2.5),  # at u = y + 1: g^2/2 + g y
        ("smoothed_hinge", 1.0, -1.0, -0.5),  # at u = 0: -1/2
    ],
)
def test_conjugate_by_hand(name, target, dual, limit):
    loss = LOSSES[name]
    assert_allclose(loss.conjugate(np.array([[dual]]), np.array([[target]]), loss.default), [limit], atol=1e-15)


@pytest.mark.parametrize(
    ("name", "target", "dual"),
    [
        ("absolute", 0.0, [1.001]),
        ("absolute", 0.0, [-1.001]),
        ("huber", 1.0, [1.001]),
        ("logistic", 1.0, [0.001]),
        ("logistic", 1.0, [-1.001]),
        ("logistic", -1.0, [-0.001]),
        ("hinge", 1.0, [0.001]),
        ("hinge", -1.0, [1.001]),
        ("smoothed_hinge", 1.0, [-1.001]),
        ("smoothed_hinge", -1.0, [-0.001]),
        ("cross_entropy", 0.0, [0.1, -0.1, 0.1]),
        ("cross_entropy", 1.0, [0.1, 0.1, -0.2]),  # p sums to 1 but is negative somewhere
        ("cross_entropy", 1.0, [0.1, -0.2, 0.1001]),
    ],
)
def test_conjugate_is_infinite_where_the_supremum_is(name, target, dual):
    loss, g, y = LOSSES[name], np.array([dual]), np.array([[target]])
    assert loss.conjugate(g, y, loss.default) == np.inf
    # Some ray on which g.u - loss(u) grows without bound: by 1e5 times its slope, which is how far the point lies
    # outside of the domain, 1e-4 at least. Inside it no ray grows by more than rounding, 1e-10.
    rays = np.array(list(itertools.product([-1.0, 0.0, 1.0], repeat=len(dual))))
    growth = [rays @ g[0] * t - loss.value(t * rays, np.tile(y, (len(rays), 1)), loss.default) for t in (1e5, 2e5)]
    assert (growth[1] - growth[0]).max() > 5  # half of 1e5 * 1e-4


@every_loss
def test_smoothness_is_the_steepest_slope_of_the_derivative(name, parameter, rng):
    loss = LOSSES[name]
    u = np.concatenate([points_of(name, rng), np.full((1, points_of(name, rng).shape[1]), 0.1)])
    if name == "cross_entropy":
        u = np.concatenate([u, [[0.0, 0.0, -40.0]]])  # p = (1/2, 1/2, 0), where the Hessian is largest
    steepest = 0.0
    for target, direction in itertools.product(targets_of(name), itertools.product([-1, 0, 1], repeat=u.shape[1])):
        if any(direction):
            unit = 1e-6 * np.array(direction) / np.linalg.norm(direction)
            y = np.full((len(u), 1), target)
            change = loss.derivative(u + unit, y, parameter) - loss.derivative(u - unit, y, parameter)
            steepest = max(steepest, np.linalg.norm(change, axis=1).max() / 2e-6)
    if loss.smoothness(parameter) == np.inf:
        assert steepest > 1e4
    else:  # rounding: eps / 1e-6
        assert_allclose(steepest, loss.smoothness(parameter), rtol=1e-7)


def test_cross_entropy_of_two_classes_is_logistic(rng):
    u, sign = rng.normal(size=(50, 2)) * 3, np.sign(rng.normal(size=(50, 1)))
    two = LOSSES["cross_entropy"].value(u, (sign < 0).astype(float), 0.0)
    assert_allclose(two, LOSSES["logistic"].value(u[:, :1] - u[:, 1:], sign, 0.0), rtol=1e-13, atol=1e-15)


# ---- the network and the risk ----------------------------------------------------------------------------------------


def draw(rng, n_particles=4, n=6, **arguments):
    network = plain.Network(3, output_scale=1.7, readout_bound=2.0, **arguments)
    particles = rng.normal(size=(n_particles, network.n_coordinates))
    return network, particles, rng.normal(size=(n, 3))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("bias", [True, False])
def test_pull_back_is_the_gradient_of_the_neurons(activation, readout, bias, rng):
    network, particles, inputs = draw(rng, activation=activation, readout=readout, bias=bias, n_outputs=2)
    cotangent = rng.normal(size=(6, 2))
    values, got = network.pull_back(particles, inputs, cotangent)

    def total(x):
        return np.sum(cotangent[:, np.newaxis] * network.neurons(x, inputs))

    # Through the neurons alone. Each particle has its own, so the gradient of their sum has all of them.
    assert_allclose(values.sum(), total(particles), rtol=1e-13)
    assert_allclose(values[:1], total(particles[:1]), rtol=1e-13)
    if activation in KINKS:
        assert np.abs(network.pre_activations(particles, inputs)).min() > 2e-3  # the stencil stays on one side
    expected = gradient(total, particles, h=3e-4)
    expected[:, network.n_moving :] = 0
    assert_allclose(got, expected, rtol=1e-9, atol=1e-10)


def make_risk(rng, name, parameter=None, weights=True, readout="linear"):
    n_outputs = 3 if LOSSES[name].targets == "class" else 2
    network, particles, inputs = draw(rng, n_outputs=n_outputs, readout=readout)
    targets = {
        "real": rng.normal(size=(6, n_outputs)),
        "sign": np.sign(rng.normal(size=(6, n_outputs))),
        "class": rng.integers(0, n_outputs, size=(6, 1)).astype(float),
    }[LOSSES[name].targets]
    weight = rng.uniform(0.1, 3, size=6) if weights else None
    return plain.Risk(network, inputs, targets, name, parameter, l2=0.3, sample_weight=weight), particles


@every_loss
@pytest.mark.parametrize("weights", [True, False])
def test_gradient_is_n_times_that_of_the_value(name, parameter, weights, rng):
    risk, particles = make_risk(rng, name, parameter, weights)
    expected = len(particles) * gradient(risk.value, particles, h=1e-4)
    # h^4 = 1e-16 of truncation, eps / h = 2e-12 of rounding; no kink of a loss comes near for this seed.
    assert_allclose(risk.gradient(particles), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("readout", READOUTS)
def test_frozen_coordinates_have_no_gradient_and_no_ridge(readout, rng):
    risk, particles = make_risk(rng, "squared", readout=readout)
    frozen = slice(risk.network.n_moving, None)
    assert (particles[:, frozen].size > 0) == (readout == "signs")
    assert not risk.gradient(particles)[:, frozen].any()
    scaled = particles.copy()
    scaled[:, frozen] *= -1
    assert_allclose(risk.ridge(scaled), risk.ridge(particles), rtol=1e-15)


def test_first_variation_is_the_slope_under_moving_mass(rng):
    risk, particles = make_risk(rng, "logistic")
    points = rng.normal(size=(5, particles.shape[1]))
    values, gradients = risk.first_variation(particles, points)
    loss = LOSSES[risk.loss]

    def value(epsilon, point):  # F((1 - epsilon) mu + epsilon delta_point)
        cloud = np.vstack([particles, point])
        coefficients = np.append(np.full(len(particles), (1 - epsilon) / len(particles)), epsilon)
        u = risk.network.predict(cloud, risk.inputs, coefficients)
        return risk.weights @ loss.value(u, risk.targets, 0.0) + coefficients @ risk.ridge(cloud)

    mean = risk.first_variation(particles, particles)[0].mean()
    for point, got in zip(points, values, strict=True):
        assert_allclose(derivative(lambda t, point=point: value(t, point), 0.0), got - mean, rtol=1e-10)
    expected = gradient(lambda x: risk.first_variation(particles, x)[0].sum(), points)
    assert_allclose(gradients, expected, rtol=1e-9, atol=1e-10)
    assert_allclose(risk.first_variation(particles, particles)[1], risk.gradient(particles), rtol=1e-14)


@pytest.mark.parametrize("name", ["squared", "cross_entropy"])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 6])
def test_minibatch_gradient_is_unbiased(name, batch_size, rng):
    risk, particles = make_risk(rng, name)
    batches = list(itertools.combinations(range(6), batch_size))
    mean = np.mean([risk.gradient(particles, rows) for rows in batches], axis=0)
    assert_allclose(mean, risk.gradient(particles), rtol=1e-13, atol=1e-14)


def test_euler_maruyama_by_hand():
    moved = plain.euler_maruyama(
        np.array([[1.0, 2.0, -1.0]]),
        np.array([[10.0, 20.0, 99.0]]),
        np.array([[3.0, -1.0]]),
        n_moving=2,
        step_size=0.1,
        temperature=0.2,  # sqrt(2 * 0.2 * 0.1) = 0.2
    )
    assert_allclose(moved, [[1 - 1 + 0.6, 2 - 2 - 0.2, -1.0]], rtol=1e-15, atol=1e-15)


# ---- the noise -------------------------------------------------------------------------------------------------------

# Known answers of Philox4x32-10: kat_vectors of Random123, the authors' own implementation.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_words(counter, key, expected):
    assert plain.philox(words(counter), words(key)) == words(expected)
    as_arrays = plain.philox(tuple(np.array([word], np.uint64) for word in words(counter)), words(key))
    assert tuple(int(word[0]) for word in as_arrays) == words(expected)


def test_each_place_in_the_noise_has_its_own_counter():
    particle, block, step, population = 0x89ABCDEF, 0x123456, 0xFEDCBA987654, 0xBEEF
    expected = plain.philox(
        (particle, 0x123456 | 3 << 24, 0xBA987654, 0xFEDC | 0xBEEF << 16), (0x33445566, 0x11223344 >> 0)
    )
    got = plain.noise_words(
        0x1122334433445566, particle, block, step=step, stream=plain.STREAMS["acceptance"], population=population
    )
    assert tuple(int(word) for word in got) == expected


@pytest.mark.parametrize("bits", [32, 53])
def test_normals_at_the_ends_of_the_words(bits):
    most = 2**bits - 1
    radius, angle = np.array([0, most, most // 2, 0], np.uint64), np.array([0, 0, most, 2 ** (bits - 2)], np.uint64)
    z0, z1 = plain._box_muller(radius, angle, bits)
    tiny = 2.0 ** -(bits + 1)
    # -2 ln u for u = tiny, 1 - tiny, 1/2 - tiny; the next terms of the series are below 1e-20 of them
    squares = [
        2 * (bits + 1) * np.log(2),
        2 * tiny + tiny**2,
        2 * np.log(2) + 4 * tiny + 4 * tiny**2,
        2 * (bits + 1) * np.log(2),
    ]
    assert_allclose(z0**2 + z1**2, squares, rtol=1e-15)
    turn = 2 * np.pi * tiny
    tangents = np.array([turn, turn, -turn])
    assert_allclose((z1 / z0)[:3], tangents, rtol=1e-15)
    assert abs((z0 / z1)[3] + turn) < 2e-16  # pi/2 itself is rounded
    assert (z0[:3] > 0).all()
    assert z1[3] > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normals_are_normal_and_independent(dtype):
    key = plain.noise_key(1)
    z = np.stack([plain.normals(key, step, 20000, 8, dtype) for step in (0, 1, 2**32)])
    # p-values below 5.7e-7 are what 5 sigma is for a normal.
    assert stats.kstest(z.ravel(), "norm").pvalue > 5.7e-7
    # Squares too: a dependence of the two members of a Box-Muller pair would not show in their correlation.
    flat = z.transpose(0, 2, 1).reshape(24, -1)
    for values in (flat, flat**2):
        correlation = np.corrcoef(values)[np.triu_indices(24, 1)]
        assert np.abs(correlation).max() < 5.5 / np.sqrt(20000)  # 276 pairs
        lagged = [np.corrcoef(row[:-1], row[1:])[0, 1] for row in values]
        assert np.abs(lagged).max() < 5 / np.sqrt(20000)


def test_noise_depends_on_every_part_of_its_place():
    def some(seed=1, replica=0, step=0, **place):
        return tuple(plain.normals(plain.noise_key(seed, replica), step, 1, 4, **place)[0])

    places = [
        some(),
        some(seed=2),
        some(seed=1 + 2**32),
        some(replica=1),
        some(replica=2**32),
        some(step=1),
        some(step=2**32),
        some(stream=plain.STREAMS["init"]),
        some(population=1),
        some(dtype="float64"),
    ]
    assert len(set(places)) == len(places)


def test_noise_has_not_changed():
    # Published results depend on these numbers, which were computed once from the definition. Should they ever have to
    # change, the changelog must say so.
    key = plain.noise_key(42, 1)
    assert key == 0x1FDF4C17B3329182
    assert_allclose(
        plain.normals(key, 7, 1, 3, "float32"),
        [[-1.3480893987594544, 0.44053573227744014, 0.7280585176680656]],
        rtol=1e-14,
    )
    assert_allclose(
        plain.normals(key, 7, 1, 3, "float64"),
        [[1.1225357593726757, 0.5814827259833639, -0.1785104267876237]],
        rtol=1e-14,
    )
    assert plain.minibatch(key, 7, 1000, 5).tolist() == [340, 420, 570, 680, 526]


@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (5, 1), (6, 3), (4, 4), (1000, 999)])
def test_a_minibatch_has_distinct_rows(n, batch_size):
    for step in range(20):
        rows = plain.minibatch(plain.noise_key(0), step, n, batch_size)
        assert len(set(rows.tolist())) == batch_size
        assert rows.min() >= 0
        assert rows.max() < n


def test_all_minibatches_are_equally_likely():
    n_draws = 8000
    key = plain.noise_key(5)
    counts = Counter(frozenset(plain.minibatch(key, step, 6, 3).tolist()) for step in range(n_draws))
    assert len(counts) == 20
    assert stats.chisquare(list(counts.values())).pvalue > 5.7e-7
