"""Risks over signed measures, and two ways to minimise them over probability measures."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mfld import noise, references, validation
from mfld.data import Rows
from mfld.losses import AnyLoss, as_loss
from mfld.models import Model
from mfld.noise import Place
from mfld.objectives.base import Measure, Objective, Potential, SetOnce
from mfld.objectives.weights import Fit, Weights, curvature_of, is_square
from mfld.references import Free, Reference
from mfld.signed_measures import SignedMeasure
from mfld.space import Euclidean, Space
from mfld.state import Cloud
from mfld.validation import FloatArray, FloatDType


class Reduction(ABC):
    """A way to write a problem over signed measures as one over probability measures.

    Attributes
    ----------
    metric : str
        "product", or "conic" where a particle moves on the cone over its position.
    has_batches : bool
        True where the loss is a function of predictions that are linear in the measure.
    """

    metric: str = "product"
    has_batches: ClassVar[bool] = False

    def check(self, risk: SignedRisk) -> None:  # noqa: B027  most suit all
        """Raise ValueError if it does not serve a risk."""

    def fits_targets(self, risk: SignedRisk) -> bool:
        """True where weights are the solution of a linear system of the targets."""
        return False

    def iterates(self, risk: SignedRisk) -> bool:
        """True where weights come from an iteration, which may start from those of the step before."""
        return False

    def coefficients(self, risk: SignedRisk, cloud: Cloud, start: FloatArray | None = None) -> FloatArray:
        """Numbers of each sample and output, (n, K), that say the best weights at every position."""
        raise ValueError(f"reduction must be Bilevel(), whose weights are the best ones, got {self}")

    def gradient_at(self, risk: SignedRisk, cloud: Cloud, coefficients: FloatArray) -> FloatArray:
        """Gradient of the risk at the weights that these coefficients stand for."""
        raise ValueError(f"reduction must be Bilevel(), whose weights are the best ones, got {self}")

    def gradient_with_errors(self, risk: SignedRisk, cloud: Cloud, errors: FloatArray, follows: bool) -> FloatArray:
        """Gradient of the risk at the weights that fit targets with errors, which follow the positions or stay."""
        raise ValueError(f"reduction must be Bilevel() with a loss of squares to fit targets with errors, got {self}")

    @abstractmethod
    def space(self, risk: SignedRisk) -> Space:
        """Space of the particles."""

    @abstractmethod
    def start(self, risk: SignedRisk, n_particles: int, place: Place | int, dtype: DTypeLike) -> FloatArray:
        """Particles for a run to start from."""

    @abstractmethod
    def loss(self, risk: SignedRisk, cloud: Cloud) -> float:
        """Value without the ridge that steps add."""

    @abstractmethod
    def loss_gradient(self, risk: SignedRisk, cloud: Cloud, rows: FloatArray | None) -> FloatArray:
        """Gradient of its first variation at the particles."""

    @abstractmethod
    def first_variation(self, risk: SignedRisk, cloud: Cloud, rows: FloatArray | None) -> Potential:
        """First variation at any points, with the ridge that steps add."""

    @abstractmethod
    def measure(self, risk: SignedRisk, cloud: Cloud) -> SignedMeasure:
        """The signed measure that a cloud stands for."""


@dataclass(frozen=True)
class Bilevel(Reduction):
    """Particles are positions; each step takes the best weights for them.

    With ``|nu|_TV**2`` the least ``E_eta |f|**2`` over all ``nu = f eta``, the problem becomes

    ::

        minimise  J(eta) = min_f  G(f eta) + (strength / 2) E_eta |f|**2        over probability measures eta

    which is convex in eta, with the first variation ``-(strength / 2) |f_eta(w)|**2``: positions climb where the best
    weights are large. The inner problem is a linear system for squares. For other losses, of any number of outputs, it
    is solved by Newton's method, with conjugate gradients inside, from zero, or from the solution of the step before by
    `WarmStart`. Source: Wang, Mousavi-Hosseini, Chizat 2024, "Mean-field Langevin dynamics for signed measures via a
    bilevel approach"; Takakura, Suzuki 2024, "Mean-field analysis on two-layer neural networks from a kernel
    perspective".

    Parameters
    ----------
    tolerance : float
        Of Newton's method: the length that the gradient in the weights may have, relative to that of its two terms.
        Never less than 100 roundings of the particles' precision, 1.2e-5 for float32.

    Raises
    ------
    TypeError, ValueError
        If tolerance is no positive number.

    Examples
    --------
    >>> import mfld
    >>> mfld.Bilevel(tolerance=1e-8)
    Bilevel(tolerance=1e-08)
    """

    tolerance: float = 1e-10

    def __post_init__(self) -> None:
        object.__setattr__(self, "tolerance", validation.real("tolerance", self.tolerance, positive=True))

    def check(self, risk: SignedRisk) -> None:
        loss = risk.loss_function
        if not is_square(loss) and not (loss.convex and np.isfinite(loss.smoothness)):
            raise ValueError(f"loss must be convex with a smooth derivative for Bilevel(), got {loss!r}")

    def space(self, risk: SignedRisk) -> Space:
        return risk.model.space

    def start(self, risk: SignedRisk, n_particles: int, place: Place | int, dtype: DTypeLike) -> FloatArray:
        return risk.model.initial_particles(n_particles, place, dtype)

    def fit(self, risk: SignedRisk, cloud: Cloud) -> Fit:
        """Best weights at the particles."""
        problem, targets = self._problem(risk, cloud)
        return problem.fit(risk.loss_function, targets, self._best(risk, problem, targets))

    def coefficients(self, risk: SignedRisk, cloud: Cloud, start: FloatArray | None = None) -> FloatArray:
        return self._best(risk, *self._problem(risk, cloud), start)

    def _problem(self, risk: SignedRisk, cloud: Cloud) -> tuple[Weights, FloatArray]:
        inputs, targets, s = risk.samples(cloud.particles.dtype)
        return risk.weights_at(cloud, inputs, s), targets

    def _best(
        self, risk: SignedRisk, problem: Weights, targets: FloatArray, start: FloatArray | None = None
    ) -> FloatArray:
        if start is None:
            start = np.zeros((len(targets), risk.n_outputs), targets.dtype)
        return problem.coefficients(risk.loss_function, targets, self.tolerance, start)

    def loss(self, risk: SignedRisk, cloud: Cloud) -> float:
        return self.fit(risk, cloud).value

    def loss_gradient(self, risk: SignedRisk, cloud: Cloud, rows: FloatArray | None) -> FloatArray:
        return self.gradient_at(risk, cloud, self.coefficients(risk, cloud))

    def gradient_at(self, risk: SignedRisk, cloud: Cloud, coefficients: FloatArray) -> FloatArray:
        inputs = risk.samples(cloud.particles.dtype)[0]
        return _with_gradient(risk, cloud.particles, inputs, coefficients)[1]

    def iterates(self, risk: SignedRisk) -> bool:
        return not is_square(risk.loss_function)

    def fits_targets(self, risk: SignedRisk) -> bool:
        return is_square(risk.loss_function)

    def gradient_with_errors(self, risk: SignedRisk, cloud: Cloud, errors: FloatArray, follows: bool) -> FloatArray:
        if not self.fits_targets(risk):
            raise ValueError(f"loss must be half_squared or squared to fit errors, got {risk.loss_function!r}")
        inputs, targets, s = risk.samples(cloud.particles.dtype)
        problem = risk.weights_at(cloud, inputs, s)
        k = risk.n_outputs
        both = problem.regression(np.concatenate([targets, errors], axis=1), curvature_of(risk.loss_function))
        of_targets, of_errors = both[:, :k], both[:, k:]
        if follows:
            clean, noisy = (_with_gradient(risk, cloud.particles, inputs, each)[1] for each in (of_targets, of_errors))
            return clean - noisy
        f, q = (problem.at_positions(each) for each in (of_targets, of_errors))
        # The derivative of the loss at targets is that at targets with errors, and the errors'.
        shift = curvature_of(risk.loss_function) * s[:, np.newaxis] * errors
        dual = shift.astype(f.dtype) - f.dtype.type(risk.strength) * (of_targets + of_errors)
        return _pulled_back(risk, cloud.particles, inputs, dual, f + q)

    def first_variation(self, risk: SignedRisk, cloud: Cloud, rows: FloatArray | None) -> Potential:
        coefficients = self.coefficients(risk, cloud)

        def value_and_gradient(points: FloatArray) -> tuple[FloatArray, FloatArray]:
            return _with_gradient(risk, points, risk.samples(points.dtype)[0], coefficients.astype(points.dtype))

        return _potential(value_and_gradient, self.space(risk), risk.reference)

    def measure(self, risk: SignedRisk, cloud: Cloud) -> SignedMeasure:
        weights = _masses(cloud)[:, np.newaxis] * self.fit(risk, cloud).weights
        return SignedMeasure(risk.model, cloud.particles, _flat(weights))


@dataclass(frozen=True)
class Lifting(Reduction):
    """Particles are pairs of a position w and a weight r, of any sign.

    ::

        minimise  G(E r delta_w) + (strength / 2) E |r|**2        over probability measures of (w, r)

    The first variation is ``sum_i s_i l'(u_i, y_i) r phi(w, z_i) + (strength / 2) r**2``, and the ridge of positions
    ``l2 |w|**2``. Source: section 3 of Wang, Mousavi-Hosseini, Chizat 2024; Chizat 2022, "Sparse optimization on
    measures with over-parameterized gradient descent".

    Parameters
    ----------
    metric : {"product", "conic"}
        Metric of the pairs: that of the product, ``dw**2 + dr**2``, or that of the cone over the positions,
        ``r**2 dw**2 + dr**2``, which moves along `mfld.dynamics.Conic`, keeps the sign of r, and has no l2.

    Raises
    ------
    TypeError, ValueError
        If metric is neither.

    Examples
    --------
    >>> import mfld
    >>> mfld.Lifting(metric="conic")
    Lifting(metric='conic')
    """

    metric: str = "product"

    has_batches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        validation.choice("metric", self.metric, ("product", "conic"))

    def check(self, risk: SignedRisk) -> None:
        if self.metric == "conic" and risk.n_outputs > 1:
            raise ValueError(f"metric must be 'product' with {risk.n_outputs} outputs, got 'conic'")
        if self.metric == "conic" and risk.of_positions.l2 > 0:
            # Its slope in w is no multiple of r: where r goes to 0 positions would move infinitely fast.
            raise ValueError(f"l2 must be 0 with Lifting(metric='conic'), got {risk.of_positions.l2:g}")

    def space(self, risk: SignedRisk) -> Space:
        return Space(domain=(*risk.model.space.domain, Euclidean(risk.n_outputs)))

    def start(self, risk: SignedRisk, n_particles: int, place: Place | int, dtype: DTypeLike) -> FloatArray:
        positions = risk.model.initial_particles(n_particles, place, dtype)
        p, k = risk.model.n_coordinates, risk.n_outputs
        # Columns behind those that positions may be drawn from.
        weights = noise.start(place).normals(n_particles, p + k, dtype, "init")[:, p:]
        return np.concatenate([positions, weights], axis=1)

    def loss(self, risk: SignedRisk, cloud: Cloud) -> float:
        inputs, targets, s = risk.samples(cloud.particles.dtype)
        positions, weights = self._parts(risk, cloud.particles)
        predictions = _predictions(risk, positions, _masses(cloud)[:, np.newaxis] * weights, inputs)
        values, _ = risk.loss_function.evaluate(predictions, targets)
        return float(np.sum(s * values, dtype=np.float64)) + cloud.mean(self._energy(risk, positions, weights))

    def loss_gradient(self, risk: SignedRisk, cloud: Cloud, rows: FloatArray | None) -> FloatArray:
        return self._slopes(risk, cloud.particles, *self._dual(risk, cloud, rows))[1]

    def first_variation(self, risk: SignedRisk, cloud: Cloud, rows: FloatArray | None) -> Potential:
        inputs, dual = self._dual(risk, cloud, rows)

        def value_and_gradient(points: FloatArray) -> tuple[FloatArray, FloatArray]:
            return self._slopes(risk, points, inputs.astype(points.dtype), dual.astype(points.dtype))

        return _potential(value_and_gradient, self.space(risk), Free())

    def measure(self, risk: SignedRisk, cloud: Cloud) -> SignedMeasure:
        positions, weights = self._parts(risk, cloud.particles)
        return SignedMeasure(risk.model, positions, _flat(_masses(cloud)[:, np.newaxis] * weights))

    def _parts(self, risk: SignedRisk, particles: FloatArray) -> tuple[FloatArray, FloatArray]:
        p = risk.model.n_coordinates
        return np.ascontiguousarray(particles[:, :p]), np.ascontiguousarray(particles[:, p:])

    def _energy(self, risk: SignedRisk, positions: FloatArray, weights: FloatArray) -> FloatArray:
        wide = weights.astype(np.float64)
        energy = risk.strength / 2 * np.sum(wide**2, axis=1)
        of_positions: FloatArray = energy + risk.of_positions.energy(positions.astype(np.float64))
        return of_positions

    def _dual(self, risk: SignedRisk, cloud: Cloud, rows: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """Inputs of the rows, and the derivative of the loss there times its weight in the risk."""
        inputs, targets, s = risk.samples(cloud.particles.dtype)
        if rows is not None:
            inputs, targets, s = inputs[rows], targets[rows], s[rows] * (len(s) / len(rows))
        positions, weights = self._parts(risk, cloud.particles)
        predictions = _predictions(risk, positions, _masses(cloud)[:, np.newaxis] * weights, inputs)
        slope = risk.loss_function.evaluate(predictions, targets)[1]
        return inputs, s.astype(slope.dtype)[:, np.newaxis] * slope

    def _slopes(
        self, risk: SignedRisk, points: FloatArray, inputs: FloatArray, dual: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        positions, weights = self._parts(risk, points)
        slopes = _weights_of(risk, positions, inputs, dual)
        value = np.sum(slopes * weights, axis=1) + self._energy(risk, positions, weights)
        of_positions = _pulled_back(risk, positions, inputs, dual, weights) + risk.of_positions.gradient(positions)
        of_weights = slopes + risk.strength * weights
        return value.astype(points.dtype), np.concatenate([of_positions, of_weights], axis=1).astype(points.dtype)


class SignedRisk(SetOnce, Objective):
    """Risk over signed measures with a penalty of their size, ``G(nu) + (strength / 2) |nu|_TV**2``.

    ::

        G(nu) = sum_i s_i l(u_i, y_i),    u_i = integral phi(w, z_i) dnu(w)

    reduced to an objective over probability measures (`Bilevel`, `Lifting`), which every algorithm and dynamics takes.
    With K target columns nu is vector-valued, and its size the length of its vectors. At a minimiser of this problem,
    which has ``|nu|_TV = t``, the one with the penalty ``strength * t * |nu|_TV`` has its minimum, too.

    Parameters
    ----------
    model : Model
        Neurons phi(w, z) with one output and without frozen coordinates, like a
        `TwoLayerNetwork` with ``readout="fixed"``, on any domain.
    inputs : array_like, shape (n, n_features)
    targets : array_like, shape (n,) or (n, K)
        What the loss takes; classes for K = ``n_outputs``.
    loss : str or LossFunction or callable
        As in `EmpiricalRisk`.
    strength : float
        Positive.
    reduction : Bilevel or Lifting
    l2 : float
        Coefficient of ``|w|**2``, the ridge of positions in Euclidean space.
    sample_weight : array_like, shape (n,), optional
        At least 0; normalised to the weights s of sum 1.
    reference : Reference, optional
        In place of l2, for `Bilevel`.
    n_outputs : int, optional
        K, where the targets do not say it.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or out of range, or the reduction does not serve the loss.

    Examples
    --------
    Two spikes on a circle, seen through cosines:

    >>> import numpy as np
    >>> import mfld
    >>> grid = np.linspace(0, 2 * np.pi, 12, endpoint=False)[:, np.newaxis]
    >>> def bumps(w, z):
    ...     return np.exp(8 * (np.cos(z - w.T) - 1))
    >>> def slopes(w, z):
    ...     return (8 * np.sin(z - w.T) * bumps(w, z))[:, :, np.newaxis]
    >>> circle = mfld.Space(domain=[mfld.Torus(1, period=2 * np.pi)])
    >>> model = mfld.NeuronModel(bumps, slopes, n_features=1, space=circle)
    >>> signal = mfld.SignedMeasure(model, [[1.0], [4.0]], [1.0, -0.5]).predict(grid)
    >>> risk = mfld.SignedRisk(model, grid, signal, loss="half_squared", strength=1e-4)
    >>> solver = mfld.MFLD(n_particles=50, step_size=3.0, temperature=1e-8, dtype="float64")
    >>> found = risk.signed_measure(solver.run(risk, n_steps=300).measure)
    >>> atoms = found.merged(radius=0.3)
    >>> np.round(atoms.positions[:2, 0], 1)
    array([1., 4.])
    >>> np.round(atoms.weights[:2], 1)
    array([ 1. , -0.5])
    """

    def __init__(
        self,
        model: Model,
        inputs: ArrayLike,
        targets: ArrayLike,
        *,
        loss: AnyLoss = "half_squared",
        strength: float,
        reduction: Reduction | None = None,
        l2: float = 0.0,
        sample_weight: ArrayLike | None = None,
        reference: Reference | None = None,
        n_outputs: int | None = None,
    ) -> None:
        validation.instance("model", model, Model, "a Model, like a TwoLayerNetwork")
        if model.n_outputs != 1 or model.space.n_frozen:
            raise ValueError(
                "model must have one output and no frozen coordinates, like a TwoLayerNetwork with readout='fixed', "
                f"got {model!r}"
            )
        self.model = model
        self.loss_function = as_loss(loss)
        self.strength = validation.real("strength", strength, positive=True)
        self.reduction = Bilevel() if reduction is None else reduction
        validation.instance("reduction", self.reduction, Reduction, "Bilevel() or Lifting()")
        self.of_positions = references.given(l2, reference, model.space)

        checked = validation.array("inputs", inputs)
        validation.shape("inputs", checked, ("n", model.n_features), "(samples, n_features of the model)")
        if n_outputs is None:
            shape = validation.array("targets", targets).shape
            n_outputs = 1 if len(shape) < 2 else shape[1]
        self.n_outputs = validation.integer("n_outputs", n_outputs, 1)
        matrix = validation.array("targets", self.loss_function.check_targets(targets, self.n_outputs))
        validation.shape("targets", matrix, ("n", "C"), "after check_targets of the loss")
        self.data = Rows(checked, matrix, sample_weight)
        self.reduction.check(self)
        self.space = self.reduction.space(self)

    def __repr__(self) -> str:
        sizes = f"{len(self.data)} samples, loss={self.loss_function!r}, strength={self.strength:g}"
        return f"SignedRisk({self.model!r}, {sizes}, reduction={self.reduction!r})"

    @property
    def metric(self) -> str:  # type: ignore[override]
        return self.reduction.metric

    @property
    def reference(self) -> Reference:  # type: ignore[override]
        """Reference of the particles; that of `Lifting` is free, its ridge of positions being part of the loss."""
        return Free() if self.reduction.has_batches else self.of_positions

    @property
    def n_samples(self) -> int | None:  # type: ignore[override]
        return len(self.data) if self.reduction.has_batches else None

    def loss(self, measure: Measure) -> float:
        return self.reduction.loss(self, self.cloud(measure))

    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        return self.reduction.loss_gradient(self, self.cloud(measure), self._rows(batch))

    def first_variation(self, measure: Measure, batch: ArrayLike | None = None) -> Potential:
        return self.reduction.first_variation(self, self.cloud(measure), self._rows(batch))

    @property
    def fits_targets(self) -> bool:
        """True where the weights are the solution of a linear system of the targets."""
        return self.reduction.fits_targets(self)

    @property
    def iterates(self) -> bool:
        """True where the weights come from an iteration, which may start from those of the step before."""
        return self.reduction.iterates(self)

    def coefficients(self, measure: Measure, start: ArrayLike | None = None) -> FloatArray:
        """Numbers ``a = -s l'(u) / strength`` of samples and outputs: the best weights are ``sum_i a_i phi_i(w)``.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        start : array_like, shape (n, K), optional
            Where it `iterates`: coefficients to start from. Default: zeros.

        Returns
        -------
        ndarray, shape (n, K)

        Raises
        ------
        TypeError, ValueError
            If an array has the wrong shape, or is not finite, or the weights are not the best ones, as in `Lifting`.
        ConvergenceError
            If the iteration does not come to its tolerance.
        """
        cloud = self.cloud(measure)
        return self.reduction.coefficients(self, cloud, None if start is None else self._numbers("start", start, cloud))

    def gradient_at(self, measure: Measure, coefficients: ArrayLike) -> FloatArray:
        """Gradient of the risk at the weights that `coefficients` stand for.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        coefficients : array_like, shape (n, K)

        Raises
        ------
        TypeError, ValueError
            If an array has the wrong shape, or is not finite, or the weights are not the best ones, as in `Lifting`.
        """
        cloud = self.cloud(measure)
        gradient = self.reduction.gradient_at(self, cloud, self._numbers("coefficients", coefficients, cloud))
        return validation.held("the gradient", gradient, cloud.particles.dtype)

    def gradient_with_errors(self, measure: Measure, errors: FloatArray, follows: bool) -> FloatArray:
        """Gradient of the risk at the weights that fit targets with errors; where `fits_targets`.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        errors : ndarray, shape (n, K)
        follows : bool
            True for weights that follow the positions, False for weights that are held fixed.

        Raises
        ------
        ValueError
            If the weights are no solution of a linear system.
        """
        return self.reduction.gradient_with_errors(self, self.cloud(measure), errors, follows)

    def signed_measure(self, measure: Measure) -> SignedMeasure:
        """The signed measure that particles stand for.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        """
        return self.reduction.measure(self, self.cloud(measure))

    def predict(self, measure: Measure, inputs: ArrayLike) -> FloatArray:
        return self.signed_measure(measure).predict(inputs, self.num_threads)

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        return self.reduction.start(self, n_particles, place, dtype)

    def samples(self, dtype: FloatDType) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Inputs, targets and the weights s in a precision."""
        inputs, targets, s = self.data.cast(dtype)
        return inputs, targets, np.full(len(inputs), 1 / len(inputs), inputs.dtype) if s is None else s

    def weights_at(self, cloud: Cloud, inputs: FloatArray, sample_weight: FloatArray) -> Weights:
        """The inner problem at the particles of a cloud."""
        threads = validation.num_threads(self.num_threads)
        neurons = np.ascontiguousarray(self.model.neurons(cloud.particles, inputs, threads))
        return Weights(neurons, _masses(cloud), sample_weight, self.strength, threads)

    def on_threads(self, num_threads: int | None) -> SignedRisk:
        same = copy.copy(self)
        same.num_threads = num_threads
        return same

    def _numbers(self, name: str, values: ArrayLike, cloud: Cloud) -> FloatArray:
        """An array with a number for each sample and output."""
        checked = validation.array(name, values, cloud.particles.dtype)
        validation.shape(name, checked, (len(self.data), self.n_outputs), "(samples, outputs)")
        return checked

    def _rows(self, batch: ArrayLike | None) -> Any:
        if batch is None:
            return None
        if self.n_samples is None:
            raise ValueError(f"batch must be None for {self.reduction}, whose weights need all samples")
        return validation.rows("batch", batch, self.n_samples)


