"""Requests of the deploy and preview roles, as an API server records them, compared with their rights."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.targets.cluster_roles import RIGHTS, Right

_CREATED = 201


@dataclass(frozen=True, order=True)
class RoleRequest:
    """A verb on a resource.

    Attributes:
        group: Kubernetes group of the caller.
        verb: such as `patch`.
        api: API group; "" for the core group.
        resource: plural name, with a subresource after a slash.
        namespace: namespace; "" for a cluster-wide request.
        dry_run: the API server was asked to change nothing.
    """

    group: str
    verb: str
    api: str
    resource: str
    namespace: str
    dry_run: bool = False

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        how = " as a dry run" if self.dry_run else ""
        return f"{self.group}: {self.verb} {self.resource}{f'.{self.api}' if self.api else ''}{where}{how}"


@dataclass(frozen=True)
class RoleRequests:
    """Requests of members of groups, allowed and denied."""

    allowed: frozenset[RoleRequest]
    denied: frozenset[RoleRequest]


def read_role_requests(log: Path, groups: Iterable[str]) -> RoleRequests:
    """Read an audit log.

    Args:
        log: one event of `audit.k8s.io/v1` per line, at least at the level `Metadata`.
        groups: Kubernetes groups.
    """
    known = frozenset(groups)
    allowed: set[RoleRequest] = set()
    denied: set[RoleRequest] = set()
    for line in log.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        target = event.get("objectRef")
        callers = known.intersection(event["user"].get("groups") or ())
        if target is None or not callers:  # discovery has no object
            continue
        (group,) = callers
        is_allowed = event["annotations"]["authorization.k8s.io/decision"] == "allow"
        verbs = {event["verb"]}
        if event["verb"] == "patch" and (event.get("responseStatus") or {}).get("code") == _CREATED:
            verbs.add("create")  # server-side apply of an object that does not exist needs both
        resource = "/".join(filter(None, (target.get("resource", ""), target.get("subresource", ""))))
        dry_run = "dryRun=" in event.get("requestURI", "")
        for verb in verbs:
            access = RoleRequest(
                group, verb, target.get("apiGroup", ""), resource, target.get("namespace", ""), dry_run
            )
            (allowed if is_allowed else denied).add(access)
    return RoleRequests(frozenset(allowed), frozenset(denied))


def unused_rights(
    requests: Iterable[RoleRequest],
    group: str,
    namespaces: Iterable[str],
    *,
    deploy: bool,
    rights: Iterable[Right] = RIGHTS,
) -> list[str]:
    """Return the rights of a role that no request needed, as `verb resource.group`.

    Args:
        requests: requests that were allowed.
        group: Kubernetes group of the role.
        namespaces: namespaces that the role may have used them in.
        deploy: True for a deploy role, False for the preview role.
        rights: the rights of both.
    """
    within = frozenset(namespaces)
    used = {(one.verb, one.api, one.resource) for one in requests if one.group == group and one.namespace in within}
    return [
        f"{verb} {right.resource}{f'.{right.group}' if right.group else ''}"
        for right in rights
        for verb in (right.deploy if deploy else right.preview)
        if (verb, right.group, right.resource) not in used
    ]


def denials(requests: RoleRequests, groups: Iterable[str]) -> Iterator[str]:
    """Yield what members of groups were denied, a line each."""
    known = frozenset(groups)
    return (str(access) for access in sorted(requests.denied) if access.group in known)
