"""Hold a stack while Pulumi works on it, and release the locks of processes that have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.declarations.errors import MlopsError
from pipelines.github.gh import Gh
from pipelines.registry.store import PreconditionFailedError
from pipelines.targets.stack_lock import (
    HeldBy,
    Holder,
    HolderRecord,
    Liveness,
    LockFacts,
    WorkflowJob,
    blocking,
    job_has_ended,
    judge_locks,
)
from pipelines.targets.state_bucket import StackLocks
from pipelines.targets.this_process import describe_this_process, start_time

Log = Callable[[str], None]
"""Receives one line of progress."""

ATTEMPTS = 5
"""Maximum number of attempts to take a stack while other processes take and release it."""


class StackHeldError(MlopsError):
    """Another process works on the stack, or may do so."""


@contextmanager
def hold_stack(locks: StackLocks, root: Path, operation: str, log: Log) -> Iterator[None]:
    """Hold a stack during the block.

    The locks of processes that have ended are removed first. Of two processes that find the same lock, one gets the
    stack: it replaces the record of the holder on the condition that no one else has.

    Args:
        locks: the locks of the stack.
        root: a clone of the repository whose workflows work on the stack.
        operation: the Pulumi operation.
        log: receives a line for each lock that is removed.

    Raises:
        StackHeldError: another process works on the stack, or may do so.
        MlopsError: the state bucket cannot be read or written.
    """
    here = describe_this_process(operation)
    etag = _take(locks, root, here, log)
    try:
        yield
    finally:
        _release(locks, root, here, etag, log)


def _release(locks: StackLocks, root: Path, here: Holder, etag: str, log: Log) -> None:
    """Release a stack. If Pulumi was killed, its lock is left, and removed here.

    A failure is logged, because the next operation finds that this process has ended.
    """
    try:
        found = judge_locks(_facts(locks, root, here, here))
        if locks.read_record()[1] == etag:
            _remove_ended(locks, found, log)
        locks.write_record(HolderRecord(), etag)
    except PreconditionFailedError:
        log(f"{locks.stack} was unlocked by someone else during this operation")
    except MlopsError as error:
        log(f"{locks.stack} could not be released: {error.what}")


def _take(locks: StackLocks, root: Path, here: Holder, log: Log) -> str:
    """Make this process the holder of a stack; return the ETag of its record."""
    for _ in range(ATTEMPTS):
        record, etag = locks.read_record()
        found = judge_locks(_facts(locks, root, here, record.holder))
        if locks.read_record()[1] != etag:
            continue  # the locks may be those of a new holder
        if held := blocking(found):
            raise held_error(locks.stack, held)
        _remove_ended(locks, found, log)
        try:
            return locks.write_record(HolderRecord(holder=here), etag)
        except PreconditionFailedError:
            continue  # another process was faster: look who it is
    raise StackHeldError(f"{locks.stack} is busy: other processes took it {ATTEMPTS} times first", fix="try again")


def unlock_stack(locks: StackLocks, root: Path, log: Log, *, force: bool) -> None:
    """Remove the locks of a stack whose holders have ended.

    Args:
        locks: the locks of the stack.
        root: a clone of the repository whose workflows work on the stack.
        log: receives a line for each lock.
        force: remove also the locks of holders that run or may run.

    Raises:
        StackHeldError: a holder runs, or may run, and `force` is not set.
        MlopsError: the state bucket cannot be read or written.
    """
    record, etag = locks.read_record()
    found = judge_locks(_facts(locks, root, describe_this_process("unlock"), record.holder))
    held = blocking(found)
    if held and not force:
        raise held_error(locks.stack, held)
    try:
        # First the record: if it changed, the locks may be those of a new holder.
        if record.holder is not None:
            locks.write_record(HolderRecord(), etag)
    except PreconditionFailedError:
        raise StackHeldError(f"another process took {locks.stack} at this moment", fix="try again") from None
    for one in found:
        if one.key is not None:
            locks.remove(one.key)
    for line in dict.fromkeys(map(str, found)):
        log(f"{line}; removed its lock")
    if not found:
        log(f"{locks.stack} is not locked")


def held_error(stack: str, held: list[HeldBy]) -> StackHeldError:
    """Return the error that names the holders of a stack."""
    lines = "; ".join(dict.fromkeys(map(str, held)))
    if held[0].liveness is Liveness.LIVING:
        fix = f"wait until it has ended, or stop it, then try again; `mlops unlock --env {stack}` shows who holds it"
    else:
        fix = f"make sure that it has ended, then run `mlops unlock --env {stack} --force`"
    return StackHeldError(f"{stack} is locked: {lines}", fix=fix)


def _remove_ended(locks: StackLocks, found: list[HeldBy], log: Log) -> None:
    ended = [one for one in found if one.liveness is Liveness.ENDED]
    for line in dict.fromkeys(map(str, ended)):
        log(f"{line} without releasing {locks.stack}; removing its lock")
    for one in ended:
        if one.key is not None:
            locks.remove(one.key)


def _facts(locks: StackLocks, root: Path, here: Holder, holder: Holder | None) -> LockFacts:
    ended = None
    if holder is not None and holder.job is not None and holder.machine != here.machine:
        ended = ended_on_github(root, holder.job)
    return LockFacts(holder, tuple(locks.pulumi_locks()), here, start_time, ended)


def ended_on_github(root: Path, job: WorkflowJob) -> bool | None:
    """Ask GitHub whether a job has ended; None if it does not say."""
    try:
        gh = Gh.find(root)
        if gh.repository != job.repository:
            return None
        path = f"actions/runs/{job.run}/attempts/{job.attempt}"
        run: dict[str, Any] = gh.get(path)
        return job_has_ended(run, gh.get(f"{path}/jobs?per_page=100")["jobs"], job.runner)
    except (MlopsError, ValueError, KeyError, TypeError, AttributeError):
        return None
