"""Errors of the API, as the `Status` objects of Kubernetes."""

from __future__ import annotations

from typing import Any


class StatusError(Exception):
    """The API refuses a request.

    Args:
        code: HTTP status.
        reason: machine-readable reason of Kubernetes, such as `NotFound`.
        message: text for people.
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        self.code = code
        self.reason = reason
        self.message = message
        super().__init__(message)

    def status(self) -> dict[str, Any]:
        """Return the `Status` object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }


def not_found(plural: str, name: str) -> StatusError:
    """Return the error for an object that does not exist (404)."""
    return StatusError(404, "NotFound", f'{plural} "{name}" not found')


def already_exists(plural: str, name: str) -> StatusError:
    """Return the error for an object that exists already (409)."""
    return StatusError(409, "AlreadyExists", f'{plural} "{name}" already exists')


def conflict(plural: str, name: str) -> StatusError:
    """Return the error for an object that changed since it was read (409)."""
    return StatusError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {plural} "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again",
    )


def invalid(plural: str, name: str, problems: list[str]) -> StatusError:
    """Return the error for an object that is not valid (422)."""
    return StatusError(422, "Invalid", f'{plural} "{name}" is invalid: ' + "; ".join(problems))


def bad_request(message: str) -> StatusError:
    """Return the error for a request that cannot be read (400)."""
    return StatusError(400, "BadRequest", message)


def forbidden(plural: str, name: str, why: str) -> StatusError:
    """Return the error for a request that a policy forbids (403)."""
    return StatusError(403, "Forbidden", f'{plural} "{name}" is forbidden: {why}')
