"""Verification of an endpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.cluster.load_balancer import NotYetError
from pipelines.declarations.bundle import GoldenPredictions
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion import verify as module
from pipelines.promotion.verify import PROBES, verify
from pipelines.serving import golden as replay
from pipelines.serving.golden import request_of, single_rows
from pipelines.serving.probe import EndpointClient, UnavailableError
from tests.http_responder import http_server
from tests.pipelines.promotion.direct_pods import open_direct_pods
from tests.pipelines.registry.chains import offline_environment
from tests.pipelines.serving.fake_pod import DIGEST, GOLDEN, MODEL, OTHER, Pod


@pytest.fixture(autouse=True)
def golden(monkeypatch: pytest.MonkeyPatch) -> None:
    def golden_of_this(descriptor: EnvironmentDescriptor, model: str, digest: str) -> GoldenPredictions:
        assert (descriptor.name, model, digest) == ("dev", MODEL, DIGEST)
        return GOLDEN

    monkeypatch.setattr(module, "golden_of", golden_of_this)


@pytest.fixture(autouse=True)
def without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "open_pods", open_direct_pods)
    monkeypatch.setattr(module, "is_ready_pod", lambda *_: True)
    monkeypatch.setattr(module, "await_load_balancer", lambda *_: None)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)


@contextmanager
def environment(pod: Any) -> Iterator[EnvironmentDescriptor]:
    with http_server(pod) as url:
        yield offline_environment().model_copy(update={"endpoints": {MODEL: url}})


def test_a_verification_sends_the_golden_request_and_then_single_rows() -> None:
    pod = Pod()
    with environment(pod) as dev:
        found = verify(dev, MODEL, DIGEST, 1000.0)
    assert (found.bundle, found.pods, found.rows, found.requests) == (DIGEST, 1, 2, PROBES)
    assert 0 < found.median_ms <= found.p99_ms <= 1
    paths = [path for path, _ in pod.asked]
    assert paths == [f"/v2/models/{MODEL}", *[f"/v2/models/{MODEL}/infer"] * (PROBES + 1)]
    shapes = [body["inputs"][0]["shape"] for _, body in pod.asked[1:]]
    assert shapes == [[2, 2], *[[1, 2]] * PROBES]
    assert [body["inputs"][0]["data"] for _, body in pod.asked[2:4]] == [[1.0, 2.0], [3.0, 4.5]]


def test_a_pod_that_does_not_answer_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 60.0)
    lines: list[str] = []
    with environment(Pod(lambda n, a: (503, b"starting") if n < 4 else a)) as dev:
        assert verify(dev, MODEL, DIGEST, 1000.0, lines.append).rows == 2
    (line,) = lines
    assert "answered 503: starting" in line


def test_the_load_balancer_is_waited_for_before_any_pod_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(namespace: str, model: str, region: str, log: Any) -> None:
        raise NotYetError(f"{namespace} {model} {region}")

    monkeypatch.setattr(module, "await_load_balancer", late)
    pod = Pod()
    with environment(pod) as dev, pytest.raises(NotYetError, match=f"{dev.namespace} {MODEL} {dev.region}"):
        verify(dev, MODEL, DIGEST, 1000.0)
    assert pod.asked == []


def test_a_verification_counts_golden_rows_not_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "golden_of", lambda *_: single_rows(GOLDEN)[0])
    with environment(Pod()) as dev:
        assert verify(dev, MODEL, DIGEST, 1000.0).rows == 1


def second_y(answer: dict[str, Any], value: Any) -> dict[str, Any]:
    answer["outputs"][0]["data"][-1] = value
    return answer


WRONG: dict[str, tuple[Callable[[int, Any], Any], str]] = {
    "it serves another bundle": (
        lambda n, a: {"versions": [OTHER]} if n == 1 else a,
        f"serves: expected {DIGEST}, found {OTHER}",
    ),
    "it serves two bundles": (
        lambda n, a: {"versions": [OTHER, DIGEST]} if n == 1 else a,
        "expected one bundle, found",
    ),
    "it does not say what it serves": (lambda n, a: {} if n == 1 else a, "expected one bundle, found"),
    "the first answer comes from another bundle": (
        lambda n, a: a | {"model_version": OTHER} if n == 2 else a,
        f"bundle that answers: expected {DIGEST}, found {OTHER}",
    ),
    "a later answer comes from another bundle": (
        lambda n, a: a | {"model_version": OTHER} if n == 20 else a,
        f"bundle that answers: expected {DIGEST}, found {OTHER}",
    ),
    "a value of the whole batch is wrong": (lambda n, a: second_y(a, 7.6) if n == 2 else a, "expected 7.5, found 7.6"),
    "a value of a single row is wrong": (lambda n, a: second_y(a, 151.0) if n == 3 else a, "expected 150, found 151.0"),
    "a label is wrong": (
        lambda n, a: a | {"outputs": [a["outputs"][0], a["outputs"][1] | {"data": ["low", "low"]}]} if n == 2 else a,
        "expected 'high', found 'low'",
    ),
    "a value is not a number": (lambda n, a: second_y(a, None) if n == 2 else a, "expected 7.5, found None"),
    "an output is missing": (lambda n, a: a | {"outputs": a.get("outputs", [])[:1]}, "the model does not return it"),
    "there are no outputs": (lambda n, a: {"model_version": DIGEST} if n > 1 else a, "the model does not return it"),
    "the outputs are not a list of outputs": (
        lambda n, a: a | {"outputs": [1, "y"]} if n > 1 else a,
        "the model does not return it",
    ),
    "it answers with an error": (
        lambda n, a: (500, b'{"error":"boom"}') if n == 9 else a,
        'answered 500: {"error":"boom"}',
    ),
    "it is overloaded": (lambda n, a: (503, b"busy") if n == 2 else a, "answered 503: busy"),
    "it does not answer in JSON": (lambda n, a: b"<html>" if n == 2 else a, ": expected a JSON object, found"),
    "it answers with a list": (lambda n, a: b"[]" if n == 1 else a, ": expected a JSON object, found"),
    "it answers with deeply nested JSON": (
        lambda n, a: b"[" * 100_000 if n == 1 else a,
        ": expected a JSON object, found",
    ),
    "it never answers": (lambda n, a: None, "ends the connection without an answer"),
}


@pytest.mark.parametrize("case", WRONG)
def test_verification_fails_when(case: str) -> None:
    change, says = WRONG[case]
    with environment(Pod(change)) as dev, pytest.raises(MlopsError) as caught:
        verify(dev, MODEL, DIGEST, 1000.0)
    assert says in caught.value.what
    assert bool(caught.value.fix) == (", value " in caught.value.what), "only a differing value has a fix"


def test_the_tolerance_applies_to_golden_values_that_are_whole_numbers() -> None:
    """Canonical JSON writes the float 150.0 as 150."""

    def a_little_off(number: int, answer: Any) -> Any:
        for output in answer.get("outputs", ())[:1]:
            output["data"] = [value * (1 + 5e-5) for value in output["data"]]
        return answer

    with environment(Pod(a_little_off)) as dev:
        assert verify(dev, MODEL, DIGEST, 1000.0).rows == 2


def test_verification_fails_when_the_median_latency_in_the_server_exceeds_the_budget() -> None:
    with environment(Pod(seconds=[0.025])) as dev:
        assert verify(dev, MODEL, DIGEST, 25.0).median_ms <= 25
    with (
        environment(Pod(seconds=[0.025])) as dev,
        pytest.raises(MlopsError, match=r"median latency of \S+: expected at most 10 ms, found 17\.5 ms"),
    ):
        verify(dev, MODEL, DIGEST, 10.0)


def test_a_slow_network_does_not_fail_a_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(replay, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    with environment(Pod()) as dev:
        assert verify(dev, MODEL, DIGEST, 5.0).median_ms <= 1


def test_one_slow_answer_does_not_fail_a_verification() -> None:
    with environment(Pod(seconds=[0.001, 2.5, 0.001])) as dev:
        found = verify(dev, MODEL, DIGEST, 10.0)
    assert found.median_ms <= 1
    assert found.p99_ms > 1000


def many_pods(*pods: Any) -> Any:
    """Stand in for `open_pods`: pods at these URLs."""

    @contextmanager
    def opened(_descriptor: EnvironmentDescriptor, model: str) -> Iterator[list[EndpointClient]]:
        clients = [EndpointClient(url, model) for url in pods]
        yield clients
        for client in clients:
            client.close()

    return opened


def test_every_pod_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = Pod(seconds=[0.009]), Pod(lambda n, a: {"versions": [OTHER]} if n == 1 else a)
    dev = offline_environment()
    with http_server(good) as first, http_server(Pod()) as second, http_server(bad) as third:
        monkeypatch.setattr(module, "open_pods", many_pods(first, second))
        found = verify(dev, MODEL, DIGEST, 1000.0)
        assert (found.pods, found.requests) == (2, 2 * PROBES)
        assert found.median_ms > 5, "the latency is that of the slowest pod"
        monkeypatch.setattr(module, "open_pods", many_pods(first, third))
        with pytest.raises(MlopsError, match=f"bundle that {third} serves: expected {DIGEST}, found {OTHER}"):
            verify(dev, MODEL, DIGEST, 1000.0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_pod_that_is_removed_meanwhile_is_left_out_but_not_the_only_one(
    monkeypatch: pytest.MonkeyPatch, order: tuple[int, int]
) -> None:
    dev = offline_environment()
    with http_server(Pod()) as url:
        both = (url, "http://127.0.0.1:9")
        monkeypatch.setattr(module, "open_pods", many_pods(*(both[n] for n in order)))
        with pytest.raises(UnavailableError):
            verify(dev, MODEL, DIGEST, 1000.0)
        monkeypatch.setattr(module, "is_ready_pod", lambda *_: False)
        assert verify(dev, MODEL, DIGEST, 1000.0).pods == 1
        monkeypatch.setattr(module, "open_pods", many_pods("http://127.0.0.1:9"))
        with pytest.raises(UnavailableError):
            verify(dev, MODEL, DIGEST, 1000.0)


def test_a_server_that_restarts_meanwhile_fails_the_verification() -> None:
    pod, other = Pod(), Pod()
    pod(*("POST", f"/v2/models/{MODEL}/infer", json.dumps(request_of(GOLDEN)).encode()))
    asked: list[str] = []

    def restarted(method: str, path: str, body: bytes) -> Any:
        asked.append(path)
        return (pod if asked.count("/metrics") < 2 else other)(method, path, body)

    with environment(restarted) as dev, pytest.raises(MlopsError, match="the server restarted while it was verified"):
        verify(dev, MODEL, DIGEST, 1000.0)


@pytest.mark.parametrize(
    ("metrics", "says"), [(b"{{{", "not in the Prometheus text format"), (b"up 1\n", "have no histogram")]
)
def test_a_server_without_metrics_cannot_be_verified(metrics: bytes, says: str) -> None:
    pod = Pod()

    def answer(method: str, path: str, body: bytes) -> Any:
        return (200, metrics) if path == "/metrics" else pod(method, path, body)

    with environment(answer) as dev, pytest.raises(MlopsError, match=says):
        verify(dev, MODEL, DIGEST, 1000.0)


def test_a_bundle_without_golden_predictions_cannot_be_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = GOLDEN.model_copy(
        update={
            "inputs": tuple(t.model_copy(update={"shape": (0, 2), "data": ()}) for t in GOLDEN.inputs),
            "outputs": tuple(t.model_copy(update={"shape": (0, 1), "data": ()}) for t in GOLDEN.outputs),
        }
    )
    monkeypatch.setattr(module, "golden_of", lambda *_: empty)
    with environment(Pod()) as dev, pytest.raises(MlopsError, match="has no golden predictions"):
        verify(dev, MODEL, DIGEST, 1000.0)
