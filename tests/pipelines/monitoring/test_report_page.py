"""The page of a report: contrast of its colours, and plots that say what they show."""

from __future__ import annotations

import re

import pytest

from pipelines.monitoring import report_page
from pipelines.monitoring.column_comparison import ShareBar
from pipelines.monitoring.data_report import VolumePoint
from pipelines.monitoring.svg_plots import share_plot, volume_plot

READABLE = 4.5
"""Least contrast of text, by WCAG 2.2 AA."""

PAIRS = [
    *(("text", "bg"), ("text", "card"), ("soft", "bg"), ("soft", "card"), ("new", "bg")),
    *((verdict, f"{verdict}bg") for verdict in ("ok", "watch", "alarm", "unknown")),
]


def luminance(colour: str) -> float:
    digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
    parts = [int(digits[index : index + 2], 16) / 255 for index in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("pair", PAIRS, ids=" on ".join)
def test_text_is_readable_in_both_modes(mode: int, pair: tuple[str, str]) -> None:
    colours = dict(re.findall(r"--(\w+):#([0-9a-f]+)", report_page._STYLE.split("@media(prefers-color-scheme")[mode]))
    lower, higher = sorted(luminance(colours[name]) for name in pair)
    assert (higher + 0.05) / (lower + 0.05) >= READABLE


def test_a_plot_of_shares_names_every_bar_for_people_who_point_at_it_and_itself_for_those_who_cannot_see() -> None:
    plot = share_plot([ShareBar(label="a<b", reference=0.25, current=1.0)], 'The "title"')
    assert 'role="img" aria-label="The &quot;title&quot;"' in plot
    assert "<title>a&lt;b: 25.0% before, 100.0% now</title>" in plot


def test_a_volume_plot_marks_the_newest_period_and_what_was_expected() -> None:
    points = [VolumePoint(label=f"2026-03-0{day}", rows=rows) for day, rows in ((1, 100), (2, None), (3, 40))]
    plot = volume_plot(points, 80.0, 120.0, "Rows")
    assert plot.count('class="old"') == 2
    assert plot.count('class="new"') == 1
    assert "2026-03-02: no delivery" in plot
    assert "expected: 80 to 120 rows" in plot


def test_the_first_delivery_is_named_once_below_the_axis() -> None:
    plot = volume_plot([VolumePoint(label="2026-03-01", rows=5)], None, None, "Rows")
    assert plot.count(">2026-03-01<") == 1


@pytest.mark.parametrize("rows", [0, 1, 7, 999, 123_456_789])
def test_a_volume_of_any_size_has_an_axis_that_holds_it(rows: int) -> None:
    plot = volume_plot([VolumePoint(label="x", rows=rows)], None, None, "Rows")
    tops = [float(text.replace(",", "")) for text in re.findall(r'text-anchor="end">([\d,]+)<', plot)]
    assert max(tops) >= rows
    assert all(float(height) <= 200 for height in re.findall(r'height="([\d.]+)"', plot))
