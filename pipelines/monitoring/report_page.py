"""Page of a monitor's report: one HTML file without scripts and without requests to other hosts."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.declarations.plurals import counted
from pipelines.monitoring.monitor_findings import (
    CheckKind,
    MonitorFinding,
    MonitorVerdict,
    figure_text,
    full_reason,
    in_order,
    in_rows,
)
from pipelines.monitoring.svg_plots import share_plot, volume_plot

if TYPE_CHECKING:
    from pipelines.monitoring.column_comparison import ColumnComparison
    from pipelines.monitoring.data_report import DataMonitorReport

_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--card:#f6f7f9;--text:#1b1f24;--soft:#57606a;--line:#d8dee4;--old:#8c959f;
--new:#0b62c4;--ok:#116329;--watch:#7d4e00;--alarm:#b3141f;--unknown:#57606a;--okbg:#dafbe1;--watchbg:#fff1c2;
--alarmbg:#ffe2e0;--unknownbg:#eaeef2;--band:#0b62c4}
@media(prefers-color-scheme:dark){:root{--bg:#0f1318;--card:#171c23;--text:#e8edf2;--soft:#a3adb8;--line:#323a44;
--old:#7d8792;--new:#66aaff;--ok:#7ee2a0;--watch:#f2cc60;--alarm:#ff9d96;--unknown:#b5bfca;--okbg:#12331f;
--watchbg:#3a2d06;--alarmbg:#4a1717;--unknownbg:#262d36;--band:#66aaff}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;
overflow-wrap:break-word}
main{max-width:1120px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:1.7rem;line-height:1.25;margin:0 0 4px}h2{font-size:1.15rem;margin:34px 0 10px}h3{font-size:1rem;margin:0}
p{margin:4px 0}.soft{color:var(--soft)}
.badge{display:inline-block;padding:1px 9px;border-radius:99px;font-size:.82rem;font-weight:600;white-space:nowrap}
.ok{color:var(--ok);background:var(--okbg)}.watch{color:var(--watch);background:var(--watchbg)}
.alarm{color:var(--alarm);background:var(--alarmbg)}.unknown{color:var(--unknown);background:var(--unknownbg)}
h1 .badge{font-size:1rem;vertical-align:4px;margin-left:8px}
.facts{display:flex;flex-wrap:wrap;gap:10px 34px;margin:18px 0 0;padding:0}
.facts div{min-width:110px}.facts dt{color:var(--soft);font-size:.82rem}
.facts dd{margin:0;font-size:1.12rem;font-weight:600}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:7px 12px 7px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--soft);font-weight:600;font-size:.82rem}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
details{margin-top:10px}summary{cursor:pointer;color:var(--soft)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:16px}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px}
.card header{display:flex;justify-content:space-between;gap:8px;align-items:baseline}
.card p{font-size:.88rem}
svg{display:block;width:100%;height:auto;margin-top:8px}
svg text{fill:var(--soft);font-size:11px}.grid{stroke:var(--line);stroke-width:1}
.old{fill:var(--old)}.new{fill:var(--new)}.hit{fill:transparent}
.span{stroke-width:2}.span.new{stroke:var(--new)}.span.old{stroke:var(--old)}
.band{fill:none;stroke:var(--band);stroke-width:1.5;stroke-dasharray:4 3}
.run{fill:none;stroke:var(--old);opacity:.4}.run.best{stroke:var(--new);opacity:.9;stroke-width:1.5}
.run:hover{stroke:var(--alarm);opacity:1;stroke-width:3}
.key{display:flex;flex-wrap:wrap;gap:2px 18px;font-size:.88rem;color:var(--soft)}
.key i{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:6px}
.scroll>svg{min-width:640px}
@media(max-width:720px){body{overflow-wrap:anywhere}thead{display:none}
tr{display:flex;flex-wrap:wrap;gap:2px 14px;padding:10px 0;border-bottom:1px solid var(--line)}
td,td.n{border:0;padding:0;text-align:left}td.n:empty{display:none}
td[data-label]::before{content:attr(data-label) " ";color:var(--soft)}td:last-child{flex-basis:100%}}
summary:focus-visible,.scroll:focus-visible{outline:3px solid var(--new);outline-offset:2px}
"""

