"""Schemes for the equation of a state, with their exact transposes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from mfld.validation import FloatArray


class Scheme(NamedTuple):
    """Explicit Runge-Kutta scheme: stage i is at time ``c_i``, reached along ``a_ij``; a step takes the mean ``b``.

    ::

        x_i = x + h sum_{j < i} a_ij f_j(x_j),    x' = x + h sum_i b_i f_i(x_i)

    and its transpose, which is the derivative of the step to the bit of the arithmetic, whatever h:

    ::

        g_i = h b_i p' + h sum_{j > i} a_ji Df_j(x_j)^T g_j,    p = p' + sum_i Df_i(x_i)^T g_i
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int

    def step(self, x: FloatArray, h: float, rate: Callable[[int, FloatArray], FloatArray]) -> FloatArray:
        """State after a step of length h from x; ``rate(i, x_i)`` is that of stage i, which are asked in order."""
        rates: list[FloatArray] = []
        after = x
        for i, b in enumerate(self.b):
            at = x
            for share, earlier in zip(self.a[i], rates, strict=True):
                at = at + h * share * earlier if share else at
            rates.append(rate(i, at))
            after = after + h * b * rates[i]
        return after

    def pull_back(self, adjoint: FloatArray, h: float, pull: Callable[[int, FloatArray], FloatArray]) -> FloatArray:
        """Cotangent p of the state before a step, from that of the state after it, p'.

        ``pull(i, g_i)`` is ``Df_i(x_i)^T g_i`` of stage i; the last stage is asked first.
        """
        n = len(self.b)
        reached: dict[int, FloatArray] = {}
        before = adjoint
        for i in reversed(range(n)):
            g = h * self.b[i] * adjoint
            for later in range(i + 1, n):
                share = self.a[later][i]
                g = g + h * share * reached[later] if share else g
            reached[i] = pull(i, g)
            before = before + reached[i]
        return before


SCHEMES: Final[dict[str, Scheme]] = {
    "euler": Scheme(((),), (1.0,), (0.0,), 1),
    "midpoint": Scheme(((), (0.5,)), (0.0, 1.0), (0.0, 0.5), 2),
    "rk4": Scheme(((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), (0.0, 0.5, 0.5, 1.0), 4),
}
"""Schemes by their names."""
