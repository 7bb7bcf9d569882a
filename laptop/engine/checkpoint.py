"""Export of a stack's state in the format of `pulumi stack export`: version 3 of Pulumi's deployments."""

from __future__ import annotations

import base64
import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from laptop.engine.decisions import in_creation_order
from laptop.engine.execution import STACK_REFERENCE_TYPE
from laptop.engine.provider import PROVIDER_TYPE_PREFIX, is_provider, package_of
from laptop.engine.resources import Contents, ResourceState
from laptop.engine.values import Properties, is_at, lookup, with_value

FORMAT_VERSION = 3

# Pulumi marks special values with signature keys: sdk/go/common/resource/sig/sig.go.
_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - the mark of a secret, not one
_OPERATIONS = {"create": "creating", "update": "updating", "delete": "deleting"}


@dataclass(frozen=True)
class DefaultProvider:
    """The provider that Pulumi gives to resources without an explicit one.

    Attributes:
        version: version of the SDK that registers the resources; "" for Pulumi's own types.
        configuration: configuration of the stack for the package, without its prefix.
        outputs: returns the outputs of a resource as Pulumi's own provider keeps them.
    """

    version: str = ""
    configuration: Mapping[str, str] = field(default_factory=dict)
    outputs: Callable[[ResourceState], Properties] = lambda known: known.outputs

    @property
    def name(self) -> str:
        return f"default_{self.version.translate(_SEPARATORS)}" if self.version else "default"


_SEPARATORS = str.maketrans(".-+", "___")


class PassphraseSeal:
    """Encrypts secrets as Pulumi's secrets provider `passphrase` does: AES-256-GCM, PBKDF2 with SHA-256.

    Args:
        passphrase: `PULUMI_CONFIG_PASSPHRASE` of those who import the export.
    """

    def __init__(self, passphrase: str) -> None:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

        salt = os.urandom(8)
        key = PBKDF2HMAC(SHA256(), length=32, salt=salt, iterations=1_000_000).derive(passphrase.encode())
        self._key = key
        self._salt = f"v1:{base64.b64encode(salt).decode()}:{self._encrypt('pulumi')}"

    def provider(self) -> dict[str, Any]:
        """Return the description of the secrets provider in a deployment."""
        return {"type": "passphrase", "state": {"salt": self._salt}}

    def seal(self, value: Any) -> str:
        """Encrypt a JSON-like value."""
        return self._encrypt(json.dumps(value, separators=(",", ":")))

    def _encrypt(self, text: str) -> str:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(12)
        sealed = AESGCM(self._key).encrypt(nonce, text.encode(), None)
        return f"v1:{base64.b64encode(nonce).decode()}:{base64.b64encode(sealed).decode()}"


def has_secrets(contents: Contents) -> bool:
    """Return True if a stack holds a secret, so an export needs a passphrase."""
    held = [*contents.resources.values(), *contents.doomed.values(), *(p.resource for p in contents.pending.values())]
    return any(known.inputs.secrets or known.outputs.secrets for known in held)


def export_deployment(
    contents: Contents,
    providers: Mapping[str, DefaultProvider],
    seal: PassphraseSeal | None,
    now: datetime,
) -> dict[str, Any]:
    """Return the state of a stack as a document that `pulumi stack import` reads.

    Args:
        contents: state of the stack.
        providers: package -> its default provider.
        seal: encrypts secrets; None if there are none.
        now: time of the export.
    """
    exporter = _Exporter(contents, providers, seal.seal if seal is not None else None)
    resources = [exporter.resource(known) for known in in_creation_order(contents.resources)]
    resources += [{**exporter.resource(known), "delete": True} for known in contents.doomed.values()]
    pending = [
        {"resource": exporter.resource(item.resource), "type": _OPERATIONS[item.kind]}
        for item in contents.pending.values()
    ]
    stack = [known for known in resources if known["type"] == "pulumi:pulumi:Stack"]
    others = [known for known in resources if known["type"] != "pulumi:pulumi:Stack"]
    deployment: dict[str, Any] = {
        # Without a version there is no checksum over it.
        "manifest": {"time": now.isoformat().replace("+00:00", "Z"), "magic": "", "version": ""},
        "resources": [*stack, *exporter.default_providers(), *others],
        "metadata": {},
    }
    if seal is not None:
        deployment["secrets_providers"] = seal.provider()
    if pending:
        deployment["pending_operations"] = pending
    return {"version": FORMAT_VERSION, "deployment": deployment}


