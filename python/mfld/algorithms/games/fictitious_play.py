"""Fictitious play."""

from __future__ import annotations

from dataclasses import dataclass

from mfld import validation
from mfld.algorithms.games.averaged_gradient import AveragedGradient


@dataclass(frozen=True)
class FictitiousPlay(AveragedGradient):
    """Fictitious play with entropy: best responses to the history of the others, which is their average.

    ::

        history_i <- (1 - beta_k) history_i + beta_k * argmin of what i faces at the histories of the others

    The best responses are chains of the dynamics, of `inner_steps` in each step, which start where they ended: it is
    `AveragedGradient` with chains in place of single steps. With equal weights, ``beta_k = 1 / k``, it is fictitious
    play; with ``forgetting`` the discretised flow ``d mu / dt = p(mu) - mu``, on one measure entropic fictitious play,
    see `SinglePlayer`. The histories are the answer: `average`. Sources: Brown 1951, "Iterative solution of games by
    fictitious play"; Chen, Ren, Wang 2023, "Entropic fictitious play for mean field optimization problem"; Nitanda et
    al. 2023, "Primal and dual analysis of entropic fictitious play for finite-sum problems".

    Parameters
    ----------
    n_particles, step_size, temperature, gradient, dynamics, dtype, num_threads, n_replicates, forgetting, history
        As in `AveragedGradient`; the step size is that of the chains.
    weights : float
        The exponent of the weights, by default 0: all best responses so far count the same.
    inner_steps : int
        Of the chains in each step.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> saddle = mfld.Bilinear(mfld.payoffs.Polynomial({(1, 1): 2.0, (1, 0): 1.0}), space=1, l2=0.5)
    >>> solver = mfld.FictitiousPlay(2000, step_size=0.2, temperature=0.1)
    >>> histories = solver.average(solver.run(saddle, n_steps=200).state)
    >>> mfld.nikaido_isoda(saddle, histories, temperature=0.1).gap < 0.02
    True
    """

    weights: float = 0.0
    inner_steps: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "inner_steps", validation.integer("inner_steps", self.inner_steps, 1))

    @property
    def _chain(self) -> int:
        return self.inner_steps
