"""What the engine asks of a provider, and which provider serves a resource type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pipelines.declarations.errors import MlopsError

PROVIDER_TYPE_PREFIX = "pulumi:providers:"


@dataclass(frozen=True)
class Diff:
    """What differs between the old and the new inputs of a resource.

    Attributes:
        changed: property paths that differ (`tags.owner`, `rules[0].days`); () means the same.
        replace: those of `changed` that force replacement.
        delete_before_replace: the old one must go first, for example because both have one physical name.
    """

    changed: tuple[str, ...]
    replace: tuple[str, ...] = ()
    delete_before_replace: bool = False


@dataclass(frozen=True)
class Created:
    """What a create or an update left at the target.

    Attributes:
        id: the physical id, never empty.
        outputs: the full output properties (inputs and computed ones), camelCase as on Pulumi's wire.
        recorded: non-empty when nothing was created at the target: the reason, shown as `recorded`.
    """

    id: str
    outputs: dict[str, Any]
    recorded: str = ""


@runtime_checkable
class Provider(Protocol):
    """Applies the resources of one package (`aws`, `kubernetes`).

    Inputs and outputs are plain JSON-like values (camelCase keys as on Pulumi's wire); secrets arrive
    unwrapped. No method ever sees a value that is not known yet: where a preview has one, the engine leaves
    that property as it was, or does not ask.

    Calls come from several threads at once, never two at once for one resource. An `MlopsError` is the
    provider's answer: what was asked was not done. After any other exception the engine takes it that the
    step may have happened, and resumes it the next time.
    """

    def check(self, type_: str, name: str, inputs: dict[str, Any], old_inputs: dict[str, Any] | None) -> dict[str, Any]:
        """Inputs with defaults and auto-names filled in; an auto-name reuses the value in `old_inputs`.

        Must not touch the target. Raises MlopsError on invalid input.
        """
        ...

    def diff(
        self,
        type_: str,
        old_inputs: dict[str, Any],
        new_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
    ) -> Diff:
        """Compares checked inputs. Must not touch the target."""
        ...

    def create(self, urn: str, type_: str, inputs: dict[str, Any], *, resuming: bool = False) -> Created:
        """Creates the resource from checked inputs.

        `resuming=True`: an earlier create with the same checked inputs may already have happened (it was
        killed before the state was written): adopt what exists rather than fail or make a second one.
        """
        ...

    def read(self, type_: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any] | None:
        """Live output properties, or None when the resource is gone. `inputs` and `outputs` may be empty."""
        ...

    def update(
        self,
        urn: str,
        type_: str,
        id_: str,
        old_inputs: dict[str, Any],
        new_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
    ) -> Created:
        """Changes the resource in place. Must be safe to repeat with the same arguments."""
        ...

    def delete(self, urn: str, type_: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Deletes the resource. Deleting what is gone is not an error."""
        ...

    def recorded(self, type_: str, inputs: dict[str, Any]) -> Mapping[str, str]:
        """Which of the inputs are kept in the state and have no effect at the target: property → the reason.

        The property "" stands for the whole resource. Must not touch the target; what is not known yet is left out.
        """
        ...

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        """Calls a function of the package, such as `aws:index/getRegion:getRegion`."""
        ...


def is_provider(type_: str) -> bool:
    """Whether a type is that of an explicit provider (`pulumi:providers:aws`), which is kept, and nothing else."""
    return type_.startswith(PROVIDER_TYPE_PREFIX)


def package_of(type_or_token: str) -> str:
    """The package of a type or function token: `aws:s3/bucket:Bucket` gives `aws`."""
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
        """The provider of a type or function token; raises MlopsError when none serves its package."""
        package = package_of(type_or_token)
        if package not in self._providers:
            known = ", ".join(self) or "none"
            raise MlopsError(
                f"no provider for `{type_or_token}`: the local target serves these packages: {known}",
                fix=f"give the deployment a provider for `{package}`, or leave that resource out.",
            )
        return self._providers[package]
