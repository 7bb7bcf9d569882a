"""Conditional writes of S3 that moto leaves out or does in part.

Source: Amazon S3 user guide, "Add preconditions to S3 operations with conditional requests".
"""

from __future__ import annotations

from laptop.aws.access.request import Request, RequestRefusedError
from laptop.aws.access.s3_operations import operation_of
from laptop.aws.access.s3_permissions import CREATES, find_object


def check_preconditions(request: Request) -> None:
    """Check the conditions of a request that creates an object.

    Raises:
        RequestRefusedError: a condition does not hold, or S3 does not know it.
    """
    if request.service != "s3" or operation_of(request).name not in CREATES:
        return
    absent, same = request.headers.get("if-none-match"), request.headers.get("if-match")
    if absent is None and same is None:
        return
    if absent not in (None, "*"):
        raise RequestRefusedError(501, "NotImplemented", f"If-None-Match: expected *, found {absent}.")
    bucket, _, key = request.path.lstrip("/").partition("/")
    found = find_object(bucket, key)
    if absent is not None and found is not None:
        raise _failed("If-None-Match")
    if same is not None:
        if found is None:
            raise RequestRefusedError(404, "NoSuchKey", "The specified key does not exist.")
        if same.strip('"') != found.etag.strip('"'):
            raise _failed("If-Match")


def _failed(condition: str) -> RequestRefusedError:
    return RequestRefusedError(
        412,
        "PreconditionFailed",
        f"At least one of the pre-conditions you specified did not hold (Condition: {condition})",
    )
