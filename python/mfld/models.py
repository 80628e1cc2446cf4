"""Models: what one particle contributes to a prediction."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import _core, noise, validation
from mfld import space as spaces
from mfld.native import final
from mfld.noise import Place
from mfld.space import Block, Space
from mfld.validation import FloatArray


def activations() -> list[str]:
    """Names of the activations.

    ``leaky_relu`` has slope 0.01 below 0 and ``gelu`` is the exact one, ``z * Phi(z)``.

    Examples
    --------
    >>> import mfld
    >>> "tanh" in mfld.activations()
    True
    """
    return list(_core.backend.activations)


def readouts() -> list[str]:
    """Names of the readouts; `TwoLayerNetwork` says what each is.

    Examples
    --------
    >>> import mfld
    >>> sorted(mfld.readouts())
    ['bounded', 'fixed', 'linear', 'parity', 'signs']
    """
    return [name for name, _, _ in _core.backend.readouts]


class Model(ABC):
    """Contribution of a particle to predictions: ``f(z) = sum_m c_m h(theta_m, z)``.

    `TwoLayerNetwork` is computed by the compiled core, `NeuronModel` by functions of your own.

    Attributes
    ----------
    n_features : int
        Length of an input z.
    n_outputs : int
        Length of a prediction.
    space : Space
        Coordinates of a particle, those that move, and their domain.

    Examples
    --------
    >>> import mfld
    >>> isinstance(mfld.TwoLayerNetwork(n_features=1), mfld.Model)
    True
    """

    n_features: int
    n_outputs: int
    has_particle_batches: ClassVar[bool] = False
    members: ClassVar[tuple[int, ...]] = ()  # leading axes of its particles
    has_input_gradients: bool = False
    """True where `input_gradient` is defined; and `pull_back_input_gradient` where `has_mixed_gradients` is true."""
    has_mixed_gradients: bool = False

    @property
    def output_range(self) -> tuple[float, float]:
        """Bounds on one output of a neuron, whatever theta and z; infinite where there are none or none is known."""
        return -math.inf, math.inf

    def growth(self, inputs: FloatArray) -> NDArray[np.float64] | None:
        """Factors a_i of ``|h(theta, z_i)| <= a_i |theta|**2 + linear terms``, shape (n,); None where unknown."""
        return None

    def steepness(self, inputs: FloatArray) -> NDArray[np.float64] | None:
        """Bounds on ``|grad_theta h_k(theta, z_i)|``, whatever theta, shape (n,); infinite, or None where unknown."""
        return None

    @property
    def native(self) -> _core.Network | None:
        """This model as the compiled core takes it; None where the core does not know it."""
        return None

    @property
    def most_curved(self) -> float:
        """Bound on the Hessian of ``h(theta, z)`` in theta, whatever theta and z; infinite where unknown."""
        return math.inf

    def with_weights(self, n_outputs: int) -> Model | None:
        """The model of neurons ``r_k h(theta, z)``, whose particles have r behind theta; None where it is not known."""
        return None

    @property
    @abstractmethod
    def space(self) -> Space:
        """Coordinates of a particle, those that move, and their domain."""

    @property
    def n_coordinates(self) -> int:
        """Coordinates p of a particle."""
        return self.space.n_coordinates

    @property
    def n_moving(self) -> int:
        """Leading coordinates of a particle that move; those behind them are frozen."""
        return self.space.n_moving

    def neurons(self, particles: ArrayLike, inputs: ArrayLike, num_threads: int | None = None) -> FloatArray:
        """Outputs of single neurons, ``h_k(theta_m, z_i)``.

        This is the matrix that training never stores: use it on small sets.

        Parameters
        ----------
        particles : array_like, shape (N, n_coordinates)
            Their precision, float32 or float64, is that of the result; other numbers are taken as float64.
        inputs : array_like, shape (n, n_features)
        num_threads : int, optional
            Default: what OpenMP would take (OMP_NUM_THREADS). It never changes the result.

        Returns
        -------
        ndarray, shape (n, N), or (n, N, n_outputs) with several outputs

        Raises
        ------
        TypeError, ValueError
            If an array has the wrong shape, is no array of reals, or is not finite; if its precision does not hold the
            result.
        """
        particles, inputs = self._check(particles, inputs)
        outputs = self._neurons(particles, inputs, validation.num_threads(num_threads))
        return self._drop_output_axis(validation.held("neurons", outputs, particles.dtype))

    def predict(
        self,
        particles: ArrayLike,
        inputs: ArrayLike,
        weights: ArrayLike | None = None,
        num_threads: int | None = None,
    ) -> FloatArray:
        """Predictions ``f(z_i) = sum_m c_m h(theta_m, z_i)``.

        Parameters
        ----------
        particles, inputs, num_threads
            As in `neurons`.
        weights : array_like, shape (N,), optional
            The coefficients c, of any sign and sum; by default 1/N each, the average over the particles.

        Returns
        -------
        ndarray, shape (n,), or (n, n_outputs) with several outputs

        Raises
        ------
        TypeError, ValueError
            If an array has the wrong shape, is no array of reals, or is not finite; if its precision does not hold the
            result.
        """
        particles, inputs = self._check(particles, inputs)
        if weights is not None:
            weights = validation.array("weights", weights, particles.dtype)
            validation.shape("weights", weights, (len(particles),), "to match particles")
        predictions = self.predictions(particles, weights, inputs, validation.num_threads(num_threads))
        return self._drop_output_axis(validation.held("predictions", predictions, particles.dtype))

    def check_range(self, particles: FloatArray, largest_input: float) -> None:  # noqa: B027  most need none
        """Refuse particles whose products with inputs of a size overflow on the way, where the result may hide it."""

    @abstractmethod
    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        """Independent draws for a run to start from, shape (n_particles, n_coordinates).

        ``place`` is one in the noise, or a seed.
        """

    @abstractmethod
    def predictions(
        self, particles: FloatArray, weights: FloatArray | None, inputs: FloatArray, num_threads: int
    ) -> FloatArray:
        """Predictions, shape (n, n_outputs), from arrays of one precision that are known to fit."""

    @abstractmethod
    def pull_back(
        self, particles: FloatArray, inputs: FloatArray, cotangent: FloatArray, num_threads: int
    ) -> tuple[FloatArray, FloatArray]:
        """``sum_ik g_ik h_k(theta_m, z_i)`` at each particle, shape (N,), and its gradient in theta_m, (N, p).

        ``g`` is the cotangent, shape (n, n_outputs); the arrays have one precision and are known to fit. The gradient
        is 0 in frozen coordinates.
        """

    def pull_back_rows(
        self,
        particles: FloatArray,
        inputs: FloatArray,
        cotangent: FloatArray,
        rows: NDArray[np.int64],
        num_threads: int,
    ) -> FloatArray:
        """Gradient as in `pull_back`, that of particle m over ``rows[m]`` only; where `has_particle_batches` is."""
        raise NotImplementedError(f"{type(self).__name__} does not define pull_back_rows")

    def pull_back_inputs(
        self,
        particles: FloatArray,
        weights: FloatArray | None,
        inputs: FloatArray,
        cotangent: FloatArray,
        num_threads: int,
    ) -> FloatArray:
        """Gradient of predictions in their inputs, ``sum_k g_ik grad_z f_k(z_i)``, shape (n, n_features).

        Arguments are those of `predictions` and `pull_back`. Defined by `TwoLayerNetwork`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define pull_back_inputs")

    def pull_back_both(
        self,
        particles: FloatArray,
        weights: FloatArray | None,
        inputs: FloatArray,
        cotangent: FloatArray,
        num_threads: int,
    ) -> tuple[FloatArray, FloatArray]:
        """Gradients of `pull_back` in the particles, (N, p), and of `pull_back_inputs`, (n, n_features): in one pass.

        The weights are of the second one alone.
        """
        return (
            self.pull_back(particles, inputs, cotangent, num_threads)[1],
            self.pull_back_inputs(particles, weights, inputs, cotangent, num_threads),
        )

    def input_gradient(
        self, particles: FloatArray, weights: FloatArray | None, inputs: FloatArray, num_threads: int
    ) -> FloatArray:
        """Gradient of the prediction ``f(z_i)`` in the input z_i, shape (n, n_features), of one output."""
        if self.n_outputs != 1:
            raise ValueError(f"input_gradient is of one output, the model has {self.n_outputs}")
        cotangent = np.ones((len(inputs), 1), particles.dtype)
        return self.pull_back_inputs(particles, weights, inputs, cotangent, num_threads)

    def pull_back_input_gradient(
        self, particles: FloatArray, inputs: FloatArray, directions: FloatArray, num_threads: int
    ) -> tuple[FloatArray, FloatArray]:
        """``sum_i u_i . grad_z h(theta_m, z_i)`` at each particle, shape (N,), and its gradient in theta_m, (N, p).

        ``u`` are the directions, shape (n, n_features). The gradient is 0 in frozen coordinates.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define pull_back_input_gradient")

    @abstractmethod
    def _neurons(self, particles: FloatArray, inputs: FloatArray, num_threads: int) -> FloatArray:
        """Outputs of single neurons, shape (n, N, n_outputs)."""

    def _check(self, particles: ArrayLike, inputs: ArrayLike) -> tuple[FloatArray, FloatArray]:
        particles = validation.array("particles", particles)
        validation.shape("particles", particles, ("N", self.n_coordinates), "(number, coordinates of the model)")
        inputs = validation.array("inputs", inputs, particles.dtype)
        validation.shape("inputs", inputs, ("n", self.n_features), "(number, n_features of the model)")
        self.check_range(particles, float(np.abs(inputs).max()))
        return particles, inputs

    def _drop_output_axis(self, outputs: FloatArray) -> FloatArray:
        return outputs[..., 0] if self.n_outputs == 1 else outputs


@final
@dataclass(frozen=True, repr=False)
class TwoLayerNetwork(Model):
    """Two-layer network in the mean-field scaling: the average of a neuron over the measure of its parameters.

    ::

        f_mu(z) = E_mu h(theta, z),    h_k(theta, z) = output_scale * (c_k(theta) * act(w.z + b) + e_k(theta))

    A particle is ``theta = (w, b, r)``: ``n_features`` weights, the bias where there is one, and ``n_outputs``
    coordinates of the readout where it has any (see `slices`). The readouts, with ``B = readout_bound``:

    ============  =============================  ============================
    ``fixed``     ``c = 1``                      no coordinate; one output
    ``signs``     ``c_k = s_k``, +1 or -1        frozen coordinates
    ``linear``    ``c_k = r_k``
    ``bounded``   ``c_k = B * tanh(r_k)``        abs(h) <= B with tanh
    ``parity``    ``c_k = B / 3``,               neuron of the sparse parity
                  ``e_k = 2 B / 3 * tanh(r_k)``  experiments
    ============  =============================  ============================

    A frozen coordinate takes neither gradient nor ridge nor noise. Source: Mei, Montanari, Nguyen 2018, "A mean field
    view of the landscape of two-layer neural networks"; the parity neuron is that of Suzuki, Wu, Oko, Nitanda 2023,
    "Feature learning via mean-field Langevin dynamics".

    Parameters
    ----------
    n_features : int
        Length of an input z.
    n_outputs : int
        Length of a prediction.
    activation, readout : str
        Names among `activations` and `readouts`.
    bias : bool
        Whether neurons have the bias b.
    output_scale : float
        Factor of every neuron. A network that *sums* M neurons is one with ``output_scale=M``.
    readout_bound : float
        B, positive.
    domain : sequence of blocks, optional
        Where the moving coordinates stay, see `mfld.Space`; by default Euclidean space.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or ``readout="fixed"`` has several outputs, which would all
        be equal.

    Examples
    --------
    >>> import mfld
    >>> model = mfld.TwoLayerNetwork(n_features=3, activation="relu")
    >>> model.n_coordinates, model.slices
    (5, {'weights': slice(0, 3, None), 'bias': slice(3, 4, None), 'readout': slice(4, 5, None)})
    >>> particles = model.initial_particles(100, 0)
    >>> model.predict(particles, [[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]]).shape
    (2,)
    """

    n_features: int
    n_outputs: int = 1
    activation: str = "tanh"
    readout: str = "linear"
    bias: bool = True
    output_scale: float = 1.0
    readout_bound: float = 1.0
    domain: tuple[Block, ...] = ()

    has_particle_batches: ClassVar[bool] = True

    @property
    def has_input_gradients(self) -> bool:  # type: ignore[override]
        return self.n_outputs == 1

    @property
    def has_mixed_gradients(self) -> bool:  # type: ignore[override]
        return self.n_outputs == 1

    def __post_init__(self) -> None:
        checked = {
            "n_features": validation.integer("n_features", self.n_features, 1),
            "n_outputs": validation.integer("n_outputs", self.n_outputs, 1),
            "activation": validation.choice("activation", self.activation, activations()),
            "readout": validation.choice("readout", self.readout, readouts()),
            "bias": validation.boolean("bias", self.bias),
            "output_scale": validation.real("output_scale", self.output_scale),
            "readout_bound": validation.real("readout_bound", self.readout_bound, positive=True),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if not self._readout_has_coordinates and self.n_outputs > 1:
            equal = f"n_outputs must be 1 with readout={self.readout!r}: all would be equal"
            raise ValueError(f"{equal}; got {self.n_outputs}")
        validation.instance("domain", self.domain, Sequence, "a sequence of blocks, like [Sphere(3), Euclidean(1)]")
        object.__setattr__(self, "domain", tuple(self.domain))
        _ = self.space  # whose numbers have to fit

    def __repr__(self) -> str:
        shown = [field for field in fields(self) if field.name != "domain" or self.domain]
        return f"TwoLayerNetwork({', '.join(f'{field.name}={getattr(self, field.name)!r}' for field in shown)})"

    @property
    def space(self) -> Space:
        readout = self.slices["readout"]
        n_moving = int(readout.start if self._readout_is_frozen else readout.stop)
        return Space(int(readout.stop), n_moving, domain=self.domain)

    @property
    def slices(self) -> dict[str, slice]:
        """Places of ``weights``, ``bias`` and ``readout`` in a particle; what a model lacks has an empty slice."""
        bias = self.n_features + self.bias
        readout = bias + (self.n_outputs if self._readout_has_coordinates else 0)
        return {
            "weights": slice(0, self.n_features),
            "bias": slice(self.n_features, bias),
            "readout": slice(bias, readout),
        }

    @property
    def activation_bounds(self) -> tuple[float, float, float]:
        """Lowest and highest value of the activation, infinite where it has none, and its largest slope in size.

        Examples
        --------
        >>> import mfld
        >>> mfld.TwoLayerNetwork(n_features=3, activation="sigmoid").activation_bounds
        (0.0, 1.0, 0.25)
        """
        return _core.backend.activation_bounds[activations().index(self.activation)]

    @property
    def output_range(self) -> tuple[float, float]:
        """Bounds on what one output ``h_k`` of a neuron can be, whatever theta and z; infinite where there are none.

        Examples
        --------
        >>> import mfld
        >>> mfld.TwoLayerNetwork(n_features=3, readout="parity", readout_bound=3.0).output_range
        (-3.0, 3.0)
        """
        return _core.backend.output_range(self.native)

    def growth(self, inputs: FloatArray) -> NDArray[np.float64]:
        """Factors a_i of ``|h(theta, z_i)| <= a_i |theta|**2 + linear terms``, shape (n,); 0 where none is quadratic.

        Examples
        --------
        >>> import numpy as np
        >>> import mfld
        >>> mfld.TwoLayerNetwork(n_features=2, activation="relu", bias=False).growth(np.array([[3.0, 4.0]]))
        array([2.5])
        >>> mfld.TwoLayerNetwork(n_features=2, activation="tanh").growth(np.array([[3.0, 4.0]]))
        array([0.])
        """
        length = np.sqrt(np.sum(inputs.astype(np.float64) ** 2, axis=1) + self.bias)
        factors: NDArray[np.float64] = _core.backend.quadratic_growth(self.native) * length
        return factors

    def steepness(self, inputs: FloatArray) -> NDArray[np.float64]:
        """Bounds on ``|grad_theta h_k(theta, z_i)|``, whatever theta, shape (n,); infinite where there are none.

        Examples
        --------
        >>> import numpy as np
        >>> import mfld
        >>> model = mfld.TwoLayerNetwork(n_features=2, readout="bounded", bias=False)     # B tanh(r) tanh(w.z)
        >>> model.steepness(np.array([[0.6, 0.8]])).round(3)
        array([1.414])
        """
        length = np.sqrt(np.sum(inputs.astype(np.float64) ** 2, axis=1) + self.bias)
        low, high, slope = self.activation_bounds
        b, largest = self.readout_bound, max(abs(low), abs(high))
        in_front, in_readout = {
            "fixed": (1.0, 0.0),
            "signs": (1.0, 0.0),
            "linear": (math.inf, math.inf),
            "bounded": (b, b * largest),
            "parity": (b / 3, 2 * b / 3),
        }[self.readout]
        along = in_front * slope * np.where(length > 0, length, np.finfo(np.float64).tiny)  # no inf * 0
        bounds: NDArray[np.float64] = abs(self.output_scale) * np.hypot(along, in_readout)
        return bounds

    @property
    def bound(self) -> float:
        """Bound on ``abs(h_k)``, one output of a neuron: the H of the dual algorithms; infinite where there is none.

        Examples
        --------
        >>> import mfld
        >>> mfld.TwoLayerNetwork(n_features=3, readout="bounded", readout_bound=2.0).bound
        2.0
        >>> mfld.TwoLayerNetwork(n_features=3, readout="linear").bound
        inf
        """
        return max(map(abs, self.output_range))

    def predictions(
        self, particles: FloatArray, weights: FloatArray | None, inputs: FloatArray, num_threads: int
    ) -> FloatArray:
        return _core.backend.predict(self.native, particles, weights, inputs, num_threads)

    def pull_back(
        self, particles: FloatArray, inputs: FloatArray, cotangent: FloatArray, num_threads: int
    ) -> tuple[FloatArray, FloatArray]:
        return _core.backend.pull_back(self.native, particles, inputs, cotangent, num_threads)

    def pull_back_inputs(
        self,
        particles: FloatArray,
        weights: FloatArray | None,
        inputs: FloatArray,
        cotangent: FloatArray,
        num_threads: int,
    ) -> FloatArray:
        return _core.backend.pull_back_inputs(self.native, particles, weights, inputs, cotangent, num_threads)

    def pull_back_both(
        self,
        particles: FloatArray,
        weights: FloatArray | None,
        inputs: FloatArray,
        cotangent: FloatArray,
        num_threads: int,
    ) -> tuple[FloatArray, FloatArray]:
        return _core.backend.pull_back_both(self.native, particles, weights, inputs, cotangent, num_threads)

    def pull_back_rows(
        self,
        particles: FloatArray,
        inputs: FloatArray,
        cotangent: FloatArray,
        rows: NDArray[np.int64],
        num_threads: int,
    ) -> FloatArray:
        return _core.backend.pull_back_rows(self.native, particles, inputs, cotangent, rows, num_threads)

    def pull_back_input_gradient(
        self, particles: FloatArray, inputs: FloatArray, directions: FloatArray, num_threads: int
    ) -> tuple[FloatArray, FloatArray]:
        values, gradient = np.zeros(len(particles), particles.dtype), np.zeros_like(particles)
        weights, bias, readout = self.slices.values()
        factors, slopes = self._readout_factors(particles)
        kind = activations().index(self.activation)
        some = max(1, _NUMBERS_AT_A_TIME // max(1, len(inputs)))
        for first in range(0, len(particles), some):
            own = slice(first, first + some)
            w = particles[own, weights]
            # einsum and not a matrix product: that of a BLAS may depend on its number of threads.
            z = np.einsum("md,id->mi", w, inputs)
            if self.bias:
                z = z + particles[own, bias]
            along = np.einsum("md,id->mi", w, directions)
            _, slope, curvature = _core.backend.activation(kind, np.ascontiguousarray(z))
            bent = curvature * along
            front = (self.output_scale * factors[own])[:, np.newaxis]
            total = np.sum(slope * along, axis=1)
            values[own] = front[:, 0] * total
            gradient[own, weights] = front * (
                np.einsum("mi,id->md", bent, inputs) + np.einsum("mi,id->md", slope, directions)
            )
            if self.bias:
                gradient[own, bias] = front * np.sum(bent, axis=1, keepdims=True)
            if self._readout_has_coordinates:
                gradient[own, readout] = (self.output_scale * slopes[own] * total)[:, np.newaxis]
        gradient[:, self.n_moving :] = 0
        return values, gradient

    def _readout_factors(self, particles: FloatArray) -> tuple[FloatArray, FloatArray]:
        """``c(theta)`` of the only output, shape (N,), and its derivative in the readout coordinate."""
        one, bound = np.ones(len(particles), particles.dtype), particles.dtype.type(self.readout_bound)
        if not self._readout_has_coordinates:
            return one, 0 * one
        r = particles[:, self.slices["readout"].start]
        if self.readout == "bounded":
            saturated = np.tanh(r)
            return bound * saturated, bound * (1 - saturated**2)
        return (bound / 3 * one, 0 * one) if self.readout == "parity" else (r, one)

    def check_range(self, particles: FloatArray, largest_input: float) -> None:
        # tanh of what has overflown to the wrong side is finite, and wrong.
        largest = float(max(particles.max(), -particles.min()))
        if largest * max(largest_input, 1.0) > float(np.finfo(particles.dtype).max) / (self.n_features + 1):
            wider = ", or take float64" if particles.dtype == np.float32 else ""
            raise ValueError(
                f"particles must have products with the inputs that {particles.dtype} holds, got numbers up to "
                f"{largest:.3g} and inputs up to {largest_input:.3g}: scale them{wider}"
            )

    def _neurons(self, particles: FloatArray, inputs: FloatArray, num_threads: int) -> FloatArray:
        return _core.backend.neurons(self.native, particles, inputs, num_threads)

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        """Independent draws: weights from N(0, 1/n_features), bias and readout from N(0, 1), signs +1 or -1 evenly.

        On a domain those of `Space.draw`.

        Parameters
        ----------
        n_particles : int
        place : Place or int
            Place in the noise, or a seed. The first particles do not depend on how many are drawn (see `mfld.noise`,
            stream ``init``).
        dtype : {"float32", "float64"}

        Returns
        -------
        ndarray, shape (n_particles, n_coordinates)

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        """
        particles = self.space.draw(noise.start(place), n_particles, dtype)
        if not self.domain:
            particles[:, self.slices["weights"]] /= particles.dtype.type(np.sqrt(self.n_features))
        if self._readout_is_frozen:
            signs = particles[:, self.slices["readout"]]
            signs[:] = np.where(signs < 0, -1, 1)
        return particles

    @property
    def native(self) -> _core.Network:
        return _native(self)

    def with_weights(self, n_outputs: int) -> TwoLayerNetwork | None:
        """Network with a linear readout, where this one has none."""
        return replace(self, readout="linear", n_outputs=n_outputs, domain=()) if self.readout == "fixed" else None

    @property
    def _readout_has_coordinates(self) -> bool:
        return _core.backend.readouts[readouts().index(self.readout)][1]

    @property
    def _readout_is_frozen(self) -> bool:
        return _core.backend.readouts[readouts().index(self.readout)][2]


@functools.lru_cache  # it is asked for at every step, and cannot be pickled with the model
def _native(network: TwoLayerNetwork) -> _core.Network:
    return _core.Network(
        network.n_features,
        network.n_outputs,
        network.bias,
        activations().index(network.activation),
        readouts().index(network.readout),
        network.output_scale,
        network.readout_bound,
    )


_NUMBERS_AT_A_TIME = 2**21  # of one array that a user's function returns: 16 MB in float64


class NeuronModel(Model):
    """A model whose neurons ``h(theta, z)`` are NumPy functions of your own.

    ::

        f_mu(z) = E_mu h(theta, z)

    The functions take particles ``theta``, shape (N, p), and inputs ``z``, shape (n, n_features), in the precision of
    the run, and return a value for each pair of an input and a particle. They are called with blocks of both, so that
    no array which they return has more than about two million numbers: each pair has to stand for itself.

    Parameters
    ----------
    value : callable
        ``value(theta, z)``: ``h(theta_m, z_i)``, shape (n, N), or (n, N, n_outputs) with several outputs.
    gradient : callable
        ``gradient(theta, z)``: its gradient in theta_m, shape (n, N, p), or (n, N, n_outputs, p).
    n_features : int
        Length of an input.
    n_coordinates : int
        Length p of a particle.
    n_outputs : int
        Length of a prediction.
    n_moving : int, optional
        Leading coordinates that move; by default all.
    space : Space, optional
        In place of the two numbers of coordinates, for a domain.
    initial_particles : callable, optional
        Makes particles to start from out of standard normals, shape (N, p), and returns that shape. Default: the
        normals themselves.
    input_gradient : callable, optional
        ``input_gradient(theta, z)``: gradient of h in the input z_i, shape (n, N, n_features); of one output. What
        follows gradients through the network to its inputs needs it, like `MeanFieldGAN` of its critic.
    mixed_gradient : callable, optional
        ``mixed_gradient(theta, z)``: the gradient of that in theta_m, shape (n, N, n_features, p), for
        `GradientPenalty`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; later, if a function returns another shape, what is no
        array of reals, or NaN.

    Examples
    --------
    Gaussian bumps at theta:

    >>> import numpy as np
    >>> import mfld
    >>> def difference(theta, z):
    ...     return z[:, np.newaxis, :] - theta[np.newaxis, :, :]
    >>> def value(theta, z):
    ...     return np.exp(-np.sum(difference(theta, z) ** 2, axis=2) / 2)
    >>> def gradient(theta, z):
    ...     return value(theta, z)[:, :, np.newaxis] * difference(theta, z)
    >>> model = mfld.NeuronModel(value, gradient, n_features=2, n_coordinates=2)
    >>> model.predict([[0.0, 0.0], [3.0, 4.0]], [[0.0, 0.0]]).round(4)
    array([0.5])
    """

    def __init__(
        self,
        value: Callable[[FloatArray, FloatArray], ArrayLike],
        gradient: Callable[[FloatArray, FloatArray], ArrayLike],
        *,
        n_features: int,
        n_coordinates: int | None = None,
        n_outputs: int = 1,
        n_moving: int | None = None,
        space: Space | None = None,
        initial_particles: Callable[[FloatArray], ArrayLike] | None = None,
        input_gradient: Callable[[FloatArray, FloatArray], ArrayLike] | None = None,
        mixed_gradient: Callable[[FloatArray, FloatArray], ArrayLike] | None = None,
    ) -> None:
        validation.function("value", value)
        validation.function("gradient", gradient)
        if initial_particles is not None:
            validation.function("initial_particles", initial_particles)
        for name, own in (("input_gradient", input_gradient), ("mixed_gradient", mixed_gradient)):
            if own is not None:
                validation.function(name, own)
                if n_outputs != 1:
                    raise ValueError(f"n_outputs must be 1 with {name}, got {n_outputs}")
        self.n_features = validation.integer("n_features", n_features, 1)
        self.n_outputs = validation.integer("n_outputs", n_outputs, 1)
        self._space = spaces.given(n_coordinates, n_moving, space)
        self._value = value
        self._gradient = gradient
        self._initial_particles = initial_particles
        self._input_gradient = input_gradient
        self._mixed_gradient = mixed_gradient
        self.has_input_gradients = input_gradient is not None
        self.has_mixed_gradients = mixed_gradient is not None

    def __repr__(self) -> str:
        name = getattr(self._value, "__name__", repr(self._value))
        sizes = f"n_features={self.n_features}, n_coordinates={self.n_coordinates}, n_outputs={self.n_outputs}"
        return f"NeuronModel({name}, {sizes})"

    @property
    def space(self) -> Space:
        return self._space

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        normals = self.space.draw(noise.start(place), n_particles, dtype)
        if self._initial_particles is None:
            return normals
        result = self._initial_particles(normals.copy())
        why = "to match its argument"
        return validation.returned("the result of initial_particles", result, normals.shape, normals.dtype, why)

    def predictions(
        self, particles: FloatArray, weights: FloatArray | None, inputs: FloatArray, num_threads: int
    ) -> FloatArray:
        total = np.zeros((len(inputs), self.n_outputs))
        for some, rows in self._blocks(particles, inputs, self.n_outputs):
            values = self._values(particles[some], inputs[rows])
            if weights is not None:
                values = values * weights[some, np.newaxis]
            total[rows] += np.sum(values, axis=1, dtype=np.float64)
        return (total / len(particles) if weights is None else total).astype(particles.dtype)

    def pull_back(
        self, particles: FloatArray, inputs: FloatArray, cotangent: FloatArray, num_threads: int
    ) -> tuple[FloatArray, FloatArray]:
        values, gradient = np.zeros(len(particles)), np.zeros(particles.shape)
        # einsum and not a matrix product: that of a BLAS may depend on its number of threads.
        for some, rows in self._blocks(particles, inputs, self.n_outputs * self.n_coordinates):
            g = cotangent[rows].astype(np.float64)
            values[some] += np.einsum("ik,imk->m", g, self._values(particles[some], inputs[rows]))
            gradient[some] += np.einsum("ik,imkp->mp", g, self._gradients(particles[some], inputs[rows]))
        gradient[:, self.n_moving :] = 0
        with np.errstate(over="ignore"):  # what overflows is found by the move
            return values.astype(particles.dtype), gradient.astype(particles.dtype)

    def input_gradient(
        self, particles: FloatArray, weights: FloatArray | None, inputs: FloatArray, num_threads: int
    ) -> FloatArray:
        if self._input_gradient is None:
            return super().input_gradient(particles, weights, inputs, num_threads)
        shares = np.full(len(particles), 1 / len(particles)) if weights is None else weights
        total = np.zeros(inputs.shape)
        for some, rows in self._blocks(particles, inputs, self.n_features):
            given = self._input_gradient(particles[some].copy(), inputs[rows].copy())
            slopes = self._returned("input_gradient", given, particles[some], inputs[rows], (self.n_features,))
            total[rows] += np.einsum("m,imd->id", shares[some], slopes[:, :, 0])
        return total.astype(particles.dtype)

    def pull_back_input_gradient(
        self, particles: FloatArray, inputs: FloatArray, directions: FloatArray, num_threads: int
    ) -> tuple[FloatArray, FloatArray]:
        if self._input_gradient is None or self._mixed_gradient is None:
            return super().pull_back_input_gradient(particles, inputs, directions, num_threads)
        values, gradient = np.zeros(len(particles)), np.zeros(particles.shape)
        d, p = self.n_features, self.n_coordinates
        for some, rows in self._blocks(particles, inputs, d * p):
            theta, z, u = particles[some], inputs[rows], directions[rows].astype(np.float64)
            slopes = self._returned("input_gradient", self._input_gradient(theta.copy(), z.copy()), theta, z, (d,))
            mixed = self._returned("mixed_gradient", self._mixed_gradient(theta.copy(), z.copy()), theta, z, (d, p))
            values[some] += np.einsum("id,imd->m", u, slopes[:, :, 0])
            gradient[some] += np.einsum("id,imdp->mp", u, mixed[:, :, 0])
        gradient[:, self.n_moving :] = 0
        return values.astype(particles.dtype), gradient.astype(particles.dtype)

    def _neurons(self, particles: FloatArray, inputs: FloatArray, num_threads: int) -> FloatArray:
        outputs = np.empty((len(inputs), len(particles), self.n_outputs), particles.dtype)
        for some, rows in self._blocks(particles, inputs, self.n_outputs):
            outputs[rows, some] = self._values(particles[some], inputs[rows])
        return outputs

    @staticmethod
    def _blocks(particles: FloatArray, inputs: FloatArray, numbers: int) -> Iterator[tuple[slice, slice]]:
        """Particles and rows of blocks, with so many numbers for each pair; all particles where they fit."""
        some = max(1, min(len(particles), _NUMBERS_AT_A_TIME // numbers))
        rows = max(1, _NUMBERS_AT_A_TIME // (numbers * some))
        for first in range(0, len(particles), some):
            for row in range(0, len(inputs), rows):
                yield slice(first, first + some), slice(row, row + rows)

    def _values(self, particles: FloatArray, inputs: FloatArray) -> FloatArray:
        """Shape (n, N, K)."""
        return self._returned("value", self._value(particles.copy(), inputs.copy()), particles, inputs, ())

    def _gradients(self, particles: FloatArray, inputs: FloatArray) -> FloatArray:
        """Shape (n, N, K, p)."""
        last = (self.n_coordinates,)
        return self._returned("gradient", self._gradient(particles.copy(), inputs.copy()), particles, inputs, last)

    def _returned(
        self, name: str, result: ArrayLike, particles: FloatArray, inputs: FloatArray, last: tuple[int, ...]
    ) -> FloatArray:
        pairs = (len(inputs), len(particles))
        shape = (*pairs, *(() if self.n_outputs == 1 else (self.n_outputs,)), *last)
        why = "to match inputs and particles"
        array = validation.returned(f"the result of {name}", result, shape, particles.dtype, why)
        if np.isnan(array).any():
            place = np.argwhere(np.isnan(array))[0]
            raise ValueError(
                f"the result of {name} must not be nan; it is for the particle "
                f"{particles[place[1]]} and the input {inputs[place[0]]}"
            )
        return array.reshape(*pairs, self.n_outputs, *last)