def _masses(cloud: Cloud) -> FloatArray:
    n = len(cloud.particles)
    return np.full(n, 1 / n, cloud.particles.dtype) if cloud.weights is None else cloud.weights


def _flat(weights: FloatArray) -> FloatArray:
    return weights[:, 0] if weights.shape[1] == 1 else weights


def _predictions(risk: SignedRisk, positions: FloatArray, weights: FloatArray, inputs: FloatArray) -> FloatArray:
    """``sum_m weights_mk phi(w_m, z_i)``, shape (n, K)."""
    threads = validation.num_threads(risk.num_threads)
    network = risk.model.with_weights(weights.shape[1])
    if network is not None:
        ones = np.ones(len(positions), positions.dtype)
        return network.predictions(np.concatenate([positions, weights], axis=1), ones, inputs, threads)
    columns = [risk.model.predictions(positions, np.ascontiguousarray(own), inputs, threads) for own in weights.T]
    return np.concatenate(columns, axis=1)


def _weights_of(risk: SignedRisk, points: FloatArray, inputs: FloatArray, coefficients: FloatArray) -> FloatArray:
    """``sum_i coefficients_ik phi(w, z_i)`` at points, shape (M, K)."""
    network = risk.model.with_weights(coefficients.shape[1])
    if network is None or coefficients.shape[1] == 1:
        return np.stack([each[0] for each in _each_pulled_back(risk, points, inputs, coefficients)], axis=1)
    zeros = np.zeros((len(points), coefficients.shape[1]), points.dtype)  # what they weigh is the slope in them
    return _network_slopes(risk, network, points, inputs, coefficients, zeros)[:, points.shape[1] :]


