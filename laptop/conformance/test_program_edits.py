"""Edits of a program: the laptop's engine and Pulumi's take the same steps to the same state."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from laptop.conformance.comparison import differences
from laptop.conformance.edit_trial import Applied, Trial, play, shortened, write_project
from laptop.conformance.engines import FoundEngine
from laptop.conformance.inline_cli import InlineCli
from laptop.conformance.program_edits import (
    EDITS,
    GROUP,
    NAMED,
    PROVIDER,
    TEAM,
    THING,
    WIDGET,
    Program,
    ProgramNode,
    in_order,
    sequence,
)

pytestmark = pytest.mark.timeout(900)

SEQUENCES = 16
EDITS_EACH = 13
SHORTEN_ATTEMPTS = 12
STACKS = ("dev", "other")


@pytest.fixture(scope="session")
def template(pulumi_cli: FoundEngine, tmp_path_factory: pytest.TempPathFactory) -> InlineCli:
    """A CLI with empty stacks."""
    folder = tmp_path_factory.mktemp("template")
    write_project(folder / "project", STACKS)
    cli = InlineCli(pulumi_cli.path, folder / "pulumi", folder / "project", {})
    for stack in STACKS:
        cli.init(stack)
    return cli


@pytest.fixture
def trial(tmp_path: Path, template: InlineCli) -> Iterator[Trial]:
    with Trial(tmp_path / "trial", template, STACKS).running() as running:
        yield running


def kinds_for(number: int) -> list[str]:
    """Return the kinds of edits for a sequence; together the sequences have each kind about equally often."""
    kinds = list(itertools.islice(itertools.cycle(sorted(EDITS)), SEQUENCES * EDITS_EACH))
    Random(2026).shuffle(kinds)
    return kinds[number * EDITS_EACH : (number + 1) * EDITS_EACH]


@pytest.mark.parametrize("number", range(SEQUENCES))
def test_both_engines_take_a_sequence_of_edits_to_the_same_state(
    number: int, tmp_path: Path, template: InlineCli
) -> None:
    edits = sequence(number, EDITS_EACH + 1, kinds_for(number))
    programs = [program for _, program in edits]
    found = play(Trial(tmp_path / "trial", template), programs)
    if found is None:
        return
    index, applied = found
    attempt = itertools.count()

    def fails(candidate: list[Program]) -> bool:
        again = play(Trial(tmp_path / f"shorter-{next(attempt)}", template), candidate)
        return again is not None and again[0] == len(candidate) - 1

    shortest = shortened(programs[: index + 1], fails, SHORTEN_ATTEMPTS)
    shown = "\n".join(json.dumps(program.to_json()) for program in shortest)
    pytest.fail(f"{edits[index][0]} (edit {index}):\n" + "\n".join(applied.different) + f"\nprograms:\n{shown}")


def program(*nodes: ProgramNode, **exports: Any) -> Program:
    return in_order(Program(nodes, exports))


def ref(key: str, output: str = "arn") -> dict[str, str]:
    return {"$ref": key, "output": output}


def thing(key: str, type_: str = THING, **options: Any) -> ProgramNode:
    """Return a resource: options of `ProgramNode` by their names, and everything else as an input."""
    fields = {name: options.pop(name) for name in list(options) if name in ProgramNode.__dataclass_fields__}
    return ProgramNode(**{"key": key, "name": key, "type": type_, "inputs": options, **fields})


def component(key: str, type_: str = GROUP, **options: Any) -> ProgramNode:
    return thing(key, type_, **options)


def agree(applied: Applied, *, refused: bool = False, failed: bool = False) -> None:
    """Check that both engines did the same, and that both refused the plan or failed if that is expected."""
    assert not applied.different, "\n".join(applied.different)
    assert applied.refused == refused, applied.error
    assert bool(applied.error) == (refused or failed), applied.error or "nothing failed"


SCENARIOS: dict[str, list[Program]] = {
    "a component is renamed, and so are the children that are named after it": [
        program(component("app"), thing("app-a", parent="app"), thing("b", parent="app", uses=ref("app-a"))),
        program(
            component("app", name="shop", aliases=({"name": "app"},)),
            thing("app-a", name="shop-a", parent="app"),
            thing("b", parent="app", uses=ref("app-a")),
        ),
        program(
            component("app", name="shop"),
            thing("app-a", name="shop-a", parent="app"),
            thing("b", parent="app", uses=ref("app-a")),
        ),
    ],
    "nested components are renamed and retyped at once": [
        program(component("x"), component("y", parent="x"), thing("z", parent="y", size=1)),
        program(
            component("x", TEAM, name="x2", aliases=({"name": "x", "type": GROUP},)),
            component("y", TEAM, name="y2", parent="x", aliases=({"name": "y", "type": GROUP},)),
            thing("z", WIDGET, name="z2", parent="y", size=2, aliases=({"name": "z", "type": THING},)),
        ),
    ],
    "an alias is a URN": [
        program(thing("a"), thing("b", uses=ref("a"))),
        program(
            thing("a", name="c", aliases=({"urn": "urn:pulumi:dev::shop::edits:index:Thing::a"},)),
            thing("b", uses=ref("a")),
        ),
    ],
    "of several aliases the first that exists counts": [
        program(thing("a")),
        program(thing("a", name="c", aliases=({"name": "nobody"}, {"name": "a"}))),
        program(thing("a", name="d", aliases=({"name": "a"}, {"name": "c"}))),
    ],
    "a renamed resource is replaced": [
        program(thing("a", zone="x"), thing("b", uses=ref("a"))),
        program(thing("a", name="c", zone="y", aliases=({"name": "a"},)), thing("b", uses=ref("a"))),
    ],
    "a retyped resource is replaced, deleted first": [
        program(thing("a", zone="x"), thing("b", target=ref("a"))),
        program(
            thing("a", WIDGET, zone="y", delete_first=True, aliases=({"type": THING},)), thing("b", target=ref("a"))
        ),
    ],
    "a resource and its provider are renamed": [
        program(thing("p", PROVIDER, region="x"), thing("a", provider="p")),
        program(
            thing("p", PROVIDER, name="q", region="x", aliases=({"name": "p"},)),
            thing("a", name="b", provider="p", aliases=({"name": "a"},)),
        ),
    ],
    "dependents are deleted with a resource that is deleted first, if its change would replace them": [
        program(
            thing("n", NAMED, name="n", zone="x", inputs={"name": "fixed", "zone": "x"}),
            thing("a", target=ref("n")),
            thing("b", target=ref("a")),
            thing("c", uses=ref("a")),
            thing("d", depends_on=("n",)),
        ),
        program(
            thing("n", NAMED, inputs={"name": "fixed", "zone": "y"}),
            thing("a", target=ref("n")),
            thing("b", target=ref("a")),
            thing("c", uses=ref("a")),
            thing("d", depends_on=("n",)),
        ),
    ],
    "of the dependents that are deleted first, one leaves the program and one no longer depends": [
        program(
            thing("n", NAMED, inputs={"name": "fixed", "zone": "x"}),
            thing("a", target=ref("n")),
            thing("b", target=ref("n")),
        ),
        program(thing("b", zone="free"), thing("n", NAMED, inputs={"name": "fixed", "zone": "y"}, depends_on=("b",))),
    ],
    "replace_on_changes makes a dependent follow": [
        program(
            thing("n", NAMED, inputs={"name": "fixed", "zone": "x"}), thing("a", uses=ref("n"), replace_on=("uses",))
        ),
        program(
            thing("n", NAMED, inputs={"name": "fixed", "zone": "y"}), thing("a", uses=ref("n"), replace_on=("uses",))
        ),
    ],
    "replace_with follows a replacement": [
        program(thing("a", zone="x"), thing("b", replace_with=("a",)), thing("c", replace_with=("b",))),
        program(thing("a", zone="y"), thing("b", replace_with=("a",)), thing("c", replace_with=("b",))),
        program(thing("a", zone="y", size=2), thing("b", replace_with=("a",)), thing("c", replace_with=("b",))),
    ],
    "replace_with follows a replacement that deletes first": [
        program(thing("n", NAMED, inputs={"name": "f", "zone": "x"}), thing("b", replace_with=("n",))),
        program(thing("n", NAMED, inputs={"name": "f", "zone": "y"}), thing("b", replace_with=("n",))),
    ],
    "deleted_with saves a call, and follows a replacement": [
        program(thing("a", zone="x"), thing("b", deleted_with="a"), thing("c", deleted_with="a")),
        program(thing("a", zone="y"), thing("b", deleted_with="a"), thing("c")),
        program(thing("z")),
    ],
    "deleted_with a resource that is deleted first": [
        program(thing("n", NAMED, inputs={"name": "f", "zone": "x"}), thing("b", deleted_with="n")),
        program(thing("n", NAMED, inputs={"name": "f", "zone": "y"}), thing("b", deleted_with="n")),
    ],
    "a resource becomes a component's child without an alias": [
        program(component("g"), thing("a"), thing("b", uses=ref("a"))),
        program(component("g"), thing("a", parent="g"), thing("b", uses=ref("a"))),
    ],
    "an ignored property takes the program's value when it is replaced": [
        program(thing("a", zone="x", size=1, ignore=("size",))),
        program(thing("a", zone="x", size=2, ignore=("size",))),
        program(thing("a", zone="y", size=3, ignore=("size",))),
    ],
    "ignored properties of lists and maps": [
        program(thing("a", rows=[{"x": 1, "y": 1}, {"x": 2}], tags={"a": 1, "b": 1}, ignore=("rows[*].x", "tags.a"))),
        program(thing("a", rows=[{"x": 5, "y": 1}, {"x": 6}], tags={"a": 2, "b": 1}, ignore=("rows[*].x", "tags.a"))),
        program(thing("a", rows=[{"x": 5, "y": 2}, {"x": 6}], tags={"b": 2}, ignore=("rows[*].x", "tags.a"))),
        program(thing("a", rows=[{"x": 7}, {"x": 8}, {"x": 9}], ignore=("rows[0].x",))),
    ],
    "a retained resource is replaced and removed": [
        program(thing("a", zone="x", retain=True), thing("b")),
        program(thing("a", zone="y", retain=True), thing("b")),
        program(thing("b")),
    ],
    "secrets move": [
        program(
            thing(
                "a", password={"$secret": "hunter2hunter2"}, tags={"in": {"$text": ["<", {"$config": "token"}, ">"]}}
            ),
            thing("b", uses=ref("a"), secret_outputs=("arn",)),
            thing("c", uses=ref("b"), rows=[1, {"$secret": 2}, None]),
            first=ref("b"),
            second={"$secret": {"nested": [ref("a")]}},
        ),
        program(
            thing("a", password="open", tags={"in": {"$secret": "hunter3hunter3"}}),
            thing("b", uses=ref("a")),
            thing("c", uses={"$secret": ref("b")}, rows=[{"$secret": 1}, 2]),
            first=ref("c", "name"),
        ),
    ],
    "null, empty and unusual values": [
        program(
            thing("a", text="", none=None, empty=[], map={}, no=False, zero=0, float=1.5, big=2**53, dotted={"a.b": 1})
        ),
        program(thing("a", text="é\n", empty=[[]], map={"x": {}}, no=True, zero=1, float=1.0, dotted={"a.b": 2})),
        program(thing("a", text="é\n", empty=[[]], map={"x": {}}, no=1, zero=True, float=1, dotted={"a.b": 2})),
    ],
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_both_engines_agree_in_every_step_of_a_scenario(trial: Trial, scenario: str) -> None:
    for each in SCENARIOS[scenario]:
        agree(trial.up(each))
    agree(trial.up(SCENARIOS[scenario][-1]))
    agree(trial.destroy())


REFUSED: dict[str, tuple[Program, Program]] = {
    "a protected resource would be deleted": (program(thing("a", protect=True), thing("b")), program(thing("b"))),
    "a protected resource would be replaced": (
        program(thing("a", zone="x", protect=True)),
        program(thing("a", zone="y", protect=True)),
    ),
    "a protected dependent would be deleted first": (
        program(thing("n", NAMED, inputs={"name": "f", "zone": "x"}), thing("a", target=ref("n"), protect=True)),
        program(thing("n", NAMED, inputs={"name": "f", "zone": "y"}), thing("a", target=ref("n"), protect=True)),
    ),
    "two resources have one name": (program(thing("a")), program(thing("a"), thing("b", name="a"))),
    "two resources claim the same alias": (
        program(thing("a")),
        program(thing("b", aliases=({"name": "a"},)), thing("c", aliases=({"name": "a"},), depends_on=("b",))),
    ),
    "an alias names a resource that the program still has": (
        program(thing("a")),
        program(thing("a"), thing("b", aliases=({"name": "a"},), depends_on=("a",))),
    ),
    "a resource is registered under a name that an alias took": (
        program(thing("a")),
        program(thing("b", aliases=({"name": "a"},)), thing("a", depends_on=("b",))),
    ),
    "an input is invalid": (program(thing("a")), program(thing("a"), thing("b", invalid="x"))),
    "an imported resource does not exist": (program(thing("a")), program(thing("a"), thing("b", import_="nothing"))),
    "a resource that is read does not exist": (program(thing("a")), program(thing("a"), thing("b", read="nothing"))),
}


@pytest.mark.parametrize("why", REFUSED)
def test_both_engines_refuse_the_same_edits_and_change_nothing(trial: Trial, why: str) -> None:
    good, bad = REFUSED[why]
    agree(trial.up(good))
    agree(trial.up(bad), refused=True)
    agree(trial.up(good))


def found(*names: str) -> Callable[[dict[str, Any]], None]:
    """Return a change that adds things to a cloud."""

    def add(things: dict[str, Any]) -> None:
        for name in names:
            things[name] = {"name": name, "arn": f"arn:{name}", "grade": "standard", "size": 1}

    return add


def test_both_engines_import_alike(trial: Trial) -> None:
    trial.change_clouds(found("lake", "river"))
    lake = thing("a", import_="lake", inputs={"name": "lake", "size": 1})
    agree(trial.up(program(lake, thing("b", uses=ref("a")))))
    agree(trial.up(program(lake, thing("b", uses=ref("a")))))
    agree(trial.up(program(replace(lake, import_=""), thing("b", uses=ref("a")))))
    river = thing("r", import_="river", inputs={"name": "river", "size": 7})
    agree(trial.up(program(river, thing("b"))))
    agree(trial.up(program(replace(river, import_="", inputs={"name": "river", "size": 8}), thing("b"))))
    agree(trial.destroy())


def test_both_engines_read_alike_and_take_over_alike(trial: Trial) -> None:
    trial.change_clouds(found("lake", "river"))
    agree(trial.up(program(thing("a", read="lake"), thing("b", uses=ref("a")))))
    agree(trial.up(program(thing("a", read="river"), thing("b", uses=ref("a")))))
    agree(trial.up(program(thing("a", size=3), thing("b", uses=ref("a")))))
    agree(trial.up(program(thing("a", read="lake"), thing("b"))))
    agree(trial.up(program(thing("b"))))
    assert {"lake", "river"} <= trial.ours.things().keys()


def test_both_engines_see_and_correct_drift_alike(trial: Trial) -> None:
    edited = program(
        thing("a", size=1, tags={"x": 1}),
        thing("b", uses=ref("a"), password={"$secret": "hunter2hunter2"}),
        thing("c", zone="x"),
        thing("gone", size=1),
        thing("d", uses=ref("gone")),
    )
    agree(trial.up(edited))

    def drift(things: dict[str, Any]) -> None:
        things["a-0#0"]["size"] = 9
        things["a-0#0"]["tags"] = {"x": 1, "y": 2}
        things["b-0#0"]["password"] = "changed-by-somebody"
        things["c-0#0"]["zone"] = "y"
        del things["gone-0#0"]

    trial.change_clouds(drift)
    agree(trial.refresh())
    agree(trial.up(edited))
    agree(trial.refresh())
    agree(trial.up(edited))


CHAIN = program(thing("a", size=1), thing("b", uses=ref("a")), thing("c", target=ref("b"), zone="x"), thing("e"))
CHANGED = program(
    thing("a", size=2), thing("b", uses=ref("a"), size=5), thing("c", target=ref("b"), zone="y"), thing("f")
)


@pytest.mark.parametrize(
    "call",
    [("create", "c"), ("update", "a"), ("update", "b"), ("delete", "c"), ("delete", "e"), ("create", "f")],
    ids=" ".join,
)
def test_after_a_failure_both_engines_end_in_the_same_state(trial: Trial, call: tuple[str, str]) -> None:
    agree(trial.up(CHAIN))
    trial.refuse(call)
    deletes = call[0] == "delete"
    agree(trial.up(CHANGED, deletes=deletes), failed=True)
    trial.refuse()
    agree(trial.up(CHANGED, deletes=deletes))
    agree(trial.up(CHANGED))


@pytest.mark.parametrize("call", [("create", "a"), ("create", "b"), ("create", "e")], ids=" ".join)
def test_after_a_failure_of_the_first_update_both_engines_end_in_the_same_state(
    trial: Trial, call: tuple[str, str]
) -> None:
    trial.refuse(call)
    agree(trial.up(CHAIN, deletes=False), failed=True)
    trial.refuse()
    agree(trial.up(CHAIN))


@pytest.mark.parametrize("call", [("delete", "a"), ("delete", "c")], ids=" ".join)
def test_after_a_failed_destroy_both_engines_end_in_the_same_state(trial: Trial, call: tuple[str, str]) -> None:
    agree(trial.up(CHAIN))
    trial.refuse(call)
    agree(trial.destroy(), failed=True)
    trial.refuse()
    agree(trial.destroy())


# One step at a time, so a kill hits nothing else: the file backend of the CLI does not survive a kill while it writes.
KILLED = program(
    thing("a", size=1),
    thing("b", uses=ref("a")),
    thing("c", NAMED, inputs={"name": "c", "zone": "x", "uses": ref("b")}),
    thing("e", depends_on=("c",)),
)
KILLING = program(
    thing("a", size=2),
    thing("b", uses=ref("a"), size=5),
    thing("c", NAMED, inputs={"name": "c", "zone": "y", "uses": ref("b")}),
    thing("f", NAMED, inputs={"name": "f"}, depends_on=("c",)),
)
KILLS = [
    (moment, verb, name)
    for moment in ("before", "after")
    for verb, name in [("update", "a"), ("delete", "c"), ("create", "c"), ("create", "f"), ("delete", "e")]
]


@pytest.mark.parametrize(("moment", "verb", "name"), KILLS, ids=[" ".join(kill) for kill in KILLS])
def test_after_a_kill_both_engines_end_in_the_same_state(trial: Trial, moment: str, verb: str, name: str) -> None:
    trial.ours.adopts = trial.theirs.adopts = True
    agree(trial.up(KILLED))
    trial.kill(KILLING, moment, verb, name)
    recovered = trial.up(KILLING)  # by other steps: the laptop's engine first ends what was pending
    assert not recovered.error
    ours, theirs = trial.laptop_state(), trial.pulumi_state()
    # Pulumi keeps a pending creation in the state until a refresh.
    assert not differences(ours, {key: record for key, record in theirs.items() if not key.endswith(" (creating)")})
    assert trial.ours.things() == trial.theirs.things()
    trial.destroy()
    assert trial.ours.things() == trial.theirs.things() == {}


def test_a_protected_stack_is_not_destroyed(trial: Trial) -> None:
    agree(trial.up(program(thing("a"), thing("b", uses=ref("a"), protect=True))))
    applied = trial.destroy()
    assert applied.error
    assert "is protected" in applied.error
    assert "protect" in applied.pulumi


def test_both_engines_pass_outputs_between_stacks_alike(trial: Trial) -> None:
    shown = {"$secret": ref("a")}
    agree(trial.up(program(thing("a"), plain=ref("a"), hidden=shown), stack="other"))
    name = "organization/shop/other"
    user = program(
        thing(
            "b",
            uses={"$stack": name, "output": "plain"},
            password={"$stack": name, "output": "hidden"},
        ),
        again={"$stack": name, "output": "hidden"},
    )
    agree(trial.up(user))
    agree(trial.up(program(thing("a", size=2, zone="new"), plain=ref("a"), hidden=shown), stack="other"))
    agree(trial.up(user))
    agree(trial.destroy())
