"""The compiled core against the reference: every registered item, both precisions, every instruction-set level.

The data of single stages lie on a coarse binary grid: pre-activations are then exact in both precisions, so that core
and reference evaluate activations at the same points, kinks included, and one float64 reference serves both precisions.

Tolerances are multiples of eps times a natural scale: the same formula with the absolute value of each term. The worst
case of rounding grows with the number of terms, but errors of either sign add up like its root, and relative to a sum
of absolute values they shrink like its root. What remains is the error of single terms, a few eps: two or three of an
activation, as much of a tanh in the readout, one or two of products.
"""

import itertools
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import mfld
from mfld import _core, noise, plain
from mfld.plain import ACTIVATIONS, LOSSES, READOUTS

EPS = {"float32": 2.0**-23, "float64": 2.0**-52}

pytestmark = pytest.mark.usefixtures("level")


def assert_within(got, expected, scale, multiple, what=""):
    """Every entry within this multiple of eps times its scale."""
    eps = EPS[got.dtype.name]
    assert got.shape == expected.shape
    error = np.abs(got.astype(np.float64) - expected)
    bound = multiple * eps * np.broadcast_to(scale, error.shape)
    if not (error <= bound).all():
        worst = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error - bound)), error.shape)
        raise AssertionError(
            f"{what} at {worst}: got {got[worst]!r}, expected {expected[worst]!r}, "
            f"off by {error[worst] / (bound[worst] / multiple):.2f} eps of the scale, allowed {multiple}"
        )


def native(network):
    """A plain.Network as the core takes it."""
    return _core.Network(
        network.n_features,
        network.n_outputs,
        network.bias,
        list(ACTIVATIONS).index(network.activation),
        list(READOUTS).index(network.readout),
        network.output_scale,
        network.readout_bound,
    )


def native_loss(name, parameter=None):
    return _core.Loss(list(LOSSES).index(name), LOSSES[name].default if parameter is None else parameter)


# ---- the registries --------------------------------------------------------------------------------------------------


def test_the_reference_knows_what_the_core_knows():
    backend = _core.backend
    assert backend.activations == list(ACTIVATIONS)
    assert backend.readouts == [(name, r.has_coordinates, r.frozen) for name, r in READOUTS.items()]
    assert backend.losses == [(name, x.parameter, x.default, x.targets, True) for name, x in LOSSES.items()]
    assert dict(_core._binding.streams()) == noise.STREAMS == plain.STREAMS


# ---- activations and losses, element by element ----------------------------------------------------------------------


def value_scale(activation, z):
    """What the error of an activation is relative to: its value, unless it has roots, or its argument is rounded."""
    value = np.abs(ACTIVATIONS[activation].value(z))
    if activation in ("sin", "cos"):
        return np.ones_like(z)
    if activation == "gelu":  # Phi has the logarithmic slope -z, and its argument z / sqrt(2) is rounded
        value = (1 + z**2) * value
    # An exponential below the smallest normal float32 may be 0, whatever multiplies it.
    return np.maximum(value, (1 + np.abs(z)) * 2.0**-126 / EPS["float32"])


