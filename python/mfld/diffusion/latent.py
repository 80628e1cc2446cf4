"""Latent spaces: where a diffusion runs in place of the data's own coordinates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from mfld import linear, validation
from mfld.validation import FloatArray


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
        self.mean: FloatArray = np.zeros(1)
        self.deviation: FloatArray = np.ones(1)

    def __repr__(self) -> str:
        return "Standardised()"

    def fitted(self, data: FloatArray) -> Standardised:
        own = Standardised()
        own.mean, deviation = data.mean(axis=0), data.std(axis=0)
        own.deviation = np.where((np.ptp(data, axis=0) > 0) & (deviation > 0), deviation, 1.0)
        return own

    def encode(self, data: FloatArray) -> FloatArray:
        return np.asarray((data - self.mean) / self.deviation)

    def decode(self, points: FloatArray) -> FloatArray:
        return np.asarray(self.mean + points * self.deviation)


class PrincipalAxes(Latent):
    """The first principal components, all divided by one number, their root mean square deviation.

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
        self.mean: FloatArray = np.zeros(1)
        self.axes: FloatArray = np.eye(1)
        self.deviation = 1.0

    def __repr__(self) -> str:
        return f"PrincipalAxes({self.n_components})"

    def fitted(self, data: FloatArray) -> PrincipalAxes:
        n, d = data.shape
        if self.n_components > min(n, d):
            raise ValueError(f"n_components must be at most {min(n, d)} for data of shape {data.shape}")
        own = PrincipalAxes(self.n_components)
        own.mean = data.mean(axis=0)
        centred = data - own.mean
        covariance = np.einsum("ni,nj->ij", centred, centred) / n  # whose bits no number of threads changes
        values, own.axes, _ = linear.eigenpairs(covariance, self.n_components)
        own.deviation = float(np.sqrt(np.maximum(values, 0).mean())) or 1.0
        return own

    def encode(self, data: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("ni,ik->nk", data - self.mean, self.axes) / self.deviation)

    def decode(self, points: FloatArray) -> FloatArray:
        return np.asarray(self.mean + self.deviation * np.einsum("nk,ik->ni", points, self.axes))


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
