"""In-memory store of Kubernetes objects, with versions, conflicts, generations and change events.

Readers get the stored objects and must not change them. Writers pass a new object, or use `modify`, which changes a
copy. A store belongs to one event loop and is not thread-safe.
"""

from __future__ import annotations

import copy
import secrets
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from laptop.cluster.kinds import NAMESPACE, POD, Kind
from laptop.cluster.refusals import StatusError, already_exists, conflict, forbidden, not_found

Object = dict[str, Any]

# Metadata that only the store sets.
_OURS = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_HISTORY = 4096  # changes kept for watches that resume


@dataclass(frozen=True)
class ObjectEvent:
    """A change of one object. `type` is ADDED, MODIFIED or DELETED; `version` orders all changes."""

    type: str
    kind: Kind
    object: Object
    version: int


def now() -> str:
    """Return the current time in the format of Kubernetes: UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def name_of(obj: Object) -> str:
    """Return `metadata.name`."""
    return str(obj["metadata"]["name"])


def namespace_of(obj: Object) -> str:
    """Return `metadata.namespace`, or "" for a cluster-wide object."""
    return str(obj["metadata"].get("namespace", ""))


def uid_of(obj: Object) -> str:
    """Return `metadata.uid`."""
    return str(obj["metadata"]["uid"])


def is_deleting(obj: Object) -> bool:
    """Return whether the object is being deleted."""
    return "deletionTimestamp" in obj["metadata"]


def owner_reference(kind: Kind, owner: Object) -> Object:
    """Return the owner reference with which `owner` controls another object."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def is_owned_by(obj: Object, uid: str) -> bool:
    """Return whether an object is owned by the object with a uid."""
    return any(reference["uid"] == uid for reference in obj["metadata"].get("ownerReferences", ()))


