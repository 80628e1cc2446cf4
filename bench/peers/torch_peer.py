"""PyTorch on the CPU: no autograd, products and activations into buffers that stay, samples in chunks.

The backward functions of ATen multiply by the cotangent and take the slope in one sweep, as autograd itself would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from cases import DUAL_TEMPERATURE, SCHEDULE, Problem, Schedule
from numpy.typing import NDArray

from peers import TUNING_ROWS, chunk_candidates, draw_rows, dual_blocks, keep_fastest

_aten = torch.ops.aten
Forward = Callable[[torch.Tensor, torch.Tensor], None]
Backward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]


def _sin_backward(g: torch.Tensor, z: torch.Tensor, gain: torch.Tensor) -> None:
    torch.cos(z, out=gain).mul_(g)


def _cos_backward(g: torch.Tensor, z: torch.Tensor, gain: torch.Tensor) -> None:
    torch.sin(z, out=gain).mul_(g).neg_()


def _erf_backward(g: torch.Tensor, z: torch.Tensor, gain: torch.Tensor) -> None:
    torch.mul(z, z, out=gain).neg_().exp_().mul_(g).mul_(2 / math.sqrt(math.pi))


# forward(z, value), and backward(g, kept, gain) with gain = g * slope. In place (True) value is z itself and is what is
# kept; otherwise z is kept.
ACTIVATIONS: dict[str, tuple[bool, Forward, Backward]] = {
    "tanh": (True, lambda z, _: z.tanh_(), lambda g, a, out: _aten.tanh_backward.grad_input(g, a, grad_input=out)),
    "relu": (
        True,
        lambda z, _: z.relu_(),
        lambda g, a, out: _aten.threshold_backward.grad_input(g, a, 0, grad_input=out),
    ),
    "leaky_relu": (
        True,
        lambda z, _: torch.nn.functional.leaky_relu_(z, 0.01),
        lambda g, a, out: _aten.leaky_relu_backward.grad_input(g, a, 0.01, True, grad_input=out),
    ),
    "sigmoid": (
        True,
        lambda z, _: z.sigmoid_(),
        lambda g, a, out: _aten.sigmoid_backward.grad_input(g, a, grad_input=out),
    ),
    "softplus": (
        False,
        lambda z, value: _aten.softplus.out(z, 1, 20, out=value),
        lambda g, z, out: _aten.softplus_backward.grad_input(g, z, 1, 20, grad_input=out),
    ),
    "silu": (
        False,
        lambda z, value: _aten.silu.out(z, out=value),
        lambda g, z, out: _aten.silu_backward.grad_input(g, z, grad_input=out),
    ),
    "gelu": (
        False,
        lambda z, value: _aten.gelu.out(z, out=value),
        lambda g, z, out: _aten.gelu_backward.grad_input(g, z, grad_input=out),
    ),
    "erf": (False, lambda z, value: torch.erf(z, out=value), _erf_backward),
    "sin": (False, lambda z, value: torch.sin(z, out=value), _sin_backward),
    "cos": (False, lambda z, value: torch.cos(z, out=value), _cos_backward),
    "identity": (True, lambda z, _: None, lambda g, a, out: out.copy_(g)),
}

ESTIMATORS = ("plain", "svrg")


class Network:
    def __init__(self, problem: Problem, tune: bool) -> None:
        self._problem = problem
        case = problem.case
        torch.set_num_threads(case.threads)
        self._dtype = getattr(torch, case.dtype)
        self._in_place, self._forward, self._backward = ACTIVATIONS[case.activation]
        m, d, k = case.n_particles, case.n_features, case.n_outputs
        # A column of ones makes the bias a weight.
        self._inputs = torch.from_numpy(np.column_stack([problem.inputs, np.ones(case.n_samples, case.dtype)]))
        targets = problem.targets.reshape(-1, 1)
        self._targets = torch.from_numpy((targets == np.arange(k)).astype(case.dtype) if k > 1 else targets.copy())
        self._weights = torch.empty((m, d + 1), dtype=self._dtype)
        self._readout = torch.empty((m, k), dtype=self._dtype)
        self._of_weights, self._of_readout = torch.empty_like(self._weights), torch.empty_like(self._readout)
        self._noise = torch.empty(m * (d + 1 + k), dtype=self._dtype)
        self._rows = case.batch_size or case.n_samples
        self._batch = torch.empty((case.batch_size, d + 1), dtype=self._dtype)
        self._batch_targets = torch.empty((case.batch_size, k), dtype=self._dtype)
        self._rng = np.random.Generator(np.random.SFC64(1))
        chunks = chunk_candidates(self._rows, m, self._weights.element_size())
        if problem.anchor is not None:
            self._anchor_at(torch.from_numpy(problem.anchor))
        data = self._inputs, self._targets
        if not case.batch_size:
            self._inputs, self._targets = (array[:TUNING_ROWS] for array in data)
        keep_fastest(chunks, tune, self._prepare, self.run)
        self._inputs, self._targets = data

    @torch.inference_mode()
    def _anchor_at(self, anchor: torch.Tensor) -> None:
        """Full gradient and predictions of SVRG's anchor, once."""
        d = self._problem.case.n_features
        self._anchor_weights, self._anchor_readout = anchor[:, : d + 1].clone(), anchor[:, d + 1 :].clone()
        self._anchor_predictions = torch.empty_like(self._targets)
        self._batch_predictions = torch.empty_like(self._batch_targets)
        self._at_anchor = [torch.empty_like(self._weights), torch.empty_like(self._readout)]
        rows, self._rows = self._rows, len(self._inputs)
        self._prepare(min(4096, len(self._inputs)))
        for first in range(0, len(self._inputs), self._chunk):
            part = slice(first, first + self._chunk)
            z = torch.mm(self._inputs[part], self._anchor_weights.T)
            values = z if self._in_place else torch.empty_like(z)
            self._forward(z, values)
            self._anchor_predictions[part] = torch.mm(values, self._anchor_readout / len(anchor))
        known = self._anchor_predictions
        self._gradient(self._inputs, self._targets, self._anchor_weights, self._anchor_readout, self._at_anchor, known)
        self._anchor_gradient = [total.clone() for total in self._at_anchor]
        self._rows = rows

    def _prepare(self, chunk: int) -> None:
        self._chunk = chunk
        self._z = torch.empty((chunk, self._problem.case.n_particles), dtype=self._dtype)
        self._values = self._z if self._in_place else torch.empty_like(self._z)
        self._gain = torch.empty_like(self._z)
        self.choice = f"chunks of {chunk}, {torch.get_num_threads()} threads"
        self.reset()

    def reset(self) -> None:
        start = torch.from_numpy(self._problem.particles)
        d = self._problem.case.n_features
        self._weights.copy_(start[:, : d + 1])
        self._readout.copy_(start[:, d + 1 :])

    def particles(self) -> NDArray[Any]:
        return torch.hstack([self._weights, self._readout]).numpy()

    @torch.inference_mode()
    def run(self, n_steps: int, schedule: Schedule = SCHEDULE, rows: NDArray[np.int64] | None = None) -> None:
        torch.set_num_threads(self._problem.case.threads)
        if not self._problem.case.batch_size:
            for _ in range(n_steps):
                self._step(self._inputs, self._targets, schedule)
            return
        chosen = torch.from_numpy(draw_rows(self._rng, self._problem, n_steps) if rows is None else rows)
        for step in range(n_steps):
            torch.index_select(self._inputs, 0, chosen[step], out=self._batch)
            torch.index_select(self._targets, 0, chosen[step], out=self._batch_targets)
            if self._problem.anchor is not None:
                torch.index_select(self._anchor_predictions, 0, chosen[step], out=self._batch_predictions)
            self._step(self._batch, self._batch_targets, schedule)

    def _gradient(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        readout: torch.Tensor,
        out: Sequence[torch.Tensor],
        predictions: torch.Tensor | None = None,
    ) -> None:
        """With the predictions where they are known, of one output."""
        of_weights, of_readout = out
        mean_readout = readout / len(readout)
        for first in range(0, len(inputs), self._chunk):
            x, y = inputs[first : first + self._chunk], targets[first : first + self._chunk]
            z, values, gain = self._z[: len(x)], self._values[: len(x)], self._gain[: len(x)]
            torch.mm(x, weights.T, out=z)
            self._forward(z, values)
            if predictions is None:
                cotangent = torch.mm(values, mean_readout)
            else:
                cotangent = predictions[first : first + self._chunk].clone()
            if len(mean_readout.T) > 1:
                cotangent = cotangent.softmax(1)
            cotangent.sub_(y).div_(self._rows)
            if len(mean_readout.T) > 1:
                torch.mm(cotangent, readout.T, out=gain)
                self._backward(gain, z, gain)
            else:  # the readout is left out of the sums over samples
                self._backward(cotangent.expand_as(z), z, gain)
            beta = 0 if first == 0 else 1
            torch.addmm(of_weights, gain.T, x, beta=beta, out=of_weights)
            torch.addmm(of_readout, values.T, cotangent, beta=beta, out=of_readout)
        if len(mean_readout.T) == 1:
            of_weights.mul_(readout)

    def _step(self, inputs: torch.Tensor, targets: torch.Tensor, schedule: Schedule) -> None:
        total = self._of_weights, self._of_readout
        self._gradient(inputs, targets, self._weights, self._readout, total)
        if self._problem.anchor is not None:
            known = self._batch_predictions
            self._gradient(inputs, targets, self._anchor_weights, self._anchor_readout, self._at_anchor, known)
            for array, at_anchor, full in zip(total, self._at_anchor, self._anchor_gradient, strict=True):
                array.sub_(at_anchor).add_(full)

        self._noise.normal_()
        scale = math.sqrt(2 * schedule.temperature * schedule.step_size)
        split = self._weights.numel()
        for array, slope, xi in (
            (self._weights, self._of_weights, self._noise[:split]),
            (self._readout, self._of_readout, self._noise[split:]),
        ):
            array.mul_(1 - 2 * schedule.step_size * self._problem.l2)
            array.sub_(slope, alpha=schedule.step_size).add_(xi.view_as(array), alpha=scale)


