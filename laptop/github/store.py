"""The laptop GitHub's state: one JSON file, changed under a lock and replaced as a whole."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.files import write_atomically

State = dict[str, Any]


class Store:
    """The state of one forge; safe between threads and between processes.

    Args:
        folder: holds `forge.json` and its lock.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "forge.json"
        self._seen: tuple[tuple[int, int], State] | None = None

    def exists(self) -> bool:
        return self.path.is_file()

    def create(self, state: State) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self.path, json.dumps(state))

    def read(self) -> State:
        """The state as last written.

        Raises:
            MlopsError: there is none, or the file is damaged.
        """
        try:
            state: State = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            raise MlopsError(f"there is no repository in {self.folder}", fix="create it first") from None
        except ValueError as error:
            raise MlopsError(f"{self.path} is damaged: {error}", fix="remove the folder and create it again") from None
        return state

    def look(self) -> State:
        """The state as last written, for those who look often: parsed once a version, and not to be changed.

        Raises:
            MlopsError: as `read`.
        """
        version = self.version()
        if self._seen is None or self._seen[0] != version:
            self._seen = version, self.read()
        return self._seen[1]

    @contextlib.contextmanager
    def change(self) -> Iterator[State]:
        """The state, to be changed in place: written when the block ends, forgotten when it raises."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = self.read()
            before = json.dumps(state)
            yield state
            after = json.dumps(state)
            if after != before:
                write_atomically(self.path, after)

    def version(self) -> tuple[int, int]:
        """Changes with every write."""
        found = self.path.stat()
        return found.st_ino, found.st_mtime_ns
