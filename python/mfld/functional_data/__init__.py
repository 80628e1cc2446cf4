"""Inputs that are functions: curves, spectra, profiles, and whatever else a kernel compares.

A neuron is ``h(x) = r act(<w, x> + b)`` with w and x in a Hilbert space H, and the regulariser the relative entropy to
a Gaussian reference ``N(0, Sigma)`` of the weights, with a covariance of finite trace. In its modes, ``Sigma phi_j =
s_j phi_j``, and with ``w = sum_j sqrt(s_j) u_j phi_j`` the reference of u is ``N(0, I)`` and the inner product ::

    <w, x> = sum_j u_j z_j,      z_j = sqrt(s_j) <phi_j, x>

so that a `FunctionalNetwork` is a two-layer network on the inputs z, of which the first K are kept; all that the
library does with networks it does with this one. Source: Nishikawa, Suzuki, Nitanda, Wu 2022, "Two-layer neural network
on infinite dimensional data: global optimization guarantee in the mean-field regime".

`Grid` is where curves are known and how they are integrated, `PowerLaw`, `RBF`, `Matern` and `Given` are covariances,
`Fourier`, `BSplines`, `PrincipalComponents` and `KernelComponents` the modes of a `PowerLaw`.
"""

from mfld.functional_data.bases import Basis, BSplines, Fourier, KernelComponents, PrincipalComponents
from mfld.functional_data.covariances import RBF, Covariance, Given, Matern, PowerLaw
from mfld.functional_data.dynamics import SemiImplicit
from mfld.functional_data.grids import Grid, derivative, interpolate
from mfld.functional_data.modes import Modes
from mfld.functional_data.network import FunctionalNetwork

__all__ = [
    "RBF",
    "BSplines",
    "Basis",
    "Covariance",
    "Fourier",
    "FunctionalNetwork",
    "Given",
    "Grid",
    "KernelComponents",
    "Matern",
    "Modes",
    "PowerLaw",
    "PrincipalComponents",
    "SemiImplicit",
    "derivative",
    "interpolate",
]
