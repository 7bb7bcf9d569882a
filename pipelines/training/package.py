"""Files of a bundle: the request schema and the golden predictions, from a model that agrees with its ONNX export."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.declarations.bundle import (
    GoldenPredictions,
    InputTensor,
    RequestColumn,
    RequestSchema,
    Tensor,
    TensorSpec,
)
from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Column, Contract
from pipelines.declarations.datatypes import Datatype
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model import Model, Task
from pipelines.declarations.printable import shorten
from pipelines.training.api import FEATURES, TrainedModel
from pipelines.training.metrics import Floats
from pipelines.training.onnx_graph import OnnxGraph, first_line
from pipelines.training.rows import text_features

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.serving.runtime import LoadedModel

LONGEST_LIST = 2000
"""Length limit of a list of inputs or outputs in a message, in characters."""

TOLERANCE = 1e-4
"""Allowed difference between ONNX and the trained model: relative, and as a share of the predictions' range. A float32
holds 7 digits; a pipeline of a few steps keeps 5 of them."""

GOLDEN_ROWS = 5
"""Number of holdout rows in the golden predictions."""

ROWS_AT_ONCE = 16_384
"""Number of holdout rows that the ONNX model predicts at once."""


@dataclass(frozen=True)
class HoldoutAnswers:
    """Answers of the ONNX model to the holdout, which agree with the trained model.

    Attributes:
        tensors: input name → array.
        outputs: output name → array.
        predicted: (n,) predictions, or (n, classes) probabilities.
    """

    tensors: Mapping[str, np.ndarray[Any, Any]]
    outputs: Mapping[str, np.ndarray[Any, Any]]
    predicted: Floats


def request_schema(model: Model, contract: Contract, graph: OnnxGraph) -> RequestSchema:
    """Make the request schema: the inputs of a graph, with the contract's bounds for each column.

    Raises:
        MlopsError: the graph's inputs are not the model's features, or its outputs do not fit the task.
    """
    text = text_features(model, contract)
    numeric = tuple(name for name in model.features if name not in text)
    expected = {name: TensorSpec(name=name, datatype="BYTES", shape=(-1, 1)) for name in text}
    if numeric:
        expected[FEATURES] = TensorSpec(name=FEATURES, datatype="FP32", shape=(-1, len(numeric)))
    found = {tensor.name: tensor for tensor in graph.inputs}
    if found != expected:
        raise MlopsError(
            f"inputs of the ONNX model of {model.name}: expected {_listed(expected.values())}, "
            f"found {_listed(found.values())}",
            fix="export numeric features as one FP32 tensor `features` and each text feature as a tensor of its name, "
            "as from_sklearn does",
        )
    _check_outputs(model, graph)
    inputs = tuple(
        InputTensor(
            name=tensor.name,
            datatype=tensor.datatype,
            shape=tensor.shape,
            columns=tuple(
                _column(contract, name, optional=name in model.serving.optional_features)
                for name in (numeric if tensor.name == FEATURES and numeric else (tensor.name,))
            ),
        )
        for tensor in graph.inputs
    )
    return RequestSchema(inputs=inputs, outputs=graph.outputs)


def _column(contract: Contract, name: str, *, optional: bool) -> RequestColumn:
    column = contract.columns[name]
    options = column.options

    def number(bound: Any) -> float | None:
        return None if bound is None else float(bound)

    return RequestColumn(
        name=name,
        minimum=number(options.minimum),
        maximum=number(options.maximum),
        exclusive_minimum=number(options.exclusive_minimum),
        exclusive_maximum=number(options.exclusive_maximum),
        # Booleans are numbers in a tensor.
        values=(0, 1) if column.logical_type == "boolean" and column.valid_values is None else column.valid_values,
        nullable=not column.required,
        personal=is_personal(column),
        optional=optional,
    )


def _check_outputs(model: Model, graph: OnnxGraph) -> None:
    found = {tensor.name: tensor for tensor in graph.outputs}
    if model.task == "regression":
        good = set(found) == {"prediction"} and (
            (found["prediction"].datatype, found["prediction"].shape) in (("FP32", (-1,)), ("FP32", (-1, 1)))
        )
        expected = "prediction FP32 [-1] or [-1, 1]"
    else:
        good = (
            set(found) == {"label", "probabilities"}
            and found["label"].datatype in ("INT64", "BYTES")
            and found["label"].shape == (-1,)
            and found["probabilities"].datatype == "FP32"
            and len(found["probabilities"].shape) == 2
        )
        expected = "label INT64 or BYTES [-1] and probabilities FP32 [-1, classes]"
    if not good:
        raise MlopsError(
            f"outputs of the ONNX model of {model.name}: expected {expected}, found {_listed(found.values())}"
        )


def _listed(tensors: Iterable[TensorSpec]) -> str:
    listed = (f"{t.name} {t.datatype} {list(t.shape)}" for t in sorted(tensors, key=lambda t: t.name))
    return shorten(", ".join(listed), LONGEST_LIST)


def answer_holdout(
    task: Task,
    trained: TrainedModel,
    model: LoadedModel,
    graph: OnnxGraph,
    features: pd.DataFrame,
    text: tuple[str, ...],
) -> HoldoutAnswers:
    """Run the ONNX model on the holdout as the server would; check that it agrees with the trained model.

    Args:
        task: regression or classification.
        trained: the trained model.
        model: its ONNX export, which predicts.
        graph: inputs and outputs of the ONNX export.
        features: features of the holdout, like `TrainingData.features`.
        text: names of the features that are text.

    Raises:
        MlopsError: predictions differ, are not finite, or change when rows are sent one at a time.
    """
    tensors = tensors_of(features, text)
    outputs = _run(model, graph.outputs, tensors, len(features))
    name = "prediction" if task == "regression" else "probabilities"
    shape = (len(features),) if task == "regression" else (len(features), len(trained.classes or ()))
    found = np.asarray(outputs[name], dtype=np.float64)
    expected = np.asarray(trained.predict(features), dtype=np.float64)
    if task == "regression":
        found = found.reshape(-1)
        expected = expected.reshape(-1) if expected.shape == (len(features), 1) else expected
    for source, values in (("predict()", expected), ("the ONNX model", found)):
        if values.shape != shape:
            raise MlopsError(
                f"shape of the predictions of {source}: expected {list(shape)}, found {list(values.shape)}"
            )
        if not np.isfinite(values).all():
            raise MlopsError(
                f"predictions of {source} on the holdout: expected finite values, "
                f"found {int((~np.isfinite(values)).sum())} that are not",
                fix="fill in missing values inside the model, or make the columns required in the contract",
            )
    span = float(expected.max() - expected.min()) if task == "regression" else 1.0
    apart = np.abs(found - expected)
    beyond = apart > TOLERANCE * (span + np.abs(expected))
    if beyond.any():
        rows = int(beyond.reshape(len(expected), -1).any(axis=1).sum())
        raise MlopsError(
            f"the ONNX model does not predict what the trained model does: {rows} of {len(expected)} holdout rows "
            f"differ, by up to {apart.max():.6g}",
            fix="export the function that predict() computes; trees need features that a float32 holds exactly",
        )
    if task == "classification":
        label = np.asarray(trained.classes, dtype=object)[found.argmax(axis=1)]
        if [str(v) for v in label] != [str(v) for v in outputs["label"].tolist()]:
            raise MlopsError(
                "the label of the ONNX model is not the class with the highest probability",
                fix="list `classes` in the order of the probabilities",
            )
    _check_single_rows(model, tensors, outputs, min(GOLDEN_ROWS, len(features)), span)
    return HoldoutAnswers(tensors, outputs, found)


def tensors_of(features: pd.DataFrame, text: tuple[str, ...]) -> dict[str, np.ndarray[Any, Any]]:
    """Make the model's inputs: the numbers as one FP32 tensor, each text feature as a tensor of its name.

    Args:
        features: like `TrainingData.features`.
        text: names of the features that are text.
    """
    numeric = [name for name in features.columns if name not in text]
    tensors = {name: features[name].to_numpy(dtype=object).reshape(-1, 1) for name in text}
    if numeric:
        tensors[FEATURES] = features[numeric].to_numpy(dtype=np.float32)
    return tensors


def _run(
    model: LoadedModel, outputs: Sequence[TensorSpec], tensors: Mapping[str, np.ndarray[Any, Any]], rows: int
) -> dict[str, np.ndarray[Any, Any]]:
    parts = []
    for start in range(0, rows, ROWS_AT_ONCE):
        try:
            parts.append(model.run({name: values[start : start + ROWS_AT_ONCE] for name, values in tensors.items()}))
        except MlopsError:
            raise
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise MlopsError(f"the ONNX model fails on rows of the holdout: {first_line(error)}") from None
    return {tensor.name: np.concatenate([part[at] for part in parts]) for at, tensor in enumerate(outputs)}


def _check_single_rows(
    model: LoadedModel,
    tensors: Mapping[str, np.ndarray[Any, Any]],
    outputs: Mapping[str, np.ndarray[Any, Any]],
    rows: int,
    span: float,
) -> None:
    """Predict the first rows one at a time, by the code path that the server takes for one row."""
    for row in range(rows):
        for name, values in tensors.items():
            model.row[name][:] = values[row : row + 1]
        try:
            answered = model.run_row()
        except MlopsError:
            raise
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise MlopsError(f"the ONNX model fails on a single row of the holdout: {first_line(error)}") from None
        for (name, batch), found in zip(outputs.items(), answered, strict=True):
            expected = batch[row : row + 1].ravel()
            if not _close(np.asarray(found, expected.dtype), expected, span):
                raise MlopsError(
                    f"the ONNX model's {name} for a row depends on other rows",
                    fix="export the model in inference mode (batch normalisation, dropout)",
                )


def _close(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], span: float) -> bool:
    if found.shape != expected.shape:
        return False
    if found.dtype.kind == "f":
        return bool(np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * span))
    return bool((found == expected).all())


def golden_predictions(schema: RequestSchema, contract: Contract, model: LoadedModel, answers: HoldoutAnswers) -> (
    GoldenPredictions
):  # fmt: skip
    """Make golden predictions of the first rows of the holdout, with invented values in personal columns.

    Args:
        schema: the request schema.
        contract: contract of the dataset.
        model: the ONNX model.
        answers: its answers to the holdout.

    Raises:
        MlopsError: the ONNX model fails on the invented values.
    """
    rows = min(GOLDEN_ROWS, len(answers.predicted))
    tensors = {tensor.name: answers.tensors[tensor.name][:rows].copy() for tensor in schema.inputs}
    outputs = {tensor.name: answers.outputs[tensor.name][:rows] for tensor in schema.outputs}
    if any(column.personal for tensor in schema.inputs for column in tensor.columns):
        for tensor in schema.inputs:
            for at, column in enumerate(tensor.columns):
                if column.personal:
                    tensors[tensor.name][:, at] = invented_values(contract.columns[column.name], rows)
        outputs = _run(model, schema.outputs, tensors, rows)
    return GoldenPredictions(
        inputs=tuple(_input(t, tensors[t.name]) for t in schema.inputs),
        outputs=tuple(_tensor(t.name, t.datatype, outputs[t.name]) for t in schema.outputs),
        absolute_tolerance=1e-5,
        relative_tolerance=TOLERANCE,
    )


def invented_values(column: Column, rows: int) -> list[Any]:
    """Return values that the contract allows and that are nobody's: listed ones in turn, or some within the bounds.

    Text without a list is missing if it may be, and the word `invented` otherwise.
    """
    listed = (0, 1) if column.logical_type == "boolean" and column.valid_values is None else column.valid_values
    if listed:
        return [listed[row % len(listed)] for row in range(rows)]
    if column.logical_type == "string":
        return ["invented" if column.required else ""] * rows
    low, high = _bounds(column)
    if low is None:
        low = 0.0 if high is None else high - rows - 1
    if high is None:
        high = low + rows + 1
    steps = [low + (high - low) * (row + 1) / (rows + 1) for row in range(rows)]
    return [float(round(step)) for step in steps] if column.logical_type == "integer" else steps


def _bounds(column: Column) -> tuple[float | None, float | None]:
    """Return the least and the greatest number that a column may have; for other numbers than integers, about that."""
    options, one = column.options, 1.0 if column.logical_type == "integer" else 0.0
    least = _numbers((options.minimum, 0.0), (options.exclusive_minimum, one))
    greatest = _numbers((options.maximum, 0.0), (options.exclusive_maximum, -one))
    return max(least, default=None), min(greatest, default=None)


def _numbers(*bounds: tuple[Any, float]) -> list[float]:
    return [float(bound) + inside for bound, inside in bounds if isinstance(bound, int | float)]


def _input(schema: InputTensor, values: np.ndarray[Any, Any]) -> Tensor:
    """Make an input as a client sends it: null for missing text, which is "" in training."""
    tensor = _tensor(schema.name, schema.datatype, values)
    if schema.datatype != "BYTES" or not schema.columns[0].nullable:
        return tensor
    return tensor.model_copy(update={"data": tuple(value or None for value in tensor.data)})


def _tensor(name: str, datatype: Datatype, values: np.ndarray[Any, Any]) -> Tensor:
    data = tuple(None if isinstance(v, float) and np.isnan(v) else v for v in values.ravel().tolist())
    return Tensor(name=name, datatype=datatype, shape=values.shape, data=data)
