"""Start the Python commands of workflow steps in a process that has imported the large libraries.

A workflow step that runs `.venv/bin/mlops …` spends much of its time on imports. `CommandForks` starts a server that
has done them. Its `environment` puts a `sitecustomize` module on the path of each step's Python, which asks the server
for a fork, connects it to the step's standard streams, and ends as the fork ends. Python starts as usual if the server
cannot run a command.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from laptop.cluster import FORK_SERVER, fork_server

_HERE = Path(__file__).parent
SOCKET = "MLOPS_COMMAND_FORKS"
"""Variable with the path of the server's socket."""

NAMES = "MLOPS_LAPTOP_NAMES"
"""Variable with the address of the proxy that knows the names of load balancers; see `site/laptop_names.py`."""


class CommandForks:
    """Server of forks for the Python commands of workflow steps. Linux only: elsewhere it is never started."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, environment: Mapping[str, str]) -> None:
        """Start the server, unless it runs or the variable `FORK_SERVER` turns forks off.

        Args:
            environment: variables that every step gets; the server gets those that Python reads at its start.
        """
        if self._process is not None or sys.platform != "linux" or os.environ.get(FORK_SERVER) == "0":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="mlops-forks-")  # a socket's path has 108 bytes at most
        self._process = subprocess.Popen(
            [sys.executable, str(_HERE / "command_server.py"), str(self._socket), fork_server.__file__],
            stdin=subprocess.PIPE,  # ends with this process
            env={
                **{name: value for name, value in environment.items() if name.startswith(fork_server.READ_EARLY)},
                **{name: value for name, value in fork_server.ENVIRONMENT.items() if not name.startswith("PYTHON")},
                "PATH": os.defpath,
                "HOME": "/nonexistent",
            },
            cwd="/",
            start_new_session=True,
        )

    @property
    def environment(self) -> dict[str, str]:
        """Variables for a step; PYTHONPATH must come before the step's own."""
        return {"PYTHONPATH": str(_HERE / "site"), SOCKET: str(self._socket)} if self._process is not None else {}

    def close(self) -> None:
        """End the server and every fork that still runs."""
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def _socket(self) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / "socket"
