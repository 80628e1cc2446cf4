"""Parts that the compiled core knows: what they hand to it, and why they have no subclasses.

Models, losses, objectives, domains, gradient estimators and dynamics describe themselves to the core by ``native``,
which is None where it does not know them. Where all parts of a step are known, any number of steps is one call of it.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from mfld import _core
from mfld.validation import FloatArray

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


class Problem(NamedTuple):
    """Objective as the core takes it: a network, a loss, and the samples in the precision of the particles."""

    network: _core.Network
    loss: _core.Loss
    inputs: FloatArray
    targets: FloatArray
    weights: FloatArray | None


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
