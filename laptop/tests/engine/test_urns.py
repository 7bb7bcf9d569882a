from __future__ import annotations

import pytest

from laptop.engine.urns import Alias, Urn, earlier_urns, make_urn

STACK = "urn:pulumi:dev::shop::pulumi:pulumi:Stack::shop-dev"
GROUP = "urn:pulumi:dev::shop::my:g:Group::store"
CHILD = "urn:pulumi:dev::shop::my:g:Group$aws:s3/bucket:Bucket::store-lake"


def test_the_urn_of_a_child_has_the_types_of_its_parent_components_but_not_of_the_stack() -> None:
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
def test_a_malformed_urn_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a URN"):
        Urn.parse(text)


LAKE = "urn:pulumi:dev::shop::aws:s3/bucket:Bucket::lake"


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        (Alias(name="pond"), "urn:pulumi:dev::shop::my:g:Group$aws:s3/bucket:Bucket::pond"),
        (
            Alias(type="aws:s3/bucketV2:BucketV2"),
            "urn:pulumi:dev::shop::my:g:Group$aws:s3/bucketV2:BucketV2::store-lake",
        ),
        (Alias(no_parent=True, name="lake"), LAKE),
        (Alias(parent=STACK, name="lake"), LAKE),
        (Alias(urn=LAKE, name="ignored"), LAKE),
        (Alias(stack="prod"), CHILD.replace("dev", "prod")),
        (Alias(project="store"), CHILD.replace("::shop", "::store")),
    ],
)
def test_an_alias_names_the_earlier_urn_by_the_parts_that_differ(alias: Alias, expected: str) -> None:
    assert earlier_urns(CHILD, GROUP, [alias], {}) == (expected,)


def test_a_child_of_a_renamed_component_was_under_its_earlier_name() -> None:
    matched = {GROUP: "urn:pulumi:dev::shop::my:g:Shop::market"}
    assert earlier_urns(CHILD, GROUP, [], matched) == (
        "urn:pulumi:dev::shop::my:g:Shop$aws:s3/bucket:Bucket::market-lake",
    )
    assert earlier_urns(CHILD, GROUP, [Alias(name="lake")], matched) == (
        "urn:pulumi:dev::shop::my:g:Group$aws:s3/bucket:Bucket::lake",
        "urn:pulumi:dev::shop::my:g:Shop$aws:s3/bucket:Bucket::market-lake",
        "urn:pulumi:dev::shop::my:g:Shop$aws:s3/bucket:Bucket::lake",
    )
