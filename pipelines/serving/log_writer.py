"""Writer of the inference log: a process that makes lines of records and puts them into the logs bucket.

`python -m pipelines.serving.log_writer --bucket BUCKET`: the server starts it, and hands over records by its standard
input, a socket; see `pipelines.serving.log_messages`. It ends when the server closes the socket, or dies.

It imports little: no NumPy, no pydantic and no model, so it takes a third of the server's memory.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pipelines.serving.log_lines import LogLines
from pipelines.serving.log_messages import (
    AttemptFailed,
    DrainLog,
    PutDone,
    PutObject,
    RecordBatch,
    Records,
    RecordsLost,
    RecordsWritten,
    Report,
    StartLog,
    contents,
    frame,
    read_request,
    records_of,
)

logger = logging.getLogger(__name__)

Write = Callable[[str, bytes], None]
"""Puts an object: key and content. Raises any exception on failure."""

PIECE = 100
"""Number of lines made at a time: much fewer cost more for each, and more leave the processor's cache."""


def serve_log(channel: socket.socket, write: Write) -> None:
    """Write what an inference log hands over, until it closes the channel. What it left is written within limits.

    Args:
        channel: socket connected to the log.
        write: puts an object into the logs bucket.
    """
    with channel, channel.makefile("rb") as stream:
        received = map(read_request, contents(stream))
        start = next(received, None)
        if not isinstance(start, StartLog):
            return
        writer = _Writer(start, write, channel)
        thread = threading.Thread(target=writer.run_until_end, name="inference-log-writer", daemon=True)
        thread.start()
        # This thread only receives, so that the server never waits while an object is written.
        for message in received:
            writer.take(message)
        writer.drain(start.limits.closing_seconds, is_end=True)
        thread.join(start.limits.closing_seconds + 5)


@dataclass
class _Object:
    """Lines for one object.

    Attributes:
        hour: hours since the epoch.
        size: memory of its records, as the limits count it.
    """

    hour: int
    begin: float
    end: float = 0.0
    records: int = 0
    errors: int = 0
    size: int = 0
    pieces: list[bytes] = field(default_factory=list)


