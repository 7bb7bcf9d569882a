"""The inference log: what was asked and what was answered, as JSON lines in the logs bucket.

One line a request:

    {"time":"2026-01-31T12:00:00.123Z","model":"…","bundle":"sha256:…","id":"…","trace":"…","rows":1,
     "inputs":{"features":[[59.0,2.0]]},"outputs":{"variable":[[152.1]]}}

`inputs` and `outputs` hold a list of rows for each tensor. A client joins labels by `id`, which it sent or got back.
A request that ended in an error of the server has its HTTP status instead, and no rows: `"rows":0,"status":500`.
Requests that were refused are no lines: they say nothing of the model.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from pipelines.serving.metrics import Metrics
from pipelines.serving.model import Answer, Model

logger = logging.getLogger(__name__)

Write = Callable[[str, bytes], None]
"""Puts an object: key and content. Raises anything if it could not."""


@dataclass(frozen=True)
class Limits:
    """How much is held back, and for how long.

    Attributes:
        seconds: between writes.
        batch_bytes: of memory that waiting records may take before they are written, however recent; an object holds at
            most about twice as many.
        buffer_bytes: of memory that they may take at all; further records are dropped, and counted.
        attempts: to write one object, before its records are dropped and counted.
        first_pause, longest_pause: seconds between attempts; they double, and vary by half at random.
        closing_seconds: to write what is left when the server stops.
    """

    seconds: float = 2.0
    batch_bytes: int = 1 << 20
    buffer_bytes: int = 16 << 20
    attempts: int = 8
    first_pause: float = 0.25
    longest_pause: float = 30.0
    closing_seconds: float = 10.0


OVERHEAD = 500
"""Bytes that a waiting record takes besides the request's body, roughly."""

PIECE = 100
"""Lines that are made at a time."""


class _Waiting(msgspec.Struct, gc=False):
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


