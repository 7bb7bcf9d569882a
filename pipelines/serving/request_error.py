"""Errors that a client of the inference server receives."""

from __future__ import annotations

Header = tuple[bytes, bytes]


class RequestError(Exception):
    """A request that gets an error response, `{"error": message}`.

    Args:
        status: HTTP status: 4xx, or 503.
        message: what is wrong, where, what was expected and what was found.
        headers: headers to add to the response (`Allow`, `Retry-After`).
    """

    def __init__(self, status: int, message: str, headers: tuple[Header, ...] = ()) -> None:
        self.status = status
        self.message = message
        self.headers = headers
        super().__init__(message)
