"""Scenarios of Jobs, CronJobs, Deployments, garbage collection and admission."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from lightkube.types import PatchType

from laptop.conformance.endpoint_manifests import FATE, command_of
from laptop.conformance.scenarios import (
    ConfigMap,
    CronJob,
    Deployment,
    Job,
    Object,
    Pod,
    ReplicaSet,
    Scenario,
    ScenarioStep,
    Stage,
    act,
    create,
    delete,
    patch,
    until,
)
from laptop.conformance.workload_view import VERSION
from laptop.tests.cluster.running_cluster import IMAGE

_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
_NEVER = {"tcpSocket": {"port": 1}, "periodSeconds": 1}  # nothing listens on this port


def scenarios() -> list[Scenario]:
    """Return every scenario."""
    return [*_jobs(), *_cron_jobs(), *_deployments(), *_garbage(), *_admission()]


# Manifests


def _pod_template(fate: str, **labels: str) -> Object:
    command = command_of(fate) if fate not in ("ready", "unready") else ["sleep", "3600"]
    container: Object = {"name": "main", "image": IMAGE, "command": command}
    if fate == "unready":
        container["readinessProbe"] = _NEVER
    return {
        "metadata": {"labels": {FATE: fate, **labels}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }


def _job_spec(fate: str, **spec: Any) -> Object:
    template = _pod_template(fate)
    template["spec"]["restartPolicy"] = "Never"
    return {"backoffLimit": 0, "template": template, **spec}


def _job(fate: str = "exit-0", *, name: str = "j", **spec: Any) -> ScenarioStep:
    return create(Job, {"metadata": {"name": name}, "spec": _job_spec(fate, **spec)})


def _cron(fate: str = "exit-0", **spec: Any) -> ScenarioStep:
    return create(
        CronJob,
        {
            "metadata": {"name": "c"},
            "spec": {"schedule": "0 0 29 2 *", "jobTemplate": {"spec": _job_spec(fate)}, **spec},
        },
    )


def _deployment(version: str, fate: str = "ready", **spec: Any) -> Object:
    labels = {"app": "d"}
    return {
        "metadata": {"name": "d", "labels": labels},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": labels},
            "template": _pod_template(fate, **labels, **{VERSION: version}),
            **spec,
        },
    }


def _deploy(version: str, fate: str = "ready", **spec: Any) -> ScenarioStep:
    manifest = _deployment(version, fate, **spec)

    def do(stage: Stage) -> None:
        manifest["metadata"]["namespace"] = stage.namespace
        stage.client.apply(Deployment.from_dict(manifest), field_manager="pulumi", force=True)

    return act(f"deploy {version}", do)


# Waiting


def _job_ends(type_: str, name: str = "j") -> ScenarioStep:
    return until(jobs=lambda jobs: name in jobs and type_ in jobs[name]["conditions"])


def _replaced() -> ScenarioStep:
    """Wait until another pod of the Job runs instead of one that was deleted."""
    counts = {"failed": 1, "active": 1, "terminating": 0}
    return until(jobs=lambda jobs: counts.items() <= jobs["j"].items(), pods={"j Running": 1})


def _pods(**wanted: int) -> ScenarioStep:
    """Wait for numbers of pods, by `<owner>_<phase>`."""
    expected = {key.replace("_", " "): number for key, number in wanted.items()}
    return until(pods=lambda pods: pods == expected)


def _deployed(version: str, replicas: int = 3) -> ScenarioStep:
    return until(
        deployments=lambda found: found["d"]["observed"] and _progress(found) == "NewReplicaSetAvailable",
        pods={f"{version} Running": replicas},
    )


def _progress(deployments: Object) -> str:
    return str(deployments["d"]["conditions"].get("Progressing", ("", ""))[1])


# Acts


def _delete_pods(which: str, number: int = 1) -> ScenarioStep:
    def do(stage: Stage) -> None:
        pods = [pod for pod in stage.find_all(Pod) if which in pod["metadata"]["name"]]
        for pod in pods[:number]:
            stage.client.delete(Pod, pod["metadata"]["name"])

    return act(f"delete {number} pods of {which}", do)


def _due(minutes: int, zone: timedelta = timedelta()) -> ScenarioStep:
    """Make the CronJob due: its schedule named a time some minutes ago, and it last ran two hours ago."""

    def do(stage: Stage) -> None:
        now = datetime.now(UTC)
        at = now - timedelta(minutes=minutes) + zone
        stage.client.patch(CronJob, "c", {"spec": {"schedule": f"{at.minute} * * * *"}}, patch_type=PatchType.MERGE)
        last = (now - timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
        stage.client.patch(CronJob.Status, "c", {"status": {"lastScheduleTime": last}}, patch_type=PatchType.MERGE)

    return act(f"due {minutes} minutes ago", do)


def _config_map(name: str, *owners: str, blocks: bool = False, finalizers: Sequence[str] = ()) -> ScenarioStep:
    """Create a ConfigMap that others own."""

    def do(stage: Stage) -> None:
        known = {item["metadata"]["name"]: item["metadata"]["uid"] for item in stage.find_all(ConfigMap)}
        references = [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": known.get(owner, _nobody(owner))}
            | ({"blockOwnerDeletion": True} if blocks else {})
            for owner in owners
        ]
        metadata: Object = {"name": name, "ownerReferences": references}
        if finalizers:
            metadata["finalizers"] = list(finalizers)
        stage.client.create(ConfigMap.from_dict({"metadata": metadata}))

    return act(f"create {name}, owned by {owners}", do)


def _nobody(name: str) -> str:
    return f"00000000-0000-4000-8000-{len(name):012d}"


def _passes(seconds: float) -> ScenarioStep:
    """Let time pass in which nothing may happen."""
    return act(f"{seconds} s pass", lambda stage: time.sleep(seconds))


def _jobs_are(*phases: str) -> ScenarioStep:
    """Wait until the CronJob's Jobs are so: `active`, `Complete` or `Failed`."""

    def holds(jobs: Object) -> bool:
        found = [
            next((type_ for type_ in ("Complete", "Failed") if type_ in job["conditions"]), "active")
            for _, job in sorted(jobs.items())
        ]
        return found == list(phases)

    return until(jobs=holds)


