"""Kernels k(x, y) of pairs of points: values, and sums over a cloud of them and of what Stein's method makes of them.

A kernel is positive definite and symmetric. All functions of two sets of points broadcast: x and y of shapes (..., p)
give values of shape (...). Sums run over the points of the second cloud, with weights of sum 1 (1/n each by default)::

    sums(x, y)            sum_j w_j k(x_i, y_j)
    gradient_sums(x, y)   its gradient in x_i
    field(x, y, s)        sum_j w_j (k(x_i, y_j) s_j + repulsion grad_y k(x_i, y_j)), for a vector s_j at each y_j
    stein_sums(...)       sum_j w_j u(x_i, y_j) with the Stein kernel u of the vectors, and its gradient

where ``u(x, y) = s_x.s_y k + s_x.grad_y k + s_y.grad_x k + trace grad_x grad_y k``. The kernels of this module, their
multiples and their sums are summed in the compiled core; others in NumPy, a block of points at a time. Either way the
memory is that of the clouds, and a result does not depend on the number of threads.
"""

from mfld.kernels.base import Kernel
from mfld.kernels.blocks import Product
from mfld.kernels.pairwise import Statistics, SteinSums, SteinTerms
from mfld.kernels.periodic import Dirichlet, WrappedGaussian
from mfld.kernels.radial import (
    Energy,
    Gaussian,
    InverseMultiquadric,
    Laplace,
    Matern32,
    Matern52,
    Radial,
    median_distance,
)

__all__ = [
    "Dirichlet",
    "Energy",
    "Gaussian",
    "InverseMultiquadric",
    "Kernel",
    "Laplace",
    "Matern32",
    "Matern52",
    "Product",
    "Radial",
    "Statistics",
    "SteinSums",
    "SteinTerms",
    "WrappedGaussian",
    "median_distance",
]
