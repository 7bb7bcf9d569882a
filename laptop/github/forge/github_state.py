"""State of the laptop's GitHub: one JSON file, changed under a lock and replaced as a whole."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError

State = dict[str, Any]
"""The content of the file: `settings`, `tokens`, `apps`, `pulls`, `comments`, `checks`, `events`, `runs`, …"""

_LOCK_POLL = 0.005
"""Seconds between two attempts to take the lock."""


class GitHubState:
    """The state file. Threads and processes can share it.

    Args:
        folder: holds `github.json` and its lock.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "github.json"
        self._cached: tuple[tuple[int, int, int], State] | None = None

    def exists(self) -> bool:
        """Return whether a repository was created here."""
        return self.path.is_file()

    def create(self, state: State) -> None:
        """Write the first state."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self.path, json.dumps(state))

    def read(self) -> State:
        """Return the state as last written.

        Raises:
            MlopsError: there is no repository, or the file is damaged.
        """
        try:
            state: State = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            raise self._missing() from None
        except ValueError as error:
            raise MlopsError(f"{self.path} is damaged: {error}", fix="remove the folder and create it again") from None
        return state

    def _missing(self) -> MlopsError:
        return MlopsError(f"no repository is hosted in {self.folder}", fix="mlops github create")

    def peek(self) -> State:
        """Return the state, parsed once a version. It may be out of date: use it to poll, and do not change it.

        Raises:
            MlopsError: see `read`.
        """
        version = self.version()
        if self._cached is None or self._cached[0] != version:
            self._cached = version, self.read()
        return self._cached[1]

    @contextlib.contextmanager
    def change(self) -> Iterator[State]:
        """Yield the state under a lock; write it when the block ends, and drop the changes when it raises."""
        from filelock import FileLock  # imported late: git waits for the hooks, and not all of them write

        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(self.folder / "lock", poll_interval=_LOCK_POLL):
            state = self.read()
            before = json.dumps(state)
            yield state
            after = json.dumps(state)
            if after != before:
                write_atomically(self.path, after)

    def version(self) -> tuple[int, int, int]:
        """Return a value that changes with every write, unless writes follow each other within a clock tick.

        Raises:
            MlopsError: there is no repository.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            raise self._missing() from None
        return found.st_ino, found.st_mtime_ns, found.st_size


def take_number(state: State, name: str) -> int:
    """Return the next number of a kind (`issue`, `run`, …)."""
    number = int(state["next"][name])
    state["next"][name] = number + 1
    return number


def timestamp() -> str:
    """Return the current UTC time in GitHub's format."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
