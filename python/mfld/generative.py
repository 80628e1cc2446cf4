"""Generators from samples: a mean-field GAN with a gradient penalty on rows that are made comparable.

Columns are centred and scaled to unit deviation; those that are constant come back as they are. Both networks have ReLU
neurons, whose scales are those that eight Gaussians on a circle are learnt with; `DescentAscent` moves the critic five
times as fast as the generator, by steps that fall over the second half of a run, so that the players come to rest.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation
from mfld.algorithms.games import DescentAscent
from mfld.dynamics import Dynamics, Overdamped
from mfld.floating import underflow_is_zero
from mfld.gradients import Minibatch
from mfld.models import TwoLayerNetwork
from mfld.objectives import GradientPenalty, MeanFieldGAN
from mfld.state import Cloud, State
from mfld.validation import FloatArray

_SCALE = 10.0  # of both networks
_STEPS = {"generator": 0.004, "critic": 0.02}
_WIDE = 10.0  # columns: with more, steps are as much smaller, as rows are longer and gradients steeper
_LAST = 0.02  # share of a step size at the end
_L2 = {"generator": 1e-4, "critic": 1e-3}
_LARGEST = 1e100


@dataclass(frozen=True, eq=False)
class Generator:
    """A trained generator and its critic, in the units of the rows.

    Attributes
    ----------
    game : MeanFieldGAN
        Of the standardised rows.
    clouds : dict of str to Cloud
        Particles of generator and critic.
    centre, scale : ndarray, shape (d,)
    """

    game: MeanFieldGAN
    clouds: dict[str, Cloud]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]

    def sample(self, n_samples: int, seed: int = 0) -> NDArray[np.float64]:
        """Generated rows, shape (n_samples, d); the first ones do not depend on how many there are."""
        return self.generated(self.clouds["generator"], n_samples, seed)

    def generated(self, cloud: Cloud, n_samples: int, seed: int = 0) -> NDArray[np.float64]:
        """Rows that another cloud of the generator makes."""
        made = self.game.generate(cloud, n_samples, seed).astype(np.float64)
        return np.asarray(self.centre + self.scale * made)

    def critic_values(self, rows: ArrayLike) -> NDArray[np.float64]:
        """Values of the critic at rows, shape (n,): high where there was more data than generated rows."""
        given = validation.array("rows", rows, np.float64)
        validation.shape("rows", given, ("n", len(self.centre)), "(rows, columns)")
        scale = np.where(self.scale > 0, self.scale, 1)
        return self.game.critic_values(self.clouds["critic"], (given - self.centre) / scale).astype(np.float64)


@underflow_is_zero
def fit(
    rows: ArrayLike,
    *,
    n_particles: int = 200,
    n_latent: int | None = None,
    n_steps: int = 10_000,
    batch_size: int = 128,
    temperature: float = 1e-4,
    penalty: float = 0.05,
    dynamics: Dynamics | None = None,
    seed: int = 0,
    num_threads: int | None = None,
    on_step: Callable[[Generator, int], Any] | None = None,
    every: int = 50,
) -> Generator:
    """Fit a generator to rows.

    Parameters
    ----------
    rows : array_like, shape (n, d)
    n_particles : int
        Of the generator and of the critic.
    n_latent : int, optional
        Latent coordinates, by default d.
    n_steps, batch_size : int
        A batch has at most as many rows as there are. Steps are smaller beyond 10 columns or latent coordinates.
    temperature : float
    penalty : float
        Strength of the gradient penalty at the data, positive: the smaller, the sharper what the critic tells apart,
        until it runs away from the generator: on eight Gaussians below half of the default.
    dynamics : Dynamics, optional
        By default `Overdamped`.
    seed : int
    num_threads : int, optional
        It never changes a number.
    on_step : callable, optional
        ``on_step(generator, step)``, called at the start and at each multiple of ``every`` steps: for pictures.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    DivergenceError
        If a step leads to infinity.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import generative
    >>> rows = np.random.default_rng(0).normal(5.0, 2.0, size=(500, 1))
    >>> made = generative.fit(rows, n_steps=1000).sample(1000)
    >>> bool(abs(made.mean() - 5) < 0.5)
    True
    """
    given = validation.array("rows", rows, np.float64)
    validation.shape("rows", given, ("n", "d"), "(rows, columns)")
    if np.abs(given).max() > _LARGEST:
        raise ValueError(f"rows must be within {_LARGEST:g}, got {np.abs(given).max():g}")
    n_particles = validation.integer("n_particles", n_particles, 1)
    n_latent = given.shape[1] if n_latent is None else validation.integer("n_latent", n_latent, 1)
    n_steps, every = validation.integer("n_steps", n_steps, 0), validation.integer("every", every, 1)
    batch_size = validation.integer("batch_size", batch_size, 1)
    strength = validation.real("penalty", penalty, positive=True)
    seed = validation.seed(seed)
    if on_step is not None:
        validation.function("on_step", on_step)
    centre = given[0] + (given - given[0]).mean(axis=0)  # exact for constants
    reach = np.abs(given - centre).max(axis=0)
    unit = np.where(reach > 0, reach, 1)
    scale = reach * ((given - centre) / unit).std(axis=0)
    slower = min(1.0, _WIDE / max(given.shape[1], n_latent))
    game = _game(n_latent, (given - centre) / np.where(scale > 0, scale, 1), strength)
    solver = DescentAscent(
        n_particles,
        step_size={name: functools.partial(_falling, size * slower, n_steps) for name, size in _STEPS.items()},
        temperature=temperature,
        gradient=Minibatch(min(batch_size, len(given))),
        dynamics=Overdamped() if dynamics is None else dynamics,
        num_threads=num_threads,
    )

    def reached(state: State) -> Generator:
        clouds = {name: Cloud(cloud.particles[0]) for name, cloud in state.clouds.items()}
        return Generator(game.on_threads(num_threads), clouds, centre, scale)

    state = solver.init(game, seed=seed)
    with warnings.catch_warnings():
        # Players that go round each other are what a GAN is trained by.
        warnings.filterwarnings("ignore", message="the run circles")
        while True:
            if on_step is not None:
                on_step(reached(state), state.step)
            left = n_steps - state.step
            if left <= 0:
                return reached(state)
            state = solver.advance(game, state, left if on_step is None else min(every, left))[0]


def rebuilt(
    n_latent: int, centre: FloatArray, scale: FloatArray, generator: FloatArray, critic: FloatArray
) -> Generator:
    """A generator from its numbers, without the rows that it was made from."""
    validation.shape("centre", centre, ("d",))
    validation.shape("scale", scale, centre.shape, "to match centre")
    game = _game(n_latent, np.zeros((1, len(centre))), 1.0)
    for name, particles in (("generator", generator), ("critic", critic)):
        validation.shape(name, particles, ("N", game.spaces[name].n_coordinates))
    return Generator(
        game,
        {"generator": Cloud(generator), "critic": Cloud(critic)},
        centre.astype(np.float64),
        scale.astype(np.float64),
    )


def _falling(size: float, n_steps: int, step: int) -> float:
    """Step size of a step: as given in the first half of a run, and then on a line."""
    return size * min(1.0, max(_LAST, 2 * (1 - step / n_steps)))


def _game(n_latent: int, rows: FloatArray, penalty: float) -> MeanFieldGAN:
    d = rows.shape[1]
    return MeanFieldGAN(
        TwoLayerNetwork(n_latent, d, activation="relu", output_scale=_SCALE),
        TwoLayerNetwork(d, activation="relu", output_scale=_SCALE),
        rows,
        penalty=GradientPenalty(penalty),
        l2=_L2,
    )
