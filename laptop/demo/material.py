"""Inputs of the demo: a clone of the project, and batches of data of the sample models."""

from __future__ import annotations

import csv
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from laptop.project_copy import copy_project
from laptop.short_waits import shorten_waits
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release

FIRST_BATCH = 400
"""Patients in the first batch; the others arrive later."""


@dataclass(frozen=True)
class SampleModel:
    """A model of the template that the demo can show.

    Attributes:
        model: its name.
        dataset: the dataset that it is trained on.
        files: landing files in `data-contracts/samples`.
        people: what a row is about, for the titles of steps.
        batches: writes the batches into a folder, and returns them by name: `first`, `later` with more of the same, and
            `mixed-up`, which keeps the contract but whose outcomes are shuffled, so only a gate can detect it.
        others: further datasets that belong to the model.
    """

    model: str
    dataset: str
    files: tuple[str, ...]
    people: str
    batches: Callable[[Path, Path], dict[str, Path]]
    others: tuple[str, ...] = ()

    def check(self, project: Project) -> None:
        """Check that the project has the model, its contracts and its data.

        Raises:
            MlopsError: one of them is missing.
        """
        samples = project.contracts_folder / "samples"
        contracts = (project.contract_file(name) for name in (self.dataset, *self.others))
        needed = (project.model_file(self.model), *contracts, *(samples / name for name in self.files))
        missing = [str(path.relative_to(project.root)) for path in needed if not path.is_file()]
        if missing:
            raise MlopsError(
                f"the demo needs the sample model {self.model}: missing {', '.join(missing)}",
                fix="run it in a clone of the template, or restore the sample from this repository's history",
            )

    def write_batches(self, project: Project, folder: Path) -> dict[str, Path]:
        """Write the batches into a folder, and return them by name."""
        folder.mkdir(parents=True, exist_ok=True)
        return self.batches(project.contracts_folder / "samples", folder)


def _patients(samples: Path, folder: Path) -> dict[str, Path]:
    """Split the sample into three batches. `first` has most patients and the rows that break the contract."""
    with (samples / PATIENTS.files[0]).open(newline="") as file:
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
    written = {}
    for name, content in (("first", first), ("later", later), ("mixed-up", mixed_up)):
        path = folder / f"{name}.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([head, *content])
        written[name] = path
    return written


def write_heavier(source: Path, path: Path) -> Path:
    """Write the patients of a file again, with other numbers and a body mass index that is 6 kg/m² greater."""
    with source.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["bmi"] != "n/a"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            changed = {"patient_id": str(int(row["patient_id"]) + 10_000), "bmi": f"{float(row['bmi']) + 6:.1f}"}
            writer.writerow({**row, **changed})
    return path


def _years(samples: Path, folder: Path) -> dict[str, Path]:
    """Take one year of the survey for each batch; the third has shuffled outcomes."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = {}
    for name, source in zip(("first", "later"), CENSUS.files, strict=False):
        written[name] = Path(shutil.copy(samples / source, folder / f"{name}.parquet"))
    rows = pq.read_table(samples / CENSUS.files[2])
    shuffled = np.random.default_rng(3).permutation(rows.num_rows)
    index = rows.column_names.index("employed")
    mixed_up = rows.set_column(index, rows.field(index), rows.column("employed").take(pa.array(shuffled)))
    written["mixed-up"] = folder / "mixed-up.parquet"
    pq.write_table(mixed_up, written["mixed-up"])
    return written


PATIENTS = SampleModel(
    "diabetes-progression", "diabetes-patients", ("diabetes-patients.csv",), people="patients", batches=_patients
)
CENSUS = SampleModel(
    "census-employment",
    "census-employment",
    ("census-employment.parquet", *(f"census-employment-{year}.parquet" for year in (2016, 2017, 2018))),
    people="people",
    batches=_years,
    others=("census-employment-labels",),
)
SAMPLE_MODELS = (PATIENTS, CENSUS)

MODEL, DATASET = PATIENTS.model, PATIENTS.dataset
"""The model that the demo shows by default, and its dataset."""


def batches(project: Project, folder: Path) -> dict[str, Path]:
    """Write the batches of the default model into a folder, and return them by name."""
    return PATIENTS.write_batches(project, folder)


def own_clone(project: Project, to: Path, *, quick: bool = True, without: Sequence[SampleModel] = ()) -> Project:
    """Copy the working tree of a project into a new git repository, for the demo to change.

    Args:
        project: the project.
        to: folder of the copy, which is replaced.
        quick: shorten the pauses of rollouts and the soak, which are minutes in a real project.
        without: sample models to leave out of the copy, with their data and tests.

    Raises:
        MlopsError: git failed.
    """
    copy = copy_project(project, to)
    for sample in without:
        _remove(copy, sample)
    if quick:
        shorten_waits(copy)
    return copy


def _remove(project: Project, sample: SampleModel) -> None:
    """Remove a sample model as docs/data-scientist.md says."""
    if project.model_file(sample.model).is_file():
        shutil.rmtree(project.models_folder / sample.model)
    for name in (sample.dataset, *sample.others):
        project.contract_file(name).unlink(missing_ok=True)
        for file in (project.contracts_folder / "samples").glob(f"{name}*.*"):
            file.unlink()
    test = project.root / "tests" / "models" / f"test_{sample.model.replace('-', '_')}.py"
    test.unlink(missing_ok=True)


def keep_first_environment(project: Project) -> Project:
    """Remove all environments but the first from a project, and return it.

    Raises:
        MlopsError: a file cannot be changed.
    """
    from pipelines.github.alarm_workflow import write_alarm_environments
    from pipelines.github.release_owners import with_release_owners

    first, *others = project.environments
    for environment in others:
        project.stack_file(environment).unlink()
        for model in project.model_names:
            project.release_file(model, environment).unlink(missing_ok=True)
    owners = project.root / ".github" / "CODEOWNERS"
    if owners.is_file():
        owners.write_text(with_release_owners(owners.read_text(encoding="utf-8"), [first]), encoding="utf-8")
    kept = Project(project.root)
    write_alarm_environments(kept)
    return kept


def take_releases_back(project: Project) -> None:
    """Remove the bundle from every release file: the demo's account starts without bundles."""
    for model in project.model_names:
        for environment in project.environments:
            none = Release(model=model, environment=environment, bundle=None, replaces=None)
            project.release_file(model, environment).write_text(render_release(none), encoding="utf-8")
