"""Run a Job from a CronJob, like `kubectl create job --from`, and follow it until it ends."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import httpx2
from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import EnvVar
from lightkube.models.meta_v1 import ObjectMeta, OwnerReference
from lightkube.resources.batch_v1 import CronJob, Job
from lightkube.resources.core_v1 import Pod

from pipelines.cluster.connection import connect, is_temporary, read_with_retry, write_with_retry
from pipelines.cluster.pod_credentials import NO_CREDENTIALS, has_credentials
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.printable import log_line

POLL_SECONDS = 0.1

LOG_PAUSE_SECONDS = 5.0
"""Seconds until a log that could not be read is tried again."""


MOST_RERUNS = 2
"""Maximum number of times that a job is run again because EKS Pod Identity was late."""

DEADLINE_SECONDS = 3600.0
"""How long to wait for the end of a run whose caller names no other time."""

RERUN_SECONDS = 10.0
"""Seconds until it is run again."""


class LateIdentityError(MlopsError):
    """The job's pods were created before EKS Pod Identity gave their service account a role."""


@dataclass(frozen=True)
class JobRun:
    """Job that succeeded.

    Attributes:
        name: name of the Job.
        log: lines that its last pod printed.
        seconds: seconds from its creation to its end.
    """

    name: str
    log: tuple[str, ...]
    seconds: float


def run_job(
    namespace: str,
    cron_job: str,
    *,
    variables: Mapping[str, str],
    on_line: Callable[[str], None],
    deadline_seconds: float = DEADLINE_SECONDS,
    after_others: bool = False,
) -> JobRun:
    """Run a CronJob once, now. A job whose pods got no credentials did nothing, and is run again.

    Args:
        namespace: namespace of the CronJob.
        cron_job: name of the CronJob, whose template is used.
        variables: environment variables to add to every container.
        on_line: called with each line of the pod's log as it arrives.
        deadline_seconds: how long to wait for the end.
        after_others: True to wait first for unfinished Jobs of the CronJob, such as a scheduled one.

    Raises:
        LateIdentityError: its pods got no credentials, although it was run again.
        MlopsError: the CronJob does not exist, the Job failed, or it did not end in time.
    """
    with connect(namespace) as client:
        started = time.monotonic()
        if after_others:
            _await_others(client, cron_job, on_line, started + deadline_seconds)
        for _ in range(MOST_RERUNS):
            try:
                return _run(client, cron_job, variables, on_line, started, deadline_seconds)
            except LateIdentityError:
                on_line("its pods were created before EKS Pod Identity gave their service account a role: once more")
                time.sleep(RERUN_SECONDS)
        return _run(client, cron_job, variables, on_line, started, deadline_seconds)


def _run(
    client: Client,
    cron_job: str,
    variables: Mapping[str, str],
    on_line: Callable[[str], None],
    started: float,
    deadline_seconds: float,
) -> JobRun:
    name = _create(client, cron_job, variables)
    try:
        return _Followed(client, name, on_line, started, deadline_seconds).follow()
    except (KeyboardInterrupt, httpx2.HTTPError):
        on_line(f"the job {name} goes on without you: kubectl -n {client.namespace} logs --follow job/{name}")
        on_line(f"to stop it: kubectl -n {client.namespace} delete job {name}")
        raise


