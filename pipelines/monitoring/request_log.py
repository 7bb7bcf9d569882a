"""Read the inference log of a window: requests, and the rows that one bundle predicted in them. Read-only.

Objects are read one at a time, so memory does not depend on the size of the log. Their format: see
`pipelines.monitoring.log_records`.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.data.glue_client import s3
from pipelines.declarations.bundle import RequestSchema
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.inference_logging import NULL_GROUP
from pipelines.monitoring.log_records import LINES, parquet_part, parse_lines, read_part, record_form
from pipelines.registry import store
from pipelines.serving.golden import CHECK_REQUEST
from pipelines.serving.request_counts import folder_of
from pipelines.serving.request_metrics import OVERLOADED

LARGEST_OBJECT = 256 << 20
"""Size limit of an object of the log, in bytes."""

LARGEST_COUNT = 64 << 10

ROWS_AT_ONCE = 32_768
"""Rows that are counted together, if the log's objects have fewer."""

_AHEAD = _THREADS = 4
"""Objects that are read before they are needed: while one is parsed, S3 sends others."""

_PARTS_AHEAD = 2
"""The same of Parquet files, which are larger."""

_HOURS_AHEAD = 4
"""The same of hours whose objects are listed."""

_KEPT = ("time", "bundle", "id", "rows", "status", "sample", "withheld")

Numbers = NDArray[np.float64]
K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True)
class LoggedRows:
    """Rows that the bundle predicted in a part of the log.

    Attributes:
        ids: id of the request of each row.
        times: time of the request, in milliseconds since the epoch.
        numbers: number of the row in its request, from 0.
        features: feature → array of its values, with nulls; without features that were not logged.
        predicted: (n,) predictions, or (n, classes) probabilities.
    """

    ids: pa.Array
    times: NDArray[np.int64]
    numbers: NDArray[np.int32]
    features: pa.RecordBatch
    predicted: Numbers


@dataclass
class LogTotals:
    """Counts over the part of the log that was read.

    Attributes:
        requests: bundle → number of requests, estimated if the log holds a sample of them.
        errors: bundle → requests that ended in a server error.
        recent: bundle → requests since the bundle went live, estimated like `requests`.
        oldest, newest: bundle → time of its oldest and newest request, in milliseconds since the epoch.
        unreadable: lines that are not records.
        withheld: features of the bundle that were not logged for some of its rows, nor their groups.
        sample: least share of the bundle's requests that were logged.
    """

    requests: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    errors: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    recent: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    oldest: dict[str, int] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    unreadable: int = 0
    withheld: set[str] = field(default_factory=set)
    sample: float = 1.0


