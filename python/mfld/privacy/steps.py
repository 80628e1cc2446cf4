"""Accounts of the steps that led to a state, which it carries with it.

An account has a row for each kind of step: how many there were, the rate of their rows, the noise multiplier of their
gradients and that of the dynamics, shape (R, k, 4) for R replicates. Whoever makes steps adds his own, by whatever
objective, so that a claim about a state is one about all that led to it. Steps that nobody accounts for are missing,
as the count of the state tells. Rows are sorted, so that an account does not depend on how calls were cut.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mfld.privacy import secret
from mfld.privacy.accountant import composed, rounded
from mfld.privacy.mechanism import off_by
from mfld.state import State

ACCOUNT: Final = "privacy_account"
"""Name within `State.buffers`."""
_LEAST, _MOST = 1e-3, 1e6  # noise multipliers of the dynamics: what is less does not count, nor what is beyond


def recorded(
    state: State, counts: int, rate: float, noise_multiplier: float, of_dynamics: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The account of a state with further steps.

    Parameters
    ----------
    state : State
    counts : int
        Steps of each column of ``of_dynamics``.
    rate, noise_multiplier : float
        Of their gradients.
    of_dynamics : ndarray, shape (R, n_columns)
        Noise multipliers of the dynamics, kept to a thousandth, from below: a schedule has few kinds of steps then.
    """
    kept = np.where(of_dynamics < _LEAST, 0.0, rounded(np.clip(of_dynamics, _LEAST, _MOST)))
    each = []
    for before, own in zip(_rows(state), kept.tolist(), strict=True):
        kinds = {tuple(kind): n for n, *kind in before.tolist()}
        for multiplier in own:
            kind = (rate, noise_multiplier, multiplier)
            kinds[kind] = kinds.get(kind, 0) + counts
        each.append([(n, *kind) for kind, n in sorted(kinds.items())])
    account = np.zeros((len(each), max(map(len, each)), 4))  # replicates with fewer kinds have some of no steps
    for rows, own in zip(account, each, strict=True):
        rows[: len(own)] = own
    return account


def check(state: State) -> None:
    """Raise ValueError if a state of one replicate lacks the account of some of the steps that led to it."""
    (rows,) = _rows(state)
    known = int(rows[:, 0].sum())
    if known != state.step:
        raise ValueError(
            f"state must have an account of all its steps for privacy: of {state.step} it has that of {known}. Steps "
            "have one with Clipped gradients, Affine dynamics and a step size that is given; if the particles are "
            "public, start anew from them, with init(objective, particles=state.particles)"
        )


def spent(state: State, delta: float, *, count_dynamics: bool, accountant: str) -> float:
    """Epsilon at delta of all steps that led to a state of one replicate, by its account."""
    (rows,) = _rows(state)
    multipliers = np.hypot(rows[:, 2], rows[:, 3]) if count_dynamics else rows[:, 2]
    if not state.step:
        return 0.0
    n_values = state.step * sum(cloud.particles[0].size for cloud in state.clouds.values())
    return off_by(
        lambda own: composed(rows[:, 0], rows[:, 1], multipliers, own, accountant=accountant),
        delta,
        n_values * secret.DISTANCE,
    )


def _rows(state: State) -> list[NDArray[np.float64]]:
    """Kinds of steps of each replicate."""
    account = state.buffers.get(ACCOUNT)
    if account is None:
        return [np.zeros((0, 4))] * state.n_replicates
    if account.ndim != 3 or len(account) != state.n_replicates or account.shape[2] != 4:
        raise ValueError(
            f"state.buffers[{ACCOUNT!r}] must have shape ({state.n_replicates}, k, 4), got {account.shape}"
        )
    if account.dtype != np.float64:
        raise ValueError(f"state.buffers[{ACCOUNT!r}] must be float64, got {account.dtype}")
    # Replicates with fewer kinds have rows of zeros; NaN is none of these.
    counts, rates, multipliers = account[..., 0], account[..., 1], account[..., 2:]
    is_kind = (counts >= 1) & (counts == np.floor(counts)) & (rates > 0) & (rates <= 1)
    is_kind &= ((multipliers >= 0) & (multipliers <= _MOST)).all(axis=-1)
    bad = account[~(is_kind | (account == 0).all(axis=-1))]
    if len(bad):
        raise ValueError(
            f"state.buffers[{ACCOUNT!r}] must have rows of a whole number of steps, a rate of at most 1 and two noise "
            f"multipliers of at most {_MOST:g}, got {bad[0].tolist()}"
        )
    return [rows[rows[:, 0] > 0] for rows in account]
