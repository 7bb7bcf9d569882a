"""The expression language of workflow files: what stands between `${{` and `}}`, and in `if:`.

Semantics: "Evaluate expressions in workflows and actions" and "Contexts reference" of GitHub's documentation: loose
comparison (both sides become numbers when their types differ), strings compared without case, objects and arrays equal
only to themselves, `&&` and `||` that yield an operand.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.declarations.errors import MlopsError

LONGEST_EXPRESSION = 21_000
"""Characters; GitHub's own limit."""
DEEPEST_EXPRESSION = 50
LARGEST_TEXT = 1 << 20
"""Characters of a text that format() or join() yields: nested calls grow without bound otherwise."""

CONTEXTS = frozenset(
    ("github", "env", "vars", "secrets", "needs", "steps", "matrix", "inputs", "job", "runner", "strategy")
)
STATUS_FUNCTIONS = frozenset(("success", "failure", "always", "cancelled"))

Function = Callable[..., Any]


class ExpressionError(MlopsError):
    """An expression that cannot be read, or that cannot be evaluated."""


@dataclass(frozen=True)
class Literal:
    value: Any


@dataclass(frozen=True)
class Context:
    name: str


@dataclass(frozen=True)
class Index:
    """`of.name`, `of['name']`, `of[0]`; `index` None is the filter `*`."""

    of: Node
    index: Node | None


@dataclass(frozen=True)
class Call:
    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True)
class Not:
    operand: Node


@dataclass(frozen=True)
class Compare:
    left: Node
    operator: str
    right: Node


@dataclass(frozen=True)
class Logical:
    operator: str
    operands: tuple[Node, ...]


Node = Literal | Context | Index | Call | Not | Compare | Logical


class Filtered(list[Any]):
    """What `*` yields: a further `.name` picks that property of each element."""


# --- reading ---------------------------------------------------------------------------------------------------------

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
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
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
                value = _to_number(lexeme)
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


class _Reader:
    """Recursive descent; lowest precedence first: `||`, `&&`, `== !=`, `< <= > >=`, `!`, then `.`, `[]` and calls."""

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST_EXPRESSION:
            raise ExpressionError(f"an expression has at most {LONGEST_EXPRESSION} characters, found {len(text)}")
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
            raise ExpressionError(f"an expression nests at most {DEEPEST_EXPRESSION} deep: {self.text.strip()[:80]!r}")

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
        """Operands with one of `operators` between them, grouped from the left."""
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
            return Context(token.text)
        arguments: list[Node] = []
        if not self.take(")"):
            arguments.append(self.either())
            while self.take(","):
                arguments.append(self.either())
            self.expect(")")
        return Call(token.text, tuple(arguments))


def parse(text: str) -> Node:
    """Read one expression, without its `${{ }}`.

    Raises:
        ExpressionError: it is not an expression, is empty, or calls a built-in with a wrong number of arguments.
    """
    if not text.strip():
        raise ExpressionError("an expression is empty")
    node = _Reader(text).read()
    for call in (inner for inner in walk(node) if isinstance(inner, Call)):
        _check_arity(call)
    return node


@dataclass(frozen=True)
class Template:
    """Text with expressions in it.

    Attributes:
        text: as written.
        parts: strings and expressions in turn; () when the text has no expression.
    """

    text: str
    parts: tuple[str | Node, ...]

    @property
    def expressions(self) -> tuple[Node, ...]:
        return tuple(part for part in self.parts if not isinstance(part, str))


