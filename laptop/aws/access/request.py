"""Request to an AWS API: service, action and parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit


class RequestRefusedError(Exception):
    """The account executes such a request for nobody.

    Attributes:
        status: HTTP status.
        code: error code of AWS.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


_COMPRESSED = {"monitoring"}
"""Services to which SDKs compress content, and none of whose permissions depends on it."""

# Prefix in policies, if it differs from the name in the signature.
_PREFIXES = {"monitoring": "cloudwatch", "email": "ses", "eventbridge": "events"}


@dataclass(frozen=True)
class Request:
    """One HTTP request to an AWS API.

    Attributes:
        service: service of the credential scope (`s3`, `monitoring`).
        region: region of the credential scope.
        uri: path and query as received, still quoted.
        headers: header names in lower case.
    """

    service: str
    region: str
    method: str
    uri: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def prefix(self) -> str:
        """Return the service prefix of actions in policies (`cloudwatch`)."""
        return _PREFIXES.get(self.service, self.service)

    @cached_property
    def path(self) -> str:
        return unquote(urlsplit(self.uri).path)

    @cached_property
    def query(self) -> dict[str, str]:
        return _first(urlsplit(self.uri).query)

    @property
    def content_type(self) -> str:
        """Return the declared type of the content, in lower case."""
        return self.headers.get("content-type", "").lower()

    @cached_property
    def form(self) -> dict[str, str]:
        """Return the parameters of a query protocol service (IAM, STS, SNS)."""
        if "x-www-form-urlencoded" not in self.content_type:
            return {}
        return _first(self.body.decode("utf-8", "replace"))

    @cached_property
    def json(self) -> dict[str, Any]:
        """Return the parameters of a JSON protocol service (KMS, Glue, ECR)."""
        try:
            found = json.loads(self.body or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def action(self) -> str | None:
        """Return the operation (`AssumeRole`); None if the request names none, or more than one.

        moto looks for it in the query, the content and the headers of every request, whatever its protocol.
        """
        target = self.headers.get("x-amz-target", "").rpartition(".")[2]
        named = [target, *_all(urlsplit(self.uri).query, "Action"), self.headers.get("action", "")]
        if self.service != "s3":
            named += _all(self.body.decode("utf-8", "replace"), "Action")
        named = [name for name in named if name]
        if not named:
            return self._routed()
        return named[0] if len(named) == 1 else None

    def check(self) -> None:
        """Check that AWS and moto read the same parameters from the request. S3 is checked separately.

        Raises:
            RequestRefusedError: they may not.
        """
        if "multipart/form-data" in self.content_type:
            raise RequestRefusedError(400, "InvalidRequest", "The content of a request is not a form with parts.")
        if self.headers.get("content-encoding") and self.service not in _COMPRESSED:
            raise RequestRefusedError(400, "InvalidRequest", "The content of a request is not compressed.")
        if not self.form:
            return
        if urlsplit(self.uri).query:
            raise RequestRefusedError(400, "InvalidRequest", "Parameters are in the content, not in the query.")
        names = [name for name, _ in parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True)]
        if len(names) != len(set(names)):
            raise RequestRefusedError(400, "InvalidRequest", "A parameter is given more than once.")

    def parameter(self, name: str) -> str:
        """Return a string parameter in either protocol; "" if missing."""
        value = self.form.get(name) or self.json.get(name) or ""
        return value if isinstance(value, str) else ""

    def _routed(self) -> str | None:
        """Return the operation of a service that routes by path (EKS) or RPC path (CloudWatch)."""
        parts = self.path.split("/")
        if len(parts) == 5 and parts[1] == "service" and parts[3] == "operation":
            return parts[4]
        return _rest_operation(self.service, self.method, self.path)


def _first(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}


def _all(text: str, name: str) -> list[str]:
    """Return every value of a parameter in a query."""
    if f"{name}=" not in text and "%" not in text:
        return []
    return [value for key, value in parse_qsl(text, keep_blank_values=True) if key == name]


def _rest_operation(service: str, method: str, path: str) -> str | None:
    from moto.core.request import Request as MotoRequest
    from moto.core.routing import get_service_router
    from werkzeug.exceptions import HTTPException

    try:
        operation, _ = get_service_router(service).match(
            MotoRequest.from_primitives(method, f"http://127.0.0.1{path}", {})
        )
    except (HTTPException, NotImplementedError, ValueError, LookupError):
        return None
    return str(operation.name)
