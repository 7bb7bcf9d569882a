"""Runs as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipelines.declarations.evaluation import Estimate
from pipelines.declarations.plurals import counted
from pipelines.declarations.printable import log_line, printable, shorten
from pipelines.training_runs.recorded_runs import RecordedRun
from pipelines.training_runs.run_comparison import HOLDOUT, NO_VALUE, RunComparison, describe_facts

COLUMNS = 5
"""Facts and metrics that each line of a comparison shows, of each kind; the others are named below."""

SIDE_BY_SIDE = 4
"""Runs up to which each has a column, with every fact and metric."""

WIDEST = 32
"""Characters of a cell."""


def list_lines(runs: Iterable[RecordedRun], metric: str) -> list[str]:
    """Return a line for each run: id, time, a metric, data, commit and bundle.

    Args:
        runs: the runs.
        metric: the metric to show.
    """
    rows = [["run", "ended (UTC)", metric, "data", "commit", "bundle"]]
    for run in runs:
        time = f"{run.ended:%Y-%m-%d %H:%M:%S}"
        bundle = run.bundle[:19] if run.bundle is not None else NO_VALUE
        if run.facts is None:
            rows.append([run.id, time, f"({run.problem})", "", "", bundle])
            continue
        facts = describe_facts(run.facts)
        rows.append([run.id, time, figure(run.facts.metrics.get(metric)), facts["data"], facts["commit"], bundle])
    return _table(rows)


def comparison_lines(comparison: RunComparison) -> list[str]:
    """Return a comparison as lines: what differs first, then the metrics, then what is the same."""
    if not comparison.runs:
        return [f"no runs of {comparison.model} to compare", *_left_out(comparison)]
    direction = "lower" if comparison.lower_is_better else "higher"
    lines = [f"{counted(len(comparison.runs), 'run')} of {comparison.model}, {comparison.sort}: {direction} is better"]
    if not comparison.has_one_holdout:
        lines.append(
            f"Their holdouts differ, so a metric compares data as well as models: see {HOLDOUT}. "
            "The regression of a release is judged on rows that both bundles have."
        )
    if any(comparison.mark(run, comparison.sort) for run in comparison.runs):
        lines.append("~ : the 95% interval includes the best value, so the difference may be chance.")
    lines += ["", *(_side_by_side(comparison) if len(comparison.runs) <= SIDE_BY_SIDE else _one_a_line(comparison))]
    same = ", ".join(f"{name} {value}" for name, value in comparison.same.items())
    lines += ["", f"The same in all: {same or 'nothing'}", *_left_out(comparison)]
    return [log_line(line) for line in lines]


def _side_by_side(comparison: RunComparison) -> list[str]:
    runs = comparison.runs
    rows = [["run", *(each.run.id for each in runs)]]
    rows.append(["kind", *(each.run.environment or "experiment" for each in runs)])
    rows.append(["ended (UTC)", *(f"{each.run.ended:%Y-%m-%d %H:%M:%S}" for each in runs)])
    rows += [[name, *(each.texts.get(name, NO_VALUE) for each in runs)] for name in comparison.differing]
    rows.append([""])
    every = dict.fromkeys([*comparison.metrics, *(name for each in runs for name in each.facts.metrics)])
    for metric in every:
        figures = (f"{figure(each.metric(metric), interval=True)}{comparison.mark(each, metric)}" for each in runs)
        rows.append([metric, *figures])
    return _table(rows)


def _one_a_line(comparison: RunComparison) -> list[str]:
    facts, metrics = comparison.differing[:COLUMNS], comparison.metrics[:COLUMNS]
    rows = [["run", "ended (UTC)", *facts, *metrics]]
    for each in comparison.runs:
        time = f"{each.run.ended:%Y-%m-%d %H:%M}"
        figures = [f"{figure(each.metric(metric))}{comparison.mark(each, metric)}" for metric in metrics]
        name = each.run.id if each.run.environment is not None else f"{each.run.id} (experiment)"
        rows.append([name, time, *(each.texts.get(fact, NO_VALUE) for fact in facts), *figures])
    lines = _table(rows)
    hidden = [*comparison.differing[COLUMNS:], *comparison.metrics[COLUMNS:]]
    if hidden:
        lines += ["", f"Not shown: {', '.join(hidden)}. --format html or json shows everything."]
    return lines


def run_lines(run: RecordedRun) -> list[str]:
    """Return everything about a run as lines."""
    where = f"registered in {run.environment}" if run.environment is not None else "an experiment of this working tree"
    lines = [f"{run.id}: {where}", f"ended {run.ended:%Y-%m-%d %H:%M:%S} UTC", f"bundle {run.bundle or NO_VALUE}"]
    if run.facts is None:
        return [*lines, run.problem]
    rows = [[name, value] for name, value in describe_facts(run.facts).items()]
    lines += ["", *_table(rows), ""]
    lines += _table([[name, figure(value, interval=True)] for name, value in run.facts.metrics.items()])
    return [log_line(line) for line in lines]


def figure(estimate: Estimate | None, *, interval: bool = False) -> str:
    """Return a metric as text; with its 95 % interval if there is one."""
    if estimate is None or estimate.value is None:
        return "undefined"
    text = f"{estimate.value:.4g}"
    if interval and estimate.low is not None and estimate.high is not None:
        text += f" ({estimate.low:.4g} to {estimate.high:.4g})"
    return text


def _left_out(comparison: RunComparison) -> list[str]:
    return [f"left out: {run.id}, because {run.problem}" for run in comparison.left_out]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align cells in columns. Cells are made safe to print; all but the first are cut to `WIDEST` characters."""
    shown = [[printable(row[0]), *(shorten(cell, WIDEST) for cell in row[1:])] for row in rows]
    widths = [max(len(row[at]) for row in shown if at < len(row)) for at in range(max(map(len, shown)))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in shown]
