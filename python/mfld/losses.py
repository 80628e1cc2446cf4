"""Losses of a prediction u against a target y: a handle on the registry of the compiled core."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mfld import _core, validation
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


@dataclass(frozen=True, init=False, repr=False)
class Loss:
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
    def parameter_name(self) -> str | None:
        """Name of the parameter, None where the loss has none."""
        return self._info[1]

    @property
    def targets(self) -> str:
        """What targets are: ``"real"``, ``"sign"`` (-1 or +1) or ``"class"`` (0..K-1)."""
        return self._info[3]

    @property
    def convex(self) -> bool:
        """Whether the loss is convex in the prediction."""
        return self._info[4]

    @property
    def smoothness(self) -> float:
        """Lipschitz constant of the derivative in the prediction; ``inf`` where there is none."""
        return _core.backend.loss_smoothness(self.native)

    def value(self, predictions: ArrayLike, targets: ArrayLike) -> FloatArray:
        """Loss of each sample.

        Parameters
        ----------
        predictions : array_like, shape (n,) or (n, K)
        targets : array_like
            Shape of the predictions; shape (n,) for classes.

        Returns
        -------
        ndarray, shape (n,)

        Raises
        ------
        TypeError, ValueError
            If shapes disagree, a value is not finite, or a target is none of this loss.
        """
        return self._evaluate(predictions, targets)[0]

    def derivative(self, predictions: ArrayLike, targets: ArrayLike) -> FloatArray:
        """Derivative in the prediction, a subgradient at a kink; arguments as in `value`.

        Returns
        -------
        ndarray, shape of the predictions
        """
        return self._evaluate(predictions, targets)[1].reshape(np.shape(predictions))

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
        """This loss as the compiled core takes it."""
        return _core.Loss(losses().index(self.name), 0.0 if self.parameter is None else self.parameter)

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

    def _check(self, name: str, points: ArrayLike, targets: ArrayLike) -> tuple[FloatArray, FloatArray]:
        points = validation.array(name, points)
        if points.ndim not in (1, 2) or 0 in points.shape:
            raise ValueError(f"{name} must have shape (n,) or (n, K) with n and K at least 1, got {points.shape}")
        points = points.reshape(len(points), -1)
        targets = self.check_targets(targets, points.shape[1])
        if len(targets) != len(points):
            raise ValueError(f"targets must have {len(points)} rows to match {name}, got {len(targets)}")
        return points, validation.array("targets", targets, points.dtype)

    def _evaluate(self, predictions: ArrayLike, targets: ArrayLike) -> tuple[FloatArray, FloatArray]:
        return _core.backend.loss(self.native, *self._check("predictions", predictions, targets))


def as_loss(loss: str | Loss) -> Loss:
    """A loss from its name, or as it is."""
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str):
        raise TypeError(f"loss must be a name or a Loss, got {loss!r} ({type(loss).__name__})")
    return Loss(loss)
