"""HTTP client of an endpoint."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest

from pipelines.declarations.bundle import MANIFEST, BundledFile
from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.registry import bundles, store
from pipelines.serving.golden import request_of
from pipelines.serving.probe import EndpointClient, UnavailableError, golden_of, open_endpoint
from tests.aws import EmulatedAccount, make_environment
from tests.http_responder import http_server, served_by
from tests.pipelines.registry.chains import offline_environment
from tests.pipelines.serving.bundles import NAME, ROW, linear_bundle
from tests.pipelines.serving.fake_pod import DIGEST, GOLDEN, MODEL, Pod


@contextmanager
def environment(pod: Any) -> Iterator[EnvironmentDescriptor]:
    """Return an environment whose endpoint is `pod`."""
    with http_server(pod) as url:
        yield offline_environment().model_copy(update={"endpoints": {MODEL: url}})


def test_golden_predictions_are_read_from_the_bundle_without_its_model(account: EmulatedAccount) -> None:
    dev, bundle = make_environment(), linear_bundle()
    bundles.push(dev, bundle.manifest, bundle.files)
    read: list[str] = []
    get = store.get

    def get_noted(bucket: str, key: str, **options: Any) -> Any:
        read.append(key)
        return get(bucket, key, **options)

    with mock.patch.object(store, "get", get_noted):
        (asked,) = golden_of(dev, NAME, bundle.digest).inputs
    assert asked.data == tuple(ROW)
    assert {key.rpartition("/")[2] for key in read} == {MANIFEST, "golden.json"}
    broken = linear_bundle()
    files = broken.files | {"golden.json": b"{}"}
    listed = broken.manifest.files | {"golden.json": BundledFile(sha256=digest_of_bytes(b"{}"), size=2)}
    manifest = broken.manifest.model_copy(update={"files": listed})
    bundles.push(dev, manifest, files)
    with pytest.raises(MlopsError, match=r"^golden\.json"):
        golden_of(dev, NAME, manifest.digest)


def test_a_connection_that_the_server_closed_is_reopened() -> None:
    """Servers and load balancers close idle connections at any time."""
    closes = Pod(lambda n, answer: None if n in (2, 4) else answer)
    with http_server(closes) as url:
        endpoint = EndpointClient(url, MODEL)
        assert [endpoint.served() for _ in range(3)] == [DIGEST] * 3
        endpoint.close()
    assert len(closes.asked) == 5


def test_one_connection_serves_all_requests() -> None:
    ports: set[int] = set()

    with http_server(Pod()) as url:
        endpoint = EndpointClient(url, MODEL)
        for _ in range(3):
            endpoint.served()
            assert endpoint._connection.sock is not None
            ports.add(endpoint._connection.sock.getsockname()[1])
        endpoint.close()
    assert len(ports) == 1


def test_an_endpoint_without_a_listener_is_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(MlopsError, match=f"{address}/v2/models/price "):
        EndpointClient(address, MODEL).served()


def test_a_timeout_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = EndpointClient(f"http://127.0.0.1:{silent.getsockname()[1]}", MODEL, timeout=0.05)
        with pytest.raises(MlopsError, match="does not answer: timed out"):
            endpoint.served()
        endpoint.close()


def test_an_answer_that_is_not_http_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            for _ in range(2):
                peer, _ = listener.accept()
                with peer:
                    peer.recv(1000)
                    peer.sendall(b"220 mail.example.org ESMTP\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        endpoint = EndpointClient(f"http://127.0.0.1:{listener.getsockname()[1]}", MODEL, timeout=5)
        with pytest.raises(MlopsError, match="without an answer"):
            endpoint.served()
        thread.join()


def test_an_answer_over_the_limit_is_an_error() -> None:
    with (
        http_server(Pod(lambda *_: b" " * 1001)) as url,
        pytest.raises(MlopsError, match="at most 1000 bytes, found more"),
    ):
        EndpointClient(url, MODEL, largest_answer=1000).served()


def test_an_answer_at_the_limit_is_read() -> None:
    content = json.dumps({"versions": [DIGEST]}).encode()
    with http_server(Pod(lambda *_: content)) as url:
        endpoint = EndpointClient(url, MODEL, largest_answer=len(content))
        assert endpoint.served() == DIGEST
        endpoint.close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((500, b"\xff" + b"x" * 500), " answered 500: \ufffd" + "x" * 499),
        ((404, b""), " answered 404: "),
        ((201, b"{}"), " answered 201: {}"),
        ((200, b"x" * 201), ": expected a JSON object, found b'" + "x" * 200 + "'"),
    ],
)
def test_an_error_quotes_the_start_of_the_answer(answer: tuple[int, bytes], says: str) -> None:
    with http_server(lambda *_: answer) as url, pytest.raises(MlopsError) as caught:
        EndpointClient(url, MODEL).get("/v2")
    assert caught.value.what == f"{url}/v2{says}"


class Broken:
    """A connection that fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.did: list[Any] = []

    def request(self, *what: Any) -> None:
        self.did.append(what)
        raise self.error

    def close(self) -> None:
        self.did.append("closed")


