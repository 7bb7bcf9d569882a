from __future__ import annotations

from typing import Any

import pytest

from laptop.engine.deployment import DeploymentError
from laptop.tests.engine.conftest import Site, kinds
from laptop.tests.engine.fake_cloud import FakeProvider

pytestmark = pytest.mark.slow

PROTECTED = 'Thing("a", zone="x", opts=Opts(protect=True))\nThing("b")'


@pytest.mark.parametrize("operation", ["preview", "up"])
@pytest.mark.parametrize(
    ("program", "why"),
    [
        ('Thing("b", size=2)', "is protected and would be deleted"),
        (PROTECTED.replace('"x"', '"y"') + "\nThing('c')", "is protected and would be replaced.*`zone`"),
    ],
)
def test_a_protected_resource_is_neither_deleted_nor_replaced_and_no_other_step_runs(
    site: Site, operation: str, program: str, why: str
) -> None:
    site.up(PROTECTED)
    before = site.cloud.things()
    site.write(program)
    with pytest.raises(DeploymentError, match=rf"Thing::a(?s:.*){why}(?s:.*)protect=False"):
        getattr(site.deployment(), operation)()
    assert site.cloud.things() == before


def test_a_protected_resource_can_be_updated_and_is_deleted_once_unprotected(site: Site) -> None:
    site.up(PROTECTED)
    assert kinds(site.up(PROTECTED.replace('zone="x"', 'zone="x", size=5')))["a"] == "update"
    site.up(PROTECTED.replace("True", "False"))
    assert not any(known.protect for known in site.state().resources.values())
    site.up('Thing("b")')
    assert site.names() == ["b"]


def test_destroy_deletes_nothing_if_a_resource_is_protected(site: Site) -> None:
    site.up(PROTECTED)
    with pytest.raises(DeploymentError, match=r"protected and would be deleted"):
        site.deployment().destroy()
    assert site.names() == ["a", "b"]


def test_a_protected_dependent_prevents_a_delete_before_replace(site: Site) -> None:
    program = 'a = Named("a", name="n", zone="{}")\nThing("b", target=a.arn, opts=Opts(protect=True))'
    site.up(program.format("x"))
    before = site.cloud.things()
    with pytest.raises(DeploymentError, match=r"Thing::b"):
        site.up(program.format("y"))
    assert site.cloud.things() == before


def test_a_retained_resource_is_forgotten_but_not_deleted(site: Site) -> None:
    site.up('Thing("a", opts=Opts(retain_on_delete=True))\nThing("b")')
    result = site.up('Thing("b")')
    assert kinds(result)["a"] == "forget"
    assert site.names() == ["a", "b"]
    assert not any("::a" in urn for urn in site.state().resources)


def test_the_old_copy_of_a_retained_resource_is_not_deleted(site: Site) -> None:
    program = 'Thing("a", zone="{}", opts=Opts(retain_on_delete=True))'
    site.up(program.format("x"))
    site.up(program.format("y"))
    assert site.names() == ["a", "a"]
    assert site.state().doomed == {}


@pytest.mark.parametrize(
    ("ignored", "change", "expected"),
    [
        ("size", 'size=2, tags={"a": {"b": 1, "c": 1}}, rows=[{"x": 1}, {"x": 1}]', "same"),
        ("tags.a.b", 'size=1, tags={"a": {"b": 2, "c": 1}}, rows=[{"x": 1}, {"x": 1}]', "same"),
        ("tags.a.b", 'size=1, tags={"a": {"b": 2, "c": 2}}, rows=[{"x": 1}, {"x": 1}]', "update"),
        ("rows[1].x", 'size=1, tags={"a": {"b": 1, "c": 1}}, rows=[{"x": 1}, {"x": 2}]', "same"),
        ("rows[1].x", 'size=1, tags={"a": {"b": 1, "c": 1}}, rows=[{"x": 2}, {"x": 2}]', "update"),
        ("rows[*].x", 'size=1, tags={"a": {"b": 1, "c": 1}}, rows=[{"x": 5}, {"x": 6}]', "same"),
        ("rows[*].x", 'size=1, tags={"a": {"b": 1, "c": 1}}, rows=[{"x": 5}]', "update"),
    ],
)
def test_ignored_changes_are_ignored_and_others_are_not(site: Site, ignored: str, change: str, expected: str) -> None:
    program = 'Thing("a", {}, opts=Opts(ignore_changes=["{}"]))'
    site.up(program.format('size=1, tags={"a": {"b": 1, "c": 1}}, rows=[{"x": 1}, {"x": 1}]', ignored))
    assert kinds(site.up(program.format(change, ignored)))["a"] == expected


def test_the_program_can_have_the_old_copy_deleted_first(site: Site) -> None:
    program = 'Thing("a", zone="{}", opts=Opts(delete_before_replace=True))'
    site.up(program.format("x"))
    site.up(program.format("y"))
    assert [verb for verb, _ in site.verbs()] == ["delete", "create"]


