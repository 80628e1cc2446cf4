"""Statistics over independent replicates of a run: ``MFLD(..., n_replicates=R)``, and of the other algorithms.

With several replicates the entries of `Result.history` have an axis for them, ``State.replicate(r)`` is one of them,
and ``State.measure`` is the mixture of all, whose predictions are the mean of theirs.

Replicates are independent; the particles of one of them are not where the objective interacts. Statistics that need
independent draws are therefore taken over replicates, never over particles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation
from mfld.algorithms import Result
from mfld.diagnostics import effective_sample_size, rhat
from mfld.validation import FloatArray


@dataclass(frozen=True, eq=False)
class Summary:
    """A quantity over replicates.

    Attributes
    ----------
    mean : ndarray
        Over records and replicates.
    spread : ndarray
        Standard deviation over replicates of their means over records, with R - 1 in the denominator.
    error : ndarray
        Standard error of ``mean``, ``spread / sqrt(R)``: it needs no independence of the records.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    error: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Convergence:
    """Agreement of replicates, as if each were a Markov chain and each record a draw.

    Attributes
    ----------
    rhat : ndarray
        Rank-normalised split R-hat: near 1 where replicates and their halves have the same law. Source: Vehtari,
        Gelman, Simpson, Carpenter, Bürkner 2021, "Rank-normalization, folding, and localization: an improved R-hat".
        NaN where all draws are the same.
    ess : ndarray
        Effective sample size of the mean of the ranks: how many independent draws all records are worth.
    """

    rhat: NDArray[np.float64]
    ess: NDArray[np.float64]


def export(result: Result, burn_in: int = 0) -> tuple[dict[str, FloatArray], dict[str, Any]]:
    """Records of a run in ArviZ's shape, (chain, draw, ...): replicates are chains, records are draws.

    ``arviz.from_dict({"posterior": values}, attrs={"posterior": attributes})`` with ArviZ 1,
    ``arviz.from_dict(posterior=values, attrs=attributes)`` before.

    Parameters
    ----------
    result : Result
    burn_in : int
        Records up to this count of steps are left out.

    Returns
    -------
    dict of str to ndarray, shape (R, n_draws, ...)
        Entries of the history that are numbers throughout: the acceptance, say, is left out where there is none.
    dict
        ``step``, of each draw; and ``particles_interact``: where True, the particles of one ensemble depend on each
        other, so that they must not be counted as draws or chains.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or no record is left.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, n_coordinates=1)
    >>> solver = mfld.MFLD(n_particles=50, step_size=0.1, temperature=1.0, n_replicates=4)
    >>> record = {"second moment": lambda state: np.mean(state.particles**2)}
    >>> result = solver.run(well, n_steps=200, record_every=10, record=record)
    >>> values, attributes = mfld.statistics.export(result, burn_in=100)
    >>> values["second moment"].shape, attributes["particles_interact"]
    ((4, 10), False)
    """
    validation.instance("result", result, Result, "a Result")
    burn_in = validation.integer("burn_in", burn_in, 0)
    step = result.history["step"]
    kept = step > burn_in
    if not kept.any():
        raise ValueError(f"burn_in must be below {step.max(initial=0)}, the last step recorded, got {burn_in}")
    values = {}
    for name, rows in result.history.items():
        if name == "step" or not np.isfinite(rows[kept]).all():
            continue
        draws = rows[kept]
        values[name] = np.moveaxis(draws, 1, 0) if result.state.n_replicates > 1 else draws[np.newaxis]
    return values, {"step": step[kept].tolist(), "particles_interact": not result.objective.linear}


def summary(result: Result, burn_in: int = 0) -> dict[str, Summary]:
    """Mean, spread and standard error over replicates of all that a run recorded.

    Parameters
    ----------
    result, burn_in
        As in `export`.

    Raises
    ------
    TypeError, ValueError
        As in `export`, and if there is one replicate only.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, n_coordinates=1)
    >>> solver = mfld.MFLD(n_particles=50, step_size=0.1, temperature=1.0, n_replicates=20)
    >>> record = {"second moment": lambda state: np.mean(state.particles**2)}
    >>> result = solver.run(well, n_steps=400, record_every=10, record=record)
    >>> moment = mfld.statistics.summary(result, burn_in=100)["second moment"]
    >>> bool(abs(moment.mean - 1 / (1 - 0.1 / 2)) < 5 * moment.error)     # the scheme's own stationary variance
    True
    """
    values, _ = _several(result, burn_in)
    summaries = {}
    for name, draws in values.items():
        means = draws.mean(axis=1)
        spread = means.std(axis=0, ddof=1)
        summaries[name] = Summary(np.asarray(means.mean(axis=0)), np.asarray(spread), spread / np.sqrt(len(means)))
    return summaries


def convergence(result: Result, burn_in: int = 0) -> dict[str, Convergence]:
    """R-hat and effective sample size across replicates, by arviz-stats, of all that a run recorded.

    Parameters
    ----------
    result, burn_in
        As in `export`. At least 4 records must be left.

    Raises
    ------
    ImportError
        If arviz-stats is not installed: ``pip install 'mfld[diagnostics]'``.
    TypeError, ValueError
        As in `summary`.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, n_coordinates=1)
    >>> solver = mfld.MFLD(n_particles=50, step_size=0.1, temperature=1.0, n_replicates=4)
    >>> record = {"second moment": lambda state: np.mean(state.particles**2)}
    >>> result = solver.run(well, n_steps=2000, record_every=20, record=record)
    >>> moment = mfld.statistics.convergence(result, burn_in=100)["second moment"]
    >>> bool(moment.rhat < 1.05), bool(moment.ess > 200)
    (True, True)
    """
    values, attributes = _several(result, burn_in)
    n_draws = len(attributes["step"])
    if n_draws < 4:
        raise ValueError(f"burn_in must leave 4 records at least, got {n_draws}")
    return {name: of_chains(draws) for name, draws in values.items() if _varies(draws)}


def of_chains(draws: ArrayLike) -> Convergence:
    """R-hat and effective sample size of the draws of several Markov chains, by arviz-stats.

    Parameters
    ----------
    draws : array_like, shape (chain, draw, ...)
        At least 2 chains of 4 draws.

    Raises
    ------
    ImportError
        If arviz-stats is not installed: ``pip install 'mfld[diagnostics]'``.
    TypeError, ValueError
        If they are no array of finite reals of that shape.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> draws = np.random.default_rng(0).normal(size=(4, 1000))
    >>> found = mfld.statistics.of_chains(draws)
    >>> bool(found.rhat < 1.01), bool(3500 < found.ess < 4500)
    (True, True)
    """
    given = validation.array("draws", draws, np.float64)
    if given.ndim < 2 or given.shape[0] < 2 or given.shape[1] < 4 or given.size == 0:
        raise ValueError(f"draws must have shape (chain, draw, ...) with 2 and 4 at least, got {given.shape}")
    return Convergence(rhat(given), effective_sample_size(given, kind="bulk"))


def _several(result: Result, burn_in: int) -> tuple[dict[str, FloatArray], dict[str, Any]]:
    values, attributes = export(result, burn_in)
    if result.state.n_replicates == 1:
        raise ValueError("result must have several replicates, as of MFLD(n_replicates=4); it has 1")
    return values, attributes


def _varies(draws: ArrayLike) -> bool:
    """True where there is anything to compare: a step size may be the same everywhere."""
    return bool((np.ptp(draws, axis=(0, 1)) > 0).all())