class Endless:
    """A connection with an endless answer; counts the bytes that are read."""

    status = 200

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.read_bytes = 0

    def request(self, _method: str, path: str, *_: Any) -> None:
        self.asked.append(path)

    def getresponse(self) -> Endless:
        return self

    def read(self, size: int) -> bytes:
        self.read_bytes += size
        return b" " * size

    def close(self) -> None:
        pass


def test_at_most_one_byte_beyond_the_limit_is_read() -> None:
    endpoint = EndpointClient("http://models.example.org/X/", MODEL, largest_answer=1000)
    endless = endpoint._connection = Endless()  # type: ignore[assignment]
    with pytest.raises(MlopsError, match="at most 1000 bytes, found more"):
        endpoint.served()
    assert (endless.asked, endless.read_bytes) == ([f"/X/v2/models/{MODEL}"], 1001)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError("no route to host"), "does not answer: no route to host"),
        (http.client.HTTPException(), "does not answer: HTTPException"),
        (http.client.IncompleteRead(b"x", 3), "does not answer: IncompleteRead(1 bytes read, 3 more expected)"),
        (ConnectionResetError(), "ends the connection without an answer"),
        (http.client.BadStatusLine("220"), "ends the connection without an answer"),
    ],
)
def test_a_failed_connection_is_closed_and_the_reason_reported(error: Exception, says: str) -> None:
    endpoint = EndpointClient("http://models.example.org/dev", MODEL)
    broken = endpoint._connection = Broken(error)  # type: ignore[assignment]
    with pytest.raises(MlopsError) as caught:
        endpoint.infer({"inputs": []})
    assert caught.value.what == f"http://models.example.org/dev/v2/models/price/infer {says}"
    asked = ("POST", "/dev/v2/models/price/infer", b'{"inputs": []}', {"content-type": "application/json"})
    assert broken.did == [asked, "closed"] * (2 if "ends" in says else 1), "a closed connection is retried once"


def test_an_answer_over_the_limit_closes_the_connection() -> None:
    with http_server(lambda *_: (200, b" " * 100)) as url:
        endpoint = EndpointClient(url, MODEL, largest_answer=10)
        with pytest.raises(MlopsError, match="at most 10 bytes, found more"):
            endpoint.get("/")
        assert endpoint._connection.sock is None


def test_a_client_connects_to_the_host_and_port_of_its_url_with_a_timeout() -> None:
    connection = EndpointClient("http://models.example.org:8080/dev", MODEL)._connection
    assert (connection.host, connection.port, connection.timeout) == ("models.example.org", 8080, 10.0)
    assert EndpointClient("http:", MODEL)._connection.host == ""


def test_a_client_keeps_the_path_and_the_scheme_of_its_url() -> None:
    pod = Pod(lambda _, answer: {"versions": [DIGEST]})
    with http_server(
        lambda m, path, b: pod(m, path.removeprefix("/dev"), b) if path == "/dev/v2/models/price" else (404, b"")
    ) as url:
        endpoint = EndpointClient(f"{url}/dev/", MODEL)
        assert endpoint.served() == DIGEST
        endpoint.close()
    secure = EndpointClient("https://models.example.org", MODEL)
    assert (type(secure._connection).__name__, secure._connection.port) == ("HTTPSConnection", 443)


