"""URNs: the permanent names of resources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

STACK_TYPE = "pulumi:pulumi:Stack"
_PREFIX = "urn:pulumi:"


@dataclass(frozen=True)
class Urn:
    """The parts of `urn:pulumi:<stack>::<project>::<parent types>$<type>::<name>`.

    Attributes:
        types: the types of the parent components, outermost first, then the resource's own type. The stack's type
            is left out.
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
        """Parse a URN; raises ValueError if it is malformed."""
        parts = text.removeprefix(_PREFIX).split("::", 3)
        if not text.startswith(_PREFIX) or len(parts) != 4 or not all(parts[:3]):
            raise ValueError(f"`{text}` is not a URN")
        stack, project, types, name = parts
        return cls(stack, project, tuple(types.split("$")), name)


@dataclass(frozen=True)
class Alias:
    """An earlier name of a resource: its URN, or the parts of it that were different.

    Attributes:
        parent: URN of the earlier parent, or "" for the present one.
        no_parent: it had no parent but the stack.
    """

    urn: str = ""
    name: str = ""
    type: str = ""
    parent: str = ""
    no_parent: bool = False
    project: str = ""
    stack: str = ""

    def resolve(self, urn: Urn, parent: str, matched: Mapping[str, str]) -> str:
        """Return the earlier URN of a resource.

        Args:
            urn: the present URN.
            parent: URN of the present parent, or "".
            matched: present URN → earlier URN of resources that were renamed in this run.
        """
        if self.urn:
            return self.urn
        earlier = "" if self.no_parent else matched.get(self.parent, self.parent) or parent
        stack, project = self.stack or urn.stack, self.project or urn.project
        return make_urn(stack, project, earlier, self.type or urn.type, self.name or urn.name)


def earlier_urns(text: str, parent: str, aliases: Iterable[Alias], matched: Mapping[str, str]) -> tuple[str, ...]:
    """Return the URNs under which a resource may be in the state: those of its aliases, and of its parent's alias.

    Args:
        text: the present URN.
        parent: URN of the present parent, or "".
        matched: present URN → earlier URN of resources that were renamed in this run.
    """
    urn = Urn.parse(text)
    found = [alias.resolve(urn, parent, matched) for alias in aliases]
    if parent in matched:
        # A child that is named after its parent was so before as well.
        old, new = Urn.parse(matched[parent]).name, Urn.parse(parent).name
        for type_, name in [(urn.type, urn.name), *((Urn.parse(item).type, Urn.parse(item).name) for item in found)]:
            renamed = old + name.removeprefix(new) if name.startswith(new) else name
            found.append(make_urn(urn.stack, urn.project, matched[parent], type_, renamed))
    return tuple(dict.fromkeys(found))


def make_urn(stack: str, project: str, parent: str, type_: str, name: str) -> str:
    """Return the URN of a resource; `parent` is its parent's URN or ""."""
    above = Urn.parse(parent) if parent else None
    types = () if above is None or above.type == STACK_TYPE else above.types
    return str(Urn(stack, project, (*types, type_), name))
