"""Client of the fork server: the cluster's side."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from laptop.cluster import fork_server
from laptop.cluster.fork_server import ForkRequest, can_fork

_log = logging.getLogger(__name__)
_KILLED = -9

# Not run as a file: its folder would come first on the module path and hide modules of the standard library.
_PROGRAM = f"exec(compile(open({fork_server.__file__!r}).read(), {fork_server.__file__!r}, 'exec'))"


class ForkServerError(Exception):
    """The fork server is not available."""


class ForkClient:
    """A fork server and the connection to it."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._ids = itertools.count()
        self._replies: dict[int, asyncio.Future[tuple[int, asyncio.Future[int]]]] = {}
        self._ends: dict[int, asyncio.Future[int]] = {}

    @staticmethod
    def is_possible() -> bool:
        """Return whether this system can run a fork server. Linux only: elsewhere, forks would outlive it."""
        return sys.platform == "linux"

    async def start(self) -> int:
        """Start the server and return its process id. Its imports take some seconds."""
        ours, theirs = socket.socketpair()
        with theirs:
            # Libraries look for their configuration at home and in the working directory: there must be none.
            environment = {**fork_server.ENVIRONMENT, "PATH": os.defpath, "HOME": "/nonexistent"}
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _PROGRAM),
                stdin=theirs.fileno(),
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        self._ready = asyncio.get_running_loop().create_future()
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._reading = asyncio.create_task(self._read(reader))
        return self._process.pid

    async def fork(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
    ) -> tuple[int, asyncio.Future[int]]:
        """Run a module in a fork.

        Args:
            module: module, as after `python -m`.
            arguments: arguments of the module.
            environment: the whole environment.
            folder: working directory.
            log: file to which standard output and standard error are appended.

        Returns:
            The process id, which is that of its group too, and a future of the exit code or minus the signal.

        Raises:
            ForkServerError: the server is not running or not usable.
            OSError: the log cannot be written.
        """
        if self._writer is None or self._ready is None:
            raise ForkServerError("the fork server is not running")
        await asyncio.shield(self._ready)
        number = next(self._ids)
        reply: asyncio.Future[tuple[int, asyncio.Future[int]]] = asyncio.get_running_loop().create_future()
        self._replies[number] = reply
        request = ForkRequest(number, module, list(arguments), dict(environment), str(folder), str(log))
        self._writer.write(json.dumps(request._asdict()).encode() + b"\n")
        try:
            return await reply
        finally:
            self._replies.pop(number, None)

    async def close(self) -> None:
        """End the server."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._take(json.loads(line))
        except (ConnectionError, ValueError):
            _log.exception("fork server")
        finally:
            self._lose("the fork server has ended")

    def _take(self, reply: dict[str, Any]) -> None:
        if "threads" in reply:
            if reply["threads"] == 1:
                self._settle()
            else:
                self._lose(f"the fork server has {reply['threads']} threads: a library that it imports starts one")
        elif "code" in reply:
            if (end := self._ends.pop(reply["pid"], None)) is not None and not end.done():
                end.set_result(reply["code"])
        elif "error" in reply:
            self._replies[reply["id"]].set_exception(OSError(reply["error"], os.strerror(reply["error"])))
        else:
            end = asyncio.get_running_loop().create_future()
            self._ends[reply["pid"]] = end
            waiting = self._replies[reply["id"]]
            if not waiting.done():
                waiting.set_result((reply["pid"], end))

    def _settle(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _lose(self, why: str) -> None:
        """Fail everything that waits for the server. The kernel has killed its forks."""
        error = ForkServerError(why)
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # retrieved here, in case nothing waits for it
        self._writer = None
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(error)
        for end in self._ends.values():
            if not end.done():
                end.set_result(_KILLED)
        self._ends.clear()


def is_module_run(command: Sequence[str]) -> bool:
    """Return whether a command has the form `python -m <module>`."""
    return len(command) >= 3 and command[1] == "-m" and not command[2].startswith("-")


def module_of(command: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Return the module that a command runs by `python -m` with this interpreter, if a fork can; else None."""
    if not is_module_run(command) or not can_fork(environment):
        return None
    program = shutil.which(command[0], path=environment.get("PATH", ""))
    here = Path(sys.executable)
    ours = (here, here.with_name("python"), here.with_name("python3"))
    return command[2] if program is not None and Path(program) in ours else None
