"""Signed measures: positions with weights of either sign."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.models import Model
from mfld.space import Space
from mfld.validation import FloatArray


@dataclass(frozen=True, eq=False, repr=False)
class SignedMeasure:
    """Signed measure ``nu = sum_m c_m delta(w_m)``, or a vector-valued one, of the neurons of a model.

    Attributes
    ----------
    model : Model
        With one output phi(w, z).
    positions : ndarray, shape (M, p)
    weights : ndarray, shape (M,), or (M, K) with several outputs

    Examples
    --------
    >>> import mfld
    >>> model = mfld.TwoLayerNetwork(1, readout="fixed", bias=False, activation="identity")
    >>> measure = mfld.SignedMeasure(model, [[1.0], [3.0], [3.1]], [2.0, -0.5, -0.5])
    >>> measure.tv_norm
    3.0
    >>> measure.predict([[1.0]])
    array([-1.05])
    >>> measure.merged(radius=0.2).positions
    array([[1.  ],
           [3.05]])
    """

    model: Model
    positions: FloatArray
    weights: FloatArray

    def __init__(self, model: Model, positions: ArrayLike, weights: ArrayLike) -> None:
        validation.instance("model", model, Model, "a Model, like a TwoLayerNetwork")
        points = validation.array("positions", positions)
        if points.ndim != 2 or points.shape[1] != model.n_coordinates:
            raise ValueError(
                f"positions must have shape (M, {model.n_coordinates}) to suit the model, got {points.shape}"
            )
        masses = validation.array("weights", weights, points.dtype)
        if masses.ndim not in (1, 2) or len(masses) != len(points):
            raise ValueError(f"weights must have shape ({len(points)},) or ({len(points)}, K), got {masses.shape}")
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "positions", validation.frozen(points))
        object.__setattr__(self, "weights", validation.frozen(masses))

    def __repr__(self) -> str:
        n = len(self.positions)
        return f"SignedMeasure({n} position{'' if n == 1 else 's'}, |nu|_TV={self.tv_norm:.6g})"

    @property
    def sizes(self) -> FloatArray:
        """Size of each weight, shape (M,): its absolute value, or its length."""
        sizes: FloatArray = np.sqrt(np.sum(np.square(self._columns, dtype=np.float64), axis=1))
        return sizes

    @property
    def tv_norm(self) -> float:
        """Total variation, ``sum_m |c_m|``."""
        return float(np.sum(self.sizes))

    def predict(self, inputs: ArrayLike, num_threads: int | None = None) -> FloatArray:
        """Predictions ``sum_m c_m phi(w_m, z_i)``.

        Parameters
        ----------
        inputs : array_like, shape (n, n_features)
        num_threads : int, optional
            As in `Model.predict`.

        Returns
        -------
        ndarray, shape (n,), or (n, K) with several outputs

        Raises
        ------
        TypeError, ValueError
            If an array has the wrong shape, is no array of reals, or is not finite.
        """
        if not len(self.positions):
            points = validation.array("inputs", inputs, self.positions.dtype)
            return np.zeros((len(points), *self.weights.shape[1:]), self.positions.dtype)
        predictions = [
            self.model.predict(self.positions, inputs, np.ascontiguousarray(column), num_threads)
            for column in self._columns.T
        ]
        return predictions[0] if self.weights.ndim == 1 else np.stack(predictions, axis=-1)

    def prune(self, threshold: float) -> SignedMeasure:
        """The measure without weights of a size below ``threshold``.

        Raises
        ------
        TypeError, ValueError
            If threshold is no number of at least 0.
        """
        kept = self.sizes >= validation.real("threshold", threshold, non_negative=True)
        return SignedMeasure(self.model, self.positions[kept], self.weights[kept])

    def merged(self, radius: float) -> SignedMeasure:
        """Atoms in place of clusters: from the largest weight on, all within ``radius`` of it become one.

        An atom has the sum of its cluster's weights and stands at their centre, weighted by sizes, on the domain; on a
        torus distances go around. Weights that cancel leave no atom. Atoms come in the order of their sizes.

        Parameters
        ----------
        radius : float
            In the units of the positions; on a sphere of chords.

        Raises
        ------
        TypeError, ValueError
            If radius is no positive number.
        """
        radius = validation.real("radius", radius, positive=True)
        space, left = self.model.space, np.argsort(-self.sizes, kind="stable")
        positions, weights = [], []
        while len(left):
            offset = _difference(space, self.positions[left], self.positions[left[0]])
            near = np.sqrt(np.sum(np.square(offset), axis=1)) <= radius
            cluster, share = left[near], self.sizes[left[near]]
            total = self.weights[cluster].sum(axis=0)
            if share.sum() > 0 and np.any(np.abs(total) > 1e-12 * share.sum()):
                centre = np.sum(share[:, np.newaxis] * offset[near], axis=0) / share.sum()
                positions.append(self._moved(self.positions[left[0]], centre))
                weights.append(total)
            left = left[~near]
        shape = (0, *self.weights.shape[1:])
        atoms = SignedMeasure(
            self.model,
            np.reshape(positions, (-1, self.model.n_coordinates)).astype(self.positions.dtype),
            np.array(weights, self.weights.dtype) if weights else np.zeros(shape, self.weights.dtype),
        )
        order = np.argsort(-atoms.sizes, kind="stable")
        return SignedMeasure(self.model, atoms.positions[order], atoms.weights[order])

    @property
    def _columns(self) -> FloatArray:
        return self.weights[:, np.newaxis] if self.weights.ndim == 1 else self.weights

    def _moved(self, position: FloatArray, change: FloatArray) -> FloatArray:
        point = position.astype(np.float64)
        moving = self.model.space.n_moving
        point[:moving] = self.model.space.retract((point[:moving] + change)[np.newaxis])[0]
        return point


def _difference(space: Space, points: FloatArray, origin: FloatArray) -> FloatArray:
    """From one position to others, moving coordinates only, the shorter way around a torus."""
    return np.concatenate(
        [
            block.difference(points[:, part].astype(np.float64), origin[part].astype(np.float64))
            for block, part in space.parts()
        ],
        axis=1,
    )
