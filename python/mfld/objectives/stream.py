"""Expected risk over a stream of samples, of which a run sees a batch a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mfld import references, validation
from mfld.data import Stream
from mfld.losses import AnyLoss, as_loss
from mfld.models import Model
from mfld.native import StreamOfNetwork
from mfld.noise import Place
from mfld.objectives.base import Measure, Potential
from mfld.objectives.risk import EmpiricalRisk, Risk
from mfld.references import Reference
from mfld.state import Buffers
from mfld.validation import FloatArray, FloatDType


class StreamRisk(Risk):
    """Regularised expected risk ``F(mu) = E_(z, y) l(f_mu(z), y) + l2 E_mu |theta|**2`` of samples that arrive.

    `MFLD` with a `Minibatch` sees new samples at every step, and the loss in its history is that of the step's samples.
    `PDA` keeps them: its averaged potential ``sum_j c_j h(theta, z_j) + l2 t / (t + 2) |theta|**2`` runs over all
    samples z_j that were seen, each with its coefficient c_j, so that the state grows by a batch a step, and a step
    costs as much as one on so many samples of finite data. A run that would keep more than ``capacity`` samples is
    refused before it starts. The risk itself, its full gradient and its certificate are unknown; for estimates of them
    make an `EmpiricalRisk` of other samples, like the one that `batch` gives of a step. Source: Nitanda, Wu, Suzuki
    2021, "Particle dual averaging: optimization of mean field neural networks with global convergence rate analysis",
    where every step draws a new sample.

    Parameters
    ----------
    model : Model
        As in `EmpiricalRisk`.
    sample : callable
        ``sample(step, n_rows) -> (inputs, targets)``, n_rows samples of a step, counted from 0: inputs of shape
        (n_rows, n_features), and targets that the loss takes. It must be a pure function, see `mfld.data.Stream`; all
        replicates see the same samples.
    loss, l2
        As in `EmpiricalRisk`.
    capacity : int, optional
        Most samples that a run of `PDA` may keep, which needs it: each takes n_features numbers of the run's precision
        and n_outputs float64.
    reference
        As in `EmpiricalRisk`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> def sample(step, n_rows):
    ...     inputs = mfld.noise.normals(7, step, n_rows, 1, dtype="float64", stream="data")
    ...     return inputs, np.sin(inputs[:, 0])
    >>> model = mfld.TwoLayerNetwork(n_features=1, readout="bounded", readout_bound=5.0)
    >>> stream = mfld.StreamRisk(model, sample, loss="half_squared", l2=1e-2, capacity=1000)
    >>> solver = mfld.PDA(n_particles=100, step_size=0.3, temperature=1e-3, inner_steps=20, batch_size=10)
    >>> result = solver.run(stream, n_steps=100)
    >>> result.state.buffers["kept_inputs"].shape            # full: one more step is refused
    (1, 1000, 1)
    >>> fresh = stream.batch(10_000, 500)                    # samples that the run has not seen
    >>> bool(fresh.loss(result.particles) < 0.05)
    True
    """

    has_value = False
    has_gradient = False
    has_batches = True

    def __init__(
        self,
        model: Model,
        sample: Callable[[int, int], tuple[ArrayLike, ArrayLike]],
        *,
        loss: AnyLoss,
        l2: float = 0.0,
        capacity: int | None = None,
        reference: Reference | None = None,
    ) -> None:
        validation.instance("model", model, Model, "a Model, like a TwoLayerNetwork")
        self.model = model
        self.data = Stream(sample, capacity)
        self.loss_function = as_loss(loss)
        self.space = model.space
        self.reference = references.given(l2, reference, self.space)

    def __repr__(self) -> str:
        return f"StreamRisk({self.model!r}, loss={self.loss_function!r}, l2={self.l2:g})"

    @property
    def capacity(self) -> int | None:  # type: ignore[override]
        return self.data.capacity

    def batch(self, step: int, n_rows: int) -> EmpiricalRisk:
        """Risk of the samples of a step.

        Parameters
        ----------
        step : int
            At least 0.
        n_rows : int
            At least 1.

        Raises
        ------
        TypeError, ValueError
            If an argument is out of range, or what ``sample`` returns is no pair, or does not fit the model and loss.
        """
        return self._risk_of(self.data.batch(step, n_rows), n_rows, f"sample({step}, {n_rows})")

    def native(self, dtype: FloatDType) -> StreamOfNetwork | None:
        network, loss = self.model.native, self.loss_function.native
        if network is None or loss is None:
            return None

        def draw(first: int, n_steps: int, n_rows: int) -> tuple[FloatArray, FloatArray, BaseException | None]:
            batches, ended = [], None
            try:
                several = self.data.batches(first, n_steps, n_rows)
                if several is None:
                    for step in range(first, first + n_steps):
                        batches.append(self.batch(step, n_rows))
                else:
                    batches.append(self._risk_of(several, n_steps * n_rows, f"steps({first}, {n_steps}, {n_rows})"))
            except (KeyboardInterrupt, Exception) as error:
                ended = error
            cast = [batch.data.cast(dtype) for batch in batches]
            if not cast:
                return np.empty((0, self.model.n_features), dtype), np.empty((0, 1), dtype), ended
            return np.concatenate([own[0] for own in cast]), np.concatenate([own[1] for own in cast]), ended

        return StreamOfNetwork(network, loss, draw)

    def draw_batch(self, place: Place, batch_size: int) -> EmpiricalRisk:
        return self.batch(place.step, batch_size)

    def sampled(self, step: int, n_rows: int) -> EmpiricalRisk:
        return self.batch(step, n_rows)

    def frozen(self, inputs: ArrayLike, coefficients: ArrayLike) -> tuple[EmpiricalRisk, FloatArray]:
        """A risk and dual variables with the potential ``sum_jk c_jk h_k(theta, z_j)``, see `EmpiricalRisk.linearised`.

        Parameters
        ----------
        inputs : array_like, shape (J, n_features)
        coefficients : array_like, shape (J, n_outputs)

        Raises
        ------
        TypeError, ValueError
            If an array is of the wrong kind or shape.
        """
        coefficients = validation.array("coefficients", coefficients, np.float64)
        validation.shape("coefficients", coefficients, ("J", self.model.n_outputs), "(samples, outputs)")
        # Dual variables stand for themselves: no loss and no target is in it.
        risk = EmpiricalRisk(self.model, inputs, np.zeros_like(coefficients), loss="half_squared")
        return risk, len(coefficients) * coefficients

    def loss(self, measure: Measure) -> float:
        raise self._unknown("loss")

    def loss_of_batch(self, measure: Measure, batch: EmpiricalRisk) -> float:
        return batch.loss(measure)

    def loss_gradient(self, measure: Measure, batch: Any = None) -> FloatArray:
        """Gradient over a batch, the `EmpiricalRisk` of some samples; over all samples it is unknown."""
        if batch is None:
            raise self._unknown("gradient")
        return self._given(batch).loss_gradient(measure)

    def first_variation(self, measure: Measure, batch: Any = None) -> Potential:
        """First variation over a batch, the `EmpiricalRisk` of some samples; over all samples it is unknown.

        ``(1 / B) * sum_j l'(f_mu(z_j), y_j) h(theta, z_j) + l2 |theta|**2`` over the B samples of the batch, which for
        one that the stream drew is the expectation's estimate without bias.
        """
        if batch is None:
            raise self._unknown("first variation")
        return self._given(batch).first_variation(measure)

    def record_widths(self, dtype: DTypeLike) -> dict[str, tuple[int, DTypeLike]]:
        return {"kept_inputs": (self.model.n_features, dtype), "kept_sum": (self.model.n_outputs, "float64")}

    def n_recorded(self, record: Buffers) -> int:
        return len(record["kept_inputs"][0])

    def recorded(self, record: Buffers, particles: FloatArray, batch: Any, factor: float) -> tuple[Buffers, float]:
        derivative, loss = batch.derivative(particles)
        coefficients = factor / batch.n_samples * derivative.astype(np.float64)
        added = {"kept_inputs": batch.inputs, "kept_sum": coefficients}
        return {
            name: np.concatenate([record[name], rows[np.newaxis].astype(record[name].dtype)], axis=1)
            for name, rows in added.items()
        }, loss

    def averaged(self, record: Buffers, scale: float) -> tuple[EmpiricalRisk, FloatArray]:
        return self.frozen(record["kept_inputs"][0], scale * record["kept_sum"][0])

    def _risk_of(self, returned: tuple[ArrayLike, ArrayLike], n_rows: int, call: str) -> EmpiricalRisk:
        try:
            risk = EmpiricalRisk(self.model, *returned, loss=self.loss_function, reference=self.reference)
        except (TypeError, ValueError) as error:
            error.add_note(f"in what {call} returned")
            raise
        if risk.n_samples != n_rows:
            raise ValueError(f"{call} must return {n_rows} samples, got {risk.n_samples}")
        return risk.on_threads(self.num_threads)

    @staticmethod
    def _given(batch: Any) -> EmpiricalRisk:
        return validation.instance("batch", batch, EmpiricalRisk, "the EmpiricalRisk that StreamRisk.batch gives")

    def _unknown(self, what: str) -> TypeError:
        return TypeError(
            f"the {what} of a StreamRisk is an expectation, which is not known: use Minibatch, PDA, or the "
            "EmpiricalRisk that batch(step, n_rows) gives"
        )
