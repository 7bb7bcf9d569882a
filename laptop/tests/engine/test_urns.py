from __future__ import annotations

import pytest

from laptop.engine.urns import AliasSpec, Urn, make_urn, older_urns

STACK = "urn:pulumi:dev::shop::pulumi:pulumi:Stack::shop-dev"
GROUP = "urn:pulumi:dev::shop::my:g:Group::store"
CHILD = "urn:pulumi:dev::shop::my:g:Group$aws:s3/bucket:Bucket::store-lake"


def test_a_child_carries_the_types_of_all_components_above_it_but_not_the_stack() -> None:
    group = make_urn("dev", "shop", STACK, "my:g:Group", "store")
    inner = make_urn("dev", "shop", group, "my:g:Inner", "i")
    assert group == GROUP
    assert make_urn("dev", "shop", group, "aws:s3/bucket:Bucket", "store-lake") == CHILD
    assert make_urn("dev", "shop", inner, "a:b:C", "c").split("::")[2] == "my:g:Group$my:g:Inner$a:b:C"


def test_a_name_may_contain_double_colons() -> None:
    urn = make_urn("dev", "shop", "", "a:b:C", "x::y")
    assert Urn.parse(urn).name == "x::y"
    assert str(Urn.parse(urn)) == urn


@pytest.mark.parametrize("text", ["", "urn:pulumi:a::b", "x::y::z::w", "urn:pulumi:::b::c::d"])
def test_what_is_no_urn_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a URN"):
        Urn.parse(text)


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        (AliasSpec(name="old"), "urn:pulumi:dev::shop::my:g:Group$aws:s3/bucket:Bucket::old"),
        (AliasSpec(parent=""), "urn:pulumi:dev::shop::aws:s3/bucket:Bucket::store-lake"),
        (AliasSpec(type="a:b:Old"), "urn:pulumi:dev::shop::my:g:Group$a:b:Old::store-lake"),
        (AliasSpec(stack="prod"), "urn:pulumi:prod::shop::my:g:Group$aws:s3/bucket:Bucket::store-lake"),
        (AliasSpec(project="was"), "urn:pulumi:dev::was::my:g:Group$aws:s3/bucket:Bucket::store-lake"),
        ("urn:pulumi:a::b::c:d:E::f", "urn:pulumi:a::b::c:d:E::f"),
    ],
)
def test_an_alias_says_what_was_different(alias: AliasSpec | str, expected: str) -> None:
    assert older_urns(CHILD, GROUP, [alias], []) == (expected,)


def test_a_child_follows_the_older_names_of_its_parent() -> None:
    older = "urn:pulumi:dev::shop::my:g:Folder::shelf"
    assert older_urns(CHILD, GROUP, [], [older]) == (
        "urn:pulumi:dev::shop::my:g:Folder$aws:s3/bucket:Bucket::shelf-lake",
    )


def test_a_child_that_was_renamed_too_is_found_under_both_names() -> None:
    older = "urn:pulumi:dev::shop::my:g:Folder::shelf"
    found = older_urns(CHILD, GROUP, [AliasSpec(name="pond")], [older])
    assert "urn:pulumi:dev::shop::my:g:Folder$aws:s3/bucket:Bucket::pond" in found
    assert "urn:pulumi:dev::shop::my:g:Group$aws:s3/bucket:Bucket::pond" in found
