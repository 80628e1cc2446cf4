"""Mean-field Langevin dynamics: optimisation over probability measures with interacting noisy particles."""

from mfld import (
    certificates,
    checkpoint,
    diagnostics,
    dynamics,
    functional_data,
    kernels,
    likelihoods,
    mixtures,
    noise,
    posteriors,
    potentials,
    quantities,
    references,
    schedules,
    statistics,
    step_size,
    theory,
)
from mfld._core import __version__
from mfld.algorithms import MFLD, PDA, PSDCA, Algorithm, Callback, Result, StopOnPlateau, TopParticles, TwoPhase
from mfld.bias import BiasReport, bias_report
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
from mfld.fokker_planck import FokkerPlanck
from mfld.functional_data import FunctionalNetwork
from mfld.gradients import SARAH, SVRG, FullBatch, GradientEstimator, Minibatch, PerParticleMinibatch, Smoothed
from mfld.losses import Loss, LossFunction, losses
from mfld.models import Model, NeuronModel, TwoLayerNetwork, activations, readouts
from mfld.objectives import KSD, MMD, EmpiricalRisk, Functional, Game, LogScore, Objective, Potential, StreamRisk
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
    "SVRG",
    "Algorithm",
    "AverageDual",
    "BiasReport",
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
    "FokkerPlanck",
    "FullBatch",
    "Functional",
    "FunctionalNetwork",
    "Game",
    "General",
    "GradientEstimator",
    "Info",
    "Irreversible",
    "LogScore",
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
    "bias_report",
    "certificate",
    "certificates",
    "checkpoint",
    "diagnostics",
    "dynamics",
    "functional_data",
    "kernels",
    "likelihoods",
    "losses",
    "mixtures",
    "noise",
    "posteriors",
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
    "theory",
]
