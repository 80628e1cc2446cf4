"""What a run returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld.certificates import Certificate, certificate, dual_of
from mfld.objectives import EmpiricalRisk, Objective, StreamRisk
from mfld.state import Cloud, Info, State
from mfld.validation import FloatArray


@dataclass(frozen=True, eq=False)
class Result:
    """Where a run ended, and what was seen on the way.

    Attributes
    ----------
    objective : Objective
        What was minimised.
    state : State
        To go on from: ``solver.run(result.objective, n_steps, state=result.state)``.
    history : dict of str to ndarray, shape (n_records,)
        ``step``: how many steps had been done. ``loss``, ``gradient_norm`` and the other entries of `Info`: what the
        last of them saw, before its move. Further entries: the values of the functions given as ``record``, at the
        particles after it. With several replicates every entry but ``step`` has a second axis, one value for each.
    info : Info
        What the last step saw, with the step size, temperature and ridge that it used.

    Examples
    --------
    >>> import mfld
    >>> model = mfld.TwoLayerNetwork(n_features=1)
    >>> risk = mfld.EmpiricalRisk(model, [[-1.0], [1.0]], [-1.0, 1.0], loss="squared")
    >>> result = mfld.MFLD(n_particles=50, step_size=0.1, temperature=1e-4).run(risk, n_steps=100)
    >>> result.particles.shape, result.predict([[0.5]]).shape, len(result.history["loss"])
    ((50, 3), (1,), 100)
    """

    objective: Objective
    state: State
    history: dict[str, NDArray[Any]]
    info: Info = field(default_factory=lambda: Info(steps=0))

    @property
    def particles(self) -> FloatArray:
        """Particles, shape (N, p), read-only; of several replicates see `State.replicate` and `State.measure`."""
        return self.state.particles

    @property
    def measure(self) -> Cloud:
        """Particles with their weights; the mixture of several replicates."""
        return self.state.measure

    @property
    def weights(self) -> FloatArray:
        """Weights of the particles of `measure`, shape (N,), of sum 1."""
        cloud = self.state.measure
        n = len(cloud.particles)
        return np.full(n, 1 / n, cloud.particles.dtype) if cloud.weights is None else cloud.weights

    @property
    def dual(self) -> FloatArray | None:
        """Dual variables g of the samples, where the algorithm has them: shape (n,), or (n, n_outputs); else None.

        Those of `PSDCA`, and of `PDA` the averages over its steps; of several replicates the mean.
        """
        if not {"dual", "dual_weight"} & set(self.state.buffers):
            return None
        assert isinstance(self.objective, EmpiricalRisk)  # by the algorithms
        dual = dual_of(self.objective, self.state)
        return dual[:, 0] if dual.shape[1] == 1 else dual

    def certificate(
        self,
        confidence: float = 0.999,
        *,
        dual: ArrayLike | None = None,
        temperature: float | None = None,
        **options: Any,
    ) -> Certificate:
        """How far from the optimum the answer is at most: the duality gap of the run's dual variables.

        It certifies the Gibbs measure of the dual variables, and not the cloud: see `mfld.certificate`.

        Parameters
        ----------
        confidence : float
            Of the upper bound.
        dual : array_like, shape (n,) or (n, n_outputs), optional
            Dual variables; by default `dual`, or where there are none ``l'(f_mu(z_i), y_i)`` at the final cloud, whose
            gap has a floor of order 1/N. `mfld.AverageDual` averages them over steps, which is better.
        temperature : float, optional
            By default that of the last step.
        **options
            Further arguments of `mfld.certificate`.

        Returns
        -------
        Certificate

        Raises
        ------
        TypeError, ValueError
            If the objective is no EmpiricalRisk, the run has no step to take the temperature from, or an argument does
            not fit.
        """
        if not isinstance(self.objective, EmpiricalRisk):
            kind = type(self.objective).__name__
            raise TypeError(f"certificate needs a run on an EmpiricalRisk; this one was on a {kind}")
        if temperature is None:
            temperature = self.info.temperature
            if math.isnan(temperature):
                raise ValueError("temperature must be given where the run has made no step")
        # PDA's last ridge is that of its average, on the way to the objective's; elsewhere a run may replace the ridge.
        if "dual_sum" not in self.state.buffers and not math.isnan(self.info.l2):
            options.setdefault("l2", self.info.l2)
        if dual is None:
            dual = dual_of(self.objective, self.state)
        return certificate(self.objective, dual, temperature, confidence=confidence, **options)

    def predict(self, inputs: ArrayLike) -> FloatArray:
        """Predictions of the model that was trained; with several replicates those of their mixture, the mean.

        Parameters
        ----------
        inputs : array_like, shape (n, n_features)

        Returns
        -------
        ndarray, shape (n,), or (n, n_outputs) with several outputs

        Raises
        ------
        TypeError, ValueError
            If the objective has no model, or the inputs do not fit it.
        """
        if not isinstance(self.objective, EmpiricalRisk | StreamRisk):
            kind = type(self.objective).__name__
            raise TypeError(f"predict needs a run on an EmpiricalRisk, which has a model; this one was on a {kind}")
        cloud = self.state.measure
        return self.objective.model.predict(cloud.particles, inputs, cloud.weights)
