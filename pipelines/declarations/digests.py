"""Content digests: of bytes, of values, of files and of folders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import rfc8785
from pydantic import StringConstraints

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""`sha256:` and 64 hexadecimal digits."""


def digest_of_bytes(content: bytes) -> str:
    """The digest of `content`."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def digest_of_file(path: Path) -> str:
    """The digest of a file, read in pieces."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """`value` as the one JSON text that RFC 8785 allows for it, so that equal values have equal digests."""
    return rfc8785.dumps(value)


def digest_of_value(value: Any) -> str:
    """The digest of a JSON-able value, independent of the order of keys."""
    return digest_of_bytes(canonical_json(value))


def digest_of_files(files: Mapping[str, str]) -> str:
    """One digest of many files.

    Args:
        files: path within the set → the file's digest.
    """
    return digest_of_value(dict(files))


def digest_of_folder(folder: Path, *, without: Iterable[str] = ()) -> str:
    """One digest of every file in `folder`, by path and content; times and owners do not count.

    Args:
        folder: the folder.
        without: names of files or folders, at any depth, that do not belong to it. Hidden files and compiled
            Python never do.
    """
    left_out = {"__pycache__", *without}
    digests = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part in left_out for part in parts):
            digests["/".join(parts)] = digest_of_file(path)
    return digest_of_files(digests)
