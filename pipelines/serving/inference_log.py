"""The inference log: what was asked and what was answered, as JSON lines in the logs bucket.

One line a request:

    {"time":"2026-01-31T12:00:00.123Z","model":"…","bundle":"sha256:…","id":"…","trace":"…","rows":1,
     "inputs":{"features":[[59.0,2.0]]},"outputs":{"variable":[[152.1]]}}

`inputs` and `outputs` hold a list of rows for each tensor. A client joins labels by `id`, which it sent or got back.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
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
        batch_bytes: one object holds about as many; so many waiting are written at once.
        buffer_bytes: may wait; further records are dropped, and counted.
        attempts: to write one object, before its records are dropped and counted.
        first_pause, longest_pause: seconds between attempts; they double, and vary by half at random.
        closing_seconds: to write what is left when the server stops.
    """

    seconds: float = 2.0
    batch_bytes: int = 4 << 20
    buffer_bytes: int = 16 << 20
    attempts: int = 8
    first_pause: float = 0.25
    longest_pause: float = 30.0
    closing_seconds: float = 10.0


PIECE = 50
"""Lines that are made in one go: about a tenth of a millisecond."""


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
        self._model = model.name
        self._inputs = [_name(tensor.name) for tensor in model.schema.inputs]
        self._outputs = [_name(tensor.name) for tensor in model.schema.outputs]
        self._pod = pod
        self._metrics = metrics
        self._limits = limits or Limits()
        self._clock = clock
        self._about = f'Z","model":"{model.name}","bundle":"{model.digest}","id":'.encode()
        self._records: deque[tuple[float, bytes, Answer]] = deque()
        # Two counters, each written by one thread only, so that neither needs a lock.
        self._bytes_in = 0
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
        waiting = self._bytes_in - self._bytes_out
        if waiting > self._limits.buffer_bytes:
            self._metrics.log_dropped(1, "buffer full")
            return
        # The thread makes the line: in bulk that is cheaper than one at a time, between requests.
        self._records.append((self._clock(), trace, answer))
        self._bytes_in += len(answer.body) + answer.size
        if waiting > self._limits.batch_bytes and not self._wake.is_set():
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
        while self._records:
            batch = self._next_batch()
            self._put(self._key(batch.hour), batch.records, batch.content)
            self._bytes_out += batch.size

    def _next_batch(self) -> _Batch:
        """Records of one hour, oldest first, up to the size of a batch."""
        hour = int(self._records[0][0]) // 3600
        lines: list[bytes] = []
        size = 0
        second, text = -1, b""
        while self._records and size < self._limits.batch_bytes and int(self._records[0][0]) // 3600 == hour:
            when, trace, answer = self._records.popleft()
            if int(when) != second:
                second = int(when)
                text = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S', time.gmtime(second)).encode()
            lines.append(
                b'%b.%03d%b%b,"trace":"%b","rows":%d,"inputs":{%b},"outputs":{%b}}\n'
                % (
                    text,
                    int((when - second) * 1000),
                    self._about,
                    answer.id,
                    trace,
                    answer.rows,
                    _tensors(self._inputs, answer.inputs, answer.rows),
                    _tensors(self._outputs, answer.outputs, answer.rows),
                )
            )
            size += len(answer.body) + answer.size
            if len(lines) % PIECE == 0:
                time.sleep(0)  # lets the event loop have the interpreter: it answers requests meanwhile
        return _Batch(hour, len(lines), size, b"".join(lines))

    def _key(self, hour: int) -> str:
        self._objects += 1
        folder = time.strftime("%Y/%m/%d/%H", time.gmtime(hour * 3600))
        return f"inference/{self._model}/{folder}/{self._pod}-{self._objects}.jsonl"

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


def _name(tensor: str) -> bytes:
    return msgspec.json.encode(tensor) + b":"


def _tensors(names: Sequence[bytes], values: Sequence[bytes | msgspec.Raw], rows: int) -> bytes:
    """Tensor → list of rows, without the braces."""
    form = b"%b[%b]" if rows == 1 else b"%b%b"
    return b",".join([form % (name, _on_one_line(value)) for name, value in zip(names, values, strict=True)])


def _on_one_line(json: bytes | msgspec.Raw) -> bytes:
    """JSON without line breaks. Those outside of text are white space, and inside of text JSON has none."""
    line = bytes(json)
    return line.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in line or b"\r" in line else line