class RequestLog:
    """The inference log of one model.

    Args:
        descriptor: the environment.
        model: name of the model.
        bundle: the bundle whose rows are read.
        schema: its request schema.
    """

    def __init__(self, descriptor: EnvironmentDescriptor, model: str, bundle: str, schema: RequestSchema) -> None:
        self._descriptor, self._model, self._bundle, self._schema = descriptor, model, bundle, schema
        self._output = next(each.name for each in schema.outputs if each.name != "label")
        self._has_classes = any(each.name == "label" for each in schema.outputs)
        self._form = record_form(schema)

    def read(self, start: datetime, end: datetime, totals: LogTotals, live_since: datetime) -> Iterator[LoggedRows]:
        """Stream the rows of requests between two times, and count all requests of that time.

        Golden requests of deployments, canary checks and `mlops predict` are left out, and so are requests that an
        overloaded server refused: earlier versions of it logged them.

        Args:
            start, end: times of the requests; the end is exclusive.
            totals: receives the counts.
            live_since: when the bundle went live.

        Raises:
            AccessDeniedError: the log cannot be read.
        """
        return _larger(self._read(start, end, totals, live_since))

    def _read(self, start: datetime, end: datetime, totals: LogTotals, live_since: datetime) -> Iterator[LoggedRows]:
        low, high = milliseconds(start), milliseconds(end)
        for table, unreadable in self._tables(start, end):
            totals.unreadable += unreadable
            times = _times(table)
            inside = (times >= low) & (times < high)
            inside &= pc.not_equal(pc.fill_null(table["id"], ""), CHECK_REQUEST).to_numpy()
            inside &= pc.fill_null(table["status"], 200).to_numpy() != OVERLOADED
            if not inside.all():
                table, times = table.filter(pa.array(inside)), times[inside]
            if not table.num_rows:
                continue
            self._count(table, times, totals, milliseconds(live_since))
            answered = pc.and_(pc.equal(table["bundle"], self._bundle), pc.is_valid(table["outputs"].combine_chunks()))
            keep = pc.and_(answered, pc.greater(table["rows"], 0))
            chosen = np.asarray(keep.to_numpy(zero_copy_only=False) if isinstance(keep, pa.Array) else keep, dtype=bool)
            if chosen.all():
                yield self._rows(table, times, totals)
            elif chosen.any():
                yield self._rows(table.filter(pa.array(chosen)), times[chosen], totals)

    def _count(self, table: pa.Table, times: NDArray[np.int64], totals: LogTotals, since: int) -> None:
        bundles = table["bundle"].combine_chunks().dictionary_encode()
        codes, failed = bundles.indices.to_numpy(), pc.fill_null(table["status"], 200).to_numpy() >= 500
        weights = np.where(failed, 1.0, 1.0 / pc.fill_null(table["sample"], 1.0).to_numpy())
        for code, bundle in enumerate(bundles.dictionary.to_pylist()):
            of_it = codes == code
            totals.requests[bundle] += float(weights[of_it].sum())
            totals.errors[bundle] += int((of_it & failed).sum())
            totals.recent[bundle] += float(weights[of_it & (times >= since)].sum())
            first, last = int(times[of_it].min()), int(times[of_it].max())
            totals.oldest[bundle] = min(totals.oldest.get(bundle, first), first)
            totals.newest[bundle] = max(totals.newest.get(bundle, 0), last)

    def _rows(self, table: pa.Table, times: NDArray[np.int64], totals: LogTotals) -> LoggedRows:
        outputs = table["outputs"].combine_chunks().field(self._output)
        lengths = pc.list_value_length(outputs).to_numpy()
        at = np.repeat(np.arange(len(lengths)), lengths)
        starts = np.cumsum(lengths) - lengths
        predicted = _matrix(outputs, len(at))
        withheld = {str(each) for each in pc.list_flatten(table["withheld"].combine_chunks()).unique().to_pylist()}
        columns: dict[str, pa.Array] = {}
        inputs = table["inputs"].combine_chunks()
        for tensor in self._schema.inputs:
            lists, width = inputs.field(tensor.name), len(tensor.columns)
            by_column = _split(lists.flatten().flatten(), width)
            for index, column in enumerate(tensor.columns):
                values: pa.Array | None = None
                if column.name in withheld:
                    values = _groups(table, column.name, is_text=tensor.datatype == "BYTES")
                elif not lists.null_count:
                    values = by_column(index)
                if values is None:
                    totals.withheld.add(column.name)
                else:
                    columns[column.name] = values
        totals.sample = min(totals.sample, pc.min(pc.fill_null(table["sample"], 1.0)).as_py())
        return LoggedRows(
            ids=table["id"].combine_chunks().take(pa.array(at)),
            times=times[at],
            numbers=(np.arange(len(at)) - starts[at]).astype(np.int32),
            features=pa.RecordBatch.from_pydict(columns),
            predicted=predicted if self._has_classes else predicted[:, 0],
        )

    def _tables(self, start: datetime, end: datetime) -> Iterator[tuple[pa.Table, int]]:
        with ThreadPoolExecutor(_THREADS) as pool:
            for parts, others in self._hours(pool, start, end):
                covered: set[str] = set()
                for table, sources in _ahead(pool, self._part, parts, _PARTS_AHEAD):
                    covered |= sources
                    yield table, 0
                left = [key for key in others if key.rpartition("/")[2] not in covered]
                yield from _ahead(pool, self._lines, left, _AHEAD)

    def _hours(self, pool: ThreadPoolExecutor, start: datetime, end: datetime) -> Iterator[tuple[list[str], list[str]]]:
        """Yield the keys of Parquet files and of objects with lines. Hours without Parquet files come together."""
        first, waiting = start.replace(minute=0, second=0, microsecond=0), []
        hours = [first + timedelta(hours=number) for number in range(math.ceil((end - first) / timedelta(hours=1)))]
        for keys in _ahead(pool, self._keys, hours, _HOURS_AHEAD):
            parts, lines = [key for key in keys if parquet_part(key)], [key for key in keys if key.endswith(LINES)]
            if parts:
                yield parts, lines
            else:
                waiting += lines
        yield [], waiting

    def _keys(self, hour: datetime) -> list[str]:
        bucket, prefix = self._descriptor.logs_bucket, hour_folder(self._model, hour)
        return [each.key for each in store.listing(bucket, prefix, client=s3(self._descriptor))]

    def _part(self, key: str) -> tuple[pa.Table, set[str]]:
        part = parquet_part(key)
        assert part is not None
        return read_part(self._content(key), self._form, is_bundle=part.bundle == self._bundle)

    def _lines(self, key: str) -> tuple[pa.Table, int]:
        return self.parse(self._content(key))

    def _content(self, key: str) -> bytes:
        bucket = self._descriptor.logs_bucket
        return store.get(bucket, key, limit=LARGEST_OBJECT, client=s3(self._descriptor)).content

    def parse(self, content: bytes) -> tuple[pa.Table, int]:
        """Parse lines of the log.

        Returns:
            The records, and the number of lines that are not records.
        """
        if not content or content.isspace():
            return self._form.empty_table(), 0
        try:
            return self._parse(content), 0
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass
        # Another bundle has tensors of the same name and another type, or a line is broken.
        kept, unreadable = [], 0
        for line in content.splitlines():
            try:
                record = json.loads(line)
                if record["bundle"] != self._bundle:
                    line = json.dumps({name: record[name] for name in _KEPT if name in record}).encode()
                kept.append(self._parse(line + b"\n"))
            except (ValueError, KeyError, TypeError, RecursionError, pa.ArrowNotImplementedError):
                unreadable += 1
        return (pa.concat_tables(kept).combine_chunks() if kept else self._form.empty_table()), unreadable

    def _parse(self, content: bytes) -> pa.Table:
        return parse_lines(content, self._form)


