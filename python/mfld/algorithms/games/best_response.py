"""Anchored best response."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mfld import validation
from mfld.algorithms.games.base import GameAlgorithm, fresh_uniforms, seen_by, single_clouds
from mfld.objectives import Game
from mfld.state import Cloud, Info, State


@dataclass(frozen=True)
class BestResponse(GameAlgorithm):
    """Mean-field Langevin anchored best response: in each step a share of the particles becomes best responses.

    ::

        mu_i <- (1 - share) mu_i + share * argmin of what i faces, with its entropy

    The minimiser is the Gibbs law of the first variation at the clouds as they are, the proximal Gibbs measure. Its
    samples are chains of the dynamics on that frozen potential, which start each step where they ended the last one:
    ``share * N`` of them, for as many particles drawn without replacement. In the limit of small shares it is the
    best-response flow, whose gap falls like ``exp(-time)``; on one measure, see `SinglePlayer`, that is entropic
    fictitious play. For the quadratic game ``kappa x y`` in ridges l2 with exact samples the means are stable for
    ``share < 2 / (1 + (kappa / 2 l2)**2)``. Sources: Kim et al. 2024, "Symmetric mean-field Langevin
    dynamics for distributional minimax problems"; Lascu, Majka, Szpruch 2024 on the flow.

    Parameters
    ----------
    n_particles, temperature, gradient, dtype, num_threads, n_replicates
        As in `DescentAscent`.
    step_size, dynamics
        Of the chains. `MALA` samples without bias of the step.
    share : float
        Positive and at most 1; at least one particle of each player.
    inner_steps : int
        Of the chains in each step.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Notes
    -----
    The state's buffers: ``NAME.responses``, the chains of each player, shape (R, ..., share * N, p).

    Examples
    --------
    >>> import mfld
    >>> saddle = mfld.Bilinear(mfld.payoffs.Polynomial({(1, 1): 2.0, (1, 0): 1.0}), space=1, l2=0.5)
    >>> solver = mfld.BestResponse(2000, step_size=0.2, temperature=0.1, share=0.05)
    >>> result = solver.run(saddle, n_steps=200)
    >>> mfld.nikaido_isoda(saddle, result.state, temperature=0.1).gap < 0.01
    True
    """

    share: float = 0.1
    inner_steps: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        share = validation.real("share", self.share, positive=True)
        if share > 1:
            raise ValueError(f"share must be at most 1, got {share}")
        object.__setattr__(self, "share", share)
        object.__setattr__(self, "inner_steps", validation.integer("inner_steps", self.inner_steps, 1))
        sizes = self.n_particles.values() if isinstance(self.n_particles, Mapping) else [self.n_particles]
        if min(map(self._count, sizes)) < 1:
            raise ValueError(f"share times n_particles must be at least 1, got {share} of {min(sizes)}")
        if self.gradient.buffer_names:
            raise ValueError(f"gradient must carry nothing from step to step, like FullBatch(), got {self.gradient}")

    def at_step(self, share: Fraction) -> tuple[Self, Fraction] | None:
        """Chains of so many times the step size and of the same time: as many steps of the algorithm."""
        found, inner = super().at_step(share), self.inner_steps / share
        if found is None or inner.denominator > 1:
            return None
        return dataclasses.replace(found[0], inner_steps=int(inner)), Fraction(1)

    def _count(self, n_particles: int) -> int:
        return int(self.share * n_particles + 1e-9)  # 0.1 * 30 is below 3

    def _first_buffers(self, game: Game, state: State) -> dict[str, NDArray[Any]]:
        return {
            f"{name}.responses": cloud.particles[..., : self._count(cloud.particles.shape[-2]), :]
            for name, cloud in state.clouds.items()
        }

    def _step(self, game: Game, state: State) -> tuple[State, Info]:
        clouds, moved, infos = single_clouds(state), {}, {}
        buffers: dict[str, NDArray[Any]] = {}
        order = fresh_uniforms(state, "replaced")
        for name in game.players:
            faced = game.facing(name, clouds)
            faced = faced if faced.linear else faced.first_variation(clouds[name])
            place = state.place(name, num_threads=self.num_threads)
            place = place._replace(step=state.step * self.inner_steps)
            chains = state.buffers[f"{name}.responses"][0]
            outcome, infos[name] = self._moved(faced, name, chains, {}, state, place, self.inner_steps)
            particles = state.clouds[name].particles[0].copy()
            gone = np.argsort(order[name], axis=-1, kind="stable")[..., : chains.shape[-2], np.newaxis]
            np.put_along_axis(particles, gone, outcome.particles[0], axis=-2)
            moved[name] = Cloud(particles[np.newaxis])
            buffers[f"{name}.responses"] = outcome.particles
        return state.after(1, moved, buffers), seen_by(infos)
