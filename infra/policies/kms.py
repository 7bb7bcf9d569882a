"""Rules about keys, and about AWS services that are let in."""

from __future__ import annotations

from collections.abc import Iterator

from infra.policies.documents import ANYONE, conditions, principals, statements
from infra.policies.graph import UNKNOWN, Graph, holds
from infra.policies.rule import Finding, rule

KEY = "aws:kms/key:Key"
_LONGEST_WINDOW_DAYS = 30

# type → where its resource-based policy is
_RESOURCE_POLICIES = {
    KEY: "policy",
    "aws:s3/bucketPolicy:BucketPolicy": "policy",
    "aws:ecr/repositoryPolicy:RepositoryPolicy": "policy",
    "aws:iam/role:Role": "assumeRolePolicy",
}


@rule("kms-rotated", "A symmetric key is rotated", "CKV_AWS_7")
def rotated(graph: Graph) -> Iterator[Finding]:
    for key in graph.of_type(KEY):
        symmetric = key.at("customerMasterKeySpec") in (None, "SYMMETRIC_DEFAULT")
        if symmetric and not holds(key.at("enableKeyRotation"), True):
            yield key, "is never rotated"


@rule("kms-no-public-principal", "A key's policy lets in nobody unnamed without a condition", "CKV_AWS_33")
def no_public_principal(graph: Graph) -> Iterator[Finding]:
    for key in graph.of_type(KEY):
        policy = key.at("policy")
        if policy is None:
            yield key, "has no policy of its own"
        for statement in statements(policy) or ():
            open_to_all = ANYONE in principals(statement) or "NotPrincipal" in statement
            if statement.get("Effect") == "Allow" and open_to_all and not statement.get("Condition"):
                yield key, "lets everybody in"


@rule("kms-slow-to-delete", "A key can be brought back for 30 days, and outside a disposable environment is protected")
def slow_to_delete(graph: Graph) -> Iterator[Finding]:
    for key in graph.of_type(KEY):
        if not holds(key.at("deletionWindowInDays"), _LONGEST_WINDOW_DAYS):
            yield key, f"can be brought back for {key.at('deletionWindowInDays')} days only"
        if not (key.protect or graph.disposable):
            yield key, "is not protected"


@rule("service-principals-confined", "An AWS service is let in only on behalf of a named account or resource")
def service_principals_confined(graph: Graph) -> Iterator[Finding]:
    for resource in graph.of_type(*_RESOURCE_POLICIES):
        policy = resource.at(_RESOURCE_POLICIES[resource.type])
        for statement in statements(policy) or ():
            services = principals(statement, "Service")
            if statement.get("Effect") != "Allow" or not services:
                continue
            confined = {
                key
                for operator, key, value in conditions(statement)
                if operator in ("StringEquals", "ArnEquals", "ArnLike", "StringLike") and value not in (ANYONE, UNKNOWN)
            }
            if not confined & {"aws:sourceaccount", "aws:sourcearn"}:
                yield resource, f"lets {', '.join(services)} in on anybody's behalf"
