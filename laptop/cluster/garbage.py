"""Garbage collector: deletes the objects of deleted owners and namespaces."""

from __future__ import annotations

import functools

from laptop.cluster.kinds import NAMESPACE, Kind, kind_of
from laptop.cluster.objects import (
    FOREGROUND,
    ORPHAN,
    Object,
    ObjectEvent,
    ObjectStore,
    is_deleting,
    is_owned_by,
    name_of,
    namespace_of,
    uid_of,
)


class GarbageCollector:
    """Garbage collector of a store. It also finishes deletions that wait for it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        store.listen(self._on_event)

    def _on_event(self, event: ObjectEvent) -> None:
        if event.type == "ADDED":
            self._delete_without_owner(event)
        elif event.type == "DELETED":
            self._delete_owned(uid_of(event.object))
            self._finish_owners(event)
            self._finish_namespace(namespace_of(event.object))
        elif event.type == "MODIFIED" and is_deleting(event.object):
            finalizers = event.object["metadata"].get("finalizers") or ()
            if event.kind is NAMESPACE:
                self._empty(name_of(event.object))
            elif ORPHAN in finalizers:
                self._disown_owned(uid_of(event.object))
                self._finish(event.kind, event.object, ORPHAN)
            elif FOREGROUND in finalizers:
                self._delete_owned(uid_of(event.object))
                if not self._has_owned(uid_of(event.object)):
                    self._finish(event.kind, event.object, FOREGROUND)

    def _delete_without_owner(self, event: ObjectEvent) -> None:
        """Delete an object whose owners are all gone, or never existed."""
        references = event.object["metadata"].get("ownerReferences")
        if references and not any(self._exists(event.object, reference) for reference in references):
            self._delete(event.kind, event.object)

    def _exists(self, obj: Object, reference: Object) -> bool:
        kind = kind_of(reference["apiVersion"], reference["kind"])
        owner = self._store.find(kind, namespace_of(obj), reference["name"]) if kind is not None else None
        return owner is not None and uid_of(owner) == reference["uid"]

    def _delete_owned(self, uid: str) -> None:
        """Delete the objects that only the object with a uid owned; the others lose the reference to it."""
        for kind, obj in self._store.everything():
            if not is_owned_by(obj, uid):
                continue
            others = [item for item in obj["metadata"]["ownerReferences"] if item["uid"] != uid]
            if any(self._exists(obj, reference) for reference in others):
                self._store.modify(kind, obj, functools.partial(_disown, uid=uid))
            else:
                self._delete(kind, obj)

    def _disown_owned(self, uid: str) -> None:
        for kind, obj in self._owned(uid):
            self._store.modify(kind, obj, functools.partial(_disown, uid=uid))

    def _owned(self, uid: str) -> list[tuple[Kind, Object]]:
        return [(kind, obj) for kind, obj in self._store.everything() if is_owned_by(obj, uid)]

    def _delete(self, kind: Kind, obj: Object) -> None:
        still = self._store.find(kind, namespace_of(obj), name_of(obj))  # another owner's deletion may have removed it
        if still is not None and not is_deleting(still):
            self._store.delete(kind, namespace_of(obj), name_of(obj), propagation="Foreground")

    def _finish_owners(self, event: ObjectEvent) -> None:
        for reference in event.object["metadata"].get("ownerReferences", ()):
            for kind, owner in list(self._store.everything()):
                waits = FOREGROUND in (owner["metadata"].get("finalizers") or ())
                if uid_of(owner) == reference["uid"] and waits and not self._has_owned(reference["uid"]):
                    self._finish(kind, owner, FOREGROUND)

    def _finish(self, kind: Kind, owner: Object, finalizer: str) -> None:
        """Take a finalizer off an object. With the last one the object is removed."""

        def change(target: Object) -> None:
            left = [name for name in target["metadata"].get("finalizers") or () if name != finalizer]
            target["metadata"]["finalizers"] = left

        self._store.modify(kind, owner, change)

    def _has_owned(self, uid: str) -> bool:
        return any(is_owned_by(obj, uid) for _, obj in self._store.everything())

    def _empty(self, namespace: str) -> None:
        for kind, obj in self._store.everything():
            if kind.namespaced and namespace_of(obj) == namespace:
                self._delete(kind, obj)
        self._finish_namespace(namespace)

    def _finish_namespace(self, namespace: str) -> None:
        space = self._store.find(NAMESPACE, "", namespace)
        if space is None or not is_deleting(space):
            return
        if not any(kind.namespaced and namespace_of(obj) == namespace for kind, obj in self._store.everything()):
            self._store.remove(NAMESPACE, space)


def _disown(obj: Object, uid: str) -> None:
    left = [reference for reference in obj["metadata"].get("ownerReferences", ()) if reference["uid"] != uid]
    obj["metadata"]["ownerReferences"] = left
    if not left:
        del obj["metadata"]["ownerReferences"]
