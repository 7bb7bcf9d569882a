"""One operation at a time on a stack, across processes."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines.declarations.errors import MlopsError

POLL_SECONDS = 0.05


@contextlib.contextmanager
def stack_lock(path: Path, *, wait: float, notice: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock of a stack.

    The kernel releases the lock with the process that holds it, so a holder that died never blocks anyone; what
    it wrote about itself is then still in the file, and said in a notice.

    Args:
        path: the lock file; it stays when the lock is released.
        wait: seconds to wait for a live holder.
        notice: shows one line.

    Raises:
        MlopsError: another process still held the lock after `wait` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Not inherited by programs that are started meanwhile: they would hold the lock as long as they live.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(handle, path, wait, notice)
        before = _holder(handle)
        if before is not None:
            notice(f"took over the lock of {path.stem} from {_describe(before)}, which ended without releasing it")
        _write(handle, _ourselves())
        try:
            yield
        finally:
            _write(handle, "")
    finally:
        os.close(handle)


def _take(handle: int, path: Path, wait: float, notice: Callable[[str], None]) -> None:
    deadline = time.monotonic() + wait
    told = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = _holder(handle)
            who = _describe(holder) if holder is not None else "another process"
        if time.monotonic() >= deadline:
            raise MlopsError(
                f"stack {path.stem} is busy: {who} is working on it; waited {wait:g} s",
                fix="wait until it is done, or end that process.",
            )
        if not told:
            notice(f"waiting for {who}, which is working on stack {path.stem}")
            told = True
        time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))


def _ourselves() -> str:
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started})


def _holder(handle: int) -> dict[str, Any] | None:
    try:
        holder = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return None
    return holder if isinstance(holder, dict) else None


def _describe(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid')} on {holder.get('host')} (since {holder.get('started')})"


def _write(handle: int, text: str) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode(), 0)
