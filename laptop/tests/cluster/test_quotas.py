"""ResourceQuotas: Kubernetes' limit of what the pods of a namespace use together, in its words."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from laptop.cluster.kinds import POD, RESOURCE_QUOTA
from laptop.cluster.quotas import quantity, refusal, text
from laptop.tests.cluster.raw_api import ApiError
from laptop.tests.cluster.running_cluster import IMAGE, RunningCluster


def spec(cpu: str | None = "1", memory: str = "1Gi", name: str = "main") -> dict[str, Any]:
    amounts = {"memory": memory, **({"cpu": cpu} if cpu else {})}
    return {"containers": [{"name": name, "resources": {"requests": amounts, "limits": amounts}}]}


def pod(phase: str = "Running", **given: Any) -> dict[str, Any]:
    return {"metadata": {"name": "one", "namespace": "n"}, "spec": spec(**given), "status": {"phase": phase}}


def quota(**hard: str) -> dict[str, Any]:
    names = {name.replace("_", "."): value for name, value in hard.items()}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "all"}, "spec": {"hard": names}}


def seen(**hard: str) -> dict[str, Any]:
    found = quota(**hard)
    return {**found, "status": found["spec"]}


@pytest.mark.parametrize(
    ("hard", "pods", "new", "why"),
    [
        ({"pods": "2"}, [pod()], spec(), None),
        ({"pods": "1"}, [pod()], spec(), "exceeded quota: all, requested: pods=1, used: pods=1, limited: pods=1"),
        ({"pods": "1"}, [pod("Succeeded"), pod("Failed")], spec(), None),
        ({"requests_cpu": "1500m"}, [pod(cpu="500m")], spec(), None),
        (
            {"limits_memory": "2Gi", "requests_cpu": "2"},
            [pod(memory="1536Mi")],
            spec(cpu="1500m"),
            "exceeded quota: all, requested: limits.memory=1Gi,requests.cpu=1500m, "
            "used: limits.memory=1536Mi,requests.cpu=1, limited: limits.memory=2Gi,requests.cpu=2",
        ),
        ({"limits_cpu": "9"}, [], spec(cpu=None), "failed quota: all: must specify limits.cpu for: main"),
    ],
)
def test_a_quota_admits_what_fits(
    hard: dict[str, str], pods: list[dict[str, Any]], new: dict[str, Any], why: str | None
) -> None:
    assert refusal([seen(**hard)], pods, new) == why


@pytest.mark.parametrize(
    ("given", "amount"), [("500m", "0.5"), ("2", "2"), ("2Gi", str(2**31)), ("1e3", "1000"), ("3k", "3000")]
)
def test_quantities_are_numbers(given: str, amount: str) -> None:
    assert quantity(given) == Decimal(amount)


@pytest.mark.parametrize(("name", "shown"), [("limits.cpu", "1500m"), ("limits.memory", "1536Mi"), ("pods", "3")])
def test_amounts_are_shown_as_quantities(name: str, shown: str) -> None:
    assert text(name, quantity(shown)) == shown


def test_the_cluster_refuses_a_pod_over_the_quota_and_shows_what_is_used(
    cluster: RunningCluster, namespace: str
) -> None:
    cluster.create(RESOURCE_QUOTA, namespace, quota(pods="1", limits_cpu="2"))
    resources = {"limits": {"cpu": "2", "memory": "1Gi"}}
    container = {"name": "main", "image": IMAGE, "command": ["sleep", "60"], "resources": resources}

    def manifest(name: str) -> dict[str, Any]:
        body = {"restartPolicy": "Never", "containers": [container]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}

    cluster.create(POD, namespace, manifest("first"))
    used = {"limits.cpu": "2", "pods": "1"}
    cluster.wait(RESOURCE_QUOTA, namespace, "all", lambda found: (found.get("status") or {}).get("used") == used)
    with pytest.raises(ApiError, match=r"exceeded quota: all, requested: limits.cpu=2,pods=1, used: limits.cpu=2,"):
        cluster.create(POD, namespace, manifest("second"))
    cluster.delete(POD, namespace, "first", gracePeriodSeconds=0)
    none = {"limits.cpu": "0", "pods": "0"}
    cluster.wait(RESOURCE_QUOTA, namespace, "all", lambda found: (found.get("status") or {}).get("used") == none)


def test_a_quota_of_what_is_not_enforced_is_refused(cluster: RunningCluster, namespace: str) -> None:
    with pytest.raises(ApiError, match=r"spec.hard\[secrets\]: Forbidden: not supported"):
        cluster.create(RESOURCE_QUOTA, namespace, quota(secrets="1"))
