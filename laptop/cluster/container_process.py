"""Processes of containers. Each has a clean environment and its own process group, and ends with its children."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path

from laptop.cluster.fork_client import ForkClient, ForkServerError, is_module_run, module_of
from laptop.cluster.watchdog import Watchdog

_log = logging.getLogger(__name__)


class ContainerProcess:
    """A running process and its group.

    Args:
        pid: id of the process, and of its group.
        end: waits for the end and returns the exit code, or minus the signal that ended it.
        watchdog: kills the group if this program dies.
    """

    def __init__(self, pid: int, end: Awaitable[int], watchdog: Watchdog) -> None:
        self.pid = pid
        self._end = end
        self._has_ended = False
        self._watchdog = watchdog
        watchdog.guard(pid)

    async def exited(self) -> int:
        """Wait for the end, kill what is left of the group, and return the exit code or minus the signal."""
        code = await self._end
        self._has_ended = True
        self.kill()
        self._watchdog.release(self.pid)
        return code

    def terminate(self) -> None:
        """Send SIGTERM to the process, as a kubelet does."""
        if not self._has_ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the whole group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class ProcessStarter:
    """Starter of container processes, which it kills if this program dies.

    Args:
        fork_server: run `python -m …` in forks of a process that has imported the large libraries.
    """

    def __init__(self, *, fork_server: bool = False) -> None:
        self._watchdog = Watchdog()
        self._forks = ForkClient() if fork_server and ForkClient.is_possible() else None
        self._opening: asyncio.Task[None] | None = None

    def prepare(self, command: Sequence[str]) -> None:
        """Start the fork server in the background if it can run the command. Idempotent."""
        if self._opening is None and self._forks is not None and is_module_run(command):
            self._opening = asyncio.create_task(self._open(self._forks))

    async def _open(self, forks: ForkClient) -> None:
        self._watchdog.guard(await forks.start())

    async def start(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
    ) -> ContainerProcess:
        """Start a command.

        Args:
            command: program and arguments; the program is looked for on the PATH of the environment.
            environment: the whole environment.
            folder: working directory.
            log: file to which standard output and standard error are appended.

        Raises:
            OSError: the program cannot be run.
        """
        if self._forks is not None and (module := module_of(command, environment)) is not None:
            self.prepare(command)
            try:
                assert self._opening is not None
                await self._opening
                pid, end = await self._forks.fork(module, command[3:], environment, folder, log)
                return ContainerProcess(pid, end, self._watchdog)
            except ForkServerError as error:
                _log.warning("%s; processes start without it", error)
                await self._forks.close()
                self._forks = None
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=dict(environment),
                cwd=folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # no preexec_fn: Python code between fork and exec can crash beside threads
            )
        return ContainerProcess(process.pid, process.wait(), self._watchdog)

    async def close(self) -> None:
        """End the fork server, and kill every group that still runs."""
        if self._opening is not None:
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._forks is not None:
            await self._forks.close()
        self._watchdog.close()
