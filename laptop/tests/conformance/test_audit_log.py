"""Audit logs of an API server, compared with the rights of roles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from laptop.conformance.audit_log import RoleRequest, denials, read_role_requests, unused_rights
from pipelines.targets.cluster_roles import Right

DEPLOY, OTHER = "mlops:deploy:dev", "mlops:preview"
RIGHTS = (Right("apps", "replicasets", ("get", "list"), ("get",), ""), Right("", "pods", ("create", "patch"), (), ""))


def event(verb: str, resource: str, *, group: str = DEPLOY, allowed: bool = True, **more: Any) -> dict[str, Any]:
    api, _, name = resource.rpartition("/")
    target = {"resource": name, "namespace": "models-dev", **({"apiGroup": api} if api else {})}
    return {
        "verb": verb,
        "user": {"groups": [group, "system:authenticated"]},
        "objectRef": {**target, **more.pop("target", {})},
        "annotations": {"authorization.k8s.io/decision": "allow" if allowed else "forbid"},
        **more,
    }


def written(folder: Path, *events: dict[str, Any]) -> Path:
    log = folder / "audit.log"
    log.write_text("".join(json.dumps(one) + "\n" for one in events))
    return log


def test_only_requests_of_the_groups_that_name_an_object_count(tmp_path: Path) -> None:
    discovery = event("get", "pods")
    del discovery["objectRef"]
    log = written(tmp_path, discovery, event("get", "pods", group="system:masters"), event("list", "pods"))
    found = read_role_requests(log, (DEPLOY, OTHER))
    assert found.allowed == {RoleRequest(DEPLOY, "list", "", "pods", "models-dev")}


def test_a_subresource_is_a_resource(tmp_path: Path) -> None:
    log = written(tmp_path, event("create", "pods", target={"subresource": "portforward"}))
    (found,) = read_role_requests(log, (DEPLOY,)).allowed
    assert found.resource == "pods/portforward"


def test_applying_an_object_that_does_not_exist_needs_both_verbs(tmp_path: Path) -> None:
    for code, verbs in ((201, {"create", "patch"}), (200, {"patch"})):
        log = written(tmp_path, event("patch", "pods", responseStatus={"code": code}))
        assert {one.verb for one in read_role_requests(log, (DEPLOY,)).allowed} == verbs


def test_a_denial_is_named_and_is_no_use_of_a_right(tmp_path: Path) -> None:
    log = written(tmp_path, event("get", "apps/replicasets", allowed=False), event("list", "apps/replicasets"))
    found = read_role_requests(log, (DEPLOY,))
    assert list(denials(found, (DEPLOY,))) == ["mlops:deploy:dev: get replicasets.apps in models-dev"]
    assert list(denials(found, (OTHER,))) == []
    assert unused_rights(found.allowed, DEPLOY, ("models-dev",), deploy=True, rights=RIGHTS) == [
        "get replicasets.apps",
        "create pods",
        "patch pods",
    ]


def test_a_dry_run_is_named(tmp_path: Path) -> None:
    log = written(tmp_path, event("patch", "pods", allowed=False, requestURI="/api/v1/pods/a?dryRun=All"))
    assert list(denials(read_role_requests(log, (DEPLOY,)), (DEPLOY,))) == [
        "mlops:deploy:dev: patch pods in models-dev as a dry run"
    ]


def test_what_another_role_did_or_was_done_elsewhere_leaves_a_right_unused(tmp_path: Path) -> None:
    log = written(tmp_path, event("get", "apps/replicasets", group=OTHER), event("get", "apps/replicasets"))
    found = read_role_requests(log, (DEPLOY, OTHER))
    assert unused_rights(found.allowed, OTHER, ("models-dev",), deploy=False, rights=RIGHTS) == []
    assert unused_rights(found.allowed, OTHER, ("models-prod",), deploy=False, rights=RIGHTS) == [
        "get replicasets.apps"
    ]
