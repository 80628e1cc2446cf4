"""The regressor."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin

from mfld import fitting, validation
from mfld.floating import underflow_is_zero
from mfld.losses import LossFunction, as_loss
from mfld.sklearn import frames
from mfld.sklearn.base import ATTRIBUTES, PARAMETERS, MeanFieldEstimator, whole_or_not
from mfld.sklearn.hooks import with_callbacks
from mfld.validation import FloatArray


class MeanFieldRegressor(RegressorMixin, MeanFieldEstimator):  # type: ignore[misc]
    __doc__ = f"""Regressor, for one target or several: a two-layer network, trained by mean-field Langevin dynamics.

    Parameters
    ----------{PARAMETERS.format(loss='One of real targets, of the standardised ones; "auto" is half_squared.')}

    Attributes
    ----------{ATTRIBUTES}
    target_mean_, target_scale_ : ndarray, shape (n_targets,)

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.model_selection import cross_val_score
    >>> from mfld.sklearn import MeanFieldRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> bool(cross_val_score(MeanFieldRegressor(l2=0.03, random_state=0), X, y).mean() > 0.45)
    True
    """

    @whole_or_not
    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on rows X, shape (n, n_features), and numbers y, shape (n,) or (n, n_targets), with weights of rows."""
        go_on = self.warm_start and hasattr(self, "state_")
        inputs, targets, weights = self._rows(X, y, sample_weight, reset=not go_on)
        return self._train(inputs, targets, weights, weights, go_on=go_on)

    @whole_or_not
    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Go on with some rows, as many steps as see each of them about once.

        The standardisation is that of the first call.

        Raises
        ------
        TypeError
            If the algorithm is not mean-field Langevin dynamics: the others belong to their rows.
        """
        self._check_partial_fit()
        first = not hasattr(self, "state_")
        inputs, targets, weights = self._rows(X, y, sample_weight, reset=first)
        return self._one_pass(inputs, targets, weights, first=first)

    @underflow_is_zero
    def predict(self, X: ArrayLike) -> FloatArray:
        """Predicted numbers, shape (n,) or (n, n_targets), float64: the offset may be large beside what varies."""
        outputs = self._outputs(X)
        numbers: FloatArray = outputs.reshape(len(outputs), -1) * self.target_scale_ + self.target_mean_
        return np.reshape(numbers, (len(outputs), *self._columns))

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """R2 of the predictions for rows X, with weights of rows, shape (n,)."""
        validation.unmasked("y", y)
        validation.unmasked("sample_weight", sample_weight)
        score: float = super().score(X, y, sample_weight)
        return score

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _rows(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, *, reset: bool
    ) -> tuple[FloatArray, NDArray[Any], NDArray[np.float64] | None]:
        inputs, targets, weights = self._checked(X, y, sample_weight, reset=reset, multi_output=True, y_numeric=True)
        columns = targets.shape[1:]
        if reset:
            self._columns = columns
        elif columns != self._columns:
            raise ValueError(f"y must have rows of shape {self._columns} as before, got {columns}")
        numbers = targets.astype(np.float64)
        frames.check_range("y", numbers)
        return inputs, numbers.reshape(len(targets), -1), weights

    def _loss(self) -> LossFunction:
        loss = fitting.default_loss(0) if isinstance(self.loss, str) and self.loss == "auto" else as_loss(self.loss)
        if loss.targets not in (None, "real"):
            raise ValueError(f"loss must be one of real targets for a regression, got {self.loss!r}")
        return loss

    def _start_targets(self, y: NDArray[Any], weights: NDArray[np.float64] | None) -> None:
        self._loss()
        self.target_mean_, self.target_scale_ = fitting.moments(y, weights)

    def _n_outputs(self) -> int:
        return len(self.target_mean_)

    def _encoded(self, y: NDArray[Any]) -> NDArray[np.float64]:
        return (y - self.target_mean_) / self.target_scale_
