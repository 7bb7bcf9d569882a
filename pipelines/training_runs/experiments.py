"""Experiments: trainings of a working tree, kept as files in it. Nothing of them is in a registry."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.run_facts import RunFacts
from pipelines.training_runs.recorded_runs import RecordedRun, ended_at

EXPERIMENTS = ".mlops/experiments"
"""Folder of the experiments in a repository: `<model>/<id>.json`. Git ignores it."""

LARGEST_EXPERIMENT = 1 << 20
"""Size limit of an experiment's file, in bytes."""


def save_experiment(root: Path, facts: RunFacts) -> str:
    """Save the facts of an experiment in a repository, and return its id.

    Raises:
        MlopsError: the file cannot be written.
    """
    name = f"here-{datetime.now(UTC):%Y%m%dt%H%M%S}-{secrets.token_hex(2)}"
    path = root / EXPERIMENTS / facts.model / f"{name}.json"
    try:
        write_atomically(path, facts.model_dump_json())
    except OSError as error:
        raise MlopsError(f"{path} cannot be written: {error.strerror or error}") from None
    return name


def read_experiments(root: Path, model: str, most: int) -> tuple[list[RecordedRun], int]:
    """Read the experiments of a model in a repository, the newest first.

    Args:
        root: the repository.
        model: the model's name.
        most: number of experiments to read.

    Returns:
        The experiments, and the number of older ones.
    """
    paths = sorted((root / EXPERIMENTS / model).glob("here-*.json"), reverse=True)
    return [_read(path) for path in paths[:most]], max(len(paths) - most, 0)


def _read(path: Path) -> RecordedRun:
    try:
        with path.open("rb") as file:
            facts = RunFacts.model_validate_json(file.read(LARGEST_EXPERIMENT))
    except (OSError, ValueError):
        return RecordedRun(path.stem, None, _time(path.stem), None, None, f"{path.name} is not an experiment")
    ended = ended_at(facts)
    return RecordedRun(path.stem, None, ended if ended is not None else _time(path.stem), None, facts)


def _time(name: str) -> datetime:
    """Return the time in the name of an experiment, or the earliest one if there is none."""
    try:
        return datetime.strptime(name[:20], "here-%Y%m%dt%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
