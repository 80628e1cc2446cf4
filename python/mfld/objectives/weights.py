"""Best weights of a signed measure whose positions are given: the inner problem of the bilevel reduction.

With neurons phi_i(w_m) at n samples and N positions of masses p_m, weights ``p_m f_m`` and predictions
``u_i = sum_m p_m f_m phi_i(w_m)``, it is

    minimise   sum_i s_i l(u_i, y_i) + (strength / 2) sum_m p_m |f_m|**2

whose solution is ``f_m = sum_i a_i phi_i(w_m)`` with ``strength a_i = -s_i l'(u_i, y_i)``: one number a_i for each
sample says it at every position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfld import linear
from mfld.losses import LossFunction
from mfld.validation import FloatArray

_MOST_STEPS = 100
_BLOCK = 64  # rows


@dataclass(frozen=True, eq=False)
class Fit:
    """Solution of the inner problem.

    ``coefficients`` a, shape (n, K); ``weights`` f, (N, K); ``predictions`` u, (n, K); ``value`` the minimum.
    """

    coefficients: FloatArray
    weights: FloatArray
    predictions: FloatArray
    value: float


@dataclass(frozen=True, eq=False)
class Weights:
    """The inner problem at some positions.

    Parameters
    ----------
    neurons : ndarray, shape (n, N)
    masses : ndarray, shape (N,)
        Of the positions, of sum 1.
    sample_weight : ndarray, shape (n,)
        The weights s, of sum 1.
    strength : float
    num_threads : int
    """

    neurons: FloatArray
    masses: FloatArray
    sample_weight: FloatArray
    strength: float
    num_threads: int

    def regression(self, targets: FloatArray, curvature: float | FloatArray) -> FloatArray:
        """Coefficients a for the loss ``curvature (u - y)**2 / 2``, by a system of the smaller of n and N.

        With ``D = sqrt(s curvature)`` and ``B = D Phi sqrt(P)`` they are ``a = D b``, ``(B B' + strength I) b = D y``;
        where N < n, ``b = (D y - B c) / strength`` with ``(B' B + strength I) c = B' D y``.
        """
        dtype = self.neurons.dtype
        root = np.sqrt(self.sample_weight * curvature).astype(dtype)[:, np.newaxis]
        share = np.sqrt(self.masses)
        if self.neurons.shape[1] < len(self.neurons):
            factor = _scaled_transpose(self.neurons, root, share)
            inner = self._solve(factor, _times(factor, root * targets))
            fitted = _times(self.neurons, share[:, np.newaxis] * inner)
            solution = root * (targets - fitted) / dtype.type(self.strength)
        else:
            factor = self.neurons * root
            factor *= share
            solution = self._solve(factor, root * targets)
        coefficients: FloatArray = root * solution
        return coefficients

    def fit(self, loss: LossFunction, targets: FloatArray) -> Fit:
        """Best weights for a smooth loss: at once for squares, else by Newton steps to the precision of the arrays.

        Raises
        ------
        ValueError
            If the system is singular to the precision of the arrays.
        """
        if is_square(loss):
            return self._at(self.regression(targets, curvature_of(loss)), loss, targets)
        return self._newton(loss, targets)

    def at_positions(self, coefficients: FloatArray) -> FloatArray:
        """The weights f, shape (N, K), that coefficients stand for."""
        return _times(self.neurons.T, coefficients)

    def _newton(self, loss: LossFunction, targets: FloatArray) -> Fit:
        """Newton's method with halved steps, each of which is a weighted regression; one output.

        Its start is a function of the problem alone, so that a run that is continued takes the same steps.
        """
        fit = self._at(np.zeros((len(targets), 1), self.neurons.dtype), loss, targets)
        tolerance = 100 * np.finfo(self.neurons.dtype).eps
        for _ in range(_MOST_STEPS):
            slope = loss.evaluate(fit.predictions, targets)[1]
            residual = fit.coefficients + self.sample_weight[:, np.newaxis] * slope / self.strength
            size = float(np.abs(fit.coefficients).max()) + float(np.abs(residual).max())
            if float(np.abs(residual).max()) <= tolerance * size:
                return fit
            second = _second_derivative(loss, fit.predictions, targets)[:, np.newaxis]
            # At least a share of the largest: beyond a kink, or far out, Newton's model knows no bound of its own.
            second = np.maximum(second, 1e-4 * max(float(second.max()), 1e-4))
            aim = self.regression(fit.predictions - slope / second, second[:, 0])
            following = self._shorter(fit, aim, loss, targets)
            if following is None:
                return fit
            fit = following
        return fit

    def _shorter(self, fit: Fit, aim: FloatArray, loss: LossFunction, targets: FloatArray) -> Fit | None:
        """The first of ever shorter steps that lowers the value; None where rounding lets none do so."""
        for halvings in range(30):
            share = fit.coefficients.dtype.type(0.5**halvings)
            trial = self._at(fit.coefficients + share * (aim - fit.coefficients), loss, targets)
            if trial.value < fit.value:
                return trial
        return None

    def _at(self, coefficients: FloatArray, loss: LossFunction, targets: FloatArray) -> Fit:
        weights = self.at_positions(coefficients)
        predictions = _times(self.neurons, self.masses[:, np.newaxis] * weights)
        values, _ = loss.evaluate(predictions, targets)
        size = np.sum(self.masses * np.sum(np.square(weights, dtype=np.float64), axis=1))
        value = float(np.sum(self.sample_weight * values, dtype=np.float64) + self.strength / 2 * size)
        return Fit(coefficients, weights, predictions, value)

    def _solve(self, factor: FloatArray, right: FloatArray) -> FloatArray:
        return linear.ridge_solve(factor, self.strength, right, self.num_threads)


_CURVATURES = {"half_squared": 1.0, "squared": 2.0}


def is_square(loss: LossFunction) -> bool:
    """True where the best weights are the solution of a linear system."""
    return getattr(loss, "name", None) in _CURVATURES


def curvature_of(loss: LossFunction) -> float:
    """Second derivative of a loss that is a square."""
    return _CURVATURES[getattr(loss, "name", "")]


def _second_derivative(loss: LossFunction, predictions: FloatArray, targets: FloatArray) -> FloatArray:
    """Second derivative in the prediction, by a difference: it sets the step and not the solution."""
    u, y = predictions.astype(np.float64), targets.astype(np.float64)
    width = 1e-5 * (1 + np.abs(u))
    above, below = (loss.evaluate(at, y)[1] for at in (u + width, u - width))
    difference: FloatArray = (above - below) / (2 * width)
    return difference[:, 0]


def _scaled_transpose(neurons: FloatArray, rows: FloatArray, columns: FloatArray) -> FloatArray:
    """``(rows * neurons * columns)'``, a block of rows at a time, so that what is read stays in the cache."""
    result = np.empty(neurons.shape[::-1], neurons.dtype)
    for first in range(0, len(neurons), _BLOCK):
        some = slice(first, first + _BLOCK)
        result[:, some] = (neurons[some] * rows[some] * columns).T
    return result


def _times(left: FloatArray, right: FloatArray) -> FloatArray:
    """Matrix product whose bits do not depend on the threads of BLAS."""
    product: FloatArray = np.einsum("ij,jk->ik", left, right)
    return product
