"""Games: several measures, each of which minimises an objective of its own while the others stand still."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Self

import numpy as np

from mfld import validation
from mfld.objectives.base import Objective, Potential
from mfld.space import Space
from mfld.state import Cloud
from mfld.validation import FloatArray


class Game(ABC):
    """Several players, each a measure, with an objective that depends on the measures of the others.

    A player who maximises a payoff minimises its negative: there are no signs. What one player faces is an ordinary
    objective, so that every estimator and every dynamics serves games, and an algorithm for games is a rule of who
    moves when.

    Attributes
    ----------
    players : tuple of str
        Names of the players, which are those of the clouds in a `State`, in their order.
    spaces : mapping of str to Space
        Where the particles of each player live: algorithms draw initial particles there.
    members : mapping of str to tuple of int
        Leading axes of clouds of several members, of players whose strategies depend on an environment, such as time:
        see `Environment`. Players left out have one measure.

    Examples
    --------
    Matching pennies of two means, ``E x E y``, which x minimises and y maximises:

    >>> import numpy as np
    >>> import mfld
    >>> class Pennies(mfld.Game):
    ...     players = ("x", "y")
    ...     spaces = {"x": mfld.Space(1), "y": mfld.Space(1)}
    ...     def facing(self, name, clouds):
    ...         sign, other = (1, "y") if name == "x" else (-1, "x")
    ...         slope = sign * clouds[other].particles.mean(axis=0)
    ...         return mfld.Potential(lambda t: 0 * t + slope, lambda t: t @ slope, n_coordinates=1, l2=0.5)
    >>> clouds = {"x": mfld.Cloud([[1.0], [3.0]]), "y": mfld.Cloud([[0.5]])}
    >>> Pennies().facing("y", clouds).loss(clouds["y"])     # - E x E y
    -1.0
    """

    players: tuple[str, ...]
    spaces: Mapping[str, Space]
    members: Mapping[str, tuple[int, ...]] = MappingProxyType({})

    def on_threads(self, num_threads: int | None) -> Self:
        """The same game, evaluated on so many threads; None: what OpenMP would take. It never changes a value."""
        return self

    def still(self, name: str) -> Objective:
        """An objective on the space of a player, whose `initial_particles` are those that it starts from."""
        still = Potential(np.zeros_like, space=self.spaces[name])
        still.members = tuple(self.members.get(name, ()))
        return still

    @abstractmethod
    def facing(self, name: str, clouds: Mapping[str, Cloud]) -> Objective:
        """The objective that one player minimises while the others stand still.

        Parameters
        ----------
        name : str
            Of the player.
        clouds : mapping of str to Cloud
            The measures of all players, each with the shape that its objective takes. The player's own does not matter,
            but for payoffs that are not linear in it.

        Returns
        -------
        Objective
        """

    def moments(self, name: str, clouds: Mapping[str, Cloud]) -> FloatArray | None:
        """Numbers that are linear in each measure of the others and say what a player faces, or None without such.

        Returns
        -------
        ndarray, shape (..., K), or None
        """
        return None

    def facing_moments(self, name: str, moments: FloatArray) -> Objective:
        """The objective of a player from `moments`, which may be averages of those of several measures."""
        raise TypeError(f"game must have moments of what {name} faces, got {self!r}")


class SinglePlayer(Game):
    """Game of one player, "mu", who minimises an objective: so that algorithms for games optimise over one measure.

    `BestResponse` is then entropic fictitious play. Sources: Chen, Ren, Wang 2023, "Entropic fictitious play for mean
    field optimization problem"; Nitanda et al. 2023.

    Parameters
    ----------
    objective : Objective
        With a first variation.

    Raises
    ------
    TypeError
        If it is no Objective.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> inputs = np.linspace(-1, 1, 20)[:, np.newaxis]
    >>> network = mfld.TwoLayerNetwork(n_features=1)
    >>> risk = mfld.EmpiricalRisk(network, inputs, inputs[:, 0] ** 2, loss="squared", l2=1e-3)
    >>> play = mfld.BestResponse(500, step_size=0.5, temperature=1e-4, share=0.1)
    >>> risk.loss(play.run(mfld.SinglePlayer(risk), n_steps=100).state.measure) < 0.02
    True
    """

    players = ("mu",)

    def __init__(self, objective: Objective) -> None:
        self.objective = validation.instance("objective", objective, Objective, "an Objective")
        self.spaces = {"mu": objective.space}
        self.members = {"mu": objective.members}

    def __repr__(self) -> str:
        return f"SinglePlayer({self.objective!r})"

    def on_threads(self, num_threads: int | None) -> Self:
        return type(self)(self.objective.on_threads(num_threads))

    def facing(self, name: str, clouds: Mapping[str, Cloud]) -> Objective:
        validation.choice("name", name, self.players)
        return self.objective
