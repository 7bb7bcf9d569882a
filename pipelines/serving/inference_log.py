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

The server only collects records. Another process makes the lines and writes them; see `pipelines.serving.log_writer`.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from pipelines.declarations.inference_logging import LogPolicy, sample_hash, sample_limit
from pipelines.serving.golden import CHECK_REQUEST, golden_inputs
from pipelines.serving.log_messages import (
    FIELDS,
    AttemptFailed,
    DrainLog,
    Limits,
    PutDone,
    PutObject,
    RecordsLost,
    RecordsWritten,
    Report,
    StartLog,
    batch_of,
    frame,
    read_report,
    take_contents,
)
from pipelines.serving.log_plan import log_plan
from pipelines.serving.log_writer_process import LogWriter, StartLogWriter
from pipelines.serving.predictor import InferenceResult, Predictor
from pipelines.serving.request_counts import PendingCount, RequestCount, key_of
from pipelines.serving.request_metrics import RequestMetrics

logger = logging.getLogger(__name__)

OVERHEAD = 500
"""Approximate bytes of a pending record besides the request body."""

HAND_OVER_BYTES = 128 << 10
"""Memory of records that are handed over at a time, about 200. They are still in the processor's cache."""

TICK_SECONDS = 0.2
"""Longest time that a record waits to be handed over."""

GRACE_SECONDS = 4.0
"""Seconds after the limit of closing in which a writer may still report what it did."""

_CHECK_ID = b'"%b"' % CHECK_REQUEST.encode()


class _Outgoing(NamedTuple):
    """Message to the writer.

    Attributes:
        content: the message.
        records, size: number of records in it and their memory, as the limits count it.
    """

    content: memoryview
    records: int = 0
    size: int = 0


class _PendingPut(NamedTuple):
    """Count that the writer is asked to write.

    Attributes:
        key, content: the object.
        counted: what it counts.
        latencies, lost: totals of the process that it accounts for.
    """

    key: str
    content: bytes
    counted: RequestCount
    latencies: list[int]
    lost: int


