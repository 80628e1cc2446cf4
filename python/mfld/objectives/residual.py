"""Empirical risk of a deep residual network, whose layers are members of the measure."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import references, validation
from mfld.data import Rows
from mfld.losses import AnyLoss, as_loss
from mfld.noise import Place
from mfld.objectives.base import Measure, Objective, Potential, SetOnce
from mfld.references import Reference
from mfld.residual import ResidualNetwork
from mfld.state import Cloud
from mfld.validation import FloatArray


class ResidualRisk(SetOnce, Objective):
    """Risk of a residual network, ``F(mu) = sum_i s_i l(f_mu(z_i), y_i) + l2 mean_k E_mu_k |theta|**2``.

    Layers are members: particles have the shape (depth, N, p). Gradients are per unit of the time ``k / depth``, so
    that a step size suits any depth, and the minimiser of F with ``temperature * mean_k Ent(mu_k)`` has the Gibbs law
    of its first variation in each layer. Forward and backward are the compiled core's, layer by layer; memory is that
    of the states, depth * n * D, or less with ``checkpoint_every`` of the network.

    Parameters
    ----------
    model : ResidualNetwork
    inputs : array_like, shape (n, n_features)
    targets : array_like, shape (n,) or (n, n_outputs)
    loss, l2, sample_weight, reference
        As in `EmpiricalRisk`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape, or not finite; if a target is none of the loss.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> inputs = np.random.default_rng(0).uniform(-1, 1, size=(200, 2))
    >>> network = mfld.ResidualNetwork(n_features=2, depth=4)
    >>> risk = mfld.ResidualRisk(network, inputs, np.sign(inputs[:, 0] * inputs[:, 1]), loss="logistic", l2=1e-3)
    >>> result = mfld.MFLD(50, step_size=0.3, temperature=1e-5).run(risk, n_steps=300)
    >>> result.particles.shape, result.predict([[0.5, 0.5]]).shape
    ((4, 50, 7), (1,))
    >>> bool(risk.loss(result.measure) < 0.3 < risk.loss(np.zeros((4, 1, 7))))
    True
    """

    any_precision = True

    def __init__(
        self,
        model: ResidualNetwork,
        inputs: ArrayLike,
        targets: ArrayLike,
        *,
        loss: AnyLoss,
        l2: float = 0.0,
        sample_weight: ArrayLike | None = None,
        reference: Reference | None = None,
    ) -> None:
        validation.instance("model", model, ResidualNetwork, "a ResidualNetwork")
        self.model = model
        self.loss_function = as_loss(loss)
        self.space = model.space
        self.members = (model.depth,)
        self.reference = references.given(l2, reference, self.space)
        checked = validation.array("inputs", inputs)
        validation.shape("inputs", checked, ("n", model.n_features), "(samples, n_features of the model)")
        matrix = validation.array("targets", self.loss_function.check_targets(targets, model.n_outputs))
        validation.shape("targets", matrix, ("n", "C"), "after check_targets of the loss")
        self.data = Rows(checked, matrix, sample_weight)

    def __repr__(self) -> str:
        return f"ResidualRisk({self.model!r}, {self.n_samples} samples, loss={self.loss_function!r}, l2={self.l2:g})"

    @property
    def n_samples(self) -> int:  # type: ignore[override]
        return len(self.data)

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

    def on_threads(self, num_threads: int | None) -> Self:
        same = copy.copy(self)
        same.num_threads = num_threads
        return same

    def with_loss(self, loss: AnyLoss) -> ResidualRisk:
        """The risk with another loss, of the same targets."""
        rows = self.data.samples
        other = ResidualRisk(
            self.model, rows.inputs, rows.targets, loss=loss, reference=self.reference, sample_weight=rows.weights
        )
        return other.on_threads(self.num_threads)

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        """Those of the model, of one layer."""
        return self.model.initial_particles(n_particles, place, dtype)

    def predict(self, measure: Measure, inputs: ArrayLike) -> FloatArray:
        cloud = self.cloud(measure)
        return self.model.predict(cloud.particles, inputs, cloud.weights, self.num_threads)

    def loss(self, measure: Measure) -> float:
        """The risk without its ridge, ``sum_i s_i l(f_mu(z_i), y_i)``."""
        return self._loss(measure, None)

    def loss_of_batch(self, measure: Measure, batch: ArrayLike) -> float:
        return self._loss(measure, batch)

    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        """Gradient of the first variation in each layer, ridge excluded: shape (depth, N, p)."""
        cloud = self.cloud(measure)
        gradient = np.empty(cloud.particles.shape, cloud.particles.dtype)
        for k, _, _, own in self._pulled(cloud, batch, gradients=True):
            gradient[k] = own
        return gradient

    def first_variation(self, measure: Measure, batch: ArrayLike | None = None) -> Potential:
        """First variations of all layers as a potential, ridge included, at points of shape (depth, M, p)."""
        pulled = sorted(self._pulled(self.cloud(measure), batch), key=lambda one: one[0])

        def both(points: FloatArray) -> tuple[FloatArray, FloatArray]:
            each = []
            for own, (_, states, adjoint, _) in zip(points, pulled, strict=True):
                x, g = (array.astype(own.dtype, copy=False) for array in (states, adjoint))
                each.append(self.model.layer.pull_back(np.ascontiguousarray(own), x, g, self._threads))
            return np.stack([values for values, _ in each]), np.stack([slopes for _, slopes in each])

        potential = Potential(
            lambda points: both(points)[1],
            lambda points: both(points)[0],
            value_and_gradient=both,
            space=self.space,
            reference=self.reference,
        )
        potential.members = self.members
        return potential

    def of_rows(
        self, rows: NDArray[np.int64], factors: NDArray[np.float64] | None = None
    ) -> tuple[ResidualRisk, float]:
        part = copy.copy(self)
        vars(part)["data"], share = self.data.take(rows, factors)
        return part, share

    def row_sizes(self) -> NDArray[np.float64]:
        return self.data.sizes

    @property
    def _threads(self) -> int:
        return validation.num_threads(self.num_threads)

    def _weights(self, rows: NDArray[np.int64] | None) -> FloatArray:
        """Weights s of all samples, or of these rows times n / B."""
        n = self.n_samples
        weights = np.full(n, 1 / n) if self.sample_weight is None else self.sample_weight
        return weights if rows is None else weights[rows] * (n / len(rows))

    def _forward(
        self, cloud: Cloud, batch: ArrayLike | None
    ) -> tuple[list[FloatArray], FloatArray, FloatArray, FloatArray]:
        """States that are kept; losses, their derivatives in the predictions, and weights of the rows."""
        inputs, targets, _ = self.data.cast(cloud.particles.dtype)
        rows = None if batch is None else validation.rows("batch", batch, self.n_samples)
        if rows is not None:
            inputs, targets = inputs[rows], targets[rows]
        kept, last = self.model.forward(cloud.particles, cloud.weights, inputs, self._threads)
        values, derivative = self.loss_function.evaluate(self.model.outputs(last), targets)
        return kept, values, derivative, self._weights(rows)

    def _loss(self, measure: Measure, batch: ArrayLike | None) -> float:
        _, values, _, weights = self._forward(self.cloud(measure), batch)
        return float(np.sum(weights * values))

    def _pulled(
        self, cloud: Cloud, batch: ArrayLike | None, *, gradients: bool = False
    ) -> Iterator[tuple[int, FloatArray, FloatArray, FloatArray | None]]:
        """Layers on the way back, see `ResidualNetwork.backward`."""
        kept, _, derivative, weights = self._forward(cloud, batch)
        cotangent = weights.astype(derivative.dtype)[:, np.newaxis] * derivative
        yield from self.model.backward(
            cloud.particles, cloud.weights, kept, cotangent, self._threads, gradients=gradients
        )
