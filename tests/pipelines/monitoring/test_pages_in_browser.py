"""Pages of reports in a browser: they fit a phone, draw their plots, and break no rule of their policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from pipelines.monitoring.column_comparison import ColumnComparison, ShareBar
from pipelines.monitoring.data_report import DataMonitorReport, VolumePoint
from pipelines.monitoring.model_report_page import render_model_page
from pipelines.monitoring.monitor_findings import DataCheck, MonitorFinding, MonitorVerdict
from pipelines.monitoring.report_page import render_page
from pipelines.training_runs.run_comparison import compare_runs
from pipelines.training_runs.run_page import render_comparison
from tests.browser import needs_chromium, show_page
from tests.pipelines.monitoring.model_reports import full_report
from tests.pipelines.training_runs.recorded import make_facts, make_run
from tests.signing_environments import MODEL

pytestmark = [pytest.mark.slow, needs_chromium]

LONG = "x" * 120
"""A text without a place to break it, as in the name of a file or a value."""


def data_report() -> DataMonitorReport:
    """Return a report with a finding of each check, and texts that cannot be broken."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    subjects: tuple[tuple[str, MonitorVerdict], ...] = (("c" * 63, "alarm"), ("", "unknown"), (LONG, "ok"))
    findings = [
        MonitorFinding(check=check, subject=subject, verdict=verdict, figure=0.5, rows=10**9, reason=f"found {LONG}")
        for check in get_args(DataCheck)
        for subject, verdict in subjects
    ]
    bars = tuple(ShareBar(label=LONG, reference=0.1, current=0.1) for _ in range(10))
    facts: dict[str, Any] = {
        "reference_rows": 10**9,
        "current_rows": 10**9,
        "reference_nulls": 0,
        "current_nulls": 0,
        "p_value": 0.5,
    }
    return DataMonitorReport(
        environment="dev",
        dataset="d" * 40,
        contract="1.0.0",
        created=now,
        snapshot="1" * 19,
        verdict="alarm",
        findings=tuple(findings),
        columns=(ColumnComparison(column="c" * 63, kind="levels", bars=bars, **facts),),
        volumes=tuple(VolumePoint(label=f"{now + timedelta(days=day):%Y-%m-%d}", rows=10**9) for day in range(60)),
        expected_low=1.0,
        expected_high=1e9,
        skipped={"k" * 63: "it is a key"},
    )


PAGES = {
    "dataset": (render_page(data_report()), 2),
    "model": (render_model_page(full_report()), 1),
    "runs": (render_comparison(compare_runs(MODEL, [make_run(LONG, make_facts()), make_run("two")], "rmse")), 1),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone_and_shows_its_plots(name: str, tmp_path: Path) -> None:
    page, drawings = PAGES[name]
    shown = show_page(page.decode(), tmp_path)
    assert shown.width == 360
    assert shown.needed <= shown.width
    assert shown.drawings >= drawings
    assert shown.complaints == ()
