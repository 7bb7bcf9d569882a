"""Run the model: onnxruntime on one core."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from pipelines.declarations.bundle import Datatype, InputTensor, OutputTensor, RequestSchema
from pipelines.declarations.errors import MlopsError

ONNX_TYPES: dict[Datatype, str] = {
    "FP32": "tensor(float)",
    "FP64": "tensor(double)",
    "INT32": "tensor(int32)",
    "INT64": "tensor(int64)",
    "BOOL": "tensor(bool)",
    "BYTES": "tensor(string)",
}

ELEMENTS: dict[Datatype, Any] = {
    "FP32": np.float32,
    "FP64": np.float64,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "BYTES": np.object_,
}


class Runtime:
    """A model that can be run, on many rows or, faster, on one.

    The request of one row is the common one. Its memory is laid out once: `row` holds an array of shape [1, columns]
    for each input; who fills them and calls `run_row` gets the outputs without anything being allocated or copied.

    Args:
        onnx: the model.
        schema: what the bundle says of it.

    Raises:
        MlopsError: the model can not be loaded, or is not what its request schema says.
    """

    def __init__(self, onnx: bytes, schema: RequestSchema) -> None:
        self._session = _load(onnx)
        _check_signature(self._session, schema)
        self._names = [tensor.name for tensor in schema.outputs]
        self.row = {
            tensor.name: np.zeros((1, len(tensor.columns)), ELEMENTS[tensor.datatype]) for tensor in schema.inputs
        }
        self._binding: Any = None
        self._row_outputs: list[Any] = []
        self._row_output: Any = None
        tensors: Sequence[InputTensor | OutputTensor] = (*schema.inputs, *schema.outputs)
        # onnxruntime cannot bind text to memory of ours.
        if all(tensor.datatype != "BYTES" for tensor in tensors):
            self._bind(schema)

    def _bind(self, schema: RequestSchema) -> None:
        binding = self._session.io_binding()
        outputs = [np.zeros((1, *tensor.shape[1:]), ELEMENTS[tensor.datatype]) for tensor in schema.outputs]
        for name, array in self.row.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in zip(self._names, outputs, strict=True):
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        self._binding = binding
        self._row_outputs = [array.ravel() for array in outputs]
        self._row_output = self._row_outputs[0] if len(outputs) == 1 else None

    def run(self, feed: dict[str, Any]) -> list[Any]:
        """The outputs, in the schema's order.

        Args:
            feed: input → array of shape [rows, columns].
        """
        outputs: list[Any] = self._session.run(self._names, feed)
        return outputs

    def run_row(self) -> list[list[Any]]:
        """The outputs for what is in `row`: for each a list of a row's values."""
        if self._binding is None:
            return [array.ravel().tolist() for array in self.run(self.row)]
        self._session.run_with_iobinding(self._binding)
        if self._row_output is not None:
            return [self._row_output.tolist()]
        return [array.tolist() for array in self._row_outputs]


def _load(onnx: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    # One core a pod: more threads would only wait for each other. Scaling out is the cluster's work.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Both are made for large models; for the small ones here they are only more steps for each request.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3  # errors; they reach us as exceptions as well
    # Without this, weights that the model says are in another file would be read from the working directory. No file
    # lies in a folder of this name. Custom operators are refused because none are registered.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes have no common base
        raise MlopsError(f"model.onnx can not be loaded: {error}", fix="package the model again") from None


def _check_signature(session: Any, schema: RequestSchema) -> None:
    for kind, tensors, values in (
        ("input", schema.inputs, session.get_inputs()),
        ("output", schema.outputs, session.get_outputs()),
    ):
        said = {tensor.name: ONNX_TYPES[tensor.datatype] for tensor in tensors}
        found = {value.name: value.type for value in values}
        if kind == "output":  # a schema may leave outputs out
            found = {name: found[name] for name in found if name in said}
        if said != found:
            raise MlopsError(f"schema.json: the {kind}s are {said}, those of model.onnx are {found}; expected the same")
    for tensor in schema.outputs:
        if not tensor.shape or tensor.shape[0] != -1 or any(size < 1 for size in tensor.shape[1:]):
            raise MlopsError(
                f"schema.json: output {tensor.name!r} has the shape {list(tensor.shape)}; expected [-1, …]"
            )
