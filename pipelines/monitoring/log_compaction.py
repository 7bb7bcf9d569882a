"""Compact the inference log: turn the many objects of a finished hour into few Parquet files.

A run can be killed at any moment, and two may run at once. Each record counts once all the time:

1. The objects of an hour that no Parquet file names are read, and written as one file for each bundle. It gets the
   number after the last one, and must be new. Of two runs that read the same objects, one writes; the other stops.
2. From that moment, readers leave the objects out, because the file names them.
3. A later run reads the file back, compares each object with its records, and removes the object. Readers that listed
   the objects before have ended by then.

See docs/decisions/0047-compact-the-inference-log-in-a-separate-job.md.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.data.glue_client import s3
from pipelines.declarations.bundle import RequestSchema
from pipelines.declarations.documents import parse
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.monitoring.log_records import LINES, SOURCE, ParquetPart, parquet_part, parse_lines, record_form
from pipelines.monitoring.request_log import LARGEST_OBJECT, hour_folder
from pipelines.registry import store
from pipelines.registry.bundles import fetch

SETTLED = timedelta(hours=1)
"""Time after an hour in which servers may still write records of it: they try again while S3 is down."""

KEPT = timedelta(hours=1)
"""Time between the writing of a Parquet file and the removal of what it replaces. No reader takes that long."""

LOOK_BACK = timedelta(days=7)
"""How far back hours are compacted. Older objects stay as they are until they expire."""

PART_BYTES = 16 << 20
"""Lines that a Parquet file replaces, in bytes. A reader holds a few files in memory."""

_WRITTEN = b"mlops.written"
_THREADS = 8


@dataclass
class HourResult:
    """What a run did with an hour.

    Attributes:
        hour: start of the hour.
        compacted: objects that became Parquet files.
        files: Parquet files that were written.
        removed: objects that were removed, after their Parquet file was read back.
        left: objects that cannot be compacted; they stay, and monitors read them.
    """

    hour: datetime
    compacted: int = 0
    files: int = 0
    removed: int = 0
    left: int = 0

    def __str__(self) -> str:
        parts = [
            f"{number:,} {words}"
            for number, words in (
                (self.compacted, f"objects compacted to {self.files:,} Parquet files"),
                (self.removed, "compacted objects removed"),
                (self.left, "objects that cannot be compacted"),
            )
            if number
        ]
        return f"{self.hour:%Y-%m-%d %H:00}: {', '.join(parts)}"


@dataclass(frozen=True)
class _Source:
    """An object with records of one bundle."""

    name: str
    bundle: str
    size: int
    records: pa.Table


class LogCompaction:
    """Compacts the inference log of one model.

    Args:
        descriptor: the environment.
        model: name of the model.
        part_bytes: lines that a Parquet file replaces, in bytes.
    """

    def __init__(self, descriptor: EnvironmentDescriptor, model: str, *, part_bytes: int = PART_BYTES) -> None:
        self._descriptor, self._model, self._part_bytes = descriptor, model, part_bytes
        self._forms: dict[str, pa.Schema | None] = {}

    def run(self, now: datetime) -> Iterator[HourResult]:
        """Compact the finished hours before a time, the oldest first; yield those in which there was something to do.

        Raises:
            MlopsError: the log cannot be read or written, or a Parquet file is not what was written.
        """
        hour = (now - LOOK_BACK).replace(minute=0, second=0, microsecond=0)
        while hour + timedelta(hours=1) + SETTLED <= now:
            result = self.compact_hour(hour, now)
            if result.compacted or result.removed or result.left:
                yield result
            hour += timedelta(hours=1)

    def compact_hour(self, hour: datetime, now: datetime) -> HourResult:
        """Remove what an earlier run replaced, and replace the other objects of an hour.

        Raises:
            MlopsError: the log cannot be read or written, or a Parquet file is not what was written.
        """
        result, folder, client = HourResult(hour), hour_folder(self._model, hour), s3(self._descriptor)
        keys = [each.key for each in store.listing(self._descriptor.logs_bucket, folder, client=client)]
        lines = {key.removeprefix(folder) for key in keys if key.endswith(LINES)}
        parts = [part for key in keys if (part := parquet_part(key)) is not None]
        if not lines:
            return result
        for part in parts:
            replaced = self._finish(folder, part, lines, now, result)
            lines -= replaced
        self._replace(folder, sorted(lines), parts, now, result)
        return result

    def _replace(
        self, folder: str, names: Sequence[str], parts: Sequence[ParquetPart], now: datetime, result: HourResult
    ) -> None:
        following: dict[str, int] = defaultdict(int)
        for part in parts:
            following[part.bundle] = max(following[part.bundle], part.number + 1)
        waiting: dict[str, list[_Source]] = defaultdict(list)
        sizes: dict[str, int] = defaultdict(int)
        for source in self._sources(folder, names):
            if source is None:
                result.left += 1
                continue
            bundle = source.bundle
            waiting[bundle].append(source)
            sizes[bundle] += source.size
            if sizes[bundle] >= self._part_bytes:
                if not self._write(folder, ParquetPart(bundle, following[bundle]), waiting.pop(bundle), now, result):
                    return
                following[bundle] += 1
                sizes[bundle] = 0
        for bundle, sources in waiting.items():
            if not self._write(folder, ParquetPart(bundle, following[bundle]), sources, now, result):
                return

    def _sources(self, folder: str, names: Sequence[str]) -> Iterator[_Source | None]:
        """Read objects; yield None for one that cannot be compacted."""
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(names), 4 * _THREADS):
                some = names[start : start + 4 * _THREADS]
                for name, content in zip(some, pool.map(lambda name: self._content(folder + name), some), strict=True):
                    yield self._source(name, content)

    def _source(self, name: str, content: bytes) -> _Source | None:
        """Return an object if all of it is records of one bundle whose schema is known."""
        try:
            bundle = str(json.loads(content[: content.find(b"\n")])["bundle"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        form = self._form(bundle)
        records = None if form is None else _records(content, form, bundle)
        return None if records is None else _Source(name, bundle, len(content), records)

    def _form(self, bundle: str) -> pa.Schema | None:
        """Return the columns of a bundle's records; None if the registry does not have it."""
        if bundle not in self._forms:
            try:
                files = fetch(self._descriptor, self._model, bundle, ("schema.json",)).files
                schema = parse(files["schema.json"], RequestSchema, Path("schema.json"))
                self._forms[bundle] = record_form(schema, whole=True)
            except store.AccessDeniedError:
                raise
            except MlopsError:
                self._forms[bundle] = None
        return self._forms[bundle]

    def _write(
        self, folder: str, part: ParquetPart, sources: Sequence[_Source], now: datetime, result: HourResult
    ) -> bool:
        """Write a Parquet file; return False if another run was faster."""
        tables = [
            source.records.append_column(SOURCE, pa.repeat(pa.scalar(source.name), source.records.num_rows))
            for source in sources
        ]
        whole = pa.concat_tables(tables).replace_schema_metadata({_WRITTEN: now.isoformat().encode()})
        buffer = io.BytesIO()
        pq.write_table(whole, buffer, compression="zstd")
        try:
            store.put_new(
                self._descriptor.logs_bucket, folder + part.name, buffer.getvalue(), client=s3(self._descriptor)
            )  # fmt: skip
        except store.PreconditionFailedError:
            return False
        result.compacted += len(sources)
        result.files += 1
        return True

    def _finish(
        self, folder: str, part: ParquetPart, lines: set[str], now: datetime, result: HourResult
    ) -> set[str]:  # fmt: skip
        """Remove the objects that a Parquet file replaced long enough ago; return the names of all that it replaced.

        Raises:
            MlopsError: the records of an object are not in the file as they should be.
        """
        key = folder + part.name
        file = pq.ParquetFile(io.BytesIO(self._content(key)))
        table = file.read(use_threads=False)
        names = [str(each) for each in table[SOURCE].unique().to_pylist()]
        written = datetime.fromisoformat((file.schema_arrow.metadata or {})[_WRITTEN].decode())
        if now - written < KEPT:
            return set(names)
        form = self._form(part.bundle)
        for name in names:
            if name not in lines:
                continue
            found = table.filter(pc.equal(table[SOURCE], name)).drop_columns([SOURCE])
            content = self._content(folder + name)
            expected = None if form is None else _records(content, form, part.bundle)
            if expected is None or not found.replace_schema_metadata().equals(expected):
                lines_there = content.count(b"\n")
                raise MlopsError(
                    f"s3://{self._descriptor.logs_bucket}/{key} does not have the records of {name}: expected those "
                    f"of its {lines_there} lines, found {found.num_rows} records that are not the same",
                    fix="move the Parquet file away; the next run compacts the objects again",
                )
            store.delete(self._descriptor.logs_bucket, folder + name, client=s3(self._descriptor))
            result.removed += 1
        return set(names)

    def _content(self, key: str) -> bytes:
        bucket = self._descriptor.logs_bucket
        return store.get(bucket, key, limit=LARGEST_OBJECT, client=s3(self._descriptor)).content


