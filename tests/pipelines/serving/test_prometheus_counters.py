"""Counters of a release, read from Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from pipelines.declarations.canary_settings import AUTHORIZATION_VARIABLE, CanaryBounds, CanarySettings
from pipelines.declarations.environment import Prometheus, SecretKey
from pipelines.declarations.errors import MlopsError
from pipelines.serving import check
from pipelines.serving.pod_counters import UnreadableMetricsError, read_metrics
from pipelines.serving.prediction_counts import bin_edges
from pipelines.serving.probe import UnavailableError
from pipelines.serving.prometheus_counters import (
    PrometheusCounters,
    counters_query,
    open_prometheus,
    read_processes,
)
from pipelines.serving.request_metrics import RequestMetrics
from tests.pipelines.serving.bundles import DIGEST, NAME

CANARY, LIVE = "6d5f8b7c9", "7f9c6b5d4"
PROMETHEUS = shutil.which("prometheus")
SCRAPED_WITHIN = 60.0


def process(release: str, number: int = 0) -> str:
    """Return the name of a server process, as the server makes it of the name of its pod."""
    return f"{NAME}-{release}-x{number}y2z-0a1b2c"


def server(release: str, number: int = 0, requests: int = 0, errors: int = 0) -> RequestMetrics:
    metrics = RequestMetrics(NAME, DIGEST, process(release, number))
    metrics.predictions.expect(1e6, bin_edges(1.0, 1.0))
    answer(metrics, requests, errors)
    return metrics


def answer(metrics: RequestMetrics, requests: int, errors: int = 0) -> None:
    for number in range(requests):
        metrics.answered(500 if number < errors else 200, 0.001)
        metrics.predictions.add(float(number % 3))


def text(metrics: RequestMetrics) -> str:
    return metrics.exposition()[1].decode()


class FakePrometheus:
    """Answers the query for the counters of a release from the metrics of servers.

    Args:
        servers: the servers that it scrapes.
    """

    def __init__(self, *servers: RequestMetrics) -> None:
        self.servers = list(servers)
        self.labels: list[dict[str, str]] = [{}]
        self.jobs: dict[str, str] = {}  # process → scrape job that has found it

    def __call__(self, expression: str) -> dict[str, Any]:
        names = re.compile(re.search(r'__name__=~"([^"]+)"', expression)[1])  # type: ignore[index]
        wanted = re.compile(re.search(r'process=~"([^"]+)"', expression)[1])  # type: ignore[index]
        job = re.search(r'process=~"[^"]+",job="([^"]+)"}', expression)
        result = []
        for index, one in enumerate(self.servers):
            samples = [sample for family in text_string_to_metric_families(text(one)) for sample in family.samples]
            (about,) = (sample for sample in samples if sample.name == "inference_bundle_info")
            found_by = self.jobs.get(about.labels["process"], "models")
            if not wanted.fullmatch(about.labels["process"]) or (job is not None and job[1] != found_by):
                continue
            for more in self.labels:
                scraped = {"job": found_by, "instance": f"10.0.0.{index}:8080", **more}
                result += [
                    {"metric": {"__name__": sample.name, **sample.labels, **scraped}, "value": [1.5, str(sample.value)]}
                    for sample in samples
                    if names.fullmatch(sample.name)
                ]
        return {"status": "success", "data": {"resultType": "vector", "result": result}}


def counters(query: Callable[[str], Mapping[str, Any]], release: str = CANARY) -> PrometheusCounters:
    return PrometheusCounters(query, NAME, release, 0.02)


def test_the_same_counts_are_read_as_from_the_pod() -> None:
    one = server(CANARY, requests=50, errors=3)
    found = read_processes(FakePrometheus(one)(counters_query(NAME, CANARY)), 0.02)
    name, totals = read_metrics(text(one), 0.02)
    assert found == {name: totals}
    assert (totals.requests, totals.errors, totals.distribution.total) == (50, 3, 50)
    assert len(totals.distribution.edges) > 20


def test_only_pods_of_the_release_count_and_from_the_first_look_on() -> None:
    pods = [server(CANARY, 1, requests=100), server(CANARY, 2), server(LIVE, 3, requests=500)]
    made = counters(FakePrometheus(*pods))
    made.look()
    assert made.totals.requests == 0
    for pod in pods:
        answer(pod, 10, errors=1)
    made.look()
    assert (made.totals.requests, made.totals.errors) == (20, 2)


def test_a_pod_of_another_scrape_job_cannot_pretend_to_be_one_of_the_release() -> None:
    """A pod exposes what it likes, so also the name of a process of the canary; the label `job` is of Prometheus."""
    real, false = server(CANARY, 1), server(CANARY, 2)
    prometheus = FakePrometheus(real, false)
    prometheus.jobs = {process(CANARY, 2): "another"}
    made = PrometheusCounters(prometheus, NAME, CANARY, 0.02, "models")
    made.look()
    answer(real, 10)
    answer(false, 1000, errors=1000)
    made.look()
    assert (made.totals.requests, made.totals.errors) == (10, 0)
    with pytest.raises(ValidationError):
        Prometheus(url="https://a", job='models"} or up{job="')


def test_a_pod_that_is_gone_keeps_its_last_figures_and_a_new_process_begins_at_its_first_look() -> None:
    old, restarted = server(CANARY, 1), server(CANARY, 2, requests=7)
    prometheus = FakePrometheus(old)
    made = counters(prometheus)
    made.look()
    answer(old, 10)
    made.look()
    prometheus.servers = [restarted]
    made.look()
    answer(restarted, 5)
    made.look()
    assert made.totals.requests == 15


def test_a_pod_that_two_replicas_of_prometheus_scrape_counts_once() -> None:
    pod = server(CANARY)
    prometheus = FakePrometheus(pod)
    prometheus.labels = [{"replica": "a"}, {"replica": "b"}]
    made = counters(prometheus)
    made.look()
    answer(pod, 10)
    made.look()
    assert made.totals.requests == 10


def test_missing_metrics_are_a_problem_and_no_count() -> None:
    prometheus = FakePrometheus(server(LIVE, requests=10))
    made = counters(prometheus)
    made.look()
    assert made.problem == f"Prometheus has no metrics of pods {NAME}-{CANARY}-…"
    prometheus.servers.append(server(CANARY))
    made.look()
    assert (made.problem, made.totals.requests) == ("", 0)


def test_a_query_that_fails_keeps_the_figures_and_says_why() -> None:
    pod = server(CANARY)
    prometheus: Any = FakePrometheus(pod)
    made = PrometheusCounters(lambda expression: prometheus(expression), NAME, CANARY, 0.02)
    made.look()
    answer(pod, 4)
    made.look()

    def fails(_: str) -> dict[str, Any]:
        raise MlopsError("Prometheus answered 503")

    prometheus = fails
    made.look()
    assert (made.problem, made.totals.requests) == ("Prometheus answered 503", 4)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"status": "error", "error": "out of memory"},
        {"status": "success", "data": {"resultType": "scalar", "result": [1, "1"]}},
        {"status": "success", "data": {"resultType": "vector", "result": [{}]}},
        {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "1"]}]}},
        {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {"__name__": "a"}, "value": 1}]}},
        {
            "status": "success",
            "data": {"resultType": "vector", "result": [{"metric": {"__name__": "up"}, "value": [1, "NaN"]}]},
        },
    ],
)
def test_other_answers_are_refused(content: dict[str, Any]) -> None:
    with pytest.raises(UnreadableMetricsError, match="expected"):
        read_processes(content, 0.02)


@pytest.mark.parametrize("release", ["", "{{args.canary-hash}}", 'a"} or up{a="', "A"])
def test_a_hash_that_is_none_is_never_part_of_a_query(release: str) -> None:
    with pytest.raises(UnavailableError, match="hash of the pod template: expected letters and digits"):
        counters_query(NAME, release)


# --- the HTTP API -----------------------------------------------------------------------------------------------------


@contextmanager
def serving(respond: Callable[[BaseHTTPRequestHandler], tuple[int, bytes]]) -> Iterator[str]:
    """Serve HTTP on loopback during the block, and return the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content = respond(self)
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None: ...

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"127.0.0.1:{made.server_address[1]}"
    finally:
        made.shutdown()
        made.server_close()


