"""Mean-field Langevin dynamics: optimisation over probability measures with interacting noisy particles."""

import importlib.util
from typing import TYPE_CHECKING, Any

from mfld._core import __version__
from mfld.losses import Loss, LossFunction, losses  # now: a module that is loaded later would take the function's name

if TYPE_CHECKING:
    from mfld import (
        certificates,
        checkpoint,
        control,
        deconvolution,
        diagnostics,
        diffusion,
        dynamics,
        features,
        functional_data,
        interactions,
        kernels,
        likelihoods,
        mixtures,
        mpi,
        noise,
        payoffs,
        pieces,
        posteriors,
        potentials,
        privacy,
        quantities,
        references,
        scaling,
        schedules,
        statistics,
        step_size,
        theory,
        thinning,
    )
    from mfld.algorithms import (
        MFLD,
        PDA,
        PSDCA,
        SVIS,
        Algorithm,
        AveragedGradient,
        BestResponse,
        Callback,
        Cooling,
        DescentAscent,
        FictitiousPlay,
        Result,
        StopOnPlateau,
        TopParticles,
        TwoPhase,
    )
    from mfld.bias import BiasReport, bias_report
    from mfld.callbacks import AverageDual, PrivacyBudget, Progress, StopWhen
    from mfld.certificates import Certificate, certificate
    from mfld.checkpoint import Checkpoint
    from mfld.clipping import Clipped
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
    from mfld.equilibria import EquilibriumGap, nikaido_isoda, three_point_error
    from mfld.errors import BlowUpError, ConvergenceError, DivergenceError
    from mfld.fokker_planck import FokkerPlanck
    from mfld.functional_data import FunctionalNetwork
    from mfld.gradients import SARAH, SVRG, FullBatch, GradientEstimator, Minibatch, PerParticleMinibatch, Smoothed
    from mfld.interactions import Exact, FourierFeatures, KernelThinning, RandomFeatures, RandomSubset
    from mfld.label_noise import LabelNoise
    from mfld.models import Model, NeuronModel, TwoLayerNetwork, activations, readouts
    from mfld.objectives import (
        KSD,
        MMD,
        Bilevel,
        Bilinear,
        Conditional,
        ControlProblem,
        EmpiricalRisk,
        Environment,
        EnvironmentGame,
        FeatureMatching,
        Functional,
        Game,
        GradientPenalty,
        Lifting,
        LogScore,
        MaxMargin,
        MeanFieldGAN,
        Objective,
        PairwiseGame,
        Potential,
        ResidualRisk,
        RobustRisk,
        SignedRisk,
        SinglePlayer,
        StreamRisk,
        Trajectory,
    )
    from mfld.pruning import prune
    from mfld.residual import ResidualNetwork
    from mfld.sampling import resample
    from mfld.signed_certificates import SignedCertificate, signed_certificate
    from mfld.signed_measures import SignedMeasure
    from mfld.space import Box, Euclidean, Space, Sphere, Torus
    from mfld.spikes import Deconvolution, deconvolve
    from mfld.state import Cloud, Info, State
    from mfld.sweeps import Sweep, sweep
    from mfld.warm_start import WarmStart

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
    "AveragedGradient",
    "BestResponse",
    "BiasReport",
    "Bilevel",
    "Bilinear",
    "BlowUpError",
    "Box",
    "Callback",
    "Certificate",
    "Checkpoint",
    "Clipped",
    "Cloud",
    "Conditional",
    "ContinuousTempering",
    "ControlProblem",
    "ConvergenceError",
    "Cooling",
    "Deconvolution",
    "DescentAscent",
    "DivergenceError",
    "Dynamics",
    "EmpiricalRisk",
    "Environment",
    "EnvironmentGame",
    "EquilibriumGap",
    "Euclidean",
    "Exact",
    "FeatureMatching",
    "FictitiousPlay",
    "FokkerPlanck",
    "FourierFeatures",
    "FullBatch",
    "Functional",
    "FunctionalNetwork",
    "Game",
    "General",
    "GradientEstimator",
    "GradientPenalty",
    "Info",
    "Irreversible",
    "KernelThinning",
    "LabelNoise",
    "Lifting",
    "LogScore",
    "Loss",
    "LossFunction",
    "MaxMargin",
    "MeanFieldGAN",
    "Minibatch",
    "Model",
    "NeuronModel",
    "Objective",
    "Overdamped",
    "PairwiseGame",
    "PerParticleMinibatch",
    "Potential",
    "Preconditioned",
    "PrivacyBudget",
    "Progress",
    "RandomFeatures",
    "RandomSubset",
    "ResidualNetwork",
    "ResidualRisk",
    "Result",
    "RobustRisk",
    "SignedCertificate",
    "SignedMeasure",
    "SignedRisk",
    "SinglePlayer",
    "Smoothed",
    "Space",
    "Sphere",
    "State",
    "StopOnPlateau",
    "StopWhen",
    "StreamRisk",
    "Sweep",
    "TopParticles",
    "Torus",
    "Trajectory",
    "TwoLayerNetwork",
    "TwoPhase",
    "Underdamped",
    "WarmStart",
    "__version__",
    "activations",
    "bias_report",
    "certificate",
    "certificates",
    "checkpoint",
    "control",
    "deconvolution",
    "deconvolve",
    "diagnostics",
    "diffusion",
    "dynamics",
    "features",
    "functional_data",
    "interactions",
    "kernels",
    "likelihoods",
    "losses",
    "mixtures",
    "mpi",
    "nikaido_isoda",
    "noise",
    "payoffs",
    "pieces",
    "posteriors",
    "potentials",
    "privacy",
    "prune",
    "quantities",
    "readouts",
    "references",
    "resample",
    "scaling",
    "schedules",
    "show_config",
    "signed_certificate",
    "statistics",
    "step_size",
    "sweep",
    "theory",
    "thinning",
    "three_point_error",
]