class Descent:
    """As in NumPy: two products and an exponential, on chunks of particles."""

    def __init__(self, problem: Problem, tune: bool) -> None:
        self._problem = problem
        case = problem.case
        torch.set_num_threads(case.threads)
        itemsize = np.dtype(case.dtype).itemsize
        rows = chunk_candidates(case.n_particles, case.n_particles + case.n_samples, itemsize)
        with torch.no_grad():
            keep_fastest(rows, tune, self._prepare, self.run)

    def _prepare(self, rows: int) -> None:
        self._rows = rows
        self.choice = f"chunks of {rows}"
        self.reset()
        self._pairs = torch.empty((rows, len(self._points)), dtype=self._points.dtype)

    def reset(self) -> None:
        self._length = math.sqrt(self._problem.case.n_features)
        both = np.concatenate([self._problem.particles, self._problem.inputs])
        self._points = torch.from_numpy(both / both.dtype.type(self._length))

    @torch.no_grad()
    def run(self, n_steps: int, schedule: Schedule = SCHEDULE, rows: NDArray[np.int64] | None = None) -> None:
        case = self._problem.case
        n, d = case.n_particles, case.n_features
        gradient = torch.empty((n, d), dtype=self._points.dtype)
        for _ in range(n_steps):
            weighted = torch.cat([self._points, torch.ones_like(self._points[:, :1])], dim=1)
            weighted[:n] /= n
            weighted[n:] /= -case.n_samples
            half = (self._points * self._points).sum(dim=1) / 2
            for first in range(0, n, self._rows):
                x = self._points[first : min(n, first + self._rows)]
                pairs = self._pairs[: len(x)]
                torch.addmm(half, x, self._points.T, beta=-1, out=pairs)
                sums = pairs.sub_(half[first : first + len(x), None]).exp_() @ weighted
                torch.mul(x, sums[:, d:], out=gradient[first : first + len(x)]).sub_(sums[:, :d])
            self._points[:n] += schedule.step_size * 2 / self._length**2 * gradient

    def particles(self) -> NDArray[Any]:
        return (self._points[: self._problem.case.n_particles] * self._length).numpy()


