"""The inference log writes every record or counts its loss, and never delays a request."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pipelines.declarations.bundle import GoldenPredictions
from pipelines.declarations.inference_logging import LogPolicy
from pipelines.serving.golden import CHECK_REQUEST, request_of, single_rows
from pipelines.serving.inference_log import OVERHEAD, InferenceLog, Limits
from pipelines.serving.predictor import InferenceResult, Predictor
from pipelines.serving.request_counts import count_of
from pipelines.serving.request_metrics import RequestMetrics
from tests.pipelines.serving.bundles import NAME, ROW, MadeBundle, classifier_bundle, linear_bundle, mixed_bundle
from tests.pipelines.serving.conftest import Serve, Served, features, mixture, row

MODEL = Predictor(linear_bundle().manifest, linear_bundle().files)
BODY = json.dumps(features()).encode()
NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z


def answer(name: bytes = b"one") -> InferenceResult:
    """Return the result of a request."""
    return MODEL.answer(BODY, name)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; fail after ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def make(write: Callable[[str, bytes], None], **options: Any) -> tuple[InferenceLog, RequestMetrics]:
    """Start a log with quick retries. Counts are not written; test_request_counts.py has them."""
    clock = options.pop("clock", time.time)
    limits = Limits(
        **({"seconds": 0.01, "first_pause": 0.001, "longest_pause": 0.002, "closing_seconds": 5.0} | options)
    )
    metrics = RequestMetrics(NAME, MODEL.digest)

    def write_records(key: str, content: bytes) -> None:
        if count_of(key) is None:
            write(key, content)

    log = InferenceLog(write_records, predictor=MODEL, pod="pod-7", metrics=metrics, limits=limits, clock=clock)
    log.start()
    return log, metrics


def count(metrics: RequestMetrics, name: str) -> float:
    """Return the value of a counter. Labels are part of the name, as in the text format."""
    match = re.search(rf"^{re.escape(name)} (\S+)$", metrics.exposition()[1].decode(), re.MULTILINE)
    return float(match[1]) if match else 0.0


def test_a_record_holds_time_model_bundle_id_trace_rows_inputs_and_outputs(linear: Served) -> None:
    linear.infer(features() | {"id": 'a "quoted" id'})
    (record,) = linear.logged()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("time"))
    assert re.fullmatch("[0-9a-f]{32}", record.pop("trace"))
    assert record.pop("outputs") == {"variable": [[pytest.approx(91.1)]]}
    assert record == {
        "model": NAME,
        "bundle": linear.bundle.digest,
        "id": 'a "quoted" id',
        "rows": 1,
        "inputs": {"features": [ROW]},
    }


def test_the_log_holds_the_id_that_the_client_received(linear: Served) -> None:
    given = linear.infer(features()).json["id"]
    assert linear.logged()[0]["id"] == given


@pytest.mark.parametrize("make_bundle", [linear_bundle, classifier_bundle, mixed_bundle])
def test_only_golden_requests_keep_the_id_by_which_monitors_leave_them_out(
    serve: Serve, make_bundle: Callable[[], MadeBundle]
) -> None:
    bundle = make_bundle()
    golden = GoldenPredictions.model_validate_json(bundle.files["golden.json"])
    server = serve(bundle, policy=LogPolicy(sample=0.999999))
    asked = [request_of(each) for each in (golden, *single_rows(golden))]
    for request in asked:
        server.infer(request | {"id": CHECK_REQUEST})
    others = [json.loads(json.dumps(request)) for request in asked]
    for request in others:
        tensor = request["inputs"][0]
        tensor["data"] = [tensor["data"][0] + 1, *tensor["data"][1:]]
        server.infer(request | {"id": CHECK_REQUEST})
    records = server.logged()
    assert len(records) == 2 * len(asked)
    assert {record["id"] for record in records[: len(asked)]} == {CHECK_REQUEST}
    assert [record["id"] for record in records[len(asked) :]] == [record["trace"] for record in records[len(asked) :]]


def test_inputs_are_logged_as_rows_in_every_format_of_a_request(linear: Served) -> None:
    pretty = json.dumps(features(), indent=2).replace("\n", "\r\n").encode()
    linear.infer(pretty)
    linear.infer(features(data=[ROW]))
    linear.infer(features(row(bp=None)))
    linear.infer(features(row(), row(age=20)))
    records = linear.logged()
    assert [record["inputs"]["features"] for record in records] == [[ROW], [ROW], [row(bp=None)], [ROW, row(age=20)]]
    assert [record["rows"] for record in records] == [1, 1, 1, 2]


def test_every_output_is_logged_even_if_the_client_requests_one(mixed: Served) -> None:
    mixed.infer(mixture() | {"outputs": [{"name": "quotient"}]})
    (record,) = mixed.logged()
    assert record["inputs"] == {"wide": [[1, 4]], "small": [[3]], "large": [[7]], "flag": [[True]], "town": [["Ulm"]]}
    assert record["outputs"] == {
        "quotient": [[0.25]],
        "small_out": [[3]],
        "large_out": [[7]],
        "flag_out": [[True]],
        "town_out": [["Ulm"]],
    }


def test_a_server_error_is_logged_with_its_status_and_no_rows(linear: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The soak gate counts these records."""
    linear.infer(features())
    run_row = linear.predictor._model.run_row
    monkeypatch.setattr(linear.predictor._model, "run_row", lambda: 1 / 0)
    failed = linear.infer(features() | {"id": "secret"})
    monkeypatch.setattr(linear.predictor._model, "run_row", run_row)
    linear.infer(features())
    one, error, two = linear.logged()
    assert (failed.status, one["rows"], two["rows"]) == (500, 1, 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", error.pop("time"))
    assert error == {
        "model": NAME,
        "bundle": linear.bundle.digest,
        "trace": failed.headers["traceparent"].split("-")[1],
        "rows": 0,
        "status": 500,
    }


def test_a_bad_request_does_not_count_against_the_bundle(linear: Served) -> None:
    assert linear.infer(b"{").status == 400
    assert linear.infer(features()).status == 200
    assert [record.get("status", 200) for record in linear.logged()] == [200]


def test_failures_are_written_in_order_and_dropped_when_the_buffer_is_full() -> None:
    released = threading.Event()
    written: dict[str, bytes] = {}

    def write(key: str, content: bytes) -> None:
        released.wait(10)
        written[key] = content

    log, metrics = make(write, batch_bytes=1, buffer_bytes=3 * OVERHEAD)
    for _ in range(20):
        log.record_failure(500, b"0" * 32)
    assert count(metrics, 'inference_log_dropped_records_total{reason="buffer full"}') == 16
    released.set()
    log.close()
    assert sum(len(content.splitlines()) for content in written.values()) == 4


def test_each_object_has_a_unique_key_partitioned_by_model_and_hour() -> None:
    written: list[tuple[str, bytes]] = []
    times = iter([NOON - 0.5, NOON - 0.25, NOON + 0.125])
    log, _ = make(lambda key, content: written.append((key, content)), clock=lambda: next(times), seconds=3600)
    for _ in range(3):
        log.record(answer(), b"0" * 32)
    log.close()
    assert [key for key, _ in written] == [
        f"inference/{NAME}/2026/01/01/11/pod-7-1.jsonl",
        f"inference/{NAME}/2026/01/01/12/pod-7-2.jsonl",
    ]
    times_written = [json.loads(line)["time"] for _, content in written for line in content.splitlines()]
    assert times_written == ["2026-01-01T11:59:59.500Z", "2026-01-01T11:59:59.750Z", "2026-01-01T12:00:00.125Z"]


def test_records_are_written_periodically() -> None:
    written: dict[str, bytes] = {}
    log, metrics = make(written.__setitem__)
    log.record(answer(), b"0" * 32)
    wait_until(lambda: len(written) == 1)
    log.close()
    assert count(metrics, "inference_log_written_records_total") == 1


def test_a_full_batch_is_written_at_once() -> None:
    written: dict[str, bytes] = {}
    one = answer()
    size = OVERHEAD + one.size
    log, _ = make(written.__setitem__, seconds=3600, batch_bytes=10 * size)
    for _ in range(12):
        log.record(one, b"0" * 32)
    wait_until(lambda: bool(written))
    for _ in range(20):
        log.record(one, b"0" * 32)
    log.close()
    assert len(written) >= 2
    assert sum(len(content.splitlines()) for content in written.values()) == 32
    assert max(len(content.splitlines()) for content in written.values()) <= 20


def test_records_that_arrive_during_a_write_go_to_the_next_object() -> None:
    objects: list[int] = []
    one = answer()

    def write(key: str, content: bytes) -> None:
        objects.append(len(content.splitlines()))
        if len(objects) < 20:
            log.record(one, b"0" * 32)

    log, _ = make(write, seconds=3600, batch_bytes=3 * (OVERHEAD + one.size))
    for _ in range(5):
        log.record(one, b"0" * 32)
    wait_until(lambda: bool(objects))
    log.close()
    assert 2 <= len(objects) <= 3


def test_a_failed_write_is_retried_until_it_succeeds() -> None:
    written: dict[str, bytes] = {}
    failures = iter([True, True, True])

    def write(key: str, content: bytes) -> None:
        if next(failures, False):
            raise OSError("no bucket today")
        written[key] = content

    log, metrics = make(write)
    log.record(answer(), b"0" * 32)
    wait_until(lambda: bool(written))
    log.close()
    assert list(written) == [next(iter(written))]
    assert count(metrics, "inference_log_write_failures_total") == 3
    assert count(metrics, 'inference_log_dropped_records_total{reason="write failed"}') == 0


def test_records_are_dropped_and_counted_after_the_last_attempt_and_later_ones_written() -> None:
    written: dict[str, bytes] = {}
    broken = threading.Event()
    broken.set()

    def write(key: str, content: bytes) -> None:
        if broken.is_set():
            raise OSError("no bucket today")
        written[key] = content

    log, metrics = make(write, attempts=3)
    log.record(answer(b"lost"), b"0" * 32)
    lost = 'inference_log_dropped_records_total{reason="write failed"}'
    wait_until(lambda: count(metrics, lost) == 1)
    broken.clear()
    log.record(answer(b"kept"), b"0" * 32)
    log.close()
    assert [json.loads(content)["id"] for content in written.values()] == ["kept"]
    assert count(metrics, "inference_log_write_failures_total") == 3


def test_a_full_buffer_drops_and_counts_records_without_blocking() -> None:
    release = threading.Event()
    written: dict[str, bytes] = {}

    def stuck(key: str, content: bytes) -> None:
        release.wait(10)
        written[key] = content

    one = answer()
    log, metrics = make(stuck, buffer_bytes=5 * (OVERHEAD + one.size))
    for _ in range(100):
        log.record(one, b"0" * 32)
    dropped = count(metrics, 'inference_log_dropped_records_total{reason="buffer full"}')
    assert dropped == 94  # the buffer's five, and the one that makes it full
    release.set()
    log.close()
    assert sum(len(content.splitlines()) for content in written.values()) == 6


def test_closing_writes_the_pending_records() -> None:
    written: dict[str, bytes] = {}
    log, _ = make(written.__setitem__, seconds=3600)
    for _ in range(500):
        log.record(answer(), b"0" * 32)
    assert not written
    log.close()
    assert sum(len(content.splitlines()) for content in written.values()) == 500


def test_closing_ends_within_its_limit() -> None:
    def write(key: str, content: bytes) -> None:
        raise OSError("no bucket today")

    log, metrics = make(write, seconds=3600, first_pause=5.0, longest_pause=60.0, attempts=1000, closing_seconds=0.1)
    log.record(answer(), b"0" * 32)
    start = time.monotonic()
    log.close()
    assert time.monotonic() - start < 3
    assert count(metrics, 'inference_log_dropped_records_total{reason="write failed"}') == 1


def test_closing_shortens_the_pause_between_attempts() -> None:
    tried = threading.Event()

    def write(key: str, content: bytes) -> None:
        tried.set()
        raise OSError("no bucket today")

    log, _ = make(write, first_pause=3600.0, longest_pause=3600.0, closing_seconds=0.1)
    log.record(answer(), b"0" * 32)
    assert tried.wait(10)
    start = time.monotonic()
    log.close()
    assert time.monotonic() - start < 3
