"""The errors people see: what is wrong, where, what was expected, what was found, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class MlopsError(Exception):
    """An error that a person can act on. The command line prints it without a traceback and exits with 1.

    Args:
        what: one sentence that says what is wrong and where.
        fix: one sentence that says what to do next; empty when `what` makes it plain.
    """

    def __init__(self, what: str, *, fix: str = "") -> None:
        self.what = what
        self.fix = fix
        super().__init__(f"{what}\n  fix: {fix}" if fix else what)


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a file that a person wrote.

    Attributes:
        file: the file, as the reader would name it.
        line: the 1-based line, or None when the whole file is meant.
        key: the dotted path of the key (`training.seed`), or "" for the whole file.
        expected: what should stand there.
        found: what stands there.
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
    """A declaration (a YAML or JSON file) does not say what it must. Carries every problem found, not the first.

    Args:
        problems: at least one problem.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
