"""Read YAML as GitHub reads it: YAML 1.2, where `on` is a text and not a boolean; with the line of every key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from pipelines.declarations.documents import DEEPEST_NESTING, LARGEST_DOCUMENT, Key, Lines, dotted
from pipelines.declarations.errors import DeclarationError, Problem

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


def parse_yaml(content: bytes, path: Path) -> tuple[Any, Lines]:
    """Parse one document to plain values, and the 1-based line of each key.

    Args:
        content: the file.
        path: named in errors.

    Raises:
        DeclarationError: it is not one YAML document, or has anchors, aliases, tags or a key twice.
    """
    if len(content) > LARGEST_DOCUMENT:
        raise DeclarationError([Problem(path, None, "", f"at most {LARGEST_DOCUMENT} bytes", "a larger file")])
    loader: Any = None
    try:
        loader = yaml.CSafeLoader(content)
        node = loader.get_single_node()
        lines: Lines = {(): 1}
        return (None if node is None else _value(node, (), lines, path, set())), lines
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


def _value(node: yaml.Node, key: Key, lines: Lines, path: Path, seen: set[int]) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(key, line)
    if id(node) in seen:
        raise DeclarationError([Problem(path, line, dotted(key), "the value itself", "a YAML alias (*…)")])
    seen.add(id(node))
    if len(key) > DEEPEST_NESTING:
        raise DeclarationError(
            [Problem(path, line, dotted(key), f"at most {DEEPEST_NESTING} levels", "deeper nesting")]
        )
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, key, line, path)
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, (*key, at), lines, path, seen) for at, child in enumerate(node.value)]
    assert isinstance(node, yaml.MappingNode)
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "<<":
            at = key_node.start_mark.line + 1
            raise DeclarationError([Problem(path, at, dotted(key), "a text key", "a merge or a nested key")])
        name = str(key_node.value)
        at = key_node.start_mark.line + 1
        if name in result:
            raise DeclarationError([Problem(path, at, dotted((*key, name)), "each key once", "the key twice")])
        lines[(*key, name)] = at
        result[name] = _value(value_node, (*key, name), lines, path, seen)
    return result


def _scalar(node: yaml.ScalarNode, key: Key, line: int, path: Path) -> Any:
    text = str(node.value)
    if node.style in ("'", '"', "|", ">"):
        return text
    if node.tag.startswith("!"):
        raise DeclarationError([Problem(path, line, dotted(key), "a value without a tag", node.tag)])
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if re.fullmatch(r"0x[0-9a-fA-F]+|0o[0-7]+", text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text
