"""Risks of a model: what those of finite data and of a stream have in common, and the empirical risk."""

from __future__ import annotations

import copy
import functools
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import _core, references, validation
from mfld.data import Rows, Samples
from mfld.losses import AnyLoss, LossFunction, as_loss
from mfld.models import Model
from mfld.native import RiskOfNetwork, final
from mfld.noise import Place
from mfld.objectives.base import Around, Bounds, Measure, Objective, Potential, SetOnce
from mfld.ranks import ALONE, Ranks
from mfld.references import Reference
from mfld.state import Buffers, Cloud
from mfld.validation import FloatArray, FloatDType

_FAR = 1e100  # stands for an infinite prediction
_RESIDENT = 1 << 28  # bytes of rows on disk that stay in memory between two calls of the core
_AT_ONCE = 1 << 24  # bytes of rows on disk for which predictions are made at once
_KEPT = 1 << 24  # numbers that the core keeps of a cloud for its second derivatives, of which it makes at least so many
_LANES = 32  # particles
_READ_AROUND = 1 << 20  # bytes that a system may map around one that is read: 64 KiB of Linux, 0.7 MiB were seen
_Samples: TypeAlias = Callable[[FloatDType], tuple[FloatArray, FloatArray]]


class Risk(SetOnce, Objective):
    """Mean loss of a model's predictions over samples, with the ridge: `EmpiricalRisk` or `StreamRisk`.

    An algorithm that sums the derivatives of many steps, like `PDA`, keeps a *record* of the samples seen: arrays among
    the buffers of a state, shape (1, J, width), with a row for each of J samples.

    Attributes
    ----------
    model : Model
    loss_function : LossFunction
    capacity : int or None
        Most samples that a record may hold; None where it is to be given, or there is no need for it.
    """

    any_precision = True
    model: Model
    loss_function: LossFunction
    capacity: int | None = None

    def on_threads(self, num_threads: int | None) -> Self:
        same = copy.copy(self)
        same.num_threads = num_threads
        return same

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        """The model's initial particles."""
        return self.model.initial_particles(n_particles, place, dtype)

    def predict(self, measure: Measure, inputs: ArrayLike) -> FloatArray:
        cloud = self.cloud(measure)
        return self.model.predict(cloud.particles, inputs, cloud.weights, self.num_threads)

    @abstractmethod
    def record_widths(self, dtype: DTypeLike) -> dict[str, tuple[int, DTypeLike]]:
        """Arrays of a record by their names: how many numbers they have for a sample, and in which precision.

        ``dtype`` is that of the run.
        """

    @abstractmethod
    def n_recorded(self, record: Buffers) -> int:
        """Number J of samples for which a record has a row, or should have."""

    @abstractmethod
    def recorded(self, record: Buffers, particles: FloatArray, batch: Any, factor: float) -> tuple[Buffers, float]:
        """A new record, with ``factor`` times the derivatives of a batch added, and the mean loss of that batch."""

    @abstractmethod
    def averaged(self, record: Buffers, scale: float) -> tuple[EmpiricalRisk, FloatArray]:
        """A risk and dual variables whose potential is ``scale`` times the sum of a record, see `linearised`."""


