"""Games on random environments: strategies that depend on what is seen, one measure for each atom of the environment.

A strategy ``mu(d theta | y)`` is a measure for each atom y, of fixed law m. The objective of a player is a functional
of all of them with its entropies, ``F + T sum_e m_e KL(mu_e | reference)``; per mass of an atom its first variation is
a potential for each, and at an equilibrium every conditional strategy is the Gibbs law of its own. Times of a dynamic
game are atoms, too. Source: Conforti, Kazeykina, Ren 2020, "Game on random environment, mean-field Langevin system and
neural networks".
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation
from mfld.objectives.base import Measure, Objective, Potential
from mfld.objectives.game import Game
from mfld.state import Cloud
from mfld.validation import FloatArray


class Conditional(Objective):
    """Objective of a conditional strategy, ``sum_e weights_e F_e(mu_e)``: one objective for each atom.

    Its measures have the shape (E, N, p), a member for each atom. Gradients and first variations are those per mass of
    the atom, ``grad dF_e/dmu_e``, without its weight.

    Parameters
    ----------
    objectives : sequence of Objective
        On one space, with one reference.
    weights : array_like, shape (E,), optional
        Of the atoms, by default equal.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or the objectives do not belong together.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> wells = [mfld.Potential(lambda x, c=c: x - c, n_coordinates=1) for c in (-1.0, 2.0)]
    >>> result = mfld.MFLD(500, step_size=0.1, temperature=0.01).run(mfld.Conditional(wells), n_steps=100)
    >>> result.particles.mean(axis=1).round(1).ravel().tolist()
    [-1.0, 2.0]
    """

    def __init__(self, objectives: Sequence[Objective], weights: ArrayLike | None = None) -> None:
        validation.instance("objectives", objectives, Sequence, "a sequence of objectives")
        if not objectives:
            raise ValueError("objectives must hold at least one, got none")
        for e, own in enumerate(objectives):
            validation.instance(f"objectives[{e}]", own, Objective, "an Objective")
            own.check()
            if own.members:
                raise ValueError(f"objectives[{e}] must have no members itself, got {own.members}")
        first = objectives[0]
        for name in ("space", "reference", "n_samples", "metric"):
            if len({repr(getattr(own, name)) for own in objectives}) > 1:
                raise ValueError(f"objectives must have the same {name}, got several")
        self.space, self.reference, self.metric = first.space, first.reference, first.metric
        self.n_samples = first.n_samples
        self.members = (len(objectives),)
        self.linear = all(own.linear for own in objectives)
        self.has_value = all(own.has_value for own in objectives)
        self.weights = _weights(weights, len(objectives))
        self._objectives = tuple(objectives)

    @property
    def conditionals(self) -> tuple[tuple[float, Objective], ...]:
        return tuple(zip(self.weights.tolist(), self._objectives, strict=True))

    def on_threads(self, num_threads: int | None) -> Self:
        own = copy.copy(self)
        own._objectives = tuple(each.on_threads(num_threads) for each in self._objectives)
        return own

    def loss(self, measure: Measure) -> float:
        return float(sum(w * own.loss(cloud) for w, own, cloud in self._each(measure)))

    def ridge(self, measure: Measure) -> float:
        return float(sum(w * own.ridge(cloud) for w, own, cloud in self._each(measure)))

    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        return np.stack([own.loss_gradient(cloud, batch) for _, own, cloud in self._each(measure)])

    def first_variation(self, measure: Measure, batch: ArrayLike | None = None) -> Any:
        """First variation in each conditional measure, as a `Conditional` of potentials."""
        return Conditional([own.first_variation(cloud, batch) for _, own, cloud in self._each(measure)], self.weights)

    def _each(self, measure: Measure) -> Iterator[tuple[float, Objective, Cloud]]:
        clouds = self.cloud(measure).each()
        return zip(self.weights.tolist(), self._objectives, clouds, strict=True)


class Environment:
    """Environment of finitely many atoms y with their law: types, times, or samples, that players see.

    Parameters
    ----------
    atoms : array_like, shape (E,) or (E, k)
        Numbers or rows of numbers.
    weights : array_like, shape (E,), optional
        Law of the atoms, by default uniform; normalised to sum 1.

    Raises
    ------
    TypeError, ValueError
        If an array is of the wrong kind or shape, or a weight is negative.

    Examples
    --------
    The sign of a coupling is drawn, and both players see it:

    >>> import mfld
    >>> signs = mfld.Environment([-1.0, 1.0])
    >>> def at(sign):
    ...     payoff = mfld.payoffs.Polynomial({(1, 1): 2.0 * float(sign), (1, 0): 1.0})
    ...     return mfld.Bilinear(payoff, space=1, l2=0.5)
    >>> result = mfld.DescentAscent(2000, step_size=0.05, temperature=0.01).run(signs.game(at), n_steps=400)
    >>> [round(float(mean), 1) for mean in result.state.clouds["y"].particles.mean(axis=-2).ravel()]     # of y
    [0.4, -0.4]
    """

    def __init__(self, atoms: ArrayLike, weights: ArrayLike | None = None) -> None:
        checked = validation.array("atoms", atoms, np.float64)
        if checked.ndim not in (1, 2) or 0 in checked.shape:
            raise ValueError(f"atoms must have shape (E,) or (E, k) with each at least 1, got {checked.shape}")
        self.atoms = validation.frozen(checked)
        self.weights = _weights(weights, len(checked))

    def __len__(self) -> int:
        return len(self.atoms)

    def __repr__(self) -> str:
        return f"Environment({len(self)} atom{'s' if len(self) > 1 else ''})"

    def mean(self, values: ArrayLike) -> NDArray[np.float64]:
        """Expectation over the atoms of values, shape (E, ...) -> (...).

        Raises
        ------
        TypeError, ValueError
            If there is not a value for each atom.
        """
        each = validation.array("values", values, np.float64)
        if each.ndim == 0 or len(each) != len(self):
            raise ValueError(f"values must have one for each of {len(self)} atoms, got shape {each.shape}")
        return np.asarray(np.tensordot(self.weights, each, axes=1))

    def facing(self, objectives: Sequence[Objective]) -> Conditional:
        """Objective of a player who sees the environment, from what it faces at each atom.

        Raises
        ------
        TypeError, ValueError
            As `Conditional` does.
        """
        validation.instance("objectives", objectives, Sequence, "a sequence of objectives")
        if len(objectives) != len(self):
            raise ValueError(f"objectives must be one for each of {len(self)} atoms, got {len(objectives)}")
        return Conditional(objectives, self.weights)

    def game(self, at: Callable[[Any], Game], *, unseen_by: Sequence[str] = ()) -> EnvironmentGame:
        """Game that is another one at each atom: see `EnvironmentGame`."""
        return EnvironmentGame(self, at, unseen_by=unseen_by)


class EnvironmentGame(Game):
    """Game that is another one at each atom of an environment, which players see before they move.

    A player who sees has a conditional strategy: particles of shape (E, N, p), a member for each atom, and faces the
    others there. Where all see, these are independent games. A player who does not has one strategy, and faces
    the mean over the atoms.

    Parameters
    ----------
    environment : Environment
    at : callable
        ``at(atom)``: the game at an atom, with the same players, spaces and references at all of them.
    unseen_by : sequence of str
        Players who do not see the atom; what they face must be linear in their own measure.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or the games do not belong together.

    Examples
    --------
    y knows whether the coin is heads, and x does not:

    >>> import mfld
    >>> def at(side):
    ...     return mfld.Bilinear(mfld.payoffs.Polynomial({(1, 1): float(side)}), space=1, l2=0.5)
    >>> game = mfld.EnvironmentGame(mfld.Environment([-1.0, 1.0]), at, unseen_by=["x"])
    >>> clouds = {"x": mfld.Cloud([[0.5]]), "y": mfld.Cloud([[[0.0]], [[2.0]]])}
    >>> game.facing("x", clouds).loss_gradient(clouds["x"]).tolist()
    [[1.0]]
    >>> game.facing("y", clouds).loss_gradient(clouds["y"]).ravel().tolist()
    [0.5, -0.5]
    """

    def __init__(self, environment: Environment, at: Callable[[Any], Game], *, unseen_by: Sequence[str] = ()) -> None:
        self.environment = validation.instance("environment", environment, Environment, "an Environment")
        validation.function("at", at)
        self._games = tuple(
            validation.instance("the result of at", at(atom), Game, "a Game") for atom in environment.atoms
        )
        first = self._games[0]
        for game in self._games:
            differs = tuple(game.players) != tuple(first.players) or dict(game.spaces) != dict(first.spaces)
            if differs or any(game.members.values()):
                raise ValueError(
                    f"at must give games of the same players and spaces, without members, got {game!r} beside {first!r}"
                )
        self.players, self.spaces = tuple(first.players), first.spaces
        if isinstance(unseen_by, str) or not isinstance(unseen_by, Sequence):
            raise TypeError(f"unseen_by must be a sequence of names, got {validation.show(unseen_by)}")
        for name in unseen_by:
            validation.choice("a name in unseen_by", name, self.players)
        self.unseen_by = tuple(unseen_by)
        self.members = {name: (len(environment),) for name in self.players if name not in self.unseen_by}

    def __repr__(self) -> str:
        return f"EnvironmentGame({self.environment!r}, {self._games[0]!r})"

    def on_threads(self, num_threads: int | None) -> Self:
        game = copy.copy(self)
        game._games = tuple(own.on_threads(num_threads) for own in self._games)
        return game

    def facing(self, name: str, clouds: Mapping[str, Cloud]) -> Objective:
        validation.choice("name", name, self.players)
        seen = self._seen(clouds)
        faced = [game.facing(name, here) for game, here in zip(self._games, seen, strict=True)]
        if name not in self.members:
            for own in faced:
                if not own.linear:
                    raise TypeError(f"what {name} faces must be linear in its measure, since it sees no atom: {own!r}")
            faced = [own.first_variation(seen[0][name]) for own in faced]
        return self._together(name, faced)

    def moments(self, name: str, clouds: Mapping[str, Cloud]) -> FloatArray | None:
        each = [game.moments(name, here) for game, here in zip(self._games, self._seen(clouds), strict=True)]
        known = [own for own in each if own is not None]
        if len(known) < len(each) or len({own.shape for own in known}) > 1:
            return None
        return np.stack(known)

    def facing_moments(self, name: str, moments: FloatArray) -> Objective:
        faced = [game.facing_moments(name, own) for game, own in zip(self._games, moments, strict=True)]
        return self._together(name, faced)

    def _seen(self, clouds: Mapping[str, Cloud]) -> list[dict[str, Cloud]]:
        """Clouds of the players at each atom."""
        each = {player: cloud.each() for player, cloud in clouds.items()}
        return [
            {player: own[e if player in self.members else 0] for player, own in each.items()}
            for e in range(len(self.environment))
        ]

    def _together(self, name: str, faced: Sequence[Objective]) -> Objective:
        """Objective of a player from what it faces at each atom, which are potentials if it sees none."""
        return self.environment.facing(faced) if name in self.members else _mean(faced, self.environment)


def _mean(potentials: Sequence[Any], environment: Environment) -> Potential:
    """Mean of potentials of one space and reference over an environment."""
    first = potentials[0]
    Conditional(potentials)  # refuses what has not one space and reference

    def mean(values: list[FloatArray]) -> FloatArray:
        return environment.mean(np.stack(values))

    def value_and_gradient(points: FloatArray) -> tuple[FloatArray, FloatArray]:
        both = [own.value_and_gradient(points) for own in potentials]
        return mean([pay for pay, _ in both]), mean([slope for _, slope in both])

    has_value = all(own.has_value for own in potentials)
    return Potential(
        lambda points: mean([own.loss_gradient(points) for own in potentials]),
        (lambda points: value_and_gradient(points)[0]) if has_value else None,
        value_and_gradient=value_and_gradient if has_value else None,
        space=first.space,
        reference=first.reference,
    )


def _weights(given: ArrayLike | None, n: int) -> NDArray[np.float64]:
    if given is None:
        return np.full(n, 1 / n)
    checked = validation.weights("weights", given, (n,), "to match the atoms", np.float64)
    return checked.astype(np.float64, copy=False)
