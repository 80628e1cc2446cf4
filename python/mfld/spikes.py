"""Spikes of a signal: `deconvolve`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import linear, validation
from mfld.algorithms import MFLD
from mfld.deconvolution import Convolution, PointSpread, default_axes
from mfld.errors import ConvergenceError
from mfld.objectives.signed import SignedRisk
from mfld.signed_certificates import SignedCertificate, signed_certificate
from mfld.signed_measures import SignedMeasure
from mfld.state import Cloud
from mfld.validation import FloatArray

_MOST_ROUNDS: Final = 60
_MOST_STEPS: Final = 200
_MOST_WIDTHS: Final = 1e6  # of the point spread, that a certificate's cells cover
_LEAST_RIDGE: Final = 1e-9  # of the cloud, whose linear systems are to be solved in double precision


@dataclass(frozen=True, eq=False, repr=False)
class Deconvolution:
    """Result of `deconvolve`.

    Attributes
    ----------
    measure : SignedMeasure
        The solution of the regularised problem, its atoms in the order of their sizes.
    certificate : SignedCertificate
        Of that solution.
    positions, amplitudes : ndarray, shapes (M, p) and (M,)
        The same spikes fitted without the penalty, which makes amplitudes too small; neighbours within half a width as
        one, and no more than the signal determines.
    position_errors, amplitude_errors : ndarray, shapes (M, p) and (M,)
        Their standard errors, from the residual's variance and the curvature of the fit; infinite where it has none.
    noise_level : float
        Standard deviation of the residual, with the fitted numbers taken off its degrees of freedom.
    signal, fit : ndarray
        The signal that was given, and that of the fitted spikes.
    strength : float

    Examples
    --------
    >>> import mfld
    >>> from mfld.deconvolution import Dirichlet
    >>> mfld.deconvolve([0.0, 1.0, 0.0, 0.0, 0.0], Dirichlet(2, period=5.0), strength=0.01).positions.round(6)
    array([[1.]])
    """

    measure: SignedMeasure
    certificate: SignedCertificate
    positions: FloatArray
    amplitudes: FloatArray
    position_errors: FloatArray
    amplitude_errors: FloatArray
    noise_level: float
    signal: FloatArray
    fit: FloatArray
    strength: float

    def __repr__(self) -> str:
        n = len(self.amplitudes)
        return f"Deconvolution({n} spike{'' if n == 1 else 's'}, gap {self.certificate.gap:.3g})"

    @property
    def fitted(self) -> SignedMeasure:
        """The spikes that were fitted without the penalty, as a measure: its `predict` is the fit at any place."""
        return SignedMeasure(self.measure.model, self.positions, self.amplitudes)


def deconvolve(
    signal: ArrayLike,
    point_spread: PointSpread | Sequence[PointSpread],
    strength: float | None = None,
    *,
    axes: Sequence[ArrayLike] | None = None,
    penalty: str = "tv",
    n_particles: int = 100,
    n_steps: int = 300,
    gap: float = 1e-6,
    seed: int = 0,
    num_threads: int | None = None,
) -> Deconvolution:
    """Spikes whose sum, seen through a point spread, is a signal: the solution of a convex problem over measures.

    ::

        minimise  (1 / 2 n) sum_i (signal_i - sum_m c_m prod_j k_j(z_ij - w_mj))**2 + strength sum_m |c_m|

    (the BLASSO), or ``(strength / 2) (sum_m |c_m|)**2`` in place of the last term. A cloud of positions falls by
    mean-field Langevin dynamics of the bilevel reduction with noise that is switched off; its clusters become atoms,
    which Gauss-Newton steps polish; and while the duality gap is too large, an atom is added where it says. The two
    penalties have the same solutions: that of ``(s / 2) TV**2`` has ``strength = s * TV``.

    Source: Wang, Mousavi-Hosseini, Chizat 2024; Denoyelle, Duval, Peyre, Soubies 2019, "The sliding Frank-Wolfe
    algorithm and its application to super-resolution microscopy", for the last part.

    Parameters
    ----------
    signal : array_like, shape (n,) or (n_1, n_2)
        Its largest size is between 1e-100 and 1e100, or 0. In what unit it and the axes are makes no difference.
    point_spread : PointSpread or sequence of them
        `Gaussian`, `Dirichlet` or `Sampled` of `mfld.deconvolution`, or your own; of each axis, or one for all.
    strength : float, optional
        Positive. Above ``max_w |sum_i signal_i prod_j k_j(z_ij - w_j)| / n`` there are no spikes for the penalty "tv",
        whose default is a tenth of that.
    axes : sequence of array_like, optional
        Increasing coordinates along each axis; by default 0, 1, 2, ..., or a period in equal parts.
    penalty : {"tv", "squared_tv"}
    n_particles, n_steps : int
        Of the cloud.
    gap : float
        Relative to the objective of no spikes: where to stop.
    seed : int
    num_threads : int, optional

    Returns
    -------
    Deconvolution

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or out of range.
    ConvergenceError
        If the gap stays above its limit.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> from mfld.deconvolution import Gaussian
    >>> x = np.linspace(0, 10, 101)
    >>> signal = 2 * Gaussian(0.5)(x - 3.03)[0] - Gaussian(0.5)(x - 6.5)[0]
    >>> found = mfld.deconvolve(signal, Gaussian(0.5), strength=1e-3, axes=[x])
    >>> found.positions[:, 0].round(3), found.amplitudes.round(3)
    (array([3.03, 6.5 ]), array([ 2., -1.]))
    """
    values = validation.array("signal", signal, np.float64)
    if values.ndim not in (1, 2) or min(values.shape, default=0) < 2:
        raise ValueError(f"signal must have shape (n,) or (n_1, n_2) with at least 2 each, got {values.shape}")
    validation.choice("penalty", penalty, ("tv", "squared_tv"))
    if strength is None and penalty != "tv":
        raise ValueError(
            f"strength must be given with penalty {penalty!r}, which has none above which there are no spikes"
        )
    gap = validation.real("gap", gap, positive=True)
    if gap < 1e-12:
        raise ValueError(f"gap must be at least 1e-12, what the precision of sums allows, got {gap:g}")
    n_particles = validation.integer("n_particles", n_particles, 1)
    n_steps = validation.integer("n_steps", n_steps, 0)
    model = Convolution(point_spread, default_axes(point_spread, values.shape) if axes is None else axes)
    sizes = tuple(len(x) for x in model.axes)
    if sizes != values.shape:
        raise ValueError(f"axes must have {values.shape} points to match signal, got {sizes}")

    units = _Units.of(model, values)
    own, inner = units.model, values.ravel() / units.signal
    none = SignedMeasure(own, np.zeros((0, own.n_coordinates)), np.zeros(0))
    largest = signed_certificate(SignedRisk(own, own.grid, inner, strength=1.0), none, tolerance=1e-3).supremum
    if strength is None:
        within = (largest or 1.0) / 10  # any number for a signal of zeros
    else:
        within = validation.real("strength", strength, positive=True) / units.strength(penalty)
        if not 1e-100 < within < 1e100:
            raise ValueError(f"strength must be nearer to {units.strength(penalty):.3g}, its unit, got {strength:g}")
    problem = _Problem(own, inner, within, penalty == "tv")
    nothing, width = float(np.mean(inner**2)) / 2, 1 / float(np.sqrt(own.most_curved))
    is_none = penalty == "tv" and within >= largest
    atoms = none if is_none else _cloud_of_spikes(problem, n_particles, n_steps, seed, num_threads)
    for _ in range(_MOST_ROUNDS):
        atoms = problem.joined(problem.polished(atoms), 0.05 * width, gap * nothing / 4)
        # A bound of the supremum that is so near adds less than a quarter of the limit to the gap.
        certificate = signed_certificate(problem.risk(problem.strength), atoms, penalty, tolerance=gap / 4)
        if certificate.gap <= gap * nothing:
            break
        positions = np.vstack([atoms.positions, certificate.worst])
        atoms = SignedMeasure(own, positions, np.append(atoms.weights, problem.sign(atoms, certificate)))
    else:
        raise ConvergenceError(
            f"the duality gap must be at most gap, {gap:g}, times the objective of no spikes, it is "
            f"{certificate.gap / nothing:.3g} after {_MOST_ROUNDS} rounds; a larger strength has fewer spikes, and so "
            "has a wider point_spread"
        )
    fitted = _fitted(problem, atoms)
    return Deconvolution(
        units.measure(atoms),
        units.certificate(certificate),
        units.positions(fitted.measure.positions),
        units.amplitude * fitted.measure.weights,
        units.lengths * fitted.position_errors,
        units.amplitude * fitted.amplitude_errors,
        units.signal * fitted.level,
        values,
        units.signal * fitted.measure.predict(own.grid).reshape(values.shape),
        within * units.strength(penalty) if strength is None else strength,
    )


@dataclass(frozen=True)
class _Normalised(PointSpread):
    """A response over its largest size, at differences in a unit."""

    given: PointSpread
    unit: float

    largest = 1.0

    @property
    def period(self) -> float | None:  # type: ignore[override]
        return None if self.given.period is None else self.given.period / self.unit

    @property
    def steepest(self) -> float:  # type: ignore[override]
        return self.given.steepest / self.given.largest * self.unit

    @property
    def most_curved(self) -> float:  # type: ignore[override]
        return self.given.most_curved / self.given.largest * self.unit * self.unit

    def __call__(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        value, slope = self.given(x * self.unit)
        return value / self.given.largest, slope / self.given.largest * self.unit


@dataclass(frozen=True, eq=False)
class _Units:
    """Units in which the signal, the point spread, its widths and the amplitudes are of the order of 1.

    Lengths and the unit of the signal are powers of 2, so that changes between such units round nothing.
    """

    given: Convolution
    model: Convolution
    signal: float
    amplitude: float
    origin: FloatArray
    lengths: FloatArray

    @classmethod
    def of(cls, given: Convolution, signal: FloatArray) -> _Units:
        size = float(np.abs(signal).max())
        if size and not 1e-100 < size < 1e100:
            raise ValueError(f"signal must have its largest size between 1e-100 and 1e+100, or 0, got {size:g}")
        lengths = np.array([_power_of_two(math.sqrt(own.largest / own.most_curved)) for own in given.point_spreads])
        origin = np.array(
            [x[0] if own.period is None else 0.0 for own, x in zip(given.point_spreads, given.axes, strict=True)]
        )
        axes = [(x - start) / unit for x, start, unit in zip(given.axes, origin, lengths, strict=True)]
        n_widths = math.prod(max(float(x[-1] - x[0]), 1.0) for x in axes)
        if n_widths > _MOST_WIDTHS:
            raise ValueError(
                f"point_spread must be wider: axes must be at most {_MOST_WIDTHS:g} of its widths long, or their "
                f"product in two dimensions, got {n_widths:.3g}"
            )
        within = [_Normalised(own, unit) for own, unit in zip(given.point_spreads, lengths.tolist(), strict=True)]
        unit = _power_of_two(size) if size else 1.0
        amplitude = unit / math.prod(own.largest for own in given.point_spreads)
        return cls(given, Convolution(within, axes), unit, amplitude, origin, lengths)

    def strength(self, penalty: str) -> float:
        """Unit of the strength: an objective's, the signal's square, over that of what the penalty multiplies."""
        share = self.signal / self.amplitude
        return share * self.signal if penalty == "tv" else share * share

    def positions(self, points: FloatArray) -> FloatArray:
        moved = self.origin + self.lengths * points
        for j, (own, x) in enumerate(zip(self.given.point_spreads, self.given.axes, strict=True)):
            if own.period is None:  # no rounding leads out of the domain
                moved[..., j] = np.clip(moved[..., j], x[0], x[-1])
        return moved

    def measure(self, atoms: SignedMeasure) -> SignedMeasure:
        return SignedMeasure(self.given, self.positions(atoms.positions), self.amplitude * atoms.weights)

    def certificate(self, own: SignedCertificate) -> SignedCertificate:
        square = self.signal * self.signal
        supremum = square / self.amplitude * own.supremum
        return SignedCertificate(square * own.value, square * own.gap, supremum, own.bounded, self.positions(own.worst))


def _power_of_two(size: float) -> float:
    return float(2.0 ** round(math.log2(size)))


@dataclass(frozen=True, eq=False)
class _Problem:
    """The objective as a function of finitely many spikes."""

    model: Convolution
    signal: FloatArray
    strength: float
    is_tv: bool

    def risk(self, strength: float) -> SignedRisk:
        return SignedRisk(self.model, self.model.grid, self.signal, strength=strength)

    def penalty(self, amplitudes: FloatArray) -> float:
        size = float(np.abs(amplitudes).sum())
        return self.strength * size if self.is_tv else self.strength / 2 * size**2

    def value(self, positions: FloatArray, amplitudes: FloatArray) -> float:
        residual = self.model.predictions(positions, amplitudes, self.model.grid, 1)[:, 0] - self.signal
        return float(np.mean(residual**2)) / 2 + self.penalty(amplitudes)

    def jacobian(self, positions: FloatArray, amplitudes: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Residuals, and their derivatives in amplitudes and then in positions, shape (n, M (1 + p))."""
        neurons = self.model._neurons(positions, self.model.grid, 1)[..., 0]
        slopes = amplitudes[:, np.newaxis] * self.model.slopes(positions)
        residual = np.einsum("im,m->i", neurons, amplitudes) - self.signal
        return residual, np.concatenate([neurons, slopes.reshape(len(residual), -1)], axis=1)

    def sign(self, atoms: SignedMeasure, certificate: SignedCertificate) -> float:
        """A first amplitude of the spike that the certificate asks for: next to nothing, of the right sign."""
        residual = atoms.predict(self.model.grid) - self.signal if len(atoms.weights) else -self.signal
        slope = self.model.pull_back(certificate.worst[np.newaxis], self.model.grid, residual[:, np.newaxis], 1)[0][0]
        return -float(np.sign(slope)) * 1e-6 * max(float(np.abs(self.signal).max()), 1e-300)

    def joined(self, atoms: SignedMeasure, radius: float, slack: float) -> SignedMeasure:
        """Atoms that have met as one, unless the objective needs them apart; they would share a weight in any way."""
        fewer = self.polished(atoms.merged(radius))
        before, after = (self.value(own.positions, own.weights) for own in (atoms, fewer))
        return fewer if after <= before + slack else atoms

    def held(self, positions: FloatArray, gradient: FloatArray) -> NDArray[np.bool_]:
        """Coordinates at an end of their axis that would leave it."""
        held = np.zeros(positions.shape, bool)
        for j, (own, x) in enumerate(zip(self.model.point_spreads, self.model.axes, strict=True)):
            if own.period is None:
                below = (positions[:, j] <= x[0]) & (gradient[:, j] > 0)
                held[:, j] = below | ((positions[:, j] >= x[-1]) & (gradient[:, j] < 0))
        return held

    def within(self, positions: FloatArray) -> FloatArray:
        """Positions in the domain: at the end of an axis rather than beyond it, and around a circle."""
        for j, (own, x) in enumerate(zip(self.model.point_spreads, self.model.axes, strict=True)):
            if own.period is None:
                positions[:, j] = np.clip(positions[:, j], x[0], x[-1])
        return self.model.space.retract(positions)

    def polished(self, atoms: SignedMeasure, penalised: bool = True) -> SignedMeasure:
        """Atoms after Gauss-Newton steps of amplitudes and positions; amplitudes that reach 0 are left out."""
        own = self if penalised else replace(self, strength=0.0)
        positions, amplitudes = atoms.positions.astype(np.float64), atoms.weights.astype(np.float64)
        damping, n, p = 1e-3, len(self.signal), self.model.n_coordinates
        value = own.value(positions, amplitudes) if len(amplitudes) else 0.0
        for _ in range(_MOST_STEPS):
            m = len(amplitudes)
            if m == 0:
                break
            residual, jacobian = own.jacobian(positions, amplitudes)
            size = 1.0 if self.is_tv else float(np.abs(amplitudes).sum())
            gradient = np.einsum("iq,i->q", jacobian, residual) / n
            gradient[:m] += own.strength * size * np.sign(amplitudes)
            curvature = np.einsum("iq,ir->qr", jacobian, jacobian) / n
            if not self.is_tv:
                curvature[:m, :m] += own.strength * np.multiply.outer(np.sign(amplitudes), np.sign(amplitudes))
            held = np.concatenate([np.zeros(m, bool), self.held(positions, gradient[m:].reshape(m, p)).ravel()])
            gradient[held], curvature[held], curvature[:, held] = 0, 0, 0
            scale = np.maximum(np.diag(curvature), 1e-12 * max(float(np.diag(curvature).max()), 1e-300))
            improved = False
            while damping < 1e12:
                try:
                    step = -linear.solve(linear.cholesky(curvature + damping * np.diag(scale)), gradient)
                except ValueError:  # two spikes at one place
                    damping *= 10
                    continue
                trial = amplitudes + step[:m]
                trial[np.sign(trial) != np.sign(amplitudes)] = 0
                moved = self.within(positions + step[m:].reshape(m, p))
                after = own.value(moved, trial)
                if after < value:
                    improved = True
                    break
                damping *= 10
            if not improved:
                break
            small = value - after <= 1e-15 * value
            kept = trial != 0
            positions, amplitudes, value, damping = moved[kept], trial[kept], after, max(damping / 10, 1e-12)
            if small and kept.all():
                break
        order = np.argsort(-np.abs(amplitudes), kind="stable")
        return SignedMeasure(self.model, positions[order].reshape(len(order), p), amplitudes[order])


