"""State of a run: clouds of particles and the place in the noise; and what its last step saw."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from mfld import noise, validation
from mfld.validation import FloatArray

Buffers: TypeAlias = Mapping[str, np.typing.NDArray[Any]]
"""Arrays that estimators, dynamics and algorithms carry from step to step, by name."""


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Cloud:
    """An empirical measure ``mu = sum_m w_m delta(theta_m)``.

    Parameters
    ----------
    particles : array_like, shape (..., N, p)
        float32 and float64 are kept, other numbers become float64. Leading axes number several clouds of one kind.
    weights : array_like, shape (..., N), optional
        At least 0; they are normalised to sum 1. None stands for 1/N each.

    Both are read-only; an array that someone could still write to is copied.

    Raises
    ------
    TypeError, ValueError
        If an array has the wrong shape, is no array of reals, or is not finite, or a weight is negative.

    Examples
    --------
    >>> import mfld
    >>> cloud = mfld.Cloud([[0.0], [1.0]], weights=[1, 3])
    >>> cloud.mean(cloud.particles[:, 0])
    0.75
    """

    particles: FloatArray
    weights: FloatArray | None = None

    def __init__(self, particles: ArrayLike, weights: ArrayLike | None = None) -> None:
        checked = validation.array("particles", particles)
        if checked.ndim < 2 or 0 in checked.shape:
            raise ValueError(f"particles must have shape (..., N, p) with each at least 1, got {checked.shape}")
        if weights is not None:
            weights = validation.weights("weights", weights, checked.shape[:-1], "to match particles", checked.dtype)
            weights = validation.frozen(weights)
        object.__setattr__(self, "particles", validation.frozen(checked))
        object.__setattr__(self, "weights", weights)

    def __repr__(self) -> str:
        weighted = "" if self.weights is None else ", weighted"
        return f"Cloud({_size(self.particles)}, {self.particles.dtype}{weighted})"

    def __reduce__(self) -> tuple[type[Cloud], tuple[Any, ...]]:
        return Cloud, (self.particles, self.weights)  # so that copies and what is unpickled are read-only too

    def each(self) -> list[Cloud]:
        """All members of a cloud that has several, one by one, each with particles of shape (N, p)."""
        particles = self.particles.reshape(-1, *self.particles.shape[-2:])
        if self.weights is None:
            return [Cloud(own) for own in particles]
        return [Cloud(*own) for own in zip(particles, self.weights.reshape(-1, particles.shape[1]), strict=True)]

    def mean(self, values: ArrayLike) -> float:
        """Expectation ``E_mu f`` of a function from its values at the particles, shape (N,), of a single cloud."""
        return float(np.average(np.asarray(values, np.float64), weights=self.weights))


@dataclass(frozen=True, eq=False, repr=False)
class State:
    """All that a run needs to go on; State in, State out, and never changed in between.

    A state consists of arrays and scalars only. Two runs that go on from equal states are equal, bit by bit.

    Parameters
    ----------
    clouds : mapping of str to Cloud
        Particles have shape (replicates, N, p): independent repetitions of a run, side by side. Weights of particles
        and the arrays of buffers have that leading axis too. Axes between the two number members of a cloud, such as
        nodes of time: (replicates, ..., N, p).
    step : int
        Steps done so far; below 2**48.
    seed : int
        At least 0 and below 2**64.
    buffers : mapping of str to ndarray
        Whatever else an algorithm carries from step to step.
    replica : int or tuple of int
        Number of the first replicate, which with the seed is the key of its noise; those behind it count on. Or the
        number of each: replicates of one number have the same noise.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> solver = mfld.MFLD(n_particles=10, step_size=0.1, temperature=1.0)
    >>> state = solver.init(mfld.Potential(lambda x: x, n_coordinates=2), seed=0)
    >>> state.step, state.clouds["mu"].particles.shape, state.particles.shape
    (0, (1, 10, 2), (10, 2))
    """

    clouds: Mapping[str, Cloud]
    step: int
    seed: int
    buffers: Buffers = field(default_factory=dict)
    replica: int | tuple[int, ...] = 0

    def __post_init__(self) -> None:
        validation.instance("clouds", self.clouds, Mapping, "a mapping of names to clouds")
        validation.instance("buffers", self.buffers, Mapping, "a mapping of names to arrays")
        for name, cloud in self.clouds.items():
            validation.instance(f"clouds[{name!r}]", cloud, Cloud, "a Cloud")
            if cloud.particles.ndim < 3:
                got = cloud.particles.shape
                raise ValueError(f"clouds[{name!r}] must have particles of shape (replicates, ..., N, p), got {got}")
        lengths = {name: len(cloud.particles) for name, cloud in self.clouds.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"clouds must have the same number of replicates, got {lengths}")
        object.__setattr__(self, "clouds", MappingProxyType(dict(self.clouds)))
        object.__setattr__(self, "step", validation.integer("step", self.step, 0, validation.MAX_STEP))
        object.__setattr__(self, "seed", validation.seed(self.seed))
        numbers = noise.replicas(self.replica, self.n_replicates)
        counted = numbers == tuple(range(numbers[0], numbers[0] + len(numbers)))
        object.__setattr__(self, "replica", numbers[0] if counted else numbers)
        for name, value in self.buffers.items():
            validation.unmasked(f"buffers[{name!r}]", value)
        buffers = {name: validation.frozen(np.asarray(value)) for name, value in self.buffers.items()}
        object.__setattr__(self, "buffers", MappingProxyType(buffers))

    def __repr__(self) -> str:
        clouds = ", ".join(f"{name}: {_size(cloud.particles)}" for name, cloud in self.clouds.items())
        buffers = f"; buffers {', '.join(self.buffers)}" if self.buffers else ""
        return f"State(step {self.step}, seed {self.seed}; {clouds}{buffers})"

    def __reduce__(self) -> tuple[type[State], tuple[Any, ...]]:
        # Read-only mappings cannot be pickled; the constructor makes them again.
        return State, (dict(self.clouds), self.step, self.seed, dict(self.buffers), self.replica)

    def after(self, n_steps: int, clouds: Mapping[str, Cloud], buffers: Buffers) -> State:
        """The state of the same run so many steps later: how algorithms go on.

        What this state knows is not checked anew. The arrays of buffers become read-only, and are copied only where
        they are parts of others that are not.
        """
        for array in buffers.values():
            array.flags.writeable = False
        frozen = {entry: validation.frozen(array) for entry, array in buffers.items()}
        later = object.__new__(State)
        changed = {"clouds": MappingProxyType(dict(clouds)), "buffers": MappingProxyType(frozen)}
        vars(later).update(vars(self), step=self.step + n_steps, **changed)
        return later

    @property
    def n_replicates(self) -> int:
        """How many repetitions of the run stand side by side."""
        for cloud in self.clouds.values():
            return len(cloud.particles)  # they have the same number
        return 1

    @property
    def replicas(self) -> tuple[int, ...]:
        """Numbers of the replicates."""
        first = self.replica
        return first if isinstance(first, tuple) else tuple(range(first, first + self.n_replicates))

    @property
    def key(self) -> int:
        """Key of the noise of the first replicate, ``noise.key(seed, replica)``."""
        return noise.key(self.seed, self.replicas[0])

    @property
    def keys(self) -> list[int]:
        """Keys of the noise of all replicates."""
        return [noise.key(self.seed, number) for number in self.replicas]

    def place(self, cloud: str = "mu", replicate: int = 0, num_threads: int | None = None) -> noise.Place:
        """Place of a cloud's noise at the next step: its first member's population, and those of others follow it.

        Populations count the members of all clouds through, in the order of the clouds.

        Raises
        ------
        ValueError
            If there is no such cloud.
        """
        validation.choice("cloud", cloud, self.clouds)
        population = 0
        for name, other in self.clouds.items():
            if name == cloud:
                break
            population += math.prod(other.particles.shape[1:-2])
        key = noise.key(self.seed, self.replicas[replicate])
        return noise.Place(key, self.step, population, num_threads)

    def replicate(self, r: int) -> State:
        """One of the replicates, as the state that a run of it alone would have.

        Raises
        ------
        TypeError, ValueError
            If there is no such replicate.
        """
        r = validation.integer("r", r, 0, self.n_replicates - 1)
        if self.n_replicates == 1:
            return self
        return replace(
            self,
            clouds={
                name: Cloud(cloud.particles[r : r + 1], None if cloud.weights is None else cloud.weights[r : r + 1])
                for name, cloud in self.clouds.items()
            },
            buffers={name: value[r : r + 1] for name, value in self.buffers.items()},
            replica=self.replicas[r],
        )

    def each(self) -> list[State]:
        """All replicates, one by one."""
        return [self.replicate(r) for r in range(self.n_replicates)]

    @property
    def measure(self) -> Cloud:
        """The only cloud; of several replicates their mixture, in which all of them weigh the same.

        The predictions of the mixture are the mean of those of the replicates.
        """
        cloud = self._cloud
        particles, weights = cloud.particles, cloud.weights
        members, p = particles.shape[1:-2], particles.shape[-1]
        particles = np.moveaxis(particles, 0, -3).reshape(*members, -1, p)
        if weights is not None:
            weights = np.moveaxis(weights, 0, -2).reshape(*members, -1)
        return Cloud(particles, weights)

    @property
    def particles(self) -> FloatArray:
        """Particles of the only cloud, shape (..., N, p), read-only."""
        particles: FloatArray = self.only_cloud.particles[0]
        return particles

    @property
    def only_cloud(self) -> Cloud:
        """The only cloud, with its axis of one replicate."""
        cloud = self._cloud
        if len(cloud.particles) != 1:
            n = len(cloud.particles)
            raise ValueError(f"the state has {n} replicates: take one with .replicate(r), or all mixed with .measure")
        return cloud

    @property
    def _cloud(self) -> Cloud:
        if len(self.clouds) != 1:
            raise ValueError(f"the state has the clouds {', '.join(self.clouds)}: take one from .clouds")
        (cloud,) = self.clouds.values()
        return cloud


@dataclass(frozen=True)
class Info:
    """Numbers that the last step of a call saw: before its move, or at its end if its last gradient was taken there.

    Attributes
    ----------
    steps : int
        Steps of the call.
    loss : float
        U(mu), the objective without ridge and entropy; where the gradient comes from a batch that all particles share,
        the estimate from its rows. NaN without a step, and where the objective has no value.
    gradient_norm : float
        Root mean square over particles of ``|b|``, the gradient that the step used, ridge included. NaN without a step.
    step_size, temperature, l2 : float
        Those of the step. NaN without a step.
    acceptance : float
        Mean probability with which proposals of the call were accepted, where the dynamics has proposals; else NaN.
    gradient_variance : float
        Mean over particles of ``|estimate - full gradient|**2`` at the last step, where it was asked for; else NaN.
    replicates : tuple of Info
        Where there are several replicates, what each of them saw; the numbers above are then means.

    Examples
    --------
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, lambda x: (x**2).sum(axis=1) / 2, n_coordinates=2)
    >>> solver = mfld.MFLD(n_particles=1, step_size=0.1, temperature=1.0)
    >>> _, info = solver.advance(well, solver.init(well, particles=[[3.0, 4.0]]))
    >>> info.steps, info.loss, info.gradient_norm, info.step_size
    (1, 12.5, 5.0, 0.1)
    """

    steps: int
    loss: float = math.nan
    gradient_norm: float = math.nan
    step_size: float = math.nan
    temperature: float = math.nan
    l2: float = math.nan
    acceptance: float = math.nan
    gradient_variance: float = math.nan
    replicates: tuple[Info, ...] = field(default=(), repr=False)

    def each(self) -> tuple[Info, ...]:
        """Those of each replicate, also where there is one only."""
        return self.replicates or (self,)


def _size(particles: FloatArray) -> str:
    *leading, n, p = particles.shape
    sizes = [size for size in leading if size > 1]
    plural = "s" if math.prod([*sizes, n]) > 1 else ""
    return f"{' x '.join(map(str, [*sizes, n]))} particle{plural} of {p} coordinate{'s' if p > 1 else ''}"
