"""A client's connection after it left HTTP: its bytes come to us, without a parser between."""

from __future__ import annotations

import asyncio

from aiohttp import web


class TakenConnection:
    """Bytes from a client whose connection no longer carries HTTP; b"" is their end.

    Args:
        request: the request that asked for it. Bytes that follow it come here from now on.
    """

    def __init__(self, request: web.BaseRequest) -> None:
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._protocol, self._transport = request.protocol, request.transport
        request.protocol.set_parser(self)  # type: ignore[arg-type]  # needs feed_data and feed_eof only

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes that arrived."""
        self.chunks.put_nowait(data)
        return False, b""

    def feed_eof(self) -> None:
        """Take the end of the bytes."""
        self.chunks.put_nowait(b"")

    async def send(self, data: bytes) -> None:
        """Send bytes to the client, and wait while it is slow to take them.

        Raises:
            ConnectionResetError: the client is gone.
        """
        if self._transport is None:
            raise ConnectionResetError("the client is gone")
        self._transport.write(data)
        await self._protocol._drain_helper()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()
