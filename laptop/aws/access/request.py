"""Request to an AWS API: service, action and parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

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

    @cached_property
    def form(self) -> dict[str, str]:
        """Return the parameters of a query protocol service (IAM, STS, SNS)."""
        if "x-www-form-urlencoded" not in self.headers.get("content-type", ""):
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
        """Return the operation (`AssumeRole`); None if the request names none or several."""
        target = self.headers.get("x-amz-target", "")
        named = [
            name for name in (self.query.get("Action"), self.form.get("Action"), target.rpartition(".")[2]) if name
        ]
        if not named:
            return self._routed()
        return named[0] if len(named) == 1 else None

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
