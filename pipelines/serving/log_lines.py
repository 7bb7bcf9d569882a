"""Lines of the inference log, made of many records at a time.

In bulk, a line takes a fraction of the time that it takes alone: single calls pick a value of all records, and join all
lines.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby

import msgspec

from pipelines.serving.log_messages import LogPlan, Records
from pipelines.serving.logged_inputs import LoggedInputs, Part

_MILLISECONDS = [b'.%03dZ",' % milliseconds for milliseconds in range(1000)]


class LogLines:
    """Makes lines of records.

    Args:
        plan: what is logged.
    """

    def __init__(self, plan: LogPlan) -> None:
        self._logged = LoggedInputs(plan.inputs)
        about = msgspec.json.encode({"model": plan.model, "bundle": plan.bundle})[1:-1]
        self._before_trace = about + b',"trace":"'
        self._before_id = about + _about_records(self._logged, plan.sample) + b',"id":'
        self._outputs = [msgspec.json.encode(name) + b":" for name in plan.outputs]

    def make(self, records: Records) -> bytes:
        """Return one line for each record, in their order."""
        rows = records.rows
        if rows.count(1) == len(rows):  # the most common
            return self._of_one_kind(records)
        pieces: list[bytes] = []
        begin = 0
        for _, run in groupby(rows, lambda count: min(count, 2)):
            end = begin + len(list(run))
            pieces.append(self._of_one_kind(records.part(begin, end)))
            begin = end
        return b"".join(pieces)

    def _of_one_kind(self, records: Records) -> bytes:
        """Return the lines of failures, of requests of one row, or of requests of several rows."""
        times, traces, ids, rows, values = records
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
    instants = [int(moment * 1000) for moment in times]
    milliseconds = [_MILLISECONDS[instant % 1000] for instant in instants]
    first = instants[0] // 1000
    if first * 1000 <= min(instants) and max(instants) < (first + 1) * 1000:
        return _second(first), milliseconds
    return [_second(instant // 1000) for instant in instants], milliseconds


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
