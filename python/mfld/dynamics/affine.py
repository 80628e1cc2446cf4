"""Steps that are affine in the particle, its gradient and the noise: what the compiled core makes of most dynamics."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from mfld import _core
from mfld.dynamics.base import Dynamics, Move, Numbers, Step, checked_coefficients
from mfld.gradients import Drift
from mfld.native import Native
from mfld.state import Buffers
from mfld.validation import FloatArray


class Affine(Dynamics):
    """Dynamics with a step that is affine: a subclass says by which numbers, and runs inside the compiled core.

    ::

        theta <- theta - c theta - h gradient + s xi,    xi ~ N(0, I)

    with the gradient without the ridge. On a domain the step is then brought back to it, see `mfld.space`. A subclass
    defines `coefficients` and leaves `move` and `native` alone. Noise: stream ``move``, one normal for each moving
    coordinate.

    Raises
    ------
    TypeError
        Where a subclass is made that moves in another way: that is a subclass of `Dynamics`.

    Examples
    --------
    Gradient descent that takes the ridge twice, in one class:

    >>> import dataclasses
    >>> import mfld
    >>> @dataclasses.dataclass(frozen=True)
    ... class Doubled(mfld.dynamics.Affine):
    ...     def coefficients(self, step_size, temperature, l2):
    ...         return 4 * step_size * l2, step_size, 0 * temperature
    >>> flat = mfld.Potential(lambda x: 0 * x, n_coordinates=1, l2=0.5)
    >>> solver = mfld.MFLD(n_particles=1, step_size=0.25, temperature=0.0, dynamics=Doubled(), dtype="float64")
    >>> solver.run(flat, n_steps=2, particles=[[8.0]]).particles
    array([[2.]])
    """

    on_domains: ClassVar[bool] = True
    on_members: ClassVar[bool] = True
    affine: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        for name in ("move", "native", "start", "buffer_names"):
            if name in vars(cls):
                raise TypeError(
                    f"{cls.__name__} must not define {name}: steps of an Affine are what its coefficients say, in the "
                    "compiled core too. Other steps are those of a subclass of Dynamics"
                )

    @abstractmethod
    def coefficients(self, step_size: Numbers, temperature: Numbers, l2: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Coefficients ``c, h, s`` of a step: finite, h positive, in float64.

        ``c / h`` is taken for ``2 l2`` where the norm of the gradient is recorded.

        Parameters
        ----------
        step_size, temperature, l2 : float, or ndarray of float64
            Arrays have shapes (1 or n_replicates, 1 or n_steps), and so should the coefficients.
        """

    def native(self, particles: FloatArray, buffers: Buffers) -> Native[_core.Dynamics] | None:
        return Native(_core.Dynamics("affine"), {})

    def move(self, particles: FloatArray, buffers: Buffers, drift: Drift, step: Step) -> Move:
        gradient, buffers = drift(particles, buffers, step.place)
        moved = particles.copy()
        bad_particle = _core.backend.affine(
            moved,
            gradient,
            step.n_moving,
            checked_coefficients(self, step.step_size, step.temperature, step.l2),
            *step.place.of_members(particles.shape[:-2]),
            step.space.native(),
            step.place.first,
        )
        if not step.space.in_core:
            moved, bad_particle = step.moved(moved, moved[..., : step.n_moving])
        return Move(moved, buffers, gradient, bad_particle)