class InferenceLog:
    """Takes records from the event loop and hands them over to a writer. `record` never blocks.

    A thread starts the writer, again if it ends, and reads its reports.

    Args:
        start: starts a writer.
        predictor: the predictor whose answers are logged.
        pod: names the process in the keys of objects; must be unique.
        metrics: counts written and lost records.
        limits: memory and time limits.
        policy: what to write, and what to leave out.
        clock: returns seconds since the epoch.
    """

    def __init__(
        self,
        start: StartLogWriter,
        *,
        predictor: Predictor,
        pod: str,
        metrics: RequestMetrics,
        limits: Limits | None = None,
        policy: LogPolicy | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._start_writer = start
        self._predictor = predictor
        policy = policy or LogPolicy()
        self._sample = policy.sample
        self._sample_limit = sample_limit(policy.sample)
        names = [tensor.name for tensor in predictor.schema.inputs]
        self._golden = golden_inputs(predictor.golden, names) if predictor.golden is not None else []
        self._plan = log_plan(predictor.name, predictor.digest, predictor.schema, policy)
        self._no_values = (b"",) * (len(names) + len(predictor.schema.outputs))
        self._pod = pod
        self._metrics = metrics
        self._limits = limits or Limits()
        self._buffer_bytes = self._limits.buffer_bytes
        self._hand_over_bytes = min(HAND_OVER_BYTES, self._limits.batch_bytes)
        self._clock = clock
        # Values of records, one after another. Calls that add or take some are not interrupted by another thread.
        self._pending: list[Any] = []
        self._bytes_in = 0  # written by the event loop only
        # From here to `_sent`: held by `_handing`.
        self._handing = threading.Lock()
        self._channel: socket.socket | None = None
        self._outgoing: deque[_Outgoing] = deque()
        self._sent = 0  # bytes of the first of `_outgoing`
        self._bytes_handed = 0
        self._bytes_out = 0  # written or lost
        self._in_writer = self._bytes_in_writer = 0
        self._notice()
        self._dropped_when_full = 0
        self._failed_to_write = 0
        self._lost_written = 0
        self._unsampled = 0
        self._unsampled_counted = 0
        self._counted_until = clock() if self._sample < 1 else 0.0
        self._counts = 0
        self._count = PendingCount(predictor.digest)
        self._count_at = time.monotonic() + self._limits.seconds
        self._putting: _PendingPut | None = None
        self._written_latencies = metrics.latencies()
        self._writer: LogWriter | None = None
        self._writers = 0
        self._restart_at = 0.0
        self._restart_pause = self._limits.first_pause
        self._received = bytearray()
        self._bell, self._ring = socket.socketpair()
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="inference-log", daemon=True)

    @property
    def withholds(self) -> bool:
        """True if requests have values that must not be written."""
        return any(tensor.withheld for tensor in self._plan.inputs)

    def start(self) -> None:
        """Start the background thread, which starts the writer."""
        self._thread.start()

    def record(self, answer: InferenceResult, trace: bytes) -> None:
        """Add a record; drop and count it if the buffer is full. Of a sample, the others are only counted.

        Args:
            answer: the request and its answer.
            trace: id of the trace, 32 hexadecimal digits.
        """
        name = answer.id
        if name == _CHECK_ID and not self._is_golden(answer):
            name = b'"%b"' % trace
        if self._sample < 1 and sample_hash(name, self._predictor.sampling_key) >= self._sample_limit:
            self._unsampled += 1
            return
        if self._bytes_in <= self._bytes_noticed or self._has_room():
            self._pending.extend((self._clock(), trace, name, answer.rows, answer.values))
            self._bytes_in += OVERHEAD + answer.size

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
            self._pending.extend((self._clock(), trace, b"%d" % status, 0, self._no_values))
            self._bytes_in += OVERHEAD

    def _has_room(self) -> bool:
        """Hand over pending records if they are many. Return False, and count a loss, if the buffer is full."""
        if self._bytes_in - self._bytes_handed > self._hand_over_bytes and self._handing.acquire(blocking=False):
            # Otherwise the thread holds the lock, for as long as it does the same.
            try:
                self._hand_over()
            finally:
                self._handing.release()
        if self._bytes_in - self._bytes_out <= self._buffer_bytes:
            return True
        self._metrics.log_dropped(1, "buffer full")
        self._dropped_when_full += 1
        return False

    def _notice(self) -> None:
        """Set the number of bytes in from which on `record` calls `_has_room`."""
        self._bytes_noticed = min(self._bytes_handed + self._hand_over_bytes, self._bytes_out + self._buffer_bytes)

    def _hand_over(self) -> None:
        """Send pending records as far as the writer takes them; the others wait. Needs the lock."""
        taken = self._pending[:]
        if taken:
            del self._pending[: len(taken)]
            # The last record may be counted with the next batch.
            size = self._bytes_in - self._bytes_handed
            self._bytes_handed += size
            self._notice()
            content = memoryview(frame(batch_of(taken, size)))
            self._outgoing.append(_Outgoing(content, len(taken) // FIELDS, size))
        self._send()

    def _send(self) -> None:
        """Send messages as far as the writer takes them. Needs the lock."""
        while self._outgoing and self._channel is not None:
            message = self._outgoing[0]
            try:
                self._sent += self._channel.send(message.content[self._sent :])
            except OSError:  # it does not read now, or has ended, which the thread notices
                return
            if self._sent == len(message.content):
                self._outgoing.popleft()
                self._sent = 0
                self._in_writer += message.records
                self._bytes_in_writer += message.size

    def close(self) -> None:
        """Write pending records for at most `closing_seconds`; drop and count the rest. End the writer."""
        if not self._closing.is_set():
            self._deadline = time.monotonic() + self._limits.closing_seconds
            self._ring.send(b"1")  # first: once it is closing, the thread may end at any time
            self._closing.set()
        self._thread.join(self._limits.closing_seconds + GRACE_SECONDS + 2)

    def _run(self) -> None:
        is_draining = is_counted = False
        while True:
            if self._writer is None and time.monotonic() >= self._restart_at:
                self._connect(is_draining=is_draining)
            if self._closing.is_set() and not is_draining:
                is_draining = True
                self._drain()
            with self._handing:
                if is_draining:  # what arrives after the last hand-over is lost
                    self._send()
                else:
                    self._hand_over()
                left = len(self._outgoing) + self._in_writer
            if is_draining and not left and self._putting is None:
                if is_counted:
                    break
                is_counted = True
                self._write_count(is_last=True)
                continue
            if time.monotonic() > self._deadline + GRACE_SECONDS:
                break
            self._wait()
            if not is_draining and time.monotonic() >= self._count_at:
                self._count_at = time.monotonic() + self._limits.seconds
                self._write_count()
        self._end()

    def _wait(self) -> None:
        """Wait until there is something to do; read the reports of the writer."""
        poll = select.poll()
        poll.register(self._bell, select.POLLIN if not self._closing.is_set() else 0)
        channel = self._channel
        if channel is not None:
            poll.register(channel, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
        ready = {number for number, _ in poll.poll(TICK_SECONDS * 1000)}
        if channel is not None and channel.fileno() in ready and not self._receive(channel):
            self._writer_ended()

    def _receive(self, channel: socket.socket) -> bool:
        """Read the reports of the writer; return False if it has ended."""
        while True:
            try:
                piece = channel.recv(1 << 16)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not piece:
                return False
            self._received += piece
            try:
                for content in take_contents(self._received):
                    self._take(read_report(content))
            except (ValueError, msgspec.MsgspecError):
                logger.exception("the writer of the inference log sent something else than a report")
                return False

    def _take(self, report: Report) -> None:
        if isinstance(report, RecordsWritten):
            self._metrics.log_written(report.records)
            self._count.add(report.begin, report.end, report.records, report.errors)
            self._settle(report.records, report.size)
        elif isinstance(report, RecordsLost):
            self._lose(report.records)
            self._settle(report.records, report.size)
        elif isinstance(report, AttemptFailed):
            self._metrics.log_failed()
        elif isinstance(report, PutDone):
            self._put_done(report.reason)

    def _settle(self, records: int, size: int) -> None:
        with self._handing:
            self._in_writer -= records
            self._bytes_in_writer -= size
            self._bytes_out += size
            self._notice()

    def _lose(self, records: int) -> None:
        self._failed_to_write += records
        self._metrics.log_dropped(records, "write failed")

    def _connect(self, *, is_draining: bool) -> None:
        """Start a writer. Later ones have other names, so that no object is replaced."""
        try:
            writer = self._start_writer()
        except OSError as error:
            self._restart_later()
            logger.error("the writer of the inference log cannot be started", extra={"reason": str(error)})
            return
        self._writer, self._writers = writer, self._writers + 1
        pod = self._pod if self._writers == 1 else f"{self._pod}.{self._writers}"
        first = [frame(StartLog(self._plan, self._limits, pod))]
        if self._putting is not None:
            first.append(frame(PutObject(self._putting.key, self._putting.content)))
        with self._handing:
            self._outgoing.extendleft(_Outgoing(memoryview(content)) for content in reversed(first))
            if is_draining:
                self._outgoing.append(self._draining())
            writer.channel.setblocking(False)
            self._channel = writer.channel

    def _writer_ended(self) -> None:
        """Count what the writer had not written as lost, and start another one after a pause."""
        with self._handing:
            lost, size = self._in_writer, self._bytes_in_writer
            self._in_writer = self._bytes_in_writer = 0
            self._bytes_out += size
            self._channel = None
            self._sent = 0  # a message that was sent in part is sent again
            # The next writer gets those without records anew.
            self._outgoing = deque(message for message in self._outgoing if message.records)
            self._notice()
        self._received.clear()
        self._lose(lost)
        self._stop_writer(0)
        self._restart_later()
        logger.error("the writer of the inference log has ended", extra={"records": lost})

    def _restart_later(self) -> None:
        self._restart_at = time.monotonic() + self._restart_pause
        self._restart_pause = min(2 * self._restart_pause, self._limits.longest_pause)

    def _stop_writer(self, seconds: float) -> None:
        if self._writer is not None:
            self._writer.channel.close()
            self._writer.stop(seconds)
            self._writer = None

    def _draining(self) -> _Outgoing:
        return _Outgoing(memoryview(frame(DrainLog(max(0.0, self._deadline - time.monotonic())))))

    def _drain(self) -> None:
        with self._handing:
            self._hand_over()
            self._outgoing.append(self._draining())

    def _end(self) -> None:
        """Count what was not written as lost, and end the writer."""
        with self._handing:
            waiting = sum(message.records for message in self._outgoing) + len(self._pending) // FIELDS
            lost = self._in_writer + waiting
            self._channel = None
        if lost:
            self._lose(lost)
            logger.error("records of the inference log were lost", extra={"records": lost})
        self._stop_writer(1.0)
        self._bell.close()
        self._ring.close()

    def _write_count(self, *, is_last: bool = False) -> None:
        if self._sample < 1:
            self._count_unsampled()
        lost = self._dropped_when_full + self._failed_to_write
        if lost > self._lost_written:
            now = self._clock()
            self._count.add(now, now, 0, 0)
        if self._putting is not None or time.monotonic() > self._deadline:
            return
        count = self._count.take(is_last=is_last)
        if count is None:
            return
        self._counts += 1
        key = key_of(count, self._predictor.name, self._pod, self._counts)
        latencies = self._metrics.latencies()
        more = [now - before for now, before in zip(latencies, self._written_latencies, strict=True)]
        content = msgspec.json.encode({**count._asdict(), "latencies": more, "lost": lost - self._lost_written})
        self._putting = _PendingPut(key, content, count, latencies, lost)
        with self._handing:
            self._outgoing.append(_Outgoing(memoryview(frame(PutObject(key, content)))))
            self._send()

    def _put_done(self, reason: str) -> None:
        put, self._putting = self._putting, None
        if put is None:
            return
        if not reason:
            self._written_latencies, self._lost_written = put.latencies, put.lost
            return
        logger.warning("the count of requests could not be written", extra={"key": put.key, "reason": reason})
        count = put.counted
        self._count.add(count.begin / 1000, count.end / 1000, count.requests, count.errors)

    def _count_unsampled(self) -> None:
        since, now, unsampled = self._counted_until, self._clock(), self._unsampled
        self._counted_until = now
        if unsampled > self._unsampled_counted:
            self._count.add(since, now, unsampled - self._unsampled_counted, 0)
            self._unsampled_counted = unsampled
