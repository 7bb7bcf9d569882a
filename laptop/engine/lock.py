"""Lock that allows one operation at a time on a stack, across processes."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from pipelines.declarations.errors import MlopsError

POLL_SECONDS = 0.05


@contextlib.contextmanager
def stack_lock(path: Path, *, wait: float, notice: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a stack.

    The kernel releases the lock when its holder dies, so a dead holder never blocks anyone. The holder describes
    itself in a file next to the lock; if that file is still there, the last holder died and a notice says so.

    Args:
        path: lock file; it remains after the lock is released.
        wait: seconds to wait for a live holder.
        notice: shows one line.

    Raises:
        MlopsError: another process still holds the lock after `wait` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock, holder = FileLock(path, mode=0o600), holder_file(path)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            notice(f"waiting for {_describe(holder) or 'another process'}, which is working on stack {path.stem}")
            lock.acquire(timeout=wait, poll_interval=POLL_SECONDS)
    except Timeout:
        raise MlopsError(
            f"stack {path.stem} is busy: {_describe(holder) or 'another process'} is working on it; waited {wait:g} s",
            fix="wait until it is done, or end that process.",
        ) from None
    try:
        if before := _describe(holder):
            notice(f"took over the lock of {path.stem} from {before}, which ended without releasing it")
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started}))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def release_dead(path: Path, notice: Callable[[str], None]) -> None:
    """Release the lock of a process that has ended.

    Args:
        path: lock file.
        notice: shows one line: who held the lock, or that no one does.

    Raises:
        MlopsError: the holder runs. The kernel releases its lock when it ends, and nothing else can.
    """
    if not path.parent.is_dir():
        notice(f"stack {path.stem} is not locked")
        return
    lock, holder = FileLock(path, mode=0o600), holder_file(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = _describe(holder) or "another process"
        raise MlopsError(
            f"stack {path.stem} is locked: {who} is working on it", fix="wait until it is done, or end that process"
        ) from None
    try:
        before = _describe(holder)
        holder.unlink(missing_ok=True)
        notice(f"{before} has ended; removed its lock" if before else f"stack {path.stem} is not locked")
    finally:
        lock.release()


def holder_file(path: Path) -> Path:
    """Return the file in which the holder of a lock describes itself."""
    return path.with_suffix(".holder")


def _describe(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']} (since {found['started']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
