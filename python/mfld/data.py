"""Sources of samples: finite rows, or a stream that is a pure function of the step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import bfloat16, validation
from mfld.validation import FloatArray, FloatDType

_LARGEST = 1e18  # of targets in float32


class Samples(NamedTuple):
    """Inputs, targets and sample weights in one precision; weights None stand for 1/n each."""

    inputs: FloatArray
    targets: FloatArray
    weights: FloatArray | None


class Rows:
    """Finitely many samples, read-only: the arrays of a risk.

    Parameters
    ----------
    inputs : ndarray, shape (n, n_features)
    targets : ndarray, shape (n, n_columns)
    sample_weight : array_like, shape (n,), optional
        At least 0; normalised to sum 1. Default: 1/n each.

    Raises
    ------
    TypeError, ValueError
        If an array is of the wrong kind or shape, or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.data import Rows
    >>> rows = Rows(np.zeros((4, 2)), np.zeros((4, 1)), sample_weight=[1, 1, 0, 2])
    >>> part, share = rows.take(np.array([0, 3]))
    >>> len(part), share
    (2, 0.75)
    """

    def __init__(self, inputs: FloatArray, targets: FloatArray, sample_weight: ArrayLike | None = None) -> None:
        validation.shape("inputs", inputs, ("n", "d"), "(samples, features)")
        validation.shape("targets", targets, ("n", "C"), "(samples, columns)")
        n = len(inputs)
        if len(targets) != n:
            raise ValueError(f"targets must have {n} rows to match inputs, got {len(targets)}")
        weights = None
        if sample_weight is not None:
            weights = validation.weights("sample_weight", sample_weight, (n,), "to match inputs", np.float64)
            weights.flags.writeable = False
        self.samples = Samples(validation.frozen(inputs), validation.frozen(targets), weights)
        self._casts: dict[str, Samples] = {}

    def __repr__(self) -> str:
        inputs, targets, weights = self.samples
        sizes = ((len(inputs), "sample"), (inputs.shape[1], "feature"), (targets.shape[1], "target column"))
        counts = [f"{n} {name}{'s' if n > 1 else ''}" for n, name in sizes]
        return f"Rows({', '.join(counts)}{'' if weights is None else ', weighted'})"

    def __len__(self) -> int:
        return len(self.samples.inputs)

    def __getstate__(self) -> dict[str, FloatArray | None]:
        return self.samples._asdict()  # casts are made again, and are no part of what the rows are

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.samples, self._casts = Samples(**state), {}

    def cast(self, dtype: FloatDType) -> Samples:
        """The samples in a precision, kept for the next time; those that stay on disk have the one they have there.

        Raises
        ------
        ValueError
            If that precision does not hold the samples, or the squares of the targets.
        """
        if dtype.char not in self._casts:
            inputs = _in_precision("inputs", self.samples.inputs, dtype)
            self._casts[dtype.char] = Samples(inputs, *self._cast_labels(dtype))
        return self._casts[dtype.char]

    def in_pairs(self) -> Samples:
        """As `cast` to float32, but for inputs that are rounded: the words of `mfld.bfloat16.pairs`.

        Raises
        ------
        ValueError
            If that does not hold the samples, or they stay on disk.
        """
        if "bfloat16" not in self._casts:
            inputs = self.samples.inputs
            if validation.mapped(inputs) is not None:
                raise ValueError("inputs must be in memory for dtype='bfloat16', got a file that is mapped")
            words: Any = bfloat16.pairs(inputs)
            words.flags.writeable = False
            self._casts["bfloat16"] = Samples(words, *self._cast_labels(np.dtype(np.float32)))
        return self._casts["bfloat16"]

    def _cast_labels(self, dtype: FloatDType) -> tuple[FloatArray, FloatArray | None]:
        """Targets and weights in a precision."""
        _, targets, weights = self.samples
        if dtype.char == "f" and validation.mapped(targets) is None and np.abs(targets).max(initial=0) > _LARGEST:
            raise ValueError(
                f"targets must be at most {_LARGEST:g} in size for float32, in which their squares overflow, got "
                f"{np.abs(targets).max():g}: scale them, or run with dtype='float64'"
            )
        return _in_precision("targets", targets, dtype), None if weights is None else weights.astype(dtype)

    @functools.cached_property
    def largest_input(self) -> float:
        """Size of the largest input; 0, which is no bound, of those on disk."""
        inputs = self.samples.inputs
        if validation.mapped(inputs) is not None:
            return 0.0
        return float(max(inputs.max(initial=0), -inputs.min(initial=0)))

    @functools.cached_property
    def sizes(self) -> NDArray[np.float64]:
        """Squared lengths of the inputs times n and the weight of each sample."""
        inputs, _, weights = self.samples
        sizes: NDArray[np.float64] = np.einsum("id,id->i", inputs, inputs, dtype=np.float64)
        return sizes if weights is None else sizes * weights * len(self)

    def take(self, rows: NDArray[np.int64], factors: NDArray[np.float64] | None = None) -> tuple[Rows, float]:
        """Some of the samples, their weights times factors, and the sum of these: their share."""
        inputs, targets, weights = self.samples
        if weights is None and factors is None:
            return Rows(inputs[rows], targets[rows]), len(rows) / len(self)
        taken = np.full(len(rows), 1 / len(self)) if weights is None else weights[rows]
        if factors is not None:
            taken = taken * factors
        share = float(taken.sum())
        return Rows(inputs[rows], targets[rows], taken if share else None), share


def _in_precision(name: str, values: FloatArray, dtype: FloatDType) -> FloatArray:
    if values.dtype == dtype:
        return values  # known to be finite
    if validation.mapped(values) is not None:
        raise ValueError(f"{name} must be {dtype} on disk for what is computed in this precision, got {values.dtype}")
    return validation.array(name, values, dtype)


class Stream:
    """Samples without end, of which each step sees some.

    Parameters
    ----------
    sample : callable
        ``sample(step, n_rows) -> (inputs, targets)``: n_rows samples of a step, counted from 0. It must be a pure
        function, so that a run that is continued, or repeated, sees the same samples. Random samples are best drawn
        from `mfld.noise` with the stream ``data``, which no run uses. One that has a method ``steps(first, n_steps,
        n_rows)``, the samples of several steps one after the other, is asked for many at once.
    capacity : int, optional
        Most samples that an algorithm may keep, which `PDA` does.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.data import Stream
    >>> stream = Stream(lambda step, n_rows: (np.full((n_rows, 1), float(step)), np.zeros(n_rows)))
    >>> inputs, targets = stream.batch(step=3, n_rows=2)
    >>> inputs.tolist()
    [[3.0], [3.0]]
    """

    def __init__(self, sample: Callable[[int, int], tuple[ArrayLike, ArrayLike]], capacity: int | None = None) -> None:
        validation.function("sample", sample)
        self.sample = sample
        self.capacity = None if capacity is None else validation.integer("capacity", capacity, 1)

    def __repr__(self) -> str:
        kept = "" if self.capacity is None else f", capacity={self.capacity}"
        return f"Stream({getattr(self.sample, '__name__', repr(self.sample))}{kept})"

    def batch(self, step: int, n_rows: int) -> tuple[ArrayLike, ArrayLike]:
        """Inputs and targets of a step, as the function returns them.

        Raises
        ------
        TypeError, ValueError
            If an argument is out of range, or what ``sample`` returns is no pair.
        """
        step, n_rows = validation.integer("step", step, 0), validation.integer("n_rows", n_rows, 1)
        returned = self.sample(step, n_rows)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise TypeError(f"sample must return a tuple (inputs, targets), got {validation.show(returned)}")
        return returned

    def batches(self, first: int, n_steps: int, n_rows: int) -> tuple[ArrayLike, ArrayLike] | None:
        """Inputs and targets of several steps in their order; None where the function knows one step at a time."""
        several = getattr(self.sample, "steps", None)
        return None if several is None else several(first, n_steps, n_rows)
