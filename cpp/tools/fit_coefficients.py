"""Prints the constants of mfld/math.hpp, each block with its achieved error.

Every block is a weighted minimax fit, found by Lawson's iteration: least squares whose weights grow where the error is
large. A rational P/Q is linearised as P - f Q with the last Q as a further weight (Sanathanan-Koerner); Q is monic and
printed without its leading 1. The error printed is that of the coefficients rounded to their precision, relative to the
function the library returns, in exact arithmetic: the kernels add rounding alone.

    python fit_coefficients.py            # all blocks, about a minute; needs mpmath and numpy
    python fit_coefficients.py exp tanh   # blocks whose name contains a word
"""

import sys

import mpmath as mp
import numpy as np

mp.mp.dps = 100  # (f(x) - x) / x^3 at 1e-20 still has 40 digits
PRECISIONS = {"float": np.float32, "double": np.float64}
N_ITERATIONS = 50


def rounded(value, precision):
    return mp.mpf(float(PRECISIONS[precision](float(value))))


def literal(value, precision):
    text = f"{float(value):.9g}" if precision == "float" else f"{float(value):.17g}"
    if not set(text) & set(".e"):
        text += ".0"
    return text + ("f" if precision == "float" else "")


def chebyshev_points(low, high, n):
    return [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * i / n) for i in range(n + 1)]


def lawson(function, scale, points, fixed, degree, denominator_degree):
    """P and Q, coefficients lowest first, with the smallest maximal |P/Q - function| / scale.

    P begins with the coefficients `fixed`, Q with 1.
    """
    values, scales = [function(x) for x in points], [scale(x) for x in points]
    known = [mp.polyval(fixed[::-1], x) for x in points]
    columns = [[x**k for x in points] for k in range(len(fixed), degree + 1)]
    columns += [[-v * x**k for x, v in zip(points, values)] for k in range(1, denominator_degree + 1)]
    below = [mp.mpf(1)] * len(points)
    weights = [mp.mpf(1)] * len(points)
    best, best_error = None, mp.inf
    for iteration in range(N_ITERATIONS):
        row_scale = [mp.sqrt(w) / abs(s * q) for w, s, q in zip(weights, scales, below)]
        scaled = [[c * r for c, r in zip(column, row_scale)] for column in columns]
        right = [(v - k) * r for v, k, r in zip(values, known, row_scale)]
        n = len(scaled)
        normal = mp.matrix(n, n)
        for i in range(n):
            for j in range(i, n):
                normal[i, j] = normal[j, i] = mp.fdot(scaled[i], scaled[j])
        solution = list(mp.lu_solve(normal, mp.matrix([mp.fdot(column, right) for column in scaled])))
        n_free = degree + 1 - len(fixed)
        top, bottom = [*fixed, *solution[:n_free]], [mp.mpf(1), *solution[n_free:]]
        below = [mp.polyval(bottom[::-1], x) for x in points]
        errors = [abs(mp.polyval(top[::-1], x) / q - v) / s for x, q, v, s in zip(points, below, values, scales)]
        if max(errors) < best_error:
            best, best_error = (top, bottom), max(errors)
        if iteration >= 3 * bool(denominator_degree):  # the denominator settles first
            weights = [w * e for w, e in zip(weights, errors)]
            mean = mp.fsum(weights) / len(weights)
            weights = [w / mean for w in weights]
    return best


def fit(function, scale, low, high, degree, denominator_degree, precision, exact_at_zero):
    """Rounded coefficients of P and of the monic Q. P is refitted after each rounding, which the rest then absorbs."""
    points = chebyshev_points(low, high, 12 * (degree + denominator_degree + 2))
    bottom = [mp.mpf(1)]
    if denominator_degree:
        start = [function(low)] if exact_at_zero else []
        _, bottom = lawson(function, scale, points, start, degree, denominator_degree)
        bottom = [rounded(c / bottom[-1], precision) for c in bottom]
    below = lambda x: mp.polyval(bottom[::-1], x)  # noqa: E731
    top = [rounded(function(low) * bottom[0], precision)] if exact_at_zero else []
    while len(top) <= degree:
        free, _ = lawson(lambda x: function(x) * below(x), lambda x: scale(x) * below(x), points, top, degree, 0)
        top.append(rounded(free[len(top)], precision))
    return top, bottom


def selected(name):
    return len(sys.argv) == 1 or any(word in name for word in sys.argv[1:])


def block(name, formula, precision, target, interval, degree, denominator_degree=0, exact_at_zero=False):
    """target: the fitted function and the scale of its error."""
    if not selected(name):
        return
    function, scale = target
    low, high = map(mp.mpf, interval)
    top, bottom = fit(function, scale, low, high, degree, denominator_degree, precision, exact_at_zero)
    dense = chebyshev_points(low, high, 1500)
    worst = max(abs(mp.polyval(top[::-1], x) / mp.polyval(bottom[::-1], x) - function(x)) / scale(x) for x in dense)
    print(f"// {precision} {name}: {formula}, error {mp.nstr(worst, 2)}")
    for coefficients in [top, bottom[:-1]] if denominator_degree else [top]:
        print("{" + ", ".join(literal(c, precision) for c in coefficients) + "};")
    print(flush=True)


def parts(name, value, precision, bits):
    """A number as a sum whose parts but the last have few bits, so that small integers times them are exact."""
    if not selected(name):
        return
    out = []
    for b in bits:
        quantum = mp.mpf(2) ** (mp.floor(mp.log(abs(value), 2)) + 1 - b)
        part = mp.nint(value / quantum) * quantum
        out.append(rounded(part, precision))
        value -= out[-1]
    print(f"// {precision} {name} in parts of {bits} bits, remainder {mp.nstr(value, 2)}")
    print(", ".join(float(p).hex() for p in out) + "\n", flush=True)


