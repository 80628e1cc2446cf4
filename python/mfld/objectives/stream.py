"""Expected risk over a stream of samples, of which a run sees a batch a step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mfld import validation
from mfld.losses import AnyLoss, as_loss
from mfld.models import Model
from mfld.objectives.base import Measure, Objective, Potential
from mfld.objectives.risk import EmpiricalRisk
from mfld.validation import FloatArray


class StreamRisk(Objective):
    """Regularised expected risk ``F(mu) = E_(z, y) l(f_mu(z), y) + l2 E_mu |theta|**2`` of samples that arrive.

    `PDA` minimises it. Its averaged potential ``sum_j c_j h(theta, z_j) + l2 t / (t + 2) |theta|**2`` runs over all
    samples z_j that were seen, so they are kept, each with its coefficient c_j: the state grows by a batch a step, and
    a step costs as much as one on so many samples of finite data. Nothing is ever forgotten: a run that would keep more
    than ``capacity`` samples is refused before it starts. The risk itself, its gradient and its certificate are
    unknown; for estimates of them make an `EmpiricalRisk` of other samples, like the one that `batch` gives of a step.
    Source: Nitanda, Wu, Suzuki 2021, "Particle dual averaging: optimization of mean field neural networks with global
    convergence rate analysis", where every step draws a new sample.

    Parameters
    ----------
    model : Model
        As in `EmpiricalRisk`.
    sample : callable
        ``sample(step, n_rows) -> (inputs, targets)``, n_rows samples of a step, counted from 0: inputs of shape
        (n_rows, n_features), and targets that the loss takes. It must be a pure function, so that a run that is
        continued, or repeated, sees the same samples; all replicates see the same ones.
    loss, l2
        As in `EmpiricalRisk`.
    capacity : int
        Most samples that a run may keep: each takes n_features numbers of the run's precision and n_outputs float64.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> def sample(step, n_rows):
    ...     inputs = mfld.noise.normals(7, step, n_rows, 1, dtype="float64")
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

    def __init__(
        self,
        model: Model,
        sample: Callable[[int, int], tuple[ArrayLike, ArrayLike]],
        *,
        loss: AnyLoss,
        l2: float = 0.0,
        capacity: int,
    ) -> None:
        validation.instance("model", model, Model, "a Model, like a TwoLayerNetwork")
        validation.function("sample", sample)
        self.model = model
        self.sample = sample
        self.loss_function = as_loss(loss)
        self.l2 = validation.real("l2", l2, non_negative=True)
        self.capacity = validation.integer("capacity", capacity, 1)
        self.n_coordinates = model.n_coordinates
        self.n_moving = model.n_moving

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
        step, n_rows = validation.integer("step", step, 0), validation.integer("n_rows", n_rows, 1)
        returned = self.sample(step, n_rows)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise TypeError(f"sample must return a tuple (inputs, targets), got {validation.show(returned)}")
        try:
            risk = EmpiricalRisk(self.model, *returned, loss=self.loss_function, l2=self.l2)
        except (TypeError, ValueError) as error:
            error.add_note(f"in what sample({step}, {n_rows}) returned")
            raise
        if risk.n_samples != n_rows:
            raise ValueError(f"sample({step}, {n_rows}) must return {n_rows} samples, got {risk.n_samples}")
        return risk

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

    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        raise self._unknown("gradient")

    def first_variation(self, measure: Measure) -> Potential:
        raise self._unknown("first variation")

    def predict(self, measure: Measure, inputs: ArrayLike) -> FloatArray:
        cloud = self.cloud(measure)
        return self.model.predict(cloud.particles, inputs, cloud.weights, self.num_threads)

    def initial_particles(self, n_particles: int, seed: int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        """The model's initial particles."""
        return self.model.initial_particles(n_particles, seed, dtype)

    def _unknown(self, what: str) -> TypeError:
        return TypeError(
            f"the {what} of a StreamRisk is an expectation, which nobody knows: use PDA, or the EmpiricalRisk that "
            "batch(step, n_rows) gives"
        )