# Where names are that are loaded when they are first asked for: a program pays for what it uses.
_HOMES = {
    "algorithms": (
        "MFLD PDA PSDCA SVIS Algorithm AveragedGradient BestResponse Callback Cooling DescentAscent "
        "FictitiousPlay Result StopOnPlateau TopParticles TwoPhase"
    ),
    "bias": "BiasReport bias_report",
    "callbacks": "AverageDual PrivacyBudget Progress StopWhen",
    "certificates": "Certificate certificate",
    "checkpoint": "Checkpoint",
    "clipping": "Clipped",
    "config": "show_config",
    "dynamics": "MALA SVGD ContinuousTempering Dynamics General Irreversible Overdamped Preconditioned Underdamped",
    "equilibria": "EquilibriumGap nikaido_isoda three_point_error",
    "errors": "BlowUpError ConvergenceError DivergenceError",
    "fokker_planck": "FokkerPlanck",
    "functional_data": "FunctionalNetwork",
    "gradients": "SARAH SVRG FullBatch GradientEstimator Minibatch PerParticleMinibatch Smoothed",
    "interactions": "Exact FourierFeatures KernelThinning RandomFeatures RandomSubset",
    "label_noise": "LabelNoise",
    "models": "Model NeuronModel TwoLayerNetwork activations readouts",
    "objectives": (
        "KSD MMD Bilevel Bilinear Conditional ControlProblem EmpiricalRisk Environment EnvironmentGame "
        "FeatureMatching Functional Game GradientPenalty Lifting LogScore MaxMargin MeanFieldGAN Objective "
        "PairwiseGame Potential ResidualRisk RobustRisk SignedRisk SinglePlayer StreamRisk Trajectory"
    ),
    "pruning": "prune",
    "residual": "ResidualNetwork",
    "sampling": "resample",
    "signed_certificates": "SignedCertificate signed_certificate",
    "signed_measures": "SignedMeasure",
    "space": "Box Euclidean Space Sphere Torus",
    "spikes": "Deconvolution deconvolve",
    "state": "Cloud Info State",
    "sweeps": "Sweep sweep",
    "warm_start": "WarmStart",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:  # a checker knows the names from above

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            value = getattr(importlib.import_module(f"mfld.{_HOME[name]}"), name)
        elif not name.startswith("_") and importlib.util.find_spec(f"mfld.{name}") is not None:
            value = importlib.import_module(f"mfld.{name}")
        else:
            raise AttributeError(f"module 'mfld' has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
