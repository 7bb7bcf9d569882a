"""Decide what to do with the lock of a stack: whether its holder has ended, and who that is. Pure functions.

Pulumi marks a stack as locked by an object in the state bucket and deletes it at the end, so a process that is killed
leaves its lock. Pulumi's lock names a host and a process. Before Pulumi starts, this program records the rest in a
second object: the workflow run, and an identity of the machine that no other machine shares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from pipelines.declarations.documents import Declaration
from pipelines.declarations.timestamps import Timestamp

CLOCK_SECONDS = 2.0
"""Tolerance when start times of a process are compared; the system derives them from a clock that is adjusted."""


class Liveness(Enum):
    """State of the process that holds a lock."""

    ENDED = "has ended"
    LIVING = "is running"
    UNKNOWN = "may be running"


class WorkflowJob(Declaration):
    """A job of a GitHub Actions run.

    Attributes:
        repository: `owner/name`.
        run: id of the run.
        attempt: 1 for the first attempt of the run.
        runner: name of the runner, which tells the jobs of a run apart.
        url: URL of the run.
    """

    repository: str
    run: int
    attempt: int
    runner: str
    url: str


class Holder(Declaration):
    """A process that works on a stack, as it describes itself before it starts Pulumi.

    Attributes:
        operation: the Pulumi operation.
        since: when it started.
        user: user of the process, or the actor of the workflow run.
        host: name of the host, as in Pulumi's lock.
        machine: identity of the running machine and of its process namespace.
        pid: process id.
        process_started: start time of the process in seconds since 1970; tells it from a later process with its id.
        job: the job of a workflow; None outside a workflow.
    """

    operation: str
    since: Timestamp
    user: str
    host: str
    machine: str
    pid: int
    process_started: float
    job: WorkflowJob | None = None


class HolderRecord(Declaration):
    """The object that holds the holder of a stack; `holder` is None while no process works on the stack."""

    format: str = "mlops/holder/v1"
    holder: Holder | None = None


@dataclass(frozen=True)
class PulumiLock:
    """A lock that Pulumi wrote.

    Attributes:
        key: key of the object; every Pulumi process uses another.
        user, host, pid: the Pulumi process.
        since: when it was written.
    """

    key: str
    user: str
    host: str
    pid: int
    since: Timestamp


@dataclass(frozen=True)
class HeldBy:
    """A lock of either kind, and what is known of its holder.

    Attributes:
        liveness: whether the holder still runs.
        who: the holder, in words.
        key: key of Pulumi's lock; None for the record of a holder.
    """

    liveness: Liveness
    who: str
    key: str | None = None

    def __str__(self) -> str:
        return f"{self.who} {self.liveness.value}"


@dataclass(frozen=True)
class LockFacts:
    """Everything that decides what happens to the locks of a stack.

    Attributes:
        holder: the recorded holder; None if there is none.
        locks: Pulumi's locks.
        here: this process, described as a holder.
        started_here: process id → start time in seconds since 1970 of that process of this machine; None if it does not
            run.
        ended_on_github: whether the holder's job has ended; None if GitHub does not say.
    """

    holder: Holder | None
    locks: tuple[PulumiLock, ...]
    here: Holder
    started_here: Callable[[int], float | None]
    ended_on_github: bool | None = None


def judge_locks(facts: LockFacts) -> list[HeldBy]:
    """Return the holder and Pulumi's locks with what is known of each; the recorded holder comes first."""
    found: list[HeldBy] = []
    holder_liveness = Liveness.UNKNOWN
    if facts.holder is not None:
        holder_liveness = _liveness_of_holder(facts.holder, facts)
        found.append(HeldBy(holder_liveness, describe_holder(facts.holder)))
    for lock in facts.locks:
        liveness, who = _judge(lock, facts, holder_liveness)
        found.append(HeldBy(liveness, who, lock.key))
    return found


def _liveness_of_holder(holder: Holder, facts: LockFacts) -> Liveness:
    if holder.machine == facts.here.machine:
        started = facts.started_here(holder.pid)
        return _alive(started is not None and abs(started - holder.process_started) <= CLOCK_SECONDS)
    if holder.job is None or facts.ended_on_github is None:
        return Liveness.UNKNOWN
    return _alive(not facts.ended_on_github)


def _judge(lock: PulumiLock, facts: LockFacts, holder_liveness: Liveness) -> tuple[Liveness, str]:
    """Return whether the Pulumi process of a lock still runs, and who started it."""
    process = f"pulumi, process {lock.pid} of {lock.user} on {lock.host} since {_time(lock.since)},"
    holder = facts.holder
    if holder is not None and lock.host == holder.host and lock.since >= holder.since:
        # On this machine the process itself is looked up, because Pulumi may outlive the process that started it.
        liveness = _pulumi_here(lock, facts) if holder.machine == facts.here.machine else holder_liveness
        outlived = liveness is not holder_liveness
        return liveness, (f"pulumi, process {lock.pid}, started by " if outlived else "") + describe_holder(holder)
    # Not started by this program. Virtual machines of GitHub share host names, so there the name proves nothing.
    if facts.here.job is None and (lock.host, lock.user) == (facts.here.host, facts.here.user):
        return _pulumi_here(lock, facts), process
    return Liveness.UNKNOWN, process


def _pulumi_here(lock: PulumiLock, facts: LockFacts) -> Liveness:
    """Return whether a Pulumi process of this machine runs. A process that started after the lock is another one."""
    started = facts.started_here(lock.pid)
    return _alive(started is not None and started <= lock.since.timestamp() + CLOCK_SECONDS)


def _alive(alive: bool) -> Liveness:
    return Liveness.LIVING if alive else Liveness.ENDED


def describe_holder(holder: Holder) -> str:
    """Return who a holder is, what it does and since when, in words."""
    if holder.job is not None:
        where = f"run {holder.job.run} (attempt {holder.job.attempt}) of {holder.user}, {holder.job.url}"
    else:
        where = f"process {holder.pid} of {holder.user} on {holder.host}"
    return f"`{holder.operation}` in {where} since {_time(holder.since)},"


def _time(moment: Timestamp) -> str:
    return moment.isoformat(timespec="seconds")


def blocking(found: Sequence[HeldBy]) -> list[HeldBy]:
    """Return the holders that have not ended, as far as is known; those that run come first."""
    order = [Liveness.LIVING, Liveness.UNKNOWN]
    return sorted((one for one in found if one.liveness in order), key=lambda one: order.index(one.liveness))


def job_has_ended(run: Mapping[str, object], jobs: Sequence[Mapping[str, object]], runner: str) -> bool:
    """Return whether the job of a run that a runner executed has ended.

    A run may go on after one of its jobs was cancelled or timed out.

    Args:
        run: the attempt of the run, from GitHub's API.
        jobs: the jobs of that attempt, from GitHub's API.
        runner: name of the runner.
    """
    statuses = [job.get("status") for job in jobs if job.get("runner_name") == runner]
    if statuses:
        return all(status == "completed" for status in statuses)
    return run.get("status") == "completed"
