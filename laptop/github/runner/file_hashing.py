"""The `hashFiles()` function of workflow expressions."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.declarations.errors import MlopsError


def hash_files(workspace: Path, patterns: Sequence[str]) -> str:
    """Return the digest of the files that match, or "" if no file does.

    As in GitHub's `hashFiles()`, it is the SHA-256 over the SHA-256 of each file, and a pattern that names a folder
    stands for all files below it. The files are taken in the order of their names.

    Args:
        workspace: the job's folder.
        patterns: glob patterns, one or more per string; `!` excludes files again.

    Raises:
        MlopsError: a pattern has `.` or `..` after its beginning.
    """
    lines = [line for pattern in patterns for line in map(str.strip, pattern.splitlines())]
    rules = [_compile(line, workspace) for line in lines if line and not line.startswith("#")]
    total, found = hashlib.sha256(), False
    for name in sorted(_files_below(workspace)):
        chosen = False
        for negated, expression in rules:
            if expression.fullmatch(name):
                chosen = not negated
        if chosen:
            found = True
            total.update(hashlib.sha256((workspace / name).read_bytes()).digest())
    return total.hexdigest() if found else ""


def _files_below(folder: Path) -> Iterator[str]:
    """Yield the path of each file, relative to the folder. Links to folders are not followed."""
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            if path.is_file():
                yield path.relative_to(folder).as_posix()


def _compile(line: str, workspace: Path) -> tuple[bool, re.Pattern[str]]:
    """Return whether a pattern excludes, and its regular expression for a path relative to the workspace."""
    negated = len(line) - len(line.lstrip("!"))
    pattern = line[negated:].strip()
    if pattern.startswith("/"):
        below = f"{workspace.as_posix()}/"
        if not pattern.startswith(below):
            return negated % 2 == 1, re.compile(r"(?!)")  # outside of the workspace, where no file counts
        pattern = pattern.removeprefix(below)
    steps = [step for step in pattern.removeprefix("./").split("/") if step]
    if pattern not in (".", "./") and {".", ".."} & set(steps):
        raise MlopsError(f"hashFiles(): expected a pattern inside the workspace without . or .., found {line!r}")
    expression = ""
    for step in steps if pattern not in (".", "./") else ():
        expression += "(?:[^/]+/)*" if step == "**" else f"{_segment(step)}/"
    # What matches is the file itself, unless the pattern ends in `/` or `**`, or a folder above the file.
    whole = expression if pattern.endswith("/") else expression.removesuffix("/")
    return negated % 2 == 1, re.compile(rf"{whole}(?:/.*)?" if whole != expression else rf"{expression}.*", re.DOTALL)


def _segment(step: str) -> str:
    """Return the regular expression of a pattern without `/`."""
    expression, position = "", 0
    while position < len(step):
        character = step[position]
        listed = re.compile(r"\[([!^]?)(\]?[^\]]*)\]").match(step, position) if character == "[" else None
        if character == "*":
            expression += "[^/]*"
        elif character == "?":
            expression += "[^/]"
        elif listed is not None and listed[2]:
            inside = listed[2].replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace("^", "\\^")
            expression += f"(?!/)[{'^' if listed[1] else ''}{inside}]"
            position = listed.end() - 1
        elif character == "\\" and position + 1 < len(step):
            position += 1
            expression += re.escape(step[position])
        else:
            expression += re.escape(character)
        position += 1
    return expression
