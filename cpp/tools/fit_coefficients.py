"""Prints the constants of mfld/math.hpp, each block with its achieved error.

Every block is a weighted minimax fit, found by Lawson's iteration: least squares whose weights grow where the error is large.
A rational P/Q is linearised as P - f Q with the last Q as a further weight (Sanathanan-Koerner); Q is monic and printed
without its leading 1. The error printed is that of the coefficients rounded to their precision, relative to the function the
library returns, in exact arithmetic: the kernels add rounding alone.

    python fit_coefficients.py            # all blocks, about a minute; needs mpmath and numpy
    python fit_coefficients.py exp tanh   # blocks whose name contains a word
"""

import sys

import mpmath as mp
import numpy as np

mp.mp.dps = 50
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


def block(name, formula, precision, function, scale, low, high, degree, denominator_degree=0, exact_at_zero=False):
    if len(sys.argv) > 1 and not any(word in name for word in sys.argv[1:]):
        return
    low, high = mp.mpf(low), mp.mpf(high)
    top, bottom = fit(function, scale, low, high, degree, denominator_degree, precision, exact_at_zero)
    dense = chebyshev_points(low, high, 1500)
    worst = max(abs(mp.polyval(top[::-1], x) / mp.polyval(bottom[::-1], x) - function(x)) / scale(x) for x in dense)
    print(f"// {precision} {name}: {formula}, error {mp.nstr(worst, 2)}")
    for coefficients in [top, bottom[:-1]] if denominator_degree else [top]:
        print("{" + ", ".join(literal(c, precision) for c in coefficients) + "};")
    print(flush=True)


def parts(name, value, precision, bits):
    """A number as a sum whose parts but the last have few bits, so that small integers times them are exact."""
    if len(sys.argv) > 1 and not any(word in name for word in sys.argv[1:]):
        return
    out = []
    for b in bits:
        quantum = mp.mpf(2) ** (mp.floor(mp.log(abs(value), 2)) + 1 - b)
        part = mp.nint(value / quantum) * quantum
        out.append(rounded(part, precision))
        value -= out[-1]
    print(f"// {precision} {name} in parts of {bits} bits, remainder {mp.nstr(value, 2)}")
    print(", ".join(float(p).hex() for p in out) + "\n", flush=True)


def removable(function, at_zero):
    return lambda x: function(x) if x else mp.mpf(at_zero)


def in_square(function):
    return lambda u: function(mp.sqrt(u))


def one(_):
    return mp.mpf(1)


half_ln2 = mp.log(2) / 2
# (e^r - 1) / r, the error relative to e^r; and (e^r - 1 - r) / r^2, the error relative to e^r - 1
exp_linear = removable(lambda r: mp.expm1(r) / r, 1)
exp_linear_scale = lambda r: mp.exp(r) / max(abs(r), mp.mpf("1e-3"))  # noqa: E731
exp_square = lambda r: mp.hyp1f1(1, 3, r) / 2  # noqa: E731
exp_square_scale = lambda r: 1 / max(abs(r), mp.mpf("1e-3")) * exp_linear(r)  # noqa: E731
# (log(1+f) - f) / f^2, the error relative to log(1+f)
log_square = removable(lambda f: (mp.log1p(f) - f) / f**2, -0.5)
log_linear = removable(lambda f: mp.log1p(f) / f, 1)
log_square_scale = lambda f: log_linear(f) / max(abs(f), mp.mpf("1e-3"))  # noqa: E731
# (2 atanh(s) - 2 s) / s^3 at s^2, the error relative to 2 atanh(s)
atanh_cube = removable(in_square(lambda s: (2 * mp.atanh(s) - 2 * s) / s**3), mp.mpf(2) / 3)
atanh_cube_scale = lambda u: 2 / max(u, mp.mpf("1e-4"))  # noqa: E731
tanh_linear = removable(in_square(lambda x: mp.tanh(x) / x), 1)
erf_linear = removable(in_square(lambda x: mp.erf(x) / x), 2 / mp.sqrt(mp.pi))
mills = lambda y: mp.sqrt(mp.pi / 2) * mp.erfc(y / mp.sqrt(2)) * mp.exp(y * y / 2)  # noqa: E731
sine_cube = removable(in_square(lambda r: (mp.sin(r) - r) / r**3), -mp.mpf(1) / 6)
sine_cube_scale = lambda u: 1 / max(u, mp.mpf("1e-4"))  # noqa: E731
cosine_square = removable(in_square(lambda r: (mp.cos(r) - 1) / r**2), -0.5)
cosine_square_scale = lambda u: 1 / max(u, mp.mpf("1e-4"))  # noqa: E731

