"""Algorithms: the outer loops."""

from mfld.algorithms.mfld import MFLD, Info
from mfld.algorithms.result import Result

__all__ = ["MFLD", "Info", "Result"]
