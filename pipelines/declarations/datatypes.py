"""Element types: their names in the Open Inference Protocol, ONNX and NumPy, and decimals in 32 bits."""

from __future__ import annotations

import math
import struct
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


def to_float32(number: float) -> float:
    """Round a number to the nearest value of 32 bits; infinite if it is beyond the largest one.

    A bound of a contract is a decimal. It is compared with a value of a narrower type in that type, so that 0.1 is
    within `maximum: 0.1` however it is written or stored.
    """
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError:
        return math.copysign(math.inf, number)
    return rounded


def next_float32(number: float, *, up: bool) -> float:
    """Return the neighbour of a float32.

    Args:
        number: a value of 32 bits, finite.
        up: True for the next greater one, False for the next smaller one.
    """
    if number == 0:
        smallest = math.ldexp(1, -149)
        return smallest if up else -smallest
    bits: int = struct.unpack("<i", struct.pack("<f", number))[0]
    bits += 1 if (number > 0) == up else -1
    neighbour: float = struct.unpack("<f", struct.pack("<i", bits))[0]
    return neighbour
