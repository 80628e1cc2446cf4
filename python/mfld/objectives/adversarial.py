"""Generative adversarial networks: a generator and a critic, each a measure over neurons."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mfld import references, validation
from mfld.models import Model
from mfld.noise import Place
from mfld.objectives.base import Measure, Objective, Potential
from mfld.objectives.game import Game
from mfld.objectives.pairwise import PerPlayer, each_player
from mfld.references import Reference
from mfld.state import Cloud
from mfld.validation import FloatArray, FloatDType

_AT = ("data", "between")


@dataclass(frozen=True)
class GradientPenalty:
    """Penalty of a critic, ``strength * E (|grad_x D(x)| - target)**2``.

    With ``target=0`` it is convex in the measure of the critic; with 1 it asks for the slope of an optimal critic of
    the Wasserstein distance.

    Parameters
    ----------
    strength : float
        Positive.
    target : float
        At least 0.
    at : {"data", "between"}
        Where: at the data, or at ``t x + (1 - t) G(z)`` with t uniform in (0, 1), of which there is no end.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    References
    ----------
    Mescheder, Geiger, Nowozin 2018, "Which training methods for GANs do actually converge?" (target 0, at the data);
    Gulrajani et al. 2017, "Improved training of Wasserstein GANs" (target 1, between).

    Examples
    --------
    >>> import mfld
    >>> mfld.GradientPenalty(10.0, target=1.0, at="between")
    GradientPenalty(strength=10.0, target=1.0, at='between')
    """

    strength: float
    target: float = 0.0
    at: str = "data"

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", validation.real("strength", self.strength, positive=True))
        object.__setattr__(self, "target", validation.real("target", self.target, non_negative=True))
        validation.choice("at", self.at, _AT)

    def value(self, slopes: FloatArray) -> float:
        """The penalty at slopes of the critic, shape (n, d)."""
        return self.strength * float(np.mean((_length(slopes)[:, 0] - self.target) ** 2))

    def directions(self, slopes: FloatArray) -> FloatArray:
        """Its derivative in each slope, shape (n, d): 0 at a slope of 0, where a positive target has a kink."""
        length = _length(slopes)
        unit = slopes / np.where(length > 0, length, 1)
        return np.asarray(2 * self.strength / len(slopes) * (length - self.target) * unit, slopes.dtype)


class _Batch(NamedTuple):
    """Samples of a step, in float64: data, latent points and, for each, its place between data and generated points."""

    data: FloatArray
    latent: FloatArray
    between: FloatArray


Sampler: TypeAlias = Callable[[int, int], ArrayLike]


class MeanFieldGAN(Game):
    """Generative adversarial network of two measures over neurons: a generator and its critic.

    ::

        min over mu, max over nu of   E_data D_nu(x) - E_z D_nu(G_mu(z)) - penalty(nu)
        G_mu(z) = E_mu h(theta, z),   D_nu(x) = E_nu h(theta, x)

    each with entropy and a reference; the penalty is the critic's alone. The generator faces the first variation
    ``-E_z grad D_nu(G_mu(z)) . h(theta, z)``, which depends on its own measure, and the critic
    ``E_z h(theta, G_mu(z)) - E_data h(theta, x)``, which does not but for the penalty. D is kept from growing by the
    ridge, by a bounded readout, by a critic on a `Box` (weight clipping), or by the penalty. Sources: Conforti,
    Kazeykina, Ren 2020, "Game on random environment, mean-field Langevin system and neural networks"; Kazeykina, Ren,
    Tan, Yang 2020, "Ergodicity of the underdamped mean-field Langevin dynamics".

    Parameters
    ----------
    generator : Model
        From latent space to data space: ``n_features`` latent coordinates and an output for each column of the data.
    critic : Model
        From data space to one number, with gradients in its inputs: a `TwoLayerNetwork`, or a `NeuronModel` with
        ``input_gradient``.
    data : array_like, shape (n, d), or callable
        Rows; or ``sample(step, n_rows)``, which returns so many rows of a step and has to be a pure function, as for
        `StreamRisk`.
    latent : array_like, shape (m, q), optional
        Latent points that stand for the law of z, each of weight 1/m: nodes of a quadrature, or draws. By default z is
        N(0, I), drawn afresh at each step under the run's seed, which `Minibatch` does. With latent points and rows of
        data gradients are exact, and all estimators serve.
    penalty : GradientPenalty, optional
    l2 : float or mapping of str to float
        Ridge of each player, ``l2 |theta|**2``: the reference ``N(0, temperature / (2 l2))``.
    reference : Reference or mapping of str to Reference, optional
        In place of l2.

    Attributes
    ----------
    players : tuple of str
        "generator" and "critic".

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or generator, critic and data do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> rows = 3 + mfld.noise.normals(0, 0, 500, 1, dtype="float64", stream="data")
    >>> game = mfld.MeanFieldGAN(
    ...     mfld.TwoLayerNetwork(n_features=1, activation="relu"),
    ...     mfld.TwoLayerNetwork(n_features=1, activation="tanh"),
    ...     rows,
    ...     l2={"generator": 1e-4, "critic": 0.1},
    ... )
    >>> solver = mfld.DescentAscent(
    ...     100, step_size={"generator": 0.1, "critic": 0.3}, temperature=1e-4, gradient=mfld.Minibatch(64)
    ... )
    >>> result = solver.run(game, n_steps=500)
    >>> made = game.generate(result.state.clouds["generator"], 500)
    >>> bool(abs(made.mean() - 3) < 0.5)
    True
    """

    players = ("generator", "critic")

    def __init__(
        self,
        generator: Model,
        critic: Model,
        data: ArrayLike | Sampler,
        *,
        latent: ArrayLike | None = None,
        penalty: GradientPenalty | None = None,
        l2: PerPlayer[float] = 0.0,
        reference: PerPlayer[Reference] | None = None,
    ) -> None:
        for name, model in (("generator", generator), ("critic", critic)):
            validation.instance(name, model, Model, "a Model, like a TwoLayerNetwork")
        if critic.n_outputs != 1:
            raise ValueError(f"critic must have one output, got {critic.n_outputs}")
        if generator.n_outputs != critic.n_features:
            raise ValueError(
                f"critic must take the outputs of the generator, n_features={generator.n_outputs}, "
                f"got n_features={critic.n_features}"
            )
        if not critic.has_input_gradients:
            raise ValueError(f"critic must have gradients in its inputs: give input_gradient to the {critic!r}")
        if penalty is not None:
            validation.instance("penalty", penalty, GradientPenalty, "a GradientPenalty")
            if not critic.has_mixed_gradients:
                raise ValueError(f"critic must have mixed gradients for a penalty: give mixed_gradient to {critic!r}")
        self.generator, self.critic, self.penalty = generator, critic, penalty
        self.sample: Sampler | None = None
        self.rows: FloatArray | None = None
        if callable(data):
            self.sample = data
        else:
            rows = validation.array("data", data, np.float64)
            validation.shape("data", rows, ("n", critic.n_features), "(rows, n_features of the critic)")
            self.rows = validation.frozen(rows)
        self.latent: FloatArray | None = None
        if latent is not None:
            points = validation.array("latent", latent, np.float64)
            validation.shape("latent", points, ("m", generator.n_features), "(points, n_features of the generator)")
            self.latent = validation.frozen(points)
        self.spaces = {"generator": generator.space, "critic": critic.space}
        ridges, given = each_player("l2", l2, self.players), each_player("reference", reference, self.players)
        self.references = {
            name: references.given(ridges[name], given[name], self.spaces[name]) for name in self.players
        }
        self.num_threads: int | None = None

    def __repr__(self) -> str:
        data = "a stream" if self.rows is None else f"{len(self.rows)} rows"
        penalty = "" if self.penalty is None else f", {self.penalty!r}"
        return f"MeanFieldGAN({self.generator!r}, {self.critic!r}, {data}{penalty})"

    def on_threads(self, num_threads: int | None) -> Self:
        if num_threads == self.num_threads:
            return self
        game = copy.copy(self)
        game.num_threads = num_threads
        return game

    def still(self, name: str) -> Objective:
        return self.facing(name, {})

    def facing(self, name: str, clouds: Mapping[str, Cloud]) -> Objective:
        validation.choice("name", name, self.players)
        if name == "generator":
            return _Generates(self, name, clouds.get("critic"))
        return _Criticises(self, name, clouds.get("generator"))

    def generate(self, measure: Measure, n_samples: int, seed: int = 0) -> FloatArray:
        """Points that a generator makes of fresh latent points, N(0, I), or of those of ``latent``, with repetition.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, p)
            Of the generator; of replicates, shape (R, N, p), their points one after the other.
        n_samples : int
            Of each replicate.
        seed : int
            Of the latent points. The first ones do not depend on how many there are.

        Returns
        -------
        ndarray, shape (n_samples, d), or (R, n_samples, d)
        """
        n_samples = validation.integer("n_samples", n_samples, 1)
        place = Place.of(validation.seed(seed), num_threads=self.num_threads).beside("generated")
        if self.latent is None:
            latent = place.normals(n_samples, self.generator.n_features, "float64")
        else:
            chosen = (place.uniforms(n_samples, 1)[:, 0] * len(self.latent)).astype(np.int64)
            latent = self.latent[np.minimum(chosen, len(self.latent) - 1)]
        return self._of_each(measure, self.generator, latent)

    def critic_values(self, measure: Measure, points: ArrayLike) -> FloatArray:
        """Values of a critic D at points, shape (n, d): (n,), or (R, n) of replicates."""
        given = validation.array("points", points, np.float64)
        validation.shape("points", given, ("n", self.critic.n_features), "(points, n_features of the critic)")
        return self._of_each(measure, self.critic, given)[..., 0]

    def _of_each(self, measure: Measure, model: Model, inputs: FloatArray) -> FloatArray:
        cloud = measure if isinstance(measure, Cloud) else Cloud(measure)
        expected = (*(("R",) if cloud.particles.ndim == 3 else ()), "N", model.n_coordinates)
        validation.shape("measure", cloud.particles, expected, "to suit the model")
        every = cloud.particles.reshape(-1, *cloud.particles.shape[-2:])
        weights = None if cloud.weights is None else cloud.weights.reshape(len(every), -1)
        made = [
            self.outputs(model, one, None if weights is None else weights[r], inputs) for r, one in enumerate(every)
        ]
        return np.stack(made) if cloud.particles.ndim == 3 else made[0]

    def outputs(
        self, model: Model, particles: FloatArray, weights: FloatArray | None, inputs: FloatArray
    ) -> FloatArray:
        """Predictions of a network in the precision of its particles, shape (n, n_outputs)."""
        own = np.ascontiguousarray(inputs, particles.dtype)
        return model.predictions(particles, weights, own, validation.num_threads(self.num_threads))

    def batch(self, place: Place, batch_size: int) -> _Batch:
        """Data and latent points of a step."""
        beside = place.beside("latent")
        if self.rows is None:
            data = self._stream(place.step, batch_size)
        elif batch_size > len(self.rows):
            raise ValueError(f"batch_size must be at most the number of samples, {len(self.rows)}, got {batch_size}")
        else:
            data = self.rows[place.batch(len(self.rows), batch_size)]
        if self.latent is None:
            latent = beside.normals(batch_size, self.generator.n_features, "float64")
        else:
            latent = self.latent[beside.batch(len(self.latent), min(batch_size, len(self.latent)))]
        return _Batch(data, latent, place.beside("between").uniforms(max(len(data), len(latent)), 1))

    def all(self, rows: ArrayLike | None = None) -> _Batch:
        """All latent points, and the data or some rows of it."""
        assert self.rows is not None  # where has_gradient is
        assert self.latent is not None
        data = self.rows if rows is None else self.rows[validation.rows("batch", rows, len(self.rows))]
        return _Batch(data, self.latent, np.empty((0, 1)))

    def _stream(self, step: int, n_rows: int) -> FloatArray:
        assert self.sample is not None
        name = f"what sample({step}, {n_rows}) returned"
        data = validation.array(name, self.sample(step, n_rows), np.float64)
        validation.shape(name, data, (n_rows, self.critic.n_features), "(n_rows, n_features of the critic)")
        return data


class _Facing(Objective):
    """Objective of a player of the game, from a batch or, where there is an end of the samples, from all of them."""

    has_batches = True

    def __init__(self, game: MeanFieldGAN, name: str, other: Cloud | None) -> None:
        self.game, self.name, self.other = game, name, other
        self.space, self.reference = game.spaces[name], game.references[name]
        self.num_threads = game.num_threads
        finite = game.rows is not None and game.latent is not None and not self._endless(game.penalty)
        self.has_gradient = self.has_value = finite
        assert not finite or game.rows is not None
        self.n_samples = len(game.rows) if finite and game.rows is not None else None

    def __repr__(self) -> str:
        return f"what the {self.name} faces in {self.game!r}"

    @property
    def model(self) -> Model:
        """The network of the player."""
        model: Model = getattr(self.game, self.name)
        return model

    def on_threads(self, num_threads: int | None) -> Self:
        return type(self)(self.game.on_threads(num_threads), self.name, self.other)

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        return self.model.initial_particles(n_particles, place, dtype)

    def draw_batch(self, place: Place, batch_size: int) -> _Batch:
        return self.game.batch(place, batch_size)

    def loss(self, measure: Measure) -> float:
        return self._loss(self.cloud(measure), self._seen(None))

    def loss_of_batch(self, measure: Measure, batch: Any) -> float:
        return self._loss(self.cloud(measure), self._seen(batch))

    def loss_gradient(self, measure: Measure, batch: Any = None) -> FloatArray:
        cloud = self.cloud(measure)
        return self._pull(cloud, cloud.particles, self._seen(batch))[1]

    def first_variation(self, measure: Measure, batch: Any = None) -> Potential:
        return _Frozen(self, self.cloud(measure), batch)

    def _seen(self, batch: Any) -> _Batch:
        if isinstance(batch, _Batch):
            return batch
        if not self.has_gradient:
            raise TypeError(
                f"the loss and the gradient of the {self.name} are expectations, which are not known: use Minibatch, "
                "or give the game rows of data and latent points"
            )
        return self.game.all(batch)

    def _others(self, dtype: FloatDType) -> tuple[FloatArray, FloatArray | None]:
        """Particles and weights of the other player, in the precision of this one."""
        assert self.other is not None  # a still game has no loss
        weights = self.other.weights
        return self.other.particles.astype(dtype, copy=False), None if weights is None else weights.astype(dtype)

    @property
    def threads(self) -> int:
        """Number of threads for the kernels."""
        return validation.num_threads(self.num_threads)

    @staticmethod
    @abstractmethod
    def _endless(penalty: GradientPenalty | None) -> bool:
        """True where gradients are expectations whatever the data."""

    @abstractmethod
    def _loss(self, cloud: Cloud, batch: _Batch) -> float:
        """U at a measure."""

    @abstractmethod
    def _pull(self, cloud: Cloud, points: FloatArray, batch: _Batch) -> tuple[FloatArray, FloatArray]:
        """First variation of U at a measure and its gradient, at points."""


class _Generates(_Facing):
    """Objective of the generator: ``E_data D(x) - E_z D(G(z))``."""

    @staticmethod
    def _endless(penalty: GradientPenalty | None) -> bool:
        return False

    def _loss(self, cloud: Cloud, batch: _Batch) -> float:
        critic, weights = self._others(cloud.particles.dtype)
        made = self.game.outputs(self.model, cloud.particles, cloud.weights, batch.latent)
        real, fake = (self.game.outputs(self.game.critic, critic, weights, x) for x in (batch.data, made))
        return float(np.mean(real, dtype=np.float64) - np.mean(fake, dtype=np.float64))

    def _pull(self, cloud: Cloud, points: FloatArray, batch: _Batch) -> tuple[FloatArray, FloatArray]:
        dtype = points.dtype
        critic, weights = self._others(dtype)
        own = cloud.particles.astype(dtype, copy=False)
        made = self.game.outputs(self.model, own, cloud.weights, batch.latent)
        slopes = self.game.critic.input_gradient(critic, weights, made, self.threads)
        cotangent = np.ascontiguousarray(slopes / dtype.type(-len(slopes)))
        latent = np.ascontiguousarray(batch.latent, dtype)
        return self.model.pull_back(points, latent, cotangent, self.threads)


class _Criticises(_Facing):
    """Objective of the critic: ``E_z D(G(z)) - E_data D(x)`` and its penalty."""

    def __init__(self, game: MeanFieldGAN, name: str, other: Cloud | None) -> None:
        super().__init__(game, name, other)
        self.linear = game.penalty is None

    @staticmethod
    def _endless(penalty: GradientPenalty | None) -> bool:
        return penalty is not None and penalty.at == "between"

    def _loss(self, cloud: Cloud, batch: _Batch) -> float:
        made = self._made(cloud.particles.dtype, batch)
        real, fake = (self.game.outputs(self.model, cloud.particles, cloud.weights, x) for x in (batch.data, made))
        loss = float(np.mean(fake, dtype=np.float64) - np.mean(real, dtype=np.float64))
        if self.game.penalty is None:
            return loss
        at = self._penalised(cloud.particles.dtype, batch, made, self.game.penalty)
        slopes = self.model.input_gradient(cloud.particles, cloud.weights, at, self.threads)
        return loss + self.game.penalty.value(slopes.astype(np.float64))

    def _pull(self, cloud: Cloud, points: FloatArray, batch: _Batch) -> tuple[FloatArray, FloatArray]:
        dtype = points.dtype
        made = self._made(dtype, batch)
        both = np.concatenate([batch.data.astype(dtype), made])
        shares = [np.full((len(x), 1), s / len(x), dtype) for x, s in ((batch.data, -1), (made, 1))]
        values, gradient = self.model.pull_back(points, both, np.concatenate(shares), self.threads)
        if self.game.penalty is None:
            return values, gradient
        at = self._penalised(dtype, batch, made, self.game.penalty)
        own = cloud.particles.astype(dtype, copy=False)
        directions = self.game.penalty.directions(self.model.input_gradient(own, cloud.weights, at, self.threads))
        more, steeper = self.model.pull_back_input_gradient(points, at, directions, self.threads)
        return values + more, gradient + steeper

    def _made(self, dtype: FloatDType, batch: _Batch) -> FloatArray:
        """Points that the generator makes of the latent ones."""
        particles, weights = self._others(dtype)
        return self.game.outputs(self.game.generator, particles, weights, batch.latent)

    @staticmethod
    def _penalised(dtype: FloatDType, batch: _Batch, made: FloatArray, penalty: GradientPenalty) -> FloatArray:
        """Points where the slope of the critic is looked at."""
        data = batch.data.astype(dtype)
        if penalty.at == "data":
            return data
        numbers = np.arange(len(batch.between))  # of the shorter ones, again from the first
        share = batch.between.astype(dtype)
        return np.asarray(share * data[numbers % len(data)] + (1 - share) * made[numbers % len(made)], dtype)


class _Frozen(Potential):
    """First variation of what a player faces at a measure, from one batch, or from whatever is asked for."""

    def __init__(self, faced: _Facing, cloud: Cloud, batch: Any = None) -> None:
        def pull(points: FloatArray) -> tuple[FloatArray, FloatArray]:
            return faced._pull(cloud, points, faced._seen(batch))

        super().__init__(
            lambda points: pull(points)[1],
            lambda points: pull(points)[0],
            value_and_gradient=pull,
            space=faced.space,
            reference=faced.reference,
        )
        self._faced, self._cloud = faced, cloud
        if batch is None:
            self.n_samples, self.has_gradient = faced.n_samples, faced.has_gradient
            self.has_value = faced.has_value

    @property
    def has_batches(self) -> bool:
        return self._faced.has_batches

    def draw_batch(self, place: Place, batch_size: int) -> Any:
        return self._faced.draw_batch(place, batch_size)

    def loss_of_batch(self, measure: Measure, batch: Any) -> float:
        cloud = self.cloud(measure)
        return cloud.mean(self._faced._pull(self._cloud, cloud.particles, self._faced._seen(batch))[0])

    def loss_gradient(self, measure: Measure, batch: Any = None) -> FloatArray:
        if batch is None:
            return super().loss_gradient(measure)
        return self._faced._pull(self._cloud, self.cloud(measure).particles, self._faced._seen(batch))[1]


def _length(slopes: FloatArray) -> FloatArray:
    # In float64, where the square of no float32 overflows: near a divergence slopes are large before particles are.
    return np.asarray(np.sqrt(np.sum(slopes.astype(np.float64) ** 2, axis=1, keepdims=True)))
