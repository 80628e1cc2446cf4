"""How `mfld train` trains: one rule for every data set.

1. Hold out a share of the rows, of each class the same (`mfld.experiments.splits`).
2. l2 is the one of a small grid with the lowest validation loss, on a sample of the other rows where there are many. Of
   a run that is to be certified it is the largest whose validation loss is within one standard error of the lowest: the
   temperature, ``2 l2 reference_scale**2``, is then the warmest that costs no accuracy, and a warm Gibbs measure mixes.
3. Train on all rows that are not held out. Many of them take as many steps as there are mini-batches in a few passes.
   A run that is to be certified and has no certificate within its moves makes way for one at the next larger l2 of the
   grid, at most twice; where none has one the first stays.

Each of these runs standardises, and takes loss, temperature, step size and rows of a step, by the rule of
`mfld.fitting`.

The method may be particle dual averaging or particle stochastic dual coordinate ascent in place of mean-field Langevin
dynamics. `METHODS` has what each takes by default: the best of a few values tried on the data sets that come with
scikit-learn, for dual ascent on digits, breast_cancer and diabetes, where its held-out scores were looked at too. The
two Langevin methods share theirs. The dual one needs bounded neurons, and temperatures at which chains mix, so that a
wide reference measure and a large bound take the place of a cold, narrow one, and it begins warmer still; its duality
gap is certified at the end.
A Langevin method that is to be certified takes these neurons and this reference measure too.

Whatever the recipe says itself is not searched or derived.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfld import _core, fitting, outer_weights, private_fitting, quantities, schedules, validation
from mfld import checkpoint as checkpoints
from mfld.algorithms import Algorithm, Callback, Result
from mfld.bias import BiasReport, bias_report
from mfld.certificates import Certificate
from mfld.dynamics import Overdamped
from mfld.errors import ConvergenceError
from mfld.experiments import curves, splits
from mfld.experiments.datasets import Dataset
from mfld.experiments.trained import Scores, TrainedModel
from mfld.fitting import ALGORITHMS, GRADIENTS, STEP_SHARE, Choices, TrainedRisk
from mfld.functional_data import Covariance, FunctionalNetwork
from mfld.gradients import GradientEstimator, Minibatch
from mfld.losses import Loss, LossFunction
from mfld.models import Model, TwoLayerNetwork, activations, readouts
from mfld.noise import Place
from mfld.objectives import Objective, SignedRisk
from mfld.privacy.domains import check_bounds
from mfld.privacy.mechanism import check_delta, check_epsilon
from mfld.private_fitting import PrivateChoices
from mfld.residual import ResidualNetwork
from mfld.schedules import Schedule, Scheduled
from mfld.state import Cloud, State
from mfld.validation import FloatArray

_PASSES = 10
_SAMPLE_STEPS = 2000  # some ten passes, too, to compare values of l2 on a sample of the rows
_CHECKPOINT_SECONDS = 30.0
_HISTORY_ROWS = 500  # of each curve in the picture
_TARGETS = {"real": "a regression", "sign": "two classes", "class": "classes"}  # of losses


def _l2(name: str, value: float | Sequence[float]) -> tuple[float, ...]:
    values = value if isinstance(value, Sequence) else (value,)
    if not values:
        raise ValueError(f"{name} must have at least one value")
    return tuple(validation.real(name, each, non_negative=True) for each in values)


def _share(name: str, value: object) -> float:
    result = validation.real(name, value, positive=True)
    if result >= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {result:g}")
    return result


def _optional(check: Callable[[str, Any], Any], name: str, value: object) -> Any:
    return None if value is None else check(name, value)


def _loss(name: str, value: object) -> Loss:
    """A loss with a name, which a model file can keep."""
    if isinstance(value, str):
        return Loss(value)
    return validation.instance(name, value, Loss, "a name or a Loss")


def _covariance(name: str, value: object) -> Covariance:
    return validation.instance(name, value, Covariance, "a Covariance, like PowerLaw(2.0)")


def _bounds(name: str, value: object) -> dict[str, tuple[float, float]]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping of columns to (low, high), got {validation.show(value)}")
    found = {}
    for column, pair in value.items():
        own = validation.array(f"{name} of {column!r}", pair, np.float64)
        if own.shape != (2,):
            raise ValueError(f"{name} of {column!r} must be low and high, increasing, got {validation.show(pair)}")
        check_bounds(f"{name} of {column!r}", float(own[0]), float(own[1]))
        found[str(column)] = float(own[0]), float(own[1])
    return found


def _schedule(name: str, value: object) -> Schedule:
    return validation.instance(name, value, Schedule, "a Schedule")


def _step_size(name: str, value: Any) -> float | str:
    """A number, or the rule that needs none."""
    if isinstance(value, str) and value != "fuse":
        raise TypeError(f"{name} must be a real number or 'fuse', got {validation.show(value)}")
    return value if isinstance(value, str) else _positive(name, value)


_count = partial(validation.integer, minimum=1)
_positive = partial(validation.real, positive=True)
_non_negative = partial(validation.real, non_negative=True)

_LANGEVIN = {"activation": "silu", "readout_bound": 5.0}

_OWN: dict[str, dict[str, Any]] = {
    "mfld": {**_LANGEVIN, "l2": (1e-4, 1e-3, 1e-2, 3e-2, 1e-1), "n_steps": 2000},
    # A few more inner steps make the first outer ones overshoot, where neurons are not bounded.
    "pda": {**_LANGEVIN, "l2": (1e-3, 1e-2, 3e-2, 1e-1), "n_steps": 100, "inner_steps": 10},
    "psdca": {"activation": "tanh", "readout_bound": 10.0, "l2": (1e-2, 3e-2, 0.2), "n_steps": 10},
}
_CERTIFIED: dict[str, dict[str, Any]] = {  # what takes the place of these where the answer is to be certified
    name: {"activation": "tanh", "readout_bound": 10.0, "reference_scale": 0.5, "l2": l2}
    for name, l2 in {
        "mfld": (1e-2, 3e-2, 6e-2, 0.1, 0.2),
        "pda": (1e-2, 3e-2, 6e-2, 0.1, 0.2),
        "psdca": (3e-2, 6e-2, 0.1, 0.2),
    }.items()
}
_WARMEST, _WARM_EPOCHS, _LAST_EPOCHS = 20.0, 7, 3  # of psdca: how hot it begins, and for how long it is warm and not
_ATTEMPTS = 3  # at a certificate, each with its default budget of moves
_PRIVATE: dict[str, Any] = {"l2": (1e-3,), "n_steps": 300}
METHODS = {name: {**own, "reference_scale": ALGORITHMS[name].reference_scale} for name, own in _OWN.items()}
"""Defaults of each method; steps are outer steps of PDA and epochs of P-SDCA."""

READOUTS = (*readouts(), outer_weights.READOUT)
"""Readouts of networks, and the way to train that has the best outer weights."""

_BILEVEL: dict[str, Any] = {"l2": (5e-3,), "n_steps": 500}  # what such a run takes by default

_MODES = 64

_OF_NETWORK = ("activation", "readout", "bias", "output_scale", "readout_bound")

_MEANINGLESS: dict[str, tuple[str, ...]] = {
    "mfld": ("inner_steps",),
    "pda": ("refresh_every", "temperature_schedule", "l2_schedule"),
    "psdca": (
        *("step_size", "step_share", "gradient", "batch_size", "refresh_every", "inner_steps"),
        *("step_size_schedule", "l2_schedule"),
    ),
}
"""Fields that a method has no place for."""

CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "method": lambda name, value: validation.choice(name, value, METHODS),
    "activation": partial(_optional, lambda name, value: validation.choice(name, value, activations())),
    "readout": lambda name, value: validation.choice(name, value, READOUTS),
    "strength": partial(_optional, _positive),
    "readout_bound": partial(_optional, _positive),
    "bias": validation.boolean,
    "output_scale": validation.real,
    "functional": partial(_optional, _covariance),
    "n_modes": _count,
    "depth": partial(_optional, _count),
    "loss": partial(_optional, _loss),
    "l2": partial(_optional, _l2),
    "reference_scale": partial(_optional, _positive),
    "temperature": partial(_optional, _non_negative),
    "n_particles": _count,
    "n_steps": partial(_optional, _count),
    "step_size": partial(_optional, _step_size),
    "step_share": partial(_optional, _share),
    "inner_steps": partial(_optional, _count),
    "gradient": partial(_optional, lambda name, value: validation.choice(name, value, GRADIENTS)),
    "batch_size": partial(_optional, _count),
    "refresh_every": partial(_optional, _count),
    "step_size_schedule": partial(_optional, _schedule),
    "temperature_schedule": partial(_optional, _schedule),
    "l2_schedule": partial(_optional, _schedule),
    "certify": validation.boolean,
    "epsilon": partial(_optional, lambda name, value: check_epsilon(value)),
    "delta": lambda name, value: check_delta(value),
    "bounds": partial(_optional, _bounds),
    "dtype": validation.precision,
    "test_share": _share,
    "validation_particles": _count,
    "validation_samples": _count,
    "validation_rows": partial(validation.integer, minimum=5),
}
"""How the value of each field of a recipe is checked."""


@dataclass(frozen=True)
class Recipe:
    """Every choice of a training run.

    Attributes
    ----------
    method : {"mfld", "pda", "psdca"}
        `MFLD`, `PDA` or `PSDCA`.
    activation, readout, readout_bound, bias, output_scale
        As in `TwoLayerNetwork`; or ``readout="bilevel"``, by MFLD: a linear readout whose outer weights are the best
        ones at every step, see `mfld.outer_weights`. By default the loss is half_squared then, l2 5e-3, and there are
        500 steps. With a bounded readout the proximal Gibbs measure exists for every l2 > 0. P-SDCA needs
        a bounded activation as well. Default of the activation and the bound: by the method, see `METHODS`.
    strength : float, optional
        Of the ridge of these outer weights. Default: 1e-3 for classes, else 0.1.
    functional : Covariance, optional
        Takes the columns for points of curves, on the grid of `mfld.experiments.curves`, and a `FunctionalNetwork` with
        this covariance; its ridge is taken by Crank-Nicolson.
    n_modes : int
        Of the covariance, at most.
    depth : int, optional
        A `ResidualNetwork` of so many layers, with ``n_particles`` neurons each, trained by MFLD.
    loss : str or Loss, optional
        Default: by the targets.
    l2 : float or sequence of float, optional
        Candidates; with a single one nothing is validated. Default: by the method.
    reference_scale : float, optional
        Standard deviation s of the reference measure: temperature = 2 * l2 * s**2. Default: by the method.
    temperature : float, optional
        Default: that of the reference measure.
    n_particles : int
    n_steps : int, optional
        Default: by the method, and in mini-batches of MFLD at least as many as 10 passes over the rows take.
    step_size : float or "fuse", optional
        "fuse" finds one on the way, for MFLD, and takes neither a share nor a schedule: see `MFLD`. Like all
        that follows to the schedules, it has no meaning for P-SDCA and is refused there.
    step_share : float, optional
        Where there is no step size: its share of 2 / curvature, the largest one that is stable at the start. Default:
        0.5.
    inner_steps : int, optional
        Langevin steps in each step of PDA. Default: 10.
    gradient : {"full", "minibatch", "svrg", "sarah"}, optional
        Default: mini-batches where they have a size or, in MFLD, there are more than two of them, else the full batch.
        PDA takes these two.
    batch_size : int, optional
        Default: 128, or for SVRG and SARAH what they take by themselves.
    refresh_every : int, optional
        Of SVRG and SARAH, in MFLD.
    step_size_schedule, temperature_schedule, l2_schedule : Schedule, optional
        Factors of the three. Where only the temperature has one, l2 follows it: the reference measure stays fixed.
        PDA takes that of the step size, and P-SDCA that of the temperature, with l2 as it is: by default from 20 times
        the temperature down to it over 7 epochs, or over all but 3.
    certify : bool
        Certify the answer, and choose l2 and what else has a default by the method for that: see the rule. P-SDCA is
        always certified.
    epsilon : float, optional
        Trains MFLD under (epsilon, delta)-differential privacy, see `mfld.private_fitting`: with one l2, and neither of
        what looks at rows beside the steps. Held-out rows have no part in it, and what is said of them is not private.
    delta : float
        Of epsilon.
    bounds : mapping of str to (low, high), optional
        Of epsilon: public bounds of columns of numbers and dates; others are estimated for a tenth of the budget.
    dtype : {"float32", "float64", "bfloat16"}
        The last of MFLD alone, whose ``dtype`` it is.
    test_share : float
        Share of the rows that is held out.
    validation_particles : int
        Particles of the runs that choose l2: what matters for the choice is visible with fewer.
    validation_samples : int
        Rows that validation should score in all: small data sets are cut into up to 5 folds, large ones held out once.
    validation_rows : int
        Rows that validation sees at most: a random sample of larger data sets, on which 2000 steps decide.

    Raises
    ------
    TypeError, ValueError
        If a value is of the wrong kind or out of range.
    """

    method: str = "mfld"
    activation: str | None = None
    readout: str = "bounded"
    readout_bound: float | None = None
    bias: bool = True
    output_scale: float = 1.0
    strength: float | None = None
    functional: Covariance | None = None
    n_modes: int = _MODES
    depth: int | None = None
    loss: str | Loss | None = None
    l2: float | Sequence[float] | None = None
    reference_scale: float | None = None
    temperature: float | None = None
    n_particles: int = 1000
    n_steps: int | None = None
    step_size: float | str | None = None
    step_share: float | None = None
    inner_steps: int | None = None
    gradient: str | None = None
    batch_size: int | None = None
    refresh_every: int | None = None
    step_size_schedule: Schedule | None = None
    temperature_schedule: Schedule | None = None
    l2_schedule: Schedule | None = None
    certify: bool = False
    epsilon: float | None = None
    delta: float = 1e-5
    bounds: Mapping[str, tuple[float, float]] | None = None
    dtype: str = "float32"
    test_share: float = 0.2
    validation_particles: int = 256
    validation_samples: int = 300
    validation_rows: int = 30_000

    def __post_init__(self) -> None:
        for name, check in CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        for name in _MEANINGLESS[self.method]:
            if getattr(self, name) is not None:
                raise ValueError(f"{name} must be left out with method={self.method!r}, got {getattr(self, name)!r}")
        if self.depth is not None:
            for name, fits in (("method", "mfld"), ("functional", None), ("certify", False)):
                if getattr(self, name) != fits:
                    raise ValueError(f"{name} must be {fits!r} with depth={self.depth}, got {getattr(self, name)!r}")
        self._check_privacy()
        self._check_places()
        self._check_outer_weights()
        self._check_method()
        self._check_precision()

    def _check_precision(self) -> None:
        """Refuse products of bfloat16 of what the core does not make in them."""
        if self.dtype != "bfloat16":
            return
        for name, fits in (("method", "mfld"), ("functional", None), ("depth", None), ("epsilon", None)):
            if getattr(self, name) != fits:
                raise ValueError(f"{name} must be {fits!r} with dtype='bfloat16', got {getattr(self, name)!r}")
        if self.readout == outer_weights.READOUT:
            raise ValueError(f"readout must be another with dtype='bfloat16', got {self.readout!r}")
        if isinstance(self.step_size, str):
            raise ValueError(f"step_size must be a number with dtype='bfloat16', got {self.step_size!r}")

    def _check_method(self) -> None:
        """Refuse numbers that the method cannot take."""
        if isinstance(self.step_size, str):
            if self.method != "mfld":
                raise ValueError(f"step_size must be a number with method={self.method!r}, got {self.step_size!r}")
            for name in ("step_share", "step_size_schedule"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} must be left out with step_size='fuse', got {getattr(self, name)!r}")
        if self.method != "mfld" and isinstance(self.l2, tuple) and 0 in self.l2:
            raise ValueError(f"l2 must be positive with method={self.method!r}: else there is no Gibbs measure; got 0")
        if self.method == "psdca" and self.temperature is not None:
            validation.real("temperature", self.temperature, positive=True)
        if self.method == "pda" and self.gradient not in (None, "full", "minibatch"):
            raise ValueError(f"gradient must be 'full' or 'minibatch' with method='pda', got {self.gradient!r}")

    def _check_privacy(self) -> None:
        """Refuse what looks at rows where that is not paid for."""
        if self.epsilon is None:
            if self.bounds is not None:
                raise ValueError("bounds must be left out without epsilon")
            return
        for name, fits in (("method", "mfld"), ("functional", None), ("depth", None), ("gradient", None)):
            if getattr(self, name) != fits:
                raise ValueError(f"{name} must be {fits!r} with epsilon, got {getattr(self, name)!r}")
        if self.certify:
            raise ValueError("certify must be False with epsilon: a certificate looks at rows")
        if isinstance(self.l2, tuple) and len(self.l2) > 1:
            raise ValueError(f"l2 must be one number with epsilon: rows would choose among {self.l2}")
        if isinstance(self.step_size, str):
            raise ValueError(f"step_size must be a number with epsilon: {self.step_size!r} looks at rows")

    def _check_places(self) -> None:
        """Refuse what has no meaning beside the rest, and would change nothing."""
        if self.readout_bound is not None and self.readout not in fitting.BOUNDED_READOUTS:
            raise ValueError(
                f"readout_bound must be left out with readout={self.readout!r}, got {self.readout_bound:g}"
            )
        if self.functional is None and self.n_modes != _MODES:
            raise ValueError(f"n_modes must be left out without functional, got {self.n_modes}")

    def _check_outer_weights(self) -> None:
        """Raise ValueError where something given has no place beside outer weights that are the best ones."""
        if self.readout != outer_weights.READOUT:
            if self.strength is not None:
                raise ValueError(f"strength must be left out but with readout='bilevel', got {self.strength:g}")
            return
        expected = {"method": "mfld", "functional": None, "depth": None, "certify": False, "epsilon": None}
        for name, fits in {**expected, "batch_size": None, "refresh_every": None}.items():
            if getattr(self, name) != fits:
                raise ValueError(f"{name} must be {fits!r} with readout='bilevel', got {getattr(self, name)!r}")
        if self.gradient not in (None, "full"):
            raise ValueError(f"gradient must be 'full' with readout='bilevel', got {self.gradient!r}")

    @property
    def complete(self) -> Recipe:
        """The recipe with what its method takes by default."""
        own = METHODS[self.method] | (_CERTIFIED[self.method] if self.certify else {})
        own |= _PRIVATE if self.epsilon is not None else {}
        if self.readout == outer_weights.READOUT:
            own |= _BILEVEL
        if self.readout not in fitting.BOUNDED_READOUTS:
            own = {k: v for k, v in own.items() if k != "readout_bound"}
        return replace(self, **{k: v for k, v in own.items() if getattr(self, k) is None})

    @property
    def of_outer_weights(self) -> float | None:
        """Strength of the ridge of outer weights; None where these are coordinates like others."""
        return self.strength if self.readout == outer_weights.READOUT else None

    @property
    def candidates(self) -> tuple[float, ...]:
        """Values of l2 to choose from."""
        l2 = self.complete.l2
        assert isinstance(l2, tuple)  # by __post_init__
        return l2

    def as_json(self) -> dict[str, Any]:
        """The choices as numbers and texts."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: repr(v) if isinstance(v, (LossFunction, Schedule, Covariance)) else v for k, v in values.items()}


