"""From data to a run: the choices that `mfld train` and the estimators for scikit-learn make by one rule.

* Features, and the targets of a regression, are standardised by their (weighted) mean and standard deviation; features
  with values far out by median and quartiles, and these values are drawn in (`scaling`). Curves have one mean, which is
  a curve, and one scale for all (`scaling_of_curves`).
* Two classes take the logistic loss, more the cross-entropy, numbers the half squared loss.
* The temperature follows from l2, so that the reference measure N(0, temperature / (2 l2)) is the same for all.
* The step size is half of the largest one that is stable at the start, from the curvature of the risk, less where
  mini-batches have targets far out; or, if asked for, the rule of `MFLD` that finds one on the way, "fuse".
* Mean-field Langevin dynamics takes all rows up to 256 of them and mini-batches of 128 beyond, the others all rows.
* A run that stops early does so by the loss of held-out rows, and keeps the neurons where it was lowest.

Nothing here goes through BLAS or LAPACK, whose sums depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mfld import linear, outer_weights
from mfld.algorithms import MFLD, PDA, PSDCA, Algorithm, Result, StopOnPlateau
from mfld.dynamics import Dynamics, Overdamped
from mfld.functional_data import Modes
from mfld.gradients import SARAH, SVRG, FullBatch, GradientEstimator, Minibatch
from mfld.losses import Loss, LossFunction
from mfld.models import Model
from mfld.noise import Place
from mfld.objectives import EmpiricalRisk, Objective, ResidualRisk, SignedRisk
from mfld.residual import ResidualNetwork
from mfld.schedules import Scheduled
from mfld.state import Cloud, State
from mfld.step_size import curvature
from mfld.validation import FloatArray

TrainedRisk: TypeAlias = EmpiricalRisk | ResidualRisk
"""Risks of finite data that the fronts train on."""

BATCH_SIZE = 128
STEP_SHARE = 0.5  # of the largest step size that is stable at the start
LOOKS = 100  # in a run, about: at the loss of held-out rows, and of callbacks

# Of digits, 512 rows give step sizes that spread by a third, 1024 by a tenth.
_CURVATURE_ROWS, _CURVATURE_PARTICLES = 1024, 256
_SLIGHTLY = 0.05
_FAR, _BEND = 12.0, 3.0  # standard deviations
_WIDE, _LEAST_OF_WIDE = 8.0, 0.1
_DEEP = 0.25  # docs/residual-networks.md
_QUARTILES_APART = 1.349  # of the standard normal law
_CHUNK = 4096  # rows: a copy of all of them in double precision can be what memory lacks


# ---- data


def moments(
    values: FloatArray, weights: NDArray[np.float64] | None = None, rows: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of columns, shape (n_columns,) each; a deviation of 1 where a column is constant.

    Parameters
    ----------
    values : ndarray, shape (n, n_columns)
    weights : ndarray, shape (n,), optional
        Of the rows; of any sum.
    rows : ndarray of int, optional
        Those that count; by default all.
    """
    mean, deviation = np.empty(values.shape[1]), np.ones(values.shape[1])
    for k, all_rows in enumerate(values.T):
        column = np.array(all_rows if rows is None else all_rows[rows], np.float64)
        mean[k] = _average(column, weights)
        centred = column - mean[k]
        unit = linear.unit(centred)
        spread = unit * math.sqrt(_average((centred / unit) ** 2, weights))
        # By the range too: rounding gives the same number over and over a deviation that is not quite 0.
        if np.ptp(column) > 0 and spread > 0:
            deviation[k] = spread
    return mean, deviation


