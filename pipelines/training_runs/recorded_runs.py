"""Runs of a model: those that an environment has registered, and the experiments of a working tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.documents import Declaration
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.run_facts import RunFacts, facts_of_run

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.declarations.environment import EnvironmentDescriptor
    from pipelines.registry.runs import Run
    from pipelines.registry.store import Listed

COPIES = ".mlops/run-records"
"""Folder of the local copies of run records, in the repository. Records never change, so each is read once."""

BUNDLES_AT_ONCE = 8


@dataclass(frozen=True)
class RecordedRun:
    """A run, as commands show it.

    Attributes:
        id: id of the run.
        environment: environment that registered it; None for an experiment of this working tree.
        ended: when it ended.
        bundle: digest of its bundle; None for an experiment, or if the record cannot be read.
        facts: its facts; None if they cannot be read.
        problem: why the facts are missing; "" if they are there.
    """

    id: str
    environment: str | None
    ended: datetime
    bundle: str | None
    facts: RunFacts | None
    problem: str = ""


class _Copies(Declaration):
    """Local copy of the run records of a model in a registry.

    Attributes:
        bucket: bucket of the registry.
        records: run id → ETag and content of the record.
    """

    bucket: str
    records: dict[str, tuple[str, str]]


def read_runs(descriptor: EnvironmentDescriptor, model: str, root: Path, most: int) -> tuple[list[RecordedRun], int]:
    """Read the registered runs of a model, the newest first. Uses and updates the local copies of records.

    Args:
        descriptor: environment whose registry to read.
        model: the model's name.
        root: the repository, which holds the copies.
        most: number of runs to read.

    Returns:
        The runs, and the number of older ones.

    Raises:
        MlopsError: the registry cannot be read.
    """
    from pipelines.registry import runs

    listed = runs.list_runs(descriptor, model)
    wanted = dict(list(listed.items())[:most])
    path = root / COPIES / descriptor.name / f"{model}.json"
    kept = _read_copies(path, descriptor.registry_bucket, listed)
    new = {run: record for run, record in wanted.items() if run not in kept}
    contents = runs.read_records(descriptor, new)
    records = {run: runs.parse_record(content) for run, content in contents.items()}
    completed = _with_facts(descriptor, model, records)
    records |= {run: runs.parse_record(kept[run][1].encode()) for run in wanted if run in kept} | completed
    if contents:
        texts = {run: content.decode(errors="replace") for run, content in contents.items()}
        texts |= {run: record.model_dump_json() for run, record in completed.items()}
        copies = kept | {run: (listed[run].etag, text) for run, text in texts.items()}
        _write_copies(path, _Copies(bucket=descriptor.registry_bucket, records=copies))
    found = [_registered(descriptor.name, model, run, record, records.get(run)) for run, record in wanted.items()]
    return found, len(listed) - len(wanted)


def _read_copies(path: Path, bucket: str, listed: Mapping[str, Listed]) -> dict[str, tuple[str, str]]:
    """Return the copies that are those of the listed records."""
    try:
        copies = _Copies.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if copies.bucket != bucket:
        return {}
    return {run: copy for run, copy in copies.records.items() if run in listed and copy[0] == listed[run].etag}


def _write_copies(path: Path, copies: _Copies) -> None:
    try:
        write_atomically(path, copies.model_dump_json())
    except OSError:
        return  # a full disk, or a repository that is read-only: the next command reads the records again


def _with_facts(descriptor: EnvironmentDescriptor, model: str, records: Mapping[str, Run | None]) -> dict[str, Run]:
    """Return those of the records that have no facts, with the facts of their bundles."""
    from concurrent.futures import ThreadPoolExecutor

    bare = {run: record for run, record in records.items() if record is not None and record.facts is None}
    with ThreadPoolExecutor(BUNDLES_AT_ONCE) as pool:
        found = pool.map(lambda record: _facts_of_bundle(descriptor, model, record.bundle), bare.values())
        return {
            run: record.model_copy(update={"facts": facts})
            for (run, record), facts in zip(bare.items(), found, strict=True)
            if facts is not None
        }


def _facts_of_bundle(descriptor: EnvironmentDescriptor, model: str, digest: str) -> RunFacts | None:
    from pipelines.registry import bundles

    try:
        return _read_facts(descriptor, model, digest)
    except (bundles.UnknownBundleError, bundles.TamperedBundleError, ValidationError):
        return None


def disagreements(descriptor: EnvironmentDescriptor, run: RecordedRun) -> list[str]:
    """Compare the record of a registered run with its bundle, whose digest covers the same facts.

    Returns:
        The names of the facts that differ; none if the record agrees with the bundle.

    Raises:
        MlopsError: the bundle does not exist, was tampered with, or cannot be read.
    """
    if run.facts is None or run.bundle is None:
        return []
    facts = run.facts
    try:
        expected = _read_facts(descriptor, facts.model, run.bundle, facts.started, facts.finished, facts.commit)
    except ValidationError:
        return ["metrics"]
    return [name for name in RunFacts.model_fields if getattr(facts, name) != getattr(expected, name)]


def _read_facts(
    descriptor: EnvironmentDescriptor,
    model: str,
    digest: str,
    started: str | None = None,
    finished: str | None = None,
    commit: str | None = None,
) -> RunFacts:
    """Read the facts of a run from its bundle, with those that only the record has."""
    from pipelines.declarations.evaluation import Evaluation
    from pipelines.registry import bundles

    bundle = bundles.fetch(descriptor, model, digest, ["evaluation.json"])
    evaluation = Evaluation.model_validate_json(bundle.files["evaluation.json"])
    return facts_of_run(bundle.manifest, evaluation, started, finished, commit, image=bundle.manifest.image)


def _registered(environment: str, model: str, run: str, listed: Listed, record: Run | None) -> RecordedRun:
    if record is None:
        return RecordedRun(run, environment, listed.modified, None, None, "its record is not one of a training run")
    if record.facts is None:
        return RecordedRun(run, environment, listed.modified, record.bundle, None, "its bundle cannot be read")
    if record.facts.model != model:  # its bundle would agree with it
        problem = f"its record is about the model {record.facts.model}"
        return RecordedRun(run, environment, listed.modified, record.bundle, None, problem)
    return RecordedRun(run, environment, ended_at(record.facts) or listed.modified, record.bundle, record.facts)


def ended_at(facts: RunFacts) -> datetime | None:
    """Return when a run ended; None if its facts do not say it."""
    try:
        return datetime.fromisoformat(facts.finished) if facts.finished is not None else None
    except ValueError:
        return None


def find_runs(runs: Sequence[RecordedRun], names: Iterable[str], model: str) -> list[RecordedRun]:
    """Return the runs that names name, each once.

    Args:
        runs: the runs to search.
        names: ids of runs, or the beginnings of ids.
        model: the model, for errors.

    Raises:
        MlopsError: a name fits no run, or several.
    """
    found: dict[tuple[str | None, str], RecordedRun] = {}
    for name in names:
        exact = [run for run in runs if run.id == name]
        fitting = exact or [run for run in runs if run.id.startswith(name)]
        if len(fitting) != 1:
            kinds = ", ".join(f"{run.id} ({run.environment or 'experiment'})" for run in fitting[:5])
            raise MlopsError(
                f"runs of {model} that begin with {name!r}: expected one, found {kinds or 'none'}",
                fix=f"mlops runs list {model} lists them; --last N reads more of them",
            )
        found[fitting[0].environment, fitting[0].id] = fitting[0]
    return list(found.values())
