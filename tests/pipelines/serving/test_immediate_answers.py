"""A request that arrives as a whole is answered at once, and gets the same response as one that arrives in pieces."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn

from pipelines.declarations.inference_logging import LogPolicy
from pipelines.serving.http_protocol import SILENT_SWEEPS, BoundedHttpProtocol
from pipelines.serving.pod_counters import read_metrics
from pipelines.serving.server import server_config
from tests.pipelines.serving.bundles import NAME
from tests.pipelines.serving.conftest import Serve, Served, features, row

INFER = f"/v2/models/{NAME}/infer"
BODY = json.dumps(features() | {"id": "42"}).encode()
JSON = "Content-Type: application/json"
PARENT = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def request(body: bytes = BODY, *headers: str, path: str = INFER, version: str = "1.1", length: bool = True) -> bytes:
    """Return the bytes of an inference request."""
    lines = [f"POST {path} HTTP/{version}", "Host: x", *(headers or (JSON,))]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Server:
    """A server on a port of this machine, inside this event loop.

    Attributes:
        tasks: number of requests that took uvicorn's way.
    """

    def __init__(self, application: Any) -> None:
        self.tasks = 0
        self._application = application
        self.at_once = application.at_once
        self.answer_at_once = application.answer_at_once
        self.server = uvicorn.Server(server_config(self, finish_seconds=1))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on."""
        self.tasks += 1
        await self._application(scope, receive, send)

    async def __aenter__(self) -> Server:
        config = self.server.config
        config.port = 0
        config.load()
        self.server.lifespan = config.lifespan_class(config)
        await self.server.startup(sockets=None)
        await self.server.on_tick(0)  # makes the date
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.force_exit = True
        await self.server.shutdown()

    @property
    def connections(self) -> list[BoundedHttpProtocol]:
        """The open connections."""
        return list(self.server.server_state.connections)  # type: ignore[arg-type]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        return await asyncio.open_connection("127.0.0.1", self.server.servers[0].sockets[0].getsockname()[1])

    async def ask(self, *pieces: bytes) -> tuple[bytes, dict[str, str], bytes]:
        """Send a request, the next piece when the server has read the one before; see `read`."""
        reader, writer = await self.connect()
        for number, piece in enumerate(pieces):
            if number:
                await until(lambda: any(not connection.is_idle for connection in self.connections))
            writer.write(piece)
            await writer.drain()
        found = await read(reader)
        writer.close()
        await until(lambda: not self.connections)
        return found


async def read(reader: asyncio.StreamReader) -> tuple[bytes, dict[str, str], bytes]:
    """Return the status line, the headers and the body of a response."""
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    headers = dict(line.split(": ", 1) for line in lines)
    return status.encode(), headers, await reader.readexactly(int(headers["content-length"]))


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until a condition holds; the test's timeout ends the wait."""
    while not condition():
        await asyncio.sleep(0.001)


def run(application: Any, test: Callable[[Server], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), Server(application) as server:
            await test(server)

    asyncio.run(main())


def comparable(response: tuple[bytes, dict[str, str], bytes]) -> tuple[bytes, dict[str, str], bytes]:
    """Return a response without what differs between any two: random ids, and the time."""
    status, headers, body = response
    headers = {name: re.sub(r"-[0-9a-f]{16}-", "-span-", value) for name, value in headers.items() if name != "date"}
    if PARENT[15:50] not in headers["traceparent"]:
        headers["traceparent"] = "a new trace"
    return status, headers, body


AT_ONCE = {
    "one row": request(),
    "two rows": request(json.dumps(features(row(), row(age=20)) | {"id": "2"}).encode()),
    "trace": request(BODY, JSON, PARENT, "tracestate: a=1,b=2"),
    "wrong trace": request(BODY, JSON, "traceparent: 00-0-0-00", "tracestate: a=1"),
    "keep-alive": request(BODY, JSON, "Connection: keep-alive", "Accept: */*", "Accept-Encoding: gzip"),
    "no content type": request(BODY, "Accept: */*"),
    "web page": request(BODY, "Origin: https://elsewhere.example"),
    "chunked": request(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), JSON, "Transfer-Encoding: chunked", length=False),
    "not JSON": request(b"{"),
    "invalid value": request(json.dumps(features(row(age="old"))).encode()),
    "other content type": request(BODY, "Content-Type: text/csv"),
    "compressed": request(BODY, JSON, "Content-Encoding: gzip"),
}
BY_A_TASK = {
    "close": request(BODY, JSON, "Connection: close"),
    "HTTP/1.0": request(version="1.0"),
    "HTTP/1.0, keep-alive": request(BODY, JSON, "Connection: keep-alive", version="1.0"),
    "HTTP/1.0, keep-alive by a proxy": request(BODY, JSON, "Proxy-Connection: keep-alive", version="1.0"),
    "query": request(path=f"{INFER}?a=b"),
    "two traces": request(BODY, JSON, PARENT, PARENT),
    "two states": request(BODY, JSON, PARENT, "tracestate: a=1", "tracestate: b=2"),
    "unknown path": request(path=f"{INFER}/"),
    "too large": request(b" " * 3000),
}