def _scenario(name: str, *steps: ScenarioStep, labels: dict[str, str] | None = None) -> Scenario:
    return Scenario(name, steps, labels or {})


def _jobs() -> list[Scenario]:
    resume = patch(Job, "j", {"spec": {"suspend": False}})
    suspend = patch(Job, "j", {"spec": {"suspend": True}})
    rule = {"onExitCodes": {"containerName": "main", "operator": "In", "values": [3]}}

    def policy(action: str) -> Object:
        return {"podFailurePolicy": {"rules": [{"action": action, **rule}]}}

    return [
        _scenario("job-succeeds", _job(), _job_ends("Complete")),
        _scenario("job-fails", _job("exit-1"), _job_ends("Failed")),
        _scenario("job-is-retried", _job("exit-1", backoffLimit=1), _job_ends("Failed")),
        _scenario("job-exceeds-its-deadline", _job("run", activeDeadlineSeconds=2), _job_ends("Failed")),
        _scenario("job-expires", _job(ttlSecondsAfterFinished=2), _job_ends("Complete"), until(jobs={}, pods={})),
        _scenario("job-runs-pods-at-once", _job(parallelism=3, completions=3), _job_ends("Complete")),
        _scenario("job-runs-two-pods-at-a-time", _job(parallelism=2, completions=4), _job_ends("Complete")),
        _scenario("job-is-a-work-queue", _job(parallelism=2), _job_ends("Complete")),
        _scenario("job-without-parallelism", _job(parallelism=0, completions=1), until(jobs=lambda jobs: "j" in jobs)),
        _scenario("job-is-indexed", _job(completions=3, parallelism=3, completionMode="Indexed"),
                  _job_ends("Complete")),
        _scenario(
            "indexed-job-fails",
            _job("exit-index-1", completions=3, parallelism=1, completionMode="Indexed"),
            _job_ends("Failed"),
        ),
        _scenario("job-starts-suspended", _job(suspend=True),
                  until(jobs=lambda jobs: "Suspended" in jobs["j"]["conditions"]), resume, _job_ends("Complete")),
        _scenario("job-is-suspended", _job("run", backoffLimit=3), _pods(j_Running=1), suspend,
                  until(pods={}, jobs=lambda jobs: jobs["j"]["terminating"] == 0)),
        _scenario("job-is-suspended-and-resumed", _job("run", backoffLimit=3), _pods(j_Running=1), suspend,
                  until(pods={}), resume, _pods(j_Running=1)),
        _scenario("parallelism-grows", _job("run", parallelism=1, completions=3), _pods(j_Running=1),
                  patch(Job, "j", {"spec": {"parallelism": 3}}), _pods(j_Running=3)),
        _scenario("parallelism-shrinks", _job("run", parallelism=3, completions=3, backoffLimit=5), _pods(j_Running=3),
                  patch(Job, "j", {"spec": {"parallelism": 1}}), _pods(j_Running=1)),
        _scenario("failure-policy-fails-the-job", _job("exit-3", backoffLimit=4, **policy("FailJob")),
                  _job_ends("Failed")),
        _scenario("failure-policy-counts", _job("exit-3", **policy("Count")), _job_ends("Failed")),
        _scenario("failure-policy-does-not-match", _job("exit-1", **policy("FailJob")), _job_ends("Failed")),
        _scenario("failure-policy-ends-other-pods",
                  _job("exit-index-1", parallelism=1, completions=3, completionMode="Indexed", backoffLimit=3,
                       podFailurePolicy={"rules": [{"action": "FailJob", "onExitCodes": {
                           "operator": "NotIn", "values": [0]}}]}), _job_ends("Failed")),
        _scenario("pod-of-a-job-is-deleted", _job("run", backoffLimit=3), _pods(j_Running=1), _delete_pods("j-"),
                  _replaced()),
        _scenario("deleted-pod-exceeds-the-limit", _job("run"), _pods(j_Running=1), _delete_pods("j-"),
                  _job_ends("Failed")),
        _scenario("pod-is-replaced-after-its-end", _job("run", backoffLimit=3, podReplacementPolicy="Failed"),
                  _pods(j_Running=1), _delete_pods("j-"),
                  _replaced()),
        _scenario("job-is-deleted", _job("run"), _pods(j_Running=1), delete(Job, "j", "Background"),
                  until(jobs={}, pods={})),
        _scenario("job-is-deleted-in-the-foreground", _job("run"), _pods(j_Running=1), delete(Job, "j", "Foreground"),
                  until(jobs={}, pods={})),
        _scenario("job-is-deleted-without-its-pods", _job("run"), _pods(j_Running=1), delete(Job, "j", "Orphan"),
                  until(jobs={})),
    ]  # fmt: skip


