"""Plateaus: a callback that ends a run there, and the rule by which algorithms of two phases switch."""

from __future__ import annotations

import math
from collections.abc import Callable

from numpy.typing import ArrayLike

from mfld import validation
from mfld.algorithms.base import SEEN, Callback
from mfld.state import Info, State


class StopOnPlateau(Callback):
    """Stop a run when a quantity that should fall has not fallen for some time.

    A value is progress if it is below the lowest one since the start of the run by more than ``tolerance``. After
    ``patience`` values in a row without progress the run stops; NaN is no progress. A run that goes on from a state
    starts to count anew.

    Parameters
    ----------
    quantity : callable or str
        A function of the state, like ``mfld.quantities.loss(validation_risk)``, or the name of an entry of `Info`.
    patience : int
    tolerance : float
        At least 0, in the units of the quantity.
    every : int
        Look at each multiple of so many steps and, as a callback, at the end; ``patience`` counts looks.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, lambda x: (x**2).sum(axis=1) / 2, n_coordinates=1)
    >>> descent = mfld.MFLD(n_particles=1, step_size=0.5, temperature=0.0)
    >>> plateau = mfld.StopOnPlateau("loss", patience=3, tolerance=0.01, every=1)
    >>> descent.run(well, n_steps=1000, particles=[[1.0]], callbacks=[plateau]).state.step
    7
    """

    def __init__(
        self,
        quantity: Callable[[State], ArrayLike] | str,
        patience: int = 10,
        tolerance: float = 0.0,
        every: int = 10,
    ) -> None:
        if isinstance(quantity, str):
            validation.choice("quantity", quantity, SEEN)
        else:
            validation.function("quantity", quantity)
        self._quantity = quantity
        self._patience = validation.integer("patience", patience, 1)
        self._tolerance = validation.real("tolerance", tolerance, non_negative=True)
        self.every = validation.integer("every", every, 1)

    @property
    def patience(self) -> int:
        """Values in a row without progress after which it is time to stop."""
        return self._patience

    def on_start(self, state: State, n_steps: int) -> None:
        self._followed = (math.inf, 0)

    def __call__(self, state: State, info: Info) -> bool:
        self._followed = self.follow(self._followed, state, info)
        return self._followed[1] >= self._patience

    def follow(self, followed: tuple[float, int], state: State, info: Info) -> tuple[float, int]:
        """The lowest value and how many came since, one value later; before the first one they are (inf, 0)."""
        lowest, waited = followed
        name = self._quantity
        given = getattr(info, name) if isinstance(name, str) else name(state)
        value = float(validation.returned("the result of quantity", given, (), "float64", ""))
        if value < lowest - self._tolerance or (lowest == math.inf and not math.isnan(value)):
            return value, 0
        return lowest, waited + 1
