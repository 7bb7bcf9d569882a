from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from pipelines.declarations.bundle import BundledFile, GoldenPredictions, Tensor
from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion import endpoint as module
from pipelines.promotion.endpoint import PROBES, Endpoint, connected, golden_of, verify
from pipelines.registry import bundles, store
from pipelines.serving.golden import single_rows
from tests.aws import EmulatedAccount, make_environment
from tests.http_responder import http_server
from tests.pipelines.registry.chains import offline_environment
from tests.pipelines.serving.bundles import NAME, ROW, linear_bundle

MODEL = "price"
DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
GOLDEN = GoldenPredictions(
    inputs=(Tensor(name="x", datatype="FP32", shape=(2, 2), data=(1.0, 2.0, 3, 4.5)),),
    outputs=(
        Tensor(name="y", datatype="FP32", shape=(2, 1), data=(150, 7.5)),
        Tensor(name="label", datatype="BYTES", shape=(2, 1), data=("low", "high")),
    ),
)


class Pod:
    """What a server of the bundle answers, unless told otherwise.

    Attributes:
        asked: path and body of every request.
        changes: function of the number of the request and its answer to another answer.
    """

    def __init__(self, change: Callable[[int, Any], Any] = lambda _, answer: answer) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.change = change

    def __call__(self, _method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        self.asked.append((path, json.loads(body) if body else None))
        if path == f"/v2/models/{MODEL}":
            answer: Any = {"name": MODEL, "versions": [DIGEST]}
        else:
            (x,) = self.asked[-1][1]["inputs"]
            rows = [x["data"][i : i + 2] for i in range(0, len(x["data"]), 2)]
            golden = {(1.0, 2.0): (150.0, "low"), (3.0, 4.5): (7.5, "high")}
            found = [golden[float(a), float(b)] for a, b in rows]
            answer = {
                "model_version": DIGEST,
                "outputs": [
                    {"name": "y", "shape": [len(rows), 1], "data": [y for y, _ in found]},
                    {"name": "label", "shape": [len(rows), 1], "data": [label for _, label in found]},
                ],
            }
        answer = self.change(len(self.asked), answer)
        if answer is None or isinstance(answer, tuple):
            return answer
        return 200, answer if isinstance(answer, bytes) else json.dumps(answer).encode()


@pytest.fixture(autouse=True)
def golden(monkeypatch: pytest.MonkeyPatch) -> None:
    def golden_of_this(descriptor: EnvironmentDescriptor, model: str, digest: str) -> GoldenPredictions:
        assert (descriptor.name, model, digest) == ("dev", MODEL, DIGEST)
        return GOLDEN

    monkeypatch.setattr(module, "golden_of", golden_of_this)


@contextmanager
def environment(pod: Any) -> Iterator[EnvironmentDescriptor]:
    with http_server(pod) as url:
        yield offline_environment().model_copy(update={"endpoints": {MODEL: url}})


def test_an_endpoint_is_verified_whole_row_by_row_and_by_its_latency() -> None:
    pod = Pod()
    with environment(pod) as dev:
        found = verify(dev, MODEL, DIGEST, 1000.0)
    assert (found.bundle, found.rows, found.requests) == (DIGEST, 2, PROBES)
    assert 0 < found.median_ms <= found.p99_ms < 1000
    paths = [path for path, _ in pod.asked]
    assert paths == [f"/v2/models/{MODEL}", *[f"/v2/models/{MODEL}/infer"] * (PROBES + 1)]
    shapes = [body["inputs"][0]["shape"] for _, body in pod.asked[1:]]
    assert shapes == [[2, 2], *[[1, 2]] * PROBES]
    assert [body["inputs"][0]["data"] for _, body in pod.asked[2:4]] == [[1.0, 2.0], [3.0, 4.5]]


def test_rows_are_counted_and_not_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "golden_of", lambda *_: single_rows(GOLDEN)[0])
    with environment(Pod()) as dev:
        assert verify(dev, MODEL, DIGEST, 1000.0).rows == 1


def second_y(answer: dict[str, Any], value: Any) -> dict[str, Any]:
    answer["outputs"][0]["data"][-1] = value
    return answer


