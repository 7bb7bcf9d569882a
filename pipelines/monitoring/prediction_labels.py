"""True values of predictions: read them from a dataset, decide about repeated and contradicting ones, and join them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.declarations.baseline import category
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.inference_logging import is_sampled
from pipelines.declarations.model_monitoring import LabelSource
from pipelines.monitoring.model_report import LabelCounts
from pipelines.monitoring.request_log import LoggedRows
from pipelines.serving.protocol import LONGEST_ID

Numbers = NDArray[np.float64]
LabelKey = tuple[str, int]
"""Id of a request, and the number of the row in it."""


@dataclass(frozen=True)
class Labels:
    """One true value for each predicted row that has any.

    Attributes:
        values: key → target, or the index of its class.
        counts: what became of the labels that were read.
        groups: protected attribute → key → value as text, for attributes that are columns of the labels.
    """

    values: dict[LabelKey, float]
    counts: LabelCounts
    groups: dict[str, dict[LabelKey, str]] = field(default_factory=dict)


@dataclass
class Labelled:
    """Rows with a true value, in the order of their requests.

    Attributes:
        times: time of the request, in milliseconds since the epoch.
        truth: target, or the index of its class.
        predicted: (n,) predictions, or (n, classes) probabilities.
        groups: protected attribute → value of each row as text.
    """

    times: NDArray[np.int64]
    truth: Numbers
    predicted: Numbers
    groups: dict[str, NDArray[Any]]

    def between(self, start: int, end: int) -> Labelled:
        """Return the rows whose requests are between two times, in milliseconds since the epoch."""
        return self.where((self.times >= start) & (self.times < end))

    def where(self, chosen: NDArray[Any]) -> Labelled:
        """Return some of the rows."""
        groups = {name: values[chosen] for name, values in self.groups.items()}
        return Labelled(self.times[chosen], self.truth[chosen], self.predicted[chosen], groups)


def read_labels(
    descriptor: EnvironmentDescriptor, source: LabelSource, target: str, attributes: Sequence[str], since: datetime
) -> pa.Table:
    """Read the labels that became known since a time, or all of them if they have no time.

    Args:
        descriptor: the environment.
        source: where labels arrive.
        target: the model's target, which is the column of the label by default.
        attributes: protected attributes; those that are columns of the dataset are read as well.
        since: start of the oldest window.

    Returns:
        Columns `id`, `row`, `label`, `time` and the attributes; `row` is 0 and `time` is null if there is none. Texts
        that are longer than the id of a request can be are null.

    Raises:
        MlopsError: the table or one of its columns does not exist, or AWS denied a request.
    """
    from pipelines.data.catalog import open_table
    from pipelines.data.row_streams import stream_rows
    from pipelines.declarations.errors import MlopsError

    table = open_table(descriptor, source.dataset)
    present = {column.name for column in table.schema().fields}
    label = source.label or target
    named = {"id": source.id, "label": label, "row": source.row, "time": source.time}
    for name in named.values():
        if name is not None and name not in present:
            raise MlopsError(
                f"the table of {source.dataset} in {descriptor.name} lacks the column {name!r}: expected one of "
                f"{', '.join(sorted(present))}",
                fix="correct monitoring.labels in model.yaml, or ingest data with the current contract",
            )
    extra = [name for name in attributes if name in present]
    chosen = list(dict.fromkeys([*filter(None, named.values()), *extra]))
    kind = str(table.schema().find_type(source.time)) if source.time is not None else ""
    newer = "true"
    if kind.startswith("timestamp"):
        text = since.isoformat(timespec="microseconds")
        newer = f"{source.time} >= '{text if kind == 'timestamptz' else text[:-6]}'"
    schema, batches = stream_rows(table, table.scan(row_filter=newer, selected_fields=tuple(chosen)))
    found = pa.Table.from_batches(map(_without_long_texts, batches), schema)
    empty = pa.nulls(found.num_rows)
    columns = {name: found[column] if column is not None else empty for name, column in named.items()}
    if source.row is None:
        columns["row"] = pa.array(np.zeros(found.num_rows, dtype=np.int64))
    return pa.table({**columns, **{name: found[name] for name in extra if name not in columns}})


def _without_long_texts(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Replace texts by null that no request, class or group has. A small file can hold gigabytes of them."""
    import pyarrow.compute as pc

    def short(column: pa.Array) -> pa.Array:
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            return column
        place = pa.array(np.arange(len(column)))
        is_short = pc.less_equal(pc.utf8_length(column), LONGEST_ID)
        return column.take(pc.if_else(is_short, place, pa.scalar(None, place.type)))  # copies those texts only

    return pa.RecordBatch.from_arrays([short(column) for column in rows.columns], schema=rows.schema)


