"""URNs: the lasting names of resources, and the older names a resource may go by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

STACK_TYPE = "pulumi:pulumi:Stack"
_PREFIX = "urn:pulumi:"


@dataclass(frozen=True)
class Urn:
    """The parts of `urn:pulumi:<stack>::<project>::<parent types>$<type>::<name>`.

    Attributes:
        types: the types of the components above it, outermost first, then its own; the stack is not among them.
    """

    stack: str
    project: str
    types: tuple[str, ...]
    name: str

    def __str__(self) -> str:
        return f"{_PREFIX}{self.stack}::{self.project}::{'$'.join(self.types)}::{self.name}"

    @property
    def type(self) -> str:
        return self.types[-1]

    @classmethod
    def parse(cls, text: str) -> Urn:
        """Raises ValueError when the text is no URN."""
        parts = text.removeprefix(_PREFIX).split("::", 3)
        if not text.startswith(_PREFIX) or len(parts) != 4 or not all(parts[:3]):
            raise ValueError(f"`{text}` is not a URN")
        stack, project, types, name = parts
        return cls(stack, project, tuple(types.split("$")), name)

    def below(self, parent: Urn | None) -> Urn:
        """The same resource as a child of `parent` (None or the stack: of nothing)."""
        above = () if parent is None or parent.type == STACK_TYPE else parent.types
        return replace(self, types=(*above, self.type))


def make_urn(stack: str, project: str, parent: str, type_: str, name: str) -> str:
    """The URN of a resource; `parent` is its parent's URN or empty."""
    own = Urn(stack, project, (type_,), name)
    return str(own.below(Urn.parse(parent) if parent else None))


@dataclass(frozen=True)
class AliasSpec:
    """An older name in parts; an empty part means "as now".

    Attributes:
        parent: the URN of the older parent; None for "as now"; empty for no parent.
    """

    name: str = ""
    type: str = ""
    stack: str = ""
    project: str = ""
    parent: str | None = None


def older_urns(
    urn: str, parent: str, aliases: Iterable[str | AliasSpec], parent_aliases: Iterable[str]
) -> tuple[str, ...]:
    """Every URN a resource may have had, nearest first, without its present one.

    As in Pulumi, a child follows its parent: where the parent has an older name, so has the child, and a child
    whose name starts with its parent's follows the change of that part too.

    Args:
        parent: the URN of the parent now, or empty.
        parent_aliases: the older URNs of the parent.
    """
    now = Urn.parse(urn)
    above = Urn.parse(parent) if parent else None
    older_parents = [Urn.parse(alias) for alias in parent_aliases]
    found: dict[str, None] = {}
    specs: list[AliasSpec] = []
    for alias in aliases:
        if isinstance(alias, str):
            found[alias] = None
        else:
            specs.append(alias)
            found[str(_as_described(now, above, alias))] = None
    for older in older_parents:
        for spec in [AliasSpec(), *(spec for spec in specs if spec.parent is None)]:
            described = _as_described(now, older, spec)
            if above is not None and described.name.startswith(above.name):
                described = replace(described, name=older.name + described.name.removeprefix(above.name))
            found[str(described)] = None
    found.pop(urn, None)
    return tuple(found)


def _as_described(now: Urn, parent: Urn | None, spec: AliasSpec) -> Urn:
    if spec.parent is not None:
        parent = Urn.parse(spec.parent) if spec.parent else None
    described = Urn(
        spec.stack or now.stack,
        spec.project or now.project,
        (spec.type or now.type,),
        spec.name or now.name,
    )
    return described.below(parent)
