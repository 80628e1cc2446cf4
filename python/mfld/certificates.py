"""Certificates: how far from the optimum an answer is at most, from the duality gap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import noise, validation
from mfld.floating import underflow_is_zero
from mfld.gibbs import N_GROUPS, ROUNDED, GibbsEstimate, jackknife_error, rounding, rounds_of
from mfld.objectives import EmpiricalRisk
from mfld.sampling import GibbsSampler
from mfld.state import Cloud
from mfld.validation import FloatArray

_SUMMED = 8 * float(np.finfo(np.float64).eps)  # rounding of a sum, for the size of its terms


@dataclass(frozen=True, eq=False, repr=False)
class Certificate:
    """Verdict of a duality gap about an answer; see `certificate`.

    Attributes
    ----------
    gap : float
        Estimate of ``P(p[g]) - D(g)``, debiased; it may fall below 0 by its error. NaN where there is a reason.
    standard_error : float
        Of the gap.
    upper : float
        Upper bound of ``P(p[g]) - P*`` at the confidence.
    confidence : float
    reason : str or None
        Why there is no number.
    dual : ndarray, shape (n, K)
        The dual variables g that are certified.
    dual_error : float
        Bound at the same confidence on the root mean square (weights s) of ``g - g*``, the distance to the optimal
        dual variables: ``sqrt(2 upper * smoothness)``; infinite for a loss that is not smooth. With ``half_squared``,
        where ``g = u - y``, it bounds the error of the predictions ``g + y``.
    optimum : float, float
        Lower and upper bound of the optimal objective P*, each at the confidence: D(g) with the upper bound of log Z,
        and D(g) with the lower one, plus ``upper``.
    dual_value, dual_value_error : float
        D(g) and its standard error; ``dual_value + gap`` is the objective of the certified measure.
    predictions : ndarray, shape (n, K)
        Of the certified measure at the samples.
    particles : ndarray, shape (n_chains, p)
        A sample of the certified measure.
    r_hat : float
        Rank-normalised split R-hat of the potential and of neurons at 8 rows.
    n_moves : int
        Moves of each particle.
    covered : bool
        Whether wells were looked for at points as dense as the steepness of the neurons asks for: with bounded neurons,
        few moving coordinates and room in ``most_moves``. Where it is False, wells that are too narrow for
        the particles to be led to them from the heat are found by luck only.

    Examples
    --------
    >>> import mfld
    >>> model = mfld.TwoLayerNetwork(n_features=1, readout="bounded")
    >>> risk = mfld.EmpiricalRisk(model, [[-1.0], [1.0]], [-1.0, 1.0], loss="logistic", l2=0.1)
    >>> print(mfld.certificate(risk, [0.5, -0.5], temperature=0.0))
    no certificate: the temperature is 0: there is no Gibbs measure
    """

    gap: float
    standard_error: float
    upper: float
    confidence: float
    reason: str | None
    dual: NDArray[np.float64]
    dual_error: float = math.nan
    optimum: tuple[float, float] = (math.nan, math.nan)
    dual_value: float = math.nan
    dual_value_error: float = math.nan
    predictions: NDArray[np.float64] | None = None
    particles: FloatArray | None = None
    r_hat: float = math.nan
    n_moves: int = 0
    covered: bool = False

    def __repr__(self) -> str:
        return f"Certificate({self})"

    def __str__(self) -> str:
        if self.reason is not None:
            return f"no certificate: {self.reason}"
        narrow = "" if self.covered else " Wells too narrow for the search are not excluded."
        return (
            f"The Gibbs measure of the dual variables (a sample of it is in .particles) exceeds the optimal objective "
            f"by at most {self.upper:.3g} at confidence {self.confidence:g}; the gap is {self.gap:.3g} "
            f"+- {self.standard_error:.2g}. The optimum is between {self.optimum[0]:.6g} and {self.optimum[1]:.6g}."
            f"{narrow}"
        )


@underflow_is_zero
def certificate(
    risk: EmpiricalRisk,
    dual: ArrayLike,
    temperature: float,
    *,
    l2: float | None = None,
    confidence: float = 0.999,
    tolerance: float = 1e-4,
    n_chains: int = 512,
    most_moves: int = 8192,
    seed: int = 0,
    dtype: DTypeLike | None = None,
    num_threads: int | None = None,
) -> Certificate:
    """Duality gap of dual variables g for ``P(mu) = F(mu) + temperature * Ent(mu)``, with an upper bound.

    For any g in the domain of the conjugates, with p[g] the Gibbs measure of `EmpiricalRisk.linearised`, ::

        P(p[g]) - P* <= P(p[g]) - D(g) = sum_i s_i (l(u_i, y_i) + l*(g_i, y_i) - u_i g_i),    u_i = E_p[g] h(., z_i)

    **It certifies p[g]**, a measure with a density of which ``particles`` is a sample, and not a cloud, whose objective
    is infinite; it bounds the distance of g to the optimal dual variables too. The predictions u come from 32 groups of
    particles that a ladder of laws leads from a wide Gaussian down to p[g] (`mfld.annealing.Annealer`): they find modes
    that chains from one place do not reach, and each group counts by its estimate of the partition function, so that
    few particles have no bias either. Rounds count as *mixed* only where the way down and the way back agree on log Z
    within their errors, several groups carry the mass, and split R-hat is below 1.01; else the ladder becomes longer.
    Narrow wells that no ladder leads to are looked for by themselves (`mfld.wells.find`), and there is no certificate
    where the bounds would not hold with their masses.
    Gap, standard error and bias b are those of the jackknife over the groups. The gap is a smooth function of u that is
    nowhere negative, hence about a squared distance, and b the mean square of its error: the upper bound is
    ``(sqrt(gap + b) + t sqrt(b))**2``, or ``gap + b + t standard_error`` where that is more, with quantiles t of
    Student's law. Rounds go on until ``t sqrt(b)`` is below half of the root of the gap or of the tolerance. With log Z
    from both sides come D(g) itself, a lower bound of the optimum, and from ``P(p[g]) = D(g) + gap`` an upper one.
    Source: Oko, Suzuki, Nitanda, Wu 2022, "Particle stochastic dual coordinate ascent"; Nitanda, Wu, Suzuki 2022,
    "Convex analysis of the mean field Langevin dynamics".

    Parameters
    ----------
    risk : EmpiricalRisk
    dual : array_like, shape (n,) or (n, n_outputs)
        Dual variables without sample weights, like ``l'(f_mu(z_i), y_i)`` of any measure, or averages of such.
    temperature : float
        At least 0.
    l2 : float, optional
        In place of the risk's.
    confidence : float
        Between 0.5 and 1.
    tolerance : float
        Gap that it is enough to resolve.
    n_chains : int
        Particles: a multiple of 32.
    most_moves : int
        Of each particle, in all: the budget, by which a result does not depend on how busy the machine is. A move
        evaluates all neurons at all samples.
    seed : int
        Of the noise.
    dtype : {"float32", "float64"}, optional
        Precision of the particles. By default float32, and float64 where the temperature is so low that rounding would
        matter to the law.
    num_threads : int, optional
        By default that of the risk (`Objective.on_threads`); it never changes a result.

    Returns
    -------
    Certificate
        With a finite number or a ``reason``: temperature or l2 is 0, the loss is not convex or has no known conjugate,
        a dual variable is outside of the domain, the Gibbs measure may not be normalisable, the precision is too low
        for the temperature, there are too many combinations of frozen coordinates for the particles, or these did not
        mix in the moves that they had.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> inputs = np.linspace(-2, 2, 50)[:, np.newaxis]
    >>> model = mfld.TwoLayerNetwork(n_features=1, readout="bounded")
    >>> risk = mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=0.01)
    >>> result = mfld.PSDCA(n_particles=500, temperature=0.01).run(risk, n_steps=20)
    >>> found = mfld.certificate(risk, result.dual, temperature=0.01)
    >>> found.reason, bool(found.upper < 1e-3)
    (None, True)
    """
    validation.instance("risk", risk, EmpiricalRisk, "an EmpiricalRisk")
    temperature = validation.real("temperature", temperature, non_negative=True)
    l2 = risk.l2 if l2 is None else validation.real("l2", l2, non_negative=True)
    confidence = validation.real("confidence", confidence)
    if not 0.5 <= confidence < 1:
        raise ValueError(f"confidence must be at least 0.5 and below 1, got {confidence}")
    n_chains = validation.integer("n_chains", n_chains, 2 * N_GROUPS)
    if n_chains % N_GROUPS:
        raise ValueError(f"n_chains must be a multiple of {N_GROUPS}, got {n_chains}")
    tolerance = validation.real("tolerance", tolerance, non_negative=True)
    most_moves = validation.integer("most_moves", most_moves, 128, validation.MAX_STEP)
    precision = validation.float_dtype("dtype", "float32" if dtype is None else dtype)
    threads = validation.num_threads(risk.num_threads if num_threads is None else num_threads)
    g = _of_samples("dual", validation.array("dual", dual, np.float64), risk)

    def refused(reason: str, r_hat: float = math.nan, n_moves: int = 0) -> Certificate:
        return Certificate(math.nan, math.nan, math.nan, confidence, reason, g, r_hat=r_hat, n_moves=n_moves)

    reason = _why_not(risk, g, temperature, l2)
    if reason is not None:
        return refused(reason)
    place = noise.Place.of(seed, num_threads=threads).beside("certificate")
    _width(temperature, l2, precision)
    size = rounding(risk.on_threads(threads), g, temperature, l2, place)
    if float(np.finfo(precision).eps) * size > ROUNDED:
        precision = np.dtype(np.float64) if dtype is None else precision
        if float(np.finfo(precision).eps) * size > ROUNDED:
            return refused(f"{precision} does not resolve differences of the potential at this temperature")
    eps = 8 * float(np.finfo(precision).eps)
    degrees = N_GROUPS - 1
    quantile, two_sided = student_quantile(confidence, degrees), student_quantile((1 + confidence) / 2, degrees)
    measured, rounded = [math.nan] * 3, 0.0

    def enough(found: GibbsEstimate) -> bool:
        nonlocal rounded
        predictions, left_out = found.predictions()
        measured[:] = gap, _, bias = _jackknifed(risk, predictions, left_out, g)
        rounded = eps * _first_order(risk, predictions, g) + _SUMMED * _terms(risk, predictions, g)
        return 4 * two_sided**2 * bias <= max(gap + bias, tolerance)

    def upper_bound() -> float:
        gap, error, bias = measured
        noise_size = two_sided * math.sqrt(bias)
        return max(gap + bias + quantile * error, (math.sqrt(max(gap + bias, 0.0)) + noise_size) ** 2) + rounded

    def holds(found: GibbsEstimate, predictions: NDArray[np.float64], log_z: float) -> bool:
        highest = found.log_partition_bounds(two_sided)[3]
        return fenchel_young_gap(risk, predictions, g) <= upper_bound() and log_z <= highest

    found = rounds_of(
        risk.on_threads(threads),
        g,
        temperature,
        l2,
        n_chains=n_chains,
        most_moves=most_moves,
        place=place,
        quantile=two_sided,
        dtype=precision,
        confined=1 - smallest_ridge(risk, g) / l2,
        enough=enough,
        holds=holds,
    )
    if found.reason is not None:
        more = ": a higher temperature or l2 makes it easier, a larger most_moves gives more room"
        return refused(found.reason + (more if found.n_moves else ""), found.r_hat, found.n_moves)
    (gap, error, _), upper = measured, upper_bound()
    smoothness = risk.loss_function.smoothness
    log_z, log_z_error, lowest, highest = found.log_partition_bounds(two_sided)
    lowest, highest = lowest - eps * size, highest + eps * size
    targets = risk.targets.astype(np.float64)
    conjugate = float(np.average(risk.loss_function.conjugate(g, targets), weights=risk.sample_weight))
    summed = _SUMMED * (_terms(risk, found.predictions()[0], g) + temperature * max(abs(lowest), abs(highest)))
    lower, higher = -conjugate - temperature * highest - summed, -conjugate - temperature * lowest + upper + summed
    return Certificate(
        gap,
        error,
        upper,
        confidence,
        None,
        g,
        dual_error=math.sqrt(2 * upper * smoothness) if upper > 0 else 0.0,
        optimum=(lower, higher),
        dual_value=-conjugate - temperature * log_z,
        dual_value_error=temperature * log_z_error,
        predictions=found.predictions()[0],
        particles=found.particles,
        r_hat=found.r_hat,
        n_moves=found.n_moves,
        covered=found.covered,
    )


@underflow_is_zero
def dual_at(risk: EmpiricalRisk, measure: Cloud) -> FloatArray:
    """Dual variables ``l'(f_mu(z_i), y_i)`` at a measure, shape (n, n_outputs), in float64.

    A derivative rounded to float32 may lie outside of the conjugate's domain.
    """
    validation.instance("risk", risk, EmpiricalRisk, "an EmpiricalRisk")
    validation.instance("measure", measure, Cloud, "a Cloud")
    return risk.derivative(Cloud(measure.particles.astype(np.float64), measure.weights))[0]


@underflow_is_zero
def fenchel_young_gap(risk: EmpiricalRisk, predictions: ArrayLike, dual: ArrayLike) -> float:
    """``sum_i s_i (l(u_i, y_i) + l*(g_i, y_i) - u_i g_i)``, which is at least 0, and 0 only for ``g_i = l'(u_i, y_i)``.

    Parameters
    ----------
    risk : EmpiricalRisk
    predictions, dual : array_like, shape (n, n_outputs); or (n,) with one output

    Returns
    -------
    float
        ``inf`` if a dual variable is outside of the conjugate's domain.

    Examples
    --------
    >>> import mfld
    >>> from mfld.certificates import fenchel_young_gap
    >>> model = mfld.TwoLayerNetwork(n_features=1)
    >>> risk = mfld.EmpiricalRisk(model, [[0.0], [1.0]], [1.0, -1.0], loss="half_squared", l2=0.1)
    >>> fenchel_young_gap(risk, predictions=[1.0, 1.0], dual=[0.0, 1.0])     # the second g should be 2
    0.25
    """
    validation.instance("risk", risk, EmpiricalRisk, "an EmpiricalRisk")
    u, g = _of_samples("predictions", predictions, risk), _of_samples("dual", dual, risk)
    targets = risk.targets.astype(np.float64)
    values, _ = risk.loss_function.evaluate(u, targets)
    conjugate = risk.loss_function.conjugate(g, targets)
    return float(np.average(values + conjugate - np.sum(u * g, axis=1), weights=risk.sample_weight))


@underflow_is_zero
def log_partition(
    risk: EmpiricalRisk,
    dual: ArrayLike,
    temperature: float,
    *,
    method: str = "thermodynamic",
    n_chains: int = 512,
    n_moves: int = 100,
    seed: int = 0,
    num_threads: int | None = None,
) -> tuple[float, float]:
    """Estimate of ``log Z = log integral exp(-(sum_i s_i g_i h_i + l2 |theta|**2) / temperature)``, with its error.

    With it comes the dual objective, ``D(g) = -sum_i s_i l*(g_i, y_i) - temperature * log Z``. ``"thermodynamic"``
    integrates ``d log Z(tau g) / d tau = -E_p[tau g] sum_i s_i g_i h_i / temperature`` from the Gaussian, ``tau = 0``,
    by Gauss-Legendre in 16 nodes and MALA chains; ``"quadrature"`` is the trapezoidal rule in up to two coordinates,
    without an error to speak of for smooth neurons. `PSDCA` telescopes an estimate of its own over its refreshes.

    Parameters
    ----------
    risk, dual, temperature, seed, num_threads
        As in `certificate`; no coordinate may be frozen.
    method : {"thermodynamic", "quadrature"}
    n_chains, n_moves : int
        Of the thermodynamic integration: chains, and moves at each node, half of them to settle.

    Returns
    -------
    float, float
        The estimate and its standard error, 0 for the quadrature.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, the measure may not be normalisable, or there are too many coordinates.

    Examples
    --------
    >>> import mfld
    >>> model = mfld.TwoLayerNetwork(n_features=1, readout="fixed", bias=False)
    >>> risk = mfld.EmpiricalRisk(model, [[-1.0], [2.0]], [-1.0, 1.0], loss="logistic", l2=0.1)
    >>> exact, _ = mfld.certificates.log_partition(risk, [0.5, -0.5], temperature=0.1, method="quadrature")
    >>> estimate, error = mfld.certificates.log_partition(risk, [0.5, -0.5], temperature=0.1)
    >>> abs(estimate - exact) < 5 * error
    True
    """
    validation.instance("risk", risk, EmpiricalRisk, "an EmpiricalRisk")
    validation.choice("method", method, ("thermodynamic", "quadrature"))
    temperature = validation.real("temperature", temperature, positive=True)
    n_chains = validation.integer("n_chains", n_chains, 2)
    n_moves = validation.integer("n_moves", n_moves, 2, validation.MAX_STEP // 16)
    threads = validation.num_threads(risk.num_threads if num_threads is None else num_threads)
    g = _of_samples("dual", validation.array("dual", dual, np.float64), risk)
    reason = _why_not(risk, g, temperature, risk.l2)
    if reason is not None:
        raise ValueError(f"log_partition does not exist: {reason}")
    if risk.n_moving < risk.n_coordinates:
        raise ValueError("risk must have no frozen coordinates: with them there is no single partition function")
    if method == "quadrature":
        return _quadrature(risk, g, temperature, threads), 0.0
    place, p = noise.Place.of(seed, num_threads=threads).beside("log_partition"), risk.n_coordinates
    width = _width(temperature, risk.l2, np.dtype(np.float64))
    points = width * place.normals(n_chains, p, "float64", "init")
    nodes, weights = np.polynomial.legendre.leggauss(16)
    slopes, step_size, moves, settling = np.zeros(n_chains), None, 0, n_moves // 2
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        potential = risk.linearised(node * g, num_threads=threads)
        sampler = GibbsSampler(potential, temperature, place.key, place.population, threads)
        chains = sampler.start(points, step_size, moves)
        for k in range(n_moves):
            chains = sampler.move(chains, adapt=k < settling)
            if k >= settling:  # values are those of node * g
                slopes -= weight / (node * temperature * (n_moves - settling)) * chains.values
        points, step_size, moves = chains.points, chains.step_size, chains.moves
    gaussian = p / 2 * math.log(math.pi * temperature / risk.l2)
    # Chains are independent of each other, through all nodes.
    return gaussian + float(slopes.mean()), float(slopes.std(ddof=1) / math.sqrt(n_chains))


def _quadrature(risk: EmpiricalRisk, g: NDArray[np.float64], temperature: float, threads: int) -> float:
    p, bound = risk.n_coordinates, max(map(abs, risk.model.output_range))
    if p > 2 or not math.isfinite(bound):
        raise ValueError(f"method='quadrature' needs a bounded neuron and at most 2 coordinates, got {p} coordinates")
    largest = bound * float(np.average(np.sum(np.abs(g), axis=1), weights=risk.sample_weight))
    # Beyond it the density is below exp(-40) of its largest value.
    radius = math.sqrt((40 * temperature + 2 * largest) / risk.l2)
    axis = np.linspace(-radius, radius, 20_001 if p == 1 else 801)
    points = np.stack([part.ravel() for part in np.meshgrid(*[axis] * p, indexing="ij")], axis=1)
    exponent = -risk.linearised(g, num_threads=threads)(points) / temperature
    highest = float(exponent.max())
    return highest + math.log(np.exp(exponent - highest).sum()) + p * math.log(axis[1] - axis[0])


def student_quantile(confidence: float, degrees: int) -> float:
    """Quantile of Student's law by the expansion in 1 / degrees of Hill 1970; within 1e-3 for 31 degrees to 0.9999.

    Examples
    --------
    >>> from mfld.certificates import student_quantile
    >>> round(student_quantile(0.999, 31), 2)
    3.37
    """
    confidence = validation.real("confidence", confidence)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be above 0 and below 1, got {confidence}")
    degrees = validation.integer("degrees", degrees, 1, validation.MAX_STEP)
    z = NormalDist().inv_cdf(confidence)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(z + sum(term / degrees ** (k + 1) for k, term in enumerate(terms)))


def _why_not(risk: EmpiricalRisk, g: NDArray[np.float64], temperature: float, l2: float) -> str | None:
    loss = risk.loss_function
    reasons = {
        f"the particles live on the domain {risk.space.domain}, and certificates know Euclidean space only": (
            not risk.space.flat
        ),
        "the temperature is 0: there is no Gibbs measure": temperature == 0,
        "l2 is 0: the Gibbs measure is not normalisable": l2 == 0,
        "the loss is not convex: there is no duality gap": not loss.convex,
        "the conjugate of a loss of your own is not known": not loss.has_conjugate,
        "the growth of a model of your own is not known": risk.model.growth(risk.inputs) is None,
    }
    for reason, holds in reasons.items():
        if holds:
            return reason
    if not math.isfinite(fenchel_young_gap(risk, np.zeros_like(g), g)):
        return "a dual variable is outside of the domain of the loss's conjugate"
    needed = smallest_ridge(risk, g)
    if l2 <= needed:
        return (
            f"the Gibbs measure may not be normalisable: a neuron of {risk.model} grows like |theta|**2 and needs "
            f"l2 > {needed:.3g}, got {l2:g}; a bounded activation or readout always is"
        )
    return None


def smallest_ridge(risk: EmpiricalRisk, dual: FloatArray) -> float:
    """The l2 above which the Gibbs measure of dual variables (n, n_outputs) surely exists, at any temperature.

    Neurons that grow like ``a_i |theta|**2`` take away ``sum_i s_i a_i |g_i|`` of it at most, and those that grow
    linearly nothing (`Model.growth`). NaN where dual variables are NaN, or the growth is not known.
    """
    validation.instance("risk", risk, EmpiricalRisk, "an EmpiricalRisk")
    dual = _of_samples("dual", dual, risk)
    growth = risk.model.growth(risk.inputs)
    if growth is None:
        return math.nan
    # Where nothing grows nothing is taken away, by whatever dual variable.
    with np.errstate(over="ignore", invalid="ignore"):
        taken = np.where(growth > 0, np.linalg.norm(dual, axis=1) * growth, 0.0)
    return float(np.average(taken, weights=risk.sample_weight))


def _width(temperature: float, l2: float, dtype: np.dtype[np.floating[Any]]) -> float:
    """Standard deviation of the Gaussian reference."""
    variance, most = temperature / (2 * l2), 1e-6 * float(np.finfo(dtype).max)  # squares of points have to be finite
    if not 1 / most < variance < most:
        limits = f"between {1 / most:.2g} and {most:.2g} in {dtype}"
        raise ValueError(f"temperature / (2 l2) must be {limits}, got temperature={temperature:g} and l2={l2:g}")
    return math.sqrt(variance)


def _of_samples(name: str, value: ArrayLike, risk: EmpiricalRisk) -> NDArray[np.float64]:
    """An array of shape (n, n_outputs), or (n,) with one output; what is not finite has an infinite gap, or none."""
    given = validation.returned(name, value, None, np.float64, "")
    given = given[:, np.newaxis] if given.ndim == 1 and risk.model.n_outputs == 1 else given
    validation.shape(name, given, (risk.n_samples, risk.model.n_outputs), "(samples, outputs)")
    return given.astype(np.float64)


def _terms(risk: EmpiricalRisk, predictions: NDArray[np.float64], g: NDArray[np.float64]) -> float:
    """Mean size of the terms whose sum is the gap, by which its rounding is multiplied."""
    targets = risk.targets.astype(np.float64)
    values, _ = risk.loss_function.evaluate(predictions, targets)
    sizes = np.abs(values) + np.abs(risk.loss_function.conjugate(g, targets)) + np.sum(np.abs(predictions * g), axis=1)
    return float(np.average(sizes, weights=risk.sample_weight))


def _first_order(risk: EmpiricalRisk, predictions: NDArray[np.float64], g: NDArray[np.float64]) -> float:
    """Change of the gap by a change of the predictions in proportion to themselves, of the worst signs."""
    _, derivative = risk.loss_function.evaluate(predictions, risk.targets.astype(np.float64))
    return float(np.average(np.sum(np.abs((derivative - g) * predictions), axis=1), weights=risk.sample_weight))


def _jackknifed(
    risk: EmpiricalRisk, mean: NDArray[np.float64], left_out: NDArray[np.float64], g: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Gap at the predictions of all groups, debiased by the jackknife, its standard error, and the bias taken off."""
    n = len(left_out)
    plain = fenchel_young_gap(risk, mean, g)
    gaps = np.array([fenchel_young_gap(risk, one, g) for one in left_out])
    bias = (n - 1) * max(float(gaps.mean()) - plain, 0.0)  # below 0 by rounding alone where groups weigh the same
    return plain - bias, float(jackknife_error(gaps)), bias
