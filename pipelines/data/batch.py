"""Rows of a landing file, ready to be checked, and the error for a file that cannot be read as rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.declarations.documents import Declaration
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.printable import shorten

ROW = "_row"
"""Column with the number of the row in the landing file, from 1; the header of a CSV file does not count.

Names of contract columns never start with an underscore.
"""

PROBLEMS = "_problems"
"""Column with what is wrong with a row before its values are checked: a list of reasons, see `reason`."""


class LandingFileError(MlopsError):
    """A landing file is rejected as a whole; no row is ingested.

    Args:
        file: name of the file.
        expected: what the file should be or hold.
        found: what it is or holds.
        fix: what to do.
    """

    def __init__(self, file: str, expected: str, found: str, fix: str = "") -> None:
        self.file = file
        self.expected = expected
        self.found = found
        super().__init__(f"{file} is rejected: expected {expected}, found {found}", fix=fix)


@dataclass(frozen=True)
class ReasonCount:
    """Number of rows that broke a rule.

    Attributes:
        column: name of the column; "" for the whole row; names separated by commas for several columns.
        rule: name of the rule.
        rows: number of rows.
    """

    column: str
    rule: str
    rows: int


class QualityWarning(Declaration):
    """A rule that does not bind and that a batch breaks.

    Attributes:
        column: name of the column; "" for the table; names separated by commas for several columns.
        rule: name of the rule.
        expected: what the rule allows.
        found: what the batch has.
    """

    column: str
    rule: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.column or 'the batch'}: {self.rule}: expected {self.expected}, found {self.found}"


class TooManyBadRowsError(LandingFileError):
    """More rows of a landing file break the contract than it allows.

    Args:
        file: name of the file.
        expected: the bound.
        found: the rows that break it.
        fix: what to do.
        rows: number of rows in the file.
        bad: least number of rows that break the contract.
        reasons: rows by broken rule.
        sample: Parquet file with some of the rows, as `Validation.write_quarantine` writes them; None without any.
    """

    def __init__(
        self,
        file: str,
        expected: str,
        found: str,
        fix: str,
        *,
        rows: int,
        bad: int,
        reasons: tuple[ReasonCount, ...],
        sample: Path | None,
    ) -> None:
        super().__init__(file, expected, found, fix)
        self.rows = rows
        self.bad = bad
        self.reasons = reasons
        self.sample = sample


@dataclass(frozen=True)
class Batch:
    """The rows of a landing file, as a Parquet file.

    Attributes:
        file: name of the landing file, for messages.
        path: the landing file itself if it is Parquet; else a Parquet file with the text of its values.
        columns: name → DuckDB type in `path`.
        text: True if `path` holds text, with the columns `_row` and `_problems`.
        rows: number of rows, good or bad.
        replayed: Parquet file whose column `_row` numbers the only rows to check, which were quarantined before; None
            for all rows.
    """

    file: str
    path: Path
    columns: dict[str, str]
    text: bool
    rows: int
    replayed: Path | None = None


def reason(column: str, rule: str, expected: str, found: str) -> dict[str, str]:
    """Build a quarantine reason.

    Args:
        column: name of the column; "" for the whole row.
        rule: name of the broken rule, as the contract calls it.
        expected: what the rule allows.
        found: the value; shortened to 120 characters.
    """
    return {"column": column, "rule": rule, "expected": expected, "found": shorten(found)}
