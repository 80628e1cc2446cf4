"""Noise on targets, as an estimator of gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mfld import validation
from mfld.gradients import GradientEstimator
from mfld.native import final
from mfld.noise import Place
from mfld.objectives.base import Objective
from mfld.objectives.signed import SignedRisk
from mfld.state import Buffers
from mfld.validation import FloatArray


@final
@dataclass(frozen=True)
class LabelNoise(GradientEstimator):
    """Gradient of a `Bilevel` risk of squares whose weights are fitted to noisy targets, drawn afresh at each step.

    For errors e, uniform on [-scale, scale], let f be the best weights for the targets y, and q those for e alone, so
    that ``f + q`` fits ``y + e``. The gradient is that of the risk for y

    ``"outer"``
        with the weights ``f + q``, which follow the positions: of ``-(strength / 2) (|f(w)|**2 - |q(w)|**2)``. For the
        half-squared loss its expectation is the gradient of ``J + (scale**2 / 6 n) tr K (K + n strength)**-1`` with K
        the kernel of the neurons: it lowers the degrees of freedom.
    ``"inner"``
        with the weights ``f + q`` held fixed.

    Source: Takakura, Suzuki 2024, "Mean-field analysis on two-layer neural networks from a kernel perspective". Noise:
    stream ``label_noise``, one number for each target.

    Parameters
    ----------
    scale : float
        At least 0.
    variant : {"outer", "inner"}

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or the objective is none of these.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> z = np.linspace(-1, 1, 20)[:, np.newaxis]
    >>> model = mfld.TwoLayerNetwork(1, readout="fixed")
    >>> risk = mfld.SignedRisk(model, z, np.sin(3 * z[:, 0]), strength=0.01)
    >>> solver = mfld.MFLD(100, step_size=0.5, temperature=0.0, gradient=mfld.LabelNoise(0.1))
    >>> bool(solver.run(risk, n_steps=50).history["loss"][-1] < 0.1)
    True
    """

    scale: float
    variant: str = "outer"

    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", validation.real("scale", self.scale, non_negative=True))
        validation.choice("variant", self.variant, ("outer", "inner"))

    def rows_of_a_step(self, objective: Objective) -> int | None:
        return None

    def check(self, objective: Objective) -> None:
        if not getattr(objective, "fits_targets", False):
            raise ValueError(
                f"gradient must not be {self} but for a SignedRisk of squares with Bilevel(), got {objective!r}"
            )

    def estimate(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[FloatArray, Buffers]:
        assert isinstance(objective, SignedRisk)  # by check
        n, k = len(objective.data), objective.n_outputs
        uniforms = place.uniforms(n, k, particles.dtype, "label_noise")
        errors = (particles.dtype.type(2 * self.scale) * (uniforms - particles.dtype.type(0.5))).astype(particles.dtype)
        return objective.gradient_with_errors(particles, errors, follows=self.variant == "outer"), {}
