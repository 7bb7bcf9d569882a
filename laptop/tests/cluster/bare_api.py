"""The laptop's Kubernetes API over an empty store: no controllers, no node, no TLS."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
from aiohttp import web

from laptop.cluster.api_server import ApiServer
from laptop.cluster.garbage import GarbageCollector
from laptop.cluster.kinds import NAMESPACE
from laptop.cluster.objects import Object, ObjectStore
from laptop.cluster.service_accounts import ServiceAccountTokens

_TOKEN = "operator"


class _NoNode:
    def log_of(self, pod: Object, container: str, *, previous: bool = False) -> Path:
        return Path("/nonexistent")

    def port_of(self, pod: Object, port: int) -> int | None:
        return None


@contextlib.contextmanager
def running_api() -> Iterator[httpx.Client]:
    """Serve the API on a free port and yield a client with the operator's token."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[web.AppRunner, int]:
        store = ObjectStore()
        GarbageCollector(store)
        store.create(NAMESPACE, "", {"metadata": {"name": "default"}, "status": {"phase": "Active"}})
        api = ApiServer(store, _TOKEN, ServiceAccountTokens(store, lambda: "", b""), _NoNode(), dict)
        runner = web.AppRunner(api.application(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, int(runner.addresses[0][1])

    runner, port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {_TOKEN}"},
            timeout=30,
            trust_env=False,
        ) as client:
            yield client
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