def test_the_api_is_asked_with_the_declared_header(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str | None]] = []

    def respond(request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        seen.append((request.path, request.headers["authorization"]))
        return 200, b'{"status": "success"}'

    secret = SecretKey(secret="prometheus", key="authorization")
    with serving(respond) as address:
        # HTTPS is required where it is declared; here the header is what counts.
        declared = Prometheus.model_construct(
            url=f"http://{address}/prefix", authorization=secret, certificate_authority=None, pod_port=None
        )
        query = open_prometheus(declared, {AUTHORIZATION_VARIABLE: "Bearer abc\n"}, 5.0)
        assert query('up{a="b c"}') == {"status": "success"}
        for value in ("", "Bearer a\r\nx: y", "Bearer \u00e9"):
            with pytest.raises(UnavailableError, match="authorization of the Secret prometheus: expected the header"):
                open_prometheus(declared, {AUTHORIZATION_VARIABLE: value}, 5.0)
    assert seen == [("/prefix/api/v1/query?query=up%7Ba%3D%22b+c%22%7D", "Bearer abc")]


def test_a_refusal_says_what_prometheus_says() -> None:
    with serving(lambda _: (422, b'{"status": "error", "error": "many-to-many matching not allowed"}')) as address:
        made = counters(open_prometheus(Prometheus(url=f"http://{address}"), {}, 5.0))
        made.look()
    assert made.problem.startswith(f"Prometheus: http://{address}/api/v1/query answered 422: ")
    assert "many-to-many matching not allowed" in made.problem
    made.look()
    assert made.problem == f"Prometheus: http://{address}/api/v1/query ends the connection without an answer"


def test_a_certificate_authority_that_is_none_is_an_error() -> None:
    declared = Prometheus(url="https://a", certificate_authority="-----BEGIN CERTIFICATE-----\nx\n")
    with pytest.raises(UnavailableError, match="certificate_authority of Prometheus: expected certificates in PEM"):
        open_prometheus(declared, {}, 5.0)


# --- the check --------------------------------------------------------------------------------------------------------


def trial(**changes: Any) -> check.CanaryTrial:
    bounds = CanaryBounds(error_rate=0.01, p99_ms=20, error_increase=0.1, prediction_shift=1.0)
    settings = CanarySettings(fail_if="failed", bounds=bounds, prometheus=Prometheus(url="http://127.0.0.1:1"))
    values: dict[str, Any] = {
        "model": NAME,
        "bundle": DIGEST,
        "canary": "http://c",
        "live": "http://l",
        "settings": settings,
        "hashes": (CANARY, LIVE),
    }
    return check.CanaryTrial(**{**values, **changes})


def test_the_pods_are_not_asked_if_a_prometheus_is_declared() -> None:
    canary, live = check.open_counters(trial())
    assert isinstance(canary, PrometheusCounters)
    assert isinstance(live, PrometheusCounters)
    assert (canary.pod_hash, live.pod_hash) == (CANARY, LIVE)
    with pytest.raises(UnavailableError, match="hash of the pod template"):
        check.open_counters(trial(hashes=(CANARY, "")))


def test_a_prometheus_that_does_not_answer_leaves_a_canary_without_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_answer_golden", lambda *_: 2)
    says: list[str] = []
    found = check.examine(trial(), check.Clock(now=lambda: 0.0, sleep=lambda _: None), says.append)
    assert found.outcome == "inconclusive"
    assert "http://127.0.0.1:1/api/v1/query" in found.reason
    assert "without an answer" in found.reason
    assert any("without an answer" in line for line in says)


# --- a real Prometheus ------------------------------------------------------------------------------------------------


def certificates(folder: Path) -> str:
    """Write a certificate for 127.0.0.1 and its key, signed by itself, and return it as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "prometheus")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    (folder / "tls.crt").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tls.key").write_bytes(private)
    return pem.decode()


@contextmanager
def prometheus(folder: Path, targets: list[str]) -> Iterator[Prometheus]:
    """Run a Prometheus with TLS that scrapes some targets every second, and return how to reach it."""
    assert PROMETHEUS is not None
    authority = certificates(folder)
    jobs = [{"job_name": "models", "static_configs": [{"targets": targets}]}]
    config = {"global": {"scrape_interval": "1s", "external_labels": {"cluster": "c"}}, "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    web = {"tls_server_config": {"cert_file": "tls.crt", "key_file": "tls.key"}}
    (folder / "web.yml").write_text(json.dumps(web))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [PROMETHEUS, "--config.file=prometheus.yml", "--web.config.file=web.yml", "--storage.tsdb.path=data"]
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], cwd=folder, stdout=log, stderr=log
        )
        try:
            yield Prometheus(url=f"https://127.0.0.1:{port}", certificate_authority=authority)
        finally:
            running.terminate()
            running.wait(30)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SCRAPED_WITHIN
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not on the PATH")
def test_a_real_prometheus_tells_a_bad_canary_from_the_live_pods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods = [server(CANARY, 1), server(LIVE, 2, requests=50), server(LIVE, 3)]
    with (
        serving(lambda _: (200, text(pods[0]).encode())) as first,
        serving(lambda _: (200, text(pods[1]).encode())) as second,
        serving(lambda _: (200, text(pods[2]).encode())) as third,
        prometheus(tmp_path, [first, second, third]) as declared,
    ):
        settings = trial().settings.model_copy(update={"prometheus": declared})
        made = check.open_counters(trial(settings=settings))

        def all_scraped() -> bool:
            for one in made:
                one.look()
            return not any(one.problem for one in made) and len(made[1]._counted._last) == 2  # type: ignore[attr-defined]

        wait_for(all_scraped)
        assert [one.totals.requests for one in made] == [0, 0]
        answer(pods[0], 80, errors=30)
        answer(pods[1], 40)
        answer(pods[2], 40)

        def all_counted() -> bool:
            for one in made:
                one.look()
            return [one.totals.requests for one in made] == [80, 80]

        wait_for(all_counted)
        assert [one.totals.errors for one in made] == [30, 0]
        assert [one.totals.distribution.total for one in made] == [80, 80]
        monkeypatch.setattr(check, "_answer_golden", lambda *_: 2)
        ticks = iter(range(10_000))

        def more(_: float) -> None:
            answer(pods[0], 40, errors=20)
            answer(pods[1], 40)
            time.sleep(0.2)

        clock = check.Clock(now=lambda: float(next(ticks)), sleep=more)
        found = check.examine(trial(settings=settings, seconds=300.0), clock, lambda _: None)
        assert found.outcome == "failed"
        assert "worse than the live pods" in found.reason
        untrusted = declared.model_copy(update={"certificate_authority": None})
        other = counters(open_prometheus(untrusted, {}, 5.0))
        other.look()
        assert "certificate" in other.problem
