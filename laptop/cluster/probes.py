"""HTTP probes of a container, in Kubernetes' order: startup, then readiness and liveness side by side.

One deviation, for the sake of people who wait: until a startup or readiness probe has succeeded once it is repeated ten
times a second. The deadline stays the declared one, periodSeconds x failureThreshold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

_EAGER = 0.1  # seconds between tries of a probe that has not succeeded yet


@dataclass(frozen=True)
class Probe:
    """An httpGet probe. Times in seconds."""

    path: str
    headers: tuple[tuple[str, str], ...]
    delay: float
    period: float
    timeout: float
    failures: int
    successes: int

    @classmethod
    def of(cls, container: dict[str, Any], name: str) -> Probe | None:
        """The probe of that name in a container, with Kubernetes' defaults, or None."""
        said = container.get(name)
        if not said:
            return None
        get = said["httpGet"]
        return cls(
            path=get.get("path") or "/",
            headers=tuple((header["name"], header["value"]) for header in get.get("httpHeaders") or ()),
            delay=float(said.get("initialDelaySeconds") or 0),
            period=float(said.get("periodSeconds") or 10),
            timeout=float(said.get("timeoutSeconds") or 1),
            failures=int(said.get("failureThreshold") or 3),
            successes=int(said.get("successThreshold") or 1),
        )


class Unhealthy(Exception):  # noqa: N818  Kubernetes' word
    """The container must be restarted."""


async def watch_health(
    container: dict[str, Any],
    port: int | None,
    session: aiohttp.ClientSession,
    on_started: Callable[[], None],
    on_ready: Callable[[bool, str], None],
) -> None:
    """Probes a container until cancelled.

    Args:
        container: its manifest.
        port: where its port is on 127.0.0.1; None for a container without ports.
        session: for the requests.
        on_started: called when the startup probe has succeeded.
        on_ready: called with whether it is ready, and why not, whenever that changes.

    Raises:
        Unhealthy: the startup or the liveness probe failed for good.
    """
    startup = Probe.of(container, "startupProbe")
    if startup is not None:
        await _start(startup, port, session)
    on_started()
    readiness = Probe.of(container, "readinessProbe")
    liveness = Probe.of(container, "livenessProbe")
    if readiness is None:
        on_ready(True, "")
    watches = [_ready(readiness, port, session, on_ready)] if readiness else []
    watches += [_alive(liveness, port, session)] if liveness else []
    async with asyncio.TaskGroup() as group:
        for watch in watches:
            group.create_task(watch)


async def _start(probe: Probe, port: int | None, session: aiohttp.ClientSession) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(probe.delay)
    deadline = loop.time() + probe.period * probe.failures
    while problem := await _ask(probe, port, session):
        if loop.time() > deadline:
            raise Unhealthy(f"Startup probe failed: {problem}")
        await asyncio.sleep(min(_EAGER, probe.period))


async def _ready(
    probe: Probe, port: int | None, session: aiohttp.ClientSession, on_ready: Callable[[bool, str], None]
) -> None:
    await asyncio.sleep(probe.delay)
    ready, successes, failures, ever = False, 0, 0, False
    while True:
        problem = await _ask(probe, port, session)
        successes, failures = (0, failures + 1) if problem else (successes + 1, 0)
        if not ready and successes >= probe.successes:
            ready = ever = True
            on_ready(True, "")
        elif problem and (failures >= probe.failures or not ever):
            ready = False
            on_ready(False, f"Readiness probe failed: {problem}")
        await asyncio.sleep(probe.period if ever else min(_EAGER, probe.period))


async def _alive(probe: Probe, port: int | None, session: aiohttp.ClientSession) -> None:
    await asyncio.sleep(probe.delay)
    failures = 0
    while True:
        problem = await _ask(probe, port, session)
        failures = failures + 1 if problem else 0
        if failures >= probe.failures:
            raise Unhealthy(f"Liveness probe failed: {problem}")
        await asyncio.sleep(probe.period)


async def _ask(probe: Probe, port: int | None, session: aiohttp.ClientSession) -> str:
    """What is wrong, or ""."""
    if port is None:
        return "the container declares no port"
    url = f"http://127.0.0.1:{port}{probe.path}"
    try:
        async with session.get(
            url,
            headers=dict(probe.headers),
            timeout=aiohttp.ClientTimeout(total=probe.timeout),
            allow_redirects=False,
        ) as answer:
            return "" if 200 <= answer.status < 400 else f"HTTP status {answer.status}"
    except TimeoutError:
        return f"no answer within {probe.timeout:g} s"
    except aiohttp.ClientError as error:
        return type(error).__name__ if not str(error) else str(error)
