"""What the rules over the resource graph get to see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from laptop.engine.paths import write_path
from laptop.engine.plan import Options, Registration


@dataclass(frozen=True)
class PlannedResource:
    """One registered resource.

    Attributes:
        inputs: plain values, secrets unwrapped; in a plan some are `values.UNKNOWN`.
        secret_inputs: the paths in `inputs` that are secret, as people write them.
        custom: False for a component.
        parent: URN, or empty for the stack itself.
        dependencies: the URNs it waits for.
        options: protect, retain_on_delete, ignore_changes and the others.
    """

    type: str
    name: str
    urn: str
    inputs: dict[str, Any]
    secret_inputs: tuple[str, ...]
    custom: bool
    parent: str
    dependencies: tuple[str, ...]
    provider: str
    options: Options

    @classmethod
    def of(cls, wanted: Registration) -> PlannedResource:
        """How a registration looks to the rules."""
        return cls(
            type=wanted.type,
            name=wanted.name,
            urn=wanted.urn,
            inputs=wanted.inputs.values,
            secret_inputs=tuple(sorted(write_path(path) for path in wanted.inputs.secrets)),
            custom=wanted.custom,
            parent=wanted.parent,
            dependencies=wanted.dependencies,
            provider=wanted.provider,
            options=wanted.options,
        )


Policy = Callable[[Sequence[PlannedResource]], Iterable[object]]
"""A rule over the whole graph. Yields one object a violation; its text is shown."""
