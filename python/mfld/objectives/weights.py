"""Best weights of a signed measure whose positions are given: the inner problem of the bilevel reduction.

With neurons phi_i(w_m) at n samples and N positions of masses p_m, weights ``p_m f_m`` and predictions
``u_i = sum_m p_m f_m phi_i(w_m)``, it is

    minimise   sum_i s_i l(u_i, y_i) + (strength / 2) sum_m p_m |f_m|**2

whose solution is ``f_m = sum_i a_i phi_i(w_m)`` with ``strength a_i = -s_i l'(u_i, y_i)``: one number a_i for each
sample and output says it at every position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfld import linear
from mfld.errors import ConvergenceError
from mfld.losses import LossFunction
from mfld.validation import FloatArray

_MOST_STEPS, _MOST_DIRECTIONS, _MOST_HALVINGS = 100, 500, 30
_WORST_DEFECT = 1e-2  # of the system of squares, as a share of its right-hand side
_ROUNDINGS = 100  # of the arrays, below which no tolerance is asked for
_SUFFICIENT = 1e-4  # share of the decrease that the slope promises (Armijo's rule)


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

    def regression(self, targets: FloatArray, curvature: float) -> FloatArray:
        """Coefficients a for the loss ``curvature |u - y|**2 / 2``, by a system of the smaller of n and N.

        With ``D = sqrt(s curvature)`` and ``B = D Phi sqrt(P)`` they are ``a = D b``, ``(B B' + strength I) b = D y``.

        Raises
        ------
        ValueError
            If the system is singular to the precision of the arrays, or solved to less than two digits.
        """
        root = np.sqrt(self.sample_weight * curvature).astype(self.neurons.dtype)
        coefficients: FloatArray = root[:, np.newaxis] * self._solve(root, root[:, np.newaxis] * targets)
        # They are residuals over the strength, and so is what rounding leaves of the residuals.
        predictions = self.predicted(self.masses[:, np.newaxis] * self.at_positions(coefficients))
        defect = self.strength * coefficients + root[:, np.newaxis] ** 2 * (predictions - targets)
        size, allowed = _length(defect), _WORST_DEFECT * _length(root[:, np.newaxis] ** 2 * targets)
        if not size <= allowed:
            raise ValueError(
                f"strength must be larger for {coefficients.dtype} numbers and neurons up to "
                f"{np.abs(self.neurons).max():.2g}: rounding leaves predictions off by "
                f"{_WORST_DEFECT * size / allowed:.2g} of the targets, got strength {self.strength:.3g}"
            )
        return coefficients

    def coefficients(self, loss: LossFunction, targets: FloatArray, tolerance: float, start: FloatArray) -> FloatArray:
        """Coefficients a of the best weights for a smooth convex loss: at once for squares, else by Newton's method.

        Parameters
        ----------
        loss : LossFunction
        targets : ndarray, shape (n, C)
        tolerance : float
            Newton's method ends where the gradient in the weights is so small beside each of its two terms, that of
            the loss and that of the ridge, or where rounding lets no step make it smaller.
        start : ndarray, shape (n, K)
            Coefficients that it starts from.

        Raises
        ------
        ValueError
            If the system of squares is singular to the precision of the arrays.
        ConvergenceError
            If 100 steps do not get there.
        """
        if is_square(loss):
            return self.regression(targets, curvature_of(loss))
        return _Newton(self, loss, targets).coefficients(tolerance, start)

    def fit(self, loss: LossFunction, targets: FloatArray, coefficients: FloatArray) -> Fit:
        """Weights, predictions and the value at coefficients."""
        weights = self.at_positions(coefficients)
        predictions = self.predicted(self.masses[:, np.newaxis] * weights)
        size = np.sum(self.masses * np.sum(np.square(weights, dtype=np.float64), axis=1))
        value = self.risk(loss, targets, predictions) + self.strength / 2 * float(size)
        return Fit(coefficients, weights, predictions, value)

    def at_positions(self, coefficients: FloatArray) -> FloatArray:
        """The weights f, shape (N, K), that coefficients stand for."""
        return linear.product(self.neurons, coefficients, transposed=True, num_threads=self.num_threads)

    def predicted(self, weights: FloatArray) -> FloatArray:
        """Predictions of weights that include the masses."""
        return linear.product(self.neurons, weights, num_threads=self.num_threads)

    def risk(self, loss: LossFunction, targets: FloatArray, predictions: FloatArray) -> float:
        """``sum_i s_i l(u_i, y_i)``."""
        values, _ = loss.evaluate(predictions, targets)
        return float(np.sum(self.sample_weight * values, dtype=np.float64))

    def _solve(self, row_scale: FloatArray, right: FloatArray) -> FloatArray:
        share = np.sqrt(self.masses)
        scales = {"row_scale": row_scale, "column_scale": share}
        return linear.ridge_solve(self.neurons, self.strength, right, self.num_threads, **scales, name="strength")


@dataclass(frozen=True, eq=False)
class _Point:
    """Weights ``g = sqrt(p) f`` with what Newton's method asks for: (N, K), predictions and slopes (n, K)."""

    g: FloatArray
    predictions: FloatArray
    slope: FloatArray
    gradient: FloatArray
    value: float
    size: float


@dataclass(frozen=True, eq=False)
class _Newton:
    """Newton's method with halved steps, each of which conjugate gradients solve for.

    In ``g = sqrt(p) f``, with ``B = Phi sqrt(P)`` and the blocks ``D_i = s_i l''(u_i)`` that couple the outputs, the
    gradient is ``B' s l'(u) + strength g`` and the Hessian ``B' D B + strength I``. It ends with the coefficients
    ``a = -s l'(u) / strength`` that predictions stand for.
    """

    problem: Weights
    loss: LossFunction
    targets: FloatArray

    def coefficients(self, tolerance: float, start: FloatArray) -> FloatArray:
        tolerance = max(tolerance, _ROUNDINGS * float(np.finfo(start.dtype).eps))
        at = self._point(self._share * self.problem.at_positions(start))
        for _ in range(_MOST_STEPS):
            if _length(at.gradient) <= tolerance * at.size:
                break
            following = self._following(at)
            if following is None:
                break
            at = following
        else:
            left = _length(at.gradient) / at.size
            raise ConvergenceError(
                f"weights must come within {tolerance:.3g} of the best ones in {_MOST_STEPS} steps of Newton's method, "
                f"got {left:.3g}; a larger strength makes them easier to find"
            )
        return -self._s * at.slope / at.slope.dtype.type(self.problem.strength)

    @property
    def _share(self) -> FloatArray:
        return np.sqrt(self.problem.masses)[:, np.newaxis]

    @property
    def _s(self) -> FloatArray:
        return self.problem.sample_weight[:, np.newaxis]

    def _point(self, g: FloatArray) -> _Point:
        predictions = self.problem.predicted(self._share * g)
        slope = self.loss.evaluate(predictions, self.targets)[1]
        of_loss = self._share * self.problem.at_positions(self._s * slope)
        of_ridge = g.dtype.type(self.problem.strength) * g
        size = _length(of_loss) + _length(of_ridge)
        return _Point(g, predictions, slope, of_loss + of_ridge, self._value(g, predictions), size)

    def _value(self, g: FloatArray, predictions: FloatArray) -> float:
        return self.problem.risk(self.loss, self.targets, predictions) + self.problem.strength / 2 * _length(g) ** 2

    def _following(self, at: _Point) -> _Point | None:
        """The point of the first of ever shorter steps that lowers the value enough; None where there is none."""
        step, change = self._step(at)
        promised = float(np.sum(at.gradient * step, dtype=np.float64))
        if -promised <= _ROUNDINGS * float(np.finfo(step.dtype).eps) * abs(at.value):
            # The value is too coarse to judge by. The gradient is not, as long as it falls like Newton's method does.
            trial = self._point(at.g + step)
            return trial if _length(trial.gradient) < _length(at.gradient) / 2 else None
        for halvings in range(_MOST_HALVINGS):
            share = step.dtype.type(0.5**halvings)
            trial_value = self._value(at.g + share * step, at.predictions + share * change)
            if trial_value <= at.value + _SUFFICIENT * float(share) * promised:
                return self._point(at.g + share * step)
        return None

    def _step(self, at: _Point) -> tuple[FloatArray, FloatArray]:
        """Newton's step, and what it does to the predictions, to a precision that grows as the gradient falls."""
        dtype, strength, s = at.g.dtype, at.g.dtype.type(self.problem.strength), self._s[:, :, np.newaxis]
        blocks = (s * _second_derivative(self.loss, at.predictions, self.targets)).astype(dtype)
        step, change = np.zeros_like(at.g), np.zeros_like(at.predictions)
        left = -at.gradient
        direction, square = left, _length(left) ** 2
        enough = min(0.1, np.sqrt(_length(at.gradient) / at.size)) ** 2 * square
        for _ in range(_MOST_DIRECTIONS):
            if square <= enough:
                break
            seen = self.problem.predicted(self._share * direction)
            bent = np.einsum("ikl,il->ik", blocks, seen)
            curvature = float(np.sum(bent * seen, dtype=np.float64)) + self.problem.strength * _length(direction) ** 2
            length = dtype.type(square / curvature)
            step += length * direction
            change += length * seen
            left = left - length * (self._share * self.problem.at_positions(bent) + strength * direction)
            before, square = square, _length(left) ** 2
            direction = left + dtype.type(square / before) * direction
        return step, change


_CURVATURES = {"half_squared": 1.0, "squared": 2.0}


def is_square(loss: LossFunction) -> bool:
    """True where the best weights are the solution of a linear system."""
    return getattr(loss, "name", None) in _CURVATURES


def curvature_of(loss: LossFunction) -> float:
    """Second derivative of a loss that is a square."""
    return _CURVATURES[getattr(loss, "name", "")]


def _second_derivative(loss: LossFunction, predictions: FloatArray, targets: FloatArray) -> FloatArray:
    """Blocks (n, K, K) of second derivatives in the outputs, by differences: they set steps and not the solution."""
    u, y = predictions.astype(np.float64), targets.astype(np.float64)
    blocks = np.empty((*u.shape, u.shape[1]))
    for k in range(u.shape[1]):
        width = np.zeros_like(u)
        width[:, k] = 1e-5 * (1 + np.abs(u[:, k]))
        above, below = (loss.evaluate(at, y)[1] for at in (u + width, u - width))
        blocks[:, :, k] = (above - below) / (2 * width[:, [k]])
    symmetric: FloatArray = (blocks + blocks.transpose(0, 2, 1)) / 2
    return symmetric


def _length(values: FloatArray) -> float:
    return float(np.sqrt(np.sum(np.square(values, dtype=np.float64))))
