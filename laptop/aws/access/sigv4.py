"""Verification of AWS Signature Version 4 with botocore's implementation."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

# A narrow format, so that moto parses the same service from it.
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[A-Z0-9]{16,128})/(?P<date>\d{8})/(?P<region>[a-z0-9-]+)"
    r"/(?P<service>[a-z0-9-]+)/aws4_request, ?SignedHeaders=(?P<headers>[a-z0-9;_-]+), ?"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
_ALLOWED_SKEW = timedelta(minutes=15)


@dataclass(frozen=True)
class RequestSignature:
    """The parts of an `Authorization` header."""

    access_key: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str


def parse(authorization: str) -> RequestSignature | None:
    """Parse an `Authorization` header; return None if it is not Signature Version 4."""
    found = _AUTHORIZATION.fullmatch(authorization)
    if found is None:
        return None
    return RequestSignature(
        found["key"],
        found["date"],
        found["region"],
        found["service"],
        tuple(found["headers"].split(";")),
        found["signature"],
    )


def problem(
    signature: RequestSignature,
    secret: str,
    *,
    method: str,
    uri: str,
    headers: Mapping[str, str],
    body: bytes,
    now: datetime | None = None,
) -> str | None:
    """Return AWS's error code for an invalid signature; None if it is valid.

    Args:
        secret: secret access key.
        uri: path and query as received, still quoted.
        headers: header names in lower case.
        now: time for the check of the date; the current time by default.
    """
    stamp = headers.get("x-amz-date", "")
    try:
        moment = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return "IncompleteSignature"
    if abs((now or datetime.now(UTC)) - moment) > _ALLOWED_SKEW or not stamp.startswith(signature.date):
        return "RequestTimeTooSkewed" if signature.service == "s3" else "SignatureDoesNotMatch"
    if "host" not in signature.signed_headers or any(h not in headers for h in signature.signed_headers):
        return "SignatureDoesNotMatch"
    declared = headers.get("x-amz-content-sha256", "")
    if re.fullmatch(r"[0-9a-f]{64}", declared) and declared != hashlib.sha256(body).hexdigest():
        return "XAmzContentSHA256Mismatch"

    signer = (_S3 if signature.service == "s3" else _Other)(
        Credentials(signature.access_key, secret), signature.service, signature.region
    )
    request = AWSRequest(method=method, url=f"http://{headers['host']}{uri}", data=body)
    request.headers = HTTPHeaders()
    for name in signature.signed_headers:
        request.headers[name] = headers[name]
    if declared:
        request.headers["X-Amz-Content-SHA256"] = declared
    request.context["timestamp"] = stamp
    signer.signed = signature.signed_headers
    expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    return None if hmac.compare_digest(expected, signature.signature) else "SignatureDoesNotMatch"


class _AsSigned:
    """Signs the headers that the client signed, instead of botocore's choice."""

    signed: tuple[str, ...] = ()

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        chosen = HTTPHeaders()
        for name in self.signed:
            chosen[name] = request.headers[name]
        return chosen


class _S3(_AsSigned, S3SigV4Auth):  # type: ignore[misc]
    pass


class _Other(_AsSigned, SigV4Auth):  # type: ignore[misc]
    pass
