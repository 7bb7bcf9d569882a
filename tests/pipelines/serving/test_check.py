"""Canary check between the traffic steps of a rollout."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.declarations.bundle import GoldenPredictions, Tensor
from pipelines.declarations.canary_settings import CanaryBounds, CanarySettings
from pipelines.declarations.errors import MlopsError
from pipelines.serving import check
from pipelines.serving.canary_analysis import CanaryVerdict, RequestTotals
from pipelines.serving.check import FAILED, INCONCLUSIVE, SINGLE_ROW_REQUESTS, Clock, service_urls
from pipelines.serving.golden import CHECK_REQUEST, single_rows
from pipelines.serving.pod_counters import ServiceCounters
from pipelines.serving.prediction_counts import bin_edges
from pipelines.serving.probe import UnavailableError
from pipelines.serving.request_metrics import RequestMetrics
from pipelines.serving.sequential_tests import Moments
from tests.aws import emulated_account, make_environment
from tests.pipelines.serving.bundles import DIGEST, NAME, ROW, linear_bundle
from tests.pipelines.serving.conftest import Served, features, row, served

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


BOUNDS = CanaryBounds(error_rate=0.01, p99_ms=20, error_increase=0.1, prediction_shift=1)


class FakeTime:
    """A clock that moves only when something sleeps.

    Attributes:
        at: seconds since the start.
        on_sleep: called with each duration.
    """

    def __init__(self) -> None:
        self.at = 0.0
        self.on_sleep: Callable[[], None] = lambda: None

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.at += seconds
        self.on_sleep()

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.at, self.sleep)


@pytest.fixture
def now() -> FakeTime:
    return FakeTime()


def variables(
    fail_if: str, canary: str, *, seconds: int = 0, live: str = "http://127.0.0.1:1", **more: Any
) -> dict[str, str]:
    """Return the variables of a check whose canary is behind `ping`."""
    settings = CanarySettings(fail_if=fail_if, bounds=BOUNDS, **more)  # type: ignore[arg-type]
    return {
        "CHECK_PING_URL": canary,
        "CHECK_PONG_URL": live,
        "CHECK_SETTINGS": settings.model_dump_json(),
        "CHECK_SECONDS": str(seconds),
    }


@pytest.mark.parametrize("text", ["", "canary", "ftp://canary", "http://", "http:///v2"])
def test_a_url_that_is_not_http_is_inconclusive(text: str, now: FakeTime, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--model", NAME, "--bundle", DIGEST, "--live", "pong"]
    assert check.main(asked, variables("inconclusive", text), now.clock) == INCONCLUSIVE
    assert check.main(asked, variables("failed", text), now.clock) == 0
    assert f"CHECK_PING_URL: expected an http URL, found {text!r}" in capsys.readouterr().out


def test_the_pods_on_trial_are_behind_the_other_service() -> None:
    urls = {"CHECK_PING_URL": "http://ping", "CHECK_PONG_URL": "http://pong"}
    assert service_urls(urls, "ping") == ("http://pong", "http://ping")
    assert service_urls(urls, "pong") == ("http://ping", "http://pong")
    for unknown in ("", "{{args.live}}"):
        with pytest.raises(UnavailableError, match="expected ping or pong"):
            service_urls(urls, unknown)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"CHECK_SETTINGS": ""}, "CHECK_SETTINGS"),
        ({"CHECK_SETTINGS": '{"fail_if": "never"}'}, "fail_if"),
        ({"CHECK_SECONDS": "{{args.seconds}}"}, "CHECK_SECONDS: expected seconds, found '{{args.seconds}}'"),
    ],
)
def test_settings_that_cannot_be_read_are_inconclusive(
    changed: dict[str, str], said: str, now: FakeTime, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--model", NAME, "--bundle", DIGEST, "--live", "pong"]
    given = {**variables("inconclusive", "http://127.0.0.1:1"), **changed}
    assert check.main(asked, given, now.clock) == INCONCLUSIVE
    printed = capsys.readouterr().out
    assert printed.startswith("inconclusive: ")
    assert said in printed


def test_golden_requests_have_the_id_that_monitors_leave_out(url: str, canary: Canary) -> None:
    check.check(url, NAME, DIGEST, GOLDEN)
    assert {request["id"] for request in canary.asked} == {CHECK_REQUEST}


def test_single_rows_add_up_to_the_golden_request() -> None:
    rows = single_rows(GOLDEN)
    assert [row.inputs[0].shape for row in rows] == [(1, 10), (1, 10)]
    assert [row.outputs[0].data for row in rows] == [(91.1,), (45.55,)]
    assert sum((row.inputs[0].data for row in rows), ()) == GOLDEN.inputs[0].data


def test_each_exit_status_reports_one_outcome(
    url: str, canary: Canary, now: FakeTime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.registry import bundles

    def statuses(digest: str, address: str) -> tuple[int, int]:
        asked = ["--model", NAME, "--live", "pong", "--bundle", digest]
        harm = check.main(asked, variables("failed", address), now.clock)
        return harm, check.main(asked, variables("inconclusive", address, golden_only=True), now.clock)

    monkeypatch.setattr(check, "GOLDEN_SECONDS", check.LOOK_SECONDS)
    with emulated_account():
        descriptor = make_environment()
        bundle = linear_bundle()
        digest = bundles.push(descriptor, bundle.manifest, bundle.files)
        assert statuses(digest, url) == (0, INCONCLUSIVE), "no environment is described"
        monkeypatch.setenv("MLOPS_ENVIRONMENT", descriptor.model_dump_json())
        canary.digest = digest
        assert statuses(digest, url) == (0, 0), "golden requests suffice if the environment says so"
        assert statuses(digest, "http://127.0.0.1:1") == (0, INCONCLUSIVE)
        assert statuses(DIGEST, url) == (FAILED, INCONCLUSIVE), "no such bundle"
        wrong_everywhere(canary)
        assert statuses(digest, url) == (FAILED, INCONCLUSIVE)
        gone = descriptor.model_copy(update={"registry_bucket": "no-such-bucket"})
        monkeypatch.setenv("MLOPS_ENVIRONMENT", gone.model_dump_json())
        assert statuses(digest, url) == (0, INCONCLUSIVE)
    printed = capsys.readouterr().out
    said = [line.split(":")[0] for line in printed.splitlines() if line.startswith(("passed", "failed", "incon"))]
    pairs = ("inconclusive", "inconclusive"), ("inconclusive", "passed"), ("inconclusive",) * 2
    assert said == [*(word for pair in pairs for word in pair), *["failed"] * 4, *["inconclusive"] * 2]
    assert "1 golden rows match" in printed


def test_a_canary_that_does_not_answer_is_asked_until_it_does(
    url: str, canary: Canary, now: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "read_golden", lambda *_: GOLDEN)
    canary.instead[INFER] = (503, b"no pod is ready")
    asked = ["--model", NAME, "--live", "pong", "--bundle", DIGEST]
    assert check.main(asked, variables("inconclusive", url, golden_only=True), now.clock) == INCONCLUSIVE
    assert now.at == pytest.approx(check.GOLDEN_SECONDS, abs=check.LOOK_SECONDS)

    now.on_sleep = canary.instead.clear
    assert check.main(asked, variables("inconclusive", url, golden_only=True), now.clock) == 0


def test_the_golden_predictions_of_the_live_bundle_say_how_much_predictions_vary(
    url: str, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary.digest = "sha256:" + "a" * 64
    monkeypatch.setattr(check, "read_golden", lambda model, digest: {(NAME, canary.digest): GOLDEN}[model, digest])
    settings = CanarySettings(fail_if="failed", bounds=BOUNDS)
    trial = check.CanaryTrial(model=NAME, bundle=DIGEST, canary="http://127.0.0.1:1", live=url, settings=settings)
    said: list[str] = []
    assert check.live_deviation(trial, said.append) == pytest.approx(45.55 / 2**0.5) and said == []
    assert check.live_deviation(replace(trial, live="http://127.0.0.1:1"), said.append) == 0.0
    assert said[0].startswith("golden predictions of the live bundle: ")


def test_callers_that_repeat_one_request_do_not_stop_a_good_canary(
    url: str, now: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions = (
        Moments(500, 500 * 91.3, 500 * 91.3**2 + 20),
        Moments(5_000, 5_000 * 91.1, 5_000 * 91.1**2),
    )
    seen = [
        SimpleNamespace(totals=RequestTotals(requests=int(each.count), predictions=each), problem="", look=lambda: None)
        for each in predictions
    ]
    monkeypatch.setattr(check, "read_golden", lambda *_: GOLDEN)
    monkeypatch.setattr(check, "open_counters", lambda _: seen)
    settings = CanarySettings(fail_if="failed", bounds=BOUNDS)
    trial = check.CanaryTrial(model=NAME, bundle=DIGEST, canary=url, live=url, settings=settings)
    result = check.examine(trial, now.clock, lambda line: None)
    assert result.outcome == "passed", result


def test_an_unexpected_error_of_the_check_is_not_the_fault_of_the_canary(
    url: str, now: FakeTime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "read_golden", lambda *_: {}["missing"])
    asked = ["--model", NAME, "--live", "pong", "--bundle", DIGEST]
    assert check.main(asked, variables("failed", url), now.clock) == 0
    assert check.main(asked, variables("inconclusive", url), now.clock) == INCONCLUSIVE
    assert "KeyError" in capsys.readouterr().out


def test_the_job_that_reports_no_verdict_leaves_a_bad_canary_to_the_other_one(
    url: str, canary: Canary, now: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it ended first, the rollout would pause and not abort."""
    monkeypatch.setattr(check, "read_golden", lambda *_: GOLDEN)
    wrong_everywhere(canary)
    asked = ["--model", NAME, "--live", "pong", "--bundle", DIGEST]
    assert check.main(asked, variables("failed", url, seconds=300), now.clock) == FAILED
    assert now.at == 0
    assert check.main(asked, variables("inconclusive", url, seconds=300, wait_seconds=60), now.clock) == INCONCLUSIVE
    assert now.at == 360