def _cloud_of_spikes(
    problem: _Problem, n_particles: int, n_steps: int, seed: int, num_threads: int | None
) -> SignedMeasure:
    """Clusters of a cloud that has fallen along the bilevel reduction."""
    nothing = float(np.mean(problem.signal**2)) / 2
    # TV is at most that at which the penalty alone is as much as no spikes at all.
    largest = nothing / problem.strength
    ridge = problem.strength / max(largest, 1e-300) if problem.is_tv else problem.strength
    risk = problem.risk(max(ridge, _LEAST_RIDGE))
    model = problem.model
    particles = model.initial_particles(n_particles, seed, "float64")
    rounds = 3 if n_steps else 0
    for number in range(rounds):
        weights = n_particles * risk.signed_measure(particles).weights
        # Curvature of (strength / 2) f**2: of f it is at most the model's, times f and the coefficients' size.
        slope = risk.gradient(particles)
        steepest = float(np.max(np.sum(slope**2, axis=1))) / max(risk.strength * float(np.max(weights**2)), 1e-300)
        curvature = steepest + risk.strength * float(np.max(weights**2)) * model.most_curved
        step = 0.5 / max(curvature, 1e-300)
        steps = n_steps // rounds
        noise = 0.0 if number == rounds - 1 else 1e-3 * risk.strength * float(np.max(weights**2)) * 0.1**number
        solver = MFLD(n_particles, step_size=step, temperature=noise, dtype="float64", num_threads=num_threads)
        if steps:
            particles = solver.run(risk, steps, seed=seed, particles=particles, record_every=steps).particles
    measure = risk.signed_measure(Cloud(particles))
    width = 1 / np.sqrt(model.most_curved)
    merged = measure.merged(float(width))
    return merged.prune(1e-3 * float(np.max(merged.sizes, initial=0.0)))


