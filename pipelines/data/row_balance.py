"""Account for every landed row: each is in the table or in quarantine, exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipelines.data.row_quarantine import BatchRecord
from pipelines.data.versions import TableVersion
from pipelines.declarations.plurals import counted


@dataclass(frozen=True)
class RowBalance:
    """Number of rows of all checked landing files, by where they are now.

    Attributes:
        landed: rows in the files.
        appended: rows that were appended to the table, also those that table maintenance has removed since.
        quarantined: rows in quarantine.
        problems: what does not add up, a sentence each.
    """

    landed: int
    appended: int
    quarantined: int
    problems: tuple[str, ...]


def balance_rows(
    versions: Sequence[TableVersion], expired: Collection[str], records: Sequence[BatchRecord], held: int | None
) -> RowBalance:
    """Compare the records of all batches with what the table holds.

    Args:
        versions: all versions of the table.
        expired: digests of the batches of which a version has expired: the table no longer says what they added.
        records: records of all batches.
        held: rows in the files of the current version; None if that cannot be known.
    """
    added: Counter[str] = Counter()
    for version in versions:
        if version.is_included and version.batch is not None:
            added[version.batch] += version.added or 0
    known = {version.snapshot for version in versions}
    problems = []
    landed = appended = quarantined = 0
    for record in records:
        in_table = added.pop(record.batch, None)
        if record.verdict == "ingested" or in_table is not None:
            landed, appended = landed + record.rows, appended + record.good
            quarantined += record.quarantined
        elif record.verdict == "quarantined":
            landed, quarantined = landed + record.rows, quarantined + record.quarantined
        problems += _problems_of(record, in_table, record.batch in expired or record.snapshot not in known)
    problems += [f"{counted(rows, 'row')} of the batch {batch[:19]}… have no record" for batch, rows in added.items()]
    current = next((version for version in versions if version.is_current), None)
    if current is not None and None not in (current.rows, held) and current.rows != held:
        problems.append(f"the current version says {current.rows} rows, and its files hold {held}")
    return RowBalance(landed, appended, quarantined, tuple(problems))


def _problems_of(record: BatchRecord, in_table: int | None, is_expired: bool) -> list[str]:
    """Return what does not add up for a batch.

    Args:
        record: its record.
        in_table: rows that the known versions added; None if none did.
        is_expired: True if other versions may have added rows.
    """
    split = f"{record.file}: {counted(record.rows, 'row')} landed"
    counts_rows = record.verdict in ("ingested", "checked", "quarantined")
    if counts_rows and record.rows != record.good + record.quarantined:
        return [f"{split}, {record.good} were appended and {record.quarantined} quarantined"]
    if in_table is None:
        is_lost = record.verdict == "ingested" and not is_expired
        return [f"{split}, {record.good} were appended, and the table has none of them"] if is_lost else []
    if not counts_rows:
        return [f"{record.file}: is {record.verdict}, and the table has {counted(in_table, 'row')} of it"]
    if in_table != record.good and not is_expired:
        return [f"{split}, {record.good} were appended, and the table got {in_table}"]
    return []
