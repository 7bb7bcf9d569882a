"""Errors for people: what is wrong and where, what was expected, what was found, and the fix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class MlopsError(Exception):
    """Error that a person can act on. The command line prints it without a traceback and exits with 1.

    Args:
        what: what is wrong and where, in one sentence.
        fix: what to do, as an imperative; empty if it is obvious.
    """

    def __init__(self, what: str, *, fix: str = "") -> None:
        self.what = what
        self.fix = fix
        super().__init__(f"{what}\n  fix: {fix}" if fix else what)


@dataclass(frozen=True)
class Problem:
    """One problem in a declaration.

    Attributes:
        file: the file.
        line: 1-based line, or None for the whole file.
        key: dotted path of the key (`training.seed`), or "" for the whole file.
        expected: the expected value.
        found: the actual value.
        fix: what to do, or "".
    """

    file: Path
    line: int | None
    key: str
    expected: str
    found: str
    fix: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line is not None else str(self.file)
        key = f" {self.key}:" if self.key else ""
        text = f"{where}:{key} expected {self.expected}, found {self.found}"
        return f"{text}\n  fix: {self.fix}" if self.fix else text


class DeclarationError(MlopsError):
    """A declaration (a YAML or JSON file) is not valid.

    Args:
        problems: every problem found, at least one.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
