"""Reconcile loop of all controllers."""

from __future__ import annotations

import asyncio
import logging

from laptop.cluster.kinds import Kind
from laptop.cluster.objects import Object, ObjectEvent, ObjectStore, name_of, namespace_of

_log = logging.getLogger(__name__)

_AGAIN_AFTER_DEFECT = 1.0  # seconds


class Controller:
    """Controller of one kind: reconciles its objects, and those they own, with their specification.

    A subclass defines `kind` and `reconcile`, which is called with the newest version of an object after each change of
    the object or of one that it owns. Calls come one at a time and must be idempotent.
    """

    kind: Kind

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._due: dict[tuple[str, str], None] = {}
        self._wake = asyncio.Event()
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._stop_listening = store.listen(self._on_event)

    def reconcile(self, obj: Object) -> float | None:
        """Reconcile one object. Return the seconds until the next call, or None."""
        raise NotImplementedError

    def forget(self, obj: Object) -> None:
        """Drop the state of a deleted object."""

    def concerns(self, event: ObjectEvent) -> list[tuple[str, str]]:
        """Return the (namespace, name) of the objects of this kind that a change of another kind affects."""
        return [
            (namespace_of(event.object), reference["name"])
            for reference in event.object["metadata"].get("ownerReferences", ())
            if reference["kind"] == self.kind.name and reference["apiVersion"] == self.kind.api_version
        ]

    def close(self) -> None:
        """Stop listening to changes. Call it once, after `run` was cancelled."""
        self._stop_listening()
        for timer in self._timers.values():
            timer.cancel()

    async def run(self) -> None:
        """Reconcile until cancelled."""
        for obj in self._store.find_all(self.kind):
            self._enqueue((namespace_of(obj), name_of(obj)))
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                key = next(iter(self._due))
                del self._due[key]
                self._reconcile(key)
                await asyncio.sleep(0)

    def _reconcile(self, key: tuple[str, str]) -> None:
        obj = self._store.find(self.kind, *key)
        if obj is None:
            return
        try:
            again = self.reconcile(obj)
        except Exception:  # an error in one object must not stop the others
            _log.exception("%s %s/%s", self.kind.name, *key)
            again = _AGAIN_AFTER_DEFECT
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        if again is not None:
            self._timers[key] = asyncio.get_running_loop().call_later(max(again, 0.0), self._enqueue, key)

    def _on_event(self, event: ObjectEvent) -> None:
        if event.kind is not self.kind:
            for key in self.concerns(event):
                self._enqueue(key)
        elif event.type == "DELETED":
            key = (namespace_of(event.object), name_of(event.object))
            if (timer := self._timers.pop(key, None)) is not None:
                timer.cancel()
            self.forget(event.object)
        else:
            self._enqueue((namespace_of(event.object), name_of(event.object)))

    def _enqueue(self, key: tuple[str, str]) -> None:
        self._due[key] = None
        self._wake.set()
