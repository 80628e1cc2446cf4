"""Generators of tables: a mean-field GAN of the rows of a file, and rows like them."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfld import _core, files, generative, validation
from mfld.experiments.densities import Variable, as_csv, columns_of, form_of, read_rows
from mfld.experiments.tables import Format
from mfld.generative import Generator

_FORMAT = "generator 1"
_ARRAYS = ("centre", "scale", "generator", "critic")


@dataclass(frozen=True, eq=False)
class GeneratorModel:
    """Generator of the rows of a table, with what it takes to write rows like them.

    Attributes
    ----------
    generator : Generator
        Of the coordinates of all variables, in their order.
    variables : tuple of Variable
    rows : ndarray, shape (n, p)
        Coordinates of the rows that it was made from; None where it was read from a file.
    provenance : dict
        Where it comes from, and how it was fitted.
    """

    generator: Generator
    variables: tuple[Variable, ...]
    rows: NDArray[np.float64] | None
    provenance: dict[str, Any]

    @classmethod
    def fit(
        cls,
        source: str | os.PathLike[str],
        how: Format | None = None,
        *,
        drop: Collection[str] = (),
        missing: str = "refuse",
        seed: int = 0,
        **choices: Any,
    ) -> GeneratorModel:
        """Fit a generator to the rows of a file; arguments as in `DensityModel.fit` and `mfld.generative.fit`."""
        table, variables, rows = read_rows(source, how, drop=drop, missing=missing)
        found = generative.fit(rows, seed=seed, **choices)
        provenance = {
            "data": str(source),
            "rows": len(rows),
            "seed": seed,
            "version": _core.__version__,
            **form_of(table),
        }
        return cls(found, variables, rows, provenance)

    def csv(self, n_rows: int, seed: int = 0) -> str:
        """New rows, with columns, types, delimiter and decimal sign of the file, within the range that was seen."""
        points = self.generator.sample(validation.integer("n_rows", n_rows, 1), seed)
        return as_csv(columns_of(self.variables, points, self.provenance["decimal"]), self.provenance)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.npz`` file: arrays and one JSON text, nothing that could be executed. Replaced as a whole."""
        own = self.generator
        metadata = {
            "format": _FORMAT,
            "n_latent": own.game.generator.n_features,
            "variables": [asdict(variable) for variable in self.variables],
            "provenance": self.provenance,
        }
        with files.replacing(path) as file:
            np.savez(
                file,
                metadata=np.array(json.dumps(metadata)),
                centre=own.centre,
                scale=own.scale,
                generator=own.clouds["generator"].particles,
                critic=own.clouds["critic"].particles,
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GeneratorModel:
        """Read a file that `save` wrote.

        Raises
        ------
        OSError
            If it cannot be read.
        ValueError
            If it is no such file, or damaged.
        """
        content = Path(path).read_bytes()
        try:
            stored = files.arrays(io.BytesIO(content))
            arrays = {name: validation.array(name, stored[name]) for name in _ARRAYS}
            metadata = json.loads(str(stored["metadata"][()]))
            if metadata["format"] != _FORMAT:
                raise ValueError(f"its format is {metadata['format']}")
            variables = tuple(
                Variable(**{**each, "categories": tuple(each["categories"])}) for each in metadata["variables"]
            )
            found = generative.rebuilt(metadata["n_latent"], *(arrays[name] for name in _ARRAYS))
            return cls(found, variables, None, metadata["provenance"])
        except Exception as error:
            raise ValueError(f"{path} is not a generator file of mfld: {error}") from error
