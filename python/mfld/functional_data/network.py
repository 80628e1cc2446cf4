"""Two-layer networks on functions."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import _core, noise, validation
from mfld.floating import underflow_is_zero
from mfld.functional_data.covariances import Covariance
from mfld.functional_data.grids import Grid, as_curves, as_grid
from mfld.functional_data.modes import Modes
from mfld.models import Model, TwoLayerNetwork
from mfld.native import final
from mfld.noise import Place
from mfld.space import Space
from mfld.state import Cloud
from mfld.validation import FloatArray


@final
class FunctionalNetwork(Model):
    """Two-layer network on functions: the average of neurons whose weights are functions, too.

    ::

        f_mu(x) = E_mu h(theta, x),      h_k(theta, x) = r_k * act(<w, x> + b)

    A particle is ``theta = (u, b, r)`` with the K whitened coordinates u of ``w = sum_j sqrt(s_j) u_j phi_j`` in the
    modes of the covariance; readouts are those of `mfld.TwoLayerNetwork`, which this is on ``z_j = sqrt(s_j) <phi_j,
    x>``. The ridge ``l2 |theta|**2`` makes ``N(0, temperature / (2 l2))`` the reference of each coordinate, hence ::

        l2 = temperature / 2:     minimise  U(mu) + temperature * KL(mu | N(0, Sigma) x N(0, I))

    for ``(w, (b, r))``, and another l2 multiplies these covariances by ``temperature / (2 l2)``. With
    ``mfld.Overdamped(ridge="crank_nicolson")`` steps are pCN-Langevin: w takes ``((2 - d) w - 2 d Sigma g +
    sqrt(8 d) Sigma^(1/2) xi) / (2 + d)`` with ``d = 2 l2 step_size`` and g the gradient of U over the temperature,
    which leaves the reference as it is for every step and K. ``"explicit"`` is the preconditioned Euler scheme, with
    the variances ``s_j / (1 - d / 2)``, ``"implicit"`` has ``s_j / (1 + d / 2)``, and `mfld.MALA` proposes by pCN, with
    ``d = 2 tanh(l2 step_size)``. Particles start as draws of ``N(0, Sigma) x N(0, I)``.

    Parameters
    ----------
    grid : Grid or array_like of points, shape (T,)
        Where curves are known; points alone take the trapezoidal rule.
    covariance : Covariance or Modes
        Of the reference of the weight functions; or its modes on this grid, of which all are taken.
    n_modes : int
        K; fewer, with a warning, where there are no more.
    curves : array_like, shape (m, T), optional
        Those of the training, for a basis that is made of data.
    n_outputs, activation, readout, bias, output_scale, readout_bound
        As in `mfld.TwoLayerNetwork`.

    Attributes
    ----------
    modes : Modes
        The modes kept, and the trace that is not.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; if a covariance is not symmetric and positive.

    Warns
    -----
    UserWarning
        If there are fewer modes than K.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> from mfld.functional_data import Matern
    >>> t = np.linspace(0, 1, 101)
    >>> curves = np.sin(np.multiply.outer(np.linspace(1, 6, 40), t))
    >>> targets = np.tanh(3 * curves.mean(axis=1))
    >>> network = mfld.FunctionalNetwork(t, Matern(length=0.3), n_modes=20)
    >>> risk = mfld.EmpiricalRisk(network, network.inputs(curves), targets, loss="half_squared", l2=5e-4)
    >>> pcn = mfld.Overdamped(ridge="crank_nicolson")
    >>> result = mfld.MFLD(200, step_size=0.5, temperature=1e-3, dynamics=pcn).run(risk, n_steps=300)
    >>> half = t[::2]                                                            # the same curves, on another grid
    >>> predicted = network.predict_curves(result.measure, curves[:, ::2], half)
    >>> bool(np.sqrt(np.mean((predicted - targets) ** 2)) < 0.1)
    True
    >>> network.weight_functions(result.particles).shape
    (200, 101)
    """

    has_particle_batches: ClassVar[bool] = True

    @underflow_is_zero
    def __init__(
        self,
        grid: Grid | ArrayLike,
        covariance: Covariance | Modes,
        n_modes: int = 64,
        *,
        curves: ArrayLike | None = None,
        n_outputs: int = 1,
        activation: str = "tanh",
        readout: str = "linear",
        bias: bool = True,
        output_scale: float = 1.0,
        readout_bound: float = 1.0,
    ) -> None:
        self.grid = as_grid(grid)
        n_modes = validation.integer("n_modes", n_modes, 1)
        given = None if curves is None else as_curves(curves, self.grid)[0].astype(np.float64)
        self.covariance = covariance
        self.modes: Modes
        if isinstance(covariance, Modes):
            expected = (len(self.grid), len(covariance))
            validation.shape("covariance.projection", covariance.projection, expected, "(points of the grid, modes)")
            self.modes = covariance
        else:
            validation.instance("covariance", covariance, Covariance, "a Covariance, like PowerLaw(2.0), or Modes")
            self.modes = covariance.modes(self.grid, n_modes, given)
            if len(self.modes) < n_modes:
                warnings.warn(
                    f"n_modes must be at most {len(self.modes)}, what {covariance} has on {self.grid} above rounding, "
                    f"got {n_modes}: {len(self.modes)} are taken",
                    UserWarning,
                    stacklevel=3,  # behind the decorator, where the network is made
                )
        self.network = TwoLayerNetwork(
            len(self.modes),
            n_outputs,
            activation=activation,
            readout=readout,
            bias=bias,
            output_scale=output_scale,
            readout_bound=readout_bound,
        )
        self.n_features, self.n_outputs = self.network.n_features, self.network.n_outputs

    def __repr__(self) -> str:
        parts = f"{self.grid}, {self.covariance}, n_modes={self.n_features}, n_outputs={self.n_outputs}"
        return f"FunctionalNetwork({parts}, activation={self.network.activation!r}, readout={self.network.readout!r})"

    @underflow_is_zero
    def inputs(self, curves: Any, points: Grid | ArrayLike | None = None) -> FloatArray:
        """Inputs of the network, ``z_j = sqrt(s_j) <phi_j, x>``, shape (n, K), of curves.

        Parameters
        ----------
        curves : array_like, shape (n, T), or skfda.FDataGrid
            Their precision, float32 or float64, is that of the result.
        points : Grid or array_like, shape (T,), optional
            Where these curves are known, and their weights; by default the grid of the network, or that of an
            FDataGrid. The inner products are the sums of this grid, with an error of the order of its rule.

        Raises
        ------
        TypeError, ValueError
            If curves have NaN, are of different lengths or do not suit the grid, or inputs are no functions.
        """
        values, grid = as_curves(curves, self.grid, points)
        projection = self.modes.projection
        if grid is not self.grid:
            projection = grid.weights[:, np.newaxis] * self._functions()(grid.points)[:, : len(self.modes)]
        # einsum and not a matrix product: that of a BLAS may depend on its number of threads.
        inputs: FloatArray = np.einsum(
            "nt,tk->nk", values.astype(np.float64), projection * np.sqrt(self.modes.variances)
        )
        return inputs.astype(values.dtype)

    def predict_curves(
        self, measure: Cloud | ArrayLike, curves: Any, points: Grid | ArrayLike | None = None
    ) -> FloatArray:
        """Predictions of a measure on curves, shape (n,) or (n, n_outputs); curves and points as in `inputs`."""
        cloud = measure if isinstance(measure, Cloud) else Cloud(validation.array("measure", measure))
        return self.predict(cloud.particles, self.inputs(curves, points), cloud.weights)

    @underflow_is_zero
    def weight_functions(self, particles: ArrayLike, points: ArrayLike | None = None) -> FloatArray:
        """Weight functions w of neurons, shape (N, P), at points, by default those of the grid."""
        particles = validation.array("particles", particles)
        validation.shape("particles", particles, ("N", self.n_coordinates), "(number, coordinates of the model)")
        where = self.grid.points if points is None else as_grid(points).points
        scaled = np.sqrt(self.modes.variances) * self._functions()(where)[:, : len(self.modes)]
        functions: FloatArray = np.einsum("nk,pk->np", particles[:, : self.n_features].astype(np.float64), scaled)
        return functions

    def _functions(self) -> Any:
        if self.modes.functions is None:
            raise ValueError(f"covariance must be one of functions, on another grid and for weights: {self.covariance}")
        return self.modes.functions

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        particles = self.space.draw(noise.start(place), n_particles, dtype)
        if self.space.n_moving < self.space.n_coordinates:
            signs = particles[:, self.space.n_moving :]
            signs[:] = np.where(signs < 0, -1, 1)
        return particles

    # ---- the network, on the coordinates

    @property
    def space(self) -> Space:
        return self.network.space

    @property
    def slices(self) -> dict[str, slice]:
        """Places of ``weights``, ``bias`` and ``readout`` in a particle."""
        return self.network.slices

    @property
    def activation(self) -> str:
        return self.network.activation

    @property
    def readout(self) -> str:
        return self.network.readout

    @property
    def output_range(self) -> tuple[float, float]:
        return self.network.output_range

    def growth(self, inputs: FloatArray) -> NDArray[np.float64]:
        return self.network.growth(inputs)

    @property
    def native(self) -> _core.Network:
        return self.network.native

    def predictions(
        self, particles: FloatArray, weights: FloatArray | None, inputs: FloatArray, num_threads: int
    ) -> FloatArray:
        return self.network.predictions(particles, weights, inputs, num_threads)

    def pull_back(
        self, particles: FloatArray, inputs: FloatArray, cotangent: FloatArray, num_threads: int
    ) -> tuple[FloatArray, FloatArray]:
        return self.network.pull_back(particles, inputs, cotangent, num_threads)

    def pull_back_rows(
        self,
        particles: FloatArray,
        inputs: FloatArray,
        cotangent: FloatArray,
        rows: NDArray[np.int64],
        num_threads: int,
    ) -> FloatArray:
        return self.network.pull_back_rows(particles, inputs, cotangent, rows, num_threads)

    def _neurons(self, particles: FloatArray, inputs: FloatArray, num_threads: int) -> FloatArray:
        return self.network._neurons(particles, inputs, num_threads)
