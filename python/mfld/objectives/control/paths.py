"""Paths of a control problem: where they begin, what they weigh, and the noise of their states."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import noise, validation
from mfld.objectives.control.functions import Array


@dataclass(frozen=True, eq=False)
class Paths:
    """``n_paths`` paths from each initial state, in rows; batches are rows of initial states.

    Attributes
    ----------
    initial_states : ndarray, shape (S, d)
    sample_weight : ndarray, shape (S,), or None
        Of sum 1; None stands for 1/S each.
    sigma : ndarray, shape (d,)
    n_paths : int
    seed : int
    """

    initial_states: Array
    sample_weight: Array | None
    sigma: Array
    n_paths: int
    n_steps: int
    seed: int

    @classmethod
    def checked(
        cls,
        initial_states: ArrayLike,
        sample_weight: ArrayLike | None,
        state_noise: float | ArrayLike,
        n_paths: int,
        n_steps: int,
        seed: int,
    ) -> Paths:
        """Those of the arguments of `ControlProblem`."""
        states = np.atleast_1d(validation.array("initial_states", initial_states, np.float64))
        states = states[np.newaxis] if states.ndim == 1 else states
        validation.shape("initial_states", states, ("S", "d"), "(initial states, length of a state)")
        weights = None
        if sample_weight is not None:
            shape = (len(states),)
            weights = validation.weights("sample_weight", sample_weight, shape, "to match initial_states", np.float64)
        sigma = validation.array("state_noise", state_noise, np.float64)
        if sigma.ndim > 0:
            validation.shape("state_noise", sigma, (states.shape[1],), "(length of a state)")
        if (sigma < 0).any():
            raise ValueError(f"state_noise must be at least 0, got {sigma.min():g}")
        n_paths = validation.integer("n_paths", n_paths, 1)
        if n_paths > 1 and not sigma.any():
            raise ValueError(f"n_paths must be 1 without state_noise: all paths would be equal; got {n_paths}")
        sigma = validation.frozen(np.broadcast_to(sigma, (states.shape[1],)).copy())
        return cls(validation.frozen(states), weights, sigma, n_paths, n_steps, validation.seed(seed))

    def moved(self, initial_states: ArrayLike) -> Paths:
        """Paths from other initial states of equal weights, with the same noise."""
        states = np.atleast_2d(validation.array("initial_states", initial_states, np.float64))
        validation.shape("initial_states", states, ("S", self.initial_states.shape[1]), "to match the problem")
        return dataclasses.replace(self, initial_states=validation.frozen(states), sample_weight=None)

    def begin(self, rows: NDArray[np.int64] | None) -> Array:
        """States (M, d) of the paths from all initial states, or from these rows."""
        chosen = slice(None) if rows is None else rows
        return np.repeat(self.initial_states[chosen], self.n_paths, axis=0)

    def weights(self, rows: NDArray[np.int64] | None) -> Array:
        """Weights (M,) of these paths, those of rows times S / B."""
        n = len(self.initial_states)
        weights = np.full(n, 1 / n) if self.sample_weight is None else self.sample_weight
        weights = weights if rows is None else weights[rows] * (n / len(rows))
        return np.repeat(weights, self.n_paths) / self.n_paths

    def kicks(self, rows: NDArray[np.int64] | None) -> Array | None:
        """Normals times sigma of these paths in each step, shape (n_steps, M, d); None without noise."""
        if not self.sigma.any():
            return None
        chosen = slice(None) if rows is None else rows
        return self._kicks[:, chosen].reshape(self.n_steps, -1, len(self.sigma))

    @functools.cached_property
    def _kicks(self) -> Array:
        s, d = self.initial_states.shape
        place = noise.Place.of(self.seed)
        drawn = [place.ahead(k).normals(s * self.n_paths, d, "float64", "data") for k in range(self.n_steps)]
        return self.sigma * np.stack(drawn).reshape(self.n_steps, s, self.n_paths, d)
