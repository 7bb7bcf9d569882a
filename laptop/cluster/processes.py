"""A container's process: nothing of our environment, a group of its own, ended together with all its children."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from laptop.cluster.watchdog import Watchdog

_PR_SET_PDEATHSIG = 1  # prctl(2)


def _die_with_parent() -> Callable[[], None] | None:
    """What a child runs before its program, so that the kernel kills it when we die; None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # we died before it was armed
            os._exit(1)

    return arm


class Process:
    """One running process and its group."""

    def __init__(self, process: asyncio.subprocess.Process, watchdog: Watchdog) -> None:
        self._process = process
        self._watchdog = watchdog

    @property
    def pid(self) -> int:
        """The process's id, which is its group's too."""
        return self._process.pid

    async def exited(self) -> int:
        """Waits for the end; the exit code, or minus the signal that ended it. Ends what is left of its group."""
        code = await self._process.wait()
        self.kill()
        self._watchdog.release(self.pid)
        return code

    def terminate(self) -> None:
        """Sends SIGTERM to the process, as a kubelet does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """Sends SIGKILL to the whole group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


async def start_process(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path, watchdog: Watchdog
) -> Process:
    """Starts a command.

    Args:
        command: the program and its arguments; the program is looked for on the given environment's PATH.
        environment: the whole environment.
        folder: its working directory.
        log: the file that gets its standard output and standard error.
        watchdog: what ends it when this process dies.

    Raises:
        OSError: the program cannot be run.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(environment),
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent(),  # async-signal-safe: one system call
        )
    watchdog.guard(process.pid)
    return Process(process, watchdog)