def template(text: str) -> Template:
    """Read text that may hold `${{ }}`.

    Raises:
        ExpressionError: an expression in it cannot be read, or is not closed.
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
    raise ExpressionError(f"an expression is not closed with }}}}: {text[position - 3 : position + 60]!r}")


def condition(text: str) -> Node:
    """Read the value of `if:`: an expression, in `${{ }}` or bare.

    Raises:
        ExpressionError: see `parse`; also text around `${{ }}`, which GitHub takes as a text that is always true.
    """
    if "${{" not in text:
        return parse(text)
    parts = template(text.strip()).parts
    if len(parts) != 1 or isinstance(parts[0], str):
        raise ExpressionError(
            f"a condition mixes text with ${{{{ }}}}, and would always be true: {text.strip()!r}",
            fix="write the whole condition inside one ${{ }}, or without any",
        )
    return parts[0]


def walk(node: Node) -> Iterator[Node]:
    """`node` and everything below it."""
    yield node
    below: Sequence[Node | None] = ()
    if isinstance(node, Index):
        below = (node.of, node.index)
    elif isinstance(node, Call):
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


def asks_status(node: Node) -> bool:
    """Does the condition call success(), failure(), always() or cancelled()? If not, success() is implied."""
    return any(isinstance(inner, Call) and inner.name.lower() in STATUS_FUNCTIONS for inner in walk(node))


def check_names(node: Node, contexts: Collection[str], functions: Collection[str]) -> None:
    """Refuse what does not exist or is not available where the expression stands.

    Args:
        node: the expression.
        contexts: the contexts available there.
        functions: lower-case names of the functions available there besides the built-in ones.

    Raises:
        ExpressionError: a context or function is unknown, or not available there.
    """
    for inner in walk(node):
        if isinstance(inner, Context) and inner.name.lower() not in contexts:
            known = inner.name.lower() in CONTEXTS
            what = f"the context {inner.name!r} is not available here" if known else f"unknown context {inner.name!r}"
            raise ExpressionError(what, fix=f"available here: {', '.join(sorted(contexts)) or 'none'}")
        if isinstance(inner, Call) and inner.name.lower() not in BUILT_IN and inner.name.lower() not in functions:
            known = inner.name.lower() in STATUS_FUNCTIONS or inner.name.lower() == "hashfiles"
            what = f"the function {inner.name!r} is not available here" if known else f"unknown function {inner.name!r}"
            raise ExpressionError(what, fix=f"available here: {', '.join(sorted({*BUILT_IN, *functions}))}")


# --- values ----------------------------------------------------------------------------------------------------------


def truthy(value: Any) -> bool:
    """False, 0, NaN, '' and null are false; everything else, an empty list too, is true."""
    if isinstance(value, bool) or value is None:
        return bool(value)
    if isinstance(value, int | float):
        return value != 0 and not math.isnan(value)
    return value != "" if isinstance(value, str) else True


def to_text(value: Any) -> str:
    """A value as it is put into text: null is empty, a list or an object is 'Array' or 'Object'."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number_text(value)
    if isinstance(value, str):
        return value
    return "Array" if isinstance(value, list) else "Object"


def _number_text(value: float) -> str:
    if isinstance(value, float) and (math.isnan(value) or math.isinf(value)):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return format(value, ".15g").replace("e", "E")


def _to_number(value: Any) -> float:
    if value is None:
        return 0.0
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str):
        return math.nan
    text = value.strip()
    if text == "":
        return 0.0
    if text in ("Infinity", "+Infinity", "-Infinity"):
        return -math.inf if text[0] == "-" else math.inf
    if re.fullmatch(r"0x[0-9a-fA-F]+", text):
        return int(text, 16)
    if re.fullmatch(r"0o[0-7]+", text):
        return int(text, 8)
    return float(text) if _NUMBER.fullmatch(text) else math.nan


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "collection"


def _alike(left: Any, right: Any) -> tuple[Any, Any, str]:
    """Both values as one kind, and that kind; kind "" when they cannot be compared."""
    kinds = (_kind(left), _kind(right))
    if kinds[0] == kinds[1]:
        return left, right, kinds[0]
    if "collection" in kinds:
        return left, right, ""
    return _to_number(left), _to_number(right), "number"


def _folded(text: str) -> str:
    """Text for comparing without case; the dotless i stays apart from I, as on GitHub."""
    return "\u0131".join(part.upper() for part in text.split("\u0131"))


