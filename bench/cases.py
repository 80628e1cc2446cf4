"""What is measured: the cases, their data, and the arithmetic that no implementation can avoid.

A case is a problem (particles, samples, features, outputs, activation, precision, batch) and nothing about how it is
run.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

THREADS = 2  # unless a case says otherwise


class Schedule(NamedTuple):
    step_size: float
    temperature: float


SCHEDULE = Schedule(step_size=1e-3, temperature=1e-4)
L2 = 1e-3
DUAL_TEMPERATURE = 0.05
FRICTION = 1.0  # of BAOAB

PASSES = {"plain": 1, "svrg": 2, "sarah": 2}
"""By estimator of the gradient: how often a step takes its particles, or those of a snapshot, through its rows.

A name in here may stand in `Case.estimator`; implementations that do it list it in their ``ESTIMATORS``.
"""


@dataclass(frozen=True)
class Case:
    """One problem at one size.

    ``batch_size`` 0 is the full batch. ``estimator`` is a key of `PASSES`: "plain" is the gradient of the rows,
    "svrg" and "sarah" correct the full gradient of an anchor by them, and their cases are steps between two refreshes.
    ``dynamics`` is "overdamped" or "baoab". A step of the group "P-SDCA" is an epoch: one visit of each sample's dual
    variable, between two refreshes. One of the group "MMD" is a step of descent along the gradient of the squared
    discrepancy from n_samples points, of a Gaussian kernel whose length is the root of n_features, without noise.
    ``peers`` is False where a case only asks how mfld's own time depends on a size.
    ``neighbour`` names the case whose time, in units of its floor, should predict this one's within ``cliff``.
    """

    group: str
    n_particles: int
    n_samples: int
    n_features: int
    activation: str = "tanh"
    batch_size: int = 0
    estimator: str = "plain"
    dynamics: str = "overdamped"
    n_outputs: int = 1
    dtype: str = "float32"
    threads: int = THREADS
    peers: bool = True
    neighbour: str | None = None
    cliff: float = 1.3

    @property
    def name(self) -> str:
        if self.group == "normals":
            return f"normals-{self.n_particles}x{self.n_features}-t{self.threads}{self._suffix}"
        if self.group == "P-SDCA":
            return f"psdca-{self.n_particles}x{self.n_samples}x{self.n_features}-{self.activation}{self._suffix}"
        if self.group == "MMD":
            return f"mmd-{self.n_particles}x{self.n_samples}x{self.n_features}{self._suffix}"
        estimator = "mini" if self.estimator == "plain" else self.estimator
        estimator = f"{estimator}{self.batch_size}" if self.batch_size else "full"
        size = f"{self.n_particles}x{self.n_samples}x{self.n_features}"
        outputs = f"-k{self.n_outputs}" if self.n_outputs > 1 else ""
        dynamics = "" if self.dynamics == "overdamped" else f"-{self.dynamics}"
        return f"{estimator}-{size}{outputs}-{self.activation}{dynamics}{self._suffix}"

    @property
    def _suffix(self) -> str:
        return "-f64" if self.dtype == "float64" else ""

    @property
    def n_coordinates(self) -> int:
        """Coordinates of a particle: weights, bias, readout."""
        return self.n_features if self.group in ("normals", "MMD") else self.n_features + 1 + self.n_outputs

    @property
    def loss(self) -> str:
        return "cross_entropy" if self.n_outputs > 1 else "half_squared"

    def work(self) -> dict[str, float]:
        """Multiply-adds (in flops), activations and normals of one step: two passes over particles times samples.

        A step of MMD makes for each pair of points the square of their difference, an exponential, and a product with
        the difference. An epoch of P-SDCA makes one pass, and weighs every particle anew at each sample: an
        exponential.

        Several outputs add three products of n_particles * rows * n_outputs: predictions, mixed cotangents, readout
        gradients. With one output these are part of the sweeps over activations and are not counted.
        """
        normals = float(self.n_particles * self.n_coordinates)
        if self.group == "normals":
            return {"multiply_add": 0.0, "activation": 0.0, "normals": normals}
        if self.group == "MMD":
            pairs = float(self.n_particles) * (self.n_particles + self.n_samples)
            return {"multiply_add": 4 * self.n_features * pairs, "exp": pairs}
        if self.group == "P-SDCA":
            pairs = float(self.n_particles) * self.n_samples
            return {"multiply_add": 2 * self.n_features * pairs, "activation": pairs, "exp": pairs}
        pairs = PASSES[self.estimator] * float(self.n_particles) * (self.batch_size or self.n_samples)
        outputs = 6 * self.n_outputs if self.n_outputs > 1 else 0
        return {"multiply_add": pairs * (4 * self.n_features + outputs), "activation": pairs, "normals": normals}

    def floor(self, ceilings: Mapping[tuple[str, str, int], float]) -> float | None:
        """Seconds of one step at the machine's ceilings, in ns^-1 each; None where a ceiling is not known."""
        total = 0.0
        for what, amount in self.work().items():
            rate = ceilings.get((self.activation if what == "activation" else what, self.dtype, self.threads))
            if rate is None:
                return None
            total += amount / rate * 1e-9
        return total


