"""Inference log: requests and answers as JSON lines in the logs bucket.

One line per request:

    {"time":"2026-01-31T12:00:00.123Z","model":"…","bundle":"sha256:…","id":"…","trace":"…","rows":1,
     "inputs":{"features":[[59.0,2.0]]},"outputs":{"variable":[[152.1]]}}

`inputs` and `outputs` hold a list of rows for each tensor. Labels join by `id`, which the client sent or received.
A request that ended in a server error has its HTTP status and no rows: `"rows":0,"status":500`. Invalid requests are
not logged.

Values of personal columns are never written. They are null in a tensor with other columns, and a tensor without others
is left out. Such a record names the columns, and may have the group of each row: `"withheld":["age","sex"]` and
`"groups":{"sex":["1"]}`. A record of a sample states its share: `"sample":0.1`.

Beside the records there are their counts; see `pipelines.serving.request_counts`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import msgspec

from pipelines.declarations.inference_logging import LogPolicy, is_sampled
from pipelines.serving.golden import CHECK_REQUEST, golden_inputs
from pipelines.serving.logged_inputs import LoggedInputs
from pipelines.serving.predictor import InferenceResult, Predictor
from pipelines.serving.request_counts import PendingCount, key_of
from pipelines.serving.request_metrics import RequestMetrics

logger = logging.getLogger(__name__)

Write = Callable[[str, bytes], None]
"""Puts an object: key and content. Raises any exception on failure."""


@dataclass(frozen=True)
class Limits:
    """Memory and time limits.

    Attributes:
        seconds: seconds between writes.
        batch_bytes: memory of pending records that triggers a write at once. An object holds about twice as much at
            most.
        buffer_bytes: memory of pending records in all. Further records are dropped and counted.
        attempts: attempts to write an object before its records are dropped and counted.
        first_pause, longest_pause: seconds between attempts. Pauses double, and vary by half at random.
        closing_seconds: seconds to write the rest when the server stops.
    """

    seconds: float = 2.0
    batch_bytes: int = 4 << 20
    buffer_bytes: int = 16 << 20
    attempts: int = 8
    first_pause: float = 0.25
    longest_pause: float = 30.0
    closing_seconds: float = 10.0


OVERHEAD = 500
"""Approximate bytes of a pending record besides the request body."""

PIECE = 100
"""Number of lines made at a time."""

_CHECK_ID = b'"%b"' % CHECK_REQUEST.encode()

_TIME, _HEAD, _ID, _TRACE, _VALUES = 0, 1, 2, 4, slice(6, None, 2)
"""Parts of a line to fill in; see `_line`."""


class _Pending(msgspec.Struct, gc=False):
    time: float
    trace: bytes
    id: bytes
    rows: int
    size: int
    inputs: list[bytes | msgspec.Raw]
    outputs: list[bytes]
    status: int = 200


class _Batch(NamedTuple):
    hour: int
    records: int
    size: int
    content: bytes
    begin: float
    end: float
    errors: int


class InferenceLog:
    """Takes records from the event loop and writes them from a background thread. `record` never blocks.

    Args:
        write: puts an object into the logs bucket.
        predictor: the predictor whose answers are logged.
        pod: names the process in the keys of objects; must be unique.
        metrics: counts written and lost records.
        limits: memory and time limits.
        policy: what to write, and what to leave out.
        clock: returns seconds since the epoch.
    """

    def __init__(
        self,
        write: Write,
        *,
        predictor: Predictor,
        pod: str,
        metrics: RequestMetrics,
        limits: Limits | None = None,
        policy: LogPolicy | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._write = write
        self._predictor = predictor
        policy = policy or LogPolicy()
        self._sample = policy.sample
        names = [tensor.name for tensor in predictor.schema.inputs]
        self._golden = golden_inputs(predictor.golden, names) if predictor.golden is not None else []
        self._inputs = LoggedInputs(predictor.schema, policy)
        self._withholds = bool(self._inputs.withheld)
        self._one, self._many = (_line(predictor, self._inputs, is_one=is_one) for is_one in (True, False))
        about = _about(predictor) + _about_records(self._inputs, policy.sample)
        self._heads = [b'.%03dZ",%b,"id":' % (milliseconds, about) for milliseconds in range(1000)]
        self._failed = b'.%%03dZ",%b,"trace":"%%b","rows":0,"status":%%d}\n' % _literal(_about(predictor))
        self._pod = pod
        self._metrics = metrics
        self._limits = limits or Limits()
        self._buffer_bytes = self._limits.buffer_bytes
        self._batch_bytes = self._limits.batch_bytes
        self._clock = clock
        self._records: deque[_Pending] = deque()
        # Each counter is written by one thread only, so none needs a lock. Bytes are taken first, and out once written.
        self._bytes_in = 0
        self._bytes_taken = 0
        self._bytes_out = 0
        self._dropped_when_full = 0
        self._failed_to_write = 0
        self._lost_written = 0
        self._unsampled = 0
        self._unsampled_counted = 0
        self._counted_until = clock() if self._sample < 1 else 0.0
        self._objects = 0
        self._count = PendingCount(predictor.digest)
        self._written_latencies = metrics.latencies()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="inference-log", daemon=True)

    @property
    def withholds(self) -> bool:
        """True if requests have values that must not be written."""
        return self._withholds

    def start(self) -> None:
        """Start the background thread."""
        self._thread.start()

    def record(self, answer: InferenceResult, trace: bytes) -> None:
        """Add a record; drop and count it if the buffer is full. Of a sample, the others are only counted.

        Args:
            answer: the request and its answer.
            trace: id of the trace, 32 hexadecimal digits.
        """
        # The thread formats the line: in bulk that is cheaper than one at a time between requests.
        name = answer.id
        if name == _CHECK_ID and not self._is_golden(answer):
            name = b'"%b"' % trace
        if self._sample < 1 and not is_sampled(name, self._sample, self._predictor.sampling_key):
            self._unsampled += 1
            return
        size = OVERHEAD + answer.size
        self._add(_Pending(self._clock(), trace, name, answer.rows, size, answer.inputs, answer.outputs))

    def _is_golden(self, answer: InferenceResult) -> bool:
        """Return True if a request is a golden one, not only by its id."""
        return list(map(msgspec.json.decode, answer.inputs)) in self._golden

    def record_failure(self, status: int, trace: bytes) -> None:
        """Add the record of a request that ended in a server error; see `record`.

        Args:
            status: HTTP status, 500 or above.
            trace: id of the trace, 32 hexadecimal digits.
        """
        self._add(_Pending(self._clock(), trace, b"", 0, OVERHEAD, [], [], status))

    def _add(self, record: _Pending) -> None:
        if self._bytes_in - self._bytes_out > self._buffer_bytes:
            self._metrics.log_dropped(1, "buffer full")
            self._dropped_when_full += 1
            return
        self._records.append(record)
        self._bytes_in += record.size
        if self._bytes_in - self._bytes_taken > self._batch_bytes and not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write pending records for at most `closing_seconds`; drop and count the rest."""
        self._deadline = time.monotonic() + self._limits.closing_seconds
        self._closing.set()
        self._wake.set()
        self._thread.join(self._limits.closing_seconds + 5)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._limits.seconds)
            self._wake.clear()
            self._write_waiting()
            self._write_count()
        self._write_waiting()
        self._write_count(is_last=True)

    def _write_waiting(self) -> None:
        # Records that arrive from now on wait for the next write; otherwise this would never end under load.
        there = self._bytes_in
        while self._records and self._bytes_taken < there:
            batch = self._next_batch(there)
            if self._put(self._key(batch.hour), batch.records, batch.content):
                self._count.add(batch.begin, batch.end, batch.records, batch.errors)
            else:
                self._failed_to_write += batch.records
            self._bytes_out += batch.size

    def _write_count(self, *, is_last: bool = False) -> None:
        if self._sample < 1:
            self._count_unsampled()
        lost = self._dropped_when_full + self._failed_to_write
        if lost > self._lost_written:
            now = self._clock()
            self._count.add(now, now, 0, 0)
        count = self._count.take(is_last=is_last)
        if count is None or time.monotonic() > self._deadline:
            return
        self._objects += 1
        key = key_of(count, self._predictor.name, self._pod, self._objects)
        latencies = self._metrics.latencies()
        more = [now - before for now, before in zip(latencies, self._written_latencies, strict=True)]
        try:
            figures = {**count._asdict(), "latencies": more, "lost": lost - self._lost_written}
            self._write(key, msgspec.json.encode(figures))
        except Exception as error:  # S3, the network or the credentials
            logger.warning("the count of requests could not be written", extra={"key": key, "reason": str(error)})
            self._count.add(count.begin / 1000, count.end / 1000, count.requests, count.errors)
        else:
            self._written_latencies, self._lost_written = latencies, lost

    def _count_unsampled(self) -> None:
        since, now, unsampled = self._counted_until, self._clock(), self._unsampled
        self._counted_until = now
        if unsampled > self._unsampled_counted:
            self._count.add(since, now, unsampled - self._unsampled_counted, 0)
            self._unsampled_counted = unsampled

    def _next_batch(self, there: int) -> _Batch:
        """Take records of one hour, oldest first, up to those pending when `_bytes_in` was `there`."""
        begin = end = self._records[0].time
        hour = int(begin) // 3600
        pieces: list[bytes] = []
        records = size = errors = 0
        pending, since, until = self._records, hour * 3600, (hour + 1) * 3600
        before = self._bytes_taken
        limit = min(2 * self._batch_bytes, there - before)
        while True:
            taken: list[_Pending] = []
            for _ in range(min(PIECE, len(pending))):
                if size >= limit or not since <= pending[0].time < until:
                    break
                record = pending.popleft()
                size += record.size
                taken.append(record)
            self._bytes_taken = before + size
            if not taken:
                return _Batch(hour, records, size, b"".join(pieces), begin, end, errors)
            pieces.append(self._lines(taken))
            records += len(taken)
            end = taken[-1].time
            errors += sum(record.status != 200 for record in taken)

    def _lines(self, records: list[_Pending]) -> bytes:
        lines: list[Sequence[bytes | msgspec.Raw]] = []
        second, text = -1, b""
        withholds, has_groups, kept, heads = self._withholds, bool(self._inputs.groups), self._inputs.kept, self._heads
        for record in records:
            moment = record.time
            if int(moment) != second:
                second = int(moment)
                text = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S', time.gmtime(second)).encode()
            milliseconds = int((moment - second) * 1000)
            if record.status != 200:
                lines.append((text, self._failed % (milliseconds, record.trace, record.status)))
                continue
            inputs: Sequence[bytes | msgspec.Raw] = record.inputs
            groups: tuple[bytes, ...] = ()
            if withholds:
                inputs, found = kept(inputs, record.rows)
                groups = (found,) if has_groups else ()
            if record.rows == 1:
                line = self._one.copy()
                line[_VALUES] = (*inputs, *groups, *record.outputs)
            else:
                line = self._many.copy()
                line[_VALUES] = (b"%d" % record.rows, *inputs, *groups, *record.outputs)
            line[_TIME], line[_HEAD], line[_ID], line[_TRACE] = text, heads[milliseconds], record.id, record.trace
            lines.append(line)
        content = b"".join(chain.from_iterable(lines))
        # The data of clients is copied as is, and may contain line breaks.
        if content.count(b"\n") != len(lines) or b"\r" in content:
            content = b"".join(_on_one_line(b"".join(line)) for line in lines)
        return content

    def _key(self, hour: int) -> str:
        self._objects += 1
        folder = time.strftime("%Y/%m/%d/%H", time.gmtime(hour * 3600))
        return f"inference/{self._predictor.name}/{folder}/{self._pod}-{self._objects}.jsonl"

    def _put(self, key: str, records: int, content: bytes) -> bool:
        """Write an object; return False if its records were lost."""
        pause = self._limits.first_pause
        for attempt in range(1, self._limits.attempts + 1):
            try:
                self._write(key, content)
            except Exception as error:  # S3, the network or the credentials
                self._metrics.log_failed()
                logger.warning(
                    "the inference log could not be written",
                    extra={"key": key, "records": records, "attempt": attempt, "reason": str(error)},
                )
                spread = random.uniform(0.5, 1.5)  # noqa: S311
                if attempt == self._limits.attempts or not self._pause(pause * spread):
                    break
                pause = min(pause * 2, self._limits.longest_pause)
            else:
                self._metrics.log_written(records)
                return True
        self._metrics.log_dropped(records, "write failed")
        logger.error("records of the inference log were lost", extra={"key": key, "records": records})
        return False

    def _pause(self, seconds: float) -> bool:
        """Wait before another attempt; return False if no time is left for one."""
        if not self._closing.wait(seconds):
            return True
        left = self._deadline - time.monotonic()
        time.sleep(max(0.0, min(self._limits.first_pause, left)))
        return left > 0


