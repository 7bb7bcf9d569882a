from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from infra.policies import UNKNOWN, PlannedResource
from laptop.engine.deployment import DeploymentError
from laptop.engine.provider import Created, IncompleteError, ResourceCall
from laptop.engine.resource_steps import StepKind
from laptop.tests.engine.conftest import Site, kinds
from laptop.tests.engine.fake_cloud import FakeProvider
from pipelines.declarations.errors import MlopsError

Create = Callable[[ResourceCall], Created]

BROKEN = """
a = Thing("a", fail="no room")
b = Thing("b", target=a.arn)
c = Thing("c")
d = Thing("d", target=c.arn)
pulumi.export("b", b.arn)
pulumi.export("d", d.arn)
"""


def exported_by(site: Site) -> dict[str, Any]:
    """Return the outputs of the stack in its state."""
    stack = site.state().stack_resource()
    assert stack is not None
    return dict(stack.outputs.values)


def test_a_failed_step_is_reported_and_independent_steps_still_run(site: Site) -> None:
    with pytest.raises(DeploymentError) as failure:
        site.up(BROKEN)
    text = str(failure.value)
    assert "1 step(s) failed; completed steps are in the state" in text
    assert "urn:pulumi:dev::shop::fake:index:Thing::a\n  the cloud refuses: no room" in text
    assert site.names() == ["c", "d"]
    done = {step.name: step.kind for step in failure.value.result.steps}
    assert done["b"] is StepKind.SKIPPED
    assert failure.value.result.counts == {"create": 3, "failed": 1, "skipped": 1}


def test_an_up_continues_after_a_failed_one(site: Site) -> None:
    with pytest.raises(DeploymentError):
        site.up(BROKEN)
    assert list(exported_by(site)) == ["d"]
    result = site.up(BROKEN.replace('fail="no room"', ""))
    assert {step.name for step in result.changes} == {"a", "b"}
    assert site.names() == ["a", "b", "c", "d"]
    assert site.up().changes == ()


def test_nothing_is_deleted_after_a_failure_and_known_outputs_stay(site: Site) -> None:
    site.up('c = Thing("c")\nThing("old")\npulumi.export("b", c.arn)')
    exported = exported_by(site)
    with pytest.raises(DeploymentError):
        site.up(BROKEN.replace('pulumi.export("d", d.arn)', ""))
    assert "old" in site.names()
    assert exported_by(site) == exported


def test_a_failed_update_is_repeated_even_if_the_program_is_reverted(site: Site) -> None:
    site.up('Thing("a", size=1)')
    with pytest.raises(DeploymentError, match="the cloud refuses: half"):
        site.up('Thing("a", size=2, fail="half")')
    site.up('Thing("a", size=1)')
    assert site.verbs() == [("update", "a")]
    assert site.state().pending == {}
    assert site.up().changes == ()


def test_a_failed_deletion_keeps_its_dependencies_and_the_rest_is_deleted(site: Site) -> None:
    site.up('a = Thing("a")\nThing("b", target=a.arn, stuck=True)\nThing("c")')
    with pytest.raises(DeploymentError, match=r"Thing::b\n  it is still in use"):
        site.deployment().destroy()
    assert site.names() == ["a", "b"]
    assert sorted(urn.rpartition("::")[2] for urn in site.state().resources) == ["a", "b", "shop-dev"]


def test_invalid_inputs_are_refused_in_the_plan_before_any_step(site: Site) -> None:
    with pytest.raises(DeploymentError, match=r"nothing was changed(?s:.*)`bad` is not allowed: worse"):
        site.up('Thing("b")\nThing("a", bad="worse")')
    assert site.verbs() == []


def test_an_unexpected_error_is_shown_with_its_place_and_its_step_is_resumed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeploymentError, match=r"ConnectionResetError: the cloud hung up \(at fake_cloud.py:\d+\)"):
        site.up('Thing("a", explode=True)')
    (pending,) = site.state().pending.values()
    assert pending.kind == "create"
    name = pending.resource.inputs.values["name"]
    # The connection may have broken after the thing was created.
    with site.cloud.open() as things:
        things["id-" + name] = {"name": name, "size": 1}
    monkeypatch.setattr(site.provider, "create", _without("explode", site.provider.create))
    site.up()
    assert [thing["name"] for thing in site.cloud.things().values()] == [name]
    assert any("finished the create" in text for text in site.progress.notices)


def _without(key: str, create: Create) -> Create:
    def wrapped(call: ResourceCall) -> Created:
        return create(replace(call, inputs={k: v for k, v in call.inputs.items() if k != key}))

    return wrapped


def test_a_resource_whose_create_failed_after_it_was_made_is_taken_up(site: Site) -> None:
    def unreadable(moment: str, what: str) -> None:
        if (moment, what) == ("after", "create a"):
            raise IncompleteError("it cannot be read", "id-a", {})

    site.provider = FakeProvider(site.cloud, unreadable)
    with pytest.raises(DeploymentError, match=r"Thing::a\n  it cannot be read$"):
        site.up('Thing("a")')
    made = site.cloud.things()
    assert len(made) == 1
    site.provider = FakeProvider(site.cloud)
    site.up('Thing("a")')
    assert site.cloud.things().keys() == made.keys()
    assert site.state().pending == {}


