"""Port-forwards to pods, by the protocols of Kubernetes.

`v4.channel.k8s.io` is a WebSocket with two channels for each port, data and errors. kubectl speaks SPDY/3.1, either
inside a WebSocket (`SPDY/3.1+portforward.k8s.io`) or after an HTTP upgrade.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from laptop.cluster.spdy_frames import Frame, FrameReader, FrameWriter, SpdyError
from laptop.cluster.taken_connection import TakenConnection

CHANNELS, CHANNELS_BASE64 = "v4.channel.k8s.io", "v4.base64.channel.k8s.io"
STREAMS = "portforward.k8s.io"
TUNNELLED = f"SPDY/3.1+{STREAMS}"

_CHUNK = 65536
_STREAM_NAME = "streamtype"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[int], Awaitable[Connection]]
"""Opens a connection to a port of the pod.

Raises:
    OSError: nothing listens there.
"""
Send = Callable[[bytes], Awaitable[None]]


async def serve_channels(request: web.Request, ports: Sequence[int], dial: Dial) -> web.StreamResponse:
    """Serve a WebSocket with the channels 2n (data) and 2n+1 (errors) for the n-th port.

    The first message of each channel is its port as two bytes, little-endian. The socket closes when the connections
    to the pod are closed.
    """
    socket = web.WebSocketResponse(protocols=(CHANNELS, CHANNELS_BASE64), max_msg_size=0)
    await socket.prepare(request)
    is_text = socket.ws_protocol == CHANNELS_BASE64

    async def send(channel: int, data: bytes) -> None:
        if is_text:
            await socket.send_str(f"{channel}{base64.b64encode(data).decode()}")
        else:
            await socket.send_bytes(bytes((channel,)) + data)

    writers: dict[int, asyncio.StreamWriter] = {}
    for index, port in enumerate(ports):
        for channel in (2 * index, 2 * index + 1):
            await send(channel, struct.pack("<H", port))

    async def forward(index: int, port: int) -> None:
        try:
            reader, writer = await dial(port)
        except OSError as error:
            await send(2 * index + 1, _failure(port, error))
            return
        writers[2 * index] = writer
        opened[index].set()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await send(2 * index, data)
        writer.close()

    async def forward_all() -> None:
        await asyncio.gather(*(forward(index, port) for index, port in enumerate(ports)))
        await socket.close()

    opened = [asyncio.Event() for _ in ports]
    task = asyncio.create_task(forward_all())
    try:
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                channel, data = int(message.data[:1]), base64.b64decode(message.data[1:])
            elif message.type is WSMsgType.BINARY and message.data:
                channel, data = message.data[0], message.data[1:]
            else:
                continue
            if channel % 2 == 0 and channel // 2 < len(ports):
                await _any([opened[channel // 2].wait()], task)
                writer = writers.get(channel)
                if writer is not None and not writer.is_closing():
                    writer.write(data)
                    with contextlib.suppress(ConnectionError):
                        await writer.drain()
    finally:
        await _cancelled(task)
        for writer in writers.values():
            writer.close()
    return socket


async def serve_tunnel(request: web.Request, dial: Dial) -> web.StreamResponse:
    """Serve SPDY inside a WebSocket, as kubectl asks for."""
    socket = web.WebSocketResponse(protocols=(TUNNELLED,), max_msg_size=0)
    await socket.prepare(request)
    session = _Session(socket.send_bytes, dial)
    try:
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                await session.receive(message.data)
    except (SpdyError, ConnectionError):
        await socket.close()
    finally:
        await session.close()
    return socket


async def serve_spdy(request: web.Request, dial: Dial) -> web.StreamResponse:
    """Serve SPDY after an upgrade of the HTTP connection."""
    headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": STREAMS}
    response = web.StreamResponse(status=101, headers=headers)
    client = TakenConnection(request)
    await response.prepare(request)
    session = _Session(client.send, dial)
    try:
        while data := await client.chunks.get():
            await session.receive(data)
    except (SpdyError, ConnectionError):
        pass
    finally:
        await session.close()
        client.close()
    return response


@dataclass
class _Forward:
    """The two streams of one connection, known by the client's request id."""

    port: int
    data: int = 0
    error: int = 0
    writer: asyncio.StreamWriter | None = None
    before: list[Frame] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


