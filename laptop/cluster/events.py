"""The `Event` objects by which controllers tell people what happened to an object."""

from __future__ import annotations

import secrets

from laptop.cluster.kinds import EVENT, Kind
from laptop.cluster.refusals import Refusal
from laptop.cluster.store import Object, Store, name_of, namespace_of, now, uid_of

_KEPT = 500


def record(store: Store, kind: Kind, obj: Object, reason: str, message: str, *, warning: bool = False) -> None:
    """Records an event about an object; the same one again raises its count."""
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
        "source": {"component": "small-cluster"},
    }
    try:
        store.create(EVENT, namespace, event)
    except Refusal:  # the namespace is being deleted; nobody will read it
        return
    for old in store.find_all(EVENT)[:-_KEPT]:
        store.remove(EVENT, old)


def _again(event: Object) -> None:
    event |= {"count": event["count"] + 1, "lastTimestamp": now()}
