"""A bundle made ready to predict: from the bytes of a request to the bytes of its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pipelines.declarations.bundle import Bundle, GoldenPredictions, OutputTensor, RequestSchema
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import MlopsError
from pipelines.serving.golden import compare, request_of, single_rows
from pipelines.serving.protocol import RequestOutput, read_request
from pipelines.serving.refusal import Refusal
from pipelines.serving.runtime import Runtime
from pipelines.serving.tensors import TensorReader, read_tensors

MOST_ROWS = 4096
"""Rows of one request, unless configured otherwise. One core answers one request at a time: a larger batch would hold
up all others."""

SHORT_DIGITS = 12
"""Hexadecimal digits of a bundle's digest that name a version for short."""

_encode = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, gc=False):
    """An answered request.

    Attributes:
        body: of the HTTP response.
        id: of the request, as JSON.
        rows: how many.
        size: bytes of the request.
        inputs, outputs: for the inference log, for each tensor of the model the row's list as JSON, or a list of such
            lists if there are several rows.
    """

    body: bytes
    id: bytes
    rows: int
    size: int
    inputs: list[bytes | msgspec.Raw]
    outputs: list[bytes]


class Model:
    """One bundle's model. Not for several threads: a request of one row is read into memory that is used again.

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
        self._runtime = Runtime(files["model.onnx"], self.schema)
        self._readers = {
            tensor.name: TensorReader(tensor, self._runtime.row[tensor.name], most_rows=most_rows)
            for tensor in self.schema.inputs
        }
        self._writers = [OutputWriter(tensor) for tensor in self.schema.outputs]
        reader = next(iter(self._readers.values()))
        has_one = len(self._readers) == len(self._writers) == 1
        self._shortcut = (reader, self._writers[0]) if has_one and reader.is_numeric else None
        self._output_names = [tensor.name for tensor in self.schema.outputs]
        self._head = _encode({"model_name": self.name, "model_version": self.digest})[:-1] + b',"id":'

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
            default_id: the request's id if it has none; needs no escapes in JSON.

        Raises:
            Refusal: the request is not one that this model can answer.
        """
        request = read_request(body)
        given = request.inputs
        request_id = b'"%b"' % default_id if request.id is None else _encode(request.id)
        if self._shortcut is not None and len(given) == 1 and not request.outputs:
            # The common request on its own: a row of numbers, and one output.
            reader, writer = self._shortcut
            if reader.read_row(given[0]):
                data = writer.write_row(self._runtime.run_row()[0])
                content = b'%b%b,"outputs":[%b%b}]}' % (self._head, request_id, writer.row_head, data)
                return Answer(content, request_id, 1, len(body), [given[0].data], [data])
        tensors = read_tensors(given, self._readers)
        rows = tensors[0].rows
        chosen = self._chosen(request.outputs) if request.outputs else None
        if rows == 1:
            found = self._runtime.run_row()
            logged = [writer.write_row(flat) for writer, flat in zip(self._writers, found, strict=True)]
            sent = [writer.row_head + data for writer, data in zip(self._writers, logged, strict=True)]
        else:
            feed = {name: tensor.array for name, tensor in zip(self._readers, tensors, strict=True)}
            arrays = self._runtime.run(feed)
            written = [writer.write(array, rows) for writer, array in zip(self._writers, arrays, strict=True)]
            sent, logged = [response for response, _ in written], [log for _, log in written]
        if chosen is not None:
            sent = [sent[index] for index in chosen]
        content = b'%b%b,"outputs":[%b}]}' % (self._head, request_id, b"},".join(sent))
        return Answer(content, request_id, rows, len(body), [tensor.json for tensor in tensors], logged)

    def _chosen(self, outputs: list[RequestOutput]) -> list[int]:
        chosen: list[int] = []
        for output in outputs:
            if output.name not in self._output_names:
                known = ", ".join(map(repr, self._output_names))
                raise Refusal(400, f"unknown output {output.name[:80]!r}; the model gives {known}")
            index = self._output_names.index(output.name)
            if index in chosen:
                raise Refusal(400, f"output {output.name!r} is asked for twice")
            chosen.append(index)
        return chosen

    def check_golden(self, golden: GoldenPredictions) -> None:
        """Predict the golden request, whole and row by row, as clients would, and compare.

        Raises:
            MlopsError: the request is refused, or the answer is another; with the first value that differs.
        """
        for asked in (golden, *single_rows(golden)):
            try:
                answer = self.answer(json.dumps(request_of(asked)).encode(), b"golden")
            except Refusal as refusal:
                raise MlopsError(f"golden.json: the model refuses its own golden request: {refusal.message}") from None
            compare(asked, msgspec.json.decode(answer.body)["outputs"])


class OutputWriter:
    """Writes one output as JSON.

    Args:
        schema: what the bundle says of it.
    """

    def __init__(self, schema: OutputTensor) -> None:
        self.name = schema.name
        self._head = b'{"name":%b,"datatype":%b,"shape":' % (_encode(schema.name), _encode(schema.datatype))
        self._row_shape = schema.shape[1:]
        self.row_head = self._head + _encode((1, *self._row_shape)) + b',"data":'
        self._is_float = schema.datatype in ("FP32", "FP64")

    def write_row(self, flat: list[Any]) -> bytes:
        """One row's values, as JSON; `row_head` goes before them in the response.

        Raises:
            Refusal: 422: the model has no finite answer.
        """
        if self._is_float:
            for value in flat:
                if value - value != 0.0:  # infinite or not a number
                    raise self._not_finite(0)
        return _encode(flat)

    def write(self, array: Any, rows: int) -> tuple[bytes, bytes]:
        """Many rows: in the response, but for the closing brace; and for the inference log.

        Raises:
            Refusal: 422: the model has no finite answer.
            RuntimeError: the model gave another shape than its schema says.
        """
        if array.shape != (rows, *self._row_shape):
            raise RuntimeError(f"output {self.name!r} has the shape {array.shape} for {rows} rows")
        if self._is_float and not np.isfinite(array).all():
            raise self._not_finite(int(np.argwhere(~np.isfinite(array))[0][0]))
        data = _encode(array.ravel().tolist())
        return (
            b'%b%b,"data":%b' % (self._head, _encode(array.shape), data),
            _encode(array.reshape(rows, -1).tolist()),
        )

    def _not_finite(self, row: int) -> Refusal:
        return Refusal(
            422, f"the model has no finite answer for row {row}: output {self.name!r} overflows or is undefined"
        )
