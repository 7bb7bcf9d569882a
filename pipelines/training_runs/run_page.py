"""Page of a comparison of runs: one HTML file without scripts and without requests to other hosts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipelines.declarations.plurals import counted
from pipelines.monitoring.report_page import cell, escaped, fact_list, page_of
from pipelines.monitoring.svg_plots import interval_plot, parallel_plot
from pipelines.training_runs.run_comparison import DATA, DIGESTS, NO_VALUE, ComparedRun, RunComparison
from pipelines.training_runs.run_lines import figure

MOST_ROWS = 100
"""Runs in the table: the best ones."""

MOST_COLUMNS = 60
"""Metrics in the table."""

MOST_AXES = 9
MOST_INTERVALS = 80
"""Runs up to which each has its interval in the plot over time; of more, only the values."""

MOST_LEVELS = 12
"""Texts on an axis. A fact with more of them, such as a commit, has no axis."""

STRONG_SHARE = 0.1
"""Share of the best runs that are drawn strongly."""

LARGEST_RATIO = 100
"""Ratio of the greatest to the least number from which an axis is logarithmic."""

LARGEST_DRAWN = 1e150

_ON_ONE_LINE = 'style="white-space:nowrap"'

Axis = tuple[tuple[str, str, str], list[float | None]]
"""Name and texts at both ends; place of each run."""


def render_comparison(comparison: RunComparison) -> bytes:
    """Render a comparison. The same comparison always makes the same bytes."""
    title = f"Runs of {comparison.model}"
    if not comparison.runs:
        return page_of(
            title, [f"<h1>{escaped(title)}</h1>", "<p>There is nothing to compare.</p>", *_left_out(comparison)]
        )
    body = [
        f"<h1>{escaped(title)}</h1>",
        f'<p class="soft">{escaped(_summary(comparison))}</p>',
        fact_list(_facts(comparison)),
        *_differences(comparison),
        *_over_time(comparison),
        *_table(comparison),
        *_same(comparison),
        *_left_out(comparison),
        _notes(comparison),
    ]
    return page_of(title, body)


def _summary(comparison: RunComparison) -> str:
    if comparison.has_one_holdout:
        return "All runs were evaluated on the same rows."
    return "The holdouts of these runs differ, so a metric compares data as well as models."


def _facts(comparison: RunComparison) -> list[tuple[str, str]]:
    experiments = sum(each.run.environment is None for each in comparison.runs)
    places = dict.fromkeys(each.run.environment for each in comparison.runs if each.run.environment is not None)
    found = [
        ("Runs", f"{len(comparison.runs)}" + (f", of them {counted(experiments, 'experiment')}" if experiments else ""))
    ]
    if places:
        found.append(("Registered in", ", ".join(places)))
    if comparison.sort:
        best = comparison.ranked[0]
        found += [
            (f"Best {escaped(comparison.sort)}", figure(best.metric(comparison.sort), interval=True)),
            ("Best run", best.run.id),
        ]
    return found


def _differences(comparison: RunComparison) -> list[str]:
    runs = comparison.runs
    drawn = [name for name in comparison.differing if name not in DIGESTS]
    facts = [axis for name in drawn if (axis := _fact_axis(name, runs)) is not None]
    metrics = [axis for name in comparison.metrics if (axis := _metric_axis(name, runs)) is not None]
    shown = facts[: MOST_AXES - min(len(metrics), 3)]
    # The metric that sorts is the last one.
    axes = [*shown, *reversed(metrics[: MOST_AXES - len(shown)])]
    if len(runs) < 2 or len(axes) < 2:
        return []
    strong = max(1, round(len(runs) * STRONG_SHARE))
    best_runs = {id(each) for each in comparison.ranked[:strong]}
    lines = [
        (
            f"{each.run.id}: {comparison.sort} {figure(each.metric(comparison.sort))}",
            [axis[1][at] for axis in axes],
            id(each) in best_runs,
        )
        for at, each in enumerate(runs)
    ]
    best = "the best run" if strong == 1 else f"the {strong} best runs"
    key = f'<span><i style="background:var(--new)"></i>{best}</span>'
    key += '<span><i style="background:var(--old)"></i>others</span>'
    plot = parallel_plot(
        [axis[0] for axis in axes], lines, f"{counted(len(runs), 'run')} by what differs and by metric"
    )
    return ["<h2>What differs</h2>", f'<p class="key">{key}</p>', f'<div class="scroll" tabindex="0">{plot}</div>']


def _fact_axis(name: str, runs: Sequence[ComparedRun]) -> Axis | None:
    texts = [each.texts.get(name, NO_VALUE) for each in runs]
    numbers = [_number(text) for text in texts]
    if any(number is not None for number in numbers) and all(
        number is not None or text == NO_VALUE for number, text in zip(numbers, texts, strict=True)
    ):
        return _number_axis(name, numbers)
    in_time = sorted(zip((each.run.ended for each in runs), texts, strict=True))
    levels = list(dict.fromkeys(text for _, text in in_time)) if name == DATA else sorted(set(texts))
    if len(levels) > MOST_LEVELS:
        return None
    last = max(len(levels) - 1, 1)
    return (name, levels[0], levels[-1]), [levels.index(text) / last for text in texts]


def _metric_axis(name: str, runs: Sequence[ComparedRun]) -> Axis | None:
    found = [each.metric(name) for each in runs]
    values = [one.value if one is not None else None for one in found]
    numbers = [value if value is not None and _is_drawable(value) else None for value in values]
    return _number_axis(name, numbers) if any(number is not None for number in numbers) else None


def _number_axis(name: str, numbers: Sequence[float | None]) -> Axis:
    known = [number for number in numbers if number is not None]
    low, high = min(known), max(known)
    logarithmic = low > 0 and high / low >= LARGEST_RATIO
    ends = (math.log(low), math.log(high)) if logarithmic else (low, high)
    places: list[float | None] = []
    for number in numbers:
        if number is None:
            places.append(None)
            continue
        at = math.log(number) if logarithmic else number
        places.append(0.5 if ends[0] == ends[1] else (at - ends[0]) / (ends[1] - ends[0]))
    return (f"{name} (log)" if logarithmic else name, f"{low:.4g}", f"{high:.4g}"), places


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if _is_drawable(value) else None


def _is_drawable(*values: float) -> bool:
    """Return True if differences and squares of the numbers are finite."""
    return all(abs(value) < LARGEST_DRAWN for value in values)


def _over_time(comparison: RunComparison) -> list[str]:
    points, faint = [], []
    crowded = len(comparison.runs) > MOST_INTERVALS
    best = math.inf
    for each in sorted(comparison.runs, key=lambda each: (each.run.ended, each.run.id)):
        estimate = each.metric(comparison.sort)
        if estimate is None or estimate.value is None:
            continue
        value = estimate.value
        ends = (None, None) if crowded else (estimate.low, estimate.high)
        low, high = (value if end is None else end for end in ends)
        if not _is_drawable(value, low, high):
            continue
        points.append((f"{each.run.ended:%Y-%m-%d %H:%M} {each.run.id}", value, low, high))
        signed = value if comparison.lower_is_better else -value
        faint.append(signed >= best)
        best = min(best, signed)
    if len(points) < 2:
        return []
    plot = interval_plot(points, (), f"{comparison.sort} by the time of the run", faint)
    intervals = "" if crowded else "With 95 % intervals. "
    note = f'<p class="soft">{intervals}Blue: better than every run before. Grey: not better.</p>'
    heading = f"<h2>{escaped(comparison.sort)} over time</h2>"
    return [heading, note, f'<div class="scroll" tabindex="0">{plot}</div>']


def _table(comparison: RunComparison) -> list[str]:
    facts, metrics = comparison.differing, comparison.metrics[:MOST_COLUMNS]
    head = "<th>Run</th><th>Ended (UTC)</th>"
    head += "".join(f"<th>{escaped(name)}</th>" for name in facts)
    head += "".join(f'<th class="n">{escaped(name)}</th>' for name in metrics)
    rows = []
    for each in comparison.runs[:MOST_ROWS]:
        kind = "" if each.run.environment is not None else ' <span class="soft">experiment</span>'
        cells = f"<td {_ON_ONE_LINE}><code>{escaped(each.run.id)}</code>{kind}</td>"
        cells += f"<td {_ON_ONE_LINE}>{each.run.ended:%Y-%m-%d %H:%M}</td>"
        for name in facts:
            cells += f'<td data-label="{escaped(name)}">{escaped(each.texts.get(name, NO_VALUE))}</td>'
        for name in metrics:
            cells += cell(escaped(name), f"{figure(each.metric(name))}{comparison.mark(each, name)}")
        rows.append(f"<tr>{cells}</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    hidden = len(comparison.runs) - MOST_ROWS
    which = counted(hidden, "older run")
    if not comparison.by_time:
        which = f"{counted(hidden, 'run')} with a worse {escaped(comparison.sort)}"
    more = [f'<p class="soft">{which} not shown.</p>'] if hidden > 0 else []
    return ["<h2>Runs</h2>", f'<div class="scroll" tabindex="0">{table}</div>', *more]


def _same(comparison: RunComparison) -> list[str]:
    if not comparison.same:
        return []
    items = "".join(
        f"<tr><td>{escaped(name)}</td><td><code>{escaped(value)}</code></td></tr>"
        for name, value in comparison.same.items()
    )
    table = f"<table><tbody>{items}</tbody></table>"
    return [
        f"<details><summary>{counted(len(comparison.same), 'fact')} the same in all runs</summary>{table}</details>"
    ]


def _left_out(comparison: RunComparison) -> list[str]:
    items = "".join(f"<li><code>{escaped(run.id)}</code>: {escaped(run.problem)}</li>" for run in comparison.left_out)
    return [f"<p>Left out:</p><ul>{items}</ul>"] if items else []


def _notes(comparison: RunComparison) -> str:
    direction = "lower" if comparison.lower_is_better else "higher"
    order = f"{escaped(comparison.sort)}; {direction}"
    if comparison.by_time:
        order = f"time, the newest first; a {direction} {escaped(comparison.sort)}"
    return (
        "<details><summary>How to read this</summary>"
        f"<p>Runs are in the order of {order} is better. <em>~</em> marks a run whose "
        "95 % interval includes the best value: the difference may be chance. The best of many runs looks better than "
        "it is, because it was chosen for its figure. Names such as <em>slice/young/rmse</em> are metrics of a part of "
        "the holdout; <em>difference</em> and <em>ratio</em> compare the groups of a protected attribute.</p>"
        "<p>The figures are from the records of the runs. A release is judged by its signed bundle.</p></details>"
    )
