"""Fewer particles for nearly the same predictions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import linear, validation
from mfld.floating import underflow_is_zero
from mfld.models import Model
from mfld.state import Cloud
from mfld.validation import FloatArray

_NUMBERS_AT_A_TIME = 2**22


@underflow_is_zero
def prune(
    model: Model, cloud: Cloud, inputs: ArrayLike, n_particles: int, num_threads: int | None = None
) -> tuple[Cloud, float]:
    """Choose a few particles of a cloud and weigh them, so that the predictions at some inputs change little.

    Greedily, the particle along which the squared error of the predictions falls fastest is added, and then all
    weights are fitted anew::

        minimise  sum_ik (sum_{m in S} c_m h_k(theta_m, z_i) - f_k(z_i))**2    over c >= 0

    (the active set method of Lawson, Hanson 1974, "Solving Least Squares Problems", chapter 23, ended early), with a
    further row that keeps the sum of the weights near 1. In exact arithmetic at most as many particles are needed as
    there are inputs times outputs, and 1.

    Parameters
    ----------
    model : Model
    cloud : Cloud
        Particles of shape (N, p), weighted or not.
    inputs : array_like, shape (n, n_features)
        Where the predictions are to stay: the training inputs, say.
    n_particles : int
        How many to keep at most.
    num_threads : int, optional
        As in `Model.predict`.

    Returns
    -------
    Cloud
        Particles of the given one, in their order, with weights.
    float
        ``max_ik |f_k(z_i) - pruned f_k(z_i)|``, as measured in the precision of the particles.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or the arrays do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> model = mfld.TwoLayerNetwork(n_features=1)
    >>> cloud = mfld.Cloud(model.initial_particles(1000, 0, dtype="float64"))
    >>> inputs = np.linspace(-1, 1, 50)[:, np.newaxis]
    >>> pruned, error = mfld.prune(model, cloud, inputs, n_particles=20)
    >>> len(pruned.particles) <= 20, error < 1e-4
    (True, True)
    """
    validation.instance("model", model, Model, "a Model, like a TwoLayerNetwork")
    validation.instance("cloud", cloud, Cloud, "a Cloud")
    validation.shape("cloud.particles", cloud.particles, ("N", model.n_coordinates), "(number, coordinates)")
    points = validation.array("inputs", inputs, cloud.particles.dtype)
    validation.shape("inputs", points, ("n", model.n_features), "(number, n_features of the model)")
    n_particles = validation.integer("n_particles", n_particles, 1)
    n = len(cloud.particles)
    if n_particles >= n:
        return cloud, 0.0
    weights = np.full(n, 1 / n) if cloud.weights is None else cloud.weights.astype(np.float64)

    neurons = _Neurons(model, cloud, points, num_threads)
    fitted = _greedy(neurons, weights, n_particles)
    kept = np.flatnonzero(fitted)
    pruned = Cloud(cloud.particles[kept], fitted[kept] / fitted.sum())
    after, before = (model.predict(each.particles, points, each.weights, num_threads) for each in (pruned, cloud))
    change = after - before
    return pruned, float(np.max(np.abs(change)))


class _Neurons:
    """Gram matrix of the neurons over the inputs, a column at a time: as a whole it would be N x N.

    A further row of ones, with the mean square of the neurons as its weight, keeps the sum of the coefficients.
    """

    def __init__(self, model: Model, cloud: Cloud, points: FloatArray, num_threads: int | None) -> None:
        self._model, self._particles, self._points, self._num_threads = model, cloud.particles, points, num_threads
        n = len(cloud.particles)
        self._rows = max(1, _NUMBERS_AT_A_TIME // (n * model.n_outputs))
        self.diagonal = np.zeros(n)
        for block in self._blocks():
            self.diagonal += np.sum(block**2, axis=0)
        self._ones = float(self.diagonal.sum()) / n
        self.diagonal += self._ones

    def _blocks(self) -> Iterator[NDArray[np.float64]]:
        """Neurons at some rows and outputs, shape (rows, N)."""
        for start in range(0, len(self._points), self._rows):
            rows = self._points[start : start + self._rows]
            block = self._model.neurons(self._particles, rows, self._num_threads).astype(np.float64)
            yield np.moveaxis(block, 1, -1).reshape(-1, len(self._particles))

    def times(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """The matrix times a vector."""
        total = np.full(len(coefficients), self._ones * float(coefficients.sum()))
        for block in self._blocks():  # sums and not a product of BLAS, whose bits may depend on threads
            total += np.einsum("rm,r->m", block, np.einsum("rm,m->r", block, coefficients))
        return total

    def column(self, particle: int) -> NDArray[np.float64]:
        """One column of the matrix."""
        total = np.full(len(self._particles), self._ones)
        for block in self._blocks():
            total += np.einsum("rm,r->m", block, block[:, particle])
        return total


class _Triangle:
    """Cholesky factor L of a matrix that grows and shrinks by a row and column, in the sums of `mfld.linear`."""

    def __init__(self, most: int) -> None:
        self._factor = np.zeros((most, most))
        self._size = 0

    def append(self, row: NDArray[np.float64]) -> None:
        """Add a last row, up to its diagonal."""
        n = self._size
        solved = linear.forwards(self._factor[:n, :n], row[:n])
        # Equal neurons leave nothing but rounding, of either sign.
        pivot = max(float(row[n] - np.sum(solved**2)), 1e-13 * float(row[n]))
        self._factor[n, :n], self._factor[n, n] = solved, np.sqrt(pivot)
        self._size += 1

    def remove(self, place: int) -> None:
        """Leave out a row and its column: what stood in the column goes into the triangle below, as a rank-1 update."""
        n, factor = self._size, self._factor
        rest = factor[place + 1 : n, place].copy()
        factor[place : n - 1, :place] = factor[place + 1 : n, :place].copy()
        factor[place : n - 1, place : n - 1] = factor[place + 1 : n, place + 1 : n].copy()
        self._size = n - 1
        below = factor[place : n - 1, place : n - 1]
        for j in range(len(rest)):
            length = np.sqrt(below[j, j] ** 2 + rest[j] ** 2)
            cosine, sine = below[j, j] / length, rest[j] / length
            column = below[j + 1 :, j].copy()
            below[j, j] = length
            below[j + 1 :, j] = cosine * column + sine * rest[j + 1 :]
            rest[j + 1 :] = cosine * rest[j + 1 :] - sine * column

    def solve(self, right: NDArray[np.float64]) -> FloatArray:
        """Solution x of ``L L' x = right``."""
        return linear.solve(self._factor[: self._size, : self._size], right)


