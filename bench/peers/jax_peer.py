"""JAX on the CPU: all steps of a call in one compiled loop, particles donated, samples whole or scanned in chunks.

XLA takes as many threads as this process has cores; the bench confines the process to as many as a case asks for.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from cases import DUAL_TEMPERATURE, SCHEDULE, Problem, Schedule
from jax import lax
from numpy.typing import NDArray

from peers import TUNING_ROWS, chunk_candidates, draw_rows, dual_blocks, keep_fastest

jax.config.update("jax_enable_x64", True)  # for the cases in float64; the others name their precision throughout

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": lambda z: jnp.maximum(z, 0),
    "leaky_relu": partial(jax.nn.leaky_relu, negative_slope=0.01),
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "erf": lax.erf,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "identity": lambda z: z,
}
ESTIMATORS = ("plain", "svrg")
_MOST_BATCHES = 4096  # of one call of the compiled loop


class Network:
    def __init__(self, problem: Problem, tune: bool) -> None:
        self._problem = problem
        case = problem.case
        inputs = np.column_stack([problem.inputs, np.ones(case.n_samples, case.dtype)])
        targets = problem.targets.reshape(-1, 1)
        if case.n_outputs > 1:
            targets = (targets == np.arange(case.n_outputs)).astype(case.dtype)
        self._data = jnp.asarray(inputs), jnp.asarray(targets)
        self._rng = np.random.Generator(np.random.SFC64(1))
        self._key = jax.random.key(1)
        # Compilation takes a while, so two chunks are tried at most: one for the third-level cache, and the largest.
        rows = case.batch_size or case.n_samples
        chunks = chunk_candidates(rows, case.n_particles, np.dtype(case.dtype).itemsize)
        self._anchor = None
        if problem.anchor is not None:
            self._anchor = self._anchor_at(problem.anchor)
        data = self._data
        if not case.batch_size:
            self._data = tuple(array[:TUNING_ROWS] for array in data)
        keep_fastest(sorted({chunks[len(chunks) // 3], chunks[-1]}), tune, self._prepare, self.run)
        self._data = data

    def _anchor_at(self, start: NDArray[Any]) -> Any:
        """SVRG's anchor, its full gradient and its predictions, once."""
        activation = ACTIVATIONS[self._problem.case.activation]
        d = self._problem.case.n_features
        anchor = jnp.array(start[:, : d + 1]), jnp.array(start[:, d + 1 :])
        x, y = self._data
        blocks = [slice(first, first + 4096) for first in range(0, len(x), 4096)]
        predict = jax.jit(lambda x: activation(x @ anchor[0].T) @ (anchor[1] / len(start)))
        predictions = jnp.concatenate([predict(x[block]) for block in blocks])

        @jax.jit
        def part(x, y, known):
            weight = jnp.full((len(x), 1), 1 / len(self._data[0]), x.dtype)
            return _chunk_gradient(anchor, x, y, weight, activation, known)

        parts = [part(x[block], y[block], predictions[block]) for block in blocks]
        of_weights, of_readout = jax.tree.map(lambda *terms: sum(terms), *parts)
        return anchor, (of_weights * anchor[1], of_readout), predictions

    def _prepare(self, chunk: int) -> None:
        case = self._problem.case
        whole = case.batch_size or case.n_samples
        self._loop = jax.jit(
            partial(
                _steps,
                activation=ACTIVATIONS[case.activation],
                l2=self._problem.l2,
                chunk=None if chunk >= whole else chunk,
            ),
            donate_argnums=0,
        )
        self.choice = f"chunks of {chunk}" if chunk < whole else "all samples at once"
        self.reset()

    def reset(self) -> None:
        d = self._problem.case.n_features
        start = self._problem.particles
        self._particles = jnp.array(start[:, : d + 1]), jnp.array(start[:, d + 1 :])

    def particles(self) -> NDArray[Any]:
        return np.hstack([np.asarray(part) for part in self._particles])

    def run(self, n_steps: int, schedule: Schedule = SCHEDULE, rows: NDArray[np.int64] | None = None) -> None:
        if self._problem.case.batch_size and n_steps > _MOST_BATCHES:
            self.run(_MOST_BATCHES, schedule)
            return self.run(n_steps - _MOST_BATCHES, schedule)
        batches = None
        if self._problem.case.batch_size:
            # One shape for all calls, so that it is compiled once.
            batches = np.zeros((_MOST_BATCHES, self._problem.case.batch_size), np.int32)
            batches[:n_steps] = draw_rows(self._rng, self._problem, n_steps) if rows is None else rows
        self._key, key = jax.random.split(self._key)
        precision = self._problem.particles.dtype.type
        step_size = precision(schedule.step_size)
        noise_scale = precision(np.sqrt(2 * schedule.temperature * schedule.step_size))
        self._particles = self._loop(
            self._particles, *self._data, batches, self._anchor, step_size, noise_scale, key, n_steps
        )
        jax.block_until_ready(self._particles)


