"""Spaces that particles live in: which coordinates move, and on which domain.

A domain is a tuple of blocks of coordinates, each `Euclidean`, a `Sphere`, a `Torus` or a `Box`; their product is where
the moving coordinates stay. Frozen coordinates come behind them and never change.

A step is made in the surrounding Euclidean space and then brought back by ``retract``. That keeps the weak order 1 of
the Euler-Maruyama scheme on each of these domains: on the sphere the projection of the step differs from the tangential
one by terms of mean zero and by the curvature's own drift, on a torus nothing is lost, and a box reflects. Source, for
the reflection: Bossy, Gobet, Talay 2004, "A symmetrized Euler scheme for an efficient approximation of reflected
diffusions".
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from mfld import _core, validation
from mfld.native import final
from mfld.noise import Place
from mfld.validation import FloatArray


class Block(ABC):
    """Some consecutive coordinates of a particle, and where they stay: a factor of a domain.

    Attributes
    ----------
    n_coordinates : int
        How many coordinates it takes.
    flat : bool
        True where steps need not be brought back: Euclidean space.
    kind : str or None
        Name under which the compiled core knows the block; None: it does not.
    """

    n_coordinates: int
    flat: ClassVar[bool] = False
    kind: ClassVar[str | None] = None

    @abstractmethod
    def retract(self, points: FloatArray) -> FloatArray:
        """The points of the block to which a step into the surrounding space leads, shape (..., n_coordinates)."""

    def tangent(self, points: FloatArray, vectors: FloatArray) -> FloatArray:
        """Parts of the vectors along the block, shape (..., n_coordinates)."""
        return vectors

    def along(self, points: FloatArray, vectors: FloatArray) -> FloatArray:
        """Points to which geodesics lead that start with these tangent vectors, in the time 1."""
        return self.retract(points + vectors)

    def difference(self, points: FloatArray, origin: FloatArray) -> FloatArray:
        """From one point to others, in the surrounding space; the shorter way where there are several."""
        return points - origin

    @property
    @abstractmethod
    def volume(self) -> float:
        """Length, area or volume; infinite where there is no uniform law."""

    @abstractmethod
    def draw(self, normals: FloatArray, uniforms: FloatArray) -> FloatArray:
        """Independent uniform draws from standard normals and uniform numbers, of which there is one a coordinate.

        Where there is no uniform law they are the normals.
        """

    @property
    def limits(self) -> tuple[FloatArray, FloatArray] | None:
        """Ends of the intervals in which the coordinates stay; None where they have none."""
        return None


@final
@dataclass(frozen=True)
class Euclidean(Block):
    """Euclidean space.

    Examples
    --------
    >>> import mfld
    >>> mfld.Euclidean(3).volume
    inf
    """

    n_coordinates: int
    flat: ClassVar[bool] = True
    kind: ClassVar[str | None] = "euclidean"

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_coordinates", validation.integer("n_coordinates", self.n_coordinates, 1))

    def retract(self, points: FloatArray) -> FloatArray:
        return points

    @property
    def volume(self) -> float:
        return math.inf

    def draw(self, normals: FloatArray, uniforms: FloatArray) -> FloatArray:
        return normals


@final
@dataclass(frozen=True)
class Sphere(Block):
    """Unit sphere of a Euclidean space with so many coordinates: ``|theta| = 1``.

    Examples
    --------
    >>> import mfld
    >>> sphere = mfld.Sphere(2)
    >>> sphere.retract([[3.0, 4.0]])
    array([[0.6, 0.8]])
    >>> round(sphere.volume, 4)
    6.2832
    """

    n_coordinates: int
    kind: ClassVar[str | None] = "sphere"

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_coordinates", validation.integer("n_coordinates", self.n_coordinates, 2))

    def retract(self, points: FloatArray) -> FloatArray:
        # The origin leads nowhere, and neither does a point whose length overflows: found as particles not finite.
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            length = np.sqrt(np.sum(np.square(points), axis=-1, keepdims=True))
            unit: FloatArray = points / np.where(np.isfinite(length), length, np.nan)
        return unit

    def tangent(self, points: FloatArray, vectors: FloatArray) -> FloatArray:
        along: FloatArray = vectors - np.sum(vectors * points, axis=-1, keepdims=True) * points
        return along

    def along(self, points: FloatArray, vectors: FloatArray) -> FloatArray:
        angle = np.sqrt(np.sum(np.square(vectors), axis=-1, keepdims=True))
        turned: FloatArray = np.cos(angle) * points + np.sinc(angle / np.pi) * vectors
        return self.retract(turned)

    @property
    def volume(self) -> float:
        d = self.n_coordinates
        return 2 * math.pow(math.pi, d / 2) / math.gamma(d / 2)

    def draw(self, normals: FloatArray, uniforms: FloatArray) -> FloatArray:
        return self.retract(normals)


@final
@dataclass(frozen=True)
class Torus(Block):
    """Torus: so many coordinates modulo the period, in [0, period).

    Examples
    --------
    >>> import mfld
    >>> mfld.Torus(1, period=2.0).retract([[2.5], [-0.5]])
    array([[0.5],
           [1.5]])
    """

    n_coordinates: int
    period: float = 1.0
    kind: ClassVar[str | None] = "torus"

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_coordinates", validation.integer("n_coordinates", self.n_coordinates, 1))
        object.__setattr__(self, "period", validation.real("period", self.period, positive=True))

    def retract(self, points: FloatArray) -> FloatArray:
        points = np.asarray(points)
        period = points.dtype.type(self.period)
        with np.errstate(invalid="ignore"):
            wrapped = points - period * np.floor(points / period)
            # Rounding may lead up to the period itself, from just below 0.
            return np.where(wrapped >= period, points.dtype.type(0), wrapped)

    def difference(self, points: FloatArray, origin: FloatArray) -> FloatArray:
        half = self.period / 2
        return self.retract(points - origin + half) - half

    @property
    def volume(self) -> float:
        return math.pow(self.period, self.n_coordinates)

    def draw(self, normals: FloatArray, uniforms: FloatArray) -> FloatArray:
        return self.retract(uniforms * uniforms.dtype.type(self.period))

    @property
    def limits(self) -> tuple[FloatArray, FloatArray]:
        return np.zeros(self.n_coordinates), np.full(self.n_coordinates, self.period)


@final
@dataclass(frozen=True)
class Box(Block):
    """Box of intervals, at whose faces steps are reflected.

    Parameters
    ----------
    lower, upper : sequence of float
        Ends of each interval, lower < upper.

    Examples
    --------
    >>> import mfld
    >>> mfld.Box([0.0, 0.0], [1.0, 2.0]).retract([[1.25, -0.5]])
    array([[0.75, 0.5 ]])
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    kind: ClassVar[str | None] = "box"

    def __post_init__(self) -> None:
        lower, upper = (
            np.atleast_1d(validation.array(name, getattr(self, name), np.float64)) for name in ("lower", "upper")
        )
        validation.shape("lower", lower, ("m",))
        validation.shape("upper", upper, lower.shape, "to match lower")
        if not (lower < upper).all():
            raise ValueError(f"upper must be above lower in each coordinate, got {lower.tolist()} and {upper.tolist()}")
        object.__setattr__(self, "lower", tuple(lower.tolist()))
        object.__setattr__(self, "upper", tuple(upper.tolist()))

    @property
    def n_coordinates(self) -> int:  # type: ignore[override]
        return len(self.lower)

    def retract(self, points: FloatArray) -> FloatArray:
        points = np.asarray(points)
        lower, upper = (end.astype(points.dtype) for end in self.limits)
        width = upper - lower
        with np.errstate(invalid="ignore"):
            # Reflections at both ends unfold to a period of two widths.
            turns = (points - lower) / (2 * width)
            phase = 2 * width * (turns - np.floor(turns))
            return np.clip(lower + np.minimum(phase, 2 * width - phase), lower, upper)

    @property
    def volume(self) -> float:
        return math.prod(b - a for a, b in zip(self.lower, self.upper, strict=True))

    def draw(self, normals: FloatArray, uniforms: FloatArray) -> FloatArray:
        lower, upper = (end.astype(uniforms.dtype) for end in self.limits)
        return np.clip(lower + (upper - lower) * uniforms, lower, upper)

    @property
    def limits(self) -> tuple[FloatArray, FloatArray]:
        return np.array(self.lower), np.array(self.upper)


