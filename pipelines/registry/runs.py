"""What each training run made: a small record by which whoever started a run finds its bundle."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from pipelines.declarations.digests import Digest, canonical_json
from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.registry import bundles, store
from pipelines.registry.evidence import RunId

LARGEST_RECORD = 4096
"""Bytes."""


class Run(Declaration):
    """`runs/<model>/<run>.json` in the registry bucket.

    Attributes:
        bundle: the digest that the run registered.
    """

    bundle: Digest


def record_run(descriptor: EnvironmentDescriptor, model: str, run: str, digest: str) -> None:
    """Note which bundle a run registered. A run that is repeated may note the same again.

    Raises:
        MlopsError: the run's id is not well formed, or has been used for another bundle; or the write failed.
    """
    key, content = _key(model, run), canonical_json(Run(bundle=digest).model_dump(mode="json"))
    try:
        store.put_new(descriptor.registry_bucket, key, content)
    except store.PreconditionFailedError:
        before = read_run(descriptor, model, run)
        if before != digest:
            raise MlopsError(
                f"the run {run} of {model} has registered {before} before; found {digest} now",
                fix="give each run a RUN_ID of its own",
            ) from None


def read_run(descriptor: EnvironmentDescriptor, model: str, run: str) -> str:
    """The digest of the bundle that a run registered. The bundle itself is still to be verified.

    Raises:
        MlopsError: the run registered none, or its record is not well formed.
    """
    key = _key(model, run)
    try:
        content = store.get(descriptor.registry_bucket, key, limit=LARGEST_RECORD).content
    except store.NotFoundError:
        raise MlopsError(
            f"the run {run} of {model} has registered no bundle", fix="look at the log of its job for the reason"
        ) from None
    try:
        return Run.model_validate_json(content).bundle
    except ValidationError:
        raise MlopsError(f"s3://{descriptor.registry_bucket}/{key} is not the record of a training run") from None


def _key(model: str, run: str) -> str:
    return f"runs/{bundles.checked_name(model)}/{checked_run(run)}.json"


def checked_run(run: str) -> str:
    """`run` itself, if it can be a run's id.

    Raises:
        MlopsError: it can not, and must not become part of a key.
    """
    try:
        return _RUN.validate_python(run)
    except ValidationError:
        raise MlopsError(
            f"{run!r} is not a run's id", fix="use lower-case letters, digits, dots and hyphens, 1 to 63 of them"
        ) from None


_RUN: TypeAdapter[str] = TypeAdapter(RunId)
