"""What a run returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld.objectives import EmpiricalRisk, Objective
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
        if not isinstance(self.objective, EmpiricalRisk):
            kind = type(self.objective).__name__
            raise TypeError(f"predict needs a run on an EmpiricalRisk, which has a model; this one was on a {kind}")
        cloud = self.state.measure
        return self.objective.model.predict(cloud.particles, inputs, cloud.weights)
