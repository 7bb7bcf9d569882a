"""Start a process that runs code or bytes of an author without credentials, and receive its answers within limits.

The process confines itself; see `pipelines.training.isolation`. What it is given is trusted and may be a pickle. What
it answers is not: a header, one line of JSON, and as many bytes as the caller allows.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from pipelines.declarations.errors import MlopsError
from pipelines.training.isolation import PACKAGE, code_folders, signal_name

LONGEST_HEADER = 1 << 20
"""Size limit of an answer's header, in bytes."""

LAST_SECONDS = 5.0
"""Seconds that a process has to end after its last word, before its end is described."""

ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}
"""Environment variables of the process: the same in every run, so that a run can be repeated."""

KEPT = ("PATH", "LD_LIBRARY_PATH", "TZ")
"""Environment variables that the process gets from the job."""

Header = TypeVar("Header", bound=BaseModel)


@dataclass(frozen=True)
class Purpose:
    """Words about a process for its error messages.

    Attributes:
        subject: whose failure it is, such as `train:train of loan-default`.
        process: name of the process.
        answer: what it should answer.
        more_memory: what to do if it was killed.
        fix: what to do if it writes something else.
        fix_crash: what to do if it ended for another reason.
    """

    subject: str
    process: str
    answer: str
    more_memory: str
    fix: str
    fix_crash: str = ""


class ConfinedProcess:
    """A process that gets a task and requests, and answers. It ends with the block, and all that it started.

    Args:
        module: module to run. Its argument is the file descriptor for answers; standard input has the task, one line of
            JSON, and then what `send` and `send_bytes` send.
        task: what the module needs to know. `readable` is added: the folders with code that it may read.
        folder: working directory and home.
        purpose: for messages.
        say: receives each line that the process prints; None to discard them.
    """

    def __init__(
        self,
        module: str,
        task: Mapping[str, object],
        folder: Path,
        purpose: Purpose,
        say: Callable[[str], None] | None,
    ) -> None:
        self._purpose = purpose
        self._expired = 0.0
        read, write = os.pipe()
        path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(write)],
                cwd=folder,
                env=_environment(folder, [str(PACKAGE.parent), *path]),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL if say is None else subprocess.PIPE,
                stderr=subprocess.DEVNULL if say is None else subprocess.STDOUT,
                pass_fds=[write],
                start_new_session=True,
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        self._answers: BinaryIO = os.fdopen(read, "rb")
        self._printing: threading.Thread | None = None
        if say is not None:
            self._printing = threading.Thread(target=self._forward, args=(say,), daemon=True)
            self._printing.start()
        document = {**task, "readable": [str(each) for each in code_folders(path)]}
        self._write(lambda given: given.write(json.dumps(document).encode() + b"\n"))

    def __enter__(self) -> ConfinedProcess:
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, and those that it started."""
        self._kill()
        self._process.wait()
        if self._printing is not None:
            self._printing.join(timeout=1)
        for stream in (self._process.stdin, self._answers):
            with suppress(OSError, AttributeError):
                stream.close()  # type: ignore[union-attr]

    def _kill(self) -> None:
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _forward(self, say: Callable[[str], None]) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                say(line.decode(errors="replace").rstrip("\n"))

    @contextmanager
    def time_limit(self, seconds: float) -> Iterator[None]:
        """Kill the process if the block takes longer, so that whatever waits for it fails."""
        timer = threading.Timer(seconds, self._expire, (seconds,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _expire(self, seconds: float) -> None:
        self._expired = seconds
        self._kill()

    def _write(self, write: Callable[[BinaryIO], object]) -> None:
        given = self._process.stdin
        assert given is not None
        with suppress(BrokenPipeError):  # the process has ended; its answer, or the lack of one, says why
            write(given)  # type: ignore[arg-type]
            given.flush()

    def send(self, value: object) -> None:
        """Send an object."""
        self._write(lambda given: pickle.dump(value, given, protocol=5))

    def send_bytes(self, content: bytes) -> None:
        """Send bytes; the process must know their number."""
        self._write(lambda given: given.write(content))

    def receive_header(self, kind: type[Header]) -> Header:
        """Receive the header of an answer.

        Raises:
            MlopsError: the process ended, or wrote something else.
        """
        header = self._answers.readline(LONGEST_HEADER)
        if not header.endswith(b"\n"):
            raise self.ended() if len(header) < LONGEST_HEADER else self.wrong_answer()
        try:
            return kind.model_validate_json(header)
        except ValidationError:
            raise self.wrong_answer() from None

    def receive(self, size: int) -> bytes:
        """Receive exactly `size` bytes.

        Raises:
            MlopsError: the process ended first.
        """
        content = self._answers.read(size)
        if len(content) < size:
            raise self.ended()
        return content

    def wrong_answer(self) -> MlopsError:
        """Return the error for an answer of another kind than expected."""
        purpose = self._purpose
        return MlopsError(
            f"{purpose.subject}: expected {purpose.answer}, found something else on the channel to the job",
            fix=purpose.fix,
        )

    def ended(self) -> MlopsError:
        """Return why the process has ended without an answer."""
        purpose = self._purpose
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=LAST_SECONDS)
        code = self._process.poll()
        if self._expired:
            return MlopsError(
                f"{purpose.subject}: expected {purpose.answer} within {self._expired:g} s, found none", fix=purpose.fix
            )
        if code is not None and code < 0:
            fix = purpose.more_memory if code == -signal.SIGKILL else purpose.fix_crash
            return MlopsError(
                f"{purpose.subject}: the {purpose.process} was ended by the signal {signal_name(-code)}", fix=fix
            )
        how = "closed the channel to the job" if code is None else f"ended with exit code {code}"
        return MlopsError(
            f"{purpose.subject}: the {purpose.process} {how} before it had {purpose.answer}", fix=purpose.fix_crash
        )


def _environment(folder: Path, path: list[str]) -> Mapping[str, str]:
    kept: dict[str, Any] = {name: os.environ[name] for name in KEPT if name in os.environ}
    folders = dict.fromkeys(("HOME", "TMPDIR"), str(folder))
    return {**kept, **ENVIRONMENT, **folders, "PYTHONPATH": os.pathsep.join(path)}
