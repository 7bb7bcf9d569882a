"""Copies of requests as a live pod sends them to a canary.

Every few seconds the pod asks the beacon, the Service of the canary check, whether a shadow step is running. Without
one there is no pod behind that Service, so the connection is refused. During one, the answer names the Service in front
of the canary, and the pod copies a share of the requests that it has answered: one at a time, after the response. What
waits is bounded. A copy that finds no room, or no answer in time, is lost and counted; callers never wait for copies.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from pipelines.declarations.shadow_traffic import ShadowPeers, ShadowTarget
from pipelines.serving.http_proxy import proxy_of
from pipelines.serving.shadow_protocol import COPIES, LIVE_ANSWER, SHADOW_PATH, TAKEN, AnswerFigures

logger = logging.getLogger(__name__)

LEASE_SECONDS = 5.0
"""Time between two questions to the beacon, so also the longest time that copying goes on after a shadow step."""

TIMEOUT_SECONDS = 2.0
"""Time allowed for the beacon to answer, and for a connection to the canary."""

MOST_WAITING = 64
"""Most copies that wait to be sent."""

MOST_BYTES = 4 << 20
"""Most bytes that wait to be sent."""

_LARGEST_ANSWER = 4096  # bytes of the beacon's answer


class Route(NamedTuple):
    """How to reach a URL: directly, or through the proxy that the environment names."""

    host: str
    port: int
    base: bytes
    authority: bytes


def route_to(url: str) -> Route:
    """Return how to reach a URL."""
    target = urlsplit(url)
    hop = proxy_of(target) or target
    # A request to a proxy names the whole URL (RFC 9112, section 3.2.2).
    base = b"" if hop is target else url.encode()
    return Route(hop.hostname or "", hop.port or 80, base, target.netloc.encode())


class CopyConnection(asyncio.Protocol):
    """Connection to the canary.

    Args:
        answered: called with the connection and the status of each answer.
        lost: called with the connection once it is closed.
    """

    def __init__(self, answered: Callable[[CopyConnection, int], None], lost: Callable[[CopyConnection], None]) -> None:
        self._answered, self._lost = answered, lost
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's transports are of no common class

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def on_message_complete(self) -> None:
        """Report the answer; called by the parser."""
        self._answered(self, self._parser.get_status_code())

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self)

    def write(self, data: bytes) -> None:
        """Send a request."""
        assert self.transport is not None
        self.transport.write(data)

    def abort(self) -> None:
        """Close the connection at once."""
        if self.transport is not None:
            self.transport.abort()


class ShadowSender(Collector):
    """Copies requests of callers to a canary. Everything runs in the event loop.

    Args:
        peers: the Services.
        chance: returns a random number from 0 to 1.

    Attributes:
        is_on: True while a shadow step is running.
    """

    def __init__(self, peers: ShadowPeers, *, chance: Callable[[], float] = random.random) -> None:
        self._beacon = route_to(peers.beacon)
        self._services = {"ping": route_to(peers.ping), "pong": route_to(peers.pong)}
        self._chance = chance
        self.is_on = False
        self._share = 0.0
        self._head = b""
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._connection: CopyConnection | None = None
        self._next: CopyConnection | None = None
        self._sent_at: float | None = None
        self._sent = self._failed = self._dropped = 0

    def offer(self, body: bytes, answer: AnswerFigures) -> None:
        """Copy a request that was answered, if it is one of the share.

        Args:
            body: body of the request.
            answer: what this pod made of it.
        """
        if self._chance() >= self._share:
            return
        if len(self._waiting) >= MOST_WAITING or self._bytes + len(body) > MOST_BYTES:
            self._dropped += 1
            return
        copy = b"%b%b\r\ncontent-length: %d\r\n\r\n%b" % (self._head, answer.to_header(), len(body), body)
        self._waiting.append(copy)
        self._bytes += len(copy)
        if self._sent_at is None:
            # Later: the caller's response may not be written yet.
            asyncio.get_running_loop().call_soon(self._send)

    async def run(self) -> None:
        """Ask the beacon again and again, until it is cancelled."""
        try:
            while True:
                await self.renew()
                await asyncio.sleep(LEASE_SECONDS)
        finally:
            self._stop()

    async def renew(self) -> None:
        """Ask the beacon once; begin, go on or end by its answer."""
        target = await self._ask()
        if target is None:
            self._stop()
            return
        route = self._services[target.canary]
        self._share = target.percent / 100
        self._head = b"POST %b%b HTTP/1.1\r\nhost: %b\r\ncontent-type: application/json\r\n%b: " % (
            *(route.base, SHADOW_PATH.encode(), route.authority),
            LIVE_ANSWER,
        )
        if self._connection is not None and self._is_late():
            self._connection.abort()
        # A connection stays with one pod, so each lease takes another one.
        if (fresh := await self._connect(route)) is not None:
            self._replace(fresh)
        if not self.is_on:
            logger.info("copying requests", extra={"canary": target.canary, "percent": target.percent})
        self.is_on = True

    async def _ask(self) -> ShadowTarget | None:
        """Return the answer of the beacon; None if there is none."""
        route, answer = self._beacon, b""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                reader, writer = await asyncio.open_connection(route.host, route.port)
                try:
                    writer.write(b"GET %b/ HTTP/1.0\r\nhost: %b\r\n\r\n" % (route.base, route.authority))
                    while len(answer) < _LARGEST_ANSWER and (piece := await reader.read(_LARGEST_ANSWER)):
                        answer += piece
                finally:
                    writer.close()
            head, _, content = answer.partition(b"\r\n\r\n")
            return ShadowTarget.model_validate_json(content) if head[8:12] == b" 200" else None
        except (OSError, ValueError):  # no step is running, or something else answers
            return None

    async def _connect(self, route: Route) -> CopyConnection | None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: CopyConnection(self._on_answer, self._on_lost), route.host, route.port
                )
        except OSError:
            return None
        return connection

    def _is_late(self) -> bool:
        return self._sent_at is not None and asyncio.get_running_loop().time() > self._sent_at + TIMEOUT_SECONDS

    def _replace(self, fresh: CopyConnection) -> None:
        """Use another connection, once the copy that is under way is answered."""
        if self._next is not None:
            self._next.abort()
        self._next = fresh
        self._send()

    def _send(self) -> None:
        """Send the next copy, unless one is under way."""
        if self._sent_at is not None:
            return
        if self._next is not None:
            before, self._connection, self._next = self._connection, self._next, None
            if before is not None:
                before.abort()
        if self._connection is None or not self._waiting:
            return
        copy = self._waiting.popleft()
        self._bytes -= len(copy)
        self._sent_at = asyncio.get_running_loop().time()
        self._connection.write(copy)

    def _on_answer(self, connection: CopyConnection, status: int) -> None:
        if connection is not self._connection or self._sent_at is None:
            return
        self._sent_at = None
        if status == TAKEN:
            self._sent += 1
        else:
            self._failed += 1
        self._send()

    def _on_lost(self, connection: CopyConnection) -> None:
        if connection is self._next:
            self._next = None
        if connection is not self._connection:
            return
        self._connection = None
        if self._sent_at is not None:
            self._sent_at = None
            self._failed += 1
        self._send()

    def _stop(self) -> None:
        if self.is_on:
            logger.info(
                "no longer copying requests",
                extra={"sent": self._sent, "failed": self._failed, "dropped": self._dropped},
            )
        self.is_on = False
        self._dropped += len(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        for connection in (self._connection, self._next):
            if connection is not None:
                connection.abort()

    def collect(self) -> Iterator[Metric]:
        """Yield the number of copies by what became of them."""
        family = CounterMetricFamily(
            COPIES, "Requests copied to a canary, by what became of the copy.", labels=["result"]
        )
        for result, count in (("sent", self._sent), ("failed", self._failed), ("dropped", self._dropped)):
            family.add_metric([result], count)
        yield family
