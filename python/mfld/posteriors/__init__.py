"""Posteriors: potentials made of likelihoods and priors, and their sampling by several methods in one table.

A posterior is a `mfld.Potential` whose Gibbs law at temperature 1 it is. Those with closed forms to compare with are
`mfld.potentials.BayesianLinearRegression` and `mfld.potentials.BayesianLogisticRegression`; `Posterior` makes one of
any likelihood, `EightSchools` is a hierarchical model, and a log-density of one's own is a `mfld.Potential`.
"""

from mfld.posteriors.comparison import Comparison, Draws, Row, methods, sample
from mfld.posteriors.models import EightSchools, Posterior

__all__ = ["Comparison", "Draws", "EightSchools", "Posterior", "Row", "methods", "sample"]
