"""Averaged gradient: descent-ascent against the history of the others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mfld import validation
from mfld.algorithms.games.base import GameAlgorithm, fresh_uniforms, named, seen_by
from mfld.objectives import Game
from mfld.state import Cloud, Info, State


@dataclass(frozen=True)
class AveragedGradient(GameAlgorithm):
    """Mean-field Langevin averaged gradient: descent-ascent against the history of the others.

    Each player makes a Langevin step on the average over time of what it has faced::

        b_i(theta) = sum_{j <= k} beta_j b_i(theta; mu_-i at step j) / sum_{j <= k} beta_j

    which for payoffs that are linear in each measure is what it faces at the average measures; others are taken at
    these. The averages are the answer of the algorithm, see `average`. They are held in as many particles as the
    clouds: in step k each slot is overwritten, with probability ``beta_k / sum_{j <= k} beta_j``, by the particle of
    its number, so that the expectation of the memory is the weighted history. Sources: Kim et al. 2024, "Symmetric
    mean-field Langevin dynamics for distributional minimax problems" (``beta_j = j**weights``, convergence of the
    averages); Lu, Monmarche 2025 (exponential discount, exponential rate).

    Parameters
    ----------
    n_particles, step_size, temperature, gradient, dynamics, dtype, num_threads, n_replicates
        As in `DescentAscent`.
    weights : float
        The exponent of the weights, at least 0.
    forgetting : float, optional
        Instead, the share of the memory that is overwritten in a step, positive and at most 1: an exponential
        discount. 1 is descent-ascent. For the quadratic game ``kappa x y`` in ridges l2, small steps and
        ``f = forgetting / step_size``, the means are stable for ``2 l2 (2 l2 + f)**2 > kappa**2 f``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Notes
    -----
    The state's buffers: ``NAME.history``, the memory of each player, shape (R, ..., N, p), and ``history_weight``, the
    sum of the weights so far, shape (R,).

    Examples
    --------
    >>> import mfld
    >>> saddle = mfld.Bilinear(mfld.payoffs.Polynomial({(1, 1): 2.0, (1, 0): 1.0}), space=1, l2=0.5)
    >>> solver = mfld.AveragedGradient(2000, step_size=0.1, temperature=0.1)
    >>> averages = solver.average(solver.run(saddle, n_steps=500).state)
    >>> mfld.nikaido_isoda(saddle, averages, temperature=0.1).gap < 0.02
    True
    """

    weights: float = 1.0
    forgetting: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weights", validation.real("weights", self.weights, non_negative=True))
        if self.forgetting is not None:
            forgetting = validation.real("forgetting", self.forgetting, positive=True)
            if forgetting > 1:
                raise ValueError(f"forgetting must be at most 1, got {forgetting}")
            object.__setattr__(self, "forgetting", forgetting)

    def average(self, state: State) -> dict[str, Cloud]:
        """Average measures over the steps so far, weighted by beta; of several replicates their mixtures.

        Parameters
        ----------
        state : State

        Returns
        -------
        dict of str to Cloud
        """
        validation.instance("state", state, State, "a State")
        found = {}
        for name in state.clouds:
            if f"{name}.history" not in state.buffers:
                raise ValueError(f"state must come from AveragedGradient: it has no buffer {name}.history")
            found[name] = State({name: Cloud(state.buffers[f"{name}.history"])}, 0, 0).measure
        return found

    def _first_buffers(self, state: State) -> dict[str, NDArray[Any]]:
        memories = {f"{name}.history": cloud.particles for name, cloud in state.clouds.items()}
        return {**memories, "history_weight": np.zeros(state.n_replicates)}

    def _step(self, game: Game, state: State) -> tuple[State, Info]:
        share, total = self._share(state)
        uniforms, memory = fresh_uniforms(state, "history"), {}
        for name, cloud in state.clouds.items():
            here = uniforms[name][..., np.newaxis] < share
            memory[name] = Cloud(np.where(here, cloud.particles[0], state.buffers[f"{name}.history"][0]))
        moved, infos = {}, {}
        buffers: dict[str, NDArray[Any]] = {"history_weight": np.array([total])}
        for name in game.players:
            faced = game.facing(name, memory)
            faced = faced if faced.linear else faced.first_variation(memory[name])
            particles = state.clouds[name].particles[0]
            own = state.place(name, num_threads=self.num_threads)._replace(step=state.step * self._chain)
            carried = self._carried(name, state)
            outcome, infos[name] = self._moved(faced, name, particles, carried, state, own, self._chain)
            moved[name] = Cloud(outcome.particles)
            buffers |= named(name, {**outcome.buffers, "history": memory[name].particles[np.newaxis]})
        return state.after(1, moved, buffers), seen_by(infos)

    @property
    def _chain(self) -> int:
        """Steps of the dynamics in a step."""
        return 1

    def at_step(self, share: Fraction) -> tuple[Self, Fraction] | None:
        found = super().at_step(share)
        if found is None or self.forgetting is None:
            return found
        if self.forgetting * share > 1:
            return None
        return dataclasses.replace(found[0], forgetting=float(self.forgetting * share)), found[1]

    def _share(self, state: State) -> tuple[float, float]:
        """Weight of this step in the average, and the sum of all weights with it."""
        weight = 1.0 if self.forgetting is not None else float(state.step + 1) ** self.weights
        total = float(state.buffers["history_weight"][0]) + weight
        if self.forgetting is not None and total > weight:
            return self.forgetting, total
        return weight / total, total
