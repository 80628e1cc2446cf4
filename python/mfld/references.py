"""Reference measures: what regularises, beside the entropy.

A problem is to minimise ``U(mu) + temperature * KL(mu | reference)``, which is ``F(mu) + temperature * Ent(mu)`` up to
a constant with ``F(mu) = U(mu) + E_mu energy``: the reference has the density ``exp(-energy / temperature)`` over its
normaliser. All act on the moving coordinates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mfld import validation
from mfld.noise import Place
from mfld.space import Space
from mfld.validation import FloatArray


class Reference(ABC):
    """Measure of density ``exp(-energy(theta) / temperature)``, up to its normaliser, on the moving coordinates.

    The energy is ``l2 |theta|**2``, which subclasses may not change: with another one the problem is the same as with
    that energy in the objective.

    Attributes
    ----------
    l2 : float
        Coefficient of ``|theta|**2`` in the energy, without a factor 1/2; 0 where there is none.
    proper : bool
        True where it is a probability measure, which can be drawn from.
    """

    l2: float = 0.0
    proper: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        for name in ("energy", "gradient"):
            if name in vars(cls):
                raise TypeError(
                    f"{cls.__name__} must not define {name}: steps take the l2 of a reference and nothing else, so its "
                    "energy is l2 |theta|**2. Any other energy belongs to the loss and loss_gradient of the objective"
                )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(l2={self.l2:g})"

    def energy(self, theta: FloatArray) -> FloatArray:
        """``l2 |theta|**2`` at points, shape (..., n_moving) -> (...)."""
        energies: FloatArray = theta.dtype.type(self.l2) * np.sum(theta**2, axis=-1)
        return energies

    def gradient(self, theta: FloatArray) -> FloatArray:
        """Gradient of the energy at points, ``2 l2 theta``."""
        return 2 * self.l2 * theta

    def check(self, space: Space) -> None:  # noqa: B027  most suit all
        """Raise ValueError if there is no such measure on a space."""

    @abstractmethod
    def draw(self, place: Place, n_particles: int, space: Space, temperature: float, dtype: DTypeLike) -> FloatArray:
        """Independent draws of the moving coordinates, shape (n_particles, n_moving), stream ``init``.

        Raises
        ------
        ValueError
            If it is no probability measure.
        """

    @abstractmethod
    def log_normaliser(self, space: Space, temperature: float) -> float:
        """``log integral exp(-energy / temperature)`` over the domain; infinite where it is not proper."""

    def follow(
        self, temperature: float | NDArray[np.float64], start: float | NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Values of l2 under which annealing keeps the measure: ``l2 * temperature / start``, and l2 from a start at 0.

        Parameters
        ----------
        temperature : ndarray, shape (1 or n_replicates, n_steps)
        start : ndarray, shape (1 or n_replicates, 1)
        """
        warm = start > 0
        return np.where(warm, self.l2 * (temperature / np.where(warm, start, 1.0)), self.l2)


@dataclass(frozen=True)
class Gaussian(Reference):
    """Gaussian reference: the ridge ``l2 |theta|**2``, hence ``N(0, temperature / (2 l2))`` in each coordinate.

    Parameters
    ----------
    l2 : float
        Positive, without a factor 1/2: the weight decay is ``2 * l2``. ``l2=`` of objectives is short for it.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> reference = mfld.references.Gaussian(0.5)
    >>> reference.energy(np.array([[1.0, 1.0]]))
    array([1.])
    >>> round(reference.log_normaliser(mfld.Space(2), temperature=1.0), 4)     # log of 2 pi
    1.8379
    """

    l2: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "l2", validation.real("l2", self.l2, positive=True))

    def check(self, space: Space) -> None:
        if not space.flat:
            raise ValueError(f"reference must not be Gaussian on a domain that is not Euclidean, got {space.domain}")

    def draw(self, place: Place, n_particles: int, space: Space, temperature: float, dtype: DTypeLike) -> FloatArray:
        normals = place.normals(n_particles, space.n_moving, dtype, "init")
        return normals.dtype.type(math.sqrt(temperature / (2 * self.l2))) * normals

    def log_normaliser(self, space: Space, temperature: float) -> float:
        return space.n_moving / 2 * math.log(math.pi * temperature / self.l2)


@dataclass(frozen=True)
class Uniform(Reference):
    """Uniform law on a bounded domain, like spheres, tori and boxes.

    Examples
    --------
    >>> import mfld
    >>> circle = mfld.Space(domain=[mfld.Sphere(2)])
    >>> round(mfld.references.Uniform().log_normaliser(circle, temperature=1.0), 4)     # log of 2 pi
    1.8379
    """

    def check(self, space: Space) -> None:
        if math.isinf(space.volume):
            raise ValueError(f"domain must be bounded for a uniform reference, got {space.domain}")

    def draw(self, place: Place, n_particles: int, space: Space, temperature: float, dtype: DTypeLike) -> FloatArray:
        return space.draw(place, n_particles, dtype)[:, : space.n_moving]

    def log_normaliser(self, space: Space, temperature: float) -> float:
        return math.log(space.volume)


@dataclass(frozen=True)
class Free(Reference):
    """No reference: volume itself, as with ``l2=0``. The minimiser need not exist on an unbounded domain.

    Examples
    --------
    >>> import mfld
    >>> mfld.references.Free().proper
    False
    """

    proper: ClassVar[bool] = False

    def draw(self, place: Place, n_particles: int, space: Space, temperature: float, dtype: DTypeLike) -> FloatArray:
        raise ValueError("reference must be Gaussian or Uniform to be drawn from, got Free(), which has no finite mass")

    def log_normaliser(self, space: Space, temperature: float) -> float:
        return math.inf


def given(l2: float, reference: Reference | None, space: Space) -> Reference:
    """The reference of an object that takes it as a whole or by its l2, once it suits the space."""
    l2 = validation.real("l2", l2, non_negative=True)
    if reference is None:
        reference = Gaussian(l2) if l2 > 0 else Free()
    else:
        validation.instance("reference", reference, Reference, "a Reference, like Gaussian(0.1) or Uniform()")
        if l2 != 0:
            raise ValueError(f"l2 must be left out where reference is given, got {l2} and {reference}")
    reference.check(space)
    return reference
