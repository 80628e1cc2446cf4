"""Print the constant blocks of cpp/include/mfld/math.hpp, each with the error it achieves.

    python cpp/tools/fit_coefficients.py          (needs mpmath and numpy)

Polynomials interpolate at Chebyshev nodes in 40 digits, which is within a small factor of minimax; the one rational function is
fitted by Lawson's reweighting of a linearised least-squares problem.
"""

import mpmath as mp
import numpy as np

mp.mp.dps = 40


def polynomial(function, low, high, degree):
    """Coefficients, lowest power first, of the interpolant at the Chebyshev nodes of [low, high]."""
    low, high = mp.mpf(low), mp.mpf(high)
    nodes = [
        (low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (2 * k + 1) / (2 * degree + 2)) for k in range(degree + 1)
    ]
    matrix = mp.matrix([[node**j for j in range(degree + 1)] for node in nodes])
    return list(mp.lu_solve(matrix, mp.matrix([function(node) for node in nodes])))


def horner(coefficients, x):
    value = mp.mpf(0)
    for c in reversed(coefficients):
        value = value * x + c
    return value


def report(name, coefficients, precision, error):
    print(f"// {name}: error {mp.nstr(error, 2)}")
    if precision == "float":
        literals = [f"{np.float32(float(c)):.9g}" for c in coefficients]
        literals = [text + ("f" if "." in text or "e" in text else ".0f") for text in literals]
    else:
        literals = [mp.nstr(c, 17) for c in coefficients]
    print("{" + ", ".join(literals) + "}")


def relative_error(approximation, exact, low, high, points=400):
    grid = [mp.mpf(low) + (mp.mpf(high) - mp.mpf(low)) * (k + mp.mpf(1) / 2) / points for k in range(points)]
    return max(abs(approximation(x) / exact(x) - 1) for x in grid)


def exponential(x):
    """(e^x - 1 - x) / x^2"""
    return (
        mp.mpf(1) / 2
        if x == 0
        else (mp.expm1(x) - x) / x**2
        if abs(x) > mp.mpf("1e-6")
        else mp.mpf(1) / 2 + x / 6 + x * x / 24
    )


def logarithm(t):
    """(log(1 + f) - 2 s) / s^3 at t = s^2, s = f / (2 + f); that is 2 (atanh(s) - s) / s^3"""
    s = mp.sqrt(t)
    return 2 * (mp.atanh(s) - s) / s**3


def sine(t):
    r = mp.sqrt(t)
    return (mp.sin(r) - r) / r**3


def cosine(t):
    r = mp.sqrt(t)
    return (mp.cos(r) - 1 + t / 2) / t**2


def error_function(t):
    x = mp.sqrt(t)
    return mp.erf(x) / x


def scaled_tail(centre):
    """x -> the variable y in [-1, 1] of erfc(x) exp(x^2) / t, t = 1 / (1 + x / centre), y = 2 t - 1"""

    def function(y):
        t = (y + 1) / 2
        if t < mp.mpf("1e-3"):  # erfc(x) exp(x^2) ~ (1 - 1/(2 x^2) + 3/(4 x^4) - ...) / (x sqrt(pi))
            x = centre * (1 - t) / t if t != 0 else mp.inf
            if t == 0:
                return 1 / (centre * mp.sqrt(mp.pi))
            series = sum((-1) ** k * mp.fac2(2 * k - 1) / (2 * x * x) ** k for k in range(6))
            return series / (x * mp.sqrt(mp.pi)) / t
        x = centre * (1 - t) / t
        return mp.erfc(x) * mp.exp(x * x) / t

    return function


