"""Which permissions a KMS request needs. A key's own policy rules: without its word nobody uses the key."""

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
    """The permissions of one call of the KMS API."""
    asked = request.json
    name = str(asked.get("KeyId") or asked.get("TargetKeyId") or "")
    tags = {str(tag.get("TagKey")): str(tag.get("TagValue")) for tag in asked.get("Tags") or []}
    if action in _WITHOUT_KEY and not name:
        yield Need(f"kms:{action}", "*", tag_context(tags, {}))
        if action == "CreateKey" and tags:
            yield Need("kms:TagResource", f"arn:aws:kms:{request.region}:{ACCOUNT}:key/*", tag_context(tags, {}))
        return
    alias = str(asked.get("AliasName") or "")
    if alias:
        yield Need(f"kms:{action}", f"arn:aws:kms:{request.region}:{ACCOUNT}:{alias}")
        if not name:
            name = alias
    if not name and asked.get("CiphertextBlob"):
        name = _encrypted_under(str(asked["CiphertextBlob"]))
    context: dict[str, tuple[str, ...]] = {
        f"kms:encryptioncontext:{key}".lower(): (str(value),)
        for key, value in (asked.get("EncryptionContext") or {}).items()
    }
    if tags or asked.get("TagKeys"):
        context |= tag_context(tags, {}, asked.get("TagKeys") or ())
    if asked.get("SigningAlgorithm"):
        context["kms:signingalgorithm"] = (str(asked["SigningAlgorithm"]),)
    if action in ("Sign", "Verify"):
        context["kms:messagetype"] = (str(asked.get("MessageType") or "RAW"),)
    if str(asked.get("KeyId", "")).startswith("alias/"):
        context["kms:requestalias"] = (str(asked["KeyId"]),)
    yield key_need(f"kms:{action}", name, request.region, context)


def key_need(action: str, name: str, region: str, context: Mapping[str, tuple[str, ...]]) -> Need:
    """The permission to do something with one key.

    Args:
        name: key id, key ARN, alias name or alias ARN.
    """
    full = {**context, "kms:calleraccount": (ACCOUNT,)}
    key = _key(name, region)
    if key is None:  # judged as a resource that no key policy speaks for; KMS then says that it is not there
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
    except (AttributeError, LookupError):  # an alias that points nowhere
        return None


def _tags(key: Any) -> dict[str, str]:
    from moto.kms.models import kms_backends

    tags: dict[str, str] = kms_backends[ACCOUNT][key.arn.split(":")[3]].tagger.get_tag_dict_for_resource(key.id)
    return tags


def _encrypted_under(blob: str) -> str:
    """The key id that moto writes at the head of a ciphertext."""
    try:
        return base64.b64decode(blob)[:36].decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return ""
