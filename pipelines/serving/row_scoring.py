"""Predict many rows at once, each judged by itself: what a batch prediction does in place of requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.declarations.bundle import Bundle, GoldenPredictions, RequestSchema
from pipelines.declarations.documents import parse
from pipelines.serving.predictor import MOST_ROWS, Predictor
from pipelines.serving.runtime import OnnxModel
from pipelines.serving.tensors import TensorReader, WrongValue


@dataclass(frozen=True)
class ScoredRows:
    """Answers of a model to some rows.

    Attributes:
        answered: numbers of the rows that the model answered, from 0, ascending.
        outputs: output → array with a row for each of them.
        wrong: values that the request schema does not allow, which refuse their rows.
        undefined: numbers of the rows that the model has no finite answer for.
    """

    answered: list[int]
    outputs: dict[str, Any]
    wrong: list[WrongValue]
    undefined: list[int]


class RowScorer:
    """Predicts rows with the model of one bundle, by the checks and the runtime of the inference server.

    A request with one wrong value is refused as a whole; here, only its row is.

    Args:
        manifest: manifest of the bundle.
        files: name → content; at least `model.onnx`, `schema.json` and `golden.json`.

    Raises:
        MlopsError: the model cannot be loaded, does not match its request schema, or does not repeat its golden
            predictions.
    """

    def __init__(self, manifest: Bundle, files: Mapping[str, bytes]) -> None:
        Predictor(manifest, files).check_golden(parse(files["golden.json"], GoldenPredictions, Path("golden.json")))
        self.schema = parse(files["schema.json"], RequestSchema, Path("schema.json"))
        self._model = OnnxModel(files["model.onnx"], self.schema.inputs, self.schema.outputs)
        self._readers = {
            tensor.name: TensorReader(tensor, self._model.row[tensor.name], most_rows=MOST_ROWS)
            for tensor in self.schema.inputs
        }

    def score(self, values: Mapping[str, list[Any]], rows: int) -> ScoredRows:
        """Predict rows.

        Args:
            values: input → its values in row-major order, with None for null.
            rows: number of rows.
        """
        wrong = [each for name, reader in self._readers.items() for each in reader.find_wrong(values[name], rows)]
        refused = {each.row for each in wrong}
        good = [row for row in range(rows) if row not in refused]
        if not good:
            return ScoredRows([], {}, wrong, [])
        feed = {
            name: reader.to_array(_rows_of(values[name], reader.width, good, rows), len(good))
            for name, reader in self._readers.items()
        }
        names = [tensor.name for tensor in self.schema.outputs]
        outputs = dict(zip(names, map(np.asarray, self._model.run(feed)), strict=True))
        finite = np.ones(len(good), dtype=bool)
        for tensor in self.schema.outputs:
            array, shape = outputs[tensor.name], (len(good), *tensor.shape[1:])
            if array.shape != shape:
                raise RuntimeError(f"output {tensor.name!r} has the shape {array.shape}, not {shape}")
            if tensor.datatype in ("FP32", "FP64"):
                finite &= np.isfinite(array).reshape(len(good), -1).all(axis=1)
        if finite.all():
            return ScoredRows(good, outputs, wrong, [])
        answered = [row for row, is_finite in zip(good, finite, strict=True) if is_finite]
        undefined = [row for row, is_finite in zip(good, finite, strict=True) if not is_finite]
        return ScoredRows(answered, {name: array[finite] for name, array in outputs.items()}, wrong, undefined)


def _rows_of(values: list[Any], width: int, chosen: list[int], rows: int) -> list[Any]:
    if len(chosen) == rows:
        return values
    return [value for row in chosen for value in values[row * width : (row + 1) * width]]
