"""Lines of the inference log, made of many records at a time.

In bulk, a line takes a fraction of the time that it takes alone: single calls pick a value of all records, and join all
lines.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import msgspec
import numpy as np

from pipelines.serving.logged_inputs import LoggedInputs, Part
from pipelines.serving.predictor import Predictor

TIME, TRACE, ID, ROWS, SIZE, VALUES = range(6)
"""Positions of a record's values: seconds since the epoch; id of the trace, 32 hexadecimal digits; id of the request as
JSON; number of rows; memory in bytes; and from there on JSON of each input and output of the model.

The record of a request that ended in a server error has no rows, and its HTTP status in place of the id. Records are
held one after another in a flat list, because a slice of it is one value of all records.
"""

_MILLISECONDS = [b'.%03dZ",' % milliseconds for milliseconds in range(1000)]


class LogLines:
    """Makes lines of records.

    Args:
        predictor: the predictor whose answers are logged.
        logged: what of the inputs is logged.
        sample: share of the answered requests that are logged.

    Attributes:
        fields: number of values of a record.
        no_values: what a failure has in place of inputs and outputs.
    """

    def __init__(self, predictor: Predictor, logged: LoggedInputs, sample: float) -> None:
        self._logged = logged
        about = msgspec.json.encode({"model": predictor.name, "bundle": predictor.digest})[1:-1]
        self._before_trace = about + b',"trace":"'
        self._before_id = about + _about_records(logged, sample) + b',"id":'
        self._outputs = [msgspec.json.encode(tensor.name) + b":" for tensor in predictor.schema.outputs]
        self.no_values = (b"",) * (len(predictor.schema.inputs) + len(self._outputs))
        self.fields = VALUES + len(self.no_values)

    def make(self, records: Sequence[Any]) -> bytes:
        """Return one line for each record, in their order.

        Args:
            records: values of records, one after another.
        """
        rows = records[ROWS :: self.fields]
        if rows.count(1) == len(rows):  # the most common
            return self._of_one_kind(records)
        pieces: list[bytes] = []
        begin = 0
        for _, run in groupby(rows, lambda count: min(count, 2)):
            end = begin + self.fields * len(list(run))
            pieces.append(self._of_one_kind(records[begin:end]))
            begin = end
        return b"".join(pieces)

    def _of_one_kind(self, records: Sequence[Any]) -> bytes:
        """Return the lines of failures, of requests of one row, or of requests of several rows."""
        times, traces, ids, rows, _, *values = (records[at :: self.fields] for at in range(self.fields))
        inputs, outputs = values[: -len(self._outputs)], values[-len(self._outputs) :]
        parts = [*_begin(times)]
        if rows[0] == 0:  # failures, which have a status in place of an id
            return _joined([*parts, self._before_trace, traces, b'","rows":0,"status":', ids, b"}\n"], len(times))
        is_one = rows[0] == 1
        parts += (self._before_id, ids, b',"trace":"', traces, b'","rows":')
        parts += (b"1" if is_one else [b"%d" % count for count in rows], b",")
        parts += self._logged.parts(inputs, is_one=is_one)
        before, after = (b"[", b"]") if is_one else (b"", b"")
        parts.append(b',"outputs":{')
        for name, found in zip(self._outputs, outputs, strict=True):
            parts += (name, before, found, after, b",")
        parts[-1] = b"}}\n"
        return _joined(parts, len(times))


def _begin(times: Sequence[float]) -> tuple[Part, Part]:
    """Return the begin of lines: the times to the second, and their milliseconds."""
    instants = (np.fromiter(times, np.float64, len(times)) * 1000).astype(np.int64)
    seconds = instants // 1000
    milliseconds = [_MILLISECONDS[instant] for instant in (instants - seconds * 1000).tolist()]
    if (seconds == seconds[0]).all():
        return _second(int(seconds[0])), milliseconds
    return [_second(second) for second in seconds.tolist()], milliseconds


@lru_cache(maxsize=8)  # the records of a write are of few seconds
def _second(second: int) -> bytes:
    return time.strftime('{"time":"%Y-%m-%dT%H:%M:%S', time.gmtime(second)).encode()


def _joined(parts: Sequence[Part], count: int) -> bytes:
    """Join the parts of `count` lines."""
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, bytes) and merged and isinstance(merged[-1], bytes):
            merged[-1] += part
        else:
            merged.append(part)
    width = len(merged)
    flat = [part if isinstance(part, bytes) else b"" for part in merged] * count
    for at, part in enumerate(merged):
        if not isinstance(part, bytes):
            flat[at::width] = part
    return b"".join(flat)


def _about_records(logged: LoggedInputs, sample: float) -> bytes:
    """Return the members that say what of a request is not logged, each after a comma."""
    said: dict[str, float | tuple[str, ...]] = {}
    if sample < 1:
        said["sample"] = sample
    if logged.withheld:
        said["withheld"] = logged.withheld
    return b"," + msgspec.json.encode(said)[1:-1] if said else b""
