"""`Event` objects, with which controllers report what happened to an object."""

from __future__ import annotations

import secrets

from laptop.cluster.kinds import EVENT, Kind
from laptop.cluster.objects import Object, ObjectStore, name_of, namespace_of, now, uid_of
from laptop.cluster.refusals import StatusError

_KEPT = 500


def record(store: ObjectStore, kind: Kind, obj: Object, reason: str, message: str, *, warning: bool = False) -> None:
    """Record an event about an object. Repeating it raises its count."""
    namespace = namespace_of(obj) or "default"
    for event in store.find_all(EVENT, namespace):
        about = event["involvedObject"]
        if (about["uid"], event["reason"], event["message"]) == (uid_of(obj), reason, message):
            store.modify(EVENT, event, _again)
            return
    involved = {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": name_of(obj),
        "namespace": namespace,
        "uid": uid_of(obj),
    }
    event = {
        "metadata": {"name": f"{name_of(obj)[:230]}.{secrets.token_hex(6)}"},
        "involvedObject": involved,
        "reason": reason,
        "message": message,
        "type": "Warning" if warning else "Normal",
        "firstTimestamp": now(),
        "lastTimestamp": now(),
        "count": 1,
        "source": {"component": "laptop"},
    }
    try:
        store.create(EVENT, namespace, event)
    except StatusError:  # the namespace is being deleted
        return
    for old in store.find_all(EVENT)[:-_KEPT]:
        store.remove(EVENT, old)


def _again(event: Object) -> None:
    event |= {"count": event["count"] + 1, "lastTimestamp": now()}
