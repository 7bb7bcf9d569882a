"""Parse expressions: the text between `${{` and `}}`, and the value of `if:`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from laptop.github.expressions.builtin_functions import check_arity
from laptop.github.expressions.loose_values import to_number
from laptop.github.expressions.syntax import (
    Compare,
    ContextName,
    ExpressionError,
    FunctionCall,
    Index,
    Literal,
    Logical,
    Node,
    Not,
    Template,
    walk,
)

LONGEST_EXPRESSION = 21_000
"""Characters; GitHub's limit."""
DEEPEST_EXPRESSION = 50
"""Levels of nesting; GitHub's limit."""

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<string>'(?:[^']|'')*')
      | (?P<operator>==|!=|<=|>=|&&|\|\||[()\[\],!<>*])
      | (?P<word>[^\s()\[\],!<>=&|*'.]+(?:\.[^\s()\[\],!<>=&|*'.]+)*)
      | (?P<dot>\.)""",
    re.VERBOSE,
)
_NUMERIC = re.compile(r"[-+.0-9][^\s()\[\],!<>=&|*']*")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "null": None, "NaN": math.nan, "Infinity": math.inf}


@dataclass(frozen=True)
class _Token:
    kind: str  # "operator", "value", "name", "dot", "end"
    text: str
    at: int
    value: Any = None


def _tokens(text: str) -> Iterator[_Token]:
    position, previous = 0, ""
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _unexpected(text[position:].split(maxsplit=1)[0], position, text)
        kind, lexeme = str(match.lastgroup), match.group()
        if kind == "space":
            position = match.end()
            continue
        after_value = previous in ("name", ")", "]", "*")
        if kind == "string":
            yield _Token("value", lexeme, position, lexeme[1:-1].replace("''", "'"))
        elif kind == "operator":
            yield _Token("operator", lexeme, position)
        elif kind == "dot" and after_value:
            yield _Token("dot", ".", position)
        else:
            number = _NUMERIC.match(text, position)
            if number is not None and previous != "dot":
                lexeme = number.group()
                value = to_number(lexeme)
                if math.isnan(value):
                    raise _unexpected(lexeme, position, text)
                yield _Token("value", lexeme, position, value)
                position, previous = number.end(), "value"
                continue
            lexeme = lexeme.split(".")[0]
            if _IDENTIFIER.fullmatch(lexeme) is None:
                raise _unexpected(lexeme or ".", position, text)
            if lexeme in _CONSTANTS and previous != "dot":
                yield _Token("value", lexeme, position, _CONSTANTS[lexeme])
                position, previous = position + len(lexeme), "value"
            else:
                yield _Token("name", lexeme, position)
                position, previous = position + len(lexeme), "name"
            continue
        position = match.end()
        previous = {"string": "value", "dot": "dot"}.get(kind, lexeme)
    yield _Token("end", "", len(text))


def _unexpected(lexeme: str, position: int, text: str) -> ExpressionError:
    return ExpressionError(
        f"unexpected symbol {lexeme!r} at position {position + 1} of the expression {text.strip()!r}"
    )


class _Parser:
    """Recursive descent parser. Precedence from low to high: `||`, `&&`, `== !=`, `< <= > >=`, `!`, `.` `[]` calls."""

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST_EXPRESSION:
            raise ExpressionError(f"expression: expected at most {LONGEST_EXPRESSION} characters, found {len(text)}")
        self.text = text
        self.tokens = list(_tokens(text))
        self.position = 0
        self.depth = 0

    def read(self) -> Node:
        node = self.either()
        if self.peek.kind != "end":
            raise self.unexpected()
        return node

    @property
    def peek(self) -> _Token:
        return self.tokens[self.position]

    def unexpected(self) -> ExpressionError:
        token = self.peek
        if token.kind == "end":
            return ExpressionError(f"unexpected end of the expression {self.text.strip()!r}")
        return _unexpected(token.text, token.at, self.text)

    def take(self, *operators: str) -> str:
        token = self.peek
        if token.kind == "operator" and token.text in operators:
            self.position += 1
            return token.text
        return ""

    def expect(self, operator: str) -> None:
        if not self.take(operator):
            raise self.unexpected()

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > DEEPEST_EXPRESSION:
            raise ExpressionError(
                f"expression nested more than {DEEPEST_EXPRESSION} levels deep: {self.text.strip()[:80]!r}"
            )

    def either(self) -> Node:
        self.deeper()
        operands = [self.both()]
        while self.take("||"):
            operands.append(self.both())
        self.depth -= 1
        return operands[0] if len(operands) == 1 else Logical("||", tuple(operands))

    def both(self) -> Node:
        operands = [self.equality()]
        while self.take("&&"):
            operands.append(self.equality())
        return operands[0] if len(operands) == 1 else Logical("&&", tuple(operands))

    def equality(self) -> Node:
        return self.chain(self.comparison, "==", "!=")

    def comparison(self) -> Node:
        return self.chain(self.unary, "<=", ">=", "<", ">")

    def chain(self, operand: Callable[[], Node], *operators: str) -> Node:
        """Parse operands joined by `operators`, left-associative."""
        node, depth = operand(), self.depth
        while operator := self.take(*operators):
            self.deeper()
            node = Compare(node, operator, operand())
        self.depth = depth
        return node

    def unary(self) -> Node:
        if self.take("!"):
            self.deeper()
            node = Not(self.unary())
            self.depth -= 1
            return node
        return self.indexed()

    def indexed(self) -> Node:
        literal = self.peek.kind == "value"
        node = self.primary()
        entered = 0
        while not literal:
            if self.take("["):
                index = None if self.take("*") else self.either()
                self.expect("]")
            elif self.peek.kind == "dot":
                self.position += 1
                if self.take("*"):
                    index = None
                elif self.peek.kind == "name":
                    index = Literal(self.peek.text)
                    self.position += 1
                else:
                    raise self.unexpected()
            else:
                break
            node = Index(node, index)
            self.deeper()
            entered += 1
        self.depth -= entered
        return node

    def primary(self) -> Node:
        token = self.peek
        if token.kind == "value":
            self.position += 1
            return Literal(token.value)
        if self.take("("):
            node = self.either()
            self.expect(")")
            return node
        if token.kind != "name":
            raise self.unexpected()
        self.position += 1
        if not self.take("("):
            return ContextName(token.text)
        arguments: list[Node] = []
        if not self.take(")"):
            arguments.append(self.either())
            while self.take(","):
                arguments.append(self.either())
            self.expect(")")
        return FunctionCall(token.text, tuple(arguments))


def parse(text: str) -> Node:
    """Parse one expression, without its `${{ }}`.

    Raises:
        ExpressionError: the text is empty or invalid, or a call has a wrong number of arguments.
    """
    if not text.strip():
        raise ExpressionError("empty expression")
    node = _Parser(text).read()
    for call in (inner for inner in walk(node) if isinstance(inner, FunctionCall)):
        check_arity(call)
    return node


def parse_template(text: str) -> Template:
    """Parse text that may contain `${{ }}`.

    Raises:
        ExpressionError: an expression in it is invalid or not closed.
    """
    parts: list[str | Node] = []
    position = 0
    while (start := text.find("${{", position)) >= 0:
        end = _closing(text, start + 3)
        if start > position:
            parts.append(text[position:start])
        parts.append(parse(text[start + 3 : end]))
        position = end + 2
    if parts and position < len(text):
        parts.append(text[position:])
    return Template(text, tuple(parts))


def _closing(text: str, position: int) -> int:
    quoted = False
    for at in range(position, len(text)):
        if text[at] == "'":
            quoted = not quoted
        elif not quoted and text.startswith("}}", at):
            return at
    raise ExpressionError(f"expression not closed with }}}}: {text[position - 3 : position + 60]!r}")


def parse_condition(text: str) -> Node:
    """Parse the value of `if:`, an expression with or without `${{ }}`.

    Raises:
        ExpressionError: see `parse`; also for text around `${{ }}`, which would always be true on GitHub.
    """
    if "${{" not in text:
        return parse(text)
    parts = parse_template(text.strip()).parts
    if len(parts) != 1 or isinstance(parts[0], str):
        raise ExpressionError(
            f"text around ${{{{ }}}} in a condition makes it always true: {text.strip()!r}",
            fix="write the whole condition inside one ${{ }}, or without any",
        )
    return parts[0]
