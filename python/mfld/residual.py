"""Deep residual networks: layers that each are the average of neurons, as members of one measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mfld import validation
from mfld.models import TwoLayerNetwork
from mfld.noise import Place
from mfld.space import Space
from mfld.validation import FloatArray

_DEEPEST = 2**15  # layers have populations of the noise of their own


@dataclass(frozen=True)
class ResidualNetwork:
    """Residual network whose layers are measures over neurons.

    ::

        x_0 = (z, 0),  x_{k+1} = x_k + (1 / depth) E_mu_k h(theta, x_k),  f(z) = last n_outputs coordinates of x_depth

    States x have ``n_features + n_hidden + n_outputs`` coordinates: the input, and zeros behind it. With N particles a
    layer the residual scale is ``output_scale / (depth * N)``, at which deep and wide networks have one limit, the
    control problem of `ControlProblem` with the rows as its environment. Neurons are those of `TwoLayerNetwork`, from
    states to states; depth 1 is that network on states. Source: Hu, Kazeykina, Ren 2019, "Mean-field Langevin system,
    optimal control and deep neural networks"; Chizat 2025, arXiv 2509.10167.

    Parameters
    ----------
    n_features : int
        Length of an input z.
    n_outputs : int
        Length of a prediction.
    depth : int
        Number of layers.
    n_hidden : int
        Coordinates of the state beside inputs and outputs.
    activation, readout, bias, output_scale, readout_bound
        As in `TwoLayerNetwork`; the readout is "linear", "bounded" or "signs".
    checkpoint_every : int
        States are kept for the way back at each so many layers, and recomputed between them: 1 keeps all.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> network = mfld.ResidualNetwork(n_features=2, depth=4)
    >>> network.n_states, network.n_coordinates
    (3, 7)
    >>> particles = network.initial_particles(10, 0)     # of one layer
    >>> network.predict([particles] * 4, [[0.5, 1.0]]).shape
    (1,)
    """

    n_features: int
    n_outputs: int = 1
    depth: int = 8
    n_hidden: int = 0
    activation: str = "tanh"
    readout: str = "linear"
    bias: bool = True
    output_scale: float = 1.0
    readout_bound: float = 1.0
    checkpoint_every: int = 1
    layer: TwoLayerNetwork = field(init=False, repr=False, compare=False)
    step: TwoLayerNetwork = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, least in (("n_features", 1), ("n_outputs", 1), ("n_hidden", 0), ("checkpoint_every", 1)):
            object.__setattr__(self, name, validation.integer(name, getattr(self, name), least))
        object.__setattr__(self, "depth", validation.integer("depth", self.depth, 1, _DEEPEST))
        scale = validation.real("output_scale", self.output_scale)
        object.__setattr__(self, "output_scale", scale)
        for name, own in (("layer", scale), ("step", scale / self.depth)):
            neurons = TwoLayerNetwork(
                self.n_states,
                self.n_states,
                activation=self.activation,
                readout=self.readout,
                bias=self.bias,
                output_scale=own,
                readout_bound=self.readout_bound,
            )
            object.__setattr__(self, name, neurons)

    @property
    def n_states(self) -> int:
        """Coordinates D of a state."""
        return self.n_features + self.n_hidden + self.n_outputs

    @property
    def space(self) -> Space:
        """Coordinates of a particle, those of one neuron."""
        return self.layer.space

    @property
    def n_coordinates(self) -> int:
        """Coordinates p of a particle."""
        return self.space.n_coordinates

    @property
    def members(self) -> tuple[int, ...]:
        """Leading axes of its particles: one for the layers."""
        return (self.depth,)

    @property
    def slices(self) -> dict[str, slice]:
        """Places of ``weights``, ``bias`` and ``readout`` in a particle, as of `TwoLayerNetwork`."""
        return self.layer.slices

    def growth(self, inputs: FloatArray) -> None:
        """Growth of the outputs in a neuron, which is not known: there are no certificates of duality gaps."""

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        """Neurons of one layer for a run to start from, as those of `TwoLayerNetwork`: shape (n_particles, p)."""
        return self.layer.initial_particles(n_particles, place, dtype)

    def embedded(self, inputs: FloatArray) -> FloatArray:
        """States ``(z, 0)``, shape (n, D)."""
        states = np.zeros((len(inputs), self.n_states), inputs.dtype)
        states[:, : self.n_features] = inputs
        return states

    def predict(
        self,
        particles: ArrayLike,
        inputs: ArrayLike,
        weights: ArrayLike | None = None,
        num_threads: int | None = None,
    ) -> FloatArray:
        """Predictions at inputs.

        Parameters
        ----------
        particles : array_like, shape (depth, N, n_coordinates)
            Their precision is that of the result.
        inputs : array_like, shape (n, n_features)
        weights : array_like, shape (depth, N), optional
            Of the particles of each layer; by default 1/N.
        num_threads : int, optional
            It never changes the result.

        Returns
        -------
        ndarray, shape (n,), or (n, n_outputs) with several outputs

        Raises
        ------
        TypeError, ValueError
            If an array has the wrong shape, is no array of reals, or is not finite.
        """
        theta = validation.array("particles", particles)
        validation.shape("particles", theta, (self.depth, "N", self.n_coordinates), "(depth, number, coordinates)")
        z = validation.array("inputs", inputs, theta.dtype)
        validation.shape("inputs", z, ("n", self.n_features), "(number, n_features)")
        if weights is not None:
            weights = validation.array("weights", weights, theta.dtype)
            validation.shape("weights", weights, theta.shape[:2], "to match particles")
        outputs = self.predictions(theta, weights, z, validation.num_threads(num_threads))
        return outputs[:, 0] if self.n_outputs == 1 else outputs

    def predictions(
        self, particles: FloatArray, weights: FloatArray | None, inputs: FloatArray, num_threads: int
    ) -> FloatArray:
        """Predictions, shape (n, n_outputs), from arrays of one precision that are known to fit."""
        return self.outputs(self.forward(particles, weights, inputs, num_threads)[1])

    def outputs(self, states: FloatArray) -> FloatArray:
        """Predictions (n, n_outputs) of the last states."""
        return np.ascontiguousarray(states[:, self.n_states - self.n_outputs :])

    def forward(
        self, particles: FloatArray, weights: FloatArray | None, inputs: FloatArray, num_threads: int
    ) -> tuple[list[FloatArray], FloatArray]:
        """States that are kept, before layers 0, checkpoint_every, ...; and the last ones, (n, D)."""
        states, kept = self.embedded(inputs), []
        for k in range(self.depth):
            if k % self.checkpoint_every == 0:
                kept.append(states)
            states = self._after(particles, weights, states, k, num_threads)
        return kept, states

    def backward(
        self,
        particles: FloatArray,
        weights: FloatArray | None,
        kept: list[FloatArray],
        cotangent: FloatArray,
        num_threads: int,
        *,
        gradients: bool = False,
    ) -> Iterator[tuple[int, FloatArray, FloatArray, FloatArray | None]]:
        """Layers from the last to the first: number, states before it, and cotangents (n, D) of what it returns.

        They are made one by one, from the cotangents of predictions; ``kept`` is emptied on the way. With ``gradients``
        a fourth part is the gradient in the layer's particles, per unit of time, from the same pass; else None.
        """
        adjoint = np.zeros((len(cotangent), self.n_states), cotangent.dtype)
        adjoint[:, self.n_states - self.n_outputs :] = cotangent
        for number in reversed(range(len(kept))):
            first = number * self.checkpoint_every
            last = min(first + self.checkpoint_every, self.depth)
            states = [kept.pop()]
            for k in range(first, last - 1):
                states.append(self._after(particles, weights, states[-1], k, num_threads))
            for k in reversed(range(first, last)):
                here = states.pop()
                gradient, through = self._pulled(particles[k], weights, k, here, adjoint, num_threads, gradients)
                yield k, here, adjoint, gradient
                adjoint = adjoint + through if k > 0 else adjoint

    def _pulled(
        self,
        own: FloatArray,
        weights: FloatArray | None,
        k: int,
        states: FloatArray,
        adjoint: FloatArray,
        num_threads: int,
        gradients: bool,
    ) -> tuple[FloatArray | None, FloatArray]:
        """Gradients in the particles of layer k, where asked for, and in the states before it: none of the inputs."""
        masses = np.full(len(own), 1 / len(own), own.dtype) if weights is None else weights[k]
        masses = masses / np.asarray(self.depth, own.dtype)  # a layer is a step of the length 1 / depth
        if k == 0:
            return self.layer.pull_back(own, states, adjoint, num_threads)[1] if gradients else None, adjoint
        if gradients:
            return self.layer.pull_back_both(own, masses, states, adjoint, num_threads)
        return None, self.layer.pull_back_inputs(own, masses, states, adjoint, num_threads)

    def _after(
        self, particles: FloatArray, weights: FloatArray | None, states: FloatArray, k: int, num_threads: int
    ) -> FloatArray:
        own = None if weights is None else weights[k]
        after: FloatArray = states + self.step.predictions(particles[k], own, states, num_threads)
        return after
