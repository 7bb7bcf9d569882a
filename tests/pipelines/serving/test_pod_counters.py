"""Counters of the pods behind a Service: restarts, missing pods and foreign answers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.serving import pod_counters
from pipelines.serving.pod_counters import ServiceCounters, UnreadableMetricsError, read_metrics
from pipelines.serving.prediction_counts import bin_edges
from pipelines.serving.prediction_shape import BinnedPredictions
from pipelines.serving.request_metrics import RequestMetrics
from tests.pipelines.serving.bundles import DIGEST, NAME


def served(process: str, *statuses: int, seconds: float = 0.001) -> RequestMetrics:
    metrics = RequestMetrics(NAME, DIGEST, process)
    for status in statuses:
        metrics.answered(status, seconds)
    return metrics


def text(metrics: RequestMetrics) -> str:
    return metrics.exposition()[1].decode()


def turns(*pods: RequestMetrics) -> Callable[[], str]:
    """Return what reads one pod after the other, as a Service does."""
    number = count()
    return lambda: text(pods[next(number) % len(pods)])


def test_a_pod_reports_what_it_answered() -> None:
    metrics = served("p-1", 200, 200, 400, 422, 500, 499, 408)
    metrics.predictions.add(-3.0)
    metrics.predictions.add(5.0)
    process, totals = read_metrics(text(metrics), 0.02)
    assert process == "p-1"
    assert (totals.requests, totals.errors, totals.slow) == (5, 3, 0)
    assert (totals.predictions.count, totals.predictions.mean) == (2, 1.0)
    assert totals.latency.count == 2
    assert totals.latency.mean == pytest.approx(-6.907755, abs=1e-6)


@pytest.mark.parametrize(("bound", "slow"), [(0.02, 1), (0.001, 1), (0.0004, 1), (0.00001, 1), (5.0, 0)])
def test_requests_above_the_declared_latency_are_slow(bound: float, slow: int) -> None:
    metrics = served("p", 200, seconds=0.00001)
    metrics.answered(200, 0.3)
    assert read_metrics(text(metrics), bound)[1].slow == slow


def test_requests_that_name_a_version_decide_nothing() -> None:
    """Live pods do not answer for the version of a canary, so a caller could send it alone bad or slow requests."""
    metrics = served("p", 200, 400, seconds=0.001)
    before = read_metrics(text(metrics), 0.02)
    for status in (200, 400, 422, 500, 503):
        metrics.answered(status, 9.0, is_versioned=True)
    assert read_metrics(text(metrics), 0.02) == before
    assert before[1].requests == 2


def test_metrics_of_earlier_servers_are_read() -> None:
    lines = text(served("p", 200, 500)).splitlines(keepends=True)
    _, totals = read_metrics("".join(line for line in lines if "versioned" not in line), 0.02)
    assert (totals.requests, totals.errors, totals.slow) == (2, 1, 0)
    assert totals.distribution == BinnedPredictions()


@pytest.mark.parametrize("content", ["", "up 1\n", "{}", text(RequestMetrics(NAME, DIGEST)), "\x00{{{ 1 2 3"])
def test_other_metrics_are_refused(content: str) -> None:
    with pytest.raises(UnreadableMetricsError, match="metrics of a pod: expected"):
        read_metrics(content, 0.02)


def test_predictions_are_read_in_bins() -> None:
    metrics = served("p", 200)
    metrics.predictions.expect(1e9, bin_edges(91.1, 30.0))
    for value in (-3.0, 91.0, 92.0, 1e12):
        metrics.predictions.add(value)
    binned = read_metrics(text(metrics), 0.02)[1].distribution
    assert binned.edges == bin_edges(91.1, 30.0)
    assert (binned.total, binned.upto[-1]) == (4, 3)
    assert list(binned.upto) == sorted(binned.upto)


@pytest.mark.parametrize("wrong", ['le="x"', 'le="1.0"} NaN', 'other="1"'])
def test_bins_that_are_not_numbers_are_refused(wrong: str) -> None:
    metrics = served("p", 200)
    metrics.predictions.expect(1e9, (1.0,))
    content = text(metrics)
    assert 'inference_predictions_bucket{le="1.0"} 0.0' in content
    old = 'le="1.0"} 0.0' if "NaN" in wrong else 'le="1.0"'
    changed = content.replace(f"inference_predictions_bucket{{{old}", f"inference_predictions_bucket{{{wrong}")
    with pytest.raises(UnreadableMetricsError):
        read_metrics(changed, 0.02)


def test_bins_count_from_the_first_look_on_and_never_run_backwards() -> None:
    edges = bin_edges(50.0, 10.0)
    before, after = served("p-1"), served("p-2")
    for pod in (before, after):
        pod.predictions.expect(1e9, edges)
        for _ in range(100):
            pod.predictions.add(20.0)
    counters = ServiceCounters(turns(before), 0.02)
    counters.look()
    before.predictions.add(55.0)
    counters.look()
    counters.read = turns(after)
    counters.look()
    after.predictions.add(45.0)
    counters.look()
    binned = counters.totals.distribution
    assert (binned.total, binned.upto[0], binned.upto[-1]) == (2, 0, 2)
    assert min(binned.upto) >= 0


def test_all_pods_count_from_the_first_look_on() -> None:
    pods = [served(f"p-{number}", *[200] * 100) for number in range(5)]
    counters = ServiceCounters(turns(*pods), 0.02)
    counters.look()
    assert counters.totals.requests == 0
    for pod in pods:
        pod.answered(500, 0.001)
    counters.look()
    assert (counters.totals.requests, counters.totals.errors) == (5, 5)


def test_a_restarted_server_does_not_run_backwards() -> None:
    before = served("p-1", *[200] * 100)
    counters = ServiceCounters(turns(before), 0.02)
    counters.look()
    for _ in range(10):
        before.answered(200, 0.001)
    counters.look()
    after = served("p-2", 200)
    counters.read = turns(after)
    counters.look()
    for _ in range(5):
        after.answered(500, 0.001)
    counters.look()
    assert (counters.totals.requests, counters.totals.errors) == (15, 5)


def test_pods_that_do_not_answer_keep_their_figures() -> None:
    pod = served("p", 200)
    counters = ServiceCounters(turns(pod), 0.02)
    counters.look()
    pod.answered(500, 0.001)
    counters.look()
    tries = count(1)

    def fail() -> str:
        next(tries)
        raise MlopsError("does not answer")

    counters.read = fail
    counters.look()
    assert counters.totals.errors == 1
    assert next(tries) <= 5, "an address without pods is not asked again and again"


def test_a_look_ends_even_if_every_answer_comes_from_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_counters, "MOST_READS", 20)
    numbers = count()

    def fresh() -> str:
        return text(served(f"p-{next(numbers)}", 200))

    ServiceCounters(fresh, 0.02).look()
    assert next(numbers) == 20
