"""Make a bundle's files of a trained model, and refuse one that serving would not answer for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.declarations.bundle import (
    GoldenPredictions,
    InputTensor,
    OutputTensor,
    RequestColumn,
    RequestSchema,
    Tensor,
)
from pipelines.declarations.contract import Contract
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model import Model, Task
from pipelines.training.api import TrainedModel
from pipelines.training.graph import Graph, Port, Runtime, tensors_of
from pipelines.training.metrics import Floats
from pipelines.training.sklearn_export import FEATURES

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-4
"""How far ONNX may be from the trained model: relative, and as a share of the predictions' range. A float32 carries 7
digits; a pipeline of a few steps keeps 5 of them."""

GOLDEN_ROWS = 5


@dataclass(frozen=True)
class Answers:
    """What the ONNX model says of the holdout; the trained model agrees.

    Attributes:
        tensors: the inputs.
        outputs: output name → array.
        predicted: (n,) predictions, or (n, classes) probabilities.
    """

    tensors: Mapping[str, np.ndarray[Any, Any]]
    outputs: Mapping[str, np.ndarray[Any, Any]]
    predicted: Floats


def text_features(model: Model, contract: Contract) -> tuple[str, ...]:
    """The features that are text, in the model's order; the others are numbers."""
    return tuple(name for name in model.features if contract.columns[name].logical_type == "string")


def request_schema(model: Model, contract: Contract, graph: Graph) -> RequestSchema:
    """What a request must look like: the graph's inputs, with the contract's bounds on each column.

    Raises:
        MlopsError: the graph does not take the model's features, or does not give what the task is to give.
    """
    text = text_features(model, contract)
    numeric = tuple(name for name in model.features if name not in text)
    expected = {name: Port(name, "BYTES", (-1, 1)) for name in text}
    if numeric:
        expected[FEATURES] = Port(FEATURES, "FP32", (-1, len(numeric)))
    found = {port.name: port for port in graph.inputs}
    if found != expected:
        raise MlopsError(
            f"the ONNX model of {model.name} takes {_ports(found.values())}; expected {_ports(expected.values())}",
            fix="numeric features are one FP32 tensor `features`, each text feature is its own tensor; "
            "from_sklearn exports them so",
        )
    _check_outputs(model, graph)
    inputs = tuple(
        InputTensor(
            name=port.name,
            datatype=port.datatype,
            shape=port.shape,
            columns=tuple(
                _column(contract, name) for name in (numeric if port.name == FEATURES and numeric else (port.name,))
            ),
        )
        for port in graph.inputs
    )
    outputs = tuple(OutputTensor(name=p.name, datatype=p.datatype, shape=p.shape) for p in graph.outputs)
    return RequestSchema(inputs=inputs, outputs=outputs)


def _column(contract: Contract, name: str) -> RequestColumn:
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
        values=column.valid_values,
        nullable=not column.required,
    )


def _check_outputs(model: Model, graph: Graph) -> None:
    found = {port.name: port for port in graph.outputs}
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
        raise MlopsError(f"the ONNX model of {model.name} gives {_ports(found.values())}; expected {expected}")


def _ports(ports: Any) -> str:
    return ", ".join(f"{p.name} {p.datatype} {list(p.shape)}" for p in sorted(ports, key=lambda p: str(p.name)))


def answer(
    task: Task, trained: TrainedModel, runtime: Runtime, features: pd.DataFrame, text: tuple[str, ...]
) -> Answers:
    """Run the ONNX model on the holdout and check that it answers as the trained model does, row by row.

    Raises:
        MlopsError: it answers differently; or differently when rows come one by one; or not with finite numbers.
    """
    tensors = tensors_of(features, text)
    outputs = runtime.run(tensors)
    name = "prediction" if task == "regression" else "probabilities"
    shape = (len(features),) if task == "regression" else (len(features), len(trained.classes or ()))
    found = np.asarray(outputs[name], dtype=np.float64)
    said = np.asarray(trained.predict(features), dtype=np.float64)
    if task == "regression":
        found = found.reshape(-1)
        said = said.reshape(-1) if said.shape == (len(features), 1) else said
    for who, values in (("predict", said), ("the ONNX model", found)):
        if values.shape != shape:
            raise MlopsError(f"{who} gives the shape {list(values.shape)}; expected {list(shape)}")
        if not np.isfinite(values).all():
            raise MlopsError(
                f"{who} gives {int((~np.isfinite(values)).sum())} values that are not finite on the holdout",
                fix="fill in missing values inside the model, or make the columns required in the contract",
            )
    span = float(said.max() - said.min()) if task == "regression" else 1.0
    apart = np.abs(found - said)
    beyond = apart > TOLERANCE * (span + np.abs(said))
    if beyond.any():
        rows = int(beyond.reshape(len(said), -1).any(axis=1).sum())
        raise MlopsError(
            f"the ONNX model does not predict what the trained model does: {rows} of {len(said)} holdout rows differ, "
            f"by up to {apart.max():.6g}",
            fix="predict and ONNX must be the same function; trees need features that a float32 holds exactly",
        )
    if task == "classification":
        label = np.asarray(trained.classes, dtype=object)[found.argmax(axis=1)]
        if [str(v) for v in label] != [str(v) for v in outputs["label"].tolist()]:
            raise MlopsError(
                "the label of the ONNX model is not the class with the highest probability",
                fix="`classes` must be in the order of the probabilities",
            )
    for row in range(min(GOLDEN_ROWS, len(features))):
        alone = runtime.run({key: value[row : row + 1] for key, value in tensors.items()})
        for key, value in alone.items():
            if not _close(value, outputs[key][row : row + 1], span):
                raise MlopsError(
                    f"the ONNX model's {key} for a row depends on the rows beside it",
                    fix="export in inference mode (batch normalisation, dropout)",
                )
    return Answers(tensors, outputs, found)


def _close(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], span: float) -> bool:
    if found.shape != expected.shape:
        return False
    if found.dtype.kind == "f":
        return bool(np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * span))
    return bool((found == expected).all())


def golden_predictions(schema: RequestSchema, answers: Answers) -> GoldenPredictions:
    """The first rows of the holdout, and what the ONNX model answered."""
    rows = min(GOLDEN_ROWS, len(answers.predicted))
    return GoldenPredictions(
        inputs=tuple(_tensor(t.name, t.datatype, answers.tensors[t.name][:rows]) for t in schema.inputs),
        outputs=tuple(_tensor(t.name, t.datatype, answers.outputs[t.name][:rows]) for t in schema.outputs),
        absolute_tolerance=1e-5,
        relative_tolerance=TOLERANCE,
    )


def _tensor(name: str, datatype: Any, values: np.ndarray[Any, Any]) -> Tensor:
    data = tuple(None if isinstance(v, float) and np.isnan(v) else v for v in values.ravel().tolist())
    return Tensor(name=name, datatype=datatype, shape=values.shape, data=data)
