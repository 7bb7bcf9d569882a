"""The folders that jobs work in: one job at a time in each, and always the same path, as on a machine that is kept."""

from __future__ import annotations

import fcntl
import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """Where one job works.

    Attributes:
        workspace: empty when the job begins.
        kept: the last checkout here, for the twin of actions/checkout to begin from; may be missing.
    """

    workspace: Path
    kept: Path


@contextmanager
def take_place(folder: Path) -> Iterator[Place]:
    """Take the first place that no job is in, and leave it to the next job at the end.

    Args:
        folder: of all places; shared by the runners of several processes. A place whose runner died is free again.
    """
    for number in itertools.count(1):
        home = folder / str(number)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (home / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            place = Place(home / "workspace", home / "kept")
            shutil.rmtree(place.workspace, ignore_errors=True)  # a killed job's: nobody knows what state it is in
            place.workspace.mkdir(mode=0o700)
            try:
                yield place
            finally:
                _leave(place)
            return


def _leave(place: Place) -> None:
    if (place.workspace / ".git").is_dir():
        shutil.rmtree(place.kept, ignore_errors=True)
        place.workspace.rename(place.kept)
    else:
        shutil.rmtree(place.workspace, ignore_errors=True)
