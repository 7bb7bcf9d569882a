"""Rules about what roles may do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from infra.policies.documents import ANYONE, conditions, covers, grants, many, statements
from infra.policies.graph import UNKNOWN, Graph, PlannedResource
from infra.policies.rule import Finding, rule
from infra.policies.s3 import BUCKET, ENCRYPTION

ROLE = "aws:iam/role:Role"
_INLINE = ("aws:iam/rolePolicy:RolePolicy", "aws:iam/policy:Policy")
_ATTACHMENTS = ("aws:iam/rolePolicyAttachment:RolePolicyAttachment", "aws:iam/policyAttachment:PolicyAttachment")
_USERS = (
    "aws:iam/user:User",
    "aws:iam/accessKey:AccessKey",
    "aws:iam/userPolicy:UserPolicy",
    "aws:iam/userPolicyAttachment:UserPolicyAttachment",
    "aws:iam/userLoginProfile:UserLoginProfile",
)
_ONE_KIND = re.compile(r":role/[\w/-]")
"""Roles whose names begin alike; a pattern that begins with a wildcard names none."""

_MAKES_ROLES = ("iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy", "iam:PutRolePermissionsBoundary")
_ADMINISTRATORS = ("AdministratorAccess", "PowerUserAccess", "IAMFullAccess")

WITHOUT_RESOURCE = {
    "ecr:GetAuthorizationToken": "the token is for the registry of the account, not for a repository",
    "kms:CreateKey": "there is no key yet; a condition on the tags that it is made with says which may be made",
    "kms:ListAliases": "lists the names of keys, and takes no resource",
    "sts:GetCallerIdentity": "says who one is",
}
"""Action → why its resource can only be `*`."""

_MADE_UNNAMED = "kms:CreateKey"

# Source: the actions by which a principal gives itself more, or gets at another's credentials
# (checkov CKV_AWS_286 and 287, after cloudsplaining).
_ESCALATIONS = (
    "iam:AddUserToGroup",
    "iam:AttachGroupPolicy",
    "iam:AttachRolePolicy",
    "iam:AttachUserPolicy",
    "iam:CreateAccessKey",
    "iam:CreateLoginProfile",
    "iam:CreatePolicyVersion",
    "iam:CreateServiceSpecificCredential",
    "iam:DeleteRolePermissionsBoundary",
    "iam:PutGroupPolicy",
    "iam:PutRolePermissionsBoundary",
    "iam:PutRolePolicy",
    "iam:PutUserPolicy",
    "iam:ResetServiceSpecificCredential",
    "iam:SetDefaultPolicyVersion",
    "iam:UpdateAccessKey",
    "iam:UpdateAssumeRolePolicy",
    "iam:UpdateLoginProfile",
    "kms:CreateGrant",
    "kms:PutKeyPolicy",
    "lambda:UpdateFunctionCode",
    "s3:PutBucketPolicy",
    "secretsmanager:GetSecretValue",
    "ssm:GetParameter",
    "ssm:GetParameters",
    "ssm:GetParametersByPath",
    "sts:AssumeRole",
    "sts:GetFederationToken",
    "sts:GetSessionToken",
)

# Action → the condition under which it gives nothing that was not given before.
_CAPPED = {
    "iam:AttachRolePolicy": "iam:permissionsboundary",
    "iam:PutRolePermissionsBoundary": "iam:permissionsboundary",
    "iam:PutRolePolicy": "iam:permissionsboundary",
    "kms:CreateGrant": "kms:grantisforawsresource",
}

# S3 asks KMS, in the caller's name, for what it needs to do this.
_KEY_ACTIONS = {"s3:GetObject": "kms:Decrypt", "s3:PutObject": "kms:GenerateDataKey"}


def policies_of(graph: Graph, role: PlannedResource) -> Iterator[tuple[PlannedResource, Any]]:
    """The identity policies of a role: those that name it, or stand beside it while no name is known."""
    name = role.at("name")
    for holder, document in _documents(graph):
        beside = name is not UNKNOWN or holder.parent == role.parent
        if holder is role or (holder.at("role") == name and beside):
            yield holder, document


def _documents(graph: Graph) -> Iterator[tuple[PlannedResource, Any]]:
    """Every identity policy of the graph, with the resource that holds it."""
    for policy in graph.of_type(*_INLINE):
        yield policy, policy.at("policy")
    for role in graph.of_type(ROLE):
        for inline in role.at("inlinePolicies") or [] if role.at("inlinePolicies") is not UNKNOWN else []:
            yield role, inline.get("policy")


@rule("iam-not-everything", "No policy allows every action, or all but some", "CKV_AWS_62", "CKV_AWS_63")
def not_everything(graph: Graph) -> Iterator[Finding]:
    for holder, document in _documents(graph):
        for statement in statements(document) or ():
            if statement.get("Effect") != "Allow":
                continue
            if ANYONE in many(statement.get("Action")):
                yield holder, "allows every action"
            for negative in ("NotAction", "NotResource"):
                if negative in statement:
                    yield holder, f"allows all but what {negative} names"


@rule("iam-not-whole-service", "No policy allows every action of a service", "CKV_AWS_63")
def not_whole_service(graph: Graph) -> Iterator[Finding]:
    for holder, document in _documents(graph):
        for action, _ in grants(document):
            if action.endswith(":*"):
                yield holder, f"allows {action}"


@rule("iam-names-resources", "A policy names the resources it allows to act on", "CKV_AWS_355", "CKV_AWS_290")
def names_resources(graph: Graph) -> Iterator[Finding]:
    for holder, document in _documents(graph):
        for action, statement in grants(document):
            if ANYONE not in many(statement.get("Resource")):
                continue
            if action not in WITHOUT_RESOURCE:
                yield holder, f"allows {action} on every resource"
            if action == _MADE_UNNAMED and not any(
                key.startswith("aws:requesttag/") for _, key, _ in conditions(statement)
            ):
                yield holder, f"allows {action} without a condition on the tags that it is made with"


@rule("iam-no-escalation", "No role can give itself more, or get at others' credentials", "CKV_AWS_286", "CKV_AWS_287")
def no_escalation(graph: Graph) -> Iterator[Finding]:
    for holder, document in _documents(graph):
        for pattern, statement in grants(document):
            for action in _ESCALATIONS:
                if covers(pattern, action) and not _is_capped(action, statement):
                    yield holder, f"allows {action}"


def _is_capped(action: str, statement: dict[str, Any]) -> bool:
    return any(
        key == _CAPPED.get(action) and operator in ("StringEquals", "Bool") and value != "false"
        for operator, key, value in conditions(statement)
    )


@rule("iam-pass-role-confined", "A role is passed only by name, and to a named service", "CKV_AWS_110")
def pass_role_confined(graph: Graph) -> Iterator[Finding]:
    for holder, document in _documents(graph):
        for pattern, statement in grants(document):
            if not covers(pattern, "iam:PassRole"):
                continue
            if not all(_ONE_KIND.search(str(resource)) for resource in many(statement.get("Resource"))):
                yield holder, "passes any role"
            if "iam:passedtoservice" not in {key for _, key, _ in conditions(statement)}:
                yield holder, "passes a role to any service"


@rule("iam-no-standing-credentials", "No users, access keys or administrators", "CKV_AWS_273", "CKV_AWS_274")
def no_standing_credentials(graph: Graph) -> Iterator[Finding]:
    for user in graph.of_type(*_USERS):
        yield user, "is a user, or a user's"
    for attachment in graph.of_type(*_ATTACHMENTS):
        if str(attachment.at("policyArn")).rpartition("/")[2] in _ADMINISTRATORS:
            yield attachment, f"attaches {attachment.at('policyArn')}"
    for role in graph.of_type(ROLE):
        arns = role.at("managedPolicyArns")
        for arn in arns if isinstance(arns, list) else []:
            if str(arn).rpartition("/")[2] in _ADMINISTRATORS:
                yield role, f"carries {arn}"


@rule("iam-bounded", "Where an account bounds the roles that are made in it, every role carries that boundary")
def bounded(graph: Graph) -> Iterator[Finding]:
    roles = graph.of_type(ROLE)
    boundaries = {role.at("permissionsBoundary") for role in roles} - {None, "", UNKNOWN}
    for role in roles:
        if boundaries and not role.at("permissionsBoundary"):
            yield role, "carries no permissions boundary"
    if len(boundaries) > 1:
        for role in roles:
            yield role, "carries another boundary than other roles do"


@rule("iam-makes-bounded-roles", "Who makes roles makes them under a permissions boundary, and cannot lift it")
def makes_bounded_roles(graph: Graph) -> Iterator[Finding]:
    for holder, document in _documents(graph):
        for pattern, statement in grants(document):
            exact = {(operator, key) for operator, key, _ in conditions(statement)}
            for action in _MAKES_ROLES:
                if covers(pattern, action) and ("StringEquals", "iam:permissionsboundary") not in exact:
                    yield holder, f"allows {action} without a permissions boundary"
            if covers(pattern, "iam:DeleteRolePermissionsBoundary"):
                yield holder, "can lift permissions boundaries"


@rule("iam-key-with-bucket", "Who may use an encrypted bucket may use its key, for that bucket")
def key_with_bucket(graph: Graph) -> Iterator[Finding]:
    keys: dict[str, Any] = {}
    for bucket in graph.of_type(BUCKET):
        for encryption in graph.setting(bucket, ENCRYPTION):
            key = encryption.at("rules", 0, "applyServerSideEncryptionByDefault", "kmsMasterKeyId")
            if isinstance(key, str):
                keys[f"arn:aws:s3:::{bucket.at('bucket')}"] = key
    for holder, document in _documents(graph):
        given = list(grants(document))
        for action, statement in given:
            for needing, needed in _KEY_ACTIONS.items():
                if not covers(action, needing):
                    continue
                for resource in many(statement.get("Resource")):
                    bucket_arn = str(resource).partition("/")[0]
                    key = keys.get(bucket_arn)
                    if key is not None and not any(_gives_key(one, needed, key, bucket_arn) for one in given):
                        yield holder, f"allows {needing} on {resource} without {needed} on its key"


def _gives_key(given: tuple[str, dict[str, Any]], needed: str, key: str, bucket_arn: str) -> bool:
    action, statement = given
    if not covers(action, needed) or key not in many(statement.get("Resource")):
        return False
    scopes = [value for _, name, value in conditions(statement) if name == "kms:encryptioncontext:aws:s3:arn"]
    return not scopes or any(covers(scope, bucket_arn) for scope in scopes)


@rule("iam-one-role-each", "A role belongs to one service account, and a service account to one role")
def one_role_each(graph: Graph) -> Iterator[Finding]:
    seen: dict[tuple[str, Any], PlannedResource] = {}
    for association in graph.of_type("aws:eks/podIdentityAssociation:PodIdentityAssociation"):
        account = (association.at("clusterName"), association.at("namespace"), association.at("serviceAccount"))
        for key in (("role", association.at("roleArn")), ("service account", account)):
            unknown = key[1] is UNKNOWN or (isinstance(key[1], tuple) and UNKNOWN in key[1])
            if not unknown and key in seen:
                yield association, f"shares its {key[0]} with {seen[key].name}"
            seen.setdefault(key, association)
