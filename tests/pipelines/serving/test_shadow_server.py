"""A server process copies the requests of its clients to a canary while the canary check runs."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pipelines.declarations.shadow_traffic import SHADOW_PEERS, ShadowPeers, ShadowTarget
from pipelines.serving.shadow_beacon import serve_beacon
from pipelines.serving.shadow_protocol import LIVE_ANSWER, SHADOW_PATH, TAKEN, AnswerFigures
from tests.pipelines.serving.bundles import ROW
from tests.pipelines.serving.server_process import PATIENCE
from tests.pipelines.serving.test_server import BODY, head_of, run

pytestmark = pytest.mark.slow


class Canary(ThreadingHTTPServer):
    """Takes copies, and records them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.taken: list[tuple[str, AnswerFigures, bytes]] = []
        self.first = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """Handler of one connection."""

    protocol_version = "HTTP/1.1"
    server: Canary

    def do_POST(self) -> None:
        live = AnswerFigures.from_header(self.headers[LIVE_ANSWER.decode()].encode())
        self.server.taken.append((self.path, live, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(TAKEN)
        self.send_header("content-length", "0")
        self.end_headers()
        self.server.first.set()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def canary() -> Iterator[Canary]:
    with Canary() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_requests_on_a_persistent_connection_are_copied(
    tmp_path: Path, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    nobody = "http://127.0.0.1:1"
    with serve_beacon(ShadowTarget(canary="ping", percent=50), "127.0.0.1", 0) as port:
        peers = ShadowPeers(
            beacon=f"http://127.0.0.1:{port}", ping=f"http://127.0.0.1:{canary.server_port}", pong=nobody
        )
        with run(tmp_path, **{SHADOW_PEERS: peers.model_dump_json()}) as server:
            address = urlsplit(server.url())
            server.wait_for("ready")
            sent = 0
            with socket.create_connection((str(address.hostname), address.port), PATIENCE) as connection:
                while not canary.first.wait(0.02):
                    sent += 1
                    assert sent < PATIENCE / 0.02, "nothing was copied"
                    connection.sendall(head_of(len(BODY)) + BODY)  # in one piece, as most clients do
                    answer = http.client.HTTPResponse(connection)
                    answer.begin()
                    assert json.load(answer)["outputs"][0]["data"] == [pytest.approx(ROW[0] + ROW[2])]
            server.terminate()
            assert server.status() == 0
    path, live, body = canary.taken[0]
    assert (path, body) == (SHADOW_PATH, BODY)
    assert live.status == 200 and live.prediction == pytest.approx(ROW[0] + ROW[2])
