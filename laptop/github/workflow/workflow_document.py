"""Read typed values out of a workflow file, and collect the problems with their lines."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

from laptop.github.expressions.builtin_functions import check_names
from laptop.github.expressions.parser import parse_condition, parse_template
from laptop.github.expressions.syntax import ContextName, ExpressionError, Index, Literal, Node, Template, walk
from laptop.github.workflow.definition import GITHUB_PROPERTIES, Tree
from laptop.github.workflow.expression_places import ExpressionPlace
from pipelines.declarations.documents import Key, Lines, dotted
from pipelines.declarations.errors import DeclarationError, Problem

T = TypeVar("T")
ID_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
FALSE = Template("false", (Literal(False),))
TRUE = Template("true", (Literal(True),))


class WorkflowDocument:
    """A parsed YAML file.

    Methods return a value of the right type even if the file is wrong, and collect the problem.

    Args:
        value: the document.
        lines: key → line.
        path: named in problems.
    """

    def __init__(self, value: Any, lines: Lines, path: Path) -> None:
        self.value = value
        self.lines = lines
        self.path = path
        self.problems: list[Problem] = []

    def line(self, key: Key) -> int:
        """Return the line of a key, or of the nearest key above it."""
        return next(self.lines[key[:end]] for end in range(len(key), -1, -1) if key[:end] in self.lines)

    def refuse(self, key: Key, expected: str, found: object, fix: str = "") -> None:
        """Add a problem."""
        text = found if isinstance(found, str) else _shown(found)
        self.problems.append(Problem(self.path, self.line(key), dotted(key), expected, text, fix))

    def done(self, result: T) -> T:
        """Return the result of reading.

        Raises:
            DeclarationError: there are problems.
        """
        if self.problems:
            raise DeclarationError(sorted(self.problems, key=lambda problem: problem.line or 0))
        return result

    def mapping(self, value: Any, key: Key, known: Collection[str] | None = None) -> dict[str, Any]:
        """Return a mapping without unknown keys, which are problems."""
        if not isinstance(value, dict):
            self.refuse(key, "a mapping", value)
            return {}
        for name in value:
            if known is not None and name not in known:
                close = difflib.get_close_matches(name, list(known), n=1)
                fix = f"did you mean {close[0]!r}?" if close else "the laptop's runner does not implement it; remove it"
                self.refuse((*key, name), f"one of {', '.join(sorted(known))}", f"the unknown key {name!r}", fix)
        return {name: item for name, item in value.items() if known is None or name in known}

    def sequence(self, value: Any, key: Key) -> list[Any]:
        """Return a list."""
        if not isinstance(value, list):
            self.refuse(key, "a list", value)
            return []
        return value

    def text(self, value: Any, key: Key) -> str:
        """Return text without expressions."""
        if not isinstance(value, str):
            if isinstance(value, int | float) and not isinstance(value, bool):
                return str(value)
            self.refuse(key, "text", value)
            return ""
        if "${{" in value:
            self.refuse(key, "text without an expression", value)
        return value

    def texts(self, value: Any, key: Key) -> tuple[str, ...]:
        """Return one text or a list of texts, as a tuple."""
        if isinstance(value, str):
            return (self.text(value, key),)
        return tuple(self.text(item, (*key, at)) for at, item in enumerate(self.sequence(value, key)))

    def template(self, value: Any, key: Key, place: ExpressionPlace, kind: str = "") -> Template:
        """Return a value that may contain expressions. A literal must be of `kind`: "boolean", "number" or "" (any)."""
        if isinstance(value, str):
            try:
                parsed = parse_template(value)
                for node in parsed.expressions:
                    self.check(node, place)
            except ExpressionError as error:
                self.refuse(key, "a valid expression", error.what, error.fix)
                return Template("", ())
            if not parsed.parts and kind in ("boolean", "number"):
                self.refuse(key, f"a {kind} or an expression", value)
            return parsed
        found = "boolean" if isinstance(value, bool) else ("number" if isinstance(value, int | float) else "")
        if (value is not None and not found) or (kind in ("boolean", "number") and found != kind):
            self.refuse(key, f"{f'a {kind}' if kind else 'text'} or an expression", value)
        return Template(str(value), (Literal(value),))

    def templates(self, value: Any, key: Key, place: ExpressionPlace) -> dict[str, Template]:
        """Return a mapping of templates."""
        items = self.mapping(value, key)
        return {name: self.template(item, (*key, name), place) for name, item in items.items()}

    def tree(self, value: Any, key: Key, place: ExpressionPlace) -> Tree:
        """Return a nested value with templates as leaves."""
        if isinstance(value, dict):
            return {name: self.tree(item, (*key, name), place) for name, item in value.items()}
        if isinstance(value, list):
            return [self.tree(item, (*key, at), place) for at, item in enumerate(value)]
        return self.template(value, key, place)

    def condition(self, value: Any, key: Key, place: ExpressionPlace) -> Node | None:
        """Return the expression of an `if`."""
        if isinstance(value, bool | int | float):
            return Literal(value)
        if not isinstance(value, str):
            self.refuse(key, "a condition", value)
            return None
        try:
            node = parse_condition(value)
            self.check(node, place)
        except ExpressionError as error:
            self.refuse(key, "a valid condition", error.what, error.fix)
            return None
        return node

    def check(self, node: Node, place: ExpressionPlace) -> None:
        """Check that all names exist. On GitHub, unknown names are silently empty.

        Raises:
            ExpressionError: a name does not exist.
        """
        check_names(node, place.contexts, place.functions)
        for inner in walk(node):
            if not isinstance(inner, Index) or not isinstance(inner.of, ContextName):
                continue
            context = inner.of.name.lower()
            if not isinstance(inner.index, Literal) or not isinstance(inner.index.value, str):
                continue
            known: Collection[str] | None = {
                "github": GITHUB_PROPERTIES,
                "needs": place.needs,
                "steps": place.steps,
                "inputs": place.inputs,
                "matrix": place.matrix,
            }.get(context)
            if known is not None and inner.index.value.lower() not in {name.lower() for name in known}:
                listed = ", ".join(sorted(known)) or "none"
                raise ExpressionError(f"{context}.{inner.index.value} does not exist", fix=f"use one of: {listed}")
        self.check_outputs(node, place)

    def check_outputs(self, node: Node, place: ExpressionPlace) -> None:
        """Check that jobs declare the outputs in `needs.<job>.outputs.<name>`."""
        for inner in walk(node):
            match inner:
                case Index(
                    Index(Index(ContextName(context), Literal(str(job))), Literal("outputs")), Literal(str(output))
                ) if context.lower() == "needs" and place.needs is not None:
                    declared = place.needs.get(job, ())
                    if output not in declared:
                        listed = ", ".join(sorted(declared)) or "none"
                        raise ExpressionError(f"the job {job!r} has no output {output!r}", fix=f"use one of: {listed}")


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    return f"a list of {len(value)}" if isinstance(value, list) else repr(value)[:120]
