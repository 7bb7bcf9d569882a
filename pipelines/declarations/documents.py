"""Read a YAML or JSON file into a typed declaration, with errors that name file, line, key, expected and found."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Hashable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from pipelines.declarations.errors import DeclarationError, Problem

LARGEST_DOCUMENT = 1 << 20
"""Bytes. A declaration is written by a person; anything larger is a mistake or an attack."""

DEEPEST_NESTING = 64

Key = tuple[str | int, ...]
Lines = dict[Key, int]


class Declaration(BaseModel):
    """What every declared type has in common: no unknown keys, no silent conversions, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, ser_json_inf_nan="strings")


D = TypeVar("D", bound=BaseModel)


def read(path: Path, kind: type[D]) -> D:
    """Read `path` as a declaration of type `kind`.

    Raises:
        DeclarationError: the file is missing, is not YAML, or does not say what `kind` asks for.
    """
    return parse(read_bytes(path), kind, path)


def read_bytes(path: Path) -> bytes:
    """The bytes of a declaration's file.

    Raises:
        DeclarationError: the file is missing, unreadable or larger than `LARGEST_DOCUMENT`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_DOCUMENT + 1)
    except OSError as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
        raise DeclarationError([Problem(path, None, "", "a readable file", found)]) from None
    if len(content) > LARGEST_DOCUMENT:
        raise DeclarationError([Problem(path, None, "", f"at most {LARGEST_DOCUMENT} bytes", "a larger file")])
    return content


def parse(content: bytes | str, kind: type[D], path: Path) -> D:
    """Read `content` as a declaration of type `kind`; `path` is only named in errors.

    Raises:
        DeclarationError: see `read`.
    """
    value, lines = parse_yaml(content, path)
    if not isinstance(value, dict):
        raise DeclarationError([Problem(path, 1, "", "keys and values", _found(value))])
    try:
        # By way of JSON: strict reading then still turns lists into tuples and text into dates.
        return kind.model_validate_json(json.dumps(value, default=str))
    except ValidationError as error:
        problems = [_problem(detail, kind, value, lines, path) for detail in error.errors(include_url=False)]
        raise DeclarationError(problems) from None


class _Loader(yaml.CSafeLoader):
    """Reads `1e-7` as the number that it is in YAML 1.2 and in JSON; in YAML 1.1 it is a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(content: bytes | str, path: Path) -> tuple[Any, Lines]:
    """Parse one YAML document (JSON is YAML) to plain values, and the 1-based line of each key.

    Anchors, aliases, tags and duplicate keys are refused: nobody needs them here, and they hide what a file says.

    Raises:
        DeclarationError: the content is not such a document.
    """
    loader: Any = None
    try:
        loader = _Loader(content)
        node = loader.get_single_node()
        lines: Lines = {}
        return (None if node is None else _construct(loader, node, (), lines, path)), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        found = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = mark.line + 1 if mark is not None else None
        raise DeclarationError([Problem(path, line, "", "a YAML document", found)]) from None
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DeclarationError([Problem(path, None, "", "a YAML document in UTF-8", str(error))]) from None
    finally:
        if loader is not None:
            loader.dispose()


def _construct(loader: Any, node: yaml.Node, key: Key, lines: Lines, path: Path) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(key, line)
    where = dotted(key)
    if len(key) > DEEPEST_NESTING:
        raise DeclarationError([Problem(path, line, where, f"at most {DEEPEST_NESTING} levels", "deeper nesting")])
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_object(node)
    if isinstance(node, yaml.SequenceNode):
        return [
            _construct(loader, child, (*key, index), _first_visit(child, lines, key, index, path), path)
            for index, child in enumerate(node.value)
        ]
    assert isinstance(node, yaml.MappingNode)
    result: dict[Hashable, Any] = {}
    for key_node, value_node in node.value:
        name = loader.construct_object(key_node)
        at = key_node.start_mark.line + 1
        if not isinstance(name, str):
            raise DeclarationError([Problem(path, at, where, "a text key", _found(name))])
        if name in result:
            raise DeclarationError([Problem(path, at, dotted((*key, name)), "each key once", "the key twice")])
        lines[(*key, name)] = at
        result[name] = _construct(
            loader, value_node, (*key, name), _first_visit(value_node, lines, key, name, path), path
        )
    return result


def _first_visit(node: yaml.Node, lines: Lines, key: Key, step: str | int, path: Path) -> Lines:
    """Refuse a node met before: that is an alias (`*name`), by which a small file can grow without bound."""
    if getattr(node, "visited", False):
        line = node.start_mark.line + 1
        raise DeclarationError([Problem(path, line, dotted((*key, step)), "the value itself", "a YAML alias (*…)")])
    node.visited = True  # type: ignore[attr-defined]
    return lines


def dotted(key: Key) -> str:
    """`("gates", 0, "metric")` as people write it: `gates[0].metric`."""
    text = ""
    for step in key:
        text += f"[{step}]" if isinstance(step, int) else (f".{step}" if text else step)
    return text


def _problem(detail: ErrorDetails, kind: type[BaseModel], value: Any, lines: Lines, path: Path) -> Problem:
    key = _within(tuple(detail["loc"]), value)
    line = next((lines[key[:end]] for end in range(len(key), -1, -1) if key[:end] in lines), None)
    code, context = detail["type"], detail.get("ctx", {})
    where = dotted(key)
    if code == "extra_forbidden":
        known = _known_keys(kind, key[:-1])
        close = difflib.get_close_matches(str(key[-1]), known, n=1)
        fix = f"did you mean {close[0]!r}?" if close else "remove the key"
        return Problem(path, line, where, f"one of {', '.join(known)}", f"the unknown key {key[-1]!r}", fix)
    if code == "missing":
        return Problem(path, line, where, "this key", "nothing", f"add {key[-1]!r}")
    if code in ("value_error", "assertion_error"):
        message = str(context.get("error", detail["msg"]))
        expected, _, found = message.partition("; found ")
        return Problem(path, line, where, expected, found or _found(detail["input"]))
    expected = detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    if code == "string_pattern_mismatch":
        expected = f"text that matches {context['pattern']}"
    return Problem(path, line, where, expected, _found(detail["input"]))


def _within(loc: Key, value: Any) -> Key:
    """The part of an error's location that exists in the document (union tags are not in it), and one step more."""
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
    """The keys that `kind` knows at the place `key`."""
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
    """The declaration types inside an annotation such as `tuple[Threshold, ...] | None`."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    if get_origin(annotation) in (Union, UnionType, Annotated, tuple, list, dict):
        return [model for part in get_args(annotation) for model in _models(part)]
    return []


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"
