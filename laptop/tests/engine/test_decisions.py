from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laptop.engine.decisions import (
    Decision,
    Options,
    decide,
    deletion_waits,
    dependents_to_replace,
    in_creation_order,
    is_import,
    with_forced,
)
from laptop.engine.provider import Diff
from laptop.engine.resource_steps import StepKind
from laptop.engine.resources import ResourceState
from pipelines.declarations.errors import MlopsError


def urn(number: int) -> str:
    return f"urn:pulumi:s::p::fake:index:Thing::r{number}"


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, ResourceState]:
    """Generate resources that depend on earlier ones, in random order."""
    count = draw(st.integers(1, 12))
    found = {}
    for number in range(count):
        earlier = st.sets(st.integers(0, number - 1), max_size=3) if number else st.just(set())
        by_property, by_order = draw(earlier), draw(earlier)
        parent = draw(st.none() | st.integers(0, number - 1)) if number else None
        found[urn(number)] = ResourceState(
            urn(number),
            id=f"i-{number}",
            dependencies=tuple(sorted(urn(other) for other in by_property | by_order)),
            property_dependencies=(("target", tuple(sorted(urn(other) for other in by_property))),),
            parent=urn(parent) if parent is not None else "",
        )
    order = draw(st.permutations(sorted(found)))
    return {key: found[key] for key in order}


@settings(max_examples=80)
@given(graphs())
def test_every_resource_is_created_after_its_dependencies(graph: dict[str, ResourceState]) -> None:
    ordered = [known.urn for known in in_creation_order(graph)]
    assert sorted(ordered) == sorted(graph)
    for known in graph.values():
        assert all(ordered.index(needed) < ordered.index(known.urn) for needed in known.needs())


@settings(max_examples=80)
@given(graphs(), st.data())
def test_every_resource_is_deleted_after_its_dependents(graph: dict[str, ResourceState], data: st.DataObject) -> None:
    going = [known for known in graph.values() if data.draw(st.booleans())]
    waits = deletion_waits(going)
    gone: list[tuple[str, str]] = []
    while len(gone) < len(going):
        ready = [key for key in waits if key not in gone and waits[key] <= set(gone)]
        assert ready, "nothing can be deleted next"
        gone.append(data.draw(st.sampled_from(ready)))
        for known in going:
            if gone[-1][0] in known.needs():
                assert (known.urn, known.id) in gone


@settings(max_examples=80)
@given(graphs(), st.data())
def test_only_dependents_by_property_are_deleted_first(graph: dict[str, ResourceState], data: st.DataObject) -> None:
    start = data.draw(st.sampled_from(sorted(graph)))
    firm = data.draw(st.sets(st.sampled_from(sorted(graph))))  # those that take a change without being replaced
    found = dependents_to_replace(start, graph, lambda known, keys: known.urn not in firm)
    going = {known.urn for known in found} | {start}
    for known in graph.values():
        if known.urn == start:
            continue
        follows = any(needed in going for needed in dict(known.property_dependencies)["target"])
        assert (known.urn in going) == (follows and known.urn not in firm)
    positions = {known.urn: index for index, known in enumerate(found)}
    for known in found:
        for needed in known.needs() & positions.keys():
            assert positions[known.urn] < positions[needed]


OLD = ResourceState(urn(1), id="i-1")


@pytest.mark.parametrize(
    ("old", "options", "diff", "expected"),
    [
        (None, Options(), None, Decision(StepKind.CREATE)),
        (ResourceState(urn(1), external=True), Options(), None, Decision(StepKind.CREATE)),
        (OLD, Options(), Diff(()), Decision(StepKind.SAME)),
        (OLD, Options(), Diff(("a",)), Decision(StepKind.UPDATE, ("a",))),
        (OLD, Options(), Diff(("a",), ("a",)), Decision(StepKind.REPLACE, ("a",), ("a",))),
        (OLD, Options(), Diff(("a",), ("a",), True), Decision(StepKind.REPLACE, ("a",), ("a",), True)),
        (
            OLD,
            Options(delete_before_replace=False),
            Diff(("a",), ("a",), True),
            Decision(StepKind.REPLACE, ("a",), ("a",), False),
        ),
        (
            OLD,
            Options(delete_before_replace=True),
            Diff(("a",), ("a",)),
            Decision(StepKind.REPLACE, ("a",), ("a",), True),
        ),
    ],
)
def test_each_case_requires_the_expected_step(
    old: ResourceState | None, options: Options, diff: Diff | None, expected: Decision
) -> None:
    assert decide(old, options, diff) == expected


def test_an_update_that_may_not_have_ended_is_repeated() -> None:
    assert decide(OLD, Options(), Diff(()), unfinished_update=True) == Decision(StepKind.UPDATE)


def test_protection_refuses_a_replacement() -> None:
    with pytest.raises(MlopsError, match="is protected and would be replaced because of a change of `a`"):
        decide(replace(OLD, protect=True), Options(protect=True), Diff(("a",), ("a",)))


def test_a_resource_may_be_unprotected_and_replaced_at_once() -> None:
    assert decide(replace(OLD, protect=True), Options(), Diff(("a",), ("a",))).kind is StepKind.REPLACE


def test_an_imported_resource_is_not_replaced_while_it_is_declared_as_imported() -> None:
    with pytest.raises(MlopsError, match=r"was imported and would be replaced(?s:.*)remove `import_`"):
        decide(OLD, Options(import_id="i-1"), Diff(("a",), ("a",)))


@pytest.mark.parametrize(
    ("old", "import_id", "expected"),
    [
        (None, "i-1", True),
        (None, "", False),
        (OLD, "i-1", False),
        (OLD, "i-2", True),
        (replace(OLD, external=True), "i-1", True),
        (replace(OLD, import_id="name/i-1"), "name/i-1", False),
    ],
)
def test_only_a_resource_that_the_stack_does_not_manage_is_imported(
    old: ResourceState | None, import_id: str, expected: bool
) -> None:
    assert is_import(old, Options(import_id=import_id)) == expected


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ((), ("zone",)),
        (("tags",), ("zone", "tags.a")),
        (("tags.a",), ("zone", "tags.a")),
        (("tags.b", "rows[1]"), ("zone",)),
        (("rows[*].x",), ("zone", "rows[0].x")),
        (("*",), ("zone", "tags.a", "rows[0].x")),
    ],
)
def test_replace_on_changes_forces_a_replacement_at_or_below_its_paths(
    patterns: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert with_forced(Diff(("zone", "tags.a", "rows[0].x"), ("zone",)), patterns).replace == expected
