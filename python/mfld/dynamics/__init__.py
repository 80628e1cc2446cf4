"""Dynamics: how one step moves the particles."""

from typing import TYPE_CHECKING

from mfld import lazy

if TYPE_CHECKING:
    from mfld.dynamics.affine import Affine
    from mfld.dynamics.base import Dynamics, Move, Step
    from mfld.dynamics.conic import Conic
    from mfld.dynamics.coupled import Coupled
    from mfld.dynamics.general import General
    from mfld.dynamics.irreversible import Irreversible
    from mfld.dynamics.mala import MALA
    from mfld.dynamics.overdamped import Overdamped
    from mfld.dynamics.preconditioned import Preconditioned
    from mfld.dynamics.stein import SVGD
    from mfld.dynamics.tempering import ContinuousTempering
    from mfld.dynamics.underdamped import Underdamped

__all__ = [
    "MALA",
    "SVGD",
    "Affine",
    "Conic",
    "ContinuousTempering",
    "Coupled",
    "Dynamics",
    "General",
    "Irreversible",
    "Move",
    "Overdamped",
    "Preconditioned",
    "Step",
    "Underdamped",
]

# As above: where names are that are loaded when they are first asked for.
_HOMES = {
    "affine": "Affine",
    "base": "Dynamics Move Step",
    "conic": "Conic",
    "coupled": "Coupled",
    "general": "General",
    "irreversible": "Irreversible",
    "mala": "MALA",
    "overdamped": "Overdamped",
    "preconditioned": "Preconditioned",
    "stein": "SVGD",
    "tempering": "ContinuousTempering",
    "underdamped": "Underdamped",
}

if not TYPE_CHECKING:  # a checker knows the names from above
    __getattr__, __dir__ = lazy.names(__name__, _HOMES, __all__)
