"""The monitor of a dataset on an emulated account: deliveries, reports, metrics, and what goes wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pytest

from pipelines.data import compaction
from pipelines.data.catalog import open_table
from pipelines.data.ingest import drop, ingest
from pipelines.data.landing import upload
from pipelines.data.table_changes import TableChange, make_change
from pipelines.data.table_maintenance import maintain_table
from pipelines.declarations.contract import Contract
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.monitoring.data_monitor import examine, run_data_monitor, volume_series
from pipelines.monitoring.data_report import DataMonitorReport
from pipelines.monitoring.deliveries import Delivery, deliveries
from pipelines.monitoring.monitor_reports import find_report, read_page, read_report, report_names
from pipelines.monitoring.report_page import render_page
from pipelines.registry import store
from pipelines.registry.store import AccessDeniedError
from tests.aws import EmulatedAccount, make_environment
from tests.pipelines.data.contracts import column, contract

pytestmark = pytest.mark.slow

CONTRACT = contract(
    column("age", "integer", minimum=0),
    column("city", "string"),
    column("email", "string", classification="personal"),
)
NOW = datetime.now(UTC)


@pytest.fixture
def dev(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_environment("dev", CONTRACT)


class Source:
    """Makes deliveries of visits, with ids that count up."""

    def __init__(self, dev: EnvironmentDescriptor, folder: Path, declared: Contract = CONTRACT) -> None:
        self.dev, self.folder, self.contract = dev, folder, declared
        self.next, self.rng = 1, np.random.default_rng(0)

    def file(self, rows: int, mean: float = 40.0, **columns: Any) -> str:
        """Land a file; return its name."""
        ids = np.arange(self.next, self.next + rows)
        self.next += rows
        made = {
            "id": ids,
            "age": np.clip(self.rng.normal(mean, 8, rows), 0, None).astype(int),
            "city": self.rng.choice(["Bern", "Basel"], rows),
            "email": [f"person{number:06}@example.org" for number in ids],
            **columns,
        }
        path = self.folder / f"{self.next:06}.csv"
        pc.write_csv(pa.table(made), path)
        upload(self.dev, "visits", path)
        return path.name

    def deliver(self, rows: int, mean: float = 40.0, **columns: Any) -> None:
        self.file(rows, mean, **columns)
        ingest(self.dev, self.contract, lambda _: None)


def verdicts(report: DataMonitorReport, check: str) -> dict[str, str]:
    return {each.subject: each.verdict for each in report.findings if each.check == check}


def test_a_table_without_rows_is_unknown_and_still_counts_as_a_run(dev: EnvironmentDescriptor) -> None:
    report, name = run_data_monitor(dev, CONTRACT, "empty-test")
    assert (report.verdict, report.snapshot, report.delivery) == ("unknown", None, None)
    assert name.endswith("-empty")
    assert read_report(dev, "visits", name) == report
    sent = {each["MetricName"] for each in boto3.client("cloudwatch").list_metrics(Namespace="empty-test")["Metrics"]}
    assert {"Runs", "Alarms", "UnknownChecks"} <= sent


def test_the_first_delivery_has_nothing_to_compare_with_and_says_so(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    Source(dev, tmp_path).deliver(200)
    drift = [each for each in examine(dev, CONTRACT, NOW).findings if each.check == "drift"]
    assert {each.reason for each in drift} == {"this is the first delivery"}
    assert {each.subject for each in drift} == {"age", "city", "email"}


def test_drift_is_found_in_the_newest_delivery_and_only_where_it_is(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    source = Source(dev, tmp_path)
    for _ in range(3):
        source.deliver(400)
    assert verdicts(examine(dev, CONTRACT, NOW), "drift") == {"age": "ok", "city": "ok", "email": "ok"}
    source.deliver(400, mean=48)
    report = examine(dev, CONTRACT, NOW)
    assert (report.verdict, verdicts(report, "drift")) == ("alarm", {"age": "alarm", "city": "ok", "email": "ok"})
    assert report.delivery is not None
    assert (report.delivery.rows, report.delivery.reference_rows) == (400, 1_200)


def test_the_files_of_one_run_of_the_ingest_job_are_one_delivery(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    source = Source(dev, tmp_path)
    source.deliver(150)
    source.file(100, mean=60)
    source.file(50, mean=60)
    ingest(dev, CONTRACT, lambda _: None)
    before, newest = deliveries(open_table(dev, "visits"))
    assert (before.rows, newest.rows, len(newest.batches)) == (150, 150, 2)
    assert verdicts(examine(dev, CONTRACT, NOW), "drift")["age"] == "alarm"


def test_rows_that_are_released_later_belong_to_the_delivery_of_their_file(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    source = Source(dev, tmp_path)
    name = source.file(120, age=[-1] * 20 + [30] * 100)
    ingest(dev, CONTRACT, lambda _: None)
    source.deliver(110)
    wider = contract(column("age", "integer"), column("city", "string"), column("email", "string"))
    ingest(dev, wider, lambda _: None, only=name, replay=True)
    first, newest = deliveries(open_table(dev, "visits"))
    assert (first.rows, newest.rows) == (120, 110)


def test_rows_of_versions_that_have_expired_are_still_compared_with(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    source = Source(dev, tmp_path)
    for _ in range(3):
        source.deliver(200)
    oldest = str(deliveries(open_table(dev, "visits"))[0].snapshots[0])
    make_change(dev, CONTRACT, TableChange(action="expire", snapshots=(oldest,)), lambda _: None)
    assert len(deliveries(open_table(dev, "visits"))) == 2
    column = next(each for each in examine(dev, CONTRACT, NOW).columns if each.column == "age")
    assert (column.reference_rows, column.current_rows) == (400, 200)


def test_the_maintenance_of_the_table_leaves_what_is_compared_as_it_is(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "FEWEST_FILES", 2)
    few = [
        {"property": "monitoring", "value": {"reference_deliveries": 2}},
        {"property": "maximumQuarantinedPercent", "value": 100},
    ]
    declared = contract(
        column("age", "integer", minimum=0), column("city", "string"), column("email", "string"), customProperties=few
    )
    source = Source(dev, tmp_path, declared)
    for mean in (90.0, 90.0, 40.0, 40.0, 40.0):
        source.deliver(200, mean=mean)
    before = examine(dev, declared, NOW)
    done = maintain_table(dev, declared, (), NOW + timedelta(days=400), lambda _: None)
    assert (done["JoinedFiles"], done["ExpiredVersions"]) == (2, 0)
    after = examine(dev, declared, NOW)
    assert (after.columns, after.delivery) == (before.columns, before.delivery)
    column_age = next(each for each in after.columns if each.column == "age")
    assert (column_age.reference_rows, column_age.current_rows) == (400, 200)


def test_a_column_that_is_new_is_unknown_until_it_has_a_history(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    source = Source(dev, tmp_path)
    source.deliver(200)
    grown = contract(*(column(name, "string") for name in ("city", "email")), column("age", "integer"),
                     column("height", "number"))  # fmt: skip
    source.contract = grown
    source.deliver(200, height=source.rng.normal(170, 10, 200))
    report = examine(dev, grown, NOW)
    (drift,) = [each for each in report.findings if (each.check, each.subject) == ("drift", "height")]
    assert (drift.verdict, drift.reason) == ("unknown", "the column is new: no earlier delivery has it")
    assert "height" not in verdicts(report, "nulls"), "rows from before the column are not rows without a value"
    assert verdicts(report, "schema") == {"height": "watch"}
    source.deliver(200, height=source.rng.normal(170, 10, 200))
    again = examine(dev, grown, NOW)
    assert verdicts(again, "drift")["height"] == "ok"
    assert "height" not in verdicts(again, "nulls")
    (height,) = [each for each in again.columns if each.column == "height"]
    assert (height.reference_rows, height.reference_nulls) == (200, 0)
    assert verdicts(again, "schema") == {"": "ok"}


def test_more_quarantined_rows_and_rejected_files_are_reported(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    source = Source(dev, tmp_path)
    source.deliver(300)
    source.deliver(300, age=[-1] * 30 + [40] * 270)
    rejected = tmp_path / "broken.csv"
    rejected.write_text("nothing,of,this\n1,2,3\n")
    upload(dev, "visits", rejected)
    ingest(dev, CONTRACT, lambda _: None)
    assert verdicts(examine(dev, CONTRACT, NOW), "quality") == {
        "": "alarm",
        "age: minimum": "alarm",
        "landing files": "watch",
    }
    drop(dev, CONTRACT, "broken.csv", "not ours")
    assert "landing files" not in verdicts(examine(dev, CONTRACT, NOW), "quality")


def test_ignored_columns_are_left_out_with_a_reason(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    Source(dev, tmp_path).deliver(200)
    settings = [{"property": "monitoring", "value": {"ignored_columns": ["age"], "minimum_rows": 30}}]
    ignoring = contract(column("age", "integer"), column("city", "string"), customProperties=settings)
    report = examine(dev, ignoring, NOW)
    assert "age" not in verdicts(report, "drift")
    assert report.skipped == {"id": "its values are unique", "age": "ignored in the contract"}


def test_no_value_of_a_classified_text_or_of_few_rows_is_in_a_report(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    source = Source(dev, tmp_path)
    source.deliver(200, email=["ada@example.org", "grace@example.org"] * 100)
    source.deliver(99, age=[77] * 99)
    report, name = run_data_monitor(dev, CONTRACT, "")
    text = report.model_dump_json() + read_page(dev, "visits", name).decode()
    assert "example.org" not in text
    assert "Bern" not in text, "99 rows are too few to show"
    assert {each.column: len(each.bars) for each in report.columns} == {"age": 0, "city": 0, "email": 0}


def test_a_report_is_found_by_the_start_of_its_name(dev: EnvironmentDescriptor) -> None:
    with pytest.raises(MlopsError, match="no monitor report"):
        find_report(dev, "visits")
    names = [run_data_monitor(dev, CONTRACT, "", NOW + timedelta(days=day))[1] for day in (0, 1, 2)]
    assert report_names(dev, "visits") == names[::-1]
    assert find_report(dev, "visits") == names[-1]
    assert find_report(dev, "visits", names[0][:8]) == names[0]
    for wrong in ("2", "1999"):
        with pytest.raises(MlopsError, match="expected the name of one report"):
            find_report(dev, "visits", wrong)


def test_a_damaged_report_is_refused_by_name(dev: EnvironmentDescriptor) -> None:
    key = "monitoring/data/visits/20260101T000000Z-1.json"
    boto3.client("s3").put_object(Bucket=dev.logs_bucket, Key=key, Body=b'{"format": "mlops/data-monitor/v2"}')
    with pytest.raises(MlopsError, match=f"{key} is not a monitor report"):
        read_report(dev, "visits", find_report(dev, "visits"))


def test_two_monitors_at_once_write_one_report_of_the_same_second(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    Source(dev, tmp_path).deliver(200)
    with ThreadPoolExecutor(2) as both:
        runs = [both.submit(run_data_monitor, dev, CONTRACT, "", NOW) for _ in range(2)]
        found = [each.result() for each in runs]
    assert found[0] == found[1]
    assert report_names(dev, "visits") == [found[0][1]]


@pytest.mark.parametrize("after", ["page", "report"])
def test_a_monitor_that_is_killed_midway_sends_no_metrics_and_the_next_run_is_complete(
    dev: EnvironmentDescriptor, tmp_path: Path, after: str
) -> None:
    Source(dev, tmp_path).deliver(200)
    namespace = f"killed-after-{after}"
    patched = {"page": "stored.store.put_new", "report": "data_monitor.publish_metrics"}[after]
    code = f"""
