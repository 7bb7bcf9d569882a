from __future__ import annotations

import concurrent.futures
import json
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from laptop.cluster.kinds import ANALYSIS_RUN, ANALYSIS_TEMPLATE, EVENT, JOB, POD, ROLLOUT, SERVICE
from laptop.tests.cluster.raw_api import ApiError
from laptop.tests.cluster.running_cluster import (
    IMAGE,
    RunningCluster,
    expose,
    phase,
    rollout,
    serving_container,
    wait_for,
)

pytestmark = pytest.mark.slow

PAUSE: dict[str, Any] = {"pause": {}}
MANUAL_STEPS = [{"setWeight": 20}, PAUSE, {"setWeight": 50}, PAUSE]


def ask(url: str, path: str = "/") -> dict[str, Any]:
    with urllib.request.urlopen(url + path, data=b"{}", timeout=10) as answer:
        return dict(json.load(answer))


def shares(url: str, requests: int = 100) -> Counter[str]:
    """Return how many of a number of requests each version answered."""
    return Counter(ask(url)["version"] for _ in range(requests))


def update(cluster: RunningCluster, namespace: str, manifest: dict[str, Any]) -> None:
    """Replace the Rollout; again if the controller has changed it meanwhile, as kubectl does."""

    def replaced() -> bool:
        version = cluster.get(ROLLOUT, namespace, "m")["metadata"]["resourceVersion"]  # an update must name it
        manifest["metadata"]["resourceVersion"] = version
        try:
            cluster.client.send("PUT", ROLLOUT.path(namespace, "m"), manifest)
        except ApiError as error:
            if error.code != 409:
                raise
            return False
        return True

    wait_for(replaced)


def steer(cluster: RunningCluster, namespace: str, **status: Any) -> None:
    cluster.merge(ROLLOUT, namespace, "m", {"status": status}, sub="status")


def running_pods(cluster: RunningCluster, namespace: str) -> int:
    return len([pod for pod in cluster.find_all(POD, namespace) if "deletionTimestamp" not in pod["metadata"]])


@contextmanager
def load(url: str, clients: int = 4) -> Iterator[list[str]]:
    """Send requests until the block ends, and collect the version or the error of each."""
    outcomes: list[str] = []
    over = threading.Event()

    def client() -> None:
        while not over.is_set():
            try:
                outcomes.append(ask(url)["version"])
            except (urllib.error.URLError, OSError, ValueError) as error:
                outcomes.append(repr(error))

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        for _ in range(clients):
            pool.submit(client)
        try:
            yield outcomes
        finally:
            over.set()


def test_the_first_rollout_takes_all_traffic_at_once(cluster: RunningCluster, namespace: str) -> None:
    url = expose(cluster, namespace)
    with pytest.raises(urllib.error.HTTPError) as before:
        ask(url)
    cluster.create(ROLLOUT, namespace, rollout("v1", MANUAL_STEPS))
    status = phase(cluster, namespace, "Healthy")
    assert before.value.code == 404  # no weights yet, so no rule leads anywhere
    assert shares(url, 20) == {"v1": 20}
    assert status["stableRS"] == status["currentPodHash"]
    assert (status["currentStepIndex"], status["availableReplicas"], status["updatedReplicas"]) == (4, 2, 2)
    assert status["canary"]["weights"]["stable"]["weight"] == 100


def test_an_update_takes_its_steps_and_traffic_follows_the_weights(cluster: RunningCluster, namespace: str) -> None:
    url = expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", MANUAL_STEPS))
    first = phase(cluster, namespace, "Healthy")
    update(cluster, namespace, rollout("v2", MANUAL_STEPS))

    status = phase(cluster, namespace, "Paused", 1)
    assert status["pauseConditions"][0]["reason"] == "CanaryPauseStep"
    assert status["stableRS"] == first["stableRS"] != status["currentPodHash"]
    assert status["updatedReplicas"] == 1  # a fifth of two pods, rounded up
    assert shares(url) == {"v1": 80, "v2": 20}

    steer(cluster, namespace, pauseConditions=None)  # as `kubectl argo rollouts promote` does
    phase(cluster, namespace, "Paused", 3)
    assert shares(url) == {"v1": 50, "v2": 50}

    steer(cluster, namespace, pauseConditions=None)
    status = phase(cluster, namespace, "Healthy")
    assert shares(url, 20) == {"v2": 20}
    assert status["stableRS"] == status["currentPodHash"] != first["stableRS"]
    wait_for(lambda: running_pods(cluster, namespace) == 2)  # the old pods have ended


