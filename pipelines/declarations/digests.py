"""SHA-256 digests of bytes, values, files and folders."""

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
    """Return the digest of bytes."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def digest_of_file(path: Path) -> str:
    """Return the digest of a file, read in chunks."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """Serialise a value as canonical JSON (RFC 8785), so equal values have equal digests."""
    return rfc8785.dumps(value)


def digest_of_value(value: Any) -> str:
    """Return the digest of a JSON value; the order of keys does not matter."""
    return digest_of_bytes(canonical_json(value))


def digest_of_files(files: Mapping[str, str]) -> str:
    """Return one digest for a set of files.

    Args:
        files: path → digest of the file.
    """
    return digest_of_value(dict(files))


def digest_of_folder(folder: Path, *, without: Iterable[str] = ()) -> str:
    """Return one digest for the paths and contents of all files in a folder, except hidden files and `__pycache__`.

    Args:
        folder: the folder.
        without: names of further files or folders to exclude, at any depth.
    """
    excluded = {"__pycache__", *without}
    digests = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part in excluded for part in parts):
            digests["/".join(parts)] = digest_of_file(path)
    return digest_of_files(digests)