def slope_scale(activation, z):
    """The slope, or 1: slopes are made of differences from 1."""
    return np.maximum(1, np.abs(ACTIVATIONS[activation].slope(z)))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name, dtype):
    z = np.concatenate([np.linspace(-12, 12, 4001), np.geomspace(1e-6, 600, 501), -np.geomspace(1e-6, 600, 501), [0.0]])
    z = z.astype(dtype)
    value, slope, _ = _core.backend.activation(list(ACTIVATIONS).index(name), z)
    exact = z.astype(np.float64)
    assert_within(value, ACTIVATIONS[name].value(exact), value_scale(name, exact), 6, name)
    assert_within(slope, ACTIVATIONS[name].slope(exact), slope_scale(name, exact), 6, f"slope of {name}")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_is_the_derivative_of_the_value(name):
    z = np.linspace(-7, 7, 701)  # both ends of the stencil on the same side of 0, where kinks are
    h = 1e-3
    index = list(ACTIVATIONS).index(name)
    value = {shift: _core.backend.activation(index, z + shift * h)[0] for shift in (-2, -1, 1, 2)}
    slope = _core.backend.activation(index, z)[1]
    difference = (value[-2] - 8 * value[-1] + 8 * value[1] - value[2]) / (12 * h)
    off_the_kink = np.abs(z) > 3 * h if "relu" in name else np.full(len(z), True)
    # Truncation h^4/30 = 3e-14 times the fifth derivative (16 of tanh), rounding eps max|value| / h = 2e-12.
    assert np.abs(slope - difference)[off_the_kink].max() < 5e-12


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_curvature_is_the_derivative_of_the_slope(name, dtype):
    z = np.linspace(-7, 7, 701)
    h = 1e-3
    index = list(ACTIVATIONS).index(name)
    slope = {shift: _core.backend.activation(index, z + shift * h)[1] for shift in (-2, -1, 1, 2)}
    difference = (slope[-2] - 8 * slope[-1] + 8 * slope[1] - slope[2]) / (12 * h)
    curvature = _core.backend.activation(index, z.astype(dtype))[2]
    assert curvature.dtype == dtype
    off_the_kink = np.abs(z) > 3 * h if "relu" in name else np.full(len(z), True)
    # As above with the sixth derivative; float32 has z to 4e-7, and curvatures change by at most 2 a unit.
    assert np.abs(curvature - difference)[off_the_kink].max() < (1e-11 if dtype == np.float64 else 3e-6)
    far = _core.backend.activation(index, np.array([-1e3, 0.0, 1e3], dtype))[2]
    assert np.isfinite(far).all()
    if "relu" in name:
        assert not curvature.any()


LOSS_CASES = [(name, loss.default) for name, loss in LOSSES.items()] + [("huber", 0.25), ("smoothed_hinge", 0.25)]
every_loss = pytest.mark.parametrize(("loss", "parameter"), LOSS_CASES)


def targets_for(rng, name, n, n_outputs):
    match LOSSES[name].targets:
        case "real":
            return rng.integers(-16, 17, size=(n, n_outputs)) / 8
        case "sign":
            return rng.choice([-1.0, 1.0], size=(n, n_outputs))
        case "class":
            return rng.integers(0, n_outputs, size=(n, 1)).astype(np.float64)


