"""Limits of HTTP connections: head, URL, time and number."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn

from pipelines.serving import http_protocol
from pipelines.serving.http_protocol import (
    ANSWER_SWEEPS,
    HEAD_SWEEPS,
    LARGEST_HEAD,
    SILENT_SWEEPS,
    BoundedHttpProtocol,
)
from pipelines.serving.server import OTHER_FILES, server_config

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
LARGE = 8 << 20
"""Size of the response to `/large`, more than the system holds for a client that does not read."""


class Served:
    """A server of one fixed response, inside this event loop.

    Attributes:
        server: uvicorn's server.
        release: lets requests of `/wait` end.
    """

    def __init__(self, most_connections: int) -> None:
        self.release = asyncio.Event()
        self.server = uvicorn.Server(server_config(self, finish_seconds=1, most_connections=most_connections))
        self._port = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request once its body is there, or at once if it is for `/early`."""
        while scope["path"] != "/early" and (await receive()).get("more_body"):
            pass
        if scope["path"] == "/wait":
            await self.release.wait()
        body = b"x" * LARGE if scope["path"] == "/large" else b"ok"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def __aenter__(self) -> Served:
        config = self.server.config
        config.load()
        self.server.lifespan = config.lifespan_class(config)
        await self.server.startup(sockets=None)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release.set()
        self.server.force_exit = True
        await self.server.shutdown()

    @property
    def connections(self) -> list[BoundedHttpProtocol]:
        """The open connections."""
        return list(self.server.server_state.connections)  # type: ignore[arg-type]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection, and wait until the server has it."""
        port = self.server.servers[0].sockets[0].getsockname()[1]
        return await asyncio.open_connection("127.0.0.1", port)

    async def send(self, content: bytes) -> bytes:
        """Send bytes on a new connection; return all that the server sends until it closes."""
        reader, writer = await self.connect()
        try:
            writer.write(content)
            await writer.drain()
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    def sweep(self, times: int) -> None:
        """Sweep all connections."""
        for _ in range(times):
            for connection in self.connections:
                connection.sweep()


def served(test: Callable[[Served], Awaitable[None]], *, most_connections: int = 20) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), Served(most_connections) as server:
            await test(server)

    asyncio.run(main())


@pytest.fixture(autouse=True)
def any_port(monkeypatch: pytest.MonkeyPatch) -> None:
    original = uvicorn.Config.__init__

    def init(self: uvicorn.Config, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **{**named, "port": 0})

    monkeypatch.setattr(uvicorn.Config, "__init__", init)


def refused(answer: bytes) -> tuple[int, str]:
    """Return status and error of a response."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]


CLOSE = b"Connection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"GET /" + b"a" * LARGEST_HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /" + b"a" * (LARGEST_HEAD // 2) + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (HEAD + b"A: " + b"a" * LARGEST_HEAD + b"\r\n\r\n", 431),
        (HEAD + b"A: a\r\n" * LARGEST_HEAD + b"\r\n", 431),
        (HEAD + b"A: " + b"a" * (2 * LARGEST_HEAD), 431),  # a header that does not end
        (HEAD + b"a" * (2 * LARGEST_HEAD), 431),  # a name that does not end
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (HEAD + b"Host: y\r\n\r\n", 400),
        (b"NONSENSE\r\n\r\n", 400),
    ],
    ids=["url", "half", "value", "many", "endless value", "endless name", "no host", "two hosts", "nonsense"],
)
def test_what_is_too_large_or_malformed_is_refused_by_name(content: bytes, expected: int) -> None:
    async def test(server: Served) -> None:
        status, error = refused(await server.send(content))
        assert status == expected
        assert error

    served(test)


@pytest.mark.parametrize("rest", [b"0\r\nA: " + b"a" * 1000, b"1;" + b"a" * 1000, b"1\r\nx\r\n" * 200])
def test_what_surrounds_a_body_is_bounded(rest: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "LARGEST_FRAMING", 900)

    async def test(server: Served) -> None:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert refused(await server.send(head + rest)) == (
            400,
            "the chunks of the body are too small, or their trailers too large",
        )
        assert (await server.send(head[:-2] + CLOSE + b"8\r\n12345678\r\n0\r\n\r\n")).endswith(b"ok")

    served(test)


def test_a_head_below_the_limit_is_answered() -> None:
    async def test(server: Served) -> None:
        long = HEAD + b"A: " + b"a" * (LARGEST_HEAD - 200) + b"\r\n" + CLOSE
        assert (await server.send(long)).endswith(b"\r\n\r\nok")
        assert (await server.send(b"GET /" + b"a" * (LARGEST_HEAD // 2 - 1) + HEAD[5:] + CLOSE)).endswith(b"ok")
        assert (await server.send(b"GET / HTTP/1.0\r\n\r\n")).endswith(b"ok")
        big = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n" + CLOSE + b"x" * 3_000_000
        assert (await server.send(big)).endswith(b"ok")

    served(test)


def test_a_head_that_grows_without_end_is_refused_before_it_takes_memory() -> None:
    async def test(server: Served) -> None:
        _, writer = await server.connect()
        writer.write(HEAD + b"A: ")
        sent = 0
        try:
            while sent < 8 << 20:
                writer.write(b"a" * 65536)
                await writer.drain()
                sent += 65536
        except ConnectionError:
            pass
        finally:
            writer.close()
        assert sent < 8 << 20

    served(test)


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until a condition holds; the test's timeout ends the wait."""
    while not condition():
        await asyncio.sleep(0.001)


