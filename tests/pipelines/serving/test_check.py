"""The check that a release must pass between its traffic steps."""

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
from pipelines.serving.check import FAILED, INCONCLUSIVE, PASSED, SINGLE_ROWS, InconclusiveError, Service
from pipelines.serving.golden import single_rows
from tests.aws import emulated_account, make_environment
from tests.pipelines.serving.bundles import DIGEST, NAME, ROW, linear_bundle

Answer = tuple[int, bytes]
HALF = [value / 2 for value in ROW]
GOLDEN = GoldenPredictions(
    inputs=(Tensor(name="features", datatype="FP32", shape=(2, 10), data=tuple(ROW + HALF)),),
    outputs=(Tensor(name="variable", datatype="FP32", shape=(2, 1), data=(91.1, 45.55)),),
)


class Canary:
    """A release on trial, as far as it can be asked.

    Attributes:
        digest: what it says it serves.
        predict: row → prediction.
        asked: the bodies of the inference requests.
        instead: path → an answer in the place of the right one.
    """

    def __init__(self) -> None:
        self.digest = DIGEST
        self.predict: Callable[[list[float]], Any] = lambda row: row[0] + row[2]
        self.asked: list[dict[str, Any]] = []
        self.instead: dict[str, Answer] = {}

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
def service(canary: Canary) -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content = canary.answer(self.path, self.rfile.read(int(self.headers.get("content-length") or 0)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield Service("canary", "127.0.0.1", server.server_port)
    server.shutdown()
    thread.join()
    server.server_close()


INFER = f"/v2/models/{NAME}/infer"


def test_a_release_that_serves_its_bundle_and_predicts_as_it_must_passes(service: Service, canary: Canary) -> None:
    check.check(service, NAME, DIGEST, GOLDEN)
    shapes = [request["inputs"][0]["shape"] for request in canary.asked]
    assert shapes == [[2, 10], *[[1, 10]] * SINGLE_ROWS]
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
        (wrong_digest, "says that it serves"),
        (wrong_everywhere, "value 0: expected 91.1, found 92.1"),
        (wrong_for_one_row, "value 0: expected 91.1, found 100.2"),
        (answers(INFER, 500, b"oops"), "answers .*/infer with 500: oops"),
        (answers(INFER, 400, b"no"), "answers .*/infer with 400"),
        (answers(INFER, 200, b"{"), "does not answer .*/infer in JSON"),
        (answers(INFER, 200, b"[1]"), "answered from None"),
        (answers(INFER, 200, json.dumps({"model_version": DIGEST}).encode()), "does not give it"),
        (
            answers(INFER, 200, json.dumps({"model_version": DIGEST, "outputs": [{"name": "variable"}]}).encode()),
            "expected the shape",
        ),
        (answers(f"/v2/models/{NAME}", 404, b"unknown model"), "with 404: unknown model"),
    ],
)
def test_a_release_that_is_wrong_fails(
    service: Service, canary: Canary, wrong: Callable[[Canary], None], said: str
) -> None:
    wrong(canary)
    with pytest.raises(MlopsError, match=said) as refused:
        check.check(service, NAME, DIGEST, GOLDEN)
    assert not isinstance(refused.value, InconclusiveError)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_release_that_cannot_be_asked_is_neither_right_nor_wrong(
    service: Service, canary: Canary, status: int
) -> None:
    canary.instead[INFER] = (status, b"no pod is ready")
    with pytest.raises(InconclusiveError, match=f"with {status}"):
        check.check(service, NAME, DIGEST, GOLDEN)


def test_a_service_where_nothing_listens_cannot_be_asked() -> None:
    with pytest.raises(InconclusiveError, match="does not answer"):
        Service("canary", "127.0.0.1", 1).ask("GET", "/")


def test_the_address_comes_from_the_variables_that_kubernetes_gives() -> None:
    environ = {"FRAUD_V2_CANARY_SERVICE_HOST": "10.0.0.7", "FRAUD_V2_CANARY_SERVICE_PORT": "80"}
    assert Service.from_environ("fraud-v2-canary", environ) == Service("fraud-v2-canary", "10.0.0.7", 80)
    with pytest.raises(InconclusiveError, match="FRAUD_V2_STABLE_SERVICE_HOST"):
        Service.from_environ("fraud-v2-stable", environ)


def test_rows_taken_apart_are_the_rows_that_were_put_together() -> None:
    rows = single_rows(GOLDEN)
    assert [row.inputs[0].shape for row in rows] == [(1, 10), (1, 10)]
    assert [row.outputs[0].data for row in rows] == [(91.1,), (45.55,)]
    assert sum((row.inputs[0].data for row in rows), ()) == GOLDEN.inputs[0].data


def test_the_exit_status_tells_a_wrong_release_from_one_that_could_not_be_asked(
    service: Service, canary: Canary, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.registry import bundles

    variables = {f"{NAME.upper()}_CANARY_SERVICE_{key}": value for key, value in
                 (("HOST", service.host), ("PORT", str(service.port)))}  # fmt: skip
    with emulated_account():
        descriptor = make_environment()
        bundle = linear_bundle()
        digest = bundles.push(descriptor, bundle.manifest, bundle.files)
        asked = ["--model", NAME, "--bundle", digest]
        assert check.main(asked, variables) == INCONCLUSIVE  # nothing says which environment this is
        monkeypatch.setenv("MLOPS_ENVIRONMENT", descriptor.model_dump_json())
        canary.digest = digest
        assert check.main(asked, variables) == PASSED
        assert check.main(asked, {}) == INCONCLUSIVE
        assert check.main(["--model", NAME, "--bundle", DIGEST], variables) == FAILED  # no such bundle
        wrong_everywhere(canary)
        assert check.main(asked, variables) == FAILED
        gone = descriptor.model_copy(update={"registry_bucket": "no-such-bucket"})
        monkeypatch.setenv("MLOPS_ENVIRONMENT", gone.model_dump_json())
        assert check.main(asked, variables) == INCONCLUSIVE
    said = capsys.readouterr()
    assert said.out == f"passed: {NAME}-canary serves {digest}; 1 golden rows match, as do {SINGLE_ROWS} of one row\n"
    verdicts = [line.split(":")[0] for line in said.err.splitlines() if not line.startswith(" ")]
    assert verdicts == ["inconclusive", "inconclusive", "failed", "failed", "inconclusive"]
