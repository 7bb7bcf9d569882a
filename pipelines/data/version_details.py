"""Details of a version of a dataset for people: its columns, and a few of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipelines.data.catalog import TablePlace, open_table
from pipelines.data.version_files import readable
from pipelines.data.versions import LATEST, TableVersion, find_version, list_versions, version_lines
from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Contract
from pipelines.declarations.printable import shorten

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST_VALUE = 40
"""Characters of a value that are shown."""


@dataclass(frozen=True)
class VersionDetails:
    """A version, its columns, and its first rows.

    Attributes:
        version: the version.
        columns: name → Iceberg type.
        rows: some rows, without the values of hidden columns.
        hidden: columns whose values are not shown: the contract classifies them, or does not have them.
    """

    version: TableVersion
    columns: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]
    hidden: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the details as JSON values; dates and times as text."""
        version = {**asdict(self.version), "at": self.version.at.isoformat()}
        rows = [{name: _plain(value) for name, value in row.items()} for row in self.rows]
        return {"version": version, "columns": dict(self.columns), "rows": rows, "hidden": list(self.hidden)}


def read_details(place: TablePlace, contract: Contract, name: str = LATEST, rows: int = 0) -> VersionDetails:
    """Read the columns of a version and some of its rows. Only as much of its files is read as these need.

    Args:
        place: where the table is.
        contract: contract of the dataset.
        name: snapshot, tag, landing file or `latest`.
        rows: maximum number of rows.

    Raises:
        MlopsError: the table or the version does not exist, or cannot be read.
    """
    with readable(place, contract.name, name):
        table = open_table(place, contract.name)
        version = find_version(list_versions(table), name, contract.name)
        schema = table.scan(snapshot_id=int(version.snapshot)).projection()
        columns = {field.name: str(field.field_type) for field in schema.fields}
        hidden = tuple(each for each in columns if each not in contract.columns or is_personal(contract.columns[each]))
        shown = tuple(each for each in columns if each not in hidden)
        found: list[dict[str, Any]] = []
        if rows and shown:
            first: pa.Table = table.scan(
                selected_fields=shown, snapshot_id=int(version.snapshot), limit=rows
            ).to_arrow()
            found = first.to_pylist()
    return VersionDetails(version, columns, found, hidden)


def details_lines(details: VersionDetails, contract: Contract) -> list[str]:
    """Return the lines that show details to people."""
    lines = version_lines([details.version])
    if details.version.parent is not None:
        lines.append(f"version before: {details.version.parent}")
    lines.append("columns:")
    for name, kind in details.columns.items():
        column = contract.columns.get(name)
        described = f": {column.description}" if column is not None and column.description else ""
        mark = " (not shown)" if name in details.hidden else ""
        lines.append(f"  {name}  {kind}{mark}{shorten(described)}")
    if details.rows:
        lines.append("rows, in no particular order:")
        lines += ["  " + ", ".join(f"{name}={_short(value)}" for name, value in row.items()) for row in details.rows]
    return lines


def _short(value: Any) -> str:
    return "null" if value is None else shorten(str(_plain(value)), LONGEST_VALUE)


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
