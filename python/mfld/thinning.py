"""Kernel thinning: few points that stand for many.

A *coreset* of M of N points is chosen such that ``|mean k(x, .) - mean over all|``, the maximum mean discrepancy of a
kernel k, is of order 1/M up to logarithms, where M independent draws have 1/sqrt(M): about sqrt(N) points of N cost no
more accuracy than the N points, as draws, have. Sizes are those of halvings: N / 2**g, rounded down.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import _core, noise, validation
from mfld.kernels import Gaussian, Kernel, core
from mfld.noise import Place
from mfld.validation import FloatArray

_COMPRESSED_FROM = 4096  # points from which on sets are compressed first
_LARGEST_SET = 256  # from which compression starts: the larger the better, and the slower
_SWEEPS = 2  # of exchanges: the second still gains a tenth


def thin(
    points: ArrayLike,
    size: int | None = None,
    kernel: Kernel | None = None,
    *,
    seed: Place | int = 0,
    num_threads: int | None = None,
) -> NDArray[np.int64]:
    """Rows of a coreset of the points.

    Up to 4096 points are split by halvings into parts of the size that is wanted, of which the best is refined by
    exchanges with the other points; none makes it worse. It takes about ``3 N**2`` values of the kernel. More points
    are compressed first, in sets that are joined by four and halved: about ``400 N log(N)`` values. Then some rows,
    fewer than one in 64, take no part, drawn at random so that sizes are even. Source: Dwivedi, Mackey 2021, "Kernel
    thinning"; Shetty, Dwivedi, Mackey 2022, "Distribution compression in near-linear time".

    Parameters
    ----------
    points : array_like, shape (N, p)
    size : int, optional
        M, up to a factor sqrt(2): that of the nearest number of halvings. Default: sqrt(N).
    kernel : Kernel, optional
        One that the core knows: of `mfld.kernels`, but for products, sums and multiples. Default: a Gaussian with the
        median distance of the points.
    seed : int or Place
    num_threads : int, optional
        It never changes the rows.

    Returns
    -------
    ndarray of int64, shape (M,)
        Distinct.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or the points have no median distance.

    Examples
    --------
    >>> import mfld
    >>> from mfld import noise
    >>> points = noise.normals(0, 0, 4096, 2, stream="data")
    >>> rows = mfld.thinning.thin(points)
    >>> len(rows), bool(abs(points[rows].mean(axis=0) - points.mean(axis=0)).max() < 0.05)
    (64, True)
    """
    x, native, place, threads = _checked(points, kernel, seed, num_threads)
    n = len(x)
    wanted = math.sqrt(n) if size is None else validation.integer("size", size, 1, n)
    halvings = round(math.log2(n / wanted))
    levels = 0
    while n >= _COMPRESSED_FROM and levels < halvings and n >> 2 * levels > _LARGEST_SET:
        levels += 1
    halvings = min(halvings, n.bit_length() - 1)  # each part has a point
    even = (n >> halvings + levels << halvings + levels) if levels else n
    rows = np.arange(n)
    if even < n:
        rows = np.delete(rows, place.batch(n, n - even))
    of_place = place.key, place.step, place.population, threads
    if levels:
        rows = _core.backend.thinning_compress(native, x, rows, levels, *of_place)
    rows, ends = _core.backend.thinning_split(native, x, rows, halvings - levels, levels, *of_place)
    return _core.backend.thinning_refine(native, x, rows, ends, _SWEEPS, threads)


def split(
    points: ArrayLike,
    halvings: int,
    kernel: Kernel | None = None,
    *,
    seed: Place | int = 0,
    num_threads: int | None = None,
) -> list[NDArray[np.int64]]:
    """Rows of the points in ``2**halvings`` parts, each close to all: disjoint, and together all rows.

    It takes about ``N**2`` values of the kernel.

    Parameters
    ----------
    points, kernel, seed, num_threads
        As in `thin`.
    halvings : int
        At least 0; each part has at least one point.

    Returns
    -------
    list of ndarray of int64
        Their lengths differ by at most 1.

    Raises
    ------
    TypeError, ValueError
        As in `thin`.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> parts = mfld.thinning.split(np.linspace(0, 1, 10)[:, np.newaxis], halvings=1)
    >>> sorted(np.concatenate(parts)) == list(range(10))
    True
    """
    x, native, place, threads = _checked(points, kernel, seed, num_threads)
    halvings = validation.integer("halvings", halvings, 0, len(x).bit_length() - 1)
    of_place = place.key, place.step, place.population, threads
    rows, ends = _core.backend.thinning_split(native, x, np.arange(len(x)), halvings, 0, *of_place)
    return np.split(rows, ends[:-1])


def in_core(kernel: Kernel, n_coordinates: int) -> _core.PairKernel | None:
    """A kernel as the core takes it, up to a factor; None where the core does not know it."""
    found = core.in_core(kernel, n_coordinates)
    return None if found is None else found.kernel


def _checked(
    points: ArrayLike, kernel: Kernel | None, seed: Place | int, num_threads: int | None
) -> tuple[FloatArray, _core.PairKernel, Place, int]:
    x = np.ascontiguousarray(validation.array("points", points))
    validation.shape("points", x, ("N", "p"))
    if kernel is None:
        kernel = Gaussian()
    validation.instance("kernel", kernel, Kernel, "a Kernel, like kernels.Gaussian(1.0)")
    if kernel.n_coordinates not in (None, x.shape[1]):
        raise ValueError(f"kernel must be of {x.shape[1]} coordinates to match the points, got {kernel!r}")
    native = in_core(kernel.fitted(x), x.shape[1])
    if native is None:
        raise ValueError(f"kernel must be one that the core knows, like kernels.Gaussian(1.0), got {kernel!r}")
    place = seed if isinstance(seed, Place) else noise.start(seed)
    return x, native, place, validation.num_threads(num_threads)
