"""Run a command that must be able to finish its current step when this process is interrupted."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.declarations.errors import MlopsError


def run_child(command: Sequence[str], *, folder: Path, environ: Mapping[str, str] | None, output: int | None) -> int:
    """Run a command to its end and return its exit status.

    The command runs in its own process group, so that an interruption reaches it once: from this process, which
    then waits. Pulumi finishes its current steps and writes its state before it ends.

    Args:
        command: program and arguments.
        folder: working directory.
        environ: environment variables; None for those of this process.
        output: standard output, as for `subprocess.Popen`.

    Raises:
        MlopsError: the program is not on the PATH.
        KeyboardInterrupt: this process was interrupted; the command has ended.
    """
    try:
        child = subprocess.Popen(command, cwd=folder, env=environ, stdout=output, process_group=0)
    except FileNotFoundError:
        raise MlopsError(f"`{command[0]}` is not on the PATH", fix=f"install {command[0]}") from None
    with _interrupted_by_sigterm():
        interrupted: KeyboardInterrupt | None = None
        while True:
            try:
                status = child.wait()
                break
            except KeyboardInterrupt as error:
                interrupted = error
                child.send_signal(signal.SIGINT)
    if interrupted is not None:
        raise interrupted
    return status


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Treat SIGTERM like SIGINT during the block; signals can only be handled in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
