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
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.serving.metrics import Metrics

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


class InferenceLog:
    """Takes records from the event loop and writes them from a thread of its own. `record` never waits.

    Args:
        write: puts an object into the logs bucket.
        model, bundle: that are served.
        pod: names the process in the objects' keys; no two processes may share it.
        metrics: counts what was written and what was lost.
        limits: of memory and time.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        write: Write,
        *,
        model: str,
        bundle: str,
        pod: str,
        metrics: Metrics,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._write = write
        self._model = model
        self._pod = pod
        self._metrics = metrics
        self._limits = limits or Limits()
        self._clock = clock
        self._about = f'Z","model":"{model}","bundle":"{bundle}","id":'.encode()
        self._lines: deque[tuple[int, bytes]] = deque()
        # Two counters, each written by one thread only, so that neither needs a lock.
        self._bytes_in = 0
        self._bytes_out = 0
        self._objects = 0
        self._second = -1
        self._second_text = b""
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="inference-log", daemon=True)

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def record(self, request_id: bytes, trace: bytes, rows: int, inputs: bytes, outputs: bytes) -> None:
        """Add a record; drop it, and count that, if too much is waiting already.

        Args:
            request_id: as JSON.
            trace: 32 hexadecimal digits.
            rows: how many the request had.
            inputs, outputs: tensor → list of rows, as JSON on one line.
        """
        waiting = self._bytes_in - self._bytes_out
        if waiting > self._limits.buffer_bytes:
            self._metrics.log_dropped(1, "buffer full")
            return
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S', time.gmtime(second)).encode()
        line = b'%b.%03d%b%b,"trace":"%b","rows":%d,"inputs":%b,"outputs":%b}\n' % (
            self._second_text,
            int((now - second) * 1000),
            self._about,
            request_id,
            trace,
            rows,
            inputs,
            outputs,
        )
        self._lines.append((second, line))
        self._bytes_in += len(line)
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
        while self._lines:
            hour, records, content = self._next_batch()
            self._put(self._key(hour), records, content)
            self._bytes_out += len(content)

    def _next_batch(self) -> tuple[int, int, bytes]:
        """Records of one hour, oldest first, up to the size of a batch: their hour, how many, and their lines."""
        hour = self._lines[0][0] // 3600
        lines: list[bytes] = []
        size = 0
        while self._lines and size < self._limits.batch_bytes and self._lines[0][0] // 3600 == hour:
            line = self._lines.popleft()[1]
            lines.append(line)
            size += len(line)
        return hour, len(lines), b"".join(lines)

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
