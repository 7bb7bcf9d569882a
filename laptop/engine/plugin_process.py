"""Process of a Pulumi plugin: serves gRPC on a free port of 127.0.0.1 until the Pulumi CLI ends it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

MAX_MESSAGE_BYTES = 1024 * 1024 * 400
"""Maximum size of one message, as in Pulumi's own plugins."""

_PARENT_CHECK_SECONDS = 0.5
_GRACE_SECONDS = 2.0


def serve(register: Callable[[grpc.Server], None], *, workers: int = 32) -> None:
    """Serve a plugin: print its port as the first line of the standard output, then wait for the end.

    The process ends on SIGINT or SIGTERM, which the CLI sends, and when its parent has died, so that nothing stays
    after `kill -9`.

    Args:
        register: adds the services to the server.
        workers: maximum number of calls at once.
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    parent = os.getppid()
    server, port = start_server(register, workers=workers)
    print(port, flush=True)
    while os.getppid() == parent and not ended.wait(_PARENT_CHECK_SECONDS):
        pass
    server.stop(_GRACE_SECONDS).wait()
    sys.stdout.flush()


def start_server(register: Callable[[grpc.Server], None], *, workers: int = 32) -> tuple[grpc.Server, int]:
    """Start a gRPC server on a free port of 127.0.0.1; return it and the port."""
    server = grpc.server(
        ThreadPoolExecutor(workers, thread_name_prefix="plugin"),
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ],
    )
    register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port
