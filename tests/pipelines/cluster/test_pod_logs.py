"""Logs of a model's pods, and of the newest run of a job."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.cluster.pod_logs import show_logs
from pipelines.declarations.errors import MlopsError
from tests.pipelines.cluster.conftest import Api

PODS = "/api/v1/namespaces/models/pods"


def pod(name: str, workload: str, minute: int, *, phase: str = "Running", job: str = "") -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": workload, **({"job-name": job} if job else {})}
    created = f"2026-03-01T12:{minute:02}:00Z"
    return {"metadata": {"name": name, "labels": labels, "creationTimestamp": created}, "status": {"phase": phase}}


def shown(api: Api, workload: str, *pods: dict[str, Any], **options: Any) -> list[str]:
    api.on("GET", PODS, {"items": list(pods), "metadata": {}})
    lines: list[str] = []
    show_logs("models", workload, lines.append, **options)
    return lines


def log(api: Api, name: str, text: str) -> None:
    api.on("GET", f"{PODS}/{name}/log", text)


@pytest.mark.parametrize("follow", [False, True])
def test_lines_of_several_pods_begin_with_the_pod(api: Api, follow: bool) -> None:
    log(api, "a", "one\ntwo\n")
    log(api, "b", "three\n")
    lines = shown(api, "serve-m1", pod("b", "serve-m1", 2), pod("a", "serve-m1", 1), follow=follow)
    assert sorted(lines) == ["a  one", "a  two", "b  three"]
    assert follow or lines == sorted(lines)


def test_only_the_newest_run_of_a_job_is_shown(api: Api) -> None:
    log(api, "new", "done\n")
    pods = [pod("new", "train-m1", 9, phase="Succeeded", job="j2"), pod("old", "train-m1", 1, phase="Failed", job="j1")]
    assert shown(api, "train-m1", *pods, since_seconds=600) == ["done"]
    (query,) = [sent for _, path, sent in api.asked if path.endswith("/log")]
    assert query["sinceSeconds"] == ["600"]


def test_neither_a_terminal_nor_a_runner_acts_on_a_line(api: Api) -> None:
    log(api, "a", "\x1b]0;owned\x07\x9b2J\n::set-output name=bundle::x\n##[add-mask]e\n")
    assert shown(api, "serve-m1", pod("a", "serve-m1", 1)) == [
        "\ufffd]0;owned\ufffd\ufffd2J",
        ":\u200b:set-output name=bundle::x",
        "##\u200b[add-mask]e",
    ]


def test_a_pod_that_waits_has_no_log_yet(api: Api) -> None:
    with pytest.raises(MlopsError, match="has started yet"):
        shown(api, "train-m1", pod("a", "train-m1", 1, phase="Pending", job="j"))


def test_an_unknown_workload_is_an_error_with_those_that_are_there(api: Api) -> None:
    with pytest.raises(MlopsError) as caught:
        shown(api, "train-m2", pod("a", "train-m1", 1), pod("b", "serve-m1", 1))
    assert "expected one of serve-m1, train-m1" in caught.value.what


def test_a_log_that_cannot_be_read_is_an_error(api: Api) -> None:
    api.on("GET", f"{PODS}/a/log", 403)
    with pytest.raises(MlopsError, match="the log of a cannot be read"):
        shown(api, "serve-m1", pod("a", "serve-m1", 1))