def _cron_jobs() -> list[Scenario]:
    suspend, resume = ({"spec": {"suspend": value}} for value in (True, False))
    return [
        _scenario("cron-starts-a-job", _cron(), _due(10), _jobs_are("Complete"),
                  until(crons=lambda crons: crons["c"]["successful"])),
        _scenario("cron-allows-two", _cron("run"), _due(10), _jobs_are("active"), _due(5),
                  _jobs_are("active", "active")),
        _scenario("cron-forbids-two", _cron("run", concurrencyPolicy="Forbid"), _due(10), _jobs_are("active"), _due(5),
                  until(events=lambda events: "CronJob JobAlreadyActive" in events)),
        _scenario("cron-replaces", _cron("run", concurrencyPolicy="Replace"), _due(10), _jobs_are("active"), _due(5),
                  until(crons=lambda crons: crons["c"]["active"] == ["c#2"], pods={"c#2 Running": 1})),
        _scenario("cron-is-suspended", _cron(suspend=True), _due(10), _passes(3)),
        _scenario("cron-is-resumed", _cron(), patch(CronJob, "c", suspend), _due(10), patch(CronJob, "c", resume),
                  _jobs_are("Complete")),
        _scenario("cron-misses-its-deadline", _cron(startingDeadlineSeconds=60), _due(10), _passes(3)),
        _scenario("cron-keeps-one-success", _cron(successfulJobsHistoryLimit=1), _due(10), _jobs_are("Complete"),
                  _due(5), until(jobs=lambda jobs: list(jobs) == ["c#2"] and "Complete" in jobs["c#2"]["conditions"])),
        _scenario("cron-keeps-no-failure", _cron("exit-1", failedJobsHistoryLimit=0), _due(10),
                  until(crons=lambda crons: crons["c"]["scheduled"], jobs={}, pods={})),
        _scenario("cron-in-a-time-zone", _cron(timeZone="Asia/Kolkata"), _due(10, timedelta(hours=5, minutes=30)),
                  _jobs_are("Complete")),
        _scenario("cron-is-deleted", _cron("run"), _due(10), _jobs_are("active"), delete(CronJob, "c", "Background"),
                  until(crons={}, jobs={}, pods={})),
        _scenario("active-job-of-a-cron-is-deleted", _cron("run"), _due(10), _jobs_are("active"),
                  act("delete the job", _delete_all_jobs), until(crons=lambda crons: crons["c"]["active"] == [])),
    ]  # fmt: skip


