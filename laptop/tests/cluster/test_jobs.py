from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from laptop.cluster.kinds import CONFIG_MAP, CRON_JOB, EVENT, JOB, POD, SECRET, SERVICE_ACCOUNT
from laptop.tests.cluster.running_cluster import IMAGE, RunningCluster, job, refusal, wait_for

pytestmark = pytest.mark.slow


def test_a_job_runs_to_its_completion_and_its_log_can_be_read(cluster: RunningCluster, namespace: str) -> None:
    cluster.create(JOB, namespace, job("hello", "import sys; print('out'); print('err', file=sys.stderr)"))
    assert cluster.ended(namespace, "hello")["type"] == "Complete"
    (pod,) = cluster.pods_of(namespace, "hello")
    assert pod["status"]["phase"] == "Succeeded"
    assert sorted(cluster.log(namespace, pod["metadata"]["name"]).split()) == ["err", "out"]
    status = cluster.get(JOB, namespace, "hello")["status"]
    assert (status["succeeded"], status.get("failed"), status.get("active")) == (1, None, None)


def test_a_log_is_followed_to_its_last_line(cluster: RunningCluster, namespace: str) -> None:
    cluster.create(JOB, namespace, job("slow", "import time; print('a'); time.sleep(0.4); print('b')"))
    pod = wait_for(lambda: cluster.pods_of(namespace, "slow"))[0]["metadata"]["name"]
    cluster.wait(POD, namespace, pod, lambda found: found["status"]["phase"] == "Running")
    assert cluster.log(namespace, pod, "?follow=true").split() == ["a", "b"]
    assert cluster.log(namespace, pod, "?tailLines=1").split() == ["b"]


def test_a_pod_sees_nothing_of_the_operators_environment(
    cluster: RunningCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "KUBECONFIG", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, "of the operator")
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    cluster.create(JOB, namespace, job("env", code, pod={"automountServiceAccountToken": False}))
    cluster.ended(namespace, "env")
    (pod,) = cluster.pods_of(namespace, "env")
    seen = json.loads(cluster.log(namespace, pod["metadata"]["name"]))
    assert "of the operator" not in seen.values()
    assert seen["HOME"] != os.environ["HOME"]
    assert set(seen) <= {
        *("PATH", "HOME", "TMPDIR", "HOSTNAME", "LANG", "PYTHONPATH", "PYTHONUNBUFFERED"),
        *("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"),
    }


def test_a_pods_variables_come_from_literals_references_and_the_pod_itself(
    cluster: RunningCluster, namespace: str
) -> None:
    cluster.create(SERVICE_ACCOUNT, namespace, {"metadata": {"name": "trainer"}})
    cluster.create(CONFIG_MAP, namespace, {"metadata": {"name": "settings"}, "data": {"DEPTH": "3", "x": "1"}})
    cluster.create(SECRET, namespace, {"metadata": {"name": "key"}, "stringData": {"pass": "s3cret"}})
    variables = [
        {"name": "LITERAL", "value": "a"},
        {"name": "COMPOSED", "value": "$(LITERAL)-$(UNKNOWN)-$$(LITERAL)"},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "SPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "ACCOUNT", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}},
        {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "key", "key": "pass"}}},
        {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "gone", "optional": True}}},
    ]
    container = {"env": variables, "envFrom": [{"prefix": "S_", "configMapRef": {"name": "settings"}}]}
    manifest = job(
        "vars",
        "import os, json; print(json.dumps(dict(os.environ)))",
        pod={"serviceAccountName": "trainer", "container": container},
    )
    cluster.create(JOB, namespace, manifest)
    cluster.ended(namespace, "vars")
    (pod,) = cluster.pods_of(namespace, "vars")
    name = pod["metadata"]["name"]
    seen = json.loads(cluster.log(namespace, name))
    assert seen["COMPOSED"] == "a-$(UNKNOWN)-$(LITERAL)"
    assert (seen["POD"], seen["SPACE"], seen["ADDRESS"]) == (name, namespace, "127.0.0.1")
    assert (seen["ACCOUNT"], seen["PASS"], seen["S_DEPTH"]) == ("trainer", "s3cret", "3")
    assert "NONE" not in seen


