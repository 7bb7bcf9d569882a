"""The ONNX graph of a bundle: whether it may be served, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.declarations.bundle import Datatype
from pipelines.declarations.errors import MlopsError
from pipelines.training.sklearn_export import FEATURES

if TYPE_CHECKING:
    import onnx
    import pandas as pd

LARGEST_MODEL = 512 << 20
"""Bytes."""

DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
"""Operator sets that onnxruntime brings; any other would need code of its own in the serving image."""

RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
"""Operators whose output is not decided by their input."""

DATATYPES: dict[int, Datatype] = {1: "FP32", 6: "INT32", 7: "INT64", 8: "BYTES", 9: "BOOL", 11: "FP64"}
"""ONNX element type (`TensorProto.DataType`) → datatype of the Open Inference Protocol."""


@dataclass(frozen=True)
class Port:
    """An input or an output of a graph.

    Attributes:
        name: in the graph.
        datatype: of its elements.
        shape: -1 stands for the number of rows.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """A checked model.

    Attributes:
        content: its serialised bytes.
        inputs, outputs: in the graph's order.
    """

    content: bytes
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def check_graph(model: onnx.ModelProto | bytes) -> Graph:
    """Check that a model can be served: well formed, self-contained, standard operators, rows in one dimension.

    Raises:
        MlopsError: it can not; says why.
    """
    import onnx

    content = model if isinstance(model, bytes) else model.SerializeToString(deterministic=True)
    if len(content) > LARGEST_MODEL:
        raise MlopsError(f"the ONNX model has {len(content)} bytes; expected at most {LARGEST_MODEL}")
    try:
        parsed = onnx.load_model_from_string(content)
    except Exception:
        # protobuf's own exception types differ between its implementations
        raise MlopsError("the bytes that train() returned are not an ONNX model") from None
    for node in _nodes(parsed.graph):
        if node.domain not in DOMAINS:
            raise MlopsError(
                f"the ONNX model uses {node.op_type} of the operator set {node.domain!r}; "
                f"expected one of {', '.join(filter(None, DOMAINS))}",
                fix="serving loads no custom operators; export with standard ones",
            )
        if node.op_type in RANDOM:
            raise MlopsError(
                f"the ONNX model uses {node.op_type}; expected only operators whose output their input decides",
                fix="export the model in inference mode",
            )
    if parsed.functions:
        raise MlopsError("the ONNX model defines functions of its own; expected none", fix="inline them when exporting")
    for tensor in _tensors(parsed.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise MlopsError(
                f"the weights {tensor.name!r} lie outside the ONNX model; expected all of them inside it",
                fix="save it without external data (onnx.save_model(…, save_as_external_data=False))",
            )
    try:
        onnx.checker.check_model(parsed, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise MlopsError(f"the ONNX model is not well formed: {_line(error)}") from None
    weights = {tensor.name for tensor in parsed.graph.initializer}
    inputs = tuple(_port(value, "input") for value in parsed.graph.input if value.name not in weights)
    outputs = tuple(_port(value, "output") for value in parsed.graph.output)
    return Graph(content, inputs, outputs)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _nodes(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.HasField("t") else []) + list(attribute.tensors)
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _tensors(inner)


def _port(value: onnx.ValueInfoProto, what: str) -> Port:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or kind.elem_type not in DATATYPES:
        raise MlopsError(
            f"the {what} {value.name!r} of the ONNX model is not a tensor of numbers, booleans or text",
            fix="for scikit-learn classifiers switch zipmap off, as from_sklearn does",
        )
    shape = tuple(size.dim_value if size.HasField("dim_value") and size.dim_value else -1 for size in kind.shape.dim)
    if not shape or shape[0] != -1 or -1 in shape[1:]:
        raise MlopsError(
            f"the {what} {value.name!r} of the ONNX model has the shape {list(shape)}; "
            "expected the number of rows (-1) first, and no other unknown dimension",
            fix="export with a dynamic batch dimension, and only that",
        )
    return Port(value.name, DATATYPES[kind.elem_type], shape)


class Runtime:
    """A model loaded as serving loads it: onnxruntime on the CPU, one thread.

    Args:
        graph: a checked model.

    Raises:
        MlopsError: onnxruntime does not load it.
    """

    def __init__(self, graph: Graph) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._names = [port.name for port in graph.outputs]
        try:
            self._session = onnxruntime.InferenceSession(graph.content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # pybind exceptions without a common type
            raise MlopsError(f"onnxruntime does not load the ONNX model: {_line(error)}") from None

    def run(self, tensors: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """The outputs by name.

        Args:
            tensors: input name → array; see `tensors_of`.

        Raises:
            MlopsError: the model does not take these rows.
        """
        try:
            return dict(zip(self._names, self._session.run(self._names, dict(tensors)), strict=True))
        except Exception as error:
            raise MlopsError(f"the ONNX model fails on rows of the holdout: {_line(error)}") from None


def tensors_of(features: pd.DataFrame, text: tuple[str, ...]) -> dict[str, np.ndarray[Any, Any]]:
    """The model's inputs for some rows: the numbers as one FP32 tensor, each text column as its own.

    Args:
        features: like `TrainingData.features`.
        text: which of its columns hold text.
    """
    numeric = [name for name in features.columns if name not in text]
    tensors = {name: features[name].to_numpy(dtype=object).reshape(-1, 1) for name in text}
    if numeric:
        tensors[FEATURES] = features[numeric].to_numpy(dtype=np.float32)
    return tensors


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0]