def test_a_pause_with_a_duration_lasts_its_scaled_time(cluster: RunningCluster, namespace: str) -> None:
    expose(cluster, namespace)
    steps: list[dict[str, Any]] = [
        {"setWeight": 50},
        {"pause": {"duration": "5s"}},
    ]  # half a second at this cluster's scale
    cluster.create(ROLLOUT, namespace, rollout("v1", steps, replicas=1))
    phase(cluster, namespace, "Healthy")
    update(cluster, namespace, rollout("v2", steps, replicas=1))
    phase(cluster, namespace, "Paused", 1)
    phase(cluster, namespace, "Healthy", 2)


def test_an_aborted_update_returns_all_traffic_to_the_stable_version(cluster: RunningCluster, namespace: str) -> None:
    url = expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", MANUAL_STEPS))
    stable = phase(cluster, namespace, "Healthy")["stableRS"]
    update(cluster, namespace, rollout("v2", MANUAL_STEPS))
    phase(cluster, namespace, "Paused", 1)
    steer(cluster, namespace, abort=True)  # as `kubectl argo rollouts abort` does
    status = phase(cluster, namespace, "Degraded")
    assert shares(url, 20) == {"v1": 20}
    assert status["stableRS"] == stable
    assert status["message"].startswith("RolloutAborted: Rollout aborted update to revision 2")
    wait_for(lambda: running_pods(cluster, namespace) == 2)

    update(cluster, namespace, rollout("v1", MANUAL_STEPS))  # git matches what runs again
    status = phase(cluster, namespace, "Healthy")
    assert "abort" not in status
    assert shares(url, 20) == {"v1": 20}


def test_an_aborted_update_is_retried_when_the_abort_is_removed(cluster: RunningCluster, namespace: str) -> None:
    url = expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", MANUAL_STEPS, replicas=1))
    phase(cluster, namespace, "Healthy")
    update(cluster, namespace, rollout("v2", MANUAL_STEPS, replicas=1))
    phase(cluster, namespace, "Paused", 1)
    steer(cluster, namespace, abort=True)
    phase(cluster, namespace, "Degraded")
    steer(cluster, namespace, abort=False)
    phase(cluster, namespace, "Paused", 1)
    assert shares(url, 20) == {"v1": 16, "v2": 4}
    steer(cluster, namespace, promoteFull=True)
    phase(cluster, namespace, "Healthy")
    assert shares(url, 20) == {"v2": 20}


def test_reverting_during_an_update_moves_the_traffic_at_once(cluster: RunningCluster, namespace: str) -> None:
    url = expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", MANUAL_STEPS))
    phase(cluster, namespace, "Healthy")
    update(cluster, namespace, rollout("v2", MANUAL_STEPS))
    phase(cluster, namespace, "Paused", 1)
    update(cluster, namespace, rollout("v1", MANUAL_STEPS))
    phase(cluster, namespace, "Healthy")
    assert shares(url, 20) == {"v1": 20}


