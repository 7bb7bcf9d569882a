"""Run a model's training function in a separate process, which has the training rows and no credentials.

The model's code is not trusted with what decides about it: the holdout, the signing key, the registry. The job keeps
those. It takes the ONNX model before it sends the features of the holdout, so they cannot influence the model. Answers
of the process are bytes and numbers, never pickles.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.declarations.errors import MlopsError
from pipelines.training.api import TrainedModel
from pipelines.training.isolation import PACKAGE, code_folders, is_enforceable, signal_name
from pipelines.training.onnx_graph import LARGEST_MODEL
from pipelines.training.sent_rows import SentRows
from pipelines.training.worker import Task

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from pipelines.declarations.model import Model

MOST_DIMENSIONS = 2
"""Dimensions of predictions: one, or rows and classes."""

LONGEST_HEADER = 1 << 20
"""Size limit of an answer's header, in bytes."""

ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}
"""Environment variables of the process: the same in every run, so that a run can be repeated."""

KEPT = ("PATH", "LD_LIBRARY_PATH", "TZ")
"""Environment variables that the process gets from the job."""


class _Answer(BaseModel):
    """Header of an answer.

    Attributes:
        error, fix: why an answer is missing, and what to do.
        size: number of bytes that follow.
        classes: classes of a classifier.
        shape: shape of the predictions.
    """

    model_config = ConfigDict(strict=True, extra="forbid")
    error: str | None = None
    fix: str = ""
    size: Annotated[int, Field(ge=0)] = 0
    classes: list[str | int] | None = None
    shape: list[Annotated[int, Field(ge=0)]] = []


@contextmanager
def train_isolated(model: Model, folder: Path, data: SentRows, say: Callable[[str], None]) -> Iterator[TrainedModel]:
    """Run the training function; yield its model, whose `predict` runs in the same process until the block ends.

    Args:
        model: the declaration.
        folder: folder of the model.
        data: the training rows.
        say: receives each line that the training function prints.

    Raises:
        MlopsError: the training function failed, or this system cannot confine it.
    """
    if not is_enforceable():
        say(f"{sys.platform} cannot confine training code: it has no credentials, but reads files and the network")
    with (
        tempfile.TemporaryDirectory(prefix="training-") as scratch,
        _Process(model, folder.resolve(), Path(scratch).resolve(), say) as process,
    ):
        process.send(data.shape)
        for block in data.blocks():
            process.send(block)
        answer, content = process.receive(LARGEST_MODEL)
        classes = None if answer.classes is None else tuple(answer.classes)
        yield TrainedModel(process.predict, content, classes)


class _Process:
    def __init__(self, model: Model, folder: Path, scratch: Path, say: Callable[[str], None]) -> None:
        self._name = f"{model.training.entrypoint} of {model.name}"
        self._say = say
        read, write = os.pipe()
        path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pipelines.training.worker", str(write)],
                cwd=scratch,
                env=_environment(scratch, [str(PACKAGE.parent), *path]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[write],
                start_new_session=True,
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        self._answers = os.fdopen(read, "rb")
        self._printing = threading.Thread(target=self._forward, daemon=True)
        self._printing.start()
        task = Task(
            model=model.name,
            entrypoint=model.training.entrypoint,
            folder=str(folder),
            scratch=str(scratch),
            readable=[str(each) for each in code_folders(path)],
        )
        self._write(lambda given: given.write(json.dumps(task).encode() + b"\n"))

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, and those that it started."""
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._printing.join(timeout=1)
        for stream in (self._process.stdin, self._answers):
            with suppress(OSError, AttributeError):
                stream.close()  # type: ignore[union-attr]

    def _forward(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._say(line.decode(errors="replace").rstrip("\n"))

    def _write(self, write: Callable[[BinaryIO], object]) -> None:
        given = self._process.stdin
        assert given is not None
        with suppress(BrokenPipeError):  # the process has ended; its answer, or the lack of one, says why
            write(given)  # type: ignore[arg-type]
            given.flush()

    def send(self, value: object) -> None:
        """Send an object."""
        self._write(lambda given: pickle.dump(value, given, protocol=5))

    def receive(self, limit: int) -> tuple[_Answer, bytes]:
        """Receive an answer of at most `limit` bytes.

        Raises:
            MlopsError: the process failed, or it does not answer as `pipelines.training.worker` does.
        """
        header = self._answers.readline(LONGEST_HEADER)
        if not header.endswith(b"\n"):
            raise self._ended()
        try:
            answer = _Answer.model_validate_json(header)
        except ValidationError:
            raise MlopsError(
                f"{self._name}: expected a model, found something else on the channel to the job",
                fix="do not write to files that the training function did not open",
            ) from None
        if answer.error is not None:
            raise MlopsError(answer.error, fix=answer.fix)
        if answer.size > limit:
            raise MlopsError(f"size of the ONNX model: expected at most {limit} bytes, found {answer.size}")
        content = self._answers.read(answer.size)
        if len(content) < answer.size:
            raise self._ended()
        return answer, content

    def _ended(self) -> MlopsError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.poll()
        if code is not None and code < 0:
            fix = "raise training.resources.memory in model.yaml" if code == -signal.SIGKILL else ""
            return MlopsError(
                f"{self._name}: the training process was ended by the signal {signal_name(-code)}", fix=fix
            )
        return MlopsError(f"{self._name}: the training process ended with exit code {code} before it had a model")

    def predict(self, features: pd.DataFrame) -> np.ndarray[Any, Any]:
        """Return the predictions of the trained model, float64.

        Raises:
            MlopsError: the prediction failed.
        """
        import numpy as np

        self.send(features)
        answer, content = self.receive(LARGEST_MODEL)
        size, rest = divmod(len(content), 8)
        # Exact: a product of 64-bit integers may overflow to the right number.
        if rest or math.prod(answer.shape) != size or len(answer.shape) > MOST_DIMENSIONS:
            raise MlopsError(f"{self._name}: predict() returned {size} numbers of the shape {answer.shape}")
        return np.frombuffer(content, "<f8").reshape(answer.shape).astype(np.float64)


def _environment(scratch: Path, path: list[str]) -> Mapping[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    folders = dict.fromkeys(("HOME", "TMPDIR"), str(scratch))
    return {**kept, **ENVIRONMENT, **folders, "PYTHONPATH": os.pathsep.join(path)}
