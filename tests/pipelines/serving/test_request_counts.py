"""Counts of the inference log add up to its records, and are few."""

from __future__ import annotations

from pipelines.serving.request_counts import BURST, SECONDS, PendingCount, RequestCount, count_of, folder_of, key_of
from tests.pipelines.serving.bundles import NAME
from tests.pipelines.serving.conftest import Served, features

BUNDLE = "sha256:" + "a" * 64


def test_a_key_states_its_count_and_other_keys_state_none() -> None:
    count = RequestCount(1_767_225_600_000, 1_767_225_601_500, 12, 3, BUNDLE)
    key = key_of(count, "price", "pod-with-hyphens-1f", 7)
    assert key.startswith(folder_of("price", "2026/01/01"))
    assert count_of(key) == count
    for other in (key[:-5], key.replace("a" * 64, "a" * 63), key.replace("-12-", "-x-"), "inference/price/x.jsonl"):
        assert count_of(other) is None


def test_requests_add_up_until_they_are_taken() -> None:
    pending = PendingCount(BUNDLE)
    assert pending.take() is None
    pending.add(10.0, 11.5, 2, 0)
    pending.add(9.0, 9.5, 3, 1)
    assert pending.take() == RequestCount(9000, 11500, 5, 1, BUNDLE)
    assert pending.take() is None


def test_a_burst_is_counted_at_once_and_steady_traffic_now_and_then() -> None:
    pending, now, taken, requests = PendingCount(BUNDLE), 1e9, 0, 0
    for second in range(0, 86_400, 2):
        pending.add(second, second, 1, 0)
        count = pending.take(now=now + second)
        taken += count is not None
        requests += count.requests if count is not None else 0
        if second < 2 * BURST:
            assert taken == second // 2 + 1
    last = pending.take(is_last=True, now=now + 86_400)
    assert requests + (last.requests if last else 0) == 43_200
    assert taken <= BURST + 86_400 / SECONDS + 1


def test_the_counts_of_a_server_are_the_number_of_its_records(linear: Served) -> None:
    for _ in range(5):
        assert linear.infer(features()).status == 200
    linear.log.record_failure(500, b"0" * 32)
    assert len(linear.logged()) == 6
    counts = [count for key in linear.written if (count := count_of(key)) is not None]
    assert [(count.requests, count.errors, count.bundle) for count in counts] == [(6, 1, linear.bundle.digest)]
    assert all(key.startswith(f"inference/{NAME}/") for key in linear.written)