class _Session:
    """Streams of one SPDY connection."""

    def __init__(self, send: Send, dial: Dial) -> None:
        self._send = send
        self._dial = dial
        self._frames = FrameReader()
        self._out = FrameWriter()
        self._forwards: dict[str, _Forward] = {}
        self._by_stream: dict[int, _Forward] = {}

    async def receive(self, data: bytes) -> None:
        """Handle bytes from the client.

        Raises:
            SpdyError: they are not SPDY/3.1.
        """
        for frame in self._frames.feed(data):
            if frame.type == "open":
                await self._open(frame)
            elif frame.type == "data":
                await self._take(frame)
            elif frame.type == "reset":
                self._drop(frame.stream)
            elif frame.type == "ping" and frame.stream % 2:
                await self._send(self._out.ping(frame.stream))

    async def close(self) -> None:
        """Close every connection."""
        for forward in self._forwards.values():
            if forward.task is not None:
                await _cancelled(forward.task)
            if forward.writer is not None:
                forward.writer.close()

    async def _open(self, frame: Frame) -> None:
        headers = frame.headers
        port, key = headers.get("port", ""), headers.get("requestid", "")
        if not port.isdigit() or headers.get(_STREAM_NAME) not in ("data", "error"):
            raise SpdyError(f"a stream has no port or no known type: found {dict(headers)}")
        await self._send(self._out.reply(frame.stream))
        forward = self._forwards.setdefault(key, _Forward(int(port)))
        self._by_stream[frame.stream] = forward
        if headers[_STREAM_NAME] == "error":
            forward.error = frame.stream
        else:
            forward.data = frame.stream
        if forward.data and forward.error:
            forward.task = asyncio.create_task(self._forward(key, forward))

    async def _take(self, frame: Frame) -> None:
        forward = self._by_stream.get(frame.stream)
        if forward is None or frame.stream != forward.data:
            return
        if forward.writer is None:
            forward.before.append(frame)
        else:
            await _write(forward.writer, frame)

    def _drop(self, stream: int) -> None:
        forward = self._by_stream.pop(stream, None)
        if forward is not None and forward.writer is not None:
            forward.writer.close()

    async def _forward(self, key: str, forward: _Forward) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                reader, writer = await self._dial(forward.port)
            except OSError as error:
                await self._send(self._out.data(forward.error, _failure(forward.port, error)))
            else:
                forward.writer = writer
                for frame in forward.before:
                    await _write(writer, frame)
                with contextlib.suppress(ConnectionError):
                    while data := await reader.read(_CHUNK):
                        await self._send(self._out.data(forward.data, data))
                writer.close()
            await self._send(self._out.data(forward.data, b"", fin=True))
            await self._send(self._out.data(forward.error, b"", fin=True))
        self._forwards.pop(key, None)
        self._by_stream.pop(forward.data, None)
        self._by_stream.pop(forward.error, None)


async def _write(writer: asyncio.StreamWriter, frame: Frame) -> None:
    with contextlib.suppress(ConnectionError, RuntimeError):
        if frame.data:
            writer.write(frame.data)
            await writer.drain()
        if frame.fin and writer.can_write_eof():
            writer.write_eof()


def _failure(port: int, error: OSError) -> bytes:
    return f"error forwarding port {port} to pod: {error.strerror or error}".encode()


async def _any(waits: Sequence[Awaitable[Any]], task: asyncio.Task[None]) -> None:
    """Wait for the first of some waits, or for the end of a task."""
    pending = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait([*pending, task], return_when=asyncio.FIRST_COMPLETED)
    for wait in pending:
        wait.cancel()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
