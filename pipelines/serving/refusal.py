"""A request that the server can not answer, and why."""

from __future__ import annotations

Header = tuple[bytes, bytes]


class Refusal(Exception):  # noqa: N818
    """Becomes a response `{"error": message}`: an answer to the client, not a fault of the server.

    Args:
        status: the HTTP status, 4xx or 503.
        message: what is wrong, where, what was expected and what was found.
        headers: to send along (`Allow`, `Retry-After`).
    """

    def __init__(self, status: int, message: str, headers: tuple[Header, ...] = ()) -> None:
        self.status = status
        self.message = message
        self.headers = headers
        super().__init__(message)
