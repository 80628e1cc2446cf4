"""Algorithms for games, which move the clouds of all players."""

from mfld.algorithms.games.averaged_gradient import AveragedGradient
from mfld.algorithms.games.best_response import BestResponse
from mfld.algorithms.games.descent_ascent import DescentAscent
from mfld.algorithms.games.fictitious_play import FictitiousPlay

__all__ = ["AveragedGradient", "BestResponse", "DescentAscent", "FictitiousPlay"]
