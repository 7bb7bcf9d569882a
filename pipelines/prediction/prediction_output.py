"""Save the predictions of one batch prediction as a local file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.catalog import BATCH, BUNDLE, INPUT, TablePlace, open_table, snapshot_of
from pipelines.data.row_streams import stream_rows
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.predictions_contract import BATCH_COLUMN, ROW_COLUMN, batch_names

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.table import FileScanTask, Table

OUTPUT_SUFFIXES = (".parquet", ".csv")


def check_output(path: Path) -> None:
    """Check that predictions can be saved under a name.

    Raises:
        MlopsError: it ends in something else than .parquet or .csv, or its folder does not exist.
    """
    if path.suffix.lower() not in OUTPUT_SUFFIXES:
        raise MlopsError(
            f"{path} cannot be written: expected a name that ends in {' or '.join(OUTPUT_SUFFIXES)}, "
            f"found {path.name!r}"
        )
    if not path.absolute().parent.is_dir():
        raise MlopsError(f"{path} cannot be written: its folder does not exist", fix="create the folder first")


def save_predictions(place: TablePlace, dataset: str, snapshot: str, path: Path) -> int:
    """Save the rows that a snapshot added to a table of predictions, in the order of the input.

    The data files are read one after the other, so memory does not grow with their number. A file that cannot be
    written completely does not appear.

    Args:
        place: where the table is.
        dataset: name of the dataset of predictions.
        snapshot: id of the snapshot.
        path: Parquet or CSV file to write.

    Returns:
        The number of rows.

    Raises:
        MlopsError: the snapshot does not exist, or the table cannot be read or the file not be written.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    check_output(path)
    table = open_table(place, dataset)
    found = snapshot_of(table, place.name, dataset, snapshot)
    properties = dict(found.summary.additional_properties) if found.summary is not None else {}
    named = {key: properties[key] for key in (BUNDLE, INPUT) if key in properties}
    named |= {"mlops.dataset": dataset, "mlops.snapshot": snapshot}
    try:
        schema, batches = _rows_of(table, found.snapshot_id, properties[BATCH])
        return _write(path, schema, batches, named)
    except (BotoCoreError, ClientError) as error:
        raise MlopsError(
            f"snapshot {snapshot} of {dataset} in {place.name} cannot be read: {error}",
            fix="check that the caller may read the Glue table and its files in the lake bucket",
        ) from error


def _rows_of(table: Table, snapshot: int, batch: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return the columns and the rows of one batch prediction."""
    from pyiceberg.conversions import from_bytes
    from pyiceberg.types import LongType

    row = table.schema().find_field(ROW_COLUMN).field_id

    def first_row(task: FileScanTask) -> int:
        bounds = task.file.lower_bounds or {}
        return int(from_bytes(LongType(), bounds[row])) if row in bounds else 0

    names = ", ".join(f"'{name}'" for name in batch_names(batch))
    only = f"{BATCH_COLUMN} IN ({names})"
    return stream_rows(table, table.scan(row_filter=only, snapshot_id=snapshot), first_row)


def _write(path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch], named: dict[str, str]) -> int:
    """Write rows to a file that appears when it is complete."""
    draft = path.with_name(f".{path.name}.partial")
    total = 0
    try:
        with _writer(draft, path.suffix.lower(), schema.with_metadata(named)) as writer:
            for batch in batches:
                writer.write_batch(batch.replace_schema_metadata(named))
                total += batch.num_rows
        draft.replace(path)
    except OSError as error:
        raise MlopsError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return total


@contextmanager
def _writer(path: Path, suffix: str, schema: pa.Schema) -> Iterator[Any]:
    import pyarrow.csv
    import pyarrow.parquet as pq

    opened = pq.ParquetWriter(path, schema, compression="zstd") if suffix == ".parquet" else None
    with opened if opened is not None else pyarrow.csv.CSVWriter(path, schema) as writer:
        yield writer
