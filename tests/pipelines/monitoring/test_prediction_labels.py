"""Labels are read from their table in bounded memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from pipelines.data.catalog import append, open_table
from pipelines.declarations.model_monitoring import LabelSource
from pipelines.monitoring.prediction_labels import read_labels, resolve_labels
from pipelines.serving.protocol import LONGEST_ID
from tests.aws import EmulatedAccount, make_environment
from tests.pipelines.data.contracts import column, contract

pytestmark = pytest.mark.slow

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CONTRACT = contract(
    column("id", "string", primaryKey=True),
    column("label", "integer"),
    column("region", "string"),
    column("known", "date"),
)


def test_a_text_that_no_request_can_have_as_its_id_is_dropped_while_the_table_is_read(account: EmulatedAccount) -> None:
    """Who lands labels could otherwise end each run of the monitor with a file of a few kilobytes."""
    dev = make_environment("dev", CONTRACT)
    table = open_table(dev, "visits")
    longest = "i" * LONGEST_ID
    for number, ids in enumerate((["a", "x" * 100_000], [longest, f"{longest}i"])):
        rows = pa.table(
            {
                "id": ids,
                "label": pa.array([1, 0], pa.int64()),
                "region": ["north", "r" * 100_000],
                "known": pa.array([NOW.date()] * 2),
            }
        )
        append(dev, table.refresh(), rows.to_reader(), f"sha256:{number:064}", {})
    source = LabelSource(dataset="visits")
    found = read_labels(dev, source, "label", ["region", "absent"], NOW - timedelta(days=9))
    assert sorted(found.column_names) == ["id", "label", "region", "row", "time"]
    assert found.nbytes < 2000
    assert sorted(found["id"].drop_null().to_pylist()) == ["a", longest]
    labels = resolve_labels(found, None, ["region"], until=NOW)
    assert set(labels.values) == {("a", 0), (longest, 0)}
    assert (labels.counts.read, labels.counts.invalid) == (4, 2)
