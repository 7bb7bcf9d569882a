"""Who signed a request: AWS Signature Version 4, checked with botocore's own implementation of it."""

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

# The form is kept narrow so that the emulator behind reads the same service out of it.
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[A-Z0-9]{16,128})/(?P<date>\d{8})/(?P<region>[a-z0-9-]+)"
    r"/(?P<service>[a-z0-9-]+)/aws4_request, ?SignedHeaders=(?P<headers>[a-z0-9;_-]+), ?"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
_ALLOWED_SKEW = timedelta(minutes=15)


@dataclass(frozen=True)
class Signature:
    """The parts of an `Authorization` header."""

    access_key: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str


def parse(authorization: str) -> Signature | None:
    """The signature of a request, or None when it carries none in the form of Signature Version 4."""
    found = _AUTHORIZATION.fullmatch(authorization)
    if found is None:
        return None
    return Signature(
        found["key"],
        found["date"],
        found["region"],
        found["service"],
        tuple(found["headers"].split(";")),
        found["signature"],
    )


def problem(
    signature: Signature,
    secret: str,
    *,
    method: str,
    uri: str,
    headers: Mapping[str, str],
    body: bytes,
    now: datetime | None = None,
) -> str | None:
    """The error code AWS gives for a bad signature; None when it is good.

    Args:
        secret: the secret access key that belongs to the signature's access key.
        uri: path and query as they came on the wire, still quoted.
        headers: header names in lower case.
        now: the time to judge the date by.
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
    """Signs the headers that the client chose; botocore would choose for itself."""

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
