"""The port of the Kubernetes API, which can be killed and started again while the cluster runs."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Collection

from aiohttp import web

RESTART = "api-restart"

_LOOK = 0.1
"""Seconds between looks for the fault."""


class ApiListener:
    """Serves an application by TLS on 127.0.0.1.

    While the laptop has the fault `RESTART`, nothing listens, as after `kill -9` of a real API server. The connections
    that were open then end without an answer, also watches and forwarded ports. The port stays the same.

    Args:
        application: the API.
        context: the certificate.
        faults: returns the faults that the API has now; see `laptop.faults`.
    """

    def __init__(
        self, application: web.Application, context: ssl.SSLContext, faults: Callable[[], Collection[str]]
    ) -> None:
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        self._context = context
        self._faults = faults
        self._watching: asyncio.Task[None] | None = None

    async def start(self, port: int = 0) -> int:
        """Listen, and return the port.

        Args:
            port: 0 takes a free one.

        Raises:
            OSError: the port is in use.
        """
        await self._runner.setup()
        site = await self._listen(port)
        port = int(self._runner.addresses[0][1])
        self._watching = asyncio.create_task(self._follow_faults(site, port))
        return port

    async def close(self) -> None:
        """End every connection, and stop listening."""
        if self._watching is not None:
            self._watching.cancel()
        await self._runner.cleanup()

    async def _listen(self, port: int) -> web.TCPSite:
        site = web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=self._context)
        await site.start()
        return site

    async def _follow_faults(self, site: web.TCPSite | None, port: int) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            is_down = RESTART in self._faults()
            if is_down and site is not None:
                await site.stop()
                self._end_connections()
                site = None
            elif not is_down and site is None:
                with contextlib.suppress(OSError):  # another program has the port for a moment
                    site = await self._listen(port)

    def _end_connections(self) -> None:
        server = self._runner.server
        for connection in list(server.connections) if server is not None else ():
            if connection.transport is not None:
                connection.transport.abort()
