"""The classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets

from mfld import fitting, private_fitting, validation
from mfld.algorithms import Algorithm
from mfld.dynamics import Dynamics
from mfld.fitting import TrainedRisk
from mfld.floating import underflow_is_zero
from mfld.functional_data import Covariance, Grid
from mfld.gradients import GradientEstimator
from mfld.losses import AnyLoss, LossFunction, as_loss
from mfld.models import Model
from mfld.objectives import SignedRisk
from mfld.private_fitting import PrivateChoices
from mfld.schedules import Scheduled
from mfld.sklearn.base import ATTRIBUTES, PARAMETERS, MeanFieldEstimator, Named, whole_or_not
from mfld.sklearn.hooks import with_callbacks
from mfld.validation import FloatArray

if TYPE_CHECKING:
    from numpy.random import RandomState


_LOSS = '"auto" is logistic for two classes and cross_entropy for more; with readout="bilevel" half_squared.'


class MeanFieldClassifier(ClassifierMixin, MeanFieldEstimator):  # type: ignore[misc]
    __doc__ = f"""Classifier: a two-layer network, trained by mean-field Langevin dynamics.

    Two classes have one output, whose sign decides, unless the loss is the cross-entropy; more have one each. Losses
    of signs, and of numbers, take -1 and +1: with several classes one against the rest. `predict_proba` exists for the
    logistic loss and the cross-entropy.

    Parameters
    ----------{PARAMETERS.format(loss=_LOSS)}
    class_weight : dict, "balanced" or None
        Weights of classes, which multiply those of the samples. "balanced" makes all classes weigh the same.
    epsilon : float, optional
        Trains under (epsilon, delta)-differential privacy, by clipped gradients with noise: what `fit` may cost, for
        tables that differ in one row, there or not. The number of rows and the classes are public. What would look at
        rows beside that is refused: early stopping, weights, certificates, a step size that is found on the way,
        fits that go on. See `mfld.private_fitting`.
    delta : float
        Of epsilon: the probability that more is lost.
    bounds : array_like, shape (n_features, 2) or (2,), optional
        Of epsilon: public bounds of features by which they are standardised; by default estimated for a tenth of the
        budget.

    Attributes
    ----------{ATTRIBUTES}
    classes_ : ndarray
    privacy_spent_ : float
        With epsilon: what the fit has cost at delta.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.model_selection import cross_val_score
    >>> from mfld.sklearn import MeanFieldClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> bool(cross_val_score(MeanFieldClassifier(random_state=0), X, y).mean() > 0.95)
    True
    """

    classes_: NDArray[Any]
    _private: PrivateChoices | None = None

    def __init__(
        self,
        *,
        loss: AnyLoss = "auto",
        activation: str = "silu",
        readout: str = "bounded",
        readout_bound: float = 5.0,
        strength: float | None = None,
        model: Callable[[int, int], Model] | None = None,
        covariance: Covariance | None = None,
        grid: Grid | ArrayLike | None = None,
        n_modes: int = 64,
        n_particles: int = 256,
        n_steps: int = 500,
        step_size: Scheduled | str | None = None,
        l2: float = 5e-3,
        temperature: Scheduled | None = None,
        gradient: Named | GradientEstimator = "auto",
        batch_size: int | None = None,
        dynamics: Named | Dynamics = "auto",
        algorithm: Named | Algorithm = "mfld",
        dtype: str | None = None,
        standardise: bool = True,
        class_weight: Mapping[Any, float] | str | None = None,
        epsilon: float | None = None,
        delta: float = 1e-5,
        bounds: ArrayLike | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        certify: bool = False,
        warm_start: bool = False,
        random_state: int | RandomState | None = None,
        n_jobs: int | None = None,
        verbose: bool | int = False,
    ) -> None:
        super().__init__(
            loss=loss,
            activation=activation,
            readout=readout,
            readout_bound=readout_bound,
            strength=strength,
            model=model,
            covariance=covariance,
            grid=grid,
            n_modes=n_modes,
            n_particles=n_particles,
            n_steps=n_steps,
            step_size=step_size,
            l2=l2,
            temperature=temperature,
            gradient=gradient,
            batch_size=batch_size,
            dynamics=dynamics,
            algorithm=algorithm,
            dtype=dtype,
            standardise=standardise,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            certify=certify,
            warm_start=warm_start,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.class_weight = class_weight
        self.epsilon = epsilon
        self.delta = delta
        self.bounds = bounds

    @whole_or_not
    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on rows X, shape (n, n_features), and labels y, shape (n,), with weights of rows, shape (n,)."""
        go_on = self.warm_start and hasattr(self, "state_")
        inputs, labels, weights = self._checked(X, y, sample_weight, reset=not go_on)
        check_classification_targets(labels)
        classes = np.unique(labels)
        if go_on and not np.array_equal(classes, self.classes_):
            raise ValueError(f"warm_start needs the classes of the last fit, {self.classes_}, got {classes}")
        self.classes_ = classes
        self._forget_privacy()
        if self.epsilon is not None:
            if sample_weight is not None:
                raise ValueError("sample_weight must be None with epsilon: rows of weight 2 would lose twice as much")
            return self._train_privately(inputs, labels)
        return self._train(inputs, labels, self._weighted(labels, weights), weights, go_on=go_on)

    @whole_or_not
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Go on with some rows, as many steps as see each of them about once.

        The standardisation is that of the first call. ``classes``, all labels that will ever come, is needed there.

        Raises
        ------
        TypeError
            If the algorithm is not mean-field Langevin dynamics: the others belong to their rows.
        """
        self._check_partial_fit()
        if self.epsilon is not None:
            raise ValueError(
                f"epsilon must be None for partial_fit, which has no account of privacy, got {self.epsilon}"
            )
        self._forget_privacy()
        first = not hasattr(self, "state_")
        inputs, labels, weights = self._checked(X, y, sample_weight, reset=first)
        check_classification_targets(labels)
        if first:
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            self.classes_ = np.unique(classes)
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"classes must be those of the first call, {self.classes_}, got {classes}")
        unknown = np.setdiff1d(labels, self.classes_)
        if len(unknown):
            raise ValueError(f"y must hold classes of the first call, {self.classes_}, got {unknown}")
        return self._one_pass(inputs, labels, self._weighted(labels, weights), first=first)

    def _forget_privacy(self) -> None:
        """Forget what an earlier fit has cost, which says nothing of one that looks at rows again."""
        self._private = None
        self.__dict__.pop("privacy_spent_", None)

    def _train_privately(self, X: FloatArray, y: NDArray[Any]) -> Self:
        """Train with clipped gradients: of the rows nothing is seen that is not paid for."""
        n_steps = validation.integer("n_steps", self.n_steps, 1)
        self._check_own_parameters()
        for name in ("early_stopping", "certify", "warm_start", "class_weight", "covariance", "grid"):
            if getattr(self, name) not in (False, None):
                raise ValueError(f"{name} must be left out with epsilon: it looks at rows, got {getattr(self, name)!r}")
        for name, only in (("algorithm", "mfld"), ("gradient", "auto"), ("dynamics", "auto")):
            if getattr(self, name) != only:
                raise ValueError(f"{name} must be {only!r} with epsilon, got {getattr(self, name)!r}")
        if isinstance(self.step_size, str):
            raise ValueError(f"step_size must be a number with epsilon: {self.step_size!r} looks at rows")
        assert self.epsilon is not None
        choices = private_fitting.choose(
            X,
            n_steps,
            epsilon=self.epsilon,
            delta=self.delta,
            n_particles=self.n_particles,
            n_classes=len(self.classes_),
            bounds=self.bounds,
            standardise=self.standardise,
            batch_size=self.batch_size,
        )
        self._private = choices
        self._start(X, y, None)
        self._run(self._risk(X, y, None), n_steps, None, None, go_on=False)
        self.privacy_spent_ = choices.spent
        return self

    def _scaling(self, X: FloatArray, weights: NDArray[np.float64] | None) -> fitting.Scaling:
        return super()._scaling(X, weights) if self._private is None else self._private.scaling

    def _gradient(self, n: int, reduced: SignedRisk | None) -> GradientEstimator:
        return super()._gradient(n, reduced) if self._private is None else self._private.gradient

    def _largest_curvature(self, risk: TrainedRisk, n_particles: int, dtype: str) -> float:
        if self._private is None:
            return super()._largest_curvature(risk, n_particles, dtype)

        def alike(inputs: FloatArray, classes: NDArray[np.int64]) -> TrainedRisk:
            targets = self._encoded(self.classes_[classes])
            return fitting.risk(self.model_, inputs, targets, loss=self._loss(), l2=self.l2)

        return self._private.curvature(alike, risk.inputs.shape[1], len(self.classes_), n_particles)

    def decision_function(self, X: ArrayLike) -> FloatArray:
        """Scores: for two classes shape (n,), positive for the second; else (n, n_classes), the largest decides."""
        outputs = self._outputs(X)
        if len(self.classes_) == 2 and outputs.ndim == 2:
            return outputs[:, 1] - outputs[:, 0]
        return outputs

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels, shape (n,)."""
        return fitting.decided(self.decision_function(X), self.classes_)

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy of the predictions for rows X, with weights of rows, shape (n,)."""
        validation.unmasked("y", y)
        validation.unmasked("sample_weight", sample_weight)
        score: float = super().score(X, y, sample_weight)
        return score

    def _has_probabilities(self) -> bool:
        try:
            if self.loss == "auto" or as_loss(self.loss).has_probabilities:
                return True
        except (TypeError, ValueError):
            pass  # no loss, which fit will say
        raise AttributeError(f"probabilities exist for the losses logistic and cross_entropy, not for {self.loss!r}")

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    @underflow_is_zero
    def predict_proba(self, X: ArrayLike) -> FloatArray:
        """Probabilities of the classes, shape (n, n_classes); one against the rest for several with logistic loss."""
        return fitting.probabilities(self.decision_function(X), self._loss())

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    @underflow_is_zero
    def predict_log_proba(self, X: ArrayLike) -> FloatArray:
        """Logarithms of the probabilities."""
        with np.errstate(divide="ignore"):
            logarithms: FloatArray = np.log(self.predict_proba(X))
        return logarithms

    def _loss(self) -> LossFunction:
        if isinstance(self.loss, str) and self.loss == "auto":
            return fitting.default_loss(len(self.classes_), bilevel=self._is_bilevel)
        return as_loss(self.loss)

    def _n_outputs(self) -> int:
        n = len(self.classes_)
        if n < 2:
            raise ValueError(f"{type(self).__name__} needs at least 2 classes, got 1 class: {self.classes_[0]!r}")
        return fitting.n_outputs(n, self._loss())

    def _encoded(self, y: NDArray[Any]) -> NDArray[np.float64]:
        return fitting.encoded(y, self.classes_, self._loss())

    def _weighted(self, y: NDArray[Any], weights: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """Weights of samples times those of their classes."""
        if self.class_weight is None:
            return weights
        numbers = np.searchsorted(self.classes_, y)
        if self.class_weight == "balanced":
            # By their weights: a weight of 2 is to be what two rows are.
            total = np.bincount(numbers, weights, minlength=len(self.classes_))
            of_class = np.divide(1.0, total, out=np.zeros_like(total, dtype=float), where=total > 0)
        else:
            of_class = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
        own: NDArray[np.float64] = of_class[numbers]
        return own if weights is None else weights * own
