from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.policies.resource_graph import UNKNOWN
from laptop.engine.paths import changed_paths, keep_ignored, parse_path, write_path
from laptop.engine.values import is_at, lookup
from pipelines.declarations.errors import MlopsError

PARTS = st.integers(0, 20) | st.text(min_size=1, max_size=6).filter(lambda text: text != "*")


@settings(max_examples=100)
@given(st.text(min_size=1, max_size=6).filter(lambda text: text != "*"), st.lists(PARTS, max_size=4))
def test_a_path_round_trips_through_text(first: str, rest: list[str | int]) -> None:
    path = (first, *rest)
    assert parse_path(write_path(path)) == path


@pytest.mark.parametrize("text", ["", ".a", "a[", "a[x]", 'a["b', "a..b", "a[-1]"])
def test_a_malformed_path_is_refused(text: str) -> None:
    with pytest.raises(MlopsError, match="property path"):
        parse_path(text)


def test_changes_are_named_by_their_deepest_path() -> None:
    old = {"a": {"b": 1, "c": 2}, "l": [1, 2], "m": [1], "gone": 1}
    new = {"a": {"b": 1, "c": 3}, "l": [1, 9], "m": [1, 2], "flag": True}
    assert changed_paths(old, new) == (("a", "c"), ("l", 1), ("m",), ("gone",), ("flag",))


def test_true_and_one_are_different_values() -> None:
    assert changed_paths({"a": 1}, {"a": True}) == (("a",),)


def test_a_whole_number_equals_itself_as_a_float() -> None:
    assert changed_paths({"a": 1}, {"a": 1.0}) == ()


def test_an_unknown_value_differs_from_every_value() -> None:
    assert changed_paths({"a": [1, UNKNOWN]}, {"a": [UNKNOWN, UNKNOWN]}) == (("a", 0), ("a", 1))


@pytest.mark.parametrize(
    ("patterns", "old", "new", "expected"),
    [
        (["a"], {"a": 1}, {"a": 2, "b": 3}, {"a": 1, "b": 3}),
        (["a"], {}, {"a": 2, "b": 3}, {"b": 3}),
        (["a"], {"a": 1}, {"b": 3}, {"a": 1, "b": 3}),
        (["a.b"], {"a": {"b": 1}}, {}, {"a": {"b": 1}}),
        (["a.b.c"], {"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2, "d": 3}}}, {"a": {"b": {"c": 1, "d": 3}}}),
        (["l[1]"], {"l": [1, 2]}, {"l": [1, 9]}, {"l": [1, 2]}),
        (["l[1]"], {"l": [1]}, {"l": [1, 9]}, {"l": [1]}),
        (["l[1]"], {"l": [1, 2]}, {"l": [5]}, {"l": [5, 2]}),
        (["l[5]"], {"l": [1]}, {"l": [2]}, {"l": [2]}),
        (["l[*].x"], {"l": [{"x": 1, "y": 1}]}, {"l": [{"x": 2, "y": 2}]}, {"l": [{"x": 1, "y": 2}]}),
        (["l[*].x"], {"l": [{"x": 1}]}, {"l": [{"x": 2}, {"x": 3}]}, {"l": [{"x": 1}, {"x": 3}]}),
        (["tags[*]"], {"tags": {"a": 1}}, {"tags": {"b": 2}}, {"tags": {"a": 1}}),
        (["*"], {"a": 1}, {"a": 2, "b": 2}, {"a": 1}),
        (['tags["k8s.io/x"]'], {"tags": {"k8s.io/x": 1}}, {"tags": {"k8s.io/x": 2}}, {"tags": {"k8s.io/x": 1}}),
        (["a.b"], {"a": {"b": 1}}, {"a": "text"}, {"a": {"b": 1}}),
        (["nowhere.at.all"], {"a": 1}, {"a": 2}, {"a": 2}),
    ],
)
def test_ignored_paths_keep_their_old_value(
    patterns: list[str], old: dict[str, Any], new: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert keep_ignored(new, old, patterns) == expected


LEAVES = st.integers(0, 3)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), TREES, max_size=3)


@settings(max_examples=100)
@given(OBJECTS, OBJECTS)
def test_ignoring_every_property_keeps_the_old_inputs_and_ignoring_none_the_new(old: Any, new: Any) -> None:
    assert keep_ignored(new, old, ["*"]) == old
    assert keep_ignored(new, old, []) == new


@settings(max_examples=100)
@given(OBJECTS, OBJECTS)
def test_every_changed_path_differs_and_no_path_means_equal(old: Any, new: Any) -> None:
    paths = changed_paths(old, new)
    assert bool(paths) == (old != new)
    for path in paths:
        assert not (is_at(old, path) and is_at(new, path) and lookup(old, path) == lookup(new, path))
