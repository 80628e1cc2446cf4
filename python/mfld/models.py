"""Models: what one particle contributes to a prediction."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mfld import _core, noise, validation
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


@dataclass(frozen=True)
class TwoLayerNetwork:
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
    >>> particles = model.initial_particles(n_particles=100, seed=0)
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
        if self.readout == "fixed" and self.n_outputs > 1:
            raise ValueError(f"n_outputs must be 1 with readout='fixed': all would be equal; got {self.n_outputs}")

    @property
    def n_coordinates(self) -> int:
        """Coordinates p of a particle."""
        return int(self.slices["readout"].stop)

    @property
    def n_moving(self) -> int:
        """Leading coordinates of a particle that move; those behind them are frozen."""
        return int(self.slices["readout"].start) if self._readout_is_frozen else self.n_coordinates

    @property
    def slices(self) -> dict[str, slice]:
        """Where ``weights``, ``bias`` and ``readout`` stand in a particle; what a model lacks has an empty slice."""
        bias = self.n_features + self.bias
        readout = bias + (self.n_outputs if self._readout_has_coordinates else 0)
        return {
            "weights": slice(0, self.n_features),
            "bias": slice(self.n_features, bias),
            "readout": slice(bias, readout),
        }

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
            If an array has the wrong shape, is no array of reals, or is not finite.
        """
        particles, inputs = self._check(particles, inputs)
        outputs = _core.backend.neurons(self.native, particles, inputs, validation.num_threads(num_threads))
        return self._drop_output_axis(outputs)

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
            If an array has the wrong shape, is no array of reals, or is not finite.
        """
        particles, inputs = self._check(particles, inputs)
        if weights is not None:
            weights = validation.array("weights", weights, particles.dtype)
            validation.shape("weights", weights, (len(particles),), "to match particles")
        outputs = _core.backend.predict(self.native, particles, weights, inputs, validation.num_threads(num_threads))
        return self._drop_output_axis(outputs)

    def initial_particles(self, n_particles: int, seed: int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        """Independent draws: weights from N(0, 1/n_features), bias and readout from N(0, 1), signs +1 or -1 evenly.

        Parameters
        ----------
        n_particles : int
        seed : int
            The first particles do not depend on how many are drawn (see `mfld.noise`, stream ``init``).
        dtype : {"float32", "float64"}

        Returns
        -------
        ndarray, shape (n_particles, n_coordinates)

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        """
        particles = noise.normals(seed, 0, n_particles, self.n_coordinates, dtype=dtype, stream="init")
        particles[:, self.slices["weights"]] /= particles.dtype.type(np.sqrt(self.n_features))
        if self._readout_is_frozen:
            signs = particles[:, self.slices["readout"]]
            signs[:] = np.where(signs < 0, -1, 1)
        return particles

    @property
    def native(self) -> _core.Network:
        """This model as the compiled core takes it."""
        return _core.Network(
            self.n_features,
            self.n_outputs,
            self.bias,
            activations().index(self.activation),
            readouts().index(self.readout),
            self.output_scale,
            self.readout_bound,
        )

    @property
    def _readout_has_coordinates(self) -> bool:
        return _core.backend.readouts[readouts().index(self.readout)][1]

    @property
    def _readout_is_frozen(self) -> bool:
        return _core.backend.readouts[readouts().index(self.readout)][2]

    def _check(self, particles: ArrayLike, inputs: ArrayLike) -> tuple[FloatArray, FloatArray]:
        particles = validation.array("particles", particles)
        validation.shape("particles", particles, ("N", self.n_coordinates), "(number, coordinates of the model)")
        inputs = validation.array("inputs", inputs, particles.dtype)
        validation.shape("inputs", inputs, ("n", self.n_features), "(number, n_features of the model)")
        return particles, inputs

    def _drop_output_axis(self, outputs: FloatArray) -> FloatArray:
        return outputs[..., 0] if self.n_outputs == 1 else outputs
