"""The mathematics of the library in plain NumPy float64: slow, obvious, and what the tests compare the core with.

Nothing here calls the compiled core, and nothing here is fast: matrices of particles times samples are stored, noise is
made by integer arithmetic. Read it as the specification of what a call computes, in the same words and shapes:

===============  ==========================================
particles        (N, p), theta = (weights, bias, readout)
inputs           (n, n_features)
targets          (n, n_outputs); (n, 1) for classes
predictions      (n, n_outputs)
neurons          (n, N, n_outputs)
===============  ==========================================

`ACTIVATIONS`, `READOUTS` and `LOSSES` have an entry for each name that the core knows.

Examples
--------
Two steps of `mfld.MFLD`, spelled out:

>>> import numpy as np
>>> import mfld
>>> from mfld import plain
>>> inputs, targets = np.array([[-1.0], [0.5], [2.0]]), np.array([-1.0, 1.0, 1.0])
>>> risk = plain.Risk(plain.Network(n_features=1), inputs, targets[:, None], loss="logistic", l2=0.1)
>>> theta = start = np.array([[0.2, 0.1, 1.0], [-0.3, 0.5, 2.0]])
>>> for step in range(2):
...     xi = plain.normals(plain.noise_key(7), step, n_particles=2, n_coordinates=3, dtype="float64")
...     theta = theta - 0.5 * risk.gradient(theta) + np.sqrt(2 * 0.01 * 0.5) * xi
>>> solver = mfld.MFLD(n_particles=2, step_size=0.5, temperature=0.01, dtype="float64")
>>> same = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(n_features=1), inputs, targets, loss="logistic", l2=0.1)
>>> bool(np.allclose(solver.run(same, n_steps=2, seed=7, particles=start).particles, theta, rtol=1e-12))
True
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.float64]
Function: TypeAlias = Callable[[FloatArray], FloatArray]

# ---- activations -----------------------------------------------------------------------------------------------------


class Activation(NamedTuple):
    """A function of the pre-activation ``z = w.x + b``, and its derivative."""

    value: Function
    slope: Function


_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _sigmoid(z: FloatArray) -> FloatArray:
    e = np.exp(-np.abs(z))  # never overflows
    result: FloatArray = np.where(z < 0, e, 1.0) / (1 + e)
    return result


def _normal_distribution(z: FloatArray) -> FloatArray:
    result: FloatArray = _erfc(-z / math.sqrt(2)) / 2
    return result


def _normal_density(z: FloatArray) -> FloatArray:
    bounded = np.minimum(np.abs(z), 1e3)  # its square does not overflow, and the density is 0 from 39 on
    return np.exp(-(bounded**2) / 2) / math.sqrt(2 * math.pi)


LEAK: Final = 0.01  # slope of leaky_relu below 0

ACTIVATIONS: Final[dict[str, Activation]] = {
    "tanh": Activation(np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "relu": Activation(lambda z: np.maximum(z, 0.0), lambda z: np.where(z > 0, 1.0, 0.0)),
    "leaky_relu": Activation(lambda z: np.where(z > 0, z, LEAK * z), lambda z: np.where(z > 0, 1.0, LEAK)),
    "sigmoid": Activation(_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z)),
    "softplus": Activation(lambda z: np.logaddexp(0.0, z), _sigmoid),
    "erf": Activation(_erf, lambda z: 2 * math.sqrt(2) * _normal_density(math.sqrt(2) * z)),
    "gelu": Activation(
        lambda z: z * _normal_distribution(z), lambda z: _normal_distribution(z) + z * _normal_density(z)
    ),
    "silu": Activation(lambda z: z * _sigmoid(z), lambda z: _sigmoid(z) + z * _sigmoid(z) * _sigmoid(-z)),
    "sin": Activation(np.sin, np.cos),
    "cos": Activation(np.cos, lambda z: -np.sin(z)),
    "identity": Activation(lambda z: z, np.ones_like),
}

# ---- readouts --------------------------------------------------------------------------------------------------------


class Readout(NamedTuple):
    """Readout of a neuron from its activation, ``h_k = output_scale * (c_k act + e_k)``.

    ``terms`` and ``derivative`` take the readout coordinates r, shape (N, n_outputs), and the bound B, and return c and
    e, or their derivatives in r. A readout without coordinates, or with frozen ones, has derivative 0.
    """

    has_coordinates: bool
    frozen: bool
    terms: Callable[[FloatArray, float], tuple[FloatArray, FloatArray]]
    derivative: Callable[[FloatArray, float], tuple[FloatArray, FloatArray]]


def _nothing(r: FloatArray, bound: float) -> tuple[FloatArray, FloatArray]:
    return np.zeros_like(r), np.zeros_like(r)


def _tanh_slope(r: FloatArray) -> FloatArray:
    return 1 - np.tanh(r) ** 2


READOUTS: Final[dict[str, Readout]] = {
    "fixed": Readout(False, False, lambda r, bound: (np.ones_like(r), np.zeros_like(r)), _nothing),
    "signs": Readout(True, True, lambda r, bound: (r, np.zeros_like(r)), _nothing),
    "linear": Readout(
        True, False, lambda r, bound: (r, np.zeros_like(r)), lambda r, bound: (np.ones_like(r), np.zeros_like(r))
    ),
    "bounded": Readout(
        True,
        False,
        lambda r, bound: (bound * np.tanh(r), np.zeros_like(r)),
        lambda r, bound: (bound * _tanh_slope(r), np.zeros_like(r)),
    ),
    # B (act + 2 tanh(r)) / 3
    "parity": Readout(
        True,
        False,
        lambda r, bound: (np.full_like(r, bound / 3), 2 * bound / 3 * np.tanh(r)),
        lambda r, bound: (np.zeros_like(r), 2 * bound / 3 * _tanh_slope(r)),
    ),
}

# ---- losses ----------------------------------------------------------------------------------------------------------

PointLoss: TypeAlias = Callable[[FloatArray, FloatArray, float], FloatArray]


class Loss(NamedTuple):
    """A loss of predictions u, shape (n, K), and targets y, shape (n, K) or (n, 1) for classes.

    ``value`` has shape (n,), ``derivative`` (n, K), and ``conjugate`` takes dual points g, shape (n, K), to
    ``sup_u g.u - loss(u, y)``, shape (n,), inf outside of its domain. ``smoothness`` is the Lipschitz constant of the
    derivative as a function of the parameter.
    """

    value: PointLoss
    derivative: PointLoss
    conjugate: PointLoss
    smoothness: Callable[[float], float]
    targets: str = "real"
    parameter: str | None = None
    default: float = 0.0


def _summed(
    value: PointLoss, derivative: PointLoss, conjugate: PointLoss, smoothness: Callable[[float], float], **rest: Any
) -> Loss:
    """The loss over several outputs that sums a loss of one."""
    return Loss(
        lambda u, y, parameter: value(u, y, parameter).sum(axis=1),
        derivative,
        lambda g, y, parameter: conjugate(g, y, parameter).sum(axis=1),
        smoothness,
        **rest,
    )


def _where(condition: NDArray[np.bool_], value: FloatArray) -> FloatArray:
    """The conjugate inside its domain, inf outside."""
    return np.where(condition, value, np.inf)


def _x_log_x(x: FloatArray) -> FloatArray:
    return np.where(x > 0, x * np.log(np.where(x > 0, x, 1.0)), 0.0)


def _softmax(u: FloatArray) -> FloatArray:
    e = np.exp(u - u.max(axis=1, keepdims=True))
    result: FloatArray = e / e.sum(axis=1, keepdims=True)
    return result


def _one_hot(y: FloatArray, n_classes: int) -> FloatArray:
    result: FloatArray = (y == np.arange(n_classes)).astype(np.float64)
    return result


def _cross_entropy(u: FloatArray, y: FloatArray, parameter: float) -> FloatArray:
    largest = u.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(u - largest).sum(axis=1)) + largest[:, 0]
    chosen = (u * _one_hot(y, u.shape[1])).sum(axis=1)
    result: FloatArray = log_sum - chosen
    return result


def _cross_entropy_conjugate(g: FloatArray, y: FloatArray, parameter: float) -> FloatArray:
    p = g + _one_hot(y, g.shape[1])  # a point of the simplex
    return _where((p >= 0).all(axis=1) & (np.abs(p.sum(axis=1) - 1) <= 1e-12), _x_log_x(p).sum(axis=1))


def _smoothed_hinge(u: FloatArray, y: FloatArray, gamma: float) -> FloatArray:
    gap = 1 - y * u
    return np.where(gap <= 0, 0.0, np.where(gap >= gamma, gap - gamma / 2, gap**2 / (2 * gamma)))


# A derivative at a kink is the subgradient named here. For signs y is -1 or 1, so that y * y = 1.
LOSSES: Final[dict[str, Loss]] = {
    "squared": _summed(
        lambda u, y, _: (u - y) ** 2,
        lambda u, y, _: 2 * (u - y),
        lambda g, y, _: g**2 / 4 + g * y,
        lambda _: 2.0,
    ),
    "half_squared": _summed(
        lambda u, y, _: (u - y) ** 2 / 2,
        lambda u, y, _: u - y,
        lambda g, y, _: g**2 / 2 + g * y,
        lambda _: 1.0,
    ),
    "absolute": _summed(
        lambda u, y, _: np.abs(u - y),
        lambda u, y, _: np.sign(u - y),  # 0 at the kink
        lambda g, y, _: _where(np.abs(g) <= 1, g * y),
        lambda _: math.inf,
    ),
    "huber": _summed(
        lambda u, y, delta: np.where(np.abs(u - y) <= delta, (u - y) ** 2 / 2, delta * (np.abs(u - y) - delta / 2)),
        lambda u, y, delta: np.clip(u - y, -delta, delta),
        lambda g, y, delta: _where(np.abs(g) <= delta, g**2 / 2 + g * y),
        lambda delta: 1.0,
        parameter="delta",
        default=1.0,
    ),
    "logistic": _summed(
        lambda u, y, _: np.logaddexp(0.0, -y * u),
        lambda u, y, _: -y * _sigmoid(-y * u),
        lambda g, y, _: _where((y * g <= 0) & (y * g >= -1), _x_log_x(-y * g) + _x_log_x(1 + y * g)),
        lambda _: 0.25,
        targets="sign",
    ),
    "hinge": _summed(
        lambda u, y, _: np.maximum(0.0, 1 - y * u),
        lambda u, y, _: np.where(y * u < 1, -y, 0.0),  # 0 at the kink
        lambda g, y, _: _where((y * g <= 0) & (y * g >= -1), y * g),
        lambda _: math.inf,
        targets="sign",
    ),
    "smoothed_hinge": _summed(
        _smoothed_hinge,
        lambda u, y, gamma: -y * np.clip((1 - y * u) / gamma, 0.0, 1.0),
        lambda g, y, gamma: _where((y * g <= 0) & (y * g >= -1), y * g + gamma * g**2 / 2),
        lambda gamma: 1 / gamma,
        targets="sign",
        parameter="gamma",
        default=1.0,
    ),
    "cross_entropy": Loss(
        _cross_entropy,
        lambda u, y, _: _softmax(u) - _one_hot(y, u.shape[1]),
        _cross_entropy_conjugate,
        lambda _: 0.5,  # the spectral norm of diag(p) - p p' is at most 1/2
        targets="class",
    ),
}

# ---- the network -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """``h_k(theta, x) = output_scale * (c_k(r) act(w.x + b) + e_k(r))``, theta = (w, b, r): `mfld.TwoLayerNetwork`."""

    n_features: int
    n_outputs: int = 1
    activation: str = "tanh"
    readout: str = "linear"
    bias: bool = True
    output_scale: float = 1.0
    readout_bound: float = 1.0

    @property
    def n_coordinates(self) -> int:
        return self.n_features + self.bias + self.n_outputs * READOUTS[self.readout].has_coordinates

    @property
    def n_moving(self) -> int:
        return self.n_coordinates - self.n_outputs * READOUTS[self.readout].frozen

    def split(self, particles: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Weights (N, n_features), bias (N,) and readout coordinates (N, n_outputs); what is not there counts as 0."""
        d, rest = self.n_features, self.n_features + self.bias
        bias = particles[:, d] if self.bias else np.zeros(len(particles))
        readout = (
            particles[:, rest:]
            if READOUTS[self.readout].has_coordinates
            else np.zeros((len(particles), self.n_outputs))
        )
        return particles[:, :d], bias, readout

    def pre_activations(self, particles: FloatArray, inputs: FloatArray) -> FloatArray:
        """``w_m.x_i + b_m``, shape (n, N)."""
        weights, bias, _ = self.split(particles)
        return inputs @ weights.T + bias

    def neurons(self, particles: FloatArray, inputs: FloatArray) -> FloatArray:
        """``h_k(theta_m, x_i)``, shape (n, N, n_outputs)."""
        act = ACTIVATIONS[self.activation].value(self.pre_activations(particles, inputs))
        c, e = READOUTS[self.readout].terms(self.split(particles)[2], self.readout_bound)
        return self.output_scale * (c * act[:, :, np.newaxis] + e)

    def predict(self, particles: FloatArray, inputs: FloatArray, coefficients: FloatArray | None = None) -> FloatArray:
        """``sum_m coefficients_m h(theta_m, x_i)``, shape (n, n_outputs); coefficients of any sign, by default 1/N."""
        if coefficients is None:
            coefficients = np.full(len(particles), 1 / len(particles))
        neurons = np.moveaxis(self.neurons(particles, inputs), 1, 2).copy()  # contiguous, so that NumPy sums in pairs
        result: FloatArray = (coefficients * neurons).sum(axis=-1)
        return result

    def pull_back(
        self, particles: FloatArray, inputs: FloatArray, cotangent: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Values ``v_m = sum_ik cotangent_ik h_k(theta_m, x_i)``, shape (N,), and their gradients in theta_m, (N, p).

        The gradient is 0 in frozen coordinates.
        """
        values = np.tensordot(cotangent, self.neurons(particles, inputs), axes=((0, 1), (0, 2)))

        activation, readout = ACTIVATIONS[self.activation], READOUTS[self.readout]
        z = self.pre_activations(particles, inputs)
        act, slope = activation.value(z), activation.slope(z)
        r = self.split(particles)[2]
        c, _ = readout.terms(r, self.readout_bound)
        c_slope, e_slope = readout.derivative(r, self.readout_bound)

        z_gradient = self.output_scale * slope * (cotangent @ c.T)  # dv_m / dz_im
        gradient = np.zeros_like(particles)
        gradient[:, : self.n_features] = z_gradient.T @ inputs
        if self.bias:
            gradient[:, self.n_features] = z_gradient.sum(axis=0)
        if readout.has_coordinates:
            first = self.n_features + self.bias
            gradient[:, first:] = self.output_scale * (c_slope * (act.T @ cotangent) + e_slope * cotangent.sum(axis=0))
        return values, gradient


# ---- the risk --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Risk:
    """``F(mu) = sum_i s_i loss(f_mu(x_i), y_i) + l2 E_mu |theta|^2`` of equal particles: `mfld.EmpiricalRisk`.

    The ridge is on moving coordinates. ``parameter`` is that of the loss, None its default. ``sample_weight`` is
    normalised to sum 1.
    """

    network: Network
    inputs: FloatArray
    targets: FloatArray
    loss: str
    parameter: float | None = None
    l2: float = 0.0
    sample_weight: FloatArray | None = None

    @property
    def weights(self) -> FloatArray:
        """The s of the formula."""
        n = len(self.inputs)
        if self.sample_weight is None:
            return np.full(n, 1 / n)
        return np.asarray(self.sample_weight / self.sample_weight.sum(), np.float64)

    @property
    def loss_parameter(self) -> float:
        return LOSSES[self.loss].default if self.parameter is None else self.parameter

    def ridge(self, points: FloatArray) -> FloatArray:
        """``l2 |theta|^2`` over moving coordinates, shape (N,)."""
        result: FloatArray = self.l2 * (points[:, : self.network.n_moving] ** 2).sum(axis=1)
        return result

    def ridge_gradient(self, points: FloatArray) -> FloatArray:
        moving = np.arange(points.shape[1]) < self.network.n_moving
        return 2 * self.l2 * points * moving

    def data_term(self, particles: FloatArray) -> float:
        """The risk without the ridge."""
        u = self.network.predict(particles, self.inputs)
        return float(self.weights @ LOSSES[self.loss].value(u, self.targets, self.loss_parameter))

    def value(self, particles: FloatArray) -> float:
        """F at the empirical measure of the particles."""
        return self.data_term(particles) + float(self.ridge(particles).mean())

    def cotangent(self, particles: FloatArray, rows: ArrayLike | None = None) -> tuple[FloatArray, FloatArray]:
        """Inputs and ``s_i loss'(f_mu(x_i), y_i)``, shape (n, n_outputs), of all rows, or of a batch, times n / B."""
        index = np.arange(len(self.inputs)) if rows is None else np.asarray(rows)
        inputs = self.inputs[index]
        u = self.network.predict(particles, inputs)
        slopes = LOSSES[self.loss].derivative(u, self.targets[index], self.loss_parameter)
        scale = len(self.inputs) / len(index)
        return inputs, scale * self.weights[index, np.newaxis] * slopes

    def gradient(self, particles: FloatArray, rows: ArrayLike | None = None) -> FloatArray:
        """``b(theta_m; mu)``: the gradient of the first variation at each particle, which is N dF/dtheta_m."""
        inputs, cotangent = self.cotangent(particles, rows)
        return self.network.pull_back(particles, inputs, cotangent)[1] + self.ridge_gradient(particles)

    def first_variation(self, particles: FloatArray, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """First variation at the measure of the particles: its values (M,) and gradients (M, p) at any points."""
        inputs, cotangent = self.cotangent(particles)
        values, gradient = self.network.pull_back(points, inputs, cotangent)
        return values + self.ridge(points), gradient + self.ridge_gradient(points)


# ---- the steps -------------------------------------------------------------------------------------------------------


def euler_maruyama(
    particles: FloatArray,
    gradient: FloatArray,
    noise: FloatArray,
    *,
    n_moving: int,
    step_size: float,
    temperature: float,
) -> FloatArray:
    """One overdamped step, ``theta - step_size * gradient + sqrt(2 temperature step_size) * noise``.

    ``noise`` has shape (N, n_moving): frozen coordinates, which come last, stay.
    """
    moved = particles.copy()
    moved[:, :n_moving] -= step_size * gradient[:, :n_moving]
    moved[:, :n_moving] += math.sqrt(2 * temperature * step_size) * noise
    return moved


@dataclass
class Estimator:
    """The gradient of the risk without its ridge, as an estimator gives it from step to step.

    ``batch_size=0`` is the full batch. ``correction`` is ``""``, or where ``refresh_every`` counts ``"svrg"`` or
    ``"sarah"``: ``g_I(X) - g_I(anchor) + anchor_gradient``, the anchor being the particles at the last refresh or those
    of the last step.
    """

    batch_size: int = 0
    correction: str = ""
    refresh_every: int = 0
    anchor: FloatArray | None = None
    anchor_gradient: FloatArray | None = None

    def __call__(self, risk: Risk, particles: FloatArray, key: int, step: int, population: int = 0) -> FloatArray:
        def data_gradient(points: FloatArray, rows: ArrayLike | None) -> FloatArray:
            return risk.gradient(points, rows) - risk.ridge_gradient(points)

        refresh = bool(self.correction) and (self.anchor is None or step % self.refresh_every == 0)
        if refresh or not self.batch_size:
            estimate = data_gradient(particles, None)
        else:
            rows = minibatch(key, step, len(risk.inputs), self.batch_size, population)
            estimate = data_gradient(particles, rows)
            if self.correction:
                assert self.anchor is not None
                assert self.anchor_gradient is not None
                estimate = estimate - data_gradient(self.anchor, rows) + self.anchor_gradient
        if self.correction == "sarah" or refresh:
            self.anchor, self.anchor_gradient = particles, estimate
        return estimate


def baoab_open(
    particles: FloatArray,
    velocities: FloatArray,
    gradient: FloatArray,
    noise: FloatArray,
    *,
    n_moving: int,
    step_size: float,
    temperature: float,
    friction: float,
) -> tuple[FloatArray, FloatArray]:
    """The beginning of a BAOAB step, up to its gradient at the new position: kick, drift, friction and noise, drift."""
    x, v, xi = particles.copy(), velocities.copy(), np.zeros_like(particles)
    xi[:, :n_moving] = noise
    v[:, :n_moving] -= step_size / 2 * gradient[:, :n_moving]
    x += step_size / 2 * v
    e = math.exp(-friction * step_size)
    v = e * v + math.sqrt(temperature * (1 - e**2)) * xi
    return x + step_size / 2 * v, v


def baoab_close(velocities: FloatArray, gradient: FloatArray, *, n_moving: int, step_size: float) -> FloatArray:
    """Its end: a kick by the gradient at the new position."""
    v = velocities.copy()
    v[:, :n_moving] -= step_size / 2 * gradient[:, :n_moving]
    return v


def advance(
    risk: Risk,
    particles: FloatArray,
    n_steps: int,
    *,
    step_size: float,
    temperature: float,
    key: int,
    step: int = 0,
    batch_size: int = 0,
    population: int = 0,
    dtype: str = "float32",
) -> FloatArray:
    """Steps of mean-field Langevin dynamics; ``batch_size=0`` is the full batch, ``dtype`` chooses the noise."""
    n_moving = risk.network.n_moving
    for k in range(step, step + n_steps):
        rows = minibatch(key, k, len(risk.inputs), batch_size, population) if batch_size else None
        noise = normals(key, k, len(particles), n_moving, dtype, population=population)
        gradient = risk.gradient(particles, rows)
        particles = euler_maruyama(
            particles, gradient, noise, n_moving=n_moving, step_size=step_size, temperature=temperature
        )
    return particles


# ---- the noise -------------------------------------------------------------------------------------------------------

STREAMS: Final = {
    "init": 0,
    "move": 1,
    "batch": 2,
    "acceptance": 3,
    "label_noise": 4,
    "coordinate_order": 5,
    "smoothing": 6,
    "data": 7,
    "thinning": 8,
}

# Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
_MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS: Final = (0x9E3779B9, 0xBB67AE85)
_LOW: Final = 0xFFFFFFFF
_HASH_KEY: Final = (0x6D666C64, 0)  # "mfld"

Words: TypeAlias = tuple[Any, Any, Any, Any]
"""Four 32-bit words: Python integers, or arrays of uint64 that hold them."""


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Philox4x32-10: four words from a counter of four and a key of two.

    Examples
    --------
    >>> from mfld import plain
    >>> [hex(word) for word in plain.philox((0, 0, 0, 0), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    w0, w1, w2, w3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = _MULTIPLIERS[0] * w0, _MULTIPLIERS[1] * w2
        w0, w1, w2, w3 = (product1 >> 32) ^ w1 ^ k0, product1 & _LOW, (product0 >> 32) ^ w3 ^ k1, product0 & _LOW
        k0, k1 = (k0 + _KEY_INCREMENTS[0]) & _LOW, (k1 + _KEY_INCREMENTS[1]) & _LOW
    return w0, w1, w2, w3


def noise_key(seed: int, replica: int = 0) -> int:
    """The 64-bit key of a run, a hash of its seed and of the number of the replica, each below 2**64."""
    w0, w1, _, _ = philox((seed & _LOW, seed >> 32, replica & _LOW, replica >> 32), _HASH_KEY)
    return int(w0 | w1 << 32)


def noise_words(
    key: int, particle: ArrayLike, block: ArrayLike, *, step: int, stream: int, population: int = 0
) -> Words:
    """The four words at a place in the noise; ``particle`` and ``block`` may be arrays."""
    w0, w1 = np.broadcast_arrays(np.asarray(particle, np.uint64), np.asarray(block, np.uint64))
    counter = (
        w0,
        w1 | np.uint64(stream << 24),
        np.full_like(w0, step & _LOW),
        np.full_like(w0, step >> 32 | population << 16),
    )
    return philox(counter, (key & _LOW, key >> 32))


def _box_muller(radius_word: NDArray[np.uint64], angle_word: NDArray[np.uint64], bits: int) -> list[FloatArray]:
    """Two normals from two words of this many bits, ``u = (word + 1/2) / 2^bits`` and the turn ``a`` in the same way.

    Both are taken from the nearer end of (0, 1), where float64 holds them exactly: no digit is lost.
    """
    upper_half = np.uint64(2 ** (bits - 1))
    most = np.uint64(2**bits - 1)

    def from_below(word: NDArray[np.uint64]) -> FloatArray:
        # Whatever lies in the other half is not used.
        result: FloatArray = (np.minimum(word, upper_half).astype(np.float64) + 0.5) / 2**bits
        return result

    minus_log = np.where(
        radius_word < upper_half, -np.log(from_below(radius_word)), -np.log1p(-from_below(most - radius_word))
    )
    turn = np.where(angle_word < upper_half, from_below(angle_word), -from_below(most - angle_word))
    radius = np.sqrt(2 * minus_log)
    return [radius * np.cos(2 * np.pi * turn), radius * np.sin(2 * np.pi * turn)]


def normals(
    key: int,
    step: int,
    n_particles: int,
    n_coordinates: int,
    dtype: str = "float32",
    *,
    stream: int = STREAMS["move"],
    population: int = 0,
) -> FloatArray:
    """Standard normals, shape (n_particles, n_coordinates): those of a run in this precision, computed in float64.

    Box-Muller. A block of four words makes four coordinates of float32, or two of float64 with 53 bits each.
    """
    per_block = {"float32": 4, "float64": 2}[dtype]
    n_blocks = -(-n_coordinates // per_block)
    w0, w1, w2, w3 = noise_words(
        key, np.arange(n_particles)[:, np.newaxis], np.arange(n_blocks), step=step, stream=stream, population=population
    )
    if dtype == "float32":
        pairs = _box_muller(w0, w1, 32) + _box_muller(w2, w3, 32)
    else:
        shift = np.uint64(32)
        pairs = _box_muller((w0 | w1 << shift) >> np.uint64(11), (w2 | w3 << shift) >> np.uint64(11), 53)
    return np.stack(pairs, axis=-1).reshape(n_particles, n_blocks * per_block)[:, :n_coordinates]


def uniforms(key: int, step: int, n_particles: int, population: int = 0) -> FloatArray:
    """One uniform on (0, 1) for each particle, by which MALA accepts: 53 bits of the particle's first two words."""
    w0, w1, _, _ = noise_words(
        key, np.arange(n_particles), 0, step=step, stream=STREAMS["acceptance"], population=population
    )
    result: FloatArray = (((w0 | w1 << np.uint64(32)) >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53
    return result


def particle_minibatches(
    key: int, step: int, n: int, batch_size: int, n_particles: int, population: int = 0
) -> NDArray[np.int64]:
    """Rows of each particle's own batch, shape (n_particles, batch_size): draw t of particle m is its block t + 1."""
    w0, w1, _, _ = noise_words(
        key,
        np.arange(n_particles)[:, np.newaxis],
        1 + np.arange(batch_size),
        step=step,
        stream=STREAMS["batch"],
        population=population,
    )
    return np.array([_floyd(*words, n) for words in zip(w0, w1, strict=True)], np.int64)


def minibatch(key: int, step: int, n: int, batch_size: int, population: int = 0) -> NDArray[np.int64]:
    """``batch_size`` distinct rows of n, all sets alike: Floyd's algorithm, Bentley and Floyd 1987, CACM 30(9).

    Draw t is uniform on 0 .. j with j = n - batch_size + t, from the words of "particle" t; if it repeats, j is taken.
    """
    w0, w1, _, _ = noise_words(key, np.arange(batch_size), 0, step=step, stream=STREAMS["batch"], population=population)
    return np.array(_floyd(w0, w1, n), np.int64)


def _floyd(w0: NDArray[np.uint64], w1: NDArray[np.uint64], n: int) -> list[int]:
    rows: list[int] = []
    for t in range(len(w0)):
        j = n - len(w0) + t
        draw = (int(w0[t]) | int(w1[t]) << 32) * (j + 1) >> 64
        rows.append(j if draw in rows else draw)
    return rows