def test_a_pod_waits_for_its_config_map(cluster: RunningCluster, namespace: str) -> None:
    container = {"envFrom": [{"configMapRef": {"name": "late"}}]}
    cluster.create(JOB, namespace, job("waits", "import os; print(os.environ['A'])", pod={"container": container}))
    pod = wait_for(lambda: cluster.pods_of(namespace, "waits"))[0]["metadata"]["name"]
    cluster.wait(POD, namespace, pod, lambda found: _waiting(found)["reason"] == "CreateContainerConfigError")
    cluster.create(CONFIG_MAP, namespace, {"metadata": {"name": "late"}, "data": {"A": "here"}})
    assert cluster.ended(namespace, "waits")["type"] == "Complete"
    assert cluster.log(namespace, pod) == "here\n"


def test_a_pod_has_its_own_temporary_folder_which_is_deleted_with_it(cluster: RunningCluster, namespace: str) -> None:
    code = "import tempfile, os; print(tempfile.mkdtemp()); print(os.getcwd())"
    cluster.create(JOB, namespace, job("scratch", code))
    cluster.ended(namespace, "scratch")
    (pod,) = cluster.pods_of(namespace, "scratch")
    made, folder = cluster.log(namespace, pod["metadata"]["name"]).split()
    assert folder == str(cluster.root)
    assert Path(made).is_dir()
    cluster.delete(JOB, namespace, "scratch", propagationPolicy="Background")
    wait_for(lambda: not Path(made).exists())


def test_a_failing_job_is_retried_up_to_its_limit(cluster: RunningCluster, namespace: str) -> None:
    cluster.create(JOB, namespace, job("bad", "raise SystemExit(3)", backoffLimit=1))
    ended = cluster.ended(namespace, "bad")
    assert (ended["type"], ended["reason"]) == ("Failed", "BackoffLimitExceeded")
    assert ended["message"] == "Job has reached the specified backoff limit"
    pods = cluster.pods_of(namespace, "bad")
    assert [pod["status"]["phase"] for pod in pods] == ["Failed", "Failed"]
    assert pods[0]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3


def test_a_container_is_restarted_in_its_pod_when_the_policy_says_on_failure(
    cluster: RunningCluster, namespace: str
) -> None:
    code = (
        "import os, sys; f = os.environ['HOME'] + '/tried'; "
        "ok = os.path.exists(f); open(f, 'w').close(); print('second' if ok else 'first'); sys.exit(not ok)"
    )
    cluster.create(JOB, namespace, job("again", code, pod={"restartPolicy": "OnFailure"}, backoffLimit=2))
    assert cluster.ended(namespace, "again")["type"] == "Complete"
    (pod,) = cluster.pods_of(namespace, "again")
    name = pod["metadata"]["name"]
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 1
    assert (cluster.log(namespace, name), cluster.log(namespace, name, "?previous=true")) == ("second\n", "first\n")


def test_a_job_that_exceeds_its_deadline_fails_and_its_pods_are_deleted(
    cluster: RunningCluster, namespace: str
) -> None:
    code = "import time; print('begun'); time.sleep(60)"
    cluster.create(JOB, namespace, job("late", code, activeDeadlineSeconds=1, backoffLimit=5))
    ended = cluster.ended(namespace, "late")
    assert (ended["type"], ended["reason"]) == ("Failed", "DeadlineExceeded")
    assert cluster.pods_of(namespace, "late") == []
    assert cluster.get(JOB, namespace, "late")["status"]["failed"] == 1


def test_a_pod_reports_a_missing_image_and_starts_once_it_is_pushed(cluster: RunningCluster, namespace: str) -> None:
    image = IMAGE.replace("a" * 64, "b" * 64)
    cluster.create(JOB, namespace, job("pull", "print('ran')", pod={"container": {"image": image}}))
    pod = wait_for(lambda: cluster.pods_of(namespace, "pull"))[0]["metadata"]["name"]
    found = cluster.wait(POD, namespace, pod, lambda found: _waiting(found)["reason"] == "ImagePullBackOff")
    assert image in _waiting(found)["message"]
    assert any("Failed to pull" in event["message"] for event in cluster.find_all(EVENT, namespace))
    assert refusal(lambda: cluster.client.send("GET", f"{POD.path(namespace, pod)}/log")).code == 400
    cluster.images.known.add(image)
    assert cluster.ended(namespace, "pull")["type"] == "Complete"


