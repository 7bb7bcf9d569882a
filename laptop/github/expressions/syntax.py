"""Syntax tree of an expression."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.declarations.errors import MlopsError

CONTEXTS = frozenset(
    ("github", "env", "vars", "secrets", "needs", "steps", "matrix", "inputs", "job", "runner", "strategy")
)
STATUS_FUNCTIONS = frozenset(("success", "failure", "always", "cancelled"))


class ExpressionError(MlopsError):
    """An expression cannot be parsed or evaluated."""


@dataclass(frozen=True)
class Literal:
    """A constant."""

    value: Any


@dataclass(frozen=True)
class ContextName:
    """`github`, `env`, …"""

    name: str


@dataclass(frozen=True)
class Index:
    """`of.name`, `of['name']`, `of[0]`; an `index` of None is the filter `*`."""

    of: Node
    index: Node | None


@dataclass(frozen=True)
class FunctionCall:
    """`name(arguments)`."""

    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True)
class Not:
    """`!operand`."""

    operand: Node


@dataclass(frozen=True)
class Compare:
    """`left operator right`, with `==`, `!=`, `<`, `<=`, `>` or `>=`."""

    left: Node
    operator: str
    right: Node


@dataclass(frozen=True)
class Logical:
    """Operands joined by `&&` or `||`."""

    operator: str
    operands: tuple[Node, ...]


Node = Literal | ContextName | Index | FunctionCall | Not | Compare | Logical


@dataclass(frozen=True)
class Template:
    """Text that may contain expressions.

    Attributes:
        text: as written.
        parts: strings and expressions in order; () if the text has no expression.
    """

    text: str
    parts: tuple[str | Node, ...]

    @property
    def expressions(self) -> tuple[Node, ...]:
        """The expressions in the text."""
        return tuple(part for part in self.parts if not isinstance(part, str))


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all nodes below it."""
    yield node
    below: Sequence[Node | None] = ()
    if isinstance(node, Index):
        below = (node.of, node.index)
    elif isinstance(node, FunctionCall):
        below = node.arguments
    elif isinstance(node, Not):
        below = (node.operand,)
    elif isinstance(node, Compare):
        below = (node.left, node.right)
    elif isinstance(node, Logical):
        below = node.operands
    for child in below:
        if child is not None:
            yield from walk(child)


def calls_status_function(node: Node) -> bool:
    """Return whether a condition calls success(), failure(), always() or cancelled(). If not, success() is implied."""
    return any(isinstance(inner, FunctionCall) and inner.name.lower() in STATUS_FUNCTIONS for inner in walk(node))