class _Writer:
    """Takes messages from one thread, and writes in another.

    Args:
        start: what to log, and how.
        write: puts an object into the logs bucket.
        channel: socket for reports.
    """

    def __init__(self, start: StartLog, write: Write, channel: socket.socket) -> None:
        self._write = write
        self._channel = channel
        self._limits = start.limits
        self._lines = LogLines(start.plan)
        self._model = start.plan.model
        self._pod = start.pod
        self._objects = 0
        # A record has waited in the server before; see `TICK_SECONDS`.
        self._pause_seconds = max(0.9 * start.limits.seconds, 0.001)
        self._waiting: deque[RecordBatch] = deque()
        self._puts: deque[PutObject] = deque()
        # Each counter is written by one thread only, so none needs a lock.
        self._bytes_in = 0
        self._bytes_taken = 0
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._is_end = False

    def take(self, message: object) -> None:
        """Take a message of the log."""
        if isinstance(message, RecordBatch):
            self._waiting.append(message)
            self._bytes_in += message.size
            if self._bytes_in - self._bytes_taken > self._limits.batch_bytes:
                self._wake.set()
        elif isinstance(message, PutObject):
            self._puts.append(message)
            self._wake.set()
        elif isinstance(message, DrainLog):
            self.drain(message.seconds)

    def drain(self, seconds: float, *, is_end: bool = False) -> None:
        """Write all records now, within some seconds, and end afterwards if nothing can follow."""
        self._deadline = min(self._deadline, time.monotonic() + seconds)
        self._is_end = is_end
        self._closing.set()
        self._wake.set()

    def run_until_end(self) -> None:
        """Write records now and then, until the end. Close the channel if that fails, so that the log notices."""
        try:
            self._run()
        except BaseException:
            with contextlib.suppress(OSError):
                self._channel.shutdown(socket.SHUT_RDWR)
            raise

    def _run(self) -> None:
        while True:
            self._wake.wait(self._pause_seconds)
            self._wake.clear()
            is_end = self._is_end
            self._write_waiting()
            while self._puts:
                self._put_once(self._puts.popleft())
            if is_end:
                return

    def _write_waiting(self) -> None:
        found: _Object | None = None
        # Batches that arrive from now on wait for the next write; otherwise this would never end under load.
        for _ in range(len(self._waiting)):
            batch = self._waiting.popleft()
            self._bytes_taken += batch.size
            try:
                parts = list(_parts(batch))
            except ValueError:
                logger.exception("records of the inference log were lost", extra={"records": len(batch.rows)})
                self._report(RecordsLost(len(batch.rows), batch.size))
                continue
            for part, size in parts:
                hour = int(part.times[0]) // 3600
                if found is not None and (hour != found.hour or found.size + size > 2 * self._limits.batch_bytes):
                    self._put_records(found)
                    found = None
                found = found or _Object(hour, part.times[0])
                if not self._add(found, part, size):
                    self._report(RecordsLost(len(part.times), size))
            del batch
        if found is not None and found.records:
            self._put_records(found)

    def _add(self, found: _Object, part: Records, size: int) -> bool:
        """Add the lines of records to an object; return False if they cannot be made."""
        count = len(part.times)
        try:
            lines = [self._lines.make(part.part(at, at + PIECE)) for at in range(0, count, PIECE)]
        except Exception as error:  # a defect; its message may quote a personal value
            reason = type(error).__name__
            logger.error("records of the inference log were lost", extra={"records": count, "reason": reason})
            return False
        found.pieces += lines
        found.end = part.times[-1]
        found.records += count
        found.errors += part.rows.count(0)
        found.size += size
        return True

    def _put_records(self, found: _Object) -> None:
        if not found.records:
            return
        self._objects += 1
        folder = time.strftime("%Y/%m/%d/%H", time.gmtime(found.hour * 3600))
        key = f"inference/{self._model}/{folder}/{self._pod}-{self._objects}.jsonl"
        content = b"".join(found.pieces)
        found.pieces.clear()
        if self._put(key, found.records, content):
            self._report(RecordsWritten(found.records, found.errors, found.begin, found.end, found.size))
        else:
            self._report(RecordsLost(found.records, found.size))

    def _put(self, key: str, records: int, content: bytes) -> bool:
        """Write an object; return False if its records were lost."""
        pause = self._limits.first_pause
        for attempt in range(1, self._limits.attempts + 1):
            try:
                self._write(key, content)
            except Exception as error:  # S3, the network or the credentials
                self._report(AttemptFailed())
                logger.warning(
                    "the inference log could not be written",
                    extra={"key": key, "records": records, "attempt": attempt, "reason": str(error)},
                )
                spread = random.uniform(0.5, 1.5)  # noqa: S311
                if attempt == self._limits.attempts or not self._pause(pause * spread):
                    break
                pause = min(pause * 2, self._limits.longest_pause)
            else:
                return True
        logger.error("records of the inference log were lost", extra={"key": key, "records": records})
        return False

    def _put_once(self, put: PutObject) -> None:
        try:
            self._write(put.key, put.content)
        except Exception as error:  # S3, the network or the credentials
            self._report(PutDone(str(error) or type(error).__name__))
        else:
            self._report(PutDone())

    def _pause(self, seconds: float) -> bool:
        """Wait before another attempt; return False if no time is left for one."""
        if not self._closing.wait(seconds):
            return True
        left = self._deadline - time.monotonic()
        time.sleep(max(0.0, min(self._limits.first_pause, left)))
        return left > 0

    def _report(self, report: Report) -> None:
        try:
            self._channel.sendall(frame(report))
        except OSError:
            # The server is gone. What it handed over is written nevertheless.
            logger.debug("nobody takes a report of the inference log")


def _parts(batch: RecordBatch) -> Iterator[tuple[Records, int]]:
    """Yield the records of each hour in a batch, and their share of its memory."""
    records = records_of(batch)
    hours = [int(moment) // 3600 for moment in records.times]
    if hours.count(hours[0]) == len(hours):
        yield records, batch.size
        return
    begin, left = 0, batch.size
    for end in range(1, len(hours) + 1):
        if end == len(hours) or hours[end] != hours[begin]:
            size = left if end == len(hours) else batch.size * (end - begin) // len(hours)
            left -= size
            yield records.part(begin, end), size
            begin = end


def main(arguments: Sequence[str]) -> int:
    """Write the inference log of the server that started this process; return the exit status."""
    leave_signals_to_the_server()  # before the import that takes longest
    from pipelines.serving.logs_bucket import logs_bucket

    parser = argparse.ArgumentParser("python -m pipelines.serving.log_writer", description="Write an inference log.")
    parser.add_argument("--bucket", required=True, help="name of the logs bucket")
    return run_writer(logs_bucket(parser.parse_args(arguments).bucket))


def leave_signals_to_the_server() -> None:
    """Ignore signals to the whole process group: the server closes the channel once it has finished."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def run_writer(write: Write) -> int:
    """Write the inference log of the server at the other end of standard input; return the exit status."""
    from pipelines.serving.structured_log import log_to_stderr

    leave_signals_to_the_server()
    log_to_stderr()
    serve_log(socket.socket(fileno=sys.stdin.fileno()), write)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
