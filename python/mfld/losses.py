"""Losses of a prediction u against a target y: those of the compiled core, and your own."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import _core, validation
from mfld.native import final
from mfld.validation import FloatArray


def losses() -> list[str]:
    """Names of the losses; `Loss` says what each is.

    Examples
    --------
    >>> import mfld
    >>> "logistic" in mfld.losses()
    True
    """
    return [name for name, *_ in _core.backend.losses]


class LossFunction(ABC):
    """A loss ``l(u, y)`` of your own, in NumPy: subclass it and define `value_and_derivative`.

    `EmpiricalRisk` takes it as ``loss=``, and also the plain function where the properties may stay as they are. It is
    called once a step with all rows of the step, and once more where a loss is recorded; predictions, their pull-back
    to the particles, the noise and the move stay native.

    Attributes
    ----------
    has_conjugate : bool
        True where `conjugate` is defined, which certificates and dual methods need.
    has_probabilities : bool
        True where predictions are log-odds, or with several outputs logits of classes.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> class Cauchy(mfld.LossFunction):
    ...     smoothness = 2.0
    ...     def value_and_derivative(self, predictions, targets):
    ...         error = predictions - targets
    ...         return np.log1p(error**2), 2 * error / (1 + error**2)
    >>> Cauchy().derivative([0.0, 3.0], [1.0, 3.0])
    array([-1.,  0.])
    >>> model = mfld.TwoLayerNetwork(n_features=1)
    >>> risk = mfld.EmpiricalRisk(model, [[-1.0], [1.0]], [-1.0, 1.0], loss=Cauchy())
    >>> round(risk.loss(np.zeros((5, 3))), 6)        # all predictions are 0: log 2
    0.693147
    """

    has_conjugate: ClassVar[bool] = False
    has_probabilities: bool = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def native(self) -> _core.Loss | None:
        """This loss as the compiled core takes it; None where the core does not know it."""
        return None

    @property
    def targets(self) -> str | None:
        """Kind of the targets: ``"real"``, ``"sign"`` (-1 or +1) or ``"class"`` (0..K-1); None where unknown."""
        return None

    @property
    def convex(self) -> bool:
        """True where the loss is convex in the prediction."""
        return False

    def conjugate(self, dual: ArrayLike, targets: ArrayLike) -> FloatArray:
        """Convex conjugate of each sample, where `has_conjugate` is: see `Loss.conjugate`."""
        raise NotImplementedError(f"{type(self).__name__} does not define its conjugate")

    @property
    def smoothness(self) -> float:
        """Lipschitz constant of the derivative in the prediction; ``inf`` where there is none or it is not known."""
        return np.inf

    @abstractmethod
    def value_and_derivative(self, predictions: FloatArray, targets: FloatArray) -> tuple[ArrayLike, ArrayLike]:
        """Loss of each sample, and its derivative in the prediction.

        Parameters
        ----------
        predictions : ndarray, shape (n,), or (n, K) with several outputs
        targets : ndarray, shape (n,), or (n, C) with several columns

        Returns
        -------
        ndarray, shape (n,); ndarray, shape of the predictions
        """

    def check_targets(self, targets: ArrayLike, n_outputs: int = 1) -> FloatArray:
        """Targets as a matrix with a row per sample; override it to refuse what the loss cannot take.

        Parameters
        ----------
        targets : array_like, shape (n,) or (n, C)
        n_outputs : int
            Outputs of the model.

        Returns
        -------
        ndarray, shape (n, C)

        Raises
        ------
        TypeError, ValueError
            If they are no such array, or not finite.
        """
        matrix = validation.array("targets", targets)
        if matrix.ndim not in (1, 2) or 0 in matrix.shape:
            raise ValueError(f"targets must have shape (n,) or (n, C) with n and C at least 1, got {matrix.shape}")
        return matrix.reshape(len(matrix), -1)

    def value(self, predictions: ArrayLike, targets: ArrayLike) -> FloatArray:
        """Loss of each sample.

        Parameters
        ----------
        predictions : array_like, shape (n,) or (n, K)
        targets : array_like
            Shape of the predictions, or what the loss takes; shape (n,) for classes.

        Returns
        -------
        ndarray, shape (n,)

        Raises
        ------
        TypeError, ValueError
            If shapes disagree, a value is not finite, or a target is none of this loss.
        """
        return self.evaluate(*self._check("predictions", predictions, targets))[0]

    def derivative(self, predictions: ArrayLike, targets: ArrayLike) -> FloatArray:
        """Derivative in the prediction, a subgradient at a kink; arguments as in `value`.

        Returns
        -------
        ndarray, shape of the predictions
        """
        derivative = self.evaluate(*self._check("predictions", predictions, targets))[1]
        return derivative.reshape(np.shape(predictions))

    def evaluate(self, predictions: FloatArray, targets: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and derivatives (n, K) at predictions (n, K) and targets (n, C): what a risk calls."""
        if not np.isfinite(predictions).all():  # the particles diverge: the move says so, the loss need not see it
            return np.full(len(predictions), np.nan, predictions.dtype), np.full_like(predictions, np.nan)
        source = self._source
        u = predictions[:, 0] if predictions.shape[1] == 1 else predictions
        y = targets[:, 0] if targets.shape[1] == 1 else targets
        result = self.value_and_derivative(u.copy(), y.copy())  # copies: the function may do with them what it likes
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"{source} must return a tuple (values, derivative), got {validation.show(result)}")
        values = validation.returned(f"the values of {source}", result[0], (len(u),), u.dtype, "to match predictions")
        slopes = validation.returned(f"the derivative of {source}", result[1], u.shape, u.dtype, "to match predictions")
        for name, array in (("values", values), ("derivative", slopes)):
            bad = np.isnan(array).reshape(len(array), -1).any(axis=1)
            if bad.any():
                i = int(np.argmax(bad))
                raise ValueError(
                    f"the {name} of {source} must not be nan; got {array[i]} for prediction {u[i]} and target {y[i]}"
                )
        return values, slopes.reshape(predictions.shape)

    @property
    def _source(self) -> str:
        return f"{type(self).__name__}.value_and_derivative"

    def _check(self, name: str, points: ArrayLike, targets: ArrayLike) -> tuple[FloatArray, FloatArray]:
        points = validation.array(name, points)
        if points.ndim not in (1, 2) or 0 in points.shape:
            raise ValueError(f"{name} must have shape (n,) or (n, K) with n and K at least 1, got {points.shape}")
        points = points.reshape(len(points), -1)
        targets = self.check_targets(targets, points.shape[1])
        if len(targets) != len(points):
            raise ValueError(f"targets must have {len(points)} rows to match {name}, got {len(targets)}")
        return points, validation.array("targets", targets, points.dtype)


