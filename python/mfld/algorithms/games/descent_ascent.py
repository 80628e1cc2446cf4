"""Descent-ascent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mfld import validation
from mfld.algorithms.games.base import GameAlgorithm, named, seen_by, single_clouds
from mfld.objectives import Game
from mfld.state import Cloud, Info, State


@dataclass(frozen=True)
class DescentAscent(GameAlgorithm):
    """Mean-field Langevin descent-ascent: every player makes a Langevin step on what it faces.

    ::

        theta_i <- theta_i - step_size_i b_i(theta_i; mu_-i) + sqrt(2 temperature_i step_size_i) xi

    with b_i the gradient of the first variation of the objective of player i at the clouds of the others: as they were
    before the step (simultaneous), or as the players before it have left them (alternating). Its stationary points are
    the equilibria, but it need not come to one: it may circle for ever, whereof `run` warns. For the quadratic game
    ``kappa x y`` in ridges l2 the means are stable for ``step_size < 4 l2 / (4 l2**2 + kappa**2)`` (simultaneous), and
    ``step_size < 2 / (2 l2 + kappa)`` (alternating). Sources: Domingo-Enrich et al. 2020, "A mean-field analysis of
    two-player zero-sum games"; Lu 2023, "Two-scale gradient descent ascent dynamics finds mixed Nash equilibria of
    continuous games"; Mourrat, Pillaud-Vivien 2026, on cycles.

    Parameters
    ----------
    n_particles : int or mapping of str to int
        Of each player, or one number for all.
    step_size, temperature : float or Schedule or callable, or mapping of str to those
        Of each player, or one for all. Where a temperature changes, the ridge changes with it so that the reference
        measure stays, as in `MFLD`.
    alternating : bool
        Players move one after the other, in the order of ``game.players``. `Underdamped` dynamics that keep a force
        take the gradient at both ends of a step then, since the others have moved: twice the work.
    gradient, dynamics, dtype, num_threads, n_replicates
        As in `MFLD`. For players with velocities take ``Underdamped(friction, "middle")``: the forces of other schemes
        are those against the others before their move.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> saddle = mfld.Bilinear(mfld.payoffs.Polynomial({(1, 1): 2.0, (1, 0): 1.0}), space=1, l2=0.5)
    >>> solver = mfld.DescentAscent(2000, step_size={"x": 0.02, "y": 0.1}, temperature=0.1, alternating=True)
    >>> result = solver.run(saddle, n_steps=500)
    >>> mfld.nikaido_isoda(saddle, result.state, temperature=0.1).gap < 0.01
    True
    """

    alternating: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.boolean("alternating", self.alternating)

    def _step(self, game: Game, state: State) -> tuple[State, Info]:
        clouds, moved, infos = single_clouds(state), {}, {}
        buffers: dict[str, NDArray[Any]] = {}
        for name in game.players:
            faced = game.facing(name, clouds)
            particles = state.clouds[name].particles[0]
            place = state.place(name, num_threads=self.num_threads)
            carried = self._carried(name, state, fresh=self.alternating)
            outcome, infos[name] = self._moved(faced, name, particles, carried, state, place)
            moved[name] = Cloud(outcome.particles)
            buffers |= named(name, outcome.buffers)
            if self.alternating:
                clouds = {**clouds, name: Cloud(outcome.particles[0])}
        return state.after(1, moved, buffers), seen_by(infos)
