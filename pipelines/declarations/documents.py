"""Read YAML and JSON files into typed declarations; errors name file, line, key, expected and found."""

from __future__ import annotations

import difflib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from pipelines.declarations.errors import DeclarationError, Problem

LARGEST_DOCUMENT = 1 << 20
"""Size limit, in bytes. People write these files by hand; a larger one is a mistake or an attack."""

DEEPEST_NESTING = 64

Key = tuple[str | int, ...]
"""The path of a value in a document: `("gates", 0, "metric")`."""

Lines = dict[Key, int]
"""Path of a value → 1-based line of its key."""


class Declaration(BaseModel):
    """Parent of every declared type: rejects unknown keys, converts nothing silently, and is immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, ser_json_inf_nan="strings")


class KeyedError(ValueError):
    """Mistakes that a validator finds below the value that it validates, each reported at its key.

    Args:
        problems: path of the key below the validated value, what was expected there, and what was found.
    """

    def __init__(self, *problems: tuple[Key, str, str]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{expected} at {dotted(key)}; found {found}" for key, expected, found in problems))


D = TypeVar("D", bound=BaseModel)


def read(path: Path, kind: type[D]) -> D:
    """Read a file as a declaration of type `kind`.

    Raises:
        DeclarationError: the file is missing, is not YAML, or does not match `kind`.
    """
    return parse(read_bytes(path), kind, path)


def read_bytes(path: Path) -> bytes:
    """Read the bytes of a declaration's file.

    Raises:
        DeclarationError: the file is missing, unreadable or larger than `LARGEST_DOCUMENT`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_DOCUMENT + 1)
    except OSError as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
        raise DeclarationError([Problem(path, None, "", "a readable file", found)]) from None
    _check_size(content, path)
    return content


def _check_size(content: bytes | str, path: Path) -> None:
    if len(content) > LARGEST_DOCUMENT:
        raise DeclarationError([Problem(path, None, "", f"at most {LARGEST_DOCUMENT} bytes", "a larger file")])


def parse(content: bytes | str, kind: type[D], path: Path) -> D:
    """Parse a document as a declaration of type `kind`.

    Args:
        content: the document.
        kind: the type to read it as.
        path: named in errors; not opened.

    Raises:
        DeclarationError: the content is not YAML, or does not match `kind`. Lists every problem.
    """
    value, lines = parse_yaml(content, path)
    if not isinstance(value, dict):
        raise DeclarationError([Problem(path, 1, "", "keys and values", _shown(value))])
    try:
        # Strict validation of JSON still turns lists into tuples and text into dates.
        return kind.model_validate_json(json.dumps(value))
    except ValidationError as error:
        raise DeclarationError(_problems(error, kind, value, lines, path)) from None


_NULLS = ("", "~", "null", "Null", "NULL")
_BOOLEANS = {text: text.lower() == "true" for text in ("true", "True", "TRUE", "false", "False", "FALSE")}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED_INTEGER = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"([-+]?\.(inf|Inf|INF))|\.(nan|NaN|NAN)")
_CORE_TAGS = {
    f"tag:yaml.org,2002:{name}"
    for name in ("bool", "float", "int", "map", "merge", "null", "seq", "str", "timestamp", "value")
}


def parse_yaml(content: bytes | str, path: Path) -> tuple[Any, Lines]:
    """Parse one YAML 1.2 document to plain values, and find the line of each key.

    Values follow the core schema (https://yaml.org/spec/1.2.2/#103-core-schema), as GitHub and JSON do: `on`, `no` and
    `2026-01-31` are text, `1e-7` is a number. Anchors, aliases, tags, merge keys and duplicate keys are rejected: they
    hide what a file says. So are other encodings than UTF-8, and a byte order mark: GitHub shows such a file as binary,
    or its first key with a character that no one sees.

    Args:
        content: the document; JSON is YAML.
        path: named in errors; not opened.

    Returns:
        Lists, dictionaries with text keys, and scalars; and the line of each key.

    Raises:
        DeclarationError: the content is not such a document, or is larger than `LARGEST_DOCUMENT`.
    """
    _check_size(content, path)
    loader: Any = None
    try:
        _check_encoding(content, path)
        _check_events(content, path)
        loader = yaml.CSafeLoader(content)
        node = loader.get_single_node()
        lines: Lines = {(): 1}
        return (None if node is None else _Reader(path, lines).value(node, ())), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        found = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = mark.line + 1 if mark is not None else None
        raise DeclarationError([Problem(path, line, "", "a YAML document", found.removeprefix("found "))]) from None
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        if "integer string conversion" in str(error):
            most = f"integers of at most {sys.get_int_max_str_digits()} digits"
            raise DeclarationError([Problem(path, None, "", most, "a longer one")]) from None
        raise DeclarationError([Problem(path, None, "", "a YAML document in UTF-8", str(error))]) from None
    finally:
        if loader is not None:
            loader.dispose()


