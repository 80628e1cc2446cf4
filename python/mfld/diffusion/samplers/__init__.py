"""Samplers: ways back from noise to data, each in steps that are affine in the points, predictions and noise."""

from mfld.diffusion.samplers.base import Leg, Sampler, walk
from mfld.diffusion.samplers.flow import DPMSolver, Flow
from mfld.diffusion.samplers.multistep import PNDM, DPMSolverPlusPlus, LinearMultistep, PredictorCorrector
from mfld.diffusion.samplers.stochastic import DDIM, Ancestral, EulerMaruyama, ExponentialSDE

__all__ = [
    "DDIM",
    "PNDM",
    "Ancestral",
    "DPMSolver",
    "DPMSolverPlusPlus",
    "EulerMaruyama",
    "ExponentialSDE",
    "Flow",
    "Leg",
    "LinearMultistep",
    "PredictorCorrector",
    "Sampler",
    "walk",
]
