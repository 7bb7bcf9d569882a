"""Inputs of the demo: a clone of the project, and batches of data."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from laptop.project_copy import copy_project
from laptop.short_waits import shorten_waits
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release

MODEL = "diabetes-progression"
DATASET = "diabetes-patients"
FIRST_BATCH = 400
"""Patients in the first batch; the others arrive later."""


def need_the_sample(project: Project) -> None:
    """Check that the project has the sample model, its contract and its data.

    Raises:
        MlopsError: one of them is missing.
    """
    needed = (project.model_file(MODEL), project.contract_file(DATASET), _sample(project))
    missing = [str(path.relative_to(project.root)) for path in needed if not path.is_file()]
    if missing:
        raise MlopsError(
            f"the demo needs the sample model: missing {', '.join(missing)}",
            fix="run it in a clone of the template, or restore the sample from this repository's history",
        )


def own_clone(project: Project, to: Path, *, quick: bool = True) -> Project:
    """Copy the working tree of a project into a new git repository, for the demo to change.

    Args:
        project: the project.
        to: folder of the copy, which is replaced.
        quick: shorten the pauses of rollouts and the soak, which are minutes in a real project.

    Raises:
        MlopsError: git failed.
    """
    copy = copy_project(project, to)
    if quick:
        shorten_waits(copy)
    return copy


def take_releases_back(project: Project) -> None:
    """Remove the bundle from every release file: the demo's account starts without bundles."""
    for model in project.model_names:
        for environment in project.environments:
            none = Release(model=model, environment=environment, bundle=None, replaces=None)
            project.release_file(model, environment).write_text(render_release(none), encoding="utf-8")


def _sample(project: Project) -> Path:
    return project.contracts_folder / "samples" / f"{DATASET}.csv"


def batches(project: Project, folder: Path) -> dict[str, Path]:
    """Split the sample into three batches, and return their files by name.

    `first` has most patients and the rows that break the contract, `later` has the other patients. `mixed-up` keeps
    the contract but its outcomes are shuffled, which only a gate can detect.
    """
    with _sample(project).open(newline="") as file:
        head, *rows = list(csv.reader(file))
    good = [row for row in rows if row[0].isdigit() and int(row[0]) <= 442]
    outcome = head.index("progression")
    first = [*good[:FIRST_BATCH], *rows[442:]]
    later = good[FIRST_BATCH:442]
    outcomes = [row[outcome] for row in good[:442]]
    random.Random(3).shuffle(outcomes)  # noqa: S311 - sample data, not a secret
    mixed_up = []
    for number, (row, shuffled) in enumerate(zip(good[:442], outcomes, strict=True)):
        changed = list(row)
        changed[0], changed[outcome] = str(10_000 + number), shuffled
        mixed_up.append(changed)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name, content in (("first", first), ("later", later), ("mixed-up", mixed_up)):
        path = folder / f"{name}.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([head, *content])
        written[name] = path
    return written
