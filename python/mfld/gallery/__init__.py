"""Experiments as files: shipped ones, each with its figure and the claim that the figure must show, and your own."""

from mfld.gallery.experiment import LIBRARY, Claim, Experiment, FailedRunsError, Findings, load, names

__all__ = ["LIBRARY", "Claim", "Experiment", "FailedRunsError", "Findings", "load", "names"]
