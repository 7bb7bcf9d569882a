"""Server lifecycle: listen, load and verify the bundle, serve, and on SIGTERM drain and finish."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Protocol

import uvicorn

from pipelines.declarations.bundle import Bundle, GoldenPredictions
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import MlopsError
from pipelines.serving.application import Application
from pipelines.serving.http_protocol import MOST_CONNECTIONS, protocol_for, sweep
from pipelines.serving.inference_log import InferenceLog, Limits, Write
from pipelines.serving.predictor import Predictor
from pipelines.serving.request_metrics import RequestMetrics
from pipelines.serving.server_settings import ServerSettings
from pipelines.serving.shadow_receiver import ShadowReceiver
from pipelines.serving.shadow_sender import ShadowSender
from pipelines.serving.structured_log import log_to_stderr

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 75
"""Longer than a load balancer keeps an idle connection (ALB: 60 s), so it never sends into a closed one."""

OTHER_FILES = 64
"""Files that the server opens besides connections of clients: its libraries, its log, connections to S3."""

SWITCH_SECONDS = 0.0005
"""Longest time that one thread keeps the interpreter: a tenth of Python's default, as requests must not wait."""


class ServableBundle(Protocol):
    """A verified bundle."""

    @property
    def manifest(self) -> Bundle:
        """Content of `bundle.json`."""

    @property
    def files(self) -> Mapping[str, bytes]:
        """Name → content of its files."""


Load = Callable[[], ServableBundle]
"""Fetches and verifies the bundle. Raises `MlopsError` if it is missing, incomplete or unsigned."""


def run(settings: ServerSettings, load: Load, write: Write, *, limits: Limits | None = None) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: settings of the server.
        load: fetches and verifies the bundle.
        write: puts an object into the logs bucket.
        limits: limits of the inference log.

    Returns:
        The exit status: 0 after a graceful stop; 1 if the server cannot listen or the bundle is bad.
    """
    log_to_stderr()
    # The thread that answers requests must not wait for the one that writes the log.
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        listener = listen(settings.host, settings.port)
    except MlopsError as error:
        logger.error(error.what, extra={"fix": error.fix})
        return 1
    metrics = RequestMetrics(settings.model, settings.bundle, settings.pod)
    sender = receiver = None
    if settings.shadow_peers is not None:
        sender, receiver = ShadowSender(settings.shadow_peers), ShadowReceiver()
        metrics.add(sender)
        metrics.add(receiver)
    application = Application(
        settings.model,
        settings.bundle,
        metrics,
        largest_body=settings.largest_body,
        sender=sender,
        receiver=receiver,
    )
    config = server_config(
        application, finish_seconds=settings.finish_seconds, most_connections=settings.most_connections
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        return runner.run(_live(_Server(config), listener, application, metrics, settings, load, write, limits, sender))


def server_config(
    application: Application | Callable[..., object], *, finish_seconds: float, most_connections: int = MOST_CONNECTIONS
) -> uvicorn.Config:
    """Return the configuration of uvicorn; the benchmark uses it as well."""
    return uvicorn.Config(
        application,
        loop="auto",  # uvloop where available
        http=protocol_for(application, _affordable(most_connections)),
        ws="none",
        proxy_headers=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(finish_seconds)),
    )


def _affordable(most_connections: int) -> int:
    """Reduce a limit of connections to what the limit of open files leaves room for."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return most_connections
    return max(1, min(most_connections, limit - OTHER_FILES))


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, so that a taken port fails before anything slow starts.

    Raises:
        MlopsError: the address is not available, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise MlopsError(
            f"cannot listen on {host} port {port}: {error.strerror or error}",
            fix="set HOST to an address of this machine and PORT to a free port",
        ) from None
    return listener


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, which would stop accepting at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def _live(
    server: _Server,
    listener: socket.socket,
    application: Application,
    metrics: RequestMetrics,
    settings: ServerSettings,
    load: Load,
    write: Write,
    limits: Limits | None,
    sender: ShadowSender | None,
) -> int:
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: hurry.set() if stop.is_set() else stop.set())
    host, port = listener.getsockname()[:2]
    logger.info("live", extra={"host": host, "port": port, "model": settings.model, "bundle": settings.bundle})
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    sweeping = asyncio.create_task(sweep(server.server_state.connections))
    copying = asyncio.create_task(sender.run()) if sender is not None else None
    loading = _in_thread(lambda: _load(settings, load))
    status = 0
    log: InferenceLog | None = None
    try:
        await asyncio.wait((loading, stopping, serving), return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            predictor = loading.result()
            log = InferenceLog(
                write,
                predictor=predictor,
                pod=settings.pod,
                metrics=metrics,
                limits=limits,
                policy=settings.log_policy,
            )
            log.start()
            # Everything loaded so far stays; exclude it from garbage collection.
            gc.collect()
            gc.freeze()
            application.serve(predictor, log)
            logger.info("ready", extra={"model": settings.model, "bundle": settings.bundle})
            await asyncio.wait((stopping, serving), return_when=asyncio.FIRST_COMPLETED)
    except MlopsError as error:
        logger.error(error.what, extra={"fix": error.fix})
        status = 1
    except Exception:
        logger.exception("the bundle could not be loaded")
        status = 1
    application.drain()
    if status == 0 and log is not None and not serving.done():
        logger.info("draining", extra={"seconds": settings.drain_seconds})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(hurry.wait(), settings.drain_seconds)
    server.should_exit = True
    await serving
    for task in (stopping, sweeping, copying):
        if task is not None:
            task.cancel()
    if log is not None:
        await asyncio.to_thread(log.close)
    logger.info("stopped", extra={"status": status})
    return status


def _load(settings: ServerSettings, load: Load) -> Predictor:
    verified = load()
    files = verified.files
    for what, found, expected in (
        ("model", verified.manifest.model, settings.model),
        ("digest", verified.manifest.digest, settings.bundle),
    ):
        if found != expected:
            raise MlopsError(f"{what} of the bundle: expected {expected!r}, found {found!r}")
    predictor = Predictor(verified.manifest, files, most_rows=settings.most_rows)
    predictor.check_golden(parse(files["golden.json"], GoldenPredictions, Path("golden.json")))
    return predictor


def _in_thread(work: Callable[[], Predictor]) -> asyncio.Future[Predictor]:
    """Run `work` in a daemon thread, which does not delay a stop."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Predictor] = loop.create_future()

    def settle(result: Predictor | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        elif result is not None:
            future.set_result(result)

    def target() -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=target, name="load", daemon=True).start()
    return future