@dataclass(frozen=True, init=False)
class Space:
    """Coordinates of a particle, those that move first, and the domain that they stay on.

    Parameters
    ----------
    n_coordinates : int, optional
        Length p of a particle; by default that of the domain.
    n_moving : int, optional
        Leading coordinates that move; those behind them are frozen. By default those of the domain, or else all.
    domain : sequence of blocks, optional
        Blocks of the moving coordinates, in their order: `Euclidean`, `Sphere`, `Torus`, `Box`. By default Euclidean.

    Attributes
    ----------
    flat : bool
        True where all of the domain is Euclidean, so that steps need not be brought back.
    in_core : bool
        True where the compiled core knows all blocks.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or the numbers do not fit.

    Examples
    --------
    >>> import mfld
    >>> mfld.Space(3, n_moving=2).n_frozen
    1
    >>> space = mfld.Space(domain=[mfld.Sphere(3), mfld.Euclidean(1)])     # lifted: a direction and a mass
    >>> space.n_coordinates, space.flat
    (4, False)
    """

    n_coordinates: int
    n_moving: int
    domain: tuple[Block, ...]
    flat: bool = field(compare=False, repr=False)
    in_core: bool = field(compare=False, repr=False)

    def __init__(
        self, n_coordinates: int | None = None, n_moving: int | None = None, *, domain: Sequence[Block] = ()
    ) -> None:
        validation.instance("domain", domain, Sequence, "a sequence of blocks, like [Sphere(3), Euclidean(1)]")
        blocks = tuple(domain)
        for number, block in enumerate(blocks):
            validation.instance(f"domain[{number}]", block, Block, "a block, like Sphere(3)")
        covered = sum(block.n_coordinates for block in blocks)
        if n_coordinates is None and not blocks:
            raise ValueError("n_coordinates must be given where there is no domain, got None")
        p = covered if n_coordinates is None else validation.integer("n_coordinates", n_coordinates, max(1, covered))
        m = (covered or p) if n_moving is None else validation.integer("n_moving", n_moving, 1, p)
        if blocks and m != covered:
            raise ValueError(f"n_moving must be {covered}, the number of coordinates of the domain, got {m}")
        object.__setattr__(self, "n_coordinates", p)
        object.__setattr__(self, "n_moving", m)
        object.__setattr__(self, "domain", blocks or (Euclidean(m),))
        object.__setattr__(self, "flat", all(block.flat for block in self.domain))
        object.__setattr__(self, "in_core", all(block.kind is not None for block in self.domain))

    @property
    def n_frozen(self) -> int:
        """Coordinates behind the moving ones, which never change."""
        return self.n_coordinates - self.n_moving

    @property
    def volume(self) -> float:
        """Volume of the domain; infinite where a block is Euclidean."""
        return math.prod(block.volume for block in self.domain)

    def parts(self) -> Iterator[tuple[Block, slice]]:
        """Blocks with the coordinates that they take."""
        start = 0
        for block in self.domain:
            yield block, slice(start, start + block.n_coordinates)
            start += block.n_coordinates

    def native(self) -> _core.Domain | None:
        """The domain as the compiled core takes it; None where it brings nothing back, `flat` or not `in_core`."""
        if self.flat or not self.in_core:
            return None
        domain = _core.Domain()
        for block in self.domain:
            lower, upper = ([], []) if block.limits is None else (end.tolist() for end in block.limits)
            domain.add(str(block.kind), block.n_coordinates, lower, upper)
        return domain

    def retract(self, theta: FloatArray) -> FloatArray:
        """Points of the domain to which steps lead; moving coordinates only, shape (..., n_moving)."""
        if self.flat:
            return theta
        return np.concatenate([block.retract(theta[..., part]) for block, part in self.parts()], axis=-1)

    def tangent(self, theta: FloatArray, vectors: FloatArray) -> FloatArray:
        """Parts of vectors along the domain; moving coordinates only, shape (..., n_moving)."""
        if self.flat:
            return vectors
        parts = [block.tangent(theta[..., part], vectors[..., part]) for block, part in self.parts()]
        return np.concatenate(parts, axis=-1)

    def draw(self, place: Place, n_particles: int, dtype: DTypeLike = "float32") -> FloatArray:
        """Independent draws, shape (n_particles, n_coordinates): uniform on bounded blocks, elsewhere standard normal.

        Stream ``init``.
        """
        n_particles = validation.integer("n_particles", n_particles, 1)
        normals = place.normals(n_particles, self.n_coordinates, validation.float_dtype("dtype", dtype), "init")
        if self.flat:
            return normals
        # Of another step of the stream, so that they share nothing with the normals and with initial velocities.
        uniforms = place.ahead(2).uniforms(n_particles, self.n_moving, dtype, "init")
        for block, part in self.parts():
            normals[:, part] = block.draw(normals[:, part], uniforms[:, part])
        return normals


def given(n_coordinates: int | None, n_moving: int | None, space: Space | None) -> Space:
    """The space of an object that takes it as a whole or by its numbers."""
    if space is None:
        if n_coordinates is None:
            raise ValueError("n_coordinates must be given, or space; got neither")
        return Space(n_coordinates, n_moving)
    validation.instance("space", space, Space, "a Space")
    if n_coordinates is not None or n_moving is not None:
        raise ValueError(f"n_coordinates and n_moving must be left out where space is given, got {space}")
    return space