def test_an_auto_name_survives_updates_and_changes_on_replacement(site: Site) -> None:
    site.up('Thing("a", size=1, zone="x")')
    (first,) = site.cloud.things()
    site.up('Thing("a", size=2, zone="x")')
    assert list(site.cloud.things()) == [first]
    site.up('Thing("a", size=2, zone="y")')
    (second,) = site.cloud.things()
    assert second != first


@pytest.mark.parametrize(
    "option",
    [
        'replacement_trigger="x"',
    ],
)
def test_an_unsupported_option_is_refused_and_not_ignored(site: Site, option: str) -> None:
    name = option.partition("=")[0]
    with pytest.raises(Exception, match=f"Thing a: the laptop does not support the resource option `{name}`"):
        site.up(f'Thing("a", opts=Opts({option}))')
    assert not site.cloud.things()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('Thing("old")', 'Thing("a", opts=Opts(aliases=[Alias(name="old")]))'),
        ('Thing("old")', 'Thing("a", opts=Opts(aliases=["urn:pulumi:dev::shop::fake:index:Thing::old"]))'),
        ('Thing("a")', 'Thing("a", opts=Opts(parent=Group("g"), aliases=[Alias(parent=pulumi.ROOT_STACK_RESOURCE)]))'),
        ('Group("g"); Paper("a")', 'Group("g"); Thing("a", opts=Opts(aliases=[Alias(type_="fake:index:Paper")]))'),
        ('Thing("g-a", opts=Opts(parent=Group("g")))', 'h = Group("h", Opts(aliases=[Alias(name="g")]))\n'
         'Thing("h-a", opts=Opts(parent=h))'),
    ],
)  # fmt: skip
def test_a_renamed_resource_is_the_same_one(site: Site, before: str, after: str) -> None:
    site.up(before + '\nThing("user", target="x")')
    things = site.cloud.things()
    site.up(after + '\nThing("user", target="x")')
    assert not {("create", "a"), ("delete", "old"), ("delete", "a"), ("delete", "g-a")} & set(site.verbs())
    assert site.cloud.things() == things
    assert kinds(site.up()) == dict.fromkeys(kinds(site.preview()), "same")


def test_references_to_a_renamed_resource_follow_it_even_if_they_are_not_registered_again(site: Site) -> None:
    site.up('a = Thing("a")\nThing("b", target=a.arn)')
    program = 'Thing("c", opts=Opts(aliases=[Alias(name="a")]))\nThing("d", fail="no")'
    with pytest.raises(DeploymentError):
        site.up(program)
    (user,) = (known for known in site.state().resources.values() if known.name == "b")
    assert user.dependencies == ("urn:pulumi:dev::shop::fake:index:Thing::c",)


def test_an_update_that_did_not_end_is_repeated_after_a_renaming(site: Site) -> None:
    site.up('Thing("a", size=1)')
    with pytest.raises(DeploymentError):
        site.up('Thing("a", size=2, fail="no")')
    assert kinds(site.up('Thing("b", size=1, opts=Opts(aliases=[Alias(name="a")]))'))["b"] == "update"
    assert site.state().pending == {}


@pytest.mark.parametrize(
    "program",
    [
        'b = Thing("b", opts=Opts(aliases=[Alias(name="a")]))\n'
        'Thing("c", opts=Opts(aliases=[Alias(name="a")], depends_on=[b]))',
        'a = Thing("a")\nThing("b", opts=Opts(aliases=[Alias(name="a")], depends_on=[a]))',
        'b = Thing("b", opts=Opts(aliases=[Alias(name="a")]))\nThing("a", opts=Opts(depends_on=[b]))',
    ],
)
def test_two_resources_cannot_be_the_same_one_of_the_state(site: Site, program: str) -> None:
    site.up('Thing("a")')
    before = site.cloud.things()
    with pytest.raises(DeploymentError, match=r"are both said to be .*::a of the state(?s:.*)fix: remove the alias"):
        site.up(program)
    assert site.cloud.things() == before


def test_a_change_at_replace_on_changes_replaces(site: Site) -> None:
    program = 'Thing("a", size={}, opts=Opts(replace_on_changes=["size"]))'
    site.up(program.format(1))
    assert kinds(site.up(program.format(2)))["a"] == "delete replaced"
    assert site.verbs() == [("create", "a"), ("delete", "a")]


def test_a_dependent_follows_by_replace_on_changes_when_a_resource_is_deleted_first(site: Site) -> None:
    program = 'n = Named("n", name="n", zone="{}")\nThing("a", uses=n.arn, opts=Opts(replace_on_changes=["uses"]))'
    site.up(program.format("x"))
    site.up(program.format("y"))
    assert site.verbs() == [("delete", "a"), ("delete", "n"), ("create", "n"), ("create", "a")]