class ObjectStore:
    """Objects of the cluster, and the listeners to their changes."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[tuple[str, str], Object]] = {}
        self._version = 0
        self._history: deque[ObjectEvent] = deque(maxlen=_HISTORY)
        self._listeners: list[Callable[[ObjectEvent], None]] = []

    @property
    def version(self) -> int:
        """Version of the newest change."""
        return self._version

    def listen(self, listener: Callable[[ObjectEvent], None]) -> Callable[[], None]:
        """Call `listener` with every future change. Return a function that removes it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def since(self, version: int) -> list[ObjectEvent]:
        """Return the changes after a version.

        Raises:
            StatusError: 410, they are no longer kept.
        """
        if version < self._version and (not self._history or self._history[0].version > version + 1):
            raise StatusError(410, "Expired", f"too old resource version: {version} ({self._version})")
        return [event for event in self._history if event.version > version]

    def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return an object, or None."""
        return self._objects.get(kind, {}).get((namespace if kind.namespaced else "", name))

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Return an object.

        Raises:
            StatusError: 404, it does not exist.
        """
        found = self.find(kind, namespace, name)
        if found is None:
            raise not_found(kind.plural, name)
        return found

    def find_all(self, kind: Kind, namespace: str = "") -> list[Object]:
        """Return the objects of a kind in a namespace, or in all if it is "", oldest first."""
        objects = self._objects.get(kind, {})
        return [obj for (space, _), obj in objects.items() if not namespace or space == namespace]

    def everything(self) -> Iterable[tuple[Kind, Object]]:
        """Return every object with its kind."""
        return [(kind, obj) for kind, objects in self._objects.items() for obj in objects.values()]

    def owned(self, kind: Kind, owner: Object) -> list[Object]:
        """Return the objects of a kind that `owner` owns, oldest first."""
        uid = uid_of(owner)
        return [obj for obj in self.find_all(kind, namespace_of(owner)) if is_owned_by(obj, uid)]

    def create(self, kind: Kind, namespace: str, obj: Object) -> Object:
        """Add an object. `metadata.generateName` becomes a name.

        Raises:
            StatusError: 404, the namespace does not exist; 403, it is being deleted; 409, the object exists.
        """
        obj = copy.deepcopy(obj)
        metadata = obj.setdefault("metadata", {})
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = f"{metadata['generateName']}{secrets.token_hex(3)[:5]}"
        name = name_of(obj)
        if kind.namespaced:
            metadata["namespace"] = namespace
            space = self.get(NAMESPACE, "", namespace)
            if is_deleting(space):
                raise forbidden(kind.plural, name, f"namespace {namespace} is being terminated")
        if self.find(kind, namespace, name) is not None:
            raise already_exists(kind.plural, name)
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
        metadata.pop("resourceVersion", None)
        metadata.pop("deletionTimestamp", None)
        obj |= {"apiVersion": kind.api_version, "kind": kind.name}
        return self._write("ADDED", kind, obj)

    def replace(self, kind: Kind, namespace: str, name: str, obj: Object, *, status: bool = False) -> Object:
        """Replace an object.

        Args:
            kind: kind of the object.
            namespace: namespace of the object.
            name: name of the object.
            obj: new object.
            status: take only the status from `obj`; otherwise everything else.

        Raises:
            StatusError: 404, it does not exist; 409, `metadata.resourceVersion` is given and is not the stored one.
        """
        old = self.get(kind, namespace, name)
        seen = obj.get("metadata", {}).get("resourceVersion")
        if seen and seen != old["metadata"]["resourceVersion"]:
            raise conflict(kind.plural, name)
        if status:
            new = {**old, "metadata": dict(old["metadata"])}
            new.pop("status", None)
            source = obj
        else:
            new = copy.deepcopy({key: value for key, value in obj.items() if key != "status"})
            metadata = {key: value for key, value in new.get("metadata", {}).items() if key not in _OURS}
            metadata |= {key: old["metadata"][key] for key in _OURS if key in old["metadata"]}
            new |= {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
            source = old
        if "status" in source:
            new["status"] = copy.deepcopy(source["status"])
        if new == old:
            return old
        if _declared(new) != _declared(old):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        return self._write("MODIFIED", kind, new)

    def modify(self, kind: Kind, obj: Object, change: Callable[[Object], None]) -> Object | None:
        """Apply `change` to a copy of the newest version of an object and store it. Returns None if the object is gone.

        For controllers: metadata, spec and status are written together, without a conflict.
        """
        old = self.find(kind, namespace_of(obj), name_of(obj))
        if old is None or uid_of(old) != uid_of(obj):
            return None
        new = copy.deepcopy(old)
        change(new)
        if new == old:
            return old
        if _declared(new) != _declared(old):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        return self._write("MODIFIED", kind, new)

    def delete(self, kind: Kind, namespace: str, name: str, *, propagation: str = "Background") -> Object:
        """Delete an object.

        Pods and namespaces are marked, and removed once they have ended. With the propagation `Foreground` an object is
        removed after the objects it owns, with `Background` before them; with `Orphan` those stay.

        Raises:
            StatusError: 404, it does not exist.
        """
        obj = self.get(kind, namespace, name)
        owns = [(other_kind, other) for other_kind, other in self.everything() if is_owned_by(other, uid_of(obj))]
        if propagation == "Orphan":
            for other_kind, other in owns:
                self.modify(other_kind, other, lambda orphan: _disown(orphan, uid_of(obj)))
        waits = kind in (POD, NAMESPACE) or (propagation == "Foreground" and owns)
        if not waits:
            return self.remove(kind, obj)
        if is_deleting(obj):
            return obj
        finalizers = ["foregroundDeletion"] if propagation == "Foreground" and owns else []

        def mark(target: Object) -> None:
            target["metadata"]["deletionTimestamp"] = now()
            if finalizers:
                target["metadata"]["finalizers"] = finalizers
            if kind is NAMESPACE:
                target["status"] = {"phase": "Terminating"}

        return self.modify(kind, obj, mark) or obj

    def remove(self, kind: Kind, obj: Object) -> Object:
        """Remove an object immediately. Idempotent."""
        objects = self._objects.get(kind, {})
        key = (namespace_of(obj), name_of(obj))
        stored = objects.get(key)
        if stored is None or uid_of(stored) != uid_of(obj):
            return obj
        del objects[key]
        self._version += 1
        gone = copy.deepcopy(stored)
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._tell(ObjectEvent("DELETED", kind, gone, self._version))
        return gone

    def _write(self, type_: str, kind: Kind, obj: Object) -> Object:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._objects.setdefault(kind, {})[(namespace_of(obj), name_of(obj))] = obj
        self._tell(ObjectEvent(type_, kind, obj, self._version))
        return obj

    def _tell(self, event: ObjectEvent) -> None:
        self._history.append(event)
        for listener in tuple(self._listeners):
            listener(event)


def _declared(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def _disown(obj: Object, uid: str) -> None:
    obj["metadata"]["ownerReferences"] = [
        reference for reference in obj["metadata"].get("ownerReferences", ()) if reference["uid"] != uid
    ]
