"""A Parquet file is streamed in little memory, although all its rows are one row group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.parquet_stream import stream_parquet

NAMES = [f"c{number}" for number in range(8)]


def write(path: Path, rows: int) -> pa.Table:
    rng = np.random.default_rng(0)
    table = pa.table({name: rng.normal(size=rows) for name in NAMES})
    pq.write_table(table, path, row_group_size=rows, data_page_size=64 << 10, use_dictionary=False)
    return table


def test_the_chosen_columns_of_all_rows_are_streamed(tmp_path: Path) -> None:
    table = write(tmp_path / "rows.parquet", 10_000)
    batches = list(stream_parquet(tmp_path / "rows.parquet", ["c3", "c1"], 3_000))
    assert max(batch.num_rows for batch in batches) <= 3_000
    assert pa.Table.from_batches(batches).select(["c3", "c1"]).equals(table.select(["c3", "c1"]))


def test_a_part_of_a_row_group_is_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write(path, 400_000)
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() - before for _ in stream_parquet(path, NAMES, 4_096))
    assert most < path.stat().st_size / 3
