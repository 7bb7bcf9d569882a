"""Read the inference log of a window: requests, and the rows that one bundle predicted in them. Read-only.

Lines are parsed by Arrow, an object at a time, so memory does not depend on the size of the log. Format of the lines:
see `pipelines.serving.inference_log`.
"""

from __future__ import annotations

import io
import json
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
from numpy.typing import NDArray

from pipelines.data.glue_client import s3
from pipelines.declarations.bundle import RequestSchema
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.registry import store
from pipelines.serving.golden import CHECK_REQUEST
from pipelines.serving.request_counts import folder_of
from pipelines.serving.request_metrics import OVERLOADED

LARGEST_OBJECT = 256 << 20
"""Size limit of an object of the log, in bytes."""

LARGEST_COUNT = 64 << 10

_THREADS = 2
_AHEAD = 4
"""Objects that are read before they are needed."""

_HEAD = [("time", pa.string()), ("bundle", pa.string()), ("id", pa.string()), ("rows", pa.int32())]
_KEPT = (*(name for name, _ in _HEAD), "status")

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class LoggedRows:
    """Rows that the bundle predicted in a part of the log.

    Attributes:
        ids: id of the request of each row.
        times: time of the request, in milliseconds since the epoch.
        numbers: number of the row in its request, from 0.
        features: feature → array of its values, with nulls.
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
        requests: bundle → number of requests.
        errors: bundle → requests that ended in a server error.
        recent: bundle → requests since the bundle went live.
        newest: bundle → time of its newest request, in milliseconds since the epoch.
        unreadable: lines that are not records.
    """

    requests: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    recent: Counter[str] = field(default_factory=Counter)
    newest: dict[str, int] = field(default_factory=dict)
    unreadable: int = 0


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
        self._inputs = {
            tensor.name: pa.list_(pa.list_(_ARROW.get(tensor.datatype, pa.float64()))) for tensor in schema.inputs
        }
        self._output = next(each.name for each in schema.outputs if each.name != "label")
        self._has_classes = any(each.name == "label" for each in schema.outputs)
        self._form = pa.schema(
            [
                *_HEAD,
                ("status", pa.int16()),
                ("inputs", pa.struct(list(self._inputs.items()))),
                ("outputs", pa.struct([(self._output, pa.list_(pa.list_(pa.float64())))])),
            ]
        )

    def read(self, start: datetime, end: datetime, totals: LogTotals, live_since: datetime) -> Iterator[LoggedRows]:
        """Stream the rows of requests between two times, and count all requests of that time.

        Golden requests of deployments and canary checks are left out, and so are requests that an overloaded server
        refused: earlier versions of it logged them.

        Args:
            start, end: times of the requests; the end is exclusive.
            totals: receives the counts.
            live_since: when the bundle went live.

        Raises:
            AccessDeniedError: the log cannot be read.
        """
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
            if chosen.any():
                yield self._rows(table.filter(pa.array(chosen)), times[chosen])

    def _count(self, table: pa.Table, times: NDArray[np.int64], totals: LogTotals, since: int) -> None:
        bundles = table["bundle"].combine_chunks().dictionary_encode()
        codes, failed = bundles.indices.to_numpy(), pc.fill_null(table["status"], 200).to_numpy() >= 500
        for code, bundle in enumerate(bundles.dictionary.to_pylist()):
            of_it = codes == code
            totals.requests[bundle] += int(of_it.sum())
            totals.errors[bundle] += int((of_it & failed).sum())
            totals.recent[bundle] += int((of_it & (times >= since)).sum())
            totals.newest[bundle] = max(totals.newest.get(bundle, 0), int(times[of_it].max()))

    def _rows(self, table: pa.Table, times: NDArray[np.int64]) -> LoggedRows:
        outputs = table["outputs"].combine_chunks().field(self._output)
        lengths = pc.list_value_length(outputs).to_numpy()
        at = np.repeat(np.arange(len(lengths)), lengths)
        starts = np.cumsum(lengths) - lengths
        predicted = _matrix(outputs, len(at))
        columns: dict[str, pa.Array] = {}
        inputs = table["inputs"].combine_chunks()
        for tensor in self._schema.inputs:
            flat = inputs.field(tensor.name).flatten().flatten()
            width = len(tensor.columns)
            for index, column in enumerate(tensor.columns):
                columns[column.name] = flat[index::width] if width == 1 else flat.take(
                    pa.array(np.arange(index, len(flat), width))
                )  # fmt: skip
        return LoggedRows(
            ids=table["id"].combine_chunks().take(pa.array(at)),
            times=times[at],
            numbers=(np.arange(len(at)) - starts[at]).astype(np.int32),
            features=pa.RecordBatch.from_pydict(columns),
            predicted=predicted if self._has_classes else predicted[:, 0],
        )

    def _tables(self, start: datetime, end: datetime) -> Iterator[tuple[pa.Table, int]]:
        keys = deque(self._keys(start, end))
        with ThreadPoolExecutor(_THREADS) as pool:
            waiting: deque[Future[tuple[pa.Table, int]]] = deque()
            while keys or waiting:
                while keys and len(waiting) < _AHEAD:
                    waiting.append(pool.submit(self._table, keys.popleft()))
                yield waiting.popleft().result()

    def _keys(self, start: datetime, end: datetime) -> list[str]:
        client = s3(self._descriptor)
        hour, found = start.replace(minute=0, second=0, microsecond=0), []
        while hour < end:
            prefix = f"inference/{self._model}/{hour:%Y/%m/%d/%H}/"
            listed = store.listing(self._descriptor.logs_bucket, prefix, client=client)
            found += [each.key for each in listed if each.key.endswith(".jsonl")]
            hour += timedelta(hours=1)
        return found

    def _table(self, key: str) -> tuple[pa.Table, int]:
        content = store.get(
            self._descriptor.logs_bucket, key, limit=LARGEST_OBJECT, client=s3(self._descriptor)
        ).content
        return self.parse(content)

    def parse(self, content: bytes) -> tuple[pa.Table, int]:
        """Parse lines of the log.

        Returns:
            The records, and the number of lines that are not records.
        """
        if not content.strip():
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
            except (ValueError, KeyError, TypeError, pa.ArrowNotImplementedError):
                unreadable += 1
        return (pa.concat_tables(kept).combine_chunks() if kept else self._form.empty_table()), unreadable

    def _parse(self, content: bytes) -> pa.Table:
        return pj.read_json(
            io.BytesIO(content),
            read_options=pj.ReadOptions(use_threads=False, block_size=max(len(content), 1)),
            parse_options=pj.ParseOptions(explicit_schema=self._form, unexpected_field_behavior="ignore"),
        )