def _check_encoding(content: bytes | str, path: Path) -> None:
    """Check that the content is UTF-8 without a byte order mark.

    Raises:
        DeclarationError: it begins with a mark.
        UnicodeDecodeError: it is not UTF-8.
    """
    text = content.decode("utf-8") if isinstance(content, bytes) else content
    if text.startswith("\ufeff"):
        raise DeclarationError([Problem(path, 1, "", "UTF-8 without a byte order mark", "a byte order mark")])


def _check_events(content: bytes | str, path: Path) -> None:
    """Check nesting, anchors and tags from the events of the parser.

    PyYAML builds nodes by recursion in C, without a limit. Its nodes name neither anchors nor the tags of plain types.

    Raises:
        DeclarationError: the nesting is too deep, or there is an anchor or a tag.
        yaml.YAMLError: the content is not YAML.
    """
    loader = yaml.CSafeLoader(content)
    try:
        depth = 0
        while (event := loader.get_event()) is not None:
            _check_node(event, path)
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > DEEPEST_NESTING + 1:
                    line = event.start_mark.line + 1 if event.start_mark is not None else None
                    raise DeclarationError(
                        [Problem(path, line, "", f"at most {DEEPEST_NESTING} levels", "deeper nesting")]
                    )
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.StreamEndEvent):
                return
    finally:
        loader.dispose()


def _check_node(event: yaml.Event, path: Path) -> None:
    anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
    line = event.start_mark.line + 1 if event.start_mark is not None else None
    if tag is not None:
        raise DeclarationError([Problem(path, line, "", "a value without a tag", f"the tag {tag}")])
    if anchor is not None and not isinstance(event, yaml.AliasEvent):
        raise DeclarationError([Problem(path, line, "", "a value without an anchor", f"the anchor &{anchor}")])


class _Reader:
    """Converts the nodes of a document to values, and records their lines."""

    def __init__(self, path: Path, lines: Lines) -> None:
        self.path = path
        self.lines = lines
        self.seen: set[int] = set()

    def value(self, node: yaml.Node, key: Key) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(key, line)
        if id(node) in self.seen:  # by aliases, a small file can grow without bound
            raise self.error(line, key, "the value itself", "a YAML alias (*…)")
        self.seen.add(id(node))
        if node.tag not in _CORE_TAGS:
            raise self.error(line, key, "a value without a tag", f"the tag {node.tag}")
        if len(key) > DEEPEST_NESTING:
            raise self.error(line, key, f"at most {DEEPEST_NESTING} levels", "deeper nesting")
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*key, index)) for index, child in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)
        return self.mapping(node, key)

    def mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "<<":
                raise self.error(line, key, "a text key", "a merge or a nested key")
            name = str(key_node.value)
            if name in result:
                raise self.error(line, (*key, name), "each key once", "the key twice")
            self.lines[(*key, name)] = line
            result[name] = self.value(value_node, (*key, name))
        return result

    def error(self, line: int, key: Key, expected: str, found: str) -> DeclarationError:
        return DeclarationError([Problem(self.path, line, dotted(key), expected, found)])


def _scalar(node: yaml.ScalarNode) -> Any:
    text = str(node.value)
    if node.style in ("'", '"', "|", ">"):
        return text
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED_INTEGER.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return float(text.replace(".", "")) if _SPECIAL_FLOAT.fullmatch(text) else text


def dotted(key: Key) -> str:
    """Format a path for people: `("gates", 0, "metric")` as `gates[0].metric`."""
    text = ""
    for step in key:
        text += f"[{step}]" if isinstance(step, int) else (f".{step}" if text else step)
    return text


def first_problem(error: ValueError) -> str:
    """Describe the first problem of a validation error on one line: `<key>: expected X, found Y`.

    Args:
        error: a pydantic error; for any other `ValueError` its message is returned.
    """
    if not isinstance(error, ValidationError):
        return str(error)
    detail = error.errors(include_url=False)[0]
    expected, found = _expected_and_found(detail)
    return f"{dotted(tuple(detail['loc'])) or 'the document'}: expected {expected}, found {found}"