def hour_folder(model: str, hour: datetime) -> str:
    """Return the key prefix of an hour's records, with a trailing slash."""
    return f"inference/{model}/{hour:%Y/%m/%d/%H}/"


def _ahead(pool: ThreadPoolExecutor, read: Callable[[K], T], keys: Sequence[K], most: int) -> Iterator[T]:
    """Read objects in order, at most `most` of them before they are needed."""
    left, waiting = deque(keys), deque[Future[T]]()
    while left or waiting:
        while left and len(waiting) < most:
            waiting.append(pool.submit(read, left.popleft()))
        yield waiting.popleft().result()


def _groups(table: pa.Table, name: str, *, is_text: bool) -> pa.Array | None:
    """Return the group of each row as a value of the feature; None if a record lacks it."""
    if "groups" not in table.column_names:
        return None
    groups = table["groups"].combine_chunks()
    index = groups.type.get_field_index(name)
    lists = groups.field(index) if index >= 0 else None
    if lists is None or groups.null_count or lists.null_count:
        return None
    names = lists.flatten()
    values = pc.if_else(pc.equal(names, NULL_GROUP), pa.scalar(None, pa.string()), names)
    return values if is_text else values.cast(pa.float64())


def _split(flat: pa.Array, width: int) -> Callable[[int], pa.Array]:
    """Return a function that finds a column of values which come row by row.

    Args:
        flat: the values.
        width: number of columns.
    """
    if width == 1:
        return lambda _: flat
    if pa.types.is_float64(flat.type) and not flat.null_count and len(flat) % width == 0:
        columns = np.ascontiguousarray(flat.to_numpy().reshape(-1, width).T)  # a tenth of the time of `take`
        return lambda index: pa.array(columns[index])
    return lambda index: flat.take(pa.array(np.arange(index, len(flat), width)))


