"""Refusals of the API, as the `Status` objects that Kubernetes answers with."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):  # noqa: N818  it is Kubernetes' word for an answer, not a defect of this program
    """A request that the API refuses.

    Args:
        code: the HTTP status.
        reason: Kubernetes' machine-readable reason, such as `NotFound`.
        message: a sentence for people.
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        self.code = code
        self.reason = reason
        self.message = message
        super().__init__(message)

    def status(self) -> dict[str, Any]:
        """The `Status` object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }


def not_found(plural: str, name: str) -> Refusal:
    """There is no such object (404)."""
    return Refusal(404, "NotFound", f'{plural} "{name}" not found')


def already_exists(plural: str, name: str) -> Refusal:
    """An object of that name is there already (409)."""
    return Refusal(409, "AlreadyExists", f'{plural} "{name}" already exists')


def conflict(plural: str, name: str) -> Refusal:
    """The object was changed since the writer read it (409)."""
    return Refusal(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {plural} "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again",
    )


def invalid(plural: str, name: str, problems: list[str]) -> Refusal:
    """The object breaks a rule of its kind (422)."""
    return Refusal(422, "Invalid", f'{plural} "{name}" is invalid: ' + "; ".join(problems))


def bad_request(message: str) -> Refusal:
    """The request cannot be read (400)."""
    return Refusal(400, "BadRequest", message)


def forbidden(plural: str, name: str, why: str) -> Refusal:
    """A policy of the cluster refuses the object (403)."""
    return Refusal(403, "Forbidden", f'{plural} "{name}" is forbidden: {why}')
