"""The reason of a canary check without a verdict, from the logs of its pods."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.cluster.canary_logs import why_inconclusive
from tests.pipelines.cluster.conftest import Api

PODS = "/api/v1/namespaces/models/pods"


def pod(name: str, minute: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": f"2026-01-05T12:{minute:02}:00Z"}}


def test_the_newest_check_without_a_verdict_says_why(api: Api) -> None:
    api.on("GET", PODS, {"items": [pod("new", 9), pod("old", 1), pod("harm", 9)], "metadata": {}})
    api.on("GET", f"{PODS}/old/log", "inconclusive: an earlier one\n")
    api.on("GET", f"{PODS}/new/log", "errors: …\ninconclusive: no verdict yet: about 40 more are needed\n")
    api.on("GET", f"{PODS}/harm/log", "")
    assert why_inconclusive("models", "price") == "no verdict yet: about 40 more are needed"
    assert ("GET", PODS, {"labelSelector": ["app.kubernetes.io/name=check-price"]}) in api.asked


@pytest.mark.parametrize("answer", [{"items": [], "metadata": {}}, {"items": [pod("a", 1)], "metadata": {}}, 403])
def test_a_reason_that_cannot_be_read_is_left_out(api: Api, answer: Any) -> None:
    api.on("GET", PODS, answer)
    assert why_inconclusive("models", "price") == ""
