"""Algorithms for games: what they share."""

from __future__ import annotations

import dataclasses
import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import noise, schedules, validation
from mfld.algorithms.base import Algorithm, Result, scaled
from mfld.algorithms.games.circling import Circling
from mfld.algorithms.replicates import advance_each, start
from mfld.dynamics import Coupled, Dynamics, Overdamped
from mfld.errors import DivergenceError
from mfld.floating import underflow_is_zero
from mfld.gradients import FullBatch, GradientEstimator
from mfld.noise import Coupling, Place
from mfld.objectives import Game, Objective
from mfld.objectives.pairwise import PerPlayer, each_player
from mfld.schedules import Scheduled
from mfld.state import Buffers, Cloud, Info, State
from mfld.stepping import Outcome, Plan, steps
from mfld.validation import FloatArray


@dataclass(frozen=True)
class GameAlgorithm(Algorithm):
    """Algorithm on a game, whose state has a cloud for each player: parameters and runs of all of them.

    A subclass says what one step of one replicate is.
    """

    n_particles: PerPlayer[int] = 1000
    _: KW_ONLY
    step_size: PerPlayer[Scheduled]
    temperature: PerPlayer[Scheduled]
    gradient: GradientEstimator = field(default_factory=FullBatch)
    dynamics: Dynamics = field(default_factory=Overdamped)
    dtype: DTypeLike = "float32"
    num_threads: int | None = None
    n_replicates: int = 1

    def __post_init__(self) -> None:
        checked = {
            "n_particles": _of_players("n_particles", self.n_particles, lambda name, n: validation.integer(name, n, 1)),
            "step_size": _of_players(
                "step_size", self.step_size, lambda name, h: schedules.check(name, h, positive=True)
            ),
            "temperature": _of_players("temperature", self.temperature, schedules.check),
            "dtype": validation.float_dtype("dtype", self.dtype).name,
            "n_replicates": validation.integer("n_replicates", self.n_replicates, 1),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        validation.instance("gradient", self.gradient, GradientEstimator, "a GradientEstimator, like FullBatch()")
        validation.instance("dynamics", self.dynamics, Dynamics, "a Dynamics, like Overdamped()")
        validation.num_threads(self.num_threads)

    @underflow_is_zero
    def init(
        self,
        objective: Any,
        seed: int = 0,
        particles: Any = None,
        *,
        replica: int | Sequence[int] = 0,
    ) -> State:
        """State before the first step.

        Parameters
        ----------
        objective : Game
        seed, replica
            As in `MFLD.init`.
        particles : mapping of str to array_like, optional
            Where players start, each of shape (N, p) or (n_replicates, N, p), with the axes of members before N where
            there are any. Default, and for players left out: uniform on bounded domains, elsewhere standard normal.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range, or the particles do not fit.
        """
        game = self._game(objective)
        seed, replicas = validation.seed(seed), noise.replicas(replica, self.n_replicates)
        given: Mapping[str, ArrayLike] = {} if particles is None else particles
        validation.instance("particles", given, Mapping, "a mapping of players to arrays")
        for name in given:
            validation.choice("a name in particles", name, game.players)
        sizes = each_player("n_particles", self.n_particles, game.players)
        clouds, population = {}, 0
        for name in game.players:
            still = game.still(name)
            places = [noise.initial(seed, own, self.num_threads).member(population) for own in replicas]
            population += math.prod(still.members)
            drawn = start(still, given.get(name), self.n_replicates, sizes[name], self.dtype, places)
            clouds[name] = Cloud(drawn)
        state = State(clouds, step=0, seed=seed, replica=replicas)
        state = State(clouds, 0, seed, self._first_buffers(game, state), replicas)
        self.check(game, state)
        return state

    @underflow_is_zero
    def advance(self, objective: Any, state: State, n_steps: int = 1) -> tuple[State, Info]:
        """Make steps; k steps and then k steps are 2k steps, bit by bit.

        Parameters
        ----------
        objective : Game
        state : State
        n_steps : int

        Returns
        -------
        State, Info
            The loss is that of the first player; step size, temperature and l2 are NaN where players differ in them.

        Raises
        ------
        DivergenceError, KeyboardInterrupt
            As in `MFLD.advance`.
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        """
        validation.instance("state", state, State, "a State")
        self.check(objective, state)
        n_steps = validation.integer("n_steps", n_steps, 0, validation.MAX_STEP - state.step)
        game = objective.on_threads(self.num_threads)
        return advance_each(lambda single: self._step(game, single), state, n_steps)

    def run(self, objective: Any, n_steps: int, seed: int = 0, **options: Any) -> Result:
        """Run from the start, or go on from a state; as `Algorithm.run`, on a `Game`.

        Warns
        -----
        UserWarning
            If the players go round each other at the end of the run without coming closer: see `DescentAscent`.
        """
        watch = Circling(n_steps)
        given = options.pop("callbacks", ())
        callbacks = [*given, watch] if isinstance(given, (list, tuple)) else given
        result = super().run(objective, n_steps, seed, callbacks=callbacks, **options)
        turns = watch.turns()
        if turns > 0:
            warnings.warn(
                f"the run circles: in its second half the means of the players went round {turns:.0f} times without "
                "coming closer. There is no equilibrium where it ends; AveragedGradient, BestResponse, two step sizes "
                "far apart, a higher temperature or a smaller step_size may find one",
                stacklevel=2,
            )
        return result

    def check(self, objective: Any, state: State | None = None) -> None:
        game = self._game(objective)
        if state is None:
            return
        validation.instance("state", state, State, "a State")
        if tuple(state.clouds) != tuple(game.players):
            raise ValueError(f"state must have the clouds {', '.join(game.players)}, got {', '.join(state.clouds)}")
        for name, cloud in state.clouds.items():
            members = tuple(game.members.get(name, ()))
            expected: tuple[int | str, ...] = ("n_replicates", *members, "N", game.spaces[name].n_coordinates)
            validation.shape(f"state.clouds[{name!r}].particles", cloud.particles, expected, "to suit the game")
            if cloud.particles.dtype != self.dtype:
                own = type(self).__name__
                raise ValueError(
                    f"state.clouds[{name!r}] must be {self.dtype}, the dtype of this {own}, got {cloud.particles.dtype}"
                )
            if cloud.weights is not None:
                raise ValueError(f"state.clouds[{name!r}] must have particles of equal weight (weights=None)")
        for name, shape in self._buffer_shapes(game, state).items():
            if name not in state.buffers:
                raise ValueError(f"state must come from {type(self).__name__}: it has no buffer {name}")
            validation.shape(f"state.buffers[{name!r}]", state.buffers[name], shape, "to suit the algorithm")
        clouds = single_clouds(state.replicate(0))
        for name in game.players:
            faced = game.facing(name, clouds)
            validation.instance(f"facing({name!r}) of the game", faced, Objective, "an Objective")
            faced.check()
            if faced.members != tuple(game.members.get(name, ())):
                raise ValueError(
                    f"facing({name!r}) of the game must have the members {game.members.get(name, ())}, "
                    f"got {faced.members}"
                )
            self.gradient.check(faced)
            self.dynamics.check(faced, self.gradient)
            self.dynamics.check_space(faced)

    def rows_of_a_step(self, objective: Any) -> int | None:
        return None

    def resized(self, share: Fraction, n_replicates: int) -> Self:
        sizes = self.n_particles
        if isinstance(sizes, Mapping):
            n: Any = {name: scaled(f"n_particles[{name!r}]", own, share) for name, own in sizes.items()}
        else:
            n = scaled("n_particles", sizes, share)
        return dataclasses.replace(self, n_particles=n, n_replicates=n_replicates)

    def at_step(self, share: Fraction) -> tuple[Self, Fraction] | None:
        size = _stretched(self.step_size, share, float(share))
        return dataclasses.replace(self, step_size=size, temperature=_stretched(self.temperature, share)), 1 / share

    def coupled(self, couplings: Mapping[int, Coupling]) -> Self | None:
        """With the noise of the particles of another run; which of them enter a history, or give way, is its own."""
        return dataclasses.replace(self, dynamics=Coupled(self.dynamics, couplings))

    def _game(self, objective: Any) -> Game:
        game = validation.instance("objective", objective, Game, "a Game, like Bilinear")
        for name in ("n_particles", "step_size", "temperature"):
            each_player(name, getattr(self, name), game.players)
        spaces = getattr(game, "spaces", None)
        validation.instance(f"{type(game).__name__}.spaces", spaces, Mapping, "a mapping of players to spaces")
        if set(game.spaces) != set(game.players):
            raise ValueError(f"{type(game).__name__}.spaces must have each of {', '.join(game.players)}")
        validation.instance(f"{type(game).__name__}.members", game.members, Mapping, "a mapping of players to tuples")
        return game

    def _first_buffers(self, game: Game, state: State) -> dict[str, NDArray[Any]]:
        """Arrays that the algorithm itself carries, before the first step of a state."""
        return {}

    def _buffer_shapes(self, game: Game, state: State) -> dict[str, tuple[int | str, ...]]:
        """Shapes of what the algorithm itself carries in a state."""
        return {name: value.shape for name, value in self._first_buffers(game, state).items()}

    @abstractmethod
    def _step(self, game: Game, state: State) -> tuple[State, Info]:
        """One step of a single replicate."""

    def _moved(
        self,
        faced: Objective,
        name: str,
        particles: FloatArray,
        buffers: Buffers,
        state: State,
        place: Place,
        n_steps: int = 1,
    ) -> tuple[Outcome, Info]:
        """Steps of one player, particles of shape (..., N, p), on what it faces."""
        players = tuple(state.clouds)
        sizes: dict[str, Scheduled] = each_player("step_size", self.step_size, players)
        temperatures: dict[str, Scheduled] = each_player("temperature", self.temperature, players)
        size = float(schedules.values("step_size", sizes[name], state.step, 1, positive=True)[0])
        temperature, first = (
            float(schedules.values("temperature", temperatures[name], k, 1)[0]) for k in (state.step, 0)
        )
        # Annealing leaves the reference measure as it is, as in MFLD.
        l2 = faced.l2 if temperature == first else float(faced.reference.follow(np.array(temperature), np.array(first)))
        plan = Plan(size, temperature, l2, self.gradient, self.dynamics, (place,))
        own = {key: value[np.newaxis] for key, value in buffers.items()}
        if self.dynamics.buffer_names and not any(key in own for key in self.dynamics.buffer_names):
            begun = self.dynamics.start(particles, plan.at(0, faced.space))
            own.update({key: value[np.newaxis] for key, value in begun.items()})
        outcome = steps(faced, particles[np.newaxis], own, n_steps, plan)
        if outcome.interrupt is not None:
            raise outcome.interrupt
        if outcome.bad is not None:
            raise DivergenceError(state.step, outcome.bad[1], size, state)
        return outcome, Info(
            1,
            loss=outcome.loss[0],
            gradient_norm=outcome.gradient_norm[0],
            step_size=size,
            temperature=temperature,
            l2=l2,
            acceptance=outcome.acceptance[0],
        )

    def _carried(self, name: str, state: State, *, fresh: bool = False) -> dict[str, NDArray[Any]]:
        """Buffers of estimator and dynamics of a player, of a state of one replicate.

        Without evaluations of what it faced before the others moved, if they are to be ``fresh``, or decide what is
        accepted.
        """
        names = set(self.gradient.buffer_names + self.dynamics.buffer_names)
        if fresh or self.dynamics.starts_anew:
            names -= set(self.dynamics.evaluations)
        found = {key: state.buffers.get(f"{name}.{key}") for key in sorted(names)}
        return {key: value[0] for key, value in found.items() if value is not None}


def _stretched(value: Any, share: Fraction, factor: float = 1.0) -> Any:
    if isinstance(value, Mapping):
        return {name: schedules.stretched(own, share, factor) for name, own in value.items()}
    return schedules.stretched(value, share, factor)


def single_clouds(state: State) -> dict[str, Cloud]:
    """Clouds of a state of one replicate, without its axis."""
    return {name: Cloud(cloud.particles[0]) for name, cloud in state.clouds.items()}


def fresh_uniforms(state: State, purpose: str) -> dict[str, FloatArray]:
    """Uniform numbers of a step that belong to the slots of each player, shape (..., N), for a purpose of the noise."""
    place = state.place(next(iter(state.clouds))).beside(purpose)
    shapes = {name: cloud.particles.shape[1:-1] for name, cloud in state.clouds.items()}
    columns = [math.prod(members) for *members, _ in shapes.values()]
    drawn = place.uniforms(max(n for *_, n in shapes.values()), sum(columns))
    ends = np.cumsum(columns)
    return {
        name: np.ascontiguousarray(drawn[: shape[-1], end - width : end].T).reshape(shape)
        for (name, shape), end, width in zip(shapes.items(), ends, columns, strict=True)
    }


def named(name: str, buffers: Buffers) -> dict[str, NDArray[Any]]:
    """Buffers of a player, under its name."""
    return {f"{name}.{key}": value for key, value in buffers.items()}


def seen_by(infos: Mapping[str, Info]) -> Info:
    """One step's Info from those of all players."""
    each = list(infos.values())

    def common(key: str) -> float:
        found = {getattr(info, key) for info in each}
        return float(found.pop()) if len(found) == 1 else math.nan

    return Info(
        1,
        loss=each[0].loss,
        gradient_norm=math.sqrt(float(np.mean([info.gradient_norm**2 for info in each]))),
        step_size=common("step_size"),
        temperature=common("temperature"),
        l2=common("l2"),
        acceptance=float(np.mean([info.acceptance for info in each])),
    )


def _of_players(name: str, value: Any, check: Any) -> Any:
    if isinstance(value, Mapping):
        return {player: check(f"{name}[{player!r}]", own) for player, own in value.items()}
    return check(name, value)
