"""IAM roles, policies and identity providers."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from laptop.aws.cloud import tolerating
from laptop.aws.resources.row import AutoName, AwsCall, Row, Values, retag
from laptop.aws.shapes import tag_list, tag_map

_GONE = "NoSuchEntity"
_EXISTS = "EntityAlreadyExists"


def text(document: Any) -> str:
    """Return a policy document as text; Pulumi accepts text or a structure."""
    return document if isinstance(document, str) else json.dumps(document)


def _document(answer: Any) -> str:
    """Return a policy document from an IAM response: URL-quoted text, or what botocore parsed from it."""
    return json.dumps(answer) if isinstance(answer, dict) else unquote(answer)


def _create_role(call: AwsCall) -> str:
    iam, inputs = call.client("iam"), call.inputs
    parameters = {
        "RoleName": inputs["name"],
        "AssumeRolePolicyDocument": text(inputs["assumeRolePolicy"]),
        "Path": inputs["path"],
        "Description": inputs.get("description"),
        "MaxSessionDuration": int(inputs["maxSessionDuration"]),
        "PermissionsBoundary": inputs.get("permissionsBoundary"),
        "Tags": tag_list(inputs.get("tags")) or None,
    }
    with tolerating(*((_EXISTS,) if call.resuming else ())):
        iam.create_role(**{name: value for name, value in parameters.items() if value is not None})
    _put_inline(iam, inputs["name"], [], inputs.get("inlinePolicies") or [])
    for arn in inputs.get("managedPolicyArns") or []:
        iam.attach_role_policy(RoleName=inputs["name"], PolicyArn=arn)
    return str(inputs["name"])


def _put_inline(iam: Any, role: str, old: list[Values], new: list[Values]) -> None:
    for policy in new:
        if policy.get("policy"):  # an empty block means no policy
            iam.put_role_policy(RoleName=role, PolicyName=policy["name"], PolicyDocument=text(policy["policy"]))
    kept = {policy.get("name") for policy in new}
    for policy in old:
        if policy.get("name") and policy["name"] not in kept:
            with tolerating(_GONE):
                iam.delete_role_policy(RoleName=role, PolicyName=policy["name"])


def _read_role(call: AwsCall) -> Values | None:
    found: Values | None = None
    with tolerating(_GONE):
        found = call.client("iam").get_role(RoleName=call.id)["Role"]
    if found is None:
        return None
    live = {
        "name": found["RoleName"],
        "arn": found["Arn"],
        "uniqueId": found["RoleId"],
        "createDate": found["CreateDate"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        "path": found["Path"],
        "description": found.get("Description", ""),
        "maxSessionDuration": found["MaxSessionDuration"],
        "assumeRolePolicy": _document(found["AssumeRolePolicyDocument"]),
        "tags": tag_map(found.get("Tags")),
    }
    boundary = (found.get("PermissionsBoundary") or {}).get("PermissionsBoundaryArn")
    return {**live, "permissionsBoundary": boundary} if boundary else live


def _update_role(call: AwsCall) -> None:
    iam, role, inputs = call.client("iam"), call.id, call.inputs
    if call.changed("assumeRolePolicy"):
        iam.update_assume_role_policy(RoleName=role, PolicyDocument=text(inputs["assumeRolePolicy"]))
    if call.changed("description", "maxSessionDuration"):
        iam.update_role(
            RoleName=role,
            Description=inputs.get("description") or "",
            MaxSessionDuration=int(inputs["maxSessionDuration"]),
        )
    if call.changed("permissionsBoundary"):
        if inputs.get("permissionsBoundary"):
            iam.put_role_permissions_boundary(RoleName=role, PermissionsBoundary=inputs["permissionsBoundary"])
        else:
            iam.delete_role_permissions_boundary(RoleName=role)
    if call.changed("inlinePolicies"):
        _put_inline(iam, role, call.old_inputs.get("inlinePolicies") or [], inputs.get("inlinePolicies") or [])
    if call.changed("managedPolicyArns"):
        old, new = set(call.old_inputs.get("managedPolicyArns") or []), set(inputs.get("managedPolicyArns") or [])
        for arn in sorted(new - old):
            iam.attach_role_policy(RoleName=role, PolicyArn=arn)
        for arn in sorted(old - new):
            with tolerating(_GONE):
                iam.detach_role_policy(RoleName=role, PolicyArn=arn)
    retag(
        call,
        lambda tags: iam.tag_role(RoleName=role, Tags=tag_list(tags)),
        lambda keys: iam.untag_role(RoleName=role, TagKeys=keys),
    )


def _delete_role(call: AwsCall) -> None:
    iam, role = call.client("iam"), call.id
    with tolerating(_GONE):
        inline = [policy["name"] for policy in call.inputs.get("inlinePolicies") or [] if policy.get("name")]
        attached = list(call.inputs.get("managedPolicyArns") or [])
        if call.inputs.get("forceDetachPolicies"):
            inline = iam.list_role_policies(RoleName=role)["PolicyNames"]
            attached = [
                policy["PolicyArn"] for policy in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
            ]
        for name in inline:
            with tolerating(_GONE):
                iam.delete_role_policy(RoleName=role, PolicyName=name)
        for arn in attached:
            with tolerating(_GONE):
                iam.detach_role_policy(RoleName=role, PolicyArn=arn)
        iam.delete_role(RoleName=role)


def _put_role_policy(call: AwsCall) -> str:
    inputs = call.inputs
    call.client("iam").put_role_policy(
        RoleName=inputs["role"], PolicyName=inputs["name"], PolicyDocument=text(inputs["policy"])
    )
    return f"{inputs['role']}:{inputs['name']}"


def _update_role_policy(call: AwsCall) -> None:
    _put_role_policy(call)


def _read_role_policy(call: AwsCall) -> Values | None:
    role, _, name = call.id.partition(":")
    found: Values | None = None
    with tolerating(_GONE):
        found = call.client("iam").get_role_policy(RoleName=role, PolicyName=name)
    if found is None:
        return None
    return {"role": role, "name": name, "policy": _document(found["PolicyDocument"])}


def _delete_role_policy(call: AwsCall) -> None:
    role, _, name = call.id.partition(":")
    with tolerating(_GONE):
        call.client("iam").delete_role_policy(RoleName=role, PolicyName=name)


def _create_policy(call: AwsCall) -> str:
    iam, inputs = call.client("iam"), call.inputs
    parameters = {
        "PolicyName": inputs["name"],
        "Path": inputs["path"],
        "PolicyDocument": text(inputs["policy"]),
        "Description": inputs.get("description"),
        "Tags": tag_list(inputs.get("tags")) or None,
    }
    arn = f"arn:aws:iam::{call.cloud.account}:policy{inputs['path']}{inputs['name']}"
    with tolerating(*((_EXISTS,) if call.resuming else ())):
        iam.create_policy(**{name: value for name, value in parameters.items() if value is not None})
    return arn


def _read_policy(call: AwsCall) -> Values | None:
    iam = call.client("iam")
    found: Values | None = None
    with tolerating(_GONE):
        found = iam.get_policy(PolicyArn=call.id)["Policy"]
    if found is None:
        return None
    version = iam.get_policy_version(PolicyArn=call.id, VersionId=found["DefaultVersionId"])
    return {
        "arn": found["Arn"],
        "name": found["PolicyName"],
        "path": found["Path"],
        "policyId": found["PolicyId"],
        "attachmentCount": found["AttachmentCount"],
        "description": found.get("Description", ""),
        "policy": _document(version["PolicyVersion"]["Document"]),
        "tags": tag_map(found.get("Tags")),
    }


def _update_policy(call: AwsCall) -> None:
    iam, arn = call.client("iam"), call.id
    if call.changed("policy"):
        versions = iam.list_policy_versions(PolicyArn=arn)["Versions"]
        stale = [version for version in versions if not version["IsDefaultVersion"]]
        if len(versions) >= 5:  # the maximum of IAM
            oldest = min(stale, key=lambda version: int(version["VersionId"][1:]))
            iam.delete_policy_version(PolicyArn=arn, VersionId=oldest["VersionId"])
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=text(call.inputs["policy"]), SetAsDefault=True)
    retag(
        call,
        lambda tags: iam.tag_policy(PolicyArn=arn, Tags=tag_list(tags)),
        lambda keys: iam.untag_policy(PolicyArn=arn, TagKeys=keys),
    )


def _delete_policy(call: AwsCall) -> None:
    iam, arn = call.client("iam"), call.id
    with tolerating(_GONE):
        for version in iam.list_policy_versions(PolicyArn=arn)["Versions"]:
            if not version["IsDefaultVersion"]:
                iam.delete_policy_version(PolicyArn=arn, VersionId=version["VersionId"])
        iam.delete_policy(PolicyArn=arn)


def _attach_policy(call: AwsCall) -> str:
    role, arn = call.inputs["role"], call.inputs["policyArn"]
    call.client("iam").attach_role_policy(RoleName=role, PolicyArn=arn)
    return f"{role}/{arn}"


def _read_attachment(call: AwsCall) -> Values | None:
    role, _, arn = call.id.partition("/")
    with tolerating(_GONE):
        for page in call.client("iam").get_paginator("list_attached_role_policies").paginate(RoleName=role):
            if any(each["PolicyArn"] == arn for each in page["AttachedPolicies"]):
                return {"role": role, "policyArn": arn}
    return None


def _detach_policy(call: AwsCall) -> None:
    role, _, arn = call.id.partition("/")
    with tolerating(_GONE):
        call.client("iam").detach_role_policy(RoleName=role, PolicyArn=arn)


def _create_oidc(call: AwsCall) -> str:
    iam, inputs = call.client("iam"), call.inputs
    arn = f"arn:aws:iam::{call.cloud.account}:oidc-provider/{_host(inputs['url'])}"
    with tolerating(*((_EXISTS,) if call.resuming else ())):
        iam.create_open_id_connect_provider(
            Url=inputs["url"] if "//" in inputs["url"] else f"https://{inputs['url']}",
            ClientIDList=inputs["clientIdLists"],
            # AWS computes the thumbprint; moto requires one.
            ThumbprintList=inputs.get("thumbprintLists") or ["0" * 40],
            Tags=tag_list(inputs.get("tags")),
        )
    return arn


def _host(url: str) -> str:
    return url.partition("//")[2] or url


def _read_oidc(call: AwsCall) -> Values | None:
    found: Values | None = None
    with tolerating(_GONE):
        found = call.client("iam").get_open_id_connect_provider(OpenIDConnectProviderArn=call.id)
    if found is None:
        return None
    return {
        "arn": call.id,
        "url": call.inputs.get("url") or f"https://{_host(found['Url'])}",
        "clientIdLists": found["ClientIDList"],
        "thumbprintLists": call.inputs.get("thumbprintLists") or found["ThumbprintList"],
        "tags": tag_map(found.get("Tags")),
    }


def _update_oidc(call: AwsCall) -> None:
    iam, arn, inputs = call.client("iam"), call.id, call.inputs
    if call.changed("thumbprintLists") and inputs.get("thumbprintLists"):
        iam.update_open_id_connect_provider_thumbprint(
            OpenIDConnectProviderArn=arn, ThumbprintList=inputs["thumbprintLists"]
        )
    retag(
        call,
        lambda tags: iam.tag_open_id_connect_provider(OpenIDConnectProviderArn=arn, Tags=tag_list(tags)),
        lambda keys: iam.untag_open_id_connect_provider(OpenIDConnectProviderArn=arn, TagKeys=keys),
    )


def _delete_oidc(call: AwsCall) -> None:
    with tolerating(_GONE):
        call.client("iam").delete_open_id_connect_provider(OpenIDConnectProviderArn=call.id)


ROWS = (
    Row(
        "aws:iam/role:Role",
        create=_create_role,
        read=_read_role,
        update=_update_role,
        delete=_delete_role,
        required=("assumeRolePolicy",),
        optional=(
            "description",
            "forceDetachPolicies",
            "inlinePolicies",
            "managedPolicyArns",
            "maxSessionDuration",
            "name",
            "path",
            "permissionsBoundary",
            "tags",
        ),
        auto_name=AutoName(longest=64),
        named_by=("name",),
        defaults={"forceDetachPolicies": False, "maxSessionDuration": 3600, "path": "/"},
        replaces=("name", "path"),
        documents=("assumeRolePolicy",),
        policies=("assumeRolePolicy",),
        sets=("managedPolicyArns",),
        computed=("arn", "createDate", "tagsAll", "uniqueId"),
    ),
    Row(
        "aws:iam/rolePolicy:RolePolicy",
        create=_put_role_policy,
        read=_read_role_policy,
        update=_update_role_policy,
        delete=_delete_role_policy,
        required=("role", "policy"),
        optional=("name",),
        auto_name=AutoName(),
        named_by=("role", "name"),
        replaces=("name", "role"),
        documents=("policy",),
        policies=("policy",),
    ),
    Row(
        "aws:iam/policy:Policy",
        create=_create_policy,
        read=_read_policy,
        update=_update_policy,
        delete=_delete_policy,
        required=("policy",),
        optional=("name", "path", "description", "tags"),
        auto_name=AutoName(),
        named_by=("name", "path"),
        defaults={"path": "/"},
        replaces=("name", "path", "description"),
        documents=("policy",),
        policies=("policy",),
        computed=("arn", "attachmentCount", "policyId", "tagsAll"),
    ),
    Row(
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        create=_attach_policy,
        read=_read_attachment,
        delete=_detach_policy,
        required=("role", "policyArn"),
        replaces=("role", "policyArn"),
    ),
    Row(
        "aws:iam/openIdConnectProvider:OpenIdConnectProvider",
        create=_create_oidc,
        read=_read_oidc,
        update=_update_oidc,
        delete=_delete_oidc,
        required=("url", "clientIdLists"),
        optional=("thumbprintLists", "tags"),
        named_by=("url",),
        replaces=("url", "clientIdLists"),  # AWS can add a client id in place; moto cannot
        sets=("clientIdLists", "thumbprintLists"),
        computed=("arn", "tagsAll", "thumbprintLists"),
    ),
)
