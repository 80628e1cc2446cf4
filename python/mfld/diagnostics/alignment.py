"""Kernels of a network, and how far its features have turned to what they are to learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.diagnostics.estimate import Estimate, Vector, mean, one_cloud
from mfld.models import Model
from mfld.state import Cloud

_MOST_ROWS = 10_000  # of a kernel
_BLOCK = 4_000_000  # numbers in a block of features
_ROUNDING = 1e-5  # of a kernel, relative to its largest entry: it may be float32


def conjugate_kernel(
    model: Model, measure: Cloud | ArrayLike, inputs: ArrayLike, num_threads: int | None = None
) -> Vector:
    """Conjugate kernel ``K_ij = E_mu h(theta, z_i) . h(theta, z_j)``: features are neurons drawn from mu.

    Neurons are whole: a readout that is a coordinate is part of them. For the kernel of the features before it, ask a
    model with ``readout="fixed"``, and the coordinates before the readout.

    Parameters
    ----------
    model : Model
    measure : Cloud or array_like, shape (N, n_coordinates)
    inputs : array_like, shape (n, n_features)
        At most 10000; beyond some thousands take a part of them.
    num_threads : int, optional
        Of the neurons. Default: what OpenMP would take.

    Returns
    -------
    ndarray, shape (n, n), float64

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or does not fit.

    Examples
    --------
    >>> import mfld
    >>> from mfld import diagnostics
    >>> model = mfld.TwoLayerNetwork(1, activation="identity", readout="fixed", bias=False)
    >>> diagnostics.conjugate_kernel(model, [[1.0], [3.0]], [[1.0], [2.0]])
    array([[ 5., 10.],
           [10., 20.]])
    """
    model, points, weights, inputs, threads = _checked(model, measure, inputs, num_threads)

    def features(part: Vector) -> Iterator[Vector]:
        neurons = np.asarray(model._neurons(part, inputs, threads), np.float64)
        yield np.moveaxis(neurons, 1, 0)  # (N, n, K): the axis K counts as more particles

    return _gram(points, weights, len(inputs), model.n_outputs, features)


def tangent_kernel(
    model: Model, measure: Cloud | ArrayLike, inputs: ArrayLike, num_threads: int | None = None
) -> Vector:
    """Neural tangent kernel ``K_ij = sum_k E_mu grad_theta h_k(theta, z_i) . grad_theta h_k(theta, z_j)``.

    It moves the predictions: noiseless descent on a risk has ``d f(z_i) / dt = -sum_j K_ij s_j l'(f(z_j), y_j)`` with
    one output, ridge aside. Gradients are in the moving coordinates, and summed over outputs k.

    Parameters
    ----------
    model, measure, inputs, num_threads
        As in `conjugate_kernel`.

    Returns
    -------
    ndarray, shape (n, n), float64

    Raises
    ------
    TypeError, ValueError
        As in `conjugate_kernel`.

    References
    ----------
    Jacot, Gabriel, Hongler 2018, "Neural tangent kernel: convergence and generalization in neural networks".

    Examples
    --------
    >>> import mfld
    >>> from mfld import diagnostics
    >>> model = mfld.TwoLayerNetwork(1, activation="identity", readout="linear", bias=False)    # a w z
    >>> diagnostics.tangent_kernel(model, [[1.0, 2.0]], [[1.0], [3.0]])                         # (a**2 + w**2) z z'
    array([[ 5., 15.],
           [15., 45.]])
    """
    model, points, weights, inputs, threads = _checked(model, measure, inputs, num_threads)
    directions = np.eye(model.n_outputs)[:, np.newaxis]  # cotangents of one row

    def features(part: Vector) -> Iterator[Vector]:
        for cotangent in directions:
            gradients = np.empty((len(part), len(inputs), model.n_moving))
            for i in range(len(inputs)):
                gradients[:, i] = model.pull_back(part, inputs[i : i + 1], cotangent, threads)[1][:, : model.n_moving]
            yield gradients

    return _gram(points, weights, len(inputs), model.n_moving, features)


def kernel_alignment(kernel: ArrayLike, targets: ArrayLike) -> float:
    """Alignment ``tr(Y' K Y) / (|Y|**2 |K|_F)`` of a kernel with targets: 1 where K is a multiple of y y'.

    Parameters
    ----------
    kernel : array_like, shape (n, n)
        Symmetric.
    targets : array_like, shape (n,) or (n, n_outputs)

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape, or is 0 throughout.

    References
    ----------
    Cristianini, Shawe-Taylor, Elisseeff, Kandola 2001, "On kernel-target alignment".

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diagnostics
    >>> round(diagnostics.kernel_alignment(np.eye(4), [1.0, -1.0, 1.0, 1.0]), 6)
    0.5
    """
    matrix = _square(kernel)
    y = validation.array("targets", targets, np.float64)
    y = y[:, np.newaxis] if y.ndim == 1 else y
    validation.shape("targets", y, (len(matrix), "K"), "to match kernel")
    sizes = {"kernel": float(np.linalg.norm(matrix)), "targets": float(np.sum(y**2))}
    for name, size in sizes.items():
        if not 0 < size < np.inf:
            raise ValueError(f"{name} must have a finite norm above 0, got {size}")
    return float(np.sum(y * (matrix @ y))) / (sizes["kernel"] * sizes["targets"])


def degrees_of_freedom(kernel: ArrayLike, ridge: float) -> float:
    """Effective degrees of freedom of kernel ridge regression, ``tr K (K + n ridge I)^-1``.

    Parameters
    ----------
    kernel : array_like, shape (n, n)
        Symmetric, positive semi-definite.
    ridge : float
        Positive.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diagnostics
    >>> diagnostics.degrees_of_freedom(np.diag([2.0, 2.0, 0.0, 0.0]), ridge=0.5)
    1.0
    """
    matrix = _square(kernel)
    ridge = validation.real("ridge", ridge, positive=True)
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    if values[0] < -_ROUNDING * np.abs(values).max():
        raise ValueError(f"kernel must be positive semi-definite, got the eigenvalue {values[0]:.3g}")
    values = np.maximum(values, 0)
    return float(np.sum(values / (values + len(matrix) * ridge)))


def parameter_alignment(weights: Cloud | ArrayLike, directions: ArrayLike) -> Estimate:
    """Share of the particles' squared lengths that lies in the span of directions, ``E_mu |P u|**2 / |u|**2``.

    It is 1 where all neurons look along the teacher, and k / d for k directions in d dimensions where they look
    anywhere.

    Parameters
    ----------
    weights : Cloud or array_like, shape (N, d)
        Weights u of the neurons: of a network ``particles[:, network.slices["weights"]]``. Those of length 0 count 0.
    directions : array_like, shape (d,) or (k, d)
        Linearly independent.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape, or the directions depend on each other.

    Examples
    --------
    >>> from mfld import diagnostics
    >>> round(diagnostics.parameter_alignment([[1.0, 0.0], [3.0, 4.0]], [2.0, 0.0]), 6)
    0.68
    """
    u, shares = one_cloud("weights", weights)
    span = validation.array("directions", directions, np.float64)
    span = span[np.newaxis] if span.ndim == 1 else span
    validation.shape("directions", span, ("k", u.shape[1]), "to match weights")
    lengths = np.linalg.norm(span, axis=1, keepdims=True)
    if not (lengths > 0).all() or not np.isfinite(lengths).all():
        raise ValueError("directions must have finite lengths above 0")
    _, singular, basis = np.linalg.svd(span / lengths, full_matrices=False)
    if len(span) > u.shape[1] or singular[-1] < 1e-10:
        raise ValueError("directions must be linearly independent")
    longest = np.abs(u).max(axis=1, keepdims=True)
    u = u / np.where(longest > 0, longest, 1)
    square = np.sum(u**2, axis=1)
    return mean(np.sum((u @ basis.T) ** 2, axis=1) / np.where(square > 0, square, 1), shares)


def _checked(
    model: Model, measure: Cloud | ArrayLike, inputs: ArrayLike, num_threads: int | None
) -> tuple[Model, Vector, Vector | None, Vector, int]:
    validation.instance("model", model, Model, "a Model, like a TwoLayerNetwork")
    points, weights = one_cloud("measure", measure)
    validation.shape("measure", points, ("N", model.n_coordinates), "(particles, coordinates of the model)")
    rows = validation.array("inputs", inputs, np.float64)
    validation.shape("inputs", rows, ("n", model.n_features), "(number, n_features of the model)")
    if len(rows) > _MOST_ROWS:
        raise ValueError(f"inputs must be at most {_MOST_ROWS} rows for a kernel, got {len(rows)}")
    return model, points, weights, rows.astype(np.float64), validation.num_threads(num_threads)


def _gram(
    points: Vector,
    weights: Vector | None,
    n: int,
    n_each: int,
    features: Callable[[Vector], Iterator[Vector]],
) -> Vector:
    """``sum_m w_m <phi_m(i), phi_m(j)>`` from features of blocks of particles, shapes (N, n, n_each)."""
    shares = np.full(len(points), 1 / len(points)) if weights is None else weights
    kernel = np.zeros((n, n))
    height = max(1, _BLOCK // (n * n_each))
    for start in range(0, len(points), height):
        part = slice(start, start + height)
        roots = np.sqrt(shares[part])[:, np.newaxis, np.newaxis]
        for block in features(points[part]):
            rows = np.moveaxis(block * roots, 1, 0).reshape(n, -1)
            kernel += rows @ rows.T
    return kernel


def _square(kernel: ArrayLike) -> Vector:
    matrix = validation.array("kernel", kernel, np.float64)
    validation.shape("kernel", matrix, ("n", "n"))
    if len(matrix) != matrix.shape[1]:
        raise ValueError(f"kernel must be square, got shape {matrix.shape}")
    apart = float(np.abs(matrix - matrix.T).max())
    if apart > _ROUNDING * float(np.abs(matrix).max()):
        raise ValueError(f"kernel must be symmetric, it differs by {apart:.3g} from its transpose")
    return np.asarray(matrix)
