"""URNs: the permanent names of resources."""

from __future__ import annotations

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


def make_urn(stack: str, project: str, parent: str, type_: str, name: str) -> str:
    """Return the URN of a resource; `parent` is its parent's URN or ""."""
    above = Urn.parse(parent) if parent else None
    types = () if above is None or above.type == STACK_TYPE else above.types
    return str(Urn(stack, project, (*types, type_), name))