@final
@dataclass(frozen=True, init=False, repr=False)
class Loss(LossFunction):
    """A convex loss ``l(u, y)``, summed over the outputs of a prediction.

    ==================  =================================================  ==============
    ``squared``         ``(u - y)**2``                                     y real
    ``half_squared``    ``(u - y)**2 / 2``                                 y real
    ``absolute``        ``|u - y|``                                        y real
    ``huber``           ``r**2/2`` if ``|r| <= delta`` with ``r = u - y``  y real
                        else ``delta * (|r| - delta/2)``
    ``logistic``        ``log(1 + exp(-y u))``                             y -1 or +1
    ``hinge``           ``max(0, 1 - y u)``                                y -1 or +1
    ``smoothed_hinge``  0 if ``y u >= 1``,                                 y -1 or +1
                        ``1 - y u - gamma/2`` if ``y u <= 1 - gamma``,
                        else ``(1 - y u)**2 / (2 gamma)``
    ``cross_entropy``   ``log(sum_k exp(u_k)) - u_y``                      y 0..K-1
    ==================  =================================================  ==============

    Parameters
    ----------
    name : str
        A name among `losses`.
    **parameter : float
        ``delta`` of ``huber`` or ``gamma`` of ``smoothed_hinge``: positive, 1 by default.

    Attributes
    ----------
    name : str
    parameter : float or None
        Value of the parameter, None where the loss has none.

    Raises
    ------
    TypeError, ValueError
        If there is no such loss, or it has no such parameter, or the parameter is not positive.

    Examples
    --------
    >>> import mfld
    >>> loss = mfld.Loss("huber", delta=2.0)
    >>> loss.value([0.0, 5.0], [1.0, 1.0])
    array([0.5, 6. ])
    >>> loss.derivative([0.0, 5.0], [1.0, 1.0])
    array([-1.,  2.])
    >>> loss.smoothness
    1.0
    """

    name: str
    parameter: float | None

    has_conjugate: ClassVar[bool] = True

    def __init__(self, name: str, **parameter: float) -> None:
        validation.choice("loss", name, losses())
        _, expected, default, _, _ = _core.backend.losses[losses().index(name)]
        for given in parameter:
            if given != expected:
                has = "no parameter" if expected is None else f"the parameter {expected!r} only"
                raise TypeError(f"the loss {name!r} has {has}, got {given!r}")
        value = None if expected is None else validation.real(expected, parameter.get(expected, default), positive=True)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "parameter", value)

    def __repr__(self) -> str:
        return f"Loss({self.name!r}{'' if self.parameter is None else f', {self.parameter_name}={self.parameter}'})"

    @property
    def has_probabilities(self) -> bool:  # type: ignore[override]
        return self.name in ("logistic", "cross_entropy")

    @property
    def parameter_name(self) -> str | None:
        """Name of the parameter, None where the loss has none."""
        return self._info[1]

    @property
    def targets(self) -> str:
        return self._info[3]

    @property
    def convex(self) -> bool:
        """True where the loss is convex in the prediction."""
        return self._info[4]

    @property
    def smoothness(self) -> float:
        """Lipschitz constant of the derivative in the prediction; ``inf`` where there is none."""
        return _core.backend.loss_smoothness(self.native)

    def value_and_derivative(self, predictions: ArrayLike, targets: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Both at once; arguments and errors as in `value`."""
        values, derivative = self.evaluate(*self._check("predictions", predictions, targets))
        return values, derivative.reshape(np.shape(predictions))

    def evaluate(self, predictions: FloatArray, targets: FloatArray) -> tuple[FloatArray, FloatArray]:
        return _core.backend.loss(self.native, predictions, targets)

    def conjugate(self, dual: ArrayLike, targets: ArrayLike) -> FloatArray:
        """Convex conjugate ``l*(g, y) = sup_u (g.u - l(u, y))`` of each sample.

        Parameters
        ----------
        dual : array_like, shape (n,) or (n, K)
            The dual points g.
        targets : array_like
            As in `value`.

        Returns
        -------
        ndarray, shape (n,)
            ``inf`` outside of the domain.

        Raises
        ------
        TypeError, ValueError
            As in `value`.

        Examples
        --------
        >>> import mfld
        >>> mfld.Loss("absolute").conjugate([0.5, 2.0], [3.0, 3.0])
        array([1.5, inf])
        """
        return _core.backend.conjugate(self.native, *self._check("dual", dual, targets))

    def dual_step(
        self, dual: ArrayLike, predictions: ArrayLike, targets: ArrayLike, step: ArrayLike
    ) -> NDArray[np.float64]:
        """One step of dual coordinate ascent at each sample by itself.

        ::

            g <- argmin_q  l*(q, y) - u (q - g) + |q - g|**2 / (2 a)

        in closed form, or by a Newton iteration that cannot leave the domain. Source: Oko, Suzuki, Nitanda, Wu 2022,
        "Particle stochastic dual coordinate ascent".

        Parameters
        ----------
        dual, predictions : array_like, shape (n,) or (n, K)
            The dual points g and the predictions u.
        targets : array_like
            As in `value`.
        step : array_like, shape (n,)
            The lengths a of the steps, positive.

        Returns
        -------
        ndarray, shape of the dual points

        Raises
        ------
        TypeError, ValueError
            As in `value`, or if a step is not positive.

        Examples
        --------
        >>> import mfld
        >>> mfld.Loss("half_squared").dual_step([0.0], [1.0], [3.0], step=[1.0])
        array([-1.])
        """
        points, matrix = self._check("dual", validation.array("dual", dual, np.float64), targets)
        values = validation.array("predictions", predictions, np.float64).reshape(len(points), -1)
        validation.shape("predictions", values, points.shape, "to match dual")
        lengths = validation.array("step", step, np.float64)
        validation.shape("step", lengths, (len(points),), "to match dual")
        if (lengths <= 0).any():
            raise ValueError(f"step must be positive, got {lengths.min()}")
        stepped: NDArray[np.float64] = _core.backend.dual_step(self.native, points, values, matrix, lengths)
        return stepped.reshape(np.shape(dual))

    def check_targets(self, targets: ArrayLike, n_outputs: int = 1) -> FloatArray:
        """Targets as a matrix with a row per sample, if they are what this loss takes.

        Parameters
        ----------
        targets : array_like
            Shape (n,), or (n, n_outputs) with several outputs; classes have shape (n,).
        n_outputs : int
            Outputs of the model; for classes, how many classes there are.

        Returns
        -------
        ndarray, shape (n, n_outputs); (n, 1) for classes

        Raises
        ------
        TypeError, ValueError
            Otherwise; the message shows the values that do not fit.
        """
        matrix = validation.array("targets", targets)
        columns = 1 if self.targets == "class" else n_outputs
        if self.targets == "class" and n_outputs < 2:
            raise ValueError(f"n_outputs must be the number of classes, at least 2, for {self!r}, got {n_outputs}")
        if columns == 1 and matrix.ndim == 1:
            matrix = matrix[:, np.newaxis]
        if matrix.ndim != 2 or matrix.shape[1] != columns or not len(matrix):
            expected = "(n,)" if columns == 1 else f"(n, {columns})"
            raise ValueError(f"targets must have shape {expected} with n at least 1, got {np.shape(targets)}")
        if self.targets == "sign":
            self._refuse(matrix, np.abs(matrix) != 1, "-1 or +1")
        elif self.targets == "class":
            bad = (matrix != np.floor(matrix)) | (matrix < 0) | (matrix >= n_outputs)
            self._refuse(matrix, bad, f"integers between 0 and {n_outputs - 1}")
        return matrix

    @property
    def native(self) -> _core.Loss:
        return _native(self)

    @property
    def _info(self) -> tuple[str, str | None, float, str, bool]:
        return _core.backend.losses[losses().index(self.name)]

    def _refuse(self, targets: FloatArray, bad: np.typing.NDArray[np.bool_], expected: str) -> None:
        if bad.any():
            values = [f"{value:g}" for value in np.unique(targets[bad])]
            shown = ", ".join(values[:5]) + (", ..." if len(values) > 5 else "")
            raise ValueError(
                f"targets of the loss {self.name!r} must be {expected}; "
                f"{np.count_nonzero(bad)} of {targets.size} are not: {shown}"
            )


@functools.lru_cache  # it is asked for at every step, and cannot be pickled with the loss
def _native(loss: Loss) -> _core.Loss:
    return _core.Loss(losses().index(loss.name), 0.0 if loss.parameter is None else loss.parameter)


@dataclass(frozen=True)
class _FunctionLoss(LossFunction):
    """A loss from a plain function."""

    function: Callable[[FloatArray, FloatArray], tuple[ArrayLike, ArrayLike]]

    def __repr__(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))

    def value_and_derivative(self, predictions: FloatArray, targets: FloatArray) -> tuple[ArrayLike, ArrayLike]:
        return self.function(predictions, targets)

    @property
    def _source(self) -> str:
        return f"loss {getattr(self.function, '__name__', repr(self.function))}"


AnyLoss: TypeAlias = str | LossFunction | Callable[[Any, Any], tuple[ArrayLike, ArrayLike]]
"""A name, a loss, or a function ``(predictions, targets) -> (values, derivative)``."""


def as_loss(loss: AnyLoss) -> LossFunction:
    """A loss from its name or its function, or as it is."""
    if isinstance(loss, LossFunction):
        return loss
    if isinstance(loss, str):
        return Loss(loss)
    if callable(loss) and not isinstance(loss, type):
        return _FunctionLoss(loss)
    expected = "a name, a LossFunction, or a function (predictions, targets) -> (values, derivative)"
    raise TypeError(f"loss must be {expected}, got {validation.show(loss)}")
