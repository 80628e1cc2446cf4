"""Algorithms: the outer loops."""

from mfld.algorithms.mfld import MFLD
from mfld.algorithms.result import Result

__all__ = ["MFLD", "Result"]
