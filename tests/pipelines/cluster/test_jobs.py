from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster import connection
from pipelines.cluster.jobs import MOST_RERUNS, JobRun, LateIdentityError, run_job
from pipelines.cluster.pod_credentials import VARIABLE
from pipelines.declarations.errors import MlopsError
from tests.pipelines.cluster.conftest import Api, write_kubeconfig

CRON = "/apis/batch/v1/namespaces/models/cronjobs"
JOBS = "/apis/batch/v1/namespaces/models/jobs"
PODS = "/api/v1/namespaces/models/pods"

TEMPLATE = {
    "metadata": {"labels": {"app": "train"}},
    "spec": {
        "backoffLimit": 1,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [
                    {
                        "name": "job",
                        "image": "registry/training@sha256:1",
                        "env": [{"name": "RUN_ID", "value": "old"}, {"name": "HOST", "value": "x"}],
                    },
                    {"name": "sidecar", "image": "registry/other@sha256:2"},
                ],
            }
        },
    },
}
CRON_JOB = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "metadata": {"name": "train-m", "uid": "u-1", "namespace": "models"},
    "spec": {"schedule": "0 0 1 1 *", "suspend": True, "jobTemplate": TEMPLATE},
}


def job(condition: str | None = None, reason: str = "", message: str = "") -> dict[str, Any]:
    conditions = [{"type": condition, "status": "True", "reason": reason, "message": message}] if condition else []
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "status": {"conditions": conditions}}


def pod(name: str, phase: str, created: str = "2026-03-02T10:00:00Z", waiting: str = "") -> dict[str, Any]:
    statuses = [{"name": "job", "image": "i", "imageID": "", "ready": False, "restartCount": 0}]
    if waiting:
        statuses[0]["state"] = {"waiting": {"reason": waiting, "message": "back-off"}}
    return {
        "metadata": {"name": name, "creationTimestamp": created},
        "status": {"phase": phase, "containerStatuses": statuses},
    }