def equal(left: Any, right: Any) -> bool:
    """`==`."""
    left, right, kind = _alike(left, right)
    if kind == "":
        return False
    if kind == "collection":
        return left is right
    if kind == "string":
        return _folded(left) == _folded(right)
    return bool(left == right)


def _ordered(left: Any, operator: str, right: Any) -> bool:
    left, right, kind = _alike(left, right)
    if kind in ("", "collection", "null"):
        return kind == "null" and operator in ("<=", ">=")
    if kind == "string":
        left, right = _folded(left), _folded(right)
    return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator])


# --- evaluating ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scope:
    """What an expression sees.

    Attributes:
        contexts: lower-case name to value.
        functions: lower-case name to function, besides the built-in ones (`success`, `hashfiles`, …).
    """

    contexts: Mapping[str, Any]
    functions: Mapping[str, Function]


def evaluate(node: Node, scope: Scope) -> Any:
    """The value of an expression: null, boolean, number, string, list or dict.

    Raises:
        ExpressionError: a context or function is unknown, or a function refuses its arguments.
    """
    if isinstance(node, Literal):
        return node.value
    if isinstance(node, Context):
        if node.name.lower() not in scope.contexts:
            raise ExpressionError(f"unknown context {node.name!r}")
        return scope.contexts[node.name.lower()]
    if isinstance(node, Index):
        return _index(node, scope)
    if isinstance(node, Call):
        return _call(node, scope)
    if isinstance(node, Not):
        return not truthy(evaluate(node.operand, scope))
    if isinstance(node, Compare):
        left, right = evaluate(node.left, scope), evaluate(node.right, scope)
        if node.operator in ("==", "!="):
            return equal(left, right) == (node.operator == "==")
        return _ordered(left, node.operator, right)
    value = None
    for operand in node.operands:
        value = evaluate(operand, scope)
        if truthy(value) == (node.operator == "||"):
            break
    return value


def render(parsed: Template, scope: Scope) -> Any:
    """A template's value: of the expression's own type when it is the whole text, a string otherwise."""
    if not parsed.parts:
        return parsed.text
    if len(parsed.parts) == 1 and not isinstance(parsed.parts[0], str):
        return evaluate(parsed.parts[0], scope)
    return "".join(part if isinstance(part, str) else to_text(evaluate(part, scope)) for part in parsed.parts)


def _index(node: Index, scope: Scope) -> Any:
    of = evaluate(node.of, scope)
    if node.index is None:
        return _elements(of)
    index = evaluate(node.index, scope)
    if isinstance(of, Filtered):
        found = (_property(element, index) for element in of)
        return Filtered(value for value in found if value is not _MISSING)
    value = _property(of, index)
    return None if value is _MISSING else value


def _elements(of: Any) -> Filtered:
    if isinstance(of, Filtered):
        return Filtered(element for item in of for element in _elements(item))
    if isinstance(of, list):
        return Filtered(of)
    return Filtered(of.values()) if isinstance(of, Mapping) else Filtered()


_MISSING = object()


def _property(of: Any, index: Any) -> Any:
    if isinstance(of, Mapping):
        if _kind(index) == "collection":
            return _MISSING
        name = to_text(index)
        if name in of:
            return of[name]
        return next((value for key, value in of.items() if str(key).upper() == name.upper()), _MISSING)
    if isinstance(of, list):
        number = _to_number(index)
        if not math.isnan(number) and not math.isinf(number) and 0 <= number < len(of):
            return of[math.floor(number)]
    return _MISSING


def _call(node: Call, scope: Scope) -> Any:
    name = node.name.lower()
    if name == "case":
        return _case(node.arguments, scope)
    function = scope.functions.get(name) or (BUILT_IN[name].function if name in BUILT_IN else None)
    if function is None:
        raise ExpressionError(f"unknown function {node.name!r}")
    return function(*(evaluate(argument, scope) for argument in node.arguments))


