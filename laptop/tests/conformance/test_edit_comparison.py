"""The parts of the comparison with Pulumi's engine that need no Pulumi."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from laptop.conformance.comparison import differences, of_laptop, of_pulumi, steps_of_laptop, without_deletes
from laptop.conformance.edit_trial import shortened, wrong_order
from laptop.conformance.program_edits import (
    EDITS,
    GROUP,
    START,
    Program,
    ProgramNode,
    in_order,
    needs,
    sequence,
    waits_for_itself,
    without,
)
from laptop.conformance.test_program_edits import EDITS_EACH, SEQUENCES, kinds_for
from laptop.engine.resource_steps import ResourceStep, StepKind
from laptop.engine.resources import Contents, Pending, ResourceState
from laptop.engine.values import Properties

URN = "urn:pulumi:dev::shop::edits:index:Thing::a"


def test_at_least_200_edits_of_every_kind_are_generated() -> None:
    made: Counter[str] = Counter()
    for number in range(SEQUENCES):
        made.update(name for name, _ in sequence(number, EDITS_EACH + 1, kinds_for(number))[1:])
    assert made.total() >= 200
    assert set(made) == set(EDITS)


@pytest.mark.parametrize("number", range(SEQUENCES))
def test_generated_programs_are_reproducible_valid_and_survive_json(number: int) -> None:
    programs = sequence(number, EDITS_EACH + 1, kinds_for(number))
    assert programs == sequence(number, EDITS_EACH + 1, kinds_for(number))
    for _, program in programs:
        assert Program.of(json.loads(json.dumps(program.to_json()))) == program
        seen: set[str] = set()
        for node in program.nodes:
            assert needs(node) <= seen
            seen.add(node.key)


def test_a_node_is_removed_with_its_children_and_every_reference_to_it() -> None:
    left = without(START, "group")
    assert [node.key for node in left.nodes] == ["b", "n", "u", "d"]
    assert "target" not in left.find("b").inputs
    assert left.exports == {}


def test_a_program_that_waits_for_a_component_that_it_is_part_of_never_ends() -> None:
    group, child, other = (
        ProgramNode("g", "g", GROUP),
        ProgramNode("c", "c", parent="g"),
        ProgramNode("o", "o", depends_on=("g",)),
    )
    assert not waits_for_itself(in_order(Program((group, child, other))))
    assert waits_for_itself(Program((group, other, ProgramNode("c", "c", parent="g", depends_on=("o",)))))


def contents(known: ResourceState) -> Contents:
    return Contents("shop", "dev", resources={known.urn: known})


def test_states_that_mean_the_same_have_no_differences() -> None:
    known = ResourceState(URN, id="i", inputs=Properties({"pin": "x", "n": 1}, frozenset({("pin",)})), protect=True)
    secret = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "plaintext": '"x"'}
    item = {"urn": URN, "type": "edits:index:Thing", "custom": True, "id": "i", "protect": True, "created": "2026"}
    default = {"urn": "urn:pulumi:dev::shop::pulumi:providers:edits::default", "type": "pulumi:providers:edits"}
    theirs = of_pulumi({"resources": [default, {**item, "inputs": {"pin": secret, "n": 1.0}}]})
    assert differences(of_laptop(contents(known)), theirs) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"inputs": {"pin": "x", "n": 1}}, "inputs.pin"),
        ({"inputs": {"n": True}}, "inputs.n"),
        ({"protect": False}, "protect"),
        ({"dependencies": ["urn:x"]}, "dependencies"),
        ({"delete": True}, "only on the laptop"),
        ({"initErrors": ["x"]}, "failed"),
    ],
)
def test_each_difference_is_named(change: dict[str, object], expected: str) -> None:
    known = ResourceState(URN, id="i", inputs=Properties({"n": 1}), protect=True)
    item = {"urn": URN, "type": "edits:index:Thing", "custom": True, "id": "i", "protect": True, "inputs": {"n": 1}}
    ours = of_laptop(contents(known))
    assert differences(ours, of_pulumi({"resources": [item]})) == []
    found = differences(ours, of_pulumi({"resources": [{**item, **change}]}))
    assert found
    assert expected in found[0]


def test_pending_operations_are_part_of_the_state() -> None:
    begun = Pending("create", ResourceState(URN))
    ours = of_laptop(Contents("shop", "dev", pending={begun.key: begun}))
    assert differences(ours, of_pulumi({"pending_operations": [{"resource": {"urn": URN}, "type": "creating"}]})) == []
    assert differences(ours, {}) == [f"{URN} (creating): only on the laptop: {{}}"]


def test_a_retained_resource_counts_as_deleted() -> None:
    steps = [ResourceStep(StepKind.FORGET, URN), ResourceStep(StepKind.SKIPPED, URN)]
    assert steps_of_laptop(steps) == Counter({("delete", URN): 1})
    steps.append(ResourceStep(StepKind.REPLACE, URN))
    assert steps_of_laptop(steps) == Counter({("delete replaced", URN): 1, ("replace", URN): 1})
    assert without_deletes(steps_of_laptop(steps)) == Counter({("replace", URN): 1})


def test_a_deletion_before_that_of_a_dependent_is_found() -> None:
    used, user = ResourceState(URN, id="1"), ResourceState(URN + "2", id="2", dependencies=(URN,))
    before = of_laptop(Contents("shop", "dev", resources={each.urn: each for each in (used, user)}))
    assert wrong_order([("delete", "user", "2"), ("delete", "used", "1")], before) == []
    assert len(wrong_order([("delete", "used", "1"), ("delete", "user", "2")], before)) == 1


def test_a_failing_sequence_is_shortened_to_what_fails() -> None:
    programs = [Program((ProgramNode("a", "a", inputs={"n": n}), ProgramNode("b", "b"))) for n in range(6)]

    def fails(candidate: list[Program]) -> bool:
        values = [program.find("a").inputs["n"] for program in candidate if any(n.key == "a" for n in program.nodes)]
        return 2 in values and values[-1:] == [5]

    left = shortened(programs, fails, attempts=20)
    assert [[node.key for node in program.nodes] for program in left] == [["a"], ["a"]]
    assert [program.find("a").inputs["n"] for program in left] == [2, 5]
    assert shortened(programs, fails, attempts=0) == programs
