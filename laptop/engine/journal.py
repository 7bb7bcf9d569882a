"""Journal: the state of a stack while a run changes it.

Each step is noted as pending before the provider is called, so a run that dies at any moment can be resumed. The
file is replaced atomically (temporary file, fsync, rename). Steps run in parallel, so one write carries all changes
that arrived during the write before it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from laptop.engine.resources import Contents, Pending, ResourceState
from laptop.engine.sealing import Seal
from laptop.engine.state_file import Encoder
from pipelines.declarations import atomic_files as files
from pipelines.declarations.errors import MlopsError

T = TypeVar("T")


class Journal:
    """Contents of a stack in memory, and in a file if there is one.

    Args:
        contents: used as is, not copied.
        path: state file; None keeps everything in memory, as a preview does.
        seal: encrypts secrets; required with a path.
    """

    def __init__(self, contents: Contents, path: Path | None = None, seal: Seal | None = None) -> None:
        self.contents = contents
        self.changes = 0
        self._path = path
        self._encoder = Encoder(seal) if seal is not None else None
        self._written = 0
        self._lock = threading.RLock()
        self._writing = threading.Lock()

    def change(self, mutate: Callable[[Contents], None]) -> None:
        """Change the contents. Returns once the change is in the file."""
        with self._lock:
            mutate(self.contents)
            self.changes += 1
            mine = self.changes
        if self._path is None or self._encoder is None:
            return
        with self._writing:
            if self._written >= mine:
                return
            with self._lock:
                reached, data = self.changes, self._encoder.encode(self.contents)
            files.write_atomically(self._path, data)
            self._written = reached

    def known(self, urn: str) -> ResourceState | None:
        """Return the resource with a URN, if there is one."""
        with self._lock:
            return self.contents.resources.get(urn)

    def pending(self) -> dict[tuple[str, str, str], Pending]:
        """Return the steps that began and are not known to have ended."""
        with self._lock:
            return dict(self.contents.pending)

    def is_doomed(self, known: ResourceState) -> bool:
        """Return True for the replaced copy of a resource."""
        with self._lock:
            return self.contents.doomed.get((known.urn, known.id)) is known

    def put(self, new: ResourceState) -> None:
        """Store a resource."""

        def mutate(contents: Contents) -> None:
            contents.resources[new.urn] = new

        self.change(mutate)

    def created(self, new: ResourceState, old: ResourceState | None) -> None:
        """Store a new resource, and mark the copy that it replaces for deletion."""

        def mutate(contents: Contents) -> None:
            contents.pending.pop(("create", new.urn, ""), None)
            contents.pending.pop(("update", new.urn, ""), None)
            contents.resources[new.urn] = new
            # The same id means that the resource was adopted: deleting the old copy would delete the new one.
            if old is not None and not old.external and (old.id != new.id or not new.id):
                contents.doomed[(old.urn, old.id)] = old

        self.change(mutate)

    def rename(self, old: str, new: str) -> None:
        """Give a resource another URN, also where other resources refer to it."""

        def mutate(contents: Contents) -> None:
            contents.resources = {
                known.urn: known for known in (each.renamed(old, new) for each in contents.resources.values())
            }
            contents.doomed = {
                key: known if known.urn == old else known.renamed(old, new) for key, known in contents.doomed.items()
            }
            pending = [replace(item, resource=item.resource.renamed(old, new)) for item in contents.pending.values()]
            contents.pending = {item.key: item for item in pending}

        self.change(mutate)

    def updated(self, new: ResourceState) -> None:
        """Store a resource after an update."""

        def mutate(contents: Contents) -> None:
            contents.pending.pop(("update", new.urn, ""), None)
            contents.resources[new.urn] = new

        self.change(mutate)

    def drop(self, known: ResourceState) -> None:
        """Forget a resource, or the replaced copy of one, with its pending steps."""

        def mutate(contents: Contents) -> None:
            for key in [Pending("delete", known).key, ("update", known.urn, "")]:
                contents.pending.pop(key, None)
            if contents.doomed.get((known.urn, known.id)) is known:
                del contents.doomed[(known.urn, known.id)]
            elif contents.resources.get(known.urn) is known:
                del contents.resources[known.urn]

        self.change(mutate)

    def forget(self, pending: Pending) -> None:
        """Remove the note that a step began."""

        def mutate(contents: Contents) -> None:
            contents.pending.pop(pending.key, None)

        self.change(mutate)

    def attempt(self, pending: Pending, action: Callable[[], T], *, keep: bool = False) -> T:
        """Call a provider with the step noted as pending, so a crash leaves a trace.

        An `MlopsError` means that nothing was done, so it removes the note unless `keep` is set. Any other failure
        leaves the note.
        """

        def mutate(contents: Contents) -> None:
            contents.pending[pending.key] = pending

        self.change(mutate)
        try:
            return action()
        except MlopsError:
            if not keep:
                self.forget(pending)
            raise
