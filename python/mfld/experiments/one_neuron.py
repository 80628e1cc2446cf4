"""One neuron on functions, learnt by a mean-field network, kernel ridge regression and the Nadaraya-Watson estimator.

::

    y = tanh(3 <w, x> + 1/2) + noise,      x = sum_j X_j phi_j / j,    w = sum_j W_j phi_j / j over its norm,    j <= 50

with standard normal X_j and W_j and the cosines phi_j: the truth is a neuron of the model, of unknown direction in an
infinite-dimensional space. Kernel ridge regression has the linear kernel, the other estimator a Gaussian one of the
distance of curves. Each method chooses its one number by held-out rows of the training set. The setting is that of the
experiment of Nishikawa, Suzuki, Nitanda, Wu 2022, whose numbers are not published.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mfld import validation
from mfld.algorithms import MFLD
from mfld.dynamics import Overdamped
from mfld.functional_data import Fourier, FunctionalNetwork, Grid, PowerLaw
from mfld.objectives import EmpiricalRisk
from mfld.validation import FloatArray

METHODS = ("mean-field network", "kernel ridge regression", "Nadaraya-Watson")
NOISE = 0.1

_STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2)  # of the relative entropy
_RIDGES = tuple(10.0**k for k in range(-6, 2))
_WIDTHS = tuple(0.1 * 1.3**k for k in range(12))


class Curves(NamedTuple):
    """Curves on a grid, shape (n, T), noisy targets, and what these are without their noise."""

    curves: FloatArray
    targets: FloatArray
    truth: FloatArray


def grid(n_points: int = 101) -> Grid:
    """An equidistant grid on [0, 1]."""
    return Grid(np.linspace(0.0, 1.0, n_points))


def draw(n: int, seed: int = 0, n_points: int = 101) -> Curves:
    """So many curves with their targets; a seed has the same w, whatever n, and other curves for each n.

    Examples
    --------
    >>> from mfld.experiments import one_neuron
    >>> one_neuron.draw(10).curves.shape
    (10, 101)
    """
    n = validation.integer("n", n, 1)
    decay = 1 / np.arange(1.0, 51)
    w = np.random.default_rng(seed).normal(size=50) * decay
    w /= np.sqrt(np.sum(w**2))
    rng = np.random.default_rng([seed, n])
    coordinates = rng.normal(size=(n, 50)) * decay
    truth = np.tanh(3 * np.sum(coordinates * w, axis=1) + 0.5)
    return Curves(Fourier().curves(coordinates, grid(n_points)), truth + NOISE * rng.normal(size=n), truth)


def errors(n_train: int, seed: int = 0, n_test: int = 1000, n_particles: int = 300) -> dict[str, float]:
    """Root mean square errors of the methods on new curves, without their noise.

    Examples
    --------
    >>> from mfld.experiments import one_neuron
    >>> found = one_neuron.errors(60)
    >>> min(found, key=found.get)
    'mean-field network'
    """
    train, test = draw(n_train, seed), draw(n_test, seed)
    n_fit = round(0.75 * n_train)
    found = {}
    for name, (fit, numbers) in _fits(n_particles, seed).items():
        part = train.curves[:n_fit], train.targets[:n_fit]
        scores = [
            np.mean((fit(*part, train.curves[n_fit:], number) - train.targets[n_fit:]) ** 2) for number in numbers
        ]
        predicted = fit(train.curves, train.targets, test.curves, numbers[int(np.argmin(scores))])
        found[name] = float(np.sqrt(np.mean((predicted - test.truth) ** 2)))
    return found


def _fits(n_particles: int, seed: int):  # type: ignore[no-untyped-def]
    def network(x: FloatArray, y: FloatArray, new: FloatArray, strength: float) -> FloatArray:
        model = FunctionalNetwork(grid(x.shape[1]), PowerLaw(2.0), 40)
        risk = EmpiricalRisk(model, model.inputs(x), y, loss="half_squared", l2=strength / 2)
        solver = MFLD(n_particles, temperature=strength, dynamics=Overdamped(ridge="crank_nicolson"))
        return solver.run(risk, 1000, seed, record_every=1000).predict(model.inputs(new))

    return dict(zip(METHODS, ((network, _STRENGTHS), (_ridge, _RIDGES), (_nadaraya_watson, _WIDTHS)), strict=True))


def _inner(x: FloatArray, other: FloatArray) -> FloatArray:
    return np.asarray((x * grid(x.shape[1]).weights) @ other.T)


def _ridge(x: FloatArray, y: FloatArray, new: FloatArray, ridge: float) -> FloatArray:
    centre, offset = x.mean(axis=0), y.mean()
    kernel = _inner(x - centre, x - centre)
    coefficients = np.linalg.solve(kernel + len(x) * ridge * np.eye(len(x)), y - offset)
    return np.asarray(offset + _inner(new - centre, x - centre) @ coefficients)


def _nadaraya_watson(x: FloatArray, y: FloatArray, new: FloatArray, width: float) -> FloatArray:
    squares = [np.diag(_inner(each, each)) for each in (new, x)]
    distance = squares[0][:, np.newaxis] + squares[1] - 2 * _inner(new, x)
    exponents = -distance / (2 * width**2)
    weights = np.exp(exponents - exponents.max(axis=1, keepdims=True))
    return np.asarray(weights @ y / weights.sum(axis=1))
