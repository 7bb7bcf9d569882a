"""Rules for IAM policies and roles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from infra.policies.policy_documents import ANYONE, conditions, covers, grants, many, principals, statements
from infra.policies.resource_graph import UNKNOWN, Graph, PlannedResource, at, elements
from infra.policies.rule import Finding, rule
from infra.policies.s3 import BUCKET, ENCRYPTION

ROLE = "aws:iam/role:Role"
_ROLE_POLICY = "aws:iam/rolePolicy:RolePolicy"
_POLICY = "aws:iam/policy:Policy"
_ATTACHMENTS = ("aws:iam/rolePolicyAttachment:RolePolicyAttachment", "aws:iam/policyAttachment:PolicyAttachment")
_USERS = (
    "aws:iam/user:User",
    "aws:iam/accessKey:AccessKey",
    "aws:iam/userPolicy:UserPolicy",
    "aws:iam/userPolicyAttachment:UserPolicyAttachment",
    "aws:iam/userLoginProfile:UserLoginProfile",
)
_ONE_KIND = re.compile(r":role/[\w/-]")
"""A role ARN or pattern that names at least the beginning of a role's name."""

_CALLER = re.compile(r"arn:[a-z-]+:iam::\d{12}:(role|user)/[\w+=,.@/-]+")
"""The ARN of one role or user."""

_CREATE_ROLES = ("iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy", "iam:PutRolePermissionsBoundary")
_ADMINISTRATORS = ("AdministratorAccess", "PowerUserAccess", "IAMFullAccess")

WITHOUT_RESOURCE = {
    "cloudwatch:PutMetricData": "accepts no resource; a condition limits the namespace",
    "ecr:GetAuthorizationToken": "the token is valid for the account's registry, not for one repository",
    "elasticloadbalancing:Describe*": "none of these actions accepts a resource, and all only describe",
    "kms:CreateKey": "the key does not exist yet; a condition on its tags limits which keys may be created",
    "kms:ListAliases": "accepts no resource",
    "sts:GetCallerIdentity": "returns the caller's own identity",
}
"""Action → reason that its resource can only be `*`."""

_CREATES_UNNAMED = "kms:CreateKey"
_SENDS_METRICS = "cloudwatch:PutMetricData"

# Source: the actions by which a principal can extend its permissions or obtain credentials
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

# Action → the condition key that prevents an escalation.
_CAPPED = {
    "iam:AttachRolePolicy": "iam:permissionsboundary",
    "iam:PutRolePermissionsBoundary": "iam:permissionsboundary",
    "iam:PutRolePolicy": "iam:permissionsboundary",
    "kms:CreateGrant": "kms:grantisforawsresource",
}

# S3 calls KMS with the caller's permissions.
_KEY_ACTIONS = {"s3:GetObject": "kms:Decrypt", "s3:PutObject": "kms:GenerateDataKey"}


def policies_of(graph: Graph, role: PlannedResource) -> Iterator[tuple[PlannedResource, Any]]:
    """Yield the identity policies of a role, inline and attached.

    They are matched by the role's name and the policy's ARN, or by parent while these are unknown.
    """
    name = role.at("name")

    def belongs(holder: PlannedResource) -> bool:
        return holder.at("role") == name and (name is not UNKNOWN or holder.parent == role.parent)

    attachments = [each for each in graph.of_type(_ATTACHMENTS[0]) if belongs(each)]
    attached = {each.at("policyArn") for each in attachments}
    with_unknown = {each.parent for each in attachments if each.at("policyArn") is UNKNOWN}
    for holder, document in _documents(graph):
        if holder.type == _POLICY:
            arn = holder.at("arn")
            if arn in attached if arn not in (None, UNKNOWN) else holder.parent in with_unknown:
                yield holder, document
        elif holder is role or belongs(holder):
            yield holder, document


def _documents(graph: Graph) -> Iterator[tuple[PlannedResource, Any]]:
    """Yield every identity policy of the graph, with the resource that holds it.

    After a refresh, the outputs of a role list all its inline policies. One that is also a resource is held by that
    resource, because its component may be exempt.
    """
    separate = {(policy.at("role"), policy.at("name")): policy for policy in graph.of_type(_ROLE_POLICY)}
    for policy in graph.of_type(_ROLE_POLICY, _POLICY):
        yield policy, policy.at("policy")
    for role in graph.of_type(ROLE):
        for inline in elements(role.at("inlinePolicies")):
            holder = separate.get((role.at("name"), at(inline, "name")))
            if holder is None or statements(holder.at("policy")) != statements(at(inline, "policy")):
                yield holder or role, at(inline, "policy")


@rule("iam-not-everything", "No policy allows all actions, or all except some", "CKV_AWS_62", "CKV_AWS_63")
def not_everything(graph: Graph) -> Iterator[Finding]:
    for holder, document in _documents(graph):
        for statement in statements(document) or ():
            if statement.get("Effect") != "Allow":
                continue
            if ANYONE in many(statement.get("Action")):
                yield holder, "allows all actions"
            for negative in ("NotAction", "NotResource"):
                if negative in statement:
                    yield holder, f"allows everything except its {negative}"


