"""Products of bfloat16 in the steps of a float32 run: what ``MFLD(dtype="bfloat16")`` asks of processor and data.

Particles, noise, activations and all sums stay float32. The factors of the two products that cost nearly all of a wide
step are rounded to bfloat16, float32 with 8 bits of its 24, to nearest and ties to even: data once, before the first
step; weights and the gains of the pull back anew at each step. A processor with AVX-512 BF16 multiplies them twice as
fast.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mfld import _core, validation
from mfld.validation import FloatArray

_ROWS = 1 << 22  # values that are rounded in one go
_SMALLEST = np.float32(2.0**-126)  # what is below is 0 to the processor
_MOST_LOST = 0.1  # by rounding, of the standard deviation of a column


def missing() -> str | None:
    """Reason why this machine has no products of bfloat16, in words; None where it has them.

    Examples
    --------
    >>> import mfld
    >>> from mfld import bfloat16
    >>> (bfloat16.missing() is None) == mfld.show_config(mode="dicts")["bfloat16"]
    True
    """
    if _core.backend.has_bfloat16:
        return None
    if not _core.processor_has_bfloat16:
        return "this processor lacks avx512_bf16"
    return f"the level {_core.backend.isa} of the kernels has none, only v4 and native have"


def pairs(inputs: FloatArray) -> NDArray[np.uint32]:
    """Inputs as the core multiplies them: words of two neighbouring features, the first of them in the low half.

    Parameters
    ----------
    inputs : ndarray, shape (n, d)

    Returns
    -------
    ndarray, shape (n, ceil(d / 2)), uint32
        Half of the memory of float32. An odd last feature has a 0 beside it. What is below 2^-126 in size is 0, as
        the processor takes it.

    Raises
    ------
    ValueError
        If a number is beyond bfloat16, or rounding changes a column by more than a tenth of its standard deviation
        (root mean square): one that is too far from 0 for its spread.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.bfloat16 import pairs
    >>> [hex(word) for word in pairs(np.array([[1.0, -2.0, 1.0 + 2.0**-8]]))[0]]
    ['0xc0003f80', '0x3f80']
    """
    n, d = inputs.shape
    halves = np.zeros((n, d + d % 2), np.uint16)
    origin = inputs[0].astype(np.float32).astype(np.float64)
    offsets, squares, errors = np.zeros(d), np.zeros(d), np.zeros(d)
    at_once = max(1, _ROWS // d)
    for first in range(0, n, at_once):
        rows = np.s_[first : first + at_once]
        some = validation.array("inputs", inputs[rows], np.float32)
        words = some.view(np.uint32)
        words = words + (np.uint32(0x7FFF) + ((words >> np.uint32(16)) & np.uint32(1)))
        rounded = (words & np.uint32(0xFFFF0000)).view(np.float32)
        rounded[np.abs(rounded) < _SMALLEST] = 0.0
        halves[rows, :d] = rounded.view(np.uint32) >> np.uint32(16)
        if not np.isfinite(rounded).all():
            raise ValueError(f"inputs must be at most 3.38e38 in size for bfloat16, got {np.abs(some).max():g}")
        offset = some - origin
        offsets += offset.sum(axis=0)
        squares += np.square(offset).sum(axis=0)
        errors += np.square(rounded - some, dtype=np.float64).sum(axis=0)
    variances = np.maximum(squares / n - (offsets / n) ** 2, 0.0)
    lost = np.flatnonzero((errors / n > _MOST_LOST**2 * variances) & (variances > 0))
    if len(lost):
        j = int(lost[0])
        share = float(np.sqrt(errors[j] / n / variances[j]))
        raise ValueError(
            f"inputs must be near 0 for their spread in bfloat16, which has 8 bits: rounding changes column {j} by "
            f"{share:.0%} of its standard deviation. Standardise them, or run with dtype='float32'"
        )
    return halves.view(np.uint32)
