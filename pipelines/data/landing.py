"""Landing bucket: data files arrive under `<dataset>/` and are never changed or deleted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.data.glue_client import s3
from pipelines.data.reading import SUFFIXES
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.registry import store

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class LandingFile:
    """File in the landing bucket.

    Attributes:
        key: key of the object.
        name: the key without the prefix of the dataset.
        size: size in bytes.
        etag: ETag of the object; changes when the file is replaced.
    """

    key: str
    name: str
    size: int
    etag: str


def upload(descriptor: EnvironmentDescriptor, dataset: str, file: Path) -> str:
    """Upload a local file to the landing bucket and return its URL (`s3://…`).

    Raises:
        MlopsError: the file does not exist, has a name that the ingest job does not read, or cannot be uploaded.
    """
    if file.suffix.lower() not in SUFFIXES or not _FILE_NAME.fullmatch(file.name):
        raise MlopsError(
            f"{file} cannot be uploaded: expected a name of letters, digits, '.', '-' and '_' that ends in "
            f"one of {', '.join(SUFFIXES)}, found {file.name!r}",
            fix="rename the file",
        )
    if not file.is_file():
        raise MlopsError(f"{file} cannot be uploaded: no such file", fix="check the path")
    key = f"{dataset}/{file.name}"
    store.upload(descriptor.landing_bucket, key, file, client=s3(descriptor))
    return f"s3://{descriptor.landing_bucket}/{key}"


def landing_files(descriptor: EnvironmentDescriptor, dataset: str) -> list[LandingFile]:
    """List the landing files of a dataset, sorted by name."""
    prefix = f"{dataset}/"
    found = [
        LandingFile(listed.key, listed.key.removeprefix(prefix), listed.size, listed.etag.strip('"'))
        for listed in store.listing(descriptor.landing_bucket, prefix, client=s3(descriptor))
        if not listed.key.endswith("/")
    ]
    return sorted(found, key=lambda file: file.name)


def download(descriptor: EnvironmentDescriptor, file: LandingFile, folder: Path) -> Path:
    """Download a landing file into a local folder and return its path, which keeps the suffix but not the name."""
    suffix = Path(file.name).suffix.lower()
    path = folder / f"landing{suffix if suffix in SUFFIXES else '.unknown'}"
    store.download(descriptor.landing_bucket, file.key, path, client=s3(descriptor))
    return path
