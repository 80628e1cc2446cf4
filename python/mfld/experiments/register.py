"""Register of private runs: which tables a user has released, recognised under any file name.

A ledger lies beside the rows that a run wrote, and goes by its own name. The register is one file of a user for all
tables. It knows a table by keyed digests of its columns, whose values are sorted: the order of rows and of columns, the
names of these, delimiters and formats do not matter. Columns of few values, which other tables may have as often, do
not count, but for all of them together. A digest without a key would be no secret: who knows all rows but
one could try values for that one. With it the key is the secret, and it stands in the same file, which its owner alone
may read: the register is never to be released.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mfld.experiments.tables import Column, Table
from mfld.files import replacing
from mfld.privacy import Ledger
from mfld.privacy.mechanism import check_delta

_FORMAT = "mfld privacy register 1"
_TELLING = 30  # different values
_SAME = 0.5  # share of the columns of one run or of the other that make two tables one


def default_path() -> Path:
    """Place of a user's register: ``mfld/privacy-register.json`` in XDG_DATA_HOME, by default ``~/.local/share``."""
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "mfld" / "privacy-register.json"


def ledger_of(run: dict[str, Any]) -> Ledger:
    """Ledger of a run as a file has it, checked.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is none.
    """
    check_delta(run["delta"])
    return Ledger.from_json(run)


@dataclass(frozen=True, eq=False)
class Register:
    """Runs of all tables of a user.

    Attributes
    ----------
    path : Path
    key : bytes
    runs : list of dict
        With the digests of their columns, an identity and the ledger they are in.
    """

    path: Path
    key: bytes
    runs: list[dict[str, Any]]

    @classmethod
    def load(cls, path: Path) -> Register:
        """Read a register, or begin one.

        Raises
        ------
        OSError
            If it cannot be read.
        ValueError
            If it is none, or damaged.
        """
        if not path.exists():
            return cls(path, secrets.token_bytes(32), [])
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError(f"unknown format {content['format']!r}")
            key, runs = bytes.fromhex(content["key"]), list(content["runs"])
            for run in runs:
                ledger_of(run)
                if not all(isinstance(each, str) for each in (run["id"], *run["columns"])):
                    raise TypeError("digests must be texts")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no register of mfld synth, or damaged: {error}") from error
        return cls(path, key, runs)

    def digests(self, table: Table) -> list[str]:
        """Keyed digests of the columns of a table that tell it from others; where there is none, of its rows."""
        found = {self._digest(_content(column)): column for column in table.columns}
        telling = [digest for digest, column in found.items() if _distinct(column) >= _TELLING]
        return sorted(telling or [self._digest(_rows([found[digest] for digest in sorted(found)]))])

    def _digest(self, content: bytes) -> str:
        return hmac.new(self.key, content, hashlib.sha256).hexdigest()

    def runs_of(self, digests: list[str]) -> list[dict[str, Any]]:
        """Runs on the same table: at least half of the columns of the smaller one are those of the other."""
        found = []
        for run in self.runs:
            shared = len(set(digests) & set(run["columns"]))
            if shared and shared >= _SAME * min(len(set(digests)), len(set(run["columns"]))):
                found.append(run)
        return found

    def add(self, run: dict[str, Any]) -> None:
        """Write the register with one run more, for its owner alone to read: `mfld.files.locked` since it was read."""
        content = {"format": _FORMAT, "key": self.key.hex(), "runs": [*self.runs, run]}
        with replacing(self.path) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(json.dumps(content, indent=1).encode())
        self.runs.append(run)


def _content(column: Column) -> bytes:
    """Values of a column, sorted, whatever stands for those that are missing."""
    if column.categories is None:
        return np.sort(column.values.astype(np.float64) + 0.0).tobytes()
    counts = np.bincount(column.values + 1, minlength=len(column.categories) + 1)
    named = zip(["", *column.categories], counts.tolist(), strict=True)
    return json.dumps([pair for pair in named if pair[1]]).encode()


def _distinct(column: Column) -> int:
    return len(np.unique(column.values))


def _rows(columns: list[Column]) -> bytes:
    """Rows of columns in this order, sorted: by places among values, which are sorted too."""
    places = np.stack([np.unique(column.values, return_inverse=True)[1] for column in columns], axis=1)
    rows, counts = np.unique(places, axis=0, return_counts=True)
    return rows.astype(np.int64).tobytes() + counts.astype(np.int64).tobytes()
