"""Synthetic tables: rows like those of a file, under differential privacy, with what was spent on what."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfld import privacy, synthesis, validation
from mfld.experiments import tables, utility
from mfld.experiments.densities import MISSING, Variable, as_csv, complete
from mfld.experiments.tables import Column, Format, Table
from mfld.experiments.utility import Utility
from mfld.privacy import Expense, Ledger
from mfld.privacy.domains import check_bounds
from mfld.privacy.mechanism import check_delta_of_rows
from mfld.synthesis import Synthesis

_DOMAINS = 0.1  # share of the budget for bounds, and for categories, where these are not given
_FAILING = 0.1  # share of delta for categories that pass and should not
_COARSEST = 0.05  # deviation of the share of a category, beyond which rows say nothing
_LEAST_ROWS = 20
_OWN = 0.9  # share of the rows that have a whole number of their own, beyond which it is taken for their name


@dataclass(frozen=True, eq=False)
class SyntheticTable:
    """Particles for the rows of a file, with what it takes to write rows like them.

    Attributes
    ----------
    synthesis : Synthesis
    variables : tuple of Variable
        Of the columns, with the bounds and categories that were given or paid for.
    ledger : Ledger
        All that was spent.
    delta : float
    public : tuple of str
        What was taken from the file as public: it is told by the rows that are written.
    provenance : dict
        Delimiter, decimal sign and header of the file.
    """

    synthesis: Synthesis
    variables: tuple[Variable, ...]
    ledger: Ledger
    delta: float
    public: tuple[str, ...]
    provenance: dict[str, Any]

    @classmethod
    def fit(
        cls,
        source: str | os.PathLike[str] | Table,
        how: Format | None = None,
        *,
        epsilon: float,
        delta: float,
        bounds: Mapping[str, tuple[float, float]] | None = None,
        categories: Mapping[str, Collection[str]] | None = None,
        target: str | None = None,
        drop: Collection[str] = (),
        missing: str = "refuse",
        neighbours: str = "replace",
        seed: int | None = None,
        num_threads: int | None = None,
        **choices: Any,
    ) -> SyntheticTable:
        """Fit to the rows of a file.

        Parameters
        ----------
        source, how, drop
            As in `read`; or what that has read.
        epsilon, delta : float
            What it may cost in all.
        bounds : mapping of str to (low, high)
            Public bounds of numbers and dates (in days since 1970) by column; others are estimated for a tenth of the
            budget.
        categories : mapping of str to collection of str
            Public categories by column; others are found for a tenth of the budget.
        target : str, optional
            Column of classes, by which all others are matched.
        missing : {"refuse", "drop"}
            Rows with a missing value.
        neighbours, seed
            As in `mfld.privacy.PrivateEmbedding`.
        num_threads, **choices
            As in `mfld.synthesis.fit`.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If a column identifies rows, epsilon is too small for so many rows, or a column does not suit: the message
            says where and what would do.
        """
        validation.choice("missing", missing, MISSING)
        validation.choice("neighbours", neighbours, privacy.NEIGHBOURS)
        multiplier = privacy.noise_multiplier(epsilon, delta * (1 - _FAILING))
        if multiplier == 0:
            raise ValueError("epsilon must be finite, for there is no privacy without noise")
        bounds, known = dict(bounds or {}), {name: tuple(own) for name, own in (categories or {}).items()}
        if not isinstance(source, Table):
            source = read(source, how, categories=known, target=target, drop=drop)
        table = complete(source, missing)
        n = len(table.rows)
        if n < _LEAST_ROWS:
            raise ValueError(f"{table.source} has {n} rows; at least {_LEAST_ROWS} are needed")
        check_delta_of_rows(delta, n)
        for name in (*bounds, *known, *([target] if target is not None else [])):
            if name not in table.names:
                raise ValueError(f"{table.source} has no column {name!r}; it has {', '.join(table.names)}")
        for column in table.columns:
            _refuse_identifiers(table, column, column.name in known)

        source_of_noise = privacy.generator(seed)
        open_bounds = [c for c in table.columns if c.categories is None and c.name not in bounds]
        open_texts = [c for c in table.columns if c.categories is not None and c.name not in known]
        shares = [_DOMAINS * bool(group) for group in (open_bounds, open_texts)]
        main = multiplier / math.sqrt(1 - sum(shares))
        _check_size(n, table, main, epsilon, delta, neighbours)
        expenses: list[Expense] = []
        common: dict[str, Any] = {"neighbours": neighbours, "seed": source_of_noise}
        for column in open_bounds:
            own = multiplier / math.sqrt(_DOMAINS / len(open_bounds))
            low, high, spent = privacy.private_bounds(column.values, own, name=column.name, **common)
            bounds[column.name] = low, high
            expenses += spent
        for column in open_texts:
            assert column.categories is not None
            own = multiplier / math.sqrt(_DOMAINS / len(open_texts))
            counts = np.bincount(column.values, minlength=len(column.categories))
            failing = delta * _FAILING / len(open_texts)
            kept, spent = privacy.private_categories(counts, own, failing, name=column.name, **common)
            known[column.name] = tuple(column.categories[place] for place in kept)
            expenses += spent
        variables = tuple(_variable(table, column, bounds, known) for column in table.columns)
        numbers, codes, label = _rows(table, variables, target)
        sizes = [len(v.categories) for v in variables if v.kind == "text"]
        found = synthesis.fit(
            numbers, codes, sizes, label, noise_multiplier=main, num_threads=num_threads, **common, **choices
        )
        provenance = {
            "header": table.header,
            "delimiter": table.reading.get("delimiter"),
            "decimal": table.reading.get("decimal"),
            "rows": n if neighbours == "replace" else None,
        }
        public: tuple[str, ...] = ("names and kinds of the columns", "decimals of numbers", "form of the file")
        rows = "the number of rows" if missing == "refuse" else "the number of rows without missing values"
        public += (rows,) * (neighbours == "replace")
        ledger = Ledger(tuple(expenses), neighbours) + found.ledger
        return cls(found, variables, ledger, delta, public, provenance)

    def sample(self, n_rows: int, seed: int = 0) -> dict[str, list[str]]:
        """New rows, as texts by the names of the columns, in the types of the file."""
        numbers, codes = self.synthesis.sample(n_rows, seed)
        columns, j, t = {}, 0, 0
        for variable in self.variables:
            if variable.kind == "text":
                columns[variable.name] = [variable.categories[code] for code in codes[:, t]]
                t += 1
                continue
            values = variable.low + (variable.high - variable.low) * numbers[:, [j]]
            columns[variable.name] = variable.texts(values, self.provenance["decimal"] or ".")
            j += 1
        return columns

    def csv(self, columns: Mapping[str, list[str]]) -> str:
        """Rows as a text, with the delimiter of the file, and a header if it had one."""
        return as_csv(columns, self.provenance)

    def report(self) -> dict[str, Any]:
        """Account of what was spent on what and what was taken as public, which may be published with the rows."""
        return {
            "epsilon": self.ledger.epsilon(self.delta),
            "delta": self.delta,
            "neighbours": self.ledger.neighbours,
            "public": list(self.public),
            "bounds": {v.name: [v.low, v.high] for v in self.variables if v.kind != "text"},
            "spent": [vars(each) for each in self.ledger.expenses],
        }

    def utility(self, real: Table, held_out: Table, seed: int = 1) -> Utility:
        """Utility of as many synthetic rows as there are real ones, by rows that were held out: without noise.

        Parameters
        ----------
        real : Table
            The table that was fitted.
        held_out : Table
            Rows that had no part in it.
        seed : int
            Of the synthetic rows.
        """
        drawn = utility.Rows(*self.synthesis.sample(len(real.rows), seed))
        seen, others = (utility.Rows(*_rows(table, self.variables, None)[:2]) for table in (real, held_out))
        names = [v.name for v in self.variables if v.kind != "text"]
        names += [v.name for v in self.variables if v.kind == "text"]
        features = self.synthesis.features
        return utility.compare(drawn, seen, others, names, features.sizes, features.label)


def read(
    source: str | os.PathLike[str],
    how: Format | None = None,
    *,
    categories: Collection[str] = (),
    target: str | None = None,
    drop: Collection[str] = (),
) -> Table:
    """Read a file for `SyntheticTable.fit`: its target, and columns with categories of their own, are texts.

    Parameters
    ----------
    source, how, drop
        As in `mfld.experiments.tables.read`.
    categories : collection of str
        Columns whose categories are given.
    target : str, optional

    Raises
    ------
    OSError, ValueError
        As `mfld.experiments.tables.read`.
    """
    how = how or Format()
    texts = dict.fromkeys((*categories, *([target] if target is not None else [])), "text")
    return tables.read(source, Format(**{**vars(how), "types": {**how.types, **texts}}), drop=drop)


def _refuse_identifiers(table: Table, column: Column, known: bool) -> None:
    """Refuse columns in which nearly each row has a value of its own, as names and numbers of customers do."""
    n = len(table.rows)
    where = f"{table.source}, column {column.name!r}"
    if column.categories is not None:
        different = len(column.categories)
        if different > n / 2 and not known:
            raise ValueError(
                f"{where} identifies rows: {different} different texts in {n} rows; leave it out with --drop, or give "
                "its categories"
            )
    elif column.kind == "number" and n > 1:
        steps = np.diff(np.sort(column.values))
        if (steps > 0).all() and (steps == steps[0]).all():
            raise ValueError(f"{where} identifies rows: it counts them; leave it out with --drop")
        different = 1 + int(np.count_nonzero(steps))
        if different > _OWN * n and np.array_equal(column.values, np.round(column.values)):
            raise ValueError(
                f"{where} identifies rows: {different} different whole numbers in {n} rows; leave it out with --drop, "
                "or round it"
            )


def _check_size(n: int, table: Table, multiplier: float, epsilon: float, delta: float, neighbours: str) -> None:
    """Refuse an epsilon with which the noise hides what there is to see, in so many rows."""
    sensitivity = 2.0 if neighbours == "replace" else 1.0
    share = 0.4 / (len(table.columns) + 1)
    deviation = multiplier * sensitivity / (n * math.sqrt(share))
    if deviation <= _COARSEST:
        return
    factor = deviation / _COARSEST
    low, high = math.log(epsilon), math.log(500.0)
    wanted = privacy.noise_multiplier(epsilon, delta) / factor
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if privacy.noise_multiplier(math.exp(middle), delta) > wanted else (low, middle)
    raise ValueError(
        f"epsilon must be at least {math.exp(high):.2g} for the {n} rows of {table.source}, got {epsilon:g}: shares of "
        f"categories would have errors of {deviation:.2g}; or it takes {math.ceil(n * factor)} rows, or fewer columns"
    )


def _variable(
    table: Table, column: Column, bounds: Mapping[str, tuple[float, float]], categories: Mapping[str, tuple[str, ...]]
) -> Variable:
    if column.categories is not None:
        return Variable(column.name, "text", "", categories[column.name])
    low, high = (validation.real(f"bounds of {column.name!r}", end) for end in bounds[column.name])
    check_bounds(f"bounds of {column.name!r}", low, high)
    seen = Variable.of(table, column)
    return Variable(column.name, seen.kind, seen.unit, (), low, high, seen.decimals)


def _rows(
    table: Table, variables: tuple[Variable, ...], target: str | None
) -> tuple[NDArray[np.float64], NDArray[np.int64], int | None]:
    """Numbers in [0, 1], categories by number, -1 for those that are none, and which of them is the label."""
    numbers: list[NDArray[np.float64]] = []
    codes: list[NDArray[np.int64]] = []
    label = None
    for column, variable in zip(table.columns, variables, strict=True):
        if variable.kind == "text":
            if column.name == target:
                label = len(codes)
            assert column.categories is not None
            place = {category: k for k, category in enumerate(variable.categories)}
            own = np.array([place.get(category, -1) for category in column.categories], np.int64)
            codes.append(own[column.values])
        else:
            numbers.append(np.clip((column.values - variable.low) / (variable.high - variable.low), 0, 1))
    n = len(table.rows)
    x = np.stack(numbers, axis=1) if numbers else np.zeros((n, 0))
    c = np.stack(codes, axis=1) if codes else np.zeros((n, 0), np.int64)
    return x, c, label