def _refitted(problem: _Problem, atoms: SignedMeasure) -> SignedMeasure:
    """Spikes without the penalty: neighbours within half a width as one, which it takes to tell them apart."""
    radius = 0.5 / float(np.sqrt(problem.model.most_curved))
    most = len(problem.signal) // (1 + problem.model.n_coordinates)
    atoms = atoms.merged(radius)
    while True:
        kept = SignedMeasure(problem.model, atoms.positions[:most], atoms.weights[:most])
        refitted = problem.polished(kept, penalised=False)
        atoms = refitted.merged(radius)
        if len(atoms.weights) == len(refitted.weights):
            return refitted


@dataclass(frozen=True, eq=False)
class _Fitted:
    """Spikes without the penalty, standard errors, shapes (M, p) and (M,), and that of the signal."""

    measure: SignedMeasure
    position_errors: FloatArray
    amplitude_errors: FloatArray
    level: float


def _fitted(problem: _Problem, atoms: SignedMeasure) -> _Fitted:
    p, n = problem.model.n_coordinates, len(problem.signal)
    refitted = _refitted(problem, atoms)
    m = len(refitted.weights)
    if m == 0:
        return _Fitted(refitted, np.zeros((0, p)), np.zeros(0), float(np.sqrt(np.mean(problem.signal**2))))
    residual, jacobian = problem.jacobian(refitted.positions, refitted.weights)
    level = float(np.sqrt(np.sum(residual**2) / max(n - m * (1 + p), 1)))
    try:
        covariance = linear.inverse(linear.cholesky(np.einsum("iq,ir->qr", jacobian, jacobian)))
        errors = level * np.sqrt(np.diag(covariance))
    except ValueError:  # the signal does not determine them
        errors = np.full(m * (1 + p), np.inf)
    return _Fitted(refitted, errors[m:].reshape(m, p), errors[:m], level)
