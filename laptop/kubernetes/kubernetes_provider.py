"""Kubernetes provider of the engine: one implementation for every kind."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.policies.resource_graph import UNKNOWN
from laptop.cluster.kinds import NAMESPACE, POD, Kind
from laptop.cluster.manifest_schemas import problems
from laptop.cluster.pod_security import ENFORCE, violations
from laptop.cluster.supported import NOT_ACTED_UPON, unsupported
from laptop.cluster.templates import pod_spec_of
from laptop.engine.paths import changed_paths, write_path
from laptop.engine.provider import Created, Diff, IncompleteError, ResourceCall, is_provider
from laptop.engine.resources import ResourceState
from laptop.engine.values import Properties, has_unknown
from laptop.kubernetes import manifests
from laptop.kubernetes.api_objects import FIELD_MANAGER, ApiObjects, NoAnswerError
from laptop.kubernetes.readiness import SKIP, needs_pods, waiting_for
from laptop.kubernetes.type_tokens import kind_of_token
from pipelines.declarations.errors import MlopsError

AUTONAMED = "pulumi.com/autonamed"
PATCH_FIELD_MANAGER = "pulumi.com/patchFieldManager"
"""Annotation of an object that is applied on the server, with the name of its field manager."""

_POLL = 0.03  # seconds
_AGAIN = "run the operation again: it continues where it stopped. If that does not help, look at the cluster."
_NAME_LIMIT = 50  # characters before the random suffix of an auto-name


class KubernetesProvider:
    """Applies resources of the package `kubernetes`. Thread-safe.

    Args:
        kubeconfig: kubeconfig of the cluster; read at the first request.
        ready_within: seconds to wait until an object is ready.
        gone_within: seconds to wait until an object is gone.
    """

    def __init__(self, kubeconfig: Path, *, ready_within: float = 120.0, gone_within: float = 120.0) -> None:
        self._objects = ApiObjects(kubeconfig)
        self._ready_within = ready_within
        self._gone_within = gone_within
        self._restricted: set[str] = set()  # namespaces with the pod security level `restricted`
        self._lock = threading.Lock()

    def check(self, type_: str, name: str, inputs: dict[str, Any], old_inputs: dict[str, Any] | None) -> dict[str, Any]:
        """Add name, namespace and kind to a manifest; raise MlopsError if the cluster would refuse it."""
        given = _pruned({key: value for key, value in inputs.items() if not key.startswith("__")})
        if is_provider(type_):
            return dict(given)
        kind = kind_of_token(type_)
        metadata = _metadata(kind, name, given.get("metadata"), (old_inputs or {}).get("metadata") or {})
        manifest = {**given, "apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
        self._remember_namespace(kind, manifest)
        # Only checked manifests are in the state, and loading the schemas takes a tenth of an unchanged `up`.
        unchanged = manifest == old_inputs
        found = [] if unchanged else problems(kind, manifest, unknown=UNKNOWN)
        if not found and not has_unknown(pod_spec_of(kind, manifest)):
            if not unchanged:
                found = [f"{what} (a limit of the laptop)" for what in unsupported(kind, manifest)]
            found += self._security_problems(kind, manifest)
        if found:
            raise MlopsError(
                f"`{name}` ({kind.name}) would be refused by the cluster:\n"
                + "\n".join(f"    {what}" for what in found),
                fix="change the resource in the program.",
            )
        return manifest

    def diff(self, call: ResourceCall) -> Diff:
        """Compare checked manifests."""
        if is_provider(call.type):
            return Diff(tuple(write_path(path) for path in changed_paths(call.old_inputs, call.inputs)))
        return manifests.diff(kind_of_token(call.type), call.old_inputs, call.inputs)

    def create(self, call: ResourceCall) -> Created:
        """Create the object and wait until it is ready, as Pulumi does.

        A provider with `upsertExistingObjects` takes an object over that exists.

        Raises:
            IncompleteError: the object exists and is not ready, or may exist because no answer came.
            MlopsError: the cluster refused to create it.
        """
        if is_provider(call.type):
            return Created(call.urn.rpartition("::")[2], call.inputs)
        kind = kind_of_token(call.type)
        namespace, name = _place(kind, call.inputs)
        manager = _field_manager(call.inputs)
        # The SDK writes options of a provider as JSON.
        adopt = call.resuming or call.configuration.get("upsertExistingObjects") in (True, "true")
        with _explained("create", kind, namespace, name):
            is_applied = bool(manager) and (adopt or self._objects.get(kind, namespace, name) is None)
        try:
            with _explained("create", kind, namespace, name):
                if is_applied:
                    self._objects.apply(kind, namespace, name, call.inputs, manager)
                else:
                    self._objects.create(kind, namespace, name, call.inputs, adopt=adopt)
        except NoAnswerError as error:
            raise IncompleteError(str(error), _id(namespace, name), call.inputs) from error
        try:
            return Created(_id(namespace, name), self._wait_until_ready(kind, namespace, name))
        except MlopsError as error:
            raise IncompleteError(str(error), _id(namespace, name), call.inputs) from error

    def read(self, call: ResourceCall) -> dict[str, Any] | None:
        """Return the live object without the fields of other controllers, or None if it does not exist."""
        if is_provider(call.type):
            return call.outputs or call.inputs
        kind = kind_of_token(call.type)
        namespace, name = _parse_id(kind, call.id)
        with _explained("read", kind, namespace, name):
            live = self._objects.get(kind, namespace, name)
        if live is None or not call.inputs:
            return live
        known: dict[str, Any] = manifests.without_foreign_fields(live, call.inputs, call.outputs)
        return known

    def update(self, call: ResourceCall) -> Created:
        """Patch the differences between the manifests, keeping the fields of other controllers.

        An object with its own field manager is applied on the server, as Pulumi's provider does with all objects.
        """
        if is_provider(call.type):
            return Created(call.id, call.inputs)
        kind = kind_of_token(call.type)
        namespace, name = _parse_id(kind, call.id)
        patch = manifests.merge_patch(call.old_inputs, call.inputs)
        manager = _field_manager(call.inputs)
        with _explained("update", kind, namespace, name):
            if patch and manager:
                self._objects.apply(kind, namespace, name, call.inputs, manager)
            elif patch:
                self._objects.patch(kind, namespace, name, patch)
        return Created(call.id, self._wait_until_ready(kind, namespace, name))

    def delete(self, call: ResourceCall) -> None:
        """Delete the object with its dependents, and wait until it is gone."""
        if is_provider(call.type):
            return
        kind = kind_of_token(call.type)
        namespace, name = _parse_id(kind, call.id)
        with _explained("delete", kind, namespace, name):
            live = self._objects.get(kind, namespace, name)
            if live is None:
                return
            uid = live["metadata"]["uid"]
            self._objects.delete(kind, namespace, name)

            def remains() -> str:
                found = self._objects.get(kind, namespace, name)
                return "its deletion" if found is not None and found["metadata"]["uid"] == uid else ""

            hint = "check its finalizers and its dependents"
            self._wait(remains, self._gone_within, f"{kind.name} {_id(namespace, name)}", hint)

    def exported_outputs(self, known: ResourceState) -> Properties:
        """Return the live object with the notes of Pulumi's own provider: its inputs, its API version, its manager.

        The manager is a new one. Pulumi's provider takes over the fields of `FIELD_MANAGER` in its first change.
        """
        manager = f"{FIELD_MANAGER}-{hashlib.sha256(known.urn.encode()).hexdigest()[:8]}"
        manager = _field_manager(known.inputs.values) or manager
        notes = {
            "__inputs": known.inputs.values,
            "__initialApiVersion": known.inputs.values.get("apiVersion", ""),
            "__fieldManager": manager,
        }
        secrets_of_inputs = {("__inputs", *path) for path in known.inputs.secrets}
        return Properties({**known.outputs.values, **notes}, known.outputs.secrets | secrets_of_inputs)

    def recorded(self, type_: str, inputs: dict[str, Any]) -> dict[str, str]:
        """Return the inputs without effect on the laptop, with the reasons."""
        if is_provider(type_):
            return {}
        kind = kind_of_token(type_).name
        return {"spec": NOT_ACTED_UPON[kind]} if kind in NOT_ACTED_UPON else {}

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        """Refuse every function: the package has none on the laptop."""
        raise MlopsError(
            f"the laptop does not support the function `{token}`",
            fix="remove the call from the program.",
        )

    def _wait_until_ready(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        live: dict[str, Any] = {}

        def missing() -> str:
            with _explained("read", kind, namespace, name):
                found = self._objects.get(kind, namespace, name)
                if found is None:
                    raise MlopsError(f"{kind.name} {_id(namespace, name)} was deleted before it was ready")
                pods = self._objects.list(POD, namespace) if needs_pods(kind) else []
            live.clear()
            live.update(found)
            return waiting_for(kind, found, pods)

        hint = f'set the annotation {SKIP}: "true" to skip the wait'
        self._wait(missing, self._ready_within, f"{kind.name} {_id(namespace, name)}", hint)
        return dict(live)

    @staticmethod
    def _wait(missing: Callable[[], str], seconds: float, what: str, hint: str) -> None:
        deadline = time.monotonic() + seconds
        while said := missing():
            if time.monotonic() > deadline:
                raise MlopsError(f"{what} is not done after {seconds:.0f} s: waiting for {said}", fix=f"{hint}.")
            time.sleep(_POLL)

    def _remember_namespace(self, kind: Kind, manifest: dict[str, Any]) -> None:
        metadata = manifest["metadata"]
        if kind is not NAMESPACE or not isinstance(metadata.get("name"), str):
            return
        with self._lock:
            if (metadata.get("labels") or {}).get(ENFORCE) == "restricted":
                self._restricted.add(metadata["name"])
            else:
                self._restricted.discard(metadata["name"])

    def _security_problems(self, kind: Kind, manifest: dict[str, Any]) -> list[str]:
        pod = pod_spec_of(kind, manifest)
        with self._lock:
            held = manifest["metadata"].get("namespace") in self._restricted
        if pod is None or not held:
            return []
        return [f'violates PodSecurity "restricted": {what}' for what in violations(pod)]


def _metadata(kind: Kind, name: str, given: Any, old: dict[str, Any]) -> dict[str, Any]:
    metadata = dict(given) if isinstance(given, dict) else {}
    if metadata.get("name") is None:
        prefix = metadata.pop("generateName", None) or f"{name.lower()[:_NAME_LIMIT]}-"
        was_ours = (old.get("annotations") or {}).get(AUTONAMED) == "true"
        metadata["name"] = old["name"] if was_ours else f"{prefix}{secrets.token_hex(4)}"
        metadata["annotations"] = {**(metadata.get("annotations") or {}), AUTONAMED: "true"}
    if kind.namespaced:
        metadata.setdefault("namespace", "default")
    else:
        metadata.pop("namespace", None)
    return metadata


def _field_manager(manifest: dict[str, Any]) -> str:
    return str(((manifest.get("metadata") or {}).get("annotations") or {}).get(PATCH_FIELD_MANAGER) or "")


def _pruned(value: Any) -> Any:
    """Copy a value without None, which stands for inputs that were not given."""
    if isinstance(value, dict):
        return {key: _pruned(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    return value


def _place(kind: Kind, manifest: dict[str, Any]) -> tuple[str, str]:
    metadata = manifest["metadata"]
    return (metadata["namespace"] if kind.namespaced else ""), metadata["name"]


def _id(namespace: str, name: str) -> str:
    """Return an id in the form of pulumi-kubernetes."""
    return f"{namespace}/{name}" if namespace else name


def _parse_id(kind: Kind, id_: str) -> tuple[str, str]:
    namespace, _, name = id_.rpartition("/")
    return (namespace or "default") if kind.namespaced else "", name


@contextmanager
def _explained(verb: str, kind: Kind, namespace: str, name: str) -> Iterator[None]:
    """Convert a refusal by the API to an MlopsError."""
    from lightkube.core.exceptions import ApiError

    try:
        yield
    except ApiError as error:
        fixes = {
            "Unauthorized": _AGAIN,
            "Forbidden": "give the role this permission, or run the operation again if it has it.",
            "TooManyRequests": _AGAIN,
            "InternalError": _AGAIN,
            "ServiceUnavailable": _AGAIN,
            "AlreadyExists": "rename the resource, or take the object over with the option `import_`.",
            "NotFound": "run `mlops refresh` to update the state.",
            "Conflict": "try again; if another field manager owns these fields, find out who changed the object.",
        }
        raise MlopsError(
            f"the cluster refused to {verb} {kind.name} {_id(namespace, name)}: {error.status.message}",
            fix=fixes.get(error.status.reason or "", "change the resource in the program."),
        ) from error