def test_a_resource_of_an_unfinished_run_is_deleted_once_the_program_no_longer_has_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeploymentError):
        site.up('Thing("a", explode=True)\nThing("b")')
    (pending,) = site.state().pending.values()
    with site.cloud.open() as things:
        things["id-x"] = {"name": pending.resource.inputs.values["name"], "size": 1}
    monkeypatch.setattr(site.provider, "create", _without("explode", site.provider.create))
    site.up('Thing("b")')
    assert site.names() == ["b"]
    assert site.state().pending == {}


def test_a_create_that_cannot_be_finished_does_not_block_the_stack(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeploymentError):
        site.up('Thing("a", explode=True, name="one")')
    monkeypatch.setattr(site.provider, "create", _refuse(site.provider.create))
    site.up('Thing("b")')
    assert site.names() == ["b"]
    assert site.state().pending == {}
    assert any("an earlier run stopped while creating" in text for text in site.progress.notices)


def _refuse(create: Create) -> Create:
    def wrapped(call: ResourceCall) -> Created:
        if call.resuming:
            raise MlopsError("there is nothing to adopt, and no room")
        return create(call)

    return wrapped


def test_a_corrected_program_replaces_the_inputs_of_an_unfinished_create(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeploymentError):
        site.up('Thing("a", explode=True)')
    (pending,) = site.state().pending.values()
    # The create happened in part; it can be finished with the new inputs only.
    with site.cloud.open() as things:
        things["id-part"] = {"name": pending.resource.inputs.values["name"], "size": 1}
    create = site.provider.create

    def picky(call: ResourceCall) -> Created:
        if call.inputs.get("explode"):
            raise MlopsError("cannot explode")
        return create(call)

    monkeypatch.setattr(site.provider, "create", picky)
    site.up('Thing("a", size=4)')
    assert {key: thing["size"] for key, thing in site.cloud.things().items()} == {"id-part": 4}
    assert site.state().pending == {}


def test_a_policy_violation_refuses_the_plan_before_any_step(site: Site) -> None:
    seen: dict[str, PlannedResource] = {}

    def every_thing_has_an_owner(resources: Sequence[PlannedResource]) -> Iterator[str]:
        seen.update({item.name: item for item in resources})
        for item in resources:
            if item.type == "fake:index:Thing" and "owner" not in item.props.get("tags", {}):
                yield f"{item.urn}: a thing needs the tag owner"

    program = """
        g = Group("g")
        Thing("a", tags={"owner": "ann"}, pin=pulumi.Output.secret("1234"), opts=Opts(parent=g, protect=True))
        Thing("b")
    """
    with pytest.raises(DeploymentError, match=r"1 policy violation(?s:.*)nothing was changed(?s:.*)Thing::b: a thing"):
        site.up(program, policies=[every_thing_has_an_owner])
    assert site.verbs() == []
    assert seen["a"].protect
    assert seen["a"].parent == seen["g"].urn
    assert seen["a"].props["pin"] == "1234"
    with pytest.raises(DeploymentError, match="violation"):
        site.preview(policies=[every_thing_has_an_owner])
    site.up(program.replace('Thing("b")', ""), policies=[every_thing_has_an_owner])
    assert kinds(site.up(policies=[every_thing_has_an_owner]))["a"] == "same"


class _Previewing(FakeProvider):
    """A provider that names the outputs of a resource before it exists."""

    def computed(self, type_: str) -> Iterable[str]:
        return ["arn", "size"]


def test_policies_see_outputs_and_never_the_inputs_of_a_component(site: Site) -> None:
    seen: list[dict[str, PlannedResource]] = []

    def look(resources: Sequence[PlannedResource]) -> list[str]:
        seen.append({item.name: item for item in resources})
        return []

    program = """
        class Marked(ComponentResource):
            def __init__(self, name, outputs=None):
                super().__init__("fake:index:Marked", name, {"given": "in"})
                if outputs is not None:
                    self.register_outputs(outputs)
        Marked("registering", {"mark": Thing("a", size=2).arn})
        Marked("silent")
    """
    site.provider = _Previewing(site.cloud)
    site.up(program, policies=[look])
    planned, applied = seen
    assert planned["a"].at("arn") is UNKNOWN
    assert planned["a"].at("size") == 2
    assert planned["registering"].props.keys() == {"mark"}
    assert planned["registering"].at("mark") is UNKNOWN
    assert planned["silent"].props == {}
    arn = site.state().resources[applied["a"].urn].outputs.values["arn"]
    assert applied["a"].at("arn") == applied["registering"].at("mark") == arn
    site.preview(program.replace("size=2", "size=3"), policies=[look])
    assert seen[-1]["a"].at("arn") == arn
    assert seen[-1]["a"].at("size") == 3


def test_policies_see_every_value_once_it_is_known(site: Site) -> None:
    def nothing_points_at_b(resources: Sequence[PlannedResource]) -> list[str]:
        return [item.name for item in resources if str(item.props.get("target", "")).startswith("arn:id-b")]

    program = 'b = Thing("b")\nThing("pointer", target=b.arn)'
    with pytest.raises(DeploymentError, match=r"1 policy violation\(s\); found after the update:\n  pointer"):
        site.up(program, policies=[nothing_points_at_b])
