"""A training set that workers of Spark make. It waits for a signal, so that one of them can be killed meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.row_digest import digest_of_ordered, in_key_order
from pipelines.data.spark_rows import FileRows, group_files, read_whole_table
from pipelines.data.spark_session import open_spark, send_by_value
from pipelines.data.spark_version import sort_into_file
from pipelines.training.spark_training_set import hashes_on_workers
from pipelines.training.training_set import TrainingSet, in_memory
from tests.pipelines.training.project import DATASET, MODEL, make_project, make_rows

TYPES = {"loan_id": "bigint", "income": "double", "age": "bigint", "member": "boolean"} | dict.fromkeys(
    ("region", "defaulted"), "string"
)


def waiting(folder: str) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return a function that workers run: it leaves a file that names its process, and waits for the file `go`."""

    def wait(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import os
        import time
        from pathlib import Path

        place = Path(folder)
        (place / f"working-{os.getpid()}").touch()
        while not (place / "go").exists():
            time.sleep(0.05)
        yield from batches

    return wait


class HeldWork:
    """Rows in six files, in no order, and the work of sorting them.

    Args:
        folder: where the files go.

    Attributes:
        signals: folder with a file of each process that works; the work goes on once it holds the file `go`.
    """

    def __init__(self, folder: Path) -> None:
        project = make_project(folder / "project")
        self._model, self._contract = project.model(MODEL), project.contract(DATASET)
        rows = make_rows(900)
        income = rows.column("income").to_numpy().copy()
        income[:6] = [0.0, -0.0, np.nan, -np.inf, 1e-40, 1e30]
        self._rows = rows.set_column(1, "income", pa.array(income))
        paths = []
        for number, part in enumerate(np.array_split(np.random.default_rng(2).permutation(rows.num_rows), 6)):
            paths.append(str(folder / f"{number}.parquet"))
            pq.write_table(self._rows.take(pa.array(part)), paths[-1])
        self._files = FileRows(group_files(paths, pq.read_schema, TYPES), TYPES, lambda: iter(()))
        self._added = hashes_on_workers(self._model, self._contract)
        self._sorted = folder / "rows.parquet"
        self.signals = folder / "signals"
        self.signals.mkdir()
        send_by_value(__name__)

    def sort(self, parts: int) -> Any:
        """Sort the rows on Spark, in a number of parts."""
        with open_spark() as spark:
            frame = read_whole_table(spark, self._files, DATASET, "")
            schema = ", ".join(f"`{name}` {kind}" for name, kind in frame.dtypes)
            held = self._added.add(frame.repartition(parts).mapInArrow(waiting(str(self.signals)), schema))
            key = self._contract.primary_key
            return sort_into_file(held, DATASET, self._rows.schema, key, self._added.types, self._sorted)

    def check(self, there: Any) -> None:
        """Check that sorted rows, and the training set of them, are those of one process."""
        here = in_memory(in_key_order(self._rows, self._contract.primary_key), self._model, self._contract)
        assert digest_of_ordered(there) == digest_of_ordered(here)
        holdouts = [TrainingSet(self._model, self._contract, rows).holdout for rows in (there, here)]
        assert holdouts[0] == holdouts[1]