@final
class EmpiricalRisk(Risk):
    """Regularised empirical risk ``F(mu) = sum_i s_i l(f_mu(z_i), y_i) + l2 E_mu |theta|**2``.

    Its first variation, a function of theta, is ``sum_i s_i l'(f_mu(z_i), y_i) h(theta, z_i) + l2 |theta|**2``. Source:
    Nitanda, Wu, Suzuki 2022, "Convex analysis of the mean field Langevin dynamics"; Hu, Ren, Siska, Szpruch 2021,
    "Mean-field Langevin dynamics and energy landscape of neural networks".

    Parameters
    ----------
    model : Model
        A `TwoLayerNetwork`, or a `NeuronModel` of your own functions.
    inputs : array_like, shape (n, n_features)
        Copied, unless it cannot be written to, as NumPy says: whoever makes such an array writable again, changes the
        risk.
    targets : array_like, shape (n,) or (n, n_outputs)
        What the loss takes: reals, -1 and +1, or classes 0..n_outputs-1 of shape (n,).
    loss : str or LossFunction or callable
        A name among `losses` or a `Loss`, which are summed over outputs; or your own: a `LossFunction`, or a function
        ``(predictions, targets) -> (values, derivative)``.
    l2 : float
        Coefficient of the ridge on all moving coordinates: no factor 1/2, so that the weight decay is ``2 * l2``.
    sample_weight : array_like, shape (n,), optional
        At least 0; normalised to the weights s of sum 1. Default: 1/n each.
    reference : Reference, optional
        In place of l2, like `mfld.references.Uniform()` on a bounded domain of the model.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape, or not finite; if there are no samples; if a target is none of the
        loss, whose message shows it.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> inputs = np.linspace(-1, 1, 20)[:, np.newaxis]
    >>> model = mfld.TwoLayerNetwork(n_features=1)
    >>> risk = mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=1e-3)
    >>> particles = np.zeros((5, 3))
    >>> round(risk.value(particles), 6)              # all predictions are 0: log 2
    0.693147
    >>> risk.gradient(particles).shape
    (5, 3)
    >>> frozen = risk.first_variation(particles)     # a Potential, at any points
    >>> frozen(np.ones((7, 3))).shape
    (7,)
    """

    data: Rows
    _ranks: Ranks | None = None

    def __init__(
        self,
        model: Model,
        inputs: ArrayLike,
        targets: ArrayLike,
        *,
        loss: AnyLoss,
        l2: float = 0.0,
        sample_weight: ArrayLike | None = None,
        reference: Reference | None = None,
    ) -> None:
        validation.instance("model", model, Model, "a Model, like a TwoLayerNetwork")
        self.model = model
        self.loss_function = as_loss(loss)
        self.space = model.space
        self.reference = references.given(l2, reference, self.space)

        checked = validation.array("inputs", inputs)
        validation.shape("inputs", checked, ("n", model.n_features), "(samples, n_features of the model)")
        matrix = validation.array("targets", self.loss_function.check_targets(targets, model.n_outputs))
        validation.shape("targets", matrix, ("n", "C"), "after check_targets of the loss")
        self.data = Rows(checked, matrix, sample_weight)

    def __repr__(self) -> str:
        return f"EmpiricalRisk({self.model!r}, {self.n_samples} samples, loss={self.loss_function!r}, l2={self.l2:g})"

    @property
    def n_samples(self) -> int:  # type: ignore[override]
        return len(self.data)

    @property
    def is_shared(self) -> bool:
        """True where several processes compute it together."""
        return self._ranks is not None

    @property
    def ranks(self) -> Ranks:
        """Processes that compute it together."""
        return ALONE if self._ranks is None else self._ranks

    @property
    def shares_rows(self) -> bool:  # type: ignore[override]
        return self.model.native is not None and self.loss_function.native is not None

    def alone(self) -> EmpiricalRisk:
        """The same risk, evaluated by this process by itself."""
        same = copy.copy(self)
        vars(same)["_ranks"] = None
        return same

    def over_ranks(self, ranks: Ranks) -> EmpiricalRisk:
        if self.model.native is None:
            raise TypeError(f"model must be a TwoLayerNetwork for Sharded, got {self.model!r}")
        same = copy.copy(self)
        vars(same)["_ranks"] = ranks
        return same

    def steps_at_once(self, n_rows: int | None) -> int | None:
        if validation.mapped(self.inputs) is None or n_rows is None:
            return None
        return max(1, _RESIDENT // (n_rows * (_READ_AROUND + int(self.inputs[0].nbytes))))

    def release(self) -> None:
        validation.release(self.inputs)
        validation.release(self.targets)

    @property
    def inputs(self) -> FloatArray:
        """Inputs, shape (n, n_features), read-only."""
        return self.data.samples.inputs

    @property
    def targets(self) -> FloatArray:
        """Targets, shape (n, n_columns), read-only."""
        return self.data.samples.targets

    @property
    def sample_weight(self) -> FloatArray | None:
        """Weights s of sum 1, shape (n,), read-only; None stands for 1/n each."""
        return self.data.samples.weights

    def cloud(self, measure: Measure) -> Cloud:
        """A measure as a `Cloud`, whose particles suit the risk: their products with the inputs do not overflow."""
        cloud = super().cloud(measure)
        self.model.check_range(cloud.particles, self.data.largest_input)
        return cloud

    def loss(self, measure: Measure) -> float:
        """The risk without its ridge, ``sum_i s_i l(f_mu(z_i), y_i)``."""
        return self.derivative(measure)[1]

    def loss_of_batch(self, measure: Measure, batch: ArrayLike) -> float:
        return self.derivative(measure, batch)[1]

    def gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        cloud = self.cloud(measure)
        return validation.held("the gradient", super().gradient(cloud, batch), cloud.particles.dtype)

    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        """Gradient of the first variation of the risk without its ridge; see `Objective.loss_gradient`.

        From a batch I of B rows it is estimated by ``(n / B) sum_{i in I} s_i l'(f_mu(z_i), y_i) grad h(theta, z_i)``.
        """
        cloud = self.cloud(measure)
        inputs, _, derivative, weights = self._evaluate(cloud, batch)
        cotangent = weights.astype(derivative.dtype)[:, np.newaxis] * derivative
        return self._pull_back(cloud.particles, inputs, cotangent, self.num_threads)[1]

    @property
    def has_particle_batches(self) -> bool:  # type: ignore[override]
        return self.model.has_particle_batches

    def loss_gradient_by_particle(self, measure: Measure, rows: ArrayLike) -> FloatArray:
        """Gradient as in `loss_gradient`, each particle's from a batch of its own.

        With the B rows I_m of particle m: ``(n / B) sum_{i in I_m} s_i l'(f_mu(z_i), y_i) grad h(theta_m, z_i)``.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        rows : array_like of int, shape (N, B)

        Raises
        ------
        TypeError, ValueError
            If the model is no `TwoLayerNetwork`; if an array has the wrong shape, or a row does not exist.
        """
        if not self.model.has_particle_batches:
            raise TypeError(f"model must be a TwoLayerNetwork for gradients by particle, got {self.model!r}")
        cloud = self.cloud(measure)
        own = np.ascontiguousarray(rows)
        if own.dtype.kind not in "iu" or own.ndim != 2 or len(own) != len(cloud.particles) or own.shape[1] == 0:
            raise ValueError(f"rows must be integers of shape ({len(cloud.particles)}, B), got {own.dtype} {own.shape}")
        inputs, _, derivative, weights = self._evaluate(cloud, None)
        weights = weights * (self.n_samples / own.shape[1])
        cotangent = weights.astype(derivative.dtype)[:, np.newaxis] * derivative
        threads = validation.num_threads(self.num_threads)
        return self.model.pull_back_rows(cloud.particles, inputs, cotangent, own.astype(np.int64, copy=False), threads)

    def first_variation(self, measure: Measure, batch: ArrayLike | None = None) -> Potential:
        return self.linearised(self.derivative(measure, batch)[0], batch=batch)

    def derivative(self, measure: Measure, batch: ArrayLike | None = None) -> tuple[FloatArray, float]:
        """Derivative of the loss in the prediction of each sample, and the mean loss.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        batch : array_like of int, shape (B,), optional
            Rows of the samples; all of them by default.

        Returns
        -------
        ndarray, shape (n, n_outputs) or (B, n_outputs)
            ``l'(f_mu(z_i), y_i)``, without sample weights.
        float
            ``sum_i s_i l(f_mu(z_i), y_i)`` over the rows; of a batch its unbiased estimate, times n / B.
        """
        cloud = self.cloud(measure)
        _, values, derivative, weights = self._evaluate(cloud, batch)
        loss = float(np.sum(weights * values, dtype=np.float64))
        if not math.isfinite(loss) or not np.isfinite(derivative).all():
            raise ValueError(
                f"the loss must be finite in {cloud.particles.dtype}, got {loss} at particles of up to "
                f"{np.abs(cloud.particles).max():.3g}: scale them or the data, or take float64"
            )
        return derivative, loss

    def linearised(
        self,
        dual: ArrayLike,
        l2: float | None = None,
        num_threads: int | None = None,
        *,
        batch: ArrayLike | None = None,
    ) -> Potential:
        """Potential ``sum_ik s_i g_ik h_k(theta, z_i) + l2 |theta|**2`` of dual variables g: native, at any points.

        With ``g_i = l'(f_mu(z_i), y_i)`` it is the first variation at mu. Over a batch of B rows the sum is scaled by
        n / B. Samples whose dual variables are 0 cost nothing.

        Parameters
        ----------
        dual : array_like, shape (n, n_outputs) or (B, n_outputs)
        l2 : float, optional
            By default that of the risk.
        num_threads : int, optional
            By default that of the risk, see `on_threads`. It never changes a value.
        batch : array_like of int, shape (B,), optional
            Rows of the samples that the dual variables belong to; all of them by default.

        Raises
        ------
        TypeError, ValueError
            If the dual variables have the wrong shape, are no array of reals, or are not finite; if a row does not
            exist.
        """
        rows = None if batch is None else validation.rows("batch", batch, self.n_samples)
        dual = validation.array("dual", dual, np.float64)
        n_rows = self.n_samples if rows is None else len(rows)
        validation.shape("dual", dual, (n_rows, self.model.n_outputs), "(samples, outputs)")
        threads = self.num_threads if num_threads is None else num_threads
        reference = self.reference if l2 is None else references.given(l2, None, self.space)
        return _Linearised(self, dual, rows, reference, threads)

    def of_rows(
        self, rows: NDArray[np.int64], factors: NDArray[np.float64] | None = None
    ) -> tuple[EmpiricalRisk, float]:
        """The risk of some samples only, their weights s_i times factors, and the sum of these."""
        part = copy.copy(self)
        vars(part)["data"], share = self.data.take(rows, factors)
        return part, share

    def with_loss(self, loss: AnyLoss) -> EmpiricalRisk:
        """The risk with another loss, of the same targets."""
        rows = self.data.samples
        other = EmpiricalRisk(
            self.model, rows.inputs, rows.targets, loss=loss, reference=self.reference, sample_weight=rows.weights
        )
        return other.on_threads(self.num_threads)

    def record_widths(self, dtype: DTypeLike) -> dict[str, tuple[int, DTypeLike]]:
        return {"dual_sum": (self.model.n_outputs, "float64"), "dual_weight": (1, "float64")}

    def n_recorded(self, record: Buffers) -> int:
        return self.n_samples

    def recorded(self, record: Buffers, particles: FloatArray, batch: Any, factor: float) -> tuple[Buffers, float]:
        # In float64: averages of derivatives rounded to float32 may lie outside of the conjugate's domain.
        derivative, loss = self.derivative(particles.astype(np.float64), batch)
        sums, weights = np.array(record["dual_sum"]), np.array(record["dual_weight"])
        rows = slice(None) if batch is None else batch
        factor = factor * self.n_samples / len(derivative)
        sums[:, rows] += factor * derivative
        weights[:, rows] += factor
        return {"dual_sum": sums, "dual_weight": weights}, loss

    def averaged(self, record: Buffers, scale: float) -> tuple[EmpiricalRisk, FloatArray]:
        return self, scale * record["dual_sum"][0]

    def native(self, dtype: FloatDType) -> RiskOfNetwork | None:
        return self._native(lambda: self.data.cast(dtype))

    def native_in_bfloat16(self) -> RiskOfNetwork | None:
        return self._native(self.data.in_pairs)

    def _native(self, samples_of: Callable[[], Samples]) -> RiskOfNetwork | None:
        network, loss = self.model.native, self.loss_function.native
        if network is None or loss is None:
            return None
        samples = samples_of()
        alone = RiskOfNetwork(network, loss, *samples, on_disk=validation.mapped(samples.inputs) is not None)
        return alone if self._ranks is None else self._ranks.sharing(alone)

    def bounds(self) -> Bounds:
        """Bounds on ``sum_i s_i l'(u_i, y_i) h(theta, z_i)``, by those on derivatives of the loss and on neurons."""
        low, high = self.model.output_range
        slopes = self._steepest_losses(low, high)
        weights = self._weights(None)
        steepness = self.model.steepness(self.inputs)
        return Bounds(
            oscillation=float(np.sum(weights * slopes)) * (high - low),
            lipschitz=math.inf if steepness is None else float(np.sum(weights * slopes * steepness)),
            # E l(u_N) - l(u) <= smoothness / 2 Var u_N, and the variance of a neuron is at most that of its two ends.
            fluctuation=self.loss_function.smoothness / 2 * self.model.n_outputs * ((high - low) / 2) ** 2,
        )

    def _steepest_losses(self, low: float, high: float) -> NDArray[np.float64]:
        """Bounds on ``sum_k |dl/du_k|`` of each sample, for outputs within a range."""
        n, loss = self.n_samples, self.loss_function
        if loss.targets == "class":
            return np.full(n, 2.0)  # probabilities less an indicator
        if not loss.convex:
            return np.full(n, np.inf)
        ends = [np.clip(end, -_FAR, _FAR) for end in (low, high)]  # derivatives of convex functions grow
        shape, targets = (n, self.model.n_outputs), self.targets.astype(np.float64)
        slopes = [np.abs(loss.evaluate(np.full(shape, end), targets)[1]).sum(axis=1) for end in ends]
        steepest: NDArray[np.float64] = np.maximum(*slopes)
        return np.where(steepest < math.sqrt(_FAR), steepest, np.inf)

    def around(self, particles: FloatArray) -> Around | None:
        network, loss = self.model.native, self.loss_function.native
        if network is None or loss is None or 3 * max(len(particles), _LANES) * self.n_samples > _KEPT:
            return None
        given = (network, loss, self.cloud(particles).particles, *self.data.cast(particles.dtype))
        threads = validation.num_threads(self.num_threads)
        value, slope, kept = _core.backend.risk_at(*given, threads)

        def along(direction: FloatArray) -> FloatArray:
            return _core.backend.risk_along(*given, kept, direction, threads)

        # What overflows is for `loss` to say.
        return Around(lambda: value if math.isfinite(value) else self.loss(particles), slope, along)

    def row_sizes(self) -> NDArray[np.float64]:
        return self.data.sizes

    def _predict(self, cloud: Cloud, inputs: FloatArray) -> FloatArray:
        if validation.mapped(inputs) is None:
            return self._predict_at_once(cloud, inputs)
        n_rows, predictions = max(1, _AT_ONCE // int(inputs[0].nbytes)), []
        for first in range(0, len(inputs), n_rows):
            predictions.append(self._predict_at_once(cloud, inputs[first : first + n_rows]))
            validation.release(inputs)
        return np.concatenate(predictions)

    def _predict_at_once(self, cloud: Cloud, inputs: FloatArray) -> FloatArray:
        threads = validation.num_threads(self.num_threads)
        if self._ranks is None:
            return self.model.predictions(cloud.particles, cloud.weights, inputs, threads)
        network, ranks = self.model.native, self._ranks.native
        assert network is not None  # by over_ranks
        return _core.backend.predict(network, cloud.particles, cloud.weights, inputs, threads, ranks)

    def _evaluate(self, cloud: Cloud, batch: ArrayLike | None) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Inputs, loss, its derivative and its weight in the risk, ``s_i`` times n / B, for all rows or those given."""
        inputs, targets, _ = self.data.cast(cloud.particles.dtype)
        rows = None if batch is None else validation.rows("batch", batch, self.n_samples)
        weights = self._weights(rows)
        if rows is not None:
            inputs, targets = inputs[rows], targets[rows]
        predictions = self._predict(cloud, inputs)
        values, derivative = self.loss_function.evaluate(predictions, targets)
        if values.dtype != np.float64 and not np.isfinite(values).all() and np.isfinite(predictions).all():
            # Squares of what float32 holds, which it does not.
            values, _ = self.loss_function.evaluate(predictions.astype(np.float64), targets.astype(np.float64))
        return inputs, values, derivative, weights

    def _weights(self, rows: NDArray[np.int64] | None) -> FloatArray:
        """Weights s of all samples, or of these rows times n / B."""
        n = self.n_samples
        weights = np.full(n, 1 / n) if self.sample_weight is None else self.sample_weight
        return weights if rows is None else weights[rows] * (n / len(rows))

    def _pull_back(
        self, points: FloatArray, inputs: FloatArray, cotangent: FloatArray, num_threads: int | None
    ) -> tuple[FloatArray, FloatArray]:
        threads = validation.num_threads(num_threads)

        def pull_back(some: FloatArray) -> tuple[FloatArray, FloatArray]:
            return self.model.pull_back(some, inputs, cotangent, threads)

        if self._ranks is None:
            return pull_back(points)
        values, gradient = self._ranks.of_points(pull_back, points)
        return values, gradient


class _Linearised(Potential):
    """Potential of frozen dual variables: the points are free."""

    def __init__(
        self,
        risk: EmpiricalRisk,
        dual: FloatArray,
        rows: NDArray[np.int64] | None,
        reference: Reference,
        num_threads: int | None,
        samples: _Samples | None = None,
    ) -> None:
        samples = samples or _with_dual(risk, dual, rows)

        def pull_back(points: FloatArray) -> tuple[FloatArray, FloatArray]:
            return risk._pull_back(points, *samples(points.dtype), num_threads)

        super().__init__(
            gradient=lambda points: pull_back(points)[1],
            value=lambda points: pull_back(points)[0],
            value_and_gradient=pull_back,
            space=risk.space,
            reference=reference,
        )
        self.num_threads = num_threads
        self._risk, self._samples, self._frozen = risk, samples, (dual, rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Linearised, (self._risk, *self._frozen, self.reference, self.num_threads)

    def on_threads(self, num_threads: int | None) -> _Linearised:
        return _Linearised(self._risk, *self._frozen, self.reference, num_threads, self._samples)

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        return self._risk.initial_particles(n_particles, place, dtype)


def _with_dual(risk: EmpiricalRisk, dual: FloatArray, rows: NDArray[np.int64] | None) -> _Samples:
    """Inputs and weighted dual variables in either precision, of the samples whose dual variables are not 0."""
    cotangent = risk._weights(rows)[:, np.newaxis] * dual
    active = np.asarray(cotangent.any(axis=1))
    active[0] |= not active.any()  # at least one row: the kernels take no empty data
    if not active.all():
        rows = np.flatnonzero(active) if rows is None else rows[active]
        cotangent = cotangent[active]

    @functools.cache
    def samples(dtype: FloatDType) -> tuple[FloatArray, FloatArray]:
        inputs = risk.data.cast(dtype).inputs
        return inputs if rows is None else inputs[rows], cotangent.astype(dtype)

    return samples
