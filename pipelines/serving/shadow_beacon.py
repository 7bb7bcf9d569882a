"""The beacon of a shadow step: while the canary check runs, it tells live pods where to send copies of requests."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from pipelines.declarations.shadow_traffic import ShadowTarget
from pipelines.serving.probe import UnavailableError

_SLOW_SECONDS = 5.0


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Forget a client that left."""


@contextmanager
def serve_beacon(target: ShadowTarget, host: str, port: int) -> Iterator[int]:
    """Answer live pods that ask, until the block ends; yield the port.

    Args:
        target: where to send copies.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.

    Raises:
        UnavailableError: the address or the port is not available.
    """
    content = target.model_dump_json().encode()

    class Handler(BaseHTTPRequestHandler):
        timeout = _SLOW_SECONDS

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing: the output of the check is its verdict."""

    class Server(_Server):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        server = Server((host, port), Handler)
    except OSError as error:
        raise UnavailableError(
            f"cannot listen on {host} port {port}: {error.strerror or error}",
            fix="run the check from the AnalysisTemplate of the model",
        ) from None
    with server:
        thread = threading.Thread(target=server.serve_forever, name="beacon", daemon=True)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()
