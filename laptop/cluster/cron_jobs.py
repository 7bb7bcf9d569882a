"""CronJobs: Jobs on a schedule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from laptop.cluster.admission_control import admit
from laptop.cluster.conditions import is_true
from laptop.cluster.controller import Controller
from laptop.cluster.defaults import with_defaults
from laptop.cluster.event_log import record
from laptop.cluster.kinds import CRON_JOB, JOB
from laptop.cluster.objects import Object, is_deleting, name_of, namespace_of, owner_reference, uid_of
from laptop.cluster.refusals import StatusError
from laptop.cluster.schedules import last_run, next_run, zone_of

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
"""Annotation of a Job with the time for which it was scheduled."""

_LONGEST_WAIT = 3600.0  # seconds, because the system clock may change


class CronJobs(Controller):
    """Controller of CronJobs: creates Jobs on schedule, and deletes finished ones beyond the history limits."""

    kind = CRON_JOB

    def reconcile(self, obj: Object) -> float | None:
        """Reconcile one CronJob."""
        status = dict(obj.get("status") or {})
        jobs = self._store.owned(JOB, obj)
        self._trim(obj, jobs)
        self._follow(obj, status, jobs)
        wait = None
        if not is_deleting(obj) and not obj["spec"].get("suspend"):
            wait = self._start_if_due(obj, status)
        self._write(obj, status)
        return wait

    def _follow(self, obj: Object, status: Object, jobs: list[Object]) -> None:
        """Remove the Jobs that have ended, or are gone, from the list of active Jobs."""
        by_uid = {uid_of(job): job for job in jobs}
        active = []
        for reference in status.get("active") or ():
            job = by_uid.get(reference["uid"])
            if job is None:
                self._event(obj, "MissingJob", f"Active job went missing: {reference['name']}")
            elif _is_finished(job):
                condition = "Complete" if is_true(job, "Complete") else "Failed"
                self._event(obj, "SawCompletedJob", f"Saw completed job: {name_of(job)}, condition: {condition}")
            else:
                active.append(reference)
        status["active"] = active
        completed = [job["status"]["completionTime"] for job in jobs if is_true(job, "Complete")]
        if newest := max([*completed, *filter(None, [status.get("lastSuccessfulTime")])], default=None):
            status["lastSuccessfulTime"] = newest

    def _start_if_due(self, obj: Object, status: Object) -> float:
        """Create a Job if one is due, and return the seconds until the next."""
        spec, time = obj["spec"], datetime.now(UTC)
        since = datetime.fromisoformat(status.get("lastScheduleTime") or obj["metadata"]["creationTimestamp"])
        deadline = spec.get("startingDeadlineSeconds")
        if deadline is not None:
            since = max(since, time - timedelta(seconds=float(deadline)))
        due = last_run(spec["schedule"], spec.get("timeZone"), since, time)
        if due is not None:
            self._start(obj, status, due)
        following = next_run(spec["schedule"], spec.get("timeZone"), time)
        if following is None:
            return _LONGEST_WAIT
        return min((following - time) / timedelta(seconds=1) + 0.1, _LONGEST_WAIT)

    def _start(self, obj: Object, status: Object, due: datetime) -> None:
        # Minutes since 1970, as in Kubernetes, so each due time creates one Job.
        name = f"{name_of(obj)}-{int(due.timestamp()) // 60}"
        active = status["active"]
        if any(reference["name"] == name for reference in active):
            return
        policy = obj["spec"].get("concurrencyPolicy", "Allow")
        if active and policy == "Forbid":
            text = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._event(obj, "JobAlreadyActive", text)
            return
        if active and policy == "Replace":
            for reference in active:
                if self._store.find(JOB, namespace_of(obj), reference["name"]) is not None:
                    self._delete(obj, reference["name"])
            status["active"] = []
        if self._store.find(JOB, namespace_of(obj), name) is not None:
            return
        try:
            manifest = with_defaults(JOB, _job_of(obj, name, due))
            admit(self._store, JOB, namespace_of(obj), manifest)
            job = self._store.create(JOB, namespace_of(obj), manifest)
        except StatusError as refusal:
            text = f"Error creating job: {refusal.message}"
            record(self._store, CRON_JOB, obj, "FailedCreate", text, warning=True)
            return
        self._event(obj, "SuccessfulCreate", f"Created job {name}")
        reference = {"apiVersion": JOB.api_version, "kind": JOB.name, "name": name, "namespace": namespace_of(job)}
        status["active"] = [*status["active"], reference | {"uid": uid_of(job)}]
        status["lastScheduleTime"] = due.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _write(self, obj: Object, status: Object) -> None:
        if not status["active"]:
            del status["active"]

        def change(target: Object) -> None:
            target["status"] = status

        self._store.modify(CRON_JOB, obj, change)

    def _trim(self, obj: Object, jobs: list[Object]) -> None:
        for condition, key, default in (
            ("Complete", "successfulJobsHistoryLimit", 3),
            ("Failed", "failedJobsHistoryLimit", 1),
        ):
            limit = obj["spec"].get(key)
            kept = default if limit is None else int(limit)
            finished = [job for job in jobs if is_true(job, condition) and not is_deleting(job)]
            finished.sort(key=lambda job: (job["status"].get("startTime", ""), name_of(job)))
            for job in finished[: max(0, len(finished) - kept)]:
                self._delete(obj, name_of(job))

    def _delete(self, obj: Object, job: str) -> None:
        self._store.delete(JOB, namespace_of(obj), job, propagation="Background")
        self._event(obj, "SuccessfulDelete", f"Deleted job {job}")

    def _event(self, obj: Object, reason: str, message: str) -> None:
        record(self._store, CRON_JOB, obj, reason, message)


def _job_of(obj: Object, name: str, due: datetime) -> Object:
    template = obj["spec"]["jobTemplate"]
    metadata = template.get("metadata") or {}
    scheduled = due.astimezone(zone_of(obj["spec"].get("timeZone"))).isoformat().replace("+00:00", "Z")
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.name,
        "metadata": {
            "name": name,
            **({"labels": dict(metadata["labels"])} if metadata.get("labels") else {}),
            "annotations": {**(metadata.get("annotations") or {}), SCHEDULED: scheduled},
            "ownerReferences": [owner_reference(CRON_JOB, obj)],
        },
        "spec": template["spec"],
    }


def _is_finished(job: Object) -> bool:
    return is_true(job, "Complete") or is_true(job, "Failed")