_CHECKS: dict[CheckKind, str] = {
    "schema": "Schema",
    "freshness": "Freshness",
    "volume": "Volume",
    "rows": "Rows",
    "quality": "Quality",
    "nulls": "Missing values",
    "drift": "Drift",
    "traffic": "Traffic",
    "errors": "Errors",
    "latency": "Latency",
    "input-quality": "Input quality",
    "input-drift": "Input drift",
    "prediction-drift": "Prediction drift",
    "accuracy": "Accuracy",
    "trial-accuracy": "Accuracy of the release on trial",
    "estimated-accuracy": "Estimated accuracy",
    "calibration": "Calibration",
    "fairness": "Fairness",
    "served-bundle": "Served bundle",
}

SUMMARIES: dict[MonitorVerdict, str] = {
    "ok": "Every check passed.",
    "watch": "Nothing must happen, but have a look.",
    "alarm": "Something changed that needs a decision.",
    "unknown": "Not every check can decide yet: see what is missing.",
}


def render_page(report: DataMonitorReport) -> bytes:
    """Render a report. The same report always makes the same bytes."""
    title = f"{report.dataset} in {report.environment}: {report.verdict}"
    body = [
        f"<h1>{escaped(report.dataset)} {badge(report.verdict)}</h1>",
        f'<p class="soft">{SUMMARIES[report.verdict]}</p>',
        _facts(report),
        "<h2>Checks</h2>",
        checks(report.findings),
        *_volume(report),
        *_columns(report),
        _notes(report),
    ]
    return page_of(title, body)


def page_of(title: str, body: Sequence[str]) -> bytes:
    """Return a page with the style of all reports.

    Args:
        title: the title, as text.
        body: the content, as HTML.
    """
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline'\">"
        f"<title>{escaped(title)}</title><style>{_STYLE.replace(chr(10), '')}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )
    return page.encode()


def escaped(text: str) -> str:
    """Return text as HTML."""
    return html.escape(text, quote=True)


def badge(verdict: MonitorVerdict) -> str:
    """Return a verdict as HTML."""
    return f'<span class="badge {verdict}">{verdict}</span>'


def _facts(report: DataMonitorReport) -> str:
    facts = [("Environment", report.environment), ("Examined", f"{report.created:%Y-%m-%d %H:%M} UTC")]
    if report.delivery is not None:
        delivery = report.delivery
        earlier = counted(delivery.reference_deliveries, "delivery")
        facts += [
            ("Newest delivery", f"{delivery.committed:%Y-%m-%d %H:%M} UTC"),
            ("Rows", f"{delivery.rows:,} in {counted(delivery.batches, 'file')}"),
            ("Compared with", f"{delivery.reference_rows:,} rows of {earlier}"),
        ]
    return fact_list(facts)