class InferenceLog:
    """Takes records from the event loop and writes them from a thread of its own. `record` never waits.

    Args:
        write: puts an object into the logs bucket.
        model: that is served.
        pod: names the process in the objects' keys; no two processes may share it.
        metrics: counts what was written and what was lost.
        limits: of memory and time.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        write: Write,
        *,
        model: Model,
        pod: str,
        metrics: Metrics,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._write = write
        self._model = model
        self._one = _line(model, b"1", b"[%b]")
        self._many = _line(model, b"%d", b"%b")
        self._failed = b'.%%03dZ",%b,"trace":"%%b","rows":0,"status":%%d}\n' % _about(model)
        self._pod = pod
        self._metrics = metrics
        self._limits = limits or Limits()
        self._buffer_bytes = self._limits.buffer_bytes
        self._batch_bytes = self._limits.batch_bytes
        self._clock = clock
        self._records: deque[_Waiting] = deque()
        # Counters, each written by one thread only, so that none needs a lock. What is taken is out when it is written.
        self._bytes_in = 0
        self._bytes_taken = 0
        self._bytes_out = 0
        self._objects = 0
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="inference-log", daemon=True)

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def record(self, answer: Answer, trace: bytes) -> None:
        """Add a record; drop it, and count that, if too much is waiting already.

        Args:
            answer: what was asked and answered.
            trace: 32 hexadecimal digits.
        """
        # The thread makes the line: in bulk that is cheaper than one at a time, between requests.
        size = OVERHEAD + answer.size
        self._add(_Waiting(self._clock(), trace, answer.id, answer.rows, size, answer.inputs, answer.outputs))

    def record_failure(self, status: int, trace: bytes) -> None:
        """Add the record of a request that ended in an error of the server; see `record`.

        Args:
            status: of the HTTP response, 500 or above.
            trace: 32 hexadecimal digits.
        """
        self._add(_Waiting(self._clock(), trace, b"", 0, OVERHEAD, [], [], status))

    def _add(self, record: _Waiting) -> None:
        if self._bytes_in - self._bytes_out > self._buffer_bytes:
            self._metrics.log_dropped(1, "buffer full")
            return
        self._records.append(record)
        self._bytes_in += record.size
        if self._bytes_in - self._bytes_taken > self._batch_bytes and not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what is left, for at most `closing_seconds`; what can not be written by then is dropped and counted."""
        self._deadline = time.monotonic() + self._limits.closing_seconds
        self._closing.set()
        self._wake.set()
        self._thread.join(self._limits.closing_seconds + 5)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._limits.seconds)
            self._wake.clear()
            self._write_waiting()
        self._write_waiting()

    def _write_waiting(self) -> None:
        # Not what comes meanwhile: under load that would never end, and each few records would be an object.
        there = self._bytes_in
        while self._records and self._bytes_taken < there:
            batch = self._next_batch(there)
            self._put(self._key(batch.hour), batch.records, batch.content)
            self._bytes_out += batch.size

    def _next_batch(self, there: int) -> _Batch:
        """Records of one hour, oldest first, as far as they were there when `_bytes_in` was `there`."""
        hour = int(self._records[0].time) // 3600
        pieces: list[bytes] = []
        records = size = 0
        while True:
            taken: list[_Waiting] = []
            while (
                self._records
                and len(taken) < PIECE
                and self._bytes_taken < there
                and size < 2 * self._batch_bytes
                and int(self._records[0].time) // 3600 == hour
            ):
                record = self._records.popleft()
                size += record.size
                self._bytes_taken += record.size
                taken.append(record)
            if not taken:
                return _Batch(hour, records, size, b"".join(pieces))
            pieces.append(self._lines(taken))
            records += len(taken)

    def _lines(self, records: list[_Waiting]) -> bytes:
        lines: list[bytes] = []
        second, text, one, many = -1, b"", b"", b""
        for record in records:
            if int(record.time) != second:
                second = int(record.time)
                text = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S', time.gmtime(second)).encode()
                one, many = text + self._one, text + self._many
            milliseconds = int((record.time - second) * 1000)
            if record.status != 200:
                lines.append(text + self._failed % (milliseconds, record.trace, record.status))
                continue
            form, rows = (one, ()) if record.rows == 1 else (many, (record.rows,))
            lines.append(form % (milliseconds, record.id, record.trace, *rows, *record.inputs, *record.outputs))
        content = b"".join(lines)
        # What clients sent is taken over as it is, and they may have broken it into lines.
        if content.count(b"\n") != len(lines) or b"\r" in content:
            content = b"".join(_on_one_line(line) for line in lines)
        return content

    def _key(self, hour: int) -> str:
        self._objects += 1
        folder = time.strftime("%Y/%m/%d/%H", time.gmtime(hour * 3600))
        return f"inference/{self._model.name}/{folder}/{self._pod}-{self._objects}.jsonl"

    def _put(self, key: str, records: int, content: bytes) -> None:
        pause = self._limits.first_pause
        for attempt in range(1, self._limits.attempts + 1):
            try:
                self._write(key, content)
            except Exception as error:  # whatever S3, the network or the credentials come up with
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
                return
        self._metrics.log_dropped(records, "write failed")
        logger.error("records of the inference log were lost", extra={"key": key, "records": records})

    def _pause(self, seconds: float) -> bool:
        """Wait before another attempt; False if there is no time left for one."""
        if not self._closing.wait(seconds):
            return True
        left = self._deadline - time.monotonic()
        time.sleep(max(0.0, min(self._limits.first_pause, left)))
        return left > 0


def _line(model: Model, rows: bytes, value: bytes) -> bytes:
    """A line from its milliseconds on: a format for the id, the trace, perhaps the rows, and every tensor."""
    inputs, outputs = (
        b",".join(_literal(msgspec.json.encode(tensor.name)) + b":" + value for tensor in tensors)
        for tensors in (model.schema.inputs, model.schema.outputs)
    )
    line = b'.%%03dZ",%b,"id":%%b,"trace":"%%b","rows":%b,"inputs":{%b},"outputs":{%b}}\n'
    return line % (_about(model), rows, inputs, outputs)


def _about(model: Model) -> bytes:
    """What every line says of the model, as part of a format."""
    return _literal(msgspec.json.encode({"model": model.name, "bundle": model.digest})[1:-1])


def _literal(text: bytes) -> bytes:
    """As part of a format."""
    return text.replace(b"%", b"%%")


def _on_one_line(line: bytes) -> bytes:
    """Line breaks outside of text are white space, and inside of text JSON has none."""
    return line[:-1].replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"
