"""Tokens that identify pods to the API as their service account, and the RBAC rules for them."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from laptop.cluster.kinds import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING, SERVICE_ACCOUNT, Kind
from laptop.cluster.objects import Object, ObjectStore, namespace_of, uid_of

MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Path at which a real cluster mounts `token`, `ca.crt` and `namespace`."""


@dataclass(frozen=True)
class PodAccount:
    """Service account of a running pod."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.name}"


@dataclass(frozen=True)
class Access:
    """One request, as RBAC sees it.

    Attributes:
        verb: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
        kind: kind of the object.
        namespace: namespace of the object, "" for all.
        name: name of the object, "" for a collection.
        subresource: `status`, `scale`, `log` or "".
    """

    verb: str
    kind: Kind
    namespace: str
    name: str
    subresource: str

    @property
    def resource(self) -> str:
        """Resource as RBAC names it: `pods`, `pods/log`."""
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural


class ServiceAccountTokens:
    """Tokens of the pods that run now.

    Args:
        store: objects of the cluster.
        server: returns the base URL of the API.
        authority: certificate of the API's authority, PEM.
    """

    def __init__(self, store: ObjectStore, server: Callable[[], str], authority: bytes) -> None:
        self._store = store
        self._server = server
        self._authority = authority
        self._accounts: dict[str, tuple[str, PodAccount]] = {}  # token → uid of the pod, account
        self._issued: dict[str, tuple[datetime, PodAccount]] = {}  # token → end, account

    def admit(self, pod: Object, folder: Path) -> dict[str, str]:
        """Write a pod's token into its folder, and return the variables that point clients to the API.

        A pod with `automountServiceAccountToken: false`, on itself or on its service account, gets none.
        """
        account = PodAccount(namespace_of(pod), pod["spec"].get("serviceAccountName") or "default")
        if not self._mounts_token(pod, account):
            return {}
        token = secrets.token_urlsafe(32)
        self._accounts[token] = (uid_of(pod), account)
        return write_access(folder, account.namespace, token, self._server(), self._authority)

    def dismiss(self, pod: Object) -> None:
        """Revoke the token of a deleted pod."""
        for token in [token for token, (uid, _) in self._accounts.items() if uid == uid_of(pod)]:
            del self._accounts[token]

    def issue(self, account: PodAccount, seconds: int) -> tuple[str, datetime]:
        """Return a token for an account that no pod holds, and the time at which it ends."""
        end = datetime.now(UTC) + timedelta(seconds=seconds)
        token = secrets.token_urlsafe(32)
        self._issued[token] = (end, account)
        return token, end

    def account_of(self, token: str) -> PodAccount | None:
        """Return the account of a token, or None."""
        given = token.encode()
        valid = [(known, account) for known, (end, account) in self._issued.items() if end > datetime.now(UTC)]
        valid += [(known, account) for known, (_, account) in self._accounts.items()]
        found = [account for known, account in valid if hmac.compare_digest(known.encode(), given)]
        return found[0] if found else None

    def is_allowed(self, account: PodAccount, access: Access) -> bool:
        """Return whether a role that is bound to an account allows a request (kubernetes.io: RBAC Authorization)."""
        return any(_matches(rule, access) for rule in self._rules(account, access.namespace))

    def rules_of(self, account: PodAccount, namespace: str) -> list[dict[str, Any]]:
        """Return the rules of every role that is bound to an account, for a namespace."""
        return list(self._rules(account, namespace))

    def _rules(self, account: PodAccount, namespace: str) -> Iterator[dict[str, Any]]:
        bindings = self._store.find_all(CLUSTER_ROLE_BINDING)
        if namespace:
            bindings = [*bindings, *self._store.find_all(ROLE_BINDING, namespace)]
        for binding in bindings:
            if any(_is_subject(subject, account, binding) for subject in binding.get("subjects") or ()):
                kind = CLUSTER_ROLE if binding["roleRef"]["kind"] == CLUSTER_ROLE.name else ROLE
                role = self._store.find(kind, namespace_of(binding), binding["roleRef"]["name"])
                yield from (role or {}).get("rules") or ()

    def _mounts_token(self, pod: Object, account: PodAccount) -> bool:
        wanted = pod["spec"].get("automountServiceAccountToken")
        if wanted is None:
            found = self._store.find(SERVICE_ACCOUNT, account.namespace, account.name) or {}
            wanted = found.get("automountServiceAccountToken")
        return wanted is not False


def write_access(folder: Path, namespace: str, token: str, server: str, authority: bytes) -> dict[str, str]:
    """Write what a pod needs to ask the API into its folder, and return the variables that point clients to it.

    KUBECONFIG is the one difference from a real cluster: a process on this machine cannot have its own
    `/var/run/secrets`.

    Args:
        folder: the pod's folder.
        namespace: the pod's namespace.
        token: bearer token of its service account.
        server: base URL of the API.
        authority: certificate of the API's authority, PEM.
    """
    mount = folder / "serviceaccount"
    mount.mkdir(mode=0o700, exist_ok=True)
    files = {"token": token, "namespace": namespace, "ca.crt": authority.decode()}
    for name, text in files.items():
        _write_private(mount / name, text)
    user, cluster = {"tokenFile": str(mount / "token")}, {"server": server}
    context = {"cluster": "laptop", "user": "pod", "namespace": namespace}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "laptop", "cluster": {**cluster, "certificate-authority": str(mount / "ca.crt")}}],
        "users": [{"name": "pod", "user": {**user, "token": token}}],
        "contexts": [{"name": "pod", "context": context}],
        "current-context": "pod",
    }
    _write_private(folder / "kubeconfig", yaml.safe_dump(config))
    host, _, port = server.removeprefix("https://").rpartition(":")
    return {
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
        "KUBECONFIG": str(folder / "kubeconfig"),
    }


def _is_subject(subject: dict[str, Any], account: PodAccount, binding: Object) -> bool:
    name = subject.get("name")
    if subject.get("kind") == "ServiceAccount":
        return (subject.get("namespace") or namespace_of(binding), name) == (account.namespace, account.name)
    if subject.get("kind") == "User":
        return name == str(account)
    groups = ("system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{account.namespace}")
    return subject.get("kind") == "Group" and name in groups


def _matches(rule: dict[str, Any], access: Access) -> bool:
    def holds(key: str, value: str) -> bool:
        return bool({"*", value} & set(rule.get(key) or ()))

    named = rule.get("resourceNames")
    return (
        holds("verbs", access.verb)
        and holds("apiGroups", access.kind.group)
        and holds("resources", access.resource)
        and (not named or access.name in named)
    )


def _write_private(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(text)
