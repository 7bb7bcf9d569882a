"""Property paths in Pulumi's notation (`tags.owner`, `rules[0].days`, `rules[*].id`, `["a.b"]`), and diffs by path."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterable
from typing import Any

from infra.policies.resource_graph import UNKNOWN
from laptop.engine.values import PropertyPath, is_at, lookup
from pipelines.declarations.errors import MlopsError

ANY = "*"
"""Pattern part that matches every key or index."""

_PART = re.compile(r"""\.?(?P<key>[^.\[\]"]+)|\[(?P<index>\d+|\*)\]|\.?\["(?P<quoted>(?:[^"\\]|\\.)*)"\]""")
_PLAIN_KEY = re.compile(r"[^.\[\]\"*]+")


def parse_path(text: str) -> PropertyPath:
    """Parse a path.

    Raises:
        MlopsError: the path is malformed.
    """
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None or (at == 0 and text.startswith(".")):
            raise MlopsError(
                f"`{text}` is not a valid property path: unexpected text at character {at + 1}",
                fix='use a form like `tags.owner`, `rules[0].days`, `rules[*].id` or `tags["a.b"]`.',
            )
        if match["quoted"] is not None:
            parts.append(re.sub(r"\\(.)", r"\1", match["quoted"]))
        elif match["index"] is not None:
            parts.append(ANY if match["index"] == ANY else int(match["index"]))
        else:
            parts.append(match["key"])
        at = match.end()
    if not parts:
        raise MlopsError("empty property path", fix="name a property, such as `tags.owner`.")
    return tuple(parts)


def write_path(path: PropertyPath) -> str:
    """Format a path; the inverse of `parse_path`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            escaped = part.replace("\\", "\\\\").replace('"', '\\"')
            text += f'["{escaped}"]'
    return text


def covers(pattern: PropertyPath, path: PropertyPath) -> bool:
    """Return True if a path matches a pattern, or is below a path that does."""
    return len(pattern) <= len(path) and all(part in (ANY, found) for part, found in zip(pattern, path, strict=False))


def changed_paths(old: Any, new: Any, at: PropertyPath = ()) -> tuple[PropertyPath, ...]:
    """Return the deepest paths at which two values differ, in the order of their keys.

    Lists of different lengths differ as a whole. Numbers are equal by value, but `True` differs from 1.
    `UNKNOWN` differs from everything.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[PropertyPath] = []
        for key in [*old, *(key for key in new if key not in old)]:
            if key not in old or key not in new:
                found.append((*at, key))
            else:
                found.extend(changed_paths(old[key], new[key], (*at, key)))
        return tuple(found)
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return tuple(
            path for index, pair in enumerate(zip(old, new, strict=True)) for path in changed_paths(*pair, (*at, index))
        )
    same = new is not UNKNOWN and old == new and isinstance(old, bool) == isinstance(new, bool)
    return () if same else (at,)


def keep_ignored(new: dict[str, Any], old: dict[str, Any], patterns: Iterable[str]) -> dict[str, Any]:
    """Return the new inputs with the old values at the `ignoreChanges` paths.

    A path that exists only in the new inputs is removed. On a list, `[*]` matches the indexes that both lists
    have, so a change of length is not ignored.
    """
    kept = copy.deepcopy(new)
    for pattern in patterns:
        for path in _expand(parse_path(pattern), kept, old):
            if is_at(old, path):
                _put(kept, path, copy.deepcopy(lookup(old, path)))
            else:
                _take_out(kept, path)
    return kept


def ignored_secrets(
    new: frozenset[PropertyPath], old: frozenset[PropertyPath], patterns: Iterable[str]
) -> frozenset[PropertyPath]:
    """Return the secret paths of inputs after `keep_ignored`: the old ones where it kept old values."""
    parsed = [parse_path(pattern) for pattern in patterns]

    def kept(path: PropertyPath) -> bool:
        return any(covers(pattern, path) for pattern in parsed)

    return frozenset({path for path in old if kept(path)} | {path for path in new if not kept(path)})


def _expand(pattern: PropertyPath, new: Any, old: Any, at: PropertyPath = ()) -> list[PropertyPath]:
    if len(at) == len(pattern):
        return [at]
    part = pattern[len(at)]
    if part != ANY:
        return _expand(pattern, new, old, (*at, part))
    here, there = lookup(new, at), lookup(old, at)
    choices: list[str | int] = []
    if isinstance(here, dict) or isinstance(there, dict):
        keys = [*(here if isinstance(here, dict) else ()), *(there if isinstance(there, dict) else ())]
        choices = list(dict.fromkeys(keys))
    elif isinstance(here, list) and isinstance(there, list):
        choices = list(range(min(len(here), len(there))))
    return [path for choice in choices for path in _expand(pattern, new, old, (*at, choice))]


def _put(target: Any, path: PropertyPath, value: Any) -> None:
    for part, following in itertools.pairwise(path):
        if isinstance(target, dict) and isinstance(part, str):
            if not isinstance(target.get(part), dict | list):
                if not isinstance(following, str):
                    return  # no list to put the element into
                target[part] = {}
            target = target[part]
        elif isinstance(target, list) and isinstance(part, int) and part < len(target):
            target = target[part]
        else:
            return
    last = path[-1]
    if isinstance(target, dict) and isinstance(last, str):
        target[last] = value
    elif isinstance(target, list) and isinstance(last, int):
        if last < len(target):
            target[last] = value
        elif last == len(target):
            target.append(value)


def _take_out(target: Any, path: PropertyPath) -> None:
    parent = lookup(target, path[:-1])
    last = path[-1]
    if isinstance(parent, dict):
        parent.pop(last, None)
    elif isinstance(parent, list) and isinstance(last, int) and last < len(parent):
        del parent[last]