def test_only_a_rollback_within_the_window_skips_the_steps(cluster: RunningCluster, namespace: str) -> None:
    url = expose(cluster, namespace)
    window: dict[str, Any] = {"replicas": 1, "rollbackWindow": {"revisions": 1}}
    cluster.create(ROLLOUT, namespace, rollout("v1", MANUAL_STEPS, **window))
    phase(cluster, namespace, "Healthy")
    for version in ("v2", "v3"):
        update(cluster, namespace, rollout(version, MANUAL_STEPS, **window))
        phase(cluster, namespace, "Paused", 1)
        steer(cluster, namespace, promoteFull=True)
        phase(cluster, namespace, "Healthy")
    update(cluster, namespace, rollout("v2", MANUAL_STEPS, **window))
    phase(cluster, namespace, "Healthy")
    assert shares(url, 10) == {"v2": 10}
    update(cluster, namespace, rollout("v3", MANUAL_STEPS, **window))  # forward again: no rollback
    phase(cluster, namespace, "Paused", 1)
    steer(cluster, namespace, promoteFull=True)
    phase(cluster, namespace, "Healthy")
    update(cluster, namespace, rollout("v1", MANUAL_STEPS, **window))  # two versions back
    phase(cluster, namespace, "Paused", 1)


def test_no_request_is_lost_while_a_version_is_replaced(cluster: RunningCluster, namespace: str) -> None:
    url = expose(cluster, namespace)
    steps: list[dict[str, Any]] = [{"setWeight": 50}, {"pause": {"duration": "2s"}}]
    cluster.create(ROLLOUT, namespace, rollout("v1", steps))
    phase(cluster, namespace, "Healthy")
    with load(url) as outcomes:
        wait_for(lambda: len(outcomes) > 50)
        update(cluster, namespace, rollout("v2", steps))
        phase(cluster, namespace, "Healthy", 2)
        wait_for(lambda: running_pods(cluster, namespace) == 2 and len(cluster.find_all(POD, namespace)) == 2)
        since = len(outcomes)
        wait_for(lambda: len(outcomes) > since + 50)
    assert set(outcomes) == {"v1", "v2"}
    assert set(outcomes[since + 10 :]) == {"v2"}


def test_a_request_in_flight_finishes_before_its_pod_ends(cluster: RunningCluster, namespace: str) -> None:
    url = expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", [], replicas=1))
    phase(cluster, namespace, "Healthy")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(ask, url, "/slow")
        name = cluster.find_all(POD, namespace)[0]["metadata"]["name"]
        wait_for(lambda: "slow" in cluster.log(namespace, name))
        cluster.delete(POD, namespace, name)
        assert slow.result()["version"] == "v1"


