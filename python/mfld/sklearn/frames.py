"""Tables of numbers, and what is none: refused by the name of its argument, in data frames by that of its column."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = 1e100  # its square, and that of its inverse, are in the range of double precision


def check_kind(name: str, given: Any, *, labels: bool = False) -> None:
    """Refuse dates, which would be taken for what they count, and what is no array; all else passes.

    Raises
    ------
    TypeError
        If it is a set, mapping, generator, text, ...
    ValueError
        If it has dates or times, or a missing label.
    """
    if isinstance(given, (str, bytes, Set, Mapping, Iterator)) and not hasattr(given, "shape"):  # sparse ones may have
        raise TypeError(f"{name} must be an array, a list or a data frame, got {type(given).__name__}")
    dtype = getattr(given, "dtype", None)
    if getattr(dtype, "kind", "") in ("m", "M") and not labels:
        raise ValueError(f"{name} has dates or times: make numbers of them, such as the days since a first one")
    if labels and given is not None and getattr(dtype, "kind", "O") == "O":
        gone = [row for row, label in enumerate(np.asarray(given, object).ravel()) if _is_missing(label)]
        if gone:
            raise ValueError(f"{name}, row {gone[0]}: the label is missing: leave such rows out")


def check_range(name: str, values: NDArray[Any]) -> None:
    """Refuse columns of numbers whose squares leave the range of double precision.

    Raises
    ------
    ValueError
        If some column has a number beyond 1e100, or is not constant and spreads over less than 1e-100.
    """
    for place, column in enumerate(values.T if values.ndim == 2 else [values]):
        low, high = float(column.min()), float(column.max())
        largest, spread = max(abs(low), abs(high)), high / 2 - low / 2
        if largest > _LARGEST or 0 < spread < 1 / _LARGEST:
            where = f"{name}, column {place}" if values.ndim == 2 else name
            raise ValueError(
                f"{where} reaches {largest:g} and spreads over {2 * spread:g}: these must be below {_LARGEST:g} and "
                f"above {1 / _LARGEST:g}"
            )


def check(X: Any) -> None:
    """Refuse what is no number in a data frame, of whatever library; anything else passes.

    Raises
    ------
    ValueError
        If a column has texts, dates, or values that are missing or infinite: with its name, the row from 0, and advice.
    """
    names = getattr(X, "columns", None)
    if names is None or not hasattr(X, "__getitem__") or getattr(X, "ndim", 2) != 2:
        return
    for name in names:
        column = np.asarray(X[name])
        if column.ndim == 1:  # names may come twice
            _check_column(f"X, column {name!r}", column)


def _check_column(where: str, column: NDArray[Any]) -> None:
    if column.dtype.kind in "mM":
        raise ValueError(f"{where} has dates or times: make numbers of them, such as the days since a first one")
    if column.dtype.kind in "biu":
        return
    try:
        numbers = column.astype(np.float64)
    except (TypeError, ValueError):
        row = next(row for row, value in enumerate(column) if not _is_number(value))
        value = column[row]
        if _is_missing(value):
            raise _missing(where, row) from None
        kind = "a text" if isinstance(value, str) else f"a {type(value).__name__}"
        raise ValueError(
            f"{where}, row {row}: must be a number, got {kind}, {str(value)[:40]!r}: make features of categories with "
            "sklearn.preprocessing.OneHotEncoder within a ColumnTransformer, or leave the column out"
        ) from None
    bad = np.flatnonzero(~np.isfinite(numbers))
    if bad.size and np.isnan(numbers[bad[0]]):
        raise _missing(where, int(bad[0]))
    if bad.size:
        raise ValueError(f"{where}, row {bad[0]}: must be finite, got {numbers[bad[0]]}")


def _missing(where: str, row: int) -> ValueError:
    advice = "fill it in with sklearn.impute.SimpleImputer, or leave the row out"
    return ValueError(f"{where}, row {row}: the value is missing (NaN): {advice}")


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return not _is_missing(value)


def _is_missing(value: object) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # of pandas, which compare with nothing
        return True
    return isinstance(value, float) and math.isnan(value)
