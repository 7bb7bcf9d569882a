"""Signed records of the images that an environment ran and verified."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Literal

from pydantic import ValidationError

from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration, first_problem
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import ImageName, Name
from pipelines.declarations.timestamps import Timestamp
from pipelines.registry import signing, store

PREDICATE = "urn:mlops:image-verified:v1"

ATTEMPTS = 5
"""Maximum number of attempts to write a record that other deployments write at the same time."""


class ImageRecord(Declaration):
    """`images/<image>/<digest>.dsse.json` in the registry bucket.

    Attributes:
        environment: the environment that ran the image.
        image: name of the image.
        digest: its digest.
        verified_at: the end of the first deployment that ran it.
        models: the models whose endpoints were verified with it, sorted.
        run: URL of the workflow run; empty outside a workflow.
    """

    format: Literal["mlops/image-record/v1"] = "mlops/image-record/v1"
    environment: Name
    image: ImageName
    digest: Digest
    verified_at: Timestamp
    models: tuple[Name, ...]
    run: str = ""


def record_image(
    descriptor: EnvironmentDescriptor, image: ImageName, digest: str, models: tuple[str, ...], run: str, now: datetime
) -> ImageRecord:
    """Record that an environment ran an image, and which models it served. Returns the record.

    An existing record keeps its time and gains models; one that would not change is left as it is.

    Raises:
        BadSignatureError: an existing record cannot be trusted.
        MlopsError: the record cannot be signed or written.
    """
    for _ in range(ATTEMPTS):
        found = _read(descriptor, image, digest)
        before, etag = found if found is not None else (None, "")
        record = ImageRecord(
            environment=descriptor.name,
            image=image,
            digest=digest,
            verified_at=before.verified_at if before else now,
            models=tuple(sorted({*models, *(before.models if before else ())})),
            run=before.run if before else run,
        )
        if record == before:
            return record
        statement = signing.Statement.about(image, digest, PREDICATE, record.model_dump(mode="json"))
        envelope = signing.sign(statement, descriptor.signing_key, descriptor.name).to_bytes()
        bucket, key = descriptor.registry_bucket, _key(image, digest)
        try:
            if etag:
                store.replace(bucket, key, envelope, etag)
            else:
                store.put_new(bucket, key, envelope)
        except store.PreconditionFailedError:
            continue  # another deployment recorded the image first
        return record
    raise MlopsError(f"the record of the {image} image {digest} keeps changing", fix="run the deployment again")


def read_image_record(descriptor: EnvironmentDescriptor, image: ImageName, digest: str) -> ImageRecord | None:
    """Return the record of an image in an environment; None if the environment never ran it.

    Raises:
        BadSignatureError: the record is not signed by the environment, or is about something else.
        MlopsError: the registry cannot be read.
    """
    found = _read(descriptor, image, digest)
    return found[0] if found is not None else None


def _read(descriptor: EnvironmentDescriptor, image: ImageName, digest: str) -> tuple[ImageRecord, str] | None:
    """Return the record of an image and its ETag; see `read_image_record`."""
    key = _key(image, digest)
    try:
        stored = store.get(descriptor.registry_bucket, key, limit=signing.LARGEST_ENVELOPE)
    except store.NotFoundError:
        return None
    own = {name: pem for name, pem in descriptor.trusted_keys.items() if name == descriptor.name}
    found = signing.verify(stored.content, own, subject=digest, predicate_type=PREDICATE, what=f"the record {key}")
    try:
        record = ImageRecord.model_validate_json(json.dumps(found.statement.predicate))
    except ValidationError as error:
        raise signing.BadSignatureError(f"the record {key} is malformed: {first_problem(error)}") from None
    if (record.environment, record.image, record.digest) != (descriptor.name, image, digest):
        raise signing.BadSignatureError(
            f"the record {key} is in the wrong place: found {record.image} {record.digest} in {record.environment}"
        )
    return record, stored.etag


def _key(image: ImageName, digest: str) -> str:
    return f"images/{image}/{digest.removeprefix('sha256:')}.dsse.json"
