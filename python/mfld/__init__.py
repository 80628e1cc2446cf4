"""Mean-field Langevin dynamics: optimisation over probability measures with interacting noisy particles."""

from mfld import (
    certificates,
    checkpoint,
    dynamics,
    interactions,
    kernels,
    mixtures,
    noise,
    potentials,
    quantities,
    references,
    schedules,
    statistics,
    step_size,
    thinning,
)
from mfld._core import __version__
from mfld.algorithms import MFLD, PDA, PSDCA, SVIS, Algorithm, Callback, Result, StopOnPlateau, TopParticles, TwoPhase
from mfld.callbacks import AverageDual, Progress, StopWhen
from mfld.certificates import Certificate, certificate
from mfld.checkpoint import Checkpoint
from mfld.config import show_config
from mfld.dynamics import (
    MALA,
    SVGD,
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
from mfld.interactions import Exact, FourierFeatures, KernelThinning, RandomFeatures, RandomSubset
from mfld.losses import Loss, LossFunction, losses
from mfld.models import Model, NeuronModel, TwoLayerNetwork, activations, readouts
from mfld.objectives import KSD, MMD, EmpiricalRisk, Functional, Game, Objective, Potential, StreamRisk
from mfld.pruning import prune
from mfld.sampling import resample
from mfld.space import Box, Euclidean, Space, Sphere, Torus
from mfld.state import Cloud, Info, State

__all__ = [
    "KSD",
    "MALA",
    "MFLD",
    "MMD",
    "PDA",
    "PSDCA",
    "SARAH",
    "SVGD",
    "SVIS",
    "SVRG",
    "Algorithm",
    "AverageDual",
    "Box",
    "Callback",
    "Certificate",
    "Checkpoint",
    "Cloud",
    "ContinuousTempering",
    "ConvergenceError",
    "DivergenceError",
    "Dynamics",
    "EmpiricalRisk",
    "Euclidean",
    "Exact",
    "FourierFeatures",
    "FullBatch",
    "Functional",
    "Game",
    "General",
    "GradientEstimator",
    "Info",
    "Irreversible",
    "KernelThinning",
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
    "RandomFeatures",
    "RandomSubset",
    "Result",
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
    "dynamics",
    "interactions",
    "kernels",
    "losses",
    "mixtures",
    "noise",
    "potentials",
    "prune",
    "quantities",
    "readouts",
    "references",
    "resample",
    "schedules",
    "show_config",
    "statistics",
    "step_size",
    "thinning",
]
