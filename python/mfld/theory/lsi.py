"""Log-Sobolev constants of the Gibbs measures of a problem, by every argument that is known.

With the constant ``alpha`` of a measure p, ``KL(q | p) <= I(q | p) / (2 alpha)`` for all q, where ``I`` is the Fisher
divergence; a larger one is better. Mean-field Langevin dynamics converges at the rate ``2 alpha temperature``, with an
alpha that holds for the Gibbs measures ``exp(-(dU/dmu + l2 |theta|**2) / temperature)`` of all measures mu. The
Gaussian reference alone has ``2 l2 / temperature``.

Constants here are lower bounds and may be absurdly small: they are kept as logarithms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mfld import validation
from mfld.objectives import Objective

_NEVER = -math.inf  # the logarithm of 0: the argument says nothing
_LARGEST = 1e100  # exponent


@dataclass(frozen=True)
class Argument:
    """Lower bound on a log-Sobolev constant by one argument.

    Attributes
    ----------
    name : str
    log_value : float
        Natural logarithm of the bound; ``-inf`` where the argument does not apply.
    needs : str
        What has to hold.
    source : str
    why_not : str or None
        Why it does not apply, where it does not.
    """

    name: str
    log_value: float
    needs: str
    source: str
    why_not: str | None = None

    @property
    def value(self) -> float:
        """The bound; 0 where it is below all floats."""
        return math.exp(self.log_value) if self.log_value > _NEVER else 0.0

    def __str__(self) -> str:
        shown = f"not here ({self.why_not})," if self.why_not else in_powers(self.log_value)
        return f"{self.name:18} {shown:10} needs {self.needs}; {self.source}"


@dataclass(frozen=True)
class LogSobolev:
    """Log-Sobolev constant of a problem: the best of what all arguments give.

    Attributes
    ----------
    best : Argument
    arguments : tuple of Argument
        All of them, those too that do not apply.

    Examples
    --------
    >>> from mfld import theory
    >>> found = theory.log_sobolev(temperature=0.1, l2=0.05, oscillation=0.1)
    >>> found.best.name, round(found.value, 4)         # 2 l2 / temperature, times exp(-1)
    ('Holley-Stroock', 0.3679)
    """

    best: Argument
    arguments: tuple[Argument, ...]

    @property
    def value(self) -> float:
        """The constant, ``alpha``."""
        return self.best.value

    @property
    def log_value(self) -> float:
        """Its natural logarithm."""
        return self.best.log_value

    def __str__(self) -> str:
        lines = [f"alpha >= {in_powers(self.log_value)}, by {self.best.name}", *(f"  {one}" for one in self.arguments)]
        return "\n".join(lines)


def in_powers(log_value: float) -> str:
    """A positive number by its logarithm, also where it is beyond all floats."""
    if abs(log_value) < 600:
        return f"{math.exp(log_value):.3g}"
    power = log_value / math.log(10)
    return f"1e{power:+.0f}" if math.isfinite(power) else ("0" if power < 0 else "inf")


def log_sobolev(
    objective: Objective | None = None,
    temperature: float = 1.0,
    *,
    l2: float | None = None,
    n_coordinates: int | None = None,
    oscillation: float | None = None,
    lipschitz: float | None = None,
    convexity: float | None = None,
) -> LogSobolev:
    """Log-Sobolev constant of the Gibbs measures of a problem, by the best argument.

    What an objective knows about itself (`Objective.bounds`) is taken from it: bounded neurons and the loss give the
    oscillation and the Lipschitz constant of the first variation of U, built-in potentials their convexity. What it
    does not know is given by name. With T the temperature, p coordinates, R the Lipschitz constant and m the convexity:

    ====================  =============================================================================================
    Bakry-Emery           ``(m + 2 l2) / T``, where that is positive
    Holley-Stroock        ``(2 l2 / T) exp(-oscillation / T)``
    Miclo, two terms      ``(l2 / 2T) exp(-(4 R**2 / (l2 T)) sqrt(2 p / pi))``, and ``1 / (4 T / l2 + exp(R**2 / (2 l2
                          T)) (R / l2 + sqrt(2 T / l2))**2 (2 + p + (p / 2) log(T / l2) + 4 R**2 / (l2 T)))`` where the
                          last bracket is at least 2: the published constant may be negative where T is far below l2
    Brigati-Pedrotti      ``kappa exp(-L**2 / kappa - 4 L / sqrt(kappa))`` with ``kappa = 2 l2 / T``, ``L = R / T``
    ====================  =============================================================================================

    Sources: Bakry, Emery 1985, "Diffusions hypercontractives"; Holley, Stroock 1987, "Logarithmic Sobolev inequalities
    and stochastic Ising models"; Bardet, Gozlan, Malrieu, Zitt 2018, "Functional inequalities for Gaussian convolutions
    of compactly supported measures", after Miclo; Brigati, Pedrotti 2024, "Heat flow, log-concavity, and Lipschitz
    transport maps".

    Parameters
    ----------
    objective : Objective, optional
        On Euclidean space.
    temperature : float
        Positive.
    l2 : float, optional
        Of the ridge; by default the objective's.
    n_coordinates : int, optional
        p, of the moving coordinates; by default the objective's, or 1.
    oscillation, lipschitz, convexity : float, optional
        Of the first variation of U without the ridge, for all measures: supremum less infimum, bound on the size of the
        gradient, bound below the eigenvalues of the Hessian. By default what the objective knows.

    Returns
    -------
    LogSobolev

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; if no argument applies, with the names of what to give.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> inputs = np.linspace(-1, 1, 20)[:, np.newaxis]
    >>> model = mfld.TwoLayerNetwork(n_features=1, readout="bounded")
    >>> risk = mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=0.1)
    >>> found = mfld.theory.log_sobolev(risk, temperature=0.5)     # print it to see all arguments
    >>> found.best.name, float(round(found.value, 4)), found.arguments[0].why_not
    ('Holley-Stroock', 0.0215, 'convexity is not known')
    """
    temperature = validation.real("temperature", temperature, positive=True)
    known = None
    if objective is not None:
        validation.instance("objective", objective, Objective, "an Objective")
        if not objective.space.flat:
            raise ValueError(f"objective must be on Euclidean space, got the domain {objective.space.domain}")
        known = objective.bounds()
        l2 = objective.l2 if l2 is None else l2
        n_coordinates = objective.n_moving if n_coordinates is None else n_coordinates
    l2 = validation.real("l2", 0.0 if l2 is None else l2, non_negative=True)
    p = 1 if n_coordinates is None else validation.integer("n_coordinates", n_coordinates, 1)

    def given(name: str, value: float | None, worst: float) -> float:
        if value is not None:
            return validation.real(name, value, non_negative=worst > 0)
        return worst if known is None else getattr(known, name)

    omega = given("oscillation", oscillation, math.inf)
    r = given("lipschitz", lipschitz, math.inf)
    m = given("convexity", convexity, -math.inf)
    arguments = (
        bakry_emery(m + 2 * l2, temperature),
        holley_stroock(l2, temperature, omega),
        *miclo(l2, temperature, r, p),
        brigati_pedrotti(l2, temperature, r),
    )
    best = max(arguments, key=lambda argument: argument.log_value)
    if best.log_value == _NEVER:
        missing = "; ".join(f"{one.name}: {one.why_not}" for one in arguments)
        raise ValueError(f"oscillation, lipschitz or convexity must be given, since no argument applies: {missing}")
    return LogSobolev(best, arguments)


def bakry_emery(curvature: float, temperature: float) -> Argument:
    """Bound by a positive curvature, ridge included: ``curvature / temperature``."""
    why_not = None if curvature > 0 else f"the lowest curvature, ridge included, is {curvature:g}"
    if curvature == -math.inf:
        why_not = "convexity is not known"
    value = _NEVER if why_not else math.log(curvature / temperature)
    return Argument("Bakry-Emery", value, "a convex first variation", "Bakry, Emery 1985", why_not)


def holley_stroock(l2: float, temperature: float, oscillation: float, *, weaker: bool = False) -> Argument:
    """Bound by a bounded perturbation of the reference: ``(2 l2 / temperature) exp(-oscillation / temperature)``.

    Papers often print ``(l2 / temperature) exp(-4 R / temperature)`` for a first variation between -R and R, whose
    oscillation is 2 R: ``weaker=True``, which is half of it and with twice the exponent.
    """
    why_not = _unless(l2, oscillation, "oscillation")
    value = _NEVER if why_not else math.log(2 * l2 / temperature) - oscillation / temperature
    if weaker and not why_not:
        value = math.log(l2 / temperature) - 2 * oscillation / temperature
    name = "Holley-Stroock, weaker" if weaker else "Holley-Stroock"
    return Argument(name, value, "a bounded first variation and a ridge", "Holley, Stroock 1987", why_not)


def miclo(l2: float, temperature: float, lipschitz: float, n_coordinates: int) -> tuple[Argument, Argument]:
    """Bounds by a Lipschitz perturbation of the reference: two of them, the second of which grows with the dimension.

    The second is refused where the bracket that stands for a relative entropy is below 2: it is negative where the
    temperature is far below l2, and means nothing there.
    """
    needs, source = "a Lipschitz first variation and a ridge", "after Miclo; Bardet, Gozlan, Malrieu, Zitt 2018"
    why_not = _unless(l2, lipschitz, "lipschitz")
    if why_not:
        return (
            Argument("Miclo, first", _NEVER, needs, source, why_not),
            Argument("Miclo, second", _NEVER, needs, source, why_not),
        )
    r, p, ratio = lipschitz, n_coordinates, temperature / l2
    share = r / l2 * (r / temperature)
    if not share < _LARGEST:
        why_not = "it is below all that can be computed"
        return (
            Argument("Miclo, first", _NEVER, needs, source, why_not),
            Argument("Miclo, second", _NEVER, needs, source, why_not),
        )
    first = -math.log(2 * ratio) - 4 * share * math.sqrt(2 * p / math.pi)
    bracket = 2 + p + p / 2 * math.log(ratio) + 4 * share
    if bracket < 2:
        why_not = f"its bracket is {bracket:.3g}: the temperature is too far below l2"
        return Argument("Miclo, first", first, needs, source), Argument("Miclo, second", _NEVER, needs, source, why_not)
    large = share / 2 + 2 * math.log(r / l2 + math.sqrt(2 * ratio)) + math.log(bracket)
    top = max(large, math.log(4 * ratio))
    second = -(top + math.log(math.exp(large - top) + math.exp(math.log(4 * ratio) - top)))
    return Argument("Miclo, first", first, needs, source), Argument("Miclo, second", second, needs, source)


def brigati_pedrotti(l2: float, temperature: float, lipschitz: float) -> Argument:
    """Bound by a Lipschitz perturbation that does not depend on the dimension."""
    why_not = _unless(l2, lipschitz, "lipschitz")
    value = _NEVER
    if not why_not:
        kappa, slope = 2 * l2 / temperature, lipschitz / temperature
        value = math.log(kappa) - slope * (slope / kappa) - 4 * slope / math.sqrt(kappa)
    needs = "a Lipschitz first variation and a ridge"
    return Argument("Brigati-Pedrotti", value, needs, "Brigati, Pedrotti 2024", why_not)


def sphere(n_dimensions: int, temperature: float = 1.0, convexity: float = 0.0) -> Argument:
    """Bound on the unit sphere in so many dimensions: ``n_dimensions - 1 + convexity / temperature``.

    The uniform law has ``n_dimensions - 1``, which is sharp; a potential whose Hessian on the sphere is at least
    ``convexity``, which may be negative, adds it to the Ricci curvature ``n_dimensions - 2``, hence the smaller
    constant where there is one.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """
    d = validation.integer("n_dimensions", n_dimensions, 2)
    temperature = validation.real("temperature", temperature, positive=True)
    convexity = validation.real("convexity", convexity)
    value = d - 1 if convexity == 0 else d - 2 + convexity / temperature
    why_not = None if value > 0 else f"the potential is curved by {convexity:g}, more than the sphere holds"
    needs = "a potential on the sphere with a bound on its Hessian"
    log_value = math.log(value) if value > 0 else _NEVER
    return Argument("sphere", log_value, needs, "Bakry, Emery 1985; the uniform law: Mueller, Weissler 1982", why_not)


def weak_morse(temperature: float, smallest_curvature: float) -> Argument:
    """Order of magnitude for landscapes whose only local minimum is the global one: polynomial in 1 / temperature.

    All other stationary points are strict saddles, and Hessians at stationary points have eigenvalues of absolute value
    at least ``smallest_curvature``. Then ``1 / alpha`` grows like a polynomial of ``1 / temperature`` and ``1 /
    smallest_curvature``, and not exponentially; here ``temperature / (1 + 1 / smallest_curvature)``, with constants
    that are not known: it is no bound, and `log_sobolev` never takes it. Source: Li, Erdogdu 2023, "Riemannian Langevin
    algorithm for solving semidefinite programs".
    """
    temperature = validation.real("temperature", temperature, positive=True)
    smallest = validation.real("smallest_curvature", smallest_curvature, positive=True)
    value = math.log(temperature / (1 + 1 / smallest))
    return Argument("weak Morse", value, "strict saddles; an order of magnitude only", "Li, Erdogdu 2023")


def _unless(l2: float, bound: float, name: str) -> str | None:
    if l2 <= 0:
        return "there is no ridge"
    return None if math.isfinite(bound) else f"{name} is not known"
