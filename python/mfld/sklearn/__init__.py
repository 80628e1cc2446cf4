"""Estimators for scikit-learn: networks, densities, generators and spikes, by mean-field Langevin dynamics.

They need scikit-learn 1.6 or newer: ``pip install 'mfld[sklearn]'``. What is not given the networks choose by the rule
of `mfld.fitting`, with two additions: mini-batches have n / 40 rows where that is more, so that the default number of
steps sees each row about ten times at least; and the precision is that of X, float32 or else float64. Fits that go on
keep standardisation, step size and held-out rows.

From scikit-learn 1.9 on they take its callbacks, ``set_callbacks(ProgressBar())``: `fit` is a task with about a hundred
subtasks, each of so many steps. A hook may have the rows, the ``sample_weight`` and the estimator as it is after the
subtask, and may stop the fit; it does not change the steps. `partial_fit` calls none.
"""

try:
    from mfld.sklearn.classifier import MeanFieldClassifier
    from mfld.sklearn.deconvolver import Deconvolver
    from mfld.sklearn.density import MeanFieldDensity
    from mfld.sklearn.diffusion import DiffusionSampler
    from mfld.sklearn.generator import MeanFieldGenerator
    from mfld.sklearn.regressor import MeanFieldRegressor
    from mfld.sklearn.residual import ResidualClassifier, ResidualRegressor
    from mfld.sklearn.synthesizer import PrivateSynthesizer
except ImportError as error:
    raise ImportError("mfld.sklearn needs scikit-learn 1.6 or newer: pip install 'mfld[sklearn]'") from error

__all__ = [
    "Deconvolver",
    "DiffusionSampler",
    "MeanFieldClassifier",
    "MeanFieldDensity",
    "MeanFieldGenerator",
    "MeanFieldRegressor",
    "PrivateSynthesizer",
    "ResidualClassifier",
    "ResidualRegressor",
]