def test_a_model_without_an_endpoint_is_an_error() -> None:
    with pytest.raises(MlopsError) as caught, open_endpoint(offline_environment(), MODEL):
        pytest.fail("it connected")
    assert caught.value.what == "price has no endpoint in dev"
    assert caught.value.fix == "release a bundle there and deploy it"


def test_the_connection_is_closed_after_success_and_failure() -> None:
    missing = Pod(lambda n, answer: answer if n == 1 else (404, b""))
    with environment(missing) as dev:
        with open_endpoint(dev, MODEL) as endpoint:
            endpoint.served()
            assert endpoint._connection.sock is not None
        assert endpoint._connection.sock is None
        with pytest.raises(MlopsError, match="answered 404"), open_endpoint(dev, MODEL) as failing:
            failing.served()
        assert failing._connection.sock is None


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_error_is_not_blamed_on_the_model(status: int) -> None:
    with (
        http_server(lambda *_: (status, b"no pod is ready")) as url,
        pytest.raises(UnavailableError, match=f"{status}"),
    ):
        EndpointClient(url, MODEL).served()


@pytest.mark.parametrize("status", [400, 404, 413, 422, 500])
def test_a_server_error_is_not_an_outage(status: int) -> None:
    with http_server(lambda *_: (status, b"no")) as url, pytest.raises(MlopsError) as caught:
        EndpointClient(url, MODEL).served()
    assert not isinstance(caught.value, UnavailableError)


def test_without_keep_alive_each_request_opens_a_connection() -> None:
    with http_server(Pod()) as url:
        client = EndpointClient(url, MODEL, keep_alive=False)
        for _ in range(2):
            assert client.served() == DIGEST
            assert client._connection.sock is None


class Proxy:
    """A forward proxy that answers for every host itself; records the request lines and credentials it receives."""

    def __init__(self) -> None:
        self.pod = Pod()
        self.targets: list[str] = []
        self.hosts: list[str | None] = []
        self.credentials: list[str | None] = []

    @contextmanager
    def listening(self) -> Iterator[str]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one(self) -> None:
                proxy.targets.append(f"{self.command} {self.path}")
                proxy.hosts.append(self.headers["host"])
                proxy.credentials.append(self.headers["proxy-authorization"])
                if self.command == "CONNECT":
                    self.send_error(403, "no tunnels")
                    return
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                answered = proxy.pod(self.command, urlsplit(self.path).path, body)
                assert answered is not None
                self.send_response(answered[0])
                self.end_headers()
                self.wfile.write(answered[1])

            do_GET = do_POST = do_CONNECT = handle_one  # noqa: N815

        with served_by(Handler) as url:
            yield url.removeprefix("http://")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Start a proxy, and configure it in the environment for every host except this machine."""
    found = Proxy()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with found.listening() as address:
        monkeypatch.setenv("http_proxy", f"http://{address}")
        monkeypatch.setenv("https_proxy", f"http://{address}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        yield found


URL = "http://price-canary.models.svc"


def test_a_service_is_reached_through_the_configured_proxy(proxy: Proxy) -> None:
    client = EndpointClient(URL, MODEL, keep_alive=False)
    assert client.served() == DIGEST
    client.infer(request_of(GOLDEN))
    assert proxy.targets == [f"GET {URL}/v2/models/{MODEL}", f"POST {URL}/v2/models/{MODEL}/infer"]
    assert proxy.hosts == ["price-canary.models.svc"] * 2
    assert proxy.credentials == [None, None]


def test_proxy_credentials_are_sent_to_the_proxy(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    address = os.environ["http_proxy"].removeprefix("http://")
    monkeypatch.setenv("http_proxy", f"http://me:p%40ss@{address}")
    assert EndpointClient(URL, MODEL).served() == DIGEST
    assert proxy.credentials == ["Basic bWU6cEBzcw=="]  # me:p@ss


def test_an_https_url_is_reached_through_a_tunnel(proxy: Proxy) -> None:
    with pytest.raises(UnavailableError, match="403"):
        EndpointClient("https://models.example.org", MODEL).served()
    assert proxy.targets == ["CONNECT models.example.org:443"]


def test_a_host_listed_in_no_proxy_is_reached_directly(proxy: Proxy) -> None:
    with http_server(Pod()) as url:
        assert EndpointClient(url, MODEL).served() == DIGEST
    assert proxy.targets == []
