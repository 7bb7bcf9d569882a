"""Batch deletion in S3: what it deletes, judged one by one.

S3 deletes what the caller may delete, and names the rest in its answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from laptop.aws.access.request import Request
from laptop.aws.access.s3_documents import document_of, malformed, name_of, texts_in
from laptop.aws.access.s3_operations import operation_of

MOST = 1000
"""Most objects of a request."""


@dataclass(frozen=True)
class ObjectDeletion:
    """An object to delete.

    Attributes:
        key: its key.
        version: the version to delete; None to add a delete marker.
    """

    key: str
    version: str | None


def deletes_many(request: Request) -> bool:
    """Return True if a request is a batch deletion.

    Raises:
        RequestRefusedError: the account does not execute the request.
    """
    return request.service == "s3" and operation_of(request).name == "DeleteObjects"


def deletions(request: Request) -> tuple[ObjectDeletion, ...]:
    """Return what a batch deletion deletes.

    Raises:
        RequestRefusedError: the content is not what S3 expects.
    """
    found = []
    for element in document_of(request, "Delete"):
        if name_of(element) == "Quiet":
            continue
        given = texts_in(element)
        # moto ignores conditions, such as an ETag.
        if name_of(element) != "Object" or given.keys() - {"Key", "VersionId"} or not given.get("Key"):
            raise malformed()
        found.append(ObjectDeletion(given["Key"], given.get("VersionId") or None))
    if not 0 < len(found) <= MOST:
        raise malformed(f"Expected 1 to {MOST} objects, found {len(found)}.")
    return tuple(found)


def content_of(chosen: Iterable[ObjectDeletion]) -> bytes:
    """Return the content of a request that deletes some objects."""
    objects = "".join(
        f"<Object><Key>{_escaped(one.key)}</Key>"
        + (f"<VersionId>{_escaped(one.version)}</VersionId>" if one.version else "")
        + "</Object>"
        for one in chosen
    )
    return f"<Delete>{objects}</Delete>".encode()


def _escaped(text: str) -> str:
    """Return a text in XML. A parser would read a bare carriage return as a line feed."""
    return escape(text, {"\r": "&#13;"})


def answer_with(answer: bytes, refused: Sequence[tuple[ObjectDeletion, str]]) -> bytes:
    """Return the answer to a batch deletion with an error for each refused object.

    Args:
        answer: S3's answer for the others; empty if there are none.
        refused: object and the reason.
    """
    errors = "".join(
        f"<Error><Key>{_escaped(one.key)}</Key>"
        + (f"<VersionId>{_escaped(one.version)}</VersionId>" if one.version else "")
        + f"<Code>AccessDenied</Code><Message>{escape(why)}</Message></Error>"
        for one, why in refused
    )
    text = answer.decode() or '<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></DeleteResult>'
    if text.rstrip().endswith("/>"):
        text = text.rstrip()[:-2] + "></DeleteResult>"
    head, end, tail = text.rpartition("</DeleteResult>")
    return f"{head}{errors}{end}{tail}".encode()