def scaling(
    values: FloatArray, weights: NDArray[np.float64] | None = None, rows: NDArray[np.int64] | None = None
) -> Scaling:
    """Scaling of features by their mean and standard deviation; by median and quartiles where some values are far out.

    A column with a value beyond 12 standard deviations is bent at 3; where its quartiles differ, deviations are those
    of the normal law with these quartiles. The others are bent at 12, where rows that come later may be.

    Parameters
    ----------
    values, weights, rows
        As in `moments`.
    """
    centre, scale = moments(values, weights, rows)
    bend = np.full(len(centre), _FAR)
    counted = None if weights is None else weights > 0
    for k, all_rows in enumerate(values.T):
        column = np.array(all_rows if rows is None else all_rows[rows], np.float64)
        own = weights
        if counted is not None and weights is not None:
            column, own = column[counted], weights[counted]
        if np.abs(column - centre[k]).max() <= _FAR * scale[k]:
            continue
        bend[k] = _BEND
        low, median, high = _quantiles(column, own)
        if high > low:
            centre[k], scale[k] = median, (high - low) / _QUARTILES_APART
    return Scaling(centre, scale, bend)


def scaling_of_curves(
    values: FloatArray,
    modes: Modes,
    weights: NDArray[np.float64] | None = None,
    rows: NDArray[np.int64] | None = None,
    *,
    standardise: bool = True,
) -> Scaling:
    """Scaling of curves to the inputs of a `FunctionalNetwork` with these modes.

    The mean curve is subtracted, and one factor makes the mean of ``|z|**2`` 1, so that neurons which are drawn from
    the reference see numbers of the size 1 whatever the units and the number of modes; or neither, but the projection.

    Parameters
    ----------
    values, weights, rows
        As in `moments`.
    """
    projection = np.asarray(modes.projection * np.sqrt(modes.variances), np.float64)
    scale = Scaling(np.zeros(len(projection)), np.ones(len(projection)), np.full(len(projection), np.inf), projection)
    if not standardise:
        return scale
    centre, _ = moments(values, weights, rows)
    centred = replace(scale, centre=centre)
    inputs = centred.apply(values, np.float64, rows)
    unit = linear.unit(inputs)
    size = unit * math.sqrt(_average(np.sum((inputs / unit) ** 2, axis=1), weights))
    return replace(centred, scale=np.full(len(projection), size if size > 0 else 1.0))


@dataclass(frozen=True, eq=False)
class Scaling:
    """How features become inputs: ``z = (x - centre) / scale``, and beyond ``bend`` its size grows like a logarithm.

    ::

        |z| -> bend * (1 + log(|z| / bend))        where |z| > bend

    so that a row that is far out is an input like the others: the curvature of its loss, by which steps become
    unstable, is that of a square of the input. Where features are the points of curves, inputs are their coordinates.

    Attributes
    ----------
    centre, scale, bend : ndarray, shape (n_features,)
        ``bend`` is infinite where features are taken as they are.
    projection : ndarray, shape (n_features, n_inputs), or None
        From z to inputs, ``z @ projection``; None where z are the inputs.
    """

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    bend: NDArray[np.float64]
    projection: NDArray[np.float64] | None = None

    @classmethod
    def none(cls, n_features: int) -> Scaling:
        """Features as they are."""
        return cls(np.zeros(n_features), np.ones(n_features), np.full(n_features, np.inf))

    def apply(self, values: FloatArray, dtype: DTypeLike, rows: NDArray[np.int64] | None = None) -> FloatArray:
        """Inputs of all rows or of these, computed in double precision; read-only."""
        n = len(values) if rows is None else len(rows)
        result = np.empty((n, values.shape[1] if self.projection is None else self.projection.shape[1]), dtype)
        for start in range(0, n, _CHUNK):
            piece = slice(start, start + _CHUNK)
            z = (values[piece if rows is None else rows[piece]] - self.centre) / self.scale
            size = np.abs(z)
            far = np.flatnonzero((size > self.bend).any(axis=0))
            if len(far):
                size, bend = size[:, far], self.bend[far]
                beyond = bend * (1 + np.log(np.maximum(size, bend) / bend))
                z[:, far] = np.copysign(np.where(size > bend, beyond, size), z[:, far])
            result[piece] = z if self.projection is None else np.einsum("nt,tk->nk", z, self.projection)
        result.flags.writeable = False
        return result