class _Exporter:
    """Converts resources and collects the default providers that they need."""

    def __init__(
        self, contents: Contents, providers: Mapping[str, DefaultProvider], seal: Callable[[Any], str] | None
    ) -> None:
        self._contents = contents
        self._providers = providers
        self._seal = seal
        self._used: dict[str, dict[str, Any]] = {}

    def default_providers(self) -> list[dict[str, Any]]:
        """Return the default providers of the resources converted so far."""
        return [self._used[package] for package in sorted(self._used)]

    def resource(self, known: ResourceState) -> dict[str, Any]:
        """Return a resource without the fields that are empty."""
        dependencies = {key: list(urns) for key, urns in known.property_dependencies}
        if known.custom and not is_provider(known.type):
            dependencies = {key: dependencies.get(key, []) for key in sorted({*known.inputs.values, *dependencies})}
        found: dict[str, Any] = {
            "urn": known.urn,
            "custom": known.custom,
            "id": known.id,
            "type": known.type,
            "inputs": self._properties(known.inputs),
            "outputs": self._properties(self._outputs(known)),
            "parent": known.parent,
            "protect": known.protect,
            "external": known.external,
            "dependencies": list(known.dependencies),
            "provider": self._provider_of(known),
            "propertyDependencies": dependencies,
            "additionalSecretOutputs": list(known.secret_names),
            "retainOnDelete": known.retain_on_delete,
            "deletedWith": known.deleted_with,
            "replaceWith": list(known.replace_with),
            "replaceOnChanges": list(known.replace_on_changes),
            "importID": known.import_id,
        }
        return {key: value for key, value in found.items() if value or key == "custom"}

    def _outputs(self, known: ResourceState) -> Properties:
        provider = self._providers.get(package_of(known.type))
        if provider is None or not known.custom or is_provider(known.type):
            return known.outputs
        return provider.outputs(known)

    def _provider_of(self, known: ResourceState) -> str:
        if known.provider or not known.custom or is_provider(known.type):
            return known.provider
        package = "pulumi" if known.type == STACK_REFERENCE_TYPE else package_of(known.type)
        if package not in self._used:
            self._used[package] = self._default_provider(package)
        default = self._used[package]
        return f"{default['urn']}::{default['id']}"

    def _default_provider(self, package: str) -> dict[str, Any]:
        provider = self._providers.get(package, DefaultProvider())
        type_ = f"{PROVIDER_TYPE_PREFIX}{package}"
        urn = f"urn:pulumi:{self._contents.stack}::{self._contents.project}::{type_}::{provider.name}"
        inputs = {**provider.configuration, **({"version": provider.version} if provider.version else {})}
        return {
            "urn": urn,
            "custom": True,
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, urn)),
            "type": type_,
            "inputs": {"__internal": {}, **inputs} if inputs else {},
            "outputs": inputs,
        }

    def _properties(self, properties: Properties) -> dict[str, Any]:
        values: dict[str, Any] = properties.values
        # Inner secrets first: an outer one then holds them sealed.
        for path in sorted(properties.secrets, key=len, reverse=True):
            if self._seal is not None and is_at(values, path):
                sealed = {_SIGNATURE: _SECRET, "ciphertext": self._seal(lookup(values, path))}
                values = with_value(values, path, sealed)
        return values