def _case(arguments: Sequence[Node], scope: Scope) -> Any:
    for at in range(0, len(arguments) - 1, 2):
        chosen = evaluate(arguments[at], scope)
        if not isinstance(chosen, bool):
            raise ExpressionError(f"case() expects a boolean as argument {at + 1}, found {to_text(chosen)!r}")
        if chosen:
            return evaluate(arguments[at + 1], scope)
    return evaluate(arguments[-1], scope)


# --- functions -------------------------------------------------------------------------------------------------------


def _contains(search: Any, item: Any) -> bool:
    if isinstance(search, list):
        return any(equal(element, item) for element in search)
    if isinstance(search, Mapping) or _kind(item) == "collection":
        return False
    return to_text(item).lower() in to_text(search).lower()


def _starts_with(text: Any, start: Any) -> bool:
    if "collection" in (_kind(text), _kind(start)):
        return False
    return _folded(to_text(text)).startswith(_folded(to_text(start)))


def _ends_with(text: Any, end: Any) -> bool:
    if "collection" in (_kind(text), _kind(end)):
        return False
    return _folded(to_text(text)).endswith(_folded(to_text(end)))


_FORMAT = re.compile(r"\{\{|\}\}|\{(\d+)\}|[{}]")


def _format(pattern: Any, *values: Any) -> str:
    text = to_text(pattern)

    def replace(match: re.Match[str]) -> str:
        if match.group() in ("{{", "}}"):
            return match.group()[0]
        if match.group(1) is None:
            raise ExpressionError(f"format() has a brace that is not doubled: {text!r}")
        if int(match.group(1)) >= len(values):
            raise ExpressionError(f"format() refers to more values than there are: {text!r}")
        return to_text(values[int(match.group(1))])

    return _limited(_FORMAT.sub(replace, text))


def _limited(text: str) -> str:
    if len(text) > LARGEST_TEXT:
        raise ExpressionError(f"an expression yields at most {LARGEST_TEXT} characters, found {len(text)}")
    return text


def _join(values: Any, separator: Any = ",") -> str:
    if isinstance(values, list):
        between = "," if _kind(separator) == "collection" else to_text(separator)
        return _limited(between.join(to_text(value) for value in values))
    return "" if isinstance(values, Mapping) else to_text(values)


def _to_json(value: Any) -> str:
    return json.dumps(_plain(value), indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    whole = isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) < 1e15
    return int(value) if whole else value


def _from_json(value: Any) -> Any:
    text = to_text(value)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExpressionError(f"fromJSON() cannot read {text[:80]!r}: {error}") from None


@dataclass(frozen=True)
class _BuiltIn:
    fewest: int
    most: int
    function: Function | None


BUILT_IN: Mapping[str, _BuiltIn] = {
    "contains": _BuiltIn(2, 2, _contains),
    "startswith": _BuiltIn(2, 2, _starts_with),
    "endswith": _BuiltIn(2, 2, _ends_with),
    "format": _BuiltIn(1, 255, _format),
    "join": _BuiltIn(1, 2, _join),
    "tojson": _BuiltIn(1, 1, _to_json),
    "fromjson": _BuiltIn(1, 1, _from_json),
    "case": _BuiltIn(3, 255, None),  # evaluates its arguments one after the other, see `_case`
}
_OTHER_ARITIES = {**dict.fromkeys(STATUS_FUNCTIONS, (0, 0)), "hashfiles": (1, 255)}


def _check_arity(call: Call) -> None:
    name = call.name.lower()
    if name in BUILT_IN:
        fewest, most = BUILT_IN[name].fewest, BUILT_IN[name].most
    elif name in _OTHER_ARITIES:
        fewest, most = _OTHER_ARITIES[name]
    else:
        return
    found = len(call.arguments)
    if not fewest <= found <= most or (name == "case" and found % 2 == 0):
        expected = "an odd number of" if name == "case" else (str(fewest) if fewest == most else f"{fewest} to {most}")
        raise ExpressionError(f"{call.name}() takes {expected} arguments, found {found}")
