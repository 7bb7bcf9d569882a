from __future__ import annotations

import pytest

from laptop.engine.deployment import DeploymentError
from laptop.tests.engine.conftest import Site, kinds

PROTECTED = 'Thing("a", zone="x", opts=Opts(protect=True))\nThing("b")'


@pytest.mark.parametrize("operation", ["preview", "up"])
@pytest.mark.parametrize(
    ("program", "why"),
    [
        ('Thing("b", size=2)', "is protected and would be deleted"),
        (PROTECTED.replace('"x"', '"y"') + "\nThing('c')", "is protected and would be replaced.*`zone`"),
    ],
)
def test_a_protected_resource_is_neither_deleted_nor_replaced_and_nothing_else_is_done(
    site: Site, operation: str, program: str, why: str
) -> None:
    site.up(PROTECTED)
    before = site.cloud.things()
    site.write(program)
    with pytest.raises(DeploymentError, match=rf"Thing::a(?s:.*){why}(?s:.*)protect=False"):
        getattr(site.deployment(), operation)()
    assert site.cloud.things() == before


def test_a_protected_resource_can_be_updated_and_goes_once_the_protection_is_off(site: Site) -> None:
    site.up(PROTECTED)
    assert kinds(site.up(PROTECTED.replace('zone="x"', 'zone="x", size=5')))["a"] == "update"
    site.up(PROTECTED.replace("True", "False"))
    assert not any(known.protect for known in site.state().resources.values())
    site.up('Thing("b")')
    assert site.names() == ["b"]


def test_destroy_deletes_nothing_when_something_is_protected(site: Site) -> None:
    site.up(PROTECTED)
    with pytest.raises(DeploymentError, match=r"protected and would be deleted"):
        site.deployment().destroy()
    assert site.names() == ["a", "b"]


def test_a_dependent_that_is_protected_keeps_a_delete_before_replace_from_starting(site: Site) -> None:
    program = 'a = Named("a", name="n", zone="{}")\nThing("b", target=a.arn, opts=Opts(protect=True))'
    site.up(program.format("x"))
    before = site.cloud.things()
    with pytest.raises(DeploymentError, match=r"Thing::b"):
        site.up(program.format("y"))
    assert site.cloud.things() == before


def test_a_retained_resource_is_forgotten_and_stays_at_the_target(site: Site) -> None:
    site.up('Thing("a", opts=Opts(retain_on_delete=True))\nThing("b")')
    result = site.up('Thing("b")')
    assert kinds(result)["a"] == "forget"
    assert site.names() == ["a", "b"]
    assert not any("::a" in urn for urn in site.state().resources)


def test_the_old_copy_of_a_retained_resource_stays_when_it_is_replaced(site: Site) -> None:
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


def test_replace_on_changes_turns_an_update_into_a_replacement(site: Site) -> None:
    program = 'Thing("a", size={}, tags={{"x": 1}}, opts=Opts(replace_on_changes=["size"]))'
    site.up(program.format(1))
    result = site.up(program.format(2))
    assert kinds(result)["a"] in ("replace", "delete replaced")
    assert [verb for verb, _ in site.verbs()] == ["create", "delete"]


def test_the_program_decides_whether_the_old_copy_goes_first(site: Site) -> None:
    program = 'Thing("a", zone="{}", opts=Opts(delete_before_replace=True))'
    site.up(program.format("x"))
    site.up(program.format("y"))
    assert [verb for verb, _ in site.verbs()] == ["delete", "create"]


def test_replace_with_replaces_along_with_another(site: Site) -> None:
    program = 'a = Thing("a", zone="{}")\nThing("b", opts=Opts(replace_with=[a]))'
    site.up(program.format("x"))
    site.up(program.format("y"))
    assert ("create", "b") in site.verbs()
    assert site.names() == ["a", "b"]