@pytest.mark.parametrize("name", [*AT_ONCE, *BY_A_TASK])
def test_a_whole_request_gets_the_response_of_one_in_pieces(serve: Serve, name: str) -> None:
    content = (AT_ONCE | BY_A_TASK)[name]
    served: Served = serve(largest_body=2000)

    statuses: list[bytes] = []

    async def test(server: Server) -> None:
        whole = await server.ask(content)
        statuses.append(whole[0])
        assert server.tasks == (0 if name in AT_ONCE else 1)
        at = content.index(b"\r\n\r\n") + 4
        in_pieces = await server.ask(content[:at], content[at:])
        assert server.tasks == (1 if name in AT_ONCE else 2)
        if name != "unknown path":
            assert comparable(whole) == comparable(in_pieces)
            assert whole[1].keys() == in_pieces[1].keys()
        assert "date" in whole[1]

    run(served.application, test)
    figures = served.metrics.exposition()[1].decode()
    if name != "unknown path":
        assert re.search(r'inference_requests_total\{code="\d+"\} 2\.0', figures)
    assert "inference_requests_in_flight 0.0" in figures
    records = served.logged()
    assert len(records) == (2 if b" 200 " in statuses[0] else 0)
    assert all(record["inputs"] == records[0]["inputs"] for record in records)