def test_an_incomplete_head_is_closed_and_an_idle_connection_later() -> None:
    async def test(server: Served) -> None:
        slow, silent = await server.connect(), await server.connect()
        slow[1].write(HEAD)
        await until(lambda: len(server.connections) == 2 and any(c._pending for c in server.connections))
        server.sweep(HEAD_SWEEPS)
        assert len(server.connections) == 2
        server.sweep(1)
        assert await slow[0].read() == b""
        assert len(server.connections) == 1
        server.sweep(SILENT_SWEEPS - HEAD_SWEEPS - 1)
        assert len(server.connections) == 1
        server.sweep(1)
        assert await silent[0].read() == b""

    served(test)


def test_a_slow_head_is_closed_even_if_a_byte_arrives_now_and_then() -> None:
    async def test(server: Served) -> None:
        reader, writer = await server.connect()
        for at in range(HEAD_SWEEPS + 1):
            writer.write(HEAD[at : at + 1])
            await until(lambda at=at: sum(c._pending for c in server.connections) > at)  # type: ignore[misc]
            server.sweep(1)
        assert await reader.read() == b""

    served(test)


def test_a_response_that_is_not_read_is_given_up_and_a_request_resets_the_count() -> None:
    async def test(server: Served) -> None:
        reader, writer = await server.connect()
        writer.write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: any(not c.is_idle or c._requests for c in server.connections))
        server.sweep(1 + ANSWER_SWEEPS)
        assert len(server.connections) == 1
        server.sweep(1)
        assert await reader.read() == b""
        writer.close()

    served(test)


def test_a_new_connection_takes_the_place_of_the_one_that_is_idle_longest() -> None:
    async def test(server: Served) -> None:
        busy = await server.connect()
        busy[1].write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        used = await server.connect()
        used[1].write(HEAD + b"\r\n")
        assert (await used[0].readuntil(b"ok")).endswith(b"ok")
        silent = await server.connect()
        await until(lambda: len(server.connections) == 3)
        server.sweep(1)
        assert (await server.send(HEAD + CLOSE)).endswith(b"ok")
        assert await silent[0].read() == b""  # the one that never sent a request
        await until(lambda: len(server.connections) == 2)
        server.release.set()
        assert (await busy[0].readuntil(b"ok")).endswith(b"ok")
        for _, writer in (busy, used, silent):
            writer.close()

    served(test, most_connections=3)


def test_a_connection_is_refused_if_all_others_are_in_use() -> None:
    async def test(server: Served) -> None:
        busy = [await server.connect() for _ in range(2)]
        for _, writer in busy:
            writer.write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: sum(c._requests for c in server.connections) == 2)
        reader, writer = await server.connect()
        assert refused(await reader.read()) == (503, "too many connections: expected at most 2")
        server.release.set()
        for stream, other in busy:
            assert (await stream.readuntil(b"ok")).endswith(b"ok")
            other.close()
        writer.close()

    served(test, most_connections=2)


@pytest.mark.parametrize(
    "content",
    [
        b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n",
        b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 2,
    ],
    ids=["an answer without its body", "no body", "no end of a chunk", "answers that nobody reads"],
)
def test_clients_that_send_or_read_no_more_keep_no_other_client_out(content: bytes) -> None:
    """They could take every connection, also those of the probes, and again as soon as one is closed."""

    async def test(server: Served) -> None:
        stuck = [await server.connect() for _ in range(3)]
        for _, writer in stuck:
            writer.write(content)
        await until(lambda: sum(connection._requests > 0 for connection in server.connections) == 3)
        for _ in range(4):
            assert (await server.send(HEAD + CLOSE)).endswith(b"ok")
        for _, writer in stuck:
            writer.transport.abort()

    served(test, most_connections=3)


def test_the_limit_leaves_room_for_other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 4096))
    kind = server_config(lambda: None, finish_seconds=1, most_connections=512).http
    assert isinstance(kind, type) and issubclass(kind, BoundedHttpProtocol)
    assert kind.most_connections == 256 - OTHER_FILES


def test_connections_are_swept_again_and_again() -> None:
    class Counted(BoundedHttpProtocol):
        swept = 0

        def __init__(self) -> None:
            pass

        def sweep(self) -> None:
            self.swept += 1

    async def main() -> None:
        connection = Counted()
        task = asyncio.create_task(http_protocol.sweep({connection, object()}, seconds=0))
        await until(lambda: connection.swept > 2)
        task.cancel()

    asyncio.run(main())
