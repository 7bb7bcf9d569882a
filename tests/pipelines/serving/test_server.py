"""Lifecycle of a server process."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.pipelines.serving.bundles import NAME
from tests.pipelines.serving.conftest import features
from tests.pipelines.serving.server_process import PATIENCE, ServerProcess, client, get

pytestmark = pytest.mark.slow

INFER = f"/v2/models/{NAME}/infer"
BODY = json.dumps(features()).encode()
HEADERS = {"Content-Type": "application/json"}


def run(folder: Path, kind: str = "good", **environ: str) -> ServerProcess:
    """Start a server with a bundle in memory; its inference log goes to `folder`."""
    return ServerProcess(["tests.pipelines.serving.in_memory_server", str(folder), kind], environ)


def head_of(length: int) -> bytes:
    """Return the headers of an inference request with a body of `length` bytes."""
    return (
        f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def logged(folder: Path) -> list[dict[str, Any]]:
    """Return every record of the inference log."""
    lines = [line for path in folder.rglob("*.jsonl") for line in path.read_bytes().splitlines()]
    return [json.loads(line) for line in lines]


class Client(threading.Thread):
    """Sends one request after another on a persistent connection, until the server stops.

    HTTP allows to resend a request whose connection closes before the first byte of a response. Any other error is a
    failure.
    """

    def __init__(self, url: str, name: str) -> None:
        super().__init__(daemon=True)
        self.address = urlsplit(url)
        self.client = name
        self.answered: list[str] = []
        self.failures: list[str] = []

    def run(self) -> None:
        """Send requests until the connection is refused."""
        connection = self._connect()
        for number in range(1_000_000):
            name = f"{self.client}-{number}"
            body = json.dumps(features() | {"id": name})
            while True:
                try:
                    connection.request("POST", INFER, body, HEADERS)
                    response = connection.getresponse()
                except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                    connection.close()
                    connection = self._connect()
                    continue
                except ConnectionRefusedError:
                    return
                break
            try:
                content = json.loads(response.read())
            except (http.client.IncompleteRead, ConnectionError, ValueError) as error:
                self.failures.append(f"{name}: {error!r}")
                return
            if response.status != 200 or content["id"] != name:
                self.failures.append(f"{name}: {response.status} {content}")
            self.answered.append(name)

    def _connect(self) -> http.client.HTTPConnection:
        assert self.address.hostname is not None
        return http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=PATIENCE)


def test_a_server_stopped_under_load_loses_no_answer_and_no_record(tmp_path: Path) -> None:
    with run(tmp_path) as server:
        url = server.url()
        server.wait_for("ready")
        clients = [Client(url, f"client{index}") for index in range(6)]
        for one in clients:
            one.start()
        deadline = time.monotonic() + PATIENCE
        while min(len(one.answered) for one in clients) < 20:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        server.terminate()
        server.wait_for("draining")
        answered_before = sum(len(one.answered) for one in clients)
        assert get(f"{url}/v2/health/ready").status_code == 503
        assert get(f"{url}/v2/health/live").status_code == 200
        assert server.status() == 0
        for one in clients:
            one.join(PATIENCE)
            assert not one.is_alive()
    assert [failure for one in clients for failure in one.failures] == []
    answered = [name for one in clients for name in one.answered]
    assert len(answered) > answered_before, "requests are answered while the server drains"
    assert sorted(record["id"] for record in logged(tmp_path)) == sorted(answered)
    assert [line["message"] for line in server.said] == ["live", "ready", "draining", "stopped"]


def test_a_request_in_flight_at_a_stop_is_answered(tmp_path: Path) -> None:
    with run(tmp_path, DRAIN_SECONDS="0") as server:
        address = urlsplit(server.url())
        server.wait_for("ready")
        with socket.create_connection((str(address.hostname), address.port), timeout=PATIENCE) as connection:
            connection.sendall(head_of(len(BODY)) + BODY[:20])
            # An answer on a second connection shows that the headers on the first were read.
            assert get(f"http://{address.netloc}/v2/health/ready").status_code == 200
            metrics = get(f"http://{address.netloc}/metrics").text
            assert "inference_requests_in_flight 1.0" in metrics
            server.terminate()
            server.wait_for("draining")
            connection.sendall(BODY[20:])
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close" in answer
        assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["outputs"]
        assert server.status() == 0
    assert len(logged(tmp_path)) == 1


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("bad-golden", r"golden\.json: output 'variable', value 0: expected 0, found 91\.09"),
        ("bad-model", r"model\.onnx cannot be loaded"),
        ("other-digest", r"digest of the bundle: expected 'sha256:f{64}', found 'sha256:[0-9a-f]{64}'"),
        ("broken-registry", r"the registry cannot be reached"),
    ],
)
def test_a_bad_bundle_stops_the_server_before_it_is_ready(tmp_path: Path, kind: str, message: str) -> None:
    with run(tmp_path, kind) as server:
        assert server.status() == 1
        error = next(line for line in server.said if line.get("level") == "error")
        assert re.search(message, error["message"])
        messages = [line.get("message") for line in server.said]
        assert "ready" not in messages
        assert not [line for line in server.said if "text" in line], "stderr holds only log lines"
        assert "Traceback" not in json.dumps(server.said)


def test_a_loading_server_is_live_but_not_ready_and_can_be_stopped(tmp_path: Path) -> None:
    with run(tmp_path, "slow") as server:
        url = server.url()
        assert get(f"{url}/v2/health/live").status_code == 200
        assert get(f"{url}/v2/health/ready").status_code == 503
        assert client.post(url + INFER, content=BODY, headers=HEADERS).status_code == 503
        server.terminate()
        assert server.status() == 0
        assert "ready" not in [line["message"] for line in server.said]


def test_a_taken_port_is_an_error_that_names_the_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with run(tmp_path, PORT=str(port)) as server:
            assert server.status() == 1
            (line,) = server.said
            assert line["message"] == f"cannot listen on 127.0.0.1 port {port}: Address already in use"
            assert line["fix"]


def test_a_failing_inference_log_does_not_stop_the_server(tmp_path: Path) -> None:
    with run(tmp_path, "failing-log") as server:
        url = server.url()
        server.wait_for("ready")
        assert client.post(url + INFER, content=BODY, headers=HEADERS).status_code == 200
        warning = server.wait_for("the inference log could not be written")
        assert warning["reason"] == "no bucket today"
        assert client.post(url + INFER, content=BODY, headers=HEADERS).status_code == 200
        assert "inference_log_write_failures_total" in get(f"{url}/metrics").text
        server.terminate()
        assert server.status() == 0


def test_broken_and_incomplete_requests_do_not_affect_the_server(tmp_path: Path) -> None:
    with run(tmp_path) as server:
        url = server.url()
        server.wait_for("ready")
        address = (str(urlsplit(url).hostname), int(urlsplit(url).port or 0))
        for sent in (b"\x16\x03\x01 this is not HTTP\r\n\r\n", head_of(500) + BODY, head_of(500)[:30], b""):
            with socket.create_connection(address, timeout=PATIENCE) as connection:
                connection.sendall(sent)
        with socket.create_connection(address, timeout=PATIENCE) as connection:
            connection.sendall(b"GET / HTTP/9.9\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
        chunked = client.post(url + INFER, content=iter([BODY[:30], BODY[30:]]), headers=HEADERS)
        assert chunked.status_code == 200
        large = client.post(url + INFER, content=b" " * (2 << 20), headers=HEADERS)
        assert large.status_code == 413
        deadline = time.monotonic() + PATIENCE
        while "inference_requests_in_flight 0.0" not in (metrics := get(f"{url}/metrics").text):
            assert time.monotonic() < deadline
        assert 'inference_requests_total{code="499"} 1.0' in metrics
        server.terminate()
        assert server.status() == 0


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        (["--bundle", "sha256:" + "0" * 64], {}, "the environment variable MLOPS_ENVIRONMENT is not set"),
        (["--bundle", "latest"], {}, "--bundle: expected sha256: and 64 hexadecimal digits, found 'latest'"),
        (
            ["--bundle", "sha256:" + "0" * 64],
            {"PORT": "http"},
            "the environment variable PORT: expected an integer from 0 to 65535, found 'http'",
        ),
    ],
)
def test_invalid_settings_are_errors_that_name_the_setting(
    arguments: list[str], environ: dict[str, str], message: str
) -> None:
    command = ["pipelines.serving", "--model", NAME, *arguments]
    with ServerProcess(command, {"MLOPS_ENVIRONMENT": "", **environ}) as server:
        assert server.status() == 1
        assert server.said[0]["text"].strip() == message