def _records(content: bytes, form: pa.Schema, bundle: str) -> pa.Table | None:
    """Return lines as typed records; None if anything of them would be lost or they are not all of the bundle."""
    try:
        table = parse_lines(content, form, only=True)
        times = table["time"].cast(pa.timestamp("ms", "UTC"))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    same = pc.all(pc.equal(table["bundle"], bundle), skip_nulls=False).as_py()
    if not same or times.null_count or table.num_rows != content.count(b"\n"):
        return None
    return table.set_column(table.schema.get_field_index("time"), "time", times).combine_chunks()


def older_part(content: bytes, days: int) -> bytes:
    """Return a Parquet file of the log whose requests are some days older."""
    table = pq.read_table(io.BytesIO(content))
    times = pc.subtract(table["time"], pa.scalar(timedelta(days=days), pa.duration("ms")))
    metadata: Mapping[bytes, Any] = dict(table.schema.metadata or {})
    written = datetime.fromisoformat(metadata[_WRITTEN].decode()) - timedelta(days=days)
    older = table.set_column(table.schema.get_field_index("time"), "time", times)
    buffer = io.BytesIO()
    pq.write_table(
        older.replace_schema_metadata({_WRITTEN: written.astimezone(UTC).isoformat().encode()}),
        buffer,
        compression="zstd",
    )
    return buffer.getvalue()
