"""Kernels that the compiled core sums."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from mfld import _core
from mfld.kernels.base import Kernel, times
from mfld.kernels.pairwise import SteinSums
from mfld.validation import FloatArray


@functools.lru_cache(maxsize=256)
def pair_kernel(
    name: str, parameter: float, inverse_scales: tuple[float, ...], coefficients: tuple[float, ...]
) -> _core.PairKernel:
    return _core.PairKernel(name, parameter, list(inverse_scales), list(coefficients))


class Native(NamedTuple):
    """A kernel as the core takes it, and the factor of what it gives."""

    kernel: _core.PairKernel
    amplitude: float


def in_core(kernel: Kernel, n_coordinates: int) -> Native | None:
    """A kernel as the core takes it; None where the core does not know it."""
    native = getattr(kernel, "native", None)
    found: Native | None = None if native is None else native(n_coordinates)
    return found


class InCore(Kernel):
    """A kernel that the compiled core may know."""

    def native(self, n_coordinates: int) -> Native | None:
        """This kernel as the compiled core takes it; None where the core does not know it."""
        return None

    def sums_of(
        self, x: FloatArray, y: FloatArray, w: FloatArray | None, with_gradient: bool, num_threads: int
    ) -> tuple[FloatArray, FloatArray | None]:
        native = self.native(x.shape[1])
        if native is None:
            return super().sums_of(x, y, w, with_gradient, num_threads)
        values, gradient = _core.backend.pair_sums(native.kernel, x, y, w, with_gradient, num_threads)
        return times(native.amplitude, values), times(native.amplitude, gradient)

    def field_of(
        self, x: FloatArray, y: FloatArray, s: FloatArray, w: FloatArray | None, repulsion: float, num_threads: int
    ) -> FloatArray:
        native = self.native(x.shape[1])
        if native is None:
            return super().field_of(x, y, s, w, repulsion, num_threads)
        field = _core.backend.pair_pull_back(native.kernel, x, y, s, w, repulsion, num_threads)
        return np.asarray(times(native.amplitude, field))

    def stein_of(
        self,
        x: FloatArray,
        s: FloatArray,
        y: FloatArray,
        t: FloatArray,
        w: FloatArray | None,
        with_gradient: bool,
        num_threads: int,
    ) -> SteinSums:
        native = self.native(x.shape[1])
        if native is None:
            return super().stein_of(x, s, y, t, w, with_gradient, num_threads)
        found = _core.backend.pair_stein(native.kernel, x, s, y, t, w, with_gradient, num_threads)
        return SteinSums._make(times(native.amplitude, part) for part in found)
