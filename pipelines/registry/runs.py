"""Training runs and the bundles that they produced."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from pydantic import TypeAdapter, ValidationError

from pipelines.declarations.digests import Digest, canonical_json
from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import RunId, checked_name
from pipelines.declarations.run_facts import RunFacts
from pipelines.registry import clients, store

LARGEST_RECORD = 256 << 10
"""Size limit of a run record, in bytes."""

READ_AT_ONCE = clients.CONNECTIONS
"""Number of run records that are read in parallel."""


class Run(Declaration):
    """Record of a training run, `runs/<model>/<run>.json` in the registry bucket.

    It is not signed. What decides about a release is read from the bundle.

    Attributes:
        bundle: digest of the bundle that the run produced.
        facts: what the run was made from, and how its model did; None if they are only in the bundle.
    """

    bundle: Digest
    facts: RunFacts | None = None


def record_run(
    descriptor: EnvironmentDescriptor,
    model: str,
    run: str,
    digest: str,
    snapshot: str,
    facts: RunFacts | None = None,
) -> None:
    """Record the bundle that a run produced. Recording the same bundle again changes nothing.

    Facts that make the record larger than `LARGEST_RECORD` are left out; they are in the bundle.

    Args:
        descriptor: the environment.
        model: the model's name.
        run: id of the run.
        digest: digest of the bundle.
        snapshot: Iceberg snapshot that the model was trained on.
        facts: facts of the run.

    Raises:
        MlopsError: the run id is malformed, or already has another bundle; or the write failed.
    """
    key, content = _key(model, run), canonical_json(Run(bundle=digest).model_dump(mode="json", exclude={"facts"}))
    whole = canonical_json(Run(bundle=digest, facts=facts).model_dump(mode="json")) if facts is not None else content
    try:
        store.put_new(descriptor.registry_bucket, key, whole if len(whole) <= LARGEST_RECORD else content)
    except store.PreconditionFailedError:
        before = read_run(descriptor, model, run)
        if before != digest:
            raise MlopsError(
                f"the run {run} of {model} already has another bundle: expected {before}, found {digest}",
                fix="use a unique RUN_ID for each run",
            ) from None
    with suppress(store.PreconditionFailedError):  # another run trained on it before
        store.put_new(descriptor.registry_bucket, _snapshot_key(model, snapshot), content)


def is_trained(descriptor: EnvironmentDescriptor, model: str, snapshot: str) -> bool:
    """Return True if a run of a model has trained on an Iceberg snapshot.

    Raises:
        MlopsError: the registry cannot be read.
    """
    try:
        store.get(descriptor.registry_bucket, _snapshot_key(model, snapshot), limit=LARGEST_RECORD)
    except store.NotFoundError:
        return False
    return True


def has_run(descriptor: EnvironmentDescriptor, model: str) -> bool:
    """Return True if any run of a model has produced a bundle.

    Raises:
        MlopsError: the registry cannot be read.
    """
    prefix = f"runs/{checked_name(model)}/"
    return bool(store.first_after(descriptor.registry_bucket, prefix, "", most=1))


def read_run(descriptor: EnvironmentDescriptor, model: str, run: str) -> str:
    """Return the digest of the bundle that a run produced. The bundle is not verified here.

    Raises:
        MlopsError: the run produced no bundle, or its record is malformed.
    """
    key = _key(model, run)
    try:
        content = store.get(descriptor.registry_bucket, key, limit=LARGEST_RECORD).content
    except store.NotFoundError:
        raise MlopsError(
            f"the run {run} of {model} produced no bundle", fix="read the log of its job for the reason"
        ) from None
    record = parse_record(content)
    if record is None:
        raise MlopsError(f"s3://{descriptor.registry_bucket}/{key} is not the record of a training run")
    return record.bundle


def parse_record(content: bytes) -> Run | None:
    """Return the record of a run; None if it is not one."""
    try:
        return Run.model_validate_json(content)
    except ValidationError:
        return None


def list_runs(descriptor: EnvironmentDescriptor, model: str) -> dict[str, store.Listed]:
    """Return run id → its record in the registry, the newest first.

    Raises:
        MlopsError: the registry cannot be read.
    """
    prefix = f"runs/{checked_name(model)}/"
    found = {}
    for listed in store.listing(descriptor.registry_bucket, prefix):
        name = listed.key.removeprefix(prefix)
        run = name.removesuffix(".json")
        if name != run and _is_run(run):  # records of snapshots are in a folder
            found[run] = listed
    return dict(sorted(found.items(), key=lambda each: (each[1].modified, each[0]), reverse=True))


def read_records(descriptor: EnvironmentDescriptor, records: Mapping[str, store.Listed]) -> dict[str, bytes]:
    """Return run id → content of its record. Records that are too large, or gone, are left out.

    Raises:
        MlopsError: the registry cannot be read.
    """
    client = store.s3()

    def read(key: str) -> bytes | None:
        try:
            return store.get(descriptor.registry_bucket, key, limit=LARGEST_RECORD, client=client).content
        except (store.NotFoundError, store.TooLargeError):
            return None

    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        contents = pool.map(read, [listed.key for listed in records.values()])
        return {run: content for run, content in zip(records, contents, strict=True) if content is not None}


def _key(model: str, run: str) -> str:
    return f"runs/{checked_name(model)}/{checked_run(run)}.json"


def _snapshot_key(model: str, snapshot: str) -> str:
    # A run id has no slash, so this cannot be the record of a run.
    return f"runs/{checked_name(model)}/snapshots/{checked_run(snapshot)}.json"


def checked_run(run: str) -> str:
    """Return `run` if it is a valid run id, and so safe to use in a key.

    Raises:
        MlopsError: the id is not valid.
    """
    try:
        return _RUN.validate_python(run)
    except ValidationError:
        raise MlopsError(
            f"{run!r} is not a valid run id", fix="use 1 to 63 lower-case letters, digits, dots and hyphens"
        ) from None


def _is_run(run: str) -> bool:
    try:
        _RUN.validate_python(run)
    except ValidationError:
        return False
    return True


_RUN: TypeAdapter[str] = TypeAdapter(RunId)
