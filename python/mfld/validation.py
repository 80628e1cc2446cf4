"""Checks of arguments, shared by the whole front.

Each returns the value in the form that the library works with, or raises an error that names the argument, what was
expected and what came: TypeError for a wrong kind of thing, ValueError for a wrong value.
"""

import math
import mmap
import operator
import os
from collections.abc import Collection
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import _core

FloatArray: TypeAlias = NDArray[np.floating[Any]]
FloatDType: TypeAlias = np.dtype[np.floating[Any]]

_Kind = TypeVar("_Kind")
_Array = TypeVar("_Array", bound=FloatArray)

_DOUBLE = np.dtype(np.float64)
_FLOATS = frozenset([np.dtype(np.float32), _DOUBLE])
_AT_ONCE = 1 << 22  # values that are looked at in one go

MAX_SEED = 2**64 - 1
MAX_STEP = 2**48 - 1  # the noise counter has 48 bits for the step


def integer(name: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """An integer within bounds; floats and bools are refused, also where they happen to be whole."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {value!r} (bool)")
    try:
        result = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {show(value)}") from None
    if result < minimum or (maximum is not None and result > maximum):
        expected = f"at least {minimum}" if maximum is None else f"between {minimum} and {maximum}"
        raise ValueError(f"{name} must be {expected}, got {result}")
    return result


def real(name: str, value: object, *, positive: bool = False, non_negative: bool = False) -> float:
    """A finite real number."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a real number, got {show(value)}")
    try:
        result = float(value)
    except OverflowError:  # an integer beyond all of them
        result = math.inf if value > 0 else -math.inf
    expected = "finite and positive" if positive else "finite and at least 0" if non_negative else "finite"
    if not np.isfinite(result) or (positive and result <= 0) or (non_negative and result < 0):
        raise ValueError(f"{name} must be {expected}, got {result}")
    return result


def boolean(name: str, value: object) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {show(value)}")
    return bool(value)


def choice(name: str, value: object, names: Collection[str]) -> str:
    """One of a set of names; the message lists them all."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a name, one of {', '.join(names)}; got {show(value)}")
    if value not in names:
        raise ValueError(f"{name} must be one of {', '.join(names)}; got {value!r}")
    return value


def instance(name: str, value: object, kind: type[_Kind], expected: str) -> _Kind:
    """The value itself, which is of this class."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {expected}, got {show(value)}")
    return value


def path(name: str, value: object) -> str:
    """The path of a file, as text or an object that stands for it (``os.PathLike``)."""
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a path, text or an os.PathLike, got {show(value)}")
    if not text or "\0" in text:
        raise ValueError(f"{name} must be the path of a file, got {text!r}")
    return text


def function(name: str, value: object) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be callable, got {show(value)}")


def float_dtype(name: str, value: DTypeLike) -> FloatDType:
    """float32 or float64."""
    try:
        result = np.dtype(value)
    except TypeError:
        raise TypeError(f"{name} must be float32 or float64, got {value!r}") from None
    if value is None or result not in (np.float32, np.float64):
        raise ValueError(f"{name} must be float32 or float64, got {value if value is None else result.name}")
    return cast(FloatDType, result)


def precision(name: str, value: DTypeLike) -> str:
    """The precision of a run, by its name: float32, float64, or bfloat16 where there are products of these."""
    if isinstance(value, str) and value == "bfloat16":
        return value
    try:
        return float_dtype(name, value).name
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("float32 or float64", "float32, float64 or 'bfloat16'")) from None


def of_particles(precision: str) -> str:
    """The precision of the particles of such a run."""
    return "float32" if precision == "bfloat16" else precision


def seed(value: object, name: str = "seed") -> int:
    return integer(name, value, 0, MAX_SEED)


def num_threads(value: object) -> int:
    """A number of threads; None stands for what OpenMP would take."""
    return _core.backend.max_threads() if value is None else integer("num_threads", value, 1)


def array(name: str, value: ArrayLike, dtype: DTypeLike | None = None) -> FloatArray:
    """A C-contiguous array of finite reals: in `dtype`, or float32 and float64 kept and all else made float64."""
    unmasked(name, value)
    try:
        given = np.asarray(value)
    except ValueError as error:  # a ragged list
        raise ValueError(f"{name} must be an array of real numbers: {error}") from None
    if given.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be an array of real numbers, got dtype {given.dtype}")
    if dtype is None:
        dtype = given.dtype if given.dtype in _FLOATS else _DOUBLE
    result: FloatArray = given
    if given.dtype != dtype or not given.flags.c_contiguous:
        # What is too small is 0; and a value that float32 cannot hold is reported below, by name and place.
        with np.errstate(over="ignore", under="ignore"):
            result = np.require(given, dtype, "C")
    bad = _first_not_finite(result)
    if bad is not None:
        where = f" in {result.dtype}" if np.isfinite(given[bad]) else ""
        raise ValueError(f"{name} must be finite{where}, got {_at(given, bad)}")
    return result


def held(name: str, value: _Array, dtype: FloatDType) -> _Array:
    """The result of a computation in a precision, once it is known that none of its numbers has overflown."""
    if not np.isfinite(value).all():
        got = _first(value, ~np.isfinite(value))
        raise ValueError(f"{name} must be finite in {dtype}, got {got}: scale particles or data, or take float64")
    return value