def _larger(parts: Iterable[LoggedRows]) -> Iterator[LoggedRows]:
    """Join small parts of the log that have the same features: a part takes time that does not depend on its size."""
    waiting: list[LoggedRows] = []
    rows = 0
    for part in parts:
        if waiting and waiting[0].features.schema != part.features.schema:
            yield _joined(waiting)
            waiting, rows = [], 0
        waiting.append(part)
        rows += len(part.times)
        if rows >= ROWS_AT_ONCE:
            yield _joined(waiting)
            waiting, rows = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(parts: Sequence[LoggedRows]) -> LoggedRows:
    if len(parts) == 1:
        return parts[0]
    return LoggedRows(
        ids=pa.concat_arrays([each.ids for each in parts]),
        times=np.concatenate([each.times for each in parts]),
        numbers=np.concatenate([each.numbers for each in parts]),
        features=pa.concat_batches([each.features for each in parts]),
        predicted=np.concatenate([each.predicted for each in parts]),
    )


def _matrix(lists: pa.Array, rows: int) -> Numbers:
    flat: Numbers = lists.flatten().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(rows, -1) if rows else np.empty((0, 1))


def _times(table: pa.Table) -> NDArray[np.int64]:
    """Return times in milliseconds since the epoch; -1 where there is none."""
    try:
        parsed = table["time"].cast(pa.timestamp("ms", "UTC"))
    except pa.ArrowInvalid:
        parsed = pa.chunked_array([pa.array([_time(each) for each in table["time"].to_pylist()])])
    times: NDArray[np.int64] = pc.fill_null(parsed.cast(pa.int64()), -1).to_numpy()
    return times


def _time(text: str | None) -> int | None:
    try:
        return milliseconds(datetime.fromisoformat(text or ""))
    except ValueError:
        return None


def milliseconds(time: datetime) -> int:
    """Return a time in milliseconds since the epoch."""
    return int(time.timestamp() * 1000)


@dataclass(frozen=True)
class ProcessCounts:
    """What processes recorded with their counts of requests.

    Attributes:
        latencies: requests in each bucket of the histogram, one more than its bounds; all 0 if no process recorded any.
        lost: records of the log that were lost.
    """

    latencies: list[int]
    lost: int


def read_counts(
    descriptor: EnvironmentDescriptor, model: str, bundle: str, start: datetime, end: datetime, bounds: Sequence[float]
) -> ProcessCounts:
    """Add up what processes recorded with their counts of requests.

    Args:
        descriptor: the environment.
        model: name of the model.
        bundle: the bundle that answered.
        start, end: times; a count belongs to the time of its last request.
        bounds: upper bounds of the histogram, in seconds.

    Raises:
        AccessDeniedError: the counts cannot be read.
    """
    from pipelines.serving.request_counts import count_of

    client, totals, lost = s3(descriptor), [0] * (len(bounds) + 1), 0
    low, high = milliseconds(start), milliseconds(end)
    day = (start - timedelta(days=1)).date()  # a count is stored under the day of its first request
    keys = []
    while day <= end.date():
        prefix = folder_of(model, f"{day:%Y/%m/%d}")
        for listed in store.listing(descriptor.logs_bucket, prefix, client=client):
            count = count_of(listed.key)
            if count is not None and count.bundle == bundle and low <= count.end < high:
                keys.append(listed.key)
        day += timedelta(days=1)

    def content(key: str) -> dict[str, Any]:
        stored = store.get(descriptor.logs_bucket, key, limit=LARGEST_COUNT, client=client).content
        try:
            found = json.loads(stored)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(content, keys):
            lost += _count(found.get("lost"))
            given = found.get("latencies")
            if isinstance(given, list) and len(given) == len(totals):
                totals = [total + _count(number) for total, number in zip(totals, given, strict=True)]
    return ProcessCounts(totals, lost)


def _count(number: Any) -> int:
    return number if isinstance(number, int) and number >= 0 else 0
