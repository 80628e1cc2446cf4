"""Mean-field Langevin dynamics: optimisation over probability measures with interacting noisy particles."""

from mfld import checkpoint, dynamics, noise, quantities, replicates, schedules
from mfld._core import __version__
from mfld.algorithms import MFLD, PDA, Algorithm, Result
from mfld.callbacks import Callback, Progress, StopOnPlateau, StopWhen
from mfld.checkpoint import Checkpoint
from mfld.config import show_config
from mfld.dynamics import Dynamics, Overdamped
from mfld.errors import DivergenceError
from mfld.gradients import SARAH, SVRG, FullBatch, GradientEstimator, Minibatch
from mfld.losses import Loss, LossFunction, losses
from mfld.models import Model, NeuronModel, TwoLayerNetwork, activations, readouts
from mfld.objectives import EmpiricalRisk, Functional, Objective, Potential
from mfld.pruning import prune
from mfld.state import Cloud, Info, State

__all__ = [
    "MFLD",
    "PDA",
    "SARAH",
    "SVRG",
    "Algorithm",
    "Callback",
    "Checkpoint",
    "Cloud",
    "DivergenceError",
    "Dynamics",
    "EmpiricalRisk",
    "FullBatch",
    "Functional",
    "GradientEstimator",
    "Info",
    "Loss",
    "LossFunction",
    "Minibatch",
    "Model",
    "NeuronModel",
    "Objective",
    "Overdamped",
    "Potential",
    "Progress",
    "Result",
    "State",
    "StopOnPlateau",
    "StopWhen",
    "TwoLayerNetwork",
    "__version__",
    "activations",
    "checkpoint",
    "dynamics",
    "losses",
    "noise",
    "prune",
    "quantities",
    "readouts",
    "replicates",
    "schedules",
    "show_config",
]
