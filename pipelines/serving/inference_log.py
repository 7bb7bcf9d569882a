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
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate
from typing import Any

import msgspec
import numpy as np

from pipelines.declarations.inference_logging import LogPolicy, sample_hash, sample_limit
from pipelines.serving.golden import CHECK_REQUEST, golden_inputs
from pipelines.serving.log_lines import ROWS, SIZE, TIME, LogLines
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

PIECE = 400
"""Number of lines made at a time. A request waits for one step of that, less than 0.1 ms for records of one row.

More at a time need less code for each line, until their records leave the caches of the processor.
"""

_CHECK_ID = b'"%b"' % CHECK_REQUEST.encode()


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
        self._sample_limit = sample_limit(policy.sample)
        names = [tensor.name for tensor in predictor.schema.inputs]
        self._golden = golden_inputs(predictor.golden, names) if predictor.golden is not None else []
        inputs = LoggedInputs(predictor.schema, policy)
        self._withholds = bool(inputs.withheld)
        self._lines = LogLines(predictor, inputs, policy.sample)
        self._pod = pod
        self._metrics = metrics
        self._limits = limits or Limits()
        self._buffer_bytes = self._limits.buffer_bytes
        self._batch_bytes = self._limits.batch_bytes
        self._clock = clock
        # Values of records, one after another. Calls that add or take some are not interrupted by another thread.
        self._pending: list[Any] = []
        # Each counter is written by one thread only, so none needs a lock. Bytes are taken first, and out once written.
        self._bytes_in = 0
        self._bytes_taken = 0
        self._bytes_out = 0
        self._notice()
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
        # The thread makes the lines: in bulk that is cheaper than one at a time between requests.
        name = answer.id
        if name == _CHECK_ID and not self._is_golden(answer):
            name = b'"%b"' % trace
        if self._sample < 1 and sample_hash(name, self._predictor.sampling_key) >= self._sample_limit:
            self._unsampled += 1
            return
        if self._bytes_in <= self._bytes_noticed or self._has_room():
            size = OVERHEAD + answer.size
            self._pending.extend((self._clock(), trace, name, answer.rows, size, *answer.values))
            self._bytes_in += size

    def _is_golden(self, answer: InferenceResult) -> bool:
        """Return True if a request is a golden one, not only by its id."""
        inputs = answer.values[: len(self._predictor.schema.inputs)]
        return list(map(msgspec.json.decode, inputs)) in self._golden

    def record_failure(self, status: int, trace: bytes) -> None:
        """Add the record of a request that ended in a server error; see `record`.

        Args:
            status: HTTP status, 500 or above.
            trace: id of the trace, 32 hexadecimal digits.
        """
        if self._bytes_in <= self._bytes_noticed or self._has_room():
            self._pending.extend((self._clock(), trace, b"%d" % status, 0, OVERHEAD, *self._lines.no_values))
            self._bytes_in += OVERHEAD

    def _has_room(self) -> bool:
        """Wake the thread if a batch is pending. Return False, and count a loss, if the buffer is full."""
        if self._bytes_in - self._bytes_taken > self._batch_bytes and not self._wake.is_set():
            self._wake.set()
        if self._bytes_in - self._bytes_out <= self._buffer_bytes:
            return True
        self._metrics.log_dropped(1, "buffer full")
        self._dropped_when_full += 1
        return False

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
        taken = self._pending[:]
        del self._pending[: len(taken)]
        fields = self._lines.fields
        self._bytes_taken += sum(taken[SIZE::fields])
        self._notice()
        while taken:
            times, sizes = taken[TIME::fields], taken[SIZE::fields]
            count = _next_object(times, sizes, 2 * self._batch_bytes)
            records = taken[: count * fields]
            del taken[: count * fields]
            errors = records[ROWS::fields].count(0)
            # One buffer: the allocator would give back the memory of pieces, and each page of the next ones is a fault.
            content = BytesIO()
            for at in range(0, count * fields, PIECE * fields):
                content.write(self._lines.make(records[at : at + PIECE * fields]))
            del records
            if self._put(self._key(int(times[0]) // 3600), count, content.getvalue()):
                self._count.add(times[0], times[count - 1], count, errors)
            else:
                self._failed_to_write += count
            self._bytes_out += sum(sizes[:count])
            self._notice()

    def _notice(self) -> None:
        """Set the number of bytes in from which on `record` calls `_has_room`."""
        self._bytes_noticed = min(self._bytes_taken + self._batch_bytes, self._bytes_out + self._buffer_bytes)

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


def _next_object(times: Sequence[float], sizes: Sequence[int], limit: int) -> int:
    """Return how many records go into the next object: those of one hour, oldest first, up to a limit.

    Args:
        times: seconds since the epoch of each record.
        sizes: memory of each record, in bytes.
        limit: memory of records that is enough for an object, in bytes.
    """
    count = min(len(sizes), bisect_left(list(accumulate(sizes)), limit) + 1)
    hours = np.fromiter(times, np.float64, len(times))[:count] // 3600
    others = np.flatnonzero(hours != hours[0])
    return int(others[0]) if len(others) else count
