"""Classifier and regressor of deep residual networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from numpy.typing import ArrayLike

from mfld.dynamics import Dynamics
from mfld.gradients import GradientEstimator
from mfld.losses import AnyLoss
from mfld.residual import ResidualNetwork
from mfld.schedules import Scheduled
from mfld.sklearn.base import MeanFieldEstimator, Named
from mfld.sklearn.classifier import MeanFieldClassifier
from mfld.sklearn.regressor import MeanFieldRegressor

if TYPE_CHECKING:
    from numpy.random import RandomState

_PARAMETERS = """
    depth : int
        Layers.
    n_hidden : int
        Coordinates of the state beside inputs and outputs, see `mfld.ResidualNetwork`: room for features of few inputs.
    n_particles : int
        Neurons of a layer.
    checkpoint_every : int
        States are kept at each so many layers, and recomputed between them.
    loss, activation, readout, readout_bound, n_steps, step_size, l2, temperature, gradient, batch_size, \
dynamics, dtype, standardise, early_stopping, validation_fraction, n_iter_no_change, tol, warm_start, random_state, \
n_jobs, verbose
        As in `{other}`.

    Attributes
    ----------
    state_, model_, n_iter_, loss_curve_, step_size_, temperature_, scaling_
        As in `{other}`; ``cloud_`` has particles of the shape (depth, n_particles, p)."""


class _Residual(MeanFieldEstimator):
    """Parts that both kinds have: a residual network in place of two layers, and no pruning."""

    depth: int
    n_hidden: int
    checkpoint_every: int

    _has_outer_weights = False
    _of_network = (*MeanFieldEstimator._of_network, "depth", "n_hidden")

    def _network(self, n_features: int, n_outputs: int, **network: Any) -> ResidualNetwork:
        return ResidualNetwork(
            n_features,
            n_outputs,
            self.depth,
            n_hidden=self.n_hidden,
            checkpoint_every=self.checkpoint_every,
            **network,
        )

    def prune(self, n_particles: int, X: ArrayLike) -> NoReturn:
        raise NotImplementedError("layers of a residual network are not pruned: fit one with fewer n_particles")


class ResidualClassifier(_Residual, MeanFieldClassifier):
    __doc__ = f"""Classifier: a deep residual network, trained by mean-field Langevin dynamics of its layers.

    Parameters
    ----------{_PARAMETERS.format(other="MeanFieldClassifier")}
    classes_ : ndarray

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.model_selection import cross_val_score
    >>> from mfld.sklearn import ResidualClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> network = ResidualClassifier(depth=3, n_particles=32, n_steps=200, random_state=0)
    >>> bool(cross_val_score(network, X, y, cv=3).mean() > 0.95)
    True
    """

    def __init__(
        self,
        *,
        depth: int = 8,
        n_hidden: int = 4,
        n_particles: int = 64,
        checkpoint_every: int = 1,
        loss: AnyLoss = "auto",
        activation: str = "silu",
        readout: str = "bounded",
        readout_bound: float = 5.0,
        n_steps: int = 500,
        step_size: Scheduled | str | None = None,
        l2: float = 5e-3,
        temperature: Scheduled | None = None,
        gradient: Named | GradientEstimator = "auto",
        batch_size: int | None = None,
        dynamics: Named | Dynamics = "auto",
        dtype: str | None = None,
        standardise: bool = True,
        class_weight: Any = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
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
            n_particles=n_particles,
            n_steps=n_steps,
            step_size=step_size,
            l2=l2,
            temperature=temperature,
            gradient=gradient,
            batch_size=batch_size,
            dynamics=dynamics,
            dtype=dtype,
            standardise=standardise,
            class_weight=class_weight,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            warm_start=warm_start,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.depth = depth
        self.n_hidden = n_hidden
        self.checkpoint_every = checkpoint_every


class ResidualRegressor(_Residual, MeanFieldRegressor):
    __doc__ = f"""Regressor of one target or several: a deep residual network, trained by mean-field Langevin dynamics.

    Parameters
    ----------{_PARAMETERS.format(other="MeanFieldRegressor")}
    target_mean_, target_scale_ : ndarray, shape (n_targets,)

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.model_selection import cross_val_score
    >>> from mfld.sklearn import ResidualRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> network = ResidualRegressor(depth=3, n_particles=32, l2=0.03, n_steps=200, random_state=0)
    >>> bool(cross_val_score(network, X, y, cv=3).mean() > 0.45)
    True
    """

    def __init__(
        self,
        *,
        depth: int = 8,
        n_hidden: int = 4,
        n_particles: int = 64,
        checkpoint_every: int = 1,
        loss: AnyLoss = "auto",
        activation: str = "silu",
        readout: str = "bounded",
        readout_bound: float = 5.0,
        n_steps: int = 500,
        step_size: Scheduled | str | None = None,
        l2: float = 5e-3,
        temperature: Scheduled | None = None,
        gradient: Named | GradientEstimator = "auto",
        batch_size: int | None = None,
        dynamics: Named | Dynamics = "auto",
        dtype: str | None = None,
        standardise: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
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
            n_particles=n_particles,
            n_steps=n_steps,
            step_size=step_size,
            l2=l2,
            temperature=temperature,
            gradient=gradient,
            batch_size=batch_size,
            dynamics=dynamics,
            dtype=dtype,
            standardise=standardise,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            warm_start=warm_start,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.depth = depth
        self.n_hidden = n_hidden
        self.checkpoint_every = checkpoint_every
