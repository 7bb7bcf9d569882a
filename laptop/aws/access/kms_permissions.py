"""Permissions of KMS requests. The key policy decides: without one, no caller may use the key.

Source: AWS KMS developer guide, "AWS KMS permissions" (operations, actions, resources, condition keys).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

from laptop.aws.access.policy import Need, parse
from laptop.aws.access.principals import ACCOUNT
from laptop.aws.access.request import Request, RequestRefusedError
from laptop.aws.access.tags import tag_context

WITHOUT_KEY = frozenset({"CreateKey", "GenerateRandom", "ListAliases", "ListKeys", "ListRetirableGrants"})
"""Operations that need their action on `*`."""

ON_ALIAS = frozenset({"CreateAlias", "DeleteAlias", "UpdateAlias"})
"""Operations that need their action on the alias and on each key that it had or gets."""

BY_CIPHERTEXT = frozenset({"Decrypt", "ReEncrypt"})
"""Operations on the key that encrypted a text."""

ON_KEY = frozenset(
    {
        "CancelKeyDeletion",
        "CreateGrant",
        "DescribeKey",
        "DisableKey",
        "DisableKeyRotation",
        "EnableKey",
        "EnableKeyRotation",
        "Encrypt",
        "GenerateDataKey",
        "GenerateDataKeyWithoutPlaintext",
        "GenerateMac",
        "GetKeyPolicy",
        "GetKeyRotationStatus",
        "GetPublicKey",
        "ListGrants",
        "ListKeyPolicies",
        "ListKeyRotations",
        "ListResourceTags",
        "PutKeyPolicy",
        "ReplicateKey",
        "RevokeGrant",
        "RotateKeyOnDemand",
        "ScheduleKeyDeletion",
        "Sign",
        "TagResource",
        "UntagResource",
        "UpdateKeyDescription",
        "Verify",
        "VerifyMac",
    }
)
"""Operations on the key of the parameter `KeyId`."""

_KEY_ID = re.compile(r"(mrk-)?[0-9a-fA-F-]{32,36}")
_ALIAS = re.compile(r"alias/[A-Za-z0-9/_-]+")

# Condition key -> parameter
_PARAMETERS = {
    "kms:bypasspolicylockoutsafetycheck": "BypassPolicyLockoutSafetyCheck",
    "kms:granteeprincipal": "GranteePrincipal",
    "kms:macalgorithm": "MacAlgorithm",
    "kms:replicaregion": "ReplicaRegion",
    "kms:retiringprincipal": "RetiringPrincipal",
    "kms:rotationperiodindays": "RotationPeriodInDays",
    "kms:schedulekeydeletionpendingwindowindays": "PendingWindowInDays",
    "kms:signingalgorithm": "SigningAlgorithm",
}


def kms_needs(request: Request, action: str) -> Iterator[Need]:
    """Yield the permissions of a KMS request.

    Raises:
        RequestRefusedError: moto does not implement the operation, or a key does not exist.
    """
    if action in WITHOUT_KEY:
        yield from _without_key(request, action)
    elif action in ON_ALIAS:
        yield from _on_alias(request, action)
    elif action == "RetireGrant":
        yield from _retiring(request)
    elif action in BY_CIPHERTEXT:
        yield from _on_ciphertext(request, action)
    elif action in ON_KEY:
        yield key_need(f"kms:{action}", _text(request, "KeyId"), request.region, _context(request, action))
        if action == "ReplicateKey":
            region = _text(request, "ReplicaRegion")
            tags = tag_context(_tags_given(request), {})
            yield Need("kms:CreateKey", f"arn:aws:kms:{region}:{ACCOUNT}:key/*", tags)
            if _tags_given(request):
                yield Need("kms:TagResource", f"arn:aws:kms:{region}:{ACCOUNT}:key/*", tags)
    else:
        raise RequestRefusedError(501, "NotImplemented", f"The laptop's KMS does not implement {action}.")


def _without_key(request: Request, action: str) -> Iterator[Need]:
    if action != "CreateKey":
        yield Need(f"kms:{action}", "*")
        return
    tags, parameters = _tags_given(request), request.json
    context = {
        **_from_parameters(request),
        **tag_context(tags, {}),
        "kms:keyspec": (str(parameters.get("KeySpec") or parameters.get("CustomerMasterKeySpec") or _SYMMETRIC),),
        "kms:keyusage": (str(parameters.get("KeyUsage") or "ENCRYPT_DECRYPT"),),
        "kms:keyorigin": (str(parameters.get("Origin") or "AWS_KMS"),),
        "kms:multiregion": (str(bool(parameters.get("MultiRegion"))).lower(),),
    }
    yield Need("kms:CreateKey", "*", context)
    if tags:
        yield Need("kms:TagResource", f"arn:aws:kms:{request.region}:{ACCOUNT}:key/*", tag_context(tags, {}))


def _on_alias(request: Request, action: str) -> Iterator[Need]:
    alias = _text(request, "AliasName")
    yield Need(f"kms:{action}", f"arn:aws:kms:{request.region}:{ACCOUNT}:{alias}")
    context = _context(request, action)
    if action != "CreateAlias":
        yield key_need(f"kms:{action}", alias, request.region, context)
    if action != "DeleteAlias":
        yield key_need(f"kms:{action}", _text(request, "TargetKeyId"), request.region, context)


def _retiring(request: Request) -> Iterator[Need]:
    """moto retires the grant of a token, whichever key it belongs to."""
    token = _text(request, "GrantToken")
    if not token:
        yield key_need("kms:RetireGrant", _text(request, "KeyId"), request.region, {})
        return
    for key in _keys(request.region).values():
        if any(grant.token == token for grant in key.grants.values()):
            yield key_need("kms:RetireGrant", key.id, request.region, {})
            return
    raise _not_found("The grant")


def _on_ciphertext(request: Request, action: str) -> Iterator[Need]:
    encrypted_under = _encrypted_under(_text(request, "CiphertextBlob"))
    context = _context(request, action)
    named = _text(request, "KeyId") if action == "Decrypt" else _text(request, "SourceKeyId")
    if named and resolve(named, request.region) is not resolve(encrypted_under, request.region):
        raise RequestRefusedError(400, "IncorrectKeyException", "The key is not the one that encrypted the text.")
    if action == "Decrypt":
        yield key_need("kms:Decrypt", encrypted_under, request.region, {**context, **_alias_of(named)})
        return
    source = {**context, **_encryption_context(request, "SourceEncryptionContext"), **_alias_of(named)}
    yield key_need("kms:ReEncryptFrom", encrypted_under, request.region, source)
    destination = _text(request, "DestinationKeyId")
    given = {**context, **_encryption_context(request, "DestinationEncryptionContext"), **_alias_of(destination)}
    yield key_need("kms:ReEncryptTo", destination, request.region, given)


_SYMMETRIC = "SYMMETRIC_DEFAULT"


def _context(request: Request, action: str) -> dict[str, tuple[str, ...]]:
    """Return the condition keys of a request on a key."""
    parameters = request.json
    context = {**_from_parameters(request), **_encryption_context(request, "EncryptionContext")}
    tags, removed = _tags_given(request), parameters.get("TagKeys") or ()
    if tags or removed:
        context |= tag_context(tags, {}, removed)
    if action in ("Sign", "Verify"):
        context["kms:messagetype"] = (str(parameters.get("MessageType") or "RAW"),)
    if action in ("Encrypt", "Decrypt", "ReEncrypt"):
        context["kms:encryptionalgorithm"] = (str(parameters.get("EncryptionAlgorithm") or _SYMMETRIC),)
    if action == "CreateGrant":
        context["kms:grantoperations"] = tuple(map(str, parameters.get("Operations") or ()))
        context["kms:grantisforawsresource"] = ("false",)
    return {**context, **_alias_of(_text(request, "KeyId"))}


def _from_parameters(request: Request) -> dict[str, tuple[str, ...]]:
    given = request.json
    return {key: (_written(given[name]),) for key, name in _PARAMETERS.items() if given.get(name) is not None}


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _encryption_context(request: Request, parameter: str) -> dict[str, tuple[str, ...]]:
    given = request.json.get(parameter) or {}
    if not isinstance(given, dict) or not given:
        return {}
    return {
        **{f"kms:encryptioncontext:{key}".lower(): (str(value),) for key, value in given.items()},
        "kms:encryptioncontextkeys": tuple(map(str, given)),
    }


def _alias_of(name: str) -> dict[str, tuple[str, ...]]:
    """Return the condition key for the alias by which a request names a key."""
    alias = name.partition(":alias/")[2] if name.startswith("arn:") else name.removeprefix("alias/")
    return {"kms:requestalias": (f"alias/{alias}",)} if "alias/" in name else {}


def _tags_given(request: Request) -> dict[str, str]:
    return {str(tag.get("TagKey")): str(tag.get("TagValue")) for tag in request.json.get("Tags") or []}


def _text(request: Request, parameter: str) -> str:
    """Return a parameter that is a text; "" if it is missing.

    Raises:
        RequestRefusedError: it is not a text.
    """
    value = request.json.get(parameter)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RequestRefusedError(400, "SerializationException", f"{parameter} is not a string.")
    return value


def key_need(action: str, name: str, region: str, context: Mapping[str, tuple[str, ...]]) -> Need:
    """Return the permission for an action on one key.

    Args:
        name: key id, key ARN, alias name or alias ARN.

    Raises:
        RequestRefusedError: there is no such key in the account and the region.
    """
    key = resolve(name, region)
    if key is None:
        raise _not_found(f"The key {name}")
    full = {
        **context,
        "kms:calleraccount": (ACCOUNT,),
        "aws:resourceaccount": (ACCOUNT,),
        "kms:keyspec": (str(key.key_spec),),
        "kms:keyusage": (str(key.key_usage),),
        "kms:keyorigin": (str(key.origin),),
        "kms:multiregion": (str(bool(key.multi_region)).lower(),),
        **{f"aws:resourcetag/{tag}".lower(): (value,) for tag, value in _tags(key).items()},
    }
    if key.aliases:
        full["kms:resourcealiases"] = tuple(sorted(key.aliases))
    return Need(action, key.arn, full, parse(key.policy, f"the key {key.id}"), policy_rules=True)


def resolve(name: str, region: str) -> Any:
    """Return moto's key of an id, an ARN or an alias, or None.

    moto looks at the last part of an ARN only, so ARNs of other accounts and regions are refused here.
    """
    prefix = f"arn:aws:kms:{region}:{ACCOUNT}:"
    if name.startswith("arn:"):
        if not name.startswith(prefix):
            return None
        name = name.removeprefix(prefix)
        if not name.startswith(("key/", "alias/")):
            return None
        name = name.removeprefix("key/")
    if _ALIAS.fullmatch(name):
        backend = _backend(region)
        return _keys(region).get(backend.get_key_id_from_alias(name) or "")
    return _keys(region).get(name) if _KEY_ID.fullmatch(name) else None


def _backend(region: str) -> Any:
    from moto.kms.models import kms_backends

    return kms_backends[ACCOUNT][region]


def _keys(region: str) -> dict[str, Any]:
    keys: dict[str, Any] = _backend(region).keys
    return keys


def _tags(key: Any) -> dict[str, str]:
    tags: dict[str, str] = _backend(key.arn.split(":")[3]).tagger.get_tag_dict_for_resource(key.id)
    return tags


def _encrypted_under(blob: str) -> str:
    """Return the key id that moto writes at the start of a ciphertext."""
    try:
        return base64.b64decode(blob)[:36].decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _not_found(what: str) -> RequestRefusedError:
    return RequestRefusedError(400, "NotFoundException", f"{what} does not exist.")
