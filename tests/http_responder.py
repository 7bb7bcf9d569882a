"""HTTP server whose answers a test computes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, bytes] | tuple[int, bytes, int] | None
"""Status, body, and how many bytes more the header announces; None closes the connection without an answer."""


@contextmanager
def served_by(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run an HTTP server on 127.0.0.1 and yield its URL.

    Args:
        handler: answers the requests, each connection in a thread. It logs nothing.
    """
    quiet = type("Quiet", (handler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), quiet)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def http_server(answer: Callable[[str, str, bytes], Answer]) -> Iterator[str]:
    """Run an HTTP server on 127.0.0.1 and yield its URL.

    Args:
        answer: computes the answer from method, path and body.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # send head and body in one packet

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            answered = answer(self.command, self.path, body)
            if answered is None:
                self.close_connection = True
                return
            status, content, *missing = answered
            self.send_response(status)
            self.send_header("content-type", "application/json" if content[:1] in (b"{", b"[") else "text/plain")
            self.send_header("content-length", str(len(content) + sum(missing)))
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = self.close_connection or bool(missing)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one  # noqa: N815

    with served_by(Handler) as url:
        yield url
