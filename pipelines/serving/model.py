"""A bundle made ready to predict: from the bytes of a request to the bytes of its answer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnxruntime

from pipelines.declarations.bundle import Bundle, GoldenPredictions, OutputTensor, RequestSchema, Tensor
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import MlopsError
from pipelines.serving.protocol import RequestOutput, read_request
from pipelines.serving.refusal import Refusal
from pipelines.serving.tensors import TensorReader, read_tensors

MOST_ROWS = 4096
"""Rows of one request, unless configured otherwise. One core answers one request at a time: a larger batch would hold
up all others."""

SHORT_DIGITS = 12
"""Hexadecimal digits of a bundle's digest that name a version for short."""

_ONNX_TYPES = {
    "FP32": "tensor(float)",
    "FP64": "tensor(double)",
    "INT32": "tensor(int32)",
    "INT64": "tensor(int64)",
    "BOOL": "tensor(bool)",
    "BYTES": "tensor(string)",
}


class Answer(NamedTuple):
    """An answered request.

    Attributes:
        body: of the HTTP response.
        id: of the request, as JSON.
        rows: how many.
        inputs, outputs: tensor → list of rows, as JSON on one line, for the inference log.
    """

    body: bytes
    id: bytes
    rows: int
    inputs: bytes
    outputs: bytes


class Model:
    """One bundle's model.

    Args:
        manifest: of the bundle.
        files: name → content, at least of `model.onnx` and `schema.json`.
        most_rows: of one request.

    Raises:
        MlopsError: the model can not be loaded, or is not what its request schema says.
    """

    def __init__(self, manifest: Bundle, files: Mapping[str, bytes], *, most_rows: int = MOST_ROWS) -> None:
        self.name = manifest.model
        self.digest = manifest.digest
        self.schema = parse(files["schema.json"], RequestSchema, Path("schema.json"))
        self._session = _load(files["model.onnx"])
        _check_signature(self._session, self.schema)
        self._readers = {tensor.name: TensorReader(tensor, most_rows=most_rows) for tensor in self.schema.inputs}
        self._only = next(iter(self._readers.values())) if len(self._readers) == 1 else None
        self._output_names = [tensor.name for tensor in self.schema.outputs]
        self._outputs = [_OutputWriter(tensor) for tensor in self.schema.outputs]
        self._by_name = dict(zip(self._output_names, range(len(self._outputs)), strict=True))
        about = {"model_name": self.name, "model_version": self.digest}
        self._head = msgspec.json.encode(about)[:-1] + b',"id":'
        self._log_inputs = [msgspec.json.encode(name) + b":" for name in self._readers]

    def metadata(self) -> dict[str, Any]:
        """The protocol's model metadata."""
        described = {
            kind: [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in tensors]
            for kind, tensors in (("inputs", self.schema.inputs), ("outputs", self.schema.outputs))
        }
        return {"name": self.name, "versions": [self.digest], "platform": "onnx_onnxruntime", **described}

    def answer(self, body: bytes, default_id: bytes) -> Answer:
        """The answer to the body of an inference request.

        Args:
            body: JSON.
            default_id: the request's id, as JSON, if it has none.

        Raises:
            Refusal: the request is not one that this model can answer.
        """
        request = read_request(body)
        given = request.inputs
        if self._only is not None and len(given) == 1 and given[0].name == self._only.name:
            tensor = self._only.read(given[0])
            rows = tensor.rows
            feed = {self._only.name: tensor.array}
            inputs = b"{%b%b}" % (self._log_inputs[0], tensor.json)
        else:
            tensors = read_tensors(given, self._readers)
            rows = tensors[0].rows
            feed = {name: tensor.array for name, tensor in zip(self._readers, tensors, strict=True)}
            named = (name + tensor.json for name, tensor in zip(self._log_inputs, tensors, strict=True))
            inputs = b"{" + b",".join(named) + b"}"
        chosen = self._chosen(request.outputs) if request.outputs else None
        arrays = self._session.run(self._output_names, feed)
        written = [writer.write(array, rows) for writer, array in zip(self._outputs, arrays, strict=True)]
        request_id = default_id if request.id is None else msgspec.json.encode(request.id)
        sent = written if chosen is None else [written[index] for index in chosen]
        answer = b'%b%b,"outputs":[%b]}' % (self._head, request_id, b",".join([response for response, _ in sent]))
        return Answer(answer, request_id, rows, inputs, b"{" + b",".join([logged for _, logged in written]) + b"}")

    def _chosen(self, outputs: list[RequestOutput]) -> list[int]:
        chosen: list[int] = []
        for output in outputs:
            index = self._by_name.get(output.name)
            if index is None:
                known = ", ".join(map(repr, self._output_names))
                raise Refusal(400, f"unknown output {output.name[:80]!r}; the model gives {known}")
            if index in chosen:
                raise Refusal(400, f"output {output.name!r} is asked for twice")
            chosen.append(index)
        return chosen

    def check_golden(self, golden: GoldenPredictions) -> None:
        """Predict the golden request, as a client would, and compare.

        Raises:
            MlopsError: the request is refused, or the answer is another; with the first value that differs.
        """
        request = {"inputs": [tensor.model_dump(mode="json") for tensor in golden.inputs]}
        try:
            answer = self.answer(json.dumps(request).encode(), b'"golden"')
        except Refusal as refusal:
            raise MlopsError(f"golden.json: the model refuses its own golden request: {refusal.message}") from None
        found = {output["name"]: output for output in msgspec.json.decode(answer.body)["outputs"]}
        for expected in golden.outputs:
            _compare(expected, found.get(expected.name), golden)


