"""Diffusion models: forward processes, scores, samplers and time grids."""

from mfld.diffusion import grids
from mfld.diffusion.forward import Forward, OrnsteinUhlenbeck, Steps, VarianceExploding, VariancePreserving
from mfld.diffusion.grids import times
from mfld.diffusion.samplers import (
    DDIM,
    PNDM,
    Ancestral,
    DPMSolver,
    DPMSolverPlusPlus,
    EulerMaruyama,
    ExponentialSDE,
    Flow,
    Leg,
    LinearMultistep,
    PredictorCorrector,
    Sampler,
)
from mfld.diffusion.sampling import SAMPLERS as SAMPLERS
from mfld.diffusion.sampling import sample
from mfld.diffusion.scores import EmpiricalScore, ExactScore, FunctionScore, Score

__all__ = [
    "DDIM",
    "PNDM",
    "Ancestral",
    "DPMSolver",
    "DPMSolverPlusPlus",
    "EmpiricalScore",
    "EulerMaruyama",
    "ExactScore",
    "ExponentialSDE",
    "Flow",
    "Forward",
    "FunctionScore",
    "Leg",
    "LinearMultistep",
    "OrnsteinUhlenbeck",
    "PredictorCorrector",
    "Sampler",
    "Score",
    "Steps",
    "VarianceExploding",
    "VariancePreserving",
    "grids",
    "sample",
    "times",
]