def factor(function, power, at_zero, rest=lambda x: 0):
    """(function(x) - rest(x)) / x^power, and the scale that makes its error relative to function."""

    def value(x):
        # Chebyshev points may miss 0 by a rounding, where the difference has no digits left.
        return (function(x) - rest(x)) / x**power if abs(x) > NEAR_ZERO else mp.mpf(at_zero)

    def scale(x):
        x = x if abs(x) > TINY else TINY
        return abs(function(x) / x**power)

    return value, scale


def in_square(target):
    return tuple(lambda u, f=f: f(mp.sqrt(u)) for f in target)


def itself(function):
    return function, function


NEAR_ZERO = mp.mpf("1e-20")
TINY = mp.mpf("1e-3")  # in scales that are infinite at 0
HALF_LN2 = mp.log(2) / 2
ROOT_HALF, ROOT_TWO = mp.sqrt(mp.mpf("0.5")), mp.sqrt(2)
# pi/2, and what the rounding of z / pi adds at the largest z
QUARTER_TURN = mp.mpf("1.5775")

EXPM1_OVER_R, _ = factor(mp.expm1, 1, 1)
EXP = EXPM1_OVER_R, lambda r: mp.exp(r) / max(abs(r), TINY)
EXPM1 = factor(mp.expm1, 2, 0.5, rest=lambda r: r)
LOG = factor(mp.log1p, 2, -0.5, rest=lambda f: f)
LOG1P = factor(mp.log1p, 1, 1)
ATANH = in_square(factor(lambda s: 2 * mp.atanh(s), 3, mp.mpf(2) / 3, rest=lambda s: 2 * s))
TANH = in_square(factor(mp.tanh, 1, 1))
TANH_HALF = in_square(factor(lambda r: mp.tanh(r / 2), 1, 0.5))
ERF = in_square(factor(mp.erf, 1, 2 / mp.sqrt(mp.pi)))
NORMAL_TAIL = itself(lambda y: mp.exp(y * y / 2) * mp.erfc(y / ROOT_TWO) / 2)
SINE = in_square((factor(mp.sin, 3, -mp.mpf(1) / 6, rest=lambda r: r)[0], lambda r: 1 / max(r, TINY) ** 2))
COSINE = in_square((factor(mp.cos, 2, -0.5, rest=lambda r: 1)[0], lambda r: 1 / max(r, TINY) ** 2))

if __name__ == "__main__":
    exponent = (-HALF_LN2, HALF_LN2)
    quarter = (0, QUARTER_TURN**2)

    parts("ln2", mp.log(2), "float", (15, 24))
    parts("pi_fused", mp.pi, "float", (24, 24))
    parts("pi_split", mp.pi, "float", (8, 9, 24))
    block("exp", "(e^r - 1) / r, |r| <= ln2/2, relative to e^r", "float", EXP, exponent, 4)
    block("expm1", "(e^r - 1 - r) / r^2, |r| <= ln2/2, relative to e^r - 1", "float", EXPM1, exponent, 4)
    block("log", "(log(1+f) - f) / f^2, sqrt(1/2) <= 1+f <= sqrt(2), relative to log(1+f)", "float", LOG,
          (ROOT_HALF - 1, ROOT_TWO - 1), 7)  # fmt: skip
    block("log1p_unit", "log(1+f) / f, 0 <= f <= 1, relative", "float", LOG1P, (0, 1), 8)
    block("tanh", "tanh(x) / x in x^2, x to 9.1, relative", "float", TANH, (0, mp.mpf("9.1") ** 2), 4, 4, True)
    block("erf", "erf(x) / x in x^2, x to 4, relative", "float", ERF, (0, 16), 5, 5)
    block("normal_tail", "e^(y^2/2) P(Z > y), y to 14.6, relative", "float", NORMAL_TAIL, (0, 14.6), 4, 5, True)
    block("sine", "(sin r - r) / r^3 in r^2, |r| <= 1.5775, relative to r", "float", SINE, quarter, 3)
    block("cosine", "(cos r - 1) / r^2 in r^2, |r| <= 1.5775, absolute", "float", COSINE, quarter, 3)

    block(
        "tanh_half", "tanh(r/2) / r in r^2, |r| <= ln2/2, relative", "double", TANH_HALF, (0, HALF_LN2**2), 2, 2, True
    )
    atanh = "(2 atanh(s) - 2 s) / s^3 in s^2, relative to 2 atanh(s), s to"
    parts("ln2", mp.log(2), "double", (41, 53))
    parts("pi_fused", mp.pi, "double", (53, 53))
    parts("pi_split", mp.pi, "double", (27, 28, 53))
    block("expm1", "(e^r - 1 - r) / r^2, |r| <= ln2/2, relative to e^r - 1", "double", EXPM1, exponent, 9)
    block("log", f"{atanh} 3 - sqrt(8)", "double", ATANH, (0, (3 - mp.sqrt(8)) ** 2), 6)
    block("log1p_unit", f"{atanh} 1/3", "double", ATANH, (0, mp.mpf(1) / 9), 9)
    block("erf_small", "erf(x) / x in x^2, x to 1/2, relative", "double", ERF, (0, 0.25), 8)
    block("normal_tail", "e^(y^2/2) P(Z > y), y to 38.8, relative", "double", NORMAL_TAIL, (0, 38.8), 9, 10, True)
    block("sine", "(sin r - r) / r^3 in r^2, |r| <= 1.5775, relative to r", "double", SINE, quarter, 6)
    block("cosine", "(cos r - 1) / r^2 in r^2, |r| <= 1.5775, absolute", "double", COSINE, quarter, 7)