import os, signal
from pipelines.monitoring import data_monitor, monitor_reports as stored
from pipelines.declarations.environment import EnvironmentDescriptor
from tests.pipelines.monitoring.test_data_monitor import CONTRACT
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
{patched} = die
data_monitor.run_data_monitor(EnvironmentDescriptor.from_environ(), CONTRACT, {namespace!r})
"""
    environ = {**os.environ, "MLOPS_ENVIRONMENT": dev.model_dump_json()}
    killed = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    cloudwatch = boto3.client("cloudwatch")
    assert cloudwatch.list_metrics(Namespace=namespace)["Metrics"] == []
    assert len(report_names(dev, "visits")) == (0 if after == "page" else 1)
    _, name = run_data_monitor(dev, CONTRACT, namespace)
    assert find_report(dev, "visits") == name
    assert cloudwatch.list_metrics(Namespace=namespace)["Metrics"]


def test_a_denied_bucket_is_an_error_that_names_the_permission(
    account: EmulatedAccount, dev: EnvironmentDescriptor
) -> None:
    account.denied.add(dev.logs_bucket)
    try:
        with pytest.raises(AccessDeniedError, match="s3:PutObject"):
            run_data_monitor(dev, CONTRACT, "")
    finally:
        account.denied.discard(dev.logs_bucket)


def test_the_day_that_is_not_over_is_not_judged_if_more_deliveries_are_due() -> None:
    hourly = contract(slaProperties=[{"property": "frequency", "value": 1, "unit": "h"}])
    daily = contract(slaProperties=[{"property": "frequency", "value": 1, "unit": "d"}])
    weekly = contract(slaProperties=[{"property": "frequency", "value": 1, "unit": "w"}])
    now = datetime(2026, 3, 3, 12, tzinfo=UTC)
    one = Delivery((1,), (), now - timedelta(days=2), 100, {})
    found = [one, replace(one, committed=now - timedelta(days=1)), replace(one, committed=now, rows=50)]
    assert volume_series(hourly, found, now).rows == (100, 100)
    assert volume_series(hourly, found, now + timedelta(days=1)).rows == (100, 100, 50)
    assert volume_series(daily, found, now).rows == (100, 100, 50)
    series = volume_series(weekly, [found[0], found[2]], now)
    assert (series.seasonal, series.rows) == (False, (100, 50))


def test_a_page_is_small_self_contained_escaped_and_always_the_same(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    source = Source(dev, tmp_path)
    source.deliver(300)
    source.deliver(300, city=["<script>alert(1)</script>"] * 150 + ["Bern"] * 150)
    report = examine(dev, CONTRACT, NOW)
    page = render_page(report)
    assert page == render_page(DataMonitorReport.model_validate_json(report.model_dump_json()))
    text = page.decode()
    assert "&lt;script&gt;" in text
    assert not re.search(r"<script|<link|<img|https?://|url\(", text)
    assert len(page) < 150_000
    for each in report.findings:
        assert each.verdict in text


def test_the_command_of_the_job_prints_the_verdict_and_an_error_without_a_traceback(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    from tests.sample_project import PROJECT

    def run(dataset: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipelines.monitoring", "data", dataset]
        root = str(Path(__file__).parents[3])
        environ = {**os.environ, "PYTHONPATH": root, **variables}
        return subprocess.run(
            command, cwd=PROJECT, env=environ, capture_output=True, text=True, check=False, timeout=120
        )

    unknown = run("nothing", MLOPS_ENVIRONMENT=dev.model_dump_json())
    assert (unknown.returncode, unknown.stderr.count("error: ")) == (1, 1)
    assert "Traceback" not in unknown.stderr
    no_table = run("diabetes-patients", MLOPS_ENVIRONMENT=dev.model_dump_json())
    assert no_table.returncode == 1
    assert "no Iceberg table" in no_table.stderr
    assert "Traceback" not in no_table.stderr


def test_a_run_emits_what_it_read_and_found_as_lineage(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    source = Source(dev, tmp_path)
    for _ in range(3):
        source.deliver(400)
    source.deliver(400, mean=48)
    report, name = run_data_monitor(dev, CONTRACT, "")
    keys = [each.key for each in store.listing(dev.logs_bucket, "lineage/monitor-visits/")]
    events = [json.loads(store.get(dev.logs_bucket, key, limit=1 << 20).content) for key in keys]
    (last,) = [event for event in events if event["eventType"] == "COMPLETE"]
    (table,), (reports,) = last["inputs"], last["outputs"]
    assert table["facets"]["version"]["datasetVersion"] == report.snapshot
    found = {
        (each["assertion"], each.get("column")): each["success"]
        for each in table["inputFacets"]["dataQualityAssertions"]["assertions"]
    }
    assert (found["drift", "age"], found["drift", "city"], found["schema", None]) == (False, True, True)
    assert (reports["name"], reports["facets"]["version"]["datasetVersion"]) == ("monitoring/data/visits", name)
