"""Answer inference requests with one bundle: from the bytes of a request to the bytes of its response."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pipelines.declarations.bundle import Bundle, GoldenPredictions, RequestSchema, TensorSpec
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.inference_logging import sampling_key
from pipelines.serving.golden import (
    check_golden,
    counted_output,
    counted_predictions,
    prediction_deviation,
    row_count,
)
from pipelines.serving.prediction_counts import bin_edges
from pipelines.serving.protocol import RequestOutput, check_parameters, read_request
from pipelines.serving.request_error import RequestError
from pipelines.serving.runtime import LoadedModel, OnnxModel
from pipelines.serving.tensors import TensorReader, read_tensors

MOST_ROWS = 4096
"""Default row limit of a request. One core answers one request at a time, so a larger batch would
delay all others."""

SHORT_DIGITS = 12
"""Number of hexadecimal digits in the short form of a bundle's digest."""

COUNTED_TIMES = 10_000.0
"""Times the largest golden prediction that a prediction may be to be counted as it is."""

LoadModel = Callable[[bytes, Sequence[TensorSpec], Sequence[TensorSpec]], LoadedModel]
"""Loads a serialized model with these inputs and outputs, like `OnnxModel`."""

_encode = msgspec.json.Encoder().encode


class InferenceResult(msgspec.Struct, gc=False):
    """Response to a request, and its content for the inference log.

    Attributes:
        body: body of the HTTP response.
        id: id of the request, as JSON.
        rows: number of rows.
        size: size of the request, in bytes.
        values: JSON for the inference log of each input of the model, and then of each output: the row as a list, or a
            list of such lists if there are several rows.
        prediction: the last value of the last numeric output, the mean of it if there are several rows: what a
            regression predicts, or the probability of the last class. None if no output is numeric.
    """

    body: bytes
    id: bytes
    rows: int
    size: int
    values: tuple[bytes | msgspec.Raw, ...]
    prediction: float | None = None