_ARROW: dict[str, pa.DataType] = {"BOOL": pa.bool_(), "BYTES": pa.string()}
"""Datatype → type in the log. Numbers are read as floats, because JSON does not tell 1 from 1.0."""


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


def read_latencies(
    descriptor: EnvironmentDescriptor, model: str, bundle: str, start: datetime, end: datetime, bounds: Sequence[float]
) -> list[int]:
    """Add up the latencies that processes recorded with their counts of requests.

    Args:
        descriptor: the environment.
        model: name of the model.
        bundle: the bundle that answered.
        start, end: times; a count belongs to the time of its last request.
        bounds: upper bounds of the histogram, in seconds.

    Returns:
        Requests in each bucket, one more than `bounds`; all 0 if no process recorded any.

    Raises:
        AccessDeniedError: the counts cannot be read.
    """
    from pipelines.serving.request_counts import count_of

    client, totals = s3(descriptor), [0] * (len(bounds) + 1)
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

    def latencies(key: str) -> list[int]:
        content = store.get(descriptor.logs_bucket, key, limit=LARGEST_COUNT, client=client).content
        try:
            found = json.loads(content)
            given = found.get("latencies") if isinstance(found, dict) else None
        except ValueError:
            return []
        if not isinstance(given, list) or len(given) != len(totals):
            return []
        return [each if isinstance(each, int) and each >= 0 else 0 for each in given]

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(latencies, keys):
            for index, number in enumerate(found):
                totals[index] += number
    return totals
