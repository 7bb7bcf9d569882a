"""The patterns of `branches`, `tags` and `paths` (GitHub's "filter pattern cheat sheet")."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass


@functools.cache
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """One pattern, without its `!`, as a regular expression for the whole name.

    `*` is any characters but `/`, `**` any characters, `?` none or one of the character before it, `+` one or more of
    it, `[…]` one of those listed, `\\` takes the next character as it is.

    Raises:
        ValueError: brackets are not closed, or `?` or `+` has nothing before it.
    """
    expression, position = "", 0
    while position < len(pattern):
        character = pattern[position]
        if pattern.startswith("**", position):
            # `**/` also stands for no folder at all: `docs/**/*.md` takes `docs/hello.md`.
            if pattern.startswith("**/", position) and (position == 0 or pattern[position - 1] == "/"):
                expression, position = expression + "(?:.*/)?", position + 3
            else:
                expression, position = expression + ".*", position + 2
            continue
        if character == "*":
            expression += "[^/]*"
        elif character in "?+":
            if not expression:
                raise ValueError(f"{character!r} has nothing before it")
            expression += character
        elif character == "[":
            end = pattern.find("]", position + 1)
            listed = pattern[position + 1 : end]
            if end < 0 or not re.fullmatch(r"(?:[A-Za-z0-9]-[A-Za-z0-9]|[^\\\[\]^!-])+", listed):
                raise ValueError("brackets list single characters and ranges of a-z, A-Z and 0-9")
            expression, position = expression + f"[{listed}]", end
        elif character == "\\" and position + 1 < len(pattern):
            position += 1
            expression += re.escape(pattern[position])
        else:
            expression += re.escape(character)
        position += 1
    return re.compile(expression, re.DOTALL)


@dataclass(frozen=True)
class Patterns:
    """An ordered list of patterns.

    Attributes:
        patterns: a later one overrules an earlier one; `!` at the start takes names out again.
        ignore: the list names what is left out (`branches-ignore`, `paths-ignore`).
    """

    patterns: tuple[str, ...]
    ignore: bool = False

    def accept(self, name: str) -> bool:
        """Is `name` in?"""
        chosen = False
        for pattern in self.patterns:
            if compile_pattern(pattern.removeprefix("!")).fullmatch(name):
                chosen = not pattern.startswith("!")
        return chosen != self.ignore

    def accept_any(self, names: Iterable[str]) -> bool:
        """Is at least one of `names` in?"""
        return any(self.accept(name) for name in names)
