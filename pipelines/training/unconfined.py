"""Run a model's training function in this process, with the rights of the person who runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.training.api import TrainedModel
from pipelines.training.entrypoint import training_function
from pipelines.training.sent_rows import SentRows, receive_rows
from pipelines.training.worker import exported, model_failures, repeatable

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.declarations.model import Model


@contextmanager
def train_unconfined(model: Model, folder: Path, data: SentRows, say: Callable[[str], None]) -> Iterator[TrainedModel]:
    """Run the training function, and yield its model.

    Debuggers work, and so does code that reads files or the network, which the training job refuses. For experiments
    only: the function can reach the holdout.

    Args:
        model: the declaration.
        folder: folder of the model.
        data: the training rows.
        say: not used; what the function prints goes to standard output.

    Raises:
        MlopsError: the training function failed.
    """
    name = f"{model.training.entrypoint} of {model.name}"
    folder = folder.resolve()
    with ExitStack() as loaded:
        with model_failures(name, folder):
            train = loaded.enter_context(training_function(model.training.entrypoint, model.name, folder))
            given = receive_rows(data.shape, data.blocks())
            with repeatable(given.seed):
                trained = train(given)
            content, classes = exported(trained, name)

        def predict(features: pd.DataFrame) -> np.ndarray[Any, Any]:
            with model_failures(name, folder):
                return np.asarray(trained.predict(features))

        yield TrainedModel(predict, content, None if classes is None else tuple(classes))
