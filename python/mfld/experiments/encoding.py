"""From the columns of a table to the numbers that a network takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfld.experiments.tables import Column, Table

_MOST_CATEGORIES = 256
_MOST_CLASSES_OF_INTEGERS = 20
_LEAST_ROWS = 5
_LARGEST = 1e100

TASKS = ("classification", "regression")


@dataclass(frozen=True)
class Feature:
    """A column as features: one of numbers, or one for each category of texts (1 where a row is of it, else 0)."""

    name: str
    categories: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Encoding:
    """How the columns of a table become features and targets.

    Attributes
    ----------
    features : tuple of Feature
    target : str
        Name of the column of targets.
    columns : tuple of str
        All columns of the table, those included that are not used.
    header : bool
        Whether columns have names of their own; otherwise their places count.
    """

    features: tuple[Feature, ...]
    target: str
    columns: tuple[str, ...]
    header: bool = True

    @classmethod
    def infer(cls, table: Table, target: str | None = None) -> Encoding:
        """The encoding of a table to train on.

        Raises
        ------
        ValueError
            If there are fewer than 5 rows, no such target, no feature, or a feature is constant or has too many texts.
        """
        if len(table.rows) < _LEAST_ROWS:
            raise ValueError(f"{table.source} has {len(table.rows)} rows; at least {_LEAST_ROWS} are needed")
        target = _column_name(table, target or table.target)
        features = []
        for column in table.columns:
            if column.name == target:
                continue
            if column.values.min() == column.values.max():
                value = column.values[0] if column.categories is None else repr(column.categories[0])
                raise ValueError(
                    f"{table.source}, column {column.name!r} is constant ({value} in every row); "
                    f"leave it out with --drop {column.name}"
                )
            if column.categories is not None and len(column.categories) > _MOST_CATEGORIES:
                raise ValueError(
                    f"{table.source}, column {column.name!r} has {len(column.categories)} different texts, "
                    f"more than {_MOST_CATEGORIES}; leave it out with --drop {column.name}"
                )
            _check_range(table, column)
            features.append(Feature(column.name, column.categories))
        if not features:
            raise ValueError(f"{table.source} has no column beside the target {target!r}")
        return cls(tuple(features), target, tuple(table.all_names), table.header)

    @property
    def feature_names(self) -> list[str]:
        """Names in the order of the features: ``age``, ``colour=red``, ``colour=blue``."""
        return [
            name
            for feature in self.features
            for name in (
                [feature.name]
                if feature.categories is None
                else [f"{feature.name}={category}" for category in feature.categories]
            )
        ]

    def inputs(self, table: Table) -> NDArray[np.float64]:
        """Features of each row, shape (n, n_features).

        Raises
        ------
        ValueError
            If a column is missing or of another type, or a text is none of the categories.
        """
        inputs = np.zeros((len(table.rows), len(self.feature_names)))
        columns = self._columns(table)
        place = 0
        for feature in self.features:
            if feature.name not in columns:
                raise ValueError(f"{table.source} has no column {feature.name!r}; it has {_listed(table.all_names)}")
            column = columns[feature.name]
            if feature.categories is None:
                inputs[:, place] = self._real(table, column)
                place += 1
            else:
                codes = _codes(table, column, feature.categories, "categories")
                inputs[np.arange(len(codes)), place + codes] = 1
                place += len(feature.categories)
        return inputs

    def targets(self, table: Table, classes: NDArray[Any] | None) -> NDArray[Any] | None:
        """Targets of each row, None where the table has none.

        Parameters
        ----------
        classes : ndarray or None
            Labels that may occur; None for a regression.

        Raises
        ------
        ValueError
            If the column has another type, or a label is none of the classes.
        """
        column = self._columns(table).get(self.target)
        if column is None:
            return None
        if classes is None:
            return self._real(table, column)
        if classes.dtype.kind == "U":
            return classes[_codes(table, column, tuple(map(str, classes)), "classes")]
        values = self._real(table, column)
        unknown = np.flatnonzero(~np.isin(values, classes))
        if unknown.size:
            where = table.place(unknown[0], column.name)
            raise ValueError(f"{where}: {values[unknown[0]]:g} is none of the classes {_listed(classes)}")
        return classes[np.searchsorted(classes, values)]

    def as_json(self) -> dict[str, Any]:
        """Numbers, texts, lists and dicts of them, from which `from_json` makes it again."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Encoding:
        features = (
            Feature(each["name"], None if each["categories"] is None else tuple(each["categories"]))
            for each in stored["features"]
        )
        return cls(tuple(features), stored["target"], tuple(stored["columns"]), stored["header"])

    def _columns(self, table: Table) -> dict[str, Column]:
        """Columns by the names they have here; without a header, by their places with or without the target."""
        if self.header:
            return {column.name: column for column in table.columns}
        without = [name for name in self.columns if name != self.target]
        for names in (self.columns, without):
            if len(names) == len(table.all_names):
                called = dict(zip(table.all_names, names, strict=True))
                return {called[column.name]: column for column in table.columns}
        raise ValueError(
            f"{table.source} has {len(table.all_names)} columns; the model was made from {len(self.columns)}, "
            f"or {len(without)} without the target"
        )

    def _real(self, table: Table, column: Column) -> NDArray[np.float64]:
        if column.categories is not None:
            text = column.categories[column.values[0]]
            raise ValueError(f"{table.place(0, column.name)}: must be a number, got {text!r}")
        return column.values