def _line(predictor: Predictor, logged: LoggedInputs, *, is_one: bool) -> list[bytes | msgspec.Raw]:
    """Return the parts of a line, some of which are filled in: joining parts takes half the time of formatting.

    They are the time, the milliseconds with what all lines say, the id, text, the trace, and then text and values
    in turn.
    """
    value = b"[\0]" if is_one else b"\0"
    inputs, outputs = (
        b",".join(msgspec.json.encode(name) + b":" + value for name in names)
        for names in (logged.tensors, [tensor.name for tensor in predictor.schema.outputs])
    )
    rows, groups = b"1" if is_one else b"\0", b',"groups":\0' if logged.groups else b""
    text = b'","rows":%b,"inputs":{%b}%b,"outputs":{%b}}\n' % (rows, inputs, groups, outputs)
    first, *others = text.split(b"\0")
    parts: list[bytes | msgspec.Raw] = [b"", b"", b"", b',"trace":"', b"", first]
    for other in others:
        parts += (b"", other)
    return parts


def _about(predictor: Predictor) -> bytes:
    """Return the keys that name the model and the bundle, as JSON without braces."""
    return msgspec.json.encode({"model": predictor.name, "bundle": predictor.digest})[1:-1]


def _about_records(logged: LoggedInputs, sample: float) -> bytes:
    """Return the keys that say what of a request is not logged, as JSON after others."""
    said: dict[str, float | tuple[str, ...]] = {}
    if sample < 1:
        said["sample"] = sample
    if logged.withheld:
        said["withheld"] = logged.withheld
    return b"," + msgspec.json.encode(said)[1:-1] if said else b""


def _literal(text: bytes) -> bytes:
    """Escape text for use in a format."""
    return text.replace(b"%", b"%%")


def _on_one_line(line: bytes) -> bytes:
    """Replace line breaks in JSON, which occur only as white space between values."""
    return line[:-1].replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"
