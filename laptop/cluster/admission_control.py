"""Admission of objects: validation, Pod Security, references, immutable fields, and what the laptop can run."""

from __future__ import annotations

import json
from typing import Any

from laptop.cluster.defaults import with_defaults
from laptop.cluster.immutable import changed_immutables
from laptop.cluster.kinds import NAMESPACE, POD, ROLLOUT, SERVICE_ACCOUNT, Kind
from laptop.cluster.manifest_schemas import problems
from laptop.cluster.object_validation import validate
from laptop.cluster.objects import Object, ObjectStore, is_deleting
from laptop.cluster.pod_security import ENFORCE, ENFORCE_VERSION, violations
from laptop.cluster.quotas import refusal_in
from laptop.cluster.refusals import FORBIDDEN, TYPE_INVALID, FieldProblem, forbidden, invalid
from laptop.cluster.supported import unsupported

_LIMIT = "a limit of the laptop"


def admit(store: ObjectStore, kind: Kind, namespace: str, obj: Object, old: Object | None = None) -> None:
    """Check that an object may be stored.

    Args:
        store: objects of the cluster.
        kind: kind of the object.
        namespace: namespace of the object.
        obj: whole object.
        old: object that it replaces.

    Raises:
        StatusError: it is not admitted.
    """
    name = str((obj.get("metadata") or {}).get("name", ""))
    obj = with_defaults(kind, obj)
    found = validate(kind, obj)
    if kind.group == ROLLOUT.group:
        found += _custom_problems(kind, obj)
    if old is not None:
        found += changed_immutables(kind, old, obj)
        found += _late_finalizers(old, obj)
    if not found:
        found = [_limit(what) for what in unsupported(kind, obj)]
    if found:
        raise invalid(kind, name, found)
    if kind is POD and old is None:
        _check_pod_security(store, namespace, name, obj["spec"])
        _check_service_account(store, namespace, name, obj["spec"])
        if why := refusal_in(store, namespace, obj["spec"]):
            raise forbidden(POD, name, why)


def create_pod(store: ObjectStore, namespace: str, pod: Object) -> Object:
    """Admit and create a pod for a controller. Webhooks that the store has may change it first.

    Raises:
        StatusError: it is not admitted.
    """
    for webhook in store.pod_webhooks:
        pod = webhook(store, namespace, pod)
    metadata = pod["metadata"]
    named = {**metadata, "name": metadata.get("name") or f"{metadata['generateName']}00000"}
    admit(store, POD, namespace, {**pod, "metadata": named})
    return store.create(POD, namespace, pod)


def _late_finalizers(old: Object, obj: Object) -> list[FieldProblem]:
    """Return the problem of an object that is being deleted and would get another finalizer."""
    before, after = (each["metadata"].get("finalizers") or () for each in (old, obj))
    added = [name for name in after if name not in before]
    if not (is_deleting(old) and added):
        return []
    says = f"no new finalizers can be added if the object is being deleted, found new finalizers {json.dumps(added)}"
    return [FieldProblem(FORBIDDEN, "metadata.finalizers", detail=says)] * 2


def _custom_problems(kind: Kind, obj: Object) -> list[FieldProblem]:
    """Return the problems of a custom resource: its schema holds what the laptop runs, and nothing else."""
    found = []
    for text in problems(kind, {key: value for key, value in obj.items() if key != "status"}):
        path, _, what = text.partition(": ")
        if path.startswith("metadata"):
            continue
        found.append(FieldProblem(TYPE_INVALID, path, "", f"{what} ({_LIMIT})" if "unknown field" in what else what))
    return found


def _limit(text: str) -> FieldProblem:
    path, _, what = text.partition(": ")
    return FieldProblem(FORBIDDEN, path, detail=f"{what or path} ({_LIMIT})")


def _check_pod_security(store: ObjectStore, namespace: str, name: str, pod: dict[str, Any]) -> None:
    """Refuse a pod that violates the standard of its namespace. Workloads are stored; their pods are refused."""
    home = store.find(NAMESPACE, "", namespace)
    labels = (home["metadata"].get("labels") or {}) if home else {}
    if labels.get(ENFORCE) != "restricted":
        return
    if broken := violations(pod):
        level = f"restricted:{labels.get(ENFORCE_VERSION, 'latest')}"
        raise forbidden(POD, name, f'violates PodSecurity "{level}": ' + ", ".join(broken))


def _check_service_account(store: ObjectStore, namespace: str, name: str, pod: dict[str, Any]) -> None:
    account = pod.get("serviceAccountName") or "default"
    if account != "default" and store.find(SERVICE_ACCOUNT, namespace, account) is None:
        raise forbidden(
            POD,
            name,
            f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found',
        )