def classes_of(table: Table, target: str, task: str | None = None) -> NDArray[Any] | None:
    """Distinct labels of a target, None if it is one of a regression.

    Texts are labels. Numbers are labels where they are whole, at most 20 of them differ and each occurs twice on
    average.

    Parameters
    ----------
    table : Table
    target : str
    task : {"classification", "regression"}, optional

    Raises
    ------
    ValueError
        If there is a single class, a regression has a constant target, or texts are to be regressed on.
    """
    column = next(column for column in table.columns if column.name == target)
    where = f"{table.source}, target {target!r}"
    classes: NDArray[Any]
    if column.categories is not None:
        if task == "regression":
            raise ValueError(f"{where} has texts such as {column.categories[0]!r}: --task must be classification")
        classes = np.array(column.categories)
    else:
        classes = np.unique(column.values)
        whole = bool((classes == np.floor(classes)).all()) and float(np.abs(classes).max()) < 2**53
        few = len(classes) <= min(_MOST_CLASSES_OF_INTEGERS, len(column.values) // 2)
        if task is None:
            task = "classification" if whole and few else "regression"
        if task == "regression":
            if len(classes) == 1:
                raise ValueError(f"{where} is constant ({classes[0]:g} in every row): nothing can be learned")
            _check_range(table, column)
            return None
        classes = classes.astype(np.int64) if whole else classes
    if len(classes) == 1:
        raise ValueError(f"{where} has a single class, {classes[0]}: nothing can be learned")
    if len(classes) > _MOST_CATEGORIES:
        raise ValueError(f"{where} has {len(classes)} classes, more than {_MOST_CATEGORIES}")
    return classes


def _check_range(table: Table, column: Column) -> None:
    """Refuse numbers whose squares leave the range of double precision."""
    if column.categories is None:
        largest, spread = float(np.abs(column.values).max()), 2 * float(np.ptp(column.values / 2))
        if largest > _LARGEST or spread < 1 / _LARGEST:
            raise ValueError(
                f"{table.source}, column {column.name!r} reaches {largest:g} and spreads over {spread:g}: "
                f"these must be below {_LARGEST:g} and above {1 / _LARGEST:g}"
            )


def _column_name(table: Table, target: str | None) -> str:
    """The column that is called so, or else has this number, from 1."""
    if target is None:
        raise ValueError(f"{table.source} has no targets: an array named targets or y")
    names = table.names
    if target in names:
        return target
    if target.isdecimal() and 1 <= int(target) <= len(names):
        return names[int(target) - 1]
    raise ValueError(f"{table.source} has no column {target!r} (--target); it has {_listed(names)}")


def _codes(table: Table, column: Column, known: tuple[str, ...], kind: str) -> NDArray[np.int64]:
    """Places of the texts of a column among the known ones."""
    if column.categories is None:
        where = table.place(0, column.name)
        raise ValueError(f"{where}: must be one of the {kind} {_listed(known)}; got {column.values[0]:g}")
    places = {text: place for place, text in enumerate(known)}
    codes: NDArray[np.int64] = np.array([places.get(text, -1) for text in column.categories], np.int64)[column.values]
    unknown = np.flatnonzero(codes < 0)
    if unknown.size:
        text = column.categories[column.values[unknown[0]]]
        where = table.place(unknown[0], column.name)
        raise ValueError(f"{where}: {text!r} is none of the {kind} {_listed(known)}")
    return codes


def _listed(names: Sequence[Any] | NDArray[Any]) -> str:
    shown = ", ".join(str(name) for name in names[:10])
    return shown + (f" and {len(names) - 10} more" if len(names) > 10 else "")
