"""HTTP connections with limits: uvicorn's protocol bounds neither the head of a request, nor time, nor connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

LARGEST_HEAD = 16 << 10
"""Size limit of a request's head (request line and headers), in bytes, and of the URL in it half as much."""

LARGEST_FRAMING = 1 << 20
"""Limit of the bytes around a chunked body: sizes, extensions and trailers."""

MOST_CONNECTIONS = 512
"""Default limit of open connections."""

SWEEP_SECONDS = 5.0
"""Seconds between two looks at all connections."""

HEAD_SWEEPS = 2
"""Sweeps that see the same incomplete head before its connection is closed: 10 to 15 seconds."""

SILENT_SWEEPS = 15
"""Sweeps that see no request on a connection before it is closed: at least 75 seconds, as long as uvicorn keeps it."""

ANSWER_SWEEPS = 12
"""Sweeps that see the same unfinished response before its connection is closed: the client does not read it."""


class ImmediateAnswers(Protocol):
    """Application that can answer some requests without waiting."""

    @property
    def at_once(self) -> frozenset[bytes]:
        """URLs whose POST requests it may answer now."""

    def answer_at_once(self, url: bytes, headers: dict[bytes, bytes], body: bytes) -> tuple[int, bytes] | None:
        """Return the status, and the response after its status line; None if it cannot answer this one."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One HTTP connection. A connection beyond the limit takes the place of one that waits for its client.

    Those that are idle come first, and the one that has waited longest; then those that send or read no more.

    A request that arrives as a whole is answered at once, if the application can. All others take uvicorn's way: a task
    that calls the ASGI application.

    Attributes:
        most_connections: limit of open connections; see `protocol_for`.
        immediate: application that answers requests at once; None if it cannot.
    """

    # Python finds attributes of an object faster if they are at most 30, and uvicorn has nearly as many.
    __slots__ = (
        "_by_name",
        "_default_headers",
        "_default_lines",
        "_has_answered",
        "_in_head",
        "_is_complete",
        "_is_large",
        "_pending",
        "_pieces",
        "_refusal",
        "_requests",
        "_seen_requests",
        "_sweeps",
    )
    most_connections = MOST_CONNECTIONS
    immediate: ImmediateAnswers | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._in_head = True
        self._is_complete = False  # a message ended in the bytes that are being parsed
        self._pending = 0  # bytes of the incomplete head, or around the incomplete body
        self._is_large = False  # what arrived may be a head beyond the limit
        self._refusal = (400, "the request is not HTTP/1.1")
        self._pieces: list[bytes] | None = None  # body of a request that may be answered at once
        self._by_name: dict[bytes, bytes] = {}
        self._has_answered = False  # a request of the bytes that are being parsed
        self._default_headers: object = None
        self._default_lines = b""
        self._requests = 0
        self._seen_requests = 0
        self._sweeps = 0

    @property
    def is_idle(self) -> bool:
        """True between two requests, or before the first is complete."""
        return self._in_head and self._is_answered

    @property
    def _is_answered(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) <= self.most_connections:
            return
        others = [other for other in self.connections if isinstance(other, BoundedHttpProtocol) and other is not self]
        # A client that has its answer, or sends no more, or reads no more, must keep no other client out.
        expendable = [other for other in others if other._is_answered]
        expendable = expendable or [other for other in others if not other._in_head or other.flow.write_paused]
        if expendable:
            max(expendable, key=lambda other: (other._requests == 0, other._sweeps)).close()
        else:
            self._refusal = (503, f"too many connections: expected at most {self.most_connections}")
            self.send_400_response("")

    def close(self) -> None:
        """Close the connection at once, and forget it."""
        self.connections.discard(self)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._is_large = self._pending + len(data) > LARGEST_HEAD
        self._has_answered = False
        super().data_received(data)
        if self._pieces is not None:
            self._hand_over()
        if self._is_complete:
            # What follows the message is not counted: it is part of one read, and so bounded.
            self._is_complete = False
        else:
            self._count(len(data))

    def _count(self, size: int) -> None:
        """Count bytes that completed no message; refuse too many."""
        self._pending += size
        if self._in_head and self._pending > LARGEST_HEAD:
            self._refusal = (431, f"the head of the request is too large: expected at most {LARGEST_HEAD} bytes")
            self.send_400_response("")
        elif self._pending > LARGEST_FRAMING:
            self._refusal = (400, "the chunks of the body are too small, or their trailers too large")
            self.send_400_response("")

    def on_message_begin(self) -> None:
        # uvicorn's scope is made in `_hand_over`, for requests that need it.
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._by_name = dict(self.headers)
        hosts = 1
        if len(self._by_name) != len(self.headers) or b"host" not in self._by_name:
            hosts = [name for name, _ in self.headers].count(b"host")
        if hosts != 1 and (hosts or self.parser.get_http_version() == "1.1"):
            self._refuse(400, f"the header Host: expected once, found {hosts} times")
        if len(self.url) > LARGEST_HEAD // 2:
            self._refuse(414, f"the URL is too long: expected at most {LARGEST_HEAD // 2} bytes")
        if self._is_large and sum(len(name) + len(value) for name, value in self.headers) > LARGEST_HEAD:
            self._refuse(431, f"the head of the request is too large: expected at most {LARGEST_HEAD} bytes")
        self._in_head = False
        self._pending = 0
        self._requests += 1
        self._pieces = []
        if not self._may_answer_at_once():
            self._hand_over()

    def on_body(self, body: bytes) -> None:
        self._pending -= len(body)
        if self._pieces is None:
            super().on_body(body)
        else:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        self._in_head = self._is_complete = True
        self._pending = 0
        if self._pieces is not None and not self._answer_at_once(self._pieces):
            self._hand_over()
        if self._pieces is None:
            super().on_message_complete()
        self._pieces = None

    def _may_answer_at_once(self) -> bool:
        """Return True if the request needs nothing of uvicorn but its parser, by its head and the connection.

        Only the first request of one read is answered at once. A client that sends many must let others have a turn.
        """
        immediate, headers = self.immediate, self._by_name
        return (
            immediate is not None
            and self.url in immediate.at_once
            and len(headers) == len(self.headers)
            and b"expect" not in headers
            and b"upgrade" not in headers
            and self.parser.get_method() == b"POST"
            and self.parser.should_keep_alive()
            and self._is_http_1_1()
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and not self._has_answered
        )

    def _is_http_1_1(self) -> bool:
        """Return True if a request that keeps its connection alive is HTTP/1.1."""
        # HTTP/1.0 needs a header to keep it alive. Without one, do not ask the parser, which formats the version.
        headers = self._by_name
        if b"connection" not in headers and b"proxy-connection" not in headers:
            return True
        return bool(self.parser.get_http_version() == "1.1")

    def _answer_at_once(self, pieces: list[bytes]) -> bool:
        """Answer a request of which all has arrived; return False if it must be handed over."""
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        answer = self.immediate.answer_at_once(self.url, self._by_name, body)  # type: ignore[union-attr]
        if answer is None:
            return False
        status, response = answer
        default = self.server_state.default_headers
        if self._default_headers is not default:  # they have the date, so uvicorn makes them every second
            self._default_headers = default
            self._default_lines = b"".join(b"%b: %b\r\n" % header for header in default)
        # In one piece: each write is a system call, and may wake the client.
        self.transport.write(b"%b%b%b" % (STATUS_LINE[status], self._default_lines, response))
        self._has_answered = True
        return True

    def _hand_over(self) -> None:
        """Give the request to uvicorn, with the part of its body that has arrived."""
        url, headers, pieces, self._pieces = self.url, self.headers, self._pieces, None
        super().on_message_begin()
        self.url = url
        self.headers += headers
        self.expect_100_continue = self._by_name.get(b"expect", b"").lower() == b"100-continue"
        super().on_headers_complete()
        for piece in pieces or ():
            super().on_body(piece)

    def _refuse(self, status: int, message: str) -> None:
        """Stop parsing. uvicorn then calls `send_400_response`."""
        self._refusal = (status, message)
        raise ValueError(message)

    def send_400_response(self, msg: str) -> None:
        """Send the refusal and close the connection.

        Args:
            msg: uvicorn's message, which does not say what is wrong.
        """
        if self.transport.is_closing():
            return
        if self._pieces is not None:
            self._hand_over()
        status, message = self._refusal
        content = msgspec.json.encode({"error": message})
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(content)
        # The response to an earlier request comes first, or is lost.
        if self.is_idle or not (self._in_head or self.pipeline or self.cycle.response_started):
            self.transport.write(STATUS_LINE[status] + head + content)
        self.transport.close()

    def sweep(self) -> None:
        """Close the connection if nothing has happened for too long."""
        if self._requests != self._seen_requests:
            self._seen_requests, self._sweeps = self._requests, 0
            return
        self._sweeps += 1
        if not self.is_idle:
            is_over = self._sweeps > ANSWER_SWEEPS
        else:
            is_over = self._sweeps > (HEAD_SWEEPS if self._pending else SILENT_SWEEPS)
        if is_over:
            self.close()


def protocol_for(application: object, most_connections: int) -> type[BoundedHttpProtocol]:
    """Return the protocol of an application, with a limit of open connections."""
    immediate = application if hasattr(application, "answer_at_once") else None
    members = {"__slots__": (), "most_connections": most_connections, "immediate": immediate}
    return type("LimitedHttpProtocol", (BoundedHttpProtocol,), members)


async def sweep(connections: Iterable[Any], *, seconds: float = SWEEP_SECONDS) -> None:
    """Look at all connections again and again, until it is cancelled.

    Args:
        connections: connections of the server, which change all the time.
        seconds: pause between two sweeps.
    """
    while True:
        await asyncio.sleep(seconds)
        for connection in tuple(connections):
            if isinstance(connection, BoundedHttpProtocol):
                connection.sweep()
