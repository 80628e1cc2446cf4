"""Exact gradients of risks over signed measures whose best weights start from those of the step before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mfld.gradients import GradientEstimator
from mfld.native import final
from mfld.noise import Place
from mfld.objectives.base import Objective
from mfld.objectives.signed import SignedRisk
from mfld.state import Buffers
from mfld.validation import FloatArray


@final
@dataclass(frozen=True)
class WarmStart(GradientEstimator):
    """Gradient of a `Bilevel` risk whose Newton iteration starts from the solution of the step before.

    The gradient is that of `FullBatch` to the tolerance of `Bilevel`, for a fraction of its iterations: positions move
    little in a step. The coefficients of the solution, one for each sample and output, are part of the state, so that a
    run goes on from a checkpoint with the same bits.

    Raises
    ------
    ValueError
        When a run starts, if the objective has no iteration: it is no `SignedRisk` with `Bilevel`, or of squares.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> rng = np.random.default_rng(0)
    >>> z, classes = rng.normal(size=(60, 2)), rng.integers(0, 3, 60)
    >>> model = mfld.TwoLayerNetwork(2, readout="fixed")
    >>> risk = mfld.SignedRisk(model, z, classes, loss="cross_entropy", strength=0.01, n_outputs=3)
    >>> cold, warm = (
    ...     mfld.MFLD(20, step_size=1.0, temperature=1e-4, gradient=gradient, dtype="float64").run(risk, n_steps=5)
    ...     for gradient in (mfld.FullBatch(), mfld.WarmStart())
    ... )
    >>> bool(np.abs(warm.particles - cold.particles).max() < 1e-6)
    True
    """

    buffer_names: ClassVar[tuple[str, ...]] = ("coefficients",)
    exact: ClassVar[bool] = True

    def rows_of_a_step(self, objective: Objective) -> int | None:
        return None

    def check(self, objective: Objective) -> None:
        if not getattr(objective, "iterates", False):
            raise ValueError(
                f"gradient must not be {self} but for a SignedRisk with Bilevel() and a loss that is no square, "
                f"got {objective!r}"
            )

    def buffer_shapes(self, objective: Objective, n_particles: int) -> dict[str, tuple[int, ...]]:
        assert isinstance(objective, SignedRisk)  # by check
        return {"coefficients": (len(objective.data), objective.n_outputs)}

    def estimate(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[FloatArray, Buffers]:
        assert isinstance(objective, SignedRisk)  # by check
        coefficients = objective.coefficients(particles, buffers.get("coefficients"))
        return objective.gradient_at(particles, coefficients), {"coefficients": coefficients}
