"""Normalising constants of Gibbs laws."""

from __future__ import annotations

import math

import numpy as np

from mfld import validation
from mfld.diagnostics.estimate import Vector
from mfld.objectives import Potential

_TAIL = 60.0  # energies, in temperatures, above the lowest: exp(-60) is left out of the integral
_LINES = {1: 20_000, 2: 600}  # intervals along an axis
_ACCURACY = 1e-6  # of the logarithm, by halving the points
_FARTHEST = 1e6


def log_normaliser(potential: Potential, temperature: float) -> float:
    """``log Z``, the logarithm of the integral of ``exp(-V / T)`` over the domain, the ridge being part of V.

    What the potential knows itself (`mfld.potentials`), or else the extrapolated trapezoidal rule in one or two
    coordinates, on a box that is enlarged until the density has vanished at its faces.

    Parameters
    ----------
    potential : Potential
        With its value.
    temperature : float
        Positive.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, there are more coordinates, or the density does not vanish.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x**3, lambda x: x[:, 0] ** 4 / 4, n_coordinates=1)
    >>> round(mfld.diagnostics.log_normaliser(well, temperature=1.0), 6)      # log of Gamma(1/4) / sqrt(2)
    0.941449
    """
    validation.instance("potential", potential, Potential, "a Potential")
    temperature = validation.real("temperature", temperature, positive=True)
    own = getattr(potential, "log_normaliser", None)
    if own is not None:
        return float(own(temperature))
    space = potential.space
    if space.n_coordinates > 2 or space.n_frozen:
        raise ValueError(
            f"potential must have one or two coordinates, all moving, for a quadrature, got {potential!r}; its "
            "log_normaliser can be given"
        )
    limits: list[tuple[float, float] | None] = []
    for block in space.domain:
        if not block.flat and block.limits is None:
            raise ValueError(f"potential must live on Euclidean space, a torus or a box, got {block}")
        ends = [None] * block.n_coordinates if block.limits is None else zip(*block.limits, strict=True)
        limits += ends
    axes = box(potential, temperature, limits)
    n_points = _LINES[len(axes)]
    by_four, by_two, fine = (_trapezoidal(potential, temperature, axes, n_points // k + 1) for k in (4, 2, 1))
    # Faces of a box leave errors of order 2, which extrapolation removes; elsewhere all digits are right anyway.
    found, checked = fine + (fine - by_two) / 3, by_two + (by_two - by_four) / 3
    if not abs(found - checked) < _ACCURACY:
        raise ValueError(f"potential is too rough for a quadrature: {n_points} points along an axis do not resolve it")
    return found


def known_normaliser(potential: Potential, temperature: float, given: float | None) -> float:
    """The logarithm of the normaliser: as given, or else computed."""
    return log_normaliser(potential, temperature) if given is None else validation.real("log_normaliser", given)


def energies_at(potential: Potential, points: Vector) -> Vector:
    """Values of a potential at points, in float64."""
    validation.instance("potential", potential, Potential, "a Potential")
    return np.asarray(potential(points), np.float64)


def box(
    potential: Potential, temperature: float, limits: list[tuple[float, float] | None]
) -> list[tuple[float, float]]:
    """Ends of each axis: those of the domain, or where the density is below exp(-60) of its largest."""
    n_points = 2001 if len(limits) == 1 else 301
    reach = 1.0
    while reach <= _FARTHEST:
        lines = [np.linspace(*((-reach, reach) if ends is None else ends), n_points) for ends in limits]
        energies = _energies(potential, lines) / temperature
        low = energies < energies.min() + _TAIL
        if not low.any():
            raise ValueError(f"temperature must leave the potential over it finite, got {temperature:g}")
        spans = []
        for axis, line in enumerate(lines):
            inside = line[low.any(axis=tuple(other for other in range(len(lines)) if other != axis))]
            spans.append((inside[0], inside[-1], line[1] - line[0]))
        # Wells may hide between points: the box is far larger than what is seen, and what is seen has many points.
        closed = [ends is not None or max(-a, b) < reach / 2 for ends, (a, b, _) in zip(limits, spans, strict=True)]
        if all(closed):
            return [
                (float(a - 2 * step), float(b + 2 * step)) if ends is None else ends
                for ends, (a, b, step) in zip(limits, spans, strict=True)
            ]
        reach *= 2
    raise ValueError(f"potential must grow, so that its Gibbs law has a normaliser: it has not at {_FARTHEST:g}")


def _trapezoidal(potential: Potential, temperature: float, axes: list[tuple[float, float]], n_points: int) -> float:
    lines = [np.linspace(*ends, n_points) for ends in axes]
    logs = -_energies(potential, lines) / temperature
    top = float(logs.max())
    with np.errstate(under="ignore"):
        density = np.exp(logs - top)
    for line in lines:
        density = np.sum(density[1:] + density[:-1], axis=0) * ((line[1] - line[0]) / 2)
    return top + math.log(float(density))


def _energies(potential: Potential, lines: list[Vector]) -> Vector:
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(lines))
    values = np.concatenate([energies_at(potential, part) for part in np.array_split(grid, 64)])
    with np.errstate(invalid="ignore"):
        values = np.where(np.isnan(values), np.inf, values)
    return values.reshape([len(line) for line in lines])
