"""Scores learnt by mean-field networks: denoising score matching as a risk that any algorithm of the library takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import _core, noise, validation
from mfld.diffusion import grids
from mfld.diffusion.forward import Forward, OrnsteinUhlenbeck
from mfld.diffusion.scores import Score
from mfld.losses import Loss
from mfld.models import Model, TwoLayerNetwork, activations
from mfld.objectives import EmpiricalRisk, ResidualRisk, StreamRisk
from mfld.residual import ResidualNetwork
from mfld.state import Cloud
from mfld.validation import FloatArray

TARGETS = ("velocity", "noise", "data")
_MOST_CLASSES = 10**6
_TIMES = 4096  # of the table by which times are drawn
_ENTRIES = 1 << 20


class Denoising:
    """Denoising score matching: the regression of a target on noisy data, their time, and their label.

    Inputs are ``(x_t / sqrt(alpha**2 + sigma**2), cos(pi k tau) for k = 0 .. n_frequencies - 1, indicators of the
    label)``, with ``tau = 2 / pi arctan(sigma / alpha)``; of data with deviation 1, all have a size of about 1. Targets
    y are the noise xi, the data x_0, or the velocity, with ``v = sqrt(alpha**2 + sigma**2)``::

        x_0 = alpha / v**2 x_t + sigma / v y,    y = (sigma x_0 - alpha xi) / v

    which has about the same size at all times, so that a network has to learn neither to copy its input nor to magnify
    its errors. The loss ``E |y - f(x_t, t)|**2`` of the noise is that of the score with weight ``sigma**2``. Sources:
    Vincent 2011, "A connection between score matching and denoising autoencoders"; Salimans, Ho 2022, "Progressive
    distillation for fast sampling of diffusion models"; Karras et al. 2022.

    Parameters
    ----------
    data : array_like, shape (n, p)
        Of deviation 1, about.
    forward : Forward, optional
        By default `OrnsteinUhlenbeck`.
    target : str
        "velocity", "noise" or "data".
    times : str or callable
        How times are drawn, between the earliest one and the horizon: evenly in the clock of a named grid, see
        `mfld.diffusion.times`; or the density of a time, up to a factor. A density in place of another one is a weight.
    labels : array_like of int, shape (n,), optional
        Numbers 0 .. n_classes - 1 of the rows, which the score is then conditional on. A label is drawn in proportion
        to the square root of the number of its rows, so that rare ones are learnt; no conditional score changes.
    label_dropout : float
        Share of samples without their label, which teaches the unconditional score too; these rows are drawn evenly.
    n_frequencies : int
    waves : array_like, shape (J, p), optional
        Wave vectors of further inputs, ``cos`` and ``sin`` of their products with the scaled point: what lets a network
        of few neurons see fine structure in few dimensions. Source: Tancik et al. 2020, "Fourier features let networks
        learn high frequency functions in low dimensional domains".
    seed : int

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> from mfld import diffusion
    >>> data = mfld.noise.normals(0, 0, 500, 1, stream="data")
    >>> denoising = diffusion.Denoising(data)
    >>> solver = mfld.MFLD(50, step_size=0.1, temperature=1e-6, gradient=mfld.Minibatch(100))
    >>> result = solver.run(denoising.stream(denoising.network()), n_steps=200)
    >>> score = denoising.score(result.objective.model, result.measure)
    >>> diffusion.sample(score, 5, n_steps=10).shape
    (5, 1)
    """

    def __init__(
        self,
        data: ArrayLike,
        forward: Forward | None = None,
        *,
        target: str = "velocity",
        times: str | Callable[[float], float] = "tangent",
        labels: ArrayLike | None = None,
        label_dropout: float = 0.1,
        n_frequencies: int = 8,
        waves: ArrayLike | None = None,
        seed: int = 0,
    ) -> None:
        rows = validation.array("data", data)
        validation.shape("data", rows, ("n", "p"))
        self.data = validation.frozen(rows)
        chosen = OrnsteinUhlenbeck() if forward is None else forward
        self.forward = validation.instance("forward", chosen, Forward, "a Forward, like OrnsteinUhlenbeck()")
        self.target = validation.choice("target", target, TARGETS)
        self.n_frequencies = validation.integer("n_frequencies", n_frequencies, 1, 1000)
        self.waves = _waves(waves, rows.shape[1], "to match the columns of data")
        self.seed = validation.seed(seed)
        share = validation.real("label_dropout", label_dropout, non_negative=True)
        if share > 1:
            raise ValueError(f"label_dropout must be between 0 and 1, got {share:g}")
        self.label_dropout = share
        self.labels: NDArray[np.int64] | None = None
        self.n_classes = 0
        if labels is not None:
            self.labels = _labels(labels, len(rows))
            self.n_classes = int(self.labels.max()) + 1
            shares = np.cumsum(1 / np.sqrt(np.bincount(self.labels)[self.labels]))
            self._shares = shares / shares[-1]
        if isinstance(times, str):
            table = grids.times(self.forward, _TIMES, validation.choice("times", times, grids.NAMES))
        else:
            validation.function("times", times)
            even = grids.times(self.forward, _TIMES, "karras")
            density = np.array([validation.real("the result of times", times(float(t))) for t in even])
            if (density < 0).any() or not density.any():
                raise ValueError(f"times must give densities of at least 0, and not all 0, got {density.min():g}")
            table = grids.equidistributed(even, density**2, _TIMES)
        self._table, self._levels = table, np.linspace(0, 1, len(table))

    @property
    def n_features(self) -> int:
        """Length of an input."""
        return int(self.data.shape[1]) + self.n_frequencies + self.n_classes + 2 * len(self.waves)

    def network(self, activation: str = "relu", **choices: Any) -> TwoLayerNetwork:
        """Two-layer network of the right sizes; all else as in `mfld.TwoLayerNetwork`."""
        return TwoLayerNetwork(self.n_features, self.data.shape[1], activation=activation, **choices)

    def residual(self, depth: int = 4, **choices: Any) -> ResidualNetwork:
        """Residual network of the right sizes; all else as in `mfld.ResidualNetwork`. It learns a `risk`."""
        return ResidualNetwork(self.n_features, self.data.shape[1], depth, **choices)

    def sample(self, step: int, n_rows: int) -> tuple[FloatArray, FloatArray]:
        """Inputs, shape (n_rows, n_features), and targets, (n_rows, p), of a step, which with the seed fixes them.

        Raises
        ------
        TypeError, ValueError
            If an argument is no integer or out of range.
        """
        return self.steps(validation.integer("step", step, 0, validation.MAX_STEP), 1, n_rows)

    __call__ = sample

    def steps(self, first: int, n_steps: int, n_rows: int) -> tuple[FloatArray, FloatArray]:
        """The samples of several steps, one step after the other.

        Raises
        ------
        TypeError, ValueError
            If an argument is no integer or out of range.
        """
        first = validation.integer("first", first, 0, validation.MAX_STEP)
        n_steps = validation.integer("n_steps", n_steps, 1, validation.MAX_STEP + 1 - first)
        n_rows = validation.integer("n_rows", n_rows, 1)
        p, dtype = self.data.shape[1], self.data.dtype
        places = [noise.Place.of(self.seed, step=step) for step in range(first, first + n_steps)]
        xi = np.concatenate([place.normals(n_rows, p, dtype, "data") for place in places])
        drawn = np.concatenate([place.beside("denoising").uniforms(n_rows, 3, "float64", "data") for place in places])
        times = self._times_at(drawn[:, 0], n_rows)
        rows = np.minimum((drawn[:, 1] * len(self.data)).astype(np.int64), len(self.data) - 1)
        alpha, sigma = (f(times)[:, np.newaxis].astype(dtype) for f in (self.forward.alpha, self.forward.sigma))
        labels = None
        if self.labels is not None:
            known = drawn[:, 2] >= self.label_dropout
            by_label = np.searchsorted(self._shares, drawn[:, 1], side="right")
            rows = np.where(known, np.minimum(by_label, len(self.data) - 1), rows)
            labels = np.where(known, self.labels[rows], -1)
        data = self.data[rows]
        noisy = alpha * data + sigma * xi
        inputs = _inputs(self.forward, noisy, times, self.n_frequencies, self.n_classes, labels, self.waves)
        if self.target == "noise":
            return inputs, xi
        if self.target == "data":
            return inputs, data
        return inputs, np.asarray((sigma * data - alpha * xi) / np.sqrt(alpha**2 + sigma**2))

    def stream(self, model: Model, l2: float = 0.0) -> StreamRisk:
        """Half the expected squared error of a model, of which each step sees new noise."""
        return StreamRisk(model, self, loss="half_squared", l2=l2)

    def risk(
        self,
        model: Model | ResidualNetwork,
        n_samples: int,
        l2: float = 0.0,
        weight: Callable[[float], float] | None = None,
        step: int = 0,
    ) -> EmpiricalRisk | ResidualRisk:
        """Half the mean squared error of a model over so many samples: for algorithms that need finite data.

        Parameters
        ----------
        model : Model or ResidualNetwork
        n_samples : int
        l2 : float
        weight : callable, optional
            Weight of a time.
        step : int
            Which samples: those that the stream has at this step.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        """
        n_samples = validation.integer("n_samples", n_samples, 1)
        inputs, targets = self.sample(validation.integer("step", step, 0), n_samples)
        weights = None
        if weight is not None:
            validation.function("weight", weight)
            place = noise.Place.of(self.seed, step=step).beside("denoising")
            times = self._times_at(place.uniforms(n_samples, 3, "float64", "data")[:, 0], n_samples)
            weights = np.array([weight(float(t)) for t in times])
        choices: dict[str, Any] = {"loss": Loss("half_squared"), "l2": l2, "sample_weight": weights}
        if isinstance(model, Model):
            return EmpiricalRisk(model, inputs, targets, **choices)
        return ResidualRisk(model, inputs, targets, **choices)

    def score(self, model: Model | ResidualNetwork, measure: Cloud | ArrayLike) -> MeanFieldScore:
        """Score by a model with this measure, which has learnt the targets."""
        return MeanFieldScore(
            model,
            measure,
            self.data.shape[1],
            self.forward,
            target=self.target,
            n_frequencies=self.n_frequencies,
            n_classes=self.n_classes,
            waves=self.waves,
        )

    def _times_at(self, uniforms: FloatArray, n_rows: int) -> FloatArray:
        # One time from each of n_rows equal shares of their law: less variance, and the same expectation.
        levels = (np.arange(len(uniforms)) % n_rows + uniforms) / n_rows
        return np.interp(levels, self._levels, self._table)


def random_waves(n_waves: int, n_coordinates: int, highest: float = 5.0, seed: int = 0) -> FloatArray:
    """Wave vectors: normal, times numbers between 1 and ``highest`` that are uniform in their logarithm.

    Examples
    --------
    >>> from mfld import diffusion
    >>> diffusion.random_waves(32, 2).shape
    (32, 2)
    """
    n_waves = validation.integer("n_waves", n_waves, 1, 10**6)
    highest = validation.real("highest", highest, positive=True)
    place = noise.Place.of(validation.seed(seed)).beside("waves")
    p = validation.integer("n_coordinates", n_coordinates, 1, 10**6)
    factors = highest ** place.uniforms(n_waves, 1, "float64", "init")
    return np.asarray(factors * place.ahead(1).normals(n_waves, p, "float64", "init"))


class MeanFieldScore(Score):
    """Score by a mean-field network, which has learnt one of the targets of `Denoising`.

    Parameters
    ----------
    model : Model or ResidualNetwork
        Its inputs are those of `Denoising`, and its outputs the coordinates.
    measure : Cloud or array_like, shape (N, model.n_coordinates)
        Particles, with weights or alike; (depth, N, model.n_coordinates) for those of a residual network.
    n_coordinates : int
        Coordinates p of a point.
    forward : Forward, optional
        By default `OrnsteinUhlenbeck`.
    target, n_frequencies, waves
        As in `Denoising`.
    n_classes : int
        Number of labels.
    label : int or array_like of int, optional
        The label of all points, or of each of them; by default the score is the unconditional one.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> from mfld import diffusion
    >>> model = mfld.TwoLayerNetwork(n_features=2 + 8, n_outputs=2)
    >>> diffusion.MeanFieldScore(model, np.zeros((4, 13)), 2).data(np.array([[3.0, 0.0]]), 0.5).round(3)
    array([[1.82, 0.  ]])
    """

    def __init__(
        self,
        model: Model | ResidualNetwork,
        measure: Cloud | ArrayLike,
        n_coordinates: int,
        forward: Forward | None = None,
        *,
        target: str = "velocity",
        n_frequencies: int = 8,
        n_classes: int = 0,
        waves: ArrayLike | None = None,
        label: int | ArrayLike | None = None,
    ) -> None:
        if not isinstance(model, Model):
            validation.instance("model", model, ResidualNetwork, "a Model, like a TwoLayerNetwork, or ResidualNetwork")
        self.model = model
        self.n_coordinates = validation.integer("n_coordinates", n_coordinates, 1)
        chosen = OrnsteinUhlenbeck() if forward is None else forward
        self.forward = validation.instance("forward", chosen, Forward, "a Forward, like OrnsteinUhlenbeck()")
        self.target = validation.choice("target", target, TARGETS)
        self.n_frequencies = validation.integer("n_frequencies", n_frequencies, 1)
        self.n_classes = validation.integer("n_classes", n_classes, 0)
        self.waves = _waves(waves, self.n_coordinates, "to match n_coordinates")
        wanted = self.n_coordinates + self.n_frequencies + self.n_classes + 2 * len(self.waves)
        if (model.n_features, model.n_outputs) != (wanted, self.n_coordinates):
            raise ValueError(
                f"model must have {wanted} features and {self.n_coordinates} outputs to match n_coordinates, "
                f"n_frequencies, n_classes and waves, got {model.n_features} and {model.n_outputs}"
            )
        cloud = measure if isinstance(measure, Cloud) else Cloud(validation.array("measure", measure))
        layers = getattr(model, "members", ())
        validation.shape("measure", cloud.particles, (*layers, "N", model.n_coordinates), "to match the model")
        self.measure = cloud
        self.label = None if label is None else self._checked(label)
        self.num_threads: int | None = None

    def __repr__(self) -> str:
        n, p = self.measure.particles[..., 0].size, self.n_coordinates
        return f"MeanFieldScore({n} particles, {p} coordinate{'s' * (p > 1)}, target={self.target!r}, {self.forward!r})"

    def given(self, label: int | ArrayLike | None) -> MeanFieldScore:
        """The score given a label, one for all points or one for each; None for the unconditional one.

        Raises
        ------
        TypeError, ValueError
            If it is no label that the network knows.
        """
        return self._with(label=None if label is None else self._checked(label))

    def on_threads(self, num_threads: int | None) -> MeanFieldScore:
        return self._with(num_threads=num_threads)

    def noise(self, points: FloatArray, time: float) -> FloatArray:
        points = self._asked(points, time)
        outputs = self._outputs(points, time)
        alpha, sigma = float(self.forward.alpha(time)), float(self.forward.sigma(time))
        dtype, square = points.dtype.type, alpha**2 + sigma**2
        if self.target == "noise":
            return outputs
        if self.target == "data":
            return np.asarray((points - dtype(alpha) * outputs) / dtype(sigma))
        return np.asarray(dtype(sigma / square) * points - dtype(alpha / math.sqrt(square)) * outputs)

    def data(self, points: FloatArray, time: float) -> FloatArray:
        if self.target == "noise":
            return super().data(points, time)
        points = self._asked(points, time)
        outputs = self._outputs(points, time)
        if self.target == "data":
            return outputs
        alpha, sigma = float(self.forward.alpha(time)), float(self.forward.sigma(time))
        dtype, square = points.dtype.type, alpha**2 + sigma**2
        return np.asarray(dtype(alpha / square) * points + dtype(sigma / math.sqrt(square)) * outputs)

    def divergence(self, points: FloatArray, time: float) -> FloatArray | None:
        points = self._asked(points, time)
        traces = self._traces(points, time)
        if traces is None:
            return None
        alpha, sigma = float(self.forward.alpha(time)), float(self.forward.sigma(time))
        square, p = alpha**2 + sigma**2, self.n_coordinates
        if self.target == "noise":
            return traces
        if self.target == "data":
            return np.asarray((p - alpha * traces) / sigma)
        return np.asarray(sigma / square * p - alpha / math.sqrt(square) * traces)

    def _outputs(self, points: FloatArray, time: float) -> FloatArray:
        inputs = self._inputs(points, time)
        particles, weights = self.measure.particles, self.measure.weights
        inputs = inputs.astype(particles.dtype, copy=False)
        threads = validation.num_threads(self.num_threads)
        coefficients = None if weights is None else weights.astype(particles.dtype)
        outputs = self.model.predictions(particles, coefficients, inputs, threads)
        return outputs.astype(points.dtype, copy=False)

    def _traces(self, points: FloatArray, time: float) -> FloatArray | None:
        """Trace of the derivative of the outputs in the points, where the network has linear readouts."""
        network: Any = self.model
        if getattr(network, "native", None) is None or getattr(network, "readout", "") != "linear":
            return None
        particles = self.measure.particles.astype(np.float64)
        n, p = len(particles), self.n_coordinates
        parts, weights = network.slices, self.measure.weights
        along = np.einsum("mk,mk->m", particles[:, :p], particles[:, parts["readout"]]) * network.output_scale
        along *= 1 / n if weights is None else weights
        inputs = self._inputs(points, time).astype(np.float64)
        behind = p + self.n_frequencies + self.n_classes
        cosines, sines = np.split(inputs[:, behind:], 2, axis=1)
        turned = particles[:, parts["readout"]] @ self.waves.T * network.output_scale
        turned *= 1 / n if weights is None else weights[:, np.newaxis]
        by_cosine, by_sine = np.split(particles[:, behind : network.n_features], 2, axis=1)
        scale = 1 / math.sqrt(float(self.forward.alpha(time)) ** 2 + float(self.forward.sigma(time)) ** 2)
        kind, traces = activations().index(network.activation), np.empty(len(points))
        size = max(1, _ENTRIES // n)
        for first in range(0, len(points), size):
            z = inputs[first : first + size] @ particles[:, parts["weights"]].T
            z += particles[:, parts["bias"]].sum(axis=1)
            _, slopes, _ = _core.backend.activation(kind, np.ascontiguousarray(z).ravel())
            slopes, rows = slopes.reshape(z.shape), slice(first, first + size)
            own = slopes @ along
            own += np.sum((slopes @ (turned * by_sine)) * cosines[rows], axis=1)
            own -= np.sum((slopes @ (turned * by_cosine)) * sines[rows], axis=1)
            traces[rows] = scale * own
        return traces.astype(points.dtype, copy=False)

    def _inputs(self, points: FloatArray, time: float) -> FloatArray:
        labels = None
        if self.label is not None:
            if self.label.ndim and len(self.label) != len(points):
                raise ValueError(
                    f"label must be one number or {len(points)} to match the points, got {len(self.label)}"
                )
            labels = np.broadcast_to(self.label, len(points))
        times = np.array([time])
        return _inputs(self.forward, points, times, self.n_frequencies, self.n_classes, labels, self.waves)

    def _checked(self, label: int | ArrayLike) -> NDArray[np.int64]:
        given = _whole("label", label)
        if given.dtype.kind not in "iu" or given.ndim > 1:
            raise TypeError(f"label must be an integer or one for each point, got {validation.show(label)}")
        if given.size == 0 or given.min() < 0 or given.max() >= self.n_classes:
            raise ValueError(f"label must be between 0 and {self.n_classes - 1}, got {validation.show(label)}")
        return given.astype(np.int64)

    def _with(self, **changes: Any) -> MeanFieldScore:
        other = object.__new__(MeanFieldScore)
        other.__dict__.update(self.__dict__, **changes)
        return other


def _inputs(
    forward: Forward,
    points: FloatArray,
    times: FloatArray,
    n_frequencies: int,
    n_classes: int,
    labels: NDArray[np.int64] | None,
    waves: FloatArray,
) -> FloatArray:
    """Inputs of a network for noisy points at times, one for all or one each; labels below 0 are unknown."""
    n, p = points.shape
    inputs = np.zeros((n, p + n_frequencies + n_classes + 2 * len(waves)), points.dtype)
    alpha, sigma = forward.alpha(times), forward.sigma(times)
    inputs[:, :p] = points / np.sqrt(alpha**2 + sigma**2).astype(points.dtype)[:, np.newaxis]
    angles = np.arctan2(sigma, alpha)[:, np.newaxis] * 2 * np.arange(n_frequencies)
    inputs[:, p : p + n_frequencies] = np.cos(angles)
    if labels is not None:
        known = np.flatnonzero(labels >= 0)
        inputs[known, p + n_frequencies + labels[known]] = 1
    if len(waves):
        phases = np.einsum("np,jp->nj", inputs[:, :p], waves.astype(points.dtype))
        first = p + n_frequencies + n_classes
        inputs[:, first : first + len(waves)] = np.cos(phases)
        inputs[:, first + len(waves) :] = np.sin(phases)
    return inputs


def _waves(waves: ArrayLike | None, p: int, why: str) -> FloatArray:
    if waves is None:
        return np.empty((0, p))
    given: FloatArray = validation.array("waves", waves, np.float64)
    if given.shape != (0, p):
        validation.shape("waves", given, ("J", p), why)
    return given


def _labels(labels: ArrayLike, n: int) -> NDArray[np.int64]:
    given = _whole("labels", labels)
    if given.dtype.kind not in "iu":
        raise TypeError(f"labels must be whole numbers from 0 on, got dtype {given.dtype}")
    if given.shape != (n,):
        raise ValueError(f"labels must have shape ({n},) to match data, got {given.shape}")
    if given.min() < 0 or given.max() >= _MOST_CLASSES:
        wrong = given.min() if given.min() < 0 else given.max()
        raise ValueError(f"labels must be numbers of classes, from 0 to {_MOST_CLASSES - 1} at most, got {wrong}")
    return given.astype(np.int64)


def _whole(name: str, value: object) -> NDArray[Any]:
    validation.unmasked(name, value)
    try:
        return np.asarray(value)
    except ValueError as error:  # a ragged list
        raise ValueError(f"{name} must be whole numbers from 0 on: {error}") from None
