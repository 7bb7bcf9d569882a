"""Probes of a container, in Kubernetes' order: startup, then readiness and liveness at the same time.

One difference: a startup or readiness probe that has not succeeded yet is repeated ten times a second, to shorten the
wait. The deadline stays periodSeconds x failureThreshold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from laptop.cluster.ports import container_port

_EAGER = 0.1  # seconds between tries of a probe that has not succeeded yet


@dataclass(frozen=True)
class Probe:
    """An httpGet or tcpSocket probe.

    Attributes:
        port: name or number of a containerPort.
        path: path to request; None to connect only.
        headers: request headers.
        delay: seconds before the first try.
        period: seconds between tries.
        timeout: seconds for one try.
        failures: tries in a row after which it has failed.
        successes: tries in a row after which it has succeeded.
    """

    port: int | str
    path: str | None
    headers: tuple[tuple[str, str], ...]
    delay: float
    period: float
    timeout: float
    failures: int
    successes: int

    @classmethod
    def of(cls, container: Mapping[str, Any], name: str) -> Probe | None:
        """Return a probe of a container by its name, such as `readinessProbe`, or None if it has none."""
        probe = container.get(name)
        if not probe:
            return None
        get = probe.get("httpGet")
        headers = (get or {}).get("httpHeaders") or ()
        return cls(
            port=(get or probe["tcpSocket"])["port"],
            path=None if get is None else get.get("path") or "/",
            headers=tuple((header["name"], header["value"]) for header in headers),
            delay=float(probe.get("initialDelaySeconds") or 0),
            period=float(probe.get("periodSeconds") or 10),
            timeout=float(probe.get("timeoutSeconds") or 1),
            failures=int(probe.get("failureThreshold") or 3),
            successes=int(probe.get("successThreshold") or 1),
        )


class Unhealthy(Exception):  # noqa: N818  Kubernetes' word
    """The container must be restarted."""


class HealthWatch:
    """Health watch of one container.

    Args:
        container: container.
        ports: containerPort → port on 127.0.0.1.
        session: HTTP client.
        on_started: called once the startup probe has succeeded.
        on_ready: called with the readiness, and the reason if it is not ready, whenever it changes.
    """

    def __init__(
        self,
        container: Mapping[str, Any],
        ports: Mapping[int, int],
        session: aiohttp.ClientSession,
        on_started: Callable[[], None],
        on_ready: Callable[[bool, str], None],
    ) -> None:
        self._container = container
        self._ports = ports
        self._session = session
        self._on_started = on_started
        self._on_ready = on_ready

    async def run(self) -> None:
        """Probe until cancelled, or return if there is nothing to probe.

        Raises:
            Unhealthy: the startup or the liveness probe has failed.
        """
        startup = Probe.of(self._container, "startupProbe")
        if startup is not None:
            await self._start(startup)
        self._on_started()
        readiness = Probe.of(self._container, "readinessProbe")
        liveness = Probe.of(self._container, "livenessProbe")
        if readiness is None:
            self._on_ready(True, "")
        watches = [self._watch_readiness(readiness)] if readiness else []
        watches += [self._watch_liveness(liveness)] if liveness else []
        async with asyncio.TaskGroup() as group:
            for watch in watches:
                group.create_task(watch)

    async def _start(self, probe: Probe) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(probe.delay)
        deadline = loop.time() + probe.period * probe.failures
        while problem := await self._try(probe):
            if loop.time() > deadline:
                raise Unhealthy(f"Startup probe failed: {problem}")
            await asyncio.sleep(min(_EAGER, probe.period))

    async def _watch_readiness(self, probe: Probe) -> None:
        await asyncio.sleep(probe.delay)
        ready, successes, failures, ever = False, 0, 0, False
        while True:
            problem = await self._try(probe)
            successes, failures = (0, failures + 1) if problem else (successes + 1, 0)
            if not ready and successes >= probe.successes:
                ready = ever = True
                self._on_ready(True, "")
            elif problem and (failures >= probe.failures or not ever):
                ready = False
                self._on_ready(False, f"Readiness probe failed: {problem}")
            await asyncio.sleep(probe.period if ever else min(_EAGER, probe.period))

    async def _watch_liveness(self, probe: Probe) -> None:
        await asyncio.sleep(probe.delay)
        failures = 0
        while True:
            problem = await self._try(probe)
            failures = failures + 1 if problem else 0
            if failures >= probe.failures:
                raise Unhealthy(f"Liveness probe failed: {problem}")
            await asyncio.sleep(probe.period)

    async def _try(self, probe: Probe) -> str:
        """Return what is wrong, or ""."""
        declared = container_port(self._container, probe.port)
        if declared is None:
            return f"the container declares no port {probe.port}"
        port = self._ports[declared]
        try:
            if probe.path is None:
                async with asyncio.timeout(probe.timeout):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return ""
            async with self._session.get(
                f"http://127.0.0.1:{port}{probe.path}",
                headers=dict(probe.headers),
                timeout=aiohttp.ClientTimeout(total=probe.timeout),
                allow_redirects=False,
            ) as answer:
                return "" if 200 <= answer.status < 400 else f"HTTP status {answer.status}"
        except TimeoutError:
            return f"no answer within {probe.timeout:g} s"
        except (aiohttp.ClientConnectorError, ConnectionRefusedError):
            return f"nothing listens on 127.0.0.1:{port}, the port for containerPort {declared}"
        except (aiohttp.ClientError, OSError) as error:
            return str(error) or type(error).__name__
