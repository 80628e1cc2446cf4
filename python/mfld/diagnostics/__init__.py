"""Diagnostics: how far a cloud is from its target, in every sense that theory uses, each with its error.

They take a `Cloud` or an array of particles; beside NumPy some need SciPy and arviz-stats (``pip install
'mfld[diagnostics]'``), and exact transport in several dimensions needs POT (``mfld[ot]``). Whatever compares all pairs
works in blocks, and says over how many particles it takes its means.
"""

from mfld.diagnostics.alignment import (
    conjugate_kernel,
    degrees_of_freedom,
    kernel_alignment,
    parameter_alignment,
    tangent_kernel,
)
from mfld.diagnostics.chains import autocorrelation_time, effective_sample_size, rhat
from mfld.diagnostics.chaos import Chaos, propagation_of_chaos
from mfld.diagnostics.discrepancies import ksd, mmd
from mfld.diagnostics.divergences import fisher_divergence, kl
from mfld.diagnostics.entropy import entropy
from mfld.diagnostics.estimate import Estimate
from mfld.diagnostics.normaliser import log_normaliser
from mfld.diagnostics.stein import SteinIdentities, stein_identities
from mfld.diagnostics.step_law import StepLaw
from mfld.diagnostics.transport import gaussian_wasserstein, sliced_wasserstein, wasserstein

__all__ = [
    "Chaos",
    "Estimate",
    "SteinIdentities",
    "StepLaw",
    "autocorrelation_time",
    "conjugate_kernel",
    "degrees_of_freedom",
    "effective_sample_size",
    "entropy",
    "fisher_divergence",
    "gaussian_wasserstein",
    "kernel_alignment",
    "kl",
    "ksd",
    "log_normaliser",
    "mmd",
    "parameter_alignment",
    "propagation_of_chaos",
    "rhat",
    "sliced_wasserstein",
    "stein_identities",
    "tangent_kernel",
    "wasserstein",
]