class _Followed:
    """A Job that is followed until it ends, with the logs of its pods.

    A log that cannot be read does not end the Job: it is tried again, and left out if that fails at the Job's end.
    """

    def __init__(
        self, client: Client, name: str, on_line: Callable[[str], None], started: float, deadline_seconds: float
    ) -> None:
        self._client = client
        self._name = name
        self._on_line = on_line
        self._started = started
        self._deadline_seconds = deadline_seconds
        self._log: list[str] = []
        self._read: set[str] = set()
        self._following = ""
        self._waiting = ""
        self._unreadable = ""
        self._next_attempt = 0.0

    def follow(self) -> JobRun:
        """Return the Job once it succeeded.

        Raises:
            MlopsError: it failed, or did not end in time.
        """
        while True:
            job = self._job()
            # Read the Job before its pods, so the last lines of its last pod are not missed.
            ended = _outcome(job)
            pods = sorted(
                read_with_retry(lambda: list(self._client.list(Pod, labels={"job-name": self._name}))), key=created_at
            )
            for pod in pods:
                self._look_at(pod, ended=ended is not None)
            if ended is not None:
                succeeded, reason = ended
                if not succeeded:
                    raise self._failure(reason, pods)
                return JobRun(self._name, tuple(self._log), time.monotonic() - self._started)
            if time.monotonic() - self._started > self._deadline_seconds:
                raise MlopsError(
                    f"job {self._name} did not end within {self._deadline_seconds:.0f} s"
                    + (f" ({self._waiting})" if self._waiting else ""),
                    fix=f"kubectl -n {self._client.namespace} describe job {self._name}",
                )
            time.sleep(POLL_SECONDS)

    def _job(self) -> Job:
        """Read the Job.

        Raises:
            MlopsError: it was removed.
        """
        try:
            return read_with_retry(lambda: self._client.get(Job, self._name))
        except ApiError as error:
            if error.status.code != 404:
                raise
            # A CronJob keeps its last three Jobs of each outcome; many at once push each other out.
            raise MlopsError(
                f"the job {self._name} was removed before its end was read: expected it to be kept, found no such job",
                fix="run the command again: what the job has done already is not done twice",
            ) from None

    def _look_at(self, pod: Pod, *, ended: bool) -> None:
        """Print the new lines of a pod's log, or what the pod waits for.

        Args:
            pod: the pod.
            ended: the Job has ended, so its log is complete.
        """
        name = pod.metadata.name if pod.metadata else None
        phase = pod.status.phase if pod.status else None
        if name and name not in self._read and phase in ("Running", "Succeeded", "Failed"):
            if name != self._following:
                self._following, self._log = name, []
            if self._follow_log(name, ended=ended):
                self._read.add(name)
        elif phase == "Pending" and (reason := _waiting_for(pod)) and reason != self._waiting:
            self._waiting = reason
            self._on_line(f"waiting: {reason}")

    def _follow_log(self, pod: str, *, ended: bool) -> bool:
        """Follow a pod's log; return True at its end, False if it cannot be read now."""
        if not ended and time.monotonic() < self._next_attempt:
            return False
        known = len(self._log)

        def read() -> Iterable[str]:
            return self._client.log(pod, follow=True, newlines=False)

        try:
            for number, printed in enumerate(read_with_retry(read) if ended else read()):
                if number >= known:
                    line = log_line(printed)
                    self._log.append(line)
                    self._on_line(line)
        except httpx2.HTTPStatusError as error:  # an ApiError, too
            self._next_attempt = time.monotonic() + LOG_PAUSE_SECONDS
            if pod != self._unreadable and (ended or not is_temporary(error)):
                self._unreadable = pod
                self._on_line(f"the log of {pod} cannot be read: {error}" + ("" if ended else "; the job goes on"))
            return False
        except httpx2.TransportError:
            return False
        return True

    def _failure(self, reason: str, pods: Sequence[Pod]) -> MlopsError:
        tail = "\n".join(f"  | {line}" for line in self._log[-15:])
        what = f"job {self._name} failed: {reason}" + (f"\n{tail}" if tail else "")
        if NO_CREDENTIALS in tail and not any(has_credentials(pod) for pod in pods):
            return LateIdentityError(
                what,
                fix="run it again: its pods were created before EKS Pod Identity gave their service account a role",
            )
        return MlopsError(what)


