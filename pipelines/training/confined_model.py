"""Use an ONNX model whose bytes training code chose, without loading it in this process.

Another process loads it; see `pipelines.training.model_worker`. It gets rows and returns arrays. Arrays of another
number, shape, type or size than expected are an error. Their values are not checked: callers must reject infinite
values themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipelines.declarations.bundle import TensorSpec
from pipelines.declarations.datatypes import ELEMENT_TYPES
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.plurals import counted
from pipelines.declarations.printable import printable
from pipelines.training.confined_process import ConfinedProcess, Purpose
from pipelines.training.model_worker import MODEL_MEMORY
from pipelines.training.onnx_graph import OnnxGraph

if TYPE_CHECKING:
    from pipelines.serving.runtime import LoadedModel

WORKER = "pipelines.training.model_worker"
"""Module that loads the model."""

ANSWER_SECONDS = 300.0
"""Time limit of each answer."""

LARGEST_ANSWER = 512 << 20
"""Size limit of the arrays of an answer, in bytes."""

LONGEST_TEXT = 64 << 20
"""Size limit of an output that is text, as JSON, in bytes."""

_Message = Annotated[str, Field(max_length=2000)]
_Size = Annotated[int, Field(ge=0)]
_TEXTS = TypeAdapter(list[str])
"""Refuses half of a surrogate pair, too, which cannot be stored."""


class FailedRowsError(RuntimeError):
    """The model fails at these rows. The message may quote their values."""


class _Answer(BaseModel):
    """Header of an answer without predictions.

    Attributes:
        error, fix: why the model cannot be used, and what to do.
    """

    model_config = ConfigDict(strict=True, extra="forbid")
    error: _Message | None = None
    fix: _Message = ""


_Kind = TypeVar("_Kind", bound=_Answer)


class _GraphAnswer(_Answer):
    inputs: Annotated[tuple[TensorSpec, ...], Field(max_length=10_000)] = ()
    outputs: Annotated[tuple[TensorSpec, ...], Field(max_length=100)] = ()


class _Array(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    shape: Annotated[list[_Size], Field(max_length=8)]
    size: _Size


class _RowsAnswer(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    failed: _Message | None = None
    arrays: list[_Array] = []


class ConfinedModel:
    """A model that another process has loaded; like `OnnxModel`.

    Args:
        process: the process.
        name: the model, for messages.
        outputs: the outputs that it returns.

    Attributes:
        row: input → array of shape [1, columns], to fill before `run_row`.
    """

    def __init__(
        self, process: ConfinedProcess, name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        self._process = process
        self._name = name
        self._outputs = tuple(outputs)
        self.row: dict[str, Any] = {
            tensor.name: np.zeros((1, *tensor.shape[1:]), ELEMENT_TYPES[tensor.datatype].numpy) for tensor in inputs
        }

    def run(self, feed: dict[str, Any]) -> list[Any]:
        """Predict any number of rows; see `OnnxModel.run`.

        Raises:
            FailedRowsError: the model fails at these rows.
            MlopsError: the process ended, took too long, or returned other arrays than these outputs of these rows.
        """
        return self._predict("rows", feed, len(next(iter(feed.values()))))

    def run_row(self) -> list[list[Any]]:
        """Predict the row in `row`; see `OnnxModel.run_row`.

        Raises:
            FailedRowsError, MlopsError: see `run`.
        """
        return [array.ravel().tolist() for array in self._predict("row", self.row, 1)]

    def _predict(self, kind: str, feed: Mapping[str, Any], rows: int) -> list[Any]:
        shapes = [(rows, *tensor.shape[1:]) for tensor in self._outputs]
        sizes = [_size_of(tensor, shape) for tensor, shape in zip(self._outputs, shapes, strict=True)]
        if sum(sizes) > LARGEST_ANSWER:
            raise MlopsError(
                f"{self._name}: expected predictions of {rows} rows of at most {LARGEST_ANSWER} bytes, found outputs "
                f"of {sum(sizes)} bytes",
                fix="export a model with fewer outputs for each row",
            )
        with self._process.time_limit(ANSWER_SECONDS):
            self._process.send((kind, feed))
            answer = self._process.receive_header(_RowsAnswer)
            if answer.failed is not None:
                raise FailedRowsError(printable(answer.failed))
            if len(answer.arrays) != len(self._outputs):
                raise self._process.wrong_answer()
            arrays = []
            for tensor, array, shape, size in zip(self._outputs, answer.arrays, shapes, sizes, strict=True):
                if tuple(array.shape) != shape:
                    raise MlopsError(
                        f"{self._name}: output {tensor.name} of {counted(rows, 'row')}: expected the shape "
                        f"{list(shape)}, found {array.shape}",
                        fix="export the model so that its output has a row for each row of its inputs",
                    )
                if array.size > size or (tensor.datatype != "BYTES" and array.size != size):
                    raise self._process.wrong_answer()
                arrays.append(self._decoded(tensor, shape, self._process.receive(array.size)))
        return arrays

    def _decoded(self, tensor: TensorSpec, shape: tuple[int, ...], content: bytes) -> Any:
        """Return an output as an array of its type.

        Raises:
            MlopsError: the bytes are not such an array.
        """
        if tensor.datatype == "BYTES":
            try:
                texts = _TEXTS.validate_json(content, strict=True)
            except ValidationError:
                raise self._process.wrong_answer() from None
            if len(texts) != math.prod(shape):
                raise self._process.wrong_answer()
            array = np.empty(len(texts), dtype=object)
            array[:] = texts
            return array.reshape(shape)
        if tensor.datatype == "BOOL" and content.strip(b"\0\1"):
            raise self._process.wrong_answer()
        return np.frombuffer(content, ELEMENT_TYPES[tensor.datatype].numpy).reshape(shape)


def _size_of(tensor: TensorSpec, shape: tuple[int, ...]) -> int:
    """Return the number of bytes of an output; the largest one if it is text."""
    if tensor.datatype == "BYTES":
        return LONGEST_TEXT
    return math.prod(shape) * np.dtype(ELEMENT_TYPES[tensor.datatype].numpy).itemsize


class ModelProcess:
    """A process that holds the bytes of one model.

    Args:
        process: the process.
        content: the bytes.
        name: the model, for messages.
    """

    def __init__(self, process: ConfinedProcess, content: bytes, name: str) -> None:
        self._process = process
        self._content = content
        self._name = name

    def check(self) -> OnnxGraph:
        """Check the model as `check_graph` does, and return its inputs and outputs.

        Raises:
            MlopsError: the model cannot be served, or the process failed.
        """
        found = self._ask(("check",), _GraphAnswer)
        return OnnxGraph(self._content, found.inputs, found.outputs)

    def load(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> LoadedModel:
        """Load the model with the runtime of the inference server.

        Args:
            inputs, outputs: see `OnnxModel`.

        Raises:
            MlopsError: the model cannot be loaded, has other inputs or outputs, or the process failed.
        """
        self._ask(("load", tuple(inputs), tuple(outputs)), _Answer)
        return ConfinedModel(self._process, self._name, inputs, outputs)

    def _ask(self, request: tuple[object, ...], kind: type[_Kind]) -> _Kind:
        with self._process.time_limit(ANSWER_SECONDS):
            self._process.send(request)
            return _checked(self._process.receive_header(kind))


@contextmanager
def open_model(content: bytes, name: str, memory: str, *, must_confine: bool = True) -> Iterator[ModelProcess]:
    """Start a process that holds the bytes of a model, until the block ends.

    Args:
        content: the serialized model.
        name: the model, for messages.
        memory: key in `model.yaml` with the memory of the job.
        must_confine: whether a kernel that cannot confine the process is an error.

    Raises:
        MlopsError: the process cannot be confined.
    """
    subject = f"the ONNX model of {name}"
    purpose = Purpose(
        subject=subject,
        process="process that loads it",
        answer="an answer",
        more_memory=f"raise {memory} in model.yaml; the process may use {MODEL_MEMORY >> 30} GiB",
        fix="export the model again, with less work for each row",
        fix_crash="export the model again, with other operators",
    )
    task = {"size": len(content), "must_confine": must_confine}
    with ConfinedProcess(WORKER, task, Path("/"), purpose, None) as process:
        with process.time_limit(ANSWER_SECONDS):
            _checked(process.receive_header(_Answer))
            process.send_bytes(content)
        yield ModelProcess(process, content, subject)


def _checked(answer: _Kind) -> _Kind:
    if answer.error is not None:
        raise MlopsError(printable(answer.error, keep="\n"), fix=printable(answer.fix, keep="\n"))
    return answer
