"""What the demo works on: a copy of the project, and batches of data."""

from __future__ import annotations

import csv
import random
import shutil
import subprocess
from pathlib import Path

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release

MODEL = "diabetes-progression"
DATASET = "diabetes-patients"
FIRST_BATCH = 400
"""Patients in the first batch; those after them arrive later."""


def need_the_sample(project: Project) -> None:
    """Refuse a project without the model, the contract and the data that the demo shows.

    Raises:
        MlopsError: one of them is missing.
    """
    needed = (project.model_file(MODEL), project.contract_file(DATASET), _sample(project))
    missing = [str(path.relative_to(project.root)) for path in needed if not path.is_file()]
    if missing:
        raise MlopsError(
            f"the demo shows the sample model, and this repository has no {', no '.join(missing)}",
            fix="run it in a clone of the template, or bring the sample back from the history of this one",
        )


def own_clone(project: Project, to: Path) -> Project:
    """A copy of the project as its working tree stands, in which the demo may change and commit files.

    Raises:
        MlopsError: git cannot make it.
    """
    if to.exists():
        shutil.rmtree(to)
    to.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=project.root,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        raise MlopsError(f"git cannot list the files of {project.root}: {listed.stderr.decode().strip()}")
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, copy = project.root / name, to / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
    made = subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=to, capture_output=True, check=False)
    if made.returncode:
        raise MlopsError(f"git cannot make a repository in {to}: {made.stderr.decode().strip()}")
    return Project(to)


def take_releases_back(project: Project) -> None:
    """Release nothing in any environment: what a repository has released is not in the demo's account."""
    for model in project.model_names:
        for environment in project.environments:
            none = Release(model=model, environment=environment, bundle=None, replaces=None)
            project.release_file(model, environment).write_text(render_release(none), encoding="utf-8")


def _sample(project: Project) -> Path:
    return project.contracts_folder / "samples" / f"{DATASET}.csv"


def batches(project: Project, folder: Path) -> dict[str, Path]:
    """The sample as three batches: most patients with the rows that the contract refuses, the others, and a bad one.

    The bad batch keeps the contract, but its outcomes are shuffled: no rule on a row can see that, a gate can.
    """
    with _sample(project).open(newline="") as file:
        head, *rows = list(csv.reader(file))
    good = [row for row in rows if row[0].isdigit() and int(row[0]) <= 442]
    outcome = head.index("progression")
    first = [*good[:FIRST_BATCH], *rows[442:]]
    later = good[FIRST_BATCH:442]
    outcomes = [row[outcome] for row in good[:442]]
    random.Random(3).shuffle(outcomes)  # noqa: S311 - a made-up mistake, not a secret
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