def _delete_all_jobs(stage: Stage) -> None:
    for job in stage.find_all(Job):
        stage.client.delete(Job, job["metadata"]["name"])


def _deployments() -> list[Scenario]:
    def rolling(surge: Any, unavailable: Any) -> Object:
        return {
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
        }

    late = until(deployments=lambda found: found["d"]["conditions"]["Progressing"][1] == "ProgressDeadlineExceeded")
    live, update = [_deploy("v1"), _deployed("v1")], [_deploy("v2"), _deployed("v2")]
    pause, resume = (patch(Deployment, "d", {"spec": {"paused": value}}) for value in (True, False))

    def resize(replicas: int) -> ScenarioStep:
        return patch(Deployment, "d", {"spec": {"replicas": replicas}})

    def stuck(version: str, **spec: Any) -> ScenarioStep:
        """Deploy a version whose pods never become ready."""
        return _deploy(version, "unready", **spec)

    return [
        _scenario("deployment-starts", *live),
        _scenario("deployment-is-updated", *live, *update),
        _scenario("deployment-without-surge", _deploy("v1", **rolling(0, 1)), _deployed("v1"),
                  _deploy("v2", **rolling(0, 1)), _deployed("v2")),
        _scenario("deployment-without-gap", _deploy("v1", **rolling("100%", 0)), _deployed("v1"),
                  _deploy("v2", **rolling("100%", 0)), _deployed("v2")),
        _scenario("deployment-is-recreated", _deploy("v1", strategy={"type": "Recreate"}), _deployed("v1"),
                  _deploy("v2", strategy={"type": "Recreate"}), _deployed("v2")),
        _scenario("deployment-is-stuck", *live, stuck("v2"), until(pods={"v1 Running": 3, "v2 Running": 1})),
        _scenario("deployment-is-stuck-without-surge", _deploy("v1", **rolling(0, 1)), _deployed("v1"),
                  stuck("v2", **rolling(0, 1)), until(pods={"v1 Running": 2, "v2 Running": 1})),
        _scenario("deployment-exceeds-its-deadline", *live, stuck("v2", progressDeadlineSeconds=3), late),
        _scenario("deployment-is-rolled-back", *live, stuck("v2"), until(pods={"v1 Running": 3, "v2 Running": 1}),
                  *live),
        _scenario("deployment-is-paused", *live, pause,
                  _deploy("v2", paused=True), until(deployments=lambda found: found["d"]["observed"])),
        _scenario("deployment-is-resumed", *live, pause, _deploy("v2", paused=True), resume, _deployed("v2")),
        _scenario("deployment-is-paused-and-scaled", *live, pause, resize(5), until(pods={"v1 Running": 5})),
        _scenario("deployment-is-scaled", *live, resize(5), _deployed("v1", 5), resize(1), _deployed("v1", 1)),
        _scenario("deployment-is-scaled-to-zero", *live, resize(0),
                  until(pods={}, deployments=lambda found: found["d"]["replicas"] == 0)),
        _scenario("deployment-is-scaled-in-mid-update", _deploy("v1", replicas=10), _deployed("v1", 10),
                  stuck("v2", replicas=10), until(pods={"v1 Running": 8, "v2 Running": 5}), resize(20),
                  until(deployments=lambda found: found["d"]["replicas"] == 25)),
        _scenario("deployment-keeps-one-revision", _deploy("v1", revisionHistoryLimit=1), _deployed("v1"),
                  _deploy("v2", revisionHistoryLimit=1), _deployed("v2"), _deploy("v3", revisionHistoryLimit=1),
                  _deployed("v3"), until(sets=lambda sets: len(sets) == 2)),
        _scenario("pod-of-a-deployment-is-deleted", *live, _delete_pods("d-"),
                  until(pods={"v1 Running": 3}, deployments=lambda found: found["d"]["availableReplicas"] == 3)),
        _scenario("deployment-waits-until-pods-are-old", _deploy("v1", minReadySeconds=2), _deployed("v1")),
        _scenario("deployment-is-deleted", *live, delete(Deployment, "d", "Background"),
                  until(deployments={}, sets={}, pods={})),
        _scenario("deployment-is-deleted-in-the-foreground", *live, delete(Deployment, "d", "Foreground"),
                  until(deployments={}, sets={}, pods={})),
        _scenario("deployment-is-deleted-without-its-pods", *live, delete(Deployment, "d", "Orphan"),
                  until(deployments={}, sets=lambda sets: all(not one["owners"] for one in sets.values()))),
        _scenario("replica-set-is-scaled-back", *live, act("scale the ReplicaSet", _scale_set(5)),
                  until(sets=lambda sets: [one["wanted"] for one in sets.values()] == [3], pods={"v1 Running": 3})),
    ]  # fmt: skip


