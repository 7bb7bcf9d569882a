"""Numbers of pods computed from percentages, and indexes of Jobs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laptop.cluster.job_indexes import first_pending, format_indexes, parse_indexes
from laptop.cluster.surge import proportional_sizes, surge_and_unavailable


@pytest.mark.parametrize(
    ("surge", "unavailable", "replicas", "expected"),
    [
        ("25%", "25%", 3, (1, 0)),
        ("25%", "25%", 10, (3, 2)),
        (0, "25%", 3, (0, 1)),
        ("100%", 0, 3, (3, 0)),
        (2, 1, 3, (2, 1)),
    ],
)
def test_a_surge_is_rounded_up_and_missing_pods_down(
    surge: int | str, unavailable: int | str, replicas: int, expected: tuple[int, int]
) -> None:
    assert surge_and_unavailable(surge, unavailable, replicas) == expected


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(0, 80))
def test_proportional_sizes_add_up_to_the_total(sizes: list[int], total: int) -> None:
    ordered = sorted(sizes, reverse=True)
    scaled = proportional_sizes(ordered, [sum(ordered)] * len(ordered), total)
    assert sum(scaled) == total or (sum(scaled) > total and scaled[0] == 0)
    assert min(scaled) >= 0


def test_pods_that_the_first_group_does_not_have_stay_in_the_others() -> None:
    """As in `scale` of Kubernetes 1.34 (pkg/controller/deployment/sync.go): the next round removes them."""
    assert proportional_sizes([2, 2, 2, 2], [8, 8, 8, 8], 2) == [0, 1, 1, 1]


def test_indexes_are_written_as_ranges_and_read_again() -> None:
    assert format_indexes({0, 1, 3, 4, 5, 9}) == "0,1,3-5,9"
    assert parse_indexes("0,1,3-5,9") == {0, 1, 3, 4, 5, 9}
    assert first_pending({0, 2}, 2, 5) == [1, 3]


@given(st.sets(st.integers(0, 200)))
def test_every_set_of_indexes_survives_its_text(indexes: set[int]) -> None:
    assert parse_indexes(format_indexes(indexes)) == indexes
