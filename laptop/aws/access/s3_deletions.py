"""Batch deletion in S3: what it deletes, judged one by one.

S3 deletes what the caller may delete, and names the rest in its answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from laptop.aws.access.request import Request, RequestRefusedError
from laptop.aws.access.s3_operations import operation_of

MOST = 1000
"""Most objects of a request."""


@dataclass(frozen=True)
class Deletion:
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


def deletions(request: Request) -> tuple[Deletion, ...]:
    """Return what a batch deletion deletes.

    Raises:
        RequestRefusedError: the content is not what S3 expects.
    """
    import xmltodict

    if request.headers.get("x-amz-content-sha256", "").startswith("STREAMING"):
        raise _malformed("The content is sent in chunks.")
    try:
        listed = xmltodict.parse(request.body, strip_whitespace=False)["Delete"]["Object"]
        found = tuple(map(_deletion, listed if isinstance(listed, list) else [listed]))
    except Exception as error:  # of the parser, or of content with other elements
        raise _malformed("The XML you provided was not well-formed.") from error
    if len(found) > MOST:
        raise _malformed(f"Expected at most {MOST} objects, found {len(found)}.")
    return found


def _deletion(element: Any) -> Deletion:
    key, version = element["Key"], element.get("VersionId")
    # An element with attributes is not a text.
    if not isinstance(key, str) or not key or not (version is None or isinstance(version, str)):
        raise TypeError(key)
    if element.keys() - {"Key", "VersionId", "#text"}:  # moto ignores conditions, such as an ETag
        raise TypeError(element)
    return Deletion(key, version)


def content_of(chosen: Iterable[Deletion]) -> bytes:
    """Return the content of a request that deletes some objects."""
    objects = "".join(
        f"<Object><Key>{escape(one.key)}</Key>"
        + (f"<VersionId>{escape(one.version)}</VersionId>" if one.version else "")
        + "</Object>"
        for one in chosen
    )
    return f"<Delete>{objects}</Delete>".encode()


def answer_with(answer: bytes, refused: Sequence[tuple[Deletion, str]]) -> bytes:
    """Return the answer to a batch deletion with an error for each refused object.

    Args:
        answer: S3's answer for the others; empty if there are none.
        refused: object and the reason.
    """
    errors = "".join(
        f"<Error><Key>{escape(one.key)}</Key>"
        + (f"<VersionId>{escape(one.version)}</VersionId>" if one.version else "")
        + f"<Code>AccessDenied</Code><Message>{escape(why)}</Message></Error>"
        for one, why in refused
    )
    text = answer.decode() or '<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></DeleteResult>'
    if text.rstrip().endswith("/>"):
        text = text.rstrip()[:-2] + "></DeleteResult>"
    head, end, tail = text.rpartition("</DeleteResult>")
    return f"{head}{errors}{end}{tail}".encode()


def _malformed(why: str) -> RequestRefusedError:
    return RequestRefusedError(400, "MalformedXML", why)
