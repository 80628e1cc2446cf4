"""The noise, which is a pure function.

There is no generator and no generator state. Every random number of the library is a function of *what it is for*: the
counter-based generator Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3")
encrypts a counter of four 32-bit words under a key of 64 bits.

========  ======================================================
key       ``key(seed, replica)``, a hash of the two
word 0    particle
word 1    block of coordinates (24 bits), stream (8 bits)
word 2    step, low 32 bits
word 3    step, high 16 bits; population (16 bits)
========  ======================================================

*Streams* say what a number is for; *populations* number clouds of particles that move side by side, and their members
where they have several; *replicas* number independent repetitions of a run. Initial particles of replica r > 0 are
those of the seed ``key(seed, r)``. A `Place` holds key, step and population, and draws.

====================  ==================================================
``init``              initial particles
``move``              the noise of a step
``batch``             the rows of a mini-batch
``acceptance``        accept or reject (Metropolis)
``label_noise``       noise put on targets
``coordinate_order``  the order in which coordinates are visited
``smoothing``         where a smoothed gradient is taken (`mfld.Smoothed`)
``thinning``          the signs of kernel thinning (`mfld.thinning`)
``data``              made data and streams of samples, which no run uses
====================  ==================================================

Clouds and their members have the populations from 0 on, in their order. What else the library draws under the key of a
seed has one of its own, from the top of the 16 bits down (`POPULATIONS`), so that no two purposes share numbers.

A normal takes a fixed number of words, so that nothing depends on what was drawn before. Hence a run has the same bits
for any number of threads, continuing equals restarting, and particle 7 of a run with 100 particles sees the noise of
particle 7 of a run with 1000. The noise depends neither on the objective nor on the activation. The layout and the
numbers of the streams belong to every published result: a change of them is announced in the changelog.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mfld import _core, validation
from mfld._core import _binding
from mfld.validation import FloatArray

STREAMS: Final[dict[str, int]] = dict(_binding.streams())
_MAX_POPULATION = 2**16 - 1
POPULATIONS: Final[dict[str, int]] = {
    purpose: _MAX_POPULATION - number
    for number, purpose in enumerate(
        (
            "certificate",  # the chains of a certificate
            "log_partition",  # those of a partition function
            "output",  # of PDA: whether it is the particles of a step
            "resampling",  # of PSDCA, within its runs
            "resample",  # of a cloud
            "directions",  # of a sliced distance
            "step_law",  # draws of one more step, for its functionals
            "interaction",  # which particles or features stand for all in a step
            "annealing",  # resampling on the ladder of a certificate
            "history",  # of a game: which particles enter the average over time
            "replaced",  # of a game: which particles give way to best responses
            "wells",  # of a certificate: where they are looked for, and their masses
            "corrector",  # of a diffusion: Langevin steps between those of the way back
            "inpainting",  # of a diffusion: the noise of what is known
            "denoising",  # of a diffusion: which points, times and labels a score is trained on
            "probes",  # of a diffusion: directions for the trace of a derivative
            "waves",  # of a diffusion: wave vectors of inputs
            "latent",  # of a generator: where a step evaluates it
            "between",  # data and generated points that a gradient penalty lies between
            "generated",  # points that a generator is asked for
        )
    )
}
"""Populations that are no clouds: what the library draws beside the particles of a run."""
_MAX_MEMBER = min(POPULATIONS.values()) - 1


class Coupling(NamedTuple):
    """Noise of a run that is made of the noise of another one, so that the two differ little.

    Its particles are those of a part of the other run: the ``part``-th of ``parts`` equal ones. One of its steps takes
    as long as ``coarser`` steps of the other run, and its normals are their sums, over ``sqrt(coarser)``. Or two of its
    steps (``finer=2``) take as long as one: their normals are ``(xi + zeta) / sqrt(2)`` and ``(xi - zeta) / sqrt(2)``,
    with zeta from a key of its own. Either way all normals are independent and N(0, 1), and runs of two step sizes
    follow the same Brownian path. What else a step draws is that of a step of the other run that begins no later.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import noise
    >>> place = noise.Place.of(seed=3)
    >>> coarse = place._replace(coupling=noise.Coupling(place.key, coarser=2))
    >>> sum_of_two = place.normals(5, 1) + place.ahead(1).normals(5, 1)
    >>> np.allclose(coarse.normals(5, 1), sum_of_two / np.sqrt(2))
    True
    """

    key: int
    coarser: int = 1
    finer: int = 1
    part: int = 0
    parts: int = 1

    def there(self, place: Place) -> Place:
        """The place, in the other run, of the step that a step of this one begins in."""
        return place._replace(key=self.key, step=place.step * self.coarser // self.finer, coupling=None)

    def taken(self, drawn: NDArray[Any]) -> NDArray[Any]:
        """The own part of what was drawn for all particles of the other run: rows along the axis before the last."""
        share = drawn.shape[-2] // self.parts
        return np.ascontiguousarray(drawn[..., self.part * share : (self.part + 1) * share, :])

    def drawn(self, place: Place, stream: str, draw: Callable[[Place], FloatArray]) -> FloatArray:
        """Numbers of a stream, from a function that draws them for all particles at a place of the other run."""
        there = self.there(place)
        if stream == "init":  # which has no steps
            return self.taken(draw(there._replace(step=place.step)))
        if stream != "move" or self.coarser == self.finer == 1:
            return self.taken(draw(there))
        if self.finer == 1:
            return self.taken(_normalised(*(draw(there.ahead(i)) for i in range(self.coarser))))
        xi, zeta = draw(there), draw(there._replace(key=key(self.key, 1)))
        return self.taken(_normalised(xi, zeta if place.step % 2 == 0 else -zeta))


def _normalised(*normals: FloatArray) -> FloatArray:
    total = sum(normals[1:], start=normals[0])
    return np.asarray(total * total.dtype.type(1 / math.sqrt(len(normals))))


class Place(NamedTuple):
    """Place in the noise: the key, the step and the population of the numbers that are meant.

    It is what objectives, estimators and dynamics draw from. ``num_threads`` says on how many threads (None: as many as
    OpenMP would take), which changes no number. With a ``coupling`` the numbers are made of those of another run.
    Normals and uniforms are those of the particles from the ``first`` on.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import noise
    >>> place = noise.Place.of(seed=3, step=10)
    >>> np.array_equal(place.normals(5, 4), noise.normals(seed=3, step=10, n_particles=5, n_coordinates=4))
    True
    """

    key: int
    step: int
    population: int = 0
    num_threads: int | None = None
    coupling: Coupling | None = None
    first: int = 0

    @classmethod
    def of(cls, seed: int, replica: int = 0, *, step: int = 0, num_threads: int | None = None) -> Place:
        """Place of a run with this seed, at one of its steps."""
        return cls(key(seed, replica), step, 0, num_threads)

    def ahead(self, n_steps: int) -> Place:
        """The same place, so many steps later."""
        return self._replace(step=self.step + n_steps)

    def member(self, number: int) -> Place:
        """Place of another population: of a member of a cloud that has several, by its number.

        Raises
        ------
        ValueError
            If there are too many: the last populations are the library's own.
        """
        if self.population + number > _MAX_MEMBER:
            raise ValueError(f"members of all clouds must be at most {_MAX_MEMBER + 1} together, got more")
        return self._replace(population=self.population + number)

    def of_members(self, members: Sequence[int]) -> tuple[int, int, int, int]:
        """Key, step, first population and threads, as the core takes them; so many members along each axis.

        Raises
        ------
        ValueError
            As `member` does.
        NotImplementedError
            If the noise here is that of another run, which kernels that draw by themselves do not know.
        """
        if self.coupling is not None:
            raise NotImplementedError("a kernel that draws by itself knows no coupled noise")
        if members:
            self.member(math.prod(members) - 1)
        return self.key, self.step, self.population, self.threads

    def beside(self, purpose: str) -> Place:
        """Place of what is no cloud: a purpose among `POPULATIONS`."""
        return self._replace(population=POPULATIONS[purpose])

    def normals(
        self, n_particles: int, n_coordinates: int, dtype: DTypeLike = "float32", stream: str = "move"
    ) -> FloatArray:
        """Standard normals, shape (n_particles, n_coordinates)."""
        return self._drawn(_core.backend.normals, n_particles, n_coordinates, dtype, stream, ())

    def normals_like(self, particles: FloatArray, n_coordinates: int, stream: str = "move") -> FloatArray:
        """Standard normals in the precision of particles, a row for each: shape (..., N, n_coordinates).

        Leading axes of the particles number members, each with a population of its own.
        """
        *members, n, _ = particles.shape
        return self._drawn(_core.backend.normals, n, n_coordinates, particles.dtype, stream, members)

    def uniforms(
        self, n_particles: int, n_coordinates: int, dtype: DTypeLike = "float64", stream: str = "acceptance"
    ) -> FloatArray:
        """Uniform numbers in (0, 1), shape (n_particles, n_coordinates)."""
        return self._drawn(_core.backend.uniforms, n_particles, n_coordinates, dtype, stream, ())

    def _drawn(
        self,
        kernel: Callable[..., FloatArray],
        n_particles: int,
        n_coordinates: int,
        dtype: DTypeLike,
        stream: str,
        members: Sequence[int],
    ) -> FloatArray:
        if self.coupling is not None:
            n = n_particles * self.coupling.parts
            return self.coupling.drawn(
                self, stream, lambda place: place._drawn(kernel, n, n_coordinates, dtype, stream, members)
            )
        key, step, population, threads = self.of_members(members)
        own = np.dtype(dtype), STREAMS[stream], population, threads, members, self.first
        return kernel(key, step, n_particles, n_coordinates, *own)

    def batch(self, n: int, batch_size: int) -> NDArray[np.int64]:
        """Rows of a mini-batch: ``batch_size`` of n without replacement."""
        if self.coupling is not None:
            return self.coupling.there(self).batch(n, batch_size)
        return _core.backend.batch(self.key, self.step, n, batch_size, self.population)

    def particle_batches(self, n: int, batch_size: int, n_particles: int) -> NDArray[np.int64]:
        """Rows of a mini-batch for each particle, shape (n_particles, batch_size)."""
        if self.coupling is not None:
            n_there = n_particles * self.coupling.parts
            return self.coupling.taken(self.coupling.there(self).particle_batches(n, batch_size, n_there))
        return _core.backend.particle_batches(
            self.key, self.step, n, batch_size, n_particles, self.population, self.threads
        )

    @property
    def threads(self) -> int:
        """Number of threads for what is drawn, and for what is computed beside."""
        return _core.backend.max_threads() if self.num_threads is None else self.num_threads


def start(place: Place | int) -> Place:
    """The place of initial particles: as it is, or of a seed."""
    return place if isinstance(place, Place) else Place.of(place)


def initial(seed: int, replica: int, num_threads: int | None = None) -> Place:
    """The place of the initial particles of a replicate: those of replica r > 0 are of the seed ``key(seed, r)``."""
    return Place.of(key(seed, replica) if replica else seed, num_threads=num_threads)


def replicas(replica: int | Sequence[int], n_replicates: int) -> tuple[int, ...]:
    """Numbers of so many replicates: as they are given, or counted on from the first."""
    if isinstance(replica, Sequence):
        numbers = tuple(validation.seed(own, f"replica[{r}]") for r, own in enumerate(replica))
        if len(numbers) != n_replicates:
            raise ValueError(f"replica must be one number, or one for each of {n_replicates} replicates, got {numbers}")
        return numbers
    first = validation.seed(replica, "replica")
    return tuple(range(first, first + n_replicates))


_key = functools.lru_cache(_core.backend.noise_key)  # every call of an algorithm asks for it


def key(seed: int, replica: int = 0) -> int:
    """Key of the noise: a 64-bit hash of the seed and of the number of the replica.

    Parameters
    ----------
    seed, replica : int
        Each at least 0 and below 2**64.

    Raises
    ------
    TypeError, ValueError
        If one of them is no integer or out of range.

    Examples
    --------
    >>> from mfld import noise
    >>> noise.key(0) == noise.key(0, replica=1)
    False
    """
    return _key(validation.seed(seed), validation.seed(replica, "replica"))


def normals(
    seed: int,
    step: int,
    n_particles: int,
    n_coordinates: int,
    *,
    dtype: DTypeLike = "float32",
    stream: str = "move",
    population: int = 0,
    replica: int = 0,
    num_threads: int | None = None,
) -> FloatArray:
    """Standard normals of one step: with the default stream, the ``xi`` that a run with this seed adds at this step.

    A run has ``n_coordinates = objective.n_moving``: frozen coordinates take no noise.

    Parameters
    ----------
    seed, replica : int
        Those of the run.
    step : int
        Count of the step, from 0; below 2**48.
    n_particles, n_coordinates : int
        Shape of the result. The leading rows and columns do not depend on it.
    dtype : {"float32", "float64"}
        float32 and float64 are two different sequences: each is as random as its precision allows.
    stream : str
        What the numbers are for: a name among ``mfld.noise.STREAMS``.
    population : int
        Number of the cloud, below 2**16.
    num_threads : int, optional
        It never changes a number.

    Returns
    -------
    ndarray, shape (n_particles, n_coordinates)

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import noise
    >>> xi = noise.normals(seed=3, step=10, n_particles=1000, n_coordinates=4)
    >>> np.array_equal(xi[:5], noise.normals(seed=3, step=10, n_particles=5, n_coordinates=4))
    True
    """
    return _core.backend.normals(
        key(seed, replica),
        validation.integer("step", step, 0, validation.MAX_STEP),
        validation.integer("n_particles", n_particles, 1),
        validation.integer("n_coordinates", n_coordinates, 1),
        validation.float_dtype("dtype", dtype),
        STREAMS[validation.choice("stream", stream, STREAMS)],
        validation.integer("population", population, 0, _MAX_POPULATION),
        validation.num_threads(num_threads),
    )


def minibatch(
    seed: int, step: int, n: int, batch_size: int, *, population: int = 0, replica: int = 0
) -> NDArray[np.int64]:
    """Rows of the mini-batch that a run with this seed uses at this step: drawn without replacement, all sets alike.

    Parameters
    ----------
    seed, step, population, replica : int
        As in `normals`.
    n : int
        Number of samples.
    batch_size : int
        Rows to draw, at most ``n``.

    Returns
    -------
    ndarray of int64, shape (batch_size,)
        Distinct rows among 0..n-1.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import noise
    >>> rows = noise.minibatch(seed=0, step=5, n=100, batch_size=10)
    >>> len(set(rows.tolist()))
    10
    """
    n = validation.integer("n", n, 1)
    return _core.backend.batch(
        key(seed, replica),
        validation.integer("step", step, 0, validation.MAX_STEP),
        n,
        validation.integer("batch_size", batch_size, 1, n),
        validation.integer("population", population, 0, _MAX_POPULATION),
    )