@dataclass(frozen=True, eq=False)
class Training:
    """Outcome of `train`: the model, the run that led to it, and what was chosen on the way.

    Attributes
    ----------
    trained : TrainedModel
    result : Result
    seconds : float
        Of everything: validation and the final run.
    validation : dict of float to float
        Mean validation loss of each candidate for l2; empty where there was one candidate.
    scores : dict of str to Scores
        On the rows that were trained on, "train", and on those that were held out, "test".
    certificate : Certificate or None
        Of P-SDCA, and with ``certify``: how far the Gibbs measure of the dual variables is from the optimum at most.
    declined : dict of float to str
        Values of l2 that made way for larger ones, and why they have no certificate.
    """

    trained: TrainedModel
    result: Result
    seconds: float
    validation: dict[float, float]
    scores: dict[str, Scores]
    certificate: Certificate | None = None
    declined: dict[float, str] = field(default_factory=dict)

    def bias_report(self, data: Dataset, n_replicates: int = 4, seed: int = 0) -> BiasReport:
        """Biases of the loss on the held-out rows at the end of the run, see `mfld.bias_report`."""
        if self.trained.hyperparameters["readout"] == outer_weights.READOUT:
            raise ValueError("readout must be another than 'bilevel' for a report: its weights are none of a state")
        trained, rows = self.trained, self.trained.test_rows
        targets = trained.encoded(data.targets[rows])
        risk = fitting.risk(trained.model, trained.standardised(data.inputs, rows), targets, loss=trained.loss)
        algorithm, n_steps = self.result.algorithm, self.result.state.step
        loss = quantities.loss(risk, num_threads=algorithm.num_threads)
        return bias_report(algorithm, self.result.objective, loss, n_steps, seed, n_replicates=n_replicates)


