"""The ONNX runtime: onnxruntime on one core.

Training checks a model with the same sessions that the server answers from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported: it reports by default

import onnxruntime

from pipelines.declarations.bundle import TensorSpec
from pipelines.declarations.datatypes import ELEMENT_TYPES
from pipelines.declarations.errors import MlopsError


class LoadedModel(Protocol):
    """Interface of a loaded model: an `OnnxModel`, or a model in another process."""

    row: dict[str, Any]

    def run(self, feed: dict[str, Any]) -> list[Any]:
        """See `OnnxModel.run`."""

    def run_row(self) -> list[list[Any]]:
        """See `OnnxModel.run_row`."""


class OnnxModel:
    """A loaded ONNX model that predicts many rows or, faster, one row.

    Requests of one row are the most common, so memory for them is laid out once. `row` holds an array of shape
    [1, columns] for each input. Fill the arrays, then call `run_row`: nothing is allocated or copied.

    Args:
        content: the serialized model.
        inputs: every input of the model, each of shape [-1, columns].
        outputs: the outputs to return, in this order. The model may have others.

    Raises:
        MlopsError: the model cannot be loaded, or has other inputs or outputs.
    """

    def __init__(self, content: bytes, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self._session = _load(content)
        _check_signature(self._session, inputs, outputs)
        self._names = [tensor.name for tensor in outputs]
        self.row = {tensor.name: _zeros(tensor) for tensor in inputs}
        self._run_bound: Callable[[], None] | None = None
        self._row_outputs: list[Any] = []
        self._row_output: Any = None
        # onnxruntime cannot bind text to memory it does not own.
        if all(tensor.datatype != "BYTES" for tensor in (*inputs, *outputs)):
            self._bind(outputs)

    def _bind(self, tensors: Sequence[TensorSpec]) -> None:
        binding = self._session.io_binding()
        outputs = [_zeros(tensor) for tensor in tensors]
        for name, array in self.row.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in zip(self._names, outputs, strict=True):
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        # Without options onnxruntime converts their absence for each call, and looks for a graph of a GPU: a small
        # model takes twice as long.
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", "-1")
        self._run_bound = partial(self._session.run_with_iobinding, binding, options)
        self._row_outputs = [array.ravel() for array in outputs]
        self._row_output = self._row_outputs[0] if len(outputs) == 1 else None

    def run(self, feed: dict[str, Any]) -> list[Any]:
        """Predict any number of rows.

        Args:
            feed: input → array of shape [rows, columns].

        Returns:
            An array for each output.
        """
        outputs: list[Any] = self._session.run(self._names, feed)
        return outputs

    def run_row(self) -> list[list[Any]]:
        """Predict the row in `row`; return the row's values for each output."""
        if self._run_bound is None:
            return [array.ravel().tolist() for array in self.run(self.row)]
        self._run_bound()
        if self._row_output is not None:
            return [self._row_output.tolist()]
        return [array.tolist() for array in self._row_outputs]


def _zeros(tensor: TensorSpec) -> Any:
    return np.zeros((1, *tensor.shape[1:]), ELEMENT_TYPES[tensor.datatype].numpy)


def _load(content: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    # A pod has one core; more threads would only wait for each other.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Both help large models. For small ones they only add steps to each request.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    # Fatal errors only. Others are raised as well, and onnxruntime's own lines quote values of requests.
    options.log_severity_level = 4
    # By default onnxruntime reads external weights from the working directory. Nothing can be a file under /dev/null.
    # Custom operators are refused because none are registered.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base class
        raise MlopsError(f"model.onnx cannot be loaded: {error}", fix="package the model again") from None


def _check_signature(session: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    for tensor in (*inputs, *outputs):
        if not tensor.shape or tensor.shape[0] != -1 or any(size < 1 for size in tensor.shape[1:]):
            raise MlopsError(f"schema.json: shape of {tensor.name!r}: expected [-1, …], found {list(tensor.shape)}")
    for kind, tensors, values in (
        ("inputs", inputs, session.get_inputs()),
        ("outputs", outputs, session.get_outputs()),
    ):
        expected = {tensor.name: ELEMENT_TYPES[tensor.datatype].onnxruntime for tensor in tensors}
        found = {value.name: value.type for value in values}
        if kind == "outputs":
            found = {name: found[name] for name in found if name in expected}
        if expected != found:
            raise MlopsError(f"{kind} of model.onnx: expected {expected} as in schema.json, found {found}")