def test_deleted_with_spares_the_deletion_when_the_other_one_goes_too(site: Site) -> None:
    program = 'a = Thing("a")\nThing("b", opts=Opts(deleted_with=a))'
    site.up(program)
    site.up("")
    assert site.verbs() == [("delete", "a")]
    assert site.names() == ["b"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('Thing("old")', 'Thing("new", opts=Opts(aliases=[Alias(name="old")]))'),
        ('Thing("a")', 'Thing("a", opts=Opts(parent=Group("g"), aliases=[Alias(parent=pulumi.ROOT_STACK_RESOURCE)]))'),
        ('Thing("a")', 'Thing("a", opts=Opts(parent=Group("g"), aliases=[Alias(parent=None)]))'),
        (
            'Thing("a", opts=Opts(parent=Group("g")))',
            'Group("g")\n'
            'Thing("a", opts=Opts(aliases=["urn:pulumi:dev::shop::fake:index:Group$fake:index:Thing::a"]))',
        ),
        ('Thing("a")', 'Named("a", opts=Opts(aliases=[Alias(type_="fake:index:Thing")]))'),
        (
            'g = Group("g", type_="my:g:Old")\nThing("g-a", opts=Opts(parent=g))',
            'g = Group("h", type_="my:g:New", opts=Opts(aliases=[Alias(name="g", type_="my:g:Old")]))\n'
            'Thing("h-a", opts=Opts(parent=g))',
        ),
    ],
    ids=["renamed", "moved", "moved-none", "moved-out", "retyped", "parent-renamed"],
)  # fmt: skip
def test_a_resource_that_is_renamed_or_moved_is_not_touched(site: Site, before: str, after: str) -> None:
    user = '\nThing("user", tags={"uses": "x"})'
    site.up(before + user)
    things = site.cloud.things()
    planned = site.preview(after + user)
    assert planned.counts.get("delete", 0) == planned.counts.get("replace", 0) == 0
    assert len(site.state().resources) == len({*site.state().resources})
    site.up()
    assert site.verbs() == []
    assert site.cloud.things() == things
    assert site.up().changes == ()
    assert site.verbs() == []


def test_dependencies_follow_a_renamed_resource(site: Site) -> None:
    site.up('a = Thing("a")\nThing("b", target=a.arn)')
    site.up('a = Thing("z", opts=Opts(aliases=[Alias(name="a")]))\nThing("b", target=a.arn)')
    b = next(known for urn, known in site.state().resources.items() if urn.endswith("::b"))
    assert [urn.rpartition("::")[2] for urn in b.dependencies] == ["z"]
    assert site.verbs() == []


def test_an_import_takes_over_what_exists_and_refuses_what_differs_or_is_not_there(site: Site) -> None:
    with site.cloud.open() as things:
        things["id-lake"] = {"name": "lake", "size": 7, "type": "fake:index:Thing", "arn": "arn:id-lake"}
    program = 'Thing("a", name="{}", size={}, opts=Opts(import_="{}"))'
    with pytest.raises(DeploymentError, match="there is no fake:index:Thing with the id `id-sea` to import"):
        site.up(program.format("sea", 1, "id-sea"))
    with pytest.raises(DeploymentError, match=r"differs from the fake:index:Thing `id-lake` in `size`"):
        site.up(program.format("lake", 8, "id-lake"))
    assert kinds(site.up(program.format("lake", 7, "id-lake")))["a"] == "import"
    assert kinds(site.up('Thing("a", name="lake", size=9)'))["a"] == "update"
    assert [thing["size"] for thing in site.cloud.things().values()] == [9]


def test_auto_names_stay_over_updates_and_are_new_for_a_replacement(site: Site) -> None:
    site.up('Thing("a", size=1, zone="x")')
    (first,) = site.cloud.things()
    site.up('Thing("a", size=2, zone="x")')
    assert list(site.cloud.things()) == [first]
    site.up('Thing("a", size=2, zone="y")')
    (second,) = site.cloud.things()
    assert second != first


@pytest.mark.parametrize(
    "program",
    [
        'CustomResource("fake:index:Thing", "a", {}, Opts(replacement_trigger="x"))',
        'Thing("a", code=pulumi.StringAsset("x"))',
    ],
)
def test_what_the_local_target_cannot_do_is_refused_and_not_ignored(site: Site, program: str) -> None:
    with pytest.raises(Exception, match="local target does not"):
        site.up(program)
    assert not site.cloud.things()


def test_dependencies_by_depends_on_are_kept_and_ordered(site: Site) -> None:
    site.up('a = Thing("a")\nThing("b", opts=Opts(depends_on=[a]))')
    assert site.verbs() == [("create", "a"), ("create", "b")]
    site.up("")
    assert site.verbs() == [("delete", "b"), ("delete", "a")]
