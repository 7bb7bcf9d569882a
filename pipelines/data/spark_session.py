"""Session on a Spark Connect server: the one that SPARK_REMOTE names, or a Sail server that ends with the session."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pipelines.data.sail_process import find_sail
from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession

REMOTE = "SPARK_REMOTE"
"""Environment variable of Spark: address of a Spark Connect server, `sc://host:port`."""

LONGEST_START = 60.0
"""Seconds that a server of this machine may take to listen."""

_STARTS = 3
"""Times that a server is started: another program may take its port first."""


@contextmanager
def open_spark() -> Iterator[SparkSession]:
    """Open a session on the server that SPARK_REMOTE names; without it, on a new one of this machine.

    Raises:
        MlopsError: the client or the server is not installed, or the server does not answer.
    """
    try:
        with warnings.catch_warnings(), _named_main_module():
            warnings.simplefilter("ignore", FutureWarning)  # of pandas 3, of which no data frame is made here
            from pyspark.errors import PySparkException
            from pyspark.sql.connect.session import SparkSession
    except ImportError as error:
        raise MlopsError(
            f"the distributed engine is not installed: {error}",
            fix="install requirements/spark.txt: make spark",
        ) from None
    remote = os.environ.get(REMOTE, "")
    if remote:
        with _session(SparkSession, remote, PySparkException) as session:
            yield session
        return
    with run_sail() as address, _session(SparkSession, address, PySparkException) as session:
        yield session


@contextmanager
def _named_main_module() -> Iterator[None]:
    """Give the main module a file while the client is imported, if it has none.

    The client takes such a process, as `python -c` starts it, for a run of its doctests, and ends it.
    """
    main = sys.modules["__main__"]
    if hasattr(main, "__file__"):
        yield
        return
    main.__file__ = "<unknown>"
    try:
        yield
    finally:
        del main.__file__


@contextmanager
def _session(kind: type[SparkSession], remote: str, failure: type[Exception]) -> Iterator[SparkSession]:
    from grpc import RpcError

    try:
        session = kind.builder.remote(remote).create()
        session.client.set_retry_policies([_patience()])
        session.conf.set("spark.sql.session.timeZone", "UTC")
    except (failure, RpcError, OSError) as error:
        raise MlopsError(
            f"the Spark server {remote} does not answer: {_first_line(error)}",
            fix=f"check {REMOTE}: expected sc://host:port of a Spark Connect server (Spark 4, or Sail)",
        ) from None
    try:
        yield session
    except (failure, RpcError) as error:
        raise MlopsError(
            f"the Spark server {remote} stopped the work: {_first_line(error)}",
            fix="try again, if a worker ended: its part is lost. Or look at the server's log: it must be able to start "
            "workers, to read the files in the lake bucket, and to run Python of this version",
        ) from error
    finally:
        # `stop` of a session on a Sail server can wait forever. A server forgets idle sessions.
        with suppress(Exception):
            session.client.close()


def _patience() -> Any:
    """Return how often the client asks a server that does not answer: for about a minute, not for ten."""
    from pyspark.sql.connect.client.retries import DefaultPolicy

    return DefaultPolicy(max_retries=9, max_backoff=10_000, max_server_retry_delay=10_000)


def _first_line(error: BaseException) -> str:
    details = getattr(error, "details", None)  # of an error of gRPC; its text is many lines
    text = str(details() if callable(details) else error).strip() or type(error).__name__
    return text.splitlines()[0][:500]


@contextmanager
def run_sail(**settings: str) -> Iterator[str]:
    """Run a Sail server on 127.0.0.1, which ends with the block and with this process.

    Args:
        settings: more environment variables of the server, such as SAIL_MODE.

    Yields:
        Its address, `sc://127.0.0.1:port`.

    Raises:
        MlopsError: it is not installed, or does not start.
    """
    if find_sail() is None:
        raise MlopsError(
            f"{REMOTE} is not set, and no server is installed: expected the program sail, found none",
            fix=f"install one (make spark), or set {REMOTE} to sc://host:port",
        )
    problem = ""
    for _ in range(_STARTS):
        port = _free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.data.sail_process", "127.0.0.1", str(port)],
            env={**os.environ, "RUST_LOG": "error", **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None,
            start_new_session=True,  # Ctrl-C ends this program first, and it ends the server
        )
        try:
            problem = _wait_for(process, port)
            if not problem:
                yield f"sc://127.0.0.1:{port}"
                return
        finally:
            process.kill()
            process.wait()
    raise MlopsError(f"the Sail server of this machine does not start: {problem}", fix="see its messages above")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(process: subprocess.Popen[bytes], port: int) -> str:
    """Wait until a server listens; return why it does not, or "" if it does."""
    deadline = time.monotonic() + LONGEST_START
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return ""
        try:
            return f"it ended with exit code {process.wait(0.05)}"
        except subprocess.TimeoutExpired:
            continue
    return f"it does not listen after {LONGEST_START:.0f} seconds"


def send_by_value(*modules: str) -> None:
    """Send the functions of modules to workers with each query, so that workers need no code of this project."""
    from pyspark import cloudpickle

    for name in modules:
        cloudpickle.register_pickle_by_value(importlib.import_module(name))
