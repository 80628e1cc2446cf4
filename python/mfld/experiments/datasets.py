"""Data sets: from files, and those that come inside scikit-learn. Nothing is downloaded."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfld import validation
from mfld.experiments import tables
from mfld.experiments.encoding import MISSING, TASKS, Encoding, Feature, classes_of, column_name
from mfld.experiments.sources import STANDARD_INPUT
from mfld.experiments.tables import Format, Table

_BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "wine")
_REGRESSION = ("diabetes",)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows of features and what is to be predicted from them.

    Attributes
    ----------
    name : str
        Of a bundled data set, or the path of a file.
    inputs : ndarray, shape (n, n_features), float64
    targets : ndarray, shape (n,)
        Class labels, or real numbers for a regression.
    classes : ndarray or None
        The distinct labels, sorted; None for a regression.
    encoding : Encoding
        How columns became features.
    reading : dict
        How the file was read: format, delimiter, encoding, decimal sign, kinds of columns, missing values, and which
        columns were left out and why.
    """

    name: str
    inputs: NDArray[np.float64]
    targets: NDArray[Any]
    classes: NDArray[Any] | None
    encoding: Encoding
    reading: dict[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> NDArray[Any] | None:
        """Targets that are classes; None for a regression."""
        return None if self.classes is None else self.targets

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of inputs and targets: equal for the same rows in the same order, from whatever file."""
        digest = hashlib.sha256()
        for array in (self.inputs, self.targets):
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()


def bundled() -> list[str]:
    """Names of the data sets that need no file."""
    return list(_BUNDLED)


def load(
    source: str | os.PathLike[str],
    *,
    target: str | None = None,
    task: str | None = None,
    header: bool | None = None,
    drop: Collection[str] = (),
    missing: str = "refuse",
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    missing_values: Collection[str] | None = None,
    types: Mapping[str, str] | None = None,
) -> Dataset:
    """Load a bundled data set by its name, or a file.

    Parameters
    ----------
    source : str or path
        A name among `bundled`, or a file, URL or ``-`` (standard input) of `mfld.experiments.tables.read`.
    target : str, optional
        Name of the column to predict, or its number from 1; default: the last one. Of ``.npz``: the name of the array.
    task : {"classification", "regression"}, optional
        Default: by the target, see `mfld.experiments.encoding.classes_of`.
    header : bool, optional
        Whether the first line has names; by default it is found out.
    drop : collection of str
        Columns to leave out, by name or number from 1.
    missing : {"refuse", "drop", "impute"}
        Rows with a missing value are refused; left out; or filled with the median, no category for texts, and a feature
        that says so. Rows without a target are left out in both latter cases.
    delimiter, decimal, encoding, missing_values, types : optional
        How the file is written, see `mfld.experiments.tables.Format`; by default it is found out.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If there is none of this name, or it is nothing to learn from: the message says where.
    ImportError
        If scikit-learn, which brings the bundled data, is not installed.

    Examples
    --------
    >>> from mfld import experiments
    >>> experiments.load("wine").inputs.shape
    (178, 13)
    >>> import os, tempfile
    >>> rows = ["age,colour,size", "31,red,1.5", "45,blue,1.7", "28,red,1.6", "61,green,1.8", "39,red,1.4"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "people.csv")
    ...     with open(path, "w") as file:
    ...         _ = file.write("\\n".join(rows))
    ...     people = experiments.load(path)
    >>> people.encoding.feature_names
    ['age', 'colour=blue', 'colour=green', 'colour=red']
    >>> people.targets
    array([1.5, 1.7, 1.6, 1.8, 1.4])
    """
    if task is not None:
        validation.choice("task", task, TASKS)
    validation.choice("missing", missing, MISSING)
    how = Format(header, delimiter, decimal, encoding, missing_values, types or {})
    if source in _BUNDLED:
        if task is not None or target is not None or drop or missing != "refuse" or how != Format():
            raise ValueError(f"target, task, header, drop and the like are for files; {source} is a bundled data set")
        return _load_bundled(str(source))
    path = Path(source)
    if str(source) != STANDARD_INPUT and not path.exists() and path.name == str(source) and not path.suffix:
        raise ValueError(
            f"no bundled data set and no file is called {str(source)!r}; bundled are {', '.join(_BUNDLED)}"
        )
    table = tables.read(source, how, drop=drop, target=target)
    gaps = {column.name: int(column.missing.sum()) for column in table.columns if column.gap is not None}
    named = column_name(table, target or table.target)
    before = len(table.rows)
    if missing != "refuse":
        table = _without_gaps(table, {named} if missing == "impute" else set(table.names))
    inferred = Encoding.infer(table, named, impute=missing == "impute", missing_values=missing_values)
    classes = classes_of(table, named, task)
    targets = inferred.targets(table, classes)
    assert targets is not None  # infer has found them
    kinds = [column.kind for column in table.columns]
    reading = {
        **table.reading,
        "header": table.header,
        "kinds": {kind: kinds.count(kind) for kind in tables.KINDS if kind in kinds},
        "missing": {"policy": missing, "values": gaps, "rows_left_out": before - len(table.rows)},
    }
    return Dataset(str(source), inferred.inputs(table), targets, classes, inferred, reading)


def load_like(
    encoding: Encoding, path: str | os.PathLike[str], classes: NDArray[Any] | None, how: Format | None = None
) -> tuple[NDArray[np.float64], NDArray[Any] | None]:
    """Inputs and, where the file has them, targets, from a file with the columns of an earlier one.

    Parameters
    ----------
    encoding : Encoding
        Of the earlier file; where that had a header, columns are found by their names and others may stand between.
    path : path
    classes : ndarray or None
        Labels that may occur; None for a regression.
    how : Format, optional
        How the file is written; header, missing values, columns of texts, order of day and month are those of the
        earlier file. Numbers that may have either decimal sign are refused where that of the earlier file was a comma.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, a column is missing, or a text is none of those known.
    """
    used = [feature.name for feature in encoding.features] + [encoding.target]
    only = used if encoding.header else None
    texts = {feature.name: "text" for feature in encoding.features if feature.categories is not None}
    same = encoding.header or encoding.target == encoding.columns[-1]  # else names are places, with the target or not
    dates = {feature.name: feature.first for feature in encoding.features if feature.first and same}
    how = replace(how or Format(), header=encoding.header, types=texts if encoding.header else {}, dates=dates)
    if how.missing_values is None:
        how = replace(how, missing_values=encoding.missing_values)
    table = tables.read(path, how, only=only, target=encoding.target)
    if encoding.decimal == "," and how.decimal is None and table.reading.get("decimal") == ".":
        open_decimal = False
        with contextlib.suppress(ValueError):  # of numbers that cannot have a decimal comma
            tables.read(path, replace(how, decimal=","), only=only, target=encoding.target)
            open_decimal = True
        if open_decimal:
            raise ValueError(
                f"{table.source} has numbers that may have a decimal point, or the thousands of the decimal comma of "
                "the file that was trained on; --decimal . or , tells"
            )
    return encoding.inputs(table), encoding.targets(table, classes)


def _without_gaps(table: Table, names: Collection[str]) -> Table:
    """The table without the rows in which these columns lack a value; a column without any stays, to be refused."""
    left_out = np.zeros(len(table.rows), bool)
    for column in table.columns:
        if column.name in names and not column.missing.all():
            left_out |= column.missing
    return table.without(left_out) if left_out.any() else table


def _load_bundled(name: str) -> Dataset:
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise ImportError("the bundled data sets come with scikit-learn: pip install 'mfld[data]'") from error
    bunch = getattr(datasets, f"load_{name}")()
    classes = None if name in _REGRESSION else np.unique(bunch.target)
    names = [str(each) for each in bunch.feature_names]
    encoding = Encoding(tuple(Feature(each) for each in names), "target", (*names, "target"))
    return Dataset(name, np.asarray(bunch.data, np.float64), np.asarray(bunch.target), classes, encoding)
