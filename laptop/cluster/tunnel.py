"""Tunnels through the proxy of the cluster, by which clients other than HTTP/1.1 reach Services: gRPC uses CONNECT."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import web

from laptop.cluster.taken_connection import TakenConnection

_READ = 1 << 16


async def serve_tunnel(request: web.BaseRequest, port: int) -> web.StreamResponse:
    """Answer CONNECT, then carry bytes between the client and a port of this machine until one of them ends.

    Raises:
        OSError: nothing listens on the port.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = TakenConnection(request)
    response = web.StreamResponse(status=200, reason="Connection established")
    await response.prepare(request)

    async def forth() -> None:
        while data := await client.chunks.get():
            writer.write(data)
            await writer.drain()

    async def back() -> None:
        while data := await reader.read(_READ):
            await client.send(data)

    ways = [asyncio.create_task(forth()), asyncio.create_task(back())]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        client.close()
    return response
