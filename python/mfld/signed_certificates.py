"""How far a signed measure is from the optimum: the duality gap of its regularised problem."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mfld import noise, validation
from mfld.objectives.signed import SignedRisk
from mfld.signed_measures import SignedMeasure
from mfld.validation import FloatArray

_MOST_CELLS: Final = 2_000_000
_ASCENTS: Final = 200
_AT_ONCE: Final = 10_000_000  # neurons at samples, in one array


@dataclass(frozen=True)
class SignedCertificate:
    """Duality gap of ``G(nu) + (strength / 2) |nu|_TV**2``, or of ``G(nu) + strength |nu|_TV``.

    Attributes
    ----------
    value : float
        The objective at the measure.
    gap : float
        The measure is at most so far above the minimum, where ``bounded``.
    supremum : float
        Of ``|G'|`` over the domain: an upper bound where ``bounded``, else the largest value that was found.
    bounded : bool
        True where the supremum is bounded, so that the gap is a certificate.
    worst : ndarray, shape (p,)
        Where ``|G'|`` was largest: a spike there lowers the objective, unless the measure is optimal.

    Examples
    --------
    >>> import mfld
    >>> from mfld.deconvolution import Gaussian
    >>> found = mfld.deconvolve([0.0, 1.0, 0.0, 0.0], Gaussian(1.0), strength=0.01)
    >>> found.certificate.bounded, bool(found.certificate.gap < 1e-6)
    (True, True)
    """

    value: float
    gap: float
    supremum: float
    bounded: bool
    worst: FloatArray


def signed_certificate(
    risk: SignedRisk, measure: SignedMeasure, penalty: str = "squared_tv", tolerance: float = 1e-4
) -> SignedCertificate:
    """Duality gap of a signed measure.

    With ``g_i = l'(u_i, y_i)`` and ``G'(w) = sum_i s_i g_i phi(w, z_i)`` the minimum is at least

    ::

        -sum_i s_i l*(g_i) - sup_w |G'(w)|**2 / (2 strength)

    and for the penalty ``strength |nu|_TV`` its first term at ``g min(1, strength / sup |G'|)``. The supremum is bound
    on boxes and tori where the model knows a bound on its second derivatives, by dividing cells until none can hold
    more than the largest value seen; elsewhere it is searched by ascents from many points, and nothing is ``bounded``.
    Source: Wang, Mousavi-Hosseini, Chizat 2024; Bredies, Pikkarainen 2013, "Inverse problems in spaces of measures".

    Parameters
    ----------
    risk : SignedRisk
    measure : SignedMeasure
    penalty : {"squared_tv", "tv"}
    tolerance : float
        Relative to the supremum: how close its bound has to be.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or the loss has no conjugate.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> from mfld.deconvolution import Convolution, Gaussian
    >>> model = Convolution(Gaussian(0.1), [np.linspace(0, 1, 50)])
    >>> spike = mfld.SignedMeasure(model, [[0.4]], [1.0])
    >>> risk = mfld.SignedRisk(model, model.grid, spike.predict(model.grid), strength=0.01)
    >>> gap = mfld.signed_certificate(risk, mfld.SignedMeasure(model, [[0.4]], [0.947])).gap
    >>> 0 <= gap < 1e-3
    True
    """
    validation.instance("risk", risk, SignedRisk, "a SignedRisk")
    validation.instance("measure", measure, SignedMeasure, "a SignedMeasure")
    validation.choice("penalty", penalty, ("squared_tv", "tv"))
    tolerance = validation.real("tolerance", tolerance, positive=True)
    loss = risk.loss_function
    if not loss.has_conjugate:
        raise ValueError(f"risk must have a loss with a conjugate, like half_squared, got {loss!r}")
    inputs, targets, s = risk.samples(np.dtype("float64"))
    predictions = measure.predict(inputs, risk.num_threads).reshape(len(inputs), -1).astype(np.float64)
    values, slope = loss.evaluate(predictions, targets)
    dual = s[:, np.newaxis] * slope
    size, strength = measure.tv_norm, risk.strength
    fit = float(np.sum(s * values))
    supremum, bounded, worst = _supremum(risk, dual, inputs, measure, tolerance)
    if penalty == "squared_tv":
        value = fit + strength / 2 * size**2
        lower = -float(np.sum(s * loss.conjugate(slope, _as_given(targets)))) - supremum**2 / (2 * strength)
    else:
        value = fit + strength * size
        share = min(1.0, strength / supremum) if supremum > 0 else 1.0
        lower = -float(np.sum(s * loss.conjugate(share * slope, _as_given(targets))))
    return SignedCertificate(value, value - lower, supremum, bounded, worst)


def _as_given(targets: FloatArray) -> FloatArray:
    return targets[:, 0] if targets.shape[1] == 1 else targets


def _slopes(
    risk: SignedRisk, points: FloatArray, inputs: FloatArray, dual: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """G' at points, shape (M, K), and its gradient, (M, K, p)."""
    threads = validation.num_threads(risk.num_threads)
    columns = [np.ascontiguousarray(column)[:, np.newaxis] for column in dual.T]
    values, slopes = np.empty((len(points), len(columns))), np.empty((len(points), len(columns), points.shape[1]))
    at_once = max(1, _AT_ONCE // len(inputs))
    for first in range(0, len(points), at_once):
        part = slice(first, first + at_once)
        for k, column in enumerate(columns):
            values[part, k], slopes[part, k] = risk.model.pull_back(
                np.ascontiguousarray(points[part]), inputs, column, threads
            )
    return values, slopes


def _supremum(
    risk: SignedRisk, dual: FloatArray, inputs: FloatArray, measure: SignedMeasure, tolerance: float
) -> tuple[float, bool, FloatArray]:
    blocks = [(block.limits, part) for block, part in risk.model.space.parts()]
    if not math.isinf(risk.model.most_curved) and all(limits is not None for limits, _ in blocks):
        lower = np.concatenate([limits[0] for limits, _ in blocks if limits is not None])
        upper = np.concatenate([limits[1] for limits, _ in blocks if limits is not None])
        return _by_cells(risk, dual, inputs, lower, upper, tolerance)
    return _by_ascent(risk, dual, inputs, measure)


def _by_cells(
    risk: SignedRisk, dual: FloatArray, inputs: FloatArray, lower: FloatArray, upper: FloatArray, tolerance: float
) -> tuple[float, bool, FloatArray]:
    """Branch and bound: in a cell a function is at most its Taylor polynomial at the centre and the remainder."""
    p = len(lower)
    half = (upper - lower) / 2
    centres = (lower + half)[np.newaxis]
    curvature = risk.model.most_curved * np.sum(np.abs(dual), axis=0)
    best, worst = -1.0, centres[0]
    turns: NDArray[np.float64] = np.stack(np.meshgrid(*[[-0.5, 0.5]] * p, indexing="ij"), axis=-1).reshape(-1, p)
    while True:
        value, slope = _slopes(risk, centres, inputs, dual)
        sizes = np.sqrt(np.sum(value**2, axis=1))
        if sizes.max() > best:
            best, worst = float(sizes.max()), centres[np.argmax(sizes)]
        more = np.abs(slope) @ half + curvature * np.sum(half**2) / 2
        bound = np.sqrt(np.sum((np.abs(value) + more) ** 2, axis=1))
        open_cells = bound > best * (1 + tolerance)
        if not open_cells.any():
            return best * (1 + tolerance), True, worst
        if np.count_nonzero(open_cells) * len(turns) > _MOST_CELLS:
            return float(bound.max()), True, worst
        half = half / 2
        centres = (centres[open_cells][:, np.newaxis] + turns * 2 * half).reshape(-1, p)


def _by_ascent(
    risk: SignedRisk, dual: FloatArray, inputs: FloatArray, measure: SignedMeasure
) -> tuple[float, bool, FloatArray]:
    """Largest value from ascents along the domain, which start at the measure's positions and at random."""
    space = risk.model.space
    drawn = risk.model.initial_particles(1000, noise.start(0), "float64")
    points = np.concatenate([measure.positions.astype(np.float64), drawn])

    def squares(at: FloatArray) -> tuple[FloatArray, FloatArray]:
        value, slope = _slopes(risk, at, inputs, dual)
        return np.sum(value**2, axis=1) / 2, np.einsum("mk,mkp->mp", value, slope)

    value, slope = squares(points)
    rate = np.full(len(points), 1.0)
    for _ in range(_ASCENTS):
        along = space.tangent(points, slope)
        length = np.sqrt(np.sum(along**2, axis=1, keepdims=True))
        step = rate[:, np.newaxis] * along / np.where(length > 0, length, 1)
        trial = space.retract(points + step)
        following, after = squares(trial)
        better = following > value
        points[better], value[better], slope[better] = trial[better], following[better], after[better]
        rate = np.where(better, 1.5 * rate, rate / 2)
    best = int(np.argmax(value))
    return math.sqrt(2 * float(value[best])), False, points[best]
