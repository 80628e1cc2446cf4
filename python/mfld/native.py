"""Parts that the compiled core knows: what they hand to it, and why they have no subclasses.

Models, losses, objectives, domains, gradient estimators and dynamics describe themselves to the core by ``native``,
which is None where it does not know them. Where all parts of a step are known, any number of steps is one call of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mfld import _core
from mfld.validation import FloatArray

_ROWS_OF_STREAM = 1 << 13  # at once
_Part = TypeVar("_Part", bound=type)
_Form = TypeVar("_Form", bound=_core.Estimator | _core.Dynamics)


class Native(Generic[_Form]):
    """Estimator or dynamics as the core takes it.

    ``buffers`` are arrays that the core renews in place; those named by ``fragile`` hold nothing where the form is not
    ``valid`` after a call, which a stop may have ended within a refresh.
    """

    __slots__ = ("buffers", "form", "fragile")  # made at every call

    def __init__(self, form: _Form, buffers: dict[str, FloatArray], fragile: tuple[str, ...] = ()) -> None:
        self.form, self.buffers, self.fragile = form, buffers, fragile

    def renew(self, buffers: dict[str, FloatArray]) -> None:
        """Put the own buffers among all, after a call, and take those out that do not hold what they should."""
        buffers.update(self.buffers)
        if self.fragile and not self.form.valid:
            for name in self.fragile:
                buffers.pop(name, None)


class Due(NamedTuple):
    """Steps that are to be made: how many, by which coefficients, and their place in the noise of each replicate."""

    coefficients: tuple[float | NDArray[np.float64], ...]
    n_steps: int
    keys: list[int]
    step: int
    population: int
    num_threads: int
    n_moving: int
    domain: _core.Domain | None

    def part(self, begin: int, end: int) -> Due:
        """Some of the steps."""
        coefficients = tuple(
            own if isinstance(own, float) or own.shape[1] == 1 else own[:, begin:end] for own in self.coefficients
        )
        return self._replace(coefficients=coefficients, n_steps=end - begin, step=self.step + begin)


class Outlook(Protocol):
    """How a call of the core ended."""

    @property
    def steps(self) -> int: ...

    @property
    def bad(self) -> tuple[int, int] | None: ...

    @property
    def loss(self) -> list[float]: ...

    @property
    def gradient_norm(self) -> list[float]: ...

    @property
    def exception(self) -> Any: ...


class Problem(Protocol):
    """Objective as the core takes it.

    ``samples`` is False where it takes exact gradients only, ``reports`` where calls do not say what their last step
    saw.
    """

    @property
    def samples(self) -> bool: ...

    @property
    def reports(self) -> bool: ...

    def moved_by(self, dynamics: _core.Dynamics) -> bool:
        """True if the core makes steps of this objective by these dynamics."""

    def advance(
        self, particles: FloatArray, estimator: _core.Estimator, dynamics: _core.Dynamics, due: Due
    ) -> tuple[FloatArray, Outlook]:
        """Particles after the steps that are due, as far as they were made, and how that ended."""


class RiskOfNetwork(NamedTuple):
    """A network, a loss, and the samples in the precision of the particles; the ranks that share these.

    Inputs that are words of `mfld.bfloat16.pairs` make products of bfloat16. ``on_disk`` says that the inputs are part
    of a mapped file, see `mfld.validation.mapped`.
    """

    network: _core.Network
    loss: _core.Loss
    inputs: FloatArray
    targets: FloatArray
    weights: FloatArray | None
    ranks: _core.Ranks | None = None
    on_disk: bool = False

    @property
    def samples(self) -> bool:
        return True

    @property
    def reports(self) -> bool:
        return True

    def moved_by(self, dynamics: _core.Dynamics) -> bool:
        return True

    def advance(
        self, particles: FloatArray, estimator: _core.Estimator, dynamics: _core.Dynamics, due: Due
    ) -> tuple[FloatArray, _core.Report]:
        moving = particles.copy()
        report = _core.backend.advance(
            self.network,
            self.loss,
            moving,
            self.inputs,
            self.targets,
            self.weights,
            estimator,
            dynamics,
            due.coefficients,
            due.n_steps,
            due.keys,
            due.step,
            due.population,
            due.num_threads,
            due.domain,
            self.ranks,
            self.on_disk,
        )
        return moving, report


class Reached(NamedTuple):
    """How several calls of the core ended."""

    steps: int
    bad: tuple[int, int] | None
    loss: list[float]
    gradient_norm: list[float]
    exception: BaseException | None


class StreamOfNetwork(NamedTuple):
    """A network, a loss, and where the samples of steps come from: blocks of steps are drawn, and made in one call.

    ``draw(first, n_steps, n_rows)`` gives the samples of steps in their order, in the precision of the particles, as
    far as there are any, and what ended them.
    """

    network: _core.Network
    loss: _core.Loss
    draw: Callable[[int, int, int], tuple[FloatArray, FloatArray, BaseException | None]]

    @property
    def samples(self) -> bool:
        return True

    @property
    def reports(self) -> bool:
        return True

    def moved_by(self, dynamics: _core.Dynamics) -> bool:
        return True

    def advance(
        self, particles: FloatArray, estimator: _core.Estimator, dynamics: _core.Dynamics, due: Due
    ) -> tuple[FloatArray, Outlook]:
        n_rows, ahead = estimator.batch_size, int(dynamics.looks_ahead)
        at_once, made = max(1, _ROWS_OF_STREAM // n_rows), 0
        unseen = [np.nan] * len(particles)
        seen: tuple[list[float], list[float]] = unseen, unseen
        while made < due.n_steps:
            wanted = min(at_once, due.n_steps - made)
            inputs, targets, error = self.draw(due.step + made, wanted + ahead, n_rows)
            end = made + len(inputs) // n_rows - ahead
            if end > made:
                risk = RiskOfNetwork(self.network, self.loss, inputs, targets, None)
                particles, report = risk.advance(particles, estimator, dynamics, due.part(made, end))
                made, seen = made + report.steps, (report.loss, report.gradient_norm)
                if report.bad is not None or report.exception is not None:
                    return particles, Reached(made, report.bad, *seen, report.exception)
            if error is not None:
                return particles, Reached(made, None, *seen, error)
        return particles, Reached(made, None, *seen, None)


class Discrepancy(NamedTuple):
    """Kernels among particles and between them and the target, their factors, and the points of the target."""

    own: _core.PairKernel
    own_factor: float
    cross: _core.PairKernel
    cross_factor: float
    points: FloatArray
    weights: FloatArray | None

    @property
    def samples(self) -> bool:
        return False

    @property
    def reports(self) -> bool:
        return False

    def moved_by(self, dynamics: _core.Dynamics) -> bool:
        return dynamics.affine

    def advance(
        self, particles: FloatArray, estimator: _core.Estimator, dynamics: _core.Dynamics, due: Due
    ) -> tuple[FloatArray, _core.Report]:
        moving = particles.copy()
        report = _core.backend.advance_pairs(
            self.own,
            self.own_factor,
            self.cross,
            self.cross_factor,
            moving,
            due.n_moving,
            self.points,
            self.weights,
            due.coefficients,
            due.n_steps,
            due.keys,
            due.step,
            due.population,
            due.num_threads,
            due.domain,
        )
        return moving, report


def final(part: _Part) -> _Part:
    """Class decorator that refuses subclasses: the core would compute them as their parent."""

    def refuse(cls: type, **_: object) -> None:
        open_parent = [parent for parent in part.__mro__ if parent.__module__.startswith("mfld.")][-1]
        raise TypeError(
            f"{cls.__name__} must not be a subclass of {part.__name__}, which the compiled core computes: what it "
            f"overrides would be left out. Subclass {open_parent.__name__}, with a {part.__name__} inside"
        )

    part.__init_subclass__ = classmethod(refuse)  # type: ignore[assignment, arg-type]
    return part
