"""Divergences of a cloud to the Gibbs law ``pi = exp(-V / T) / Z`` of a potential."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.diagnostics.entropy import log_densities
from mfld.diagnostics.estimate import Estimate, mean, unweighted
from mfld.diagnostics.normaliser import energies_at, known_normaliser
from mfld.diagnostics.step_law import mixture
from mfld.objectives import Potential
from mfld.state import Cloud

_NARROWEST = 1e-100  # a bandwidth, whose square is divided by


def kl(
    measure: Cloud | ArrayLike,
    potential: Potential,
    temperature: float,
    *,
    log_normaliser: float | None = None,
    k: int = 3,
) -> Estimate:
    """Kullback-Leibler divergence ``KL(mu | pi) = Ent(mu) + E_mu V / T + log Z``, at the particles of `entropy`.

    Parameters
    ----------
    measure : Cloud or array_like, shape (N, p)
        Without weights.
    potential : Potential
        With its value: one of `mfld.potentials`, or the first variation of an objective, whose Gibbs law at the cloud
        itself is the proximal one.
    temperature : float
        Positive.
    log_normaliser : float, optional
        log Z. By default what the potential knows, or else a quadrature in one or two dimensions. With 0.0 the result
        is relative: right up to a constant, so that differences of it are those of the divergence.
    k : int
        As in `entropy`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or log Z is not known.

    Examples
    --------
    >>> import mfld
    >>> from mfld import diagnostics, noise
    >>> normals = noise.normals(seed=1, step=0, n_particles=5000, n_coordinates=1, stream="data")
    >>> well = mfld.potentials.Gaussian([1.0])
    >>> found = diagnostics.kl(normals, well, temperature=1.0)
    >>> bool(abs(found - 0.5) < 4 * found.error)
    True
    """
    validation.instance("potential", potential, Potential, "a Potential")
    points, temperature = unweighted("measure", measure), validation.real("temperature", temperature, positive=True)
    log_z = known_normaliser(potential, temperature, log_normaliser)
    logs, chosen, shared = log_densities(points, k, potential.space)
    # Term by term: near equilibrium log mu + V / T hardly varies, though both do.
    found = mean(logs + energies_at(potential, points[chosen]) / temperature)
    return Estimate(float(found + log_z), math.hypot(found.error, shared))


def fisher_divergence(
    measure: Cloud | ArrayLike,
    potential: Potential,
    temperature: float,
    *,
    bandwidth: float | None = None,
    n_points: int = 2000,
) -> Estimate:
    """Fisher divergence ``I(mu | pi) = E_mu |grad log mu + grad V / T|**2``; no normaliser is needed.

    The score of mu is that of the particles with a Gaussian kernel, at each one without its own: with the bandwidth h
    the bias is O(h**2), and the variance of a score O(1 / (N h**(p + 2))), which adds to its square: of 10 000 normal
    particles 0.01 at p = 1, 0.03 at 2, but 0.9 at 5, where the error bar has none of it. `StepLaw` has the exact
    divergence of a smoothed measure.

    Parameters
    ----------
    measure : Cloud or array_like, shape (N, p)
        Without weights, on Euclidean space.
    potential, temperature
        As in `kl`; the value of the potential is not needed.
    bandwidth : float, optional
        Standard deviation of the kernel. Default: ``s (4 / (p + 4) / N)**(1 / (p + 6))``, the rule for derivatives of
        a Gaussian, s the root of the mean variance of the coordinates.
    n_points : int
        Particles over which the mean is taken, evenly spaced in the array; all are in the density.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> from mfld import diagnostics, noise
    >>> normals = noise.normals(seed=1, step=0, n_particles=5000, n_coordinates=1, stream="data")
    >>> well = mfld.potentials.Gaussian([1.0])
    >>> bool(abs(diagnostics.fisher_divergence(normals, well, temperature=1.0) - 1) < 0.15)
    True
    """
    validation.instance("potential", potential, Potential, "a Potential")
    points, temperature = unweighted("measure", measure), validation.real("temperature", temperature, positive=True)
    n_points = validation.integer("n_points", n_points, 1)
    if not potential.space.flat:
        raise ValueError(f"potential must live on Euclidean space, got {potential.space.domain}")
    moving = points[:, : potential.n_moving]
    n, p = moving.shape
    if n < 2:
        raise ValueError(f"measure must have at least 2 particles, got {n}")
    if bandwidth is None:
        spread = math.sqrt(float(moving.var(axis=0).mean()))
        if spread == 0:
            raise ValueError("measure must have particles that differ, they are equal")
        width = spread * (4 / (p + 4) / n) ** (1 / (p + 6))
    else:
        width = validation.real("bandwidth", bandwidth, positive=True)
        if not _NARROWEST < width < 1 / _NARROWEST:
            raise ValueError(f"bandwidth must be between {_NARROWEST:g} and {1 / _NARROWEST:g}, got {width}")
    chosen = np.unique(np.linspace(0, n - 1, min(n, n_points)).astype(int))
    _, score = mixture(moving[chosen], moving, width**2, leave_out=chosen)
    pull = potential.gradient(points[chosen])[:, : potential.n_moving]
    return mean(np.sum((score + pull / temperature) ** 2, axis=1))
