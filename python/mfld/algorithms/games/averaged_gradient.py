"""Averaged gradient: descent-ascent against the history of the others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mfld import validation
from mfld.algorithms.games.base import GameAlgorithm, fresh_uniforms, named, seen_by, single_clouds
from mfld.objectives import Game
from mfld.state import Buffers, Cloud, Info, State

_STEEPEST = 30.0  # exponent of weights, whose sum over 1e9 steps float64 holds


@dataclass(frozen=True)
class AveragedGradient(GameAlgorithm):
    """Mean-field Langevin averaged gradient: descent-ascent against the history of the others.

    Each player makes a Langevin step on the average over time of what it has faced::

        b_i(theta) = sum_{j <= k} beta_j b_i(theta; mu_-i at step j) / sum_{j <= k} beta_j

    which for payoffs that are linear in each measure is what it faces at the average measures; others are taken at
    these. The averages are the answer of the algorithm, see `average`. By default they are held in as many particles as
    the clouds: in step k each slot is overwritten, with probability ``beta_k / sum_{j <= k} beta_j``, by the particle
    of its number, so that the expectation of the memory is the weighted history. Where payoffs have moments, like those
    of `Polynomial` and `Trigonometric`, what a player faces can be averaged itself, exactly and in no more time; the
    particles are then those of the answer alone. Or all clouds are kept, with their weights: exact, and the step k
    takes k times as long and as much memory. Sources: Kim et al. 2024, "Symmetric
    mean-field Langevin dynamics for distributional minimax problems" (``beta_j = j**weights``, convergence of the
    averages); Lu, Monmarche 2025 (exponential discount, exponential rate).

    Parameters
    ----------
    n_particles, step_size, temperature, gradient, dynamics, dtype, num_threads, n_replicates
        As in `DescentAscent`.
    weights : float
        The exponent of the weights, from 0 to 30.
    forgetting : float, optional
        Instead, the share of the memory that is overwritten in a step, positive and at most 1: an exponential
        discount. 1 is descent-ascent. For the quadratic game ``kappa x y`` in ridges l2, small steps and
        ``f = forgetting / step_size``, the means are stable for ``2 l2 (2 l2 + f)**2 > kappa**2 f``.
    history : {"reservoir", "moments", "clouds"}
        How it is held. Moments are for a `PairwiseGame` whose payoffs all have them, and such games at the atoms of an
        environment.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or the game has no moments.

    Notes
    -----
    The state's buffers: ``NAME.history``, the memory of each player, shape (R, ..., N, p), and ``history_weight``, the
    sum of the weights so far, shape (R,). With moments also ``NAME.moments``, those of what the player faces, shape
    (R, ..., K). Of all clouds: (R, ..., k N, p), and ``history_shares``, shape (R, k).

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
    history: str = "reservoir"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weights", validation.real("weights", self.weights, non_negative=True))
        if self.weights > _STEEPEST:
            raise ValueError(f"weights must be at most {_STEEPEST:g}, got {self.weights}")
        validation.choice("history", self.history, ("reservoir", "moments", "clouds"))
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
            each = [self._memory(one.buffers, name) for one in state.each()]
            weights = None
            if self.history == "clouds":
                weights = np.stack([own.weights for own in each if own.weights is not None])
            found[name] = State({name: Cloud(np.stack([own.particles for own in each]), weights)}, 0, 0).measure
        return found

    def _memory(self, buffers: Buffers, name: str) -> Cloud:
        """Memory of a player, from the buffers of one replicate."""
        particles = buffers[f"{name}.history"][0]
        if self.history != "clouds":
            return Cloud(particles)
        if "history_shares" not in buffers:
            raise ValueError('state must come from AveragedGradient(history="clouds"): it has no buffer history_shares')
        shares = buffers["history_shares"][0]
        each = np.repeat(shares, particles.shape[-2] // len(shares))
        return Cloud(particles, np.broadcast_to(each, particles.shape[:-1]))

    def _first_buffers(self, game: Game, state: State) -> dict[str, NDArray[Any]]:
        memories = {f"{name}.history": cloud.particles for name, cloud in state.clouds.items()}
        if self.history == "moments":
            each = [self._moments(game, one) for one in state.each()]
            memories |= {name: np.stack([own[name] for own in each]) for name in each[0]}
        shares = {"history_shares": np.ones((state.n_replicates, 1))} if self.history == "clouds" else {}
        return {**memories, **shares, "history_weight": np.zeros(state.n_replicates)}

    @staticmethod
    def _moments(game: Game, state: State) -> dict[str, NDArray[Any]]:
        """Moments of what each player faces now, of a state of one replicate."""
        clouds, found = single_clouds(state), {}
        for name in game.players:
            own = game.moments(name, clouds)
            if own is None:
                raise TypeError(
                    'history="moments" is for games whose payoffs have moments, like Polynomial and Trigonometric, '
                    f"got {game!r}"
                )
            found[f"{name}.moments"] = own
        return found

    def _buffer_shapes(self, game: Game, state: State) -> dict[str, tuple[int | str, ...]]:
        shapes = super()._buffer_shapes(game, state)
        if self.history == "clouds":
            shapes |= {
                f"{n}.history": (*own.particles.shape[:-2], "k N", own.particles.shape[-1])
                for n, own in state.clouds.items()
            }
            shapes["history_shares"] = (state.n_replicates, "k")
        return shapes

    def _renewed(self, game: Game, state: State, share: float) -> dict[str, NDArray[Any]]:
        """Buffers of the memories with the clouds as they are, of a state of one replicate."""
        found: dict[str, NDArray[Any]] = {}
        uniforms = fresh_uniforms(state, "history") if self.history != "clouds" else {}
        if self.history == "moments":
            for key, own in self._moments(game, state).items():
                found[key] = (1 - share) * state.buffers[key] + share * own
        for name, cloud in state.clouds.items():
            before, now = state.buffers[f"{name}.history"], cloud.particles
            if self.history != "clouds":
                found[f"{name}.history"] = np.where(uniforms[name][np.newaxis, ..., np.newaxis] < share, now, before)
            else:
                found[f"{name}.history"] = now if share == 1 else np.concatenate([before, now], axis=-2)
        if self.history == "clouds":
            shares = state.buffers["history_shares"][0]
            found["history_shares"] = np.array([[1.0] if share == 1 else [*(1 - share) * shares, share]])
        return found

    def _step(self, game: Game, state: State) -> tuple[State, Info]:
        share, total = self._share(state)
        buffers = self._renewed(game, state, share)
        memory = {name: self._memory(buffers, name) for name in state.clouds}
        buffers["history_weight"] = np.array([total])
        moved, infos = {}, {}
        for name in game.players:
            if self.history == "moments":
                faced = game.facing_moments(name, buffers[f"{name}.moments"][0])
            else:
                faced = game.facing(name, memory)
                faced = faced if faced.linear else faced.first_variation(memory[name])
            particles = state.clouds[name].particles[0]
            own = state.place(name, num_threads=self.num_threads)._replace(step=state.step * self._chain)
            carried = self._carried(name, state)
            outcome, infos[name] = self._moved(faced, name, particles, carried, state, own, self._chain)
            moved[name] = Cloud(outcome.particles)
            buffers |= named(name, outcome.buffers)
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