def train(
    data: Dataset,
    seed: int = 0,
    recipe: Recipe | None = None,
    callbacks: Sequence[Callback] = (),
    num_threads: int | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    shared: Callable[[Algorithm], Algorithm] = lambda algorithm: algorithm,
) -> Training:
    """Train a two-layer network on a data set by the rule of this module.

    Parameters
    ----------
    data : Dataset
    seed : int
        Of the split, the initial particles and the noise.
    recipe : Recipe, optional
    callbacks : sequence of Callback
        Of the final run.
    num_threads : int, optional
    checkpoint : Path, optional
        Keep the state of the final run in this file, twice a minute and where the run ends.
    resume : bool
        Go on from the file where there is one.
    shared : callable
        `mfld.mpi.Sharded` where processes make the final run together; all call this function alike.

    Examples
    --------
    >>> from mfld import experiments
    >>> training = experiments.train(experiments.load("iris"), recipe=experiments.Recipe(n_steps=500))
    >>> training.trained.split_scores(experiments.load("iris"))["test"].score > 0.9
    True
    """
    recipe = _without_checkpoint(recipe or Recipe(), checkpoint)
    started = time.perf_counter()
    # NumPy's generator and not ours: the split is a matter of the data, and the rows are stored with the model.
    rng = np.random.default_rng(seed)
    # Where to train privately, no class has a say in it.
    labels = data.labels if recipe.epsilon is None else None
    rows, test_rows, unjudged = splits.hold_out(len(data.inputs), labels, recipe.test_share, rng)
    recipe = _completed(recipe, data, len(rows))

    losses: dict[float, float] = {}
    l2 = recipe.candidates[0]
    if len(recipe.candidates) > 1:
        assert recipe.n_steps is not None  # by _completed
        sampled = len(rows) > recipe.validation_rows
        shorter = replace(recipe, n_steps=min(recipe.n_steps, _SAMPLE_STEPS)) if sampled else recipe
        losses, errors = _validated(data, rows[: recipe.validation_rows], shorter, seed, num_threads)
        l2 = min(losses, key=losses.__getitem__)
        if recipe.certify:
            l2 = max(each for each in losses if losses[each] <= losses[l2] + errors[l2])
    problem = _Problem(data, np.sort(rows), test_rows, recipe, seed, num_threads)
    record = {"test_loss": problem.mean_loss(test_rows)}
    if problem.private is None:
        record = {"train_loss": problem.mean_loss(problem.rows), **record}
    attempts = [l2, *sorted(each for each in losses if each > l2)][: _ATTEMPTS if recipe.certify else 1]
    certified: Certificate | None = None
    declined: dict[float, str] = {}
    for attempt in attempts:
        algorithm, risk = shared(ALGORITHMS[recipe.method].make(problem.choices(attempt))), problem.risk(attempt)
        run = algorithm.run
        if checkpoint is not None:
            run = partial(checkpoints.run, algorithm, path=checkpoint, seconds=_CHECKPOINT_SECONDS, resume=resume)
        tried = run(problem.objective(attempt), problem.n_steps, seed, record=record, callbacks=callbacks)
        tried_scores = problem.trained(tried).split_scores(data, num_threads)
        complaint = fitting.complaint(risk, tried_scores["train"].loss)
        if problem.private is not None:
            tried_scores = {"test": tried_scores["test"]}
        elif complaint is not None:
            raise ConvergenceError(f"{complaint}: more n_steps, a smaller step_size or a larger l2 may help")
        found = tried.certificate(num_threads=num_threads) if recipe.certify or recipe.method == "psdca" else None
        if attempt == attempts[0] or (found is not None and found.reason is None):
            l2, result, scores, certified = attempt, tried, tried_scores, found
        if found is None or found.reason is None:
            break
        declined[attempt] = found.reason
        checkpoint = None  # that is of the first
    declined.pop(l2, None)  # its own reason is that of the certificate
    provenance: dict[str, Any] = {
        "data": data.name,
        # Who knows all rows but one could try values for that one.
        "fingerprint": data.fingerprint if problem.private is None else None,
        "rows": len(data.inputs),
        "classes_not_held_out": unjudged,
        "validation": [{"l2": candidate, "loss": loss} for candidate, loss in losses.items()],
        "version": _core.__version__,
        "kernels": f"{_core.backend.isa}, {_core.backend.compiler}",
        "scores": {part: {"loss": s.loss, s.measure: s.score} for part, s in scores.items()},
    }
    if problem.private is not None:
        provenance["privacy"] = {"epsilon": problem.private.spent, "delta": recipe.delta}
    if certified is not None:
        has_number = certified.reason is None
        provenance["certificate"] = {
            "gap": certified.gap if has_number else None,
            "upper": certified.upper if has_number else None,
            "confidence": certified.confidence,
            "optimum": list(certified.optimum) if has_number else None,
            "moves": certified.n_moves,
            "covered": certified.covered,
            "reason": certified.reason,
            "declined": [{"l2": each, "reason": why} for each, why in declined.items()],
        }
    trained = replace(problem.trained(result), hyperparameters=problem.hyperparameters(l2), provenance=provenance)
    return Training(trained, result, time.perf_counter() - started, losses, scores, certified, declined)


