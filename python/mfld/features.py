"""Features of rows with numbers and categories, and of particles that stand for laws of such rows.

A row has numbers x in [0, 1]**d and categories c_1, c_2, ...; a factor is a vector of unit length that depends on some
of them, `Waves` on numbers and `OneHot` on a category. A block is the tensor product of some factors times the root of
its share; all blocks together are the feature vector phi, whose length is at most 1.

A particle is the law of a row whose numbers are fixed and whose categories are independent, with the probabilities
softmax(logits). The mean of phi over that law is the same product with probabilities in place of indicators, so that
the mean over particles is exactly the mean over the rows that they draw.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import noise, validation
from mfld.space import Box, Space
from mfld.validation import FloatArray

LOGITS = 6.0
"""Scale of logits: their coordinates are in [-1, 1], so that they are as stiff as those of numbers."""
MOST = 100_000
"""Numbers, categories of a column and waves that features have at most."""
_BELOW = 1 - 2.0**-40  # so that no vector of features is longer than 1 by rounding


class Factor(ABC):
    """Vector of a row, of length 1 at most, and of a particle.

    Attributes
    ----------
    width : int
        How many entries it has.
    category : int or None
        Which of the categorical columns it depends on; None: on numbers.
    """

    width: int
    category: int | None = None


@dataclass(frozen=True, eq=False)
class Waves(Factor):
    """Cosines and sines ``sqrt(p_k) (cos(w_k . x), sin(w_k . x))`` of some numbers, of length 1 where the p sum to 1.

    Their inner products are the kernel ``sum_k p_k cos(w_k . (x - y))``: with draws w of its spectral law and p = 1/m
    the random Fourier features of Rahimi, Recht 2007, "Random features for large-scale kernel machines".

    Parameters
    ----------
    columns : sequence of int
        Numbers that it depends on.
    frequencies : array_like, shape (m, len(columns))
    shares : array_like, shape (m,), optional
        The p, at least 0, made to sum to 1. Default: 1/m each.

    Examples
    --------
    >>> from mfld import features
    >>> features.Waves([0], [[3.14], [6.28]]).width
    4
    """

    columns: tuple[int, ...]
    frequencies: FloatArray
    shares: FloatArray

    def __init__(self, columns: Sequence[int], frequencies: ArrayLike, shares: ArrayLike | None = None) -> None:
        places = tuple(validation.integer("columns", column, 0, MOST) for column in sequence("columns", columns))
        given = validation.array("frequencies", frequencies, np.float64)
        validation.shape("frequencies", given, ("m", len(places)), "(frequencies, columns)")
        even = np.full(len(given), 1 / len(given)) if shares is None else shares
        object.__setattr__(self, "columns", places)
        object.__setattr__(self, "frequencies", validation.frozen(given))
        own = validation.weights("shares", even, (len(given),), "to match frequencies", np.float64)
        object.__setattr__(self, "shares", validation.frozen(own))

    @classmethod
    def gaussian(cls, columns: Sequence[int], m: int, length_scale: float, seed: int = 0) -> Waves:
        """Random Fourier features of the Gaussian kernel ``exp(-|x - y|**2 / (2 length_scale**2))``."""
        size = validation.integer("m", m, 1, MOST), len(columns)
        drawn = noise.normals(seed, 0, *size, dtype="float64", stream="data")
        return cls(columns, drawn / validation.real("length_scale", length_scale, positive=True))

    @classmethod
    def series(cls, column: int, m: int) -> Waves:
        """The first m cosines and sines of a number in [0, 1], ``w_k = pi k``, with shares that fall as ``1 / k``."""
        k = np.arange(1, validation.integer("m", m, 1, MOST) + 1)
        return cls((column,), np.pi * k[:, np.newaxis], 1 / k)

    @property
    def width(self) -> int:  # type: ignore[override]
        return 2 * len(self.frequencies)


@dataclass(frozen=True)
class OneHot(Factor):
    """Indicators of the categories of a column: 1 at that of the row; none at all for one that is not among them.

    Parameters
    ----------
    category : int
        Which of the categorical columns.
    width : int
        How many categories it has.

    Examples
    --------
    >>> from mfld import features
    >>> features.OneHot(0, 3)
    OneHot(category=0, width=3)
    """

    category: int = field()  # no default from the base
    width: int = field()

    def __post_init__(self) -> None:
        object.__setattr__(self, "category", validation.integer("category", self.category, 0))
        object.__setattr__(self, "width", validation.integer("width", self.width, 1, MOST))


@dataclass(frozen=True)
class Block:
    """Tensor product of factors, with its share of the squared length.

    Parameters
    ----------
    factors : tuple of int
        Places among those of the features; one of waves at most.
    share : float
        Positive. Shares of all blocks are made to sum to 1.
    """

    factors: tuple[int, ...]
    share: float = 1.0


class ProductFeatures:
    """Feature vector ``phi = (sqrt(share_b) tensor_f factor_f)_b`` of rows and of particles, of length 1 at most.

    A particle has n_numbers numbers in [0, 1], then logits of each category but that of the label, and last, where
    there is a label, its category, which does not move.

    Parameters
    ----------
    n_numbers : int
        How many numbers a row has.
    sizes : sequence of int
        How many categories each categorical column has.
    factors : sequence of Factor
    blocks : sequence of Block
    label : int, optional
        Which of the categorical columns is frozen in particles.

    Attributes
    ----------
    space : Space
        Of the particles.
    n_features : int

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or a block has several factors of waves.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.features import Block, OneHot, ProductFeatures, Waves
    >>> features = ProductFeatures(1, [2], [Waves.series(0, 3), OneHot(0, 2)], [Block((0,)), Block((0, 1))])
    >>> features.n_features, features.space.n_coordinates
    (18, 3)
    >>> phi = features.of_rows([[0.3]], [[1]])
    >>> round(float(np.sum(phi**2)), 9)
    1.0
    """

    def __init__(
        self,
        n_numbers: int,
        sizes: Sequence[int],
        factors: Sequence[Factor],
        blocks: Sequence[Block],
        label: int | None = None,
    ) -> None:
        self.n_numbers = validation.integer("n_numbers", n_numbers, 0, MOST)
        self.sizes = tuple(validation.integer("sizes", size, 1, MOST) for size in sequence("sizes", sizes))
        self.factors, self.label = tuple(sequence("factors", factors)), label
        if label is not None:
            validation.integer("label", label, 0, len(self.sizes) - 1)
        for number, factor in enumerate(self.factors):
            validation.instance(f"factors[{number}]", factor, Factor, "a Factor, like OneHot(0, 3)")
        for number, block in enumerate(sequence("blocks", blocks)):
            validation.instance(f"blocks[{number}]", block, Block, "a Block, like Block((0,))")
        if not blocks:
            raise ValueError("blocks must have one block at least, got none")
        total = sum(validation.real("share", block.share, positive=True) for block in blocks)
        self.blocks = tuple(self._checked(block, block.share / total) for block in blocks)
        self._waves = [k for k, factor in enumerate(self.factors) if factor.category is None]
        self._frequencies = self._all_frequencies()
        self.space = self._space()
        widths = [math.prod(self.factors[f].width for f in block.factors) for block in self.blocks]
        ends = np.cumsum([0, *widths])
        self.parts = tuple(slice(int(a), int(b)) for a, b in itertools.pairwise(ends))
        self.n_features = int(ends[-1])

    def __repr__(self) -> str:
        return (
            f"ProductFeatures({self.n_numbers} numbers, categories {list(self.sizes)}, {len(self.blocks)} blocks, "
            f"{self.n_features} features)"
        )

    def _checked(self, block: Block, share: float) -> Block:
        places = tuple(validation.integer("factors", f, 0, len(self.factors) - 1) for f in block.factors)
        moving = [f for f in places if self.factors[f].category is None]
        columns = [self.factors[f].category for f in places if f not in moving]
        if not places or len(moving) > 1 or len(set(columns)) < len(columns):
            raise ValueError(f"a block must have one factor of waves at most and different categories, got {block}")
        for f in places:
            own = self.factors[f].category
            if own is not None and (own >= len(self.sizes) or self.factors[f].width != self.sizes[own]):
                raise ValueError(f"{self.factors[f]} must match the sizes of categories, {self.sizes}")
        # Waves first, so that a block is a matrix of waves times the indicators of combined categories.
        return Block((*moving, *(f for f in places if f not in moving)), share)

    def _all_frequencies(self) -> dict[int, tuple[FloatArray, FloatArray]]:
        """Frequencies of each factor of waves in all numbers, shape (n_numbers, m), and amplitudes."""
        found: dict[int, tuple[FloatArray, FloatArray]] = {}
        for f in self._waves:
            waves = self.factors[f]
            assert isinstance(waves, Waves)
            full = np.zeros((self.n_numbers, len(waves.frequencies)))
            if max(waves.columns, default=-1) >= self.n_numbers:
                raise ValueError(f"columns of waves must be below the number of numbers, {self.n_numbers}")
            full[list(waves.columns)] = waves.frequencies.T
            found[f] = full, np.sqrt(waves.shares)
        return found

    def _space(self) -> Space:
        moving = [size for t, size in enumerate(self.sizes) if t != self.label]
        lower = [0.0] * self.n_numbers + [-1.0] * sum(moving)
        upper = [1.0] * self.n_numbers + [1.0] * sum(moving)
        if not lower:
            raise ValueError("features must have a number, or a category beside the label: particles would not move")
        return Space(len(lower) + (self.label is not None), domain=[Box(tuple(lower), tuple(upper))])

    @property
    def stiffness(self) -> float:
        """Largest ``E |d phi / d theta_j|**2`` over coordinates; steps of `FeatureMatching` may be 2 over it long."""
        numbers = np.zeros(self.n_numbers)
        logits = np.zeros(len(self.sizes))
        for block in self.blocks:
            for f in block.factors:
                if f in self._frequencies:
                    full, amplitudes = self._frequencies[f]
                    numbers += block.share * np.sum(full**2 * amplitudes**2, axis=1)
                else:
                    logits[self.factors[f].category] += block.share * LOGITS**2 / 4
        return float(max(numbers.max(initial=0.0), logits.max(initial=0.0)))

    def logits(self, t: int) -> slice:
        """Coordinates of the logits of a category."""
        before = sum(size for s, size in enumerate(self.sizes[:t]) if s != self.label)
        return slice(self.n_numbers + before, self.n_numbers + before + self.sizes[t])

    def probabilities(self, points: FloatArray, t: int) -> FloatArray:
        """Of the categories of a column, for each particle: shape (N, size)."""
        if t == self.label:
            codes = points[:, -1].astype(np.int64)
            return np.asarray(np.eye(self.sizes[t], dtype=points.dtype)[codes])
        logits = points.dtype.type(LOGITS) * points[:, self.logits(t)]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def _values(self, points: FloatArray) -> list[FloatArray]:
        """Each factor at each particle, shapes (N, width)."""
        found: list[FloatArray] = []
        shared = [self.probabilities(points, t) for t in range(len(self.sizes))]
        for f, factor in enumerate(self.factors):
            if f in self._frequencies:
                full, amplitudes = self._frequencies[f]
                phases = np.einsum("nd,dm->nm", points[:, : self.n_numbers], full.astype(points.dtype))
                both = np.concatenate([np.cos(phases), np.sin(phases)], axis=1)
                found.append(both * np.tile(amplitudes, 2).astype(points.dtype))
            else:
                assert factor.category is not None
                found.append(shared[factor.category])
        return found

    def mean(self, points: FloatArray, weights: FloatArray | None = None) -> NDArray[np.float64]:
        """Mean feature vector of the rows that particles draw, shape (n_features,), float64.

        Parameters
        ----------
        points : ndarray, shape (N, n_coordinates)
        weights : ndarray, shape (N,), optional
            By default 1/N each.
        """
        values = self._values(points)
        share = np.full(len(points), 1 / len(points), points.dtype) if weights is None else weights.astype(points.dtype)
        found = np.empty(self.n_features)
        for block, part in zip(self.blocks, self.parts, strict=True):
            first, *others = (values[f] for f in block.factors)
            first = first * share[:, np.newaxis]
            # In einsum and not in BLAS, whose bits depend on the number of its threads.
            sums = np.einsum("na,nb->ab", first, _outer(others)) if others else first.sum(axis=0)
            found[part] = math.sqrt(block.share) * sums.ravel()
        return found

    def pull_back(self, points: FloatArray, cotangent: FloatArray) -> tuple[FloatArray, FloatArray]:
        """``<r, phi>`` at each particle, shape (N,), and its gradient, shape (N, n_coordinates), for a vector r."""
        values = self._values(points)
        slopes = [np.zeros_like(value) for value in values]
        total = np.zeros(len(points), points.dtype)
        for block, part in zip(self.blocks, self.parts, strict=True):
            shape = [self.factors[f].width for f in block.factors]
            r = (math.sqrt(block.share) * cotangent[part]).astype(points.dtype).reshape(shape)
            for place, f in enumerate(block.factors):
                others = [values[g] for g in block.factors if g != f]
                matrix = np.moveaxis(r, place, -1).reshape(-1, shape[place])
                slope = (
                    np.einsum("nb,ba->na", _outer(others), matrix) if others else np.broadcast_to(r, values[f].shape)
                )
                slopes[f] += slope
                if place == 0:
                    total += np.einsum("na,na->n", slope, values[f])
        return total, self._gradient(points, values, slopes)

    def _gradient(self, points: FloatArray, values: list[FloatArray], slopes: list[FloatArray]) -> FloatArray:
        """From derivatives in the factors to those in the coordinates."""
        gradient = np.zeros_like(points)
        for f, (value, slope) in enumerate(zip(values, slopes, strict=True)):
            factor = self.factors[f]
            if f in self._frequencies:
                m = value.shape[1] // 2
                turned = value[:, :m] * slope[:, m:] - value[:, m:] * slope[:, :m]
                full = self._frequencies[f][0].astype(points.dtype)
                gradient[:, : self.n_numbers] += np.einsum("nm,dm->nd", turned, full)
                continue
            assert factor.category is not None
            if factor.category != self.label:
                inner = np.einsum("na,na->n", value, slope)[:, np.newaxis]
                gradient[:, self.logits(factor.category)] += LOGITS * value * (slope - inner)
        return gradient

    def of_rows(self, numbers: ArrayLike, codes: ArrayLike) -> NDArray[np.float64]:
        """Feature vectors of rows, shape (n, n_features).

        Each row's vector depends on that row alone, bit by bit, and has length 1 at most.

        Parameters
        ----------
        numbers : array_like, shape (n, n_numbers)
            In [0, 1].
        codes : array_like of int, shape (n, number of categorical columns)
            Categories by number, -1 for none.

        Raises
        ------
        TypeError, ValueError
            If an array does not fit.
        """
        x, c = self.check_rows(numbers, codes)
        found = np.zeros((len(x), self.n_features))
        for block, part in zip(self.blocks, self.parts, strict=True):
            waves, places, width = self.row_block(block, x, c)
            view = found[:, part].reshape(len(x), waves.shape[1], width)
            rows = np.flatnonzero(places >= 0)
            view[rows, :, places[rows]] = waves[rows]
            found[:, part] = view.reshape(len(x), -1)
        return found

    def check_rows(self, numbers: ArrayLike, codes: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Numbers and codes of rows as arrays that fit."""
        x = validation.array("numbers", numbers, np.float64)
        validation.unmasked("codes", codes)
        try:
            c = np.asarray(codes)
        except ValueError as error:  # a ragged list
            raise ValueError(f"codes must be an array of integers: {error}") from None
        if c.dtype.kind not in "iu":
            raise TypeError(f"codes must be integers, got dtype {c.dtype}")
        if x.ndim != 2 or x.shape[1] != self.n_numbers or not len(x):
            raise ValueError(f"numbers must have shape (n, {self.n_numbers}), got {x.shape}")
        if c.shape != (len(x), len(self.sizes)):
            raise ValueError(f"codes must have shape ({len(x)}, {len(self.sizes)}), got {c.shape}")
        if x.size and (x.min() < 0 or x.max() > 1):
            raise ValueError(f"numbers must be in [0, 1], got {x.min():g} to {x.max():g}: scale and clip by the bounds")
        if c.size and ((c < -1) | (c >= np.array(self.sizes))).any():
            raise ValueError(f"codes must be between -1 and the number of categories, {self.sizes}")
        return np.asarray(x, np.float64), c.astype(np.int64)

    def row_block(
        self, block: Block, numbers: NDArray[np.float64], codes: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
        """Waves of rows in a block, shape (n, m), the place of their categories, -1 for none, and how many places."""
        first, *others = block.factors
        scale = math.sqrt(block.share) * _BELOW
        if first in self._frequencies:
            full, amplitudes = self._frequencies[first]
            # Number by number, so that the bits of a row depend on no other.
            phases = np.zeros((len(numbers), full.shape[1]))
            for j in np.flatnonzero(full.any(axis=1)):
                phases += numbers[:, j, np.newaxis] * full[j]
            both = np.concatenate([np.cos(phases), np.sin(phases)], axis=1)
            waves: NDArray[np.float64] = both * (scale * np.tile(amplitudes, 2)).astype(np.float64)
        else:
            waves, others = np.full((len(numbers), 1), scale), list(block.factors)
        places, width = np.zeros(len(numbers), np.int64), 1
        for f in others:
            factor = self.factors[f]
            assert factor.category is not None
            own = codes[:, factor.category]
            places = np.where((own < 0) | (places < 0), -1, places * factor.width + own)
            width *= factor.width
        return np.asarray(waves, np.float64), places, width


def sequence(name: str, given: Any) -> Any:
    """The argument itself, a sequence and no text or mapping."""
    if isinstance(given, np.ndarray) and given.ndim == 1:
        return given
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise TypeError(f"{name} must be a sequence, got {validation.show(given)}")
    return given


def _outer(factors: Sequence[FloatArray]) -> FloatArray:
    """Products of all entries of some factors, shape (N, product of widths)."""
    found = factors[0]
    for other in factors[1:]:
        found = (found[:, :, np.newaxis] * other[:, np.newaxis, :]).reshape(len(found), -1)
    return found