WRONG: dict[str, tuple[Callable[[int, Any], Any], str]] = {
    "it serves another bundle": (lambda n, a: {"versions": [OTHER]} if n == 1 else a, f"serves {OTHER}; expected"),
    "it serves two bundles": (lambda n, a: {"versions": [OTHER, DIGEST]} if n == 1 else a, "does not say which bundle"),
    "it does not say what it serves": (lambda n, a: {} if n == 1 else a, "does not say which bundle"),
    "the first answer comes from another bundle": (
        lambda n, a: a | {"model_version": OTHER} if n == 2 else a,
        f"answered from {OTHER}; expected {DIGEST}",
    ),
    "a later answer comes from another bundle": (
        lambda n, a: a | {"model_version": OTHER} if n == 20 else a,
        f"answered from {OTHER}; expected {DIGEST}",
    ),
    "a value of the whole batch is wrong": (lambda n, a: second_y(a, 7.6) if n == 2 else a, "expected 7.5, found 7.6"),
    "a value of a single row is wrong": (lambda n, a: second_y(a, 151.0) if n == 3 else a, "expected 150, found 151.0"),
    "a label is wrong": (
        lambda n, a: a | {"outputs": [a["outputs"][0], a["outputs"][1] | {"data": ["low", "low"]}]} if n == 2 else a,
        "expected 'high', found 'low'",
    ),
    "a value is no number": (lambda n, a: second_y(a, None) if n == 2 else a, "expected 7.5, found None"),
    "an output is missing": (lambda n, a: a | {"outputs": a.get("outputs", [])[:1]}, "the model does not give it"),
    "there are no outputs": (lambda n, a: {"model_version": DIGEST} if n > 1 else a, "the model does not give it"),
    "the outputs are no list of outputs": (
        lambda n, a: a | {"outputs": [1, "y"]} if n > 1 else a,
        "the model does not give it",
    ),
    "it answers with an error": (
        lambda n, a: (500, b'{"error":"boom"}') if n == 9 else a,
        'answered 500: {"error":"boom"}',
    ),
    "it is overloaded": (lambda n, a: (503, b"busy") if n == 2 else a, "answered 503: busy"),
    "it does not answer in JSON": (lambda n, a: b"<html>" if n == 2 else a, "did not answer with a JSON object"),
    "it answers with a list": (lambda n, a: b"[]" if n == 1 else a, "did not answer with a JSON object"),
    "it answers with what is nested without end": (
        lambda n, a: b"[" * 100_000 if n == 1 else a,
        "did not answer with a JSON object",
    ),
    "it never answers": (lambda n, a: None, "ends the connection without an answer"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_endpoint_is_refused_when(case: str) -> None:
    change, says = WRONG[case]
    with environment(Pod(change)) as dev, pytest.raises(MlopsError) as caught:
        verify(dev, MODEL, DIGEST, 1000.0)
    assert says in caught.value.what
    assert bool(caught.value.fix) == (", found " in says), "where a value differs, it is said what to do"


def test_a_value_within_the_tolerance_is_the_golden_one_even_where_that_is_a_whole_number() -> None:
    """150.0 is written 150 in canonical JSON; it stays the value of a float."""

    def a_little_off(number: int, answer: Any) -> Any:
        for output in answer.get("outputs", ())[:1]:
            output["data"] = [value * (1 + 5e-5) for value in output["data"]]
        return answer

    with environment(Pod(a_little_off)) as dev:
        assert verify(dev, MODEL, DIGEST, 1000.0).rows == 2


def test_an_endpoint_that_is_too_slow_is_refused_by_its_median(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(float(n) for n in range(1000))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock) * 0.025))
    with environment(Pod()) as dev:
        assert verify(dev, MODEL, DIGEST, 25.1).median_ms == pytest.approx(25.0)
        with pytest.raises(
            MlopsError, match=r"half of the answers of http://\S+ take 25.0 ms or more; the budget is 24"
        ):
            verify(dev, MODEL, DIGEST, 24.0)


