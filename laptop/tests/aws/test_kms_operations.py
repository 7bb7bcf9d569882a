"""Every operation of KMS is judged by its documented actions, on the key that moto uses."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.model
import pytest

from laptop.aws.access.kms_permissions import BY_CIPHERTEXT, ON_ALIAS, ON_KEY, WITHOUT_KEY, kms_needs
from laptop.aws.access.principals import ACCOUNT
from laptop.aws.access.request import Request, RequestRefusedError

REGION = "eu-west-1"
ALIASES = f"arn:aws:kms:{REGION}:{ACCOUNT}:"


@pytest.fixture
def keys() -> Iterator[tuple[Any, Any]]:
    """Two keys of moto in this process; the first has an alias."""
    from moto.kms.models import kms_backends

    backend = kms_backends[ACCOUNT][REGION]
    first, second = (backend.create_key(None, "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", "", []) for _ in range(2))
    backend.create_alias(first.id, "alias/first")
    yield first, second
    backend.reset()


def judged(operation: str, **parameters: Any) -> list[tuple[str, str]]:
    request = Request("kms", REGION, "POST", "/", {}, json.dumps(parameters).encode())
    return [(need.action.removeprefix("kms:"), need.resource) for need in kms_needs(request, operation)]


def ciphertext(key: Any) -> str:
    from moto.kms.models import kms_backends

    blob, _ = kms_backends[ACCOUNT][REGION].encrypt(key.id, b"text", {})
    return base64.b64encode(blob).decode()


def test_every_operation_of_moto_is_in_the_table_and_no_other() -> None:
    from moto.kms.responses import KmsResponse

    operations = boto3.client("kms", region_name=REGION).meta.service_model.operation_names
    implemented = {name for name in operations if hasattr(KmsResponse, botocore.xform_name(name))}
    assert WITHOUT_KEY | ON_ALIAS | ON_KEY | BY_CIPHERTEXT | {"RetireGrant"} == implemented
    for name in set(operations) - implemented:
        with pytest.raises(RequestRefusedError, match="does not implement"):
            judged(name)


@pytest.mark.parametrize("operation", sorted(ON_KEY - {"ReplicateKey"}))
def test_an_operation_on_a_key_needs_the_action_of_its_name_on_that_key(keys: Any, operation: str) -> None:
    first, second = keys
    for name in (first.id, first.arn, "alias/first", f"{ALIASES}alias/first"):
        # Parameters that the operation does not have change nothing.
        more = {"TargetKeyId": second.id, "AliasName": "alias/x", "CiphertextBlob": "eA=="}
        assert judged(operation, KeyId=name, **more) == [(operation, first.arn)]


@pytest.mark.parametrize("operation", sorted(WITHOUT_KEY))
def test_an_operation_without_a_key_needs_its_action_on_everything(keys: Any, operation: str) -> None:
    assert judged(operation, KeyId=keys[0].id) == [(operation, "*")]


def test_tags_of_a_new_key_need_permission_to_tag() -> None:
    tags = [{"TagKey": "environment", "TagValue": "dev"}]
    new = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/*"
    assert judged("CreateKey", Tags=tags) == [("CreateKey", "*"), ("TagResource", new)]


def test_an_alias_needs_permission_on_every_key_that_it_leaves_or_gets(keys: Any) -> None:
    first, second = keys
    alias = f"{ALIASES}alias/first"
    assert judged("UpdateAlias", AliasName="alias/first", TargetKeyId=second.id) == [
        ("UpdateAlias", alias),
        ("UpdateAlias", first.arn),
        ("UpdateAlias", second.arn),
    ]
    assert judged("DeleteAlias", AliasName="alias/first", KeyId=second.id) == [
        ("DeleteAlias", alias),
        ("DeleteAlias", first.arn),
    ]
    assert judged("CreateAlias", AliasName="alias/new", TargetKeyId=second.id, KeyId=first.id) == [
        ("CreateAlias", f"{ALIASES}alias/new"),
        ("CreateAlias", second.arn),
    ]


def test_a_text_is_decrypted_with_the_permission_on_the_key_that_encrypted_it(keys: Any) -> None:
    first, second = keys
    text = ciphertext(first)
    assert judged("Decrypt", CiphertextBlob=text) == [("Decrypt", first.arn)]
    assert judged("Decrypt", CiphertextBlob=text, KeyId="alias/first") == [("Decrypt", first.arn)]
    with pytest.raises(RequestRefusedError, match="not the one that encrypted"):
        judged("Decrypt", CiphertextBlob=text, KeyId=second.id)


def test_encrypting_again_needs_permissions_on_both_keys(keys: Any) -> None:
    first, second = keys
    assert judged("ReEncrypt", CiphertextBlob=ciphertext(first), DestinationKeyId=second.id) == [
        ("ReEncryptFrom", first.arn),
        ("ReEncryptTo", second.arn),
    ]


def test_a_grant_is_retired_with_the_permission_on_its_key(keys: Any) -> None:
    first, second = keys
    token = first.add_grant("n", "p", [], {}, "r").token
    assert judged("RetireGrant", GrantToken=token, KeyId=second.id) == [("RetireGrant", first.arn)]
    assert judged("RetireGrant", KeyId=second.id, GrantId="g") == [("RetireGrant", second.arn)]
    with pytest.raises(RequestRefusedError, match="does not exist"):
        judged("RetireGrant", GrantToken="none")


@pytest.mark.parametrize(
    "name",
    [
        "arn:aws:kms:us-east-1:123456789012:key/{id}",  # moto looks at the last part only
        "arn:aws:kms:eu-west-1:999999999999:key/{id}",
        "arn:aws:s3:eu-west-1:123456789012:key/{id}",
        "arn:aws:kms:eu-west-1:123456789012:x:key/{id}",
        "arn:aws:kms:us-east-1:123456789012:alias/first",
        "alias/none",
        "{id} ",
        "",
    ],
)
def test_a_key_that_does_not_exist_is_refused_before_moto_finds_another(keys: Any, name: str) -> None:
    with pytest.raises(RequestRefusedError, match="does not exist"):
        judged("DescribeKey", KeyId=name.format(id=keys[0].id))


def test_a_name_that_is_not_a_text_is_refused(keys: Any) -> None:
    with pytest.raises(RequestRefusedError, match="KeyId is not a string"):
        judged("DescribeKey", KeyId=[keys[0].id])


def test_conditions_of_the_request_and_of_the_key_are_known(keys: Any) -> None:
    parameters = {
        "KeyId": f"{ALIASES}alias/first",
        "Plaintext": "eA==",
        "EncryptionContext": {"A": "1"},
    }
    request = Request("kms", REGION, "POST", "/", {}, json.dumps(parameters).encode())
    (need,) = kms_needs(request, "Encrypt")
    expected = {
        "kms:encryptioncontext:a": ("1",),
        "kms:encryptioncontextkeys": ("A",),
        "kms:encryptionalgorithm": ("SYMMETRIC_DEFAULT",),
        "kms:requestalias": ("alias/first",),
        "kms:resourcealiases": ("alias/first",),
        "kms:keyspec": ("SYMMETRIC_DEFAULT",),
        "kms:keyusage": ("ENCRYPT_DECRYPT",),
        "kms:calleraccount": (ACCOUNT,),
    }
    assert expected.items() <= dict(need.context).items()