@dataclass(frozen=True)
class Problem:
    """A case with its data. Particles are rows (weights, bias, readout weights)."""

    case: Case
    inputs: NDArray[Any]
    targets: NDArray[Any]  # (n,), classes 0..K-1 as numbers for cross entropy
    particles: NDArray[Any]
    l2: float = L2
    anchor: NDArray[Any] | None = None  # of SVRG and SARAH: like the particles, and not far from them


def make_problem(case: Case) -> Problem:
    """The same data in every process: a pure function of the case."""
    rng = np.random.Generator(np.random.SFC64(20240229))
    n, d, k = case.n_samples, case.n_features, case.n_outputs
    if case.group == "normals":
        nothing = np.zeros((0, 0), case.dtype)
        return Problem(case, nothing, nothing, nothing)
    inputs = rng.standard_normal((n, d), np.float32).astype(case.dtype)
    targets = rng.integers(0, k, n) if k > 1 else np.tanh(inputs[:, 0]) + 0.1 * rng.standard_normal(n)
    particles = rng.standard_normal((case.n_particles, case.n_coordinates), np.float32).astype(case.dtype)
    if case.group == "MMD":
        return Problem(case, inputs, targets.astype(case.dtype), particles, l2=0.0)
    particles[:, :d] /= np.sqrt(d).astype(case.dtype)
    anchor = None
    if case.estimator != "plain":
        anchor = particles + 0.1 * rng.standard_normal(particles.shape, np.float32).astype(case.dtype)
    return Problem(case, inputs, targets.astype(case.dtype), particles, anchor=anchor)


SHAPES = (
    (1000, 1000, 10),
    (1000, 1000, 64),
    (4096, 1797, 64),
    (2000, 10000, 32),
    (10000, 2000, 100),
    (512, 60000, 784),
)
BATCHES = (32, 128)
DUAL_SHAPES = ((1000, 1024, 20), (1000, 1024, 100), (10000, 256, 20), (10000, 256, 100))
OTHER_ACTIVATIONS = ("leaky_relu", "sigmoid", "softplus", "erf", "gelu", "silu", "sin", "cos", "identity")