def _problems(error: ValidationError, kind: type[BaseModel], value: Any, lines: Lines, path: Path) -> list[Problem]:
    """Describe each mistake once, at its key; the branches of a union are joined."""
    found: dict[Key, Problem] = {}
    for detail in error.errors(include_url=False):
        if _is_consequence(detail):
            continue
        for problem, key in _problems_of(detail, kind, value, lines, path):
            before = found.get(key)
            if before is None:
                found[key] = problem
            elif problem.expected not in before.expected.split(" or "):
                found[key] = replace(before, expected=f"{before.expected} or {problem.expected}")
    meant = {(*key[:-1], fix[0]) for key, problem in found.items() if (fix := _MEANT.findall(problem.fix))}
    return [problem for key, problem in found.items() if key not in meant]


_MEANT = re.compile(r"^did you mean '(.*)'\?$")
"""Fix of a misspelled key. That the right key is missing is the same mistake."""


def _is_consequence(detail: ErrorDetails) -> bool:
    """Return True if a list only counts as too short because its items are invalid."""
    if detail["type"] != "too_short" or not isinstance(detail["input"], list):
        return False
    return len(detail["input"]) >= int(detail.get("ctx", {}).get("min_length", 0))


def _problems_of(
    detail: ErrorDetails, kind: type[BaseModel], value: Any, lines: Lines, path: Path
) -> list[tuple[Problem, Key]]:
    key = _within(tuple(detail["loc"]), value)
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, KeyedError):
        inner = [((*key, *below), expected, _cut(found)) for below, expected, found in cause.problems]
        return [(Problem(path, _line_of(at, lines), dotted(at), expected, found), at) for at, expected, found in inner]
    line, where = _line_of(key, lines), dotted(key)
    if detail["type"] == "extra_forbidden":
        known = _known_keys(kind, key[:-1])
        close = difflib.get_close_matches(str(key[-1]), known, n=1)
        fix = f"did you mean {close[0]!r}?" if close else "remove the key"
        return [(Problem(path, line, where, f"one of {', '.join(known)}", f"the unknown key {key[-1]!r}", fix), key)]
    fix = f"add {key[-1]!r}" if detail["type"] == "missing" else ""
    return [(Problem(path, line, where, *_expected_and_found(detail), fix), key)]


def _line_of(key: Key, lines: Lines) -> int | None:
    """Return the line of a key, or of the nearest key above it."""
    return next((lines[key[:end]] for end in range(len(key), -1, -1) if key[:end] in lines), None)


def _expected_and_found(detail: ErrorDetails) -> tuple[str, str]:
    code, context = detail["type"], detail.get("ctx", {})
    found = _shown(detail["input"])
    if code == "missing":
        return "this key", "nothing"
    if code == "extra_forbidden":
        return "only known keys", f"the unknown key {str(detail['loc'][-1])!r}"
    if code in ("value_error", "assertion_error"):  # raised by a declaration as "<expected>; found <found>"
        expected, _, own = str(context.get("error", detail["msg"])).partition("; found ")
        return expected, own or found
    if code == "json_invalid":
        return "JSON", str(context.get("error", detail["msg"]))
    if code == "string_pattern_mismatch":
        return f"text that matches {context['pattern']}", found
    return _PROSE.sub("", detail["msg"]), found


_PROSE = re.compile(r"^\w+ should (be|have) (a valid )?| after validation.*$")
"""Words around the expected value in pydantic's messages: `Tuple should have … after validation, not 0`."""


def _within(loc: Key, value: Any) -> Key:
    """Reduce an error's location to the steps that exist in the document, and one more; union tags are not in it."""
    key: list[str | int] = []
    for step in loc:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        elif isinstance(value, dict) and step == loc[-1]:
            return (*key, step)
        else:
            continue
        key.append(step)
    return tuple(key)


def _known_keys(kind: type[BaseModel], key: Key) -> list[str]:
    """List the keys that `kind` accepts at the path `key`."""
    current: Any = kind
    for step in key:
        options = _models(current)
        if isinstance(step, str):
            fields = [f for m in options for n, f in m.model_fields.items() if (f.alias or n) == step]
            if fields:
                current = fields[0].annotation
    names: list[str] = []
    for model in _models(current):
        names += [field.alias or name for name, field in model.model_fields.items()]
    return sorted(set(names))


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Find the declaration types in an annotation such as `tuple[Threshold, ...] | None`."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    if get_origin(annotation) in (Union, UnionType, Annotated, tuple, list, dict):
        return [model for part in get_args(annotation) for model in _models(part)]
    return []


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return _cut(json.dumps(value, default=str, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "…"
