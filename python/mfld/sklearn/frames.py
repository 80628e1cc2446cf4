"""Data frames as people have them: texts, dates and missing values are refused by the name of their column."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
