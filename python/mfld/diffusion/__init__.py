"""Diffusion models: forward processes, scores, samplers and time grids."""

from mfld.diffusion import experiments, grids
from mfld.diffusion.fitting import DiffusionModel, fit
from mfld.diffusion.forward import Forward, OrnsteinUhlenbeck, Steps, VarianceExploding, VariancePreserving
from mfld.diffusion.grids import times
from mfld.diffusion.guidance import ClassifierFree, ClassifierGuided
from mfld.diffusion.latent import Coders, Latent, PrincipalAxes, Standardised
from mfld.diffusion.likelihood import log_likelihood
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
from mfld.diffusion.training import Denoising, MeanFieldScore, random_waves

__all__ = [
    "DDIM",
    "PNDM",
    "Ancestral",
    "ClassifierFree",
    "ClassifierGuided",
    "Coders",
    "DPMSolver",
    "DPMSolverPlusPlus",
    "Denoising",
    "DiffusionModel",
    "EmpiricalScore",
    "EulerMaruyama",
    "ExactScore",
    "ExponentialSDE",
    "Flow",
    "Forward",
    "FunctionScore",
    "Latent",
    "Leg",
    "LinearMultistep",
    "MeanFieldScore",
    "OrnsteinUhlenbeck",
    "PredictorCorrector",
    "PrincipalAxes",
    "Sampler",
    "Score",
    "Standardised",
    "Steps",
    "VarianceExploding",
    "VariancePreserving",
    "experiments",
    "fit",
    "grids",
    "log_likelihood",
    "random_waves",
    "sample",
    "times",
]
