from __future__ import annotations

import pytest

from laptop.engine.deployment import DeploymentError
from laptop.engine.steps import Kind
from laptop.tests.engine.conftest import Site, kinds

BROKEN = """
a = Thing("a", fail="no room")
b = Thing("b", target=a.arn)
c = Thing("c")
d = Thing("d", target=c.arn)
pulumi.export("b", b.arn)
pulumi.export("d", d.arn)
"""


def test_a_failed_step_names_its_urn_and_reason_and_what_does_not_need_it_is_done(site: Site) -> None:
    with pytest.raises(DeploymentError) as failure:
        site.up(BROKEN)
    text = str(failure.value)
    assert "1 step(s) failed; what was done before is kept in the state" in text
    assert "urn:pulumi:dev::shop::fake:index:Thing::a\n  the cloud refuses: no room" in text
    assert site.names() == ["c", "d"]
    done = {step.name: step.kind for step in failure.value.result.steps}
    assert done["b"] is Kind.SKIPPED
    assert failure.value.result.counts == {"create": 3, "failed": 1, "skipped": 1}


def test_an_up_goes_on_where_the_failed_one_stopped(site: Site) -> None:
    with pytest.raises(DeploymentError):
        site.up(BROKEN)
    assert list(site.state().stack_resource().outputs.values) == ["d"]
    result = site.up(BROKEN.replace('fail="no room"', ""))
    assert {step.name for step in result.changes} == {"a", "b"}
    assert site.names() == ["a", "b", "c", "d"]
    assert site.up().changes == ()


def test_nothing_is_deleted_after_a_failure_and_known_outputs_stay(site: Site) -> None:
    site.up('c = Thing("c")\nThing("old")\npulumi.export("b", c.arn)')
    exported = dict(site.state().stack_resource().outputs.values)
    with pytest.raises(DeploymentError):
        site.up(BROKEN.replace('pulumi.export("d", d.arn)', ""))
    assert "old" in site.names()
    assert site.state().stack_resource().outputs.values == exported


def test_a_failed_update_is_tried_again_although_the_program_went_back(site: Site) -> None:
    site.up('Thing("a", size=1)')
    with pytest.raises(DeploymentError, match="the cloud refuses: half"):
        site.up('Thing("a", size=2, fail="half")')
    site.up('Thing("a", size=1)')
    assert site.verbs() == [("update", "a")]
    assert site.state().pending == {}
    assert site.up().changes == ()


def test_a_failed_deletion_keeps_what_it_needs_and_the_rest_goes(site: Site) -> None:
    site.up('a = Thing("a")\nThing("b", target=a.arn, stuck=True)\nThing("c")')
    with pytest.raises(DeploymentError, match=r"Thing::b\n  it is still in use"):
        site.deployment().destroy()
    assert site.names() == ["a", "b"]
    assert sorted(urn.rpartition("::")[2] for urn in site.state().resources) == ["a", "b", "shop-dev"]


def test_invalid_inputs_are_refused_in_the_plan_before_anything_is_done(site: Site) -> None:
    with pytest.raises(DeploymentError, match=r"nothing was changed(?s:.*)`bad` is not allowed: worse"):
        site.up('Thing("b")\nThing("a", bad="worse")')
    assert site.verbs() == []


def test_a_provider_that_breaks_off_is_shown_as_a_defect_and_its_step_is_taken_up_again(site: Site) -> None:
    with pytest.raises(DeploymentError, match=r"ConnectionResetError: the cloud hung up \(at cloud.py:\d+\)"):
        site.up('Thing("a", explode=True)')
    (pending,) = site.state().pending.values()
    assert pending.kind == "create"
    name = pending.resource.inputs.values["name"]
    # The broken connection may have come after the thing was made.
    with site.cloud.open() as things:
        things["id-" + name] = {"name": name, "size": 1}
    site.provider.create = _without("explode", site.provider.create)
    site.up()
    assert [thing["name"] for thing in site.cloud.things().values()] == [name]
    assert any("took up the creation" in text for text in site.told.notices)


