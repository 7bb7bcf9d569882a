"""Effect of a pod's exit code on its Job."""

from __future__ import annotations

from typing import Any

import pytest

from laptop.cluster.kinds import JOB
from laptop.cluster.pod_failures import judge_failures
from laptop.tests.cluster.running_cluster import RunningCluster, job


def failed(code: int, container: str = "main") -> dict[str, Any]:
    ended = {"name": container, "state": {"terminated": {"exitCode": code}}}
    return {"metadata": {"name": "p", "namespace": "n"}, "status": {"containerStatuses": [ended]}}


def on(action: str, operator: str, *values: int, **more: Any) -> dict[str, Any]:
    return {"action": action, "onExitCodes": {"operator": operator, "values": list(values), **more}}


@pytest.mark.parametrize(
    ("rules", "codes", "counted", "final"),
    [
        ([], [1, 2], 2, ""),
        ([on("Ignore", "In", 2)], [2, 2, 1], 1, ""),
        ([on("FailJob", "In", 1)], [2, 1], 2, "exit code 1 matching FailJob rule at index 0"),
        ([on("Count", "In", 1), on("FailJob", "NotIn", 2)], [1, 2], 2, ""),
        ([on("Count", "In", 1), on("FailJob", "NotIn", 2)], [3], 1, "exit code 3 matching FailJob rule at index 1"),
        ([on("FailJob", "In", 1, containerName="other")], [1], 1, ""),
    ],
)
def test_the_first_rule_that_matches_decides(
    rules: list[dict[str, Any]], codes: list[int], counted: int, final: str
) -> None:
    verdict = judge_failures({"rules": rules}, [failed(code) for code in codes])
    assert verdict.counted == counted
    assert verdict.final.endswith(final) and bool(verdict.final) == bool(final)


def test_a_job_fails_at_once_for_one_exit_code_and_retries_after_another(
    cluster: RunningCluster, namespace: str
) -> None:
    policy = {"rules": [on("FailJob", "In", 1)]}
    cluster.create(JOB, namespace, job("final", "raise SystemExit(1)", backoffLimit=3, podFailurePolicy=policy))
    cluster.create(JOB, namespace, job("again", "raise SystemExit(2)", backoffLimit=1, podFailurePolicy=policy))
    final, again = cluster.ended(namespace, "final"), cluster.ended(namespace, "again")
    assert (final["type"], final["reason"]) == ("Failed", "PodFailurePolicy")
    assert "failed with exit code 1 matching FailJob rule at index 0" in final["message"]
    assert (again["type"], again["reason"]) == ("Failed", "BackoffLimitExceeded")
    assert [len(cluster.pods_of(namespace, name)) for name in ("final", "again")] == [1, 2]