def test_a_job_whose_image_never_appears_fails_at_its_deadline(cluster: RunningCluster, namespace: str) -> None:
    image = IMAGE.replace("a" * 64, "c" * 64)
    manifest = job("never", "print('ran')", pod={"container": {"image": image}}, activeDeadlineSeconds=1)
    cluster.create(JOB, namespace, manifest)
    assert cluster.ended(namespace, "never")["reason"] == "DeadlineExceeded"


def test_a_missing_program_fails_the_job_with_the_reason(cluster: RunningCluster, namespace: str) -> None:
    cluster.create(JOB, namespace, job("absent", "", pod={"container": {"command": ["no-such-program"]}}))
    assert cluster.ended(namespace, "absent")["type"] == "Failed"
    (pod,) = cluster.pods_of(namespace, "absent")
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], "cannot run no-such-program" in ended["message"]) == ("StartError", True)


def test_a_suspended_job_runs_only_when_it_is_resumed(cluster: RunningCluster, namespace: str) -> None:
    cluster.create(JOB, namespace, job("later", "print(1)", suspend=True))
    cluster.wait(JOB, namespace, "later", lambda found: (found.get("status") or {}).get("conditions"))
    assert cluster.pods_of(namespace, "later") == []
    cluster.merge(JOB, namespace, "later", {"spec": {"suspend": False}})
    assert cluster.ended(namespace, "later")["type"] == "Complete"


def test_a_finished_job_is_deleted_after_its_time_to_live(cluster: RunningCluster, namespace: str) -> None:
    cluster.create(JOB, namespace, job("brief", "print(1)", ttlSecondsAfterFinished=0))
    wait_for(lambda: cluster.client.get(JOB.path(namespace, "brief")) is None)
    wait_for(lambda: cluster.pods_of(namespace, "brief") == [])


def test_deleting_a_job_ends_its_process_and_the_children(cluster: RunningCluster, namespace: str) -> None:
    code = (
        "import subprocess, time, os; child = subprocess.Popen(['sleep', '60']); "
        "print(os.getpid(), child.pid, flush=True); time.sleep(60)"
    )
    cluster.create(JOB, namespace, job("family", code))
    pod = wait_for(lambda: cluster.pods_of(namespace, "family"))[0]["metadata"]["name"]
    cluster.wait(POD, namespace, pod, lambda found: found["status"]["phase"] == "Running")
    pids = [int(word) for word in wait_for(lambda: cluster.log(namespace, pod)).split()]
    cluster.delete(JOB, namespace, "family", propagationPolicy="Foreground")
    wait_for(lambda: cluster.client.get(JOB.path(namespace, "family")) is None)
    assert cluster.client.get(POD.path(namespace, pod)) is None
    wait_for(lambda: not any(_is_running(pid) for pid in pids))


def test_a_suspended_cron_job_creates_no_jobs(cluster: RunningCluster, namespace: str) -> None:
    spec = {"schedule": "* * * * *", "suspend": True, "jobTemplate": {"spec": job("x", "print(1)")["spec"]}}
    cluster.create(CRON_JOB, namespace, {"metadata": {"name": "train"}, "spec": spec})
    cluster.wait(CRON_JOB, namespace, "train", lambda found: "status" in found)
    assert cluster.find_all(JOB, namespace) == []


def test_a_pod_of_an_unknown_service_account_is_not_created(cluster: RunningCluster, namespace: str) -> None:
    cluster.create(JOB, namespace, job("nobody", "print(1)", pod={"serviceAccountName": "missing"}))
    event = wait_for(
        lambda: [e for e in cluster.find_all(EVENT, namespace) if e["reason"] == "FailedCreate"],
    )[0]
    assert 'serviceaccount "missing" not found' in event["message"]
    assert cluster.pods_of(namespace, "nobody") == []


def _waiting(pod: dict) -> dict:  # type: ignore[type-arg]
    statuses = (pod.get("status") or {}).get("containerStatuses") or [{}]
    return statuses[0].get("state", {}).get("waiting") or {"reason": "", "message": ""}


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
