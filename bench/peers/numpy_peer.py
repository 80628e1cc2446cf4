"""NumPy: BLAS products and ufuncs into buffers that stay, samples in chunks that stay in cache.

Two ways to use several cores are tried, and the faster one is kept: BLAS's own threads, which leave the ufuncs and the
generator on one core; or a pool of Python threads, each with its own samples, its own generator and a BLAS of one
thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from cases import DUAL_TEMPERATURE, SCHEDULE, Problem, Schedule
from numpy.typing import NDArray

from peers import TUNING_ROWS, chunk_candidates, draw_rows, dual_blocks, keep_fastest

try:
    from threadpoolctl import ThreadpoolController
except ImportError:  # then BLAS keeps the threads it started with, and the pool is not tried
    ThreadpoolController = None
try:
    from scipy.special import erf
except ImportError:
    erf = None

Array = NDArray[Any]
Activation = Callable[[Array, Array], None]
"""Turns pre-activations into values in place, and writes slopes."""


def _tanh(z: Array, slope: Array) -> None:
    np.tanh(z, out=z)
    np.multiply(z, z, out=slope)
    np.subtract(1, slope, out=slope)


def _relu(z: Array, slope: Array) -> None:
    np.greater(z, 0, out=slope, casting="unsafe")
    np.maximum(z, 0, out=z)


def _leaky_relu(z: Array, slope: Array) -> None:
    np.greater(z, 0, out=slope, casting="unsafe")
    slope *= 0.99
    slope += 0.01
    z *= slope


def _logistic(z: Array, out: Array) -> None:
    np.negative(z, out=out)
    np.exp(out, out=out)
    out += 1
    np.reciprocal(out, out=out)


def _sigmoid(z: Array, slope: Array) -> None:
    _logistic(z, z)
    np.subtract(1, z, out=slope)
    slope *= z


def _softplus(z: Array, slope: Array) -> None:
    # log(1 + e^z) = log(1 + e^-z) + z, fine until e^-z overflows
    np.negative(z, out=slope)
    np.exp(slope, out=slope)
    slope += 1
    tail = np.log(slope)
    z += tail
    np.reciprocal(slope, out=slope)


def _silu(z: Array, slope: Array) -> None:
    logistic = np.empty_like(z)
    _logistic(z, logistic)
    np.subtract(1, logistic, out=slope)
    slope *= z
    slope += 1
    slope *= logistic
    z *= logistic


def _sin(z: Array, slope: Array) -> None:
    np.cos(z, out=slope)
    np.sin(z, out=z)


def _cos(z: Array, slope: Array) -> None:
    np.sin(z, out=slope)
    np.negative(slope, out=slope)
    np.cos(z, out=z)


def _identity(z: Array, slope: Array) -> None:
    slope.fill(1)


def _erf(z: Array, slope: Array) -> None:
    np.multiply(z, z, out=slope)
    np.negative(slope, out=slope)
    np.exp(slope, out=slope)
    slope *= 2 / np.sqrt(np.pi)
    erf(z, out=z)


def _gelu(z: Array, slope: Array) -> None:
    probability = z * np.sqrt(0.5).astype(z.dtype)
    erf(probability, out=probability)
    probability += 1
    probability *= 0.5
    np.multiply(z, z, out=slope)
    slope *= -0.5
    np.exp(slope, out=slope)
    slope *= 1 / np.sqrt(2 * np.pi)
    slope *= z
    slope += probability
    z *= probability


ACTIVATIONS: dict[str, Activation] = {
    "tanh": _tanh,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "silu": _silu,
    "sin": _sin,
    "cos": _cos,
    "identity": _identity,
    **({"erf": _erf, "gelu": _gelu} if erf else {}),
}

ESTIMATORS = ("plain", "svrg")


class Network:
    def __init__(self, problem: Problem, tune: bool) -> None:
        self._problem = problem
        case = problem.case
        self._activation = ACTIVATIONS[case.activation]
        self._dtype = np.dtype(case.dtype)
        # A column of ones makes the bias a weight.
        self._inputs = np.column_stack([problem.inputs, np.ones(case.n_samples, self._dtype)])
        self._targets = problem.targets.reshape(-1, 1)
        if case.n_outputs > 1:
            self._targets = (self._targets == np.arange(case.n_outputs)).astype(self._dtype)
        self._rng = np.random.Generator(np.random.SFC64(1))
        self._blas = ThreadpoolController() if ThreadpoolController else None
        rows = case.batch_size or case.n_samples
        self._sample_weight = self._dtype.type(1 / rows)
        teams = [1] if case.threads == 1 or self._blas is None else [1, case.threads]
        chunks = chunk_candidates(rows, case.n_particles, self._dtype.itemsize)
        data = self._inputs, self._targets
        if not case.batch_size:
            self._inputs, self._targets = (array[:TUNING_ROWS] for array in data)
        if problem.anchor is not None:
            self._anchor_at(problem.anchor)
        variants = [(team, chunk) for team in teams for chunk in chunks]
        keep_fastest(variants, tune, lambda variant: self._prepare(*variant), self.run)
        self._inputs, self._targets = data

    def _anchor_at(self, anchor: Array) -> None:
        """Full gradient and predictions of SVRG's anchor, once."""
        d = self._problem.case.n_features
        self._anchor_weights = np.ascontiguousarray(anchor[:, : d + 1])
        self._anchor_readout = np.ascontiguousarray(anchor[:, d + 1 :])
        mean_readout = self._anchor_readout / self._dtype.type(len(anchor))
        total, predictions = None, []
        for first in range(0, len(self._inputs), 4096):
            x = self._inputs[first : first + 4096]
            values, slopes = (np.empty((len(x), len(anchor)), self._dtype) for _ in range(2))
            np.matmul(x, self._anchor_weights.T, out=values)
            self._activation(values, slopes)
            predictions.append(values @ mean_readout)
            cotangent = (predictions[-1] - self._targets[first : first + 4096]) / self._dtype.type(len(self._inputs))
            part = [slopes.T @ (cotangent * x) * self._anchor_readout, values.T @ cotangent]
            total = part if total is None else [a + b for a, b in zip(total, part, strict=True)]
        self._anchor_gradient = total
        self._anchor_predictions = np.concatenate(predictions)

    def _prepare(self, team: int, chunk: int) -> None:
        case = self._problem.case
        m, d, k = case.n_particles, case.n_features, case.n_outputs
        self._team = team
        self._pool = ThreadPoolExecutor(team) if team > 1 else None
        self._blas_threads = case.threads if team == 1 else 1
        self._workers = [_Worker(chunk, m, d, k, self._dtype, seed) for seed in range(team)]
        self._anchor_workers = [
            _Worker(chunk, m, d, k, self._dtype, 0) for _ in range(team if self._problem.anchor is not None else 0)
        ]
        self._weights = np.empty((m, d + 1), self._dtype)
        self._readout = np.empty((m, k), self._dtype)
        self._noise = np.empty(m * (d + 1 + k), self._dtype)
        self.choice = f"chunks of {chunk}, " + (
            f"{team} Python threads" if team > 1 else f"{case.threads} BLAS threads"
        )
        self.reset()

    def reset(self) -> None:
        d = self._problem.case.n_features
        self._weights[:] = self._problem.particles[:, : d + 1]
        self._readout[:] = self._problem.particles[:, d + 1 :]

    def particles(self) -> Array:
        return np.hstack([self._weights, self._readout])

    def run(self, n_steps: int, schedule: Schedule = SCHEDULE, rows: NDArray[np.int64] | None = None) -> None:
        if self._problem.case.batch_size and rows is None:
            rows = draw_rows(self._rng, self._problem, n_steps)
        with self._blas.limit(limits=self._blas_threads, user_api="blas") if self._blas else contextlib.nullcontext():
            for step in range(n_steps):
                if rows is None:
                    self._step(self._inputs, self._targets, schedule)
                else:
                    chosen = rows[step]
                    known = self._anchor_predictions[chosen] if self._problem.anchor is not None else None
                    self._step(self._inputs[chosen], self._targets[chosen], schedule, known)

    def _map(self, call: Callable[[int], None]) -> None:
        if self._pool is None:
            call(0)
        else:
            list(self._pool.map(call, range(self._team)))

    def _step(self, inputs: Array, targets: Array, schedule: Schedule, anchor_predictions: Array | None = None) -> None:
        mean_readout = self._readout / self._dtype.type(len(self._readout))
        # A worker needs enough samples to be worth waking.
        members = self._workers if len(inputs) >= 64 * self._team else self._workers[:1]

        def gradient(member: int) -> None:
            if member < len(members):
                part = slice(len(inputs) * member // len(members), len(inputs) * (member + 1) // len(members))
                members[member].gradient(
                    self._activation,
                    self._weights,
                    self._readout,
                    mean_readout,
                    inputs[part],
                    targets[part],
                    self._sample_weight,
                )
                if anchor_predictions is not None:
                    self._anchor_workers[member].gradient(
                        self._activation,
                        self._anchor_weights,
                        self._anchor_readout,
                        None,
                        inputs[part],
                        targets[part],
                        self._sample_weight,
                        anchor_predictions[part],
                    )

        def noise(member: int) -> None:
            count = len(self._noise)
            part = slice(count * member // self._team, count * (member + 1) // self._team)
            self._workers[member].rng.standard_normal(out=self._noise[part], dtype=self._dtype)

        def both(member: int) -> None:
            gradient(member)
            noise(member)

        self._map(both)
        total = _total(members)
        if self._problem.case.n_outputs == 1:
            total.of_weights *= self._readout  # left out of the sums over samples
        if anchor_predictions is not None:
            at_anchor = _total(self._anchor_workers[: len(members)])
            at_anchor.of_weights *= self._anchor_readout
            total.of_weights -= at_anchor.of_weights
            total.of_weights += self._anchor_gradient[0]
            total.of_readout -= at_anchor.of_readout
            total.of_readout += self._anchor_gradient[1]

        self._noise *= np.sqrt(2 * schedule.temperature * schedule.step_size)
        split = self._weights.size
        self._move(self._weights, total.of_weights, self._noise[:split], schedule.step_size)
        self._move(self._readout, total.of_readout, self._noise[split:], schedule.step_size)

    def _move(self, particles: Array, gradient: Array, noise: Array, step_size: float) -> None:
        particles *= 1 - 2 * step_size * self._problem.l2
        gradient *= step_size
        particles -= gradient
        particles += noise.reshape(particles.shape)


def _total(workers: list[_Worker]) -> _Worker:
    """The first one, with the sums of all."""
    for other in workers[1:]:
        workers[0].of_weights += other.of_weights
        workers[0].of_readout += other.of_readout
    return workers[0]


class _Worker:
    """One thread's buffers, generator and share of the gradient."""

    def __init__(self, chunk: int, m: int, d: int, k: int, dtype: np.dtype[Any], seed: int) -> None:
        self.rng = np.random.Generator(np.random.SFC64([2, seed]))
        self._values = np.empty((chunk, m), dtype)
        self._slopes = np.empty((chunk, m), dtype)
        self._mixed = np.empty((chunk if k > 1 else 0, m), dtype)
        self._scaled = np.empty((chunk, d + 1), dtype)
        self._part = np.empty((m, d + 1), dtype)
        self.of_weights = np.empty((m, d + 1), dtype)
        self.of_readout = np.empty((m, k), dtype)

    def gradient(
        self,
        activation: Activation,
        weights: Array,
        readout: Array,
        mean_readout: Array | None,
        inputs: Array,
        targets: Array,
        sample_weight: Any,
        predictions: Array | None = None,
    ) -> None:
        """Sums over the inputs; with the predictions where they are known, of one output."""
        chunk = len(self._values)
        for first in range(0, len(inputs), chunk):
            x, y = inputs[first : first + chunk], targets[first : first + chunk]
            values, slopes = self._values[: len(x)], self._slopes[: len(x)]
            np.matmul(x, weights.T, out=values)
            activation(values, slopes)
            cotangent = values @ mean_readout if predictions is None else predictions[first : first + chunk].copy()
            if readout.shape[1] > 1:
                cotangent -= cotangent.max(axis=1, keepdims=True)
                np.exp(cotangent, out=cotangent)
                cotangent /= cotangent.sum(axis=1, keepdims=True)
            cotangent -= y
            cotangent *= sample_weight
            if readout.shape[1] == 1:
                # The cotangent scales the rows of x, which are shorter than those of the slopes.
                x = np.multiply(x, cotangent, out=self._scaled[: len(x)])
            else:
                slopes *= np.matmul(cotangent, readout.T, out=self._mixed[: len(x)])
            if first == 0:
                np.matmul(slopes.T, x, out=self.of_weights)
                np.matmul(values.T, cotangent, out=self.of_readout)
            else:
                self.of_weights += np.matmul(slopes.T, x, out=self._part)
                self.of_readout += values.T @ cotangent


class Descent:
    """Squares of distances by one product, an exponential in place, and one product for sums and their moments."""

    def __init__(self, problem: Problem, tune: bool) -> None:
        self._problem = problem
        case = problem.case
        self._dtype = np.dtype(case.dtype)
        self._blas = ThreadpoolController() if ThreadpoolController else None
        n, total = case.n_particles, case.n_particles + case.n_samples
        rows = chunk_candidates(n, total, self._dtype.itemsize)
        teams = [1, case.threads] if self._blas and case.threads > 1 else [1]
        keep_fastest([(team, r) for team in teams for r in rows], tune, lambda v: self._prepare(*v), self.run)

    def _prepare(self, team: int, rows: int) -> None:
        case = self._problem.case
        n, total = case.n_particles, case.n_particles + case.n_samples
        rows = min(rows, -(-n // team))
        self._pool = ThreadPoolExecutor(team) if team > 1 else None
        self._blas_threads = 1 if team > 1 else case.threads
        self._chunks = [slice(first, min(n, first + rows)) for first in range(0, n, rows)]
        self._buffers = [np.empty((rows, total), self._dtype) for _ in range(team)]
        self.choice = f"chunks of {rows}, {team} Python threads"
        self.reset()

    def reset(self) -> None:
        # In units of the length of the kernel.
        case = self._problem.case
        length = self._dtype.type(np.sqrt(case.n_features))
        self._points = np.concatenate([self._problem.particles, self._problem.inputs]) / length
        self._length = length
        self._weighted = np.ones((len(self._points), case.n_features + 1), self._dtype)
        self._gradient = np.empty_like(self._problem.particles)

    def run(self, n_steps: int, schedule: Schedule = SCHEDULE, rows: NDArray[np.int64] | None = None) -> None:
        case = self._problem.case
        n, d = case.n_particles, case.n_features
        limit = self._blas.limit(limits=self._blas_threads, user_api="blas") if self._blas else contextlib.nullcontext()
        with limit:
            for _ in range(n_steps):
                self._weighted[:, :d] = self._points
                self._weighted[:, d] = 1
                self._weighted[:n] /= n
                self._weighted[n:] /= -case.n_samples
                half = np.einsum("ij,ij->i", self._points, self._points) / 2
                if self._pool is None:
                    self._share(0, self._chunks, half)
                else:
                    team = len(self._buffers)
                    shares = [self._chunks[member::team] for member in range(team)]
                    list(self._pool.map(self._share, range(team), shares, [half] * team))
                self._points[:n] += schedule.step_size * 2 / self._length**2 * self._gradient

    def _share(self, member: int, chunks: list[slice], half: Array) -> None:
        n_features = self._problem.case.n_features
        for chunk in chunks:
            x = self._points[chunk]
            pairs = self._buffers[member][: len(x)]
            np.matmul(x, self._points.T, out=pairs)
            pairs -= half
            pairs -= half[chunk, np.newaxis]
            np.exp(pairs, out=pairs)
            sums = pairs @ self._weighted
            self._gradient[chunk] = x * sums[:, n_features:] - sums[:, :n_features]

    def particles(self) -> NDArray[Any]:
        return self._points[: self._problem.case.n_particles] * self._length


class DualAscent:
    """Neurons of a block by one product; at a sample one product for both sums, then the weights in cache."""

    def __init__(self, problem: Problem, tune: bool) -> None:
        case = problem.case
        d = case.n_features
        self._case = case
        self._activation = ACTIVATIONS[case.activation]
        self._dtype = np.dtype(case.dtype)
        self._inputs = np.column_stack([problem.inputs, np.ones(case.n_samples, self._dtype)])
        self._targets = problem.targets.tolist()
        self._weights = np.ascontiguousarray(problem.particles[:, : d + 1])
        self._readout = np.tanh(problem.particles[:, d + 1])
        self._log_r, self._r, self._change = (np.empty(case.n_particles, self._dtype) for _ in range(3))
        self._blas = ThreadpoolController() if ThreadpoolController else None
        threads = {1, case.threads} if self._blas else {case.threads}
        keep_fastest(
            [(team, rows) for team in sorted(threads) for rows in dual_blocks(case.n_samples)],
            tune,
            lambda variant: self._prepare(*variant),
            self.run,
        )

    def _prepare(self, threads: int, rows: int) -> None:
        self._threads, self._rows = threads, rows
        # (sample, ones and neurons, particle): one product with the weights gives both sums.
        self._pairs = np.ones((rows, 2, self._case.n_particles), self._dtype)
        self._values, self._slopes = (np.empty((rows, self._case.n_particles), self._dtype) for _ in range(2))
        self.choice = f"blocks of {rows}, {threads} BLAS threads"
        self.reset()

    def reset(self) -> None:
        self._dual = [0.0] * self._case.n_samples
        self._log_r.fill(0)
        self._r.fill(1)

    def run(self, n_steps: int) -> None:
        with self._blas.limit(limits=self._threads, user_api="blas") if self._blas else contextlib.nullcontext():
            for _ in range(n_steps):
                for first in range(0, self._case.n_samples, self._rows):
                    self._block(first)

    def _block(self, first: int) -> None:
        case = self._case
        x = self._inputs[first : first + self._rows]
        values = self._values[: len(x)]
        np.matmul(x, self._weights.T, out=values)
        self._activation(values, self._slopes[: len(x)])
        np.multiply(values, self._readout, out=self._pairs[: len(x), 1])
        a = case.n_samples * DUAL_TEMPERATURE
        for i, pair in enumerate(self._pairs[: len(x)], first):
            total, weighted = (pair @ self._r).tolist()
            g = (self._dual[i] + a * (weighted / total - self._targets[i])) / (1 + a)
            np.multiply(pair[1], (self._dual[i] - g) / a, out=self._change)
            self._dual[i] = g
            self._log_r += self._change
            np.exp(self._log_r, out=self._r)

    def dual(self) -> Array:
        return np.array(self._dual)

    def log_weights(self) -> Array:
        return self._log_r


class Normals:
    def __init__(self, problem: Problem) -> None:
        case = problem.case
        self._rngs = [np.random.Generator(np.random.SFC64(seed)) for seed in range(case.threads)]
        self._values = np.empty((case.n_particles, case.n_features), case.dtype)
        self._parts = np.array_split(self._values, case.threads)
        self._pool = ThreadPoolExecutor(case.threads)
        self.choice = "SFC64, ziggurat" + (f", {case.threads} Python threads" if case.threads > 1 else "")

    def run(self, n_steps: int) -> None:
        def fill(rng: np.random.Generator, part: Array) -> None:
            rng.standard_normal(out=part, dtype=part.dtype)

        for _ in range(n_steps):
            if len(self._parts) == 1:
                fill(self._rngs[0], self._values)
            else:
                list(self._pool.map(fill, self._rngs, self._parts))

    def values(self) -> Array:
        return self._values
