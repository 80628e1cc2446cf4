"""Statistics of Markov chains: how much independent draws they are worth, and whether they agree (by arviz-stats)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import extras, validation

Numbers = NDArray[np.float64]


def effective_sample_size(draws: ArrayLike, kind: str = "mean") -> Numbers:
    """Effective sample size: how many independent draws all of them are worth.

    Parameters
    ----------
    draws : array_like, shape (chains, draws, ...)
        At least 4 draws of each chain. Replicates of a run are chains; particles of an interacting cloud are not.
    kind : {"mean", "bulk", "tail"}
        For the mean, for the mean of the ranks, which needs no variance, or for the 5 % and 95 % quantiles.

    Returns
    -------
    ndarray, shape (...)

    Raises
    ------
    ImportError
        If arviz-stats is not installed: ``pip install 'mfld[diagnostics]'``.
    TypeError, ValueError
        If the draws are no array of finite reals of that shape.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter, Bürkner 2021, "Rank-normalization, folding, and localization: an improved R-hat
    for assessing convergence of MCMC".

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diagnostics
    >>> draws = np.random.default_rng(0).normal(size=(4, 1000))
    >>> bool(3000 < diagnostics.effective_sample_size(draws) < 5000)
    True
    """
    checked, kind = _chains(draws), validation.choice("kind", kind, ("mean", "bulk", "tail"))
    return np.asarray(_arviz("effective_sample_size").ess(checked, chain_axis=0, draw_axis=1, method=kind))


def rhat(draws: ArrayLike) -> Numbers:
    """Rank-normalised split R-hat: near 1 where chains and their halves have the same law, above 1.01 suspicious.

    Parameters
    ----------
    draws
        As in `effective_sample_size`.

    Returns
    -------
    ndarray, shape (...)
        Not a number where there is one chain only, or all draws are the same.

    References
    ----------
    As of `effective_sample_size`.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diagnostics
    >>> draws = np.random.default_rng(0).normal(size=(4, 1000))
    >>> bool(diagnostics.rhat(draws) < 1.01), bool(diagnostics.rhat(draws + np.arange(4)[:, np.newaxis]) > 1.5)
    (True, True)
    """
    checked = _chains(draws)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(_arviz("rhat").rhat(checked, chain_axis=0, draw_axis=1))


def autocorrelation_time(draws: ArrayLike) -> Numbers:
    """Integrated autocorrelation time ``1 + 2 sum_k rho_k``, in draws: all of them over their effective sample size.

    The variance of a mean is this much larger than that of as many independent draws.

    Parameters
    ----------
    draws
        As in `effective_sample_size`.

    Returns
    -------
    ndarray, shape (...)

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diagnostics
    >>> draws = np.random.default_rng(0).normal(size=(4, 1000))
    >>> bool(0.8 < diagnostics.autocorrelation_time(draws) < 1.3)
    True
    """
    checked = _chains(draws)
    return np.asarray(checked.shape[0] * checked.shape[1] / effective_sample_size(checked))


def _arviz(user: str) -> Any:
    return extras.library("arviz_stats.base", "diagnostics", user).array_stats


def _chains(draws: ArrayLike) -> Numbers:
    checked = validation.array("draws", draws, np.float64)
    if checked.ndim < 2 or checked.shape[1] < 4 or 0 in checked.shape:
        raise ValueError(f"draws must have shape (chains, draws, ...) with at least 4 draws, got {checked.shape}")
    return np.asarray(validation.squarable("draws", checked))