class DualAscent:
    """Neurons of a block by one product; at a sample one product for both sums, then the weights in cache."""

    def __init__(self, problem: Problem, tune: bool) -> None:
        case = problem.case
        d = case.n_features
        self._case = case
        self._dtype = getattr(torch, case.dtype)
        _, self._forward, _ = ACTIVATIONS[case.activation]
        self._inputs = torch.from_numpy(problem.inputs)
        self._targets = problem.targets.tolist()
        self._weights = torch.from_numpy(problem.particles[:, :d].T.copy())
        self._bias = torch.from_numpy(problem.particles[:, d].copy())
        self._readout = torch.from_numpy(problem.particles[:, d + 1].copy()).tanh_()
        self._log_r, self._r = (torch.empty(case.n_particles, dtype=self._dtype) for _ in range(2))
        self._sums = torch.empty(2, dtype=self._dtype)
        keep_fastest(
            [(threads, rows) for threads in sorted({1, case.threads}) for rows in dual_blocks(case.n_samples)],
            tune,
            lambda variant: self._prepare(*variant),
            self.run,
        )

    def _prepare(self, threads: int, rows: int) -> None:
        self._threads, self._rows = threads, rows
        # (sample, ones and neurons, particle): one product with the weights gives both sums.
        self._pairs = torch.ones((rows, 2, self._case.n_particles), dtype=self._dtype)
        self._values = torch.empty((rows, self._case.n_particles), dtype=self._dtype)
        self.choice = f"blocks of {rows}, {threads} threads"
        self.reset()

    def reset(self) -> None:
        self._dual = [0.0] * self._case.n_samples
        self._log_r.fill_(0)
        self._r.fill_(1)

    @torch.inference_mode()
    def run(self, n_steps: int) -> None:
        torch.set_num_threads(self._threads)
        for _ in range(n_steps):
            for first in range(0, self._case.n_samples, self._rows):
                self._block(first)

    def _block(self, first: int) -> None:
        case = self._case
        x = self._inputs[first : first + self._rows]
        values, pairs = self._values[: len(x)], self._pairs[: len(x)]
        torch.addmm(self._bias, x, self._weights, out=values)
        self._forward(values, values)
        torch.mul(values, self._readout, out=pairs[:, 1])
        a = case.n_samples * DUAL_TEMPERATURE
        for i, pair in enumerate(pairs.unbind(), first):
            total, weighted = torch.mv(pair, self._r, out=self._sums).tolist()
            g = (self._dual[i] + a * (weighted / total - self._targets[i])) / (1 + a)
            self._log_r.add_(pair[1], alpha=(self._dual[i] - g) / a)
            self._dual[i] = g
            torch.exp(self._log_r, out=self._r)

    def dual(self) -> NDArray[Any]:
        return np.array(self._dual)

    def log_weights(self) -> NDArray[Any]:
        return self._log_r.numpy()


class Normals:
    def __init__(self, problem: Problem) -> None:
        case = problem.case
        self._threads = case.threads
        self._values = torch.empty((case.n_particles, case.n_features), dtype=getattr(torch, case.dtype))
        self.choice = "Tensor.normal_"

    def run(self, n_steps: int) -> None:
        torch.set_num_threads(self._threads)
        for _ in range(n_steps):
            self._values.normal_()

    def values(self) -> NDArray[Any]:
        return self._values.numpy()