@every_loss
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_loss(loss, parameter, n_outputs, dtype, rng):
    for n in (1, 7, 200):
        u = rng.integers(-64, 65, size=(n, n_outputs)) / 16  # margins and residuals hit the kinks exactly
        u[:: max(1, n // 8)] *= 200  # and far away nothing overflows
        y = targets_for(rng, loss, n, n_outputs)
        value, derivative = _core.backend.loss(native_loss(loss, parameter), u.astype(dtype), y.astype(dtype))
        known = LOSSES[loss]
        expected = known.value(u, y, parameter)
        # Terms as large as the predictions and targets they are made of.
        scale = {"squared": expected, "half_squared": expected}.get(loss, 1 + np.abs(u).sum(axis=1))
        assert_within(value, expected, scale, 4, loss)
        expected = known.derivative(u, y, parameter)
        assert_within(derivative, expected, np.maximum(1, np.abs(expected)), 4, f"derivative of {loss}")


@every_loss
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_conjugate(loss, parameter, n_outputs, dtype, rng):
    known = LOSSES[loss]
    n = 50
    if loss == "cross_entropy":
        y = targets_for(rng, loss, n, n_outputs)
        p = rng.multinomial(16, np.full(n_outputs, 1 / n_outputs), size=n) / 16  # corners of the simplex too
        g = p - (y == np.arange(n_outputs))
    else:
        y = targets_for(rng, loss, n, n_outputs)
        g = rng.integers(0, 17, size=(n, n_outputs)) / 16  # the ends of the domain are inside
        g = g * 2 - 1 if known.targets == "real" else -y * g
        g = g * (parameter if loss == "huber" else 1)
    expected = known.conjugate(g, y, parameter)
    assert np.isfinite(expected).all()
    got = _core.backend.conjugate(native_loss(loss, parameter), g.astype(dtype), y.astype(dtype))
    assert_within(got, expected, 1 + np.abs(g * y).sum(axis=1), 4, loss)


@pytest.mark.parametrize(
    ("loss", "parameter", "dual", "target"),
    [
        ("absolute", 0.0, [-1.0], 2.0),
        ("huber", 0.25, [0.25], 2.0),
        ("logistic", 0.0, [-1.0], 1.0),
        ("hinge", 0.0, [1.0], -1.0),
        ("smoothed_hinge", 0.25, [-1.0], 1.0),
        ("cross_entropy", 0.0, [1.0, 0.0, -1.0], 2.0),
    ],
)
def test_the_domain_of_a_conjugate_ends_with_some_tolerance(loss, parameter, dual, target, dtype):
    # A dual point computed as a derivative may lie outside by its rounding; beyond that the conjugate is infinite.
    for factor, inside in ((1.0, True), (1 + 2 * EPS[dtype.name], True), (1.001, False)):
        g = np.array([dual], dtype) * dtype.type(factor)
        got = _core.backend.conjugate(native_loss(loss, parameter), g, np.array([[target]], dtype))
        assert np.isfinite(got).all() == inside, factor


@every_loss
def test_smoothness(loss, parameter):
    assert _core.backend.loss_smoothness(native_loss(loss, parameter)) == LOSSES[loss].smoothness(parameter)


# ---- stages of the network -------------------------------------------------------------------------------------------


class Case(NamedTuple):
    n_particles: int
    n_features: int
    n: int
    n_outputs: int
    bias: bool


# Fewer than a register, than a panel, than a tile; one more than some; many leaves and blocks.
CASES = [
    Case(1, 1, 1, 1, bias=False),
    Case(7, 5, 13, 3, bias=True),
    Case(33, 65, 200, 1, bias=True),
    Case(1001, 5, 70, 3, bias=False),
    Case(1001, 1, 13, 1, bias=True),
    Case(33, 5, 1, 3, bias=False),
]


def grid(rng, scale, size):
    return np.round(16 * scale * rng.normal(size=size)) / 16


class Expected(NamedTuple):
    """What the reference says, and the natural scale of each: the same sums over absolute values."""

    neurons: np.ndarray
    predictions: np.ndarray
    mean: np.ndarray
    values: np.ndarray
    gradient: np.ndarray
    scales: dict[str, np.ndarray]


class Stage(NamedTuple):
    network: plain.Network
    particles: np.ndarray
    inputs: np.ndarray
    cotangent: np.ndarray
    coefficients: np.ndarray


@cache
def stage(activation, readout, case):
    rng = np.random.default_rng([case.n_particles, case.n_features, case.n])
    network = plain.Network(
        case.n_features, case.n_outputs, activation, readout, case.bias, output_scale=1.5, readout_bound=2.5
    )
    particles = grid(rng, 2.0, (case.n_particles, network.n_coordinates))
    particles[:, : case.n_features] /= 2 ** (case.n_features > 1)
    particles[3::17, : case.n_features] *= 32  # saturated neurons
    particles[5::19] = 0
    particles[:, network.n_moving :] = np.where(particles[:, network.n_moving :] < 0, -1, 1)
    inputs, cotangent = grid(rng, 1.0, (case.n, case.n_features)), grid(rng, 2.0, (case.n, case.n_outputs))
    return Stage(network, particles, inputs, cotangent, grid(rng, 1.0, case.n_particles))


@cache
def expected_of(activation, readout, case):
    network, particles, inputs, cotangent, coefficients = stage(activation, readout, case)
    known = READOUTS[readout]
    z = network.pre_activations(particles, inputs)
    act, slope = value_scale(activation, z), slope_scale(activation, z)
    r = network.split(particles)[2]
    c, e = (np.abs(term) for term in known.terms(r, network.readout_bound))
    # Largest at 0. Elsewhere 1 - tanh^2 is a difference, rounded like the 1.
    c_slope, e_slope = known.derivative(np.zeros_like(r), network.readout_bound)
    g = np.abs(cotangent)

    h = network.output_scale * (c * act[:, :, np.newaxis] + e)
    gain = network.output_scale * slope * (g @ c.T)
    scale = np.zeros_like(particles)
    scale[:, : network.n_features] = gain.T @ np.abs(inputs)
    if network.bias:
        scale[:, network.n_features] = gain.sum(axis=0)
    if known.has_coordinates:
        first = network.n_features + network.bias
        scale[:, first:] = network.output_scale * (c_slope * (act.T @ g) + e_slope * g.sum(axis=0))
    return Expected(
        network.neurons(particles, inputs),
        network.predict(particles, inputs, coefficients),
        network.predict(particles, inputs),
        *network.pull_back(particles, inputs, cotangent),
        {
            "neurons": h,
            "predictions": np.einsum("m,imk->ik", np.abs(coefficients), h),
            "mean": h.mean(axis=1),
            "values": np.einsum("ik,imk->m", g, h),
            "gradient": scale,
        },
    )


every_network = pytest.mark.parametrize(("activation", "readout"), list(itertools.product(ACTIVATIONS, READOUTS)))


@every_network
def test_stages(activation, readout, dtype):
    for case in CASES:
        network, *arrays = stage(activation, readout, case)
        particles, inputs, cotangent, coefficients = (array.astype(dtype) for array in arrays)
        expected = expected_of(activation, readout, case)
        core, net = _core.backend, native(network)
        values, gradient = core.pull_back(net, particles, inputs, cotangent, 2)
        got = {
            "neurons": core.neurons(net, particles, inputs, 2),
            "predictions": core.predict(net, particles, coefficients, inputs, 2),
            "mean": core.predict(net, particles, None, inputs, 2),
            "values": values,
            "gradient": gradient,
        }
        for what, array in got.items():
            assert_within(array, getattr(expected, what), expected.scales[what], 8, f"{what}, {case}")
        assert not gradient[:, network.n_moving :].any()


@every_network
def test_pull_back_gradient_is_that_of_its_values(activation, readout):
    network, particles, inputs, cotangent, _ = stage(activation, readout, CASES[1])
    particles = np.where(np.abs(particles) > 8, 1.0, particles)
    particles[:, network.n_features] += 2**-10  # half a step of the grid of pre-activations: away from kinks
    h = 1e-4
    if "relu" in activation:  # both ends of the stencil on one side of the kink
        assert np.abs(network.pre_activations(particles, inputs)).min() > 2 * h * np.abs(inputs).max()

    def values(coordinate, shift):
        moved = particles.copy()
        moved[:, coordinate] += shift * h
        return _core.backend.pull_back(native(network), moved, inputs, cotangent)[0]

    _, gradient = _core.backend.pull_back(native(network), particles, inputs, cotangent)
    for j in range(network.n_moving):
        difference = (values(j, -2) - 8 * values(j, -1) + 8 * values(j, 1) - values(j, 2)) / (12 * h)
        # The rounding of the values is divided by h; truncation is h^4/30 = 3e-18 times the fifth derivative.
        rounding = 4 * EPS["float64"] * np.abs(values(j, 0)).max() / h
        np.testing.assert_allclose(gradient[:, j], difference, rtol=0, atol=rounding, err_msg=f"coordinate {j}")


# ---- whole steps -----------------------------------------------------------------------------------------------------

KEY, FIRST_STEP, POPULATION = plain.noise_key(11), 2**32 - 2, 5  # the count of steps passes 32 bits on the way
N_STEPS = 3
STEP_SIZE, TEMPERATURE, L2 = 0.05, 0.02, 0.1


class Problem(NamedTuple):
    activation: str = "tanh"
    readout: str = "linear"
    loss: str = "half_squared"
    parameter: float = 0.0
    n_particles: int = 33
    n_features: int = 5
    n: int = 200
    n_outputs: int = 3
    weights: bool = False
    batch_size: int = 0


class Run(NamedTuple):
    particles: np.ndarray
    loss: float  # of the last step, before its move
    gradient_norm: float


@cache
def risk_and_start(problem):
    rng = np.random.default_rng([problem.n_particles, problem.n, problem.n_outputs])

    def singles(*size):  # numbers that float32 holds, so that both precisions start from the same place
        return rng.normal(size=size).astype(np.float32).astype(np.float64)

    network = plain.Network(
        problem.n_features, problem.n_outputs, problem.activation, problem.readout, output_scale=2.0, readout_bound=1.5
    )
    start, inputs = singles(problem.n_particles, network.n_coordinates), singles(problem.n, problem.n_features)
    inputs /= 2 ** round(np.log2(problem.n_features) / 2)  # so that the step stays below the stability limit
    start[:, network.n_moving :] = np.where(start[:, network.n_moving :] < 0, -1, 1)
    targets = targets_for(rng, problem.loss, problem.n, problem.n_outputs)
    # Dyadic weights of sum 1 are the same numbers in both precisions.
    weights = (1 + rng.multinomial(2**14 - problem.n, np.full(problem.n, 1 / problem.n))) / 2**14
    return plain.Risk(
        network, inputs, targets, problem.loss, problem.parameter, L2, weights if problem.weights else None
    ), start


@cache
def reference_run(problem, dtype):
    risk, particles = risk_and_start(problem)
    for step in range(FIRST_STEP, FIRST_STEP + N_STEPS):
        rows = plain.minibatch(KEY, step, problem.n, problem.batch_size, POPULATION) if problem.batch_size else None
        before = particles
        particles = plain.advance(
            risk,
            before,
            1,
            step_size=STEP_SIZE,
            temperature=TEMPERATURE,
            key=KEY,
            step=step,
            batch_size=problem.batch_size,
            population=POPULATION,
            dtype=dtype,
        )
    index = np.arange(problem.n) if rows is None else rows
    u = risk.network.predict(before, risk.inputs[index])
    losses = LOSSES[problem.loss].value(u, risk.targets[index], problem.parameter)
    loss = problem.n / len(index) * risk.weights[index] @ losses
    return Run(particles, loss, np.sqrt(np.mean(np.sum(risk.gradient(before, rows) ** 2, axis=1))))


def euler_maruyama(step_size, temperature, l2):
    """Coefficients of the affine move, as the core takes them."""
    return 2 * step_size * l2, step_size, np.sqrt(2 * temperature * step_size)


def native_run(problem, dtype):
    risk, start = risk_and_start(problem)
    particles = start.astype(dtype)[np.newaxis]
    report = _core.backend.advance(
        native(risk.network),
        native_loss(problem.loss, problem.parameter),
        particles,
        risk.inputs.astype(dtype),
        risk.targets.astype(dtype),
        None if risk.sample_weight is None else risk.sample_weight.astype(dtype),
        _core.Estimator("minibatch" if problem.batch_size else "full_batch", problem.batch_size),
        _core.Dynamics("affine"),
        euler_maruyama(*(np.array([[number]]) for number in (STEP_SIZE, TEMPERATURE, L2))),
        N_STEPS,
        [KEY],
        FIRST_STEP,
        POPULATION,
        2,
    )
    assert (report.status, report.steps, report.bad) == ("done", N_STEPS, None)
    return Run(particles[0], report.loss[0], report.gradient_norm[0])


def assert_same_run(problem, dtype, multiple):
    """A step rounds the particle and passes a little on to the next; gradients are as accurate as those of the stages.

    They have size 1 to 10, and like the noise they come into a particle with a small factor.
    """
    got, expected = native_run(problem, dtype), reference_run(problem, dtype.name)
    assert_within(got.particles, expected.particles, 1 + np.abs(expected.particles), multiple, f"particles, {problem}")
    for name in ("loss", "gradient_norm"):
        value, known = getattr(got, name), getattr(expected, name)
        assert abs(value - known) <= multiple * EPS[dtype.name] * (1 + abs(known)), (name, value, known)
    risk, start = risk_and_start(problem)
    frozen = slice(risk.network.n_moving, None)
    assert_array_equal(got.particles[:, frozen], start[:, frozen])


@every_network
@pytest.mark.parametrize("batch_size", [0, 17])
def test_steps_of_every_network(activation, readout, batch_size, dtype):
    assert_same_run(Problem(activation, readout, batch_size=batch_size), dtype, 6)


@every_loss
@pytest.mark.parametrize("weights", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("batch_size", [0, 17])
def test_steps_with_every_loss(loss, parameter, weights, batch_size, dtype):
    for n_outputs in (1, 3):
        problem = Problem(loss=loss, parameter=parameter, n_outputs=n_outputs, weights=weights, batch_size=batch_size)
        assert_same_run(problem, dtype, 6)


# One particle, feature, sample; odd sizes; many leaves and blocks of samples.
@pytest.mark.parametrize("sizes", [(1, 1, 1), (7, 65, 13), (1001, 5, 1), (1001, 17, 700)])
@pytest.mark.parametrize("batch_size", [0, 1, 400])
def test_steps_of_awkward_sizes(sizes, batch_size, dtype):
    n_particles, n_features, n = sizes
    assert_same_run(
        Problem("gelu", n_particles=n_particles, n_features=n_features, n=n, batch_size=min(batch_size, n)), dtype, 6
    )


def test_steps_follow_a_schedule(dtype):
    risk, particles = risk_and_start(Problem(weights=True))
    moved = particles.astype(dtype)
    step_sizes, temperatures, ridges = (
        np.array([0.1, 0.02, 0.07]),
        np.array([0.0, 0.1, 0.01]),
        np.array([0.5, 0.0, 0.1]),
    )
    data = [array.astype(dtype) for array in (risk.inputs, risk.targets, risk.sample_weight)]
    kinds = _core.Estimator("full_batch"), _core.Dynamics("affine")
    rows = euler_maruyama(*(values[np.newaxis] for values in (step_sizes, temperatures, ridges)))
    _core.backend.advance(
        native(risk.network), native_loss(risk.loss), moved[np.newaxis], *data, *kinds, rows, 3, [KEY], 7, 0, 2
    )
    for k, (step_size, temperature, l2) in enumerate(zip(step_sizes, temperatures, ridges, strict=True)):
        particles = plain.advance(
            replace(risk, l2=l2),
            particles,
            1,
            step_size=step_size,
            temperature=temperature,
            key=KEY,
            step=7 + k,
            dtype=dtype.name,
        )
    assert_within(moved, particles, 1 + np.abs(particles), 6)


# ---- the risk of the Python front, which composes the stages ---------------------------------------------------------


@every_loss
@pytest.mark.parametrize("weights", [False, True], ids=["unweighted", "weighted"])
def test_risk(loss, parameter, weights, dtype):
    for n_outputs in (1, 3) if LOSSES[loss].targets != "class" else (3,):
        known, particles = risk_and_start(
            Problem(loss=loss, parameter=parameter, n_outputs=n_outputs, weights=weights, n_particles=40, n=64)
        )
        fields = vars(known.network)
        handle = mfld.Loss(loss, **({LOSSES[loss].parameter: parameter} if LOSSES[loss].parameter else {}))
        targets = known.targets[:, 0] if known.targets.shape[1] == 1 else known.targets
        risk = mfld.EmpiricalRisk(
            mfld.TwoLayerNetwork(**fields),
            known.inputs,
            targets,
            loss=handle,
            l2=known.l2,
            # Scaled: the front normalises.
            sample_weight=None if known.sample_weight is None else 5 * known.sample_weight,
        )
        theta = particles.astype(dtype)
        value = known.value(particles)
        # Predictions have errors of 5 eps of their size 2, and the loss is up to 10 times as steep.
        assert abs(risk.value(theta) - value) <= 15 * EPS[dtype.name] * (1 + value)
        rows = noise.minibatch(seed=1, step=0, n=64, batch_size=9)
        for batch in (None, rows):
            expected = known.gradient(particles, batch)
            assert_within(risk.gradient(theta, batch), expected, 1 + np.abs(expected), 15, f"batch {batch}")
        points = np.round(particles[::-1] * 8) / 8
        values, gradients = known.first_variation(particles, points)
        frozen = risk.first_variation(theta)
        assert_within(frozen(points.astype(dtype)), values, 1 + np.abs(values), 15)
        assert_within(frozen.gradient(points.astype(dtype)), gradients, 1 + np.abs(gradients), 15)


# ---- the move and the noise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (33, 66), (1001, 3)])
@pytest.mark.parametrize("n_frozen", [0, 2])
def test_move(shape, n_frozen, dtype, rng):
    particles, gradient = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    n_moving = max(1, shape[1] - n_frozen)
    moved = particles.astype(dtype)
    coefficients = (2 * STEP_SIZE * L2, STEP_SIZE, np.sqrt(2 * TEMPERATURE * STEP_SIZE))
    bad = _core.backend.affine(moved, gradient.astype(dtype), n_moving, coefficients, KEY, FIRST_STEP, POPULATION, 2)
    assert bad == -1
    xi = plain.normals(KEY, FIRST_STEP, shape[0], n_moving, dtype.name, population=POPULATION)
    expected = plain.euler_maruyama(
        particles.astype(np.float64),
        gradient + 2 * L2 * particles.astype(np.float64),
        xi,
        n_moving=n_moving,
        step_size=STEP_SIZE,
        temperature=TEMPERATURE,
    )
    assert_within(moved, expected, 1 + np.abs(expected), 2)
    assert_array_equal(moved[:, n_moving:], particles[:, n_moving:])


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (33, 66), (1001, 3)])
def test_move_without_noise_is_the_same_beside_a_frozen_coordinate(shape, dtype, rng):
    # Particles all of whose coordinates move lie in no panels then.
    particles, gradient = rng.normal(size=(2, 2, *shape)).astype(dtype)
    alone = particles.copy()
    beside, slopes = (np.concatenate([a, np.ones((2, shape[0], 1), dtype)], axis=-1) for a in (particles, gradient))
    assert _core.backend.affine(alone, gradient, shape[1], (0.3, 0.7, 0.0), KEY, 0, 0, 2) == -1
    assert _core.backend.affine(beside, slopes, shape[1], (0.3, 0.7, 0.0), KEY, 0, 0, 2) == -1
    assert_array_equal(alone, beside[..., :-1])
    expected = 0.7 * particles.astype(np.float64) - 0.7 * gradient.astype(np.float64)
    assert_within(alone, expected, 1 + np.abs(expected), 2)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_move_reports_the_first_particle_that_is_not_finite(dtype, noise):
    for bad in (0, 5, 40, 99):
        particles, gradient = np.zeros((100, 3), dtype), np.zeros((100, 3), dtype)
        gradient[bad:, 1] = np.inf
        gradient[bad + 1 :, 0] = np.nan
        assert _core.backend.affine(particles, gradient, 3, (0.0, 0.1, noise), KEY, 0, 0, 2) == bad


def test_moves_and_normals_of_members_are_those_of_each(dtype, rng):
    particles, gradient, velocities = rng.normal(size=(3, 2, 3, 50, 6)).astype(dtype)
    row, rows = (0.02, 0.1, 0.3), (0.05, 0.01, 0.8, 0.3)
    together, speeds = particles.copy(), velocities.copy()
    opened = particles.copy()
    assert _core.backend.affine(together, gradient, 5, row, KEY, 4, 7, 3) == -1
    assert _core.backend.baoab(opened, speeds, gradient, False, 5, rows, KEY, 4, 7, 3) == -1
    normals = _core.backend.normals(KEY, 4, 50, 6, dtype, 1, 7, 3, [2, 3])
    assert normals.shape == (2, 3, 50, 6)
    for member, (i, j) in enumerate(np.ndindex(2, 3)):
        alone, beside, speed = particles[i, j].copy(), particles[i, j].copy(), velocities[i, j].copy()
        _core.backend.affine(alone, gradient[i, j], 5, row, KEY, 4, 7 + member, 1)
        _core.backend.baoab(beside, speed, gradient[i, j], False, 5, rows, KEY, 4, 7 + member, 1)
        assert_array_equal(together[i, j], alone)
        assert_array_equal(opened[i, j], beside)
        assert_array_equal(speeds[i, j], speed)
        assert_array_equal(normals[i, j], _core.backend.normals(KEY, 4, 50, 6, dtype, 1, 7 + member, 1))
    gradient[1, 0, 40:] = np.inf
    gradient[1, 2, 0] = np.nan
    assert _core.backend.affine(particles, gradient, 5, row, KEY, 4, 7, 3) == 3 * 50 + 40
    with pytest.raises(ValueError, match="members must be at most 3"):
        _core.backend.affine(particles, gradient, 5, row, KEY, 4, 2**16 - 3, 3)


@pytest.mark.parametrize("first", [1, 64, 120])
def test_moves_of_some_particles_are_those_of_all(dtype, rng, first):
    particles, gradient, velocities, proposals, slopes = rng.normal(size=(5, 130, 6)).astype(dtype)
    values, proposed = rng.normal(size=(2, 130)).astype(dtype)
    row, rows = (0.02, 0.1, 0.3), (0.05, 0.01, 0.8, 0.3)

    def moved(some, first_particle):
        def own(array):
            return array[some].copy()

        affine, x, v, y, u, g = (own(a) for a in (particles, particles, velocities, particles, values, gradient))
        _core.backend.affine(affine, own(gradient), 5, row, KEY, 4, 7, 2, first=first_particle)
        _core.backend.baoab(x, v, own(gradient), False, 5, rows, KEY, 4, 7, 2, first=first_particle)
        there = (own(proposals), own(proposed), own(slopes))
        accepted, probabilities = _core.backend.accept(y, u, g, *there, 5, row, KEY, 4, 7, 2, first=first_particle)
        return [affine, x, v, y, u, g, probabilities], accepted

    (whole, n), (before, n_before), (behind, n_behind) = (
        moved(slice(None), 0),
        moved(slice(first), 0),
        moved(slice(first, None), first),
    )
    for array, front, back in zip(whole, before, behind, strict=True):
        assert_array_equal(array, np.concatenate([front, back]))
    assert n == n_before + n_behind
    assert np.ptp(whole[-1]) > 0.5
    assert not np.array_equal(moved(slice(first, None), 0)[0][0], behind[0])
    for wrong, match in ((-1, "first must be at least 0"), (2**32, "n_particles must be at most")):
        with pytest.raises(ValueError, match=match):
            moved(slice(None), wrong)


# Relative to the radius of a Box-Muller pair noise.hpp promises 4e-7 in float32 and, at worst, 1.4e-15 in float64; the
# angle of the reference is rounded to 7e-16.
NORMALS = {"float32": 4e-7 / EPS["float32"], "float64": 2.1e-15 / EPS["float64"]}


def radii(pairs):
    return np.repeat(np.hypot(pairs[:, ::2], pairs[:, 1::2]), 2, axis=1)


# The counter knows 32 bits of the particle, 24 of the block, 48 of the step, 16 of the population.
PLACES = [(0, 0, 0), (1, 2**32 + 3, 0), (2**64 - 1, 2**48 - 1, 2**16 - 1)]


@pytest.mark.parametrize(("seed", "step", "population"), PLACES)
@pytest.mark.parametrize("stream", plain.STREAMS)
def test_normals(seed, step, population, stream, dtype):
    key = plain.noise_key(seed, 3)
    for shape in ((1, 1), (7, 5), (33, 4), (1001, 65)):
        place = {"stream": plain.STREAMS[stream], "population": population}
        got = _core.backend.normals(key, step, *shape, dtype, place["stream"], population, 2)
        pairs = plain.normals(key, step, shape[0], shape[1] + shape[1] % 2, dtype.name, **place)
        assert_within(got, pairs[:, : shape[1]], radii(pairs)[:, : shape[1]], NORMALS[dtype.name])


def test_normals_of_a_place_do_not_depend_on_the_size_of_the_array(dtype):
    full = _core.backend.normals(KEY, 3, 200, 40, dtype)
    for shape in ((1, 1), (13, 7), (200, 3), (16, 40)):
        part = _core.backend.normals(KEY, 3, *shape, dtype)
        assert part.tobytes() == full[: shape[0], : shape[1]].tobytes()


def test_normals_reach_as_far_as_their_words(dtype):
    # Among a million pairs the largest radius is about sqrt(2 log(10^6)) = 5.3, the smallest about sqrt(2 / 10^6).
    z = _core.backend.normals(KEY, 0, 500_000, 4, dtype, 1, 0, 2)
    expected = plain.normals(KEY, 0, 500_000, 4, dtype.name)
    assert_within(z, expected, radii(expected), NORMALS[dtype.name])
    assert radii(expected).max() > 4.8
    assert radii(expected).min() < 5e-3


@pytest.mark.parametrize(("seed", "step", "population"), PLACES)
def test_minibatch(seed, step, population):
    key = plain.noise_key(seed)
    for n, batch_size in ((1, 1), (5, 5), (13, 1), (200, 33), (200, 200), (10**9, 1000)):
        got = _core.backend.batch(key, step, n, batch_size, population)
        assert_array_equal(got, plain.minibatch(key, step, n, batch_size, population))


def test_philox_and_key():
    rng = np.random.default_rng(5)
    for _ in range(50):
        counter, key = tuple(rng.integers(0, 2**32, size=4).tolist()), tuple(rng.integers(0, 2**32, size=2).tolist())
        assert _core.backend.philox(counter, key) == plain.philox(counter, key)
    for seed, replica in ((0, 0), (1, 0), (0, 1), (2**64 - 1, 2**63 + 5)):
        assert _core.backend.noise_key(seed, replica) == plain.noise_key(seed, replica)
        assert noise.key(seed, replica) == plain.noise_key(seed, replica)
    # Random123's known answer, without the reference in between.
    words = _core.backend.philox((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0))
    assert words == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)
