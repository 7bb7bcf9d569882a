"""Check that the inference server can serve an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.declarations.bundle import TensorSpec
from pipelines.declarations.datatypes import ELEMENT_TYPES
from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    import onnx

LARGEST_MODEL = 512 << 20
"""Size limit of a serialized model, in bytes."""

DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
"""Operator sets that onnxruntime implements. Any other would need custom code in the serving image."""

RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
"""Operators with random outputs."""

_DATATYPES = {element.onnx: datatype for datatype, element in ELEMENT_TYPES.items()}


@dataclass(frozen=True)
class OnnxGraph:
    """A checked model.

    Attributes:
        content: the serialized model.
        inputs, outputs: in the graph's order.
    """

    content: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def check_graph(model: onnx.ModelProto | bytes) -> OnnxGraph:
    """Check that a model is valid and self-contained, uses standard operators, and takes any number of rows.

    Raises:
        MlopsError: the model cannot be served.
    """
    import onnx

    content = model if isinstance(model, bytes) else model.SerializeToString(deterministic=True)
    if len(content) > LARGEST_MODEL:
        raise MlopsError(f"size of the ONNX model: expected at most {LARGEST_MODEL} bytes, found {len(content)}")
    try:
        parsed = onnx.load_model_from_string(content)
    except Exception:
        # The exception type depends on the protobuf implementation.
        raise MlopsError("the bytes that train() returned are not an ONNX model") from None
    for node in _nodes(parsed.graph):
        if node.domain not in DOMAINS:
            raise MlopsError(
                f"operator set of {node.op_type} in the ONNX model: expected {' or '.join(filter(None, DOMAINS))}, "
                f"found {node.domain!r}",
                fix="export the model with standard operators; the server loads no custom ones",
            )
        if node.op_type in RANDOM:
            raise MlopsError(
                f"operators of the ONNX model: expected deterministic ones, found {node.op_type}",
                fix="export the model in inference mode",
            )
    if parsed.functions:
        raise MlopsError(
            f"functions in the ONNX model: expected none, found {', '.join(f.name for f in parsed.functions)}",
            fix="inline functions in the export",
        )
    for tensor in _tensors(parsed.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise MlopsError(
                f"weights {tensor.name!r} of the ONNX model: expected inside the model, found in another file",
                fix="save the model without external data (onnx.save_model(…, save_as_external_data=False))",
            )
    try:
        onnx.checker.check_model(parsed, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise MlopsError(f"the ONNX model is not valid: {first_line(error)}") from None
    weights = {tensor.name for tensor in parsed.graph.initializer}
    inputs = tuple(_spec(value, "input") for value in parsed.graph.input if value.name not in weights)
    outputs = tuple(_spec(value, "output") for value in parsed.graph.output)
    return OnnxGraph(content, inputs, outputs)


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


def _spec(value: onnx.ValueInfoProto, kind: str) -> TensorSpec:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.elem_type not in _DATATYPES:
        raise MlopsError(
            f"{kind} {value.name!r} of the ONNX model: expected a tensor of numbers, booleans or text",
            fix="return from_sklearn(estimator, data.features), which exports tensors; in your own export, switch "
            "zipmap off",
        )
    shape = tuple(size.dim_value if size.HasField("dim_value") and size.dim_value else -1 for size in tensor.shape.dim)
    if not shape or shape[0] != -1 or -1 in shape[1:]:
        raise MlopsError(
            f"shape of {kind} {value.name!r} of the ONNX model: expected -1 for the number of rows and then fixed "
            f"sizes, found {list(shape)}",
            fix="return from_sklearn(estimator, data.features), which also takes LightGBM, XGBoost and CatBoost; in "
            "your own export, make the batch dimension dynamic and no other",
        )
    return TensorSpec(name=value.name, datatype=_DATATYPES[tensor.elem_type], shape=shape)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0]