class Predictor:
    """Answers requests with the model of one bundle. Not thread-safe: one-row requests share one buffer.

    Args:
        manifest: manifest of the bundle.
        files: name → content; at least `model.onnx` and `schema.json`.
        most_rows: row limit of a request.
        load: loads the model. By default, this process does.

    Attributes:
        golden: the golden predictions that it has repeated; None if it was not checked.
        sampling_key: chooses the requests that are logged, if only a sample is.

    Raises:
        MlopsError: the model cannot be loaded, or does not match its request schema.
    """

    def __init__(
        self,
        manifest: Bundle,
        files: Mapping[str, bytes],
        *,
        most_rows: int = MOST_ROWS,
        load: LoadModel = OnnxModel,
    ) -> None:
        self.name = manifest.model
        self.digest = manifest.digest
        self.golden: GoldenPredictions | None = None
        self.sampling_key = sampling_key(manifest)
        self.schema = parse(files["schema.json"], RequestSchema, Path("schema.json"))
        self._model = load(files["model.onnx"], self.schema.inputs, self.schema.outputs)
        self._readers = {
            tensor.name: TensorReader(tensor, self._model.row[tensor.name], most_rows=most_rows)
            for tensor in self.schema.inputs
        }
        self._writers = [OutputWriter(tensor) for tensor in self.schema.outputs]
        reader = next(iter(self._readers.values()))
        has_one = len(self._readers) == len(self._writers) == 1
        self._shortcut = (reader, self._writers[0]) if has_one and reader.is_numeric else None
        self._predicting = counted_output(self.schema.outputs)
        self._output_names = [tensor.name for tensor in self.schema.outputs]
        self._head = _encode({"model_name": self.name, "model_version": self.digest})[:-1] + b',"id":'

    def metadata(self) -> dict[str, Any]:
        """Return the protocol's model metadata."""
        described = {
            kind: [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in tensors]
            for kind, tensors in (("inputs", self.schema.inputs), ("outputs", self.schema.outputs))
        }
        return {"name": self.name, "versions": [self.digest], "platform": "onnx_onnxruntime", **described}

    def answer(self, body: bytes, default_id: bytes) -> InferenceResult:
        """Answer an inference request.

        Args:
            body: body of the HTTP request.
            default_id: id for a request that has none; must not need escapes in JSON.

        Raises:
            RequestError: the request is invalid, or the model has no finite answer.
        """
        request = read_request(body)
        given = request.inputs
        request_id = b'"%b"' % default_id if request.id is None else _encode(request.id)
        if self._shortcut is not None and len(given) == 1 and not request.outputs and request.parameters is None:
            # The most common request: one row of numbers, one output.
            reader, writer = self._shortcut
            if reader.read_row(given[0]):
                flat = self._model.run_row()[0]
                data = writer.write_row(flat)
                content = b'%b%b,"outputs":[%b%b}]}' % (self._head, request_id, writer.row_head, data)
                return InferenceResult(
                    content,
                    request_id,
                    1,
                    len(body),
                    (given[0].data, data),
                    None if self._predicting is None else flat[-1],
                )
        check_parameters(request)
        tensors = read_tensors(given, self._readers)
        rows = tensors[0].rows
        chosen = self._chosen(request.outputs) if request.outputs else None
        at, prediction = self._predicting, None
        if rows == 1:
            found = self._model.run_row()
            logged = [writer.write_row(flat) for writer, flat in zip(self._writers, found, strict=True)]
            sent = [writer.row_head + data for writer, data in zip(self._writers, logged, strict=True)]
            prediction = None if at is None else found[at][-1]
        else:
            feed = {name: tensor.array for name, tensor in zip(self._readers, tensors, strict=True)}
            arrays = self._model.run(feed)
            written = [writer.write(array, rows) for writer, array in zip(self._writers, arrays, strict=True)]
            sent, logged = [response for response, _ in written], [log for _, log in written]
            prediction = None if at is None else float(arrays[at].reshape(rows, -1)[:, -1].mean(dtype=float))
        if chosen is not None:
            sent = [sent[index] for index in chosen]
        content = b'%b%b,"outputs":[%b}]}' % (self._head, request_id, b"},".join(sent))
        values = (*(tensor.json for tensor in tensors), *logged)
        return InferenceResult(content, request_id, rows, len(body), values, prediction)

    def _chosen(self, outputs: list[RequestOutput]) -> list[int]:
        chosen: list[int] = []
        for output in outputs:
            if output.name not in self._output_names:
                known = ", ".join(map(repr, self._output_names))
                raise RequestError(400, f"unknown output {output.name[:80]!r}; the model returns {known}")
            index = self._output_names.index(output.name)
            if index in chosen:
                raise RequestError(400, f"output {output.name!r} is requested twice")
            chosen.append(index)
        return chosen

    def check_golden(self, golden: GoldenPredictions) -> None:
        """Replay the golden predictions, whole and row by row, as clients would send them.

        Raises:
            MlopsError: the model refuses the request, or predicts something else.
        """

        def predict(request: dict[str, Any]) -> dict[str, Any]:
            try:
                result = self.answer(json.dumps(request).encode(), b"golden")
            except RequestError as error:
                raise MlopsError(f"golden.json: the model refuses its own golden request: {error.message}") from None
            answer: dict[str, Any] = msgspec.json.decode(result.body)
            return answer

        check_golden(predict, golden, self.digest, single_row_requests=row_count(golden))
        self.golden = golden

    @property
    def largest_counted(self) -> float:
        """Largest prediction that metrics count as it is: far beyond the golden ones."""
        if self.golden is None or self._predicting is None:
            return math.inf
        name = self._output_names[self._predicting]
        found = [abs(float(value or 0)) for each in self.golden.outputs if each.name == name for value in each.data]
        return COUNTED_TIMES * (max(found, default=0.0) or 1.0)

    @property
    def prediction_edges(self) -> tuple[float, ...]:
        """Edges of the bins in which metrics count predictions; none without golden predictions that are numbers."""
        if self.golden is None or not (found := counted_predictions(self.golden)):
            return ()
        return bin_edges(statistics.median(found), prediction_deviation(self.golden))


class OutputWriter:
    """Writes one output as JSON.

    Args:
        schema: schema of the output.
    """

    def __init__(self, schema: TensorSpec) -> None:
        self.name = schema.name
        self._head = b'{"name":%b,"datatype":%b,"shape":' % (_encode(schema.name), _encode(schema.datatype))
        self._row_shape = schema.shape[1:]
        self.row_head = self._head + _encode((1, *self._row_shape)) + b',"data":'
        self._is_float = schema.datatype in ("FP32", "FP64")

    def write_row(self, flat: list[Any]) -> bytes:
        """Return one row's values as JSON. `row_head` precedes them in the response.

        Raises:
            RequestError: 422: the model has no finite answer.
        """
        if self._is_float:
            for value in flat:
                if value - value != 0.0:  # infinite or not a number
                    raise self._not_finite(0)
        return _encode(flat)

    def write(self, array: Any, rows: int) -> tuple[bytes, bytes]:
        """Write many rows: once for the response, without the closing brace, and once for the inference log.

        Raises:
            RequestError: 422: the model has no finite answer.
            RuntimeError: the shape differs from the schema's.
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

    def _not_finite(self, row: int) -> RequestError:
        return RequestError(
            422, f"the model has no finite answer for row {row}: output {self.name!r} overflows or is undefined"
        )
