"""Process that loads an ONNX model, and nothing else: `python -m pipelines.training.model_worker CHANNEL`.

Training code chooses the bytes of the model, and their parsers are large libraries in C++. So no process with rights
loads them: `pipelines.training.confined_model` starts this one. It gets a task as one line of JSON on standard input,
confines itself, and reads the model and then requests. It has no credentials, no network, no file to write, and no data
but the rows that it predicts: never their labels.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypedDict

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.process_limits import limit_memory
from pipelines.training.isolation import confine, is_enforceable
from pipelines.training.job_channel import answer_job, next_object, open_channel
from pipelines.training.onnx_graph import check_graph, first_line

if TYPE_CHECKING:
    from pipelines.declarations.bundle import TensorSpec
    from pipelines.serving.runtime import OnnxModel

MODEL_MEMORY = 4 << 30
"""Private memory of a process that loads a model, in bytes, at most."""

LONGEST_MESSAGE = 2000
"""Maximum length of an error message, in characters."""


class ModelTask(TypedDict):
    """What to load.

    Attributes:
        size: size of the model, in bytes.
        must_confine: whether a kernel that cannot confine this process is an error. The other limits hold anyway.
        readable: folders that hold code.
    """

    size: int
    must_confine: bool
    readable: list[str]


def main(channel: int) -> None:
    """Load the model of standard input, and answer the requests that follow it.

    Args:
        channel: file descriptor for the answers.
    """
    task: ModelTask
    with open_channel(channel) as (task, given, answers):
        limit_memory(MODEL_MEMORY)
        try:
            if is_enforceable():
                # Before numpy is imported: it starts threads, and only the calling thread is confined.
                confine(map(Path, task["readable"]), [])
        except Exception as error:
            if task["must_confine"] or not isinstance(error, MlopsError):
                answer_job(answers, _refusal(error))
                return
        answer_job(answers, {})
        _serve(given.read(task["size"]), given, answers)


def _serve(content: bytes, given: BinaryIO, answers: BinaryIO) -> None:
    model: OnnxModel | None = None
    outputs: tuple[TensorSpec, ...] = ()
    while (request := next_object(given)) is not None:
        kind, *arguments = request
        try:
            if kind == "check":
                graph = check_graph(content)
                answer_job(answers, {"inputs": _dumped(graph.inputs), "outputs": _dumped(graph.outputs)})
            elif kind == "load":
                inputs, outputs = arguments
                model = _load(content, inputs, outputs)
                answer_job(answers, {})
            else:
                assert model is not None
                _predict(model, kind, arguments[0], outputs, answers)
        except Exception as error:  # onnx and onnxruntime raise exceptions without a common base class
            answer_job(answers, _refusal(error))


def _load(content: bytes, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> OnnxModel:
    from pipelines.serving.runtime import OnnxModel

    return OnnxModel(content, inputs, outputs)


def _predict(
    model: OnnxModel, kind: str, feed: Mapping[str, Any], outputs: tuple[TensorSpec, ...], answers: BinaryIO
) -> None:
    """Predict rows, by the code path of the server for many rows or for one."""
    import numpy as np

    try:
        if kind == "rows":
            found = [np.asarray(array) for array in model.run(dict(feed))]
        else:
            for name, values in feed.items():
                model.row[name][:] = values
            found = [
                np.array(values, dtype=_numpy_type(tensor)).reshape(1, *tensor.shape[1:])
                for tensor, values in zip(outputs, model.run_row(), strict=True)
            ]
        contents = [_content(array) for array in found]
    except Exception as error:  # see above
        answer_job(answers, {"failed": first_line(error)[:LONGEST_MESSAGE]})
        return
    described = [{"shape": list(array.shape), "size": len(each)} for array, each in zip(found, contents, strict=True)]
    answer_job(answers, {"arrays": described}, contents)


def _numpy_type(tensor: TensorSpec) -> str:
    from pipelines.declarations.datatypes import ELEMENT_TYPES

    return ELEMENT_TYPES[tensor.datatype].numpy


def _content(array: Any) -> bytes:
    """Return the elements in row-major order: numbers as they are in memory, texts as JSON."""
    if array.dtype == object:
        return json.dumps(array.ravel().tolist()).encode()
    content: bytes = array.tobytes()
    return content


def _dumped(tensors: Iterable[TensorSpec]) -> list[dict[str, Any]]:
    return [tensor.model_dump(mode="json") for tensor in tensors]


def _refusal(error: Exception) -> dict[str, str]:
    if isinstance(error, MlopsError):
        return {"error": error.what[:LONGEST_MESSAGE], "fix": error.fix[:LONGEST_MESSAGE]}
    return {"error": f"the ONNX model cannot be loaded: {type(error).__name__}: {first_line(error)}"[:LONGEST_MESSAGE]}


if __name__ == "__main__":
    main(int(sys.argv[1]))
