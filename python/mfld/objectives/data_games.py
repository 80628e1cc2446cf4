"""Games from data: a network against a player who sees each sample, the environment."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import references, validation
from mfld.losses import AnyLoss
from mfld.models import Model
from mfld.objectives.base import Measure, Objective, Potential
from mfld.objectives.game import Game
from mfld.objectives.risk import EmpiricalRisk
from mfld.references import Gaussian, Uniform
from mfld.space import Box, Space
from mfld.state import Cloud
from mfld.validation import FloatArray


class PerSample(Objective):
    """Objective of a player with a measure for each sample, ``sum_i weights_i E V_i``, linear in all of them.

    ``value_and_gradient(i, points)`` is that of V at points of the samples of numbers i, one number for each point.
    """

    linear = True

    def __init__(
        self,
        value_and_gradient: Callable[[NDArray[np.int64], FloatArray], tuple[FloatArray, FloatArray]],
        weights: NDArray[np.float64],
        space: Space,
        reference: references.Reference,
    ) -> None:
        self.space, self.reference, self.members = space, reference, (len(weights),)
        self._weights, self._of_points = weights, value_and_gradient

    def _all(self, cloud: Cloud) -> tuple[FloatArray, FloatArray]:
        n, n_particles, p = cloud.particles.shape
        flat = cloud.particles.reshape(-1, p)
        values, gradient = self._of_points(np.repeat(np.arange(n), n_particles), flat)
        return values.reshape(n, n_particles), gradient.reshape(cloud.particles.shape)

    def loss(self, measure: Measure) -> float:
        cloud = self.cloud(measure)
        return float(self._weights @ np.average(self._all(cloud)[0], axis=1, weights=cloud.weights))

    def ridge(self, measure: Measure) -> float:
        cloud = self.cloud(measure)
        energies = self.reference.energy(cloud.particles.astype(np.float64))
        return float(self._weights @ np.average(energies, axis=1, weights=cloud.weights))

    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        return self._all(self.cloud(measure))[1]

    def first_variation(self, measure: Measure, batch: ArrayLike | None = None) -> Any:
        """The objective itself, which is linear."""
        return self

    @property
    def conditionals(self) -> tuple[tuple[float, Objective], ...]:
        return tuple((weight, self._at(i)) for i, weight in enumerate(self._weights.tolist()))

    def _at(self, i: int) -> Potential:
        def both(points: FloatArray) -> tuple[FloatArray, FloatArray]:
            return self._of_points(np.full(len(points), i), points)

        return Potential(
            lambda points: both(points)[1],
            lambda points: both(points)[0],
            value_and_gradient=both,
            space=self.space,
            reference=self.reference,
        )


class _DataGame(Game):
    """Network, and a player who has a measure for each sample."""

    def __init__(self, risk: EmpiricalRisk, name: str, space: Space) -> None:
        if risk.model.n_outputs != 1:
            raise ValueError(f"model must have one output, got {risk.model.n_outputs}")
        self.risk, self._against = risk, name
        self.players = ("network", name)
        self.spaces = {"network": risk.space, name: space}
        self.members = {name: (risk.n_samples,)}
        self._sample_weights = risk._weights(None).astype(np.float64)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.risk!r})"

    def on_threads(self, num_threads: int | None) -> Self:
        game = copy.copy(self)
        game.risk = self.risk.on_threads(num_threads)
        return game

    def facing(self, name: str, clouds: Mapping[str, Cloud]) -> Objective:
        validation.choice("name", name, self.players)
        return self._network(clouds[self._against]) if name == "network" else self._other(clouds["network"])

    @abstractmethod
    def _network(self, other: Cloud) -> Objective: ...

    @abstractmethod
    def _other(self, network: Cloud) -> Objective: ...


class MaxMargin(_DataGame):
    """Classification of largest margin: a network against the Lagrange multipliers of the margins of its samples.

    ::

        min over mu, max over nu:   l2 E_mu |theta|**2 + sum_i s_i E_nu(.|i) lambda (1 - y_i f_mu(x_i))
        0 <= lambda <= largest

    each with its entropy: for the multipliers relative to the uniform law. Without temperature it is the support vector
    machine with the features of the network, ``l2 E |theta|**2 + largest sum_i s_i max(0, 1 - y_i f_mu(x_i))``, hard as
    ``largest`` grows; multipliers of samples beyond the margin go to 0. It is linear in all measures, so that
    `nikaido_isoda` certifies it. Steps of the multipliers have to be small: where they would leave their interval they
    are reflected, as far as ``step_size |1 - y_i f_mu(x_i)|`` from its end.

    Parameters
    ----------
    model : Model
        With one output.
    inputs : array_like, shape (n, n_features)
    targets : array_like, shape (n,)
        -1 or 1.
    largest : float
        Bound on the multipliers, positive.
    l2 : float
        Ridge of the network, positive.
    sample_weight : array_like, shape (n,), optional
        s, by default 1/n each.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    Neurons that are linear: the mean of the particles is the vector of the support vector machine.

    >>> import mfld
    >>> linear = mfld.TwoLayerNetwork(2, activation="identity", readout="fixed", bias=False)
    >>> game = mfld.MaxMargin(linear, [[2.0, 0.0], [-2.0, 1.0]], [1.0, -1.0], largest=5.0, l2=0.5)
    >>> solver = mfld.DescentAscent(400, step_size=0.05, temperature=1e-3)
    >>> state = solver.run(game, n_steps=1000).state
    >>> game.margins(mfld.Cloud(state.clouds["network"].particles[0])).round(1).tolist()
    [1.0, 1.0]
    """

    def __init__(
        self,
        model: Model,
        inputs: ArrayLike,
        targets: ArrayLike,
        *,
        largest: float,
        l2: float,
        sample_weight: ArrayLike | None = None,
    ) -> None:
        risk = EmpiricalRisk(
            model,
            inputs,
            targets,
            loss="logistic",
            l2=validation.real("l2", l2, positive=True),
            sample_weight=sample_weight,
        )
        self.largest = validation.real("largest", largest, positive=True)
        super().__init__(risk, "multipliers", Space(domain=[Box((0.0,), (self.largest,))]))

    def margins(self, measure: Measure) -> NDArray[np.float64]:
        """Margins ``y_i f_mu(x_i)`` of the samples under a measure of the network, shape (n,)."""
        cloud = self.risk.cloud(measure)
        inputs, targets, _ = self.risk.data.cast(cloud.particles.dtype)
        return np.asarray((targets * self.risk._predict(cloud, inputs))[:, 0], np.float64)

    def _network(self, other: Cloud) -> Potential:
        multipliers = np.average(other.particles[..., 0].astype(np.float64), axis=-1, weights=other.weights)
        scaled = self._sample_weights * multipliers

        def both(points: FloatArray) -> tuple[FloatArray, FloatArray]:
            inputs, targets, _ = self.risk.data.cast(points.dtype)
            cotangent = -scaled[:, np.newaxis].astype(points.dtype) * targets
            values, gradient = self.risk._pull_back(points, inputs, cotangent, self.risk.num_threads)
            return values + points.dtype.type(scaled.sum()), gradient

        return Potential(
            lambda points: both(points)[1],
            lambda points: both(points)[0],
            value_and_gradient=both,
            space=self.risk.space,
            reference=self.risk.reference,
        )

    def _other(self, network: Cloud) -> Objective:
        slacks = 1 - self.margins(network)

        def value_and_gradient(i: NDArray[np.int64], points: FloatArray) -> tuple[FloatArray, FloatArray]:
            slope = -slacks[i].astype(points.dtype)
            return slope * points[:, 0], slope[:, np.newaxis]

        return PerSample(value_and_gradient, self._sample_weights, self.spaces["multipliers"], Uniform())


class RobustRisk(_DataGame):
    """Distributionally robust risk: a network against shifts of its samples, whose transport costs the adversary.

    ::

        min over mu, max over nu:   l2 E_mu |theta|**2
            + sum_i s_i E_nu(.|i) [loss(f_mu(x_i + delta), y_i) - cost |delta|**2]

    each with its entropy. It is the dual of the worst expected loss over laws of the data near the samples, in the
    Wasserstein distance of order 2 whose square has the multiplier ``cost``; with the entropy of nu, in the Sinkhorn
    distance. Below the curvature of the loss in x the supremum is infinite: ``cost`` has to be larger, and then
    particles of the player "shifts", of shape (n, N, n_features), are where the data should not be. Sources: Sinha,
    Namkoong, Duchi 2018, "Certifying some distributional robustness with principled adversarial training"; Wang, Gao,
    Xie 2021, "Sinkhorn distributionally robust optimization".

    Parameters
    ----------
    model : Model
        With one output and `Model.pull_back_inputs`, like `TwoLayerNetwork`.
    inputs : array_like, shape (n, n_features)
    targets : array_like, shape (n,)
    loss : str or LossFunction
        As in `EmpiricalRisk`.
    cost : float
        Of a unit of squared distance, positive.
    l2 : float
        Ridge of the network.
    sample_weight : array_like, shape (n,), optional
        s, by default 1/n each.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> network = mfld.TwoLayerNetwork(1)
    >>> game = mfld.RobustRisk(network, [[-1.0], [1.0]], [-1.0, 1.0], loss="logistic", cost=2.0, l2=1e-2)
    >>> solver = mfld.DescentAscent(
    ...     {"network": 500, "shifts": 20}, step_size={"network": 0.5, "shifts": 0.1}, temperature=1e-3
    ... )
    >>> shifts = solver.run(game, n_steps=200).state.clouds["shifts"].particles[0]
    >>> bool(shifts[0].mean() > 0 > shifts[1].mean())       # towards the other class
    True
    """

    def __init__(
        self,
        model: Model,
        inputs: ArrayLike,
        targets: ArrayLike,
        *,
        loss: AnyLoss,
        cost: float,
        l2: float = 0.0,
        sample_weight: ArrayLike | None = None,
    ) -> None:
        risk = EmpiricalRisk(model, inputs, targets, loss=loss, l2=l2, sample_weight=sample_weight)
        if type(model).pull_back_inputs is Model.pull_back_inputs:
            kind = type(model).__name__
            raise TypeError(f"model must define pull_back_inputs, like TwoLayerNetwork, got a {kind}")
        self.cost = validation.real("cost", cost, positive=True)
        super().__init__(risk, "shifts", Space(model.n_features))

    def _network(self, other: Cloud) -> EmpiricalRisk:
        n, n_particles, d = other.particles.shape
        moved = self.risk.inputs[:, np.newaxis] + other.particles
        weights = np.repeat(self._sample_weights / n_particles, n_particles)
        if other.weights is not None:
            weights = (self._sample_weights[:, np.newaxis] * other.weights).ravel()
        targets = np.repeat(self.risk.data.samples.targets, n_particles, axis=0)
        faced = EmpiricalRisk(
            self.risk.model,
            moved.reshape(n * n_particles, d),
            targets[:, 0],
            loss=self.risk.loss_function,
            reference=self.risk.reference,
            sample_weight=weights,
        )
        return faced.on_threads(self.risk.num_threads)

    def _other(self, network: Cloud) -> Objective:
        risk, model = self.risk, self.risk.model
        threads = validation.num_threads(risk.num_threads)

        def value_and_gradient(i: NDArray[np.int64], points: FloatArray) -> tuple[FloatArray, FloatArray]:
            inputs, targets, _ = risk.data.cast(points.dtype)
            neurons = network.particles.astype(points.dtype, copy=False)
            weights = None if network.weights is None else network.weights.astype(points.dtype)
            moved = inputs[i] + points
            predictions = model.predictions(neurons, weights, moved, threads)
            values, derivative = risk.loss_function.evaluate(predictions, targets[i])
            derivative = np.asarray(derivative, points.dtype)
            return -values, -model.pull_back_inputs(neurons, weights, moved, derivative, threads)

        return PerSample(value_and_gradient, self._sample_weights, self.spaces["shifts"], Gaussian(self.cost))