def _quantiles(column: NDArray[np.float64], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Quartiles of a column: the least values that have a quarter, a half, three quarters of the weight below or at."""
    order = np.argsort(column, kind="stable")
    below = np.arange(1.0, len(column) + 1) if weights is None else np.cumsum(weights[order])
    found = np.searchsorted(below, np.array([0.25, 0.5, 0.75]) * below[-1])
    quartiles: NDArray[np.float64] = column[order[np.minimum(found, len(column) - 1)]]
    return quartiles


def _average(values: FloatArray, weights: FloatArray | None) -> float:
    return float(np.mean(values) if weights is None else np.sum(weights * values) / np.sum(weights))


# ---- networks and targets

BOUNDED_READOUTS = ("bounded", "parity")
"""Readouts that have a bound."""


def default_loss(n_classes: int, *, bilevel: bool = False) -> Loss:
    """The loss for so many classes, 0 for a regression; squares where outer weights are the best ones."""
    return Loss("half_squared") if bilevel else Loss({0: "half_squared", 2: "logistic"}.get(n_classes, "cross_entropy"))


def default_strength(n_classes: int) -> float:
    """Strength of the ridge of outer weights for so many classes, 0 for a regression, whose targets have more noise."""
    return 1e-3 if n_classes else 0.1


def n_outputs(n_classes: int, loss: LossFunction) -> int:
    """Outputs of a network for classes: the sign of one decides between two, unless the loss is one of classes."""
    return 1 if n_classes == 2 and loss.targets != "class" else n_classes


def encoded(labels: NDArray[Any], classes: NDArray[Any], loss: LossFunction) -> NDArray[np.float64]:
    """Labels as the loss takes them: numbers of classes, or -1 and +1, with several classes one against the rest.

    Parameters
    ----------
    labels : ndarray, shape (n,)
    classes : ndarray, shape (n_classes,)
        Sorted.
    loss : LossFunction

    Returns
    -------
    ndarray, shape (n,) or (n, n_classes)
    """
    numbers = np.searchsorted(classes, labels)
    if loss.targets == "class":
        return numbers.astype(np.float64)
    right = numbers == 1 if len(classes) == 2 else numbers[:, np.newaxis] == np.arange(len(classes))
    return np.where(right, np.float64(1), np.float64(-1))


def decided(outputs: FloatArray, classes: NDArray[Any]) -> NDArray[Any]:
    """Labels by the outputs of a network: the second class where a single one is positive, else that of the largest."""
    chosen = (outputs > 0).astype(int) if outputs.ndim == 1 else outputs.argmax(axis=1)
    labels: NDArray[Any] = classes[chosen]
    return labels


# ---- how good a fit is at least


def probabilities(outputs: FloatArray, loss: LossFunction) -> FloatArray:
    """Probabilities of the classes from raw outputs of a logistic loss or a cross-entropy, shape (n, n_classes).

    Several classes with the logistic loss are one against the rest.
    """
    if outputs.ndim == 1:
        second = 0.5 * (1 + np.tanh(outputs / 2))
        return np.stack([1 - second, second], axis=1)
    if loss.targets == "class":
        shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    else:
        shares = 0.5 * (1 + np.tanh(outputs / 2))
    result: FloatArray = shares / shares.sum(axis=1, keepdims=True)
    return result


def risk(model: Model | ResidualNetwork, inputs: FloatArray, targets: FloatArray, **options: Any) -> TrainedRisk:
    """The risk of a model of either kind, with the options of `EmpiricalRisk`."""
    if isinstance(model, Model):
        return EmpiricalRisk(model, inputs, targets, **options)
    return ResidualRisk(model, inputs, targets, **options)


def reduced(risk: TrainedRisk, strength: float) -> SignedRisk:
    """The risk of positions whose outer weights are the best ones, see `mfld.outer_weights`.

    Raises
    ------
    ValueError
        If the loss is not convex, or has no smooth derivative.
    """
    assert isinstance(risk, EmpiricalRisk)  # by the fronts
    return outer_weights.reduced(risk, strength)


def complaint(risk: TrainedRisk, loss: float, *, few_rows: bool = False) -> str | None:
    """Fault of a fit with this loss, if that is worse than a constant prediction, for a message; None where it is not.

    The constants are 0, which on standardised targets is the mean, and the logarithms of the shares of classes. A run
    that has hardly begun is as good as 0, up to the noise of its neurons: worse is by 5 % of the loss at 0. Where the
    rows are a few of those that were trained on, by all of it, and by 1 at least, about that of one standard deviation.
    """
    losses = [_loss_of_constant(risk, constant) for constant in _constants(risk)]
    best = min(losses)
    slack = max(losses[0], 1.0) if few_rows else _SLIGHTLY * max(losses[0], _SLIGHTLY)
    if loss <= best + slack:
        return None
    return f"the loss of the network on its own rows, {loss:.4g}, is above {best:.4g}, that of a constant prediction"


def _constants(risk: TrainedRisk) -> list[NDArray[np.float64]]:
    targets, weights = risk.targets, risk.sample_weight
    constants = [np.zeros(risk.model.n_outputs)]
    with np.errstate(divide="ignore"):
        if risk.loss_function.targets == "sign":
            share = np.array([_average((column > 0).astype(np.float64), weights) for column in targets.T])
            constants.append(np.log(share) - np.log1p(-share))
        if risk.loss_function.targets == "class":
            classes = range(risk.model.n_outputs)
            constants.append(np.log([_average((targets[:, 0] == k).astype(np.float64), weights) for k in classes]))
    return [np.clip(constant, -30, 30) for constant in constants]


def _loss_of_constant(risk: TrainedRisk, constant: NDArray[np.float64]) -> float:
    predictions = np.tile(constant, (risk.n_samples, 1))
    values, _ = risk.loss_function.evaluate(predictions, risk.targets.astype(np.float64))
    return _average(values, risk.sample_weight)


# ---- step size and rows of a step


def largest_curvature(
    risk: TrainedRisk,
    n_particles: int,
    seed: int,
    dtype: DTypeLike,
    num_threads: int | None,
    strength: float | None = None,
) -> float:
    """Largest curvature of a risk, ridge included, at the start of a run: from some of its rows and particles.

    For a loss with kinks it is that of the smooth one of the same targets. With a strength it is that of positions
    whose outer weights are the best ones.
    """
    n = risk.n_samples
    rows = np.unique(np.linspace(0, n - 1, min(n, _CURVATURE_ROWS)).astype(np.int64))
    part, _ = risk.on_threads(num_threads).of_rows(rows)
    smooth = {"real": "half_squared", "sign": "logistic"}.get(risk.loss_function.targets or "")
    if smooth is not None and not np.isfinite(risk.loss_function.smoothness):
        part = part.with_loss(smooth)
    objective = part if strength is None else reduced(part, strength)
    return curvature(objective, _start(objective, min(n_particles, _CURVATURE_PARTICLES), seed, dtype))


def _start(risk: Objective, n_particles: int, seed: int, dtype: DTypeLike) -> FloatArray:
    """Particles that a run starts from, of each member where there are several."""
    if not risk.members:
        return risk.initial_particles(n_particles, seed, dtype)
    place = Place.of(seed)
    return np.stack([risk.initial_particles(n_particles, place.member(k), dtype) for k in range(*risk.members)])


def widths(inputs: FloatArray) -> NDArray[np.float64]:
    """Squared length of rows of inputs, 1 for the bias included, by which the curvature of their loss grows."""
    squares: NDArray[np.float64] = 1 + np.square(inputs, dtype=np.float64).sum(axis=1)
    return squares


def calm(risk: TrainedRisk, gradient: GradientEstimator) -> float:
    """Share of a stable step size at which a mini-batch with a row that is far out does not undo the others.

    The gradient of a row whose target is far out is that of a usual one times its target: 12 standard deviations take
    all of the step. Estimators that go by earlier steps, SVRG and SARAH, take less where a row is wider than the mean:
    from 8 times as wide on, and a tenth at least, as measured on features with heavy tails. Deep networks take a
    quarter, rows or no rows: their layers grow through each other, and the curvature at the start is soon too small.
    """
    share = _DEEP if math.prod(risk.members) > 1 else 1.0
    if gradient.exact:
        return share
    if risk.loss_function.targets == "real":
        share = _FAR / max(float(np.abs(risk.targets).max()), _FAR)
    if gradient.buffer_names:
        wide = widths(risk.inputs)
        share *= max(_WIDE / max(float(wide.max() / wide.mean()), _WIDE), _LEAST_OF_WIDE)
    return share


def stable_step_size(largest: float, share: float = STEP_SHARE) -> float:
    """The share of ``2 / largest``, from which on a step is unstable where this is the largest curvature.

    Raises
    ------
    ValueError
        If there is no curvature.
    """
    if largest == 0:
        raise ValueError("step_size must be given where the risk has no curvature at the start, got None")
    return share * 2 / largest


GRADIENTS: dict[str, Callable[[int | None, int | None], GradientEstimator]] = {
    "full": lambda batch_size, refresh_every: FullBatch(),
    "minibatch": lambda batch_size, refresh_every: Minibatch(batch_size or BATCH_SIZE),
    "svrg": SVRG,
    "sarah": SARAH,
}
"""Gradient estimators by their names in the fronts."""


def estimator(
    algorithm: str,
    n_rows: int,
    name: str | None = None,
    batch_size: int | None = None,
    refresh_every: int | None = None,
    *,
    least_share: float = 0.0,
) -> GradientEstimator:
    """The gradient estimator for so many rows.

    Parameters
    ----------
    algorithm : str
        Among `ALGORITHMS`.
    n_rows : int
    name : str, optional
        Among `GRADIENTS`. Default: mini-batches where they have a size, or the algorithm takes them by default and
        there are more than two of them; else all rows.
    batch_size : int, optional
        Default: 128, or for SVRG and SARAH what they take by themselves. Never more than there are rows.
    refresh_every : int, optional
        Of SVRG and SARAH.
    least_share : float
        Of the rows, in a mini-batch without a size.
    """
    if name is None:
        many = batch_size is not None or (ALGORITHMS[algorithm].samples_rows and n_rows > 2 * BATCH_SIZE)
        name = "minibatch" if many else "full"
    if batch_size is None and name == "minibatch":
        batch_size = max(BATCH_SIZE, math.ceil(least_share * n_rows))
    return GRADIENTS[name](None if batch_size is None else min(batch_size, n_rows), refresh_every)


# ---- algorithms


@dataclass(frozen=True)
class Choices:
    """Arguments of an algorithm; each takes those that it has a place for."""

    n_particles: int
    temperature: Any
    step_size: Scheduled | str | None = None
    l2: Scheduled | None = None
    gradient: GradientEstimator = field(default_factory=FullBatch)
    dynamics: Dynamics = field(default_factory=Overdamped)
    inner_steps: int = 10
    dtype: str = "float32"
    num_threads: int | None = None


def _mfld(c: Choices) -> MFLD:
    return MFLD(
        c.n_particles,
        step_size=c.step_size,
        temperature=c.temperature,
        l2=c.l2,
        gradient=c.gradient,
        dynamics=c.dynamics,
        dtype=c.dtype,
        num_threads=c.num_threads,
    )


def _mfld_grid(choices: Sequence[Choices], l2: Sequence[Scheduled]) -> Algorithm | None:
    if any(callable(own.temperature) and own.l2 is None for own in choices):
        return None  # l2 follows the temperature then, from the objective's own
    numbers = tuple(h for own in choices if (h := own.step_size) is not None and not isinstance(h, str))
    sizes = numbers or choices[0].step_size  # a rule is one for all
    temperatures = tuple(own.temperature for own in choices)
    solver = _mfld(choices[0])
    return replace(solver, step_size=sizes, temperature=temperatures, l2=tuple(l2), n_replicates=len(l2))


def _pda(c: Choices) -> Algorithm:
    if not isinstance(c.gradient, (FullBatch, Minibatch)):
        raise ValueError(f"gradient must be 'full' or 'minibatch' for algorithm='pda', got {c.gradient}")
    if c.step_size is None or isinstance(c.step_size, str):
        raise ValueError(f"step_size must be a number for algorithm='pda', got {c.step_size!r}")
    return PDA(
        c.n_particles,
        step_size=c.step_size,
        temperature=c.temperature,
        inner_steps=c.inner_steps,
        batch_size=c.gradient.batch_size if isinstance(c.gradient, Minibatch) else None,
        dynamics=c.dynamics,
        dtype=c.dtype,
        num_threads=c.num_threads,
    )


def _psdca(c: Choices) -> Algorithm:
    return PSDCA(c.n_particles, temperature=c.temperature, dtype=c.dtype, num_threads=c.num_threads)


@dataclass(frozen=True)
class Kind:
    """An algorithm by its name in the fronts, and what it takes by default.

    Attributes
    ----------
    make : callable
    reference_scale : float
        Standard deviation s of the reference measure: the temperature is ``2 * l2 * s**2``.
    has_step_size : bool
    samples_rows : bool
        Whether many rows make mini-batches.
    make_grid : callable, optional
        One algorithm for several choices, whose replicates they are; None where there is none.
    """

    make: Callable[[Choices], Algorithm]
    reference_scale: float
    has_step_size: bool = True
    samples_rows: bool = False
    make_grid: Callable[[Sequence[Choices], Sequence[Scheduled]], Algorithm | None] | None = None

    def temperature(self, l2: float, reference_scale: float | None = None) -> float:
        """The temperature for a ridge, with this reference scale in place of the kind's own."""
        scale = self.reference_scale if reference_scale is None else reference_scale
        return 2 * l2 * scale**2


# The Langevin methods stop long before the cloud has forgotten its start. The dual one samples Gibbs measures to the
# end, for which the temperature has to be high enough for chains to mix.
ALGORITHMS: dict[str, Kind] = {
    "mfld": Kind(_mfld, reference_scale=0.1, samples_rows=True, make_grid=_mfld_grid),
    "pda": Kind(_pda, reference_scale=0.1),
    "psdca": Kind(_psdca, reference_scale=0.5, has_step_size=False),
}
"""Algorithms by their names in the fronts."""


def side_by_side(
    algorithm: str, risks: Sequence[Objective], choices: Sequence[Choices], n_steps: int, seed: int
) -> list[Result]:
    """Runs that share rows, initial particles and noise, and differ in l2, temperature and step size; ends only.

    Those of mean-field Langevin dynamics are the replicates of one run, and one call of the core where it knows the
    parts.
    """
    kind = ALGORITHMS[algorithm]
    l2 = [risk.l2 if own.l2 is None else own.l2 for risk, own in zip(risks, choices, strict=True)]
    grid = None if kind.make_grid is None else kind.make_grid(choices, l2)
    if grid is None:
        pairs = zip(risks, choices, strict=True)
        return [kind.make(own).run(risk, n_steps, seed, record_every=n_steps) for risk, own in pairs]
    state = grid.init(risks[0], seed, replica=(0,) * len(choices))
    together = grid.run(risks[0], n_steps, state=state, record_every=n_steps)
    each = zip(choices, risks, together.state.each(), together.info.each(), strict=True)
    return [Result(kind.make(own), risk, ended, {}, info) for own, risk, ended, info in each]


class KeepBest(StopOnPlateau):
    """Stops a run when the loss of held-out rows does not fall any more, and keeps the state where it was lowest.

    ``neurons`` makes the network of a state where that is more than its measure.

    Attributes
    ----------
    best : State or None
        None before the first look.
    losses : list of float
        At each look.
    """

    def __init__(
        self,
        held_out: TrainedRisk,
        patience: int,
        tolerance: float,
        every: int,
        neurons: Callable[[State], Cloud] | None = None,
    ) -> None:
        super().__init__(self._look, patience, tolerance, every)
        self.best: State | None = None
        self.losses: list[float] = []
        self._held_out, self._neurons = held_out, neurons
        self._lowest = math.inf

    def _look(self, state: State) -> float:
        loss = self._held_out.loss(state.measure if self._neurons is None else self._neurons(state))
        self.losses.append(loss)
        if loss < self._lowest:
            self._lowest, self.best = loss, state
        return loss

    def on_end(self, state: State) -> None:
        return


def pace(n_steps: int) -> int:
    """Steps from one look to the next: about a hundred looks in a run."""
    return math.ceil(n_steps / LOOKS)
