"""Slopes and curvatures of the activations, which gradients of gradients need: in NumPy, since no run takes them often.

At a kink the slope is that of the core, and the curvature 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from mfld import _core
from mfld.validation import FloatArray


def _logistic(z: FloatArray) -> FloatArray:
    e = np.exp(-np.abs(z))  # no overflow
    return np.asarray(np.where(z < 0, e, 1) / (1 + e))


def _normal(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distribution function and density of N(0, 1)."""
    fixed = [name for name, _, _ in _core.backend.readouts].index("fixed")
    erf = _core.Network(1, 1, False, list(_core.backend.activations).index("erf"), fixed, 1.0, 1.0)
    scaled = np.ascontiguousarray(z.reshape(-1, 1) / math.sqrt(2), z.dtype)
    values = _core.backend.neurons(erf, np.ones((1, 1), z.dtype), scaled, 1).reshape(z.shape)
    return np.asarray((1 + values) / 2), np.asarray(np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi))


def _tanh(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    t = np.tanh(z)
    return 1 - t**2, -2 * t * (1 - t**2)


def _sigmoid(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    s = _logistic(z)
    return s * (1 - s), s * (1 - s) * (1 - 2 * s)


def _softplus(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    s = _logistic(z)
    return s, s * (1 - s)


def _erf(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    slope = 2 / math.sqrt(math.pi) * np.exp(-(z**2))
    return slope, -2 * z * slope


def _gelu(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    below, density = _normal(z)
    return below + z * density, density * (2 - z**2)


def _silu(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    s = _logistic(z)
    return s * (1 + z * (1 - s)), s * (1 - s) * (2 + z * (1 - 2 * s))


SLOPES: Final[dict[str, Callable[[FloatArray], tuple[FloatArray, FloatArray]]]] = {
    "tanh": _tanh,
    "relu": lambda z: (np.where(z > 0, 1, 0).astype(z.dtype), np.zeros_like(z)),
    "leaky_relu": lambda z: (np.where(z > 0, 1, 0.01).astype(z.dtype), np.zeros_like(z)),
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "erf": _erf,
    "gelu": _gelu,
    "silu": _silu,
    "sin": lambda z: (np.cos(z), -np.sin(z)),
    "cos": lambda z: (-np.sin(z), -np.cos(z)),
    "identity": lambda z: (np.ones_like(z), np.zeros_like(z)),
}
"""Slope and curvature of each activation, functions of the pre-activation."""
