"""Training runs and the bundles that they produced."""

from __future__ import annotations

from contextlib import suppress

from pydantic import TypeAdapter, ValidationError

from pipelines.declarations.digests import Digest, canonical_json
from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.registry import bundles, store
from pipelines.registry.evidence import RunId

LARGEST_RECORD = 4096
"""Size limit of a run record, in bytes."""


class Run(Declaration):
    """Record of a training run, `runs/<model>/<run>.json` in the registry bucket.

    Attributes:
        bundle: digest of the bundle that the run produced.
    """

    bundle: Digest


def record_run(descriptor: EnvironmentDescriptor, model: str, run: str, digest: str, snapshot: str) -> None:
    """Record the bundle that a run produced. Recording the same bundle again changes nothing.

    Args:
        descriptor: the environment.
        model: the model's name.
        run: id of the run.
        digest: digest of the bundle.
        snapshot: Iceberg snapshot that the model was trained on.

    Raises:
        MlopsError: the run id is malformed, or already has another bundle; or the write failed.
    """
    key, content = _key(model, run), canonical_json(Run(bundle=digest).model_dump(mode="json"))
    try:
        store.put_new(descriptor.registry_bucket, key, content)
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
    prefix = f"runs/{bundles.checked_name(model)}/"
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
    try:
        return Run.model_validate_json(content).bundle
    except ValidationError:
        raise MlopsError(f"s3://{descriptor.registry_bucket}/{key} is not the record of a training run") from None


def _key(model: str, run: str) -> str:
    return f"runs/{bundles.checked_name(model)}/{checked_run(run)}.json"


def _snapshot_key(model: str, snapshot: str) -> str:
    # A run id has no slash, so this cannot be the record of a run.
    return f"runs/{bundles.checked_name(model)}/snapshots/{checked_run(snapshot)}.json"


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


_RUN: TypeAdapter[str] = TypeAdapter(RunId)
