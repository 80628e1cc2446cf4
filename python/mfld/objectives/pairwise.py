"""Games of players who meet in pairs: every payoff is linear in each measure."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Self, TypeAlias, TypeVar

import numpy as np

from mfld import references, validation
from mfld.kernels import Kernel
from mfld.objectives.base import Potential
from mfld.objectives.game import Game
from mfld.payoffs import OfKernel, Opposite, Payoff
from mfld.references import Reference
from mfld.space import Space
from mfld.state import Cloud
from mfld.validation import FloatArray

_Value = TypeVar("_Value")
PerPlayer: TypeAlias = _Value | Mapping[str, _Value]
"""One for all players, or a mapping of their names."""
_Average: TypeAlias = Callable[[FloatArray], tuple[FloatArray, FloatArray]]


class PairwiseGame(Game):
    """Players who meet in pairs: each minimises ``sum_j E Q_ij(theta_i, theta_j)`` over the players j that it meets.

    Parameters
    ----------
    payoffs : mapping of pairs of str to Payoff or Kernel
        ``payoffs[i, j]``: what the player i pays when it meets j, a function of a point of i and of one of j.
    players : sequence of str, optional
        Names in their order; by default as they appear in payoffs.
    space : int, Space, or mapping of str to those
        Of each player, or one for all; an integer is the dimension of a Euclidean space.
    l2 : float or mapping of str to float
        Ridge of each player, ``l2 |theta|**2``: the reference ``N(0, temperature / (2 l2))``.
    reference : Reference or mapping of str to Reference, optional
        In place of l2.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or payoffs and spaces do not suit each other.

    Examples
    --------
    Three players in a circle, each of whom runs from the next:

    >>> import mfld
    >>> near = mfld.kernels.Gaussian(1.0)
    >>> chase = mfld.PairwiseGame({("a", "b"): near, ("b", "c"): near, ("c", "a"): near}, space=2, l2=0.1)
    >>> chase.players
    ('a', 'b', 'c')
    >>> clouds = {name: mfld.Cloud([[0.0, 0.0]]) for name in chase.players}
    >>> chase.facing("a", clouds)([[0.0, 0.0]])
    array([1.])
    """

    def __init__(
        self,
        payoffs: Mapping[tuple[str, str], Payoff | Kernel],
        *,
        players: Sequence[str] | None = None,
        space: PerPlayer[int | Space],
        l2: PerPlayer[float] = 0.0,
        reference: PerPlayer[Reference] | None = None,
    ) -> None:
        validation.instance("payoffs", payoffs, Mapping, "a mapping of pairs of players to payoffs")
        for pair in payoffs:
            if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(name, str) for name in pair)):
                raise TypeError(f"payoffs must have pairs of names as keys, got {pair!r}")
            if pair[0] == pair[1]:
                raise ValueError(f"payoffs must be of two different players, got {pair!r}")
        named = tuple(dict.fromkeys(name for pair in payoffs for name in pair))
        if not named:
            raise ValueError("payoffs must hold at least one pair of players, got none")
        if players is not None:
            validation.instance("players", players, Sequence, "a sequence of names")
            if sorted(map(str, players)) != sorted(named):
                raise ValueError(f"players must be the names {', '.join(named)} in some order, got {players!r}")
            named = tuple(players)
        self.players = named
        spaces = each_player("space", space, named)
        self.spaces = {name: _space(own) for name, own in spaces.items()}
        ridges = each_player("l2", l2, named)
        given = each_player("reference", reference, named)
        self.references = {name: references.given(ridges[name], given[name], self.spaces[name]) for name in named}
        self.payoffs = {pair: _payoff(pair, own) for pair, own in payoffs.items()}
        for (first, second), payoff in self.payoffs.items():
            payoff.check(self.spaces[first], self.spaces[second])
        self._num_threads: int | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.players)})"

    def on_threads(self, num_threads: int | None) -> Self:
        if num_threads == self._num_threads:
            return self
        game = copy.copy(self)
        game._num_threads = num_threads
        return game

    def facing(self, name: str, clouds: Mapping[str, Cloud]) -> Potential:
        validation.choice("name", name, self.players)
        threads = self._num_threads
        return self._potential(
            name,
            [
                functools.partial(payoff.average, measure=clouds[other], player=0, num_threads=threads)
                for other, payoff in self._met_by(name)
            ],
        )

    def moments(self, name: str, clouds: Mapping[str, Cloud]) -> FloatArray | None:
        validation.choice("name", name, self.players)
        met = self._met_by(name)
        if not all(payoff.n_moments for _, payoff in met):
            return None
        return np.concatenate([np.empty(0), *(payoff.moments(clouds[other], 1) for other, payoff in met)])

    def facing_moments(self, name: str, moments: FloatArray) -> Potential:
        validation.choice("name", name, self.players)
        payoffs = [payoff for _, payoff in self._met_by(name)]
        ends = np.cumsum([payoff.n_moments for payoff in payoffs])
        parts = np.split(moments, ends)[: len(payoffs)]
        return self._potential(
            name,
            [
                functools.partial(payoff.average_by_moments, moments=own, player=0)
                for payoff, own in zip(payoffs, parts, strict=True)
            ],
        )

    def _met_by(self, name: str) -> list[tuple[str, Payoff]]:
        """Players whom one meets, and what it pays then."""
        return [(j, payoff) for (i, j), payoff in self.payoffs.items() if i == name]

    def _potential(self, name: str, averages: Sequence[_Average]) -> Potential:
        average = _Averages(averages)
        return Potential(
            lambda points: average(points)[1],
            lambda points: average(points)[0],
            value_and_gradient=average,
            space=self.spaces[name],
            reference=self.references[name],
        )


class Bilinear(PairwiseGame):
    """Zero-sum game of two players: x minimises, y maximises ``E Q(x, y)``, each with entropy and a reference.

    With temperatures T it is ``min_mu max_nu E Q + T KL(mu | reference_x) - T KL(nu | reference_y)``, whose equilibrium
    is unique: each measure is the Gibbs law of the average payoff over the other. Source: Kim et al. 2024, "Symmetric
    mean-field Langevin dynamics for distributional minimax problems".

    Parameters
    ----------
    payoff : Payoff or Kernel
        Q: see `mfld.payoffs`.
    space, l2, reference
        As in `PairwiseGame`, with the players "x" and "y".

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or payoff and spaces do not suit each other.

    Examples
    --------
    >>> import mfld
    >>> saddle = mfld.Bilinear(mfld.payoffs.Polynomial({(1, 1): 2.0, (1, 0): 1.0}), space=1, l2=0.5)
    >>> solver = mfld.DescentAscent(2000, step_size=0.05, temperature=0.1)
    >>> result = solver.run(saddle, n_steps=400)
    >>> {name: round(float(cloud.particles.mean()), 1) for name, cloud in result.state.clouds.items()}
    {'x': -0.2, 'y': -0.4}
    """

    def __init__(
        self,
        payoff: Payoff | Kernel,
        *,
        space: PerPlayer[int | Space],
        l2: PerPlayer[float] = 0.0,
        reference: PerPlayer[Reference] | None = None,
    ) -> None:
        own = OfKernel(payoff) if isinstance(payoff, Kernel) else payoff
        validation.instance("payoff", own, Payoff, "a Payoff or a Kernel")
        meetings = {("x", "y"): own, ("y", "x"): Opposite(own)}
        super().__init__(meetings, space=space, l2=l2, reference=reference)
        self.payoff = own

    def __repr__(self) -> str:
        return f"Bilinear({self.payoff!r})"


class _Averages:
    """Sums of averages of payoffs, and of gradients; those of the last points are kept, since steps ask for both."""

    def __init__(self, averages: Sequence[_Average]) -> None:
        self._averages = averages
        self._last: tuple[FloatArray, tuple[FloatArray, FloatArray]] | None = None

    def __call__(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        if self._last is not None and self._last[0].dtype == points.dtype and np.array_equal(self._last[0], points):
            return self._last[1]
        values, gradient = np.zeros(len(points), points.dtype), np.zeros_like(points)
        for average in self._averages:
            own, slope = average(points)
            values = values + _of_average("values", own, values)
            gradient = gradient + _of_average("gradients", slope, gradient)
        self._last = (points.copy(), (values, gradient))
        return values, gradient


def _of_average(name: str, given: object, like: FloatArray) -> FloatArray:
    return validation.returned(f"the {name} of a payoff's average", given, like.shape, like.dtype, "to match points")


def each_player(name: str, value: PerPlayer[_Value], players: Sequence[str]) -> dict[str, _Value]:
    """One value for each player, from one for all or a mapping of their names."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(players, value)
    if set(value) != set(players):
        raise ValueError(f"{name} must be one for all players, or have each of {', '.join(players)}; got {list(value)}")
    return {player: value[player] for player in players}


def _space(given: object) -> Space:
    if isinstance(given, Space):
        return given
    if isinstance(given, (int, np.integer)) and not isinstance(given, bool):
        return Space(validation.integer("space", given, 1))
    raise TypeError(f"space must be a Space or a number of coordinates, got {validation.show(given)}")


def _payoff(pair: tuple[str, str], given: Payoff | Kernel) -> Payoff:
    if isinstance(given, Kernel):
        return OfKernel(given)
    return validation.instance(f"payoffs[{pair!r}]", given, Payoff, "a Payoff or a Kernel")
