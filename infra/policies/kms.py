"""Rules for KMS keys, and for AWS services in resource policies."""

from __future__ import annotations

from collections.abc import Iterator

from infra.policies.policy_documents import ANYONE, conditions, principals, statements
from infra.policies.resource_graph import UNKNOWN, Graph, holds
from infra.policies.rule import Finding, rule

KEY = "aws:kms/key:Key"
_LONGEST_WINDOW_DAYS = 30

# type → property that holds its resource-based policy
_RESOURCE_POLICIES = {
    KEY: "policy",
    "aws:s3/bucketPolicy:BucketPolicy": "policy",
    "aws:ecr/repositoryPolicy:RepositoryPolicy": "policy",
    "aws:sqs/queue:Queue": "policy",
    "aws:iam/role:Role": "assumeRolePolicy",
}


@rule("kms-rotated", "A symmetric key is rotated automatically", "CKV_AWS_7")
def rotated(graph: Graph) -> Iterator[Finding]:
    for key in graph.of_type(KEY):
        symmetric = key.at("customerMasterKeySpec") in (None, "SYMMETRIC_DEFAULT")
        if symmetric and not holds(key.at("enableKeyRotation"), True):
            yield key, "is not rotated"


@rule("kms-no-public-principal", "A key policy allows no unnamed principal without a condition", "CKV_AWS_33")
def no_public_principal(graph: Graph) -> Iterator[Finding]:
    for key in graph.of_type(KEY):
        for statement in statements(key.at("policy")) or ():
            open_to_all = ANYONE in principals(statement) or "NotPrincipal" in statement
            if statement.get("Effect") == "Allow" and open_to_all and not statement.get("Condition"):
                yield key, "allows any principal"


@rule(
    "kms-slow-to-delete",
    "A key has a deletion window of 30 days, and is protected unless the environment is disposable",
)
def slow_to_delete(graph: Graph) -> Iterator[Finding]:
    for key in graph.of_type(KEY):
        if not holds(key.at("deletionWindowInDays"), _LONGEST_WINDOW_DAYS):
            yield key, f"has a deletion window of {key.at('deletionWindowInDays')} days"
        if not (key.protect or graph.disposable):
            yield key, "is not protected"


@rule(
    "service-principals-confined",
    "A resource policy allows an AWS service only on behalf of a named account or resource",
)
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
                yield resource, f"allows {', '.join(services)} on behalf of any account"
