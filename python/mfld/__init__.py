"""Mean-field Langevin dynamics: optimisation over probability measures with interacting noisy particles."""

from mfld import noise
from mfld._core import __version__
from mfld.algorithms import MFLD, Result
from mfld.callbacks import Callback, Progress
from mfld.config import show_config
from mfld.errors import DivergenceError
from mfld.gradients import FullBatch, GradientEstimator, Minibatch
from mfld.losses import Loss, losses
from mfld.models import TwoLayerNetwork, activations, readouts
from mfld.objectives import EmpiricalRisk, Objective, Potential
from mfld.state import Cloud, Info, State

__all__ = [
    "MFLD",
    "Callback",
    "Cloud",
    "DivergenceError",
    "EmpiricalRisk",
    "FullBatch",
    "GradientEstimator",
    "Info",
    "Loss",
    "Minibatch",
    "Objective",
    "Potential",
    "Progress",
    "Result",
    "State",
    "TwoLayerNetwork",
    "__version__",
    "activations",
    "losses",
    "noise",
    "readouts",
    "show_config",
]
