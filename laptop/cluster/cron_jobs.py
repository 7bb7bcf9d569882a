"""CronJobs: Jobs on a schedule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from laptop.cluster.admission_control import admit
from laptop.cluster.conditions import is_true
from laptop.cluster.controller import Controller
from laptop.cluster.event_log import record
from laptop.cluster.kinds import CRON_JOB, JOB
from laptop.cluster.objects import Object, ObjectStore, is_deleting, name_of, namespace_of, owner_reference, uid_of
from laptop.cluster.refusals import StatusError
from laptop.cluster.schedules import next_run


class CronJobs(Controller):
    """Controller of CronJobs: creates Jobs on schedule, and deletes finished ones beyond the history limits."""

    kind = CRON_JOB

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self._looked: dict[str, datetime] = {}

    def forget(self, obj: Object) -> None:
        """Drop the state of a deleted CronJob."""
        self._looked.pop(uid_of(obj), None)

    def reconcile(self, obj: Object) -> float | None:
        """Reconcile one CronJob."""
        if is_deleting(obj):
            return None
        jobs = self._store.owned(JOB, obj)
        self._trim(obj, jobs)
        time = datetime.now(UTC)
        looked = self._looked.get(uid_of(obj), time)
        self._looked[uid_of(obj)] = time
        if obj["spec"].get("suspend"):
            self._report(obj, jobs, None)
            return None
        zone = obj["spec"].get("timeZone")
        due = next_run(obj["spec"]["schedule"], zone, looked)
        started = None
        if due is not None and due <= time:
            started = self._start(obj, jobs, due)
            due = next_run(obj["spec"]["schedule"], zone, time)
        self._report(obj, self._store.owned(JOB, obj), started)
        if due is None:
            return None
        # At most an hour, because the system clock may change.
        return min((due - datetime.now(UTC)) / timedelta(seconds=1) + 0.01, 3600.0)

    def _start(self, obj: Object, jobs: list[Object], due: datetime) -> datetime | None:
        active = [job for job in jobs if not _is_finished(job)]
        policy = obj["spec"].get("concurrencyPolicy", "Allow")
        if active and policy == "Forbid":
            record(
                self._store, CRON_JOB, obj, "JobAlreadyActive", "Not starting job because prior execution is running"
            )
            return None
        if active and policy == "Replace":
            for job in active:
                self._store.delete(JOB, namespace_of(job), name_of(job), propagation="Foreground")
        template = obj["spec"]["jobTemplate"]
        metadata = template.get("metadata") or {}
        job = {
            "apiVersion": JOB.api_version,
            "kind": JOB.name,
            "metadata": {
                # Minutes since 1970, as in Kubernetes, so each due time creates one Job.
                "name": f"{name_of(obj)}-{int(due.timestamp()) // 60}",
                **{key: dict(metadata[key]) for key in ("labels", "annotations") if metadata.get(key)},
                "ownerReferences": [owner_reference(CRON_JOB, obj)],
            },
            "spec": template["spec"],
        }
        try:
            admit(self._store, JOB, namespace_of(obj), job)
            self._store.create(JOB, namespace_of(obj), job)
        except StatusError as refusal:
            record(self._store, CRON_JOB, obj, "FailedCreate", refusal.message, warning=True)
            return None
        return due

    def _report(self, obj: Object, jobs: list[Object], started: datetime | None) -> None:
        active = [
            {"apiVersion": JOB.api_version, "kind": JOB.name, "name": name_of(job), "namespace": namespace_of(job)}
            | {"uid": uid_of(job)}
            for job in jobs
            if not _is_finished(job)
        ]

        def change(target: Object) -> None:
            status = target.setdefault("status", {})
            status.pop("active", None)
            if active:
                status["active"] = active
            if started is not None:
                status["lastScheduleTime"] = started.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

        self._store.modify(CRON_JOB, obj, change)

    def _trim(self, obj: Object, jobs: list[Object]) -> None:
        for condition, key, default in (
            ("Complete", "successfulJobsHistoryLimit", 3),
            ("Failed", "failedJobsHistoryLimit", 1),
        ):
            limit = obj["spec"].get(key)
            kept = default if limit is None else int(limit)
            finished = [job for job in jobs if is_true(job, condition) and not is_deleting(job)]
            for job in finished[: max(0, len(finished) - kept)]:
                self._store.delete(JOB, namespace_of(job), name_of(job), propagation="Foreground")


def _is_finished(job: Object) -> bool:
    return is_true(job, "Complete") or is_true(job, "Failed")
