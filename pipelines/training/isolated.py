"""Run a model's training function in a separate process, which has the training rows and no credentials.

The model's code is not trusted with what decides about it: the holdout, the signing key, the registry. The job keeps
those. It takes the ONNX model before it sends the features of the holdout, so they cannot influence the model. Answers
of the process are bytes and numbers, never pickles.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from pipelines.declarations.errors import MlopsError
from pipelines.training.api import TrainedModel
from pipelines.training.confined_process import ConfinedProcess, Purpose
from pipelines.training.isolation import is_enforceable
from pipelines.training.onnx_graph import LARGEST_MODEL
from pipelines.training.sent_rows import SentRows

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from pipelines.declarations.model import Model

MOST_DIMENSIONS = 2
"""Dimensions of predictions: one, or rows and classes."""


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
    name = f"{model.training.entrypoint} of {model.name}"
    purpose = Purpose(
        subject=name,
        process="training process",
        answer="a model",
        more_memory="raise training.resources.memory in model.yaml",
        fix="do not write to files that the training function did not open",
    )
    with tempfile.TemporaryDirectory(prefix="training-") as made:
        scratch = Path(made).resolve()
        task = {
            "model": model.name,
            "entrypoint": model.training.entrypoint,
            "folder": str(folder.resolve()),
            "scratch": str(scratch),
        }
        with ConfinedProcess("pipelines.training.worker", task, scratch, purpose, say) as process:
            process.send(data.shape)
            for block in data.blocks():
                process.send(block)
            answer, content = _receive(process)
            classes = None if answer.classes is None else tuple(answer.classes)
            yield TrainedModel(lambda features: _predict(process, name, features), content, classes)


def _receive(process: ConfinedProcess) -> tuple[_Answer, bytes]:
    """Receive an answer of at most `LARGEST_MODEL` bytes.

    Raises:
        MlopsError: the process failed, or it does not answer as `pipelines.training.worker` does.
    """
    answer = process.receive_header(_Answer)
    if answer.error is not None:
        raise MlopsError(answer.error, fix=answer.fix)
    if answer.size > LARGEST_MODEL:
        raise MlopsError(f"size of the ONNX model: expected at most {LARGEST_MODEL} bytes, found {answer.size}")
    return answer, process.receive(answer.size)


def _predict(process: ConfinedProcess, name: str, features: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Return the predictions of the trained model, float64.

    Raises:
        MlopsError: the prediction failed.
    """
    import numpy as np

    process.send(features)
    answer, content = _receive(process)
    size, rest = divmod(len(content), 8)
    # Exact: a product of 64-bit integers may overflow to the right number.
    if rest or math.prod(answer.shape) != size or len(answer.shape) > MOST_DIMENSIONS:
        raise MlopsError(f"{name}: predict() returned {size} numbers of the shape {answer.shape}")
    return np.frombuffer(content, "<f8").reshape(answer.shape).astype(np.float64)
