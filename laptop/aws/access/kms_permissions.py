"""Permissions of KMS requests. The key policy decides: without one, no caller may use the key."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from laptop.aws.access.policy import Need, parse
from laptop.aws.access.principals import ACCOUNT
from laptop.aws.access.request import Request
from laptop.aws.access.tags import tag_context

_WITHOUT_KEY = {"CreateKey", "ListKeys", "ListAliases", "GenerateRandom"}


def kms_needs(request: Request, action: str) -> Iterator[Need]:
    """Yield the permissions of a KMS request."""
    parameters = request.json
    name = str(parameters.get("KeyId") or parameters.get("TargetKeyId") or "")
    tags = {str(tag.get("TagKey")): str(tag.get("TagValue")) for tag in parameters.get("Tags") or []}
    if action in _WITHOUT_KEY and not name:
        yield Need(f"kms:{action}", "*", tag_context(tags, {}))
        if action == "CreateKey" and tags:
            yield Need("kms:TagResource", f"arn:aws:kms:{request.region}:{ACCOUNT}:key/*", tag_context(tags, {}))
        return
    alias = str(parameters.get("AliasName") or "")
    if alias:
        yield Need(f"kms:{action}", f"arn:aws:kms:{request.region}:{ACCOUNT}:{alias}")
        if not name:
            name = alias
    if not name and parameters.get("CiphertextBlob"):
        name = _encrypted_under(str(parameters["CiphertextBlob"]))
    context: dict[str, tuple[str, ...]] = {
        f"kms:encryptioncontext:{key}".lower(): (str(value),)
        for key, value in (parameters.get("EncryptionContext") or {}).items()
    }
    if tags or parameters.get("TagKeys"):
        context |= tag_context(tags, {}, parameters.get("TagKeys") or ())
    if parameters.get("SigningAlgorithm"):
        context["kms:signingalgorithm"] = (str(parameters["SigningAlgorithm"]),)
    if action in ("Sign", "Verify"):
        context["kms:messagetype"] = (str(parameters.get("MessageType") or "RAW"),)
    if str(parameters.get("KeyId", "")).startswith("alias/"):
        context["kms:requestalias"] = (str(parameters["KeyId"]),)
    yield key_need(f"kms:{action}", name, request.region, context)


def key_need(action: str, name: str, region: str, context: Mapping[str, tuple[str, ...]]) -> Need:
    """Return the permission for an action on one key.

    Args:
        name: key id, key ARN, alias name or alias ARN.
    """
    full = {**context, "kms:calleraccount": (ACCOUNT,)}
    key = _key(name, region)
    if key is None:  # evaluated without a key policy; KMS then answers that the key does not exist
        arn = name if name.startswith("arn:") else f"arn:aws:kms:{region}:{ACCOUNT}:key/{name}"
        return Need(action, arn, full)
    full |= {f"aws:resourcetag/{tag}".lower(): (value,) for tag, value in _tags(key).items()}
    return Need(action, key.arn, full, parse(key.policy, f"the key {key.id}"), policy_rules=True)


def _key(name: str, region: str) -> Any:
    from moto.kms.models import kms_backends

    if name.startswith("arn:"):
        region = name.split(":")[3]
    backend = kms_backends[ACCOUNT][region]
    try:
        return backend.keys.get(backend.any_id_to_key_id(name))
    except (AttributeError, LookupError):  # an alias without a target
        return None


def _tags(key: Any) -> dict[str, str]:
    from moto.kms.models import kms_backends

    tags: dict[str, str] = kms_backends[ACCOUNT][key.arn.split(":")[3]].tagger.get_tag_dict_for_resource(key.id)
    return tags


def _encrypted_under(blob: str) -> str:
    """Return the key id that moto writes at the start of a ciphertext."""
    try:
        return base64.b64decode(blob)[:36].decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return ""