def _greedy(neurons: _Neurons, target: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Non-negative c with at most so many entries: a minimum of ``(c - target)' gram (c - target)`` on its support."""
    aim = neurons.times(target)
    fitted = np.zeros(len(target))
    support: list[int] = []
    columns: dict[int, NDArray[np.float64]] = {}
    triangle = _Triangle(size)
    # Below this there is nothing to gain. A particle that left the support may come back, hence the bound on the loop.
    least = 1e-10 * np.sqrt(neurons.diagonal.max() * max(float(np.sum(target * aim)), 0.0))
    for _ in range(3 * size):
        slope = aim - sum((fitted[m] * columns[m] for m in support), np.zeros(len(target)))
        slope[support] = -np.inf
        best = int(np.argmax(slope))
        if len(support) == size or slope[best] <= least:
            break
        support.append(best)
        columns[best] = neurons.column(best)
        row = columns[best][support]
        row[-1] *= 1 + 1e-13  # neurons may be equal
        triangle.append(row)
        while support:
            solution = triangle.solve(aim[support])
            if (solution > 0).all():
                fitted[support] = solution
                break
            # As far towards the solution as all stay at least 0; what gets there first leaves.
            current = fitted[support]
            room = np.where(solution > 0, np.inf, current / np.maximum(current - solution, np.finfo(float).tiny))
            first = int(np.argmin(room))
            fitted[support] = np.maximum(current + room[first] * (solution - current), 0.0)
            left = support.pop(first)
            triangle.remove(first)
            fitted[left] = 0.0
            del columns[left]
    return fitted
