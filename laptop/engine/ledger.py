"""The state of a stack while a run changes it.

The file is replaced as a whole (temporary file, fsync, rename) before and after each step: a step is noted as
pending before the provider is called, so that a run that dies at any moment can be taken up again. Steps run at
once, so a write carries all changes that came in while the write before it was under way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from laptop.engine.resources import Contents, Pending, ResourceState
from laptop.engine.sealing import Seal
from laptop.engine.state import Encoder
from pipelines.declarations import files
from pipelines.declarations.errors import MlopsError

T = TypeVar("T")


class Ledger:
    """The contents of a stack in memory, and in its file when it has one.

    Args:
        contents: taken over, not copied.
        path: the file; None keeps everything in memory, as a preview does.
        seal: what secrets are sealed with; needed with a path.
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
        """Changes the contents, and returns when the change is safely in the file."""
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
        """The resource with a URN, if there is one."""
        with self._lock:
            return self.contents.resources.get(urn)

    def pending(self) -> dict[tuple[str, str, str], Pending]:
        """The steps that were begun and are not known to have ended."""
        with self._lock:
            return dict(self.contents.pending)

    def is_doomed(self, known: ResourceState) -> bool:
        """Whether this is the replaced copy of a resource."""
        with self._lock:
            return self.contents.doomed.get((known.urn, known.id)) is known

    def put(self, new: ResourceState) -> None:
        """Keeps a resource as it is now."""

        def mutate(contents: Contents) -> None:
            contents.resources[new.urn] = new

        self.change(mutate)

    def created(self, new: ResourceState, old: ResourceState | None) -> None:
        """Keeps a new resource; the copy that it replaces is to be deleted at the end."""

        def mutate(contents: Contents) -> None:
            contents.pending.pop(("create", new.urn, ""), None)
            contents.pending.pop(("update", new.urn, ""), None)
            contents.resources[new.urn] = new
            # The same id is the same thing: it was taken over, and must not be deleted under the new one.
            if old is not None and not old.external and (old.id != new.id or not new.id):
                contents.doomed[(old.urn, old.id)] = old

        self.change(mutate)

    def updated(self, new: ResourceState) -> None:
        """Keeps a resource as an update left it."""

        def mutate(contents: Contents) -> None:
            contents.pending.pop(("update", new.urn, ""), None)
            contents.resources[new.urn] = new

        self.change(mutate)

    def drop(self, known: ResourceState) -> None:
        """Forgets a resource, or the replaced copy of one, and what was begun on it."""

        def mutate(contents: Contents) -> None:
            for key in [Pending("delete", known).key, ("update", known.urn, "")]:
                contents.pending.pop(key, None)
            if contents.doomed.get((known.urn, known.id)) is known:
                del contents.doomed[(known.urn, known.id)]
            elif contents.resources.get(known.urn) is known:
                del contents.resources[known.urn]

        self.change(mutate)

    def forget(self, pending: Pending) -> None:
        """Takes back the note that a step was begun."""

        def mutate(contents: Contents) -> None:
            contents.pending.pop(pending.key, None)

        self.change(mutate)

    def ask(self, pending: Pending, action: Callable[[], T], *, keep: bool = False) -> T:
        """Calls a provider with the step noted as begun, so that a crash from here on is known of.

        The note stays after any failure but an `MlopsError`, which says that nothing was done; with `keep` after
        that too.
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
