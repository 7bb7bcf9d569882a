"""Decide whether a model should be trained without a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.data.catalog import latest_columns
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.model import Model
from pipelines.registry.runs import has_run, is_trained
from pipelines.targets.target import Target

Unless = Literal["empty", "unchanged"]
"""When not to train: if the dataset has no rows yet, or also if there is nothing new to train on."""


@dataclass(frozen=True)
class TrainingFacts:
    """What is known about a model and its dataset in an environment.

    Attributes:
        ready: True if the environment is up and a training image is pinned.
        snapshot: latest Iceberg snapshot of the dataset; None if it has no rows yet.
        trained: True if a run has trained on that snapshot.
        ever_trained: True if any run has produced a bundle.
        missing: columns that the model needs and that snapshot lacks, because its contract had none then; sorted.
    """

    ready: bool = False
    snapshot: str | None = None
    trained: bool = False
    ever_trained: bool = False
    missing: tuple[str, ...] = ()


def reason_to_wait(model: Model, facts: TrainingFacts, unless: Unless) -> str | None:
    """Return why a model is not to be trained now; None if it is.

    The first training needs data, and nothing else. Later ones follow new data if the model asks for it. A model that
    uses a new column waits for the first rows that have it.
    """
    if not facts.ready:
        return f"training of {model.name} waits: the environment is not up yet, or has no training image"
    if facts.snapshot is None:
        return f"training of {model.name} waits for data: {model.contract} has no rows yet"
    if facts.missing:
        then = "" if "new-data" in model.training.retrain_on else "; then run the workflow train"
        return (
            f"training of {model.name} waits for data with {', '.join(facts.missing)}: the latest version of "
            f"{model.contract} (snapshot {facts.snapshot}) has no such column; ingest a file with it{then}"
        )
    if unless == "empty":
        return None
    if facts.trained:
        return f"{model.name} is trained on the latest version of {model.contract} (snapshot {facts.snapshot})"
    if facts.ever_trained and "new-data" not in model.training.retrain_on:
        return f"{model.contract} has a new version, but {model.name} does not list new-data in training.retrain_on"
    return None


def training_environment(target: Target, environment: str) -> EnvironmentDescriptor | None:
    """Return the descriptor of an environment; None if it is not up, or pins no training image.

    Raises:
        MlopsError: the environment does not exist.
    """
    pinned = target.project.stack(environment).config.environment.images.training
    known = target.outputs(environment).get("descriptor") if pinned is not None else None
    return EnvironmentDescriptor.from_output(known, environment) if known else None


def read_facts(descriptor: EnvironmentDescriptor | None, model: Model) -> TrainingFacts:
    """Read the facts about a model from an environment. Read-only.

    Args:
        descriptor: the environment, from `training_environment`.
        model: the model.

    Raises:
        MlopsError: the dataset or the registry cannot be read.
    """
    if descriptor is None:
        return TrainingFacts()
    latest = latest_columns(descriptor, model.contract)
    snapshot, columns = latest if latest is not None else (None, model.needed_columns)
    trained = snapshot is not None and is_trained(descriptor, model.name, snapshot)
    missing = tuple(sorted(model.needed_columns - columns))
    return TrainingFacts(True, snapshot, trained, trained or has_run(descriptor, model.name), missing)


def models_due(target: Target, environment: str, dataset: str) -> tuple[str, ...]:
    """Return the models to train on the latest version of a dataset.

    Raises:
        MlopsError: the environment does not exist, or the dataset or the registry cannot be read.
    """
    descriptor = training_environment(target, environment)
    models = [model for model in map(target.project.model, target.project.model_names) if model.contract == dataset]
    return tuple(
        model.name for model in models if reason_to_wait(model, read_facts(descriptor, model), "unchanged") is None
    )
