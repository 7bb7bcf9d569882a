"""Errors of the API, as the `Status` objects of Kubernetes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laptop.cluster.kinds import Kind

REQUIRED = "FieldValueRequired"
INVALID = "FieldValueInvalid"
NOT_SUPPORTED = "FieldValueNotSupported"
FORBIDDEN = "FieldValueForbidden"
DUPLICATE = "FieldValueDuplicate"
NOT_FOUND = "FieldValueNotFound"
TYPE_INVALID = "FieldValueTypeInvalid"
TOO_LONG = "FieldValueTooLong"

_WORDS = {
    REQUIRED: "Required value",
    INVALID: "Invalid value",
    NOT_SUPPORTED: "Unsupported value",
    FORBIDDEN: "Forbidden",
    DUPLICATE: "Duplicate value",
    NOT_FOUND: "Not found",
    TYPE_INVALID: "Invalid value",
    TOO_LONG: "Too long",
}
_LONGEST_VALUE = 300


@dataclass(frozen=True)
class FieldProblem:
    """A problem with one field of an object.

    Attributes:
        type: reason of Kubernetes, such as `FieldValueRequired`.
        field: path, such as `spec.ports[0].port`.
        value: value that was found; not shown for required and forbidden fields.
        detail: what is expected.
    """

    type: str
    field: str
    value: Any = None
    detail: str = ""

    @property
    def message(self) -> str:
        """Text without the field: `Invalid value: -1: must be greater than or equal to 0`."""
        words = [_WORDS[self.type]]
        if self.type not in (REQUIRED, FORBIDDEN, TOO_LONG):
            words.append(json.dumps(self.value, separators=(",", ":"))[:_LONGEST_VALUE])
        return ": ".join([*words, *([self.detail] if self.detail else [])])

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class StatusError(Exception):
    """The API refuses a request.

    Args:
        code: HTTP status.
        reason: machine-readable reason of Kubernetes, such as `NotFound`.
        message: text for people.
        details: `details` of the Status.
    """

    def __init__(self, code: int, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        super().__init__(message)

    def status(self) -> dict[str, Any]:
        """Return the `Status` object."""
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.code,
        }
        return {key: value for key, value in status.items() if value not in (None, "")}


def resource_details(kind: Kind, name: str) -> dict[str, Any]:
    """Return the details that name an object by its resource."""
    found = {"name": name, "group": kind.group, "kind": kind.plural}
    return {key: value for key, value in found.items() if value}


def qualified(kind: Kind) -> str:
    """Return the resource with its group: `deployments.apps`, `pods`."""
    return f"{kind.plural}.{kind.group}" if kind.group else kind.plural


def not_found(kind: Kind, name: str) -> StatusError:
    """Return the error for an object that does not exist (404)."""
    return StatusError(404, "NotFound", f'{qualified(kind)} "{name}" not found', resource_details(kind, name))


def nowhere() -> StatusError:
    """Return the error for a path or a kind that the cluster does not serve (404)."""
    return StatusError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(kind: Kind, name: str) -> StatusError:
    """Return the error for an object that exists already (409)."""
    message = f'{qualified(kind)} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, resource_details(kind, name))


def conflict(kind: Kind, name: str, why: str = "") -> StatusError:
    """Return the error for an object that changed since it was read (409)."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {qualified(kind)} "{name}": {why}'
    return StatusError(409, "Conflict", message, resource_details(kind, name))


def invalid(kind: Kind, name: str, problems: Sequence[FieldProblem], *, resource: bool = False) -> StatusError:
    """Return the error for an object that is not valid (422).

    Args:
        kind: kind of the object.
        name: name of the object.
        problems: what is wrong.
        resource: name the resource instead of the kind.
    """
    shown = ", ".join(str(problem) for problem in problems)
    what = kind.plural if resource else kind.name
    full = f"{what}.{kind.group}" if kind.group else what
    details = {"name": name, "group": kind.group, "kind": what}
    causes = [{"reason": problem.type, "message": problem.message, "field": problem.field} for problem in problems]
    return StatusError(
        422,
        "Invalid",
        f'{full} "{name}" is invalid: ' + (shown if len(problems) == 1 else f"[{shown}]"),
        {key: value for key, value in details.items() if value} | {"causes": causes},
    )


def bad_request(message: str) -> StatusError:
    """Return the error for a request that cannot be read (400)."""
    return StatusError(400, "BadRequest", message)


def method_not_allowed() -> StatusError:
    """Return the error for a method that a path does not have (405)."""
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", message, {})


def too_large() -> StatusError:
    """Return the error for a body that is too large (413)."""
    return StatusError(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728", {})


def unsupported_media_type(message: str, details: Mapping[str, Any] | None = None) -> StatusError:
    """Return the error for a body in a format that is not accepted (415)."""
    return StatusError(415, "UnsupportedMediaType", message, details)


def not_acceptable() -> StatusError:
    """Return the error for a client that accepts no format of the API (406)."""
    message = "only the following media types are accepted: application/json, application/yaml"
    return StatusError(406, "NotAcceptable", message, {})


def precondition_failed(kind: Kind, name: str, why: str) -> StatusError:
    """Return the error for a deletion whose preconditions do not hold (409)."""
    message = f'Operation cannot be fulfilled on {qualified(kind)} "{name}": Precondition failed: {why}'
    details = {"name": name, "group": kind.group, "kind": kind.name}
    return StatusError(409, "Conflict", message, {key: value for key, value in details.items() if value})


def forbidden(kind: Kind, name: str, why: str, resource: str = "") -> StatusError:
    """Return the error for a request that a policy forbids (403).

    Args:
        kind: kind of the object.
        name: name of the object, "" for a collection.
        why: reason.
        resource: resource with its subresource, if that is what is forbidden.
    """
    what = f"{resource}.{kind.group}" if resource and kind.group else resource or qualified(kind)
    message = f'{what} "{name}" is forbidden: {why}' if name else f"{what} is forbidden: {why}"
    return StatusError(403, "Forbidden", message, resource_details(kind, name))
