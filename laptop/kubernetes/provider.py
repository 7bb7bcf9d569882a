"""The Kubernetes provider of the local target: one program for every kind, over the small cluster's API."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from laptop.cluster.kinds import NAMESPACE, POD, Kind
from laptop.cluster.pod_security import ENFORCE, violations
from laptop.cluster.schemas import problems
from laptop.cluster.supported import NOT_ACTED_UPON, unsupported
from laptop.cluster.templates import pod_spec_of
from laptop.engine.provider import PROVIDER_TYPE_PREFIX, Created, Diff
from laptop.engine.values import UNKNOWN, has_unknown
from laptop.kubernetes import sameness
from laptop.kubernetes.client import ApiError, Client
from laptop.kubernetes.readiness import SKIP, needs_pods, waiting_for
from laptop.kubernetes.tokens import kind_of_token
from pipelines.declarations.errors import MlopsError

AUTONAMED = "pulumi.com/autonamed"
MERGE_PATCH = "application/merge-patch+json"

_POLL = 0.03  # seconds
_NAME_LIMIT = 50  # characters before the random suffix of an auto-name


class KubernetesProvider:
    """Applies resources of the package `kubernetes`. Safe for several threads.

    Args:
        kubeconfig: of the small cluster; read when something is first asked of it.
        ready_within: seconds that an object may take to be ready.
        gone_within: seconds that an object may take to be gone.
    """

    def __init__(self, kubeconfig: Path, *, ready_within: float = 120.0, gone_within: float = 120.0) -> None:
        self._client = Client(kubeconfig)
        self._ready_within = ready_within
        self._gone_within = gone_within
        self._restricted: set[str] = set()  # namespaces that the checked resources hold to `restricted`
        self._lock = threading.Lock()

    def check(self, type_: str, name: str, inputs: dict[str, Any], old_inputs: dict[str, Any] | None) -> dict[str, Any]:
        """The manifest with its name, namespace and kind; raises MlopsError when the cluster would refuse it."""
        given = _pruned({key: value for key, value in inputs.items() if not key.startswith("__")})
        if type_.startswith(PROVIDER_TYPE_PREFIX):
            return dict(given)
        kind = kind_of_token(type_)
        metadata = _metadata(kind, name, given.get("metadata"), (old_inputs or {}).get("metadata") or {})
        manifest = {**given, "apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
        self._remember_namespace(kind, manifest)
        found = problems(kind, manifest, unknown=UNKNOWN)
        if not found and not has_unknown(pod_spec_of(kind, manifest)):
            found = [f"{what} (a limit of the small cluster)" for what in unsupported(kind, manifest)]
            found += self._security_problems(kind, manifest)
        if found:
            raise MlopsError(
                f"`{name}` ({kind.name}) would be refused by the cluster:\n"
                + "\n".join(f"    {what}" for what in found),
                fix="change the resource in the program.",
            )
        return manifest

    def diff(
        self,
        type_: str,
        old_inputs: dict[str, Any],
        new_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
    ) -> Diff:
        """Compares checked manifests."""
        if type_.startswith(PROVIDER_TYPE_PREFIX):
            return Diff(tuple(sameness.differences(old_inputs, new_inputs)))
        return sameness.diff(kind_of_token(type_), old_inputs, new_inputs)

    def create(self, urn: str, type_: str, inputs: dict[str, Any], *, resuming: bool = False) -> Created:
        """Creates the object and waits until it is ready, where Pulumi does."""
        if type_.startswith(PROVIDER_TYPE_PREFIX):
            return Created(urn.rpartition("::")[2], dict(inputs))
        kind = kind_of_token(type_)
        namespace, name = _place(kind, inputs)
        with _explained("create", kind, namespace, name):
            try:
                self._client.send("POST", kind.path(namespace), inputs)
            except ApiError as error:
                if error.reason != "AlreadyExists" or not resuming:
                    raise
                # An earlier create was cut off before the state was written; the checked inputs are the same.
                self._client.send("PATCH", kind.path(namespace, name), inputs, type_=MERGE_PATCH)
        return Created(_id(namespace, name), self._wait_until_ready(kind, namespace, name))

    def read(self, type_: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any] | None:
        """The live object, or None when it is gone; without what others have set beside what was asked for."""
        if type_.startswith(PROVIDER_TYPE_PREFIX):
            return dict(outputs or inputs)
        kind = kind_of_token(type_)
        namespace, name = _parse_id(kind, id_)
        with _explained("read", kind, namespace, name):
            live = self._client.get(kind.path(namespace, name))
        return live if live is None or not inputs else sameness.without_strangers(live, inputs, outputs)

    def update(
        self,
        urn: str,
        type_: str,
        id_: str,
        old_inputs: dict[str, Any],
        new_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
    ) -> Created:
        """Changes what differs between the manifests, and leaves alone what controllers have set beside it."""
        if type_.startswith(PROVIDER_TYPE_PREFIX):
            return Created(id_, dict(new_inputs))
        kind = kind_of_token(type_)
        namespace, name = _parse_id(kind, id_)
        patch = sameness.merge_patch(old_inputs, new_inputs)
        with _explained("update", kind, namespace, name):
            if patch:
                self._client.send("PATCH", kind.path(namespace, name), patch, type_=MERGE_PATCH)
        return Created(id_, self._wait_until_ready(kind, namespace, name))

    def delete(self, urn: str, type_: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Deletes the object with what it owns, and waits until it is gone."""
        if type_.startswith(PROVIDER_TYPE_PREFIX):
            return
        kind = kind_of_token(type_)
        namespace, name = _parse_id(kind, id_)
        path = kind.path(namespace, name)
        with _explained("delete", kind, namespace, name):
            live = self._client.get(path)
            if live is None:
                return
            uid = live["metadata"]["uid"]
            try:
                options = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
                self._client.send("DELETE", path, options)
            except ApiError as error:
                if error.code != 404:
                    raise

            def remains() -> str:
                found = self._client.get(path)
                return "it to be gone" if found is not None and found["metadata"]["uid"] == uid else ""

            self._wait(remains, self._gone_within, f"{kind.name} {_id(namespace, name)}", "what it owns may hold it")

    def recorded(self, type_: str, inputs: dict[str, Any]) -> dict[str, str]:
        """What the small cluster keeps and does not act upon."""
        if type_.startswith(PROVIDER_TYPE_PREFIX):
            return {}
        kind = kind_of_token(type_).name
        return {"spec": NOT_ACTED_UPON[kind]} if kind in NOT_ACTED_UPON else {}

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        """No function of the package is served."""
        raise MlopsError(
            f"`{token}` is not served by the local target's Kubernetes provider",
            fix="keep the call out of the program.",
        )

    def _wait_until_ready(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        live: dict[str, Any] = {}

        def missing() -> str:
            with _explained("read", kind, namespace, name):
                found = self._client.get(kind.path(namespace, name))
                if found is None:
                    raise MlopsError(f"{kind.name} {_id(namespace, name)} went away while it was waited for")
                pods = self._client.send("GET", POD.path(namespace))["items"] if needs_pods(kind) else []
            live.clear()
            live.update(found)
            return waiting_for(kind, found, pods)

        hint = f'set the annotation {SKIP}: "true" where Pulumi shall not wait'
        self._wait(missing, self._ready_within, f"{kind.name} {_id(namespace, name)}", hint)
        return dict(live)

    @staticmethod
    def _wait(missing: Callable[[], str], seconds: float, what: str, hint: str) -> None:
        deadline = time.monotonic() + seconds
        while said := missing():
            if time.monotonic() > deadline:
                raise MlopsError(f"{what} has waited {seconds:.0f} s for {said}", fix=f"{hint}.")
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


def _pruned(value: Any) -> Any:
    """A copy without what is None, which Pulumi's inputs hold for what was not given."""
    if isinstance(value, dict):
        return {key: _pruned(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    return value


def _place(kind: Kind, manifest: dict[str, Any]) -> tuple[str, str]:
    metadata = manifest["metadata"]
    return (metadata["namespace"] if kind.namespaced else ""), metadata["name"]


def _id(namespace: str, name: str) -> str:
    """As pulumi-kubernetes writes ids."""
    return f"{namespace}/{name}" if namespace else name


def _parse_id(kind: Kind, id_: str) -> tuple[str, str]:
    namespace, _, name = id_.rpartition("/")
    return (namespace or "default") if kind.namespaced else "", name


@contextmanager
def _explained(verb: str, kind: Kind, namespace: str, name: str) -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        fixes = {
            "AlreadyExists": "delete it, or give the resource another name.",
            "NotFound": "see what is there (`mlops laptop status`); a refresh brings the state up to it.",
            "Conflict": "try again.",
        }
        raise MlopsError(
            f"the cluster refused to {verb} {kind.name} {_id(namespace, name)}: {error.message}",
            fix=fixes.get(error.reason, "change the resource in the program."),
        ) from error
