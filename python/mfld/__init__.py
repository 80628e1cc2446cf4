"""Mean-field Langevin dynamics: optimisation over probability measures with interacting noisy particles."""

from mfld import (
    certificates,
    checkpoint,
    deconvolution,
    dynamics,
    noise,
    potentials,
    quantities,
    references,
    schedules,
    statistics,
    step_size,
)
from mfld._core import __version__
from mfld.algorithms import (
    MFLD,
    PDA,
    PSDCA,
    Algorithm,
    Callback,
    Cooling,
    Result,
    StopOnPlateau,
    TopParticles,
    TwoPhase,
)
from mfld.callbacks import AverageDual, Progress, StopWhen
from mfld.certificates import Certificate, certificate
from mfld.checkpoint import Checkpoint
from mfld.config import show_config
from mfld.dynamics import (
    MALA,
    ContinuousTempering,
    Dynamics,
    General,
    Irreversible,
    Overdamped,
    Preconditioned,
    Underdamped,
)
from mfld.errors import ConvergenceError, DivergenceError
from mfld.gradients import SARAH, SVRG, FullBatch, GradientEstimator, Minibatch, PerParticleMinibatch, Smoothed
from mfld.label_noise import LabelNoise
from mfld.losses import Loss, LossFunction, losses
from mfld.models import Model, NeuronModel, TwoLayerNetwork, activations, readouts
from mfld.objectives import (
    Bilevel,
    EmpiricalRisk,
    Functional,
    Game,
    Lifting,
    Objective,
    Potential,
    SignedRisk,
    StreamRisk,
)
from mfld.pruning import prune
from mfld.sampling import resample
from mfld.signed_certificates import SignedCertificate, signed_certificate
from mfld.signed_measures import SignedMeasure
from mfld.space import Box, Euclidean, Space, Sphere, Torus
from mfld.spikes import Deconvolution, deconvolve
from mfld.state import Cloud, Info, State

__all__ = [
    "MALA",
    "MFLD",
    "PDA",
    "PSDCA",
    "SARAH",
    "SVRG",
    "Algorithm",
    "AverageDual",
    "Bilevel",
    "Box",
    "Callback",
    "Certificate",
    "Checkpoint",
    "Cloud",
    "ContinuousTempering",
    "ConvergenceError",
    "Cooling",
    "Deconvolution",
    "DivergenceError",
    "Dynamics",
    "EmpiricalRisk",
    "Euclidean",
    "FullBatch",
    "Functional",
    "Game",
    "General",
    "GradientEstimator",
    "Info",
    "Irreversible",
    "LabelNoise",
    "Lifting",
    "Loss",
    "LossFunction",
    "Minibatch",
    "Model",
    "NeuronModel",
    "Objective",
    "Overdamped",
    "PerParticleMinibatch",
    "Potential",
    "Preconditioned",
    "Progress",
    "Result",
    "SignedCertificate",
    "SignedMeasure",
    "SignedRisk",
    "Smoothed",
    "Space",
    "Sphere",
    "State",
    "StopOnPlateau",
    "StopWhen",
    "StreamRisk",
    "TopParticles",
    "Torus",
    "TwoLayerNetwork",
    "TwoPhase",
    "Underdamped",
    "__version__",
    "activations",
    "certificate",
    "certificates",
    "checkpoint",
    "deconvolution",
    "deconvolve",
    "dynamics",
    "losses",
    "noise",
    "potentials",
    "prune",
    "quantities",
    "readouts",
    "references",
    "resample",
    "schedules",
    "show_config",
    "signed_certificate",
    "statistics",
    "step_size",
]
