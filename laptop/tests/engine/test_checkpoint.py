from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from laptop.engine.checkpoint import DefaultProvider, PassphraseSeal, export_deployment, has_secrets
from laptop.engine.resources import Contents, Pending, ResourceState
from laptop.engine.values import Properties
from laptop.kubernetes.kubernetes_provider import KubernetesProvider

NOW = datetime(2026, 11, 29, 18, 30, tzinfo=UTC)
STACK = "urn:pulumi:dev::shop::pulumi:pulumi:Stack::shop-dev"
SHELF = "urn:pulumi:dev::shop::shop:index:Shelf::top"
BUCKET = "urn:pulumi:dev::shop::shop:index:Shelf$aws:s3/bucket:Bucket::books"
POLICY = "urn:pulumi:dev::shop::shop:index:Shelf$aws:s3/bucketPolicy:BucketPolicy::books"
OTHER = "urn:pulumi:dev::shop::pulumi:pulumi:StackReference::other"
PROVIDERS = {"aws": DefaultProvider("7.51.1", {"region": "eu-west-1"}), "kubernetes": DefaultProvider("4.34.2")}

BOOKS = ResourceState(
    BUCKET,
    id="books-1",
    inputs=Properties({"bucket": "books-1", "tags": {"owner": "a"}}),
    outputs=Properties({"bucket": "books-1", "arn": "arn:books-1"}),
    parent=SHELF,
    protect=True,
    retain_on_delete=True,
    secret_names=("arn",),
)
RULE = ResourceState(
    POLICY,
    id="books-1",
    inputs=Properties({"bucket": "books-1", "policy": "{}"}),
    parent=SHELF,
    dependencies=(BUCKET,),
    property_dependencies=(("bucket", (BUCKET,)),),
)


def contents(*resources: ResourceState) -> Contents:
    root = ResourceState(STACK, custom=False, outputs=Properties({"url": "u"}))
    shelf = ResourceState(SHELF, custom=False, parent=STACK)
    return Contents("shop", "dev", resources={known.urn: known for known in (*resources, shelf, root)})


def exported(held: Contents, seal: PassphraseSeal | None = None) -> Any:
    document = json.loads(json.dumps(export_deployment(held, PROVIDERS, seal, NOW)))
    assert document["version"] == 3
    return document["deployment"]


def decrypted(deployment: Any, ciphertext: str, passphrase: str) -> Any:
    """Decrypt a value as Pulumi does."""
    provider = deployment["secrets_providers"]
    assert provider["type"] == "passphrase"
    version, salt, check = provider["state"]["salt"].split(":", 2)
    assert version == "v1"
    key = PBKDF2HMAC(SHA256(), length=32, salt=base64.b64decode(salt), iterations=1_000_000).derive(passphrase.encode())

    def opened(text: str) -> str:
        version, nonce, sealed = text.split(":")
        assert version == "v1"
        return AESGCM(key).decrypt(base64.b64decode(nonce), base64.b64decode(sealed), None).decode()

    assert opened(check) == "pulumi"
    return json.loads(opened(ciphertext))


def test_a_resource_has_the_fields_of_pulumis_format() -> None:
    deployment = exported(contents(BOOKS, RULE))
    by_urn = {known["urn"]: known for known in deployment["resources"]}
    provider = by_urn["urn:pulumi:dev::shop::pulumi:providers:aws::default_7_51_1"]
    assert by_urn[BUCKET] == {
        "urn": BUCKET,
        "custom": True,
        "id": "books-1",
        "type": "aws:s3/bucket:Bucket",
        "inputs": {"bucket": "books-1", "tags": {"owner": "a"}},
        "outputs": {"bucket": "books-1", "arn": "arn:books-1"},
        "parent": SHELF,
        "protect": True,
        "provider": f"{provider['urn']}::{provider['id']}",
        "propertyDependencies": {"bucket": [], "tags": []},
        "additionalSecretOutputs": ["arn"],
        "retainOnDelete": True,
    }
    assert by_urn[POLICY]["dependencies"] == [BUCKET]
    assert by_urn[POLICY]["propertyDependencies"] == {"bucket": [BUCKET], "policy": []}
    assert by_urn[STACK] == {
        "urn": STACK,
        "custom": False,
        "type": "pulumi:pulumi:Stack",
        "outputs": {"url": "u"},
    }
    assert deployment["manifest"] == {"time": "2026-11-29T18:30:00Z", "magic": "", "version": ""}
    assert "secrets_providers" not in deployment
    assert "pending_operations" not in deployment


def test_a_resource_keeps_what_ties_it_to_others() -> None:
    tied = replace(RULE, deleted_with=BUCKET, replace_with=(BUCKET,), replace_on_changes=("policy",), import_id="books")
    known = exported(contents(BOOKS, tied))["resources"][-1]
    assert known["deletedWith"] == BUCKET
    assert known["replaceWith"] == [BUCKET]
    assert known["replaceOnChanges"] == ["policy"]
    assert known["importID"] == "books"


