from __future__ import annotations

import pytest

from laptop.engine.deployment import DeploymentError
from laptop.tests.engine.conftest import Site, kinds

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
        'aliases=[Alias(name="old")]',
        "aliases=[Alias(parent=pulumi.ROOT_STACK_RESOURCE)]",
        'aliases=["urn:pulumi:dev::shop::fake:index:Thing::old"]',
        'import_="id-lake"',
        'replace_on_changes=["size"]',
        'replace_with=[Thing("other")]',
        'deleted_with=Thing("other")',
        'replacement_trigger="x"',
    ],
)
def test_an_unsupported_option_is_refused_and_not_ignored(site: Site, option: str) -> None:
    name = option.partition("=")[0]
    with pytest.raises(Exception, match=f"Thing a: the laptop does not support the resource option `{name}`"):
        site.up(f'Thing("a", opts=Opts({option}))')
    assert not site.cloud.things()


def test_an_alias_for_an_older_type_is_accepted_because_the_sdks_have_many(site: Site) -> None:
    site.up('Thing("a", opts=Opts(aliases=[Alias(type_="fake:index:ThingV2")]))')
    assert site.names() == ["a"]


def test_an_asset_is_refused(site: Site) -> None:
    with pytest.raises(Exception, match="the laptop does not support"):
        site.up('Thing("a", code=pulumi.StringAsset("x"))')
    assert not site.cloud.things()


def test_dependencies_by_depends_on_are_kept_and_ordered(site: Site) -> None:
    site.up('a = Thing("a")\nThing("b", opts=Opts(depends_on=[a]))')
    assert site.verbs() == [("create", "a"), ("create", "b")]
    site.up("")
    assert site.verbs() == [("delete", "b"), ("delete", "a")]
