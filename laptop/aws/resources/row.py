"""What a row of the table says about one resource type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from laptop.aws.cloud import Cloud

Values = dict[str, Any]


@dataclass(frozen=True)
class AutoName:
    """The name a resource gets when its program gives none: `<name>-<7 hex>`, as Pulumi's.

    Attributes:
        property: the input that holds the name.
        longest: the most characters AWS takes.
        lower: whether AWS takes lower case only.
        prefix: what every name begins with (`alias/`).
    """

    property: str = "name"
    longest: int = 128
    lower: bool = False
    prefix: str = ""


@dataclass(frozen=True)
class Call:
    """What a row gets to apply a resource.

    Attributes:
        cloud: the clients.
        inputs: the checked inputs; those of the resource as it stands for `read` and `delete`.
        urn: the resource's URN; "" where Pulumi gives none.
        resuming: an earlier create may already have happened.
        old: the inputs before an update.
        tracked: the id of the resource; "" while it is being created.
    """

    cloud: Cloud
    inputs: Values
    urn: str = ""
    resuming: bool = False
    old: Values = field(default_factory=dict)
    tracked: str = ""

    def client(self, service: str) -> Any:
        """A client in the resource's region."""
        return self.cloud.client(service, self.inputs.get("region"))

    @property
    def region(self) -> str:
        return str(self.inputs.get("region") or self.cloud.region)

    def changed(self, *properties: str) -> bool:
        """Whether an update changes any of the properties."""
        return any(self.old.get(name) != self.inputs.get(name) for name in properties)


@dataclass(frozen=True)
class Row:
    """One resource type.

    Attributes:
        token: Pulumi's type token.
        required: inputs that must be given.
        optional: inputs that may be given. Any other input is an error: nothing is dropped silently.
        create: makes it at AWS and returns its id.
        read: live properties (computed ones included), None when it is gone.
        update: changes it in place; None when every change replaces it.
        delete: removes it; must let it be gone already.
        also: other tokens of the same type (the `V2` spellings).
        auto_name: how it is named when the program gives no name.
        defaults: inputs that AWS (or Pulumi) fills in.
        replaces: inputs whose change needs a new resource.
        documents: inputs that hold a JSON document, compared by meaning.
        policies: those of `documents` that are IAM policies.
        sets: inputs that are lists whose order means nothing.
        named_by: inputs that name it at AWS: two that agree in all of them cannot stand side by side. () means
            that two always can.
        recorded: reason why nothing is created at the target, or "".
    """

    token: str
    create: Callable[[Call], str]
    read: Callable[[Call], Values | None]
    delete: Callable[[Call], None]
    update: Callable[[Call], None] | None = None
    also: tuple[str, ...] = ()
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
