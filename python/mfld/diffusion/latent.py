"""Latent spaces: where a diffusion runs in place of the data's own coordinates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import linear, validation
from mfld.validation import FloatArray

_ROUNDING = 1e-14  # of a variance, relative to the largest one and in one dimension


class Latent(ABC):
    """Latent space: a map to coordinates of deviation about 1, and one back.

    Examples
    --------
    >>> from mfld import diffusion
    >>> isinstance(diffusion.PrincipalAxes(2), diffusion.Latent)
    True
    """

    @abstractmethod
    def fitted(self, data: FloatArray) -> Latent:
        """The latent space for data, shape (n, d)."""

    @abstractmethod
    def encode(self, data: FloatArray) -> FloatArray:
        """Latent points, shape (n, p)."""

    @abstractmethod
    def decode(self, points: FloatArray) -> FloatArray:
        """Data, shape (n, d)."""


class Standardised(Latent):
    """Each column by its mean and standard deviation: for columns of different units.

    A column in which all rows are alike comes back as it is, whatever the latent point.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diffusion
    >>> data = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> diffusion.Standardised().fitted(data).encode(data)
    array([[-1., -1.],
           [ 1.,  1.]])
    """

    def __init__(self) -> None:
        self._unit: NDArray[np.int64] = np.zeros(1, np.int64)
        self._mean: FloatArray = np.zeros(1)
        self._deviation: FloatArray = np.ones(1)

    def __repr__(self) -> str:
        return "Standardised()"

    def fitted(self, data: FloatArray) -> Standardised:
        own = Standardised()
        own._unit = _exponents(np.abs(data).max(axis=0))
        scaled = np.ldexp(data, -own._unit)
        own._mean, varies = _means(scaled)
        own._deviation = np.where(varies, scaled.std(axis=0), 0.0)
        return own

    def encode(self, data: FloatArray) -> FloatArray:
        offsets = np.ldexp(data, -self._unit) - self._mean
        return np.asarray(offsets / np.where(self._deviation > 0, self._deviation, 1.0))

    def decode(self, points: FloatArray) -> FloatArray:
        return np.ldexp(self._mean + points * self._deviation, self._unit)


class PrincipalAxes(Latent):
    """The first principal components, all divided by one number, their root mean square deviation.

    Data of fewer dimensions than that, or with columns in which all rows are alike, have samples of the same kind.

    Parameters
    ----------
    n_components : int

    Raises
    ------
    TypeError, ValueError
        If it is no positive integer, or more than there are columns or rows when it is fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diffusion
    >>> data = np.array([[1.0, 1.0], [-1.0, -1.0], [2.0, 2.0], [-2.0, -2.0]])
    >>> line = diffusion.PrincipalAxes(1).fitted(data)
    >>> np.allclose(line.decode(line.encode(data)), data)
    True
    """

    def __init__(self, n_components: int) -> None:
        self.n_components = validation.integer("n_components", n_components, 1)
        self._unit = 0
        self._mean: FloatArray = np.zeros(1)
        self._axes: FloatArray = np.eye(1)
        self._deviation = 1.0

    def __repr__(self) -> str:
        return f"PrincipalAxes({self.n_components})"

    def fitted(self, data: FloatArray) -> PrincipalAxes:
        n, d = data.shape
        if self.n_components > min(n, d):
            raise ValueError(f"n_components must be at most {min(n, d)} for data of shape {data.shape}")
        own = PrincipalAxes(self.n_components)
        own._unit = int(_exponents(np.abs(data).max()))
        scaled = np.ldexp(data, -own._unit)
        own._mean, varies = _means(scaled)
        centred = scaled - own._mean
        covariance = np.einsum("ni,nj->ij", centred, centred) / n  # whose bits no number of threads changes
        values, axes, _ = linear.eigenpairs(covariance, self.n_components)
        # Components of rounding alone: what a sample has there is no part of the data.
        values = np.where(values > _ROUNDING * d * values.max(), values, 0.0)
        own._axes = np.where(np.multiply.outer(varies, values > 0), axes, 0.0)
        own._deviation = float(np.sqrt(values.mean())) or 1.0
        return own

    def encode(self, data: FloatArray) -> FloatArray:
        centred = np.ldexp(data, -self._unit) - self._mean
        return np.asarray(np.einsum("ni,ik->nk", centred, self._axes) / self._deviation)

    def decode(self, points: FloatArray) -> FloatArray:
        return np.asarray(
            np.ldexp(self._mean + self._deviation * np.einsum("nk,ik->ni", points, self._axes), self._unit)
        )


class Coders(Latent):
    """An encoder and a decoder of your own, which do not change.

    Parameters
    ----------
    encoder, decoder : callable
        Of arrays of shapes (n, d) and (n, p), to (n, p) and (n, d).

    Raises
    ------
    TypeError
        If one of them cannot be called.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diffusion
    >>> positive = diffusion.Coders(np.log, np.exp)
    >>> positive.decode(positive.encode(np.array([[2.0]]))).round(6)
    array([[2.]])
    """

    def __init__(self, encoder: Callable[[FloatArray], ArrayLike], decoder: Callable[[FloatArray], ArrayLike]) -> None:
        validation.function("encoder", encoder)
        validation.function("decoder", decoder)
        self.encoder, self.decoder = encoder, decoder

    def fitted(self, data: FloatArray) -> Coders:
        return self

    def encode(self, data: FloatArray) -> FloatArray:
        latent = validation.array("the result of encoder", self.encoder(data), np.float64)
        validation.shape("the result of encoder", latent, (len(data), "p"))
        return latent

    def decode(self, points: FloatArray) -> FloatArray:
        data = validation.array("the result of decoder", self.decoder(points), np.float64)
        validation.shape("the result of decoder", data, (len(points), "d"))
        return data


def _exponents(sizes: ArrayLike) -> NDArray[np.int64]:
    """Powers of two that are next to sizes: squares of data divided by them, which is exact, are no infinities or 0."""
    return np.asarray(np.frexp(sizes)[1], np.int64)


def _means(data: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Means of columns, to the bit where all rows are alike, and whether they are not."""
    varies = np.asarray((data != data[0]).any(axis=0))
    return np.where(varies, data.mean(axis=0), data[0]), varies
