"""Provider interface of the engine."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from laptop.engine.resources import ResourceState
from laptop.engine.values import Properties
from pipelines.declarations.errors import MlopsError

PROVIDER_TYPE_PREFIX = "pulumi:providers:"


@dataclass(frozen=True)
class ResourceCall:
    """Arguments of a provider call for one resource.

    Values are plain and JSON-like, with camelCase keys as on Pulumi's wire; secrets are unwrapped. The dicts are
    copies: a provider may change them.

    Attributes:
        type: type token.
        inputs: checked inputs. May be empty for `read`.
        urn: URN, "" if the engine has none.
        id: physical id, "" before `create`.
        old_inputs: checked inputs before an update; for `diff` and `update`.
        outputs: last known outputs, empty before `create`.
        resuming: for `create`: an earlier, interrupted create with the same inputs may already have happened.
        configuration: inputs of the explicit provider of the resource, empty for the default provider.
    """

    type: str
    inputs: dict[str, Any]
    urn: str = ""
    id: str = ""
    old_inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    resuming: bool = False
    configuration: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def about(cls, known: ResourceState, **changes: Any) -> ResourceCall:
        """Describe a resource from the state, with some attributes changed."""
        call = cls(known.type, known.inputs.values, known.urn, known.id, outputs=known.outputs.values)
        return copy.deepcopy(replace(call, **changes))


@dataclass(frozen=True)
class Diff:
    """Difference between the old and the new inputs of a resource.

    Attributes:
        changed: property paths that differ (`tags.owner`, `rules[0].days`); () if nothing does.
        replace: the changed paths that force a replacement.
        delete_before_replace: delete the old resource first, for example because both have the same physical name.
    """

    changed: tuple[str, ...]
    replace: tuple[str, ...] = ()
    delete_before_replace: bool = False


@dataclass(frozen=True)
class Created:
    """Result of a create or an update.

    Attributes:
        id: physical id, never empty.
        outputs: all output properties (inputs and computed ones), camelCase as on Pulumi's wire.
        recorded: reason why the resource exists in the state only, or "".
    """

    id: str
    outputs: dict[str, Any]
    recorded: str = ""


class IncompleteError(Exception):
    """A create made the resource and then failed. The engine must keep the resource.

    Attributes:
        id: physical id.
        outputs: what is known of its outputs.
    """

    def __init__(self, reason: str, id_: str, outputs: dict[str, Any]) -> None:
        super().__init__(reason)
        self.id = id_
        self.outputs = outputs


@runtime_checkable
class Provider(Protocol):
    """Applies the resources of one package (`aws`, `kubernetes`).

    No method gets a value that a preview does not know yet: the engine leaves such a property as it was, or does
    not call.

    Calls come from several threads, but never two at once for one resource. An `MlopsError` means that nothing was
    done. After any other exception the engine assumes that the step may have happened and resumes it in the next run.
    """

    def check(self, type_: str, name: str, inputs: dict[str, Any], old_inputs: dict[str, Any] | None) -> dict[str, Any]:
        """Return the inputs with defaults and auto-names. An auto-name reuses the value in `old_inputs`.

        Makes no requests.

        Raises:
            MlopsError: an input is invalid.
        """
        ...

    def diff(self, call: ResourceCall) -> Diff:
        """Compare `call.old_inputs` with `call.inputs`. Makes no requests."""
        ...

    def create(self, call: ResourceCall) -> Created:
        """Create the resource. With `call.resuming`, adopt an existing one.

        Raises:
            IncompleteError: the resource exists, but the create failed after that.
        """
        ...

    def read(self, call: ResourceCall) -> dict[str, Any] | None:
        """Return the live output properties, or None if the resource does not exist."""
        ...

    def update(self, call: ResourceCall) -> Created:
        """Change the resource in place. Must be idempotent."""
        ...

    def delete(self, call: ResourceCall) -> None:
        """Delete the resource. A missing resource is not an error."""
        ...

    def recorded(self, type_: str, inputs: dict[str, Any]) -> Mapping[str, str]:
        """Return the inputs that are kept in the state without effect: property → reason.

        The property "" stands for the whole resource. Makes no requests. Unknown inputs are left out.
        """
        ...

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        """Call a function of the package, such as `aws:index/getRegion:getRegion`."""
        ...


@runtime_checkable
class Importing(Protocol):
    """A provider that can take existing resources into a stack (`import_`, `pulumi import`)."""

    def imported_inputs(self, type_: str, outputs: dict[str, Any]) -> dict[str, Any]:
        """Return the inputs that a resource with these live outputs was made from. Makes no requests."""
        ...


@runtime_checkable
class Previewing(Protocol):
    """A provider that plans a resource before it exists. Its `check` and `diff` accept unknown values."""

    def computed(self, type_: str) -> Iterable[str]:
        """Return the names of the output properties of a type. Makes no requests."""
        ...


@runtime_checkable
class Exporting(Protocol):
    """A provider whose outputs differ from those that Pulumi's own provider of the package keeps in the state."""

    def exported_outputs(self, known: ResourceState) -> Properties:
        """Return the outputs of a resource as Pulumi's own provider keeps them. Makes no requests."""
        ...


def is_provider(type_: str) -> bool:
    """Return True for the type of an explicit provider (`pulumi:providers:aws`)."""
    return type_.startswith(PROVIDER_TYPE_PREFIX)


def package_of(type_or_token: str) -> str:
    """Return the package of a type or function token: `aws` for `aws:s3/bucket:Bucket`."""
    if is_provider(type_or_token):
        return type_or_token.removeprefix(PROVIDER_TYPE_PREFIX)
    return type_or_token.partition(":")[0]


class Providers:
    """The providers of a deployment by package."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = dict(providers)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._providers))

    def serving(self, type_or_token: str) -> Provider:
        """Return the provider of a type or function token.

        Raises:
            MlopsError: no provider serves its package.
        """
        package = package_of(type_or_token)
        if package not in self._providers:
            known = ", ".join(self) or "none"
            raise MlopsError(
                f"no provider for `{type_or_token}`: expected a package that the laptop serves ({known}), "
                f"found `{package}`",
                fix="remove that resource, or deploy this stack to AWS.",
            )
        return self._providers[package]