def test_an_unexpected_error_is_counted_logged_and_answered_without_its_message(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: Served = serve(policy=LogPolicy(withheld=("age",)))
    monkeypatch.setattr(served.predictor._model, "run_row", lambda: 1 / 0)

    async def test(server: Server) -> None:
        status, headers, body = await server.ask(request())
        assert status.startswith(b"HTTP/1.1 500 ")
        assert headers["traceparent"][3:35] in body.decode()
        assert b"zero" not in body
        assert server.tasks == 0

    run(served.application, test)
    assert [record["status"] for record in served.logged()] == [500]


def test_a_request_to_upgrade_the_connection_goes_to_uvicorn(linear: Served) -> None:
    async def test(server: Server) -> None:
        await server.ask(request(BODY, JSON, "Connection: upgrade", "Upgrade: h2c"))
        assert server.tasks == 1

    run(linear.application, test)


def test_a_versioned_url_is_counted_apart(linear: Served) -> None:
    async def test(server: Server) -> None:
        path = f"/v2/models/{NAME}/versions/{linear.bundle.digest}/infer"
        assert (await server.ask(request(path=path)))[0] == b"HTTP/1.1 200 OK"
        assert server.tasks == 0

    run(linear.application, test)
    assert 'inference_versioned_requests_total{code="200"} 1.0' in linear.metrics.exposition()[1].decode()


def test_a_shadow_step_gets_the_same_copies_of_both_ways(serve: Serve) -> None:
    offered: list[tuple[bytes, int, float | None]] = []

    class Sender:
        is_on = True

        def offer(self, body: bytes, answer: Any) -> None:
            offered.append((body, answer.status, answer.prediction))

    served: Served = serve(sender=Sender())

    async def test(server: Server) -> None:
        versioned = request(path=f"/v2/models/{NAME}/versions/{served.bundle.digest}/infer")
        for content in (request(), request(b"{"), request(BODY, "Content-Type: text/csv"), versioned):
            at = content.index(b"\r\n\r\n") + 4
            await server.ask(content)
            await server.ask(content[:at], content[at:])
        assert server.tasks == 4

    run(served.application, test)
    assert [(body, status) for body, status, _ in offered] == [(BODY, 200)] * 2 + [(b"{", 400)] * 2
    assert offered[0] == offered[1]


def test_requests_of_one_read_are_answered_in_order_and_only_the_first_at_once(linear: Served) -> None:
    async def test(server: Server) -> None:
        bodies = [json.dumps(features() | {"id": str(number)}).encode() for number in range(5)]
        reader, writer = await server.connect()
        writer.write(b"".join(map(request, bodies)))
        answers = [json.loads((await read(reader))[2])["id"] for _ in bodies]
        assert answers == ["0", "1", "2", "3", "4"]
        assert server.tasks == 4
        writer.write(request(bodies[0]))
        assert json.loads((await read(reader))[2])["id"] == "0"
        assert server.tasks == 4
        writer.close()

    run(linear.application, test)


def test_a_broken_body_is_refused_and_counted_as_abandoned(linear: Served) -> None:
    async def test(server: Server) -> None:
        content = request(b"5\r\nabcdeXX", JSON, "Transfer-Encoding: chunked", length=False)
        status, headers, _ = await server.ask(content)
        assert status.startswith(b"HTTP/1.1 400 ")
        assert headers["connection"] == "close"
        await until(lambda: b'inference_requests_total{code="499"} 1.0' in linear.metrics.exposition()[1])

    run(linear.application, test)


def test_neither_a_loading_nor_a_draining_server_answers_at_once(linear: Served) -> None:
    assert INFER.encode() in linear.application.at_once
    linear.application.drain()
    assert not linear.application.at_once

    async def test(server: Server) -> None:
        status, headers, _ = await server.ask(request())
        assert (status, headers["connection"]) == (b"HTTP/1.1 200 OK", "close")
        assert server.tasks == 1

    run(linear.application, test)


class Waiting:
    """Answers POST requests of `/now` at once, and GET requests when it is released."""

    at_once = frozenset((b"/now",))

    def __init__(self) -> None:
        self.release = asyncio.Event()

    def answer_at_once(self, url: bytes, headers: dict[bytes, bytes], body: bytes) -> tuple[int, bytes]:
        """Return the body."""
        return 200, b"content-length: %d\r\n\r\n%b" % (len(body), body)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer when it is released."""
        while (await receive()).get("more_body"):
            pass
        await self.release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"late"})


def test_a_request_waits_for_the_response_to_the_one_before() -> None:
    async def main() -> None:
        waiting = Waiting()
        async with asyncio.timeout(30), Server(waiting) as server:
            reader, writer = await server.connect()
            writer.write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: server.tasks == 1)
            writer.write(request(b"body", path="/now"))
            await until(lambda: any(connection.pipeline for connection in server.connections))
            waiting.release.set()
            assert [(await read(reader))[2] for _ in range(2)] == [b"late", b"late"]
            writer.close()

    asyncio.run(main())


def test_responses_that_are_not_read_are_not_piled_up() -> None:
    async def main() -> None:
        waiting = Waiting()
        async with asyncio.timeout(30), Server(waiting) as server:
            _, writer = await server.connect()
            content = request(b"x" * 100_000, path="/now")
            while server.tasks == 0:  # then the response waits for the client
                writer.write(content)
                await asyncio.sleep(0.001)
            writer.transport.abort()

    asyncio.run(main())


def test_slow_clients_keep_no_other_client_out(linear: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that refused others would look like a bad bundle to the canary check."""
    monkeypatch.setattr("pipelines.serving.application.MOST_WAITING", 2)

    async def test(server: Server) -> None:
        slow = []
        for number in range(1, 3):
            slow.append(await server.connect())
            slow[-1][1].write(request()[:-5])
            await until(lambda: server.tasks == number)  # noqa: B023
        for _ in range(3):
            reader, writer = await server.connect()
            tasks = server.tasks
            writer.write(request()[:-30])
            await until(lambda: server.tasks > tasks)  # noqa: B023
            writer.write(request()[-30:])
            assert (await read(reader))[0] == b"HTTP/1.1 200 OK"
            writer.close()
        assert await status_and_error(slow[0][0]) == (408, "the body did not arrive before 2 others began to")
        slow[1][1].write(request()[-5:])
        assert (await read(slow[1][0]))[0] == b"HTTP/1.1 200 OK", "one place was enough for the others"
        for _, writer in slow:
            writer.close()

    run(linear.application, test)
    _, counted = read_metrics(linear.metrics.exposition()[1].decode().replace('process=""', 'process="p"'), 1.0)
    assert (counted.requests, counted.errors) == (4, 0)
    assert [record.get("status", 200) for record in linear.logged()] == [200] * 4


async def status_and_error(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Return the status and the error of a response."""
    line, _, body = await read(reader)
    return int(line.split()[1]), json.loads(body)["error"]


def test_a_connection_that_stays_silent_after_an_answer_is_closed(linear: Served) -> None:
    async def test(server: Server) -> None:
        reader, writer = await server.connect()
        writer.write(request())
        await read(reader)
        (connection,) = server.connections
        assert connection.timeout_keep_alive_task is None, "the sweep closes it"
        for _ in range(SILENT_SWEEPS + 1):
            connection.sweep()
        assert server.connections == [connection]
        connection.sweep()
        assert await reader.read() == b""
        writer.close()

    run(linear.application, test)
