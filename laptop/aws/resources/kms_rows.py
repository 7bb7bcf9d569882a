"""KMS keys and their aliases."""

from __future__ import annotations

import hashlib
from typing import Any

from laptop.aws.cloud import tolerating
from laptop.aws.resources.row import AutoName, AwsCall, Row, Values, retag
from laptop.aws.shapes import tag_list, tag_map

# A key has no name, so this tag is how an interrupted create is found again.
_MARK = "mlops:resource"


def _mark(urn: str) -> str:
    return hashlib.sha256(urn.encode()).hexdigest()


def _create_key(call: AwsCall) -> str:
    kms, inputs = call.client("kms"), call.inputs
    key_id = _left_behind(kms, _mark(call.urn)) if call.resuming else None
    if key_id is None:
        parameters = {
            "Description": inputs.get("description"),
            "KeyUsage": inputs["keyUsage"],
            "KeySpec": inputs["customerMasterKeySpec"],
            "Policy": inputs.get("policy"),
            "MultiRegion": inputs.get("multiRegion"),
            "Tags": tag_list({**(inputs.get("tags") or {}), _MARK: _mark(call.urn)}, "TagKey", "TagValue"),
        }
        answer = kms.create_key(**{name: value for name, value in parameters.items() if value is not None})
        key_id = str(answer["KeyMetadata"]["KeyId"])
    _set_rotation(kms, key_id, inputs)
    if not inputs["isEnabled"]:
        kms.disable_key(KeyId=key_id)
    return key_id


def _left_behind(kms: Any, mark: str) -> str | None:
    for page in kms.get_paginator("list_keys").paginate():
        for key in page["Keys"]:
            tags = tag_map(kms.list_resource_tags(KeyId=key["KeyId"])["Tags"], "TagKey", "TagValue")
            if tags.get(_MARK) == mark and _alive(kms, key["KeyId"]) is not None:
                return str(key["KeyId"])
    return None


def _set_rotation(kms: Any, key_id: str, inputs: Values) -> None:
    if inputs["enableKeyRotation"]:
        kms.enable_key_rotation(KeyId=key_id)
    elif inputs["customerMasterKeySpec"] == "SYMMETRIC_DEFAULT":  # the only spec that can rotate
        kms.disable_key_rotation(KeyId=key_id)


def _alive(kms: Any, key_id: str) -> Values | None:
    """Return the key's metadata; None if it is gone or its deletion is scheduled."""
    found: Values | None = None
    with tolerating("NotFoundException"):
        found = kms.describe_key(KeyId=key_id)["KeyMetadata"]
    return None if found is None or found["KeyState"] == "PendingDeletion" else found


def _read_key(call: AwsCall) -> Values | None:
    kms = call.client("kms")
    found = _alive(kms, call.id)
    if found is None:
        return None
    key_id = found["KeyId"]
    tags = tag_map(kms.list_resource_tags(KeyId=key_id)["Tags"], "TagKey", "TagValue")
    tags.pop(_MARK, None)
    rotates = (
        found["KeySpec"] == "SYMMETRIC_DEFAULT" and kms.get_key_rotation_status(KeyId=key_id)["KeyRotationEnabled"]
    )
    return {
        "arn": found["Arn"],
        "keyId": key_id,
        "description": found.get("Description", ""),
        "keyUsage": found["KeyUsage"],
        "customerMasterKeySpec": found["KeySpec"],
        "isEnabled": found["Enabled"],
        "enableKeyRotation": rotates,
        "policy": kms.get_key_policy(KeyId=key_id, PolicyName="default")["Policy"],
        "tags": tags,
    }


def _update_key(call: AwsCall) -> None:
    kms, key_id, inputs = call.client("kms"), call.id, call.inputs
    if call.changed("description"):
        kms.update_key_description(KeyId=key_id, Description=inputs.get("description") or "")
    if call.changed("policy") and inputs.get("policy"):
        kms.put_key_policy(KeyId=key_id, PolicyName="default", Policy=inputs["policy"])
    if call.changed("enableKeyRotation"):
        _set_rotation(kms, key_id, inputs)
    if call.changed("isEnabled"):
        (kms.enable_key if inputs["isEnabled"] else kms.disable_key)(KeyId=key_id)
    retag(
        call,
        lambda tags: kms.tag_resource(KeyId=key_id, Tags=tag_list(tags, "TagKey", "TagValue")),
        lambda keys: kms.untag_resource(KeyId=key_id, TagKeys=keys),
    )


def _delete_key(call: AwsCall) -> None:
    if _alive(call.client("kms"), call.id) is not None:
        call.client("kms").schedule_key_deletion(
            KeyId=call.id, PendingWindowInDays=int(call.inputs.get("deletionWindowInDays") or 30)
        )


def _create_alias(call: AwsCall) -> str:
    kms, inputs = call.client("kms"), call.inputs
    with tolerating(*(("AlreadyExistsException",) if call.resuming else ())):
        kms.create_alias(AliasName=inputs["name"], TargetKeyId=inputs["targetKeyId"])
    return str(inputs["name"])


def _read_alias(call: AwsCall) -> Values | None:
    kms = call.client("kms")
    for page in kms.get_paginator("list_aliases").paginate():
        for alias in page["Aliases"]:
            if alias["AliasName"] == call.id and alias.get("TargetKeyId"):
                key_id = alias["TargetKeyId"]
                key_arn = f"arn:aws:kms:{call.region}:{call.cloud.account}:key/{key_id}"
                given = str(call.inputs.get("targetKeyId") or "")
                return {
                    "name": call.id,
                    "arn": alias["AliasArn"],
                    "targetKeyArn": key_arn,
                    "targetKeyId": given if given in (key_id, key_arn) else key_id,
                }
    return None


def _update_alias(call: AwsCall) -> None:
    call.client("kms").update_alias(AliasName=call.id, TargetKeyId=call.inputs["targetKeyId"])


def _delete_alias(call: AwsCall) -> None:
    with tolerating("NotFoundException"):
        call.client("kms").delete_alias(AliasName=call.id)


ROWS = (
    Row(
        "aws:kms/key:Key",
        create=_create_key,
        read=_read_key,
        update=_update_key,
        delete=_delete_key,
        optional=(
            "bypassPolicyLockoutSafetyCheck",
            "customerMasterKeySpec",
            "deletionWindowInDays",
            "description",
            "enableKeyRotation",
            "isEnabled",
            "keyUsage",
            "multiRegion",
            "policy",
            "region",
            "rotationPeriodInDays",
            "tags",
        ),
        defaults={
            "bypassPolicyLockoutSafetyCheck": False,
            "customerMasterKeySpec": "SYMMETRIC_DEFAULT",
            "enableKeyRotation": False,
            "isEnabled": True,
            "keyUsage": "ENCRYPT_DECRYPT",
        },
        replaces=("customerMasterKeySpec", "keyUsage", "multiRegion", "region"),
        documents=("policy",),
        policies=("policy",),
        computed=("arn", "keyId", "policy", "region", "tagsAll"),
    ),
    Row(
        "aws:kms/alias:Alias",
        create=_create_alias,
        read=_read_alias,
        update=_update_alias,
        delete=_delete_alias,
        required=("targetKeyId",),
        optional=("name", "region"),
        auto_name=AutoName(longest=256, prefix="alias/"),
        named_by=("name",),
        replaces=("name", "region"),
        computed=("arn", "region", "targetKeyArn"),
    ),
)