def test_a_crashed_pod_is_restarted_and_gets_traffic_again(cluster: RunningCluster, namespace: str) -> None:
    url = expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", [], replicas=1))
    phase(cluster, namespace, "Healthy")
    before = ask(url)["pid"]
    with pytest.raises(urllib.error.HTTPError) as broken:
        ask(url, "/die")
    assert broken.value.code == 502
    (pod,) = cluster.find_all(POD, namespace)

    def is_back(found: dict[str, Any]) -> bool:
        (status,) = found["status"]["containerStatuses"]
        return bool(status["restartCount"] == 1 and status["ready"])

    found = cluster.wait(POD, namespace, pod["metadata"]["name"], is_back)
    assert found["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 3
    assert ask(url)["pid"] != before


def test_a_version_that_never_becomes_ready_gets_no_traffic_and_is_aborted_at_its_deadline(
    cluster: RunningCluster, namespace: str
) -> None:
    url = expose(cluster, namespace)
    limits = {"progressDeadlineSeconds": 1, "progressDeadlineAbort": True, "replicas": 1}
    cluster.create(ROLLOUT, namespace, rollout("v1", MANUAL_STEPS, **limits))
    phase(cluster, namespace, "Healthy")
    broken = rollout("v2", MANUAL_STEPS, **limits)
    broken["spec"]["template"]["spec"]["containers"][0]["command"] = ["python", "-c", "raise SystemExit(1)"]
    update(cluster, namespace, broken)
    aborted = "RolloutAborted: Rollout aborted update to revision 2"
    cluster.wait(ROLLOUT, namespace, "m", lambda found: found["status"].get("message") == aborted)
    assert shares(url, 20) == {"v1": 20}
    events = {(event["reason"], event["message"].partition('" ')[2]) for event in cluster.find_all(EVENT, namespace)}
    assert ("RolloutAborted", "has timed out progressing.") in events


def test_a_first_version_that_never_becomes_ready_is_degraded_at_its_deadline(
    cluster: RunningCluster, namespace: str
) -> None:
    expose(cluster, namespace)
    broken = rollout("v1", [], replicas=1, progressDeadlineSeconds=1)
    broken["spec"]["template"]["spec"]["containers"][0]["command"] = ["python", "-c", "raise SystemExit(1)"]
    cluster.create(ROLLOUT, namespace, broken)
    assert "ProgressDeadlineExceeded" in phase(cluster, namespace, "Degraded")["message"]


def test_a_pod_that_fails_its_liveness_probe_is_restarted(cluster: RunningCluster, namespace: str) -> None:
    expose(cluster, namespace)
    manifest = rollout("v1", [], replicas=1)
    manifest["spec"]["template"]["spec"]["containers"][0] = {
        **serving_container("v1"),
        "livenessProbe": {"httpGet": {"path": "/die", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1},
    }
    cluster.create(ROLLOUT, namespace, manifest)
    pod = wait_for(lambda: cluster.find_all(POD, namespace))[0]["metadata"]["name"]
    cluster.wait(POD, namespace, pod, lambda found: found["status"]["containerStatuses"][0]["restartCount"] >= 1)


def test_a_rollout_is_scaled_in_place(cluster: RunningCluster, namespace: str) -> None:
    expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", MANUAL_STEPS, replicas=1))
    phase(cluster, namespace, "Healthy")
    cluster.merge(ROLLOUT, namespace, "m", {"spec": {"replicas": 3}})
    assert phase(cluster, namespace, "Healthy")["availableReplicas"] == 3
    cluster.merge(ROLLOUT, namespace, "m", {"spec": {"replicas": 1}})
    phase(cluster, namespace, "Healthy")
    wait_for(lambda: running_pods(cluster, namespace) == 1)


def test_a_rollout_reports_a_missing_service_and_continues_once_it_exists(
    cluster: RunningCluster, namespace: str
) -> None:
    cluster.create(ROLLOUT, namespace, rollout("v1", MANUAL_STEPS, replicas=1))
    assert phase(cluster, namespace, "Degraded")["message"] == (
        'InvalidSpec: The Rollout "m" is invalid: spec.strategy.canary.stableService: Invalid value: "m-stable": '
        'service "m-stable" not found'
    )
    expose(cluster, namespace)
    phase(cluster, namespace, "Healthy")


def check(namespace: str, code: str) -> dict[str, Any]:
    """Return an AnalysisTemplate with a Job."""
    container = {"name": "check", "image": IMAGE, "command": ["python", "-c", code, "{{args.hash}}", "{{args.bound}}"]}
    spec = {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    return {
        "metadata": {"name": "check"},
        "spec": {
            "args": [{"name": "hash"}, {"name": "bound", "value": "0.5"}],
            "metrics": [{"name": "errors", "provider": {"job": {"spec": spec}}}],
        },
    }


ANALYSIS_STEPS: list[dict[str, Any]] = [
    {"setWeight": 50},
    {
        "analysis": {
            "templates": [{"templateName": "check"}],
            "args": [{"name": "hash", "valueFrom": {"podTemplateHashValue": "Latest"}}],
        }
    },
]


@pytest.mark.parametrize(("code", "expected"), [("print", "Healthy"), ("raise SystemExit(1)", "Degraded")])
def test_an_analysis_decides_whether_the_update_continues(
    cluster: RunningCluster, namespace: str, code: str, expected: str
) -> None:
    url = expose(cluster, namespace)
    program = "import sys; print(sys.argv[1:])" if code == "print" else code
    cluster.create(ANALYSIS_TEMPLATE, namespace, check(namespace, program))
    cluster.create(ROLLOUT, namespace, rollout("v1", ANALYSIS_STEPS, replicas=1))
    phase(cluster, namespace, "Healthy")
    update(cluster, namespace, rollout("v2", ANALYSIS_STEPS, replicas=1))
    status = phase(cluster, namespace, expected)
    (run,) = cluster.find_all(ANALYSIS_RUN, namespace)
    (asked,) = cluster.find_all(JOB, namespace)
    if expected == "Healthy":
        assert run["status"]["phase"] == "Successful"
        (pod,) = cluster.pods_of(namespace, asked["metadata"]["name"])
        printed = cluster.log(namespace, pod["metadata"]["name"])
        assert printed.strip() == str([status["currentPodHash"], "0.5"])
        assert shares(url, 10) == {"v2": 10}
    else:
        assert run["status"]["phase"] == "Failed"
        assert 'Metric "errors" assessed Failed due to failed (1) > failureLimit (0)' in status["message"]
        assert shares(url, 10) == {"v1": 10}


def test_a_rollout_whose_analysis_template_is_missing_is_invalid_until_it_exists(
    cluster: RunningCluster, namespace: str
) -> None:
    expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", ANALYSIS_STEPS, replicas=1))
    assert "AnalysisTemplate 'check' not found" in phase(cluster, namespace, "Degraded")["message"]
    assert running_pods(cluster, namespace) == 0
    cluster.create(ANALYSIS_TEMPLATE, namespace, check(namespace, "print()"))
    phase(cluster, namespace, "Healthy")


def test_an_analysis_with_limits_that_cannot_be_met_aborts_the_update(cluster: RunningCluster, namespace: str) -> None:
    expose(cluster, namespace)
    template = check(namespace, "print()")
    template["spec"]["metrics"][0] |= {"count": 1, "failureLimit": 1, "consecutiveSuccessLimit": 1}
    cluster.create(ANALYSIS_TEMPLATE, namespace, template)
    cluster.create(ROLLOUT, namespace, rollout("v1", ANALYSIS_STEPS, replicas=1))
    phase(cluster, namespace, "Healthy")
    update(cluster, namespace, rollout("v2", ANALYSIS_STEPS, replicas=1))
    message = phase(cluster, namespace, "Degraded")["message"]
    assert "Analysis spec invalid: metrics[0]: count (1) must be >= failureLimit" in message
    assert cluster.find_all(JOB, namespace) == []


def test_an_aborted_update_ends_its_analysis(cluster: RunningCluster, namespace: str) -> None:
    expose(cluster, namespace)
    cluster.create(ANALYSIS_TEMPLATE, namespace, check(namespace, "import time; time.sleep(60)"))
    cluster.create(ROLLOUT, namespace, rollout("v1", ANALYSIS_STEPS, replicas=1))
    phase(cluster, namespace, "Healthy")
    update(cluster, namespace, rollout("v2", ANALYSIS_STEPS, replicas=1))
    wait_for(lambda: cluster.find_all(JOB, namespace))
    steer(cluster, namespace, abort=True)
    phase(cluster, namespace, "Degraded")
    wait_for(lambda: cluster.find_all(JOB, namespace) == [])
    (run,) = cluster.find_all(ANALYSIS_RUN, namespace)
    assert run["status"]["message"] == "Run Terminated"


def test_the_services_of_a_rollout_select_their_versions(cluster: RunningCluster, namespace: str) -> None:
    expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", MANUAL_STEPS, replicas=1))
    phase(cluster, namespace, "Healthy")
    update(cluster, namespace, rollout("v2", MANUAL_STEPS, replicas=1))
    status = phase(cluster, namespace, "Paused", 1)
    hashes = {
        name: cluster.get(SERVICE, namespace, name)["spec"]["selector"]["rollouts-pod-template-hash"]
        for name in ("m-stable", "m-canary")
    }
    assert hashes == {"m-stable": status["stableRS"], "m-canary": status["currentPodHash"]}
