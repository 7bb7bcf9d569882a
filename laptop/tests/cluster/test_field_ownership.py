from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laptop.cluster.field_ownership import (
    ApplyConflict,
    FieldSet,
    Manager,
    Managers,
    after_update,
    apply,
    difference,
    intersection,
    paths,
    read_managers,
    union,
    write_managers,
)
from laptop.cluster.kinds import CONFIG_MAP, DEPLOYMENT
from laptop.cluster.typed_schemas import type_of

ONE, TWO = Manager("one", "Apply", "v1"), Manager("two", "Apply", "v1")
PERSON = Manager("person", "Update", "v1")
SETS: st.SearchStrategy[FieldSet] = st.recursive(
    st.just({}),
    lambda inner: st.dictionaries(st.sampled_from([".", "f:a", "f:b", 'k:{"n":"x"}']), inner, max_size=3).map(
        lambda node: {key: {} if key == "." else value for key, value in node.items()} if node.keys() != {"."} else {}
    ),
    max_leaves=6,
)
DATA = st.dictionaries(st.sampled_from("abc"), st.sampled_from("12"), max_size=3)


def members(fields: FieldSet) -> set[str]:
    return set(paths({key: value for key, value in fields.items() if key != "."}))


@given(SETS, SETS)
@settings(max_examples=100)
def test_set_operations_are_those_of_sets_of_paths(one: FieldSet, other: FieldSet) -> None:
    one, other = ({key: value for key, value in each.items() if key != "."} for each in (one, other))
    assert members(union(one, other)) == members(one) | members(other)
    assert members(difference(one, other)) == members(one) - members(other)
    assert members(intersection(one, other)) == members(one) & members(other)


def config_map(data: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"name": "c"}, **({"data": data} if data else {})}


def applied(
    live: dict[str, Any], managers: Managers, by: Manager, config: dict[str, Any], *, force: bool = False
) -> tuple[dict[str, Any], Managers]:
    return apply(type_of(CONFIG_MAP), managers, by, live, config, force=force, ignored={}, time="1")


@given(DATA, DATA)
@settings(max_examples=100)
def test_a_lone_applier_gets_what_it_applies_last(first: dict[str, str], second: dict[str, str]) -> None:
    live, managers = applied({}, {}, ONE, config_map(first))
    live, managers = applied(live, managers, ONE, config_map(second))
    assert (live.get("data") or {}) == second
    assert live["metadata"]["name"] == "c"
    owned = {path for each in managers.values() for path in paths(each.fields)}
    assert owned == {f".data.{key}" for key in second}


@given(DATA, DATA)
@settings(max_examples=100)
def test_an_applier_conflicts_exactly_over_other_values_of_shared_fields(
    first: dict[str, str], second: dict[str, str]
) -> None:
    live, managers = applied({}, {}, ONE, config_map(first))
    differing = {f".data.{key}" for key in first.keys() & second.keys() if first[key] != second[key]}
    if differing:
        with pytest.raises(ApplyConflict) as refused:
            applied(live, managers, TWO, config_map(second))
        conflicts = refused.value.conflicts.values()
        assert {path for each in conflicts for path in paths(each.fields)} == differing
    after, managers = applied(live, managers, TWO, config_map(second), force=True)
    left = set(paths(managers[ONE].fields)) if ONE in managers else set()
    assert left == {f".data.{key}" for key in first} - differing
    assert (after.get("data") or {}) == {**first, **second}


def test_a_field_that_two_appliers_share_stays_until_both_give_it_up() -> None:
    live, managers = applied({}, {}, ONE, config_map({"a": "1"}))
    live, managers = applied(live, managers, TWO, config_map({"a": "1"}))
    live, managers = applied(live, managers, ONE, config_map({}))
    assert live["data"] == {"a": "1"}
    live, managers = applied(live, managers, TWO, config_map({}))
    assert "data" not in live
    assert managers == {}


def test_an_update_takes_a_field_and_giving_it_up_leaves_it() -> None:
    live, managers = applied({}, {}, ONE, config_map({"a": "1", "b": "1"}))
    new = {**live, "data": {"a": "2", "b": "1"}}
    managers = after_update(type_of(CONFIG_MAP), managers, PERSON, live, new, {}, "2")
    assert list(paths(managers[PERSON].fields)) == [".data.a"]
    assert list(paths(managers[ONE].fields)) == [".data.b"]
    live, managers = applied(new, managers, ONE, config_map({}))
    assert live["data"] == {"a": "2"}


def test_items_of_lists_have_their_own_managers() -> None:
    def deployment(**variables: str) -> dict[str, Any]:
        env = [{"name": name, "value": value} for name, value in variables.items()]
        return {"spec": {"template": {"spec": {"containers": [{"name": "main", "env": env}]}}}}

    def send(live: dict[str, Any], managers: Managers, by: Manager, **variables: str) -> tuple[Any, Managers]:
        config = deployment(**variables)
        return apply(type_of(DEPLOYMENT), managers, by, live, config, force=False, ignored={}, time="1")

    live, managers = send({}, {}, ONE, A="1", B="1")
    live, managers = send(live, managers, TWO, C="1")
    with pytest.raises(ApplyConflict) as refused:
        send(live, managers, TWO, A="2")
    assert list(paths(refused.value.conflicts[ONE].fields)) == [
        '.spec.template.spec.containers[name="main"].env[name="A"].value'
    ]
    live, managers = send(live, managers, ONE, B="1")
    (container,) = live["spec"]["template"]["spec"]["containers"]
    assert [variable["name"] for variable in container["env"]] == ["B", "C"]


def test_the_oldest_of_many_updaters_are_merged() -> None:
    managers: Managers = {}
    live: dict[str, Any] = {"data": {}}
    for number in range(12):
        new = {"data": {**live["data"], f"k{number}": "1"}}
        by = Manager(f"m{number}", "Update", "v1")
        managers = after_update(type_of(CONFIG_MAP), managers, by, live, new, {}, f"{number:02}")
        live = new
    names = [manager.name for manager in managers]
    assert "ancient-changes" in names
    assert "m0" not in names
    assert len(names) <= 11
    assert {path for each in managers.values() for path in paths(each.fields)} >= {f".data.k{n}" for n in range(12)}


def test_managed_fields_are_read_as_they_are_written() -> None:
    _, managers = applied({}, {}, ONE, config_map({"a": "1"}))
    assert read_managers(write_managers(managers)) == managers
    for wrong in ([{"operation": "Guess"}], [{"operation": "Apply"}], ["x"]):
        assert read_managers(wrong) is None
