"""Plots as inline SVG. Colours come from the page's style sheet, so that they fit light and dark mode."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.monitoring.column_comparison import ShareBar
    from pipelines.monitoring.data_report import VolumePoint

WIDTH, HEIGHT = 360, 150
WIDE = 960
MOST_LABELS = 5
"""Bars up to which each has its label; of more, only the first and the last."""

_LEFT, _TOP, _BOTTOM = 44, 10, 22


def _number(value: float) -> str:
    """Write a coordinate with at most one decimal, always in the same way."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _scale(most: float) -> float:
    """Return a round number of at least `most`, for the end of an axis."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(power * factor for factor in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if power * factor >= most)


def share_plot(bars: Sequence[ShareBar], title: str) -> str:
    """Draw the shares of a distribution, before and now, side by side.

    Args:
        bars: the shares of each group or level.
        title: what the plot shows, for people who cannot see it.
    """
    most = max((max(bar.reference, bar.current) for bar in bars), default=0.0)
    top = next((step for step in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75) if most <= step), 1.0)
    inner, bottom = HEIGHT - _TOP - _BOTTOM, HEIGHT - _BOTTOM
    slot = (WIDTH - _LEFT - 6) / max(len(bars), 1)
    ticks = [(share, f"{share * top:.1%}".replace(".0%", "%")) for share in (0.0, 0.5, 1.0)]
    parts = [_axis(WIDTH, bottom, ticks)]
    for index, bar in enumerate(bars):
        x = _LEFT + index * slot
        for offset, share, name in ((0.12, bar.reference, "old"), (0.5, bar.current, "new")):
            height = inner * share / top
            parts.append(
                f'<rect class="{name}" x="{_number(x + offset * slot)}" y="{_number(bottom - height)}" '
                f'width="{_number(0.36 * slot)}" height="{_number(height)}" rx="1"/>'
            )
        label = html.escape(f"{bar.label}: {bar.reference:.1%} before, {bar.current:.1%} now")
        parts.append(
            f'<rect class="hit" x="{_number(x)}" y="{_TOP}" width="{_number(slot)}" height="{inner}">'
            f"<title>{label}</title></rect>"
        )
    if len(bars) <= MOST_LABELS:
        for index, bar in enumerate(bars):
            middle = _number(_LEFT + (index + 0.49) * slot)
            text = html.escape(_short(bar.label, int(slot / 7)))
            parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{text}</text>')
    else:
        below = f'y="{HEIGHT - 6}"'
        first, last = html.escape(_short(bars[0].label)), html.escape(_short(bars[-1].label))
        parts.append(f'<text x="{_LEFT}" {below}>{first}</text>')
        parts.append(f'<text x="{WIDTH - 6}" {below} text-anchor="end">{last}</text>')
    return _svg(WIDTH, HEIGHT, title, parts)


def volume_plot(points: Sequence[VolumePoint], low: float | None, high: float | None, title: str) -> str:
    """Draw the rows of each period, and the range that is expected of the last one."""
    counts = [point.rows or 0 for point in points]
    top = _scale(max([*counts, high or 0.0, 1.0]) * 1.02)
    height = 200
    inner, bottom = height - _TOP - _BOTTOM, height - _BOTTOM
    left = 64
    slot = (WIDE - left - 6) / max(len(points), 1)
    ticks = [(share, f"{top * share:,.0f}") for share in (0.0, 0.5, 1.0)]
    parts = [_axis(WIDE, bottom, ticks, left, inner)]
    for index, (point, count) in enumerate(zip(points, counts, strict=True)):
        tall = inner * count / top
        name = "new" if index == len(points) - 1 else "old"
        rows = "no delivery" if point.rows is None else f"{point.rows:,} rows"
        parts.append(
            f'<rect class="{name}" x="{_number(left + (index + 0.12) * slot)}" y="{_number(bottom - tall)}" '
            f'width="{_number(0.76 * slot)}" height="{_number(tall)}" rx="1">'
            f"<title>{html.escape(point.label)}: {rows}</title></rect>"
        )
    if low is not None and high is not None and points:
        x = left + (len(points) - 1) * slot
        y, tall = bottom - inner * min(high, top) / top, inner * (min(high, top) - low) / top
        parts.append(
            f'<rect class="band" x="{_number(x)}" y="{_number(y)}" width="{_number(slot)}" height="{_number(tall)}">'
            f"<title>expected: {low:,.0f} to {high:,.0f} rows</title></rect>"
        )
    if points:
        parts.append(f'<text x="{left}" y="{height - 6}">{html.escape(points[0].label)}</text>')
    if len(points) > 1 and points[-1].label != points[0].label:
        last = html.escape(points[-1].label)
        parts.append(f'<text x="{WIDE - 6}" y="{height - 6}" text-anchor="end">{last}</text>')
    return _svg(WIDE, height, title, parts)


def interval_plot(
    points: Sequence[tuple[str, float, float, float]], limits: Sequence[float], title: str, faint: Sequence[bool] = ()
) -> str:
    """Draw values with their intervals, and the figures from which they are an alarm.

    Args:
        points: label, value, and both ends of the interval.
        limits: the figures, as dashed lines.
        title: what the plot shows, for people who cannot see it.
        faint: True for each point that is not certain yet; all certain by default.
    """
    values = [each for _, *three in points for each in three] + list(limits)
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    low, high = low - margin, high + margin
    height, left = 220, 64
    inner, bottom = height - _TOP - _BOTTOM, height - _BOTTOM
    slot = (WIDE - left - 6) / max(len(points), 1)

    def y(value: float) -> str:
        return _number(bottom - inner * (value - low) / (high - low))

    ticks = [(share, f"{low + share * (high - low):.4g}") for share in (0.0, 0.5, 1.0)]
    parts = [_axis(WIDE, bottom, ticks, left, inner)]
    for limit in limits:
        parts.append(f'<line class="band" x1="{left}" x2="{WIDE - 6}" y1="{y(limit)}" y2="{y(limit)}"/>')
    for index, (label, value, least, most) in enumerate(points):
        x = _number(left + (index + 0.5) * slot)
        name = "old" if index < len(faint) and faint[index] else "new"
        text = html.escape(f"{label}: {value:.4g} ({least:.4g} to {most:.4g})")
        parts.append(f'<line class="span {name}" x1="{x}" x2="{x}" y1="{y(least)}" y2="{y(most)}"/>')
        parts.append(f'<circle class="{name}" cx="{x}" cy="{y(value)}" r="4"><title>{text}</title></circle>')
    if points:
        parts.append(f'<text x="{left}" y="{height - 6}">{html.escape(points[0][0])}</text>')
        if len(points) > 1:
            last = html.escape(points[-1][0])
            parts.append(f'<text x="{WIDE - 6}" y="{height - 6}" text-anchor="end">{last}</text>')
    return _svg(WIDE, height, title, parts)


def parallel_plot(
    axes: Sequence[tuple[str, str, str]], lines: Sequence[tuple[str, Sequence[float | None], bool]], title: str
) -> str:
    """Draw parallel coordinates: an upright axis for each figure, and a line for each thing that has the figures.

    Args:
        axes: name, and the texts at the bottom and the top.
        lines: label; place on each axis, from 0 at the bottom to 1, None for a gap; and True to draw it strongly.
        title: what the plot shows, for people who cannot see it.
    """
    height, top, side = 320, 40, 70
    bottom = height - _BOTTOM
    step = (WIDE - 2 * side) / max(len(axes) - 1, 1)
    xs = [_number(side + at * step) for at in range(len(axes))]
    parts = []
    for label, places, strong in sorted(lines, key=lambda line: line[2]):  # the strong ones on top
        path, gap = "", True
        for x, place in zip(xs, places, strict=True):
            if place is not None:
                path += f"{'M' if gap else 'L'}{x} {_number(bottom - (bottom - top) * place)}"
            gap = place is None
        name = "run best" if strong else "run"
        parts.append(f'<path class="{name}" d="{path}"><title>{html.escape(label)}</title></path>')
    for at, (name, low, high) in enumerate(axes):
        middle = f'x="{xs[at]}" text-anchor="middle"'
        parts.append(f'<line class="grid" x1="{xs[at]}" x2="{xs[at]}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text {middle} y="14">{html.escape(_short(name, int(step / 6.5)))}</text>')
        parts.append(f'<text {middle} y="30">{html.escape(_short(high, int(step / 7)))}</text>')
        parts.append(f'<text {middle} y="{height - 6}">{html.escape(_short(low, int(step / 7)))}</text>')
    return _svg(WIDE, height, title, parts)


def _axis(
    width: int,
    bottom: float,
    ticks: Sequence[tuple[float, str]],
    left: int = _LEFT,
    inner: float = HEIGHT - _TOP - _BOTTOM,
) -> str:
    """Draw horizontal grid lines with their labels; each tick is a share of the height and a text."""
    lines = []
    for share, text in ticks:
        y = _number(bottom - inner * share)
        lines.append(f'<line class="grid" x1="{left}" x2="{width - 6}" y1="{y}" y2="{y}"/>')
        lines.append(f'<text x="{left - 6}" y="{y}" dy="4" text-anchor="end">{text}</text>')
    return "".join(lines)


def _short(text: str, most: int = 22) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(title, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )
