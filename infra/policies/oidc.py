"""Rules for roles that jobs outside AWS assume with tokens of an identity provider."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from infra.policies.iam import ROLE, policies_of
from infra.policies.policy_documents import conditions, grants, many, principals, statements
from infra.policies.resource_graph import Graph, PlannedResource
from infra.policies.rule import Finding, rule

AUDIENCE = "sts.amazonaws.com"
_BY_TOKEN = "sts:AssumeRoleWithWebIdentity"  # noqa: S105  the name of an action
# GitHub: `repo:owner/name:environment:name`, with or without ids.
_EXACT = re.compile(r"repo:[\w.-]+(@\d+)?/[\w.-]+(@\d+)?:environment:([\w-]+)")
_READS = re.compile(
    r"(s3:(Get|List)|kms:(Describe|Get|List|Decrypt$)|glue:Get|iam:(Get|List)"
    r"|ecr:(BatchGetImage$|Describe|Get|List)|eks:(Describe|List)|cloudwatch:(Describe|Get|List)"
    r"|events:(Describe|List)|sqs:(Get|List)"
    r"|logs:(Describe|Get|Filter)|sts:GetCallerIdentity$)"
)
PREVIEW = "preview"


def _trusts(graph: Graph) -> Iterator[tuple[PlannedResource, dict[str, Any]]]:
    """Yield the trust policy statements for federated principals, with their roles."""
    for role in graph.of_type(ROLE):
        for statement in statements(role.at("assumeRolePolicy")) or ():
            federated = principals(statement, "Federated") or _BY_TOKEN in many(statement.get("Action"))
            if statement.get("Effect") == "Allow" and federated:
                yield role, statement


def _claims(statement: dict[str, Any], claim: str) -> list[tuple[str, str]]:
    """Return the operator and value of each condition on a claim of the token."""
    return [(operator, value) for operator, key, value in conditions(statement) if key.endswith(f":{claim}")]


@rule("oidc-audience", "A role accepts only tokens issued for AWS")
def audience(graph: Graph) -> Iterator[Finding]:
    for role, statement in _trusts(graph):
        if _claims(statement, "aud") != [("StringEquals", AUDIENCE)]:
            yield role, "accepts tokens issued for other audiences"


@rule("oidc-subject-exact", "A role trusts one environment of one repository", "CKV_AWS_358", "CKV_AWS_393")
def subject_exact(graph: Graph) -> Iterator[Finding]:
    for role, statement in _trusts(graph):
        subjects = _claims(statement, "sub")
        if len(subjects) != 1:
            yield role, f"trusts {len(subjects)} subjects" if subjects else "trusts every subject"
        for operator, value in subjects:
            if operator != "StringEquals" or not _EXACT.fullmatch(value):
                yield role, f"trusts the subject {value} by {operator}"


@rule("oidc-alone", "A role for jobs outside AWS serves one environment and no other caller")
def alone(graph: Graph) -> Iterator[Finding]:
    subjects: dict[str, PlannedResource] = {}
    for role, statement in _trusts(graph):
        if len(statements(role.at("assumeRolePolicy")) or ()) > 1:
            yield role, "has more than one trust policy statement"
        if many(statement.get("Action")) != [_BY_TOKEN] or principals(statement) != principals(statement, "Federated"):
            yield role, "can be assumed without a token"
        for _, value in _claims(statement, "sub"):
            first = subjects.setdefault(value, role)
            if first is not role:
                yield role, f"trusts the same subject as {first.name}"


@rule("oidc-preview-reads", "A role that pull requests can assume is read-only")
def preview_reads(graph: Graph) -> Iterator[Finding]:
    for role, statement in _trusts(graph):
        open_to_pull_requests = [
            value
            for _, value in _claims(statement, "sub")
            if value.endswith((f":environment:{PREVIEW}", ":pull_request"))
        ]
        if not open_to_pull_requests:
            continue
        for holder, document in policies_of(graph, role):
            for action, _ in grants(document):
                if not _READS.match(action):
                    yield holder, f"allows {open_to_pull_requests[0]} to call {action}"
