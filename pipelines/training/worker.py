"""Process that runs a model's training function, and nothing else: `python -m pipelines.training.worker`.

`pipelines.training.isolated` starts it. It gets a task as one line of JSON on standard input, confines itself, and
reads the training rows. Each answer on the channel is a header, one line of JSON, and as many bytes as the header says:
the ONNX model, then the predictions for the features that the job sends once it has the model.
"""

from __future__ import annotations

import random
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypedDict

from pipelines.declarations.errors import MlopsError
from pipelines.training.isolation import confine, is_enforceable
from pipelines.training.job_channel import answer_job, next_object, open_channel
from pipelines.training.sent_rows import receive_rows

if TYPE_CHECKING:
    from pipelines.training.api import TrainedModel
    from pipelines.training.sent_rows import SentShape

LONGEST_MESSAGE = 20_000
"""Maximum length of an error message, in characters."""


class Task(TypedDict):
    """What to run.

    Attributes:
        model: name of the model.
        entrypoint: `training.entrypoint` of its declaration.
        folder: folder of the model.
        scratch: folder for temporary files.
        readable: further folders that hold code.
    """

    model: str
    entrypoint: str
    folder: str
    scratch: str
    readable: list[str]


def main(channel: int) -> None:
    """Train and predict as standard input says.

    Args:
        channel: file descriptor for the answers.
    """
    task: Task
    with open_channel(channel) as (task, given, answers):
        try:
            if is_enforceable():
                # Before numpy is imported: it starts threads, and only the calling thread is confined.
                readable = [Path(task["folder"]), *map(Path, task["readable"])]
                confine(readable, [Path(task["scratch"])], shared_memory=True)
            _serve(task, given, answers)
        except MlopsError as error:
            answer_job(answers, {"error": error.what[:LONGEST_MESSAGE], "fix": error.fix[:LONGEST_MESSAGE]})


def _serve(task: Task, given: BinaryIO, answers: BinaryIO) -> None:
    import numpy as np

    from pipelines.training.entrypoint import training_function

    shape: SentShape = next_object(given)
    data = receive_rows(shape, iter(lambda: next_object(given), None))
    name = f"{task['entrypoint']} of {task['model']}"
    folder = Path(task["folder"])
    with model_failures(name, folder), training_function(task["entrypoint"], task["model"], folder) as train:
        with repeatable(data.seed):
            trained = train(data)
        content, classes = exported(trained, name)
        answer_job(answers, {"size": len(content), "classes": classes}, [content])
        while (features := next_object(given)) is not None:
            predicted = np.asarray(trained.predict(features), dtype="<f8")
            answer_job(answers, {"size": predicted.nbytes, "shape": list(predicted.shape)}, [predicted.tobytes()])


def exported(trained: TrainedModel, name: str) -> tuple[bytes, list[str | int] | None]:
    """Return the ONNX model as bytes, and the classes as plain values.

    Args:
        trained: what the training function returned.
        name: name of the function, for errors.

    Raises:
        MlopsError: it returned something else, or a model that cannot be written.
    """
    from pipelines.training.api import TrainedModel

    if not isinstance(trained, TrainedModel):
        raise MlopsError(
            f"{name}: expected a TrainedModel, found {type(trained).__name__}",
            fix="return TrainedModel(predict, onnx), or from_sklearn(estimator, data.features)",
        )
    content = trained.onnx if isinstance(trained.onnx, bytes) else trained.onnx.SerializeToString(deterministic=True)
    return content, None if trained.classes is None else [_plain(each) for each in trained.classes]


def _plain(value: Any) -> str | int:
    """Return a class as text or an integer."""
    plain = value.item() if hasattr(value, "item") else value
    return int(plain) if isinstance(plain, int) else str(plain)


@contextmanager
def model_failures(name: str, folder: Path) -> Iterator[None]:
    """Turn an exception of the model's code into an error that names its lines.

    Raises:
        MlopsError: the block failed.
    """
    try:
        yield
    except MlopsError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_in(frame.filename, folder)]
        places = "".join(f"\n  at {frame.filename}:{frame.lineno}: {frame.line}" for frame in frames)
        message = str(error).strip() or "no message"
        fix = "correct the model's code"
        if isinstance(error, ModuleNotFoundError) and frames and error.name:
            library = error.name.partition(".")[0]
            fix = (
                f"correct the import, or add the library of {library} to requirements/pipelines.in, "
                "then run make lock and make setup"
            )
        raise MlopsError(f"{name} failed: {type(error).__name__}: {message}{places}", fix=fix) from None


def _is_in(file: str, folder: Path) -> bool:
    return Path(file).is_relative_to(folder)


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Seed the global generators and limit numeric libraries to one thread, so sums have a fixed order."""
    import numpy as np
    import scipy.linalg  # noqa: F401 - only loaded libraries can be limited, and scipy has its own BLAS
    from threadpoolctl import threadpool_limits

    random.seed(seed)
    np.random.seed(seed)
    with threadpool_limits(limits=1):
        yield


if __name__ == "__main__":
    main(int(sys.argv[1]))
