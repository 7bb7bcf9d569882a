"""Every landed row is in the table or in quarantine, exactly once: on every run, and over the life of a table."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.data import ingest as job
from pipelines.data.catalog import open_table
from pipelines.data.expired_versions import read_expired
from pipelines.data.file_replacement import current_files
from pipelines.data.ingest import drop, ingest
from pipelines.data.landing import upload
from pipelines.data.row_balance import RowBalance, balance_rows
from pipelines.data.row_quarantine import BatchRecord, read_record, read_records
from pipelines.data.table_changes import TableChange, make_change
from pipelines.data.table_maintenance import maintain_table
from pipelines.data.validate import Validation
from pipelines.data.versions import TableVersion, list_versions
from pipelines.declarations.contract import Contract
from pipelines.declarations.digests import digest_of_file
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from tests.aws import EmulatedAccount, make_environment
from tests.pipelines.data.contracts import column, contract

CONTRACT = contract(column("age", "integer", required=True, minimum=0), column("name", "string"))
RELAXED = contract(column("age", "integer", required=True), column("name", "string"))
BATCH = f"sha256:{'1' * 64}"

VERSION = TableVersion(
    snapshot="7",
    parent=None,
    at=datetime(2026, 1, 1, tzinfo=UTC),
    rows=3,
    added=3,
    operation="append",
    file="a.csv",
    batch=BATCH,
    contract="1.0.0",
    tags=(),
    is_current=True,
    is_included=True,
)
RECORD = BatchRecord(
    dataset="visits",
    file="a.csv",
    batch=BATCH,
    contract="1.0.0",
    verdict="ingested",
    rows=5,
    good=3,
    quarantined=2,
    snapshot="7",
)


def test_rows_that_add_up_are_counted() -> None:
    assert balance_rows([VERSION], (), [RECORD], 3) == RowBalance(5, 3, 2, ())


@pytest.mark.parametrize(
    ("version", "record", "held", "problem"),
    [
        ({}, {"quarantined": 1}, 3, "a.csv: 5 rows landed, 3 were appended and 1 quarantined"),
        ({"added": 2, "rows": 2}, {}, 2, "a.csv: 5 rows landed, 3 were appended, and the table got 2"),
        ({"is_included": False, "is_current": False}, {}, 0, "a.csv: 5 rows landed, 3 were appended, and the table"),
        ({}, {"verdict": "dropped"}, 3, "a.csv: is dropped, and the table has 3 rows of it"),
        ({}, {"batch": f"sha256:{'2' * 64}", "snapshot": "9"}, 3, "3 rows of the batch sha256:1"),
        ({}, {}, 2, "the current version says 3 rows, and its files hold 2"),
    ],
    ids=["a lost row", "fewer were added", "none is in the table", "dropped and there", "no record", "a lost file"],
)
def test_rows_that_do_not_add_up_are_named(
    version: dict[str, Any], record: dict[str, Any], held: int, problem: str
) -> None:
    found = balance_rows([replace(VERSION, **version)], (), [RECORD.model_copy(update=record)], held)
    assert len(found.problems) == 1
    assert found.problems[0].startswith(problem)


def test_a_batch_whose_version_has_expired_is_not_compared_with_the_table() -> None:
    later = replace(VERSION, snapshot="8", batch=None, added=0, operation="overwrite")
    assert balance_rows([later], {BATCH}, [RECORD], 3).problems == ()


@pytest.fixture
def dev(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_environment("dev", CONTRACT)


class Life:
    """A table, its files, and what becomes of them."""

    def __init__(self, dev: EnvironmentDescriptor, folder: Path) -> None:
        self.dev, self.folder = dev, folder

    def land(self, name: str, *lines: str) -> str:
        path = self.folder / name
        path.write_text("\n".join(("id,age,name", *lines)) + "\n")
        upload(self.dev, "visits", path)
        return digest_of_file(path)

    def ingest(self, declared: Contract = CONTRACT, release: str = "") -> list[BatchRecord]:
        return ingest(self.dev, declared, lambda _: None, only=release, replay=bool(release))

    def roll_back(self, snapshot: str | None) -> list[str]:
        lines: list[str] = []
        assert snapshot is not None
        make_change(self.dev, CONTRACT, TableChange(action="rollback", snapshots=(snapshot,)), lines.append)
        return lines

    def balance(self) -> RowBalance:
        table = open_table(self.dev, "visits")
        held = sum(file.rows for file in current_files(table))
        expired = {each.batch for each in read_expired(self.dev, "visits") if each.batch is not None}
        return balance_rows(list_versions(table), expired, read_records(self.dev, "visits"), held)


@pytest.fixture
def life(dev: EnvironmentDescriptor, tmp_path: Path) -> Life:
    return Life(dev, tmp_path)


@pytest.mark.slow
def test_rows_add_up_after_each_event_of_a_table(life: Life) -> None:
    batch = life.land("a.csv", "1,20,a", "2,-5,b", "3,x,c")
    (first,) = life.ingest()
    assert life.balance() == RowBalance(3, 1, 2, ())
    life.ingest(RELAXED, release="a.csv")
    assert life.balance() == RowBalance(3, 2, 1, ())
    life.land("b.csv", "4,30,d", "1,40,e")
    life.land("c.csv", "id,x,y")
    life.ingest()
    assert life.balance() == RowBalance(6, 3, 3, ())
    assert "a.csv: 1 row return to quarantine" in life.roll_back(first.snapshot)
    assert life.balance() == RowBalance(4, 1, 3, ())
    assert read_record(life.dev, "visits", batch) == first
    life.ingest(RELAXED, release="a.csv")
    life.ingest(RELAXED, release="b.csv")
    assert life.balance() == RowBalance(6, 3, 3, ())
    drop(life.dev, CONTRACT, "a.csv", "a test")
    later = datetime.now(UTC) + timedelta(days=200)
    maintain_table(life.dev, CONTRACT, (), later, lambda _: None)
    assert read_expired(life.dev, "visits")
    assert life.balance() == RowBalance(6, 3, 3, ())


@pytest.mark.slow
def test_a_release_that_is_killed_after_its_commit_is_finished_by_the_next_run(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    life.land("a.csv", "1,20,a", "2,-5,b", "3,x,c")
    life.ingest()
    with monkeypatch.context() as patched:
        patched.setattr(job, "upload_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            life.ingest(RELAXED, release="a.csv")
    assert life.balance().problems
    life.ingest()
    assert life.balance() == RowBalance(3, 2, 1, ())


@pytest.mark.slow
def test_nothing_is_appended_if_other_rows_are_written_than_were_checked(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.land("a.csv", "1,20,a", "2,30,b")
    real = Validation.good_rows
    monkeypatch.setattr(Validation, "good_rows", lambda self: real(self).read_all().slice(1).to_reader())
    with pytest.raises(MlopsError, match="expected 2 rows, found 1"):
        life.ingest()
    assert open_table(life.dev, "visits").current_snapshot() is None
