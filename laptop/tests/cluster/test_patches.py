from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laptop.cluster.kinds import POD
from laptop.cluster.patches import PatchError, merge, strategic_merge
from laptop.cluster.typed_schemas import ANY, type_of
from laptop.engine.paths import changed_paths
from laptop.kubernetes.manifests import merge_patch

POD_SPEC = type_of(POD).field("spec") or ANY
SCALARS = st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


@given(OBJECTS, OBJECTS)
@settings(max_examples=60)
def test_the_merge_patch_between_two_manifests_turns_one_into_the_other(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    assert merge(old, merge_patch(old, new)) == new


@given(OBJECTS, OBJECTS)
@settings(max_examples=60)
def test_a_patch_is_empty_if_and_only_if_nothing_differs(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert (merge_patch(old, old), changed_paths(old, old)) == ({}, ())
    if old != new:
        assert merge_patch(old, new)
        assert changed_paths(old, new)


def test_a_patch_keeps_fields_that_it_does_not_name() -> None:
    live = {"spec": {"selector": {"app": "m", "rollouts-pod-template-hash": "abc"}}}
    patch = merge_patch({"spec": {"selector": {"app": "m"}}}, {"spec": {"selector": {"app": "n"}}})
    assert merge(live, patch) == {"spec": {"selector": {"app": "n", "rollouts-pod-template-hash": "abc"}}}


def test_a_strategic_merge_merges_containers_by_name_and_their_ports_and_variables() -> None:
    old = {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}], "args": ["1"]}, {"name": "b"}]}
    patch = {
        "containers": [
            {"name": "a", "env": [{"name": "Y", "value": "2"}], "args": ["2"], "ports": [{"containerPort": 80}]},
            {"name": "b", "$patch": "delete"},
        ]
    }
    (container,) = strategic_merge(POD_SPEC, old, patch)["containers"]
    assert container == {
        "name": "a",
        "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
        "args": ["2"],  # a list without a merge key is replaced
        "ports": [{"containerPort": 80}],
    }


def test_a_strategic_merge_can_replace_a_map() -> None:
    patch = {"nodeSelector": {"$patch": "replace", "b": "2"}}
    assert strategic_merge(POD_SPEC, {"nodeSelector": {"a": "1"}}, patch) == {"nodeSelector": {"b": "2"}}


def test_an_item_without_its_merge_key_is_refused() -> None:
    with pytest.raises(PatchError, match="does not contain declared merge key: name"):
        strategic_merge(POD_SPEC, {"containers": []}, {"containers": [{"image": "a"}]})
