"""
NumPy arrays in, kernel calls out. Internal: the public interface is the package mfld.
"""
from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import typing
__all__: list[str] = ['Backend', 'Domain', 'Dynamics', 'Estimator', 'Loss', 'Network', 'PairKernel', 'Ranks', 'Report', 'cpu_runs', 'missing_features', 'streams']
class Backend:
    """
    The kernels of one instruction-set level.
    """
    def __init__(self, path: str) -> None:
        ...
    def accept(self, particles: numpy.ndarray, values: numpy.ndarray, gradient: numpy.ndarray, proposals: numpy.ndarray, proposal_values: numpy.ndarray, proposal_gradient: numpy.ndarray, n_moving: typing.SupportsInt | typing.SupportsIndex, coefficients: typing.Annotated[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(3)"], key: typing.SupportsInt | typing.SupportsIndex, step: typing.SupportsInt | typing.SupportsIndex, population: typing.SupportsInt | typing.SupportsIndex = 0, num_threads: typing.SupportsInt | typing.SupportsIndex = 1, first: typing.SupportsInt | typing.SupportsIndex = 0) -> tuple[int, numpy.typing.NDArray[numpy.float64]]:
        """
        How many proposals were accepted, and with which probability each.
        """
    def activation(self, activation: typing.SupportsInt | typing.SupportsIndex, z: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        """
        Value, slope and curvature; 0 at a kink.
        """
    def advance(self, network: Network, loss: Loss, particles: numpy.ndarray, inputs: numpy.ndarray, targets: numpy.ndarray, weights: numpy.ndarray | None, estimator: Estimator, dynamics: Dynamics, coefficients: collections.abc.Sequence[typing.Any], n_steps: typing.SupportsInt | typing.SupportsIndex, keys: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], step: typing.SupportsInt | typing.SupportsIndex, population: typing.SupportsInt | typing.SupportsIndex = 0, num_threads: typing.SupportsInt | typing.SupportsIndex = 1, domain: Domain | None = None, ranks: Ranks | None = None, on_disk: bool = False) -> Report:
        ...
    def advance_pairs(self, own: PairKernel, own_factor: typing.SupportsFloat | typing.SupportsIndex, cross: PairKernel, cross_factor: typing.SupportsFloat | typing.SupportsIndex, particles: numpy.ndarray, n_moving: typing.SupportsInt | typing.SupportsIndex, target: numpy.ndarray, weights: numpy.ndarray | None, coefficients: collections.abc.Sequence[typing.Any], n_steps: typing.SupportsInt | typing.SupportsIndex, keys: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], step: typing.SupportsInt | typing.SupportsIndex, population: typing.SupportsInt | typing.SupportsIndex = 0, num_threads: typing.SupportsInt | typing.SupportsIndex = 1, domain: Domain | None = None) -> Report:
        """
        Affine steps down a discrepancy; losses and norms of the report are empty.
        """
    def affine(self, particles: numpy.ndarray, gradient: numpy.ndarray, n_moving: typing.SupportsInt | typing.SupportsIndex, coefficients: typing.Annotated[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(3)"], key: typing.SupportsInt | typing.SupportsIndex, step: typing.SupportsInt | typing.SupportsIndex, population: typing.SupportsInt | typing.SupportsIndex = 0, num_threads: typing.SupportsInt | typing.SupportsIndex = 1, domain: Domain | None = None, first: typing.SupportsInt | typing.SupportsIndex = 0) -> int:
        ...
    def baoab(self, particles: numpy.ndarray, velocities: numpy.ndarray, gradient: numpy.ndarray, closing: bool, n_moving: typing.SupportsInt | typing.SupportsIndex, coefficients: typing.Annotated[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(4)"], key: typing.SupportsInt | typing.SupportsIndex, step: typing.SupportsInt | typing.SupportsIndex, population: typing.SupportsInt | typing.SupportsIndex = 0, num_threads: typing.SupportsInt | typing.SupportsIndex = 1, first: typing.SupportsInt | typing.SupportsIndex = 0) -> int:
        ...
    def batch(self, key: typing.SupportsInt | typing.SupportsIndex, step: typing.SupportsInt | typing.SupportsIndex, n: typing.SupportsInt | typing.SupportsIndex, batch_size: typing.SupportsInt | typing.SupportsIndex, population: typing.SupportsInt | typing.SupportsIndex = 0) -> numpy.typing.NDArray[numpy.int64]:
        ...
    def chacha(self, key: bytes, n_words: typing.SupportsInt | typing.SupportsIndex, counter: typing.SupportsInt | typing.SupportsIndex = 0, nonce: typing.Annotated[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(3)"] = [0, 0, 0]) -> numpy.typing.NDArray[numpy.uint32]:
        ...
    def conjugate(self, loss: Loss, dual: numpy.ndarray, targets: numpy.ndarray) -> numpy.ndarray:
        ...
    def dual_step(self, loss: Loss, dual: numpy.ndarray, predictions: numpy.ndarray, targets: numpy.ndarray, step: numpy.ndarray) -> numpy.ndarray:
        ...
    def dual_sweep(self, network: Network, loss: Loss, particles: numpy.ndarray, inputs: numpy.ndarray, targets: numpy.ndarray, weights: numpy.ndarray | None, rows: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], groups: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], temperature: typing.SupportsFloat | typing.SupportsIndex, variance_bound: typing.SupportsFloat | typing.SupportsIndex, neuron_bound: typing.SupportsFloat | typing.SupportsIndex, effective_sample_size: typing.SupportsFloat | typing.SupportsIndex, log_weights: numpy.ndarray, dual: numpy.ndarray, num_threads: typing.SupportsInt | typing.SupportsIndex = 1, ranks: Ranks | None = None) -> int:
        ...
    def gaussian_means(self, inverse_scales: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], x: numpy.ndarray, y: numpy.ndarray, weights: numpy.ndarray | None, num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> numpy.ndarray:
        """
        Mean of the points y under the weights w_j exp(-|a (x_i - y_j)|^2 / 2), for each point x_i.
        """
    def gaussians(self, key: bytes, count: typing.SupportsInt | typing.SupportsIndex, thresholds: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64], aliases: typing.Annotated[numpy.typing.ArrayLike, numpy.uint16], always: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64], num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> numpy.typing.NDArray[numpy.int64]:
        ...
    def loss(self, loss: Loss, predictions: numpy.ndarray, targets: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
        ...
    def loss_smoothness(self, loss: Loss) -> float:
        ...
    def max_threads(self) -> int:
        ...
    def neurons(self, network: Network, particles: numpy.ndarray, inputs: numpy.ndarray, num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> numpy.ndarray:
        ...
    def noise_key(self, seed: typing.SupportsInt | typing.SupportsIndex, replica: typing.SupportsInt | typing.SupportsIndex = 0) -> int:
        ...
    def normals(self, key: typing.SupportsInt | typing.SupportsIndex, step: typing.SupportsInt | typing.SupportsIndex, n_particles: typing.SupportsInt | typing.SupportsIndex, n_coordinates: typing.SupportsInt | typing.SupportsIndex, dtype: numpy.dtype[typing.Any], stream: typing.SupportsInt | typing.SupportsIndex = 1, population: typing.SupportsInt | typing.SupportsIndex = 0, num_threads: typing.SupportsInt | typing.SupportsIndex = 1, members: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [], first: typing.SupportsInt | typing.SupportsIndex = 0) -> numpy.ndarray:
        ...
    def output_range(self, network: Network) -> tuple[float, float]:
        """
        Lowest and highest value of one output h_k of a neuron, whatever theta and z.
        """
    def pair_pull_back(self, kernel: PairKernel, x: numpy.ndarray, y: numpy.ndarray, y_vectors: numpy.ndarray, weights: numpy.ndarray | None, repulsion: typing.SupportsFloat | typing.SupportsIndex, num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> numpy.ndarray:
        """
        sum_j w_j (k(x_i, y_j) s_j + repulsion grad_y k(x_i, y_j)) for each point x_i.
        """
    def pair_stein(self, kernel: PairKernel, x: numpy.ndarray, x_vectors: numpy.ndarray, y: numpy.ndarray, y_vectors: numpy.ndarray, weights: numpy.ndarray | None, with_gradient: bool, num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> tuple[numpy.ndarray, numpy.ndarray | None, numpy.ndarray | None]:
        """
        sum_j w_j u(x_i, y_j) for each point x_i, its gradient at fixed vectors, and the field.
        """
    def pair_sums(self, kernel: PairKernel, x: numpy.ndarray, y: numpy.ndarray, weights: numpy.ndarray | None, with_gradient: bool, num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> tuple[numpy.ndarray, numpy.ndarray | None]:
        """
        sum_j w_j k(x_i, y_j) for each point x_i, and its gradient in x_i.
        """
    def particle_batches(self, key: typing.SupportsInt | typing.SupportsIndex, step: typing.SupportsInt | typing.SupportsIndex, n: typing.SupportsInt | typing.SupportsIndex, batch_size: typing.SupportsInt | typing.SupportsIndex, n_particles: typing.SupportsInt | typing.SupportsIndex, population: typing.SupportsInt | typing.SupportsIndex = 0, num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> numpy.typing.NDArray[numpy.int64]:
        ...
    def pause(self) -> int:
        ...
    def philox(self, counter: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex], key: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]) -> tuple[int, int, int, int]:
        ...
    def predict(self, network: Network, particles: numpy.ndarray, coefficients: numpy.ndarray | None, inputs: numpy.ndarray, num_threads: typing.SupportsInt | typing.SupportsIndex = 1, ranks: Ranks | None = None) -> numpy.ndarray:
        ...
    def product(self, factor: numpy.ndarray, right: numpy.ndarray, transposed: bool = False, num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> numpy.ndarray:
        """
        Product of the factor, or of its transpose, and right.
        """
    def pull_back(self, network: Network, particles: numpy.ndarray, inputs: numpy.ndarray, cotangent: numpy.ndarray, num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> tuple[numpy.ndarray, numpy.ndarray]:
        ...
    def pull_back_both(self, network: Network, particles: numpy.ndarray, coefficients: numpy.ndarray | None, inputs: numpy.ndarray, cotangent: numpy.ndarray, num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> tuple[numpy.ndarray, numpy.ndarray]:
        """
        Gradients in the particles, as of `pull_back`, and in the inputs, in one pass.
        """
    def pull_back_clipped(self, network: Network, loss: Loss, particles: numpy.ndarray, inputs: numpy.ndarray, targets: numpy.ndarray, ends: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], bound: typing.SupportsFloat | typing.SupportsIndex, num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]]:
        ...
    def pull_back_inputs(self, network: Network, particles: numpy.ndarray, coefficients: numpy.ndarray | None, inputs: numpy.ndarray, cotangent: numpy.ndarray, num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> numpy.ndarray:
        ...
    def pull_back_rows(self, network: Network, particles: numpy.ndarray, inputs: numpy.ndarray, cotangent: numpy.ndarray, rows: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> numpy.ndarray:
        ...
    def quadratic_growth(self, network: Network) -> float:
        """
        c of |h(theta, z)| <= c |theta|^2 |(z, 1)| + terms linear in theta, the 1 where there is a bias.
        """
    def ridge_solve(self, factor: numpy.ndarray, ridge: typing.SupportsFloat | typing.SupportsIndex, right: numpy.ndarray, num_threads: typing.SupportsInt | typing.SupportsIndex = 1, *, row_scale: numpy.ndarray | None = None, column_scale: numpy.ndarray | None = None) -> tuple[numpy.ndarray, bool]:
        """
        Solution of (B B' + ridge I) x = right with B the scaled factor, and whether the matrix is positive.
        """
    def risk_along(self, network: Network, loss: Loss, particles: numpy.ndarray, inputs: numpy.ndarray, targets: numpy.ndarray, weights: numpy.ndarray | None, kept: numpy.ndarray, direction: numpy.ndarray, num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> numpy.ndarray:
        """
        The change of that gradient along a direction of all particles.
        """
    def risk_at(self, network: Network, loss: Loss, particles: numpy.ndarray, inputs: numpy.ndarray, targets: numpy.ndarray, weights: numpy.ndarray | None, num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> tuple[float, numpy.ndarray, numpy.ndarray]:
        """
        Value of a risk, gradient of its first variation, and what `risk_along` needs of these arguments.
        """
    def share(self, n_particles: typing.SupportsInt | typing.SupportsIndex, rank: typing.SupportsInt | typing.SupportsIndex, n_ranks: typing.SupportsInt | typing.SupportsIndex, dtype: numpy.dtype[typing.Any]) -> tuple[int, int]:
        """
        The first particle of a rank, and the first behind its own.
        """
    def thinning_compress(self, kernel: PairKernel, points: numpy.ndarray, rows: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], levels: typing.SupportsInt | typing.SupportsIndex, key: typing.SupportsInt | typing.SupportsIndex, step: typing.SupportsInt | typing.SupportsIndex, population: typing.SupportsInt | typing.SupportsIndex = 0, num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> numpy.typing.NDArray[numpy.int64]:
        """
        A share of 1 / 2^levels of the rows.
        """
    def thinning_refine(self, kernel: PairKernel, points: numpy.ndarray, rows: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], ends: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], n_sweeps: typing.SupportsInt | typing.SupportsIndex, num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> numpy.typing.NDArray[numpy.int64]:
        """
        Rows of the best part, after exchanges.
        """
    def thinning_split(self, kernel: PairKernel, points: numpy.ndarray, rows: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], levels: typing.SupportsInt | typing.SupportsIndex, first_level: typing.SupportsInt | typing.SupportsIndex, key: typing.SupportsInt | typing.SupportsIndex, step: typing.SupportsInt | typing.SupportsIndex, population: typing.SupportsInt | typing.SupportsIndex = 0, num_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> tuple[numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64]]:
        """
        The rows by parts, and where each of the 2^levels parts ends.
        """
    def uniforms(self, key: typing.SupportsInt | typing.SupportsIndex, step: typing.SupportsInt | typing.SupportsIndex, n_particles: typing.SupportsInt | typing.SupportsIndex, n_coordinates: typing.SupportsInt | typing.SupportsIndex, dtype: numpy.dtype[typing.Any], stream: typing.SupportsInt | typing.SupportsIndex = 1, population: typing.SupportsInt | typing.SupportsIndex = 0, num_threads: typing.SupportsInt | typing.SupportsIndex = 1, members: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [], first: typing.SupportsInt | typing.SupportsIndex = 0) -> numpy.ndarray:
        ...
    @property
    def activation_bounds(self) -> list[tuple[float, float, float]]:
        """
        (lowest, highest, largest slope in size) of each
        """
    @property
    def activations(self) -> list[str]:
        ...
    @property
    def compiler(self) -> str:
        ...
    @property
    def eigen(self) -> str:
        ...
    @property
    def has_bfloat16(self) -> bool:
        ...
    @property
    def has_openmp(self) -> bool:
        ...
    @property
    def isa(self) -> str:
        ...
    @property
    def losses(self) -> list[tuple[str, str | None, float, str, bool]]:
        """
        (name, parameter, its default, kind of targets, convex) of each
        """
    @property
    def pair_kernels(self) -> list[tuple[str, bool, int]]:
        """
        (name, periodic, derivatives) of each
        """
    @property
    def readouts(self) -> list[tuple[str, bool, bool]]:
        """
        (name, has coordinates, frozen) of each
        """
class Loss:
    """
    A loss as the kernels see it, by its index.
    """
    def __init__(self, id: typing.SupportsInt | typing.SupportsIndex, parameter: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
class Network:
    """
    A two-layer network as the kernels see it; alternatives by their index.
    """
    def __init__(self, n_features: typing.SupportsInt | typing.SupportsIndex, n_outputs: typing.SupportsInt | typing.SupportsIndex, has_bias: bool, activation: typing.SupportsInt | typing.SupportsIndex, readout: typing.SupportsInt | typing.SupportsIndex, output_scale: typing.SupportsFloat | typing.SupportsIndex, readout_bound: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
class Ranks:
    """
    Processes that share the particles of a call, or its rows: all make it alike.
    """
    def __init__(self, rank: typing.SupportsInt | typing.SupportsIndex, n_ranks: typing.SupportsInt | typing.SupportsIndex, exchange: collections.abc.Callable[[bytes, memoryview], None], n_particles: typing.SupportsInt | typing.SupportsIndex = 0, only_sums: bool = False, by_rows: bool = False) -> None:
        ...
    @property
    def n_ranks(self) -> int:
        ...
    @property
    def rank(self) -> int:
        ...
class PairKernel:
    """
    A kernel of pairs of points as the core knows it.
    """
    def __init__(self, name: str, parameter: typing.SupportsFloat | typing.SupportsIndex, inverse_scales: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], coefficients: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]) -> None:
        ...
class Domain:
    """
    Where affine moves leave particles: blocks of consecutive moving coordinates.
    """
    def __init__(self) -> None:
        ...
    def add(self, kind: str, n_coordinates: typing.SupportsInt | typing.SupportsIndex, lower: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], upper: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]) -> None:
        """
        One more block; the ends of its intervals are empty where it has none.
        """
class Estimator:
    """
    How gradients are estimated; its buffers are changed in place.
    """
    def __init__(self, kind: str, batch_size: typing.SupportsInt | typing.SupportsIndex = 0, refresh_every: typing.SupportsInt | typing.SupportsIndex = 0, anchor: numpy.ndarray | None = None, anchor_gradient: numpy.ndarray | None = None, anchor_predictions: numpy.ndarray | None = None, valid: bool = False) -> None:
        ...
    @property
    def anchored(self) -> bool:
        """
        whether it has an anchor for each particle
        """
    @property
    def batch_size(self) -> int:
        """
        rows of a mini-batch, or 0
        """
    @property
    def valid(self) -> bool:
        """
        whether the buffers hold what the next step needs
        """
class Dynamics:
    """
    How steps move particles; its buffers are changed in place.
    """
    def __init__(self, kind: str, velocities: numpy.ndarray | None = None, force: numpy.ndarray | None = None, force_valid: bool = False, second_moment: numpy.ndarray | None = None, decay: typing.SupportsFloat | typing.SupportsIndex = 0.0, epsilon: typing.SupportsFloat | typing.SupportsIndex = 0.0, frozen_from: typing.SupportsInt | typing.SupportsIndex | None = None) -> None:
        ...
    @property
    def affine(self) -> bool:
        """
        whether a step is affine in particle, gradient and noise
        """
    @property
    def looks_ahead(self) -> bool:
        """
        whether a step ends with a gradient where it leads
        """
    @property
    def valid(self) -> bool:
        """
        whether force is the gradient at the particles
        """
class Report:
    """
    How a native run of steps ended.
    """
    @property
    def bad(self) -> tuple[int, int] | None:
        """
        replicate and particle that the next step makes not finite first, or None
        """
    @property
    def exception(self) -> typing.Any:
        """
        what a signal handler raised, when stopped
        """
    @property
    def gradient_norm(self) -> list[float]:
        """
        root mean square over particles of |b|, by the last gradient, of each replicate, when done
        """
    @property
    def loss(self) -> list[float]:
        """
        weighted mean loss over the rows of the last gradient, of each replicate, when done
        """
    @property
    def status(self) -> str:
        """
        'done', 'stopped' or 'diverged'
        """
    @property
    def steps(self) -> int:
        """
        whole steps, made by all replicates
        """
def cpu_runs(level: str) -> bool:
    """
    Whether this processor and operating system run code of a level.
    """
def missing_features(level: str) -> list[str]:
    """
    What code of a level needs and this processor or its operating system lacks.
    """
def streams() -> list[tuple[str, int]]:
    """
    (name, number) of each stream of the noise.
    """
__version__: str = '0.1.0'
