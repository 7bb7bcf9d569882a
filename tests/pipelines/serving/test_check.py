"""Canary check between the traffic steps of a rollout."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipelines.declarations.bundle import GoldenPredictions, Tensor
from pipelines.declarations.errors import MlopsError
from pipelines.serving import check
from pipelines.serving.check import FAILED, INCONCLUSIVE, PASSED, SINGLE_ROW_REQUESTS, canary_url
from pipelines.serving.golden import single_rows
from pipelines.serving.probe import UnavailableError
from tests.aws import emulated_account, make_environment
from tests.pipelines.serving.bundles import DIGEST, NAME, ROW, linear_bundle

Answer = tuple[int, bytes]
HALF = [value / 2 for value in ROW]
GOLDEN = GoldenPredictions(
    inputs=(Tensor(name="features", datatype="FP32", shape=(2, 10), data=tuple(ROW + HALF)),),
    outputs=(Tensor(name="variable", datatype="FP32", shape=(2, 1), data=(91.1, 45.55)),),
)


class Canary:
    """A fake release on trial.

    Attributes:
        digest: of the bundle that it reports.
        predict: row → prediction.
        asked: bodies of the inference requests.
        instead: path → an answer to send instead of the right one.
        clients: addresses of the connections.
    """

    def __init__(self) -> None:
        self.digest = DIGEST
        self.predict: Callable[[list[float]], Any] = lambda row: row[0] + row[2]
        self.asked: list[dict[str, Any]] = []
        self.instead: dict[str, Answer] = {}
        self.clients: set[tuple[str, int]] = set()

    def answer(self, path: str, body: bytes) -> Answer:
        if path in self.instead:
            return self.instead[path]
        if path == f"/v2/models/{NAME}":
            return 200, json.dumps({"name": NAME, "versions": [self.digest]}).encode()
        request = json.loads(body)
        self.asked.append(request)
        (tensor,) = request["inputs"]
        rows = [tensor["data"][start : start + 10] for start in range(0, len(tensor["data"]), 10)]
        output = {
            "name": "variable",
            "datatype": "FP32",
            "shape": [len(rows), 1],
            "data": list(map(self.predict, rows)),
        }
        return 200, json.dumps({"model_version": self.digest, "outputs": [output]}).encode()


@pytest.fixture
def canary() -> Canary:
    return Canary()


@pytest.fixture
def url(canary: Canary) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            canary.clients.add(self.client_address)
            status, content = canary.answer(self.path, self.rfile.read(int(self.headers.get("content-length") or 0)))
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


INFER = f"/v2/models/{NAME}/infer"


def test_a_release_that_reproduces_its_golden_predictions_passes(url: str, canary: Canary) -> None:
    check.check(url, NAME, DIGEST, GOLDEN)
    shapes = [request["inputs"][0]["shape"] for request in canary.asked]
    assert shapes == [[2, 10], *[[1, 10]] * SINGLE_ROW_REQUESTS]
    assert [request["inputs"][0]["data"] for request in canary.asked[1:3]] == [ROW, HALF]


def wrong_digest(canary: Canary) -> None:
    canary.digest = "sha256:" + "f" * 64


def wrong_everywhere(canary: Canary) -> None:
    canary.predict = lambda row: row[0] + row[2] + 1


def wrong_for_one_row(canary: Canary) -> None:
    canary.predict = lambda row: (row[0] + row[2]) * (1 if len(canary.asked) == 1 else 1.1)


def answers(path: str, status: int, content: bytes) -> Callable[[Canary], None]:
    def instead(canary: Canary) -> None:
        canary.instead[path] = (status, content)

    return instead


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (wrong_digest, "bundle that http://.* serves: expected sha256:0{64}, found sha256:f{64}"),
        (wrong_everywhere, "value 0: expected 91.1, found 92.1"),
        (wrong_for_one_row, "value 0: expected 91.1, found 100.2"),
        (answers(INFER, 500, b"oops"), "/infer answered 500: oops"),
        (answers(INFER, 400, b"no"), "/infer answered 400"),
        (answers(INFER, 200, b"{"), "/infer: expected a JSON object, found b'{'"),
        (answers(INFER, 200, b"[1]"), "/infer: expected a JSON object"),
        (answers(INFER, 200, b"{}"), "bundle that answers: expected sha256:0{64}, found None"),
        (answers(INFER, 200, json.dumps({"model_version": DIGEST}).encode()), "does not return it"),
        (
            answers(INFER, 200, json.dumps({"model_version": DIGEST, "outputs": [{"name": "variable"}]}).encode()),
            "expected the shape",
        ),
        (answers(f"/v2/models/{NAME}", 404, b"unknown model"), "answered 404: unknown model"),
    ],
)
def test_a_wrong_release_fails(url: str, canary: Canary, wrong: Callable[[Canary], None], said: str) -> None:
    wrong(canary)
    with pytest.raises(MlopsError, match=said) as refused:
        check.check(url, NAME, DIGEST, GOLDEN)
    assert not isinstance(refused.value, UnavailableError)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_error_is_inconclusive(url: str, canary: Canary, status: int) -> None:
    canary.instead[INFER] = (status, b"no pod is ready")
    with pytest.raises(UnavailableError, match=f"answered {status}"):
        check.check(url, NAME, DIGEST, GOLDEN)


def test_a_service_without_a_listener_is_inconclusive() -> None:
    with pytest.raises(UnavailableError, match=r"ends the connection|does not answer"):
        check.check("http://127.0.0.1:1", NAME, DIGEST, GOLDEN)


def test_each_request_opens_a_connection_that_may_reach_another_pod(url: str, canary: Canary) -> None:
    check.check(url, NAME, DIGEST, GOLDEN)
    assert len(canary.clients) == SINGLE_ROW_REQUESTS + 2


@pytest.mark.parametrize("text", ["", "canary", "ftp://canary", "http://", "http:///v2"])
def test_a_url_that_is_not_http_is_inconclusive(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--model", NAME, "--bundle", DIGEST, "--live", "ping"]
    assert check.main(asked, {"CHECK_PONG_URL": text}) == INCONCLUSIVE
    assert f"CHECK_PONG_URL: expected an http URL, found {text!r}" in capsys.readouterr().err


def test_the_pods_on_trial_are_behind_the_other_service() -> None:
    urls = {"CHECK_PING_URL": "http://ping", "CHECK_PONG_URL": "http://pong"}
    assert (canary_url(urls, "ping"), canary_url(urls, "pong")) == ("http://pong", "http://ping")
    for unknown in ("", "{{args.live}}"):
        with pytest.raises(UnavailableError, match="expected ping or pong"):
            canary_url(urls, unknown)


def test_single_rows_add_up_to_the_golden_request() -> None:
    rows = single_rows(GOLDEN)
    assert [row.inputs[0].shape for row in rows] == [(1, 10), (1, 10)]
    assert [row.outputs[0].data for row in rows] == [(91.1,), (45.55,)]
    assert sum((row.inputs[0].data for row in rows), ()) == GOLDEN.inputs[0].data


def test_the_exit_status_distinguishes_failed_from_inconclusive(
    url: str, canary: Canary, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.registry import bundles

    with emulated_account():
        descriptor = make_environment()
        bundle = linear_bundle()
        digest = bundles.push(descriptor, bundle.manifest, bundle.files)
        variables = {"CHECK_PING_URL": url}
        asked = ["--model", NAME, "--live", "pong", "--bundle", digest]
        assert check.main(asked, variables) == INCONCLUSIVE  # no environment is described
        monkeypatch.setenv("MLOPS_ENVIRONMENT", descriptor.model_dump_json())
        canary.digest = digest
        assert check.main(asked, variables) == PASSED
        assert check.main(asked, {"CHECK_PING_URL": "http://127.0.0.1:1"}) == INCONCLUSIVE
        assert check.main([*asked[:-1], DIGEST], variables) == FAILED  # no such bundle
        wrong_everywhere(canary)
        assert check.main(asked, variables) == FAILED
        gone = descriptor.model_copy(update={"registry_bucket": "no-such-bucket"})
        monkeypatch.setenv("MLOPS_ENVIRONMENT", gone.model_dump_json())
        assert check.main(asked, variables) == INCONCLUSIVE
    said = capsys.readouterr()
    assert said.out == (
        f"passed: {url} serves {digest}; 1 golden rows match, and {SINGLE_ROW_REQUESTS} requests of one row\n"
    )
    verdicts = [line.split(":")[0] for line in said.err.splitlines() if not line.startswith(" ")]
    assert verdicts == ["inconclusive", "inconclusive", "failed", "failed", "inconclusive"]
