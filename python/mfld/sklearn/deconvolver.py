"""Sparse deconvolution as an estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from mfld import validation
from mfld.deconvolution import PointSpread
from mfld.floating import underflow_is_zero
from mfld.signed_certificates import SignedCertificate
from mfld.signed_measures import SignedMeasure
from mfld.sklearn import frames
from mfld.sklearn.base import whole_or_not
from mfld.spikes import deconvolve
from mfld.validation import FloatArray

if TYPE_CHECKING:
    from numpy.random import RandomState


class Deconvolver(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # untyped
    """Spikes whose sum, seen through a point spread, is a signal: `mfld.deconvolve`.

    Rows of X are positions, and y is the signal there. Predictions are those of the spikes that were fitted without the
    penalty, at any positions.

    Parameters
    ----------
    point_spread : PointSpread or sequence of them
        Of `mfld.deconvolution`: one for each column of X, or one for all.
    strength : float, optional
        Weight of the penalty. Default: a tenth of that above which there are no spikes.
    penalty : {"tv", "squared_tv"}
    n_particles, n_steps, gap
        As in `mfld.deconvolve`.
    random_state : int, RandomState or None
    n_jobs : int, optional
        Threads, as joblib counts. They never change the result.

    Attributes
    ----------
    positions_, amplitudes_ : ndarray, shapes (M, p) and (M,)
    position_errors_, amplitude_errors_ : ndarray, shapes (M, p) and (M,)
        Standard errors.
    noise_level_, strength_ : float
    spikes_ : mfld.SignedMeasure
    certificate_ : mfld.SignedCertificate
    n_features_in_ : int
        p, 1 or 2.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.deconvolution import Gaussian
    >>> from mfld.sklearn import Deconvolver
    >>> x = np.linspace(0, 10, 101)
    >>> y = 2 * Gaussian(0.5)(x - 3.03)[0] - Gaussian(0.5)(x - 6.5)[0]
    >>> found = Deconvolver(Gaussian(0.5)).fit(x[:, np.newaxis], y)
    >>> found.positions_.round(3)
    array([[3.03],
           [6.5 ]])
    >>> found.predict([[3.03]]).round(3)
    array([2.])
    """

    positions_: FloatArray
    spikes_: SignedMeasure
    certificate_: SignedCertificate

    def __init__(
        self,
        point_spread: PointSpread | Sequence[PointSpread],
        *,
        strength: float | None = None,
        penalty: str = "tv",
        n_particles: int = 100,
        n_steps: int = 300,
        gap: float = 1e-6,
        random_state: int | RandomState | None = 0,
        n_jobs: int | None = None,
    ) -> None:
        self.point_spread = point_spread
        self.strength = strength
        self.penalty = penalty
        self.n_particles = n_particles
        self.n_steps = n_steps
        self.gap = gap
        self.random_state = random_state
        self.n_jobs = n_jobs

    @whole_or_not
    @underflow_is_zero
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Find the spikes of the signal y, shape (n,), at positions X, shape (n, 1), or (n, 2) of a whole grid.

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong, a position occurs twice, or positions in two dimensions are no grid.
        ConvergenceError
            As from `mfld.deconvolve`.
        """
        for name, given in (("X", X), ("y", y)):
            validation.unmasked(name, given)
            frames.check_kind(name, given)
        points, signal = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        axes, values = _grid(points, np.asarray(signal, np.float64))
        found = deconvolve(
            values,
            self.point_spread,
            self.strength,
            axes=axes,
            penalty=self.penalty,
            n_particles=self.n_particles,
            n_steps=self.n_steps,
            gap=self.gap,
            seed=int(check_random_state(self.random_state).randint(2**31)),
            num_threads=int(effective_n_jobs(self.n_jobs)),
        )
        self.positions_, self.amplitudes_ = found.positions, found.amplitudes
        self.position_errors_, self.amplitude_errors_ = found.position_errors, found.amplitude_errors
        self.noise_level_, self.strength_ = found.noise_level, found.strength
        self.spikes_, self.certificate_ = found.fitted, found.certificate
        return self

    @underflow_is_zero
    def predict(self, X: ArrayLike) -> FloatArray:
        """Signal of the spikes at positions X, shape (n,)."""
        check_is_fitted(self)
        validation.unmasked("X", X)
        frames.check_kind("X", X)
        points = validate_data(self, X, dtype=np.float64, reset=False)
        return self.spikes_.predict(points, int(effective_n_jobs(self.n_jobs)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # of data that are no signal on a grid
        return tags


def _grid(points: NDArray[np.float64], signal: NDArray[np.float64]) -> tuple[list[FloatArray], FloatArray]:
    """Axes of the grid that points are, in any order, and the signal on it."""
    if points.shape[1] > 2:
        raise ValueError(f"X must have one or two columns, the positions, got {points.shape[1]} features")
    each = [np.unique(column, return_inverse=True) for column in points.T]
    axes, places = [x for x, _ in each], tuple(place.ravel() for _, place in each)
    shape = tuple(map(len, axes))
    if min(shape) < 2:
        raise ValueError(f"X must hold at least two positions along each axis, got {' x '.join(map(str, shape))}")
    cells = np.ravel_multi_index(places, shape)
    if len(np.unique(cells)) < len(cells):
        raise ValueError(f"X must hold each position once, got {len(cells) - len(np.unique(cells))} again")
    if len(cells) < np.prod(shape):
        size = " x ".join(map(str, shape))
        raise ValueError(f"X must be a whole grid, got {len(cells)} of {size} positions")
    values = np.empty(len(cells))
    values[cells] = signal
    return axes, values.reshape(shape)
