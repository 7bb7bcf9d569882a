"""Client of an ASGI application, without a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

JSON = (("content-type", "application/json"),)


@dataclass(frozen=True)
class Response:
    """A response; `status` is 0 if there was none."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body, parse_constant=_refuse)

    @property
    def error(self) -> str:
        """Return the message of the protocol's error object."""
        content = self.json
        assert list(content) == ["error"]
        assert isinstance(content["error"], str)
        return content["error"]


def ask(
    application: Any,
    method: str,
    path: str,
    body: bytes | Sequence[bytes | None] = b"",
    headers: Sequence[tuple[str, str]] = JSON,
) -> Response:
    """Send one request.

    Args:
        body: whole, or in pieces. None as the last piece disconnects the client.
    """
    pieces = [body] if isinstance(body, bytes) else list(body)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not pieces:
            await asyncio.Event().wait()
        piece = pieces.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(dict(message))

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }
    asyncio.run(application(scope, receive, send))
    if not sent:
        return Response(0, {}, b"")
    start, *rest = sent
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    content = b"".join(message.get("body", b"") for message in rest)
    assert answered["content-length"] == str(len(content))
    return Response(start["status"], answered, content)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")