def fact_list(facts: Iterable[tuple[str, str]]) -> str:
    """Return names and values as HTML."""
    items = "".join(f"<div><dt>{name}</dt><dd>{escaped(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>'


def checks(findings: Iterable[MonitorFinding], whole: str = "dataset") -> str:
    """Return findings as tables, those that passed folded.

    Args:
        findings: the findings.
        whole: what a finding without a subject is about.
    """
    ordered = in_order(findings)
    shown = [finding for finding in ordered if finding.verdict != "ok"]
    passed = ordered[len(shown) :]
    parts = [_table(shown, whole)] if shown else []
    if passed:
        opened = "" if shown else " open"
        noun = "check" if len(passed) == 1 else "checks"
        parts.append(
            f"<details{opened}><summary>{len(passed)} {noun} passed</summary>{_table(passed, whole)}</details>"
        )
    return "".join(parts)


def _table(findings: Sequence[MonitorFinding], whole: str) -> str:
    head = '<th>Verdict</th><th>Check</th><th>Of</th><th class="n">Figure</th><th class="n">Alarm at</th>'
    head += '<th class="n">Adjusted p</th><th class="n">Rows</th><th>Reason</th>'
    rows = "".join(
        f"<tr><td>{badge(each.verdict)}</td><td>{_CHECKS[each.check]}</td>"
        f"<td>{', '.join(f'<code>{escaped(one.subject)}</code>' if one.subject else whole for one in group)}</td>"
        f"{cell('Figure', _figure(each.figure, each.unit))}{cell('Alarm at', _figure(each.threshold, each.unit))}"
        f"{cell('Adjusted p', _p_value(each.p_value))}{cell('Rows', f'{each.rows:,}' if each.rows else '')}"
        f"<td>{escaped(full_reason(each))}</td></tr>"
        for group in in_rows(findings)
        for each in group[:1]
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def cell(label: str, text: str) -> str:
    """Return the cell of a number; narrow screens show the label in front of it."""
    return f'<td class="n" data-label="{label}">{text}</td>'


def _figure(value: float | None, unit: str) -> str:
    return escaped(figure_text(value, unit))


def _p_value(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if value >= 0.001 else "&lt; 0.001"


def _volume(report: DataMonitorReport) -> list[str]:
    if not report.volumes:
        return []
    key = '<span><i class="old" style="background:var(--old)"></i>earlier</span>'
    key += '<span><i style="background:var(--new)"></i>newest</span>'
    if report.expected_low is not None:
        key += "<span>dashed: the range that raises no alarm</span>"
    title = f"Rows of the last {len(report.volumes)} periods"
    plot = volume_plot(report.volumes, report.expected_low, report.expected_high, title)
    return ["<h2>Volume</h2>", f'<p class="key">{key}</p>', f'<div class="scroll" tabindex="0">{plot}</div>']


def _columns(report: DataMonitorReport) -> list[str]:
    findings = [finding for finding in report.findings if finding.check == "drift"]
    return comparison_cards("Columns", report.columns, findings, "before", "newest delivery")


def comparison_cards(
    heading: str,
    columns: Sequence[ColumnComparison],
    drift: Iterable[MonitorFinding],
    reference: str,
    current: str,
) -> list[str]:
    """Return a section with a card for each column, those with the worst verdict first.

    Args:
        heading: the section's heading.
        columns: the comparisons.
        drift: the findings about their drift.
        reference, current: the two sides, in words.
    """
    findings = {finding.subject: finding for finding in drift}
    if not columns or not findings:
        return []
    effects = {column.column: column.effect for column in columns}
    place = {"alarm": 0, "watch": 1, "unknown": 2, "ok": 3}
    order = sorted(findings, key=lambda name: (place[findings[name].verdict], -effects.get(name, 0.0), name))
    by_name = {column.column: column for column in columns}
    key = f'<span><i style="background:var(--old)"></i>{reference}</span>'
    key += f'<span><i style="background:var(--new)"></i>{current}</span>'
    cards = "".join(card(by_name[name], findings[name], current) for name in order if name in by_name)
    return [f"<h2>{heading}</h2>", f'<p class="key">{key}</p>', f'<div class="cards">{cards}</div>']


def card(column: ColumnComparison, finding: MonitorFinding, current: str) -> str:
    """Return the comparison of a column as HTML."""
    what = {"numeric": "", "length": " (length of the text)", "levels": ""}[column.kind]
    parts = [
        f"<header><h3><code>{escaped(column.column)}</code>{what}</h3>{badge(finding.verdict)}</header>",
        f"<p>{escaped(finding.reason)}.</p>",
    ]
    if column.bars:
        parts.append(share_plot(column.bars, f"Distribution of {column.column} before and in the {current}"))
    if column.reference_mean is not None and column.current_mean is not None:
        parts.append(
            f'<p class="soft">mean {column.reference_mean:.4g} → {column.current_mean:.4g}, '
            f"standard deviation {column.reference_deviation or 0.0:.4g} → {column.current_deviation or 0.0:.4g}</p>"
        )
    if column.p_value is not None:
        parts.append(
            f'<p class="soft">population stability index {column.psi:.3f}, '
            f"Jensen-Shannon distance {column.jensen_shannon:.3f}</p>"
        )
    return f'<article class="card">{"".join(parts)}</article>'


def not_compared(skipped: Mapping[str, str]) -> str:
    """List the columns that were not compared, with the reasons."""
    items = "".join(f"<li><code>{escaped(name)}</code>: {escaped(reason)}</li>" for name, reason in skipped.items())
    return f"<p>Not compared:</p><ul>{items}</ul>" if items else ""


def _notes(report: DataMonitorReport) -> str:
    snapshot = f" Snapshot {escaped(report.snapshot)}," if report.snapshot else ""
    return (
        "<details><summary>How to read this</summary>"
        "<p>Drift is an alarm if a difference is significant after control of the false discovery rate over all "
        "columns, and at least the share of rows in <em>Alarm at</em> moved to another part of the distribution. The "
        "parts of a numeric column are ten groups with equal shares of the earlier rows. The stability index and the "
        "Jensen-Shannon distance are for information: they have no error rate.</p>"
        f"{not_compared(report.skipped)}</details>"
        f'<p class="soft">{snapshot} contract {escaped(report.contract)}.</p>'
    )