if __name__ == "__main__":
    root_half, root_two = mp.sqrt(mp.mpf("0.5")), mp.sqrt(2)
    quarter_square = mp.mpf("1.5775") ** 2  # pi/2 and what the rounding of z / pi adds at the largest z
    for precision, expm1_degree, sine_degree, cosine_degree in [("float", 4, 3, 3), ("double", 9, 6, 7)]:
        is_float = precision == "float"
        parts("ln2", mp.log(2), precision, (15, 24) if is_float else (41, 53))
        parts("pi_fused", mp.pi, precision, (24, 24) if is_float else (53, 53))
        parts("pi_split", mp.pi, precision, (8, 9, 24) if is_float else (27, 28, 53))
        if is_float:
            block("exp", "(e^r - 1) / r, |r| <= ln2/2, relative to e^r", precision, exp_linear, exp_linear_scale,
                  -half_ln2, half_ln2, 4)  # fmt: skip
        block("expm1", "(e^r - 1 - r) / r^2, |r| <= ln2/2, relative to e^r - 1", precision, exp_square, exp_square_scale,
              -half_ln2, half_ln2, expm1_degree)  # fmt: skip
        if is_float:
            block("log", "(log(1+f) - f) / f^2, sqrt(1/2) <= 1+f <= sqrt(2), relative to log(1+f)", precision, log_square,
                  log_square_scale, root_half - 1, root_two - 1, 7)  # fmt: skip
            block("log1p_unit", "log(1+f) / f, 0 <= f <= 1, relative", precision, log_linear, log_linear, 0, 1, 8)
            block("tanh", "tanh(x) / x in x^2, x to 9.1, relative", precision, tanh_linear, tanh_linear, 0,
                  mp.mpf("9.1") ** 2, 4, 4, exact_at_zero=True)  # fmt: skip
            block("erf", "erf(x) / x in x^2, x to 4, relative", precision, erf_linear, erf_linear, 0, 16, 5, 5)
            block("mills", "Mills ratio of the normal distribution, y to 14.6, relative", precision, mills, mills, 0,
                  mp.mpf("14.6"), 4, 5)  # fmt: skip
        else:
            block("log", "(2 atanh(s) - 2 s) / s^3 in s^2, s to 3 - sqrt(8), relative to 2 atanh(s)", precision, atanh_cube,
                  atanh_cube_scale, 0, (3 - mp.sqrt(8)) ** 2, 6)  # fmt: skip
            block("log1p_unit", "(2 atanh(s) - 2 s) / s^3 in s^2, s to 1/3, relative to 2 atanh(s)", precision, atanh_cube,
                  atanh_cube_scale, 0, mp.mpf(1) / 9, 9)  # fmt: skip
            block(
                "erf_small",
                "erf(x) / x in x^2, x to 1/2, relative",
                precision,
                erf_linear,
                erf_linear,
                0,
                mp.mpf("0.25"),
                8,
            )
            block("mills", "Mills ratio of the normal distribution, y to 38.8, relative", precision, mills, mills, 0,
                  mp.mpf("38.8"), 9, 10)  # fmt: skip
        block("sine", "(sin r - r) / r^3 in r^2, |r| <= 1.5775, relative to r", precision, sine_cube, sine_cube_scale,
              0, quarter_square, sine_degree)  # fmt: skip
        block("cosine", "(cos r - 1) / r^2 in r^2, |r| <= 1.5775, absolute", precision, cosine_square, cosine_square_scale,
              0, quarter_square, cosine_degree)  # fmt: skip