def _with_gradient(
    risk: SignedRisk, points: FloatArray, inputs: FloatArray, coefficients: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """``-(strength / 2) |f(w)|**2`` and its gradient at points, for ``f_k(w) = sum_i coefficients_ik phi(w, z_i)``."""
    strength = points.dtype.type(risk.strength)
    if coefficients.shape[1] == 1:
        (f, slope), *_ = _each_pulled_back(risk, points, inputs, coefficients)
        return -strength / 2 * f**2, -strength * f[:, np.newaxis] * slope
    weights = _weights_of(risk, points, inputs, coefficients)
    value = -strength / 2 * np.sum(np.square(weights), axis=1)
    return value, -strength * _pulled_back(risk, points, inputs, coefficients, weights)


def _pulled_back(
    risk: SignedRisk, points: FloatArray, inputs: FloatArray, coefficients: FloatArray, weights: FloatArray
) -> FloatArray:
    """``sum_k weights_k grad sum_i coefficients_ik phi(w, z_i)`` at points, shape (M, p)."""
    network = risk.model.with_weights(weights.shape[1])
    if network is not None:
        return _network_slopes(risk, network, points, inputs, coefficients, weights)[:, : points.shape[1]]
    each = _each_pulled_back(risk, points, inputs, coefficients)
    total = np.zeros_like(points)
    for own, (_, slope) in zip(weights.T, each, strict=True):
        total += own[:, np.newaxis] * slope
    return total


def _network_slopes(
    risk: SignedRisk,
    network: Model,
    points: FloatArray,
    inputs: FloatArray,
    coefficients: FloatArray,
    weights: FloatArray,
) -> FloatArray:
    """Slopes of ``sum_ik coefficients_ik weights_k phi(w, z_i)`` in w and in the weights, shape (M, p + K)."""
    with_weights = np.concatenate([points, weights], axis=1)
    threads = validation.num_threads(risk.num_threads)
    return network.pull_back(with_weights, inputs, np.ascontiguousarray(coefficients), threads)[1]


def _each_pulled_back(
    risk: SignedRisk, points: FloatArray, inputs: FloatArray, coefficients: FloatArray
) -> list[tuple[FloatArray, FloatArray]]:
    threads = validation.num_threads(risk.num_threads)
    columns = np.ascontiguousarray(coefficients.T)[:, :, np.newaxis]
    return [risk.model.pull_back(points, inputs, column, threads) for column in columns]


def _potential(value_and_gradient: Any, space: Space, reference: Reference) -> Potential:
    return Potential(
        gradient=lambda points: value_and_gradient(points)[1],
        value=lambda points: value_and_gradient(points)[0],
        value_and_gradient=value_and_gradient,
        space=space,
        reference=reference,
    )