def resolve_labels(
    labels: pa.Table, classes: Sequence[str | int] | None, attributes: Sequence[str] = (), *, until: datetime
) -> Labels:
    """Keep one label for each predicted row.

    A label that says the same as another one is dropped. Of labels that contradict each other, the latest counts; if
    two are equally late, none does, because nothing tells which is true.

    Args:
        labels: columns of `read_labels`.
        classes: classes in the order of the probabilities; None for regression.
        attributes: protected attributes among the columns.
        until: a label that becomes known later is invalid. Otherwise one label could replace all others for ever.
    """
    index = None if classes is None else {category(each): float(number) for number, each in enumerate(classes)}
    ids, rows = labels["id"].to_pylist(), labels["row"].to_pylist()
    times, values = labels["time"].to_pylist(), labels["label"].to_pylist()
    extra = {name: labels[name].to_pylist() for name in attributes if name in labels.column_names}
    best: dict[LabelKey, tuple[Any, float | None, int]] = {}  # time, value or None if contradicting, position
    invalid = repeated = replaced = 0
    spoiled: dict[LabelKey, int] = {}
    for position, (id_, row, time, value) in enumerate(zip(ids, rows, times, values, strict=True)):
        truth = _truth(value, index)
        if id_ is None or row is None or truth is None or _is_future(time, until):
            invalid += 1
            continue
        key = (str(id_), int(row))
        before = best.get(key)
        if before is None:
            best[key] = (time, truth, position)
        elif before[1] == truth:
            repeated += 1
            if _later(time, before[0]):
                best[key] = (time, truth, position)
        elif _later(time, before[0]):
            replaced += 1 + spoiled.pop(key, 0)
            best[key] = (time, truth, position)
        elif _later(before[0], time):
            replaced += 1
        else:  # contradicting, at the same time
            spoiled[key] = spoiled.get(key, 0 if before[1] is None else 1) + 1
            best[key] = (before[0], None, position)
    kept = {key: (value, position) for key, (_, value, position) in best.items() if value is not None}
    return Labels(
        {key: value for key, (value, _) in kept.items()},
        LabelCounts(
            read=len(ids),
            repeated=repeated,
            replaced=replaced,
            contradicting=sum(spoiled.values()),
            invalid=invalid,
        ),
        {name: {key: group_name(column[at]) for key, (_, at) in kept.items()} for name, column in extra.items()},
    )


def _is_future(time: Any, until: datetime) -> bool:
    if isinstance(time, datetime):
        return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)) > until
    return isinstance(time, date) and time > until.date()


def _later(time: Any, before: Any) -> bool:
    return time is not None and (before is None or time > before)


def _truth(value: Any, index: dict[str, float] | None) -> float | None:
    """Return a label as a number; None if the model cannot predict it."""
    if value is None:
        return None
    if index is not None:
        return index.get(category(value)) if isinstance(value, str | int | float | bool) else None
    number = float(value)
    return number if np.isfinite(number) else None


