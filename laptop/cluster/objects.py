"""In-memory store of Kubernetes objects, with versions, conflicts, generations and change events.

Readers get the stored objects and must not change them. Writers pass a new object, or use `modify`, which changes a
copy. A store belongs to one event loop and is not thread-safe.

A controller writes through a view of its own (`written_by`), which records it as the manager of the fields it sets.
"""

from __future__ import annotations

import copy
import secrets
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from laptop.cluster.defaults import empty_object, with_defaults, with_job_selector
from laptop.cluster.field_ownership import FieldSet, Manager, after_update, read_managers, write_managers
from laptop.cluster.kinds import JOB, NAMESPACE, POD, Kind
from laptop.cluster.refusals import StatusError, already_exists, conflict, forbidden, not_found
from laptop.cluster.typed_schemas import type_of

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
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes' alphabet for generated names
WITHOUT_GENERATION = {
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "Endpoints",
    "Event",
    "HorizontalPodAutoscaler",
    "LimitRange",
    "Namespace",
    "Node",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "Secret",
    "Service",
    "ServiceAccount",
}
"""Kinds whose objects have no `metadata.generation`."""

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
"""Finalizers by which a deletion waits for the garbage collector."""


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


def annotations_of(obj: Object) -> Mapping[str, str]:
    """Return the annotations of an object."""
    found: Mapping[str, str] = obj["metadata"].get("annotations") or {}
    return found


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


class _Shared:
    """Version of the newest change, and the events that are not delivered yet."""

    def __init__(self) -> None:
        self.value = 0
        self.pending: deque[ObjectEvent] = deque()
        self.delivering = False