def all_cases() -> list[Case]:
    cases = [
        *(Case("full batch", *shape, activation) for shape in SHAPES for activation in ("tanh", "relu")),
        *(
            Case("mini-batch", *shape, activation, batch)
            for batch in BATCHES
            for shape in SHAPES
            for activation in ("tanh", "relu")
        ),
        *(Case("SVRG", *shape, "tanh", batch, estimator="svrg") for batch in BATCHES for shape in SHAPES),
        *(Case("P-SDCA", *shape) for shape in DUAL_SHAPES),
        Case("P-SDCA", *DUAL_SHAPES[0], dtype="float64"),
        *(Case("MMD", 2000, 2000, d) for d in (2, 10)),
        Case("MMD", 2000, 2000, 10, dtype="float64"),
        *(Case("normals", 10000, 0, 100, threads=threads) for threads in (1, THREADS)),
        *(Case("normals", 10000, 0, 100, threads=threads, dtype="float64") for threads in (1, THREADS)),
        *(Case("float64", *shape, dtype="float64", batch_size=batch) for shape in SHAPES[:5] for batch in (0, 32)),
        *(
            Case("ten outputs", *shape, n_outputs=10, batch_size=batch)
            for shape in ((1000, 1797, 64), (4096, 1797, 64))
            for batch in (0, 32)
        ),
        *(Case("activations", 1000, 1000, 64, activation) for activation in OTHER_ACTIVATIONS),
    ]

    # The neighbour of an odd or large size is the nearest one that was tuned for.
    def neighbours(group: str, cliff: float, *pairs: tuple[tuple[int, ...], tuple[int, ...]]) -> list[Case]:
        found = []
        for (*size, batch), (*near, near_batch) in pairs:
            neighbour = Case(group, *near, batch_size=near_batch, peers=False)
            case = Case(group, *size, batch_size=batch, peers=False, neighbour=neighbour.name, cliff=cliff)
            found += [neighbour, case]
        return found

    cases += neighbours(
        "odd and large",
        1.3,
        ((1001, 1797, 64, 0), (1000, 1797, 64, 0)),
        ((1000, 1797, 65, 0), (1000, 1797, 64, 0)),
        ((1001, 1797, 65, 0), (1000, 1800, 64, 0)),
        ((1001, 1797, 65, 33), (1000, 1800, 64, 32)),
        ((1000, 200000, 10, 0), (1000, 1000, 10, 0)),
        ((100000, 1000, 10, 0), (10000, 1000, 10, 0)),
        ((100000, 1000, 10, 32), (10000, 1000, 10, 32)),
        ((1000, 1000, 2000, 0), (1000, 1000, 200, 0)),
        ((1000, 1000, 2000, 32), (1000, 1000, 200, 32)),
    )
    cases += neighbours(
        "tiny",
        2.0,
        ((16, 20, 1, 0), (32, 40, 2, 0)),
        ((32, 20, 1, 0), (64, 40, 2, 0)),
        ((16, 1000, 10, 0), (32, 1000, 10, 0)),
        ((1000, 20, 10, 0), (1000, 40, 10, 0)),
        ((1000, 1000, 1, 0), (1000, 1000, 2, 0)),
        ((16, 1000, 10, 8), (32, 1000, 10, 8)),
    )
    for shape, batch in itertools.product(SHAPES[1:3], BATCHES):
        for estimator, dynamics, near in (("sarah", "overdamped", "svrg"), ("plain", "baoab", "plain")):
            neighbour = Case(near, *shape, batch_size=batch, estimator=near)
            case = replace(neighbour, group="SARAH and BAOAB", estimator=estimator, dynamics=dynamics, peers=False)
            cases.append(replace(case, neighbour=neighbour.name, cliff=1.2))
    unique: dict[str, Case] = {}
    for case in cases:
        known = unique.get(case.name)
        if known is None:
            unique[case.name] = case
        elif case.neighbour:
            unique[case.name] = replace(known, neighbour=case.neighbour, cliff=case.cliff)
    return list(unique.values())


QUICK = (
    "full-1000x1000x10-*",
    "full-4096x1797x64-*",
    "mini*-1000x1000x10-*",
    "mini*-4096x1797x64-tanh",
    "svrg*-1000x1000x64-*",
    "psdca-1000x1024x20-*",
    "mmd-2000x2000x*",
    "normals-10000x100-t1",
    "full-1000x1797x64-k10-tanh",
    "full-1000x1000x64-tanh",
    "full-1000x1000x64-gelu",
    "full-1001x1797x65-tanh",
    "full-1000x1800x64-tanh",
    "full-16x20x1-tanh",
    "full-32x40x2-tanh",
)
