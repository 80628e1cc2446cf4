"""A trained model with everything that it takes to use it on raw data, and its file."""

from __future__ import annotations

import io
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import _core, files, fitting, validation
from mfld.experiments.datasets import Dataset
from mfld.experiments.encoding import Encoding
from mfld.losses import Loss
from mfld.models import TwoLayerNetwork
from mfld.residual import ResidualNetwork
from mfld.validation import FloatArray

_FORMAT = 5
_READABLE = (2, 3, 4, 5)  # 2 had no weights, 3 no bend, 4 no projection
_SCALING = {
    "centre": "input_mean",
    "scale": "input_scale",
    "bend": "input_bend",
    "projection": "input_projection",
}  # names in the file
_ARRAYS = ("particles", "target_mean", "target_scale", "classes", "test_rows", "weights")


@dataclass(frozen=True)
class Scores:
    """How good predictions are: the mean loss, and a score that `measure` names, ``accuracy`` or ``R2``."""

    loss: float
    score: float
    measure: str


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """Particles of a two-layer network, how columns become its inputs and outputs, and how it was made.

    Attributes
    ----------
    model : TwoLayerNetwork or ResidualNetwork
    particles : ndarray, shape (N, p), or (depth, N, p)
    weights : ndarray, shape (N,), optional
        Of the particles, of sum 1; None where they weigh the same.
    loss : Loss
        On standardised targets in a regression.
    encoding : Encoding
        How the columns of a table become features.
    scaling : mfld.fitting.Scaling
        How features become inputs.
    target_mean, target_scale : float
        0 and 1 for classes.
    classes : ndarray or None
        Labels in the order of the outputs (of two, the second has the positive output); None for a regression.
    test_rows : ndarray of int
        Rows of the data set that were held out.
    hyperparameters : dict
        Every choice of the run.
    provenance : dict
        Data, fingerprint and number of rows, validation losses, version and kernels of mfld, scores.
    """

    model: TwoLayerNetwork | ResidualNetwork
    particles: FloatArray
    loss: Loss
    encoding: Encoding
    scaling: fitting.Scaling
    target_mean: float
    target_scale: float
    classes: NDArray[Any] | None
    test_rows: NDArray[np.int64]
    hyperparameters: dict[str, Any]
    provenance: dict[str, Any]
    weights: FloatArray | None = None

    def standardised(self, inputs: ArrayLike, rows: NDArray[np.int64] | None = None) -> FloatArray:
        """Inputs, or these rows of them, as the network takes them; read-only."""
        inputs = np.asarray(inputs, np.float64)
        return self.scaling.apply(inputs, self.particles.dtype, rows)

    def encoded(self, targets: ArrayLike) -> NDArray[np.float64]:
        """Targets as the loss takes them: signs, class numbers, or standardised numbers."""
        targets = np.asarray(targets)
        if self.classes is None:
            return (targets.astype(np.float64) - self.target_mean) / self.target_scale
        return fitting.encoded(targets, self.classes, self.loss)

    def outputs(
        self, inputs: ArrayLike, rows: NDArray[np.int64] | None = None, num_threads: int | None = None
    ) -> FloatArray:
        """Raw outputs of the network, shape (n,) or (n, n_outputs)."""
        return self.model.predict(self.particles, self.standardised(inputs, rows), self.weights, num_threads)

    def predict(self, inputs: ArrayLike, num_threads: int | None = None) -> NDArray[Any]:
        """Predicted labels or numbers, shape (n,)."""
        return self._predicted(self.outputs(inputs, num_threads=num_threads))

    def scores(
        self,
        inputs: ArrayLike,
        targets: ArrayLike,
        rows: NDArray[np.int64] | None = None,
        num_threads: int | None = None,
    ) -> Scores:
        """Mean loss, and accuracy or R2; of these rows where some are given."""
        targets = np.asarray(targets) if rows is None else np.asarray(targets)[rows]
        outputs = self.outputs(inputs, rows, num_threads)
        loss = float(self.loss.value(outputs.astype(np.float64), self.encoded(targets)).mean())
        predicted = self._predicted(outputs)
        if self.classes is not None:
            return Scores(loss, float(np.mean(predicted == targets)), "accuracy")
        residual = np.sum((targets - predicted) ** 2)
        total = np.sum((targets - targets.mean()) ** 2)
        # Of a single row, or of equal targets, there is no variance to explain.
        return Scores(loss, float(1 - residual / total) if total > 0 else math.nan, "R2")

    def row_losses(
        self, inputs: ArrayLike, targets: ArrayLike, rows: NDArray[np.int64], num_threads: int | None = None
    ) -> NDArray[np.float64]:
        """Loss of each of these rows."""
        outputs = self.outputs(inputs, rows, num_threads).astype(np.float64)
        return self.loss.value(outputs, self.encoded(np.asarray(targets)[rows])).astype(np.float64, copy=False)

    def split_scores(self, data: Dataset, num_threads: int | None = None) -> dict[str, Scores]:
        """Scores on the training and on the held-out rows of the data set that the model was trained on."""
        rows = np.setdiff1d(np.arange(len(data.inputs)), self.test_rows)
        return {
            name: self.scores(data.inputs, data.targets, part, num_threads)
            for name, part in (("train", rows), ("test", self.test_rows))
        }

    def _predicted(self, outputs: FloatArray) -> NDArray[Any]:
        if self.classes is None:
            return outputs.astype(np.float64) * self.target_scale + self.target_mean
        return fitting.decided(outputs, self.classes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.npz`` file: arrays and one JSON text, nothing that could be executed. Replaced as a whole.

        Raises
        ------
        OSError
            If it cannot be written; a file that was there before is then untouched.
        """
        # The domain of its training is of no use to predictions.
        model = {name: value for name, value in asdict(self.model).items() if name not in ("domain", "layer", "step")}
        metadata = {
            "format": _FORMAT,
            "model": model,
            "loss": self.loss.name,
            "loss_parameter": self.loss.parameter,
            "encoding": self.encoding.as_json(),
            "hyperparameters": self.hyperparameters,
            "provenance": self.provenance,
        }
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {stored: getattr(self.scaling, name) for name, stored in _SCALING.items()}
        arrays = {name: array for name, array in arrays.items() if array is not None}
        with files.replacing(path) as file:
            np.savez(file, metadata=np.array(json.dumps(metadata)), **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TrainedModel:
        """Read a file that `save` wrote.

        Raises
        ------
        OSError
            If it cannot be read.
        ValueError
            If it is no model file, one of another format, or damaged: the message has its name.
        """
        content = Path(path).read_bytes()  # by itself: what cannot be read is an OSError, and all else the file's fault
        try:
            arrays = files.arrays(io.BytesIO(content))
            metadata = json.loads(str(arrays.pop("metadata")[()]))
            found = metadata["format"]
        except Exception as error:
            raise ValueError(f"{path} is not a model file of mfld: {error}") from error
        if found not in _READABLE:
            known = ", ".join(map(str, _READABLE))
            raise ValueError(f"{path} has model format {found}; this mfld {_core.__version__} reads {known}")
        try:
            parameter = metadata["loss_parameter"]
            loss = Loss(metadata["loss"])
            if parameter is not None:
                loss = Loss(metadata["loss"], **{str(loss.parameter_name): parameter})
            loaded = cls(
                model=_model(metadata["model"]),
                loss=loss,
                encoding=Encoding.from_json(metadata["encoding"]),
                hyperparameters=metadata["hyperparameters"],
                provenance=metadata["provenance"],
                particles=arrays["particles"],
                scaling=fitting.Scaling(
                    arrays["input_mean"],
                    arrays["input_scale"],
                    arrays.get("input_bend", np.full(len(arrays["input_mean"]), np.inf)),  # none before format 4
                    arrays.get("input_projection"),
                ),
                target_mean=float(arrays["target_mean"]),
                target_scale=float(arrays["target_scale"]),
                classes=arrays.get("classes"),
                test_rows=arrays["test_rows"],
                weights=arrays.get("weights"),
            )
            loaded._check()
        except Exception as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"{path} is a damaged model file: {what}") from error
        return loaded

    def _check(self) -> None:
        """Raise TypeError or ValueError where the parts do not fit."""
        model = self.model
        expected: tuple[int | str, ...] = (*model.members, "N", model.n_coordinates)
        validation.shape("particles", validation.array("particles", self.particles), expected)
        if self.weights is not None:
            validation.weights("weights", self.weights, self.particles.shape[:-1], "to match particles", np.float64)
        projection, n_columns = self.scaling.projection, model.n_features
        if projection is not None:
            validation.shape("input_projection", validation.array("input_projection", projection), ("T", n_columns))
            n_columns = len(projection)
        for name in ("centre", "scale", "bend"):
            stored, values = _SCALING[name], getattr(self.scaling, name)
            if name != "bend":
                validation.array(stored, values)
            validation.shape(stored, values, (n_columns,))
            if name != "centre" and not (values > 0).all():
                raise ValueError(f"{stored} must be positive, got {values.min()}")
        if not (math.isfinite(self.target_mean) and 0 < self.target_scale < math.inf):
            raise ValueError(f"targets must have a finite mean and scale, got {self.target_mean}, {self.target_scale}")
        if len(self.encoding.feature_names) != n_columns:
            raise ValueError(f"encoding must have {n_columns} features, got {self.encoding.feature_names}")
        if self.test_rows.dtype.kind not in "iu" or self.test_rows.ndim != 1:
            raise TypeError(f"test_rows must be integers of shape (n,), got {self.test_rows.dtype}")
        n_outputs = 1 if self.classes is None else fitting.n_outputs(len(self.classes), self.loss)
        if n_outputs != model.n_outputs:
            raise ValueError(f"model must have {n_outputs} outputs to suit the classes, got {model.n_outputs}")


def _model(stored: dict[str, Any]) -> TwoLayerNetwork | ResidualNetwork:
    """The network of a file: one with a depth is a residual network."""
    return ResidualNetwork(**stored) if "depth" in stored else TwoLayerNetwork(**stored)
