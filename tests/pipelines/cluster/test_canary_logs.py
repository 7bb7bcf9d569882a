"""The reason of the outcome of a canary check, from the logs of its pods."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.cluster.canary_logs import reason_of_check
from tests.pipelines.cluster.conftest import Api

PODS = "/api/v1/namespaces/models/pods"


BUNDLE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def pod(name: str, minute: int, bundle: str = BUNDLE, *, job: str = "") -> dict[str, Any]:
    labels = {"job-name": job or f"{minute}.verdict.1"}
    metadata = {"name": name, "creationTimestamp": f"2026-01-05T12:{minute:02}:00Z", "labels": labels}
    return {"metadata": metadata, "spec": {"containers": [{"name": "check", "command": ["check", "--bundle", bundle]}]}}


def test_the_newest_check_without_a_verdict_says_why(api: Api) -> None:
    api.on("GET", PODS, {"items": [pod("new", 9), pod("old", 1), pod("harm", 9, job="9.harm.1")], "metadata": {}})
    api.on("GET", f"{PODS}/old/log", "inconclusive: an earlier one\n")
    api.on("GET", f"{PODS}/new/log", "errors: …\ninconclusive: no verdict yet: about 40 more are needed\n")
    api.on("GET", f"{PODS}/harm/log", "")
    found = reason_of_check("models", "price", BUNDLE, "inconclusive")
    assert found == "no verdict yet: about 40 more are needed"
    assert ("GET", PODS, {"labelSelector": ["app.kubernetes.io/name=check-price"]}) in api.asked


@pytest.mark.parametrize("answer", [{"items": [], "metadata": {}}, {"items": [pod("a", 1)], "metadata": {}}, 403])
def test_a_reason_that_cannot_be_read_is_left_out(api: Api, answer: Any) -> None:
    api.on("GET", PODS, answer)
    assert reason_of_check("models", "price", BUNDLE, "inconclusive") == ""


def test_the_pod_of_the_other_job_may_be_gone_when_a_check_failed(api: Api) -> None:
    api.on("GET", PODS, {"items": [pod("verdict", 9), pod("harm", 9, job="9.harm.1")], "metadata": {}})
    api.on("GET", f"{PODS}/verdict/log", 404)
    api.on("GET", f"{PODS}/harm/log", "failed: worse than the live pods\n")
    assert reason_of_check("models", "price", BUNDLE, "failed") == "worse than the live pods"


def test_only_the_checks_of_the_bundle_on_trial_count(api: Api) -> None:
    api.on("GET", PODS, {"items": [pod("new", 9, OTHER), pod("old", 1)], "metadata": {}})
    api.on("GET", f"{PODS}/new/log", "failed: another bundle\n")
    api.on("GET", f"{PODS}/old/log", "failed: worse than the live pods\n")
    assert reason_of_check("models", "price", BUNDLE, "failed") == "worse than the live pods"
    assert reason_of_check("models", "price", OTHER, "failed") == "another bundle"


def test_what_an_earlier_check_said_is_no_reason(api: Api) -> None:
    api.on("GET", PODS, {"items": [pod("new", 9), pod("old", 1)], "metadata": {}})
    api.on("GET", f"{PODS}/old/log", "inconclusive: no verdict yet: about 40 more are needed\n")
    api.on("GET", f"{PODS}/new/log", "the canary serves\n")
    assert reason_of_check("models", "price", BUNDLE, "inconclusive") == ""


def test_harm_that_only_one_job_found_is_the_reason_of_a_check_without_a_verdict(api: Api) -> None:
    api.on("GET", PODS, {"items": [pod("new", 9), pod("old", 1)], "metadata": {}})
    api.on("GET", f"{PODS}/old/log", "inconclusive: an earlier one\n")
    api.on("GET", f"{PODS}/new/log", "failed: worse than the live pods\n")
    found = reason_of_check("models", "price", BUNDLE, "inconclusive")
    assert found == "only one of its two Jobs found harm: worse than the live pods"


def test_a_traceback_does_not_hide_the_reason(api: Api) -> None:
    frames = "  File x\n" * 40
    api.on("GET", PODS, {"items": [pod("new", 9)], "metadata": {}})
    api.on("GET", f"{PODS}/new/log", f"inconclusive: the check itself failed\n{frames}OSError: full\n")
    assert reason_of_check("models", "price", BUNDLE, "inconclusive") == "the check itself failed"
    (asked,) = [query for _, path, query in api.asked if path.endswith("/log")]
    assert int(asked["tailLines"][0]) > 42
