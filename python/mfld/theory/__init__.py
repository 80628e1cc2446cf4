"""Theory: constants, rates and plans that it promises for a problem, beside what a run does."""

from mfld.theory.curves import Bound, continuous, discrete
from mfld.theory.gamma import Contraction, contraction, fisher
from mfld.theory.lsi import Argument, LogSobolev, log_sobolev
from mfld.theory.planner import Observed, Plan, observe, plan
from mfld.theory.rates import Rate, fit_rate
from mfld.theory.sandwich import Sandwich, sandwich

__all__ = [
    "Argument",
    "Bound",
    "Contraction",
    "LogSobolev",
    "Observed",
    "Plan",
    "Rate",
    "Sandwich",
    "continuous",
    "contraction",
    "discrete",
    "fisher",
    "fit_rate",
    "log_sobolev",
    "observe",
    "plan",
    "sandwich",
]