class ObjectStore:
    """Objects of the cluster, and the listeners to their changes."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[tuple[str, str], Object]] = {}
        self._shared = _Shared()
        self._history: deque[ObjectEvent] = deque(maxlen=_HISTORY)
        self._listeners: list[Callable[[ObjectEvent], None]] = []
        self._manager = ""
        self.pod_webhooks: list[Callable[[ObjectStore, str, Object], Object]] = []
        """Mutating webhooks: each gets the namespace and a pod that a controller creates, and returns the pod."""

    def written_by(self, manager: str) -> ObjectStore:
        """Return a view of this store that records a field manager for what is written through it."""
        view = copy.copy(self)
        view._manager = manager
        return view

    @property
    def version(self) -> int:
        """Version of the newest change."""
        return self._shared.value

    @property
    def _version(self) -> int:
        return self._shared.value

    @_version.setter
    def _version(self, value: int) -> None:
        self._shared.value = value

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
            raise not_found(kind, name)
        return found

    def find_all(self, kind: Kind, namespace: str = "") -> list[Object]:
        """Return the objects of a kind in a namespace, or in all if it is "", oldest first."""
        objects = self._objects.get(kind, {})
        return [obj for (space, _), obj in objects.items() if not namespace or space == namespace]

    def find_uid(self, kind: Kind, uid: str | None) -> Object | None:
        """Return the object of a kind with this uid, or None."""
        return next((obj for obj in self._objects.get(kind, {}).values() if uid_of(obj) == uid), None)

    def everything(self) -> Iterable[tuple[Kind, Object]]:
        """Return every object with its kind."""
        return [(kind, obj) for kind, objects in self._objects.items() for obj in objects.values()]

    def owned(self, kind: Kind, owner: Object) -> list[Object]:
        """Return the objects of a kind that `owner` owns, oldest first."""
        uid = uid_of(owner)
        return [obj for obj in self.find_all(kind, namespace_of(owner)) if is_owned_by(obj, uid)]

    def create(
        self, kind: Kind, namespace: str, obj: Object, prepare: Callable[[Object, str], Object] | None = None
    ) -> Object:
        """Add an object. `metadata.generateName` becomes a name.

        Args:
            kind: kind of the object.
            namespace: namespace of the object.
            obj: new object.
            prepare: returns the object to store, given the new one and its uid.

        Raises:
            StatusError: 404, the namespace does not exist; 403, it is being deleted; 409, the object exists.
        """
        obj = copy.deepcopy(obj)
        if self._manager:  # the API sets defaults itself
            obj = {**with_defaults(kind, obj), **({"status": obj["status"]} if "status" in obj else {})}
            prepare = with_job_selector if kind is JOB else None
        metadata = obj.setdefault("metadata", {})
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = generated_name(metadata["generateName"])
        name = name_of(obj)
        if kind.namespaced:
            metadata["namespace"] = namespace
            space = self.get(NAMESPACE, "", namespace)
            if is_deleting(space):
                why = f"unable to create new content in namespace {namespace} because it is being terminated"
                raise forbidden(kind, name, why)
        if self.find(kind, namespace, name) is not None:
            raise already_exists(kind, name)
        obj |= {"apiVersion": kind.api_version, "kind": kind.name}
        for key in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
            metadata.pop(key, None)
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
        metadata.pop("generation", None)
        if kind.name not in WITHOUT_GENERATION:
            metadata["generation"] = 1
        if self._manager:
            self._own(kind, empty_object(kind), obj)
        if prepare is not None:
            obj = prepare(obj, metadata["uid"])
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
            raise conflict(kind, name)
        if status:
            new = {**old, "metadata": dict(old["metadata"])}
            if "managedFields" in (obj.get("metadata") or {}):
                new["metadata"]["managedFields"] = obj["metadata"]["managedFields"]
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
        return self._changed(kind, old, new)

    def modify(self, kind: Kind, obj: Object, change: Callable[[Object], None]) -> Object | None:
        """Apply `change` to a copy of the newest version of an object and store it. Returns None if the object is gone.

        For controllers: metadata, spec and status are written together, without a conflict.
        """
        old = self.find(kind, namespace_of(obj), name_of(obj))
        if old is None or uid_of(old) != uid_of(obj):
            return None
        new = copy.deepcopy(old)
        change(new)
        if self._manager and new != old:
            self._own(kind, old, new)
        return self._changed(kind, old, new)

    def delete(self, kind: Kind, namespace: str, name: str, *, propagation: str = "Background") -> Object:
        """Delete an object.

        Pods and namespaces are marked, and removed once they have ended. An object with finalizers is marked, and
        removed with the last of them. With the propagation `Foreground` an object is removed after the objects it
        owns, with `Background` before them; with `Orphan` those stay.

        Returns:
            The object as it was removed, or as it is marked.

        Raises:
            StatusError: 404, it does not exist.
        """
        obj = self.get(kind, namespace, name)
        finalizers = list(obj["metadata"].get("finalizers") or ())
        mine = {"Foreground": FOREGROUND, "Orphan": ORPHAN}.get(propagation)
        if mine and mine not in finalizers and kind is not NAMESPACE:
            finalizers.append(mine)
        if kind not in (POD, NAMESPACE) and not finalizers:
            return self.remove(kind, obj)
        if is_deleting(obj) and finalizers == list(obj["metadata"].get("finalizers") or ()):
            return obj
        marked = copy.deepcopy(obj)
        grace = _grace_seconds(obj) if kind is POD else 0
        marked["metadata"] |= {"deletionTimestamp": now()} if not is_deleting(obj) else {}
        if kind is not NAMESPACE:
            marked["metadata"].setdefault("deletionGracePeriodSeconds", grace)
        if finalizers:
            marked["metadata"]["finalizers"] = finalizers
        if kind is NAMESPACE:
            marked["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        if "generation" in marked["metadata"] and not is_deleting(obj):
            marked["metadata"]["generation"] += 1
        return self._write("MODIFIED", kind, marked)

    def remove(self, kind: Kind, obj: Object) -> Object:
        """Remove an object immediately, whatever its finalizers. Idempotent."""
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

    def _changed(self, kind: Kind, old: Object, new: Object) -> Object:
        """Store a changed object, and remove it if it is being deleted and its last finalizer is gone."""
        if new == old:
            return old
        if "generation" in old["metadata"] and _declared(new) != _declared(old):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        if is_deleting(old) and old["metadata"].get("finalizers") and not new["metadata"].get("finalizers"):
            new["metadata"].pop("finalizers", None)
            written = self._write("MODIFIED", kind, new)
            return written if kind in (POD, NAMESPACE) else self.remove(kind, written)
        return self._write("MODIFIED", kind, new)

    def _own(self, kind: Kind, old: Object, new: Object) -> None:
        """Record the view's manager as the owner of what it changed."""
        managers = read_managers(old["metadata"].get("managedFields")) or {}
        type_, time = type_of(kind), now()
        main = Manager(self._manager, "Update", kind.api_version)
        status: FieldSet = {"f:status": {}}
        if _without_status(old) != _without_status(new):
            managers = after_update(type_, managers, main, old, new, status, time)
        if old.get("status") != new.get("status"):
            part = Manager(self._manager, "Update", kind.api_version, "status")
            before, after = {"status": old.get("status") or {}}, {"status": new.get("status") or {}}
            managers = after_update(type_, managers, part, before, after, {}, time)
        if managers:
            new["metadata"]["managedFields"] = write_managers(managers)

    def _write(self, type_: str, kind: Kind, obj: Object) -> Object:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._objects.setdefault(kind, {})[(namespace_of(obj), name_of(obj))] = obj
        self._tell(ObjectEvent(type_, kind, obj, self._version))
        return obj

    def _tell(self, event: ObjectEvent) -> None:
        """Deliver an event. Events that a listener causes follow, so that all listeners see them in order."""
        self._history.append(event)
        self._shared.pending.append(event)
        if self._shared.delivering:
            return
        self._shared.delivering = True
        try:
            while self._shared.pending:
                following = self._shared.pending.popleft()
                for listener in tuple(self._listeners):
                    listener(following)
        finally:
            self._shared.delivering = False


def _grace_seconds(pod: Object) -> int:
    """Return how long a pod may take to end: as the request says, else its own period; 0 if no node has started it."""
    own = pod["spec"].get("terminationGracePeriodSeconds", 30)
    default = own if (pod.get("status") or {}).get("startTime") else 0
    return int(pod["metadata"].get("deletionGracePeriodSeconds", default))


def _declared(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def _without_status(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key != "status"}


def generated_name(prefix: str) -> str:
    """Return a name made from `metadata.generateName`."""
    return prefix + "".join(secrets.choice(_SUFFIX) for _ in range(5))
