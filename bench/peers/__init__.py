"""The implementations that are compared: mfld itself, and NumPy, PyTorch and JAX, each in a file of its own.

Each is a class with the interface of `Implementation`, written as its users would write it for speed: whole steps
without Python in them where the library can, buffers that stay, chunks of samples where that is faster, and its own
best generator.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from cases import SCHEDULE, Problem, Schedule
from numpy.typing import NDArray


class Implementation(Protocol):
    """A problem, made ready to run.

    The constructor does all that is done once: copies, buffers, compilation, and with ``tune`` the choice among
    variants by their time.
    """

    choice: str  # what the constructor chose, for the record

    def __init__(self, problem: Problem, tune: bool) -> None: ...

    def reset(self) -> None:
        """Go back to the initial particles."""

    def run(self, n_steps: int, schedule: Schedule = SCHEDULE, rows: NDArray[np.int64] | None = None) -> None:
        """Make steps.

        The check of the answers takes another schedule, and gives the rows of the mini-batches, shape
        (n_steps, batch_size). Those of one's own may be drawn with replacement, which is cheaper.
        """

    def particles(self) -> NDArray[Any]:
        """Rows (weights, bias, readout weights)."""


class DualAscent(Protocol):
    """P-SDCA without refreshes: a step is an epoch, a visit of each sample in turn. Same interface without a schedule.

    The dual variables start at 0 and the log-weights too. Per sample, with s = 1/n and the half squared loss::

        u = sum_m r_m h_m / sum_m r_m,       h_m = tanh(readout_m) tanh(w_m.z + b_m)
        g' = (g + a (u - y)) / (1 + a),      a = n temperature
        log r_m -= s h_m (g' - g) / temperature
    """

    choice: str

    def __init__(self, problem: Problem, tune: bool) -> None: ...

    def reset(self) -> None:
        """Go back to the start."""

    def run(self, n_steps: int) -> None: ...

    def dual(self) -> NDArray[Any]:
        """Dual variables, (n,)."""

    def log_weights(self) -> NDArray[Any]:
        """Logarithms of the r_m, (N,), up to one constant."""


class Descent(Protocol):
    """Descent of the squared maximum mean discrepancy from the inputs. Same interface as `Implementation`, no noise.

    Of the Gaussian kernel ``exp(-|x - y|^2 / (2 d))`` in d dimensions: with the weights c = 1/N at the particles and
    -1/n at the inputs, y over both::

        x_i -= step_size * gradient_i,      gradient_i = -(2 / d) sum_y c_y exp(-|x_i - y|^2 / (2 d)) (x_i - y)
    """

    choice: str

    def __init__(self, problem: Problem, tune: bool) -> None: ...

    def reset(self) -> None: ...

    def run(self, n_steps: int, schedule: Schedule = SCHEDULE) -> None: ...

    def particles(self) -> NDArray[Any]: ...


class Normals(Protocol):
    """A generator: a "step" makes an array of normals once. Same interface, without particles."""

    choice: str

    def __init__(self, problem: Problem) -> None: ...

    def run(self, n_steps: int) -> None: ...

    def values(self) -> NDArray[Any]: ...


MODULES = {"mfld": "mfld", "numpy": "numpy", "torch": "torch", "jax": "jax"}
"""Name of an implementation, and the package that it needs."""


def installed(name: str) -> bool:
    return importlib.util.find_spec(MODULES[name]) is not None


def make(name: str, problem: Problem, tune: bool = True) -> Any:
    """Make an implementation ready; None where it does not do this problem."""
    module = importlib.import_module(f"peers.{name}_peer")
    if problem.case.group == "normals":
        return module.Normals(problem)
    if problem.case.group == "P-SDCA":
        return module.DualAscent(problem, tune)
    if problem.case.group == "MMD":
        return module.Descent(problem, tune)
    if problem.case.activation not in module.ACTIVATIONS:
        return None
    if problem.case.estimator not in getattr(module, "ESTIMATORS", ("plain",)):
        return None
    return module.Network(problem, tune)


def draw_rows(rng: np.random.Generator, problem: Problem, n_steps: int) -> NDArray[np.int64]:
    """Mini-batches of all steps of a call at once, with replacement."""
    return rng.integers(0, len(problem.inputs), (n_steps, problem.case.batch_size))


TUNING_ROWS = 8192
"""Variants are tried on so many samples: the cost of a step is linear in them."""


def chunk_candidates(n_rows: int, n_particles: int, itemsize: int) -> list[int]:
    """Rows of a chunk worth trying: its activations in the second-level cache, in the third, or beyond."""
    candidates = [max(16, size // (n_particles * itemsize)) for size in (2**19, 2**21, 2**23, 2**25)]
    return sorted({min(n_rows, rows) for rows in candidates})


def dual_blocks(n_samples: int) -> list[int]:
    """Samples whose neurons are worth making by one product, before they are visited one by one.

    Two blocks at least: XLA would take a single one out of the loop over epochs.
    """
    return [rows for rows in (16, 64, 256) if 2 * rows <= n_samples]


def keep_fastest(
    variants: Sequence[Any], tune: bool, prepare: Callable[[Any], None], run: Callable[[int], None]
) -> None:
    """Prepare the variant whose steps take the least time; the first one without ``tune``."""
    times = {}
    for variant in variants if tune and len(variants) > 1 else ():
        prepare(variant)
        run(1)
        steps = 1
        while variant not in times:
            begin = time.perf_counter()
            run(steps)
            taken = time.perf_counter() - begin
            if taken > 0.02:
                times[variant] = taken / steps
            steps *= 4
    prepare(min(times, key=times.__getitem__) if times else variants[0])