def _without_checkpoint(recipe: Recipe, checkpoint: Path | None) -> Recipe:
    """Recipe as it is, unless a private one comes with a checkpoint."""
    if recipe.epsilon is not None and checkpoint is not None:
        raise ValueError("checkpoint must be left out with epsilon: to go on would pay for the scaling again")
    return recipe


def validation_losses(
    data: Dataset, rows: NDArray[np.int64], recipe: Recipe, seed: int = 0, num_threads: int | None = None
) -> dict[float, float]:
    """Mean validation loss of each candidate for l2; those of a fold run side by side.

    Parameters
    ----------
    data : Dataset
    rows : ndarray of int
        Those to train and to validate on.
    recipe : Recipe
        With loss and number of steps.
    seed : int
        Of the initial particles and the noise, the same for all.
    num_threads : int, optional
    """
    return _validated(data, rows, recipe, seed, num_threads)[0]


def _validated(
    data: Dataset, rows: NDArray[np.int64], recipe: Recipe, seed: int, num_threads: int | None
) -> tuple[dict[float, float], dict[float, float]]:
    """Mean validation loss of each candidate for l2, and its standard error over the rows."""
    smaller = replace(recipe, n_particles=min(recipe.n_particles, recipe.validation_particles))
    scores, of_rows = [], []
    for held_out in splits.folds(rows, data.labels, recipe.validation_samples):
        fold = _Problem(data, np.setdiff1d(rows, held_out), held_out, smaller, seed, num_threads)
        risks = [fold.objective(l2) for l2 in recipe.candidates]
        choices = [fold.choices(l2) for l2 in recipe.candidates]
        results = fitting.side_by_side(recipe.method, risks, choices, fold.n_steps, seed)
        found = [fold.trained(each).row_losses(data.inputs, data.targets, held_out, num_threads) for each in results]
        of_rows.append(np.array(found))
        scores.append([float(own.mean()) for own in found])
    every = np.concatenate(of_rows, axis=1)
    errors = every.std(axis=1) / math.sqrt(every.shape[1])
    means = np.mean(scores, axis=0)
    candidates = recipe.candidates
    return dict(zip(candidates, means.tolist(), strict=True)), dict(zip(candidates, errors.tolist(), strict=True))