def _await_others(client: Client, cron_job: str, on_line: Callable[[str], None], deadline: float) -> None:
    """Wait for the Jobs of a CronJob that run now, but not for Jobs that start later.

    Args:
        client: client of the cluster.
        cron_job: name of the CronJob.
        on_line: called with the name of each Job to wait for.
        deadline: value of `time.monotonic()` at which to give up.

    Raises:
        MlopsError: a Job still runs at the deadline.
    """
    running = _unfinished(client, cron_job)
    for name in running:
        on_line(f"waiting for the job {name}")
    while running := [name for name in _unfinished(client, cron_job) if name in running]:
        if time.monotonic() > deadline:
            raise MlopsError(
                f"job {running[0]} still runs: expected no other job of {cron_job}",
                fix=f"wait for it, or: kubectl -n {client.namespace} delete job {running[0]}",
            )
        time.sleep(POLL_SECONDS)


def _unfinished(client: Client, cron_job: str) -> list[str]:
    jobs = read_with_retry(lambda: list(client.list(Job)))
    running = [job for job in jobs if _belongs_to(job, cron_job) and _outcome(job) is None]
    return [job.metadata.name for job in running if job.metadata and job.metadata.name]


def _belongs_to(job: Job, cron_job: str) -> bool:
    owners = (job.metadata.ownerReferences if job.metadata else None) or []
    return any(owner.kind == "CronJob" and owner.name == cron_job for owner in owners)


def _create(client: Client, cron_job: str, variables: Mapping[str, str]) -> str:
    try:
        source = read_with_retry(lambda: client.get(CronJob, cron_job))
    except ApiError as error:
        if error.status.code != 404:
            raise
        known = sorted(c.metadata.name for c in client.list(CronJob) if c.metadata and c.metadata.name)
        raise MlopsError(
            f"no CronJob {cron_job!r} in namespace {client.namespace!r}: expected one of {', '.join(known) or 'none'}",
            fix="run `mlops up`; it creates the CronJobs once a training image is pinned (`mlops images pin`)",
        ) from None
    assert source.spec is not None and source.metadata is not None
    template = source.spec.jobTemplate
    spec = template.spec
    assert spec is not None and spec.template.spec is not None
    for container in spec.template.spec.containers:
        kept = [variable for variable in container.env or [] if variable.name not in variables]
        container.env = kept + [EnvVar(name=key, value=value) for key, value in variables.items()]
    labels = template.metadata.labels if template.metadata else None
    job = Job(
        metadata=ObjectMeta(
            name=f"{cron_job}-{secrets.token_hex(4)}",
            labels=labels,
            annotations={"cronjob.kubernetes.io/instantiate": "manual"},
            ownerReferences=[
                OwnerReference(
                    apiVersion="batch/v1",
                    kind="CronJob",
                    name=cron_job,
                    uid=source.metadata.uid or "",
                    controller=True,
                )
            ],
        ),
        spec=spec,
    )
    assert job.metadata is not None and job.metadata.name is not None
    try:
        write_with_retry(lambda: client.create(job))
    except ApiError as error:
        # The name is random: only an attempt whose answer was lost can have created it.
        if error.status.code != 409:
            raise
    return job.metadata.name


def created_at(pod: Pod) -> str:
    """Return when a pod was created, as text that sorts by time; "" if it is not known."""
    created = pod.metadata.creationTimestamp if pod.metadata else None
    return str(created or "")


def _waiting_for(pod: Pod) -> str:
    for condition in (pod.status.conditions if pod.status else None) or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return ": ".join(part for part in (condition.reason, condition.message) if part)
    for status in (pod.status.containerStatuses if pod.status else None) or []:
        if status.state and status.state.waiting:
            waiting = status.state.waiting
            return ": ".join(part for part in (waiting.reason, waiting.message) if part)
    return ""


def _outcome(job: Job) -> tuple[bool, str] | None:
    for condition in (job.status.conditions if job.status else None) or []:
        if condition.status == "True" and condition.type in ("Complete", "Failed"):
            reason = ": ".join(part for part in (condition.reason, condition.message) if part)
            return condition.type == "Complete", reason
    return None
