"""The report in an issue has every finding and what changed, fits, and shows neither markup nor data of people."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pipelines.monitoring.column_comparison import ColumnComparison, ShareBar
from pipelines.monitoring.model_report import GroupFigure, ModelMonitorReport
from pipelines.monitoring.monitor_findings import MonitorFinding
from pipelines.monitoring.report_markdown import MOST_CHANGES, report_markdown
from tests.pipelines.monitoring.model_reports import full_report
from tests.pipelines.monitoring.served_model import NOW, OTHER

LONGEST = 60_000


def report(*findings: MonitorFinding, **changes: Any) -> ModelMonitorReport:
    return full_report().model_copy(update={"findings": findings, **changes})


def finding(verdict: Any = "alarm", subject: str = "", **facts: Any) -> MonitorFinding:
    return MonitorFinding(**{"check": "input-drift", "reason": "it moved", **facts}, verdict=verdict, subject=subject)


def earlier(*findings: MonitorFinding, **changes: Any) -> ModelMonitorReport:
    return report(*findings, time=NOW - timedelta(days=1), **changes)


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| verdict", "| ---"))]


def test_every_finding_is_a_row_with_its_figures_and_the_worst_is_first() -> None:
    found = [
        finding("ok", "income", figure=0.01, threshold=0.04, rows=1200, reason="1.0% of the values moved"),
        finding("alarm", "age", figure=0.123, threshold=0.04, rows=1200, reason="12.3% of the values moved"),
        finding("unknown", "a", check="fairness", reason="no rows"),
        finding("unknown", "b", check="fairness", reason="no rows"),
    ]
    text = report_markdown(report(*found), None, LONGEST)
    assert rows(text) == [
        "| alarm | input-drift | age | 12.3% | 4.0% | 1,200 | 12.3% of the values moved |",
        "| unknown | fairness | a, b |  |  |  | no rows |",
        "| ok | input-drift | income | 1.0% | 4.0% | 1,200 | 1.0% of the values moved |",
    ]
    assert "<summary>1 check is ok</summary>" in text
    assert "There is no earlier report to compare with." in text


def test_changes_of_verdicts_since_the_report_before_are_listed() -> None:
    now = report(finding("alarm", "age", figure=0.12), finding("ok", "income"), finding("watch", "new"))
    before = earlier(finding("ok", "age", figure=0.01), finding("ok", "income"), finding("ok", "old"), bundle=OTHER)
    text = report_markdown(now, before, LONGEST)
    assert "Changes since the report of" in text
    changes = [line for line in text.splitlines() if line.startswith("- ") and ("→" in line or " was " in line)]
    assert changes == [
        f"- the live bundle was `{OTHER[:19]}`",
        "- input-drift of age: ok (1.0%) → alarm (12.0%)",
        "- input-drift of new: not checked → watch",
        "- input-drift of old: ok → not checked",
    ]
    assert "No verdict changed since" in report_markdown(now, now, LONGEST)


@pytest.mark.parametrize("number", [2000, 8000])
def test_a_large_report_is_cut_to_the_limit_and_says_how_much_is_left(number: int) -> None:
    found = [
        finding("alarm" if one % 2 else "ok", f"column-{one}", figure=0.1, reason=f"reason {one} |" + "<é&" * 60)
        for one in range(number)
    ]
    text = report_markdown(report(*found), earlier(), LONGEST)
    assert len(text.encode()) <= LONGEST
    assert len(rows(text)) > 40
    left = [line for line in text.splitlines() if line.endswith(" more, in the full report")]
    shown = len(rows(text))
    assert sum(int(line.split()[2].replace(",", "")) for line in left) == number - shown
    assert text.count("→") == MOST_CHANGES


def test_names_of_columns_and_reasons_are_neither_markup_nor_mentions_nor_links() -> None:
    bad = "x`|\n[a](https://evil.example) <img src=x> @everyone #1 https://evil.example ##[error]x\n::error::x"
    text = report_markdown(report(finding("alarm", bad, reason=bad)), earlier(finding("ok", bad)), LONGEST)
    assert "<img" not in text and "@everyone" not in text and "https://" not in text and "##[" not in text
    assert not [line for line in text.splitlines() if line.startswith("::")]
    assert len(rows(text)) == 1, "a line break begins no row"


def test_data_of_people_stays_in_the_bucket() -> None:
    bars = (ShareBar(label="secret value", reference=0.5, current=0.9),)
    column = ColumnComparison(
        column="plan", kind="levels", reference_rows=9, current_rows=9, reference_nulls=0, current_nulls=0, bars=bars
    )
    group = GroupFigure(attribute="sex", group="secret group", metric="accuracy", rows=200, value=0.7)
    found = finding("alarm", "difference of accuracy by sex", check="fairness", groups="secret group: 0.7")
    one = report(found, features=(column,), outputs=(column,), groups=(group,))
    assert "secret" not in report_markdown(one, one, LONGEST)