@rule("iam-not-whole-service", "No policy allows all actions of a service", "CKV_AWS_63")
def not_whole_service(graph: Graph) -> Iterator[Finding]:
    for holder, document in _documents(graph):
        for action, _ in grants(document):
            if action.endswith(":*"):
                yield holder, f"allows {action}"


@rule("iam-names-resources", "A policy names the resources of its actions", "CKV_AWS_355", "CKV_AWS_290")
def names_resources(graph: Graph) -> Iterator[Finding]:
    for holder, document in _documents(graph):
        for action, statement in grants(document):
            if ANYONE not in many(statement.get("Resource")):
                continue
            if action not in WITHOUT_RESOURCE:
                yield holder, f"allows {action} on all resources"
            if action == _CREATES_UNNAMED and not any(
                key.startswith("aws:requesttag/") for _, key, _ in conditions(statement)
            ):
                yield holder, f"allows {action} without a condition on the new key's tags"
            if action == _SENDS_METRICS and "cloudwatch:namespace" not in {key for _, key, _ in conditions(statement)}:
                yield holder, f"allows {action} without a condition on the namespace"


@rule(
    "iam-no-escalation",
    "No role can extend its own permissions or obtain other credentials",
    "CKV_AWS_286",
    "CKV_AWS_287",
)
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


@rule("iam-pass-role-confined", "A role can be passed only by name and to a named service", "CKV_AWS_110")
def pass_role_confined(graph: Graph) -> Iterator[Finding]:
    for holder, document in _documents(graph):
        for pattern, statement in grants(document):
            if not covers(pattern, "iam:PassRole"):
                continue
            if not all(_ONE_KIND.search(str(resource)) for resource in many(statement.get("Resource"))):
                yield holder, "can pass any role"
            if "iam:passedtoservice" not in {key for _, key, _ in conditions(statement)}:
                yield holder, "can pass a role to any service"


@rule("iam-no-standing-credentials", "No users, access keys or administrators", "CKV_AWS_273", "CKV_AWS_274")
def no_standing_credentials(graph: Graph) -> Iterator[Finding]:
    for user in graph.of_type(*_USERS):
        yield user, "is an IAM user or belongs to one"
    for attachment in graph.of_type(*_ATTACHMENTS):
        if str(attachment.at("policyArn")).rpartition("/")[2] in _ADMINISTRATORS:
            yield attachment, f"attaches {attachment.at('policyArn')}"
    for role in graph.of_type(ROLE):
        arns = role.at("managedPolicyArns")
        for arn in arns if isinstance(arns, list) else []:
            if str(arn).rpartition("/")[2] in _ADMINISTRATORS:
                yield role, f"has the managed policy {arn}"


@rule("iam-trusts-named-callers", "A role trusts callers of AWS by name", "CKV_AWS_60", "CKV_AWS_61")
def trusts_named_callers(graph: Graph) -> Iterator[Finding]:
    for role in graph.of_type(ROLE):
        for statement in statements(role.at("assumeRolePolicy")) or ():
            if statement.get("Effect") != "Allow":
                continue
            if "NotPrincipal" in statement:
                yield role, "trusts everyone except its NotPrincipal"
            for caller in principals(statement, "AWS"):
                if not _CALLER.fullmatch(caller):
                    yield role, f"trusts {caller}, not one role or user"


@rule("iam-bounded", "If one role has a permissions boundary, all roles have the same one")
def bounded(graph: Graph) -> Iterator[Finding]:
    roles = graph.of_type(ROLE)
    boundaries = {role.at("permissionsBoundary") for role in roles} - {None, "", UNKNOWN}
    for role in roles:
        if boundaries and not role.at("permissionsBoundary"):
            yield role, "has no permissions boundary"
    if len(boundaries) > 1:
        for role in roles:
            yield role, "has a different permissions boundary than other roles"


@rule("iam-makes-bounded-roles", "Roles can be created only with a permissions boundary that cannot be removed")
def makes_bounded_roles(graph: Graph) -> Iterator[Finding]:
    for holder, document in _documents(graph):
        for pattern, statement in grants(document):
            exact = {(operator, key) for operator, key, _ in conditions(statement)}
            for action in _CREATE_ROLES:
                if covers(pattern, action) and ("StringEquals", "iam:permissionsboundary") not in exact:
                    yield holder, f"allows {action} without a permissions boundary"
            if covers(pattern, "iam:DeleteRolePermissionsBoundary"):
                yield holder, "can remove permissions boundaries"


@rule("iam-key-with-bucket", "Access to an encrypted bucket comes with access to its key for that bucket")
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


@rule("iam-one-role-each", "Roles and service accounts belong together one to one")
def one_role_each(graph: Graph) -> Iterator[Finding]:
    seen: dict[tuple[str, Any], PlannedResource] = {}
    for association in graph.of_type("aws:eks/podIdentityAssociation:PodIdentityAssociation"):
        account = (association.at("clusterName"), association.at("namespace"), association.at("serviceAccount"))
        for key in (("role", association.at("roleArn")), ("service account", account)):
            unknown = key[1] is UNKNOWN or (isinstance(key[1], tuple) and UNKNOWN in key[1])
            if not unknown and key in seen:
                yield association, f"shares its {key[0]} with {seen[key].name}"
            seen.setdefault(key, association)
