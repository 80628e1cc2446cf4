"""Estimators for scikit-learn: two-layer networks trained by mean-field Langevin dynamics.

They need scikit-learn 1.6 or newer: ``pip install 'mfld[sklearn]'``. What they choose by themselves:

* Features, and the targets of a regression, are standardised by their weighted mean and standard deviation.
* Two classes take the logistic loss, more the cross-entropy, numbers the half squared loss.
* The temperature is ``2 * l2 * 0.1**2``: without data, each coordinate of a neuron would be N(0, 0.1**2).
* The step size is half of the largest one that is stable at the start; fits that go on keep it.
* Steps use all rows up to 128 of them, and mini-batches beyond: of 64 rows, or n / 40 where that is more, so that the
  default number of steps sees each row about ten times at least.
* The precision is that of X: float32, or else float64.

From scikit-learn 1.9 on they take its callbacks, ``set_callbacks(ProgressBar())``: `fit` is a task with about a hundred
subtasks, each of so many steps. A hook may have the rows, the ``sample_weight`` and the estimator as it is after the
subtask, and may stop the fit; it does not change the steps. `partial_fit` calls none.
"""

try:
    from mfld.sklearn.classifier import MeanFieldClassifier
    from mfld.sklearn.regressor import MeanFieldRegressor
except ImportError as error:
    raise ImportError("mfld.sklearn needs scikit-learn 1.6 or newer: pip install 'mfld[sklearn]'") from error

__all__ = ["MeanFieldClassifier", "MeanFieldRegressor"]
