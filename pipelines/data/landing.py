"""The landing bucket: where batches of data arrive, under `<dataset>/`. Nothing in it is ever changed or deleted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.data.clients import s3
from pipelines.data.reading import SUFFIXES
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class LandingFile:
    """An object in the landing bucket.

    Attributes:
        key: the object's key.
        name: the key without the dataset's prefix.
        size: in bytes.
        etag: changes whenever the object is written again.
    """

    key: str
    name: str
    size: int
    etag: str


def collect(descriptor: EnvironmentDescriptor, dataset: str, file: Path) -> str:
    """Upload a file of this machine into a dataset's landing prefix; where it is now (`s3://…`).

    Raises:
        MlopsError: the file's name is not one that the ingest job reads.
    """
    if file.suffix.lower() not in SUFFIXES or not _FILE_NAME.fullmatch(file.name):
        raise MlopsError(
            f"{file} cannot land: expected letters, digits, dots, hyphens and one of {', '.join(SUFFIXES)} at the end, "
            f"found {file.name!r}",
            fix="rename it",
        )
    if not file.is_file():
        raise MlopsError(f"{file} cannot land: expected a file, found none")
    key = f"{dataset}/{file.name}"
    s3(descriptor).upload_file(str(file), descriptor.landing_bucket, key)
    return f"s3://{descriptor.landing_bucket}/{key}"


def landing_files(descriptor: EnvironmentDescriptor, dataset: str) -> list[LandingFile]:
    """What has landed for a dataset, in the order of names."""
    prefix = f"{dataset}/"
    pages = s3(descriptor).get_paginator("list_objects_v2").paginate(Bucket=descriptor.landing_bucket, Prefix=prefix)
    found = [
        LandingFile(entry["Key"], entry["Key"].removeprefix(prefix), entry["Size"], entry["ETag"].strip('"'))
        for page in pages
        for entry in page.get("Contents", [])
        if not entry["Key"].endswith("/")
    ]
    return sorted(found, key=lambda file: file.name)


def download(descriptor: EnvironmentDescriptor, file: LandingFile, folder: Path) -> Path:
    """Copy a landing file into a folder of this machine; its path there, which keeps the suffix and not the name."""
    suffix = Path(file.name).suffix.lower()
    path = folder / f"landing{suffix if suffix in SUFFIXES else '.unknown'}"
    s3(descriptor).download_file(descriptor.landing_bucket, file.key, str(path))
    return path