def group_name(value: Any) -> str:
    """Return a value of a protected attribute as text, as the evaluation of a bundle does."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "null"
    return category(value) if isinstance(value, str | int | float | bool) else str(value)


class LabelJoin:
    """Joins predicted rows with their labels while the log is read.

    Args:
        labels: the labels.
        attributes: protected attributes that are features of the model, or columns of the labels.
        by_row: True if labels name the row of a request; else only requests of one row get one.
        sampling_key: key by which the server chose the requests that it logged.

    Attributes:
        sample: share of the requests that the log holds. Labels of the others are not unknown.
    """

    def __init__(self, labels: Labels, attributes: Sequence[str], *, by_row: bool, sampling_key: bytes) -> None:
        self._labels, self._attributes, self._by_row = labels, attributes, by_row
        self._sampling_key = sampling_key
        self.sample = 1.0
        self._ids = pa.array(sorted({id_ for id_, _ in labels.values}), pa.string())
        self._times: dict[LabelKey, int] = {}
        self._found: dict[LabelKey, tuple[Numbers, dict[str, str]]] = {}
        self._twice: set[str] = set()
        self._several: set[str] = set()

    def add(self, rows: LoggedRows) -> None:
        """Join rows of the log."""
        import pyarrow.compute as pc

        if not len(self._ids):
            return
        at = np.flatnonzero(pc.is_in(rows.ids, value_set=self._ids).to_numpy(zero_copy_only=False))
        features = {name: rows.features.column(name) for name in self._attributes
                    if name in rows.features.schema.names}  # fmt: skip
        found = zip(at.tolist(), rows.ids.take(pa.array(at)).to_pylist(), strict=True)
        for index, id_ in found:
            number, time = int(rows.numbers[index]), int(rows.times[index])
            key = (id_, number)
            if number and not self._by_row:
                self._several.add(id_)
                continue
            if key in self._times:
                self._twice.add(id_)
                continue
            self._times[key] = time
            if key in self._labels.values:
                groups = {name: group_name(column[index].as_py()) for name, column in features.items()}
                self._found[key] = (np.asarray(rows.predicted[index]), groups)

    def result(self) -> tuple[Labelled, LabelCounts]:
        """Return the labelled rows by time, and what became of the labels."""
        ambiguous = self._twice | self._several
        keys = sorted((key for key in self._found if key[0] not in ambiguous), key=lambda key: (self._times[key], key))
        seen = {id_ for id_, _ in self._times}
        missing = (key[0] for key in self._labels.values if key not in self._times and key[0] not in seen)
        key = self._sampling_key
        unknown = sum(1 for id_ in missing if self.sample >= 1 or is_sampled(_as_json(id_), self.sample, key))
        counts = self._labels.counts.model_copy(
            update={"joined": len(keys), "unknown": unknown, "ambiguous": len(ambiguous)}
        )
        groups = {}
        for name in self._attributes:
            known = self._labels.groups.get(name, {})
            values = [self._found[key][1].get(name, known.get(key)) for key in keys]
            if values and all(value is not None for value in values):
                groups[name] = np.array(values, dtype=object)
        predicted = [self._found[key][0] for key in keys]
        return (
            Labelled(
                np.array([self._times[key] for key in keys], dtype=np.int64),
                np.array([self._labels.values[key] for key in keys], dtype=np.float64),
                np.array(predicted, dtype=np.float64) if predicted else np.empty(0),
                groups,
            ),
            counts,
        )


def _as_json(id_: str) -> bytes:
    return json.dumps(id_, ensure_ascii=False).encode()


def count_rows(times: Iterable[NDArray[np.int64]], edges: Sequence[int]) -> list[int]:
    """Count predicted rows between neighbouring times, in milliseconds since the epoch."""
    totals = np.zeros(len(edges) - 1, dtype=np.int64)
    for part in times:
        totals += np.histogram(part, bins=np.array(edges))[0]
    return [int(total) for total in totals]