def _completed(recipe: Recipe, data: Dataset, n_rows: int) -> Recipe:
    """The recipe with loss, number of steps and its method's defaults; what cannot be is refused before any work."""
    given = recipe.n_steps
    recipe = recipe.complete
    n_classes = 0 if data.classes is None else len(data.classes)
    bilevel = recipe.readout == outer_weights.READOUT
    loss = fitting.default_loss(n_classes, bilevel=bilevel)
    if bilevel and recipe.strength is None:
        recipe = replace(recipe, strength=fitting.default_strength(n_classes))
    if recipe.loss is not None:
        loss = _loss("loss", recipe.loss)
        suits = {"real": n_classes == 0 or bilevel, "sign": n_classes == 2, "class": n_classes >= 2}
        if not suits[loss.targets]:
            kind = f"{n_classes} classes" if n_classes else "a regression"
            raise ValueError(f"loss must suit {kind}, got {loss.name}, which is for {_TARGETS[loss.targets]}")
    if recipe.batch_size is not None and recipe.batch_size > n_rows:
        raise ValueError(
            f"batch_size must be at most the number of rows to train on, {n_rows}, got {recipe.batch_size}"
        )
    assert recipe.n_steps is not None  # by complete
    n_steps, gradient = recipe.n_steps, _gradient(recipe, n_rows)
    by_passes = recipe.method == "mfld" and recipe.epsilon is None and not bilevel
    if given is None and by_passes and isinstance(gradient, Minibatch):
        n_steps = max(n_steps, math.ceil(_PASSES * n_rows / gradient.batch_size))
    dual = recipe.method == "psdca"
    if dual and recipe.temperature_schedule is None:
        recipe = replace(recipe, temperature_schedule=_cooling(n_steps))
    for name in ("step_size", "temperature", "l2"):
        schedule = getattr(recipe, f"{name}_schedule")
        if schedule is not None:
            schedules.values(f"{name}_schedule", schedule, 0, n_steps, positive=dual or name == "step_size")
    return replace(recipe, loss=loss, n_steps=n_steps)