def _steps(
    particles, inputs, targets, batches, anchored, step_size, noise_scale, key, n_steps, *, activation, l2, chunk
):
    def step(k, particles):
        x, y = (inputs, targets) if batches is None else (inputs[batches[k]], targets[batches[k]])
        gradient = _gradient(particles, x, y, activation, chunk)
        if anchored is not None:
            anchor, full, predictions = anchored
            weight = jnp.full((len(x), 1), 1 / len(x), x.dtype)
            of_weights, of_readout = _chunk_gradient(anchor, x, y, weight, activation, predictions[batches[k]])
            at_anchor = of_weights * anchor[1], of_readout
            gradient = tuple(now - then + whole for now, then, whole in zip(gradient, at_anchor, full, strict=True))
        keys = jax.random.split(jax.random.fold_in(key, k))
        return tuple(
            array * (1 - 2 * step_size * l2)
            - step_size * slope
            + noise_scale * jax.random.normal(one_key, array.shape, array.dtype)
            for array, slope, one_key in zip(particles, gradient, keys, strict=True)
        )

    return lax.fori_loop(0, n_steps, step, particles)


def _gradient(particles, x, y, activation, chunk):
    n = len(x)
    if chunk is None:
        of_weights, of_readout = _chunk_gradient(particles, x, y, jnp.full((n, 1), 1 / n, x.dtype), activation)
    else:
        count = -(-n // chunk)
        pad = ((0, count * chunk - n), (0, 0))
        weight = jnp.pad(jnp.full((n, 1), 1 / n, x.dtype), pad)
        chunks = [jnp.pad(a, pad).reshape(count, chunk, -1) for a in (x, y)] + [weight.reshape(count, chunk, 1)]

        def add(total, part):
            return jax.tree.map(jnp.add, total, _chunk_gradient(particles, *part, activation)), None

        (of_weights, of_readout), _ = lax.scan(add, jax.tree.map(jnp.zeros_like, particles), tuple(chunks))
    if of_readout.shape[1] == 1:
        of_weights = of_weights * particles[1]  # left out of the sums over samples
    return of_weights, of_readout


def _chunk_gradient(particles, x, y, weight, activation, predictions=None):
    """With the predictions where they are known."""
    weights, readout = particles
    z = x @ weights.T
    values, slopes = jax.jvp(activation, (z,), (jnp.ones_like(z),))
    if predictions is None:
        predictions = values @ (readout / len(readout))
    if readout.shape[1] == 1:
        cotangent = (predictions - y) * weight
        return slopes.T @ (cotangent * x), values.T @ cotangent
    cotangent = (jax.nn.softmax(predictions) - y) * weight
    return (slopes * (cotangent @ readout.T)).T @ x, values.T @ cotangent


class Descent:
    """All steps in one compiled loop; pairs whole, or particles scanned in chunks."""

    def __init__(self, problem: Problem, tune: bool) -> None:
        self._problem = problem
        case = problem.case
        itemsize = np.dtype(case.dtype).itemsize
        candidates = chunk_candidates(case.n_particles, case.n_particles + case.n_samples, itemsize)
        chunks = sorted({next(c for c in range(rows, 0, -1) if case.n_particles % c == 0) for rows in candidates})
        self._length = float(np.sqrt(case.n_features))
        self._inputs = jnp.asarray(problem.inputs / problem.inputs.dtype.type(self._length))
        keep_fastest(chunks, tune, self._prepare, self.run)

    def _prepare(self, rows: int) -> None:
        case = self._problem.case
        n, d = case.n_particles, case.n_features

        def chunk(points: jax.Array, weighted: jax.Array, half: jax.Array, x: jax.Array) -> jax.Array:
            own = jnp.sum(x * x, axis=1, keepdims=True) / 2
            sums = jnp.exp(x @ points.T - half - own) @ weighted
            return x * sums[:, d:] - sums[:, :d]

        @partial(jax.jit, donate_argnums=0)
        def run(x: jax.Array, inputs: jax.Array, n_steps: int, factor: jax.Array) -> jax.Array:
            def step(_: int, x: jax.Array) -> jax.Array:
                points = jnp.concatenate([x, inputs])
                ones = jnp.ones_like(points[:, :1])
                weights = jnp.where(jnp.arange(len(points)) < n, 1 / n, -1 / case.n_samples).astype(x.dtype)
                weighted = jnp.concatenate([points, ones], axis=1) * weights[:, None]
                half = jnp.sum(points * points, axis=1) / 2
                of_chunk = partial(chunk, points, weighted, half)
                gradient = of_chunk(x) if rows == n else lax.map(of_chunk, x.reshape(-1, rows, d)).reshape(n, d)
                return x + factor * gradient

            return lax.fori_loop(0, n_steps, step, x)

        self._run = run
        self.choice = "pairs whole" if rows == n else f"chunks of {rows}"
        self.reset()

    def reset(self) -> None:
        particles = self._problem.particles
        self._x = jnp.asarray(particles / particles.dtype.type(self._length))

    def run(self, n_steps: int, schedule: Schedule = SCHEDULE, rows: NDArray[np.int64] | None = None) -> None:
        factor = jnp.asarray(schedule.step_size * 2 / self._length**2, self._x.dtype)
        self._x = self._run(self._x, self._inputs, n_steps, factor).block_until_ready()

    def particles(self) -> NDArray[Any]:
        return np.asarray(self._x) * self._length


class DualAscent:
    """All epochs of a call in one compiled loop: a scan over blocks, and in a block one over its samples."""

    def __init__(self, problem: Problem, tune: bool) -> None:
        case = problem.case
        d = case.n_features
        inputs = np.column_stack([problem.inputs, np.ones(case.n_samples, case.dtype)])
        self._data = jnp.asarray(inputs), jnp.asarray(problem.targets)
        weights, readout = problem.particles[:, : d + 1], problem.particles[:, d + 1]
        self._network = jnp.asarray(weights.T.copy()), jnp.tanh(jnp.asarray(readout))
        self._case = case
        keep_fastest(
            [rows for rows in dual_blocks(case.n_samples) if case.n_samples % rows == 0], tune, self._prepare, self.run
        )

    def _prepare(self, rows: int) -> None:
        case = self._case
        epochs = partial(_dual_epochs, activation=ACTIVATIONS[case.activation], n=case.n_samples)
        self._epochs = jax.jit(epochs, donate_argnums=(0, 1))
        self._blocks = [array.reshape(-1, rows, *array.shape[1:]) for array in self._data]
        self.choice = f"blocks of {rows}"
        self.reset()

    def reset(self) -> None:
        self._dual = jnp.zeros(self._blocks[1].shape, self._case.dtype)
        self._log_r = jnp.zeros(self._case.n_particles, self._case.dtype)

    def run(self, n_steps: int) -> None:
        self._log_r, self._dual = self._epochs(self._log_r, self._dual, *self._blocks, *self._network, n_steps)
        jax.block_until_ready(self._log_r)

    def dual(self) -> NDArray[Any]:
        return np.asarray(self._dual).ravel()

    def log_weights(self) -> NDArray[Any]:
        return np.asarray(self._log_r)


def _dual_epochs(log_r, dual, inputs, targets, weights, readout, n_epochs, *, activation, n):
    a = jnp.asarray(n * DUAL_TEMPERATURE, log_r.dtype)

    def visit(log_r, sample):
        h, y, g = sample
        r = jnp.exp(log_r)
        u = jnp.sum(r * h) / jnp.sum(r)
        stepped = (g + a * (u - y)) / (1 + a)
        return log_r - h * ((stepped - g) / a), stepped

    def block(log_r, rows):
        x, y, g = rows
        return lax.scan(visit, log_r, (activation(x @ weights) * readout, y, g))

    def epoch(_, state):
        log_r, dual = state
        return lax.scan(block, log_r, (inputs, targets, dual))

    return lax.fori_loop(0, n_epochs, epoch, (log_r, dual))


class Normals:
    def __init__(self, problem: Problem) -> None:
        case = problem.case
        shape = case.n_particles, case.n_features
        self._draw = jax.jit(lambda key, k: jax.random.normal(jax.random.fold_in(key, k), shape, case.dtype))
        self._key = jax.random.key(1)
        self._count = 0
        self.choice = "threefry"

    def run(self, n_steps: int) -> None:
        for _ in range(n_steps):
            self._count += 1
            self._values = self._draw(self._key, self._count)
        jax.block_until_ready(self._values)

    def values(self) -> NDArray[Any]:
        return np.asarray(self._values)