def _without(key: str, create):
    def wrapped(urn, type_, inputs, *, resuming=False):
        return create(urn, type_, {k: v for k, v in inputs.items() if k != key}, resuming=resuming)

    return wrapped


def test_what_an_unfinished_run_may_have_made_is_deleted_when_the_program_no_longer_has_it(site: Site) -> None:
    with pytest.raises(DeploymentError):
        site.up('Thing("a", explode=True)\nThing("b")')
    (pending,) = site.state().pending.values()
    with site.cloud.open() as things:
        things["id-x"] = {"name": pending.resource.inputs.values["name"], "size": 1}
    site.provider.create = _without("explode", site.provider.create)
    site.up('Thing("b")')
    assert site.names() == ["b"]
    assert site.state().pending == {}


def test_a_creation_that_still_cannot_be_finished_does_not_block_the_stack_for_ever(site: Site) -> None:
    with pytest.raises(DeploymentError):
        site.up('Thing("a", explode=True, name="one")')
    site.provider.create = _refuse(site.provider.create)
    site.up('Thing("b")')
    assert site.names() == ["b"]
    assert site.state().pending == {}
    assert any("an earlier run was stopped" in text for text in site.told.notices)


def _refuse(create):
    from pipelines.declarations.errors import MlopsError

    def wrapped(urn, type_, inputs, *, resuming=False):
        if resuming:
            raise MlopsError("there is nothing to adopt, and no room")
        return create(urn, type_, inputs, resuming=resuming)

    return wrapped


def test_a_corrected_program_replaces_the_inputs_of_an_unfinished_creation(site: Site) -> None:
    with pytest.raises(DeploymentError):
        site.up('Thing("a", explode=True)')
    (pending,) = site.state().pending.values()
    # The creation did happen in part; it cannot be finished as it was asked for, but as it is now.
    with site.cloud.open() as things:
        things["id-part"] = {"name": pending.resource.inputs.values["name"], "size": 1}
    create = site.provider.create

    def picky(urn, type_, inputs, *, resuming=False):
        from pipelines.declarations.errors import MlopsError

        if inputs.get("explode"):
            raise MlopsError("cannot explode")
        return create(urn, type_, inputs, resuming=resuming)

    site.provider.create = picky
    site.up('Thing("a", size=4)')
    assert {key: thing["size"] for key, thing in site.cloud.things().items()} == {"id-part": 4}
    assert site.state().pending == {}


def test_rules_over_the_graph_refuse_the_plan_before_anything_is_done(site: Site) -> None:
    seen = {}

    def every_thing_has_an_owner(resources):
        seen.update({item.name: item for item in resources})
        for item in resources:
            if item.type == "fake:index:Thing" and "owner" not in item.inputs.get("tags", {}):
                yield f"{item.urn}: a thing needs the tag owner"

    program = """
        g = Group("g")
        Thing("a", tags={"owner": "ann"}, pin=pulumi.Output.secret("1234"), opts=Opts(parent=g, protect=True))
        Thing("b")
    """
    with pytest.raises(DeploymentError, match=r"1 violation(?s:.*)nothing was changed(?s:.*)Thing::b: a thing"):
        site.up(program, policies=[every_thing_has_an_owner])
    assert site.verbs() == []
    assert seen["a"].options.protect
    assert seen["a"].parent == seen["g"].urn
    assert seen["a"].secret_inputs == ("pin",)
    with pytest.raises(DeploymentError, match="violation"):
        site.preview(policies=[every_thing_has_an_owner])
    site.up(program.replace('Thing("b")', ""), policies=[every_thing_has_an_owner])
    assert kinds(site.up(policies=[every_thing_has_an_owner]))["a"] == "same"


def test_rules_see_every_value_once_it_is_known(site: Site) -> None:
    def nothing_points_at_b(resources):
        return [item.name for item in resources if str(item.inputs.get("target", "")).startswith("arn:id-b")]

    program = 'b = Thing("b")\nThing("pointer", target=b.arn)'
    with pytest.raises(DeploymentError, match=r"1 violation\(s\) of the rules, after it was applied:\n  pointer"):
        site.up(program, policies=[nothing_points_at_b])