def test_the_other_job_has_time_to_get_a_node_even_in_a_short_step(
    url: str, canary: Canary, now: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job that reports no verdict has found harm; the pod of the one that aborts the rollout still waits."""
    monkeypatch.setattr(check, "read_golden", lambda *_: GOLDEN)
    wrong_everywhere(canary)
    asked = ["--model", NAME, "--live", "pong", "--bundle", DIGEST]
    assert check.main(asked, variables("inconclusive", url, golden_only=True), now.clock) == INCONCLUSIVE
    assert now.at >= 180  # most nodes join within a minute or two, and then pull an image


class Traffic:
    """Metrics of the pods behind two Services, with more requests after each sleep.

    Attributes:
        errors: share of failed requests of the canary.
        per_look: requests to the canary between two looks.
        total: requests to the canary so far.
        squeeze: by how much less the predictions of the canary vary, around the same mean.
    """

    def __init__(self, now: FakeTime, errors: float, per_look: int) -> None:
        self.errors, self.per_look, self.total = errors, per_look, 0
        self.squeeze = 1.0
        self._arms = {arm: (RequestMetrics(NAME, DIGEST, arm), [0, 0]) for arm in ("canary", "live")}
        now.on_sleep = self.more

    def more(self) -> None:
        self.total += self.per_look

    def metrics(self, arm: str) -> str:
        metrics, answered = self._arms[arm]
        wanted = round(self.total * self.errors) if arm == "canary" else 0
        for index, (status, number) in enumerate(((200, self.total - wanted), (500, wanted))):
            while answered[index] < number:
                answered[index] += 1
                metrics.answered(status, 0.001)
                metrics.predictions.add(3 + (answered[index] % 7 - 3) / (self.squeeze if arm == "canary" else 1))
        return metrics.exposition()[1].decode()


def compared(traffic: Traffic, seconds: int, wait: int) -> tuple[check.CanaryTrial, ServiceCounters, ServiceCounters]:
    """Return a trial, and the counters of the canary and of the live pods."""
    canary, live = (
        ServiceCounters(lambda arm=arm: traffic.metrics(arm), 0.02)  # type: ignore[misc]
        for arm in ("canary", "live")
    )
    settings = CanarySettings(fail_if="failed", wait_seconds=wait, bounds=BOUNDS)
    trial = check.CanaryTrial(
        model=NAME, bundle=DIGEST, canary="http://c", live="http://l", settings=settings, seconds=seconds
    )
    return trial, canary, live


def watched(
    now: FakeTime, traffic: Traffic, *, seconds: int = 60, wait: int = 0, says: list[str] | None = None
) -> CanaryVerdict:
    trial, canary, live = compared(traffic, seconds, wait)
    said = says if says is not None else []
    return check.watch(canary, live, trial, 0.0, now.clock, said.append)


@pytest.mark.parametrize(
    ("errors", "per_look", "begins"),
    [
        (0.3, 20, "failed: http://c is worse than the live pods after "),
        (0.0, 200, "passed: http://c is not worse than the live pods after "),
        (0.0, 1, "inconclusive: no verdict yet: "),
    ],
)
def test_the_reason_of_a_result_is_a_sentence(now: FakeTime, errors: float, per_look: int, begins: str) -> None:
    trial, canary, live = compared(Traffic(now, errors, per_look), 10, 0)
    verdict = check.watch(canary, live, trial, 0.0, now.clock, lambda _: None)
    assert str(check.result_of(trial, canary, live, verdict)).startswith(begins)


def test_a_canary_that_errs_is_stopped_long_before_its_time_is_over(now: FakeTime) -> None:
    says: list[str] = []
    verdict = watched(now, Traffic(now, 0.3, 20), seconds=900, says=says)
    assert verdict.outcome == "failed"
    assert now.at <= 10
    assert any(line.startswith("errors: canary 30 %, live 0 %; bound 1 %; e-value ") for line in says)


def with_bins(traffic: Traffic) -> Traffic:
    """Let both sides count predictions in bins."""
    for metrics, _ in traffic._arms.values():
        metrics.predictions.expect(1e6, bin_edges(3.0, 2.0))
    return traffic


def test_a_canary_with_the_same_mean_and_another_spread_is_stopped(now: FakeTime) -> None:
    says: list[str] = []
    traffic = with_bins(Traffic(now, 0.0, 40))
    traffic.squeeze = 1000.0
    verdict = watched(now, traffic, seconds=900, says=says)
    assert verdict.outcome == "failed"
    assert "distribution: canary differs by " in verdict.summary
    assert now.at <= 20


@pytest.mark.parametrize(("slope", "outcome"), [(0.01, "failed"), (3.0, "failed"), (1.0, "passed")])
def test_servers_count_what_tells_a_canary_with_another_spread(slope: float, outcome: str, now: FakeTime) -> None:
    pods = {"canary": served(linear_bundle(slope=slope)), "live": served(linear_bundle())}
    canary, live = (
        ServiceCounters(lambda name=name: metrics_of(pods[name], name), 5.0)  # type: ignore[misc]
        for name in pods
    )

    def ask_both() -> None:
        for age in range(39, 80):
            for pod in pods.values():
                assert pod.infer(features(row(age=age))).status == 200

    now.on_sleep = ask_both
    settings = CanarySettings(fail_if="failed", bounds=BOUNDS)
    trial = check.CanaryTrial(
        model=NAME, bundle=DIGEST, canary="http://c", live="http://l", settings=settings, seconds=20
    )
    verdict = check.watch(canary, live, trial, 0.0, now.clock, lambda _: None)
    for pod in pods.values():
        pod.log.close()
    assert verdict.outcome == outcome
    assert [finding.metric for finding in verdict.findings if finding.is_harm] == ["distribution"] * (slope != 1.0)


def metrics_of(pod: Served, process: str) -> str:
    """Return the metrics of a served model, as those of a process."""
    return pod.metrics.exposition()[1].decode().replace('process=""', f'process="{process}"')


def test_live_pods_without_bins_are_said_not_to_be_compared(now: FakeTime) -> None:
    says: list[str] = []
    traffic = Traffic(now, 0.0, 200)
    traffic.squeeze = 1000.0
    verdict = watched(now, traffic, seconds=10, says=says)
    assert verdict.outcome == "passed"
    assert any(line.startswith("distribution: the canary count") for line in says)
    now.at = 0
    assert watched(now, with_bins(Traffic(now, 0.0, 200)), seconds=10).summary.endswith("to the live pods")


def test_a_good_canary_keeps_its_weight_for_the_declared_time(now: FakeTime) -> None:
    verdict = watched(now, Traffic(now, 0.0, 200), seconds=10, wait=600)
    assert (verdict.outcome, now.at) == ("passed", 10)


def test_a_verdict_is_awaited_only_as_long_as_declared(now: FakeTime) -> None:
    says: list[str] = []
    verdict = watched(now, Traffic(now, 0.0, 1), seconds=6, wait=4, says=says)
    assert (verdict.outcome, now.at) == ("inconclusive", 10)
    assert "more are needed" in verdict.summary
    now.at = 0
    slow = watched(now, Traffic(now, 0.0, 20), seconds=4, wait=600)
    assert slow.outcome == "passed"
    assert 4 < now.at < 60, "it ends as soon as there are enough requests"


def test_requests_before_the_check_do_not_count(now: FakeTime) -> None:
    traffic = Traffic(now, 1.0, 0)
    traffic.total = 1_000
    verdict = watched(now, traffic, seconds=10)
    assert (verdict.outcome, verdict.requests) == ("inconclusive", 0)
    assert verdict.summary == "no verdict yet: 0 requests to the canary and 0 to the live pods; both need some"
