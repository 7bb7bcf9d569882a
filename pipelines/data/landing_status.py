"""State of the landing files of a dataset, and the rows of a file that are in quarantine."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipelines.data.landing import LandingFile, landing_files
from pipelines.data.row_quarantine import BatchRecord, download_rows, read_records
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    import pyarrow as pa

State = Literal["waiting", "ingested", "quarantined", "refused", "dropped"]

FORMATS = (".csv", ".parquet")
"""Suffixes of files that quarantined rows can be saved to."""


@dataclass(frozen=True)
class FileStatus:
    """State of a landing file.

    Attributes:
        file: name of the file.
        state: `waiting` for the next ingestion; `ingested`: its good rows are in the table; `quarantined`: it has no
            good rows; `refused`: rejected as a whole; `dropped`: given up.
        record: the record of its batch; None while it waits.
    """

    file: str
    state: State
    record: BatchRecord | None

    @property
    def needs_attention(self) -> bool:
        """True if the file, or some of its rows, is neither in the table nor given up."""
        if self.record is None or self.record.dropped is not None:
            return False
        return self.state in ("quarantined", "refused") or self.record.quarantined > 0

    @property
    def description(self) -> str:
        """The state in one line."""
        record = self.record
        if record is None:
            return "waiting for the next ingestion"
        if record.verdict == "dropped":
            return f"dropped: {record.dropped}"
        if record.refused is not None:
            return f"refused under version {record.contract} of the contract: {record.refused.splitlines()[0]}"
        text = f"{record.good} of {record.rows} rows in the table"
        if record.quarantined:
            given_up = f" (dropped: {record.dropped})" if record.dropped is not None else ""
            text += f", {record.quarantined} in quarantine{given_up}"
        return text


def decisions_on(status: FileStatus, dataset: str, environment: str) -> list[str]:
    """Return the ways to go on with a file that needs a decision, a line each; none if it needs none."""
    record = status.record
    if not status.needs_attention or record is None:
        return []
    about = f"{dataset} {status.file} --env {environment}"
    released = f"if the contract was wrong: correct and deploy it, then mlops data release {about}"
    dropped = f"under another name, then mlops data drop {about} --reason TEXT"
    if record.refused is not None:
        return [released, f"if the file was wrong: land it corrected {dropped}"]
    shown = f"look at the rows: mlops data show {about}"
    return [shown, released, f"if the rows were wrong: land them corrected {dropped}"]


def status_of(files: Iterable[LandingFile], records: Iterable[BatchRecord]) -> list[FileStatus]:
    """Match landing files with the records of their batches, by ETag or, without one, by name."""
    by_etag = {record.etag: record for record in records if record.etag is not None}
    by_name = {record.file: record for record in records if record.etag is None}
    found = []
    for file in files:
        record = by_etag.get(file.etag) or by_name.get(file.name)
        verdict = record.verdict if record is not None else "waiting"
        found.append(FileStatus(file.name, "waiting" if verdict == "checked" else verdict, record))
    return found


def read_status(descriptor: EnvironmentDescriptor, dataset: str) -> list[FileStatus]:
    """Read the state of every landing file of a dataset. Read-only.

    Raises:
        AccessDeniedError: the caller may not list the landing files, or read the records in the lake bucket.
    """
    return status_of(landing_files(descriptor, dataset), read_records(descriptor, dataset))


def find_status(descriptor: EnvironmentDescriptor, dataset: str, name: str) -> FileStatus:
    """Read the state of one landing file.

    Raises:
        MlopsError: no such file has landed.
    """
    every = read_status(descriptor, dataset)
    for status in every:
        if status.file == name:
            return status
    latest = ", ".join(status.file for status in every[-5:]) or "none"
    raise MlopsError(
        f"{name!r} has not landed in {descriptor.name}: expected a landing file of {dataset}, found {latest}",
        fix=f"mlops data list {dataset} --env {descriptor.name}",
    )


def read_quarantined(descriptor: EnvironmentDescriptor, record: BatchRecord) -> pa.Table | None:
    """Read the quarantined rows of a batch: `_row`, the text of each column, and `_reasons`; None if there are none."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory(prefix="quarantine-") as folder:
        path = Path(folder) / "rows.parquet"
        if not download_rows(descriptor, record.dataset, record.batch, path):
            return None
        return pq.read_table(path)


def describe_rows(rows: pa.Table, most: int, personal: Collection[str] = ()) -> list[str]:
    """Return a line for each reason of the first `most` rows.

    Args:
        rows: quarantined rows.
        most: number of rows to describe.
        personal: columns whose values must not appear; a reason about a whole row shows none if there is such a column.
    """
    return [
        f"row {row['_row']}: {reason['column'] or 'the row'}: {reason['rule']}: "
        f"expected {reason['expected']}, found {_found(reason, personal)}"
        for row in rows.slice(0, most).to_pylist()
        for reason in row["_reasons"]
    ]


def _found(reason: dict[str, str], personal: Collection[str]) -> str:
    columns = reason["column"].split(", ") if reason["column"] else list(personal)
    return "a value that is not shown" if any(column in personal for column in columns) else reason["found"]


def save_rows(rows: pa.Table, path: Path) -> None:
    """Save quarantined rows as CSV, with the reasons as text, or as Parquet.

    Raises:
        MlopsError: the name has another suffix, or the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    if path.suffix.lower() not in FORMATS:
        raise MlopsError(f"{path} cannot be written: expected a name that ends in {' or '.join(FORMATS)}")
    try:
        if path.suffix.lower() == ".parquet":
            pq.write_table(rows, path)
            return
        texts = ["; ".join(f"{r['column'] or 'the row'}: {r['rule']}" for r in row) for row in _reasons(rows)]
        index = rows.column_names.index("_reasons")
        pc.write_csv(rows.set_column(index, "_reasons", pa.array(texts, pa.string())), path)
    except OSError as error:
        raise MlopsError(f"{path} cannot be written: {error.strerror or error}") from None


def _reasons(rows: pa.Table) -> list[list[dict[str, str]]]:
    found: list[list[dict[str, str]]] = rows.column("_reasons").to_pylist()
    return found
