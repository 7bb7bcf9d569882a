"""Description of one resource type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from laptop.aws.cloud import Cloud
from laptop.engine.provider import ResourceCall

Values = dict[str, Any]


@dataclass(frozen=True)
class AutoName:
    """Name of a resource whose program gives none: `<name>-<7 hex>`, as in Pulumi.

    Attributes:
        property: input that holds the name.
        longest: maximum number of characters at AWS.
        lower: AWS accepts lower case only.
        prefix: start of every name (`alias/`).
    """

    property: str = "name"
    longest: int = 128
    lower: bool = False
    prefix: str = ""


@dataclass(frozen=True, kw_only=True)
class AwsCall(ResourceCall):
    """A provider call with the clients to carry it out."""

    cloud: Cloud

    def client(self, service: str) -> Any:
        """Return a client in the resource's region."""
        return self.cloud.client(service, self.inputs.get("region"))

    @property
    def region(self) -> str:
        return str(self.inputs.get("region") or self.cloud.region)

    def changed(self, *properties: str) -> bool:
        """Return True if an update changes any of the properties."""
        return any(self.old_inputs.get(name) != self.inputs.get(name) for name in properties)


@dataclass(frozen=True)
class Row:
    """One resource type.

    Attributes:
        token: Pulumi's type token.
        required: inputs that must be given.
        optional: inputs that may be given. Any other input is an error; none is dropped silently.
        create: creates the resource and returns its id.
        read: returns the live properties, including computed ones, or None if the resource is gone.
        update: changes it in place; None if every change replaces it.
        delete: deletes it; a missing resource is not an error.
        auto_name: how to name it if the program gives no name.
        defaults: inputs that AWS or Pulumi fills in.
        replaces: inputs whose change needs a new resource.
        documents: inputs that hold a JSON document, compared by meaning.
        policies: the `documents` that are IAM policies.
        sets: list inputs whose order does not matter.
        named_by: inputs that identify it at AWS: two resources that agree in all of them cannot coexist. () if two
            always can.
        recorded: reason why the resource exists in the state only, or "".
        computed: outputs that are no inputs of the program.
        form: inputs for a `read` that knows the id only (an import): the spelling of nested properties, and the
            values that AWS has if the program gives none, which are then not imported.
    """

    token: str
    create: Callable[[AwsCall], str]
    read: Callable[[AwsCall], Values | None]
    delete: Callable[[AwsCall], None]
    update: Callable[[AwsCall], None] | None = None
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    auto_name: AutoName | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    replaces: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    named_by: tuple[str, ...] = ()
    recorded: str = ""
    computed: tuple[str, ...] = ()
    form: Mapping[str, Any] = field(default_factory=dict)


def retag(call: AwsCall, tag: Callable[[dict[str, str]], object], untag: Callable[[list[str]], object]) -> None:
    """Apply a change of the tags.

    Args:
        tag: adds or overwrites tags.
        untag: removes tags by key.
    """
    old, new = call.old_inputs.get("tags") or {}, call.inputs.get("tags") or {}
    if old == new:
        return
    if new:
        tag(new)
    if gone := sorted(set(old) - set(new)):
        untag(gone)
