"""Page of the report of a model's monitor: one HTML file without scripts and without requests to other hosts."""

from __future__ import annotations

from pipelines.monitoring.labelled_checks import BLIND
from pipelines.monitoring.model_report import ModelMonitorReport
from pipelines.monitoring.report_page import (
    SUMMARIES,
    badge,
    cell,
    checks,
    comparison_cards,
    escaped,
    fact_list,
    not_compared,
    page_of,
)
from pipelines.monitoring.svg_plots import interval_plot

_LITTLE = 0.5
"""Share of labelled rows below which a window is drawn faintly."""


def render_model_page(report: ModelMonitorReport) -> bytes:
    """Render a report. The same report always makes the same bytes."""
    title = f"{report.model} in {report.environment}: {report.verdict}"
    drift = [finding for finding in report.findings if finding.check == "input-drift"]
    outputs = [finding for finding in report.findings if finding.check == "prediction-drift"]
    body = [
        f"<h1>{escaped(report.model)} {badge(report.verdict)}</h1>",
        f'<p class="soft">{SUMMARIES[report.verdict]}</p>',
        _facts(report),
        "<h2>Checks</h2>",
        checks(report.findings, "model"),
        *_accuracy(report),
        *_calibration(report),
        *_groups(report),
        *comparison_cards("Predictions", report.outputs, outputs, "holdout", "window"),
        *comparison_cards("Features", report.features, drift, "training data", "window"),
        _notes(report),
    ]
    return page_of(title, body)


def _facts(report: ModelMonitorReport) -> str:
    facts = [
        ("Environment", report.environment),
        ("Window", f"{report.window_start:%Y-%m-%d %H:%M} to {report.window_end:%Y-%m-%d %H:%M} UTC"),
        ("Requests", f"{report.requests:,}"),
        ("Rows", f"{report.rows:,}"),
    ]
    if report.labels is not None:
        facts.append(("Labels joined", f"{report.labels.joined:,} of {report.labels.read:,}"))
    return fact_list(facts)


def _accuracy(report: ModelMonitorReport) -> list[str]:
    parts = []
    for metric in dict.fromkeys(one.metric for one in report.accuracy):
        windows = [one for one in report.accuracy if one.metric == metric and one.value is not None]
        points = [(f"{one.start:%Y-%m-%d %H:%M}", one.value, one.low, one.high) for one in windows]
        known = [(label, value, low, high) for label, value, low, high in points
                 if value is not None and low is not None and high is not None]  # fmt: skip
        if not known:
            continue
        limits = [
            finding.threshold
            for finding in report.findings
            if finding.check == "accuracy" and finding.unit == metric and finding.threshold is not None
        ]
        faint = [one.labelled < _LITTLE * one.rows for one in windows]
        plot = interval_plot(known, limits, f"{metric} by window of requests", faint)
        parts += [f"<h3>{escaped(metric)}</h3>", f'<div class="scroll" tabindex="0">{plot}</div>']
    if not parts:
        return []
    note = (
        '<p class="soft">By the time of the request, as far as labels have arrived; each run states it again. '
        "Grey: less than half of the rows are labelled. Dashed: the bound.</p>"
    )
    return ["<h2>Accuracy</h2>", note, *parts]


def _calibration(report: ModelMonitorReport) -> list[str]:
    if not report.calibration:
        return []
    rows = "".join(
        f"<tr>{cell('Predicted', f'{one.predicted:.1%}')}{cell('Observed', f'{one.observed:.1%}')}"
        f"{cell('Rows', f'{one.rows:,}')}</tr>"
        for one in report.calibration
    )
    head = '<th class="n">Predicted</th><th class="n">Observed</th><th class="n">Rows</th>'
    return ["<h2>Calibration</h2>", f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"]


def _groups(report: ModelMonitorReport) -> list[str]:
    if not report.groups:
        return []
    rows = "".join(
        f"<tr><td><code>{escaped(one.attribute)}</code> {escaped(one.group)}</td><td>{escaped(one.metric)}</td>"
        f"{cell('Value', _value(one.value))}{cell('From', _value(one.low))}{cell('To', _value(one.high))}"
        f"{cell('Rows', f'{one.rows:,}')}</tr>"
        for one in report.groups
    )
    head = '<th>Group</th><th>Metric</th><th class="n">Value</th><th class="n">From</th><th class="n">To</th>'
    table = f'<table><thead><tr>{head}<th class="n">Rows</th></tr></thead><tbody>{rows}</tbody></table>'
    return ["<h2>Groups</h2>", table]


def _value(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _notes(report: ModelMonitorReport) -> str:
    bundle = f" Bundle <code>{escaped(report.bundle)}</code>." if report.bundle else ""
    return (
        "<details><summary>How to read this</summary>"
        "<p>Drift compares the window with the bundle's baseline. It is an alarm if it is significant after control of "
        "the false discovery rate over all columns, and at least the share of rows in <em>Alarm at</em> moved to "
        "another part of the distribution. Drift does not say that predictions got worse: labels do. Accuracy is an "
        f"alarm if its whole interval is beyond the bound. Without labels, accuracy is estimated: {BLIND}.</p>"
        f"{not_compared(report.skipped)}</details>"
        f'<p class="soft">Examined {report.time:%Y-%m-%d %H:%M} UTC.{bundle}</p>'
    )
