"""Reading the inference log: rows of small objects are joined, and nothing about them changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.declarations.bundle import InputTensor, RequestColumn, RequestSchema, TensorSpec
from pipelines.monitoring import request_log
from pipelines.monitoring.request_log import LoggedRows, LogTotals, RequestLog
from tests.pipelines.monitoring.served_model import DIGEST, NOW

NUMBERS, TEXTS = ("age", "height", "weight"), ("city", "street")
SCHEMA = RequestSchema(
    inputs=(
        InputTensor(
            name="numbers", datatype="FP64", shape=(-1, 3), columns=tuple(RequestColumn(name=n) for n in NUMBERS)
        ),
        InputTensor(name="texts", datatype="BYTES", shape=(-1, 2), columns=tuple(RequestColumn(name=n) for n in TEXTS)),
    ),
    outputs=(TensorSpec(name="prediction", datatype="FP32", shape=(-1, 1)),),
)

Row = tuple[list[float | None], list[str | None], float]
"""Numbers, texts and prediction of a row."""

numbers = st.none() | st.integers(-1000, 1000).map(float) | st.floats(-1e9, 1e9)
rows = st.tuples(
    st.lists(numbers, min_size=3, max_size=3),
    st.lists(st.none() | st.text(max_size=3), min_size=2, max_size=2),
    st.floats(-10, 10),
)
requests = st.tuples(st.lists(rows, min_size=1, max_size=3), st.booleans())
"""Rows of a request, and if the texts were logged."""


def object_of(written: list[tuple[list[Row], bool]], number: int) -> bytes:
    """Return an object of the log."""
    records = (
        {
            "time": (NOW - timedelta(hours=2)).isoformat(),
            "bundle": DIGEST,
            "id": f"{number}-{at}",
            "rows": len(of_request),
            "inputs": {
                "numbers": [row[0] for row in of_request],
                **({"texts": [row[1] for row in of_request]} if with_texts else {}),
            },
            "outputs": {"prediction": [[row[2]] for row in of_request]},
        }
        for at, (of_request, with_texts) in enumerate(written)
    )
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def read(objects: list[bytes], monkeypatch: pytest.MonkeyPatch) -> list[LoggedRows]:
    """Read objects that are held in memory."""
    descriptor: Any = None  # the objects are here
    log = RequestLog(descriptor, "m", DIGEST, SCHEMA)

    def tables(*_: Any) -> Iterator[tuple[pa.Table, int]]:
        return map(log.parse, objects)

    monkeypatch.setattr(log, "_tables", tables)
    return list(log.read(NOW - timedelta(days=1), NOW, LogTotals(), NOW - timedelta(days=9)))


def flat(parts: list[LoggedRows]) -> list[tuple[Any, ...]]:
    """Return the rows of parts, each as a tuple."""
    found = []
    for part in parts:
        columns = part.features.to_pydict()
        found += [
            (id_, int(part.numbers[at]), int(part.times[at]), {n: columns[n][at] for n in columns}, part.predicted[at])
            for at, id_ in enumerate(part.ids.to_pylist())
        ]
    return found


@given(written=st.lists(st.lists(requests, min_size=1, max_size=4), max_size=6), at_once=st.sampled_from([1, 5, 10**6]))
@settings(deadline=None, max_examples=30)
def test_rows_are_what_was_sent_however_many_are_joined(
    written: list[list[tuple[list[Row], bool]]], at_once: int
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(request_log, "ROWS_AT_ONCE", at_once)
        objects = [object_of(each, number) for number, each in enumerate(written)]
        found = flat(read(objects, monkeypatch))
    expected = []
    for number, of_object in enumerate(written):
        # If texts of one request are not logged, those of the object are left out.
        names = (*NUMBERS, *TEXTS) if all(with_texts for _, with_texts in of_object) else NUMBERS
        for at, (of_request, _) in enumerate(of_object):
            for place, (some, texts, predicted) in enumerate(of_request):
                values = dict(zip((*NUMBERS, *TEXTS), (*some, *texts), strict=True))
                expected.append((f"{number}-{at}", place, {name: values[name] for name in names}, predicted))
    assert [(id_, place, values, predicted) for id_, place, _, values, predicted in found] == expected


def test_small_objects_are_joined_and_those_with_other_features_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    row: Row = ([1.0, 2.0, 3.0], ["a", "b"], 0.5)
    objects = [object_of([([row], with_texts)] * 10, number) for number, with_texts in enumerate([True] * 3 + [False])]
    monkeypatch.setattr(request_log, "ROWS_AT_ONCE", 20)
    assert [len(part.times) for part in read(objects, monkeypatch)] == [20, 10, 10]
