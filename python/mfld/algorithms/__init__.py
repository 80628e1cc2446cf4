"""Algorithms: the outer loops."""

from typing import TYPE_CHECKING

from mfld import lazy

if TYPE_CHECKING:
    from mfld.algorithms.base import Algorithm, Callback, Result
    from mfld.algorithms.cooling import Cooling
    from mfld.algorithms.games import AveragedGradient, BestResponse, DescentAscent, FictitiousPlay
    from mfld.algorithms.mfld import MFLD
    from mfld.algorithms.pda import PDA
    from mfld.algorithms.phases import TopParticles, TwoPhase
    from mfld.algorithms.plateau import StopOnPlateau
    from mfld.algorithms.psdca import PSDCA
    from mfld.algorithms.svis import SVIS

__all__ = [
    "MFLD",
    "PDA",
    "PSDCA",
    "SVIS",
    "Algorithm",
    "AveragedGradient",
    "BestResponse",
    "Callback",
    "Cooling",
    "DescentAscent",
    "FictitiousPlay",
    "Result",
    "StopOnPlateau",
    "TopParticles",
    "TwoPhase",
]

# As above: where names are that are loaded when they are first asked for.
_HOMES = {
    "base": "Algorithm Callback Result",
    "cooling": "Cooling",
    "games": "AveragedGradient BestResponse DescentAscent FictitiousPlay",
    "mfld": "MFLD",
    "pda": "PDA",
    "phases": "TopParticles TwoPhase",
    "plateau": "StopOnPlateau",
    "psdca": "PSDCA",
    "svis": "SVIS",
}

if not TYPE_CHECKING:  # a checker knows the names from above
    __getattr__, __dir__ = lazy.names(__name__, _HOMES, __all__)
