"""Pods that EKS Pod Identity was too late for."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pipelines.cluster import pod_credentials as module
from pipelines.cluster.connection import connect
from pipelines.cluster.pod_credentials import (
    VARIABLE,
    pods_without_credentials,
    replacing_pods_without_credentials,
)
from tests.pipelines.cluster.conftest import Api
from tests.pipelines.cluster.test_rollout_pods import PODS, ROLLOUT, rollout

SAYS = "the registry cannot be read: Unable to locate credentials\n"
LATE = "the pod a was created before EKS Pod Identity gave its service account a role"


def pod(name: str, *, restarts: int = 1, env: Any = (), deleted: bool = False, ended: bool = False) -> dict[str, Any]:
    status = {"name": "serve", "image": "i", "imageID": "", "ready": False, "restartCount": restarts}
    state = {"state": {"terminated": {"exitCode": 1}}} if ended else {}
    return {
        "metadata": {"name": name, **({"deletionTimestamp": "2026-11-29T12:00:00Z"} if deleted else {})},
        "spec": {"containers": [{"name": "serve", "env": list(env)}]},
        "status": {"containerStatuses": [status | state]},
    }


def found(api: Api, *pods: dict[str, Any]) -> list[str]:
    api.on("GET", ROLLOUT, rollout())
    api.on("GET", PODS, {"items": list(pods), "metadata": {}})
    with connect("models") as client:
        return pods_without_credentials(client, "price")


def test_only_failed_pods_without_credentials_are_found(api: Api) -> None:
    given = [{"name": VARIABLE, "value": "http://169.254.170.23/v1/credentials"}]
    for name in "abcdefg":
        api.on("GET", f"{PODS}/{name}/log", SAYS if name != "e" else "the bundle is damaged\n")
    pods = [
        pod("a"),
        pod("b", env=given),
        pod("c", restarts=0),
        pod("d", deleted=True),
        pod("e"),
        pod("f", restarts=0, ended=True),
    ]
    assert found(api, *pods) == ["a", "f"]
    assert ("GET", PODS, {"labelSelector": ["app=price,rollouts-pod-template-hash=7a7a"]}) in api.asked


def test_a_pod_whose_log_cannot_be_read_is_left_alone(api: Api) -> None:
    api.on("GET", f"{PODS}/a/log", 500)
    assert found(api, pod("a")) == []


def test_nothing_is_looked_at_before_the_rollout_has_a_template(api: Api) -> None:
    api.on("GET", ROLLOUT, rollout(live=""))
    with connect("models") as client:
        assert pods_without_credentials(client, "price") == []


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (None, f"replaced {LATE.replace(' was created', ': it was created')}"),
        (403, f"{LATE}, and you may not delete it\n  fix: kubectl -n models delete pod a"),
    ],
)
def test_a_pod_is_replaced_while_its_rollout_is_followed(
    api: Api, monkeypatch: pytest.MonkeyPatch, status: int | None, said: str
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "MOST_REPLACED", 1)
    api.on("GET", ROLLOUT, 500, rollout())
    api.on("GET", PODS, {"items": [pod("a")], "metadata": {}})
    api.on("GET", f"{PODS}/a/log", SAYS)
    api.on("DELETE", f"{PODS}/a", status or {"kind": "Status", "status": "Success"})
    lines: list[str] = []
    done = threading.Event()

    def log(line: str) -> None:
        lines.append(line)
        done.set()

    with replacing_pods_without_credentials("models", "price", log):
        assert done.wait(30)
    assert lines == [said]
