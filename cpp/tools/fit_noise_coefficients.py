"""Prints the polynomial coefficients in mfld/noise.hpp, each block with its achieved error.

Each block is the minimax polynomial (Remez exchange in multiple precision) of a smooth function, then rounded to the
precision it is used in. The error printed is that of the rounded coefficients in exact arithmetic: the kernels add the
roundings of their evaluation.

    python fit_noise_coefficients.py        # needs mpmath
"""

import struct

import mpmath as mp

mp.mp.dps = 50


def remez(function, low, high, degree, scale, n_iterations=12):
    """Coefficients, lowest first, of the polynomial with the smallest maximal |P - function| / scale on [low, high]."""
    n = degree + 2
    nodes = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * i / (n - 1)) for i in range(n)]
    for _ in range(n_iterations):
        # P(x_i) + (-1)^i E scale(x_i) = function(x_i)
        system = mp.matrix(n, n)
        for i, x in enumerate(nodes):
            for k in range(degree + 1):
                system[i, k] = x**k
            system[i, degree + 1] = (-1) ** i * scale(x)
        solution = mp.lu_solve(system, mp.matrix([function(x) for x in nodes]))
        coefficients = [solution[k] for k in range(degree + 1)]
        nodes = extrema(lambda x: abs(error(function, coefficients, scale, x)), low, high, nodes)
    return coefficients


def error(function, coefficients, scale, x):
    return (mp.polyval(coefficients[::-1], x) - function(x)) / scale(x)


def extrema(size, low, high, nodes):
    """The ends of the interval and, for each interior node, the largest error between its neighbours."""
    moved = [low]
    for left, right in zip(nodes[:-2], nodes[2:]):
        for _ in range(30):  # ternary search: the error has one extremum there once the nodes are nearly right
            a, b = left + (right - left) * mp.mpf("0.4"), left + (right - left) * mp.mpf("0.6")
            if size(a) < size(b):
                left = a
            else:
                right = b
        moved.append((left + right) / 2)
    return [*sorted(moved), high]


def rounded(value, precision):
    if precision == "float":
        return mp.mpf(struct.unpack("f", struct.pack("f", float(value)))[0])
    return mp.mpf(float(value))


def literal(value, precision):
    return f"{float(value):.9g}f" if precision == "float" else f"{float(value):.17g}"


def block(name, formula, precision, function, high, degree, scale=None):
    """Fits on [0, high]; the error is relative unless `scale` says otherwise."""
    low, high = mp.mpf(0), mp.mpf(high)
    scale = scale or function
    coefficients = [rounded(c, precision) for c in remez(function, low, high, degree, scale)]
    samples = [high * mp.mpf(i) / 2000 for i in range(2001)]
    worst = max(abs(error(function, coefficients, scale, x)) for x in samples)
    print(f"{precision} {name}: {formula}, {'relative' if scale is function else 'absolute'} error {mp.nstr(worst, 2)}")
    print("  " + ", ".join(literal(c, precision) for c in coefficients) + "\n")


def log_factor(x):
    """-2 ln(1-x) / x."""
    return mp.mpf(2) if x == 0 else -2 * mp.log1p(-x) / x


def atanh_factor(square):
    """4 atanh(s) / s, at s^2."""
    s = mp.sqrt(square)
    return mp.mpf(4) if s == 0 else 4 * mp.atanh(s) / s


def sine_factor(square):
    """sin(pi t) / t, at t^2."""
    t = mp.sqrt(square)
    return mp.pi if t == 0 else mp.sin(mp.pi * t) / t


def cosine(square):
    """cos(pi t), at t^2. It is zero at the end of the interval, so its error is taken absolute."""
    return mp.cos(mp.pi * mp.sqrt(square))


if __name__ == "__main__":
    for precision, degree in ("float", 4), ("double", 8):
        if precision == "float":
            block("log", "-2 ln(1-x) / x, x to 1/2", precision, log_factor, "0.5", 8)
        else:
            block("atanh", "4 atanh(s) / s in s^2, s to 1/3", precision, atanh_factor, mp.mpf(1) / 9, 9)
        block("sine", "sin(pi t) / t in t^2, t to 1/2", precision, sine_factor, "0.25", degree)
        block("cosine", "cos(pi t) in t^2, t to 1/2", precision, cosine, "0.25", degree, scale=lambda x: mp.mpf(1))
