"""Durations in the formats of Argo."""

from __future__ import annotations

import pytest

from laptop.cluster.durations import duration_seconds, pause_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("10m", 600), ("1h", 3600), ("1h30m", 5400), ("1.5s", 1.5), ("250ms", 0.25), ("0", 0), ("-1s", -1)],
)
def test_a_duration_has_units(text: str, seconds: float) -> None:
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("30", 'time: missing unit in duration "30"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("soon", 'time: invalid duration "soon"'),
        ("", 'time: invalid duration ""'),
        ("10s x", 'time: unknown unit "s x" in duration "10s x"'),
    ],
)
def test_what_is_not_a_duration_is_refused_in_the_words_of_go(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="time: ") as caught:
        duration_seconds(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [(5, 5), ("5", 5), ("30s", 30), ("1m30s", 90), ("1500ms", 1), (None, 0), ("soon", -1), (-3, -3), ("-3", -3)],
)
def test_a_pause_has_whole_seconds(duration: int | str | None, seconds: int) -> None:
    assert pause_seconds(duration) == seconds