def test_a_median_exactly_at_the_budget_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(n / 1024 for n in range(1000))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    with environment(Pod()) as dev:
        assert verify(dev, MODEL, DIGEST, 1000 / 1024).median_ms == 1000 / 1024


def test_one_slow_answer_does_not_refuse_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = [0.001] * 1000
    ticks[40] = 5.0
    clock = accumulate(ticks)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    with environment(Pod()) as dev:
        found = verify(dev, MODEL, DIGEST, 10.0)
    assert (found.median_ms, found.p99_ms) == (pytest.approx(1.0), pytest.approx(5000.0))


def test_a_bundle_without_golden_predictions_cannot_be_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = GOLDEN.model_copy(
        update={
            "inputs": tuple(t.model_copy(update={"shape": (0, 2), "data": ()}) for t in GOLDEN.inputs),
            "outputs": tuple(t.model_copy(update={"shape": (0, 1), "data": ()}) for t in GOLDEN.outputs),
        }
    )
    monkeypatch.setattr(module, "golden_of", lambda *_: empty)
    with environment(Pod()) as dev, pytest.raises(MlopsError, match="holds no golden prediction"):
        verify(dev, MODEL, DIGEST, 1000.0)


def test_what_must_be_predicted_is_read_from_the_bundle_that_must_be_served(account: EmulatedAccount) -> None:
    dev, bundle = make_environment(), linear_bundle()
    bundles.push(dev, bundle.manifest, bundle.files)
    read: list[str] = []
    get = store.get
    with mock.patch.object(store, "get", lambda b, key, **named: read.append(key) or get(b, key, **named)):
        (asked,) = golden_of(dev, NAME, bundle.digest).inputs
    assert asked.data == tuple(ROW)
    assert {key.rpartition("/")[2] for key in read} == {bundles.MANIFEST, "golden.json"}, "and not the model"
    broken = linear_bundle()
    files = broken.files | {"golden.json": b"{}"}
    listed = broken.manifest.files | {"golden.json": BundledFile(sha256=digest_of_bytes(b"{}"), size=2)}
    manifest = broken.manifest.model_copy(update={"files": listed})
    bundles.push(dev, manifest, files)
    with pytest.raises(MlopsError, match=r"^golden\.json"):
        golden_of(dev, NAME, manifest.digest)


# --- the connection ---------------------------------------------------------------------------------------------------


def test_a_kept_connection_that_the_server_closed_is_opened_again() -> None:
    """As a server or a load balancer may do at any time between two requests."""
    closes = Pod(lambda n, answer: None if n in (2, 4) else answer)
    with http_server(closes) as url:
        endpoint = Endpoint(url, MODEL)
        assert [endpoint.served() for _ in range(3)] == [DIGEST] * 3
        endpoint.close()
    assert len(closes.asked) == 5


def test_one_connection_serves_all_requests() -> None:
    ports: set[int] = set()

    class Noting(Pod):
        pass

    with http_server(Noting()) as url:
        endpoint = Endpoint(url, MODEL)
        for _ in range(3):
            endpoint.served()
            assert endpoint._connection.sock is not None
            ports.add(endpoint._connection.sock.getsockname()[1])
        endpoint.close()
    assert len(ports) == 1


def test_an_endpoint_that_is_not_there_says_so() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(MlopsError, match=f"{address}/v2/models/price "):
        Endpoint(address, MODEL).served()


def test_an_endpoint_that_does_not_answer_in_time_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = Endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}", MODEL, timeout=0.05)
        with pytest.raises(MlopsError, match="does not answer: timed out"):
            endpoint.served()
        endpoint.close()


def test_an_endpoint_that_speaks_something_else_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            for _ in range(2):
                peer, _ = listener.accept()
                with peer:
                    peer.recv(1000)
                    peer.sendall(b"220 mail.example.org ESMTP\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        endpoint = Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}", MODEL, timeout=5)
        with pytest.raises(MlopsError, match="without an answer"):
            endpoint.served()
        thread.join()


def test_an_answer_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_ANSWER", 1000)
    with (
        http_server(Pod(lambda *_: b" " * 1001)) as url,
        pytest.raises(MlopsError, match="answered more than 1000 bytes"),
    ):
        Endpoint(url, MODEL).served()