def _cooling(n_epochs: int) -> Schedule | None:
    """How the temperature of dual ascent falls to that of the recipe, in time for some epochs there."""
    n_warm = min(_WARM_EPOCHS, n_epochs - _LAST_EPOCHS)
    if n_warm <= 0:
        return None
    return schedules.Piecewise([schedules.Geometric(_WARMEST, _WARMEST ** (-1 / n_warm), 1), 1.0], [0, n_warm])


def _gradient(recipe: Recipe, n_rows: int) -> GradientEstimator:
    """The estimator for so many rows: those of a fold can be fewer than a mini-batch of the run that it stands for."""
    return fitting.estimator(recipe.method, n_rows, recipe.gradient, recipe.batch_size, recipe.refresh_every)


class _Problem:
    """Some rows to train on, as the network takes them, by a completed recipe; l2 is open."""

    def __init__(
        self,
        data: Dataset,
        rows: NDArray[np.int64],
        held_out: NDArray[np.int64],
        recipe: Recipe,
        seed: int,
        num_threads: int | None,
    ) -> None:
        loss = _loss("loss", recipe.loss)
        assert recipe.n_steps is not None  # by _completed
        n_columns, n_outputs = data.inputs.shape[1], 1
        if data.classes is not None:
            n_outputs = fitting.n_outputs(len(data.classes), loss)
        network: dict[str, Any] = {k: v for k in _OF_NETWORK if (v := getattr(recipe, k)) is not None}
        if recipe.of_outer_weights is not None:
            network["readout"] = outer_weights.NETWORK_READOUT
        self._model: Model | ResidualNetwork
        self.private: PrivateChoices | None = None
        model: TwoLayerNetwork | ResidualNetwork
        if recipe.depth is not None:
            self._model = model = ResidualNetwork(n_columns, n_outputs, recipe.depth, **network)
            scaling = fitting.scaling(data.inputs, rows=rows)
        elif recipe.functional is None:
            self._model = model = TwoLayerNetwork(n_columns, n_outputs, **network)
            self.private = None if recipe.epsilon is None else _private_choices(data, rows, recipe)
            scaling = fitting.scaling(data.inputs, rows=rows) if self.private is None else self.private.scaling
        else:
            grid = curves.grid(data.encoding)
            modes = recipe.functional.modes(grid, recipe.n_modes, data.inputs[rows])
            self._model = functional = FunctionalNetwork(grid, modes, n_outputs=n_outputs, **network)
            model = functional.network
            scaling = fitting.scaling_of_curves(data.inputs, modes, rows=rows)
        target_mean, target_scale = 0.0, 1.0
        if data.classes is None:
            (target_mean,), (target_scale,) = fitting.moments(data.targets[rows, np.newaxis])
        self.rows, self.n_steps = rows, recipe.n_steps
        self._data, self._recipe, self._seed, self._num_threads = data, recipe, seed, num_threads
        self._untrained = TrainedModel(
            model=model,
            particles=self._first_particles(recipe, seed),
            loss=loss,
            encoding=data.encoding,
            scaling=scaling,
            target_mean=float(target_mean),
            target_scale=float(target_scale),
            classes=data.classes,
            test_rows=held_out,
            hyperparameters={},
            provenance={},
        )
        self._inputs, self._targets = self._as_taken(rows)

    def _first_particles(self, recipe: Recipe, seed: int) -> FloatArray:
        place = Place.of(seed)
        draws = [
            self._model.initial_particles(recipe.n_particles, place.member(k), validation.of_particles(recipe.dtype))
            for k in range(recipe.depth or 1)
        ]
        return draws[0] if recipe.depth is None else np.stack(draws)

    def risk(self, l2: float) -> TrainedRisk:
        risk = fitting.risk(self._model, self._inputs, self._targets, loss=self._untrained.loss, l2=l2)
        return risk.on_threads(self._num_threads)

    def objective(self, l2: float) -> Objective:
        """Objective of the run: the risk, or that of positions with the best outer weights."""
        strength = self._recipe.of_outer_weights
        return self.risk(l2) if strength is None else fitting.reduced(self.risk(l2), strength)

    @cached_property
    def _positions(self) -> SignedRisk | None:
        """The risk of positions, whose weights do not depend on l2; None where these are coordinates like others."""
        strength = self._recipe.of_outer_weights
        return None if strength is None else fitting.reduced(self.risk(0.0), strength)

    def _neurons(self, measure: Cloud) -> Cloud:
        """Neurons of the network that a measure stands for."""
        return measure if self._positions is None else outer_weights.neurons(self._positions, measure)

    @property
    def _gradient(self) -> GradientEstimator:
        if self._positions is not None:
            return outer_weights.estimator(self._positions)
        return _gradient(self._recipe, len(self.rows)) if self.private is None else self.private.gradient

    def choices(self, l2: float) -> Choices:
        """The numbers of the recipe, and where it has none those of the rule, with this l2."""
        recipe = self._recipe
        step_size: Scheduled | str | None = None
        if ALGORITHMS[recipe.method].has_step_size:
            step_size = self._step_size(l2)
            if not isinstance(step_size, str):
                step_size = _times(step_size, recipe.step_size_schedule)
        return Choices(
            recipe.n_particles,
            temperature=_times(self._temperature(l2), recipe.temperature_schedule),
            step_size=step_size,
            l2=None if recipe.l2_schedule is None else _times(l2, recipe.l2_schedule),
            gradient=self._gradient,
            dynamics=Overdamped(ridge="explicit" if recipe.functional is None else "crank_nicolson"),
            inner_steps=recipe.inner_steps or Choices.inner_steps,
            dtype=recipe.dtype,
            num_threads=self._num_threads,
        )

    def hyperparameters(self, l2: float) -> dict[str, Any]:
        """Every choice of a run with this l2, as numbers and texts."""
        recipe = self._recipe
        chosen = {**recipe.as_json(), "seed": self._seed, "l2": l2, "temperature": self._temperature(l2)}
        if ALGORITHMS[recipe.method].has_step_size:
            chosen["step_size"] = self._step_size(l2)
            chosen["gradient"] = repr(self._gradient)
        return chosen

    def trained(self, result: Result) -> TrainedModel:
        cloud = self._neurons(result.measure)
        return replace(self._untrained, particles=cloud.particles, weights=cloud.weights)

    def mean_loss(self, rows: NDArray[np.int64]) -> Callable[[State], float]:
        """The mean loss on a sample of rows that is spread evenly over them."""
        inputs, targets = self._as_taken(rows[:: math.ceil(len(rows) / _HISTORY_ROWS)])
        risk = fitting.risk(self._untrained.model, inputs, targets, loss=self._untrained.loss)
        risk = risk.on_threads(self._num_threads)
        return lambda state: risk.loss(self._neurons(state.measure))

    def _as_taken(self, rows: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        """Inputs and targets of rows as the network and the loss take them."""
        untrained, data = self._untrained, self._data
        return untrained.standardised(data.inputs, rows), untrained.encoded(data.targets[rows])

    def _temperature(self, l2: float) -> float:
        given = self._recipe.temperature
        if given is not None:
            return given
        return ALGORITHMS[self._recipe.method].temperature(l2, self._recipe.reference_scale)

    def _step_size(self, l2: float) -> float | str:
        given = self._recipe.step_size
        if given is not None:
            return given
        calm = fitting.calm(self.risk(l2), self._gradient)
        return fitting.stable_step_size(self._curvature + 2 * l2, calm * (self._recipe.step_share or STEP_SHARE))

    @cached_property
    def _curvature(self) -> float:
        """That of the loss, which does not depend on l2."""
        recipe, classes = self._recipe, self._data.classes
        if self.private is not None:
            assert classes is not None  # by _private_choices

            def alike(inputs: FloatArray, numbers: NDArray[np.int64]) -> TrainedRisk:
                targets = self._untrained.encoded(classes[numbers])
                return fitting.risk(self._model, inputs, targets, loss=self._untrained.loss)

            return self.private.curvature(alike, self._inputs.shape[1], len(classes), recipe.n_particles)
        return fitting.largest_curvature(
            self.risk(0.0),
            recipe.n_particles,
            self._seed,
            validation.of_particles(recipe.dtype),
            self._num_threads,
            recipe.of_outer_weights,
        )


def _private_choices(data: Dataset, rows: NDArray[np.int64], recipe: Recipe) -> PrivateChoices:
    """Scaling and gradients of a private training, by bounds of the columns."""
    if data.classes is None:
        raise ValueError("epsilon must be left out for a regression, whose targets have no public bounds")
    if any(feature.fill is not None for feature in data.encoding.features):
        raise ValueError("missing must be 'refuse' or 'drop' with epsilon: what is imputed looks at rows")
    given, ends = dict(recipe.bounds or {}), list[tuple[float, float] | None]()
    for feature in data.encoding.features:
        waves = 2 * len(feature.cycles)
        if feature.categories is not None:
            ends += [(0.0, 1.0)] * len(feature.names)
        else:
            ends += [given.pop(feature.name) if feature.name in given else None, *[(-1.0, 1.0)] * waves]
    if given:
        raise ValueError(f"bounds must be of columns of numbers or dates, got {next(iter(given))!r}")
    assert recipe.n_steps is not None
    assert recipe.epsilon is not None
    return private_fitting.choose(
        data.inputs[rows],
        recipe.n_steps,
        epsilon=recipe.epsilon,
        delta=recipe.delta,
        n_particles=recipe.n_particles,
        n_classes=len(data.classes),
        bounds=ends,
        batch_size=recipe.batch_size,
        names=data.encoding.feature_names,
    )


def _times(value: float, schedule: Schedule | None) -> float | Schedule:
    return value if schedule is None else value * schedule
