"""ONNX models made without a training framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper

from pipelines.declarations.model import Task
from pipelines.serving.runtime import OnnxModel
from pipelines.training import TrainedModel
from pipelines.training.onnx_graph import OnnxGraph
from pipelines.training.package import HoldoutAnswers, answer_holdout

OPSET = [helper.make_opsetid("", 18)]


def make_model(
    nodes: list[Any],
    inputs: Sequence[tuple[str, int, Sequence[Any]]],
    outputs: Sequence[tuple[str, int, Sequence[Any]]],
    weights: dict[str, Any] | None = None,
    opsets: list[Any] | None = None,
) -> onnx.ModelProto:
    """Make a model of `nodes`; inputs and outputs are (name, element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(*entry) for entry in inputs],
        [helper.make_tensor_value_info(*entry) for entry in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=opsets or OPSET, ir_version=10)


def linear(weights: list[float], rows: Any = "rows") -> onnx.ModelProto:
    """Make a model of `prediction` = `features` · weights."""
    return make_model(
        [helper.make_node("MatMul", ["features", "w"], ["prediction"])],
        [("features", TensorProto.FLOAT, [rows, len(weights)])],
        [("prediction", TensorProto.FLOAT, [rows, 1])],
        {"w": np.array(weights, np.float32).reshape(-1, 1)},
    )


def crashing_model(features: int) -> onnx.ModelProto:
    """Make a valid model that ends the process on x86: the quotient of the least integer and -1 is not an integer."""
    nodes = [
        helper.make_node("ReduceSum", ["features", "axis"], ["sum"], keepdims=1),
        helper.make_node("Shape", ["sum"], ["shape"]),
        helper.make_node("Expand", ["least", "shape"], ["dividend"]),
        helper.make_node("Expand", ["minus_one", "shape"], ["divisor"]),
        helper.make_node("Div", ["dividend", "divisor"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["prediction"], to=TensorProto.FLOAT),
    ]
    weights = {"axis": np.array([1]), "least": np.array([-(2**63)]), "minus_one": np.array([-1])}
    return _regression(nodes, features, weights)


def endless_model(features: int) -> onnx.ModelProto:
    """Make a valid model that does not end."""
    ports = {"number": (TensorProto.INT64, []), "go": (TensorProto.BOOL, []), "value": (TensorProto.FLOAT, [1])}
    step = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in ("go", "value")],
        "step",
        [helper.make_tensor_value_info(name, *port) for name, port in ports.items()],
        [helper.make_tensor_value_info(f"{name}_out", *ports[name]) for name in ("go", "value")],
    )
    nodes = [
        helper.make_node("Loop", ["times", "yes", "zero"], ["looped"], body=step),
        helper.make_node("ReduceSum", ["features", "axis"], ["sum"], keepdims=1),
        helper.make_node("Add", ["sum", "looped"], ["prediction"]),
    ]
    weights = {"axis": np.array([1]), "times": np.array(2**62), "yes": np.array(True), "zero": np.zeros(1, np.float32)}
    return _regression(nodes, features, weights)


def _regression(nodes: list[Any], features: int, weights: dict[str, Any]) -> onnx.ModelProto:
    inputs, outputs = ([(name, TensorProto.FLOAT, ["rows", width])] for name, width in
                       (("features", features), ("prediction", 1)))  # fmt: skip
    return make_model(nodes, inputs, outputs, weights)


def load_graph(graph: OnnxGraph) -> OnnxModel:
    """Load a graph in this process, as the inference server does."""
    return OnnxModel(graph.content, graph.inputs, graph.outputs)


def answers_of(
    task: Task, trained: TrainedModel, graph: OnnxGraph, features: pd.DataFrame, text: tuple[str, ...] = ()
) -> HoldoutAnswers:
    """Answer a holdout by a graph that this process has loaded."""
    return answer_holdout(task, trained, load_graph(graph), graph, features, text)