def test_an_answer_as_large_as_any_may_be_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.dumps({"versions": [DIGEST]}).encode()
    monkeypatch.setattr(module, "LARGEST_ANSWER", len(content))
    with http_server(Pod(lambda *_: content)) as url:
        endpoint = Endpoint(url, MODEL)
        assert endpoint.served() == DIGEST
        endpoint.close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((500, b"\xff" + b"x" * 500), " answered 500: \ufffd" + "x" * 499),
        ((404, b""), " answered 404: "),
        ((201, b"{}"), " answered 201: {}"),
        ((200, b"x" * 201), " did not answer with a JSON object: b'" + "x" * 200 + "'"),
    ],
)
def test_of_an_answer_that_is_none_the_beginning_is_told(answer: tuple[int, bytes], says: str) -> None:
    with http_server(lambda *_: answer) as url, pytest.raises(MlopsError) as caught:
        Endpoint(url, MODEL).get("/v2")
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
    """A connection whose answer has no end, of which it counts what is read."""

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


def test_of_an_answer_without_end_one_byte_too_many_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_ANSWER", 1000)
    endpoint = Endpoint("http://models.example.org/X/", MODEL)
    endless = endpoint._connection = Endless()  # type: ignore[assignment]
    with pytest.raises(MlopsError, match="answered more than 1000 bytes"):
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
def test_a_connection_that_fails_is_closed_and_says_why(error: Exception, says: str) -> None:
    endpoint = Endpoint("http://models.example.org/dev", MODEL)
    broken = endpoint._connection = Broken(error)  # type: ignore[assignment]
    with pytest.raises(MlopsError) as caught:
        endpoint.infer({"inputs": []})
    assert caught.value.what == f"http://models.example.org/dev/v2/models/price/infer {says}"
    asked = ("POST", "/dev/v2/models/price/infer", b'{"inputs": []}', {"content-type": "application/json"})
    assert broken.did == [asked, "closed"] * (2 if "ends" in says else 1), "a connection that ended is tried once more"


def test_an_answer_without_end_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_ANSWER", 10)
    with http_server(lambda *_: (200, b" " * 100)) as url:
        endpoint = Endpoint(url, MODEL)
        with pytest.raises(MlopsError, match="answered more than 10 bytes"):
            endpoint.get("/")
        assert endpoint._connection.sock is None


def test_an_address_says_where_to_connect_and_nothing_waits_for_ever() -> None:
    connection = Endpoint("http://models.example.org:8080/dev", MODEL)._connection
    assert (connection.host, connection.port, connection.timeout) == ("models.example.org", 8080, 10.0)
    assert Endpoint("http:", MODEL)._connection.host == ""


def test_a_path_in_the_address_is_kept_and_https_is_spoken_where_it_says_so() -> None:
    pod = Pod(lambda _, answer: {"versions": [DIGEST]})
    with http_server(
        lambda m, path, b: pod(m, path.removeprefix("/dev"), b) if path == "/dev/v2/models/price" else (404, b"")
    ) as url:
        endpoint = Endpoint(f"{url}/dev/", MODEL)
        assert endpoint.served() == DIGEST
        endpoint.close()
    secure = Endpoint("https://models.example.org", MODEL)
    assert (type(secure._connection).__name__, secure._connection.port) == ("HTTPSConnection", 443)


def test_a_model_without_an_endpoint_is_an_error() -> None:
    with pytest.raises(MlopsError) as caught, connected(offline_environment(), MODEL):
        pytest.fail("it connected")
    assert caught.value.what == "price has no endpoint in dev"
    assert caught.value.fix == "release a bundle there and deploy it"


def test_a_connection_is_closed_however_its_use_ends() -> None:
    missing = Pod(lambda n, answer: answer if n == 1 else (404, b""))
    with environment(missing) as dev:
        with connected(dev, MODEL) as endpoint:
            endpoint.served()
            assert endpoint._connection.sock is not None
        assert endpoint._connection.sock is None
        with pytest.raises(MlopsError, match="answered 404"), connected(dev, MODEL) as failing:
            failing.served()
        assert failing._connection.sock is None
