"""Discrepancies of kernels: between two clouds, and of a cloud from where its objective pulls it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.diagnostics.estimate import one_cloud
from mfld.kernels import Gaussian, InverseMultiquadric, Kernel, Statistics
from mfld.kernels.pairwise import statistics
from mfld.objectives import Objective
from mfld.objectives.stein import check_stein, checked_score
from mfld.state import Cloud


def mmd(first: Cloud | ArrayLike, second: Cloud | ArrayLike, kernel: Kernel | None = None) -> Statistics:
    """Squared maximum mean discrepancy of two clouds, as V- and as U-statistic.

    ``E k(X, X') - 2 E k(X, Y) + E k(Y, Y')``, over all pairs, or without those of a particle with itself, which has no
    bias and may be negative. It costs ``(N + M)**2`` values of the kernel, in memory that of the clouds.

    Parameters
    ----------
    first, second : Cloud or array_like, shapes (N, p) and (M, p)
        Their numbers may differ, and they may be weighted.
    kernel : Kernel, optional
        Of `mfld.kernels`. Default: a Gaussian whose length scale is the median distance in ``second``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or does not fit.

    References
    ----------
    Gretton, Borgwardt, Rasch, Schölkopf, Smola 2012, "A kernel two-sample test".

    Examples
    --------
    >>> from mfld import diagnostics, kernels
    >>> found = diagnostics.mmd([[0.0], [1.0]], [[0.0], [1.0], [2.0]], kernels.Gaussian(1.0))
    >>> round(found.v, 4), round(found.u, 4)
    (0.1179, -0.2623)
    """
    x, a = one_cloud("first", first)
    y, b = one_cloud("second", second)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"second must have {x.shape[1]} coordinates to match first, got {y.shape[1]}")
    chosen = Gaussian("median") if kernel is None else validation.instance("kernel", kernel, Kernel, "a Kernel")
    if chosen.n_coordinates not in (None, x.shape[1]):
        raise ValueError(f"kernel must be of {x.shape[1]} coordinates to match first, got {chosen!r}")
    k = chosen.fitted(y)
    own = [statistics(k.sums(z, z, w), k.diagonal(z), w) for z, w in ((x, a), (y, b))]
    cross = float(np.average(k.sums(x, y, b), weights=a))
    return Statistics(own[0].v + own[1].v - 2 * cross, own[0].u + own[1].u - 2 * cross)


def ksd(
    measure: Cloud | ArrayLike, objective: Objective, temperature: float, kernel: Kernel | None = None
) -> Statistics:
    """Squared kernel Stein discrepancy of a cloud from the Gibbs law of its own first variation, as V- and U-statistic.

    That law has the density ``exp(-dF/dmu(mu) / temperature)`` up to a constant: of a `Potential` it is the target,
    whatever the cloud. Of any other objective it is the proximal Gibbs law, and the discrepancy is known as the kernel
    gradient discrepancy: 0 at the minimiser of ``F(mu) + temperature * Ent(mu)`` and nowhere else. Gradients are all
    that it takes. At N independent draws of the law V is about ``E u(X, X) / N``, and U is 0 on average. It costs N**2
    values of the kernel, in memory that of the cloud.

    Parameters
    ----------
    measure : Cloud or array_like, shape (N, n_coordinates)
    objective : Objective
        On Euclidean space or a torus, without members.
    temperature : float
        Positive.
    kernel : Kernel, optional
        Of the moving coordinates, with two derivatives. Default: an inverse multiquadric of length 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or a gradient is not finite.

    References
    ----------
    Chwialkowski, Strathmann, Gretton 2016, "A kernel test of goodness of fit"; Chazal, Kanagawa, Shen, Korba, Oates
    2025, "A computable measure of suboptimality for entropy-regularised variational objectives".

    Examples
    --------
    >>> import mfld
    >>> from mfld import diagnostics, noise
    >>> normals = noise.normals(seed=1, step=0, n_particles=1000, n_coordinates=2, stream="data")
    >>> well = mfld.potentials.Gaussian([0.0, 0.0])
    >>> bool(diagnostics.ksd(normals, well, 1.0).v < 0.02), bool(diagnostics.ksd(normals + 1, well, 1.0).v > 0.5)
    (True, True)
    """
    validation.instance("objective", objective, Objective, "an Objective")
    temperature = validation.real("temperature", temperature, positive=True)
    points, weights = one_cloud("measure", measure)
    chosen = InverseMultiquadric(1.0) if kernel is None else validation.instance("kernel", kernel, Kernel, "a Kernel")
    check_stein(chosen, objective.space)
    chosen.check_derivatives(2)
    if objective.members:
        raise ValueError(f"objective must have a single member, got {objective.members}")
    # In float64 where the objective takes it: at the end the gradient is a small difference.
    gradient = objective.gradient(Cloud(points, weights))[:, : objective.n_moving]
    moving = np.ascontiguousarray(points[:, : objective.n_moving])
    score = checked_score(gradient, temperature)
    if not np.isfinite(score).all():
        raise ValueError(f"temperature must not be so small that gradients over it overflow, got {temperature:g}")
    found = chosen.fitted(moving).stein_statistics(moving, score, weights, objective.num_threads)
    if np.isnan(found.v):
        raise ValueError(
            "measure and temperature must leave sums of squares of gradients over the temperature within float64, got "
            f"gradients over it up to {np.abs(score).max():.3g} and particles up to {np.abs(moving).max():.3g}"
        )
    return found
