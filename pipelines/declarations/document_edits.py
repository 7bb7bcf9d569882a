"""Change one value in the text of a YAML document; the rest, with its comments, stays as it was written."""

from __future__ import annotations

import yaml


def with_value(text: str, keys: tuple[str, ...], value: str) -> str:
    """Return a document whose value under a path of keys is another.

    Args:
        text: a YAML document that `parse` accepts.
        keys: the keys of nested mappings, outermost first; all but the last exist.
        value: the new value as YAML of one line, such as `{training: null}`.

    Raises:
        KeyError: a key but the last does not exist, or is not that of a mapping.
    """
    *outer, last = keys
    mapping: yaml.Node | None = yaml.compose(text, Loader=yaml.CSafeLoader)
    for key in outer:
        _, mapping = _entry(mapping, key)
    try:
        name, node = _entry(mapping, last)
    except KeyError:
        return _added(text, mapping, last, value)
    after_colon = text.index(":", name.end_mark.index) + 1
    return f"{text[:after_colon]} {value}{text[_end(node) :]}"


def _entry(mapping: yaml.Node | None, key: str) -> tuple[yaml.Node, yaml.Node]:
    entries = mapping.value if isinstance(mapping, yaml.MappingNode) else ()
    for name, node in entries:
        if name.value == key:
            return name, node
    raise KeyError(key)


def _added(text: str, mapping: yaml.Node | None, key: str, value: str) -> str:
    """Return the text with a new first entry of a mapping."""
    if not isinstance(mapping, yaml.MappingNode) or not mapping.value:
        raise KeyError(key)
    start = mapping.value[0][0].start_mark
    separator = ", " if mapping.flow_style else f"\n{' ' * start.column}"
    return f"{text[: start.index]}{key}: {value}{separator}{text[start.index :]}"


def _end(node: yaml.Node) -> int:
    """Return the index after a value. A block ends with its last entry, not with the comments that follow."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, yaml.MappingNode) else last)
    end: int = node.end_mark.index
    return end
