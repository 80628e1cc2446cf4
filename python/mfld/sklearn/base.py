"""Parameters, training and rows that the classifier and the regressor have in common."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import sys
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from numbers import Integral
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeAlias, TypeVar

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from mfld import dynamics as dynamics_module
from mfld import fitting, outer_weights, validation
from mfld.algorithms import Algorithm, Callback, Result
from mfld.callbacks import Progress
from mfld.dynamics import Dynamics, Overdamped
from mfld.fitting import ALGORITHMS, GRADIENTS, Choices, KeepBest, TrainedRisk
from mfld.floating import underflow_is_zero
from mfld.functional_data import Covariance, FunctionalNetwork, Grid
from mfld.functional_data.grids import as_grid
from mfld.gradients import GradientEstimator
from mfld.losses import AnyLoss, LossFunction
from mfld.models import Model, TwoLayerNetwork, readouts
from mfld.objectives import SignedRisk
from mfld.pruning import prune
from mfld.residual import ResidualNetwork
from mfld.schedules import Scheduled
from mfld.sklearn import frames
from mfld.sklearn.hooks import CallbackSupportMixin, Hooks
from mfld.state import Cloud, Info, State
from mfld.validation import FloatArray

if TYPE_CHECKING:
    from numpy.random import RandomState

# The number of steps is a parameter, and not by the rows: the default one, 500, sees each row about ten times at least.
_LEAST_SHARE = 1 / 40  # of the rows, in a mini-batch
_WIDER = 4.0  # than the widest row of the first fit: the step size of that may be unstable

# What a network is made of at the start of a training, and is no other where a fit goes on.
_OF_START = ("standardise", "model", "dtype")

Named: TypeAlias = str

_Arguments = ParamSpec("_Arguments")
_Estimator = TypeVar("_Estimator", bound=BaseEstimator)
_Answer = TypeVar("_Answer")


def whole_or_not(
    method: Callable[Concatenate[_Estimator, _Arguments], _Answer],
) -> Callable[Concatenate[_Estimator, _Arguments], _Answer]:
    """A method that trains: whatever exception ends it leaves the estimator as it was before, fitted or not."""

    @functools.wraps(method)
    def trained(self: _Estimator, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Answer:
        # A fit sets attributes and changes none in place: a shallow copy brings all of them back, in one assignment.
        before = dict(vars(self))
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            self.__dict__ = before
            raise

    return trained


def _has_defaults(kind: type) -> bool:
    return all(parameter.default is not parameter.empty for parameter in inspect.signature(kind).parameters.values())


_DYNAMICS: dict[str, type[Dynamics]] = {
    name.lower(): kind
    for name in dynamics_module.__all__
    if isinstance(kind := getattr(dynamics_module, name), type)
    and issubclass(kind, Dynamics)
    and kind is not Dynamics
    and _has_defaults(kind)
}


class MeanFieldEstimator(CallbackSupportMixin, BaseEstimator, metaclass=ABCMeta):  # type: ignore[misc]  # untyped
    """An estimator of either kind: parameters, standardisation, training, pruning."""

    state_: State
    model_: Model | ResidualNetwork
    scaling_: fitting.Scaling
    target_mean_: NDArray[np.float64]
    target_scale_: NDArray[np.float64]

    _of_network: tuple[str, ...] = ("activation", "readout", "readout_bound", "covariance", "grid", "n_modes")
    _has_outer_weights = True

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
        self.loss = loss
        self.activation = activation
        self.readout = readout
        self.readout_bound = readout_bound
        self.strength = strength
        self.model = model
        self.covariance = covariance
        self.grid = grid
        self.n_modes = n_modes
        self.n_particles = n_particles
        self.n_steps = n_steps
        self.step_size = step_size
        self.l2 = l2
        self.temperature = temperature
        self.gradient = gradient
        self.batch_size = batch_size
        self.dynamics = dynamics
        self.algorithm = algorithm
        self.dtype = dtype
        self.standardise = standardise
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.certify = certify
        self.warm_start = warm_start
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Rows of a Gram matrix: who takes some of them takes the same columns.
        tags.input_tags.pairwise = bool(getattr(getattr(self.covariance, "basis", None), "of_kernel", False))
        return tags

    # ---- after a fit

    @property
    def cloud_(self) -> Cloud:
        """The neurons: a weighted measure over their parameters, in standardised units."""
        check_is_fitted(self)
        return self.state_.measure if self._neurons is None else self._neurons

    @property
    def n_iter_(self) -> int:
        """Steps that led to the neurons, over all fits that went on from one another."""
        check_is_fitted(self)
        return self.state_.step

    @underflow_is_zero
    def prune(self, n_particles: int, X: ArrayLike) -> Self:
        """A copy with fewer neurons, weighted anew so that the predictions on X change little; see `mfld.prune`.

        Parameters
        ----------
        n_particles : int
            How many to keep at most.
        X : array_like, shape (n, n_features)
            The training inputs, or others on which it is to agree.

        Returns
        -------
        estimator
            It predicts, but cannot be trained further. ``pruning_error_`` is the largest change on X of
            `decision_function` (of an output, before probabilities) or of the predicted numbers.
        """
        check_is_fitted(self)
        inputs = self._inputs(X)
        assert isinstance(self.model_, Model)  # others override this
        cloud, change = prune(self.model_, self.cloud_, inputs, n_particles, self._num_threads())
        pruned = copy.copy(self)
        weights = None if cloud.weights is None else cloud.weights[np.newaxis]
        state = self.state_
        pruned.state_ = State({"mu": Cloud(cloud.particles[np.newaxis], weights)}, state.step, state.seed)
        pruned._neurons = None
        pruned.pruning_error_ = change * float(np.max(self.target_scale_))
        return pruned

    # ---- training

    @underflow_is_zero
    def _train(
        self,
        X: FloatArray,
        y: NDArray[Any],
        weights: NDArray[np.float64] | None,
        sample_weight: NDArray[np.float64] | None,
        *,
        go_on: bool,
    ) -> Self:
        """Train on checked rows: from the start, or from the state that the last fit led to."""
        n_steps = validation.integer("n_steps", self.n_steps, 1)
        self._check_own_parameters()
        if go_on:
            self._check_same_network()
        else:
            self._start(X, y, weights)
        held_out = None
        if self.early_stopping:
            rows, others = self._split(y)
            held_out = self._risk(X[others], y[others], None if weights is None else weights[others])
            X, y, weights = X[rows], y[rows], None if weights is None else weights[rows]
            sample_weight = None if sample_weight is None else sample_weight[rows]
        hooks = None
        if getattr(self, "_skl_callbacks", None):
            metadata = None if sample_weight is None else {"sample_weight": sample_weight}
            given = y.reshape(len(y), *getattr(self, "_columns", ()))
            hooks = Hooks(self, n_steps, X=X, y=given, metadata=metadata)
        risk = self._risk(X, y, weights)
        known = risk.model.growth(risk.inputs) is not None
        if self.certify and not (risk.loss_function.has_conjugate and known):
            own = "loss" if known else "model"
            raise ValueError(f"certify must be False with a {own} of your own: what a certificate needs is not known")
        self._run(risk, n_steps, held_out, hooks, go_on=go_on)
        self._complain(fitting.complaint(risk, risk.loss(self.cloud_)))
        if self.certify:
            solver = self._solver(risk, None, self.state_.clouds["mu"].particles)
            ended = Result(solver, risk, self.state_, {}, Info(0, temperature=self.temperature_))
            self.certificate_ = ended.certificate(num_threads=self._num_threads())
        if hooks is not None:
            hooks.end()
        return self

    @staticmethod
    def _complain(complaint: str | None) -> None:
        if complaint is not None:
            warnings.warn(
                f"{complaint}: more n_steps or a smaller step_size may help", ConvergenceWarning, stacklevel=5
            )

    @underflow_is_zero
    def _one_pass(self, X: FloatArray, y: NDArray[Any], weights: NDArray[np.float64] | None, *, first: bool) -> Self:
        """As many steps as see each row about once."""
        self._check_own_parameters()
        if first:
            self._start(X, y, weights)
        else:
            self._check_same_network()
        risk = self._risk(X, y, weights)
        self._run(risk, None, None, None, go_on=not first)
        self._complain(fitting.complaint(risk, risk.loss(self.cloud_), few_rows=True))
        return self

    def _run(
        self,
        risk: TrainedRisk,
        n_steps: int | None,
        held_out: TrainedRisk | None,
        hooks: Hooks | None,
        *,
        go_on: bool,
    ) -> Self:
        """Make steps, by default as many as see each row about once, from the start or from where the last fit was."""
        start = self.state_.clouds["mu"].particles if go_on else None
        strength = self._strength()
        reduced = None if strength is None else fitting.reduced(risk, strength)
        objective = risk if reduced is None else reduced
        solver = self._solver(risk, reduced, start)
        n_particles = getattr(solver, "n_particles", None)
        if start is not None and solver.starts_anywhere and self.state_.clouds["mu"].weights is None:
            before = start.shape[-2]
            if n_particles not in (None, before):
                raise ValueError(f"n_particles must be {before} as before in a fit that goes on, got {n_particles}")
        if n_steps is None:
            n_steps = math.ceil(risk.n_samples / (solver.rows_of_a_step(objective) or risk.n_samples))
        callbacks: list[Callback] = [Progress()] if self.verbose else []
        neurons = None if reduced is None else lambda state: outer_weights.neurons(reduced, state.measure)
        if hooks is not None:
            hooks.neurons = neurons
            callbacks.append(hooks)
        stop = None
        if held_out is not None:
            stop = KeepBest(held_out, self.n_iter_no_change, self.tol, fitting.pace(n_steps), neurons)
            callbacks.append(stop)
        result: Result
        if go_on and solver.goes_on:
            before_run = self.state_
            if reduced is not None:  # the weights to start from belong to the rows of the last fit
                before_run = State({"mu": before_run.clouds["mu"]}, before_run.step, before_run.seed)
            result = solver.run(objective, n_steps, state=before_run, callbacks=callbacks)
        else:
            # Dual ascent starts from the Gaussian: its particles belong to dual variables, and these to their rows.
            start = start if solver.starts_anywhere else None
            result = solver.run(objective, n_steps, self._seed, particles=start, callbacks=callbacks)
        self.state_ = result.state if stop is None or stop.best is None else stop.best
        self._neurons = None if neurons is None else neurons(self.state_)
        self.loss_curve_ = result.history["loss"]
        self.step_size_ = result.info.step_size
        self.temperature_ = result.info.temperature
        if stop is not None:
            self.validation_losses_ = np.array(stop.losses)
        return self

    def _check_own_parameters(self) -> None:
        for name in ("standardise", "early_stopping", "certify", "warm_start"):
            validation.boolean(name, getattr(self, name))
        share = validation.real("validation_fraction", self.validation_fraction, positive=True)
        if share >= 1:
            raise ValueError(f"validation_fraction must be below 1, got {share}")
        validation.integer("n_iter_no_change", self.n_iter_no_change, 1)
        if self.batch_size is not None:
            validation.integer("batch_size", self.batch_size, 1)
        self._check_places()
        self._check_bilevel()
        self._check_precision()
        validation.real("tol", self.tol, non_negative=True)

    @property
    def _is_bilevel(self) -> bool:
        """True where outer weights are the best ones at every step."""
        return self.readout == outer_weights.READOUT and self.model is None and self._has_outer_weights

    def _check_places(self) -> None:
        """Raise ValueError where something given has no meaning beside the rest, and would change nothing."""
        of_library, bounded = self.model is None, self.readout in fitting.BOUNDED_READOUTS
        if of_library:
            own = (outer_weights.READOUT,) if self._has_outer_weights else ()
            validation.choice("readout", self.readout, (*readouts(), *own))
        places = {
            "activation": (of_library, "a model of your own"),
            "readout": (of_library, "a model of your own"),
            "readout_bound": (of_library and bounded, f"readout={self.readout!r}" if of_library else "your own model"),
            "strength": (self._is_bilevel, f"readout={self.readout!r}" if of_library else "your own model"),
            "n_modes": (self.covariance is not None, "no covariance"),
        }
        defaults = inspect.signature(type(self).__init__).parameters
        for name, (has_place, beside) in places.items():
            if name in defaults and not has_place and (given := getattr(self, name)) != defaults[name].default:
                raise ValueError(f"{name} must be left out with {beside}, where it has no meaning; got {given!r}")

    def _check_bilevel(self) -> None:
        """Raise ValueError where something given has no place beside outer weights that are the best ones."""
        if not self._is_bilevel:
            return
        if self.strength is not None:
            validation.real("strength", self.strength, positive=True)
        for name, fits in (("covariance", None), ("certify", False), ("epsilon", None), ("batch_size", None)):
            if getattr(self, name, None) not in (fits, None):
                raise ValueError(f"{name} must be {fits!r} with readout='bilevel', got {getattr(self, name)!r}")
        if isinstance(self.algorithm, str) and self.algorithm in ALGORITHMS and self.algorithm != "mfld":
            raise ValueError(f"algorithm must be 'mfld' or an object with readout='bilevel', got {self.algorithm!r}")
        if isinstance(self.gradient, str) and self.gradient in GRADIENTS and self.gradient != "full":
            raise ValueError(f"gradient must be 'full' or an object with readout='bilevel', got {self.gradient!r}")

    def _check_precision(self) -> None:
        """Raise an error where there are no particles, or products, of such numbers."""
        if self.dtype is None:
            return
        validation.precision("dtype", self.dtype)
        if self.dtype == "bfloat16" and getattr(self, "epsilon", None) is not None:
            raise ValueError(f"epsilon must be None with dtype='bfloat16', got {self.epsilon!r}")

    def _strength(self) -> float | None:
        """Strength of the ridge of outer weights; None where these are coordinates like others."""
        if not self._is_bilevel:
            return None
        return fitting.default_strength(len(getattr(self, "classes_", ()))) if self.strength is None else self.strength

    def _check_partial_fit(self) -> None:
        check_goes_on(self.algorithm)
        if self._is_bilevel:
            raise TypeError("partial_fit needs another readout than 'bilevel', whose weights belong to all rows")

    def _check_same_network(self) -> None:
        """Raise ValueError where what the network was made of has changed."""
        for name, before in self._of_start.items():
            now = getattr(self, name)
            if now is not before and not np.array_equal(now, before):
                raise ValueError(f"{name} must be {before!r} as before in a fit that goes on, got {now!r}")
        if self.model is None and self._n_outputs() != self.model_.n_outputs:
            outputs = f"{self.model_.n_outputs} outputs as before in a fit that goes on"
            raise ValueError(f"loss must be one of {outputs}, got {self.loss!r} of {self._n_outputs()}")

    def _start(self, X: FloatArray, y: NDArray[Any], weights: NDArray[np.float64] | None) -> None:
        """Seed, model and standardisation of a new training."""
        names = _OF_START if self.model is not None else _OF_START + self._of_network
        self._of_start = {name: getattr(self, name) for name in names}
        self._seed = seed_of(self.random_state)
        self._curvature: float | None = None
        self._widest = 0.0
        # Kept, so that fits that go on validate on the same rows, and not on some that were trained on.
        state = self.random_state
        self._split_seed = state if isinstance(state, Integral) else check_random_state(state).randint(2**31)
        self._start_targets(y, weights)
        n_features, n_outputs = X.shape[1], self._n_outputs()
        network: dict[str, Any] = {
            "activation": self.activation,
            "readout": self.readout,
            "readout_bound": self.readout_bound,
        }
        if self.covariance is not None:
            if self.model is not None:
                raise ValueError(f"model must be None where covariance is given, got {self.model!r}")
            grid = as_grid(np.linspace(0.0, 1.0, n_features) if self.grid is None else self.grid)
            if len(grid) != n_features:
                raise ValueError(f"grid must have {n_features} points, one for each feature, got {len(grid)}")
            validation.instance("covariance", self.covariance, Covariance, "a Covariance, like PowerLaw(2.0)")
            modes = self.covariance.modes(grid, validation.integer("n_modes", self.n_modes, 1), X)
            self.model_ = FunctionalNetwork(grid, modes, n_outputs=n_outputs, **network)
            self.scaling_ = fitting.scaling_of_curves(X, modes, weights, standardise=self.standardise)
            return
        if self.grid is not None:
            raise ValueError(f"grid must be None without a covariance, got {self.grid!r}")
        self.scaling_ = self._scaling(X, weights)
        if self.model is not None:
            validation.function("model", self.model)
            self.model_ = self.model(n_features, n_outputs)
            validation.instance("model(n_features, n_outputs)", self.model_, Model, "a Model")
            return
        self.model_ = self._network(n_features, n_outputs, **network)

    def _scaling(self, X: FloatArray, weights: NDArray[np.float64] | None) -> fitting.Scaling:
        return fitting.scaling(X, weights) if self.standardise else fitting.Scaling.none(X.shape[1])

    def _network(self, n_features: int, n_outputs: int, **network: Any) -> Model | ResidualNetwork:
        """The library's own model."""
        if self._is_bilevel:
            network["readout"] = outer_weights.NETWORK_READOUT
        return TwoLayerNetwork(n_features, n_outputs, **network)

    def _start_targets(self, y: NDArray[Any], weights: NDArray[np.float64] | None) -> None:
        self.target_mean_, self.target_scale_ = np.zeros(1), np.ones(1)

    @abstractmethod
    def _n_outputs(self) -> int: ...

    @abstractmethod
    def _encoded(self, y: NDArray[Any]) -> NDArray[np.float64]: ...

    @abstractmethod
    def _loss(self) -> LossFunction: ...

    def _split(self, y: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows to train on and to validate on: the same in all fits that go on from one another."""
        rows, share = np.arange(len(y)), self.validation_fraction
        split_of = functools.partial(train_test_split, rows, test_size=share, random_state=self._split_seed)
        if not isinstance(self, ClassifierMixin):
            train, held_out = split_of()
            return np.sort(train), np.sort(held_out)
        classes, counts = np.unique(y, return_counts=True)
        if counts.min() < 2:
            rare = classes[counts.argmin()].item()
            raise ValueError(f"y must have at least 2 rows of each class with early_stopping, got 1 of class {rare!r}")
        fewest = min(math.ceil(share * len(y)), math.floor((1 - share) * len(y)))
        if fewest < len(classes):
            raise ValueError(
                f"validation_fraction must leave at least {len(classes)} rows on either side, as many as there are "
                f"classes, got {share}: of {len(y)} rows {fewest} are on one"
            )
        train, held_out = split_of(stratify=y)
        left_out = np.setdiff1d(classes, y[train])
        if left_out.size:
            raise ValueError(
                f"validation_fraction must leave rows of each class to train on, got {share}: none of class "
                f"{left_out[0].item()!r}"
            )
        return np.sort(train), np.sort(held_out)

    def _risk(self, X: FloatArray, y: NDArray[Any], weights: NDArray[np.float64] | None) -> TrainedRisk:
        risk = fitting.risk(
            self.model_,
            self._standardised(X),
            self._encoded(y),
            loss=self._loss(),
            l2=self.l2,
            sample_weight=weights,
        )
        return risk.on_threads(self._num_threads())

    def _solver(self, risk: TrainedRisk, reduced: SignedRisk | None, start: FloatArray | None) -> Algorithm:
        if isinstance(self.algorithm, Algorithm):
            return self.algorithm
        kind = ALGORITHMS[validation.choice("algorithm", self.algorithm, ALGORITHMS)]
        of_start = risk.inputs.dtype.name if start is None else start.dtype.name
        dtype = of_start if self.dtype is None else validation.precision("dtype", self.dtype)
        n_particles = validation.integer("n_particles", self.n_particles, 1)
        step_size = self.step_size
        if step_size is None and kind.has_step_size:
            largest = self._largest_curvature(risk, n_particles, validation.of_particles(dtype))
            share = fitting.STEP_SHARE * fitting.calm(risk, self._gradient(risk.n_samples, reduced))
            step_size = fitting.stable_step_size(largest, share)
        choices = Choices(
            n_particles,
            temperature=kind.temperature(risk.l2) if self.temperature is None else self.temperature,
            step_size=step_size,
            gradient=self._gradient(risk.n_samples, reduced),
            dynamics=self._dynamics(),
            dtype=dtype,
            num_threads=self._num_threads(),
        )
        return kind.make(choices)

    def _largest_curvature(self, risk: TrainedRisk, n_particles: int, dtype: str) -> float:
        """Curvature that steps go by: of the first rows, so that several fits that go on are one, or of wider ones."""
        widest = float(fitting.widths(risk.inputs).max())
        if self._curvature is not None and widest <= _WIDER * self._widest:
            return self._curvature
        largest = fitting.largest_curvature(risk, n_particles, self._seed, dtype, self._num_threads(), self._strength())
        if self._curvature is None:
            self._curvature, self._widest = largest, widest
        return max(largest, self._curvature)

    def _gradient(self, n: int, reduced: SignedRisk | None) -> GradientEstimator:
        gradient = self.gradient
        if isinstance(gradient, GradientEstimator):
            return gradient
        name = validation.choice("gradient", gradient, ("auto", *GRADIENTS))
        if reduced is not None:
            return outer_weights.estimator(reduced)
        given = None if name == "auto" else name
        algorithm = self.algorithm if isinstance(self.algorithm, str) else "mfld"
        return fitting.estimator(algorithm, n, given, self.batch_size, least_share=_LEAST_SHARE)

    def _dynamics(self) -> Dynamics:
        if isinstance(self.dynamics, Dynamics):
            return self.dynamics
        if validation.choice("dynamics", self.dynamics, ("auto", *_DYNAMICS)) == "auto":
            return Overdamped(ridge="explicit" if self.covariance is None else "crank_nicolson")
        return _DYNAMICS[self.dynamics]()

    def _num_threads(self) -> int:
        return int(effective_n_jobs(self.n_jobs))

    # ---- rows

    def _checked(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, *, reset: bool, **options: Any
    ) -> tuple[FloatArray, NDArray[Any], NDArray[np.float64] | None]:
        """Rows of positive weight, and their weights."""
        for name, given in (("X", X), ("y", y), ("sample_weight", sample_weight)):
            validation.unmasked(name, given)
            frames.check_kind(name, given, labels=name == "y" and isinstance(self, ClassifierMixin))
        frames.check(X)
        dtypes = (np.float64, np.float32)
        inputs, targets = validate_data(self, X, y, dtype=dtypes, order="C", reset=reset, **options)
        frames.check_range("X", inputs)
        if sample_weight is None:
            return inputs, targets, None
        if isinstance(sample_weight, int) and abs(sample_weight) > sys.float_info.max:
            raise ValueError(f"sample_weight must be finite, got {validation.show(sample_weight)}")
        weights = _check_sample_weight(sample_weight, inputs, dtype=np.float64)
        if (weights < 0).any():
            raise ValueError("Negative values in data passed to `sample_weight`: weights must be at least 0")
        if not (weights > 0).any():
            raise ValueError("Sample weights must contain at least one non-zero number, got zeros only")
        largest = weights.max()
        if not 1e-100 < largest < 1e100:  # their sums and squares would leave the range of double precision
            weights = weights / largest
        some = weights > 0
        return inputs[some], targets[some], weights[some]

    def _inputs(self, X: ArrayLike) -> FloatArray:
        """Inputs of a fitted estimator as its network takes them."""
        validation.unmasked("X", X)
        frames.check_kind("X", X)
        frames.check(X)
        return self._standardised(validate_data(self, X, dtype=(np.float64, np.float32), order="C", reset=False))

    def _standardised(self, X: FloatArray) -> FloatArray:
        dtype = X.dtype if self.dtype is None else validation.of_particles(validation.precision("dtype", self.dtype))
        return self.scaling_.apply(X, dtype)

    @underflow_is_zero
    def _outputs(self, X: ArrayLike) -> FloatArray:
        """Outputs of the network, shape (n,) or (n, n_outputs)."""
        check_is_fitted(self)
        inputs = self._inputs(X)
        cloud = self.cloud_
        return self.model_.predict(cloud.particles, inputs, cloud.weights, self._num_threads())


PARAMETERS = """
    loss : str or mfld.Loss or mfld.LossFunction or callable
        {loss}
    activation, readout, readout_bound
        As in `mfld.TwoLayerNetwork`, where "bounded" and "parity" have a bound; or ``readout="bilevel"``, a linear
        readout whose outer weights are the best ones for the neurons at every step, see `mfld.outer_weights`. The loss,
        which must be convex and smooth, is then half_squared for "auto", and steps see all rows.
    strength : float, optional
        Of the ridge of these outer weights, for "bilevel" alone. Default: 1e-3 for classes, else 0.1.
    model : callable, optional
        ``model(n_features, n_outputs)``: an `mfld.Model` of your own in its place.
    covariance : mfld.functional_data.Covariance, optional
        Takes the features of a row for the points of a curve, and an `mfld.FunctionalNetwork` with this covariance.
        Standardisation is by the mean curve, and one scale for all.
    grid : mfld.functional_data.Grid or array_like, shape (n_features,), optional
        The points of curves. Default: equidistant ones from 0 to 1.
    n_modes : int
        Of the covariance, at most.
    n_particles : int
        Neurons.
    n_steps : int
        Steps of a fit.
    step_size : float or mfld.schedules.Schedule or "fuse", optional
        Default: half of the largest one that is stable at the start; see `mfld.fitting`. "fuse" is as in `mfld.MFLD`.
    l2 : float
        Coefficient of the ridge on the parameters of the neurons: no factor 1/2. More means smoother.
    temperature : float or mfld.schedules.Schedule, optional
        Of the noise. Default: ``2 * l2 * 0.1**2``, of "psdca" ``2 * l2 * 0.5**2``.
    gradient : {{"auto", "full", "minibatch", "svrg", "sarah"}} or mfld.GradientEstimator
        "auto" takes all rows up to 256 of them and for "pda", else or where ``batch_size`` is given mini-batches.
    batch_size : int, optional
        Default: 128, or n / 40 where that is more.
    dynamics : str or mfld.Dynamics
        "auto" is overdamped, on curves with the ridge by Crank-Nicolson; or the name in lower case of one in
        `mfld.dynamics` that has defaults for all that it takes.
    algorithm : {{"mfld", "pda", "psdca"}} or mfld.Algorithm
        For "psdca" a step is an epoch, neurons must be bounded (``activation="tanh"``, say), and it takes neither
        gradient, dynamics nor step size.
        An object brings its own number of particles, step size, temperature, gradient, dynamics, precision and threads.
    dtype : {{"float32", "float64", "bfloat16"}}, optional
        Precision of particles and rows; "bfloat16" as in `mfld.MFLD`. Default: that of X, float64 of integers.
    standardise : bool
        Whether features are standardised; those with values far out robustly, see `mfld.fitting.scaling`.
    early_stopping : bool
        Hold out some rows, stop when their loss has not fallen by ``tol`` for ``n_iter_no_change`` looks, a hundredth
        of ``n_steps`` each, and keep the neurons with the lowest one.
    validation_fraction : float
        Share of the rows that is held out then.
    n_iter_no_change : int
    tol : float
    certify : bool
        Whether `fit` makes ``certificate_``, with a loss of the library and its two-layer network. It takes up to half
        a minute, and needs a temperature at which chains mix: take the bounded neurons of ``activation="tanh"``, and
        ``algorithm="psdca"``.
    warm_start : bool
        Whether `fit` goes on from the neurons of the last one. The network, its number of neurons, their
        precision and the standardisation are then to stay as they were.
    random_state : int, RandomState or None
        Of the initial neurons, the noise, the mini-batches and the held-out rows.
    n_jobs : int, optional
        Threads: -1 for all, by default one, as joblib counts. They never change the result.
    verbose : bool
        Whether to show progress."""

ATTRIBUTES = """
    cloud_ : mfld.Cloud
        The neurons: particles and weights, a measure.
    state_ : mfld.State
        Where the run stands, to go on from.
    model_ : mfld.Model
    n_iter_ : int
        Steps made.
    loss_curve_ : ndarray
        Training loss, about a hundred times in the last fit; of mini-batches where the steps are.
    validation_losses_ : ndarray
        Loss of the held-out rows with ``early_stopping``.
    step_size_, temperature_ : float
        Those of the last step.
    certificate_ : mfld.Certificate
        With ``certify``: how far from the optimum the Gibbs measure of the dual variables is at most, on the rows of
        the last fit, or the reason why there is no number; see `mfld.certificate`.
    scaling_ : mfld.fitting.Scaling
    n_features_in_ : int
    feature_names_in_ : ndarray
        Where X has names."""


def check_goes_on(algorithm: Named | Algorithm) -> None:
    if algorithm != "mfld" and not getattr(algorithm, "goes_on", False):
        raise TypeError(f"partial_fit needs algorithm='mfld': others belong to their rows; got {algorithm!r}")


def seed_of(random_state: int | RandomState | None) -> int:
    """A seed of the library's noise from what scikit-learn calls a random state."""
    high, low = check_random_state(random_state).randint(0, 2**32, size=2, dtype=np.uint64)
    return int(high) << 32 | int(low)
