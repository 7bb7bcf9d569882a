"""Predict many rows at once, each judged by itself: what a batch prediction does in place of requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.declarations.bundle import Bundle, GoldenPredictions, RequestSchema
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import MlopsError
from pipelines.serving.predictor import MOST_ROWS, LoadModel, Predictor
from pipelines.serving.tensors import TensorReader, WrongValue


@dataclass(frozen=True)
class ScoredRows:
    """Answers of a model to some rows.

    Attributes:
        answered: numbers of the rows that the model answered, from 0, ascending.
        outputs: output → array with a row for each of them.
        wrong: values that the request schema does not allow, which refuse their rows.
        undefined: numbers of the rows that the model has no finite answer for.
        failed: numbers of the rows at which the model fails.
    """

    answered: list[int]
    outputs: dict[str, Any]
    wrong: list[WrongValue]
    undefined: list[int]
    failed: list[int] = field(default_factory=list)


class RowScorer:
    """Predicts rows with the model of one bundle, by the checks and the runtime of the inference server.

    A request with one wrong value is refused as a whole; here, only its row is.

    Args:
        manifest: manifest of the bundle.
        files: name → content; at least `model.onnx`, `schema.json` and `golden.json`.
        load: loads the model, once. A job with rights lets another process do it.

    Raises:
        MlopsError: the model cannot be loaded, does not match its request schema, or does not repeat its golden
            predictions.
    """

    def __init__(self, manifest: Bundle, files: Mapping[str, bytes], load: LoadModel) -> None:
        self.schema = parse(files["schema.json"], RequestSchema, Path("schema.json"))
        self._model = load(files["model.onnx"], self.schema.inputs, self.schema.outputs)
        golden = parse(files["golden.json"], GoldenPredictions, Path("golden.json"))
        Predictor(manifest, files, load=lambda *_: self._model).check_golden(golden)
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
        names = [tensor.name for tensor in self.schema.outputs]
        parts = list(self._answers(values, good, rows))
        failed = [row for part, found in parts if found is None for row in part]
        good = [row for part, found in parts if found is not None for row in part]
        if not good:
            return ScoredRows([], {}, wrong, [], failed)
        answers = [found for _, found in parts if found is not None]
        outputs = {
            name: answers[0][at] if len(answers) == 1 else np.concatenate([found[at] for found in answers])
            for at, name in enumerate(names)
        }
        finite = np.ones(len(good), dtype=bool)
        for tensor in self.schema.outputs:
            if tensor.datatype in ("FP32", "FP64"):
                finite &= np.isfinite(outputs[tensor.name]).reshape(len(good), -1).all(axis=1)
        if finite.all():
            return ScoredRows(good, outputs, wrong, [], failed)
        answered = [row for row, is_finite in zip(good, finite, strict=True) if is_finite]
        undefined = [row for row, is_finite in zip(good, finite, strict=True) if not is_finite]
        outputs = {name: array[finite] for name, array in outputs.items()}
        return ScoredRows(answered, outputs, wrong, undefined, failed)

    def _answers(
        self, values: Mapping[str, list[Any]], chosen: list[int], rows: int
    ) -> Iterator[tuple[list[int], list[Any] | None]]:
        """Yield parts of the chosen rows with the model's outputs; None for a row at which the model fails.

        Rows are halved until the rest works, so that one row does not fail the others.
        """
        if not chosen:
            return
        feed = {
            name: reader.to_array(_rows_of(values[name], reader.width, chosen, rows), len(chosen))
            for name, reader in self._readers.items()
        }
        found: list[Any] | None
        try:
            found = list(map(np.asarray, self._model.run(feed)))
        except (MemoryError, MlopsError):  # not about these rows
            raise
        except Exception:  # onnxruntime's exceptions have no common base class; their messages quote values
            found = None
        if found is None and len(chosen) > 1:
            middle = len(chosen) // 2
            yield from self._answers(values, chosen[:middle], rows)
            yield from self._answers(values, chosen[middle:], rows)
            return
        if found is not None:
            for tensor, array in zip(self.schema.outputs, found, strict=True):
                shape = (len(chosen), *tensor.shape[1:])
                if array.shape != shape:
                    raise RuntimeError(f"output {tensor.name!r} has the shape {array.shape}, not {shape}")
        yield chosen, found


def _rows_of(values: list[Any], width: int, chosen: list[int], rows: int) -> list[Any]:
    if len(chosen) == rows:
        return values
    return [value for row in chosen for value in values[row * width : (row + 1) * width]]