def rational_tanh(top, p_degree, q_degree):
    """tanh(x) / x ~ P(x^2) / Q(x^2), Q(0) = 1, on 0..top, minimax in the relative error."""
    u = (1 - np.cos(np.linspace(0, np.pi, 6001)[1:])) / 2 * top
    t = (u / top) ** 2
    f = np.tanh(u.astype(np.longdouble)).astype(float) / u
    weight, q = np.ones_like(t), np.ones_like(t)
    best = (np.inf, None)
    for _ in range(400):
        rows = np.concatenate(
            [t[:, None] ** np.arange(p_degree + 1), -f[:, None] * t[:, None] ** np.arange(1, q_degree + 1)], axis=1
        )
        scale = np.sqrt(weight) / (q * f)
        solution = np.linalg.lstsq(rows * scale[:, None], f * scale, rcond=None)[0]
        p_values = t[:, None] ** np.arange(p_degree + 1) @ solution[: p_degree + 1]
        q = 1 + t[:, None] ** np.arange(1, q_degree + 1) @ solution[p_degree + 1 :]
        error = np.abs(p_values / q / f - 1)
        if error.max() < best[0]:
            best = (error.max(), solution)
        weight *= error / error.max() + 1e-3
        weight /= weight.sum()
    p = best[1][: p_degree + 1] / top ** (2 * np.arange(p_degree + 1))
    q = np.concatenate([[1.0], best[1][p_degree + 1 :] / top ** (2 * np.arange(1, q_degree + 1))])
    return p, q, best[0]


def main():
    half_ln2 = mp.log(2) / 2 * mp.mpf("1.0001")
    for precision, degree in (("float", 4), ("double", 9)):
        c = polynomial(exponential, -half_ln2, half_ln2, degree)
        report(
            f"exp {precision}: e^r = 1 + r + r^2 E(r), |r| <= ln(2)/2",
            c,
            precision,
            relative_error(lambda x, c=c: 1 + x + x * x * horner(c, x), mp.exp, -half_ln2, half_ln2),
        )
    top = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 * mp.mpf("1.001")
    for precision, degree in (("float", 2), ("double", 6)):
        c = polynomial(logarithm, mp.mpf("1e-12"), top, degree)
        report(
            f"log {precision}: log(1+f) = 2 s + s^3 L(s^2), s = f/(2+f), f in sqrt(1/2)-1 .. sqrt(2)-1",
            c,
            precision,
            relative_error(
                lambda t, c=c: 2 * mp.sqrt(t) + mp.sqrt(t) ** 3 * horner(c, t),
                lambda t: 2 * mp.atanh(mp.sqrt(t)),
                0,
                top,
            ),
        )
    top = (mp.pi / 4) ** 2 * mp.mpf("1.001")
    for precision, degree in (("float", 2), ("double", 5)):
        c = polynomial(sine, mp.mpf("1e-12"), top, degree)
        report(
            f"sin {precision}: r + r^3 S(r^2), |r| <= pi/4",
            c,
            precision,
            relative_error(lambda t, c=c: mp.sqrt(t) * (1 + t * horner(c, t)), lambda t: mp.sin(mp.sqrt(t)), 0, top),
        )
        c = polynomial(cosine, mp.mpf("1e-12"), top, degree)
        report(
            f"cos {precision}: 1 - r^2/2 + r^4 C(r^2), |r| <= pi/4",
            c,
            precision,
            relative_error(lambda t, c=c: 1 - t / 2 + t * t * horner(c, t), lambda t: mp.cos(mp.sqrt(t)), 0, top),
        )
    for precision, degree in (("float", 5), ("double", 11)):
        c = polynomial(error_function, mp.mpf("1e-14"), 1, degree)
        report(
            f"erf {precision}: x P(x^2), |x| <= 1",
            c,
            precision,
            relative_error(lambda t, c=c: horner(c, t), error_function, 0, 1),
        )
    for precision, degree, centre in (("float", 8, mp.mpf("2.0")), ("double", 20, mp.mpf("2.5"))):
        tail = scaled_tail(centre)
        high = 2 / (1 + 1 / centre) - 1  # x = 1
        c = polynomial(tail, -1, high, degree)
        report(
            f"erfc {precision}: erfc(x) = exp(-x^2) t C(y), t = 1/(1 + x/{centre}), y = 2 t - 1, x >= 1",
            c,
            precision,
            relative_error(lambda y, c=c: horner(c, y), tail, mp.mpf("-0.999"), high),
        )
    p, q, error = rational_tanh(9.0, 5, 3)
    report("tanh float: x P(x^2)/Q(x^2), |x| <= 9; P", p, "float", error)
    report("Q", q, "float", error)


if __name__ == "__main__":
    main()
