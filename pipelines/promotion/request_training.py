"""Request training from GitHub."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.declarations.project import Project
from pipelines.github.gh import Gh
from pipelines.promotion.attempt import Log


def request_training(project: Project, models: Iterable[str], log: Log) -> None:
    """Start the workflow `train` for each model.

    Raises:
        MlopsError: a model does not exist, or GitHub refuses.
    """
    wanted = [project.model(name).name for name in models]
    for model in wanted:
        Gh.find(project.root).dispatch("train.yml", {"model": model})
        log(f"started the workflow train for {model}")