def test_only_the_default_providers_in_use_are_exported_with_the_stacks_configuration() -> None:
    deployment = exported(contents(BOOKS, ResourceState(OTHER, id="organization/shop/test", external=True)))
    providers = {known["type"]: known for known in deployment["resources"] if ":providers:" in known["type"]}
    assert set(providers) == {"pulumi:providers:aws", "pulumi:providers:pulumi"}
    aws = providers["pulumi:providers:aws"]
    assert aws["inputs"] == {"__internal": {}, "region": "eu-west-1", "version": "7.51.1"}
    assert aws["outputs"] == {"region": "eu-west-1", "version": "7.51.1"}
    assert providers["pulumi:providers:pulumi"]["urn"].endswith("::default")
    only = exported(contents())["resources"]
    assert [known["type"] for known in only] == ["pulumi:pulumi:Stack", "shop:index:Shelf"]


def test_a_resource_comes_after_everything_that_it_needs() -> None:
    resources = exported(contents(RULE, BOOKS))["resources"]
    seen: set[str] = set()
    for known in resources:
        needed = {
            known.get("parent", ""),
            known.get("provider", "").rpartition("::")[0],
            *known.get("dependencies", ()),
        }
        assert needed - {""} <= seen, known["urn"]
        seen.add(known["urn"])


def test_an_explicit_provider_is_kept() -> None:
    provider = ResourceState(
        "urn:pulumi:dev::shop::pulumi:providers:aws::west", id="p-1", inputs=Properties({"a": "b"})
    )
    explicit = replace(BOOKS, provider=f"{provider.urn}::p-1")
    resources = exported(contents(explicit, provider))["resources"]
    assert [known["urn"] for known in resources if ":providers:" in known["type"]] == [provider.urn]
    assert next(known for known in resources if known["urn"] == BUCKET)["provider"] == f"{provider.urn}::p-1"


def test_secrets_are_sealed_with_the_passphrase() -> None:
    secret = replace(
        BOOKS,
        inputs=Properties(
            {"bucket": "b", "tags": {"token": "hush-hush", "n": 1}}, frozenset([("tags", "token"), ("tags",)])
        ),
        outputs=Properties({"keys": ["k"]}, frozenset([("keys", 0)])),
    )
    held = contents(secret)
    assert has_secrets(held)
    deployment = exported(held, PassphraseSeal("correct horse"))
    found = next(known for known in deployment["resources"] if known["urn"] == BUCKET)
    assert "hush-hush" not in json.dumps(deployment)
    mark = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
    key = found["outputs"]["keys"][0]
    assert {name: key[name] for name in mark} == mark
    assert decrypted(deployment, key["ciphertext"], "correct horse") == "k"
    tags = decrypted(deployment, found["inputs"]["tags"]["ciphertext"], "correct horse")
    assert tags["n"] == 1
    assert decrypted(deployment, tags["token"]["ciphertext"], "correct horse") == "hush-hush"
    with pytest.raises(InvalidTag):
        decrypted(deployment, key["ciphertext"], "wrong")


def test_copies_to_delete_and_unfinished_steps_are_exported() -> None:
    held = contents(BOOKS)
    old = replace(BOOKS, id="books-0")
    held.doomed[old.urn, old.id] = old
    held.pending["create", POLICY, ""] = Pending("create", RULE)
    deployment = exported(held)
    assert [known["id"] for known in deployment["resources"] if known.get("delete")] == ["books-0"]
    (pending,) = deployment["pending_operations"]
    assert (pending["type"], pending["resource"]["urn"]) == ("creating", POLICY)
    assert not has_secrets(held)


def test_a_kubernetes_object_has_the_notes_of_pulumis_provider(tmp_path: Path) -> None:
    known = ResourceState(
        "urn:pulumi:dev::shop::kubernetes:core/v1:Secret::s",
        id="default/s",
        inputs=Properties(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "hush-hush"}},
            frozenset([("stringData", "a")]),
        ),
        outputs=Properties({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "uid": "u"}}),
    )
    provider = DefaultProvider("4.34.2", outputs=KubernetesProvider(tmp_path / "kubeconfig").exported_outputs)
    document = export_deployment(contents(known), {"kubernetes": provider}, PassphraseSeal(""), NOW)
    (found,) = [item for item in document["deployment"]["resources"] if item["urn"] == known.urn]
    outputs = found["outputs"]
    assert outputs["metadata"] == {"name": "s", "uid": "u"}
    assert outputs["__inputs"]["metadata"] == {"name": "s"}
    assert outputs["__initialApiVersion"] == "v1"
    assert re.fullmatch("pulumi-kubernetes-[0-9a-f]{8}", outputs["__fieldManager"])
    assert "hush-hush" not in json.dumps(document)
