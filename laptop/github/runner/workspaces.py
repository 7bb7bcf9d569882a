"""Folders that jobs work in: one job at a time in each, and the same paths for all jobs, as on a self-hosted runner.

Only main's own jobs leave a checkout for each other. Code that no one has reviewed could leave a changed file, its
index or its bytecode behind, for a job that has access.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout


@dataclass(frozen=True)
class Workspace:
    """Folders of one job.

    Attributes:
        path: the workspace; empty when the job starts.
        kept: the last checkout of main here, which actions/checkout starts from; may not exist.
    """

    path: Path
    kept: Path


@contextmanager
def lease_workspace(folder: Path, *, reviewed: bool) -> Iterator[Workspace]:
    """Take the first free workspace until the block ends.

    Args:
        folder: holds all workspaces. Runners in several processes can share it. A workspace whose runner died is free.
        reviewed: the job's code is main's: it may start from a kept checkout, and its own is kept.
    """
    for number in itertools.count(1):
        home = folder / str(number)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(home / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            workspace = Workspace(home / "workspace", home / ("kept" if reviewed else "nothing"))
            shutil.rmtree(workspace.path, ignore_errors=True)  # of a killed job, in an unknown state
            workspace.path.mkdir(mode=0o700)
            try:
                yield workspace
            finally:
                if reviewed:
                    _keep(workspace)
                else:
                    shutil.rmtree(workspace.path, ignore_errors=True)
        finally:
            lock.release()
        return


def _keep(workspace: Workspace) -> None:
    if (workspace.path / ".git").is_dir():
        shutil.rmtree(workspace.kept, ignore_errors=True)
        workspace.path.rename(workspace.kept)
    else:
        shutil.rmtree(workspace.path, ignore_errors=True)
