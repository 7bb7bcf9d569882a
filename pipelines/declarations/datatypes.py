"""Tensor element types: one table of their names in the Open Inference Protocol, ONNX and NumPy."""

from __future__ import annotations

from typing import Literal, NamedTuple

Datatype = Literal["FP32", "FP64", "INT32", "INT64", "BOOL", "BYTES"]
"""Datatypes of the Open Inference Protocol v2 that a model may take or return."""


class ElementType(NamedTuple):
    """A datatype as other formats name it.

    Attributes:
        onnx: number in ONNX's `TensorProto.DataType`.
        onnxruntime: name in onnxruntime's description of a session's inputs and outputs.
        numpy: name of the NumPy dtype that holds the elements.
    """

    onnx: int
    onnxruntime: str
    numpy: str


ELEMENT_TYPES: dict[Datatype, ElementType] = {
    "FP32": ElementType(1, "tensor(float)", "float32"),
    "FP64": ElementType(11, "tensor(double)", "float64"),
    "INT32": ElementType(6, "tensor(int32)", "int32"),
    "INT64": ElementType(7, "tensor(int64)", "int64"),
    "BOOL": ElementType(9, "tensor(bool)", "bool"),
    "BYTES": ElementType(8, "tensor(string)", "object"),
}
"""Datatype → its names elsewhere.

Sources: the protocol's table of tensor data types; `onnx.proto`, `TensorProto.DataType`.
"""
