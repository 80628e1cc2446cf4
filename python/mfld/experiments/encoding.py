"""From the columns of a table to the numbers that a network takes."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Sequence
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


MISSING = ("refuse", "drop", "impute")

_CYCLES = {"year": 365.2425, "week": 7.0, "day": 1.0}  # in days


@dataclass(frozen=True)
class Feature:
    """A column as features.

    Numbers are one feature; texts one for each category (1 where a row is of it, else 0); dates their days since 1970,
    and sine and cosine of the time of year, week and day. Where values were imputed, 1 says that there was none.

    Attributes
    ----------
    name : str
    categories : tuple of str or None
    kind : {"number", "date", "text"}
    unit : str
        That all numbers have.
    cycles : tuple of str
        Of dates: those of "year", "week" and "day" in which they vary.
    fill : float or None
        What stands for a value that is missing; None if that is refused.
    indicator : bool
        Whether a feature of its own says which values were missing.
    first : str
        Of dates like 01/02/2024: "day" or "month", whichever came first.
    """

    name: str
    categories: tuple[str, ...] | None = None
    kind: str = "number"
    unit: str = ""
    cycles: tuple[str, ...] = ()
    fill: float | None = None
    indicator: bool = False
    first: str = ""

    @property
    def names(self) -> list[str]:
        names = [self.name] if self.categories is None else [f"{self.name}={each}" for each in self.categories]
        names += [f"{self.name} {cycle} {wave}" for cycle in self.cycles for wave in ("sin", "cos")]
        return names + [f"{self.name} missing"] * self.indicator

    def values(self, table: Table, column: Column) -> NDArray[np.float64]:
        """Features of a column, shape (n, len(names)).

        Raises
        ------
        ValueError
            If the column is of another type, a text is none of the categories, or a value is missing and not imputed.
        """
        missing = column.missing
        if self.fill is None:
            refuse_gaps(table, (column,))
        if self.categories is not None:
            parts = [np.zeros((len(missing), len(self.categories)))]
            if not missing.all():
                codes = _codes(table, column, self.categories, "categories")
                parts[0][~missing, codes[~missing]] = 1
        else:
            values = _real(table, column)
            if not missing.all() and (column.kind, column.unit) != (self.kind, self.unit):
                raise ValueError(
                    f"{table.source}, column {column.name!r} has {_described(column)}, not {_described(self)}"
                )
            values = values if self.fill is None else np.where(missing, self.fill, values)
            parts = [values[:, np.newaxis]]
            for cycle in self.cycles:
                phase = 2 * np.pi * np.mod(values / _CYCLES[cycle], 1.0)
                parts += [np.sin(phase)[:, np.newaxis], np.cos(phase)[:, np.newaxis]]
        if self.indicator:
            parts.append(missing[:, np.newaxis].astype(np.float64))
        return np.concatenate(parts, axis=1)


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
    missing_values : tuple of str or None
        Texts that stood for no value; None for the common ones.
    target_unit : str
        That all targets have.
    decimal : str
        The decimal sign of the file, "" where it shows none.
    """

    features: tuple[Feature, ...]
    target: str
    columns: tuple[str, ...]
    header: bool = True
    missing_values: tuple[str, ...] | None = None
    target_unit: str = ""
    decimal: str = ""

    @classmethod
    def infer(
        cls,
        table: Table,
        target: str | None = None,
        *,
        impute: bool = False,
        missing_values: Collection[str] | None = None,
    ) -> Encoding:
        """The encoding of a table to train on.

        Raises
        ------
        ValueError
            If there are fewer than 5 rows, no such target or no feature, a feature is constant or has too many texts,
            or a value is missing and not to be imputed.
        """
        target = column_name(table, target or table.target)
        for column in table.columns:
            if column.missing.all() and len(table.rows):
                raise ValueError(
                    f"{table.place(0, column.name)}: the value is missing, and so are all below it; "
                    f"leave the column out with --drop {_quoted(column.name)}"
                )
        refused = [column for column in table.columns if not impute or column.name == target]
        refuse_gaps(table, refused, "; --missing drop leaves such rows out, --missing impute fills them in")
        if len(table.rows) < _LEAST_ROWS:
            raise ValueError(f"{table.source} has {len(table.rows)} rows; at least {_LEAST_ROWS} are needed")
        features = [_feature(table, column, impute) for column in table.columns if column.name != target]
        if not features:
            raise ValueError(f"{table.source} has no column beside the target {target!r}")
        marked = next(column for column in table.columns if column.name == target)
        values = None if missing_values is None else tuple(missing_values)
        decimal = table.reading.get("decimal") or ""
        return cls(tuple(features), target, tuple(table.all_names), table.header, values, marked.unit, decimal)

    @property
    def feature_names(self) -> list[str]:
        """Names in the order of the features: ``age``, ``colour=red``, ``colour=blue``."""
        return [name for feature in self.features for name in feature.names]

    def inputs(self, table: Table) -> NDArray[np.float64]:
        """Features of each row, shape (n, n_features).

        Raises
        ------
        ValueError
            If a column is missing or of another type, a text is none of the categories, or a value is missing in a
            column for which none was imputed in training.
        """
        inputs = np.empty((len(table.rows), len(self.feature_names)))
        columns = self._columns(table)
        place = 0
        for feature in self.features:
            if feature.name not in columns:
                raise ValueError(f"{table.source} has no column {feature.name!r}; it has {_listed(table.all_names)}")
            width = len(feature.names)
            inputs[:, place : place + width] = feature.values(table, columns[feature.name])
            place += width
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
            If the column has another type, a label is none of the classes, or some targets are missing and others not.
        """
        column = self._columns(table).get(self.target)
        if column is None or column.missing.all():
            return None
        refuse_gaps(table, (column,))
        if classes is not None and classes.dtype.kind == "U":
            return classes[_codes(table, column, tuple(map(str, classes)), "classes")]
        values = _real(table, column)
        if column.unit != self.target_unit:
            wanted = Feature(self.target, unit=self.target_unit)
            raise ValueError(
                f"{table.source}, target {column.name!r} has {_described(column)}, not {_described(wanted)}"
            )
        if classes is None:
            return values
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
        features = []
        for each in stored["features"]:
            tuples = {name: tuple(each[name]) for name in ("categories", "cycles") if each.get(name) is not None}
            kind = each.get("kind", "number" if each["categories"] is None else "text")
            features.append(Feature(**{**each, **tuples, "kind": kind}))
        values = stored.get("missing_values")
        return cls(
            tuple(features),
            stored["target"],
            tuple(stored["columns"]),
            stored["header"],
            None if values is None else tuple(values),
            stored.get("target_unit", ""),
            stored.get("decimal", ""),
        )

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


def refuse_gaps(table: Table, columns: Iterable[Column], advice: str = "") -> None:
    """Raise ValueError, with the first place, where values of these columns are missing."""
    gaps = [(*column.gap, column.name) for column in columns if column.gap is not None]
    if gaps:
        row, text, name = min(gaps, key=lambda gap: gap[0])
        raise ValueError(f"{table.place(row, name)}: the value is missing{f' ({text!r})' if text else ''}{advice}")


def _feature(table: Table, column: Column, impute: bool) -> Feature:
    """The features of a column that is not the target."""
    name, values = column.name, column.values[~column.missing]
    if values.min() == values.max():
        value = values[0] if column.categories is None else repr(column.categories[0])
        raise ValueError(
            f"{table.source}, column {name!r} is constant ({value} in every row); "
            f"leave it out with --drop {_quoted(name)}"
        )
    indicator = impute and column.gap is not None
    if column.categories is not None:
        if len(column.categories) > _MOST_CATEGORIES:
            raise ValueError(
                f"{table.source}, column {name!r} has {len(column.categories)} different texts, "
                f"more than {_MOST_CATEGORIES}; leave it out with --drop {_quoted(name)}"
            )
        return Feature(name, column.categories, "text", fill=0.0 if impute else None, indicator=indicator)
    _check_range(table, column)
    fill = float(np.median(values)) if impute else None
    cycles: tuple[str, ...] = ()
    if column.kind == "date":
        tried = ("day",) if column.unit else tuple(_CYCLES)
        cycles = tuple(cycle for cycle in tried if np.ptp(np.mod(values, _CYCLES[cycle])) > 0)
    return Feature(name, None, column.kind, column.unit, cycles, fill, indicator, column.first)


def _described(column: Column | Feature) -> str:
    if column.kind == "date":
        return "times" if column.unit else "dates"
    return f"numbers with {column.unit!r}" if column.unit else "numbers without a unit"


def _quoted(name: str) -> str:
    """A name as the shell takes it."""
    return shlex.quote(name)


def _real(table: Table, column: Column) -> NDArray[np.float64]:
    if column.categories is not None:
        row = int(np.flatnonzero(~column.missing)[0])
        text = column.categories[column.values[row]]
        raise ValueError(f"{table.place(row, column.name)}: must be a number, got {text!r}")
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
    if column.kind == "date":
        raise ValueError(
            f"{where} has dates: write the number that is to be predicted, or say --type {_quoted(target)}=text"
        )
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
        values = column.values[~column.missing]
        largest, spread = float(np.abs(values).max()), 2 * float(np.ptp(values / 2))
        if largest > _LARGEST or spread < 1 / _LARGEST:
            raise ValueError(
                f"{table.source}, column {column.name!r} reaches {largest:g} and spreads over {spread:g}: "
                f"these must be below {_LARGEST:g} and above {1 / _LARGEST:g}"
            )


def column_name(table: Table, target: str | None) -> str:
    """The column that is called so, or else has this number, from 1."""
    if target is None:
        raise ValueError(f"{table.source} has no targets: an array named targets or y")
    names = table.names
    if target not in table.all_names and target.isdecimal() and 1 <= int(target) <= len(table.all_names):
        target = table.all_names[int(target) - 1]
    if target in names:
        return target
    raise ValueError(f"{table.source} has no column {target!r} (--target); it has {_listed(names)}")


def _codes(table: Table, column: Column, known: tuple[str, ...], kind: str) -> NDArray[np.int64]:
    """Places of the texts of a column among the known ones."""
    if column.categories is None:
        row = int(np.flatnonzero(~column.missing)[0])
        where = table.place(row, column.name)
        raise ValueError(f"{where}: must be one of the {kind} {_listed(known)}; got {column.values[row]:g}")
    places = {text: place for place, text in enumerate(known)}
    codes: NDArray[np.int64] = np.array([places.get(text, -1) for text in column.categories], np.int64)[column.values]
    unknown = np.flatnonzero((codes < 0) & ~column.missing)
    if unknown.size:
        text = column.categories[column.values[unknown[0]]]
        where = table.place(unknown[0], column.name)
        raise ValueError(f"{where}: {text!r} is none of the {kind} {_listed(known)}")
    return codes


def _listed(names: Sequence[Any] | NDArray[Any]) -> str:
    shown = ", ".join(str(name) for name in names[:10])
    return shown + (f" and {len(names) - 10} more" if len(names) > 10 else "")