class _OutputWriter:
    """Writes one output as JSON.

    Args:
        schema: what the bundle says of it.

    Raises:
        MlopsError: the schema has no row dimension.
    """

    def __init__(self, schema: OutputTensor) -> None:
        self.name = schema.name
        self._log_name = msgspec.json.encode(schema.name) + b":"
        self._head = b'{"name":%b,"datatype":%b,"shape":' % (
            msgspec.json.encode(schema.name),
            msgspec.json.encode(schema.datatype),
        )
        self._is_float = schema.datatype in ("FP32", "FP64")
        if not schema.shape or schema.shape[0] != -1 or -1 in schema.shape[1:]:
            raise MlopsError(
                f"schema.json: output {schema.name!r} has the shape {list(schema.shape)}; expected [-1, …]"
            )
        self._row_shape = schema.shape[1:]
        self._one_row = (1, *self._row_shape)
        self._one_row_head = self._head + msgspec.json.encode(self._one_row) + b',"data":'

    def write(self, array: Any, rows: int) -> tuple[bytes, bytes]:
        """The output in the response, and in the inference log.

        Raises:
            Refusal: 422: the model has no finite answer.
            RuntimeError: the model gave another shape than its schema says.
        """
        if array.shape == self._one_row:
            flat = array.ravel().tolist()
            if self._is_float:
                for value in flat:
                    if value - value != 0.0:  # infinite or not a number
                        raise self._not_finite(array)
            data = msgspec.json.encode(flat)
            head = self._one_row_head
        else:
            if array.shape != (rows, *self._row_shape):
                raise RuntimeError(f"output {self.name!r} has the shape {array.shape} for {rows} rows")
            if self._is_float and not np.isfinite(array).all():
                raise self._not_finite(array)
            data = msgspec.json.encode(array.ravel().tolist())
            head = self._head + msgspec.json.encode(array.shape) + b',"data":'
        if rows == 1:
            logged = b"%b[%b]" % (self._log_name, data)
        else:
            logged = self._log_name + msgspec.json.encode(array.reshape(rows, -1).tolist())
        return b"%b%b}" % (head, data), logged

    def _not_finite(self, array: Any) -> Refusal:
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        return Refusal(
            422, f"the model has no finite answer for row {row}: output {self.name!r} overflows or is undefined"
        )


def _load(onnx: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    # One core a pod: more threads would only wait for each other. Scaling out is the cluster's work.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
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
        said = {tensor.name: _ONNX_TYPES[tensor.datatype] for tensor in tensors}
        found = {value.name: value.type for value in values}
        if kind == "output":  # a schema may leave outputs out
            found = {name: found[name] for name in found if name in said}
        if said != found:
            raise MlopsError(f"schema.json: the {kind}s are {said}, those of model.onnx are {found}; expected the same")


def _compare(expected: Tensor, found: dict[str, Any] | None, golden: GoldenPredictions) -> None:
    where = f"golden.json: output {expected.name!r}"
    if found is None:
        raise MlopsError(f"{where}: the model does not give it")
    if list(expected.shape) != found["shape"] or len(expected.data) != len(found["data"]):
        raise MlopsError(f"{where}: expected the shape {list(expected.shape)}, found {found['shape']}")
    for index, (want, got) in enumerate(zip(expected.data, found["data"], strict=True)):
        if isinstance(want, int | float) and isinstance(got, int | float):
            margin = golden.absolute_tolerance + golden.relative_tolerance * abs(want)
            same = abs(got - want) <= margin
        else:
            same = want == got
        if not same:
            raise MlopsError(
                f"{where}, value {index}: expected {want!r}, found {got!r}",
                fix="the runtime computes something else than the one the bundle was packaged with: pin the same one",
            )
