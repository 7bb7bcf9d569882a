"""Messages between the inference log of a server and the process that writes it.

Each message is MessagePack after its length in four bytes. The first one is the plan; the log then sends batches of
records, and the writer reports what became of them.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

_LENGTH = struct.Struct("<I")

LARGEST_MESSAGE = 1 << 30
"""Limit of a message, in bytes: the log's own limits are far smaller."""

_BETWEEN = b"\0"
"""Byte between two values of a column. JSON has none, and neither has an id of a trace."""


class Limits(msgspec.Struct, frozen=True):
    """Memory and time limits of the inference log.

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


class TensorPlan(msgspec.Struct, frozen=True):
    """What is logged of one input tensor.

    Attributes:
        name, datatype, columns: as in the request schema.
        withheld: positions of the columns to replace by null.
        groups: position of a withheld column → its values as the model sees them, with the name of the group of each.
    """

    name: str
    datatype: str
    columns: tuple[str, ...]
    withheld: tuple[int, ...] = ()
    groups: dict[int, tuple[tuple[str | int | float | bool, str], ...]] = {}


class LogPlan(msgspec.Struct, frozen=True):
    """What is logged of each request.

    Attributes:
        model, bundle: name of the model, digest of the bundle.
        sample: share of the answered requests that are logged.
        inputs: what is logged of each input.
        outputs: names of the outputs.
    """

    model: str
    bundle: str
    sample: float
    inputs: tuple[TensorPlan, ...]
    outputs: tuple[str, ...]


class StartLog(msgspec.Struct, tag="start"):
    """First message to a writer.

    Attributes:
        plan: what is logged.
        limits: memory and time limits.
        pod: names the writer in the keys of objects; must be unique.
    """

    plan: LogPlan
    limits: Limits
    pod: str


class RecordBatch(msgspec.Struct, tag="batch"):
    """Records, by columns: values of one column with a zero byte between them.

    Attributes:
        times: seconds since the epoch, as doubles of this machine.
        traces: ids of the traces, 32 hexadecimal digits.
        ids: ids of the requests as JSON; the HTTP status of a request that ended in a server error.
        rows: number of rows of each request; 0 for a server error.
        values: JSON of each input and output of the model; see `InferenceResult.values`.
        size: memory of the records, as the limits count it.
    """

    times: bytes
    traces: bytes
    ids: bytes
    rows: Sequence[int]
    values: Sequence[bytes]
    size: int


class PutObject(msgspec.Struct, tag="put"):
    """Request to put an object, with one attempt. The answer is `PutDone`."""

    key: str
    content: bytes


class DrainLog(msgspec.Struct, tag="drain"):
    """Request to write all records now, within some seconds."""

    seconds: float


class RecordsWritten(msgspec.Struct, tag="written"):
    """Report: records were written.

    Attributes:
        records, errors: number of records, and of those that are server errors.
        begin, end: times of the first and the last record, in seconds since the epoch.
        size: their memory, as the limits count it.
    """

    records: int
    errors: int
    begin: float
    end: float
    size: int


class RecordsLost(msgspec.Struct, tag="lost"):
    """Report: records could not be written, and were dropped."""

    records: int
    size: int


class AttemptFailed(msgspec.Struct, tag="failed"):
    """Report: an attempt to write records failed; others may follow."""


class PutDone(msgspec.Struct, tag="done"):
    """Report: whether the object of a `PutObject` was written, or why not."""

    reason: str = ""


class Records(NamedTuple):
    """Records, by columns; see `RecordBatch`."""

    times: Sequence[float]
    traces: Sequence[bytes]
    ids: Sequence[bytes]
    rows: Sequence[int]
    values: Sequence[Sequence[bytes]]

    def part(self, begin: int, end: int) -> Records:
        """Return the records from one position up to another."""
        values = [column[begin:end] for column in self.values]
        return Records(self.times[begin:end], self.traces[begin:end], self.ids[begin:end], self.rows[begin:end], values)


Request = StartLog | RecordBatch | PutObject | DrainLog
Report = RecordsWritten | RecordsLost | AttemptFailed | PutDone

_encode_into = msgspec.msgpack.Encoder().encode_into
read_request = msgspec.msgpack.Decoder(Request).decode
read_report = msgspec.msgpack.Decoder(Report).decode
_join = _BETWEEN.join

FIELDS = 5
"""Number of values of a record in the flat list of `batch_of`."""


def frame(message: Request | Report) -> bytearray:
    """Return a message as bytes."""
    found = bytearray(_LENGTH.size)
    _encode_into(message, found, _LENGTH.size)
    _LENGTH.pack_into(found, 0, len(found) - _LENGTH.size)
    return found


def batch_of(flat: Sequence[Any], size: int) -> RecordBatch:
    """Return a batch of records, which are held one after another in a flat list.

    A slice of such a list is one value of all records, and a column needs a single call. That keeps the cost of a
    record low.

    Args:
        flat: of each record its time, trace, id, number of rows, and the tuple of its values.
        size: their memory, as the limits count it.
    """
    columns = zip(*flat[4::FIELDS], strict=True)
    times = array("d", flat[0::FIELDS]).tobytes()
    return RecordBatch(
        times, _join(flat[1::FIELDS]), _join(flat[2::FIELDS]), flat[3::FIELDS], [*map(_join, columns)], size
    )


def records_of(batch: RecordBatch) -> Records:
    """Return the records of a batch.

    Raises:
        ValueError: its columns differ in length.
    """
    times = array("d")
    times.frombytes(batch.times)
    traces, ids, *values = (column.split(_BETWEEN) for column in (batch.traces, batch.ids, *batch.values))
    if {len(times)} != {len(column) for column in (traces, ids, batch.rows, *values)}:
        raise ValueError("columns of a batch differ in length")
    return Records(times.tolist(), traces, ids, batch.rows, values)


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def contents(stream: _Stream) -> Iterator[bytes]:
    """Yield the content of each message until the stream ends, or ends within a message.

    Raises:
        ValueError: a message is too large.
    """
    while len(head := stream.read(_LENGTH.size)) == _LENGTH.size:
        size = _checked(*_LENGTH.unpack(head))
        content = stream.read(size)
        if len(content) < size:
            return
        yield content


def take_contents(received: bytearray) -> list[bytes]:
    """Remove the complete messages from the bytes that were received; return their contents."""
    found: list[bytes] = []
    begin = 0
    while len(received) - begin >= _LENGTH.size:
        end = begin + _LENGTH.size + _checked(*_LENGTH.unpack_from(received, begin))
        if len(received) < end:
            break
        found.append(bytes(received[begin + _LENGTH.size : end]))
        begin = end
    del received[:begin]
    return found


def _checked(size: int) -> int:
    if size > LARGEST_MESSAGE:
        raise ValueError(f"a message of {size} bytes")
    return size
