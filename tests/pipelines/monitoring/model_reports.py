"""A report of a model's monitor with every kind of finding."""

from __future__ import annotations

from datetime import timedelta

from pipelines.declarations.model_monitoring import MODEL_CHECKS
from pipelines.monitoring.model_report import AccuracyWindow, LabelCounts, ModelMonitorReport
from pipelines.monitoring.monitor_findings import MonitorFinding
from tests.pipelines.monitoring.served_model import DIGEST, NOW


def full_report() -> ModelMonitorReport:
    """Return a report with a finding of each check and one window of accuracy."""
    start = NOW - timedelta(days=1)
    return ModelMonitorReport(
        model="departures",
        environment="dev",
        bundle=DIGEST,
        time=NOW,
        window_start=start,
        window_end=NOW,
        requests=1000,
        rows=1000,
        verdict="alarm",
        findings=tuple(
            MonitorFinding(check=check, verdict="alarm", figure=0.5, reason="it is so") for check in MODEL_CHECKS
        ),
        accuracy=(
            AccuracyWindow(
                start=start, end=NOW, metric="accuracy", rows=1000, labelled=400, value=0.8, low=0.7, high=0.9
            ),
        ),
        labels=LabelCounts(read=400, joined=400),
    )
