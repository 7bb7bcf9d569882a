"""Data files under an S3 prefix, which are checked where they are: one at a time, in a temporary folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pipelines.data.reading import SUFFIXES
from pipelines.declarations.errors import MlopsError
from pipelines.registry import clients, store


def stored_files(url: str, region: str | None = None) -> list[tuple[str, int]]:
    """List the data files at a URL: that object, or those under that prefix.

    Args:
        url: `s3://bucket/key` or `s3://bucket/prefix/`.
        region: AWS region; the configured one by default.

    Returns:
        The URL of each file and its size in bytes, sorted by URL.

    Raises:
        MlopsError: there are none, or AWS denied a request.
    """
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise MlopsError(f"{url} is not an S3 URL: expected s3://<bucket>/<prefix>, found no bucket")
    found = [
        (f"s3://{bucket}/{each.key}", each.size)
        for each in store.listing(bucket, prefix, client=clients.client("s3", region))
        if PurePosixPath(each.key).suffix.lower() in SUFFIXES and _is_under(each.key, prefix)
    ]
    if not found:
        raise MlopsError(
            f"{url} has no data files: expected names that end in {', '.join(SUFFIXES)}",
            fix=f"check the URL: aws s3 ls {url}",
        )
    return sorted(found)


def _is_under(key: str, prefix: str) -> bool:
    """Return True if a prefix is the key itself, or a folder that has it. S3 also lists `day-10` under `day-1`."""
    return not prefix or prefix.endswith("/") or key == prefix or key.startswith(f"{prefix}/")


@contextmanager
def local_copy(url: str, region: str | None = None) -> Iterator[Path]:
    """Download a file; yield its path, which exists until the block ends.

    Raises:
        MlopsError: the file does not exist, or AWS denied the request.
    """
    bucket, key = store.split_url(url)
    with tempfile.TemporaryDirectory(prefix="stored-") as folder:
        path = Path(folder) / f"file{PurePosixPath(key).suffix.lower()}"
        store.download(bucket, key, path, client=clients.client("s3", region))
        yield path