def squarable(name: str, value: _Array) -> _Array:
    """An array whose squares, and sums of many, its precision holds."""
    limit = 1e18 if value.dtype == np.float32 else 1e150
    largest = float(np.abs(value).max(initial=0))
    if largest > limit:
        raise ValueError(f"{name} must be at most {limit:g} in size, for their squares, got {largest:g}")
    return value


def mapped(value: NDArray[Any]) -> mmap.mmap | None:
    """The file that an array is a part of, mapped so that nothing can write to it; None for arrays in memory."""
    base: Any = value
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap):
        return None
    with memoryview(base) as view:
        return base if view.readonly else None


def release(value: NDArray[Any]) -> None:
    """Give the memory back into which parts of a mapped file were read; they are read again where they are needed."""
    file = mapped(value)
    if file is not None and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED)


def _first_not_finite(values: FloatArray) -> tuple[int, ...] | None:
    """Place of the first value that is not finite; in parts, since an array on disk may be larger than memory."""
    flat = values.reshape(-1)
    for first in range(0, flat.size, _AT_ONCE):
        finite = np.isfinite(flat[first : first + _AT_ONCE])
        release(flat)
        if np.count_nonzero(finite) < finite.size:
            return tuple(int(i) for i in np.unravel_index(first + int(np.argmin(finite)), values.shape))
    return None


def unmasked(name: str, value: object) -> None:
    """Refuse masked values (``numpy.ma``): an array made of them holds what lies under the mask."""
    for part in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(part, np.ma.MaskedArray) and np.ma.is_masked(part):
            count = np.count_nonzero(np.ma.getmaskarray(part))
            raise ValueError(f"{name} must have no masked values, got {count}: fill them in or leave their rows out")


def shape(name: str, value: FloatArray, expected: tuple[int | str, ...], why: str = "") -> None:
    """Refuse another shape; a letter stands for a length of at least 1 that is free."""
    fits = value.ndim == len(expected) and all(
        got == want if isinstance(want, int) else got >= 1 for got, want in zip(value.shape, expected, strict=True)
    )
    if not fits:
        wanted = f"({', '.join(map(str, expected))}{',' if len(expected) == 1 else ''})"
        free = [want for want in expected if isinstance(want, str)]
        limits = f" with {' and '.join(free)} at least 1" if free else ""
        raise ValueError(f"{name} must have shape {wanted}{limits}{why and ' ' + why}, got {value.shape}")


def weights(name: str, value: ArrayLike, expected: tuple[int, ...], why: str, dtype: DTypeLike) -> FloatArray:
    """Weights of points or samples: at least 0, made to sum to 1 along the last axis."""
    result: FloatArray = array(name, value, np.float64)
    shape(name, result, expected, why)
    if (result < 0).any():
        raise ValueError(f"{name} must be at least 0, got {_first(result, result < 0)}")
    total = result.sum(axis=-1, keepdims=True)
    if not (total > 0).all() or not np.isfinite(total).all():
        raise ValueError(f"{name} must have a finite sum above 0, got {total.min()}")
    if np.abs(total - 1).max() > 8 * np.finfo(dtype).eps:  # else they are normalised, and are to keep their bits
        with np.errstate(under="ignore"):
            result = result / total
    with np.errstate(under="ignore"):
        return result.astype(dtype)


def rows(name: str, value: ArrayLike, n_samples: int) -> NDArray[np.int64]:
    """Row numbers of a batch of samples."""
    unmasked(name, value)
    try:
        given = np.asarray(value)
    except ValueError as error:  # a ragged list
        raise ValueError(f"{name} must be an array of row numbers (integers): {error}") from None
    if given.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an array of row numbers (integers), got dtype {given.dtype}")
    if given.ndim != 1 or given.size == 0:
        raise ValueError(f"{name} must have shape (B,) with B at least 1, got {given.shape}")
    outside = given[(given < 0) | (given >= n_samples)]
    if outside.size:
        raise ValueError(f"{name} must hold rows between 0 and {n_samples - 1}, got {outside[0]}")
    return given.astype(np.int64)


def returned(name: str, value: object, expected: tuple[int, ...] | None, dtype: DTypeLike, why: str) -> FloatArray:
    """An array that a user's function returned: real, of a shape (None: any), in a dtype; it need not be finite."""
    unmasked(name, value)
    try:
        given = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of real numbers: {error}") from None
    if given.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be an array of real numbers, got dtype {given.dtype}")
    if expected is not None:
        shape(name, given, expected, why)
    if given.dtype == dtype:
        return np.asarray(given, order="C")
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(given, dtype, order="C")


def frozen(value: FloatArray) -> FloatArray:
    """The array itself if it cannot be written to, else a copy; read-only in any case."""
    if mapped(value) is not None and not value.flags.writeable:
        return value
    owner = value if value.base is None else value.base
    if not isinstance(owner, np.ndarray) or owner.base is not None or owner.flags.writeable or value.flags.writeable:
        value = value.copy()
        value.flags.writeable = False
    return value


def _first(values: NDArray[Any], bad: NDArray[np.bool_]) -> str:
    """The first bad value and its place."""
    return _at(values, tuple(int(i) for i in np.argwhere(bad)[0]))


def _at(values: NDArray[Any], place: tuple[int, ...]) -> str:
    return f"{values[place]} at index {place[0] if len(place) == 1 else place}"


def show(value: object) -> str:
    """A value and its type, short enough for a message."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