def unschedulable(pod: dict[str, Any], message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {**pod, "status": {**pod["status"], "conditions": [condition]}}


def pods(*items: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": list(items)}


class Run:
    """Run of a job and the lines it printed."""

    def __init__(self, api: Api, **variables: str) -> None:
        self.lines: list[str] = []
        self.variables = variables
        self.api = api

    def __call__(self, deadline: float = 30) -> JobRun:
        return run_job(
            "models", "train-m", variables=self.variables, on_line=self.lines.append, deadline_seconds=deadline
        )


@pytest.fixture
def run(api: Api, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("pipelines.cluster.jobs.secrets.token_hex", lambda _: "beef")
    api.on("GET", f"{CRON}/train-m", CRON_JOB)
    api.on("POST", JOBS, lambda body: body)
    return Run(api, RUN_ID="7", SOURCE_COMMIT="abc")


JOB, LOG = f"{JOBS}/train-m-beef", f"{PODS}/p1/log"


def test_a_job_that_is_removed_before_its_end_is_read_is_an_error_with_a_fix(api: Api, run: Run) -> None:
    api.on("GET", JOB, job(), 404)
    api.on("GET", PODS, pods(pod("p1", "Running")))
    api.on("GET", LOG, "one\n")
    with pytest.raises(MlopsError, match="train-m-beef was removed before its end was read") as failed:
        run()
    assert "run the command again" in failed.value.fix
    assert run.lines == ["one"]


def test_a_job_is_created_from_the_cronjob_like_kubectl_does(api: Api, run: Run) -> None:
    api.on("GET", JOB, job("Complete"))
    api.on("GET", PODS, pods(pod("p1", "Succeeded")))
    api.on("GET", LOG, "one\ntwo\n")
    found = run()
    (sent,) = api.bodies("POST")
    assert sent["metadata"]["name"] == found.name == "train-m-beef"
    assert sent["metadata"]["labels"] == {"app": "train"}
    assert sent["metadata"]["annotations"] == {"cronjob.kubernetes.io/instantiate": "manual"}
    assert sent["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "CronJob", "name": "train-m", "uid": "u-1", "controller": True}
    ]
    first, second = sent["spec"]["template"]["spec"]["containers"]
    assert first["env"] == [
        {"name": "HOST", "value": "x"},
        {"name": "RUN_ID", "value": "7"},
        {"name": "SOURCE_COMMIT", "value": "abc"},
    ]
    assert [e["name"] for e in second["env"]] == ["RUN_ID", "SOURCE_COMMIT"]
    assert sent["spec"]["backoffLimit"] == 1
    assert (found.log, run.lines) == (("one", "two"), ["one", "two"])
    assert found.seconds > 0


def test_a_job_is_followed_until_it_ends(api: Api, run: Run) -> None:
    api.on("GET", JOB, job(), job(), job(), job(), job("Complete"))
    api.on(
        "GET",
        PODS,
        pods(),
        pods(pod("p1", "Pending")),
        pods(pod("p1", "Pending", waiting="ContainerCreating")),
        pods(pod("p1", "Pending", waiting="ContainerCreating")),
        pods(pod("p1", "Running")),
    )
    api.on("GET", LOG, "done\n")
    run()
    assert run.lines == ["waiting: ContainerCreating: back-off", "done"]
    assert [path for verb, path, _ in api.asked if path == LOG] == [LOG], "a log is read once"


def test_the_log_of_each_pod_is_printed_and_the_last_one_is_kept(api: Api, run: Run) -> None:
    api.on("GET", JOB, job(), job("Complete"))
    api.on(
        "GET",
        PODS,
        pods(pod("p1", "Failed")),
        pods(pod("p2", "Succeeded", "2026-03-02T10:00:09Z"), pod("p1", "Failed")),
    )
    api.on("GET", LOG, "it broke\n")
    api.on("GET", f"{PODS}/p2/log", "it works\n")
    assert run().log == ("it works",)
    assert run.lines == ["it broke", "it works"]


def test_a_failed_job_is_an_error_with_the_end_of_its_log(api: Api, run: Run) -> None:
    api.on("GET", JOB, job("Failed", "BackoffLimitExceeded", "Job has reached the limit"))
    api.on("GET", PODS, pods(pod("p1", "Failed")))
    api.on("GET", LOG, "".join(f"line {n}\n" for n in range(40)))
    with pytest.raises(MlopsError) as caught:
        run()
    said = caught.value.what.splitlines()
    assert said[0] == "job train-m-beef failed: BackoffLimitExceeded: Job has reached the limit"
    assert said[1:] == [f"  | line {n}" for n in range(25, 40)]


def test_a_job_that_misses_its_deadline_is_an_error_with_what_it_waits_for(api: Api, run: Run) -> None:
    api.on("GET", JOB, job())
    api.on("GET", PODS, pods(pod("p1", "Pending", waiting="ImagePullBackOff")))
    with pytest.raises(MlopsError, match=r"did not end within 0 s \(ImagePullBackOff: back-off\)") as caught:
        run(deadline=0.05)
    assert caught.value.fix == "kubectl -n models describe job train-m-beef"


def test_an_unknown_cronjob_is_an_error_that_lists_the_known_ones(api: Api) -> None:
    listed = [{**CRON_JOB, "metadata": {"name": name}} for name in ("train-b", "ingest-a")]
    api.on("GET", CRON, {"apiVersion": "batch/v1", "kind": "CronJobList", "metadata": {}, "items": listed})
    with pytest.raises(
        MlopsError, match="no CronJob 'train-m' in namespace 'models': expected one of ingest-a, train-b"
    ):
        Run(api)()


def test_a_short_outage_of_the_cluster_does_not_fail_a_job(api: Api, run: Run) -> None:
    api.on("GET", JOB, 503, None, job(), 429, (502, b"Bad Gateway"), job("Complete"))
    api.on("GET", PODS, 500, pods(pod("p1", "Running")))
    api.on("GET", LOG, 502, "done\n")
    assert run().log == ("done",)
    assert len(api.bodies("POST")) == 1, "the Job is created once"


def test_a_job_whose_creation_was_answered_late_is_followed(api: Api) -> None:
    api.on("GET", f"{CRON}/train-m", CRON_JOB)
    created: list[str] = []

    def create(body: Any) -> Any:
        created.append(body["metadata"]["name"])
        api.on("GET", f"{JOBS}/{created[0]}", job("Complete"))
        return None if len(created) == 1 else 409

    api.on("POST", JOBS, 503, create)
    api.on("GET", PODS, pods())
    assert Run(api)().name == created[0] == created[1]
    assert len(created) == 2


def test_an_interrupted_log_is_resumed(api: Api, run: Run) -> None:
    api.on("GET", JOB, job(), job(), job("Complete"))
    api.on("GET", PODS, pods(pod("p1", "Running")))
    api.on("GET", LOG, (200, b"one\ntwo\n", 100), (200, b"one\ntwo\nthree\n", 100), "one\ntwo\nthree\nfour\n")
    assert run().log == ("one", "two", "three", "four")
    assert run.lines == ["one", "two", "three", "four"]


def test_a_rejected_request_or_a_long_outage_is_a_readable_error(api: Api, run: Run) -> None:
    api.on("GET", JOB, 403)
    with pytest.raises(MlopsError, match="the cluster rejected a request: it is 403"):
        run()
    api.on("GET", f"{CRON}/train-x", 503)
    with pytest.raises(MlopsError, match="the cluster rejected a request: it is 503"):
        run_job("models", "train-x", variables={}, on_line=print)
    api.on("GET", f"{CRON}/train-y", (403, b"a proxy says no"))
    with pytest.raises(MlopsError, match="the cluster cannot be reached: found status 403"):
        run_job("models", "train-y", variables={}, on_line=print)


def test_a_log_that_cannot_be_read_does_not_end_a_job(api: Api, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.cluster.jobs.LOG_PAUSE_SECONDS", 0.0)
    api.on("GET", JOB, job(), job(), job("Complete"))
    api.on("GET", PODS, pods(pod("p1", "Running")))
    api.on("GET", LOG, 500)
    assert run().log == ()
    assert run.lines == ["the log of p1 cannot be read: it is 500"]


def test_a_log_that_may_not_be_read_is_reported_at_once(api: Api, run: Run) -> None:
    api.on("GET", JOB, job(), job(), job("Complete"))
    api.on("GET", PODS, pods(pod("p1", "Running")))
    api.on("GET", LOG, 403)
    run()
    assert run.lines == ["the log of p1 cannot be read: it is 403; the job goes on"]


def test_a_pod_that_no_node_takes_is_reported(api: Api, run: Run) -> None:
    api.on("GET", JOB, job(), job("Complete"))
    api.on("GET", PODS, pods(unschedulable(pod("p1", "Pending"), "0/3 nodes are available")), pods())
    run()
    assert run.lines == ["waiting: Unschedulable: 0/3 nodes are available"]


FOLLOW = [
    "the job train-m-beef goes on without you: kubectl -n models logs --follow job/train-m-beef",
    "to stop it: kubectl -n models delete job train-m-beef",
]


def test_an_interrupted_command_names_its_job(api: Api, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.cluster.jobs.time.sleep", interrupt)
    api.on("GET", JOB, job())
    api.on("GET", PODS, pods())
    with pytest.raises(KeyboardInterrupt):
        run()
    assert run.lines == FOLLOW


def test_a_command_that_loses_sight_of_its_job_names_it(api: Api, run: Run) -> None:
    api.on("GET", JOB, job())
    api.on("GET", PODS, 403)
    with pytest.raises(MlopsError, match="it is 403") as caught:
        run()
    assert "docs/bootstrap.md" in caught.value.fix
    assert run.lines == FOLLOW


def without_credentials(name: str) -> dict[str, Any]:
    return {**pod(name, "Failed"), "spec": {"containers": [{"name": "job"}]}}


def test_a_job_without_credentials_is_run_again(api: Api, run: Run) -> None:
    api.on("GET", JOB, job("Failed"), job("Complete"))
    api.on("GET", PODS, pods(without_credentials("p1")), pods(pod("p2", "Succeeded")))
    api.on("GET", LOG, "Unable to locate credentials\n")
    api.on("GET", f"{PODS}/p2/log", "trained\n")
    assert run().log == ("trained",)
    assert any(line.endswith("gave their service account a role: once more") for line in run.lines)
    assert len(api.bodies("POST")) == 2


def test_a_job_that_never_gets_credentials_says_so_in_the_end(api: Api, run: Run) -> None:
    late = without_credentials("p1")
    given = {**late, "spec": {"containers": [{"name": "job", "env": [{"name": VARIABLE, "value": "http://a"}]}]}}
    api.on("GET", JOB, job("Failed"))
    api.on("GET", PODS, *[pods(late)] * (MOST_RERUNS + 1), pods(given))
    api.on("GET", LOG, "Unable to locate credentials\n")
    with pytest.raises(LateIdentityError) as caught:
        run()
    assert caught.value.fix.startswith("run it again")
    assert len(api.bodies("POST")) == MOST_RERUNS + 1
    with pytest.raises(MlopsError) as others:
        run()
    assert others.value.fix == "", "its pod had credentials"


def test_a_missing_kubeconfig_or_cluster_is_a_readable_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(MlopsError, match="no usable KUBECONFIG"):
        run_job("models", "train-m", variables={}, on_line=print)
    write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:9")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(MlopsError, match="the Kubernetes cluster does not respond"):
        run_job("models", "train-m", variables={}, on_line=print)


def listed(name: str, owner: str, condition: str | None = None) -> dict[str, Any]:
    owners = [{"apiVersion": "batch/v1", "kind": "CronJob", "name": owner, "uid": "u", "controller": True}]
    return {**job(condition), "metadata": {"name": name, "ownerReferences": owners}}


def jobs(*items: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "batch/v1", "kind": "JobList", "metadata": {}, "items": list(items)}


def test_a_job_can_wait_for_the_others_of_its_cronjob_but_not_for_later_ones(api: Api, run: Run) -> None:
    before, other = listed("train-m-1", "train-m", "Complete"), listed("train-n-1", "train-n")
    now, later = listed("train-m-2", "train-m"), listed("train-m-3", "train-m")
    api.on("GET", JOBS, jobs(before, other, now), jobs(before, other, now, later), jobs(before, other, later))
    api.on("GET", JOB, job("Complete"))
    api.on("GET", PODS, pods())
    run_job("models", "train-m", variables={}, on_line=run.lines.append, after_others=True)
    assert run.lines == ["waiting for the job train-m-2"]
    assert [path for method, path, _ in api.asked if method in ("GET", "POST")].index(JOBS) == 0


def test_a_job_that_never_ends_is_named(api: Api, run: Run) -> None:
    api.on("GET", JOBS, jobs(listed("train-m-2", "train-m")))
    with pytest.raises(MlopsError, match="job train-m-2 still runs") as caught:
        run_job("models", "train-m", variables={}, on_line=run.lines.append, deadline_seconds=0, after_others=True)
    assert "delete job train-m-2" in caught.value.fix
    assert api.bodies("POST") == []