def test_replace_with_and_deleted_with_follow_a_replacement(site: Site) -> None:
    program = (
        'a = Thing("a", zone="{}")\nThing("b", opts=Opts(replace_with=[a]))\nThing("c", opts=Opts(deleted_with=a))'
    )
    site.up(program.format("x"))
    site.up(program.format("y"))
    created = [name for verb, name in site.verbs() if verb == "create"]
    assert sorted(created) == ["a", "b", "c"]
    assert ("delete", "c") not in site.verbs()  # its deletion is part of a's
    assert ("delete", "b") in site.verbs()


class Importer(FakeProvider):
    """A provider that imports."""

    def imported_inputs(self, type_: str, outputs: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in outputs.items() if key not in ("arn", "type")}


@pytest.fixture
def lake(site: Site) -> Site:
    """A site whose provider imports, with one thing that no stack manages."""
    site.provider = Importer(site.cloud)
    with site.cloud.open() as things:
        things["id-lake"] = {"name": "lake", "size": 1, "type": "fake:index:Thing", "arn": "arn:id-lake"}
    return site


def test_an_existing_resource_is_imported_then_managed(lake: Site) -> None:
    program = 'Thing("a", name="lake", size={}, opts=Opts(import_="id-lake"))'
    assert kinds(lake.up(program.format(1)))["a"] == "import"
    assert set(lake.verbs()) == {("read", "id-lake")}
    assert kinds(lake.up(program.format(1)))["a"] == "same"
    assert kinds(lake.up(program.format(2)))["a"] == "update"
    lake.up("")
    assert lake.cloud.things() == {}


def test_an_imported_resource_that_differs_from_the_program_is_changed(lake: Site) -> None:
    lake.up('Thing("a", name="lake", size=7, opts=Opts(import_="id-lake"))')
    assert lake.cloud.things()["id-lake"]["size"] == 7


def test_an_import_of_a_resource_that_does_not_exist_is_refused(lake: Site) -> None:
    with pytest.raises(DeploymentError, match=r"no fake:index:Thing with the id `sea`"):
        lake.up('Thing("a", opts=Opts(import_="sea"))')


def test_the_resource_that_a_read_one_takes_the_place_of_is_deleted(lake: Site) -> None:
    lake.up('Thing("a")')
    lake.up('Thing("a", opts=Opts(id="id-lake"))')
    assert list(lake.cloud.things()) == ["id-lake"]
    lake.up('Thing("a", opts=Opts(id="id-lake", protect=True))')
    lake.up("")
    assert list(lake.cloud.things()) == ["id-lake"]


def test_the_old_copy_of_a_renamed_resource_is_deleted_under_its_earlier_name(site: Site) -> None:
    program = '{}("{}", name="n", zone="{}", opts=Opts(aliases=[Alias(name="old")]))'
    for type_ in ("Thing", "Named"):
        site.up(program.format(type_, "old", "x").replace('name="n"', f'name="{type_}"'))
        site.up(program.format(type_, f"new-{type_}", "y").replace('name="n"', f'name="{type_}-2"'))
        assert ("delete", "old") in site.verbs()
        assert len(site.cloud.things()) == 1
        site.up("")


def test_a_provider_that_cannot_import_refuses_an_import(site: Site) -> None:
    with pytest.raises(DeploymentError, match=r"Thing a cannot be imported(?s:.*)fix: remove `import_`"):
        site.up('Thing("a", opts=Opts(import_="id-lake"))')


def test_a_replacement_gets_the_programs_value_of_an_ignored_property(site: Site) -> None:
    program = 'Thing("a", size={}, zone="{}", opts=Opts(ignore_changes=["size"]))'
    site.up(program.format(1, "x"))
    site.up(program.format(2, "x"))
    assert [thing["size"] for thing in site.cloud.things().values()] == [1]
    site.up(program.format(3, "y"))
    assert [thing["size"] for thing in site.cloud.things().values()] == [3]


def test_only_ignored_properties_keep_the_secrecy_of_their_old_values(site: Site) -> None:
    site.up('Thing("a", pin=Output.secret("1"), tags=Output.secret({"a": 1}))')
    site.up('Thing("a", pin="2", tags={"a": 1}, opts=Opts(ignore_changes=["pin"]))')
    (known,) = (known for known in site.state().resources.values() if known.name == "a")
    assert known.inputs.secrets == {("pin",)}
    assert known.inputs.values["pin"] == "1"


def test_a_component_with_new_inputs_is_updated(site: Site) -> None:
    program = 'pulumi.ComponentResource("fake:index:Group", "g", {{"n": {}}})'
    site.up(program.format(1))
    assert kinds(site.up(program.format(2)))["g"] == "update"


def test_an_asset_is_refused(site: Site) -> None:
    with pytest.raises(Exception, match="the laptop does not support"):
        site.up('Thing("a", code=pulumi.StringAsset("x"))')
    assert not site.cloud.things()


def test_dependencies_by_depends_on_are_kept_and_ordered(site: Site) -> None:
    site.up('a = Thing("a")\nThing("b", opts=Opts(depends_on=[a]))')
    assert site.verbs() == [("create", "a"), ("create", "b")]
    site.up("")
    assert site.verbs() == [("delete", "b"), ("delete", "a")]
