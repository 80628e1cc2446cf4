"""Linear functionals of a measure: a potential, averaged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.objectives.base import Measure, Objective
from mfld.validation import FloatArray


class Potential(Objective):
    """Linear objective ``F(mu) = E_mu V + l2 E_mu |theta|**2``; its dynamics are plain Langevin, without interaction.

    The minimiser of ``F(mu) + temperature * Ent(mu)`` is the Gibbs law ``exp(-(V + l2 |theta|**2) / temperature)``.
    A potential is also what `Objective.first_variation` returns: a function of theta, which may be called.

    Parameters
    ----------
    gradient : callable
        Gradient of V: takes points, an array of shape (M, n_coordinates), and returns an array of that shape. It is
        called once a step with all particles, in the precision of the run.
    value : callable, optional
        V itself: takes points and returns shape (M,). Without it whatever needs a value raises TypeError, and the loss
        in a history is NaN.
    value_and_gradient : callable, optional
        Both at once, where that is cheaper than one after the other: takes points, returns shapes (M,) and
        (M, n_coordinates).
    n_coordinates : int
        Length of a point.
    n_moving : int, optional
        Leading coordinates that move; by default all.
    l2 : float
        Coefficient of ``|theta|**2`` (no factor 1/2), on moving coordinates.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; later, if a function returns another shape.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, lambda x: np.sum(x**2, axis=1) / 2, n_coordinates=2, l2=0.5)
    >>> points = np.array([[1.0, 0.0], [1.0, 1.0]])
    >>> well(points)                                 # V + l2 |theta|^2
    array([1., 2.])
    >>> well.gradient(points)
    array([[2., 0.],
           [2., 2.]])
    >>> well.value(points)                           # E_mu of it: the two points weigh the same
    1.5
    """

    linear = True

    def __init__(
        self,
        gradient: Callable[[FloatArray], ArrayLike],
        value: Callable[[FloatArray], ArrayLike] | None = None,
        *,
        value_and_gradient: Callable[[FloatArray], tuple[ArrayLike, ArrayLike]] | None = None,
        n_coordinates: int,
        n_moving: int | None = None,
        l2: float = 0.0,
    ) -> None:
        validation.function("gradient", gradient)
        if value is not None:
            validation.function("value", value)
        if value_and_gradient is not None:
            validation.function("value_and_gradient", value_and_gradient)
        self.n_coordinates = validation.integer("n_coordinates", n_coordinates, 1)
        moving = self.n_coordinates if n_moving is None else n_moving
        self.n_moving = validation.integer("n_moving", moving, 1, self.n_coordinates)
        self.l2 = validation.real("l2", l2, non_negative=True)
        self.has_value = value is not None
        self._gradient = gradient
        self._value = value
        self._value_and_gradient = value_and_gradient

    def __call__(self, points: ArrayLike) -> FloatArray:
        """Value of the potential, ``V(theta) + l2 |theta|**2``, at each point.

        Parameters
        ----------
        points : array_like, shape (M, n_coordinates)

        Returns
        -------
        ndarray, shape (M,)

        Raises
        ------
        TypeError, ValueError
            If the potential has no value, or the points do not fit.
        """
        points = self.cloud(points).particles
        ridge: FloatArray = points.dtype.type(self.l2) * np.sum(points[:, : self.n_moving] ** 2, axis=1)
        return self._values(points) + ridge

    def loss(self, measure: Measure) -> float:
        cloud = self.cloud(measure)
        return cloud.mean(self._values(cloud.particles))

    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        if batch is not None:
            raise ValueError("batch must be None for a Potential, which has no samples")
        points = self.cloud(measure).particles
        return self._as_gradient(self._gradient(points.copy()), points)

    def value_and_gradient(self, points: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """V and its gradient at each point, without the ridge: what a sampler with acceptance needs.

        Parameters
        ----------
        points : array_like, shape (M, n_coordinates)

        Returns
        -------
        ndarray, shape (M,); ndarray, shape (M, n_coordinates)

        Raises
        ------
        TypeError, ValueError
            If the potential has no value, or the points do not fit.
        """
        points = self.cloud(points).particles
        if self._value_and_gradient is None:
            return self._values(points), self.loss_gradient(points)
        value, gradient = self._value_and_gradient(points.copy())
        return self._as_values(value, points), self._as_gradient(gradient, points)

    def first_variation(self, measure: Measure) -> Potential:
        """The potential itself, whatever the measure."""
        return self

    def _values(self, points: FloatArray) -> FloatArray:
        if self._value is None:
            raise TypeError("this Potential has a gradient only: give it value=, the function V itself")
        # A copy, here and for the gradient: the function may keep it, change it or hand it to a library that wants to.
        return self._as_values(self._value(points.copy()), points)

    def _as_values(self, result: ArrayLike, points: FloatArray) -> FloatArray:
        values = np.asarray(result, points.dtype)
        validation.shape("the result of value", values, (len(points),), "to match the points")
        return values

    def _as_gradient(self, result: ArrayLike, points: FloatArray) -> FloatArray:
        gradient = np.array(result)
        validation.shape("the result of gradient", gradient, points.shape, "to match the points")
        with np.errstate(over="ignore"):  # what overflows is found by the move
            gradient = gradient.astype(points.dtype, copy=False)
        gradient[:, self.n_moving :] = 0
        return gradient