def _scale_set(replicas: int) -> Callable[[Stage], None]:
    def do(stage: Stage) -> None:
        (found,) = stage.find_all(ReplicaSet)
        change = {"spec": {"replicas": replicas}}
        stage.client.patch(ReplicaSet, found["metadata"]["name"], change, patch_type=PatchType.MERGE)

    return do


def _garbage() -> list[Scenario]:
    family = [_config_map("a"), _config_map("b", "a"), _config_map("c", "b")]
    blocking = [_config_map("a"), _config_map("b", "a", blocks=True, finalizers=["example.com/wait"])]
    free = patch(ConfigMap, "b", {"metadata": {"finalizers": None}})
    return [
        _scenario("owned-objects-follow", *family, delete(ConfigMap, "a", "Background"), until(maps={})),
        _scenario("owned-objects-go-first", *family, delete(ConfigMap, "a", "Foreground"), until(maps={})),
        _scenario("owned-objects-stay", *family, delete(ConfigMap, "a", "Orphan"),
                  until(maps={"b": "there", "c": "there"})),
        _scenario("two-owners", _config_map("a"), _config_map("b"), _config_map("c", "a", "b"), delete(ConfigMap, "a"),
                  until(maps={"b": "there", "c": "there"})),
        _scenario("owner-never-existed", _config_map("a", "nobody"), until(maps={})),
        _scenario("finalizer-holds-an-object", *blocking, delete(ConfigMap, "b"),
                  until(maps={"a": "there", "b": "deleted"}), free, until(maps={"a": "there"})),
        _scenario("finalizer-holds-the-owner", *blocking, delete(ConfigMap, "a", "Foreground"),
                  until(maps={"a": "deleted", "b": "deleted"}), free, until(maps={})),
    ]  # fmt: skip


def _refused() -> ScenarioStep:
    return until(events=lambda events: "Job FailedCreate" in events)


def _admission() -> list[Scenario]:
    return [
        _scenario("restricted-namespace-refuses-pods", _job(), _refused(), labels=_RESTRICTED),
        _scenario("service-account-is-missing",
                  create(Job, {"metadata": {"name": "j"}, "spec": _with_account(_job_spec("exit-0"))}), _refused()),
    ]  # fmt: skip


def _with_account(spec: Object) -> Object:
    spec["template"]["spec"]["serviceAccountName"] = "nobody"
    return spec
