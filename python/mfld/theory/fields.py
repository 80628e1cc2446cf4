"""Information Gamma calculus where the matrices depend on the point, as those of `General` may.

Along the law p of ``dX = -(D + Q) grad H dt + T div(D + Q) dt + sqrt(2 T D) dB``, with the metric P and
``g = grad log(p / rho)``, W its Hessian, the Fisher information obeys::

    d/dt integral p g' P g = - integral p B(W, g),      B = 2 T tr(D W P W) + 2 T <W, N g> + g' K g

With ``A = D - Q``, the drift ``c = -A grad H + T div A`` of ``p / rho`` and the symmetric part C of the tensor
``P_kl d_l D_ij - D_kl d_l P_ij``, which is 0 for P = D, and for constants, ::

    <W, N g>  =  2 D_ax d_x P_bs W_ab g_s - P_sl d_l D_ab W_ab g_s + 2 C_abs W_ab g_s
    K_ij      =  T D_ab d_a d_b P_ij + c_a d_a P_ij - 2 P_il d_l c_j + 2 T d_k C_kij - 2 C_kij d_k H

The criterion is the smallest B over all W, which do not depend on g at a point: ``2 kappa g' P g`` at least. It is the
same in all coordinates of space; for P = D and Q = 0 it is that of Bakry and Emery on the Riemannian manifold of D.
Sources: those of `gamma`; Feng, Li 2021 for the terms of P and D.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Matrix: TypeAlias = NDArray[Any]
Field: TypeAlias = Callable[[Matrix], Matrix]
Metric: TypeAlias = Field | Matrix | None  # None: D

_WIDTH = (
    float(np.finfo(np.float64).eps) ** 0.25
)  # of second differences: truncation h**2 against rounding eps |x| / h**2
_BLOCK = 4_000_000  # numbers in the largest array of a block of points
_DEGENERATE = 1e-12  # an eigenvalue of the diffusion in the metric, against the largest, that is 0
_OUTSIDE = 1e-6  # a term, against the largest, that a degenerate diffusion does not dominate


class Jet(NamedTuple):
    """Matrices at points, shape (M, ..., m, m), and their derivatives, by one and two axes behind M."""

    value: Matrix
    first: Matrix
    second: Matrix


def jet(field: Field, points: Matrix, m: int) -> Jet:
    """Central differences in the moving coordinates."""
    value = field(points)
    ones = (1,) * (value.ndim - 1)
    first = np.empty((len(points), m, *value.shape[1:]))
    second = np.empty((len(points), m, m, *value.shape[1:]))
    width = _WIDTH * np.maximum(1.0, np.abs(points[:, :m])) ** 0.25
    width = (points[:, :m] + width) - points[:, :m]  # exact in floating point

    def moved(*signs: tuple[int, int]) -> Matrix:
        at = points.copy()
        for j, sign in signs:
            at[:, j] += sign * width[:, j]
        return field(at)

    for j in range(m):
        h = width[:, j].reshape(-1, *ones)
        above, below = moved((j, 1)), moved((j, -1))
        first[:, j] = (above - below) / (2 * h)
        second[:, j, j] = (above - 2 * value + below) / h**2
        for k in range(j):
            crossed = moved((j, 1), (k, 1)) - moved((j, 1), (k, -1)) - moved((j, -1), (k, 1)) + moved((j, -1), (k, -1))
            second[:, j, k] = second[:, k, j] = crossed / (4 * h * width[:, k].reshape(-1, *ones))
    return Jet(value, first, second)


def smallest(
    matrices: Field,
    metrics: Sequence[Field | Matrix | None],
    slopes: Matrix,
    hessians: Matrix,
    points: Matrix,
    t: float,
) -> list[Matrix]:
    """Smallest generalised eigenvalues at the points, in each of some metrics (None: D); t is the temperature.

    The matrices are those of D and Q, shape (M, 2, m, m).
    """
    m = slopes.shape[1]
    found = []
    for part in np.array_split(np.arange(len(points)), max(1, -(-len(points) * m**4 // _BLOCK))):
        both = jet(matrices, points[part], m)
        d, q = (Jet(both.value[:, i], both.first[:, :, i], both.second[:, :, :, i]) for i in (0, 1))
        each = [_jet_of(metric, d, points[part]) for metric in metrics]
        found.append([_smallest(d, q, p, slopes[part], hessians[part], t) for p in each])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _jet_of(metric: Metric, d: Jet, points: Matrix) -> Jet:
    if metric is None:
        return d
    if callable(metric):
        return jet(metric, points, d.value.shape[1])
    return Jet(np.broadcast_to(metric, d.value.shape), np.zeros_like(d.first), np.zeros_like(d.second))


def _smallest(d: Jet, q: Jet, p: Jet, slopes: Matrix, hessians: Matrix, t: float) -> Matrix:
    crossing, crossing_divergence = _commutator(p, d)
    a = Jet(d.value - q.value, d.first - q.first, d.second - q.second)
    drift = -_sum("nab,nb->na", a.value, slopes) + t * _sum("nbab->na", a.first)
    slope = -_sum("nlab,nb->nal", a.first, slopes) - a.value @ hessians + t * _sum("nlbab->nal", a.second)
    k = t * _sum("nab,nabij->nij", d.value, p.second) + _sum("na,naij->nij", drift, p.first)
    k -= 2 * p.value @ np.swapaxes(slope, 1, 2)
    k += 2 * t * crossing_divergence - 2 * _sum("nkij,nk->nij", crossing, slopes)
    mixed = _sum("nax,nxbs->nabs", d.value, p.first)
    n = mixed + np.swapaxes(mixed, 1, 2) - _sum("nsl,nlab->nabs", p.value, d.first) + 2 * crossing

    # The smallest over W, at D W P + P W D = -N g: in the eigenvectors of D in the metric, entry by entry.
    values, vectors = np.linalg.eigh(p.value)
    root = (vectors / np.sqrt(values)[:, np.newaxis, :]) @ np.swapaxes(vectors, 1, 2)
    sizes, basis = np.linalg.eigh(root @ d.value @ root)
    basis = root @ basis
    n = _sum("nai,nbj,nabs->nijs", basis, basis, n)
    sums = np.maximum(sizes, 0)[:, :, np.newaxis] + np.maximum(sizes, 0)[:, np.newaxis, :]
    open_ = sums <= _DEGENERATE * sizes[:, -1, np.newaxis, np.newaxis]
    bound = _OUTSIDE * (np.abs(n).max(axis=(1, 2, 3)) + np.abs(sizes).max(axis=1))
    unbounded = (np.abs(n).max(axis=3) * open_).max(axis=(1, 2)) > bound
    k -= t * _sum("nijs,nij,nijt->nst", n, np.where(open_, 0, 1 / np.where(open_, 1, sums)), n)
    symmetric = root @ ((k + np.swapaxes(k, 1, 2)) / 2) @ root
    eigenvalues = np.linalg.eigvalsh(symmetric)[:, 0] / 2
    return np.where(unbounded, -np.inf, eigenvalues)


def _commutator(p: Jet, d: Jet) -> tuple[Matrix, Matrix]:
    """The tensor C, shape (M, m, m, m), and its divergence."""

    def halves(one: Jet, other: Jet) -> tuple[Matrix, Matrix, Matrix]:
        product = _sum("nkl,nlij->nkij", one.value, other.first)
        first = _sum("nkkl,nlij->nij", one.first, other.first) + _sum("nkl,nklij->nij", one.value, other.second)
        last = _sum("nkil,nljk->nij", one.first, other.first) + _sum("nil,nkljk->nij", one.value, other.second)
        return product, first, last

    tensor, first, last = (one - other for one, other in zip(halves(p, d), halves(d, p), strict=True))
    tensor = (tensor + np.transpose(tensor, (0, 2, 3, 1)) + np.transpose(tensor, (0, 3, 1, 2))) / 3
    return tensor, (first + last + np.swapaxes(last, 1, 2)) / 3


def _sum(subscripts: str, *operands: Matrix) -> Matrix:
    total: Matrix = np.einsum(subscripts, *operands, optimize=True)
    return total
